"""Callbacks: when each hook is called, early stopping against a rule written out, the norms of gradients."""

import math

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import gpugrad as gg
from gpugrad import backend, nn, optim, training
from gpugrad.nn import functional as F  # noqa: N812
from gpugrad.training.callbacks import gradient_norms


def fit(epochs=3, callbacks=(), device="cpu", model=None, **options):
    rng = np.random.default_rng(0)
    x, y = (backend.asarray(rng.standard_normal((6, n)).astype(np.float32), device=device) for n in (3, 1))
    model = model or nn.Linear(3, 1, device=device)
    return training.fit(model, F.mse_loss, optim.SGD(model.parameters(), 0.1), [(x[:4], y[:4]), (x[4:], y[4:])], epochs=epochs, callbacks=callbacks, **options)


class Scripted(training.Callback):
    """Puts given numbers into the logs, and remembers the weights of every epoch."""

    def __init__(self, values, name="val_loss"):
        self.values, self.name, self.weights = values, name, []

    def on_epoch_end(self, run):
        run.logs[self.name] = self.values[run.epoch - 1]
        self.weights.append(run.model.weight.numpy().copy())


def test_hooks_in_their_order():
    seen = []

    class Watch(training.Callback):
        def on_train_begin(self, run):
            seen.append(("begin", run.epoch, run.epochs, run.step, run.steps_per_epoch))

        def on_epoch_begin(self, run):
            seen.append(("epoch begin", run.epoch, dict(run.logs)))

        def on_step_end(self, run):
            seen.append(("step", run.step, run.meter.examples))
            run.logs["mine"] = run.step

        def on_epoch_end(self, run):
            assert run.history.rows[-1] is run.logs
            seen.append(("epoch end", run.epoch, list(run.logs), run.logs["mine"]))

        def on_train_end(self, run):
            seen.append(("end", run.epoch))

    history = fit(2, Watch())  # one may stand alone
    logs = ["epoch", "loss", "lr", "examples_per_second", "mine"]
    assert seen == [
        ("begin", 0, 2, 0, 2),
        ("epoch begin", 1, {"epoch": 1}), ("step", 1, 4), ("step", 2, 6), ("epoch end", 1, logs, 2),
        ("epoch begin", 2, {"epoch": 2}), ("step", 3, 4), ("step", 4, 6), ("epoch end", 2, logs, 4),
        ("end", 2),
    ]  # fmt: skip
    assert history["mine"] == [2, 4]


def test_what_a_callback_logs_becomes_a_number_of_python(tmp_path, capsys):
    class Put(training.Callback):
        def __init__(self, value):
            self.value = value

        def on_epoch_end(self, run):
            run.logs["mine"] = self.value

    for i, value in enumerate((np.float32(0.5), np.array(0.5), gg.tensor(0.5), gg.tensor([0.5], requires_grad=True), 0.5)):
        callbacks = [Put(value), training.JsonLog(tmp_path / "log"), training.Progress(), training.EarlyStopping("mine")]
        history = fit(1, callbacks, checkpoint=tmp_path / str(i))
        assert history["mine"] == [0.5] and type(history["mine"][0]) is float
        assert '"mine": 0.5' in (tmp_path / "log").read_text()
        assert "mine 0.5000" in capsys.readouterr().out
        fit(2, callbacks, checkpoint=tmp_path / str(i), resume=True)
    for value in ("text", None, np.ones(2)):
        with pytest.raises(TypeError, match="the log 'mine' must be a number, got"):
            fit(1, [Put(value)])


def test_a_callback_ends_the_training():
    class Stop(training.Callback):
        def on_epoch_end(self, run):
            run.stop = run.epoch == 2

    assert len(fit(9, [Stop()])) == 2


def stops(values, patience, min_delta, rising):
    """(number of epochs, the best): the rule as a reader would write it."""
    sign, best, at, waited = (-1 if rising else 1), math.inf, 0, 0
    for epoch, value in enumerate(values, 1):
        if sign * value < best - min_delta:
            best, at, waited = sign * value, epoch, 0
        else:
            waited += 1
        if waited == patience:
            return epoch, at
    return len(values), at


@pytest.mark.parametrize("patience", [1, 2, 3])
@pytest.mark.parametrize("min_delta", [0.0, 0.15])
@pytest.mark.parametrize(("name", "mode", "rising"), [("val_loss", "auto", False), ("val_accuracy", "auto", True), ("val_loss", "max", True)])
def test_early_stopping(patience, min_delta, name, mode, rising):
    for seed in range(6):
        values = np.random.default_rng(seed).integers(0, 8, 12) / 10
        values = list(values) if seed else [0.5] * 12
        stopping, script = training.EarlyStopping(name, patience, min_delta, mode), Scripted(values, name)
        model = nn.Linear(3, 1)
        history = fit(12, [script, stopping], model=model)
        epochs, best = stops(values, patience, min_delta, rising)
        assert (len(history), stopping.best_epoch) == (epochs, best)
        assert stopping.best == values[best - 1]
        assert stopping.stopped_epoch == (epochs if epochs < 12 or stopping.waited == patience else 0)
        assert_array_equal(model.weight.numpy(), script.weights[best - 1])


def test_nan_is_never_better():
    nan = math.nan
    stopping, model, script = training.EarlyStopping(patience=2), nn.Linear(3, 1), Scripted([nan, nan, 1.0])
    assert len(fit(3, [script, stopping], model=model)) == 2
    assert_array_equal(model.weight.numpy(), script.weights[-1])  # nothing was best, so nothing comes back
    stopping = training.EarlyStopping(patience=3)
    assert len(fit(9, [Scripted([1.0, nan, nan, nan, nan]), stopping])) == 4
    assert stopping.best == 1.0


def test_the_last_weights_stay_where_they_are_wanted(device):
    model, script = nn.Linear(3, 1, device=device), Scripted([1.0, 2.0, 3.0])
    fit(3, [script, training.EarlyStopping(restore_best=False)], device, model)
    assert_array_equal(model.weight.numpy(), script.weights[-1])
    stopping = training.EarlyStopping()
    model, script = nn.Linear(3, 1, device=device), Scripted([1.0, 2.0, 3.0])
    fit(3, [script, stopping], device, model)
    assert_array_equal(model.weight.numpy(), script.weights[0])
    assert all(backend.device_of(w).startswith(device) for w in stopping.weights.values())


def test_it_can_be_used_for_another_training():
    stopping = training.EarlyStopping(patience=2)
    for _ in range(2):
        assert len(fit(9, [Scripted([1.0, 2.0, 3.0, 4.0]), stopping])) == 3
    assert stopping.best == 1.0


def test_refusals():
    for options, message in (
        ({"patience": 0}, "patience must be at least 1 epoch, got 0"),
        ({"min_delta": -1}, "min_delta must be at least 0, got -1"),
        ({"min_delta": math.nan}, "min_delta must be at least 0"),
        ({"mode": "least"}, "mode must be 'auto', 'min' or 'max', got 'least'"),
    ):
        with pytest.raises(ValueError, match=message):
            training.EarlyStopping(**options)
    with pytest.raises(training.TrainingError, match=r"monitors 'val_loss', which is not in the logs: give fit\(validation=...\); they have epoch, loss"):
        fit(1, [training.EarlyStopping()])
    with pytest.raises(training.TrainingError, match="monitors 'auc', which is not in the logs; they have"):
        fit(1, [training.EarlyStopping("auc")])


def test_gradient_norms_of_every_layer(device):
    model = nn.MLP([3, 4, 4, 1], device=device, dtype=np.float32)
    model.extra = nn.Parameter(np.ones(2, np.float32), device=device)  # which gets no gradient
    expected = []

    class Norms(training.Callback):
        def on_step_end(self, run):
            expected.append({i: math.sqrt(sum(float((p.grad.numpy().astype(np.float64) ** 2).sum()) for p in model[i].parameters())) for i in (0, 2, 4)})

    history = fit(3, [Norms(), training.GradientNorms()], device, model, max_grad_norm=1e-3, allow_unused=True)
    for i in (0, 2, 4):
        assert_allclose(history[f"grad_norm/{i}"], [e[i] for e in expected[::2]], rtol=1e-6)  # of each epoch's first step
    assert [name for name in history.names() if "/" in name] == ["grad_norm/0", "grad_norm/2", "grad_norm/4"]


def test_gradient_norms_of_a_model_that_has_its_parameters_itself():
    layer = nn.Linear(2, 1)
    assert gradient_norms(layer) == {}
    layer(np.ones((1, 2), np.float32)).sum().backward()
    assert gradient_norms(layer) == {"model": pytest.approx(math.sqrt(3))}


def test_history():
    history = training.History([{"epoch": 1, "loss": 2.0}, {"epoch": 2, "loss": 1.0, "extra": 5.0}])
    assert history["loss"] == [2.0, 1.0]
    assert math.isnan(history["extra"][0]) and history["extra"][1] == 5.0
    assert "loss" in history and "mae" not in history
    assert repr(history) == "History(2 epochs; epoch 2, loss 1, extra 5)"
    assert [row["epoch"] for row in history] == [1, 2] and len(history) == 2
    with pytest.raises(KeyError, match="the history has no 'mae'; it has epoch, loss, extra"):
        history["mae"]
    with pytest.raises(KeyError, match="no epoch yet"):
        training.History()["loss"]
    assert repr(training.History()) == "History(0 epochs; nothing yet)"
