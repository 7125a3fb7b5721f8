"""Clipping by value: nan, infinities, complex numbers, devices, what backward notices."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import gpugrad as gg
from gpugrad import nn, optim
from gpugrad.testing import agreement


@pytest.mark.parametrize("dtype", agreement.dtypes(), ids=str)
def test_every_element(dtype, device):
    p = gg.tensor(np.zeros(6, dtype), device=device, requires_grad=True)
    q = gg.tensor(np.zeros((), dtype), device=device, requires_grad=True)
    p.grad = gg.tensor(np.array([-3, -0.25, 0, 0.5, np.inf, np.nan]).astype(dtype), device=device)
    q.grad, arrays = gg.tensor(np.array(-np.inf, dtype), device=device), []
    arrays = [p.grad.data, q.grad.data]
    optim.clip_grad_value_([p, q, gg.tensor([1.0], requires_grad=True)], 0.5)
    assert_array_equal(p.grad.numpy().astype(float), [-0.5, -0.25, 0, 0.5, 0.5, np.nan])
    assert_array_equal(q.grad.numpy().astype(float), -0.5)
    assert p.grad.dtype == dtype
    assert [p.grad.data is arrays[0], q.grad.data is arrays[1]] == [True, True]


def test_complex_gradients_are_pairs_of_numbers():
    p = gg.tensor(np.zeros(2, complex), requires_grad=True)
    p.grad = gg.tensor(np.array([3 - 4j, 0.1 + 2j]))
    optim.clip_grad_value_(p, 1.0)
    assert_array_equal(p.grad.numpy(), [1 - 1j, 0.1 + 1j])


def test_a_module_and_views():
    model = nn.Linear(3, 2)
    gg.sum(model(np.ones((4, 3), np.float32))).backward()
    model.weight.grad = gg.Tensor(np.full((2, 3), 4.0, np.float32).T)
    optim.clip_grad_value_(model.parameters(), 2)
    assert_array_equal(model.weight.grad.numpy(), np.full((3, 2), 2.0))
    assert_array_equal(model.bias.grad.numpy(), [2.0, 2.0])
    optim.clip_grad_value_(model.parameters(), 0)
    assert not model.bias.grad.numpy().any()


def test_backward_after_clipping_notices():
    p, x = gg.tensor([1.0], requires_grad=True), gg.tensor([1.0], requires_grad=True)
    p.grad = gg.tensor([5.0])
    y = gg.sum(p.grad * x)
    optim.clip_grad_value_([p], 1.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.backward()


@pytest.mark.parametrize("value", [-1.0, float("nan")])
def test_misuse(value):
    with pytest.raises(ValueError, match=f"invalid clip_value: got {value}, expected at least 0"):
        optim.clip_grad_value_([], value)


# ------------------------------------------------------------------------------------------------- accumulation


@pytest.mark.parametrize("max_grad_norm", [None, 0.05])
@pytest.mark.parametrize("where", ["in the step", "before it", "by value"])
def test_accumulated_micro_batches_are_one_batch(max_grad_norm, where, device):
    """k losses divided by k, each with a backward of its own, and clipping once, at the end."""
    rng = np.random.default_rng(0)
    x, y = (gg.tensor(rng.normal(size=(12, n)), device=device) for n in (5, 2))
    weights = rng.normal(size=(5, 2))

    def train(parts):
        w = gg.tensor(weights, device=device, requires_grad=True)
        o = optim.Adam([w], lr=0.1, eps=1e-2, max_grad_norm=max_grad_norm if where == "in the step" else None)
        for _ in range(3):
            o.zero_grad()
            for i in range(0, 12, 12 // parts):
                rows = slice(i, i + 12 // parts)
                (nn.functional.mse_loss(gg.tanh(x[rows] @ w), y[rows]) / parts).backward()
            if where == "before it" and max_grad_norm:
                optim.clip_grad_norm_([w], max_grad_norm)
            if where == "by value":
                optim.clip_grad_value_([w], 0.01)
            o.step()
        return w.numpy()

    whole = train(1)
    for parts in (2, 3, 12):
        np.testing.assert_allclose(train(parts), whole, rtol=1e-10)
    assert np.abs(whole - weights).max() > 0.05
