"""Indexing as in NumPy, its transpose, functional updates, sorting and selection.

``getitem`` gathers; ``scatter_add`` writes into zeros, where repeated indices accumulate. Each is the other's transpose.

Index arrays are arguments of the operations, not parameters: the key holds ``ARRAY`` where one belongs. So whoever watches
or replays the tape sees them, and they may be Tensors.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_index

from gpugrad import backend
from gpugrad.backend import namespace
from gpugrad.kernels import segments as kernels
from gpugrad.ops import elementwise as ew
from gpugrad.ops.fit import Shape, add, astype, broadcast_to, dtype_of, full_like, is_half, ones_like, shape_of, zeros_like
from gpugrad.ops.rules import Sample, constant, general
from gpugrad.ops.shape import along, as_array, concatenate, moveaxis, ravel, reshape
from gpugrad.tape import Tensor, plain

__all__ = ["argsort", "compress", "delete", "extract", "getitem", "insert", "sort", "take", "take_along_axis"]

# ---------------------------------------------------------------------------------- keys


class _Array:
    def __repr__(self) -> str:
        return "ARRAY"


ARRAY = _Array()  # stands in a key for an index array


def _parse(x: Any, key: Any) -> tuple[list[Any], dict[str, Any]]:
    """The index arrays of ``x[key]``, and the parameters of the operations here.

    ``unique`` says that the key cannot name an element twice, for it holds no index arrays but masks and those of one element.
    """
    parts, arrays, unique = [], [], True
    for k in key if isinstance(key, tuple) else (key,):
        if type(k) is slice and Tensor in (type(k.start), type(k.stop), type(k.step)):
            k = plain_index(k)
        elif isinstance(k, (list, tuple, range)):
            k = np.asarray(k) if len(k) else np.empty(0, np.intp)
        p = plain(k)
        if type(k) in (int, slice) or not backend.is_array(p):
            parts.append(k)
        else:
            unique = unique and (p.dtype.kind == "b" or p.size < 2)
            arrays.append(k)
            parts.append(ARRAY)
    return arrays, {"key": tuple(parts), "source": shape_of(x), "unique": unique}


def _filled(key: tuple[Any, ...], arrays: Sequence[Any]) -> tuple[Any, ...]:
    """The key with its arrays back in place."""
    rest = iter(arrays)
    return tuple([next(rest) if k is ARRAY else k for k in key])


def plain_index(key: Any) -> Any:
    """``key`` with plain arrays in the place of Tensors, and integers in the place of 0-d integer Tensors."""
    if isinstance(key, tuple):
        return tuple([plain_index(k) for k in key])
    if isinstance(key, slice):
        return slice(plain_index(key.start), plain_index(key.stop), plain_index(key.step))
    if type(key) is not Tensor:
        return key
    key = plain(key)
    return int(key) if key.ndim == 0 and key.dtype.kind in "iu" else key


# ---------------------------------------------------------------------------------- items at places
# An index touches some leading axes. Numbering their entries gives every item it picks a *place*: an integer per row.

_FULL = slice(None)
_FEW = 4096  # elements: up to so many, what NumPy does in one call is quicker than a kernel


def _places(xp: Any, arrays: Sequence[Any], key: tuple[Any, ...], source: Shape) -> tuple[Any, int, Shape]:
    """The places that the key picks, how many places there are, and the shape of an item. Each axis adds its own part, so that the places that are not picked
    need no memory."""
    index = _filled(key, arrays)
    ndim = len(source) if any(k is Ellipsis for k in index) else sum(map(_axes_of, index))
    lead, item = source[:ndim], source[ndim:]
    places, step = xp.broadcast_to(xp.zeros((), np.int64), lead)[index], 1
    for axis in reversed(range(ndim)):
        numbers = xp.arange(0, lead[axis] * step, step).reshape([-1 if i == axis else 1 for i in range(ndim)])
        places = places + xp.broadcast_to(numbers, lead)[index]
        step *= max(lead[axis], 1)
    return places, math.prod(lead), item


def _axes_of(k: Any) -> int:
    if backend.is_array(k) and k.dtype.kind == "b":
        return k.ndim
    return 0 if k is None or isinstance(k, (bool, np.bool_)) else 1


def _array_axes(key: tuple[Any, ...], arrays: Sequence[Any]) -> tuple[int, int] | None:
    """(a, b) where the key is a times ``:``, then arrays of integers for the axes a to b, then no more than ``:`` and ``...``: the commonest one. Else None."""
    a = next(i for i, k in enumerate(key) if k is ARRAY)
    b = a + len(arrays)
    if any(type(k) is not slice or k != _FULL for k in (*key[:a], *[k for k in key[b:] if k is not Ellipsis])) or any(k is not ARRAY for k in key[a:b]):
        return None
    return None if any(i.dtype.kind not in "iu" for i in arrays) else (a, b)


def _place_of(xp: Any, name: str, arrays: Sequence[Any], lengths: Shape) -> Any:
    """The places, of any shape, that one array for each of some axes picks. What one array has out of range is left to whoever reads it."""
    if len(arrays) == 1:
        return arrays[0]
    places, step = 0, 1
    for i, n in zip(arrays[::-1], lengths[::-1], strict=True):
        places = places + kernels.in_range(xp.asarray(i), n, name) * step
        step *= n
    return places


def _usable(xp: Any, arrays: Sequence[Any], key: tuple[Any, ...], source: Shape, name: str) -> tuple[Any, ...]:
    """The arrays of a key as they may index: CuPy counts what is out of range round where NumPy raises."""
    return tuple(arrays) if xp is np or not arrays else _checked(arrays, key, source, name)


def _checked(arrays: Sequence[Any], key: tuple[Any, ...], source: Shape, name: str) -> tuple[Any, ...]:
    """The arrays of a key, those of integers with what :func:`in_range` makes of them."""
    kept, axis = list(arrays), 0
    named = sum(map(_axes_of, _filled(key, arrays)))
    at = iter(range(len(kept)))
    for k in key:
        if k is Ellipsis:
            axis += len(source) - named + 1
        elif k is ARRAY:
            i = next(at)
            if kept[i].dtype.kind in "iu" and axis < len(source):
                kept[i] = kernels.in_range(kept[i], source[axis], name)
            axis += _axes_of(arrays[i])
        else:
            axis += _axes_of(k)
    return tuple(kept)


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


def _winners(xp: Any, places: Any) -> Any:
    """Which rows are the last that name their place."""
    order, _, last = kernels.by_place(xp, places.ravel())
    won = xp.empty_like(last)
    won[order] = last
    return won.reshape(places.shape)


# ---------------------------------------------------------------------------------- getitem and scatter_add


def _get(x: Any, *arrays: Any, key: tuple[Any, ...], source: Shape, unique: bool) -> Any:
    if not arrays:
        return x[key]
    xp = namespace(x)
    if xp is np:
        return _picked(x, arrays, key)
    axes = _array_axes(key, arrays)
    if axes is None or axes[0] or x.dtype.kind not in "fVc" or not x.flags.c_contiguous:
        return x[_filled(key, _usable(xp, arrays, key, source, "getitem"))]
    lead, item = source[: axes[1]], source[axes[1] :]
    places = _place_of(xp, "getitem", arrays, lead)
    return pick_rows(x.reshape(math.prod(lead), math.prod(item)), places).reshape(places.shape + item)


def _picked(x: Any, arrays: Sequence[Any], key: tuple[Any, ...]) -> Any:
    """``x[key]`` of NumPy arrays."""
    try:
        if len(key) == 1 and x.ndim > 1 and arrays[0].dtype.kind in "iu" and arrays[0].dtype != np.uint64 and x.flags.c_contiguous:
            return x.take(arrays[0], 0)  # reads and writes whole rows
        return x[_filled(key, arrays)]
    except IndexError:
        _checked(arrays, key, x.shape, "getitem")  # says which, where
        raise


def _scatter_add(g: Any, *arrays: Any, key: tuple[Any, ...], source: Shape, unique: bool) -> Any:
    xp = namespace(g)
    if unique or (xp is np and g.size <= _FEW):
        index = _filled(key, _usable(xp, arrays, key, source, "scatter_add"))
        y = xp.zeros(source, np.float32 if not unique and is_half(g.dtype) else g.dtype)
        if unique:
            y[index] = g
        else:
            np.add.at(y, index, g)
        return y.astype(g.dtype, copy=False)
    axes = _array_axes(key, arrays)
    if axes is None:
        places, count, item = _places(xp, _usable(xp, arrays, key, source, "scatter_add"), key, source)
        return sum_rows(g.reshape(places.size, math.prod(item)), places.ravel(), count).reshape(source)
    a, b = axes
    lead, item = source[a:b], source[:a] + source[b:]
    places, count, outer = _place_of(xp, "scatter_add", arrays, lead), math.prod(lead), math.prod(source[:a])
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

_getitem = general(
    "getitem",
    _get,
    [lambda g, _y, _x, *arrays, **params: _scatter(g, *arrays, **params)],
    [lambda t, _y, _x, *arrays, **params: _getitem(t, *arrays, **params)],
    samples=[Sample(params["source"], *arrays, **params) for arrays, params in _KEYS],
    doc="``x[key]``.",
)
_scatter = general(
    "scatter_add",
    _scatter_add,
    [lambda g, _y, _x, *arrays, **params: _getitem(g, *arrays, **params)],
    [lambda t, _y, _x, *arrays, **params: _scatter(t, *arrays, **params)],
    samples=[Sample(shape, *arrays, **params) for shape, (arrays, params) in zip(_PICKED, _KEYS, strict=True)],
    doc="Zeros of shape ``source`` with the argument added at ``[key]``, as often as the key names an element.",
)


def getitem(x: Any, key: Any) -> Any:
    """``x[key]``, with basic and advanced indexing as in NumPy. In the derivative repeated indices accumulate.

    Raises:
        IndexError: an index is out of range, or is neither integer nor boolean. On a GPU the error comes when the host next waits for numbers, or with the
            next operation that has indices; what was read there is nan, or an item that exists.
    """
    x = as_array(x)
    arrays, params = _parse(x, key)
    return _getitem(x, *arrays, **params)


# ---------------------------------------------------------------------------------- functional updates


def _index_set(x: Any, v: Any, *arrays: Any, key: tuple[Any, ...], source: Shape, unique: bool) -> Any:
    xp = namespace(x)
    arrays = _usable(xp, arrays, key, source, "index_set")
    if unique:
        y = xp.array(x)
        y[_filled(key, arrays)] = v
        return y
    places, count, item = _places(xp, arrays, key, source)
    width = math.prod(item)
    y = xp.empty((count + 1, width), x.dtype)
    y[:count] = x.reshape(count, width)
    y[xp.where(_winners(xp, places), places, count).ravel()] = v.reshape(places.size, width) if v.ndim else v
    return y[:count].reshape(source)


def _pull_set_value(g: Any, _y: Any, _x: Any, _v: Any, *arrays: Any, key: tuple[Any, ...], source: Shape, unique: bool) -> Any:
    """What was written and stayed gets the cotangent, what was written over gets 0."""
    picked = _getitem(g, *arrays, key=key, source=source, unique=unique)
    if unique:
        return picked
    xp = namespace(plain(g))
    places, _, item = _places(xp, _usable(xp, [plain(a) for a in arrays], key, source, "index_set"), key, source)
    won = _winners(xp, places).reshape(places.shape + (1,) * len(item))
    return ew.where(won, picked, zeros_like(picked, shape=()))


_set = general(
    "index_set",
    _index_set,
    [lambda g, _y, _x, _v, *arrays, **params: _set(g, zeros_like(g, shape=()), *arrays, **params), _pull_set_value],
    [
        lambda t, _y, _x, _v, *arrays, **params: _set(t, zeros_like(t, shape=()), *arrays, **params),
        lambda t, _y, x, _v, *arrays, **params: _set(zeros_like(x), t, *arrays, **params),
    ],
    samples=[Sample(params["source"], shape, *arrays, **params) for shape, (arrays, params) in zip(_PICKED, _KEYS, strict=True)],
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
        self.arrays, self.params = _parse(x, key)

    def get(self) -> Any:
        """``x[key]``."""
        return _getitem(self.x, *self.arrays, **self.params)

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
        xp, source = namespace(plain(self.x)), self.params["source"]
        places, count, item = _places(xp, self._usable(), self.params["key"], source)
        order, places, last = kernels.by_place(xp, places.ravel())
        shape = (places.size, math.prod(item))
        factors = _getitem(reshape(v, shape), order, key=(ARRAY,), source=shape, unique=True)
        for earlier, same in kernels.doublings(xp, places):
            factors = ew.multiply(factors, ew.where(same, getitem(factors, earlier), ones_like(factors, shape=())))
        ones = ones_like(self.x, shape=(count + 1, shape[1]))  # with a row for what is not the last of its place, as in the reference of segment_sum
        total = _set(ones, factors, xp.where(last, places, count), key=(ARRAY,), source=shape_of(ones), unique=True)
        return ew.multiply(self.x, reshape(total[:count], source))

    def _usable(self) -> tuple[Any, ...]:
        return _usable(namespace(plain(self.x)), [plain(a) for a in self.arrays], self.params["key"], self.params["source"], "at")

    def _fitted(self, v: Any) -> Any:
        v = _cast_for(self.x, v)
        xp = namespace(plain(self.x))
        index = _filled(self.params["key"], self._usable())
        target = np.shape(xp.broadcast_to(xp.zeros((), bool), self.params["source"])[index])
        shape = shape_of(v)
        extra = max(0, len(shape) - len(target))
        if set(shape[:extra]) - {1} or any(n not in (1, m) for n, m in zip(shape[::-1], target[::-1])):
            raise ValueError(f"got a value of shape {shape}, expected one that broadcasts to the shape of what the index picks, {target}")
        return broadcast_to(reshape(v, shape[extra:]), target)


_KINDS = {"b": 0, "i": 1, "u": 1, "f": 2, "V": 2, "c": 3}  # V is bfloat16


def _cast_for(x: Any, v: Any) -> Any:
    """``v`` in the dtype of ``x``, on its device if it is a number."""
    dtype = dtype_of(x)
    if _KINDS[dtype_of(v).kind] > _KINDS[dtype.kind]:
        raise TypeError(f"got a value of dtype {dtype_of(v)} for an array of {dtype}, which would lose part of it: cast one of them with astype")
    if isinstance(v, (bool, int, float, complex, np.generic)):
        return full_like(x, v, shape=())
    return astype(as_array(v), dtype, copy=False)


# ---------------------------------------------------------------------------------- taking along an axis


def take(x: Any, indices: Any, axis: int | None = None, *, mode: str = "raise") -> Any:
    """The items at ``indices`` along ``axis``, of the flattened array if that is None; mode "wrap" counts round and round,
    "clip" limits the indices to the axis (negative ones to 0). See :func:`numpy.take`.

    Raises:
        IndexError: an index is out of range in mode "raise" (on a GPU as in :func:`getitem`), or is not an integer.
    """
    x, indices = as_array(x), _integers(indices)
    if axis is None:
        x, axis = ravel(x), 0
    axis = normalize_axis_index(axis, len(shape_of(x)))
    length = shape_of(x)[axis]
    if mode not in ("raise", "wrap", "clip"):
        raise ValueError(f"take: got mode={mode!r}, expected 'raise', 'wrap' or 'clip'")
    if mode != "raise" and not length and 0 not in shape_of(indices):
        raise IndexError(f"take: got indices into axis {axis} of shape {shape_of(x)}, which is empty")
    if mode == "wrap":
        indices = ew.remainder(indices, length)
    elif mode == "clip":
        indices = ew.clip(indices, 0, length - 1)
    return getitem(x, along(axis, indices))


def _integers(indices: Any) -> Any:
    """As integers that count, booleans too (which in a key would be a mask)."""
    indices = as_array(indices)
    if dtype_of(indices).kind not in "biu" and 0 not in shape_of(indices):
        raise IndexError(f"got indices of dtype {dtype_of(indices)}, expected integers: cast them with astype")
    return astype(indices, np.intp, copy=False)


def take_along_axis(x: Any, indices: Any, axis: int | None = -1) -> Any:
    """For each vector along ``axis`` its items at the indices in the matching vector of ``indices``. See :func:`numpy.take_along_axis`.

    Raises:
        ValueError: ``indices`` has not as many axes as ``x``.
    """
    return _take_along_axis(x, indices, axis, unique=False)


def _take_along_axis(x: Any, indices: Any, axis: int | None, *, unique: bool) -> Any:
    x, indices = as_array(x), _integers(indices)
    if axis is None:
        x, axis = ravel(x), 0
    ndim = len(shape_of(x))
    axis = normalize_axis_index(axis, ndim)
    if len(shape_of(indices)) != ndim:
        raise ValueError(f"take_along_axis: got indices of shape {shape_of(indices)} for an array of shape {shape_of(x)}, expected as many axes; see take")
    xp = namespace(plain(x))
    grid = [indices if i == axis else xp.arange(n).reshape([-1 if j == i else 1 for j in range(ndim)]) for i, n in enumerate(shape_of(x))]
    return _getitem(x, *grid, key=(ARRAY,) * ndim, source=shape_of(x), unique=unique)


_argsort = constant("argsort", lambda x, *, axis: namespace(x).argsort(x, axis=axis, kind="stable"), samples=[Sample((3, 4), axis=-1)])


def argsort(x: Any, axis: int | None = -1, kind: str | None = None, *, stable: bool | None = None) -> Any:
    """The indices that sort ``x`` along ``axis``, flattened if that is None; nan last; always stable, whatever ``kind`` and ``stable`` are.
    The result is untracked. See :func:`numpy.argsort`."""
    x, axis = (ravel(x), 0) if axis is None else (as_array(x), axis)
    return _argsort(x, axis=axis)


def sort(x: Any, axis: int | None = -1, kind: str | None = None, *, stable: bool | None = None) -> Any:
    """``x`` in ascending order along ``axis``, flattened if that is None; equal elements keep their order, whatever ``kind`` and ``stable``
    are, and their derivatives. See :func:`numpy.sort`."""
    x, axis = (ravel(x), 0) if axis is None else (as_array(x), axis)
    return _take_along_axis(x, argsort(x, axis), axis, unique=True)


# ---------------------------------------------------------------------------------- selection


def compress(condition: Any, x: Any, axis: int | None = None) -> Any:
    """The items along ``axis`` where the vector ``condition`` holds; it may be shorter than the axis. See :func:`numpy.compress`."""
    x, condition = as_array(x), as_array(condition)
    if len(shape_of(condition)) != 1:
        raise ValueError(f"compress: got a condition of shape {shape_of(condition)}, expected one axis; x[condition] takes a mask of any shape")
    if axis is None:
        x, axis = ravel(x), 0
    axis = normalize_axis_index(axis, len(shape_of(x)))
    return _getitem(x, *ew.nonzero(condition), key=along(axis, ARRAY), source=shape_of(x), unique=True)


def extract(condition: Any, x: Any) -> Any:
    """The elements where ``condition`` holds, in order, as a vector. See :func:`numpy.extract`."""
    return compress(ravel(condition), x)


def delete(x: Any, obj: Any, axis: int | None = None) -> Any:
    """``x`` without the items that ``obj`` (an integer, slice, mask or array of integers) picks along ``axis``. See :func:`numpy.delete`."""
    x = as_array(x)
    if axis is None:
        x, axis = ravel(x), 0
    axis = normalize_axis_index(axis, len(shape_of(x)))
    keep = namespace(plain(x)).ones(shape_of(x)[axis], bool)
    keep[plain_index(obj)] = False
    return getitem(x, along(axis, keep))


def insert(x: Any, obj: Any, values: Any, axis: int | None = None) -> Any:
    """``x`` with ``values`` before the places ``obj`` (an integer, slice, mask or vector of integers) along ``axis``. See :func:`numpy.insert`.

    Raises:
        IndexError: a place is out of range.
    """
    x = as_array(x)
    if axis is None:
        x, axis = ravel(x), 0
    ndim = len(shape_of(x))
    axis = normalize_axis_index(axis, ndim)
    length = shape_of(x)[axis]
    places = np.asarray(range(length)[obj] if isinstance(obj, slice) else backend.to_device(plain(as_array(obj)), "cpu"))
    places = np.flatnonzero(places) if places.dtype.kind == "b" else places.astype(np.intp)
    values = _cast_for(x, values)
    values = reshape(values, (1,) * (ndim - len(shape_of(values))) + shape_of(values))
    if places.ndim == 0:
        values = moveaxis(values, 0, axis)
    if places.size == 1:  # all values go to one place
        places = np.repeat(places, shape_of(values)[axis])
    if np.any((places < -length) | (places > length)):
        raise IndexError(f"insert: got places {places.tolist()} along axis {axis} of length {length}, expected {-length} to {length}")
    places = np.where(places < 0, places + length, places)
    values = broadcast_to(values, (*shape_of(x)[:axis], places.size, *shape_of(x)[axis + 1 :]))
    order = np.argsort(np.concatenate([np.arange(length) + 0.5, places]), kind="stable")
    both = concatenate([x, values], axis)
    return _getitem(both, namespace(plain(x)).asarray(order), key=along(axis, ARRAY), source=shape_of(both), unique=True)
