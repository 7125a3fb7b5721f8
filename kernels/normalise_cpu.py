"""Numba twins of :mod:`gpugrad.kernels.normalise`.

Sums are made in float64, whose rounding no mean of float32 numbers sees. Threads share out the rows, or the columns: a sum belongs to one of them, so its
bits do not depend on how many there are.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gpugrad import jit


@jit.summing
def _total(x, i):  # type: ignore[no-untyped-def]
    total = 0.0
    for j in range(x.shape[1]):
        total += x[i, j]
    return total


@jit.summing
def _product(x, y, i):  # type: ignore[no-untyped-def]
    total = 0.0
    for j in range(x.shape[1]):
        total += np.float64(x[i, j]) * np.float64(y[i, j])
    return total


@jit.inlined
def _deviation(x, mean, drift):  # type: ignore[no-untyped-def]
    """x - mean - drift, in this order. It does not take part in the liberties of the sums: in those the mean and the drift might be added up first."""
    return (x - mean) - drift


@jit.summing
def _deviations(x, i, mean):  # type: ignore[no-untyped-def]
    total = 0.0
    for j in range(x.shape[1]):
        total += _deviation(x[i, j], mean, 0.0)
    return total


@jit.summing
def _squares(x, i, mean, drift):  # type: ignore[no-untyped-def]
    total = 0.0
    for j in range(x.shape[1]):
        c = _deviation(x[i, j], mean, drift)
        total += c * c
    return total


@jit.compiled
def _rows(x, h, v, m, eps, start, stop):  # type: ignore[no-untyped-def]
    n = x.shape[1]
    for i in range(start, stop):
        mean = drift = 0.0
        if m.size:
            mean = _total(x, i) / n
            drift = _deviations(x, i, mean) / n
            m[i] = mean + drift
        var = _squares(x, i, mean, drift) / n
        v[i] = var
        r = 1 / np.sqrt(var + eps)
        for j in range(n):
            h[i, j] = _deviation(x[i, j], mean, drift) * r


@jit.compiled
def _slope_rows(d, h, r, y, centred, start, stop):  # type: ignore[no-untyped-def]
    n = d.shape[1]
    for i in range(start, stop):
        mean = d.dtype.type(_total(d, i) / n if centred else 0.0)
        product, scale = d.dtype.type(_product(h, d, i) / n), r[i]
        for j in range(n):
            y[i, j] = scale * (d[i, j] - mean - h[i, j] * product)


# Columns are summed as their rows come by, four rows together, because the sums are then loaded and stored a quarter as often.


@jit.inlined
def _column_totals(x, total, start, stop):  # type: ignore[no-untyped-def]
    n = x.shape[0]
    fours = n - n % 4
    for i in range(0, fours, 4):
        for j in range(start, stop):
            total[j] += (np.float64(x[i, j]) + np.float64(x[i + 1, j])) + (np.float64(x[i + 2, j]) + np.float64(x[i + 3, j]))
    for i in range(fours, n):
        for j in range(start, stop):
            total[j] += x[i, j]


@jit.inlined
def _column_products(x, y, total, start, stop):  # type: ignore[no-untyped-def]
    n = x.shape[0]
    fours = n - n % 4
    for i in range(0, fours, 4):
        for j in range(start, stop):
            a = np.float64(x[i, j]) * np.float64(y[i, j]) + np.float64(x[i + 1, j]) * np.float64(y[i + 1, j])
            b = np.float64(x[i + 2, j]) * np.float64(y[i + 2, j]) + np.float64(x[i + 3, j]) * np.float64(y[i + 3, j])
            total[j] += a + b
    for i in range(fours, n):
        for j in range(start, stop):
            total[j] += np.float64(x[i, j]) * np.float64(y[i, j])


@jit.inlined
def _column_squares(x, mean, drift, squares, start, stop):  # type: ignore[no-untyped-def]
    n = x.shape[0]
    fours = n - n % 4
    for i in range(0, fours, 4):
        for j in range(start, stop):
            a, b, c, d = x[i, j] - mean[j], x[i + 1, j] - mean[j], x[i + 2, j] - mean[j], x[i + 3, j] - mean[j]
            drift[j] += (a + b) + (c + d)
            squares[j] += (a * a + b * b) + (c * c + d * d)
    for i in range(fours, n):
        for j in range(start, stop):
            c = x[i, j] - mean[j]
            drift[j] += c
            squares[j] += c * c


@jit.compiled
def _columns(x, h, v, m, eps, sums, start, stop):  # type: ignore[no-untyped-def]
    n = x.shape[0]
    mean, drift, scale = sums[0], sums[1], sums[2]
    if m.size:
        _column_totals(x, mean, start, stop)
        for j in range(start, stop):
            mean[j] /= n
    _column_squares(x, mean, drift, scale, start, stop)
    for j in range(start, stop):
        drift[j] = drift[j] / n if m.size else 0.0
        var = scale[j] / n - drift[j] * drift[j]
        if m.size:
            m[j] = mean[j] + drift[j]
        v[j] = var
        scale[j] = 1 / np.sqrt(var + eps)
    for i in range(n):
        for j in range(start, stop):
            h[i, j] = _deviation(x[i, j], mean[j], drift[j]) * scale[j]


@jit.compiled
def _slope_columns(d, h, r, y, centred, sums, start, stop):  # type: ignore[no-untyped-def]
    n = d.shape[0]
    if centred:
        _column_totals(d, sums[0], start, stop)
    _column_products(h, d, sums[1], start, stop)
    means, products = np.empty(d.shape[1], d.dtype), np.empty(d.shape[1], d.dtype)
    for j in range(start, stop):
        means[j], products[j] = sums[0, j] / n, sums[1, j] / n
    for i in range(n):
        for j in range(start, stop):
            y[i, j] = r[j] * (d[i, j] - means[j] - h[i, j] * products[j])


def standardize(x: Any, *, axis: int, eps: float, centred: bool = True) -> tuple[Any, Any, Any]:
    """See gpugrad.kernels.normalise."""
    x = np.ascontiguousarray(x)
    h, v = np.empty(x.shape, x.dtype), np.zeros(x.shape[1 - axis], x.dtype)
    m = np.zeros(v.size if centred else 0, x.dtype)
    if axis == 1:
        _shared(_rows, axis, x, h, v, m, float(eps))
    else:
        _shared(_columns, axis, x, h, v, m, float(eps), np.zeros((3, v.size)))
    return h, v, m if centred else None


def slope(d: Any, h: Any, r: Any, *, axis: int, centred: bool = True) -> Any:
    """See gpugrad.kernels.normalise."""
    d = np.ascontiguousarray(d)
    y = np.empty(d.shape, d.dtype)
    h, r = np.ascontiguousarray(h, d.dtype), np.ascontiguousarray(r, d.dtype)
    if axis == 1:
        _shared(_slope_rows, axis, d, h, r, y, centred)
    else:
        _shared(_slope_columns, axis, d, h, r, y, centred, np.zeros((2, r.size)))
    return y


def _shared(run: Any, axis: int, x: Any, *args: Any) -> None:
    """``run`` over the rows or columns of x, on several threads where there are enough elements.

    They are counted by unsigned integers, for which Numba need not ask whether they are negative and count from the end: only then do the loops vectorise.
    """
    if not x.size:
        return
    count, of = x.shape[1 - axis], np.uint64
    if x.size < 2 * jit.LEAST:
        run(x, *args, of(0), of(count))
    else:
        jit.split(lambda first, last: run(x, *args, of(first), of(last)), count, -(-jit.LEAST // x.shape[axis]))
