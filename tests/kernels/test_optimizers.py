"""The optimizers' kernels where the walk over all kernels does not look: lists of any sizes, memory in any order, numbers in device memory, nan and inf."""

from __future__ import annotations

import inspect
import itertools
import os
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

import gpugrad as gg
from gpugrad import kernels
from gpugrad.cuda import emulator
from gpugrad.kernels import lists as tables
from gpugrad.kernels.lists import PIECE, Common, Update
from gpugrad.kernels.optimizers import adam, grad_norm, rmsprop, sgd
from gpugrad.testing import agreement

CUDA = pytest.param("cuda", marks=pytest.mark.skipif(not emulator.is_available(), reason="needs g++"))
every_twin = pytest.mark.parametrize("twin", ["reference", "cpu", CUDA])
TWINS = ["reference", "cpu", *(["cuda"] if emulator.is_available() else [])]
RNG = np.random.default_rng(0)
SIZES = [0, 1, 3, 31, 256, PIECE, PIECE + 1, 2 * PIECE + 7]


def lists(sizes: Any, count: int, dtype: Any = np.float32, seed: int = 0) -> list[list[Any]]:
    """Lists of parameters, gradients, averages, and from the fourth on averages of squares."""
    rng = np.random.default_rng(seed)
    return [[np.abs(rng.normal(size=n)).astype(dtype) if i > 2 else rng.normal(size=n).astype(dtype) for n in sizes] for i in range(count)]


def copies(arrays: list[list[Any]]) -> list[list[Any]]:
    return [[a.copy() for a in column] for column in arrays]


def wide(arrays: list[list[Any]]) -> list[list[Any]]:
    return [[a.astype(np.float64) for a in column] for column in arrays]


def adam_by_the_book(p: Any, g: Any, m: Any, v: Any, *, lr: float, step: int, norm: float, max_norm: float) -> tuple[Any, Any, Any]:
    g = g * min(1, max_norm / (norm + 1e-6))
    m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
    return p - lr * m / (1 - 0.9**step) / (np.sqrt(v / (1 - 0.999**step)) + 1e-8), m, v


def clipped_adam(arrays: list[list[Any]]) -> Any:
    """The norm of the gradients, by which they are then clipped."""
    norm = grad_norm(arrays[1])
    adam(*arrays, lr=0.1, step=2, norm=norm, max_norm=0.5)
    return norm


# ------------------------------------------------------------------------------------------------- any number of arrays of any size


@settings(max_examples=25, deadline=None)
@given(sizes=st.lists(st.one_of(st.integers(0, 70), st.sampled_from(SIZES)), min_size=1, max_size=9), dtype=st.sampled_from(agreement.dtypes()))
def test_any_sizes(sizes: list[int], dtype: Any) -> None:
    before = lists(sizes, 4, dtype)
    norm = np.sqrt(sum(np.sum(g**2) for g in wide(before)[1]))
    expected = [adam_by_the_book(*arrays, lr=0.1, step=2, norm=norm, max_norm=0.5) for arrays in zip(*wide(before))]
    unit = float(np.finfo(dtype).eps) if dtype.name != "bfloat16" else 2.0**-7
    for twin in TWINS:
        after = copies(before)
        with kernels.use(twin):
            got = clipped_adam(after)
        assert got.dtype == np.float64
        assert got.shape == ()
        assert_allclose(got, norm, rtol=1e-12)
        assert_array_equal([g.tobytes() for g in after[1]], [g.tobytes() for g in before[1]])  # gradients are read only
        for (p, m, v), *now in zip(expected, after[0], after[2], after[3]):
            for a, e in zip(now, (p, m, v)):
                assert a.dtype == dtype
                assert_allclose(a.astype(np.float64), e, rtol=4 * unit, atol=4 * unit if a is now[0] else unit)


@every_twin
def test_more_pieces_than_blocks_and_thousands_of_arrays(twin: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "_MOST_BLOCKS", 3)
    before = lists([5 * PIECE + 1] + [1, 2, 3] * 700, 4)
    expected = [adam_by_the_book(*arrays, lr=0.1, step=2, norm=0.0, max_norm=1.0) for arrays in zip(*wide(before))]
    descended = [p - np.float32(0.1) * g for p, g in zip(before[0], before[1])]
    after, other = copies(before), copies(before)
    with kernels.use(twin):
        adam(*after, lr=0.1, step=2)
        sgd(other[0], other[1], None, lr=0.1)
        norm = grad_norm(before[1])
    for p, (e, _, _), q, d in zip(after[0], expected, other[0], descended):
        assert_allclose(p, e, rtol=1e-6, atol=1e-6)
        assert_allclose(q, d, rtol=1e-6, atol=1e-7)
    assert_allclose(norm, np.linalg.norm(np.concatenate(before[1]).astype(float)), rtol=1e-12)


@pytest.mark.skipif(not emulator.is_available(), reason="needs g++")
def test_more_than_two_to_the_31_elements(monkeypatch: pytest.MonkeyPatch) -> None:
    """Zeros take no memory until they are written, and only the last block runs."""
    monkeypatch.setattr(tables, "_MOST_BLOCKS", 1 << 30)
    n = 2**31 + 5
    try:
        params, grads = [np.zeros(n, np.float16)], [np.zeros(n, np.float16)]
    except MemoryError:
        pytest.skip("no room for 8 GiB of addresses")
    grads[0][-2:] = 1, 2
    with kernels.use("cuda"), emulator.blocks([n // PIECE]):
        sgd(params, grads, None, lr=0.5)
    assert_array_equal(params[0][-4:], [0, 0, -0.5, -1])


@every_twin
def test_memory_in_any_order(twin: str) -> None:
    """Strided, reversed, transposed and unaligned parameters, gradients and averages; what lies between their elements stays."""
    layouts = [
        lambda a: a.T.copy().T,
        lambda a: np.repeat(np.repeat(a, 2, 0), 3, 1)[::2, ::3],
        lambda a: np.ascontiguousarray(a[::-1, ::-1])[::-1, ::-1],
        lambda a: np.concatenate([np.zeros(1, a.dtype), a.reshape(-1)])[1:].reshape(a.shape),
        lambda a: np.frombuffer(b"x" + a.tobytes() + b"y", np.uint8).copy()[1:-1].view(a.dtype).reshape(a.shape),  # not even at a multiple of its size
    ]
    start = [[c.reshape(67, 65) for c in column] for column in lists([67 * 65], 5)]
    expected = copies(start)
    with kernels.use("reference"):
        adam(*expected, lr=0.1, step=3, weight_decay=0.1)
        norm = grad_norm(start[1])
    for i, layout in enumerate(layouts):
        other = layouts[(i + 1) % len(layouts)]
        arrays = [[(other if k in (1, 3) else layout)(a) for a in column] for k, column in enumerate(start)]
        roots = [column[0] for column in arrays]
        with kernels.use(twin):
            adam(*arrays, lr=0.1, step=3, weight_decay=0.1)
            assert_allclose(grad_norm(arrays[1]), norm, rtol=1e-12)
        for column, (e,), root in zip(arrays, expected, roots):
            assert column[0] is root
            assert_allclose(column[0], e, rtol=2e-6, atol=1e-6)
    gaps = np.zeros((4, 8), np.float32)
    with kernels.use(twin):
        sgd([gaps[:, ::2]], [np.ones((4, 4), np.float32)], None, lr=1.0)
    assert_array_equal(gaps, [[-1, 0] * 4] * 4)


@every_twin
def test_arrays_of_no_axes_and_of_no_elements(twin: str) -> None:
    params = [np.array(2.0), np.zeros((3, 0)), np.array([[1.0]])]
    with kernels.use(twin):
        sgd(params, [np.array(1.0), np.zeros((3, 0)), np.array([[3.0]])], None, lr=0.5)
        assert grad_norm([np.zeros((0, 2)), np.zeros(0)]) == 0
    assert params[0] == 1.5
    assert params[2] == -0.5


@pytest.mark.parametrize("twin", ["cpu", CUDA])
def test_what_a_kernel_refuses(twin: str) -> None:
    f, d = np.zeros(4, np.float32), np.zeros(4)
    fixed = np.zeros(4, np.float32)
    fixed.flags.writeable = False
    cases: list[tuple[Any, type[Exception], str]] = [
        (lambda: sgd([f], [d], None, lr=0.1), TypeError, "got float64 .* beside float32"),
        (lambda: sgd([f], [f[:3]], None, lr=0.1), ValueError, r"got float32 \(3,\) beside float32 \(4,\)"),
        (lambda: sgd([f, d], [f, d], None, lr=0.1), TypeError, "float32.*float64.*expected one dtype"),
        (lambda: sgd([fixed], [f], None, lr=0.1), ValueError, "read-only"),
    ]
    with kernels.use(twin):
        for call, error, message in cases:
            with pytest.raises(error, match=message):
                call()
        sgd([f], [fixed], None, lr=0.1)  # a gradient may be


# ------------------------------------------------------------------------------------------------- numbers in device memory


@every_twin
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_numbers_may_lie_in_device_memory(twin: str, dtype: Any) -> None:
    for shape in ((), (1,)):
        for as_dtype in (np.float64, np.float32):
            number = lambda x: np.full(shape, x, as_dtype)  # noqa: B023
            start, lr = lists(SIZES, 4, dtype), float(as_dtype(0.1))
            a, b = copies(start), copies(start)
            with kernels.use(twin):
                adam(*a, lr=lr, step=7, norm=2.0, max_norm=0.5, decoupled=True, weight_decay=0.1)
                adam(*b, lr=number(lr), step=number(7), norm=number(2.0), max_norm=0.5, decoupled=True, weight_decay=0.1)
                sgd(a[0], a[1], a[2], lr=lr, momentum=0.9)
                sgd(b[0], b[1], b[2], lr=number(lr), momentum=0.9)
            for x, y in zip(itertools.chain(*a), itertools.chain(*b)):
                assert_allclose(x, y, rtol=64 * np.finfo(dtype).eps, atol=64 * np.finfo(dtype).eps)  # 1 - beta^step loses three digits


@every_twin
def test_a_number_is_one(twin: str) -> None:
    with kernels.use(twin), pytest.raises(ValueError, match=r"shape \(2,\)"):
        sgd([np.ones(4)], [np.ones(4)], None, lr=np.ones(2))


@pytest.mark.skipif(not emulator.is_available(), reason="needs g++")
def test_addresses_are_handed_over_once() -> None:
    arrays = lists([40, 50], 3)
    with kernels.use("cuda"):
        sgd(*arrays, lr=0.1)
        before = tables._uploaded.cache_info()
        sgd(*arrays, lr=0.1)
        assert tables._uploaded.cache_info().misses == before.misses
        other = [g.copy() for g in arrays[1]]
        sgd(arrays[0], other, arrays[2], lr=0.1)
        assert tables._uploaded.cache_info().misses == before.misses + 1


# ------------------------------------------------------------------------------------------------- exact, deterministic, nothing hidden


@every_twin
@pytest.mark.parametrize("dtype", agreement.dtypes(), ids=str)
def test_the_first_momentum_is_the_gradient(twin: str, dtype: Any) -> None:
    params, grads, buffers = lists(SIZES, 3, dtype)
    buffers = [np.zeros_like(b) for b in buffers]
    with kernels.use(twin):
        sgd(params, grads, buffers, lr=0.1, momentum=0.9, keep=1.0)
    for g, b in zip(grads, buffers):
        assert_array_equal(g.astype(float), b.astype(float))


@every_twin
def test_nan_and_inf_stay_where_they_are(twin: str) -> None:
    for bad in (np.nan, np.inf):
        params, grads, m, v, w = lists([PIECE + 5], 5)
        grads[0][[3, PIECE + 2]] = bad
        with kernels.use(twin), np.errstate(invalid="ignore"):
            other = [params[0].copy()]
            sgd(other, grads, None, lr=0.1)
            adam(params, grads, m, v, w, lr=0.1, step=1)
        where = np.zeros(PIECE + 5, bool)
        where[[3, PIECE + 2]] = True
        assert_array_equal(~np.isfinite(other[0]), where)
        assert_array_equal(~np.isfinite(m[0]), where)
        assert_array_equal(~np.isfinite(w[0]), where)
        assert np.isnan(params[0][where]).all()  # inf / inf is nan
        assert np.isfinite(params[0][~where]).all()
    params, grads, m, v, w = lists([9], 5)
    params[0][4], w[0][2] = np.inf, np.nan
    with kernels.use(twin):
        adam(params, grads, m, v, w, lr=0.1, step=1)
    assert params[0][4] == np.inf  # no decay, no 0 * inf
    assert_array_equal(np.isnan(w[0]), np.arange(9) == 2)  # the largest so far was nan, and stays nan


@every_twin
def test_a_norm_that_is_not_finite(twin: str) -> None:
    """As in PyTorch: nan makes all nan, inf makes finite gradients 0."""
    for bad, expected in ((np.nan, [np.nan] * 3), (np.inf, [np.nan, 2.0, 3.0])):
        params, grads = [np.array([1.0, 2.0, 3.0])], [np.array([bad, 1.0, 1.0])]
        with kernels.use(twin), np.errstate(invalid="ignore"):
            norm = grad_norm(grads)
            assert_array_equal(norm, bad)
            sgd(params, grads, None, lr=0.1, norm=norm, max_norm=1.0)
        assert_array_equal(params[0], expected)


@every_twin
def test_norms_of_very_large_and_very_small_numbers(twin: str) -> None:
    with kernels.use(twin):
        assert_allclose(grad_norm([np.full(4, 1e30, np.float32), np.zeros(3, np.float32)]), 2e30, rtol=1e-7)
        assert_allclose(grad_norm([np.full((2, 2), 1e-30, np.float32)]), 2e-30, rtol=1e-7)
        assert_allclose(grad_norm([np.full(4, 6e4, np.float16)]), 12e4, rtol=1e-3)


@every_twin
def test_the_norm_has_the_same_bits_however_memory_lies(twin: str) -> None:
    g = RNG.normal(size=3 * PIECE + 11).astype(np.float32)
    shifted = np.concatenate([np.zeros(1, np.float32), g])[1:]
    with kernels.use(twin):
        assert grad_norm([g]).tobytes() == grad_norm([shifted]).tobytes() == grad_norm([np.repeat(g, 2)[::2]]).tobytes()


@pytest.mark.parametrize("threads", ["1", "2", "5"])
def test_large_arrays_have_the_same_bits_on_any_number_of_threads(threads: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from gpugrad.kernels import optimizers_cpu

    monkeypatch.setattr(optimizers_cpu, "_LEAST", 1 << 16)
    start = lists([400_003, 17], 5)
    results = []
    for number in ("1", threads):
        monkeypatch.setitem(os.environ, "GPUGRAD_NUM_THREADS", number)
        arrays = copies(start)
        with kernels.use("cpu"):
            norm = grad_norm(arrays[1])
            adam(*arrays, lr=0.1, step=3, norm=norm, max_norm=1.0, weight_decay=0.1)
            sgd(*arrays[:3], lr=0.1, momentum=0.9, nesterov=True)
        results.append([norm.tobytes(), *[a.tobytes() for column in arrays for a in column]])
    assert results[0] == results[1]


# ------------------------------------------------------------------------------------------------- how an update is declared

UPDATES = {name: kernel for name, kernel in kernels.KERNELS.items() if isinstance(kernel, Update)}
every_update = pytest.mark.parametrize("kernel", UPDATES.values(), ids=UPDATES)


def test_the_updates_are_found() -> None:
    assert set(UPDATES) == {"sgd", "adam", "nadam", "rmsprop", "adagrad", "adadelta", "lion"}


@every_update
def test_the_twins_have_the_signature_of_the_reference(kernel: Update) -> None:
    """The Numba twin with the same defaults; the CUDA kernel the same options in the same order, a number that may lie on the device as two."""
    described = lambda f: [(p.name, p.kind, p.default, str(p.annotation)) for p in inspect.signature(f).parameters.values()]
    assert described(kernel.cpu) == described(kernel.reference)
    own = [[f"{name}_at", f"{name}_number"] if kind == "Number" else [name] for name, (kind, _) in kernel.options.items()]
    common = ["norm_at", "norm_number", "max_norm", "weight_decay", "decoupled", "maximize"]
    assert [p.name for p in kernel.source.entries[kernel.name]] == ["addresses", "pieces", "count", *itertools.chain(*own), *common]
    assert list(Common.__annotations__) == ["weight_decay", "decoupled", "maximize", "norm", "max_norm"]


@every_twin
@every_update
def test_an_option_that_there_is_not(kernel: Update, twin: str) -> None:
    args, options = kernel.samples(np.random.default_rng(0), np.dtype(np.float32))[0]
    with kernels.use(twin), pytest.raises(TypeError, match="unexpected keyword argument 'weight_dcay'"):
        kernel(*args, **options, weight_dcay=0.1)


@every_twin
@every_update
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_every_number_may_lie_in_device_memory(kernel: Update, twin: str, dtype: Any) -> None:
    numbers = {name for name, (kind, _) in kernel.options.items() if kind == "Number"} | {"norm"}
    rng = lambda: np.random.default_rng(0)
    for (a, options), (b, _) in zip(kernel.samples(rng(), np.dtype(dtype)), kernel.samples(rng(), np.dtype(dtype))):
        stored = {k: np.array(float(v)) if k in numbers else v for k, v in options.items()}
        with kernels.use(twin):
            kernel(*a, **options)
            kernel(*b, **stored)
        for x, y in zip(itertools.chain(*[c for c in a if c is not None]), itertools.chain(*[c for c in b if c is not None])):
            assert_allclose(x, y, rtol=64 * np.finfo(dtype).eps, atol=64 * np.finfo(dtype).eps)


@every_twin
@every_update
def test_strided_memory_gives_the_same_bits(kernel: Update, twin: str) -> None:
    """All arrays with gaps between their elements, or transposed; what lies in the gaps stays."""
    layouts = [lambda a: np.repeat(a, 2)[::2].reshape(a.shape), lambda a: np.asfortranarray(a), lambda a: a[..., ::-1].copy()[..., ::-1]]
    for i, (args, options) in enumerate(kernel.samples(np.random.default_rng(0), np.dtype(np.float32))):
        pick = lambda f, args=args: [None if c is None else [f(np.array(c[4])), f(np.array(c[3]))] for c in args]
        straight, strided = pick(np.array), pick(layouts[i % 3])
        with kernels.use(twin):
            kernel(*straight, **options)
            kernel(*strided, **options)
        for x, y in zip(itertools.chain(*filter(None, straight)), itertools.chain(*filter(None, strided))):
            assert x.tobytes() == y.tobytes()


@every_twin
@every_update
@pytest.mark.parametrize("dtype", agreement.dtypes(), ids=str)
def test_a_nan_is_seen_where_it_is(kernel: Update, twin: str, dtype: Any) -> None:
    """In the gradient, in the parameter (kept there), in anything remembered: never hidden, and never elsewhere."""
    for args, options in kernel.samples(np.random.default_rng(0), np.dtype(dtype)):
        for k, column in enumerate(args):
            if column is not None:
                arrays = [None if c is None else [np.array(c[5])] for c in args]
                arrays[k][0][[0, 7, 4096]] = np.nan  # type: ignore[index]
                with kernels.use(twin), np.errstate(all="ignore"):
                    kernel(*arrays, **options)
                where = np.zeros(4097, bool)
                where[[0, 7, 4096]] = True
                assert_array_equal(np.isnan(arrays[0][0].astype(float)), where)  # type: ignore[index]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@every_twin
def test_a_variance_is_not_negative(twin: str, dtype: Any) -> None:
    """v - m^2 of rmsprop, where m^2 is the larger by rounding, or by what was loaded."""
    m = np.linspace(0.5, 2, 100).astype(dtype)
    params, v = [np.zeros(100, dtype)], [m * m * dtype(1 - 1e-3)]
    with kernels.use(twin):
        rmsprop(params, [m.copy()], v, [m.copy()], lr=1.0, alpha=0.9, eps=0.5)
    assert_allclose(params[0], -2 * m, rtol=1e-6)


def test_what_is_remembered_elsewhere_is_refused(fake_cupy: Any) -> None:
    """A pointer into the CPU's memory must never reach a GPU."""
    x, host = gg.tensor(np.ones(5, np.float32), device="cuda").data, np.ones(5, np.float32)
    with pytest.raises(gg.backend.DeviceError, match=r"got float32 \(5,\) beside float32 \(5,\) on cuda:0, expected the parameter, its gradient"):
        sgd([x], [x.copy()], [host], lr=0.1, momentum=0.9)
