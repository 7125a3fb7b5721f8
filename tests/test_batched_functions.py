"""Code of a user's own inside vmap: Functions, primitives with and without a batching rule, rules that leave gpugrad; autocast, anomaly mode and graphs."""

import numpy as np
import pytest
from batched import check
from numpy.testing import assert_allclose, assert_array_equal

import gpugrad as gg
from gpugrad.tape import BatchedError, Shared

RNG = np.random.default_rng(0)
A, B = RNG.normal(size=(2, 3, 4))
EYE = np.eye(4)


class Product(gg.Function):
    @staticmethod
    def forward(ctx, a, b):
        ctx.save_for_backward(a, b)
        return a * b

    @staticmethod
    def backward(ctx, g):
        a, b = ctx.saved_tensors
        return g * b, g * a


class Cube(gg.Function):
    """Its backward leaves gpugrad, and sees arrays of one example."""

    @staticmethod
    def forward(ctx, a):
        assert a.shape == (4,) and np.asarray(a).shape == (4,)
        ctx.save_for_backward(a)
        return gg.tensor(np.asarray(a) ** 3)

    @staticmethod
    @gg.once_differentiable
    def backward(ctx, g):
        (a,) = ctx.saved_tensors
        assert g.data.shape == (4,)
        return gg.tensor(3 * a.numpy() ** 2 * g.numpy())


class Several(gg.Function):
    """Two outputs that matter, one that has no derivative, and a rule of its own for forward mode."""

    @staticmethod
    def forward(ctx, a, b):
        e, k = gg.exp(a), gg.argmax(a)
        ctx.save_for_backward(e, b)
        ctx.mark_non_differentiable(k)
        return e, a * b, k

    @staticmethod
    def backward(ctx, g, h, _k):
        e, b = ctx.saved_tensors
        return g * e + h * b, h * gg.log(e)

    @staticmethod
    def jvp(ctx, t, s):
        e, b = ctx.saved_tensors
        parts = [gg.zeros_like(e) if v is None else v for v in (t, s)]
        return parts[0] * e, parts[0] * b + parts[1] * gg.log(e), None


class Noisy(gg.Function):
    """What forward keeps on ctx is the example's own."""

    drawn = 0

    @staticmethod
    def forward(ctx, a):
        Noisy.drawn += 1
        ctx.noise = np.random.default_rng(Noisy.drawn).normal(size=a.shape)
        return a * ctx.noise

    @staticmethod
    def backward(ctx, g):
        return g * ctx.noise


class Intermediate(gg.Function):
    @staticmethod
    def forward(ctx, a):
        e = gg.exp(a)
        ctx.save_for_backward(e)
        return e * 1.0

    @staticmethod
    def backward(ctx, g):
        return g * ctx.saved_tensors[0]


def of_product(a, b):
    return gg.sum(gg.sin(Product.apply(a, b)) * a)


@pytest.mark.parametrize("axes", [(0, 0), (0, None), (None, 0)], ids=str)
def test_functions(axes):
    args = [x if axis == 0 else x[0] for x, axis in zip((A, B), axes, strict=True)]
    check(Product.apply, *args, axes=axes)
    check(gg.grad(of_product, (0, 1)), *args, axes=axes)
    check(gg.hessian(of_product, (0, 1)), *args, axes=axes)
    for mode in ("forward-over-reverse", "reverse-over-reverse", "reverse-over-forward"):
        check(lambda a, b: gg.hvp(of_product, (a, b), (a, EYE[0]), mode=mode), *args, axes=axes)  # noqa: B023
    check(lambda a, b: gg.vmap(lambda v: gg.hvp(lambda a: of_product(a, b), a, v))(EYE), *args, axes=axes)
    check(lambda a, b: gg.vmap(gg.vjp(Product.apply, a, b)[1])(EYE), *args, axes=axes)
    check(lambda a, b: list(Several.apply(a, b)), *args, axes=axes)
    both = lambda a, b: list(Several.apply(a, b)[:2])
    check(gg.grad(lambda a, b: sum(gg.sum(gg.sin(y)) for y in both(a, b)), (0, 1)), *args, axes=axes)
    check(lambda a, b: gg.jvp(both, (a, b), (b, a))[1], *args, axes=axes)


def test_functions_differentiated_from_outside():
    f = gg.vmap(of_product, (0, None))
    whole, looped = (lambda a, b: gg.sum(gg.cos(f(a, b)))), (lambda a, b: sum(gg.cos(of_product(a[i], b)) for i in range(3)))
    for g, h in zip(gg.grad(whole, (0, 1))(A, B[0]), gg.grad(looped, (0, 1))(A, B[0]), strict=True):
        assert_allclose(g, h, rtol=1e-12)
    for g, h in zip(gg.hvp(whole, (A, B[0]), (B, B[1])), gg.hvp(looped, (A, B[0]), (B, B[1])), strict=True):
        assert_allclose(g, h, rtol=1e-11)
    y, pullback = gg.vjp(lambda a: gg.vmap(Product.apply)(a, B), A)
    assert_allclose(gg.vmap(pullback)(np.stack([A, B]))[0], np.stack([A * B, B * B]))
    _, push = gg.linearize(lambda a: gg.vmap(Product.apply)(a, B), A)
    assert_allclose(gg.vmap(push)(np.stack([A, B])), np.stack([A * B, B * B]))
    t = gg.tensor(A, requires_grad=True)
    gg.sum(gg.vmap(gg.vmap(Product.apply, (0, None)), (None, 0))(t, B[:, 0])).backward()
    assert_allclose(t.grad.numpy(), np.full((3, 4), B[:, 0].sum()))


def test_what_leaves_gpugrad_sees_one_example():
    f = lambda a: gg.sum(Cube.apply(a) ** 2)
    check(Cube.apply, A)
    check(gg.grad(f), A)
    check(gg.jacobian(Cube.apply, mode="reverse"), A)
    assert_allclose(gg.vmap(gg.vjp(Cube.apply, A[0])[1])(EYE)[0], np.diag(3 * A[0] ** 2))
    check(lambda a: gg.vmap(gg.vjp(Cube.apply, a)[1])(EYE), A)


def test_each_example_has_its_ctx():
    before = Noisy.drawn
    y, g = gg.vmap(gg.value_and_grad(lambda a: gg.sum(Noisy.apply(a) ** 2)))(A)
    noise = np.stack([np.random.default_rng(before + 1 + i).normal(size=4) for i in range(3)])
    assert Noisy.drawn == before + 3
    assert_allclose(y, np.sum((A * noise) ** 2, 1))
    assert_allclose(g, 2 * A * noise**2)


@pytest.mark.parametrize(
    "function, words",
    [(Cube, "twice a function that was marked with @once_differentiable"), (Intermediate, "an intermediate that")],
    ids=["once", "intermediate"],
)
def test_refused_derivatives_are_refused_here_too(function, words):
    f = lambda a: gg.sum(function.apply(a))
    gg.vmap(gg.grad(f))(A)
    for second in (
        lambda: gg.vmap(gg.hessian(f))(A),
        lambda: gg.vmap(lambda v: gg.hvp(f, A[0], v))(EYE),
        lambda: gg.vmap(lambda v: gg.jvp(gg.grad(f), (A[0],), (v,)))(EYE),
        lambda: gg.grad(lambda a: gg.sum(gg.vmap(gg.grad(f))(a)))(A),
    ):
        with pytest.raises(RuntimeError, match=words):
            second()


def test_functions_of_no_example():
    with pytest.raises(ValueError, match="over no examples"):
        gg.vmap(Product.apply)(A[:0], B[:0])


# ------------------------------------------------------------------------------------------------- primitives


def made(rule):
    """x^3 of one example of shape (4,), with a rule for its pullback; and the shapes that it was called with."""
    seen = []

    @gg.primitive
    def cube(x):
        seen.append(x.shape)
        return x**3

    gg.defvjp(cube, rule)
    return cube, seen


RULES = {
    "gpugrad": lambda g, y, x: g * 3 * x**2,
    "NumPy": lambda g, y, x: np.asarray(g) * 3 * np.asarray(x) ** 2,
    "a kernel": lambda g, y, x: only_arrays(g, x),
}


def only_arrays(g, x):
    if type(g) is not np.ndarray or type(x) is not np.ndarray:
        raise RuntimeError("a compiler does not know this type")
    assert g.shape == (4,) and x.shape == (4,)
    return g * 3 * x**2


@pytest.mark.parametrize("name", RULES)
def test_primitives(name):
    cube, seen = made(RULES[name])
    check(cube, A)
    check(gg.grad(lambda a: gg.sum(cube(a) ** 2)), A)
    check(gg.jacobian(cube, mode="reverse"), A)
    check(lambda a: gg.vmap(gg.vjp(cube, a)[1])(EYE), A)
    assert set(seen) == {(4,)}
    if name == "gpugrad":
        check(gg.hessian(lambda a: gg.sum(cube(a) ** 2)), A)
        check(lambda a: gg.jvp(cube, (a,), (a,)), A)
    else:
        with pytest.raises((TypeError, RuntimeError)):
            gg.vmap(gg.hessian(lambda a: gg.sum(cube(a) ** 2)))(A)


def test_an_error_of_a_rule_is_its_own():
    def rule(g, y, x):
        raise ZeroDivisionError("in the rule")

    cube, _ = made(rule)
    with pytest.raises(ZeroDivisionError, match="in the rule"):
        gg.vmap(gg.grad(lambda a: gg.sum(cube(a))))(A)


def test_defbatch():
    seen = []

    @gg.primitive
    def weighted(x, w, *, power):
        seen.append((x.shape, w.shape))
        return np.sum(x**power * w, axis=-1)

    gg.defvjp(weighted, lambda g, y, x, w, power: g[..., None] * power * x ** (power - 1) * w, lambda g, y, x, w, power: g[..., None] * x**power)

    def batch(size, batched, x, w, power):
        assert size == 3 and len(batched) == 2
        return weighted(x, w, power=power)

    gg.defbatch(weighted, batch)
    f = lambda x, w: weighted(x, w, power=2)
    for axes, args in (((0, 0), (A, B)), ((0, None), (A, B[0])), ((None, 0), (A[0], B))):
        seen.clear()
        gg.vmap(f, axes)(*args)
        assert seen == [(args[0].shape, args[1].shape)]
        expected = [gg.grad(f, (0, 1))(args[0] if axes[0] is None else args[0][i], args[1] if axes[1] is None else args[1][i]) for i in range(3)]
        for k, g in enumerate(gg.vmap(gg.grad(f, (0, 1)), axes)(*args)):
            assert_allclose(g, np.stack([e[k] for e in expected]), rtol=1e-12)
        total = gg.grad(lambda *args: gg.sum(gg.vmap(f, axes)(*args)), (0, 1))(*args)  # noqa: B023
        for k, g in enumerate(total):
            assert_allclose(g, np.stack([e[k] for e in expected]) if axes[k] == 0 else sum(e[k] for e in expected), rtol=1e-12)


def test_defbatch_may_say_that_nothing_depends_on_the_example():
    @gg.primitive
    def shapes(x):
        return np.array(x.shape[-1:], float)

    gg.defbatch(shapes, lambda size, batched, x: Shared(shapes(x)))
    assert_array_equal(gg.vmap(shapes, out_axes=None)(A), [4.0])


def test_wrong_batching_rules_are_named():
    cube, _ = made(RULES["gpugrad"])
    gg.defbatch(cube, lambda size, batched, x: cube(x)[0])
    with pytest.raises(ValueError, match=r"the batching rule of cube returned an array of shape \(4,\), expected an axis of length 3 in front"):
        gg.vmap(cube)(A)


def test_primitives_of_no_example():
    cube, _ = made(RULES["gpugrad"])
    with pytest.raises(ValueError, match=r"cube inside gg\.vmap over no examples"):
        gg.vmap(cube)(A[:0])
    gg.defbatch(cube, lambda size, batched, x: cube(x))
    assert gg.vmap(cube)(A[:0]).shape == (0, 4)


def test_keyword_arguments_of_primitives_are_constants():
    @gg.primitive
    def scaled(x, k=1.0):
        return x * k

    assert_allclose(gg.vmap(lambda a: scaled(a, k=2.0))(A), 2 * A)
    with pytest.raises(TypeError, match="keyword arguments are constants"):
        gg.vmap(lambda a: scaled(a, k=a[0]))(A)


# ------------------------------------------------------------------------------------------------- autocast, anomaly mode, graphs


def test_autocast():
    x, w = A.astype(np.float32), RNG.normal(size=(4, 5)).astype(np.float32)
    f = lambda x, w: gg.nn.functional.cross_entropy((x @ w)[None], np.array([2]))
    with gg.amp.autocast("float16"):
        assert gg.vmap(lambda x: x @ w)(x).dtype == np.float16
        g = gg.vmap(gg.grad(f, 1), (0, None))(x, w)
        expected = np.stack([gg.grad(f, 1)(a, w) for a in x])
    assert g.dtype == np.float32
    assert_allclose(g, expected, rtol=2e-3, atol=1e-4)
    assert_allclose(g, gg.vmap(gg.grad(f, 1), (0, None))(x, w), rtol=2e-2, atol=2e-3)


@pytest.mark.filterwarnings("ignore")
def test_anomaly_mode_names_the_line():
    with gg.detect_anomaly(), pytest.raises(RuntimeError, match=r"log made NaN out of finite values, at .*test_batched_functions\.py"):
        gg.vmap(lambda x: gg.log(x))(-np.abs(A))
    with gg.detect_anomaly(), pytest.raises(RuntimeError, match="the backward of sqrt made an infinity out of a finite gradient"):
        gg.vmap(gg.grad(lambda x: gg.sum(gg.sqrt(x))))(0 * A)
    with gg.detect_anomaly():
        check(gg.grad(lambda x: gg.sum(gg.exp(x))), A)


def test_graphs():
    with pytest.raises(RuntimeError, match="does not require grad"):
        gg.vmap(lambda x: gg.viz.graph(gg.sum(x)))(A)
    tables = []

    def shown(x):
        leaf = x.detach().requires_grad_()
        tables.append(gg.viz.graph(gg.sum(leaf**2), x=leaf))
        return x

    gg.vmap(shown)(A)
    assert [(n.name, n.operation, n.shape) for n in tables[0]] == [("x", "", (4,)), ("u1", "power", (4,)), ("u2", "sum", ())]
    assert "norm" in str(tables[0])


def test_one_example_is_not_the_other_within_a_rule():
    """A Tensor that a Function keeps by itself, of an example that is over, is refused as a value."""
    kept = []
    gg.vmap(lambda a: kept.append(a) or Product.apply(a, a))(A)
    with pytest.raises(BatchedError):
        float(kept[0][0])
