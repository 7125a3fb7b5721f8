"""Dropout: x times a random mask, which is a constant to derivatives of every order."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpugrad import backend, random
from gpugrad.ops.elementwise import multiply
from gpugrad.ops.fit import dtype_of, shape_of, zeros_like
from gpugrad.ops.shape import as_array
from gpugrad.tape import is_inexact, plain


def dropout(x: Any, p: float = 0.5, training: bool = True, *, generator: random.Generator | None = None) -> Any:
    """In training ``x / (1 - p)`` where a random number falls above p, else 0, so that the mean stays x; otherwise x. Srivastava et al., "Dropout" (2014).

    The mask is drawn from ``generator``, by default that of :mod:`gpugrad.random`: the same bits on every device. Nothing is drawn where p is 0 or 1.

    Raises:
        ValueError: p is not between 0 and 1.
    """
    check_probability(p)
    x = as_array(x)
    if not training or p == 0:
        return x
    if p == 1:
        return multiply(x, zeros_like(x, shape=()))
    drawn = (generator or random.default_generator).bernoulli(1 - p, shape_of(x)).data
    keep = backend.to_device(drawn, backend.device_of(plain(x)))  # as booleans, which are the least to move
    dtype = dtype_of(x) if is_inexact(dtype_of(x)) else np.dtype(np.float32)
    return multiply(x, keep * dtype.type(1 / (1 - p)))


def check_probability(p: float) -> None:
    """Raise ValueError unless p is between 0 and 1."""
    if not 0 <= p <= 1:
        raise ValueError(f"dropout: got probability p={p}, expected 0 to 1")
