"""The mask of dropout: 0 with probability p, else 1 / (1 - p), from a stretch of a generator's stream that :meth:`gpugrad.random.Generator.reserve` gives.

An element takes 32 bits of it, so p counts as the nearest multiple of 2^-32. The bits are the same on every device.
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


def _threshold(p: float) -> int:
    return round((1 - p) * 2**32)


def _dropout_mask(like: Any, *, p: float, key: tuple[int, int], counter: int) -> Any:
    """A mask with the shape, dtype and device of ``like``, for 0 <= p < 1. NumPy's generator is compiled, and serves the CPU as well."""
    xp, dtype = namespace(like), like.dtype
    words = np.random.Philox(counter=counter, key=np.array(key, np.uint64)).random_raw(4 * blocks(like.size))
    bits = np.asarray(words, "<u8").view("<u4")[: like.size].reshape(like.shape)
    scale = np.float64(1 / (1 - p)).astype(np.float32 if dtype.itemsize == 2 else dtype).astype(dtype)
    return xp.asarray(bits < _threshold(p)) * scale


def _cuda_dropout_mask(like: Any, *, p: float, key: tuple[int, int], counter: int) -> Any:
    mask = namespace(like).empty(like.shape, like.dtype)
    words = [*key, *(counter >> 64 * i & (2**64 - 1) for i in range(4))]
    signed = [w - 2**64 if w >= 2**63 else w for w in words]
    SOURCE.launch("dropout_mask", like.dtype, math.ceil(blocks(like.size) / 256), 256, mask, like.size, *signed, _threshold(p), 1 / (1 - p))
    return mask


def _samples(rng: np.random.Generator, dtype: Any) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
    """Counters that carry into the next word, and from the last into nothing."""
    found: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
    for shape in ((), (1,), (0,), (7, 43), (2, 3, 5), (4099,)):
        for p in (0.0, 0.1, 0.9):
            for counter in (0, 2**64 - 2, 2**192 - 1, 2**256 - 1):
                key = tuple(int(k) for k in rng.integers(0, 2**64, 2, np.uint64))
                found.append(((np.zeros(shape, dtype),), {"p": p, "key": key, "counter": counter}))
    return found


dropout_mask = Kernel("dropout_mask", _dropout_mask, cpu="dropout:_dropout_mask", cuda=_cuda_dropout_mask, samples=_samples)
