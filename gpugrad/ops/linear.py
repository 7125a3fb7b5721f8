"""The fully connected layer, fused: Y = X W + b."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gpugrad.ops.fit import shape_of
from gpugrad.ops.linalg import matmul, matmul_value
from gpugrad.ops.rules import Sample, general
from gpugrad.ops.shape import reshape, transpose


def _linear(x: Any, w: Any, b: Any) -> Any:
    y = matmul_value(x, w)
    if y.dtype == b.dtype:
        y += b  # y is ours: no second array
        return y
    return y + b


def _vjp(needs: Sequence[bool], g: Any, _y: Any, x: Any, w: Any, _b: Any) -> list[Any]:
    """dX = dY W', dW = X' dY, db = the column sums of dY; only those asked for."""
    rows = g if len(shape_of(g)) == 2 else reshape(g, (-1, shape_of(g)[-1]))
    dw = None
    if needs[1]:
        dw = matmul(transpose(x if len(shape_of(x)) == 2 else reshape(x, (-1, shape_of(x)[-1]))), rows)
    return [matmul(g, transpose(w)) if needs[0] else None, dw, g if needs[2] else None]  # which the walk sums to the shape of b


def _jvp(tangents: Sequence[Any], _y: Any, x: Any, w: Any, _b: Any) -> Any:
    t_x, t_w, t_b = tangents
    t = None if t_x is None else matmul(t_x, w)
    if t_w is not None:
        t = matmul(x, t_w) if t is None else t + matmul(x, t_w)
    return t if t_b is None else t_b if t is None else t + t_b


_linear_op = general(
    "linear",
    _linear,
    _vjp,
    _jvp,
    samples=[Sample((3, 4), (4, 2), (2,)), Sample((4,), (4, 2), (2,)), Sample((2, 3, 4), (4, 2), (2,)), Sample((0, 4), (4, 2), (2,))],
    doc="X W + b.",
)


def linear(x: Any, weight: Any, bias: Any = None) -> Any:
    """``x @ weight + bias``, for x of shape (..., in), weight (in, out) and bias (out,) or None.

    Raises:
        ValueError: the shapes do not fit.
    """
    m, n = shape_of(x), shape_of(weight)
    if not m or len(n) != 2 or m[-1] != n[0] or (bias is not None and shape_of(bias) != n[1:]):
        raise ValueError(
            f"linear: got x of shape {m}, weight {n}, bias {None if bias is None else shape_of(bias)}; expected x (..., in), weight (in, out), bias (out,)"
        )
    if bias is None:
        return matmul(x, weight)
    x, weight, bias = (a if hasattr(a, "shape") else np.asarray(a) for a in (x, weight, bias))
    return _linear_op(x, weight, bias)
