"""Mixed precision: what is cast and what is not, in every mode; losses that are scaled; training that comes out as in float32."""

from __future__ import annotations

import json
import threading

import numpy as np
import pytest
from ml_dtypes import bfloat16
from numpy.testing import assert_allclose, assert_array_equal

import gpugrad as gg
from gpugrad import amp, nn, optim, tape
from gpugrad.ops.rules import REGISTRY

F = nn.functional
every_half = pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
UNIT = {"float16": 2.0**-11, "bfloat16": 2.0**-8}


def draw(*shape, seed=0, dtype=np.float32):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


# ------------------------------------------------------------------------------------------------- autocast

PRODUCTS = {
    "@": lambda x, w: x @ w,
    "matmul": gg.matmul,
    "dot": gg.dot,
    "batches": lambda x, w: gg.matmul(x.reshape(2, 2, 3), w),
    "a vector": lambda x, w: x[0] @ w,
    "tensordot": lambda x, w: gg.tensordot(x, w, 1),
    "einsum": lambda x, w: gg.einsum("ij,jk->ik", x, w),
    "linear": F.linear,
    "linear with bias": lambda x, w: F.linear(x, w, gg.ones(2, dtype=np.float32, device=x.device)),
    **{act: (lambda x, w, act=act: F.linear(x, w, gg.ones(2, dtype=np.float32, device=x.device), act)) for act in ("relu", "tanh", "gelu")},
    "bilinear": lambda x, w: F.bilinear(x, x, gg.ones((3, 3, 2), dtype=np.float32, device=x.device) * w[0]),
}


@every_half
@pytest.mark.parametrize("name", PRODUCTS)
def test_products_are_of_16_bits_and_gradients_of_float32(name, dtype, device):
    f = PRODUCTS[name]
    x, w = (gg.tensor(draw(*shape), device=device, requires_grad=True) for shape in ((4, 3), (3, 2)))
    with amp.autocast(dtype):
        y = f(x, w)
        loss = gg.sum(y * y)
    assert (y.dtype.name, loss.dtype) == (dtype, np.float32)
    loss.backward()
    got = [x.grad, w.grad]
    x.grad = w.grad = None
    exact = f(x, w)
    assert exact.dtype == np.float32
    gg.sum(exact * exact).backward()
    assert_allclose(y.numpy().astype(float), exact.numpy(), atol=20 * UNIT[dtype], rtol=20 * UNIT[dtype])
    for g, p in zip(got, (x, w)):
        assert g.dtype == p.dtype == np.float32
        assert_allclose(g.numpy(), p.grad.numpy(), rtol=50 * UNIT[dtype], atol=100 * UNIT[dtype])
        assert not np.array_equal(g.numpy(), p.grad.numpy())


HALF = draw(4, 3, dtype=np.float16)
SUMS = {
    "sum": gg.sum,
    "mean": lambda x: gg.mean(x, axis=0),
    "prod": gg.prod,
    "var": gg.var,
    "std": gg.std,
    "cumsum": gg.cumsum,
    "logsumexp": gg.logsumexp,
    "softmax": F.softmax,
    "log_softmax": F.log_softmax,
    "norm": gg.linalg.norm,
    "exp": gg.exp,
    "log": lambda x: gg.log(x * x),
    "power": lambda x: x**3,
    "square": gg.square,
    "softplus": F.softplus,
    "layer_norm": lambda x: F.layer_norm(x, 3),
    "rms_norm": lambda x: F.rms_norm(x, 3),
    "BatchNorm1d": lambda x: nn.BatchNorm1d(3, device=x.device)(x),
    "mse": lambda x: F.mse_loss(x, x * 0),
    "l1": lambda x: F.l1_loss(x, x * 0),
    "smooth l1": lambda x: F.smooth_l1_loss(x, x * 0),
    "huber": lambda x: F.huber_loss(x, x * 0),
    "bce": lambda x: F.bce_loss(F.sigmoid(x), x * 0),
    "bce with logits": lambda x: F.bce_with_logits(x, x * 0),
    "cross entropy": lambda x: F.cross_entropy(x, gg.tensor(np.arange(4) % 3, device=x.device)),
    "cross entropy with weights": lambda x: F.cross_entropy(
        x, gg.tensor(np.arange(4) % 3, device=x.device), weight=gg.tensor([1.0, 2.0, 3.0], dtype=np.float32, device=x.device).data
    ),
    "cross entropy, summed": lambda x: F.cross_entropy(x, gg.tensor(np.arange(4) % 3, device=x.device), reduction="sum"),
    "cross entropy of soft labels": lambda x: F.cross_entropy(x, F.softmax(x)),
    "nll": lambda x: F.nll_loss(F.log_softmax(x), gg.tensor(np.arange(4) % 3, device=x.device)),
    "kl": lambda x: F.kl_div(F.log_softmax(x), F.softmax(2 * x)),
    "multi margin": lambda x: F.multi_margin_loss(x, gg.tensor(np.arange(4) % 3, device=x.device)),
    "cosine": lambda x: F.cosine_similarity(x, x + 1),
}


@pytest.mark.parametrize("name", SUMS)
def test_sums_and_losses_of_16_bits_are_of_float32(name, device):
    x = gg.tensor(HALF, device=device, requires_grad=True)
    f = SUMS[name]
    with amp.autocast("float16"):
        y = f(x)
    assert y.dtype == np.float32
    gg.sum(y).backward()
    assert x.grad.dtype == np.float16
    exact = gg.tensor(HALF.astype(np.float32), device=device, requires_grad=True)
    z = f(exact)
    assert_allclose(y.numpy(), z.numpy(), rtol=3e-3, atol=2e-3)
    gg.sum(z).backward()
    assert_allclose(x.grad.numpy().astype(float), exact.grad.numpy(), rtol=5e-3, atol=5e-3)


def test_what_overflows_in_float16_does_not():
    x = gg.tensor(np.full(1000, 300.0, np.float16))
    with amp.autocast("float16"):
        assert gg.mean(x * 1).item() == 300
        assert F.mse_loss(x, x * 0).item() == 90000
        assert gg.exp(x / 25).numpy()[0] > 65504


@every_half
def test_activations_stay_as_they_are(dtype, device):
    x = gg.tensor(draw(4, 3), device=device, requires_grad=True)
    w = gg.tensor(draw(3, 2), device=device, requires_grad=True)
    with amp.autocast(dtype):
        y = x @ w
        for f in (F.relu, F.tanh, F.sigmoid, lambda y: y + y, lambda y: y.T, lambda y: gg.maximum(y, -y)):
            assert f(y).dtype.name == dtype
            assert f(x).dtype == np.float32
        assert (y + x[:, :2]).dtype == np.float32


def test_a_layer_behind_another_stays_fused():
    """Its arguments are of two precisions, and it is computed in one pass all the same."""
    net = nn.MLP([3, 8, 8, 2])
    with amp.autocast("float16"):
        y = net(draw(4, 3))
    fused, node = 0, y.node
    while node is not None:
        fused += getattr(node, "op", None) is not None and node.op.name == "linear_act"
        node = next((p for p in node.parents if p is not None), None)
    assert (fused, y.dtype) == (2, np.float16)


@pytest.mark.parametrize("other", [np.float64, np.complex64, np.int64])
def test_other_dtypes_are_left_alone(other):
    with amp.autocast("float16"):
        assert gg.matmul(np.ones((2, 2), other), np.ones((2, 2), np.float32)).dtype == np.matmul(np.ones((2, 2), other), np.ones((2, 2), np.float32)).dtype
        assert gg.matmul(np.ones((2, 2), other), np.ones((2, 2), other)).dtype == other
        assert gg.sum(np.ones(3, other)).dtype == np.sum(np.ones(3, other)).dtype


def test_plain_arrays_are_cast_like_tensors():
    x, w = draw(4, 3), draw(3, 2)
    with amp.autocast("float16"):
        y = gg.matmul(x, w)
        assert type(y) is np.ndarray
        assert_array_equal(y, (gg.tensor(x) @ gg.tensor(w)).numpy())
        assert gg.sum(y).dtype == np.float32
    assert y.dtype == np.float16


def test_nested_blocks():
    x, w = gg.tensor(draw(4, 3)), gg.tensor(draw(3, 2), requires_grad=True)
    dtype = lambda: (x @ w).dtype.name
    seen = [dtype()]
    block = amp.autocast("float16")
    with block:
        seen.append(dtype())
        with amp.autocast(enabled=False):
            seen.append(dtype())
            with amp.autocast("bfloat16"):
                seen.append(dtype())
            with block:
                seen.append(dtype())
            seen.append(dtype())
        seen.append(dtype())
    with pytest.raises(KeyError), block:
        raise KeyError
    assert [*seen, dtype()] == ["float32", "float16", "float32", "bfloat16", "float16", "float32", "float16", "float32"]
    assert tape.caster is None
    assert amp.autocast("bfloat16")(dtype)() == "bfloat16"  # as a decorator
    assert tape.caster is None


def test_other_threads_do_not_autocast():
    found = []
    x, w = gg.tensor(draw(4, 3)), gg.tensor(draw(3, 2), requires_grad=True)
    block = amp.autocast("float16")

    def other():
        found.append((x @ w).dtype)
        with block:
            found.append((x @ w).dtype)
        found.append((x @ w).dtype)

    with block:
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        assert (x @ w).dtype == np.float16
    assert found == [np.float32, np.float16, np.float32]
    assert tape.caster is None


def test_backward_has_the_precision_of_forward():
    """What was computed in float32 is not pulled back in 16 bits, although backward runs inside the block."""
    x, w = gg.tensor(draw(4, 3), requires_grad=True), gg.tensor(draw(3, 2), requires_grad=True)
    y = x @ w
    grads = []
    for block in (amp.autocast(enabled=False), amp.autocast("bfloat16")):
        with block:
            grads.append(gg.autograd.grad(gg.sum(y * y), [x, w], retain_graph=True))
    for a, b in zip(*grads):
        assert_array_equal(a.numpy(), b.numpy())
    with amp.autocast("bfloat16"):
        inside = gg.sum((x @ w) ** 2)
        inside.backward(retain_graph=True)
    first = x.grad.numpy().copy()
    x.grad = None
    inside.backward()
    assert_array_equal(first, x.grad.numpy())


@every_half
def test_in_transforms(dtype):
    x, w, v = draw(4, 3), draw(3, 2), draw(3, 2, seed=1)

    def f(w):
        with amp.autocast(dtype):
            return gg.mean(gg.tanh(x @ w) ** 2)

    def exact(w):
        return gg.mean(gg.tanh(x @ w) ** 2)

    near = {"rtol": 30 * UNIT[dtype], "atol": 10 * UNIT[dtype]}
    for transform in (
        lambda f: gg.grad(f)(w),
        lambda f: gg.jvp(f, (w,), (v,))[1],
        lambda f: gg.hvp(f, w, v),
        lambda f: gg.linearize(f, w)[1](v),
        lambda f: gg.vjp(f, w)[1](np.float32(1)),
        lambda f: gg.grad(lambda w: gg.sum(gg.grad(f)(w) ** 2))(w),
    ):
        got, expected = transform(f), transform(exact)
        got, expected = (np.asarray(a[0] if isinstance(a, (tuple, list)) else a) for a in (got, expected))
        assert got.dtype == np.float32
        assert_allclose(got, expected, **near)
    with amp.autocast(dtype):
        assert_allclose(gg.grad(exact)(w), gg.grad(f)(w))
    g = gg.grad(f)(w)
    assert g.dtype == np.float32
    assert not np.array_equal(g, gg.grad(exact)(w))


def test_every_name_in_the_lists_is_an_operation():
    assert set(REGISTRY) >= amp.LOW | amp.HIGH
    assert not amp.LOW & amp.HIGH
    losses = {name for name in REGISTRY if any(part in name for part in ("loss", "norm", "entropy", "bce", "softmax", "huber"))}
    assert losses <= amp.HIGH


@pytest.mark.parametrize("dtype", ["float32", np.float64, np.int16])
def test_only_16_bits(dtype):
    with pytest.raises(ValueError, match="expected 'float16' or 'bfloat16'"):
        amp.autocast(dtype)


def test_dtypes_by_any_name():
    assert {amp.autocast(d).dtype for d in ("float16", np.float16, gg.float16)} == {np.dtype(np.float16)}
    assert {amp.autocast(d).dtype for d in ("bfloat16", bfloat16, np.dtype(bfloat16))} | {amp.autocast().dtype} == {np.dtype(bfloat16)}


# ------------------------------------------------------------------------------------------------- loss scaling


def leaf(*values, device="cpu"):
    return gg.tensor(np.array(values or (1.0,), np.float32), device=device, requires_grad=True)


def step_with(scaler, optimizer, p, *grad):
    p.grad = gg.tensor(np.array(grad, np.float32) * np.float32(scaler.get_scale()), device=p.device)
    scaler.step(optimizer)
    scaler.update()


@pytest.mark.parametrize("make", [optim.SGD, optim.Adam, optim.AdamW, optim.NAdam, optim.RMSprop, optim.Adagrad, optim.Adadelta, optim.Lion])
@pytest.mark.parametrize("max_grad_norm", [None, 0.5])
def test_scaled_steps_are_steps(make, max_grad_norm, device):
    """Bit for bit: the factor is a power of two."""
    params = [leaf(1, 2, 3, device=device) for _ in range(2)]
    o, plain = (make([p], lr=0.1, max_grad_norm=max_grad_norm) for p in params)
    scaler = amp.GradScaler()
    x = gg.tensor(draw(3), device=device)
    for _ in range(4):
        for p, opt in zip(params, (o, plain)):
            opt.zero_grad()
            loss = gg.sum((p * x) ** 2)
            (scaler.scale(loss) if opt is o else loss).backward()
        scaler.step(o)
        scaler.update()
        plain.step()
        assert_array_equal(params[0].numpy(), params[1].numpy())


@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
def test_a_step_that_overflows_is_skipped_and_the_factor_halved(bad, device):
    p, q = leaf(1, 2, device=device), leaf(3, device=device)
    o = optim.Adam([p, q], lr=0.1)
    scaler = amp.GradScaler(init_scale=8.0)
    q.grad = gg.tensor(np.ones(1, np.float32), device=device)
    step_with(scaler, o, p, 1.0, bad)
    assert scaler.get_scale() == 4.0
    assert (p.numpy().tolist(), q.numpy().tolist(), o.state) == ([1, 2], [3], {})
    step_with(scaler, o, p, 1.0, 1.0)
    assert scaler.get_scale() == 4.0
    assert_allclose(p.numpy(), [0.9, 1.9], rtol=1e-5)


def test_the_factor_grows_after_the_interval():
    p = leaf()
    o = optim.SGD([p])
    scaler = amp.GradScaler(init_scale=4.0, growth_interval=3, growth_factor=2.0)
    scales = []
    for grad in (1, 1, 1, 1, 1, np.inf, 1, 1, 1, 1):
        step_with(scaler, o, p, grad)
        scales.append(scaler.get_scale())
    assert scales == [4, 4, 8, 8, 8, 4, 4, 4, 8, 8]
    scaler = amp.GradScaler(init_scale=2.0**127, growth_interval=1)
    p.grad = gg.tensor(np.zeros(1, np.float32))
    scaler.step(o)
    scaler.update()
    assert scaler.get_scale() == 2.0**127  # beyond, float32 ends


def test_one_optimizer_that_overflows_halves_for_all_and_stops_only_itself():
    p, q = leaf(), leaf()
    a, b = optim.SGD([p], lr=1.0), optim.SGD([q], lr=1.0)
    scaler = amp.GradScaler(init_scale=2.0)
    p.grad, q.grad = gg.tensor(np.array([np.inf], np.float32)), gg.tensor(np.array([2.0], np.float32))
    scaler.step(a)
    scaler.step(b)
    scaler.update()
    assert (p.item(), q.item(), scaler.get_scale()) == (1.0, 0.0, 1.0)


@pytest.mark.parametrize("clip", [lambda p: optim.clip_grad_norm_(p, 1.0), lambda p: optim.clip_grad_value_(p, 0.1)])
def test_unscale_once_then_clip(clip, device):
    p, q = leaf(1, 2, device=device), leaf(1, 2, device=device)
    scaler = amp.GradScaler()
    o, plain = optim.SGD([p], lr=1.0), optim.SGD([q], lr=1.0)
    p.grad, q.grad = (gg.tensor(np.array([3.0, 4.0], np.float32) * s, device=device) for s in (np.float32(2.0**16), 1))
    scaler.unscale_(o)
    assert_array_equal(p.grad.numpy(), [3.0, 4.0])
    for params in ([p], [q]):
        clip(params)
    scaler.step(o)
    plain.step()
    scaler.update()
    assert_array_equal(p.numpy(), q.numpy())


def test_whether_gradients_are_finite_is_found_on_the_device(device):
    """unscale_ waits for nothing."""
    p = leaf(1, 2, device=device)
    o = optim.SGD([p])
    scaler = amp.GradScaler()
    p.grad = gg.tensor(np.array([np.inf, 1], np.float32), device=device)
    scaler.unscale_(o)
    found = scaler._found[o]
    assert gg.backend.device_of(found) == p.device
    assert bool(found)
    scaler.update()
    assert scaler.get_scale() == 2.0**15


def test_scale_takes_any_nest_and_dtype():
    scaler = amp.GradScaler(init_scale=1024.0)
    losses = scaler.scale({"a": gg.tensor(np.float32(2)), "b": [gg.tensor(np.float16(1000)), gg.tensor(np.float64(3))]})
    assert [losses["a"].item(), losses["b"][0].item(), losses["b"][1].item()] == [2048, 1024000, 3072]
    assert [losses["a"].dtype, losses["b"][0].dtype, losses["b"][1].dtype] == [np.float32, np.float32, np.float64]


def test_misuse():
    p = leaf()
    o = optim.SGD([p], lr=0.5)
    scaler = amp.GradScaler()
    with pytest.raises(RuntimeError, match="No inf checks were recorded prior to update"):
        scaler.update()
    with pytest.raises(RuntimeError, match="no parameter of this optimizer has a gradient"):
        scaler.step(o)
    p.grad = gg.tensor(np.array([2.0], np.float32))
    scaler.unscale_(o)
    with pytest.raises(RuntimeError, match=r"unscale_\(\) has already been called on this optimizer since the last update"):
        scaler.unscale_(o)
    scaler.step(o)
    with pytest.raises(RuntimeError, match=r"step\(\) has already been called since the last update"):
        scaler.step(o)
    with pytest.raises(RuntimeError, match=r"unscale_\(\) is being called after step"):
        scaler.unscale_(o)
    scaler.update()
    with pytest.raises(RuntimeError, match="Closure use is not currently supported"):
        scaler.step(o, lambda: 1.0)
    half = gg.tensor(np.ones(2, np.float16), requires_grad=True)
    half.grad = gg.tensor(np.ones(2, np.float16))
    with pytest.raises(ValueError, match="Attempting to unscale FP16 gradients"):
        scaler.unscale_(optim.SGD([half]))
    for options, message in (
        ({"init_scale": 0}, "invalid init_scale: got 0"),
        ({"growth_factor": 1.0}, r"growth factor must be > 1.0, got 1.0"),
        ({"backoff_factor": 1.0}, r"backoff factor must be between 0 and 1, got 1.0"),
    ):
        with pytest.raises(ValueError, match=message):
            amp.GradScaler(**options)


def test_not_enabled_it_does_nothing():
    p = leaf()
    o = optim.SGD([p], lr=1.0)
    scaler = amp.GradScaler(enabled=False)
    loss = gg.sum(p * 2)
    assert scaler.scale(loss) is loss
    loss.backward()
    scaler.unscale_(o)
    scaler.step(o)
    scaler.step(o, lambda: None)
    scaler.update()
    assert (p.item(), scaler.get_scale(), scaler.is_enabled(), scaler.state_dict()) == (-3.0, 1.0, False, {})
    with pytest.raises(RuntimeError, match="source state dict is empty"):
        amp.GradScaler().load_state_dict(scaler.state_dict())


def test_going_on_from_a_saved_state_is_going_on():
    grads = [1, 1, np.inf, 1, 1, 1, 1, np.nan, 1]
    make = lambda: amp.GradScaler(init_scale=4.0, growth_interval=2)
    for stop in range(len(grads)):
        p = leaf()
        o, scaler, other = optim.SGD([p]), make(), amp.GradScaler()
        for g in grads[:stop]:
            step_with(scaler, o, p, g)
        other.load_state_dict(json.loads(json.dumps(scaler.state_dict())))
        for g in grads[stop:]:
            step_with(scaler, o, p, g)
            step_with(other, o, p, g)
            assert other.get_scale() == scaler.get_scale()
        assert other.state_dict() == scaler.state_dict()


def test_bfloat16_gradients_are_unscaled():
    p = gg.tensor(np.ones(2, bfloat16), requires_grad=True)
    p.grad = gg.tensor(np.array([2.0**17, 2.0**18], bfloat16))
    amp.GradScaler().unscale_(optim.SGD([p]))
    assert p.grad.dtype == np.dtype(bfloat16)
    assert_array_equal(p.grad.numpy().astype(float), [2, 4])


# ------------------------------------------------------------------------------------------------- training


def test_scaling_cures_underflow():
    """A mean over 2^16 elements, each gradient 2^-26: float16 ends at 2^-24."""
    x = gg.tensor(np.full((1, 1), 2.0**-10, np.float32))
    w = leaf().reshape(1, 1).detach().requires_grad_()
    gradients = []
    for scaler in (amp.GradScaler(enabled=False), amp.GradScaler()):
        w.grad = None
        with amp.autocast("float16"):
            loss = gg.sum(x @ w) * 2.0**-26
        scaler.scale(loss).backward()
        scaler.unscale_(optim.SGD([w]))
        gradients.append(w.grad.item())
    assert gradients == [0.0, 2.0**-36]


def trained(dtype, device, *, scaled=True, make=optim.Adam, **options):
    """The losses of 60 steps of a small net."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(64, 4)).astype(np.float32)
    y = gg.tensor((x[:, 0] * x[:, 1] > 0).astype(np.int64), device=device)
    x = gg.tensor(x, device=device)
    gg.random.seed(0)
    model = nn.MLP([4, 16, 16, 2], device=device)
    o, scaler = make(model.parameters(), lr=0.02, **options), amp.GradScaler(enabled=scaled and dtype == "float16")
    losses = []
    for _ in range(60):
        o.zero_grad()
        with amp.autocast(dtype or "float16", enabled=dtype is not None):
            loss = F.cross_entropy(model(x), y)
        assert loss.dtype == np.float32
        scaler.scale(loss).backward()
        scaler.step(o)
        scaler.update()
        losses.append(loss.item())
    assert all(p.dtype == p.grad.dtype == np.float32 for p in model.parameters())
    return np.array(losses)


@pytest.mark.parametrize("max_grad_norm", [None, 0.3])
def test_a_small_net_trains_as_in_float32(max_grad_norm, device):
    exact = trained(None, device, max_grad_norm=max_grad_norm)
    assert exact[-1] < 0.5 * exact[0]
    for dtype, atol in (("float16", 0.01), ("bfloat16", 0.06)):
        losses = trained(dtype, device, max_grad_norm=max_grad_norm)
        assert_allclose(losses, exact, atol=atol)
        assert not np.array_equal(losses, exact)


@every_half
def test_a_gradient_penalty_inside_the_block(dtype):
    """A gradient of a gradient on the tape: WGAN-GP's, say."""
    x, w = gg.tensor(draw(8, 3), requires_grad=True), gg.tensor(draw(3, 2), requires_grad=True)

    def penalty():
        (g,) = gg.autograd.grad(gg.sum(gg.tanh(x @ w)), [x], create_graph=True)
        return gg.mean((gg.linalg.norm(g, axis=1) - 1) ** 2)

    penalty().backward()
    exact = w.grad.numpy().copy()
    w.grad = x.grad = None
    with amp.autocast(dtype):
        value = penalty()
        value.backward()
    assert (value.dtype, w.grad.dtype) == (np.float32, np.float32)
    assert_allclose(w.grad.numpy(), exact, rtol=50 * UNIT[dtype], atol=20 * UNIT[dtype])


def test_with_no_grad_and_in_anomaly_mode():
    x, w = gg.tensor(draw(4, 3)), gg.tensor(draw(3, 2), requires_grad=True)
    with amp.autocast("float16"):
        with gg.no_grad():
            y = x @ w
        assert (y.dtype, y.requires_grad) == (np.float16, False)
        with gg.detect_anomaly():
            assert gg.sum(x @ w).dtype == np.float32
            big = gg.tensor(np.full((1, 1), 300.0, np.float32), requires_grad=True)
            with np.errstate(over="ignore"), pytest.raises(RuntimeError, match="matmul made an infinity out of finite values"):
                big @ big


def test_scaled_micro_batches_are_one_batch(device):
    """k backward passes of scaled losses, then unscale, clip and step once."""
    x, y = (gg.tensor(draw(12, n, seed=n), device=device) for n in (5, 2))

    def train(parts):
        w = gg.tensor(draw(5, 2), device=device, requires_grad=True)
        o, scaler = optim.SGD([w], lr=0.5, momentum=0.9), amp.GradScaler(init_scale=1024.0)
        for _ in range(3):
            o.zero_grad()
            for i in range(0, 12, 12 // parts):
                with amp.autocast("float16"):
                    loss = F.mse_loss(gg.tanh(x[i : i + 12 // parts] @ w), y[i : i + 12 // parts]) / parts
                scaler.scale(loss).backward()
            scaler.unscale_(o)
            optim.clip_grad_norm_([w], 0.2)
            scaler.step(o)
            scaler.update()
        return w.numpy()

    whole = train(1)
    assert np.abs(whole - draw(5, 2)).max() > 0.05
    for parts in (2, 4):
        assert_allclose(train(parts), whole, atol=2e-3)


def test_without_ml_dtypes_float16_works_and_bfloat16_names_the_extra(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    with amp.autocast("float16"):
        assert (gg.ones((2, 2), dtype=np.float32) @ gg.ones((2, 2), dtype=np.float32)).dtype == np.float16
    with pytest.raises(ImportError, match=r"pip install 'gpugrad\[bfloat16\]'"):
        amp.autocast("bfloat16")


def test_a_scaler_can_be_pickled():
    import pickle

    scaler = amp.GradScaler(init_scale=8.0)
    scaler.update(4.0)
    assert pickle.loads(pickle.dumps(scaler)).state_dict() == scaler.state_dict()
