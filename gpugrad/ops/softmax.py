"""softmax, log_softmax and logsumexp along any axes, by kernels that pass over memory once (:mod:`gpugrad.kernels.softmax`, which has the formulas).

The backward pass is an operation (``softmax_slope``, ``log_softmax_slope``, ``logsumexp_slope``), and so is the backward of that (``softmax_curvature``,
``log_softmax_curvature``), which gives both cotangents at once; its rules are plain formulas. softmax and log_softmax keep their result, logsumexp its argument.

Where an element is dominant (its softmax p above 1/2), the maps are written without its p: ``_counted`` and ``_balanced``, which are each other's
transpose, do that here, so derivatives of any order agree with the kernels' and keep their digits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from gpugrad.kernels import softmax as kernels
from gpugrad.ops import reduce
from gpugrad.ops.batch import leading, shift
from gpugrad.ops.elementwise import exp, multiply, where
from gpugrad.ops.fit import Shape, astype, broadcast_to, dtype_of, shape_of, total_of
from gpugrad.ops.rules import Sample, composed, constant, general
from gpugrad.ops.shape import as_array
from gpugrad.tape import Op, Shared, is_inexact

__all__ = ["log_softmax", "logsumexp", "softmax"]

Axes = tuple[int, ...]  # not negative, ascending
_of_many = leading(axis=shift)

# ---------------------------------------------------------------------------------- any axes as the middle one of three


def _as_lines(x: Any, axis: Axes) -> Any:
    """x as (outer, n, inner): a view where the axes are neighbours (and x lies in C order)."""
    shape = x.shape
    if axis and axis[-1] - axis[0] >= len(axis):
        others = [i for i in range(x.ndim) if i not in axis]
        n = math.prod([shape[i] for i in axis])
        return x.transpose([*others, *axis]).reshape(math.prod([shape[i] for i in others]), n, 1)
    first, last = (axis[0], axis[-1] + 1) if axis else (x.ndim, x.ndim)
    return x.reshape(math.prod(shape[:first]), math.prod(shape[first:last]), math.prod(shape[last:]))


def _as_before(y: Any, shape: Shape, axis: Axes) -> Any:
    """The inverse of _as_lines."""
    if axis and axis[-1] - axis[0] >= len(axis):
        order = [*[i for i in range(len(shape)) if i not in axis], *axis]
        return y.reshape([shape[i] for i in order]).transpose(np.argsort(order).tolist())
    return y.reshape(shape)


def _along(kernel: Any, axis: Axes, first: Any, *others: Any) -> Any:
    """The kernel's result on arrays of one shape."""
    _refuse_complex(first)
    y = kernel(_as_lines(first, axis), *[a if a is None else _as_lines(a, axis) for a in others])
    return tuple([a if a is None else _as_before(a, first.shape, axis) for a in y]) if type(y) is tuple else _as_before(y, first.shape, axis)


def _refuse_complex(x: Any) -> None:
    if x.dtype.kind == "c":
        raise TypeError("softmax and logsumexp: got complex numbers, expected real ones: there is no largest of them")


def _reals(x: Any, axis: reduce.Axis) -> tuple[Any, Axes]:
    """x in floats, and the axes; an array without axes is a line of one element."""
    x = as_array(x)
    if not is_inexact(dtype_of(x)):
        x = astype(x, np.float64)
    return x, () if not x.shape and axis in (-1, 0) else tuple(sorted(reduce.axes_of(x, axis)))


# ---------------------------------------------------------------------------------- dominant elements

_dominant = constant(
    "dominant",
    lambda y, *, axis, bound: _along(lambda lines: kernels.dominant(lines, bound), axis, y),
    batch=_of_many,
    samples=[Sample((3, 4), axis=(1,), bound=0.5), Sample((2, 3, 2), axis=(0, 2), bound=0.5)],
    doc="Where along the axes the first element above the bound is, as a mask.",
)


def _counted(g: Any, top: Any, axis: Axes) -> Any:
    """g, counted from its value at the dominant element."""
    return g - reduce.sum(where(top, g, 0.0), axis=axis, keepdims=True)


def _balanced(d: Any, top: Any, axis: Axes) -> Any:
    """d, where at a dominant element stands the negative sum of the others."""
    d = where(top, 0.0, d)
    return d - where(top, reduce.sum(d, axis=axis, keepdims=True), 0.0)


# ---------------------------------------------------------------------------------- softmax


def _turned(e: Any, g: Any, y: Any, axis: Axes) -> Any:
    """The derivative of softmax_slope(g, y) along e in y."""
    top = _dominant(y, axis=axis, bound=kernels.HALF)
    u = _counted(g, top, axis)
    d = e * (u - reduce.sum(y * u, axis=axis, keepdims=True)) - y * reduce.sum(e * u, axis=axis, keepdims=True)
    return _balanced(d, top, axis)


def _softmax_slope_vjp(needs: Sequence[bool], c: Any, _d: Any, g: Any, y: Any, *, axis: Axes) -> list[Any]:
    if needs[1]:
        of_g, of_y = softmax_curvature(c, g, y, axis=axis)
        return [of_g if needs[0] else None, of_y]
    return [softmax_slope(c, y, axis=axis), None]


def _softmax_curvature_vjp(needs: Sequence[bool], cotangents: Sequence[Any], _out: Any, c: Any, g: Any, y: Any, *, axis: Axes) -> list[Any]:
    a, b = cotangents
    of_c, of_g, of_y = [], [], []
    if a is not None:
        first, second = softmax_curvature(a, c, y, axis=axis)
        of_c.append(first)
        of_y.append(second)
    if b is not None:
        of_c.append(_turned(b, g, y, axis))
        of_g.append(_turned(b, c, y, axis))
        top = _dominant(y, axis=axis, bound=kernels.HALF)
        u, w = _counted(g, top, axis), _counted(c, top, axis)
        of_y.append(-u * reduce.sum(b * w, axis=axis, keepdims=True) - w * reduce.sum(b * u, axis=axis, keepdims=True))
    return [total_of(*of_c), total_of(*of_g), total_of(*of_y)]


def _batched_softmax_curvature(op: Op, size: int, batched: Sequence[bool], args: Sequence[Any], params: dict[str, Any]) -> Any:
    """The cotangent of g does not depend on g: where that alone is batched, it is the same for all examples."""
    of_g, of_y = _of_many(op, size, batched, args, params)
    return (of_g if batched[0] or batched[2] else Shared(softmax_slope(args[0], args[2], **params))), of_y


def _softmax_curvature_jvp(tangents: Sequence[Any], _out: Any, c: Any, g: Any, y: Any, *, axis: Axes) -> list[Any]:
    t_c, t_g, t_y = tangents
    of_g, of_y = [], []
    if t_c is not None:
        first, second = softmax_curvature(t_c, g, y, axis=axis)
        of_g.append(first)
        of_y.append(second)
    if t_g is not None:
        of_y.append(softmax_curvature(c, t_g, y, axis=axis)[1])
    if t_y is not None:
        of_g.append(_turned(t_y, c, y, axis))
        top = _dominant(y, axis=axis, bound=kernels.HALF)
        u, w = _counted(g, top, axis), _counted(c, top, axis)
        of_y.append(-w * reduce.sum(t_y * u, axis=axis, keepdims=True) - u * reduce.sum(t_y * w, axis=axis, keepdims=True))
    return [total_of(*of_g), total_of(*of_y)]


_SHARES = ((0.02, 0.4), (-0.4, 0.9))  # domains without and with dominant elements
_SHAPES: tuple[tuple[Shape, Axes], ...] = (((3, 4), (1,)), ((3, 4), (0,)), ((2, 3, 2), (0, 2)), ((2, 3, 2), (1,)), ((2, 0), (1,)))


def _samples(count: int, domains: Any) -> list[Sample]:
    """So many cotangents, and a result of one of the domains."""
    return [Sample(*[shape] * (count + 1), domain=(*[(-2.0, 2.0)] * count, domain), axis=axis) for shape, axis in _SHAPES for domain in domains]


_of_x = [*[Sample(shape, axis=axis) for shape, axis in _SHAPES], Sample((2, 2), axis=(0, 1), domain=(-9.0, 9.0)), Sample((), axis=())]


def _tangent_value(t: Any, x: Any, axis: Axes) -> Any:
    _refuse_complex(x)
    lines = _as_lines(x, axis)
    return _as_before(kernels.softmax_slope(_as_lines(t, axis), kernels.softmax(lines)), x.shape, axis)


_softmax = general(
    "softmax",
    lambda x, *, axis: _along(kernels.softmax, axis, x),
    [lambda g, y, _x, *, axis: softmax_slope(g, y, axis=axis)],
    [lambda t, y, _x, *, axis: softmax_slope(t, y, axis=axis)],
    batch=_of_many,
    samples=_of_x,
)
softmax_slope = general(
    "softmax_slope",
    lambda g, y, *, axis: _along(kernels.softmax_slope, axis, g, y),
    _softmax_slope_vjp,
    [lambda t, _d, _g, y, *, axis: softmax_slope(t, y, axis=axis), lambda t, _d, g, y, *, axis: _turned(t, g, y, axis)],
    batch=_of_many,
    samples=_samples(1, _SHARES),
    doc="``y (g - sum(y g))``: the Jacobian of softmax, which is symmetric, times g.",
)
softmax_tangent = composed(
    "softmax_tangent",
    lambda t, x, *, axis: (_tangent_value(t, x, axis),),
    lambda t, x, *, axis: (softmax_slope(t, _softmax(x, axis=axis), axis=axis),),
    samples=_samples(1, ((-2.0, 2.0), (-9.0, 9.0))),
    doc="The Jacobian of softmax at x, which is symmetric, times t.",
)
softmax_curvature = general(
    "softmax_curvature",
    lambda c, g, y, *, axis: _along(kernels.softmax_curvature, axis, c, g, y),
    _softmax_curvature_vjp,
    _softmax_curvature_jvp,
    batch=_batched_softmax_curvature,
    samples=_samples(2, _SHARES),
    doc="The cotangents of g and y, from c of ``softmax_slope(g, y)``.",
)


def softmax(x: Any, axis: reduce.Axis = -1, **options: Any) -> Any:
    """``exp(x) / sum(exp(x))`` along ``axis`` (an int, a tuple, or None for all), without overflow: the gradient of :func:`logsumexp`.

    Elements that are inf share evenly, and -inf alone gives 0. (PyTorch and JAX give nan in both cases.) A nan makes all elements nan.

    Raises:
        TypeError: x is complex.
    """
    reduce.refuse("softmax", None, options)
    x, axes = _reals(x, axis)
    return _softmax(x, axis=axes)


# ---------------------------------------------------------------------------------- log_softmax


def _log_softmax_slope_vjp(needs: Sequence[bool], c: Any, _d: Any, g: Any, y: Any, *, axis: Axes) -> list[Any]:
    if needs[1]:
        of_g, of_y = log_softmax_curvature(c, g, y, axis=axis)
        return [of_g if needs[0] else None, of_y]
    return [log_softmax_tangent(c, y, axis=axis), None]


def _log_softmax_slope_by_y(t: Any, _d: Any, g: Any, y: Any, *, axis: Axes) -> Any:
    return _balanced(-exp(y) * t * reduce.sum(g, axis=axis, keepdims=True), _dominant(y, axis=axis, bound=kernels.LOG_HALF), axis)


def _weighted(t: Any, y: Any, axis: Axes) -> Any:
    """p w, where w is t counted from its value at the dominant element."""
    return exp(y) * _counted(t, _dominant(y, axis=axis, bound=kernels.LOG_HALF), axis)


def _log_softmax_curvature_vjp(needs: Sequence[bool], cotangents: Sequence[Any], _out: Any, c: Any, g: Any, y: Any, *, axis: Axes) -> list[Any]:
    a, b = cotangents
    of_c, of_g, of_y = [], [], []
    if a is not None:
        of_c.append(log_softmax_slope(a, y, axis=axis))
        of_y.append(log_softmax_curvature(c, a, y, axis=axis)[1])
    if b is not None:
        by, sum_g = b * _weighted(c, y, axis), reduce.sum(g, axis=axis, keepdims=True)
        of_c.append(_log_softmax_slope_by_y(b, None, g, y, axis=axis))
        of_g.append(broadcast_to(-reduce.sum(by, axis=axis, keepdims=True), shape_of(g)))
        of_y.append(-by * sum_g)
    return [total_of(*of_c), total_of(*of_g), total_of(*of_y)]


def _batched_log_softmax_curvature(op: Op, size: int, batched: Sequence[bool], args: Sequence[Any], params: dict[str, Any]) -> Any:
    """As that of softmax; and of a g that alone is batched nothing is read but its sum."""
    if batched[0] or batched[2]:
        return _of_many(op, size, batched, args, params)
    (c, g, y), axis = args, params["axis"]
    return Shared(log_softmax_tangent(c, y, axis=axis)), -_weighted(c, y, axis) * reduce.sum(g, axis=shift(axis, size), keepdims=True)


def _log_softmax_curvature_jvp(tangents: Sequence[Any], out: Any, c: Any, g: Any, y: Any, *, axis: Axes) -> list[Any]:
    t_c, t_g, t_y = tangents
    of_g, of_y = [], []
    if t_c is not None:
        first, second = log_softmax_curvature(t_c, g, y, axis=axis)
        of_g.append(first)
        of_y.append(second)
    if t_g is not None:
        of_y.append(log_softmax_curvature(c, t_g, y, axis=axis)[1])
    if t_y is not None:
        of_g.append(_log_softmax_tangent_by_y(t_y, None, c, y, axis=axis))
        of_y.append(t_y * out[1])
    return [total_of(*of_g), total_of(*of_y)]


def _log_softmax_tangent_by_y(e: Any, _z: Any, t: Any, y: Any, *, axis: Axes) -> Any:
    return broadcast_to(-reduce.sum(e * _weighted(t, y, axis), axis=axis, keepdims=True), shape_of(t))


_LOGARITHMS = ((-4.0, -0.9), (-3.0, -0.1))

_log_softmax = general(
    "log_softmax",
    lambda x, *, axis: _along(kernels.log_softmax, axis, x),
    [lambda g, y, _x, *, axis: log_softmax_slope(g, y, axis=axis)],
    [lambda t, y, _x, *, axis: log_softmax_tangent(t, y, axis=axis)],
    batch=_of_many,
    samples=_of_x,
)
log_softmax_slope = general(
    "log_softmax_slope",
    lambda g, y, *, axis: _along(kernels.log_softmax_slope, axis, g, y),
    _log_softmax_slope_vjp,
    [lambda t, _d, _g, y, *, axis: log_softmax_slope(t, y, axis=axis), _log_softmax_slope_by_y],
    batch=_of_many,
    samples=_samples(1, _LOGARITHMS),
    doc="``g - exp(y) sum(g)``: the transposed Jacobian of log_softmax, of value y, times g.",
)
log_softmax_tangent = general(
    "log_softmax_tangent",
    lambda t, y, *, axis: _along(kernels.log_softmax_curvature, axis, t, None, y)[0],
    [
        lambda c, _z, _t, y, *, axis: log_softmax_slope(c, y, axis=axis),
        lambda c, _z, t, y, *, axis: log_softmax_curvature(t, c, y, axis=axis)[1],
    ],
    [
        lambda e, _z, _t, y, *, axis: log_softmax_tangent(e, y, axis=axis),
        _log_softmax_tangent_by_y,
    ],
    batch=_of_many,
    samples=_samples(1, _LOGARITHMS),
    doc="``t - sum(exp(y) t)``: the Jacobian of log_softmax, of value y, times t.",
)
log_softmax_curvature = general(
    "log_softmax_curvature",
    lambda c, g, y, *, axis: _along(kernels.log_softmax_curvature, axis, c, g, y),
    _log_softmax_curvature_vjp,
    _log_softmax_curvature_jvp,
    batch=_batched_log_softmax_curvature,
    samples=_samples(2, _LOGARITHMS),
    doc="The cotangents of g and y, from c of ``log_softmax_slope(g, y)``.",
)


def log_softmax(x: Any, axis: reduce.Axis = -1, **options: Any) -> Any:
    """``x - logsumexp(x)`` along ``axis`` (an int, a tuple, or None for all), without overflow, and with relative accuracy where it is near 0.

    It is the logarithm of :func:`softmax` at infinite elements too: -inf alone gives -inf.

    Raises:
        TypeError: x is complex.
    """
    reduce.refuse("log_softmax", None, options)
    x, axes = _reals(x, axis)
    return _log_softmax(x, axis=axes)


# ---------------------------------------------------------------------------------- logsumexp


def _scaled_softmax(g: Any, x: Any, *, axis: Axes) -> Any:
    _refuse_complex(x)
    lines = _as_lines(x, axis)
    return _as_before(kernels.softmax(lines, g.reshape(lines.shape[0], lines.shape[2])), x.shape, axis)


def _logsumexp_slope_vjp(needs: Sequence[bool], c: Any, _d: Any, g: Any, x: Any, *, axis: Axes) -> list[Any]:
    s = _softmax(x, axis=axis)
    return [reduce.sum(c * s, axis=axis, keepdims=True) if needs[0] else None, softmax_slope(c * g, s, axis=axis) if needs[1] else None]


def _logsumexp_slope_jvp(tangents: Sequence[Any], _d: Any, g: Any, x: Any, *, axis: Axes) -> Any:
    t_g, t_x = tangents
    s = _softmax(x, axis=axis)
    parts = [] if t_g is None else [t_g * s]
    return total_of(*parts, None if t_x is None else softmax_slope(t_x * g, s, axis=axis))


def _batched_logsumexp_slope(op: Op, size: int, batched: Sequence[bool], args: Sequence[Any], params: dict[str, Any]) -> Any:
    """The softmax of an x that all examples share is computed once."""
    return _of_many(op, size, batched, args, params) if batched[1] else multiply(args[0], _softmax(args[1], **params))


def _log_of_sum(x: Any, *, axis: Axes, keepdims: bool) -> Any:
    _refuse_complex(x)
    y = kernels.logsumexp(_as_lines(x, axis))
    return y.reshape([1 if i in axis else n for i, n in enumerate(x.shape)] if keepdims else reduce.reduced_shape(x.shape, axis))


logsumexp_slope = general(
    "logsumexp_slope",
    _scaled_softmax,
    _logsumexp_slope_vjp,
    _logsumexp_slope_jvp,
    batch=_batched_logsumexp_slope,
    samples=[Sample((3, 1), (3, 4), axis=(1,)), Sample((1, 3, 1), (2, 3, 2), axis=(0, 2)), Sample((2, 1, 2), (2, 3, 2), axis=(1,)), Sample((), (), axis=())],
    doc="``g softmax(x)``, of g with the axes of length 1.",
)
_logsumexp = general(
    "logsumexp",
    _log_of_sum,
    [lambda g, _y, x, *, axis, keepdims: logsumexp_slope(reduce.restored(g, axis, keepdims), x, axis=axis)],
    [lambda t, _y, x, *, axis, keepdims: reduce.sum(t * _softmax(x, axis=axis), axis, keepdims=keepdims)],
    batch=_of_many,
    samples=[Sample(s, axis=a, keepdims=k) for s, a, k in (((2, 3, 4), (1,), False), ((2, 3, 4), (0, 2), True), ((3,), (0,), False), ((), (), False))],
)


def logsumexp(x: Any, axis: reduce.Axis = None, keepdims: bool = False, **options: Any) -> Any:
    """``log(sum(exp(x)))`` without overflow, and with relative accuracy where one element outweighs the rest.

    All -inf gives -inf with derivative 0. See :func:`scipy.special.logsumexp`.

    Raises:
        TypeError: x is complex.
    """
    reduce.refuse("logsumexp", None, options)
    x, axes = _reals(x, axis)
    return _logsumexp(x, axis=axes, keepdims=keepdims)
