"""A rate that goes by how training goes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from gpugrad.optim.lr_scheduler.base import LRScheduler, number, of_group
from gpugrad.optim.optimizer import Optimizer


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
        value = number(metric)
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
        lr, least = base, of_group("min_lrs", self.min_lr, group)
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
