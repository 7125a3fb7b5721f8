"""Sorts, sums of segments and rows by their places: against formulas in float64, at the ends of windows, with any number of threads; indices out of range on every device."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import gpugrad as gg
from gpugrad import backend, kernels
from gpugrad.cuda import emulator, refusals
from gpugrad.kernels import segments, segments_cpu
from gpugrad.tape import Tensor, plain

F = gg.nn.functional
RNG = np.random.default_rng(4)
TWINS = ["reference", "cpu", pytest.param("cuda", marks=pytest.mark.skipif(not emulator.is_available(), reason="needs g++"))]
every_twin = pytest.mark.parametrize("twin", TWINS)


@pytest.fixture(params=TWINS)
def twin(request: pytest.FixtureRequest) -> Iterator[str]:
    with kernels.use(request.param):
        yield request.param


def summed(values: Any, places: Any, count: int) -> Any:
    """In longdouble, one after the other."""
    y = np.zeros((count, values.shape[1]), np.longdouble)
    np.add.at(y, places, values.astype(np.longdouble))
    return y


# ------------------------------------------------------------------------------------------------- the sort


@pytest.mark.parametrize("count", [1, 2, 255, 256, 257, 65536, 65537, 2**31 + 5])
@pytest.mark.parametrize("n", [0, 1, 1000, 3 * 2**14 + 7])
def test_the_sort_is_stable(n: int, count: int) -> None:
    places = RNG.integers(-count, count, n)
    keys = segments_cpu.sorted_keys(places, count, "test")
    order = np.argsort(places % count, kind="stable")
    assert_array_equal(keys & (2**32 - 1), order)
    assert_array_equal(keys >> 32, (places % count)[order])


# ------------------------------------------------------------------------------------------------- sums


WINDOWS = sorted({size + d for w in (segments.WINDOW, segments_cpu.WINDOW) for size in (w, 2 * w, 3 * w) for d in (-1, 0, 1)})


@pytest.mark.parametrize("width", [1, 3, 8])
def test_segments_that_begin_and_end_anywhere_in_windows(twin: str, width: int) -> None:
    """Each length alone, and behind and before segments of other lengths."""
    for n in WINDOWS:
        for begin in (0, 1, n // 2, n - 1):
            places = np.repeat([0, 1, 3], [begin, n - begin, 1])
            values = RNG.normal(size=(n + 1, width))
            assert_allclose(
                segments.segment_sum(values, places, count=5), summed(values, places, 5).astype(float), rtol=1e-12, atol=1e-12, err_msg=f"{n} {begin}"
            )


@pytest.mark.parametrize("n, count, width", [(5000, 1, 2), (5000, 5000, 1), (3000, 100, 17), (300, 10**6, 2), (40, 3, 4096), (5000, 7, 1)])
def test_sums_of_random_places(twin: str, n: int, count: int, width: int) -> None:
    values, places = RNG.normal(size=(n, width)).astype(np.float32), RNG.integers(-count, count, n)
    y = segments.segment_sum(values, places, count=count)
    assert y.dtype == np.float32
    assert_allclose(y, summed(values, places, count).astype(float), rtol=2e-7, atol=1e-6)


@pytest.mark.parametrize("width", [1, 2])
def test_a_million_rows_of_one_place_keep_their_digits(width: int) -> None:
    values = np.full((10**6, width), 0.1, np.float32)
    y = segments.segment_sum(values, np.zeros(10**6, int), count=2)
    assert_array_equal(y, [[np.float32(np.float64(np.float32(0.1)) * 10**6)] * width, [0] * width])


def test_what_cancels_is_not_lost() -> None:
    """1e8, then many ones, then -1e8: in float32 the ones would be gone."""
    values = np.ones((3002, 1), np.float32)
    values[0], values[-1] = 1e8, -1e8
    with kernels.use("cpu"):
        assert segments.segment_sum(values, np.zeros(3002, int), count=1)[0, 0] == 3000


def test_infinities_and_nan_stay_in_their_place(twin: str) -> None:
    values = np.array([[np.inf, 1.0], [1.0, np.nan], [-np.inf, 1.0], [2.0, 2.0], [-0.0, 3.0]])
    y = segments.segment_sum(values, np.array([0, 1, 0, 3, 2]), count=4)
    assert_array_equal(y, [[np.nan, 2], [1, np.nan], [0, 3], [2, 2]])


def test_layouts(twin: str) -> None:
    values, places = RNG.normal(size=(600, 6)), RNG.integers(0, 5, 600)
    expected = summed(values, places, 5).astype(float)
    for v in (np.asfortranarray(values), np.repeat(values, 2, 0)[::2], values[::-1][::-1], values.astype(values.dtype.newbyteorder())):
        for p in (places, np.repeat(places, 2)[::2], places[::-1].copy()[::-1]):
            assert_allclose(segments.segment_sum(v, p, count=5), expected, rtol=1e-12)
            assert_array_equal(segments.gather(v, p[:50]), values[places[:50]])


def test_the_place_that_is_left_out(twin: str) -> None:
    values, places = RNG.normal(size=(2000, 3)), RNG.integers(0, 4, 2000)
    y, whole = (segments.segment_sum(values, places, count=4, skip=skip) for skip in (2, None))
    assert_array_equal(y, np.where(np.arange(4)[:, None] == 2, 0, whole))
    x = RNG.normal(size=(4, 3))
    x[2] = np.nan
    assert_array_equal(segments.gather(x, places, skip=2), np.where(places[:, None] == 2, 0, x[places]))


@pytest.mark.parametrize("threads", ["1", "2", "5"])
def test_the_same_bits_on_any_number_of_threads(threads: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Large enough that threads are used, for the sort and for long segments."""
    values = RNG.normal(size=(100_000, 5)).astype(np.float32)
    places = np.where(RNG.random(100_000) < 0.5, 3, RNG.integers(0, 1000, 100_000))
    expected = segments.segment_sum(values, places, count=1000)
    monkeypatch.setitem(os.environ, "GPUGRAD_NUM_THREADS", threads)
    assert segments.segment_sum(values, places, count=1000).tobytes() == expected.tobytes()


# ------------------------------------------------------------------------------------------------- what is out of range


def test_nothing_is_read_out_of_range_on_a_cpu(twin: str) -> None:
    if twin == "cuda":
        pytest.skip("the emulator is a GPU in this")
    x = np.ones((3000, 2))
    for bad in (3000, -3001, 2**62, -(2**63)):
        places = np.array([0, 1, bad, 2])
        with pytest.raises(IndexError, match=f"mine: got index {bad} at position 2, expected -3000 to 2999"):
            segments.gather(x, places, name="mine")
        with pytest.raises(IndexError, match=f"mine: got index {bad} at position 2, expected -3000 to 2999"):
            segments.segment_sum(np.ones((4, 2000)), places, count=3000, name="mine")
    with pytest.raises(IndexError, match="got index -1 at position 1, expected 0 to 2999"):
        segments.gather(x, np.array([0, -1]), from_end=False)


@pytest.mark.skipif(not emulator.is_available(), reason="needs g++")
def test_a_gpu_refuses_later(fake_cupy: Any) -> None:
    """The kernel notes it; the next number that the host looks at raises, and so does the next operation with indices."""
    weight = gg.tensor(fake_cupy.ones((5, 3), np.float32), requires_grad=True)
    good, bad = fake_cupy.asarray(np.array([0, 4])), fake_cupy.asarray(np.array([0, 5, -1]))
    rows = F.embedding(bad, weight)
    assert np.isnan(rows.data.get()[1:]).all() and (rows.data.get()[0] == 1).all()
    with pytest.raises(IndexError, match=r"embedding: got index (5 at position 1|-1 at position 2), expected 0 to 4"):
        rows.numpy()
    assert_array_equal(F.embedding(good, weight).numpy(), np.ones((2, 3)))  # said once
    for look in (lambda v: float(gg.sum(v)), lambda v: v.numpy(), lambda v: bool(gg.sum(v)), lambda v: gg.sum(v).item(), lambda _: gg.cuda.synchronize()):
        v = F.embedding(bad, weight)
        with pytest.raises(IndexError, match="embedding"):
            look(v)
    F.embedding(bad, weight)
    with pytest.raises(IndexError, match="embedding"):
        F.embedding(good, weight)


@pytest.mark.skipif(not emulator.is_available(), reason="needs g++")
@pytest.mark.parametrize(
    "call, index",
    [
        (lambda x, i: x[i], 4),
        (lambda x, i: x[i, 1], -5),
        (lambda x, i: x[:, i], 3),
        (lambda x, i: x[..., i], -4),
        (lambda x, i: x[None, i, None, 0], 9),
        (lambda x, i: gg.take(x, i, axis=1), 3),
        (lambda x, i: gg.take(x, i), 12),
        (lambda x, i: gg.take(gg.astype(x, np.int64), i, axis=0), 4),
        (lambda x, i: gg.take_along_axis(x, i[None], 1), 3),
        (lambda x, i: x.at[i].add(1.0), 4),
        (lambda x, i: x.at[i].set(1.0), 4),
        (lambda x, i: x.at[:, i].multiply(2.0), -4),
        (lambda x, i: F.one_hot(i, 4), 4),
        (lambda x, i: F.one_hot(i, 4), -1),
    ],
)
def test_every_operation_refuses_on_a_gpu(call: Any, index: int, fake_cupy: Any) -> None:
    x, i = gg.tensor(fake_cupy.arange(12, dtype=np.float32).reshape(4, 3), requires_grad=True), fake_cupy.asarray(np.array([0, 1, index]))
    with pytest.raises(IndexError, match=rf"got index {index} at position \d, expected -?\d+ to \d+"):
        y = call(x, i)
        if type(y) is Tensor and y.dtype == np.float32:
            gg.sum(y).backward()
        backend.to_device(plain(y), "cpu")
    refusals.raise_noted()


@pytest.mark.skipif(not emulator.is_available(), reason="needs g++")
def test_on_a_gpu_what_is_out_of_range_is_added_nowhere(fake_cupy: Any) -> None:
    values, places = fake_cupy.ones((300, 2), np.float32), fake_cupy.asarray(np.repeat([0, 7, 2], 100))
    y = segments.segment_sum(values, places, count=3)
    with pytest.raises(IndexError, match=r"scatter_add: got index 7 at position 1\d\d, expected -3 to 2"):
        backend.to_device(y, "cpu")
    assert_array_equal(backend.to_device(y, "cpu"), [[100, 100], [0, 0], [100, 100]])


def test_the_reference_of_a_gpu(fake_cupy: Any) -> None:
    """Integers, for which no CUDA kernel is: exact, and they wrap as NumPy's do."""
    values, places = RNG.integers(-(2**62), 2**62, (3000, 2)), RNG.integers(0, 7, 3000)
    expected = np.zeros((7, 2), np.int64)
    np.add.at(expected, places, values)
    assert_array_equal(segments.segment_sum(values, places, count=7), expected)
    assert_array_equal(segments.segment_sum(fake_cupy.asarray(values), fake_cupy.asarray(places), count=7).get(), expected)
