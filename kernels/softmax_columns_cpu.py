"""Numba twins of :mod:`gpugrad.kernels.softmax` for lines that are not rows: along the middle axis of (outer, n, inner), read in place.

A strip of neighbouring lines goes through the loops, each over n times its width, that :mod:`gpugrad.kernels.softmax_cpu` has for rows: vectors hold
neighbours, and what belongs to a line (its maximum, its sums in float64) lies in an array of the strip's width. A strip is as wide as the second cache allows.

Strips are counted by unsigned integers, for which Numba need not ask whether they are negative and count from the end: only then do the loops vectorise.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gpugrad import jit
from gpugrad.kernels.elementary_cpu import exp, log1p
from gpugrad.kernels.rows_cpu import BITS, PIECE, in_order

_STRIP, _NARROWEST, _WIDEST = 1 << 19, 256, 1024  # elements, and columns
_HALF, _LOG_HALF = 0.5, float(np.log(0.5))


# ------------------------------------------------------------------------------------------------- forward


@jit.inlined
def _maxima(bits, o, first, last, k):  # type: ignore[no-untyped-def]
    """Into k the bits of the largest of each line."""
    for c in range(last - first):
        k[c] = in_order(bits[o, 0, first + c], bits)
    for j in range(1, bits.shape[1]):
        for c in range(last - first):
            k[c] = max(k[c], in_order(bits[o, j, first + c], bits))
    for c in range(last - first):
        k[c] = in_order(k[c], bits)


@jit.compiled
def _softmax_strips(x, bits, scale, y, width, start, stop):  # type: ignore[no-untyped-def]
    n, inner = x.shape[1], np.uint64(x.shape[2])
    strips = (inner + width - np.uint64(1)) // width
    k, totals, f = np.empty(width, bits.dtype), np.empty(width), np.empty(width, x.dtype)
    m = k.view(x.dtype)
    for strip in range(start, stop):
        o, first = strip // strips, (strip % strips) * width
        last = min(first + width, inner)
        _maxima(bits, o, first, last, k)
        totals[:] = 0
        for j in range(n):
            for c in range(last - first):
                a = x[o, j, first + c]
                e = exp(x.dtype.type(0) if a == m[c] else a - m[c])
                y[o, j, first + c] = e
                totals[c] += e
        for c in range(last - first):
            s = np.float64(scale[o, first + c]) if scale.size else 1.0
            f[c] = s * (0 * totals[c]) if m[c] == -np.inf else s / totals[c]
        for j in range(n):
            for c in range(last - first):
                y[o, j, first + c] *= f[c]


@jit.compiled
def _log_strips(x, bits, out, y, width, start, stop):  # type: ignore[no-untyped-def]
    """logsumexp of each line in out, and log_softmax in y if it has any elements."""
    n, inner = x.shape[1], np.uint64(x.shape[2])
    strips = (inner + width - np.uint64(1)) // width
    k, rest, ties, less = np.empty(width, bits.dtype), np.empty(width), np.empty(width), np.empty(width, x.dtype)
    m = k.view(x.dtype)
    for strip in range(start, stop):
        o, first = strip // strips, (strip % strips) * width
        last = min(first + width, inner)
        _maxima(bits, o, first, last, k)
        rest[:] = 0
        ties[:] = -1
        for j in range(n):
            for c in range(last - first):
                a = x[o, j, first + c]
                e = exp(a - m[c])
                rest[c] += 0.0 if a == m[c] else np.float64(e)
                ties[c] += 1.0 if a == m[c] else 0.0
        for c in range(last - first):
            rest[c] = log1p(rest[c] + ties[c])
        for c in range(last - first):
            nothing = m[c] == -np.inf
            less[c] = rest[c] + np.inf if nothing else rest[c]
            out[o, first + c] = m[c] + (0 * rest[c] if nothing else rest[c])
        if y.size:
            for j in range(n):
                for c in range(last - first):
                    a = x[o, j, first + c]
                    y[o, j, first + c] = (x.dtype.type(0) if a == m[c] else a - m[c]) - less[c]


def softmax(x: Any, scale: Any) -> Any:
    x = np.ascontiguousarray(x)
    y = np.empty(x.shape, x.dtype)
    scale = y[0, :0] if scale is None else np.ascontiguousarray(scale, x.dtype)
    _shared(_softmax_strips, x, x.view(BITS[x.dtype.char]), scale, y)
    return y


def logarithms(x: Any, log_softmax: bool) -> Any:
    """log_softmax or logsumexp."""
    x = np.ascontiguousarray(x)
    y, out = np.empty(x.shape if log_softmax else (0, 0, 0), x.dtype), np.empty((x.shape[0], x.shape[2]), x.dtype)
    _shared(_log_strips, x, x.view(BITS[x.dtype.char]), out, y)
    return y if log_softmax else out


# ------------------------------------------------------------------------------------------------- backward


@jit.inlined
def _products(y, g, o, first, last, a, bound, sums, above):  # type: ignore[no-untyped-def]
    """Into sums those of y (g - a) of each line, and whether any y is above the bound. (Arrays that are written count: LLVM compares their addresses with all
    others, and does not vectorise loops with more than eight comparisons.)"""
    sums[:] = 0
    above[:] = 0
    for j in range(y.shape[1]):
        for c in range(last - first):
            p = y[o, j, first + c]
            sums[c] += np.float64(p) * np.float64(g[o, j, first + c] - a[c])
            above[c] += 1 if p > bound else 0
    found = False
    for c in range(last - first):
        found = found or above[c] > 0
    return found


@jit.inlined
def _any_above(y, o, first, last, bound, above):  # type: ignore[no-untyped-def]
    above[:] = 0
    for j in range(y.shape[1]):
        for c in range(last - first):
            above[c] += 1 if y[o, j, first + c] > bound else 0
    found = False
    for c in range(last - first):
        found = found or above[c] > 0
    return found


@jit.inlined
def _dominant(y, o, first, last, bound, top):  # type: ignore[no-untyped-def]
    """Into top where in each line the first y above the bound is, or -1."""
    n = y.shape[1]
    top[:] = -1
    for back in range(n):
        j = n - 1 - back
        for c in range(last - first):
            top[c] = j if y[o, j, first + c] > bound else top[c]


@jit.inlined
def _picked(g, o, first, last, top, a):  # type: ignore[no-untyped-def]
    """Into a the element of g where top says, or 0."""
    for c in range(last - first):
        a[c] = g[o, top[c], first + c] if top[c] >= 0 else 0


@jit.inlined
def _balance(d, o, first, last, top, sums):  # type: ignore[no-untyped-def]
    """Where there is a dominant element, make d there the negative sum of the others."""
    for c in range(last - first):
        if top[c] >= 0:
            d[o, top[c], first + c] = 0
    sums[:] = 0
    for j in range(d.shape[1]):
        for c in range(last - first):
            sums[c] -= d[o, j, first + c]
    for c in range(last - first):
        if top[c] >= 0:
            d[o, top[c], first + c] = sums[c]


@jit.compiled
def _softmax_slope_strips(g, y, d, width, start, stop):  # type: ignore[no-untyped-def]
    inner = np.uint64(y.shape[2])
    strips = (inner + width - np.uint64(1)) // width
    top, sums, a, s = np.empty(width, np.int64), np.empty(width), np.empty(width, g.dtype), np.empty(width, g.dtype)
    for strip in range(start, stop):
        o, first = strip // strips, (strip % strips) * width
        last = min(first + width, inner)
        a[:] = 0
        found = _products(y, g, o, first, last, a, _HALF, sums, s)
        if found:
            _dominant(y, o, first, last, _HALF, top)
            _picked(g, o, first, last, top, a)
            _products(y, g, o, first, last, a, _HALF, sums, s)
        s[:] = sums
        for j in range(y.shape[1]):
            for c in range(last - first):
                d[o, j, first + c] = y[o, j, first + c] * ((g[o, j, first + c] - a[c]) - s[c])
        if found:
            _balance(d, o, first, last, top, sums)


@jit.inlined
def _totals(g, o, first, last, sums):  # type: ignore[no-untyped-def]
    sums[:] = 0
    for j in range(g.shape[1]):
        for c in range(last - first):
            sums[c] += g[o, j, first + c]


@jit.compiled
def _log_softmax_slope_strips(g, y, d, width, start, stop):  # type: ignore[no-untyped-def]
    inner = np.uint64(y.shape[2])
    strips = (inner + width - np.uint64(1)) // width
    top, sums, s = np.empty(width, np.int64), np.empty(width), np.empty(width, g.dtype)
    for strip in range(start, stop):
        o, first = strip // strips, (strip % strips) * width
        last = min(first + width, inner)
        found = _any_above(y, o, first, last, _LOG_HALF, s)
        _totals(g, o, first, last, sums)
        s[:] = sums
        for j in range(y.shape[1]):
            for c in range(last - first):
                d[o, j, first + c] = g[o, j, first + c] - exp(y[o, j, first + c]) * s[c]
        if found:
            _dominant(y, o, first, last, _LOG_HALF, top)
            _balance(d, o, first, last, top, sums)


def slope(g: Any, y: Any, log: bool) -> Any:
    """softmax_slope or log_softmax_slope."""
    g, y = np.ascontiguousarray(g), np.ascontiguousarray(y)
    d = np.empty(g.shape, g.dtype)
    _shared(_log_softmax_slope_strips if log else _softmax_slope_strips, g, y, d)
    return d


# ------------------------------------------------------------------------------------------------- double backward


@jit.compiled
def _softmax_curvature_strips(c, g, y, of_g, of_y, width, start, stop):  # type: ignore[no-untyped-def]
    inner = np.uint64(y.shape[2])
    strips = (inner + width - np.uint64(1)) // width
    top, sums = np.empty(width, np.int64), np.empty(width)
    a, b, s, t = np.empty(width, g.dtype), np.empty(width, g.dtype), np.empty(width, g.dtype), np.empty(width, g.dtype)
    for strip in range(start, stop):
        o, first = strip // strips, (strip % strips) * width
        last = min(first + width, inner)
        a[:] = 0
        b[:] = 0
        found = _any_above(y, o, first, last, _HALF, t)
        if found:
            _dominant(y, o, first, last, _HALF, top)
            _picked(g, o, first, last, top, a)
            _picked(c, o, first, last, top, b)
        _products(y, g, o, first, last, a, _HALF, sums, t)
        s[:] = sums
        _products(y, c, o, first, last, b, _HALF, sums, t)
        t[:] = sums
        for j in range(y.shape[1]):
            for i in range(last - first):
                of_g[o, j, first + i] = y[o, j, first + i] * ((c[o, j, first + i] - b[i]) - t[i])
            for i in range(last - first):
                u, w = g[o, j, first + i] - a[i], c[o, j, first + i] - b[i]
                of_y[o, j, first + i] = w * (u - s[i]) - u * t[i]
        if found:
            _balance(of_g, o, first, last, top, sums)


@jit.compiled
def _log_softmax_curvature_strips(c, g, y, of_g, of_y, width, start, stop):  # type: ignore[no-untyped-def]
    """of_y only if it has elements."""
    inner = np.uint64(y.shape[2])
    strips = (inner + width - np.uint64(1)) // width
    top, sums = np.empty(width, np.int64), np.empty(width)
    b, s, t = np.empty(width, c.dtype), np.empty(width, c.dtype), np.empty(width, c.dtype)
    for strip in range(start, stop):
        o, first = strip // strips, (strip % strips) * width
        last = min(first + width, inner)
        b[:] = 0
        if _any_above(y, o, first, last, _LOG_HALF, t):
            _dominant(y, o, first, last, _LOG_HALF, top)
            _picked(c, o, first, last, top, b)
        if of_y.size:
            _totals(g, o, first, last, sums)
            s[:] = sums
        sums[:] = 0
        for j in range(y.shape[1]):
            for i in range(last - first):
                sums[i] += exp(y[o, j, first + i]) * (c[o, j, first + i] - b[i])
        t[:] = sums
        for j in range(y.shape[1]):
            for i in range(last - first):
                of_g[o, j, first + i] = (c[o, j, first + i] - b[i]) - t[i]
            if of_y.size:
                for i in range(last - first):
                    of_y[o, j, first + i] = -(exp(y[o, j, first + i]) * (c[o, j, first + i] - b[i])) * s[i]


def curvature(c: Any, g: Any, y: Any, log: bool) -> Any:
    """softmax_curvature or log_softmax_curvature."""
    c, y = np.ascontiguousarray(c), np.ascontiguousarray(y)
    nothing = np.empty((0, 0, 0), c.dtype)
    of_g, of_y = np.empty(c.shape, c.dtype), nothing if g is None else np.empty(c.shape, c.dtype)
    _shared(_log_softmax_curvature_strips if log else _softmax_curvature_strips, c, nothing if g is None else np.ascontiguousarray(g), y, of_g, of_y)
    return of_g, None if g is None else of_y


def _shared(run: Any, x: Any, *args: Any) -> None:
    """``run`` over the strips of x, on several threads where there are enough elements."""
    outer, n, inner = x.shape
    width, of = min(inner, max(_NARROWEST, min(_WIDEST, _STRIP // n))), np.uint64
    strips = outer * -(-inner // width)
    if x.size < 2 * PIECE:
        run(x, *args, of(width), of(0), of(strips))
    else:
        jit.split(lambda start, stop: run(x, *args, of(width), of(start), of(stop)), strips, -(-PIECE // (n * width)))
