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
RNG = np.random.default_rng(0)
# how matrices are laid as (outer, channels, inner), with channels of about 300 numbers
CUBES = {"rows": ((1, 257, 300), 2), "columns": ((300, 257, 1), 1), "cubes": ((6, 33, 50), 1)}
every_cube = pytest.mark.parametrize(("shape", "along"), CUBES.values(), ids=CUBES)


def run(twin: str, x: Any, along: int, eps: float = 1e-5, centred: bool = True, weight: Any = None, bias: Any = None) -> Any:
    """h, and the variance and the mean of each channel."""
    with kernels.use(twin):
        y, (m, drift, r, v) = normalise.standardize(x, weight, bias, along=along, eps=eps, centred=centred)
    assert m.dtype == drift.dtype == r.dtype == v.dtype == y.dtype == x.dtype
    assert_allclose(r, 1 / np.sqrt(v.astype(np.longdouble) + eps), rtol=1e-6)
    return y, v, m.astype(np.longdouble) + drift


def truth(x: Any, eps: float = 1e-5, centred: bool = True) -> Any:
    """In longdouble, straight from the definition."""
    x = x.astype(np.longdouble)
    m = x.mean(axis=(0, 2), keepdims=True) if centred else np.zeros((), np.longdouble)
    v = ((x - m) ** 2).mean(axis=(0, 2), keepdims=True)
    return (x - m) / np.sqrt(v + eps), v.ravel(), m.ravel()


@every_twin
@every_cube
@pytest.mark.parametrize("mean", [0.0, 1e4, -3e5])
def test_a_large_mean_costs_no_digits(twin: str, shape: Any, along: int, mean: float) -> None:
    """Of float32 with standard deviation 1 around 1e4, which is stored to 1e-3: h is as exact as if the mean had been 0, forward and where it is made again."""
    x = RNG.normal(mean, 1, shape).astype(np.float32)
    h, v, m = run(twin, x, along)
    expected_h, expected_v, expected_m = truth(x)
    assert_allclose(h, expected_h.astype(float), rtol=0, atol=3e-6)
    assert_allclose(v, expected_v.astype(float), rtol=3e-6)
    assert_allclose(m.astype(float), expected_m.astype(float), rtol=1e-7, atol=1e-7)
    g = np.zeros(shape, np.float32)  # the gradient of a weight by one element is that of h
    g[:, :, 0] = 1 if along == 2 else 0
    g[0, :, 0] = 1
    with kernels.use(twin):
        stats = normalise.standardize(x, along=along, eps=1e-5)[1]
        dw = normalise.standardize_backward(x, stats, None, g, along=along)[1]
    assert_allclose(dw, (expected_h * g).sum(axis=(0, 3 - along)).astype(float), rtol=2e-6, atol=1e-5)


@every_twin
@every_cube
def test_an_outlier_in_the_first_place(twin: str, shape: Any, along: int) -> None:
    """From which the Numba twin measures: all others are then far away from it."""
    x = RNG.normal(0, 1, shape).astype(np.float32)
    x[0, :, 0] = 1e6
    h, v, _ = run(twin, x, along)
    assert_allclose(v, truth(x)[1].astype(float), rtol=3e-6)
    assert_allclose(h, truth(x)[0].astype(float), rtol=3e-6, atol=1e-6)


@every_twin
@every_cube
def test_float64_too_subtracts_what_the_rounding_of_the_mean_leaves(twin: str, shape: Any, along: int) -> None:
    x = RNG.normal(1e10, 1, shape)
    assert_allclose(run(twin, x, along)[0], truth(x)[0].astype(float), rtol=0, atol=3e-9)  # the mean itself is rounded to 1e-6


@every_twin
@every_cube
@pytest.mark.parametrize("value", [0.0, 0.1, 10000.1, -1e30])
def test_constants_become_zero(twin: str, shape: Any, along: int, value: float) -> None:
    """Not what the rounding of the mean leaves, divided by the root of eps."""
    h, v, m = run(twin, np.full(shape, value, np.float32), along)
    assert_allclose(m.astype(float), value, rtol=1e-7)
    if twin == "cuda":  # whose sums are of float32
        assert_allclose(h, 0, atol=1e-6 if abs(value) < 1e30 else 2)
    else:
        assert_array_equal(h, 0)
        assert_array_equal(v, 0)


@every_twin
@pytest.mark.parametrize("along", [1, 2])
def test_one_element_and_none(twin: str, along: int) -> None:
    for shape in ((1, 1, 1), (1, 0, 3), (1, 3, 0), (0, 3, 1), (2, 0, 3)):
        x = np.ones(shape, np.float32)
        h, v, m = run(twin, x, along)
        assert h.shape == shape
        assert v.shape == m.shape == shape[1:2]
        assert_array_equal(h, 0)
        with kernels.use(twin):
            stats = normalise.standardize(x, along=along, eps=1e-5)[1]
            dx, dw, db = normalise.standardize_backward(x, stats, None, x, along=along)
            by_x, by_w, by_g = normalise.standardize_twice(x, stats, None, x, x, None, None, along=along)
        assert dx.shape == by_x.shape == by_g.shape == shape
        assert dw.shape == db.shape == by_w.shape == (shape[along],)
        assert_array_equal(db, shape[0] * shape[3 - along])


@pytest.mark.parametrize("twin", ["reference", "cpu"])
@every_cube
def test_numbers_whose_squares_overflow(twin: str, shape: Any, along: int) -> None:
    x = RNG.normal(0, 1e30, shape).astype(np.float32)
    with kernels.use(twin):
        h = normalise.standardize(x, along=along, eps=1e-5)[0]
    assert_allclose(h, truth(x)[0].astype(float), rtol=1e-5, atol=1e-6)


@every_twin
@every_cube
@pytest.mark.parametrize("centred", [True, False])
def test_nan_and_infinity_stay_in_their_channel(twin: str, shape: Any, along: int, centred: bool) -> None:
    x = RNG.normal(size=shape).astype(np.float32)
    y = x.copy()
    y[0, 5, 0], y[-1, 9, -1], y[0, 11, 0] = np.nan, np.inf, -np.inf
    fine = np.ones(shape[1], bool)
    fine[[5, 9, 11]] = False
    g = RNG.normal(size=shape).astype(np.float32)
    with kernels.use(twin):
        (h, stats), (clean, _) = (normalise.standardize(a, along=along, eps=1e-5, centred=centred) for a in (y, x))
        dx, dw, _ = normalise.standardize_backward(y, stats, None, g, along=along, centred=centred)
        by_x = normalise.standardize_twice(y, stats, None, g, g, None, None, along=along, centred=centred)[0]
    assert_array_equal(h[:, fine], clean[:, fine])
    assert np.isfinite(dx[:, fine]).all()
    assert np.isfinite(by_x[:, fine]).all()
    for a in (h, dx, by_x):
        assert np.isnan(a[0, 5, 0])
        assert np.isnan(a[-1, 9, -1])
        assert np.isnan(a[0, 11, 0])
    assert np.isnan(dw[[5, 9, 11]] if along == 1 else dw[[0, -1]]).all()


@every_twin
@every_cube
def test_any_layout(twin: str, shape: Any, along: int) -> None:
    x = RNG.normal(size=shape).astype(np.float32)
    w, b = RNG.normal(size=(2, shape[along])).astype(np.float32)
    with kernels.use(twin):
        stats = normalise.standardize(x, along=along, eps=1e-5)[1]
        expected = normalise.standardize(x, w, b, along=along, eps=1e-5)[0], *normalise.standardize_backward(x, stats, w, x, along=along)
        for lay in (np.asfortranarray, lambda a: np.repeat(a, 2, axis=-1)[..., ::2], lambda a: a[::-1].copy()[::-1], lambda a: a.astype(a.dtype)):
            y = normalise.standardize(lay(x), lay(w), lay(b), along=along, eps=1e-5)[0]
            for a, e in zip((y, *normalise.standardize_backward(lay(x), lay(stats), lay(w), lay(x), along=along)), expected, strict=True):
                if twin == "reference":  # NumPy sums in the order in which an array lies
                    assert_allclose(a, e, rtol=1e-5, atol=1e-6)
                else:
                    assert_array_equal(a, e)


def test_another_order_of_bytes() -> None:
    x = RNG.normal(size=(1, 30, 40)).astype(">f4")
    y, stats = normalise.standardize(x, along=2, eps=1e-5)
    assert_allclose(y, truth(x)[0].astype(float), atol=3e-6)
    assert normalise.standardize_backward(x, stats, None, x, along=2)[0].dtype == ">f4"


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("shape", "along"), [((1, 700, 701), 2), ((700, 701, 1), 1), ((9, 70, 801), 1)])
def test_threads_change_no_bits(shape: Any, along: int, dtype: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Enough elements to be shared out."""
    x, g, c = RNG.normal(size=(3, *shape)).astype(dtype)
    w, b = RNG.normal(size=(2, shape[along])).astype(dtype)
    found = []
    for threads in ("1", "3"):
        monkeypatch.setenv("GPUGRAD_NUM_THREADS", threads)
        with kernels.use("cpu"):
            y, stats = normalise.standardize(x, w, b, along=along, eps=1e-5)
            all_of = y, stats, *normalise.standardize_backward(x, stats, w, g, along=along), *normalise.standardize_twice(x, stats, w, g, c, w, b, along=along)
        found.append([a.tobytes() for a in all_of])
    assert found[0] == found[1]


@every_twin
@every_cube
def test_only_what_is_needed(twin: str, shape: Any, along: int) -> None:
    """With the bits that it has when all is."""
    x, g, c = RNG.normal(size=(3, *shape)).astype(np.float32)
    w, b = RNG.normal(size=(2, shape[along])).astype(np.float32)
    with kernels.use(twin):
        stats = normalise.standardize(x, w, b, along=along, eps=1e-5)[1]
        for f in (
            lambda needs: normalise.standardize_backward(x, stats, w, g, along=along, needs=needs),
            lambda needs: normalise.standardize_twice(x, stats, w, g, c, w, b, along=along, needs=needs),
        ):
            full = f((True, True, True))
            for needs in ((True, False, False), (False, True, False), (False, False, True), (False, True, True)):
                for a, e, need in zip(f(needs), full, needs, strict=True):
                    assert (a is not None) == need
                    if need:
                        assert_array_equal(a, e)


@pytest.mark.parametrize("rows", [100_000])
def test_gradients_of_weights_of_many_rows(rows: int) -> None:
    """A sum of float32 in one go would be off by a part in a thousand."""
    x = np.broadcast_to(np.asarray([1.0, -1.0, 3.0], np.float32), (1, rows, 3))
    g = np.full(x.shape, 0.1, np.float32)
    with kernels.use("cpu"):
        stats = normalise.standardize(x, along=2, eps=0.0)[1]
        _, dw, db = normalise.standardize_backward(x, stats, None, g, along=2)
    h = (np.asarray([1.0, -1.0, 3.0]) - 1) / np.sqrt(8 / 3)
    assert_allclose(db, rows * float(np.float32(0.1)), rtol=3e-7)
    assert_allclose(dw, rows * float(np.float32(0.1)) * h, rtol=3e-7, atol=1e-3)
