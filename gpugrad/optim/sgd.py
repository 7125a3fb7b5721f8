"""Stochastic gradient descent."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from gpugrad.kernels.optimizers import sgd
from gpugrad.optim.optimizer import Arrays, Optimizer, States, partition, remembered


class SGD(Optimizer):
    """``p -= lr g``, with momentum and L2 regularisation::

        g = g + weight_decay p                   (-g to maximize; p = p - lr weight_decay p where decoupled)
        b = momentum b + (1 - dampening) g       (b = g in the first step)
        g = g + momentum b if nesterov else b
        p = p - lr g

    Names, defaults and formulas are PyTorch's, and SGDW's where decoupled. For ``max_grad_norm`` and an ``lr`` on the device see :class:`Optimizer`.
    """

    clips = True

    def __init__(
        self,
        params: Iterable[Any],
        lr: Any = 1e-3,
        momentum: float = 0,
        dampening: float = 0,
        weight_decay: float = 0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
        decoupled_weight_decay: bool = False,
        max_grad_norm: float | None = None,
    ) -> None:
        options = {"lr": lr, "momentum": momentum, "dampening": dampening, "weight_decay": weight_decay, "nesterov": nesterov}
        options |= {"maximize": maximize, "decoupled_weight_decay": decoupled_weight_decay}
        super().__init__(params, options, max_grad_norm=max_grad_norm)

    def check(self, group: dict[str, Any]) -> None:
        """Nesterov's momentum needs a momentum, and no dampening."""
        super().check(group)
        if group["nesterov"] and (group["momentum"] <= 0 or group["dampening"] != 0):
            raise ValueError(f"Nesterov momentum requires a momentum and zero dampening: got momentum={group['momentum']} and dampening={group['dampening']}")

    def update(self, params: Arrays, grads: Arrays, states: States, group: dict[str, Any]) -> None:
        """One step of arrays of one dtype and device."""
        momentum = group["momentum"]
        common = self.common(group)
        if momentum == 0:
            sgd(params, grads, None, **common)
            return
        keeps = [1.0 if s.get("momentum_buffer") is None else 1 - group["dampening"] for s in states]
        buffers = remembered(states, "momentum_buffer", params)
        for keep, ps, gs, bs in partition(keeps, keeps, params, grads, buffers):
            sgd(ps, gs, bs, momentum=momentum, keep=keep[0], nesterov=group["nesterov"], **common)
