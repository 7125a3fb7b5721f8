"""Modules: what they find, save, load, move and print, and modules as functions of their parameters."""

import copy

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import gpugrad as gg
from gpugrad import nn


class Net(nn.Module):
    def __init__(self):
        self.first = nn.Linear(3, 4)
        self.rest = [nn.ReLU(), {"out": nn.Linear(4, 2, bias=False)}]
        self.scale = nn.Parameter(1.5)
        self.count = gg.zeros(2)
        self._cache = gg.zeros(7)
        self.again = self.first

    def forward(self, x):
        return self.rest[1]["out"](self.rest[0](self.first(x))) * self.scale


PATHS = ["first.weight", "first.bias", "rest.1.out.weight", "scale"]


def test_parameters_and_buffers_are_found_by_attribute_each_once():
    net = Net()
    assert [path for path, _ in net.named_parameters()] == PATHS
    assert [path for path, _ in net.named_buffers()] == ["count"]
    assert [path for path, _ in net.named_modules()] == ["", "first", "rest.0", "rest.1.out"]
    assert list(net.state_dict()) == [*PATHS, "count"]
    net.last = net(np.ones((1, 3), np.float32))  # tracked, but no leaf
    assert [path for path, _ in net.named_parameters()] == PATHS


def test_freezing_makes_a_buffer_of_a_parameter():
    net = Net()
    net.first.requires_grad_(False)
    assert [path for path, _ in net.named_parameters()] == PATHS[2:]
    assert list(net.state_dict()) == [*PATHS, "count"]


def test_a_module_that_holds_itself_ends():
    net = Net()
    net.me = net
    assert len(list(net.parameters())) == 4


def test_state_dict_round_trip_shares_and_copies():
    a, b = Net(), Net()
    x = np.ones((2, 3), np.float32)
    b.load_state_dict(a.state_dict())
    assert_array_equal(a(x).detach(), b(x).detach())
    a.state_dict()["scale"].fill_(3.0)
    assert a.scale.item() == 3
    assert b.scale.item() == 1.5


def test_loading_names_everything_that_is_wrong_and_changes_nothing():
    net = Net()
    state = {path: t.numpy().copy() + 1 for path, t in net.state_dict().items()}
    state["first.weight"] = np.zeros((4, 3))
    del state["scale"]
    state["bogus"] = np.zeros(1)
    before = net.first.bias.numpy().copy()
    with pytest.raises(RuntimeError) as info:
        net.load_state_dict(state)
    for line in ("first.weight: got shape (4, 3), expected (3, 4)", "scale: missing, expected shape ()", "bogus: unexpected"):
        assert line in str(info.value)
    assert_array_equal(net.first.bias.numpy(), before)
    with pytest.raises(RuntimeError, match=r"first.weight: got shape \(4, 3\)"):
        net.load_state_dict(state, strict=False)
    del state["first.weight"]
    net.load_state_dict(state, strict=False)
    assert_array_equal(net.first.bias.numpy(), before + 1)


def test_weights_from_pytorch_are_transposed_when_asked():
    net = nn.MLP([3, 4, 2])
    state = {path: t.numpy().copy() for path, t in net.state_dict().items()}
    torch_state = {path: v.T for path, v in state.items()}
    other = nn.MLP([3, 4, 2])
    other.load_state_dict(torch_state, from_torch=True)
    for path, t in other.state_dict().items():
        assert_array_equal(t.numpy(), state[path])
    single = nn.Linear(3, 4)
    single.load_state_dict({"weight": np.zeros((4, 3)), "bias": np.zeros(4)}, from_torch=True)
    assert single.weight.shape == (3, 4)


def test_loading_after_a_forward_pass_is_noticed_by_backward():
    net = nn.Linear(2, 2)
    loss = gg.sum(gg.sin(net(gg.tensor(np.ones((1, 2), np.float32), requires_grad=True))))
    net.load_state_dict(net.state_dict())
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_train_and_eval_reach_everything():
    net = Net()
    assert net.training
    assert not any(m.training for m in net.eval().modules())
    assert all(m.training for m in net.train().modules())


def test_to_changes_dtype_in_place_and_keeps_identity():
    net = Net()
    net.ints = gg.zeros(2, dtype=np.int64)
    weight = net.first.weight
    gg.sum(net(np.ones((1, 3), np.float32))).backward()
    assert net.to(np.float64) is net
    assert net.first.weight is weight
    assert weight.dtype == weight.grad.dtype == np.float64
    assert net.ints.dtype == np.int64
    gg.sum(net(np.ones((1, 3)))).backward()


def test_to_a_device_and_back(device):
    net = nn.MLP([3, 4, 2], device=device)
    assert all(p.device.startswith(device) for p in net.parameters())
    moved = nn.MLP([3, 4, 2]).to(device)
    moved.load_state_dict(net.cpu().state_dict())
    net.to(device)
    x = gg.tensor(np.ones((2, 3), np.float32), device=device)
    loss = nn.functional.mse_loss(net(x), gg.zeros_like(moved(x)).detach())
    loss.backward()
    assert_allclose(net(x).numpy(), moved(x).numpy())
    assert all(p.grad.device == p.device for p in net.parameters())


def test_zero_grad():
    net = Net()
    gg.sum(net(np.ones((1, 3), np.float32))).backward()
    net.zero_grad(set_to_none=False)
    assert all((p.grad.numpy() == 0).all() for p in net.parameters())
    net.zero_grad()
    assert all(p.grad is None for p in net.parameters())


def test_the_representation_counts_parameters():
    assert repr(nn.MLP([4, 1000, 1])) == (
        "MLP(\n  (0): Linear(4, 1000)  # 5,000 parameters\n  (1): ReLU()\n  (2): Linear(1000, 1)  # 1,001 parameters\n)  # 6,001 parameters"
    )
    assert repr(nn.Linear(2, 3, bias=False)) == "Linear(2, 3, bias=False)  # 6 parameters"
    assert "(rest.1.out): Linear(4, 2, bias=False)" in repr(Net())
    assert repr(nn.MSELoss("sum")) == "MSELoss(reduction='sum')"
    nested = nn.Sequential(nn.Sequential(nn.Linear(1, 1)), nn.Tanh())
    assert repr(nested).splitlines()[1:4] == ["  (0): Sequential(", "    (0): Linear(1, 1)  # 2 parameters", "  )  # 2 parameters"]


def test_parameter_is_a_leaf_with_a_copy():
    x = np.ones(3)
    p = nn.Parameter(x)
    x[0] = 5
    assert p.is_leaf
    assert p.requires_grad
    assert_array_equal(p.numpy(), 1)
    assert nn.Parameter(2.0).dtype == np.float32
    with pytest.raises(RuntimeError, match="floating point"):
        nn.Parameter([1, 2])


def test_deepcopy_gives_a_module_of_its_own():
    net = Net()
    other = copy.deepcopy(net)
    other.first.weight.detach().zero_()
    assert other.again is other.first
    assert net.first.weight.numpy().any()


def test_functional_call_differentiates_a_module_as_a_function_of_its_parameters():
    net = Net().to(np.float64)
    x = np.random.default_rng(0).normal(size=(5, 3))
    loss = lambda p: gg.mean(nn.functional_call(net, p, x) ** 2)
    params = dict(net.named_parameters())
    values = {path: p.numpy().copy() for path, p in params.items()}
    grads = gg.grad(loss)(values)
    gg.mean(net(x) ** 2).backward()
    for path, p in params.items():
        assert_allclose(grads[path], p.grad.numpy(), rtol=1e-12)
        assert_array_equal(p.numpy(), values[path])
        assert p.is_leaf
        assert p.requires_grad
    v = {path: np.ones_like(a) for path, a in values.items()}
    tangent = gg.jvp(loss, (values,), (v,))[1]
    assert_allclose(tangent, sum(g.sum() for g in grads.values()), rtol=1e-12)
    e = 1e-6
    ahead, behind = (gg.grad(loss)({path: a + s * e for path, a in values.items()}) for s in (1, -1))
    product = gg.jvp(gg.grad(loss), (values,), (v,))[1]
    for path in values:
        assert_allclose(product[path], (ahead[path] - behind[path]) / (2 * e), rtol=1e-6, atol=1e-8)


def test_functional_call_of_some_parameters_and_its_errors():
    net = nn.Linear(2, 2)
    x = np.ones((1, 2), np.float32)
    bias = net.bias.numpy().copy()
    y = nn.functional_call(net, {"weight": np.zeros((2, 2), np.float32)}, x)
    assert_array_equal(y.detach().numpy()[0], bias)
    assert net.weight.numpy().any()
    with pytest.raises(KeyError, match="no parameter or buffer 'w'; it has weight, bias"):
        nn.functional_call(net, {"w": 1.0}, x)
    with pytest.raises(ValueError, match=r"weight got shape \(2, 3\), expected \(2, 2\)"):
        nn.functional_call(net, {"weight": np.zeros((2, 3))}, x)


def test_functional_call_restores_after_an_error_and_returns_what_was_given():
    class Returns(nn.Module):
        def __init__(self):
            self.w = nn.Parameter(np.ones(2))

        def forward(self, fail=False):
            if fail:
                raise ZeroDivisionError
            return {"w": self.w}

    net = Returns()
    node = net.w.node
    with pytest.raises(ZeroDivisionError):
        nn.functional_call(net, {"w": np.zeros(2)}, fail=True)
    assert net.w.node is node
    assert_array_equal(nn.functional_call(net, {"w": np.full(2, 7.0)})["w"], [7, 7])
    assert_array_equal(net.w.numpy(), [1, 1])


def test_forward_is_required():
    with pytest.raises(NotImplementedError, match="Module does not define forward"):
        nn.Module()(1)
