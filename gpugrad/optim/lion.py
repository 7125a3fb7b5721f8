"""Lion."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from gpugrad.kernels.optimizers import lion
from gpugrad.optim.optimizer import Arrays, Optimizer, States, remembered


class Lion(Optimizer):
    """Steps of ``lr`` in every coordinate, by the sign of an average of gradients::

        c = beta1 m + (1 - beta1) g              (-g to maximize)
        p = p - lr (sign(c) + weight_decay p)    (where decay is coupled: g = g + weight_decay p before, and no decay here)
        m = beta2 m + (1 - beta2) g

    sign(0) is 0, and that of nan is nan. ``lr`` wants to be three to ten times smaller, and ``weight_decay`` as much larger, than those of AdamW.
    One array is remembered of each parameter, half of what Adam does. For ``max_grad_norm`` and an ``lr`` on the device see :class:`Optimizer`.

    Chen et al., "Symbolic discovery of optimization algorithms" (2023), algorithm 2, with its defaults.
    """

    clips = True

    def __init__(
        self,
        params: Iterable[Any],
        lr: Any = 1e-4,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0,
        *,
        maximize: bool = False,
        decoupled_weight_decay: bool = True,
        max_grad_norm: float | None = None,
    ) -> None:
        options = {"lr": lr, "betas": tuple(betas), "weight_decay": weight_decay, "maximize": maximize, "decoupled_weight_decay": decoupled_weight_decay}
        super().__init__(params, options, max_grad_norm=max_grad_norm)

    def update(self, params: Arrays, grads: Arrays, states: States, group: dict[str, Any]) -> None:
        """One step of arrays of one dtype and device."""
        lion(params, grads, remembered(states, "exp_avg", params), beta1=group["betas"][0], beta2=group["betas"][1], **self.common(group))
