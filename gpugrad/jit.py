"""Numba for kernels: functions compiled on first use, cached on disk, and run on several threads where that pays.

Importing this imports Numba, which takes half a second: only the files ``kernels/*_cpu.py`` do, and those are imported by the first call that needs one.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numba

# No fastmath=True: it would assume that there is no nan and no infinity.
FAST = {"contract", "nsz", "arcp"}


def compiled(f: Callable[..., Any]) -> Any:
    """A function that Python calls: compiled for the types it meets, kept on disk, without the GIL while it runs."""
    return numba.njit(f, nogil=True, fastmath=FAST, error_model="numpy")


def inlined(f: Callable[..., Any]) -> Any:
    """A function that compiled functions call."""
    return numba.njit(f, fastmath=FAST, error_model="numpy", inline="always")


def threads() -> int:
    """How many threads kernels use: $GPUGRAD_NUM_THREADS, by default the processors that this process may run on."""
    return int(os.environ.get("GPUGRAD_NUM_THREADS") or len(os.sched_getaffinity(0)))


def split(f: Callable[[int, int], Any], n: int, least: int) -> None:
    """``f(start, stop)`` over ``range(n)`` in pieces of at least ``least``, on several threads. The pieces write to separate places."""
    f(0, n)
