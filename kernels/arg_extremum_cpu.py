"""The Numba twin of :mod:`gpugrad.kernels.arg_extremum`.

The largest element of a chunk is found by integers of the same order, as in :mod:`gpugrad.kernels.reductions_cpu`; where it lies is sought in the one chunk that has it, while that is in the
cache. Neither loop has a branch, so both vectorise, where one that keeps element and place would not.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gpugrad import jit
from gpugrad.kernels import arg_extremum as family
from gpugrad.kernels.reductions_cpu import PIECE, ROWS, TILE, _of, bits_of, units

CHUNK = 512


def _found_by(smallest: bool, dtype: Any) -> tuple[Any, Any]:
    range_of, ordered, magnitude, lowest, infinite = bits_of(dtype)
    number = np.uint32 if dtype.itemsize == 4 else np.uint64  # as wide as an element, so that a lane of the vectors has it
    signed = np.int32 if dtype.itemsize == 4 else np.int64

    @jit.inlined
    def beyond(a, b):  # type: ignore[no-untyped-def]
        """Whether a comes before b; a nan before all else."""
        return ((a < b) if smallest else (a > b)) | ((a != a) & (b == b))

    @jit.summing
    def first_of(x, i, start, stop, m):  # type: ignore[no-untyped-def]
        n = number(stop - start)
        at: Any = n
        for j in range(n):
            t = x[i, start + _of(j)]
            at = min(at, j if (t == m) | (t != t) else n)
        return start + _of(at)

    def rows(x, bits, m, places, pieces, first, last):  # type: ignore[no-untyped-def]
        """bits is x as integers, as m is."""
        one = np.empty(2, bits.dtype)
        best = one.view(x.dtype)
        for unit in range(first, last):
            i, begin = unit // pieces, unit % pieces * _of(PIECE)
            end = min(begin + _of(PIECE), _of(x.shape[1]))
            at = begin
            for start in range(begin, end, _of(CHUNK)):
                low, high = range_of(bits, i, start, min(start + _of(CHUNK), end))
                one[1] = magnitude if high > infinite or low < lowest else ordered(low if smallest else high)
                if start == begin or beyond(best[1], best[0]):
                    best[0], at = best[1], start
            m[unit] = best[0]
            places[unit] = first_of(x, i, at, min(at + _of(CHUNK), end), best[0])

    def columns(x, m_out, places, blocks, first, last):  # type: ignore[no-untyped-def]
        width = _of(x.shape[2])
        tiles = (width + _of(TILE) - _of(1)) // _of(TILE)
        m, at = np.empty(TILE, x.dtype), np.empty(TILE, signed)
        for unit in range(first, last):
            i, block, left = unit // (blocks * tiles), unit // tiles % blocks, unit % tiles * _of(TILE)
            w = min(width - left, _of(TILE))
            start, stop = block * _of(ROWS), min((block + _of(1)) * _of(ROWS), _of(x.shape[1]))
            for j in range(w):
                m[j], at[j] = x[i, start, left + j], 0
            for row in range(start, stop):
                here = signed(row - start)
                for j in range(w):
                    t = x[i, row, left + j]
                    better = beyond(t, m[j])
                    m[j] = t if better else m[j]
                    at[j] = here if better else at[j]
            for j in range(w):
                m_out[i * blocks + block, left + j] = m[j]
                places[i * blocks + block, left + j] = np.int64(start) + at[j]

    return jit.compiled(rows), jit.compiled(columns)


_FOUND = {(smallest, char): _found_by(smallest, np.dtype(char)) for smallest in (False, True) for char in "fd"}


def _middle(x: Any, smallest: bool) -> Any:
    outer, n, inner = x.shape
    blocks = -(-n // (PIECE if inner == 1 else ROWS))
    rows, columns = _FOUND[smallest, x.dtype.char]
    m, places = np.empty((outer * blocks, inner), x.dtype), np.empty((outer * blocks, inner), np.int64)
    if inner == 1:
        flat = x.reshape(outer, n)
        units(rows, flat, outer * blocks, flat.view(f"i{x.itemsize}"), m.reshape(-1), places.reshape(-1), _of(blocks))
    else:
        units(columns, x, outer * blocks * -(-inner // TILE), m, places, _of(blocks))
    if blocks == 1:
        return places
    best = _middle(m.reshape(outer, blocks, inner), smallest).reshape(outer, 1, inner)
    return np.take_along_axis(places.reshape(outer, blocks, inner), best, axis=1)


def arg_extremum(x: Any, *, axis: int | None, smallest: bool = False, keepdims: bool = False) -> Any:
    """See gpugrad.kernels.arg_extremum."""
    return family.arg_extremum_by(x, axis, smallest, keepdims, _middle)
