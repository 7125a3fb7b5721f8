"""softmax, log_softmax and logsumexp in their twins: against longdouble, infinities, tails, balance, long and short lines, memory layouts. That the twins agree is tested
with those of all kernels."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from gpugrad import kernels
from gpugrad.cuda import emulator
from gpugrad.kernels import softmax as family

TWINS = ["reference", "cpu", pytest.param("cuda", marks=pytest.mark.skipif(not emulator.is_available(), reason="needs g++"))]
every_twin = pytest.mark.parametrize("twin", TWINS)
every_float = pytest.mark.parametrize("dtype", [np.float32, np.float64])
RNG = np.random.default_rng(0)
ROWS, COLUMNS, MIDDLE = (7, 37, 1), (1, 37, 70), (3, 11, 19)
SHAPES = [ROWS, COLUMNS, MIDDLE, (5, 1, 1), (1, 1, 20), (1000, 3, 1), (2, 1029, 1), (1, 1500, 3)]
every_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)
INF = np.inf


def run(twin: str, name: str, *args: Any) -> Any:
    with kernels.use(twin):
        return getattr(family, name)(*args)


def logits(shape: Any, dtype: Any, size: float = 1.0) -> Any:
    return (RNG.normal(size=shape) * size).astype(dtype)


def truth(x: Any) -> tuple[Any, Any, Any]:
    """softmax, log_softmax and logsumexp in longdouble, by log(1 + rest)."""
    x = x.astype(np.longdouble)
    m = x.max(1, keepdims=True)
    order = np.argsort(x - m, axis=1, kind="stable")
    e = np.take_along_axis(np.exp(x - m), order, 1)
    log = np.log1p(e[:, :-1].sum(1, keepdims=True))  # all but one of the largest
    return np.exp(x - m - log), x - m - log, (m + log)[:, 0]


def close(got: Any, expected: Any, ulp: float) -> None:
    """Within so many units in the last place of each element."""
    assert got.shape == expected.shape
    assert_allclose(got.astype(np.longdouble), expected, rtol=ulp * np.finfo(got.dtype).eps, atol=float(np.finfo(got.dtype).tiny))


# ---------------------------------------------------------------------------------- forward


@every_twin
@every_float
@every_shape
@pytest.mark.parametrize("size", [1.0, 6.0])
def test_each_element_keeps_its_digits(twin: str, dtype: Any, shape: Any, size: float) -> None:
    """Relative to each element; exp(x - m) has |x - m| times the rounding of the difference."""
    x = logits(shape, dtype, size)
    p, log_p, total = truth(x)
    close(run(twin, "softmax", x), p, 8 + 8 * size)
    close(run(twin, "log_softmax", x), log_p, 8 + 4 * size)
    assert_allclose(run(twin, "logsumexp", x), total.astype(dtype), rtol=4 * np.finfo(dtype).eps, atol=4 * np.finfo(dtype).eps * size)
    scale = logits((shape[0], shape[2]), dtype)
    close(run(twin, "softmax", x, scale), p * scale[:, None], 9 + 8 * size)


@every_twin
@every_float
@pytest.mark.parametrize("along", ["rows", "columns"])
@pytest.mark.parametrize("gap", [1.0, 20.0, 60.0])
def test_the_tail_of_an_almost_certain_class(twin: str, dtype: Any, along: str, gap: float) -> None:
    """Of classes 0 and twice -gap, with the largest first, last and in the middle: log p of the largest is -log1p(2 exp(-gap)), and not 0."""
    x = np.full((24, 3), -gap, dtype)
    x[np.arange(24), np.arange(24) % 3] = 0
    x += 3
    x = x[:, :, None] if along == "rows" else np.ascontiguousarray(x.T)[None]
    _, log_p, _ = truth(x)
    assert log_p.max() < 0
    close(run(twin, "log_softmax", x), log_p, 4)
    close(run(twin, "logsumexp", x - x.max()), truth(x - x.max())[2], 4)


ODD = [  # elements, softmax, logsumexp
    ([-INF, -INF, -INF], [0, 0, 0], -INF),
    ([-INF, 1.0, 1.0], [0, 0.5, 0.5], 1 + np.log(2)),
    ([INF, 0.0, INF], [0.5, 0, 0.5], INF),
    ([INF, -INF, 3.0], [1, 0, 0], INF),
    ([np.nan, 0.0, 1.0], [np.nan] * 3, np.nan),
    ([-np.nan, 0.0, 1.0], [np.nan] * 3, np.nan),
    ([np.nan, INF, 1.0], [np.nan] * 3, np.nan),
    ([-np.nan, INF, 1.0], [np.nan] * 3, np.nan),
    ([-np.nan, -INF, -INF], [np.nan] * 3, np.nan),
    ([-INF, -INF, np.nan], [np.nan] * 3, np.nan),
    ([-0.0, 0.0, -0.0], [1 / 3] * 3, np.log(3)),
    ([-3e38, 3e38, 0.0], [0, 1, 0], 3e38),
]


@every_twin
@every_float
@pytest.mark.parametrize("along", ["rows", "columns", "short columns"])
def test_infinities_and_nan(twin: str, dtype: Any, along: str) -> None:
    x = np.array([line for line, _, _ in ODD] * (1 if along == "short columns" else 3), dtype)
    p, total = np.array([p for _, p, _ in ODD], dtype), np.array([total for *_, total in ODD], dtype)
    x = x[:, :, None] if along == "rows" else np.ascontiguousarray(x.T)[None]
    lines = lambda y: (y[:, :, 0] if along == "rows" else y[0].T)[: len(ODD)]
    assert_allclose(lines(run(twin, "softmax", x)), p, rtol=1e-6)
    with np.errstate(divide="ignore"):
        finite_log = np.isfinite(np.log(p)) | (p == 0) | np.isnan(p)
        assert finite_log.all()
        got = lines(run(twin, "log_softmax", x))
        assert_allclose(got[:-1], np.log(p)[:-1], rtol=1e-6)
    assert_allclose(got[-1], [-INF if dtype == np.float32 else -6e38, 0, -3e38])
    assert_allclose(run(twin, "logsumexp", x).ravel()[: len(ODD)], total, rtol=1e-6)


@every_twin
@pytest.mark.parametrize("shape", [(1, 100_003, 1), (1, 20_001, 17), (1, 20_001, 2)], ids=str)
def test_long_lines(twin: str, shape: Any) -> None:
    """A sum of 10^5 equal shares in float32 has no drift; a line of all equal elements gives exactly equal shares."""
    x = np.full(shape, -7.25, np.float32)
    y = run(twin, "softmax", x)
    assert (y == y.flat[0]).all()
    close(y[:, :1], np.full_like(y[:, :1], 1 / np.longdouble(shape[1]), np.longdouble), 1 if twin != "cuda" else 60)
    x = logits(shape, np.float32, 4)
    p, log_p, total = truth(x)
    assert_allclose(run(twin, "logsumexp", x), total.astype(np.float32), rtol=1e-6)
    close(run(twin, "log_softmax", x), log_p, 40)
    g = logits(shape, np.float32)
    y, g2 = p.astype(np.float32), g.astype(np.longdouble)
    expected = p * (g2 - (p * g2).sum(1, keepdims=True))
    assert_allclose(run(twin, "softmax_slope", g, y), expected.astype(float), rtol=0, atol=1e-6 * abs(expected).max())


# ---------------------------------------------------------------------------------- backward


def slopes(g: Any, x: Any) -> tuple[Any, Any]:
    """In longdouble, by sums in which near numbers do not meet: p_i sum_j p_j (g_i - g_j), and sum_j (p_j g_i - p_i g_j)."""
    p, _, _ = truth(x)
    g = g.astype(np.longdouble)
    pairs = lambda a, b: a[:, :, None] * b[:, None]
    other = 1 - np.eye(x.shape[1])[None, :, :, None]
    first = p * (p[:, None] * (g[:, :, None] - g[:, None])).sum(2)
    second = (other * (pairs(g, p) - pairs(p, g))).sum(2)
    return first, second


@every_twin
@every_float
@pytest.mark.parametrize("shape", [ROWS, COLUMNS, MIDDLE, (30, 2, 1), (1, 2, 33)], ids=str)
@pytest.mark.parametrize("size", [0.3, 9.0, 40.0])
def test_slopes_keep_their_digits(twin: str, dtype: Any, shape: Any, size: float) -> None:
    """Relative to the largest term of each element's sum, also where one class has all but 1e-17 of the probability."""
    x, g = logits(shape, dtype, size), logits(shape, dtype)
    first, second = slopes(g, x)
    p, log_p, _ = truth(x)
    y, log_y = p.astype(dtype), log_p.astype(dtype)
    eps = float(np.finfo(dtype).eps)
    at_top = y > 0.5
    d, e = run(twin, "softmax_slope", g, y), run(twin, "log_softmax_slope", g, log_y)
    assert d.dtype == e.dtype == dtype
    others = (np.where(at_top, 0, abs(p * g)).sum(1, keepdims=True) + np.where(at_top, 0, p).sum(1, keepdims=True) * abs(g).max(1, keepdims=True)) + 1e-300
    assert (abs(d - first) <= (20 + 2 * size) * eps * (abs(p) * abs(g).max(1, keepdims=True) * ~at_top + others * at_top) + 1e-37).all()
    scale = np.where(at_top, np.where(at_top, 0, abs(g)).sum(1, keepdims=True) + others * shape[1], abs(g) + p * abs(g).sum(1, keepdims=True))
    assert (abs(e - second) <= (20 + 20 * size) * eps * scale + 1e-37).all()


@every_twin
def test_the_gradient_of_a_confident_prediction(twin: str) -> None:
    """Of the negative log likelihood of classes 0 and -40 it is -exp(-40) and exp(-40): 1 - p, of p rounded to 1, would be 0."""
    x = np.array([[0.0, -40.0]] * 200)[:, :, None]
    g = np.array([[-1.0, 0.0]] * 200)[:, :, None]
    log_y = run(twin, "log_softmax", x)
    assert_allclose(run(twin, "log_softmax_slope", g, log_y)[:, :, 0], [[-np.exp(-40.0), np.exp(-40.0)]] * 200, rtol=1e-14)
    assert_allclose(run(twin, "softmax_slope", g, run(twin, "softmax", x))[:, :, 0], [[-np.exp(-40.0), np.exp(-40.0)]] * 200, rtol=1e-14)


@every_twin
@pytest.mark.parametrize("shape", [(6, 5, 1), (1, 5, 40)], ids=str)
def test_masked_classes_neither_give_nor_take(twin: str, shape: Any) -> None:
    """p = 0 has slope 0, and a huge cotangent there costs the others no digits."""
    x, g = logits(shape, np.float32), logits(shape, np.float32)
    x[:, 2] = -INF
    y, log_y = run(twin, "softmax", x), run(twin, "log_softmax", x)
    plain = run(twin, "softmax_slope", g, y)
    g[:, 2] = 1e30
    masked = run(twin, "softmax_slope", g, y)
    assert (masked[:, 2] == 0).all()
    assert_allclose(masked, plain, rtol=1e-4, atol=1e-7)
    g[:, 2] = 0
    assert np.isfinite(run(twin, "log_softmax_slope", g, log_y)).all()


@every_twin
@every_float
@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("shape", [ROWS, COLUMNS, MIDDLE], ids=str)
@pytest.mark.parametrize("size", [0.3, 6.0])
def test_curvatures_are_derivatives_of_the_slopes(twin: str, dtype: Any, log: bool, shape: Any, size: float) -> None:
    """<c, slope(g, y)> differs, by g and by y, as central differences of the reference say; the reference is a polynomial in both (but for the exp)."""
    name = "log_softmax" if log else "softmax"
    y = run("reference", name, logits(shape, np.float64, size))
    c, g, t = (logits(shape, np.float64) for _ in range(3))
    slope = getattr(family, f"{name}_slope").reference
    of_g, of_y = run(twin, f"{name}_curvature", *(a.astype(dtype) for a in (c, g, y)))
    h = 1e-5
    by_g = (c * (slope(g + h * t, y) - slope(g - h * t, y)) / (2 * h)).sum()
    step = t * (np.ones_like(y) if log else y)  # nothing crosses a half
    by_y = (c * (slope(g, y + h * step) - slope(g, y - h * step)) / (2 * h)).sum()
    near = {"rtol": 2e-4 if dtype == np.float32 else 1e-6, "atol": 1e-4 if dtype == np.float32 else 1e-7}
    assert_allclose((of_g * t).sum(), by_g, **near)
    assert_allclose((of_y * step).sum(), by_y, **near)


@every_twin
@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("shape", [(9, 7, 1), (1, 7, 33), (2, 1500, 1)], ids=str)
def test_nothing_reads_a_dominant_element(twin: str, log: bool, shape: Any) -> None:
    """Near 1 it has lost the digits of 1 - p. The same slopes and curvatures, to the bit, whether it is 0.6 or 0.99 beside the same others."""
    name = "log_softmax" if log else "softmax"
    c, g, y = (logits(shape, np.float32) for _ in range(3))
    y = (0.1 * abs(y) / shape[1]).astype(np.float32)
    results = []
    for top in (0.6, 0.99):
        y[:, 4] = top
        of = np.log(y) if log else y
        results.append([run(twin, f"{name}_slope", g, of), *run(twin, f"{name}_curvature", c, g, of)])
        for d in results[-1][: 1 if log else 2]:
            assert_allclose(d[:, 4], -np.delete(d, 4, 1).sum(1), rtol=2e-5, atol=1e-6)
    for a, b in zip(*results):
        assert_array_equal(a, b)


@every_twin
def test_a_tangent_is_a_curvature_without_the_second_cotangent(twin: str) -> None:
    for shape in (ROWS, COLUMNS):
        c, y = logits(shape, np.float32), run("reference", "log_softmax", logits(shape, np.float32, 4))
        of_g, of_y = run(twin, "log_softmax_curvature", c, None, y)
        assert of_y is None
        assert_array_equal(of_g, run(twin, "log_softmax_curvature", c, c, y)[0])


# ---------------------------------------------------------------------------------- arrays as they come


def layouts(x: Any) -> list[Any]:
    swapped = x.astype(x.dtype.newbyteorder())
    read_only = x.copy()
    read_only.flags.writeable = False
    shifted = np.empty(x.size + 1, x.dtype)[1:].reshape(x.shape)  # not at a multiple of 16 bytes
    shifted[...] = x
    return [np.asfortranarray(x), x[::-1, ::-1, ::-1].copy()[::-1, ::-1, ::-1], swapped, read_only, shifted]


@every_twin
@pytest.mark.parametrize("shape", [(40, 12, 1), (2, 12, 20), (2, 12, 3)], ids=str)
def test_memory_layouts(twin: str, shape: Any) -> None:
    x, g = logits(shape, np.float32), logits(shape, np.float32)
    for name in ("softmax", "log_softmax", "logsumexp"):
        expected = run(twin, name, x)
        for other in layouts(x):
            assert_allclose(run(twin, name, other), expected, rtol=2e-6, err_msg=name)
    for name in ("softmax", "log_softmax"):
        y = run(twin, name, x)
        for a, b in zip(layouts(g), layouts(y)):
            assert_allclose(run(twin, f"{name}_slope", a, b), run(twin, f"{name}_slope", g, y), rtol=2e-5, atol=1e-7)
            for got, expected in zip(run(twin, f"{name}_curvature", a, g, b), run(twin, f"{name}_curvature", g, g, y)):
                assert_allclose(got, expected, rtol=2e-5, atol=1e-6)


@every_twin
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("shape", [(4, 33, 1), (1, 33, 20)], ids=str)
def test_16_bits_round_once(twin: str, dtype: str, shape: Any) -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    dtype = np.float16 if dtype == "float16" else ml_dtypes.bfloat16
    x = logits(shape, dtype, 3)
    for name in ("softmax", "log_softmax", "logsumexp"):
        y, wide = run(twin, name, x), run("reference", name, x.astype(np.float64))
        assert y.dtype == dtype
        assert_allclose(y.astype(float), wide, rtol=2.0**-8 if dtype != np.float16 else 2.0**-10.9, atol=1e-7)


@pytest.mark.parametrize("threads", ["1", "2", "3"])
@pytest.mark.parametrize("shape", [(700, 513, 1), (1, 600, 700), (20_001, 10, 1)], ids=str)
def test_the_same_bits_on_any_number_of_threads(threads: str, shape: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    x, g = logits(shape, np.float32, 3), logits(shape, np.float32)

    def results() -> list[bytes]:
        y, log_y = run("cpu", "softmax", x), run("cpu", "log_softmax", x)
        second = [*run("cpu", "softmax_curvature", g, x, y), *run("cpu", "log_softmax_curvature", g, x, log_y)]
        return [
            a.tobytes() for a in (y, log_y, run("cpu", "logsumexp", x), run("cpu", "softmax_slope", g, y), run("cpu", "log_softmax_slope", g, log_y), *second)
        ]

    monkeypatch.setitem(os.environ, "GPUGRAD_NUM_THREADS", "4")
    expected = results()
    monkeypatch.setitem(os.environ, "GPUGRAD_NUM_THREADS", threads)
    assert results() == expected
