"""Newton-CG: one move on quadratics, known minima, SciPy's, saddles and walls, how exactly the equations are solved, state."""

from __future__ import annotations

import gc
import io
import itertools
import math
import weakref

import numpy as np
import pytest
from minima import assert_same, flat, logistic, logistic_loss, logistic_minimum, rosenbrock, spd
from numpy.testing import assert_allclose, assert_array_equal

import gpugrad as gg
from gpugrad import nn, optim

EXACT = {"forcing": 0, "tolerance_grad": 0, "tolerance_change": 0}


def minimize(f, start, steps=1, device="cpu", **options):
    """The parameter and the optimizer after so many steps."""
    p = gg.tensor(start, device=device, requires_grad=True)
    o = optim.NewtonCG([p], **options)
    for _ in range(steps):
        o.step(lambda: f(p))
    return p, o


def counts(o):
    return o.state_dict()["state"][0]


# ------------------------------------------------------------------------------------------------- minima


@pytest.mark.parametrize("n", [1, 3, 8])
def test_a_quadratic_ends_in_one_move(n, device):
    a, b = spd(n), np.arange(1.0, n + 1)
    matrix, vector = gg.tensor(a, device=device), gg.tensor(b, device=device)
    p, o = minimize(lambda x: 0.5 * (x @ (matrix @ x)) - vector @ x, np.full(n, 5.0), device=device, max_iter=1, max_cg=n, **EXACT)
    assert_allclose(p.numpy(), np.linalg.solve(a, b), rtol=1e-10)
    assert counts(o) == {"n_iter": 1, "func_evals": 2, "products": n}


def test_a_quadratic_of_two_parameters_of_which_one_is_not_used_and_complex_numbers(device):
    """|A z - c|^2 in complex z is a quadratic in its real and imaginary parts."""
    rng = np.random.default_rng(0)
    a, c = (rng.normal(size=shape) + 1j * rng.normal(size=shape) for shape in ((4, 3), (4,)))
    matrix, vector = gg.tensor(a, device=device), gg.tensor(c, device=device)
    z, unused = gg.tensor(np.zeros(3, complex), device=device, requires_grad=True), gg.tensor([5.0], device=device, requires_grad=True)
    w = gg.tensor(np.zeros((2, 2)), device=device, requires_grad=True)
    o = optim.NewtonCG([w, z, unused], max_iter=3, **EXACT)
    o.step(lambda: gg.sum(gg.abs(matrix @ z - vector) ** 2) + gg.sum((w - 2) ** 2 * 3))
    assert_allclose(z.numpy(), np.linalg.lstsq(a, c)[0], rtol=1e-10)
    assert_allclose(w.numpy(), 2, rtol=1e-12)
    assert (z.dtype, w.dtype, unused.item()) == (np.complex128, np.float64, 5)


@pytest.mark.parametrize(("n", "forcing", "moves"), [(2, 0.5, 90), (2, 0.0, 30), (20, 0.5, 250)])
def test_rosenbrock(n, forcing, moves, device):
    p, o = minimize(rosenbrock, np.tile([-1.2, 1.0], n // 2), device=device, max_iter=moves, forcing=forcing, tolerance_grad=1e-10, tolerance_change=0)
    assert_allclose(p.numpy(), 1, rtol=1e-9)
    assert counts(o)["n_iter"] < moves
    assert counts(o)["func_evals"] < 2 * counts(o)["n_iter"]


def test_convergence_is_superlinear():
    """The norm of the gradient: with the forcing sequence it falls as a power of 3/2 at least, with forcing 0 as the square, until rounding."""
    x, y = logistic()
    f = lambda w: logistic_loss(x @ w, w, y)
    for forcing, least in ((0.5, 1.45), (0.0, 1.9)):
        p = gg.tensor(np.zeros(5), requires_grad=True)
        o, norms = optim.NewtonCG([p], max_iter=1, forcing=forcing, tolerance_grad=0, tolerance_change=0), []
        for _ in range(12):
            norms.append(np.linalg.norm(gg.grad(f)(p.numpy())))
            o.step(lambda p=p: f(p))
        logs = [math.log(norm) for norm in norms if 1e-14 < norm < 1e-2]
        powers = [(c - b) / (b - a) for a, b, c in zip(logs, logs[1:], logs[2:])]
        assert len(powers) >= 2 and min(powers) > least
        assert norms[-1] < 1e-9


def test_logistic_regression_to_the_minimum():
    x, y = logistic()
    p, _ = minimize(lambda w: logistic_loss(x @ w, w, y), np.zeros(5), tolerance_grad=1e-12, tolerance_change=0)
    assert_allclose(p.numpy(), logistic_minimum(), rtol=1e-8)


def test_logistic_regression_as_scipy():
    scipy = pytest.importorskip("scipy.optimize")
    x, y = logistic()
    f = lambda w: logistic_loss(x @ w, w, y)
    theirs = scipy.minimize(f, np.zeros(5), jac=gg.grad(f), hessp=lambda w, v: gg.hvp(f, w, v), method="Newton-CG", options={"xtol": 1e-12})
    ours, o = minimize(f, np.zeros(5), max_iter=100, tolerance_grad=1e-10, tolerance_change=0)
    assert_allclose(ours.numpy(), theirs.x, rtol=1e-6)
    assert counts(o)["products"] <= 2 * theirs.nhev


def net(dtype, device="cpu"):
    rng = np.random.default_rng(0)
    x = gg.tensor(rng.uniform(-1, 1, (64, 1)).astype(dtype), device=device)
    y = gg.sin(3 * x)
    gg.random.seed(0)
    model = nn.MLP([1, 16, 1], "tanh", device=device, dtype=dtype)
    return model, lambda: nn.functional.mse_loss(model(x), y)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_net_whose_loss_is_not_convex(dtype, device):
    """The loss never rises, and a local minimum is reached by far fewer moves than L-BFGS needs."""
    model, loss = net(dtype, device)
    o, losses = optim.NewtonCG(model.parameters(), max_iter=1), []
    for _ in range(40):
        losses.append(o.step(loss).item())
    assert all(b <= a for a, b in itertools.pairwise(losses))
    assert losses[-1] < 1e-3 * losses[0]
    assert all(p.dtype == dtype and p.grad is None for p in model.parameters())


def test_dtypes_of_each_their_own():
    params = [gg.tensor(v, requires_grad=True) for v in (np.ones(2, np.float32), np.full(3, 2.0), np.ones((2, 2)).T, np.ones(1, np.float16), np.array(7.0))]
    o = optim.NewtonCG(params, max_iter=20)
    a, b, m, h, s = params
    f = lambda: gg.sum((a - 3) ** 2) + gg.sum((b + 1) ** 2) + gg.sum((m - 2) ** 4) + gg.sum((h - 0.5) ** 2) + (s + 2) ** 2
    o.step(f)
    for p, expected, exact in zip(params, (3, -1, 2, 0.5, -2), (1e-5, 1e-5, 1e-2, 2e-3, 1e-5)):
        assert_allclose(p.numpy(), expected, atol=exact)
    assert [p.dtype for p in params] == [np.float32, np.float64, np.float64, np.float16, np.float64]


# ------------------------------------------------------------------------------------------------- curvature that is not positive


def test_a_saddle_is_left(device):
    """x^2 / 2 - y^2 / 2 + y^4 / 4, from a point where the gradient leads to the saddle but for a hair."""
    f = lambda p: p[0] ** 2 / 2 - p[1] ** 2 / 2 + p[1] ** 4 / 4
    p, _ = minimize(f, np.array([1.0, 1e-8]), device=device, max_iter=30, tolerance_grad=1e-12, tolerance_change=0)
    assert_allclose(p.numpy(), [0, 1], atol=1e-7)


def test_a_first_direction_of_negative_curvature_is_steepest_descent_and_a_later_one_ends_with_the_point_before():
    curvature, slope = np.array([1.0, -2.0]), np.array([3.0, 0.1])
    steps = []
    f = lambda x: 0.5 * gg.sum(curvature * x * x) + gg.sum(slope * x) + gg.sum(x**4)
    for start in (np.zeros(2), np.array([-3.0, 0.02])):
        g, h = gg.grad(f)(start), gg.hessian(f)(start)
        p, o = minimize(f, start, max_iter=1, lr=1e-6, forcing=0.0)
        steps.append((p.numpy() - start, g, h, counts(o)["products"]))
    (move, g, h, products), _ = steps
    assert products == 2  # the first direction, -g, is of positive curvature, the second is not
    assert g @ h @ g > 0 and np.linalg.eigvalsh(h)[0] < 0
    first = -g * (g @ g) / (g @ h @ g)
    assert_allclose(move / np.linalg.norm(move), first / np.linalg.norm(first), rtol=1e-6)
    p, o = minimize(lambda x: -gg.sum(x**2) + gg.sum(x**4), np.array([0.1, 0.2]), max_iter=1)
    assert counts(o)["products"] == 1
    g = np.array([-0.2 + 0.004, -0.4 + 0.032])
    d = p.numpy() - [0.1, 0.2]
    assert_allclose(d / np.linalg.norm(d), -g / np.linalg.norm(g), rtol=1e-12)


def test_a_linear_loss_has_no_curvature():
    """Downhill, as far as the line search goes: to a wall here."""
    p, o = minimize(lambda x: gg.sum(x) * 2, np.array([1.0, 2.0]), max_iter=1)
    assert p.numpy()[0] < 0 and p.numpy()[0] + 1 == p.numpy()[1]
    assert counts(o)["products"] == 1


def test_how_exactly_the_equations_are_solved():
    """|H d + g| <= min(forcing, sqrt(|g|)) |g|, and no product more than that takes."""
    a, b = spd(30), np.arange(1.0, 31)
    f = lambda x: 0.5 * (x @ (a @ x)) - b @ x
    products = []
    for forcing in (0.5, 0.1, 1e-3):
        p, o = minimize(f, np.zeros(30), max_iter=1, forcing=forcing)
        products.append(counts(o)["products"])
        residual = np.linalg.norm(a @ p.numpy() - b) / np.linalg.norm(b)  # a move of t = 1, so that this is H d + g
        assert residual <= forcing
        shorter, _ = minimize(f, np.zeros(30), max_iter=1, forcing=0, max_cg=max(products[-1] - 1, 1))
        assert products[-1] == 1 or np.linalg.norm(a @ shorter.numpy() - b) / np.linalg.norm(b) > forcing
    assert products == sorted(set(products))
    start = np.linalg.solve(a, b) + 1e-6  # sqrt(|g|) counts
    p, o = minimize(f, start, max_iter=1, tolerance_grad=0, tolerance_change=0)
    before, after = (np.linalg.norm(a @ x - b) for x in (start, p.numpy()))
    assert after <= before**1.5 * 1.01


# ------------------------------------------------------------------------------------------------- what can go wrong


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_loss_that_is_no_number_beyond_a_wall(bad):
    f = lambda x: gg.sum(gg.where(x.detach() < 1, -gg.log(gg.where(x.detach() < 1, 1 - x, 1.0)) - 4 * x, bad))
    p, _ = minimize(f, np.array([-9.0]), tolerance_change=0)
    assert_allclose(p.numpy(), 0.75, rtol=1e-6)


def test_a_start_that_is_no_number_stays():
    p, o = minimize(lambda x: gg.sum(x) * np.nan, np.array([-1.0]))
    assert p.item() == -1.0
    assert counts(o) == {"n_iter": 0, "func_evals": 1, "products": 0}


def test_where_nothing_falls_the_point_stays():
    """A loss whose derivative says something else: uphill wherever one goes."""
    p = gg.tensor(np.array([1.0, 2.0]), requires_grad=True)
    o = optim.NewtonCG([p])
    before = p.numpy().copy()
    loss = o.step(lambda: gg.sum(p * p) - 2 * gg.sum(p * p).detach())
    assert_array_equal(p.numpy(), before)
    assert loss.item() == -5 and not loss.requires_grad
    assert counts(o)["n_iter"] == 1


def test_the_best_point_seen_need_not_be_the_last():
    """A narrow valley at t = 1, and a search that runs out of evaluations behind it: the parameters are where the loss is smallest, and so is what goes on."""
    seen = []

    def f(x):
        loss = gg.sum(x * x) + 100 * gg.sum(gg.cos(300 * x)) / 300**2
        seen.append((loss.item(), x.item()))
        return loss

    for start in np.linspace(0.3, 3, 40):
        seen.clear()
        p, _ = minimize(f, np.array([start]), max_iter=1)
        assert (f(p).item(), p.item()) == min(seen)


@pytest.mark.parametrize("at", [1, 2, 4])
def test_a_closure_that_raises_leaves_everything_as_it_was(at):
    p = gg.tensor(np.tile([-1.2, 1.0], 2), requires_grad=True)
    o = optim.NewtonCG([p], max_iter=4)
    o.step(lambda: rosenbrock(p))
    before, state, calls = p.numpy().copy(), flat(o.state_dict()), []

    def broken():
        calls.append(1)
        if len(calls) == at:
            raise KeyError("out of data")
        return rosenbrock(p)

    with pytest.raises(KeyError, match="out of data"):
        o.step(broken)
    assert_array_equal(p.numpy(), before)
    assert_same(flat(o.state_dict()), state)


def test_limits():
    a = spd(10)
    p, o = minimize(lambda x: 0.5 * (x @ (a @ x)) - gg.sum(x), np.zeros(10), max_iter=3, max_cg=2, **EXACT)
    assert counts(o)["n_iter"] == 3 and counts(o)["products"] == 6
    p, o = minimize(lambda x: gg.sum(x * x), np.zeros(2))  # at the minimum
    assert counts(o) == {"n_iter": 0, "func_evals": 1, "products": 0}
    p, o = minimize(lambda x: gg.sum(gg.cosh(x)), np.ones(2), tolerance_grad=1e-2, max_iter=50)
    assert 0 < np.abs(np.sinh(p.numpy())).max() <= 1e-2
    p, o = minimize(lambda x: gg.sum(gg.cosh(x)), np.ones(2), tolerance_grad=0, tolerance_change=1e-3, max_iter=50)
    assert counts(o)["n_iter"] < 6


def test_misuse():
    p, q = (gg.tensor([1.0], requires_grad=True) for _ in range(2))
    with pytest.raises(ValueError, match="NewtonCG doesn't support per-parameter options"):
        optim.NewtonCG([{"params": [p]}, {"params": [q]}])
    o = optim.NewtonCG([p])
    with pytest.raises(TypeError, match=r"call step\(closure\), where closure returns the loss"):
        o.step()
    for options, message in (
        ({"max_iter": 0}, "invalid max_iter: got 0"),
        ({"max_cg": 0}, "invalid max_cg: got 0"),
        ({"forcing": 1.0}, "invalid forcing: got 1.0, expected a number from 0 to below 1"),
        ({"tolerance_grad": -1.0}, "invalid tolerance_grad: got -1.0"),
        ({"lr": -1.0}, "invalid lr: got -1"),
    ):
        with pytest.raises(ValueError, match=message):
            optim.NewtonCG([p], **options)
    for closure, message in (
        (lambda: 1.0, "got float, write return loss"),
        (lambda: p.detach() * 2, r"got a Tensor of shape \(1,\)"),
        (lambda: p * np.ones(3), r"a Tensor of one element that depends on the parameters: got a Tensor of shape \(3,\)"),
    ):
        with pytest.raises(TypeError, match=message):
            o.step(closure)

    def torch_like():
        loss = gg.sum(p * p)
        loss.backward()
        return loss

    with pytest.raises(RuntimeError, match="NewtonCG differentiates the loss itself, but the graph is gone: the closure must not call backward"):
        o.step(torch_like)
    o.max_grad_norm = 1.0
    with pytest.raises(ValueError, match="got max_grad_norm"):
        o.step(lambda: gg.sum(p))
    assert repr(optim.NewtonCG([p])).startswith("NewtonCG(lr=1, max_iter=20, max_cg=250, forcing=0.5, ")


def test_an_operation_without_a_second_derivative_is_named():
    class Cube(gg.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x**3

        @staticmethod
        @gg.autograd.once_differentiable
        def backward(ctx, g):
            return g * 3 * ctx.saved_tensors[0] ** 2

    with pytest.raises(RuntimeError, match="differentiate twice"):
        minimize(lambda x: gg.sum(Cube.apply(x)), np.ones(2))


def test_two_devices_are_refused(fake_cupy):
    with pytest.raises(ValueError, match="NewtonCG: got parameters on cpu and cuda:0, expected one device"):
        optim.NewtonCG([gg.tensor([1.0], requires_grad=True), gg.tensor([1.0], device="cuda", requires_grad=True)])


# ------------------------------------------------------------------------------------------------- state


def test_going_on_from_a_saved_state_is_going_on(device):
    """Bit for bit, through arrays in a file, and the same bits whenever it is run."""
    start = np.tile([-1.2, 1.0], 3)
    for stop in (0, 1, 3, 6):
        p, o = minimize(rosenbrock, start, stop, device=device, max_iter=2)
        saved = o.state_dict()
        file = io.BytesIO()
        np.savez(file, **flat(saved))
        file.seek(0)
        with np.load(file) as arrays:
            read = {k: int(v) for k, v in arrays.items()}
        q = gg.tensor(p.numpy(), device=device, requires_grad=True)
        again = optim.NewtonCG([q])
        again.load_state_dict({"state": {0: read} if read else {}, "param_groups": saved["param_groups"]})
        for _ in range(4):
            o.step(lambda p=p: rosenbrock(p))
            again.step(lambda q=q: rosenbrock(q))
        assert_array_equal(p.numpy(), q.numpy())
        assert_same(flat(o.state_dict()), flat(again.state_dict()))
        assert_array_equal(p.numpy(), minimize(rosenbrock, start, stop + 4, device=device, max_iter=2)[0].numpy())


def test_no_graph_outlives_its_point():
    """What the gradient has left on the tape is freed at once, before the next point is tried: no reference cycle holds it."""

    class Watched:
        pass

    p, watched, alive = gg.tensor(np.array([0.001, 0.002, 0.003]), requires_grad=True), [], []
    identity = gg.primitive(lambda x, keep: x * 1.0)
    gg.defvjp(identity, lambda g, y, x, keep: g)

    def closure():
        alive.append(sum(w() is not None for w in watched))
        keep = Watched()
        watched.append(weakref.ref(keep))
        y = identity(p, keep)
        return gg.sum(y**4 - y**2)

    gc.disable()
    try:
        o = optim.NewtonCG([p], max_iter=5)
        o.step(closure)
        assert len(watched) > counts(o)["n_iter"] + 1
        assert set(alive) == {0} and not any(w() for w in watched)
    finally:
        gc.enable()
