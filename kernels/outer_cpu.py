"""The Numba twin of :mod:`gpugrad.kernels.outer`: rows of y, several threads."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpugrad import jit

_PIECE = 1 << 16  # elements of y


@jit.compiled
def _rows(a, b, y, start, stop):  # type: ignore[no-untyped-def]
    """Those from start to stop, counted through all examples."""
    m = a.shape[1]
    for row in range(start, stop):
        i, j = row // m, row % m
        factor = a[i, j]
        for k in range(b.shape[1]):
            y[row, k] = factor * b[i, k]


def outer(a: Any, b: Any) -> Any:
    """See gpugrad.kernels.outer."""
    (n, m), k = a.shape, b.shape[1]
    a, b = np.ascontiguousarray(a), np.ascontiguousarray(b)
    y = np.empty((n * m, k), a.dtype)
    jit.split(lambda start, stop: _rows(a, b, y, start, stop), n * m, max(1, _PIECE // max(k, 1)))
    return y.reshape(n, m, k)
