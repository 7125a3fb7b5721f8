"""Adam and AdamW."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from gpugrad.kernels.optimizers import adam
from gpugrad.optim.optimizer import Arrays, Optimizer, States, numbered, partition, remembered


class Adam(Optimizer):
    """Steps of about ``lr`` in every coordinate::

        g = g + weight_decay p                   (-g to maximize; p = p - lr weight_decay p where decoupled)
        m = beta1 m + (1 - beta1) g
        v = beta2 v + (1 - beta2) g^2
        p = p - lr (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps)

    With ``amsgrad`` the largest v so far takes the place of v in the last line. With ``capturable`` the count t lies in device memory, so that a recorded
    step counts on when it is played again. For ``max_grad_norm`` and an ``lr`` on the device see :class:`Optimizer`.

    The averages are of the parameter's dtype: in float16 v is too coarse for gradients below 0.01, so keep parameters in float32 there.

    Kingma and Ba, "Adam: a method for stochastic optimization" (2015), algorithm 1; Reddi, Kale and Kumar, "On the convergence of Adam and beyond" (2018)
    for ``amsgrad``, with the bias corrected after the maximum; names, defaults and weight decay are PyTorch's.
    """

    clips = True

    def __init__(
        self,
        params: Iterable[Any],
        lr: Any = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
        capturable: bool = False,
        decoupled_weight_decay: bool = False,
        max_grad_norm: float | None = None,
    ) -> None:
        options = {"lr": lr, "betas": tuple(betas), "eps": eps, "weight_decay": weight_decay, "amsgrad": amsgrad}
        options |= {"maximize": maximize, "capturable": capturable, "decoupled_weight_decay": decoupled_weight_decay}
        super().__init__(params, options, max_grad_norm=max_grad_norm)

    def update(self, params: Arrays, grads: Arrays, states: States, group: dict[str, Any]) -> None:
        """One step of arrays of one dtype and device."""
        averages = [remembered(states, name, params) for name in ("exp_avg", "exp_avg_sq", *(["max_exp_avg_sq"] if group["amsgrad"] else []))]
        self.count(states, group["capturable"], params[0])
        steps = [s["step"] for s in states]
        common, (beta1, beta2) = self.common(group), group["betas"]
        for same, *lists in partition(numbered(steps), steps, params, grads, *averages):
            adam(*lists, step=same[0], beta1=beta1, beta2=beta2, eps=group["eps"], **common)


class AdamW(Adam):
    """Adam with weight decay of its own, ``p = p - lr weight_decay p``, outside of the averages.

    Loshchilov and Hutter, "Decoupled weight decay regularization" (2019).
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: Any = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
        capturable: bool = False,
        max_grad_norm: float | None = None,
    ) -> None:
        options = {"maximize": maximize, "capturable": capturable, "max_grad_norm": max_grad_norm}
        super().__init__(params, lr, betas, eps, weight_decay, amsgrad, decoupled_weight_decay=True, **options)  # type: ignore[arg-type]
