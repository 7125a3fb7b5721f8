"""Data to learn from: sets that come with other packages, splits and minibatches."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from gpugrad import random
from gpugrad.backend import device_of, to_device
from gpugrad.tape import plain

__all__ = ["load_digits", "minibatches", "stratified_split"]

Split = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def load_digits(test_fraction: float = 0.2, seed: int = 0) -> Split:
    """The 1797 handwritten digits of 8x8 pixels that scikit-learn ships (E. Alpaydin and C. Kaynak, UCI repository, 1998).

    Returns:
        x_train, y_train, x_test, y_test: images as float32 rows of 64 numbers in [0, 1], labels 0 to 9; split by :func:`stratified_split`.

    Raises:
        ImportError: scikit-learn is missing, with the remedy.
    """
    try:
        from sklearn import datasets
    except ImportError as error:
        raise ImportError(f"the digits come with scikit-learn, which cannot be imported ({error}): pip install 'gpugrad[demo]'") from None
    images, labels = datasets.load_digits(return_X_y=True)
    x, y = (images / 16).astype(np.float32), labels.astype(np.int64)
    train, test = stratified_split(y, test_fraction, random.Generator(seed))
    return x[train], y[train], x[test], y[test]


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


def minibatches(x: Any, y: Any, batch_size: int, generator: Any = random) -> Iterator[tuple[Any, Any]]:
    """One pass over x and y (arrays or Tensors) in random order: pairs of at most ``batch_size`` rows, on their own device.

    Raises:
        ValueError: different lengths, or no batch size.
    """
    if len(x) != len(y):
        raise ValueError(f"minibatches: got {len(x)} rows of x and {len(y)} of y")
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    order = to_device(generator.permutation(len(x)).data, device_of(plain(x)))
    for start in range(0, len(x), batch_size):
        rows = order[start : start + batch_size]
        yield x[rows], y[rows]
