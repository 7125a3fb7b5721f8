"""Whole matrices of derivatives: jacobian and hessian, many rows or columns at once by vmap."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gpugrad import tree
from gpugrad.backend import namespace
from gpugrad.batching import vmap
from gpugrad.ops.elementwise import equal
from gpugrad.ops.fit import astype, dtype_of, shape_of, zeros_like
from gpugrad.ops.shape import reshape
from gpugrad.tape import RecordedLeaf, footprint, plain
from gpugrad.transforms import _named, _partial, _Reverse, boxed_as, grad

MEMORY = 1 << 28


def jacobian(f: Callable[..., Any], argnums: int | Sequence[int] = 0, mode: str = "auto", *, memory: int = MEMORY) -> Callable[..., Any]:
    """All partial derivatives: ``jacobian(f)(x)`` has shape ``y.shape + x.shape`` (a nest of them, output's nest outside).

    f runs once; then many rows or columns are pulled or pushed through what it recorded at once.

    Args:
        mode: "reverse" (row by row: a row per output element), "forward" (column by column, one per input element), or the cheaper one.
        memory: about how many bytes the rows (columns) that are computed at once may take beside the result. It is never less than one of them.

    Raises:
        ValueError: no such mode; no memory.
        TypeError: an argument is not an array of floats, or forward mode of a real function of complex arguments.

    Of complex arguments it is the derivative of a holomorphic function, or in reverse mode the gradients of a real one (see the module).
    """
    if mode not in ("auto", "forward", "reverse"):
        raise ValueError(f"mode is {mode!r}: expected 'auto', 'forward' or 'reverse'")

    def evaluate(*args: Any, **kwargs: Any) -> Any:
        of, primals = _partial(f, argnums, args, kwargs)
        run = _Reverse(of, primals, False, RecordedLeaf, beside=(args, kwargs))
        xs = [x for x, _ in run.boxes]
        sizes = [sum(int(np.prod(shape_of(v))) for v in vs) for vs in (xs, run.values)]
        is_complex = any(dtype_of(x).kind == "c" for x in xs)
        if is_complex and mode == "forward" and any(dtype_of(y).kind != "c" for y in run.values):
            raise TypeError(
                "forward mode would give the derivative of a real function along the real axis only: use mode='reverse', or real and imaginary parts as arguments"
            )
        forward = mode == "forward" or (mode == "auto" and sizes[0] < sizes[1] and not is_complex)
        at_once = number_at_once("jacobian", memory, run.nodes)
        rows = _by_columns(run, at_once) if forward else _by_rows(run, at_once)
        nests = [tree.unflatten(run.inputs, boxed_as(run.given, row)) for row in rows]
        return tree.unflatten(run.structure, [nest[0] if isinstance(argnums, int) else nest for nest in nests])

    return _named(evaluate, f, "jacobian")


def hessian(f: Callable[..., Any], argnums: int | Sequence[int] = 0, *, memory: int = MEMORY) -> Callable[..., Any]:
    """The matrix of second derivatives of a scalar function, shape ``x.shape + x.shape``: columns by forward over reverse. See :func:`jacobian` for ``memory``."""
    matrix = jacobian(grad(f, argnums), argnums, mode="forward", memory=memory)

    def evaluate(*args: Any, **kwargs: Any) -> Any:
        if any(dtype_of(x).kind == "c" for x in tree.flatten(_partial(f, argnums, args, kwargs)[1])[0]):
            raise TypeError("the Hessian of a real function of complex numbers is not one matrix: use their real and imaginary parts as arguments")
        return matrix(*args, **kwargs)

    return _named(evaluate, f, "hessian")


def number_at_once(name: str, memory: int, outputs: Sequence[Any]) -> int:
    """How many tangents or cotangents of all that was recorded on the way to ``outputs`` (nodes) fit into ``memory`` bytes, at least one.

    Raises:
        ValueError: no memory.
    """
    if memory <= 0:
        raise ValueError(f"{name}: got memory={memory}, expected the number of bytes that what is computed at once may take")
    return max(1, memory // max(1, footprint(outputs)))


def _by_rows(run: _Reverse, at_once: int) -> list[list[Any]]:
    """Reverse mode: a pullback per output element gives a row."""
    rows = []
    for k, y in enumerate(run.values):

        def row(i: Any, k: int = k, y: Any = y) -> list[Any]:
            return tree.flatten(run.pull([_unit(i, y) if j == k else None for j in range(len(run.values))]))[0]

        rows.append([_block(d, y, x) for d, (x, _) in zip(_of_each(row, y, at_once, 0, len(run.boxes)), run.boxes, strict=True)])
    return rows


def _by_columns(run: _Reverse, at_once: int) -> list[list[Any]]:
    """Forward mode: a push along each input element gives a column."""
    columns: list[list[Any]] = []
    for k, (x, _) in enumerate(run.boxes):

        def column(i: Any, k: int = k, x: Any = x) -> list[Any]:
            return run.push([_unit(i, x) if j == k else None for j in range(len(run.boxes))])

        columns.append([_block(d, y, x) for d, y in zip(_of_each(column, x, at_once, -1, len(run.values)), run.values, strict=True)])
    return [[column[k] for column in columns] for k in range(len(run.values))]


def _of_each(f: Callable[[Any], list[Any]], x: Any, at_once: int, axis: int, count: int) -> list[Any]:
    """The ``count`` results of ``f(i)`` for the number i of each element of ``x``, so many of them at once, along an axis of its own; None if there are none."""
    size = int(np.prod(shape_of(x)))
    return vmap(f, out_axes=axis, chunk_size=at_once)(namespace(plain(x)).arange(size)) if size else [None] * count


def _block(d: Any, y: Any, x: Any) -> Any:
    """The derivatives of one output by one input."""
    shape = shape_of(y) + shape_of(x)
    return zeros_like(x, shape=shape) if d is None else reshape(d, shape)


def _unit(i: Any, x: Any) -> Any:
    """An array like ``x`` that is 1 at its i-th element and 0 elsewhere."""
    numbers = namespace(plain(x)).arange(int(np.prod(shape_of(x))))
    return reshape(astype(equal(numbers, i), dtype_of(x)), shape_of(x))
