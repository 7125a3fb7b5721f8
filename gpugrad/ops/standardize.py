"""The operations of normalisation, of which :mod:`gpugrad.ops.normalise` makes the layers.

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

from gpugrad.backend import namespace
from gpugrad.kernels import normalise as kernels
from gpugrad.ops import reduce
from gpugrad.ops.batch import aligned, by_operations, repeated
from gpugrad.ops.fit import astype, is_half, shape_of, total_of, zeros_like
from gpugrad.ops.rules import Sample, general
from gpugrad.ops.shape import moveaxis, reshape
from gpugrad.tape import Leaf, Op, Shared, Tensor, is_batched, is_inexact, new_level, node_at, pull_back, reduce_to

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


# ---------------------------------------------------------------------------------- many examples at once


def _merged(a: Any, size: int, many: bool, trailing: int) -> Any:
    """An array of all examples as that of one: with more rows, or with more channels."""
    if a is None:
        return None
    a = a if many else repeated(a, size)
    if trailing:
        return a
    a = moveaxis(a, 0, 1)
    return reshape(a, (a.shape[0], size * a.shape[2], *a.shape[3:]))


def _parted(y: Any, size: int, shape: tuple[int, ...], trailing: int) -> Any:
    """The inverse, of examples of this shape."""
    return y if trailing else moveaxis(reshape(y, (shape[0], size, *shape[1:])), 1, 0)


def _merged_vector(a: Any, size: int, many: bool) -> Any:
    """A weight of the channels of all examples."""
    return None if a is None else reshape(a if many else repeated(a, size), (size * a.shape[-1],))


def _affine(h: Any, ndim: int, trailing: int, *vectors: tuple[Any, bool]) -> Any:
    """h times the first vector plus the second, of examples of so many axes; each with whether it is batched."""
    for i, (a, many) in enumerate(vectors):
        if a is not None:
            beside = (aligned(a, ndim) if many else a) if trailing else reshape(a, (*a.shape[:-1], *[1] * many, a.shape[-1], *[1] * (ndim - 2)))
            h = h + beside if i else h * beside
    return h


def _kept(kept: Any, x: Any, size: int, many: bool) -> Any:
    """The moments of the x of all examples: those that are kept, or what is kept of the one x that they share; none if the examples of another vmap are among them."""
    return kept if many or not kept else [] if is_batched(x) else [namespace(kept[0]).tile(kept[0], (1, size))]


def _over_rows(a: Any, many: bool, trailing: int) -> Any:
    """The gradient of a weight of trailing axes."""
    total = reduce.sum(a, axis=tuple(range(many, len(a.shape) - trailing)))
    return total if many else Shared(total)


def _batched_standardize(op: Op, size: int, batched: Sequence[bool], args: Sequence[Any], params: dict[str, Any]) -> Any:
    """Statistics are those of each example. Weights of its own are multiplied with afterwards, unless there are channels for all."""
    (x, weight, bias), trailing = args, params["trailing"]
    shape = x.shape[batched[0] :]
    if batched[0] and not trailing:
        y = op(_merged(x, size, True, 0), _merged_vector(weight, size, batched[1]), _merged_vector(bias, size, batched[2]), **params)
        return _parted(y, size, shape, 0)
    if not (batched[1] or batched[2]):
        return op(x, weight, bias, **params)
    return _affine(op(x, None, None, **params), len(shape), trailing, (weight, batched[1]), (bias, batched[2]))


def _batched_backward(op: Op, size: int, batched: Sequence[bool], args: Sequence[Any], params: dict[str, Any]) -> list[Any]:
    """Channels of all examples, or, of trailing axes, dx as of more rows, and the gradients of the weights by the formula."""
    (x, weight, g), (of_x, of_w, of_g) = args, batched
    trailing, needs = params["trailing"], params["needs"]
    shape, params = x.shape[of_x:], params | {"kept": _kept(params.get("kept"), x, size, of_x)}
    if not trailing:
        found = op(_merged(x, size, of_x, 0), _merged_vector(weight, size, of_w), _merged(g, size, of_g, 0), **params)
        return [_parted(a, size, shape, 0) if len(a.shape) > 1 else reshape(a, (size, shape[1])) for a in found]
    found = []
    if needs[0]:
        scaled, weight = (_affine(g, len(shape), trailing, (weight, True)), None) if of_w else (g, weight)
        found += op(_merged(x, size, of_x, trailing), weight, _merged(scaled, size, of_g or of_w, trailing), **params | {"needs": (True, False, False)})
    if needs[1]:
        found.append(_over_rows(g * _h(x, params), of_g or of_x, trailing))
    return [*found, _over_rows(g, of_g, trailing)] if needs[2] else found


def _batched_twice(op: Op, size: int, batched: Sequence[bool], args: Sequence[Any], params: dict[str, Any]) -> Any:
    """Channels of all examples; more rows, where there is no sum over them; what forward mode asks for is affine in the tangents of the weights; else the formula."""
    (x, weight, g, c, c_w, c_b), (of_x, of_w, of_g, of_c, *of_vectors) = args, batched
    trailing, needs, given = params["trailing"], params["needs"], params
    shape, params = x.shape[of_x:], given | {"kept": _kept(given.get("kept"), x, size, of_x)}
    merged = [_merged(a, size, many, trailing) for a, many in ((x, of_x), (g, of_g), (c, of_c))]
    if not trailing:
        vectors = [_merged_vector(a, size, many) for a, many in ((weight, of_w), (c_w, of_vectors[0]), (c_b, of_vectors[1]))]
        found = op(merged[0], vectors[0], *merged[1:], *vectors[1:], **params)
        return [_parted(a, size, shape, 0) if len(a.shape) > 1 else reshape(a, (size, shape[1])) for a in found]
    if not needs[1] and not of_w and not any(of_vectors):
        return op(merged[0], weight, *merged[1:], c_w, c_b, **params)
    if needs != (False, False, True):
        return by_operations(_twice_formula)(op, size, batched, args, {key: value for key, value in params.items() if key != "kept"})
    (through,) = op(merged[0], None, None, merged[2], None, None, **params) if of_x or of_c else op(x, None, None, c, None, None, **given)
    parts = _affine(through, len(shape), trailing, (weight, of_w)), None if c_w is None else _affine(_h(x, params), len(shape), trailing, (c_w, of_vectors[0]))
    return [_affine(total_of(*parts), len(shape), trailing, (None, False), (c_b, of_vectors[1]))]


def _h(x: Any, params: dict[str, Any]) -> Any:
    return standardize(x, None, None, **{key: params[key] for key in ("trailing", "eps", "centred")})


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
    batch=_batched_twice,
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
    batch=_batched_backward,
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
    batch=_batched_standardize,
    samples=[Sample(*shapes[:2], shapes[1], eps=1e-2, **options) for shapes, options in [*_SHAPES, (((0, 3), (3,)), {"trailing": 1, "centred": True})]],
    doc="""``(x - m) / sqrt(v + eps) * weight + bias`` with the mean m and the variance v over the last ``trailing`` axes, or over all but axis 1 where that is 0.

    If not centred, m is 0 and ``v = mean(x^2)``. 16-bit floats are computed in float32. The list ``kept``, one for each call, takes the moments to the later
    operations (see :mod:`gpugrad.kernels.normalise`), which would else compute them anew; nothing else is kept but x and weight.
    """,
)
