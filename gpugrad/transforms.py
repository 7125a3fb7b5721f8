"""Function transforms: grad, vjp, jvp, linearize.  (:mod:`gpugrad.products` has Hessian-vector products, :mod:`gpugrad.batching` vmap, :mod:`gpugrad.jacobians` whole
matrices of derivatives.)

They take functions of arrays (NumPy, CuPy or Tensors) and of any nest of dict, list and tuple of them, and nest in
each other to any depth in any mixture. Plain arrays in, plain arrays out. Signatures follow JAX and HIPS/autograd.

Gradients of complex arguments follow their convention too: for real f the gradient is df/dx - i df/dy, the
conjugate of what ``Tensor.backward`` (PyTorch's convention) accumulates.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy import ndarray

from gpugrad import backend, tape, tree
from gpugrad.ops.fit import dtype_of, shape_of, unit_like, zeros_like
from gpugrad.tape import Forward, Leaf, RecordedLeaf, Tensor, is_tracked, new_level, node_at, plain, pull_back, push_forward, steps_to, unbox


def grad(f: Callable[..., Any], argnums: int | Sequence[int] = 0, has_aux: bool = False) -> Callable[..., Any]:
    """The gradient of a scalar function: ``grad(f)(x)`` has the nest, shapes and dtypes of ``x``.

    Args:
        f: returns one real scalar; with ``has_aux`` a pair of it and anything else.
        argnums: with respect to which positional argument; a tuple of gradients for a sequence of numbers.

    Raises:
        TypeError: f returns no real scalar, or an argument is not an array of floats.
    """
    both = value_and_grad(f, argnums, has_aux)

    def gradient(*args: Any, **kwargs: Any) -> Any:
        value, g = both(*args, **kwargs)
        return (g, value[1]) if has_aux else g

    return _named(gradient, f, "grad")


def value_and_grad(f: Callable[..., Any], argnums: int | Sequence[int] = 0, has_aux: bool = False) -> Callable[..., Any]:
    """The value and the gradient in one pass: ``(value, grad)``, or ``((value, aux), grad)``. See :func:`grad`."""

    def evaluate(*args: Any, **kwargs: Any) -> Any:
        of, primals = _partial(f, argnums, args, kwargs)
        run = _Reverse(of, primals, has_aux, Leaf, beside=(args, kwargs))
        y = run.y
        check_scalar(y, "gradient")
        g = run.pull([unit_like(y) if hasattr(y, "dtype") else np.ones(())], free=True)
        return ((y, run.aux) if has_aux else y), (g[0] if isinstance(argnums, int) else g)

    return _named(evaluate, f, "value_and_grad")


def vjp(f: Callable[..., Any], *primals: Any, has_aux: bool = False) -> Any:
    """``y, pullback = vjp(f, x1, ...)``: ``pullback(g)`` is the tuple of the g' df/dx_i, and may be called many times.

    ``g`` has the nest, shapes and dtypes of ``y``. With ``has_aux``: ``(y, pullback, aux)``.
    """
    run = _Reverse(f, primals, has_aux, Leaf)

    def pullback(g: Any) -> tuple[Any, ...]:
        return run.pull(matching(g, run.y, run.structure, run.values, "cotangent"))

    return (run.y, pullback, run.aux) if has_aux else (run.y, pullback)


def jvp(f: Callable[..., Any], primals: Any, tangents: Any, has_aux: bool = False) -> Any:
    """``y, y_dot = jvp(f, (x1, ...), (t1, ...))``: the derivative along the tangents, by forward mode.

    With ``has_aux``: ``(y, y_dot, aux)``.
    """
    leaves, structure = tree.flatten(_positional(primals))
    leaves = [_variable(x) for x in leaves]
    ts = matching(_positional(tangents), primals, structure, leaves, "tangent")
    with new_level() as level:
        out = f(*tree.unflatten(structure, [Tensor(x, Forward(level, t)) for x, t in zip(leaves, ts)]))
    y, aux = _split_aux(out, has_aux)
    outputs, of_y = tree.flatten(y)
    y_dot = tree.unflatten(of_y, own_all(as_given([_tangent(o, level) for o in outputs], leaves, ts), ts))
    y, aux = (_outside(part, level, leaves, ts) for part in (y, aux))
    return (y, y_dot, aux) if has_aux else (y, y_dot)


def linearize(f: Callable[..., Any], *primals: Any) -> tuple[Any, Callable[..., Any]]:
    """``y, push = linearize(f, x1, ...)``: ``push(t1, ...)`` is the jvp at this point, without computing f again.

    Of a gradient it is the Hessian times a vector: ``g, push = gg.linearize(gg.grad(f), x)``. Of many products at one point each then takes two thirds of the time of
    :func:`gpugrad.hvp`, because what does not depend on the vector is computed once. It is kept as long as ``push`` is.
    """
    run = _Reverse(f, primals, False, RecordedLeaf)
    xs = [x for x, _ in run.boxes]

    def push(*tangents: Any) -> Any:
        ts = matching(tangents, primals, run.inputs, xs, "tangent")
        return tree.unflatten(run.structure, own_all(as_given(run.push(ts), xs, ts), ts))

    return run.y, push


def stop_gradient(x: Any) -> Any:
    """``x`` (any nest) as a constant: the same values, no derivative in any mode or level."""
    return tree.map_leaves(lambda v: tape.box(tape.constant(v)) if type(v) is Tensor else v, x)


# ------------------------------------------------------------------------------------------------- what they share


class _Reverse:
    """``f`` run once on a level of its own: the outputs' nodes and values, and where the inputs were boxed."""

    def __init__(self, f: Callable[..., Any], primals: Sequence[Any], has_aux: bool, leaf_type: Any, beside: Any = ()) -> None:
        """``beside`` is a nest of what ``f`` was given besides the primals."""
        leaves, self.inputs = tree.flatten(tuple(primals))
        self.given = [*leaves, *tree.flatten(beside)[0]]
        with new_level() as level:
            self.boxes = [(x, leaf_type(level, x)) for x in map(_variable, leaves)]
            out = f(*tree.unflatten(self.inputs, [Tensor(x, leaf) for x, leaf in self.boxes]))
        y, aux = _split_aux(out, has_aux)
        outputs, self.structure = tree.flatten(y)
        self.nodes = [node_at(level, _strip_above(o, level)) for o in outputs]
        self.y, self.aux = (_outside(part, level, self.given) for part in (y, aux))
        self.values = tree.flatten(self.y)[0]

    @functools.cached_property
    def steps(self) -> Any:
        """The way of a push, found once."""
        return steps_to(self.nodes)

    def push(self, tangents: Sequence[Any]) -> list[Any]:
        """The outputs' tangents, where a ``RecordedLeaf`` was the leaf type, from those of the inputs' leaves (None is zero)."""
        known = push_forward(self.steps, {leaf: t for (_, leaf), t in zip(self.boxes, tangents, strict=True) if t is not None})
        return [zeros_like(y) if known.get(n) is None else known[n] for n, y in zip(self.nodes, self.values, strict=True)]

    def pull(self, cotangents: Sequence[Any], free: bool = False) -> tuple[Any, ...]:
        seeds = [(n, g) for n, g in zip(self.nodes, cotangents, strict=True) if n is not None and g is not None]
        grads = pull_back(seeds, free=free)
        pulled = [zeros_like(x) if grads.get(n) is None else grads[n] for x, n in self.boxes]
        return tree.unflatten(self.inputs, own_all(as_given(pulled, self.given, cotangents), cotangents))


def check_scalar(y: Any, what: str) -> None:
    """Raise TypeError unless a function's value ``y`` is one real number, of which there is a gradient."""
    if not hasattr(plain(y), "dtype") and not isinstance(y, (int, float)):
        raise TypeError(
            f"{what} of a function that returns {type(y).__name__}: expected one scalar. Use gg.vjp or gg.jacobian, or has_aux=True for (scalar, anything)."
        )
    if shape_of(y) != () or dtype_of(y).kind == "c":
        raise TypeError(
            f"{what} of a function whose output has shape {shape_of(y)} and dtype {dtype_of(y)}: expected a real scalar. Sum it, or use gg.jacobian or gg.vjp."
        )


def _variable(x: Any) -> Any:
    """An input that can be differentiated with respect to: an array or Tensor of floats; a Python float becomes float64."""
    if type(x) is not Tensor and not backend.is_array(x):
        x = backend.asarray(x)
    if not tape.is_inexact(x.dtype):
        raise TypeError(
            f"cannot differentiate with respect to an argument of dtype {x.dtype}: expected floats. Convert it, as in x.astype(float), or leave it out of argnums."
        )
    return Tensor(x.value, x.node) if type(x) is Tensor else x  # a box of its own: functional_call changes what is in a Parameter


def matching(ts: Any, nest: Any, structure: Any, xs: Sequence[Any], what: str) -> list[Any]:
    """Tangents or cotangents for the leaves ``xs`` of ``nest``, checked: the ``what`` of each."""
    leaves = tree.flatten_like(ts, structure, f"the {what}s")
    if all(type(t) is type(x) is ndarray and t.shape == x.shape and t.dtype == x.dtype for t, x in zip(leaves, xs, strict=True)):
        return leaves
    out = []
    for t, x, place in zip(leaves, xs, tree.paths(nest, _NAMES[what]), strict=True):
        if shape_of(t) != shape_of(x):
            raise ValueError(f"the {what} of {place} has shape {shape_of(t)}, expected {shape_of(x)}, that of what it belongs to")
        out.append(fitted(t, x, f"{what} of {place}"))
    return out


def fitted(t: Any, x: Any, what: str) -> Any:
    """``t`` as an array of the dtype of ``x``, if it is on its device; ``what`` it is called in errors."""
    t = t if hasattr(t, "dtype") else backend.asarray(t)
    t_device, x_device = (backend.device_of(plain(v)) for v in (t, x))
    if t_device != x_device and shape_of(t):
        raise backend.DeviceError(f"the {what} is on {t_device}, what it belongs to on {x_device}: move it with gg.asarray(t, device={x_device!r})")
    if dtype_of(t) == dtype_of(x):
        return t
    if dtype_of(t).kind == "c" and dtype_of(x).kind != "c":
        raise TypeError(f"the {what} is {dtype_of(t)} but what it belongs to is {dtype_of(x)}: take its real part")
    return t.astype(dtype_of(x))


_NAMES = {"tangent": "primals", "cotangent": "the output"}


def as_given(ys: Sequence[Any], *given: Sequence[Any]) -> list[Any]:
    """Results of a transform: plain arrays where all that was given are plain, though a constant may have become a Tensor on the way."""
    return list(ys) if any(type(x) is Tensor for xs in given for x in xs) else list(map(tape.bare, ys))


def boxed_as(given: Sequence[Any], ys: Sequence[Any]) -> list[Any]:
    """``ys`` as Tensors, if one of those given is."""
    return list(map(tape.box, ys)) if any(type(x) is Tensor for x in given) else list(ys)


def _outside(nest: Any, level: int, *given: Sequence[Any]) -> Any:
    """What results are outside of ``level``."""
    ys, structure = tree.flatten(nest)
    return tree.unflatten(structure, as_given([unbox(y, level) for y in ys], *given))


def _tangent(o: Any, level: int) -> Any:
    node = node_at(level, _strip_above(o, level))
    if node is not None:
        return node.tangent
    inexact = tape.is_inexact(dtype_of(o))
    return zeros_like(unbox(o, level), None if inexact else np.float64)


def _strip_above(o: Any, level: int) -> Any:
    """Boxes of leaves that were made inside the transform lie above its level; outside they are constants."""
    while is_tracked(o) and o.node.level > level:
        o = o.value
    return o


def _partial(f: Callable[..., Any], argnums: int | Sequence[int], args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Callable[..., Any], list[Any]]:
    """``f`` as a function of the arguments ``argnums`` alone, and those arguments."""
    wanted = [argnums] if isinstance(argnums, int) else list(argnums)
    if any(not -len(args) <= i < len(args) for i in wanted):
        raise TypeError(f"argnums is {argnums}, but the function was called with {len(args)} positional arguments")
    wanted = [i % len(args) for i in wanted]

    def of(*primals: Any) -> Any:
        full = list(args)
        for i, x in zip(wanted, primals, strict=True):
            full[i] = x
        return f(*full, **kwargs)

    return of, [args[i] for i in wanted]


def _split_aux(out: Any, has_aux: bool) -> tuple[Any, Any]:
    if not has_aux:
        return out, None
    if not isinstance(out, (tuple, list)) or len(out) != 2:
        raise TypeError(f"has_aux=True, but the function returned {type(out).__name__}: expected a pair (output, aux)")
    return out[0], out[1]


def _positional(x: Any) -> tuple[Any, ...]:
    return x if isinstance(x, tuple) else (x,)


def _named(g: Callable[..., Any], f: Callable[..., Any], what: str) -> Callable[..., Any]:
    g.__name__ = f"{what}({getattr(f, '__name__', 'f')})"
    g.__doc__ = f"{what} of {getattr(f, '__name__', 'f')}.\n\n{f.__doc__ or ''}"
    return g


def own(g: Any) -> Any:
    """``g`` as an array that shares memory with no other: views and broadcasts are copied, but for a view that is all that is left of its array."""
    if type(g) is Tensor:
        return Tensor(own(g.value)) if g.node is None else g
    if not backend.is_array(g):
        return np.asarray(g)
    if type(g) is ndarray and not g.flags.writeable:
        return g.copy()
    if g.base is None or (g.flags.c_contiguous and type(g.base) is type(g) and g.base.size == g.size and _holders(g) == _ALONE):
        return g
    return g.copy()


def _holders(view: Any) -> int:
    """How many hold the array that ``view`` looks into."""
    return sys.getrefcount(view.base)


_ALONE = _holders(np.empty(2)[...])


def own_all(gs: Iterable[Any], foreign: Sequence[Any] = ()) -> list[Any]:
    """:func:`own` of each, and no two of them, nor one of ``foreign``, the same array."""
    seen = {id(plain(x)) for x in foreign}
    out = []
    for g in gs:
        g = own(g)
        if id(plain(g)) in seen and not is_tracked(g):
            g = g.copy()
        seen.add(id(plain(g)))
        out.append(g)
    return out
