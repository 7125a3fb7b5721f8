"""Checkpoints: what goes on does so bit for bit, and only if it is the same training."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gpugrad import training

ROOT = Path(__file__).parents[2]
OPTIONS = {
    "plain": [],
    "everything": [
        "--validation", "0.2", "--ema", "0.9", "--dropout", "0.2", "--norm", "batch", "--schedule", "warmup-cosine", "--early-stopping", "5", "--clip", "1",
        "--accumulate", "2", "--batch-size", "8",
    ],
    "plateau": ["--schedule", "plateau", "--optimizer", "sgd", "--dtype", "float16", "--validation", "0.1"],
    "lbfgs": ["--optimizer", "lbfgs", "--schedule", "none"],
}  # fmt: skip


def refused(result, message):
    code, _, err = result
    assert code == 2
    assert message in err
    assert err.count("\n") == 1


@pytest.fixture
def interrupted(monkeypatch):
    """Ctrl-C at the end of the fourth epoch."""

    def arm():
        original = training.Progress.on_epoch_end

        def stop(self, run):
            original(self, run)
            if run.epoch == 4:
                raise KeyboardInterrupt

        monkeypatch.setattr(training.Progress, "on_epoch_end", stop)

    yield arm
    monkeypatch.undo()


@pytest.mark.parametrize("what", OPTIONS)
def test_what_was_interrupted_goes_on_bit_for_bit(what, run, tiny, tmp_path, interrupted, monkeypatch):
    command = [*tiny, "--epochs", "8", *OPTIONS[what], "--checkpoint", tmp_path / "run", "--log", tmp_path / "log"]
    assert run(*tiny, "--epochs", "8", *OPTIONS[what], "--log", tmp_path / "straight")[0] == 0
    straight = (tmp_path / "m.safetensors").read_bytes()
    os.remove(tmp_path / "m.safetensors")

    interrupted()
    code, _, err = run(*command)
    assert (code, err) == (130, f"gpugrad: interrupted; the same command with --resume goes on from the last checkpoint in '{tmp_path / 'run'}'\n")
    assert not (tmp_path / "m.safetensors").exists()
    assert sorted(os.listdir(tmp_path / "run")) == [f"checkpoint-00000{n}" for n in (1, 2, 3)]
    monkeypatch.undo()

    code, out, err = run(*command, "--resume")
    assert (code, err) == (0, "")
    assert out.splitlines()[3].startswith("epoch 4/8")
    assert (tmp_path / "m.safetensors").read_bytes() == straight
    with open(tmp_path / "log") as a, open(tmp_path / "straight") as b:
        rows = [[{k: v for k, v in json.loads(line).items() if k != "examples_per_second"} for line in file] for file in (a, b)]
    assert rows[0] == rows[1]


def test_a_finished_training_is_saved_again(run, tiny, tmp_path):
    command = [*tiny, "--checkpoint", tmp_path / "run", "--checkpoint-every", "2"]
    out = run(*command)[1]
    assert sorted(os.listdir(tmp_path / "run")) == ["checkpoint-000002", "checkpoint-000003"]
    model = (tmp_path / "m.safetensors").read_bytes()
    code, again, _ = run(*command, "--resume")
    assert code == 0
    assert "epoch" not in again
    assert again.splitlines()[-1] == out.splitlines()[-1]
    assert (tmp_path / "m.safetensors").read_bytes() == model


def test_a_training_that_has_stopped_early_goes_no_further(run, samples, tmp_path):
    command = [
        "train", "--data", samples / "flowers.csv", "--device", "cpu", "--layers", "64", "--lr", "0.1", "--epochs", "60", "--validation", "0.2",
        "--early-stopping", "2", "--checkpoint", tmp_path / "run", "--output", tmp_path / "m",
    ]  # fmt: skip
    assert run(*command)[0] == 0
    model, checkpoints = (tmp_path / "m").read_bytes(), sorted(os.listdir(tmp_path / "run"))
    assert checkpoints[-1] < "checkpoint-000060"
    code, out, _ = run(*command, "--resume")
    assert code == 0
    assert "\nepoch" not in out and "; goes on from " in out and "stopped: for 2 epochs validation got no better; the weights are those of epoch" in out
    assert ((tmp_path / "m").read_bytes(), sorted(os.listdir(tmp_path / "run"))) == (model, checkpoints)


def test_a_training_without_a_schedule_may_be_made_longer(run, tiny, tmp_path):
    straight = [*tiny, "--schedule", "none", "--epochs"]
    assert run(*straight, 5)[0] == 0
    weights = (tmp_path / "m.safetensors").read_bytes()[-2000:]
    assert run(*straight, 2, "--checkpoint", tmp_path / "run")[0] == 0
    assert run(*straight, 5, "--checkpoint", tmp_path / "run", "--resume")[0] == 0
    assert (tmp_path / "m.safetensors").read_bytes()[-2000:] == weights


def test_it_must_be_the_same_training(run, tiny, samples, tmp_path):
    command = [*tiny, "--checkpoint", tmp_path / "run"]
    refused(run(*command, "--resume"), "there is no checkpoint in")
    assert run(*command)[0] == 0
    refused(run(*command), "add --resume to go on")
    refused(run(*command, "--resume", "--layers", "8", "--lr", "0.1"), "made with other options: --layers was 8,8 and is 8, --lr was not given and is 0.1")
    refused(
        run(*command, "--resume", "--epochs", "4"), "--epochs was 3 and is 4; the schedule goes by --epochs: only a run with --schedule none can be made longer"
    )
    refused(run(*command, "--resume", "--seed", "1"), "--seed was 0 and is 1")
    lines = (samples / "flowers.csv").read_text().splitlines()
    (tmp_path / "d.csv").write_text("\n".join(lines[:-1]))
    refused(run(*command, "--resume", "--data", tmp_path / "d.csv"), "other data")
    training.save_checkpoint(tmp_path / "foreign", 1, numbers=[1, 2])
    refused(run(*tiny, "--checkpoint", tmp_path / "foreign", "--resume"), "was not made by gpugrad train")
    assert run(*command, "--resume", "--log", tmp_path / "l", "--checkpoint-every", "2")[0] == 0


@pytest.mark.parametrize("file", ["tensors.safetensors", "state.json"])
def test_checkpoints_that_are_cut_short(file, run, tiny, tmp_path):
    command = [*tiny, "--checkpoint", tmp_path / "run"]
    assert run(*command)[0] == 0
    model = (tmp_path / "m.safetensors").read_bytes()
    os.truncate(tmp_path / "run" / "checkpoint-000003" / file, 50)
    code, out, err = run(*command, "--resume")  # from the one before
    assert code == 0
    assert "passed over a damaged checkpoint" in err
    assert out.splitlines()[3].startswith("epoch 3/3")
    assert (tmp_path / "m.safetensors").read_bytes() == model
    for place in (tmp_path / "run").iterdir():
        os.truncate(place / file, 50)
    refused(run(*command, "--resume"), "there is no checkpoint that is whole")
    assert (tmp_path / "m.safetensors").read_bytes() == model


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL")
def test_a_training_that_was_killed(run, tiny, tmp_path):
    command = [*tiny, "--epochs", "100", "--dropout", "0.1", "--checkpoint", str(tmp_path / "run")]
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    process = subprocess.Popen([sys.executable, "-m", "gpugrad", *command], env=env, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while len(list(tmp_path.glob("run/checkpoint-*"))) < 3 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    code, out, _ = run(*command, "--resume")
    assert code == 0
    assert not out.splitlines()[3].startswith("epoch   1/100")
    resumed = (tmp_path / "m.safetensors").read_bytes()
    assert run(*command[:-2])[0] == 0
    assert (tmp_path / "m.safetensors").read_bytes() == resumed
