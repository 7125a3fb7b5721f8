"""Layers of normalisation: y = (x - mean(x)) / sqrt(var(x) + eps) * weight + bias over some axes, and without the mean (:mod:`gpugrad.ops.standardize`)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from gpugrad import tape
from gpugrad.ops import reduce
from gpugrad.ops.elementwise import sqrt
from gpugrad.ops.fit import astype, dtype_of, is_half, shape_of
from gpugrad.ops.shape import as_array
from gpugrad.ops.standardize import standardize
from gpugrad.tape import BatchedError, constant, is_batched, mark_mutated, plain

__all__ = ["batch_norm", "layer_norm", "rms_norm"]


def _normalised(x: Any, weight: Any, bias: Any, trailing: int, eps: float, centred: bool, kept: list[Any]) -> Any:
    """``standardize``; parameters of another dtype than x follow in operations of their own."""
    if tape.caster is not None:  # before their dtypes are compared
        x, weight, bias = tape.caster.cast(standardize, (x, weight, bias))
    dtype = dtype_of(x)
    if (weight is None or dtype_of(weight) == dtype) and (bias is None or dtype_of(bias) == dtype):
        return standardize(x, weight, bias, trailing=trailing, eps=eps, centred=centred, kept=kept)
    h = standardize(x, None, None, trailing=trailing, eps=eps, centred=centred, kept=kept)
    return _scaled_and_shifted(h, weight, bias, shape_of(x)[-trailing:] if trailing else (-1, *[1] * (len(shape_of(x)) - 2)))


# ---------------------------------------------------------------------------------- layers


def _scaled_and_shifted(h: Any, weight: Any, bias: Any, shape: tuple[int, ...]) -> Any:
    """h weight + bias, in operations of their own."""
    if weight is not None:
        h = h * (weight if shape_of(weight) == shape else weight.reshape(shape))
    return h if bias is None else h + (bias if shape_of(bias) == shape else bias.reshape(shape))


def _trailing(name: str, x: Any, normalized_shape: int | Sequence[int], **params: Any) -> int:
    """The number of axes that normalized_shape names, if it fits x and the parameters fit it."""
    expected = (normalized_shape,) if isinstance(normalized_shape, (int, np.integer)) else tuple(normalized_shape)
    got = shape_of(x)
    if not expected or got[-len(expected) :] != expected or len(got) < len(expected):
        raise ValueError(f"{name}: got input of shape {got}, expected (..., {', '.join(map(str, expected))})")
    for what, p in params.items():
        if p is not None and shape_of(p) != expected:
            raise ValueError(f"{name}: got {what} of shape {shape_of(p)}, expected {expected}")
    return len(expected)


def layer_norm(x: Any, normalized_shape: int | Sequence[int], weight: Any = None, bias: Any = None, eps: float = 1e-5) -> Any:
    """``(x - mean) / sqrt(var + eps) * weight + bias`` with mean and (biased) variance over the last axes, those of ``normalized_shape``. Ba, Kiros and
    Hinton, "Layer normalization" (2016), equation 4.

    Raises:
        ValueError: x does not end in that shape, or weight or bias does not have it.
        TypeError: x is not of real floats.
    """
    trailing = _trailing("layer_norm", x, normalized_shape, weight=weight, bias=bias)
    return _normalised(as_array(x), weight, bias, trailing, eps, True, [])


def rms_norm(x: Any, normalized_shape: int | Sequence[int], weight: Any = None, eps: float | None = None) -> Any:
    """``x / sqrt(mean(x^2) + eps) * weight`` with the mean over the last axes, those of ``normalized_shape``. Zhang and Sennrich, "Root mean square layer
    normalization" (2019), equation 4. ``eps`` of None is the machine epsilon of the dtype (of float32 for 16-bit floats).

    Raises:
        ValueError: x does not end in that shape, or weight does not have it.
        TypeError: x is not of real floats.
    """
    trailing = _trailing("rms_norm", x, normalized_shape, weight=weight)
    x = as_array(x)
    if eps is None:
        eps = float(np.finfo(np.float64 if x.dtype.itemsize == 8 else np.float32).eps)
    return _normalised(x, weight, None, trailing, eps, False, [])


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
    variance being the unbiased one. These are plain numbers: no derivative flows into them. Else the running ones are used. Inside :func:`gpugrad.vmap` moments are
    those of each example, and so are the running ones that they are written into.

    Raises:
        ValueError: shapes do not fit; there is one value per channel in training (its variance is 0), or there are no running values to use in evaluation.
        TypeError: x is not of real floats.
        gpugrad.tape.BatchedError: running values that all examples of a vmap share would have to become different ones.
    """
    shape = shape_of(x)
    _check_channels(shape, running_mean=running_mean, running_var=running_var, weight=weight, bias=bias)
    column = (*shape[1:2], *[1] * (len(shape) - 2))
    if training:
        count = shape[0] * math.prod(shape[2:])
        if count < 2:
            raise ValueError(f"batch_norm: expected more than 1 value per channel when training, got input of shape {shape}")
        kept: list[Any] = []
        y = _normalised(as_array(x), weight, bias, 0, eps, True, kept)
        if running_mean is not None or running_var is not None:
            found = _moments_of_examples(x) if is_batched(x) else (kept[0][0] + kept[0][1], kept[0][3])
            news = ("running_mean", running_mean, found[0]), ("running_var", running_var, found[1] * (count / (count - 1)))
            for into, updated in [_updated(*each, momentum) for each in news if each[1] is not None]:
                into[...] = updated
                mark_mutated(into)
        return y
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


def _moments_of_examples(x: Any) -> tuple[Any, Any]:
    """Mean and variance of each channel, inside vmap, where what is kept are those of all examples."""
    x = constant(x)
    axis = (0, *range(2, len(shape_of(x))))
    return reduce.mean(x, axis), reduce.var(x, axis)


def _updated(name: str, running: Any, new: Any, momentum: Any) -> tuple[Any, Any]:
    """The array of running values, and what it becomes."""
    into, updated = plain(running), plain(constant(running) * (1 - momentum) + new * momentum)
    if updated.ndim != into.ndim:
        raise BatchedError(
            f"batch_norm inside gg.vmap: the moments of x differ by example, but {name} of shape {shape_of(running)} is the same for all of them. Give each "
            "example one of its own, by in_axes, or none: running_mean=None, running_var=None"
        )
    return into, updated
