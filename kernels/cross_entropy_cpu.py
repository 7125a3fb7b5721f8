"""Softmax cross entropy in Numba: as many rows at a time as the cache holds, so that memory is passed over once.

A block of rows goes through loops that each vectorise: maximum and subtraction, exp, sums, and the residual. What they hand on lies in the residual's
own memory, or without one in a piece of the size of a block. Sums are made in float64.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gpugrad import jit
from gpugrad.kernels.cross_entropy import check
from gpugrad.kernels.elementary_cpu import log1p
from gpugrad.kernels.rows_cpu import BITS, BLOCK, PIECE, exp_in_place, largest, row_sum

_NO_LABELS = np.zeros(0, np.int64)


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
    bits = BITS[dtype.char]
    numbers = dtype.type(1 - smoothing), dtype.type(smoothing / classes), ignore_index, scale

    def rows(start: int, stop: int) -> None:
        _rows(x, x.view(bits), labels, t, w, *numbers, losses, losses.view(bits), residual, start, stop)

    if n * classes < 2 * PIECE:
        rows(0, n)
    else:
        jit.split(rows, n, max(1, PIECE // classes))
    if reduction != "none":
        losses = dtype.type(_mean(losses[None], np.float64(divisor)))
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


_Q, _TERMS = 0, 1  # rows of scratch


@jit.compiled
def _rows(x, bits, labels, probabilities, weight, keep, spread, ignore_index, scale, losses, maxima, residual, start, stop):  # type: ignore[no-untyped-def]
    """losses[i] and residual[i] for the rows from start to stop. q_c = weight_c (keep t_c + spread); no weights are ones."""
    classes = x.shape[1]
    many = max(1, min(BLOCK // classes, stop - start))
    memory = np.empty((0 if residual.size else many, classes), x.dtype)
    factors, arguments = np.empty(many), np.empty(many)  # loss = cost + factor log1p(argument): a loop over the block, because alone log1p is slow
    plain = probabilities.size == 0 and spread == 0
    scratch = np.empty((2, 0 if plain else classes), x.dtype)
    w = weight if plain or weight.size else np.ones(classes, x.dtype)
    for first in range(start, stop, many):
        count = min(many, stop - first)
        z = residual[first : first + count] if residual.size else memory[:count]
        _subtract_maxima(x, bits, first, losses, maxima, z)
        exp_in_place(z.reshape(-1))
        if plain:
            _by_label(x, first, labels, w, ignore_index, scale, z, losses, factors, arguments)
        else:
            _by_targets(x, first, labels, probabilities, w, keep, spread, ignore_index, scale, z, losses, factors, arguments, scratch)
        _add_logs(losses, first, factors, arguments, count)


@jit.inlined
def _subtract_maxima(x, bits, first, losses, maxima, z):  # type: ignore[no-untyped-def]
    for k in range(z.shape[0]):
        i = first + k
        maxima[i] = largest(bits, i)  # which losses reads as a float
        m = losses[i]
        for c in range(z.shape[1]):
            z[k, c] = x[i, c] - m


@jit.inlined
def _add_logs(losses, first, factors, arguments, count):  # type: ignore[no-untyped-def]
    for k in range(count):
        losses[first + k] += factors[k] * log1p(arguments[k])


@jit.inlined
def _by_label(x, first, labels, weight, ignore_index, scale, e, losses, factors, arguments):  # type: ignore[no-untyped-def]
    """The target is weight[label]. The sum of e over the other classes does here what ``rest`` does, for nothing cancels with it either."""
    classes = e.shape[1]
    for k in range(e.shape[0]):
        i = first + k
        ignored = labels[i] == ignore_index
        label = 0 if ignored else labels[i]
        q = 0.0 if ignored else np.float64(weight[label]) if weight.size else 1.0
        own = np.float64(e[k, label])
        e[k, label] = 0
        others = row_sum(e, k)
        f = scale * q / (others + own)
        g = e.dtype.type(f)
        for c in range(classes):
            e[k, c] *= g
        e[k, label] = -others * f
        factors[k] = q
        arguments[k] = others + (own - 1)
        losses[i] = q * (np.float64(losses[i]) - np.float64(x[i, label])) if q != 0 else 0.0
        if ignored:
            arguments[k] = 0
            for c in range(classes):
                e[k, c] = 0


@jit.inlined
def _by_targets(x, first, labels, probabilities, w, keep, spread, ignore_index, scale, e, losses, factors, arguments, scratch):  # type: ignore[no-untyped-def]
    """The targets are q = w (keep t + spread), where t are probabilities or 1 at the label."""
    classes = e.shape[1]
    for k in range(e.shape[0]):
        i = first + k
        if probabilities.size == 0:
            if labels[i] == ignore_index:
                losses[i] = factors[k] = arguments[k] = 0
                for c in range(classes):
                    e[k, c] = 0
                continue
            for c in range(classes):
                scratch[_Q, c] = w[c] * spread
            scratch[_Q, labels[i]] = w[labels[i]] * (keep + spread)
        else:
            for c in range(classes):
                scratch[_Q, c] = w[c] * (keep * probabilities[i, c] + spread)
        m = losses[i]
        for c in range(classes):
            q = scratch[_Q, c]
            term = q * (m - x[i, c])
            scratch[_TERMS, c] = q if q == 0 else term
        total, cost = row_sum(scratch, _Q), row_sum(scratch, _TERMS)
        rest, top, near = row_sum(e, k) - 1, 0, False
        if not rest >= 1:  # one class has more than half of p; or there is a nan
            while top < classes - 1 and x[i, top] != m:
                top += 1
            e[k, top] = 0
            rest = row_sum(e, k) + (m - m)  # nan of an infinite m
            e[k, top] = 1
            near = total / (1 + rest) + scratch[_Q, top] > total
        f, s = e.dtype.type(scale * total / (1 + rest)), e.dtype.type(scale)
        for c in range(classes):
            e[k, c] = f * e[k, c] - s * scratch[_Q, c]
        if near:
            scratch[_Q, top] = 0
            e[k, top] = scale * (row_sum(scratch, _Q) - total * (rest / (1 + rest)))
        losses[i] = cost
        factors[k] = total
        arguments[k] = rest


@jit.compiled
def _mean(losses, divisor):  # type: ignore[no-untyped-def]
    return row_sum(losses, 0) / divisor
