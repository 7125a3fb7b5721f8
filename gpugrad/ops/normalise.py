"""Normalisation: y = (x - mean(x)) / sqrt(var(x) + eps) * weight + bias over some axes, and without the mean.

Three operations, each one kernel (:mod:`gpugrad.kernels.normalise`): forward, backward, and the backward of the backward. A Hessian is symmetric and the third is
linear in the cotangents that it is given, so it is also what forward mode pushes: through the first operation as its derivative by g, through the second as those by x and weight.
Its own derivatives are those of the formula, in plain operations.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from gpugrad import tape
from gpugrad.kernels import normalise as kernels
from gpugrad.ops.elementwise import sqrt
from gpugrad.ops.fit import astype, dtype_of, is_half, shape_of, total_of, zeros_like
from gpugrad.ops.rules import Sample, general
from gpugrad.ops.shape import as_array, reshape
from gpugrad.tape import Leaf, Tensor, is_inexact, mark_mutated, new_level, node_at, plain, pull_back, reduce_to

__all__ = ["batch_norm", "layer_norm", "rms_norm"]

# ---------------------------------------------------------------------------------- how arrays lie


def _cube(x: Any, trailing: int) -> Any:
    """x as (outer, channels, inner): (1, rows, columns) where so many trailing axes are normalised, else (N, C, ...) with its channels."""
    shape = x.shape
    lead = len(shape) - trailing
    cube = (1, math.prod(shape[:lead]), math.prod(shape[lead:])) if trailing else (*shape[:2], math.prod(shape[2:]))
    return x if shape == cube else reshape(x, cube) if type(x) is Tensor else x.reshape(cube)


def _flat(a: Any) -> Any:
    """A weight as a vector."""
    return a if a is None or len(a.shape) == 1 else reshape(a, (math.prod(a.shape),)) if type(a) is Tensor else a.reshape(-1)


def _ready(trailing: int, vectors: Sequence[Any], arrays: Sequence[Any]) -> tuple[list[Any], list[Any]]:
    """Weights as vectors and arrays as cubes, all of one dtype: in second derivatives 16-bit floats and float32 meet."""
    dtypes = {a.dtype for a in (*vectors, *arrays) if a is not None}
    if len(dtypes) > 1:
        dtype = functools.reduce(np.promote_types, dtypes)
        vectors, arrays = ([a if a is None or a.dtype == dtype else a.astype(dtype) for a in group] for group in (vectors, arrays))
    return [_flat(a) for a in vectors], [a if a is None else _cube(a, trailing) for a in arrays]


def _along(trailing: int) -> int:
    return 2 if trailing else 1


def _stats(x: Any, kept: Any, trailing: int, eps: float, centred: bool) -> Any:
    """The moments that the forward pass left in ``kept``."""
    return kept[0] if kept else kernels.standardize(_cube(x, trailing), along=_along(trailing), eps=eps, centred=centred)[1]


def _shaped(found: Sequence[Any], like: Sequence[Any]) -> tuple[Any, ...]:
    """Those that there are, in their shapes."""
    return tuple([a if a.shape == shape else a.reshape(shape) for a, shape in zip(found, like, strict=True) if a is not None])


def _vector_shape(x: Any, trailing: int) -> tuple[int, ...]:
    """Of a weight."""
    return shape_of(x)[-trailing:] if trailing else shape_of(x)[1:2]


def _placed(needs: Sequence[bool], found: Sequence[Any]) -> list[Any]:
    """With None in the places of those that are not needed."""
    rest = iter(found)
    return [next(rest) if need else None for need in needs]


# ---------------------------------------------------------------------------------- the backward of the backward


def _twice_value(x: Any, weight: Any, g: Any, c: Any, c_w: Any, c_b: Any, *, trailing: int, eps: float, centred: bool, needs: Any, kept: Any = None) -> Any:
    shapes = [x.shape, _vector_shape(x, trailing), x.shape]
    stats = _stats(x, kept, trailing, eps, centred)
    (w, c_w, c_b), (x, g, c) = _ready(trailing, (weight, c_w, c_b), (x, g, c))
    return _shaped(kernels.standardize_twice(x, stats, w, g, c, c_w, c_b, along=_along(trailing), centred=centred, needs=needs), shapes)


def _twice_formula(x: Any, weight: Any, g: Any, c: Any, c_w: Any, c_b: Any, *, trailing: int, eps: float, centred: bool, needs: Any) -> tuple[Any, ...]:
    """The same in plain operations. (16-bit floats have no third derivatives in one pass.)"""
    wide = [a if a is None or not is_half(a.dtype) else astype(a, np.float32) for a in (x, weight, g, c, c_w, c_b)]
    h, r = kernels.moments(_cube(wide[0], trailing), eps, centred)
    w, c_w, c_b = (_flat(wide[i]) for i in (1, 4, 5))
    g, c = (_cube(wide[i], trailing) for i in (2, 3))
    found = kernels.pulled_back_twice(h, r, w, g, c, c_w, c_b, _along(trailing), centred)
    shapes = shape_of(x), _vector_shape(x, trailing), shape_of(x)
    return tuple([reshape(a, shape) for a, shape, need in zip(found, shapes, needs, strict=True) if need])


def _twice_vjp(wanted: Sequence[bool], cotangents: Any, _y: Any, *args: Any, kept: Any = None, **params: Any) -> list[Any]:
    args = (*args[:2], args[3] if args[2] is None else args[2], *args[3:])
    with new_level() as level:
        leaves = [Leaf(level, a) if want else None for want, a in zip(wanted, args, strict=True)]
        found = _twice_formula(*[a if leaf is None else Tensor(a, leaf) for leaf, a in zip(leaves, args, strict=True)], **params)
    pairs = [(node, reduce_to(c, node)) for y, c in zip(found, cotangents, strict=True) if c is not None and (node := node_at(level, y)) is not None]
    grads = pull_back(pairs)
    return [None if leaf is None else grads.get(leaf) for leaf in leaves]


_SHAPES: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
    (((4, 3), (3,), (4, 3)), {"trailing": 0, "centred": True}),
    (((2, 3, 4), (3,), (2, 3, 4)), {"trailing": 0, "centred": True}),
    (((2, 3, 2), (3, 2), (2, 3, 2)), {"trailing": 2, "centred": True}),
    (((2, 4), (4,), (2, 4)), {"trailing": 1, "centred": False}),
    (((2, 3), None, (2, 3)), {"trailing": 1, "centred": True}),
]

_twice = general(
    "standardize_twice",
    _twice_value,
    _twice_vjp,
    samples=[
        Sample(*shapes, shapes[0], shapes[1], shapes[1], needs=needs, eps=0.1, **options)
        for shapes, options in _SHAPES
        for needs in ([(True, True, True), (False, False, True), (True, False, False)] if shapes[1] else [(True, False, True)])
    ],
    doc="The derivatives by x, weight and g of ``<c, dx> + <c_w, dw> + <c_b, db>``, of which standardize_backward gives dx, dw and db.",
)

# ---------------------------------------------------------------------------------- backward


def _backward_value(x: Any, weight: Any, g: Any, *, trailing: int, eps: float, centred: bool, needs: Any, kept: Any = None) -> Any:
    shapes = [x.shape, *[_vector_shape(x, trailing)] * 2]
    stats = _stats(x, kept, trailing, eps, centred)
    (w,), (x, g) = _ready(trailing, (weight,), (x, g))
    return _shaped(kernels.standardize_backward(x, stats, w, g, along=_along(trailing), centred=centred, needs=needs), shapes)


def _backward_vjp(wanted: Sequence[bool], cotangents: Any, _y: Any, x: Any, weight: Any, g: Any, *, needs: Any, **params: Any) -> list[Any]:
    c, c_w, c_b = _placed(needs, cotangents)
    wanted = (wanted[0], wanted[1] and weight is not None, wanted[2])
    return _placed(wanted, _twice(x, weight, g, zeros_like(x) if c is None else c, c_w, c_b, needs=tuple(wanted), **params))


def _backward_jvp(tangents: Any, _y: Any, x: Any, weight: Any, g: Any, *, needs: Any, **params: Any) -> list[Any]:
    t_x, t_w, t_g = tangents
    straight: list[Any] = [None] * 3 if t_g is None else _placed(needs, _backward(x, weight, t_g, needs=needs, **params))
    bent: list[Any] = [None] * 3
    curved = (needs[0], needs[1] and t_x is not None, False)
    if (t_x is not None or t_w is not None) and any(curved):
        bent = _placed(curved, _twice(x, weight, g, zeros_like(x) if t_x is None else t_x, t_w, None, needs=curved, **params))
    return [total_of(a, b) for a, b, need in zip(straight, bent, needs, strict=True) if need]


_backward = general(
    "standardize_backward",
    _backward_value,
    _backward_vjp,
    _backward_jvp,
    samples=[
        Sample(*shapes, needs=needs, eps=0.1, **options)
        for shapes, options in _SHAPES
        for needs in [(True, True, True), (True, False, False), (False, True, True)]
    ],
    doc="Of y = standardize(x, weight, bias) with the cotangent g those of x, weight and bias, as far as they are needed.",
)

# ---------------------------------------------------------------------------------- forward


def _value(x: Any, weight: Any, bias: Any, *, trailing: int, eps: float, centred: bool, kept: Any = None) -> Any:
    if not is_inexact(x.dtype) or x.dtype.kind == "c":
        raise TypeError(f"normalisation: got {x.dtype}, expected real floats")
    y, stats = kernels.standardize(_cube(x, trailing), _flat(weight), _flat(bias), along=_along(trailing), eps=eps, centred=centred)
    if kept is not None:
        kept[:] = [stats]
    return y if y.shape == x.shape else y.reshape(x.shape)


def _vjp(needs: Sequence[bool], g: Any, _y: Any, x: Any, weight: Any, _bias: Any, **params: Any) -> list[Any]:
    return _placed(needs, _backward(x, weight, g, needs=tuple(needs), **params))


def _jvp(tangents: Sequence[Any], _y: Any, x: Any, weight: Any, _bias: Any, **params: Any) -> Any:
    t_x, t_w, t_b = tangents
    return _twice(x, weight, None, zeros_like(x) if t_x is None else t_x, t_w, t_b, needs=(False, False, True), **params)[0]


standardize = general(
    "standardize",
    _value,
    _vjp,
    _jvp,
    samples=[Sample(*shapes[:2], shapes[1], eps=1e-2, **options) for shapes, options in [*_SHAPES, (((0, 3), (3,)), {"trailing": 1, "centred": True})]],
    doc="""``(x - m) / sqrt(v + eps) * weight + bias`` with the mean m and the variance v over the last ``trailing`` axes, or over all but axis 1 where that is 0.

    If not centred, m is 0 and ``v = mean(x^2)``. 16-bit floats are computed in float32. The list ``kept``, one for each call, takes the moments to the later
    operations (see :mod:`gpugrad.kernels.normalise`), which would else compute them anew; nothing else is kept but x and weight.
    """,
)


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
        kept: list[Any] = []
        y = _normalised(as_array(x), weight, bias, 0, eps, True, kept)
        if running_mean is not None or running_var is not None:
            m, drift, _, v = kept[0]
            for running, new in ((running_mean, m + drift), (running_var, v * (count / (count - 1)))):
                if running is not None:
                    _update(plain(running), new, momentum)
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


def _update(running: Any, new: Any, momentum: Any) -> None:
    running[...] = running * (1 - momentum) + new * momentum
    mark_mutated(running)
