"""Modules: what they find, save, load, move and print, and modules as functions of their parameters."""

import copy
import pickle
from collections import deque

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import gpugrad as gg
from gpugrad import nn, optim


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
    assert [path for path, _ in net.named_children()] == ["first", "rest.0", "rest.1.out"]
    assert next(nn.Sequential(net, nn.Tanh()).children()) is net
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
    loaded = net.load_state_dict(state, strict=False)
    assert loaded.missing_keys == ["first.weight", "scale"]
    assert loaded.unexpected_keys == ["bogus"]
    assert net.load_state_dict(net.state_dict()) == ([], [])
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


def test_to_what_is_neither_device_nor_dtype_of_floats():
    net = Net()
    for wrong, message in (("gpu", "got 'gpu', expected a device"), (np.int64, "got dtype int64, expected one of floats"), (bool, "got dtype bool")):
        with pytest.raises(TypeError, match=rf"Module.to: {message}"):
            net.to(wrong)
    assert net.half().scale.dtype == np.float16
    assert net.double().scale.dtype == net.to(gg.zeros(1, dtype=np.float64)).scale.dtype == np.float64
    assert net.float().to("cpu", "float32").scale.dtype == np.float32


def test_to_bfloat16_by_name():
    ml_dtypes = pytest.importorskip("ml_dtypes")
    net = nn.MLP([2, 3, 1], norm="layer").to("bfloat16")
    assert {p.dtype for p in net.parameters()} == {np.dtype(ml_dtypes.bfloat16)}
    assert net(np.ones((4, 2), ml_dtypes.bfloat16)).dtype == ml_dtypes.bfloat16


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
    net = nn.MLP([2, 3, 1], norm="batch")
    assert repr(net).endswith(")  # 19 parameters")  # running values are none
    net[0].requires_grad_(False)
    assert repr(net).splitlines()[1] == "  (0): Linear(2, 3)  # 9 frozen"
    assert repr(net).endswith(")  # 10 parameters, 9 frozen")
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


def test_functional_call_leaves_parameters_parameters_whatever_they_hold():
    """So that weight decay that is written into forward counts in every mode, and with plain arrays."""

    class Decayed(Net):
        def forward(self, x):
            assert [path for path, _ in self.named_buffers()] == buffers
            return gg.mean(super().forward(x) ** 2) + sum(gg.sum(p**4) for p in self.parameters())

    net = Decayed().to(np.float64)
    x = np.random.default_rng(0).normal(size=(5, 3))
    buffers = [path for path, _ in net.named_buffers()]
    values = {path: p.numpy().copy() for path, p in net.named_parameters()}
    loss = lambda p: nn.functional_call(net, p, x)
    expected = gg.mean(Net.forward(net, x) ** 2).item() + sum((v**4).sum() for v in values.values())
    assert_allclose(loss(values).item(), expected, rtol=1e-12)
    v = {path: np.ones_like(a) for path, a in values.items()}
    grads = gg.grad(loss)(values)
    assert_allclose(gg.jvp(loss, (values,), (v,))[1], sum(g.sum() for g in grads.values()), rtol=1e-12)
    for mode in ("forward-over-reverse", "reverse-over-forward"):
        product = gg.hvp(loss, values, v, mode=mode)
        difference = gg.grad(loss)({path: a + 1e-6 for path, a in values.items()})
        for path, g in grads.items():
            assert_allclose(product[path], (difference[path] - g) / 1e-6, rtol=1e-3, atol=1e-4)
    assert [path for path, _ in net.named_parameters()] == list(values)


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

    class Net(nn.Module):
        def foward(self, x):
            return x

    with pytest.raises(NotImplementedError, match=r"Net does not define forward\(self, ...\); it has 'foward': is that it"):
        Net()(1)


# ------------------------------------------------------------------------------------------------- what is declared, and what cannot be found


class Counting(nn.Module):
    buffer_names = ("mean", "nothing")

    def __init__(self):
        self.mean, self.nothing, self.weight = gg.zeros(2), None, nn.Parameter(np.ones(2))


def test_declared_buffers_are_never_parameters():
    net = nn.Sequential(Counting())
    net.requires_grad_(False).requires_grad_(True)
    assert [path for path, _ in net.named_parameters()] == ["0.weight"]
    assert [path for path, _ in net.named_buffers()] == ["0.mean"]
    net[0].mean.requires_grad_(True)
    assert [path for path, _ in net.named_parameters()] == ["0.weight"]
    assert list(net.state_dict()) == ["0.mean", "0.weight"]
    assert net.to(np.float64)[0].mean.dtype == np.float64


@pytest.mark.parametrize(("make", "kind"), [(set, "set"), (frozenset, "frozenset"), (deque, "deque"), (lambda ms: dict(enumerate(ms)).values(), "dict_values")])
def test_modules_where_they_have_no_name_are_refused(make, kind):
    net = nn.Module()
    net.inner = [make([nn.Linear(1, 1)])]
    with pytest.raises(TypeError, match=rf"attribute 'inner.0': got a {kind} that holds a Linear, expected a list, tuple or dict"):
        list(net.parameters())
    net.inner = make([1, "two"])
    assert not list(net.parameters())


@pytest.mark.parametrize("make", [lambda ms: (m for m in ms), lambda ms: map(nn.Sequential, ms), zip, lambda ms: filter(None, ms)])
def test_generators_are_refused(make):
    net = nn.Module()
    net.layers = make([nn.Linear(1, 1)])
    with pytest.raises(TypeError, match=r"attribute 'layers': got a (generator|map|zip|filter), expected a list, tuple or dict: nothing in it would be found"):
        net.state_dict()
    net._layers = net.__dict__.pop("layers")
    assert net.state_dict() == {}


def test_apply_goes_from_inside_out():
    net = nn.Sequential(nn.Sequential(nn.Linear(1, 1), nn.ReLU()), nn.Tanh(), nn.Sequential(nn.Sequential()))
    seen = []
    assert net.apply(seen.append) is net
    paths = {m: path for path, m in net.named_modules()}
    assert [paths[m] for m in seen] == ["0.0", "0.1", "0", "1", "2.0", "2", ""]


def test_apply_initialises():
    def ones(m):
        if isinstance(m, nn.Linear):
            nn.init.ones_(m.weight)

    assert all((m.weight.numpy() == 1).all() for m in nn.MLP([2, 3, 1]).apply(ones) if isinstance(m, nn.Linear))


# ------------------------------------------------------------------------------------------------- errors name the path


class Deep(nn.Module):
    def __init__(self):
        self.blocks = {"head": [nn.MLP([3, 4, 2]), nn.LayerNorm(3)]}

    def forward(self, x):
        mlp, norm = self.blocks["head"]
        return norm(mlp(x))


def test_shape_errors_name_the_path_got_and_expected():
    with pytest.raises(nn.ShapeError) as info:
        Deep()(np.ones((2, 5), np.float32))
    assert str(info.value) == "Deep.blocks.head.0.0 (Linear): got input of shape (2, 5), expected (..., 3)"
    assert isinstance(info.value, ValueError)
    with pytest.raises(nn.ShapeError) as info:
        Deep()(np.ones((2, 3), np.float32))
    assert str(info.value) == "Deep.blocks.head.1 (LayerNorm): got input of shape (2, 2), expected (..., 3)"
    again = pickle.loads(pickle.dumps(info.value))
    assert "got input of shape (2, 2)" in str(again)


@pytest.mark.parametrize("layers", [[nn.Linear(128, 4)], [nn.Linear(128, 4), nn.ReLU()], [nn.Linear(128, 4, bias=False), nn.ELU()]])
def test_shape_errors_of_layers_that_are_fused(layers):
    net = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), *layers)
    with pytest.raises(nn.ShapeError, match=r"^Sequential.2 \(Linear\): got input of shape \(32, 64\), expected \(..., 128\)$"):
        net(np.ones((32, 64), np.float32))
    with pytest.raises(nn.ShapeError, match=r"^Linear: got input of shape \(\), expected \(..., 128\)$"):
        layers[0](np.float32(1))


def test_other_errors_carry_one_note_with_the_path():
    class Fails(nn.Module):
        def forward(self, x):
            raise KeyError("what")

    class Outer(nn.Module):
        def __init__(self):
            self.inner = nn.Sequential(nn.Identity(), nn.Sequential(Fails()))

        def forward(self, x):
            return self.inner(x)

    with pytest.raises(KeyError) as info:
        Outer()(1)
    assert info.value.__notes__ == ["in Outer.inner.1.0 (Fails)"]
    assert info.value.args == ("what",)
    with pytest.raises(KeyError) as info:
        nn.Sequential(lambda x: Fails()(x))(1)  # a module that nobody holds
    assert info.value.__notes__ == ["in Fails"]
    error = KeyError("mine")
    error.add_note("kept")

    class Raises(nn.Module):
        def forward(self):
            raise error

    with pytest.raises(KeyError):
        Raises()()
    assert error.__notes__ == ["kept", "in Raises"]


# ------------------------------------------------------------------------------------------------- parameters that nothing depends on


class Forgetful(nn.Module):
    def __init__(self):
        self.used, self.skip, self.scale = nn.Linear(2, 2), [nn.Linear(2, 3)], nn.Parameter(1.0)

    def forward(self, x):
        return self.used(x)


def test_unused_parameters_are_named():
    net = Forgetful()
    y = net(np.ones((1, 2), np.float32))
    assert nn.unused_parameters(net, y) == ["skip.0.weight", "skip.0.bias", "scale"]
    assert nn.unused_parameters(net, {"y": y, "more": [net.skip[0](y)]}) == ["scale"]
    assert nn.unused_parameters(net, y.detach(), 3.0) == [path for path, _ in net.named_parameters()]
    with pytest.raises(RuntimeError) as info:
        nn.check_parameters_used(net, gg.sum(y))
    for part in ("does not depend on 3 of 5 parameters", "Forgetful.skip.0.weight (Linear), of shape (2, 3)", "Forgetful.scale (Forgetful), of shape ()"):
        assert part in str(info.value)
    net.skip[0].requires_grad_(False)
    net.scale.requires_grad_(False)
    nn.check_parameters_used(net, gg.sum(y))
    gg.sum(y).backward()
    with pytest.raises(RuntimeError, match="the graph has been freed"):
        nn.unused_parameters(net, y)


def test_a_long_graph_is_searched_without_recursion():
    net = nn.Linear(1, 1)
    y = net(np.ones((1, 1), np.float32))
    for _ in range(20_000):
        y = y + 1
    assert nn.unused_parameters(net, y) == []


# ------------------------------------------------------------------------------------------------- state


def test_what_cannot_be_cast_is_refused_before_anything_changes():
    net = nn.Linear(2, 2)
    before = net.bias.numpy().copy()
    for bad in (np.ones((2, 2), complex), np.full((2, 2), "x"), np.full((2, 2), None)):
        with pytest.raises(RuntimeError, match=rf"weight: got dtype {bad.dtype}, expected one that can be cast to float32"):
            net.load_state_dict({"bias": before + 1, "weight": bad})
        assert_array_equal(net.bias.numpy(), before)
    net.load_state_dict({"bias": np.array([1, 2]), "weight": np.ones((2, 2), np.float16)})
    assert_array_equal(net.bias.numpy(), [1, 2])


def test_tied_parameters_are_saved_and_optimized_once():
    """Under their first name; a copy keeps them tied."""
    net = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Tanh(), nn.Linear(2, 2, bias=False))
    net[2].weight = net[0].weight
    assert list(net.state_dict()) == ["0.weight"]
    assert len(list(net.parameters())) == 1
    x = np.array([[1.0, 2.0]], np.float32)
    optimizer = optim.SGD(net.parameters(), lr=0.1)
    gg.sum(net(x)).backward()
    w = net[0].weight.numpy().astype(float)
    h = np.tanh(x @ w)
    expected = x.T @ ((1 - h**2) * np.sum(w, axis=1)) + h.T @ np.ones((1, 2))
    assert_allclose(net[0].weight.grad.numpy(), expected, rtol=1e-5)
    optimizer.step()
    assert_allclose(net[2].weight.numpy(), w - 0.1 * expected, rtol=1e-5)
    for other in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert other[2].weight is other[0].weight
    other.load_state_dict(net.state_dict())
    assert_array_equal(other(x).detach(), net(x).detach())


def test_tied_parameters_may_come_under_any_of_their_paths():
    """As in state of PyTorch, which has them under all."""
    net = nn.Sequential(nn.Linear(2, 2, bias=False), {"more": 1}.get, nn.Linear(2, 2, bias=False), nn.ReLU())
    net[2].weight = net[0].weight
    net.twice = [net[0]]
    w = np.arange(4.0).reshape(2, 2)
    for state in ({"0.weight": w, "2.weight": w, "twice.0.weight": w}, {"2.weight": w}, {"twice.0.weight": w}):
        net[0].weight.detach().zero_()
        assert net.load_state_dict(state) == ([], [])
        assert_array_equal(net[2].weight.numpy(), w)
    assert net.load_state_dict({"2.weight": w}, from_torch=True) == ([], [])
    assert_array_equal(net[0].weight.numpy(), w.T)
    with pytest.raises(RuntimeError, match=r"2.weight: got other values than 0.weight, with which it is tied"):
        net.load_state_dict({"0.weight": w, "2.weight": w + 1})
    for path in ("3.weight", "twice.1.weight", "twice.0.weight.0", "nothing"):
        with pytest.raises(RuntimeError, match=f"{path}: unexpected"):
            net.load_state_dict({"0.weight": w, path: w})


def test_state_of_batch_norm_moves_and_keeps_its_integers():
    net = nn.MLP([2, 3, 1], norm="batch").to(np.float64)
    assert net[1].num_batches_tracked.dtype == np.int64
    assert net[1].running_var.dtype == np.float64
    net(np.random.default_rng(0).normal(size=(4, 2)))
    other = nn.MLP([2, 3, 1], norm="batch")
    other.load_state_dict(net.state_dict())
    assert other[1].num_batches_tracked.item() == 1
    assert other[1].running_mean.dtype == np.float32
    assert_allclose(other[1].running_mean.numpy(), net[1].running_mean.numpy(), rtol=1e-6)


def test_two_tensors_under_one_path_are_refused():
    class Twice(nn.Module):
        def __init__(self):
            self.layers = {1: nn.Linear(1, 1), "1": nn.Linear(1, 1)}

    with pytest.raises(ValueError, match=r"Twice has two Tensors under the path 'layers\.1\.weight'"):
        Twice().state_dict()
