"""Dropout: x times a random mask. The map is linear and its own transpose; the mask is drawn again for each derivative, from the same stretch of the stream.

Of many examples (:func:`gpugrad.vmap`) the mask is kept instead: how many of them there are a derivative cannot tell, which has examples of its own.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gpugrad import random
from gpugrad.kernels import dropout as kernels
from gpugrad.ops.batch import leading
from gpugrad.ops.elementwise import multiply
from gpugrad.ops.fit import astype, dtype_of, ones_like, zeros_like
from gpugrad.ops.rules import Sample, linear
from gpugrad.ops.shape import as_array
from gpugrad.tape import Op, is_batched, is_inexact, plain


def _of_one_mask(op: Op, size: int, _batched: Any, args: Any, stretch: dict[str, Any]) -> Any:
    """Tangents and cotangents of many directions, say: the mask is that of the one x."""
    return multiply(args[0], _mask(zeros_like(args[0], shape=args[0].shape[1:]), **stretch))


_dropout = linear(
    "dropout",
    kernels.dropout,
    lambda g, **stretch: _dropout(g, **stretch),
    samples=[Sample((3, 4), p=0.4, key=(1, 2), counter=5), Sample((), p=0.4, key=(1, 3), counter=0), Sample((2, 0), p=0.4, key=(1, 3), counter=0)],
    batch=_of_one_mask,
    doc="``x`` times 0 with probability p, else times 1 / (1 - p), drawn from the stretch that ``key`` and ``counter`` begin.",
)
# not in the registry, whose walk expects of many examples what each gives by itself
_mask = Op("dropout_mask", lambda x, **stretch: kernels.dropout(ones_like(x), **stretch), (), (), batch=leading())


def dropout(x: Any, p: float = 0.5, training: bool = True, *, generator: random.Generator | None = None) -> Any:
    """In training ``x / (1 - p)`` where a random number falls above p, else 0, so that the mean stays x; otherwise x. Srivastava et al., "Dropout" (2014).

    The mask is drawn from ``generator``, by default that of :mod:`gpugrad.random`: the same bits on every device. Nothing is drawn where p is 0 or 1.
    Inside :func:`gpugrad.vmap` each example has a mask of its own if x depends on the examples; else x, dropped out, is the same for all.

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
    key, counter = (generator or random.default_generator).reserve(kernels.blocks(plain(x).size))
    if is_batched(x):
        return multiply(x, _mask(x, p=p, key=key, counter=counter))
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
