"""Data sets that come with other packages."""

from __future__ import annotations

import numpy as np

from gpugrad import random
from gpugrad.data.splits import stratified_split

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
