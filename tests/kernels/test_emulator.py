"""The emulator of CUDA: that it computes what CUDA says, and that it sees planted bugs, each beside the kernel without."""

from __future__ import annotations

import ctypes
import mmap
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import nvrtc
import pytest

from gpugrad import backend
from gpugrad.cuda import emulator, loader
from gpugrad.cuda.loader import Source

ml_dtypes = pytest.importorskip("ml_dtypes")
pytestmark = pytest.mark.skipif(not emulator.is_available(), reason="the emulator needs a C++ compiler")

SOURCES = Path(__file__).with_name("sources")
FEATURES = Source("features.cu", folder=SOURCES)
TAIL, BARRIER, STRIDE, INDEX, SHARED, DIVERGENCE, UNDEFINED, ATOMIC = (
    Source(f"planted_{name}.cu", folder=SOURCES) for name in ("tail", "barrier", "stride", "index", "shared", "divergence", "undefined", "atomic")
)
RNG = np.random.default_rng(0)
FLOATS = (np.float32, np.float64)
BFLOAT16 = ml_dtypes.bfloat16
SCHEDULES = [("forward", 0), ("reverse", 0), ("shuffled", 0), ("shuffled", 1)]
every_schedule = pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: f"{s[0]}-{s[1]}")


@pytest.mark.skipif(nvrtc.library() is None, reason="needs NVRTC")
@pytest.mark.parametrize("dtype", loader.TYPES)
def test_what_is_emulated_here_is_cuda(dtype: str) -> None:
    nvrtc.compiled(FEATURES.code(dtype), 80, loader.OPTIONS)
    for source in (TAIL, BARRIER, STRIDE, INDEX, SHARED, DIVERGENCE, UNDEFINED, ATOMIC):
        nvrtc.compiled(source.code(dtype), 80, loader.OPTIONS)


# ------------------------------------------------------------------------------------------------- what CUDA says


@every_schedule
def test_every_thread_runs_once(schedule: tuple[str, int]) -> None:
    grid, block = (3, 2, 4), (5, 3, 2)
    out = np.full((24, 30, 8), -1, np.int64)
    with emulator.schedule(*schedule):
        FEATURES.launch("where_am_i", np.float32, grid, block, out)
    for z, y, x in np.ndindex(grid[::-1]):
        for c, b, a in np.ndindex(block[::-1]):
            assert list(out[x + 3 * (y + 2 * z), a + 5 * (b + 3 * c)]) == [x, y, z, a, b, c, 24, 30]


def turns(order: str, seed: int = 0) -> Any:
    out = np.full((2, 128), -1, np.int64)
    with emulator.schedule(order, seed):
        FEATURES.launch("turns", np.float32, 1, 128, np.zeros(1, np.uint32), out)
    return out


def test_the_orders_in_which_threads_take_turns() -> None:
    """Forward, reverse, and shuffled anew after each barrier: the warps, and the threads of each."""
    forward = np.tile(np.arange(128), (2, 1))
    np.testing.assert_array_equal(turns("forward"), forward)
    np.testing.assert_array_equal(turns("reverse"), forward[:, ::-1])
    first, second = turns("shuffled", 1), turns("shuffled", 2)
    np.testing.assert_array_equal(first, turns("shuffled", 1))
    for order in (*first, *second):
        np.testing.assert_array_equal(np.sort(order), np.arange(128))
        assert (order.reshape(4, 32) // 32 == order[::32, None] // 32).all(), "a warp runs until all of it waits"
        assert (np.diff(order.reshape(4, 32)) < 0).any(1).all() and (np.diff(order.reshape(4, 32)) > 0).any(1).all()
    assert len({order.tobytes() for order in (*first, *second)}) == 4
    assert len({(order[::32] // 32).tobytes() for order in (*first, *second)}) > 1


def source_lane(kind: int, lane: int, by: int, width: int) -> int:
    """From which lane shfl.sync reads, after the PTX manual: maxLane = (lane & segmask) | (cval & ~segmask), and so on."""
    segment_mask = 32 - width
    first, last, by = lane & segment_mask, (lane & segment_mask) | (31 & ~segment_mask), by & 31
    if kind == 0:
        return first | (by & ~segment_mask)
    if kind == 1:
        return lane - by if lane - by >= first else lane
    if kind == 2:
        return lane + by if lane + by <= last else lane
    return lane ^ by if lane ^ by <= last else lane


SHUFFLED = [
    ("shuffle_acc", "float32", "float32"), ("shuffle_acc", "float64", "float64"), ("shuffle_int32", "float32", "int32"),
    ("shuffle_uint32", "float32", "uint32"), ("shuffle_int64", "float32", "int64"), ("shuffle_uint64", "float32", "uint64"),
]  # fmt: skip


@pytest.mark.parametrize(("entry", "dtype", "of"), SHUFFLED, ids=[of for _, _, of in SHUFFLED])
def test_shuffles(entry: str, dtype: str, of: str) -> None:
    x = RNG.normal(size=64).astype(of) if of.startswith("float") else RNG.integers(0, 2**63, 64).astype(of)
    for kind in range(4):
        for by in (0, 1, 3, 5, 16, 21, 31, 32, 33):
            for width in (1, 2, 8, 32):
                y = np.zeros_like(x)
                FEATURES.launch(entry, dtype, 1, 64, x, y, kind, by, width)
                expected = [x[w + source_lane(kind, lane, by, width)] for w in (0, 32) for lane in range(32)]
                np.testing.assert_array_equal(y, expected, err_msg=f"kind {kind}, by {by}, width {width}")


def test_shuffle_refuses_odd_widths() -> None:
    x = np.zeros(32, np.float32)
    with pytest.raises(RuntimeError, match=r"features\.cu:\d+ with width 3"):
        FEATURES.launch("shuffle_acc", np.float32, 1, 32, x, x.copy(), 0, 0, 3)


@every_schedule
def test_halves_of_a_warp_with_masks_of_their_own(schedule: tuple[str, int]) -> None:
    x = RNG.integers(-100, 100, 64, np.int32)
    y = np.zeros_like(x)
    with emulator.schedule(*schedule):
        FEATURES.launch("halves", np.float32, 1, 64, x, y)
    parts = x.reshape(4, 16)
    np.testing.assert_array_equal(y.reshape(4, 16), np.stack([np.full(16, p.max() if i % 2 else p.sum()) for i, p in enumerate(parts)]))


@pytest.mark.parametrize("x", [np.ones(45), np.zeros(45), np.arange(45) % 3], ids=["all", "none", "some"])
def test_votes(x: Any) -> None:
    """Also in a block whose last warp is not full."""
    x = x.astype(np.int32)
    y = np.zeros((45, 4), np.uint32)
    FEATURES.launch("votes", np.float32, 1, 45, x, y)
    for warp in (slice(0, 32), slice(32, 45)):
        ballot = sum(1 << i for i, v in enumerate(x[warp]) if v)
        active = (1 << len(x[warp])) - 1
        np.testing.assert_array_equal(y[warp], [[ballot, ballot != 0, ballot == active, active]] * len(x[warp]))


@pytest.mark.parametrize("x", [np.ones(100), np.zeros(100), np.arange(100) % 3], ids=["all", "none", "some"])
def test_counting_barriers(x: Any) -> None:
    y = np.zeros((100, 3), np.int32)
    FEATURES.launch("counting_barriers", np.float32, 1, 100, x.astype(np.int32), y)
    np.testing.assert_array_equal(y, [[np.count_nonzero(x), np.any(x), np.all(x)]] * 100)


@every_schedule
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("n", [1, 32, 77, 1024])
def test_shared_memory(n: int, dtype: Any, schedule: tuple[str, int]) -> None:
    x = RNG.normal(size=(2, n)).astype(dtype)
    y = np.zeros_like(x)
    with emulator.schedule(*schedule):
        FEATURES.launch("rotations", dtype, 1, n, x, y, n, 5, shared=x[0].nbytes)
    np.testing.assert_array_equal(y, np.roll(x, -5, axis=1))


@pytest.mark.parametrize("dtype", FLOATS)
def test_sums_and_maxima_of_blocks(dtype: Any) -> None:
    x = RNG.normal(size=(3, 1024)).astype(dtype)
    x[1, 500] = np.nan
    results = []
    for schedule in SCHEDULES:
        y = np.zeros((3, 2), dtype)
        with emulator.schedule(*schedule):
            FEATURES.launch("block_sums", dtype, 3, 1024, x, y)
        results.append(y.tobytes())
    np.testing.assert_allclose(y, np.stack([x.sum(1), x.max(1)], 1), rtol=1e-4)
    assert len(set(results)) == 1


@pytest.mark.parametrize("dtype", [np.int32, np.uint32, np.int64, np.uint64])
def test_atomics(dtype: Any) -> None:
    info = np.iinfo(dtype)
    x = RNG.integers(info.min, info.max, 100, dtype, endpoint=True)
    p = np.array([info.min, info.max, -1 if info.min else info.max, 0, 0, 1, 2, 3], dtype)
    after = p.copy()
    FEATURES.launch(f"atomics_{np.dtype(dtype).name}", np.float32, 1, 100, x, after)
    expected = [x.max(), x.min(), np.bitwise_and.reduce(x), np.bitwise_or.reduce(x), np.bitwise_xor.reduce(x)]
    np.testing.assert_array_equal(after[:5], expected)
    if dtype != np.int64:  # for which CUDA has no sum
        with np.errstate(over="ignore"):
            np.testing.assert_array_equal(after[5:], [p[5] + x.sum(dtype=dtype), x[-1], p[7] + x.sum(dtype=dtype)])


@every_schedule
def test_the_last_block_knows(schedule: tuple[str, int]) -> None:
    count, last = np.zeros(1, np.uint32), np.zeros(1, np.int64)
    with emulator.schedule(*schedule):
        FEATURES.launch("last_block", np.float32, 77, 32, count, last)
    assert count[0] == 77 and last[0] == 1


def test_bits() -> None:
    n = 200
    x, z = RNG.integers(0, 2**32, n, np.uint32), RNG.integers(0, 2**64, n, np.uint64)
    x[:3], z[:3] = (0, 1, 2**31), (0, 1, 2**63)
    y = np.zeros((n, 14), np.int64)
    FEATURES.launch("bits", np.float32, 1, 256, x, z, y, n)

    def signed(v: int, bits: int) -> int:
        return v - (1 << bits) if v >> (bits - 1) else v

    for i in range(n):
        a, b, c, d = int(x[i]), int(x[(i + 1) % n]), int(z[i]), int(z[(i + 1) % n])
        first = lambda v: (v & -v).bit_length()
        turned = lambda v, bits: int(f"{v:0{bits}b}"[::-1], 2)
        expected = [a.bit_count(), 32 - a.bit_length(), first(a), turned(a, 32), a * b >> 32, signed(a, 32) * signed(b, 32) >> 32]
        expected += [c.bit_count(), 64 - c.bit_length(), first(c), signed(turned(c, 64), 64), signed(c * d >> 64, 64), signed(c, 64) * signed(d, 64) >> 64]
        assert list(y[i]) == [*expected, a, signed(c, 64)]


def expected_functions(x: Any) -> Any:
    from scipy import special

    p, half = np.abs(x), x.dtype.type(0.5)
    with np.errstate(all="ignore"):
        kind = np.where(np.isnan(x), 1, np.where(np.isinf(x), 2, 0))
        return np.stack(
            [
                np.exp(x), np.expm1(x), np.log(p), np.log1p(p), np.tanh(x), special.erf(x), special.erfc(x), np.sqrt(p), 1 / np.sqrt(p), x * x - 1,
                p**1.5, np.sin(x), np.cos(x), np.floor(x), np.ceil(x), np.trunc(x), np.rint(x), np.copysign(2, x), np.fmin(x, half), np.fmax(x, half),
                p, kind, np.exp2(x), np.cbrt(x), normal_cdf(x), np.fmod(x, 0.75),
            ],
            axis=1,
        )  # fmt: skip


def normal_cdf(x: Any) -> Any:
    """To the last digits: SciPy's ``ndtr`` rounds x / sqrt(2), and what that loses grows in the tail as x^2 does."""
    from scipy import special

    exact = x.astype(np.longdouble) * -np.sqrt(np.longdouble(0.5))
    t = np.where(np.isfinite(x), exact, 0).astype(np.float64)
    y = 0.5 * special.erfc(t) - np.exp(-t * t) / np.sqrt(np.pi) * np.where(np.isfinite(x), exact - t, 0).astype(np.float64)
    return np.where(np.isfinite(x), y, special.ndtr(x))


@pytest.mark.parametrize("dtype", FLOATS)
def test_functions(dtype: Any) -> None:
    """Of a nan, min and max give the other number, as CUDA's do."""
    x = np.concatenate([RNG.normal(size=200) * 5, [0, -0.0, 0.5, -0.5, 1.5, np.nan, np.inf, -np.inf]]).astype(dtype)
    y = np.zeros((x.size, 26), dtype)
    FEATURES.launch("functions_float" if dtype == np.float32 else "functions_double", dtype, 1, 256, x, y, x.size)
    expected = expected_functions(x.astype(np.float64))
    with np.errstate(all="ignore"):
        expected[:, 9] = x.astype(np.longdouble) ** 2 - 1  # fma rounds once
    scale = np.maximum(1e-30, np.abs(expected))
    expected = expected.astype(dtype)
    np.testing.assert_array_equal(np.isnan(y), np.isnan(expected))
    np.testing.assert_array_equal(y[~np.isfinite(expected)], expected[~np.isfinite(expected)])
    finite = np.isfinite(expected)
    assert np.max(np.abs(y[finite] - expected[finite]) / scale[finite]) < 20 * np.finfo(dtype).eps


def test_overloads() -> None:
    x, y = np.array([0.7], np.float32), np.zeros(11)
    FEATURES.launch("overloads", np.float32, 1, 1, x, y)
    v = x[0]
    np.testing.assert_allclose(y[:5], [np.exp(v), np.sqrt(v), 1 / np.sqrt(v), np.tanh(v), v * v + v], rtol=3e-7)
    assert all(np.float32(f) == f for f in y[:5]), "computed in double"
    assert list(y[5:]) == [2, 3, 2**40, 3, 1, v]


def test_vectors() -> None:
    x, z, k = np.arange(32, dtype=np.float32), np.arange(16.0), np.arange(32, dtype=np.int32)
    y, w, m = np.zeros_like(x), np.zeros_like(z), np.zeros_like(k)
    FEATURES.launch("vectors", np.float32, 1, 8, x, z, k, y, w, m)
    np.testing.assert_array_equal(y.reshape(-1, 4), x.reshape(-1, 4)[:, ::-1])
    np.testing.assert_array_equal(w.reshape(-1, 2), z.reshape(-1, 2)[:, ::-1])
    np.testing.assert_array_equal(m.reshape(-1, 4), k.reshape(-1, 4)[:, ::-1])


# ------------------------------------------------------------------------------------------------- 16-bit floats


@pytest.mark.parametrize("dtype", [np.float16, BFLOAT16])
def test_all_16_bit_floats_widen_exactly(dtype: Any) -> None:
    x = np.arange(65536, dtype=np.uint16).view(dtype)
    y = np.zeros(65536, np.float32)
    FEATURES.launch("widen", dtype, 256, 256, x, y, x.size)
    expected = x.astype(np.float32)
    np.testing.assert_array_equal(np.isnan(y), np.isnan(expected))
    there = ~np.isnan(expected)
    np.testing.assert_array_equal(y[there].view(np.uint32), expected[there].view(np.uint32))


NANS = np.array([0x7F800001, 0x7FFFFFFF, 0xFF800001, 0xFFFFFFFF, 0x7FC00001], np.uint32).view(np.float32)  # which a careless rounding makes inf or zero


@pytest.mark.parametrize("dtype", [np.float16, BFLOAT16])
def test_narrowing_rounds_to_even(dtype: Any) -> None:
    """Every value, the middles between neighbours, and what lies just beside them: ties, subnormal numbers, the step to infinity, nan."""
    values = np.arange(65536, dtype=np.uint16).view(dtype).astype(np.float32)
    finite = np.unique(values[np.isfinite(values)])
    middles = ((finite[1:].astype(np.float64) + finite[:-1]) / 2).astype(np.float32)
    largest = np.float32(finite[-1])
    beyond = largest * np.float32(2) ** np.arange(1, 8, dtype=np.float32) if dtype == np.float16 else np.array([np.finfo(np.float32).max], np.float32)
    step = largest + (finite[-1].astype(np.float64) - finite[-2]) / 2  # where infinity begins
    with np.errstate(all="ignore"):
        x = np.concatenate([values, middles, [step], beyond, -beyond, [np.nan, -np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-45, -1e-45]]).astype(np.float32)
        x = np.concatenate([x, np.nextafter(x, np.float32(np.inf)), np.nextafter(x, np.float32(-np.inf)), RNG.normal(size=1000).astype(np.float32), NANS])
        expected = x.astype(dtype)
    y = np.zeros(x.size, dtype)
    FEATURES.launch("narrow", dtype, -(-x.size // 256), 256, x, y, x.size)
    nan = np.isnan(expected.astype(np.float32))
    np.testing.assert_array_equal(np.isnan(y.astype(np.float32)), nan)
    np.testing.assert_array_equal(y.view(np.uint16)[~nan], expected.view(np.uint16)[~nan])


# ------------------------------------------------------------------------------------------------- tensor cores

PRODUCT = Source("mma_product.cu", "mma.cuh", folder=SOURCES)


def tf32(x: Any) -> Any:
    """Eleven significant bits, halves away from zero."""
    mantissa, exponent = np.frexp(x.astype(np.float64))
    return np.ldexp(np.trunc(np.abs(mantissa) * 2**11 + 0.5) * np.sign(mantissa), exponent - 11)


@pytest.mark.parametrize("shape", [(16, 8, 16), (33, 17, 29), (1, 1, 1), (5, 40, 3)], ids=lambda s: "x".join(map(str, s)))
@pytest.mark.parametrize("dtype", [np.float32, np.float16, BFLOAT16])
def test_product_on_tensor_cores(dtype: Any, shape: Any) -> None:
    m, n, k = shape
    a, b = RNG.normal(size=(m, k)).astype(dtype), RNG.normal(size=(k, n)).astype(dtype)
    c = np.full((m, n), np.nan, np.float32)
    PRODUCT.launch("mma_product", dtype, (-(-n // 8), -(-m // 16)), 32, a, b, c, m, n, k)
    rounded = tf32 if dtype == np.float32 else lambda x: x.astype(np.float64)
    np.testing.assert_allclose(c, rounded(a) @ rounded(b), atol=1e-5)


def test_tf32() -> None:
    ties = (1 + np.arange(64) * 2.0**-11).astype(np.float32)
    x = np.concatenate([ties, -ties, np.nextafter(ties, np.float32(2)), np.nextafter(ties, np.float32(0)), RNG.normal(size=100).astype(np.float32)])
    y = np.zeros_like(x)
    PRODUCT.launch("to_tf32", np.float32, 2, 256, x, y, x.size)
    np.testing.assert_array_equal(y, tf32(x))
    special = np.array([np.inf, -np.inf, np.nan, 0.0, -0.0, np.finfo(np.float32).max], np.float32)
    y = np.zeros_like(special)
    PRODUCT.launch("to_tf32", np.float32, 1, 32, special, y, special.size)
    np.testing.assert_array_equal(y, [np.inf, -np.inf, np.nan, 0.0, -0.0, np.inf])
    assert np.signbit(y[4])
    y = np.zeros_like(NANS)
    PRODUCT.launch("to_tf32", np.float32, 1, 32, NANS, y, NANS.size)
    assert np.isnan(y).all()


# ------------------------------------------------------------------------------------------------- planted bugs


def in_every_order(run: Callable[[], Any]) -> set[bytes]:
    """The results' bits; more than one when they depend on the order of threads."""
    found = set()
    for schedule in SCHEDULES:
        with emulator.schedule(*schedule):
            found.add(run().tobytes())
    return found


ORDERED = {"turn": (BARRIER, (2, 256), (2, 256)), "scan": (BARRIER, (256,), (1, 256)), "neighbours": (BARRIER, (32,), (1, 32))}


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", ORDERED)
def test_a_missing_barrier_shows(name: str, dtype: Any) -> None:
    source, shape, (grid, block) = ORDERED[name]
    x = RNG.integers(0, 100, shape).astype(dtype)

    def run(entry: str) -> Any:
        y = np.zeros_like(x)
        source.launch(entry, dtype, grid, block, x, y)
        return y

    assert len(in_every_order(lambda: run(name))) > 1
    assert len(in_every_order(lambda: run(f"{name}_corrected"))) == 1
    expected = {"turn": x[..., ::-1], "scan": np.cumsum(x, axis=-1), "neighbours": x.reshape(-1, 2)[:, ::-1].ravel()}[name]
    np.testing.assert_array_equal(run(f"{name}_corrected"), expected)


def test_two_blocks_that_write_to_one_place_show() -> None:
    def run() -> Any:
        y = np.zeros(1, np.int64)
        BARRIER.launch("last_wins", np.float32, 100, 1, y)
        return y

    assert len(in_every_order(run)) > 2


def test_one_seed_gives_one_order() -> None:
    def order(seed: int) -> bytes:
        y = np.zeros(1, np.int64)
        with emulator.schedule("shuffled", seed):
            BARRIER.launch("last_wins", np.float32, 1000, 1, y)
        return y.tobytes()

    assert [order(s) for s in range(5)] == [order(s) for s in range(5)]
    assert len({order(s) for s in range(5)}) > 1


def test_an_unknown_order_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown order 'sideways': expected one of forward, reverse, shuffled"), emulator.schedule("sideways"):
        pass


@pytest.mark.parametrize("dtype", FLOATS)
def test_shared_memory_that_is_not_set_shows(dtype: Any) -> None:
    x, y = RNG.normal(size=32).astype(dtype), np.zeros(32, dtype)
    SHARED.launch("unset", dtype, 1, 32, x, y)
    assert np.isnan(y).all()
    SHARED.launch("unset_corrected", dtype, 1, 32, x, y)
    np.testing.assert_array_equal(y, x)


def test_shared_memory_is_new_for_each_block() -> None:
    y = np.zeros((3, 64, 2), np.uint32)
    FEATURES.launch("as_found", np.float32, 3, 64, y, shared=256)
    assert (y == 0xFFFFFFFF).all()


@pytest.mark.parametrize("dtype", FLOATS)
def test_a_wrong_stride_shows(dtype: Any) -> None:
    x = RNG.integers(0, 100, (8, 6)).astype(dtype)
    memory = np.concatenate([x.ravel(), np.full(64, 1e6, dtype)])  # so that it does not read what is no array
    wrong, right = np.zeros(8, dtype), np.zeros(8, dtype)
    STRIDE.launch("row_sums", dtype, 1, 32, memory, wrong, 8, 6)
    STRIDE.launch("row_sums_corrected", dtype, 1, 32, memory, right, 8, 6)
    np.testing.assert_array_equal(right, x.sum(1))
    assert not np.array_equal(wrong, right)


def sparse(n: int) -> Any:
    """An array of so many zero bytes, of which memory holds only those that are written."""
    no_reserve = 0x4000
    return np.frombuffer(mmap.mmap(-1, n, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | no_reserve), np.bool_)


def test_indices_of_more_than_32_bits() -> None:
    n, block = 2**32 + 300, 256
    last = -(-n // block) - 1
    wrong, right = sparse(n), sparse(n)
    with emulator.blocks([last - 1, last]):
        INDEX.launch("mark", np.float32, last + 1, block, wrong, n)
        INDEX.launch("mark_corrected", np.float32, last + 1, block, right, n)
    assert right[(last - 1) * block : n].all() and not right[:1000].any()
    assert not wrong[(last - 1) * block : n].any() and wrong[:300].all()


def test_products_of_more_than_31_bits() -> None:
    rows, columns = 70_000, 60_000
    y = sparse(rows * columns)
    grid = -(-rows // 128)
    with emulator.blocks([0, grid - 1]):
        with pytest.raises(RuntimeError, match=r"mark_rows \(planted_index\.cu\): thread .* an overflow of signed integers \(\*\) at planted_index\.cu:14"):
            INDEX.launch("mark_rows", np.float32, grid, 128, y, rows, columns)
        INDEX.launch("mark_rows_corrected", np.float32, grid, 128, y, rows, columns)
    assert y[:: columns * 1][:128].all() and y[(rows - 1) * columns] and not y[200 * columns]


def test_blocks_are_of_the_grid() -> None:
    y = np.zeros(1, np.int64)
    with emulator.blocks([3, 1]):
        BARRIER.launch("last_wins", np.float32, 10, 1, y)
        assert y[0] == 1, "the last of those that were chosen, in their order"
        with pytest.raises(ValueError, match="expected numbers below 2"):
            BARRIER.launch("last_wins", np.float32, 2, 1, y)
    BARRIER.launch("last_wins", np.float32, 10, 1, y)
    assert y[0] == 9


DIVERGENT = {
    "barrier_in_branch": r"divergent barrier in block \(0, 0, 0\): thread \(0, 0, 0\) waits in __syncthreads at planted_divergence.cu:4, while thread \(5, 0, 0\) has returned",
    "early_exit": r"divergent barrier .* thread \(5, 0, 0\) has returned",
    "two_barriers": r"divergent barrier .* waits in __syncthreads at planted_divergence.cu:23, while thread \(1, 0, 0\) waits in __syncthreads at planted_divergence.cu:21",
    "warp_against_block": r"divergent warp .* thread \(0, 0, 0\) waits in __shfl_xor_sync at .*:30 with mask 0xffffffff, while thread \(16, 0, 0\) waits in __syncthreads",
    "sum_after_exit": r"reads from lane 16, which has returned or is beyond the block",
    "not_in_mask": r"thread \(16, 0, 0\) of block \(0, 0, 0\) calls __shfl_xor_sync at .*:40 with mask 0x0000ffff, which does not name itself \(lane 16\)",
    "read_beyond_mask": r"reads from lane 16, which the mask does not name",
    "two_masks": r"with mask 0xffffffff and reads from lane 31, which has returned",
}


@every_schedule
@pytest.mark.parametrize("entry", DIVERGENT)
def test_divergence_is_named(entry: str, schedule: tuple[str, int]) -> None:
    n = [5] if len(DIVERGENCE.entries[entry]) == 2 else []
    with (
        emulator.schedule(*schedule),
        pytest.raises(RuntimeError, match=rf"^{entry} \(planted_divergence\.cu\): .*{DIVERGENT[entry] if schedule[0] == 'forward' else ''}"),
    ):
        DIVERGENCE.launch(entry, np.float32, 1, 32, np.zeros(32, np.float32), *n)
    y = np.zeros(32, np.float32)
    DIVERGENCE.launch("barrier_after_branch", np.float32, 1, 32, y, 5)  # what a launch left behind does not matter to the next
    assert y.all()


UNDEFINED_BEHAVIOUR: dict[str, tuple[tuple[Any, ...], str]] = {
    "misaligned": ((np.zeros(8, np.float32), np.zeros(8, np.float32)), "a misaligned pointer"),
    "null_pointer": ((None, np.zeros(1, np.float32)), "a null pointer"),
    "beyond_array": ((np.zeros(8, np.float32), 1), "an index beyond an array"),
    "overflow": ((np.zeros(1, np.int32), 1), "an overflow of signed integers"),
    "long_shift": ((np.zeros(1, np.int32), 32), "a shift by too many bits"),
    "nan_as_integer": ((np.full(1, np.nan, np.float32), np.zeros(1, np.int32)), "a float that does not fit an integer"),
    "no_divisor": ((np.zeros(1, np.int32), 0), "a division by zero"),
}


@pytest.mark.parametrize("entry", UNDEFINED_BEHAVIOUR)
def test_undefined_behaviour_is_named(entry: str) -> None:
    args, what = UNDEFINED_BEHAVIOUR[entry]
    with pytest.raises(RuntimeError, match=rf"^{entry} \(planted_undefined\.cu\): thread .* met {what}.* at planted_undefined\.cu:\d+"):
        UNDEFINED.launch(entry, np.float32, 1, 8, *args)


def test_trap() -> None:
    with pytest.raises(RuntimeError, match=r"came to __trap\(\)"):
        UNDEFINED.launch("trapped", np.float32, 1, 1, np.zeros(1, np.int32))


@pytest.mark.parametrize("dtype", FLOATS)
def test_a_sum_of_floats_by_atomics_is_refused(dtype: Any) -> None:
    with pytest.raises(RuntimeError, match=r"cannot compile planted_atomic\.cu:(.|\n)*write partial sums, and add them in a second pass"):
        ATOMIC.launch("sum", dtype, 1, 32, np.zeros(5, dtype), np.zeros(1, dtype), 5)


def test_a_wrong_type_is_refused() -> None:
    x = np.zeros(5, np.float32)
    with pytest.raises(TypeError, match=r"tail_corrected \(planted_tail\.cu\).*'const real \*x'.*float32.*float64"):
        TAIL.launch("tail_corrected", np.float64, 1, 32, x, x, 5)
    TAIL.launch("tail_corrected", np.float32, 1, 32, x, x.copy(), 5)


# ------------------------------------------------------------------------------------------------- launches


def raw(entry: str, *values: Any, grid: tuple[int, ...] = (1, 1, 1), block: tuple[int, ...] = (32, 1, 1)) -> None:
    emulator.run(TAIL.code(np.float32), entry, grid, block, values)


def test_raw_arguments_are_checked() -> None:
    null = np.uint64(0)
    raw("tail_corrected", null, null, np.int64(0))
    with pytest.raises(RuntimeError, match=r"tail_corrected \(planted_tail\.cu\): takes 3 arguments, got 2"):
        raw("tail_corrected", null, null)
    with pytest.raises(RuntimeError, match="argument 2 has 8 bytes, got one of 4 bytes"):
        raw("tail_corrected", null, null, np.int32(0))
    with pytest.raises(RuntimeError, match="expected one of tail, tail_corrected"):
        raw("tails", null)


def limits(tmp_path: Path) -> Source:
    (tmp_path / "limits.cu").write_text(
        'const int WIDE = 64;\nextern "C" __global__ void __launch_bounds__(2 * WIDE, 1) bounded(int64 *y) { *y = blockDim.x; }\n'
        'extern "C" __global__ void large(int64 *y) { __shared__ double tile[6200]; tile[threadIdx.x] = 1; __syncthreads(); *y = (int64)tile[0]; }\n'
        'extern "C" __global__ void small(int64 *y) { __shared__ double tile[60], other[40]; tile[threadIdx.x] = other[threadIdx.x] = 1; __syncthreads(); *y = (int64)(tile[0] + other[0]); }\n'
        'extern "C" __global__ void div(int64 *y) { *y = 3; }\n'
    )
    return Source("limits.cu", folder=tmp_path)


def test_limits(tmp_path: Path) -> None:
    source, y = limits(tmp_path), np.zeros(1, np.int64)
    source.launch("bounded", np.float32, 1, 128, y)
    with pytest.raises(RuntimeError, match=r"bounded \(limits\.cu\): is declared with __launch_bounds__\(128\), got blocks of 129 threads"):
        source.launch("bounded", np.float32, 1, 129, y)
    source.launch("small", np.float32, 1, 32, y, shared=100_000)
    with pytest.raises(RuntimeError, match="declares 49600 bytes of __shared__ memory, expected 49152 or fewer"):
        source.launch("large", np.float32, 1, 32, y)
    with pytest.raises(RuntimeError, match="needs 800 and 232000 bytes of shared memory, expected 232448 or fewer together"):
        source.launch("small", np.float32, 1, 32, y, shared=232_000)
    source.launch("div", np.float32, 1, 1, y)
    assert y[0] == 3, "the C library has a function of that name"


def test_a_thread_that_needs_too_much_memory(tmp_path: Path) -> None:
    (tmp_path / "deep.cu").write_text(
        'extern "C" __global__ void deep(int64 *y, int64 n) { volatile char local[70000]; for (int i = 0; i < 70000; i++) local[i] = 1; *y = local[n]; }\n'
    )
    with pytest.raises(RuntimeError, match="local variables need more than"):
        Source("deep.cu", folder=tmp_path).launch("deep", np.float32, 1, 2, np.zeros(1, np.int64), 0)


def test_an_error_of_the_compiler_names_the_line(tmp_path: Path) -> None:
    (tmp_path / "typo.cu").write_text('extern "C" __global__ void typo(real *y) {\n    y[0] = no_such_name;\n}\n')
    with pytest.raises(RuntimeError, match=r"cannot compile typo\.cu:\n(.|\n)*typo\.cu:2"):
        Source("typo.cu", folder=tmp_path).launch("typo", np.float32, 1, 1, np.zeros(1, np.float32))


def test_without_a_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CXX", str(tmp_path / "none"))
    monkeypatch.setattr(emulator, "_libraries", {})
    assert not emulator.is_available()
    with pytest.raises(RuntimeError, match="needs a C\\+\\+ compiler: install g\\+\\+, or set CXX"):
        raw("tail_corrected", np.uint64(0), np.uint64(0), np.int64(0))


def test_contexts_of_the_c_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """The way that machines other than x86-64 go gives the same."""
    x, y, z = RNG.normal(size=(3, 1024)).astype(np.float32), np.zeros((3, 2), np.float32), np.zeros((3, 2), np.float32)
    FEATURES.launch("block_sums", np.float32, 3, 1024, x, y)
    monkeypatch.setattr(emulator, "FLAGS", (*emulator.FLAGS, "-DEMULATOR_UCONTEXT"))
    monkeypatch.setattr(emulator, "_libraries", {})
    FEATURES.launch("block_sums", np.float32, 3, 1024, x, z)
    assert y.any() and y.tobytes() == z.tobytes()
    with pytest.raises(RuntimeError, match="divergent barrier"):
        DIVERGENCE.launch("early_exit", np.float32, 1, 32, np.zeros(32, np.float32), 5)


def test_threads_of_python_take_turns() -> None:
    x = RNG.normal(size=(40, 3, 1024)).astype(np.float32)
    ys = np.zeros((40, 3, 2), np.float32)
    barrier = threading.Barrier(4)

    def run(some: range) -> None:
        barrier.wait()
        for i in some:
            FEATURES.launch("block_sums", np.float32, 3, 1024, x[i], ys[i])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(run, [range(k, 40, 4) for k in range(4)]))
    np.testing.assert_allclose(ys[..., 0], x.sum(2), rtol=1e-3, atol=1e-3)
    np.testing.assert_array_equal(ys[..., 1], x.max(2))


def test_libraries_are_kept_on_disk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GPUGRAD_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(emulator, "_libraries", {})
    null = np.uint64(0)
    with ThreadPoolExecutor(2) as pool:  # who is first puts it there; the other takes it, or puts the same
        paths = list(pool.map(lambda _: emulator._built(TAIL.code(np.float32), emulator._entries(TAIL.code(np.float32)), ()), range(2)))
    assert paths[0] == paths[1] and [p.name for p in (tmp_path / "emulator").iterdir()] == [paths[0].name]
    before = paths[0].stat()
    raw("tail_corrected", null, null, np.int64(0))
    after = paths[0].stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def test_exact_buffers_keep_overlaps_and_alignment() -> None:
    """What AddressSanitizer is given in the place of the arrays."""
    whole = np.arange(100, dtype=np.float32)
    part, other, empty = whole[5:50], np.arange(7.0)[1:], np.zeros(0)
    place = lambda a: a.__array_interface__["data"][0]
    with emulator._guarded([part, whole, other, empty]) as moved:
        assert moved(place(part)) - moved(place(whole)) == 20
        assert moved(place(whole)) != place(whole)
        assert all(moved(place(a)) % 16 == place(a) % 16 for a in (whole, part, other, empty))
        ctypes.c_float.from_address(moved(place(part))).value = -1.0
    assert whole[5] == part[0] == -1 and whole[4] == 4


# ------------------------------------------------------------------------------------------------- through the stand-in for CuPy


def test_the_stand_in_runs_the_same_path(fake_cupy: Any) -> None:
    x = RNG.normal(size=(3, 1024)).astype(np.float32)
    y, z = np.zeros((3, 2), np.float32), fake_cupy.zeros((3, 2), np.float32)
    FEATURES.launch("block_sums", np.float32, 3, 1024, x, y)
    FEATURES.launch("block_sums", np.float32, 3, 1024, fake_cupy.asarray(x), z)
    assert z.get().tobytes() == y.tobytes() and y.any()
    with pytest.raises(RuntimeError, match=r"early_exit .*divergent barrier"):
        DIVERGENCE.launch("early_exit", np.float32, 1, 32, fake_cupy.zeros(32, np.float32), 5)


def test_the_stand_in_takes_what_cupy_takes(fake_cupy: Any) -> None:
    module = fake_cupy.RawModule(code=TAIL.code(np.float32), options=("-std=c++17",))
    with pytest.raises(fake_cupy.cuda.runtime.CUDARuntimeError, match="NOT_FOUND"):
        module.get_function("tails")
    kernel = module.get_function("tail_corrected")
    x, y = fake_cupy.arange(5, dtype=np.float32), fake_cupy.zeros(5, np.float32)
    kernel((1,), (32,), (x, y, 5))
    np.testing.assert_array_equal(y.get(), np.arange(5))
    kernel((1,), (32,), (np.uint64(x.data.ptr), None, np.int64(0)), shared_mem=100)
    with pytest.raises(TypeError, match="Unsupported type"):
        kernel((1,), (32,), (np.zeros(5, np.float32), y, 5))
    with pytest.raises(TypeError, match="expected a tuple"):
        kernel(1, (32,), (x, y, 5))
    for grid, block, shared in (((0,), (32,), 0), ((1,), (1025,), 0), ((1, 65536), (32,), 0), ((1,), (1024, 2), 0), ((1,), (32,), 49153)):
        with pytest.raises(fake_cupy.cuda.runtime.CUDARuntimeError, match="INVALID_VALUE"):
            kernel(grid, block, (x, y, 5), shared_mem=shared)
    kernel.max_dynamic_shared_size_bytes = 60_000
    kernel((1,), (32,), (x, y, 5), shared_mem=60_000)
    with pytest.raises(fake_cupy.cuda.runtime.CUDARuntimeError, match="INVALID_VALUE"):
        kernel.max_dynamic_shared_size_bytes = 250_000


def test_fake_kernels_reach_the_stand_in(fake_cupy: Any) -> None:
    """An array of the stand-in goes to the CUDA twin without being told to."""
    x = fake_cupy.ones(5000, np.float32)
    assert backend.namespace(x) is fake_cupy
    y = fake_cupy.zeros(5000, np.float32)
    TAIL.launch("tail_corrected", np.float32, 20, 256, x, y, 5000)
    assert (y == x).all()
