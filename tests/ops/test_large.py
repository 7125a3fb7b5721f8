"""Sums and products of large arrays on several threads: the bits, errors and warnings of one."""

from __future__ import annotations

import os
import warnings
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import gpugrad as gg
from gpugrad.ops import large

RNG = np.random.default_rng(0)
X = RNG.normal(size=(1031, 1031)).astype(np.float32)
OTHERS = {
    "same": X[::-1].copy(), "row": X[0], "one row": X[:1], "column": X[:, :1], "transpose": X.T, "reversed": X[::-1], "0-d": X[0, 0, ...], "float64": X.astype(float),
    "number": 2.5, "more axes": X[None], "big-endian": X.astype(">f4"),
}  # fmt: skip


@pytest.mark.parametrize("threads", ["1", "3"])
@pytest.mark.parametrize("other", OTHERS)
@pytest.mark.parametrize("name", ["add", "subtract", "multiply"])
def test_the_bits_are_numpys(name: str, other: str, threads: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "GPUGRAD_NUM_THREADS", threads)
    b = OTHERS[other]
    for x, y in ((X, b), (b, X)):
        found, expected = getattr(gg, name)(x, y), getattr(np, name)(x, y)
        assert_array_equal(found, expected)
        assert found.dtype == expected.dtype and found.shape == expected.shape


def test_threads_are_used_and_gradients_flow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "GPUGRAD_NUM_THREADS", "3")
    pieces: list[int] = []
    split = large.split
    monkeypatch.setattr(large, "split", lambda f, n, least: split(lambda a, b: (pieces.append(a), f(a, b))[1], n, least))
    x, b = gg.tensor(X, requires_grad=True), gg.tensor(X[0], requires_grad=True)
    gg.sum(x * x + b).backward()
    assert len(pieces) >= 4
    assert_array_equal(x.grad.numpy(), 2 * X)
    assert_array_equal(b.grad.numpy(), np.full(1031, 1031, np.float32))


def test_errors_are_those_of_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    """NumPy's settings belong to a thread, and those that help have none."""
    monkeypatch.setitem(os.environ, "GPUGRAD_NUM_THREADS", "3")
    huge: Any = np.full((1100, 1000), 3e38, np.float32)
    with np.errstate(over="raise"), pytest.raises(FloatingPointError):
        gg.add(huge, huge)
    with np.errstate(over="ignore"), warnings.catch_warnings(action="error"):
        assert np.isinf(gg.add(huge, huge)).all()
