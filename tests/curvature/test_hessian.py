"""HessianOperator against the dense Hessian, closed forms, and what it refuses."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest
from curvature_cases import LOSSES, MODELS, N, cut, dense_hessian, labels, module, net, parameters, reals
from numpy.testing import assert_allclose, assert_array_equal

import gpugrad as gg
from gpugrad import nn
from gpugrad.curvature import HessianOperator, objective
from gpugrad.data import DataLoader, TensorDataset
from gpugrad.nn import functional as F  # noqa: N812

CLOSE = {"rtol": 1e-9, "atol": 1e-11}


def called(m: nn.Module, x: Any) -> Any:
    return m(*x) if isinstance(x, tuple) else m(x)


# ---------------------------------------------------------------------------------- dense


@pytest.mark.parametrize("name", MODELS)
def test_hessian_of_every_layer_is_the_dense_one(name: str) -> None:
    make, x = MODELS[name]
    m, y = module(make), reals(N, 3, seed=1)
    H = HessianOperator(lambda m, batch: F.mse_loss(called(m, batch[0]), batch[1]), m, cut(x, y, 3, 3, 1))
    dense = dense_hessian(lambda p: F.mse_loss(nn.functional_call(m, p, *(x if isinstance(x, tuple) else (x,))), y), parameters(m))
    assert_allclose(H.to_dense(), dense, **CLOSE)
    assert abs(dense).max() > 1e-3


@pytest.mark.parametrize("name", LOSSES)
def test_hessian_of_every_loss_is_the_dense_one(name: str) -> None:
    loss, y = LOSSES[name]
    m, x = net(), reals(N, 4)
    H = HessianOperator(lambda m, batch: loss(m(batch[0]), batch[1]), m, [(x, y)])
    dense = dense_hessian(lambda p: loss(nn.functional_call(m, p, x), y), parameters(m))
    assert_allclose(H.to_dense(), dense, **CLOSE)
    v = reals(H.shape[0], seed=2)
    assert_allclose(H @ v, dense @ v, **CLOSE)
    assert_allclose(HessianOperator(lambda m, batch: loss(m(batch[0]), batch[1]), m, [(x, y)], memory=0) @ v, dense @ v, **CLOSE)


@pytest.mark.parametrize("memory", [None, 0])
def test_a_loss_may_ask_the_module_for_its_parameters(memory: int | None) -> None:
    """As weight decay does, in every mode of differentiation and of none."""
    m, x, y = net(), reals(N, 4), labels(N, 3)
    decayed = lambda m, b: F.cross_entropy(m(b[0]), b[1]) + gg.sqrt(sum(gg.sum(p**2) for p in m.parameters()))
    H = HessianOperator(decayed, m, [(x, y)], memory=memory)
    flat = lambda p: F.cross_entropy(nn.functional_call(m, p, x), y) + gg.sqrt(sum(gg.sum(v**2) for v in p.values()))
    D, v = dense_hessian(flat, parameters(m)), reals(H.shape[0])
    assert_allclose(H @ v, D @ v, **CLOSE)
    assert_allclose(H.to_dense(), D, **CLOSE)
    assert_allclose(H.at(m).value(), decayed(m, (x, y)).item(), rtol=1e-12)
    assert_allclose(H.block("0.bias") @ reals(5), D[20:25, 20:25] @ reals(5), **CLOSE)
    assert [path for path, _ in m.named_parameters()] == list(parameters(m))


def test_nothing_is_left_in_the_module() -> None:
    m = module(lambda: nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Linear(5, 3)))
    before = {path: (id(t.data), t.data.copy(), t.requires_grad, t.grad) for path, t in m._named_tensors()}
    HessianOperator(lambda m, b: F.mse_loss(m(b[0]), b[1]), m, [(reals(N, 4), reals(N, 3))]).to_dense()
    for path, t in m._named_tensors():
        assert (id(t.data), t.requires_grad, t.grad) == (before[path][0], *before[path][2:])
        assert_array_equal(t.data, before[path][1])


# ---------------------------------------------------------------------------------- closed forms


def test_quadratic_form() -> None:
    A = reals(6, 6)
    H = HessianOperator(lambda x: 0.5 * (x @ A @ x), reals(6, seed=1))
    assert_allclose(H.to_dense(), (A + A.T) / 2, rtol=1e-12)


def test_linear_least_squares_is_two_over_n_times_x_transposed_x() -> None:
    X, y = reals(69, 5), reals(69, seed=1)
    H = HessianOperator(lambda w, b: gg.mean((b[0] @ w - b[1]) ** 2), reals(5, seed=2), cut(X, y, 32, 32, 5))
    assert_allclose(H.to_dense(), 2 / 69 * X.T @ X, rtol=1e-12)


def test_logistic_regression() -> None:
    X, y, w = reals(30, 4), labels(30, 2).astype(float), reals(4, seed=2)
    H = HessianOperator(lambda w, b: F.bce_with_logits(b[0] @ w, b[1]), w, cut(X, y, 16, 14))
    s = 1 / (1 + np.exp(-X @ w))
    assert_allclose(H.to_dense(), X.T @ (X * (s * (1 - s))[:, None]) / 30, rtol=1e-11)


def test_softmax_regression() -> None:
    X, y, W = reals(20, 4), labels(20, 3), reals(4, 3, seed=2)
    H = HessianOperator(lambda W, b: F.cross_entropy(b[0] @ W, b[1]), W, cut(X, y, 8, 8, 4))
    p = np.exp(X @ W)
    p /= p.sum(1, keepdims=True)
    expected = sum(np.kron(np.outer(x, x), np.diag(q) - np.outer(q, q)) for x, q in zip(X, p)) / 20
    assert_allclose(H.to_dense(), expected, rtol=1e-10, atol=1e-13)


def test_a_loss_that_is_linear_in_a_parameter_has_a_hessian_of_zeros_there() -> None:
    H = HessianOperator(lambda p: gg.sum(p["a"]) + gg.sum(p["b"] ** 3), {"a": reals(2), "b": reals(2, seed=1), "unused": reals(1)})
    assert_allclose(H.to_dense(), np.diag([0, 0, *(6 * reals(2, seed=1)), 0]), rtol=1e-12)
    assert_array_equal(HessianOperator(lambda x: gg.sum(2 * x), reals(3)).to_dense(), np.zeros((3, 3)))


# ---------------------------------------------------------------------------------- batches


@pytest.mark.parametrize("memory", [None, 0, 4000])
def test_ragged_batches_are_all_data_at_once(memory: int | None) -> None:
    m, X, y = net(), reals(69, 4), labels(69, 3)
    loss = lambda m, b: F.cross_entropy(m(b[0]), b[1])
    whole, parts = (HessianOperator(loss, m, cut(X, y, *sizes), memory=memory) for sizes in ((69,), (32, 32, 5)))
    assert_allclose(parts.to_dense(), whole.to_dense(), rtol=1e-12, atol=1e-15)
    v = reals(whole.shape[0])
    for _ in range(2):  # what is kept after the first product gives the same
        assert_allclose(parts @ v, whole @ v, rtol=1e-11, atol=1e-15)
    assert_allclose(parts.value(), whole.value(), rtol=1e-14)
    assert_allclose(parts.gradient(flat=True), whole.gradient(flat=True), rtol=1e-11, atol=1e-16)


def test_sums_are_added() -> None:
    m, X, y = net(), reals(11, 4), labels(11, 3)
    loss = lambda m, b: F.cross_entropy(m(b[0]), b[1], "sum")
    whole, parts = (HessianOperator(loss, m, cut(X, y, *sizes), reduction="sum") for sizes in ((11,), (4, 4, 3)))
    assert_allclose(parts.to_dense(), whole.to_dense(), rtol=1e-12, atol=1e-13)
    assert_allclose(parts.value(), whole.value(), rtol=1e-14)


def test_count_says_what_a_batch_counts() -> None:
    m, X, y = net(), reals(12, 4), np.where(np.arange(12) < 5, -100, labels(12, 3))
    loss = lambda m, b: F.cross_entropy(m(b[0]), b[1])
    whole = HessianOperator(loss, m, [(X, y)]).to_dense()
    parts = cut(X, y, 6, 6)  # one label in the first, six in the second
    assert_allclose(HessianOperator(loss, m, parts, count=lambda b: (b[1] >= 0).sum()).to_dense(), whole, rtol=1e-11, atol=1e-15)
    assert abs(HessianOperator(loss, m, parts).to_dense() - whole).max() > 1e-3


def test_data_loaders_are_gone_through_in_order_and_to_the_end() -> None:
    m, X, y = net(), reals(11, 4), labels(11, 3)
    loss = lambda m, b: F.cross_entropy(m(b[0]), b[1])
    loader = DataLoader(TensorDataset(X, y), 4, shuffle=True, drop_last=True)
    expected = HessianOperator(loss, m, [(X, y)])
    H = HessianOperator(loss, m, loader)
    assert_allclose(H.to_dense(), expected.to_dense(), rtol=1e-11, atol=1e-15)
    batches = 0
    for _ in loader:  # an iteration that is under way goes on
        H.value()
        batches += 1
    assert batches == 2


def test_batches_are_any_nest() -> None:
    X, y = reals(9, 3), reals(9, seed=1)
    data = [{"x": X[:4], "y": y[:4]}, {"x": X[4:], "y": y[4:]}]
    H = HessianOperator(lambda w, b: gg.mean((b["x"] @ w - b["y"]) ** 2), reals(3), data)
    assert_allclose(H.to_dense(), 2 / 9 * X.T @ X, rtol=1e-12)


# ---------------------------------------------------------------------------------- symmetry, bits, precision, devices


def test_it_is_symmetric_to_rounding() -> None:
    m, X, y = net(), reals(9, 4), labels(9, 3)
    H = HessianOperator(lambda m, b: F.cross_entropy(m(b[0]), b[1]), m, cut(X, y, 5, 4))
    u, v = reals(H.shape[0]), reals(H.shape[0], seed=1)
    assert_allclose(u @ (H @ v), v @ (H @ u), rtol=1e-12)


@pytest.mark.parametrize("memory", [None, 0])
def test_products_have_the_same_bits_every_time(memory: int | None) -> None:
    m, X, y = net(), reals(9, 4), labels(9, 3)
    make = lambda: HessianOperator(lambda m, b: F.cross_entropy(m(b[0]), b[1]), m, cut(X, y, 5, 4), memory=memory)
    H, v = make(), reals(make().shape[0])
    assert_array_equal(H @ v, H @ v)
    assert_array_equal(H @ v, make() @ v)
    assert_array_equal(H.to_dense(), make().to_dense())


def test_float32_agrees_with_float64_and_stays_float32() -> None:
    m, X, y = net(), reals(9, 4), labels(9, 3)
    H = HessianOperator(lambda m, b: F.cross_entropy(m(b[0]), b[1]), m, [(X, y)])
    v = reals(H.shape[0])
    single = HessianOperator(lambda m, b: F.cross_entropy(m(b[0]), b[1]), m.float(), [(X.astype(np.float32), y)])
    product = single @ v.astype(np.float32)
    assert single.dtype == product.dtype == np.float32
    assert (single @ v).dtype == np.float32
    assert_allclose(product, H @ v, rtol=2e-5, atol=1e-6)


def test_on_a_device(device: str, put: Any) -> None:
    X, y = reals(9, 4), labels(9, 3)
    params = {"w": reals(4, 3), "b": reals(3, seed=1)}
    loss = lambda p, b: F.cross_entropy(gg.tanh(b[0] @ p["w"] + p["b"]), b[1])
    expected = HessianOperator(loss, params, cut(X, y, 5, 4))
    H = HessianOperator(loss, {k: put(x) for k, x in params.items()}, [(put(a), put(b)) for a, b in cut(X, y, 5, 4)])
    assert H.device.startswith(device)
    v, V = reals(15), reals(15, 3)
    for given in (v, V):
        product = H @ put(given)
        assert gg.backend.device_of(product) == H.device
        assert_allclose(gg.backend.to_device(product, "cpu"), expected @ given, rtol=1e-10, atol=1e-13)
    assert_allclose(gg.backend.to_device(H.gradient(flat=True), "cpu"), expected.gradient(flat=True), rtol=1e-10)


# ---------------------------------------------------------------------------------- at other parameters


def test_it_keeps_copies_of_the_parameters() -> None:
    x = reals(3)
    H = HessianOperator(lambda x: gg.sum(x**3), x)
    x[:] = 0
    assert_allclose(H.to_dense(), np.diag(6 * reals(3)))
    assert_allclose(H.at(np.ones(3)).to_dense(), 6 * np.eye(3))
    assert_allclose(H.to_dense(), np.diag(6 * reals(3)))


def test_of_a_module_it_keeps_the_values_it_was_made_at() -> None:
    m, X, y = net(), reals(9, 4), labels(9, 3)
    H = HessianOperator(lambda m, b: F.cross_entropy(m(b[0]), b[1]), m, [(X, y)], memory=0)
    before = H.to_dense()
    for p in m.parameters():
        p.data += 1.0
    assert_array_equal(H.to_dense(), before)
    assert abs(H.at(m).to_dense() - before).max() > 1e-3


def test_what_is_kept_stays_within_the_memory() -> None:
    m, X, y = net(), reals(60, 4), labels(60, 3)
    loss = lambda m, b: F.cross_entropy(m(b[0]), b[1])
    full = HessianOperator(loss, m, cut(X, y, 20, 20, 20))
    each = max(k.nbytes for k in full._kept.values())
    assert len(full._kept) == 3
    some = HessianOperator(loss, m, cut(X, y, 20, 20, 20), memory=int(2.5 * each))
    v = reals(full.shape[0])
    assert_array_equal(some @ v, some @ v)
    assert len(some._kept) == 2
    assert_allclose(some @ v, full @ v, rtol=1e-11)
    assert not HessianOperator(loss, m, [(X, y)], memory=0)._kept


# ---------------------------------------------------------------------------------- what is refused


def test_losses_that_are_none() -> None:
    with pytest.raises(TypeError, match="the loss returned tuple, expected one real number"):
        HessianOperator(lambda p: (gg.sum(p), 1.0), reals(3))
    w, X = reals(3), reals(5, 3)
    with pytest.raises(TypeError, match=r"loss returned an array of shape \(5,\).*expected one real number"):
        HessianOperator(lambda w: X @ w, w)
    with pytest.raises(TypeError, match="loss returned NoneType"):
        HessianOperator(lambda w: None, w)
    with pytest.raises(ValueError, match=r"does not depend on the parameters.*nn\.functional_call"):
        HessianOperator(lambda w: gg.sum(gg.tensor(X) ** 2), w)
    m = net()
    with pytest.raises(ValueError, match="does not depend on the parameters"):
        HessianOperator(lambda p: F.mse_loss(m(reals(N, 4)), reals(N, 3)), parameters(m))


def test_parameters_that_are_none() -> None:
    with pytest.raises(TypeError, match=r"parameter b is int64, expected floats: convert it"):
        HessianOperator(lambda p: gg.sum(p["a"]), {"a": reals(2), "b": np.arange(3)})
    with pytest.raises(TypeError, match=r"parameter \[0\]\['z'\] is complex128.*real and imaginary"):
        HessianOperator(lambda p: 0.0, [{"z": reals(2) * 1j}])
    with pytest.raises(ValueError, match="nothing to differentiate by"):
        HessianOperator(lambda p: 0.0, {})
    with pytest.raises(TypeError, match="parameter params depends on an argument of a transform"):
        gg.grad(lambda w: gg.sum(HessianOperator(lambda u: gg.sum(u**3), w) @ reals(3)))(reals(3))


@pytest.mark.parametrize("memory", [None, 0])
@pytest.mark.parametrize("check", [True, False])
def test_an_operation_without_a_second_derivative_names_the_parameter(memory: int | None, check: bool) -> None:
    class Once(gg.Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            ctx.save_for_backward(x)
            return x**2

        @staticmethod
        @gg.once_differentiable
        def backward(ctx: Any, g: Any) -> Any:
            return 2 * ctx.saved_tensors[0] * g

    slope = gg.primitive(lambda g, x: 2 * g * x)
    square = gg.primitive(lambda x: x**2)
    gg.defvjp(square, lambda g, _y, x: slope(g, x))
    params = {"a": reals(3), "b": [reals(2)], "c": reals(3)}
    for of, error in ((Once.apply, RuntimeError), (square, NotImplementedError)):
        with pytest.raises(error) as caught:
            HessianOperator(lambda p: gg.sum(of(p["b"][0])) + gg.sum(p["a"] * p["c"]), params, memory=memory, check_deterministic=check) @ np.ones(8)  # noqa: B023
        (note,) = caught.value.__notes__
        assert note.startswith("The loss has a gradient by b[0], but what computes it has no derivative.") and "GaussNewtonOperator" in note
    with pytest.raises(TypeError, match="of its own") as caught:  # an error of the loss's own is left as it is
        HessianOperator(_failing, params, memory=memory, check_deterministic=check) @ np.ones(8)
    assert not hasattr(caught.value, "__notes__")


def test_products_that_are_not_finite_name_the_parameter() -> None:
    H = HessianOperator(lambda p: gg.sum(p["a"] ** 2) + gg.sum(p["b"] ** 1.5), {"a": reals(2), "b": np.array([0.0, 1.0])}, check_deterministic=False)
    with np.errstate(all="ignore"):
        with pytest.raises(FloatingPointError, match="nan or inf in its part for b, though the vector is finite"):
            H @ np.ones(4)
        with pytest.raises(FloatingPointError, match="the vector has nan or inf in its part for a"):
            H @ np.array([np.nan, 0, 0, 0])
        H.check_finite = False
        assert not np.isfinite(H @ np.ones(4)).all()


def test_a_sum_that_overflows_is_not_taken_for_inf() -> None:
    H = HessianOperator(lambda x: 0.5 * gg.sum(x**2), np.ones(4, np.float32))
    v = np.full(4, 1e38, np.float32)
    assert_array_equal(H @ v, v)


def test_options_that_make_no_sense() -> None:
    f = lambda x: gg.sum(x**2)
    with pytest.raises(ValueError, match=r"reduction must be 'mean' or 'sum'.*got 'none'"):
        HessianOperator(f, reals(2), reduction="none")
    with pytest.raises(ValueError, match="memory must be"):
        HessianOperator(f, reals(2), memory=-1)


# ---------------------------------------------------------------------------------- state


def test_dropout_in_training_is_refused_by_its_path() -> None:
    m = module(lambda: nn.Sequential(nn.Linear(4, 5), nn.Residual(nn.Sequential(nn.Dropout(0.5), nn.Linear(5, 5))), nn.Linear(5, 3))).train()
    path = next(path for path, c in m.named_modules() if isinstance(c, nn.Dropout))
    with pytest.raises(ValueError, match=rf"Sequential\.{path} \(Dropout\) is in training mode.*model\.eval\(\)"):
        HessianOperator(lambda m, b: F.mse_loss(m(b[0]), b[1]), m, [(reals(N, 4), reals(N, 3))])
    for c in m.modules():
        if isinstance(c, nn.Dropout):
            c.p = 0
    HessianOperator(lambda m, b: F.mse_loss(m(b[0]), b[1]), m, [(reals(N, 4), reals(N, 3))])


def test_training_that_begins_later_is_refused_too() -> None:
    m = module(lambda: nn.Sequential(nn.Linear(4, 5), nn.Dropout(0.5), nn.Linear(5, 3)))
    H = HessianOperator(lambda m, b: F.mse_loss(m(b[0]), b[1]), m, [(reals(N, 4), reals(N, 3))], memory=0)
    m.train()
    with pytest.raises(ValueError, match=r"Sequential\.1 \(Dropout\) is in training mode"):
        H @ reals(H.shape[0])


def test_random_numbers_in_a_loss_are_refused() -> None:
    with pytest.raises(RuntimeError, match="draws random numbers"):
        HessianOperator(lambda w: gg.sum(F.dropout(w**2, 0.5)), reals(20))
    rng = np.random.default_rng(0)
    with pytest.raises(RuntimeError, match="the loss is another one the second time"):
        HessianOperator(lambda w: gg.sum((w + rng.normal(size=3)) ** 3), reals(3))
    calls: list[int] = []
    with pytest.raises(RuntimeError, match="the product is another one the second time"):
        HessianOperator(lambda w: gg.sum(w - w.data) ** 2 * (calls.append(1) or len(calls)), reals(3))
    HessianOperator(lambda w: gg.sum(F.dropout(w**2, 0.5)), reals(20), check_deterministic=False)


def test_batch_norm_in_training_is_refused_over_several_batches() -> None:
    m = module(lambda: nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Linear(5, 3))).train()
    loss = lambda m, b: F.mse_loss(m(b[0]), b[1])
    with pytest.raises(ValueError, match=r"Sequential\.1 \(BatchNorm1d\) takes the mean and variance of each batch.*model\.eval\(\)"):
        HessianOperator(loss, m, cut(reals(N, 4), reals(N, 3), 4, 3))
    stateless = module(lambda: nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5, track_running_stats=False), nn.Linear(5, 3))).eval()
    with pytest.raises(ValueError, match="track_running_stats"):
        HessianOperator(loss, stateless, cut(reals(N, 4), reals(N, 3), 4, 3))


def test_batch_norm_in_training_is_exact_on_one_batch_and_leaves_running_statistics_alone() -> None:
    m, x, y = module(lambda: nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Linear(5, 3))).train(), reals(N, 4), reals(N, 3, seed=1)
    before = {path: b.data.copy() for path, b in m.named_buffers()}
    H = HessianOperator(lambda m, b: F.mse_loss(m(b[0]), b[1]), m, [(x, y)]).to_dense()
    for path, b in m.named_buffers():
        assert_array_equal(b.data, before[path])
    expected = dense_hessian(lambda p: F.mse_loss(nn.functional_call(m, p, x), y), parameters(m))
    assert_allclose(H, expected, rtol=1e-8, atol=1e-10)
    assert any((b.data != before[path]).any() for path, b in m.named_buffers())  # functional_call does write


def test_running_statistics_that_a_loss_changes_are_noticed() -> None:
    m = module(lambda: nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Linear(5, 3))).train()
    with pytest.raises(RuntimeError, match=r"updates its running statistics.*model\.eval\(\)"):
        HessianOperator(lambda p: F.mse_loss(nn.functional_call(m, p, reals(N, 4)), reals(N, 3)), parameters(m))


# ---------------------------------------------------------------------------------- third derivatives, and through products


def test_products_are_linear_functions_that_can_be_differentiated() -> None:
    H = HessianOperator(lambda p: gg.sum(gg.sin(p["a"])) * gg.sum(p["b"] ** 2), {"a": reals(2), "b": reals(3)})
    D = H.to_dense()
    assert_allclose(gg.grad(lambda v: 0.5 * gg.sum(v * (H @ v)))(reals(5)), D @ reals(5), rtol=1e-12)
    assert_allclose(gg.jacobian(lambda v: H @ v)(reals(5)), D, rtol=1e-12)
    assert_allclose(gg.vmap(lambda v: H @ v)(np.eye(5)), D, rtol=1e-12)


@pytest.mark.parametrize("memory", [None, 0])
def test_what_requires_grad_is_a_constant_but_a_vector_is_tracked(memory: int | None) -> None:
    c, v = gg.tensor(reals(3), requires_grad=True), gg.tensor(reals(3, seed=1), requires_grad=True)
    with gg.detect_anomaly() as watch:
        levels: list[int] = []
        watch.recorded = lambda node: levels.append(node.level)  # type: ignore[method-assign]
        H = HessianOperator(lambda w: gg.sum(gg.exp(c) * w**3 / gg.exp(c) * c), np.ones(3), memory=memory)
        assert type(H @ reals(3)) is np.ndarray
    assert levels and 0 not in levels  # nothing is left on the tape of what requires grad
    gg.sum(v * (H @ v)).backward()
    assert_allclose(v.grad, 12 * reals(3) * reals(3, seed=1), rtol=1e-12)
    assert c.grad is None
    assert_allclose(gg.grad(lambda v: gg.sum((H @ v) ** 2))(reals(3)), 2 * 36 * reals(3) ** 3, rtol=1e-12)
    with gg.no_grad():
        assert_allclose(H @ reals(3), 6 * reals(3) ** 2, rtol=1e-12)


def test_what_a_transform_differentiates_is_refused_in_the_loss() -> None:
    with pytest.raises(TypeError, match=r"the loss depends on an argument of a transform.*use gg\.hvp"):
        gg.grad(lambda s: gg.sum(HessianOperator(lambda w: s * gg.sum(w**3), np.ones(3)) @ np.ones(3)))(1.0)
    assert gg.grad(lambda s: gg.sum(HessianOperator(lambda w: gg.sum(w**3), np.ones(3)) @ (s * np.ones(3))))(1.0) == 18


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda H: pickle.loads(pickle.dumps(H))], ids=["deepcopy", "pickle"])
def test_copies_and_pickles(copied: Any) -> None:
    H = HessianOperator(_cubes, {"a": reals(3), "b": [reals(2)]})
    v = {"a": reals(3, seed=1), "b": [reals(2, seed=1)]}
    product = H @ v
    for A, B in ((H, copied(H)), (H.damped(2.0), copied(H.damped(2.0))), (H.block("a"), copied(H.block("a")))):
        assert_array_equal(B.to_dense(), A.to_dense())
    assert_array_equal((copied(H) @ v)["b"][0], product["b"][0])
    assert (copied(H) + H).shape == (5, 5)


def _failing(_p: Any) -> Any:
    raise TypeError("of its own")


def _cubes(p: Any) -> Any:
    return gg.sum(p["a"] ** 3) + gg.sum(p["b"][0] ** 3) * p["a"][0]


def test_objective_agrees_with_the_operator() -> None:
    m, X, y = net(), reals(9, 4), labels(9, 3)
    loss = lambda m, b: F.cross_entropy(m(b[0]), b[1])
    f = objective(loss, m.float(), cut(X.astype(np.float32), y, 5, 4))
    assert f.x0.dtype == f.jac(f.x0).dtype == f.hessp(f.x0, f.x0).dtype == np.float64
    assert isinstance(f.fun(f.x0), float)
