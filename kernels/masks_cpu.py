"""Numba twins of :mod:`gpugrad.kernels.masks`.

One loop for all: its arguments are arrays or numbers, and what it computes is a constant of its closure, so that there is no branch in it and it vectorises. Each is compiled for
the arrays and numbers that it meets.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import types
from numba.extending import overload

from gpugrad import jit
from gpugrad.kernels import masks, periods_cpu


def at(x: Any, i: Any) -> Any:
    """``x[i]`` of an array, the number itself of a number."""
    return x[i] if isinstance(x, np.ndarray) else x


@overload(at, inline="always")
def _at(x, i):  # type: ignore[no-untyped-def]
    return (lambda x, i: x[i]) if isinstance(x, types.Array) else (lambda x, i: x)


@jit.inlined
def _positive(d, y, _b, _c):  # type: ignore[no-untyped-def]
    return type(d)(0) if y <= 0 else d


@jit.inlined
def _within(d, x, low, high):  # type: ignore[no-untyped-def]
    return type(d)(0) if (x < low) | (x > high) else d


@jit.inlined
def _of_maximum(d, a, b, _c):  # type: ignore[no-untyped-def]
    return type(d)(0.5) * d if a == b else type(d)(0) if a < b else d


@jit.inlined
def _of_minimum(d, a, b, _c):  # type: ignore[no-untyped-def]
    return type(d)(0.5) * d if a == b else type(d)(0) if a > b else d


@jit.inlined
def _of_fmax(d, a, b, _c):  # type: ignore[no-untyped-def]
    return type(d)(0.5) * d if a == b else type(d)(0) if (a < b) | ((a != a) & (b == b)) else d


@jit.inlined
def _of_fmin(d, a, b, _c):  # type: ignore[no-untyped-def]
    return type(d)(0.5) * d if a == b else type(d)(0) if (a > b) | ((a != a) & (b == b)) else d


@jit.inlined
def _strong_multiply(d, p, _b, _c):  # type: ignore[no-untyped-def]
    return type(d)(0) if d == 0 else d * p


@jit.inlined
def _strong_divide(d, p, _b, _c):  # type: ignore[no-untyped-def]
    return type(d)(0) if d == 0 else d / p


@jit.inlined
def _mutual_multiply(d, p, _b, _c):  # type: ignore[no-untyped-def]
    return type(d)(0) if (d == 0) | (p == 0) else d * p


@jit.inlined
def _of_tanh(d, y, _b, _c):  # type: ignore[no-untyped-def]
    return d * ((type(d)(1) - y) * (type(d)(1) + y))


@jit.inlined
def _of_square(d, x, _b, _c):  # type: ignore[no-untyped-def]
    return d * (x + x)


@jit.inlined
def _of_reciprocal(d, y, _b, _c):  # type: ignore[no-untyped-def]
    return type(d)(0) if d == 0 else -(d * y * y)


@jit.inlined
def _of_sqrt(d, y, _b, _c):  # type: ignore[no-untyped-def]
    return type(d)(0) if d == 0 else d / (y + y)


def _one(f: Any) -> Any:
    def run(y, d, a, b, c, start, stop):  # type: ignore[no-untyped-def]
        for i in range(start, stop):
            y[i] = f(at(d, i), at(a, i), at(b, i), at(c, i))

    return jit.compiled(run)


def _both(f: Any) -> Any:
    def run(y, z, d, a, b, start, stop):  # type: ignore[no-untyped-def]
        for i in range(start, stop):
            y[i], z[i] = f(at(d, i), at(a, i), at(b, i), at(b, i)), f(at(d, i), at(b, i), at(a, i), at(a, i))

    return jit.compiled(run)


_OF: dict[str, Any] = {"maximum": _of_maximum, "minimum": _of_minimum, "fmax": _of_fmax, "fmin": _of_fmin}
_SLOPES = {"tanh": _of_tanh, "square": _of_square, "reciprocal": _of_reciprocal, "sqrt": _of_sqrt}
_STRONG = {"strong_multiply": _strong_multiply, "strong_divide": _strong_divide, "mutual_multiply": _mutual_multiply}
_ONE = {"positive": _positive, "within": _within, **_OF, **_STRONG, **_SLOPES}
_RUN = {name: _one(f) for name, f in _ONE.items()}
_RUN_BOTH = {name: _both(f) for name, f in _OF.items()}


@jit.compiled
def _run_select(y, x, other, mask, inverted, start, stop):  # type: ignore[no-untyped-def]
    for i in range(start, stop):
        y[i] = at(x, i) if mask[i] != inverted else at(other, i)


@jit.compiled
def _run_parts(y, z, d, mask, start, stop):  # type: ignore[no-untyped-def]
    for i in range(start, stop):
        v, zero = at(d, i), y.dtype.type(0)
        y[i], z[i] = v if mask[i] else zero, zero if mask[i] else v


def _shared(run: Any, outputs: list[Any], *args: Any) -> None:
    """``run`` over all elements, on several threads where there are enough of them. They are counted by unsigned integers: only then do the loops vectorise."""
    periods_cpu.over(run, [*[y.reshape(-1) for y in outputs], *args], outputs[0].size, jit.LEAST, np.uint64)


def _masked(runs: dict[str, Any], what: str, reference: Callable[..., Any], arguments: int, d: Any, *others: Any, outputs: int = 1) -> Any:
    read = masks.operands(d, *others, vector=periods_cpu.vector)
    if read is None:
        return reference(d, *others)
    ys = [np.empty(d.shape, d.dtype) for _ in range(outputs)]
    _shared(runs[what], ys, *read, *[d.dtype.type(0)] * (arguments - len(read)))
    return ys[0] if outputs == 1 else tuple(ys)


def positive(d: Any, y: Any) -> Any:
    """See gpugrad.kernels.masks, as for all of these."""
    return _masked(_RUN, "positive", masks._positive, 4, d, y)


def within(d: Any, x: Any, low: Any, high: Any) -> Any:
    return _masked(_RUN, "within", masks._within, 4, d, x, low, high)


def share(d: Any, a: Any, b: Any, *, of: str) -> Any:
    return _masked(_RUN, of, lambda *args: masks._share(*args, of=of), 4, d, a, b)


def shares(d: Any, a: Any, b: Any, *, of: str) -> Any:
    return _masked(_RUN_BOTH, of, lambda *args: masks._shares(*args, of=of), 3, d, a, b, outputs=2)


def slope_product(d: Any, s: Any, *, of: str) -> Any:
    return _masked(_RUN, of, lambda *args: masks._slope(*args, of=of), 4, d, s)


def strong_product(d: Any, p: Any) -> Any:
    return _masked(_RUN, "strong_multiply", masks.strong_product.reference, 4, d, p)


def strong_quotient(d: Any, p: Any) -> Any:
    return _masked(_RUN, "strong_divide", masks.strong_quotient.reference, 4, d, p)


def mutual_product(d: Any, p: Any) -> Any:
    return _masked(_RUN, "mutual_multiply", masks.mutual_product.reference, 4, d, p)


def select(x: Any, other: Any, mask: Any, *, inverted: bool = False) -> Any:
    read = masks.operands(x, other)
    if read is None or not masks.is_mask(mask, x):
        return masks._select(x, other, mask, inverted=inverted)
    y = np.empty(x.shape, x.dtype)
    _shared(_run_select, [y], *read, masks.in_full(mask, x.shape), inverted)
    return y


def parts(d: Any, mask: Any) -> tuple[Any, Any]:
    read = masks.operands(d)
    if read is None or not masks.is_mask(mask, d):
        return masks._parts(d, mask)
    y, z = np.empty(d.shape, d.dtype), np.empty(d.shape, d.dtype)
    _shared(_run_parts, [y, z], *read, masks.in_full(mask, d.shape))
    return y, z
