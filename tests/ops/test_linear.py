"""The fully connected layer with its activation as one operation: values, derivatives of any order, what is kept and what is computed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import gpugrad as gg
from gpugrad import kernels, tape
from gpugrad.kernels.linear import FROM_Y
from gpugrad.nn.functional import linear
from gpugrad.ops.linear import ACTIVATIONS
from gpugrad.testing import check_grads, gradcheck, gradgradcheck

RNG = np.random.default_rng(0)
every_activation = pytest.mark.parametrize("act", ACTIVATIONS)
but_none = pytest.mark.parametrize("act", list(ACTIVATIONS)[1:])


def unfused(x: Any, w: Any, b: Any, act: str) -> Any:
    z = gg.matmul(x, w)
    z = z if b is None else z + b
    return ACTIVATIONS[act](z)


def arrays(*shapes: Any, dtype: Any = np.float64) -> list[Any]:
    return [RNG.normal(size=s).astype(dtype) for s in shapes]


class Seen:
    """The names of all operations that are computed in the block."""

    def __enter__(self) -> list[str]:
        self.names: list[str] = []
        self.saved, tape.observer = tape.observer, self
        return self.names

    def __exit__(self, *_: object) -> None:
        tape.observer = self.saved

    def compute(self, op: Any, args: Any, params: Any) -> Any:
        self.names.append(op.name)
        return op.evaluate(args, params)

    def recorded(self, node: Any) -> None:
        pass

    def pull(self, node: Any, wanted: Any, g: Any, y: Any, vals: Any) -> Any:
        return node.op.pull(node, wanted, g, y, vals)


# ------------------------------------------------------------------------------------------------- values


@every_activation
@pytest.mark.parametrize("lead", [(), (1,), (5,), (2, 3), (0,), (2, 0), (2, 3, 2)], ids=str)
@pytest.mark.parametrize("has_bias", [True, False])
def test_value_and_gradients_are_those_of_the_parts(act: str, lead: tuple[int, ...], has_bias: bool) -> None:
    x, w, b, g = arrays((*lead, 4), (4, 3), (3,), (*lead, 3))
    args = (x, w, b) if has_bias else (x, w)
    results = []
    for f in (linear, unfused):
        of = lambda x, w, b=None: f(x, w, b, act)  # noqa: B023
        y, pullback = gg.vjp(of, *args)
        results.append([y, *pullback(g), gg.jvp(of, args, tuple(map(np.cos, args)))[1]])
    for fused, expected in zip(*results, strict=True):
        assert fused.shape == expected.shape
        assert_allclose(fused, expected, rtol=1e-12, atol=1e-13)


@every_activation
def test_plain_in_plain_out(act: str) -> None:
    x, w, b = arrays((2, 4), (4, 3), (3,))
    y = linear(x, w, b, act)
    assert type(y) is np.ndarray
    for args in ((gg.tensor(x), w, b), (x, gg.tensor(w, requires_grad=True), b), (x.tolist(), gg.tensor(w), gg.tensor(b))):
        t = linear(*args, act)
        assert type(t) is gg.Tensor
        assert_array_equal(t.detach(), y)
    with gg.no_grad():
        assert linear(gg.tensor(x, requires_grad=True), w, b, act).node is None
    assert type(linear(x.tolist(), w.tolist(), b.tolist(), act)) is np.ndarray


@every_activation
@pytest.mark.parametrize(
    "dtypes",
    [("f4", "f4", "f8"), ("f4", "f8", "f4"), ("f8", "f4", "f4"), ("i8", "f4", "f4"), ("i8", "f8", "f8"), ("i8", "i8", "i8"), ("f2", "f2", "f4")],
    ids="-".join,
)
def test_mixtures_of_dtypes_are_computed_one_by_one(act: str, dtypes: tuple[str, ...]) -> None:
    x, w, b = ((4 * RNG.normal(size=s)).astype(t) for s, t in zip(((5, 4), (4, 3), (3,)), dtypes, strict=True))
    y, expected = linear(x, w, b, act), unfused(x, w, b, act)
    assert y.dtype == expected.dtype
    assert_array_equal(y, expected)


@pytest.mark.parametrize("act", ["none", "tanh"])
def test_complex_numbers(act: str) -> None:
    x, w, b = (v + 0.3j * v[::-1] for v in arrays((5, 4), (4, 3), (3,)))
    assert_allclose(linear(x, w, b, act), unfused(x, w, b, act), rtol=1e-13)
    for got, expected in zip(*(gg.vjp(lambda *args: f(*args, act), x, w, b)[1](np.ones((5, 3), complex)) for f in (linear, unfused)), strict=True):  # noqa: B023
        assert_allclose(got, expected, rtol=1e-12)


@every_activation
@pytest.mark.parametrize("name", ["float16", "bfloat16"])
def test_16_bit_floats(act: str, name: str) -> None:
    dtype = np.dtype(getattr(pytest.importorskip("ml_dtypes"), name, name))
    args = [a.astype(dtype) for a in arrays((5, 40), (40, 3), (3,))]
    leaves = [gg.tensor(a, requires_grad=True) for a in args]
    y = linear(*leaves, act)
    grads = gg.autograd.grad(y.sum(), leaves)
    doubles = [a.astype(np.float64) for a in args]
    expected = gg.grad(lambda *a: gg.sum(unfused(*a, act)), (0, 1, 2))(*doubles)
    rtol = 0.01 if name == "float16" else 0.08
    for got, truth in zip((y, *grads), (unfused(*doubles, act), *expected), strict=True):
        assert got.dtype == dtype
        assert_allclose(got.detach().numpy().astype(np.float64), truth, atol=rtol * np.abs(truth).max())


@every_activation
@pytest.mark.parametrize("twin", ["reference", "cpu"])
def test_layouts(act: str, twin: str) -> None:
    """Weights and inputs that are transposed or reversed views; the gradients of the weights lie row by row."""
    for make in (lambda a: np.asfortranarray(a), lambda a: a[::-1, ::-1].copy()[::-1, ::-1], lambda a: a):
        x, w = map(make, arrays((70, 40), (40, 50)))
        b = np.arange(100.0)[::2] / 100
        with kernels.use(twin):
            y, pullback = gg.vjp(lambda *args: linear(*args, act), x, w, b)
            grads = pullback(np.broadcast_to(np.float64(0.5), y.shape))
        expected = gg.grad(lambda *args: 0.5 * gg.sum(unfused(*args, act)), (0, 1, 2))(x, w, b)
        assert_allclose(y, unfused(x, w, b, act), rtol=1e-11, atol=1e-12)
        for got, truth in zip(grads, expected, strict=True):
            assert_allclose(got, truth, rtol=1e-10, atol=1e-10)
        assert grads[1].flags.c_contiguous


# ------------------------------------------------------------------------------------------------- derivatives


@every_activation
@pytest.mark.parametrize("has_bias", [True, False])
def test_gradcheck(act: str, has_bias: bool) -> None:
    args = [gg.tensor(a, requires_grad=True) for a in arrays((3, 4), (4, 2), (2,))]
    args = args if has_bias else args[:2]
    f = lambda x, w, b=None: linear(x, w, b, act)
    assert gradcheck(f, args)
    assert gradgradcheck(f, args)


@every_activation
@pytest.mark.parametrize("twin", ["reference", "cpu"])
def test_third_derivatives_of_two_layers(act: str, twin: str) -> None:
    x, w, b, v, c = arrays((3, 4), (4, 5), (5,), (5, 2), (2,))
    with kernels.use(twin):
        check_grads(lambda x, w, b, v: gg.sum(linear(linear(x, w, b, act), v, c, act) ** 2), (x, w, b, v), order=3)


def test_relu_hides_no_nan_and_is_flat_at_0() -> None:
    x = np.array([[np.nan, 0.0, -0.0, 2.0, -2.0]]).T
    t = gg.tensor(x, requires_grad=True)
    y = linear(t, np.ones((1, 1)), np.zeros(1), "relu")
    assert_array_equal(y.detach()[:, 0], [np.nan, 0, 0, 2, 0])
    y.backward(gg.tensor(np.full((5, 1), 3.0)))
    assert_array_equal(t.grad[:, 0], [3, 0, 0, 3, 0])


@but_none
def test_second_derivatives_are_finite_far_out(act: str) -> None:
    x = np.array([[1e30], [-1e30], [1e3], [-1e3]], np.float32)
    one = np.ones((1, 1), np.float32)
    f = lambda x: gg.sum(linear(x, one, None, act))
    for mode in ("forward-over-reverse", "reverse-over-reverse"):
        with np.errstate(over="ignore"):
            product = gg.hvp(f, x, np.ones_like(x), mode=mode)
        assert_array_equal(product, np.zeros_like(x))


@every_activation
def test_the_same_bits_each_time(act: str) -> None:
    args = [gg.tensor(a, requires_grad=True) for a in arrays((70, 90), (90, 110), (110,), dtype=np.float32)]
    runs = []
    for _ in range(2):
        y = linear(*args, act)
        runs.append([y.detach(), *gg.autograd.grad(gg.sum(y * y), args)])
    for a, b in zip(*runs, strict=True):
        assert_array_equal(a, b)


# ------------------------------------------------------------------------------------------------- what is computed, and kept


@every_activation
def test_only_what_is_asked_for_is_computed(act: str) -> None:
    args = arrays((6, 4), (4, 3), (3,))
    for tracked in ((0,), (1,), (2,), (1, 2), (0, 1, 2)):
        leaves = [gg.tensor(a, requires_grad=i in tracked) for i, a in enumerate(args)]
        with Seen() as names:
            y = linear(*leaves, act)
            assert names == ["linear" if act == "none" else "linear_act" if act in FROM_Y else "linear_act_z"]
            names.clear()
            y.backward(gg.tensor(np.ones((6, 3))))
        assert names.count("matmul") == len({0, 1} & set(tracked))
        assert names.count("act_backward") == (act != "none")
        assert names.count("sum_to") == (act == "none" and 2 in tracked)


def test_what_is_kept() -> None:
    """Without an activation the result is not; with one, the result or the pre-activation."""
    x, w, b = (gg.tensor(a, requires_grad=True) for a in arrays((6, 4), (4, 3), (3,)))
    assert linear(x, w, b).node.y is None
    y = linear(x, w, b, "relu")
    assert y.node.y is y.value
    y = linear(x, w, b, "gelu")
    call = y.node.parents[0]
    assert call.y[1] is not None
    assert call.vals[2] is None


@but_none
def test_the_kernels_are_called(act: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One forward, one backward."""
    called = []
    for name in ("bias_act", "act_backward"):
        kernel = kernels.KERNELS[name]
        for twin in ("reference", "_cpu"):
            f = kernel.cpu if twin == "_cpu" else kernel.reference
            monkeypatch.setattr(kernel, twin, lambda *args, f=f, what=(name, twin), **params: called.append(what) or f(*args, **params))
    for size, twin in ((4, "reference"), (64, "_cpu")):
        called.clear()
        x, w, b = (gg.tensor(a, requires_grad=True) for a in arrays((size, size), (size, size), (size,), dtype=np.float32))
        linear(x, w, b, act).backward(gg.tensor(np.ones((size, size), np.float32)))
        assert called == [("bias_act", twin), ("act_backward", twin)]


# ------------------------------------------------------------------------------------------------- what is refused


@every_activation
def test_errors(act: str) -> None:
    x, w, b = arrays((2, 4), (4, 3), (3,))
    for args in ((x, w.T, b), (x, w, b[:2]), (x, w[0], b), (x, w, w), (np.float64(1), w, b), (x[:, :3], w, None)):
        with pytest.raises(ValueError, match="linear: got x of shape"):
            linear(*args, act)


def test_an_unknown_activation_is_refused() -> None:
    with pytest.raises(ValueError, match="got activation 'selu', expected one of none, relu, tanh"):
        linear(*arrays((2, 4), (4, 3), (3,)), "selu")


def test_leading_axes_and_dtypes():
    x, w, b = RNG.normal(size=(6, 4)), RNG.normal(size=(4, 3)), RNG.normal(size=3)
    for leading in ((6,), (2, 3), ()):
        z = x.reshape(*leading, 4) if leading else x[0]
        f = lambda x, w, b: gg.sum(gg.sin(linear(x, w, b)))
        for got, expected in zip(gg.grad(f, (0, 1, 2))(z, w, b), gg.grad(lambda x, w, b: gg.sum(gg.sin(x @ w + b)), (0, 1, 2))(z, w, b), strict=True):
            assert_allclose(got, expected, rtol=1e-12)
    assert_allclose(linear(x, w), x @ w)
    assert linear(x.astype(np.float32), w.astype(np.float32), b).dtype == np.float64
    with pytest.raises(ValueError, match=r"linear: got x of shape \(6, 3\), weight \(4, 3\)"):
        linear(x[:, :3], w, b)


# ---------------------------------------------------------------------------------- many examples at once


@every_activation
@pytest.mark.parametrize("shape", [(7, 5, 3), (7, 3)], ids=str)
def test_examples_are_more_rows(act: str, shape: Any) -> None:
    """Of shared weights: one product, one kernel."""
    x, w, b = arrays(shape, (3, 4), (4,))
    one = lambda x: linear(x, w, b, act)
    with Seen() as names:
        y = gg.vmap(one)(x)
    assert sum(name.startswith("linear") for name in names) == 1 and set(names) <= {"linear", "linear_act", "linear_act_z", "reshape", "transpose"}
    assert_allclose(y, [one(v) for v in x], rtol=1e-13, atol=1e-14)


@every_activation
@pytest.mark.parametrize("axes", [(None, 0, 0), (0, 0, 0), (None, 0, None), (None, None, 0)], ids=str)
def test_ensembles(act: str, axes: Any) -> None:
    """Weights of each example's own, in value and gradient: networks side by side."""
    x, w, b = (a if axis is None else np.stack([a, a + 0.3, a - 0.2]) for a, axis in zip(arrays((5, 3), (3, 4), (4,)), axes, strict=True))
    f = lambda *args: gg.sum(gg.sin(linear(*args, act)))
    got = gg.vmap(gg.value_and_grad(f, (0, 1, 2)), axes)(x, w, b)
    for i in range(3):
        value, grads = gg.value_and_grad(f, (0, 1, 2))(*[a if axis is None else a[i] for a, axis in zip((x, w, b), axes, strict=True)])
        assert_allclose(got[0][i], value, rtol=1e-12)
        for a, e in zip(got[1], grads, strict=True):
            assert_allclose(a[i], e, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("act", ["relu", "tanh", "gelu"])
def test_backward_of_what_is_saved_once(act: str) -> None:
    """Cotangents of many examples beside one forward pass: the slope is read, not repeated; sums of columns are those of each example."""
    x, w, b, g = arrays((5, 3), (3, 4), (4,), (7, 5, 4))
    _, pullback = gg.vjp(lambda *args: linear(*args, act), x, w, b)
    got = gg.vmap(pullback)(g)
    for i in range(7):
        for a, e in zip(got, pullback(g[i]), strict=True):
            assert_allclose(a[i], e, rtol=1e-12, atol=1e-13)
