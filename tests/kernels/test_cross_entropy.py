"""Softmax cross entropy in its twins: against longdouble, against each other, extreme logits, and labels that do not fit."""

from __future__ import annotations

import itertools
import os
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from gpugrad import kernels
from gpugrad.cuda import emulator
from gpugrad.kernels.cross_entropy import cross_entropy

emulated = pytest.mark.skipif(not emulator.is_available(), reason="needs g++")
every_twin = pytest.mark.parametrize("twin", ["reference", "cpu", pytest.param("cuda", marks=emulated)])
every_float = pytest.mark.parametrize("dtype", [np.float32, np.float64])
RTOL = {np.float32: 4e-5, np.float64: 1e-13}  # exp(x - max) has max |x - max| times the rounding of the logits
RNG = np.random.default_rng(0)
OPTIONS = [
    {},
    {"weighted": True},
    {"smoothing": 0.1},
    {"smoothing": 0.1, "weighted": True, "ignore_index": 0, "reduction": "none"},
    {"weighted": True, "ignore_index": 0, "reduction": "sum"},
    {"soft": True},
    {"soft": True, "smoothing": 0.3, "weighted": True},
]


def run(twin: str, *args: Any, **params: Any) -> Any:
    with kernels.use(twin):
        return cross_entropy(*args, **params)


def truth(x: Any, labels: Any, t: Any, weight: Any, *, smoothing: float = 0.0, ignore_index: int = -100, reduction: str = "mean", **_: Any) -> Any:
    """In longdouble, by sums in which the largest terms never meet: -log p_c = log sum_j exp(x_j - x_c), residual_c = sum_j (p_c q_j - p_j q_c)."""
    x = x.astype(np.longdouble)
    n, classes = x.shape
    t = np.eye(classes)[np.where(labels == ignore_index, 0, labels)] if t is None else t
    w = np.ones(classes) if weight is None else weight
    q = w.astype(np.longdouble) * ((1 - np.longdouble(smoothing)) * t + np.longdouble(smoothing) / classes)
    counts = np.ones(n) if labels is None else np.where(labels == ignore_index, 0, w[np.where(labels == ignore_index, 0, labels)])
    q[counts == 0] = 0
    loss, residual = np.zeros(n, np.longdouble), np.zeros_like(x)
    for i, row in enumerate(x):
        p = np.exp(row - row.max())
        p /= p.sum()
        for c in np.flatnonzero(q[i]):
            loss[i] += q[i, c] * np.log1p(np.exp(np.delete(row, c) - row[c]).sum())
        c = np.argmax(p)
        residual[i] = q[i].sum() * p - q[i]
        residual[i, c] = (p[c] * np.delete(q[i], c) - np.delete(p, c) * q[i, c]).sum()
        if labels is not None and counts[i]:
            c = labels[i]
            residual[i, c] = (p[c] * np.delete(q[i], c) - np.delete(p, c) * q[i, c]).sum()
    divisor = counts.sum(dtype=np.longdouble) if reduction == "mean" else 1
    return loss if reduction == "none" else loss.sum() / divisor, residual / divisor


def drawn(n: int, classes: int, dtype: Any, scale: float = 1.0, *, soft: bool = False, weighted: bool = False, **_: Any) -> tuple[Any, ...]:
    t = RNG.exponential(size=(n, classes))
    weight = RNG.uniform(0.5, 2, classes).astype(dtype) if weighted else None
    x = (RNG.normal(size=(n, classes)) * scale).astype(dtype)
    return (x, None, (t / t.sum(1, keepdims=True)).astype(dtype), weight) if soft else (x, RNG.integers(0, classes, n), None, weight)


def given_params(options: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in options.items() if key not in ("soft", "weighted")}


@every_twin
@every_float
@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("classes", [1, 2, 31, 32, 33, 1000])
def test_against_longdouble(classes: int, options: dict[str, Any], dtype: Any, twin: str) -> None:
    """Logits of which some predictions are confident, and right or wrong."""
    params = given_params(options)
    args = drawn(6, classes, dtype, 8.0, **options)
    loss, residual = run(twin, *args, **params)
    expected_loss, expected = truth(*args, **params)
    assert loss.dtype == residual.dtype == dtype
    assert_allclose(loss, expected_loss.astype(float), rtol=RTOL[dtype])
    least = 0 if not params.get("smoothing") and args[2] is None else np.abs(expected).max(axis=1, keepdims=True)  # of p near q the difference is small
    assert np.all(np.abs(residual - expected) <= RTOL[dtype] * np.maximum(np.abs(expected), least) + 1e-37)


@every_twin
@every_float
@pytest.mark.parametrize("classes", [4097, 100_000])
def test_wide_rows(classes: int, dtype: Any, twin: str) -> None:
    for options in ({}, {"soft": True}):
        x, labels, t, _ = drawn(2, classes, dtype, 2.0, **options)
        loss, residual = run(twin, x, labels, t)
        wide = x.astype(np.float64)
        e = np.exp(wide - wide.max(axis=1, keepdims=True))
        p = e / e.sum(axis=1, keepdims=True)
        q = t if labels is None else np.arange(classes) == labels[:, None]
        assert_allclose(loss, -np.sum(q * np.log(p)) / 2, rtol=4 * RTOL[dtype])
        assert_allclose(residual, (p - q) / 2, rtol=0, atol=RTOL[dtype])
        if t is None:
            assert_allclose(residual, (p - q) / 2, rtol=4 * RTOL[dtype])


@every_twin
@every_float
def test_confident_predictions_keep_their_digits(dtype: Any, twin: str) -> None:
    """Loss and residual near exp(-v), far below the rounding of 1; as a label, and as probabilities that are one at the label."""
    for v in (5.0, 40.0, 80.0):
        x = np.array([[v, 0, 0], [0, 0, v]], dtype)
        labels, small = np.array([0, 2]), 2 * np.exp(-v)
        for target in ((labels, None), (None, np.eye(3, dtype=dtype)[labels])):
            loss, residual = run(twin, x, *target, reduction="none")
            assert_allclose(loss, np.log1p(small), rtol=5 * RTOL[dtype])
            assert_allclose(residual[0], np.array([-small, small / 2, small / 2]) / (1 + small), rtol=5 * RTOL[dtype])
            assert_allclose(residual[1], residual[0][[1, 2, 0]], rtol=RTOL[dtype])


@every_twin
@every_float
@pytest.mark.filterwarnings("error")
def test_huge_logits(dtype: Any, twin: str) -> None:
    x = np.array([[1e4, 0, -1e4], [1e4, 0, -1e4], [-1e4, -1e4, -1e4], [1e4, 1e4, -1e4]], dtype)
    loss, residual = run(twin, x, np.array([0, 2, 1, 0]), reduction="none")
    assert_allclose(loss, [0, 2e4, np.log(3), np.log(2)], rtol=1e-6)
    assert_allclose(residual, np.array([[0, 0, 0], [1, 0, -1], [1 / 3, -2 / 3, 1 / 3], [-0.5, 0.5, 0]]), rtol=1e-6)
    soft = run(twin, x, None, np.array([[0.5, 0, 0.5]] * 3 + [[0.6, 0.4, 0]], dtype), reduction="none")
    assert_allclose(soft[0], [1e4, 1e4, np.log(3), np.log(2)], rtol=1e-6)
    assert_allclose(soft[1], [[0.5, 0, -0.5], [0.5, 0, -0.5], [-1 / 6, 1 / 3, -1 / 6], [-0.1, 0.1, 0]], rtol=1e-5)


@every_twin
@every_float
@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("classes", [3, 50])
def test_masked_classes_and_what_is_not_a_number(classes: int, dtype: Any, twin: str) -> None:
    x = drawn(8, classes, dtype)[0]
    x[1, 0] = x[2, 1] = -np.inf
    x[3, :] = -np.inf
    x[4, 2], x[5, 0], x[6, 1] = np.inf, np.nan, -np.nan
    labels = np.array([0, 1, 1, 0, 1, 1, 1, 2])
    loss, residual = run(twin, x, labels, reduction="none")
    soft_loss, soft_residual = run(twin, x, None, np.eye(classes, dtype=dtype)[labels], reduction="none")
    for a, r in ((loss, residual), (soft_loss, soft_residual)):
        assert_array_equal(np.isnan(a), [0, 0, 0, 1, 1, 1, 1, 0])
        assert_array_equal(np.isnan(r), np.repeat(np.isnan(a)[:, None], classes, axis=1))
        assert a[2] == np.inf and r[2, 1] == pytest.approx(-1)  # the label is masked
        assert r[1, 0] == 0
        without = run(twin, x[1:2, 1:].copy(), labels[1:2] - 1, reduction="none")
        assert_allclose(a[1:2], without[0], rtol=RTOL[dtype])
        assert_allclose(r[1:2, 1:], without[1], rtol=RTOL[dtype])


@every_twin
@every_float
@pytest.mark.filterwarnings("error")
def test_labels_that_count_for_nothing(dtype: Any, twin: str) -> None:
    x, labels, _, weight = drawn(6, 5, dtype, weighted=True)
    x[2] = np.nan
    labels[[2, 4]] = -7
    kept = [0, 1, 3, 5]
    for options in ({}, {"smoothing": 0.1}):
        for w in (None, weight):
            loss, residual = run(twin, x, labels, None, w, ignore_index=-7, **options)
            expected = run(twin, x[kept], labels[kept], None, w, **options)
            assert_allclose(loss, expected[0], rtol=RTOL[dtype])
            assert_allclose(residual[kept], expected[1], rtol=RTOL[dtype])
            assert_array_equal(residual[[2, 4]], 0)
            nothing = run(twin, x, labels * 0 - 7, None, w, ignore_index=-7, **options)
            assert np.isnan(nothing[0])
            assert_array_equal(nothing[1], 0)
            assert run(twin, x, labels * 0 - 7, None, w, ignore_index=-7, reduction="sum", **options)[0] == 0
    unsigned = run(twin, x[kept], np.array([255, 1, 2, 255], np.uint8), ignore_index=255, reduction="none")[0]
    assert_array_equal(unsigned == 0, [1, 0, 0, 1])


@every_twin
@pytest.mark.filterwarnings("error")
def test_no_rows(twin: str) -> None:
    x = np.zeros((0, 3), np.float32)
    for target in ((np.zeros(0, int), None), (None, x)):
        assert np.isnan(run(twin, x, *target)[0])
        assert run(twin, x, *target, reduction="sum")[0] == 0
        loss, residual = run(twin, x, *target, reduction="none")
        assert loss.shape == (0,) and residual.shape == (0, 3)


@pytest.mark.parametrize("twin", ["reference", "cpu"])
@pytest.mark.parametrize("bad", [5, -1, -100, 2**40])
def test_labels_out_of_range_raise(bad: int, twin: str) -> None:
    x, labels, _, weight = drawn(7, 5, np.float32, weighted=True)
    labels[[3, 5]] = bad, 9
    with pytest.raises(IndexError, match=f"label {bad} is out of bounds, expected 0 to 4 for 5 classes"):
        run(twin, x, labels, None, weight, ignore_index=-99)


@emulated
@pytest.mark.parametrize("classes", [5, 2000])
def test_labels_out_of_range_are_nan_on_a_gpu(classes: int) -> None:
    x, labels, _, _ = drawn(4, classes, np.float32)
    expected = run("cuda", x, labels, reduction="none")
    for bad in (classes, -1, 2**40):
        for smoothing in (0.0, 0.1):
            loss, residual = run("cuda", x, np.where(np.arange(4) == 2, bad, labels), reduction="none", smoothing=smoothing)
            assert_array_equal(np.isnan(loss), [0, 0, 1, 0])
            assert np.isnan(residual[2]).all()
            if not smoothing:
                assert_array_equal(residual[[0, 1, 3]], expected[1][[0, 1, 3]])
    assert np.isnan(run("cuda", x, labels * 0 + classes)[0])


# ------------------------------------------------------------------------------------------------- the twins to each other

TWINS = ["cpu", *(["cuda"] if emulator.is_available() else [])]


@st.composite
def calls(draw: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    n, classes = draw(st.integers(0, 9)), draw(st.integers(1, 70))
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    rng = np.random.default_rng(draw(st.integers(0, 1000)))
    x = (rng.normal(size=(n, classes)) * draw(st.sampled_from([0.1, 3.0, 50.0, 1e4]))).astype(dtype)
    if draw(st.booleans()):
        x[rng.uniform(size=x.shape) < 0.2] = -np.inf
        x[:, 0] = 0
    weight = rng.uniform(0, 2, classes).astype(dtype) if draw(st.booleans()) else None
    params = {"reduction": draw(st.sampled_from(["mean", "sum", "none"])), "smoothing": draw(st.sampled_from([0.0, 0.1, 1.0]))}
    if draw(st.booleans()):
        t = rng.exponential(size=(n, classes)).astype(dtype)
        t[rng.uniform(size=t.shape) < 0.5] = 0
        return (x, None, t, weight), params
    labels = rng.integers(0, classes, n).astype(draw(st.sampled_from([np.int64, np.int32, np.uint8])))
    return (x, labels, None, weight), {**params, "ignore_index": draw(st.sampled_from([-100, 0]))}


@settings(max_examples=60, deadline=None)
@given(calls(), st.booleans())
def test_the_twins_agree(call: Any, strided: bool) -> None:
    args, params = call
    args = [np.asfortranarray(a) if strided and a is not None and a.ndim == 2 else a for a in args]
    with np.errstate(all="ignore"):
        loss, residual = run("reference", *args, **params)
        scale = np.max(np.abs(residual), where=np.isfinite(residual), initial=1e-30)
        for twin in TWINS:
            got_loss, got = run(twin, *args, **params)
            rtol = 10 * RTOL[args[0].dtype.type]
            assert_allclose(got_loss, loss, rtol=rtol, atol=1e-30, err_msg=twin)
            assert_allclose(got, residual, rtol=rtol, atol=rtol * scale, err_msg=twin)
            alone, none = run(twin, *args, **params, with_residual=False)
            assert none is None
            assert_array_equal(alone, got_loss)


@emulated
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
@pytest.mark.parametrize("classes", [64, 2048])
def test_addresses_that_are_not_aligned(classes: int, dtype: str) -> None:
    """Rows taken 16 bytes at a time, and one number at a time, give the same but for the order of the sums."""
    x, labels, _, _ = drawn(3, classes, dtype)
    t = np.full_like(x, 1 / classes)
    moved = np.empty(x.size + 1, dtype)[1:].reshape(x.shape)
    moved[...] = x
    for target in ((labels, None), (None, t)):
        for a, b in zip(run("cuda", x, *target), run("cuda", moved, *target), strict=True):
            assert_allclose(a, b, rtol=1e-2 if dtype == "float16" else 1e-5, atol=1e-4 if dtype == "float16" else 1e-7)


@every_twin
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_16_bits_are_computed_in_32(dtype: str, twin: str) -> None:
    if dtype == "bfloat16":
        dtype = pytest.importorskip("ml_dtypes").bfloat16
    x, labels, t, weight = drawn(40, 70, np.float32, 3.0, weighted=True)
    for target in ((labels, None), (None, np.full((40, 70), 1 / 64, np.float32))):
        args = [a if a is None or a.dtype.kind == "i" else a.astype(dtype) for a in (x, *target, weight)]
        loss, residual = run(twin, *args)
        expected = run("reference", *[a if a is None or a.dtype.kind == "i" else a.astype(np.float32) for a in args])
        assert loss.dtype == residual.dtype == dtype
        ulp = 2.0**-10 if dtype == "float16" else 2.0**-7
        assert_allclose(loss.astype(float), expected[0], rtol=ulp)
        assert_allclose(residual.astype(float), expected[1], rtol=ulp, atol=1e-7)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_the_same_bits_on_any_number_of_threads(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    args, params = drawn(1500, 300, np.float32, **options), given_params(options)
    results = []
    for threads in ("1", "2", "5", "5"):
        monkeypatch.setitem(os.environ, "GPUGRAD_NUM_THREADS", threads)
        results.append([a.tobytes() for a in run("cpu", *args, **params)])
    assert all(a == b for a, b in itertools.pairwise(results))


@emulated
def test_more_rows_than_one_block_sums() -> None:
    x, labels, _, weight = drawn(17_000, 2, np.float32, weighted=True)
    for w in (None, weight):
        for a, b in zip(
            run("cuda", x, labels, None, w),
            run("reference", *[v if v is None or v.dtype.kind == "i" else v.astype(float) for v in (x, labels, None, w)]),
            strict=True,
        ):
            assert_allclose(a, b, rtol=1e-5)
