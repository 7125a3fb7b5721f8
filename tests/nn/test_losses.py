"""Losses against closed forms in longdouble at every size of argument, to the second derivative in both modes; options, dtypes, devices, modules, errors."""

import math

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import gpugrad as gg
from gpugrad import nn
from gpugrad.nn import functional as F  # noqa: N812
from gpugrad.testing import check_grads

RNG = np.random.default_rng(0)
DTYPES = [np.float16, np.float32, np.float64]
SIZES = np.array([1e-4, 0.01, 0.7, 1.0, 3.0, 9.0, 17.0, 80.0, 700.0, 1e4])
LOGITS = np.concatenate([-SIZES[::-1], [0.0], SIZES])
every_dtype = pytest.mark.parametrize("dtype", DTYPES)
every_reduction = pytest.mark.parametrize("reduction", ["mean", "sum", "none"])


def derivatives(f, x):
    """The value, the gradient of the sum, and its derivative along ones in every nesting of the modes."""
    total = lambda x: gg.sum(f(x))
    ones = np.ones_like(x)
    pushed = lambda x: gg.jvp(total, (x,), (ones,))[1]
    value = f(x)
    with np.errstate(over="ignore"):  # of the sum in float16, which nothing depends on
        seconds = [gg.hvp(total, x, ones, mode=mode) for mode in ("forward-over-reverse", "reverse-over-reverse")]
        return [value, gg.grad(total)(x), *seconds, gg.grad(pushed)(x)]


def assert_relative(got, exact, dtype, ulps=6, tiny=2):
    """Within some units in the last place of each element, or some of the smallest number that there is."""
    assert got.dtype == dtype
    limits = np.finfo(dtype)
    exact = np.asarray(exact, np.longdouble)
    with np.errstate(over="ignore"):
        overflows = np.isinf(exact.astype(dtype))
    error = np.abs(np.where(overflows, 0, got.astype(np.longdouble) - np.where(overflows, 0, exact)))
    allowed = ulps * limits.eps * np.abs(exact) + tiny * np.longdouble(limits.smallest_subnormal)
    assert (error <= allowed).all(), f"got {got}, expected {exact.astype(float)}"
    assert (np.isinf(got) == overflows).all()


def assert_exact(f, x, value, slope, curvature, dtype, **tolerance):
    x = x.astype(dtype)
    got = derivatives(f, x)
    wide = x.astype(np.longdouble)
    for g, exact in zip(got, (value, slope, curvature, curvature, curvature), strict=True):
        assert_relative(np.asarray(g), np.broadcast_to(exact(wide), x.shape), dtype, **tolerance)


def softplus(x):
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


def sigmoid(x):
    return np.where(x >= 0, 1 / (1 + np.exp(-np.abs(x))), np.exp(-np.abs(x)) / (1 + np.exp(-np.abs(x))))


# ---------------------------------------------------------------------------------- exact however large or small


@pytest.mark.filterwarnings("error")
@every_dtype
@pytest.mark.parametrize("y", [0.0, 0.25, 1.0])
@pytest.mark.parametrize("pos_weight", [None, 0.125, 8.0])
def test_bce_with_logits_is_exact(y, pos_weight, dtype):
    a, b = y * (1 if pos_weight is None else pos_weight), 1 - y
    f = lambda x: F.bce_with_logits(x, np.full(x.shape, y, dtype), "none", pos_weight=pos_weight)
    x = LOGITS[np.abs(LOGITS - math.log(a / b)) > 0.1] if a and b else LOGITS  # where the slope changes its sign it has no relative accuracy
    assert_exact(
        f,
        x,
        lambda x: a * softplus(-x) + b * softplus(x),
        lambda x: b * sigmoid(x) - a * sigmoid(-x),
        lambda x: (a + b) * sigmoid(x) * sigmoid(-x),
        dtype,
        tiny=2 * max(pos_weight or 1, 1),
    )


@pytest.mark.filterwarnings("error")
@every_dtype
@pytest.mark.parametrize("label", [0, 1, 2])
def test_cross_entropy_is_exact(label, dtype):
    """Three classes, of which the logit of one moves. The others' are 0 and 0.5."""
    others = np.array([0.0, 0.5])
    rest = np.log(np.exp(others.astype(np.longdouble)).sum())
    f = lambda x: F.cross_entropy(gg.stack([x, gg.zeros_like(x), gg.full_like(x, 0.5)], axis=1), np.full(x.shape, label), "none")
    target = 0 if label == 0 else others[label - 1]
    p, q = (lambda x: sigmoid(x - rest)), (lambda x: sigmoid(rest - x))
    value = (
        (lambda x: softplus(rest - x))
        if label == 0
        else (lambda x: np.where(x < rest, softplus(x - rest) + (rest - target), softplus(rest - x) + (x - target)))
    )
    assert_exact(f, LOGITS, value, (lambda x: -q(x)) if label == 0 else p, lambda x: p(x) * q(x), dtype)


@pytest.mark.filterwarnings("error")
@every_dtype
@pytest.mark.parametrize("y", [-1.0, 1.0])
def test_margins_are_exact(y, dtype):
    target = lambda x: np.full(x.shape, y, dtype)
    z = lambda x: -y * x
    assert_exact(
        lambda x: F.soft_margin_loss(x, target(x), "none"),
        LOGITS,
        lambda x: softplus(z(x)),
        lambda x: -y * sigmoid(z(x)),
        lambda x: sigmoid(x) * sigmoid(-x),
        dtype,
    )
    assert_exact(
        lambda x: F.hinge_loss(x, target(x), "none"),
        LOGITS,
        lambda x: np.maximum(0, 1 + z(x)),
        lambda x: np.where(1 + z(x) > 0, -y, 0),
        lambda x: 0,
        dtype,
    )


@pytest.mark.filterwarnings("error")
@every_dtype
@pytest.mark.parametrize("size", [1e-3, 0.5, 1.0, 6.0])
def test_huber_is_exact(size, dtype):
    zero = lambda x: np.zeros_like(x)
    inside = lambda x: np.abs(x) <= dtype(size)
    square = lambda x: np.where(inside(x), x * x / 2, size * (np.abs(x) - np.longdouble(dtype(size)) / 2))
    size = float(dtype(size))
    assert_exact(lambda x: F.huber_loss(x, zero(x), "none", size), LOGITS, square, lambda x: np.clip(x, -size, size), inside, dtype)
    assert_exact(
        lambda x: F.smooth_l1_loss(x, zero(x), "none", size),
        LOGITS,
        lambda x: square(x) / size,
        lambda x: np.clip(x / size, -1, 1),
        lambda x: inside(x) / np.longdouble(size),
        dtype,
    )


@every_dtype
def test_squares_and_absolute_values_are_exact(dtype):
    zero = lambda x: np.zeros_like(x)
    with np.errstate(over="ignore"):
        assert_exact(lambda x: F.mse_loss(x, zero(x), "none"), LOGITS, lambda x: x * x, lambda x: 2 * x, lambda x: 2, dtype)
    for f in (lambda x: F.l1_loss(x, zero(x), "none"), lambda x: F.smooth_l1_loss(x, zero(x), "none", 0)):
        assert_exact(f, LOGITS, np.abs, np.sign, lambda x: 0, dtype)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("y", [0.0, 0.25, 1.0])
def test_bce_of_probabilities_is_exact(y, dtype):
    """Also where the prediction is as good as right, and its second derivative (1 - y) / (1 - p)^2 + y / p^2 is not the difference of huge numbers."""
    p = np.array([1e-11, 1e-9, 1e-7, 1e-4, 0.1, 0.4, 0.6, 0.9, 1 - 2.0**-10, 1 - 2.0**-20])
    f = lambda p: F.bce_loss(p, np.full(p.shape, y, dtype), "none")
    assert_exact(
        f,
        p,
        lambda p: -(y * np.log(p) + (1 - y) * np.log1p(-p)),
        lambda p: (1 - y) / (1 - p) - y / p,
        lambda p: (1 - y) / (1 - p) ** 2 + y / p**2,
        dtype,
    )


@pytest.mark.filterwarnings("error")
@every_dtype
def test_kl_div_is_exact(dtype):
    """By x it is -t, by t it is log t - x + 1, and once more 1 / t."""
    t = np.array([1e-4, 1e-3, 0.1, 0.5, 1.0])
    for x in (-1e4, -30.0, -1.5):
        f = lambda t: F.kl_div(np.full(t.shape, x, dtype), t, "none")  # noqa: B023
        assert_exact(f, t, lambda t: t * (np.log(t) - x), lambda t: np.log(t) - x + 1, lambda t: 1 / t, dtype)  # noqa: B023
        g = lambda s: F.kl_div(np.full(s.shape, x, dtype), s, "none", log_target=True)  # noqa: B023
        e = lambda s: np.exp(s) * (s - x)  # noqa: B023
        s = np.array([-700.0, -9.0, -0.25, 0.0])
        assert_exact(g, s, e, lambda s: e(s) + np.exp(s), lambda s: e(s) + 2 * np.exp(s), dtype)  # noqa: B023
    h = lambda x: F.kl_div(x, np.full(x.shape, 0.25, dtype), "none")
    assert_exact(h, -SIZES, lambda x: 0.25 * (np.log(np.longdouble(0.25)) - x), lambda x: -0.25, lambda x: 0, dtype)


@pytest.mark.filterwarnings("error")
@every_dtype
@pytest.mark.parametrize("scale", [1e-7, 1e-3, 1.0, 2e4, 1e30, 1e200])
def test_cosine_similarity_neither_overflows_nor_underflows(scale, dtype):
    if not float(np.finfo(dtype).smallest_normal) < scale < float(np.finfo(dtype).max) / 3:
        pytest.skip("no such numbers")
    a, b = (RNG.uniform(0.5, 2, (3, 6)) * scale).astype(dtype), RNG.normal(size=(3, 6)).astype(dtype)
    eps = 2.0**-14 if dtype == np.float16 else 1e-8
    u, v = (np.maximum(np.sqrt((x.astype(np.longdouble) ** 2).sum(1, keepdims=True)), eps) for x in (a, b))
    cos = (a / u * b / v).sum(1)
    assert_relative(F.cosine_similarity(a, b), cos, dtype, 20)
    slope = b / v / u - (a / u**2 * cos[:, None] if scale > eps else 0)
    g = gg.grad(lambda a: gg.sum(F.cosine_similarity(a, b)))(a)
    assert_allclose(
        g.astype(np.longdouble), slope, rtol=100 * np.finfo(dtype).eps, atol=30 * np.finfo(dtype).eps * np.abs(slope).max() + np.finfo(dtype).smallest_subnormal
    )


# ---------------------------------------------------------------------------------- infinities, kinks, nan, nothing


@pytest.mark.filterwarnings("error")
@every_dtype
def test_infinite_logits(dtype):
    """On the right side the loss is 0 and so are its derivatives; on the wrong side the loss is inf and its slope that of its asymptote."""
    x, y = np.array([np.inf, -np.inf, np.inf, -np.inf], dtype), np.array([1, 0, 0, 1], dtype)
    sign = np.array([1, -1, -1, 1], dtype)
    for f in (
        lambda x: F.bce_with_logits(x, y, "none"),
        lambda x: F.bce_with_logits(x, y, "none", pos_weight=dtype(1)),
        lambda x: F.soft_margin_loss(x, 2 * y - 1, "none"),
        lambda x: F.hinge_loss(x, 2 * y - 1, "none"),
    ):
        value, slope, *curvatures = derivatives(f, x)
        assert_array_equal(value, [0, 0, np.inf, np.inf])
        assert_array_equal(slope, [0, 0, 1, -1])
        for c in curvatures:
            assert_array_equal(c, 0)
    for f in (F.l1_loss, F.huber_loss, F.smooth_l1_loss):
        value, slope, *curvatures = derivatives(lambda x: f(x, np.zeros_like(x), "none"), x)  # noqa: B023
        assert_array_equal(value, np.inf)
        assert_array_equal(slope, sign * [1, 1, -1, -1])
        for c in curvatures:
            assert_array_equal(c, 0)


@pytest.mark.filterwarnings("error")
def test_classes_that_are_taken_out():
    """A score of -inf: the class counts for nothing in the hinge, and 0 log 0 = 0 in divergences, with derivatives that are finite."""
    s, y = np.array([[1.0, -np.inf, 0.5], [-np.inf, 2.0, 2.5]]), np.array([0, 2])
    f = lambda s: F.multiclass_hinge_loss(s, y, "none")
    assert_array_equal(f(s), [0.5, 0.5])
    assert_array_equal(gg.grad(lambda s: gg.sum(f(s)))(s), [[-1, 0, 1], [0, 1, -1]])
    logits = np.array([[1.0, -np.inf, 0.5]])
    log_p = gg.log_softmax(logits)
    for target, log_target in ((np.array([[0.75, 0.0, 0.25]]), False), (np.log(np.array([[0.75, 1.0, 0.25]])) - [0, np.inf, 0], True)):
        expected = 0.75 * (math.log(0.75) - log_p[0, 0]) + 0.25 * (math.log(0.25) - log_p[0, 2])
        loss = lambda z, t: F.kl_div(gg.log_softmax(z), t, "batchmean", log_target)  # noqa: B023
        assert_allclose(loss(logits, target), expected)
        by_z, by_t = gg.grad(loss, (0, 1))(logits, target)
        assert_allclose(by_z, gg.softmax(logits) - [[0.75, 0, 0.25]], atol=1e-15)
        assert np.isfinite(by_t).all()
        assert np.isfinite(gg.hvp(lambda z: loss(z, target), logits, np.ones_like(logits))).all()  # noqa: B023
    assert F.kl_div(np.array([-1.0]), np.array([0.0])) == 0
    assert F.kl_div(np.array([-np.inf]), np.array([0.5])) == np.inf


def test_at_a_kink_the_derivative_is_zero():
    zero = np.zeros(1)
    for f in (F.l1_loss, F.mse_loss, F.huber_loss, F.smooth_l1_loss, lambda x, y: F.smooth_l1_loss(x, y, beta=0)):
        assert_array_equal(gg.grad(f)(zero, zero), 0)
        assert_array_equal(gg.grad(lambda y: f(zero, y))(zero), 0)  # noqa: B023
    one, label = np.ones(1), np.array([1])
    assert_array_equal(gg.grad(F.hinge_loss)(one, label), 0)
    on_the_margin = np.array([[1.0, 0.0, -3.0]])
    for f in (F.multiclass_hinge_loss, F.multi_margin_loss):
        assert_array_equal(gg.grad(f)(on_the_margin, np.array([0])), 0)
    right_angle = (np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]]), np.array([-1]))
    assert_array_equal(gg.grad(F.cosine_embedding_loss)(*right_angle), 0)


def test_nan_comes_out_as_nan():
    x = np.array([np.nan, 0.5])
    for f in (F.mse_loss, F.l1_loss, F.huber_loss, F.smooth_l1_loss, F.bce_loss, F.bce_with_logits, F.kl_div, F.poisson_nll_loss):
        for y in (np.array([0.0, 1.0]), np.array([1.0, 0.0])):
            assert np.isnan(f(x, y, "none"))[0], f
            assert np.isnan(f(y, x, "none"))[0], f
            assert np.isnan(gg.grad(f)(x, y))[0] or f is F.kl_div, f  # the divergence's derivative by x is -y
    for f in (F.hinge_loss, F.soft_margin_loss):
        assert np.isnan(f(x, np.array([1, -1]), "none"))[0]
        assert np.isnan(gg.grad(lambda x: f(x, np.array([1, -1])))(x))[0] or f is F.hinge_loss  # noqa: B023
    rows = np.array([[0.1, np.nan, 0.2], [0.1, 0.2, 0.3]])
    for f in (F.nll_loss, F.multi_margin_loss, F.multiclass_hinge_loss, F.cross_entropy):
        assert_array_equal(np.isnan(f(rows, np.array([1, 1]), "none")), [True, False])
    assert_array_equal(np.isnan(F.cosine_similarity(rows, np.ones((2, 3)))), [True, False])


def test_zero_vectors_have_the_derivative_of_the_formula():
    zero, b = np.zeros((1, 2)), np.array([[3.0, 4.0]])
    assert_array_equal(F.cosine_similarity(zero, b), 0)
    assert_array_equal(F.cosine_similarity(zero, zero), 0)
    assert_allclose(gg.grad(lambda a: gg.sum(F.cosine_similarity(a, b)))(zero), [[0.6e8, 0.8e8]])
    assert_array_equal(gg.grad(lambda b: gg.sum(F.cosine_similarity(zero, b)))(b), 0)
    assert np.isfinite(gg.hvp(lambda a: gg.sum(F.cosine_similarity(a, b)), zero, b)).all()
    assert_allclose(F.cosine_similarity(b * 1e-9, b, eps=1e-8), 5e-9 / 1e-8)


@pytest.mark.filterwarnings("ignore:Mean of empty slice", "ignore:invalid value")
def test_an_empty_batch():
    x, labels = np.zeros((0, 3)), np.zeros(0, int)
    elements = (F.mse_loss, F.l1_loss, F.huber_loss, F.smooth_l1_loss, F.bce_loss, F.bce_with_logits, F.kl_div, F.hinge_loss, F.soft_margin_loss)
    for f, y in [*((f, x) for f in elements), *((f, labels) for f in (F.nll_loss, F.multi_margin_loss, F.multiclass_hinge_loss, F.cross_entropy))]:
        assert np.isnan(f(x, y))
        assert f(x, y, "sum") == 0
        assert f(x, y, "none").shape in ((0, 3), (0,))
        assert gg.grad(lambda x: f(x, y, "sum"))(x).shape == (0, 3)  # noqa: B023
    assert np.isnan(F.kl_div(x, x, "batchmean"))
    assert np.isnan(F.cosine_embedding_loss(x, x, labels))
    assert F.cosine_similarity(np.ones((2, 0)), np.ones((2, 0))).tolist() == [0, 0]


@pytest.mark.filterwarnings("error")
def test_where_every_label_is_ignored_the_mean_is_nan_and_the_gradient_zero():
    x = np.log(RNG.dirichlet(np.ones(3), 4))
    ignored = np.full(4, -100)
    loss, g = gg.value_and_grad(F.nll_loss)(x, ignored)
    assert np.isnan(loss)
    assert_array_equal(g, 0)
    assert F.nll_loss(x, ignored, "sum") == 0
    assert np.isnan(F.nll_loss(x, np.zeros(4, int), weight=np.array([0.0, 1.0, 1.0])))


# ---------------------------------------------------------------------------------- binary cross entropy


def test_bce_of_probabilities():
    p, y = RNG.uniform(0.1, 0.9, (3, 2)), RNG.uniform(0, 1, (3, 2))
    assert_allclose(F.bce_loss(p, y, "none"), -(y * np.log(p) + (1 - y) * np.log(1 - p)))
    assert_allclose(gg.grad(lambda p: F.bce_loss(p, y, "sum"))(p), (p - y) / (p * (1 - p)))
    assert_allclose(gg.grad(lambda y: F.bce_loss(p, y, "sum"))(y), np.log(1 - p) - np.log(p))
    wrong = np.array([0.0, 1.0])
    assert_array_equal(F.bce_loss(wrong, wrong[::-1], "none"), [100, 100])
    assert_allclose(gg.grad(lambda p: F.bce_loss(p, wrong[::-1], "sum"))(wrong), [-1e12, 1e12])
    assert_array_equal(gg.grad(lambda p: F.bce_loss(p, wrong, "sum"))(wrong), [1, -1])


def test_bce_of_the_lecture():
    """sigma = sigmoid(x^2) at x = 1 with the target 2: dloss/dsigma = -6.4540."""
    sigma = gg.sigmoid(np.array(1.0))
    assert_allclose(gg.grad(lambda s: F.bce_loss(s, np.array(2.0)))(sigma), -6.4540, rtol=1e-5)


def test_bce_with_logits_is_bce_of_sigmoid():
    x, y = RNG.normal(size=(3, 2)), RNG.uniform(0, 1, (3, 2))
    pairs = [
        (x, lambda x: F.bce_with_logits(x, y), lambda x: F.bce_loss(gg.sigmoid(x), y)),
        (y, lambda y: F.bce_with_logits(x, y), lambda y: F.bce_loss(gg.sigmoid(x), y)),
    ]
    for v, f, g in pairs:
        assert_allclose(f(v), g(v), rtol=1e-12)
        assert_allclose(gg.grad(f)(v), gg.grad(g)(v), rtol=1e-10)
        assert_allclose(gg.hessian(f)(v), gg.hessian(g)(v), rtol=1e-8, atol=1e-12)


# ---------------------------------------------------------------------------------- options


@every_reduction
def test_nll_is_cross_entropy_after_log_softmax(reduction):
    x, labels, weight = RNG.normal(size=(5, 4, 3)), RNG.integers(0, 4, (5, 3)), RNG.uniform(0.5, 2, 4)
    labels[0, 0] = labels[3, 1] = 7
    for options in ({"ignore_index": 7}, {"ignore_index": 7, "weight": weight}):
        f = lambda x: F.nll_loss(gg.log_softmax(x, axis=1), labels, reduction, **options)  # noqa: B023
        g = lambda x: F.cross_entropy(x, labels, reduction, **options)  # noqa: B023
        assert_allclose(f(x), g(x), rtol=1e-12, atol=1e-15)
        assert_allclose(gg.grad(lambda x: gg.sum(f(x)))(x), gg.grad(lambda x: gg.sum(g(x)))(x), rtol=1e-10, atol=1e-14)  # noqa: B023
    assert_allclose(F.nll_loss(np.log([0.25, 0.75]), np.array(1)), -math.log(0.75))


def test_ignored_rows_and_classes_of_weight_zero_may_hold_anything():
    x = np.log(np.array([[0.5, 0.5], [0.25, 0.75]]))
    x[0] = [np.nan, -np.inf]
    f = lambda x: F.nll_loss(x, np.array([-1, 1]), ignore_index=-1)
    assert_allclose(f(x), -math.log(0.75))
    assert_array_equal(gg.grad(f)(x), [[0, 0], [0, -1]])
    g = lambda x: F.nll_loss(x, np.array([1, 1]), "sum", weight=np.array([1.0, 0.0]))
    assert g(x) == 0
    assert_array_equal(gg.grad(g)(x), 0)


def test_the_hinge_of_the_lecture():
    """Scores of three pictures (cat, car, frog) with margin 1: losses 2.9, 0 and 12.9, on average 5.27."""
    scores = np.array([[3.2, 5.1, -1.7], [1.3, 4.9, 2.0], [2.2, 2.5, -3.1]])
    labels = np.array([0, 1, 2])
    assert_allclose(F.multiclass_hinge_loss(scores, labels, "none"), [2.9, 0, 12.9], rtol=1e-12)
    assert_allclose(F.multiclass_hinge_loss(scores, labels), 15.8 / 3)
    assert_array_equal(gg.grad(lambda s: F.multiclass_hinge_loss(s, labels, "sum"))(scores), [[-1, 1, 0], [0, 0, 0], [1, 1, -2]])
    assert_allclose(F.multi_margin_loss(scores, labels, "none"), np.array([2.9, 0, 12.9]) / 3)


@every_reduction
def test_multi_margin_loss_by_loops(reduction):
    x, y, weight = RNG.normal(size=(5, 4)) * 2, np.array([0, 3, 1, 1, 2]), RNG.uniform(0.5, 2, 4)
    for p in (1, 2):
        for margin in (1.0, 0.3):
            rows = [sum(max(0, margin - x[i, y[i]] + x[i, j]) ** p for j in range(4) if j != y[i]) * weight[y[i]] / 4 for i in range(5)]
            expected = {"mean": np.mean(rows), "sum": np.sum(rows), "none": rows}[reduction]
            f = lambda x: F.multi_margin_loss(x, y, reduction, p=p, margin=margin, weight=weight)  # noqa: B023
            assert_allclose(f(x), expected, rtol=1e-12)
            check_grads(lambda x: gg.sum(f(x)), (x,), order=2)  # noqa: B023
    assert_allclose(F.multi_margin_loss(x[0], 0), F.multi_margin_loss(x[:1], y[:1]))


@every_reduction
def test_reductions_and_weights(reduction):
    x, y, w = RNG.uniform(0.1, 0.9, (4, 3)), RNG.uniform(size=(4, 3)), RNG.uniform(0.5, 2, 3)
    reduce = {"mean": np.mean, "sum": np.sum, "none": np.asarray}[reduction]
    bce = -(y * np.log(x) + (1 - y) * np.log(1 - x))
    for weight in (w, 2.0, RNG.uniform(size=(4, 1)), [0.5, 1.0, 2.0]):
        assert_allclose(F.bce_loss(x, y, reduction, weight=weight), reduce(bce * np.asarray(weight)))
        logits = np.log(x / (1 - x))
        assert_allclose(F.bce_with_logits(logits, y, reduction, weight=weight), reduce(bce * np.asarray(weight)))
        positive = -(weight * y * np.log(x) + (1 - y) * np.log(1 - x))
        assert_allclose(F.bce_with_logits(logits, y, reduction, pos_weight=weight), reduce(positive))
    assert_allclose(F.kl_div(np.log(x), y, reduction), reduce(y * np.log(y / x)))
    assert_allclose(F.kl_div(np.log(x), np.log(y), reduction, log_target=True), reduce(y * np.log(y / x)))
    assert_allclose(F.kl_div(np.log(x), y, "batchmean"), np.sum(y * np.log(y / x)) / 4)
    assert_allclose(F.gaussian_nll_loss(x, y, w, reduction, full=True), reduce(np.log(w * 2 * np.pi) / 2 + (x - y) ** 2 / (2 * w)))
    assert_allclose(F.gaussian_nll_loss(x, y, 2, reduction), reduce(math.log(2) / 2 + (x - y) ** 2 / 4))
    assert_allclose(F.poisson_nll_loss(x, y, reduction), reduce(np.exp(x) - y * x))
    assert_allclose(F.poisson_nll_loss(x, y, reduction, log_input=False), reduce(x - y * np.log(x + 1e-8)))
    signs = np.array([1, -1, -1, 1])
    cos = np.array([a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in zip(x, y - 0.5, strict=True)])
    assert_allclose(F.cosine_embedding_loss(x, y - 0.5, signs, reduction, 0.1), reduce(np.where(signs > 0, 1 - cos, np.maximum(0, cos - 0.1))))


LOSSES = {
    "mse": (F.mse_loss, (4, 3), (4, 3)),
    "l1": (F.l1_loss, (4, 3), (4, 3)),
    "huber": (lambda x, y: F.huber_loss(x, y, delta=0.4), (4, 3), (4, 3)),
    "smooth_l1": (lambda x, y: F.smooth_l1_loss(x, y, beta=0.4), (4, 3), (4, 3)),
    "bce": (lambda x, y: F.bce_loss(gg.sigmoid(x), gg.sigmoid(y)), (4, 3), (4, 3)),
    "bce_with_logits": (lambda x, y, p, w: F.bce_with_logits(x, y, pos_weight=gg.exp(p), weight=w), (4, 3), (4, 3), (3,), (4, 1)),
    "kl_div": (lambda x, y: F.kl_div(gg.log_softmax(x), gg.softmax(y), "batchmean"), (4, 3), (4, 3)),
    "kl_div of logarithms": (lambda x, y: F.kl_div(gg.log_softmax(x), gg.log_softmax(y), "batchmean", log_target=True), (4, 3), (4, 3)),
    "hinge": (lambda x: F.hinge_loss(x, np.array([1, -1, 1, -1])), (4,)),
    "soft margin": (lambda x: F.soft_margin_loss(x, np.array([1, -1, 1, -1])), (4,)),
    "multiclass hinge": (lambda x: F.multiclass_hinge_loss(x, np.array([0, 2, 1, 1])), (4, 3)),
    "nll": (lambda x: F.nll_loss(gg.log_softmax(x), np.array([0, -100, 1, 1]), weight=np.array([1.0, 2.0, 0.5])), (4, 3)),
    "gaussian": (lambda x, y, v: F.gaussian_nll_loss(x, y, gg.exp(v)), (4, 3), (4, 3), (4, 1)),
    "poisson": (lambda x, y: F.poisson_nll_loss(x, gg.exp(y), full=True), (4, 3), (4, 3)),
    "cosine": (lambda x, y: gg.sum(F.cosine_similarity(x, y, 0) ** 2), (4, 3), (4, 1)),
    "cosine embedding": (lambda x, y: F.cosine_embedding_loss(x, y, np.array([1, -1, 1, -1])), (4, 3), (4, 3)),
}


@pytest.mark.parametrize("name", LOSSES)
def test_derivatives_of_all_arguments_to_the_second_order(name):
    f, *shapes = LOSSES[name]
    check_grads(f, tuple(RNG.normal(size=shape) for shape in shapes), order=2)


@pytest.mark.parametrize("name", LOSSES)
def test_devices_and_dtypes(name, device):
    """The same numbers on every device, in the dtype of the arguments. float16 is that of float64 but for its rounding."""
    f, *shapes = LOSSES[name]
    xs = [RNG.normal(size=shape).astype(np.float16) for shape in shapes]
    numbers = tuple(range(len(xs)))
    exact, slopes = gg.value_and_grad(f, numbers)(*[x.astype(float) for x in xs])
    for dtype in DTYPES:
        constants = "weight" if name in ("nll", "hinge", "soft margin", "multiclass hinge", "cosine embedding") else None
        if constants and device != "cpu":
            pytest.skip("its labels lie on the CPU")
        ts = [gg.tensor(x.astype(dtype), device=device, requires_grad=True) for x in xs]
        loss = f(*ts)
        assert (loss.dtype, loss.device, loss.shape) == (dtype, ts[0].device, ())
        assert_allclose(loss.item(), exact, rtol=20 * np.finfo(dtype).eps, atol=20 * np.finfo(dtype).eps)
        loss.backward()
        for t, g in zip(ts, slopes, strict=True):
            assert_allclose(t.grad.numpy().astype(float), g, atol=30 * np.finfo(dtype).eps * np.abs(g).max())


def test_labels_on_every_device(device):
    x, labels, signs = RNG.normal(size=(4, 3)), np.array([0, 2, 1, 1]), np.array([1, -1, 1, -1])
    weight = np.array([1.0, 2.0, 0.5])
    put = lambda a: gg.tensor(a, device=device)
    calls = [
        (F.nll_loss, (x, labels), {"weight": weight}),
        (F.multi_margin_loss, (x, labels), {"weight": weight, "p": 2}),
        (F.multiclass_hinge_loss, (x, labels), {}),
        (F.hinge_loss, (x[:, 0], signs), {}),
        (F.soft_margin_loss, (x[:, 0], signs), {}),
        (F.cosine_embedding_loss, (x, x[::-1].copy(), signs), {}),
        (F.bce_with_logits, (x[:, 0], signs > 0), {"pos_weight": np.array([2.0])}),
        (F.bce_loss, (gg.sigmoid(x[:, 0]), signs > 0), {"weight": np.array([2.0])}),
        (F.gaussian_nll_loss, (x, x * 2, np.array([[1.0], [2.0], [1e-9], [0.5]])), {}),
    ]
    for f, args, options in calls:
        got = f(*map(put, args), **{k: put(v) if isinstance(v, np.ndarray) else v for k, v in options.items()})
        assert got.device == put(0).device
        assert_allclose(got.numpy(), f(*args, **options), rtol=1e-12)


def test_a_label_out_of_range_on_a_gpu_gives_nan(device):
    if device == "cpu":
        pytest.skip("an error there")
    x, bad = gg.tensor(RNG.normal(size=(3, 2)), device=device), gg.tensor([0, 5, -3], device=device)
    for f in (F.nll_loss, F.multi_margin_loss, F.multiclass_hinge_loss, lambda *args: F.nll_loss(*args, weight=gg.tensor([1.0, 2.0], device=device))):
        assert_array_equal(np.isnan(f(x, bad, "none").numpy()), [False, True, True])


def test_integers_and_booleans_are_numbers():
    """They take the dtype of what they meet: a target of int64 does not make float64 of float32."""
    x = RNG.uniform(0.1, 0.9, 4).astype(np.float32)
    for f in (F.mse_loss, F.l1_loss, F.huber_loss, F.smooth_l1_loss, F.bce_loss, F.bce_with_logits, F.kl_div, F.poisson_nll_loss):
        expected = f(x, np.array([0, 1, 1, 0], np.float32))
        for dtype in (np.int64, np.uint8, bool):
            loss = f(x, np.array([0, 1, 1, 0], dtype))
            assert loss.dtype == np.float32
            assert loss == expected
    assert F.mse_loss([1, 2], [1, 4]) == 2
    assert F.hinge_loss(x, np.array([1, -1, 1, -1])).dtype == np.float32


def test_float16_means_do_not_overflow():
    x = np.full((4096, 8), 30.0, np.float16)
    labels = np.zeros(4096, int)
    assert F.nll_loss(-x, labels) == 30
    assert F.kl_div(-x, np.ones_like(x), "batchmean") == 240
    assert F.mse_loss(x, 0 * x) == 900
    t = gg.tensor(-x, requires_grad=True)
    F.nll_loss(t, labels).backward(np.float16(4096))
    assert_array_equal(t.grad.numpy()[:, 0], -1)


def test_a_variance_below_eps_finds_its_way_back():
    f = lambda v: F.gaussian_nll_loss(np.array([1.0]), np.array([0.0]), v)
    assert_allclose(f(np.array([1e-9])), f(np.array([1e-6])))
    assert_allclose(gg.grad(f)(np.array([1e-9])), gg.grad(f)(np.array([1e-6 + 1e-12])), rtol=1e-5)


def against_torch(torch, name, ours, theirs, *arrays):
    """The value, and the gradients of its sines, of every argument of floats."""
    floats = [x.dtype.kind == "f" for x in arrays]
    ts = [gg.tensor(x, requires_grad=f) for x, f in zip(arrays, floats, strict=True)]
    us = [torch.tensor(x, requires_grad=f) for x, f in zip(arrays, floats, strict=True)]
    y, z = ours(*ts), theirs(*us)
    assert_allclose(y.numpy(), z.detach().numpy(), rtol=1e-10, err_msg=name)
    gg.sum(gg.sin(y)).backward()
    torch.sin(z).sum().backward()
    for t, u in zip(ts, us, strict=True):
        if u.grad is not None:
            assert_allclose(t.grad.numpy(), u.grad.numpy(), rtol=1e-10, atol=1e-13, err_msg=name)


@pytest.mark.filterwarnings("ignore:reduction. .mean. divides")
@every_reduction
def test_losses_are_pytorchs(reduction):
    torch = pytest.importorskip("torch")
    T, r = torch.nn.functional, reduction
    check = lambda *args: against_torch(torch, *args)
    x, y, p, q = RNG.normal(size=(5, 4)) * 2, RNG.normal(size=(5, 4)) * 2, RNG.uniform(0.05, 0.95, (5, 4)), RNG.uniform(size=(5, 4))
    w, labels, ignored, signs = RNG.uniform(0.5, 2, 4), np.array([0, 3, 1, 1, 2]), np.array([0, -100, 1, 1, 2]), np.array([1.0, -1, 1, -1, 1])
    tw, t_labels, t_ignored, t_signs = map(torch.tensor, (w, labels, ignored, signs))
    check("mse", lambda a, b: F.mse_loss(a, b, r), lambda a, b: T.mse_loss(a, b, reduction=r), x, y)
    check("l1", lambda a, b: F.l1_loss(a, b, r), lambda a, b: T.l1_loss(a, b, reduction=r), x, y)
    for size in (0.3, 1.0, 3.0):
        check("smooth l1", lambda a, b: F.smooth_l1_loss(a, b, r, size), lambda a, b: T.smooth_l1_loss(a, b, reduction=r, beta=size), x, y)  # noqa: B023
        check("huber", lambda a, b: F.huber_loss(a, b, r, size), lambda a, b: T.huber_loss(a, b, reduction=r, delta=size), x, y)  # noqa: B023
    check("bce", lambda a, b: F.bce_loss(a, b, r, weight=w), lambda a, b: T.binary_cross_entropy(a, b, tw, reduction=r), p, q)
    logits, t_logits = F.bce_with_logits, T.binary_cross_entropy_with_logits
    check("bce with logits", lambda a, b: logits(a, b, r, weight=w), lambda a, b: t_logits(a, b, tw, reduction=r), x, q)
    check("pos_weight", lambda a, b: logits(a, b, r, pos_weight=w), lambda a, b: t_logits(a, b, reduction=r, pos_weight=tw), x, q)
    log_p, t = np.log(RNG.dirichlet(np.ones(4), 5)), RNG.dirichlet(np.ones(4), 5)
    check("nll", lambda a: F.nll_loss(a, ignored, r, weight=w), lambda a: T.nll_loss(a, t_ignored, tw, reduction=r), log_p)
    for kind in (r, "batchmean"):
        check("kl", lambda a, b: F.kl_div(a, b, kind), lambda a, b: T.kl_div(a, b, reduction=kind), log_p, t)  # noqa: B023
        check("kl of logs", lambda a, b: F.kl_div(a, b, kind, True), lambda a, b: T.kl_div(a, b, reduction=kind, log_target=True), log_p, np.log(t))  # noqa: B023
    for power in (1, 2):
        ours = lambda a: F.multi_margin_loss(a, labels, r, p=power, margin=0.7, weight=w)  # noqa: B023
        check("multi margin", ours, lambda a: T.multi_margin_loss(a, t_labels, power, 0.7, tw, reduction=r), x)  # noqa: B023
    check("soft margin", lambda a: F.soft_margin_loss(a, signs, r), lambda a: T.soft_margin_loss(a, t_signs, reduction=r), x[:, 0].copy())
    embedding = lambda a, b: F.cosine_embedding_loss(a, b, signs, r, 0.1)
    check("cosine embedding", embedding, lambda a, b: T.cosine_embedding_loss(a, b, t_signs, 0.1, reduction=r), x, y)
    for axis in (0, 1, -1):
        check("cosine", lambda a, b: F.cosine_similarity(a, b, axis), lambda a, b: T.cosine_similarity(a, b, axis), x, y)  # noqa: B023
    var, counts = RNG.uniform(0.5, 2, (5, 4)), RNG.poisson(2.0, (5, 4)).astype(float)
    var[0, 0] = 1e-9
    for full in (False, True):
        ours = lambda a, b, v: F.gaussian_nll_loss(a, b, v, r, full=full)  # noqa: B023
        check("gaussian", ours, lambda a, b, v: T.gaussian_nll_loss(a, b, v, full=full, reduction=r), x, y, var)  # noqa: B023
        for log in (False, True):
            ours = lambda a: F.poisson_nll_loss(a, counts, r, log_input=log, full=full)  # noqa: B023
            theirs = lambda a: T.poisson_nll_loss(a, torch.tensor(counts), log_input=log, full=full, reduction=r)  # noqa: B023
            check("poisson", ours, theirs, x if log else np.abs(x))


# ---------------------------------------------------------------------------------- modules


def test_modules_are_their_functions():
    x, y, labels = RNG.uniform(0.1, 0.9, (4, 3)), RNG.uniform(0.1, 0.9, (4, 3)), np.array([0, 2, 1, 1])
    signs, w = np.array([1, -1, -1, 1]), np.array([1.0, 2.0, 0.5])
    for r in ("mean", "sum", "none"):
        pairs = [
            (nn.MSELoss(r), F.mse_loss(x, y, r), (x, y)),
            (nn.L1Loss(r), F.l1_loss(x, y, r), (x, y)),
            (nn.SmoothL1Loss(r, 0.2), F.smooth_l1_loss(x, y, r, 0.2), (x, y)),
            (nn.HuberLoss(r, 0.2), F.huber_loss(x, y, r, 0.2), (x, y)),
            (nn.BCELoss(r, weight=w), F.bce_loss(x, y, r, weight=w), (x, y)),
            (nn.BCEWithLogitsLoss(r, weight=w, pos_weight=2 * w), F.bce_with_logits(x, y, r, weight=w, pos_weight=2 * w), (x, y)),
            (nn.CrossEntropyLoss(r, 0.1, weight=w, ignore_index=2), F.cross_entropy(x, labels, r, 0.1, weight=w, ignore_index=2), (x, labels)),
            (nn.NLLLoss(r, weight=w, ignore_index=2), F.nll_loss(x, labels, r, weight=w, ignore_index=2), (x, labels)),
            (nn.KLDivLoss(r, True), F.kl_div(x, y, r, True), (x, y)),
            (nn.HingeLoss(r, 0.5), F.hinge_loss(x[:, 0], signs, r, 0.5), (x[:, 0], signs)),
            (nn.SoftMarginLoss(r), F.soft_margin_loss(x[:, 0], signs, r), (x[:, 0], signs)),
            (nn.MulticlassHingeLoss(r, 0.5), F.multiclass_hinge_loss(x, labels, r, 0.5), (x, labels)),
            (nn.MultiMarginLoss(r, p=2, margin=0.5, weight=w), F.multi_margin_loss(x, labels, r, p=2, margin=0.5, weight=w), (x, labels)),
            (nn.CosineEmbeddingLoss(r, 0.2), F.cosine_embedding_loss(x, y, signs, r, 0.2), (x, y, signs)),
            (nn.GaussianNLLLoss(r, full=True, eps=0.3), F.gaussian_nll_loss(x, y, x, r, full=True, eps=0.3), (x, y, x)),
            (nn.PoissonNLLLoss(r, log_input=False, full=True, eps=0.1), F.poisson_nll_loss(x, y, r, log_input=False, full=True, eps=0.1), (x, y)),
        ]
        for module, expected, args in pairs:
            got = module(*args)
            assert_array_equal(got.numpy() if isinstance(got, gg.Tensor) else got, expected)
            assert not list(module.parameters())
    assert_array_equal(nn.KLDivLoss("batchmean")(x, y), F.kl_div(x, y, "batchmean"))
    assert_array_equal(nn.CosineSimilarity(0)(x, y), F.cosine_similarity(x, y, 0))
    assert_array_equal(F.cosine_similarity(x, y, axis=0), F.cosine_similarity(x, y, 0))


def test_weights_are_buffers_that_stay_constants():
    loss = nn.BCEWithLogitsLoss(weight=[1.0, 2.0], pos_weight=[3.0, 4.0])
    assert list(loss.state_dict()) == ["weight", "pos_weight"]
    loss.requires_grad_(True)
    assert not list(loss.parameters())
    assert loss.to(np.float64).pos_weight.dtype == np.float64
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    nn.CrossEntropyLoss(weight=np.ones(2))(model(np.ones((3, 2), np.float32)), np.array([0, 1, 0])).backward()
    assert repr(nn.SmoothL1Loss("sum", 0.5)) == "SmoothL1Loss(reduction='sum', beta=0.5)"
    assert repr(nn.MultiMarginLoss(p=2)) == "MultiMarginLoss(reduction='mean', p=2, margin=1.0)"


@pytest.mark.parametrize(
    "made", [lambda x, dtype: np.asarray(x).astype(dtype), lambda x, dtype: gg.tensor(x, dtype=dtype, requires_grad=True)], ids=["array", "tensor"]
)
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_16_bit_floats_stay_what_they_are(dtype, made):
    pytest.importorskip("ml_dtypes")
    rng = np.random.default_rng(3)
    wide = [rng.uniform(0.2, 0.8, (4, 3)) for _ in range(3)] + [np.sign(rng.normal(size=(4, 3)))]
    a, b, v, signs = (made(x, dtype) for x in wide)
    y = np.array([0, 2, 1, 1])
    losses = {
        "bce": lambda a, b, v, s, r: F.bce_loss(a, b, r, weight=0.5),
        "bce with logits": lambda a, b, v, s, r: F.bce_with_logits(a, b, r, pos_weight=2.0),
        "gaussian": lambda a, b, v, s, r: F.gaussian_nll_loss(a, b, v, r, full=True),
        "poisson": lambda a, b, v, s, r: F.poisson_nll_loss(a, b * 8, r, full=True),
        "poisson of rates": lambda a, b, v, s, r: F.poisson_nll_loss(a, b, r, log_input=False),
        "mse": lambda a, b, v, s, r: F.mse_loss(a, b, r),
        "huber": lambda a, b, v, s, r: F.huber_loss(a, b, r),
        "kl": lambda a, b, v, s, r: F.kl_div(a, b, r),
        "hinge": lambda a, b, v, s, r: F.hinge_loss(a, s, r),
        "soft margin": lambda a, b, v, s, r: F.soft_margin_loss(a, s, r),
        "multiclass": lambda a, b, v, s, r: F.multiclass_hinge_loss(a, y, r),
        "multi margin": lambda a, b, v, s, r: F.multi_margin_loss(a, y, r, p=2),
        "cross entropy": lambda a, b, v, s, r: F.cross_entropy(a, y, r),
        "nll": lambda a, b, v, s, r: F.nll_loss(a, y, r),
        "cosine": lambda a, b, v, s, r: F.cosine_similarity(a, b),
        "cosine embedding": lambda a, b, v, s, r: F.cosine_embedding_loss(a, b, np.array([1, -1, 1, 1]), r),
    }
    for name, f in losses.items():
        for reduction in ("mean", "none"):
            loss = f(a, b, v, signs, reduction)
            assert loss.dtype.name == dtype, name
            exact = np.asarray(f(*wide, reduction))
            got = np.asarray(loss.detach().numpy() if type(loss) is gg.Tensor else loss).astype(float)
            assert_allclose(got, exact, rtol=0.05, atol=0.05, err_msg=name)


# ---------------------------------------------------------------------------------- errors

X, Y = np.full((4, 3), 0.5), np.array([0, 2, 1, 1])
ERRORS = [
    (lambda: F.l1_loss(X, X[:, :1]), ValueError, r"l1_loss: got a target of shape \(4, 1\), expected \(4, 3\)"),
    (lambda: F.kl_div(X, Y), ValueError, r"kl_div: got a target of shape \(4,\)"),
    (lambda: F.kl_div(X, X, "average"), ValueError, "reduction must be 'mean', 'sum', 'batchmean' or 'none', got 'average'"),
    (lambda: F.mse_loss(X, X, "batchmean"), ValueError, "reduction must be 'mean', 'sum' or 'none', got 'batchmean'"),
    (lambda: nn.NLLLoss(np.ones(3)), ValueError, "reduction must be .*; pass other options by their names"),
    (lambda: nn.CosineEmbeddingLoss(0.5), ValueError, "got 0.5; pass other options by their names"),
    (lambda: F.huber_loss(X, X, delta=0), ValueError, "delta must be positive, got 0"),
    (lambda: F.huber_loss(X, X, delta=math.nan), ValueError, "delta must be positive, got nan"),
    (lambda: F.smooth_l1_loss(X, X, beta=-1), ValueError, "beta must not be negative, got -1"),
    (
        lambda: F.bce_loss(X * 3, X),
        ValueError,
        "binary_cross_entropy: got a probability of 1.5, expected probabilities from 0 to 1; apply sigmoid, or give the logits",
    ),
    (lambda: F.bce_loss(X, X, weight=np.ones(2)), ValueError, r"got weight of shape \(2,\), expected one that broadcasts to \(4, 3\)"),
    (lambda: F.bce_with_logits(X, X, pos_weight=np.ones((5, 4, 3))), ValueError, r"got pos_weight of shape \(5, 4, 3\), expected one that broadcasts"),
    (lambda: F.bce_with_logits(X, X[0]), ValueError, "binary_cross_entropy_with_logits: got a target of shape"),
    (lambda: F.cross_entropy(X, Y, dim=1), TypeError, r"^cross_entropy\(\) got an unexpected keyword argument 'dim'"),
    *(
        (f, TypeError, "ignore_index must be an integer")
        for wrong in ("pad", None, 1.5, True)
        for f in (
            lambda wrong=wrong: F.cross_entropy(X, Y, ignore_index=wrong),
            lambda wrong=wrong: nn.CrossEntropyLoss(ignore_index=wrong),
            lambda wrong=wrong: F.nll_loss(X, Y, ignore_index=wrong),
            lambda wrong=wrong: nn.NLLLoss(ignore_index=wrong),
        )
    ),
    (lambda: nn.CrossEntropyLoss(label_smoothing=3), ValueError, "label_smoothing must lie between 0 and 1, got 3"),
    (lambda: nn.CrossEntropyLoss(label_smoothing="a"), TypeError, "label_smoothing must be a number between 0 and 1, got 'a'"),
    (lambda: F.nll_loss(X, Y + 1), IndexError, "nll_loss: label 3 is out of bounds, expected 0 to 2 for 3 classes"),
    (lambda: F.nll_loss(X, Y - 1), IndexError, "nll_loss: label -1 is out of bounds"),
    (lambda: F.nll_loss(X, Y[:3]), ValueError, r"nll_loss: got log probabilities of shape \(4, 3\) and integer labels of shape \(3,\), expected .* \(4,\)"),
    (lambda: F.nll_loss(X, Y.astype(float)), TypeError, r"nll_loss: labels must be integers, got float64; cast them by .astype\(int\)"),
    (lambda: F.nll_loss(X, Y > 1), TypeError, "nll_loss: labels must be integers, got bool"),
    (lambda: F.nll_loss(X[:, :0], Y), ValueError, "at least one class"),
    (lambda: F.nll_loss(X, Y, weight=np.ones(4)), ValueError, r"nll_loss: got weight of shape \(4,\), expected \(3,\)"),
    (lambda: F.nll_loss(X, Y, weight=-np.ones(3)), ValueError, "nll_loss: got weight -1.0, expected none below 0"),
    (lambda: F.nll_loss(X, Y, weight=gg.tensor(np.ones(3), requires_grad=True)), TypeError, "nll_loss: weight is a constant"),
    (lambda: F.multi_margin_loss(X, Y - 101), IndexError, "multi_margin_loss: label -101 is out of bounds"),
    (lambda: F.multi_margin_loss(X, Y - 100), IndexError, "multi_margin_loss: label -100 is out of bounds"),
    (lambda: F.multi_margin_loss(X, Y, p=3), ValueError, "p must be 1 or 2, got 3"),
    (lambda: F.multiclass_hinge_loss(X, X), ValueError, r"multiclass_hinge_loss: got scores of shape \(4, 3\) and integer labels of shape \(4, 3\)"),
    (lambda: F.hinge_loss(X[:, 0], Y), ValueError, "hinge_loss: got the label 0.0, expected -1 or 1; of labels y of 0 and 1 pass 2 [*] y - 1"),
    (lambda: F.soft_margin_loss(X[:, 0], Y), ValueError, "soft_margin_loss: got the label 0"),
    (lambda: F.cosine_embedding_loss(X, X, Y), ValueError, "cosine_embedding_loss: got the label 0"),
    (lambda: F.cosine_embedding_loss(X, X[:2], Y), ValueError, r"got inputs of shapes \(4, 3\) and \(2, 3\)"),
    (lambda: F.cosine_embedding_loss(X, X, np.ones(3)), ValueError, r"got a target of shape \(3,\), expected \(4,\)"),
    (lambda: F.cosine_similarity(X[0], X[0]), ValueError, "axis 1 is out of bounds"),
    (lambda: F.gaussian_nll_loss(X, X, np.ones((2, 4, 3))), ValueError, r"got var of shape \(2, 4, 3\), expected one that broadcasts to \(4, 3\)"),
    (lambda: F.gaussian_nll_loss(X, X, -1.0), ValueError, "got a variance of -1.0, expected none below 0"),
    (lambda: F.gaussian_nll_loss(X, X, -X), ValueError, "got a variance of -0.5, expected none below 0; predict its logarithm, or apply softplus"),
]


@pytest.mark.parametrize(("call", "error", "message"), ERRORS)
def test_errors_say_what_was_got_and_expected(call, error, message):
    with pytest.raises(error, match=message):
        call()
