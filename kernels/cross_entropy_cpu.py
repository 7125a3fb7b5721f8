"""Softmax cross entropy in Numba: as many rows at a time as the cache holds, so that memory is passed over once.

A block of rows goes through loops that each vectorise: maximum and subtraction, exp, sums, and the residual. What they hand on lies in the residual's
own memory, or without one in a piece of the size of a block. Sums are made in float64.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from gpugrad import jit
from gpugrad.kernels.cross_entropy import check
from gpugrad.kernels.elementary_cpu import exp, log1p

_BLOCK = 4096  # elements: 16 or 32 KB
_PIECE = 1 << 16  # elements that a thread takes at least
_NO_LABELS = np.zeros(0, np.int64)
_BITS: dict[str, Any] = {"f": np.dtype(np.int32), "d": np.dtype(np.int64)}


def cross_entropy(
    x: Any,
    labels: Any,
    probabilities: Any = None,
    weight: Any = None,
    *,
    smoothing: float = 0.0,
    ignore_index: int = -100,
    reduction: str = "mean",
    with_residual: bool = True,
) -> tuple[Any, Any]:
    """See gpugrad.kernels.cross_entropy."""
    n, classes = x.shape
    dtype = x.dtype
    empty = np.empty((0, classes), dtype)
    x = np.ascontiguousarray(x)
    w = empty.reshape(-1) if weight is None else np.ascontiguousarray(weight, dtype)
    t = empty if probabilities is None else np.ascontiguousarray(probabilities, dtype)
    given, labels = labels, _NO_LABELS if labels is None else np.ascontiguousarray(labels, np.int64)
    divisor = float(n)
    if given is not None:
        bad, divisor = _count(labels, w, classes, ignore_index)
        if bad >= 0:
            check(given, given == given[bad], classes)
    divisor = divisor if reduction == "mean" else 1.0
    losses, residual = np.empty(n, dtype), np.empty_like(x) if with_residual else empty
    scale = 1 / divisor if divisor else np.inf
    bits = _BITS[dtype.char]
    numbers = dtype.type(1 - smoothing), dtype.type(smoothing / classes), ignore_index, scale

    def rows(start: int, stop: int) -> None:
        _rows(x, x.view(bits), labels, t, w, *numbers, losses, losses.view(bits), residual, start, stop)

    if n * classes < 2 * _PIECE:
        rows(0, n)
    else:
        jit.split(rows, n, max(1, _PIECE // classes))
    if reduction != "none":
        losses = dtype.type(_sum(losses) / divisor if divisor else _sum(losses) * np.inf)
    return losses, residual if with_residual else None


@jit.compiled
def _count(labels, weight, classes, ignore_index):  # type: ignore[no-untyped-def]
    """Where the first label out of range is, or -1; and the sum of weight[label] over the rows that count."""
    total = 0.0
    for i in range(labels.size):
        label = labels[i]
        if label != ignore_index:
            if label < 0 or label >= classes:
                return i, 0.0
            total += weight[label] if weight.size else 1.0
    return -1, total


@jit.compiled
def _rows(x, bits, labels, probabilities, weight, keep, spread, ignore_index, scale, losses, maxima, residual, start, stop):  # type: ignore[no-untyped-def]
    """losses[i] and residual[i] for the rows from start to stop. q_c = weight_c (keep t_c + spread); no weights are ones."""
    classes = x.shape[1]
    many = max(1, _BLOCK // classes)
    memory = np.empty((0 if residual.size else min(many, stop - start), classes), x.dtype)
    t = np.zeros(0 if probabilities.size else classes, x.dtype)
    w = weight if weight.size else np.ones(classes, x.dtype)
    for first in range(start, stop, many):
        last = min(first + many, stop)
        z = residual[first:last] if residual.size else memory[: last - first]
        for i in range(first, last):
            maxima[i] = _maximum(bits[i])  # which losses[i] reads as a float
            row, out, m = x[i], z[i - first], losses[i]
            for c in range(classes):
                out[c] = row[c] - m
        flat = z.reshape(-1)
        for j in range(flat.size):
            flat[j] = exp(flat[j])
        for i in range(first, last):
            row, e, m = x[i], z[i - first], losses[i]
            rest = _rest(row, e, m) + (m - m)  # nan of an infinite m
            if probabilities.size:
                total, others, cost = _targets(row, m, probabilities[i], w, keep, spread)
            elif labels[i] == ignore_index:
                losses[i] = 0
                e[:] = 0
                continue
            elif spread > 0:
                t[labels[i]] = 1
                total, others, cost = _targets(row, m, t, w, keep, spread)
            else:
                label = labels[i]
                v = np.float64(row[label])
                total = np.float64(w[label])
                others = 0.0 if row[label] == m else total
                cost = total * (m - v) if total != 0 else 0.0
            losses[i] = total * log1p(rest) + cost
            if residual.size:
                f = x.dtype.type(scale * total / (1 + rest))
                s = x.dtype.type(scale)
                if probabilities.size or spread > 0:
                    target = probabilities[i] if probabilities.size else t
                    for c in range(classes):
                        e[c] = f * e[c] - s * (w[c] * (keep * target[c] + spread))
                else:
                    for c in range(classes):
                        e[c] *= f
                    e[labels[i]] -= s * w[labels[i]]
                if rest < 1 and total / (1 + rest) + (total - others) > total:
                    e[_where(row, m)] = scale * (others - total * (rest / (1 + rest)))
            if not probabilities.size:
                t[labels[i]] = 0


@jit.inlined
def _where(row, m):  # type: ignore[no-untyped-def]
    """The first class whose logit is m."""
    c = 0
    while row[c] != m:
        c += 1
    return c


def _reducing(f: Any) -> Any:
    """A sum that may be made in lanes: always the same ones, so the bits do not change from run to run."""
    return numba.njit(f, fastmath=jit.FAST | {"reassoc"}, error_model="numpy", forceinline=True)


@_reducing
def _sum(a):  # type: ignore[no-untyped-def]
    total = 0.0
    for i in range(a.size):
        total += a[i]
    return total


@_reducing
def _rest(row, e, m):  # type: ignore[no-untyped-def]
    """The sum of e over all classes but one of the largest logit m."""
    total = 0.0
    for c in range(row.size):
        total += 0.0 if row[c] == m else np.float64(e[c])
    tops = 0
    for c in range(row.size):
        tops += row[c] == m
    return total + (tops - 1)


@_reducing
def _targets(row, m, t, w, keep, spread):  # type: ignore[no-untyped-def]
    """The sum of q, that of q over all classes but those of the largest logit m, and that of q (m - x)."""
    top = 0.0
    others = 0.0
    cost = 0.0
    for c in range(row.size):
        q = np.float64(w[c] * (keep * t[c] + spread))
        is_top = row[c] == m
        top += q if is_top else 0.0
        others += 0.0 if is_top else q
        cost += 0.0 if q == 0 else q * np.float64(m - row[c])
    return top + others, others, cost


@jit.inlined
def _maximum(bits):  # type: ignore[no-untyped-def]
    """The bits of the largest float; nan may count as large or as small.

    Read as integers floats are in order, once all bits but the sign are flipped in the negative ones. A maximum of integers vectorises, one of floats not.
    """
    sign = 8 * bits.itemsize - 1
    flip = (1 << sign) - 1
    m = -flip - 1
    for c in range(bits.size):
        m = max(m, bits[c] ^ ((bits[c] >> sign) & flip))
    return m ^ ((m >> sign) & flip)
