"""Reductions and scans along axes: sums, products, extrema, moments, and the counts that have no derivative.

Every reduction takes ``axis`` (None for all, an integer or a tuple) and ``keepdims``. 16-bit floats accumulate in float32.
The operations themselves see axes as a tuple of non-negative integers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.lib.array_utils import normalize_axis_index, normalize_axis_tuple

from gpugrad.backend import namespace
from gpugrad.kernels import reductions as kernels
from gpugrad.kernels.arg_extremum import arg_extremum
from gpugrad.ops.batch import Args, grow, leading, repeated, shift
from gpugrad.ops.elementwise import conj, divide, equal, isnan, logical_not, multiply, not_equal, real, strong_multiply, where
from gpugrad.ops.fit import Shape, astype, broadcast_to, dtype_of, is_half, ones_like, shape_of, zeros_like
from gpugrad.ops.rules import Sample, constant, general, linear
from gpugrad.ops.selection import sort
from gpugrad.ops.shape import as_array, concatenate, expand_dims, flip, moveaxis, ravel, reshape, transpose
from gpugrad.tape import Op, is_inexact

__all__ = [
    "all", "amax", "amin", "any", "argmax", "argmin", "average", "count_nonzero", "cumprod", "cumsum", "max", "mean", "median", "min", "nanmean",
    "nansum", "prod", "ptp", "std", "sum", "var",
]  # fmt: skip

Axis: TypeAlias = "int | tuple[int, ...] | None"


def axes_of(x: Any, axis: Axis) -> tuple[int, ...]:
    """The axes as a tuple of non-negative integers."""
    ndim = len(x.shape)
    if axis is None:
        return tuple(range(ndim))
    try:
        return normalize_axis_tuple(axis, ndim)
    except TypeError:
        raise TypeError(f"axis must be an integer, a tuple of integers or None, got {axis!r:.60}") from None


def _one(axis: Any) -> Any:
    """An axis, for what takes one, or None."""
    if axis is None or hasattr(axis, "__index__"):
        return axis
    raise TypeError(f"axis must be an integer or None, got {axis!r:.60}")


def _count(shape: Shape, axis: tuple[int, ...]) -> int:
    return math.prod([shape[i] for i in axis])


def restored(y: Any, axis: tuple[int, ...], keepdims: bool) -> Any:
    """A reduction's result (or cotangent) with the reduced axes back, of length 1."""
    return y if keepdims else expand_dims(y, axis)


def reduced_shape(shape: Shape, axis: tuple[int, ...]) -> Shape:
    """A shape without the reduced axes."""
    return tuple([n for i, n in enumerate(shape) if i not in axis])


def _accumulated(name: str) -> Any:
    """``x.name(...)``, accumulated in float32 and cast back where x is of 16 bits."""

    def f(x: Any, *, axis: Any, **params: Any) -> Any:
        reduced = getattr(x, name)
        return reduced(axis=axis, dtype=np.float32, **params).astype(x.dtype) if is_half(x.dtype) else reduced(axis=axis, **params)

    return f


_NUMPYS = ("out", "where", "initial", "mean", "correction")
_PYTORCHS = {"keepdim": "keepdims=", "dim": "axis=", "unbiased": "ddof="}


def refuse(name: str, out: Any, options: dict[str, Any]) -> None:
    """NumPy's options that have no meaning here, unless they are at their defaults, and names that NumPy does not have."""
    if out is None and not options:
        return
    for key, value in {"out": out, **options}.items():
        if key not in _NUMPYS:
            remedy = f"write {_PYTORCHS[key]}" if key in _PYTORCHS else "expected axis= and keepdims="
            raise TypeError(f"{name}() got an unexpected keyword argument {key!r}: {remedy}")
        if value is not None and value is not np._NoValue and not (key == "where" and value is True):
            raise TypeError(f"{name}() does not take {key}=: the result is a new array; leave elements out with gg.where(mask, x, neutral_element)")


# ---- sum and mean: linear, their transpose repeats the cotangent


def _sum_transpose(g: Any, *, axis: tuple[int, ...], keepdims: bool, shape: Shape) -> Any:
    return broadcast_to(restored(g, axis, keepdims), shape)


def _mean_transpose(g: Any, *, axis: tuple[int, ...], keepdims: bool, shape: Shape) -> Any:
    n = _count(shape, axis) or 1
    share = g / n if n <= 65504 else g * (1 / n)  # a larger n is infinite in float16
    return _sum_transpose(share, axis=axis, keepdims=keepdims, shape=shape)


_REDUCED = [((2, 3, 4), (1,), False), ((2, 3, 4), (0, 2), True), ((3,), (0,), False), ((), (), False), ((2, 1), (0, 1), False)]
_sum = linear(
    "sum",
    lambda x, *, axis, keepdims, shape: kernels.total(x, axis=axis, keepdims=keepdims),
    _sum_transpose,
    samples=[Sample(s, axis=a, keepdims=k, shape=s) for s, a, k in [*_REDUCED, ((2, 0), (1,), False)]],
    batch=leading(axis=shift, shape=grow),
)
_mean = linear(
    "mean",
    lambda x, *, axis, keepdims, shape: kernels.total(x, axis=axis, keepdims=keepdims, mean=True),
    _mean_transpose,
    samples=[Sample(s, axis=a, keepdims=k, shape=s) for s, a, k in _REDUCED],
    batch=leading(axis=shift, shape=grow),
)


def sum(x: Any, axis: Axis = None, dtype: Any = None, out: None = None, keepdims: bool = False, **options: Any) -> Any:
    """The sum over ``axis``; see :func:`numpy.sum`."""
    refuse("sum", out, options)
    x = as_array(x) if dtype is None else astype(as_array(x), dtype)
    return _sum(x, axis=axes_of(x, axis), keepdims=keepdims, shape=x.shape)


def mean(x: Any, axis: Axis = None, dtype: Any = None, out: None = None, keepdims: bool = False, **options: Any) -> Any:
    """The arithmetic mean over ``axis``; see :func:`numpy.mean`."""
    refuse("mean", out, options)
    x = as_array(x) if dtype is None else astype(as_array(x), dtype)
    return _mean(x, axis=axes_of(x, axis), keepdims=keepdims, shape=x.shape)


def nansum(x: Any, axis: Axis = None, dtype: Any = None, out: None = None, keepdims: bool = False, **options: Any) -> Any:
    """The sum of what is not nan; see :func:`numpy.nansum`."""
    refuse("nansum", out, options)
    return sum(where(isnan(x), 0.0, x), axis, dtype, keepdims=keepdims)


def nanmean(x: Any, axis: Axis = None, dtype: Any = None, out: None = None, keepdims: bool = False, **options: Any) -> Any:
    """The mean of what is not nan; see :func:`numpy.nanmean`."""
    refuse("nanmean", out, options)
    total = nansum(x, axis, dtype, keepdims=keepdims)
    return total / astype(sum(logical_not(isnan(x)), axis, keepdims=keepdims), dtype_of(total))


# ---- prod: the derivative by one element is the product of the others, found without dividing


def _others(x: Any) -> Any:
    """Along the last axis, for each element the product of all others: pair up, recurse on the products, hand the result on."""
    n = x.shape[-1]
    if n < 2:
        return ones_like(x)
    half = n // 2
    a, b = x[..., :half], x[..., half : 2 * half]
    above = _others(concatenate([a * b, x[..., 2 * half :]], axis=-1))
    ab = above[..., :half]
    return concatenate([ab * b, ab * a, above[..., half:]], axis=-1)


def _product_of_others(x: Any, axis: tuple[int, ...]) -> Any:
    shape = shape_of(x)
    order = [i for i in range(len(shape)) if i not in axis] + list(axis)
    moved = transpose(x, order)
    lead = moved.shape[: len(shape) - len(axis)]
    products = _others(reshape(moved, (*lead, _count(shape, axis))))
    return transpose(reshape(products, moved.shape), np.argsort(order).tolist())


_prod = general(
    "prod",
    _accumulated("prod"),
    [lambda g, _y, x, *, axis, keepdims: restored(g, axis, keepdims) * _product_of_others(x, axis)],
    [lambda t, _y, x, *, axis, keepdims: sum(t * _product_of_others(x, axis), axis, keepdims=keepdims)],
    samples=[Sample(s, axis=a, keepdims=k) for s, a, k in _REDUCED] + [Sample(np.array([[0.0, 2.0, 3.0], [0.0, 0.0, 3.0]]), axis=(1,), keepdims=False)],
    batch=leading(axis=shift),
)


def prod(x: Any, axis: Axis = None, dtype: Any = None, out: None = None, keepdims: bool = False, **options: Any) -> Any:
    """The product over ``axis``; its derivatives are right where elements are 0. See :func:`numpy.prod`."""
    refuse("prod", out, options)
    x = as_array(x) if dtype is None else astype(as_array(x), dtype)
    return _prod(x, axis=axes_of(x, axis), keepdims=keepdims)


# ---- max and min: ties share the derivative evenly; a nan is the largest and the smallest


def _chosen(y: Any, x: Any, axis: tuple[int, ...], keepdims: bool) -> Any:
    return equal(x, restored(y, axis, keepdims)) | not_equal(x, x)


def _shared(g: Any, chosen: Any, axis: tuple[int, ...], keepdims: bool) -> Any:
    """g divided by how many were chosen; that number may not fit into 16 bits."""
    return g / astype(sum(chosen, axis, keepdims=keepdims), np.promote_types(g.dtype, np.float32))


def _extremum_jvp(t: Any, y: Any, x: Any, *, axis: tuple[int, ...], keepdims: bool) -> Any:
    chosen = _chosen(y, x, axis, keepdims)
    return _shared(sum(where(chosen, t, 0.0), axis, keepdims=keepdims), chosen, axis, keepdims)


def _share_vjp(needs: Any, c: Any, _d: Any, _g: Any, y: Any, x: Any, *, axis: tuple[int, ...]) -> list[Any]:
    return [_extremum_jvp(c, y, x, axis=axis, keepdims=True) if needs[0] else None, None, None]


def _share_jvp(tangents: Any, d: Any, _g: Any, y: Any, x: Any, *, axis: tuple[int, ...]) -> Any:
    return zeros_like(d) if tangents[0] is None else _extremum_share(tangents[0], y, x, axis=axis)


def _share_examples(op: Op, size: int, batched: Sequence[bool], args: Args, params: dict[str, Any]) -> Any:
    """Who has a share depends on x and y alone."""
    g, y, x = args
    if batched[1] or batched[2]:
        return leading(axis=shift)(op, size, batched, args, params)
    return strong_multiply(repeated(op(ones_like(y, dtype_of(g)), y, x, **params), size), g)


_extremum_share = Op(
    "share of an extremum",
    lambda g, y, x, *, axis: kernels.extremum_backward(x, g, y, axis=axis),
    _share_vjp,
    _share_jvp,
    batch=_share_examples,
    doc="g shared evenly among the elements of x that equal its extremum y, on which it depends in steps alone.",
)
_max, _min = (
    general(
        name,
        lambda x, *, axis, keepdims, smallest=smallest: kernels.extremum(x, axis=axis, smallest=smallest, keepdims=keepdims),
        [lambda g, y, x, *, axis, keepdims: _extremum_share(restored(g, axis, keepdims), restored(y, axis, keepdims), x, axis=axis)],
        [_extremum_jvp],
        samples=[Sample(s, axis=a, keepdims=k) for s, a, k in _REDUCED],
        batch=leading(axis=shift),
    )
    for name, smallest in (("max", False), ("min", True))
)


def max(x: Any, axis: Axis = None, out: None = None, keepdims: bool = False, **options: Any) -> Any:
    """The largest element over ``axis``; ties share the derivative evenly, nan propagates. See :func:`numpy.max`."""
    refuse("max", out, options)
    x = as_array(x)
    return _max(x, axis=axes_of(x, axis), keepdims=keepdims)


def min(x: Any, axis: Axis = None, out: None = None, keepdims: bool = False, **options: Any) -> Any:
    """The smallest element over ``axis``; ties share the derivative evenly, nan propagates. See :func:`numpy.min`."""
    refuse("min", out, options)
    x = as_array(x)
    return _min(x, axis=axes_of(x, axis), keepdims=keepdims)


amax, amin = max, min


def ptp(x: Any, axis: Axis = None, out: None = None, keepdims: bool = False) -> Any:
    """The largest minus the smallest element; see :func:`numpy.ptp`."""
    refuse("ptp", out, {})
    return max(x, axis, keepdims=keepdims) - min(x, axis, keepdims=keepdims)


# ---- var and std. With c = x - mean(x): d var = 2 sum(Re(conj(c) dx)) / (n - ddof), as the deviations sum to 0. The mean is a second output, in float64, so that c has
# the digits of x and the backward is one pass


def _freedom(x: Any, axis: tuple[int, ...], ddof: float) -> float:
    """n - ddof; nan where that is not positive, and with it the derivatives."""
    n = _count(shape_of(x), axis) - ddof
    return n if n > 0 else math.nan


def conjugated(c: Any) -> Any:
    """conj(c), which of a real c is c itself and not a copy."""
    return conj(c) if dtype_of(c).kind == "c" else c


def real_dot(c: Any, t: Any, axis: tuple[int, ...], keepdims: bool) -> Any:
    """sum(Re(conj(c) t))."""
    product = conjugated(c) * t
    return sum(real(product) if dtype_of(product).kind == "c" else product, axis, keepdims=keepdims)


def over(g: Any, y: Any) -> Any:
    """g / y, and 0 with derivative 0 where y is 0."""
    zero = equal(y, 0)
    return where(zero, 0.0, g / where(zero, 1.0, y))


def _deviations_value(x: Any, m: Any, s: Any, *, axis: tuple[int, ...]) -> Any:
    return (s * np.conj(x - m)).astype(x.dtype) if x.dtype.kind == "c" else kernels.deviations(x, m, s, axis=axis)


def _deviations_vjp(needs: Any, g: Any, _y: Any, x: Any, m: Any, s: Any, *, axis: tuple[int, ...]) -> list[Any]:
    share: Any = conjugated(g * s) if needs[0] or needs[1] else None
    return [share, -share if needs[1] else None, g * _deviations(x, m, ones_like(s), axis=axis) if needs[2] else None]


def _deviations_jvp(tangents: Any, y: Any, x: Any, m: Any, s: Any, *, axis: tuple[int, ...]) -> Any:
    t_x, t_m, t_s = tangents
    parts = [conjugated(t) * s for t in (t_x, None if t_m is None else -t_m) if t is not None]
    if t_s is not None:
        parts.append(t_s * _deviations(x, m, ones_like(s), axis=axis))
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total


def _deviate_examples(op: Op, size: int, batched: Sequence[bool], args: Args, params: dict[str, Any]) -> Any:
    """What depends on the example by s alone is a product of s and what does not."""
    x, m, s = args
    if batched[0] or batched[1]:
        return leading(axis=shift)(op, size, batched, args, params)
    return multiply(s, op(x, m, ones_like(m, dtype_of(x)), **params))


_deviations = general(
    "deviations",
    _deviations_value,
    _deviations_vjp,
    _deviations_jvp,
    samples=[Sample((2, 3, 4), (2, 1, 4), (2, 1, 4), axis=(1,)), Sample((2, 3, 2), (1, 3, 1), (1, 3, 1), axis=(0, 2))],
    batch=_deviate_examples,
    doc="``s conj(x - m)`` of m and s that are constant along the axes, of length 1 there.",
)


def _moments(root: bool) -> Any:
    def value(x: Any, *, axis: tuple[int, ...], ddof: float, keepdims: bool) -> tuple[Any, Any]:
        squares, m = kernels.moments(x, axis=axis, keepdims=True)
        n = _count(x.shape, axis) - ddof
        v = np.divide(squares, n if n > 0 else 0)
        v = (np.sqrt(v) if root else v).astype(x.real.dtype if is_inexact(x.dtype) else np.float64)
        return v if keepdims else v.reshape(reduced_shape(x.shape, axis)), m

    def vjp(_needs: Any, g: Any, y: Any, x: Any, *, axis: tuple[int, ...], ddof: float, keepdims: bool) -> list[Any]:
        found = []
        if g[0] is not None:
            slope = over(g[0], y[0]) / _freedom(x, axis, ddof) if root else g[0] * (2 / _freedom(x, axis, ddof))
            found.append(_deviations(x, y[1], restored(slope, axis, keepdims), axis=axis))
        if g[1] is not None:
            found.append(broadcast_to(g[1] / (_count(shape_of(x), axis) or 1), shape_of(x)))
        return [found[0] + found[1] if len(found) == 2 else found[0]]

    def jvp(tangents: Any, y: Any, x: Any, *, axis: tuple[int, ...], ddof: float, keepdims: bool) -> list[Any]:
        (t,) = tangents
        product = _deviations(x, y[1], astype(ones_like(y[1]), dtype_of(x), copy=False), axis=axis) * t
        along = sum(real(product) if dtype_of(product).kind == "c" else product, axis, keepdims=keepdims)
        along = over(along, y[0]) / _freedom(x, axis, ddof) if root else along * (2 / _freedom(x, axis, ddof))
        return [along, mean(t, axis, keepdims=True)]

    return general(
        "std" if root else "var",
        value,
        vjp,
        jvp,
        samples=[Sample(s, axis=a, keepdims=k, ddof=d) for s, a, k, d in (((2, 3, 4), (1,), False, 0), ((2, 3, 4), (0, 2), True, 1), ((3,), (0,), False, 0.5))],
        batch=leading(axis=shift),
    )


_var, _std = _moments(root=False), _moments(root=True)


def var(
    x: Any, axis: Axis = None, dtype: Any = None, out: None = None, ddof: float = 0, keepdims: bool = False, *, correction: float | None = None, **options: Any
) -> Any:
    """The variance, ``sum(|x - mean|^2) / (n - ddof)``; ``correction`` is another name of ``ddof``. See :func:`numpy.var`."""
    refuse("var", out, options)
    x = as_array(x) if dtype is None else astype(as_array(x), dtype)
    return _var(x, axis=axes_of(x, axis), ddof=ddof if correction is None else correction, keepdims=keepdims)[0]


def std(
    x: Any, axis: Axis = None, dtype: Any = None, out: None = None, ddof: float = 0, keepdims: bool = False, *, correction: float | None = None, **options: Any
) -> Any:
    """The standard deviation, the root of :func:`var`; where it is 0 its derivative is 0. See :func:`numpy.std`."""
    refuse("std", out, options)
    x = as_array(x) if dtype is None else astype(as_array(x), dtype)
    return _std(x, axis=axes_of(x, axis), ddof=ddof if correction is None else correction, keepdims=keepdims)[0]


# ---- cumsum and cumprod


def _cumsum_transpose(g: Any, *, axis: int) -> Any:
    return flip(_cumsum(flip(g, axis), axis=axis), axis)


_cumsum = linear("cumsum", _accumulated("cumsum"), _cumsum_transpose, samples=[Sample((2, 3, 4), axis=1), Sample((3,), axis=0)], batch=leading(axis=shift))


def _cumprod_jvp(t: Any, _y: Any, x: Any, *, axis: int) -> Any:
    """Products and their tangents over windows of length 1, 2, 4, ... that end at each element: no division."""
    t, x = moveaxis(t, axis, -1), moveaxis(x, axis, -1)
    n, width = x.shape[-1], 1
    while width < n:
        early, late = x[..., :-width], x[..., width:]
        t = concatenate([t[..., :width], t[..., width:] * early + late * t[..., :-width]], axis=-1)
        x = concatenate([x[..., :width], late * early], axis=-1)
        width *= 2
    return moveaxis(t, -1, axis)


_cumprod = general(
    "cumprod",
    _accumulated("cumprod"),
    None,
    [_cumprod_jvp],
    samples=[Sample((2, 5, 2), axis=1), Sample(np.array([2.0, 0.0, 3.0, 0.0, 1.0]), axis=0)],
    batch=leading(axis=shift),
)


def _scan(op: Any, name: str, x: Any, axis: int | None, dtype: Any, out: Any) -> Any:
    refuse(name, out, {})
    x = as_array(x) if dtype is None else astype(as_array(x), dtype)
    if axis is None:
        x, axis = ravel(x), 0
    return op(x, axis=normalize_axis_index(_one(axis), len(shape_of(x))))


def cumsum(x: Any, axis: int | None = None, dtype: Any = None, out: None = None) -> Any:
    """The running sums along ``axis`` (of the flattened array when None); see :func:`numpy.cumsum`."""
    return _scan(_cumsum, "cumsum", x, axis, dtype, out)


def cumprod(x: Any, axis: int | None = None, dtype: Any = None, out: None = None) -> Any:
    """The running products along ``axis`` (of the flattened array when None); see :func:`numpy.cumprod`."""
    return _scan(_cumprod, "cumprod", x, axis, dtype, out)


# ---- nothing to differentiate


def _counted(name: str) -> Any:
    return constant(
        name,
        lambda x, *, axis, keepdims: getattr(namespace(x), name)(x, axis=axis, keepdims=keepdims),
        samples=[Sample(s, axis=a, keepdims=k) for s, a, k in _REDUCED],
        batch=leading(axis=shift),
    )


def _places_of_examples(op: Op, size: int, batched: Sequence[bool], args: Args, params: dict[str, Any]) -> Any:
    (x,), axis, keepdims = args, params["axis"], params["keepdims"]
    if axis is not None:
        return leading(axis=shift)(op, size, batched, args, params)
    places = op(reshape(x, (size, math.prod(x.shape[1:]))), axis=1, keepdims=False)
    return reshape(places, (size, *[1] * (len(x.shape) - 1))) if keepdims else places


_any, _all = map(_counted, ("any", "all"))
_argmax, _argmin = (
    constant(
        name,
        lambda x, *, axis, keepdims, smallest=smallest: arg_extremum(x, axis=axis, smallest=smallest, keepdims=keepdims),
        samples=[Sample((2, 3), axis=1, keepdims=False), Sample((2, 3), axis=None, keepdims=True), Sample((), axis=None, keepdims=False)],
        batch=_places_of_examples,
    )
    for name, smallest in (("argmax", False), ("argmin", True))
)


def any(x: Any, axis: Axis = None, out: None = None, keepdims: bool = False, **options: Any) -> Any:
    """Whether any element over ``axis`` is true; see :func:`numpy.any`."""
    refuse("any", out, options)
    x = as_array(x)
    return _any(x, axis=axes_of(x, axis), keepdims=keepdims)


def all(x: Any, axis: Axis = None, out: None = None, keepdims: bool = False, **options: Any) -> Any:
    """Whether all elements over ``axis`` are true; see :func:`numpy.all`."""
    refuse("all", out, options)
    x = as_array(x)
    return _all(x, axis=axes_of(x, axis), keepdims=keepdims)


def argmax(x: Any, axis: int | None = None, out: None = None, *, keepdims: bool = False, **options: Any) -> Any:
    """Where the largest element is, the first of several; see :func:`numpy.argmax`."""
    refuse("argmax", out, options)
    return _arg(_argmax, as_array(x), axis, keepdims)


def argmin(x: Any, axis: int | None = None, out: None = None, *, keepdims: bool = False, **options: Any) -> Any:
    """Where the smallest element is, the first of several; see :func:`numpy.argmin`."""
    refuse("argmin", out, options)
    return _arg(_argmin, as_array(x), axis, keepdims)


def _arg(op: Op, x: Any, axis: Any, keepdims: bool) -> Any:
    return op(x, axis=None if not x.shape and axis in (0, -1) else _one(axis), keepdims=keepdims)


def count_nonzero(x: Any, axis: Axis = None, *, keepdims: bool = False) -> Any:
    """How many elements are not 0; see :func:`numpy.count_nonzero`."""
    return sum(not_equal(x, 0), axis, keepdims=keepdims)


# ---- averages


def average(x: Any, axis: Axis = None, weights: Any = None, returned: bool = False, *, keepdims: bool = False) -> Any:
    """``sum(x * weights) / sum(weights)``; weights of one axis may be 1-D. See :func:`numpy.average`."""
    x = as_array(x)
    if weights is None:
        y = mean(x, axis, keepdims=keepdims)
        total = astype(ones_like(y) * (_count(shape_of(x), axes_of(x, axis)) * 1.0), dtype_of(y))
        return (y, total) if returned else y
    weights = as_array(weights)
    axes = axes_of(x, axis)
    if shape_of(weights) != shape_of(x):
        expected = tuple(shape_of(x)[i] for i in axes)
        if axis is None or shape_of(weights) != expected:
            raise ValueError(f"average: got weights of shape {shape_of(weights)} for shape {shape_of(x)} and axis {axis}, expected {shape_of(x)} or {expected}")
        order = np.argsort(axes).tolist()
        weights = expand_dims(transpose(weights, order), [i for i in range(len(shape_of(x))) if i not in axes])
    total = sum(broadcast_to(weights, shape_of(x)), axes, keepdims=keepdims)
    y = divide(sum(x * weights, axes, keepdims=keepdims), total)
    return (y, total) if returned else y


def median(x: Any, axis: Axis = None, out: None = None, *, keepdims: bool = False) -> Any:
    """The middle element, or the mean of the middle two; nan propagates. See :func:`numpy.median`."""
    refuse("median", out, {})
    x = as_array(x)
    shape, axes = shape_of(x), axes_of(x, axis)
    rest = [i for i in range(len(shape)) if i not in axes]
    n = _count(shape, axes)
    ordered = sort(reshape(transpose(x, rest + list(axes)), (*(shape[i] for i in rest), n)), axis=-1)
    middle = mean(ordered[..., (n - 1) // 2 : n // 2 + 1], -1)
    y = where(isnan(ordered[..., -1]), ordered[..., -1], middle)
    return expand_dims(y, axes) if keepdims else y
