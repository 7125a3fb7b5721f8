"""What products are for: SciPy's minimizers on a net, and the penalty on the gradient's norm of a module, trained."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose

import gpugrad as gg
from gpugrad import curvature, nn, optim

F = nn.functional


def net(device="cpu", dtype=np.float64):
    """A module, its loss as a function of itself, and as one of its parameters by path."""
    rng = np.random.default_rng(0)
    x = gg.tensor(rng.uniform(-1, 1, (40, 2)).astype(dtype), device=device)
    y = gg.sin(2 * x[:, :1]) * x[:, 1:]
    gg.random.seed(0)
    model = nn.MLP([2, 6, 1], "tanh", device=device, dtype=dtype)
    penalty = lambda params: 1e-3 * sum((gg.sum(p * p) for p in params), 0.0)
    of_module = lambda model: F.mse_loss(model(x), y) + penalty(model.parameters())
    return model, of_module, lambda p: F.mse_loss(nn.functional_call(model, p, x), y) + penalty(p.values())


# ------------------------------------------------------------------------------------------------- scipy.optimize


@pytest.mark.parametrize(("method", "options"), [("trust-ncg", {"gtol": 1e-8}), ("trust-krylov", {"gtol": 1e-6}), ("Newton-CG", {"xtol": 1e-10})])
def test_scipys_minimizers_end_in_a_minimum_of_a_net(method, options, device):
    """A gradient of zero and no negative eigenvalue; the function sees what a net in float64 computes, on the device of its parameters."""
    scipy = pytest.importorskip("scipy.optimize")
    model, of_module, _ = net(device)
    f = curvature.objective(of_module, model)
    first = f.fun(f.x0)
    result = scipy.minimize(f.fun, f.x0, jac=f.jac, hessp=f.hessp, method=method, options=options)
    assert result.nhev > result.nit > 3
    model.load_state_dict(f.to_nest(result.x))
    H = curvature.HessianOperator(of_module, model)
    assert result.fun == pytest.approx(of_module(model).item(), rel=1e-12) and result.fun < 0.3 * first
    assert np.abs(gg.Tensor(H.gradient(flat=True)).numpy()).max() < 1e-5
    assert np.linalg.eigvalsh(gg.Tensor(H.to_dense()).numpy())[0] > -1e-8


def test_newton_cg_of_scipy_and_of_the_library_find_the_same_minimum():
    """Of a convex function: softmax regression with a penalty."""
    scipy = pytest.importorskip("scipy.optimize")
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(60, 4)), rng.integers(0, 3, 60)
    loss = lambda w: F.cross_entropy(x @ w, y) + 0.01 * gg.sum(w * w)
    f = curvature.objective(loss, np.zeros((4, 3)))
    theirs = scipy.minimize(f.fun, f.x0, jac=f.jac, hessp=f.hessp, method="trust-ncg", options={"gtol": 1e-10}).x.reshape(4, 3)
    w = gg.tensor(np.zeros((4, 3)), requires_grad=True)
    optim.NewtonCG([w], max_iter=50, tolerance_grad=1e-10, tolerance_change=0).step(lambda: loss(w))
    v = gg.tensor(np.zeros((4, 3)), requires_grad=True)
    o = optim.HessianFree([v], max_iter=100, tolerance_grad=1e-10, tolerance_change=0, tolerance_cg=0.0)
    o.step(lambda: ((x @ v, v), lambda out: F.cross_entropy(out[0], y) + 0.01 * gg.sum(out[1] * out[1])))
    assert_allclose(w.numpy(), theirs, rtol=1e-7, atol=1e-9)
    assert_allclose(v.numpy(), theirs, rtol=1e-7, atol=1e-9)


# ------------------------------------------------------------------------------------------------- the gradient-norm penalty


def test_the_gradient_of_a_penalised_loss_is_a_product(device):
    """d/dw (L + c |g|^2) = g + 2 c H g: on the tape of a module, by transforms, by gg.hvp, and by the operator."""
    c, (model, of_module, of_params) = 0.3, net(device)
    params = dict(model.named_parameters())
    values = {name: p.data for name, p in params.items()}
    g = gg.grad(of_params)(values)
    Hg = gg.hvp(of_params, values, g)
    expected = {name: gg.Tensor(g[name] + 2 * c * Hg[name]).numpy() for name in g}

    loss = of_module(model)
    gradients = gg.autograd.grad(loss, list(params.values()), create_graph=True)
    (loss + c * sum(gg.sum(d * d) for d in gradients)).backward()

    def penalised(values):
        loss, g = gg.value_and_grad(of_params)(values)
        return loss + c * sum(gg.sum(d * d) for d in g.values())

    by_transforms = gg.grad(penalised)(values)
    H = curvature.HessianOperator(of_module, model)
    product = H @ g
    for name, p in params.items():
        assert_allclose(p.grad.numpy(), expected[name], rtol=1e-10, atol=1e-14)
        assert_allclose(gg.Tensor(by_transforms[name]).numpy(), expected[name], rtol=1e-10, atol=1e-14)
        assert_allclose(gg.Tensor(g[name] + 2 * c * product[name]).numpy(), expected[name], rtol=1e-10, atol=1e-14)


def test_training_with_the_penalty_ends_at_a_smaller_gradient():
    """After as many steps as without it; and the penalised loss falls."""
    norms = []
    for c in (0.0, 1.0):
        model, of_module, _ = net()
        params, losses = list(model.parameters()), []
        o = optim.SGD(params, lr=0.05)
        for _ in range(50):
            o.zero_grad()
            loss = of_module(model)
            g = gg.autograd.grad(loss, params, create_graph=True)
            square = sum(gg.sum(d * d) for d in g)
            (loss + c * square).backward()
            o.step()
            losses.append((loss + c * square).item())
        assert losses[-1] < losses[0]
        norms.append(square.item())
    assert norms[1] < 0.9 * norms[0]
