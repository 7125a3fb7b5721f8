"""Averages of weights against their formula; swapping them in and out; buffers, 16-bit weights, state."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import gpugrad as gg
from gpugrad import nn, optim
from gpugrad.testing import agreement


class Net(nn.Module):
    """Parameters, a buffer of floats that moves, and one of integers."""

    def __init__(self, device="cpu"):
        draw = np.random.default_rng(0)
        self.layer = nn.Linear(3, 2, device=device)
        self.mean = gg.tensor(draw.normal(size=2), device=device)
        self.count = gg.tensor(np.array(0), device=device)

    def forward(self, x):
        return self.layer(x) - self.mean

    def train_a_little(self, t):
        for i, name in enumerate(("layer.weight", "layer.bias", "mean", "count")):
            tensor = self.state_dict()[name]
            values = np.random.default_rng(10 * t + i).normal(size=tensor.shape)
            tensor.data[...] = gg.tensor(values, device=tensor.device).data.astype(tensor.dtype) if name != "count" else t


def values(model):
    return {name: t.numpy().copy() for name, t in model.state_dict().items()}


@pytest.mark.parametrize("warmup", [False, True, 3])
def test_the_formula(warmup, device):
    model = Net(device)
    ema = optim.ExponentialMovingAverage(model, 0.9, warmup=warmup)
    expected, n = values(model), {False: 0, True: 10, 3: 3}[warmup]
    for t in range(30):
        model.train_a_little(t)
        ema.update()
        d = min(0.9, (1 + t) / (n + t)) if n else 0.9
        expected = {name: v if name == "count" else d * expected[name] + (1 - d) * v for name, v in values(model).items()}
    own = values(model)
    with ema.applied():
        averaged = values(model)
    assert averaged["count"] == 29
    for name in own:
        assert_allclose(averaged[name], expected[name], rtol=2e-6, atol=1e-6)
        assert_array_equal(values(model)[name], own[name])
    ema.copy_to()
    for name, v in values(model).items():
        assert_array_equal(v, averaged[name])


def test_a_warm_up_of_two_is_the_mean_of_all():
    p = gg.tensor(np.array([4.0]), requires_grad=True)
    ema = optim.ExponentialMovingAverage([p], 1.0, warmup=2)
    seen = [4.0]
    for t in range(20):
        seen.append(float(t**2))
        p.data[...] = seen[-1]
        ema.update()
    assert_allclose(ema.averages["0"], np.mean(seen), rtol=1e-12)


def test_what_does_not_change_keeps_its_bits():
    p = gg.tensor(np.random.default_rng(0).normal(size=5000).astype(np.float32), requires_grad=True)
    ema = optim.ExponentialMovingAverage([p], 0.999)
    for _ in range(10):
        ema.update()
    assert_array_equal(ema.averages["0"], p.numpy())


@pytest.mark.parametrize("dtype", agreement.dtypes()[2:], ids=str)
def test_16_bit_weights_are_averaged_in_float32(dtype, device):
    """A step of 1/1000 of the way is less than half a unit of the last place: in 16 bits the average would stand still."""
    p = gg.tensor(np.ones(4, dtype), device=device, requires_grad=True)
    ema = optim.ExponentialMovingAverage([p], 0.999)
    p.data[...] = 1.25
    for _ in range(100):
        ema.update()
    assert ema.averages["0"].dtype == np.float32
    with ema.applied():
        assert p.dtype == dtype
        assert_allclose(p.numpy().astype(float), 1.25 - 0.25 * 0.999**100, rtol=2**-8)
    assert_allclose(gg.Tensor(ema.averages["0"]).numpy(), 1.25 - 0.25 * 0.999**100, rtol=1e-5)


def test_complex_and_strided_weights():
    z = gg.tensor(np.array([1 + 2j, 3j]), requires_grad=True)
    w = gg.tensor(np.ones((4, 4)), requires_grad=True)
    w.data = np.ones((4, 8))[:, ::2].T
    ema = optim.ExponentialMovingAverage([z, w], 0.5)
    z.data[...] = 0
    w.data[...] = np.arange(16.0).reshape(4, 4)
    ema.update()
    assert_allclose(ema.averages["0"], [0.5 + 1j, 1.5j])
    assert_allclose(ema.averages["1"], 0.5 + 0.5 * np.arange(16.0).reshape(4, 4))


def test_swapped_back_after_an_exception_and_when_nested(device):
    model = Net(device)
    ema = optim.ExponentialMovingAverage(model, 0.5)
    model.train_a_little(1)
    ema.update()
    own, arrays = values(model), [t.data for t in model.parameters()]
    with pytest.raises(KeyError), ema.applied(), ema.applied():
        raise KeyError
    with ema.applied():
        with ema.applied():
            pass
        assert not np.array_equal(values(model)["mean"], own["mean"])
        with pytest.raises(RuntimeError, match="leave the block first"):
            ema.update()
    for name, v in values(model).items():
        assert_array_equal(v, own[name])
    assert all(a is t.data for a, t in zip(arrays, model.parameters()))
    ema.update()


def test_the_model_evaluates_with_the_averages(device):
    model = Net(device)
    ema = optim.ExponentialMovingAverage(model, 0.5)
    x = gg.tensor(np.ones((1, 3), np.float32), device=device)
    before = model(x).numpy()
    model.train_a_little(3)
    with ema.applied():  # no update yet: the averages are where it began
        assert_array_equal(model(x).numpy(), before)
    assert not np.array_equal(model(x).numpy(), before)


def test_a_graph_of_before_is_not_disturbed():
    p = gg.tensor(np.array([2.0]), requires_grad=True)
    ema = optim.ExponentialMovingAverage([p])
    p.data[...] = 3.0
    y = p * p
    with ema.applied():
        pass
    gg.sum(y).backward()
    assert p.grad.item() == 6.0


def test_going_on_from_a_saved_state_is_going_on(device):
    make = lambda: optim.ExponentialMovingAverage(Net(device), 0.9, warmup=True)
    ema, again = make(), make()
    for t in range(10):
        ema.source.train_a_little(t)
        ema.update()
        if t == 4:
            saved = ema.state_dict()
            again.load_state_dict({"updates": saved["updates"], "averages": {k: v.numpy() for k, v in saved["averages"].items()}})
        if t > 4:
            again.source.train_a_little(t)
            again.update()
    assert again.updates == ema.updates == 10
    for name, a in ema.averages.items():
        assert_array_equal(gg.Tensor(a).numpy(), gg.Tensor(again.averages[name]).numpy())


def test_misuse():
    model = Net()
    with pytest.raises(ValueError, match="invalid decay: got"):
        optim.ExponentialMovingAverage(model, 1.5)
    with pytest.raises(ValueError, match="invalid warmup: got 1,"):
        optim.ExponentialMovingAverage(model, warmup=1)
    with pytest.raises(TypeError, match="got int"):
        optim.ExponentialMovingAverage([1])
    with pytest.raises(ValueError, match="no parameters"):
        optim.ExponentialMovingAverage([])
    ema = optim.ExponentialMovingAverage(model)
    before = {k: v.copy() for k, v in ema.averages.items()}
    with pytest.raises(ValueError, match=r"(?s)mean: got shape \(3,\), expected \(2,\).*count: missing.*x: unexpected"):
        state = {k: v for k, v in before.items() if k != "count"}
        ema.load_state_dict({"updates": 1, "averages": {**state, "mean": np.zeros(3), "x": np.zeros(1)}})
    with pytest.raises(ValueError, match=r"layer\.weight: missing"):
        ema.copy_to([gg.tensor([1.0])])
    for name, a in before.items():
        assert_array_equal(ema.averages[name], a)
    model.to(np.float64)
    with pytest.raises(RuntimeError, match=r"layer.weight: its average is of shape \(3, 2\), float32 on cpu.*float64.*behind model.to"):
        ema.update()


def test_a_model_that_was_moved_is_noticed(fake_cupy):
    model = Net()
    ema = optim.ExponentialMovingAverage(model)
    model.to("cuda")
    with pytest.raises(RuntimeError, match=r"on cpu, but the weight is now .* on cuda:0"):
        ema.update()
    ema.copy_to()
    assert next(model.parameters()).device == "cuda:0"
