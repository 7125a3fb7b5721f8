"""Dropout as an operation: the mask comes out of the stream again for every derivative, and nothing else is kept."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import gpugrad as gg
from gpugrad.ops.dropout import dropout


def mask_of(shape, p, seed, dtype=np.float64):
    return np.asarray(dropout(np.ones(shape, dtype), p, generator=gg.random.Generator(seed)))


@pytest.mark.parametrize("size", [1, 7, 8, 9, 5000])  # the last is for the compiled twin
def test_gradient_is_the_mask_and_only_the_stretch_is_kept(size):
    x = gg.tensor(np.random.default_rng(0).normal(size=size), requires_grad=True)
    y = dropout(x, 0.3, generator=gg.random.Generator(5))
    assert y.node.vals == [None] and y.node.y is None
    y.backward(gg.ones_like(y))
    mask = mask_of(size, 0.3, 5)
    assert_array_equal(x.grad.numpy(), mask)
    assert_array_equal(y.numpy(), x.numpy() * mask)


def test_layouts_have_the_mask_of_their_elements_in_order(device, put):
    x = np.random.default_rng(1).normal(size=(70, 60))
    expected = x * mask_of(x.shape, 0.5, 2)
    for other in (np.asfortranarray(x), x[::-1, ::-1].copy()[::-1, ::-1], np.repeat(x, 2, 1)[:, ::2]):
        assert_array_equal(gg.tensor(dropout(put(other), 0.5, generator=gg.random.Generator(2))).numpy(), expected)


@pytest.mark.parametrize("size", [50, 5000])
def test_what_is_dropped_does_not_hide_nan(size):
    y = np.asarray(dropout(np.full(size, np.nan), 0.5))
    assert np.isnan(y).all()
    y = np.asarray(dropout(np.full(size, np.inf), 0.5, generator=gg.random.Generator(1)))
    assert_array_equal(np.isnan(y), mask_of(size, 0.5, 1) == 0)


def test_integers_and_complex_numbers():
    assert np.asarray(dropout(np.arange(10), 0.5)).dtype == np.float64
    assert np.asarray(dropout(np.arange(10, dtype=np.int8), 0.5)).dtype == np.float32
    z = np.arange(10) * (1 + 2j)
    assert_array_equal(np.asarray(dropout(z, 0.5, generator=gg.random.Generator(4))), z * mask_of(10, 0.5, 4))


def test_threads_draw_the_same_bits(monkeypatch):
    found = []
    for n in ("1", "3"):
        monkeypatch.setenv("GPUGRAD_NUM_THREADS", n)
        found.append(mask_of(1_000_003, 0.4, 6, np.float32))
    assert_array_equal(*found)
    assert abs(np.mean(found[0] == 0) - 0.4) < 0.002
