"""What all schedules share: the base rate of each group, writing rates into the optimizer, and a state of a few numbers."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any
from weakref import WeakKeyDictionary

from gpugrad import backend, tape
from gpugrad.optim.optimizer import Optimizer

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
        group["initial_lr"] = number(group["lr"])
    return group["initial_lr"]


def number(x: Any) -> float:
    """A number, array or Tensor of one element, which is waited for."""
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


def of_group(name: str, values: Any, group: int) -> Any:
    """``values``, or that of the group if there is one for each."""
    if not isinstance(values, (list, tuple)):
        return values
    if group >= len(values):
        raise ValueError(f"got {len(values)} {name} for at least {group + 1} groups: expected one for each, or one for all that is not in a list")
    return values[group]


def counted(name: str, value: Any) -> int:
    """A positive integer, or ValueError."""
    if value != int(value) or value <= 0:
        raise ValueError(f"expected positive integer {name}, but got {value}")
    return int(value)
