"""L-BFGS: the two loops against dense matrices, the Wolfe conditions at every step, known minima, what happens where the loss is no number, state."""

from __future__ import annotations

import io
import itertools
import math

import numpy as np
import pytest
from minima import assert_same, flat, logistic, logistic_minimum, rosenbrock, spd
from numpy.testing import assert_allclose, assert_array_equal

import gpugrad as gg
from gpugrad import nn, optim
from gpugrad.optim.lbfgs import Move, inverse_hessian_times
from gpugrad.optim.line_search import strong_wolfe

EXACT = {"tolerance_grad": 0, "tolerance_change": 0}


def closure_of(f, params, optimizer, calls=None):
    def closure():
        optimizer.zero_grad()
        loss = f(*params)
        loss.backward()
        if calls is not None:
            calls.append(([p.numpy().copy() for p in params], loss.item()))
        return loss

    return closure


def minimize(f, start, steps=1, device="cpu", **options):
    """The parameter and the optimizer after so many steps."""
    p = gg.tensor(start, device=device, requires_grad=True)
    o = optim.LBFGS([p], **options)
    closure = closure_of(f, [p], o)
    for _ in range(steps):
        o.step(closure)
    return p, o


# ------------------------------------------------------------------------------------------------- the direction


def dense_inverse_hessian(pairs, n):
    """H by the BFGS formula (Nocedal and Wright, equation 7.16), matrix by matrix."""
    s, y = pairs[-1]
    h = np.eye(n) * (s @ y) / (y @ y)
    for s, y in pairs:
        rho = 1 / (y @ s)
        v = np.eye(n) - rho * np.outer(y, s)
        h = v.T @ h @ v + rho * np.outer(s, s)
    return h


@pytest.mark.parametrize("count", [1, 2, 7])
def test_two_loops_are_the_matrix(count, put):
    rng, a = np.random.default_rng(0), spd(5)
    pairs = [(s, a @ s) for s in rng.normal(size=(count, 5))]
    g = rng.normal(size=5)
    got = inverse_hessian_times(put(g), [Move.of(put(s), put(y)) for s, y in pairs])
    assert_allclose(gg.Tensor(got).numpy(), dense_inverse_hessian(pairs, 5) @ g, rtol=1e-10)
    assert_array_equal(gg.Tensor(inverse_hessian_times(put(g), [])).numpy(), g)


def test_two_loops_in_float32():
    """Products of float64 leave the error that of the vectors."""
    rng, a = np.random.default_rng(0), spd(50)
    pairs = [(s, a @ s) for s in rng.normal(size=(10, 50))]
    g = rng.normal(size=50)
    got = inverse_hessian_times(g.astype(np.float32), [Move.of(s.astype(np.float32), y.astype(np.float32)) for s, y in pairs])
    assert got.dtype == np.float32
    exact = dense_inverse_hessian([(s.astype(np.float32).astype(float), y.astype(np.float32).astype(float)) for s, y in pairs], 50) @ g
    assert np.abs(got - exact).max() < 3e-6 * np.abs(exact).max()


# ------------------------------------------------------------------------------------------------- minima


@pytest.mark.parametrize("n", [1, 3, 8])
def test_a_quadratic_ends_in_few_moves(n, device):
    """With a nearly exact line search BFGS is the method of conjugate gradients, which needs n moves; with the Wolfe conditions alone somewhat more."""
    a, b = spd(n), np.arange(1.0, n + 1)
    matrix, vector = gg.tensor(a, device=device), gg.tensor(b, device=device)
    f = lambda x: 0.5 * (x @ (matrix @ x)) - vector @ x
    p, o = minimize(f, np.zeros(n), device=device, max_iter=6 * n + 4, tolerance_grad=1e-10, tolerance_change=0, line_search_fn="strong_wolfe")
    assert_allclose(p.numpy(), np.linalg.solve(a, b), rtol=1e-7)  # nearer to the minimum the loss does not tell points apart
    assert o.state_dict()["state"][0]["n_iter"] < 6 * n + 4


def test_exact_line_search_on_a_quadratic_is_exact_in_n_moves(monkeypatch):
    from gpugrad.optim import lbfgs

    def exact(along, t, loss, gradient, slope, **_):
        _, _, at_one = along(1.0)
        t = -slope / (at_one - slope)
        loss, gradient, _ = along(t)
        return t, loss, gradient

    monkeypatch.setattr(lbfgs, "strong_wolfe", exact)
    a, b = spd(6), np.arange(1.0, 7)
    p, _ = minimize(lambda x: 0.5 * (x @ (a @ x)) - b @ x, np.zeros(6), max_iter=6, max_eval=100, line_search_fn="strong_wolfe", **EXACT)
    assert_allclose(p.numpy(), np.linalg.solve(a, b), rtol=1e-10)


@pytest.mark.parametrize(("n", "moves"), [(2, 60), (20, 300)])
def test_rosenbrock(n, moves, device):
    start = np.tile([-1.2, 1.0], n // 2)
    p, o = minimize(rosenbrock, start, device=device, max_iter=moves, tolerance_grad=1e-10, tolerance_change=0, line_search_fn="strong_wolfe")
    assert_allclose(p.numpy(), 1, rtol=1e-9)
    assert np.abs(p.grad.numpy()).max() <= 1e-10
    state = o.state_dict()["state"][0]
    assert state["func_evals"] < 1.5 * state["n_iter"] < 1.5 * moves


def test_logistic_regression():
    x, y = logistic()
    w = logistic_minimum()
    f = lambda w: nn.functional.bce_with_logits(x @ w, y) + 0.005 * gg.sum(w * w)
    for options in ({"line_search_fn": "strong_wolfe"}, {"max_iter": 60}):
        got, _ = minimize(f, np.zeros(5), tolerance_change=0, **options)
        assert_allclose(got.numpy(), w, rtol=1e-5)


def test_logistic_regression_as_scipy():
    scipy = pytest.importorskip("scipy.optimize")
    x, y = logistic()
    f = lambda w: nn.functional.bce_with_logits(x @ w, y) + 0.005 * gg.sum(w * w)
    both = gg.value_and_grad(f)
    theirs = scipy.minimize(lambda w: tuple(map(np.asarray, both(w))), np.zeros(5), jac=True, method="L-BFGS-B", options={"ftol": 0, "gtol": 1e-9})
    ours, o = minimize(f, np.zeros(5), max_iter=100, tolerance_grad=1e-9, tolerance_change=0, line_search_fn="strong_wolfe")
    assert_allclose(ours.numpy(), theirs.x, rtol=1e-7)
    assert o.state_dict()["state"][0]["func_evals"] <= 1.5 * theirs.nfev


def test_a_net_in_float32_and_several_parameters(device):
    rng = np.random.default_rng(0)
    x = gg.tensor(rng.uniform(-1, 1, (64, 1)).astype(np.float32), device=device)
    y = gg.sin(3 * x)
    gg.random.seed(0)
    model = nn.MLP([1, 16, 1], "tanh", device=device)
    o = optim.LBFGS(model.parameters(), max_iter=100, line_search_fn="strong_wolfe")
    loss = lambda: nn.functional.mse_loss(model(x), y)

    def closure():
        o.zero_grad()
        value = loss()
        value.backward()
        return value

    first = o.step(closure).item()
    assert loss().item() < 1e-3 * first
    assert all(p.dtype == np.float32 for p in model.parameters())


def test_parameters_of_several_dtypes_without_gradients_and_complex():
    params = [
        gg.tensor(v, requires_grad=True) for v in (np.ones(2, np.float32), np.full(3, 2.0), np.array([1 + 2j]), np.ones((2, 2)).T, np.ones(1, np.float16))
    ]
    unused = gg.tensor([5.0], requires_grad=True)
    o = optim.LBFGS([*params, unused], max_iter=50, line_search_fn="strong_wolfe")
    f = lambda a, b, z, m, h: gg.sum((a - 3) ** 2) + gg.sum((b + 1) ** 2) + gg.sum(gg.abs(z - (2 - 1j)) ** 2) + gg.sum((m - 2) ** 2) + gg.sum((h - 0.5) ** 2)
    o.step(closure_of(f, params, o))
    for p, expected in zip(params, (3, -1, 2 - 1j, 2, 0.5)):
        assert_allclose(p.numpy().astype(complex), expected, atol=2e-3)
    assert [p.dtype for p in params] == [np.float32, np.float64, np.complex128, np.float64, np.float16]
    assert unused.item() == 5


# ------------------------------------------------------------------------------------------------- the line search


@pytest.mark.parametrize("f", [rosenbrock, lambda x: gg.sum(gg.log(gg.cosh(x))) + gg.sum(x**4), lambda x: gg.sum(gg.sqrt(1 + x * x) - 0.3 * gg.cos(5 * x))])
def test_the_strong_wolfe_conditions_hold_at_every_accepted_step(f):
    """Asked of the points before and behind each move."""
    p = gg.tensor(np.tile([-1.2, 1.0], 3), requires_grad=True)
    o = optim.LBFGS([p], max_iter=1, max_eval=100, line_search_fn="strong_wolfe", tolerance_grad=1e-5, tolerance_change=0)
    closure, both, moves = closure_of(f, [p], o), gg.value_and_grad(f), 0
    for _ in range(80):
        before = p.numpy().copy()
        o.step(closure)
        s = p.numpy() - before
        if not s.any():
            break
        (loss, g), (new_loss, new_g) = both(before), both(p.numpy())
        assert new_loss <= loss + 1e-4 * (g @ s) + 1e-15
        assert abs(new_g @ s) <= 0.9 * abs(g @ s) + 1e-15
        moves += 1
    assert np.abs(both(p.numpy())[1]).max() <= 1e-5
    assert moves >= 5


@pytest.mark.parametrize("t", [1e-8, 1e-3, 1.0, 10.0, 1e3, 1e8])
@pytest.mark.parametrize(
    ("f", "slope"),
    [
        (lambda t: (t - 2) ** 2, lambda t: 2 * (t - 2)),
        (lambda t: -t / (t * t + 2), lambda t: (t * t - 2) / (t * t + 2) ** 2),  # Moré and Thuente (1994), equation 5.1, with beta = 2
        (lambda t: (t + 0.004) ** 5 - 2 * (t + 0.004) ** 4, lambda t: 5 * (t + 0.004) ** 4 - 8 * (t + 0.004) ** 3),  # equation 5.2
        (lambda t: t - math.log(t + 0.1) * 0.5, lambda t: 1 - 0.5 / (t + 0.1)),
    ],
)
def test_strong_wolfe_from_any_first_length(f, slope, t):
    got, loss, gradient = strong_wolfe(lambda t: (f(t), None, slope(t)), t, f(0.0), None, slope(0.0), tolerance=0.0, max_evaluations=60)
    assert got > 0
    assert loss == f(got)
    assert gradient is None
    assert f(got) <= f(0.0) + 1e-4 * got * slope(0.0)
    assert abs(slope(got)) <= 0.9 * abs(slope(0.0))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("what", ["loss", "slope"])
def test_the_line_search_brackets_back_from_what_is_no_number(bad, what):
    """The loss is a number up to t = 0.01 only, and the first length is 1."""
    f = lambda t: ((t - 0.008) ** 2, None, 2 * (t - 0.008)) if t < 0.01 else (bad, None, 1.0) if what == "loss" else (-1.0, None, bad)
    t, loss, _ = strong_wolfe(f, 1.0, 0.008**2, None, -0.016)
    assert 0 < t < 0.01
    assert loss < 0.008**2


def test_a_line_along_which_nothing_falls():
    seen = []
    t, loss, gradient = strong_wolfe(lambda t: (seen.append(t) or 1 + t, "there", -1.0), 1.0, 1.0, "here", -1.0)
    assert (t, loss, gradient) == (0.0, 1.0, "here")
    assert 5 < len(seen) <= 25


def test_the_most_evaluations():
    seen = []
    t, loss, _ = strong_wolfe(lambda t: (seen.append(t) or -t, None, -1.0), 1.0, 0.0, None, -1.0, max_evaluations=7)
    assert len(seen) == 7
    assert (t, loss) == (seen[-1], -seen[-1])
    assert t > 1e4


# ------------------------------------------------------------------------------------------------- what can go wrong


@pytest.mark.parametrize("line_search", [None, "strong_wolfe"])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_loss_that_is_no_number_beyond_a_wall(line_search, bad):
    """log(1 - x) - 2 x, which a long step leaves: the search comes back; without one the step is taken back, and ends."""
    f = lambda x: gg.sum(gg.where(x.detach() < 1, -gg.log(gg.where(x.detach() < 1, 1 - x, 1.0)) - 4 * x, bad))
    p, _ = minimize(f, np.array([0.0]), lr=2.0, line_search_fn=line_search, tolerance_change=0)
    if line_search:
        assert_allclose(p.numpy(), 0.75, rtol=1e-6)
    else:
        assert math.isfinite(f(p).item())


def test_a_start_that_is_no_number_stays():
    p, _ = minimize(lambda x: gg.sum(x) * np.nan, np.array([-1.0]), line_search_fn="strong_wolfe")
    assert p.item() == -1.0


def test_never_worse_than_at_the_start():
    """Gradients that have little to do with the loss, and noise."""
    rng = np.random.default_rng(0)
    for seed in range(20):
        p = gg.tensor(rng.normal(size=4), requires_grad=True)
        o = optim.LBFGS([p], max_iter=8, line_search_fn="strong_wolfe")
        noise = np.random.default_rng(seed)
        f = lambda x: gg.sum(x**2) + gg.sum(gg.sin(20 * x))

        def closure(p=p, o=o, f=f, noise=noise):
            o.zero_grad()
            loss = f(p)
            loss.backward()
            p.grad.data += noise.normal(size=4) * 20
            return loss

        for _ in range(3):
            before = f(p).item()
            o.step(closure)
            assert f(p).item() <= before


def test_a_saddle_and_concave_stretches():
    """Moves along which the gradient shrinks are not kept: H stays positive."""
    f = lambda x: gg.sum(x**4 - 3 * x**2)
    p, o = minimize(f, np.array([0.05, -0.02, 0.01]), max_iter=60, tolerance_change=0, line_search_fn="strong_wolfe")
    assert_allclose(np.abs(p.numpy()), math.sqrt(1.5), rtol=1e-6)
    p, o = minimize(lambda x: -gg.sum(x**2), np.array([1.0]), max_iter=3)
    assert "steps" not in o.state_dict()["state"][0]


@pytest.mark.parametrize("line_search", [None, "strong_wolfe"])
@pytest.mark.parametrize("at", [1, 2, 4])
def test_a_closure_that_raises_leaves_everything_as_it_was(line_search, at):
    p = gg.tensor(np.tile([-1.2, 1.0], 2), requires_grad=True)
    o = optim.LBFGS([p], lr=0.001 if line_search is None else 1, max_iter=4, line_search_fn=line_search)
    closure = closure_of(rosenbrock, [p], o)
    o.step(closure)
    before, state, calls = p.numpy().copy(), flat(o.state_dict()), []

    def broken():
        calls.append(1)
        if len(calls) == at:
            raise KeyError("out of data")
        return closure()

    with pytest.raises(KeyError, match="out of data"):
        o.step(broken)
    assert_array_equal(p.numpy(), before)
    assert_same(flat(o.state_dict()), state)


def test_limits():
    for most, line_search in itertools.product(range(1, 12), (None, "strong_wolfe")):
        calls = []
        p = gg.tensor(np.tile([-1.2, 1.0], 2), requires_grad=True)
        o = optim.LBFGS([p], lr=1 if line_search else 1e-3, max_iter=50, max_eval=most, line_search_fn=line_search)
        first = o.step(closure_of(rosenbrock, [p], o, calls))
        assert len(calls) == most
        assert first.item() == calls[0][1]
        assert rosenbrock(p).item() == min(loss for _, loss in calls)
        assert o.state_dict()["state"][0]["func_evals"] == len(calls)
    p, o = minimize(rosenbrock, np.tile([-1.2, 1.0], 2), max_iter=30, history_size=3, line_search_fn="strong_wolfe")
    assert o.state_dict()["state"][0]["steps"].shape == (3, 4)
    calls = []
    p = gg.tensor(np.zeros(2), requires_grad=True)
    o = optim.LBFGS([p])
    o.step(closure_of(lambda x: gg.sum(x * x), [p], o, calls))  # at the minimum
    assert len(calls) == 1


def test_misuse():
    p, q = (gg.tensor([1.0], requires_grad=True) for _ in range(2))
    with pytest.raises(ValueError, match="doesn't support per-parameter options"):
        optim.LBFGS([{"params": [p]}, {"params": [q]}])
    o = optim.LBFGS([p])
    with pytest.raises(TypeError, match=r"call step\(closure\)"):
        o.step()
    for options, message in (
        ({"line_search_fn": "armijo"}, "only 'strong_wolfe' is supported for line_search_fn, or None: got 'armijo'"),
        ({"max_iter": 0}, "invalid max_iter: got 0"),
        ({"history_size": 0}, "invalid history_size: got 0"),
        ({"lr": -1.0}, "invalid lr: got -1"),
    ):
        with pytest.raises(ValueError, match=message):
            optim.LBFGS([p], **options)
    o.max_grad_norm = 1.0
    with pytest.raises(ValueError, match="got max_grad_norm"):
        o.step(lambda: gg.sum(p))


def test_two_devices_are_refused(fake_cupy):
    with pytest.raises(ValueError, match="parameters on cpu and cuda:0, expected one device"):
        optim.LBFGS([gg.tensor([1.0], requires_grad=True), gg.tensor([1.0], device="cuda", requires_grad=True)])


# ------------------------------------------------------------------------------------------------- state


@pytest.mark.parametrize("options", [{"lr": 0.002, "max_iter": 3, "max_eval": 9}, {"max_iter": 2, "line_search_fn": "strong_wolfe", "history_size": 4}])
def test_going_on_from_a_saved_state_is_going_on(options, device):
    """Bit for bit, through arrays in a file."""
    start = np.tile([-1.2, 1.0], 3)
    for stop in (0, 1, 3, 6):
        p, o = minimize(rosenbrock, start, stop, device=device, **options)
        saved = o.state_dict()
        assert all(type(v) in (int, gg.Tensor) for v in saved["state"].get(0, {}).values())
        file = io.BytesIO()
        np.savez(file, **flat(saved))
        file.seek(0)
        with np.load(file) as arrays:
            read = {k: int(v) if v.ndim == 0 else v for k, v in arrays.items()}
        q = gg.tensor(p.numpy(), device=device, requires_grad=True)
        again = optim.LBFGS([q])
        again.load_state_dict({"state": {0: read} if read else {}, "param_groups": saved["param_groups"]})
        for _ in range(4):
            o.step(closure_of(rosenbrock, [p], o))
            again.step(closure_of(rosenbrock, [q], again))
        assert_array_equal(p.numpy(), q.numpy())
        assert_same(flat(o.state_dict()), flat(again.state_dict()))


def test_loading_a_state_that_does_not_fit_changes_nothing():
    _, o = minimize(rosenbrock, np.tile([-1.2, 1.0], 2))
    p, other = minimize(rosenbrock, np.array([-1.2, 1.0]))
    before = flat(other.state_dict())
    with pytest.raises(ValueError, match="steps of 4 elements, expected 2"):
        other.load_state_dict(o.state_dict())
    assert_same(flat(other.state_dict()), before)


# ------------------------------------------------------------------------------------------------- PyTorch


@pytest.mark.parametrize(
    "options", [{"lr": 0.5, "max_iter": 5}, {"lr": 1, "max_iter": 4, "history_size": 3}, {"max_iter": 5, "line_search_fn": "strong_wolfe"}]
)
def test_trajectory_as_pytorch(options):
    """Logistic regression, where a first length of 1 fulfils the conditions."""
    torch = pytest.importorskip("torch")
    x, y = logistic()
    theirs = torch.zeros(5, dtype=torch.float64, requires_grad=True)
    o = torch.optim.LBFGS([theirs], **options)
    tx, ty = torch.tensor(x), torch.tensor(y)

    def closure():
        o.zero_grad()
        loss = torch.nn.functional.binary_cross_entropy_with_logits(tx @ theirs, ty) + 0.005 * (theirs * theirs).sum()
        loss.backward()
        return loss

    ours = gg.tensor(np.zeros(5), requires_grad=True)
    mine = optim.LBFGS([ours], **options)
    f = lambda w: nn.functional.bce_with_logits(x @ w, y) + 0.005 * gg.sum(w * w)
    for _ in range(4):
        o.step(closure)
        mine.step(closure_of(f, [ours], mine))
        assert_allclose(ours.numpy(), theirs.detach().numpy(), rtol=1e-5, atol=1e-8)


def test_rosenbrock_takes_no_more_than_pytorch():
    torch = pytest.importorskip("torch")
    start = np.tile([-1.2, 1.0], 10)
    theirs = torch.tensor(start, requires_grad=True)
    o = torch.optim.LBFGS([theirs], max_iter=1000, tolerance_grad=1e-8, tolerance_change=0, line_search_fn="strong_wolfe")
    evaluations = []

    def closure():
        evaluations.append(1)
        o.zero_grad()
        loss = (100 * (theirs[1:] - theirs[:-1] ** 2) ** 2 + (1 - theirs[:-1]) ** 2).sum()
        loss.backward()
        return loss

    o.step(closure)
    _, mine = minimize(rosenbrock, start, max_iter=1000, tolerance_grad=1e-8, tolerance_change=0, line_search_fn="strong_wolfe")
    assert mine.state_dict()["state"][0]["func_evals"] <= 1.2 * len(evaluations)


@pytest.mark.parametrize("options", [{"max_iter": 1}, {"max_iter": 1, "line_search_fn": "strong_wolfe"}, {"max_iter": 2}])
def test_the_smallest_budgets_move(options):
    p = gg.tensor([5.0], requires_grad=True)
    optimizer = optim.LBFGS([p], **options)

    def closure():
        optimizer.zero_grad()
        loss = ((p - 1) ** 2).sum()
        loss.backward()
        return loss

    for _ in range(20):
        optimizer.step(closure)
    assert abs(p.item() - 1) < 0.1
