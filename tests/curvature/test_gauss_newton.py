"""GaussNewtonOperator and FisherOperator against J' H_L J, loops over examples, and each other."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
from curvature_cases import IGNORED, LOSSES, MODELS, WEIGHT, N, cut, dense_hessian, dense_jacobian, labels, module, net, parameters, reals
from numpy.testing import assert_allclose, assert_array_equal

import gpugrad as gg
from gpugrad import nn
from gpugrad.curvature import FisherOperator, GaussNewtonOperator, HessianOperator, gauss_newton
from gpugrad.curvature.likelihoods import recognised
from gpugrad.nn import functional as F  # noqa: N812

CLOSE = {"rtol": 1e-9, "atol": 1e-12}
CLOSED = [name for name, (loss, _) in LOSSES.items() if isinstance(loss, (nn.MSELoss, nn.CrossEntropyLoss, nn.BCEWithLogitsLoss))]


def dense(m: nn.Module, loss: Any, x: Any, y: Any) -> np.ndarray:
    """J' H_L J with both factors as matrices."""
    xs = x if isinstance(x, tuple) else (x,)
    z = nn.functional_call(m, parameters(m), *xs).numpy()
    J = dense_jacobian(lambda p: nn.functional_call(m, p, *xs), parameters(m))
    return J.T @ gg.hessian(lambda z: loss(z, y))(z).reshape(z.size, z.size) @ J


# ---------------------------------------------------------------------------------- Gauss-Newton


@pytest.mark.parametrize("name", MODELS)
def test_of_every_layer(name: str) -> None:
    make, x = MODELS[name]
    m, y = module(make), labels(N, 3)
    G = GaussNewtonOperator(m, nn.CrossEntropyLoss(), data=cut(x, y, 3, 3, 1))
    assert_allclose(G.to_dense(), dense(m, F.cross_entropy, x, y), **CLOSE)


@pytest.mark.parametrize("name", LOSSES)
def test_of_every_loss(name: str) -> None:
    loss, y = LOSSES[name]
    m, x = net(), reals(N, 4)
    expected = dense(m, loss, x, y)
    G = GaussNewtonOperator(m, loss, data=[(x, y)])
    assert (G.likelihood is not None) == (name in CLOSED)
    assert_allclose(G.to_dense(), expected, **CLOSE)
    assert_allclose(GaussNewtonOperator(m, lambda z, y: loss(z, y), data=[(x, y)]).to_dense(), expected, **CLOSE)  # the closed form is nobody's but the loss's
    v = reals(G.shape[0])
    assert_allclose(G @ v, expected @ v, **CLOSE)
    assert_allclose(GaussNewtonOperator(m, loss, data=[(x, y)], memory=0) @ v, expected @ v, **CLOSE)


@pytest.mark.parametrize("name", CLOSED)
def test_closed_forms_do_without_derivatives_of_the_loss(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(gauss_newton, "linearize")
    loss, y = LOSSES[name]
    GaussNewtonOperator(net(), loss, data=[(reals(N, 4), y)]).to_dense()
    with pytest.raises(NameError):
        GaussNewtonOperator(net(), lambda z, y: loss(z, y), data=[(reals(N, 4), y)])


@pytest.mark.parametrize("name", CLOSED)
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_ragged_batches_are_all_data_at_once(name: str, reduction: str) -> None:
    loss, _ = LOSSES[name]
    rng = np.random.default_rng(2)
    y = rng.uniform(size=(69, 3))
    if isinstance(loss, nn.CrossEntropyLoss) and "probabilities" not in name:
        y = np.where(rng.uniform(size=69) < 0.3, -100, labels(69, 3))
    m, x = net(), reals(69, 4)
    loss = type(loss)(**{**{k: v for k, v in vars(loss).items() if k != "training"}, "reduction": reduction})
    whole, parts = (GaussNewtonOperator(m, loss, data=cut(x, y, *sizes), reduction=reduction) for sizes in ((69,), (32, 32, 5)))
    assert_allclose(parts.to_dense(), whole.to_dense(), rtol=1e-11, atol=1e-13)
    assert_allclose(parts.value(), whole.value(), rtol=1e-13)
    assert_allclose(parts.gradient(flat=True), whole.gradient(flat=True), rtol=1e-10, atol=1e-14)


def test_it_is_the_hessian_of_a_linear_model() -> None:
    m, x, y = module(lambda: nn.Linear(4, 3)), reals(N, 4), labels(N, 3)
    H = HessianOperator(lambda m, b: F.cross_entropy(m(b[0]), b[1]), m, [(x, y)])
    assert_allclose(GaussNewtonOperator(m, nn.CrossEntropyLoss(), data=[(x, y)]).to_dense(), H.to_dense(), **CLOSE)


def test_it_is_positive_semi_definite_where_the_hessian_is_not() -> None:
    m, x, y = net(), reals(N, 4), labels(N, 3)
    H = HessianOperator(lambda m, b: F.cross_entropy(m(b[0]), b[1]), m, [(x, y)])
    G = GaussNewtonOperator(m, "cross_entropy", data=[(x, y)])
    assert np.linalg.eigvalsh(H.to_dense()).min() < -1e-2
    assert np.linalg.eigvalsh(G.to_dense()).min() > -1e-14


def test_classes_on_axis_one_with_positions_behind() -> None:
    class Positions(nn.Module):
        def __init__(self) -> None:
            self.weight = nn.Parameter(reals(4, 3, 2))

        def forward(self, x: Any) -> Any:
            return gg.tanh(gg.einsum("ni,icd->ncd", x, self.weight))

    m, x, y = Positions(), reals(N, 4), np.where(labels(2 * N, 5).reshape(N, 2) == 0, -100, labels(2 * N, 3, seed=1).reshape(N, 2))
    expected = dense(m, lambda z, y: F.cross_entropy(z, y, weight=WEIGHT), x, y)
    loss = nn.CrossEntropyLoss(weight=WEIGHT)
    assert_allclose(GaussNewtonOperator(m, loss, data=cut(x, y, 4, 3)).to_dense(), expected, **CLOSE)
    drawn = FisherOperator(m, loss, data=cut(x, y, 4, 3), kind="monte-carlo", samples=3000).to_dense()
    assert abs(drawn - expected).max() < 0.05 * abs(expected).max()


def test_functions_of_params_and_outputs_in_nests() -> None:
    params, x, y = {"a": reals(4, 2), "b": [reals(2, seed=1)]}, reals(N, 4), reals(N, 2, seed=2)
    model = lambda p, x: {"mean": gg.tanh(x @ p["a"]), "var": [gg.exp(p["b"][0])]}
    loss = lambda z, y: F.gaussian_nll_loss(z["mean"], y, gg.broadcast_to(z["var"][0], y.shape))
    G = GaussNewtonOperator(model, loss, params, [(x, y)])
    J = gg.jacobian(lambda a, b: gg.concatenate([gg.tanh(x @ a).reshape(-1), gg.exp(b)]), argnums=(0, 1))(params["a"], params["b"][0])
    J = np.concatenate([j.reshape(2 * N + 2, -1) for j in J], axis=1)
    z = np.concatenate([np.tanh(x @ params["a"]).reshape(-1), np.exp(params["b"][0])])
    H = gg.hessian(lambda z: loss({"mean": z[:-2].reshape(N, 2), "var": [z[-2:]]}, y))(z)
    assert_allclose(G.to_dense(), J.T @ H @ J, **CLOSE)
    assert_allclose((G @ params)["b"][0], (J.T @ H @ J @ G.domain.flat(params))[-2:], **CLOSE)


def test_without_data() -> None:
    x, y = reals(N, 4), reals(N, seed=1)
    G = GaussNewtonOperator(lambda w: x @ w, lambda z: gg.mean((z - y) ** 2), reals(4))
    assert_allclose(G.to_dense(), 2 / N * x.T @ x, rtol=1e-12)


def test_some_of_a_modules_parameters() -> None:
    m, x, y = net(), reals(N, 4), labels(N, 3)
    some = {"2.weight": parameters(m)["2.weight"], "0.bias": parameters(m)["0.bias"]}
    G, whole = GaussNewtonOperator(m, "cross_entropy", some, [(x, y)]), GaussNewtonOperator(m, "cross_entropy", data=[(x, y)])
    assert_allclose(G.to_dense(), whole.block(["2.weight", "0.bias"]).to_dense(), **CLOSE)


def test_what_it_refuses() -> None:
    m, x, y = net(), reals(N, 4), labels(N, 3)
    with pytest.raises(TypeError, match=r"params is None.*the model is function"):
        GaussNewtonOperator(lambda p, x: x, nn.MSELoss(), data=[(x, x)])
    with pytest.raises(ValueError, match="the loss has reduction='mean', but the operator was told 'sum': pass reduction='mean' to the operator"):
        GaussNewtonOperator(m, nn.MSELoss(), data=[(x, reals(N, 3))], reduction="sum")
    with pytest.raises(TypeError, match=r"the loss is a Sequential that has parameters: expected \(model, loss, params, data\)"):
        GaussNewtonOperator(lambda z, y: z, m, [(x, reals(N, 3))])
    with pytest.raises(ValueError, match="the loss has reduction='sum', but the operator was told 'mean': pass reduction='sum'"):
        GaussNewtonOperator(m, nn.CrossEntropyLoss("sum"), data=[(x, y)])
    with pytest.raises(ValueError, match="reduction='none'"):
        GaussNewtonOperator(m, nn.MSELoss("none"), data=[(x, y)])
    with pytest.raises(ValueError, match="unknown loss 'hinge'"):
        GaussNewtonOperator(m, "hinge", data=[(x, y)])
    with pytest.raises(TypeError, match="expected a function of"):
        GaussNewtonOperator(m, nn.MSELoss, data=[(x, y)])
    with pytest.raises(ValueError, match=r"batch 0 is 3 parts, expected a pair.*\(\(x1, x2\), y\)"):
        GaussNewtonOperator(m, nn.MSELoss(), data=[(x, x, y)])
    with pytest.raises(ValueError, match="outputs do not depend on the parameters"):
        GaussNewtonOperator(lambda p, x: m(x), nn.MSELoss(), parameters(m), [(x, reals(N, 3))])
    with pytest.raises(KeyError, match=r"no parameter '0\.weights'; it has 0\.weight"):
        GaussNewtonOperator(m, nn.MSELoss(), {"0.weights": reals(4, 5)}, [(x, reals(N, 3))])
    with pytest.raises(ValueError, match=r"parameter '0\.weight' has shape \(5, 4\), but that of Sequential has \(4, 5\)"):
        GaussNewtonOperator(m, nn.MSELoss(), {"0.weight": reals(5, 4)}, [(x, reals(N, 3))])
    with pytest.raises(ValueError, match="Dropout"):
        GaussNewtonOperator(nn.Sequential(nn.Dropout(), nn.Linear(4, 3)).double(), nn.MSELoss(), data=[(x, reals(N, 3))])
    with pytest.raises(ValueError, match=r"batch 1 counts 0\.0 in the mean"):
        GaussNewtonOperator(m, nn.CrossEntropyLoss(), data=[(x, y), (x[:2], np.array([-100, -100]))])


def test_reductions() -> None:
    m, x, q = net(), reals(N, 4), np.abs(reals(N, 3))
    z = lambda m: nn.Sequential(m, nn.LogSoftmax())
    by_rows = GaussNewtonOperator(z(m), nn.KLDivLoss("batchmean"), data=cut(x, q, 4, 3))
    by_elements = GaussNewtonOperator(z(m), nn.KLDivLoss("mean"), data=[(x, q)])
    assert_allclose(by_rows.to_dense(), 3 * by_elements.to_dense(), rtol=1e-10, atol=1e-14)
    ignored = [(x, labels(N, 3)), (x[:2], np.array([-100, -100]))]  # of which nothing counts in a sum, and a mean is none
    total = GaussNewtonOperator(m, nn.CrossEntropyLoss("sum"), data=ignored, reduction="sum").to_dense()
    assert_allclose(total, N * GaussNewtonOperator(m, nn.CrossEntropyLoss(), data=ignored[:1]).to_dense(), rtol=1e-10)


def test_losses_are_recognised_in_every_way_of_writing_them() -> None:
    for loss in ("cross_entropy", F.cross_entropy, nn.CrossEntropyLoss(), functools.partial(F.cross_entropy, ignore_index=3)):
        assert type(recognised(loss, "mean")[1]).__name__ == "CrossEntropy"
    assert recognised(functools.partial(functools.partial(F.cross_entropy, label_smoothing=0.1), label_smoothing=0.2), "mean")[1].smoothing == 0.2  # type: ignore[union-attr]

    class Mine(nn.MSELoss):
        def forward(self, z: Any, y: Any) -> Any:
            return gg.sum((z - y) ** 4)

    assert recognised(Mine(), "mean")[1] is None
    assert recognised(functools.partial(F.mse_loss, reals(3)), "mean")[1] is None


# ---------------------------------------------------------------------------------- Fisher


@pytest.mark.parametrize("name", CLOSED)
def test_exact_fisher_is_gauss_newton(name: str) -> None:
    loss, y = LOSSES[name]
    m, x = net(), reals(N, 4)
    F_ = FisherOperator(m, loss, data=cut(x, y, 4, 3))
    assert_allclose(F_.to_dense(), dense(m, loss, x, y), **CLOSE)


@pytest.mark.parametrize("name", CLOSED)
def test_monte_carlo_fisher_converges_to_the_exact_one(name: str) -> None:
    """v' F v is a mean over draws: over many seeds it is within five standard errors of the exact one."""
    loss, y = LOSSES[name]
    m, x = net(), reals(N, 4)
    exact = dense(m, loss, x, y)
    v = reals(len(exact), seed=4)
    drawn = np.array([v @ (FisherOperator(m, loss, data=[(x, y)], kind="monte-carlo", samples=5, seed=s, check_deterministic=False) @ v) for s in range(200)])
    assert abs(drawn.mean() - v @ exact @ v) < 5 * drawn.std() / np.sqrt(200)
    assert drawn.std() / np.sqrt(200) < 0.1 * (v @ exact @ v)
    many = v @ (FisherOperator(m, loss, data=[(x, y)], kind="monte-carlo", samples=1000) @ v)
    assert abs(many - v @ exact @ v) < 5 * drawn.std() / np.sqrt(200)


@pytest.mark.parametrize("name", CLOSED)
def test_monte_carlo_draws_are_the_same_in_every_product_and_however_data_is_cut(name: str) -> None:
    loss, y = LOSSES[name]
    m, x = net(), reals(N, 4)
    make = lambda *sizes, **options: FisherOperator(m, loss, data=cut(x, y, *sizes), kind="monte-carlo", samples=2, **options)
    v = reals(make(N).shape[0])
    first = make(3, 3, 1)
    assert_array_equal(first @ v, first @ v)
    assert_array_equal(first @ v, make(3, 3, 1, memory=0) @ v)
    assert_allclose(first @ v, make(N) @ v, rtol=1e-9, atol=1e-12)
    assert abs(first @ v - make(3, 3, 1, seed=1) @ v).max() > 1e-3
    assert_allclose(first.to_dense() @ v, first @ v, rtol=1e-9, atol=1e-12)


def _per_example(m: nn.Module, loss: Any, x: Any, y: Any, s: float) -> np.ndarray:
    """s times the sum of the outer products of the gradients of the examples' own losses, which are sums."""
    total: Any = 0.0
    for i in range(len(x)):
        g = gg.grad(lambda p, i=i: loss(nn.functional_call(m, p, x[i : i + 1]), y[i : i + 1]))(parameters(m))
        g = np.concatenate([part.reshape(-1) for part in g.values()])
        total = total + s * np.outer(g, g)
    return total


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("sizes", [(N,), (3, 3, 1)])
def test_empirical_fisher_is_the_loop_over_examples(reduction: str, sizes: tuple[int, ...]) -> None:
    m, x = net(), reals(N, 4)
    cases: list[tuple[Any, Any, Any, float]] = [
        (nn.CrossEntropyLoss(reduction), functools.partial(F.cross_entropy, reduction="sum"), labels(N, 3), N),
        (nn.MSELoss(reduction), functools.partial(F.mse_loss, reduction="sum"), reals(N, 3, seed=1), 3 * N),
        (nn.BCEWithLogitsLoss(reduction), functools.partial(F.bce_with_logits, reduction="sum"), 1.0 * labels(3 * N, 2).reshape(N, 3), 3 * N),
        (
            nn.CrossEntropyLoss(reduction, weight=WEIGHT),
            lambda z, y: F.cross_entropy(z, y, "sum", weight=WEIGHT),
            IGNORED,
            float(WEIGHT[IGNORED[IGNORED >= 0]].sum()),
        ),
        (  # one that is not recognised: of N rows
            lambda z, y: (gg.mean if reduction == "mean" else gg.sum)(gg.sum(gg.cosh(z - y), axis=1)),
            lambda z, y: gg.sum(gg.cosh(z - y)),
            reals(N, 3, seed=1),
            N,
        ),
    ]
    for loss, each, y, divisor in cases:
        got = FisherOperator(m, loss, data=cut(x, y, *sizes), kind="empirical", reduction=reduction).to_dense()
        assert_allclose(got, _per_example(m, each, x, y, 1 / divisor if reduction == "mean" else 1.0), rtol=1e-9, atol=1e-12)


def test_empirical_and_exact_fisher_agree_where_the_labels_come_from_the_model() -> None:
    """Of many examples whose labels are drawn from the model, the two scales are the same: for C outputs as well."""
    rng = np.random.default_rng(0)
    m, x = net(), rng.normal(size=(20000, 4))
    z = m(x).numpy()
    v = reals(sum(p.size for p in m.parameters()))
    p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
    drawn = {
        nn.MSELoss(): z + np.sqrt(0.5) * rng.normal(size=z.shape),
        nn.BCEWithLogitsLoss(): (rng.uniform(size=z.shape) < 1 / (1 + np.exp(-z))).astype(float),
        nn.CrossEntropyLoss(): (rng.uniform(size=(len(z), 1)) > p.cumsum(1)).sum(1),
    }
    for loss, y in drawn.items():
        exact, empirical = (v @ (FisherOperator(m, loss, data=[(x, y)], kind=kind) @ v) for kind in ("exact", "empirical"))
        assert_allclose(empirical, exact, rtol=0.05)


def test_fisher_is_symmetric_and_positive() -> None:
    m, x, y = net(), reals(N, 4), labels(N, 3)
    for kind in ("exact", "monte-carlo", "empirical"):
        D = FisherOperator(m, "cross_entropy", data=cut(x, y, 4, 3), kind=kind).to_dense()
        assert_allclose(D, D.T, rtol=1e-12, atol=1e-15)
        assert np.linalg.eigvalsh(D).min() > -1e-13


def test_what_fisher_refuses() -> None:
    m, x, y = net(), reals(N, 4), labels(N, 3)
    with pytest.raises(ValueError, match="kind must be one of 'exact', 'monte-carlo', 'empirical', got 'mc'"):
        FisherOperator(m, "cross_entropy", data=[(x, y)], kind="mc")
    with pytest.raises(ValueError, match="a Fisher matrix is one of data"):
        FisherOperator(m, "cross_entropy")
    for kind in ("exact", "monte-carlo"):
        with pytest.raises(ValueError, match=r"no negative log likelihood that is known here.*nn\.CrossEntropyLoss"):
            FisherOperator(m, nn.HuberLoss(), data=[(x, reals(N, 3))], kind=kind)
    with pytest.raises(ValueError, match="samples must be at least 1"):
        FisherOperator(m, "cross_entropy", data=[(x, y)], samples=0)
    with pytest.raises(ValueError, match=r"outputs are of shape \(3,\), expected .* 7 rows"):
        FisherOperator(lambda p, x: gg.mean(x @ p, axis=0), "mse", reals(4, 3), [(x, reals(3))])


def test_on_a_device(device: str, put: Any) -> None:
    x, params = reals(N, 4), {"w": reals(4, 3), "b": reals(3, seed=1)}
    model = lambda p, x: gg.tanh(x @ p["w"] + p["b"])
    scale = gg.tensor(1.5, dtype=np.float64, device=device, requires_grad=True)  # what requires grad is a constant
    there = {k: put(v) for k, v in params.items()}
    for loss, y in (("cross_entropy", labels(N, 3)), ("mse", reals(N, 3)), ("bce_with_logits", 1.0 * labels(3 * N, 2).reshape(N, 3))):
        for kind in ("exact", "monte-carlo", "empirical"):
            expected = FisherOperator(model, loss, params, cut(x, y, 4, 3), kind=kind).to_dense()
            got = FisherOperator(lambda p, x: model(p, x) * (scale / 1.5), loss, there, [(put(a), put(b)) for a, b in cut(x, y, 4, 3)], kind=kind).to_dense()
            assert gg.backend.device_of(got).startswith(device)
            assert_allclose(gg.backend.to_device(got, "cpu"), expected, rtol=1e-10, atol=1e-13)


def test_float32_stays_float32() -> None:
    m, x = net().float(), reals(N, 4).astype(np.float32)
    for loss, y in (("cross_entropy", labels(N, 3)), ("mse", reals(N, 3).astype(np.float32)), ("bce_with_logits", labels(3 * N, 2).reshape(N, 3))):
        for kind in ("exact", "monte-carlo", "empirical"):
            assert (FisherOperator(m, loss, data=[(x, y)], kind=kind) @ reals(43, 2)).dtype == np.float32


def test_gauss_newton_is_the_hessian_at_a_perfect_fit() -> None:
    """Where the residuals are zero the model's own curvature has no weight."""
    m, x = net(), reals(N, 4)
    y = m(x).numpy()
    H = dense_hessian(lambda p: F.mse_loss(nn.functional_call(m, p, x), y), parameters(m))
    assert_allclose(GaussNewtonOperator(m, nn.MSELoss(), data=[(x, y)]).to_dense(), H, rtol=1e-9, atol=1e-12)
