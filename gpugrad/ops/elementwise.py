"""Functions of each element. Every partial is written times ``d``, the cotangent or tangent it multiplies.

Kinks (documented with each): |.|'(0) = 0, ties in maximum and minimum split evenly, clip passes 1 on its bounds.

Where a partial is singular it multiplies through :func:`strong_multiply` or :func:`strong_divide`, in which a zero ``d``
wins: the branch that ``where`` did not choose then contributes 0, not nan. In second derivatives there are two such factors,
a cotangent and the cotangent or tangent that it meets, and the other may be infinite: :func:`mutual_multiply` is their product.
"""

from __future__ import annotations

import cmath
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from gpugrad import tape
from gpugrad.backend import check_numbers, namespace
from gpugrad.kernels import Kernel, masks
from gpugrad.ops.batch import Args, laid_out, ragged, shape_of, spread
from gpugrad.ops.fit import add, dtype_of, zeros_like
from gpugrad.ops.rules import REALS, Sample, constant, elementwise, general, two_arguments
from gpugrad.tape import Rule, Shared, Tensor, binary

__all__ = [
    "abs", "absolute", "acos", "acosh", "allclose", "angle", "arccos", "arccosh", "arcsin", "arcsinh", "arctan", "arctan2", "arctanh", "around",
    "array_equal", "asin", "asinh", "atan", "atan2", "atanh", "bitwise_and", "bitwise_or", "bitwise_xor", "cbrt", "ceil", "clip", "conj", "conjugate",
    "copysign", "cos", "cosh", "deg2rad", "degrees", "divide", "equal", "exp", "exp2", "expm1", "fabs", "fix", "float_power", "floor", "floor_divide",
    "fmax", "fmin", "fmod", "greater", "greater_equal", "heaviside", "hypot", "imag", "invert", "isclose", "iscomplex", "isfinite", "isinf", "isnan",
    "isneginf", "isposinf", "isreal", "left_shift", "less", "less_equal", "log", "log1p", "log2", "log10", "logaddexp", "logaddexp2", "logical_and",
    "logical_not", "logical_or", "logical_xor", "maximum", "minimum", "mod", "multiply", "mutual_multiply", "nan_to_num", "negative", "nonzero", "not_equal", "positive",
    "pow", "power", "rad2deg", "radians", "real", "reciprocal", "remainder", "right_shift", "rint", "round", "sign", "signbit", "sin", "sinc", "sinh",
    "sqrt", "square", "strong_divide", "strong_multiply", "subtract", "tan", "tanh", "true_divide", "trunc", "where",
]  # fmt: skip

POSITIVE, UNIT = (0.3, 3.0), (-0.9, 0.9)

# ---------------------------------------------------------------------------------- a product in which zero wins


def of_array(kernel: Kernel) -> Any:
    """The kernel, whose first argument is an array, for numbers too. Small arrays go to its reference directly: at ten elements the choice among the twins would be felt."""
    reference, least = kernel.reference, kernel.at_least

    def call(d: Any, *others: Any, **params: Any) -> Any:
        if d.size < least if type(d) is np.ndarray else not hasattr(d, "dtype"):
            return reference(d, *others, **params)
        return kernel(d, *others, **params)

    return call


strong_multiply = elementwise(
    "strong_multiply",
    of_array(masks.strong_product),
    lambda d, _y, _a, b: strong_multiply(d, b),
    lambda d, _y, a, _b: mutual_multiply(a, d),
    batch=laid_out,
    doc="``a * b`` with ``0 * b = 0`` for any b, inf and nan included (a 'strong zero').",
)
mutual_multiply = elementwise(
    "mutual_multiply",
    of_array(masks.mutual_product),
    lambda d, _y, _a, b: mutual_multiply(d, b),
    lambda d, _y, a, _b: mutual_multiply(a, d),
    batch=laid_out,
    doc="``a * b``, which is 0 where either of them is, whatever the other.",
)
strong_divide = elementwise(
    "strong_divide",
    of_array(masks.strong_quotient),
    lambda d, _y, _a, b: strong_divide(d, b),
    lambda d, y, a, b: negative(strong_divide(mutual_multiply(strong_divide(a, b), d), b)),
    domain=POSITIVE,
    batch=laid_out,
    doc="``a / b`` with ``0 / b = 0`` for any b, 0 and nan included.",
)

# ---------------------------------------------------------------------------------- slopes of a few functions, each one pass over memory


def _sloped(of: str, small: Any, curvature: Any) -> Any:
    """d f' as a function of d and s: ``small`` is the formula for arrays that are not worth a kernel, and ``curvature(d, s)`` is d times the derivative of the slope by s."""
    least, partials = masks.slope_product.at_least, (lambda c, _y, _d, s: product(c, s), lambda c, _y, d, s: curvature(c, d, s))
    kernel = of_array(masks.slope_product)
    op = elementwise(f"{of}_slope", lambda d, s: kernel(d, s, of=of), *partials, domain=POSITIVE, batch=laid_out, doc=f"The slope of {of} times d.")

    def product(d: Any, s: Any) -> Any:
        return small(d, s) if getattr(s, "size", 0) < least else op(d, s)

    return product


_tanh_slope = _sloped("tanh", lambda d, y: d * ((1 - y) * (1 + y)), lambda c, d, y: c * d * (-2 * y))
_square_slope = _sloped("square", lambda d, x: d * (2 * x), lambda c, d, _x: c * (2 * d))
_reciprocal_slope = _sloped(
    "reciprocal", lambda d, y: -strong_multiply(strong_multiply(d, y), y), lambda c, d, y: strong_multiply(mutual_multiply(d, c), -2 * y)
)
_sqrt_slope = _sloped("sqrt", lambda d, y: strong_divide(d, 2 * y), lambda c, d, y: -_sqrt_slope(strong_divide(mutual_multiply(d, c), y), y))

# ---------------------------------------------------------------------------------- arithmetic (add is in fit.py)

negative = elementwise("negative", np.negative, lambda d, _y, _x: -d)
positive = elementwise("positive", np.positive, lambda d, _y, _x: d)
subtract = elementwise("subtract", np.subtract, lambda d, _y, _a, _b: d, lambda d, _y, _a, _b: -d)
multiply = elementwise("multiply", np.multiply, lambda d, _y, _a, b: d * b, lambda d, _y, a, _b: d * a)
divide = true_divide = elementwise(
    "divide",
    np.divide,
    lambda d, _y, _a, b: strong_divide(d, b),
    lambda d, y, _a, b: -strong_divide(strong_multiply(d, y), b),
    domain=POSITIVE,
)
reciprocal = elementwise("reciprocal", np.reciprocal, lambda d, y, _x: _reciprocal_slope(d, y), domain=POSITIVE)
square = elementwise("square", np.square, lambda d, _y, x: _square_slope(d, x))
remainder = mod = elementwise(
    "remainder",
    np.remainder,
    lambda d, _y, _a, _b: d,
    lambda d, _y, a, b: -strong_multiply(d, floor_divide(a, b)),
    samples=[Sample((3, 4), 0.7, domain=(0.1, 0.6)), Sample((3, 4), (3, 4), domain=((0.1, 0.6), (0.7, 1.2)))],
)
fmod = elementwise(
    "fmod",
    np.fmod,
    lambda d, _y, _a, _b: d,
    lambda d, _y, a, b: -strong_multiply(d, trunc(a / b)),
    samples=[Sample((3, 4), 0.7, domain=(0.1, 0.6)), Sample((3, 4), (3, 4), domain=((0.1, 0.6), (0.7, 1.2)))],
)
floor_divide = constant("floor_divide", np.floor_divide, samples=[Sample((3,), 0.7)], batch=spread)

# ---------------------------------------------------------------------------------- powers


def _power_base(d: Any, _y: Any, a: Any, b: Any) -> Any:
    """b a^(b-1), where b = 0 gives 0 even at a = 0."""
    if type(b) in (int, float):
        return d if b == 1 else _square_slope(d, a) if b == 2 else zeros_like(d) if b == 0 else strong_multiply(d, b * power(a, b - 1))
    zero = equal(b, 0)
    return strong_multiply(d, where(zero, 0.0, b * power(a, where(zero, 1.0, b - 1))))


def _power_exponent(d: Any, y: Any, a: Any, _b: Any) -> Any:
    """a^b log a, which is 0 at a = 0."""
    is_complex = dtype_of(y).kind == "c"
    if type(a) in (int, float):  # whose logarithm stays a number, so that float32 stays float32
        return strong_multiply(d, y * (math.log(a) if a > 0 else 0.0 if a == 0 else cmath.log(a) if is_complex else math.nan))
    return strong_multiply(d, strong_multiply(y, log(where(equal(a, 0), 1.0, a) + (0j if is_complex else 0))))


power = pow = elementwise("power", np.power, _power_base, _power_exponent, domain=POSITIVE)
float_power = elementwise("float_power", np.float_power, _power_base, _power_exponent, domain=POSITIVE)
sqrt = elementwise("sqrt", np.sqrt, lambda d, y, _x: _sqrt_slope(d, y), domain=POSITIVE)
cbrt = elementwise("cbrt", lambda x: namespace(x).cbrt(x), lambda d, y, _x: strong_divide(strong_divide(d, y), 3 * y), domain=POSITIVE)

# ---------------------------------------------------------------------------------- exponentials and logarithms

LN2, LN10 = math.log(2.0), math.log(10.0)
exp = elementwise("exp", np.exp, lambda d, y, _x: strong_multiply(d, y))
exp2 = elementwise("exp2", np.exp2, lambda d, y, _x: strong_multiply(d, y * LN2))
expm1 = elementwise("expm1", np.expm1, lambda d, _y, x: strong_multiply(d, exp(x)))  # y + 1 would lose the tail
log = elementwise("log", np.log, lambda d, _y, x: strong_divide(d, x), domain=POSITIVE)
log2 = elementwise("log2", np.log2, lambda d, _y, x: strong_divide(d, x * LN2), domain=POSITIVE)
log10 = elementwise("log10", np.log10, lambda d, _y, x: strong_divide(d, x * LN10), domain=POSITIVE)
log1p = elementwise("log1p", np.log1p, lambda d, _y, x: strong_divide(d, 1 + x), domain=POSITIVE)


def _share(this: Any, other: Any, y: Any) -> Any:
    """exp(this - y), the share of ``this`` in y = logaddexp(this, other); at infinity that of the larger, or a half each."""
    largest = isinf(y) & equal(this, y)
    return where(largest & equal(this, other), 0.5, where(largest, 1.0, exp(this - y)))


logaddexp = elementwise("logaddexp", np.logaddexp, lambda d, y, a, b: d * _share(a, b, y), lambda d, y, a, b: d * _share(b, a, y))
logaddexp2 = elementwise(
    "logaddexp2",
    np.logaddexp2,
    lambda d, y, a, b: d * _share(a * LN2, b * LN2, y * LN2),
    lambda d, y, a, b: d * _share(b * LN2, a * LN2, y * LN2),
)

# ---------------------------------------------------------------------------------- trigonometric and hyperbolic

sin = elementwise("sin", np.sin, lambda d, _y, x: d * cos(x))
cos = elementwise("cos", np.cos, lambda d, _y, x: -(d * sin(x)))
tan = elementwise("tan", np.tan, lambda d, y, _x: d * (1 + y * y), domain=UNIT)
arcsin = asin = elementwise("arcsin", np.arcsin, lambda d, _y, x: strong_divide(d, sqrt(strong_multiply(1 - x, 1 + x))), domain=UNIT)
arccos = acos = elementwise("arccos", np.arccos, lambda d, _y, x: -strong_divide(d, sqrt(strong_multiply(1 - x, 1 + x))), domain=UNIT)
arctan = atan = elementwise("arctan", np.arctan, lambda d, _y, x: d / (1 + x * x))
sinh = elementwise("sinh", np.sinh, lambda d, _y, x: strong_multiply(d, cosh(x)))
cosh = elementwise("cosh", np.cosh, lambda d, _y, x: strong_multiply(d, sinh(x)))
tanh = elementwise("tanh", np.tanh, lambda d, y, _x: _tanh_slope(d, y))
arcsinh = asinh = elementwise("arcsinh", np.arcsinh, lambda d, _y, x: d / (sqrt(1 + x * x) if dtype_of(x).kind == "c" else hypot(1.0, x)))
arccosh = acosh = elementwise("arccosh", np.arccosh, lambda d, _y, x: strong_divide(d, strong_multiply(sqrt(x - 1), sqrt(x + 1))), domain=(1.3, 3.0))
arctanh = atanh = elementwise("arctanh", np.arctanh, lambda d, _y, x: strong_divide(d, strong_multiply(1 - x, 1 + x)), domain=UNIT)
arctan2 = atan2 = elementwise(
    "arctan2",
    np.arctan2,
    lambda d, _y, a, b: strong_divide(strong_multiply(strong_divide(d, hypot(a, b)), b), hypot(a, b)),
    lambda d, _y, a, b: -strong_divide(strong_multiply(strong_divide(d, hypot(a, b)), a), hypot(a, b)),
    domain=POSITIVE,
)
hypot = elementwise(
    "hypot",
    np.hypot,
    lambda d, y, a, _b: strong_multiply(d, strong_divide(a, y)),
    lambda d, y, _a, b: strong_multiply(d, strong_divide(b, y)),
    domain=POSITIVE,
    doc="``sqrt(a^2 + b^2)`` without overflow; the gradient at the origin is 0.",
)
deg2rad = radians = elementwise("deg2rad", np.deg2rad, lambda d, _y, _x: d * (math.pi / 180))
rad2deg = degrees = elementwise("rad2deg", np.rad2deg, lambda d, _y, _x: d * (180 / math.pi))


_SINC_SERIES = [(-1) ** k * 2 * k / math.factorial(2 * k + 1) for k in range(1, 14)]  # of d/du (sin u / u) = sum_k c_k u^(2k-1)


def _sinc_slope(d: Any, _y: Any, x: Any) -> Any:
    """pi (u cos u - sin u) / u^2 with u = pi x; by its series where |u| < 2, since the difference cancels near 0."""
    u = math.pi * x
    small = less(absolute(u), 2.0)
    inner, outer = where(small, u, 0.0), where(small, 2.0, u)
    series, square_u = _SINC_SERIES[-1], inner * inner
    for c in reversed(_SINC_SERIES[:-1]):
        series = series * square_u + c
    return d * (math.pi * where(small, series * inner, (outer * cos(outer) - sin(outer)) / (outer * outer)))


sinc = elementwise("sinc", lambda x: namespace(x).sinc(x), _sinc_slope, domain=POSITIVE)

# ---------------------------------------------------------------------------------- steps and pieces: derivative zero almost everywhere

floor, ceil, trunc, rint, sign_real = (
    elementwise(name, getattr(np, ufunc), lambda d, _y, _x: zeros_like(d), domain=(0.1, 0.4))
    for name, ufunc in (("floor", "floor"), ("ceil", "ceil"), ("trunc", "trunc"), ("rint", "rint"), ("sign_real", "sign"))
)
_around = general(
    "around",
    lambda x, *, decimals: namespace(x).around(x, decimals),
    [lambda g, _y, _x, *, decimals: zeros_like(g)],
    [lambda t, _y, _x, *, decimals: zeros_like(t)],
    samples=[Sample((3, 4), decimals=1), Sample((), decimals=0)],
    batch=spread,
)


def around(x: Any, decimals: int = 0) -> Any:
    """Rounded to so many decimals, halves to even; the derivative is 0. See :func:`numpy.round`."""
    return _around(x, decimals=decimals)


round = around
heaviside = elementwise(
    "heaviside",
    lambda x, h: namespace(x).heaviside(x, h),
    lambda d, _y, _x, _h: zeros_like(d),
    lambda d, _y, x, _h: where(equal(x, 0), d, 0.0),
    domain=(0.1, 2.0),
)


def sign(x: Any) -> Any:
    """-1, 0 or 1; of a complex number x/|x|. Its derivative is 0 for reals. See :func:`numpy.sign`."""
    return strong_divide(x, absolute(x)) if dtype_of(x).kind == "c" else sign_real(x)


def fix(x: Any) -> Any:
    """Round towards zero; see :func:`numpy.fix`."""
    return trunc(x)


# ---------------------------------------------------------------------------------- complex parts (these are not complex-linear: the rules differ)

conj = conjugate = general("conj", np.conj, [lambda g, _y, _x: conj(g)], [lambda t, _y, _x: conj(t)], samples=[Sample((3, 4))], batch=spread)
tape.install(conj=conj)  # gradients of complex numbers are shown to hooks as PyTorch shows them
real = general("real", lambda x: namespace(x).real(x), [lambda g, _y, _x: g], [lambda t, _y, _x: real(t)], samples=[Sample((3, 4))], batch=spread)
imag = general(
    "imag",
    lambda x: namespace(x).imag(x),
    [lambda g, _y, x: -1j * g if dtype_of(x).kind == "c" else zeros_like(g)],
    [lambda t, _y, _x: imag(t)],
    samples=[Sample((3, 4))],
    batch=spread,
)
absolute = abs = fabs = general(
    "absolute",
    np.absolute,
    [lambda g, _y, x: g * conj(sign(x)) if dtype_of(x).kind == "c" else g * sign_real(x)],
    [lambda t, _y, x: real(conj(sign(x)) * t) if dtype_of(x).kind == "c" else t * sign_real(x)],
    samples=[Sample((3, 4), domain=POSITIVE), Sample((3, 4), domain=(-3.0, -0.3))],
    batch=spread,
    doc="|x|; the derivative at 0 is 0. See :func:`numpy.absolute`.",
)


def angle(x: Any) -> Any:
    """The argument of a complex number, in radians; see :func:`numpy.angle`."""
    return arctan2(imag(x), real(x))


# ---------------------------------------------------------------------------------- choices


def choose(c: Any, a: Any, b: Any) -> Any:
    """:func:`numpy.where` of plain arrays and numbers."""
    if type(c) is not np.ndarray or max(getattr(v, "size", 0) for v in (c, a, b)) >= masks.select.at_least:
        if _fits(a, b, c):
            return masks.select(a, b, c)
        if _fits(b, a, c):
            return masks.select(b, a, c, inverted=True)
    xp = namespace(c)
    if xp is np and isinstance(c, np.generic):  # it came of numbers alone, and goes where the arrays are
        xp = namespace(b if namespace(a) is np else a)
        c = xp.asarray(c)
    y = xp.where(c, masks.beside(a, b), masks.beside(b, a))
    check_numbers("where", y)
    return y


def _fits(x: Any, other: Any, mask: Any) -> bool:
    """Whether the kernel takes this: x has the shape of the result, and the other its dtype, or is a number."""
    if not masks.is_mask(mask, x) or not x.shape:
        return False
    if type(other) in (int, float, x.dtype.type):
        return True
    return type(other) is type(x) and other.dtype == x.dtype and masks.broadcasts(other.shape, x.shape)


def _where_vjp(needs: Any, g: Any, _y: Any, c: Any, _a: Any, _b: Any) -> list[Any]:
    if needs[1] and needs[2]:
        return [None, *_parts(g, c)]
    return [None, where(c, g, 0.0) if needs[1] else None, where(c, 0.0, g) if needs[2] else None]


where_op = general(
    "where",
    choose,
    _where_vjp,
    [None, lambda t, _y, c, _a, _b: where(c, t, 0.0), lambda t, _y, c, _a, _b: where(c, 0.0, t)],
    samples=[Sample(np.array([True, False, True]), (3,), (3,)), Sample(np.array([[True], [False]]), (3,), 0.5), Sample(np.array(True), (2, 3), ())],
    batch=laid_out,
)
_parts = general(
    "parts",
    masks.parts,
    lambda _needs, g, _y, _d, c: [where(c, *(0.0 if v is None else v for v in g)), None],
    lambda tangents, _y, _d, c: list(_parts(tangents[0], c)),
    samples=[Sample((3,), np.array([True, False, True])), Sample((2, 3), np.array([[True], [False]]))],
    batch=laid_out,
    doc="``d`` where the mask is true and 0 elsewhere, and the rest of d: the adjoint of where by both of its branches.",
)


def where(condition: Any, x: Any = None, y: Any = None) -> Any:
    """``x`` where ``condition``, else ``y``; with ``condition`` alone its nonzero indices. See :func:`numpy.where`.

    Raises:
        ValueError: one branch alone.
        TypeError: the condition or a branch is neither a number nor an array of numbers.
    """
    if x is None or y is None:
        if x is not y:
            raise ValueError("where: got one branch, expected both or neither")
        return nonzero(condition)
    if type(condition) is Tensor:
        condition = tape.box(tape.constant(condition))
    elif not hasattr(condition, "shape"):
        condition = np.asarray(condition)
        check_numbers("where", condition)
        condition = condition[()]
    return where_op(condition, x, y)


def _choice_vjp(needs: Any, g: Any, a: Any, b: Any, of: str) -> list[Any]:
    if needs[0] and needs[1]:
        return list(_chosen_shares(g, a, b, of=of))
    return [_chosen_share(g, x, other, of=of) if needed else None for needed, x, other in zip(needs, (a, b), (b, a))]


def _choice(name: str) -> Any:
    op = general(
        name,
        getattr(np, name),
        lambda needs, g, _y, a, b: _choice_vjp(needs, g, a, b, name),
        [lambda t, _y, a, b: _chosen_share(t, a, b, of=name), lambda t, _y, a, b: _chosen_share(t, b, a, of=name)],
        samples=two_arguments(REALS),
        batch=spread,
        doc=f"``{name}`` of two arrays; where they tie each gets half of the derivative. See :func:`numpy.{name}`.",
    )
    return binary(op)


_chosen_share = elementwise(
    "chosen_share",
    of_array(masks.share),
    lambda c, _y, _d, a, b, *, of: _chosen_share(c, a, b, of=of),
    lambda c, _y, _d, _a, _b, *, of: zeros_like(c),
    lambda c, _y, _d, _a, _b, *, of: zeros_like(c),
    samples=[Sample((3, 4), (3, 4), (3, 4), of="maximum"), Sample((3, 4), (3, 4), 0.3, of="fmin")],
    batch=laid_out,
    doc="The derivative of maximum, minimum, fmax or fmin of a and b by a, times d.",
)
_chosen_shares = general(
    "chosen_shares",
    masks.shares,
    lambda _needs, g, _y, _d, a, b, *, of: [_sum_of_shares(g, a, b, of), None, None],
    lambda tangents, y, _d, a, b, *, of: [zeros_like(v) for v in y] if tangents[0] is None else list(_chosen_shares(tangents[0], a, b, of=of)),
    samples=[Sample((3, 4), (3, 4), (3, 4), of="minimum"), Sample((3, 4), (4,), (3, 1), of="fmax")],
    batch=laid_out,
    doc="The derivatives of maximum, minimum, fmax or fmin of a and b by both, times d.",
)


def _sum_of_shares(g: Any, a: Any, b: Any, of: str) -> Any:
    of_a, of_b = (None if d is None else _chosen_share(d, x, other, of=of) for d, x, other in ((g[0], a, b), (g[1], b, a)))
    return of_b if of_a is None else of_a if of_b is None else add(of_a, of_b)


maximum, minimum, fmax, fmin = map(_choice, ("maximum", "minimum", "fmax", "fmin"))


def _clipped(x: Any, lo: Any, hi: Any) -> Any:
    if getattr(x, "dtype", np.dtype(float)).kind == "V":  # NumPy's clip makes bfloat16 float32
        return np.minimum(np.maximum(x, masks.beside(lo, x)), masks.beside(hi, x))
    return namespace(x).clip(x, lo, hi)


_clip = elementwise(
    "clip",
    _clipped,
    lambda d, _y, x, lo, hi: _within(d, x, lo, hi),
    lambda d, _y, x, lo, hi: where(less(x, lo) & ~less(hi, lo), d, 0.0),
    lambda d, _y, x, lo, hi: where(greater(x, hi) | less(hi, lo), d, 0.0),
    samples=[Sample((3, 4), -0.7, 0.8), Sample((3, 4), (4,), (3, 1), domain=((-2, 2), (-1.5, -0.5), (0.5, 1.5)))],
)


_within = elementwise(
    "within",
    of_array(masks.within),
    lambda c, _y, _d, x, lo, hi: _within(c, x, lo, hi),
    *[lambda c, _y, _d, _x, _lo, _hi: zeros_like(c)] * 3,
    samples=[Sample((3, 4), (3, 4), -0.7, 0.8), Sample((3, 4), (4,), (3, 1), 0.9)],
    batch=laid_out,
    doc="``d`` where x is in [lo, hi] or nan, else 0: what the derivative of clip does to a cotangent or tangent.",
)


def clip(x: Any, min: Any = None, max: Any = None, *, a_min: Any = None, a_max: Any = None) -> Any:
    """``x`` limited to [min, max] (None: no limit), which NumPy also names ``a_min`` and ``a_max``; the derivative is 1 on the bounds too. See :func:`numpy.clip`.

    Raises:
        TypeError: a bound under both of its names.
    """
    if a_min is not None or a_max is not None:
        if (min is not None and a_min is not None) or (max is not None and a_max is not None):
            raise TypeError("clip: got a bound twice: min and a_min are the same, and so are max and a_max")
        min, max = a_min if min is None else min, a_max if max is None else max
    if min is None and max is None:
        return positive(x)
    return _clip(x, -np.inf if min is None else min, np.inf if max is None else max)


def copysign(x1: Any, x2: Any) -> Any:
    """``|x1|`` with the sign of ``x2``; the derivative with respect to x2 is 0. See :func:`numpy.copysign`."""
    return absolute(x1) * _sign_bit(x2)


_sign_bit = constant(
    "sign as a factor", lambda x: namespace(x).copysign(namespace(x).ones_like(x), x), samples=[Sample(np.array([0.0, -0.0, 3.0, -np.inf]))], batch=spread
)


def nan_to_num(x: Any, nan: float = 0.0, posinf: float | None = None, neginf: float | None = None) -> Any:
    """``x`` with nan and infinities replaced; the derivative there is 0. See :func:`numpy.nan_to_num`."""
    limits = np.finfo(dtype_of(x))
    x = where(isnan(x), nan, x)
    x = where(isposinf(x), limits.max if posinf is None else posinf, x)
    return where(isneginf(x), limits.min if neginf is None else neginf, x)


# ---------------------------------------------------------------------------------- nothing to differentiate


_SPECIAL = np.array([1.5, -0.5, 0.0, -0.0, np.nan, np.inf, -np.inf])
_ONE, _TWO = [Sample(_SPECIAL)], [Sample(_SPECIAL, _SPECIAL[::-1].copy()), Sample((3, 1), (4,))]
_BITS = [Sample(np.array([1, 2, 7]), np.array([3, 2, 1]))]


def _constants(functions: tuple[Any, ...], samples: list[Sample]) -> Any:
    return (constant(f.__name__, f, samples=samples, batch=spread) for f in functions)


def _plain(names: tuple[str, ...], samples: list[Sample], batch: Rule = spread) -> Any:
    """Functions that NumPy does not hand on to CuPy by itself."""
    return (
        constant(
            n,
            lambda *args, n=n, **params: getattr(namespace(args[0]), n)(*args, **params),
            samples=samples,
            batch=batch,
            doc=f"See :func:`numpy.{n}`; the result is untracked.",
        )
        for n in names
    )


equal, not_equal, less, less_equal, greater, greater_equal = _constants((np.equal, np.not_equal, np.less, np.less_equal, np.greater, np.greater_equal), _TWO)
logical_and, logical_or, logical_xor = _constants((np.logical_and, np.logical_or, np.logical_xor), _TWO)
bitwise_and, bitwise_or, bitwise_xor, left_shift, right_shift = _constants(
    (np.bitwise_and, np.bitwise_or, np.bitwise_xor, np.left_shift, np.right_shift), _BITS
)
logical_not, isfinite, isinf, isnan, signbit = _constants((np.logical_not, np.isfinite, np.isinf, np.isnan, np.signbit), _ONE)
(invert,) = _constants((np.invert,), [Sample(np.array([1, -2])), Sample(np.array([True, False]))])
isposinf, isneginf, iscomplex, isreal = _plain(("isposinf", "isneginf", "iscomplex", "isreal"), _ONE)
(isclose,) = _plain(("isclose",), _TWO)


def _no_places(*_: Any) -> Any:
    raise ragged("nonzero, or where of a condition alone,")


def _all_close(_op: Any, size: int, batched: Sequence[bool], args: Args, params: dict[str, Any]) -> Any:
    return _of_all(spread(isclose, size, batched, args, params))


def _all_equal(_op: Any, size: int, batched: Sequence[bool], args: Args, params: dict[str, Any]) -> Any:
    (a, b), equal_nan = args, params.get("equal_nan", False)
    if shape_of(a)[batched[0] :] != shape_of(b)[batched[1] :]:
        return Shared(zeros_like(a if batched[0] else b, bool, shape=()))
    return _of_all(equal(a, b) | (isnan(a) & isnan(b)) if equal_nan else equal(a, b))


def _of_all(holds: Any) -> Any:
    """Of each example, whether it holds for all elements."""
    from gpugrad.ops.reduce import all

    return all(holds, tuple(range(1, len(holds.shape))))


(nonzero,) = _plain(("nonzero",), _ONE, _no_places)
(allclose,) = _plain(("allclose",), _TWO, _all_close)
(array_equal,) = _plain(("array_equal",), _TWO, _all_equal)
