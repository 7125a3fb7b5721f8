"""Products of the Hessian of a scalar function with vectors, without the Hessian.

Pearlmutter, "Fast exact multiplication by the Hessian" (1994). For products at one point again and again, ``g, push = gg.linearize(gg.grad(f), x)``: ``push(v)`` is H v.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gpugrad import tree
from gpugrad.batching import vmap
from gpugrad.jacobians import MEMORY, number_at_once
from gpugrad.ops.fit import shape_of, unit_like, zeros_like
from gpugrad.tape import Forward, Leaf, RecordedLeaf, Tensor, new_level, node_at, pull_back, unbox
from gpugrad.transforms import _positional, _Reverse, _strip_above, _variable, as_given, boxed_as, check_scalar, fitted, grad, jvp, matching, own_all
from gpugrad.undifferentiable import ERRORS, note

MODES = ("reverse-over-forward", "forward-over-reverse", "reverse-over-reverse")


def hvp(f: Callable[..., Any], primals: Any, tangents: Any, mode: str = MODES[0]) -> Any:
    """H v, the Hessian of a scalar function times a vector, at the cost of two to three gradients and twice the memory of one.

    A tuple means positional arguments, and a tuple comes back; anything else is one argument, any nest. ``tangents`` is a nest like ``primals``, and so is the product.

    Args:
        mode: "reverse-over-forward" is the gradient of the derivative along v, x -> <grad f(x), v>, and the cheapest, for it needs no gradient: of a network's layer it
            takes 8 products of matrices (a gradient takes 3). "forward-over-reverse" is the derivative of the gradient along v, and "reverse-over-reverse" the
            gradient of x -> <grad f(x), v> by two backward passes. They agree to rounding.

    Raises:
        ValueError: no such mode; tangents of another structure or shape, and they name the parameter.
        TypeError: f returns no real scalar, or an argument is not an array of floats.
        NotImplementedError, RuntimeError: an operation has no second derivative; a note names the arguments.
    """
    if mode not in MODES:
        raise ValueError(f"mode is {mode!r}: expected {', '.join(map(repr, MODES[:-1]))} or {MODES[-1]!r}")
    return _noted(f, primals, lambda: _product(f, primals, tangents, mode))


def _product(f: Callable[..., Any], primals: Any, tangents: Any, mode: str) -> Any:
    if mode == "reverse-over-forward":
        return derivative_along(f, primals, tangents, False)[2]
    xs = _positional(primals)
    gradient = grad(f, argnums=tuple(range(len(xs))))
    if mode == "forward-over-reverse":
        product = jvp(gradient, primals, tangents)[1]
    else:
        run = _Reverse(gradient, xs, False, Leaf)
        product = run.pull(matching(_positional(tangents), primals, run.inputs, [x for x, _ in run.boxes], "tangent"), free=True)
    return product if isinstance(primals, tuple) else product[0]


def vhp(f: Callable[..., Any], primals: Any, cotangents: Any) -> Any:
    """v' H, a vector times the Hessian of a scalar function: H v, for the Hessian is symmetric. See :func:`hvp`.

    It pulls v back through the gradient, where "forward-over-reverse" pushes it forward; the two differ where rules of a user's own contradict each other.
    """
    return _noted(f, primals, lambda: derivative_along(f, primals, cotangents, False)[2])


def value_grad_hvp(f: Callable[..., Any], primals: Any, tangents: Any) -> tuple[Any, Any, Any]:
    """f(x), its gradient g and H v in one pass, for little more than H v. The arguments, results and errors are those of :func:`hvp`.

    The derivative along v is <g(x), v>: its gradient by x is H v, and that by v is g.
    """
    return _noted(f, primals, lambda: derivative_along(f, primals, tangents, True))


def _noted(f: Callable[..., Any], primals: Any, run: Callable[[], Any]) -> Any:
    """What ``run`` returns; an error says by which arguments there is no second derivative."""
    try:
        return run()
    except ERRORS as error:
        xs, structure = tree.flatten(_positional(primals))
        note(error, lambda *leaves: f(*tree.unflatten(structure, leaves)), xs, tree.paths(primals, "primals"))
        raise


def derivative_along(f: Callable[..., Any], primals: Any, tangents: Any, with_gradient: bool) -> tuple[Any, Any, Any]:
    """The value of f, and the gradients of <grad f(x), v> by v, if asked for, and by x."""
    xs, structure = tree.flatten(primals)
    xs = [_variable(x) for x in xs]
    vs = matching(tangents, primals, structure, xs, "tangent")
    with new_level() as outer:
        by_x, by_v = ([Leaf(outer, x) for x in values] for values in (xs, vs if with_gradient else []))
        directions = [Tensor(v, leaf) for v, leaf in zip(vs, by_v, strict=True)] if with_gradient else vs
        with new_level() as inner:
            inputs = tree.unflatten(structure, [Tensor(Tensor(x, leaf), Forward(inner, v)) for x, leaf, v in zip(xs, by_x, directions, strict=True)])
            y = f(*inputs) if isinstance(primals, tuple) else f(inputs)
        check_scalar(y, "Hessian-vector product")
        dual = node_at(inner, _strip_above(y, inner))
    along = None if dual is None else _strip_above(dual.tangent, outer)
    found = {} if along is None or (end := node_at(outer, along)) is None else pull_back([(end, unit_like(along.value))], free=True)
    pulled = [zeros_like(x) if found.get(leaf) is None else found[leaf] for x, leaf in zip([*xs, *xs], [*by_x, *by_v])]
    products = own_all(as_given(pulled, xs, vs), vs)
    gradient = tree.unflatten(structure, products[len(xs) :]) if with_gradient else None
    return as_given([unbox(y, outer)], xs, vs)[0], gradient, tree.unflatten(structure, products[: len(xs)])


def block_hvp(f: Callable[..., Any], primals: Any, tangents: Any, memory: int = MEMORY) -> Any:
    """H V, the Hessian times K vectors at once: leaves of ``tangents``, and of the result, have shape (K, ...).

    The gradient runs once; then many vectors are pushed through what it recorded at once, as larger products of matrices (:func:`gpugrad.vmap`).

    Args:
        memory: about how many bytes the vectors that are pushed at once may take, besides tangents and result: 256 MiB unless told otherwise. Of each vector all values that
            were recorded are counted, which is what it needs at most. It is never less than one vector.

    Raises:
        ValueError: tangents of another structure, shape or number, and it names the parameter; no memory. Others as in :func:`hvp`.
    """
    return _noted(f, primals, lambda: _block_product(f, primals, tangents, memory))


def _block_product(f: Callable[..., Any], primals: Any, tangents: Any, memory: int) -> Any:
    xs = _positional(primals)
    run = _Reverse(grad(f, argnums=tuple(range(len(xs)))), xs, False, RecordedLeaf)
    blocks = _blocks(tangents, primals, run)
    at_once = number_at_once("block_hvp", memory, run.nodes)
    product = tree.unflatten(run.inputs, boxed_as(run.given, vmap(run.push, chunk_size=at_once)(blocks)))
    return product if isinstance(primals, tuple) else product[0]


def _blocks(tangents: Any, primals: Any, run: _Reverse) -> list[Any]:
    """The leaves of K vectors, checked."""
    vs = tree.flatten_like(_positional(tangents), run.inputs, "the tangents")
    sizes: dict[int, str] = {}
    out = []
    for v, (x, _), place in zip(vs, run.boxes, tree.paths(primals, "primals"), strict=True):
        shape = shape_of(v)
        if not shape or shape[1:] != shape_of(x):
            raise ValueError(
                f"the block of tangents of {place} has shape {shape}, expected (K, {', '.join(map(str, shape_of(x)))}): K vectors, one after the other"
            )
        sizes.setdefault(shape[0], place)
        out.append(fitted(v, x, f"block of tangents of {place}"))
    if len(sizes) > 1:
        counts = ", ".join(f"{size} of {place}" for size, place in sizes.items())
        raise ValueError(f"the blocks of tangents have different numbers of vectors: {counts}")
    return out
