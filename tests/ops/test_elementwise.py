"""Kinks, ties, singular points and tails of the elementwise functions: the conventions, exactly."""

import warnings

import numpy as np
import pytest

import gpugrad as gg
from gpugrad.kernels import masks, masks_cpu
from gpugrad.products import MODES


def slope(f, x):
    return gg.grad(lambda x: gg.sum(f(x)))(np.asarray(x, dtype=np.float64))


def second(f, x, mode="forward-over-reverse"):
    x = np.asarray(x, dtype=np.float64)
    return gg.hvp(lambda x: gg.sum(f(x)), x, np.ones_like(x), mode=mode)


# ---------------------------------------------------------------------------------- kinks and ties


def test_kinks():
    np.testing.assert_array_equal(slope(gg.absolute, [-2.0, 0.0, 3.0]), [-1, 0, 1])
    np.testing.assert_array_equal(slope(gg.relu, [1.0, -2.0, 3.0, -1.0, 0.0]), [1, 0, 1, 0, 0])
    np.testing.assert_array_equal(slope(lambda x: gg.clip(x, -1, 1), [-2.0, -1.0, 0.5, 1.0, 2.0]), [0, 1, 1, 1, 0])
    np.testing.assert_array_equal(slope(lambda x: gg.clip(x, min=0), [-1.0, 0.0, 2.0]), [0, 1, 1])
    np.testing.assert_array_equal(slope(gg.sign, [-1.0, 0.0, 2.0]), [0, 0, 0])
    np.testing.assert_array_equal(slope(gg.floor, [0.5, 1.5]), [0, 0])


@pytest.mark.parametrize("f", [gg.maximum, gg.minimum, gg.fmax, gg.fmin])
def test_ties_split_evenly(f):
    a, b = gg.grad(lambda a, b: gg.sum(f(a, b)), argnums=(0, 1))(np.array([1.0, 2.0, 3.0]), np.array([1.0, 3.0, 2.0]))
    assert a[0] == b[0] == 0.5
    np.testing.assert_array_equal(a + b, [1, 1, 1])
    np.testing.assert_array_equal(slope(lambda x: f(x, x), [1.0, 2.0]), [1, 1])
    assert gg.jvp(lambda x: f(x, x), (np.array(1.0),), (np.array(1.0),))[1] == 1


def test_nan_goes_through():
    x = np.array([np.nan, 1.0])
    for f in (gg.relu, lambda x: gg.maximum(x, 0.0), lambda x: gg.clip(x, -1, 1)):
        assert np.isnan(f(x)[0])
    np.testing.assert_array_equal(slope(lambda x: gg.maximum(x, 0.0), x)[1], 1)


# ---------------------------------------------------------------------------------- powers


def test_powers_at_zero_and_of_negative_bases():
    np.testing.assert_array_equal(slope(lambda x: x**2, [0.0, -3.0]), [0, -6])
    np.testing.assert_array_equal(second(lambda x: x**2, [0.0, -3.0]), [2, 2])
    np.testing.assert_array_equal(slope(lambda x: x**1, [0.0]), [1])
    np.testing.assert_array_equal(second(lambda x: x**1, [0.0]), [0])
    np.testing.assert_array_equal(slope(lambda x: x**0, [0.0, 2.0]), [0, 0])
    np.testing.assert_array_equal(second(lambda x: x**3, [0.0]), [0])
    np.testing.assert_array_equal(slope(lambda x: x**3, [-2.0]), [12])
    b = np.array([0.0, 1.0, 2.0])
    np.testing.assert_array_equal(slope(lambda x: gg.power(x, b), [0.0, 0.0, 0.0]), [0, 1, 0])
    for mode in ("forward-over-reverse", "reverse-over-reverse"):
        np.testing.assert_array_equal(second(lambda x: gg.power(x, b), [0.0, 0.0, 0.0], mode), [0, 0, 2])
    np.testing.assert_allclose(slope(lambda x: 2.0**x, [0.0, 3.0]), np.log(2) * np.array([1.0, 8.0]))
    np.testing.assert_array_equal(slope(lambda p: gg.power(0.0, p), [1.0, 2.0]), [0, 0])
    ints = np.array([2, 3])
    np.testing.assert_array_equal(slope(lambda x: x**ints, [3.0, 2.0]), [6, 12])


def test_a_zero_cotangent_is_differentiated_again():
    # at x = 1 the cotangent that reaches the division is 0, but its own derivative is not (HIPS/autograd's masks lose it)
    f = lambda x: (x / 2.0 - 0.5) ** 2
    for mode in ("forward-over-reverse", "reverse-over-reverse"):
        np.testing.assert_allclose(second(f, [1.0], mode), [0.5])
        np.testing.assert_allclose(second(lambda x: (gg.sqrt(x) - 1) ** 2, [1.0], mode), [0.5])
        np.testing.assert_allclose(second(lambda x: gg.log(x) ** 2, [1.0], mode), [2.0])


# ---------------------------------------------------------------------------------- tails


def test_tails_without_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(slope(gg.tanh, [-800.0, 800.0]), [0, 0])
        np.testing.assert_allclose(slope(lambda x: gg.logaddexp(x, 0.0), [-700.0, 700.0]), [np.exp(-700), 1])
        np.testing.assert_allclose(slope(gg.log1p, [1e-300, 1e300]), [1, 1e-300])
        np.testing.assert_allclose(slope(gg.expm1, [-800.0, -100.0, 1e-20]), [0, np.exp(-100), 1])
        np.testing.assert_allclose(slope(lambda x: gg.hypot(x, 1e200), [1e200]), [np.sqrt(0.5)])
        np.testing.assert_array_equal(gg.grad(lambda x, y: gg.sum(gg.hypot(x, y)))(np.zeros(1), np.zeros(1)), [0])
        np.testing.assert_allclose(slope(lambda x: gg.arctan2(x, 1e200), [1e200]), [5e-201])
        np.testing.assert_allclose(slope(gg.arcsinh, [1e200, -1e200]), [1e-200, 1e-200])
        np.testing.assert_allclose(slope(gg.sinc, [0.0, 1e-6, 1.0]), [0, -(np.pi**2) * 1e-6 / 3, -1], rtol=1e-9, atol=1e-15)


def test_logaddexp_of_infinities():
    inf = np.inf
    _, pull = gg.vjp(gg.logaddexp, np.array([-inf, -inf, inf, 0.0]), np.array([-inf, 0.0, 0.0, 0.0]))
    a, b = pull(np.ones(4))
    np.testing.assert_array_equal(a, [0.5, 0, 1, 0.5])
    np.testing.assert_array_equal(b, [0.5, 1, 0, 0.5])


# ---------------------------------------------------------------------------------- dtypes


def test_python_scalars_do_not_widen_and_numpy_scalars_do():
    t = gg.tensor([1.0, 2.0], requires_grad=True)
    for y in (t * 2, 2.0 * t, t**2, 1 / t, gg.where(t > 1, t, 0.0), gg.maximum(t, 0.0), gg.clip(t, 0, 1.5), t + True, gg.sqrt(t)):
        assert y.dtype == np.float32
        assert gg.autograd.grad(y.sum(), t)[0].dtype == np.float32
    y = np.float64(2) * t
    assert y.dtype == np.float64
    assert gg.autograd.grad(y.sum(), t)[0].dtype == np.float32


@pytest.mark.parametrize("name", ["sin", "exp", "sqrt", "tanh", "log", "absolute", "reciprocal", "square"])
def test_bfloat16(name):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    t = gg.tensor(np.array([0.5, 1.5], ml_dtypes.bfloat16), requires_grad=True)
    y = getattr(gg, name)(t)
    assert y.dtype == ml_dtypes.bfloat16
    (g,) = gg.autograd.grad(y.sum(), t)
    assert g.dtype == ml_dtypes.bfloat16
    assert gg.where(t > 1, t, 0.0).dtype == ml_dtypes.bfloat16
    truth = gg.grad(lambda x: gg.sum(getattr(gg, name)(x)))(np.array([0.5, 1.5]))
    np.testing.assert_allclose(g.data.astype(float), truth, rtol=2e-2)


NUMBERS = {
    "x * 0.5": lambda x: x * 0.5, "2 * x": lambda x: 2 * x, "x + 1.5": lambda x: x + 1.5, "1 - x": lambda x: 1 - x, "1 / x": lambda x: 1 / x, "x / 3": lambda x: x / 3,
    "x ** 2": lambda x: x**2, "x ** 2.5": lambda x: x**2.5, "2.0 ** x": lambda x: 2.0**x, "maximum": lambda x: gg.maximum(x, 1.0), "arctan2": lambda x: gg.arctan2(x, 1.0),
    "where": lambda x: gg.where(gg.greater(x, 1), x, 0.5), "clip": lambda x: gg.clip(x, 0.625, 1.25), "mod": lambda x: gg.mod(x, 0.625), "hypot": lambda x: gg.hypot(2.0, x),
}  # fmt: skip


@pytest.mark.parametrize("name", NUMBERS)
def test_python_numbers_do_not_widen_bfloat16(name):
    """In any mode and at any level; NumPy's own operators would make it float32."""
    ml_dtypes = pytest.importorskip("ml_dtypes")
    f, values = NUMBERS[name], np.array([0.5, 1.5, 0.75])
    x = values.astype(ml_dtypes.bfloat16)
    t = gg.tensor(x, requires_grad=True)
    y = f(t)
    (g,) = gg.autograd.grad(y.sum(), t)
    second = gg.grad(lambda x: gg.sum(gg.grad(lambda x: gg.sum(f(x)))(x)))(x)
    found = [y.data, f(gg.tensor(x)).data, g.data, gg.jvp(f, (x,), (x,))[0], gg.jvp(f, (x,), (x,))[1], second]
    assert [np.asarray(v).dtype.name for v in found] == ["bfloat16"] * 6
    with gg.no_grad():
        assert f(t).dtype == ml_dtypes.bfloat16
    np.testing.assert_allclose(y.data.astype(float), gg.tensor(f(gg.tensor(values))).data, rtol=1e-2)
    np.testing.assert_allclose(g.data.astype(float), gg.grad(lambda x: gg.sum(f(x)))(values), rtol=3e-2, atol=1e-2)


def test_numbers_beside_other_dtypes_are_numpys():
    for dtype in (np.float16, np.float32, np.float64, np.int32, np.complex64):
        x = np.array([1, 2], dtype)
        for number in (2, 0.5, True):
            assert (gg.tensor(x) * number).dtype == (x * number).dtype
            assert gg.multiply(number, x).dtype == (number * x).dtype
    structured = np.zeros(2, [("a", "f4")])
    with pytest.raises(TypeError):
        gg.multiply(structured, 2.0)


@pytest.mark.parametrize(
    "name",
    [
        "exp",
        "sin",
        "cos",
        "tan",
        "log",
        "sqrt",
        "tanh",
        "sinh",
        "cosh",
        "arctan",
        "arcsinh",
        "square",
        "reciprocal",
        "expm1",
        "log1p",
        "conj",
        "real",
        "imag",
        "absolute",
        "sign",
    ],
)
def test_complex_derivatives(name):
    f = getattr(gg, name)
    rng = np.random.default_rng(0)
    z = rng.uniform(0.3, 0.8, 4) + 1j * rng.uniform(0.3, 0.8, 4)
    w = rng.normal(size=4) + 1j * rng.normal(size=4)
    t = rng.normal(size=4) + 1j * rng.normal(size=4)
    value = lambda z: gg.sum(gg.real(f(z) * w))
    e = 1e-6
    truth = (value(z + e * t) - value(z - e * t)) / (2 * e)
    np.testing.assert_allclose(gg.jvp(value, (z,), (t,))[1], truth, rtol=1e-6)
    np.testing.assert_allclose(np.sum(gg.grad(value)(z) * t).real, truth, rtol=1e-6)
    slope_at = lambda z: gg.sum(gg.real(gg.grad(value)(z) * t))
    truth = (slope_at(z + e * t) - slope_at(z - e * t)) / (2 * e)
    np.testing.assert_allclose(gg.jvp(slope_at, (z,), (t,))[1], truth, rtol=1e-5, atol=1e-9)
    np.testing.assert_allclose(np.sum(gg.grad(slope_at)(z) * t).real, truth, rtol=1e-5, atol=1e-9)


def test_missing_names_say_what_to_do():
    with pytest.raises(AttributeError, match=r"did you mean gg\.arctan2"):
        gg.arctan22  # noqa: B018
    with pytest.raises(AttributeError, match=r"gg\.primitive"):
        gg.i0xyz  # noqa: B018
    for name, remedy in (
        ("clamp", r"gg\.clip"),
        ("manual_seed", r"gg\.random\.seed"),
        ("one_hot", r"nn\.functional\.one_hot"),
        ("bfloat16", 'dtype="bfloat16"'),
    ):
        with pytest.raises(AttributeError, match=f"{name}.*write.*{remedy}"):
            getattr(gg, name)


def test_sinc_to_sixth_order():
    def nth(f, n):
        for _ in range(n):
            f = (lambda g: lambda x: gg.jvp(g, (x,), (np.ones_like(x),))[1])(f)
        return f

    x = np.array([0.0, 2e-4, 0.3, 0.64])
    np.testing.assert_allclose(nth(gg.sinc, 4)(x)[:2], [np.pi**4 / 5] * 2, rtol=1e-5)
    np.testing.assert_allclose(nth(gg.sinc, 6)(x)[0], -(np.pi**6) / 7, rtol=1e-9)
    h = 1e-4
    np.testing.assert_allclose(nth(gg.sinc, 3)(x), (nth(gg.sinc, 2)(x + h) - nth(gg.sinc, 2)(x - h)) / (2 * h), rtol=1e-5, atol=1e-5)


def test_a_zero_cotangent_wins_at_every_order():
    for f in (lambda x: gg.where(x > 0, gg.reciprocal(x), 0.0), lambda x: gg.where(x > 0, gg.arctan2(x, x), 0.0)):
        for mode in ("forward-over-reverse", "reverse-over-reverse"):
            with np.errstate(all="ignore"):
                assert np.isfinite(second(f, [0.0, 1.0], mode)).all()


INSIDE = {  # functions, and a number at which they are smooth
    **{name: (getattr(gg, name), 0.4) for name in ("sqrt", "cbrt", "log", "log2", "log10", "log1p", "reciprocal", "arcsin", "arccos", "arctanh")},
    "arccosh": (gg.arccosh, 3.0), "quotient": (lambda x: 1 / x, 0.4), "power": (lambda x: x**0.5, 0.4), "root of a root": (lambda x: gg.sqrt(gg.sqrt(x)), 0.4),
    "hypot": (lambda x: gg.hypot(x, x), 0.4), "arctan2": (lambda x: gg.arctan2(x, x + 1), 0.4),
    "exp": (gg.exp, 0.4), "logit": (gg.special.logit, 0.4), "erfinv": (gg.special.erfinv, 0.4), "xlogy": (lambda x: gg.special.xlogy(x, x), 0.4),
}  # fmt: skip


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", INSIDE)
@pytest.mark.parametrize("times", [1, 3000])  # small arrays take other ways than those for which there is a kernel
def test_what_was_not_chosen_leaves_second_and_third_derivatives_alone(name, mode, times):
    f, inside = INSIDE[name]
    outside = [0.0, -0.0, 1.0, -1.0, -2.0, np.inf, -np.inf, np.nan]
    x = np.repeat([inside, *outside], times)
    masked = lambda x: gg.where(np.repeat([True] + [False] * len(outside), times), f(x), 0.0)
    third = gg.grad(lambda x: gg.sum(gg.hvp(lambda x: gg.sum(masked(x)), x, np.ones_like(x), mode=mode)))
    with np.errstate(all="ignore"):
        products = second(masked, x, mode), third(x)
        expected = second(f, [inside], mode), gg.grad(lambda x: gg.sum(gg.hvp(lambda x: gg.sum(f(x)), x, np.ones_like(x), mode=mode)))(np.array([inside]))
    for y, of_inside in zip(products, expected, strict=True):
        np.testing.assert_allclose(y[:times], np.repeat(of_inside, times), rtol=1e-12)
        np.testing.assert_array_equal(y[times:], 0)


def test_negative_bases_with_complex_exponents():
    z = gg.tensor(1 + 1j, requires_grad=True)
    ((-2) ** z).real.backward()
    a = np.log(-2 + 0j)
    np.testing.assert_allclose(z.grad.item(), np.conj((-2) ** (1 + 1j) * a), rtol=1e-6)


def test_the_mean_of_many_float16():
    t = gg.tensor(np.ones(70000, np.float16), requires_grad=True)
    t.mean().backward()
    np.testing.assert_allclose(t.grad.data.astype(float), 1 / 70000, rtol=1e-2)


@pytest.mark.parametrize("where", [gg.where, np.where])
def test_where_wants_both_branches_or_neither_and_numbers(where):
    t, x = gg.tensor([True, False]), gg.tensor([1.0, 2.0], requires_grad=True)
    for branches in ((x,), (x, None), (None, x)):
        if where is gg.where or branches[0] is not None:
            with pytest.raises(ValueError, match=r"one branch.*both or neither"):
                where(t, *branches)
    for wrong in ("a", object(), np.array(["a", "b"])):
        for other in (x, np.ones(2)):
            with pytest.raises(TypeError, match="expected numbers"):
                where(t, other, wrong)
    with pytest.raises(TypeError, match="expected numbers"):
        gg.where(None, x, x)
    np.testing.assert_array_equal(where(t)[0], [0])
    np.testing.assert_array_equal(where(t, x, 0.0).detach().numpy(), [1, 0])


def test_clip_takes_numpys_names_of_its_bounds():
    t = gg.tensor([-1.0, 0.5, 3.0], requires_grad=True)
    for y in (gg.clip(t, a_min=0, a_max=1), np.clip(t, a_min=0, a_max=1), np.clip(t, 0, a_max=1), gg.clip(t, min=0, max=1)):
        np.testing.assert_array_equal(y.detach().numpy(), [0, 0.5, 1])
        np.testing.assert_array_equal(gg.autograd.grad(y.sum(), t)[0].numpy(), [0, 1, 0])
    np.testing.assert_array_equal(gg.clip(t, a_max=1).detach().numpy(), [-1, 0.5, 1])
    for twice in ({"min": 0, "a_min": 0}, {"max": 1, "a_max": 1}):
        with pytest.raises(TypeError, match="twice"):
            gg.clip(t, **twice)


# ---------------------------------------------------------------------------------- many examples


def test_all_close_and_equal_inside_vmap(put):
    """Of each example; of other shapes none is equal."""
    x = put(np.array([[0.0, 1.0], [0.0, 1.0 + 1e-9], [np.nan, 1.0]]))
    ask = lambda f, **how: gg.asarray(gg.vmap(lambda x: f(x, other, **how))(x)).numpy().tolist()
    other = put(np.array([0.0, 1.0]))
    assert ask(gg.allclose) == [True, True, False] and ask(gg.allclose, rtol=0, atol=1e-12) == [True, False, False]
    assert ask(gg.array_equal) == [True, False, False]
    other = put(np.array([np.nan, 1.0]))
    assert ask(gg.array_equal) == [False, False, False] and ask(gg.array_equal, equal_nan=True) == [False, False, True]
    other = put(np.zeros((2, 2)))
    assert ask(gg.array_equal) == [False, False, False]


def test_lists_beside_examples():
    x = np.array([1.0, 2.0, 3.0])
    np.testing.assert_array_equal(gg.vmap(lambda x: gg.equal(x, [1.0, 3.0]))(x), [[True, False], [False, False], [False, True]])


@pytest.mark.parametrize("of", ["maximum", "both of maximum", "clip", "strong product", "tanh"])
def test_kernels_are_given_arrays_of_one_shape(of, monkeypatch):
    """Inside vmap what is the same for all examples is laid out, for the kernels' references are several times as slow as a copy."""
    x, c, d = (np.random.default_rng(0).normal(size=s) for s in ((4, 3000), (3000,), (3000,)))
    calls = {
        "maximum": ("_share", lambda x, d: gg.vjp(lambda x: gg.maximum(x, c), x)[1](d)),
        "both of maximum": ("_shares", lambda x, d: gg.vjp(gg.maximum, x, c)[1](d)),
        "clip": ("_within", lambda x, d: gg.vjp(lambda x: gg.clip(x, -1.0, 1.0), x)[1](d)),
        "strong product": ("reference", lambda x, d: gg.vjp(gg.exp, x)[1](d)),
        "tanh": ("_slope", lambda x, d: gg.vjp(gg.tanh, x)[1](d)),
    }
    name, f = calls[of]
    expected = [f(row, d) for row in x]

    def refuse(*_, **__):
        raise AssertionError(f"the reference of {of} was asked")

    monkeypatch.setattr(masks.strong_product if name == "reference" else masks, name, refuse)
    for a, b in zip(gg.vmap(f, (0, None))(x, d), zip(*expected, strict=True), strict=True):
        np.testing.assert_array_equal(a, np.stack(b))


def test_a_mask_that_all_examples_share_goes_to_the_kernel(monkeypatch):
    x, mask = np.random.default_rng(0).normal(size=(4, 3000)), np.arange(3000) % 3 == 0
    shapes = []
    kernel = masks.select
    monkeypatch.setattr(masks, "select", lambda x, other, mask, **how: shapes.append(mask.shape) or kernel(x, other, mask, **how))
    monkeypatch.setattr(masks.select, "at_least", kernel.at_least, raising=False)
    np.testing.assert_array_equal(gg.vmap(lambda x: gg.where(mask, x, 0.0))(x), np.where(mask, x, 0))
    np.testing.assert_array_equal(gg.vmap(lambda x: gg.where(mask, x, x[0] * gg.ones_like(x)))(x), np.where(mask, x, x[:, :1]))
    assert shapes == [x.shape, x.shape]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_choices_with_numbers_rows_and_masks_that_broadcast_are_one_pass_of_the_kernel(dtype, monkeypatch):
    """Where np.where would wait for mispredicted branches, 15 times as long."""
    passes, shared = [], masks_cpu._shared
    monkeypatch.setattr(masks_cpu, "_shared", lambda *args: passes.append(1) or shared(*args))
    rng = np.random.default_rng(0)
    x, row, few = rng.normal(size=(64, 512)).astype(dtype), rng.normal(size=512).astype(dtype), rng.random(512) < 0.5
    full = np.broadcast_to(few, x.shape).copy()
    for mask in (few, few[None], full, np.broadcast_to(few, x.shape), full[:, :1]):
        for other in (0.5, dtype(0.5), np.asarray(0.5, dtype), row, row[None], x[:, :1], -x):
            for c, a, b in ((mask, x, other), (mask, other, x)):
                passes.clear()
                y = gg.where(c, a, b)
                assert len(passes) == 1 and y.dtype == dtype
                np.testing.assert_array_equal(y, np.where(c, a, b))
    passes.clear()
    np.testing.assert_array_equal(gg.vjp(lambda x: gg.clip(x, dtype(-0.5), dtype(0.5)), x)[1](x)[0], np.where(abs(x) <= 0.5, x, 0))
    assert len(passes) == 1
    assert gg.where(few, x, np.float64(0.5)).dtype == np.float64  # as NumPy promotes
