"""softmax, log_softmax and logsumexp as functions of the library: axes, dtypes, infinities, derivatives of any order on every twin, what the tape keeps, PyTorch's values."""

from __future__ import annotations

import itertools
import warnings
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import gpugrad as gg
from gpugrad import kernels
from gpugrad.cuda import emulator
from gpugrad.ops import softmax as softmax_operations
from gpugrad.testing import check_grads

F = gg.nn.functional
TWINS = ["reference", "cpu", pytest.param("cuda", marks=pytest.mark.skipif(not emulator.is_available(), reason="needs g++"))]
every_twin = pytest.mark.parametrize("twin", TWINS)
RNG = np.random.default_rng(0)
INF = np.inf
X = RNG.normal(size=(2, 3, 4, 5))
AXES = [None, -1, 0, 1, (1, 2), (0, 1, 2, 3), (0, 2), (-1, 1), (3, 0), ()]
every_axis = pytest.mark.parametrize("axis", AXES, ids=str)
FUNCTIONS = {"softmax": gg.softmax, "log_softmax": gg.log_softmax, "logsumexp": gg.logsumexp}
every_function = pytest.mark.parametrize("name", FUNCTIONS)


# ---------------------------------------------------------------------------------- axes and dtypes


@every_axis
def test_along_any_axes(axis: Any) -> None:
    total = np.log(np.exp(X).sum(axis=axis, keepdims=True))
    assert_allclose(gg.softmax(X, axis), np.exp(X - total), rtol=1e-13)
    assert_allclose(gg.log_softmax(X, axis), X - total, rtol=1e-12, atol=1e-15)
    assert_allclose(gg.logsumexp(X, axis, keepdims=True), total, rtol=1e-12, atol=1e-15)
    assert_allclose(gg.logsumexp(X, axis), total.squeeze(axis) if axis != () else total, rtol=1e-12, atol=1e-15)
    g, p = RNG.normal(size=X.shape), np.exp(X - total)
    of = lambda f: gg.vjp(lambda x: f(x, axis), X)[1](g)[0]
    assert_allclose(of(gg.softmax), p * (g - (p * g).sum(axis=axis, keepdims=True)), rtol=1e-10, atol=1e-15)
    assert_allclose(of(gg.log_softmax), g - p * g.sum(axis=axis, keepdims=True), rtol=1e-10, atol=1e-14)
    assert_allclose(gg.grad(lambda x: gg.sum(gg.logsumexp(x, axis)))(X), p, rtol=1e-12)


@every_twin
@pytest.mark.parametrize("axis", [-1, 0, (0, 2), None], ids=str)
def test_derivatives_in_every_nesting(twin: str, axis: Any) -> None:
    x = RNG.normal(size=(2, 3, 4)) * 2
    with kernels.use(twin):
        for f in FUNCTIONS.values():
            check_grads(lambda x, f=f: f(x, axis), (x,), order=3)


@pytest.mark.parametrize("shape", [(), (1,), (0,), (0, 3), (3, 0), (2, 0, 3), (1, 1), (5, 1)], ids=str)
def test_small_and_empty(shape: Any) -> None:
    x = np.zeros(shape)
    for axis in (None, -1):
        for f in (gg.softmax, gg.log_softmax):
            y, g = gg.value_and_grad(lambda v, f=f: gg.sum(f(v, axis)))(x)  # noqa: B023
            assert g.shape == shape
            assert f(x, axis).shape == shape
            assert_array_equal(g, np.zeros(shape))
        n = x.shape[-1] if axis and shape else x.size
        with np.errstate(divide="ignore"):
            assert_array_equal(gg.softmax(x, axis), np.full(shape, 1 / max(n, 1)))
            if not axis or shape:
                expected = np.log(np.exp(x).sum(axis))
                assert_array_equal(gg.logsumexp(x, axis), expected)
                assert gg.grad(lambda v: gg.sum(gg.logsumexp(v, axis)))(x).shape == shape  # noqa: B023


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int64, bool])
@every_function
def test_integers_become_floats(name: str, dtype: Any) -> None:
    x = np.array([[0, 1, 1], [1, 0, 0]], dtype)
    f = FUNCTIONS[name]
    y = f(x, axis=1)
    assert y.dtype == np.float64
    assert_allclose(y, f(x.astype(np.float64), axis=1), rtol=1e-15)
    assert_allclose(f(x.tolist(), axis=1), y)
    assert_allclose(f(np.array([[250, 5]], np.uint8), axis=1), f([[250.0, 5.0]], axis=1))  # a difference of integers would wrap around


@every_function
def test_what_is_refused(name: str) -> None:
    f = FUNCTIONS[name]
    with pytest.raises(TypeError, match="complex"):
        f(X + 1j, axis=-1)
    for axis in (4, -5, (0, 7)):
        with pytest.raises(np.exceptions.AxisError):
            f(X, axis=axis)
    with pytest.raises(ValueError, match="repeated axis"):
        f(X, axis=(1, 1))
    with pytest.raises(np.exceptions.AxisError):
        f(np.array(1.0), axis=1)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
@every_function
def test_dtypes_stay(name: str, dtype: str) -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    dtype = getattr(ml_dtypes, dtype) if dtype == "bfloat16" else np.dtype(dtype)
    f, x = FUNCTIONS[name], (X[0, 0] * 3).astype(dtype)
    y, g = gg.value_and_grad(lambda v: gg.sum(f(v, axis=-1) * np.arange(1, 5).astype(dtype).reshape((4, 1) if name != "logsumexp" else 4)))(x)
    assert f(x, axis=-1).dtype == g.dtype == dtype
    expected = gg.grad(lambda v: gg.sum(f(v, axis=-1) * np.arange(1.0, 5).reshape((4, 1) if name != "logsumexp" else 4)))(x.astype(np.float64))
    near = {"rtol": 0.03, "atol": 0.1} if y.dtype.itemsize == 2 else {"rtol": 1e-4, "atol": 1e-5}
    assert_allclose(g.astype(float), expected, **near)


# ---------------------------------------------------------------------------------- digits and infinities


@every_twin
def test_softmax_is_the_gradient_of_logsumexp_and_the_exp_of_log_softmax(twin: str) -> None:
    """At infinities too, where PyTorch and JAX give nan; no warning."""
    rows = [[INF, 0.0], [INF, INF], [-INF, -INF], [-INF, 2.0], [INF, -INF], [np.nan, 1.0], [1e38, -1e38]]
    with kernels.use(twin), warnings.catch_warnings():
        warnings.simplefilter("error")
        for dtype in (np.float32, np.float64):
            x = np.array(rows * 50, dtype)
            p = gg.softmax(x, axis=1)
            assert_array_equal(p[:7], np.array([[1, 0], [0.5, 0.5], [0, 0], [0, 1], [1, 0], [np.nan] * 2, [1, 0]], dtype))
            assert_array_equal(gg.vjp(lambda v: gg.logsumexp(v, 1), x)[1](np.ones(len(x), dtype))[0], p)
            with np.errstate(under="ignore"):
                assert_allclose(np.exp(gg.log_softmax(x, axis=1)), p, rtol=1e-6)
            finite = ~np.isnan(x).any(1)
            for f in (gg.softmax, gg.log_softmax):
                g = gg.vjp(lambda v, f=f: f(v, axis=1)[:, 0], x)[1](np.ones(len(x), dtype))[0]
                assert np.isfinite(g[finite]).all()
                assert np.isnan(g[~finite]).all()


@every_twin
@pytest.mark.parametrize("gap", [1.0, 20.0, 40.0, 300.0, 700.0])
def test_second_derivatives_keep_the_tail(twin: str, gap: float) -> None:
    """Of two elements the second derivative of logsumexp, and that of -log p of the likelier one, is p (1 - p) = e^-gap / (1 + e^-gap)^2 in all four places."""
    x, tail = np.array([0.0, -gap]), np.exp(-gap)
    bend = tail / (1 + tail) ** 2
    expected = np.array([[bend, -bend], [-bend, bend]])
    with kernels.use(twin):
        for f in (gg.logsumexp, lambda x: -gg.log_softmax(x)[0], lambda x: F.cross_entropy(x[None], np.array([0]))):
            assert_allclose(gg.hessian(f)(x), expected, rtol=1e-12)
            for mode in ("forward-over-reverse", "reverse-over-reverse"):
                assert_allclose(gg.hvp(f, x, np.array([1.0, 0.0]), mode=mode), [bend, -bend], rtol=1e-12)
        assert_allclose(gg.grad(lambda x: -gg.log_softmax(x)[0])(x), [-tail / (1 + tail), tail / (1 + tail)], rtol=1e-12)
        third = bend * (1 - tail) / (1 + tail)  # of p (1 - p) by x_0: p (1 - p) (1 - 2 p)
        assert_allclose(gg.grad(lambda x: gg.hessian(gg.logsumexp)(x)[0, 0])(x), [-third, third], rtol=1e-11)


@pytest.mark.parametrize("size", [1.0, 30.0])
def test_log_softmax_and_nll_are_cross_entropy(size: float) -> None:
    x, labels = RNG.normal(size=(50, 10)) * size, RNG.integers(0, 10, 50)
    labels[::2] = x[::2].argmax(1)  # right, and confident where size is large
    one, other = (lambda x: F.nll_loss(gg.log_softmax(x, axis=1), labels)), (lambda x: F.cross_entropy(x, labels))
    assert_allclose(one(x), other(x), rtol=1e-13)
    assert_allclose(gg.grad(one)(x), gg.grad(other)(x), rtol=1e-10, atol=1e-300)
    v = RNG.normal(size=x.shape)
    for mode in ("forward-over-reverse", "reverse-over-reverse"):
        assert_allclose(gg.hvp(one, x, v, mode=mode), gg.hvp(other, x, v, mode=mode), rtol=1e-10, atol=1e-300)


# ---------------------------------------------------------------------------------- the tape


def test_what_is_kept() -> None:
    t = gg.tensor(X, requires_grad=True)
    for f in (gg.softmax, gg.log_softmax):
        y = f(t)
        assert y.node.y is y.value and y.node.vals == [None]
    y = gg.logsumexp(t, 1)
    assert y.node.y is None and y.node.vals[0] is t.value


def test_one_kernel_gives_both_second_cotangents(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forward, backward and double backward are a call of a kernel each, and one more for each path of the gradient through y."""
    calls: list[str] = []
    for name in ("softmax", "softmax_slope", "softmax_curvature", "log_softmax", "log_softmax_slope", "log_softmax_curvature"):
        kernel = getattr(gg.ops.softmax.kernels, name)
        monkeypatch.setattr(gg.ops.softmax.kernels, name, lambda *args, name=name, kernel=kernel: calls.append(name) or kernel(*args))
    for name in ("softmax", "log_softmax"):
        calls.clear()
        x, g, v = (gg.tensor(RNG.normal(size=(30, 20)), requires_grad=True) for _ in range(3))
        (d,) = gg.autograd.grad(FUNCTIONS[name](x), [x], g, create_graph=True)
        assert calls == [name, f"{name}_slope"]
        calls.clear()
        gg.autograd.grad(d, [x, g], v)
        assert calls == [f"{name}_curvature", f"{name}_slope"]


# ---------------------------------------------------------------------------------- PyTorch


@every_twin
@pytest.mark.parametrize("shape", [(33, 100), (5, 1025), (4, 3, 17)], ids=str)
def test_against_pytorch(twin: str, shape: Any) -> None:
    torch = pytest.importorskip("torch")
    x, g, v = (RNG.normal(size=shape).astype(np.float32) * 2 for _ in range(3))
    for name, axis in itertools.product(("softmax", "log_softmax"), range(len(shape))):
        tx, tg = (torch.from_numpy(a).requires_grad_() for a in (x, g))
        ty = getattr(torch, name)(tx, axis)
        (td,) = torch.autograd.grad(ty, tx, tg, create_graph=True)
        expected = [ty, td, *torch.autograd.grad(td, [tx, tg], torch.from_numpy(v))]
        with kernels.use(twin):
            ours, og = (gg.tensor(a, requires_grad=True) for a in (x, g))
            y = FUNCTIONS[name](ours, axis)
            (d,) = gg.autograd.grad(y, [ours], og, create_graph=True)
            got = [y, d, *gg.autograd.grad(d, [ours, og], gg.tensor(v))]
        for a, b in zip(got, expected, strict=True):
            b = b.detach().numpy()
            assert_allclose(a.numpy(), b, rtol=2e-4, atol=2e-5 * abs(b).max())


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
@pytest.mark.parametrize("axis", [(1,), (0,), (0, 1)], ids=str)
def test_the_cotangent_of_g_is_the_same_for_all_g(name: str, axis: Any) -> None:
    """What the curvatures give first has no axis of the examples where g alone has one: out_axes of None refuses one."""
    curvature = getattr(softmax_operations, f"{name}_curvature")
    c, y, g = RNG.normal(size=(3, 4)), np.asarray(FUNCTIONS[name](RNG.normal(size=(3, 4)) * 3, axis)), RNG.normal(size=(5, 3, 4))
    of_g, of_y = gg.vmap(lambda g: curvature(c, g, y, axis=axis), out_axes=(None, 0))(g)
    for i in range(5):
        first, second = curvature(c, g[i], y, axis=axis)
        assert_allclose(of_g, first, rtol=1e-12, atol=1e-14)
        assert_allclose(of_y[i], second, rtol=1e-12, atol=1e-14)
