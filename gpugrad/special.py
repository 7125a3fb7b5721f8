"""Special functions, under SciPy's names (scipy.special), for Tensors and plain arrays."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpugrad.backend import namespace
from gpugrad.ops.activations import sigmoid
from gpugrad.ops.elementwise import isnan, less, log, mutual_multiply, strong_divide, strong_multiply, where
from gpugrad.ops.erf import erf, erfc, erfinv
from gpugrad.ops.rules import elementwise
from gpugrad.ops.softmax import log_softmax, logsumexp, softmax

__all__ = ["entr", "erf", "erfc", "erfinv", "expit", "log_softmax", "logit", "logsumexp", "softmax", "xlogy"]

expit = sigmoid


def _logit(p: Any) -> Any:
    with np.errstate(all="ignore"):
        middle = 2 * np.arctanh(2 * p - 1)  # near 1/2 the difference below cancels
        return namespace(p).where(np.abs(p - 0.5) < 0.2, middle, np.log(p) - np.log1p(-p))


logit = elementwise(
    "logit",
    _logit,
    lambda d, _y, p: strong_divide(d, strong_multiply(p, 1 - p)),
    domain=(0.1, 0.9),
    doc="``log(p / (1 - p))`` of each element, the inverse of expit.",
)


def _xlogy(x: Any, y: Any) -> Any:
    with np.errstate(all="ignore"):
        return namespace(y).where((x == 0) & ~np.isnan(y), 0, x * np.log(y))


xlogy = elementwise(
    "xlogy",
    _xlogy,
    lambda d, _z, _x, y: strong_multiply(d, log(y)),
    lambda d, _z, x, y: strong_divide(mutual_multiply(x, d), y),
    domain=((-2.0, 2.0), (0.3, 3.0)),
    doc="``x log(y)`` of each element, 0 where x is 0 (unless y is nan).",
)


def entr(x: Any) -> Any:
    """``-x log(x)`` of each element: 0 at 0, -inf where x is negative."""
    return where(less(x, 0) & ~isnan(x), -np.inf, 0.0 - xlogy(x, where(less(x, 0), 1.0, x)))
