"""Normalisation in its twins: digits at a large mean, constants, large numbers, memory layouts. That they agree is tested with those of all kernels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from gpugrad import kernels
from gpugrad.cuda import emulator
from gpugrad.kernels import normalise

TWINS = ["reference", "cpu", pytest.param("cuda", marks=pytest.mark.skipif(not emulator.is_available(), reason="needs g++"))]
every_twin = pytest.mark.parametrize("twin", TWINS)
either_axis = pytest.mark.parametrize("axis", [0, 1])
RNG = np.random.default_rng(0)


def run(twin: str, x: Any, axis: int, eps: float = 1e-5, centred: bool = True) -> Any:
    with kernels.use(twin):
        return normalise.standardize(x, axis=axis, eps=eps, centred=centred)


def truth(x: Any, axis: int, eps: float = 1e-5, centred: bool = True) -> Any:
    """In longdouble, straight from the definition."""
    x = x.astype(np.longdouble)
    m = x.mean(axis=axis, keepdims=True) if centred else np.zeros((), np.longdouble)
    v = ((x - m) ** 2).mean(axis=axis, keepdims=True)
    return (x - m) / np.sqrt(v + eps), v.ravel(), m.ravel()


@every_twin
@either_axis
@pytest.mark.parametrize("mean", [0.0, 1e4, -3e5])
def test_a_large_mean_costs_no_digits(twin: str, axis: int, mean: float) -> None:
    """Of float32 with standard deviation 1 around 1e4, which is stored to 1e-3: h is as exact as if the mean had been 0."""
    x = RNG.normal(mean, 1, (300, 257)).astype(np.float32)
    h, v, m = run(twin, x, axis)
    expected_h, expected_v, expected_m = truth(x, axis)
    assert h.dtype == v.dtype == m.dtype == np.float32
    assert_allclose(h, expected_h.astype(float), rtol=0, atol=3e-6)
    assert_allclose(v, expected_v.astype(float), rtol=3e-6)
    assert_allclose(m, expected_m.astype(float), rtol=1e-7, atol=1e-7)


@every_twin
@either_axis
def test_float64_too_subtracts_what_the_rounding_of_the_mean_leaves(twin: str, axis: int) -> None:
    x = RNG.normal(1e10, 1, (300, 257))
    assert_allclose(run(twin, x, axis)[0], truth(x, axis)[0].astype(float), rtol=0, atol=3e-9)  # the mean itself is rounded to 1e-6


@every_twin
@either_axis
@pytest.mark.parametrize("value", [0.0, 0.1, 10000.1, -1e30])
def test_constants_become_zero(twin: str, axis: int, value: float) -> None:
    """Not what the rounding of the mean leaves, divided by the root of eps."""
    h, v, m = run(twin, np.full((67, 67), value, np.float32), axis)
    assert_allclose(m, value, rtol=1e-7)
    if twin == "cuda":  # whose sums are of float32
        assert_allclose(h, 0, atol=1e-6 if abs(value) < 1e30 else 2)
    else:
        assert_array_equal(h, 0)
        assert_array_equal(v, 0)


@every_twin
@either_axis
def test_one_element_and_none(twin: str, axis: int) -> None:
    for shape in ((1, 1), (0, 3), (3, 0)):
        h, v, m = run(twin, np.ones(shape, np.float32), axis)
        assert h.shape == shape
        assert v.shape == m.shape == (shape[1 - axis],)
        assert_array_equal(h, 0)


@pytest.mark.parametrize("twin", ["reference", "cpu"])
@either_axis
def test_numbers_whose_squares_overflow(twin: str, axis: int) -> None:
    x = RNG.normal(0, 1e30, (50, 50)).astype(np.float32)
    assert_allclose(run(twin, x, axis)[0], truth(x, axis)[0].astype(float), rtol=1e-5, atol=1e-6)


@every_twin
@either_axis
@pytest.mark.parametrize("centred", [True, False])
def test_nan_and_infinity_stay_in_their_row_or_column(twin: str, axis: int, centred: bool) -> None:
    x = RNG.normal(size=(40, 60)).astype(np.float32)
    y = x.copy()
    y[3, 5], y[7, 9] = np.nan, np.inf
    bad = np.zeros(x.shape, bool)
    bad[(slice(None), [5, 9]) if axis == 0 else ([3, 7], slice(None))] = True
    h, clean = run(twin, y, axis, centred=centred)[0], run(twin, x, axis, centred=centred)[0]
    assert_array_equal(h[~bad], clean[~bad])
    assert np.isnan(h[3, 5])
    assert np.isnan(h[7, 9])


@every_twin
@either_axis
def test_any_layout(twin: str, axis: int) -> None:
    x = RNG.normal(size=(60, 50)).astype(np.float32)
    for other in (np.asfortranarray(x), np.repeat(x, 2, axis=1)[:, ::2], x[::-1].copy()[::-1]):
        for a, b in zip(run(twin, other, axis), run(twin, x, axis), strict=True):
            assert_array_equal(a, b)
        r = np.ones(x.shape[1 - axis], np.float32)
        with kernels.use(twin):
            assert_array_equal(normalise.slope(other, other, r, axis=axis), normalise.slope(x, x, r, axis=axis))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@either_axis
def test_threads_change_no_bits(axis: int, dtype: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Enough elements to be shared out."""
    x = RNG.normal(size=(700, 701)).astype(dtype)
    found = []
    for threads in ("1", "3"):
        monkeypatch.setenv("GPUGRAD_NUM_THREADS", threads)
        h, v, m = run("cpu", x, axis)
        with kernels.use("cpu"):
            found.append([a.tobytes() for a in (h, v, m, normalise.slope(h, x, v, axis=axis))])
    assert found[0] == found[1]
