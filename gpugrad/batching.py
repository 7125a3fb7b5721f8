"""vmap: a function of one example as a function of many, each operation once for all of them.

It is a transform like the others, with a level of its own: its arguments are boxed as one example each, and each operation asks its Op's batching rule
(:mod:`gpugrad.ops.batch`). What does not depend on the examples is computed once. So it nests in any order with grad, vjp, jvp, linearize and itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_index

from gpugrad import backend, tree
from gpugrad.ops.fit import broadcast_to, shape_of
from gpugrad.ops.shape import as_array, concatenate, expand_dims, moveaxis
from gpugrad.tape import Batch, Tensor, new_level, node_at, unbox
from gpugrad.transforms import _named, _strip_above, as_given, boxed_as, own_all


def vmap(f: Callable[..., Any], in_axes: Any = 0, out_axes: Any = 0, *, chunk_size: int | None = None) -> Callable[..., Any]:
    """``f`` of one example as a function of many: ``vmap(f)(xs)[i] == f(xs[i])``, computed for all of them at once.

    A product of matrices becomes one product of larger ones, so the gradients of each example take the time of a few passes::

        per_example = gg.vmap(gg.grad(loss), in_axes=(None, 0, 0))(params, x, y)  # leaves of shape (len(x), *shape)

    Args:
        f: a function of arrays and nests of them. Keyword arguments are the same for all examples.
        in_axes: the axis of the examples: an int for all arguments, or a tuple with an entry for each, which is an int, None (the same for all examples) or a
            nest of them that begins like the argument's.
        out_axes: where the axis goes in the results, in the same way; None for a result that does not depend on the examples.
        chunk_size: how many examples at once, for less memory; all of them if None.

    Random numbers that ``f`` draws are the same for all examples (of a chunk), but for dropout of what depends on the example, of which each has a mask of its own.

    Raises:
        ValueError: axes that do not fit the arguments or the results, numbers of examples that differ, no argument that has any, or a chunk_size below 1.
        TypeError: ``f`` asks for the value of what stands for many examples, by ``if``, ``float()`` or a boolean mask as an index.
    """
    if chunk_size is not None:
        backend.check_integer("vmap: chunk_size", chunk_size, least=1)

    def evaluate(*args: Any, **kwargs: Any) -> Any:
        if isinstance(in_axes, (list, tuple)) and len(in_axes) != len(args):
            raise ValueError(
                f"vmap: in_axes has {len(in_axes)} entries, and the function was called with {len(args)} arguments by position: expected one for each"
            )
        leaves, structure = tree.flatten(args)
        places = [place for i, arg in enumerate(args) for place in tree.paths(arg, f"argument {i}")]
        axes = _axes(in_axes, args, "in_axes")
        size = _size(leaves, axes, places)
        fronted = [x if axis is None else as_array(x) if axis == 0 else moveaxis(as_array(x), axis, 0) for x, axis in zip(leaves, axes, strict=True)]

        def some(first: int, last: int) -> tuple[list[Any], Any]:
            xs = fronted if last - first == size else [x if axis is None else x[first:last] for x, axis in zip(fronted, axes, strict=True)]
            return _run(f, xs, axes, structure, last - first, out_axes, kwargs)

        if chunk_size is None or size <= chunk_size:
            outputs, of_y = some(0, size)
        else:
            outputs, of_y = _joined((some(i, min(i + chunk_size, size)) for i in range(0, size, chunk_size)), size, out_axes)
        outputs = boxed_as(leaves, as_given(outputs, leaves, tree.flatten(kwargs)[0]))
        return tree.unflatten(of_y, own_all(outputs, leaves))

    return _named(evaluate, f, "vmap")


def _run(f: Callable[..., Any], xs: list[Any], axes: list[Any], structure: Any, size: int, out_axes: Any, kwargs: dict[str, Any]) -> tuple[list[Any], Any]:
    """The results of ``size`` examples, which lie along the first axis of what has an axis; and their nest."""
    with new_level() as level:
        example = Batch(level, size)
        out = f(*tree.unflatten(structure, [x if axis is None else Tensor(x, example) for x, axis in zip(xs, axes, strict=True)]), **kwargs)
    outputs, of_y = tree.flatten(out)
    ends = _axes(out_axes, out, "out_axes")
    return [_together(o, axis, level, size, place) for o, axis, place in zip(outputs, ends, tree.paths(out, "result"), strict=True)], of_y


def _joined(chunks: Iterator[tuple[list[Any], Any]], size: int, out_axes: Any) -> tuple[list[Any], Any]:
    """The results of all chunks, and their nest."""
    wholes: list[_Whole] = []
    nest: Any = None
    for outputs, nest in chunks:
        wholes = wholes or [_Whole(axis, size) for axis in _axes(out_axes, nest, "out_axes")]
        for whole, y in zip(wholes, outputs, strict=True):
            whole.take(y)
        outputs.clear()
    return [whole.result() for whole in wholes], nest


class _Whole:
    """A result of all chunks. Plain arrays are written to where they belong as they come, so that there is one chunk beside the whole, not two wholes."""

    def __init__(self, axis: int | None, size: int) -> None:
        self.axis, self.size = axis, size
        self.parts: list[Any] = []
        self.array: Any = None
        self.done = 0

    def take(self, y: Any) -> None:
        if self.axis is None or not backend.is_array(y):
            self.parts.append(y)
            return
        axis = self.axis % y.ndim
        if self.array is None:
            self.array = backend.namespace(y).empty((*y.shape[:axis], self.size, *y.shape[axis + 1 :]), y.dtype)
        self.array[(*[slice(None)] * axis, slice(self.done, self.done + y.shape[axis]))] = y
        self.done += y.shape[axis]

    def result(self) -> Any:
        if self.array is not None:
            return self.array
        return self.parts[0] if self.axis is None else concatenate(self.parts, self.axis)


def _together(o: Any, axis: int | None, level: int, size: int, place: str) -> Any:
    """A result with the axis of the examples where it is wanted."""
    depends = node_at(level, o := _strip_above(o, level)) is not None
    y = unbox(o, level)
    y = y if hasattr(y, "shape") else backend.asarray(y)
    if axis is None:
        if depends:
            raise ValueError(
                f"vmap: out_axes is None for {place}, which depends on the examples: give the axis along which they shall lie, or reduce it to one in f"
            )
        return y
    shape = shape_of(y)
    if not depends:
        y = broadcast_to(expand_dims(y, 0), (size, *shape))
    ndim = len(shape) + (not depends)
    if not -ndim <= axis < ndim:
        raise ValueError(f"vmap: out_axes is {axis} for {place}, which has {ndim} axes with that of the examples: expected {-ndim} to {ndim - 1}")
    return y if axis == 0 else moveaxis(y, 0, axis)


def _axes(axes: Any, of: Any, name: str) -> list[int | None]:
    """An axis for each leaf of the nest ``of``; ``axes`` begins like it."""
    found: list[int | None] = []

    def visit(axis: Any, part: Any, place: str) -> None:
        if axis is None or (isinstance(axis, (int, np.integer)) and not isinstance(axis, bool)):
            found.extend([None if axis is None else int(axis)] * len(tree.flatten(part)[0]))
        elif isinstance(axis, dict) and isinstance(part, dict) and axis.keys() == part.keys():
            for key in part:
                visit(axis[key], part[key], f"{place}[{key!r}]")
        elif isinstance(axis, (list, tuple)) and isinstance(part, (list, tuple)) and len(axis) == len(part):
            for i, (a, p) in enumerate(zip(axis, part, strict=True)):
                visit(a, p, f"{place}[{i}]")
        else:
            nest = tree.flatten(part)[1]
            raise ValueError(f"vmap: {name}{place} is {axis!r}, which does not fit {nest}: expected an int, None, or a nest of these that begins like it")

    visit(list(axes) if isinstance(axes, list) and isinstance(of, tuple) else axes, of, "")
    return found


def _size(leaves: list[Any], axes: list[int | None], places: list[str]) -> int:
    """How many examples there are; ``axes`` are made to count from the front."""
    lengths: dict[str, int] = {}
    for i, (x, axis, place) in enumerate(zip(leaves, axes, places, strict=True)):
        if axis is None:
            continue
        shape = shape_of(x)
        if not -len(shape) <= axis < len(shape):
            raise ValueError(f"vmap: {place} has shape {shape}, which has no axis {axis} for the examples: give its axis by in_axes, None if all share it")
        axes[i] = axis = normalize_axis_index(axis, len(shape))
        lengths[place] = shape[axis]
    if not lengths:
        raise ValueError("vmap: no argument has an axis of examples: give at least one of in_axes as an int")
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{n} in {place}" for place, n in lengths.items())
        raise ValueError(f"vmap: the arguments have different numbers of examples: {listed}. What all examples share has None in in_axes")
    return next(iter(lengths.values()))
