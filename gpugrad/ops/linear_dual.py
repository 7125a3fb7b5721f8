"""The fully connected layer and its tangent, computed together, and the adjoint of both, of which Hessian-vector products consist::

    Y = act(X W + b)                 T = act'(Z) (T_x W + X T_w + t_b)
    dZ = act'(Z) dY                  S = act'(Z) dT
    dX = dZ W' + S T_w'              dT_x = S W'
    dW = X' dZ + T_x' S              dT_w = X' S            db, dt_b: the sums of the columns of dZ and S

act is none or relu, so act'' is 0. What has a factor in common is one product: [X; T_x] W, [dZ; S] W', [X; T_x]' [dZ; S]. A tangent that is None is zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gpugrad import blas
from gpugrad.backend import address, namespace
from gpugrad.kernels import linear as kernels
from gpugrad.kernels import masks, reductions
from gpugrad.ops.activations import relu, where_positive
from gpugrad.ops.fit import broadcast_to, is_half, shape_of, sum_to, total_of, zeros_like
from gpugrad.ops.linalg import matrix_product, product_tangent
from gpugrad.ops.rules import Sample, composed
from gpugrad.ops.shape import matrix_transpose

# ---------------------------------------------------------------------------------- Y and T


def _value(x: Any, w: Any, b: Any, t_x: Any, t_w: Any, t_b: Any, *, act: str) -> tuple[Any, Any]:
    n, xp = len(x), namespace(x)
    both = xp.empty((2 * n, w.shape[1]), x.dtype)
    z, t = both[:n], both[n:]
    if t_x is None:
        blas.matmul(x, w, out=z)
        if t_w is None:
            t[...] = 0
        else:
            blas.matmul(x, t_w, out=t)
    else:
        blas.matmul(_joined(x, t_x), w, out=both)
        if t_w is not None:
            t += blas.matmul(x, t_w)
    if t_b is not None:
        t += t_b
    y = kernels.bias_act(z, b, act=act)
    if act == "relu":
        t[...] = masks.positive(t, y)
    return y, t


def _joined(a: Any, b: Any) -> Any:
    """[a; b], without a copy where b lies behind a in an array of nothing else, as the results of a layer do."""
    base = a.base
    halves = base is not None and base is b.base and type(base) is type(a) and base.flags.c_contiguous and base.shape == (2 * len(a), *a.shape[1:])
    if halves and address(a) == address(base) and address(b) == address(base) + a.nbytes:
        return base
    return namespace(a).concatenate([a, b])


def _meaning(x: Any, w: Any, b: Any, t_x: Any, t_w: Any, t_b: Any, *, act: str) -> tuple[Any, Any]:
    y = matrix_product(x, w)
    y = y if b is None else y + b
    t = total_of(None if t_x is None and t_w is None else product_tangent(t_x, t_w, x, w), t_b)
    y, t = y, t if shape_of(t) == shape_of(y) else broadcast_to(t, shape_of(y))
    return (relu(y), where_positive(t, y)) if act == "relu" else (y, t)


def _vjp(needs: Sequence[bool], cotangents: Any, ys: Any, x: Any, w: Any, _b: Any, t_x: Any, t_w: Any, _t_b: Any, *, act: str) -> list[Any]:
    g_y, g_t = (zeros_like(y) if g is None else g for g, y in zip(cotangents, ys, strict=True))
    found = iter(_adjoint(g_y, g_t, ys[0] if act == "relu" else None, x, w, t_x, t_w, needs=tuple(needs)))
    return [next(found) if need else None for need in needs]


# ---------------------------------------------------------------------------------- the cotangents that are needed, of X, W, b, T_x, T_w and t_b


def _adjoint_value(g_y: Any, g_t: Any, y: Any, x: Any, w: Any, t_x: Any, t_w: Any, *, needs: tuple[bool, ...]) -> tuple[Any, ...]:
    by_x, by_w, by_b, by_t_x, by_t_w, by_t_b = needs
    n = len(x)
    dz, db = (g_y, reductions.total(g_y, axis=(0,)).reshape(-1) if by_b else None) if y is None else kernels.act_backward(g_y, y, act="relu")
    s = g_t if y is None else masks.positive(g_t, y)
    if by_t_x or (by_w and t_x is not None):
        both = _joined(dz, s)
        dz, s = both[:n], both[n:]
    dw = None if not by_w else blas.matmul(x.T, dz) if t_x is None else blas.matmul(_joined(x, t_x).T, both)
    below = blas.matmul(both, w.T) if by_x and by_t_x else None
    dx = None if not by_x else blas.matmul(dz, w.T) if below is None else below[:n]
    if dx is not None and t_w is not None:
        dx += blas.matmul(s, t_w.T)
    dt_x = None if not by_t_x else blas.matmul(s, w.T) if below is None else below[n:]
    dt_w = blas.matmul(x.T, s) if by_t_w else None
    dt_b = reductions.total(s, axis=(0,)).reshape(-1) if by_t_b else None
    return _given(dx, dw, db if by_b else None, dt_x, dt_w, dt_b)


def _adjoint_meaning(g_y: Any, g_t: Any, y: Any, x: Any, w: Any, t_x: Any, t_w: Any, *, needs: tuple[bool, ...]) -> tuple[Any, ...]:
    by_x, by_w, by_b, by_t_x, by_t_w, by_t_b = needs
    dz, s = (g_y, g_t) if y is None else (where_positive(g_y, y), where_positive(g_t, y))
    dx = product_tangent(dz, None if t_w is None else matrix_transpose(t_w), s, matrix_transpose(w)) if by_x else None
    dw = product_tangent(None if t_x is None else matrix_transpose(t_x), dz, matrix_transpose(x), s) if by_w else None
    dt_x = matrix_product(s, matrix_transpose(w)) if by_t_x else None
    dt_w = matrix_product(matrix_transpose(x), s) if by_t_w else None
    db, dt_b = (sum_to(v, shape_of(v)[1:]) if by else None for v, by in ((dz, by_b), (s, by_t_b)))
    return _given(dx, dw, db, dt_x, dt_w, dt_b)


def _given(*cotangents: Any) -> tuple[Any, ...]:
    return tuple([c for c in cotangents if c is not None])


# ---------------------------------------------------------------------------------- the operations

_X, _W, _ROW = (3, 4), (4, 2), (2,)
_TANGENTS: list[tuple[Any, Any, Any]] = [(_X, _W, _ROW), (None, _W, _ROW), (_X, None, None), (None, None, _ROW)]
_adjoint = composed(
    "linear_dual_adjoint",
    _adjoint_value,
    _adjoint_meaning,
    samples=[
        Sample((3, 2), (3, 2), y, _X, _W, t_x, t_w, needs=needs)
        for y in ((3, 2), None)
        for t_x, t_w in ((_X, _W), (None, _W), (_X, None))
        for needs in ((True,) * 6, (True, True, True, False, False, False), (False, True, True, False, False, False), (False, False, False, True, True, True))
    ],
    doc="The cotangents of X, W, b and of their tangents that ``needs`` asks for, from those of Y and T. ``y`` is Y where act is relu, else None.",
)
_layer = composed(
    "linear_dual",
    _value,
    _meaning,
    _vjp,
    samples=[Sample(_X, _W, b, *tangents, act=act) for act in ("none", "relu") for b in (_ROW, None) for tangents in _TANGENTS],
    doc="act(X W + b) and its tangent.",
)


def layer(tangents: Sequence[Any], x: Any, w: Any, b: Any, act: str = "none") -> tuple[Any, Any] | None:
    """(Y, T), where act is none or relu; None of arrays of several dtypes, or of 16 bits, which are for the operations one after the other."""
    if x.dtype != w.dtype or (b is not None and x.dtype != b.dtype) or is_half(x.dtype):
        return None
    return _layer(x, w, b, *tangents, act=act)
