"""Modules and losses inside vmap: gradients of each example and ensembles against a loop, what is refused, and that everything is computed at once."""

import numpy as np
import pytest
from batched import check, host
from numpy.testing import assert_allclose

import gpugrad as gg
from gpugrad import nn
from gpugrad.backend import device_of
from gpugrad.kernels import cross_entropy as kernel_of_cross_entropy
from gpugrad.nn import functional as F  # noqa: N812

RNG = np.random.default_rng(0)
EXAMPLES, ROWS, WIDTH = 3, 4, 6
X = RNG.normal(size=(EXAMPLES, ROWS, WIDTH))

MODELS = {
    "Linear": lambda: nn.Linear(6, 5),
    "Linear without bias": lambda: nn.Linear(6, 5, bias=False),
    "Bilinear": lambda: Twice(nn.Bilinear(6, 6, 3)),
    "MLP": lambda: nn.MLP([6, 7, 5]),
    "deep MLP": lambda: nn.MLP([6, 7, 7, 5], "gelu", norm="layer", residual=True),
    "RMS MLP": lambda: nn.MLP([6, 7, 5], "silu", norm="rms"),
    "batch norm MLP": lambda: nn.MLP([6, 7, 5], "tanh", norm="batch"),
    "Sequential": lambda: nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 4), nn.LogSoftmax()),
    "Residual": lambda: nn.Residual(nn.Linear(6, 6), nn.ELU()),
    "Flatten": lambda: nn.Sequential(nn.Flatten(0), nn.Linear(24, 3), nn.Softmax()),
    "LayerNorm": lambda: nn.LayerNorm(6),
    "RMSNorm": lambda: nn.RMSNorm(6),
    "Dropout in evaluation": lambda: nn.Sequential(nn.Dropout(0.5), nn.Linear(6, 5)).eval(),
    **{name: (lambda name=name: nn.Sequential(nn.Linear(6, 5), getattr(nn, name)())) for name in
       ("ELU", "GELU", "SELU", "LeakyReLU", "ReLU", "Sigmoid", "SiLU", "Softplus", "Tanh", "Identity", "Softmax", "LogSoftmax")},
}  # fmt: skip


class Twice(nn.Module):
    def __init__(self, layer):
        self.layer = layer

    def forward(self, x):
        return self.layer(x, x[..., ::-1])


def made(name, put=np.asarray):
    """The module in evaluation (whose batch norm is a function of each example) as a function of parameters in float64, and these."""
    module = MODELS[name]().eval().to(device_of(put(X)))
    gg.random.seed(5)
    params = {path: put(gg.random.normal(0.0, 0.5, p.shape).data) for path, p in module.named_parameters()}
    return (lambda p, x: nn.functional_call(module, p, x)), params


models = pytest.mark.parametrize("name", MODELS)


@models
def test_gradients_of_each_example(name, put):
    f, params = made(name, put)
    loss = lambda p, x: gg.sum(gg.sin(f(p, x)))
    check(gg.value_and_grad(loss, (0, 1)), params, put(X), axes=(None, 0))
    v = gg.tree.map_leaves(lambda p: put(np.cos(host(p))), params)
    check(lambda p, x: gg.hvp(lambda p: loss(p, x), p, v), params, put(X), axes=(None, 0))


@models
def test_ensembles(name, put):
    f, params = made(name, put)
    many = gg.tree.map_leaves(lambda p: put(np.stack([host(p) * (1 + 0.3 * i) for i in range(EXAMPLES)])), params)
    loss = lambda p, x: gg.sum(gg.sin(f(p, x)))
    check(gg.value_and_grad(loss), many, put(X))
    check(gg.value_and_grad(loss), many, put(X[0]), axes=(0, None))


@models
def test_float32(name):
    f, params = made(name)
    params, x = gg.tree.map_leaves(lambda a: a.astype(np.float32), (params, X))
    for g in gg.tree.flatten(gg.vmap(gg.grad(lambda p, x: gg.sum(f(p, x) ** 2), (0, 1)), (None, 0))(params, x))[0]:
        assert g.dtype == np.float32


def test_modules_are_left_as_they_were():
    module = nn.MLP([6, 5, 2], dtype=np.float64)
    before = {path: (t.value, t.node) for path, t in module.named_parameters()}
    gg.vmap(gg.grad(lambda p, x: gg.sum(nn.functional_call(module, p, x))), (None, 0))(dict(module.named_parameters()), X)
    assert all(t.value is before[path][0] and t.node is before[path][1] for path, t in module.named_parameters())
    assert all(p.grad is None for p in module.parameters())
    y = gg.vmap(module)(X)
    gg.sum(y).backward()
    whole = nn.MLP([6, 5, 2], dtype=np.float64)
    whole.load_state_dict(module.state_dict())
    gg.sum(whole(X.reshape(-1, 6))).backward()
    for p, q in zip(module.parameters(), whole.parameters(), strict=True):
        assert_allclose(p.grad.numpy(), q.grad.numpy(), rtol=1e-12)


def test_embeddings(put):
    table, i = RNG.normal(size=(EXAMPLES, 5, 2)), RNG.integers(0, 5, (EXAMPLES, 2, 3))
    for padding in (None, 1, -1):
        f = lambda w, i: F.embedding(i, w, padding)  # noqa: B023
        total = lambda w, i, f=f: gg.sum(gg.sin(f(w, i)))
        g = gg.value_and_grad(total)
        h = lambda w, i, total=total: gg.hvp(lambda w: total(w, i), w, gg.cos(w))
        for args, axes in (((table, i), (0, 0)), ((table, i[0]), (0, None)), ((table[0], i), (None, 0))):
            for of in (f, g, h):
                check(of, *map(put, args), axes=axes)
    check(lambda i: F.one_hot(i, 6), put(i))
    assert gg.vmap(F.one_hot)(np.array([[0, 1], [3, 0]])).shape == (2, 2, 4)  # as many classes as the largest index of all needs
    with pytest.raises(IndexError, match="embedding: got index 7"):
        gg.vmap(lambda w, i: F.embedding(i, w))(table, i + 3 * (i == i.max()))


def test_embeddings_are_one_gather(monkeypatch):
    from gpugrad.ops import table as ops

    calls = []
    for name in ("pick_rows", "sum_rows"):
        of = getattr(ops, name)
        monkeypatch.setattr(ops, name, lambda *args, of=of, **params: calls.append(1) or of(*args, **params))
    w, i = RNG.normal(size=(EXAMPLES, 5, 2)), RNG.integers(0, 5, (EXAMPLES, 4))
    gg.vmap(gg.grad(lambda w, i: gg.sum(F.embedding(i, w) ** 2)))(w, i)
    assert len(calls) == 2


# ------------------------------------------------------------------------------------------------- losses

Y = RNG.normal(size=(EXAMPLES, ROWS, WIDTH))
P, T = RNG.uniform(0.1, 0.9, (2, EXAMPLES, ROWS, WIDTH))
SIGNS = RNG.choice([-1.0, 1.0], (EXAMPLES, ROWS, WIDTH))
LABELS = RNG.integers(0, WIDTH, (EXAMPLES, ROWS))
IGNORED = np.where(RNG.random((EXAMPLES, ROWS)) < 0.4, -100, LABELS)
IGNORED[1] = -100  # one example of which nothing is left
WEIGHT = RNG.uniform(0.5, 2, (EXAMPLES, WIDTH))

LOSSES = {
    "MSELoss": (nn.MSELoss, {}, (X, Y)),
    "L1Loss": (nn.L1Loss, {}, (X, Y)),
    "SmoothL1Loss": (nn.SmoothL1Loss, {"beta": 0.7}, (X, Y)),
    "HuberLoss": (nn.HuberLoss, {"delta": 0.7}, (X, Y)),
    "GaussianNLLLoss": (nn.GaussianNLLLoss, {"full": True}, (X, Y, P)),
    "PoissonNLLLoss": (nn.PoissonNLLLoss, {"full": True}, (X, 4 * P)),
    "PoissonNLLLoss of rates": (nn.PoissonNLLLoss, {"log_input": False}, (P, T)),
    "BCELoss": (nn.BCELoss, {}, (P, T)),
    "BCEWithLogitsLoss": (nn.BCEWithLogitsLoss, {"pos_weight": WEIGHT[0]}, (X, T)),
    "KLDivLoss": (nn.KLDivLoss, {}, (X, P)),
    "KLDivLoss of logarithms": (nn.KLDivLoss, {"log_target": True}, (X, Y)),
    "NLLLoss": (nn.NLLLoss, {"weight": WEIGHT[0]}, (X, LABELS)),
    "NLLLoss, ignoring": (nn.NLLLoss, {}, (X, IGNORED)),
    "CrossEntropyLoss": (nn.CrossEntropyLoss, {}, (X, LABELS)),
    "CrossEntropyLoss, ignoring": (nn.CrossEntropyLoss, {"label_smoothing": 0.1}, (X, IGNORED)),
    "CrossEntropyLoss, weighted": (nn.CrossEntropyLoss, {"weight": WEIGHT[0]}, (X, IGNORED)),
    "CrossEntropyLoss of probabilities": (nn.CrossEntropyLoss, {"label_smoothing": 0.1, "weight": WEIGHT[0]}, (X, P)),
    "HingeLoss": (nn.HingeLoss, {}, (X, SIGNS)),
    "SoftMarginLoss": (nn.SoftMarginLoss, {}, (X, SIGNS)),
    "MulticlassHingeLoss": (nn.MulticlassHingeLoss, {}, (X, LABELS)),
    "MultiMarginLoss": (nn.MultiMarginLoss, {"p": 2, "weight": WEIGHT[0]}, (X, LABELS)),
    "CosineEmbeddingLoss": (nn.CosineEmbeddingLoss, {}, (X, Y, SIGNS[..., 0])),
}


def test_every_loss_is_here():
    assert {name for name in nn.__all__ if name.endswith("Loss")} <= {name.partition(",")[0].partition(" ")[0] for name in LOSSES}


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("name", LOSSES)
def test_losses(name, reduction, put):
    """Predictions, targets, and both of them differ by example; values, gradients and second derivatives."""
    make, options, args = LOSSES[name]
    module = make(reduction, **options)
    module = module.to(device_of(put(X)))
    f = lambda *args: gg.sum(gg.sin(gg.asarray(module(*args))))
    floats = tuple(i for i, a in enumerate(args) if a.dtype.kind == "f" and (i == 0 or (a.shape == X.shape and a is not SIGNS)))
    g = gg.value_and_grad(f, floats)
    h = lambda *args: gg.jvp(lambda *at: gg.grad(f)(*at, *args[1:]), (args[0],), (gg.cos(args[0]),))[1]
    whole, first = [put(a) for a in args], [put(a[0]) for a in args]
    for axes in ((0,) * len(args), (0, *[None] * (len(args) - 1)), (None, *[0] * (len(args) - 1))):
        chosen = [a if axis == 0 else b for a, b, axis in zip(whole, first, axes, strict=True)]
        for of in (g, h):
            check(of, *chosen, axes=axes)


def test_cosine_similarity():
    check(lambda a, b: F.cosine_similarity(a, b, dim=-1), X, Y)
    check(gg.jacobian(lambda a, b: F.cosine_similarity(a, b, dim=0)), X, Y)


def test_weights_of_classes_that_differ():
    """They are constants, and may still be those of the example."""
    for f in (
        lambda x, y, w: F.cross_entropy(x, y, weight=w, label_smoothing=0.1),
        lambda x, y, w: F.nll_loss(x, y, "sum", weight=w),
        lambda x, y, w: F.multi_margin_loss(x, y, weight=w),
    ):
        check(f, X, LABELS, WEIGHT)
        check(gg.grad(f), X[0], LABELS, WEIGHT, axes=(None, 0, 0))
        with pytest.raises(TypeError, match="weight is a constant"):
            gg.vmap(gg.grad(f, 2))(X, LABELS, WEIGHT)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("target", ["labels", "probabilities"])
def test_cross_entropy_with_weights_of_each_example_is_one_call_of_the_kernel(target, reduction, monkeypatch):
    """Whatever the logits of an ignored row are, and of no examples too."""
    calls, kernel, x = [], kernel_of_cross_entropy.cross_entropy, X.copy()
    monkeypatch.setattr(kernel_of_cross_entropy, "cross_entropy", lambda *args, **options: calls.append(1) or kernel(*args, **options))
    t = IGNORED if target == "labels" else P
    if target == "labels":
        x[IGNORED == -100] = np.nan, np.inf, 0, 1, 2, 3
    f = lambda x, t, w: F.cross_entropy(x, t, reduction, 0.1, weight=w)
    gg.vmap(f)(x, t, WEIGHT)
    assert len(calls) == 1
    total = lambda x, t, w: gg.sum(gg.sin(f(x, t, w)))
    for g in (f, gg.grad(total), lambda x, t, w: gg.hvp(lambda x: total(x, t, w), x, X[0])):
        check(g, x, t, WEIGHT)
        check(g, x[0], t, WEIGHT, axes=(None, 0, 0))
        check(g, x[0], t[0], WEIGHT, axes=(None, None, 0))
        assert gg.vmap(g)(x[:0], t[:0], WEIGHT[:0]).shape == (0, *g(x[0], t[0], WEIGHT[0]).shape)
    f32 = [a.astype(np.float32) if a.dtype.kind == "f" else a for a in (x, t, WEIGHT)]
    assert gg.vmap(gg.grad(total))(*f32).dtype == np.float32


def test_shapes_and_values_of_targets_are_checked_in_each_example():
    with pytest.raises(ValueError, match=r"logits of shape \(4, 6\) and integer labels of shape \(3,\)"):
        gg.vmap(F.cross_entropy)(X, LABELS[:, 1:])
    with pytest.raises(ValueError, match=r"target of shape \(4, 5\), expected \(4, 6\)"):
        gg.vmap(F.mse_loss)(X, Y[..., 1:])
    with pytest.raises(ValueError, match=r"got weight of shape \(4,\), expected \(6,\)"):
        gg.vmap(lambda x, y, w: F.cross_entropy(x, y, weight=w))(X, LABELS, P[:, :, 0])
    bad = LABELS.copy()
    bad[2, 1] = 6
    for f in (F.cross_entropy, F.nll_loss, F.multiclass_hinge_loss, F.multi_margin_loss):
        for axes, args in (((0, 0), (X, bad)), ((None, 0), (X[0], bad)), ((0, None), (X, bad[2]))):
            with pytest.raises(IndexError, match="label 6 is out of bounds, expected 0 to 5"):
                gg.vmap(f, axes)(*args)
    with pytest.raises(ValueError, match=r"a probability of 1\.5"):
        gg.vmap(F.binary_cross_entropy)(np.where(np.arange(6) == 2, 1.5, P), T)
    with pytest.raises(ValueError, match=r"the label 0\.0"):
        gg.vmap(F.hinge_loss)(X, np.where(np.arange(6) == 2, 0.0, SIGNS))


def test_losses_that_are_infinite_or_of_nothing():
    """An example of which nothing counts is nan by itself; -inf takes out a class of its example."""
    x = X.copy()
    x[0, 0, 1] = -np.inf
    labels = np.where(LABELS == 1, 2, LABELS)
    check(gg.value_and_grad(F.cross_entropy), x, labels)
    y, g = gg.vmap(gg.value_and_grad(F.cross_entropy))(X, IGNORED)
    assert np.isnan(y[1]) and np.isfinite(y[[0, 2]]).all()
    assert (g[1] == 0).all() and (g[[0, 2]] != 0).any()
    x[1, 2] = np.nan  # of a row that is ignored
    assert np.isfinite(gg.vmap(gg.value_and_grad(F.cross_entropy))(x, IGNORED)[1]).all()
    empty = gg.vmap(F.cross_entropy)(X[:, :0], LABELS[:, :0])
    assert np.isnan(empty).all() and empty.shape == (EXAMPLES,)


def test_cross_entropy_runs_its_kernel_once(monkeypatch, put):
    rows = []
    kernel = kernel_of_cross_entropy.cross_entropy
    monkeypatch.setattr(
        kernel_of_cross_entropy,
        "cross_entropy",
        lambda x, *args, **params: rows.append((len(x), params.get("with_residual", True))) or kernel(x, *args, **params),
    )
    x, labels = put(X), put(LABELS)
    gg.vmap(gg.grad(F.cross_entropy))(x, labels)
    assert rows == [(EXAMPLES * ROWS, True)]
    rows.clear()
    gg.vmap(F.cross_entropy)(x, labels)
    assert rows == [(EXAMPLES * ROWS, False)]
    rows.clear()
    for mode in ("reverse-over-forward", "forward-over-reverse"):
        gg.vmap(lambda v: gg.hvp(lambda x: F.cross_entropy(x, labels[0]), x[0], v, mode=mode))(x)  # noqa: B023
    assert {n for n, _ in rows} == {ROWS}  # what does not depend on the vector is computed once
    for reduction in ("mean", "sum", "none"):
        for dtype in (np.float16, np.float32):
            assert gg.vmap(lambda x, y: F.cross_entropy(x, y, reduction))(x.astype(dtype), labels).dtype == dtype  # noqa: B023


# ------------------------------------------------------------------------------------------------- dropout


def test_each_example_has_a_mask_of_its_own(put):
    ones = put(np.ones((5, 40)))
    gg.random.seed(1)
    y = host(gg.vmap(F.dropout)(ones))
    gg.random.seed(1)
    assert_allclose(y, host(F.dropout(ones)))  # one stretch of the stream for all
    assert len({row.tobytes() for row in y}) == 5
    gg.random.seed(1)
    gg.vmap(F.dropout)(ones)
    following = host(F.dropout(ones))  # of the stream behind all that was drawn
    gg.random.seed(1)
    F.dropout(ones)
    assert_allclose(following, host(F.dropout(ones)))


def test_one_mask_for_what_is_shared(put):
    x, v = put(np.ones(40)), put(RNG.normal(size=(5, 40)))
    gg.random.seed(2)
    y = host(gg.vmap(lambda v: F.dropout(x) * v)(v))
    gg.random.seed(2)
    assert_allclose(y, host(F.dropout(x)) * host(v))
    gg.random.seed(2)
    mixed = host(gg.vmap(lambda v: v + gg.mean(F.dropout(put(np.ones((1, 40)))), axis=1))(v))  # pytorch/pytorch#92283
    assert mixed.shape == (5, 40)


def test_derivatives_have_the_mask_of_the_value(put):
    """Of each example, of many tangents at one, and of the Hessian in both."""
    x, v = put(RNG.normal(size=(5, 8)) + 3), put(RNG.normal(size=(4, 8)))
    f = lambda x: gg.sum(F.dropout(x, 0.4) ** 3)

    def seeded(g):
        gg.random.seed(3)
        return g()

    masks = seeded(lambda: host(F.dropout(put(np.ones((5, 8))), 0.4)))
    mask = seeded(lambda: host(F.dropout(put(np.ones(8)), 0.4)))
    at = host(x)
    assert_allclose(seeded(lambda: host(gg.vmap(gg.grad(f))(x))), 3 * at**2 * masks**3)
    assert_allclose(seeded(lambda: host(gg.vmap(gg.hessian(f))(x))), [np.diag(row) for row in 6 * at * masks**3])
    assert_allclose(seeded(lambda: host(gg.vmap(lambda v: gg.jvp(lambda x: F.dropout(x, 0.4), (x[0],), (v,))[1])(v))), mask * host(v))
    assert_allclose(seeded(lambda: host(gg.vmap(lambda v: gg.hvp(f, x[0], v))(v))), 6 * at[0] * mask**3 * host(v))
    assert_allclose(seeded(lambda: host(gg.grad(lambda x: gg.sum(gg.vmap(f)(x)))(x))), 3 * at**2 * masks**3)
    y, pullback = seeded(lambda: gg.vjp(lambda x: F.dropout(x, 0.4), x[0]))
    assert_allclose(host(gg.vmap(pullback)(v)[0]), mask * host(v))
    inner = seeded(lambda: gg.vmap(gg.vmap(lambda x: F.dropout(x, 0.4)))(put(np.ones((5, 2, 4)))))
    assert_allclose(host(inner).reshape(5, 8), masks)


def test_dropout_in_a_model(put):
    module = nn.MLP([6, 8, 3], dropout=0.5, dtype=np.float64).to(device_of(put(X)))
    params = dict(module.named_parameters())

    def seeded(f):
        gg.random.seed(4)
        return f()

    loss = lambda p, x: gg.sum(nn.functional_call(module, p, x) ** 2)
    g = seeded(lambda: gg.vmap(gg.grad(loss), (None, 0))(params, put(X)))
    whole = seeded(lambda: gg.grad(lambda p: loss(p, put(X)))(params))  # the same stretch: x of all examples is one array
    for path, a in g.items():
        assert_allclose(host(a).sum(0), host(whole[path]), rtol=1e-10)


# ------------------------------------------------------------------------------------------------- random numbers


def test_random_numbers_are_the_same_for_all():
    gg.random.seed(6)
    y = gg.vmap(lambda x: x * gg.random.normal(size=3))(np.ones((4, 1)))
    assert (y == y[0]).all() and len(set(y[0])) == 3
    order = gg.vmap(gg.random.permutation)(np.arange(12).reshape(3, 4))
    assert (order - order[0] == 4 * np.arange(3)[:, None]).all() and set(order[0]) == {0, 1, 2, 3}
    chosen = gg.vmap(lambda x: gg.random.choice(x, 2))(np.arange(12).reshape(3, 4))
    assert (chosen - chosen[0] == 4 * np.arange(3)[:, None]).all()


def test_bernoulli_of_probabilities_that_differ(put):
    y = gg.vmap(gg.random.bernoulli)(put(np.stack([np.zeros(50), np.full(50, 0.5), np.full(50, 0.5), np.ones(50)])))
    y = host(y)
    assert not y[0].any() and y[3].all() and 5 < y[1].sum() < 45 and (y[1] != y[2]).any()
    with pytest.raises(ValueError, match="got a size, and probabilities that depend on the example"):
        gg.vmap(lambda p: gg.random.bernoulli(p, 3))(np.ones(2))
    with pytest.raises(ValueError, match=r"choice inside gg\.vmap: got probabilities"):
        gg.vmap(lambda p: gg.random.choice(3, p=p))(np.full((2, 3), 1 / 3))
    with pytest.raises(TypeError, match=r"inside gg\.vmap"):
        gg.vmap(lambda s: gg.random.normal(0.0, s))(np.ones(2))
