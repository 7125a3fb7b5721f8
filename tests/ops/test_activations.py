"""Activations: values, kinks, tails (against 700-digit arithmetic where that is what it takes), and derivatives."""

import math
from decimal import Decimal, localcontext

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import gpugrad as gg
from gpugrad.ops import activations as act

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
