"""Newton's method, its equations solved by conjugate gradients as far as is worth it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from gpugrad import autograd, tape
from gpugrad.curvature.solve import conjugate_gradients, dot
from gpugrad.optim.line_search import strong_wolfe
from gpugrad.optim.vector import VectorOptimizer, is_finite, largest
from gpugrad.tape import Tensor


class Evaluation:
    """A loss at a point, its gradient as a vector, and the gradient on the tape, for products with the Hessian while the parameters stay there."""

    def __init__(self, returned: Tensor, gradients: list[Tensor], gradient: Any) -> None:
        self.loss = float(returned.item())
        self.gradient = gradient
        self.gradients = gradients
        self.returned = returned.detach()


class NewtonCG(VectorOptimizer):
    """Newton-CG, the truncated Newton method: ``step`` makes up to ``max_iter`` moves ``x = x + t d``, where d solves ``H d = -g`` by conjugate gradients::

        optimizer = optim.NewtonCG(model.parameters())
        optimizer.step(lambda: loss_of(model(x), y))            # no zero_grad, no backward: the loss is differentiated here, twice

    H is the Hessian itself, known by exact products with vectors. Conjugate gradients begin at 0 and stop when ``|H d + g| <= min(forcing, sqrt(|g|)) |g|``,
    so that moves are cheap far from the minimum and convergence to it is superlinear; a direction of negative curvature ends them with the d before it, or with
    -g where it is the first. So d leads downhill in any case, and t is found by a line search, beginning with ``lr``, for the strong Wolfe conditions: a step
    never ends at a larger loss than it began with. Algorithm 7.1 of Nocedal and Wright, "Numerical optimization" (2006).

    Args:
        params: Tensors of one device. There is one group only.
        lr: the first length t that the line search tries.
        max_iter: the most moves in one ``step``.
        max_cg: the most products with the Hessian in a move.
        forcing: the largest part of the gradient that may be left of Newton's equations; with 0 they are solved as far as rounding allows.
        tolerance_grad: ends at ``max |g|`` up to this.
        tolerance_change: ends when neither the loss nor any parameter changes by more.

    For losses that are twice differentiable and computed on all data at once; each call of the closure must compute the same function. A product costs
    about two gradients, and works on what the gradient has left on the tape, which takes up to three times the memory of a gradient alone; conjugate gradients add a
    few vectors as large as all parameters. ``.grad`` is not touched.
    If the closure raises, parameters and state are what they were before ``step``. Each product and each evaluation waits for the device.
    """

    differentiates = True

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1,
        max_iter: int = 20,
        max_cg: int = 250,
        forcing: float = 0.5,
        tolerance_grad: float = 1e-7,
        tolerance_change: float = 1e-9,
    ) -> None:
        options = {"lr": lr, "max_iter": max_iter, "max_cg": max_cg, "forcing": forcing}
        super().__init__(params, {**options, "tolerance_grad": tolerance_grad, "tolerance_change": tolerance_change})
        self._counts = {"n_iter": 0, "func_evals": 0, "products": 0}

    def check(self, group: dict[str, Any]) -> None:
        """A share of the gradient."""
        super().check(group)
        if not 0 <= group["forcing"] < 1:
            raise ValueError(f"invalid forcing: got {group['forcing']}, expected a number from 0 to below 1")

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Up to ``max_iter`` moves; returns the loss at the point where the step began.

        Raises:
            TypeError: there is no closure, or it does not return a loss that depends on the parameters.
            RuntimeError: the closure has called backward.
        """
        with self.all_or_nothing(closure, "returns the loss") as start:
            return self._iterate(closure, start)  # type: ignore[arg-type]

    def _iterate(self, closure: Callable[[], Any], x: Any) -> Tensor:
        group = self.param_groups[0]
        first = here = self._evaluate(closure)
        for _ in range(group["max_iter"]):
            if not is_finite(here.loss, here.gradient) or largest(here.gradient) <= group["tolerance_grad"]:
                break
            self._counts["n_iter"] += 1
            d = self._direction(here)
            old_x, old_loss = x, here.loss
            x, here = self._move(closure, x, here, d)
            if abs(here.loss - old_loss) < group["tolerance_change"] or largest(x - old_x) <= group["tolerance_change"]:
                break
        return first.returned

    def _direction(self, here: Evaluation) -> Any:
        """Of Newton's equations, as exactly as it is worth."""
        group, g = self.param_groups[0], here.gradient
        norm = math.sqrt(float(dot(g, g)))
        enough = max(min(group["forcing"], math.sqrt(norm)), float(np.finfo(g.dtype).eps)) * norm
        d = -g
        for k, step in enumerate(conjugate_gradients(lambda v: self._product(here, v), d), 1):
            if step.curvature > 0:
                d = step.x
            if not step.curvature > 0 or k == group["max_cg"] or float(dot(step.residual, step.residual)) <= enough**2:
                break
        return d

    def _product(self, here: Evaluation, v: Any) -> Any:
        """H v, which is the gradient of g'v: by one more walk over the tape that the gradient has left."""
        self._counts["products"] += 1
        pairs = [(g, part) for g, part in zip(here.gradients, self._split(v)) if g.requires_grad]
        if not pairs:  # the loss is linear
            return v * 0
        gradients, parts = zip(*pairs)
        return self._flat([h.data for h in autograd.grad(gradients, self.params, parts, retain_graph=True, materialize_grads=True) if h is not None])

    def _move(self, closure: Callable[[], Any], x: Any, here: Evaluation, d: Any) -> tuple[Any, Evaluation]:
        """The next point and what the closure gives there; those that there were where no loss is smaller."""
        at = lambda t: x + d.dtype.type(t) * d
        latest = here

        def along(t: float) -> tuple[float, Evaluation, float]:
            nonlocal latest
            latest.gradients = []  # the parameters move on, so they are good for nothing, and large
            self._go_to(at(t))
            latest = self._evaluate(closure)
            return latest.loss, latest, float(dot(latest.gradient, d))

        slope, tolerance = float(dot(here.gradient, d)), self.param_groups[0]["tolerance_change"] / largest(d)
        t, _, best = strong_wolfe(along, float(tape.plain(self.param_groups[0]["lr"])), here.loss, here, slope, tolerance=tolerance)
        if best is latest:
            return self._point(), best
        if not t:
            self._go_to(x)
            return x, here
        new = self._go_to(at(t))
        return new, self._evaluate(closure)

    def _evaluate(self, closure: Callable[[], Any]) -> Evaluation:
        self._counts["func_evals"] += 1
        with autograd.enable_grad():
            returned = closure()
            if type(returned) is not Tensor or not returned.requires_grad or returned.size != 1:
                got = f"a Tensor of shape {returned.shape}" if type(returned) is Tensor else type(returned).__name__
                raise TypeError(f"the closure must return the loss, a Tensor of one element that depends on the parameters: got {got}, write return loss")
            try:
                gradients: Any = autograd.grad(returned.reshape(()), self.params, create_graph=True, materialize_grads=True)
            except RuntimeError as error:
                if "second time" in str(error):
                    raise RuntimeError("NewtonCG differentiates the loss itself, but the graph is gone: the closure must not call backward") from error
                raise
        return Evaluation(returned, list(gradients), self._flat([g.data for g in gradients]))
