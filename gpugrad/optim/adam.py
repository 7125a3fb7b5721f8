"""Adam and AdamW."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from gpugrad.backend import namespace
from gpugrad.optim.optimizer import Optimizer, in_blocks


class Adam(Optimizer):
    """Steps of about ``lr`` in every coordinate::

        g = g + weight_decay p
        m = beta1 m + (1 - beta1) g
        v = beta2 v + (1 - beta2) g^2
        p = p - lr (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps)

    Kingma and Ba, "Adam: a method for stochastic optimization" (2015), algorithm 1; names, defaults and weight decay are PyTorch's.
    """

    decoupled = False

    def __init__(self, params: Iterable[Any], lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8, weight_decay: float = 0) -> None:
        super().__init__(params, {"lr": lr, "betas": tuple(betas), "eps": eps, "weight_decay": weight_decay})

    def check(self, group: dict[str, Any]) -> None:
        """Both betas lie in [0, 1)."""
        super().check(group)
        if len(group["betas"]) != 2 or not all(0 <= b < 1 for b in group["betas"]):
            raise ValueError(f"invalid betas: got {group['betas']}, expected two numbers in [0, 1)")

    def update(self, p: Any, g: Any, state: dict[str, Any], group: dict[str, Any]) -> None:
        """One step of one array."""
        if not state:
            xp = namespace(p)
            state.update(step=0, exp_avg=xp.zeros(p.shape, p.dtype), exp_avg_sq=xp.zeros(p.shape, p.dtype))
        t = state["step"] = state["step"] + 1
        (beta1, beta2), lr, decay = group["betas"], group["lr"], group["weight_decay"]
        root = math.sqrt(1 - beta2**t)
        in_blocks(
            adam,
            p,
            g,
            state["exp_avg"],
            state["exp_avg_sq"],
            beta1=beta1,
            beta2=beta2,
            rate=lr * root / (1 - beta1**t),
            eps=group["eps"] * root,
            shrink=1 - lr * decay if self.decoupled else 1.0,
            weight_decay=0.0 if self.decoupled else decay,
        )


class AdamW(Adam):
    """Adam with weight decay of its own, ``p = p - lr weight_decay p``, outside of the averages.

    Loshchilov and Hutter, "Decoupled weight decay regularization" (2019).
    """

    decoupled = True

    def __init__(
        self, params: Iterable[Any], lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8, weight_decay: float = 1e-2
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay)


def adam(p: Any, g: Any, m: Any, v: Any, s: Any, *, beta1: float, beta2: float, rate: float, eps: float, shrink: float, weight_decay: float) -> None:
    """``p -= rate m / (sqrt(v) + eps)``: both bias corrections are in ``rate`` and ``eps``. ``s`` is scratch."""
    if shrink != 1:
        p *= shrink
    if weight_decay:
        g = p * weight_decay + g
    np.multiply(g, 1 - beta1, out=s)
    m *= beta1
    m += s
    np.multiply(g, g, out=s)
    s *= 1 - beta2
    v *= beta2
    v += s
    np.sqrt(v, out=s)
    s += eps
    np.divide(m, s, out=s)
    s *= rate
    p -= s
