"""A training that is interrupted, or killed, and resumed ends with the bits of one that was not."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from training.program import EPOCHS, OPTIMIZERS, Training

import gpugrad as gg
from gpugrad import training
from gpugrad.training.packing import from_json

ROOT = Path(__file__).parents[2]


class Interrupt(training.Callback):
    """Ctrl-C in some step."""

    def __init__(self, step):
        self.step = step

    def on_step_end(self, run):
        if run.step == self.step:
            raise KeyboardInterrupt


def interrupted_and_resumed(directory, epochs, step, other=99, **options):
    """Train until Ctrl-C in this step, then build everything anew, from other random numbers, and resume."""
    with pytest.raises(KeyboardInterrupt):
        Training(**options).go(epochs, directory, (Interrupt(step),))
    resumed = Training(seed=other, **options)
    gg.random.normal(size=3)
    resumed.go(epochs, directory, resume=True)
    return resumed


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_optimizer_resumes_bit_for_bit(tmp_path, optimizer):
    whole = Training(optimizer)
    whole.go(6)
    resumed = interrupted_and_resumed(tmp_path, 6, 11, optimizer=optimizer)
    assert training.latest_checkpoint(tmp_path).endswith("000006")
    assert whole.state() == resumed.state()
    assert len(resumed.history) == 6


def test_it_resumes_on_every_device(tmp_path, device):
    whole = Training(device=device)
    whole.go(4)
    resumed = interrupted_and_resumed(tmp_path, 4, 8, device=device)
    assert whole.state() == resumed.state()
    assert all(p.device.startswith(device) for p in resumed.model.parameters())


def test_what_is_compared_depends_on_every_part(tmp_path):
    """The test above could not fail if the state left something out: resuming without one part must show."""
    whole = Training()
    whole.go(6)
    for part in ("model", "optimizer", "schedule", "ema", "train", "generator", "callbacks", "history"):
        with pytest.raises(KeyboardInterrupt):
            Training().go(6, tmp_path / part, (Interrupt(11),))
        place = Path(training.latest_checkpoint(tmp_path / part))
        resumed = Training(seed=99)
        loaded = training.load_checkpoint(place)
        things = {"model": resumed.model, "optimizer": resumed.optimizer, "schedule": resumed.schedule, "ema": resumed.ema, "train": resumed.train}
        things |= {"generator": gg.random.default_generator}
        for name, thing in things.items():
            if name != part:
                thing.load_state_dict(loaded[name])
        if part in things:
            resumed.go(3)
            assert whole.state() != resumed.state(), part


def test_early_stopping_goes_on_counting_and_keeps_its_best_weights(tmp_path):
    def make(**options):
        return Training("SGD", monitor="loss", patience=2, **options)

    class Worse(training.Callback):  # the loss is best in epoch 2
        def on_epoch_end(self, run):
            run.logs["loss"] = abs(run.epoch - 2.0)

    whole = make()
    whole.go(20, None, (Worse(),))
    assert (whole.stopping.stopped_epoch, whole.stopping.best_epoch, len(whole.history)) == (4, 2, 4)
    with pytest.raises(KeyboardInterrupt):
        make().go(20, tmp_path, (Worse(), Interrupt(3 * 3 + 1)))
    resumed = make(seed=9)
    resumed.go(20, tmp_path, (Worse(),), resume=True)
    assert whole.state() == resumed.state()

    again = make(seed=7)  # stopped it stays, and the best weights come back
    again.go(20, tmp_path, (Worse(),), resume=True)
    assert whole.state() == again.state()

    patient = make(seed=7)
    patient.stopping.patience = 4
    patient.go(20, tmp_path, (Worse(),), resume=True)
    assert len(patient.history) == 6


def test_a_scaler_goes_on_counting(tmp_path):
    """It doubles after seven good steps: one that began anew after nine would be at another scale after eighteen."""

    def scaler():
        return gg.amp.GradScaler(init_scale=4.0, growth_interval=7)

    whole, resumed = scaler(), scaler()
    Training().go(6, None, scaler=whole)
    with pytest.raises(KeyboardInterrupt):
        Training().go(6, tmp_path, (Interrupt(10),), scaler=scaler())
    Training(seed=9).go(6, tmp_path, scaler=resumed, resume=True)
    assert whole.state_dict() == resumed.state_dict() and whole.get_scale() > 4


def test_a_finished_training_goes_on_to_more_epochs(tmp_path):
    whole = Training()
    whole.go(5)
    Training().go(3, tmp_path)
    second = Training(seed=5)
    second.go(5, tmp_path, resume=True)
    assert whole.state() == second.state()


def test_it_resumes_from_every_so_many_epochs(tmp_path):
    whole = Training()
    whole.go(7)
    with pytest.raises(KeyboardInterrupt):
        Training().go(7, tmp_path, (Interrupt(3 * 5 + 2),), checkpoint_every=2)
    assert sorted(os.listdir(tmp_path)) == ["checkpoint-000002", "checkpoint-000004"]
    resumed = Training(seed=5)
    resumed.go(7, tmp_path, resume=True, checkpoint_every=2)
    assert whole.state() == resumed.state()
    assert sorted(os.listdir(tmp_path)) == ["checkpoint-000004", "checkpoint-000006", "checkpoint-000007"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_killed_at_many_random_moments_it_loses_at_most_the_epoch_under_way(tmp_path):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")])}
    environment |= {f"{library}_NUM_THREADS": "1" for library in ("OMP", "MKL", "OPENBLAS")}  # theirs do not survive a fork
    program = [sys.executable, str(Path(__file__).with_name("program.py")), str(tmp_path / "run"), "25"]
    done = subprocess.run(program, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "damaged" not in done.stderr
    epochs, codes = zip(*(map(int, line.split()) for line in done.stdout.splitlines()), strict=True)
    assert list(epochs) == sorted(epochs) and epochs[-1] == EPOCHS and codes[-1] == 0
    assert codes.count(-9) >= 5, done.stdout  # so many were killed before they were done

    assert (tmp_path / "run.whole").read_text() == (tmp_path / "run.state").read_text()
    assert sorted(os.listdir(tmp_path / "run")) == [f"checkpoint-{EPOCHS - i:06d}" for i in (2, 1, 0)]


def test_the_checkpoint_of_a_resumed_run_holds_the_bytes_of_the_others(tmp_path):
    Training().go(4, tmp_path / "whole")
    interrupted_and_resumed(tmp_path / "resumed", 4, 8)
    for name in ("tensors.safetensors", "state.json"):
        a, b = ((tmp_path / run / "checkpoint-000004" / name).read_bytes() for run in ("whole", "resumed"))
        if name == "state.json":
            a, b = (json.dumps(_without_rates(from_json(text))) for text in (a, b))
        else:  # but for the checksum of the other file
            a, b = (text[8 + int.from_bytes(text[:8], "little") :] for text in (a, b))
        assert a == b


def _without_rates(content):
    for row in content["state"]["history"]["rows"]:
        del row["examples_per_second"]
    return content
