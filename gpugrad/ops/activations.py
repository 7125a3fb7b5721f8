"""Activation functions.

Kinks: relu'(0) = 0; leaky_relu, relu6 and hardtanh have on a kink the slope of the flatter side, elu that of its negative side. nan comes out as nan.

Tails: nothing here is written as ``1 - sigmoid(x)``, so values and derivatives keep their relative accuracy where they are tiny.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from gpugrad.ops import reduce
from gpugrad.ops.elementwise import exp, expm1, greater, greater_equal, less_equal, multiply, tanh, where
from gpugrad.ops.erf import erfc
from gpugrad.ops.fit import in_float32, zeros_like
from gpugrad.ops.rules import Sample, elementwise, general

__all__ = [
    "elu", "gelu", "hardtanh", "leaky_relu", "log_sigmoid", "log_softmax", "logsigmoid", "relu", "relu6", "selu", "sigmoid", "silu", "softmax",
    "softplus",
]  # fmt: skip

Axis = int | tuple[int, ...] | None


def reusable(x: Any) -> Any:
    """``x``, to be passed as ``out=``, or None where it is a scalar."""
    return x if x.ndim else None


# ---------------------------------------------------------------------------------- relu and its kin


def _where_positive(d: Any, y: Any) -> Any:
    """Where a mask is as good as random, ``np.where`` waits for mispredicted branches: and-ing the bits takes a tenth of its time."""
    if type(d) is not np.ndarray or type(y) is not np.ndarray or d.dtype.char not in "fd" or not (d.ndim and y.ndim):
        return np.where(np.less_equal(y, 0), 0, d)
    mask = np.less_equal(y, 0).view(np.int8)
    mask -= 1  # all ones where y > 0 or y is nan
    return (d.view(f"i{d.itemsize}") & mask).view(d.dtype)


where_positive = elementwise(
    "where_positive",
    _where_positive,
    lambda c, _out, _d, y: where_positive(c, y),
    lambda c, _out, _d, _y: zeros_like(c),
    samples=[Sample((3, 4), (3, 4), domain=(0.1, 2.0)), Sample((3, 4), (4,), domain=((-2.0, 2.0), (-2.0, -0.1))), Sample((), (), domain=(0.1, 2.0))],
    doc="``d`` where ``y`` is positive (or nan), else 0: what the derivative of relu does to a cotangent or tangent.",
)
relu = elementwise(
    "relu",
    lambda x: np.maximum(x, 0),
    lambda d, y, _x: where_positive(d, y),
    samples=[Sample((3, 4), domain=(0.1, 2.0)), Sample((3, 4), domain=(-2.0, -0.1)), Sample(())],
    doc="``max(x, 0)`` of each element; the derivative at 0 is 0.",
)


def leaky_relu(x: Any, negative_slope: float = 0.01) -> Any:
    """``x`` where positive, else ``negative_slope * x``."""
    return where(greater(x, 0), x, multiply(x, negative_slope))


def elu(x: Any, alpha: float = 1.0) -> Any:
    """``x`` where positive, else ``alpha * (exp(x) - 1)``. Clevert et al., "Fast and accurate deep network learning by exponential linear units" (2016)."""
    up = greater(x, 0)
    return where(up, x, alpha * expm1(where(up, 0.0, x)))  # the inner choice keeps exp from overflowing where it is not wanted


def selu(x: Any) -> Any:
    """``1.0507 elu(x, 1.6733)``. Klambauer et al., "Self-normalizing neural networks" (2017), equation 2."""
    return 1.0507009873554804934 * elu(x, 1.6732632423543772848)


def hardtanh(x: Any, min_val: float = -1.0, max_val: float = 1.0) -> Any:
    """``x`` limited to [min_val, max_val]; on the bounds the derivative is 0 (that of :func:`clip` is 1)."""
    return where(less_equal(x, min_val), min_val, where(greater_equal(x, max_val), max_val, x))


def relu6(x: Any) -> Any:
    """``min(max(x, 0), 6)``; the derivative at 0 and at 6 is 0."""
    return hardtanh(x, 0.0, 6.0)


# ---------------------------------------------------------------------------------- the logistic function and its kin


@in_float32
def _sigmoid(x: Any) -> Any:
    y = np.multiply(x, -1.0)
    out = reusable(y)
    with np.errstate(over="ignore"):  # 1 / (1 + inf) is the 0 that is wanted
        y = np.exp(y, out=out)
    return np.divide(1.0, np.add(y, 1.0, out=out), out=out)


@in_float32
def _sigmoid_slope(x: Any) -> Any:
    y = np.copysign(x, -1.0)
    out = reusable(y)
    y = np.exp(y, out=out)
    return np.divide(y, np.square(y + 1.0), out=out)


@in_float32
def _softplus(x: Any) -> Any:
    y = np.copysign(x, -1.0)
    out = reusable(y)
    y = np.log1p(np.exp(y, out=out), out=out)
    return np.add(y, np.maximum(x, 0.0), out=out)


sigmoid = elementwise("sigmoid", _sigmoid, lambda d, _y, x: d * sigmoid_slope(x), doc="``1 / (1 + exp(-x))`` of each element.")
sigmoid_slope = elementwise(
    "sigmoid_slope",
    _sigmoid_slope,
    lambda d, y, x: -(d * y) * tanh(0.5 * x),
    doc="``sigmoid(x) sigmoid(-x) = e / (1 + e)^2`` with ``e = exp(-|x|)``: the derivative of sigmoid, exact in both tails. Its own is ``-y tanh(x/2)``.",
)
_softplus_op = elementwise("softplus", _softplus, lambda d, _y, x: d * sigmoid(x))
log_sigmoid = logsigmoid = elementwise(
    "log_sigmoid",
    lambda x: np.negative(_softplus(np.negative(x))),
    lambda d, _y, x: d * sigmoid(-x),
    doc="``log(sigmoid(x)) = -softplus(-x)`` of each element.",
)


def softplus(x: Any, beta: float = 1.0) -> Any:
    """``log(1 + exp(beta x)) / beta`` of each element, by ``max(x, 0) + log1p(exp(-|x|))``."""
    return _softplus_op(x) if type(beta) in (int, float) and beta == 1 else _softplus_op(multiply(x, beta)) / beta


def silu(x: Any) -> Any:
    """``x sigmoid(x)``, also known as swish. Elfwing et al., "Sigmoid-weighted linear units" (2018)."""
    return multiply(x, sigmoid(x))


def gelu(x: Any, approximate: str = "none") -> Any:
    """``x Phi(x)`` with the normal distribution function Phi. Hendrycks and Gimpel, "Gaussian error linear units" (2016).

    ``approximate="tanh"`` takes ``Phi(x) = (1 + tanh(z)) / 2``, ``z = sqrt(2/pi) (x + 0.044715 x^3)``, which is ``sigmoid(2 z)``.
    """
    if approximate == "none":
        return multiply(x, 0.5 * erfc(multiply(x, -math.sqrt(0.5))))
    if approximate == "tanh":
        return multiply(x, sigmoid(multiply(x, math.sqrt(8 / math.pi)) * (1 + multiply(x, x) * 0.044715)))
    raise ValueError(f"gelu: approximate must be 'none' or 'tanh', got {approximate!r}")


# ---------------------------------------------------------------------------------- softmax


def _shifted(x: Any, axis: Axis) -> Any:
    """x - max(x), in an array of our own."""
    x = np.asarray(x) if not hasattr(x, "shape") else x
    if not x.size or x.dtype.kind in "iub":
        x = x * 1.0
    with np.errstate(invalid="ignore"):  # inf - inf: nan is the answer
        return x - x.max(axis=axis, keepdims=True) if x.size else x


@in_float32
def _softmax(x: Any, *, axis: Axis) -> Any:
    y = _shifted(x, axis)
    out = reusable(y)
    y = np.exp(y, out=out)
    return np.divide(y, y.sum(axis=axis, keepdims=True), out=out)


@in_float32
def _log_softmax(x: Any, *, axis: Axis) -> Any:
    y = _shifted(x, axis)
    with np.errstate(divide="ignore"):  # of nothing at all
        return np.subtract(y, np.log(np.exp(y).sum(axis=axis, keepdims=True)), out=reusable(y))


_softmax_op = general(
    "softmax",
    _softmax,
    [lambda g, y, _x, *, axis: y * (g - reduce.sum(y * g, axis=axis, keepdims=True))],
    [lambda t, y, _x, *, axis: y * (t - reduce.sum(y * t, axis=axis, keepdims=True))],
    samples=[Sample((3, 4), axis=-1), Sample((3, 4), axis=0), Sample((2, 3, 2), axis=(0, 2)), Sample((2, 2), axis=None)],
)
_log_softmax_op = general(
    "log_softmax",
    _log_softmax,
    [lambda g, y, _x, *, axis: g - exp(y) * reduce.sum(g, axis=axis, keepdims=True)],
    [lambda t, y, _x, *, axis: t - reduce.sum(exp(y) * t, axis=axis, keepdims=True)],
    samples=[Sample((3, 4), axis=-1), Sample((3, 4), axis=0), Sample((2, 3, 2), axis=(0, 2)), Sample((2, 2), axis=None)],
)


def softmax(x: Any, axis: Axis = -1) -> Any:
    """``exp(x) / sum(exp(x))`` along ``axis`` (an int, a tuple, or None for all), without overflow."""
    return _softmax_op(x, axis=axis)


def log_softmax(x: Any, axis: Axis = -1) -> Any:
    """``x - logsumexp(x)`` along ``axis`` (an int, a tuple, or None for all), without overflow."""
    return _log_softmax_op(x, axis=axis)
