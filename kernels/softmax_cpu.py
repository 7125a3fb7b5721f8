"""Numba twins of :mod:`gpugrad.kernels.softmax` for rows; those for columns are in :mod:`gpugrad.kernels.softmax_columns_cpu`.

Rows go through loops that each vectorise, a block of 4096 elements at a time (or one longer row), so that all but the first finds it in the cache. What the
loops hand on lies in the memory of the result. Sums are made in float64, each by one thread.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gpugrad import jit
from gpugrad.kernels import softmax_columns_cpu as columns
from gpugrad.kernels.elementary_cpu import exp, exp_of_negative, log1p
from gpugrad.kernels.prefetch_cpu import STEP, prefetch
from gpugrad.kernels.rows_cpu import BITS, BLOCK, PIECE, exp_in_place, exp_into, largest, row_sum

_HALF, _LOG_HALF = 0.5, float(np.log(0.5))
_WIDE = 128  # columns: rows of fewer go through the loops some at a time
_NARROW = 16  # columns: fewer are copied to rows, for a strip of them fills no vector


# ------------------------------------------------------------------------------------------------- forward


@jit.inlined
def _subtract(x, i, m, z, k):  # type: ignore[no-untyped-def]
    """x - m, and 0 where x is m: of an infinite m the difference would be nan."""
    for j in range(x.shape[1]):
        z[k, j] = 0 if x[i, j] == m else x[i, j] - m


@jit.compiled
def _softmax_rows(x, bits, scale, m, maxima, y, start, stop):  # type: ignore[no-untyped-def]
    n = x.shape[1]
    many = max(1, BLOCK // n)
    for first in range(start, stop, many):
        last = min(first + many, stop)
        for i in range(first, last):
            maxima[i] = largest(bits, i)  # which m reads as a float
            _subtract(x, i, m[i], y, i)
        exp_in_place(y[first:last].reshape(-1))
        for i in range(first, last):
            t = row_sum(y, i)
            s = np.float64(scale[i]) if scale.size else 1.0
            f = y.dtype.type(s * (0 * t) if m[i] == -np.inf else s / t)
            for j in range(n):
                y[i, j] *= f


@jit.summing
def _exp_and_sum(x, m, e):  # type: ignore[no-untyped-def]
    """exp(x - m) of a piece, and their sum."""
    zero = x.dtype.type(0)
    total = zero
    for j in range(e.size):
        e[j] = exp_of_negative(zero if x[j] == m else x[j] - m)
        total += e[j]
    return total


@jit.compiled
def _softmax_wide_rows(x, bits, scale, m, maxima, y, start, stop):  # type: ignore[no-untyped-def]
    """While exp is computed the next row comes into the cache. Sums are made in float64 of those of pieces, of which a lane of the vector units adds up 16."""
    n = x.shape[1]
    for i in range(start, stop):
        maxima[i] = largest(bits, i)
        line, out, t = x[i], y[i], 0.0
        for k in range(0, n, STEP):
            end, after = min(k + STEP, n), (i + 1) * n
            prefetch(x, after + k, after + end)
            prefetch(y, after + k, after + end)
            t += _exp_and_sum(line[k:end], m[i], out[k:end])
        s = np.float64(scale[i]) if scale.size else 1.0
        f = y.dtype.type(s * (0 * t) if m[i] == -np.inf else s / t)
        for j in range(n):
            out[j] *= f


@jit.inlined
def _rest(e, z, k):  # type: ignore[no-untyped-def]
    """The sum of e over all elements but one of the largest, whose e is 1 and z is 0. Where the rest is small beside the 1 it is summed without it."""
    r = row_sum(e, k) - 1
    if not r >= 1:
        top = 0
        while top < e.shape[1] - 1 and z[k, top] != 0:
            top += 1
        e[k, top] = 0
        r = row_sum(e, k)
    return r


@jit.compiled
def _log_rows(x, bits, m, maxima, y, start, stop):  # type: ignore[no-untyped-def]
    """logsumexp of each row in m, and log_softmax in y if it has any elements."""
    n = x.shape[1]
    many = max(1, min(BLOCK // n, stop - start))
    e, memory = np.empty((many, n), x.dtype), np.empty((0 if y.size else many, n), x.dtype)
    rest = np.empty(many)  # a loop over the block, because alone log1p is slow
    for first in range(start, stop, many):
        count = min(many, stop - first)
        z = y[first : first + count] if y.size else memory[:count]
        for k in range(count):
            maxima[first + k] = largest(bits, first + k)
            _subtract(x, first + k, m[first + k], z, k)
        exp_into(z.reshape(-1), e[:count].reshape(-1))
        for k in range(count):
            rest[k] = _rest(e, z, k)
        for k in range(count):
            rest[k] = log1p(rest[k])
        for k in range(count):
            i = first + k
            nothing = m[i] == -np.inf
            less = x.dtype.type(rest[k] + np.inf if nothing else rest[k])
            m[i] += 0 * rest[k] if nothing else rest[k]
            if y.size:
                for j in range(n):
                    z[k, j] -= less


def softmax(x: Any, scale: Any = None) -> Any:
    """See gpugrad.kernels.softmax."""
    if not _as_rows(x):
        return columns.softmax(x, scale)
    a = _rows(x)
    y, m = np.empty(a.shape, a.dtype), np.empty(len(a), a.dtype)
    scale = m[:0] if scale is None else np.ascontiguousarray(scale, a.dtype).reshape(-1)
    _shared(_softmax_wide_rows if a.shape[1] >= _WIDE else _softmax_rows, a, a.view(BITS[a.dtype.char]), scale, m, m.view(BITS[a.dtype.char]), y)
    return _lines(y, x.shape)


def log_softmax(x: Any) -> Any:
    """See gpugrad.kernels.softmax."""
    if not _as_rows(x):
        return columns.logarithms(x, True)
    a = _rows(x)
    y = np.empty(a.shape, a.dtype)
    _logarithms(a, y)
    return _lines(y, x.shape)


def logsumexp(x: Any) -> Any:
    """See gpugrad.kernels.softmax."""
    if not _as_rows(x):
        return columns.logarithms(x, False)
    a = _rows(x)
    return _logarithms(a, np.empty((0, a.shape[1]), a.dtype)).reshape(x.shape[0], x.shape[2])


def _logarithms(a: Any, y: Any) -> Any:
    m = np.full(len(a), -np.inf, a.dtype)
    _shared(_log_rows, a, a.view(BITS[a.dtype.char]), m, m.view(BITS[a.dtype.char]), y)
    return m


# ------------------------------------------------------------------------------------------------- backward


@jit.summing
def _product(y, g, i, from_g, bound):  # type: ignore[no-untyped-def]
    """sum(y (g - from_g)) of a row, and how many y are above the bound."""
    total, above = 0.0, 0
    for j in range(y.shape[1]):
        total += np.float64(y[i, j]) * np.float64(g[i, j] - from_g)
        above += y[i, j] > bound
    return total, above


@jit.summing
def _above(y, i, bound):  # type: ignore[no-untyped-def]
    above = 0
    for j in range(y.shape[1]):
        above += y[i, j] > bound
    return above


@jit.inlined
def _dominant(y, i, bound):  # type: ignore[no-untyped-def]
    """Where the first y above the bound is; there is one."""
    j = 0
    while not y[i, j] > bound:
        j += 1
    return j


@jit.compiled
def _softmax_slope_rows(g, y, d, start, stop):  # type: ignore[no-untyped-def]
    for i in range(start, stop):
        a, top = g.dtype.type(0), -1
        t, above = _product(y, g, i, a, _HALF)
        if above:
            top = _dominant(y, i, _HALF)
            a = g[i, top]
            t, above = _product(y, g, i, a, _HALF)
        s = g.dtype.type(t)
        for j in range(y.shape[1]):
            d[i, j] = y[i, j] * ((g[i, j] - a) - s)
        if top >= 0:
            d[i, top] = 0
            d[i, top] = -row_sum(d, i)


@jit.compiled
def _log_softmax_slope_rows(g, y, d, start, stop):  # type: ignore[no-untyped-def]
    for i in range(start, stop):
        s, above = g.dtype.type(row_sum(g, i)), _above(y, i, _LOG_HALF)
        for j in range(y.shape[1]):
            d[i, j] = g[i, j] - exp(y[i, j]) * s
        if above:
            top = _dominant(y, i, _LOG_HALF)
            d[i, top] = 0
            d[i, top] = -row_sum(d, i)


def softmax_slope(g: Any, y: Any) -> Any:
    """See gpugrad.kernels.softmax."""
    return _slope(g, y, _softmax_slope_rows, False)


def log_softmax_slope(g: Any, y: Any) -> Any:
    """See gpugrad.kernels.softmax."""
    return _slope(g, y, _log_softmax_slope_rows, True)


def _slope(g: Any, y: Any, run: Any, log: bool) -> Any:
    y = np.asarray(y, g.dtype)
    if not _as_rows(g):
        return columns.slope(g, y, log)
    a, b = _rows(g), _rows(y)
    d = np.empty(a.shape, a.dtype)
    _shared(run, a, b, d)
    return _lines(d, g.shape)


# ------------------------------------------------------------------------------------------------- double backward


@jit.compiled
def _softmax_curvature_rows(c, g, y, of_g, of_y, start, stop):  # type: ignore[no-untyped-def]
    zero = g.dtype.type(0)
    for i in range(start, stop):
        a, b, top = zero, zero, -1
        by_g, above = _product(y, g, i, a, _HALF)
        by_c, above = _product(y, c, i, b, _HALF)
        if above:
            top = _dominant(y, i, _HALF)
            a, b = g[i, top], c[i, top]
            by_g, above = _product(y, g, i, a, _HALF)
            by_c, above = _product(y, c, i, b, _HALF)
        s, t = g.dtype.type(by_g), g.dtype.type(by_c)
        for j in range(y.shape[1]):
            u, w = g[i, j] - a, c[i, j] - b
            of_g[i, j] = y[i, j] * (w - t)
            of_y[i, j] = w * (u - s) - u * t
        if top >= 0:
            of_g[i, top] = 0
            of_g[i, top] = -row_sum(of_g, i)


@jit.compiled
def _log_softmax_curvature_rows(c, g, y, of_g, of_y, start, stop):  # type: ignore[no-untyped-def]
    """of_y only if it has elements."""
    n = y.shape[1]
    p = of_y if of_y.size else of_g
    many = max(1, BLOCK // n)
    for first in range(start, stop, many):
        last = min(first + many, stop)
        exp_into(y[first:last].reshape(-1), p[first:last].reshape(-1))
        for i in range(first, last):
            b = c[i, _dominant(y, i, _LOG_HALF)] if _above(y, i, _LOG_HALF) else c.dtype.type(0)
            t, _ = _product(p, c, i, b, _HALF)
            s = c.dtype.type(t)
            if of_y.size:
                sum_g = g.dtype.type(row_sum(g, i))
                for j in range(n):
                    of_y[i, j] = -(of_y[i, j] * (c[i, j] - b)) * sum_g
            for j in range(n):
                of_g[i, j] = (c[i, j] - b) - s


def softmax_curvature(c: Any, g: Any, y: Any) -> Any:
    """See gpugrad.kernels.softmax."""
    return _curvature(c, g, y, _softmax_curvature_rows, False)


def log_softmax_curvature(c: Any, g: Any, y: Any) -> Any:
    """See gpugrad.kernels.softmax."""
    return _curvature(c, g, y, _log_softmax_curvature_rows, True)


def _curvature(c: Any, g: Any, y: Any, run: Any, log: bool) -> Any:
    g, y = None if g is None else np.asarray(g, c.dtype), np.asarray(y, c.dtype)
    if not _as_rows(c):
        return columns.curvature(c, g, y, log)
    rows = _rows(c)
    of_g, of_y = np.empty(rows.shape, rows.dtype), np.empty(rows.shape if g is not None else (0, rows.shape[1]), rows.dtype)
    _shared(run, rows, of_y if g is None else _rows(g), _rows(y), of_g, of_y)
    return _lines(of_g, c.shape), None if g is None else _lines(of_y, c.shape)


# ------------------------------------------------------------------------------------------------- lines as rows


def _as_rows(x: Any) -> bool:
    return x.shape[2] < _NARROW or not x.size


def _rows(x: Any) -> Any:
    """Lines (outer, n, inner) as the rows of a matrix in C order."""
    outer, n, inner = x.shape
    return np.ascontiguousarray(x.reshape(outer, n) if inner == 1 else x.transpose(0, 2, 1)).reshape(outer * inner, n)


def _lines(y: Any, shape: tuple[int, ...]) -> Any:
    """The inverse of _rows."""
    outer, n, inner = shape
    return y.reshape(shape) if inner == 1 else y.reshape(outer, inner, n).transpose(0, 2, 1)


def _shared(run: Any, x: Any, *args: Any) -> None:
    """``run`` over the rows of x, on several threads where there are enough elements."""
    rows, n = x.shape
    if not x.size:
        return
    if x.size < 2 * PIECE:
        run(x, *args, 0, rows)
    else:
        jit.split(lambda start, stop: run(x, *args, start, stop), rows, -(-PIECE // n))
