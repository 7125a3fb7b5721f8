"""L-BFGS: Newton's direction from the last few steps, for smooth losses that are computed on all data at once."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np

from gpugrad import backend, tape
from gpugrad.autograd import enable_grad
from gpugrad.curvature.solve import dot
from gpugrad.optim.line_search import strong_wolfe
from gpugrad.optim.vector import VectorOptimizer, is_finite, largest


class Move(NamedTuple):
    """A move s, the change y of the gradient along it, and their products."""

    s: Any
    y: Any
    sy: float
    yy: float

    @staticmethod
    def of(s: Any, y: Any) -> Move:
        return Move(s, y, float(dot(s, y)), float(dot(y, y)))


class LBFGS(VectorOptimizer):
    """Limited-memory BFGS: ``step`` makes up to ``max_iter`` moves ``x = x + t d``, and calls the closure for the loss and the gradients at each point it tries::

        def closure():
            optimizer.zero_grad()
            loss = loss_of(model(x), y)
            loss.backward()
            return loss

        optimizer.step(closure)

    d = -H g, where H is the BFGS approximation of the inverse Hessian from the last ``history_size`` moves, beginning with ``(s'y / y'y) I`` (algorithm 7.4 of
    Nocedal and Wright, "Numerical optimization", 2006; names, defaults and what ends a step are PyTorch's).

    Args:
        params: Tensors of one device. There is one group only.
        lr: the length t of a move in units of d; with a line search, the first one that it tries. The very first move is of length ``min(1, 1 / |g|_1) lr``.
        max_iter, max_eval: the most moves and evaluations in one ``step``; max_eval is 5/4 max_iter, at least 2, unless it is given.
        tolerance_grad: ends at ``max |g|`` up to this.
        tolerance_change: ends when neither the loss nor any parameter changes by more.
        history_size: for how many moves (s, y) are kept, each as large as all parameters.
        line_search_fn: None, or "strong_wolfe", which finds a t that fulfils the strong Wolfe conditions (:func:`gpugrad.optim.line_search.strong_wolfe`).

    With the line search a step never ends at a larger loss than it began with. Without one, a move to a point where the loss is inf or nan is taken back. Moves
    along which the gradient does not grow (s'y of about 0 or less) are not kept. If the closure raises, parameters and state are what they were before ``step``.
    Inner products are of float64. What length to go is decided on the host, so each evaluation waits for the device.
    """

    remembers = ("_moves", "_pending")

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1,
        max_iter: int = 20,
        max_eval: int | None = None,
        tolerance_grad: float = 1e-7,
        tolerance_change: float = 1e-9,
        history_size: int = 100,
        line_search_fn: str | None = None,
    ) -> None:
        options = {"lr": lr, "max_iter": max_iter, "max_eval": max(max_iter * 5 // 4, 2) if max_eval is None else max_eval, "tolerance_grad": tolerance_grad}
        super().__init__(params, {**options, "tolerance_change": tolerance_change, "history_size": history_size, "line_search_fn": line_search_fn})
        self._moves: list[Move] = []  # the oldest first
        self._pending: tuple[Any, Any] | None = None  # the last move and the gradient before it, where that behind it is not known yet
        self._counts = {"n_iter": 0, "func_evals": 0}

    def check(self, group: dict[str, Any]) -> None:
        """There is such a line search."""
        super().check(group)
        if group["line_search_fn"] not in (None, "strong_wolfe"):
            raise ValueError(f"only 'strong_wolfe' is supported for line_search_fn, or None: got {group['line_search_fn']!r}")

    # ------------------------------------------------------------------ a step

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Up to ``max_iter`` moves; returns what the closure returned first, at the point where the step began.

        Raises:
            TypeError: there is no closure.
        """
        with self.all_or_nothing(closure, "computes the gradients and returns the loss") as start:
            return self._iterate(closure, start)  # type: ignore[arg-type]

    def _iterate(self, closure: Callable[[], Any], x: Any) -> Any:
        group, most = self.param_groups[0], self._counts["func_evals"] + self.param_groups[0]["max_eval"]
        first, loss, g = self._evaluate(closure)
        if not is_finite(loss, g) or largest(g) <= group["tolerance_grad"]:
            return first
        if self._pending is not None:
            self._remember(self._pending[0], g - self._pending[1])
            self._pending = None
        for left in reversed(range(group["max_iter"])):
            evaluations = most - self._counts["func_evals"]
            if evaluations <= 0 and (left or group["line_search_fn"] is not None):  # a last move of fixed length needs none
                break
            self._counts["n_iter"] += 1
            d, slope = self._direction(g)
            if not slope <= -group["tolerance_change"]:
                break
            old_x, old_loss, old_g = x, loss, g
            x, loss, g = self._move(closure, x, loss, g, d, slope, evaluations, is_last=left == 0)
            if x is old_x and self._moves:  # what is remembered leads nowhere: begin anew
                self._moves.clear()
                continue
            if g is None:
                self._pending = (x - old_x, old_g)
                break
            self._remember(x - old_x, g - old_g)
            if largest(g) <= group["tolerance_grad"] or abs(loss - old_loss) < group["tolerance_change"] or largest(x - old_x) <= group["tolerance_change"]:
                break
        return first

    def _direction(self, g: Any) -> tuple[Any, float]:
        """d and the slope along it, which is negative: ``-H g``, or ``-g`` where what is remembered is so much of another function that -H g leads upward."""
        d = -inverse_hessian_times(g, self._moves)
        slope = float(dot(g, d))
        if slope < 0 or not self._moves:
            return d, slope
        self._moves.clear()
        return self._direction(g)

    def _move(self, closure: Callable[[], Any], x: Any, loss: float, g: Any, d: Any, slope: float, evaluations: int, is_last: bool) -> tuple[Any, float, Any]:
        """The next point, and there the loss and the gradient; the same x where there is no better point. A last move of fixed length is not evaluated: g is None."""
        group = self.param_groups[0]
        at = lambda t: x + d.dtype.type(t) * d if t else x

        def along(t: float) -> tuple[float, Any, float]:
            self._go_to(at(t))
            _, loss, g = self._evaluate(closure)
            return loss, g, float(dot(g, d))

        t = float(tape.plain(group["lr"])) * (1.0 if self._moves else min(1.0, 1.0 / float(np.abs(g).sum(dtype=np.float64))))
        if group["line_search_fn"] is not None:
            t, loss, g = strong_wolfe(along, t, loss, g, slope, tolerance=group["tolerance_change"] / largest(d), max_evaluations=min(evaluations, 25))
        elif not is_last:
            new_loss, new_g, _ = along(t)
            t, loss, g = (t, new_loss, new_g) if is_finite(new_loss, new_g) else (0.0, loss, g)
        else:
            g = None
        new = self._go_to(at(t))
        return new if t else x, loss, g

    def _evaluate(self, closure: Callable[[], Any]) -> tuple[Any, float, Any]:
        """What the closure returned, as a number as well, and the gradient as one vector."""
        with enable_grad():
            returned = closure()
        self._counts["func_evals"] += 1
        loss = tape.plain(returned)
        gradient = self._flat([None if p.grad is None else p.grad.data for p in self.params])
        return returned, float(loss.item() if backend.is_array(loss) else loss), gradient

    def _remember(self, s: Any, y: Any) -> None:
        """Keep a move, unless the angle between s and y says that the function is not convex along it."""
        move = Move.of(s, y)
        if move.sy > np.finfo(s.dtype).eps * math.sqrt(float(dot(s, s)) * move.yy):
            self._moves = [*self._moves, move][-self.param_groups[0]["history_size"] :]

    # ------------------------------------------------------------------ saving and loading

    def _vectors(self) -> dict[str, Any]:
        """Moves and changes of gradients as rows of matrices."""
        xp = backend.namespace(self.params[0].data)
        vectors = {"steps": xp.stack([m.s for m in self._moves]), "changes": xp.stack([m.y for m in self._moves])} if self._moves else {}
        return vectors if self._pending is None else {**vectors, **dict(zip(("pending_step", "pending_grad"), self._pending))}

    def _recall(self, vectors: dict[str, Any]) -> None:
        self._moves = [Move.of(s.copy(), y.copy()) for s, y in zip(vectors.get("steps", ()), vectors.get("changes", ()))]
        self._pending = (vectors["pending_step"], vectors["pending_grad"]) if "pending_step" in vectors else None


def inverse_hessian_times(g: Any, moves: list[Move]) -> Any:
    """``H g``, where H is the BFGS matrix of the moves, oldest first, that begins as ``(s'y / y'y) I`` with the last of them; g itself without moves.

    Nothing waits for the device. Nocedal and Wright, algorithm 7.4.
    """
    q = g.copy()
    weights = []
    for s, y, sy, _ in reversed(moves):
        weights.append(dot(s, q) / sy)
        q -= weights[-1] * y
    if moves:
        q *= moves[-1].sy / moves[-1].yy
    for (s, y, sy, _), weight in zip(moves, reversed(weights)):
        q += (weight - dot(y, q) / sy) * s
    return q
