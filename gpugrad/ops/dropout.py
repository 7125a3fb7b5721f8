"""Dropout: x times a random mask. The map is linear and its own transpose; the mask is drawn again for each derivative, from the same stretch of the stream."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpugrad import random
from gpugrad.kernels import dropout as kernels
from gpugrad.ops.elementwise import multiply
from gpugrad.ops.fit import astype, dtype_of, zeros_like
from gpugrad.ops.rules import Sample, linear
from gpugrad.ops.shape import as_array
from gpugrad.tape import is_inexact

_dropout = linear(
    "dropout",
    kernels.dropout,
    lambda g, **stretch: _dropout(g, **stretch),
    samples=[Sample((3, 4), p=0.4, key=(1, 2), counter=5), Sample((), p=0.4, key=(1, 3), counter=0), Sample((2, 0), p=0.4, key=(1, 3), counter=0)],
    doc="``x`` times 0 with probability p, else times 1 / (1 - p), drawn from the stretch that ``key`` and ``counter`` begin.",
)


def dropout(x: Any, p: float = 0.5, training: bool = True, *, generator: random.Generator | None = None) -> Any:
    """In training ``x / (1 - p)`` where a random number falls above p, else 0, so that the mean stays x; otherwise x. Srivastava et al., "Dropout" (2014).

    The mask is drawn from ``generator``, by default that of :mod:`gpugrad.random`: the same bits on every device. Nothing is drawn where p is 0 or 1.

    Raises:
        ValueError: p is not between 0 and 1.
    """
    check_probability(p)
    check_generator(generator)
    x = as_array(x)
    if not training or p == 0:
        return x
    if p == 1:
        return multiply(x, zeros_like(x, shape=()))
    if not is_inexact(dtype_of(x)):
        x = astype(x, np.result_type(dtype_of(x), np.float32))
    key, counter = (generator or random.default_generator).reserve(kernels.blocks(x.size))
    return _dropout(x, p=p, key=key, counter=counter)


def check_probability(p: float) -> None:
    """Raise TypeError unless p is a number, and ValueError unless it is between 0 and 1."""
    if not isinstance(p, (int, float, np.integer, np.floating)):
        raise TypeError(f"dropout: got probability p={p!r:.60}, expected a number from 0 to 1")
    if not 0 <= p <= 1:
        raise ValueError(f"dropout: got probability p={p}, expected 0 to 1")


def check_generator(generator: Any) -> None:
    """Raise TypeError unless it is one of :mod:`gpugrad.random`, or None."""
    if generator is not None and not isinstance(generator, random.Generator):
        raise TypeError(f"dropout: got the generator {generator!r:.60}, expected gg.random.Generator(seed), or None")
