"""Numba twins of :mod:`gpugrad.kernels.normalise` where each channel has one weight, as in batch norm: of columns, (rows, channels), and of cubes, (outer, channels, inner).

Each is one pass that makes the sums of a channel and one that writes. What is written is in every case a sum of x - m, g and c with factors that belong to the channel,
which are computed in float64 between the passes. Columns are summed as their rows come by, four rows together, because the sums are then loaded and stored a quarter as often.
So many columns are taken at a time that their arrays are still in the last cache when they are read again. The sums of a channel belong to one thread.
"""

from __future__ import annotations

import numpy as np

from gpugrad import jit

TILE = 1 << 20  # elements of each array that are read before they are read again


@jit.inlined
def deviation(x, m, drift):  # type: ignore[no-untyped-def]
    """x - m - drift, in this order. It does not take part in the liberties of the sums: in those the mean and the drift might be added up first."""
    return (x - m) - drift


@jit.inlined
def set_moments(stats, c, shift, total, squares, n, eps, centred):  # type: ignore[no-untyped-def]
    """Mean, drift, r and v from the sums of the distances from shift and of their squares."""
    start = np.float64(shift)
    rest = total / n if centred else 0.0
    var = squares / n - rest * rest
    var = 0.0 if var < 0 else var
    stats[0, c] = start + rest
    stats[1, c] = (start - np.float64(stats[0, c])) + rest
    stats[2, c], stats[3, c] = 1 / np.sqrt(var + eps), var


@jit.inlined
def backward_factors(stats, c, w, n, centred, g_, gx):  # type: ignore[no-untyped-def]
    """Of dx = a g + b (x - m) + e, from the sums of g and of g (x - m - drift)."""
    drift, r = np.float64(stats[1, c]), np.float64(stats[2, c])
    a = r * w
    b = -a * r * r * (gx / n)
    return a, b, (-a * (g_ / n) if centred else 0.0) - drift * b


@jit.inlined
def push_factors(stats, c, w, cw, cb, n, centred, c_, cx):  # type: ignore[no-untyped-def]
    """Of the derivative by g, a c + b (x - m) + e."""
    a, b, e = backward_factors(stats, c, w, n, centred, c_, cx)
    b_w = np.float64(stats[2, c]) * cw
    return a, b + b_w, e + cb - np.float64(stats[1, c]) * b_w


@jit.inlined
def twice_factors(stats, c, w, cw, n, centred, g_, gx, c_, cx, gc):  # type: ignore[no-untyped-def]
    """Of the derivative by x, a g + k c + b (x - m) + e, and that by w."""
    drift, r = np.float64(stats[1, c]), np.float64(stats[2, c])
    g_, c_ = (g_ / n, c_ / n) if centred else (0.0, 0.0)
    gh, ch, gc = r * gx / n, r * cx / n, gc / n - g_ * c_
    a, k = r * cw - r * r * w * ch, -r * r * w * gh
    b = -r * r * (cw * gh + r * w * (gc - 3 * ch * gh))
    return a, k, b, -a * g_ - k * c_ - drift * b, n * r * (gc - ch * gh)


# ------------------------------------------------------------------------------------------------- columns: the sums of four rows or of one


@jit.inlined
def _columns_moments(x, shift, total, squares, low, high):  # type: ignore[no-untyped-def]
    i, n = np.uint64(0), np.uint64(x.shape[0])
    one, two, three, four = np.uint64(1), np.uint64(2), np.uint64(3), np.uint64(4)
    while i + four <= n:
        for j in range(low, high):
            s = shift[j]
            a, b, c, d = np.float64(x[i, j] - s), np.float64(x[i + one, j] - s), np.float64(x[i + two, j] - s), np.float64(x[i + three, j] - s)
            total[j] += (a + b) + (c + d)
            squares[j] += (a * a + b * b) + (c * c + d * d)
        i += four
    while i < n:
        for j in range(low, high):
            a = np.float64(x[i, j] - shift[j])
            total[j] += a
            squares[j] += a * a
        i += one


@jit.inlined
def _columns_sums(x, g, stats, total, products, low, high):  # type: ignore[no-untyped-def]
    i, n = np.uint64(0), np.uint64(x.shape[0])
    one, two, three, four = np.uint64(1), np.uint64(2), np.uint64(3), np.uint64(4)
    while i + four <= n:
        for j in range(low, high):
            m, drift = stats[0, j], stats[1, j]
            a, b = g[i, j] * deviation(x[i, j], m, drift), g[i + one, j] * deviation(x[i + one, j], m, drift)
            c, d = g[i + two, j] * deviation(x[i + two, j], m, drift), g[i + three, j] * deviation(x[i + three, j], m, drift)
            total[j] += (g[i, j] + g[i + one, j]) + (g[i + two, j] + g[i + three, j])
            products[j] += (a + b) + (c + d)
        i += four
    while i < n:
        for j in range(low, high):
            total[j] += g[i, j]
            products[j] += g[i, j] * deviation(x[i, j], stats[0, j], stats[1, j])
        i += one


@jit.inlined
def _columns_products(g, c, products, low, high):  # type: ignore[no-untyped-def]
    i, n = np.uint64(0), np.uint64(g.shape[0])
    one, two, three, four = np.uint64(1), np.uint64(2), np.uint64(3), np.uint64(4)
    while i + four <= n:
        for j in range(low, high):
            a, b = g[i, j] * c[i, j] + g[i + one, j] * c[i + one, j], g[i + two, j] * c[i + two, j] + g[i + three, j] * c[i + three, j]
            products[j] += a + b
        i += four
    while i < n:
        for j in range(low, high):
            products[j] += g[i, j] * c[i, j]
        i += one


@jit.inlined
def _columns_two(x, g, y, stats, a, b, e, low, high):  # type: ignore[no-untyped-def]
    for i in range(np.uint64(x.shape[0])):
        for j in range(low, high):
            y[i, j] = a[j] * g[i, j] + ((x[i, j] - stats[0, j]) * b[j] + e[j])


# ------------------------------------------------------------------------------------------------- columns


@jit.compiled
def forward_columns(x, shift, w, b, y, stats, eps, centred, start, stop):  # type: ignore[no-untyped-def]
    n, width = x.shape[0], np.uint64(max(64, TILE // x.shape[0]))
    sums, factors = np.zeros((2, x.shape[1])), np.empty((2, x.shape[1]), x.dtype)
    low = start
    while low < stop:
        high = min(low + width, stop)
        _columns_moments(x, shift, sums[0], sums[1], low, high)
        for j in range(low, high):
            set_moments(stats, j, shift[j], sums[0, j], sums[1, j], n, eps, centred)
            factors[0, j] = stats[2, j] * w[j]
            factors[1, j] = b[j] - stats[1, j] * factors[0, j]
        for i in range(np.uint64(n)):
            for j in range(low, high):
                y[i, j] = (x[i, j] - stats[0, j]) * factors[0, j] + factors[1, j]
        low = high


@jit.compiled
def backward_columns(x, stats, w, g, dx, sums, centred, start, stop):  # type: ignore[no-untyped-def]
    n, width = x.shape[0], np.uint64(max(64, TILE // x.shape[0]))
    factors = np.empty((3, x.shape[1]), x.dtype)
    low = start
    while low < stop:
        high = min(low + width, stop)
        _columns_sums(x, g, stats, sums[0], sums[1], low, high)
        if dx.size:
            for j in range(low, high):
                factors[0, j], factors[1, j], factors[2, j] = backward_factors(stats, j, w[j], n, centred, sums[0, j], sums[1, j])
            _columns_two(x, g, dx, stats, factors[0], factors[1], factors[2], low, high)
        low = high


@jit.compiled
def twice_columns(x, stats, w, g, c, cw, cb, by_x, by_w, by_g, sums, centred, start, stop):  # type: ignore[no-untyped-def]
    n, width = x.shape[0], np.uint64(max(64, TILE // x.shape[0]))
    factors = np.empty((7, x.shape[1]), x.dtype)
    low = start
    while low < stop:
        high = min(low + width, stop)
        _columns_sums(x, c, stats, sums[0], sums[1], low, high)
        if by_g.size:
            for j in range(low, high):
                factors[0, j], factors[1, j], factors[2, j] = push_factors(stats, j, w[j], cw[j], cb[j], n, centred, sums[0, j], sums[1, j])
            _columns_two(x, c, by_g, stats, factors[0], factors[1], factors[2], low, high)
        if by_x.size or by_w.size:
            _columns_sums(x, g, stats, sums[2], sums[3], low, high)
            _columns_products(g, c, sums[4], low, high)
            for j in range(low, high):
                a, k, b, e, s = twice_factors(stats, j, w[j], cw[j], n, centred, sums[2, j], sums[3, j], sums[0, j], sums[1, j], sums[4, j])
                factors[3, j], factors[4, j], factors[5, j], factors[6, j] = a, k, b, e
                if by_w.size:
                    by_w[j] = s
        if by_x.size:
            for i in range(np.uint64(n)):
                for j in range(low, high):
                    by_x[i, j] = factors[3, j] * g[i, j] + (factors[4, j] * c[i, j] + ((x[i, j] - stats[0, j]) * factors[5, j] + factors[6, j]))
        low = high


# ------------------------------------------------------------------------------------------------- cubes


@jit.summing
def line_moments(x, shift):  # type: ignore[no-untyped-def]
    total, squares = 0.0, 0.0
    for j in range(x.size):
        c = np.float64(deviation(x[j], shift, x.dtype.type(0)))
        total += c
        squares += c * c
    return total, squares


@jit.summing
def line_sums(x, g, m, drift):  # type: ignore[no-untyped-def]
    total, products = 0.0, 0.0
    for j in range(x.size):
        total += g[j]
        products += np.float64(g[j] * deviation(x[j], m, drift))
    return total, products


@jit.summing
def line_product(g, c):  # type: ignore[no-untyped-def]
    total = 0.0
    for j in range(g.size):
        total += np.float64(g[j] * c[j])
    return total


@jit.inlined
def _line_two(x, g, y, m, a, b, e):  # type: ignore[no-untyped-def]
    for j in range(x.size):
        y[j] = a * g[j] + ((x[j] - m) * b + e)


@jit.inlined
def _line_three(x, g, c, y, m, a, k, b, e):  # type: ignore[no-untyped-def]
    for j in range(x.size):
        y[j] = a * g[j] + (k * c[j] + ((x[j] - m) * b + e))


@jit.inlined
def moments_of_channel(x, stats, c, eps, centred):  # type: ignore[no-untyped-def]
    shift, total, squares = x[0, c, 0] if centred else x.dtype.type(0), 0.0, 0.0
    for o in range(x.shape[0]):
        a, q = line_moments(x[o, c], shift)
        total += a
        squares += q
    set_moments(stats, c, shift, total, squares, x.shape[0] * x.shape[2], eps, centred)


@jit.compiled
def forward_cube(x, w, b, y, stats, eps, centred, start, stop):  # type: ignore[no-untyped-def]
    for c in range(start, stop):
        moments_of_channel(x, stats, c, eps, centred)
        m, scale = stats[0, c], stats[2, c] * w[c]
        shift = b[c] - stats[1, c] * scale
        for o in range(x.shape[0]):
            line, out = x[o, c], y[o, c]
            for j in range(line.size):
                out[j] = (line[j] - m) * scale + shift


@jit.compiled
def backward_cube(x, stats, w, g, dx, sums, centred, start, stop):  # type: ignore[no-untyped-def]
    of = x.dtype.type
    for c in range(start, stop):
        total, products = 0.0, 0.0
        for o in range(x.shape[0]):
            t, p = line_sums(x[o, c], g[o, c], stats[0, c], stats[1, c])
            total += t
            products += p
        sums[0, c], sums[1, c] = total, products
        if dx.size:
            a, b, e = backward_factors(stats, c, w[c], x.shape[0] * x.shape[2], centred, total, products)
            for o in range(x.shape[0]):
                _line_two(x[o, c], g[o, c], dx[o, c], stats[0, c], of(a), of(b), of(e))


@jit.compiled
def twice_cube(x, stats, w, g, c, cw, cb, by_x, by_w, by_g, sums, centred, start, stop):  # type: ignore[no-untyped-def]
    of, n = x.dtype.type, x.shape[0] * x.shape[2]
    for k in range(start, stop):
        g_, gx, c_, cx, gc = 0.0, 0.0, 0.0, 0.0, 0.0
        for o in range(x.shape[0]):
            t, p = line_sums(x[o, k], c[o, k], stats[0, k], stats[1, k])
            c_ += t
            cx += p
            if by_x.size or by_w.size:
                t, p = line_sums(x[o, k], g[o, k], stats[0, k], stats[1, k])
                g_ += t
                gx += p
                gc += line_product(g[o, k], c[o, k])
        if by_g.size:
            a, b, e = push_factors(stats, k, w[k], cw[k], cb[k], n, centred, c_, cx)
            for o in range(x.shape[0]):
                _line_two(x[o, k], c[o, k], by_g[o, k], stats[0, k], of(a), of(b), of(e))
        a, q, b, e, s = twice_factors(stats, k, w[k], cw[k], n, centred, g_, gx, c_, cx, gc)
        if by_w.size:
            by_w[k] = s
        if by_x.size:
            for o in range(x.shape[0]):
                _line_three(x[o, k], g[o, k], c[o, k], by_x[o, k], stats[0, k], of(a), of(q), of(b), of(e))
