"""Splits into parts for training, validation and testing: every example in exactly one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from gpugrad import backend, random
from gpugrad.data.dataset import Subset, as_dataset
from gpugrad.tape import plain


def random_split(dataset: Any, lengths: Sequence[float], *, stratify: Any = None, generator: Any = None) -> list[Subset]:
    """``dataset`` in parts, drawn at random; every example is in exactly one.

    Args:
        lengths: integers that sum to ``len(dataset)``, or fractions (floats) that sum to 1. What fractions leave over goes to the largest remainders, so
            that a part has its fraction to less than one example.
        stratify: labels, one for each example: a part has its share of each class, to one example.
        generator: by default ``gpugrad.random.Generator(0)``: the same parts each time, whatever else has drawn numbers.

    Raises:
        ValueError: negative lengths, lengths or fractions of another sum, or labels of another number than there are examples.
    """
    dataset = as_dataset(dataset)
    n = len(dataset)
    sizes = _sizes(lengths, n)
    order = plain((random.Generator(0) if generator is None else generator).permutation(n))
    part = np.repeat(np.arange(len(sizes)), sizes)
    if stratify is not None:
        labels = backend.to_device(plain(stratify), "cpu")
        if np.shape(labels) != (n,):
            raise ValueError(f"stratify must hold one label for each of {n} examples, got shape {np.shape(labels)}")
        part = _stratified(np.asarray(labels)[order], np.asarray(sizes))
    return [Subset(dataset, order[part == i]) for i in range(len(sizes))]


def _sizes(lengths: Sequence[float], n: int) -> list[int]:
    given = ", ".join(map(str, lengths))
    if not len(lengths) or not all(math.isfinite(x) and x >= 0 for x in lengths):
        raise ValueError(f"expected lengths or fractions that are not negative, got ({given})")
    if all(isinstance(x, (int, np.integer)) for x in lengths):
        if sum(lengths) != n:
            raise ValueError(f"the lengths ({given}) sum to {sum(lengths)}, but the dataset has {n} examples")
        return [int(x) for x in lengths]
    if not math.isclose(math.fsum(lengths), 1, abs_tol=1e-6):
        raise ValueError(f"the fractions ({given}) sum to {math.fsum(lengths):.6g}, expected 1; lengths are integers")
    exact = np.asarray(lengths, np.float64) / math.fsum(lengths) * n
    sizes = np.floor(exact).astype(np.int64)
    sizes[np.argsort(sizes - exact, kind="stable")[: n - sizes.sum()]] += 1
    return sizes.tolist()


def _stratified(labels: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """The part of each example: of every class (row) each part (column) has its share, rounded down or up such that rows and columns sum to what they must.

    What rounding down leaves over goes, class by class, to the parts that lack most (H. Ryser, "Combinatorial properties of matrices of zeros and ones", 1957).
    """
    _, first, classes, counts = np.unique(labels, return_index=True, return_inverse=True, return_counts=True)
    table, remainders = np.divmod(np.outer(counts, sizes), max(len(labels), 1))
    lacking = sizes - table.sum(0)
    for c in np.argsort(first):  # the labels come in random order
        chosen = np.lexsort((-remainders[c], -lacking))[: counts[c] - table[c].sum()]
        table[c, chosen] += 1
        lacking[chosen] -= 1
    part = np.empty(len(labels), np.int64)
    part[np.argsort(classes, kind="stable")] = np.repeat(np.tile(np.arange(len(sizes)), len(counts)), table.ravel())
    return part


def stratified_split(labels: np.ndarray, test_fraction: float, generator: Any = random) -> tuple[np.ndarray, np.ndarray]:
    """Indices for training and for testing, in which every class has its share: ``test_fraction`` of each, rounded, is for testing.

    Raises:
        ValueError: ``test_fraction`` is not in (0, 1).
    """
    if not 0 < test_fraction < 1:
        raise ValueError(f"test_fraction must lie between 0 and 1, got {test_fraction}")
    train, test = [], []
    for label in np.unique(labels):
        members = generator.permutation(np.flatnonzero(labels == label)).numpy()
        n = round(test_fraction * len(members))
        test.append(members[:n])
        train.append(members[n:])
    return np.concatenate(train), np.concatenate(test)
