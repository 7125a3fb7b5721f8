"""Softmax cross entropy: the losses of rows of logits, and in the same pass the gradient, called the residual here.

Of one row, with p = softmax(x) and the target q, which are the label or probabilities with smoothing and class weights applied::

    loss = sum_c q_c (-log p_c)          residual = d loss / d x = (sum_c q_c) p - q

With m = max(x), z = x - m and ``rest`` the sum of exp(z) over all classes but one of the largest, log sum exp(z) = log1p(rest). So -log p_c is the
sum of log1p(rest) and -z_c, of which none is negative, and nothing cancels however confident the prediction is. In the residual of the class that has
nearly all of p and of q, these cancel; there it is the q of the others - (sum q) rest / (1 + rest) instead.

A class of logit -inf has p = 0, and costs nothing where its q is 0. inf and nan, and a row of -inf alone, give nan, in their row only.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gpugrad import backend
from gpugrad.cuda.loader import Source
from gpugrad.kernels.kernel import Kernel

source = Source("cross_entropy.cu", "rows.cuh")
_WIDEST_OF_A_WARP = 1024  # classes; a wider row takes a block of threads
_ROWS_OF_A_BLOCK = 4  # a warp for each
_SUMMED_BY_A_BLOCK = 1 << 14


# ------------------------------------------------------------------------------------------------- the specification


def _cross_entropy(
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
    """(loss, residual) of logits; the residual is the gradient of the reduced loss: divided by what the mean divides by.

    Args:
        x: logits (N, C) with C > 0, in whose dtype the results are.
        labels: (N,) integers in [0, C), or ``ignore_index`` for a row that counts for nothing; None if there are probabilities.
        probabilities: (N, C), or None.
        weight: of each class, (C,), not negative; or None for ones.
        smoothing: q_c = weight_c ((1 - smoothing) t_c + smoothing / C), where t is one at the label, or the probabilities.
        reduction: "none" for the losses (N,), "sum", or "mean": the sum divided by N, or with labels by the sum of weight[label] over the rows that count.
        with_residual: whether it is wanted; else None takes its place.

    Raises:
        IndexError: a label that is neither a class nor ``ignore_index``. On a GPU, where looking would stall, the loss of its row is nan.
    """
    xp, dtype, classes = backend.namespace(x), x.dtype, x.shape[1]
    x = x.astype(np.float32 if dtype.itemsize == 2 else dtype.newbyteorder("="), copy=False)
    with np.errstate(invalid="ignore", divide="ignore"):  # inf - inf and 0 / 0: nan is the answer
        z = x - x.max(axis=1, keepdims=True)
        e, top = np.exp(z), z == 0
        rest = np.where(top, 0, e).sum(axis=1, keepdims=True) + (top.sum(axis=1, keepdims=True, dtype=x.dtype) - 1)
        if labels is None:
            t, counts = probabilities.astype(x.dtype, copy=False), xp.ones(len(x), x.dtype)
        else:
            t, counts = (labels[:, None] == xp.arange(classes)).astype(x.dtype), _counts(xp, x, labels, weight, ignore_index)
        q = t * (1 - smoothing) + smoothing / classes
        q = q if weight is None else q * weight.astype(x.dtype, copy=False)
        ignored = xp.zeros((len(x), 1), bool) if labels is None else (labels == ignore_index)[:, None]
        q = np.where(ignored, 0, np.where(np.isnan(counts)[:, None], np.nan, q))
        loss = np.where(q == 0, 0, q * (np.log1p(rest) - z)).sum(axis=1)
        divisor = 1.0 if reduction != "mean" else counts.sum()
        residual = None
        if with_residual:
            total, others = q.sum(axis=1, keepdims=True), np.where(top, 0, q).sum(axis=1, keepdims=True)
            p = e / (1 + rest)
            near = top & (rest < 1) & (total * p + q > total)
            residual = np.where(near, others - total * (rest / (1 + rest)), total * p - q) / divisor
            residual = np.where(ignored, 0, residual).astype(dtype, copy=False)
        if reduction != "none":
            loss = loss.sum() / divisor
    return loss.astype(dtype, copy=False), residual


def _counts(xp: Any, x: Any, labels: Any, weight: Any, ignore_index: int) -> Any:
    """What each row counts for in the mean: weight[label], 0 for one that is ignored, nan for a label out of range."""
    classes = x.shape[1]
    kept = labels != ignore_index
    fits = (labels >= 0) & (labels < classes)
    if xp is np:
        check(labels, kept & ~fits, classes)
    counts = xp.ones(len(x), x.dtype) if weight is None else weight.astype(x.dtype, copy=False)[np.where(fits, labels, 0)]
    return np.where(kept, np.where(fits, counts, np.nan), 0)


def check(labels: Any, bad: Any, classes: int, name: str = "cross entropy") -> None:
    """Raise IndexError, which names the first of the labels where ``bad`` is true."""
    if bad.any():
        raise IndexError(f"{name}: label {labels[bad][0]} is out of bounds, expected 0 to {classes - 1} for {classes} classes")


# ------------------------------------------------------------------------------------------------- CUDA


def _cross_entropy_cuda(
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
    xp, dtype, (n, classes) = backend.namespace(x), x.dtype, x.shape
    acc = np.float64 if dtype == np.float64 else np.float32
    x, probabilities, weight = (a if a is None else xp.ascontiguousarray(a, dtype) for a in (x, probabilities, weight))
    labels = labels if labels is None else xp.ascontiguousarray(labels, np.int64)
    losses, residual = xp.empty(n, acc), xp.empty_like(x) if with_residual else None
    divisor, scale = None, 1.0
    if reduction == "mean" and labels is None:
        scale = 1.0 / n if n else float("nan")
    elif reduction == "mean":
        counts = xp.empty(max(1, -(-n // _SUMMED_BY_A_BLOCK)), acc)
        source.launch("cross_entropy_counts", dtype, len(counts), 256, labels, weight, counts, n, classes, int(ignore_index))
        divisor = _total(xp, dtype, counts)
    rows = (x, labels, probabilities, weight, divisor, losses, residual, n, classes, int(ignore_index), float(smoothing), scale)
    if classes <= _WIDEST_OF_A_WARP:
        source.launch("cross_entropy_by_warps", dtype, -(-n // _ROWS_OF_A_BLOCK), 32 * _ROWS_OF_A_BLOCK, *rows)
    else:
        source.launch("cross_entropy_by_blocks", dtype, n, 256 if classes <= 8192 else 1024, *rows)
    if reduction == "none":
        return losses.astype(dtype, copy=False), residual
    loss = xp.empty((), dtype)
    sums = _partial_sums(xp, dtype, losses)
    source.launch("cross_entropy_sums", dtype, 1, 1024, sums, len(sums), divisor, scale, None, loss)
    return loss, residual


def _partial_sums(xp: Any, dtype: Any, values: Any) -> Any:
    """Few enough numbers of the same sum for one block of threads."""
    while len(values) > _SUMMED_BY_A_BLOCK:
        sums = xp.empty(-(-len(values) // _SUMMED_BY_A_BLOCK), values.dtype)
        source.launch("cross_entropy_sums", dtype, len(sums), 1024, values, len(values), None, 1.0, sums, None)
        values = sums
    return values


def _total(xp: Any, dtype: Any, values: Any) -> Any:
    """Their sum, an array of one."""
    if len(values) == 1:
        return values
    values, total = _partial_sums(xp, dtype, values), xp.empty(1, values.dtype)
    source.launch("cross_entropy_sums", dtype, 1, 1024, values, len(values), None, 1.0, total, None)
    return total


# ------------------------------------------------------------------------------------------------- the kernel


def _samples(rng: np.random.Generator, dtype: Any) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
    def drawn(n: int, classes: int) -> tuple[Any, Any, Any, Any]:
        x = (rng.normal(size=(n, classes)) * 3).astype(dtype)
        t = rng.exponential(size=(n, classes))
        labels = rng.integers(0, classes, n)
        return x, labels, (t / t.sum(axis=1, keepdims=True)).astype(dtype), rng.uniform(0.5, 2, classes).astype(dtype)

    samples: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
    for n, classes in ((5, 1), (3, 2), (7, 31), (33, 33), (4, 1000), (2, 4097)):
        x, labels, t, weight = drawn(n, classes)
        ignoring = {"ignore_index": int(labels[0])}
        samples += [
            ((x, labels, None, None), {}),
            ((x, labels.astype(np.int32), None, weight), {"smoothing": 0.1, "reduction": "none", **ignoring}),
            ((x, labels, None, weight), {"with_residual": False, **ignoring}),
            ((x, None, t, None), {"reduction": "sum"}),
            ((x, None, t, weight), {"smoothing": 0.2}),
        ]
    x, labels, t, _ = drawn(0, 3)
    x2, labels2, _, _ = drawn(3, 3)
    masked = np.array([[0, -np.inf, 1], [2, 0, -np.inf], [np.inf, 0, 0]], dtype)
    return [
        *samples,
        ((x, labels, None, None), {}),
        ((x, None, t, None), {"reduction": "sum"}),
        ((x2, labels2 * 0 - 100, None, None), {}),
        ((masked, np.array([0, 1, 1]), None, None), {"reduction": "none"}),
    ]


cross_entropy = Kernel("cross_entropy", _cross_entropy, cpu="cross_entropy_cpu:cross_entropy", cuda=_cross_entropy_cuda, samples=_samples, at_least=256)
