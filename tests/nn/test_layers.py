"""Layers, losses as modules, and initialisers."""

import math

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import gpugrad as gg
from gpugrad import nn
from gpugrad.nn import init
from gpugrad.nn.layers import ACTIVATIONS

X = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)


def test_linear_is_x_w_plus_b_with_the_gradients_of_the_lecture():
    layer = nn.Linear(3, 2)
    y = layer(X)
    assert_allclose(y.detach().numpy(), X @ layer.weight.numpy() + layer.bias.numpy(), rtol=1e-6)
    g = np.arange(10, dtype=np.float32).reshape(5, 2)
    y.backward(gg.tensor(g))
    assert_allclose(layer.weight.grad.numpy(), X.T @ g, rtol=1e-5)
    assert_allclose(layer.bias.grad.numpy(), g.sum(0))
    assert nn.Linear(3, 2, bias=False).bias is None
    assert nn.Linear(0, 2)(np.zeros((1, 0), np.float32)).shape == (1, 2)


def test_parameters_have_the_default_dtype():
    assert nn.Linear(2, 2).weight.dtype == np.float32
    gg.set_default_dtype(np.float64)
    try:
        assert nn.Linear(2, 2).weight.dtype == np.float64
    finally:
        gg.set_default_dtype(np.float32)
    assert nn.MLP([2, 2], dtype=np.float64)[0].bias.dtype == np.float64


def test_seeded_layers_are_the_same():
    def make():
        gg.random.seed(3)
        return nn.MLP([4, 5, 2]).state_dict()

    for a, b in zip(make().values(), make().values(), strict=True):
        assert_array_equal(a, b)


@pytest.mark.parametrize("name", list(ACTIVATIONS))
def test_activation_modules_are_their_functions(name):
    assert_array_equal(ACTIVATIONS[name]()(X), getattr(gg, name)(X))


def test_sequential_takes_functions_too():
    net = nn.Sequential(nn.Linear(3, 3), gg.tanh, nn.Identity())
    assert len(net) == 3
    assert net[1] is gg.tanh
    assert_allclose(net(X).detach(), gg.tanh(net[0](X)).detach())


def test_mlp():
    net = nn.MLP([3, 8, 4, 2], "tanh")
    assert [type(layer).__name__ for layer in net] == ["Linear", "Tanh", "Linear", "Tanh", "Linear"]
    assert net(X).shape == (5, 2)
    assert len(nn.MLP([3, 2])) == 1
    assert nn.MLP([3, 4, 2], activation=lambda: nn.LeakyReLU(0.2))[1].negative_slope == 0.2
    with pytest.raises(ValueError, match="unknown activation 'rely': expected one of relu,"):
        nn.MLP([3, 2, 1], "rely")
    with pytest.raises(ValueError, match="at least two"):
        nn.MLP([3])


def test_two_linear_layers_without_activation_are_one():
    a, b = nn.Linear(3, 4).to(np.float64), nn.Linear(4, 2).to(np.float64)
    w, c = a.weight.numpy() @ b.weight.numpy(), a.bias.numpy() @ b.weight.numpy() + b.bias.numpy()
    assert_allclose(nn.Sequential(a, b)(X).detach(), X @ w + c, rtol=1e-6)


def test_loss_modules_are_their_functions():
    labels, y = np.array([0, 1, 2, 0, 1]), np.random.default_rng(1).uniform(size=X.shape)
    f = nn.functional
    for reduction in ("mean", "sum", "none"):
        assert_array_equal(nn.CrossEntropyLoss(reduction)(X, labels), f.cross_entropy(X, labels, reduction))
        assert_array_equal(nn.MSELoss(reduction)(X, y), f.mse_loss(X, y, reduction))
        assert_array_equal(nn.BCELoss(reduction)(y, y), f.bce_loss(y, y, reduction))
        assert_array_equal(nn.BCEWithLogitsLoss(reduction)(X, y), f.bce_with_logits(X, y, reduction))
    assert_array_equal(nn.CrossEntropyLoss(label_smoothing=0.1)(X, labels), f.cross_entropy(X, labels, label_smoothing=0.1))
    with pytest.raises(ValueError, match="reduction"):
        nn.MSELoss("all")


@pytest.mark.parametrize(
    ("fill", "std"),
    [
        (init.xavier_uniform_, math.sqrt(2 / 500)),
        (init.xavier_normal_, math.sqrt(2 / 500)),
        (init.kaiming_uniform_, math.sqrt(2 / 200)),
        (init.kaiming_normal_, math.sqrt(2 / 200)),
        (lambda t: init.kaiming_normal_(t, mode="fan_out", nonlinearity="linear"), math.sqrt(1 / 300)),
        (lambda t: init.kaiming_uniform_(t, a=math.sqrt(5)), math.sqrt(1 / 3 / 200)),
        (lambda t: init.normal_(t, 0, 0.3), 0.3),
        (lambda t: init.uniform_(t, -1, 1), math.sqrt(1 / 3)),
    ],
)
def test_initialisers_have_the_right_spread(fill, std):
    t = nn.Parameter(np.empty((200, 300), np.float32))
    assert fill(t) is t
    assert t.is_leaf
    assert t.requires_grad
    assert_allclose(t.numpy().std(), std, rtol=0.02)
    assert abs(t.numpy().mean()) < 0.02 * std


def test_constants_and_errors():
    t = nn.Parameter(np.empty((2, 3)))
    assert (init.ones_(t).numpy() == 1).all()
    assert (init.zeros_(t).numpy() == 0).all()
    assert (init.constant_(t, 7).numpy() == 7).all()
    with pytest.raises(ValueError, match=r"got shape \(2,\)"):
        init.xavier_normal_(nn.Parameter(np.empty(2)))
    with pytest.raises(ValueError, match="mode must be"):
        init.kaiming_normal_(t, mode="fan")
    with pytest.raises(ValueError, match="unknown nonlinearity 'foo'"):
        init.calculate_gain("foo")
