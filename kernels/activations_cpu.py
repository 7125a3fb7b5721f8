"""Numba twins of :mod:`gpugrad.kernels.activations`, compiled for each activation when it is first used.

Which one it is, is a constant of the compiled function: a choice in the loop would keep it from being vectorised. Its parameters are arguments.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numba import types
from numba.extending import overload

from gpugrad import jit
from gpugrad.kernels import activations, periods_cpu
from gpugrad.kernels.elementary_cpu import exp_of_negative, expm1, gelu_inner, normal_cdf, normal_pdf, sigmoid, softplus, tanh

TANH, SIGMOID, SILU, GELU, GELU_TANH, ELU, SOFTPLUS = (activations.CODES[act] for act in activations.CURVED)
RELU, LEAKY_RELU, HARDTANH = (activations.CODES[act] for act in activations.FLAT)
SILU_FAR, GELU_FAR, GELU_TANH_FAR = (activations.FAR[act] for act in ("silu", "gelu", "gelu_tanh"))


def number(c: float, x: Any) -> Any:
    """``c`` in the precision of x: beside a constant of float64 Numba would compute in float64."""
    return type(x)(c)


@overload(number, inline="always")
def _number(c, x):  # type: ignore[no-untyped-def]
    real = np.float32 if x == types.float32 else np.float64
    return lambda c, x: real(c)


@jit.inlined
def limited(x, most):  # type: ignore[no-untyped-def]
    """x between -most and most; nan stays."""
    x = -most if x < -most else x
    return most if x > most else x


@jit.inlined
def logistic(u):  # type: ignore[no-untyped-def]
    """sigmoid(u) and its slope."""
    one = number(1.0, u)
    e = exp_of_negative(-abs(u))
    r = one / (one + e)
    er = e * r
    return r if u >= 0 else er, er * r


@jit.inlined
def bent(u):  # type: ignore[no-untyped-def]
    """The slope of sigmoid(u), and tanh(|u| / 2): the slope's own is minus their product, with the sign of u."""
    e, one = exp_of_negative(-abs(u)), number(1.0, u)
    r = one / (one + e)
    return e * r * r, -expm1(-abs(u)) * r


@jit.inlined
def inner(x):  # type: ignore[no-untyped-def]
    """sigmoid(u) and its slope, and the first two derivatives of u, in gelu_tanh. Far out, what u has lost by rounding counts."""
    u, rest, u1, u2 = gelu_inner(limited(x, number(GELU_TANH_FAR, x)))
    y, slope = logistic(u)
    return y + rest * slope, slope - (slope * rest if u > 0 else -slope * rest), u, u1, u2


@jit.inlined
def value(act, x, a, b):  # type: ignore[no-untyped-def]
    """act(x)."""
    zero = number(0.0, x)
    if act == TANH:
        return tanh(x)
    if act == SIGMOID:
        return sigmoid(x)
    if act == SILU:
        return x * sigmoid(x)
    if act == GELU:
        return x * normal_cdf(x)
    if act == GELU_TANH:
        return x * inner(x)[0]
    if act == ELU:
        return b * x if x > 0 else a * b * expm1(x)
    if act == SOFTPLUS:
        return (zero if a * x <= 0 else x) + softplus(-abs(a * x)) / a
    if act == RELU:
        return zero if x <= 0 else x
    if act == LEAKY_RELU:
        return x if x > 0 else a * x
    if act == HARDTANH:
        y = b if x >= b else x
        return a if x <= a else y
    return x


@jit.inlined
def times_slope(act, g, x, a, b):  # type: ignore[no-untyped-def]
    """g act'(x), where x is the value of tanh."""
    one, zero = number(1.0, x), number(0.0, x)
    if act == TANH:
        return g * ((one - x) * (one + x))
    if act == SIGMOID:
        return g * logistic(x)[1]
    if act == SILU:
        y, slope = logistic(x)
        return g * (y + limited(x, number(SILU_FAR, x)) * slope)
    if act == GELU:
        w = limited(x, number(GELU_FAR, x))
        return g * (normal_cdf(w) + w * normal_pdf(w))
    if act == GELU_TANH:
        y, slope, _, u1, _ = inner(x)
        return g * (y + limited(x, number(GELU_TANH_FAR, x)) * slope * u1)
    if act == ELU:
        return g * (b if x > 0 else a * b * exp_of_negative(x))
    if act == SOFTPLUS:
        return g * sigmoid(a * x)
    if act == RELU:
        return zero if x <= 0 else g
    if act == LEAKY_RELU:
        return g if x > 0 else a * g
    if act == HARDTANH:
        y = zero if x >= b else g
        return zero if x <= a else y
    return g


@jit.inlined
def curvature(act, x, a, b):  # type: ignore[no-untyped-def]
    """act''(x); the derivative of the slope by the value for tanh."""
    zero, two = number(0.0, x), number(2.0, x)
    if act == TANH:
        return -two * x
    if act == SIGMOID:
        slope, t = bent(x)
        return slope * t if x < 0 else -slope * t
    if act == SILU:
        slope, t = bent(x)
        return slope * (two - limited(abs(x), number(SILU_FAR, x)) * t)
    if act == GELU:
        w = limited(x, number(GELU_FAR, x))
        return normal_pdf(w) * (two - w * w)
    if act == GELU_TANH:
        w = limited(x, number(GELU_TANH_FAR, x))
        _, slope, u, u1, u2 = inner(x)
        return slope * (two * u1 + (w * u2 - abs(w) * (u1 * u1 * bent(u)[1])))
    if act == ELU:
        return zero if x > 0 else a * b * exp_of_negative(x)
    return a * logistic(a * x)[1]


# ---------------------------------------------------------------------------------- loops


@functools.cache
def _value_of(act: int) -> Any:
    def run(x, y, a, b, start, stop):  # type: ignore[no-untyped-def]
        x, y = x[start:stop], y[start:stop]
        a, b = x.dtype.type(a), x.dtype.type(b)
        for i in range(x.size):
            y[i] = value(act, x[i], a, b)

    return jit.compiled(run)


@functools.cache
def _slope_of(act: int) -> Any:
    def run(g, x, d, a, b, start, stop):  # type: ignore[no-untyped-def]
        g, x, d = g[start:stop], x[start:stop], d[start:stop]
        a, b = x.dtype.type(a), x.dtype.type(b)
        for i in range(x.size):
            d[i] = times_slope(act, g[i], x[i], a, b)

    return jit.compiled(run)


@functools.cache
def _bend_of(act: int) -> Any:
    def run(c, g, x, d, e, a, b, start, stop):  # type: ignore[no-untyped-def]
        c, g, x, e = c[start:stop], g[start:stop], x[start:stop], e[start:stop]
        a, b = x.dtype.type(a), x.dtype.type(b)
        if d is None:
            for i in range(x.size):
                e[i] = c[i] * g[i] * curvature(act, x[i], a, b)
        else:
            through = d[start:stop]
            for i in range(x.size):
                through[i] = times_slope(act, c[i], x[i], a, b)
                e[i] = c[i] * g[i] * curvature(act, x[i], a, b)

    return jit.compiled(run)


def _run(loop: Any, arrays: tuple[Any, ...], wanted: tuple[bool, ...], act: str, a: float, b: float) -> list[Any]:
    """The results of a loop over arrays, taken as they lie in memory; None where one is not wanted."""
    is_repeated = any(x.ndim and x.strides[0] == 0 for x in arrays)
    arrays, transposed = (arrays, False) if is_repeated else activations.as_in_memory(*arrays)
    x = arrays[-1]
    ys = [np.empty(x.shape, x.dtype) if w else None for w in wanted]
    flat = [None if y is None else periods_cpu.vector(y, x.shape) for y in (*arrays, *ys)]
    periods_cpu.over(loop(activations.CODES[act]), [*flat, float(a), float(b)], x.size, jit.LEAST if act in activations.FLAT else jit.LEAST // 4)
    return [y if y is None or not transposed else y.T for y in ys]


def activation(x: Any, *, act: str, a: float = 0.0, b: float = 0.0) -> Any:
    """See :func:`gpugrad.kernels.activations.value`."""
    return _run(_value_of, (x,), (True,), act, a, b)[0]


def activation_slope(g: Any, x: Any, *, act: str, a: float = 0.0, b: float = 0.0) -> Any:
    """See :func:`gpugrad.kernels.activations.slope`."""
    if not activations.alike(g, x):
        return activations.slope_of_unlike(activation_slope, g, x, act=act, a=a, b=b)
    return _run(_slope_of, (g, x), (True,), act, a, b)[0]


def activation_bend(c: Any, g: Any, x: Any, *, act: str, a: float = 0.0, b: float = 0.0, both: bool = True) -> tuple[Any, Any]:
    """See :func:`gpugrad.kernels.activations.bend`."""
    if not activations.alike(c, g, x):
        return activations.bend_of_unlike(activation_bend, activation_slope, c, g, x, act=act, a=a, b=b, both=both)
    through, bent = _run(_bend_of, (c, g, x), (both, True), act, a, b)
    return through, bent
