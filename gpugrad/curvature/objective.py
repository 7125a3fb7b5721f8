"""A loss, its gradient and its curvature as functions of one flat vector, for optimizers such as :func:`scipy.optimize.minimize`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from gpugrad import backend
from gpugrad.curvature.hessian import HessianOperator
from gpugrad.curvature.over_data import OverData
from gpugrad.curvature.vectors import Form


class Objective:
    """``fun(x)``, ``jac(x)`` and ``hessp(x, p)`` of flat NumPy vectors of float64, in which optimizers count::

        f = curvature.objective(loss, params, data)
        result = scipy.optimize.minimize(f.fun, f.x0, jac=f.jac, hessp=f.hessp, method="trust-ncg")
        params = f.to_nest(result.x)

    ``x0`` is the operator's parameters as such a vector. What the functions share at one x is computed once. The loss is computed in the parameters' own dtype
    and on their device: of float32, tolerances below 1e-6 are out of reach.
    """

    def __init__(self, operator: OverData) -> None:
        self.operator = operator
        self.x0 = self._out(operator.range.write(operator.parameters.values, Form("flat", None, False)))
        self._x, self._there = self.x0, operator
        self._found: tuple[float, Any] | None = None

    def fun(self, x: Any) -> float:
        """The loss at x."""
        there = self._at(x)
        return float(there.value()) if self._found is None else self._found[0]

    def jac(self, x: Any) -> Any:
        """Its gradient at x."""
        return self.fun_and_jac(x)[1]

    def fun_and_jac(self, x: Any) -> tuple[float, Any]:
        """Both, in one sweep: for ``minimize(f.fun_and_jac, f.x0, jac=True)``."""
        there = self._at(x)
        if self._found is None:
            value, gradient = there.value_and_gradient(flat=True)
            self._found = float(value), self._out(gradient)
        return self._found[0], self._found[1].copy()

    def hessp(self, x: Any, p: Any) -> Any:
        """The curvature matrix at x times p."""
        there = self._at(x)
        return self._out(there @ self._in(p))

    def to_nest(self, x: Any) -> Any:
        """A flat vector as a nest like the parameters, of their dtypes and on their device."""
        return self.operator.range.nest(self._in(x))

    def _at(self, x: Any) -> OverData:
        """The operator at x: the one there was, where x is the same."""
        x = np.asarray(x, np.float64)
        if not np.array_equal(x, self._x):
            self._there, self._x, self._found = self.operator.at(self._in(x)), x.copy(), None
        return self._there

    def _in(self, x: Any) -> Any:
        return backend.asarray(np.asarray(x, np.float64), device=self.operator.device)

    def _out(self, x: Any) -> Any:
        return backend.to_device(x, "cpu").astype(np.float64)


def objective(loss: Callable[..., Any], params: Any, data: Any = None, **options: Any) -> Objective:
    """The :class:`Objective` of a loss, with its exact Hessian: ``loss``, ``params``, ``data`` and options are those of :class:`HessianOperator`.

    (:meth:`OverData.objective` makes one of any curvature operator: of a :class:`GaussNewtonOperator`, with its matrix for the Hessian.)
    """
    return HessianOperator(loss, params, data, **options).objective()
