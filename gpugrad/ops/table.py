"""Rows of a table by their numbers, and products of two arrays with a weight of three axes."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpugrad.backend import namespace
from gpugrad.ops.elementwise import multiply, not_equal, where
from gpugrad.ops.fit import dtype_of, shape_of
from gpugrad.ops.index import getitem
from gpugrad.ops.linear import linear
from gpugrad.ops.shape import as_array, expand_dims, reshape
from gpugrad.tape import plain


def embedding(indices: Any, weight: Any, padding_idx: int | None = None) -> Any:
    """``weight[indices]``, rows of a weight of shape (count, width) for integers of any shape; the row ``padding_idx`` gets no derivative.

    Raises:
        IndexError: the indices are not integers, or not from 0 to count - 1. Indices on a GPU are not looked at: those out of range wrap round.
    """
    indices, count = as_array(indices), shape_of(weight)[0]
    values = plain(indices)
    if dtype_of(indices).kind not in "iu":
        raise IndexError(f"embedding: got indices of dtype {dtype_of(indices)}, expected integers")
    if namespace(values) is np and values.size and not 0 <= values.min() <= values.max() < count:
        at = tuple(int(i) for i in np.argwhere((values < 0) | (values >= count))[0])
        raise IndexError(f"embedding: got index {values[at]} at position {at if len(at) != 1 else at[0]}, expected 0 to {count - 1}")
    rows = getitem(weight, indices)
    if padding_idx is None:
        return rows
    return where(expand_dims(not_equal(indices, padding_idx % count), -1), rows, plain(rows))


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
