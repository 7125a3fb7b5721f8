"""Lines, the bar, JSON lines and TensorBoard's files: what they say, and what a resumed training does to them."""

import io
import json
import math
import re
import subprocess
import sys
import time

import numpy as np
import pytest

from gpugrad import nn, optim, training
from gpugrad.nn import functional as F  # noqa: N812
from gpugrad.training import logs, metrics


def fit(epochs=3, callbacks=(), **options):
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((6, 3)).astype(np.float32), np.arange(6) % 2
    model = nn.MLP([3, 4, 2])
    return training.fit(
        model, F.cross_entropy, optim.SGD(model.parameters(), 0.1), [(x[:4], y[:4]), (x[4:], y[4:])], validation=[(x, y)], epochs=epochs, callbacks=callbacks,
        metrics={"accuracy": metrics.accuracy}, **options,
    )  # fmt: skip


class Terminal(io.StringIO):
    def isatty(self):
        return True


class Stop(training.Callback):
    def __init__(self, epoch):
        self.epoch = epoch

    def on_epoch_begin(self, run):
        if run.epoch == self.epoch:
            raise KeyboardInterrupt


# ------------------------------------------------------------------------------------------------- on the screen


def test_a_line_per_epoch_where_there_is_no_terminal(capsys):
    history = fit(10, [training.Progress(), training.GradientNorms()])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 10
    number = r"\d+\.\d{4}"
    pattern = rf"epoch  3/10  loss {number}  accuracy {number}  val_loss {number}  val_accuracy {number}  [\d,]+ examples/s"
    assert re.fullmatch(pattern, lines[2]), lines[2]
    assert f"loss {history['loss'][2]:.4f}" in lines[2]


def test_a_bar_on_a_terminal(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "200")
    out = Terminal()
    history = fit(3, [training.Progress(out), training.GradientNorms()])
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", out.getvalue())
    assert "\x1b[" in out.getvalue()
    assert "epoch 3/3" in shown and "examples/s" in shown and "0:00:00" in shown and "cpu" in shown and "━" in shown
    assert f"loss {history['loss'][-1]:.4f}" in shown and f"accuracy {history['accuracy'][-1]:.4f}" in shown
    assert "grad_norm" not in shown


def test_the_bar_looks_at_the_device_four_times_a_second_at_most(monkeypatch):
    looks, clock = [], [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    means = training.history.Meter.means
    monkeypatch.setattr(training.history.Meter, "means", lambda self, *a: (looks.append(clock[0]), means(self, *a))[1])

    class Tick(training.Callback):
        def on_step_end(self, run):
            clock[0] += 0.01

    x, y = np.ones((1, 3), np.float32), np.zeros(1, np.int64)
    model = nn.Linear(3, 2)
    training.fit(
        model, F.cross_entropy, optim.SGD(model.parameters(), 0.1), [(x, y)] * 100, epochs=1, callbacks=[Tick(), training.Progress(Terminal(), bar=True)]
    )
    assert 3 <= len(looks) - 1 <= 4  # and once at the epoch's end


def test_a_resumed_bar_starts_where_it_was(tmp_path, capsys):
    with pytest.raises(KeyboardInterrupt):
        fit(4, [Stop(3)], checkpoint=tmp_path)
    progress = training.Progress(Terminal(), bar=True)
    fit(4, [progress], checkpoint=tmp_path, resume=True)
    fit(4, [training.Progress()], checkpoint=tmp_path, resume=True)
    assert capsys.readouterr().out == ""  # it was done


def test_numbers_of_any_size():
    text = logs.numbers({"epoch": 1, "loss": 1e-7, "mae": 123456.0, "a": 0.0, "b": math.nan, "lr": 0.1, "grad_norm/0": 2.0, "examples_per_second": 12345.6})
    assert text == "loss 1.000e-07  mae 1.235e+05  a 0.0000  b nan  12,346 examples/s"


def test_nothing_heavy_is_imported_with_the_package():
    code = "import sys; from gpugrad import training; print([m for m in ('rich', 'matplotlib', 'tensorboard', 'sklearn', 'numba', 'safetensors') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


# ------------------------------------------------------------------------------------------------- JSON lines


def rows(path):
    return [json.loads(text, parse_constant=pytest.fail) for text in path.read_text().splitlines()]


def test_json_lines(tmp_path):
    path = tmp_path / "new folder" / "log.jsonl"

    class Nan(training.Callback):
        def on_epoch_end(self, run):
            assert len(path.read_text().splitlines()) == run.epoch - 1  # the others are on the disk already
            run.logs["bad"], run.logs["worse"] = math.nan, -math.inf

    history = fit(3, [Nan(), training.JsonLog(path)])
    written = rows(path)
    assert [row["epoch"] for row in written] == [1, 2, 3] and [row["step"] for row in written] == [2, 4, 6]
    assert [row["loss"] for row in written] == history["loss"]
    assert written[0]["bad"] is written[0]["worse"] is None
    fit(1, [training.JsonLog(path)])
    assert len(rows(path)) == 1  # another training begins it anew


def test_a_resumed_training_appends_and_repeats_no_epoch(tmp_path):
    path, folder = tmp_path / "log.jsonl", tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        fit(9, [training.JsonLog(path), Stop(6)], checkpoint=folder, checkpoint_every=2)
    assert [row["epoch"] for row in rows(path)] == [1, 2, 3, 4, 5]
    with open(path, "a") as file:
        file.write('{"epoch": 6, "lo')  # killed while it wrote
    history = fit(9, [training.JsonLog(path)], checkpoint=folder, checkpoint_every=2, resume=True)
    assert [row["epoch"] for row in rows(path)] == list(range(1, 10))
    assert [row["loss"] for row in rows(path)][3:] == history["loss"][3:]


def test_lines_of_others_in_the_file_go_when_resumed(tmp_path):
    path, folder = tmp_path / "log.jsonl", tmp_path / "run"
    fit(2, [], checkpoint=folder)
    path.write_bytes(b'{"epoch": 1}\nnonsense\n[1]\n{"epoch": "x"}\n\xff\n{"epoch": 2}\n{"epoch": 3}\n')
    fit(3, [training.JsonLog(path)], checkpoint=folder, resume=True)
    assert [row["epoch"] for row in rows(path)] == [1, 2, 3]


def test_a_log_that_cannot_be_written(tmp_path):
    with pytest.raises(OSError, match="Is a directory"):
        fit(1, [training.JsonLog(tmp_path)])


# ------------------------------------------------------------------------------------------------- TensorBoard


def events(folder):
    loader = pytest.importorskip("tensorboard.backend.event_processing.event_file_loader")
    files = sorted(folder.iterdir(), key=lambda p: p.stat().st_mtime_ns)
    return [event for file in files for event in loader.LegacyEventFileLoader(str(file)).Load()]


def test_tensorboard_reads_what_is_written(tmp_path):
    accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    history = fit(3, [training.TensorBoardLog(tmp_path), training.GradientNorms()])
    read = accumulators.EventAccumulator(str(tmp_path))
    read.Reload()
    assert set(read.Tags()["scalars"]) == {
        "loss/train", "loss/validation", "accuracy/train", "accuracy/validation", "lr/train", "examples_per_second/train", "grad_norm/0", "grad_norm/2",
    }  # fmt: skip
    values = read.Scalars("loss/validation")
    assert [v.step for v in values] == [1, 2, 3]
    assert [v.value for v in values] == pytest.approx(history["val_loss"], rel=1e-6)


def test_a_resumed_training_tells_tensorboard_what_to_forget(tmp_path):
    pytest.importorskip("tensorboard")
    with pytest.raises(KeyboardInterrupt):
        fit(4, [training.TensorBoardLog(tmp_path / "tb"), Stop(4)], checkpoint=tmp_path / "run", checkpoint_every=2)
    fit(4, [training.TensorBoardLog(tmp_path / "tb")], checkpoint=tmp_path / "run", checkpoint_every=2, resume=True)
    steps = [(e.step, "restart" if e.HasField("session_log") else "scalars") for e in events(tmp_path / "tb") if not e.file_version]
    assert steps == [(1, "scalars"), (2, "scalars"), (3, "scalars"), (3, "restart"), (3, "scalars"), (4, "scalars")]


def test_without_tensorboard_there_is_a_remedy(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "tensorboard.summary.writer.event_file_writer", None)
    with pytest.raises(
        ImportError, match=r"TensorBoardLog needs tensorboard, which cannot be imported .*: pip install 'gpugrad\[tensorboard\]', or use JsonLog"
    ):
        training.TensorBoardLog(tmp_path)
