"""Softmax cross entropy: values, confident predictions, every option in every nesting of the modes, dtypes, devices, and errors."""

import math
from decimal import Decimal, localcontext

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import gpugrad as gg
from gpugrad import kernels, nn
from gpugrad.nn import functional as F  # noqa: N812
from gpugrad.ops import cross_entropy as _cross_entropy
from gpugrad.testing import check_grads

RNG = np.random.default_rng(0)
X, LABELS = RNG.normal(size=(4, 5)) * 2, np.array([0, 4, 2, 2])
WEIGHTS = np.array([0.3, -1.0, 2.0, 0.5])


def by_log_softmax(x, reduction):
    loss = -gg.take_along_axis(gg.log_softmax(x), LABELS[:, None], 1)[:, 0]
    return {"mean": gg.mean, "sum": gg.sum, "none": lambda v: v}[reduction](loss)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_cross_entropy_agrees_with_its_formula_in_every_nesting_to_the_third_order(reduction):
    t = RNG.normal(size=X.shape)
    total = lambda y: gg.sum(gg.sin(y) * (WEIGHTS if reduction == "none" else 1.0))
    fused = lambda x: total(F.cross_entropy(x, LABELS, reduction))
    plain = lambda x: total(by_log_softmax(x, reduction))
    forward = lambda f: lambda x: gg.jvp(f, (x,), (t,))[1]
    reverse = lambda f: lambda x: gg.sum(gg.grad(f)(x) * t)
    nestings = [(a, b, c) for a in (forward, reverse) for b in (forward, reverse) for c in (forward, reverse)]
    assert_allclose(fused(X), plain(X), rtol=1e-12)
    for a, b, c in nestings:
        assert_allclose(a(fused)(X), a(plain)(X), rtol=1e-12, atol=1e-14)
        assert_allclose(a(b(fused))(X), a(b(plain))(X), rtol=1e-11, atol=1e-13)
        assert_allclose(a(b(c(fused)))(X), a(b(c(plain)))(X), rtol=1e-9, atol=1e-12)


def test_the_gradient_of_the_summed_loss_is_softmax_minus_one_hot():
    assert_allclose(gg.grad(lambda x: F.cross_entropy(x, LABELS, "sum"))(X), gg.softmax(X) - np.eye(5)[LABELS], rtol=1e-12)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_cross_entropy_of_huge_logits(dtype):
    x = np.array([[1e4, 0, -1e4], [1e4, 0, -1e4], [-1e4, -1e4, -1e4]], dtype)
    labels = np.array([0, 2, 1])
    assert_allclose(F.cross_entropy(x, labels, "none"), np.array([0, 2e4, math.log(3)], dtype), rtol=1e-6)
    g = gg.grad(lambda x: F.cross_entropy(x, labels, "sum"))(x)
    assert_allclose(g, np.array([[0, 0, 0], [1, 0, -1], [1 / 3, -2 / 3, 1 / 3]]), atol=1e-7)
    assert g.dtype == dtype


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("v", [-700.0, -50.0, -3.0, 3.0, 50.0, 700.0])
def test_confident_predictions_keep_relative_accuracy_to_the_second_derivative(v):
    with localcontext(prec=700):
        s, other = (1 / (1 + (-Decimal(u)).exp()) for u in (v, -v))
        expected = [(1 + (-Decimal(v)).exp()).ln(), -other, s * other]
        two_classes = lambda x: F.cross_entropy(gg.stack([x, 0 * x]), np.array(0))
        binary = lambda x: F.bce_with_logits(x, np.array(1.0))
        flipped = lambda x: F.bce_with_logits(-x, np.array(0.0))
        x = np.array(v)
        for f in (two_classes, binary, flipped):
            for got, exact in zip([f(x), gg.grad(f)(x), gg.grad(gg.grad(f))(x)], expected, strict=True):
                assert abs(float((Decimal(float(got)) - exact) / exact)) < 1e-14


def test_probabilities_as_targets_and_label_smoothing():
    q = gg.softmax(RNG.normal(size=X.shape))
    assert_allclose(F.cross_entropy(X, q), -(q * gg.log_softmax(X)).sum(1).mean())
    assert_allclose(F.cross_entropy(X, np.eye(5)[LABELS]), F.cross_entropy(X, LABELS))
    assert_allclose(gg.grad(lambda q: F.cross_entropy(X, q))(q), -gg.log_softmax(X) / 4)
    smooth = 0.8 * np.eye(5)[LABELS] + 0.2 / 5
    assert_allclose(F.cross_entropy(X, LABELS, label_smoothing=0.2), F.cross_entropy(X, smooth))
    assert_allclose(F.cross_entropy(X, np.eye(5)[LABELS], label_smoothing=0.2), F.cross_entropy(X, smooth))
    with pytest.raises(ValueError, match="label_smoothing must lie between 0 and 1, got 2"):
        F.cross_entropy(X, LABELS, label_smoothing=2)


def test_shapes_of_logits():
    one = F.cross_entropy(X[0], LABELS[0])
    assert_allclose(one, F.cross_entropy(X[:1], LABELS[:1]))
    images = RNG.normal(size=(2, 5, 3, 4))
    labels = RNG.integers(0, 5, (2, 3, 4))
    losses = F.cross_entropy(images, labels, "none")
    assert losses.shape == (2, 3, 4)
    assert_allclose(losses[1, 2, 3], F.cross_entropy(images[1, :, 2, 3], labels[1, 2, 3]))
    assert_allclose(F.cross_entropy(images, labels), losses.mean())
    assert F.cross_entropy(np.zeros((0, 5)), np.zeros(0, int), "sum") == 0
    assert np.isnan(F.cross_entropy(np.zeros((0, 5)), np.zeros(0, int)))
    assert_allclose(F.cross_entropy(np.asfortranarray(X)[:, ::-1], LABELS), F.cross_entropy(X[:, ::-1].copy(), LABELS))
    assert F.cross_entropy(X.astype(np.float16), LABELS).dtype == np.float16


def test_errors_say_what_was_got_and_expected():
    with pytest.raises(IndexError, match="label 5 is out of bounds, expected 0 to 4 for 5 classes"):
        F.cross_entropy(X, np.array([0, 1, 5, 2]))
    with pytest.raises(IndexError, match="label -1 is out of bounds"):
        F.cross_entropy(X, np.array([0, -1, 3, 2]))
    with pytest.raises(ValueError, match=r"logits of shape \(4, 5\) and integer labels of shape \(3,\), expected labels of shape \(4,\)"):
        F.cross_entropy(X, LABELS[:3])
    with pytest.raises(ValueError, match="expected the same shape"):
        F.cross_entropy(X, X[:, :2])
    with pytest.raises(TypeError, match="labels must be integers"):
        F.cross_entropy(X, LABELS > 1)
    with pytest.raises(ValueError, match="reduction must be 'mean', 'sum' or 'none', got 'average'"):
        F.cross_entropy(X, LABELS, "average")
    with pytest.raises(ValueError, match=r"target of shape \(4,\), expected \(4, 1\)"):
        F.mse_loss(np.zeros((4, 1)), np.zeros(4))

    weights = np.ones(5)
    for weight, error, message in (
        (weights[:4], ValueError, r"got weight of shape \(4,\), expected \(5,\)"),
        (-weights, ValueError, "got weight -1.0, expected none below 0"),
        (weights * np.nan, ValueError, "got weight nan"),
        (weights.astype(int), TypeError, "got weight of int64, expected floats"),
        (gg.tensor(weights, requires_grad=True), TypeError, "weight is a constant, got one that requires grad"),
    ):
        with pytest.raises(error, match=message):
            F.cross_entropy(X, LABELS, weight=weight)
    with pytest.raises(ValueError, match="got probabilities and ignore_index=3"):
        F.cross_entropy(X, gg.softmax(X), ignore_index=3)
    with pytest.raises(ValueError, match=r"got logits of shape \(4, 0\), expected .* at least one class"):
        F.cross_entropy(np.zeros((4, 0)), LABELS)
    with pytest.raises(TypeError, match="got logits of complex128, expected real numbers"):
        F.cross_entropy(X + 0j, LABELS)


CLASS_WEIGHTS = np.array([0.5, 2.0, 1.0, 0.25, 3.0])
SOFT = np.array([[0.1, 0.2, 0.3, 0.4, 0.0], [0.0, 0.0, 0.0, 0.0, 1.0], [0.2] * 5, [0.5, 0.0, 0.5, 0.0, 0.0]])


def by_definition(x, target, reduction, smoothing, weight, ignore_index=-100):
    """The formulas of PyTorch's documentation, in plain operations."""
    w = np.ones(5) if weight is None else weight
    log_p = gg.log_softmax(x)
    if target.dtype.kind == "f":
        loss = -gg.sum(w * ((1 - smoothing) * target + smoothing / 5) * log_p, axis=1)
        return {"mean": gg.sum(loss) / 4, "sum": gg.sum(loss), "none": loss}[reduction]
    kept = np.flatnonzero(target != ignore_index)
    y = target[kept]
    loss = -(1 - smoothing) * w[y] * log_p[kept, y] - smoothing / 5 * gg.sum(w * log_p[kept], axis=1)
    total = gg.sum(loss)
    return {"mean": total / w[y].sum(), "sum": total, "none": gg.zeros_like(x[:, 0]).at[kept].set(loss) if reduction == "none" else None}[reduction]


OPTIONS = [(r, s, w) for r in ("mean", "sum", "none") for s in (0.0, 0.3) for w in (None, CLASS_WEIGHTS)]


@pytest.mark.parametrize("target", [LABELS, np.array([1, -7, 2, -7]), SOFT], ids=["labels", "ignored", "probabilities"])
@pytest.mark.parametrize(("reduction", "smoothing", "weight"), OPTIONS)
def test_all_options_to_the_second_derivative(reduction, smoothing, weight, target):
    ignore = {} if target is SOFT else {"ignore_index": -7}
    total = lambda y: gg.sum(gg.sin(y) * (WEIGHTS if reduction == "none" else 1.0))
    fused = lambda x, q: total(F.cross_entropy(x, q, reduction, smoothing, weight=weight, **ignore))
    plain = lambda x, q: total(by_definition(gg.asarray(x), q, reduction, smoothing, weight, **ignore))
    f, g, xs = (fused, plain, (X, SOFT)) if target is SOFT else (lambda x: fused(x, target), lambda x: plain(x, target), (X,))
    argnums = tuple(range(len(xs)))
    assert_allclose(f(*xs), float(g(*xs)), rtol=1e-12)
    for a, b in zip(gg.grad(f, argnums)(*xs), gg.grad(g, argnums)(*xs), strict=True):
        assert_allclose(a, b, rtol=1e-12, atol=1e-14)
    check_grads(f, xs, order=2)
    v = tuple(RNG.normal(size=x.shape) for x in xs)
    dense = gg.hessian(g, argnums)(*xs)
    for mode in ("forward-over-reverse", "reverse-over-reverse"):
        for row, product in zip(dense, gg.hvp(f, xs, v, mode=mode), strict=True):
            assert_allclose(product, sum(np.tensordot(block, u, 2) for block, u in zip(row, v, strict=True)), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("reduction", "smoothing", "weight"), OPTIONS)
def test_cross_entropy_is_pytorchs(reduction, smoothing, weight):
    torch = pytest.importorskip("torch")
    for target, ignore in ((LABELS, {}), (np.array([1, -7, 2, -7]), {"ignore_index": -7}), (SOFT, {})):
        x, t = gg.tensor(X, requires_grad=True), torch.tensor(X, requires_grad=True)
        w = None if weight is None else torch.tensor(weight)
        loss = F.cross_entropy(x, target, reduction, smoothing, weight=weight, **ignore)
        theirs = torch.nn.functional.cross_entropy(t, torch.tensor(target), w, reduction=reduction, label_smoothing=smoothing, **ignore)
        assert_allclose(loss.numpy(), theirs.detach().numpy(), rtol=1e-12)
        gg.sum(loss).backward()
        theirs.sum().backward()
        assert_allclose(x.grad.numpy(), t.grad.numpy(), rtol=1e-11, atol=1e-15)


def test_the_weighted_mean_of_two_rows():
    """By hand: losses log 2 and log 4 of weights 1 and 3."""
    x, labels, weight = np.log(np.array([[1.0, 1.0], [3.0, 1.0]])), np.array([0, 1]), np.array([1.0, 3.0])
    assert_allclose(F.cross_entropy(x, labels, weight=weight), (math.log(2) + 3 * math.log(4)) / 4)
    assert_allclose(gg.grad(lambda x: F.cross_entropy(x, labels, weight=weight))(x), np.array([[-0.5, 0.5], [3 * 0.75, -3 * 0.75]]) / 4)


def test_masked_classes_and_ignored_rows():
    x = X.copy()
    x[0, 1], x[1] = -np.inf, np.nan
    labels = np.array([0, -1, 2, 2])
    loss = lambda x: F.cross_entropy(x, labels, ignore_index=-1)
    expected = lambda x: (F.cross_entropy(x[0][[0, 2, 3, 4]], np.array(0)) + F.cross_entropy(x[2:], LABELS[2:], "sum")) / 3
    assert_allclose(loss(x), expected(x))
    g = gg.grad(loss)(x)
    assert_allclose(g, np.where(np.isnan(x), 0, gg.grad(expected)(x)), rtol=1e-12)
    v = RNG.normal(size=x.shape)
    for mode in ("forward-over-reverse", "reverse-over-reverse"):
        product = gg.hvp(loss, x, v, mode=mode)
        assert_array_equal(product[1], 0)
        assert_allclose(product[[0, 2, 3]], gg.hvp(expected, x, v, mode=mode)[[0, 2, 3]], rtol=1e-10, atol=1e-12)
    nothing = gg.tensor(X, requires_grad=True)
    y = F.cross_entropy(nothing, LABELS * 0 - 100)
    y.backward()
    assert np.isnan(y.item())
    assert_array_equal(nothing.grad.numpy(), 0)


def test_the_residual_is_computed_once_and_only_where_it_is_wanted(monkeypatch):
    calls = []
    kernel = _cross_entropy.kernels.cross_entropy
    monkeypatch.setattr(
        _cross_entropy.kernels, "cross_entropy", lambda *args, **params: calls.append(params.get("with_residual", True)) or kernel(*args, **params)
    )
    t = gg.tensor(X, requires_grad=True)
    F.cross_entropy(t, LABELS).backward()
    assert calls == [True]
    F.cross_entropy(X, LABELS)
    F.cross_entropy(X, gg.tensor(SOFT, requires_grad=True)).backward()
    with gg.no_grad():
        F.cross_entropy(t * 1, LABELS)
    assert calls == [True, False, False, False]
    gg.jvp(lambda x: F.cross_entropy(x, LABELS), (X,), (X,))
    assert calls[4:] == [True]  # the loss and what its tangent is made of, at once


def test_the_residual_is_not_given_away():
    """What backward hands out may be written into, and the graph gives the same again."""
    t = gg.tensor(X, requires_grad=True)
    h = t * 1.0
    loss = F.cross_entropy(h, LABELS)
    (first,) = gg.autograd.grad(loss, h, retain_graph=True)
    kept = first.numpy().copy()
    first.data[...] = 7
    loss.backward(retain_graph=True)
    t.grad.data[...] += 1
    (again,) = gg.autograd.grad(loss, t)
    assert_array_equal(again.numpy(), kept)


@pytest.mark.parametrize("target", ["labels", "ignored", "probabilities"])
def test_a_scaled_loss_of_float16_does_not_underflow(target):
    """A mean over many rows divides by their number, which a factor of the loss has to be able to make up for."""
    x = RNG.normal(size=(2048, 300)).astype(np.float16)
    labels = RNG.integers(0, 300, 2048)
    t = np.exp(RNG.normal(size=x.shape)).astype(np.float16)
    given, options = {"labels": (labels, {}), "ignored": (labels, {"ignore_index": 7, "weight": np.linspace(0.5, 1.5, 300)}), "probabilities": (t, {})}[target]
    expected, g = gg.value_and_grad(lambda x: F.cross_entropy(x, given, **options))(x.astype(np.float64))
    tracked = gg.tensor(x, requires_grad=True)
    loss = F.cross_entropy(tracked, given, **options)
    loss.backward(np.float16(32768))
    assert loss.dtype == np.float16
    assert_allclose(loss.item(), expected, rtol=1e-3)
    assert_allclose(tracked.grad.numpy().astype(np.float64) / 32768, g, rtol=3e-3, atol=1e-5 * np.abs(g).max())
    assert np.isnan(F.cross_entropy(x, np.full(2048, 7), ignore_index=7))


def test_other_processors_order_of_bytes():
    big = X.astype(">f8")
    for more in ({}, {"weight": CLASS_WEIGHTS.astype(">f8")}):
        for twin in ("reference", "cpu", "cuda"):
            with kernels.use(twin):
                assert_allclose(F.cross_entropy(big, LABELS.astype(">i4"), **more), F.cross_entropy(X, LABELS, **more))
                assert_allclose(gg.grad(F.cross_entropy)(big, LABELS), gg.grad(F.cross_entropy)(X, LABELS))


def test_dtypes_of_cross_entropy():
    x = X.astype(np.float32)
    assert F.cross_entropy(x, LABELS, weight=CLASS_WEIGHTS).dtype == np.float32
    assert F.cross_entropy(x, SOFT).dtype == np.float64
    assert F.cross_entropy(x, SOFT.astype(np.float32), label_smoothing=0.1).dtype == np.float32
    gx, gq = gg.grad(lambda x, q: F.cross_entropy(x, q), (0, 1))(x, SOFT)
    assert (gx.dtype, gq.dtype) == (np.float32, np.float64)
    expected = F.cross_entropy(X, LABELS)
    for dtype in (np.int32, np.uint8, np.int8, np.uint64):
        assert F.cross_entropy(X, LABELS.astype(dtype)) == expected
    assert_allclose(F.cross_entropy(X.tolist(), LABELS.tolist()), expected)
    assert_allclose(F.cross_entropy(X.tolist(), SOFT.tolist(), weight=CLASS_WEIGHTS.tolist()), F.cross_entropy(X, SOFT, weight=CLASS_WEIGHTS))


def test_cross_entropy_loss_holds_its_weight():
    loss = nn.CrossEntropyLoss("sum", 0.1, weight=CLASS_WEIGHTS, ignore_index=2)
    assert list(loss.state_dict()) == ["weight"] and not list(loss.parameters())
    assert_array_equal(loss(X, LABELS), F.cross_entropy(X, LABELS, "sum", 0.1, weight=CLASS_WEIGHTS, ignore_index=2))
    assert not nn.CrossEntropyLoss().state_dict()


def test_losses_on_every_device(device):
    labels = gg.tensor(LABELS, device=device)
    t = gg.tensor(X, device=device, requires_grad=True)
    loss = F.cross_entropy(t, labels) + F.bce_with_logits(t, gg.tensor(gg.sigmoid(X), device=device)) + F.mse_loss(t, gg.zeros_like(t))
    loss.backward()
    f = lambda x: F.cross_entropy(x, LABELS) + F.bce_with_logits(x, gg.sigmoid(X)) + gg.mean(x * x)
    assert_allclose(loss.numpy(), f(X), rtol=1e-12)
    assert_allclose(t.grad.numpy(), gg.grad(f)(X), rtol=1e-12)
    if device != "cpu":
        with pytest.raises(gg.DeviceError):
            F.cross_entropy(t, LABELS)
