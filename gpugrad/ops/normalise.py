"""Normalisation: h = (x - mean(x)) / sqrt(var(x) + eps) over some axes, and without the mean.

With r = 1 / sqrt(v + eps) the differential is dh = r (dx - mean(dx) - h mean(h dx)); without the mean its term is missing. This map is symmetric, so one
operation, ``standardize_slope``, pulls cotangents back and pushes tangents forward, and it needs h and v alone: x is not kept.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from gpugrad.kernels import normalise as kernels
from gpugrad.ops import reduce
from gpugrad.ops.elementwise import sqrt
from gpugrad.ops.fit import astype, broadcast_to, dtype_of, is_half, shape_of
from gpugrad.ops.rules import Sample, general
from gpugrad.ops.shape import as_array
from gpugrad.tape import is_inexact, mark_mutated, plain

__all__ = ["batch_norm", "layer_norm", "rms_norm"]

Axes = tuple[int, ...]


def _as_matrix(x: Any, axes: Axes) -> tuple[Any, int]:
    """x as a matrix whose columns (0) or rows (1) are what is normalised: a view where the axes are the first or the last ones."""
    if x.ndim == 2 and len(axes) == 1:
        return x, axes[0]
    count = math.prod([x.shape[i] for i in axes])
    if axes[-1] == x.ndim - 1 and axes[0] == x.ndim - len(axes):
        return x.reshape(x.size // count if count else math.prod(x.shape[: axes[0]]), count), 1
    others = [i for i in range(x.ndim) if i not in axes]
    rest = math.prod([x.shape[i] for i in others])
    return x.transpose([*axes, *others]).reshape(count, rest), 0


def _as_before(y: Any, shape: tuple[int, ...], axes: Axes, axis: int) -> Any:
    """The inverse of _as_matrix."""
    if y.shape == shape:
        return y
    if axis == 1:
        return y.reshape(shape)
    order = [*axes, *[i for i in range(len(shape)) if i not in axes]]
    return y.reshape([shape[i] for i in order]).transpose(np.argsort(order).tolist())


# ---------------------------------------------------------------------------------- the map of differentials


def _slope_value(d: Any, h: Any, r: Any, *, axes: Axes, centred: bool) -> Any:
    dtype = np.result_type(d.dtype, h.dtype) if d.dtype != h.dtype else d.dtype
    matrix, axis = _as_matrix(d.astype(dtype, copy=False), axes)
    y = kernels.slope(matrix, _as_matrix(h, axes)[0], r.reshape(-1), axis=axis, centred=centred)
    return _as_before(y, d.shape, axes, axis)


def _slope_in_h(c: Any, d: Any, h: Any, r: Any, axes: Axes) -> Any:
    """The derivative of <c, slope(d, h, r)> by h."""
    return -r * (c * reduce.mean(h * d, axis=axes, keepdims=True) + d * reduce.mean(h * c, axis=axes, keepdims=True))


def _slope_vjp(needs: Sequence[bool], c: Any, y: Any, d: Any, h: Any, r: Any, *, axes: Axes, centred: bool) -> list[Any]:
    return [
        slope(c, h, r, axes=axes, centred=centred) if needs[0] else None,
        _slope_in_h(c, d, h, r, axes) if needs[1] else None,
        reduce.sum(c * y, axis=axes, keepdims=True) / r if needs[2] else None,
    ]


def _slope_jvp(tangents: Sequence[Any], y: Any, d: Any, h: Any, r: Any, *, axes: Axes, centred: bool) -> Any:
    t_d, t_h, t_r = tangents
    parts = []
    if t_d is not None:
        parts.append(slope(t_d, h, r, axes=axes, centred=centred))
    if t_h is not None:
        parts.append(-r * (t_h * reduce.mean(h * d, axis=axes, keepdims=True) + h * reduce.mean(t_h * d, axis=axes, keepdims=True)))
    if t_r is not None:
        parts.append(y * (t_r / r))
    return sum(parts[1:], parts[0])


slope = general(
    "standardize_slope",
    _slope_value,
    _slope_vjp,
    _slope_jvp,
    samples=[
        Sample((4, 3), (4, 3), (1, 3), domain=((-2.0, 2.0), (-2.0, 2.0), (0.3, 2.0)), axes=(0,), centred=True),
        Sample((2, 3, 2), (2, 3, 2), (1, 3, 1), domain=((-2.0, 2.0), (-2.0, 2.0), (0.3, 2.0)), axes=(0, 2), centred=True),
        Sample((2, 3), (2, 3), (2, 1), domain=((-2.0, 2.0), (-2.0, 2.0), (0.3, 2.0)), axes=(1,), centred=False),
    ],
    doc="``r (d - mean(d) - h mean(h d))``, or without ``mean(d)`` where not centred: how a normalised h changes when its x changes by d.",
)

# ---------------------------------------------------------------------------------- the normalised array and the moments


def _standardized(x: Any, *, axes: Axes, eps: float, centred: bool) -> tuple[Any, ...]:
    if not is_inexact(x.dtype) or x.dtype.kind == "c":
        raise TypeError(f"normalisation: got {x.dtype}, expected real floats")
    matrix, axis = _as_matrix(x, axes)
    h, *moments = kernels.standardize(matrix, axis=axis, eps=eps, centred=centred)
    shape = [1 if i in axes else n for i, n in enumerate(x.shape)]
    return (_as_before(h, x.shape, axes, axis), *[m.reshape(shape) for m in moments if m is not None])


def _standardize_vjp(needs: Sequence[bool], g: Any, y: Any, _x: Any, *, axes: Axes, eps: float, centred: bool) -> list[Any]:
    h, moment = y[:2]
    r = 1 / sqrt(moment + eps)
    n = h.size // max(moment.size, 1) or 1
    parts = [] if g[0] is None else [slope(g[0], h, r, axes=axes, centred=centred)]
    if g[1] is not None:  # the derivative of mean(c^2) is 2 c / n, with c = h / r
        parts.append(g[1] * (2 / n) / r * h)
    if centred and g[2] is not None:
        parts.append(broadcast_to(g[2] / n, shape_of(h)))
    return [sum(parts[1:], parts[0])]


def _standardize_jvp(tangents: Sequence[Any], y: Any, _x: Any, *, axes: Axes, eps: float, centred: bool) -> list[Any]:
    (t,) = tangents
    h, moment = y[:2]
    r = 1 / sqrt(moment + eps)
    out = [slope(t, h, r, axes=axes, centred=centred), 2 / r * reduce.mean(h * t, axis=axes, keepdims=True)]
    return [*out, reduce.mean(t, axis=axes, keepdims=True)] if centred else out


standardize = general(
    "standardize",
    _standardized,
    _standardize_vjp,
    _standardize_jvp,
    samples=[
        Sample((4, 3), axes=(0,), eps=1e-2, centred=True),
        Sample((2, 3, 4), axes=(0, 2), eps=1e-2, centred=True),
        Sample((2, 3, 2), axes=(1, 2), eps=1e-2, centred=True),
        Sample((2, 4), axes=(1,), eps=1e-2, centred=False),
        Sample((0, 3), axes=(1,), eps=1e-2, centred=True),
    ],
    doc="""``h = (x - m) / sqrt(v + eps)``, the variance ``v = mean((x - m)^2)`` and the mean ``m`` over ``axes`` (non-negative, ascending), which stay with length 1.

    If not centred, ``h = x / sqrt(v + eps)`` and ``v = mean(x^2)``. 16-bit floats are computed in float32, and so are their moments.
    """,
)


# ---------------------------------------------------------------------------------- layers


def _scaled_and_shifted(h: Any, weight: Any, bias: Any, shape: tuple[int, ...]) -> Any:
    """h weight + bias, in the dtype of h."""
    if weight is not None:
        h = h * (weight if shape_of(weight) == shape else weight.reshape(shape))
    return h if bias is None else h + (bias if shape_of(bias) == shape else bias.reshape(shape))


def _trailing(name: str, x: Any, normalized_shape: int | Sequence[int], **params: Any) -> Axes:
    """The axes that normalized_shape names, if it fits x and the parameters fit it."""
    expected = (normalized_shape,) if isinstance(normalized_shape, (int, np.integer)) else tuple(normalized_shape)
    got = shape_of(x)
    if not expected or got[-len(expected) :] != expected or len(got) < len(expected):
        raise ValueError(f"{name}: got input of shape {got}, expected (..., {', '.join(map(str, expected))})")
    for what, p in params.items():
        if p is not None and shape_of(p) != expected:
            raise ValueError(f"{name}: got {what} of shape {shape_of(p)}, expected {expected}")
    return tuple(range(len(got) - len(expected), len(got)))


def layer_norm(x: Any, normalized_shape: int | Sequence[int], weight: Any = None, bias: Any = None, eps: float = 1e-5) -> Any:
    """``(x - mean) / sqrt(var + eps) * weight + bias`` with mean and (biased) variance over the last axes, those of ``normalized_shape``. Ba, Kiros and
    Hinton, "Layer normalization" (2016), equation 4.

    Raises:
        ValueError: x does not end in that shape, or weight or bias does not have it.
        TypeError: x is not of real floats.
    """
    axes = _trailing("layer_norm", x, normalized_shape, weight=weight, bias=bias)
    h = standardize(as_array(x), axes=axes, eps=eps, centred=True)[0]
    return _scaled_and_shifted(h, weight, bias, shape_of(x)[axes[0] :])


def rms_norm(x: Any, normalized_shape: int | Sequence[int], weight: Any = None, eps: float | None = None) -> Any:
    """``x / sqrt(mean(x^2) + eps) * weight`` with the mean over the last axes, those of ``normalized_shape``. Zhang and Sennrich, "Root mean square layer
    normalization" (2019), equation 4. ``eps`` of None is the machine epsilon of the dtype (of float32 for 16-bit floats).

    Raises:
        ValueError: x does not end in that shape, or weight does not have it.
        TypeError: x is not of real floats.
    """
    axes = _trailing("rms_norm", x, normalized_shape, weight=weight)
    x = as_array(x)
    if eps is None:
        eps = float(np.finfo(np.float64 if x.dtype.itemsize == 8 else np.float32).eps)
    h = standardize(x, axes=axes, eps=eps, centred=False)[0]
    return _scaled_and_shifted(h, weight, None, shape_of(x)[axes[0] :])


def batch_norm(
    x: Any,
    running_mean: Any = None,
    running_var: Any = None,
    weight: Any = None,
    bias: Any = None,
    training: bool = False,
    momentum: Any = 0.1,
    eps: float = 1e-5,
) -> Any:
    """``(x - mean) / sqrt(var + eps) * weight + bias`` of x of shape (N, C) or (N, C, ...), with a mean and a variance per channel, all of shape (C,). Ioffe
    and Szegedy, "Batch normalization" (2015), algorithms 1 and 2.

    In training they are those of x, and ``running_mean`` and ``running_var``, where given, become ``(1 - momentum) running + momentum new`` in place, the new
    variance being the unbiased one. These are plain numbers: no derivative flows into them. Else the running ones are used.

    Raises:
        ValueError: shapes do not fit; there is one value per channel in training (its variance is 0), or there are no running values to use in evaluation.
        TypeError: x is not of real floats.
    """
    shape = shape_of(x)
    _check_channels(shape, running_mean=running_mean, running_var=running_var, weight=weight, bias=bias)
    column = (*shape[1:2], *[1] * (len(shape) - 2))
    if training:
        count = shape[0] * math.prod(shape[2:])
        if count < 2:
            raise ValueError(f"batch_norm: expected more than 1 value per channel when training, got input of shape {shape}")
        h, var, mean = standardize(as_array(x), axes=(0, *range(2, len(shape))), eps=eps, centred=True)
        for running, new, factor in ((running_mean, mean, 1.0), (running_var, var, count / (count - 1))):
            if running is not None:
                _update(plain(running), plain(new).reshape(shape[1]) * factor, momentum)
    else:
        if running_mean is None or running_var is None:
            raise ValueError("batch_norm: expected running_mean and running_var in evaluation, got None; with training=True those of x are taken")
        wide = astype(running_var, np.float32) if is_half(dtype_of(running_var)) else running_var
        scale = 1 / sqrt(wide + eps) if weight is None else weight / sqrt(wide + eps)
        weight, h = None, astype((x - running_mean.reshape(column)) * scale.reshape(column), dtype_of(x), copy=False)
    return _scaled_and_shifted(h, weight, bias, column)


def _check_channels(shape: tuple[int, ...], **params: Any) -> None:
    if len(shape) < 2:
        raise ValueError(f"batch_norm: got input of shape {shape}, expected (N, C) or (N, C, ...)")
    for what, p in params.items():
        if p is not None and shape_of(p) != shape[1:2]:
            raise ValueError(
                f"batch_norm: got input of shape {shape} and {what} of shape {shape_of(p)}, expected as many channels: (N, {math.prod(shape_of(p))})"
            )


def _update(running: Any, new: Any, momentum: Any) -> None:
    running[...] = running * (1 - momentum) + new * momentum
    mark_mutated(running)
