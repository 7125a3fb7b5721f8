"""The operations of normalisation: against their definitions written out, in both modes to second order, and in 16 bits."""

import numpy as np
import pytest
from derivatives import check
from numpy.testing import assert_allclose, assert_array_equal

import gpugrad as gg
from gpugrad import backend, kernels, nn, tape
from gpugrad.cuda import emulator
from gpugrad.nn import functional as F  # noqa: N812
from gpugrad.ops.standardize import standardize
from gpugrad.testing import check_grads

RNG = np.random.default_rng(0)


def by_hand(x, w, b, trailing, eps, centred=True):
    """The definition, in operations of which each has a rule of its own."""
    axes = tuple(range(x.ndim - trailing, x.ndim)) if trailing else (0, *range(2, x.ndim))
    m = gg.mean(x, axis=axes, keepdims=True) if centred else 0.0
    h = (x - m) / gg.sqrt(gg.mean((x - m) ** 2, axis=axes, keepdims=True) + eps)
    shape = w.shape if trailing else (-1, *[1] * (x.ndim - 2))
    return h * w.reshape(shape) + b.reshape(shape)


CASES = [((5, 3), 0, True), ((4, 3, 2), 0, True), ((3, 4), 1, True), ((2, 3, 4), 2, True), ((3, 5), 1, False), ((2, 2, 3), 1, False), ((4, 3), 0, False)]
every_case = pytest.mark.parametrize(("shape", "trailing", "centred"), CASES)
every_twin = pytest.mark.parametrize(
    "twin", ["reference", "cpu", pytest.param("cuda", marks=pytest.mark.skipif(not emulator.is_available(), reason="needs g++"))]
)


def arguments(shape, trailing):
    of_weight = shape[-trailing:] if trailing else shape[1:2]
    return RNG.normal(1.5, 2, shape), RNG.normal(size=of_weight), RNG.normal(size=of_weight)


@every_twin
@every_case
def test_values_and_derivatives_are_those_of_the_definition(shape, trailing, centred, twin):
    """In x, weight and bias together, to second order and in every nesting."""
    args = list(arguments(shape, trailing))
    fused = lambda x, w, b: standardize(x, w, b, trailing=trailing, eps=0.1, centred=centred)
    plain = lambda x, w, b: by_hand(x, w, b, trailing, 0.1, centred)
    c = RNG.normal(size=shape)
    scalar = lambda f: lambda args: gg.sum(c * gg.sin(f(*args)))
    t = [RNG.normal(size=a.shape) for a in args]
    with kernels.use(twin):
        assert_allclose(fused(*args), plain(*args), rtol=1e-12, atol=1e-13)
        check(fused, *args)
        for a, b in zip(gg.grad(scalar(fused))(args), gg.grad(scalar(plain))(args), strict=True):
            assert_allclose(a, b, rtol=1e-11, atol=1e-12)
        for mode in ("forward-over-reverse", "reverse-over-reverse"):
            for a, b in zip(gg.hvp(scalar(fused), args, t, mode=mode), gg.hvp(scalar(plain), args, t, mode=mode), strict=True):
                assert_allclose(a, b, rtol=1e-10, atol=1e-11)
        forward = lambda f: gg.jvp(lambda args: gg.jvp(scalar(f), (args,), (t,))[1], (args,), (t,))[1]
        assert_allclose(forward(fused), forward(plain), rtol=1e-10, atol=1e-11)


@every_case
def test_third_and_fourth_derivatives(shape, trailing, centred):
    """By all of reverse over reverse over reverse, forward over it, and forward thrice, against the definition."""
    args = arguments(shape, trailing)
    t = tuple(RNG.normal(size=a.shape) for a in args)

    def third(f):
        first = lambda args: gg.sum(gg.sin(f(*args)))
        along = lambda f: lambda args: gg.jvp(f, (args,), (t,))[1]
        dot = lambda f: lambda args: sum(gg.sum(a * b) for a, b in zip(gg.grad(f)(args), t, strict=True))
        return [
            *[o(p(q(first)))(args) for o, p, q in ((dot, dot, dot), (along, dot, dot), (dot, along, dot), (dot, dot, along), (along, along, along))],
            dot(dot(dot(dot(first))))(args),
        ]

    fused = third(lambda x, w, b: standardize(x, w, b, trailing=trailing, eps=0.1, centred=centred))
    assert_allclose(fused, third(lambda x, w, b: by_hand(x, w, b, trailing, 0.1, centred)), rtol=1e-8)
    assert_allclose(fused[:5], fused[0], rtol=1e-8)


@every_case
def test_the_jacobian_is_symmetric_and_kills_shifts_and_scales(shape, trailing, centred):
    """Adding a constant to a channel (and, for eps = 0, multiplying it) does not change h."""
    x = RNG.normal(size=shape)
    h = lambda x: standardize(x, None, None, trailing=trailing, eps=0.0, centred=centred)
    jacobian = gg.jacobian(h)(x).reshape(x.size, x.size)
    assert_allclose(jacobian, jacobian.T, rtol=1e-12, atol=1e-13)
    assert_allclose(jacobian @ x.ravel(), 0, atol=1e-12)
    if centred:
        assert_allclose(jacobian @ np.ones(x.size), 0, atol=1e-12)


@pytest.mark.parametrize("tracked", [(1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 0, 1), (0, 1, 1)])
@pytest.mark.parametrize("trailing", [0, 1])
def test_any_of_the_arguments_alone(tracked, trailing):
    """To second order; a weight that is not tracked gets no gradient computed."""
    args = arguments((5, 3), trailing)
    chosen = [i for i, need in enumerate(tracked) if need]

    def of(f):
        return lambda *some: gg.sin(f(*[some[chosen.index(i)] if i in chosen else a for i, a in enumerate(args)]))

    some = [args[i] for i in chosen]
    fused = of(lambda x, w, b: standardize(x, w, b, trailing=trailing, eps=0.1, centred=True))
    check(fused, *some)
    check_grads(fused, tuple(some), order=2)


def test_layer_norm_is_its_formula():
    x, w, b = RNG.normal(3, 2, (4, 5, 6)), RNG.normal(size=(5, 6)), RNG.normal(size=(5, 6))
    flat = x.reshape(4, 30)
    h = ((flat - flat.mean(1, keepdims=True)) / np.sqrt(flat.var(1, keepdims=True) + 1e-5)).reshape(x.shape)
    assert_allclose(F.layer_norm(x, (5, 6), w, b), h * w + b, rtol=1e-12)
    assert_allclose(F.layer_norm(x, [5, 6]), h, rtol=1e-12)
    check(lambda x, w, b: F.layer_norm(x, (5, 6), w, b, 0.1), x, w, b)


def test_rms_norm_is_its_formula():
    x, w = RNG.normal(3, 2, (4, 6)), RNG.normal(size=6)
    eps = np.finfo(np.float64).eps
    assert_allclose(F.rms_norm(x, 6, w), x / np.sqrt((x**2).mean(1, keepdims=True) + eps) * w, rtol=1e-13)
    assert_allclose(F.rms_norm(x, 6, eps=2.0), x / np.sqrt((x**2).mean(1, keepdims=True) + 2), rtol=1e-13)
    check(lambda x, w: F.rms_norm(x, 6, w, 0.1), x, w)


@pytest.mark.parametrize("shape", [(6, 3), (4, 3, 2), (2, 3, 2, 2)])
@pytest.mark.parametrize("training", [True, False])
def test_batch_norm_is_its_formula(shape, training):
    x, w, b = RNG.normal(3, 2, shape), RNG.normal(size=3), RNG.normal(size=3)
    mean, var = RNG.normal(size=3), RNG.uniform(1, 2, 3)
    axes, column = (0, *range(2, len(shape))), (3, *[1] * (len(shape) - 2))
    m, v = (x.mean(axes), x.var(axes)) if training else (mean, var)
    expected = (x - m.reshape(column)) / np.sqrt(v.reshape(column) + 1e-5) * w.reshape(column) + b.reshape(column)
    running = mean.copy(), var.copy()
    assert_allclose(F.batch_norm(x, *running, w, b, training, 0.3), expected, rtol=1e-12)
    count = x.size / 3
    assert_allclose(running[0], 0.7 * mean + 0.3 * m if training else mean, rtol=1e-13)
    assert_allclose(running[1], 0.7 * var + 0.3 * v * count / (count - 1) if training else var, rtol=1e-13)
    check(lambda x, w, b: F.batch_norm(x, mean.copy(), var.copy(), w, b, training, 0.1, 0.1), x, w, b)


def test_the_running_values_may_be_differentiated_in_evaluation():
    x, mean, var = RNG.normal(size=(4, 3)), RNG.normal(size=3), RNG.uniform(1, 2, 3)
    check(lambda x, m, v: F.batch_norm(x, m, v, eps=0.1), x, mean, var)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("size", [7, 3000])
def test_16_bits_are_computed_in_float32(dtype, size):
    """A sum of squares of 300 overflows float16 after two of them."""
    dtype = np.dtype(dtype) if dtype == "float16" else pytest.importorskip("ml_dtypes").bfloat16
    x = RNG.normal(100, 300, (4, size)).astype(dtype)
    h = F.layer_norm(x, size)
    assert h.dtype == dtype
    wide = x.astype(np.float64)
    eps = float(np.asarray(2.0**-10 if dtype == np.float16 else 2.0**-7))
    assert_allclose(h.astype(float), (wide - wide.mean(1, keepdims=True)) / wide.std(1, keepdims=True), rtol=eps, atol=eps)
    g = gg.grad(lambda x: gg.sum(gg.sin(gg.astype(F.layer_norm(x, size), np.float32))))(x)
    expected = gg.grad(lambda x: gg.sum(gg.sin(F.layer_norm(x, size))))(wide)
    assert g.dtype == dtype
    assert_allclose(g.astype(float), expected, rtol=4 * eps, atol=4 * eps * np.abs(expected).max())


def test_float32_stays_float32_and_devices_agree(put):
    x, w, b = (put(a.astype(np.float32)) for a in (RNG.normal(size=(40, 70)), RNG.normal(size=70), RNG.normal(size=70)))
    host = lambda a: np.asarray(a.get() if hasattr(a, "get") else a, np.float64)
    for trailing in (0, 1):
        y, back = gg.vjp(lambda *args, trailing=trailing: standardize(*args, trailing=trailing, eps=1e-5, centred=True), x, w, b)
        grads = back(y * y)
        assert all(a.dtype == np.float32 for a in (y, *grads))
        expected, expected_back = gg.vjp(lambda *args, trailing=trailing: by_hand(*args, trailing, 1e-5), *map(host, (x, w, b)))
        for got, want in zip((y, *grads), (expected, *expected_back(expected * expected)), strict=True):
            assert_allclose(host(got), want, rtol=1e-4, atol=1e-3)


@pytest.mark.filterwarnings("error")
def test_empty_batches_and_constant_rows():
    assert F.layer_norm(np.ones((0, 4)), 4).shape == (0, 4)
    assert F.layer_norm(np.ones((3, 0)), 0).shape == (3, 0)
    assert F.rms_norm(np.ones((0, 4)), 4).shape == (0, 4)
    assert gg.grad(lambda x: gg.sum(F.layer_norm(x, 4)))(np.ones((0, 4))).shape == (0, 4)
    assert_array_equal(F.layer_norm(np.full((2, 4), 1e4 + 0.1), 4), 0)
    assert_array_equal(F.rms_norm(np.zeros((2, 4)), 4), 0)
    assert np.isfinite(gg.grad(lambda x: gg.sum(F.layer_norm(x, 4) ** 2))(np.full((2, 4), 0.1))).all()
    assert np.isnan(F.layer_norm(np.ones((1, 4)), 4, eps=0.0)).all()


@pytest.mark.parametrize("dtypes", [("float16", "float32"), ("float32", "float64"), ("float32", "float16"), ("float64", "float32")])
def test_parameters_of_another_dtype(dtypes):
    """What NumPy makes of the two; each gradient has the dtype of what it belongs to."""
    x, w, b = RNG.normal(size=(6, 5)).astype(dtypes[0]), *RNG.normal(size=(2, 5)).astype(dtypes[1])
    for f in (lambda x, w, b: F.layer_norm(x, 5, w, b, 0.1), lambda x, w, b: F.batch_norm(x, None, None, w, b, True, eps=0.1)):
        y, back = gg.vjp(f, x, w, b)
        assert y.dtype == np.result_type(*dtypes)
        expected, wide_back = gg.vjp(f, *(a.astype(float) for a in (x, w, b)))
        assert_allclose(y.astype(float), expected, rtol=1e-2, atol=1e-2)
        for g, a, want in zip(back(y), (x, w, b), wide_back(expected), strict=True):
            assert g.dtype == a.dtype
            assert_allclose(g.astype(float), want, rtol=2e-2, atol=2e-2)


def test_second_derivatives_in_16_bits():
    """In which 16-bit floats and float32 meet, and third ones, which are computed in float32."""
    x, t = RNG.normal(size=(2, 4, 6)).astype(np.float16)
    f = lambda x: gg.sum(gg.sin(gg.astype(F.layer_norm(x, 6, eps=0.1), np.float32)))
    for mode in ("forward-over-reverse", "reverse-over-reverse"):
        product, expected = gg.hvp(f, x, t, mode=mode), gg.hvp(f, x.astype(float), t.astype(float), mode=mode)
        assert product.dtype == np.float16
        assert_allclose(product.astype(float), expected, rtol=2e-2, atol=1e-2)
    third = gg.grad(lambda x: gg.sum(gg.grad(lambda x: gg.sum(gg.grad(f)(x) * t))(x) * t))(x)
    wide = gg.grad(lambda x: gg.sum(gg.grad(lambda x: gg.sum(gg.grad(f)(x) * t))(x) * t))(x.astype(float))
    assert_allclose(third.astype(float), wide, rtol=5e-2, atol=5e-2)


def test_errors():
    with pytest.raises(ValueError, match=r"layer_norm: got input of shape \(2, 3\), expected \(..., 4\)"):
        F.layer_norm(np.ones((2, 3)), 4)
    with pytest.raises(ValueError, match=r"rms_norm: got input of shape \(4,\), expected \(..., 3, 4\)"):
        F.rms_norm(np.ones(4), (3, 4))
    with pytest.raises(ValueError, match=r"layer_norm: got bias of shape \(1,\), expected \(4,\)"):
        F.layer_norm(np.ones((2, 4)), 4, bias=np.ones(1))
    with pytest.raises(ValueError, match=r"more than 1 value per channel when training, got input of shape \(1, 3\)"):
        F.batch_norm(np.ones((1, 3)), training=True)
    with pytest.raises(ValueError, match="expected running_mean and running_var in evaluation, got None"):
        F.batch_norm(np.ones((2, 3)))
    with pytest.raises(ValueError, match=r"got input of shape \(2, 3\) and weight of shape \(1,\), expected as many channels"):
        F.batch_norm(np.ones((2, 3)), weight=np.ones(1), training=True)
    with pytest.raises(ValueError, match=r"got input of shape \(3,\), expected \(N, C\)"):
        F.batch_norm(np.ones(3), training=True)
    for dtype in (np.int64, np.complex128):
        with pytest.raises(TypeError, match="expected real floats"):
            F.layer_norm(np.ones((2, 3), dtype), 3)


def test_the_tape_keeps_x_and_the_weight_and_four_numbers_for_each_channel():
    x, w, b = (gg.tensor(a, requires_grad=True) for a in arguments((4, 3), 1))
    y = F.layer_norm(x, 3, w, b)
    assert [v is not None and v is t.value for v, t in zip(y.node.vals, (x, w, b), strict=True)] == [True, True, False]
    assert y.node.y is None
    (stats,) = y.node.params["kept"]
    assert stats.shape == (4, 4)


def test_twice_the_same_call_on_other_numbers():
    """Each call keeps the moments of its own."""
    a, b = (gg.tensor(RNG.normal(size=(4, 3)), requires_grad=True) for _ in range(2))
    ya, yb = F.layer_norm(a, 3), F.layer_norm(b, 3)
    gg.sum(gg.sin(ya) + gg.sin(yb)).backward()
    for leaf in (a, b):
        assert_allclose(leaf.grad.numpy(), gg.grad(lambda x: gg.sum(gg.sin(F.layer_norm(x, 3))))(leaf.numpy()), rtol=1e-13)


@pytest.mark.parametrize("function", ["layer_norm", "batch_norm", "rms_norm"])
@pytest.mark.parametrize("shape", [(37, 65), (9, 65, 11)])
def test_pytorch(function, shape):
    torch = pytest.importorskip("torch")
    x, w, b, g = (RNG.normal(2, 1, s).astype(np.float32) for s in (shape, shape[1:2], shape[1:2], shape))
    if function != "batch_norm":
        w, b = (RNG.normal(size=shape[-1]).astype(np.float32) for _ in range(2))
    given = (x, w) if function == "rms_norm" else (x, w, b)
    call = {
        "layer_norm": lambda f: lambda *args: f.layer_norm(args[0], shape[-1:], *args[1:]),
        "rms_norm": lambda f: lambda *args: f.rms_norm(args[0], shape[-1:], args[1], 1e-5),
        "batch_norm": lambda f: lambda *args: f.batch_norm(args[0], None, None, *args[1:], True),
    }[function]
    theirs = [torch.tensor(a, dtype=torch.float64, requires_grad=True) for a in given]
    y = call(torch.nn.functional)(*theirs)
    y.backward(torch.tensor(g, dtype=torch.float64))
    ours, back = gg.vjp(call(F), *given)
    for a, e in zip((ours, *back(g)), (y, *[t.grad for t in theirs]), strict=True):
        e = e.detach().numpy()
        assert_allclose(a, e, rtol=1e-5, atol=3e-6 * np.abs(e).max())


def test_normalised_layers_in_a_net():
    """Batch norm has no derivative by the bias before it."""
    net = nn.MLP([3, 4, 2], norm="batch", dtype=np.float64)
    gg.sum(gg.sin(net(RNG.normal(size=(5, 3))))).backward()
    assert_allclose(net[0].bias.grad.numpy(), 0, atol=1e-14)
    assert np.abs(net[0].weight.grad.numpy()).min() > 1e-12


# ---------------------------------------------------------------------------------- many examples at once

LAYERS = {
    "layer_norm": lambda x, w, b: F.layer_norm(x, x.shape[1:], w, b, eps=0.1),
    "rms_norm": lambda x, w, b: F.rms_norm(x, x.shape[1:], w, eps=0.1) + b,
    "batch_norm": lambda x, w, b: F.batch_norm(x, weight=w.reshape(-1)[: x.shape[1]], bias=b.reshape(-1)[: x.shape[1]], training=True, eps=0.1),
}
every_layer = pytest.mark.parametrize("layer", LAYERS)
SHAPE = (5, 3, 2)


def derivatives(f, x, w, b, g):
    """The value, the pullback, the tangent, and the Hessian of <g, sin f>: all of them read the moments that are kept."""
    args, scalar = (x, w, b), lambda *args: gg.sum(g * gg.sin(f(*args)))
    y, back = gg.vjp(f, *args)
    return y, *back(g), gg.jvp(f, args, (g, w, b))[1], *gg.hvp(scalar, args, (g, w, b)), *gg.hvp(scalar, args, (g, w, b), mode="forward-over-reverse")


def in_a_loop(f, batched, args):
    n = next(len(a) for a, many in zip(args, batched, strict=True) if many)
    rows = [f(*[a[i] if many else a for a, many in zip(args, batched, strict=True)]) for i in range(n)]
    return [np.stack(list(map(on_host, column))) for column in zip(*rows, strict=True)]


def on_host(a):
    return backend.to_device(tape.plain(a), "cpu")


@every_layer
@pytest.mark.parametrize("batched", [(1, 1, 1, 1), (1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1), (1, 0, 0, 1), (0, 1, 1, 1)], ids=str)
def test_examples_have_moments_of_their_own(layer, batched, put):
    args = [put(RNG.normal(1, 2, (4, *shape) if many else shape)) for many, shape in zip(batched, (SHAPE, SHAPE[1:], SHAPE[1:], SHAPE), strict=True)]
    f = lambda *args: derivatives(LAYERS[layer], *args)
    got = gg.vmap(f, tuple(0 if many else None for many in batched))(*args)
    for a, e in zip(got, in_a_loop(f, batched, args), strict=True):
        assert_allclose(on_host(a), e, rtol=1e-9, atol=1e-10)


@every_layer
@pytest.mark.parametrize("of_x", ["outer", "inner", "both"])
def test_examples_of_examples(layer, of_x):
    """The moments that are kept of an x that one of two nested vmaps has examples of are not mistaken for others."""
    lead = {"outer": (4,), "inner": (2,), "both": (4, 2)}[of_x]
    x, w, b, g = RNG.normal(1, 2, (*lead, *SHAPE)), *RNG.normal(size=(2, *SHAPE[1:])), RNG.normal(size=(4, 2, *SHAPE))
    f = lambda x, g: derivatives(LAYERS[layer], x, w, b, g)
    got = gg.vmap(gg.vmap(f, (None if of_x == "outer" else 0, 0)), (None if of_x == "inner" else 0, 0))(x, g)
    for i in range(4):
        for j in range(2):
            for a, e in zip(got, f(x[{"outer": i, "inner": j, "both": (i, j)}[of_x]], g[i, j]), strict=True):
                assert_allclose(a[i, j], e, rtol=1e-9, atol=1e-10)


@every_layer
def test_no_examples(layer):
    x, w, b = np.zeros((0, *SHAPE)), *RNG.normal(size=(2, *SHAPE[1:]))
    y, *grads = gg.vmap(lambda x, g: derivatives(LAYERS[layer], x, w, b, g))(x, x)
    assert y.shape == x.shape and [d.shape for d in grads[:3]] == [x.shape, (0, *w.shape), (0, *b.shape)]


@pytest.mark.parametrize("mode", ["reverse-over-forward", "forward-over-reverse"])
def test_tangents_leave_the_forward_pass_alone(mode, monkeypatch):
    """Hessian-vector products of many vectors compute the moments once, not once for each."""
    sizes, forward = [], standardize.f
    monkeypatch.setattr(standardize, "f", lambda x, *args, **params: sizes.append(x.size) or forward(x, *args, **params))
    x, w, b = arguments((5, 3), 1)
    gg.vmap(lambda v: gg.hvp(lambda w: gg.sum(gg.sin(F.layer_norm(x, 3, w, b))), w, v, mode=mode))(RNG.normal(size=(7, 3)))
    assert set(sizes) == {x.size}


@pytest.mark.parametrize("chunk_size", [None, 2])
@pytest.mark.parametrize("of_x", [0, None])
def test_running_moments_of_each_example(of_x, chunk_size, put):
    """They are written into in place, as those of one example are."""
    x = RNG.normal(1, 2, (3, 5, 2) if of_x == 0 else (5, 2))
    running = [put(np.zeros((3, 2))), put(np.ones((3, 2)))]
    update = lambda x, mean, var: F.batch_norm(x, mean, var, training=True, momentum=0.25)
    gg.vmap(update, (of_x, 0, 0), chunk_size=chunk_size)(put(x), *running)
    for i in range(3):
        mean, var = np.zeros(2), np.ones(2)
        update(x[i] if of_x == 0 else x, mean, var)
        for a, e in zip(running, (mean, var), strict=True):
            assert_allclose(on_host(a)[i], e, rtol=1e-12)
    evaluate = lambda x, mean, var: F.batch_norm(x, mean, var)
    got = gg.vmap(evaluate, (of_x, 0, 0))(put(x), *running)
    assert_allclose(on_host(got)[1], on_host(evaluate(put(x[1] if of_x == 0 else x), running[0][1], running[1][1])), rtol=1e-12)


def test_running_moments_that_all_examples_share_are_refused():
    x, mean, var = RNG.normal(size=(3, 5, 2)), np.zeros(2), np.ones(2)
    with pytest.raises(TypeError, match=r"running_mean of shape \(2,\) is the same for all of them. Give each example one of its own, by in_axes, or none"):
        gg.vmap(lambda x: F.batch_norm(x, mean, var, training=True))(x)
    with pytest.raises(TypeError, match="running_var of shape"):
        gg.vmap(lambda x: F.batch_norm(x, None, var, training=True))(x)
    with pytest.raises(TypeError, match="running_var of shape"):
        gg.vmap(lambda x, means: F.batch_norm(x, means, var, training=True))(x, means := np.zeros((3, 2)))
    for untouched, value in ((mean, 0), (means, 0), (var, 1)):
        assert_array_equal(untouched, value)
