"""The elementary functions of the Numba twins against exact ones: every range, inf, nan, subnormal numbers, the sign of zero; and that they vectorise."""

from __future__ import annotations

import functools
import platform
from collections.abc import Callable
from decimal import Decimal, getcontext, localcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpugrad import jit
from gpugrad.kernels import elementary_cpu

# The largest errors in units in the last place, for float32 and float64, as the module's table states them.
ERRORS = {
    "exp": (1.0, 1.0),
    "exp_of_negative": (1.0, 1.0),
    "expm1": (1.5, 1.8),
    "log": (0.9, 0.9),
    "log1p": (1.5, 1.5),
    "tanh": (2.3, 2.1),
    "sigmoid": (2.4, 2.1),
    "softplus": (1.8, 1.6),
    "erf": (1.2, 1.2),
    "erfc": (4.3, 4.0),
    "normal_cdf": (4.8, 6.3),
    "normal_pdf": (2.2, 2.2),
}
DTYPES = (np.float32, np.float64)
DIGITS = {np.float32: 110, np.float64: 390}  # of the exact values, before what 1 - erf(x) and exp(x) - 1 lose


@functools.cache
def looped(name: str) -> Any:
    f = getattr(elementary_cpu, name)

    @jit.compiled
    def loop(x, y):  # type: ignore[no-untyped-def]
        for i in range(x.size):
            y[i] = f(x[i])

    return loop


def values(name: str, x: np.ndarray) -> np.ndarray:
    y = np.empty_like(x)
    looped(name)(x, y)
    return y


@functools.cache
def _pi() -> Decimal:
    """By Machin's formula."""

    def arctan_of_1_over(n: int) -> Decimal:
        total = term = Decimal(1) / n
        k = 1
        while abs(term) > Decimal(10) ** -400:
            term = -term / (n * n)
            k += 2
            total += term / k
        return total

    with localcontext(prec=410):
        return 16 * arctan_of_1_over(5) - 4 * arctan_of_1_over(239)


def _erf(x: Decimal) -> Decimal:
    """A series whose terms are all positive: 2/sqrt(pi) exp(-x^2) sum of 2^n x^(2n+1) / (2n+1)!!."""
    total = term = x
    n = 0
    smallest = Decimal(10) ** -getcontext().prec
    while abs(term) > abs(total) * smallest:
        n += 1
        term *= 2 * x * x / (2 * n + 1)
        total += term
    return 2 / _pi().sqrt() * (-x * x).exp() * total


EXACT: dict[str, Callable[[Decimal], Decimal]] = {
    "exp": lambda x: x.exp(),
    "exp_of_negative": lambda x: x.exp(),
    "expm1": lambda x: x.exp() - 1,
    "log": lambda x: x.ln(),
    "log1p": lambda x: (1 + x).ln(),
    "tanh": lambda x: ((2 * x).exp() - 1) / ((2 * x).exp() + 1),
    "sigmoid": lambda x: 1 / (1 + (-x).exp()),
    "softplus": lambda x: (1 + x.exp()).ln(),
    "erf": _erf,
    "erfc": lambda x: 1 - _erf(x),
    "normal_cdf": lambda x: (1 - _erf(-x / Decimal(2).sqrt())) / 2,
    "normal_pdf": lambda x: (-x * x / 2).exp() / (2 * _pi()).sqrt(),
}


def arguments(name: str, dtype: Any, rng: np.random.Generator) -> np.ndarray:
    """Numbers from everywhere where the function changes, and at its kinks."""
    info = np.finfo(dtype)
    far = {"erf": 6, "erfc": 27.5, "normal_cdf": 38.6, "normal_pdf": 38.6, "tanh": 25}.get(name, -float(np.log(info.smallest_subnormal)) - 0.5)
    near = rng.uniform(-4, 4, 40)
    tiny = rng.choice([-1, 1], 20) * 10.0 ** rng.uniform(np.log10(info.smallest_subnormal) + 1, 0, 20)
    kinks = np.array([0.3465, 0.3467, 0.5, 0.6, 1.0, 0.7071, 1.4142, 10.2]) * [[1 - 1e-6], [1], [1 + 1e-6]]
    x = np.concatenate([near, tiny, kinks.ravel(), -kinks.ravel(), rng.uniform(-far, far, 40)])
    if name in ("log", "log1p"):
        x = np.concatenate([np.abs(near), np.abs(tiny), kinks.ravel(), 10.0 ** rng.uniform(0, np.log10(info.max), 40)])
        x = x if name == "log" else np.concatenate([x, -rng.uniform(0, 1, 40)])
    return in_domain(name, x.astype(dtype))


def in_domain(name: str, x: np.ndarray) -> np.ndarray:
    return -np.abs(x) if name == "exp_of_negative" else x


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ERRORS)
def test_agrees_with_exact_values(name: str, dtype: Any) -> None:
    x = arguments(name, dtype, np.random.default_rng(0))
    y = values(name, x)
    allowed = Decimal(ERRORS[name][dtype is np.float64])
    with localcontext(prec=DIGITS[dtype]):
        for a, b in zip(x.tolist(), y.tolist()):
            exact = EXACT[name](Decimal(a))
            if abs(exact) > Decimal(float(np.finfo(dtype).max)):
                continue
            unit = Decimal(float(np.spacing(np.abs(dtype(float(exact))))))
            assert abs(Decimal(b) - exact) <= allowed * unit, f"{name}({a!r}) = {b!r}, expected {exact:.20e}"


@pytest.mark.parametrize("name", ERRORS)
def test_float32_agrees_with_float64_on_all_orders_of_magnitude(name: str) -> None:
    x = np.arange(0, 1 << 32, 9973, dtype=np.uint32).view(np.float32)
    x = np.concatenate([x, np.random.default_rng(0).uniform(-8, 8, 200_000).astype(np.float32)])
    x = in_domain(name, x)
    with np.errstate(over="ignore", invalid="ignore"):  # casts of signalling nans warn
        y, exact = values(name, x), values(name, x.astype(np.float64))
        rounded = exact.astype(np.float32)
    np.testing.assert_array_equal(np.isnan(y), np.isnan(rounded))
    finite = np.isfinite(rounded)
    np.testing.assert_array_equal(y[~finite], rounded[~finite])
    error = np.abs(y[finite] - exact[finite]) / np.spacing(np.abs(rounded[finite]))
    assert error.max() <= ERRORS[name][0]


INF, NAN = np.inf, np.nan
SPECIAL = {
    "exp": ([-INF, INF, NAN, 0.0], [0.0, INF, NAN, 1.0]),
    "exp_of_negative": ([-INF, NAN, 0.0, -0.0], [0.0, NAN, 1.0, 1.0]),
    "expm1": ([-INF, INF, NAN, 0.0, -0.0], [-1.0, INF, NAN, 0.0, -0.0]),
    "log": ([-INF, INF, NAN, 0.0, -0.0, 1.0, -1e-30], [NAN, INF, NAN, -INF, -INF, 0.0, NAN]),
    "log1p": ([-INF, INF, NAN, 0.0, -0.0, -1.0, -1.5], [NAN, INF, NAN, 0.0, -0.0, -INF, NAN]),
    "tanh": ([-INF, INF, NAN, 0.0, -0.0], [-1.0, 1.0, NAN, 0.0, -0.0]),
    "sigmoid": ([-INF, INF, NAN, 0.0], [0.0, 1.0, NAN, 0.5]),
    "softplus": ([-INF, INF, NAN], [0.0, INF, NAN]),
    "erf": ([-INF, INF, NAN, 0.0, -0.0], [-1.0, 1.0, NAN, 0.0, -0.0]),
    "erfc": ([-INF, INF, NAN, 0.0], [2.0, 0.0, NAN, 1.0]),
    "normal_cdf": ([-INF, INF, NAN, 0.0], [0.0, 1.0, NAN, 0.5]),
    "normal_pdf": ([-INF, INF, NAN], [0.0, 0.0, NAN]),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ERRORS)
def test_infinities_nan_and_signed_zeros_are_exact(name: str, dtype: Any) -> None:
    x, expected = (np.array(v, dtype) for v in SPECIAL[name])
    y = values(name, x)
    np.testing.assert_array_equal(y, expected)
    np.testing.assert_array_equal(np.signbit(y) & ~np.isnan(y), np.signbit(expected))


@pytest.mark.parametrize(("dtype", "last", "first"), [(np.float32, 88.72283, -103.97208), (np.float64, 709.782712893384, -745.1332191019411)])
def test_exp_overflows_and_vanishes_where_it_must(dtype: Any, last: float, first: float) -> None:
    x = np.array([last, np.nextafter(dtype(last), dtype(INF)), first, np.nextafter(dtype(first), dtype(-INF))], dtype)
    y = values("exp", x)
    assert np.isfinite(y[0])
    assert y[1] == INF
    assert y[2] == np.finfo(dtype).smallest_subnormal
    assert y[3] == 0


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ERRORS)
def test_an_element_has_the_same_bits_wherever_it_stands(name: str, dtype: Any) -> None:
    """In the vectorised body of the loop and in its tail: else a result would depend on how threads share the work."""
    x = in_domain(name, np.abs(np.random.default_rng(0).standard_normal(300)).astype(dtype) * 3)
    whole = values(name, x)
    one_by_one = np.concatenate([values(name, x[i : i + 1]) for i in range(x.size)])
    np.testing.assert_array_equal(whole, one_by_one)


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="looks for the names of x86 instructions")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ERRORS)
def test_loops_vectorise(name: str, dtype: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPUGRAD_CACHE_DIR", str(tmp_path))  # what is loaded from a cache shows no assembly
    x, loop = np.ones(4, dtype), looped.__wrapped__(name)
    loop(x, x.copy())
    (assembly,) = loop.inspect_asm().values()
    suffix = "ps" if dtype is np.float32 else "pd"
    assert f"mul{suffix}" in assembly or f"213{suffix}" in assembly  # packed, not one at a time


@pytest.mark.parametrize("name", ERRORS)
def test_called_from_python_it_gives_the_same(name: str) -> None:
    for dtype in DTYPES:
        x = in_domain(name, dtype(0.7))
        y = getattr(elementary_cpu, name)(x)
        assert y.dtype == dtype
        np.testing.assert_allclose(y, values(name, np.array([x]))[0], rtol=10 * np.finfo(dtype).eps)
