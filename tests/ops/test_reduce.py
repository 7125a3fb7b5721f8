"""Reductions and scans: values as NumPy's, derivatives to second order against differences, kinks, tails, 16 bits, and what went wrong elsewhere."""

import warnings

import ml_dtypes
import numpy as np
import pytest
from derivatives import check, check_examples

import gpugrad as gg
from gpugrad.ops import reduce
from gpugrad.tape import Reverse

RNG = np.random.default_rng(0)
X = RNG.normal(size=(2, 3, 4))
AXES = [None, 0, -1, (0, 2), (-1, 0), ()]


def complex_pairing(f, x):
    """<g, J t> = <J' g, t>, and the jvp is the difference quotient; real parts, for maps that are not complex-linear."""
    x = x + 1j * RNG.normal(size=x.shape)
    t = RNG.normal(size=x.shape) + 1j * RNG.normal(size=x.shape)
    y, y_dot = gg.jvp(f, x, t)
    np.testing.assert_allclose(y_dot, (f(x + 1e-6 * t) - f(x - 1e-6 * t)) / 2e-6, rtol=1e-6, atol=1e-8)
    g = RNG.normal(size=np.shape(y)) + (1j * RNG.normal(size=np.shape(y)) if np.iscomplexobj(y) else 0)
    (back,) = gg.vjp(f, x)[1](g)
    np.testing.assert_allclose(np.sum(g * y_dot).real, np.sum(back * t).real, rtol=1e-9, atol=1e-11)


# ---------------------------------------------------------------------------------- values and derivatives


@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("name", ["sum", "mean", "prod", "max", "min", "ptp", "var", "std"])
def test_as_numpy(name, axis, keepdims):
    ours, numpys = getattr(gg, name), getattr(np, name)
    np.testing.assert_allclose(ours(X, axis=axis, keepdims=keepdims), numpys(X, axis=axis, keepdims=keepdims), rtol=1e-14)
    assert gg.tensor(X).sum(axis, keepdims=keepdims).shape == X.sum(axis, keepdims=keepdims).shape
    if axis != ():
        check(lambda x: ours(x, axis=axis, keepdims=keepdims), X)


@pytest.mark.parametrize("axis", [None, 1, (0, 2)])
@pytest.mark.parametrize("name", ["sum", "mean", "prod", "var", "std"])
def test_complex(name, axis):
    complex_pairing(lambda x: getattr(gg, name)(x, axis), X)


def test_complex_scans():
    complex_pairing(lambda x: gg.cumsum(x, 1), X)
    complex_pairing(lambda x: gg.cumprod(x, 1), X)


@pytest.mark.parametrize("ddof", [0, 1, 0.5])
def test_ddof_and_correction(ddof):
    for name in ("var", "std"):
        ours, numpys = getattr(gg, name), getattr(np, name)
        np.testing.assert_allclose(ours(X, 1, ddof=ddof), numpys(X, 1, ddof=ddof))
        np.testing.assert_allclose(ours(X, 1, correction=ddof), numpys(X, 1, correction=ddof))
        check(lambda x, f=ours: f(x, (0, 2), ddof=ddof), X)


@pytest.mark.parametrize("axis", [None, 0, 1, -1])
def test_scans(axis):
    for name in ("cumsum", "cumprod"):
        np.testing.assert_allclose(getattr(gg, name)(X, axis), getattr(np, name)(X, axis))
        check(lambda x, name=name: getattr(gg, name)(x, axis), X)


@pytest.mark.parametrize("axis", [None, 1, (0, 2)])
def test_logsumexp_median_average(axis):
    np.testing.assert_allclose(gg.logsumexp(X, axis), np.log(np.exp(X).sum(axis)))
    np.testing.assert_allclose(gg.median(X, axis, keepdims=True), np.median(X, axis, keepdims=True))
    check(lambda x: gg.logsumexp(x, axis), X)
    check(lambda x: gg.median(x, axis), X)
    weights = RNG.uniform(1, 2, size=X.shape)
    np.testing.assert_allclose(gg.average(X, axis, weights), np.average(X, axis, weights))
    check(lambda x: gg.average(x, axis, weights), X)
    check(lambda w: gg.average(X, axis, w), weights)


def test_average_of_vector_weights():
    w = RNG.uniform(1, 2, size=3)
    np.testing.assert_allclose(gg.average(X, 1, w), np.average(X, 1, w))
    np.testing.assert_allclose(gg.average(X, (1, 0), RNG.uniform(1, 2, size=(3, 2)) * 0 + 1), X.mean((0, 1)))
    np.testing.assert_allclose(gg.average(X, 1, w, returned=True)[1], np.average(X, 1, w, returned=True)[1])
    check(lambda v: gg.average(X, 1, v), w)
    with pytest.raises(ValueError, match=r"\(2,\) for shape \(2, 3, 4\)"):
        gg.average(X, 1, np.ones(2))


def test_without_nan():
    x = X.copy()
    x[0, 1, 2] = np.nan
    np.testing.assert_allclose(gg.nansum(x, 1), np.nansum(x, 1))
    np.testing.assert_allclose(gg.nanmean(x, 1), np.nanmean(x, 1))
    g = gg.grad(lambda v: gg.sum(gg.nanmean(v, 1)))(x)
    assert g[0, 1, 2] == 0 and g[0, 0, 2] == 0.5 and g[0, 0, 0] == 1 / 3


def test_what_has_no_derivative():
    for name in ("argmax", "argmin", "any", "all", "count_nonzero"):
        for axis in (None, 1):
            for keepdims in (False, True):
                ours = getattr(gg, name)(X, axis=axis, keepdims=keepdims)
                np.testing.assert_array_equal(ours, getattr(np, name)(X, axis=axis, keepdims=keepdims))
    t = gg.tensor(X, requires_grad=True)
    assert not t.argmax(1).requires_grad and type(t.any()) is gg.Tensor
    assert gg.any(X > 1, axis=(0, 1)).shape == (4,)


def test_plain_in_plain_out():
    assert gg.sum([[1, 2], [3, 4]], axis=0).tolist() == [4, 6]
    assert gg.mean(3.0) == 3 and gg.logsumexp(3.0) == 3 and gg.max([1, 5]) == 5
    assert not isinstance(gg.sum(X), gg.Tensor)
    assert gg.sum(np.ones(3, np.int8)).dtype == np.int64 and gg.sum(np.ones(3, bool)) == 3
    assert gg.mean(np.arange(4)).dtype == np.float64
    assert gg.sum(np.ones(3, np.float32), dtype=np.float64).dtype == np.float64


@pytest.mark.parametrize("name", ["sum", "mean", "max", "var", "logsumexp", "std", "prod"])
def test_layouts(name):
    f = getattr(gg, name)
    for x in (np.asfortranarray(X), X[::-1, :, ::2], np.broadcast_to(X[:, :1], X.shape), X[:, :1, :1], np.float32(X).T):
        np.testing.assert_allclose(f(x, axis=1), f(x.copy(), axis=1), rtol=1e-6)
        t = gg.grad(lambda v: gg.sum(f(v, axis=(0, 2)) ** 2))
        g = t(x)
        np.testing.assert_allclose(g, t(x.copy()), rtol=1e-5)
        assert g.dtype == x.dtype and g.shape == x.shape
    zero_d = np.array(0.7)
    assert gg.grad(lambda v: gg.sum(gg.sin(f(v))))(zero_d).shape == ()


def test_empty():
    x = np.zeros((0, 3))
    assert gg.sum(x) == 0 and gg.prod(x, 0).tolist() == [1, 1, 1]
    assert gg.logsumexp(x, 0).tolist() == [-np.inf] * 3
    for f in (gg.sum, gg.prod):
        assert gg.grad(f)(x).shape == (0, 3)
    assert gg.grad(lambda v: gg.sum(gg.max(v, 1)))(x).shape == (0, 3)
    assert gg.grad(lambda v: gg.sum(gg.mean(v, 1)))(x).shape == (0, 3)
    with pytest.raises(ValueError):
        gg.max(x)


# ---------------------------------------------------------------------------------- what went wrong elsewhere


@pytest.mark.parametrize("x", [[2.0, 0.0, 3.0, 0.0], [0.0, 2.0, 3.0], [0.0, 0.0, 0.0], [0.0], [4.0, 0.0], [1.0, 2.0, 0.0, 4.0, 5.0]])
def test_prod_with_zeros(x):
    # pytorch#106789 (second derivative with two zeros), pytorch#82644, HIPS/autograd, tinygrad#17404, mxnet#17864: no division by x
    x = np.array(x)
    expected = [np.prod(np.delete(x, i)) for i in range(len(x))]
    np.testing.assert_allclose(gg.grad(gg.prod)(x), expected)
    hessian = [[0 if i == j else np.prod(np.delete(x, [i, j])) for j in range(len(x))] for i in range(len(x))]
    np.testing.assert_allclose(gg.hessian(gg.prod)(x), hessian)
    np.testing.assert_allclose(gg.jacobian(gg.grad(gg.prod), mode="reverse")(x), hessian)
    check(gg.prod, x)
    check(gg.cumprod, x)


def test_cumprod_with_zeros():
    # tensorflow#3862, Theano#5197, burn#3864
    np.testing.assert_allclose(gg.grad(lambda x: gg.sum(gg.cumprod(x)))(np.array([2.0, 0.0, 3.0, 4.0])), [1, 32, 0, 0])
    np.testing.assert_allclose(gg.grad(lambda x: gg.sum(gg.cumprod(x) ** 2))(np.array([1.0, 0.0])), [2, 0])


def test_prod_of_a_negative_axis():
    # tensorflow#10835
    g = gg.grad(lambda x: gg.sum(gg.prod(x, -1)))(np.array([[1.0, 2.0], [3.0, 4.0]]))
    np.testing.assert_allclose(g, [[2, 1], [4, 3]])


def test_no_axes_is_the_identity():
    # pytorch#28993: the value of mean(x, axis=()) and its derivative have to agree
    np.testing.assert_array_equal(gg.mean(X, ()), np.mean(X, ()))
    np.testing.assert_array_equal(gg.grad(lambda x: gg.sum(gg.mean(x, ())))(X), np.ones_like(X))


def test_several_axes_are_put_back_where_they_were():
    # cs249r_book#1867, Theano#1430, Paddle#23455
    w = RNG.normal(size=3)
    g = gg.grad(lambda x: gg.sum(gg.sum(x, (0, -1)) * w))(X)
    np.testing.assert_allclose(g, np.broadcast_to(w[:, None], X.shape))


def test_ties_share_evenly():
    # pytorch#43519
    x = np.array([[1.0, 3.0, 3.0], [2.0, 2.0, 2.0]])
    np.testing.assert_allclose(gg.grad(lambda v: gg.sum(gg.max(v, 1)))(x), [[0, 0.5, 0.5], [1 / 3] * 3])
    np.testing.assert_allclose(gg.jvp(lambda v: gg.max(v, 1), x, np.array([[5.0, 1.0, 2.0], [1.0, 2.0, 6.0]]))[1], [1.5, 3])
    many = np.ones(70_000, np.float16)  # the number of ties does not fit into 16 bits
    g = gg.grad(lambda v: gg.max(v) * 1000)(many)
    np.testing.assert_allclose(g.astype(float), 1 / 70, rtol=1e-3)


def test_nan_propagates_and_receives_the_derivative():
    x = np.array([1.0, np.nan, 3.0])
    for f in (gg.max, gg.min):
        assert np.isnan(f(x))
        np.testing.assert_array_equal(gg.grad(f)(x), [0, 1, 0])


def test_std_of_equal_elements():
    # pytorch#4320, jax#11716, keras#2960, tensorflow#56830
    for x in (np.full(3, 2.0), np.zeros((2, 2)), np.ones(1)):
        assert not gg.grad(gg.std)(x).any()
        assert not gg.hessian(gg.std)(x).any()
        assert gg.jvp(gg.std, x, np.ones_like(x))[1] == 0
    rows = np.array([[1.0, 1.0], [1.0, 3.0]])
    np.testing.assert_allclose(gg.grad(lambda v: gg.sum(gg.std(v, 1)))(rows), [[0, 0], [-0.5, 0.5]])


def test_var_of_one_element_without_freedom_is_nan():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert np.isnan(gg.var(np.ones(1), ddof=1)) and np.isnan(gg.grad(lambda x: gg.var(x, ddof=1))(np.ones(1))).all()


def test_var_far_from_zero():
    x = (1e4 + RNG.normal(size=1000)).astype(np.float32)
    centred = x.astype(float) - x.astype(float).mean()
    np.testing.assert_allclose(gg.var(x), np.mean(centred**2), rtol=1e-3)
    np.testing.assert_allclose(gg.grad(gg.var)(x), 2 * centred / 1000, atol=1e-5)


def test_logsumexp_of_infinities():
    # jax#6811, pytorch#31829, pytorch#49724: all -inf has the value -inf and derivative 0; nothing warns
    cases = [
        ([-np.inf, -np.inf], -np.inf, [0, 0]),
        ([-np.inf, 1.0], 1.0, [0, 1]),
        ([np.inf, 0.0], np.inf, [1, 0]),
        ([np.inf, np.inf, 0.0], np.inf, [0.5, 0.5, 0]),
        ([np.inf, -np.inf], np.inf, [1, 0]),
        ([800.0, np.inf], np.inf, [0, 1]),
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for x, value, gradient in cases:
            x = np.array(x)
            assert gg.logsumexp(x) == value
            np.testing.assert_array_equal(gg.grad(gg.logsumexp)(x), gradient)
            assert np.isfinite(gg.jvp(gg.logsumexp, x, np.ones_like(x))[1])
            assert np.isfinite(gg.hessian(gg.logsumexp)(x)).all()
    assert np.isnan(gg.grad(gg.logsumexp)(np.array([np.nan, 1.0]))).all()


@pytest.mark.parametrize("gap", [1.0, 40.0, 300.0, 700.0])
def test_tails_of_logsumexp(gap):
    # with one element ahead by `gap`: value e^-gap (shifted to 0), shares 1 and e^-gap, curvature e^-gap in all four places
    x, tail = np.array([0.0, -gap]), np.exp(-gap)
    np.testing.assert_allclose(gg.logsumexp(x), np.log1p(tail), rtol=1e-13)
    np.testing.assert_allclose(gg.grad(gg.logsumexp)(x), [1 / (1 + tail), tail / (1 + tail)], rtol=1e-13)
    curvature = tail / (1 + tail) ** 2
    np.testing.assert_allclose(gg.hessian(gg.logsumexp)(x), [[curvature, -curvature], [-curvature, curvature]], rtol=1e-12)
    np.testing.assert_allclose(gg.hvp(gg.logsumexp, x, np.array([1.0, 0.0]), mode="reverse-over-reverse"), [curvature, -curvature], rtol=1e-12)


def test_logsumexp_does_not_overflow():
    x = np.array([1000.0, 1000.0], np.float32)
    np.testing.assert_allclose(gg.logsumexp(x), 1000 + np.log(2), rtol=1e-6)
    np.testing.assert_allclose(gg.grad(gg.logsumexp)(x), [0.5, 0.5])
    np.testing.assert_allclose(gg.logsumexp(-x), -1000 + np.log(2), rtol=1e-6)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_sixteen_bits_accumulate_in_float32(dtype):
    x = np.full(4096, 0.25, dtype)  # in 16 bits the sum would stop growing at 512 (bfloat16: 64)
    assert gg.sum(x) == 1024 and gg.sum(x.reshape(64, 64), 0)[0] == 16 and gg.cumsum(x)[-1] == 1024
    for f in (gg.sum, gg.mean, gg.prod, gg.max, gg.min, gg.var, gg.std, gg.logsumexp, gg.ptp, gg.median):
        y, g = gg.value_and_grad(lambda v, f=f: f(v))(x[:5] * np.arange(1, 6).astype(dtype))
        assert y.dtype == dtype and g.dtype == dtype, f
        assert np.isfinite(g.astype(float)).all(), f
    large = np.full(8, 60000, dtype)  # the sum overflows float16, the mean does not
    assert np.isfinite(float(gg.mean(large))) and float(gg.std(large)) == 0


# ---------------------------------------------------------------------------------- errors, and what the tape keeps


def test_what_is_refused():
    for options in ({"out": np.zeros(())}, {"where": X > 0}, {"initial": 1.0}):
        with pytest.raises(TypeError, match=f"sum\\(\\) does not take {next(iter(options))}="):
            gg.sum(X, **options)
    assert gg.sum(X, where=True) == X.sum()
    with pytest.raises(np.exceptions.AxisError):
        gg.sum(X, axis=3)
    with pytest.raises(ValueError, match="repeated axis"):
        gg.sum(X, axis=(0, 0))
    with pytest.raises(TypeError, match="complex"):
        gg.logsumexp(X + 1j)


def test_numpys_functions_reach_ours():
    t = gg.tensor(X, requires_grad=True)
    for f in (np.sum, np.mean, np.max, np.std, np.prod, np.cumsum, np.ptp, np.median):
        y = f(t, axis=1)
        assert type(y) is gg.Tensor and y.requires_grad
        np.testing.assert_allclose(y.numpy(), f(X, axis=1))


def test_sum_and_mean_keep_nothing():
    t = gg.tensor(X, requires_grad=True)
    for y in (t.sum(1), t.mean((0, 2)), t.cumsum(1)):
        assert isinstance(y.node, Reverse) and y.node.y is None and all(v is None for v in y.node.vals)
    y = t.max(1)
    assert y.node.y is y.value and y.node.vals[0] is t.value


_COMPOSED = [
    lambda x: gg.sum(x, (0, 2)),
    lambda x: gg.mean(x, 1, keepdims=True),
    lambda x: gg.prod(x, (0, 1)),
    lambda x: gg.max(x, (0, 2)) * gg.min(x),
    lambda x: gg.ptp(x, 1),
    lambda x: gg.std(x, 1, ddof=1) + gg.var(x, (0, 1)).sum(),
    lambda x: gg.cumsum(x, 1) * gg.cumprod(x, -1),
    lambda x: gg.logsumexp(x, (1, 2)),
    lambda x: gg.logsumexp(gg.where(x > 0, x, -np.inf), (1, 2)),
    lambda x: gg.median(x, 1),
    lambda x: gg.average(x, 1, gg.exp(x)),
    lambda x: gg.nanmean(x, 0),
    lambda x: x * gg.count_nonzero(x > 0, 1, keepdims=True) * gg.any(x > 0) + gg.argmax(x, 1, keepdims=True) * x * gg.all(x),
]


@pytest.mark.parametrize("f", _COMPOSED)
def test_devices_agree(f, put, device):
    y, g = gg.value_and_grad(lambda x: gg.sum(f(x) ** 2))(put(X))
    expected, h = gg.value_and_grad(lambda x: gg.sum(f(x) ** 2))(X)
    assert gg.backend.device_of(g) == gg.backend.device_name(device)
    np.testing.assert_allclose(gg.backend.to_device(g, "cpu"), h, rtol=1e-10)
    np.testing.assert_allclose(float(y), expected, rtol=1e-10)
    product = gg.hvp(lambda x: gg.sum(f(x) ** 2), put(X), put(np.ones_like(X)))
    np.testing.assert_allclose(gg.backend.to_device(product, "cpu"), gg.hvp(lambda x: gg.sum(f(x) ** 2), X, np.ones_like(X)), rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("name", ["sum", "mean", "max", "min", "amax", "amin", "prod", "var", "std", "any", "all", "nansum", "nanmean"])
@pytest.mark.parametrize(("option", "remedy"), [("keepdim", "keepdims="), ("dim", "axis="), ("unbiased", "ddof="), ("axiss", "axis= and keepdims=")])
@pytest.mark.parametrize("value", [True, None, 0])
def test_a_misspelt_option_is_never_passed_over(name, option, remedy, value):
    for x in (np.ones((2, 2)), gg.ones((2, 2))):
        with pytest.raises(
            TypeError, match=rf"{name.removeprefix('a') if name in ('amax', 'amin') else name}\(\) got an unexpected keyword argument '{option}': .*{remedy}"
        ):
            getattr(gg, name)(x, **{option: value})


# ---------------------------------------------------------------------------------- large ones, which are kernels'


@pytest.mark.parametrize("twin", ["reference", "cpu"])
@pytest.mark.parametrize("axis", [None, 0, 1, (0, 2)])
@pytest.mark.parametrize("name", ["sum", "mean", "var", "std", "max", "min"])
def test_kernels_have_the_derivatives(name, axis, twin):
    f = getattr(gg, name)
    with gg.kernels.use(twin):
        check(lambda x: f(x, axis=axis), X)


def test_the_gradient_of_a_variance_has_the_digits_of_its_argument():
    """With the mean in float32 the deviations of x from 10,000 would be off by 3e-4 each."""
    x = (1e4 + RNG.normal(size=(40, 1000))).astype(np.float32)
    wide = x.astype(np.float64)
    for f, slope in ((gg.var, 2 / 1000), (gg.std, 1 / 1000 / wide.std(1, keepdims=True))):
        np.testing.assert_allclose(gg.grad(lambda v, f=f: gg.sum(f(v, 1)))(x), (wide - wide.mean(1, keepdims=True)) * slope, rtol=1e-6, atol=1e-10)


def test_the_sum_over_what_was_broadcast_is_right_to_the_last_digit():
    """The bias of 200,000 examples: one after the other in float32 their cotangents would be off by a hundredth."""
    g = np.full((200_000, 3), np.float32(0.1))
    b = gg.tensor(np.zeros(3, np.float32), requires_grad=True)
    (gg.tensor(g * 0) + b).backward(gg.tensor(g))
    np.testing.assert_array_equal(b.grad.numpy(), np.float32(np.float64(np.float32(0.1)) * 200_000))


def test_a_maximum_and_its_gradient_are_a_kernel_each():
    called = []
    kernel = gg.kernels.KERNELS["extremum_backward"]
    before, kernel._cpu = kernel.cpu, lambda *args, **params: called.append(1) or before(*args, **params)
    try:
        x = np.round(RNG.normal(size=(64, 100)), 1).astype(np.float32)
        g = gg.grad(lambda v: gg.sum(gg.max(v, 1)))(x)
    finally:
        kernel._cpu = before
    assert called == [1]
    chosen = x == x.max(1, keepdims=True)
    np.testing.assert_allclose(g, chosen / chosen.sum(1, keepdims=True))


_OF_AXES = [gg.sum, gg.max, gg.softmax, gg.log_softmax, gg.logsumexp, gg.argmax, gg.argmin, gg.linalg.norm, gg.linalg.vector_norm]


@pytest.mark.parametrize("f", _OF_AXES, ids=lambda f: f.__name__)
def test_pytorchs_names_of_axes_and_axes_that_are_none_say_what_to_write(f):
    x = gg.tensor(np.ones((2, 3)), requires_grad=True)
    for option, remedy in (({"dim": 1}, "write axis="), ({"keepdim": True}, "write keepdims="), ({"axes": 1}, "expected axis=")):
        with pytest.raises(TypeError, match=rf"^{f.__name__}\(\) got an unexpected keyword argument '{next(iter(option))}': {remedy}"):
            f(x, **option)
    for axis in (1.0, "rows", (0, "rows")):
        with pytest.raises(TypeError, match="axis must be an integer"):
            f(x, axis=axis)


# ---------------------------------------------------------------------------------- many examples


@pytest.mark.parametrize("f", _COMPOSED)
def test_inside_vmap(f, put):
    check_examples(f, put(RNG.normal(size=(3, 2, 3, 4))))


@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize("axis", [None, 0, -1])
def test_places_and_truths_inside_vmap(axis, keepdims, put):
    x = np.round(RNG.normal(size=(3, 4, 5)))
    for name in ("argmax", "argmin", "any", "all", "count_nonzero"):
        ours, numpys = getattr(gg, name), getattr(np, name)
        got = gg.vmap(lambda x, f=ours: f(x, axis, keepdims=keepdims))(put(x))
        np.testing.assert_array_equal(gg.asarray(got).numpy(), np.stack([numpys(row, axis, keepdims=keepdims) for row in x]))
    numbers = put(x[:, 0, 0])
    np.testing.assert_array_equal(gg.asarray(gg.vmap(gg.argmax)(numbers)).numpy(), [0, 0, 0])
    np.testing.assert_array_equal(gg.asarray(gg.vmap(lambda x: gg.argmin(x, -1))(numbers)).numpy(), [0, 0, 0])


@pytest.mark.parametrize("f", [gg.max, gg.var], ids=["max", "var"])
def test_what_depends_on_the_cotangent_alone_is_found_once(f, monkeypatch):
    """The pullbacks of many cotangents read x once: who is the largest, and by how much elements deviate, is the same for all of them."""
    x, gs = RNG.normal(size=(6, 50)), RNG.normal(size=(8, 6))
    seen = []
    for op in (reduce._extremum_share, reduce._deviations):
        monkeypatch.setattr(op, "f", lambda a, *rest, f=op.f, **params: seen.append(np.broadcast(a, *rest).size) or f(a, *rest, **params))
    pull = gg.vjp(lambda x: f(x, 1), x)[1]
    rows = gg.vmap(pull)(gs)[0]
    assert seen == [x.size]
    np.testing.assert_allclose(rows, np.stack([pull(g)[0] for g in gs]), rtol=1e-12)


def test_a_share_of_nothing_is_nothing_whatever_the_cotangent_is():
    pull = gg.vjp(lambda x: gg.max(x), np.array([1.0, 3.0, 2.0]))[1]
    np.testing.assert_array_equal(gg.vmap(pull)(np.array([np.inf, 2.0]))[0], [[0, np.inf, 0], [0, 2, 0]])
