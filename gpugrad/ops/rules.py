"""The ways to declare an operation, and the registry of all of them.

An operation's value, rules, kernel and test samples stand together, in one paragraph of a file of this folder::

    tanh = elementwise("tanh", np.tanh, lambda d, y, _x: d - d * y * y)

declares a value and its partial derivatives times ``d``. The Jacobian of an elementwise function is diagonal, so the
same formula serves the vjp (``d`` is the cotangent) and the jvp (``d`` is the tangent). Complex cotangents are
transposed, not conjugated (as in JAX and HIPS/autograd), so one formula serves there too.

A rule's argument whose name starts with an underscore is not kept on the tape. How an operation treats many examples at once (``batch``) is said with the
rules of :mod:`gpugrad.ops.batch`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from gpugrad.ops.batch import by_operations, spread
from gpugrad.tape import Forward, Leaf, Op, Rule, Tensor, binary, new_level, node_at, pull_back, unary

REGISTRY: dict[str, Op] = {}

Domain = tuple[float, float]
REALS: Domain = (-2.0, 2.0)


class Sample:
    """Arguments on which the tests check an operation: arrays, or ``shape`` tuples to be filled from ``domain``."""

    def __init__(self, *args: Any, domain: Domain | tuple[Domain, ...] = REALS, **params: Any) -> None:
        self.args, self.domain, self.params = args, domain, params

    def filled(self, dtype: Any) -> list[Any]:
        """The arguments, the same numbers each time: shapes as arrays of ``dtype`` (complex ones with a small imaginary part), arrays of floats cast to it."""
        rng = np.random.default_rng(1)
        domains = self.domain if isinstance(self.domain[0], tuple) else (self.domain,) * len(self.args)
        out = []
        for arg, (low, high) in zip(self.args, domains):
            if isinstance(arg, tuple):
                values = rng.uniform(low, high, arg)
                imaginary = 0.3j * rng.uniform(-1, 1, arg)
                arg = np.asarray(values + imaginary if np.dtype(dtype).kind == "c" else values, dtype)
            elif isinstance(arg, np.ndarray) and arg.dtype.kind == "f":
                arg = arg.astype(dtype)
            out.append(arg)
        return [*out, *self.args[len(out) :]]

    def __repr__(self) -> str:
        return f"Sample{self.args}{self.params or ''}"


def register(op: Op) -> Op:
    """Enter an operation under its name."""
    if op.name in REGISTRY:
        raise ValueError(f"there is an operation named {op.name!r} already")
    REGISTRY[op.name] = op
    return op


def two_arguments(domain: Domain | tuple[Domain, ...]) -> list[Sample]:
    """Samples of a function of two arrays: of one shape, of shapes that broadcast, and with a number in either place."""
    first, second = (0.3 * low + 0.7 * high for low, high in (domain if isinstance(domain[0], tuple) else (domain, domain)))
    pairs: tuple[Any, ...] = (((3, 4), (3, 4)), ((), ()), ((3, 1), (4,)), ((2, 3), second), (first, (2, 3)))
    return [Sample(*pair, domain=domain) for pair in pairs]


def elementwise(
    name: str,
    f: Callable[..., Any],
    *partials: Rule,
    domain: Domain | tuple[Domain, ...] = REALS,
    samples: Iterable[Sample] | None = None,
    batch: Rule = spread,
    doc: str | None = None,
) -> Callable[..., Any]:
    """Declare ``y = f(x1, ...)``, applied to each element, by ``partials[i](d, y, x1, ...) = d * (dy/dx_i)``.

    ``domain`` is where the samples are drawn from: one interval, or one per argument.
    """
    arity = len(partials)
    if samples is None:
        samples = (
            [Sample((3, 4), domain=domain)]
            if arity == 1
            else two_arguments(domain)
            if arity == 2
            else [Sample(*[s] * arity, domain=domain) for s in ((3, 4), ())]
        )
    op = register(Op(name, f, partials, partials, samples=samples, batch=batch, doc=doc or f"``{name}`` of each element; see :func:`numpy.{name}`."))
    return unary(op) if arity == 1 else binary(op) if arity == 2 else op


def linear(
    name: str, f: Callable[..., Any], transpose: Callable[..., Any], *, samples: Iterable[Sample], batch: Rule | None = None, doc: str | None = None
) -> Op:
    """Declare a linear map of one array: its own jvp, and ``transpose(g, **params)`` for the vjp.

    What the transpose needs to know of the argument (its shape, say) is passed as a parameter, so nothing is kept.
    """
    op = Op(name, f, [lambda g, _y, _x, **params: transpose(g, **params)], samples=samples, batch=batch, doc=doc)
    op.define(op.vjp, [lambda t, _y, _x, **params: op(t, **params)])
    return register(op)


def general(
    name: str,
    f: Callable[..., Any],
    vjp: Any,
    jvp: Any = None,
    *,
    samples: Iterable[Sample],
    batch: Rule | None = None,
    dual: Rule | None = None,
    doc: str | None = None,
) -> Op:
    """Declare any other operation, by the rules that :class:`gpugrad.tape.Op` describes."""
    return register(Op(name, f, vjp, jvp, samples=samples, batch=batch, dual=dual, doc=doc))


def composed(name: str, f: Callable[..., Any], meaning: Callable[..., Any], vjp: Any = None, *, samples: Iterable[Sample], doc: str | None = None) -> Op:
    """Declare ``f``, which computes at once what ``meaning`` puts together from operations: a tuple of results. Its rules are those of ``meaning``, but for a joint ``vjp`` that is given."""

    def pulled(needs: Sequence[bool], gs: Sequence[Any], _ys: Any, /, *args: Any, **params: Any) -> list[Any]:
        with new_level() as level:
            leaves = [Leaf(level, v) if need else None for need, v in zip(needs, args, strict=True)]
            ys = meaning(*[v if leaf is None else Tensor(v, leaf) for leaf, v in zip(leaves, args, strict=True)], **params)
        grads = pull_back([(node, g) for y, g in zip(ys, gs, strict=True) if g is not None and (node := node_at(level, y)) is not None])
        return [None if leaf is None else grads.get(leaf) for leaf in leaves]

    def pushed(tangents: Sequence[Any], _ys: Any, /, *args: Any, **params: Any) -> list[Any]:
        with new_level() as level:
            ys = meaning(*[v if t is None else Tensor(v, Forward(level, t)) for t, v in zip(tangents, args, strict=True)], **params)
        return [None if (node := node_at(level, y)) is None else node.tangent for y in ys]

    return register(Op(name, f, vjp or pulled, pushed, samples=samples, batch=by_operations(meaning), doc=doc))


def constant(name: str, f: Callable[..., Any], *, samples: Iterable[Sample] = (), batch: Rule | None = None, doc: str | None = None) -> Op:
    """Declare an operation with nothing to differentiate (comparisons, argmax): its results are untracked."""
    return register(Op(name, f, (), (), samples=samples, batch=batch, doc=doc))
