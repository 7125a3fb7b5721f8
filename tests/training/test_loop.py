"""The loop against training written out by hand; what it leaves as it was; what it refuses."""

import itertools
import math
import os

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import gpugrad as gg
from gpugrad import amp, backend, data, nn, optim, training
from gpugrad.nn import functional as F  # noqa: N812
from gpugrad.training import metrics

RNG = np.random.default_rng(0)


def problem(n=11, inputs=3, dtype=np.float64, device="cpu"):
    x = RNG.standard_normal((n, inputs)).astype(dtype)
    y = (x @ np.arange(1.0, inputs + 1)[:, None] + 0.1 * RNG.standard_normal((n, 1))).astype(dtype)
    return backend.asarray(x, device=device), backend.asarray(y, device=device)


def linear(inputs=3, device="cpu", start=0.0):
    model = nn.Linear(inputs, 1, dtype=np.float64, device=device)
    for p in model.parameters():
        p.data[...] = start
    return model


def batches(x, y, size):
    return [(x[i : i + size], y[i : i + size]) for i in range(0, len(x), size)]


def by_hand(groups, epochs, lr=0.1, clip=math.inf):
    """Descent on the mean squared error of x w + b, in NumPy: (w, b, the mean loss of each epoch)."""
    w, b, losses = np.zeros((groups[0][0].shape[1], 1)), np.zeros(1), []
    for _ in range(epochs):
        total = 0.0
        for x, y in groups:
            r = x @ w + b - y
            total += (r**2).sum()
            gw, gb = 2 * x.T @ r / len(x), 2 * r.sum(0) / len(x)
            c = min(1, clip / (math.sqrt((gw**2).sum() + (gb**2).sum()) + 1e-6))
            w, b = w - lr * c * gw, b - lr * c * gb
        losses.append(total / sum(len(x) for x, _ in groups))
    return w, b, losses


# ------------------------------------------------------------------------------------------------- what it computes


def test_it_is_descent_written_out_by_hand(device, put):
    x, y = problem()
    model = linear(device=device)
    history = training.fit(
        model, F.mse_loss, optim.SGD(model.parameters(), 0.1), batches(put(x), put(y), 4), epochs=5, metrics={"mae": metrics.mean_absolute_error}
    )
    w, b, losses = by_hand(batches(x, y, 4), 5)
    assert_allclose(model.weight.numpy(), w, rtol=1e-12)
    assert_allclose(model.bias.numpy(), b, rtol=1e-12)
    assert_allclose(history["loss"], losses, rtol=1e-12)
    assert history["epoch"] == [1, 2, 3, 4, 5]
    assert history["lr"] == [0.1] * 5
    assert all(rate > 0 for rate in history["examples_per_second"])
    assert all(type(v) is float for name in ("loss", "mae", "lr") for v in history[name])


@pytest.mark.parametrize("accumulate", [2, 3, 5, 100])
def test_accumulated_batches_are_one_batch(accumulate):
    """Batches of 4, 4, 3, 4, 2: the mean over each group's examples, not the mean of means, and the last group is smaller."""
    x, y = problem(17)
    cuts = [0, 4, 8, 11, 15, 17]
    parts = [(x[i:j], y[i:j]) for i, j in itertools.pairwise(cuts)]
    groups = [tuple(np.concatenate(a) for a in zip(*parts[i : i + accumulate])) for i in range(0, 5, accumulate)]
    model = linear()
    history = training.fit(model, F.mse_loss, optim.SGD(model.parameters(), 0.1), parts, epochs=3, accumulate=accumulate)
    w, b, losses = by_hand(groups, 3)
    assert_allclose(model.weight.numpy(), w, rtol=1e-10)
    assert_allclose(model.bias.numpy(), b, rtol=1e-10)
    assert_allclose(history["loss"], losses, rtol=1e-10)


def test_gradients_are_clipped_by_their_norm_and_stay_as_they_are():
    x, y = problem()
    model, seen = linear(), []
    optimizer = optim.SGD(model.parameters(), 0.1)

    class Look(training.Callback):
        def on_step_end(self, run):
            seen.append(math.sqrt(sum(float((p.grad.data**2).sum()) for p in model.parameters())))

    training.fit(model, F.mse_loss, optimizer, batches(x, y, 4), epochs=4, max_grad_norm=0.5, callbacks=[Look()])
    w, b, _ = by_hand(batches(x, y, 4), 4, clip=0.5)
    assert_allclose(model.weight.numpy(), w, rtol=1e-9)
    assert_allclose(model.bias.numpy(), b, rtol=1e-9)
    assert max(seen) > 0.6
    assert optimizer.max_grad_norm is None


def test_validation_is_in_eval_mode_without_recording_and_weighted(device, put):
    x, y = problem()
    seen = []

    class Net(nn.Module):
        def __init__(self):
            self.layer, self.drop = linear(device=device), nn.Dropout(0.5)

        def forward(self, x):
            seen.append((self.training, self.drop.training, gg.is_grad_enabled()))
            return self.layer(x)

    model = Net()
    model.drop.eval()
    train, validation = batches(put(x[:8]), put(y[:8]), 8), batches(put(x), put(y), 7)
    history = training.fit(model, F.mse_loss, optim.SGD(model.parameters(), 0.1), train, validation=validation, epochs=1)
    assert seen == [(True, True, True), (False, False, False), (False, False, False)]
    assert (model.training, model.layer.training, model.drop.training) == (True, True, False)  # as it was
    w, b, _ = by_hand([(x[:8], y[:8])], 1)
    assert_allclose(history["val_loss"], [((x @ w + b - y) ** 2).mean()], rtol=1e-12)


def test_a_model_of_several_inputs():
    x, y = problem()
    model = nn.Bilinear(2, 1, 1, dtype=np.float64)
    history = training.fit(model, F.mse_loss, optim.SGD(model.parameters(), 0.1), [(x[:, :2], x[:, 2:], y)], validation=[[x[:, :2], x[:, 2:], y]], epochs=2)
    assert history["loss"][1] < history["loss"][0]
    assert history["val_loss"][0] == pytest.approx(history["loss"][1], rel=1e-12)


def test_a_target_that_is_a_nest_counts_its_rows():
    x, y = problem()
    model = linear()
    parts = [(a, {"sum": b, "unused": b[:1]}) for a, b in batches(x, y, 4)]
    history = training.fit(model, lambda p, t: F.mse_loss(p, t["sum"]), optim.SGD(model.parameters(), 0.1), parts, validation=parts, epochs=2, accumulate=2)
    assert_allclose(history["loss"], by_hand(batches(x, y, 8), 2)[2], rtol=1e-12)


def test_a_rate_that_lies_in_an_array_is_logged_as_it_was_used(put):
    x, y = problem()
    model = linear(device=backend.device_of(put(x)))
    optimizer = optim.SGD(model.parameters(), put(np.array(0.1)))
    schedule = optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    history = training.fit(model, F.mse_loss, optimizer, batches(put(x), put(y), 4), epochs=2, schedule=schedule, schedule_every="step")
    assert history["lr"] == pytest.approx([0.1 / 4, 0.1 / 32])


def test_a_loss_over_a_tuple_of_outputs():
    x, y = problem()
    w = gg.tensor(np.ones((3, 1)), requires_grad=True)

    class Two(nn.Module):
        def __init__(self):
            self.w = w

        def forward(self, x):
            return x @ self.w, (self.w**2).sum()

    def metric(prediction, target):
        assert all(type(p) is np.ndarray for p in prediction)
        return abs(prediction[0] - target).mean()

    history = training.fit(Two(), lambda p, t: F.mse_loss(p[0], t) + 0.1 * p[1], optim.SGD([w], 0.01), batches(x, y, 4), epochs=3, metrics={"mae": metric})
    assert history["loss"] == sorted(history["loss"], reverse=True)
    assert "mae" in history


class Thrice:
    """An optimizer that needs a closure, and calls it three times a step."""

    def __init__(self, params):
        self.param_groups = [{"params": list(params), "lr": 0.1}]
        self.losses = []

    def zero_grad(self):
        for p in self.param_groups[0]["params"]:
            p.grad = None

    def step(self, closure):
        for _ in range(3):
            self.losses.append(float(closure()))
            for p in self.param_groups[0]["params"]:
                p.data -= 0.1 * p.grad.data


def test_an_optimizer_that_needs_a_closure_gets_one():
    x, y = problem()
    model = linear()
    optimizer = Thrice(model.parameters())
    history = training.fit(model, F.mse_loss, optimizer, batches(x, y, 6), epochs=2, accumulate=2)
    w, b, losses = by_hand([(x, y)], 6)
    assert_allclose(model.weight.numpy(), w, rtol=1e-10)
    assert_allclose(optimizer.losses, losses, rtol=1e-10)
    assert_allclose(history["loss"], [losses[0], losses[3]], rtol=1e-10)  # that of the step's first call


def test_lbfgs_solves_least_squares():
    x, y = problem(40)
    model = linear()
    training.fit(model, F.mse_loss, optim.LBFGS(model.parameters(), line_search_fn="strong_wolfe"), [(x, y)], epochs=3)
    solution = np.linalg.lstsq(np.c_[x, np.ones(40)], y, rcond=None)[0]
    assert_allclose(np.r_[model.weight.numpy(), model.bias.numpy()[None]], solution, rtol=1e-5)


@pytest.mark.parametrize("accumulate", [1, 3])
def test_newton_cg_solves_least_squares_in_one_step(accumulate):
    """It differentiates the loss itself, of one batch or of several together."""
    x, y = problem(40)
    model = linear()
    history = training.fit(
        model, F.mse_loss, optim.NewtonCG(model.parameters(), forcing=0), batches(x, y, 40 // accumulate + 1), epochs=1, accumulate=accumulate
    )
    solution = np.linalg.lstsq(np.c_[x, np.ones(40)], y, rcond=None)[0]
    assert_allclose(np.r_[model.weight.numpy(), model.bias.numpy()[None]], solution, rtol=1e-9)
    assert len(history) == 1


def test_hessian_free_is_refused():
    model = linear()
    with pytest.raises(TypeError, match="HessianFree is given the outputs and the loss apart"):
        training.fit(model, F.mse_loss, optim.HessianFree(model.parameters()), [problem()], epochs=1)


# ------------------------------------------------------------------------------------------------- schedules, averages, mixed precision


def test_schedules_step_every_epoch_or_every_step():
    x, y = problem()
    for every, rates in (("epoch", [0.1, 0.05, 0.025]), ("step", [0.1 / 4, 0.1 / 32, 0.1 / 256])):
        model = linear()
        optimizer = optim.SGD(model.parameters(), 0.1)
        schedule = optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
        history = training.fit(model, F.mse_loss, optimizer, batches(x, y, 4), epochs=3, schedule=schedule, schedule_every=every)
        assert history["lr"] == pytest.approx(rates)  # of the epoch's last step
        assert schedule.last_epoch == {"epoch": 3, "step": 9}[every]


@pytest.mark.parametrize(("monitor", "validated", "expected"), [(None, True, "val_loss"), (None, False, "loss"), ("mae", True, "mae")])
def test_a_plateau_schedule_is_given_the_monitored_number(monitor, validated, expected):
    x, y = problem()
    model, given = linear(), []
    optimizer = optim.SGD(model.parameters(), 0.1)

    class Plateau(optim.lr_scheduler.ReduceLROnPlateau):
        def step(self, metric):
            given.append(metric)
            super().step(metric)

    history = training.fit(
        model, F.mse_loss, optimizer, batches(x, y, 4), validation=batches(x, y, 4) if validated else None, epochs=3, schedule=Plateau(optimizer),
        monitor=monitor, metrics={"mae": metrics.mean_absolute_error},
    )  # fmt: skip
    assert given == history[expected]


def test_averaged_weights_are_updated_every_step_and_validated():
    x, y = problem()
    model, updates = linear(), []
    ema = optim.ExponentialMovingAverage(model, 0.5)
    update = ema.update
    ema.update = lambda: (updates.append(model.weight.numpy().copy()), update())
    stopping = training.EarlyStopping(patience=5)
    history = training.fit(
        model, F.mse_loss, optim.SGD(model.parameters(), 0.1), batches(x, y, 4), validation=[(x, y)], epochs=2, accumulate=2, ema=ema, callbacks=[stopping]
    )
    assert len(updates) == 4
    average = 0.0
    for w in updates:
        average = 0.5 * average + 0.5 * w
    assert_allclose(model.weight.numpy(), average, rtol=1e-12)  # the best epoch was the last, and its weights are those that were validated
    assert_allclose(history["val_loss"][-1], training.evaluate(model, F.mse_loss, [(x, y)])["loss"], rtol=1e-12)
    assert stopping.best == history["val_loss"][-1]


def test_autocast_and_loss_scaling():
    x, y = problem(dtype=np.float32)
    x, y = x.astype(np.float32), y.astype(np.float32)
    seen = []
    model = nn.MLP([3, 8, 1])
    scaler = amp.GradScaler(init_scale=2.0**40, growth_interval=4)  # which overflows, and is halved

    def loss(prediction, target):
        seen.append(prediction.dtype)
        return F.mse_loss(prediction.astype(np.float32), target)

    history = training.fit(
        model,
        loss,
        optim.SGD(model.parameters(), 0.05),
        batches(x, y, 4),
        validation=[(x, y)],
        epochs=30,
        autocast="float16",
        scaler=scaler,
        max_grad_norm=10.0,
    )
    assert set(seen) == {np.dtype(np.float16)}
    assert scaler.get_scale() < 2.0**40
    assert history["loss"][-1] < 0.2 * history["loss"][0]


def test_a_context_of_ones_own_is_entered_for_every_batch():
    entered = []

    class Context:
        def __enter__(self):
            entered.append(1)

        def __exit__(self, *_):
            pass

    x, y = problem()
    model = linear()
    training.fit(model, F.mse_loss, optim.SGD(model.parameters(), 0.1), batches(x, y, 4), validation=[(x, y)], epochs=2, autocast=Context())
    assert len(entered) == 8


# ------------------------------------------------------------------------------------------------- it does not wait for the device


def test_the_host_waits_once_an_epoch_and_once_for_validation(fake_cupy, monkeypatch):
    x, y = problem(40, device="cuda")
    y = (y > 0).astype(np.int64)[:, 0]
    model = nn.MLP([3, 4, 2], device="cuda", dtype=np.float64)
    waits = []
    kind = type(x)
    for name in ("get", "item", "tolist", "__float__", "__int__", "__bool__"):
        own = getattr(kind, name)
        monkeypatch.setattr(kind, name, lambda self, *a, own=own, name=name, **k: (waits.append(name), own(self, *a, **k))[1])
    training.fit(
        model, F.cross_entropy, optim.AdamW(model.parameters()), batches(x, y, 4), validation=batches(x, y, 8), epochs=3, accumulate=2, max_grad_norm=1.0,
        metrics={"accuracy": metrics.accuracy, "top": lambda p, t: metrics.top_k_accuracy(p, t, 2)}, ema=optim.ExponentialMovingAverage(model),
    )  # fmt: skip
    assert waits == ["get", "get"] * 3


# ------------------------------------------------------------------------------------------------- when it goes wrong


@pytest.mark.parametrize(("bad", "text"), [(np.nan, "nan"), (np.inf, "inf")])
def test_a_loss_that_is_not_finite_names_epoch_step_and_remedy(bad, text, tmp_path, device, put):
    x, y = problem(16)
    model, steps = linear(device=device), []

    class Count(training.Callback):
        def on_step_end(self, run):
            steps.append(run.step)

        def on_epoch_begin(self, run):
            if run.epoch == 3:
                parts[5][1][...] = bad  # the second batch of the third step

    parts = batches(put(x), put(y), 2)
    with pytest.raises(training.TrainingError, match=rf"loss became {text} in epoch 3, step 3 of 4: try a smaller learning rate \(it is 0.01\)") as error:
        training.fit(model, F.mse_loss, optim.SGD(model.parameters(), 0.01), parts, epochs=9, accumulate=2, callbacks=[Count()], checkpoint=tmp_path)
    assert len(steps) == 12  # found at the epoch's end
    assert len(error.value.history) == 2
    assert training.latest_checkpoint(tmp_path).endswith("000002")


def test_weights_that_the_last_step_spoiled_do_not_become_a_checkpoint(tmp_path):
    x, y = problem()
    model = linear()
    with (
        np.errstate(over="ignore"),
        pytest.raises(training.TrainingError, match="norm of the weights became inf in the last step of epoch 1: try a smaller learning rate"),
    ):
        training.fit(model, F.mse_loss, optim.SGD(model.parameters(), 1e308), [(x * 100, y)], epochs=2, checkpoint=tmp_path)
    assert os.listdir(tmp_path) == []


class Ends(training.Callback):
    def __init__(self):
        self.events = []

    def on_train_begin(self, run):
        self.events.append("begin")

    def on_train_end(self, run):
        self.events.append("end")


def test_ctrl_c_keeps_the_history_the_modes_and_the_last_checkpoint(tmp_path):
    x, y = problem()
    model, ends = linear().eval(), Ends()
    optimizer = optim.SGD(model.parameters(), 0.1, max_grad_norm=7.0)

    class Interrupt(training.Callback):
        def on_step_end(self, run):
            if run.step == 8:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as error:
        training.fit(model, F.mse_loss, optimizer, batches(x, y, 4), epochs=9, callbacks=[ends, Interrupt()], checkpoint=tmp_path, keep=1, max_grad_norm=1.0)
    assert len(error.value.history) == 2
    assert not model.training
    assert optimizer.max_grad_norm == 7.0
    assert ends.events == ["begin", "end"]
    assert os.listdir(tmp_path) == ["checkpoint-000002"]


def test_a_callback_that_cannot_begin_ends_the_others():
    x, y = problem()
    model, ends = linear(), Ends()

    class Broken(training.Callback):
        def on_train_begin(self, run):
            raise ImportError("no such package")

    never = Ends()
    with pytest.raises(ImportError):
        training.fit(model, F.mse_loss, optim.SGD(model.parameters(), 0.1), [(x, y)], epochs=1, callbacks=[ends, Broken(), never])
    assert ends.events == ["begin", "end"]
    assert never.events == []


class TestRefusals:
    @pytest.mark.parametrize(
        ("options", "error", "message"),
        [
            ({"epochs": 0}, ValueError, "epochs must be a whole number of at least 1, got 0"),
            ({"epochs": 2.5}, ValueError, "epochs must be a whole number"),
            ({"accumulate": 0}, ValueError, "accumulate must be"),
            ({"keep": 0}, ValueError, "keep must be"),
            ({"checkpoint_every": -1}, ValueError, "checkpoint_every must be"),
            ({"train": []}, ValueError, "train has no batches"),
            ({"train": iter([])}, TypeError, "train must have a length, the number of its batches, got list_iterator: use a gpugrad.data.DataLoader"),
            ({"schedule_every": "batch"}, ValueError, "schedule_every must be 'epoch' or 'step', got 'batch'"),
            ({"resume": True}, ValueError, "resume=True needs the directory"),
            ({"max_grad_norm": 0.0}, ValueError, "max_grad_norm must be a positive number or None, got 0.0"),
            ({"callbacks": [training.Progress]}, TypeError, "must be a gpugrad.training.Callback.*: call it"),
            (
                {"train": [np.ones((2, 3))]},
                TypeError,
                r"a batch must be a tuple \(inputs ..., target\), got ndarray; to learn the inputs themselves write TensorDataset\(x, x\)",
            ),
            ({"train": [(np.ones((2, 3)),)]}, TypeError, "got a tuple of 1"),
            ({"loss": lambda p, t: (p - t) ** 2}, ValueError, r"loss of a batch must be one number, got shape \(11, 1\)"),
            ({"loss": lambda p, t: 1.0}, TypeError, "the loss must be a Tensor that depends on the parameters, got float"),
        ],
    )
    def test_arguments(self, options, error, message):
        x, y = problem()
        model = linear()
        arguments = {"model": model, "loss": F.mse_loss, "optimizer": optim.SGD(model.parameters(), 0.1), "train": [(x, y)], "epochs": 1, **options}
        with pytest.raises(error, match=message):
            training.fit(**arguments)
        assert not model.weight.numpy().any()

    def test_a_plateau_cannot_step_every_step(self):
        x, y = problem()
        model = linear()
        optimizer = optim.SGD(model.parameters(), 0.1)
        plateau = optim.lr_scheduler.ReduceLROnPlateau(optimizer)
        with pytest.raises(ValueError, match="ReduceLROnPlateau is given a number that is known once an epoch"):
            training.fit(model, F.mse_loss, optimizer, [(x, y)], epochs=1, schedule=plateau, schedule_every="step")
        with pytest.raises(training.TrainingError, match="the schedule is to be given 'val_accuracy', which is not in the logs; they have epoch, loss"):
            training.fit(model, F.mse_loss, optimizer, [(x, y)], epochs=1, schedule=plateau, monitor="val_accuracy")

    def test_gradients_in_a_closure_stay_as_they_are(self):
        x, y = problem()
        model = linear()
        for name, value in (("scaler", amp.GradScaler()), ("max_grad_norm", 1.0)):
            with pytest.raises(
                ValueError, match=f"Thrice evaluates the loss several times in a step, and needs its gradients as they are: {name} must be None"
            ):
                training.fit(model, F.mse_loss, Thrice(model.parameters()), [(x, y)], epochs=1, **{name: value})

    def test_data_that_is_used_up(self):
        x, y = problem()
        model = linear()

        class Once:
            def __init__(self):
                self.rest = iter([(x, y)])

            def __len__(self):
                return 1

            def __iter__(self):
                return self.rest

        with pytest.raises(training.TrainingError, match="epoch 2: the training data yielded no batches"):
            training.fit(model, F.mse_loss, optim.SGD(model.parameters(), 0.1), Once(), epochs=2)


# ------------------------------------------------------------------------------------------------- evaluate and predict


def test_evaluate_weights_by_batch_size_and_needs_no_length(device, put):
    x, y = problem()
    model = linear(device=device, start=0.5).train()
    means = training.evaluate(model, F.mse_loss, iter(batches(put(x), put(y), 4)), {"mae": metrics.mean_absolute_error})
    r = x @ np.full((3, 1), 0.5) + 0.5 - y
    assert means == pytest.approx({"loss": (r**2).mean(), "mae": abs(r).mean()}, rel=1e-12)
    assert model.training


def test_a_float32_loss_is_summed_in_float64():
    """A hundred thousand batches: in float32 the sum would stop growing, or lose its last digits."""
    meter = training.history.Meter(["loss"], 1)
    for i in range(100_000):
        meter.put(i, 1, [np.float32(0.1)])
    assert meter.means()["loss"] == pytest.approx(float(np.float32(0.1)), rel=1e-12)


def test_predict_puts_the_batches_together(device, put):
    x, y = problem()
    model = nn.Sequential(linear(device=device, start=0.5), nn.Dropout(0.9)).train()
    loader = data.DataLoader(data.TensorDataset(x, y), 4, device=device)
    out = training.predict(model, (x for x, _ in loader))
    assert backend.device_of(out).startswith(device)
    assert_array_equal(gg.Tensor(out).numpy(), model[0](put(x)).detach().numpy())
    assert model.training
    assert_array_equal(training.predict(lambda_module(), [(x, y), (x, y)]), np.concatenate([x.sum(1, keepdims=True) + y] * 2))
    assert_array_equal(training.predict(lambda_module(), (a for a in [(x, y)])), training.predict(lambda_module(), [[x, y]]))
    assert_array_equal(gg.Tensor(training.predict(model, put(x))).numpy(), gg.Tensor(out).numpy())
    with pytest.raises(ValueError, match="predict: got no batches"):
        training.predict(model, [])
    with pytest.raises(ValueError, match="evaluate: got no examples"):
        training.evaluate(model, F.mse_loss, [])


def test_metrics_may_be_computed_on_the_host(device, put):
    x, y = problem()
    model = linear(device=device)
    for kind in (float, np.float32, np.array, lambda v: gg.tensor(v)):
        assert training.evaluate(model, F.mse_loss, batches(put(x), put(y), 4), {"two": lambda p, t: kind(2.0)})["two"] == 2.0  # noqa: B023


def lambda_module():
    class Add(nn.Module):
        def forward(self, x, y):
            return x.sum(1, keepdims=True) + y

    return Add()


def test_the_digits_are_learned():
    pytest.importorskip("sklearn")
    x, y, x_test, y_test = data.load_digits()
    gg.random.seed(0)
    model = nn.MLP([64, 64, 10])
    optimizer = optim.AdamW(model.parameters(), 3e-3)
    history = training.fit(
        model, nn.CrossEntropyLoss(label_smoothing=0.1), optimizer, data.DataLoader(data.TensorDataset(x, y), 32, shuffle=True),
        validation=data.DataLoader(data.TensorDataset(x_test, y_test), 256), epochs=12, metrics={"accuracy": metrics.accuracy},
        schedule=optim.lr_scheduler.CosineAnnealingLR(optimizer, 12),
    )  # fmt: skip
    assert history["val_accuracy"][-1] > 0.96


def test_a_parameter_that_the_loss_does_not_depend_on_is_named_at_the_first_step():
    class Forgetful(nn.Module):
        def __init__(self):
            self.used, self.forgotten = linear(), linear(2)

        def forward(self, x):
            return self.used(x)

    x, y = problem()
    model = Forgetful()
    optimizer = optim.SGD(model.parameters(), 0.1)
    with pytest.raises(
        RuntimeError, match=r"does not depend on 2 of 4 parameters.*\n.*Forgetful\.forgotten\.weight \(Linear\).*\n.*bias.*\n.*allow_unused=True"
    ):
        training.fit(model, F.mse_loss, optimizer, batches(x, y, 4), epochs=1)
    assert not model.used.weight.data.any()
    training.fit(model, F.mse_loss, optimizer, batches(x, y, 4), epochs=1, allow_unused=True)
    assert model.used.weight.data.all() and not model.forgotten.weight.data.any()
    model.forgotten.requires_grad_(False)
    training.fit(model, F.mse_loss, optim.SGD(model.used.parameters(), 0.1), batches(x, y, 4), epochs=1)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"model": lambda m, o: F.relu}, TypeError, "model must be a gpugrad.nn.Module, got "),
        ({"loss": lambda m, o: nn.MSELoss}, TypeError, r"loss must be a function of \(prediction, target\), .*got the class MSELoss: call it"),
        ({"loss": lambda m, o: o, "optimizer": lambda m, o: nn.MSELoss()}, TypeError, "loss must be a function .*, got SGD"),
        ({"optimizer": lambda m, o: optim.SGD}, TypeError, "optimizer must be an optimizer, .* got the class SGD: call it"),
        ({"optimizer": lambda m, o: optim.SGD(linear().parameters(), 0.1)}, ValueError, "none of the model's parameters"),
        ({"metrics": lambda m, o: metrics.accuracy}, TypeError, "metrics must be a dict of functions by name"),
        ({"schedule": lambda m, o: "cosine"}, TypeError, "schedule must be a schedule of optim.lr_scheduler, .* got str"),
        ({"schedule": lambda m, o: optim.lr_scheduler.StepLR(optim.SGD(m.parameters(), 0.1), 1)}, ValueError, "schedule is that of another optimizer"),
        ({"train": lambda m, o: data.TensorDataset(*problem())}, TypeError, r"train must be batches, got a TensorDataset: .*DataLoader\("),
    ],
)
def test_parts_that_are_something_else_are_named_before_the_first_step(change, error, message):
    model = linear()
    optimizer = optim.SGD(model.parameters(), 0.1)
    given = {"model": model, "loss": F.mse_loss, "optimizer": optimizer, "train": batches(*problem(), 4)}
    with pytest.raises(error, match=message):
        training.fit(**given | {name: make(model, optimizer) for name, make in change.items()}, epochs=1)
    assert not model.weight.data.any()


def test_a_misspelt_hook_is_found():
    class Mine(training.Callback):
        def on_batch_end(self, run):
            raise AssertionError

    model = linear()
    with pytest.raises(TypeError, match=r"Mine has on_batch_end, which nobody calls; hooks are .*on_step_end"):
        training.fit(model, F.mse_loss, optim.SGD(model.parameters(), 0.1), batches(*problem(), 4), epochs=1, callbacks=[Mine()])
