"""``gpugrad train`` on files: what it reads, what the options do, what it saves."""

import gzip
import json
import re
import struct
import sys

import numpy as np
import pytest
from cli_samples import FLOWERS, flowers, write_csv

from gpugrad import amp, data, random, training
from gpugrad.cli import model_file
from gpugrad.cli.recipes import OPTIMIZERS, SCHEDULES


def last(out):
    name, _, value = out.splitlines()[-1].rpartition(": ")
    return name, float(value)


def losses(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


# ------------------------------------------------------------------------------------------------- what it learns


def test_classes_of_a_csv_file(run, samples, tmp_path, device):
    code, out, err = run("train", "--data", samples / "flowers.csv", "--device", device, "--layers", "16", "--batch-size", "8", "--output", tmp_path / "m")
    assert (code, err) == (0, "")
    assert out.startswith("classification of 'kind' from 3 columns: 3 classes\n72 rows to learn from, 18 to test on\n")
    assert f"parameters on {device}" in out
    name, accuracy = last(out)
    assert name == "test accuracy"
    assert accuracy >= 0.9
    model = model_file.load(str(tmp_path / "m"), "cpu")
    assert (model.columns, model.targets, model.classes) == (["length", "width", "depth"], ["kind"], sorted(FLOWERS))
    assert model.about["scores"] == {"test accuracy": f"{accuracy:.4f}"}


def test_numbers_of_a_csv_file(run, samples, tmp_path):
    code, out, err = run(
        "train", "--data", samples / "prices.csv", "--device", "cpu", "--layers", "16", "--epochs", "60", "--batch-size", "8", "--output", tmp_path / "m"
    )
    assert (code, err) == (0, "")
    assert out.startswith("regression of 'price' from 3 columns\n")
    scores = dict(line.rsplit(": ", 1) for line in out.splitlines() if line.startswith("test"))
    assert float(scores["test R2"]) > 0.95
    y = data.read_csv(samples / "prices.csv", "price").y
    assert 10 < float(scores["test RMSE"]) < 0.25 * y.std()  # in the units of the file, of which the noise has about 1


def test_what_is_standardised_has_seen_the_training_rows_only(run, samples, tmp_path):
    assert run("train", "--data", samples / "prices.csv", "--device", "cpu", "--epochs", "1", "--seed", "3", "--output", tmp_path / "m")[0] == 0
    model = model_file.load(str(tmp_path / "m"), "cpu")
    table = data.read_csv(samples / "prices.csv", "price")
    rows = data.random_split(table.x, [0.8, 0.0, 0.2], generator=random.Generator(3))[0].indices
    assert len(rows) == 72
    for s, values in ((model.inputs, table.x), (model.outputs, table.y[:, None])):
        np.testing.assert_allclose(s.mean, values[rows].mean(axis=0), rtol=1e-12)
        np.testing.assert_allclose(s.std, values[rows].std(axis=0), rtol=1e-12)
        assert not np.allclose(s.mean, values.mean(axis=0), rtol=1e-6)


def test_units_do_not_matter(run, tmp_path):
    x, kind = flowers()
    for name, scale in (("a", 1.0), ("b", 1024.0)):
        write_csv(tmp_path / f"{name}.csv", ["u", "v", "w", "kind"], *(x * scale).T, kind)
        assert run("train", "--data", tmp_path / f"{name}.csv", "--device", "cpu", "--epochs", "2", "--layers", "4", "--output", tmp_path / name)[0] == 0
    a, b = (model_file.load(str(tmp_path / name), "cpu") for name in "ab")
    np.testing.assert_array_equal(a.predict(x), b.predict(x * 1024))


@pytest.mark.parametrize(
    ("y", "task"),
    [
        ([i % 3 for i in range(40)], "classification"),
        ([float(i % 3) for i in range(40)], "classification"),
        ([i % 3 + 0.5 for i in range(40)], "regression"),
        (list(range(40)), "regression"),
        ([i % 20 for i in range(40)], "regression"),  # too few rows of each for classes
        ([f"class {i % 2}" for i in range(40)], "classification"),
    ],
)
def test_the_task_is_seen_from_the_target(y, task, run, tmp_path):
    write_csv(tmp_path / "d.csv", ["a", "b", "c"], range(40), np.sin(range(40)), y)
    out = run("train", "--data", tmp_path / "d.csv", "--device", "cpu", "--epochs", "1", "--layers", "", "--output", tmp_path / "m")[1]
    assert out.startswith(f"{task} of 'c'")


def test_the_task_and_the_target_that_are_asked_for(run, samples, tmp_path):
    write_csv(tmp_path / "d.csv", ["a", "b", "c"], range(40), [i % 10 for i in range(40)], np.sin(range(40)))
    for options, start in (
        (["--target", "b"], "classification of 'b'"),
        (["--target", "b", "--task", "regression"], "regression of 'b'"),
        (["--target", "a", "--task", "regression", "--ignore", "c"], "regression of 'a' from 1 column"),
        ([], "regression of 'c'"),
    ):
        code, out, _ = run("train", "--data", tmp_path / "d.csv", "--device", "cpu", "--epochs", "1", "--layers", "4", "--output", tmp_path / "m", *options)
        assert code == 0
        assert out.startswith(start)


def test_a_usual_name_is_the_target_wherever_it_stands(run, tmp_path):
    write_csv(tmp_path / "d.csv", ["Label", "b", "c"], [i % 2 for i in range(40)], range(40), np.sin(range(40)))
    assert run("train", "--data", tmp_path / "d.csv", "--device", "cpu", "--epochs", "1", "--output", tmp_path / "m")[1].startswith("classification of 'Label'")


# ------------------------------------------------------------------------------------------------- other files


def test_a_gzipped_csv_file_is_the_same(run, samples, tmp_path):
    (tmp_path / "flowers.csv.gz").write_bytes(gzip.compress((samples / "flowers.csv").read_bytes()))
    for path in (samples / "flowers.csv", tmp_path / "flowers.csv.gz"):
        assert run("train", "--data", path, "--device", "cpu", "--epochs", "2", "--output", tmp_path / path.suffix)[0] == 0
    assert (tmp_path / ".csv").read_bytes() == (tmp_path / ".gz").read_bytes()


def test_the_model_is_called_like_the_data(run, samples, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run("train", "--data", samples / "flowers.csv", "--device", "cpu", "--epochs", "1")[0] == 0
    assert [p.name for p in tmp_path.iterdir()] == ["flowers.safetensors"]


def test_arrays(run, tmp_path):
    x, kind = flowers()
    cases = {
        "pair": {"x": x, "y": kind},
        "images": {"x": x.reshape(90, 3, 1).astype(np.float32), "y": kind.astype(np.uint8)},
        "columns": {"length": x[:, 0], "rest": x[:, 1:], "label": np.array(FLOWERS)[kind]},
        "matrix": {"x": x, "y": kind[:, None]},
        "bytes": {"x": x, "y": np.array(FLOWERS)[kind].astype("S")},
        "four": {"x_train": x[:60], "y_train": kind[:60], "x_test": x[60:], "y_test": kind[60:]},
    }
    for name, arrays in cases.items():
        np.savez(tmp_path / f"{name}.npz", **arrays)
        code, out, err = run("train", "--data", tmp_path / f"{name}.npz", "--device", "cpu", "--layers", "16", "--batch-size", "8", "--output", tmp_path / name)
        assert (code, err) == (0, ""), name
        assert last(out)[1] > 0.8
        assert ("60 rows to learn from, 30 to test on" if name == "four" else "72 rows to learn from, 18 to test on") in out
        code, out, _ = run("evaluate", tmp_path / name, "--data", tmp_path / f"{name}.npz")
        assert code == 0
        assert out.startswith("30 rows" if name == "four" else "90 rows")
    assert model_file.load(str(tmp_path / "columns"), "cpu").columns == ["length", "rest_0", "rest_1"]


def test_several_targets(run, tmp_path):
    x, _ = flowers()
    y = np.stack([x[:, 0] * 7 + 3, x[:, 1] - 5], axis=1)
    np.savez(tmp_path / "d.npz", x=x, y=y)
    code, out, _ = run(
        "train", "--data", tmp_path / "d.npz", "--device", "cpu", "--layers", "32", "--epochs", "60", "--batch-size", "8", "--output", tmp_path / "m"
    )
    assert code == 0
    assert len(re.findall(r"test R2 of y_[01]: 0\.9", out)) == 2
    code, out, _ = run("predict", tmp_path / "m", "--data", tmp_path / "d.npz")
    lines = out.splitlines()
    assert lines[0] == "y_0,y_1"
    predicted = np.array([[float(cell) for cell in line.split(",")] for line in lines[1:]])
    assert np.abs(predicted - y).max() < 0.3 * y.std(axis=0).max()
    write_csv(tmp_path / "d.csv", ["y_1", "x_2", "x_1", "x_0", "y_0"], y[:, 1], x[:, 2], x[:, 1], x[:, 0], y[:, 0])
    assert (
        run("evaluate", tmp_path / "m", "--data", tmp_path / "d.csv")[1].splitlines()[1:]
        == run("evaluate", tmp_path / "m", "--data", tmp_path / "d.npz")[1].splitlines()[1:]
    )


def idx(array):
    return struct.pack(">HBB", 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape) + array.astype(np.uint8).tobytes()


def test_a_folder_of_images(run, tmp_path):
    rng = np.random.default_rng(0)
    for part, n in (("train", 80), ("t10k", 20)):
        labels = np.arange(n) % 4
        images = rng.integers(0, 60, (n, 6, 6))
        images[np.arange(n), labels, :] += 150
        images[:, 5, 5] = labels == 9  # a pixel that is always 0
        (tmp_path / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(images)))
        (tmp_path / f"{part}-labels-idx1-ubyte").write_bytes(idx(labels))
    code, out, err = run(
        "train", "--data", tmp_path, "--device", "cpu", "--layers", "16", "--batch-size", "8", "--validation", "0.1", "--output", tmp_path / "m"
    )
    assert (code, err) == (0, "")
    assert "72 rows to learn from, 8 to validate, 20 to test on" in out
    assert last(out) == ("test accuracy", 1.0)
    assert model_file.load(str(tmp_path / "m"), "cpu").inputs.mean.shape == ()
    code, out, _ = run("evaluate", tmp_path / "m", "--data", tmp_path)
    assert out.startswith("20 rows")
    assert out.split()[-1] == "1.0000"
    assert len(run("predict", tmp_path / "m", "--data", tmp_path)[1].splitlines()) == 21


# ------------------------------------------------------------------------------------------------- options


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_learns(name, run, samples, tmp_path):
    code, out, err = run(
        "train", "--data", samples / "flowers.csv", "--device", "cpu", "--layers", "16", "--optimizer", name, "--epochs", "20", "--log", tmp_path / "l",
        "--output", tmp_path / "m",
    )  # fmt: skip
    assert (code, err) == (0, "")
    rows = losses(tmp_path / "l")
    assert rows[-1]["loss"] < 0.9 * rows[0]["loss"]
    assert rows[0]["step"] == (1 if name == "lbfgs" else 3)
    assert last(out)[1] > 0.6


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_schedule_does_what_its_help_says(name, run, samples, tmp_path):
    code, _, err = run(
        "train", "--data", samples / "flowers.csv", "--device", "cpu", "--layers", "4", "--schedule", name, "--epochs", "21", "--lr", "0.1", "--batch-size", "72",
        "--optimizer", "sgd", "--log", tmp_path / "l", "--output", tmp_path / "m",
    )  # fmt: skip
    assert (code, err) == (0, "")
    rates = [row["lr"] for row in losses(tmp_path / "l")]  # one step an epoch
    t = np.arange(21)
    cosine = lambda t, n: 0.05 * (1 + np.cos(np.pi * t / n))
    expected = {
        "none": np.full(21, 0.1),
        "cosine": cosine(t, 21),
        "step": 0.1 * 0.1 ** (t // 7),
        "exponential": 0.1 * 0.01 ** (t / 21),
        "restarts": np.concatenate([cosine(np.arange(n), n) for n in (3, 6, 12)]),
        "warmup-cosine": np.concatenate([0.1 * np.arange(1, 4) / 4, cosine(np.arange(18), 18)]),
    }
    if name in expected:
        np.testing.assert_allclose(rates, expected[name], rtol=1e-6)
    elif name == "onecycle":
        assert rates[0] == pytest.approx(0.004)
        assert max(rates) == pytest.approx(0.1, rel=0.01)
        assert rates[-1] < 1e-6
    else:
        assert rates[0] == 0.1


def test_plateau_follows_the_validation_loss(run, samples, tmp_path):
    run(
        "train", "--data", samples / "flowers.csv", "--device", "cpu", "--layers", "4", "--schedule", "plateau", "--epochs", "12", "--lr", "1e-12",
        "--validation", "0.2", "--optimizer", "sgd", "--log", tmp_path / "l", "--output", tmp_path / "m",
    )  # fmt: skip
    rates = [row["lr"] for row in losses(tmp_path / "l")]
    assert rates[0] == 1e-12  # too small to change: reductions below 1e-8 are none
    assert all("val_loss" in row and "val_accuracy" in row for row in losses(tmp_path / "l"))


def test_warmup_in_epochs(run, samples, tmp_path):
    run(
        "train", "--data", samples / "flowers.csv", "--device", "cpu", "--layers", "4", "--schedule", "none", "--warmup", "2", "--epochs", "5", "--batch-size", "24",
        "--lr", "0.7", "--log", tmp_path / "l", "--output", tmp_path / "m",
    )  # fmt: skip
    np.testing.assert_allclose([row["lr"] for row in losses(tmp_path / "l")], [0.3, 0.6, 0.7, 0.7, 0.7], rtol=1e-6)  # 6 of 7 steps up


@pytest.mark.parametrize(
    "options",
    [
        ["--norm", "batch", "--batch-size", "71"],  # which leaves one row over
        ["--norm", "layer", "--residual", "--dropout", "0.2"],
        ["--norm", "rms", "--activation", "silu"],
        ["--dtype", "float64"],
        ["--dtype", "float16"],
        ["--dtype", "bfloat16", "--clip", "0.5"],
        ["--accumulate", "2", "--clip", "1", "--weight-decay", "0.1"],
        ["--ema", "0.9", "--validation", "0.2"],
        ["--label-smoothing", "0.1", "--layers", "", "--lr", "0.1"],
        ["--test", "0", "--validation", "0.2"],
    ],
    ids=" ".join,
)
def test_options(options, run, tiny, device, tmp_path):
    if device == "cuda" and "batch-size" in " ".join(options):
        pytest.skip("seen on the CPU")
    code, out, err = run(*tiny, "--epochs", "10", "--batch-size", "12", "--device", device, *options)
    assert (code, err) == (0, "")
    assert last(out)[1] > 0.35
    assert last(out)[0] == ("validation accuracy" if "--test" in options else "test accuracy")


def test_options_reach_the_training(run, tiny, monkeypatch):
    seen = {}
    fit = training.fit

    def recorded(model, loss, optimizer, batches, **options):
        seen.update(options, loss=loss, optimizer=optimizer, batches=batches)
        return fit(model, loss, optimizer, batches, **options)

    monkeypatch.setattr(training, "fit", recorded)
    assert run(*tiny)[0] == 0
    assert {k: seen[k] for k in ("accumulate", "max_grad_norm", "autocast", "scaler", "ema", "validation", "checkpoint", "resume")} == {
        "accumulate": 1, "max_grad_norm": None, "autocast": None, "scaler": None, "ema": None, "validation": None, "checkpoint": None, "resume": False,
    }  # fmt: skip
    assert (seen["batches"].batch_size, seen["batches"].shuffle, seen["loss"].label_smoothing) == (32, True, 0)
    options = [
        "--accumulate",
        "3",
        "--clip",
        "0.5",
        "--dtype",
        "float16",
        "--ema",
        "0.7",
        "--batch-size",
        "9",
        "--label-smoothing",
        "0.2",
        "--weight-decay",
        "0.3",
    ]
    assert run(*tiny, *options, "--lr", "0.01")[0] == 0
    assert (seen["accumulate"], seen["max_grad_norm"], seen["autocast"], seen["ema"].decay) == (3, 0.5, "float16", 0.7)
    assert isinstance(seen["scaler"], amp.GradScaler)
    assert (seen["batches"].batch_size, seen["loss"].label_smoothing) == (9, 0.2)
    group = seen["optimizer"].param_groups[0]
    assert (group["weight_decay"], group["initial_lr"]) == (0.3, 0.01)
    assert run(*tiny, "--dtype", "bfloat16")[0] == 0
    assert (seen["autocast"], seen["scaler"]) == ("bfloat16", None)


def test_averaged_weights_are_what_is_saved(run, tiny, tmp_path):
    run(*tiny)
    plain = model_file.load(str(tmp_path / "m.safetensors"), "cpu").network.state_dict()
    run(*tiny, "--ema", "0.9")
    averaged = model_file.load(str(tmp_path / "m.safetensors"), "cpu").network.state_dict()
    assert plain.keys() == averaged.keys()
    assert not np.allclose(plain["0.weight"].numpy(), averaged["0.weight"].numpy())


@pytest.mark.parametrize("averaged", [[], ["--ema", "0.8"]], ids=["own", "averaged"])
def test_early_stopping_keeps_the_best_weights(averaged, run, samples, tmp_path):
    command = [
        "train",
        "--data",
        samples / "flowers.csv",
        "--device",
        "cpu",
        "--layers",
        "64",
        "--validation",
        "0.2",
        "--epochs",
        "60",
        "--lr",
        "0.05",
        "--dtype",
        "float64",
    ]
    code, out, _ = run(*command, *averaged, "--early-stopping", "3", "--log", tmp_path / "l", "--output", tmp_path / "m")
    assert code == 0
    rows = losses(tmp_path / "l")
    assert len(rows) < 60
    best = min(row["val_loss"] for row in rows)
    model = model_file.load(str(tmp_path / "m"), "cpu")
    table = data.read_csv(samples / "flowers.csv", "kind")
    held_out = data.random_split(table.x, [1 - 0.2 - 0.2, 0.2, 0.2], stratify=table.y, generator=random.Generator(0))[1].indices
    p = model.predict(table.x[held_out])
    assert -np.log(p[np.arange(len(p)), table.y[held_out]]).mean() == pytest.approx(best, rel=1e-6)
    assert "validation accuracy: " in out


def test_seeds(run, tiny, tmp_path):
    files = []
    for seed in (0, 0, 1):
        assert run(*tiny, "--seed", seed, "--dropout", "0.1")[0] == 0
        files.append((tmp_path / "m.safetensors").read_bytes())
    assert files[0] == files[1] != files[2]


def test_reports(run, tiny, tmp_path):
    pytest.importorskip("matplotlib")
    png, log = tmp_path / "p.png", tmp_path / "l.jsonl"
    code, out, err = run(*tiny, "--plot", png, "--log", log, "--validation", "0.2")
    assert (code, err) == (0, "")
    assert png.read_bytes().startswith(b"\x89PNG")
    rows = losses(log)
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert {"loss", "accuracy", "val_loss", "val_accuracy", "lr", "examples_per_second", "grad_norm/0", "grad_norm/4"} <= set(rows[0])
    assert len([line for line in out.splitlines() if line.startswith("epoch")]) == 3


def test_tensorboard(run, tiny, tmp_path):
    pytest.importorskip("tensorboard")
    assert run(*tiny, "--tensorboard", tmp_path / "tb")[0] == 0
    assert [p for p in (tmp_path / "tb").iterdir() if "tfevents" in p.name]


def test_without_tensorboard_or_matplotlib_the_remedy_is_named(run, tiny, tmp_path, monkeypatch):
    for module, options in (
        ("matplotlib", ["--plot", tmp_path / "p.png"]),
        ("tensorboard.summary.writer.event_file_writer", ["--tensorboard", tmp_path / "tb"]),
    ):
        monkeypatch.setitem(sys.modules, module, None)
        code, out, err = run(*tiny, *options)
        assert (code, err.count("\n")) == (2, 1)
        assert "pip install" in err
        assert "epoch" not in out


def test_the_bar_fits_a_terminal(run, tiny, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "xterm")
    code, out, err = run(*tiny, "--validation", "0.2", "--epochs", "12")
    assert (code, err) == (0, "")
    lines = [line for part in re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", out).splitlines() for line in part.split("\r")]
    bar = next(line for line in reversed(lines) if line.startswith("epoch"))
    assert re.fullmatch(r"epoch 12/12 \S+ [\d,]+ examples/s \d:\d\d:\d\d cpu\s*", bar)
    numbers = lines[len(lines) - 1 - lines[::-1].index(bar) + 1]
    assert re.fullmatch(r"loss \S+  accuracy \S+  val_loss \S+  val_accuracy \S+\s*", numbers)
    assert max(len(bar), len(numbers)) <= 80
    assert lines[-1].startswith("test accuracy: ")
