"""Checkpoints: whole or not there, whatever happens while they are written; refused in one line where they are damaged, hostile or of another architecture."""

import contextlib
import errno
import json
import os
import shutil
import zlib
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import gpugrad as gg
from gpugrad import io, nn, optim, training
from gpugrad.training import checkpoint as module
from gpugrad.training import packing
from gpugrad.training.checkpoint import CheckpointError, latest_checkpoint, load_checkpoint, read_checkpoint, save_checkpoint


def model(*sizes, activation="relu", **options):
    return nn.MLP(list(sizes or (3, 4, 2)), activation, **options)


def names(directory):
    return sorted(os.listdir(directory))


def one_line(error):
    message = str(error.value)
    assert "\n" not in message
    return message


# ------------------------------------------------------------------------------------------------- there and back


def test_what_is_saved_is_loaded(tmp_path, device):
    a, b = model(device=device), model(device=device)
    optimizer = optim.AdamW(a.parameters())
    a(gg.ones((2, 3), dtype=np.float32, device=device)).sum().backward()
    optimizer.step()
    path = save_checkpoint(tmp_path / "new" / "run", 7, model=a, optimizer=optimizer, notes={"losses": [1.5, float("nan")]}, nothing=None)
    assert path == str(tmp_path / "new" / "run" / "checkpoint-000007") == latest_checkpoint(tmp_path / "new" / "run")
    assert names(path) == ["state.json", "tensors.safetensors"]
    other = optim.AdamW(b.parameters(), lr=7.0)
    held = load_checkpoint(tmp_path / "new" / "run", model=b, optimizer=other, schedule=None)
    assert list(held) == ["model", "optimizer", "notes"]
    assert held["notes"]["losses"][0] == 1.5 and np.isnan(held["notes"]["losses"][1])
    for p, q in zip(a.parameters(), b.parameters()):
        assert_array_equal(p.numpy(), q.numpy())
        assert q.device == p.device
        assert_array_equal(gg.Tensor(other.state[q]["exp_avg"]).numpy(), gg.Tensor(optimizer.state[p]["exp_avg"]).numpy())
    assert other.param_groups[0]["lr"] == 1e-3
    assert read_checkpoint(path)["gpugrad"] == gg.__version__
    json.loads((tmp_path / "new/run/checkpoint-000007/state.json").read_text(), parse_constant=pytest.fail)  # strict JSON


def test_the_last_few_are_kept(tmp_path):
    for n in range(1, 6):
        save_checkpoint(tmp_path, n, keep=2, n=n)
    assert names(tmp_path) == ["checkpoint-000004", "checkpoint-000005"]
    save_checkpoint(tmp_path, 12_345_678, keep=None, n=0)  # numbers may grow out of their six digits
    assert len(names(tmp_path)) == 3
    assert latest_checkpoint(tmp_path).endswith("checkpoint-12345678")


def test_numbers_are_not_negative(tmp_path):
    with pytest.raises(ValueError, match="the number of a checkpoint must be at least 0, got -1"):
        save_checkpoint(tmp_path, -1)


def test_only_checkpoints_are_removed(tmp_path):
    for name in ("checkpoint-1", "checkpoint-abcdef", "checkpoint-000001.bak", "notes.txt", "checkpoint-" + 6 * "\u0660"):
        (tmp_path / name).mkdir()
    (tmp_path / "checkpoint-000000").write_text("a file")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "checkpoint-000001").symlink_to(tmp_path / "elsewhere")
    before = names(tmp_path)
    save_checkpoint(tmp_path, 2, keep=1, n=2)
    save_checkpoint(tmp_path, 3, keep=1, n=3)
    assert names(tmp_path) == sorted([*before, "checkpoint-000003"])


def test_a_good_checkpoint_is_not_overwritten(tmp_path):
    save_checkpoint(tmp_path, 1, n=1)
    with pytest.raises(CheckpointError, match="exists already: give another directory, or continue from it"):
        save_checkpoint(tmp_path, 1, n=2)
    assert load_checkpoint(tmp_path)["n"] == 1
    (tmp_path / "checkpoint-000001" / "state.json").write_text("{")
    save_checkpoint(tmp_path, 1, n=3)  # a damaged one is
    assert load_checkpoint(tmp_path)["n"] == 3


# ------------------------------------------------------------------------------------------------- killed while writing


class KilledError(BaseException):
    """In the place of SIGKILL: nothing is cleaned up behind it."""


CALLS = [(os, "mkdir"), (os, "rename"), (os, "replace"), (os, "fsync"), (os, "rmdir"), (shutil, "rmtree"), (os, "remove"), (os, "unlink")]


@contextlib.contextmanager
def killed_at(call, late):
    """Die at this call of the file system, before it (or behind it, if ``late``); calls after that do nothing."""
    made, originals = [], [(place, name, getattr(place, name)) for place, name in CALLS]

    def wrap(original):
        def wrapped(*args, **options):
            made.append(original)
            if len(made) > call + 1:
                return None
            try:
                return original(*args, **options) if len(made) <= call or late else None
            finally:
                if len(made) == call + 1:
                    raise KilledError

        return wrapped

    for place, name, original in originals:
        setattr(place, name, wrap(original))
    try:
        yield made
    except KilledError:
        pass
    finally:
        for place, name, original in originals:
            setattr(place, name, original)


@pytest.mark.parametrize("late", [False, True])
def test_dying_at_any_call_of_the_file_system_leaves_the_last_good_one(tmp_path, late, capsys):
    with killed_at(10**6, late) as made:
        for n in (1, 2):
            save_checkpoint(tmp_path / "count", n, keep=1, n=n)
    assert len(made) > 20
    for call in range(len(made)):
        directory, last = tmp_path / str(call), 0
        with killed_at(call, late):
            for n in (1, 2):
                save_checkpoint(directory, n, keep=1, model=model(), n=n)
                last = n
        found = load_checkpoint(directory)["n"] if latest_checkpoint(directory) else 0
        assert found in (last, last + 1)
        save_checkpoint(directory, 3, keep=1, n=3)
        assert names(directory) == ["checkpoint-000003"]  # what the dead one left is gone
    assert capsys.readouterr().err == ""


@pytest.mark.skipif(os.name == "nt", reason="folders are not put on the disk there")
def test_everything_is_on_the_disk_before_the_rename_and_the_rename_after_it(tmp_path, monkeypatch):
    events, fsync, rename = [], os.fsync, os.rename
    monkeypatch.setattr(os, "fsync", lambda handle: (events.append(os.fstat(handle).st_ino), fsync(handle))[1])
    monkeypatch.setattr(os, "rename", lambda a, b: (events.append("rename"), rename(a, b))[1])
    path = Path(save_checkpoint(tmp_path, 1, model=model()))
    tensors, state, folder, directory = (p.stat().st_ino for p in (path / "tensors.safetensors", path / "state.json", path, tmp_path))
    assert events == [tensors, state, folder, "rename", directory]


def test_what_a_living_process_writes_is_left_alone(tmp_path):
    save_checkpoint(tmp_path, 1, n=1)
    living, dead = tmp_path / f".checkpoint-000002.{os.getppid()}.partial", tmp_path / ".checkpoint-000002.99999999999.partial"
    living.mkdir()
    dead.mkdir()
    save_checkpoint(tmp_path, 2, n=1)
    assert living.exists() and not dead.exists()


# ------------------------------------------------------------------------------------------------- disks that are full, directories that are not writable


@pytest.fixture
def one_there(tmp_path):
    """A directory with a checkpoint, which must be there unchanged in the end."""
    path = save_checkpoint(tmp_path, 1, model=model())
    before = {name: Path(path, name).read_bytes() for name in names(path)}
    yield tmp_path
    assert names(tmp_path) == ["checkpoint-000001"]
    assert {name: Path(path, name).read_bytes() for name in names(path)} == before


def test_a_full_disk(one_there, monkeypatch):
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    monkeypatch.setattr(os, "fsync", lambda *_: (_ for _ in ()).throw(full))
    with pytest.raises(CheckpointError) as error:
        save_checkpoint(one_there, 2, model=model())
    assert one_line(error).endswith("checkpoint-000002': No space left on device; the checkpoints before it are untouched")


def test_a_disk_that_is_full_after_hours_leaves_model_and_history(tmp_path, monkeypatch):
    net, batch = model(), (np.ones((2, 3), np.float32), np.zeros(2, np.int64))

    class Fill(training.Callback):
        def on_epoch_begin(self, run):
            if run.epoch == 3:
                monkeypatch.setattr(os, "fsync", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space left on device")))

    with pytest.raises(CheckpointError, match="No space left on device") as error:
        training.fit(net, nn.CrossEntropyLoss(), optim.SGD(net.parameters(), 0.1), [batch], epochs=9, checkpoint=tmp_path, callbacks=[Fill()])
    assert len(error.value.history) == 3
    assert names(tmp_path) == ["checkpoint-000001", "checkpoint-000002"]
    read_checkpoint(tmp_path / "checkpoint-000002")


def test_a_file_that_may_not_grow_so_large(one_there):
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(CheckpointError) as error:
            save_checkpoint(one_there, 2, model=model(100, 100))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "File too large; the checkpoints before it are untouched" in one_line(error)


def test_what_cannot_be_stored(one_there):
    with pytest.raises(CheckpointError) as error:
        save_checkpoint(one_there, 2, things={"list": [1, {2, 3}]})
    assert "things/list/1 is of type set: expected None, bool" in one_line(error)


def test_directories_that_cannot_be_written_to(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match=r"cannot write checkpoints to '.*file': File exists") as error:
        save_checkpoint(tmp_path / "file", 1, n=1)
    one_line(error)
    with pytest.raises(CheckpointError, match=r"cannot write checkpoints to '.*run': Not a directory"):
        save_checkpoint(tmp_path / "file" / "run", 1, n=1)
    with pytest.raises(CheckpointError, match="null"):
        save_checkpoint("a\0b", 1, n=1)
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    if not os.access(closed, os.W_OK):  # root writes everywhere
        with pytest.raises(CheckpointError, match="Permission denied"):
            save_checkpoint(closed, 1, n=1)


def test_fit_finds_out_before_it_trains(tmp_path):
    (tmp_path / "file").write_text("")
    net, batch = model(), (np.ones((2, 3), np.float32), np.zeros(2, np.int64))
    before = net.state_dict()["0.weight"].numpy().copy()
    with pytest.raises(CheckpointError, match="cannot write checkpoints"):
        training.fit(net, nn.CrossEntropyLoss(), optim.SGD(net.parameters(), 0.1), [batch], epochs=1, checkpoint=tmp_path / "file")
    assert_array_equal(net.state_dict()["0.weight"].numpy(), before)


# ------------------------------------------------------------------------------------------------- damaged ones


def damage(path, name, change):
    file = path / "checkpoint-000002" / name
    if change is None:
        file.unlink()
    else:
        file.write_bytes(change(file.read_bytes()))


def flip(content, at):
    at %= len(content)
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


DAMAGES = {
    "cut short": lambda b: b[: len(b) // 2], "cut by a byte": lambda b: b[:-1], "empty": lambda b: b"", "zeros": lambda b: bytes(len(b)),
    "a bit in the middle": lambda b: flip(b, len(b) // 2), "a bit at the end": lambda b: flip(b, -3), "gone": None, "other text": lambda b: b"\xff\xfe{}",
}  # fmt: skip


@pytest.mark.parametrize("name", ["state.json", "tensors.safetensors"])
@pytest.mark.parametrize("what", DAMAGES)
def test_a_damaged_one_is_passed_over_with_a_line(tmp_path, capsys, name, what):
    for n in (1, 2):
        save_checkpoint(tmp_path, n, n=n, values=np.arange(100.0))
    damage(tmp_path, name, DAMAGES[what])
    assert latest_checkpoint(tmp_path) == str(tmp_path / "checkpoint-000001")
    warning = capsys.readouterr().err
    assert warning.startswith("gpugrad: passed over a damaged checkpoint: cannot read ") and warning.count("\n") == 1
    assert load_checkpoint(tmp_path)["n"] == 1
    with pytest.raises(CheckpointError, match=r"cannot read '.*checkpoint-000002': ") as error:
        load_checkpoint(tmp_path / "checkpoint-000002")
    one_line(error)


def test_every_flipped_bit_is_noticed(tmp_path):
    path = tmp_path / os.path.basename(save_checkpoint(tmp_path, 2, n=2, values=np.arange(20.0)))
    for name in names(path):
        content = (path / name).read_bytes()
        for at in range(0, len(content), 7):
            (path / name).write_bytes(flip(content, at))
            with pytest.raises(CheckpointError):
                read_checkpoint(path)
        (path / name).write_bytes(content)
    read_checkpoint(path)


def test_files_of_two_checkpoints_do_not_go_together(tmp_path):
    for n in (1, 2):
        save_checkpoint(tmp_path, n, values=np.full(3, n))
    shutil.copy(tmp_path / "checkpoint-000001/tensors.safetensors", tmp_path / "checkpoint-000002/tensors.safetensors")
    with pytest.raises(CheckpointError, match="damaged, or does not belong to"):
        read_checkpoint(tmp_path / "checkpoint-000002")


def test_there_is_none(tmp_path):
    assert latest_checkpoint(tmp_path) is None
    assert latest_checkpoint(tmp_path / "nowhere") is None
    for place in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(CheckpointError, match="there is no checkpoint in"):
            load_checkpoint(place)
    with pytest.raises(CheckpointError, match="No such file or directory"):
        load_checkpoint(tmp_path / "checkpoint-000001")


# ------------------------------------------------------------------------------------------------- hostile ones


def written(tmp_path, content, arrays=None):
    """A checkpoint that says what it wants, with right checksums."""
    text = content if isinstance(content, bytes) else json.dumps(content).encode()
    path = tmp_path / "checkpoint-000001"
    path.mkdir()
    (path / "state.json").write_bytes(text)
    io.save(path / "tensors.safetensors", arrays or {}, {"state.json": str(zlib.crc32(text))})
    return path


def about(**state):
    return {"format": "gpugrad checkpoint 1", "gpugrad": "0", "classes": {}, "architecture": {}, "state": state}


@pytest.mark.parametrize(
    "content",
    [
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"9" * 10_000,
        b"NaN",
        b'{"format": "gpugrad checkpoint 1", "state": {"x": Infinity}}',
        b'{"format": "gpugrad checkpoint 1", "state": {"x": 1e999}}',
        b"null",
        b"3",
        b"\x00\xff",
        b'"text"',
        {"format": "gpugrad checkpoint 2", "state": {}},
        {"format": "gpugrad checkpoint 1"},
        {**about(), "state": [1, 2]},
        {**about(), "classes": 3},
        {**about(), "architecture": "MLP"},
        about(x={"$array": "../../etc/passwd"}),
        about(x={"$array": ["a"], "crc32": 0}),
        about(x={"$array": {"$array": "a"}}),
        about(x={"$tensor": "a", "crc32": "0", "dtype": "float64", "shape": [2]}),
        about(x={"$array": "a", "crc32": None}),
        about(x={"$tuple": 7}),
        about(x={"$tuple": {"a": 1}}),
        about(x={"$float": "os.system"}),
        about(x={"$float": []}),
        about(x={"$dict": [[1]]}),
        about(x={"$dict": [[[1, 2], 3]]}),
        about(x={"$dict": [[{"$tuple": [[]]}, 3]]}),
        about(x={"$dict": {"a": 1}}),
        about(x={"$scalar": "a", "crc32": 0, "dtype": "float64", "shape": []}),
    ],
    ids=str,
)
def test_hostile_text_is_refused_in_a_line(tmp_path, content):
    path = written(tmp_path, content, {"a": np.ones(2)})
    with pytest.raises(CheckpointError, match="cannot read") as error:
        read_checkpoint(path)
    assert len(one_line(error)) < 500


EARLY = {"monitor": "loss", "mode": "min", "best": 1.0, "best_epoch": 1, "waited": 0, "stopped_epoch": 0, "weights": None}
HOSTILE_PARTS = [
    {"run": {"epoch": "three", "step": 1}}, {"run": {"epoch": 10**30, "step": 1}}, {"run": {"epoch": -1, "step": 1}}, {"run": {"epoch": True, "step": 1}},
    {"run": [1]}, {"run": None}, {"history": {"rows": [{"loss": "low"}]}}, {"history": {"rows": 3}}, {"history": 3}, {"generator": {"counter": [-1]}},
    {"generator": {"bit_generator": {"__class__": "x"}}}, {"optimizer": {"state": [], "param_groups": 1}}, {"optimizer": {"param_groups": []}}, {"optimizer": "x"},
    {"model": {}}, {"model": {"0.weight": "x"}}, {"model": 4}, {"callbacks": [1]}, {"callbacks": {"EarlyStopping.0": {}}}, {"callbacks": {"EarlyStopping.0": 1}},
    *({"callbacks": {"EarlyStopping.0": {**EARLY, **bad}}} for bad in ({"best": "x"}, {"waited": None}, {"weights": 3}, {"best_epoch": 1.5})),
]  # fmt: skip


@pytest.mark.parametrize("part", HOSTILE_PARTS, ids=str)
def test_hostile_states_are_refused_in_a_line(tmp_path, part):
    net, batch = model(), (np.ones((2, 3), np.float32), np.zeros(2, np.int64))

    def go(directory, resume):
        optimizer = optim.AdamW(net.parameters())
        training.fit(net, nn.CrossEntropyLoss(), optimizer, [batch], epochs=2, checkpoint=directory, resume=resume, callbacks=[training.EarlyStopping("loss")])

    go(tmp_path / "good", False)
    good = json.loads((tmp_path / "good/checkpoint-000001/state.json").read_text())
    arrays = io.load(tmp_path / "good/checkpoint-000001/tensors.safetensors")
    written(tmp_path, {**good, "state": {**good["state"], **part}}, arrays)
    with pytest.raises(CheckpointError) as error:
        go(tmp_path, True)
    assert next(iter(part)) in one_line(error)


# ------------------------------------------------------------------------------------------------- other architectures


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (
            lambda: model(3, 5, 2),
            r"another architecture: 0.weight is float32 \(3, 4\) in the checkpoint and float32 \(3, 5\) here, 0.bias is float32 \(4,\) in",
        ),
        (
            lambda: model(3, 4, 4, 2),
            r"2.weight is float32 \(4, 2\) in the checkpoint and float32 \(4, 4\) here.* 4.weight is missing in the checkpoint and float32 \(4, 2\) here",
        ),
        (lambda: model(3, 2), r"2.weight is float32 \(4, 2\) in the checkpoint and missing here"),
        (lambda: model(activation="tanh"), "1 is ReLU in the checkpoint and Tanh here"),
        (lambda: model(bias=False), r"0.bias is float32 \(4,\) in the checkpoint and missing here"),
        (lambda: model(dtype=np.float64), r"0.weight is float32 \(3, 4\) in the checkpoint and float64 \(3, 4\) here"),
        (lambda: model(3, *[4] * 30, 2), r", and \d+ more; build the model as it was, or start anew"),
    ],
)
def test_another_architecture_names_the_parameters_that_differ(tmp_path, other, message):
    save_checkpoint(tmp_path, 1, model=model(), optimizer=optim.SGD(model().parameters(), 0.1))
    net = other()
    before = {k: t.numpy().copy() for k, t in net.state_dict().items()}
    with pytest.raises(CheckpointError, match=message) as error:
        load_checkpoint(tmp_path, model=net)
    one_line(error)
    for k, t in net.state_dict().items():
        assert_array_equal(t.numpy(), before[k])


def test_another_optimizer_changes_nothing(tmp_path):
    net, other = model(), model()
    save_checkpoint(tmp_path, 1, model=net, optimizer=optim.AdamW(net.parameters()))
    before = other.state_dict()["0.weight"].numpy().copy()
    with pytest.raises(CheckpointError, match="holds the state of AdamW as optimizer, expected SGD"):
        load_checkpoint(tmp_path, model=other, optimizer=optim.SGD(other.parameters(), 0.1))
    with pytest.raises(CheckpointError, match="holds no 'ema'; it holds model, optimizer"):
        load_checkpoint(tmp_path, model=other, ema=optim.ExponentialMovingAverage(other))
    assert_array_equal(other.state_dict()["0.weight"].numpy(), before)
    with pytest.raises(CheckpointError, match=r"does not fit the optimizer, AdamW: loaded state dict has parameter groups of sizes \[4\], expected \[2, 2\]"):
        load_checkpoint(tmp_path, optimizer=optim.AdamW([{"params": list(other[0].parameters())}, {"params": list(other[2].parameters())}]))


def test_fit_does_not_mix_trainings(tmp_path):
    net, batch = model(), (np.ones((2, 3), np.float32), np.zeros(2, np.int64))

    def go(**options):
        optimizer = optim.SGD(net.parameters(), 0.1)
        schedule = optim.lr_scheduler.StepLR(optimizer, 1)
        return training.fit(net, nn.CrossEntropyLoss(), optimizer, [batch], epochs=2, checkpoint=tmp_path, **{"schedule": schedule, **options})

    go()
    with pytest.raises(CheckpointError, match=r"holds checkpoints of another training, the latest '.*000002': go on with it by resume=True, or give another"):
        go()
    with pytest.raises(CheckpointError, match="was made with schedule: give fit the same arguments as before"):
        go(schedule=None, resume=True)
    with pytest.raises(CheckpointError, match="holds no 'ema'"):
        go(ema=optim.ExponentialMovingAverage(net), resume=True)
    assert len(go(resume=True)) == 2


def test_a_damaged_latest_one_is_made_again(tmp_path, capsys):
    net, batch = model(), (np.ones((2, 3), np.float32), np.zeros(2, np.int64))

    def go(net):
        training.fit(net, nn.CrossEntropyLoss(), optim.SGD(net.parameters(), 0.1), [batch], epochs=3, checkpoint=tmp_path, resume=True)
        return net.state_dict()["0.weight"].numpy().copy()

    whole = go(net)
    (tmp_path / "checkpoint-000003" / "state.json").write_text("")
    assert_array_equal(go(model()), whole)
    assert "passed over" in capsys.readouterr().err
    assert latest_checkpoint(tmp_path).endswith("000003")


def test_where_none_can_be_read_nothing_is_overwritten(tmp_path):
    net, batch = model(), (np.ones((2, 3), np.float32), np.zeros(2, np.int64))
    save_checkpoint(tmp_path, 1, model=net)
    (tmp_path / "checkpoint-000001" / "state.json").write_text("")
    for resume, message in ((True, "none of the checkpoints in .* can be read"), (False, "holds checkpoints of another training")):
        with pytest.raises(CheckpointError, match=message):
            training.fit(net, nn.CrossEntropyLoss(), optim.SGD(net.parameters(), 0.1), [batch], epochs=3, checkpoint=tmp_path, resume=resume)
    assert names(tmp_path) == ["checkpoint-000001"]


def test_nothing_here_can_run_code():
    """No module of the package imports what executes what it reads."""
    source = Path(module.__file__).read_text() + Path(packing.__file__).read_text()
    assert not any(word in source for word in ("pickle", "eval(", "exec(", "import_module", "__import__", "yaml"))
