"""Solving with matrices that are known by their products alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np


class Iterate(NamedTuple):
    """Where conjugate gradients stand: x, the residual b - A x, the direction p gone along last, and the curvature p'A p along it."""

    x: Any
    residual: Any
    direction: Any
    curvature: float


def conjugate_gradients(product: Callable[[Any], Any], b: Any, x: Any = None, precondition: Callable[[Any], Any] | None = None) -> Iterator[Iterate]:
    """The iterates of the method of conjugate gradients for ``A x = b``, one after each product ``A p``; when to stop is the caller's to say.

    Algorithms 5.2 and 5.3 of Nocedal and Wright, "Numerical optimization" (2006; Hestenes and Stiefel 1952). For a symmetric positive definite A every iterate has
    a smaller ``x'A x / 2 - b'x`` than the one before. A direction along which the curvature is not positive (nan included) says that A is something else, or that
    rounding is all that is left: it is yielded with the x before it, and is the last. None follows a residual of 0, either; nothing is yielded for one at the start.

    Args:
        product: A p.
        b: a vector.
        x: where to begin, which takes a product; 0 by default.
        precondition: the inverse of M, symmetric positive definite, times a vector.

    Inner products are of float64 and wait for the device.
    """
    x, r = (b * 0, b) if x is None else (x, b - product(x))
    z = r if precondition is None else precondition(r)
    p, rz = z, float(dot(r, z))
    while rz > 0:
        image = product(p)
        curvature = float(dot(p, image))
        if not curvature > 0:
            yield Iterate(x, r, p, curvature)
            return
        t = b.dtype.type(rz / curvature)
        x, r = x + t * p, r - t * image
        yield Iterate(x, r, p, curvature)
        z = r if precondition is None else precondition(r)
        rz, before = float(dot(r, z)), rz
        p = z + b.dtype.type(rz / before) * p


def dot(a: Any, b: Any) -> Any:
    """The inner product in float64, of no axes, on the device of the vectors."""
    return np.vdot(a.astype(np.float64, copy=False), b.astype(np.float64, copy=False))
