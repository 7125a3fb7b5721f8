"""Numba twins of :mod:`gpugrad.kernels.normalise` where each channel has one weight, as in batch norm: of columns, (rows, channels), and of cubes, (outer, channels, inner).

There are three steps: the sums of the channels, from them a few factors for each channel, in float64, and the arrays that are written, in every case sums of x - m, g and c times such
factors. In the first and the last memory is read in the order in which it lies, whatever the shape: columns are summed over at most 64 blocks of rows, four rows together, because the sums are
then loaded and stored a quarter as often; cubes are summed line by line, a line being what lies side by side of one channel; and the sums of blocks and lines are added up in float64. The
last step begins at the end, which the first one has left in the cache, and asks for the next row while it computes.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gpugrad import jit
from gpugrad.kernels.prefetch_cpu import STEP, prefetch

BLOCKS, ROWS = 64, 64  # most blocks of rows, least rows of a block


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


@jit.inlined
def moments_of_row(x, stats, c, eps, centred):  # type: ignore[no-untyped-def]
    shift = x[0] if centred else x.dtype.type(0)
    total, squares = line_moments(x, shift)
    set_moments(stats, c, shift, total, squares, x.size, eps, centred)


# ------------------------------------------------------------------------------------------------- sums of columns, over blocks of rows


@jit.inlined
def _fetch_four(a, i):  # type: ignore[no-untyped-def]
    """The four rows that come next: of so many streams at once the processor fetches little ahead by itself."""
    n = a.shape[1]
    if n >= STEP:
        prefetch(a, i * n, (i + 4) * n)


@jit.inlined
def _add_moments(x, shift, total, squares, i, stop):  # type: ignore[no-untyped-def]
    while i + 4 <= stop:
        _fetch_four(x, i + 4)
        x0, x1, x2, x3 = x[i], x[i + 1], x[i + 2], x[i + 3]
        for j in range(shift.size):
            s = shift[j]
            a, b, c, d = np.float64(x0[j] - s), np.float64(x1[j] - s), np.float64(x2[j] - s), np.float64(x3[j] - s)
            total[j] += (a + b) + (c + d)
            squares[j] += (a * a + b * b) + (c * c + d * d)
        i += 4
    while i < stop:
        for j in range(shift.size):
            a = np.float64(x[i, j] - shift[j])
            total[j] += a
            squares[j] += a * a
        i += 1


@jit.inlined
def _add_sums(x, g, m, drift, total, products, i, stop):  # type: ignore[no-untyped-def]
    """Of g and g (x - m - drift), four rows or what is left."""
    if i + 4 <= stop:
        x0, x1, x2, x3, g0, g1, g2, g3 = x[i], x[i + 1], x[i + 2], x[i + 3], g[i], g[i + 1], g[i + 2], g[i + 3]
        for j in range(m.size):
            a = g0[j] * deviation(x0[j], m[j], drift[j]) + g1[j] * deviation(x1[j], m[j], drift[j])
            b = g2[j] * deviation(x2[j], m[j], drift[j]) + g3[j] * deviation(x3[j], m[j], drift[j])
            total[j] += (g0[j] + g1[j]) + (g2[j] + g3[j])
            products[j] += a + b
        return
    while i < stop:
        for j in range(m.size):
            total[j] += g[i, j]
            products[j] += g[i, j] * deviation(x[i, j], m[j], drift[j])
        i += 1


@jit.inlined
def _add_products(g, c, products, i, stop):  # type: ignore[no-untyped-def]
    if i + 4 <= stop:
        g0, g1, g2, g3, c0, c1, c2, c3 = g[i], g[i + 1], g[i + 2], g[i + 3], c[i], c[i + 1], c[i + 2], c[i + 3]
        for j in range(products.size):
            products[j] += (g0[j] * c0[j] + g1[j] * c1[j]) + (g2[j] * c2[j] + g3[j] * c3[j])
        return
    while i < stop:
        for j in range(products.size):
            products[j] += g[i, j] * c[i, j]
        i += 1


@jit.compiled
def _columns_moments(x, shift, partials, height, first, last):  # type: ignore[no-untyped-def]
    for block in range(first, last):
        partials[:, block] = 0
        _add_moments(x, shift, partials[0, block], partials[1, block], block * height, min((block + 1) * height, x.shape[0]))


@jit.compiled
def _columns_sums(x, stats, g, partials, height, first, last):  # type: ignore[no-untyped-def]
    for block in range(first, last):
        partials[:, block] = 0
        stop = min((block + 1) * height, x.shape[0])
        for i in range(block * height, stop, 4):
            _fetch_four(x, i + 4)
            _fetch_four(g, i + 4)
            _add_sums(x, g, stats[0], stats[1], partials[0, block], partials[1, block], i, stop)


@jit.compiled
def _columns_sums_twice(x, stats, g, c, partials, height, first, last):  # type: ignore[no-untyped-def]
    """In the order that twice_factors takes."""
    for block in range(first, last):
        partials[:, block] = 0
        stop = min((block + 1) * height, x.shape[0])
        for i in range(block * height, stop, 4):
            _add_sums(x, g, stats[0], stats[1], partials[0, block], partials[1, block], i, stop)
            _add_sums(x, c, stats[0], stats[1], partials[2, block], partials[3, block], i, stop)
            _add_products(g, c, partials[4, block], i, stop)


# ------------------------------------------------------------------------------------------------- sums of lines


@jit.summing
def line_moments(x, shift):  # type: ignore[no-untyped-def]
    total, squares = 0.0, 0.0
    for j in range(x.size):
        c = np.float64(deviation(x[j], shift, x.dtype.type(0)))
        total += c
        squares += c * c
    return total, squares


@jit.summing
def _line_sums(x, g, m, drift):  # type: ignore[no-untyped-def]
    total, products = 0.0, 0.0
    for j in range(x.size):
        total += g[j]
        products += np.float64(g[j] * deviation(x[j], m, drift))
    return total, products


@jit.summing
def _line_product(g, c):  # type: ignore[no-untyped-def]
    total = 0.0
    for j in range(g.size):
        total += np.float64(g[j] * c[j])
    return total


@jit.compiled
def _lines_moments(x, shift, partials, channels, first, last):  # type: ignore[no-untyped-def]
    for i in range(first, last):
        o, c = divmod(i, channels)
        partials[0, o, c], partials[1, o, c] = line_moments(x[i], shift[c])


@jit.compiled
def _lines_sums(x, stats, g, partials, channels, first, last):  # type: ignore[no-untyped-def]
    for i in range(first, last):
        o, c = divmod(i, channels)
        partials[0, o, c], partials[1, o, c] = _line_sums(x[i], g[i], stats[0, c], stats[1, c])


@jit.compiled
def _lines_sums_twice(x, stats, g, c, partials, channels, first, last):  # type: ignore[no-untyped-def]
    for i in range(first, last):
        o, k = divmod(i, channels)
        partials[0, o, k], partials[1, o, k] = _line_sums(x[i], g[i], stats[0, k], stats[1, k])
        partials[2, o, k], partials[3, o, k] = _line_sums(x[i], c[i], stats[0, k], stats[1, k])
        partials[4, o, k] = _line_product(g[i], c[i])


# ------------------------------------------------------------------------------------------------- factors


@jit.inlined
def added(partials):  # type: ignore[no-untyped-def]
    sums = np.zeros((partials.shape[0], partials.shape[2]))
    for k in range(partials.shape[0]):
        for i in range(partials.shape[1]):
            for j in range(partials.shape[2]):
                sums[k, j] += partials[k, i, j]
    return sums


@jit.compiled
def _forward_factors(partials, shift, w, b, stats, factors, n, eps, centred):  # type: ignore[no-untyped-def]
    sums = added(partials)
    for c in range(w.size):
        set_moments(stats, c, shift[c], sums[0, c], sums[1, c], n, eps, centred)
        scale = stats[2, c] * w[c]
        factors[0, c], factors[1, c] = scale, b[c] - stats[1, c] * scale


@jit.compiled
def _backward_factors(partials, stats, w, dw, db, factors, n, centred):  # type: ignore[no-untyped-def]
    sums = added(partials)
    for c in range(w.size):
        factors[0, c], factors[1, c], factors[2, c] = backward_factors(stats, c, w[c], n, centred, sums[0, c], sums[1, c])
        dw[c], db[c] = stats[2, c] * sums[1, c], sums[0, c]


@jit.compiled
def _push_factors(partials, stats, w, cw, cb, factors, n, centred):  # type: ignore[no-untyped-def]
    """From the last sums."""
    sums, k = added(partials), 2 if partials.shape[0] == 5 else 0
    for c in range(w.size):
        factors[0, c], factors[1, c], factors[2, c] = push_factors(stats, c, w[c], cw[c], cb[c], n, centred, sums[k, c], sums[k + 1, c])


@jit.compiled
def _twice_factors(partials, stats, w, cw, by_w, factors, n, centred):  # type: ignore[no-untyped-def]
    s = added(partials)
    for c in range(w.size):
        a, k, b, e, by_w[c] = twice_factors(stats, c, w[c], cw[c], n, centred, s[0, c], s[1, c], s[2, c], s[3, c], s[4, c])
        factors[0, c], factors[1, c], factors[2, c], factors[3, c] = a, k, b, e


# ------------------------------------------------------------------------------------------------- what is written: rows of columns, or lines


@jit.inlined
def _from_the_end(k, first, last):  # type: ignore[no-untyped-def]
    """The k-th of the numbers from first to last, of which 64 at a time are taken from the end."""
    return max(last - (k // 64 + 1) * 64, first) + k % 64


@jit.inlined
def _one(x, m, a, e, y):  # type: ignore[no-untyped-def]
    for j in range(y.size):
        y[j] = (x[j] - m[j]) * a[j] + e[j]


@jit.inlined
def _two(x, m, g, a, b, e, y):  # type: ignore[no-untyped-def]
    for j in range(y.size):
        y[j] = a[j] * g[j] + ((x[j] - m[j]) * b[j] + e[j])


@jit.compiled
def _columns_one(x, m, a, e, y, first, last):  # type: ignore[no-untyped-def]
    n = m.size
    for k in range(last - first):
        if n < STEP:
            i = _from_the_end(k, first, last)
            _one(x[i], m, a, e, y[i])
            continue
        i, after = _from_the_end(k, first, last), _from_the_end(k + 1, first, last) * n
        for j in range(0, n, STEP):
            end = min(j + STEP, n)
            prefetch(x, after + j, after + end)
            prefetch(y, after + j, after + end)
            _one(x[i][j:end], m[j:end], a[j:end], e[j:end], y[i][j:end])


@jit.compiled
def _columns_two(x, m, g, a, b, e, y, first, last):  # type: ignore[no-untyped-def]
    n = m.size
    for k in range(last - first):
        if n < STEP:
            i = _from_the_end(k, first, last)
            _two(x[i], m, g[i], a, b, e, y[i])
            continue
        i, after = _from_the_end(k, first, last), _from_the_end(k + 1, first, last) * n
        for j in range(0, n, STEP):
            end = min(j + STEP, n)
            prefetch(x, after + j, after + end)
            prefetch(g, after + j, after + end)
            prefetch(y, after + j, after + end)
            _two(x[i][j:end], m[j:end], g[i][j:end], a[j:end], b[j:end], e[j:end], y[i][j:end])


@jit.compiled
def _columns_three(x, m, g, c, a, f, b, e, y, first, last):  # type: ignore[no-untyped-def]
    for k in range(last - first):
        i = _from_the_end(k, first, last)
        line, gs, cs, out = x[i], g[i], c[i], y[i]
        for j in range(m.size):
            out[j] = a[j] * gs[j] + (f[j] * cs[j] + ((line[j] - m[j]) * b[j] + e[j]))


@jit.compiled
def _lines_one(x, m, a, e, y, first, last):  # type: ignore[no-untyped-def]
    for k in range(last - first):
        i = _from_the_end(k, first, last)
        c, line, out = i % m.size, x[i], y[i]
        mean, p, q = m[c], a[c], e[c]
        for j in range(line.size):
            out[j] = (line[j] - mean) * p + q


@jit.compiled
def _lines_two(x, m, g, a, b, e, y, first, last):  # type: ignore[no-untyped-def]
    for k in range(last - first):
        i = _from_the_end(k, first, last)
        c, line, gs, out = i % m.size, x[i], g[i], y[i]
        mean, p, q, r = m[c], a[c], b[c], e[c]
        for j in range(line.size):
            out[j] = p * gs[j] + ((line[j] - mean) * q + r)


@jit.compiled
def _lines_three(x, m, g, c, a, f, b, e, y, first, last):  # type: ignore[no-untyped-def]
    for k in range(last - first):
        i = _from_the_end(k, first, last)
        n, line, gs, cs, out = i % m.size, x[i], g[i], c[i], y[i]
        mean, p, s, q, r = m[n], a[n], f[n], b[n], e[n]
        for j in range(line.size):
            out[j] = p * gs[j] + (s * cs[j] + ((line[j] - mean) * q + r))


# ------------------------------------------------------------------------------------------------- the calls


class _Steps:
    """The steps of columns, where inner is 1, or of lines."""

    def __init__(self, x: Any) -> None:
        outer, channels, inner = x.shape
        self.columns, self.n, self.channels = inner == 1, outer * inner, channels
        self.shape = (outer, channels) if self.columns else (outer * channels, inner)  # of all arrays in the loops
        self.unit = max(ROWS, -(-outer // BLOCKS)) if self.columns else channels

    def sums(self, count: int, of_columns: Any, of_lines: Any, *args: Any) -> Any:
        """(count, blocks or outer, channels) in float64."""
        rows = self.shape[0]
        blocks = -(-rows // self.unit)
        partials = np.empty((count, blocks, self.channels))
        if self.columns:
            shared(of_columns, blocks, self.unit * self.shape[1], *args, partials, self.unit)
        else:
            shared(of_lines, rows, self.shape[1], *args, partials, self.unit)
        return partials

    def write(self, of_columns: Any, of_lines: Any, *args: Any) -> None:
        shared(of_columns if self.columns else of_lines, *self.shape, *args)


def shared(run: Any, count: int, size: int, *args: Any) -> None:
    """``run`` over so many things of so many elements, on several threads where there are enough."""
    if count * size < 2 * jit.LEAST:
        run(*args, 0, count)
    else:
        jit.split(lambda first, last: run(*args, first, last), count, -(-jit.LEAST // size))


def forward(x: Any, w: Any, b: Any, y: Any, stats: Any, eps: float, centred: bool) -> None:
    """y and the moments, of arrays that lie in C order."""
    steps, shift = _Steps(x), x[0, :, 0].copy() if centred else np.zeros(x.shape[1], x.dtype)
    x, y, factors = x.reshape(steps.shape), y.reshape(steps.shape), np.empty((2, w.size), x.dtype)
    partials = steps.sums(2, _columns_moments, _lines_moments, x, shift)
    _forward_factors(partials, shift, w, b, stats, factors, steps.n, eps, centred)
    steps.write(_columns_one, _lines_one, x, stats[0], *factors, y)


def backward(x: Any, stats: Any, w: Any, g: Any, dx: Any, centred: bool) -> tuple[Any, Any]:
    """dw and db; dx, where it is not None."""
    steps = _Steps(x)
    x, g = x.reshape(steps.shape), g.reshape(steps.shape)
    partials, factors = steps.sums(2, _columns_sums, _lines_sums, x, stats, g), np.empty((3, w.size), x.dtype)
    dw, db = np.empty((2, w.size), x.dtype)
    _backward_factors(partials, stats, w, dw, db, factors, steps.n, centred)
    if dx is not None:
        steps.write(_columns_two, _lines_two, x, stats[0], g, *factors, dx.reshape(steps.shape))
    return dw, db


def twice(x: Any, stats: Any, w: Any, g: Any, c: Any, cw: Any, cb: Any, by_x: Any, by_g: Any, with_w: bool, centred: bool) -> Any:
    """The derivative by w; by_x and by_g, where they are not None."""
    steps, by_w = _Steps(x), np.empty(w.size, x.dtype)
    x, g, c = x.reshape(steps.shape), g.reshape(steps.shape), c.reshape(steps.shape)
    if by_x is None and not with_w:
        partials = steps.sums(2, _columns_sums, _lines_sums, x, stats, c)
    else:
        partials = steps.sums(5, _columns_sums_twice, _lines_sums_twice, x, stats, g, c)
        factors = np.empty((4, w.size), x.dtype)
        _twice_factors(partials, stats, w, cw, by_w, factors, steps.n, centred)
        if by_x is not None:
            steps.write(_columns_three, _lines_three, x, stats[0], g, c, *factors, by_x.reshape(steps.shape))
    if by_g is not None:
        factors = np.empty((3, w.size), x.dtype)
        _push_factors(partials, stats, w, cw, cb, factors, steps.n, centred)
        steps.write(_columns_two, _lines_two, x, stats[0], c, *factors, by_g.reshape(steps.shape))
    return by_w
