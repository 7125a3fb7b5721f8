"""Broadcasting and casting: linear maps and their transposes. With ``add`` they are the algebra of the backward walk."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from gpugrad import backend, tape
from gpugrad.backend import namespace
from gpugrad.kernels import reductions as kernels
from gpugrad.ops.batch import aligned, grow, shape_of, spread
from gpugrad.ops.rules import REALS, Sample, elementwise, general, linear
from gpugrad.tape import Tensor, is_tracked, plain, unary

__all__ = [
    "add", "astype", "broadcast_to", "copy", "empty_like", "full_like", "ones_like", "zeros_like",
]  # fmt: skip

Shape = tuple[int, ...]


def dtype_of(x: Any) -> Any:
    """The dtype of a Tensor, array or scalar."""
    x = plain(x)
    return x.dtype if hasattr(x, "dtype") else np.asarray(x).dtype


def is_half(dtype: Any) -> bool:
    """Whether these are 16-bit floats (float16, bfloat16), which accumulate in float32."""
    return dtype.itemsize == 2 and tape.is_inexact(dtype)


def in_float32(f: Callable[..., Any]) -> Callable[..., Any]:
    """``f`` with 16-bit floats (all arrays of one dtype) computed in float32, where exp has the range it needs and sums keep their digits."""

    def wide(*args: Any, **params: Any) -> Any:
        dtypes = {a.dtype for a in args if hasattr(a, "dtype")}
        if len(dtypes) != 1 or not is_half(dtype := dtypes.pop()):
            return f(*args, **params)
        return f(*[a.astype(np.float32) if hasattr(a, "dtype") else a for a in args], **params).astype(dtype)

    return wide


# ---- astype: the transpose of a cast is the cast back (of complex to real: the real part)


def _astype(x: Any, *, dtype: Any, source: Any) -> Any:
    if source.kind == "c" and dtype.kind != "c":
        x = x.real
    return x.astype(dtype)


_cast = linear(
    "astype",
    _astype,
    lambda g, *, dtype, source: _cast(g, dtype=source, source=dtype),
    samples=[Sample((2, 3), dtype=np.dtype(np.float64), source=np.dtype(np.float64))],
    batch=spread,
)
_cast_off_the_tape = tape.Op("astype to a dtype without derivatives", lambda x, *, dtype: x.astype(dtype), (), (), batch=spread)


def astype(x: Any, dtype: Any, *, copy: bool = True) -> Any:
    """``x`` cast to ``dtype``. A cast to integers or booleans has no derivative: its result is untracked.

    Unlike NumPy's, a cast from complex to real takes the real part without a warning.
    """
    dtype, source = backend.as_dtype(dtype), dtype_of(x)
    if dtype == source and not copy:
        return x
    if not tape.is_inexact(dtype):
        return _cast_off_the_tape(x, dtype=dtype)
    return _cast(x, dtype=dtype, source=source)


# ---- broadcast_to and sum_to: each other's transpose


@functools.lru_cache(maxsize=4096)
def _repeated(shape: Shape, source: Shape) -> tuple[int, ...]:
    """The axes of ``source`` along which ``shape`` was repeated to reach it."""
    lead = len(source) - len(shape)
    return (*range(lead), *(i + lead for i, n in enumerate(shape) if n == 1 and source[i + lead] != 1))


def _sum_to(x: Any, *, shape: Shape, source: Shape) -> Any:
    return kernels.total(x, axis=_repeated(shape, source)).reshape(shape)


def _sum_examples(op: Any, size: int, _batched: Any, args: Any, params: dict[str, Any]) -> Any:
    from gpugrad.ops.shape import reshape

    shape, source = params["shape"], params["source"]
    return reshape(sum_to(args[0], (size, *[1] * (len(source) - len(shape)), *shape)), grow(shape, size))


_broadcast = linear(
    "broadcast_to",
    lambda x, *, shape, source: namespace(x).broadcast_to(x, shape),
    lambda g, *, shape, source: _sum(g, shape=source, source=shape),
    samples=[Sample((3, 1), shape=(2, 3, 4), source=(3, 1)), Sample((), shape=(2, 0), source=())],
    batch=lambda _op, size, _batched, args, params: broadcast_to(aligned(args[0], len(params["shape"])), grow(params["shape"], size)),
)
_sum = linear(
    "sum_to",
    _sum_to,
    lambda g, *, shape, source: _broadcast(g, shape=source, source=shape),
    samples=[Sample((2, 3, 4), shape=(3, 1), source=(2, 3, 4)), Sample((2, 0), shape=(1, 1), source=(2, 0))],
    batch=_sum_examples,
)


def broadcast_to(x: Any, shape: Any) -> Any:
    """``x`` repeated along new and size-1 axes to ``shape``; a view where ``x`` is plain. See :func:`numpy.broadcast_to`."""
    shape = (shape,) if isinstance(shape, (int, np.integer)) else tuple(int(n) for n in shape)
    return x if shape_of(x) == shape else _broadcast(x if hasattr(x, "shape") else np.asarray(x), shape=shape, source=shape_of(x))


def sum_to(x: Any, shape: Shape) -> Any:
    """``x`` summed over the axes that :func:`broadcast_to` would have repeated to reach its shape."""
    return x if shape_of(x) == tuple(shape) else _sum(x, shape=tuple(shape), source=shape_of(x))


# ---- copy

copy = unary(
    general(
        "copy",
        lambda x: namespace(x).array(x),
        [lambda g, _y, _x: g],
        [lambda t, _y, _x: t],
        samples=[Sample((2, 3)), Sample(())],
        batch=spread,
        doc="A copy that derivatives pass through.",
    )
)


# ---- what the walk needs


def _reduce_to(g: Any, like: Any) -> Any:
    g = sum_to(g, like.shape)
    return g if dtype_of(g) == like.dtype else astype(g, like.dtype)


def _expand_to(t: Any, like: Any) -> Any:
    if shape_of(t) != like.shape:
        t = broadcast_to(t, like.shape)
    return t if dtype_of(t) == like.dtype else astype(t, like.dtype)


def zeros_like(x: Any, dtype: Any = None, *, shape: Any = None) -> Any:
    """Zeros with the shape, dtype and device of ``x``: a Tensor for a Tensor."""
    return _filled_like(x, 0, dtype, shape)


def ones_like(x: Any, dtype: Any = None, *, shape: Any = None) -> Any:
    """Ones with the shape, dtype and device of ``x``: a Tensor for a Tensor."""
    return _filled_like(x, 1, dtype, shape)


_UNITS: dict[tuple[Any, str], tuple[Any, Any]] = {}  # (dtype, device) -> a view of a one, and that one: nobody takes the view for all that is left of it
_UNIT_IDS: set[int] = set()


def unit_like(y: Any) -> Any:
    """The cotangent 1 of a scalar loss. A rule that knows it for what it is by :func:`is_unit` need not multiply by it, nor look into a GPU's memory."""
    if not backend.is_array(y) or y.ndim:
        return ones_like(y)
    key = y.dtype, backend.device_of(y)
    if key not in _UNITS:
        one = ones_like(y)
        if type(one) is np.ndarray:
            one.flags.writeable = False
        unit, _ = _UNITS.setdefault(key, (one[...], one))  # another thread may have been quicker: what is not kept must not be known by its id
        _UNIT_IDS.add(id(unit))
    return _UNITS[key][0]


def is_unit(g: Any) -> bool:
    """Whether ``g`` is the one that :func:`unit_like` gives out. False says nothing about its value."""
    return id(g) in _UNIT_IDS


def full_like(x: Any, fill_value: Any, dtype: Any = None, *, shape: Any = None) -> Any:
    """``fill_value`` with the shape, dtype and device of ``x``: a Tensor for a Tensor. Derivatives pass through a fill_value that is tracked."""
    if is_tracked(fill_value):
        return broadcast_to(astype(fill_value, dtype_of(x) if dtype is None else dtype, copy=False), shape_of(x) if shape is None else shape)
    return _filled_like(x, plain(fill_value), dtype, shape)


def empty_like(x: Any, dtype: Any = None, *, shape: Any = None) -> Any:
    """An array like ``x`` whose values are whatever was in memory."""
    return _filled_like(x, None, dtype, shape)


def _filled_like(x: Any, fill: Any, dtype: Any, shape: Any) -> Any:
    p = plain(x)
    shape = shape_of(x) if shape is None else shape
    xp = namespace(p)
    dtype = dtype_of(p) if dtype is None else backend.as_dtype(dtype)
    y = xp.empty(shape, dtype) if fill is None else xp.full(shape, fill, dtype)
    return Tensor(y) if type(x) is Tensor else y


# ---- sums


def total_of(*parts: Any) -> Any:
    """The sum of those that are not None; None where there are none. Rules put their results together with it."""
    given = [p for p in parts if p is not None]
    return sum(given[1:], given[0]) if given else None


# ---- add: here, because the walk accumulates with it

add = elementwise("add", np.add, lambda d, _y, _a, _b: d, lambda d, _y, _a, _b: d, domain=REALS)

tape.install(add=add, reduce_to=_reduce_to, expand_to=_expand_to, zeros_like=zeros_like)
