"""Initialisers: distributions, orthogonality, bounds, the same numbers on every device, and errors."""

import math

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import gpugrad as gg
from gpugrad import nn, random
from gpugrad.nn import functional as F  # noqa: N812
from gpugrad.nn import init
from gpugrad.random import Generator

FILLS = {
    "uniform_": lambda t, g: init.uniform_(t, -1, 2, g),
    "normal_": lambda t, g: init.normal_(t, 1, 2, g),
    "trunc_normal_": lambda t, g: init.trunc_normal_(t, 0.5, 1, -1, 1, g),
    "orthogonal_": lambda t, g: init.orthogonal_(t, 1.5, g),
    "sparse_": lambda t, g: init.sparse_(t, 0.4, 1.0, g),
    "xavier_uniform_": lambda t, g: init.xavier_uniform_(t, 1.0, g),
    "xavier_normal_": lambda t, g: init.xavier_normal_(t, 1.0, g),
    "kaiming_uniform_": lambda t, g: init.kaiming_uniform_(t, generator=g),
    "kaiming_normal_": lambda t, g: init.kaiming_normal_(t, generator=g),
}
every_fill = pytest.mark.parametrize("name", FILLS)


def parameter(shape, dtype=np.float32, device=None):
    return nn.Parameter(np.full(shape, np.nan), dtype=dtype, device=device)


@every_fill
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_a_seed_gives_the_same_numbers_on_every_device(name, dtype, device):
    here, there = parameter((7, 5), dtype), parameter((7, 5), dtype, device)
    assert FILLS[name](there, Generator(3)) is there
    FILLS[name](here, Generator(3))
    assert (there.is_leaf, there.requires_grad, there.dtype, there.device) == (True, True, dtype, gg.asarray(0, device=device).device)
    assert_array_equal(here.numpy(), there.numpy())
    assert np.isfinite(here.numpy()).all()
    FILLS[name](there, Generator(4))
    assert (here.numpy() != there.numpy()).any()


@every_fill
def test_without_a_generator_the_numbers_are_the_shared_ones(name):
    a, b = parameter((4, 3)), parameter((4, 3))
    random.seed(11)
    FILLS[name](a, None)
    FILLS[name](b, Generator(11))
    assert_array_equal(a.numpy(), b.numpy())


@pytest.mark.parametrize("shape", [(50, 20), (20, 50), (30, 30), (1, 7), (7, 1), (6, 2, 5)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float16, 2e-3), (np.float32, 5e-7), (np.float64, 5e-15)])
def test_orthogonal_matrices_are_orthogonal(shape, dtype, tolerance):
    w = init.orthogonal_(parameter(shape, dtype), 1.5, Generator(0)).numpy().astype(float).reshape(shape[0], -1)
    product = w.T @ w if w.shape[0] >= w.shape[1] else w @ w.T
    assert_allclose(product, 1.5**2 * np.eye(len(product)), atol=1.5**2 * tolerance)


def test_orthogonal_matrices_are_distributed_evenly():
    """Without the choice of signs Householder's QR gives a first element that is never positive. Under Haar's measure the trace has mean 0 and variance 1."""
    g = Generator(0)
    w = np.array([init.orthogonal_(parameter((3, 3), np.float64), generator=g).numpy() for _ in range(3000)])
    assert_allclose(w.mean(0), 0, atol=0.05)
    assert_allclose((w**2).mean(0), 1 / 3, atol=0.03)
    traces = np.trace(w, axis1=1, axis2=2)
    assert_allclose([traces.mean(), traces.var()], [0, 1], atol=0.08)
    assert abs((np.linalg.det(w) > 0).mean() - 0.5) < 0.03


def test_an_orthogonal_layer_keeps_lengths():
    w = init.orthogonal_(parameter((16, 16), np.float64), generator=Generator(1)).numpy()
    x = np.random.default_rng(0).normal(size=(5, 16))
    assert_allclose(np.linalg.norm(x @ w, axis=1), np.linalg.norm(x, axis=1), rtol=1e-13)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_truncated_normal_numbers_stay_within_bounds_that_the_dtype_does_not_have(dtype):
    w = init.trunc_normal_(parameter((300, 300), dtype), 0.0, 0.02, -0.04, 0.04, Generator(0)).numpy().astype(float)
    assert np.abs(w).max() <= 0.04
    assert np.abs(w).max() > 0.0399
    assert_allclose(w.std(), 0.02 * 0.8796, rtol=0.01)
    assert abs(w.mean()) < 3e-4


def test_truncated_normal_moments():
    """Of a one-sided interval: mean = phi(0) / Phi(0), E z^2 = 1; and far out in the tail the excess over a is nearly exponential with mean 1 / a."""
    z = init.trunc_normal_(parameter((200, 200), np.float64), 0, 1, 0, math.inf, Generator(0)).numpy()
    assert_allclose([z.mean(), (z * z).mean()], [math.sqrt(2 / math.pi), 1], rtol=0.02)
    z = init.trunc_normal_(parameter((200, 200), np.float64), 0, 1, 30, math.inf, Generator(0)).numpy()
    assert z.min() >= 30
    assert_allclose((z - 30).mean(), 1 / 30, rtol=0.02)


def test_eye():
    for shape in ((2, 3), (3, 2), (2, 2)):
        assert_array_equal(init.eye_(parameter(shape)).numpy(), np.eye(*shape))


def test_sparse_columns():
    w = init.sparse_(parameter((50, 40), np.float64), 0.31, 0.5, Generator(0)).numpy()
    assert_array_equal((w == 0).sum(0), 16)
    assert len(set(np.flatnonzero((w == 0).any(1)).tolist())) == 50
    assert_allclose(w[w != 0].std(), 0.5, rtol=0.05)
    assert not init.sparse_(parameter((5, 4)), 1.0).numpy().any()


@pytest.mark.parametrize("name", ["relu", "leaky_relu", "elu", "gelu", "silu", "softplus"])
def test_gains_keep_the_mean_square(name):
    """gain^2 E f(z)^2 = 1, by the trapezoidal rule, which for such an integrand converges faster than any power."""
    z = np.linspace(-12, 12, 48001)
    density = np.exp(-z * z / 2) / math.sqrt(2 * math.pi) * (z[1] - z[0])
    assert_allclose(init.calculate_gain(name) ** 2 * np.sum(getattr(F, name)(z) ** 2 * density), 1, rtol=1e-6)


def test_gains():
    assert (init.calculate_gain("linear"), init.calculate_gain("sigmoid"), init.calculate_gain("tanh"), init.calculate_gain("selu")) == (1, 1, 5 / 3, 0.75)
    assert_allclose(init.calculate_gain("leaky_relu", 0.2), math.sqrt(2 / 1.04))
    assert init.calculate_gain("relu") == math.sqrt(2)
    for name in nn.layers.activations.ACTIVATIONS:
        assert init.calculate_gain(name) > 0


def test_kaiming_keeps_the_size_of_numbers_through_thirty_layers():
    """The mean square behind thirty layers of ReLU; with Xavier's it is halved by each of them."""
    g, n = Generator(0), 200
    x = y = np.random.default_rng(0).normal(size=(100, n))
    for _ in range(30):
        x = np.maximum(x @ init.kaiming_normal_(parameter((n, n), np.float64), nonlinearity="relu", generator=g).numpy(), 0)
        y = np.maximum(y @ init.xavier_normal_(parameter((n, n), np.float64), generator=g).numpy(), 0)
    assert 0.1 < (x**2).mean() < 10
    assert (y**2).mean() < 1e-7


def test_empty_weights():
    for name in ("uniform_", "normal_", "trunc_normal_", "orthogonal_", "xavier_uniform_", "kaiming_normal_"):
        for shape in ((0, 3), (3, 0)):
            assert FILLS[name](parameter(shape), Generator(0)).shape == shape


def test_errors():
    t = parameter((3, 2))
    whole = gg.tensor(np.zeros((3, 2), int))
    cases = [
        (lambda: init.orthogonal_(parameter(3)), ValueError, r"orthogonal_: got shape \(3,\), expected at least two axes"),
        (lambda: init.eye_(parameter(3)), ValueError, r"weight of shape \(in, out\), got shape \(3,\)"),
        (lambda: init.sparse_(t, 1.5), ValueError, "sparsity must lie between 0 and 1, got 1.5"),
        (lambda: init.trunc_normal_(t, 0, 1, 2, -2), ValueError, "expected scale > 0 and an interval with a probability above 0"),
        (lambda: init.trunc_normal_(t, std=0), ValueError, "expected scale > 0"),
        (lambda: init.normal_(t, std=-1), ValueError, "got scale=-1, expected a standard deviation of at least 0"),
        (lambda: init.uniform_(t, 1, 0), ValueError, "expected finite numbers with low <= high"),
        (lambda: init.normal_(whole), TypeError, "got dtype int64, expected a real floating one"),
        (lambda: init.trunc_normal_(whole), TypeError, "got dtype int64"),
        (lambda: init.normal_(np.zeros(3)), TypeError, "got ndarray, expected a Tensor to fill"),
        (lambda: init.calculate_gain("swish"), ValueError, "unknown nonlinearity 'swish': expected one of linear, .*silu"),
    ]
    for call, error, message in cases:
        with pytest.raises(error, match=message):
            call()
    assert np.isnan(t.numpy()).all()
