"""Elementwise loops over arrays of which some are the same along leading axes, as one is that many examples share: it is read again for each of them, not laid out in full."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gpugrad import jit

LEAST = 1 << 13  # elements: a shorter period is laid out, for to call the loop takes the time of a thousand


def vector(x: Any, shape: tuple[int, ...]) -> Any:
    """x, which has this shape or broadcasts to it, in C order: all elements, or the first period of them."""
    if x.shape == shape and x.flags.c_contiguous:
        return x.reshape(-1)
    period = x
    while period.ndim and (period.strides[0] == 0 or period.shape[0] == 1):
        period = period[0]
    fits = period.size >= LEAST and period.shape == shape[len(shape) - period.ndim :]
    return (period if fits else np.broadcast_to(x, shape)).reshape(-1)


def over(loop: Callable[..., None], args: Sequence[Any], n: int, least: int, bound: type = int) -> None:
    """``loop(*args, start, stop)`` over n elements, on several threads where there are 2 ``least``; vectors among ``args`` may be periods. ``bound`` is the type of start and stop."""
    m = min([a.size for a in args if isinstance(a, np.ndarray)])
    if m == n:
        jit.split(lambda first, last: loop(*args, bound(first), bound(last)), n, least)
        return

    def periods(first: int, last: int) -> None:
        for start in range(first * m, last * m, m):
            loop(*[a[start % a.size :][:m] if isinstance(a, np.ndarray) else a for a in args], bound(0), bound(m))

    jit.split(periods, n // m, -(-least // m))
