"""Indexing as in NumPy, its transpose, and functional updates.

``getitem`` gathers; ``scatter_add`` writes into zeros, where repeated indices accumulate. Each is the other's transpose. Keys are :mod:`gpugrad.ops.keys`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from gpugrad.backend import namespace
from gpugrad.kernels import segments as kernels
from gpugrad.ops import elementwise as ew
from gpugrad.ops.batch import Args, aligned, repeated
from gpugrad.ops.fit import Shape, add, astype, broadcast_to, dtype_of, full_like, is_half, ones_like, shape_of, zeros_like
from gpugrad.ops.keys import ARRAY, FULL, array_axes, checked, filled, parse, place_of, places_of, together, touched, usable, winners
from gpugrad.ops.rules import Sample, constant, general
from gpugrad.ops.shape import as_array, ravel, reshape
from gpugrad.tape import Op, Shared, is_batched, plain

__all__ = ["getitem"]

_FEW = 4096  # elements: up to so many, what NumPy does in one call is quicker than a kernel


def pick_rows(x: Any, places: Any, *, skip: int | None = None, from_end: bool = True, name: str = "getitem") -> Any:
    """``x[places]`` for x (count, width) and integers of any shape; zeros for the place ``skip``; negative ones are refused where they do not count ``from_end``."""
    if x.dtype.kind == "c":
        return pick_rows(_contiguous(x).view(_part_of(x)), places, skip=skip, from_end=from_end, name=name).view(x.dtype)
    return kernels.gather(x, kernels.as_int64(namespace(x), places), skip=skip, from_end=from_end, name=name)


def sum_rows(values: Any, places: Any, count: int, *, skip: int | None = None, name: str = "scatter_add") -> Any:
    """Rows of ``values`` (n, width) summed by their places (n,), as (count, width). 16-bit floats are summed in wider ones, complex numbers by their parts."""
    dtype = values.dtype
    if dtype.kind == "c":
        return sum_rows(_contiguous(values).view(_part_of(values)), places, count, skip=skip, name=name).view(dtype)
    if is_half(dtype) and namespace(values) is np:
        return sum_rows(values.astype(np.float32), places, count, skip=skip, name=name).astype(dtype)
    return kernels.segment_sum(values, kernels.as_int64(namespace(values), places), count=count, skip=skip, name=name)


def _contiguous(x: Any) -> Any:
    return namespace(x).ascontiguousarray(x)


def _part_of(x: Any) -> Any:
    return np.dtype(f"f{x.dtype.itemsize // 2}")


# ---------------------------------------------------------------------------------- many examples


def _get_examples(op: Op, size: int, batched: Sequence[bool], args: Args, params: dict[str, Any]) -> Any:
    x, *arrays = args
    whole = together(x, batched[0], size, arrays, batched[1:], params)
    return whole.to_wanted(op(x, *whole.arrays, **whole.params))


def _scatter_examples(op: Op, size: int, batched: Sequence[bool], args: Args, params: dict[str, Any]) -> Any:
    g, *arrays = args
    whole = together(g, True, size, arrays, batched[1:], params)
    return op(whole.from_wanted(g if batched[0] else repeated(g, size)), *whole.arrays, **whole.params)


def _set_examples(op: Op, size: int, batched: Sequence[bool], args: Args, params: dict[str, Any]) -> Any:
    x, v, *arrays = args
    whole = together(x, True, size, arrays, batched[2:], params)
    if batched[1] or shape_of(v):
        v = whole.from_wanted(aligned(v if batched[1] else repeated(v, 1), len(whole.order) - 1))
    return op(x if batched[0] else repeated(x, size), v, *whole.arrays, **whole.params)


# ---------------------------------------------------------------------------------- places as operations: they may depend on the example


def _number_examples(op: Op, size: int, batched: Sequence[bool], args: Args, params: dict[str, Any]) -> Any:
    x, *arrays = args
    count = math.prod(params["source"][: touched(params["key"], arrays, params["source"])])
    if not any(batched[1:]):
        return Shared(op(zeros_like(x, shape=()), *arrays, **params))
    whole = together(x, True, size, arrays, batched[1:], params)
    places = op(zeros_like(x, shape=()), *whole.arrays, key=whole.params["key"], source=whole.params["source"])
    return ew.remainder(whole.to_wanted(places), count)


def _starts(places: Any, size: int, count: int) -> Any:
    """Numbers that set the examples' places apart."""
    starts = namespace(plain(places)).arange(size) * count
    return starts.reshape(size, *[1] * (len(shape_of(places)) - 1))


def _sort_examples(op: Op, size: int, _batched: Any, args: Args, params: dict[str, Any]) -> Any:
    (places,), shape = args, shape_of(args[0])
    starts = _starts(places, size, params["count"])
    order, ordered, last = [reshape(y, shape) for y in op(ravel(add(places, starts)), count=size * params["count"])]
    return ew.subtract(order, _starts(places, size, shape[1])), ew.subtract(ordered, starts), last


_number = constant(
    "places",
    lambda x, *arrays, key, source: places_of(namespace(x), usable(namespace(x), arrays, key, source, "at"), key, source)[0],
    samples=[
        Sample((), np.array([[0, 2], [2, 2]]), key=(ARRAY,), source=(3, 2)),
        Sample((), np.array([0, 1, 0]), np.array([1, -1, 1]), key=(FULL, ARRAY, None, ARRAY), source=(2, 2, 3, 2)),
        Sample((), np.array([0, 1, 0]), key=(FULL, ARRAY, 1), source=(2, 2, 3, 2)),
    ],
    batch=_number_examples,
    doc="The places that a key picks, on the device of x.",
)
_won = constant(
    "winners",
    lambda places, *, count: winners(namespace(places), places),
    samples=[Sample(np.array([[0, 2], [2, 1]]), count=3)],
    batch=lambda op, size, _batched, args, params: op(add(args[0], _starts(args[0], size, params["count"])), count=size * params["count"]),
    doc="Which of the places (from 0 to count - 1) are the last of their kind.",
)
_by_place = constant(
    "by_place",
    lambda places, *, count: kernels.by_place(namespace(places), places),
    samples=[Sample(np.array([0, 2, 2, 1, 0]), count=3)],
    batch=_sort_examples,
    doc="See gpugrad.kernels.segments; of places from 0 to count - 1.",
)


# ---------------------------------------------------------------------------------- getitem and scatter_add


def _get(x: Any, *arrays: Any, key: tuple[Any, ...], source: Shape, unique: bool) -> Any:
    if not arrays:
        return x[key]
    xp = namespace(x)
    if xp is np:
        return _picked(x, arrays, key)
    axes = array_axes(key, arrays)
    if axes is None or axes[0] or x.dtype.kind not in "fVc" or not x.flags.c_contiguous:
        return x[filled(key, usable(xp, arrays, key, source, "getitem"))]
    lead, item = source[: axes[1]], source[axes[1] :]
    places = place_of(xp, "getitem", arrays, lead)
    return pick_rows(x.reshape(math.prod(lead), math.prod(item)), places).reshape(places.shape + item)


def _picked(x: Any, arrays: Sequence[Any], key: tuple[Any, ...]) -> Any:
    """``x[key]`` of NumPy arrays."""
    try:
        if len(key) == 1 and x.ndim > 1 and arrays[0].dtype.kind in "iu" and arrays[0].dtype != np.uint64 and x.flags.c_contiguous:
            return x.take(arrays[0], 0)  # reads and writes whole rows
        return x[filled(key, arrays)]
    except IndexError:
        checked(arrays, key, x.shape, "getitem")  # says which, where
        raise


def _scatter_add(g: Any, *arrays: Any, key: tuple[Any, ...], source: Shape, unique: bool) -> Any:
    xp = namespace(g)
    if unique or (xp is np and g.size <= _FEW):
        index = filled(key, usable(xp, arrays, key, source, "scatter_add"))
        y = xp.zeros(source, np.float32 if not unique and is_half(g.dtype) else g.dtype)
        if unique:
            y[index] = g
        else:
            np.add.at(y, index, g)
        return y.astype(g.dtype, copy=False)
    axes = array_axes(key, arrays)
    if axes is None:
        places, count, item = places_of(xp, usable(xp, arrays, key, source, "scatter_add"), key, source)
        return sum_rows(g.reshape(places.size, math.prod(item)), places.ravel(), count).reshape(source)
    a, b = axes
    lead, item = source[a:b], source[:a] + source[b:]
    places, count, outer = place_of(xp, "scatter_add", arrays, lead), math.prod(lead), math.prod(source[:a])
    g = g.reshape(outer, places.size, math.prod(source[b:])).swapaxes(0, 1).reshape(places.size, math.prod(item))
    y = sum_rows(g, places.ravel(), count)
    return y.reshape(count, outer, math.prod(source[b:])).swapaxes(0, 1).reshape(source)


_KEYS: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
    ((), {"key": (slice(None, None, -2), 2), "source": (4, 3), "unique": True}),
    ((np.array([[0, 2], [2, 2]]),), {"key": (ARRAY,), "source": (3, 2), "unique": False}),
    ((np.array([0, 1, 0]), np.array([1, 1, 1])), {"key": (ARRAY, None, slice(0, 2), ARRAY), "source": (2, 3, 2), "unique": False}),
    ((np.array([[True, False], [True, True]]),), {"key": (Ellipsis, ARRAY), "source": (3, 2, 2), "unique": True}),
]
_PICKED: list[Shape] = [(2,), (2, 2, 2), (3, 1, 2), (3, 3)]

getitem_op = general(
    "getitem",
    _get,
    [lambda g, _y, _x, *arrays, **params: _scatter(g, *arrays, **params)],
    [lambda t, _y, _x, *arrays, **params: getitem_op(t, *arrays, **params)],
    samples=[Sample(params["source"], *arrays, **params) for arrays, params in _KEYS],
    batch=_get_examples,
    doc="``x[key]``.",
)
_scatter = general(
    "scatter_add",
    _scatter_add,
    [lambda g, _y, _x, *arrays, **params: getitem_op(g, *arrays, **params)],
    [lambda t, _y, _x, *arrays, **params: _scatter(t, *arrays, **params)],
    samples=[Sample(shape, *arrays, **params) for shape, (arrays, params) in zip(_PICKED, _KEYS, strict=True)],
    batch=_scatter_examples,
    doc="Zeros of shape ``source`` with the argument added at ``[key]``, as often as the key names an element.",
)


def getitem(x: Any, key: Any) -> Any:
    """``x[key]``, with basic and advanced indexing as in NumPy. In the derivative repeated indices accumulate.

    Raises:
        IndexError: an index is out of range, or is neither integer nor boolean. On a GPU the error comes when the host next waits for numbers, or with the
            next operation that has indices; what was read there is nan, or an item that exists.
    """
    x = as_array(x)
    arrays, params = parse(x, key)
    return getitem_op(x, *arrays, **params)


# ---------------------------------------------------------------------------------- functional updates


def _index_set(x: Any, v: Any, *arrays: Any, key: tuple[Any, ...], source: Shape, unique: bool) -> Any:
    xp = namespace(x)
    arrays = usable(xp, arrays, key, source, "index_set")
    if unique:
        y = xp.array(x)
        y[filled(key, arrays)] = v
        return y
    places, count, item = places_of(xp, arrays, key, source)
    width = math.prod(item)
    y = xp.empty((count + 1, width), x.dtype)
    y[:count] = x.reshape(count, width)
    y[xp.where(winners(xp, places), places, count).ravel()] = xp.broadcast_to(v, places.shape + item).reshape(places.size, width)
    return y[:count].reshape(source)


def _pull_set_value(g: Any, _y: Any, _x: Any, _v: Any, *arrays: Any, key: tuple[Any, ...], source: Shape, unique: bool) -> Any:
    """What was written and stayed gets the cotangent, what was written over gets 0."""
    picked = getitem_op(g, *arrays, key=key, source=source, unique=unique)
    if unique:
        return picked
    places = _number(zeros_like(g, shape=()), *arrays, key=key, source=source)
    won = _won(places, count=math.prod(source[: touched(key, arrays, source)]))
    shape = shape_of(places)
    return ew.where(reshape(won, shape + (1,) * (len(shape_of(picked)) - len(shape))), picked, zeros_like(picked, shape=()))


_set = general(
    "index_set",
    _index_set,
    [lambda g, _y, _x, _v, *arrays, **params: _set(g, zeros_like(g, shape=()), *arrays, **params), _pull_set_value],
    [
        lambda t, _y, _x, _v, *arrays, **params: _set(t, zeros_like(t, shape=()), *arrays, **params),
        lambda t, _y, x, _v, *arrays, **params: _set(zeros_like(x), t, *arrays, **params),
    ],
    samples=[Sample(params["source"], shape, *arrays, **params) for shape, (arrays, params) in zip(_PICKED, _KEYS, strict=True)],
    batch=_set_examples,
    doc="A copy with other values at ``[key]``; of several for one element the last stays.",
)


class At:
    """``x.at``: ``x.at[key].set(v)``, ``.add(v)``, ``.multiply(v)`` and ``.get()``."""

    __slots__ = ("x",)

    def __init__(self, x: Any) -> None:
        self.x = as_array(x)

    def __getitem__(self, key: Any) -> Elements:
        return Elements(self.x, key)


class Elements:
    """The elements ``x[key]``, to be changed in a copy of x. Values are cast to x's dtype and broadcast to the shape of ``x[key]``;
    derivatives flow to x and to the values.

    Raises:
        TypeError: a value's dtype is of a higher kind than x's (float into integers, complex into floats).
        ValueError: a value does not broadcast to the shape of ``x[key]``.
        IndexError: as in ``x[key]``.
    """

    __slots__ = ("arrays", "params", "x")

    def __init__(self, x: Any, key: Any) -> None:
        self.x = x
        self.arrays, self.params = parse(x, key)

    def get(self) -> Any:
        """``x[key]``."""
        return getitem_op(self.x, *self.arrays, **self.params)

    def set(self, v: Any) -> Any:
        """``x`` with ``v`` in place of the elements. Where the key names an element twice the last value stays, and it alone gets a derivative."""
        return _set(self.x, self._fitted(v), *self.arrays, **self.params)

    def add(self, v: Any) -> Any:
        """``x`` with ``v`` added to the elements, as often as the key names them (``x[key] += v`` in NumPy adds once)."""
        return add(self.x, _scatter(self._fitted(v), *self.arrays, **self.params))

    def multiply(self, v: Any) -> Any:
        """``x`` with the elements multiplied by ``v``, as often as the key names them."""
        v = self._fitted(v)
        if self.params["unique"]:
            return _set(self.x, ew.multiply(self.get(), v), *self.arrays, **self.params)
        key, source = self.params["key"], self.params["source"]
        ndim = touched(key, self.arrays, source)
        count, item = math.prod(source[:ndim]), source[ndim:]
        places = ravel(_number(zeros_like(self.x, shape=()), *self.arrays, key=key, source=source))
        order, places, last = _by_place(places, count=count)
        shape = (math.prod(shape_of(places)), math.prod(item))
        factors = getitem_op(reshape(v, shape), order, key=(ARRAY,), source=shape, unique=True)
        for earlier, same in kernels.doublings(namespace(plain(self.x)), places):
            factors = ew.multiply(factors, ew.where(same, getitem(factors, earlier), ones_like(factors, shape=())))
        ones = ones_like(self.x, shape=(count + 1, shape[1]))  # with a row for what is not the last of its place, as in the reference of segment_sum
        total = _set(ones, factors, ew.where(last, places, count), key=(ARRAY,), source=shape_of(ones), unique=True)
        return ew.multiply(self.x, reshape(total[:count], source))

    def _fitted(self, v: Any) -> Any:
        v = cast_for(self.x, v)
        xp, key, source = namespace(plain(self.x)), self.params["key"], self.params["source"]
        arrays = [xp.zeros(shape_of(a), np.intp) if is_batched(a) else plain(a) for a in self.arrays]  # of those only the shape is known here
        target = np.shape(xp.broadcast_to(xp.zeros((), bool), source)[filled(key, usable(xp, arrays, key, source, "at"))])
        shape = shape_of(v)
        extra = max(0, len(shape) - len(target))
        if set(shape[:extra]) - {1} or any(n not in (1, m) for n, m in zip(shape[::-1], target[::-1])):
            raise ValueError(f"got a value of shape {shape}, expected one that broadcasts to the shape of what the index picks, {target}")
        return broadcast_to(reshape(v, shape[extra:]), target)


_KINDS = {"b": 0, "i": 1, "u": 1, "f": 2, "V": 2, "c": 3}  # V is bfloat16


def cast_for(x: Any, v: Any) -> Any:
    """``v`` in the dtype of ``x``, on its device if it is a number."""
    dtype = dtype_of(x)
    if _KINDS[dtype_of(v).kind] > _KINDS[dtype.kind]:
        raise TypeError(f"got a value of dtype {dtype_of(v)} for an array of {dtype}, which would lose part of it: cast one of them with astype")
    if isinstance(v, (bool, int, float, complex, np.generic)):
        return full_like(x, v, shape=())
    return astype(as_array(v), dtype, copy=False)
