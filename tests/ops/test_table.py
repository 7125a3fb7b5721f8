"""Embeddings, one-hot vectors: against formulas and PyTorch, with a row that is left out, in both modes."""

import numpy as np
import pytest
from derivatives import check
from numpy.testing import assert_allclose, assert_array_equal

import gpugrad as gg

F = gg.nn.functional
RNG = np.random.default_rng(2)


@pytest.mark.parametrize("shape", [(), (1,), (0,), (3, 0), (2, 3), (400, 5)])
@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.uint8, np.uint64])
def test_values_and_gradients(shape, dtype, device):
    weight, indices = RNG.normal(size=(7, 4)), RNG.integers(0, 7, shape).astype(dtype)
    w = gg.tensor(weight, device=device).requires_grad_()
    y = F.embedding(gg.tensor(indices, device=device), w, padding_idx=-2)
    assert_array_equal(y.numpy(), weight[indices])
    g = RNG.normal(size=y.shape)
    y.backward(gg.tensor(g, device=device))
    expected = np.zeros((7, 4))
    np.add.at(expected, indices, g)
    expected[5] = 0
    assert_allclose(w.grad.numpy(), expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("padding", [None, 0, 2, -1])
def test_derivatives(padding):
    """The row that is left out counts in the value and in no derivative, so differences are taken without it."""
    indices, weight = np.array([[2, 0, 2], [1, 4, 0]]), RNG.normal(size=(5, 3))
    kept = np.ones((5, 1))
    if padding is not None:
        kept[padding] = 0
    check(lambda w: F.embedding(indices, w * kept, padding), weight)
    tangent = RNG.normal(size=weight.shape)
    assert_allclose(gg.jvp(lambda w: F.embedding(indices, w, padding), weight, tangent)[1], (tangent * kept)[indices])


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, complex])
def test_dtypes(dtype):
    weight, indices = RNG.normal(size=(7, 4)).astype(dtype), RNG.integers(0, 7, 3000)
    w = gg.tensor(weight, requires_grad=True)
    y = F.embedding(indices, w)
    assert y.dtype == dtype
    gg.sum(gg.real(y)).backward()
    assert w.grad.dtype == dtype
    assert_array_equal(w.grad.numpy(), np.repeat(np.bincount(indices, minlength=7), 4).reshape(7, 4))


def test_a_negative_index_does_not_count_from_the_end():
    for bad in (-1, 5, np.int8(-3)):
        with pytest.raises(IndexError, match=rf"embedding: got index {bad} at position \(0, 1\), expected 0 to 4"):
            F.embedding(np.array([[0, bad]]), np.ones((5, 1000)))
    with pytest.raises(IndexError, match="embedding: got index 9223372036854775807"):
        F.embedding(np.array([2**64 - 1], np.uint64), np.ones((5, 1000)))
    with pytest.raises(ValueError, match="got padding_idx=7, expected -5 to 4"):
        F.embedding(np.array([0]), np.ones((5, 3)), 7)


def test_one_hot(device):
    indices = gg.tensor(np.array([[0, 2], [1, 2]]), device=device)
    for classes, width in ((-1, 3), (3, 3), (5, 5)):
        y = F.one_hot(indices, classes)
        assert y.dtype == np.int64 and y.shape == (2, 2, width)
        assert_array_equal(y.numpy(), np.eye(width)[[[0, 2], [1, 2]]])
    assert F.one_hot(np.array(2, np.uint8), 4).tolist() == [0, 0, 1, 0]
    assert F.one_hot(np.zeros((0, 3), int), 4).shape == (0, 3, 4)
    assert not isinstance(F.one_hot(np.array([1])), gg.Tensor)


def test_one_hot_is_a_constant():
    x = gg.tensor(RNG.normal(size=(3, 4)), requires_grad=True)
    gg.sum(x * F.one_hot(np.array([0, 3, 3]), 4)).backward()
    assert_array_equal(x.grad.numpy(), np.eye(4)[[0, 3, 3]])


@pytest.mark.parametrize(
    "indices, classes, error, words",
    [
        ([0, 3], 3, IndexError, "one_hot: got index 3 at position 1, expected 0 to 2"),
        ([[0, -1]], 3, IndexError, r"one_hot: got index -1 at position \(0, 1\), expected 0 to 2"),
        ([0, -1], -1, IndexError, "got index -1 at position 1, expected 0 to 0"),
        ([0.0], 3, IndexError, "got indices of dtype float64, expected integers"),
        ([True], 3, IndexError, "bool"),
        ([1], -2, ValueError, "num_classes=-2"),
        (np.zeros(0, int), -1, ValueError, "where there are indices"),
        ([0], 0, IndexError, "there is nothing to pick from"),
    ],
)
def test_one_hot_refuses(indices, classes, error, words):
    with pytest.raises(error, match=words):
        F.one_hot(np.asarray(indices), classes)


def test_against_pytorch():
    torch = pytest.importorskip("torch")
    i = RNG.integers(0, 6, (3, 2))
    for classes in (-1, 6, 9):
        ours, theirs = F.one_hot(i, classes), torch.nn.functional.one_hot(torch.tensor(i), classes).numpy()
        assert_array_equal(ours, theirs)
        assert ours.dtype == theirs.dtype
