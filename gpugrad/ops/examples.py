"""Code of a user's own that cannot take a Tensor that stands for many examples (:func:`gpugrad.vmap`), run for one example after the other.

The examples are taken apart and put together again by two operations, each other's transpose: what other levels know of the Tensors (derivatives of any
order, other batches) stays with them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

from gpugrad import tree
from gpugrad.ops.batch import leading
from gpugrad.ops.fit import zeros_like
from gpugrad.ops.shape import stack
from gpugrad.tape import Batch, Op, Tensor, bare, box, in_batch, is_batched


def one_by_one(f: Callable[..., Any]) -> Callable[..., Any]:
    """A user's rule, which may leave gpugrad for NumPy or a kernel of its own: where it does not get on with batched Tensors it is called for each example."""

    @functools.wraps(f)
    def rule(*args: Any, **params: Any) -> Any:
        try:
            return f(*args, **params)
        except Exception:  # BatchedError, or what a compiler of kernels says to a Tensor; what is wrong for each example too comes again
            if not any(map(is_batched, tree.flatten(args)[0])):
                raise
        return each(lambda *one: f(*tree.map_leaves(_unboxed, one), **params), *args)

    return rule


def _unboxed(x: Any) -> Any:
    """The plain array that a rule is given where nothing else is differentiated."""
    return x.value if type(x) is Tensor and x.node is None else x


def each(f: Callable[..., Any], *args: Any) -> Any:
    """``f(*args)``, in a batch for each example by itself. Arguments and results are nests of arrays, and of what is the same for all examples.

    Raises:
        ValueError: there are no examples, so nothing says what the results look like.
    """
    leaves, structure = tree.flatten(args)
    batch = max([node for x in leaves for node in _batches(x)], key=lambda node: node.level, default=None)
    if batch is None:
        return f(*args)
    if not batch.size:
        raise ValueError(
            "gg.vmap over no examples: code that runs for one after the other (a Function, a rule that leaves gpugrad) has no shape for its results"
        )
    parts = [_apart(x, batch) for x in leaves]
    results = [tree.flatten(each(f, *tree.unflatten(structure, [p[i] for p in parts]))) for i in range(batch.size)]
    joined = [together(*ys, batch=batch) if hasattr(ys[0], "dtype") else ys[0] for ys in zip(*[ys for ys, _ in results], strict=True)]
    return tree.unflatten(results[0][1], joined)


def _batches(x: Any) -> list[Batch]:
    """All that x is in."""
    found = []
    while type(x) is Tensor:
        if type(x.node) is Batch:
            found.append(x.node)
        x = x.value
    return found


def _apart(x: Any, batch: Batch) -> Sequence[Any]:
    return apart(x, batch=batch) if type(x) is Tensor else [x] * batch.size


class _Apart(Op):
    def __call__(self, x: Any, *, batch: Batch) -> Any:
        """To the levels above the batch's own this is an operation like any other, also of what all examples share: its derivative is one for each of them."""
        x = bare(x)
        if type(x) is not Tensor or x.node.level < batch.level:
            return (x,) * batch.size
        return tuple([box(x.value[i]) for i in range(batch.size)]) if x.node.level == batch.level else super().__call__(x, batch=batch)


apart = _Apart(
    "apart",
    lambda x, *, batch: (x,) * batch.size,
    lambda _needs, gs, ys, _x, *, batch: [together(*[zeros_like(y) if g is None else g for g, y in zip(gs, ys, strict=True)], batch=batch)],
    lambda tangents, _ys, _x, *, batch: list(_apart(tangents[0], batch)),
    batch=leading(),
    doc="The examples of ``batch``.",
)


class _Together(Op):
    def __call__(self, *ys: Any, batch: Batch) -> Any:
        """Likewise; below them the examples become one Tensor, which is in the batch."""
        above = any(type(y) is Tensor and y.node is not None and y.node.level > batch.level for y in ys)
        return super().__call__(*ys, batch=batch) if above else in_batch(stack(ys), batch)


together = _Together(
    "together",
    lambda *ys, batch: in_batch(stack(ys), batch),
    lambda _needs, g, _y, *_ys, batch: list(_apart(g, batch)),
    lambda tangents, _y, *ys, batch: together(*[zeros_like(y) if t is None else t for t, y in zip(tangents, ys, strict=True)], batch=batch),
    batch=leading(),
    doc="The examples of ``batch`` as one Tensor in it.",
)
