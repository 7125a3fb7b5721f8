"""Hessian-free optimization: the Gauss-Newton matrix against a dense one, damped systems, when conjugate gradients stop, the way back, damping, minima, state."""

from __future__ import annotations

import io
import itertools
import math

import numpy as np
import pytest
from minima import assert_same, flat, logistic, logistic_loss, logistic_minimum, spd
from numpy.testing import assert_allclose, assert_array_equal

import gpugrad as gg
from gpugrad import nn, optim
from gpugrad.curvature.solve import conjugate_gradients
from gpugrad.optim import hessian_free
from gpugrad.optim.hessian_free import Candidate, Model
from gpugrad.optim.line_search import armijo

F = nn.functional
ALL_THE_WAY = {"tolerance_cg": 0.0, "tolerance_grad": 0.0, "tolerance_change": 0.0}


def counts(o):
    return o.state_dict()["state"][0]


def damping(o):
    return o.param_groups[0]["damping"]


def least_squares(rows=20, n=4):
    rng = np.random.default_rng(0)
    return rng.normal(size=(rows, n)), rng.normal(size=rows)


def net(dtype=np.float64, device="cpu", widths=(3, 5, 4)):
    """A model, and the closure of a classification."""
    rng = np.random.default_rng(1)
    x, y = gg.tensor(rng.normal(size=(30, widths[0])).astype(dtype), device=device), gg.tensor(rng.integers(0, widths[-1], 30), device=device)
    gg.random.seed(0)
    model = nn.MLP(list(widths), "tanh", device=device, dtype=dtype)
    return model, lambda: (model(x), lambda z: F.cross_entropy(z, y))


def dense(model, closure):
    """Gradient, J'H J and the loss, by whole Jacobians, flat."""
    params = dict(model.named_parameters())
    values = {k: p.numpy().astype(float) for k, p in params.items()}
    _, loss = closure()

    def outputs(v):
        from gpugrad.nn.stateless import call_with

        start, parts = 0, []
        for p in params.values():
            parts.append(v[start : start + p.size].reshape(p.shape))
            start += p.size
        return call_with(params.values(), parts, lambda: closure()[0])

    v = np.concatenate([a.ravel() for a in values.values()])
    z = gg.stop_gradient(outputs(v)).numpy()
    j = gg.jacobian(outputs)(v).reshape(z.size, v.size)
    h = gg.hessian(loss)(z).reshape(z.size, z.size)
    return gg.grad(lambda v: loss(outputs(v)))(v), j.T @ h @ j, float(loss(z))


# ------------------------------------------------------------------------------------------------- the quadratic


def test_products_are_those_of_the_dense_matrix(device):
    g, matrix, loss = dense(*net())
    model, closure = net(device=device)
    here = optim.HessianFree(model.parameters())._model(closure)
    assert here.loss == pytest.approx(loss, rel=1e-12)
    assert_allclose(gg.Tensor(here.gradient).numpy(), g, rtol=1e-9, atol=1e-12)
    for v in np.random.default_rng(0).normal(size=(3, g.size)):
        assert_allclose(gg.Tensor(here.product(gg.tensor(v, device=device).data)).numpy(), matrix @ v, rtol=1e-9, atol=1e-12)


def test_the_solution_is_that_of_the_damped_equations():
    model, closure = net()
    g, matrix, _ = dense(model, closure)
    o = optim.HessianFree(model.parameters(), damping=0.3, **ALL_THE_WAY)
    candidates = o._solve(o._model(closure))
    d = np.linalg.solve(matrix + 0.3 * np.eye(g.size), -g)
    assert_allclose(candidates[-1].d, d, rtol=1e-8, atol=1e-10)
    assert candidates[-1].change == pytest.approx(g @ d + d @ matrix @ d / 2 + 0.15 * d @ d)


def test_a_penalty_belongs_to_the_outputs():
    """Its curvature is in the matrix then: least squares with one, in one move without damping."""
    x, y = least_squares()
    w = gg.tensor(np.zeros(4), requires_grad=True)
    o = optim.HessianFree([w], damping=0.0, **ALL_THE_WAY)
    first = o.step(lambda: ({"z": x @ w, "w": [w]}, lambda out: F.mse_loss(out["z"], y) + 0.1 * gg.sum(out["w"][0] ** 2)))
    assert_allclose(w.numpy(), np.linalg.solve(x.T @ x / 20 + 0.1 * np.eye(4), x.T @ y / 20), rtol=1e-10)
    assert first.item() == pytest.approx((y @ y) / 20) and not first.requires_grad


@pytest.mark.parametrize("n", [1, 4])
def test_least_squares_in_one_move(n, device):
    x, y = least_squares(n=n)
    w, inputs, targets = gg.tensor(np.ones(n), device=device, requires_grad=True), gg.tensor(x, device=device), gg.tensor(y, device=device)
    o = optim.HessianFree([w], damping=0.0, **ALL_THE_WAY, max_cg=n)
    o.step(lambda: (inputs @ w, lambda z: F.mse_loss(z, targets)))
    assert_allclose(w.numpy(), np.linalg.lstsq(x, y)[0], rtol=1e-10)
    assert counts(o)["products"] == n


# ------------------------------------------------------------------------------------------------- conjugate gradients


def iterates(product, b, x):
    """All of them, and the quadratic at each."""
    for step in conjugate_gradients(product, b, x):
        yield step.x, step.x @ product(step.x) / 2 - b @ step.x


@pytest.mark.parametrize(
    ("tolerance", "start", "condition", "least"), [(5e-4, 0.0, 3, 20), (5e-3, 0.0, 3, 20), (5e-4, 0.3, 3, 20), (5e-4, -1.0, 3, 20), (1e-5, 0.0, 4.5, 130)]
)
def test_when_conjugate_gradients_stop(tolerance, start, condition, least):
    """i > k, q < 0 and (q_i - q_{i-k}) / q_i < k tolerance, k = max(10, i / 10); and which iterates are kept."""
    n = 400
    a, b = np.diag(np.logspace(0, condition, n)), np.ones(n)
    w = gg.tensor(np.zeros(n), requires_grad=True)
    o = optim.HessianFree([w], damping=2.0, warm_start=1.0, tolerance_cg=tolerance)
    if start:
        o._solution = np.full(n, start)
    seen, values = [], []
    candidates = o._solve(Model(None, 0.0, -b, lambda v: seen.append(1) or a @ v))
    for i, (x, q) in enumerate(iterates(lambda p: a @ p + 2.0 * p, b, np.full(n, start) if start else None), 1):
        solution, k = x, max(10, i // 10)
        values.append(q)
        if i > k and q < 0 and (q - values[-1 - k]) / q < k * tolerance:
            break
    assert least < i < 250
    assert len(seen) == i + (start != 0)
    assert_allclose(candidates[-1].d, solution, rtol=1e-6, atol=1e-6)
    kept = [j for j in [1, 2, 3, 4, 6, 8, 11, 15, 20, 26, 34, 45, 59, 77, 101, 132, 172, 224] if j < i] + [i]
    assert_allclose([c.change for c in candidates], [values[j - 1] for j in kept if values[j - 1] < 0], rtol=1e-6)
    assert o._solution is candidates[-1].d


def test_where_the_warm_start_leads_nowhere_they_begin_at_zero():
    """A start so far away that max_cg products do not come back."""
    a, b = np.diag(np.logspace(0, 4, 50)), np.ones(50)
    w = gg.tensor(np.zeros(50), requires_grad=True)
    o = optim.HessianFree([w], max_cg=4, damping=0.0)
    o._solution = np.full(50, 1e6)
    candidates = o._solve(Model(None, 0.0, -b, lambda v: a @ v))
    x, q = next(itertools.islice(iterates(lambda p: a @ p, b, None), 3, None))
    assert_allclose(candidates[-1].d, x, rtol=1e-10)
    assert candidates[-1].change == pytest.approx(q)
    assert o._solve(Model(None, 0.0, 0 * b, lambda v: a @ v)) == [] and o._solution is None


def test_the_next_move_begins_at_a_share_of_the_solution_before(monkeypatch):
    starts, original = [], hessian_free.conjugate_gradients
    monkeypatch.setattr(hessian_free, "conjugate_gradients", lambda product, b, x, precondition: starts.append(x) or original(product, b, x, precondition))
    for share in (0.7, 0.0):
        model, closure = net()
        o = optim.HessianFree(model.parameters(), warm_start=share)
        starts.clear()
        o.step(closure)
        solution = o._solution
        o.step(closure)
        assert starts[0] is None
        assert_array_equal(starts[1], share * solution)


def test_with_the_inverse_for_a_preconditioner_one_product_is_enough():
    model, closure = net()
    g, matrix, _ = dense(model, closure)
    exact = lambda v, damping: np.linalg.solve(matrix + damping * np.eye(g.size), v)
    o = optim.HessianFree(model.parameters(), damping=0.3, max_cg=1, precondition=exact, **ALL_THE_WAY)
    candidates = o._solve(o._model(closure))
    assert_allclose(candidates[-1].d, exact(-g, 0.3), rtol=1e-9)
    assert "precondition" not in o.state_dict()["param_groups"][0]


# ------------------------------------------------------------------------------------------------- how far to go


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        ([3.0, 2.0, 1.0], 2),
        ([3.0, 1.0, 2.0], 1),
        ([1.0, 2.0, 3.0], 0),
        ([0.0, 2.0, 1.0], 2),  # not beyond a rise
        ([1.0, 1.0, 1.0], 2),
        ([0.5, math.nan, math.inf], 0),
        ([math.nan, 0.5, math.inf], 1),
        ([math.inf, math.nan, math.nan], 0),
    ],
)
def test_the_way_back(losses, expected):
    """From the last candidate to the last one before which the loss is no smaller; what is no number is infinite."""
    w = gg.tensor(np.zeros(1), requires_grad=True)
    o = optim.HessianFree([w])
    candidates = [Candidate(np.array([float(i)]), -1.0 - i) for i in range(3)]
    closure = lambda: (w, lambda z: gg.sum(z) * 0 + losses[round(z.item())])
    d, loss = o._go_back(closure, np.zeros(1), Model(None, 10.0, np.zeros(1), None), candidates)
    assert d.item() == expected
    assert loss == (losses[expected] if math.isfinite(losses[expected]) else math.inf)


@pytest.mark.parametrize(("ratio", "factor"), [(0.24, 1.5), (0.26, 1), (0.74, 1), (0.76, 2 / 3), (-1.0, 1.5), (math.nan, 1.5), (-math.inf, 1.5), (1.0, 2 / 3)])
def test_the_damping_follows_the_reduction_ratio(ratio, factor):
    """Of the change of the loss to that of the quadratic without damping."""
    o = optim.HessianFree([gg.tensor(np.zeros(2), requires_grad=True)], damping=0.5)
    d = np.array([1.0, 2.0])
    undamped = -3.0
    o._adapt(ratio * undamped, Candidate(d, undamped + 0.25 * d @ d))
    assert damping(o) == pytest.approx(0.5 * factor)


def test_a_length_at_which_the_loss_has_fallen_enough():
    """The loss rises beyond 0.3 d: 0.8^6 = 0.262 is the first length below."""
    w = gg.tensor(np.zeros(1), requires_grad=True)
    o = optim.HessianFree([w])
    f = lambda z: gg.sum(gg.where(z.detach() < 0.3, -z, 5.0))
    x, loss = o._move(lambda: (w, f), np.zeros(1), Model(None, 0.0, -np.ones(1), None), np.ones(1), 5.0)
    assert x.item() == w.item() == pytest.approx(0.8**6) == -loss
    assert counts(o)["func_evals"] == 6  # that at 1 was known
    x = np.zeros(1)
    there, loss = o._move(
        lambda: (w, lambda z: gg.sum(z * z)), x, Model(None, 0.0, -np.ones(1), None), np.ones(1), 1.0
    )  # the slope is wrong: it rises everywhere
    assert there is x and loss == 0 and w.item() == 0


def test_a_loss_that_has_not_fallen_enough():
    """By a hundredth of what the slope says, at least."""
    for fall, expected in ((0.009, 0.0), (0.011, 1.0)):
        assert armijo(lambda t, fall=fall: -fall * t, 1.0, 0.0, -1.0) == (expected, -fall * expected)
    assert armijo(lambda t: t * t - t, 4.0, 0.0, -1.0, ratio=0.5) == (0.5, -0.25)
    assert armijo(lambda t: -math.inf if t > 0.5 else -t, 1.0, 0.0, -1.0) == pytest.approx((0.8**4, -(0.8**4)))
    seen = []
    assert armijo(lambda t: seen.append(t) or math.nan, 1.0, 0.0, -1.0, max_evaluations=7) == (0.0, 0.0)
    assert_allclose(seen, 0.8 ** np.arange(7))


# ------------------------------------------------------------------------------------------------- minima


def test_logistic_regression_to_the_minimum(device):
    x, y = logistic()
    w, inputs, targets = gg.tensor(np.zeros(5), device=device, requires_grad=True), gg.tensor(x, device=device), gg.tensor(y, device=device)
    o = optim.HessianFree([w], max_iter=60, tolerance_grad=1e-10, tolerance_change=0, tolerance_cg=0.0)
    o.step(lambda: ((inputs @ w, w), lambda out: logistic_loss(*out, targets)))
    assert_allclose(w.numpy(), logistic_minimum(), rtol=1e-8)
    assert damping(o) < 0.01


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_net(dtype, device):
    """Labels by chance are learned by heart; the loss never rises."""
    model, closure = net(dtype, device, widths=(6, 24, 4))
    o, losses = optim.HessianFree(model.parameters()), []
    for _ in range(40):
        losses.append(o.step(closure).item())
    assert all(b <= a for a, b in itertools.pairwise(losses))
    assert losses[-1] < 0.02 * losses[0]
    assert all(p.dtype == dtype and p.grad is None for p in model.parameters())


def test_deep_nets_where_gradient_descent_stands_still():
    """Eight narrow layers of sigmoids: the classic case. Plain descent with the best of several rates stays near the mean's loss."""
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, (100, 2))
    y = np.sin(3 * x[:, :1]) * x[:, 1:]

    def make():
        gg.random.seed(0)
        return nn.MLP([2, *[8] * 6, 1], "sigmoid", dtype=np.float64)

    of_mean = y.var()
    descent = []
    for rate in (0.03, 0.3, 1.0):
        model = make()
        o = optim.SGD(model.parameters(), lr=rate)
        for _ in range(300):
            o.zero_grad()
            loss = F.mse_loss(model(x), y)
            loss.backward()
            o.step()
        descent.append(loss.item())
    model = make()
    o = optim.HessianFree(model.parameters(), damping=1e-2)
    for _ in range(60):
        o.step(lambda: (model(x), lambda z: F.mse_loss(z, y)))
    assert min(descent) > 0.9 * of_mean
    assert F.mse_loss(model(x), y).item() < 0.2 * of_mean


def test_other_data_in_every_step():
    x, y = logistic()
    w = gg.tensor(np.zeros(5), requires_grad=True)
    o = optim.HessianFree([w])
    for step in range(40):
        rows = slice(50 * (step % 4), 50 * (step % 4) + 50)
        o.step(lambda rows=rows: ((x[rows] @ w, w), lambda out, rows=rows: logistic_loss(*out, y[rows])))
    whole = lambda w: logistic_loss(x @ w, w, y).item()
    assert whole(w) < 1.1 * whole(gg.tensor(logistic_minimum()))


# ------------------------------------------------------------------------------------------------- what can go wrong


def test_a_start_that_is_no_number_stays():
    w = gg.tensor([1.0], requires_grad=True)
    o = optim.HessianFree([w])
    assert math.isnan(o.step(lambda: (w * 1.0, lambda z: gg.sum(z) * np.nan)).item())
    assert w.item() == 1 and damping(o) == 1
    assert counts(o) == {"n_iter": 0, "func_evals": 1, "products": 0}


def test_a_loss_that_is_not_convex_in_the_outputs():
    p = gg.tensor(np.array([0.1, 0.2]), requires_grad=True)
    o = optim.HessianFree([p], damping=0.1)
    for _ in range(30):
        o.step(lambda: (p, lambda z: gg.sum(z**4 - z**2)))
    assert_allclose(p.data, math.sqrt(0.5), rtol=1e-5)


def test_a_wall():
    """-log(1 - w) - 4 w: the loss is no number beyond 1, and steps come back from there."""
    w = gg.tensor([-3.0], requires_grad=True)
    f = lambda z: gg.sum(gg.where(z.detach() < 1, -gg.log(gg.where(z.detach() < 1, 1 - z, 1.0)) - 4 * z, np.nan))
    o = optim.HessianFree([w], damping=1e-3, max_iter=60, tolerance_change=0)
    o.step(lambda: (w * 1.0, f))
    assert_allclose(w.numpy(), 0.75, rtol=1e-4)


@pytest.mark.parametrize("call", [1, 4, 7])
def test_a_closure_that_raises_leaves_everything_as_it_was(call):
    model, closure = net()
    o = optim.HessianFree(model.parameters(), max_iter=2)
    o.step(closure)
    before, state, options, calls = [p.numpy().copy() for p in model.parameters()], flat(o.state_dict()), dict(o.param_groups[0]), []

    def broken():
        calls.append(1)
        if len(calls) == call:
            raise KeyError("out of data")
        return closure()

    with pytest.raises(KeyError, match="out of data"):
        o.step(broken)
    for p, a in zip(model.parameters(), before):
        assert_array_equal(p.numpy(), a)
    assert_same(flat(o.state_dict()), state)
    assert o.param_groups[0] == options


def test_misuse(fake_cupy):
    p, q = (gg.tensor([1.0], requires_grad=True) for _ in range(2))
    with pytest.raises(ValueError, match="HessianFree doesn't support per-parameter options"):
        optim.HessianFree([{"params": [p]}, {"params": [q]}])
    o = optim.HessianFree([p])
    with pytest.raises(TypeError, match=r"call step\(closure\), where closure returns \(outputs, loss\)"):
        o.step()
    for options, message in (
        ({"max_cg": 0}, "invalid max_cg: got 0"),
        ({"damping": -1.0}, "invalid damping: got -1.0, expected a number of at least 0"),
        ({"warm_start": 1.5}, "invalid warm_start: got 1.5, expected a number of at least 0 and at most 1"),
        ({"tolerance_cg": -1.0}, "invalid tolerance_cg: got -1.0"),
    ):
        with pytest.raises(ValueError, match=message):
            optim.HessianFree([p], **options)
    with pytest.raises(TypeError, match=r"must return \(outputs, loss\), where loss is a function of the outputs: got a Tensor"):
        o.step(lambda: gg.sum(p))
    with pytest.raises(TypeError, match="got a tuple of 3"):
        o.step(lambda: (p, p, p))
    with pytest.raises(TypeError, match="the loss returned an array of shape"):
        o.step(lambda: (p * np.ones(3), lambda z: z))
    with pytest.raises(ValueError, match="parameter 1 is complex64, expected a real one"):
        optim.HessianFree([p, gg.tensor([1j], requires_grad=True)])
    with pytest.raises(ValueError, match="HessianFree: got parameters on cpu and cuda:0, expected one device"):
        optim.HessianFree([p, gg.tensor([1.0], device="cuda", requires_grad=True)])
    with pytest.raises(ValueError, match="outputs do not depend on the parameters"):
        o.step(lambda: (gg.tensor([1.0]), gg.sum))


# ------------------------------------------------------------------------------------------------- state


def test_going_on_from_a_saved_state_is_going_on(device):
    """Bit for bit, through arrays in a file: the damping is among the options, the solution in the state."""
    for stop in (0, 1, 3):
        model, closure = net(np.float32, device)
        o = optim.HessianFree(model.parameters(), damping=0.2)
        for _ in range(stop):
            o.step(closure)
        saved, file = o.state_dict(), io.BytesIO()
        np.savez(file, **flat(saved))
        file.seek(0)
        with np.load(file) as arrays:
            read = {k: int(v) if v.ndim == 0 else v for k, v in arrays.items()}
        twin, twins = net(np.float32, device)
        twin.load_state_dict({k: v.numpy().copy() for k, v in model.state_dict().items()})
        again = optim.HessianFree(twin.parameters())
        again.load_state_dict({"state": {0: read} if read else {}, "param_groups": saved["param_groups"]})
        for _ in range(3):
            o.step(closure)
            again.step(twins)
        for p, q in zip(model.parameters(), twin.parameters()):
            assert_array_equal(p.numpy(), q.numpy())
        assert_same(flat(o.state_dict()), flat(again.state_dict()))
        assert damping(o) == damping(again) != 0.2


def test_loading_a_state_that_does_not_fit_changes_nothing():
    model, closure = net()
    o = optim.HessianFree(model.parameters())
    o.step(closure)
    w = gg.tensor(np.zeros(2), requires_grad=True)
    other = optim.HessianFree([w])
    with pytest.raises(ValueError, match=r"parameter groups of sizes \[4\], expected \[1\]|solution of 44 elements, expected 2"):
        other.load_state_dict(o.state_dict())
    assert other.state_dict()["state"] == {} and damping(other) == 1


def test_a_quadratic_without_products_that_help(device):
    """spd, in one move: the loss in the parameters themselves, G = H."""
    a, b = spd(6), np.arange(1.0, 7)
    w, matrix, vector = gg.tensor(np.zeros(6), device=device, requires_grad=True), gg.tensor(a, device=device), gg.tensor(b, device=device)
    o = optim.HessianFree([w], damping=0.0, **ALL_THE_WAY)
    o.step(lambda: (w, lambda w: 0.5 * (w @ (matrix @ w)) - vector @ w))
    assert_allclose(w.numpy(), np.linalg.solve(a, b), rtol=1e-9)
