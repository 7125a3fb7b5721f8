"""Several schedules of one optimizer: one after another, or all at once."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from gpugrad.optim.lr_scheduler.base import LRScheduler
from gpugrad.optim.optimizer import Optimizer


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
