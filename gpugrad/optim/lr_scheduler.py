"""Learning rates that change while one trains, with PyTorch's names and defaults.

A schedule is a function of the number t of its steps, and of nothing that was computed on the way: a rate that is stepped to, loaded, or reached after a
million steps has the same bits. (:class:`ReduceLROnPlateau` is one of how often the metric stood still.) So a schedule's state is a few numbers.

The *base* of a group is what its rate was when the first schedule was made for it, kept as ``initial_lr`` in the group, as PyTorch does. Rates are written
into the optimizer when a schedule is made, stepped and loaded; a rate that is an array of no axes or a Tensor is written into where it lies, without waiting for
the device, and is what a recorded step reads. A change made by hand to a group's ``lr`` lasts until the next step: to change the scale, set ``initial_lr``.
"""

from __future__ import annotations

import itertools
import math
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any
from weakref import WeakKeyDictionary

from gpugrad import backend, tape
from gpugrad.optim.optimizer import Optimizer

__all__ = [
    "ChainedScheduler", "CosineAnnealingLR", "CosineAnnealingWarmRestarts", "ExponentialLR", "LRScheduler", "LambdaLR", "LinearLR", "MultiStepLR", "OneCycleLR",
    "ReduceLROnPlateau", "SequentialLR", "StepLR",
]  # fmt: skip

_serial = itertools.count().__next__
_drivers: WeakKeyDictionary[Optimizer, int] = WeakKeyDictionary()  # which schedule stepped last


class LRScheduler:
    """The base of schedules. A subclass defines :meth:`rate`, from the base rate and ``self.last_epoch``, the number of steps so far.

    Call :meth:`step` behind ``optimizer.step()``: once an epoch or once a step, whichever the schedule's numbers count.

    Args:
        optimizer: whose rates it sets. Groups that are added to it later are taken up by the next step.
        last_epoch: as PyTorch counts: to go on behind step t, give t - 1. -1 begins.
    """

    needs_metric = False  # whether step wants to be told how training goes

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"{type(self).__name__}: got {type(optimizer).__name__}, expected an optimizer, as in {type(self).__name__}(optimizer, ...)")
        missing = [i for i, group in enumerate(optimizer.param_groups) if "initial_lr" not in group]
        if last_epoch != -1 and missing:
            raise KeyError(f"param 'initial_lr' is not specified in param_groups[{missing[0]}] when resuming an optimizer (last_epoch={last_epoch})")
        self.optimizer = optimizer
        self.last_epoch: float = 0
        self._number = _serial()
        self._has_stepped = False
        self.move_to(last_epoch + 1)
        self.write()

    def rate(self, base: float, group: int) -> float:
        """The rate of group number ``group`` after ``self.last_epoch`` steps, where ``base`` is its base rate."""
        raise NotImplementedError(f"{type(self).__name__} does not define rate(self, base, group)")

    def momentum(self, group: int) -> float | None:
        """The momentum (beta1) of the group; None leaves it alone."""
        return None

    def move_to(self, t: float) -> None:
        """Be where ``t`` steps lead, without writing into the optimizer."""
        self.last_epoch = t

    def judge(self, metric: float | None) -> None:
        """Look at how training goes."""

    # ------------------------------------------------------------------ what one calls

    def step(self) -> None:
        """One step further.

        Raises:
            RuntimeError: another schedule has stepped the same optimizer meanwhile: each would undo what the other does.
        """
        self._step(None)

    def _step(self, metric: float | None, to: float | None = None) -> None:
        if self._has_stepped and _drivers.get(self.optimizer) != self._number:
            raise RuntimeError(
                f"another schedule has stepped the optimizer of this {type(self).__name__}, and the rates of one would overwrite those of the other: "
                "put both into a ChainedScheduler, which multiplies them, or a SequentialLR, and step that"
            )
        self.judge(metric)
        self.move_to(self.last_epoch + 1 if to is None else to)
        self._has_stepped = True
        _drivers[self.optimizer] = self._number
        self.write()

    @property
    def base_lrs(self) -> list[float]:
        """The base rate of each group."""
        return [_base(group) for group in self.optimizer.param_groups]

    def get_last_lr(self) -> list[float]:
        """The rate of each group as it was last written."""
        return list(self._last_lr)

    def write(self) -> None:
        """Put rates, and momenta if the schedule has them, into the optimizer."""
        groups = self.optimizer.param_groups
        rates = [float(self.rate(_base(group), i)) for i, group in enumerate(groups)]
        stored: dict[int, float] = {}
        for group, rate in zip(groups, rates):
            if backend.is_array(array := tape.plain(group["lr"])) and stored.setdefault(id(array), rate) != rate:
                raise ValueError(f"two groups share one array as lr, but their rates are {stored[id(array)]} and {rate}: give each an array of its own")
        for i, (group, rate) in enumerate(zip(groups, rates)):
            _put(group, rate)
            if (momentum := self.momentum(i)) is not None:
                _put_momentum(group, momentum)
        self._last_lr = rates

    # ------------------------------------------------------------------ saving and loading

    def state_dict(self) -> dict[str, Any]:
        """Where the schedule is, as numbers, lists and dicts that JSON can hold. What the schedule *is* (its arguments) is not in it."""
        return {**self._own_state(), "base_lrs": self.base_lrs}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from where another schedule was; the rates are written into the optimizer.

        Raises:
            ValueError: not the state of such a schedule, or of one with other groups; nothing has been changed.
        """
        bases = state_dict.get("base_lrs", ())
        if len(bases) != len(self.optimizer.param_groups):
            raise ValueError(f"loaded state dict has base_lrs of {len(bases)} groups, expected {len(self.optimizer.param_groups)}")
        own = {k: v for k, v in state_dict.items() if k != "base_lrs"}
        self._check_state(own)
        self._load_own_state(own)
        for group, base in zip(self.optimizer.param_groups, bases):
            group["initial_lr"] = base
        self.write()

    def _own_state(self) -> dict[str, Any]:
        return {"last_epoch": self.last_epoch}

    def _check_state(self, state: Mapping[str, Any]) -> None:
        if set(state) != set(self._own_state()):
            raise ValueError(f"loaded state dict of a {type(self).__name__} has {sorted(state)}, expected {sorted(self._own_state())}")

    def _load_own_state(self, state: Mapping[str, Any]) -> None:
        self.move_to(state["last_epoch"])


def _base(group: dict[str, Any]) -> float:
    """The base rate of a group; when it is first asked for, the rate that the group has."""
    if "initial_lr" not in group:
        group["initial_lr"] = _number(group["lr"])
    return group["initial_lr"]


def _number(x: Any) -> float:
    x = tape.plain(x)
    return float(x.item() if backend.is_array(x) else x)


def _put(group: dict[str, Any], rate: float) -> None:
    array = tape.plain(group["lr"])
    if not backend.is_array(array):
        group["lr"] = rate
        return
    with nullcontext() if backend.device_of(array) == "cpu" else array.device:
        array[...] = rate
    tape.mark_mutated(array)


def _put_momentum(group: dict[str, Any], momentum: float) -> None:
    if "betas" in group:
        group["betas"] = (momentum, *group["betas"][1:])
    else:
        group["momentum"] = momentum


def _of_group(name: str, values: Any, group: int) -> Any:
    """``values``, or that of the group if there is one for each."""
    if not isinstance(values, (list, tuple)):
        return values
    if group >= len(values):
        raise ValueError(f"got {len(values)} {name} for at least {group + 1} groups: expected one for each, or one for all that is not in a list")
    return values[group]


def _counted(name: str, value: Any) -> int:
    if value != int(value) or value <= 0:
        raise ValueError(f"expected positive integer {name}, but got {value}")
    return int(value)


# ------------------------------------------------------------------------------------------------- factors of the base rate


class LambdaLR(LRScheduler):
    """``lr = base f(t)``, with one function for all groups or a list with one for each."""

    def __init__(self, optimizer: Optimizer, lr_lambda: Callable[[int], float] | Sequence[Callable[[int], float]], last_epoch: int = -1) -> None:
        if isinstance(lr_lambda, (list, tuple)) and len(lr_lambda) != len(optimizer.param_groups):
            raise ValueError(f"expected {len(optimizer.param_groups)} lr_lambdas, but got {len(lr_lambda)}")
        self.lr_lambda = lr_lambda
        super().__init__(optimizer, last_epoch)

    def rate(self, base: float, group: int) -> float:
        return base * _of_group("lr_lambdas", self.lr_lambda, group)(self.last_epoch)


class StepLR(LRScheduler):
    """``lr = base gamma^floor(t / step_size)``."""

    def __init__(self, optimizer: Optimizer, step_size: int, gamma: float = 0.1, last_epoch: int = -1) -> None:
        self.step_size, self.gamma = _counted("step_size", step_size), gamma
        super().__init__(optimizer, last_epoch)

    def rate(self, base: float, group: int) -> float:
        return base * self.gamma ** (self.last_epoch // self.step_size)


class MultiStepLR(LRScheduler):
    """``lr = base gamma^(how many of the milestones are at most t)``; a milestone that is given twice counts twice."""

    def __init__(self, optimizer: Optimizer, milestones: Iterable[int], gamma: float = 0.1, last_epoch: int = -1) -> None:
        self.milestones, self.gamma = sorted(milestones), gamma
        super().__init__(optimizer, last_epoch)

    def rate(self, base: float, group: int) -> float:
        return base * self.gamma ** bisect_right(self.milestones, self.last_epoch)


class ExponentialLR(LRScheduler):
    """``lr = base gamma^t``."""

    def __init__(self, optimizer: Optimizer, gamma: float, last_epoch: int = -1) -> None:
        self.gamma = gamma
        super().__init__(optimizer, last_epoch)

    def rate(self, base: float, group: int) -> float:
        return base * self.gamma**self.last_epoch


class LinearLR(LRScheduler):
    """Warm-up: ``lr = base f``, where f goes from ``start_factor`` to ``end_factor`` in ``total_iters`` steps along a line, and stays there.

    Raises:
        ValueError: start_factor is not in (0, 1], or end_factor not in [0, 1].
    """

    def __init__(self, optimizer: Optimizer, start_factor: float = 1 / 3, end_factor: float = 1.0, total_iters: int = 5, last_epoch: int = -1) -> None:
        if not 0 < start_factor <= 1:
            raise ValueError(f"got start_factor {start_factor}, expected it to be greater than 0 and less or equal to 1")
        if not 0 <= end_factor <= 1:
            raise ValueError(f"got end_factor {end_factor}, expected it to be between 0 and 1")
        self.start_factor, self.end_factor, self.total_iters = start_factor, end_factor, _counted("total_iters", total_iters)
        super().__init__(optimizer, last_epoch)

    def rate(self, base: float, group: int) -> float:
        return base * _between(self.start_factor, self.end_factor, min(self.last_epoch / self.total_iters, 1.0))


# ------------------------------------------------------------------------------------------------- curves between two rates


def _between(start: float, end: float, part: float) -> float:
    """Along a line; exactly ``end`` at the end."""
    return end if part == 1 else start + (end - start) * part


def _cosine(start: float, end: float, part: float) -> float:
    """Along half a wave of the cosine; exactly ``end`` at the end."""
    return end if part == 1 else end + (start - end) * (1 + math.cos(math.pi * part)) / 2


class CosineAnnealingLR(LRScheduler):
    """``lr = eta_min + (base - eta_min) (1 + cos(pi t / T_max)) / 2``: down to ``eta_min`` at T_max, up again to the base at 2 T_max, and so on.

    To stay at ``eta_min`` let training end there, or put a schedule behind it with :class:`SequentialLR`. Loshchilov and Hutter, "SGDR" (2017), equation
    5, without restarts.
    """

    def __init__(self, optimizer: Optimizer, T_max: int, eta_min: float = 0.0, last_epoch: int = -1) -> None:
        self.T_max, self.eta_min = _counted("T_max", T_max), eta_min
        super().__init__(optimizer, last_epoch)

    def rate(self, base: float, group: int) -> float:
        t = self.last_epoch % (2 * self.T_max)
        return _cosine(base, self.eta_min, min(t, 2 * self.T_max - t) / self.T_max)


class CosineAnnealingWarmRestarts(LRScheduler):
    """Periods of ``T_0, T_0 T_mult, T_0 T_mult^2, ...`` steps, in each of which the rate falls from the base to ``eta_min``, and then starts again::

        lr = eta_min + (base - eta_min) (1 + cos(pi t_in_period / period)) / 2

    Loshchilov and Hutter, "SGDR: stochastic gradient descent with warm restarts" (2017).
    """

    def __init__(self, optimizer: Optimizer, T_0: int, T_mult: int = 1, eta_min: float = 0.0, last_epoch: int = -1) -> None:
        self.T_0, self.T_mult, self.eta_min = _counted("T_0", T_0), _counted("T_mult", T_mult), eta_min
        super().__init__(optimizer, last_epoch)

    def step(self, epoch: float | None = None) -> None:
        """One step further; or to ``epoch``, which may be a fraction: ``step(epoch + batch / batches)`` after every batch.

        Raises:
            ValueError: epoch is negative.
        """
        if epoch is not None and not epoch >= 0:
            raise ValueError(f"expected non-negative epoch, but got {epoch}")
        self._step(None, to=epoch)

    def rate(self, base: float, group: int) -> float:
        t, period = self.last_epoch, self.T_0
        if self.T_mult == 1:
            t %= period
        while t >= period:
            t, period = t - period, period * self.T_mult
        return _cosine(base, self.eta_min, t / period)


class OneCycleLR(LRScheduler):
    """From ``max_lr / div_factor`` up to ``max_lr`` and down to ``max_lr / div_factor / final_div_factor``, in ``total_steps`` steps; the momentum the other way.

    Args:
        max_lr: one for all groups, or a list. The group's own rate does not count.
        total_steps: all steps together; or ``epochs`` and ``steps_per_epoch``.
        pct_start: which part of the steps goes up.
        anneal_strategy: "cos" or "linear".
        cycle_momentum: whether momentum (SGD, RMSprop) or beta1 (Adam and its kin) goes from ``max_momentum`` to ``base_momentum`` and back.
        three_phase: down to where it began in as many steps as up, and only then further down.

    ``step`` raises ValueError beyond total_steps. Smith and Topin, "Super-convergence" (2018).
    """

    def __init__(
        self,
        optimizer: Optimizer,
        max_lr: float | Sequence[float],
        total_steps: int | None = None,
        epochs: int | None = None,
        steps_per_epoch: int | None = None,
        pct_start: float = 0.3,
        anneal_strategy: str = "cos",
        cycle_momentum: bool = True,
        base_momentum: float | Sequence[float] = 0.85,
        max_momentum: float | Sequence[float] = 0.95,
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
        three_phase: bool = False,
        last_epoch: int = -1,
    ) -> None:
        if total_steps is None and (epochs is None or steps_per_epoch is None):
            raise ValueError("you must define either total_steps OR (epochs AND steps_per_epoch)")
        if not 0 <= pct_start <= 1:
            raise ValueError(f"expected pct_start between 0 and 1, but got {pct_start}")
        if anneal_strategy not in ("cos", "linear"):
            raise ValueError(f"anneal_strategy must be one of 'cos' or 'linear', instead got {anneal_strategy!r}")
        if cycle_momentum and not all("momentum" in group or "betas" in group for group in optimizer.param_groups):
            raise ValueError(f"{type(optimizer).__name__} has neither momentum nor betas: it must support one of them for cycle_momentum=True")
        self.total_steps = _counted("total_steps", epochs * steps_per_epoch if total_steps is None else total_steps)  # type: ignore[operator]
        self.max_lr, self.div_factor, self.final_div_factor = max_lr, div_factor, final_div_factor
        self.cycle_momentum, self.base_momentum, self.max_momentum = cycle_momentum, base_momentum, max_momentum
        self.anneal = _cosine if anneal_strategy == "cos" else _between
        last, top = self.total_steps - 1, pct_start * self.total_steps - 1
        self.ends = [max(top, 0), min(max(2 * top, 0), last), last] if three_phase else [max(top, 0), last]  # the step at which each phase ends
        super().__init__(optimizer, last_epoch)

    def move_to(self, t: float) -> None:
        if t > self.total_steps:
            raise ValueError(f"tried to step {t} times. The specified number of total steps is {self.total_steps}: make one with more, or step once less")
        super().move_to(t)

    def rate(self, base: float, group: int) -> float:
        highest = _of_group("max_lrs", self.max_lr, group)
        first = highest / self.div_factor
        last = first / self.final_div_factor
        return self._along([first, highest, first, last] if len(self.ends) == 3 else [first, highest, last])

    def momentum(self, group: int) -> float | None:
        if not self.cycle_momentum:
            return None
        low, high = _of_group("base_momenta", self.base_momentum, group), _of_group("max_momenta", self.max_momentum, group)
        return self._along([high, low, high, high][: len(self.ends) + 1])

    def _along(self, corners: list[float]) -> float:
        """The value at this step of the curve that has these values at 0 and at the ends of the phases. Behind the last step it stays where it is."""
        start = 0.0
        for i, end in enumerate(self.ends):
            if self.last_epoch <= end and end > start:
                return self.anneal(corners[i], corners[i + 1], (self.last_epoch - start) / (end - start))
            start = end
        return corners[-1]


# ------------------------------------------------------------------------------------------------- by how training goes


class ReduceLROnPlateau(LRScheduler):
    """``factor`` times the rate, whenever the metric has not become better in more than ``patience`` steps: ``step(validation_loss)``.

    Args:
        mode: "min" or "max", what is better.
        threshold: by how much to be better than the best: in ``threshold_mode`` "rel" by that part of its size, in "abs" by that.
        cooldown: for how many steps after a reduction not to count.
        min_lr: where the rate ends; one for all groups, or a list.
        eps: a change that is not larger is left.

    nan is never better. Unlike PyTorch's, "rel" of a negative metric goes by its size, so that what is worse does not count as better.
    To judge a metric is to read it: a Tensor on a GPU is waited for.
    """

    needs_metric = True

    def __init__(
        self,
        optimizer: Optimizer,
        mode: str = "min",
        factor: float = 0.1,
        patience: int = 10,
        threshold: float = 1e-4,
        threshold_mode: str = "rel",
        cooldown: int = 0,
        min_lr: float | Sequence[float] = 0,
        eps: float = 1e-8,
    ) -> None:
        if factor >= 1:
            raise ValueError(f"factor should be < 1.0, got {factor}")
        if mode not in ("min", "max"):
            raise ValueError(f"mode {mode!r} is unknown: expected 'min' or 'max'")
        if threshold_mode not in ("rel", "abs"):
            raise ValueError(f"threshold mode {threshold_mode!r} is unknown: expected 'rel' or 'abs'")
        if isinstance(min_lr, (list, tuple)) and len(min_lr) != len(optimizer.param_groups):
            raise ValueError(f"expected {len(optimizer.param_groups)} min_lrs, got {len(min_lr)}")
        self.mode, self.threshold, self.threshold_mode = mode, threshold, threshold_mode
        self.factor, self.patience, self.cooldown, self.min_lr, self.eps = factor, patience, cooldown, min_lr, eps
        self.best: float | None = None
        self.num_bad_epochs = self.cooldown_counter = self.reductions = 0
        super().__init__(optimizer)

    def step(self, metric: Any) -> None:  # type: ignore[override]
        """One step further, at which the metric (a number, or a Tensor or array of one) is this."""
        self._step(metric)

    def judge(self, metric: Any) -> None:
        if metric is None:
            raise TypeError("ReduceLROnPlateau goes by a metric: call step(metric)")
        value = _number(metric)
        if self._is_better(value):
            self.best, self.num_bad_epochs = value, 0
        else:
            self.num_bad_epochs += 1
        if self.cooldown_counter > 0:
            self.cooldown_counter -= 1
            self.num_bad_epochs = 0
        if self.num_bad_epochs > self.patience:
            self.reductions += 1
            self.cooldown_counter, self.num_bad_epochs = self.cooldown, 0

    def _is_better(self, value: float) -> bool:
        sign = -1.0 if self.mode == "max" else 1.0
        if self.best is None:
            return sign * value < math.inf
        margin = self.threshold * (abs(self.best) if self.threshold_mode == "rel" else 1.0)
        return sign * value < sign * self.best - margin

    def rate(self, base: float, group: int) -> float:
        """``base factor^reductions``, at least min_lr, without the changes that would be too small."""
        lr, least = base, _of_group("min_lrs", self.min_lr, group)
        for n in range(1, self.reductions + 1):
            new = max(base * self.factor**n, least)
            if not lr - new > self.eps:
                break
            lr = new
        return lr

    def _own_state(self) -> dict[str, Any]:
        names = ("best", "num_bad_epochs", "cooldown_counter", "reductions")
        return {**super()._own_state(), **{name: getattr(self, name) for name in names}}

    def _load_own_state(self, state: Mapping[str, Any]) -> None:
        vars(self).update(state)


# ------------------------------------------------------------------------------------------------- of several


class _Several(LRScheduler):
    """Schedules of one optimizer; they are stepped by this one, not by themselves."""

    def __init__(self, optimizer: Optimizer | None, schedulers: Sequence[LRScheduler], last_epoch: int = -1) -> None:
        name = type(self).__name__
        schedulers = list(schedulers) if isinstance(schedulers, Iterable) else [schedulers]
        if not schedulers:
            raise ValueError(f"{name} expects at least one scheduler to be chained, but got no scheduler")
        optimizer = schedulers[0].optimizer if optimizer is None else optimizer
        for i, s in enumerate(schedulers):
            if not isinstance(s, LRScheduler):
                raise TypeError(f"{name} at index {i}: got {type(s).__name__}, expected a scheduler")
            if s.optimizer is not optimizer:
                raise ValueError(f"{name} expects all schedulers to belong to the same optimizer, but got the scheduler at index {i} to be of another")
        self.schedulers = schedulers
        super().__init__(optimizer, last_epoch)

    @property
    def needs_metric(self) -> bool:  # type: ignore[override]
        """Whether one of them does."""
        return any(s.needs_metric for s in self.schedulers)

    def step(self, metric: Any = None) -> None:
        """One step further; ``metric`` is for a :class:`ReduceLROnPlateau` among them, and needed while it is its turn."""
        self._step(metric)

    def _own_state(self) -> dict[str, Any]:
        return {**super()._own_state(), "schedulers": [s._own_state() for s in self.schedulers]}

    def _check_state(self, state: Mapping[str, Any]) -> None:
        super()._check_state(state)
        if len(state["schedulers"]) != len(self.schedulers):
            raise ValueError(f"loaded state dict of a {type(self).__name__} has {len(state['schedulers'])} schedulers, expected {len(self.schedulers)}")
        for s, saved in zip(self.schedulers, state["schedulers"]):
            s._check_state(saved)

    def _load_own_state(self, state: Mapping[str, Any]) -> None:
        for s, saved in zip(self.schedulers, state["schedulers"]):
            s._load_own_state(saved)
        self.last_epoch = state["last_epoch"]


class SequentialLR(_Several):
    """The first schedule up to ``milestones[0]`` steps, the second, which counts from there, up to ``milestones[1]``, and so on::

    SequentialLR(o, [LinearLR(o, 0.1, total_iters=5), CosineAnnealingLR(o, 95)], milestones=[5])
    """

    def __init__(self, optimizer: Optimizer, schedulers: Sequence[LRScheduler], milestones: Sequence[int], last_epoch: int = -1) -> None:
        if len(milestones) != len(schedulers) - 1:
            raise ValueError(f"SequentialLR expects one milestone less than schedulers, but got {len(milestones)} milestones and {len(schedulers)} schedulers")
        if list(milestones) != sorted(milestones):
            raise ValueError(f"SequentialLR: got milestones {list(milestones)}, expected them to increase")
        self.milestones = list(milestones)
        super().__init__(optimizer, schedulers, last_epoch)

    def _active(self) -> int:
        return bisect_right(self.milestones, self.last_epoch)

    def move_to(self, t: float) -> None:
        super().move_to(t)
        i = self._active()
        self.schedulers[i].move_to(t - (self.milestones[i - 1] if i else 0))

    def judge(self, metric: Any) -> None:
        self.schedulers[self._active()].judge(metric)

    def rate(self, base: float, group: int) -> float:
        return self.schedulers[self._active()].rate(base, group)

    def momentum(self, group: int) -> float | None:
        return self.schedulers[self._active()].momentum(group)


class ChainedScheduler(_Several):
    """All schedules at once: the base rate times the factor (rate / base rate) of each of them."""

    def __init__(self, schedulers: Sequence[LRScheduler], optimizer: Optimizer | None = None) -> None:
        super().__init__(optimizer, schedulers)

    def move_to(self, t: float) -> None:
        for s in self.schedulers:
            s.move_to(t)
        super().move_to(t)

    def judge(self, metric: Any) -> None:
        for s in self.schedulers:
            s.judge(metric)

    def rate(self, base: float, group: int) -> float:
        first, *others = [s.rate(base, group) for s in self.schedulers]
        return math.prod([r / base for r in others], start=first) if base else first

    def momentum(self, group: int) -> float | None:
        momenta = [m for s in self.schedulers if (m := s.momentum(group)) is not None]
        return momenta[-1] if momenta else None
