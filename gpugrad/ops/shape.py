"""Rearranging: reshape, transpose, joining, splitting, padding, repeating. Names and arguments are NumPy's.

Six operations (reshape, transpose, concatenate and split, which are each other's transpose, pad, roll), slicing and
broadcasting carry all of it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_index, normalize_axis_tuple

from gpugrad import backend
from gpugrad.backend import namespace
from gpugrad.ops import elementwise as ew
from gpugrad.ops.batch import Args, grow, leading, same_for_all, shift
from gpugrad.ops.fit import astype, broadcast_to, dtype_of, shape_of, zeros_like
from gpugrad.ops.rules import Sample, general, linear
from gpugrad.tape import Tensor, box, plain

__all__ = [
    "append", "array_split", "atleast_1d", "atleast_2d", "atleast_3d", "broadcast_arrays", "column_stack", "concat", "concatenate", "diag", "diagonal",
    "diff", "dstack", "expand_dims", "flip", "fliplr", "flipud", "hsplit", "hstack", "matrix_transpose", "meshgrid", "moveaxis", "pad", "permute_dims",
    "ravel", "repeat", "reshape", "roll", "rot90", "split", "squeeze", "stack", "swapaxes", "tile", "trace", "transpose", "tril", "triu", "unstack",
    "vsplit", "vstack",
]  # fmt: skip

Axis = int | tuple[int, ...] | None


def as_array(x: Any) -> Any:
    """``x`` itself if it is a Tensor or an array; numbers and lists become arrays."""
    return x if type(x) is Tensor or backend.is_array(x) else backend.asarray(x)


def along(axis: int, key: Any) -> tuple[Any, ...]:
    """The index that applies ``key`` to one axis."""
    return (slice(None),) * axis + (key,)


# ---------------------------------------------------------------------------------- reshape


def _reshape_examples(_op: Any, size: int, _batched: Any, args: Args, params: dict[str, Any]) -> Any:
    shape, count = params["shape"], math.prod(params["source"])
    rest = -math.prod(shape)
    return reshape(args[0], grow(tuple([count // rest if n == -1 and rest else n for n in shape]), size))


_reshape = linear(
    "reshape",
    lambda x, *, shape, source: x.reshape(shape),
    lambda g, *, shape, source: _reshape(g, shape=source, source=shape_of(g)),
    samples=[Sample((2, 6), shape=(3, -1), source=(2, 6)), Sample((), shape=(1, 1), source=()), Sample((2, 0), shape=(0, 5), source=(2, 0))],
    batch=_reshape_examples,
)


def reshape(x: Any, shape: int | Sequence[int], order: str = "C") -> Any:
    """The elements of ``x``, in row-major order, in a new shape; one length may be -1. See :func:`numpy.reshape`.

    Raises:
        ValueError: the sizes differ, or ``order`` is not "C".
    """
    _only_c(order)
    x = as_array(x)
    source = shape_of(x)
    shape = (int(shape),) if isinstance(shape, (int, np.integer)) else tuple(int(n) for n in shape)
    return x if shape == source else _reshape(x, shape=shape, source=source)


def _only_c(order: str) -> None:
    if order != "C":
        raise ValueError(f"got order={order!r}, expected 'C': only row-major order is supported. For column-major order transpose before and after.")


def ravel(x: Any, order: str = "C") -> Any:
    """``x`` as one axis, in row-major order. See :func:`numpy.ravel`."""
    return reshape(x, -1, order)


def squeeze(x: Any, axis: Axis = None) -> Any:
    """``x`` without its axes of length 1, or without those named. See :func:`numpy.squeeze`.

    Raises:
        ValueError: a named axis is longer than 1.
    """
    shape = shape_of(x)
    axes = [i for i, n in enumerate(shape) if n == 1] if axis is None else normalize_axis_tuple(axis, len(shape))
    for i in axes:
        if shape[i] != 1:
            raise ValueError(f"squeeze: axis {i} of shape {shape} has length {shape[i]}, expected 1; take(x, i, axis={i}) picks one item")
    return reshape(x, [n for i, n in enumerate(shape) if i not in axes])


def expand_dims(x: Any, axis: int | Sequence[int]) -> Any:
    """``x`` with axes of length 1 at the places ``axis`` of the result. See :func:`numpy.expand_dims`."""
    lengths = iter(shape_of(x))
    axes = (axis,) if isinstance(axis, (int, np.integer)) else tuple(axis)
    ndim = len(shape_of(x)) + len(axes)
    new = normalize_axis_tuple(axes, ndim)
    return reshape(x, [1 if i in new else next(lengths) for i in range(ndim)])


def atleast_1d(*arrays: Any) -> Any:
    """Each array with at least one axis; a tuple for several arrays. See :func:`numpy.atleast_1d`."""
    return _each(lambda x: reshape(x, -1) if shape_of(x) == () else x, arrays)


def atleast_2d(*arrays: Any) -> Any:
    """Each array with at least two axes, new ones in front; a tuple for several arrays. See :func:`numpy.atleast_2d`."""
    return _each(lambda x: reshape(x, (1,) * (2 - len(shape_of(x))) + shape_of(x)), arrays)


def atleast_3d(*arrays: Any) -> Any:
    """Each array with at least three axes: (n,) becomes (1, n, 1), (m, n) becomes (m, n, 1). See :func:`numpy.atleast_3d`."""

    def three(x: Any) -> Any:
        shape = shape_of(x)
        return reshape(x, {0: (1, 1, 1), 1: (1, *shape, 1), 2: (*shape, 1)}.get(len(shape), shape))

    return _each(three, arrays)


def _each(f: Any, arrays: Sequence[Any]) -> Any:
    results = tuple(f(as_array(x)) for x in arrays)
    return results[0] if len(results) == 1 else results


# ---------------------------------------------------------------------------------- transpose

_transpose = linear(
    "transpose",
    lambda x, *, axes: x.transpose(axes),
    lambda g, *, axes: _transpose(g, axes=tuple(sorted(range(len(axes)), key=axes.__getitem__))),
    samples=[Sample((2, 3, 4), axes=(1, 2, 0)), Sample((2, 0), axes=(1, 0)), Sample((), axes=())],
    batch=leading(axes=lambda axes, size: (0, *shift(axes, size))),
)


def transpose(x: Any, axes: Sequence[int] | None = None) -> Any:
    """``x`` with its axes in the order ``axes``; reversed without it. See :func:`numpy.transpose`.

    Raises:
        ValueError: ``axes`` is not a permutation.
    """
    x = as_array(x)
    ndim = len(shape_of(x))
    if axes is None:
        axes = tuple(range(ndim))[::-1]
    elif len(axes) != ndim:
        raise ValueError(f"transpose: got axes={tuple(axes)} for an array of shape {shape_of(x)}, expected each of its {ndim} axes once")
    else:
        axes = normalize_axis_tuple(axes, ndim)
    return _transpose(x, axes=axes)


permute_dims = transpose


def matrix_transpose(x: Any) -> Any:
    """The last two axes swapped. See :func:`numpy.matrix_transpose`."""
    if len(shape_of(x)) < 2:
        raise ValueError(f"matrix_transpose: got an array of shape {shape_of(x)}, expected at least 2 axes; a vector is made a row with x[None]")
    return swapaxes(x, -1, -2)


def swapaxes(x: Any, axis1: int, axis2: int) -> Any:
    """Two axes exchanged. See :func:`numpy.swapaxes`."""
    ndim = len(shape_of(x))
    axes = list(range(ndim))
    i, j = normalize_axis_index(axis1, ndim), normalize_axis_index(axis2, ndim)
    axes[i], axes[j] = axes[j], axes[i]
    return transpose(x, axes)


def moveaxis(x: Any, source: int | Sequence[int], destination: int | Sequence[int]) -> Any:
    """The axes ``source`` moved to the places ``destination``, the others in their order. See :func:`numpy.moveaxis`."""
    ndim = len(shape_of(x))
    source, destination = normalize_axis_tuple(source, ndim, "source"), normalize_axis_tuple(destination, ndim, "destination")
    if len(source) != len(destination):
        raise ValueError(f"moveaxis: got {len(source)} source axes and {len(destination)} destinations, expected as many of each")
    axes = [i for i in range(ndim) if i not in source]
    for d, s in sorted(zip(destination, source, strict=True)):
        axes.insert(d, s)
    return transpose(x, axes)


# ---------------------------------------------------------------------------------- concatenate and split: each other's transpose

_concatenate = general(
    "concatenate",
    lambda *xs, axis, lengths: namespace(xs[0]).concatenate(xs, axis),
    lambda needs, g, _y, *_xs, axis, lengths: [part if need else None for part, need in zip(_split(g, axis=axis, lengths=lengths), needs, strict=True)],
    lambda tangents, _y, *xs, axis, lengths: _concatenate(
        *[zeros_like(x) if t is None else t for t, x in zip(tangents, xs, strict=True)], axis=axis, lengths=lengths
    ),
    samples=[Sample((2, 3), (2, 1), (2, 0), axis=1, lengths=(3, 1, 0)), Sample((2,), axis=0, lengths=(2,))],
    batch=leading(axis=shift),
)


def _pull_split(_needs: Any, gs: Sequence[Any], _y: Any, _x: Any, *, axis: int, lengths: tuple[int, ...]) -> list[Any]:
    some = next(g for g in gs if g is not None)
    shape = shape_of(some)
    parts = [zeros_like(some, shape=(*shape[:axis], n, *shape[axis + 1 :])) if g is None else g for g, n in zip(gs, lengths, strict=True)]
    return [_concatenate(*parts, axis=axis, lengths=lengths)]


_split = general(
    "split",
    lambda x, *, axis, lengths: tuple([x[along(axis, slice(end - n, end))] for n, end in zip(lengths, accumulate(lengths), strict=True)]),
    _pull_split,
    lambda tangents, _y, _x, *, axis, lengths: list(_split(tangents[0], axis=axis, lengths=lengths)),
    samples=[Sample((2, 6), axis=1, lengths=(3, 2, 0, 1)), Sample((3,), axis=0, lengths=(1, 1, 1)), Sample((2, 0), axis=0, lengths=(2,))],
    batch=leading(axis=shift),
)


def concatenate(arrays: Iterable[Any], axis: int | None = 0, *, dtype: Any = None) -> Any:
    """The arrays one after another along ``axis``, flattened first if that is None. See :func:`numpy.concatenate`.

    Raises:
        ValueError: there are no arrays, or their shapes differ along another axis.
    """
    xs = [as_array(x) if dtype is None else astype(as_array(x), dtype, copy=False) for x in arrays]
    if not xs:
        raise ValueError("concatenate: got no arrays, expected at least one")
    if axis is None:
        xs, axis = [ravel(x) for x in xs], 0
    shapes = [shape_of(x) for x in xs]
    if () in shapes:
        raise ValueError(f"concatenate: got arrays of shapes {shapes}, expected at least one axis; stack joins 0-d arrays")
    axis = normalize_axis_index(axis, len(shapes[0]))
    if any(len(shape) != len(shapes[0]) for shape in shapes):
        raise ValueError(f"concatenate: got arrays of shapes {shapes}, expected as many axes of each; see reshape and expand_dims")
    return _concatenate(*xs, axis=axis, lengths=tuple([shape[axis] for shape in shapes]))


concat = concatenate


def append(x: Any, values: Any, axis: int | None = None) -> Any:
    """``values`` after ``x`` along ``axis``, both flattened if that is None. See :func:`numpy.append`."""
    return concatenate([x, values], axis)


def stack(arrays: Sequence[Any], axis: int = 0) -> Any:
    """Arrays of one shape joined along a new axis. See :func:`numpy.stack`."""
    arrays = list(arrays)
    shapes = {shape_of(x) for x in arrays}
    if len(shapes) != 1:
        raise ValueError(f"stack: got arrays of shapes {sorted(shapes)}, expected at least one array and all of one shape")
    axis = normalize_axis_index(axis, len(shapes.pop()) + 1)
    return concatenate([expand_dims(x, axis) for x in arrays], axis)


def vstack(arrays: Sequence[Any]) -> Any:
    """Joined as rows. See :func:`numpy.vstack`."""
    return concatenate([atleast_2d(x) for x in arrays], 0)


def hstack(arrays: Sequence[Any]) -> Any:
    """Joined along the second axis (the first of vectors). See :func:`numpy.hstack`."""
    arrays = [atleast_1d(x) for x in arrays]
    return concatenate(arrays, 0 if arrays and len(shape_of(arrays[0])) == 1 else 1)


def dstack(arrays: Sequence[Any]) -> Any:
    """Joined along the third axis. See :func:`numpy.dstack`."""
    return concatenate([atleast_3d(x) for x in arrays], 2)


def column_stack(arrays: Sequence[Any]) -> Any:
    """Joined as columns: vectors become columns first. See :func:`numpy.column_stack`."""
    return concatenate([transpose(atleast_2d(x)) if len(shape_of(x)) < 2 else x for x in arrays], 1)


# ---------------------------------------------------------------------------------- splitting


def split(x: Any, indices_or_sections: int | Sequence[int], axis: int = 0) -> list[Any]:
    """Equal parts along ``axis``, or the parts between the given indices, as a list. See :func:`numpy.split`.

    Raises:
        ValueError: the axis does not divide into that many equal parts.
    """
    length = shape_of(x)[normalize_axis_index(axis, len(shape_of(x)))]
    if isinstance(indices_or_sections, (int, np.integer)) and (indices_or_sections < 1 or length % indices_or_sections):
        if indices_or_sections < 1:
            raise ValueError(f"split: got {indices_or_sections} sections, expected at least 1")
        raise ValueError(
            f"split: got an axis of length {length} to divide into {indices_or_sections} equal parts, expected a multiple; array_split makes unequal parts"
        )
    return array_split(x, indices_or_sections, axis)


def array_split(x: Any, indices_or_sections: int | Sequence[int], axis: int = 0) -> list[Any]:
    """Like :func:`split`; parts that cannot be equal differ by one, the longer ones first. See :func:`numpy.array_split`."""
    x = as_array(x)
    axis = normalize_axis_index(axis, len(shape_of(x)))
    length = shape_of(x)[axis]
    if isinstance(indices_or_sections, (int, np.integer)):
        if indices_or_sections < 1:
            raise ValueError(f"array_split: got {indices_or_sections} sections, expected at least 1")
        size, longer = divmod(length, int(indices_or_sections))
        bounds = [i * size + min(i, longer) for i in range(indices_or_sections + 1)]
    else:
        bounds = [0, *(int(i) for i in indices_or_sections), length]
    bounds = [slice(bound).indices(length)[1] for bound in bounds]  # counts negative ones from the end
    lengths = [stop - start for start, stop in pairwise(bounds)]
    if min(lengths) < 0:  # NumPy lets indices go back: parts overlap
        return [x[along(axis, slice(start, stop))] for start, stop in pairwise(bounds)]
    return list(_split(x, axis=axis, lengths=tuple(lengths)))


def hsplit(x: Any, indices_or_sections: int | Sequence[int]) -> list[Any]:
    """Split along the second axis (the first of a vector). See :func:`numpy.hsplit`."""
    return split(x, indices_or_sections, 0 if len(shape_of(x)) == 1 else 1)


def vsplit(x: Any, indices_or_sections: int | Sequence[int]) -> list[Any]:
    """Split along the first axis. See :func:`numpy.vsplit`."""
    if len(shape_of(x)) < 2:
        raise ValueError(f"vsplit: got an array of shape {shape_of(x)}, expected at least 2 axes; split works on a vector")
    return split(x, indices_or_sections, 0)


def unstack(x: Any, axis: int = 0) -> tuple[Any, ...]:
    """The slices along ``axis``, without it. See :func:`numpy.unstack`."""
    x = as_array(x)
    axis = normalize_axis_index(axis, len(shape_of(x)))
    shape = shape_of(x)
    parts = _split(x, axis=axis, lengths=(1,) * shape[axis]) if shape[axis] else ()
    return tuple(reshape(part, shape[:axis] + shape[axis + 1 :]) for part in parts)


# ---------------------------------------------------------------------------------- pad


def _pad_examples(op: Any, _size: int, _batched: Any, args: Args, params: dict[str, Any]) -> Any:
    """Nothing goes around the examples' axis; values given for each axis need some there all the same."""
    width, fill = params["width"], params["fill"]
    each = fill if np.ndim(fill) == 0 else ((0, 0), *np.broadcast_to(fill, (len(width), 2)).tolist())
    return op(args[0], width=((0, 0), *width), fill=each)


_pad = general(
    "pad",
    lambda x, *, width, fill: namespace(x).pad(x, width, constant_values=fill),
    [lambda g, _y, _x, *, width, fill: g[tuple(slice(before, n - after) for (before, after), n in zip(width, shape_of(g), strict=True))]],
    [lambda t, _y, _x, *, width, fill: _pad(t, width=width, fill=0)],
    samples=[
        Sample((2, 3), width=((1, 0), (0, 2)), fill=7.0),
        Sample((0,), width=((1, 2),), fill=0),
        Sample((2, 3), width=((1, 0), (0, 2)), fill=((1.0, 2.0), (3.0, 4.0))),
    ],
    batch=_pad_examples,
)


def pad(x: Any, pad_width: Any, mode: str = "constant", *, constant_values: Any = 0) -> Any:
    """``x`` with ``pad_width`` items more around each axis: an int, (before, after), or a pair per axis (a dict names axes).

    Modes: "constant" (``constant_values``, shaped like ``pad_width``, or one Tensor that derivatives flow to), "edge", "reflect",
    "symmetric" and "wrap". See :func:`numpy.pad`.

    Raises:
        ValueError: another mode, a negative width, or a width that does not fit the shape.
    """
    x = as_array(x)
    shape = shape_of(x)
    if isinstance(pad_width, dict):
        pairs = {normalize_axis_index(axis, len(shape)): w for axis, w in pad_width.items()}
        pad_width = [np.broadcast_to(pairs.get(i, 0), 2) for i in range(len(shape))]
    width = tuple(map(tuple, np.broadcast_to(pad_width, (len(shape), 2)).tolist()))
    if min((n for around in width for n in around), default=0) < 0:
        raise ValueError(f"pad: got pad_width={width}, expected no negative widths; slicing takes items away")
    if mode == "constant":
        return _pad_tracked(x, width, constant_values) if type(constant_values) is Tensor else _pad(x, width=width, fill=constant_values)
    if mode not in ("edge", "reflect", "symmetric", "wrap"):
        raise ValueError(f"pad: got mode={mode!r}, expected 'constant', 'edge', 'reflect', 'symmetric' or 'wrap'")
    for axis, (n, around) in enumerate(zip(shape, width, strict=True)):
        if any(around):
            x = x[along(axis, namespace(plain(x)).asarray(np.pad(np.arange(n), around, mode=mode)))]  # type: ignore[call-overload]
    return x


def _pad_tracked(x: Any, width: tuple[Any, ...], fill: Any) -> Any:
    if shape_of(fill):
        raise ValueError(f"pad: got a Tensor of shape {shape_of(fill)} as constant_values, expected a 0-d one; concatenate joins borders of several values")
    outside = _pad(zeros_like(plain(x), bool, shape=shape_of(x)), width=width, fill=True)
    return ew.where(outside, astype(fill, dtype_of(x), copy=False), _pad(x, width=width, fill=0))


# ---------------------------------------------------------------------------------- order along axes


def flip(x: Any, axis: Axis = None) -> Any:
    """The order along ``axis`` reversed, along all axes if that is None. See :func:`numpy.flip`."""
    x = as_array(x)
    ndim = len(shape_of(x))
    axes = range(ndim) if axis is None else normalize_axis_tuple(axis, ndim)
    return x[tuple(slice(None, None, -1 if i in axes else None) for i in range(ndim))]


def fliplr(x: Any) -> Any:
    """The order along the second axis reversed. See :func:`numpy.fliplr`."""
    return flip(x, 1)


def flipud(x: Any) -> Any:
    """The order along the first axis reversed. See :func:`numpy.flipud`."""
    return flip(x, 0)


_roll = linear(
    "roll",
    lambda x, *, shift, axis: namespace(x).roll(x, shift, axis),
    lambda g, *, shift, axis: _roll(g, shift=tuple(-s for s in shift), axis=axis),
    samples=[Sample((3, 4), shift=(1, -2), axis=(0, 1)), Sample((5,), shift=(7,), axis=(0,)), Sample((0,), shift=(1,), axis=(0,))],
    batch=leading(axis=shift),
)


def roll(x: Any, shift: int | tuple[int, ...], axis: Axis = None) -> Any:
    """Elements moved by ``shift`` along ``axis``, those at the end come back at the start; flattened for the while if axis is None. See :func:`numpy.roll`."""
    x = as_array(x)
    if axis is None:
        return reshape(roll(ravel(x), shift, 0), shape_of(x))
    shifts, axes = np.broadcast_arrays(same_for_all(shift, "shifts"), normalize_axis_tuple(axis, len(shape_of(x)), allow_duplicate=True))
    return _roll(x, shift=tuple(shifts.ravel().tolist()), axis=tuple(axes.ravel().tolist()))


def rot90(x: Any, k: int = 1, axes: tuple[int, int] = (0, 1)) -> Any:
    """Rotated by k quarter turns in the plane of two axes, from the first towards the second. See :func:`numpy.rot90`."""
    k %= 4
    if k == 0:
        return as_array(x)
    if k == 2:
        return flip(x, axes)
    return swapaxes(flip(x, axes[1]), *axes) if k == 1 else flip(swapaxes(x, *axes), axes[1])


# ---------------------------------------------------------------------------------- repetition: broadcasting


def tile(x: Any, reps: int | Sequence[int]) -> Any:
    """``x`` repeated as a whole along each axis. See :func:`numpy.tile`."""
    reps = (reps,) if isinstance(reps, (int, np.integer)) else tuple(reps)
    ndim = max(len(reps), len(shape_of(x)))
    reps = (1,) * (ndim - len(reps)) + reps
    shape = (1,) * (ndim - len(shape_of(x))) + shape_of(x)
    x = reshape(x, [m for n in shape for m in (1, n)])
    x = broadcast_to(x, [m for pair in zip(reps, shape, strict=True) for m in pair])
    return reshape(x, [r * n for r, n in zip(reps, shape, strict=True)])


def repeat(x: Any, repeats: Any, axis: int | None = None) -> Any:
    """Each element repeated, all as often or each as often as ``repeats`` says. See :func:`numpy.repeat`."""
    x = as_array(x)
    if axis is None:
        x, axis = ravel(x), 0
    shape = shape_of(x)
    axis = normalize_axis_index(axis, len(shape))
    repeats = np.asarray(backend.to_device(same_for_all(repeats, "repeats"), "cpu"))
    if repeats.size != 1:
        return x[along(axis, namespace(plain(x)).asarray(np.repeat(np.arange(shape[axis]), repeats)))]
    times = int(repeats.item())
    x = broadcast_to(expand_dims(x, axis + 1), (*shape[: axis + 1], times, *shape[axis + 1 :]))
    return reshape(x, (*shape[:axis], shape[axis] * times, *shape[axis + 1 :]))


def broadcast_arrays(*arrays: Any) -> tuple[Any, ...]:
    """All arrays broadcast to one shape. See :func:`numpy.broadcast_arrays`."""
    shape = np.broadcast_shapes(*map(shape_of, arrays))
    return tuple(broadcast_to(x, shape) for x in _alike(arrays))


def _alike(arrays: Sequence[Any]) -> list[Any]:
    """All of them Tensors if one is."""
    arrays = list(map(as_array, arrays))
    return list(map(box, arrays)) if any(type(x) is Tensor for x in arrays) else arrays


def meshgrid(*arrays: Any, indexing: str = "xy", sparse: bool = False) -> tuple[Any, ...]:
    """Vectors as coordinates of a grid: ``indexing`` "xy" puts the second vector on the first axis, "ij" keeps their order. See :func:`numpy.meshgrid`."""
    if indexing not in ("xy", "ij"):
        raise ValueError(f"meshgrid: got indexing={indexing!r}, expected 'xy' or 'ij'")
    ndim = len(arrays)
    order = [1, 0, *range(2, ndim)] if indexing == "xy" and ndim > 1 else range(ndim)
    grids = [reshape(x, [-1 if i == axis else 1 for i in range(ndim)]) for x, axis in zip(_alike(arrays), order, strict=True)]
    return tuple(grids) if sparse else broadcast_arrays(*grids)


# ---------------------------------------------------------------------------------- diagonals and triangles


def diagonal(x: Any, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Any:
    """The diagonal of the matrices on two axes, as the last axis. See :func:`numpy.diagonal`."""
    x = moveaxis(as_array(x), (axis1, axis2), (-2, -1))
    *lead, rows, columns = shape_of(x)
    length = max(0, min(rows + min(offset, 0), columns - max(offset, 0)))
    start = (offset if offset >= 0 else -offset * columns) if length else 0
    flat = reshape(x, (*lead, rows * columns))
    return flat[..., start : start + length * (columns + 1) : columns + 1]


def diag(x: Any, k: int = 0) -> Any:
    """The k-th diagonal of a matrix, or the matrix that has a vector on it. See :func:`numpy.diag`."""
    x = as_array(x)
    if len(shape_of(x)) == 2:
        return diagonal(x, k)
    if len(shape_of(x)) != 1:
        raise ValueError(f"diag: got an array of shape {shape_of(x)}, expected a vector or a matrix; diagonal takes stacks of matrices")
    n = shape_of(x)[0] + abs(k)
    on_diagonal = namespace(plain(x)).eye(n, k=k, dtype=bool)
    return ew.where(on_diagonal, pad(x, (max(k, 0), max(-k, 0))), zeros_like(x, shape=()))


def trace(x: Any, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Any:
    """The sum of :func:`diagonal`. See :func:`numpy.trace`."""
    return diagonal(x, offset, axis1, axis2).sum(axis=-1)


def tril(x: Any, k: int = 0) -> Any:
    """The matrices on the last two axes with zeros above the k-th diagonal. See :func:`numpy.tril`."""
    return _triangle(x, k, lower=True)


def triu(x: Any, k: int = 0) -> Any:
    """The matrices on the last two axes with zeros below the k-th diagonal. See :func:`numpy.triu`."""
    return _triangle(x, k - 1, lower=False)


def _triangle(x: Any, k: int, *, lower: bool) -> Any:
    x = as_array(x)
    if not shape_of(x):
        raise ValueError("got a 0-d array, expected at least one axis")
    inside = namespace(plain(x)).tri(*shape_of(x)[-2:], k=k, dtype=bool)
    return ew.where(inside if lower else ~inside, x, zeros_like(x, shape=()))


def diff(x: Any, n: int = 1, axis: int = -1, *, prepend: Any = None, append: Any = None) -> Any:
    """Differences of neighbours along ``axis``, taken n times; ``prepend`` and ``append`` join it first. See :func:`numpy.diff`."""
    if n < 0:
        raise ValueError(f"diff: got n={n}, expected how many times to take differences, at least 0")
    x = as_array(x)
    axis = normalize_axis_index(axis, len(shape_of(x)))
    ends = [_as_border(x, axis, end) for end in (prepend, append)]
    if n and any(end is not None for end in ends):
        x = concatenate([part for part in (ends[0], x, ends[1]) if part is not None], axis)
    for _ in range(n):
        later, earlier = x[along(axis, slice(1, None))], x[along(axis, slice(None, -1))]
        x = ew.not_equal(later, earlier) if dtype_of(x).kind == "b" else ew.subtract(later, earlier)
    return x


def _as_border(x: Any, axis: int, end: Any) -> Any:
    """A scalar as a slice of length 1 along ``axis``."""
    if end is None or shape_of(end):
        return end
    return broadcast_to(as_array(end), (*shape_of(x)[:axis], 1, *shape_of(x)[axis + 1 :]))
