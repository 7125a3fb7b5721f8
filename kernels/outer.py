"""Columns times rows: y[i] = a[i] b[i]', which is what the gradient of each example by a weight is (:func:`gpugrad.vmap` of a gradient).

There is nothing to reuse, so this is a question of writing y. NumPy's loops begin anew for each of its rows, and BLAS is not made for products this thin.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gpugrad.kernels.kernel import Kernel


def _outer(a: Any, b: Any) -> Any:
    """a (n, m) and b (n, k) to (n, m, k)."""
    return a[:, :, None] * b[:, None, :]


def _samples(rng: np.random.Generator, dtype: Any) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
    def drawn(*shape: int) -> Any:
        return rng.standard_normal(shape).astype(dtype)

    sizes = ((0, 3, 2), (1, 1, 1), (4, 0, 3), (3, 5, 7), (7, 33, 65), (2, 300, 129))
    fortran = np.asfortranarray(drawn(5, 40)), drawn(10, 48)[::2, ::-2]
    return [
        *[((drawn(n, m), drawn(n, k)), {}) for n, m, k in sizes],
        (fortran, {}),
        ((np.array([[np.inf, 0, np.nan]], dtype), np.array([[0, 1, -np.inf]], dtype)), {}),
    ]


outer = Kernel("outer", _outer, cpu="outer_cpu:outer", cuda=_outer, samples=_samples, at_least=1)
