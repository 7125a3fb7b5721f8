"""Schedules against their formulas as literal numbers; stepping against loading; several groups, rates in device memory, several schedules."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from numpy.testing import assert_allclose

import gpugrad as gg
from gpugrad import optim
from gpugrad.optim import lr_scheduler as lrs


def sgd(*rates, **options):
    """An optimizer with a group for each rate."""
    return optim.SGD([{"params": [gg.tensor([1.0], requires_grad=True)], "lr": lr} for lr in rates or (1.0,)], **options)


def run(schedule, steps, group=0, metric=None):
    """The rates of steps 0 to ``steps``, as the optimizer has them."""
    rates = [schedule.optimizer.param_groups[group]["lr"]]
    for t in range(steps):
        schedule.step(*([] if metric is None else [metric(t)]))
        assert schedule.get_last_lr() == [g["lr"] for g in schedule.optimizer.param_groups]
        rates.append(schedule.optimizer.param_groups[group]["lr"])
    return rates


# name: (schedule of an optimizer, its rates from a base of 1)
half = math.sqrt(0.5)
LITERAL = {
    "lambda": (lambda o: lrs.LambdaLR(o, lambda t: 1 / (1 + t)), [1, 1 / 2, 1 / 3, 1 / 4]),
    "step": (lambda o: lrs.StepLR(o, 2, 0.5), [1, 1, 0.5, 0.5, 0.25, 0.25]),
    "multistep": (lambda o: lrs.MultiStepLR(o, [4, 2, 4], 0.5), [1, 1, 0.5, 0.5, 0.125, 0.125]),
    "exponential": (lambda o: lrs.ExponentialLR(o, 0.5), [1, 0.5, 0.25, 0.125]),
    "linear": (lambda o: lrs.LinearLR(o, 0.25, total_iters=3), [0.25, 0.5, 0.75, 1, 1, 1]),
    "linear to 0": (lambda o: lrs.LinearLR(o, 1, 0, 4), [1, 0.75, 0.5, 0.25, 0, 0]),
    "constant": (lambda o: lrs.ConstantLR(o, 0.5, 2), [0.5, 0.5, 1, 1]),
    "polynomial": (lambda o: lrs.PolynomialLR(o, 4, 2.0), [1, 9 / 16, 1 / 4, 1 / 16, 0, 0]),
    "cosine": (lambda o: lrs.CosineAnnealingLR(o, 4, 0.5), [1, 0.75 + half / 4, 0.75, 0.75 - half / 4, 0.5, 0.75 - half / 4, 0.75, 0.75 + half / 4, 1]),
    "restarts": (lambda o: lrs.CosineAnnealingWarmRestarts(o, 2), [1, 0.5, 1, 0.5, 1]),
    "longer restarts": (lambda o: lrs.CosineAnnealingWarmRestarts(o, 1, 2, 0.2), [1, 1, 0.6, 1, 0.6 + 0.4 * half, 0.6, 0.6 - 0.4 * half, 1]),
    "one cycle": (
        lambda o: lrs.OneCycleLR(o, 1.0, total_steps=7, pct_start=3 / 7, anneal_strategy="linear", div_factor=10, final_div_factor=10),
        [0.1, 0.55, 1, 0.7525, 0.505, 0.2575, 0.01, 0.01],
    ),
    "one cycle in cosines": (
        lambda o: lrs.OneCycleLR(o, 1.0, epochs=1, steps_per_epoch=7, pct_start=3 / 7, div_factor=10, final_div_factor=10),
        [0.1, 0.55, 1, 0.505 + 0.495 * half, 0.505, 0.505 - 0.495 * half, 0.01, 0.01],
    ),
    "one cycle in three phases": (
        lambda o: lrs.OneCycleLR(o, 1.0, 7, pct_start=3 / 7, anneal_strategy="linear", div_factor=10, final_div_factor=10, three_phase=True),
        [0.1, 0.55, 1, 0.55, 0.1, 0.055, 0.01],
    ),
    "sequential": (
        lambda o: lrs.SequentialLR(o, [lrs.LinearLR(o, 0.5, total_iters=2), lrs.ExponentialLR(o, 0.5), lrs.StepLR(o, 1, 0.1)], [2, 4]),
        [0.5, 0.75, 1, 0.5, 1, 0.1, 0.01],
    ),
    "chained": (
        lambda o: lrs.ChainedScheduler([lrs.LinearLR(o, 0.5, total_iters=2), lrs.StepLR(o, 2, 0.1), lrs.ExponentialLR(o, 0.5)]),
        [0.5, 0.75 * 0.5, 0.1 * 0.25, 0.1 * 0.125, 0.01 * 0.0625],
    ),
    "chained in sequential": (
        lambda o: lrs.SequentialLR(o, [lrs.LinearLR(o, 0.5, total_iters=2), lrs.ChainedScheduler([lrs.StepLR(o, 2, 0.1), lrs.ExponentialLR(o, 0.5)])], [2]),
        [0.5, 0.75, 1, 0.5, 0.1 * 0.25],
    ),
}
every_schedule = pytest.mark.parametrize("name", LITERAL)


@every_schedule
def test_rates(name):
    make, rates = LITERAL[name]
    assert_allclose(run(make(sgd()), len(rates) - 1), rates, rtol=1e-14)


@every_schedule
def test_a_loaded_schedule_has_the_same_bits(name):
    """At every step; the state goes through JSON; and the optimizer that it is loaded for may have any rate."""
    make, rates = LITERAL[name]
    schedule = make(sgd())
    for t in range(len(rates)):
        state = json.loads(json.dumps(schedule.state_dict(), allow_nan=False))
        assert len(json.dumps(state)) < 250
        other = make(sgd(7.0))
        other.load_state_dict(state)
        assert other.get_last_lr() == schedule.get_last_lr() == [other.optimizer.param_groups[0]["lr"]]
        assert other.state_dict() == state
        if t + 1 < len(rates):
            schedule.step()
            other.step()
            assert other.get_last_lr() == schedule.get_last_lr()


def test_there_is_no_drift():
    """Behind a million steps the rate is still the closed form's, to the last bit."""
    schedule = lrs.ExponentialLR(sgd(0.3), 1 - 1e-6)
    schedule.move_to(999_999)
    schedule.step()
    assert schedule.get_last_lr() == [0.3 * (1 - 1e-6) ** 1_000_000]


@every_schedule
def test_as_an_optimizer_sees_it_from_the_first_step(name):
    """The rate of step 0 is there before the first optimizer.step()."""
    make, rates = LITERAL[name]
    o = sgd()
    make(o)
    (p,) = o.param_groups[0]["params"]
    p.grad = gg.tensor([1.0])
    o.param_groups[0]["momentum"] = 0
    o.step()
    assert_allclose(p.numpy(), 1 - rates[0], rtol=1e-6, atol=1e-7)


def test_several_groups_and_one_that_comes_later():
    o = sgd(1.0, 0.1)
    schedule = lrs.LambdaLR(o, lambda t: 0.5**t)
    schedule.step()
    o.add_param_group({"params": [gg.tensor([1.0], requires_grad=True)], "lr": 8.0})
    schedule.step()
    assert schedule.get_last_lr() == [0.25, 0.1 * 0.25, 2.0]
    assert schedule.base_lrs == [1.0, 0.1, 8.0]
    per_group = lrs.LambdaLR(sgd(1.0, 0.1), [lambda t: 1 + t, lambda t: 1 - t])
    assert run(per_group, 2, group=1) == [0.1, 0, -0.1]
    per_group.optimizer.add_param_group({"params": [gg.tensor([1.0], requires_grad=True)]})
    with pytest.raises(ValueError, match="got 2 lr_lambdas for at least 3 groups"):
        per_group.step()
    with pytest.raises(ValueError, match="expected 2 lr_lambdas, but got 1"):
        lrs.LambdaLR(sgd(1.0, 1.0), [lambda t: 1])


@pytest.mark.parametrize("as_tensor", [False, True])
def test_a_rate_in_device_memory_is_written_where_it_lies(device, put, as_tensor):
    array = put(np.array(0.5))
    lr = gg.Tensor(array) if as_tensor else array
    p = gg.tensor([1.0], device=device, requires_grad=True)
    o = optim.SGD([p], lr=lr)
    schedule = lrs.ChainedScheduler([lrs.ExponentialLR(o, 0.5), lrs.LinearLR(o, 0.5, total_iters=2)])
    assert float(array) == 0.25
    schedule.step()
    assert o.param_groups[0]["lr"] is lr
    assert float(array) == 0.5 * 0.5 * 0.75
    assert schedule.get_last_lr() == [0.5 * 0.5 * 0.75]
    p.grad = gg.tensor([1.0], device=device)
    o.step()
    assert_allclose(p.numpy(), 1 - 0.1875)
    json.dumps(schedule.state_dict())


def test_groups_that_share_an_array_cannot_go_different_ways():
    lr = np.array(0.5)
    params = [{"params": [gg.tensor([1.0], requires_grad=True)]} for _ in range(2)]
    o = optim.SGD(params, lr=lr)
    lrs.StepLR(o, 1).step()
    assert float(lr) == 0.5 * 0.1
    with pytest.raises(ValueError, match="two groups share one array as lr"):
        lrs.LambdaLR(o, [lambda t: 1.0, lambda t: 2.0])


def test_going_on_with_optimizer_and_schedule_from_a_checkpoint():
    """In either order of loading; and by PyTorch's last_epoch."""
    make = lambda o: lrs.CosineAnnealingLR(o, 10, 0.1)
    o = sgd(0.3)
    schedule = make(o)
    run(schedule, 4)
    saved = o.state_dict(), schedule.state_dict()
    schedule.step()
    for order in (0, 1), (1, 0):
        again = sgd(0.3)
        other = make(again)
        for i in order:
            (again, other)[i].load_state_dict(saved[i])
        other.step()
        assert again.param_groups[0]["lr"] == o.param_groups[0]["lr"]
    again = sgd(0.3)
    again.load_state_dict(saved[0])
    other = lrs.CosineAnnealingLR(again, 10, 0.1, last_epoch=3)
    other.step()
    assert other.last_epoch == 5
    assert again.param_groups[0]["lr"] == o.param_groups[0]["lr"]
    with pytest.raises(KeyError, match="'initial_lr' is not specified"):
        lrs.StepLR(sgd(), 1, last_epoch=3)


def test_restarts_at_fractions_of_epochs():
    schedule = lrs.CosineAnnealingWarmRestarts(sgd(), 1, 2)
    for epoch in (0, 0.25, 0.5, 1.0, 2.0, 3.0, 5.0):
        schedule.step(epoch)
        t, period = (epoch, 1) if epoch < 1 else (epoch - 1, 2) if epoch < 3 else (epoch - 3, 4)
        assert_allclose(schedule.get_last_lr(), (1 + math.cos(math.pi * t / period)) / 2)
    state = json.loads(json.dumps(schedule.state_dict()))
    assert state["last_epoch"] == 5.0
    with pytest.raises(ValueError, match="non-negative epoch"):
        schedule.step(-1)


def test_restarts_come_at_whole_numbers():
    """A logarithm would miss some: log(3^5, 3) is 4.999..."""
    schedule = lrs.CosineAnnealingWarmRestarts(sgd(), 1, 3)
    for n in range(12):
        schedule.step((3**n - 1) // 2)
        assert schedule.get_last_lr() == [1.0], n


# ------------------------------------------------------------------------------------------------- one cycle


@pytest.mark.parametrize("make", [lambda p: optim.SGD(p, lr=1.0, momentum=0.9), optim.Adam, optim.NAdam, optim.Lion, optim.RMSprop])
def test_one_cycle_moves_the_momentum_the_other_way(make):
    p = gg.tensor([1.0], requires_grad=True)
    p.grad = gg.tensor([1.0])
    o = make([p])
    schedule = lrs.OneCycleLR(o, 1.0, total_steps=5, pct_start=0.6, anneal_strategy="linear", base_momentum=0.8, max_momentum=0.9)
    momentum = lambda: o.param_groups[0]["betas"][0] if "betas" in o.param_groups[0] else o.param_groups[0]["momentum"]
    seen = [momentum()]
    for _ in range(4):
        schedule.step()
        seen.append(momentum())
    assert_allclose(seen, [0.9, 0.85, 0.8, 0.85, 0.9], rtol=1e-14)
    o.step()
    if "betas" in o.param_groups[0]:
        assert o.param_groups[0]["betas"][1] in (0.99, 0.999)
    chained = lrs.ChainedScheduler([lrs.ExponentialLR(o, 0.5), lrs.OneCycleLR(o, 1.0, total_steps=5)])
    chained.step()
    assert momentum() == chained.momentum(0) < 0.95
    other = lrs.SequentialLR(o, [lrs.OneCycleLR(o, 1.0, total_steps=5), lrs.ExponentialLR(o, 0.5)], [2])
    assert other.momentum(0) == 0.95


def test_one_cycle_ends():
    """One step after each optimizer.step() of the last epoch is allowed, and goes no further down or up; one more is an error, and changes nothing."""
    schedule = lrs.OneCycleLR(sgd(), 1.0, total_steps=4, final_div_factor=10)
    rates = run(schedule, 4)
    assert rates[-1] == rates[-2] == 1.0 / 25 / 10
    for _ in range(2):
        with pytest.raises(ValueError, match=r"tried to step 5 times. The specified number of total steps is 4"):
            schedule.step()
        assert schedule.last_epoch == 4


@pytest.mark.parametrize("options", [{"pct_start": 0.0}, {"pct_start": 1.0}, {"three_phase": True, "pct_start": 0.9}, {"pct_start": 0.05}])
@pytest.mark.parametrize("total", [1, 2, 3, 10])
def test_one_cycle_at_the_edges(options, total):
    rates = run(lrs.OneCycleLR(sgd(), 1.0, total_steps=total, **options), total)
    assert all(math.isfinite(r) and 1 / 25 / 1e4 <= r <= 1.0 for r in rates)
    assert rates[-1] == 1 / 25 / 1e4


def test_one_cycle_with_a_rate_for_each_group():
    schedule = lrs.OneCycleLR(sgd(1.0, 1.0), [1.0, 2.0], total_steps=10)
    schedule.step()
    assert schedule.get_last_lr()[1] == 2 * schedule.get_last_lr()[0]


def test_one_cycle_misuse():
    o = sgd()
    for options, message in (
        ({}, "total_steps OR"),
        ({"epochs": 3}, "total_steps OR"),
        ({"total_steps": 0}, "positive integer total_steps, but got 0"),
        ({"total_steps": 2.5}, "positive integer total_steps"),
        ({"total_steps": 3, "pct_start": 1.5}, "pct_start between 0 and 1, but got 1.5"),
        ({"total_steps": 3, "anneal_strategy": "sin"}, "'cos' or 'linear', instead got 'sin'"),
    ):
        with pytest.raises(ValueError, match=message):
            lrs.OneCycleLR(o, 1.0, **options)
    del o.param_groups[0]["momentum"]
    with pytest.raises(ValueError, match="SGD has neither momentum nor betas"):
        lrs.OneCycleLR(o, 1.0, total_steps=3)
    lrs.OneCycleLR(o, 1.0, total_steps=3, cycle_momentum=False)


# ------------------------------------------------------------------------------------------------- plateau


def plateau(metrics, rate=1.0, **options):
    schedule = lrs.ReduceLROnPlateau(sgd(rate), **options)
    return run(schedule, len(metrics), metric=lambda t: metrics[t])[1:]


def test_plateau_counts_patience():
    """More than patience steps without a better one, and the count begins anew."""
    assert_allclose(plateau([3, 2, 2, 2, 2, 2, 2, 1], patience=2, factor=0.5), [1, 1, 1, 1, 0.5, 0.5, 0.5, 0.5])
    assert_allclose(plateau([1, 1, 1, 1], patience=0), [1, 0.1, 0.01, 0.001])


@pytest.mark.parametrize(
    ("mode", "threshold_mode", "metrics"),
    [
        ("max", "rel", [10.0, 10.9, 11.1, 12.0]),
        ("max", "abs", [10.0, 10.05, 10.15, 10.2]),
        ("min", "rel", [10.0, 9.1, 8.9, 8.5]),
        ("min", "abs", [10.0, 9.95, 9.85, 9.8]),
    ],
)
def test_plateau_thresholds(mode, threshold_mode, metrics):
    """Of each list the third alone is better by 10 % or by 0.1 than the best before."""
    assert_allclose(plateau(metrics, mode=mode, threshold=0.1, threshold_mode=threshold_mode, patience=0, factor=0.5), [1, 0.5, 0.5, 0.25])


@pytest.mark.parametrize("mode", ["min", "max"])
def test_plateau_of_a_negative_metric(mode):
    """What is worse is no improvement, even by a relative threshold: with best (1 - threshold) it would be."""
    sign = 1 if mode == "max" else -1
    metrics = [sign * -10.0 if mode == "max" else -10.0, -10.5 if mode == "max" else -9.5]
    assert plateau(metrics, mode=mode, threshold=0.1, patience=0, factor=0.5) == [1, 0.5]


def test_plateau_cooldown():
    assert_allclose(plateau([1] * 9, patience=0, cooldown=2, factor=0.5), [1, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25, 0.125, 0.125])


def test_plateau_nan_and_infinity_are_never_better():
    nan, inf = math.nan, math.inf
    assert plateau([nan, nan, 1.0, nan, nan, 0.5], patience=1, factor=0.5) == [1, 0.5, 0.5, 0.5, 0.25, 0.25]
    assert plateau([inf, 1.0, inf], patience=0, factor=0.5) == [0.5, 0.5, 0.25]
    assert plateau([-inf, 1.0], mode="max", patience=0, factor=0.5) == [0.5, 0.5]
    schedule = lrs.ReduceLROnPlateau(sgd())
    schedule.step(nan)
    json.dumps(schedule.state_dict(), allow_nan=False)


def test_plateau_ends():
    """At min_lr of each group, and before changes that are too small."""
    assert_allclose(plateau([1] * 5, patience=0, min_lr=0.05), [1, 0.1, 0.05, 0.05, 0.05])
    assert_allclose(plateau([1] * 5, patience=0, eps=0.05), [1, 0.1, 0.01, 0.01, 0.01])
    assert plateau([1] * 3, patience=0, min_lr=2.0) == [1, 1, 1]
    schedule = lrs.ReduceLROnPlateau(sgd(1.0, 1.0), patience=0, min_lr=[0.5, 0.0])
    for _ in range(3):
        schedule.step(1.0)
    assert_allclose(schedule.get_last_lr(), [0.5, 0.01])


def test_plateau_goes_on_from_its_state():
    metrics = [3.0, 2.5, 2.5, 2.6, 2.4, 2.4, 2.4, 2.4, 2.4, 2.4]
    make = lambda: lrs.ReduceLROnPlateau(sgd(0.3), patience=1, factor=0.3, cooldown=1)
    for stop in range(len(metrics)):
        schedule, other = make(), make()
        run(schedule, stop, metric=lambda t: metrics[t])
        other.load_state_dict(json.loads(json.dumps(schedule.state_dict(), allow_nan=False)))
        for m in metrics[stop:]:
            schedule.step(m)
            other.step(m)
            assert schedule.get_last_lr() == other.get_last_lr()
        assert schedule.state_dict() == other.state_dict()


def test_plateau_takes_tensors_and_arrays(device, put):
    schedule = lrs.ReduceLROnPlateau(sgd(), patience=0)
    for metric in (gg.tensor(2.0, device=device), put(np.array(2.0)), put(np.array([2.0]))):
        schedule.step(metric)
    assert_allclose(schedule.get_last_lr(), 0.01)
    with pytest.raises(TypeError, match=r"call step\(metric\)"):
        schedule.step(None)
    with pytest.raises(TypeError):
        schedule.step()


def test_plateau_within_others():
    o = sgd()
    chained = lrs.ChainedScheduler([lrs.LinearLR(o, 0.5, total_iters=2), lrs.ReduceLROnPlateau(o, patience=0, factor=0.1)])
    assert chained.needs_metric
    assert not lrs.StepLR(sgd(), 1).needs_metric
    assert_allclose(run(chained, 3, metric=lambda t: 1.0), [0.5, 0.75, 0.1, 0.01])
    o = sgd()
    warm = lrs.SequentialLR(o, [lrs.LinearLR(o, 0.5, total_iters=2), lrs.ReduceLROnPlateau(o, patience=0, factor=0.1)], [2])
    warm.step()  # needs none yet
    warm.step(5.0)
    assert_allclose(run(warm, 3, metric=lambda t: 1.0), [1, 1, 0.1, 0.01])
    with pytest.raises(TypeError, match=r"call step\(metric\)"):
        warm.step()
    o = sgd()
    again = lrs.SequentialLR(o, [lrs.LinearLR(o, 0.5, total_iters=2), lrs.ReduceLROnPlateau(o, patience=0, factor=0.1)], [2])
    again.load_state_dict(json.loads(json.dumps(warm.state_dict())))
    again.step(1.0)
    warm.step(1.0)
    assert again.get_last_lr() == warm.get_last_lr()


def test_plateau_misuse():
    for options, message in (
        ({"factor": 1.0}, "factor should be < 1.0"),
        ({"mode": "best"}, "mode 'best' is unknown"),
        ({"threshold_mode": "x"}, "threshold mode 'x' is unknown"),
        ({"min_lr": [1, 2]}, "expected 1 min_lrs, got 2"),
    ):
        with pytest.raises(ValueError, match=message):
            lrs.ReduceLROnPlateau(sgd(), **options)


# ------------------------------------------------------------------------------------------------- several schedules


def test_chained_one_cycle_is_scaled_by_the_others():
    o = sgd(0.7)
    alone = run(lrs.OneCycleLR(sgd(0.7), 3.0, total_steps=5), 4)
    both = run(lrs.ChainedScheduler([lrs.ExponentialLR(o, 0.5), lrs.OneCycleLR(o, 3.0, total_steps=5)]), 4)
    assert_allclose(both, [r * 0.5**t for t, r in enumerate(alone)])
    zero = sgd(0.0)
    assert run(lrs.ChainedScheduler([lrs.StepLR(zero, 1), lrs.ExponentialLR(zero, 0.5)]), 2) == [0, 0, 0]


def test_two_schedules_that_know_nothing_of_each_other_are_refused():
    """Each would undo the other's rates. One that comes after another is another thing: it takes over, from the same base."""
    o = sgd()
    a, b = lrs.ExponentialLR(o, 0.5), lrs.StepLR(o, 1, 0.1)
    a.step()
    b.step()
    assert b.get_last_lr() == [0.1]
    with pytest.raises(RuntimeError, match="put both into a ChainedScheduler"):
        a.step()
    b.step()
    assert o.param_groups[0]["lr"] == 0.1**2


def test_misuse():
    o = sgd()
    with pytest.raises(TypeError, match="got list, expected an optimizer"):
        lrs.StepLR([], 1)
    with pytest.raises(ValueError, match="positive integer step_size, but got 0"):
        lrs.StepLR(o, 0)
    with pytest.raises(ValueError, match="start_factor 0"):
        lrs.LinearLR(o, 0)
    with pytest.raises(ValueError, match="end_factor 2"):
        lrs.LinearLR(o, end_factor=2)
    with pytest.raises(ValueError, match="1 milestones and 1 schedulers"):
        lrs.SequentialLR(o, [lrs.StepLR(o, 1)], [1])
    with pytest.raises(ValueError, match="expected them to increase"):
        lrs.SequentialLR(o, [lrs.StepLR(o, 1)] * 3, [2, 1])
    with pytest.raises(ValueError, match="scheduler at index 1 to be of another"):
        lrs.SequentialLR(o, [lrs.StepLR(o, 1), lrs.StepLR(sgd(), 1)], [1])
    with pytest.raises(ValueError, match="got no scheduler"):
        lrs.ChainedScheduler([])
    with pytest.raises(TypeError, match="at index 0: got int"):
        lrs.ChainedScheduler([1], o)
    schedule = lrs.StepLR(o, 1)
    for state, message in (
        ({"last_epoch": 3, "base_lrs": [1.0, 2.0]}, "base_lrs of 2 groups, expected 1"),
        ({"base_lrs": [3.0], "best": 1}, r"has \['best'\], expected \['last_epoch'\]"),
    ):
        with pytest.raises(ValueError, match=message):
            schedule.load_state_dict(state)
    assert (schedule.last_epoch, schedule.base_lrs) == (0, [1.0])
    with pytest.raises(ValueError, match="has 2 schedulers, expected 1"):
        lrs.ChainedScheduler([schedule]).load_state_dict(lrs.ChainedScheduler([schedule, schedule]).state_dict())


# ------------------------------------------------------------------------------------------------- PyTorch


@pytest.mark.parametrize(
    "make",
    [
        lambda m, o: m.LambdaLR(o, lambda t: 0.9**t),
        lambda m, o: m.StepLR(o, 3),
        lambda m, o: m.MultiStepLR(o, [2, 5, 5]),
        lambda m, o: m.ExponentialLR(o, 0.9),
        lambda m, o: m.LinearLR(o),
        lambda m, o: m.ConstantLR(o),
        lambda m, o: m.PolynomialLR(o, 7, 0.9),
        lambda m, o: m.CosineAnnealingLR(o, 7, 0.01),
        lambda m, o: m.CosineAnnealingWarmRestarts(o, 3, 2, 0.01),
        lambda m, o: m.OneCycleLR(o, 0.5, total_steps=21),
        lambda m, o: m.OneCycleLR(o, [0.5, 0.6], total_steps=21, anneal_strategy="linear", three_phase=True),
        lambda m, o: m.SequentialLR(o, [m.LinearLR(o), m.ExponentialLR(o, 0.9), m.CosineAnnealingLR(o, 5)], [4, 10]),
        lambda m, o: m.ChainedScheduler([m.LinearLR(o), m.ExponentialLR(o, 0.9), m.StepLR(o, 4)]),
        lambda m, o: m.ChainedScheduler([m.LinearLR(o), m.CosineAnnealingLR(o, 30)]),
    ],
)
def test_as_pytorch(make):
    torch = pytest.importorskip("torch")
    p = [torch.nn.Parameter(torch.ones(1)) for _ in range(2)]
    theirs = make(torch.optim.lr_scheduler, torch.optim.SGD([{"params": [p[0]]}, {"params": [p[1]], "lr": 0.1}], lr=0.3, momentum=0.9))
    ours = make(lrs, sgd(0.3, 0.1, momentum=0.9))
    for _ in range(20):
        assert_allclose(ours.get_last_lr(), theirs.get_last_lr(), rtol=1e-12)
        assert_allclose([g["momentum"] for g in ours.optimizer.param_groups], [g["momentum"] for g in theirs.optimizer.param_groups])
        theirs.optimizer.step()
        ours.step()
        theirs.step()


@pytest.mark.parametrize(
    "options", [{"patience": 2}, {"mode": "max", "threshold": 0.05, "patience": 1, "cooldown": 2}, {"threshold_mode": "abs", "patience": 0}]
)
def test_plateau_as_pytorch(options):
    torch = pytest.importorskip("torch")
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.3), factor=0.5, **options)
    ours = lrs.ReduceLROnPlateau(sgd(0.3), factor=0.5, **options)
    rng = np.random.default_rng(0)
    for t in range(60):
        metric = float(np.exp(-t / 20) + 0.1 * rng.random()) if t % 9 else math.nan
        ours.step(metric)
        theirs.step(metric)
        assert_allclose(ours.get_last_lr(), [theirs.optimizer.param_groups[0]["lr"]])
    assert ours.reductions > 2
