"""DataLoader: every example once an epoch, resumed bit for bit, a thread that ends, and copies to a GPU that nobody reads too early."""

from __future__ import annotations

import gc
import json
import os
import threading
import time
import traceback
from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

import gpugrad as gg
from gpugrad import backend, random
from gpugrad.data import DataLoader, Subset, TensorDataset, minibatches

X, Y = np.arange(20.0).reshape(10, 2), np.arange(10)
quick = settings(max_examples=40, deadline=None)


def host(x):
    return backend.to_device(x, "cpu")


def numbers(batches):
    """The examples of each batch, by their last array."""
    return [host(batch[-1]).tolist() for batch in batches]


def flat(lists):
    return [x for xs in lists for x in xs]


def loader(n=10, batch_size=4, **options):
    return DataLoader(TensorDataset(np.arange(n)), batch_size, **options)


def data_threads():
    return [t for t in threading.enumerate() if t.name == "gpugrad-data"]


class Squares:
    """A dataset of one example at a time."""

    def __init__(self, n=10, delay=0.0, fail_at=None, error=None):
        self.n, self.delay, self.fail_at, self.error, self.asked = n, delay, fail_at, error or KeyError("gone"), []

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        assert type(i) is int
        self.asked.append(i)
        time.sleep(self.delay)
        if i == self.fail_at:
            raise self.error
        return np.array([i, i * i]), i


# ------------------------------------------------------------------------------------------------- an epoch


@quick
@given(st.integers(1, 40), st.integers(1, 12), st.booleans(), st.booleans(), st.integers(0, 3), st.integers(0, 5))
def test_every_example_comes_once_an_epoch(n, batch_size, shuffle, drop_last, prefetch, seed):
    if drop_last and n < batch_size:
        return
    batches = loader(n, batch_size, shuffle=shuffle, drop_last=drop_last, prefetch=prefetch, generator=random.Generator(seed))
    for _ in range(2):
        got = numbers(batches)
        assert len(got) == len(batches) == (n // batch_size if drop_last else -(-n // batch_size))
        assert all(len(b) == batch_size for b in got[:-1])
        seen = flat(got)
        assert len(set(seen)) == len(seen) == (len(batches) * batch_size if drop_last else n)
        assert set(seen) <= set(range(n))
        assert shuffle or seen == list(range(len(seen)))
    assert not data_threads()


def test_each_epoch_has_an_order_of_its_own_and_a_seed_gives_it_again():
    a, b, other = (loader(100, 100, shuffle=True, generator=random.Generator(seed)) for seed in (1, 1, 2))
    first, second = numbers(a), numbers(a)
    assert first != second
    assert [first, second] == [numbers(b), numbers(b)]
    assert numbers(other) != first
    assert numbers(loader(100, 100, shuffle=True)) == numbers(loader(100, 100, shuffle=True, generator=random.Generator(0)))


def test_the_library_wide_generator_is_left_alone():
    random.seed(3)
    expected = random.normal().item()
    random.seed(3)
    list(loader(shuffle=True))
    assert random.normal().item() == expected


def test_batches_are_plain_arrays_on_the_device(device, put):
    for arrays in ((X, Y), (put(X), put(Y)), (gg.tensor(X), gg.tensor(Y))):
        for prefetch in (None, 0, 2):
            batches = list(DataLoader(TensorDataset(*arrays), 4, device=device, prefetch=prefetch))
            assert [backend.device_of(x) for batch in batches for x in batch] == [backend.device_name(device)] * 6
            assert all(type(batch) is tuple and backend.is_array(x) for batch in batches for x in batch)
            assert_array_equal(np.concatenate([host(x) for x, _ in batches]), X)
            assert_array_equal(np.concatenate([host(y) for _, y in batches]), Y)


def test_batches_stay_where_the_dataset_is(device, put):
    (x,) = next(iter(DataLoader(put(X), 4)))
    assert backend.device_of(x) == backend.device_name(device)
    (x,) = next(iter(DataLoader(put(X), 4, device="cpu")))
    assert type(x) is np.ndarray


@pytest.mark.parametrize("shuffle", [False, True])
def test_writing_into_a_batch_does_not_change_the_dataset(shuffle, device, put):
    x = put(X)
    for (batch,) in DataLoader(x, 5, shuffle=shuffle):
        batch *= 0
    assert_array_equal(host(x), X)


def test_dtypes_are_kept_and_big_endian_numbers_arrive(device):
    arrays = [np.ones((6, 2), dtype) for dtype in ("float16", "float32", "int8", "bool", "complex64", ">f4", ">i8")] + [np.ones((6, 0))]
    for prefetch in (0, 2):
        for batch in DataLoader(TensorDataset(*arrays), 4, device=device, prefetch=prefetch):
            assert [x.dtype.newbyteorder("=") for x in batch] == [a.dtype.newbyteorder("=") for a in arrays]
            assert all(bool((host(x) == 1).all()) for x in batch)


def test_nested_subsets():
    inner = Subset(TensorDataset(Y), [9, 8, 7, 1, 0])
    assert numbers(DataLoader(Subset(inner, [0, -1, 3]), 2)) == [[9, 0], [1]]
    assert numbers(DataLoader(Subset(Subset(Squares(), [9, 8, 7]), [2, 0]), 2)) == [[7, 9]]


# ------------------------------------------------------------------------------------------------- one example at a time


@pytest.mark.parametrize("prefetch", [0, 2])
def test_examples_are_collated(prefetch, device):
    batches = list(DataLoader(Squares(5), 2, device=device, prefetch=prefetch))
    assert [host(x).tolist() for x, _ in batches] == [[[0, 0], [1, 1]], [[2, 4], [3, 9]], [[4, 16]]]
    assert flat(numbers(batches)) == list(range(5))
    (batch,) = DataLoader([{"x": 1.5, "n": [np.ones(2), gg.ones(2)]}, {"n": [np.zeros(2), gg.zeros(2)], "x": 2.5}], 2, device=device, prefetch=prefetch)
    assert host(batch["x"]).tolist() == [1.5, 2.5]
    assert batch["x"].dtype == np.float32
    assert [host(x).tolist() for x in batch["n"]] == [[[1, 1], [0, 0]]] * 2
    (batch,) = DataLoader([np.ones(3), np.zeros(3)], 2, device=device, prefetch=prefetch)
    assert [x.shape for x in batch] == [(2, 3)]


def test_a_dataset_may_take_rows_at_once():
    class Rows:
        takes_rows = True

        def __len__(self):
            return 6

        def __getitem__(self, rows):
            assert isinstance(rows, np.ndarray)
            return [rows, rows * 2]

    assert [(x.tolist(), y.tolist()) for x, y in DataLoader(Rows(), 4)] == [([0, 1, 2, 3], [0, 2, 4, 6]), ([4, 5], [8, 10])]


def test_examples_that_do_not_fit_together():
    with pytest.raises(ValueError, match=r"must have one shape, got \(2,\) and \(3,\): pad them"):
        list(DataLoader([np.ones(2), np.ones(3)], 2))
    for examples, what in (
        ([(1, 2), (1,)], "tuple of 2 and, as number 1, tuple of 1"),
        ([{"x": 1}, {"x": 1}, {"y": 1}], r"dict of \['x'\] and, as number 2, dict of \['y'\]"),
        ([(1, 2), 3], "tuple of 2 and, as number 1, int"),
        ([(1, (2, 3)), (1, (2,))], "tuple of 2 and, as number 1, tuple of 1"),
    ):
        with pytest.raises(ValueError, match=f"must have one structure, got {what}"):
            list(DataLoader(examples, 4))
    with pytest.raises(TypeError, match="expected numbers, got an array of object"):
        list(DataLoader([np.array([None])], 1))
    with pytest.raises(TypeError, match="cannot make an array of str"):
        list(DataLoader([("a", 1), ("b", 1)], 2))
    with pytest.raises(TypeError, match=r"requires grad.*\.detach\(\)"):
        list(DataLoader([gg.tensor([1.0], requires_grad=True)], 1))


# ------------------------------------------------------------------------------------------------- errors of use


def test_what_is_refused():
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        DataLoader(TensorDataset(X), 0)
    with pytest.raises(TypeError, match="float"):
        DataLoader(TensorDataset(X), 2.5)
    with pytest.raises(ValueError, match="the dataset is empty: TensorDataset of length 0"):
        DataLoader(TensorDataset(X[:0]), 2)
    with pytest.raises(ValueError, match=r"prefetch must be 0 .* got -1"):
        DataLoader(X, 2, prefetch=-1)
    with pytest.raises(ValueError, match="drop_last leaves no batch: the dataset has 10 examples, batch_size is 11"):
        DataLoader(X, 11, drop_last=True)
    with pytest.raises(TypeError, match=r"has __len__ and __getitem__\(i\), got generator: an iterable has no order to shuffle"):
        DataLoader((x for x in X), 2, shuffle=True)
    with pytest.raises(TypeError, match="got dict"):
        DataLoader({"x": X}, 2)
    with pytest.raises(TypeError, match=r"got a tuple of 2 arrays: wrap it, TensorDataset"):
        DataLoader((X, Y), 2)
    with pytest.raises(ValueError, match="unknown device 'gpu'"):
        DataLoader(X, 2, device="gpu")


# ------------------------------------------------------------------------------------------------- resuming


@quick
@given(st.integers(1, 30), st.integers(1, 9), st.booleans(), st.integers(0, 3), st.data())
def test_resume_at_any_point_gives_the_same_examples(n, batch_size, shuffle, prefetch, choose):
    make = lambda: loader(n, batch_size, shuffle=shuffle, prefetch=prefetch, generator=random.Generator(5))
    whole, resumed = make(), make()
    epochs, batches = choose.draw(st.integers(0, 2)), choose.draw(st.integers(0, len(whole)))
    for _ in range(epochs):
        list(whole)
    running = iter(whole)
    list(islice(running, batches))
    state = json.loads(json.dumps(whole.state_dict()))
    rest = numbers(running)
    resumed.load_state_dict(state)
    again = json.loads(json.dumps(resumed.state_dict()))
    assert again == state
    assert numbers(resumed) == (rest if batches else numbers(make_epoch(make, epochs)))
    assert numbers(resumed) == numbers(whole)


def make_epoch(make, epochs):
    fresh = make()
    for _ in range(epochs):
        list(fresh)
    return fresh


def test_batches_fetched_ahead_are_not_counted():
    batches = loader(20, 2, prefetch=5)
    running = iter(batches)
    next(running)
    time.sleep(0.05)
    assert batches.state_dict()["epoch"]["batches"] == 1
    assert numbers(running)[0] == [2, 3]


def test_a_loop_that_was_left_is_over_here_and_after_resuming():
    a, b = (loader(shuffle=True) for _ in "ab")
    for _ in a:
        break
    b.load_state_dict(json.loads(json.dumps(a.state_dict())))
    assert a.state_dict()["epoch"] is None
    assert flat(numbers(a)) == flat(numbers(b))
    assert sorted(flat(numbers(a))) == list(range(10))


def test_a_generator_that_others_draw_from_resumes_too():
    a, b = (loader(shuffle=True, generator=random.Generator(1)) for _ in "ab")
    running = iter(a)
    next(running)
    noise = a.generator.normal().item()
    b.load_state_dict(a.state_dict())
    assert numbers(running) == numbers(b)
    assert noise != a.generator.normal().item() == b.generator.normal().item()
    assert numbers(a) == numbers(b)


def test_loading_ends_the_iteration_under_way():
    a = loader(shuffle=True)
    running = iter(a)
    next(running)
    a.load_state_dict(loader(shuffle=True).state_dict())
    with pytest.raises(RuntimeError, match="ended this one"):
        next(running)
    assert numbers(a) == numbers(loader(shuffle=True))


def test_state_of_another_loader_is_refused():
    state = loader(shuffle=True).state_dict()
    for other, what in (
        (loader(11, shuffle=True), "examples 10 there and 11 here"),
        (loader(batch_size=5, shuffle=True), "batch_size 4 there and 5 here"),
        (loader(), "shuffle True there and False here"),
        (loader(shuffle=True, drop_last=True), "drop_last False there and True here"),
    ):
        with pytest.raises(ValueError, match=f"that of another DataLoader: {what}"):
            other.load_state_dict(state)
    for broken in (
        {},
        {**state, "generator": {}},
        {**state, "epoch": {}},
        {**state, "epoch": {"generator": {}, "batches": 1}},
        {**state, "epoch": 3},
        {**state, "epoch": {"generator": state["generator"], "batches": 4}},
    ):
        fresh = loader(shuffle=True)
        with pytest.raises(ValueError, match="cannot load the state of a"):
            fresh.load_state_dict(broken)
        assert fresh.state_dict() == loader(shuffle=True).state_dict()


# ------------------------------------------------------------------------------------------------- two loops


@pytest.mark.parametrize("prefetch", [0, 2])
def test_a_new_loop_ends_the_old_one(prefetch):
    batches = loader(prefetch=prefetch)
    old = iter(batches)
    next(old)
    assert flat(numbers(batches)) == list(range(10))
    with pytest.raises(RuntimeError, match="another iteration over this DataLoader has begun since"):
        next(old)
    with pytest.raises(RuntimeError, match="use a DataLoader for each loop"):
        list(zip(batches, batches))
    assert flat(numbers(batches)) == list(range(10))
    assert not data_threads()


# ------------------------------------------------------------------------------------------------- the thread


def test_prefetch_works_ahead_by_its_number_and_no_more():
    dataset = Squares(40)
    running = iter(DataLoader(dataset, 2, prefetch=3))
    next(running)
    for _ in range(1000):
        time.sleep(0.005)
        if len(dataset.asked) >= 8:
            break
    time.sleep(0.01)
    assert len(dataset.asked) == 2 * (1 + 3)
    next(running)
    running.close()
    assert not data_threads()


def test_a_thread_is_used_where_it_pays(device, put):
    def used(dataset, batch_size=4, **options):
        running = iter(DataLoader(dataset, batch_size, **options))
        next(running)
        return bool(data_threads())

    assert not used(X)
    assert used(X, prefetch=1)
    assert used(np.zeros((400, 1000)), 100)
    assert not used(np.zeros((400, 1000)), 100, prefetch=0)
    assert used(Squares())
    on_gpu = device != "cpu"
    assert used(X, device=device) == on_gpu
    assert not used(put(X)) if on_gpu else True
    assert not used(put(X), prefetch=2) if on_gpu else True


@pytest.mark.parametrize("prefetch", [0, 1, 3])
@pytest.mark.parametrize("error", [KeyError("gone"), IndexError("beyond"), KeyboardInterrupt()], ids=lambda e: type(e).__name__)
def test_exceptions_arrive_in_order_with_their_traceback(prefetch, error, device):
    seen = []
    with pytest.raises(type(error)) as caught:
        for batch in DataLoader(Squares(fail_at=7, error=error), 2, device=device, prefetch=prefetch):
            seen += host(batch[1]).tolist()
    assert caught.value is error
    assert seen == [0, 1, 2, 3, 4, 5]
    assert "raise self.error" in "".join(traceback.format_tb(caught.value.__traceback__))
    assert not data_threads()


@pytest.mark.parametrize("prefetch", [0, 2])
def test_stop_iteration_of_a_dataset_does_not_end_the_epoch_quietly(prefetch):
    with pytest.raises(RuntimeError, match="StopIteration"):
        list(DataLoader(Squares(fail_at=5, error=StopIteration()), 2, prefetch=prefetch))


def test_an_error_that_nobody_asks_for_ends_the_thread():
    for batch in DataLoader(Squares(fail_at=3), 2, prefetch=2):
        assert batch[1].tolist() == [0, 1]
        break
    assert not data_threads()


def leave_by_break(batches):
    for _ in batches:
        break


def leave_by_exception(batches):
    with pytest.raises(ZeroDivisionError):
        for _ in batches:
            1 / 0  # noqa: B018


def leave_by_close(batches):
    running = iter(batches)
    next(running)
    running.close()


def leave_by_dropping(batches):
    next(iter(batches))


def leave_in_a_cycle(batches):
    cycle = [iter(batches)]
    next(cycle[0])
    cycle.append(cycle)
    del cycle
    gc.collect()


def never_begin(batches):
    iter(batches)


@pytest.mark.parametrize("leave", [leave_by_break, leave_by_exception, leave_by_close, leave_by_dropping, leave_in_a_cycle, never_begin])
def test_leaving_early_ends_the_thread(leave, device):
    dataset = Squares(1000, delay=0.0002)
    batches = DataLoader(dataset, 2, device=device, prefetch=2)
    for _ in range(3):
        leave(batches)
        assert not data_threads()
        asked = len(dataset.asked)
        time.sleep(0.005)
        assert len(dataset.asked) == asked  # the dataset's file may be closed now
        assert batches.state_dict()["epoch"] is None


def test_the_dataset_and_batches_are_let_go():
    import weakref

    dataset = Squares()
    gone = weakref.ref(dataset)
    batches = DataLoader(dataset, 2, prefetch=2)
    next(iter(batches))
    del batches, dataset
    assert gone() is None


def test_errstate_goes_to_the_thread():
    class Divides(Squares):
        def __getitem__(self, i):
            return np.ones(1) / np.zeros(1)

    with np.errstate(all="raise"), pytest.raises(FloatingPointError):
        list(DataLoader(Divides(), 2, prefetch=2))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_the_child_of_a_fork_goes_on_by_itself():
    running = iter(loader(20, 2, shuffle=True, prefetch=2))
    next(running)
    read, write = os.pipe()
    child = os.fork()
    if not child:
        os.write(write, json.dumps(numbers(running)).encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        got = json.loads(pipe.read())
    assert os.waitpid(child, 0)[1] == 0
    assert got == numbers(running)


# ------------------------------------------------------------------------------------------------- the way to a GPU, on the stand-in


def streams(cp):
    return cp.cuda.Stream.null, cp.cuda.Stream(non_blocking=True), cp.cuda.Stream.ptds


@pytest.mark.parametrize("which", [0, 1, 2], ids=["null stream", "own stream", "per-thread stream"])
@pytest.mark.parametrize("prefetch", [0, 1, 4])
def test_batches_have_arrived_when_work_on_the_current_stream_reads_them(which, prefetch, fake_cupy):
    with streams(fake_cupy)[which]:
        kept = list(DataLoader(TensorDataset(X, Y), 3, device="cuda", prefetch=prefetch))  # all held: no pinned buffer may be written to twice too early
        assert_array_equal(np.concatenate([x.get() for x, _ in kept]), X)
        assert flat(numbers(kept)) == Y.tolist()


def test_a_thread_does_not_queue_work_on_a_stream_that_it_cannot_name(fake_cupy, monkeypatch):
    """The per-thread default stream is another one in each thread: there the thread takes rows, and the consumer copies them."""
    from gpugrad.data import prefetch

    monkeypatch.setattr(prefetch, "_Upload", None)
    with fake_cupy.cuda.Stream.ptds:
        running = iter(DataLoader(TensorDataset(X, Y), 4, device="cuda", prefetch=2))
        first = next(running)
        assert data_threads()
        assert flat(numbers([first, *running])) == Y.tolist()
    with pytest.raises(TypeError, match="NoneType"):
        next(iter(DataLoader(X, 4, device="cuda", prefetch=2)))


def test_a_copy_runs_on_a_side_stream_between_two_events(fake_cupy, monkeypatch):
    """The memory is the consumer's, the side stream waits for what the consumer has queued, and the consumer for the copy."""
    cp, log = fake_cupy, []
    consumer = cp.cuda.Stream(non_blocking=True)
    name = lambda stream: "consumer" if stream == consumer else "side"
    empty, record, wait, put = cp.empty, cp.cuda.Stream.record, cp.cuda.Stream.wait_event, cp.ndarray.set
    monkeypatch.setattr(cp, "empty", lambda *a: log.append(f"allocate on {name(cp.cuda.get_current_stream())}") or empty(*a))
    monkeypatch.setattr(cp.cuda.Stream, "record", lambda s, e=None: log.append(f"record on {name(s)}") or record(s, e))
    monkeypatch.setattr(cp.cuda.Stream, "wait_event", lambda s, e: log.append(f"{name(s)} waits for {name(e._point[0])}") or wait(s, e))
    monkeypatch.setattr(cp.ndarray, "set", lambda a, b, stream: log.append(f"copy on {name(stream)}") or put(a, b, stream))
    with consumer:
        list(DataLoader(X, 10, device="cuda", prefetch=1))
    assert log == [
        "allocate on consumer",
        "record on consumer",
        "side waits for consumer",
        "copy on side",
        "record on side",
        "consumer waits for side",
    ]


def test_another_stream_in_the_middle_of_an_epoch(fake_cupy, monkeypatch):
    cp = fake_cupy
    a, b = cp.cuda.Stream(non_blocking=True), cp.cuda.Stream(non_blocking=True)
    batches = DataLoader(TensorDataset(X, Y), 2, device="cuda", prefetch=2)
    got, copies = [], []
    copy = cp.ndarray.copy
    monkeypatch.setattr(cp.ndarray, "copy", lambda x: copies.append(cp.cuda.get_current_stream()) or copy(x))
    running = iter(batches)
    for stream in (a, a, b, b, b):
        with stream:
            got.append(next(running))
    assert flat(numbers(got)) == Y.tolist()
    assert copies
    assert set(copies) == {b}  # memory that was allocated for a's work moved to b's


def test_pinned_buffers_outlive_their_copies(fake_cupy, monkeypatch):
    """A consumer that is far behind: nothing has been copied when the last batch has been fetched."""
    from gpugrad.data import prefetch

    monkeypatch.setattr(prefetch._Upload, "receive", lambda self, sent: sent.copies)  # waits for nothing
    kept = [x for (x,) in DataLoader(X, 1, device="cuda", prefetch=3)]
    assert_array_equal(np.concatenate([x.get() for x in kept]), X)


def test_arrays_on_a_gpu_are_indexed_there(fake_cupy, monkeypatch):
    cp = fake_cupy
    batches = DataLoader(Subset(TensorDataset(cp.asarray(X), cp.asarray(Y)), [1, 3, 5, 7, 9]), 2, shuffle=True)
    moved = []
    asarray, get = cp.asarray, cp.ndarray.get
    monkeypatch.setattr(cp, "asarray", lambda *a, **k: moved.append(a[0].nbytes) or asarray(*a, **k))
    monkeypatch.setattr(cp.ndarray, "get", lambda *a: pytest.fail("an array came to the host"))
    kept = list(batches)
    assert moved == [5 * 8]  # the order, once an epoch
    monkeypatch.setattr(cp.ndarray, "get", get)
    assert sorted(flat(numbers(kept))) == [1, 3, 5, 7, 9]


def test_a_dataset_derived_from_tensor_dataset_stays_on_its_gpu(fake_cupy):
    class Doubled(TensorDataset):
        def __getitem__(self, rows):
            assert isinstance(rows, fake_cupy.ndarray)
            return tuple(2 * x for x in super().__getitem__(rows))

    running = iter(DataLoader(Doubled(fake_cupy.asarray(Y)), 4))
    assert numbers([next(running)]) == [[0, 2, 4, 6]]
    assert not data_threads()


def test_a_second_gpu(fake_cupy):
    for prefetch in (0, 2):
        batches = list(DataLoader(TensorDataset(X, Y), 4, device="cuda:1", prefetch=prefetch))
        assert {backend.device_of(x) for batch in batches for x in batch} == {"cuda:1"}
        assert flat(numbers(batches)) == Y.tolist()
        with fake_cupy.cuda.Device(1):
            home = fake_cupy.asarray(X)
        assert {backend.device_of(x) for (x,) in DataLoader(home, 4)} == {"cuda:1"}


def test_work_of_a_dataset_on_the_gpu_runs_on_the_consumers_stream(fake_cupy):
    cp, seen = fake_cupy, []

    class OnGpu:
        def __len__(self):
            return 4

        def __getitem__(self, i):
            seen.append(cp.cuda.get_current_stream())
            return cp.ones(2) * i, i

    stream = cp.cuda.Stream(non_blocking=True)
    with stream:
        batches = list(DataLoader(OnGpu(), 2, device="cuda", prefetch=2))
    assert set(seen) == {stream}
    assert flat(numbers(batches)) == [0, 1, 2, 3]


def test_repr_says_what_it_is():
    assert repr(loader(shuffle=True)) == "DataLoader(TensorDataset(int64(10,)), batch_size=4, shuffle=True, drop_last=False): 3 batches"


@pytest.mark.gpu
@pytest.mark.parametrize("which", [0, 1, 2], ids=["null stream", "own stream", "per-thread stream"])
def test_on_a_gpu_that_lags_behind_nothing_is_read_or_overwritten_too_early(which):
    cp = backend.cupy()
    x = np.random.default_rng(0).integers(0, 100, (4096, 2048)).astype(np.float32)
    with streams(cp)[which]:
        busy, seen = cp.ones((1024, 1024), np.float32), []
        for (batch,) in DataLoader(x, 256, device="cuda", prefetch=3):
            for _ in range(20):
                busy = busy @ busy * np.float32(1 / 1024)
            seen.append(batch.sum(axis=1))  # exact: integers below 2^24
            del batch  # its memory goes back to the pool while the GPU still works on it
        got = cp.concatenate(seen).get()
    assert_array_equal(got, x.sum(axis=1))


# ------------------------------------------------------------------------------------------------- minibatches


def test_minibatches_see_everything_once(device):
    x = gg.asarray(np.arange(20.0).reshape(10, 2), device=device)
    y = gg.asarray(np.arange(10), device=device)
    for a, b in ((x, y), (x.data, y.data)):
        batches = list(minibatches(a, b, 4, random.Generator(0)))
        assert [len(xb) for xb, _ in batches] == [4, 4, 2]
        seen = []
        for xb, yb in batches:
            assert type(xb) is type(a)
            seen += np.asarray(gg.asarray(yb).numpy()).tolist()
            assert_array_equal(gg.asarray(xb).numpy()[:, 0], 2 * gg.asarray(yb).numpy())
        assert sorted(seen) == list(range(10))
    with pytest.raises(ValueError, match="10 rows of x and 3 of y"):
        next(minibatches(x, y[:3], 4))
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        next(minibatches(x, y, 0))
