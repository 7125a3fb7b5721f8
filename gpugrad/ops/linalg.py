"""Products of matrices and vectors, norms, inverses and determinants; see :mod:`numpy.linalg`.

The core product sees operands of two axes or more. Where only the left one is a batch it is flattened, so that the product and
the derivative of the right operand (a weight) are one GEMM each. Transposes are views.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_index, normalize_axis_tuple

from gpugrad import tape
from gpugrad.backend import namespace
from gpugrad.ops import reduce
from gpugrad.ops.elementwise import absolute, conj, equal, imag, multiply, not_equal, power, real, sign, strong_multiply, where
from gpugrad.ops.fit import astype, dtype_of, shape_of
from gpugrad.ops.reduce import Axis
from gpugrad.ops.rules import Sample, general
from gpugrad.ops.shape import diagonal, expand_dims, matrix_transpose, moveaxis, ravel, reshape, transpose
from gpugrad.tape import binary, is_inexact


def _array(x: Any) -> Any:
    return x if hasattr(x, "shape") else np.asarray(x)


# ---- matmul: dA = G B', dB = A' G


def matmul_value(a: Any, b: Any) -> Any:
    """The product of plain arrays; 16-bit floats accumulate in float32 (CuPy's cuBLAS does so by itself)."""
    if a.dtype.itemsize == 2 and namespace(a) is np and is_inexact(a.dtype):
        dtype = np.result_type(a, b)
        return np.matmul(a.astype(np.float32), b.astype(np.promote_types(np.float32, b.dtype))).astype(dtype)
    return np.matmul(a, b)


def _left(g: Any, _y: Any, _a: Any, b: Any) -> Any:
    return matmul(g, matrix_transpose(b))


def _right(g: Any, _y: Any, a: Any, _b: Any) -> Any:
    return matmul(matrix_transpose(a), g)


_matmul = binary(
    general(
        "matmul",
        matmul_value,
        [_left, _right],
        [lambda t, _y, _a, b: matmul(t, b), lambda t, _y, a, _b: matmul(a, t)],
        samples=[Sample((3, 4), (4, 2)), Sample((2, 3, 4), (2, 4, 2)), Sample((2, 1, 3, 4), (5, 4, 2)), Sample((3, 0), (0, 2)), Sample((3, 4), (2, 4, 2))],
    )
)


def matmul(a: Any, b: Any) -> Any:
    """The matrix product; operands of more than two axes are batches of matrices that broadcast. See :func:`numpy.matmul`.

    Raises:
        ValueError: the shapes do not fit.
    """
    a, b = _array(a), _array(b)
    m, n = shape_of(a), shape_of(b)
    try:
        if len(m) == len(n) == 2:
            return _matmul(a, b)
        if len(m) < 2 or len(n) < 2:
            return _matmul_vector(a, b)
        if len(m) > 2 and math.prod(n[:-2]) == 1:
            lead = np.broadcast_shapes(m[:-2], n[:-2])
            flat = _matmul(reshape(a, (math.prod(m[:-1]), m[-1])), reshape(b, n[-2:]))
            return reshape(flat, (*lead, m[-2], n[-1]))
        return _matmul(a, b)
    except ValueError:
        raise ValueError(
            f"matmul: got operands of shapes {m} and {n}, expected (..., n, k) and (..., k, m), or (k,) in place of either, with axes before the last two that broadcast"
        ) from None


def _matmul_vector(a: Any, b: Any) -> Any:
    """Where an operand is 1-D: a row on the left, a column on the right, whose axis goes again."""
    m, n = shape_of(a), shape_of(b)
    if not m or not n:
        raise ValueError
    y = matmul(reshape(a, (1, *m)) if len(m) == 1 else a, reshape(b, (*n, 1)) if len(n) == 1 else b)
    shape = shape_of(y)
    if len(n) == 1:
        shape = shape[:-1]
    if len(m) == 1:
        shape = (*shape[:-2], *shape[-1:]) if len(n) > 1 else shape[:-1]
    return reshape(y, shape)


def dot(a: Any, b: Any) -> Any:
    """The product over the last axis of ``a`` and the last but one of ``b``; see :func:`numpy.dot`."""
    a, b = _array(a), _array(b)
    if not shape_of(a) or not shape_of(b):
        return multiply(a, b)
    if len(shape_of(b)) <= 2:
        return matmul(a, b)
    return tensordot(a, b, (-1, -2))


def vdot(a: Any, b: Any) -> Any:
    """``sum(conj(a) * b)`` of the flattened arrays; see :func:`numpy.vdot`."""
    return matmul(ravel(conj(_array(a))), ravel(_array(b)))


def inner(a: Any, b: Any) -> Any:
    """The product over the last axes of both; see :func:`numpy.inner`."""
    a, b = _array(a), _array(b)
    return multiply(a, b) if not shape_of(a) or not shape_of(b) else tensordot(a, b, (-1, -1))


def outer(a: Any, b: Any) -> Any:
    """Every element of ``a`` times every element of ``b``, of shape (a.size, b.size); see :func:`numpy.outer`."""
    a, b = ravel(_array(a)), ravel(_array(b))
    return matmul(expand_dims(a, 1), expand_dims(b, 0))


def tensordot(a: Any, b: Any, axes: Any = 2) -> Any:
    """The product over ``axes``: the last n of ``a`` and the first n of ``b``, or a pair of axes or of lists of axes. See :func:`numpy.tensordot`."""
    a, b = _array(a), _array(b)
    m, n = shape_of(a), shape_of(b)
    if isinstance(axes, (int, np.integer)):
        axes = (tuple(range(len(m) - axes, len(m))), tuple(range(axes)))
    over_a, over_b = normalize_axis_tuple(axes[0], len(m)), normalize_axis_tuple(axes[1], len(n))
    if [m[i] for i in over_a] != [n[i] for i in over_b]:
        raise ValueError(f"tensordot: got operands of shapes {m} and {n} and axes {over_a} and {over_b}, expected axes of the same lengths")
    free_a, free_b = ([i for i in range(len(s)) if i not in o] for s, o in ((m, over_a), (n, over_b)))
    k = math.prod([m[i] for i in over_a])
    rows, columns = [m[i] for i in free_a], [n[i] for i in free_b]
    left = reshape(transpose(a, (*free_a, *over_a)), (math.prod(rows), k))
    right = reshape(transpose(b, (*over_b, *free_b)), (k, math.prod(columns)))
    return reshape(_matmul(left, right), (*rows, *columns))


def kron(a: Any, b: Any) -> Any:
    """The Kronecker product; see :func:`numpy.kron`."""
    a, b = _array(a), _array(b)
    m, n = shape_of(a), shape_of(b)
    m, n = (1,) * (len(n) - len(m)) + m, (1,) * (len(m) - len(n)) + n
    product = reshape(a, [k for i in m for k in (i, 1)]) * reshape(b, [k for j in n for k in (1, j)])
    return reshape(product, [i * j for i, j in zip(m, n, strict=True)])


def cross(a: Any, b: Any, axis: int = -1) -> Any:
    """The vector product of vectors of 3 elements along ``axis``; see :func:`numpy.linalg.cross`."""
    a, b = moveaxis(_array(a), axis, -1), moveaxis(_array(b), axis, -1)
    if a.shape[-1] != 3 or b.shape[-1] != 3:
        raise ValueError(f"cross: got vectors of {a.shape[-1]} and {b.shape[-1]} elements, expected 3")
    return moveaxis(a[..., [1, 2, 0]] * b[..., [2, 0, 1]] - a[..., [2, 0, 1]] * b[..., [1, 2, 0]], -1, axis)


def multi_dot(arrays: Any) -> Any:
    """The product of several matrices (the first and last may be vectors), in the cheapest order; see :func:`numpy.linalg.multi_dot`."""
    from gpugrad.ops.einsum import multi_dot

    return multi_dot(arrays)


def trace(x: Any, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Any:
    """The sum of a diagonal; see :func:`numpy.trace`."""
    return reduce.sum(diagonal(_array(x), offset, axis1, axis2), -1)


# ---- norms


def _unit(x: Any, y: Any) -> Any:
    y = where(equal(y, 0), 1.0, y)
    return conj(x) / y if dtype_of(x).kind == "c" else x / y


def _norm_value(x: Any, *, axis: tuple[int, ...], keepdims: bool) -> Any:
    a = np.abs(x)
    if not a.size:
        return a.sum(axis=axis, keepdims=keepdims)
    largest = a.max(axis=axis, keepdims=True)
    scale = np.where(largest > 0, largest, 1) if namespace(x) is np else namespace(x).where(largest > 0, largest, 1)
    y = np.sqrt(np.square(a / scale).sum(axis=axis, keepdims=True)) * scale
    y = y.astype(a.dtype)
    return y if keepdims else y.reshape([n for i, n in enumerate(x.shape) if i not in axis])


def _norm_vjp(g: Any, y: Any, x: Any, *, axis: tuple[int, ...], keepdims: bool) -> Any:
    y, g = (a if keepdims else expand_dims(a, axis) for a in (y, g))
    return where(equal(y, 0), 0.0, g) * _unit(x, y)


def _norm_jvp(t: Any, y: Any, x: Any, *, axis: tuple[int, ...], keepdims: bool) -> Any:
    product = _unit(x, y if keepdims else expand_dims(y, axis)) * t
    s = reduce.sum(real(product) if dtype_of(x).kind == "c" else product, axis, keepdims=keepdims)
    return where(equal(y, 0), 0.0, s)


_norm = general("norm", _norm_value, [_norm_vjp], [_norm_jvp], samples=[Sample((3, 4), axis=(0, 1), keepdims=False), Sample((3, 4), axis=(1,), keepdims=True)])


def norm(x: Any, ord: Any = None, axis: Axis = None, keepdims: bool = False) -> Any:
    """The norm of a vector or matrix; see :func:`numpy.linalg.norm`. Its derivative at 0 is 0."""
    x = _array(x)
    axes = reduce._axes(x, axis)
    if ord is None or ord in (2, "fro"):
        return _norm(x, axis=axes, keepdims=keepdims)
    if ord == np.inf:
        return reduce.max(absolute(x), axes, keepdims=keepdims)
    if ord == -np.inf:
        return reduce.min(absolute(x), axes, keepdims=keepdims)
    if ord == 1:
        return reduce.sum(absolute(x), axes, keepdims=keepdims)
    return power(reduce.sum(power(absolute(x), ord), axes, keepdims=keepdims), 1 / ord)
