"""Rows of a table by their numbers, and products of two arrays with a weight of three axes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from gpugrad.backend import check_integer, namespace
from gpugrad.kernels import segments as kernels
from gpugrad.ops.batch import leading, repeated
from gpugrad.ops.elementwise import equal, multiply, where
from gpugrad.ops.fit import add, dtype_of, shape_of
from gpugrad.ops.index import pick_rows, sum_rows
from gpugrad.ops.linear import linear
from gpugrad.ops.rules import Sample, constant, general
from gpugrad.ops.shape import as_array, expand_dims, reshape
from gpugrad.tape import Op, plain


def _rows(w: Any, i: Any, *, count: int, skip: int | None, value: bool) -> Any:
    y = pick_rows(w.reshape(count, math.prod(w.shape[1:])), i, skip=None if value else skip, from_end=False, name="embedding")
    return y.reshape(i.shape + w.shape[1:])


def _table(g: Any, i: Any, *, count: int, skip: int | None) -> Any:
    item = g.shape[i.ndim :]
    return sum_rows(g.reshape(i.size, math.prod(item)), i.ravel(), count, skip=skip, name="embedding").reshape(count, *item)


def _in_tables(i: Any, size: int, count: int) -> Any:
    """Indices (size or 1, ...) of a table for each example, as those of one that all of these make up."""
    at = _checked(i, count=count, instead=size * count)
    return add(at, namespace(plain(at)).arange(size).reshape(-1, *[1] * (len(shape_of(at)) - 1)) * count)


def _rows_of_tables(op: Op, size: int, batched: Any, args: Any, params: dict[str, Any]) -> Any:
    """Tables that differ are one table, of as many rows as they have together."""
    (w, i), count, skip = args, params["count"], None if params["value"] else params["skip"]
    if not batched[0]:
        return op(w, i, **params)
    i = i if batched[1] else expand_dims(i, 0)
    y = op(reshape(w, (size * count, *w.shape[2:])), _in_tables(i, size, count), count=size * count, skip=None, value=True)
    return y if skip is None else _without(skip, i, y)


def _sums_of_tables(op: Op, size: int, batched: Any, args: Any, params: dict[str, Any]) -> Any:
    (g, i), count, skip = args, params["count"], params["skip"]
    g, i = g if batched[0] else repeated(g, size), i if batched[1] else expand_dims(i, 0)
    y = op(g if skip is None else _without(skip, i, g), _in_tables(i, size, count), count=size * count, skip=None)
    return reshape(y, (size, count, *y.shape[1:]))


def _without(skip: int, i: Any, y: Any) -> Any:
    """Zeros among the items y where the index is ``skip``."""
    shape = shape_of(i)
    return where(reshape(equal(i, skip), (*shape, *[1] * (len(y.shape) - len(shape)))), 0, y)


_INDICES = np.array([[3, 0, 3], [1, 1, 3]])
_embedding = general(
    "embedding",
    _rows,
    [lambda g, _y, _w, i, *, count, skip, value: _embedding_sum(g, i, count=count, skip=skip)],
    [lambda t, _y, _w, i, *, count, skip, value: _embedding(t, i, count=count, skip=skip, value=False)],
    samples=[Sample((4, 3), _INDICES, count=4, skip=skip, value=value) for skip, value in ((None, True), (1, False))],
    batch=_rows_of_tables,
    doc="``w[i]`` for a table w of ``count`` rows; zeros for the index ``skip`` where not ``value``, which is how the derivatives treat it in any case.",
)
_embedding_sum = general(
    "embedding_sum",
    _table,
    [lambda g, _y, _g, i, *, count, skip: _embedding(g, i, count=count, skip=skip, value=False)],
    [lambda t, _y, _g, i, *, count, skip: _embedding_sum(t, i, count=count, skip=skip)],
    samples=[Sample((2, 3, 2), _INDICES, count=4, skip=skip) for skip in (None, 1)],
    batch=_sums_of_tables,
    doc="The sums of the items of g that have one index, for each of ``count``; zeros for the index ``skip``.",
)
_checked = constant(
    "embedding_index",
    lambda i, *, count, instead: kernels.in_range(i, count, "embedding", instead, from_end=False),
    samples=[Sample(_INDICES, count=4, instead=4)],
    batch=leading(),
    doc="Integers from 0 to count - 1; others are refused, and ``instead`` is there on a GPU.",
)


def embedding(indices: Any, weight: Any, padding_idx: int | None = None) -> Any:
    """``weight[indices]``, rows of a weight of shape (count, width) for integers of any shape; the row ``padding_idx`` gets no derivative. The gradient has the same bits
    every time, however often an index is repeated.

    Raises:
        IndexError: the indices are not integers, or not from 0 to count - 1; on a GPU as in :func:`gpugrad.getitem`, with rows of nan.
        ValueError: ``padding_idx`` is not from -count to count - 1.
    """
    indices, weight = as_array(indices), as_array(weight)
    count = shape_of(weight)[0]
    if dtype_of(indices).kind not in "iu":
        raise IndexError(f"embedding: got indices of dtype {dtype_of(indices)}, expected integers")
    if padding_idx is not None:
        check_integer("embedding: padding_idx", padding_idx)
    if padding_idx is not None and not -count <= padding_idx < count:
        raise ValueError(f"embedding: got padding_idx={padding_idx}, expected {-count} to {count - 1}")
    return _embedding(weight, indices, count=count, skip=None if padding_idx is None else padding_idx % count, value=True)


def one_hot(indices: Any, num_classes: int = -1) -> Any:
    """A last axis of ``num_classes`` zeros, with a 1 at the index: int64 of shape (..., num_classes) for integers (...). With -1 there are as many as the largest
    index needs, which on a GPU waits for it. The result is a constant; ``astype`` makes floats of it.

    Raises:
        IndexError: the indices are not integers, or not from 0 to num_classes - 1; on a GPU as in :func:`gpugrad.getitem`, with zeros alone.
        ValueError: ``num_classes`` is below -1, or there are no indices to tell it.
    """
    indices = as_array(indices)
    if dtype_of(indices).kind not in "iu":
        raise IndexError(f"one_hot: got indices of dtype {dtype_of(indices)}, expected integers")
    check_integer("one_hot: num_classes", num_classes)
    values = plain(indices)
    if num_classes < -1 or (num_classes == -1 and not values.size):
        raise ValueError(
            f"one_hot: got num_classes={num_classes} for indices of shape {indices.shape}, expected the number of classes, or -1 where there are indices"
        )
    return _one_hot(indices, count=int(values.max()) + 1 if num_classes == -1 else num_classes)


def _hot(i: Any, *, count: int) -> Any:
    i = kernels.in_range(i, count, "one_hot", -1, from_end=False)
    return (i[..., None] == namespace(i).arange(count)).astype(np.int64)


_one_hot = constant("one_hot", _hot, samples=[Sample(_INDICES, count=4)], batch=leading())


def bilinear(x1: Any, x2: Any, weight: Any, bias: Any = None) -> Any:
    """``y_k = sum_ij x1_i W_ijk x2_j + b_k`` for x1 (..., in1), x2 (..., in2), weight (in1, in2, out), bias (out,) or None.

    It is the linear layer of all products x1_i x2_j.

    Raises:
        ValueError: the shapes do not fit.
    """
    a, b, w = shape_of(x1), shape_of(x2), shape_of(weight)
    if len(w) != 3 or a[-1:] != w[:1] or b != (*a[:-1], w[1]) or (bias is not None and shape_of(bias) != w[2:]):
        raise ValueError(
            f"bilinear: got x1 of shape {a}, x2 {b}, weight {w}, bias {None if bias is None else shape_of(bias)}; "
            "expected x1 (..., in1), x2 (..., in2), weight (in1, in2, out), bias (out,)"
        )
    products = multiply(expand_dims(as_array(x1), -1), expand_dims(as_array(x2), -2))
    return linear(reshape(products, (*a[:-1], w[0] * w[1])), reshape(weight, (w[0] * w[1], w[2])), bias)
