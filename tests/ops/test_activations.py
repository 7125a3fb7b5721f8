"""Activations: values, kinks, tails (against 700-digit arithmetic where that is what it takes), and derivatives."""

import math
from decimal import Decimal, localcontext

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import gpugrad as gg
from gpugrad import kernels, tape
from gpugrad.ops import activations as act
from gpugrad.testing import check_grads

pytestmark = pytest.mark.filterwarnings("error")


def exact_sigmoid(v):
    with localcontext(prec=700):
        return 1 / (1 + (-Decimal(v)).exp())


def exact_softplus(v):
    with localcontext(prec=700):
        return (1 + Decimal(v).exp()).ln()


def relative(got, exact):
    return abs(float((Decimal(float(got)) - exact) / exact))


TAILS = [(np.float64, v, 1e-15) for v in (-700.0, -300.0, -50.0, -36.5, -1.0, 0.5, 36.5, 50.0, 300.0, 700.0)]
TAILS += [(np.float32, v, 5e-7) for v in (-80.0, -50.0, -20.0, -1.0, 0.5, 20.0, 50.0, 80.0)]


@pytest.mark.parametrize(("dtype", "v", "rtol"), TAILS)
def test_sigmoid_softplus_and_log_sigmoid_keep_relative_accuracy_to_the_second_derivative(dtype, v, rtol):
    with localcontext(prec=700):
        s, other = exact_sigmoid(v), exact_sigmoid(-v)
        expected = {
            gg.sigmoid: (s, s * other, s * other * (other - s)),
            gg.softplus: (exact_softplus(v), s, s * other),
            gg.log_sigmoid: (-exact_softplus(-v), other, -s * other),
        }
        x = np.asarray(v, dtype)
        for f, (value, first, second) in expected.items():
            assert relative(f(x), value) < rtol
            assert relative(gg.grad(f)(x), first) < rtol
            assert relative(gg.grad(gg.grad(f))(x), second) < rtol
            assert relative(gg.jvp(gg.grad(f), (x,), (np.ones_like(x),))[1], second) < rtol
            assert relative(gg.grad(lambda x, f=f: gg.jvp(f, (x,), (np.ones_like(x),))[1])(x), second) < rtol
            assert gg.grad(f)(x).dtype == dtype


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    "f", [gg.relu, gg.sigmoid, gg.log_sigmoid, gg.softplus, gg.silu, gg.gelu, gg.elu, gg.selu, gg.leaky_relu, gg.relu6, gg.hardtanh, gg.softmax, gg.log_softmax]
)
def test_nan_comes_out_as_nan_large_numbers_are_quiet_and_the_dtype_stays(f, dtype):
    x = np.array([np.nan, 1.0, -1.0], dtype)
    y = f(x)
    assert y.dtype == dtype
    assert np.isnan(y[0])
    assert np.isfinite(f(np.array([-1e4, 0.0, 1e4], dtype))).all()
    assert np.isfinite(gg.grad(lambda x: gg.sum(f(x)))(np.array([-1e4, 0.0, 1e4], dtype))).all()


def test_kinks():
    x = np.array([-1.0, 0.0, 1.0, 6.0, 7.0, np.nan])
    slope = lambda f: gg.grad(lambda x: gg.sum(f(x)))(x)
    assert_array_equal(slope(gg.relu), [0, 0, 1, 1, 1, 1])  # nan is not hidden: what flows through it flows on
    assert_array_equal(slope(gg.relu6), [0, 0, 1, 0, 0, 1])
    assert_array_equal(slope(gg.leaky_relu)[:5], [0.01, 0.01, 1, 1, 1])
    assert_array_equal(slope(gg.hardtanh)[:5], [0, 1, 0, 0, 0])
    assert_allclose(slope(gg.elu)[:5], [math.exp(-1), 1, 1, 1, 1])


def test_relu_as_on_the_blackboard():
    x = np.array([1.0, -2.0, 3.0, -1.0])
    y, pull = gg.vjp(gg.relu, x)
    assert_array_equal(y, [1, 0, 3, 0])
    assert_array_equal(pull(np.array([4.0, -1.0, 5.0, 9.0]))[0], [4, 0, 5, 0])
    assert_array_equal(gg.jacobian(gg.relu)(x), np.diag([1.0, 0, 1, 0]))


def test_a_dead_unit_stops_inf_and_nan_cotangents():
    for dtype in (np.float16, np.float32, np.float64):
        d, y = np.array([np.inf, np.nan, 2.0, -3.0], dtype), np.array([0.0, -1.0, 1.0, 2.0], dtype)
        assert_array_equal(act.where_positive(d, y), [0, 0, 2, -3])
        assert_array_equal(act.where_positive(d[::-1], y[::-1]), [-3, 2, 0, 0])
        assert_array_equal(act.where_positive(np.broadcast_to(dtype(2), (4,)), y), [0, 0, 2, 2])
    assert act.where_positive(3.0, -1.0) == 0


def test_values_against_their_formulas():
    x = np.linspace(-4, 4, 41)
    s = 1 / (1 + np.exp(-x))
    phi = np.array([0.5 * (1 + math.erf(v / math.sqrt(2))) for v in x])
    for got, expected in [
        (gg.silu(x), x * s),
        (gg.gelu(x), x * phi),
        (gg.gelu(x, approximate="tanh"), 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))),
        (gg.softplus(x, beta=2.0), np.log(1 + np.exp(2 * x)) / 2),
        (gg.elu(x, 0.7), np.where(x > 0, x, 0.7 * (np.exp(x) - 1))),
        (gg.leaky_relu(x, 0.2), np.where(x > 0, x, 0.2 * x)),
        (gg.selu(x), 1.0507009873554805 * np.where(x > 0, x, 1.6732632423543772 * (np.exp(x) - 1))),
    ]:
        assert_allclose(got, expected, rtol=1e-12, atol=1e-15)
    with pytest.raises(ValueError, match="approximate must be 'none' or 'tanh', got 'fast'"):
        gg.gelu(x, approximate="fast")


def test_gelu_keeps_its_tail():
    assert_allclose(gg.gelu(np.array([-20.0])), [-20 * 0.5 * math.erfc(20 / math.sqrt(2))], rtol=1e-12)


@pytest.mark.parametrize("axis", [-1, 0, (0, 2), None])
def test_softmax_sums_to_one_and_ignores_shifts(axis):
    x = np.random.default_rng(0).normal(size=(2, 3, 4)) * 1e3
    y = gg.softmax(x, axis=axis)
    assert_allclose(y.sum(axis=axis), 1.0)
    assert_allclose(gg.softmax(x - 5e3, axis=axis), y, rtol=1e-9)
    assert_allclose(np.exp(gg.log_softmax(x, axis=axis)), y, rtol=1e-12)


@pytest.mark.parametrize("f", [gg.relu, gg.sigmoid, gg.softplus, gg.log_sigmoid, gg.softmax, gg.log_softmax, gg.gelu])
def test_scalars_lists_integers_empty_and_half_precision(f):
    if f not in (gg.softmax, gg.log_softmax):
        assert np.ndim(f(0.5)) == 0
    assert_allclose(f([1, 2]), f(np.array([1.0, 2.0])))
    assert f(np.zeros((0, 3))).shape == (0, 3)
    assert f(np.zeros((3, 0))).shape == (3, 0)
    x = np.linspace(-14, 9, 50)
    y = f(x.astype(np.float16))
    assert y.dtype == np.float16
    assert_allclose(y, f(x.astype(np.float16).astype(np.float32)), rtol=2e-3, atol=1e-3 if f is gg.gelu else 1e-7)  # gelu is put together in float16


def test_on_every_device(device):
    x = np.linspace(-3, 3, 12).reshape(3, 4)
    for f in (gg.relu, gg.sigmoid, gg.softplus, gg.log_sigmoid, gg.gelu, gg.silu, gg.elu, gg.softmax, gg.log_softmax, gg.erf, gg.erfc):
        t = gg.tensor(x, device=device, requires_grad=True)
        y = gg.sum(f(t) * t)
        y.backward()
        assert_allclose(t.grad.numpy(), gg.grad(lambda x, f=f: gg.sum(f(x) * x))(x), rtol=1e-12, atol=1e-14)


# ------------------------------------------------------------------------------------------------- as operations


ALL = {
    "relu": gg.relu, "leaky_relu": lambda x: gg.leaky_relu(x, 0.2), "elu": lambda x: gg.elu(x, 1.3), "selu": gg.selu, "sigmoid": gg.sigmoid, "silu": gg.silu,
    "gelu": gg.gelu, "gelu_tanh": lambda x: gg.gelu(x, "tanh"), "softplus": lambda x: gg.softplus(x, 1.5), "log_sigmoid": gg.log_sigmoid,
    "hardtanh": lambda x: gg.hardtanh(x, -0.7, 1.2), "relu6": gg.relu6,
}  # fmt: skip
every_function = pytest.mark.parametrize("f", ALL.values(), ids=ALL)


class Counted:
    """The names of the operations that are computed in the block."""

    def __enter__(self):
        self.names, self.before, tape.observer = [], tape.observer, self
        return self.names

    def __exit__(self, *_):
        tape.observer = self.before

    def compute(self, op, args, params):
        self.names.append(op.name)
        return op.evaluate(args, params)

    def recorded(self, node):
        pass

    def pull(self, node, wanted, g, y, vals):
        return node.op.pull(node, wanted, g, y, vals)


@every_function
@pytest.mark.parametrize("name", ["float16", "bfloat16"])
@pytest.mark.parametrize("shape", [(3,), (40, 50)])
def test_16_bit_floats_stay_what_they_are(f, name, shape):
    dtype = np.dtype(name) if name == "float16" else np.dtype(pytest.importorskip("ml_dtypes").bfloat16)
    x = np.random.default_rng(0).normal(size=shape).astype(dtype)
    t = gg.tensor(x, requires_grad=True)
    y = f(t)
    y.sum().backward()
    assert y.dtype == t.grad.dtype == dtype
    wide = x.astype(np.float64)
    eps = 2.0**-10 if name == "float16" else 2.0**-7
    assert_allclose(y.detach().numpy().astype(float), f(wide), rtol=eps, atol=1e-6)
    assert_allclose(t.grad.numpy().astype(float), gg.grad(lambda x: gg.sum(f(x)))(wide), rtol=eps, atol=1e-6)


@every_function
def test_each_derivative_is_one_operation(f):
    """One forward, one more for each gradient; a Hessian-vector product has both cotangents of the slope in one pass."""
    x = np.random.default_rng(0).uniform(0.05, 0.6, 1000)
    g = np.ones_like(x)
    t = gg.tensor(x, requires_grad=True)
    with Counted() as names:
        y = f(t)
        (d,) = gg.autograd.grad(y, [t], gg.tensor(g), create_graph=True)
    assert len(names) == 2, names
    with Counted() as names:
        gg.jvp(f, (x,), (g,))
    assert len(names) == 2, names
    with Counted() as names:
        d.backward(gg.tensor(g))
    assert len(names) <= 2, names


def test_both_cotangents_of_a_slope_are_one_pass():
    x = np.random.default_rng(0).normal(size=500)
    t, w = (gg.tensor(v, requires_grad=True) for v in (x, x[::-1].copy()))
    (d,) = gg.autograd.grad(gg.silu(t), [t], w, create_graph=True)
    with Counted() as names:
        by_t, by_w = gg.autograd.grad(d, [t, w], gg.tensor(np.cos(x)))
    assert names == ["activation_bend"]
    assert_allclose(by_w, np.cos(x) * gg.grad(lambda x: gg.sum(gg.silu(x)))(x))
    h = 1e-5
    slope = lambda x: gg.grad(lambda x: gg.sum(gg.silu(x)))(x)
    assert_allclose(by_t, np.cos(x) * x[::-1] * (slope(x + h) - slope(x - h)) / (2 * h), rtol=1e-7, atol=1e-9)


@every_function
def test_integers_and_numbers(f):
    x = np.array([-3, 0, 2, 9])
    assert_allclose(f(x), f(x.astype(float)), rtol=1e-15)
    assert f(x).dtype == (np.int64 if f is gg.relu else np.float64)
    assert_allclose(f(x.astype(np.int8)), f(x.astype(float)))
    assert f"{f(0.5):.3f}" == f"{f(np.array([0.5]))[0]:.3f}"
    assert type(f(0.5)) in (float, np.float64)


def test_complex_numbers():
    z = np.array([0.3 + 0.4j, -2 - 1j, 3j, -30 + 1j])
    assert_allclose(gg.sigmoid(z), 1 / (1 + np.exp(-z)), rtol=1e-14)
    assert_allclose(gg.silu(z), z / (1 + np.exp(-z)), rtol=1e-14)
    y, pullback = gg.vjp(gg.sigmoid, z)
    assert_allclose(pullback(np.ones_like(z))[0], np.exp(-z) / (1 + np.exp(-z)) ** 2, rtol=1e-13)
    with pytest.raises(TypeError, match="gelu: got complex128, expected real floats"):
        gg.gelu(z)


def test_parameters_that_are_arrays_or_tracked():
    """A slope for each column, learned: a PReLU. The parameterless functions must give the same."""
    x, a = np.random.default_rng(0).normal(size=(5, 3)), np.array([0.1, 0.2, 0.3])
    by_x, by_a = gg.grad(lambda x, a: gg.sum(gg.leaky_relu(x, a) ** 2), (0, 1))(x, a)
    y = np.where(x > 0, x, a * x)
    assert_allclose(by_x, 2 * y * np.where(x > 0, 1, a))
    assert_allclose(by_a, (2 * y * np.where(x > 0, 0, x)).sum(axis=0))
    for f, p in ((gg.elu, 1.3), (gg.softplus, 0.7), (gg.leaky_relu, 0.2)):
        assert_allclose(f(x, np.full(3, p)), f(x, p), rtol=1e-12)
        t = gg.tensor(p, requires_grad=True)
        f(x, t).sum().backward()
        h = 1e-6
        assert_allclose(t.grad, (f(x, p + h) - f(x, p - h)).sum() / (2 * h), rtol=1e-6)
    assert_allclose(gg.hardtanh(x, -a, a), np.clip(x, -a, a))
    assert gg.softplus(x.astype(np.float32), np.float64(2)).dtype == np.float32


@every_function
@pytest.mark.parametrize("twin", ["reference", "cpu"])
def test_derivatives_of_any_order_in_both_modes(f, twin):
    x = np.array([-1.1, -0.6, 0.15, 0.9, 2.3])
    with kernels.use(twin):
        check_grads(f, (x,), order=3)


@pytest.mark.parametrize("name", list(ALL))
def test_values_and_derivatives_are_those_of_pytorch(name):
    torch = pytest.importorskip("torch")
    F = torch.nn.functional
    theirs = {
        "relu": F.relu, "leaky_relu": lambda x: F.leaky_relu(x, 0.2), "elu": lambda x: F.elu(x, 1.3), "selu": F.selu, "sigmoid": torch.sigmoid, "silu": F.silu,
        "gelu": F.gelu, "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"), "softplus": lambda x: F.softplus(x, 1.5), "log_sigmoid": F.logsigmoid,
        "hardtanh": lambda x: F.hardtanh(x, -0.7, 1.2), "relu6": F.relu6,
    }[name]  # fmt: skip
    x = np.concatenate([np.random.default_rng(0).normal(0, 3, 500), [0.0, 6.0, 1.2, -0.7, 1e-300, -1e-300]])
    t, u = torch.tensor(x, requires_grad=True), gg.tensor(x, requires_grad=True)
    for grad, f, v in ((torch.autograd.grad, theirs, t), (gg.autograd.grad, ALL[name], u)):
        y = f(v)
        (d,) = grad(y.sum(), [v], create_graph=True)
        (e,) = grad((d * d).sum(), [v]) if name not in ("relu", "leaky_relu", "relu6", "hardtanh") else (d,)
        found = [y.detach().numpy(), d.detach().numpy(), e.detach().numpy()[x != 0]]  # elu has a kink in 0
        if v is t:
            expected = found
    for got, want in zip(found, expected, strict=True):
        assert_allclose(got, want, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("order", ["C", "F"])
def test_memory_in_any_order(order):
    x = np.asarray(np.random.default_rng(0).normal(size=(40, 50)), order=order)
    for f in ALL.values():
        y, pullback = gg.vjp(f, x)
        assert y.flags.c_contiguous if order == "C" else y.flags.f_contiguous
        assert_allclose(pullback(np.ascontiguousarray(x))[0], pullback(x)[0], rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("f", [gg.relu, gg.gelu, gg.sigmoid, gg.silu, gg.softplus, gg.elu, gg.special.erf, gg.special.erfc, gg.special.erfinv])
@pytest.mark.parametrize("wrong", [None, "a", object(), np.array([1, None], object), np.array("2020-01-01", "M8[D]")], ids=lambda v: type(v).__name__)
def test_what_is_no_number_is_refused_rather_than_nan(f, wrong):
    with pytest.raises(TypeError, match="expected numbers"):
        f(wrong)


@pytest.mark.parametrize("name", ["tanh", "gelu", "softplus"])
def test_what_the_tangents_of_examples_do_not_change_is_computed_once(name, put):
    """c act'(x) of shared c and x has no axis of the examples (out_axes of None refuses one); the curvature of x is taken once for all."""
    rng = np.random.default_rng(0)
    c, x, d = (put(rng.uniform(-0.9, 0.9, shape)) for shape in ((3, 4), (3, 4), (5, 3, 4)))
    params = {"act": name, "a": 2.0, "b": 0.0}
    through, bent = gg.vmap(lambda d: act._bend(c, d, x, **params), out_axes=(None, 0))(d)
    for i in range(5):
        for got, one in zip((through, bent[i]), act._bend(c, d[i], x, **params), strict=True):
            assert_allclose(gg.asarray(got).numpy(), gg.asarray(one).numpy(), rtol=1e-14)
