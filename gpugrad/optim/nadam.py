"""NAdam."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from operator import mul
from typing import Any, ClassVar

from gpugrad.kernels.optimizers import nadam, nadam_momentum
from gpugrad.optim.optimizer import Arrays, Optimizer, States, numbered, partition, remembered


class NAdam(Optimizer):
    """Adam that looks ahead, as Nesterov's momentum does, with a momentum that grows from step to step::

        mu(t) = beta1 (1 - 0.96^(t momentum_decay) / 2)
        g = g + weight_decay p                   (-g to maximize; p = p - lr weight_decay p where decoupled)
        m = beta1 m + (1 - beta1) g
        v = beta2 v + (1 - beta2) g^2
        n = mu(t+1) m / (1 - mu(1) ... mu(t+1)) + (1 - mu(t)) g / (1 - mu(1) ... mu(t))
        p = p - lr n / (sqrt(v / (1 - beta2^t)) + eps)

    With ``capturable`` the count t and the product of the mu lie in device memory, so that a recorded step counts on when it is played again.
    For ``max_grad_norm`` and an ``lr`` on the device see :class:`Optimizer`.

    Dozat, "Incorporating Nesterov momentum into Adam" (2016), algorithm 2 with its suggested schedule of mu; names and defaults are PyTorch's.
    """

    clips = True
    numbers: ClassVar[dict[str, type]] = {"step": int, "mu_product": float}

    def __init__(
        self,
        params: Iterable[Any],
        lr: Any = 2e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        momentum_decay: float = 4e-3,
        decoupled_weight_decay: bool = False,
        *,
        maximize: bool = False,
        capturable: bool = False,
        max_grad_norm: float | None = None,
    ) -> None:
        options = {"lr": lr, "betas": tuple(betas), "eps": eps, "weight_decay": weight_decay, "momentum_decay": momentum_decay}
        options |= {"decoupled_weight_decay": decoupled_weight_decay, "maximize": maximize, "capturable": capturable}
        super().__init__(params, options, max_grad_norm=max_grad_norm)

    def update(self, params: Arrays, grads: Arrays, states: States, group: dict[str, Any]) -> None:
        """One step of arrays of one dtype and device."""
        averages = [remembered(states, name, params) for name in ("exp_avg", "exp_avg_sq")]
        self.count(states, group["capturable"], params[0])
        steps, (beta1, beta2), decay = [s["step"] for s in states], group["betas"], group["momentum_decay"]
        options = {"beta1": beta1, "beta2": beta2, "eps": group["eps"], "momentum_decay": decay, **self.common(group)}
        for (step, *_), counted, *lists in partition(numbered(steps), steps, states, params, grads, *averages):
            mu = nadam_momentum(step, beta1, decay)
            self.advance(counted, "mu_product", 1.0, partial(mul, mu), group["capturable"], params[0])
            products = [s["mu_product"] for s in counted]
            for same, *alike in partition(numbered(products), products, *lists):
                nadam(*alike, step=step, mu_product=same[0], **options)
