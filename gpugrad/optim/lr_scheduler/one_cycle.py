"""One cycle up and down, of the rate and, the other way, of the momentum."""

from __future__ import annotations

from collections.abc import Sequence

from gpugrad.optim.lr_scheduler.base import LRScheduler, counted, of_group
from gpugrad.optim.lr_scheduler.curves import between, cosine
from gpugrad.optim.optimizer import Optimizer


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
        self.total_steps = counted("total_steps", epochs * steps_per_epoch if total_steps is None else total_steps)  # type: ignore[operator]
        self.max_lr, self.div_factor, self.final_div_factor = max_lr, div_factor, final_div_factor
        self.cycle_momentum, self.base_momentum, self.max_momentum = cycle_momentum, base_momentum, max_momentum
        self.anneal = cosine if anneal_strategy == "cos" else between
        last, top = self.total_steps - 1, pct_start * self.total_steps - 1
        self.ends = [max(top, 0), min(max(2 * top, 0), last), last] if three_phase else [max(top, 0), last]  # the step at which each phase ends
        super().__init__(optimizer, last_epoch)

    def move_to(self, t: float) -> None:
        if t > self.total_steps:
            raise ValueError(f"tried to step {t} times. The specified number of total steps is {self.total_steps}: make one with more, or step once less")
        super().move_to(t)

    def rate(self, base: float, group: int) -> float:
        highest = of_group("max_lrs", self.max_lr, group)
        first = highest / self.div_factor
        last = first / self.final_div_factor
        return self._along([first, highest, first, last] if len(self.ends) == 3 else [first, highest, last])

    def momentum(self, group: int) -> float | None:
        if not self.cycle_momentum:
            return None
        low, high = of_group("base_momenta", self.base_momentum, group), of_group("max_momenta", self.max_momentum, group)
        return self._along([high, low, high, high][: len(self.ends) + 1])

    def _along(self, corners: list[float]) -> float:
        """The value at this step of the curve that has these values at 0 and at the ends of the phases. Behind the last step it stays where it is."""
        start = 0.0
        for i, end in enumerate(self.ends):
            if self.last_epoch <= end and end > start:
                return self.anneal(corners[i], corners[i + 1], (self.last_epoch - start) / (end - start))
            start = end
        return corners[-1]
