"""Sequential as a list, residual blocks, MLP's options, Flatten, and activations as modules."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import gpugrad as gg
from gpugrad import nn
from gpugrad.testing import check_grads

RNG = np.random.default_rng(0)
X = RNG.normal(size=(5, 3)).astype(np.float32)


def names(net):
    return [type(layer).__name__ for layer in net]


def test_sequential_is_like_a_list():
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU())
    assert net.append(nn.Linear(4, 2)) is net
    assert net.insert(1, nn.LayerNorm(4)) is net
    assert names(net) == ["Linear", "LayerNorm", "ReLU", "Linear"]
    assert list(net.state_dict()) == ["0.weight", "0.bias", "1.weight", "1.bias", "3.weight", "3.bias"]
    part = net[1:3]
    assert type(part) is nn.Sequential
    assert part[0] is net[1]
    assert net[-1] is net[3]
    net[2] = nn.Tanh()
    assert names(net) == ["Linear", "LayerNorm", "Tanh", "Linear"]
    assert type(nn.MLP([3, 4, 2])[:2]) is nn.Sequential
    assert net(X).shape == (5, 2)
    with pytest.raises(TypeError, match="Sequential: got list as layer 0, expected modules or functions, each an argument of its own"):
        nn.Sequential([nn.Linear(3, 4)])
    with pytest.raises(IndexError):
        net[9]
    assert_array_equal(nn.Sequential()(X), X)


def test_more_than_ten_layers_stay_in_order():
    net = nn.Sequential(*[nn.Linear(1, 1) for _ in range(12)])
    net.insert(0, nn.Identity())
    assert list(net.state_dict())[-1] == "12.bias"
    assert len(net) == 13


def test_residual_adds():
    block = nn.Residual(nn.Linear(3, 3), nn.Tanh())
    w, b = block[0].weight.numpy(), block[0].bias.numpy()
    assert_allclose(block(X).detach().numpy(), X + np.tanh(X @ w + b), rtol=1e-5)
    assert list(block.state_dict()) == ["0.weight", "0.bias"]
    params = {path: p.numpy().astype(float) for path, p in block.named_parameters()}
    check_grads(lambda p, x: nn.functional_call(block, p, x), (params, X), order=2)
    with pytest.raises(nn.ShapeError, match=r"Sequential.1 \(Residual\): got input of shape \(5, 3\), expected layers that keep it; they gave \(5, 4\)"):
        nn.Sequential(nn.Identity(), nn.Residual(nn.Linear(3, 4)))(X)
    with pytest.raises(nn.ShapeError, match="they gave"):  # it would broadcast
        nn.Residual(nn.Linear(3, 1))(X)


def test_mlp_puts_norm_before_the_activation_and_dropout_behind_it():
    net = nn.MLP([3, 8, 4, 2], "tanh", norm="layer", dropout=0.1)
    assert names(net) == ["Linear", "LayerNorm", "Tanh", "Dropout"] * 2 + ["Linear"]
    assert net[4].bias is not None
    for norm, kind in (("batch", nn.BatchNorm1d), ("rms", nn.RMSNorm)):
        assert type(nn.MLP([3, 8, 2], norm=norm, dtype=np.float64)[1]) is kind
    assert nn.MLP([3, 8, 2], norm="rms", dtype=np.float64)[1].weight.dtype == np.float64
    assert names(nn.MLP([3, 2], norm="batch", dropout=0.5)) == ["Linear"]
    with pytest.raises(ValueError, match="unknown norm 'bach', expected one of 'batch', 'layer', 'rms', or None"):
        nn.MLP([3, 4, 2], norm="bach")
    with pytest.raises(ValueError, match="got probability p=2"):
        nn.MLP([3, 4, 2], dropout=2)


def test_mlp_with_residual_blocks_where_the_width_stays():
    net = nn.MLP([3, 4, 4, 4, 2, 2], residual=True)
    assert names(net) == ["Linear", "ReLU", "Residual", "Residual", "Linear", "ReLU", "Linear"]
    assert names(net[2]) == ["Linear", "ReLU"]
    assert "2.0.weight" in net.state_dict()
    h = net[:2](X)
    assert_allclose(net[:3](X).detach(), (h + gg.relu(net[2][0](h))).detach(), rtol=1e-6)
    with pytest.raises(ValueError, match=r"got residual=True and sizes \[4, 3, 3\], expected a hidden layer as wide as the one before it"):
        nn.MLP([4, 3, 3], residual=True)


@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (2, 3), (0, 3, 4)])
def test_flatten(shape):
    x = np.arange(np.prod(shape)).reshape(shape)
    assert_array_equal(nn.Flatten()(x), x.reshape(shape[0], int(np.prod(shape[1:]))))
    assert_array_equal(nn.Flatten(0)(x), x.reshape(-1))
    assert_array_equal(nn.Flatten(0, 1)(x), x.reshape(shape[0] * shape[1], *shape[2:]))
    assert_array_equal(nn.Flatten(-2, -1)(x), x.reshape(*shape[:-2], shape[-2] * shape[-1]))


def test_flatten_of_too_few_axes():
    for layer in (nn.Flatten(2), nn.Flatten(0, 2), nn.Flatten(-1, 0), nn.Flatten(-3)):
        with pytest.raises(nn.ShapeError, match=rf"Flatten: got input of shape \(2, 3\), expected axes {layer.start_dim} to {layer.end_dim}"):
            layer(np.ones((2, 3)))
    assert repr(nn.Flatten(0, 2)) == "Flatten(start_dim=0, end_dim=2)"


def test_activation_modules_have_their_parameters():
    for layer, function, text in [
        (nn.LeakyReLU(0.2), lambda x: gg.leaky_relu(x, 0.2), "LeakyReLU(0.2)"),
        (nn.ELU(0.5), lambda x: gg.elu(x, 0.5), "ELU(0.5)"),
        (nn.SELU(), gg.selu, "SELU()"),
        (nn.GELU("tanh"), lambda x: gg.gelu(x, "tanh"), "GELU(approximate='tanh')"),
        (nn.Softplus(2.0), lambda x: gg.softplus(x, 2.0), "Softplus(2.0)"),
        (nn.Softmax(), gg.softmax, "Softmax(dim=-1)"),
        (nn.Softmax(0), lambda x: gg.softmax(x, 0), "Softmax(dim=0)"),
        (nn.LogSoftmax(1), lambda x: gg.log_softmax(x, 1), "LogSoftmax(dim=1)"),
    ]:
        assert_array_equal(layer(X), function(X))
        assert repr(layer) == text


@pytest.mark.parametrize("name", ["ReLU", "LeakyReLU", "ELU", "SELU", "GELU", "SiLU", "Softplus", "Tanh"])
def test_activations_with_their_defaults_are_pytorchs(name):
    torch = pytest.importorskip("torch")
    x = np.linspace(-6, 6, 41)
    t, u = gg.tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
    y, z = getattr(nn, name)()(t), getattr(torch.nn, name)()(u)
    y.sum().backward()
    z.sum().backward()
    assert_allclose(y.detach().numpy(), z.detach().numpy(), rtol=1e-7, atol=1e-9)
    assert_allclose(t.grad.numpy(), u.grad.numpy(), rtol=1e-7, atol=1e-9)
