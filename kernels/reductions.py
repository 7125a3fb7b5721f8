"""Reductions over any set of axes: sums, means, the largest and smallest elements, moments; and what their derivatives need in one pass.

    total              sum f(x), f(x) = x, |x| or x^2, or its mean
    moments            mean(x) and sum (x - mean)^2
    deviations         s (x - m), with s and m constant along the reduced axes
    extremum           the largest or the smallest element; a nan is both
    extremum_backward  g / k where x is the extremum y, which k elements are, else 0

Neighbouring axes that share their fate are one axis to the kernels, so x is (outer, n, inner) and its middle is reduced. Where reduced and kept axes alternate more often
the largest goes first, and the rest is a pass over what is left. Axes are taken in the order in which they lie in memory, and along those of stride 0 nothing is read.

Sums are made in float64 on all devices, in blocks whose sums are added up in turn: errors grow like log n at most, and no sum that fits the dtype overflows on the way. The
blocks depend on the sizes alone, so the bits do not depend on threads.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gpugrad.backend import address, namespace
from gpugrad.cuda.loader import Source
from gpugrad.kernels.kernel import Kernel

Axes = tuple[int, ...]
SOURCE = Source("reductions.cu")
MAPS: dict[str, Callable[[Any], Any]] = {"x": lambda x: x, "abs": np.abs, "square": np.square}
CODES = {name: code for code, name in enumerate([*MAPS, "ties"])}  # as in reductions.cu


# ---------------------------------------------------------------------------------- axes


@functools.lru_cache(maxsize=4096)
def passes(shape: tuple[int, ...], axes: Axes) -> tuple[tuple[int, int, int], ...]:
    """(outer, n, inner) of each pass over an array in C order that reduces these axes."""
    groups: list[list[Any]] = []
    for i, n in enumerate(shape):
        if n != 1:
            if groups and groups[-1][1] == (i in axes):
                groups[-1][0] *= n
            else:
                groups.append([n, i in axes])
    found = []
    while any(reduced for _, reduced in groups):
        k = max(range(len(groups)), key=lambda k: groups[k][0] * groups[k][1])
        sizes = [n for n, _ in groups]
        found.append((math.prod(sizes[:k]), sizes[k], math.prod(sizes[k + 1 :])))
        del groups[k]
        if 0 < k < len(groups):  # both neighbours were kept, or are reduced later
            groups[k - 1 : k + 1] = [[groups[k - 1][0] * groups[k][0], groups[k - 1][1]]]
    return tuple(found)


def _contiguous(x: Any) -> Any:
    return x if x.flags.c_contiguous else namespace(x).ascontiguousarray(x)  # which makes an axis for arrays without one


class Layout:
    """An array's axes in the order in which they lie in memory, forwards; ``forwards=False`` leaves the reduced ones in their direction."""

    def __init__(self, x: Any, axes: Axes, forwards: bool = True) -> None:
        self.order = sorted(range(x.ndim), key=lambda i: -abs(x.strides[i]))
        self.steps = tuple([slice(None, None, -1 if x.strides[i] < 0 and (forwards or i not in axes) else 1) for i in self.order])
        self.axes = tuple([k for k, i in enumerate(self.order) if i in axes])

    def grouped(self) -> None:
        """With all reduced axes last, if they do not lie side by side."""
        if self.axes and self.axes[-1] - self.axes[0] >= len(self.axes):
            places = [k for k in range(len(self.order)) if k not in self.axes] + list(self.axes)
            self.order, self.steps = [self.order[k] for k in places], tuple([self.steps[k] for k in places])
            self.axes = tuple(range(len(self.order) - len(self.axes), len(self.order)))

    def of(self, x: Any) -> Any:
        """x, or an array of its size or 1 along each axis, in that order and C-contiguous."""
        return _contiguous(x.transpose(self.order)[self.steps])

    def back(self, x: Any) -> Any:
        """The inverse of ``of``."""
        return x[self.steps].transpose(np.argsort(self.order).tolist())


def result_shape(shape: Sequence[int], axes: Axes, keepdims: bool) -> tuple[int, ...]:
    """The shape of a reduction's result."""
    return tuple([1 if i in axes else n for i, n in enumerate(shape) if keepdims or i not in axes])


def _reduced(x: Any, axes: Axes, keepdims: bool, run: Callable[[Any, tuple[tuple[int, int, int], ...]], Any]) -> Any:
    """``run(x, passes)`` of x as it lies in memory, and its result in the shape that is asked for."""
    shape = result_shape(x.shape, axes, keepdims)
    if x.flags.c_contiguous:
        return run(x, passes(x.shape, axes)).reshape(shape)
    layout = Layout(x, axes)
    view = layout.of(x)
    y = run(view, passes(view.shape, layout.axes))
    return layout.back(y.reshape(result_shape(view.shape, layout.axes, True))).reshape(shape)


def _without_repeats(x: Any, axes: Axes) -> tuple[Any, float]:
    """x with length 1 along axes of stride 0, and how often that leaves out each element of a reduction."""
    index, times = [slice(None)] * x.ndim, 1
    for i, (n, stride) in enumerate(zip(x.shape, x.strides)):
        if stride == 0 and n > 1:
            index[i] = slice(1)
            times *= n if i in axes else 1
    return x[tuple(index)], float(times)


class Whole:
    """An array as (outer, n, inner), ``sizes``, such that one pass takes all reduced axes; x has size 1 or more along each."""

    def __init__(self, x: Any, axes: Axes) -> None:
        plan = passes(x.shape, axes) if x.flags.c_contiguous else ()
        self.layout, self.x, self.axes = None, x, axes
        if len(plan) != 1:
            self.layout = Layout(x, axes)
            self.layout.grouped()
            self.x, self.axes = self.layout.of(x), self.layout.axes
            plan = passes(self.x.shape, self.axes)
        self.sizes = plan[0] if plan else (self.x.size, 1, 1)

    def of(self, a: Any) -> Any:
        """Another array, with the size of x or 1 along each axis, as it lies then."""
        return self.layout.of(a) if self.layout else _contiguous(a)

    def back(self, y: Any) -> Any:
        """A result of the shape of x."""
        y = y.reshape(self.x.shape)
        return self.layout.back(y) if self.layout else y

    def reduced_back(self, y: Any) -> Any:
        """A result with size 1 along the reduced axes."""
        y = y.reshape(result_shape(self.x.shape, self.axes, True))
        return self.layout.back(y) if self.layout else y


# ---------------------------------------------------------------------------------- references


def _total(x: Any, *, axis: Axes, of: str = "x", mean: bool = False, keepdims: bool = False) -> Any:
    """The sum of f(x) over the axes, or the mean. Up to 256 numbers are added in the dtype of x, those of 16 bits in float32; more in float64."""
    a = x if of == "x" else MAPS[of](x)
    reduced = a.mean if mean else a.sum
    if x.dtype.kind != "f" and x.dtype.name != "bfloat16":
        return reduced(axis=axis, keepdims=keepdims)
    n = 1
    for i in axis:
        n *= x.shape[i]
    if n <= 256 and x.dtype.itemsize > 2:
        return reduced(axis=axis, keepdims=keepdims)
    return reduced(axis=axis, keepdims=keepdims, dtype=np.float32 if n <= 256 else np.float64).astype(x.dtype, copy=False)


def _moments(x: Any, *, axis: Axes, keepdims: bool = False) -> tuple[Any, Any]:
    """(sum (x - mean)^2, mean), in float64 or complex128, of which the first is real. What rounding leaves of the mean of the deviations is taken off."""
    wide = x.astype(np.complex128 if x.dtype.kind == "c" else np.float64, copy=False)
    n = max(math.prod([x.shape[i] for i in axis]), 1)
    m = wide.sum(axis=axis, keepdims=True) / n
    c = wide - m
    drift = c.sum(axis=axis, keepdims=True) / n
    c -= drift
    squares = np.square(c.real) + np.square(c.imag) if c.dtype.kind == "c" else np.square(c)
    shape = result_shape(x.shape, axis, keepdims)
    return squares.sum(axis=axis, keepdims=keepdims), (m + drift).reshape(shape)


def _deviations(x: Any, m: Any, s: Any, *, axis: Axes) -> Any:
    """``s (x - m)`` of m (float64) and s with length 1 along the axes, in the dtype of x."""
    return (s * (x - m)).astype(x.dtype)


def _extremum(x: Any, *, axis: Axes, smallest: bool = False, keepdims: bool = False) -> Any:
    """The largest or the smallest element over the axes; nan if there is one."""
    return (x.min if smallest else x.max)(axis=axis, keepdims=keepdims)


def _extremum_backward(x: Any, g: Any, y: Any, *, axis: Axes) -> Any:
    """g / k where x == y (or is nan), which k elements are over the axes, else 0; of g and y with length 1 along them."""
    chosen = np.equal(x, y) | np.not_equal(x, x)
    k = chosen.sum(axis=axis, keepdims=True)
    share = (g.astype(np.float32) if g.dtype.itemsize == 2 else g) / k.astype(np.promote_types(g.dtype, np.float32))
    return namespace(x).where(chosen, share.astype(g.dtype, copy=False), namespace(x).zeros((), g.dtype))


# ---------------------------------------------------------------------------------- what the fast twins share


Middle = Callable[[Any, Any, str, float, float], Any]


def total_by(x: Any, axis: Axes, of: str, mean: bool, keepdims: bool, middle: Middle) -> Any:
    """``middle((outer, n, inner), dtype, f, times, over)`` gives the sums of f over n, times a number over another."""
    if not x.size:
        return _total(x, axis=axis, of=of, mean=mean, keepdims=keepdims)
    over = float(math.prod([x.shape[i] for i in axis])) if mean else 1.0
    short, times = (x, 1.0) if x.flags.c_contiguous else _without_repeats(x, axis)

    def run(a: Any, plan: tuple[tuple[int, int, int], ...]) -> Any:
        if not plan:
            return (MAPS[of](a.astype(np.float64)) * (times / over)).astype(x.dtype)
        for k, sizes in enumerate(plan):
            last = k == len(plan) - 1
            a = middle(a.reshape(sizes), x.dtype if last else np.float64, "x" if k else of, *((times, over) if last else (1.0, 1.0)))
        return a

    y = _reduced(short, axis, keepdims, run)
    shape = result_shape(x.shape, axis, keepdims)
    return y if y.shape == shape else namespace(x).broadcast_to(y, shape).copy()


def extremum_by(x: Any, axis: Axes, smallest: bool, keepdims: bool, middle: Callable[[Any, bool], Any]) -> Any:
    """``middle((outer, n, inner), smallest)`` gives the extrema over n."""
    if not x.size or not passes(x.shape, axis):
        return _extremum(x, axis=axis, smallest=smallest, keepdims=keepdims)

    def run(a: Any, plan: tuple[tuple[int, int, int], ...]) -> Any:
        for sizes in plan:
            a = middle(a.reshape(sizes), smallest)
        return a

    return _reduced(x, axis, keepdims, run)


def moments_by(x: Any, axis: Axes, keepdims: bool, middle: Callable[[Any], tuple[Any, Any]]) -> tuple[Any, Any]:
    """``middle((outer, n, inner))`` gives the two moments over n."""
    if not x.size:
        return _moments(x, axis=axis, keepdims=keepdims)
    seen = Whole(x, axis)
    shape = result_shape(x.shape, axis, keepdims)
    squares, mean = middle(seen.x.reshape(seen.sizes))
    return seen.reduced_back(squares).reshape(shape), seen.reduced_back(mean).reshape(shape)


def elementwise_by(x: Any, axis: Axes, others: Sequence[Any], dtypes: Sequence[Any], middle: Callable[..., Any]) -> Any:
    """``middle((outer, n, inner), ...)`` of x and of arrays of (outer, inner), of these dtypes, gives an array like x."""
    seen = Whole(x, axis)
    outer, _, inner = seen.sizes
    return seen.back(middle(seen.x.reshape(seen.sizes), *[seen.of(a.astype(d, copy=False)).reshape(outer, inner) for a, d in zip(others, dtypes)]))


# ---------------------------------------------------------------------------------- launches


def _width(n: int, *arrays: Any) -> int:
    """Elements that a thread takes at once: 16 bytes, if all rows of n are aligned to that."""
    width = 16 // arrays[0].itemsize
    return 1 if n % width or any(address(a) % 16 for a in arrays) else width


def _lanes(n: int, most: int) -> int:
    """The power of two that is enough for n, but no more than so many."""
    return min(most, 1 << max(n - 1, 0).bit_length())


PIECE = 8192  # of a row that a block of threads takes
SHORT = 1024  # of which several belong to a block
DEPTH = 16  # rows that a thread adds up


def launch(entry: str, x: Any, results: Sequence[Any], pieces: int, *args: Any) -> None:
    """One entry point over the rows of x (outer, n, 1), or over its columns, each cut into pieces, with arrays for their results."""
    outer, n, inner = x.shape
    if inner == 1:
        width = _width(n, x)
        lanes = 256 if n > SHORT else _lanes(-(-n // width), 32)
        SOURCE.launch(f"{entry}_rows", x.dtype, -(-outer * pieces // (256 // lanes)), 256, x, *results, outer, n, pieces, lanes, width, *args)
    else:
        width = _width(inner, x)
        lanes = _lanes(-(-inner // width), 32)
        tiles = -(-inner // (lanes * width))
        SOURCE.launch(f"{entry}_columns", x.dtype, outer * pieces * tiles, (lanes, 256 // lanes), x, *results, n, inner, pieces, tiles, width, *args)


def pieces_of(x: Any) -> int:
    """Into how many each row or column of x (outer, n, inner) is cut."""
    _, n, inner = x.shape
    return -(-n // (PIECE if inner == 1 else DEPTH * 256 // _lanes(-(-inner // _width(inner, x)), 32)))


def _folded(entry: str, x: Any, dtype: Any, args: Sequence[Any], of_pieces: Sequence[Any], last: Sequence[Any]) -> Any:
    """The results, (outer, inner), of one launch, or of one and further ones over what it makes of pieces. dtype is that of x, or float64."""
    xp = namespace(x)
    outer, _, inner = x.shape
    pieces = pieces_of(x)
    y = xp.empty((outer, pieces, inner), dtype if pieces == 1 or entry == "extremum" else np.float64)
    results = (y,) if entry == "extremum" else (y, None) if y.dtype == x.dtype else (None, y)
    launch(entry, x, results, pieces, *args, *(last if pieces == 1 else of_pieces))
    return y if pieces == 1 else _folded(entry, y, y.dtype, (None, 0) if entry == "total" else args, of_pieces, last)


def _cuda_middle_total(x: Any, dtype: Any, of: str, times: float, over: float, centre: Any = None) -> Any:
    known = x.dtype if dtype == x.dtype else np.float64
    return _folded("total", x, known, (centre, CODES[of]), (1.0, 1.0), (times, over)).astype(dtype, copy=False)


def _cuda_total(x: Any, *, axis: Axes, of: str = "x", mean: bool = False, keepdims: bool = False) -> Any:
    return total_by(x, axis, of, mean, keepdims, _cuda_middle_total)


def _cuda_extremum(x: Any, *, axis: Axes, smallest: bool = False, keepdims: bool = False) -> Any:
    return extremum_by(x, axis, smallest, keepdims, lambda a, smallest: _folded("extremum", a, a.dtype, (int(smallest),), (), ()))


def _cuda_moments(x: Any, *, axis: Axes, keepdims: bool = False) -> tuple[Any, Any]:
    """The mean is counted from the first element, so where all are equal it is that. The second reading finds in the cache what fits there."""

    def middle(a: Any) -> tuple[Any, Any]:
        first = namespace(a).ascontiguousarray(a[:, :1].astype(np.float64))
        mean = first + _cuda_middle_total(a, np.float64, "x", 1.0, float(a.shape[1]), first).reshape(first.shape)
        return _cuda_middle_total(a, np.float64, "square", 1.0, 1.0, mean), mean

    return moments_by(x, axis, keepdims, middle)


def _spread(x: Any, centre: Any, scale: Any, ties: int) -> Any:
    y = namespace(x).empty(x.shape, x.dtype)
    _, n, inner = x.shape
    width = _width(n if inner == 1 else inner, x, y)
    SOURCE.launch("spread", x.dtype, -(-x.size // (256 * width)), 256, x, centre, scale, y, x.size, n, inner, width, ties)
    return y


def _cuda_deviations(x: Any, m: Any, s: Any, *, axis: Axes) -> Any:
    return elementwise_by(x, axis, (m, s), (np.float64, np.float64), lambda a, m, s: _spread(a, m, s, 0))


def _cuda_extremum_backward(x: Any, g: Any, y: Any, *, axis: Axes) -> Any:
    def middle(a: Any, g: Any, y: Any) -> Any:
        k = _cuda_middle_total(a, np.float64, "ties", 1.0, 1.0, y)
        return _spread(a, y, g / k.reshape(g.shape), 1)

    return elementwise_by(x, axis, (g, y), (np.float64, np.float64), middle)


# ---------------------------------------------------------------------------------- kernels

Samples = list[tuple[tuple[Any, ...], dict[str, Any]]]
_CASES: tuple[tuple[tuple[int, ...], Axes], ...] = (
    ((1,), (0,)), ((), ()), ((3, 0), (0,)), ((37, 29), (0,)), ((37, 29), (1,)), ((600, 3), (0,)), ((5, 3), (1,)), ((2100,), (0,)), ((3, 9001), (1,)),
    ((4, 7, 5), (1,)), ((4, 7, 5), (0, 2)), ((3, 4, 5, 6), (1, 3)), ((300, 64), (0,)), ((2, 129), (0,)), ((2, 3), ()), ((2, 1000, 40), (0, 1)),
)  # fmt: skip


def _samples(rng: np.random.Generator, dtype: Any, **params: Sequence[Any]) -> Samples:
    """Of positive numbers: where sums cancel, their size says nothing about the errors to expect. Every case with the next of the params."""
    found: Samples = []
    for i, (shape, axis) in enumerate(_CASES):
        x = np.asarray(rng.uniform(0.5, 2, shape)).astype(dtype)
        found.append(((x,), {"axis": axis, **{key: values[i % len(values)] for key, values in params.items()}}))
    layouts = [x[::-1, :, ::2], x.transpose(2, 0, 1), np.broadcast_to(x[:, :1], x.shape)]
    return [*found, *[((a,), {"axis": (1,), **{key: values[0] for key, values in params.items()}}) for a in layouts]]


def _spread_samples(rng: np.random.Generator, dtype: Any, ties: bool) -> Samples:
    """Of small integers, of which many are the largest; or of means in float64 and factors."""
    found: Samples = []
    for (x,), params in _samples(rng, dtype):
        a, shape = np.asarray(rng.integers(0, 5, x.shape) if ties else x).astype(dtype), result_shape(x.shape, params["axis"], True)
        s = np.asarray(rng.uniform(0.5, 2, shape)).astype(dtype)
        m = np.max(a, axis=params["axis"], keepdims=True, initial=0) if ties else np.asarray(rng.uniform(0.5, 2, shape))
        found.append(((a, s, np.asarray(m, dtype)), params) if ties else ((a, m, s), params))
    return found


_CPU = "reductions_cpu"
total = Kernel(
    "total",
    _total,
    cpu=f"{_CPU}:total",
    cuda=_cuda_total,
    samples=lambda rng, dtype: _samples(rng, dtype, of=("x", "abs", "x", "square", "x"), mean=(False, True), keepdims=(True, True, False)),
    at_least=8192,
)
moments = Kernel("moments", _moments, cpu=f"{_CPU}:moments", cuda=_cuda_moments, samples=lambda rng, dtype: _samples(rng, dtype), at_least=512)
extremum = Kernel(
    "extremum",
    _extremum,
    cpu=f"{_CPU}:extremum",
    cuda=_cuda_extremum,
    samples=lambda rng, dtype: _samples(rng, dtype, smallest=(False, True, True)),
    at_least=512,
)
deviations = Kernel(
    "deviations", _deviations, cpu=f"{_CPU}:deviations", cuda=_cuda_deviations, samples=lambda rng, dtype: _spread_samples(rng, dtype, False), at_least=512
)
extremum_backward = Kernel(
    "extremum_backward",
    _extremum_backward,
    cpu=f"{_CPU}:extremum_backward",
    cuda=_cuda_extremum_backward,
    samples=lambda rng, dtype: _spread_samples(rng, dtype, True),
    at_least=512,
)
