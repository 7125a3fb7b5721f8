"""Where the largest or the smallest element lies along an axis.

    arg_extremum   the first j with x[j] = max x (or min x); the first nan, if there is one

Zeros of either sign are equal. x is (outer, n, inner), as in :mod:`gpugrad.kernels.reductions`, whose CUDA kernels these are too. Rows and columns are cut into pieces of fixed
sizes; of equal elements the first wins wherever two are compared, so the order of comparisons does not show.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_index

from gpugrad.backend import namespace
from gpugrad.kernels.kernel import Kernel
from gpugrad.kernels.reductions import SOURCE, Layout, launch, pieces_of, result_shape

__all__ = ["SOURCE", "arg_extremum"]


def _arg_extremum(x: Any, *, axis: int | None, smallest: bool = False, keepdims: bool = False) -> Any:
    """The index (int64) along the axis of the first element that is the largest or the smallest; of all elements, in C order, where axis is None."""
    xp = namespace(x)
    return (xp.argmin if smallest else xp.argmax)(x, axis=axis, keepdims=keepdims)


def arg_extremum_by(x: Any, axis: int | None, smallest: bool, keepdims: bool, middle: Callable[[Any, bool], Any]) -> Any:
    """``middle((outer, n, inner), smallest)`` gives the places along n."""
    if not x.size or not x.ndim:
        return _arg_extremum(x, axis=axis, smallest=smallest, keepdims=keepdims)
    if axis is None:
        flat = namespace(x).ascontiguousarray(x).reshape(1, -1, 1)
        return middle(flat, smallest).reshape((1,) * x.ndim if keepdims else ())
    axis = normalize_axis_index(axis, x.ndim)
    layout = Layout(x, (axis,), forwards=False)  # the first of equal elements is not the last
    view = layout.of(x)
    (k,) = layout.axes
    places = middle(view.reshape(math.prod(view.shape[:k]), view.shape[k], math.prod(view.shape[k + 1 :])), smallest)
    return layout.back(places.reshape(result_shape(view.shape, (k,), True))).reshape(result_shape(x.shape, (axis,), keepdims))


def _cuda_middle(x: Any, smallest: bool, known: Any = None) -> Any:
    xp, pieces = namespace(x), pieces_of(x)
    outer, _, inner = x.shape
    places = xp.empty((outer, pieces, inner), np.int64)
    values = None if pieces == 1 else xp.empty(places.shape, x.dtype)
    launch("place", x, (values, places), pieces, known, int(smallest))
    return places if values is None else _cuda_middle(values, smallest, places)


def _cuda_arg_extremum(x: Any, *, axis: int | None, smallest: bool = False, keepdims: bool = False) -> Any:
    return arg_extremum_by(x, axis, smallest, keepdims, _cuda_middle)


_CASES: tuple[tuple[tuple[int, ...], int | None], ...] = (
    ((1,), 0), ((), None), ((0, 3), 1), ((37, 29), 0), ((37, 29), 1), ((600, 3), 0), ((5, 3), None), ((2100,), -1), ((3, 9001), 1), ((3, 9001), None),
    ((4, 7, 5), 1), ((300, 64), 0), ((9000, 8), 0), ((2, 129), 0), ((2, 1300), 0), ((2, 3, 4), -3),
)  # fmt: skip


def _samples(rng: np.random.Generator, dtype: Any) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
    """Of small integers, so that there are ties in plenty, and some nan."""
    found: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
    for i, (shape, axis) in enumerate(_CASES):
        x = np.asarray(rng.integers(-9, 9, shape)).astype(dtype)
        if i % 3 == 2:
            x[rng.random(shape) < 0.01] = np.nan
        found.append(((x,), {"axis": axis, "smallest": i % 2 == 1, "keepdims": i % 4 == 3}))
    layouts: Sequence[Any] = [x[::-1, ::-1, ::2] if x.ndim == 3 else x, x.T, np.broadcast_to(x[:1], x.shape)]
    return [*found, *[((a,), {"axis": axis}) for a in layouts for axis in (0, 1, None)]]


arg_extremum = Kernel("arg_extremum", _arg_extremum, cpu="arg_extremum_cpu:arg_extremum", cuda=_cuda_arg_extremum, samples=_samples, at_least=1 << 16)
