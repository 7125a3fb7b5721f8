"""The Numba twins of :mod:`gpugrad.kernels.segments`: a radix sort of the places, sums of the segments, and copies of rows."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpugrad import jit
from gpugrad.kernels.segments import refuse

WINDOW = 512
_DIGIT = 8  # bits that a pass sorts by: each of 256 streams writes to a cache line of its own
_CHUNK = 1 << 14  # the least rows for which a thread sorts
_ROW, _ROW_BITS = np.uint64(2**32 - 1), np.uint64(32)

# ---------------------------------------------------------------------------------- order


@jit.compiled
def _pack(places, count, keys, first, last):  # type: ignore[no-untyped-def]
    """Place and row in one number, so that a pass of the sort moves 8 bytes. True if a place is out of range."""
    bad = False
    for i in range(first, last):
        place = places[i]
        place += count if place < 0 else 0
        bad |= (place < 0) | (place >= count)
        keys[i] = np.uint64(place) << _ROW_BITS | np.uint64(i)
    return bad


@jit.compiled
def _histogram(keys, shift, counts, first, last):  # type: ignore[no-untyped-def]
    mask = np.uint64(counts.size - 1)
    counts[:] = 0
    for i in range(first, last):
        counts[keys[i] >> shift & mask] += 1


@jit.compiled
def _begin(counts):  # type: ignore[no-untyped-def]
    """From how many keys of each digit each chunk has, (chunks, digits), to where the first of them goes."""
    at = 0
    for digit in range(counts.shape[1]):
        for chunk in range(counts.shape[0]):
            n = counts[chunk, digit]
            counts[chunk, digit] = at
            at += n


@jit.compiled
def _distribute(keys, shift, at, out, first, last):  # type: ignore[no-untyped-def]
    mask = np.uint64(at.size - 1)
    for i in range(first, last):
        key = keys[i]
        digit = key >> shift & mask
        out[at[digit]] = key
        at[digit] += 1


def sorted_keys(places: Any, count: int, name: str) -> Any:
    """Place times 2^32 plus row, in ascending order. The rows are in order to begin with, so the passes are over the bits of the places alone."""
    n = places.size
    keys, bad = np.empty(n, np.uint64), []
    jit.split(lambda first, last: bad.append(_pack(places, count, keys, first, last)), n, _CHUNK)
    if any(bad):
        refuse(name, places, count, True)
    bits = (count - 1).bit_length()
    passes = -(-bits // _DIGIT)
    digit = -(-bits // max(passes, 1))
    out = np.empty_like(keys)
    for i in range(passes):
        _sort_by(keys, out, np.uint64(32 + i * digit), digit)
        keys, out = out, keys
    return keys


def _sort_by(keys: Any, out: Any, shift: Any, bits: int) -> None:
    """``out`` = the keys in the order of some of their bits, each chunk of them by one thread; a stable order is the same whatever the chunks are."""
    n, chunks = keys.size, max(1, min(keys.size // _CHUNK, jit.threads()))
    ends = [n * i // chunks for i in range(chunks + 1)]
    counts = np.empty((chunks, 1 << bits), np.int64)
    jit.split(lambda a, b: [_histogram(keys, shift, counts[c], ends[c], ends[c + 1]) for c in range(a, b)], chunks, 1)
    _begin(counts)
    jit.split(lambda a, b: [_distribute(keys, shift, counts[c], out, ends[c], ends[c + 1]) for c in range(a, b)], chunks, 1)


# ---------------------------------------------------------------------------------- sums


@jit.inlined
def _add_rows(values, keys, first, last, total):  # type: ignore[no-untyped-def]
    """``total`` = the sum of the rows of the keys, two at a time, so that it is loaded and stored half as often."""
    width = values.shape[1]
    row = keys[first] & _ROW
    for j in range(width):
        total[j] = values[row, j]
    i = first + 1
    while i + 1 < last:
        row, other = keys[i] & _ROW, keys[i + 1] & _ROW
        for j in range(width):
            total[j] += np.float64(values[row, j]) + np.float64(values[other, j])
        i += 2
    if i < last:
        row = keys[i] & _ROW
        for j in range(width):
            total[j] += values[row, j]


@jit.compiled
def _sum_windows(values, keys, y, heads, tails, first, last):  # type: ignore[no-untyped-def]
    """The runs of equal places in each window of sorted rows: a whole segment to y, the end or middle of one to ``heads``, the begin of one to ``tails``."""
    n, width = keys.size, values.shape[1]
    total = np.empty(width, np.float64)
    for w in range(first, last):
        i, end = w * WINDOW, min((w + 1) * WINDOW, n)
        while i < end:
            place, stop = keys[i] >> _ROW_BITS, i + 1
            while stop < end and keys[stop] >> _ROW_BITS == place:
                stop += 1
            begun, goes_on = i > 0 and keys[i - 1] >> _ROW_BITS == place, stop < n and keys[stop] >> _ROW_BITS == place
            if stop == i + 1 and not begun and not goes_on:
                row = keys[i] & _ROW
                for j in range(width):
                    y[place, j] = values[row, j]
                i = stop
                continue
            _add_rows(values, keys, i, stop, total)
            if begun:
                for j in range(width):
                    heads[w, j] = total[j]
            elif goes_on:
                for j in range(width):
                    tails[w, j] = total[j]
            else:
                for j in range(width):
                    y[place, j] = total[j]
            i = stop


@jit.compiled
def _join_windows(keys, y, heads, tails, first, last):  # type: ignore[no-untyped-def]
    """The segments that begin in a window and do not end there."""
    n, width = keys.size, y.shape[1]
    for w in range(first, last):
        at, after = w * WINDOW, (w + 1) * WINDOW
        if after < n:
            place = keys[after] >> _ROW_BITS
            if keys[after - 1] >> _ROW_BITS == place and (at == 0 or keys[at - 1] >> _ROW_BITS != place):
                v = w + 1
                while v * WINDOW < n and keys[v * WINDOW] >> _ROW_BITS == place:
                    for j in range(width):
                        tails[w, j] += heads[v, j]
                    v += 1
                for j in range(width):
                    y[place, j] = tails[w, j]


def segment_sum(values: Any, places: Any, *, count: int, skip: int | None = None, name: str = "scatter_add") -> Any:
    """See gpugrad.kernels.segments."""
    n, width = values.shape
    y = np.zeros((count, width), values.dtype)
    if n:
        values = values if values.flags.c_contiguous else np.ascontiguousarray(values)
        keys = sorted_keys(places, count, name)
        windows = -(-n // WINDOW)
        heads, tails = np.empty((windows, width)), np.empty((windows, width))
        least = max(1, jit.LEAST // (WINDOW * max(width, 1)))
        jit.split(lambda first, last: _sum_windows(values, keys, y, heads, tails, first, last), windows, least)
        jit.split(lambda first, last: _join_windows(keys, y, heads, tails, first, last), windows - 1, jit.LEAST // WINDOW)
        if skip is not None:
            y[skip] = 0
    return y


# ---------------------------------------------------------------------------------- gather


@jit.compiled
def _copy(x, places, y, from_end, skip, first, last):  # type: ignore[no-untyped-def]
    """Rows by their places. True, and it ends, if a place is out of range."""
    count, width = np.int64(x.shape[0]), x.shape[1]
    for i in range(first, last):
        place = places[i]
        place += count if place < 0 and from_end else 0
        if place < 0 or place >= count:
            return True
        if place == skip:
            for j in range(width):
                y[i, j] = 0
        else:
            for j in range(width):
                y[i, j] = x[place, j]
    return False


def gather(x: Any, places: Any, *, skip: int | None = None, from_end: bool = True, name: str = "getitem") -> Any:
    """See gpugrad.kernels.segments."""
    x = x if x.flags.c_contiguous else np.ascontiguousarray(x)
    flat, y, bad = places.ravel(), np.empty((places.size, x.shape[1]), x.dtype), [False]
    least = max(1, jit.LEAST // max(1, x.shape[1]))
    jit.split(lambda first, last: bad.append(_copy(x, flat, y, from_end, -1 if skip is None else skip, first, last)), places.size, least)
    if any(bad):
        refuse(name, places, len(x), from_end)
    return y.reshape(*places.shape, x.shape[1])
