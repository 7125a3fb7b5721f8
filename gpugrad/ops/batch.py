"""Batching rules: an operation on many examples at once, which lie along an axis of their own in front of all others (see :func:`gpugrad.vmap`).

A rule is ``rule(op, size, batched, args, params)``: those of ``args`` that are ``batched`` have the axis, of length ``size``, the others are the same for all
examples. It calls operations one level down, and returns the output with the axis. Most operations need none of their own::

    batch=leading(axis=shift)           # of x alone, along axes that are one further back
    batch=leading(shape=grow)           # with a shape among its parameters
    batch=spread                        # elementwise: the axis goes in front of those that broadcast
    batch=laid_out                      # the same, of a kernel that is made for arrays of one shape

A public function that is composed of operations has nothing to say: each of them is batched by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gpugrad import tape
from gpugrad.tape import Batch, Op, Rule, Shared, Tensor, node_at, unbox

Args = Sequence[Any]
Change = Callable[[Any, int], Any]


def shape_of(x: Any) -> tuple[int, ...]:
    """The shape of a Tensor, array, scalar or list; numbers and None have none."""
    return x.shape if hasattr(x, "shape") else np.shape(x)


def aligned(v: Any, ndim: int) -> Any:
    """Examples (size, *shape) of fewer than ``ndim`` axes as (size, 1, ..., 1, *shape), so that they broadcast as each of them would."""
    from gpugrad.ops.shape import reshape

    shape = shape_of(v)
    missing = ndim + 1 - len(shape)
    return v if missing <= 0 else reshape(v, (shape[0], *[1] * missing, *shape[1:]))


def repeated(v: Any, size: int) -> Any:
    """What is the same for all examples, once for each: a view where ``v`` is plain."""
    from gpugrad.ops.fit import broadcast_to

    return v if not hasattr(v, "shape") else broadcast_to(v, (size, *v.shape))


def with_axis(size: int, batched: Sequence[bool], args: Args) -> list[Any]:
    """All arguments with the axis; numbers and None stay."""
    return [v if b else repeated(v, size) for v, b in zip(args, batched, strict=True)]


def spread(op: Op, size: int, batched: Sequence[bool], args: Args, params: dict[str, Any]) -> Any:
    """Of an elementwise operation, whose arguments broadcast."""
    ndim = max([len(shape_of(v)) - b for v, b in zip(args, batched, strict=True)])
    return op(*[aligned(v, ndim) if b else v for v, b in zip(args, batched, strict=True)], **params)


def laid_out(op: Op, size: int, batched: Sequence[bool], args: Args, params: dict[str, Any]) -> Any:
    """As :func:`spread`, of an operation whose kernel is quickest where all arrays have the shape of the first: a copy is a pass, its reference are many."""
    return spread(op, size, [hasattr(v, "shape") for v in args], with_axis(size, batched, args), params)


def leading(**changes: Change) -> Rule:
    """Of an operation that takes the axis as one more of its arguments', once its parameters are changed as ``changes`` say: ``changes[name](value, size)``."""

    def rule(op: Op, size: int, batched: Sequence[bool], args: Args, params: dict[str, Any]) -> Any:
        changed = {name: changes[name](value, size) if name in changes else value for name, value in params.items()}
        return op(*with_axis(size, batched, args), **changed)

    return rule


def by_operations(meaning: Callable[..., Sequence[Any]]) -> Rule:
    """Of an operation with several outputs that computes what ``meaning`` puts together from others: each of those is batched by itself."""

    def rule(_op: Op, size: int, batched: Sequence[bool], args: Args, params: dict[str, Any]) -> list[Any]:
        with tape.new_level() as level:
            example = Batch(level, size)
            ys = meaning(*[Tensor(v, example) if many else v for many, v in zip(batched, args, strict=True)], **params)
        return [unbox(y, level) if node_at(level, y) is not None else Shared(unbox(y, level)) for y in ys]

    return rule


def shift(axis: Any, _size: int) -> Any:
    """An axis or a tuple of axes, one further back where they count from the front."""
    return tuple([i + (i >= 0) for i in axis]) if isinstance(axis, tuple) else axis + (axis >= 0)


def grow(shape: tuple[int, ...], size: int) -> tuple[int, ...]:
    """A shape with the examples' axis in front."""
    return (size, *shape)


def same_for_all(x: Any, what: str) -> Any:
    """The plain value of x, which decides a shape or a place on the host.

    Raises:
        gpugrad.tape.BatchedError: each example has its own.
    """
    if tape.is_batched(x):
        raise tape.BatchedError(
            f"got {what} that depend on the example, inside gg.vmap: they decide shapes or places, which all examples share. Index by x[t], or choose by gg.where(condition, a, b)"
        )
    return tape.plain(x)


def ragged(what: str) -> tape.BatchedError:
    """Of what picks another number of elements from each example."""
    return tape.BatchedError(
        f"{what} inside gg.vmap: the mask depends on the example, and so does the number of elements that it picks. Keep them all, and choose by "
        "gg.where(mask, x, other), a neutral element in reductions; gg.where(mask, v, x) for x.at[mask].set(v)"
    )


def in_turn(op: Op, size: int, batched: Sequence[bool], args: Args, params: dict[str, Any]) -> Any:
    """Example by example, joined: for operations of which nothing more is known."""
    from gpugrad.ops.shape import stack

    if not size:
        raise ValueError(
            f"{op.name} inside gg.vmap over no examples: it has no batching rule, so nothing says of what shape its result is. Give it one with gg.defbatch."
        )
    ys = [op(*[v[i] if b else v for v, b in zip(args, batched, strict=True)], **params) for i in range(size)]
    if isinstance(ys[0], tuple):
        return tuple(stack(parts) for parts in zip(*ys, strict=True))
    return stack(ys)


tape.install(batch_in_turn=in_turn)
