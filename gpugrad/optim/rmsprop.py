"""RMSprop."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from gpugrad.kernels.optimizers import rmsprop
from gpugrad.optim.optimizer import Arrays, Optimizer, States, remembered


class RMSprop(Optimizer):
    """Gradients over the root of a running average of their squares::

        g = g + weight_decay p                   (-g to maximize; p = p - lr weight_decay p where decoupled)
        v = alpha v + (1 - alpha) g^2
        d = g / (sqrt(v) + eps)
        b = momentum b + d                       (b = d without momentum)
        p = p - lr b

    ``centered`` takes the variance v - m^2, with m = alpha m + (1 - alpha) g, in the place of v. Where g hardly changes, rounding can make that negative; it
    counts as 0 then, and never makes a nan. The step of such a coordinate is about lr g / eps, so a larger ``eps`` is wise there.

    With ``capturable`` the count of steps, which the formula does not need, lies in device memory. For ``max_grad_norm`` and an ``lr`` on the device see
    :class:`Optimizer`.

    Tieleman and Hinton, "Lecture 6.5: RMSprop" (2012); Graves, "Generating sequences with recurrent neural networks" (2013) for ``centered``; names, defaults
    and the place of eps are PyTorch's.
    """

    clips = True

    def __init__(
        self,
        params: Iterable[Any],
        lr: Any = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0,
        momentum: float = 0,
        centered: bool = False,
        *,
        maximize: bool = False,
        capturable: bool = False,
        decoupled_weight_decay: bool = False,
        max_grad_norm: float | None = None,
    ) -> None:
        options = {"lr": lr, "alpha": alpha, "eps": eps, "weight_decay": weight_decay, "momentum": momentum, "centered": centered}
        options |= {"maximize": maximize, "capturable": capturable, "decoupled_weight_decay": decoupled_weight_decay}
        super().__init__(params, options, max_grad_norm=max_grad_norm)

    def update(self, params: Arrays, grads: Arrays, states: States, group: dict[str, Any]) -> None:
        """One step of arrays of one dtype and device."""
        square_avgs = remembered(states, "square_avg", params)
        grad_avgs = remembered(states, "grad_avg", params) if group["centered"] else None
        buffers = remembered(states, "momentum_buffer", params) if group["momentum"] > 0 else None
        self.count(states, group["capturable"], params[0])
        options = {name: group[name] for name in ("alpha", "eps", "momentum")}
        rmsprop(params, grads, square_avgs, grad_avgs, buffers, **options, **self.common(group))
