"""The error function, its complement and its inverse.

On the CPU by the rational minimax approximations of W. J. Cody, "Rational Chebyshev approximations for the error function", Mathematics of
Computation 23 (1969), 631-637, in float64, within 5 units in the last place also where erfc is tiny; on a GPU by CuPy's.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gpugrad.backend import check_numbers, namespace
from gpugrad.ops.elementwise import exp, strong_multiply
from gpugrad.ops.rules import elementwise

__all__ = [
    "erf", "erfc", "erfinv",
]  # fmt: skip

# Cody's coefficients of numerator and denominator, highest power first, in x^2, in |x| and in 1/x^2
_SMALL = (
    (1.85777706184603153e-1, 3.16112374387056560e00, 1.13864154151050156e02, 3.77485237685302021e02, 3.20937758913846947e03),
    (1.0, 2.36012909523441209e01, 2.44024637934444173e02, 1.28261652607737228e03, 2.84423683343917062e03),
)
_MIDDLE = (
    (2.15311535474403846e-8, 5.64188496988670089e-1, 8.88314979438837594e0, 6.61191906371416295e01, 2.98635138197400131e02, 8.81952221241769090e02, 1.71204761263407058e03, 2.05107837782607147e03, 1.23033935479799725e03),
    (1.0, 1.57449261107098347e01, 1.17693950891312499e02, 5.37181101862009858e02, 1.62138957456669019e03, 3.29079923573345963e03, 4.36261909014324716e03, 3.43936767414372164e03, 1.23033935480374942e03),
)  # fmt: skip
_LARGE = (
    (1.63153871373020978e-2, 3.05326634961232344e-1, 3.60344899949804439e-1, 1.25781726111229246e-1, 1.60837851487422766e-2, 6.58749161529837803e-4),
    (1.0, 2.56852019228982242e00, 1.87295284992346725e00, 5.27905102951428412e-1, 6.05183413124413191e-2, 2.33520497626869185e-3),
)


_BLOCK = 1 << 13  # elements: the forty-odd passes over them stay in the cache
_SMALL_LESS_1 = ([a - b for a, b in zip(*_SMALL, strict=True)], _SMALL[1])  # erf(x)/x - 1 is small, so its rounding errors are too


def _horner(coefficients: Sequence[float], t: Any) -> Any:
    total = coefficients[0] * t + coefficients[1]
    for c in coefficients[2:]:
        total *= t
        total += c
    return total


def _ratio(coefficients: Sequence[Sequence[float]], t: Any) -> Any:
    return _horner(coefficients[0], t) / _horner(coefficients[1], t)


def _gauss(a: Any) -> Any:
    """exp(-a^2) of a >= 0, to the last digits: a^2 is split into a part without rounding error and a small rest."""
    head = np.trunc(16 * a) / 16
    return np.exp(-head * head) * np.exp((head - a) * (head + a))


def _erfc_middle(a: Any) -> Any:
    return _gauss(a) * _ratio(_MIDDLE, a)


def _erfc_large(a: Any) -> Any:
    a = np.clip(a, 4.0, 30.0)  # where the result is 0 already
    t = 1 / (a * a)
    return _gauss(a) * (1 / math.sqrt(math.pi) - t * _ratio(_LARGE, t)) / a


def _by_cody(x: Any, small: Callable[[Any], Any], other: Callable[[Any, Any], Any]) -> Any:
    """``small(erf(x))`` up to |x| = 0.46875, beyond it ``other(x, erfc(|x|))``; in float64, rounded to x's dtype."""
    x = np.asarray(x)
    y = np.empty(x.size, x.dtype if x.dtype.kind not in "iub" else np.float64)
    flat = x.ravel()
    for start in range(0, x.size, _BLOCK):
        block = slice(start, start + _BLOCK)
        y[block] = _block_by_cody(flat[block].astype(np.float64), small, other)
    return y.reshape(x.shape)


def _block_by_cody(x: Any, small: Callable[[Any], Any], other: Callable[[Any, Any], Any]) -> Any:
    """Two ranges are computed for all elements: picking out those of each would cost more, in mispredicted branches."""
    a = np.abs(x)
    c = _erfc_middle(np.clip(a, 0.46875, 4.0))
    high = a > 4
    if high.any():
        c = np.where(high, _erfc_large(a), c)
    t = np.minimum(a, 0.46875)
    return np.where(a <= 0.46875, small(x + x * _ratio(_SMALL_LESS_1, t * t)), other(x, c))


def _on_either(name: str, on_cpu: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def f(x: Any) -> Any:
        x = x if hasattr(x, "dtype") else np.asarray(x)
        check_numbers(name, x)
        if x.dtype.kind == "c":
            raise TypeError(f"{name}: got complex numbers, expected real ones")
        return on_cpu(x) if namespace(x) is np else getattr(importlib.import_module("cupyx.scipy.special"), name)(x)

    return f


def _erf(x: Any) -> Any:
    return _by_cody(x, lambda y: y, lambda x, c: np.copysign((0.5 - c) + 0.5, x))


def _erfc(x: Any) -> Any:
    return _by_cody(x, lambda y: 1 - y, lambda x, c: np.where(x < 0, 2 - c, c))


def _erfinv(y: Any) -> Any:
    """S. Winitzki's closed form ("A handy approximation for the error function and its inverse", 2008), good to 2e-3, then two steps of Halley's method."""
    y = np.asarray(y)
    a = np.abs(y.astype(np.float64))
    with np.errstate(all="ignore"):
        t = np.log1p(-a * a)
        k = 2 / (math.pi * 0.147) + t / 2
        x = np.sqrt((t / -0.147) / (np.sqrt(k * k - t / 0.147) + k))
        for _ in range(2):
            residual = np.where(a < 0.5, _erf(x) - a, (1 - a) - _erfc(x))  # exact: 1 - a has no rounding error from 1/2 up
            u = residual * (math.sqrt(math.pi) / 2) * np.exp(x * x)
            x = x - u / (1 + x * u)
        x = np.where(a == 1, np.inf, x)
    return np.copysign(x, y).astype(y.dtype if y.dtype.kind not in "iub" else np.float64)


erf = elementwise(
    "erf",
    _on_either("erf", _erf),
    lambda d, _y, x: d * (2 / math.sqrt(math.pi) * exp(-(x * x))),
    doc="``2/sqrt(pi) * integral of exp(-t^2) from 0 to x``, of each element.",
)
erfc = elementwise(
    "erfc",
    _on_either("erfc", _erfc),
    lambda d, _y, x: d * (-2 / math.sqrt(math.pi) * exp(-(x * x))),
    doc="``1 - erf(x)`` of each element, accurate where it is tiny.",
)
erfinv = elementwise(
    "erfinv",
    _on_either("erfinv", _erfinv),
    lambda d, y, _x: strong_multiply(d, math.sqrt(math.pi) / 2 * exp(strong_multiply(y, y))),
    domain=(-0.9, 0.9),
    doc="The ``x`` for which ``erf(x)`` is the argument: in (-1, 1), with -inf and inf at its ends and nan outside.",
)
