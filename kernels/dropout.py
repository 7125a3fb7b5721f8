"""Dropout: x times a mask that is 0 with probability p, else 1 / (1 - p), drawn in passing from a stretch of a generator's stream.

:meth:`gpugrad.random.Generator.reserve` gives the stretch, a key and a counter: they are all that has to be kept for the mask to come out again, in the backward pass, say.
An element takes 32 bits, so p counts as the nearest multiple of 2^-32. The bits are the same on every device.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from gpugrad.backend import namespace
from gpugrad.cuda.loader import Source
from gpugrad.kernels.kernel import Kernel

SOURCE = Source("dropout.cu")
_PER_BLOCK = 8  # elements that four words of 64 bits make


def blocks(size: int) -> int:
    """How many blocks of the generator a mask of so many elements takes."""
    return -(-size // _PER_BLOCK)


def threshold(p: float) -> int:
    """Elements are kept whose 32 bits are below it."""
    return round((1 - p) * 2**32)


def _dropout(x: Any, *, p: float, key: tuple[int, int], counter: int) -> Any:
    """``x * mask`` for 0 <= p < 1. 16-bit floats are multiplied in float32."""
    xp, dtype = namespace(x), x.dtype
    words = np.random.Philox(counter=counter, key=np.array(key, np.uint64)).random_raw(4 * blocks(x.size))
    kept = np.asarray(words, "<u8").view("<u4")[: x.size].reshape(x.shape) < threshold(p)
    wide = np.dtype(np.float32) if dtype.itemsize == 2 else dtype
    return (x.astype(wide, copy=False) * (xp.asarray(kept) * wide.type(1 / (1 - p)))).astype(dtype, copy=False)


def _cuda_dropout(x: Any, *, p: float, key: tuple[int, int], counter: int) -> Any:
    xp = namespace(x)
    x = x if x.flags.c_contiguous else x.copy()
    y = xp.empty(x.shape, x.dtype)
    words = [*key, *(counter >> 64 * i & (2**64 - 1) for i in range(4))]
    signed = [w - 2**64 if w >= 2**63 else w for w in words]
    SOURCE.launch("dropout", x.dtype, math.ceil(blocks(x.size) / 256), 256, x, y, x.size, *signed, threshold(p), 1 / (1 - p))
    return y


def _samples(rng: np.random.Generator, dtype: Any) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
    """Counters that carry into the next word, and from the last into nothing."""
    found: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
    for shape in ((), (1,), (0,), (7, 43), (2, 3, 5), (4099,)):
        for p in (0.0, 0.1, 0.9):
            for counter in (0, 2**64 - 2, 2**192 - 1, 2**256 - 1):
                key = tuple(int(k) for k in rng.integers(0, 2**64, 2, np.uint64))
                found.append(((rng.normal(size=shape).astype(dtype),), {"p": p, "key": key, "counter": counter}))
    return found


dropout = Kernel("dropout", _dropout, cpu="dropout_cpu:dropout", cuda=_cuda_dropout, samples=_samples)
