"""Indexing, basic and advanced, its transpose, functional updates, sorting.

``getitem`` and ``scatter_add`` are each other's transpose: a gather, and a scatter into zeros in which repeated indices accumulate.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_index

from gpugrad import backend
from gpugrad.backend import namespace
from gpugrad.ops import elementwise as ew
from gpugrad.ops.fit import Shape, add, astype, broadcast_to, dtype_of, shape_of, zeros_like
from gpugrad.ops.rules import Sample, constant, general
from gpugrad.ops.shape import as_array, ravel, reshape
from gpugrad.tape import Tensor, as_value, plain

ARRAY = object()  # stands in a key for an index array, which is an argument of the operation


def _filled(key: Any, arrays: Any) -> Any:
    rest = iter(arrays)
    return tuple([next(rest) if k is ARRAY else k for k in key])


def _scatter_add(g: Any, *arrays: Any, key: Any, source: Shape, unique: bool) -> Any:
    xp = namespace(g)
    index = _filled(key, arrays)
    wide = np.float32 if g.dtype.itemsize == 2 and not unique else g.dtype
    y = xp.zeros(source, wide)
    if unique:
        y[index] = g
    else:
        np.add.at(y, index, g)
    return y.astype(g.dtype, copy=False)


_getitem = general(
    "getitem",
    lambda x, *arrays, key, source, unique: x[_filled(key, arrays)],
    [lambda g, _y, _x, *arrays, **params: _scatter(g, *arrays, **params)],
    [lambda t, _y, _x, *arrays, **params: _getitem(t, *arrays, **params)],
    samples=[Sample((3, 4), key=(slice(None, None, -1), 2), source=(3, 4), unique=True)],
)
_scatter = general(
    "scatter_add",
    _scatter_add,
    [lambda g, _y, _x, *arrays, **params: _getitem(g, *arrays, **params)],
    [lambda t, _y, _x, *arrays, **params: _scatter(t, *arrays, **params)],
    samples=[Sample((3,), key=(slice(None, None, -1), 2), source=(3, 4), unique=True)],
)


def plain_index(key: Any) -> Any:
    """``key`` with plain arrays in the place of Tensors, and integers in the place of 0-d integer Tensors."""
    if type(key) is tuple:
        return tuple([plain_index(k) for k in key])
    if isinstance(key, slice):
        return slice(*(plain_index(k) for k in (key.start, key.stop, key.step)))
    if type(key) is not Tensor:
        return key
    key = plain(key)
    return int(key) if key.ndim == 0 and key.dtype.kind in "iu" else key


def _split_key(key: Any) -> tuple[tuple[Any, ...], list[Any], bool]:
    """The key as a tuple with ARRAY for its index arrays, those arrays, and whether no element can be meant twice."""
    parts, arrays, unique = [], [], True
    for k in key if type(key) is tuple else (key,):
        if isinstance(k, (list, range)):
            k = np.asarray(k, np.intp if len(k) == 0 else None)
        if type(k) is Tensor or isinstance(k, slice):
            k = k if type(k) is Tensor and k.ndim else plain_index(k)
        if type(k) is Tensor or backend.is_array(k):
            if k.ndim == 0 and k.dtype.kind in "iu":
                k = int(k)
            else:
                arrays.append(k)
                unique = unique and (k.dtype.kind == "b" or k.size < 2)
                k = ARRAY
        parts.append(k)
    return tuple(parts), arrays, unique


def getitem(x: Any, key: Any) -> Any:
    """``x[key]`` with NumPy's basic and advanced indexing; in the derivative repeated indices accumulate."""
    key, arrays, unique = _split_key(key)
    return _getitem(as_array(x), *arrays, key=key, source=shape_of(x), unique=unique)


class At:
    """``x.at[key]``: what functional updates start from."""

    def __init__(self, x: Any) -> None:
        self.x = x

    def __getitem__(self, key: Any) -> Elements:
        return Elements(self.x, key)


class Elements:
    """Elements of an array, to be read or changed in a copy."""

    def __init__(self, x: Any, key: Any) -> None:
        self.x, self.key = x, key

    def get(self) -> Any:
        """``x[key]``."""
        return getitem(self.x, self.key)

    def add(self, v: Any) -> Any:
        """``x`` with ``v`` added to the elements, as often as the key names them."""
        key, arrays, unique = _split_key(self.key)
        v = broadcast_to(astype(as_array(v), self.x.dtype), shape_of(self.get()))
        return add(self.x, _scatter(v, *arrays, key=key, source=shape_of(self.x), unique=unique))

    def set(self, v: Any) -> Any:
        """``x`` with ``v`` in the place of the elements."""
        written = np.zeros(shape_of(self.x), bool)
        written[plain_index(self.key)] = True
        return ew.where(written, At(zeros_like(self.x))[self.key].add(v), self.x)

    def multiply(self, v: Any) -> Any:
        """``x`` with the elements multiplied by ``v``."""
        return self.set(ew.multiply(self.get(), v))


def take(x: Any, indices: Any, axis: int | None = None, mode: str = "raise") -> Any:
    """The elements at ``indices`` along ``axis``. See :func:`numpy.take`."""
    x = as_array(x)
    if axis is None:
        x, axis = ravel(x), 0
    axis = normalize_axis_index(axis, len(shape_of(x)))
    n = shape_of(x)[axis]
    if mode == "wrap":
        indices = ew.remainder(indices, n)
    elif mode == "clip":
        indices = ew.clip(indices, 0, n - 1)
    return getitem(x, (slice(None),) * axis + (indices,))


def take_along_axis(x: Any, indices: Any, axis: int | None = -1) -> Any:
    """See :func:`numpy.take_along_axis`."""
    if axis is None:
        x, indices, axis = ravel(x), ravel(indices), 0
    ndim = len(shape_of(x))
    axis = normalize_axis_index(axis, ndim)
    key = tuple(indices if i == axis else np.arange(n).reshape([-1 if j == i else 1 for j in range(ndim)]) for i, n in enumerate(shape_of(x)))
    return getitem(x, key)


argsort = constant("argsort", lambda x, axis=-1: namespace(x).argsort(x, axis=axis, kind="stable"), samples=[Sample((3, 4))])


def sort(x: Any, axis: int | None = -1) -> Any:
    """Sorted copy. See :func:`numpy.sort`."""
    return take_along_axis(x, argsort(x, axis=axis), axis)


def compress(condition: Any, x: Any, axis: int | None = None) -> Any:
    """See :func:`numpy.compress`."""
    return take(x, np.flatnonzero(plain(condition)), axis)


def extract(condition: Any, x: Any) -> Any:
    """See :func:`numpy.extract`."""
    return getitem(x, plain(condition))
