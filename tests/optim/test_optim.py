"""Optimizers against their formulas, written out on whole arrays: every option, dtype and device; views, complex numbers, clipping, state."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import gpugrad as gg
from gpugrad import kernels, nn, optim
from gpugrad.cuda import emulator
from gpugrad.kernels import optimizers
from gpugrad.optim.optimizer import remembered
from gpugrad.testing import agreement

TWINS = ["reference", "cpu", pytest.param("cuda", marks=pytest.mark.skipif(not emulator.is_available(), reason="needs g++"))]
every_twin = pytest.mark.parametrize("twin", TWINS)


def sgd_by_the_book(p, grads, lr=1e-3, momentum=0, dampening=0, weight_decay=0, nesterov=False, maximize=False, decoupled_weight_decay=False):
    b = None
    for g in grads:
        p, g = decayed(p, -g if maximize else g, lr, weight_decay, decoupled_weight_decay)
        if momentum:
            b = g if b is None else momentum * b + (1 - dampening) * g
            g = g + momentum * b if nesterov else b
        p = p - lr * g
    return p


def adam_by_the_book(p, grads, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0, amsgrad=False, maximize=False, decoupled_weight_decay=False):
    m = v = largest = 0
    for t, g in enumerate(grads, 1):
        p, g = decayed(p, -g if maximize else g, lr, weight_decay, decoupled_weight_decay)
        m = betas[0] * m + (1 - betas[0]) * g
        v = betas[1] * v + (1 - betas[1]) * g**2
        largest = np.maximum(largest, v) if amsgrad else v
        p = p - lr * (m / (1 - betas[0] ** t)) / (np.sqrt(largest / (1 - betas[1] ** t)) + eps)
    return p


def adamw_by_the_book(p, grads, weight_decay=1e-2, **options):
    return adam_by_the_book(p, grads, weight_decay=weight_decay, decoupled_weight_decay=True, **options)


def nadam_by_the_book(p, grads, lr=2e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0, momentum_decay=4e-3, decoupled_weight_decay=False, maximize=False):
    m = v = 0
    mu = lambda t: betas[0] * (1 - 0.5 * 0.96 ** (t * momentum_decay))
    for t, g in enumerate(grads, 1):
        p, g = decayed(p, -g if maximize else g, lr, weight_decay, decoupled_weight_decay)
        m = betas[0] * m + (1 - betas[0]) * g
        v = betas[1] * v + (1 - betas[1]) * g**2
        up_to, beyond = (np.prod([mu(i) for i in range(1, n + 1)]) for n in (t, t + 1))
        n = mu(t + 1) * m / (1 - beyond) + (1 - mu(t)) * g / (1 - up_to)
        p = p - lr * n / (np.sqrt(v / (1 - betas[1] ** t)) + eps)
    return p


def rmsprop_by_the_book(p, grads, lr=1e-2, alpha=0.99, eps=1e-8, weight_decay=0, momentum=0, centered=False, maximize=False, decoupled_weight_decay=False):
    v = m = b = 0
    for g in grads:
        p, g = decayed(p, -g if maximize else g, lr, weight_decay, decoupled_weight_decay)
        v = alpha * v + (1 - alpha) * g**2
        m = alpha * m + (1 - alpha) * g
        b = momentum * b + g / (np.sqrt(v - m**2 if centered else v) + eps)
        p = p - lr * b
    return p


def adagrad_by_the_book(p, grads, lr=1e-2, lr_decay=0, weight_decay=0, initial_accumulator_value=0, eps=1e-10, maximize=False, decoupled_weight_decay=False):
    s = initial_accumulator_value
    for t, g in enumerate(grads, 1):
        rate = lr / (1 + (t - 1) * lr_decay)
        p, g = decayed(p, -g if maximize else g, rate, weight_decay, decoupled_weight_decay)
        s = s + g**2
        p = p - rate * g / (np.sqrt(s) + eps)
    return p


def adadelta_by_the_book(p, grads, lr=1.0, rho=0.9, eps=1e-6, weight_decay=0, maximize=False, decoupled_weight_decay=False):
    v = u = 0
    for g in grads:
        p, g = decayed(p, -g if maximize else g, lr, weight_decay, decoupled_weight_decay)
        v = rho * v + (1 - rho) * g**2
        d = np.sqrt(u + eps) / np.sqrt(v + eps) * g
        u = rho * u + (1 - rho) * d**2
        p = p - lr * d
    return p


def lion_by_the_book(p, grads, lr=1e-4, betas=(0.9, 0.99), weight_decay=0, maximize=False, decoupled_weight_decay=True):
    m = 0
    for g in grads:
        g = -g if maximize else g
        if not decoupled_weight_decay:
            g = g + weight_decay * p
        p = p - lr * (np.sign(betas[0] * m + (1 - betas[0]) * g) + weight_decay * decoupled_weight_decay * p)
        m = betas[1] * m + (1 - betas[1]) * g
    return p


def decayed(p, g, lr, weight_decay, decoupled):
    return (p - lr * weight_decay * p, g) if decoupled else (p, g + weight_decay * p)


def every(**values):
    """All combinations of the values of each option."""
    return [dict(zip(values, chosen)) for chosen in itertools.product(*values.values())]


DECAYS = [{}, {"weight_decay": 0.1, "maximize": True}, {"weight_decay": 0.1, "decoupled_weight_decay": True, "maximize": True}]
LAST = {"weight_decay": 0.1, "decoupled_weight_decay": False}
MOMENTA = [{}, {"momentum": 0.9}, {"momentum": 0.9, "dampening": 0.3}, {"momentum": 0.9, "nesterov": True}]
BETAS = {"lr": [0.1], "betas": [(0.8, 0.9)], "eps": [1e-3]}
CASES = [
    *[(optim.SGD, sgd_by_the_book, {"lr": 0.1, **momentum, **decay}) for momentum, decay in itertools.product(MOMENTA, [*DECAYS, {"maximize": True}])],
    *[
        (make, book, o)
        for make, book in ((optim.Adam, adam_by_the_book), (optim.AdamW, adamw_by_the_book))
        for o in every(**BETAS, weight_decay=[0, 0.3], amsgrad=[False, True], maximize=[False, True])
    ],
    *[(optim.Adam, adam_by_the_book, {**o, "decoupled_weight_decay": True}) for o in every(**BETAS, weight_decay=[0.3], amsgrad=[False, True])],
    *[(optim.NAdam, nadam_by_the_book, {**o, **decay}) for o in every(**BETAS, momentum_decay=[4e-3, 0.1]) for decay in DECAYS],
    *[
        (optim.RMSprop, rmsprop_by_the_book, {**o, **decay})
        for o in every(lr=[0.01], alpha=[0.9], eps=[1e-3], momentum=[0, 0.9], centered=[False, True])
        for decay in DECAYS
    ],
    *[(optim.Adagrad, adagrad_by_the_book, {**o, **decay}) for o in every(lr=[0.1], lr_decay=[0, 0.1], initial_accumulator_value=[0, 0.5]) for decay in DECAYS],
    *[(optim.Adadelta, adadelta_by_the_book, {**o, **decay}) for o in every(lr=[0.5], rho=[0.9, 0.5], eps=[1e-3]) for decay in DECAYS],
    *[(optim.Lion, lion_by_the_book, {**o, **decay}) for o in every(lr=[0.01], betas=[(0.9, 0.99), (0.5, 0.8)]) for decay in [*DECAYS, LAST]],
    *[
        (make, book, {})
        for make, book in (
            (optim.SGD, sgd_by_the_book),
            (optim.Adam, adam_by_the_book),
            (optim.AdamW, adamw_by_the_book),
            (optim.NAdam, nadam_by_the_book),
            (optim.RMSprop, rmsprop_by_the_book),
            (optim.Adagrad, adagrad_by_the_book),
            (optim.Adadelta, adadelta_by_the_book),
            (optim.Lion, lion_by_the_book),
        )
    ],
]
every_case = pytest.mark.parametrize(("make", "by_the_book", "options"), CASES)


MAKERS = [
    optim.SGD,
    lambda ps, **o: optim.SGD(ps, momentum=0.9, nesterov=True, **o),
    optim.AdamW,
    optim.NAdam,
    lambda ps, **o: optim.RMSprop(ps, momentum=0.9, centered=True, **o),
    lambda ps, **o: optim.Adagrad(ps, lr_decay=0.1, initial_accumulator_value=0.1, **o),
    optim.Adadelta,
    lambda ps, **o: optim.Lion(ps, weight_decay=0.1, **o),
]
every_maker = pytest.mark.parametrize("make", MAKERS, ids=["SGD", "Nesterov", "AdamW", "NAdam", "RMSprop", "Adagrad", "Adadelta", "Lion"])


def steps(make, p, grads, **options):
    o = make([p], **options)
    for g in grads:
        p.grad = gg.tensor(g, device=p.device)
        o.step()
        assert_array_equal(p.grad.numpy(), g)  # which no update may touch
    return o


@every_twin
@every_case
def test_fifty_steps(make, by_the_book, options, twin):
    """Several parameters at once, and gradients that shrink, so that the largest square so far is not the last one."""
    rng = np.random.default_rng(0)
    starts = [np.asarray(rng.normal(size=shape)) for shape in [(), (0,), (3, 4), (1000,)]]
    grads = [[np.asarray(rng.normal(size=p.shape)) * np.exp(-0.05 * t) for p in starts] for t in range(50)]
    for dtype, rtol in ((np.float64, 1e-11), (np.float32, 2e-4)):
        params = [gg.tensor(p.astype(dtype), requires_grad=True) for p in starts]
        o = make(params, **options)
        with kernels.use(twin):
            for gs in grads:
                for p, g in zip(params, gs):
                    p.grad = gg.tensor(g.astype(dtype))
                o.step()
        for i, (p, start) in enumerate(zip(params, starts)):
            assert p.dtype == dtype
            rounded = [g[i].astype(dtype).astype(float) for g in grads]
            assert_allclose(p.numpy(), by_the_book(start.astype(dtype).astype(float), rounded, **options), rtol=rtol, atol=rtol)


@every_twin
@pytest.mark.parametrize(("make", "by_the_book", "options"), CASES[::2])
@pytest.mark.parametrize("dtype", agreement.dtypes()[2:], ids=str)
def test_steps_in_16_bits_are_rounded_once(make, by_the_book, options, dtype, twin):
    """Each of 20 steps, from what the last one left, to the nearest 16-bit number of the formula in float64."""
    rng = np.random.default_rng(0)
    p = gg.tensor(rng.normal(size=300).astype(dtype), requires_grad=True)
    o = make([p], **options)
    unit = {"float16": 2.0**-11, "bfloat16": 2.0**-8}[dtype.name]
    for _ in range(20):
        exact = gg.tensor(p.data.astype(float), requires_grad=True)
        other = make([exact], **options)
        other.load_state_dict(o.state_dict())
        p.grad = gg.tensor(rng.normal(size=300).astype(dtype))
        exact.grad = gg.tensor(p.grad.data.astype(float))
        with kernels.use(twin):
            o.step()
        with kernels.use("reference"):
            other.step()
        assert p.dtype == dtype
        pairs = [(p.data, exact.data), *((o.state[p][k], v) for k, v in other.state.get(exact, {}).items() if isinstance(v, np.ndarray))]
        for got, expected in pairs:
            assert got.dtype == dtype
            assert_allclose(got.astype(float), expected, rtol=1.1 * unit, atol=1e-6)


@pytest.mark.parametrize(("make", "by_the_book", "options"), CASES[::3])
def test_on_every_device_in_float32(make, by_the_book, options, device):
    rng = np.random.default_rng(0)
    start, grads = rng.normal(size=(3, 4)).astype(np.float32), [rng.normal(size=(3, 4)).astype(np.float32) for _ in range(4)]
    p = gg.tensor(start, requires_grad=True, device=device)
    steps(make, p, grads, **options)
    assert p.dtype == np.float32
    assert_allclose(p.numpy(), by_the_book(start.astype(float), [g.astype(float) for g in grads], **options), rtol=1e-4, atol=1e-6)


def test_views_and_other_layouts_are_updated_in_place():
    rng = np.random.default_rng(0)
    base = rng.normal(size=(6, 5))
    for view in (base.T, base[::-1, ::2], np.asfortranarray(base)):
        start, g = view.copy(), rng.normal(size=view.shape)
        p = gg.asarray(view).requires_grad_()
        p.grad = gg.asarray(g.T.copy().T)
        optim.Adam([p], lr=0.1).step()
        assert p.data is view
        assert_allclose(view, adam_by_the_book(start, [g], lr=0.1), rtol=1e-12)


@pytest.mark.parametrize("layout", ["C", "F", "strided"])
def test_complex_parameters_are_pairs_of_real_ones(layout):
    start, g = np.array([[1 + 2j, 3.0, 1j], [2.0, -1.0, 4j]]), np.array([[0.3 - 0.2j, 1j, 1.0], [1.0, 1 - 1j, 2.0]])
    array = np.repeat(start, 2, axis=1)[:, ::2] if layout == "strided" else start.copy(layout)
    p = gg.asarray(array).requires_grad_()
    p.grad = gg.tensor(g)
    optim.Adam([p], lr=0.1).step()
    assert p.data is array
    expected = adam_by_the_book(start.real, [g.real], lr=0.1) + 1j * adam_by_the_book(start.imag, [g.imag], lr=0.1)
    assert_allclose(array, expected)


def test_dtypes_mix_in_a_group():
    rng = np.random.default_rng(0)
    starts = [rng.normal(size=2000).astype(t) for t in (np.float32, np.float64, np.float16, np.complex64, np.float32)]
    params = [gg.tensor(a, requires_grad=True) for a in starts]
    o = optim.SGD(params, lr=0.5, momentum=0.9)
    for p, a in zip(params, starts):
        p.grad = gg.tensor(a)
    o.step()
    for p, a in zip(params, starts):
        assert p.dtype == a.dtype
        assert_array_equal(p.numpy(), a * a.dtype.type(0.5))


def test_parameter_groups_and_parameters_without_gradients():
    a, b, c = (gg.tensor([1.0], requires_grad=True) for _ in range(3))
    o = optim.SGD([{"params": [a]}, {"params": b, "lr": 1.0}], lr=0.5)
    o.add_param_group({"params": [c]})
    a.grad, b.grad = gg.tensor([1.0]), gg.tensor([1.0])
    o.step()
    assert [p.item() for p in (a, b, c)] == [0.5, 0.0, 1.0]
    o.param_groups[0]["lr"] = 0.25
    o.step()
    assert a.item() == 0.25
    o.zero_grad(set_to_none=False)
    assert a.grad.item() == 0
    o.zero_grad()
    assert a.grad is None


def test_closure():
    p = gg.tensor([3.0], requires_grad=True)
    o = optim.SGD([p], lr=0.1)

    def closure():
        o.zero_grad()
        loss = gg.sum(p * p)
        loss.backward()
        return loss

    with gg.no_grad():
        assert o.step(closure).item() == 9
    assert p.item() == pytest.approx(2.4)


def test_a_state_as_pytorch_lays_it_out():
    """The names, numbers and 0-d counts of a state dict of torch.optim, and one that lacks the newer options."""
    p, q = (gg.tensor(np.ones(3), requires_grad=True) for _ in range(2))
    saved = steps(optim.Adam, p, [np.arange(3.0), np.ones(3)], lr=0.1).state_dict()
    assert sorted(saved["state"][0]) == ["exp_avg", "exp_avg_sq", "step"]
    saved["state"][0]["step"] = gg.tensor(np.float32(2))
    saved["param_groups"] = [{"lr": 0.1, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0, "params": [0]}]
    q.data = p.data.copy()
    o = optim.Adam([q])
    o.load_state_dict(saved)
    assert o.state[q]["step"] == 2
    p.grad = q.grad = gg.tensor(np.ones(3))
    o.step()
    assert_allclose(q.numpy(), adam_by_the_book(np.ones(3), [np.arange(3.0), np.ones(3), np.ones(3)], lr=0.1))
    sgd = optim.SGD([q], lr=0.1, momentum=0.9, dampening=0.5)
    sgd.load_state_dict({"state": {0: {"momentum_buffer": None}}, "param_groups": [{"params": [0]}]})
    before = q.numpy().copy()
    sgd.step()
    assert_allclose(q.numpy(), before - 0.1)  # the first step takes the gradient as it is


def test_loading_a_state_that_does_not_fit_changes_nothing():
    p, q = gg.tensor(np.ones(3), requires_grad=True), gg.tensor(np.ones(2), requires_grad=True)
    saved = steps(optim.Adam, p, [np.ones(3)], lr=0.1).state_dict()
    with pytest.raises(ValueError, match=r"groups of sizes \[1\], expected \[2\]"):
        optim.Adam([p, q]).load_state_dict(saved)
    o = optim.Adam([q])
    with pytest.raises(ValueError, match=r"exp_avg of shape \(3,\), expected \(2,\)"):
        o.load_state_dict(saved)
    saved["state"] = {0: {}, 7: {}}
    with pytest.raises(ValueError, match=r"remembers something of the parameters \[7\], which are in none of its groups"):
        o.load_state_dict(saved)
    assert not o.state
    assert o.param_groups[0]["lr"] == 1e-3


def test_errors():
    p = gg.tensor([1.0], requires_grad=True)
    cases = [
        (lambda: optim.SGD([]), ValueError, "empty parameter list"),
        (lambda: optim.SGD(p), TypeError, r"write \[t\]"),
        (lambda: optim.SGD([np.ones(1)]), TypeError, "can only optimize Tensors, got ndarray"),
        (lambda: optim.SGD(nn.MLP([2, 1]).named_parameters()), TypeError, r"got tuple; of a module, pass model.parameters\(\)"),
        (lambda: optim.SGD([{"param": [p]}]), ValueError, "a parameter group has its Tensors under 'params', got one with 'param'"),
        (lambda: optim.SGD([p], lr="1e-3"), ValueError, "invalid lr: got '1e-3', expected a number of at least 0"),
        (lambda: optim.SGD([p], lr=None), ValueError, "invalid lr: got None"),
        (lambda: optim.SGD([p]).load_state_dict({"model": 1}), ValueError, "no state dict of an optimizer: got 'model', expected 'state' and 'param_groups'"),
        (lambda: optim.SGD([p * 2]), ValueError, "not a leaf"),
        (lambda: optim.SGD([gg.tensor([1.0])]), ValueError, "not a leaf that requires grad"),
        (lambda: optim.SGD([p, p]), ValueError, "more than once"),
        (lambda: optim.SGD([p], lr=-1), ValueError, "invalid lr: got -1"),
        (lambda: optim.SGD([p], lr=float("nan")), ValueError, "invalid lr"),
        (lambda: optim.SGD([p], nesterov=True), ValueError, "Nesterov momentum requires a momentum and zero dampening: got momentum=0"),
        (lambda: optim.SGD([p], max_grad_norm=0), ValueError, "invalid max_grad_norm: got 0, expected a positive number"),
        (lambda: optim.Adam([p], betas=(0.9, 1.0)), ValueError, "invalid betas"),
        (lambda: optim.Lion([p], betas=(0.9,)), ValueError, r"invalid betas: got \(0.9,\), expected two numbers"),
        (lambda: optim.NAdam([p], momentum_decay=-1), ValueError, "invalid momentum_decay: got -1"),
        (lambda: optim.RMSprop([p], alpha=1.5), ValueError, "invalid alpha: got 1.5, expected a number from 0 to 1"),
        (lambda: optim.Adadelta([p], rho=-0.5), ValueError, "invalid rho: got -0.5, expected a number of at least 0"),
        (lambda: optim.Adagrad([p], lr_decay=-1), ValueError, "invalid lr_decay"),
        (lambda: optim.Adagrad([p], initial_accumulator_value=-1), ValueError, "invalid initial_accumulator_value"),
        (lambda: optim.Adam([{"params": [p], "momentum": 1}]), ValueError, "Adam has no option momentum"),
    ]
    for make, error, message in cases:
        with pytest.raises(error, match=message):
            make()


def test_backward_after_a_step_notices():
    net = nn.MLP([2, 3, 1])
    loss = gg.sum(net(gg.tensor(np.ones((1, 2), np.float32))) ** 2)
    loss.backward(retain_graph=True)
    optim.SGD(net.parameters(), lr=0.1).step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_a_line_is_learned_one_sample_at_a_time(capsys):
    """y = w x by SGD: the prediction for 4 goes from 4 to about 8."""
    w = gg.tensor(np.array(1.0), requires_grad=True)
    o = optim.SGD([w], lr=0.01)
    assert (w * 4).item() == 4
    for _ in range(100):
        for x, y in ((1.0, 2.0), (2.0, 4.0), (3.0, 6.0)):
            o.zero_grad()
            ((y - w * x) ** 2).backward()
            o.step()
    assert (w * 4).item() == pytest.approx(8, abs=1e-6)


# ------------------------------------------------------------------------------------------------- what has gone wrong in other libraries


@every_maker
def test_no_gradients_at_all(make):
    """Nothing happens, as in PyTorch, and nothing is remembered; a closure's loss comes back."""
    for most in (None, 1.0):
        p = gg.tensor([1.0, 2.0], requires_grad=True)
        o = make([p], lr=0.1, max_grad_norm=most)
        assert o.step() is None
        assert o.step(lambda: 3.0) == 3.0
        assert_array_equal(p.numpy(), [1, 2])
        assert not o.state
        o.zero_grad(set_to_none=False)
        assert p.grad is None


@every_maker
def test_parameters_that_join_late(make):
    """By their first gradient, or in a group of their own: they are at their first step then, with their group's options."""
    rng = np.random.default_rng(0)
    starts, grads = rng.normal(size=(3, 4)), rng.normal(size=(4, 3, 4))
    alone = []
    for i in range(3):
        p = gg.tensor(starts[i], requires_grad=True)
        steps(make, p, [g[i] for g in grads[i:]], lr=0.2 if i == 2 else 0.1)
        alone.append(p.numpy())
    params = [gg.tensor(a, requires_grad=True) for a in starts]
    o = make(params[:2], lr=0.1)
    for t in range(4):
        if t == 2:
            o.add_param_group({"params": params[2:], "lr": 0.2})
        for i, p in enumerate(params[: 2 + (t >= 2)]):
            p.grad = gg.tensor(grads[t, i]) if t >= i else None
        o.step()
    for p, expected in zip(params, alone):
        assert_allclose(p.numpy(), expected, rtol=1e-12)


@every_maker
@every_twin
def test_a_learning_rate_of_zero(make, twin):
    """Not one bit of the parameters changes, with weight decay of either kind either; averages go on."""
    for decoupled in (False, True):
        params = with_gradients()
        before = [p.numpy().copy() for p in params]
        o = make([{"params": params, "weight_decay": 0.1}], lr=0.0, decoupled_weight_decay=decoupled) if make is not optim.AdamW else make(params, lr=0.0)
        with kernels.use(twin):
            o.step()
        for p, b in zip(params, before):
            assert p.numpy().tobytes() == b.tobytes()
            assert all(np.any(a) for a in o.state[p].values())


@every_maker
@every_twin
@pytest.mark.parametrize("shape", [(), (0,), (3, 0)])
def test_a_single_number_or_none(make, twin, shape):
    p = gg.tensor(np.ones(shape), requires_grad=True)
    p.grad = gg.tensor(np.ones(shape))
    with kernels.use(twin):
        o = make([p], lr=0.1, max_grad_norm=1.0)
        o.step()
    assert p.shape == shape
    assert (p.numpy() < 1).all()
    again = make([p])
    again.load_state_dict(o.state_dict())
    again.step()
    assert all(np.shape(a) in ((), shape) for a in again.state[p].values())


@every_twin
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_variance_that_rounding_makes_negative_counts_as_zero(twin, dtype):
    """Centered RMSprop under a gradient that does not change: the root of v - m^2 would be nan sooner or later."""
    p = gg.tensor(np.full(64, 0.5, dtype), requires_grad=True)
    p.grad = gg.tensor(np.linspace(0.1, 3, 64).astype(dtype))
    o = optim.RMSprop([p], lr=1e-6, alpha=0.5, eps=1e-3, centered=True)
    negative = False
    with kernels.use(twin):
        for _ in range(80):
            o.step()
            v, m = o.state[p]["square_avg"], o.state[p]["grad_avg"]
            negative |= bool((v - m * m < 0).any())
    assert negative  # else this would show nothing
    assert np.isfinite(p.numpy()).all()
    p.grad = gg.tensor(np.full(64, np.nan, dtype))
    with kernels.use(twin):
        o.step()
    assert np.isnan(p.numpy()).all()


@every_twin
def test_lion_where_the_sign_is_none(twin):
    """0 stays where it is, nan is seen, infinities take a step like any other."""
    p = gg.tensor(np.array([1.0, 1.0, 1.0, 1.0, 1.0, 1.0]), requires_grad=True)
    p.grad = gg.tensor(np.array([0.0, -0.0, np.nan, np.inf, -np.inf, 1e-300]))
    with kernels.use(twin):
        optim.Lion([p], lr=0.25).step()
    assert_array_equal(p.numpy(), [1, 1, np.nan, 0.75, 1.25, 0.75])


def test_the_first_accumulator_of_adagrad():
    """That of its group, also in parameters that are complex or join late."""
    p, q = gg.tensor(np.array([1.0 + 1j]), requires_grad=True), gg.tensor([1.0], requires_grad=True)
    o = optim.Adagrad([p], lr=0.5, initial_accumulator_value=3.0)
    o.add_param_group({"params": [q], "initial_accumulator_value": 8.0})
    p.grad, q.grad = gg.tensor(np.array([1.0 - 1j])), gg.tensor([1.0])
    o.step()
    assert_allclose(p.numpy(), [0.75 + 1.25j])
    assert_allclose(q.numpy(), [1 - 0.5 / 3])
    assert_array_equal(o.state[p]["sum"], [[4.0, 4.0]])


@every_maker
def test_complex_parameters(make):
    """Each part is optimized like any other number."""
    rng = np.random.default_rng(0)
    start, grads = rng.normal(size=(3, 4, 2)), rng.normal(size=(5, 3, 4, 2))
    as_complex = lambda a: np.ascontiguousarray(a).view(complex)[..., 0]
    p, q = gg.tensor(as_complex(start), requires_grad=True), gg.tensor(start, requires_grad=True)
    o, other = make([p], lr=0.1), make([q], lr=0.1)
    for g in grads:
        p.grad, q.grad = gg.tensor(as_complex(g)), gg.tensor(g)
        o.step()
        other.step()
    assert_array_equal(p.numpy(), as_complex(q.numpy()))


# ------------------------------------------------------------------------------------------------- PyTorch itself

OF_TORCH = [
    ("SGD", {"momentum": 0.9, "dampening": 0.1, "weight_decay": 0.1}),
    ("Adam", {"amsgrad": True, "weight_decay": 0.1, "maximize": True}),
    ("Adam", {"weight_decay": 0.1, "decoupled_weight_decay": True}),
    ("AdamW", {}),
    ("NAdam", {}),
    ("NAdam", {"betas": (0.5, 0.9), "momentum_decay": 0.3, "weight_decay": 0.1, "maximize": True}),
    ("NAdam", {"weight_decay": 0.1, "decoupled_weight_decay": True}),
    ("RMSprop", {}),
    ("RMSprop", {"alpha": 0.8, "eps": 1e-3, "weight_decay": 0.1, "momentum": 0.9, "centered": True, "maximize": True}),
    ("Adagrad", {}),
    ("Adagrad", {"lr_decay": 0.3, "weight_decay": 0.1, "initial_accumulator_value": 0.2, "eps": 1e-3, "maximize": True}),
    ("Adadelta", {}),
    ("Adadelta", {"lr": 0.3, "rho": 0.7, "eps": 1e-4, "weight_decay": 0.1, "maximize": True}),
]


@pytest.mark.parametrize(("name", "options"), OF_TORCH)
def test_as_pytorch(name, options):
    """The same parameters and the same state after 50 steps, by default as with every option; parameters that are left out now and then."""
    torch = pytest.importorskip("torch")
    if name == "Adam" and "decoupled_weight_decay" in options and "decoupled_weight_decay" not in torch.optim.Adam([torch.ones(1)]).defaults:
        pytest.skip("a PyTorch before decoupled_weight_decay")
    rng = np.random.default_rng(0)
    starts, grads = rng.normal(size=(2, 3, 4)), rng.normal(size=(50, 2, 3, 4))
    ours, theirs = [gg.tensor(a, requires_grad=True) for a in starts], [torch.tensor(a, requires_grad=True) for a in starts]
    o, t = getattr(optim, name)(ours, **options), getattr(torch.optim, name)(theirs, **options)
    assert {k: t.defaults[k] for k in o.defaults if k in t.defaults} == {k: v for k, v in o.defaults.items() if k in t.defaults}
    for n, gs in enumerate(grads):
        for i in range(2):
            present = n % (i + 2) != 1
            ours[i].grad, theirs[i].grad = (gg.tensor(gs[i]), torch.tensor(gs[i])) if present else (None, None)
        o.step()
        t.step()
    for p, q in zip(ours, theirs):
        assert_allclose(p.numpy(), q.detach().numpy(), rtol=1e-9)
        assert set(t.state[q]) <= set(o.state[p])
        for key, value in t.state[q].items():
            assert_allclose(np.asarray(o.state[p][key]), value.numpy(), rtol=1e-6 if key == "mu_product" else 1e-9)  # PyTorch's is float32


# ------------------------------------------------------------------------------------------------- clipping by the norm of all gradients


def with_gradients(device="cpu", dtypes=(np.float32, np.float32, np.float64)):
    rng = np.random.default_rng(0)
    params = [gg.tensor(rng.normal(size=shape).astype(dtype), requires_grad=True, device=device) for shape, dtype in zip([(70, 30), (), (3,)], dtypes)]
    for p in params:
        p.grad = gg.tensor(rng.normal(size=p.shape).astype(p.dtype), device=device)
    return params


def norm_of(params):
    return np.sqrt(sum(float(np.sum(np.abs(p.grad.numpy().astype(complex)) ** 2)) for p in params))


@every_maker
@pytest.mark.parametrize("most", [0.5, 1e3])
def test_clipping_in_the_step_is_clipping_before_it(make, most, device):
    """Over all groups and dtypes together; the gradients themselves stay as they are."""
    folded, before = with_gradients(device), with_gradients(device)
    groups = lambda ps: [{"params": ps[:1]}, {"params": ps[1:], "lr": 0.3}]
    o, plain = make(groups(folded), lr=0.1, max_grad_norm=most), make(groups(before), lr=0.1)
    for _ in range(3):
        kept = [p.grad.numpy().copy() for p in folded]
        o.step()
        for p, q, g in zip(folded, before, kept):
            assert_array_equal(p.grad.numpy(), g)
            q.grad = gg.tensor(g, device=device)
        norm = optim.clip_grad_norm_(before, most)
        assert_allclose(norm.item(), norm_of(folded), rtol=1e-6)
        assert_allclose(norm_of(before), min(most, norm.item()), rtol=1e-4)
        plain.step()
    for p, q in zip(folded, before):
        assert_allclose(p.numpy(), q.numpy(), rtol=1e-5, atol=1e-6)


class Halving(optim.Optimizer):
    """p -= g / 2, with a running sum: what a user may write."""

    def __init__(self, params, **options):
        super().__init__(params, {}, **options)

    def update(self, params, grads, states, group):
        for p, g, s in zip(params, grads, remembered(states, "sum", params)):
            s += g
            p -= 0.5 * g


def test_an_optimizer_that_knows_nothing_of_clipping_is_given_clipped_gradients(device):
    params = with_gradients(device, (np.float16, np.float32, np.complex64))
    starts, grads, norm = [p.numpy().copy() for p in params], [p.grad.numpy().copy() for p in params], norm_of(params)
    o = Halving(params, max_grad_norm=0.5)
    o.step()
    for p, start, g in zip(params, starts, grads):
        assert_array_equal(p.grad.numpy(), g)
        assert_allclose(p.numpy(), start - 0.5 * g * (0.5 / norm), rtol=2e-3, atol=1e-4)
    assert Halving(with_gradients()).step() is None


def test_clip_grad_norm():
    params = with_gradients()
    params[1].grad = None
    norm = norm_of([params[0], params[2]])
    assert optim.clip_grad_norm_(iter(params), 2.0).item() == pytest.approx(norm)
    assert norm_of([params[0], params[2]]) == pytest.approx(2.0, rel=1e-5)
    kept = params[2].grad.numpy().copy()
    assert optim.clip_grad_norm_(params[2], 100.0).dtype == np.float64
    assert_array_equal(params[2].grad.numpy(), kept)
    assert optim.clip_grad_norm_([params[1]], 1.0).item() == 0
    params[2].grad.data[1] = np.inf
    with pytest.raises(RuntimeError, match="norm of the gradients is inf"):
        optim.clip_grad_norm_(params, 1.0, error_if_nonfinite=True)
    assert params[2].grad.numpy()[0] == kept[0]
    with np.errstate(invalid="ignore"):
        optim.clip_grad_norm_(params, 1.0)
    assert_array_equal(params[2].grad.numpy(), [0, np.nan, 0])


def test_backward_after_clipping_notices():
    x = gg.tensor([1.0, 2.0], requires_grad=True)
    x.grad = gg.tensor([3.0, 4.0])
    y = gg.sum(x.grad * x)
    optim.clip_grad_norm_(x, 1.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.backward()


# ------------------------------------------------------------------------------------------------- counts and learning rates


def test_parameters_at_different_steps():
    """Those without a gradient wait, and keep a count of their own."""
    rng = np.random.default_rng(0)
    starts, grads = rng.normal(size=(3, 1500)), rng.normal(size=(6, 3, 1500))
    params = [gg.tensor(a, requires_grad=True) for a in starts]
    for make, book, options in (
        (optim.Adam, adam_by_the_book, {}),
        (optim.SGD, sgd_by_the_book, {"momentum": 0.9, "dampening": 0.5}),
        (optim.NAdam, nadam_by_the_book, {"momentum_decay": 0.5}),
        (optim.Adagrad, adagrad_by_the_book, {"lr_decay": 0.5, "initial_accumulator_value": 0.1}),
        (optim.RMSprop, rmsprop_by_the_book, {"momentum": 0.9}),
        (optim.Adadelta, adadelta_by_the_book, {}),
        (optim.Lion, lion_by_the_book, {}),
    ):
        for p, a in zip(params, starts):
            p.data = a.copy()
        o = make(params, lr=0.1, **options)
        taken = [[], [], []]
        for t in range(6):
            for i, p in enumerate(params):
                present = t % (i + 1) == 0
                p.grad = gg.tensor(grads[t, i]) if present else None
                taken[i] += [grads[t, i]] * present
            o.step()
        for p, a, gs in zip(params, starts, taken):
            assert_allclose(p.numpy(), book(a, gs, lr=0.1, **options), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("capturable", [False, True])
def test_nadams_momentum_belongs_to_each_parameter(capturable):
    """Two parameters at the same step, which came there with different momenta: each goes on with its own product."""
    start, grads = np.ones(4), np.random.default_rng(0).normal(size=(3, 4))

    def run(decays):
        """The parameters, of which the first step of each is made with its own momentum_decay, and the others together."""
        params = [gg.tensor(start, requires_grad=True) for _ in decays]
        o = optim.NAdam(params, lr=0.1, capturable=capturable)
        for p, decay in zip(params, decays):
            o.param_groups[0]["momentum_decay"] = decay
            p.grad = gg.tensor(grads[0])
            o.step()
            p.grad = None
        for g in grads[1:]:
            for p in params:
                p.grad = gg.tensor(g)
            o.param_groups[0]["momentum_decay"] = 0.1
            o.step()
        return [p.numpy() for p in params]

    together = run([0.2, 5.0])
    assert_array_equal(together, [run([0.2])[0], run([5.0])[0]])
    assert not np.allclose(*together)


@pytest.mark.parametrize("make", [optim.Adam, optim.AdamW, optim.NAdam, optim.RMSprop, optim.Adagrad, optim.Adadelta])
def test_counts_in_device_memory(make, device):
    """Shared while parameters step together; a parameter that stays behind keeps its own; saved and loaded."""
    rng = np.random.default_rng(0)
    starts, grads = rng.normal(size=(2, 40)), rng.normal(size=(6, 2, 40))
    results = []
    for capturable in (False, True):
        params = [gg.tensor(a, requires_grad=True, device=device) for a in starts]
        o = make(params, lr=0.1, capturable=capturable)
        for t in range(6):
            for i, p in enumerate(params):
                p.grad = gg.tensor(grads[t, i], device=device) if (t, i) != (2, 1) else None
            o.step()
            if capturable:
                counts = [o.state[p]["step"] for p in params]
                assert [float(c) for c in counts] == [t + 1, t + 1 - (t >= 2)]
                assert counts[0].dtype == np.float64
                assert (counts[0] is counts[1]) == (t < 2)
                if make is optim.NAdam:
                    products = [o.state[p]["mu_product"] for p in params]
                    assert (products[0] is products[1]) == (t < 2)
                    assert products[0].dtype == np.float64
            if t == 3:
                saved, o = o.state_dict(), make(params, lr=0.1)
                o.load_state_dict(saved)
        results.append([p.numpy() for p in params])
    assert_allclose(results[0], results[1], rtol=1e-12)


def test_a_loaded_count_goes_where_it_belongs():
    p, q = with_gradients()[:2]
    o = optim.Adam([p, q], capturable=True)
    o.step()
    saved = o.state_dict()
    saved["param_groups"][0]["capturable"] = False
    o.load_state_dict(saved)
    assert [o.state[t]["step"] for t in (p, q)] == [1, 1]
    saved["param_groups"][0]["capturable"] = True
    o.load_state_dict(saved)
    assert o.state[p]["step"] is o.state[q]["step"]
    assert o.state[p]["step"] is not saved["state"][0]["step"].data


@every_maker
def test_a_learning_rate_in_device_memory(make, device):
    """What is written into it counts from the next step on."""
    params, others = with_gradients(device), with_gradients(device)
    lr = gg.tensor(np.array(0.1), device=device)
    o, plain = make(params, lr=lr), make(others, lr=0.1)
    for rate in (0.1, 0.1, 0.02):
        lr.data[...] = rate
        plain.param_groups[0]["lr"] = rate
        o.step()
        plain.step()
    for p, q in zip(params, others):
        assert_allclose(p.numpy(), q.numpy(), rtol=1e-5, atol=1e-6)
    saved = o.state_dict()
    again = make(params)
    again.load_state_dict(saved)
    lr.data[...] = 5.0
    assert float(again.param_groups[0]["lr"].data) == 0.02


def test_a_learning_rate_on_another_device_is_refused(fake_cupy):
    p = with_gradients()[0]
    o = optim.SGD([p], lr=gg.tensor(0.1, device="cuda"))
    with pytest.raises(gg.backend.DeviceError):
        o.step()


def test_two_devices_in_one_optimizer(fake_cupy):
    """Clipped by the norm of both; each is updated where it lies."""
    params, alike = with_gradients(), with_gradients()
    for i, d in enumerate(("cuda:0", "cuda:1")):
        g = params[i].grad.data
        params[i] = gg.tensor(params[i].data, device=d, requires_grad=True)
        params[i].grad = gg.tensor(g, device=d)
    for ps in (params, alike):
        optim.Adam(ps, lr=0.1, max_grad_norm=0.5, eps=1e-2).step()
    for p, q in zip(params, alike):
        assert_allclose(p.numpy(), q.numpy(), rtol=1e-5, atol=1e-6)
    assert [p.device for p in params] == ["cuda:0", "cuda:1", "cpu"]


def test_what_is_remembered_is_marked_as_written():
    p = with_gradients()[0]
    o = optim.Adam([p], lr=0.1)
    o.step()
    m, x = o.state_dict()["state"][0]["exp_avg"], gg.tensor(np.ones_like(p.data), requires_grad=True)
    y = gg.sum(m * x)
    o.step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.backward()


@every_twin
def test_a_nan_gradient_is_seen(twin):
    """In its own place without clipping, everywhere with it."""
    for most, bad in ((None, 1), (1.0, 2100)):
        p = with_gradients()[0]
        p.grad.data[3, 4] = np.nan
        with kernels.use(twin):
            optim.AdamW([p], lr=0.1, max_grad_norm=most).step()
        assert np.isnan(p.numpy()).sum() == bad


@pytest.mark.skipif(not emulator.is_available(), reason="needs g++")
def test_all_parameters_are_updated_in_one_launch(monkeypatch):
    launched = []
    launch = optimizers.source.launch
    monkeypatch.setattr(type(optimizers.source), "launch", lambda self, entry, *args, **o: launched.append(entry) or launch(entry, *args, **o))
    with kernels.use("cuda"):
        optim.Adam(with_gradients(dtypes=[np.float32] * 3), max_grad_norm=1.0).step()
        for make in (optim.SGD, optim.NAdam, optim.RMSprop, optim.Adagrad, optim.Adadelta, optim.Lion):
            make(with_gradients(dtypes=[np.float32] * 3)).step()
    assert launched == ["squares", "norm_of_squares", "adam", "sgd", "nadam", "rmsprop", "adagrad", "adadelta", "lion"]
