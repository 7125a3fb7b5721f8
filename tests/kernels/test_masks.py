"""Choices and mask products in their twins: nan, signs of zero, ties, bounds, layouts, broadcasting, and the derivatives that are made of them. That the twins agree is tested with those of all kernels."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import gpugrad as gg
from gpugrad import kernels
from gpugrad.cuda import emulator
from gpugrad.kernels import masks

TWINS = ["reference", "cpu", pytest.param("cuda", marks=pytest.mark.skipif(not emulator.is_available(), reason="needs g++"))]
every_twin = pytest.mark.parametrize("twin", TWINS)
every_dtype = pytest.mark.parametrize("dtype", [np.float32, np.float64])
RNG = np.random.default_rng(0)
NAN, INF = math.nan, math.inf
X = np.array([NAN, -INF, -2.0, -0.0, 0.0, 1.0, 2.0, INF])


@every_twin
@every_dtype
def test_relu_and_clip_at_their_kinks(twin: str, dtype: Any) -> None:
    x, d = X.astype(dtype), np.arange(1, 9).astype(dtype)
    with kernels.use(twin):
        assert_array_equal(masks.positive(d, x), [1, 0, 0, 0, 0, 6, 7, 8])
        assert_array_equal(masks.within(d, x, -2.0, 1.0), [1, 0, 3, 4, 5, 6, 0, 0])
        assert_array_equal(masks.within(d, x, -INF, 0.0), [1, 2, 3, 4, 5, 0, 0, 0])
        assert masks.positive(d, x).dtype == masks.within(d, x, -2, 1).dtype == dtype


@every_twin
@every_dtype
def test_nan_of_the_cotangent_stays(twin: str, dtype: Any) -> None:
    d, one = np.array([NAN, INF, -INF], dtype), np.ones(3, dtype)
    with kernels.use(twin):
        for y in (
            masks.positive(d, one),
            masks.within(d, one, 0.0, 2.0),
            masks.share(d, one, 0.0, of="maximum"),
            masks.share(d, one, 1.0, of="fmin"),
            masks.strong_product(d, one),
        ):
            assert_array_equal(y, d)


@every_twin
@every_dtype
def test_ties_and_nan_of_maxima(twin: str, dtype: Any) -> None:
    a, b = np.array([1, 2, 3, NAN, 1, NAN, 0.0, INF], dtype), np.array([1, 3, 2, 1, NAN, NAN, -0.0, INF], dtype)
    d = np.full(8, 4, dtype)
    expected = {
        "maximum": ([2, 0, 4, 4, 4, 4, 2, 2], [2, 4, 0, 4, 4, 4, 2, 2]), "minimum": ([2, 4, 0, 4, 4, 4, 2, 2], [2, 0, 4, 4, 4, 4, 2, 2]),
        "fmax": ([2, 0, 4, 0, 4, 4, 2, 2], [2, 4, 0, 4, 0, 4, 2, 2]), "fmin": ([2, 4, 0, 0, 4, 4, 2, 2], [2, 0, 4, 4, 0, 4, 2, 2]),
    }  # fmt: skip
    with kernels.use(twin):
        for of, both in expected.items():
            assert_array_equal(masks.shares(d, a, b, of=of), both)
            assert_array_equal(masks.share(d, a, b, of=of), both[0])
            assert_array_equal(masks.share(d, b, a, of=of), both[1])


@every_twin
@every_dtype
def test_zero_wins(twin: str, dtype: Any) -> None:
    d, p = np.array([0, -0.0, 0, 2, 2, NAN, 1], dtype), np.array([INF, NAN, 3, INF, NAN, 0, 0.5], dtype)
    with kernels.use(twin):
        y, z = masks.strong_product(d, p), masks.strong_quotient(d, np.array([0, NAN, 3, 0, NAN, 1, 0.5], dtype))
    assert_array_equal(y, [0, 0, 0, INF, NAN, NAN, 0.5])
    assert_array_equal(z, [0, 0, 0, INF, NAN, NAN, 2])
    assert not np.signbit(y[:2]).any()
    with kernels.use(twin):
        for product in (masks.mutual_product(d, p), masks.mutual_product(p, d)):
            assert_array_equal(product, [0, 0, 0, INF, NAN, 0, 0.5])
            assert not np.signbit(product[:2]).any()


@every_twin
def test_a_choice_keeps_bits(twin: str) -> None:
    """Payloads of nan and signs of zero go through: nothing is multiplied by a mask."""
    x = np.array([0x7FC12345, 0xFFC00001, 0x80000000, 0x00000001], np.uint32).view(np.float32)
    mask = np.array([True, True, True, False])
    with kernels.use(twin):
        assert_array_equal(masks.select(x, -0.0, mask).view(np.uint32), [0x7FC12345, 0xFFC00001, 0x80000000, 0x80000000])
        assert_array_equal(masks.select(x, 1.0, mask, inverted=True).view(np.uint32), [0x3F800000] * 3 + [1])
        kept, rest = masks.parts(x, mask)
    assert_array_equal(kept.view(np.uint32), [0x7FC12345, 0xFFC00001, 0x80000000, 0])
    assert_array_equal(rest.view(np.uint32), [0, 0, 0, 1])


@every_twin
def test_any_layout_and_any_shapes(twin: str) -> None:
    x, y = RNG.normal(size=(37, 53)).astype(np.float32), RNG.normal(size=(37, 53)).astype(np.float32)
    mask = x > y
    layouts = (
        np.asfortranarray,
        lambda a: np.repeat(a, 2, axis=1)[:, ::2],
        lambda a: a[::-1, ::-1].copy()[::-1, ::-1],
        lambda a: a.astype(a.dtype.newbyteorder(">")),
    )
    with kernels.use(twin):
        for other in layouts:
            u, v, m = other(x), other(y), other(mask)
            assert_array_equal(masks.select(u, v, m), np.where(mask, x, y))
            assert_array_equal(masks.positive(u, v), np.where(y > 0, x, 0))
            assert_array_equal(masks.strong_product(u, v), x * y)
        for row in (y[:1], y[0], y[:, :1], np.float32(0.3), y[0, 0]):
            assert_array_equal(masks.share(x, y, row, of="minimum"), np.where(y == row, x / 2, np.where(y < row, x, 0)))
            assert_array_equal(masks.within(x, y, row, 1.0), np.where((y >= row) & (y <= 1), x, 0))
            assert_array_equal(masks.strong_product(x, row), x * row)
        assert_array_equal(masks.select(x, 2.0, mask[:, :1]), np.where(mask[:, :1], x, np.float32(2)))
        assert_array_equal(masks.select(x, 2.0, mask.astype(np.int8)), np.where(mask, x, np.float32(2)))
        assert_array_equal(masks.parts(x[0], np.bool_(True)), [x[0], 0 * x[0]])


@every_twin
def test_a_broadcast_cotangent(twin: str) -> None:
    """The cotangent of a sum is one number, repeated by strides of 0."""
    x = RNG.normal(size=(37, 53)).astype(np.float32)
    with kernels.use(twin):
        for value in (2.0, 0.0, NAN):
            d = np.broadcast_to(np.float32(value), x.shape)
            assert_array_equal(masks.positive(d, x), np.where(x > 0, d, 0))
            assert_array_equal(masks.strong_product(d, x), 0 * x if value == 0 else d * x)
            assert_array_equal(masks.parts(d, x > 0), [np.where(x > 0, d, 0), np.where(x > 0, 0, d)])


def test_dtypes_are_numpys() -> None:
    """where, maximum and clip of any two dtypes, arrays and numbers."""
    values = [np.array([1, 2], t) for t in ("?", "i1", "i4", "u8", "f2", "f4", "f8", "c8", ">f4")]
    values += [3, 2.5, True, np.float32(3), np.float64(2)]
    for c in (np.array([True, False]), np.array([1, 0]), np.True_, True):
        for a in values:
            for b in values:
                y, expected = gg.where(c, a, b), np.where(c, a, b)
                assert y.dtype == expected.dtype, (c, a, b)
                assert_array_equal(y, expected)


@pytest.mark.parametrize("n", [3, 5000])
@pytest.mark.parametrize("name", ["where", "maximum", "fmin"])
def test_two_branches(name: str, n: int) -> None:
    """Both derivatives, in both modes and both nestings of second order, where the kernels run and where they do not."""
    a, b, t, u = RNG.normal(size=(4, n))
    c = RNG.random(n) < 0.5

    def f(p: Any) -> Any:
        a, b = p["a"], p["b"]
        if name == "where":
            return gg.sum(gg.where(c, a * a * b, gg.sin(b) * a))
        if name == "maximum":
            return gg.sum(gg.maximum(a * b, a - b) * a)
        return gg.sum(gg.fmin(a, b * b) * gg.clip(a * b, -0.5, 0.7))

    e = 1e-6
    at = lambda a, b: {"a": a, "b": b}
    forth, back = at(a + e * t, b + e * u), at(a - e * t, b - e * u)
    slope = (f(forth) - f(back)) / (2 * e)
    by_a, by_b = gg.grad(f)(at(a, b)).values()
    np.testing.assert_allclose(by_a @ t + by_b @ u, slope, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(gg.jvp(f, (at(a, b),), (at(t, u),))[1], slope, rtol=1e-5, atol=1e-5)
    products = [gg.hvp(f, at(a, b), at(t, u), mode=mode).values() for mode in ("forward-over-reverse", "reverse-over-reverse")]
    for one, other, plus, minus in zip(*products, gg.grad(f)(forth).values(), gg.grad(f)(back).values(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(one, (plus - minus) / (2 * e), rtol=1e-4, atol=1e-4)


def test_a_maximum_keeps_its_arguments_only() -> None:
    """Not its result: the derivative is told from the arguments alone."""
    x = gg.tensor(np.ones(3), requires_grad=True)
    assert gg.maximum(x, 0.5).node.y is None
    assert gg.where(np.array([True] * 3), x, x).node.vals[1:] == [None, None]


@pytest.mark.parametrize("n", [300_001])
def test_threads_change_no_bits(n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = RNG.normal(size=n).astype(np.float32), RNG.normal(size=n).astype(np.float32)
    found = []
    for threads in ("1", "3"):
        monkeypatch.setenv("GPUGRAD_NUM_THREADS", threads)
        found.append([masks.select(x, y, x > y), *masks.shares(x, x, y, of="fmax"), masks.within(x, y, -0.1, 0.2)])
    assert_array_equal(*found)
    assert_array_equal(found[0][0], np.maximum(x, y))


SLOPES = {"tanh": (gg.tanh, (-2, 2)), "square": (gg.square, (-2, 2)), "reciprocal": (gg.reciprocal, (0.5, 2)), "sqrt": (gg.sqrt, (0.5, 2))}


@pytest.mark.parametrize("n", [3, 5000])
@pytest.mark.parametrize("name", SLOPES)
def test_slopes_to_second_order(name: str, n: int) -> None:
    """Below and above the size from which a kernel computes them."""
    f, (low, high) = SLOPES[name]
    x, t = RNG.uniform(low, high, n), RNG.normal(size=n)
    loss = lambda x: gg.sum(gg.sin(f(x)) * x)
    e = 1e-6
    np.testing.assert_allclose(gg.grad(loss)(x) @ t, (loss(x + e * t) - loss(x - e * t)) / (2 * e), rtol=1e-5, atol=1e-5)
    expected = (gg.grad(loss)(x + e * t) - gg.grad(loss)(x - e * t)) / (2 * e)
    for mode in ("forward-over-reverse", "reverse-over-reverse"):
        np.testing.assert_allclose(gg.hvp(loss, x, t, mode=mode), expected, rtol=1e-4, atol=1e-4)


@every_twin
def test_the_slope_of_tanh_keeps_its_tail(twin: str) -> None:
    """d - d y^2 would be off by a half where y is one step from 1."""
    y = np.nextafter(np.float32(1), np.float32(0)) * np.ones(5, np.float32)
    d = np.full(5, 3, np.float32)
    truth = 3 * (1 - y.astype(np.float64) ** 2)
    with kernels.use(twin):
        np.testing.assert_allclose(masks.slope_product(d, y, of="tanh"), truth, rtol=3e-7)
    np.testing.assert_allclose(gg.tanh.op.vjp[0](d, y, None), truth, rtol=3e-7)


@every_twin
@every_dtype
def test_zero_wins_over_infinite_slopes(twin: str, dtype: Any) -> None:
    d, zero, large = np.array([0, 1, NAN], dtype), np.zeros(3, dtype), np.full(3, INF, dtype)
    with kernels.use(twin):
        assert_array_equal(masks.slope_product(d, zero, of="sqrt"), [0, INF, NAN])
        assert_array_equal(masks.slope_product(d, large, of="reciprocal"), [0, -INF, NAN])


@pytest.mark.parametrize("shape", [(90,), (60, 1), (1, 90), (1, 1)])
@pytest.mark.parametrize("name", ["maximum", "minimum", "fmax", "fmin"])
def test_a_row_or_column_stays_in_the_kernel(name, shape, monkeypatch):
    """The reference took twenty to eighty times as long."""
    rng = np.random.default_rng(0)
    d, x, row = (rng.integers(-3, 4, s).astype(np.float32) for s in ((60, 90), (60, 90), shape))
    expected = masks._shares(d, x, row, of=name)
    monkeypatch.setattr(masks, "_shares", None)
    for got, right in zip(masks.shares(d, x, row, of=name), expected, strict=True):
        np.testing.assert_array_equal(got, right)
    assert masks.operands(d, x[:, :7]) is None and masks.operands(d, np.zeros((2, 60, 90), np.float32)) is None
