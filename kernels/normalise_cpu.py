"""Numba twins of :mod:`gpugrad.kernels.normalise`: of rows, with weights along them, and the calls of those of channels, normalise_channels_cpu.py.

A row is read from memory once and lies in the cache in the later passes. The sums of x and of its squares are made together, in float64, of its distances from its own first
element: of n numbers none is farther than sqrt(n) standard deviations from the mean, so the difference that gives the variance costs float32 nothing. The other sums are made in
the precision of the array over pieces of 1024, of which a lane of the vector units gets some dozens, and those of the pieces in float64. The gradient of a weight is summed over
blocks of 64 rows, which depend on the size alone, and those in float64.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gpugrad import jit
from gpugrad.kernels import normalise
from gpugrad.kernels import normalise_channels_cpu as channels
from gpugrad.kernels.normalise_channels_cpu import deviation, moments_of_row
from gpugrad.kernels.prefetch_cpu import STEP, prefetch

PIECE, ROWS = 1024, 64


@jit.inlined
def _scale(x, m, drift, r, w, b, y):  # type: ignore[no-untyped-def]
    for j in range(y.size):
        y[j] = deviation(x[j], m, drift) * r * w[j] + b[j]


@jit.compiled
def _forward_rows(x, w, b, y, stats, eps, centred, start, stop):  # type: ignore[no-untyped-def]
    for c in range(start, stop):
        row, out = x[c], y[c]
        moments_of_row(row, stats, c, eps, centred)
        m, drift, r = stats[0, c], stats[1, c], stats[2, c]
        for k in range(0, row.size, STEP):
            stop_k, after = min(k + STEP, row.size), (c + 1) * row.size
            prefetch(x, after + k, after + stop_k)
            prefetch(y, after + k, after + stop_k)
            _scale(row[k:stop_k], m, drift, r, w[k:stop_k], b[k:stop_k], out[k:stop_k])


# ------------------------------------------------------------------------------------------------- backward


@jit.summing
def _sums(x, w, g, m, drift):  # type: ignore[no-untyped-def]
    """Of d = w g, and of d (x - m - drift)."""
    total, products = x.dtype.type(0), x.dtype.type(0)
    for j in range(x.size):
        d = g[j] * w[j]
        total += d
        products += d * deviation(x[j], m, drift)
    return total, products


@jit.inlined
def _row_sums(x, w, g, m, drift):  # type: ignore[no-untyped-def]
    total, products = 0.0, 0.0
    for k in range(0, x.size, PIECE):
        a, b = _sums(x[k : k + PIECE], w[k : k + PIECE], g[k : k + PIECE], m, drift)
        total += a
        products += b
    return total, products


@jit.summing
def _add_row(x, w, g, m, drift, r, dw, db):  # type: ignore[no-untyped-def]
    """Of d = w g the sums of d and d h; and to dw and db what the row gives."""
    total, products = x.dtype.type(0), x.dtype.type(0)
    for j in range(x.size):
        f = g[j] * (deviation(x[j], m, drift) * r)
        dw[j] += f
        db[j] += g[j]
        total += g[j] * w[j]
        products += f * w[j]
    return total, products


@jit.summing
def _add_four(rows, gs, w, m, drift, r, dw, db):  # type: ignore[no-untyped-def]
    """The same of four rows together: dw and db are then loaded and stored a quarter as often."""
    x0, x1, x2, x3 = rows
    g0, g1, g2, g3 = gs
    m0, m1, m2, m3 = m
    e0, e1, e2, e3 = drift
    r0, r1, r2, r3 = r
    zero = w.dtype.type(0)
    t0, t1, t2, t3, p0, p1, p2, p3 = zero, zero, zero, zero, zero, zero, zero, zero
    for j in range(w.size):
        a0, a1, a2, a3, v = g0[j], g1[j], g2[j], g3[j], w[j]
        f0, f1 = a0 * (deviation(x0[j], m0, e0) * r0), a1 * (deviation(x1[j], m1, e1) * r1)
        f2, f3 = a2 * (deviation(x2[j], m2, e2) * r2), a3 * (deviation(x3[j], m3, e3) * r3)
        dw[j] += (f0 + f1) + (f2 + f3)
        db[j] += (a0 + a1) + (a2 + a3)
        t0, t1, t2, t3 = t0 + a0 * v, t1 + a1 * v, t2 + a2 * v, t3 + a3 * v
        p0, p1, p2, p3 = p0 + f0 * v, p1 + f1 * v, p2 + f2 * v, p3 + f3 * v
    return (t0, t1, t2, t3), (p0, p1, p2, p3)


@jit.inlined
def _four(a, i, k):  # type: ignore[no-untyped-def]
    """The k-th pieces of four rows."""
    return a[i][k : k + PIECE], a[i + 1][k : k + PIECE], a[i + 2][k : k + PIECE], a[i + 3][k : k + PIECE]


@jit.inlined
def _four_numbers(a, i):  # type: ignore[no-untyped-def]
    return a[i], a[i + 1], a[i + 2], a[i + 3]


@jit.inlined
def _sums_of_rows(x, stats, w, g, i, stop, dw, db, sums):  # type: ignore[no-untyped-def]
    """Of the rows from i to stop, at most four, the sums of d and d h; and to dw and db what they give."""
    sums[:] = 0
    for k in range(0, x.shape[1], PIECE):
        ws, dws, dbs = w[k : k + PIECE], dw[k : k + PIECE], db[k : k + PIECE]
        if stop - i == 4:
            m, drift, r = _four_numbers(stats[0], i), _four_numbers(stats[1], i), _four_numbers(stats[2], i)
            totals, products = _add_four(_four(x, i, k), _four(g, i, k), ws, m, drift, r, dws, dbs)
            for q in range(4):
                sums[0, q] += totals[q]
                sums[1, q] += products[q]
        else:
            for q in range(stop - i):
                c = i + q
                total, product = _add_row(x[c][k : k + PIECE], ws, g[c][k : k + PIECE], stats[0, c], stats[1, c], stats[2, c], dws, dbs)
                sums[0, q] += total
                sums[1, q] += product


@jit.inlined
def _slope(x, w, g, m, drift, r, mean, b, dx):  # type: ignore[no-untyped-def]
    for j in range(dx.size):
        dx[j] = g[j] * w[j] * r - mean - deviation(x[j], m, drift) * b


@jit.compiled
def _backward_rows(x, stats, w, g, dx, partials, centred, first, last):  # type: ignore[no-untyped-def]
    """dx only if it has elements. Four rows at a time; while dx of one is written, the fourth after it comes into the cache."""
    n, of = x.shape[1], x.dtype.type
    sums = np.empty((2, 4))
    for block in range(first, last):
        partials[:, block] = 0
        end = min((block + 1) * ROWS, x.shape[0])
        for start in range(block * ROWS, end, 4):
            stop = min(start + 4, end)
            _sums_of_rows(x, stats, w, g, start, stop, partials[0, block], partials[1, block], sums)
            if dx.size:
                for i in range(start, stop):
                    m, drift, r = stats[0, i], stats[1, i], stats[2, i]
                    wide = np.float64(r)
                    mean, b = of(wide * sums[0, i - start] / n) if centred else of(0), of(wide * wide * sums[1, i - start] / n)
                    for k in range(0, n, STEP):
                        stop_k = min(k + STEP, n)
                        after = (i + 4) * n
                        prefetch(x, after + k, after + stop_k)
                        prefetch(g, after + k, after + stop_k)
                        prefetch(dx, after + k, after + stop_k)
                        _slope(x[i][k:stop_k], w[k:stop_k], g[i][k:stop_k], m, drift, r, mean, b, dx[i][k:stop_k])


# ------------------------------------------------------------------------------------------------- the backward of the backward


@jit.summing
def _product(g, w, c):  # type: ignore[no-untyped-def]
    total = 0.0
    for j in range(g.size):
        total += np.float64(g[j] * w[j] * c[j])
    return total


@jit.compiled
def _twice_rows(x, stats, w, g, c, cw, cb, by_x, by_g, partials, centred, first, last):  # type: ignore[no-untyped-def]
    n, of = x.shape[1], x.dtype.type
    ones = np.ones(n, x.dtype)
    for block in range(first, last):
        if partials.size:
            partials[:, block] = 0
        for i in range(block * ROWS, min((block + 1) * ROWS, x.shape[0])):
            m, drift, r, wide = stats[0, i], stats[1, i], stats[2, i], np.float64(stats[2, i])
            line, gs, cs = x[i], g[i], c[i]
            c_, cx = _row_sums(line, ones, cs, m, drift)
            c_ = c_ / n if centred else 0.0
            ch = wide * cx / n
            mean, b = of(wide * c_), of(wide * wide * ch)  # s = r c - mean - b (x - m - drift)
            if by_g.size:
                out = by_g[i]
                for j in range(n):
                    d = deviation(line[j], m, drift)
                    out[j] = w[j] * (r * cs[j] - mean - d * b) + (d * r * cw[j] + cb[j])
            if by_x.size:
                d_, dx = _row_sums(line, w, gs, m, drift)
                e_, ex = _row_sums(line, cw, gs, m, drift)
                d_, e_ = (d_ / n, e_ / n) if centred else (0.0, 0.0)
                dh, eh, dc = wide * dx / n, wide * ex / n, _product(gs, w, cs) / n - d_ * c_
                a, k = -wide * wide * ch, -wide * wide * dh
                f = -wide * wide * (eh + wide * (dc - 3 * ch * dh))
                a, k, f, rest = of(a), of(k), of(f), of(-wide * e_ - a * d_ - k * c_)
                out = by_x[i]
                for j in range(n):
                    out[j] = gs[j] * (r * cw[j] + a * w[j]) + (k * cs[j] + (deviation(line[j], m, drift) * f + rest))
            if partials.size:
                total = partials[0, block]
                for j in range(n):
                    total[j] += gs[j] * (r * cs[j] - mean - deviation(line[j], m, drift) * b)


@jit.compiled
def _add_blocks(partials, sums):  # type: ignore[no-untyped-def]
    wide = channels.added(partials)
    for k in range(sums.shape[0]):
        for j in range(sums.shape[1]):
            sums[k, j] = wide[k, j]


# ------------------------------------------------------------------------------------------------- the calls


def standardize(x: Any, weight: Any = None, bias: Any = None, *, along: int, eps: float, centred: bool = True) -> tuple[Any, Any]:
    """See :func:`gpugrad.kernels.normalise._standardize`."""
    if not normalise.fits(x, along):
        return normalise._standardize(x, weight, bias, along=along, eps=eps, centred=centred)
    x = np.ascontiguousarray(x)
    y, stats = np.empty(x.shape, x.dtype), np.empty((4, x.shape[1]), x.dtype)
    w, b = _vector(weight, x, along, 1), _vector(bias, x, along, 0)
    if along == 1:
        channels.forward(x, w, b, y, stats, float(eps), centred)
    else:
        channels.shared(_forward_rows, len(x[0]), x.shape[2], x[0], w, b, y[0], stats, float(eps), centred)
    return y, stats


def backward(x: Any, stats: Any, weight: Any, g: Any, *, along: int, centred: bool = True, needs: Any = normalise.ALL) -> tuple[Any, ...]:
    """See :func:`gpugrad.kernels.normalise._backward`."""
    if not normalise.fits(x, along):
        return normalise._backward(x, stats, weight, g, along=along, centred=centred, needs=needs)
    x, g, stats = (np.ascontiguousarray(a, x.dtype) for a in (x, g, stats))
    w, dx = _vector(weight, x, along, 1), np.empty(x.shape, x.dtype) if needs[0] else None
    if along == 1:
        dw, db = channels.backward(x, stats, w, g, dx, centred)
    else:
        partials = _partials(x, 2)
        _by_blocks(_backward_rows, x[0], stats, w, g[0], _row_array(dx, x), partials, centred)
        dw, db = _added(partials, needs[1:])
    return tuple([a if need else None for a, need in zip((dx, dw, db), needs, strict=True)])


def twice(
    x: Any, stats: Any, weight: Any, g: Any, c: Any, c_w: Any, c_b: Any, *, along: int, centred: bool = True, needs: Any = normalise.ALL
) -> tuple[Any, ...]:
    """See :func:`gpugrad.kernels.normalise._twice`."""
    if not normalise.fits(x, along):
        return normalise._twice(x, stats, weight, g, c, c_w, c_b, along=along, centred=centred, needs=needs)
    x, g, c, stats = (np.ascontiguousarray(a, x.dtype) for a in (x, c if g is None else g, c, stats))
    w, c_w, c_b = _vector(weight, x, along, 1), _vector(c_w, x, along, 0), _vector(c_b, x, along, 0)
    by_x, by_g = (np.empty(x.shape, x.dtype) if need else None for need in (needs[0], needs[2]))
    if along == 1:
        by_w = channels.twice(x, stats, w, g, c, c_w, c_b, by_x, by_g, needs[1], centred)
    else:
        partials = _partials(x, 1 if needs[1] else 0)
        _by_blocks(_twice_rows, x[0], stats, w, g[0], c[0], c_w, c_b, _row_array(by_x, x), _row_array(by_g, x), partials, centred)
        (by_w,) = _added(partials, needs[1:2])
    return tuple([a if need else None for a, need in zip((by_x, by_w, by_g), needs, strict=True)])


def _vector(a: Any, x: Any, along: int, otherwise: float) -> Any:
    """A weight; what stands for it where there is none."""
    return np.full(x.shape[along], otherwise, x.dtype) if a is None else np.ascontiguousarray(a, x.dtype)


def _row_array(a: Any, x: Any) -> Any:
    """An array as its rows; an empty one where it is not asked for."""
    return np.empty((0, 0), x.dtype) if a is None else a[0]


def _partials(x: Any, count: int) -> Any:
    return np.empty((count, -(-x.shape[1] // ROWS) if count else 0, x.shape[2]), x.dtype)


def _added(partials: Any, needs: Any) -> list[Any]:
    """The sums of the blocks."""
    sums = np.empty((partials.shape[0], partials.shape[2]), partials.dtype)
    _add_blocks(partials, sums)
    return [sums[k] if need else None for k, need in enumerate(needs)]


def _by_blocks(run: Any, x: Any, *args: Any) -> None:
    """``run`` over the blocks of rows of x."""
    channels.shared(run, -(-len(x) // ROWS), ROWS * x.shape[1], x, *args)
