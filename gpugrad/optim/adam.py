"""Adam and AdamW."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from gpugrad import backend, tape
from gpugrad.kernels.optimizers import adam
from gpugrad.optim.optimizer import Arrays, Optimizer, States, partition, remembered


class Adam(Optimizer):
    """Steps of about ``lr`` in every coordinate::

        g = g + weight_decay p                   (-g to maximize)
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
    decoupled = False

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
        max_grad_norm: float | None = None,
    ) -> None:
        options = {"lr": lr, "betas": tuple(betas), "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, {**options, "amsgrad": amsgrad, "maximize": maximize, "capturable": capturable}, max_grad_norm=max_grad_norm)

    def check(self, group: dict[str, Any]) -> None:
        """Both betas lie in [0, 1)."""
        super().check(group)
        if len(group["betas"]) != 2 or not all(0 <= b < 1 for b in group["betas"]):
            raise ValueError(f"invalid betas: got {group['betas']}, expected two numbers in [0, 1)")

    def update(self, params: Arrays, grads: Arrays, states: States, group: dict[str, Any]) -> None:
        """One step of arrays of one dtype and device."""
        self.count(states, group["capturable"], params[0])
        averages = [remembered(states, name, params) for name in ("exp_avg", "exp_avg_sq", *(["max_exp_avg_sq"] if group["amsgrad"] else []))]
        steps = [s["step"] for s in states]
        for same, *lists in partition([id(t) if backend.is_array(t) else t for t in steps], steps, params, grads, *averages):
            adam(
                *lists,
                lr=tape.plain(group["lr"]),
                step=same[0],
                beta1=group["betas"][0],
                beta2=group["betas"][1],
                eps=group["eps"],
                weight_decay=group["weight_decay"],
                decoupled=self.decoupled,
                maximize=group["maximize"],
                **self.clip,
            )


class AdamW(Adam):
    """Adam with weight decay of its own, ``p = p - lr weight_decay p``, outside of the averages.

    Loshchilov and Hutter, "Decoupled weight decay regularization" (2019).
    """

    decoupled = True

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
        super().__init__(params, lr, betas, eps, weight_decay, amsgrad, maximize=maximize, capturable=capturable, max_grad_norm=max_grad_norm)
