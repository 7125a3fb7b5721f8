"""The operations of normalisation: against their definitions written out, in both modes to second order, and in 16 bits."""

import numpy as np
import pytest
from derivatives import check
from numpy.testing import assert_allclose, assert_array_equal

import gpugrad as gg
from gpugrad import nn
from gpugrad.nn import functional as F  # noqa: N812
from gpugrad.ops.normalise import slope, standardize
from gpugrad.testing import check_grads

RNG = np.random.default_rng(0)


def by_hand(x, axes, eps, centred=True):
    """The definition, in operations of which each has a rule of its own."""
    m = gg.mean(x, axis=axes, keepdims=True) if centred else 0.0
    v = gg.mean((x - m) ** 2, axis=axes, keepdims=True)
    return (x - m) / gg.sqrt(v + eps), v, m


CASES = [((5, 3), (0,), True), ((4, 3, 2), (0, 2), True), ((3, 4), (1,), True), ((2, 3, 4), (1, 2), True), ((3, 5), (1,), False), ((2, 2, 3), (2,), False)]
every_case = pytest.mark.parametrize(("shape", "axes", "centred"), CASES)


@every_case
def test_values_and_derivatives_are_those_of_the_definition(shape, axes, centred):
    """All outputs at once: the normalised array, the variance and the mean, each with a cotangent of its own, to second order and in every nesting."""
    x = RNG.normal(1.5, 2, shape)
    fused = lambda x: standardize(x, axes=axes, eps=0.1, centred=centred)
    plain = lambda x: by_hand(x, axes, 0.1, centred)[: 3 if centred else 2]
    for a, b in zip(fused(x), plain(x), strict=True):
        assert_allclose(a, b, rtol=1e-13)
    check(fused, x)
    ws = [RNG.normal(size=np.shape(y)) for y in plain(x)]
    t = RNG.normal(size=shape)
    scalar = lambda f: lambda x: sum(gg.sum(w * gg.sin(y)) for w, y in zip(ws, f(x), strict=True))
    assert_allclose(gg.grad(scalar(fused))(x), gg.grad(scalar(plain))(x), rtol=1e-11, atol=1e-13)
    for mode in ("forward-over-reverse", "reverse-over-reverse"):
        assert_allclose(gg.hvp(scalar(fused), x, t, mode=mode), gg.hvp(scalar(plain), x, t, mode=mode), rtol=1e-10, atol=1e-12)


@every_case
def test_the_jacobian_is_symmetric_and_kills_shifts_and_scales(shape, axes, centred):
    """Adding a constant to a group (and, for eps = 0, multiplying it) does not change h."""
    x = RNG.normal(size=shape)
    h = lambda x: standardize(x, axes=axes, eps=0.0, centred=centred)[0]
    jacobian = gg.jacobian(h)(x).reshape(x.size, x.size)
    assert_allclose(jacobian, jacobian.T, rtol=1e-12, atol=1e-13)
    assert_allclose(jacobian @ x.ravel(), 0, atol=1e-12)
    if centred:
        assert_allclose(jacobian @ np.ones(x.size), 0, atol=1e-12)


def test_layer_norm_is_its_formula():
    x, w, b = RNG.normal(3, 2, (4, 5, 6)), RNG.normal(size=(5, 6)), RNG.normal(size=(5, 6))
    flat = x.reshape(4, 30)
    h = ((flat - flat.mean(1, keepdims=True)) / np.sqrt(flat.var(1, keepdims=True) + 1e-5)).reshape(x.shape)
    assert_allclose(F.layer_norm(x, (5, 6), w, b), h * w + b, rtol=1e-12)
    assert_allclose(F.layer_norm(x, [5, 6]), h, rtol=1e-12)
    check(lambda x, w, b: F.layer_norm(x, (5, 6), w, b, 0.1), x, w, b)


def test_rms_norm_is_its_formula():
    x, w = RNG.normal(3, 2, (4, 6)), RNG.normal(size=6)
    eps = np.finfo(np.float64).eps
    assert_allclose(F.rms_norm(x, 6, w), x / np.sqrt((x**2).mean(1, keepdims=True) + eps) * w, rtol=1e-13)
    assert_allclose(F.rms_norm(x, 6, eps=2.0), x / np.sqrt((x**2).mean(1, keepdims=True) + 2), rtol=1e-13)
    check(lambda x, w: F.rms_norm(x, 6, w, 0.1), x, w)


@pytest.mark.parametrize("shape", [(6, 3), (4, 3, 2), (2, 3, 2, 2)])
@pytest.mark.parametrize("training", [True, False])
def test_batch_norm_is_its_formula(shape, training):
    x, w, b = RNG.normal(3, 2, shape), RNG.normal(size=3), RNG.normal(size=3)
    mean, var = RNG.normal(size=3), RNG.uniform(1, 2, 3)
    axes, column = (0, *range(2, len(shape))), (3, *[1] * (len(shape) - 2))
    m, v = (x.mean(axes), x.var(axes)) if training else (mean, var)
    expected = (x - m.reshape(column)) / np.sqrt(v.reshape(column) + 1e-5) * w.reshape(column) + b.reshape(column)
    running = mean.copy(), var.copy()
    assert_allclose(F.batch_norm(x, *running, w, b, training, 0.3), expected, rtol=1e-12)
    count = x.size / 3
    assert_allclose(running[0], 0.7 * mean + 0.3 * m if training else mean, rtol=1e-13)
    assert_allclose(running[1], 0.7 * var + 0.3 * v * count / (count - 1) if training else var, rtol=1e-13)
    check(lambda x, w, b: F.batch_norm(x, mean.copy(), var.copy(), w, b, training, 0.1, 0.1), x, w, b)


def test_the_running_values_may_be_differentiated_in_evaluation():
    x, mean, var = RNG.normal(size=(4, 3)), RNG.normal(size=3), RNG.uniform(1, 2, 3)
    check(lambda x, m, v: F.batch_norm(x, m, v, eps=0.1), x, mean, var)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("size", [7, 3000])
def test_16_bits_are_computed_in_float32(dtype, size):
    """A sum of squares of 300 overflows float16 after two of them."""
    dtype = np.dtype(dtype) if dtype == "float16" else pytest.importorskip("ml_dtypes").bfloat16
    x = RNG.normal(100, 300, (4, size)).astype(dtype)
    h, v, m = standardize(x, axes=(1,), eps=1e-5, centred=True)
    assert h.dtype == dtype
    assert v.dtype == m.dtype == np.float32
    wide = x.astype(np.float64)
    eps = float(np.asarray(2.0**-10 if dtype == np.float16 else 2.0**-7))
    assert_allclose(v.ravel(), wide.var(1), rtol=1e-5)
    assert_allclose(h.astype(float), (wide - wide.mean(1, keepdims=True)) / wide.std(1, keepdims=True), rtol=eps, atol=eps)
    g = gg.grad(lambda x: gg.sum(gg.sin(gg.astype(F.layer_norm(x, size), np.float32))))(x)
    expected = gg.grad(lambda x: gg.sum(gg.sin(F.layer_norm(x, size))))(wide)
    assert g.dtype == dtype
    assert_allclose(g.astype(float), expected, rtol=4 * eps, atol=4 * eps * np.abs(expected).max())


def test_float32_stays_float32_and_devices_agree(put):
    x = put(RNG.normal(size=(40, 70)).astype(np.float32))
    for axes in ((0,), (1,)):
        y, back = gg.vjp(lambda x, axes=axes: standardize(x, axes=axes, eps=1e-5, centred=True)[0], x)
        (g,) = back(y * y)
        assert y.dtype == g.dtype == np.float32
        host = np.asarray(x.get() if hasattr(x, "get") else x, np.float64)
        expected, expected_back = gg.vjp(lambda x, axes=axes: by_hand(x, axes, 1e-5)[0], host)
        for got, want in ((y, expected), (g, expected_back(expected * expected)[0])):
            assert_allclose(got.get() if hasattr(got, "get") else got, want, rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("error")
def test_empty_batches_and_constant_rows():
    assert F.layer_norm(np.ones((0, 4)), 4).shape == (0, 4)
    assert F.layer_norm(np.ones((3, 0)), 0).shape == (3, 0)
    assert F.rms_norm(np.ones((0, 4)), 4).shape == (0, 4)
    assert gg.grad(lambda x: gg.sum(F.layer_norm(x, 4)))(np.ones((0, 4))).shape == (0, 4)
    assert_array_equal(F.layer_norm(np.full((2, 4), 1e4 + 0.1), 4), 0)
    assert_array_equal(F.rms_norm(np.zeros((2, 4)), 4), 0)
    assert np.isfinite(gg.grad(lambda x: gg.sum(F.layer_norm(x, 4) ** 2))(np.full((2, 4), 0.1))).all()
    assert np.isnan(F.layer_norm(np.ones((1, 4)), 4, eps=0.0)).all()


def test_the_slope_in_16_bits_beside_float32():
    """In a second derivative the two meet."""
    d, h, r = RNG.normal(size=(3, 4)), RNG.normal(size=(3, 4)), np.full((3, 1), 0.5)
    y = slope(d.astype(np.float32), h.astype(np.float16), r.astype(np.float32), axes=(1,), centred=True)
    assert y.dtype == np.float32
    assert_allclose(y, slope(d, h, r, axes=(1,), centred=True), rtol=1e-2, atol=1e-3)


def test_errors():
    with pytest.raises(ValueError, match=r"layer_norm: got input of shape \(2, 3\), expected \(..., 4\)"):
        F.layer_norm(np.ones((2, 3)), 4)
    with pytest.raises(ValueError, match=r"rms_norm: got input of shape \(4,\), expected \(..., 3, 4\)"):
        F.rms_norm(np.ones(4), (3, 4))
    with pytest.raises(ValueError, match=r"layer_norm: got bias of shape \(1,\), expected \(4,\)"):
        F.layer_norm(np.ones((2, 4)), 4, bias=np.ones(1))
    with pytest.raises(ValueError, match=r"more than 1 value per channel when training, got input of shape \(1, 3\)"):
        F.batch_norm(np.ones((1, 3)), training=True)
    with pytest.raises(ValueError, match="expected running_mean and running_var in evaluation, got None"):
        F.batch_norm(np.ones((2, 3)))
    with pytest.raises(ValueError, match=r"got input of shape \(2, 3\) and weight of shape \(1,\), expected as many channels"):
        F.batch_norm(np.ones((2, 3)), weight=np.ones(1), training=True)
    with pytest.raises(ValueError, match=r"got input of shape \(3,\), expected \(N, C\)"):
        F.batch_norm(np.ones(3), training=True)
    for dtype in (np.int64, np.complex128):
        with pytest.raises(TypeError, match="expected real floats"):
            F.layer_norm(np.ones((2, 3), dtype), 3)


def test_the_tape_keeps_h_and_not_x():
    x = gg.tensor(RNG.normal(size=(4, 3)), requires_grad=True)
    h = standardize(x, axes=(0,), eps=0.1, centred=True)[0]
    (call,) = h.node.parents
    assert call.vals == [None]
    assert call.y[0] is h.value


def test_third_derivatives():
    x = RNG.normal(size=(3, 2))
    check_grads(lambda x: gg.sin(standardize(x, axes=(0,), eps=0.1, centred=True)[0]), (x,), order=3)


def test_normalised_layers_in_a_net():
    """Batch norm has no derivative by the bias before it."""
    net = nn.MLP([3, 4, 2], norm="batch", dtype=np.float64)
    gg.sum(gg.sin(net(RNG.normal(size=(5, 3))))).backward()
    assert_allclose(net[0].bias.grad.numpy(), 0, atol=1e-14)
    assert np.abs(net[0].weight.grad.numpy()).min() > 1e-12
