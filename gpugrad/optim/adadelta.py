"""Adadelta."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from gpugrad.kernels.optimizers import adadelta
from gpugrad.optim.optimizer import Arrays, Optimizer, States, remembered


class Adadelta(Optimizer):
    """Steps in the units of the parameters, from the averages of squared gradients and of squared steps::

        g = g + weight_decay p                   (-g to maximize; p = p - lr weight_decay p where decoupled)
        v = rho v + (1 - rho) g^2
        d = sqrt(u + eps) / sqrt(v + eps) g
        u = rho u + (1 - rho) d^2
        p = p - lr d

    With ``capturable`` the count of steps, which the formula does not need, lies in device memory. For ``max_grad_norm`` and an ``lr`` on the device see
    :class:`Optimizer`.

    Zeiler, "ADADELTA: an adaptive learning rate method" (2012), algorithm 1, with a learning rate, 1 by default; names and defaults are PyTorch's.
    """

    clips = True

    def __init__(
        self,
        params: Iterable[Any],
        lr: Any = 1.0,
        rho: float = 0.9,
        eps: float = 1e-6,
        weight_decay: float = 0,
        *,
        maximize: bool = False,
        capturable: bool = False,
        decoupled_weight_decay: bool = False,
        max_grad_norm: float | None = None,
    ) -> None:
        options = {"lr": lr, "rho": rho, "eps": eps, "weight_decay": weight_decay}
        options |= {"maximize": maximize, "capturable": capturable, "decoupled_weight_decay": decoupled_weight_decay}
        super().__init__(params, options, max_grad_norm=max_grad_norm)

    def update(self, params: Arrays, grads: Arrays, states: States, group: dict[str, Any]) -> None:
        """One step of arrays of one dtype and device."""
        averages = [remembered(states, name, params) for name in ("square_avg", "acc_delta")]
        self.count(states, group["capturable"], params[0])
        adadelta(params, grads, *averages, rho=group["rho"], eps=group["eps"], **self.common(group))
