"""Optimizers against their formulas, written out on whole arrays; in blocks, on views, in complex numbers, on every device."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import gpugrad as gg
from gpugrad import nn, optim


def sgd_by_the_book(p, grads, lr=1e-3, momentum=0, dampening=0, weight_decay=0, nesterov=False):
    b = None
    for g in grads:
        g = g + weight_decay * p
        if momentum:
            b = g if b is None else momentum * b + (1 - dampening) * g
            g = g + momentum * b if nesterov else b
        p = p - lr * g
    return p


def adam_by_the_book(p, grads, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0, decoupled=False):
    m = v = 0
    for t, g in enumerate(grads, 1):
        if decoupled:
            p = p - lr * weight_decay * p
        else:
            g = g + weight_decay * p
        m = betas[0] * m + (1 - betas[0]) * g
        v = betas[1] * v + (1 - betas[1]) * g**2
        p = p - lr * (m / (1 - betas[0] ** t)) / (np.sqrt(v / (1 - betas[1] ** t)) + eps)
    return p


def adamw_by_the_book(p, grads, weight_decay=1e-2, **options):
    return adam_by_the_book(p, grads, weight_decay=weight_decay, decoupled=True, **options)


CASES = [
    (optim.SGD, sgd_by_the_book, {}),
    (optim.SGD, sgd_by_the_book, {"lr": 0.1, "weight_decay": 0.1}),
    (optim.SGD, sgd_by_the_book, {"lr": 0.1, "momentum": 0.9}),
    (optim.SGD, sgd_by_the_book, {"lr": 0.1, "momentum": 0.9, "dampening": 0.3, "weight_decay": 0.1}),
    (optim.SGD, sgd_by_the_book, {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.1}),
    (optim.Adam, adam_by_the_book, {}),
    (optim.Adam, adam_by_the_book, {"lr": 0.1, "betas": (0.8, 0.9), "eps": 1e-3, "weight_decay": 0.1}),
    (optim.AdamW, adamw_by_the_book, {}),
    (optim.AdamW, adamw_by_the_book, {"lr": 0.1, "weight_decay": 0.3}),
]


def steps(make, p, grads, **options):
    o = make([p], **options)
    for g in grads:
        p.grad = gg.tensor(g, device=p.device)
        o.step()
        assert_array_equal(p.grad.numpy(), g)  # which no update may touch
    return o


@pytest.mark.parametrize(("make", "by_the_book", "options"), CASES)
@pytest.mark.parametrize("shape", [(), (0,), (3, 4), (1000,)])
def test_formula(make, by_the_book, options, shape):
    rng = np.random.default_rng(0)
    start, grads = np.asarray(rng.normal(size=shape)), [np.asarray(rng.normal(size=shape)) for _ in range(5)]
    p = gg.tensor(start, requires_grad=True)
    steps(make, p, grads, **options)
    assert_allclose(p.numpy(), by_the_book(start, grads, **options), rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize(("make", "by_the_book", "options"), CASES)
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


def test_complex_parameters_are_pairs_of_real_ones():
    start, g = np.array([1 + 2j, 3.0]), np.array([0.3 - 0.2j, 1j])
    p = gg.tensor(start, requires_grad=True)
    p.grad = gg.tensor(g)
    optim.Adam([p], lr=0.1).step()
    expected = adam_by_the_book(start.real, [g.real], lr=0.1) + 1j * adam_by_the_book(start.imag, [g.imag], lr=0.1)
    assert_allclose(p.numpy(), expected)


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


@pytest.mark.parametrize("make", [lambda ps, **o: optim.SGD(ps, momentum=0.9, **o), optim.Adam])
def test_going_on_from_a_saved_state_is_going_on(make):
    grads = [np.random.default_rng(i).normal(size=3) for i in range(6)]
    p, q = (gg.tensor(np.ones(3), requires_grad=True) for _ in range(2))
    steps(make, p, grads, lr=0.1)
    saved = steps(make, q, grads[:3], lr=0.1).state_dict()
    o = make([q], lr=5.0)
    o.load_state_dict(saved)
    for g in grads[3:]:
        q.grad = gg.tensor(g)
        o.step()
    assert_array_equal(p.numpy(), q.numpy())
    assert saved["param_groups"][0]["params"] == [0]


def test_loading_a_state_that_does_not_fit_changes_nothing():
    p, q = gg.tensor(np.ones(3), requires_grad=True), gg.tensor(np.ones(2), requires_grad=True)
    saved = steps(optim.Adam, p, [np.ones(3)], lr=0.1).state_dict()
    with pytest.raises(ValueError, match=r"groups of sizes \[1\], expected \[2\]"):
        optim.Adam([p, q]).load_state_dict(saved)
    o = optim.Adam([q])
    with pytest.raises(ValueError, match=r"exp_avg of shape \(3,\), expected \(2,\)"):
        o.load_state_dict(saved)
    assert not o.state
    assert o.param_groups[0]["lr"] == 1e-3


def test_errors():
    p = gg.tensor([1.0], requires_grad=True)
    cases = [
        (lambda: optim.SGD([]), ValueError, "empty parameter list"),
        (lambda: optim.SGD(p), TypeError, r"write \[t\]"),
        (lambda: optim.SGD([np.ones(1)]), TypeError, "can only optimize Tensors, got ndarray"),
        (lambda: optim.SGD([p * 2]), ValueError, "not a leaf"),
        (lambda: optim.SGD([gg.tensor([1.0])]), ValueError, "not a leaf that requires grad"),
        (lambda: optim.SGD([p, p]), ValueError, "more than once"),
        (lambda: optim.SGD([p], lr=-1), ValueError, "invalid lr: got -1"),
        (lambda: optim.SGD([p], lr=float("nan")), ValueError, "invalid lr"),
        (lambda: optim.SGD([p], nesterov=True), ValueError, "Nesterov momentum requires a momentum and zero dampening"),
        (lambda: optim.Adam([p], betas=(0.9, 1.0)), ValueError, "invalid betas"),
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
