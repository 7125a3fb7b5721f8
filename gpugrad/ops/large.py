"""Large arrays in NumPy's functions: one thread of them takes twice as long as two need for what comes from memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy import ndarray

from gpugrad.parallel import split

LARGE = 1 << 20  # elements: 4 MB of float32


def on_threads(f: Any) -> Callable[[Any, Any], Any]:
    """An elementwise function of NumPy's, by several threads where a large array of floats meets another or a row. The values are the same: each element is computed by itself."""

    def g(a: Any, b: Any) -> Any:
        if type(a) is ndarray and a.size >= LARGE and type(b) is ndarray and a.dtype == b.dtype and a.dtype.char in "fd" and a.flags.c_contiguous:
            if a.shape == b.shape and b.flags.c_contiguous:
                return _in_pieces(f, a.reshape(-1), b.reshape(-1), a.shape)
            if a.ndim > 1 and b.shape == a.shape[-1:]:
                return _in_pieces(f, a.reshape(-1, b.size), b, a.shape)
        return f(a, b)

    g.__name__, g.__doc__ = f.__name__, f.__doc__
    return g


def _in_pieces(f: Any, a: Any, b: Any, shape: tuple[int, ...]) -> Any:
    y, errors = np.empty_like(a), np.geterr()

    def piece(first: int, last: int) -> None:
        with np.errstate(**errors):  # this thread's
            f(a[first:last], b[first:last] if b.shape == a.shape else b, out=y[first:last])

    split(piece, len(a), max(1, LARGE // 2 * len(a) // a.size))
    return y.reshape(shape)
