"""Layers, losses as modules, and initialisers."""

import math

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import gpugrad as gg
from gpugrad import nn, tape
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


class Seen:
    """The names of all operations that are computed in the block."""

    def __enter__(self):
        self.names, self.saved = [], tape.observer
        tape.observer = self
        return self.names

    def __exit__(self, *_):
        tape.observer = self.saved

    def compute(self, op, args, params):
        self.names.append(op.name)
        return op.evaluate(args, params)

    def recorded(self, node):
        pass

    def pull(self, node, wanted, g, y, vals):
        return node.op.pull(node, wanted, g, y, vals)


FUSED = [nn.ReLU(), nn.Tanh(), nn.Sigmoid(), nn.SiLU(), nn.GELU(), nn.GELU("tanh")]
activations = pytest.mark.parametrize("activation", FUSED, ids=["relu", "tanh", "sigmoid", "silu", "gelu", "gelu_tanh"])


@activations
@pytest.mark.parametrize("bias", [True, False])
def test_sequential_computes_linear_and_activation_as_one(activation, bias):
    net = nn.Sequential(nn.Linear(3, 4, bias, dtype=np.float64), nn.Linear(4, 4, dtype=np.float64), activation, nn.Linear(4, 2, dtype=np.float64))
    x = gg.tensor(X, dtype=np.float64, requires_grad=True)
    results = []
    for forward in (net, lambda x: net[3](activation(net[1](net[0](x))))):
        with Seen() as names:
            y = forward(x)
        assert sum(name.startswith("linear_act") for name in names) == (forward is net)
        results.append([y, *gg.autograd.grad(gg.sum(gg.sin(y)), [x, *net.parameters()])])
    for fused, unfused in zip(*results, strict=True):
        assert_allclose(fused.detach().numpy(), unfused.detach().numpy(), rtol=1e-13, atol=1e-15)


@activations
def test_fused_layers_take_any_leading_axes(activation):
    net = nn.Sequential(nn.Linear(3, 4), activation)
    for shape in ((3,), (2, 3), (2, 5, 3), (0, 3)):
        x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
        y = net(x)
        assert_allclose(y.detach(), activation(net[0](x)).detach(), rtol=1e-5, atol=1e-6)
        assert y.shape == (*shape[:-1], 4)


class OwnLinear(nn.Linear):
    pass


class OwnReLU(nn.ReLU):
    pass


def test_sequential_calls_what_is_not_its_own_one_by_one(monkeypatch):
    def with_forward_of_its_own(layer):
        layer.forward = type(layer).forward.__get__(layer)
        layer.forward = lambda x, forward=layer.forward: forward(x)
        return layer

    for net in (
        nn.Sequential(OwnLinear(3, 4), nn.ReLU()),
        nn.Sequential(nn.Linear(3, 4), OwnReLU()),
        nn.Sequential(nn.Linear(3, 4), gg.relu),
        nn.Sequential(nn.Linear(3, 4), nn.Identity(), nn.ReLU()),
        nn.Sequential(nn.Linear(3, 4), nn.ELU()),
        nn.Sequential(with_forward_of_its_own(nn.Linear(3, 4)), nn.ReLU()),
        nn.Sequential(nn.Linear(3, 4), with_forward_of_its_own(nn.ReLU())),
    ):
        with Seen() as names:
            net(X)
        assert "linear" in names
        assert not any(name.startswith("linear_act") for name in names)
    calls = []
    monkeypatch.setattr(nn.ReLU, "forward", lambda self, x: calls.append(x) or x)
    nn.Sequential(nn.Linear(3, 4), nn.ReLU())(X)
    assert len(calls) == 1
    with pytest.raises(ValueError, match="approximate must be"):
        nn.Sequential(nn.Linear(3, 4), nn.GELU("erf"))(X)


def test_a_fused_sequential_is_the_module_it_was():
    net = nn.MLP([3, 4, 2], "gelu")
    assert list(net.state_dict()) == ["0.weight", "0.bias", "2.weight", "2.bias"]
    assert [type(layer).__name__ for layer in net] == ["Linear", "GELU", "Linear"]
    assert "(1): GELU()" in repr(net)
    params = {name: gg.tensor(p.numpy() * 2, requires_grad=True) for name, p in net.named_parameters()}
    y = nn.functional_call(net, params, X)
    y.sum().backward()
    other = nn.MLP([3, 4, 2], "gelu")
    other.load_state_dict(params)
    other(X).sum().backward()
    assert_array_equal(y.detach(), other(X).detach())
    for name, p in other.named_parameters():
        assert_array_equal(params[name].grad, p.grad)
    assert all(p.grad is None for p in net.parameters())


@pytest.mark.parametrize("mode", ["forward-over-reverse", "reverse-over-reverse"])
@activations
def test_fused_second_derivatives(activation, mode):
    net = nn.Sequential(nn.Linear(3, 4, dtype=np.float64), activation, nn.Linear(4, 2, dtype=np.float64))
    params = {name: p.numpy() for name, p in net.named_parameters()}
    loss = lambda p: gg.sum(nn.functional_call(net, p, X.astype(np.float64)) ** 2)
    unfused = lambda p: gg.sum((activation(X.astype(np.float64) @ p["0.weight"] + p["0.bias"]) @ p["2.weight"] + p["2.bias"]) ** 2)
    v = {name: np.cos(np.arange(p.size)).reshape(p.shape) for name, p in params.items()}
    expected = gg.hvp(unfused, params, v, mode=mode)
    for name, product in gg.hvp(loss, params, v, mode=mode).items():
        assert_allclose(product, expected[name], rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: nn.functional.dropout(np.ones(3), "a"), TypeError, "got probability p='a', expected a number"),
        (lambda: nn.functional.dropout(np.ones(3), np.ones(3)), TypeError, "expected a number from 0 to 1"),
        (lambda: nn.functional.dropout(np.ones(3), generator=3), TypeError, "got the generator 3"),
        (lambda: nn.Dropout(generator=3), TypeError, "got the generator 3"),
        (lambda: nn.LayerNorm(4.5), TypeError, "normalized_shape.* must be an integer, got 4.5"),
        (lambda: nn.RMSNorm((2, "a")), TypeError, "normalized_shape.* must be an integer, got 'a'"),
        (lambda: nn.BatchNorm1d(4.5), TypeError, "BatchNorm1d: num_features must be an integer, got 4.5"),
        (lambda: nn.Embedding(10, 3, padding_idx=1.5), TypeError, "Embedding: padding_idx must be an integer, got 1.5"),
        (lambda: nn.Embedding(10, -4), ValueError, "Embedding: embedding_dim must be at least 0, got -4"),
        (lambda: nn.functional.embedding([0], np.ones((3, 2)), 1.5), TypeError, "embedding: padding_idx must be an integer, got 1.5"),
        (lambda: nn.functional.one_hot([0, 1], "a"), TypeError, "one_hot: num_classes must be an integer, got 'a'"),
        (lambda: nn.functional.one_hot([0, 1], 2.5), TypeError, "one_hot: num_classes must be an integer, got 2.5"),
        (lambda: nn.Linear("4", 2), TypeError, "Linear: in_features must be an integer, got '4'"),
        (lambda: nn.Bilinear(4, 2, True), TypeError, "Bilinear: out_features must be an integer, got True"),
        (lambda: nn.GELU("tanhh"), ValueError, "approximate must be 'none' or 'tanh', got 'tanhh'"),
        (lambda: gg.optim.Adam(nn.Linear(2, 2)), TypeError, r"got Linear: pass model.parameters\(\)"),
    ],
)
def test_options_of_a_wrong_kind_are_named_at_once(call, error, message):
    with pytest.raises(error, match=message):
        call()
