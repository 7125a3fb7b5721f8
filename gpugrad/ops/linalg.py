"""Products of matrices and vectors, norms, inverses and determinants; see :mod:`numpy.linalg`.

The core product sees operands of two axes or more. Where only one operand is a batch it is flattened, so that the product
and the derivative of the other operand (a weight) are one GEMM each, never a batch of matrices that is then summed.
Transposes are views. What would have to be copied to be flattened stays a batch, unless that other operand has a derivative.
"""

from __future__ import annotations

import builtins
import functools
import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_tuple

from gpugrad import blas
from gpugrad.backend import namespace
from gpugrad.kernels import reductions
from gpugrad.kernels.outer import outer as outer_products
from gpugrad.ops.batch import aligned, leading, shift, spread
from gpugrad.ops.elementwise import absolute, equal, greater, multiply, power, real, sign, where
from gpugrad.ops.elementwise import imag as imag_part
from gpugrad.ops.fit import Shape, astype, dtype_of, is_half, shape_of, total_of, zeros_like
from gpugrad.ops.reduce import Axis, axes_of, conjugated, count_nonzero, max, min, real_dot, reduced_shape, refuse, restored, sum
from gpugrad.ops.rules import Sample, general
from gpugrad.ops.shape import as_array, expand_dims, matrix_transpose, moveaxis, ravel, reshape, trace, transpose
from gpugrad.tape import Op, binary, constant, is_inexact, is_tracked, plain

__all__ = ["cross", "dot", "inner", "kron", "matmul", "outer", "tensordot", "trace", "vdot", "vecdot"]  # gg.linalg has these and the rest

# ---- matmul: dA = G B', dB = A' G

_LARGE = 1 << 14  # elements of a matrix


def matmul_value(a: Any, b: Any) -> Any:
    """The product of plain arrays; 16-bit floats accumulate in float32. cuBLAS does so by itself; of batches CuPy does it for float16, and has none of bfloat16."""
    if is_half(a.dtype) and is_half(b.dtype) and (namespace(a) is np or a.ndim > 2 or b.ndim > 2):
        return blas.matmul(a.astype(np.float32), b.astype(np.float32)).astype(np.result_type(a, b))
    if a.ndim == b.ndim == 3 and a.shape[2] == 1 and a.shape[0] == b.shape[0] and a.dtype == b.dtype and a.size * b.shape[2] >= _LARGE:
        return outer_products(a[:, :, 0], b[:, 0])
    return blas.matmul(a, b)


def product_tangent(t_a: Any, t_b: Any, a: Any, b: Any) -> Any:
    """The tangent of ``a b`` from theirs; None is zero, and one of them is not."""
    if t_a is None or t_b is None:
        return matmul(a, t_b) if t_a is None else matmul(t_a, b)
    return _sum_of_products(t_a, b, a, t_b)


def _sum_of_products_value(a: Any, b: Any, c: Any, d: Any) -> Any:
    y = matmul(a, b)
    shape = (*np.broadcast_shapes(c.shape[:-2], d.shape[:-2]), c.shape[-2], d.shape[-1])
    if y.shape != shape or y.dtype != np.result_type(c, d):
        return y + matmul(c, d)
    if y.ndim == 3 and namespace(y) is np and math.prod(shape[1:]) >= _LARGE:
        for i in range(len(y)):  # one matrix after the other, which is added while it lies in the cache
            y[i] += matmul_value(c if c.ndim == 2 else c[i % len(c)], d if d.ndim == 2 else d[i % len(d)])
    else:
        y += matmul(c, d)
    return y


def _sum_of_products_jvp(tangents: Sequence[Any], _y: Any, a: Any, b: Any, c: Any, d: Any) -> Any:
    t_a, t_b, t_c, t_d = tangents
    first = None if t_a is None and t_b is None else product_tangent(t_a, t_b, a, b)
    return total_of(first, None if t_c is None and t_d is None else product_tangent(t_c, t_d, c, d))


def _batched_product(op: Op, _size: int, batched: Sequence[bool], args: Sequence[Any], _params: Any) -> Any:
    """A batch of matrices is what matmul takes, and makes one GEMM of where it can."""
    ndim = builtins.max(len(v.shape) - many for v, many in zip(args, batched, strict=True))
    return (matmul if len(args) == 2 else op)(*[aligned(v, ndim) if many else v for v, many in zip(args, batched, strict=True)])


matrix_product = binary(  # of two matrices, or batches of them, that are known to fit
    general(
        "matmul",
        matmul_value,
        [lambda g, _y, _a, b: matmul(g, matrix_transpose(b)), lambda g, _y, a, _b: matmul(matrix_transpose(a), g)],
        lambda tangents, _y, a, b: product_tangent(tangents[0], tangents[1], a, b),
        batch=_batched_product,
        samples=[Sample((3, 4), (4, 2)), Sample((2, 3, 4), (2, 4, 2)), Sample((2, 1, 3, 4), (5, 4, 2)), Sample((3, 0), (0, 2)), Sample((1, 1), (1, 1))],
    )
)

_sum_of_products = general(
    "sum_of_products",
    _sum_of_products_value,
    [
        lambda g, _y, _a, b, _c, _d: matmul(g, matrix_transpose(b)),
        lambda g, _y, a, _b, _c, _d: matmul(matrix_transpose(a), g),
        lambda g, _y, _a, _b, _c, d: matmul(g, matrix_transpose(d)),
        lambda g, _y, _a, _b, c, _d: matmul(matrix_transpose(c), g),
    ],
    _sum_of_products_jvp,
    batch=_batched_product,
    samples=[Sample((3, 4), (4, 2), (3, 5), (5, 2)), Sample((2, 3, 4), (4, 2), (3, 5), (2, 5, 2)), Sample((3, 4), (4, 2), (2, 3, 1), (2, 1, 2))],
    doc="``a b + c d`` of matrices, or batches of them.",
)


def matmul(a: Any, b: Any) -> Any:
    """The matrix product; operands of more than two axes are batches of matrices that broadcast. See :func:`numpy.matmul`.

    Raises:
        ValueError: the shapes do not fit.
    """
    a, b = as_array(a), as_array(b)
    m, n = a.shape, b.shape
    if not m or not n or m[-1] != n[-2 if len(n) > 1 else 0]:
        raise _misfit(m, n)
    if len(m) == len(n) == 2:
        return matrix_product(a, b)
    if len(m) == 1 or len(n) == 1:
        return _matmul_vector(a, b)
    try:
        lead = np.broadcast_shapes(m[:-2], n[:-2])
    except ValueError:
        raise _misfit(m, n) from None
    if math.prod(n[:-2]) == 1 and (is_tracked(b) or _is_one_matrix(a)):
        flat = matrix_product(reshape(a, (math.prod(m[:-1]), m[-1])), reshape(b, n[-2:]))
        return reshape(flat, (*lead, m[-2], n[-1]))
    if len(m) == 2 and (
        is_tracked(a) or n[-1] == 1
    ):  # a weight on the left, or a matrix times many columns: by B' A', of which the product and the derivative by A are one GEMM
        return matrix_transpose(matmul(matrix_transpose(b), matrix_transpose(a)))
    return matrix_product(a, b)


def _is_one_matrix(a: Any) -> bool:
    """Whether the rows of all matrices of a batch are those of one matrix, as they lie in memory."""
    a = plain(a)
    steps = [(n, step) for n, step in zip(a.shape[:-1], a.strides[:-1], strict=True) if n != 1]
    return all(step == n * inner for (_, step), (n, inner) in itertools.pairwise(steps))


def _matmul_vector(a: Any, b: Any) -> Any:
    """An operand with one axis is a row on the left, a column on the right, and that axis goes again."""
    m, n = a.shape, b.shape
    y = matmul(reshape(a, (1, *m)) if len(m) == 1 else a, reshape(b, (*n, 1)) if len(n) == 1 else b)
    rows = y.shape[:-2] if len(m) == 1 else y.shape[:-1]
    return reshape(y, rows if len(n) == 1 else (*rows, n[-1]))


def _misfit(m: Shape, n: Shape) -> ValueError:
    return ValueError(
        f"matmul: got operands of shapes {tuple(m)} and {tuple(n)}, expected (..., n, k) and (..., k, m), where (k,) may stand for a row on the left "
        "or a column on the right, and the axes before the last two broadcast"
    )


def dot(a: Any, b: Any) -> Any:
    """The product over the last axis of ``a`` and the last but one of ``b``; see :func:`numpy.dot`."""
    if not shape_of(a) or not shape_of(b):
        return multiply(a, b)
    return matmul(a, b) if len(shape_of(b)) <= 2 else tensordot(a, b, (-1, -2))


def vdot(a: Any, b: Any) -> Any:
    """``sum(conj(a) * b)`` of the flattened arrays; see :func:`numpy.vdot`."""
    return matmul(conjugated(ravel(a)), ravel(b))


def vecdot(a: Any, b: Any, axis: int = -1) -> Any:
    """``sum(conj(a) * b)`` over one axis; see :func:`numpy.vecdot`."""
    return sum(conjugated(as_array(a)) * as_array(b), axis)


def inner(a: Any, b: Any) -> Any:
    """The product over the last axes of both; see :func:`numpy.inner`."""
    return multiply(a, b) if not shape_of(a) or not shape_of(b) else tensordot(a, b, (-1, -1))


def outer(a: Any, b: Any) -> Any:
    """Every element of ``a`` times every element of ``b``, of shape (a.size, b.size); see :func:`numpy.outer`."""
    return matmul(expand_dims(ravel(a), 1), expand_dims(ravel(b), 0))


def tensordot(a: Any, b: Any, axes: Any = 2) -> Any:
    """The product over ``axes``: the last n of ``a`` and the first n of ``b``, or a pair of axes or of lists of axes. See :func:`numpy.tensordot`.

    Raises:
        ValueError: axes that are summed together differ in length.
    """
    a, b = as_array(a), as_array(b)
    m, n = a.shape, b.shape
    if isinstance(axes, (int, np.integer)):
        axes = (range(len(m) - axes, len(m)), range(axes))
    over_a, over_b = normalize_axis_tuple(axes[0], len(m)), normalize_axis_tuple(axes[1], len(n))
    if [m[i] for i in over_a] != [n[i] for i in over_b]:
        raise ValueError(f"tensordot: got operands of shapes {m} and {n} and axes {axes}, expected pairs of axes of one length")
    free_a, free_b = ([i for i in range(len(s)) if i not in summed] for s, summed in ((m, over_a), (n, over_b)))
    rows, columns, k = [m[i] for i in free_a], [n[i] for i in free_b], math.prod([m[i] for i in over_a])
    left = reshape(transpose(a, (*free_a, *over_a)), (math.prod(rows), k))
    right = reshape(transpose(b, (*over_b, *free_b)), (k, math.prod(columns)))
    return reshape(matrix_product(left, right), (*rows, *columns))


def kron(a: Any, b: Any) -> Any:
    """The Kronecker product: blocks ``a[i, j] * b``; see :func:`numpy.kron`."""
    a, b = as_array(a), as_array(b)
    m, n = (1,) * (len(b.shape) - len(a.shape)) + a.shape, (1,) * (len(a.shape) - len(b.shape)) + b.shape
    blocks = reshape(a, [k for i in m for k in (i, 1)]) * reshape(b, [k for j in n for k in (1, j)])
    return reshape(blocks, [i * j for i, j in zip(m, n, strict=True)])


def cross(a: Any, b: Any, axisa: int = -1, axisb: int = -1, axisc: int = -1, axis: int | None = None) -> Any:
    """The vector product of vectors of 3 elements along the given axes; see :func:`numpy.cross`."""
    if axis is not None:
        axisa = axisb = axisc = axis
    a, b = moveaxis(as_array(a), axisa, -1), moveaxis(as_array(b), axisb, -1)
    if a.shape[-1] != 3 or b.shape[-1] != 3:
        raise ValueError(f"cross: got vectors of {a.shape[-1]} and {b.shape[-1]} elements, expected 3")
    ahead, behind = [1, 2, 0], [2, 0, 1]
    return moveaxis(a[..., ahead] * b[..., behind] - a[..., behind] * b[..., ahead], -1, axisc)


def multi_dot(arrays: Sequence[Any]) -> Any:
    """The product of several matrices, of which the first and the last may be vectors, in the cheapest order; see :func:`numpy.linalg.multi_dot`."""
    xs = [as_array(x) for x in arrays]
    size = [1 if len(xs[0].shape) == 1 else xs[0].shape[0], *(x.shape[0] for x in xs[1:]), 1 if len(xs[-1].shape) == 1 else xs[-1].shape[-1]]

    @functools.cache
    def cheapest(i: int, j: int) -> tuple[int, int]:
        """The cost of the product of xs[i:j], and where to split it."""
        if j - i == 1:
            return 0, i
        return sorted((cheapest(i, k)[0] + cheapest(k, j)[0] + size[i] * size[k] * size[j], k) for k in range(i + 1, j))[0]

    def product(i: int, j: int) -> Any:
        k = cheapest(i, j)[1]
        return xs[i] if j - i == 1 else matmul(product(i, k), product(k, j))

    return product(0, len(xs))


# ---- norms: y = (sum |x|^p)^(1/p), dy/dx = conj(sign(x)) (|x| / y)^(p-1). At y = 0 every derivative is 0


def _norm_value(x: Any, *, p: float, axis: tuple[int, ...], keepdims: bool) -> Any:
    a = np.abs(x.astype(np.float32) if x.dtype.itemsize == 2 else x)
    y = (_euclidean(a, axis) if p == 2 else _scaled(a, p, axis)).astype(x.real.dtype, copy=False)
    return y if keepdims else y.reshape(reduced_shape(x.shape, axis))


def _euclidean(a: Any, axis: tuple[int, ...]) -> Any:
    """The root of the sum of squares, if no square can have overflowed or lost digits (on a GPU the question would cost a synchronisation)."""
    if namespace(a) is np:
        with np.errstate(over="ignore", under="ignore"):
            squares = reductions.total(a, axis=axis, of="square", keepdims=True)
        limits = np.finfo(squares.dtype)
        if ((squares > limits.tiny / limits.eps) & (squares < np.inf)).all():
            return np.sqrt(squares)
    return _scaled(a, 2, axis)


def _scaled(a: Any, p: float, axis: tuple[int, ...]) -> Any:
    """m (sum (a/m)^p)^(1/p), where m is the element that outweighs the others."""
    xp = namespace(a)
    if not a.size:
        return a.sum(axis=axis, keepdims=True)
    m = (a.max if p > 0 else a.min)(axis=axis, keepdims=True)
    scale = xp.where((m > 0) & (m < np.inf), m, xp.ones((), a.dtype))
    with np.errstate(divide="ignore", over="ignore", under="ignore"):
        total = reductions.total(xp.power(a / scale, p), axis=axis, keepdims=True)
        return xp.power(total, 1 / p) * scale


def _direction(x: Any, y: Any, p: float) -> Any:
    """The conjugate of dy/dx, where y is not 0."""
    zero = equal(y, 0)
    share = x / where(zero, 1.0, y)
    if p == 2:
        return share
    return sign(x) * power(where(zero | equal(x, 0), 1.0, absolute(share)), p - 1)  # of 0 the power may be singular


def _norm_vjp(g: Any, y: Any, x: Any, *, p: float, axis: tuple[int, ...], keepdims: bool) -> Any:
    g, y = restored(g, axis, keepdims), restored(y, axis, keepdims)
    return where(equal(y, 0), 0.0, g) * conjugated(_direction(x, y, p))


def _norm_jvp(t: Any, y: Any, x: Any, *, p: float, axis: tuple[int, ...], keepdims: bool) -> Any:
    return where(equal(y, 0), 0.0, real_dot(_direction(x, restored(y, axis, keepdims), p), t, axis, keepdims))


_norm = general(
    "vector_norm",
    _norm_value,
    [_norm_vjp],
    [_norm_jvp],
    batch=leading(axis=shift),
    samples=[Sample((3, 4), p=p, axis=axis, keepdims=axis == (1,)) for p in (2, 3, 1.5) for axis in ((0, 1), (1,))]
    + [Sample((3, 4), p=-2, axis=(0,), keepdims=False, domain=(0.5, 2.0))],
)
_singular_norm = Op(
    "norm of the singular values", lambda x, *, ord, axis, keepdims: namespace(x).linalg.norm(x, ord, axis, keepdims), batch=leading(axis=shift)
)


def _inexact(x: Any) -> Any:
    x = as_array(x)
    return x if is_inexact(dtype_of(x)) else astype(x, np.float64)


def _real_dtype(x: Any) -> Any:
    return np.zeros((), dtype_of(x)).real.dtype


def vector_norm(x: Any, *, axis: Axis = None, keepdims: bool = False, ord: float = 2, **options: Any) -> Any:
    """``sum(|x|^ord)^(1/ord)`` over ``axis``: inf is the largest |x|, -inf the smallest, 0 counts what is not 0. See :func:`numpy.linalg.vector_norm`.

    Nothing overflows that the result does not; where the norm is 0 its derivatives are 0.
    """
    refuse("vector_norm", None, options)
    x = _inexact(x)
    if isinstance(ord, str):
        raise ValueError(f"norm: got ord={ord!r} for vectors, expected a number, inf or -inf")
    if ord == 0:
        return astype(count_nonzero(x, axis, keepdims=keepdims), _real_dtype(x))
    if ord in (1, math.inf, -math.inf):
        reduction: Any = {1: sum, math.inf: max, -math.inf: min}[ord]
        return reduction(absolute(x), axis, keepdims=keepdims)
    return _norm(x, p=ord, axis=axes_of(x, axis), keepdims=keepdims)


def matrix_norm(x: Any, *, keepdims: bool = False, ord: Any = "fro") -> Any:
    """The norm of the matrices on the last two axes; see :func:`numpy.linalg.matrix_norm` and :func:`norm`."""
    return norm(x, ord, (-2, -1), keepdims)


def norm(x: Any, ord: Any = None, axis: Axis = None, keepdims: bool = False, **options: Any) -> Any:
    """The norm of vectors (``axis`` an integer, or x 1-D) or of matrices (two axes); see :func:`numpy.linalg.norm`.

    Of a vector: see :func:`vector_norm`. Of a matrix: "fro" the root of the sum of squares, 1 and -1 the largest and smallest sum of
    |x| over a column, inf and -inf over a row; 2, -2 and "nuc" (singular values) have no derivative yet. Without ``ord``, the 2-norm of all elements.
    """
    refuse("norm", None, options)
    x = _inexact(x)
    axes = axes_of(x, axis)
    if ord is None or (len(axes) == 2 and ord in ("fro", "f")):
        return vector_norm(x, axis=axes, keepdims=keepdims)
    if len(axes) == 1:
        return vector_norm(x, axis=axes, keepdims=keepdims, ord=ord)
    if len(axes) != 2:
        raise ValueError(
            f"norm: got ord={ord!r} and {len(axes)} axes of shape {x.shape}, expected one (vectors) or two (matrices); vector_norm takes any number"
        )
    if ord in (1, -1, math.inf, -math.inf):
        columns, rows = axes if abs(ord) == 1 else axes[::-1]
        sums = sum(absolute(x), columns, keepdims=True)
        y = (max if ord > 0 else min)(sums, rows, keepdims=True)
        return y if keepdims else reshape(y, reduced_shape(x.shape, axes))
    if ord in (2, -2, "nuc"):
        return _singular_norm(x, ord=ord, axis=axes, keepdims=keepdims)
    raise ValueError(f"norm: got ord={ord!r} for matrices, expected 'fro', 'nuc', inf, -inf, 1, -1, 2 or -2")


# ---- inverse and solve: d inv(A) = -inv(A) dA inv(A)


def _by_matrix(name: str) -> Any:
    return lambda *xs: getattr(namespace(xs[0]).linalg, name)(*xs)


_WELL_CONDITIONED = np.array([[[2.0, 0.3], [-0.5, 1.5]], [[1.0, -0.4], [0.2, -1.2]]])
inv = general(
    "inv",
    _by_matrix("inv"),
    [lambda g, y, _x: -matmul(matrix_transpose(y), matmul(g, matrix_transpose(y)))],
    [lambda t, y, _x: -matmul(y, matmul(t, y))],
    batch=leading(),
    samples=[Sample(_WELL_CONDITIONED)],
    doc="The inverse of a square matrix, or of each of a batch. See :func:`numpy.linalg.inv`.",
)


def _solve_left(g: Any, y: Any, a: Any, _b: Any) -> Any:
    return -matmul(_solve(matrix_transpose(a), g), matrix_transpose(y))


def _solve_value(a: Any, b: Any) -> Any:
    if namespace(a) is not np and a.shape[:-2] != b.shape[:-2]:  # CuPy's does not broadcast
        lead = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
        a, b = (namespace(x).broadcast_to(x, (*lead, *x.shape[-2:])) for x in (a, b))
    return namespace(a).linalg.solve(a, b)


def _batched_solve(op: Op, size: int, batched: Sequence[bool], args: Sequence[Any], params: dict[str, Any]) -> Any:
    """One matrix is factorised once, for the columns of all examples side by side."""
    a, b = args
    if batched[0] or len(a.shape) > 2:
        return spread(op, size, batched, args, params)
    columns = moveaxis(b, -2, 0)
    x = op(a, reshape(columns, (columns.shape[0], math.prod(columns.shape[1:]))))
    return moveaxis(reshape(x, columns.shape), 0, -2)


_solve: Op = general(
    "solve",
    _solve_value,
    [_solve_left, lambda g, _y, a, _b: _solve(matrix_transpose(a), g)],
    [lambda t, y, a, _b: -_solve(a, matmul(t, y)), lambda t, _y, a, _b: _solve(a, t)],
    batch=_batched_solve,
    samples=[Sample(_WELL_CONDITIONED, (2, 2, 3)), Sample(_WELL_CONDITIONED[0], (2, 3)), Sample(_WELL_CONDITIONED, (1, 2, 3))],
)


def solve(a: Any, b: Any) -> Any:
    """x of ``a x = b``, where ``b`` is a vector, a matrix or a batch of matrices. See :func:`numpy.linalg.solve`."""
    a, b = as_array(a), as_array(b)
    if len(b.shape) == 1:
        y = _solve(a, expand_dims(b, 1))
        return reshape(y, y.shape[:-1])
    return _solve(a, b)


def matrix_power(x: Any, n: int) -> Any:
    """The n-th power of square matrices, by repeated squaring; of the inverse where n is negative. See :func:`numpy.linalg.matrix_power`."""
    x = as_array(x)
    if n < 0:
        x, n = inv(x), -n
    if n == 0:
        return zeros_like(x) + _identity(x)
    half = matrix_power(x, n // 2) if n > 1 else None
    return x if n == 1 else matmul(half, half) if n % 2 == 0 else matmul(matmul(half, half), x)


# ---- determinants: d det(A) = sum of cofactors(A) * dA


def _cofactors(y: Any, a: Any) -> Any:
    """det(A) inv(A)'; for matrices that are singular to working precision, which have cofactors but no inverse that is worth its name, by a recursion."""
    has_none = equal(constant(y), 0)
    inverse = inv(where(expand_dims(has_none, (-2, -1)), _identity(a), a) if plain(has_none).any() else a)
    condition = norm(constant(a), 1, (-2, -1)) * norm(constant(inverse), 1, (-2, -1))
    is_singular = has_none | greater(condition, 0.1 / np.finfo(_real_dtype(a)).eps)
    regular = expand_dims(y, (-2, -1)) * matrix_transpose(inverse)
    return where(expand_dims(is_singular, (-2, -1)), _recursive_cofactors(a), regular) if plain(is_singular).any() else regular


def _recursive_cofactors(a: Any) -> Any:
    """The method of Faddeev and LeVerrier."""
    n, identity = a.shape[-1], _identity(a)
    m = zeros_like(a) + identity
    for k in range(1, n):
        am = matmul(a, m)
        m = am - expand_dims(trace(am, 0, -2, -1) / k, (-2, -1)) * identity
    return matrix_transpose(m) * (-1) ** (n - 1)


def _identity(a: Any) -> Any:
    return namespace(plain(a)).eye(a.shape[-1], dtype=dtype_of(a))


det = general(
    "det",
    _by_matrix("det"),
    [lambda g, y, a: expand_dims(g, (-2, -1)) * _cofactors(y, a)],
    [lambda t, y, a: sum(t * _cofactors(y, a), (-2, -1))],
    batch=leading(),
    samples=[Sample(_WELL_CONDITIONED), Sample(np.array([[1.0, 2.0, 3.0], [2.0, 4.0, 6.0], [1.0, 0.0, 1.0]]))],
    doc="The determinant of a square matrix, or of each of a batch. Singular matrices have derivatives too. See :func:`numpy.linalg.det`.",
)


def _slogdet_jvp(tangents: Any, y: Any, a: Any) -> list[Any]:
    """log det changes by z = tr(inv(A) dA): its real part changes log |det|, its imaginary part turns the sign."""
    z = sum(matrix_transpose(inv(a)) * tangents[0], (-2, -1))
    return [y[0] * (1j * imag_part(z)), real(z)] if dtype_of(a).kind == "c" else [None, z]


_slogdet = general("slogdet", lambda x: tuple(namespace(x).linalg.slogdet(x)), None, _slogdet_jvp, batch=leading(), samples=[Sample(_WELL_CONDITIONED)])


def slogdet(x: Any) -> tuple[Any, Any]:
    """(sign, log|det|) of square matrices: no overflow where the determinant would. See :func:`numpy.linalg.slogdet`."""
    return _slogdet(as_array(x))


# ---- cholesky: dL = L tril(inv(L) dA inv(L)'), with half of the diagonal (Murray 2016, "Differentiation of the Cholesky decomposition")


def _adjoint(x: Any) -> Any:
    return conjugated(matrix_transpose(x))


def _cholesky_jvp(t: Any, y: Any, _x: Any) -> Any:
    xp, n = namespace(plain(y)), y.shape[-1]
    lower = xp.tri(n, dtype=_real_dtype(y)) - xp.eye(n, dtype=_real_dtype(y)) / 2
    right = _adjoint(_solve(y, (t + _adjoint(t)) / 2))
    return matmul(y, _solve(y, right) * lower)


cholesky = general(
    "cholesky",
    lambda x: namespace(x).linalg.cholesky((x + x.swapaxes(-1, -2).conj()) / 2),
    None,
    [_cholesky_jvp],
    batch=leading(),
    samples=[Sample(np.array([[2.0, 0.5], [0.5, 1.0]]))],
    doc="The lower triangular L with ``L L' = x``, of the symmetric part of x, so that the derivative is symmetric too. See :func:`numpy.linalg.cholesky`.",
)
