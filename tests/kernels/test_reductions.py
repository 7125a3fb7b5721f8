"""Reductions: digits, overflow, any axes and layouts, nan and ties, threads."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from gpugrad import kernels
from gpugrad.cuda import emulator
from gpugrad.kernels import reductions

RNG = np.random.default_rng(0)
TWINS = ["reference", "cpu", pytest.param("cuda", marks=pytest.mark.skipif(not emulator.is_available(), reason="needs g++"))]
fast_twins = pytest.mark.parametrize("twin", TWINS[1:])


@pytest.fixture(params=TWINS)
def twin(request: Any) -> Iterator[str]:
    with kernels.use(request.param):
        yield request.param


# ------------------------------------------------------------------------------------------------- digits


@pytest.mark.parametrize(("shape", "axis"), [((10**8,), (0,)), ((5 * 10**7, 2), (0,)), ((2, 5 * 10**7), (1,)), ((2, 5 * 10**7, 1), (0, 1))])
def test_a_sum_of_so_many_ones_is_exact(shape: tuple[int, ...], axis: tuple[int, ...]) -> None:
    """One after the other in float32 they would stop at 2^24."""
    x = np.ones(shape, np.float32)
    assert_array_equal(
        reductions.total(x, axis=axis), np.full([n for i, n in enumerate(shape) if i not in axis], math.prod([shape[i] for i in axis]), np.float32)
    )


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("axis", [(0,), (1,), (0, 1)])
def test_float32_is_right_to_the_last_digit(axis: tuple[int, ...], order: Any, twin: str) -> None:
    """Tenths are not exact in float32; their sum is rounded once, of whatever length."""
    x = np.asarray(RNG.uniform(0.05, 0.15, (1500, 400)).astype(np.float32), order=order)
    expected = x.sum(axis=axis, dtype=np.longdouble)
    assert_allclose(reductions.total(x, axis=axis), expected, rtol=2.0**-23.9)
    assert_allclose(reductions.total(x, axis=axis, mean=True), expected / (x.size / expected.size), rtol=2.0**-23.9)


@fast_twins
@pytest.mark.parametrize("shape", [(400_000, 2), (2, 400_000), (20_000, 33)])
def test_float64_errors_do_not_grow_with_the_length(shape: tuple[int, ...], twin: str) -> None:
    """A sum one after the other is off by 1e-11 here."""
    x = RNG.uniform(0, 1, shape)
    axis = (int(np.argmax(shape)),)
    with kernels.use(twin):
        assert_allclose(reductions.total(x, axis=axis), [math.fsum(v) for v in (x if axis == (1,) else x.T)], rtol=2e-15)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("axis", [0, 1])
def test_moments_keep_the_digits_of_what_is_far_from_0(axis: int, dtype: Any, twin: str) -> None:
    x = (1e4 + RNG.normal(size=(700, 65))).astype(dtype)
    squares, mean = reductions.moments(x, axis=(axis,))
    wide = x.astype(np.longdouble)
    assert_allclose(mean, wide.mean(axis), rtol=1e-15)
    assert_allclose(squares, wide.var(axis) * x.shape[axis], rtol=1e-11)
    y = reductions.deviations(x, np.expand_dims(mean, axis), np.ones_like(np.expand_dims(mean, axis)), axis=(axis,))
    assert_allclose(y, wide - wide.mean(axis, keepdims=True), rtol=0, atol=1e-11 if dtype == np.float64 else 4e-7)


def test_moments_of_what_is_constant(twin: str) -> None:
    x = np.full((3, 40_000), np.float32(0.1))
    for axis in ((0,), (1,), (0, 1)):
        assert_array_equal(reductions.moments(x, axis=axis)[0] < 1e-25, True)


# ------------------------------------------------------------------------------------------------- ranges


def test_a_mean_does_not_overflow_on_the_way(twin: str) -> None:
    assert_array_equal(reductions.total(np.full((5, 3000), 3e38, np.float32), axis=(1,), mean=True), np.full(5, 3e38, np.float32))
    assert_array_equal(reductions.total(np.full((3000, 5), 60000, np.float16), axis=(0,), mean=True), np.full(5, 60000, np.float16))
    with np.errstate(over="ignore"):
        assert reductions.total(np.ones(100_000, np.float16), axis=(0,)) == np.inf
    assert reductions.total(np.full(9000, 1e-30, np.float32), axis=(0,), of="square") == 0
    assert_allclose(reductions.total(np.full(9000, -2.0, np.float32), axis=(0,), of="abs"), 18000)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(3, 20), (3, 40_000), (700, 5), (700, 64)])
@pytest.mark.parametrize("axis", [(0,), (1,), (0, 1)])
def test_nan_and_infinities_go_through(axis: tuple[int, ...], shape: tuple[int, int], dtype: Any, twin: str) -> None:
    for value in (np.nan, -np.nan, np.inf, -np.inf):
        x = RNG.normal(size=shape).astype(dtype)
        x[-1, -2] = value
        with np.errstate(invalid="ignore"):
            assert_allclose(reductions.total(x, axis=axis), x.sum(axis, dtype=np.float64), rtol=1e-5, atol=1e-4)
            for smallest, numpys in ((False, np.max), (True, np.min)):
                y = reductions.extremum(x, axis=axis, smallest=smallest)
                assert_array_equal(y, numpys(x, axis=axis))
                assert y.dtype == dtype
            assert np.isnan(np.sum(reductions.moments(x, axis=axis)[0]))


def test_extrema_of_what_is_special(twin: str) -> None:
    tiny = np.float32(1e-45)
    x = np.array([[-np.inf, -np.inf], [0.0, -0.0], [-tiny, tiny], [-3e38, 3e38]], np.float32).repeat(300, axis=1)
    assert_array_equal(reductions.extremum(x, axis=(1,)), np.array([-np.inf, 0, tiny, 3e38], np.float32))
    assert_array_equal(reductions.extremum(x, axis=(1,), smallest=True), np.array([-np.inf, 0, -tiny, -3e38], np.float32))


# ------------------------------------------------------------------------------------------------- axes and layouts


def layouts(x: Any) -> dict[str, Any]:
    big = np.zeros([2 * n + 1 for n in x.shape], x.dtype)
    strided = big[tuple([slice(1, None, 2)] * x.ndim)]
    strided[...] = x
    offset = np.empty(x.size + 1, x.dtype)[1:].reshape(x.shape)
    offset[...] = x
    return {
        "C": x, "F": np.asfortranarray(x), "reversed": np.ascontiguousarray(x[::-1, :, ::-1])[::-1, :, ::-1], "strided": strided, "offset": offset,
        "moved": np.ascontiguousarray(x.transpose(2, 0, 3, 1)).transpose(1, 3, 0, 2),
    }  # fmt: skip


AXES = [axis for k in range(5) for axis in itertools.combinations(range(4), k)]


@pytest.mark.parametrize("axis", AXES)
def test_any_axes_in_any_layout(axis: tuple[int, ...], twin: str) -> None:
    base = RNG.integers(0, 6, (3, 4, 5, 6)).astype(np.float64)
    count = math.prod([base.shape[i] for i in axis])
    for keepdims, (name, x) in itertools.product((False, True), layouts(base).items()):
        if keepdims and name not in ("C", "moved"):
            continue
        assert_array_equal(reductions.total(x, axis=axis, keepdims=keepdims), base.sum(axis=axis, keepdims=keepdims), err_msg=name)
        assert_array_equal(reductions.extremum(x, axis=axis, keepdims=keepdims), base.max(axis=axis, keepdims=keepdims), err_msg=name)
        squares, mean = reductions.moments(x, axis=axis, keepdims=keepdims)
        assert_allclose(squares, base.var(axis=axis, keepdims=keepdims) * count, atol=1e-12, err_msg=name)
        assert_allclose(mean, base.mean(axis=axis, keepdims=keepdims), err_msg=name)
        y, g = base.max(axis=axis, keepdims=True), base.sum(axis=axis, keepdims=True)
        chosen = base == y
        share = np.where(chosen, g / chosen.sum(axis=axis, keepdims=True), 0)
        assert_allclose(reductions.extremum_backward(x, g, y, axis=axis), share, rtol=1e-15, err_msg=name)
        assert_allclose(reductions.deviations(x, g, y, axis=axis), y * (base - g), rtol=1e-15, err_msg=name)


@pytest.mark.parametrize("axis", [(0,), (1,), (2,), (0, 2), (0, 1, 2), ()])
def test_what_was_broadcast_is_not_read_again(axis: tuple[int, ...], twin: str) -> None:
    for source in ((1, 3, 1), (4, 1, 5), (1, 1, 1)):
        x = np.broadcast_to(RNG.integers(1, 9, source).astype(np.float32), (4, 3, 5))
        y = reductions.total(x, axis=axis)
        assert_array_equal(y, x.copy().sum(axis=axis))
        assert_array_equal(reductions.extremum(x, axis=axis), x.max(axis=axis))
        assert np.asarray(y).flags.writeable or twin == "reference"
    huge = np.broadcast_to(np.float32(1), (10**6, 10**6))
    if twin != "reference":
        assert reductions.total(huge, axis=(0, 1)) == np.float32(1e12)


@pytest.mark.parametrize("dtype", [">f4", np.int8, np.bool_, np.complex64])
def test_other_dtypes_are_numpys(dtype: Any, twin: str) -> None:
    x = RNG.integers(0, 2, (300, 7)).astype(dtype)
    y = reductions.total(x, axis=(0,))
    assert_array_equal(y, x.sum(axis=0))
    assert y.dtype == x.sum(axis=0).dtype.newbyteorder("=") or y.dtype == dtype
    assert_allclose(reductions.total(x, axis=(0,), mean=True), x.mean(axis=0), rtol=1e-6)
    assert_array_equal(reductions.extremum(x, axis=(0,)), x.max(axis=0))


def test_empty_and_without_axes(twin: str) -> None:
    assert_array_equal(reductions.total(np.zeros((0, 3), np.float32), axis=(0,)), np.zeros(3))
    assert reductions.total(np.zeros((0, 3), np.float32), axis=(1,)).shape == (0,)
    assert reductions.total(np.array(2.5, np.float32), axis=()) == 2.5
    assert reductions.extremum(np.zeros((0, 3), np.float32), axis=(1,)).shape == (0,)
    with pytest.raises(ValueError):
        reductions.extremum(np.zeros((0, 3), np.float32), axis=(0,))
    x = np.ones(3, np.float32)
    assert not np.shares_memory(reductions.total(x, axis=()), x)


def test_passes() -> None:
    assert reductions.passes((4, 5, 6), (1, 2)) == ((4, 30, 1),)
    assert reductions.passes((4, 1, 6), (0, 1)) == ((1, 4, 6),)
    assert reductions.passes((64, 3, 100), (0, 2)) == ((192, 100, 1), (1, 64, 3))
    assert reductions.passes((2, 3, 4, 5), (0, 2)) == ((6, 4, 5), (1, 2, 15))
    assert reductions.passes((2, 3), ()) == reductions.passes((1, 1), (0, 1)) == ()


# ------------------------------------------------------------------------------------------------- threads


@pytest.mark.parametrize(("shape", "axis"), [((3001, 300), (0,)), ((3001, 300), (1,)), ((900_001,), (0,)), ((300_001, 3), (0,)), ((40, 300, 76), (1,))])
def test_the_same_bits_on_any_number_of_threads(shape: tuple[int, ...], axis: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    x = RNG.normal(size=shape)
    found = []
    for threads in ("1", "2", "5"):
        monkeypatch.setitem(os.environ, "GPUGRAD_NUM_THREADS", threads)
        y = reductions.extremum(x, axis=axis, keepdims=True)
        squares, mean = reductions.moments(x, axis=axis, keepdims=True)
        back = reductions.extremum_backward(x, mean, y, axis=axis), reductions.deviations(x, mean, squares, axis=axis)
        found.append([a.tobytes() for a in (reductions.total(x, axis=axis), y, squares, mean, *back)])
    assert found[0] == found[1] == found[2]
