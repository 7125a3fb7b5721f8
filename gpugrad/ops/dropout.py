"""Dropout: x times a random mask, which is a constant to derivatives of every order."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpugrad import random
from gpugrad.kernels import dropout as kernels
from gpugrad.ops.elementwise import multiply
from gpugrad.ops.fit import zeros_like
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
    like = plain(x)
    if not is_inexact(like.dtype):
        like = zeros_like(like, np.float32)
    key, counter = (generator or random.default_generator).reserve(kernels.blocks(like.size))
    return multiply(x, kernels.dropout_mask(like, p=p, key=key, counter=counter))


def check_probability(p: float) -> None:
    """Raise ValueError unless p is between 0 and 1."""
    if not 0 <= p <= 1:
        raise ValueError(f"dropout: got probability p={p}, expected 0 to 1")
