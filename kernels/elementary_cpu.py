"""Elementary functions for the Numba twins, written so that LLVM vectorises the loops that call them.

Numba's own ``np.exp`` or ``np.tanh`` calls the C library for one element after another. The functions here have no branches, tables or calls; they take
float32 or float64 and compute in that precision: ``exp(x)``, ``tanh(x)`` ... in a compiled loop. inf and nan come out exactly, what is too small
goes to 0 through the subnormal numbers, and the sign of zero is kept. The largest errors, in units in the last place, are checked by the tests:

===============  =======  =======
function         float32  float64
===============  =======  =======
exp              1        1
exp_of_negative  1        1
expm1            1.5      1.8
log              0.9      0.9
log1p            1.5      1.5
tanh             2.3      2.1
sigmoid          2.4      2.1
softplus         1.8      1.6
erf              1.2      1.2
erfc             4.3      4.0
normal_cdf       4.8      6.3
normal_pdf       2.2      2.2
===============  =======  =======

The reductions of the arguments are those of Cody and Waite ("Software Manual for the Elementary Functions", 1980) and of FreeBSD's libm; the form of erfc
is that of Shepherd and Laframboise ("Chebyshev approximation of (1 + 2x) exp(x^2) erfc x in 0 <= x < inf", Mathematics of Computation 36, 1981). The
polynomials are our own: those of least maximal error, found by the exchange algorithm of Remez in 60 digits.

Called from Python, as when Numba's compiler is switched off, they compute with NumPy and the standard library, for one number.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numba
import numpy as np
from numba.extending import intrinsic, overload

from gpugrad.kernels.activations import GELU_TANH, GELU_TANH_RESTS

# Coefficients, highest power first, of float32 and float64.
# (exp(r) - 1 - r) / r^2 for |r| <= ln(2)/2
_EXP = (
    (0.0013814596989219093, 0.00836871682843759, 0.041668388062198684, 0.1666652063236441, 0.499999934478444),
    (2.0925399528913808e-09, 2.5110156512409036e-08, 2.755723966410449e-07, 2.7557241234378797e-06, 2.4801587364172286e-05, 0.0001984126988881539, 0.0013888888888865017, 0.008333333333320689, 0.041666666666666706, 0.16666666666666677, 0.5),
)  # fmt: skip
# (2 artanh(s) - 2s) / s^3 in s^2, for |s| <= 3 - 2 sqrt(2)
_LOG = (
    (0.23596234337988484, 0.2853661049155306, 0.40000345393130127, 0.6666666560447847),
    (0.14811328279044855, 0.15312595152509456, 0.1818361782772247, 0.22222197613098332, 0.28571428751019856, 0.3999999999937939, 0.666666666666674),
)
# The same for 0 <= s <= 1/3
_LOG_1_TO_2 = (
    (0.2801198173600893, 0.2800180621391236, 0.4002152719559077, 0.6666641628596435),
    (0.17009751108922908, 0.08344975049437271, 0.121049439559117, 0.13301121515928405, 0.15386548381081336, 0.18181744479661957, 0.2222222395362915, 0.2857142854811828, 0.40000000000155117, 0.6666666666666631),
)  # fmt: skip
# erf(x)/x - 1 in x^2, for |x| <= 1
_ERF = (
    (7.853849828429409e-05, -0.0008010202699272506, 0.005188330482592488, -0.02685381458207252, 0.11283585248605635, -0.376126258374651, 0.12837916572955937),
    (5.945255584223488e-11, -1.136567067182716e-09, 1.4657883530919653e-08, -1.635002619207727e-07, 1.6460972954153765e-06, -1.4925593518728226e-05, 0.00012055331037551108, -0.0008548326978765149, 0.00522397762478137, -0.02686617064507296, 0.11283791670954858, -0.3761263890318375, 0.1283791670955126),
)  # fmt: skip
# (1 + 2a) exp(a^2) erfc(a) in t = (a - 3.75)/(a + 3.75), for 0 <= a <= 10.2 and 27.4
_ERFCX = (
    (0.0010979581319323984, 0.0023145192993038618, -0.00991885191209438, 0.02804747994379112, -0.058729712032258026, 0.09235913110968964, -0.1087931979619529, 0.08227302733314416, 0.0035847983221041035, -0.14024052220533265, 1.2375126355542232),
    (-2.249878807552817e-09, -4.3647494675545577e-10, 3.275311182242368e-08, 1.478791463644545e-08, -2.5310793509430144e-07, -4.677157146299711e-08, 1.7490465879595626e-06, -9.810312212886852e-07, -1.1443736109877453e-05, 2.2387575833193558e-05, 5.164925082894553e-05, -0.00029015503334214285, 0.0002937135742830077, 0.0017556260252099293, -0.009746579538316771, 0.028362277400044076, -0.0586933985917298, 0.0923043211615288, -0.1088039301416446, 0.0822767384901128, 0.003585415485462524, -0.1402405985855467, 1.2375126308378275),
)  # fmt: skip

# Phi(-a) exp(a^2 / 2) (a + c) in t = (a - c)/(a + c), for 0 <= a <= 14.4 and 38.7, c = 3.5 and 5
_TAIL = (
    (0.0001110937727318746, 0.00042263381403041654, -0.0004949012716906099, -0.0031758073304887897, 0.0064929821616127445, 0.017406486783449727, -0.11605301252909249, 0.31542504062141846, -0.5655617463179975, 0.7444160742434589),
    (-2.964839848037557e-10, 1.448580621634405e-09, 7.935836429305695e-09, -8.34186657744261e-09, -6.60245485344621e-08, 4.09370545880956e-08, 4.3291337778819057e-07, -3.355748199600732e-07, -2.7689771937247627e-06, 3.980399867461701e-06, 1.6681052683856682e-05, -4.976265872950587e-05, -5.93756779592533e-05, 0.0005448990339901997, -0.0007978694074870238, -0.0029933767667626463, 0.020795066800788686, -0.06911863870656693, 0.16502036617033972, -0.3135331566712963, 0.49530561596997724, -0.6653825028900567, 0.769193049750063),
)  # fmt: skip

# Inlined by LLVM (calls would keep loops from vectorising), and without the entry points for Python and C, which take longer to compile than the function.
_OPTIONS: dict[str, Any] = {"error_model": "numpy", "forceinline": True, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}


def _jit(f: Callable[..., Any]) -> Any:
    return numba.njit(f, fastmath={"contract"}, **_OPTIONS)


@intrinsic
def _fma(_context: Any, a: Any, b: Any, c: Any) -> Any:
    """a b + c, rounded once."""
    return a(a, b, c), lambda _, builder, _signature, args: builder.fma(*args)


@_jit
def _horner(coefficients, t):  # type: ignore[no-untyped-def]
    total = coefficients[0]
    for i in range(1, len(coefficients)):
        total = total * t + coefficients[i]
    return total


def _functions(real: Any, integer: Any) -> SimpleNamespace:
    """The functions for one type of float, whose bits are read as that type of integer."""
    info = np.finfo(real)
    digits, bias = integer(info.nmant), integer(info.maxexp - 1)
    exp_poly, log_poly, log_poly_1_to_2, erf_poly, erfcx_poly, tail_poly = (
        tuple(real(c) for c in pair[real is np.float64]) for pair in (_EXP, _LOG, _LOG_1_TO_2, _ERF, _ERFCX, _TAIL)
    )
    # Long polynomials by even and odd powers: LLVM does not unroll a loop over all their coefficients, and then the loop around it does not vectorise.
    (erfcx_even, erfcx_odd), (tail_even, tail_odd) = ((p[-1::-2][::-1], p[-2::-2][::-1]) for p in (erfcx_poly, tail_poly))
    zero, half, one, two = real(0), real(0.5), real(1), real(2)
    inf, nan = real(np.inf), real(np.nan)
    sign = integer(np.iinfo(integer).min)
    magic = real(1.5 * 2.0**info.nmant)  # adding it rounds to an integer, which then stands in the last bits
    magic_bits = magic.view(integer)
    log2e = real(1 / math.log(2))
    ln2_high = real(0.693359375) if real is np.float32 else real(6.93147180369123816490e-01)  # so few bits that its multiples are exact
    ln2_low = real(-2.12194440054690583e-4) if real is np.float32 else real(1.90821492927058770002e-10)
    exp_low, exp_high = (real(-104), real(89)) if real is np.float32 else (real(-746), real(710))
    expm1_low, expm1_tiny = (real(-20), real(1e-9)) if real is np.float32 else (real(-40), real(1e-18))
    tiny, from_tiny = info.smallest_normal, real(2.0**info.nmant)
    sqrt_half_bits = real(math.sqrt(0.5)).view(integer)
    most = integer(info.nmant + 2)
    erfc_end, cdf_end = (real(10.2), real(14.4)) if real is np.float32 else (real(27.4), real(38.7))
    center, cdf_center, pdf_0 = real(3.75), real(3.5 if real is np.float32 else 5.0), real(1 / math.sqrt(2 * math.pi))
    k, k_rest, c, c_rest = (real(v) for big, small in zip(GELU_TANH, GELU_TANH_RESTS, strict=True) for v in (big, small + (big - float(real(big)))))
    turn = real(-1.2)  # of 2x in tanh
    up = integer(64 if real is np.float32 else 512)
    down = real(2.0 ** -int(up))

    @_jit
    def bits(x):  # type: ignore[no-untyped-def]
        return real(x).view(integer)

    @_jit
    def number(i):  # type: ignore[no-untyped-def]
        return integer(i).view(real)

    @_jit
    def power_of_2(k):  # type: ignore[no-untyped-def]
        return number(integer(k + bias) << digits)

    @_jit
    def with_sign(y, x):  # type: ignore[no-untyped-def]
        return number(bits(y) | (bits(x) & sign))

    @_jit
    def reduced(x, rest):  # type: ignore[no-untyped-def]
        """k and exp(r) - 1, where x - rest = k ln(2) + r, of which the rest is what x has lost by rounding."""
        shifted = (x - rest) * log2e + magic
        n = shifted - magic
        r = ((x - n * ln2_high) - n * ln2_low) - rest
        return integer(bits(shifted) - magic_bits), r + r * r * _horner(exp_poly, r)

    @_jit
    def scaled(p, k):  # type: ignore[no-untyped-def]
        """(1 + p) 2^k, with 2^k in two factors: it may be larger or smaller than a normal number."""
        k1 = integer(k >> integer(1))
        return (one + p) * power_of_2(k1) * power_of_2(integer(k - k1))

    @_jit
    def scaled_down(p, k):  # type: ignore[no-untyped-def]
        """The same for k <= 0: one factor that is a normal number in any case, and a constant."""
        return (one + p) * power_of_2(integer(k + up)) * down

    @_jit
    def exp(x):  # type: ignore[no-untyped-def]
        x = exp_low if x < exp_low else x
        k, p = reduced(exp_high if x > exp_high else x, zero)
        return scaled(p, k)

    @_jit
    def exp_of_negative(x):  # type: ignore[no-untyped-def]
        k, p = reduced(exp_low if x < exp_low else x, zero)
        return scaled_down(p, k)

    @_jit
    def expm1(x):  # type: ignore[no-untyped-def]
        y = expm1_low if x < expm1_low else x
        k, p = reduced(exp_high if y > exp_high else y, zero)
        s = power_of_2(integer(k - integer(1)))
        return x if abs(x) < expm1_tiny else two * (s * p + (s - half))

    @_jit
    def log_of(k, f):  # type: ignore[no-untyped-def]
        """k ln(2) + log(1 + f)."""
        s = f / (two + f)
        z = s * s
        h = half * f * f
        n = real(k)
        return n * ln2_high - ((h - (s * (h + z * _horner(log_poly, z)) + n * ln2_low)) - f)

    @_jit
    def exponent(x):  # type: ignore[no-untyped-def]
        """k for which x / 2^k lies in [sqrt(1/2), sqrt(2))."""
        return integer(integer(bits(x) - sqrt_half_bits) >> digits)

    @_jit
    def mantissa(x, k):  # type: ignore[no-untyped-def]
        return number(bits(x) - integer(k << digits))

    @_jit
    def log(x):  # type: ignore[no-untyped-def]
        small = x < tiny
        y = x * from_tiny if small else x
        k = exponent(y)
        r = log_of(integer(k - digits) if small else k, mantissa(y, k) - one)
        r = r if x < inf else x
        r = -inf if x == 0 else r
        return nan if x < 0 else r

    @_jit
    def log1p_of_more(x):  # type: ignore[no-untyped-def]
        """log(1 + x) of -1 < x < inf."""
        u = one + x
        k = exponent(u)
        lost = x - (u - one) if x < one else one - (u - x)  # by rounding
        return log_of(k, (mantissa(u, k) - one) + lost * power_of_2(-(k if k < most else most)))

    @_jit
    def log1p(x):  # type: ignore[no-untyped-def]
        y = log1p_of_more(x)
        y = y if x < inf else x
        y = -inf if x == -one else y
        y = nan if x < -one else y
        return x if x == 0 else y

    @_jit
    def tanh(x):  # type: ignore[no-untyped-def]
        """(1 - e) / (1 + e) of e = exp(-2|x|), with the numerator's cancellation kept away from both ends."""
        y = -two * abs(x)
        k, p = reduced(expm1_low if y < expm1_low else y, zero)
        s = power_of_2(k)
        e = s * p + s
        near_0 = y > turn
        q = ((one - s) - s * p if near_0 else two * e) / (one + e)
        return with_sign(q if near_0 else one - q, x)

    @_jit
    def sigmoid(x):  # type: ignore[no-untyped-def]
        e = exp_of_negative(-abs(x))
        return (one if x >= 0 else e) / (one + e)

    @_jit
    def softplus(x):  # type: ignore[no-untyped-def]
        e = exp_of_negative(-abs(x))
        s = e / (two + e)
        z, h = s * s, half * e * e
        return (zero if x < 0 else x) + (e - (h - s * (h + z * _horner(log_poly_1_to_2, z))))  # as in log_of

    @_jit
    def gauss(a, factor):  # type: ignore[no-untyped-def]
        """exp(-factor a^2), of factor 1 or 1/2."""
        b = factor * a
        h = a * b
        k, p = reduced(-h, _fma(a, b, -h))
        return scaled_down(p, k)

    @_jit
    def erfcx(a):  # type: ignore[no-untyped-def]
        """exp(a^2) erfc(a)."""
        t = (a - center) / (a + center)
        return (_horner(erfcx_even, t * t) + t * _horner(erfcx_odd, t * t)) / (one + two * a)

    @_jit
    def erfc_of_positive(a):  # type: ignore[no-untyped-def]
        a = erfc_end if a > erfc_end else a
        return gauss(a, one) * erfcx(a)

    @_jit
    def erf_of_small(x):  # type: ignore[no-untyped-def]
        return x + x * _horner(erf_poly, x * x)

    @_jit
    def erf(x):  # type: ignore[no-untyped-def]
        a = abs(x)
        return erf_of_small(x) if a < one else with_sign(one - erfc_of_positive(a), x)

    @_jit
    def erfc(x):  # type: ignore[no-untyped-def]
        a = abs(x)
        c = erfc_of_positive(a)
        return one - erf_of_small(x) if a < half else two - c if x < 0 else c

    @_jit
    def normal_cdf(x):  # type: ignore[no-untyped-def]
        a = abs(x)
        a = cdf_end if a > cdf_end else a
        r = one / (a + cdf_center)
        t = (a - cdf_center) * r
        c = gauss(a, half) * ((_horner(tail_even, t * t) + t * _horner(tail_odd, t * t)) * r)
        return one - c if x > 0 else c

    @_jit
    def gelu_inner(x):  # type: ignore[no-untyped-def]
        """Each product and the sum with what it has lost by rounding (T. J. Dekker, Numerische Mathematik 18, 1971)."""
        square = x * x
        t = c * square
        t_rest = _fma(c, square, -t) + (c * _fma(x, x, -square) + c_rest * square)
        p = one + t
        of_t = p - one
        p_rest = ((one - (p - of_t)) + (t - of_t)) + t_rest
        v = k * x
        u = v * p
        rest = _fma(v, p, -u) + (v * p_rest + (_fma(k, x, -v) + k_rest * x) * p)
        return u, rest, k * (one + real(3) * t), real(6) * k * c * x

    @_jit
    def normal_pdf(x):  # type: ignore[no-untyped-def]
        a = abs(x)
        return pdf_0 * gauss(cdf_end if a > cdf_end else a, half)

    return SimpleNamespace(
        **{f.__name__: f for f in (exp, exp_of_negative, expm1, log, log1p, tanh, sigmoid, softplus, erf, erfc, gelu_inner, normal_cdf, normal_pdf)}
    )


_BY_WIDTH = {32: _functions(np.float32, np.int32), 64: _functions(np.float64, np.int64)}


def _compiled_too(f: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """In compiled code the function of that name for the type of the argument, from Python ``f`` itself."""

    @overload(f, jit_options={"fastmath": {"contract"}, **_OPTIONS})
    def choose(x):  # type: ignore[no-untyped-def]
        if isinstance(x, numba.types.Float):
            chosen = getattr(_BY_WIDTH[x.bitwidth], f.__name__)
            return lambda x: chosen(x)
        return None

    return f


@_compiled_too
def exp(x: Any) -> Any:
    """e^x."""
    return np.exp(x)


@_compiled_too
def exp_of_negative(x: Any) -> Any:
    """e^x of x <= 0, a little faster. Of larger x it is no number to rely on."""
    return np.exp(x)


@_compiled_too
def expm1(x: Any) -> Any:
    """e^x - 1, accurate near 0."""
    return np.expm1(x)


@_compiled_too
def log(x: Any) -> Any:
    """The natural logarithm: -inf at 0, nan below."""
    return np.log(x)


@_compiled_too
def log1p(x: Any) -> Any:
    """log(1 + x), accurate near 0."""
    return np.log1p(x)


@_compiled_too
def tanh(x: Any) -> Any:
    """The hyperbolic tangent."""
    return np.tanh(x)


@_compiled_too
def sigmoid(x: Any) -> Any:
    """1 / (1 + exp(-x)), accurate where it is tiny."""
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1, e)[()] / (1 + e)


@_compiled_too
def softplus(x: Any) -> Any:
    """log(1 + exp(x)), accurate where it is tiny."""
    return np.logaddexp(x, type(x)(0))


@_compiled_too
def erf(x: Any) -> Any:
    """The error function."""
    return type(x)(math.erf(x))


@_compiled_too
def erfc(x: Any) -> Any:
    """1 - erf(x), accurate where it is tiny."""
    return type(x)(math.erfc(x))


@_compiled_too
def normal_cdf(x: Any) -> Any:
    """erfc(-x / sqrt(2)) / 2, the probability that a standard normal number is below x, accurate where it is tiny."""
    return type(x)(0.5 * math.erfc(-x * math.sqrt(0.5)))


@_compiled_too
def normal_pdf(x: Any) -> Any:
    """exp(-x^2 / 2) / sqrt(2 pi), the density of a standard normal number."""
    return type(x)(np.exp(-0.5 * x * x) / math.sqrt(2 * math.pi))


@_compiled_too
def gelu_inner(x: Any) -> Any:
    """u = sqrt(8/pi) (x + 0.044715 x^3), what its rounding has lost, and its first two derivatives."""
    k, c = GELU_TANH
    return tuple(type(x)(v) for v in (k * x * (1 + c * x * x), 0, k * (1 + 3 * c * x * x), 6 * k * c * x))
