"""Bilinear layers and embeddings: formulas, derivatives, indices that are repeated, padded or out of range."""

import numpy as np
import pytest
from derivatives import check
from numpy.testing import assert_allclose, assert_array_equal

import gpugrad as gg
from gpugrad import nn
from gpugrad.nn import functional as F  # noqa: N812

RNG = np.random.default_rng(0)


# ------------------------------------------------------------------------------------------------- bilinear


@pytest.mark.parametrize("lead", [(4,), (2, 3), ()])
def test_bilinear_is_its_formula(lead):
    x1, x2, w, b = RNG.normal(size=(*lead, 3)), RNG.normal(size=(*lead, 2)), RNG.normal(size=(3, 2, 5)), RNG.normal(size=5)
    assert_allclose(F.bilinear(x1, x2, w, b), np.einsum("...i,ijk,...j->...k", x1, w, x2) + b, rtol=1e-12)
    assert_allclose(F.bilinear(x1, x2, w), np.einsum("...i,ijk,...j->...k", x1, w, x2), rtol=1e-12)
    check(F.bilinear, x1, x2, w, b)


def test_bilinear_layer(device, put):
    layer = nn.Bilinear(3, 2, 5, device=device)
    assert [(path, p.shape) for path, p in layer.named_parameters()] == [("weight", (3, 2, 5)), ("bias", (5,))]
    assert np.abs(layer.weight.numpy()).max() <= 1 / np.sqrt(3)
    x1, x2 = RNG.normal(size=(4, 3)).astype(np.float32), RNG.normal(size=(4, 2)).astype(np.float32)
    y = layer(put(x1), put(x2))
    assert_allclose(y.detach().numpy(), np.einsum("ni,ijk,nj->nk", x1, layer.weight.numpy(), x2) + layer.bias.numpy(), rtol=1e-5, atol=1e-6)
    assert nn.Bilinear(3, 2, 5, bias=False).bias is None
    assert repr(layer) == "Bilinear(3, 2, 5)  # 35 parameters"
    message = r"Bilinear: got input of shape \(4, 3\) and \(5, 2\), expected \(..., 3\) and \(..., 2\) with the same leading axes"
    with pytest.raises(nn.ShapeError, match=message):
        layer(put(x1), put(np.ones((5, 2), np.float32)))
    with pytest.raises(ValueError, match=r"bilinear: got x1 of shape \(4, 3\), x2 \(4, 3\), weight \(3, 2, 5\)"):
        F.bilinear(x1, x1, layer.weight)


def test_bilinear_and_linear_from_pytorch():
    torch = pytest.importorskip("torch")
    other = torch.nn.Bilinear(3, 2, 5)
    layer = nn.Bilinear(3, 2, 5)
    layer.load_state_dict({path: t.numpy() for path, t in other.state_dict().items()}, from_torch=True)
    x1, x2 = RNG.normal(size=(4, 3)).astype(np.float32), RNG.normal(size=(4, 2)).astype(np.float32)
    assert_allclose(layer(x1, x2).detach().numpy(), other(torch.tensor(x1), torch.tensor(x2)).detach().numpy(), rtol=1e-4, atol=1e-5)


# ------------------------------------------------------------------------------------------------- embedding

INDICES = np.array([[0, 2, 2], [4, 0, 2]])


def test_embedding_takes_rows_and_adds_up_their_gradients(device, put):
    layer = nn.Embedding(5, 3, device=device)
    y = layer(put(INDICES))
    assert_array_equal(y.detach().numpy(), layer.weight.numpy()[INDICES])
    g = RNG.normal(size=(2, 3, 3)).astype(np.float32)
    y.backward(gg.tensor(put(g)))
    expected = np.zeros((5, 3))
    np.add.at(expected, INDICES, g)
    assert_allclose(layer.weight.grad.numpy(), expected, rtol=1e-5, atol=1e-6)
    assert layer(put(np.array(3))).shape == (3,)
    assert layer(put(np.zeros((0, 2), int))).shape == (0, 2, 3)


def test_embedding_gradients_have_the_same_bits_each_time(device, put):
    weight, indices = put(RNG.normal(size=(7, 5)).astype(np.float32)), put(RNG.integers(0, 7, 500))
    w = put(RNG.normal(size=(500, 5)).astype(np.float32))
    run = lambda: gg.tensor(gg.grad(lambda v: gg.sum(F.embedding(indices, v) * w))(weight)).numpy().tobytes()
    assert run() == run()


@pytest.mark.parametrize("padding_idx", [2, -3])
def test_the_padding_row_starts_as_zeros_and_gets_no_derivative(padding_idx):
    """In either mode; a row that was given other values keeps them."""
    layer = nn.Embedding(5, 3, padding_idx)
    assert layer.padding_idx == 2
    assert_array_equal(layer.weight.numpy()[2], 0)
    assert layer.weight.numpy()[[0, 1, 3, 4]].all()
    gg.sum(layer(INDICES) ** 2 + layer(INDICES)).backward()
    assert_array_equal(layer.weight.grad.numpy()[2], 0)
    assert layer.weight.grad.numpy()[[0, 4]].all()
    w, t = RNG.normal(size=(5, 3)), RNG.normal(size=(5, 3))
    masked = t * (np.arange(5) != 2)[:, None]
    y, y_dot = gg.jvp(lambda w: F.embedding(INDICES, w, padding_idx), w, t)
    assert_array_equal(y, w[INDICES])
    assert_array_equal(y_dot, masked[INDICES])
    f = lambda w: gg.sum(F.embedding(INDICES, w, padding_idx) ** 3)
    counts = np.array([2, 0, 0, 0, 1])[:, None]
    assert_allclose(gg.grad(f)(w), 3 * w**2 * counts, rtol=1e-13)
    for mode in ("forward-over-reverse", "reverse-over-reverse"):
        assert_allclose(gg.hvp(f, w, t, mode=mode), 6 * w * counts * t, rtol=1e-13)
    assert repr(layer) == "Embedding(5, 3, padding_idx=2)  # 15 parameters"


def test_embedding_derivatives():
    check(lambda w: F.embedding(INDICES, w), RNG.normal(size=(5, 3)))


def test_indices_that_are_none():
    layer = nn.Embedding(5, 3)
    for indices, message in [
        (np.array([[0, 1], [7, -1]]), r"got index 7 at position \(1, 0\), expected 0 to 4"),
        (np.array([0, -1]), "got index -1 at position 1, expected 0 to 4"),
        (np.array(5), r"got index 5 at position \(\), expected 0 to 4"),
        (np.array([0.0, 1.0]), "got indices of dtype float64, expected integers"),
        (np.array([True, False, True, True, False]), "got indices of dtype bool, expected integers"),
    ]:
        with pytest.raises(IndexError, match=message) as info:
            nn.Sequential(layer)(indices)
        assert info.value.__notes__ == ["in Sequential.0 (Embedding)"]
    with pytest.raises(ValueError, match="got padding_idx=5, expected -5 to 4"):
        nn.Embedding(5, 3, 5)
    assert layer([1, 2]).shape == (2, 3)


def test_embedding_against_pytorch():
    torch = pytest.importorskip("torch")
    other = torch.nn.Embedding(5, 3, padding_idx=0)
    layer = nn.Embedding(5, 3, padding_idx=0)
    layer.load_state_dict({"weight": other.weight.detach().numpy()}, from_torch=True)
    g = RNG.normal(size=(2, 3, 3)).astype(np.float32)
    layer(INDICES).backward(gg.tensor(g))
    other(torch.tensor(INDICES)).backward(torch.tensor(g))
    assert_allclose(layer.weight.grad.numpy(), other.weight.grad.numpy(), rtol=1e-6)
