"""Activation functions, value, slope and curvature, each in one pass over memory.

    y = act(x)        d = g act'(x)        (c act'(x), c g act''(x)), or the second of them alone

``act`` is a name of :data:`CODES`, ``a`` and ``b`` its parameters:

    relu              max(x, 0)
    tanh              tanh(x); slope and curvature are given y in the place of x, and the curvature is the slope's derivative by y
    sigmoid           1 / (1 + exp(-x))
    silu              x sigmoid(x)
    gelu              x Phi(x), with the normal distribution function Phi
    gelu_tanh         x sigmoid(u), u = k x (1 + c x^2)
    leaky_relu        x where positive, else a x
    elu               b x where positive, else a b (exp(x) - 1)
    softplus          log(1 + exp(a x)) / a; with a = -1 it is log(sigmoid(x))
    hardtanh          x limited to [a, b]

Two of them (tanh and relu) tell their slope by their value, so that one array is enough. Of the others the slope is taken from x: seen from the value of a
sigmoid near 1, say, it has lost its digits.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from gpugrad.backend import address, namespace
from gpugrad.cuda.loader import Source
from gpugrad.kernels.kernel import Kernel
from gpugrad.ops.erf import erfc
from gpugrad.ops.fit import is_half

SOURCE = Source("activations.cu", "activations.cuh")

CURVED = ("tanh", "sigmoid", "silu", "gelu", "gelu_tanh", "elu", "softplus")
FLAT = ("relu", "leaky_relu", "hardtanh")  # made of straight lines
CODES = {act: code for code, act in enumerate(("none", *CURVED, *FLAT))}  # as in activations.cuh

GELU_TANH = math.sqrt(8 / math.pi), 0.044715  # k and c
GELU_TANH_RESTS = -9.96930880911092e-17, 2.1960211427085595e-18  # what a float64 has no digits for
FAR = {"silu": 1000.0, "gelu": 40.0, "gelu_tanh": 30.0}  # where the slope has become 0 or 1, also in float64; farther out it would be inf * 0


# ---------------------------------------------------------------------------------- references


def reusable(x: Any) -> Any:
    """``x``, to be passed as ``out=``, or None where it is a scalar."""
    return x if x.ndim else None


def _limited(x: Any, act: str) -> Any:
    return x if x.dtype.kind == "c" else np.clip(x, -FAR[act], FAR[act])


def _sigmoid(x: Any) -> Any:
    y = np.multiply(x, -1.0)
    with np.errstate(over="ignore"):  # 1 / (1 + inf) is the 0 that is wanted
        y = np.exp(y, out=reusable(y))
    return np.divide(1.0, np.add(y, 1.0, out=reusable(y)), out=reusable(y))


def _sigmoid_slope(x: Any) -> Any:
    """``e / (1 + e)^2`` with ``e = exp(-|x|)``: exact in both tails."""
    if x.dtype.kind == "c":
        return _sigmoid(x) * _sigmoid(-x)
    y = np.copysign(x, -1.0)
    y = np.exp(y, out=reusable(y))
    return np.divide(y, np.square(y + 1.0), out=reusable(y))


def _sigmoid_curvature(x: Any) -> Any:
    return -_sigmoid_slope(x) * np.tanh(0.5 * x)


def _softplus(x: Any, a: float) -> Any:
    with np.errstate(over="ignore"):
        t = a * x
    y = np.copysign(t, -1.0)
    y = np.log1p(np.exp(y, out=reusable(y)), out=reusable(y))
    return np.divide(y, a, out=reusable(y)) + _where_positive(x, t)


def _normal_cdf(x: Any) -> Any:
    """``erfc(-x / sqrt(2)) / 2``, in float64 but for the result. Far out a rounded argument would cost digits: what it is off by, r, is made up for."""
    z = np.clip(x.astype(np.float64), -40, 40)
    t = z * -math.sqrt(0.5)
    z1 = z * 134217729.0
    z1 = z1 - (z1 - z)  # the first half of the digits (T. J. Dekker, Numerische Mathematik 18, 1971)
    z2 = z - z1
    r = ((-_HIGH * z1 - t) - _HIGH * z2 - _LOW * z1) - _LOW * z2 - _REST * z
    return (0.5 * _erfc(t) * (1 - 2 * np.maximum(t, 0) * r)).astype(x.dtype)


_of_arrays: Any = erfc
_erfc = _of_arrays.op.f  # the tape sees nothing of it
_HIGH = 0.7071067690849304  # the square root of 1/2 is the sum of the three; its product with half of the digits is exact
_LOW = math.sqrt(0.5) - _HIGH
_REST = -4.833646656726457e-17


def _normal_pdf(x: Any) -> Any:
    """With the square of x as the sum of an exact part and a small rest."""
    head = np.trunc(16 * x) / 16
    return np.exp(-0.5 * head * head) * np.exp(0.5 * (head - x) * (head + x)) * (1 / math.sqrt(2 * math.pi))


class _Inner(NamedTuple):
    """sigmoid(u), its slope, tanh(u / 2), and the first two derivatives of u, in gelu_tanh."""

    value: Any
    slope: Any
    tanh: Any
    u1: Any
    u2: Any


def _inner(x: Any) -> _Inner:
    """Far out, what u loses by rounding counts: it is computed with more digits, where there are such numbers."""
    k, c = GELU_TANH
    wide = x if x.dtype.kind == "c" else x.astype(np.longdouble if x.itemsize == 8 and namespace(x) is np else np.float64)
    exact_k, exact_c = (wide.dtype.type(v) + rest for v, rest in zip(GELU_TANH, GELU_TANH_RESTS, strict=True))
    t = wide * wide * exact_c
    exact = wide * (1 + t) * exact_k
    u = exact.astype(x.dtype)
    rest, t, slope, h = (exact - u).astype(x.dtype), t.astype(x.dtype), _sigmoid_slope(u), np.tanh(0.5 * u)
    return _Inner(_sigmoid(u) + rest * slope, slope - slope * rest * h, h, k * (1 + 3 * t), (6 * k * c) * x)


def _silu_slope(x: Any, _a: float, _b: float) -> Any:
    return _sigmoid(x) + _limited(x, "silu") * _sigmoid_slope(x)


def _silu_curvature(x: Any, _a: float, _b: float) -> Any:
    return _sigmoid_slope(x) * (2 - _limited(x, "silu") * np.tanh(0.5 * x))


def _gelu_slope(x: Any, _a: float, _b: float) -> Any:
    w = _limited(x, "gelu")
    return _normal_cdf(w) + w * _normal_pdf(w)


def _gelu_curvature(x: Any, _a: float, _b: float) -> Any:
    w = _limited(x, "gelu")
    return _normal_pdf(w) * (2 - w * w)


def _gelu_tanh(x: Any, _a: float, _b: float) -> Any:
    return x * _inner(_limited(x, "gelu_tanh")).value


def _gelu_tanh_slope(x: Any, _a: float, _b: float) -> Any:
    w = _limited(x, "gelu_tanh")
    i = _inner(w)
    return i.value + w * i.slope * i.u1


def _gelu_tanh_curvature(x: Any, _a: float, _b: float) -> Any:
    w = _limited(x, "gelu_tanh")
    i = _inner(w)
    return i.slope * (2 * i.u1 + w * (i.u2 - i.u1 * i.u1 * i.tanh))


def _elu(x: Any, a: float, b: float) -> Any:
    return np.where(np.greater(x, 0), b * x, (a * b) * np.expm1(np.where(np.greater(x, 0), 0, x)))  # the inner choice keeps exp from overflowing


def _elu_slope(x: Any, a: float, b: float) -> Any:
    return np.where(np.greater(x, 0), b, _elu_curvature(x, a, b))


def _elu_curvature(x: Any, a: float, b: float) -> Any:
    return np.where(np.greater(x, 0), 0, (a * b) * np.exp(np.where(np.greater(x, 0), 0, x)))


def _where_positive(d: Any, y: Any) -> Any:
    """``d`` where ``y`` is positive (or nan), else 0.

    Where a mask is as good as random, ``np.where`` waits for mispredicted branches: and-ing the bits takes a tenth of its time.
    """
    if type(d) is not np.ndarray or type(y) is not np.ndarray or d.dtype.char not in "fd" or not (d.dtype.isnative and d.ndim and y.ndim):
        return np.where(np.less_equal(y, 0), 0, d)
    mask = np.less_equal(y, 0).view(np.int8)
    mask -= 1  # all ones where y > 0 or y is nan
    return (d.view(f"i{d.itemsize}") & mask).view(d.dtype)


def _outside(x: Any, a: float, b: float) -> Any:
    return np.less_equal(x, a) | np.greater_equal(x, b)


class Formula(NamedTuple):
    """Of x, a and b: the value, the slope and the curvature. Of what is made of straight lines the slope is given the cotangent too, of which a 0 stops all."""

    value: Callable[..., Any]
    slope: Callable[..., Any]
    curvature: Callable[..., Any] | None = None


FORMULAS = {
    "none": Formula(lambda x, a, b: x, lambda g, x, a, b: g),
    "relu": Formula(lambda x, a, b: np.maximum(x, 0), lambda g, x, a, b: _where_positive(g, x)),
    "tanh": Formula(lambda x, a, b: np.tanh(x), lambda y, a, b: (1 - y) * (1 + y), lambda y, a, b: -2 * y),
    "sigmoid": Formula(lambda x, a, b: _sigmoid(x), lambda x, a, b: _sigmoid_slope(x), lambda x, a, b: _sigmoid_curvature(x)),
    "silu": Formula(lambda x, a, b: x * _sigmoid(x), _silu_slope, _silu_curvature),
    "gelu": Formula(lambda x, a, b: x * _normal_cdf(x), _gelu_slope, _gelu_curvature),
    "gelu_tanh": Formula(_gelu_tanh, _gelu_tanh_slope, _gelu_tanh_curvature),
    "leaky_relu": Formula(lambda x, a, b: np.where(np.greater(x, 0), x, a * x), lambda g, x, a, b: np.where(np.greater(x, 0), g, a * g)),
    "elu": Formula(_elu, _elu_slope, _elu_curvature),
    "softplus": Formula(lambda x, a, b: _softplus(x, a), lambda x, a, b: _sigmoid(a * x), lambda x, a, b: a * _sigmoid_slope(a * x)),
    "hardtanh": Formula(
        lambda x, a, b: np.where(np.less_equal(x, a), a, np.where(np.greater_equal(x, b), b, x)), lambda g, x, a, b: np.where(_outside(x, a, b), 0, g)
    ),
}


def value(x: Any, *, act: str, a: float = 0.0, b: float = 0.0) -> Any:
    """``act(x)``."""
    if act == "gelu" and x.dtype.kind == "c":
        raise TypeError(f"gelu: got {x.dtype}, expected real floats")
    if is_half(x.dtype):
        return value(x.astype(np.float32), act=act, a=a, b=b).astype(x.dtype)
    return FORMULAS[act].value(x, a, b)


def slope(g: Any, x: Any, *, act: str, a: float = 0.0, b: float = 0.0) -> Any:
    """``g act'(x)``, where x is the value of tanh and may be that of relu."""
    if is_half(x.dtype):
        return slope(_wide(g), _wide(x), act=act, a=a, b=b).astype(x.dtype)
    return g * FORMULAS[act].slope(x, a, b) if act in CURVED else FORMULAS[act].slope(g, x, a, b)


def bend(c: Any, g: Any, x: Any, *, act: str, a: float = 0.0, b: float = 0.0, both: bool = True) -> tuple[Any, Any]:
    """``c act'(x)``, or None unless ``both`` are asked for, and ``c g act''(x)``, for the activations that are curved."""
    if is_half(x.dtype):
        through, bent = bend(_wide(c), _wide(g), _wide(x), act=act, a=a, b=b, both=both)
        return through if through is None else through.astype(x.dtype), bent.astype(x.dtype)
    curvature = FORMULAS[act].curvature
    assert curvature is not None
    return slope(c, x, act=act, a=a, b=b) if both else None, c * g * curvature(x, a, b)


def _wide(x: Any) -> Any:
    return x.astype(np.float32)


# ---------------------------------------------------------------------------------- launches


def as_in_memory(*arrays: Any) -> tuple[tuple[Any, ...], bool]:
    """The arrays row by row, without a copy where all lie row by row or all column by column; and whether they have been transposed for that."""
    if all(x.flags.c_contiguous for x in arrays):
        return arrays, False
    if all(x.flags.f_contiguous for x in arrays):
        return tuple([x.T for x in arrays]), True
    return tuple([namespace(x).ascontiguousarray(x) for x in arrays]), False


def alike(*arrays: Any) -> bool:
    """Whether they have one shape and one dtype, which is what the twins are written for."""
    x = arrays[-1]
    return all(y.shape == x.shape and y.dtype == x.dtype for y in arrays)


def slope_of_unlike(kernel: Callable[..., Any], g: Any, x: Any, *, act: str, a: float, b: float) -> Any:
    """``g act'(x)`` of arrays that are not alike, by the kernel: beside a larger g the slope of each x is computed once, beside a larger x g is laid out in full."""
    if g.dtype != x.dtype:
        return slope(g, x, act=act, a=a, b=b)
    xp, shape = namespace(x), np.broadcast_shapes(g.shape, x.shape)
    if x.shape != shape and act in CURVED:
        return g * kernel(xp.ones_like(x), x, act=act, a=a, b=b)
    return kernel(xp.broadcast_to(g, shape), xp.broadcast_to(x, shape), act=act, a=a, b=b)


def bend_of_unlike(
    kernel: Callable[..., Any], slope_kernel: Callable[..., Any], c: Any, g: Any, x: Any, *, act: str, a: float, b: float, both: bool
) -> tuple[Any, Any]:
    """The same of bend, with the larger of c and g multiplied with last."""
    if not c.dtype == g.dtype == x.dtype:
        return bend(c, g, x, act=act, a=a, b=b, both=both)
    xp, shape = namespace(x), np.broadcast_shapes(c.shape, g.shape, x.shape)
    if x.shape == shape:
        return kernel(xp.broadcast_to(c, shape), xp.broadcast_to(g, shape), x, act=act, a=a, b=b, both=both)
    ones = xp.ones_like(x)
    small, large = sorted((c, g), key=lambda array: array.size)
    bent = large * (small * kernel(ones, ones, x, act=act, a=a, b=b, both=False)[1])
    return slope_kernel(c, x, act=act, a=a, b=b) if both else None, bent


def _launch(entry: str, arrays: tuple[Any, ...], wanted: tuple[bool, ...], act: str, a: float, b: float) -> list[Any]:
    """The results of an entry point that takes the arrays and then its results, null where one is not wanted; 16 bytes for a thread where all are aligned to that."""
    arrays, transposed = as_in_memory(*arrays)
    x = arrays[-1]
    ys = [namespace(x).empty(x.shape, x.dtype) if w else None for w in wanted]
    width = 16 // x.itemsize if not any(y is not None and address(y) % 16 for y in (*arrays, *ys)) else 1
    SOURCE.launch(entry, x.dtype, -(-x.size // (256 * width)), 256, *arrays, *ys, x.size, width, CODES[act], float(a), float(b))
    return [y if y is None or not transposed else y.T for y in ys]


def _cuda_value(x: Any, *, act: str, a: float = 0.0, b: float = 0.0) -> Any:
    return _launch("activation", (x,), (True,), act, a, b)[0]


def _cuda_slope(g: Any, x: Any, *, act: str, a: float = 0.0, b: float = 0.0) -> Any:
    return _launch("activation_slope", (g, x), (True,), act, a, b)[0] if alike(g, x) else slope_of_unlike(_cuda_slope, g, x, act=act, a=a, b=b)


def _cuda_bend(c: Any, g: Any, x: Any, *, act: str, a: float = 0.0, b: float = 0.0, both: bool = True) -> tuple[Any, Any]:
    if not alike(c, g, x):
        return bend_of_unlike(_cuda_bend, _cuda_slope, c, g, x, act=act, a=a, b=b, both=both)
    through, bent = _launch("activation_bend", (c, g, x), (both, True), act, a, b)
    return through, bent


# ---------------------------------------------------------------------------------- kernels

PARAMETERS: dict[str, tuple[float, float]] = {"leaky_relu": (0.1, 0.0), "elu": (1.7, 1.1), "softplus": (2.0, 0.0), "hardtanh": (-0.5, 2.0)}  # to test them with
_SHAPES: tuple[tuple[int, ...], ...] = ((), (1,), (0,), (7, 43), (2, 3, 5), (2053,))
Samples = list[tuple[tuple[Any, ...], dict[str, Any]]]


def _options(act: str) -> dict[str, Any]:
    a, b = PARAMETERS.get(act, (0.0, 0.0))
    return {"act": act, "a": a, "b": b}


def _normal(rng: np.random.Generator, shape: tuple[int, ...], dtype: Any) -> Any:
    return np.asarray(rng.normal(0, 2, shape)).astype(dtype)


def _samples(arguments: int, acts: tuple[str, ...], **params: Any) -> Callable[[np.random.Generator, Any], Samples]:
    def of(rng: np.random.Generator, dtype: Any) -> Samples:
        """The slope of tanh is taken from values of tanh."""
        found: Samples = []
        for act in acts:
            for shape in _SHAPES:
                *others, x = (_normal(rng, shape, dtype) for _ in range(arguments))
                x = np.tanh(x) if act == "tanh" and others else x
                found.append(((*others, np.asarray(x)), _options(act) | params))
        return found

    return of


def _bend_samples(rng: np.random.Generator, dtype: Any) -> Samples:
    return [*_samples(3, CURVED, both=True)(rng, dtype), *_samples(3, CURVED, both=False)(rng, dtype)]


activation = Kernel("activation", value, cpu="activations_cpu:activation", cuda=_cuda_value, samples=_samples(1, CURVED + FLAT), at_least=256)
activation_slope = Kernel("activation_slope", slope, cpu="activations_cpu:activation_slope", cuda=_cuda_slope, samples=_samples(2, CURVED + FLAT), at_least=256)
activation_bend = Kernel("activation_bend", bend, cpu="activations_cpu:activation_bend", cuda=_cuda_bend, samples=_bend_samples, at_least=256)
