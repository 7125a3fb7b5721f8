"""Stochastic gradient descent."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from gpugrad.backend import namespace
from gpugrad.optim.optimizer import Optimizer, in_blocks


class SGD(Optimizer):
    """``p -= lr g``, with momentum and L2 regularisation::

        g = g + weight_decay p
        b = momentum b + (1 - dampening) g       (b = g in the first step)
        g = g + momentum b if nesterov else b
        p = p - lr g

    Names, defaults and formulas are PyTorch's.
    """

    def __init__(
        self, params: Iterable[Any], lr: float = 1e-3, momentum: float = 0, dampening: float = 0, weight_decay: float = 0, nesterov: bool = False
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "dampening": dampening, "weight_decay": weight_decay, "nesterov": nesterov})

    def check(self, group: dict[str, Any]) -> None:
        """Nesterov's momentum needs a momentum, and no dampening."""
        super().check(group)
        if group["nesterov"] and (group["momentum"] <= 0 or group["dampening"] != 0):
            raise ValueError("Nesterov momentum requires a momentum and zero dampening")

    def update(self, p: Any, g: Any, state: dict[str, Any], group: dict[str, Any]) -> None:
        """One step of one array."""
        lr, momentum, weight_decay = group["lr"], group["momentum"], group["weight_decay"]
        if momentum == 0:
            in_blocks(sgd, p, g, lr=lr, weight_decay=weight_decay)
            return
        first = "momentum_buffer" not in state
        if first:
            state["momentum_buffer"] = namespace(p).zeros(p.shape, p.dtype)
        b, keep = state["momentum_buffer"], 1.0 if first else 1 - group["dampening"]
        in_blocks(sgd_with_momentum, p, g, b, lr=lr, weight_decay=weight_decay, momentum=momentum, keep=keep, nesterov=group["nesterov"])


def sgd(p: Any, g: Any, s: Any, *, lr: float, weight_decay: float) -> None:
    """Plain gradient descent; ``s`` is scratch."""
    if weight_decay:
        np.multiply(p, weight_decay, out=s)
        s += g
        g = s
    np.multiply(g, lr, out=s)
    p -= s


def sgd_with_momentum(p: Any, g: Any, b: Any, s: Any, *, lr: float, weight_decay: float, momentum: float, keep: float, nesterov: bool) -> None:
    """Gradient descent along the buffer ``b = momentum b + keep g``; ``s`` is scratch."""
    if weight_decay:
        np.multiply(p, weight_decay, out=s)
        s += g
        g = s
    if nesterov:  # p - lr (g + momentum b) in two parts, because s may hold g
        b *= momentum
        b += g
        np.multiply(g, lr, out=s)
        p -= s
        np.multiply(b, lr * momentum, out=s)
    else:
        if keep != 1:
            g = np.multiply(g, keep, out=s)
        b *= momentum
        b += g
        np.multiply(b, lr, out=s)
    p -= s
