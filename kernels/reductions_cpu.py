"""Numba twins of :mod:`gpugrad.kernels.reductions`.

All of them see an array as (outer, n, inner), in C order, and reduce its middle. Sums are made in float64, of float64 numbers in blocks whose sums are added block by
block, so that errors grow like the logarithm of n. The blocks, PIECE elements of a row and ROWS rows of columns, depend on the sizes alone; threads share them out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from gpugrad import jit
from gpugrad.kernels import reductions

PIECE = 1 << 14  # of a row that belongs to one thread: 64 KB, so that a second reading finds it in the cache
CHUNK = 1 << 10  # that is summed in registers
ROWS = 256  # of columns that belong to one thread
TILE = 256  # columns that it takes side by side
NARROW = 32  # columns below which several rows are taken for one

_of = np.uint64  # counters: Numba need not ask whether they are negative and count from the end, so loops vectorise


def units(run: Any, x: Any, count: int, *args: Any) -> None:
    """``run`` over so many equal pieces of work, on several threads where there are enough elements."""
    if x.size < 2 * jit.LEAST:
        run(x, *args, _of(0), _of(count))
    else:
        jit.split(lambda first, last: run(x, *args, _of(first), _of(last)), count, max(1, jit.LEAST * count // x.size))


# ------------------------------------------------------------------------------------------------- sums

_MAPS: dict[str, Callable[..., Any]] = {"x": lambda x: x, "abs": lambda x: abs(x), "square": lambda x: x * x}


def _total_of(f: Callable[..., Any]) -> tuple[Any, Any]:
    """Sums of f of rows, and of columns; f is a constant of the closure, for a switch would keep the loops from being vectorised."""
    f = jit.inlined(f)

    @jit.summing
    def chunk(x, i, start, stop):  # type: ignore[no-untyped-def]
        total = 0.0
        for j in range(start, stop):
            total += f(np.float64(x[i, j]))
        return total

    def rows(x, out, pieces, times, over, first, last):  # type: ignore[no-untyped-def]
        n = _of(x.shape[1])
        for unit in range(first, last):
            i, start = unit // pieces, unit % pieces * _of(PIECE)
            stop = min(start + _of(PIECE), n)
            total = 0.0
            for j in range(start, stop, _of(CHUNK)):
                total += chunk(x, i, j, min(j + _of(CHUNK), stop))
            out[unit] = total * times / over

    def columns(x, out, width, blocks, times, over, first, last):  # type: ignore[no-untyped-def]
        """x (outer, elements) as rows of this width and a shorter one; out (outer * blocks, width)."""
        count = _of(x.shape[1]) // width
        tiles = (width + _of(TILE) - _of(1)) // _of(TILE)
        total = np.empty(TILE)
        for unit in range(first, last):
            i, block, left = unit // (blocks * tiles), unit // tiles % blocks, unit % tiles * _of(TILE)
            w = min(width - left, _of(TILE))
            start, stop = block * _of(ROWS), min((block + _of(1)) * _of(ROWS), count)
            fours = start + (stop - start) // _of(4) * _of(4) if stop > start else start
            for j in range(w):
                total[j] = 0.0
            for row in range(start, fours, _of(4)):
                a = row * width + left
                b, c, d = a + width, a + _of(2) * width, a + _of(3) * width
                for j in range(w):
                    total[j] += (f(np.float64(x[i, a + j])) + f(np.float64(x[i, b + j]))) + (f(np.float64(x[i, c + j])) + f(np.float64(x[i, d + j])))
            for row in range(fours, stop):
                a = row * width + left
                for j in range(w):
                    total[j] += f(np.float64(x[i, a + j]))
            if block + _of(1) == blocks:
                a = count * width + left
                for j in range(min(w, _of(x.shape[1]) - a) if a < _of(x.shape[1]) else _of(0)):
                    total[j] += f(np.float64(x[i, a + j]))
            for j in range(w):
                out[i * blocks + block, left + j] = total[j] * times / over

    return jit.compiled(rows), jit.compiled(columns)


_TOTALS = {name: _total_of(f) for name, f in _MAPS.items()}


def _row_total(x: Any, dtype: Any, of: str, times: float, over: float) -> Any:
    outer, n = x.shape
    pieces = -(-n // PIECE)
    if pieces == 1:
        out = np.empty(outer, dtype)
        units(_TOTALS[of][0], x, outer, out, _of(1), times, over)
        return out
    partials = np.empty(outer * pieces)
    units(_TOTALS[of][0], x, outer * pieces, partials, _of(pieces), 1.0, 1.0)
    return (partials.reshape(outer, pieces).sum(axis=1) * times / over).astype(dtype, copy=False)


def _column_total(x: Any, dtype: Any, of: str, times: float, over: float) -> Any:
    outer, n, inner = x.shape
    together = max(1, min(2 * NARROW // inner, n)) if inner < NARROW and n * inner > 4 * NARROW else 1
    width = together * inner
    blocks = max(1, -(-(n // together) // ROWS))
    last = blocks == together == 1
    out = np.empty((outer * blocks, width), dtype if last else np.float64)
    times_now, over_now = (times, over) if last else (1.0, 1.0)
    units(_TOTALS[of][1], x.reshape(outer, n * inner), len(out) * -(-width // TILE), out, _of(width), _of(blocks), times_now, over_now)
    return out if last else _column_total(out.reshape(outer, blocks * together, inner), np.float64, "x", times, over).astype(dtype, copy=False)


def total(x: Any, *, axis: tuple[int, ...], of: str = "x", mean: bool = False, keepdims: bool = False) -> Any:
    """See gpugrad.kernels.reductions."""
    return reductions.total_by(x, axis, of, mean, keepdims, _middle_total)


def _middle_total(x: Any, dtype: Any, of: str, times: float, over: float) -> Any:
    if x.shape[2] == 1:
        return _row_total(x.reshape(x.shape[:2]), dtype, of, times, over)
    return _column_total(x, dtype, of, times, over)


# ------------------------------------------------------------------------------------------------- moments

# The mean and the squares of a piece are found while it is in the cache. Pieces are put together by their own means: nothing cancels.


@jit.inlined
def _deviation(x, mean):  # type: ignore[no-untyped-def]
    """It does not take part in the liberties of the sums."""
    return x - mean


@jit.inlined
def _not_negative(x):  # type: ignore[no-untyped-def]
    """A nan stays."""
    return 0.0 if x < 0 else x


@jit.summing
def _sum_of(x, i, start, stop):  # type: ignore[no-untyped-def]
    total = 0.0
    for j in range(start, stop):
        total += x[i, j]
    return total


@jit.summing
def _deviations_of(x, i, start, stop, mean):  # type: ignore[no-untyped-def]
    drift = squares = 0.0
    for j in range(start, stop):
        c = _deviation(np.float64(x[i, j]), mean)
        drift += c
        squares += c * c
    return drift, squares


@jit.compiled
def _moments_of_rows(x, squares, means, pieces, first, last):  # type: ignore[no-untyped-def]
    for unit in range(first, last):
        i, start = unit // pieces, unit % pieces * _of(PIECE)
        stop = min(start + _of(PIECE), _of(x.shape[1]))
        n = np.float64(stop - start)
        mean = _sum_of(x, i, start, stop) / n
        drift, total = _deviations_of(x, i, start, stop, mean)
        means[unit] = mean + drift / n
        squares[unit] = _not_negative(total - drift * (drift / n))


@jit.compiled
def _moments_of_columns(x, squares, means, blocks, first, last):  # type: ignore[no-untyped-def]
    width = _of(x.shape[2])
    tiles = (width + _of(TILE) - _of(1)) // _of(TILE)
    mean, drift, total = np.empty(TILE), np.empty(TILE), np.empty(TILE)
    for unit in range(first, last):
        i, block, left = unit // (blocks * tiles), unit // tiles % blocks, unit % tiles * _of(TILE)
        w = min(width - left, _of(TILE))
        start, stop = block * _of(ROWS), min((block + _of(1)) * _of(ROWS), _of(x.shape[1]))
        n = np.float64(stop - start)
        for j in range(w):
            mean[j] = drift[j] = total[j] = 0.0
        for row in range(start, stop):
            for j in range(w):
                mean[j] += x[i, row, left + j]
        for j in range(w):
            mean[j] /= n
        for row in range(start, stop):
            for j in range(w):
                c = np.float64(x[i, row, left + j]) - mean[j]
                drift[j] += c
                total[j] += c * c
        for j in range(w):
            means[i * blocks + block, left + j] = mean[j] + drift[j] / n
            squares[i * blocks + block, left + j] = _not_negative(total[j] - drift[j] * (drift[j] / n))


def moments(x: Any, *, axis: tuple[int, ...], keepdims: bool = False) -> tuple[Any, Any]:
    """See gpugrad.kernels.reductions."""
    return reductions.moments_by(x, axis, keepdims, _middle_moments)


def _middle_moments(x: Any) -> tuple[Any, Any]:
    outer, n, inner = x.shape
    size = PIECE if inner == 1 else ROWS
    blocks = -(-n // size)
    squares, means = np.empty((outer, blocks, inner)), np.empty((outer, blocks, inner))
    if inner == 1:
        units(_moments_of_rows, x.reshape(outer, n), outer * blocks, squares.reshape(-1), means.reshape(-1), _of(blocks))
    else:
        parts = squares.reshape(outer * blocks, inner), means.reshape(outer * blocks, inner)
        units(_moments_of_columns, x, outer * blocks * -(-inner // TILE), *parts, _of(blocks))
    return _joined(squares, means, n, size)


def _joined(squares: Any, means: Any, n: int, size: int) -> tuple[Any, Any]:
    """The moments of pieces of so many elements, of which the last is shorter, put together."""
    if squares.shape[1] == 1:
        return squares[:, 0], means[:, 0]
    counts = np.minimum(size, n - np.arange(0, n, size, dtype=np.float64))[:, None]
    mean = (means * counts).sum(axis=1, keepdims=True) / n
    away = means - mean
    drift = (away * counts).sum(axis=1, keepdims=True) / n
    away -= drift
    return squares.sum(axis=1) + (away * away * counts).sum(axis=1), (mean + drift)[:, 0]


# ------------------------------------------------------------------------------------------------- s (x - m)


@jit.compiled
def _deviations(x, m, s, y, blocks, first, last):  # type: ignore[no-untyped-def]
    n, width = _of(x.shape[1]), _of(x.shape[2])
    for unit in range(first, last):
        i, start = unit // blocks, unit % blocks * _of(ROWS)
        stop = min(start + _of(ROWS), n)
        for row in range(start, stop):
            for j in range(width):
                y[i, row, j] = (x[i, row, j] - m[i, j]) * s[i, j]


@jit.compiled
def _deviations_of_rows(x, m, s, y, pieces, first, last):  # type: ignore[no-untyped-def]
    for unit in range(first, last):
        i, start = unit // pieces, unit % pieces * _of(PIECE)
        mean, scale = m[i, 0], s[i, 0]
        for j in range(start, min(start + _of(PIECE), _of(x.shape[1]))):
            y[i, j] = (x[i, j] - mean) * scale


def deviations(x: Any, m: Any, s: Any, *, axis: tuple[int, ...]) -> Any:
    """See gpugrad.kernels.reductions."""
    return reductions.elementwise_by(x, axis, (m, s), (np.float64, np.float64), _middle_deviations)


def _middle_deviations(x: Any, m: Any, s: Any) -> Any:
    outer, n, inner = x.shape
    y = np.empty(x.shape, x.dtype)
    blocks = -(-n // (PIECE if inner == 1 else ROWS))
    if inner == 1:
        units(_deviations_of_rows, x.reshape(outer, n), outer * blocks, m, s, y.reshape(outer, n), _of(blocks))
    else:
        units(_deviations, x, outer * blocks, m, s, y, _of(blocks))
    return y


# ------------------------------------------------------------------------------------------------- extrema

# A maximum of floats is not vectorised, for nan forbids it; that of their bits is, made into integers of the same order. A nan lies beyond either infinity then.


def bits_of(dtype: Any) -> tuple[Any, Any, Any, Any, Any]:
    """For floats as integers: the least and the largest of a stretch, in their order; the inverse of that order; a nan, and what is beyond which there is one."""
    integer = np.dtype(f"i{dtype.itemsize}").type
    sign, magnitude, infinite = integer(8 * dtype.itemsize - 1), np.iinfo(integer).max, np.array(np.inf, dtype).view(integer)[()]
    lowest = integer(np.array(-np.inf, dtype).view(integer) ^ magnitude)

    @jit.inlined
    def ordered(bits):  # type: ignore[no-untyped-def]
        """The inverse of itself."""
        return bits ^ ((bits >> sign) & magnitude)

    @jit.summing
    def range_of(bits, i, start, stop):  # type: ignore[no-untyped-def]
        low = high = ordered(bits[i, start])
        for j in range(start, stop):
            low = min(low, ordered(bits[i, j]))
            high = max(high, ordered(bits[i, j]))
        return low, high

    return range_of, ordered, magnitude, lowest, infinite


def _extremum_of(smallest: bool, dtype: Any) -> tuple[Any, Any]:
    range_of, ordered, magnitude, lowest, infinite = bits_of(dtype)

    def rows(x, out, pieces, first, last):  # type: ignore[no-untyped-def]
        """x and out as integers."""
        for unit in range(first, last):
            i, start = unit // pieces, unit % pieces * _of(PIECE)
            low, high = range_of(x, i, start, min(start + _of(PIECE), _of(x.shape[1])))
            out[unit] = magnitude if high > infinite or low < lowest else ordered(low if smallest else high)

    def columns(x, out, blocks, first, last):  # type: ignore[no-untyped-def]
        width = _of(x.shape[2])
        tiles = (width + _of(TILE) - _of(1)) // _of(TILE)
        m = np.empty(TILE, x.dtype)
        for unit in range(first, last):
            i, block, left = unit // (blocks * tiles), unit // tiles % blocks, unit % tiles * _of(TILE)
            w = min(width - left, _of(TILE))
            start, stop = block * _of(ROWS), min((block + _of(1)) * _of(ROWS), _of(x.shape[1]))
            for j in range(w):
                m[j] = x[i, start, left + j]
            for row in range(start, stop):
                for j in range(w):
                    t = x[i, row, left + j]
                    m[j] = t if ((t < m[j]) if smallest else (t > m[j])) | (t != t) else m[j]
            for j in range(w):
                out[i * blocks + block, left + j] = m[j]

    return jit.compiled(rows), jit.compiled(columns)


_EXTREMA = {(smallest, char): _extremum_of(smallest, np.dtype(char)) for smallest in (False, True) for char in "fd"}


def extremum(x: Any, *, axis: tuple[int, ...], smallest: bool = False, keepdims: bool = False) -> Any:
    """See gpugrad.kernels.reductions."""
    return reductions.extremum_by(x, axis, smallest, keepdims, _middle_extremum)


def _middle_extremum(x: Any, smallest: bool) -> Any:
    outer, n, inner = x.shape
    blocks = -(-n // (PIECE if inner == 1 else ROWS))
    rows, columns = _EXTREMA[smallest, x.dtype.char]
    out = np.empty((outer * blocks, inner), x.dtype)
    if inner == 1:
        integer = np.dtype(f"i{x.itemsize}")
        units(rows, x.reshape(outer, n).view(integer), outer * blocks, out.reshape(-1).view(integer), _of(blocks))
    else:
        units(columns, x, outer * blocks * -(-inner // TILE), out, _of(blocks))
    return out if blocks == 1 else _middle_extremum(out.reshape(outer, blocks, inner), smallest)


@jit.summing
def _ties(x, i, n, y):  # type: ignore[no-untyped-def]
    k = np.int64(0)
    for j in range(n):
        k += np.int64((x[i, j] == y) | (x[i, j] != x[i, j]))
    return k


@jit.compiled
def _extremum_backward_rows(x, g, y, out, first, last):  # type: ignore[no-untyped-def]
    n = _of(x.shape[1])
    for i in range(first, last):
        m = y[i, 0]
        share = x.dtype.type(g[i, 0] / np.float64(_ties(x, i, n, m)))
        for j in range(n):
            out[i, j] = share if (x[i, j] == m) | (x[i, j] != x[i, j]) else x.dtype.type(0)


@jit.compiled
def _ties_of_columns(x, y, k, blocks, first, last):  # type: ignore[no-untyped-def]
    """k (outer * blocks, inner), counted in 32 bits, which a lane of the vectors has."""
    for unit in range(first, last):
        i, start = unit // blocks, unit % blocks * _of(ROWS)
        for j in range(k.shape[1]):
            k[unit, j] = 0
        for row in range(start, min(start + _of(ROWS), _of(x.shape[1]))):
            for j in range(k.shape[1]):
                t = x[i, row, j]
                k[unit, j] += np.int32((t == y[i, j]) | (t != t))


@jit.compiled
def _extremum_backward_columns(x, share, y, out, blocks, first, last):  # type: ignore[no-untyped-def]
    for unit in range(first, last):
        i, start = unit // blocks, unit % blocks * _of(ROWS)
        for row in range(start, min(start + _of(ROWS), _of(x.shape[1]))):
            for j in range(y.shape[1]):
                t = x[i, row, j]
                out[i, row, j] = share[i, j] if (t == y[i, j]) | (t != t) else x.dtype.type(0)


def extremum_backward(x: Any, g: Any, y: Any, *, axis: tuple[int, ...]) -> Any:
    """See gpugrad.kernels.reductions."""
    if not x.size:
        return np.empty(x.shape, x.dtype)
    return reductions.elementwise_by(x, axis, (g, y), (x.dtype, x.dtype), _middle_extremum_backward)


def _middle_extremum_backward(x: Any, g: Any, y: Any) -> Any:
    outer, n, inner = x.shape
    out = np.empty(x.shape, x.dtype)
    if inner == 1:
        units(_extremum_backward_rows, x.reshape(outer, n), outer, g, y, out.reshape(outer, n))
    else:
        blocks = -(-n // ROWS)
        k = np.empty((outer * blocks, inner), np.int32)
        units(_ties_of_columns, x, len(k), y, k, _of(blocks))
        share = (g / k.reshape(outer, blocks, inner).sum(axis=1)).astype(x.dtype, copy=False)
        units(_extremum_backward_columns, x, len(k), share, y, out, _of(blocks))
    return out
