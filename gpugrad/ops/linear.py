"""The fully connected layer with its activation, fused: Y = act(X W + b).

The products are BLAS's (cuBLAS's), with transposes as flags. All between them is two kernels (:mod:`gpugrad.kernels.linear`), each of one pass over memory:
bias and activation forward; dZ = dY act'(Z) and the column sums of dZ backward. The backward kernel is an operation of its own, with its rules in plain
operations, so derivatives of any order follow.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from gpugrad import tape
from gpugrad.kernels import linear as kernels
from gpugrad.ops import linear_dual, reduce
from gpugrad.ops.activations import gelu, relu, sigmoid, silu, slope, slope_jvp, slope_vjp
from gpugrad.ops.batch import aligned
from gpugrad.ops.elementwise import tanh
from gpugrad.ops.fit import broadcast_to, shape_of, sum_to
from gpugrad.ops.linalg import matmul, matmul_value, matrix_product, product_tangent
from gpugrad.ops.rules import Sample, general
from gpugrad.ops.shape import as_array, reshape
from gpugrad.tape import Op, is_inexact

ACTIVATIONS: dict[str, Callable[[Any], Any]] = {
    "none": lambda z: z, "relu": relu, "tanh": tanh, "sigmoid": sigmoid, "silu": silu, "gelu": gelu, "gelu_tanh": lambda z: gelu(z, "tanh"),
}  # fmt: skip


# ---------------------------------------------------------------------------------- dZ = dY act'(Z)


def _act_backward_vjp(needs: Sequence[bool], cotangents: Any, _y: Any, g: Any, saved: Any, *, act: str) -> list[Any]:
    c, c_sum = cotangents
    if c_sum is not None:
        c = broadcast_to(c_sum, shape_of(g)) if c is None else c + c_sum
    return slope_vjp(needs, c, None, g, saved, act=act)


def _act_backward_jvp(tangents: Any, _y: Any, g: Any, saved: Any, *, act: str) -> list[Any]:
    t = slope_jvp(tangents, None, g, saved, act=act)
    return [t, reduce.sum(t, axis=0)]


def _batched_act_backward(_op: Op, _size: int, _batched: Sequence[bool], args: Sequence[Any], params: dict[str, Any]) -> tuple[Any, Any]:
    """Sums for each example, of what is saved once for all or for each."""
    dz = slope(*args, **params)
    return dz, reduce.sum(dz, axis=1)


_act_backward = general(
    "act_backward",
    lambda g, saved, *, act: kernels.act_backward(g, saved, act=act),
    _act_backward_vjp,
    _act_backward_jvp,
    batch=_batched_act_backward,
    samples=[
        Sample((3, 4), (3, 4), domain=((-2.0, 2.0), (0.1, 0.9) if act == "relu" else (-0.9, 0.9) if act == "tanh" else (-3.0, 3.0)), act=act)
        for act in kernels.ACTIVATIONS
    ],
    doc="``dz = g act'(z)`` and the sums of its columns, where ``saved`` is the value of relu and tanh, and z of the other activations.",
)


# ---------------------------------------------------------------------------------- Y = act(X W + b)


def _value(x: Any, w: Any, b: Any, *, act: str) -> tuple[Any, Any]:
    """Y, and what the slope of the activation is taken from."""
    z = matmul_value(x, w)
    return kernels.bias_act(z, b, act=act), z  # z is ours, and is written into


def _linear_value(x: Any, w: Any, b: Any) -> Any:
    z = matmul_value(x, w)
    return kernels.bias_act(z, b, act="none") if z.dtype == b.dtype else z + b


def _vjp_of_product(needs: Sequence[bool], dz: Any, db: Any, x: Any, w: Any) -> list[Any]:
    """dX = dZ W', dW = X' dZ; only those asked for."""
    return [matrix_product(dz, w.T) if needs[0] else None, matrix_product(x.T, dz) if needs[1] else None, db]


def _jvp_of_product(tangents: Sequence[Any], x: Any, w: Any) -> Any:
    t_x, t_w, t_b = tangents
    t = None if t_x is None and t_w is None else product_tangent(t_x, t_w, x, w)
    if t_b is None:
        return t
    return broadcast_to(t_b, (shape_of(x)[0], shape_of(w)[1])) if t is None else t + t_b


def _linear_vjp(needs: Sequence[bool], g: Any, _y: Any, x: Any, w: Any, _b: Any) -> list[Any]:
    return _vjp_of_product(needs, g, sum_to(g, shape_of(g)[1:]) if needs[2] else None, x, w)


def _linear_jvp(tangents: Sequence[Any], _y: Any, x: Any, w: Any, _b: Any) -> Any:
    return _jvp_of_product(tangents, x, w)


def _from_y_vjp(needs: Sequence[bool], g: Any, y: Any, x: Any, w: Any, _b: Any, *, act: str) -> list[Any]:
    dz, db = _act_backward(g, y, act=act)
    return _vjp_of_product(needs, dz, db, x, w)


def _from_y_jvp(tangents: Sequence[Any], y: Any, x: Any, w: Any, _b: Any, *, act: str) -> Any:
    return slope(_jvp_of_product(tangents, x, w), y, act=act)


def _from_z_vjp(needs: Sequence[bool], g: Any, yz: Any, x: Any, w: Any, _b: Any, *, act: str) -> list[Any]:
    g_y, g_z = g
    dz, db = (None, None) if g_y is None else _act_backward(g_y, yz[1], act=act)
    if g_z is not None:  # from second derivatives, which read z
        dz = g_z if dz is None else dz + g_z
        db = sum_to(dz, shape_of(dz)[1:])
    return _vjp_of_product(needs, dz, db, x, w)


def _from_z_jvp(tangents: Sequence[Any], yz: Any, x: Any, w: Any, _b: Any, *, act: str) -> list[Any]:
    t = _jvp_of_product(tangents, x, w)
    return [slope(t, yz[1], act=act), t]


def _dual(tangents: Sequence[Any], x: Any, w: Any, b: Any, *, act: str = "none") -> tuple[Any, Any]:
    """Y and its tangent; with act one of those that keep z, lists of two."""
    fused = linear_dual.layer(tangents, x, w, b, "relu" if act == "relu" else "none")
    if fused is None:
        op = _linear if act == "none" else _from_y if act in kernels.FROM_Y else _from_z
        y = op(x, w, b) if act == "none" else op(x, w, b, act=act)
        return y, op.push(tangents, y, (x, w, b), {} if act == "none" else {"act": act})
    if act in ("none", "relu"):
        return fused
    z, t = fused
    y = ACTIVATIONS[act](z)
    return (y, slope(t, y, act=act)) if act in kernels.FROM_Y else ((y, z), (slope(t, z, act=act), t))


def _batched_layer(op: Op, size: int, batched: Sequence[bool], args: Sequence[Any], params: dict[str, Any]) -> Any:
    """The rows of all examples are those of one x, where the weights are the same for all; else product, bias and activation follow one another."""
    x, w, b = args
    if not batched[1] and not batched[2]:
        rows = x.shape[1]
        y = op(reshape(x, (size * rows, x.shape[2])), w, b, **params)
        by_example = [reshape(part, (size, rows, part.shape[1])) for part in (y if isinstance(y, tuple) else (y,))]
        return by_example if isinstance(y, tuple) else by_example[0]
    z = matmul(x, w)
    z = z if b is None else z + (aligned(b, 2) if batched[2] else b)
    y = ACTIVATIONS[params.get("act", "none")](z)
    return (y, z) if op is _from_z else y


_SHAPES = [((3, 4), (4, 2), (2,)), ((0, 4), (4, 2), (2,)), ((3, 4), (4, 1), None), ((2, 0), (0, 2), (2,))]
_linear = general(
    "linear",
    _linear_value,
    _linear_vjp,
    _linear_jvp,
    dual=_dual,
    batch=_batched_layer,
    samples=[Sample(*s) for s in _SHAPES if s[2] is not None],
    doc="X W + b of matrices X and W.",
)
_from_y = general(
    "linear_act",
    lambda x, w, b, *, act: _value(x, w, b, act=act)[0],
    _from_y_vjp,
    _from_y_jvp,
    dual=_dual,
    batch=_batched_layer,
    samples=[Sample(*s, act=act) for act in ("relu", "tanh") for s in _SHAPES],
    doc="act(X W + b), where act is relu or tanh, of which the value tells the slope.",
)
_from_z = general(
    "linear_act_z",
    _value,
    _from_z_vjp,
    _from_z_jvp,
    dual=_dual,
    batch=_batched_layer,
    samples=[Sample(*s, act=act) for act in kernels.ACTIVATIONS if act not in kernels.FROM_Y for s in _SHAPES],
    doc="act(Z) and Z = X W + b, for the other activations.",
)


def linear(x: Any, weight: Any, bias: Any = None, activation: str = "none") -> Any:
    """``activation(x @ weight + bias)``, for x of shape (..., in), weight (in, out) and bias (out,) or None.

    Args:
        activation: "none", "relu", "gelu" (exact), "gelu_tanh", "silu", "tanh" or "sigmoid". Where all arrays are of one dtype of real floats it is
            computed together with the bias, and its derivative together with that of the bias.

    Raises:
        ValueError: the shapes do not fit, or there is no such activation.
    """
    m, n = shape_of(x), shape_of(weight)
    if not m or len(n) != 2 or m[-1] != n[0] or (bias is not None and shape_of(bias) != n[1:]):
        raise ValueError(
            f"linear: got x of shape {m}, weight {n}, bias {None if bias is None else shape_of(bias)}; expected x (..., in), weight (in, out), bias (out,)"
        )
    if activation not in ACTIVATIONS:
        raise ValueError(f"linear: got activation {activation!r}, expected one of {', '.join(ACTIVATIONS)}")
    x, weight, bias = as_array(x), as_array(weight), None if bias is None else as_array(bias)
    if len(m) != 2:
        flat = linear(reshape(x, (math.prod(m[:-1]), m[-1])), weight, bias, activation)
        return reshape(flat, (*m[:-1], n[1]))
    if activation == "none":
        return matmul(x, weight) if bias is None else _linear(x, weight, bias)
    if tape.caster is not None:  # before their dtypes are compared: what the layer before gave is of 16 bits already
        x, weight, bias = tape.caster.cast(_from_y, (x, weight, bias))
    dtype = x.dtype
    if weight.dtype != dtype or (bias is not None and bias.dtype != dtype) or dtype.kind == "c" or not is_inexact(dtype) or not dtype.isnative:
        return ACTIVATIONS[activation](linear(x, weight, bias))
    return _from_y(x, weight, bias, act=activation) if activation in kernels.FROM_Y else _from_z(x, weight, bias, act=activation)[0]
