"""Sorting, and taking items along an axis: by indices, by a condition, all but some, with others between. Names and arguments are NumPy's."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_index

from gpugrad import backend
from gpugrad.backend import namespace
from gpugrad.ops import elementwise as ew
from gpugrad.ops.batch import leading, same_for_all, shift
from gpugrad.ops.fit import astype, broadcast_to, dtype_of, shape_of
from gpugrad.ops.index import cast_for, getitem, getitem_op
from gpugrad.ops.keys import ARRAY, plain_index
from gpugrad.ops.rules import Sample, constant
from gpugrad.ops.shape import along, as_array, concatenate, moveaxis, ravel, reshape
from gpugrad.tape import plain

__all__ = ["argsort", "compress", "delete", "extract", "insert", "sort", "take", "take_along_axis"]

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
    return getitem_op(x, *grid, key=(ARRAY,) * ndim, source=shape_of(x), unique=unique)


_argsort = constant(
    "argsort", lambda x, *, axis: namespace(x).argsort(x, axis=axis, kind="stable"), samples=[Sample((3, 4), axis=-1)], batch=leading(axis=shift)
)


def argsort(x: Any, axis: int | None = -1, kind: str | None = None, *, stable: bool | None = None) -> Any:
    """The indices that sort ``x`` along ``axis``, flattened if that is None; nan last; always stable, whatever ``kind`` and ``stable`` are.
    The result is untracked. See :func:`numpy.argsort`."""
    x = as_array(x)
    x, axis = (ravel(x), 0) if axis is None or not shape_of(x) else (x, axis)
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
    return getitem_op(x, *ew.nonzero(condition), key=along(axis, ARRAY), source=shape_of(x), unique=True)


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
    places = np.asarray(range(length)[obj] if isinstance(obj, slice) else backend.to_device(same_for_all(as_array(obj), "places to insert at"), "cpu"))
    places = np.flatnonzero(places) if places.dtype.kind == "b" else places.astype(np.intp)
    values = cast_for(x, values)
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
    return getitem_op(both, namespace(plain(x)).asarray(order), key=along(axis, ARRAY), source=shape_of(both), unique=True)
