"""Adagrad."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from gpugrad.kernels.optimizers import adagrad
from gpugrad.optim.optimizer import Arrays, Optimizer, States, numbered, partition, remembered


class Adagrad(Optimizer):
    """Gradients over the root of the sum of all their squares so far::

        r = lr / (1 + (t - 1) lr_decay)          in step t, which counts from 1
        g = g + weight_decay p                   (-g to maximize; p = p - r weight_decay p where decoupled)
        s = s + g^2                              (s = initial_accumulator_value before the first step)
        p = p - r g / (sqrt(s) + eps)

    With ``capturable`` the count t lies in device memory, so that a recorded step counts on when it is played again. For ``max_grad_norm`` and an ``lr`` on
    the device see :class:`Optimizer`.

    The sum is of the parameter's dtype: a float16 one is infinite at 65504, and no longer grows by squares of less than its 2048th part, so keep
    parameters in float32.

    Duchi, Hazan and Singer, "Adaptive subgradient methods for online learning and stochastic optimization" (2011); names and defaults are PyTorch's.
    """

    clips = True

    def __init__(
        self,
        params: Iterable[Any],
        lr: Any = 1e-2,
        lr_decay: float = 0,
        weight_decay: float = 0,
        initial_accumulator_value: float = 0,
        eps: float = 1e-10,
        *,
        maximize: bool = False,
        capturable: bool = False,
        decoupled_weight_decay: bool = False,
        max_grad_norm: float | None = None,
    ) -> None:
        options = {"lr": lr, "lr_decay": lr_decay, "weight_decay": weight_decay, "initial_accumulator_value": initial_accumulator_value, "eps": eps}
        options |= {"maximize": maximize, "capturable": capturable, "decoupled_weight_decay": decoupled_weight_decay}
        super().__init__(params, options, max_grad_norm=max_grad_norm)

    def update(self, params: Arrays, grads: Arrays, states: States, group: dict[str, Any]) -> None:
        """One step of arrays of one dtype and device."""
        sums = remembered(states, "sum", params, group["initial_accumulator_value"])
        self.count(states, group["capturable"], params[0])
        steps = [s["step"] for s in states]
        options = {"lr_decay": group["lr_decay"], "eps": group["eps"], **self.common(group)}
        for same, *lists in partition(numbered(steps), steps, params, grads, sums):
            adagrad(*lists, step=same[0], **options)
