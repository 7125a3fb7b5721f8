"""The kernels of the activations: every twin against formulas in 40 digits, in the tails and at the edges, on any shape and layout."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from gpugrad import kernels
from gpugrad.cuda import emulator
from gpugrad.kernels import activations
from gpugrad.kernels.activations import CURVED, FLAT, PARAMETERS, activation, activation_bend, activation_slope

RNG = np.random.default_rng(0)
TWINS = ["reference", "cpu", pytest.param("cuda", marks=pytest.mark.skipif(not emulator.is_available(), reason="needs g++"))]
every_twin = pytest.mark.parametrize("twin", TWINS)
every_activation = pytest.mark.parametrize("act", CURVED + FLAT)
every_float = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def options(act: str) -> dict[str, Any]:
    """Parameters that every dtype represents exactly."""
    a, b = {"leaky_relu": (0.125, 0.0), "elu": (1.75, 1.125), "softplus": (2.0, 0.0), "hardtanh": (-0.5, 2.0)}.get(act, (0.0, 0.0))
    return {"act": act, "a": a, "b": b}


def derivatives(act: str, x: np.ndarray, twin: str, **params: Any) -> list[Any]:
    """Value, slope and curvature. Those of tanh are taken from x as a value."""
    one, params = np.ones_like(x), options(act) | params
    with kernels.use(twin), np.errstate(all="ignore"):
        found = [activation(x, **params), activation_slope(one, x, **params)]
        if act in CURVED:
            found.append(activation_bend(one, one, x, both=False, **params)[1])
    return found


# ------------------------------------------------------------------------------------------------- digits


def exact_terms(mp: Any, act: str, x: Any) -> list[list[Any]]:
    """Value, slope and curvature, each as the terms that are added."""
    a, b = (mp.mpf(options(act)[k]) for k in "ab")
    sigmoid = lambda u: 1 / (1 + mp.exp(-u))
    bell = lambda u: mp.exp(-abs(u)) / (1 + mp.exp(-abs(u))) ** 2
    if act == "tanh":
        return [[mp.tanh(x)], [(1 - x) * (1 + x)], [-2 * x]]
    if act == "sigmoid":
        return [[sigmoid(x)], [bell(x)], [-bell(x) * mp.tanh(x / 2)]]
    if act == "silu":
        return [[x * sigmoid(x)], [sigmoid(x), x * bell(x)], [2 * bell(x), -x * bell(x) * mp.tanh(x / 2)]]
    if act == "gelu":
        cdf, pdf = mp.erfc(-x / mp.sqrt(2)) / 2, mp.exp(-x * x / 2) / mp.sqrt(2 * mp.pi)
        return [[x * cdf], [cdf, x * pdf], [2 * pdf, -x * x * pdf]]
    if act == "gelu_tanh":
        k, c = mp.sqrt(8 / mp.pi), mp.mpf("0.044715")
        u, u1, u2 = k * x * (1 + c * x * x), k * (1 + 3 * c * x * x), 6 * k * c * x
        return [[x * sigmoid(u)], [sigmoid(u), x * bell(u) * u1], [bell(u) * 2 * u1, bell(u) * x * u2, -bell(u) * x * u1 * u1 * mp.tanh(u / 2)]]
    if act == "elu":
        return [[b * x if x > 0 else a * b * mp.expm1(x)], [b if x > 0 else a * b * mp.exp(x)], [0 if x > 0 else a * b * mp.exp(x)]]
    if act == "softplus":
        return [[mp.log1p(mp.exp(a * x)) / a], [sigmoid(a * x)], [a * bell(a * x)]]
    if act == "relu":
        return [[max(x, 0)], [x > 0]]
    if act == "leaky_relu":
        return [[x if x > 0 else a * x], [1 if x > 0 else a]]
    return [[min(max(x, a), b)], [a < x < b]]


# The largest errors of value, slope and curvature, in units in the last place of the largest term, of all twins.
ULPS = {
    "tanh": (2.5, 2, 0.5), "sigmoid": (2.5, 5, 8), "silu": (4, 4, 6), "gelu": (7, 7, 7), "gelu_tanh": (4, 6, 9), "elu": (4, 4, 4),
    "softplus": (3.5, 4, 6), "relu": (0, 0), "leaky_relu": (0.5, 0), "hardtanh": (0, 0),
}  # fmt: skip
FAR = {"gelu": (12.9, 37.4), "gelu_tanh": (8.7, 21.0), "softplus": (43.0, 350.0)}  # to where results are no longer normal numbers


def arguments(act: str, dtype: Any) -> np.ndarray:
    """Near 0, around it, and far out."""
    far = FAR.get(act, (86.0, 700.0))[dtype is np.float64]
    tiny = RNG.choice([-1, 1], 40) * 10.0 ** RNG.uniform(-30, 0, 40)
    x = np.concatenate([RNG.uniform(-4, 4, 150), RNG.uniform(-far, far, 100), RNG.uniform(-far, -0.9 * far, 20), tiny]).astype(dtype)
    return x


@every_twin
@every_float
@every_activation
def test_digits(act: str, dtype: Any, twin: str) -> None:
    mp = pytest.importorskip("mpmath").mp.clone()
    mp.dps = 40
    x = arguments(act, dtype)
    of_x, of_y = derivatives(act, x, twin), derivatives(act, np.tanh(x), twin) if act == "tanh" else None
    for order, allowed in enumerate(ULPS[act]):
        source, got = (np.tanh(x), of_y[order]) if of_y is not None and order else (x, of_x[order])
        for v, y in zip(source.tolist(), got.tolist(), strict=True):
            terms = exact_terms(mp, act, mp.mpf(v))[order]
            unit = float(np.spacing(dtype(max(abs(float(t)) for t in terms))))
            assert abs(mp.mpf(y) - sum(terms)) <= allowed * unit, f"{act} in {v!r}, derivative {order}: {y!r}, expected {float(sum(terms))!r}"


@every_twin
def test_tails_that_other_libraries_lose(twin: str) -> None:
    """Relative to their own size."""
    with kernels.use(twin):
        of = lambda act, x, dtype=np.float32, **p: float(activation(np.array([x], dtype), act=act, **p)[0])
        assert_allclose(of("gelu", -10.0), -7.619853024160526e-23, rtol=1e-6)
        assert_allclose(of("gelu", -10.0, np.float64), -7.619853024160526e-23, rtol=2e-15)
        assert_allclose(of("silu", -80.0), -80 * np.exp(-80.0), rtol=1e-6)
        assert_allclose(of("softplus", -40.0, a=1.0), np.exp(-40.0), rtol=1e-6)
        assert_allclose(of("softplus", -700.0, np.float64, a=1.0), np.exp(-700.0), rtol=1e-13)
        assert_allclose(of("softplus", 40.0, a=-1.0), -np.exp(-40.0), rtol=1e-6)  # the logarithm of sigmoid(40)
        assert_allclose(of("elu", -1e-10, a=1.0, b=1.0), -1e-10, rtol=1e-6)
        assert_allclose(of("softplus", 3e38, a=2.0), 3e38, rtol=1e-6)  # 2 x would be infinite


# ------------------------------------------------------------------------------------------------- edges

INF, NAN = np.inf, np.nan
VALUES = {  # at -inf, -1e30, -0.0, 0.0, 1e30, inf
    "tanh": (-1, -1, 0, 0, 1, 1), "sigmoid": (0, 0, 0.5, 0.5, 1, 1), "silu": (NAN, 0, 0, 0, 1e30, INF), "gelu": (NAN, 0, 0, 0, 1e30, INF),
    "gelu_tanh": (NAN, 0, 0, 0, 1e30, INF), "elu": (-1.96875, -1.96875, 0, 0, 1.125e30, INF), "softplus": (0, 0, np.log(2) / 2, np.log(2) / 2, 1e30, INF),
    "relu": (0, 0, 0, 0, 1e30, INF), "leaky_relu": (-INF, -0.125e30, 0, 0, 1e30, INF), "hardtanh": (-0.5, -0.5, 0, 0, 2, 2),
}  # fmt: skip
SLOPES = {
    "sigmoid": (0, 0, 0.25, 0.25, 0, 0), "silu": (0, 0, 0.5, 0.5, 1, 1), "gelu": (0, 0, 0.5, 0.5, 1, 1), "gelu_tanh": (0, 0, 0.5, 0.5, 1, 1),
    "elu": (0, 0, 1.96875, 1.96875, 1.125, 1.125), "softplus": (0, 0, 0.5, 0.5, 1, 1), "relu": (0, 0, 0, 0, 1, 1),
    "leaky_relu": (0.125, 0.125, 0.125, 0.125, 1, 1), "hardtanh": (0, 0, 1, 1, 0, 0),
}  # fmt: skip


@every_twin
@every_float
@every_activation
def test_edges(act: str, dtype: Any, twin: str) -> None:
    """Far out a slope is its limit, and the curvature 0, not inf * 0; nan stays nan, but for slopes of straight lines, which let the cotangent through or not."""
    x = np.array([-INF, -1e30, -0.0, 0.0, 1e30, INF, NAN], dtype)
    found = derivatives(act, x, twin)
    assert_allclose(found[0][:6], np.array(VALUES[act], dtype), rtol=4 * np.finfo(dtype).eps)
    assert np.isnan(found[0][6])
    if act == "tanh":
        return
    assert_allclose(found[1][:6], np.array(SLOPES[act], dtype), rtol=4 * np.finfo(dtype).eps)
    assert np.isnan(found[1][6]) == (act in CURVED)
    if act in CURVED:
        assert_array_equal(found[2][[0, 1, 4, 5]], 0)
        assert np.isnan(found[2][6])


@every_twin
@pytest.mark.parametrize("act", FLAT)
def test_what_is_flat_stops_inf_and_nan(act: str, twin: str) -> None:
    g, x = np.array([INF, NAN, INF, NAN], np.float32), np.array([-3, -3, 1, 1], np.float32)
    with kernels.use(twin):
        d = activation_slope(g, x, **options(act))
    assert_array_equal(d, [INF, NAN, INF, NAN] if act == "leaky_relu" else [0, 0, INF, NAN])


@every_twin
@every_activation
def test_subnormal_numbers(act: str, twin: str) -> None:
    x = np.array([1e-45, -1e-45, 1e-40, -1e-40], np.float32)
    y, d = derivatives(act, x, twin)[:2]
    expected = {"sigmoid": np.full(4, 0.5), "softplus": np.full(4, np.log(2) / 2), "relu": np.maximum(x, 0), "elu": np.where(x > 0, 1.125 * x, 1.96875 * x)}
    expected |= {"leaky_relu": np.where(x > 0, x, x / 8), "tanh": x, "hardtanh": x}
    assert_allclose(y, expected.get(act, x / 2), rtol=1e-6, atol=1.5e-45)
    assert np.isfinite(d).all()


@every_twin
@pytest.mark.parametrize("name", ["float16", "bfloat16"])
@every_activation
def test_16_bit_floats_are_rounded_once(act: str, name: str, twin: str) -> None:
    dtype = np.dtype(name) if name == "float16" else np.dtype(pytest.importorskip("ml_dtypes").bfloat16)
    x = RNG.normal(0, 2, 1000).astype(dtype)
    x = np.tanh(x.astype(np.float64)).astype(dtype) if act == "tanh" else x
    exact = derivatives(act, x.astype(np.float64), "reference")
    for y, expected in zip(derivatives(act, x, twin), exact, strict=True):
        assert y.dtype == dtype
        rounded = expected.astype(dtype)
        error, unit = (
            np.abs(y.astype(np.float64) - expected),
            np.abs(np.nextafter(rounded, rounded.dtype.type(0)).astype(np.float64) - rounded.astype(np.float64)),
        )
        assert (error <= 0.51 * unit * 2 + 1e-7).all()


# ------------------------------------------------------------------------------------------------- shapes, layouts, mixtures


@every_twin
@pytest.mark.parametrize("shape", [(), (0,), (1,), (3,), (4, 0), (0, 3), (67,), (5, 7), (1, 1), (2, 3, 4), (1030,), (513, 3)], ids=str)
@pytest.mark.parametrize("act", ["silu", "hardtanh"])
def test_shapes(act: str, shape: tuple[int, ...], twin: str) -> None:
    x, g = (np.asarray(RNG.normal(size=shape)).astype(np.float32) for _ in range(2))
    expected = derivatives(act, x.astype(np.float64), "reference")
    with kernels.use(twin):
        y, d = activation(x, **options(act)), activation_slope(g, x, **options(act))
    assert y.shape == d.shape == shape
    assert y.dtype == d.dtype == np.float32
    assert_allclose(y, expected[0], rtol=1e-5, atol=1e-6)
    assert_allclose(d, g * expected[1], rtol=1e-5, atol=1e-6)


@every_twin
@pytest.mark.parametrize("act", ["gelu", "relu"])
def test_layouts(act: str, twin: str) -> None:
    base = RNG.normal(size=(6, 36, 20))
    offset = np.empty(base.size + 1)[1:].reshape(base.shape)  # not aligned to 16 bytes
    offset[...] = base
    for view in (base.T, base[::-1], base[:, ::2, ::-3], base.transpose(1, 0, 2), np.broadcast_to(base[:1, :1], base.shape), offset, base.astype(">f8")):
        same = np.ascontiguousarray(view).astype(float)
        with kernels.use(twin):
            pairs = [(activation(view, **options(act)), activation(same, **options(act)))]
            for g, h in ((view, view), (same, view), (view, same)):
                pairs.append((activation_slope(g, h, **options(act)), activation_slope(same, same, **options(act))))
                if act in CURVED:
                    pairs += zip(activation_bend(g, h, g, **options(act)), activation_bend(same, same, same, **options(act)), strict=True)
        for got, expected in pairs:
            assert_allclose(got, expected, rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("twin", TWINS[1:])
def test_what_lies_by_columns_stays_so_and_is_not_copied(twin: str) -> None:
    x = np.asfortranarray(RNG.normal(size=(30, 20)))
    assert activations.as_in_memory(x, x)[0][0].base is x
    with kernels.use(twin):
        for y in (activation(x, act="silu"), activation_slope(x, x, act="silu"), *activation_bend(x, x, x, act="silu")):
            assert y.flags.f_contiguous
            assert not np.shares_memory(x, y)


@every_twin
def test_mixtures_are_promoted_and_broadcast(twin: str) -> None:
    g, x = RNG.normal(size=(4, 1)), RNG.normal(size=(4, 3)).astype(np.float32)
    with kernels.use(twin):
        d = activation_slope(g, x, act="sigmoid")
        both = activation_bend(g, x, x, act="sigmoid")
    assert d.dtype == np.float64
    assert_allclose(d, g * activation_slope(np.ones_like(x), x, act="sigmoid"), rtol=1e-6)
    assert_allclose(both[0], d, rtol=1e-6)


# ------------------------------------------------------------------------------------------------- one pass for two


@every_twin
@pytest.mark.parametrize("act", CURVED)
def test_both_cotangents_are_those_that_come_one_by_one(act: str, twin: str) -> None:
    c, g, x = (RNG.uniform(-0.99, 0.99, (37, 29)).astype(np.float32) for _ in range(3))
    with kernels.use(twin):
        through, bent = activation_bend(c, g, x, **options(act))
        nothing, alone = activation_bend(c, g, x, both=False, **options(act))
        slope = activation_slope(c, x, **options(act))
    assert nothing is None
    assert_allclose(bent, alone, rtol=1e-6, atol=1e-7)
    assert_allclose(through, slope, rtol=1e-6, atol=1e-7)


@every_twin
@pytest.mark.parametrize("act", CURVED)
def test_the_curvature_is_the_derivative_of_the_slope(act: str, twin: str) -> None:
    x = RNG.uniform(0.1, 0.9, 300) * (RNG.choice([-1, 1], 300) if act != "elu" else -1)
    h = 1e-4
    _, above, _ = derivatives(act, x + h, twin)
    _, below, _ = derivatives(act, x - h, twin)
    assert_allclose(derivatives(act, x, twin)[2], (above - below) / (2 * h), rtol=1e-6, atol=1e-6)


# ------------------------------------------------------------------------------------------------- compiled functions


def test_one_compiled_function_serves_all_parameters() -> None:
    from gpugrad.kernels import activations_cpu

    x = np.ones(10, np.float32)
    for a in (1, 1.5, np.float32(2), np.float64(3)):
        activations_cpu.activation(x, act="elu", a=a, b=2)
        activations_cpu.activation_slope(x, x, act="elu", a=a, b=2)
    for of in (activations_cpu._value_of, activations_cpu._slope_of):
        run = of(activations.CODES["elu"])
        if hasattr(run, "signatures"):  # not where Numba is switched off
            assert len([s for s in run.signatures if "float32" in str(s[0])]) == 1


@pytest.mark.parametrize("act", ["gelu", "leaky_relu"])
def test_the_same_bits_on_any_number_of_threads(act: str, monkeypatch: pytest.MonkeyPatch) -> None:
    c, g, x = (RNG.normal(size=700_001).astype(np.float32) for _ in range(3))
    found = []
    with kernels.use("cpu"):
        for threads in ("1", "2", "5"):
            monkeypatch.setitem(os.environ, "GPUGRAD_NUM_THREADS", threads)
            found.append([activation(x, **options(act)), activation_slope(g, x, **options(act))])
            if act in CURVED:
                found[-1] += activation_bend(c, g, x, **options(act))
    for other in found[1:]:
        for a, expected in zip(other, found[0], strict=True):
            assert_array_equal(a, expected)


@pytest.mark.skipif(not emulator.is_available(), reason="needs g++")
def test_beyond_2_to_the_31() -> None:
    """One block of threads far out, in sparse memory."""
    n = 2**31 + 1024
    x, y = np.zeros(n, np.float16), np.zeros(n, np.float16)
    x[-1024:] = 3
    width = 8
    with emulator.blocks([(n - 1024) // (256 * width)]):
        activations.SOURCE.launch("activation", x.dtype, -(-n // (256 * width)), 256, x, y, n, width, activations.CODES["hardtanh"], -1.0, 2.0)
    assert_array_equal(y[-1024:], 2)


def test_gelu_of_complex_numbers_is_refused() -> None:
    with pytest.raises(TypeError, match="gelu: got complex128, expected real floats"):
        activation(np.ones(3, complex), act="gelu")


def test_every_activation_has_parameters_to_be_tested_with() -> None:
    assert set(PARAMETERS) <= set(CURVED + FLAT)
    assert set(ULPS) == set(VALUES) == set(CURVED + FLAT)


# ------------------------------------------------------------------------------------------------- shapes that broadcast


@every_twin
@every_activation
@pytest.mark.parametrize("shapes", [((3, 4, 5), (4, 5)), ((4, 5), (3, 4, 5)), ((3, 1, 5), (4, 5)), ((), (4, 5)), ((4, 5), ())], ids=str)
def test_shapes_that_broadcast(act: str, shapes: Any, twin: str) -> None:
    """The slope and curvature of the smaller array are computed once; the results are those of arrays that are laid out in full."""
    g, x = (RNG.uniform(-0.9, 0.9, shape) for shape in shapes)
    full = np.broadcast_shapes(*shapes)
    wide_g, wide_x = (np.ascontiguousarray(np.broadcast_to(v, full)) for v in (g, x))
    with kernels.use(twin):
        got = activation_slope(g, x, **options(act))
        assert got.shape == full
        assert_allclose(got, activation_slope(wide_g, wide_x, **options(act)), rtol=1e-15)
        if act in CURVED:
            for c in (g, np.ones_like(x), RNG.normal(size=full)):
                for both in (True, False):
                    expected = activation_bend(np.ascontiguousarray(np.broadcast_to(c, full)), wide_g, wide_x, both=both, **options(act))
                    through, bent = activation_bend(c, g, x, both=both, **options(act))
                    assert_allclose(np.broadcast_to(bent, full), expected[1], rtol=1e-14)
                    assert (through is None) == (not both)
                    if both:
                        assert_allclose(np.broadcast_to(through, full), expected[0], rtol=1e-14)
