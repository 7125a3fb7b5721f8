"""What the Numba twins of softmax and of cross entropy share: blocks of rows that stay in the first cache, and loops over rows that vectorise.

Rows are taken by number: an array of one row's own would be counted (incref, decref) each time, at the cost of ten elements.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gpugrad import jit
from gpugrad.kernels.elementary_cpu import exp_of_negative

BLOCK = 4096  # elements: 16 or 32 KB
PIECE = 1 << 16  # elements, each with its exp, that a thread takes at least
BITS: dict[str, Any] = {"f": np.dtype(np.int32), "d": np.dtype(np.int64)}


@jit.inlined
def in_order(b, bits):  # type: ignore[no-untyped-def]
    """Of the bits of a float an integer of the same order; and of that the bits again. All bits but the sign are flipped in the negative ones.

    A maximum of integers vectorises, one of floats does not; nan may count as large or as small. ``bits`` says of which type they are: without the cast Numba
    makes 64 bits of 32, and vectors of half as many.
    """
    return bits.dtype.type(b ^ np.iinfo(bits.dtype).max if b < 0 else b)


@jit.inlined
def largest(bits, i):  # type: ignore[no-untyped-def]
    """The bits of the largest float of a row."""
    m = bits.dtype.type(np.iinfo(bits.dtype).min)
    for c in range(bits.shape[1]):
        m = max(m, in_order(bits[i, c], bits))
    return in_order(m, bits)


@jit.inlined
def exp_in_place(a):  # type: ignore[no-untyped-def]
    """Of what is not positive."""
    for j in range(a.size):
        a[j] = exp_of_negative(a[j])


@jit.inlined
def exp_into(a, e):  # type: ignore[no-untyped-def]
    """The same, of a. Not for a and e in the same memory: that loop is then run one element after the other."""
    for j in range(a.size):
        e[j] = exp_of_negative(a[j])


@jit.summing
def row_sum(a, i):  # type: ignore[no-untyped-def]
    """The sum of a row, in float64."""
    total = 0.0
    for c in range(a.shape[1]):
        total += a[i, c]
    return total
