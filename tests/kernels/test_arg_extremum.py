"""argmax and argmin: the first of equals, nan, zeros of either sign, pieces of long rows and columns, layouts, threads."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import gpugrad as gg
from gpugrad import kernels
from gpugrad.cuda import emulator
from gpugrad.kernels.arg_extremum import arg_extremum

TWINS = ["reference", "cpu", pytest.param("cuda", marks=pytest.mark.skipif(not emulator.is_available(), reason="needs g++"))]


@pytest.fixture(params=TWINS)
def twin(request: Any) -> Iterator[str]:
    with kernels.use(request.param):
        yield request.param


def contents(shape: tuple[int, ...], dtype: Any) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    ties = rng.integers(-3, 4, shape).astype(dtype)
    special = ties.copy()
    special[rng.random(shape) < 0.01] = np.inf
    special[rng.random(shape) < 0.01] = -np.inf
    special[rng.random(shape) < 0.002] = np.nan
    special[rng.random(shape) < 0.002] = -np.nan
    zeros = np.where(rng.random(shape) < 0.5, -0.0, 0.0).astype(dtype)
    return {"ties": ties, "distinct": rng.normal(size=shape).astype(dtype), "special": special, "zeros": zeros, "lowest": np.full(shape, -np.inf, dtype)}


# of one chunk, of several, of several pieces; the same for columns, and more than a tile of them
@pytest.mark.parametrize("shape", [(3,), (7, 1), (513,), (40_000,), (3, 20_000), (700, 65), (4, 300, 3), (3, 270), (3, 5, 7)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_as_numpys(shape: tuple[int, ...], dtype: Any, twin: str) -> None:
    for name, x in contents(shape, dtype).items():
        for view in (x, x[::-1], x.T, x[..., ::2], np.asfortranarray(x)):
            for axis in (None, *range(-x.ndim, x.ndim)):
                for smallest, numpys in ((False, np.argmax), (True, np.argmin)):
                    y, expected = arg_extremum(view, axis=axis, smallest=smallest), numpys(view, axis=axis)
                    assert_array_equal(y, expected, err_msg=name)
                    assert y.dtype == np.int64
        assert arg_extremum(x, axis=-1, keepdims=True).shape == (*x.shape[:-1], 1)
        assert arg_extremum(x, axis=None, keepdims=True).shape == (1,) * x.ndim


def test_the_first_nan_wins_in_whatever_piece(twin: str) -> None:
    for where in (0, 511, 512, 8192, 16_383, 16_384, 39_999):
        x = np.zeros((40_000, 2), np.float32)
        x[where:, 1] = np.nan
        x[:, 0] = np.inf
        for rows in (x.T.copy(), x.T):
            assert_array_equal(arg_extremum(rows, axis=1), [0, where])
            assert_array_equal(arg_extremum(rows, axis=1, smallest=True), [0, where])


@pytest.mark.skipif(not emulator.is_available(), reason="needs g++")
@pytest.mark.parametrize("order", emulator.ORDERS)
def test_any_order_of_threads(order: str) -> None:
    with kernels.use("cuda"), emulator.schedule(order, 3):
        for shape in ((2, 20_000), (600, 5)):
            x = contents(shape, np.float32)["ties"]
            for axis in (0, 1, None):
                assert_array_equal(arg_extremum(x, axis=axis), x.argmax(axis))


@pytest.mark.skipif(not emulator.is_available(), reason="needs g++")
def test_16_bits() -> None:
    x = contents((40, 300), np.float16)["special"]
    for twin in ("cpu", "cuda"):
        with kernels.use(twin):
            assert_array_equal(arg_extremum(x, axis=0), np.argmax(x, axis=0))
            assert_array_equal(arg_extremum(x, axis=1, smallest=True), np.argmin(x, axis=1))


def test_the_rest_is_numpys(twin: str) -> None:
    for x in (np.array([[False, True], [True, True]]), np.array([[1, 3], [3, 2]]), np.array([[1 + 2j, 3], [3, 3 + 1j]]), np.array([[1.0, 3], [3, 2]], ">f4")):
        assert_array_equal(arg_extremum(x, axis=1), np.argmax(x, axis=1))
    assert arg_extremum(np.float32(2)[...], axis=None) == 0
    assert arg_extremum(np.zeros((0, 3), np.float32), axis=1).shape == (0,)
    with pytest.raises(ValueError, match="empty"):
        arg_extremum(np.zeros((0, 3), np.float32), axis=0)
    with pytest.raises(np.exceptions.AxisError):
        arg_extremum(np.ones((2, 3), np.float32), axis=2)


@pytest.mark.parametrize(("shape", "axis"), [((3001, 300), 0), ((3001, 300), 1), ((900_001,), 0), ((300_001, 3), 0)])
def test_any_number_of_threads(shape: tuple[int, ...], axis: int, monkeypatch: pytest.MonkeyPatch) -> None:
    x = contents(shape, np.float32)["ties"]
    for threads in ("1", "2", "5"):
        monkeypatch.setitem(os.environ, "GPUGRAD_NUM_THREADS", threads)
        assert_array_equal(arg_extremum(x, axis=axis), x.argmax(axis))


def test_the_operation(twin: str) -> None:
    x = gg.tensor(contents((50, 30), np.float32)["ties"], requires_grad=True)
    assert_array_equal(gg.argmax(x, 0).numpy(), x.data.argmax(0))
    assert_array_equal(x.argmin(axis=1, keepdims=True).numpy(), x.data.argmin(axis=1, keepdims=True))
    assert gg.argmax(x).shape == () and not gg.argmax(x).requires_grad
