"""The kernels of the fully connected layer: every twin at the edges, on any shape and layout, and where columns are long."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from gpugrad import kernels
from gpugrad.cuda import emulator
from gpugrad.kernels import linear
from gpugrad.ops import activations
from gpugrad.ops.linear import ACTIVATIONS as FUNCTIONS
from gpugrad.testing import tolerance

RNG = np.random.default_rng(0)
TWINS = ["reference", "cpu", pytest.param("cuda", marks=pytest.mark.skipif(not emulator.is_available(), reason="needs g++"))]
ACTIVATIONS = list(linear.ACTIVATIONS)
every_twin = pytest.mark.parametrize("twin", TWINS)
every_activation = pytest.mark.parametrize("act", ACTIVATIONS)
every_float = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def value(act: str, z: Any) -> Any:
    """act(z) in float64, by the library's functions."""
    return FUNCTIONS[act](np.asarray(z, np.float64))


def slope(act: str, z: Any) -> Any:
    """act'(z) in float64, by central differences of high order: sixth, with an error of 1e-12."""
    h, weights = 2e-2, {1: 3 / 4, 2: -3 / 20, 3: 1 / 60}
    return sum(w * (value(act, z + k * h) - value(act, z - k * h)) / h for k, w in weights.items())


def saved_of(act: str, z: Any) -> Any:
    return np.tanh(z) if act == "tanh" else np.maximum(z, 0) if act == "relu" else z


# ------------------------------------------------------------------------------------------------- values and slopes


@every_twin
@every_float
@pytest.mark.parametrize("act", FUNCTIONS)
def test_values(act: str, dtype: Any, twin: str) -> None:
    z, b = RNG.normal(0, 3, (9, 37)).astype(dtype), RNG.normal(size=37).astype(dtype)
    expected = value(act, z.astype(np.float64) + b)
    with kernels.use(twin):
        y = linear.bias_act(z, b, act=act)
    assert_allclose(y, expected, rtol=0, atol=tolerance(dtype) * np.abs(expected).max())


@every_twin
@every_activation
def test_slopes(act: str, twin: str) -> None:
    z = RNG.uniform(0.1, 5, (70, 13)) * RNG.choice([-1, 1], (70, 13))  # the kink of relu is farther than a difference reaches
    g = RNG.normal(size=z.shape)
    with kernels.use(twin):
        dz, db = linear.act_backward(g, saved_of(act, z), act=act)
    assert_allclose(dz, g * slope(act, z), rtol=1e-6, atol=1e-6)
    assert_allclose(db, dz.sum(axis=0), rtol=1e-12, atol=1e-12)


@every_twin
@every_float
@every_activation
def test_what_is_written_into(act: str, dtype: Any, twin: str) -> None:
    """The forward kernel leaves in z what the backward kernel reads: the result itself, or z + b."""
    z, b = RNG.normal(size=(5, 6)).astype(dtype), RNG.normal(size=6).astype(dtype)
    before = z.copy()
    with kernels.use(twin):
        y = linear.bias_act(z, b, act=act)
    assert (y is z) == (act in linear.FROM_Y)
    if y is not z:
        assert_array_equal(z, before + b)
        assert not np.shares_memory(y, z)


# ------------------------------------------------------------------------------------------------- edges


@every_twin
def test_relu_hides_no_nan_and_is_flat_at_0(twin: str) -> None:
    nan, inf = np.nan, np.inf
    z = np.array([[nan, -inf, inf, 0.0, -0.0, 1e-45, -1e-45, 3e38]], np.float32)
    with kernels.use(twin):
        y = linear.bias_act(z.copy(), None, act="relu")
        assert_array_equal(y, np.array([[nan, 0, inf, 0, 0, 1e-45, 0, 3e38]], np.float32))
        dz, db = linear.act_backward(np.full_like(y, 2), y, act="relu")
        assert_array_equal(dz, [[2, 0, 2, 0, 0, 2, 0, 2]])
        assert_array_equal(db, dz[0])
        for g in (nan, inf):
            assert_array_equal(linear.act_backward(np.full_like(y, g), y, act="relu")[0], [[g, 0, g, 0, 0, g, 0, g]])


@every_twin
@every_float
@every_activation
def test_edges(act: str, dtype: Any, twin: str) -> None:
    """nan stays; at both infinities and far out the slope is its limit, not inf * 0."""
    far = float(np.finfo(dtype).max)
    z = np.array([[np.nan, np.inf, far, 1e6, -1e6, -far, -np.inf]], dtype)
    with kernels.use(twin), np.errstate(all="ignore"):
        y = linear.bias_act(z.copy(), None, act=act)[0]
        dz, db = linear.act_backward(np.ones_like(z), saved_of(act, z), act=act)
    limit = {"tanh": -1.0}.get(act, 0.0)
    above = [1, 1] if act in ("tanh", "sigmoid") else z[0, 2:4]
    assert np.isnan(y[0])
    assert_array_equal(y[2:4], above)
    assert_array_equal(y[4:6], [limit, limit])
    assert_array_equal(dz[0, 1:], [0 if act in ("tanh", "sigmoid") else 1] * 3 + [0] * 3)
    assert np.isnan(dz[0, 0]) or act == "relu"
    assert_array_equal(db, dz[0])


@every_twin
def test_tails_keep_their_digits(twin: str) -> None:
    """Relative to their own size, however small."""
    z = np.linspace(-80, -20, 31, dtype=np.float32)[None]
    e = np.exp(z.astype(np.float64))
    one = np.ones_like(z)
    with kernels.use(twin):
        assert_allclose(linear.act_backward(one, z, act="sigmoid")[0], e / (1 + e) ** 2, rtol=1e-6)
        assert_allclose(linear.act_backward(one, -z, act="sigmoid")[0], e / (1 + e) ** 2, rtol=1e-6)
        assert_allclose(linear.bias_act(z.copy(), None, act="silu"), z * e / (1 + e), rtol=1e-6)
        z = z.astype(np.float64) / 10
        assert_allclose(linear.bias_act(z.copy(), None, act="gelu"), activations.gelu(z), rtol=1e-12)
        assert_allclose(linear.act_backward(one.astype(np.float64), z, act="gelu")[0], slope("gelu", z), rtol=1e-5)


# ------------------------------------------------------------------------------------------------- shapes and layouts


@every_twin
@pytest.mark.parametrize("shape", [(0, 0), (0, 5), (5, 0), (1, 1), (1, 7), (63, 1), (64, 2), (65, 3), (66, 4), (131, 31), (7, 130), (260, 33), (2, 600)])
@pytest.mark.parametrize("act", ["relu", "silu"])
def test_shapes(act: str, shape: tuple[int, int], twin: str) -> None:
    z, b, g = (RNG.normal(size=s).astype(np.float32) for s in (shape, shape[1:], shape))
    wide = z.astype(np.float64) + b
    with kernels.use(twin):
        y = linear.bias_act(z, b, act=act)
        dz, db = linear.act_backward(g, z, act=act)
    assert_allclose(y, value(act, wide), rtol=1e-5, atol=1e-5)
    with kernels.use("reference"):
        expected, expected_sum = linear.act_backward(g.astype(np.float64), z.astype(np.float64), act=act)
    assert_allclose(dz, expected, rtol=1e-5, atol=1e-5)
    assert_allclose(db, expected_sum, rtol=1e-4, atol=1e-4)
    assert (y.dtype, dz.dtype, db.dtype) == (np.float32,) * 3
    assert db.shape == shape[1:]


@every_twin
@pytest.mark.parametrize("act", ["relu", "gelu_tanh"])
def test_layouts(act: str, twin: str) -> None:
    base, s = RNG.normal(size=(36, 20)), RNG.normal(size=(20, 36))
    b = RNG.normal(size=40)[::-2]
    offset = np.empty(721)[1:].reshape(20, 36)  # not aligned to 16 bytes
    offset[...] = base.T
    with kernels.use(twin):
        for g in (base.T, base[::-1].T, np.broadcast_to(base[:1, :1], (20, 36)), offset):
            same = np.ascontiguousarray(g)
            for got, expected in zip(linear.act_backward(g, s, act=act), linear.act_backward(same, s, act=act), strict=True):
                assert_allclose(got, expected, rtol=1e-13, atol=1e-13)
            assert_allclose(linear.act_backward(same, g, act=act)[0], linear.act_backward(same, same, act=act)[0], rtol=1e-13, atol=1e-13)
        z = base.copy()
        assert_allclose(linear.bias_act(z.T[:, ::-1].T, b, act=act), value(act, base[::-1] + b), rtol=1e-12, atol=1e-14)


# ------------------------------------------------------------------------------------------------- sums


@every_twin
def test_long_columns_keep_their_digits(twin: str) -> None:
    """One after the other in float32, the sum of a million tenths is off by one part in a hundred."""
    rows = 1_000_000 if twin != "cuda" else 200_000
    g = np.full((rows, 2), np.float32(0.1))
    g[:, 1] += RNG.uniform(0, 0.1, rows).astype(np.float32)
    expected = g.sum(axis=0, dtype=np.float64)
    with kernels.use(twin):
        dz, db = linear.act_backward(g, np.ones_like(g), act="relu")
    assert_array_equal(dz, g)
    assert_allclose(db, expected, rtol=2e-6)


@every_twin
def test_sums_of_float16_do_not_stop_at_2048(twin: str) -> None:
    g = np.ones((5000, 3), np.float16)
    with kernels.use(twin):
        assert_array_equal(linear.act_backward(g, g, act="relu")[1], [5000] * 3)


@pytest.mark.parametrize("act", ["relu", "gelu"])
def test_the_same_bits_on_any_number_of_threads(act: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of arrays that are large enough to be shared among threads."""
    z, b, g = (RNG.normal(size=s).astype(np.float32) for s in ((3001, 300), (300,), (3001, 300)))
    found = []
    with kernels.use("cpu"):
        for threads in ("1", "2", "5"):
            monkeypatch.setitem(os.environ, "GPUGRAD_NUM_THREADS", threads)
            saved = z.copy()
            found.append([linear.bias_act(saved, b, act=act), *linear.act_backward(g, saved, act=act)])
    for other in found[1:]:
        for a, expected in zip(other, found[0], strict=True):
            assert_array_equal(a, expected)


# ------------------------------------------------------------------------------------------------- what is refused


@every_twin
@every_activation
def test_complex_numbers_are_refused(act: str, twin: str) -> None:
    z = np.ones((2, 3), complex)
    with kernels.use(twin):
        with pytest.raises(TypeError, match="complex128, expected real floats"):
            linear.bias_act(z, None, act=act)
        with pytest.raises(TypeError, match="complex128, expected real floats"):
            linear.act_backward(z, z, act=act)
