"""Whatever is wrong: one line on stderr that says so, the right exit code, no traceback, and nothing overwritten."""

import errno
import gzip
import json
import os
import signal
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from gpugrad import cli, io, training
from gpugrad.cli import model_file

ROOT = Path(__file__).parents[2]

ROWS = "a,b,y\n" + "".join(f"{i},{i * i % 7},{'pq'[i % 2]}\n" for i in range(20))

CSV = {
    "ragged": (ROWS + "1,2\n", "line 22, column 'y': 2 cells, expected 3"),
    "text": (ROWS + "1,two,p\n", "line 22, column 'b'"),
    "nan": (ROWS + "nan,2,p\n", "line 22, column 'a'"),
    "infinite": (ROWS + "1,-inf,p\n", "line 22, column 'b'"),
    "an empty cell": (ROWS + "1,,p\n", "line 22, column 'b'"),
    "an empty label": (ROWS + "1,2,\n", "line 22, column 'y'"),
    "one class": (ROWS.replace("q", "p"), "has one class only, 'p'"),
    "every row its own class": ("a,y\n1,p\n2,q\n3,r\n", "no two rows have the same 'y'"),
    "nothing": ("", "the file is empty"),
    "a header": ("a,b,y\n", "nothing follows the header"),
    "only the target": ("y\np\nq\np\n", "no column besides 'y'"),
    "the same name twice": (ROWS.replace("a,b", "b,b"), "column 'b'"),
    "few rows": ("a,y\n1,p\n2,q\n", "too few for a split: none are left for --test 0.2"),
    "bytes": ("\udcff\udcfe" + ROWS, "convert it to UTF-8"),
}


def says(result, message, code=2):
    got, out, err = result
    assert got == code, (out, err)
    assert message in err
    assert err.startswith("gpugrad")
    assert err.count("\n") == 1
    assert "Traceback" not in err


@pytest.mark.parametrize("what", CSV)
def test_a_csv_file(what, run, tmp_path):
    content, message = CSV[what]
    path, model = tmp_path / "data.csv", tmp_path / "m.safetensors"
    path.write_bytes(content.encode(errors="surrogateescape"))
    model.write_text("before")
    result = run("train", "--data", path, "--epochs", "1", "--layers", "4", "--device", "cpu", "--output", model)
    says(result, message)
    assert str(path) in result[2]
    assert model.read_text() == "before"
    assert sorted(os.listdir(tmp_path)) == ["data.csv", "m.safetensors"]


ARRAYS = {
    "lengths": ({"x": np.zeros((5, 2)), "y": np.zeros(4)}, "x 5, y 4"),
    "infinite": ({"x": np.where(np.arange(40).reshape(20, 2) == 15, np.inf, 0.0), "y": np.arange(20) % 2}, "row 7, column 'x_1'"),
    "nan in the target": ({"x": np.ones((20, 2)), "y": np.where(np.arange(20) == 3, np.nan, np.arange(20) / 7)}, "row 3, column 'y'"),
    "objects": ({"x": np.array([{}, 1], dtype=object), "y": np.zeros(2)}, "would execute code"),
    "complex": ({"x": np.ones((5, 2)) * 1j, "y": np.zeros(5)}, "complex128"),
    "no axes": ({"x": np.zeros(()), "y": np.zeros(5)}, "x none, y 5"),
    "no rows": ({"x": np.zeros((0, 2)), "y": np.zeros(0)}, "no rows"),
    "no arrays": ({}, "no arrays"),
}


@pytest.mark.parametrize("what", ARRAYS)
def test_an_npz_file(what, run, tmp_path):
    arrays, message = ARRAYS[what]
    np.savez(tmp_path / "data.npz", **arrays)
    says(run("train", "--data", tmp_path / "data.npz", "--device", "cpu", "--output", tmp_path / "m"), message)
    assert not (tmp_path / "m").exists()


def test_files_that_are_none(run, tmp_path, samples):
    for command in (["train", "--output", tmp_path / "m"], ["predict", samples / "flowers.safetensors"], ["evaluate", samples / "flowers.safetensors"]):
        says(run(*command, "--data", tmp_path / "no.csv"), "there is no file")
        says(run(*command, "--data", tmp_path), "there is no train-images-idx3-ubyte")
        (tmp_path / "cut.csv.gz").write_bytes(gzip.compress((samples / "flowers.csv").read_bytes())[:200])
        says(run(*command, "--data", tmp_path / "cut.csv.gz"), "damaged gzip file")
        (tmp_path / "cut.npz").write_bytes(b"PK\x03\x04 and no more")
        says(run(*command, "--data", tmp_path / "cut.npz"), "damaged")


@pytest.mark.skipif(os.name == "nt" or not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(run, tmp_path):
    (tmp_path / "d.csv").write_text(ROWS)
    (tmp_path / "d.csv").chmod(0)
    says(run("train", "--data", tmp_path / "d.csv", "--output", tmp_path / "m"), "Permission denied")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--target", "kinds"], "no column 'kinds'; did you mean 'kind'?"),
        (["--target", "colour"], "no column 'colour'; it has 'length', 'width', 'depth' and 'kind'"),
        (["--ignore", "lenght"], "no column 'lenght'; did you mean 'length'?"),
        (["--ignore", "length,width,depth"], "no column besides 'kind'"),
        (["--ignore", "length,width,depth,kind"], "no columns that are left"),
        (["--task", "regression"], "line 2, column 'kind': 'red' is not a number"),
        (["--target", "width", "--ignore", "kind", "--task", "classification"], "is no class"),
        (["--target", "width", "--ignore", "kind", "--label-smoothing", "0.1"], "--label-smoothing is for classification"),
        (["--target", "width"], "--ignore leaves columns out"),
        (["--test", "0.6", "--validation", "0.5"], "leave nothing to learn from"),
        (["--test", "0.999"], "for training"),
        (["--early-stopping", "3"], "add --validation"),
        (["--resume"], "add --checkpoint"),
        (["--norm", "batch", "--batch-size", "1"], "--batch-size 1"),
        (["--residual", "--layers", "8,4"], "residual"),
        (["--optimizer", "lbfgs", "--weight-decay", "0.1"], "L-BFGS"),
        (["--optimizer", "lbfgs", "--dtype", "bfloat16"], "16 bits"),
        (["--warmup", "3"], "expected less than --epochs 3"),
        (["--warmup", "1", "--schedule", "plateau"], "--schedule plateau"),
        (["--schedule", "cosin"], "invalid choice: 'cosin'"),
        (["--norm", "instance"], "invalid choice: 'instance'"),
        (["--dtype", "int8"], "invalid choice: 'int8'"),
        (["--validation", "1"], "from 0 to below 1"),
        (["--clip", "0"], "not a positive number"),
        (["--weight-decay", "-1"], "negative"),
        (["--weight-decay", "inf"], "not a finite number"),
        (["--plot", "p.txt"], "expected .png"),
        (["--plot", "no/p.png"], "--plot: cannot write to 'no'"),
        (["--log", "no/l.jsonl"], "--log: cannot write to 'no'"),
        (["--log", "."], "is a folder"),
        (["--checkpoint", "here"], "--checkpoint: 'here' is not a folder"),
        (["--checkpoint", "here/c"], "is not a folder"),
        (["--tensorboard", "here"], "--tensorboard: 'here' is not a folder"),
        (["--output", "no/m"], "--output: cannot write to 'no'"),
        (["--output", "x.png", "--plot", "x.png"], "--output and --plot are both 'x.png'"),
    ],
)
def test_options(options, message, run, tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").write_text("a file")
    says(run(*tiny, *options), message)
    assert os.listdir(tmp_path) == ["here"]


def test_the_data_is_not_written_over(run, samples):
    before = (samples / "flowers.csv").read_bytes()
    says(run("train", "--data", samples / "flowers.csv", "--output", samples / "flowers.csv"), "--data and --output are both")
    for path in ("flowers.csv", "flowers.safetensors"):
        result = run("predict", samples / "flowers.safetensors", "--data", samples / "flowers.csv", "--output", samples / path)
        says(result, "choose another name" if path.endswith("csv") else "expected .csv or .npz")
    assert (samples / "flowers.csv").read_bytes() == before


def test_one_row_is_too_few_for_batch_norm(run, tmp_path):
    (tmp_path / "d.csv").write_text("a,y\n1,2.5\n2,3.5\n")
    says(run("train", "--data", tmp_path / "d.csv", "--device", "cpu", "--norm", "batch", "--test", "0.5", "--output", tmp_path / "m"), "at least two rows")


def test_options_about_columns_need_a_file(run):
    says(run("train", "--target", "x"), "add --data FILE")


# ------------------------------------------------------------------------------------------------- the model and the file


def test_columns_that_do_not_fit_are_named(run, samples, tmp_path):
    renamed = (samples / "flowers.csv").read_text().replace("width", "breadth", 1)
    (tmp_path / "renamed.csv").write_text(renamed)
    for command in ("predict", "evaluate"):
        says(
            run(command, samples / "flowers.safetensors", "--data", tmp_path / "renamed.csv"),
            "lacks 'width', which the model needs, and has 'breadth', which the model does not know",
        )
    np.savez(tmp_path / "x.npz", x=np.ones((4, 2)))
    says(run("predict", samples / "flowers.safetensors", "--data", tmp_path / "x.npz"), "x has 2 columns, and the model needs 3: 'length', 'width' and 'depth'")


def test_evaluate_needs_labels_that_the_model_knows(run, samples, tmp_path):
    lines = (samples / "flowers.csv").read_text().splitlines()
    (tmp_path / "d.csv").write_text("\n".join([*lines[:4], lines[4].rpartition(",")[0] + ",violet", *lines[5:]]))
    says(run("evaluate", samples / "flowers.safetensors", "--data", tmp_path / "d.csv"), "line 5, column 'kind': 'violet' is none of the model's classes")
    (tmp_path / "d.csv").write_text("\n".join(line.rpartition(",")[0] for line in lines))
    says(run("evaluate", samples / "flowers.safetensors", "--data", tmp_path / "d.csv"), "no target column 'kind'")
    (tmp_path / "d.csv").write_text((samples / "prices.csv").read_text().replace("price", "prize"))
    says(run("evaluate", samples / "prices.safetensors", "--data", tmp_path / "d.csv"), "no target column 'price' to compare with; did you mean 'prize'?")


def damaged(path, change):
    """The bytes of a model file in which the description has been changed, and the checksum with it."""
    content = path.read_bytes()
    end = 8 + struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8:end])
    description = json.loads(header["__metadata__"]["description"])
    before = description["sha256"]
    change(description)
    if description.get("sha256") == before:
        description["sha256"] = model_file.checksum(description, io.load(path))
    header["__metadata__"]["description"] = json.dumps(description)
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + content[end:]


HOSTILE = {
    "no architecture": lambda d: d.pop("architecture"),
    "an architecture of text": lambda d: d.update(architecture="nn.MLP"),
    "more in it": lambda d: d["architecture"].update(bias="__import__('os').system('true')"),
    "an activation that there is not": lambda d: d["architecture"].update(activation="eval"),
    "an activation that is a list": lambda d: d["architecture"].update(activation=["relu"]),
    "sizes beyond the file": lambda d: d["architecture"].update(sizes=[3, 10**9, 3]),
    "sizes of another network": lambda d: d["architecture"].update(sizes=[3, 15, 3]),
    "sizes below 0": lambda d: d["architecture"].update(sizes=[3, -16, 3]),
    "sizes that are true": lambda d: d["architecture"].update(sizes=[3, True, 3]),
    "one size": lambda d: d["architecture"].update(sizes=[3]),
    "a norm": lambda d: d["architecture"].update(norm="batch"),
    "a dropout of 2": lambda d: d["architecture"].update(dropout=2),
    "a task": lambda d: d.update(task="translation"),
    "fewer columns": lambda d: d.update(columns=["length"]),
    "columns of the same name": lambda d: d.update(columns=["length"] * 3),
    "columns that are numbers": lambda d: d.update(columns=[1, 2, 3]),
    "more classes": lambda d: d["classes"].append("violet"),
    "no classes": lambda d: d.pop("classes"),
    "a std of 0": lambda d: d["inputs"].update(std=[0, 1, 1]),
    "a std that is text": lambda d: d["inputs"].update(std=["a", "b", "c"]),
    "a mean that is ragged": lambda d: d["inputs"].update(mean=[[1], 2, 3]),
    "a mean of NaN": lambda d: d["inputs"].update(mean=[float("nan"), 1, 1]),
    "a mean of another length": lambda d: d["inputs"].update(mean=[1, 2]),
    "outputs of a classifier": lambda d: d.update(outputs={"mean": [0], "std": [1]}),
    "another checksum": lambda d: d.update(sha256="0" * 64),
    "a depth without end": lambda d: d.update(about=None),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_model_that_does_not_fit_together(what, run, samples, tmp_path):
    (tmp_path / "m").write_bytes(damaged(samples / "flowers.safetensors", HOSTILE[what]))
    says(run("predict", tmp_path / "m", "--data", samples / "flowers.csv"), f"'{tmp_path / 'm'}' is damaged")


def test_the_damage_is_all_that_those_files_have(run, samples, tmp_path):
    (tmp_path / "m").write_bytes(damaged(samples / "flowers.safetensors", lambda d: None))
    assert run("predict", tmp_path / "m", "--data", samples / "flowers.csv")[0] == 0


def test_models_that_are_none(run, samples, tmp_path):
    whole = (samples / "flowers.safetensors").read_bytes()
    flipped, mean = bytearray(whole), bytearray(whole)
    flipped[-9] ^= 1
    mean[whole.index(b".", whole.index(b"mean")) + 1] ^= 1  # another digit
    io.save(tmp_path / "other", {"w": np.ones(3)})
    io.save(tmp_path / "deep", {"w": np.ones(3)}, {"format": model_file.FORMAT, "description": "[" * 100_000})
    cases = {
        "short": (whole[:-100], "is not a complete safetensors file"),
        "empty": (b"", "is not a complete safetensors file"),
        "a weight": (bytes(flipped), "its checksum is not that of what it holds"),
        "a mean": (bytes(mean), "its checksum is not that of what it holds"),
        "pickle": (b"\x80\x04cos\nsystem\n(S'true'\ntR.", "is not a complete safetensors file"),
    }
    for name, (content, message) in cases.items():
        (tmp_path / name).write_bytes(content)
        says(run("predict", tmp_path / name, "--data", samples / "flowers.csv"), message)
    says(run("predict", tmp_path / "other", "--data", samples / "flowers.csv"), "no model that gpugrad train saved")
    says(run("predict", tmp_path / "deep", "--data", samples / "flowers.csv"), "not JSON")
    says(run("evaluate", tmp_path / "none", "--data", samples / "flowers.csv"), "there is no file")
    says(run("evaluate", tmp_path, "--data", samples / "flowers.csv"), "is not a file")


def test_cuda_without_a_gpu(run, samples, tiny, monkeypatch):
    from gpugrad import backend

    def none():
        raise backend.DeviceError("device 'cuda' needs CuPy,\nwhich cannot be imported")

    monkeypatch.setattr(backend, "cupy", none)
    says(run(*tiny, "--device", "cuda"), "device 'cuda' needs CuPy")
    says(run("predict", samples / "flowers.safetensors", "--data", samples / "flowers.csv", "--device", "cuda"), "device 'cuda' needs CuPy")
    says(run("evaluate", samples / "flowers.safetensors", "--data", samples / "flowers.csv", "--device", "tpu"), "unknown device 'tpu'")


# ------------------------------------------------------------------------------------------------- on the way


def test_a_full_disk_leaves_what_was_there(run, samples, tiny, tmp_path, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    (tmp_path / "m.safetensors").write_text("before")
    (tmp_path / "p.csv").write_text("before")
    monkeypatch.setattr(os, "fsync", full)
    says(run(*tiny), "cannot write")
    says(run("predict", samples / "flowers.safetensors", "--data", samples / "flowers.csv", "--output", tmp_path / "p.csv"), "No space left on device")
    says(run(*tiny, "--checkpoint", tmp_path / "run"), "No space left on device")
    says(run(*tiny, "--log", tmp_path / "l.jsonl"), f"cannot write '{tmp_path / 'l.jsonl'}': No space left on device")
    assert (tmp_path / "m.safetensors").read_text() == (tmp_path / "p.csv").read_text() == "before"
    assert not list(tmp_path.glob("*.partial"))
    assert os.listdir(tmp_path / "run") == []


def test_scores_are_said_even_if_the_picture_cannot_be_saved(run, tiny, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(training, "plot_history", full)
    result = run(*tiny, "--plot", tmp_path / "p.png")
    says(result, f"--plot: cannot write '{tmp_path / 'p.png'}': No space left on device")
    assert result[1].splitlines()[-1].startswith("test accuracy: ")
    assert (tmp_path / "m.safetensors").exists()


def test_out_of_memory(run, tiny, samples, monkeypatch):
    def hungry(*_, **__):
        raise MemoryError("Unable to allocate 3 TiB")

    monkeypatch.setattr(training, "fit", hungry)
    monkeypatch.setattr(model_file.Model, "predict", hungry)
    says(run(*tiny), "out of memory: Unable to allocate 3 TiB; try a smaller --batch-size", 1)
    says(run("predict", samples / "flowers.safetensors", "--data", samples / "flowers.csv"), "out of memory: Unable to allocate 3 TiB\n", 1)


def test_a_loss_that_runs_away(run, tiny, tmp_path):
    says(run(*tiny, "--optimizer", "sgd", "--lr", "1e30", "--checkpoint", tmp_path / "run"), "try a smaller --lr", 1)
    assert not (tmp_path / "m.safetensors").exists()


def test_ctrl_c(run, tiny, tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    (tmp_path / "m.safetensors").write_text("before")
    monkeypatch.setattr(training.Progress, "on_epoch_end", interrupt)
    code, _, err = run(*tiny)
    assert (code, err) == (130, "gpugrad: interrupted\n")
    assert (tmp_path / "m.safetensors").read_text() == "before"


# ------------------------------------------------------------------------------------------------- as a process


def process(*args, **options):
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    return subprocess.run([sys.executable, "-m", "gpugrad", *map(str, args)], env=env, text=True, timeout=600, **options)


def test_a_process_says_the_same(samples, tmp_path):
    done = process("train", "--data", tmp_path / "no.csv", "--output", tmp_path / "m", capture_output=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"gpugrad: there is no file '{tmp_path / 'no.csv'}'\n"


@pytest.mark.skipif(os.name == "nt", reason="there are no such signals")
def test_a_process_is_interrupted(tiny):
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, "-m", "gpugrad", *tiny, "--epochs", "1000000"]
    heed = lambda: signal.signal(signal.SIGINT, signal.default_int_handler)  # what runs in the background of a shell is started with the signal ignored
    with subprocess.Popen(command, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=heed) as child:
        assert child.stdout is not None
        while not child.stdout.readline().startswith("epoch"):
            assert child.poll() is None
        child.send_signal(signal.SIGINT)
        _, err = child.communicate(timeout=300)
    assert (child.returncode, err) == (130, "gpugrad: interrupted\n")
    assert not os.path.exists(tiny[-1])


def test_names_that_the_terminal_cannot_show(samples, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    monkeypatch.setenv("PYTHONUTF8", "0")
    (tmp_path / "d.csv").write_text((samples / "flowers.csv").read_text().replace("red", "r\u00f6t").replace("width", "Gr\u00f6\u00dfe"), encoding="utf-8")
    done = process("train", "--data", tmp_path / "d.csv", "--device", "cpu", "--epochs", "1", "--output", tmp_path / "m", capture_output=True)
    assert (done.returncode, done.stderr) == (0, "")
    done = process("evaluate", tmp_path / "m", "--data", tmp_path / "d.csv", capture_output=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "r\\xf6t" in done.stdout
    done = process("predict", tmp_path / "m", "--data", samples / "flowers.csv", capture_output=True)
    assert done.returncode == 2
    assert "lacks 'Gr\\xf6\\xdfe'" in done.stderr


def test_a_reader_that_leaves_is_no_error(samples):
    done = process("predict", samples / "flowers.safetensors", "--data", samples / "flowers.csv", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert done.returncode == 0
    reader = subprocess.Popen([sys.executable, "-c", "pass"], stdin=subprocess.PIPE)
    reader.wait()
    gone = process("predict", samples / "flowers.safetensors", "--data", samples / "flowers.csv", stdout=reader.stdin, stderr=subprocess.PIPE)
    assert (gone.returncode, gone.stderr) == (1, "")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
def test_a_standard_output_that_is_full(samples):
    with open("/dev/full", "w") as full:
        done = process("predict", samples / "flowers.safetensors", "--data", samples / "flowers.csv", stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 1
    assert "No space left on device" in done.stderr
    assert done.stderr.count("\n") == 1


def test_main_is_what_the_script_calls():
    assert cli.main is __import__("gpugrad.__main__", fromlist=["main"]).main


def test_bfloat16_without_ml_dtypes_is_one_line(monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    monkeypatch.chdir(tmp_path)
    assert cli.main(["train", "--dtype", "bfloat16", "--device", "cpu"]) == 2
    err = capsys.readouterr().err
    assert "--dtype: bfloat16 needs ml_dtypes" in err and "pip install 'gpugrad[bfloat16]'" in err and err.count("\n") == 1


def test_what_is_not_a_regular_file_is_not_replaced(run, tiny, tmp_path):
    os.mkfifo(tmp_path / "fifo")
    says(run(*tiny, "--output", tmp_path / "fifo"), "fifo' is not a regular file")
    assert (tmp_path / "fifo").is_fifo()
    (tmp_path / "real").write_text("before")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert run(*tiny, "--output", tmp_path / "link")[0] == 0
    assert (tmp_path / "link").is_symlink() and len((tmp_path / "real").read_bytes()) > 1000


def test_two_options_that_name_one_file_by_a_link(run, tmp_path):
    data, link = tmp_path / "data.csv", tmp_path / "model.safetensors"
    data.write_text(ROWS)
    link.symlink_to(data)
    result = run("train", "--data", data, "--epochs", "1", "--layers", "4", "--device", "cpu", "--output", link)
    says(result, f"--data and --output are both '{link}'")
    assert data.read_text() == ROWS
