"""The inverse of an operator, by iterations."""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from gpugrad.curvature.minres import minimal_residuals
from gpugrad.curvature.operator import Operator
from gpugrad.curvature.solve import conjugate_gradients, dot
from gpugrad.curvature.vectors import Form

METHODS = ("cg", "minres")
FLAT = Form("flat", None, False)


class Solved(NamedTuple):
    """How a system was solved: the number of products (but for those that b - A x takes), the norm of b - A x, and whether it is small enough."""

    iterations: int
    residual: float
    converged: bool


class Inverse(Operator):
    """``A^-1``: ``A.inverse() @ b`` solves ``A x = b``, for one or more b, one after the other.

    Args:
        A: a symmetric operator.
        method: "cg" (conjugate gradients, for a positive definite A) or "minres" (for any symmetric one).
        tol: a solution has ``|b - A x| <= tol |b|`` (of MINRES with a preconditioner, in its norm). The iterations carry the residual along, from which that of
            their x departs by rounding; so it is computed in the end, and they go on from there while that is worth it.
        maxiter: products for a solution, at most; 10 N by default.
        preconditioner: an approximation of the inverse, symmetric positive definite: an operator, or a function of flat vectors.

    ``info`` is a :class:`Solved` for each b of the last product. What has not converged is warned of.

    Raises:
        ValueError: an unknown method, an operator that is not square, or a tolerance or maximum that makes no sense.
        numpy.linalg.LinAlgError: conjugate gradients met a direction without positive curvature.
    """

    def __init__(self, A: Operator, method: str = "cg", *, tol: float = 1e-6, maxiter: int | None = None, preconditioner: Any = None) -> None:
        super().__init__(A._square("inverse()"))
        if method not in METHODS:
            raise ValueError(f"method must be 'cg' (positive definite) or 'minres' (symmetric), got {method!r}")
        if not 0 <= tol < 1:
            raise ValueError(f"tol must be a number from 0 to 1, relative to the norm of the right-hand side, got {tol!r}")
        if maxiter is not None and maxiter < 1:
            raise ValueError(f"maxiter must be at least 1, got {maxiter}")
        if preconditioner is not None and not callable(preconditioner) and not isinstance(preconditioner, Operator):
            raise TypeError(f"preconditioner is {type(preconditioner).__name__}, expected an operator or a function of flat vectors")
        self.of, self.method, self.tol, self.maxiter = A, method, tol, 10 * A.shape[0] if maxiter is None else maxiter
        self.precondition: Callable[[Any], Any] | None = preconditioner.__matmul__ if isinstance(preconditioner, Operator) else preconditioner
        self.info: list[Solved] = []

    def _write(self, vs: list[Any], form: Form) -> Any:
        self.info = []
        return super()._write(vs, form)

    def _product(self, vs: list[Any]) -> list[Any]:
        b = self.range.write(vs, FLAT)
        if not np.isfinite(b).all():
            raise FloatingPointError("the right-hand side has nan or inf in it")
        unit = b.dtype.type(2.0 ** math.frexp(float(np.abs(b).max()) if b.size else 0.0)[1])  # so that no square overflows or vanishes, and no bit of b is lost
        x, solved = self._solve(b / unit)
        x, solved = x * unit, solved._replace(residual=solved.residual * float(unit))
        self.info.append(solved)
        if not solved.converged:
            norm = float(dot(b, b)) ** 0.5
            warnings.warn(
                f"{self.method} has not converged in {solved.iterations} products: |b - A x| is {solved.residual / norm:.2g} |b|, tol is {self.tol:.2g}. "
                "Raise maxiter or tol, add damping, or give a preconditioner",
                RuntimeWarning,
                stacklevel=_outside(),
            )
        return self.range.read(x)[0]

    def _solve(self, b: Any) -> tuple[Any, Solved]:
        """x, made better by solving for what is missing as long as each time halves the residual."""
        x, residual, products = b * 0, b, 0
        norm = self._norm(b)
        enough = self.tol * norm
        while norm > enough and products < self.maxiter:
            d, more = (self._by_cg if self.method == "cg" else self._by_minres)(residual, enough, self.maxiter - products)
            left = b - self.of @ (x + d)
            before, norm, truncated, products = norm, self._norm(left), self.method == "cg" and not products, products + more
            if not (
                norm < before or truncated
            ):  # rounding is all that is left; but conjugate gradients that are cut short may have made x better and the residual larger
                return x, Solved(products, before, False)
            x, residual = x + d, left
            if not norm < before / 2:
                break
        return x, Solved(products, norm, norm <= enough)

    def _norm(self, r: Any) -> float:
        """That which the method makes small."""
        scaled = r if self.method == "cg" or self.precondition is None else self.precondition(r)
        return max(float(dot(r, scaled)), 0.0) ** 0.5

    def _by_cg(self, b: Any, enough: float, most: int) -> tuple[Any, int]:
        x, k = b * 0, 0
        for k, step in enumerate(conjugate_gradients(self.of.__matmul__, b, precondition=self.precondition), 1):
            x = step.x
            if float(dot(step.residual, step.residual)) ** 0.5 <= enough or k == most:
                break
            if not step.curvature > 0:
                square = float(dot(step.direction, step.direction))
                raise np.linalg.LinAlgError(
                    f"conjugate gradients met a direction p with p'A p / p'p = {step.curvature / square if square else 0:.3g} after {k} products: the matrix is not positive "
                    "definite. Add damping (A.damped(c)), take a Gauss-Newton operator, or use method='minres'"
                )
        return x, k

    def _by_minres(self, b: Any, enough: float, most: int) -> tuple[Any, int]:
        x, k = b * 0, 0
        for k, step in enumerate(minimal_residuals(self.of.__matmul__, b, self.precondition), 1):
            x = step.x
            if step.residual_norm <= enough or k == most:
                break
        return x, k

    def __repr__(self) -> str:
        return f"Inverse by {self.method} of {self.of!r}"


def _outside() -> int:
    """How many calls up the first line lies that is not the library's."""
    frame, level = sys._getframe(1), 1
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == "gpugrad":
        frame, level = frame.f_back, level + 1
    return level
