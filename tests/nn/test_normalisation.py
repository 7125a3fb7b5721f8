"""Batch, layer and RMS norm and dropout as modules: running values, modes, masks, and PyTorch's numbers over several steps."""

import copy
import json
import pickle

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import gpugrad as gg
from gpugrad import nn, optim
from gpugrad.nn import functional as F  # noqa: N812
from gpugrad.testing import check_grads

RNG = np.random.default_rng(0)
every_norm = pytest.mark.parametrize("make", [nn.BatchNorm1d, nn.LayerNorm, nn.RMSNorm])


# ------------------------------------------------------------------------------------------------- batch norm


@pytest.mark.parametrize("shape", [(6, 3), (4, 3, 5)])
@pytest.mark.parametrize("momentum", [0.1, 1.0, None])
def test_running_values_over_several_batches(shape, momentum, device, put):
    """With momentum None they are the plain averages over all batches."""
    layer = nn.BatchNorm1d(3, momentum=momentum, device=device, dtype=np.float64)
    axes, mean, var = (0, *range(2, len(shape))), np.zeros(3), np.ones(3)
    for k in range(1, 5):
        x = RNG.normal(5, 2, shape)
        factor = 1 / k if momentum is None else momentum
        mean, var = (1 - factor) * mean + factor * x.mean(axes), (1 - factor) * var + factor * x.var(axes, ddof=1)
        layer(put(x))
        assert_allclose(layer.running_mean.numpy(), mean, rtol=1e-12)
        assert_allclose(layer.running_var.numpy(), var, rtol=1e-12)
        assert layer.num_batches_tracked.item() == k
    y = layer.eval()(put(x)).detach().numpy()
    column = (3, *[1] * (len(shape) - 2))
    assert_allclose(y, (x - mean.reshape(column)) / np.sqrt(var.reshape(column) + 1e-5), rtol=1e-12)
    assert layer.num_batches_tracked.item() == 4


def test_without_running_values_the_batch_counts_in_evaluation_too():
    layer = nn.BatchNorm1d(3, track_running_stats=False)
    x = RNG.normal(5, 2, (6, 3)).astype(np.float32)
    assert list(layer.state_dict()) == ["weight", "bias"]
    assert_array_equal(layer(x).detach(), layer.eval()(x).detach())
    assert_allclose(layer(x).detach().numpy().mean(0), 0, atol=1e-6)
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        layer(x[:1])


def test_one_value_per_channel_is_an_error_in_training_only():
    layer = nn.BatchNorm1d(3)
    for shape in ((1, 3), (1, 3, 1), (0, 3), (2, 3, 0)):
        before = layer.running_mean.numpy().copy()
        with pytest.raises(ValueError, match=rf"expected more than 1 value per channel when training, got input of shape \({shape[0]}, 3"):
            layer(np.ones(shape, np.float32))
        assert_array_equal(layer.running_mean.numpy(), before)
        assert layer.num_batches_tracked.item() == 0
        assert layer.eval()(np.ones(shape, np.float32)).shape == shape
        layer.train()
    assert layer(np.ones((1, 3, 2), np.float32)).shape == (1, 3, 2)


def test_running_values_are_buffers_whatever_happens():
    layer = nn.BatchNorm1d(3)
    for change in (lambda: layer.requires_grad_(False), lambda: layer.requires_grad_(True)):
        change()
        assert not layer.running_mean.requires_grad
    assert [path for path, _ in layer.named_parameters()] == ["weight", "bias"]
    assert [path for path, _ in layer.named_buffers()] == ["running_mean", "running_var", "num_batches_tracked"]
    layer.running_mean.requires_grad_(True)  # by hand, even
    assert [path for path, _ in layer.named_parameters()] == ["weight", "bias"]
    assert nn.BatchNorm1d(3, affine=False).requires_grad_(True).weight is None
    with pytest.raises(ValueError, match="empty parameter list"):
        optim.SGD(nn.BatchNorm1d(3, affine=False).requires_grad_(True).parameters(), lr=0.1)


def test_a_subclass_declares_buffers_beside_those_of_its_base():
    class Own(nn.BatchNorm1d):
        buffer_names = ("scale",)

        def __init__(self):
            super().__init__(3)
            self.scale = gg.ones(1)

    layer = Own().requires_grad_(True)
    assert [path for path, _ in layer.named_buffers()] == ["running_mean", "running_var", "num_batches_tracked", "scale"]


TRANSFORMS = {
    "grad": lambda f, p: gg.grad(f)(p),
    "jvp": lambda f, p: gg.jvp(f, (p,), (p,)),
    "forward-over-reverse": lambda f, p: gg.hvp(f, p, p),
    "reverse-over-reverse": lambda f, p: gg.hvp(f, p, p, mode="reverse-over-reverse"),
    "grad in grad": lambda f, p: gg.grad(lambda q: sum(gg.sum(g) for g in gg.grad(f)(q).values()))(p),
    "linearize": lambda f, p: gg.linearize(f, p),
}


@pytest.mark.parametrize("name", TRANSFORMS)
def test_running_values_stay_plain_numbers_under_transforms(name):
    """They are updated once by each pass, and no level of a transform is left in them."""
    net = nn.MLP([3, 4, 2], "tanh", norm="batch", dtype=np.float64)
    norm, x = net[1], RNG.normal(size=(6, 3))
    params = {path: p.numpy().copy() for path, p in net.named_parameters()}
    z = x @ params["0.weight"] + params["0.bias"]
    TRANSFORMS[name](lambda p: gg.sum(nn.functional_call(net, p, x) ** 2), params)
    for buffer in (norm.running_mean, norm.running_var, norm.num_batches_tracked):
        assert type(buffer.value) is np.ndarray
        assert buffer.node is None
    assert norm.num_batches_tracked.item() == 1
    assert_allclose(norm.running_mean.numpy(), 0.1 * z.mean(0), rtol=1e-12)
    assert all(p.is_leaf for p in net.parameters())


def test_functional_call_with_buffers_writes_into_those():
    net = nn.MLP([3, 4, 2], norm="batch")
    state = {path: t.numpy().copy() for path, t in net.state_dict().items()}
    nn.functional_call(net, state, RNG.normal(size=(6, 3)).astype(np.float32))
    assert state["1.num_batches_tracked"] == 1
    assert state["1.running_mean"].any()
    assert net[1].num_batches_tracked.item() == 0
    assert not net[1].running_mean.numpy().any()


@pytest.mark.parametrize("training", [True, False])
def test_nets_with_norms_against_differences(training):
    """In parameters and inputs, to second order, in both modes."""
    x = RNG.normal(size=(5, 3))
    for norm in ("batch", "layer", "rms"):
        net = nn.MLP([3, 4, 4, 2], "tanh", norm=norm, residual=True, dtype=np.float64).train(training)
        params = {path: p.numpy().copy() for path, p in net.named_parameters()}
        check_grads(lambda p, x, net=net: nn.functional_call(net, p, x), (params, x), order=2)


def test_backward_works_after_later_updates_of_the_running_values():
    """What a pass in evaluation saves must not be the running values themselves: training writes into those."""
    layer = nn.BatchNorm1d(3).eval()
    y = layer(gg.tensor(RNG.normal(size=(4, 3)), dtype=np.float32, requires_grad=True))
    layer.train()(RNG.normal(size=(4, 3)).astype(np.float32))
    y.sum().backward()
    again = layer(gg.tensor(RNG.normal(size=(4, 3)), dtype=np.float32, requires_grad=True))
    layer(RNG.normal(size=(4, 3)).astype(np.float32))
    again.sum().backward()  # two passes before one backward, as in a GAN


def test_backward_notices_that_running_values_it_saved_have_changed():
    layer, t = nn.BatchNorm1d(3), gg.tensor(np.ones(3, np.float32), requires_grad=True)
    y = gg.sum(t * layer.running_mean)
    layer(np.eye(3, dtype=np.float32))
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.backward()


def test_reset_running_stats_and_representations():
    layer = nn.BatchNorm1d(3, momentum=None)
    layer(RNG.normal(size=(4, 3)).astype(np.float32))
    layer.reset_running_stats()
    for path, t in nn.BatchNorm1d(3).named_buffers():
        assert_array_equal(dict(layer.named_buffers())[path].numpy(), t.numpy())
    assert repr(nn.BatchNorm1d(3, momentum=None, affine=False)) == "BatchNorm1d(3, momentum=None, affine=False)"
    assert repr(nn.LayerNorm((2, 3), bias=False)) == "LayerNorm((2, 3), bias=False)  # 6 parameters"
    assert repr(nn.LayerNorm(4, elementwise_affine=False)) == "LayerNorm(4, elementwise_affine=False)"
    assert repr(nn.RMSNorm(4)) == "RMSNorm(4)  # 4 parameters"
    assert repr(nn.Dropout(0.1)) == "Dropout(0.1)"


@every_norm
def test_shapes_that_do_not_fit(make):
    """Also those that would broadcast."""
    for shape in ((4, 1), (4, 5), (3,) if make is nn.BatchNorm1d else (1,)):
        with pytest.raises(nn.ShapeError, match=rf"{make.__name__}: got input of shape \(.*\), expected \(.*3"):
            make(3)(np.ones(shape, np.float32))


@every_norm
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_modules_of_any_dtype_keep_it(make, dtype):
    layer = make(3).to(dtype)
    x = gg.tensor(RNG.normal(3, 1, (6, 3)), dtype=dtype, requires_grad=True)
    y = layer(x)
    y.sum().backward()
    assert y.dtype == x.grad.dtype == layer.weight.grad.dtype == dtype
    assert layer.eval()(x).dtype == dtype


@every_norm
def test_norms_on_a_device(make, device, put):
    x = RNG.normal(2, 3, (40, 60)).astype(np.float32)
    layer, there = make(60), make(60, device=device)
    for _ in range(2):
        assert_allclose(there(put(x)).detach().numpy(), layer(x).detach().numpy(), rtol=1e-5, atol=1e-5)
    for a, b in zip(there.state_dict().values(), layer.state_dict().values(), strict=True):
        assert a.device.startswith(device)
        assert_allclose(a.numpy(), b.numpy(), rtol=1e-5)


@pytest.mark.parametrize("norm", ["batch", "layer", "rms"])
def test_training_on_a_device_is_training_on_the_cpu(norm, device):
    """The same seeds, ten steps with dropout and residual blocks, then evaluation: the same numbers to rounding.

    Not by Adam: of the bias before a batch norm, whose gradient is 0 but for rounding, it would make steps of full length.
    """
    x, y = RNG.normal(3, 2, (32, 6)).astype(np.float32), RNG.integers(0, 3, 32)

    def trained(where):
        gg.random.seed(4)
        net = nn.MLP([6, 16, 16, 3], "gelu", norm=norm, dropout=0.2, residual=True, device=where)
        optimizer, data, labels = optim.SGD(net.parameters(), lr=0.1, momentum=0.9), gg.tensor(x, device=where), gg.tensor(y, device=where)
        for _ in range(10):
            optimizer.zero_grad()
            F.cross_entropy(net(data), labels).backward()
            optimizer.step()
        return [net.eval()(data).detach().numpy(), *[t.numpy() for _, t in net.named_buffers()]]

    for got, expected in zip(trained(device), trained("cpu"), strict=True):
        assert_allclose(got, expected, rtol=1e-3, atol=1e-4)


def test_copies_and_pickles_have_running_values_of_their_own():
    net = nn.MLP([3, 4, 2], norm="batch", dropout=0.1)
    x = RNG.normal(size=(6, 3)).astype(np.float32)
    net(x)
    for other in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        for a, b in zip(other.state_dict().values(), net.state_dict().values(), strict=True):
            assert_array_equal(a.numpy(), b.numpy())
        other(x)
        assert (other[1].num_batches_tracked.item(), net[1].num_batches_tracked.item()) == (2, 1)
        assert [path for path, _ in other.named_parameters()] == [path for path, _ in net.named_parameters()]


@every_norm
def test_pytorch_over_several_steps(make):
    torch = pytest.importorskip("torch")
    layer, other = make(6, dtype=np.float64), getattr(torch.nn, make.__name__)(6, dtype=torch.float64)
    ours, theirs = optim.SGD(layer.parameters(), lr=0.1, momentum=0.9), torch.optim.SGD(other.parameters(), lr=0.1, momentum=0.9)
    for _ in range(5):
        x, w = RNG.normal(5, 2, (8, 6)), RNG.normal(size=(8, 6))
        a, b = gg.tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
        y, z = layer(a), other(b)
        ours.zero_grad()
        theirs.zero_grad()
        gg.sum(gg.tanh(y * w)).backward()
        torch.tanh(z * torch.tensor(w)).sum().backward()
        assert_allclose(y.detach().numpy(), z.detach().numpy(), rtol=1e-10, atol=1e-12)
        assert_allclose(a.grad.numpy(), b.grad.numpy(), rtol=1e-9, atol=1e-12)
        ours.step()
        theirs.step()
    state = other.state_dict()
    assert list(layer.state_dict()) == list(state)
    for path, t in layer.state_dict().items():
        assert_allclose(t.numpy(), state[path].numpy(), rtol=1e-10, err_msg=path)
    layer.load_state_dict({path: t.numpy() for path, t in state.items()})
    assert_allclose(layer.eval()(x).detach().numpy(), other.eval()(torch.tensor(x)).detach().numpy(), rtol=1e-10, atol=1e-12)


# ------------------------------------------------------------------------------------------------- dropout


def test_dropout_keeps_the_mean_and_drops_a_share(device, put):
    x = put(np.ones((200, 300), np.float32))
    gg.random.seed(1)
    y = nn.Dropout(0.3)(gg.tensor(x)).numpy()
    assert set(np.unique(y)) == {0, np.float32(1 / 0.7)}
    assert abs((y == 0).mean() - 0.3) < 4 * np.sqrt(0.3 * 0.7 / y.size)
    gg.random.seed(1)
    assert_array_equal(y, nn.Dropout(0.3)(np.ones((200, 300), np.float32)))  # the same bits on every device


@pytest.mark.filterwarnings("error")
def test_dropout_of_all_and_of_nothing():
    x = gg.tensor(RNG.normal(size=(3, 4)), requires_grad=True)
    state = json.dumps(gg.random.default_generator.state_dict())
    y = nn.Dropout(1.0)(x)
    assert_array_equal(y.detach().numpy(), 0)
    (g,) = gg.autograd.grad(y.sum(), x)
    assert_array_equal(g.numpy(), 0)
    for layer in (nn.Dropout(0.0), nn.Dropout(0.5).eval(), nn.Dropout(1.0).eval()):
        assert layer(x) is x
    assert json.dumps(gg.random.default_generator.state_dict()) == state
    for p in (-0.1, 1.1, np.nan):
        with pytest.raises(ValueError, match="got probability p="):
            nn.Dropout(p)


def test_dropout_has_one_mask_in_a_pass_and_all_its_derivatives():
    """Also in those of second order, by both modes: a mask drawn anew would give another number."""
    x = RNG.normal(size=(5, 6))

    def seeded(x):
        return gg.sum(gg.sin(F.dropout(x, 0.4, generator=gg.random.Generator(3))))

    mask = np.asarray(F.dropout(np.ones((5, 6)), 0.4, generator=gg.random.Generator(3)))
    assert 0 < (mask == 0).sum() < 30
    assert_allclose(gg.grad(seeded)(x), np.cos(x * mask) * mask, rtol=1e-14)
    v, own = RNG.normal(size=(5, 6)), gg.random.Generator(3)
    for mode in ("forward-over-reverse", "reverse-over-reverse"):
        own.seed(3)
        product = gg.hvp(lambda x: gg.sum(gg.sin(F.dropout(x, 0.4, generator=own))), x, v, mode=mode)
        assert_allclose(product, -np.sin(x * mask) * mask**2 * v, rtol=1e-13, atol=1e-15)
    t = gg.tensor(x, requires_grad=True)
    (g,) = gg.autograd.grad(gg.sum(gg.sin(F.dropout(t, 0.4, generator=gg.random.Generator(3)))), t, create_graph=True)
    (h,) = gg.autograd.grad(gg.sum(g * v), t)
    assert_allclose(h.numpy(), -np.sin(x * mask) * mask**2 * v, rtol=1e-13, atol=1e-15)
    check_grads(seeded, (x,), order=2)


@pytest.mark.parametrize("size", [1, 7, 8, 9, 4100])
def test_the_mask_is_read_off_the_generators_stream(size, device, put):
    """32 bits of Philox for each element, which is kept where they are below (1 - p) 2^32; the stream goes on behind the last block of eight."""
    own, same = gg.random.Generator(11), gg.random.Generator(11)
    words = np.frombuffer(np.random.Philox(11).random_raw(4 * -(-size // 8)).tobytes(), "<u4")[:size]
    for _ in range(2):
        y = gg.tensor(F.dropout(put(np.ones(size, np.float32)), 0.25, generator=own)).numpy()
        assert_array_equal(y, np.where(words < 0.75 * 2**32, np.float32(4 / 3), 0))
        start = 2 * 4 * -(-size // 8)
        words = np.frombuffer(np.random.Philox(11).random_raw(start).tobytes(), "<u4")[start:][:size]
    F.dropout(np.ones(2 * 8 * -(-size // 8), np.float32), 0.25, generator=same)
    assert_array_equal(own.uniform(size=3), same.uniform(size=3))


def test_a_stretch_of_the_stream_after_other_numbers():
    """What was left of a block of four words is passed over, and the state can be saved in between."""
    own, stream = gg.random.Generator(2), gg.random.Generator(2).uniform(size=4 + 4 * 13 + 1).numpy()
    own.uniform(size=3)
    F.dropout(np.ones(100, np.float32), 0.5, generator=own)
    assert own.uniform().item() == stream[-1]
    saved = own.state_dict()
    masks = [F.dropout(np.ones(100, np.float32), 0.5, generator=own) for _ in range(2)]
    own.load_state_dict(saved)
    for mask in masks:
        assert_array_equal(F.dropout(np.ones(100, np.float32), 0.5, generator=own), mask)
    assert (masks[0] != masks[1]).any()


def test_dropout_draws_anew_each_time_and_from_its_own_generator():
    x = np.ones((20, 30), np.float32)
    layer = nn.Dropout(0.5, generator=gg.random.Generator(7))
    state = json.dumps(gg.random.default_generator.state_dict())
    a, b = layer(x), layer(x)
    assert (a != b).any()
    assert json.dumps(gg.random.default_generator.state_dict()) == state
    assert_array_equal(nn.Dropout(0.5, generator=gg.random.Generator(7))(x), a)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_dropout_keeps_the_dtype(dtype):
    assert nn.Dropout(0.3)(np.ones((3, 4), dtype)).dtype == dtype
    assert nn.Dropout(1.0)(np.ones((3, 4), dtype)).dtype == dtype
