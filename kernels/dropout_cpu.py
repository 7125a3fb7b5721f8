"""The Numba twin of :mod:`gpugrad.kernels.dropout`: NumPy's generator over again, and the product while its words are in registers."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpugrad import jit
from gpugrad.kernels.dropout import blocks, threshold

_U = np.uint64
LOW, HALF = _U(0xFFFFFFFF), _U(32)
M0, M1 = _U(0xD2E7470EE14C6C93), _U(0xCA5A826395121157)  # Salmon et al. (2011), section 3.3
W0, W1 = _U(0x9E3779B97F4A7C15), _U(0xBB67AE8584CAA73B)


@jit.inlined
def _high(a, b):  # type: ignore[no-untyped-def]
    """The upper 64 bits of a b: LLVM knows this formula, and puts the processor's instruction in its place."""
    a0, a1, b0, b1 = a & LOW, a >> HALF, b & LOW, b >> HALF
    middle = a1 * b0 + (a0 * b0 >> HALF)
    return a1 * b1 + (middle >> HALF) + (a0 * b1 + (middle & LOW) >> HALF)


@jit.inlined
def _philox(c0, c1, c2, c3, key0, key1):  # type: ignore[no-untyped-def]
    for _ in range(10):
        high0, high1 = _high(M0, c0), _high(M1, c2)
        c0, c1, c2, c3 = high1 ^ c1 ^ key0, M1 * c2, high0 ^ c3 ^ key1, M0 * c0
        key0, key1 = key0 + W0, key1 + W1
    return c0, c1, c2, c3


@jit.inlined
def _words(i, key, counter):  # type: ignore[no-untyped-def]
    """Those of counter + i + 1, of 256 bits."""
    c0 = counter[0] + _U(i + 1)
    c1 = counter[1] + _U(c0 < counter[0])
    c2 = counter[2] + _U(c1 < counter[1])
    c3 = counter[3] + _U(c2 < counter[2])
    return _philox(c0, c1, c2, c3, key[0], key[1])


@jit.compiled
def _drop(x, y, key, counter, threshold, scale, first, last):  # type: ignore[no-untyped-def]
    """Elements of the counters ``first`` to ``last`` of those reserved, eight each."""
    zero = x.dtype.type(0)
    for i in range(first, min(last, x.size >> 3)):
        words = _words(i, key, counter)
        for k in range(4):
            j = 8 * i + 2 * k
            y[j] = x[j] * (scale if words[k] & LOW < threshold else zero)
            y[j + 1] = x[j + 1] * (scale if words[k] >> HALF < threshold else zero)
    for i in range(max(first, x.size >> 3), last):
        words = _words(i, key, counter)
        for j in range(8 * i, x.size):
            y[j] = x[j] * (scale if words[(j & 7) >> 1] >> (HALF * _U(j & 1)) & LOW < threshold else zero)


def dropout(x: Any, *, p: float, key: tuple[int, int], counter: int) -> Any:
    """See gpugrad.kernels.dropout."""
    x = x if x.flags.c_contiguous else x.copy()
    y = np.empty(x.shape, x.dtype)
    words = np.array([counter >> 64 * i & (2**64 - 1) for i in range(4)], np.uint64)
    args = x.reshape(-1), y.reshape(-1), np.array(key, np.uint64), words, _U(threshold(p)), x.dtype.type(1 / (1 - p))
    jit.split(lambda first, last: _drop(*args, first, last), blocks(x.size), jit.LEAST // 32)
    return y
