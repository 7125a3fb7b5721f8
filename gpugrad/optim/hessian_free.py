"""Hessian-free optimization: steps of damped Gauss-Newton, by conjugate gradients."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from gpugrad import tape, tree
from gpugrad.autograd import no_grad
from gpugrad.curvature.gauss_newton import GaussNewtonOperator
from gpugrad.curvature.solve import conjugate_gradients, dot
from gpugrad.nn.stateless import call_with
from gpugrad.optim.line_search import armijo
from gpugrad.optim.vector import VectorOptimizer, is_finite, largest
from gpugrad.tape import Tensor

TRUST = ((0.25, 3 / 2), (0.75, 2 / 3))  # a reduction ratio below the first raises the damping, one above the second lowers it
SPACING = 1.3  # of the iterates that are kept to go back to


class Model(NamedTuple):
    """The loss at a point, its gradient g, and products with the Gauss-Newton matrix G: together the quadratic ``loss + g'd + d'G d / 2``."""

    returned: Any
    loss: float
    gradient: Any
    product: Callable[[Any], Any]


class Candidate(NamedTuple):
    """An iterate of conjugate gradients, and the change of the loss that the damped quadratic expects of it."""

    d: Any
    change: float


class HessianFree(VectorOptimizer):
    """Hessian-free optimization: ``step`` moves by ``t d``, where d solves ``(G + damping I) d = -g`` by conjugate gradients, of which G sees only products::

        optimizer = optim.HessianFree(model.parameters())

        def closure():
            return model(x), lambda outputs: nn.functional.cross_entropy(outputs, y)

        optimizer.step(closure)                                 # no zero_grad, no backward

    G = J'H J is the Gauss-Newton matrix: J is the Jacobian of the model's outputs in the parameters, H the Hessian of the loss in the outputs. It is positive
    semidefinite where the loss is convex in the outputs, and the Fisher information where it is the negative logarithm of a likelihood of natural parameters. The
    closure returns the outputs (a Tensor, or any nest) and the loss as a function of them. What the loss penalises besides belongs to the outputs, so
    that its curvature counts: ``return (model(x), list(model.parameters())), lambda o: loss(o[0], y) + 0.01 * sum(gg.sum(p * p) for p in o[1])``.

    After J. Martens, "Deep learning via Hessian-free optimization" (2010), and Martens and I. Sutskever, "Training deep and recurrent networks with
    Hessian-free optimization" (2012):

    - The damping follows the rule of Levenberg and Marquardt: where the loss falls by less than a quarter of what the undamped quadratic expects of d it is
      multiplied by 3/2, by more than three quarters, by 2/3. The option ``damping`` is what it is at the moment, and may be changed.
    - Conjugate gradients begin at ``warm_start`` times the solution before, and stop where the last ``k = max(10, i / 10)`` of i products have brought less than
      ``k tolerance_cg`` of what the quadratic expects (2010, section 4.4).
    - Of the iterates 1, 2, 3, 4, 6, 8, ... the last one before which the loss is no smaller is taken (2010, section 4.6), and then a length t, from ``lr`` down, at which
      the loss has fallen enough. A step never ends at a larger loss, of what the closure computes, than it began with.

    Args:
        params: Tensors of one device. There is one group only.
        lr: the largest length t.
        damping: where it begins, in units of the loss's second derivatives; 0 stays 0.
        max_iter: moves in a ``step``.
        max_cg: the most products with G in a move.
        warm_start: 0 begins conjugate gradients at 0.
        tolerance_cg: see above.
        tolerance_grad: ends at ``max |g|`` up to this.
        tolerance_change: ends when neither the loss nor any parameter changes by more.
        precondition: ``precondition(v, damping)``, the inverse of a matrix like ``G + damping I``, symmetric positive definite, times a flat vector (all parameters one
            after the other). May be changed between steps, and is not part of the state.

    The closure may compute on other data in each ``step``, within which each of its calls must compute the same function. ``.grad`` is not
    touched. If the closure raises, parameters and state are what they were before ``step``. Each product and each evaluation waits for the device.
    """

    differentiates = True
    remembers = ("_solution",)

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1,
        damping: float = 1.0,
        max_iter: int = 1,
        max_cg: int = 250,
        warm_start: float = 0.95,
        tolerance_cg: float = 5e-4,
        tolerance_grad: float = 1e-7,
        tolerance_change: float = 1e-9,
        *,
        precondition: Callable[[Any, float], Any] | None = None,
    ) -> None:
        options = {"lr": lr, "damping": damping, "max_iter": max_iter, "max_cg": max_cg, "warm_start": warm_start, "tolerance_cg": tolerance_cg}
        super().__init__(params, {**options, "tolerance_grad": tolerance_grad, "tolerance_change": tolerance_change})
        self._counts = {"n_iter": 0, "func_evals": 0, "products": 0}
        self.precondition = precondition
        self._solution: Any = None  # of the move before, as far as conjugate gradients went

    def check(self, group: dict[str, Any]) -> None:
        """The damping is not negative, the warm start a share; real parameters."""
        super().check(group)
        for name, most in (("damping", math.inf), ("warm_start", 1.0)):
            if not 0 <= group[name] <= most:
                raise ValueError(f"invalid {name}: got {group[name]}, expected a number of at least 0" + (" and at most 1" if most == 1 else ""))
        for i, p in enumerate(group["params"]):
            if p.dtype.kind == "c":
                raise ValueError(f"HessianFree: parameter {i} is {p.dtype}, expected a real one: make its real and imaginary parts parameters")

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """``max_iter`` moves; returns the loss at the point where the step began.

        Raises:
            TypeError: there is no closure, or it does not return outputs that depend on the parameters and a loss of them.
        """
        with self.all_or_nothing(closure, "returns (outputs, loss), the loss as a function of the outputs") as start:
            return self._iterate(closure, start)  # type: ignore[arg-type]

    def _iterate(self, closure: Callable[[], Any], x: Any) -> Tensor:
        group = self.param_groups[0]
        first: Any = None
        for _ in range(group["max_iter"]):
            here = self._model(closure)
            first = Tensor(here.returned) if first is None else first
            if not is_finite(here.loss, here.gradient) or largest(here.gradient) <= group["tolerance_grad"]:
                break
            self._counts["n_iter"] += 1
            if not (candidates := self._solve(here)):
                group["damping"] *= TRUST[0][1]  # G is not positive semidefinite, for the loss is not convex in the outputs
                break
            d, loss = self._go_back(closure, x, here, candidates)
            old_x, (x, loss) = x, self._move(closure, x, here, d, loss)
            if abs(loss - here.loss) < group["tolerance_change"] or largest(x - old_x) <= group["tolerance_change"]:
                break
        return first

    # ------------------------------------------------------------------ the quadratic

    def _model(self, closure: Callable[[], Any]) -> Model:
        found: dict[str, Any] = {}

        def outputs_of(arrays: Any) -> Any:
            outputs, found["loss"] = call_with(self.params, arrays, lambda: self._called(closure))
            return outputs

        loss_of = lambda outputs: found["loss"](tree.map_leaves(tape.box, outputs))  # Tensors, whether tracked or not
        matrix = GaussNewtonOperator(outputs_of, loss_of, [p.data for p in self.params], check_finite=False, check_deterministic=False)
        loss, g = matrix.value_and_gradient(keep=True)
        self._counts["func_evals"] += 1

        def product(v: Any) -> Any:
            self._counts["products"] += 1
            return self._flat(matrix @ self._split(v))

        return Model(loss, float(loss), self._flat(g), product)

    def _called(self, closure: Callable[[], Any]) -> tuple[Any, Callable[[Any], Any]]:
        returned = closure()
        if not isinstance(returned, tuple) or len(returned) != 2 or not callable(returned[1]):
            got = f"a tuple of {len(returned)}" if isinstance(returned, tuple) else f"a {type(returned).__name__}"
            raise TypeError(
                f"the closure must return (outputs, loss), where loss is a function of the outputs: got {got}, write "
                "return model(x), lambda outputs: loss(outputs, y)"
            )
        return returned

    def _loss_at(self, closure: Callable[[], Any], x: Any) -> float:
        """The loss with the parameters at x, where they stay; inf for what is no number."""
        self._go_to(x)
        self._counts["func_evals"] += 1
        with no_grad():
            outputs, loss = self._called(closure)
            value = float(tape.plain(loss(outputs)))
        return value if math.isfinite(value) else math.inf

    # ------------------------------------------------------------------ a move

    def _solve(self, here: Model) -> list[Candidate]:
        """Iterates of conjugate gradients that are expected to lower the loss, ever farther apart; the last is the solution, as far as it pays to go."""
        for start in [self._solution, None] if self._solution is not None else [None]:
            kept, last, following = [], None, 1
            for i, last in enumerate(self._conjugate_gradients(here, start), 1):
                if i == following:
                    kept.append(last)
                    following = math.ceil(following * SPACING)
            if last is not None and kept[-1] is not last:
                kept.append(last)
            if kept := [c for c in kept if c.change < 0]:
                self._solution = kept[-1].d
                return kept
        self._solution = None
        return []

    def _conjugate_gradients(self, here: Model, start: Any) -> Iterator[Candidate]:
        group, b, changes = self.param_groups[0], -here.gradient, []
        scalar = b.dtype.type
        product = lambda v: here.product(v) + scalar(group["damping"]) * v
        start = None if start is None else scalar(group["warm_start"]) * start
        precondition = None if self.precondition is None else lambda r: self.precondition(r, group["damping"])  # type: ignore[misc]
        for i, step in enumerate(conjugate_gradients(product, b, start, precondition), 1):
            if not step.curvature > 0:  # rounding is all that is left
                return
            changes.append(-0.5 * float(dot(step.x, b) + dot(step.x, step.residual)))
            yield Candidate(step.x, changes[-1])
            k = max(10, i // 10)
            if i == group["max_cg"] or (i > k and changes[-1] >= changes[-1 - k] + k * group["tolerance_cg"] * changes[-1]):
                return

    def _go_back(self, closure: Callable[[], Any], x: Any, here: Model, candidates: list[Candidate]) -> tuple[Any, float]:
        """The last candidate before which the loss is no smaller, and the loss there; the damping changes by what the solution itself is worth."""
        solution = candidates[-1]
        losses = [self._loss_at(closure, x + solution.d)]
        self._adapt(losses[0] - here.loss, solution)
        for candidate in reversed(candidates[:-1]):
            loss = self._loss_at(closure, x + candidate.d)
            if losses[-1] <= loss and losses[-1] < math.inf:
                break
            losses.append(loss)
        return candidates[-len(losses)].d, losses[-1]

    def _adapt(self, change: float, solution: Candidate) -> None:
        """The rule of Levenberg and Marquardt. The reduction ratio compares with the quadratic without damping, whose change is smaller than the other's by that of the damping."""
        group = self.param_groups[0]
        ratio = change / (solution.change - 0.5 * float(group["damping"]) * float(dot(solution.d, solution.d)))
        (low, up), (high, down) = TRUST
        group["damping"] *= down if ratio > high else 1 if ratio >= low else up

    def _move(self, closure: Callable[[], Any], x: Any, here: Model, d: Any, loss: float) -> tuple[Any, float]:
        """Along d, as far as the loss falls enough: the point, and the loss there; the same x where it falls nowhere."""
        at = lambda t: x + d.dtype.type(t) * d
        along = lambda t: loss if t == 1 else self._loss_at(closure, at(t))
        t, loss = armijo(along, float(tape.plain(self.param_groups[0]["lr"])), here.loss, float(dot(here.gradient, d)))
        new = self._go_to(at(t) if t else x)
        return new if t else x, loss

    # ------------------------------------------------------------------ saving and loading

    def _vectors(self) -> dict[str, Any]:
        return {} if self._solution is None else {"solution": self._solution}

    def _recall(self, vectors: dict[str, Any]) -> None:
        self._solution = vectors.get("solution")
