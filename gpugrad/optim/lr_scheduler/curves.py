"""Curves between two rates: warm-up along a line, powers, and cosines with and without restarts."""

from __future__ import annotations

import math

from gpugrad.optim.lr_scheduler.base import LRScheduler, counted
from gpugrad.optim.optimizer import Optimizer


def between(start: float, end: float, part: float) -> float:
    """Along a line; exactly ``end`` at the end."""
    return end if part == 1 else start + (end - start) * part


def cosine(start: float, end: float, part: float) -> float:
    """Along half a wave of the cosine; exactly ``end`` at the end."""
    return end if part == 1 else end + (start - end) * (1 + math.cos(math.pi * part)) / 2


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
        self.start_factor, self.end_factor, self.total_iters = start_factor, end_factor, counted("total_iters", total_iters)
        super().__init__(optimizer, last_epoch)

    def rate(self, base: float, group: int) -> float:
        return base * between(self.start_factor, self.end_factor, min(self.last_epoch / self.total_iters, 1.0))


class PolynomialLR(LRScheduler):
    """``lr = base (1 - t / total_iters)^power``, and 0 from there on."""

    def __init__(self, optimizer: Optimizer, total_iters: int = 5, power: float = 1.0, last_epoch: int = -1) -> None:
        self.total_iters, self.power = counted("total_iters", total_iters), power
        super().__init__(optimizer, last_epoch)

    def rate(self, base: float, group: int) -> float:
        return base * (1 - min(self.last_epoch / self.total_iters, 1.0)) ** self.power


class CosineAnnealingLR(LRScheduler):
    """``lr = eta_min + (base - eta_min) (1 + cos(pi t / T_max)) / 2``: down to ``eta_min`` at T_max, up again to the base at 2 T_max, and so on.

    To stay at ``eta_min`` let training end there, or put a schedule behind it with :class:`SequentialLR`. Loshchilov and Hutter, "SGDR" (2017), equation
    5, without restarts.
    """

    def __init__(self, optimizer: Optimizer, T_max: int, eta_min: float = 0.0, last_epoch: int = -1) -> None:
        self.T_max, self.eta_min = counted("T_max", T_max), eta_min
        super().__init__(optimizer, last_epoch)

    def rate(self, base: float, group: int) -> float:
        t = self.last_epoch % (2 * self.T_max)
        return cosine(base, self.eta_min, min(t, 2 * self.T_max - t) / self.T_max)


class CosineAnnealingWarmRestarts(LRScheduler):
    """Periods of ``T_0, T_0 T_mult, T_0 T_mult^2, ...`` steps, in each of which the rate falls from the base to ``eta_min``, and then starts again::

        lr = eta_min + (base - eta_min) (1 + cos(pi t_in_period / period)) / 2

    Loshchilov and Hutter, "SGDR: stochastic gradient descent with warm restarts" (2017).
    """

    def __init__(self, optimizer: Optimizer, T_0: int, T_mult: int = 1, eta_min: float = 0.0, last_epoch: int = -1) -> None:
        self.T_0, self.T_mult, self.eta_min = counted("T_0", T_0), counted("T_mult", T_mult), eta_min
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
        return cosine(base, self.eta_min, t / period)
