"""The command line: what it prints, saves and refuses. Never a traceback."""

import json
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import gpugrad as gg
from gpugrad import backend, cli, data, io, nn

ROOT = Path(__file__).parents[1]
pytest.importorskip("sklearn")


def run(*args, cwd=None, **environment):
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])} | environment
    return subprocess.run([sys.executable, "-m", "gpugrad", *args], cwd=cwd, env=env, capture_output=True, text=True, timeout=600)


def test_train_with_the_defaults_reaches_its_accuracy_and_saves_the_model(tmp_path):
    done = run("train", "--device", "cpu", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    match = re.fullmatch(r"test accuracy: (\d\.\d{4})", lines[-1])
    assert match, lines[-1]
    assert float(match[1]) >= 0.975
    assert len([line for line in lines if line.startswith("epoch")]) == 30
    assert "\x1b" not in done.stdout
    assert done.stderr == ""

    description = json.loads(io.load_metadata(tmp_path / "digits.safetensors")["description"])
    model = nn.MLP(description["architecture"]["sizes"], description["architecture"]["activation"])
    model.load_state_dict(io.load(tmp_path / "digits.safetensors"))
    _, _, x, y = data.load_digits(seed=description["about"]["seed"])
    with gg.no_grad():
        assert f"{(model(x).numpy().argmax(1) == y).mean():.4f}" == match[1] == description["about"]["scores"]["test accuracy"]


@pytest.mark.parametrize("seed", [1, 2])
def test_other_seeds_reach_it_too(tmp_path, capsys, seed):
    assert cli.main(["train", "--seed", str(seed), "--device", "cpu", "--output", str(tmp_path / "m")]) == 0
    assert float(capsys.readouterr().out.split()[-1]) >= 0.975


def test_the_same_seed_gives_the_same_file(tmp_path, capsys):
    for name in "ab":
        assert cli.main(["train", "--epochs", "2", "--device", "cpu", "--layers", "16", "--output", str(tmp_path / name)]) == 0
    capsys.readouterr()
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize(
    "options",
    [
        ["--optimizer", "sgd", "--activation", "tanh"],
        ["--optimizer", "adam", "--activation", "gelu", "--layers", "32,16"],
        ["--layers", "", "--lr", "0.01", "--batch-size", "5000", "--label-smoothing", "0"],
    ],
)
def test_options(tmp_path, capsys, options, device):
    assert cli.main(["train", "--epochs", "2", "--device", device, "--output", str(tmp_path / "m"), *options]) == 0
    out = capsys.readouterr().out
    assert re.search(rf"parameters on {device}", out)
    assert out.splitlines()[-1].startswith("test accuracy: ")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["train", "--activation", "rely"], "invalid choice: 'rely' (choose from"),
        (["train", "--optimizer", "tiger"], "invalid choice: 'tiger'"),
        (["train", "--device", "tpu"], "unknown device 'tpu'"),
        (["train", "--layers", "64,x"], "'64,x' is not a list of positive integers like 128,64"),
        (["train", "--layers", "0"], "not a list of positive integers"),
        (["train", "--lr", "-1"], "'-1' is not a positive number"),
        (["train", "--lr", "nan"], "'nan' is not a positive number"),
        (["train", "--lr", "fast"], "'fast' is not a number"),
        (["train", "--epochs", "0"], "'0' is not a positive number"),
        (["train", "--batch-size", "2.5"], "'2.5' is not an integer"),
        (["train", "--label-smoothing", "1"], "from 0 to below 1"),
        (["train", "--seed", "-3"], "'-3' is negative"),
        (["train", "--output", "/no/such/folder/m"], "cannot write to '/no/such/folder': No such file or directory"),
        (["train", "--output", "."], "'.' is a folder"),
        (["train", "--output", ""], "empty name"),
        (["train", "--bogus"], "unrecognized arguments: --bogus"),
        (["trian"], "invalid choice"),
        ([], "required: COMMAND"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(args, message, capsys):
    try:
        code = cli.main(args)
    except SystemExit as end:
        code = end.code
    out, err = capsys.readouterr()
    assert code == 2
    assert out == ""
    assert message in err
    assert err.count("\n") == 1


def test_cuda_without_a_gpu(capsys, monkeypatch):
    def none():
        raise backend.DeviceError("device 'cuda' needs CuPy, which cannot be imported. Install CuPy")

    monkeypatch.setattr(backend, "cupy", none)
    assert cli.main(["train", "--device", "cuda"]) == 2
    assert capsys.readouterr().err == "gpugrad: device 'cuda' needs CuPy, which cannot be imported. Install CuPy\n"
    assert cli.main(["info"]) == 0
    out = capsys.readouterr().out
    assert "cuda         none" in out
    assert "missing      GPU: device 'cuda' needs CuPy" in out


def test_without_scikit_learn_the_extra_is_named(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    assert cli.main(["train"]) == 2
    err = capsys.readouterr().err
    assert "pip install 'gpugrad[demo]'" in err
    assert err.count("\n") == 1


def test_a_loss_that_runs_away_is_reported(tmp_path, capsys):
    assert cli.main(["train", "--device", "cpu", "--optimizer", "sgd", "--lr", "1e30", "--output", str(tmp_path / "m")]) == 1
    assert "try a smaller --lr" in capsys.readouterr().err
    assert not (tmp_path / "m").exists()


def test_interrupted(tmp_path, capsys, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli.train, "fit", interrupt)
    assert cli.main(["train", "--device", "cpu", "--output", str(tmp_path / "m")]) == 130
    assert capsys.readouterr().err == "gpugrad: interrupted\n"


def test_a_terminal_gets_a_bar(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert cli.main(["train", "--device", "cpu", "--epochs", "2", "--output", str(tmp_path / "m")]) == 0
    out = capsys.readouterr().out
    assert "epoch 2/2" in out
    assert "examples/s" in out
    assert out.splitlines()[-1].startswith("test accuracy: ")


def test_info_and_version(capsys):
    assert cli.main(["info"]) == 0
    out = capsys.readouterr().out
    for name in ("gpugrad", "python", "numpy", "cupy", "numba", "BLAS", "cpu", "cuda"):
        assert name in out
    assert np.__version__ in out
    with pytest.raises(SystemExit):
        cli.main(["--version"])
    assert capsys.readouterr().out == f"gpugrad {gg.__version__}\n"


def test_the_example_learns(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train_mlp.py", "cpu"])
    runpy.run_path(str(ROOT / "examples" / "train_mlp.py"))
    lines = capsys.readouterr().out.splitlines()
    assert float(lines[-1].removeprefix("test accuracy: ")) >= 0.97
