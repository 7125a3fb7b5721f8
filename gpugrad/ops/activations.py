"""Activation functions: each is one kernel, its derivative another, and its second derivative a third (:mod:`gpugrad.kernels.activations`).

Kinks: relu'(0) = 0; leaky_relu, relu6 and hardtanh have on a kink the slope of the flatter side, elu that of its negative side. nan comes out as nan.

Tails: nothing here is written as ``1 - sigmoid(x)``, so values and derivatives keep their relative accuracy where they are tiny.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gpugrad import backend
from gpugrad.kernels import activations as kernels
from gpugrad.kernels import masks
from gpugrad.ops.batch import laid_out, spread
from gpugrad.ops.elementwise import clip, exp, greater, greater_equal, less_equal, multiply, of_array, tanh, where
from gpugrad.ops.fit import dtype_of, total_of, zeros_like
from gpugrad.ops.rules import Sample, elementwise, general
from gpugrad.tape import Op, Shared, is_inexact

__all__ = [
    "elu", "gelu", "hardtanh", "leaky_relu", "log_sigmoid", "logsigmoid", "relu", "relu6", "selu", "sigmoid", "silu", "softplus",
]  # fmt: skip


# ---------------------------------------------------------------------------------- the operations that all share


def _value(x: Any, *, act: str, a: float = 0.0, b: float = 0.0) -> Any:
    """The kernel, for numbers and lists too. Integers are taken for float64, but by relu, which leaves them what they are."""
    if not backend.is_array(x):
        return _value(np.asarray(x), act=act, a=a, b=b)[()]
    if not is_inexact(x.dtype):
        backend.check_numbers(act, x)
        if act == "relu":
            return np.maximum(x, 0)
        x = x.astype(np.float64)
    return kernels.activation(x, act=act, a=a, b=b)


def _of_arrays(kernel: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *args, **params: kernel(*[v if backend.is_array(v) else np.asarray(v) for v in args], **params)


def slope(d: Any, x: Any, *, act: str, a: float = 0.0, b: float = 0.0) -> Any:
    """``d act'(x)``, what the derivative of an activation does to a cotangent or tangent; for tanh x is its value, and for relu it may be."""
    return where_positive(d, x) if act == "relu" else (_slope if act in kernels.CURVED else _flat_slope)(d, x, act=act, a=a, b=b)


def slope_vjp(needs: Sequence[bool], c: Any, _y: Any, d: Any, x: Any, *, act: str, a: float = 0.0, b: float = 0.0) -> list[Any]:
    """The rule of slope: one pass over memory where both cotangents are wanted."""
    if act not in kernels.CURVED:
        return [slope(c, x, act=act, a=a, b=b) if needs[0] else None, None]
    if needs[0] and needs[1]:
        return list(_bend(c, d, x, act=act, a=a, b=b))
    return [_slope(c, x, act=act, a=a, b=b) if needs[0] else None, _curvature(c, d, x, act=act, a=a, b=b) if needs[1] else None]


def slope_jvp(tangents: Sequence[Any], _y: Any, d: Any, x: Any, *, act: str, a: float = 0.0, b: float = 0.0) -> Any:
    """The other rule of slope."""
    t, t_x = tangents
    through = None if t is None else slope(t, x, act=act, a=a, b=b)
    bent = None if t_x is None or act not in kernels.CURVED else _curvature(t_x, d, x, act=act, a=a, b=b)
    return zeros_like(d) if through is bent is None else total_of(through, bent)


def _curvature_vjp(needs: Sequence[bool], u: Any, _y: Any, c: Any, d: Any, x: Any, *, act: str, a: float, b: float) -> list[Any]:
    return [
        _curvature(u, d, x, act=act, a=a, b=b) if needs[0] else None,
        _curvature(u, c, x, act=act, a=a, b=b) if needs[1] else None,
        u * c * d * _third(x, act, a, b) if needs[2] else None,
    ]


def _curvature_jvp(tangents: Sequence[Any], _y: Any, c: Any, d: Any, x: Any, *, act: str, a: float, b: float) -> Any:
    t_c, t_d, t_x = tangents
    return total_of(
        None if t_c is None else _curvature(t_c, d, x, act=act, a=a, b=b),
        None if t_d is None else _curvature(c, t_d, x, act=act, a=a, b=b),
        None if t_x is None else t_x * c * d * _third(x, act, a, b),
    )


def _bend_vjp(needs: Sequence[bool], cotangents: Any, _y: Any, c: Any, d: Any, x: Any, **params: Any) -> list[Any]:
    u, v = cotangents
    by_c, by_x = (None, None) if u is None else slope_vjp((needs[0], needs[2]), u, None, c, x, **params)
    bent = [None] * 3 if v is None else _curvature_vjp(needs, v, None, c, d, x, **params)
    return [total_of(by_c, bent[0]), bent[1], total_of(by_x, bent[2])]


def _bend_jvp(tangents: Sequence[Any], _y: Any, c: Any, d: Any, x: Any, **params: Any) -> list[Any]:
    t_c, _, t_x = tangents
    through = None if t_c is t_x is None else slope_jvp((t_c, t_x), None, c, x, **params)
    return [through, _curvature_jvp(tangents, None, c, d, x, **params)]


def _batched_bend(op: Op, size: int, batched: Sequence[bool], args: Sequence[Any], params: dict[str, Any]) -> Any:
    """What an unbatched c comes to is the same for all examples: they differ in the tangent alone."""
    if batched[0] or batched[2]:
        return spread(op, size, batched, args, params)
    c, _, x = args
    return Shared(_slope(c, x, **params)), spread(_curvature, size, batched, args, params)


def _third(x: Any, act: str, a: float, b: float) -> Any:
    """The third derivative of act at x, or for tanh the second derivative of its slope by its value, in plain operations."""
    if act == "tanh":
        return zeros_like(x) - 2.0
    if act == "elu":
        return _curvature(zeros_like(x) + 1.0, zeros_like(x) + 1.0, x, act=act, a=a, b=b)
    if act == "softplus":
        return -(a * a) * _sigmoid_slope(a * x) * tanh(0.5 * a * x)
    if act == "gelu":
        x = _near(x, act)
        return exp(-0.5 * x * x) * (1 / math.sqrt(2 * math.pi)) * (x * (x * x - 4.0))
    if act == "gelu_tanh":
        k, c = kernels.GELU_TANH
        x = _near(x, act)
        t = c * (x * x)
        u, u1, u2, u3 = k * x * (1.0 + t), k * (1.0 + 3.0 * t), (6 * k * c) * x, 6 * k * c
        s, h = _sigmoid_slope(u), tanh(0.5 * u)  # sigmoid(u) has the derivatives s, -s h and s (h^2 - 2 s)
        return s * (3.0 * (u2 - h * u1 * u1) + x * (u1 * u1 * u1 * (h * h - 2.0 * s) - 3.0 * h * u1 * u2 + u3))
    s, h = _sigmoid_slope(x), tanh(0.5 * x)
    bent = s * (h * h - 2.0 * s)
    return bent if act == "sigmoid" else _near(x, act) * bent - 3.0 * s * h


def _near(x: Any, act: str) -> Any:
    return x if dtype_of(x).kind == "c" else clip(x, -kernels.FAR[act], kernels.FAR[act])


def _sigmoid_slope(x: Any) -> Any:
    return _slope(zeros_like(x) + 1.0, x, act="sigmoid", a=0.0, b=0.0)


def _samples(arguments: int, acts: Sequence[str]) -> list[Sample]:
    """x stands last, away from kinks."""
    found = []
    for act in acts:
        a, b = kernels.PARAMETERS.get(act, (0.0, 0.0))
        far = (-0.9, 0.9) if act == "tanh" else (0.1, 1.9) if act in kernels.FLAT else (-3.0, 3.0)
        found.append(Sample(*[(3, 4)] * arguments, domain=(*[(-2.0, 2.0)] * (arguments - 1), far), act=act, a=a, b=b))
    return found


_slope = general(
    "activation_slope",
    _of_arrays(kernels.activation_slope),
    slope_vjp,
    slope_jvp,
    batch=spread,
    samples=_samples(2, kernels.CURVED),
    doc="``d act'(x)``; for tanh x is its value.",
)
_flat_slope = general(
    "activation_flat_slope",
    _of_arrays(kernels.activation_slope),
    [lambda c, _y, _d, x, **params: _flat_slope(c, x, **params), lambda c, _y, _d, _x, **params: zeros_like(c)],
    [lambda t, _y, _d, x, **params: _flat_slope(t, x, **params), lambda t, _y, _d, _x, **params: zeros_like(t)],
    batch=spread,
    samples=_samples(2, kernels.FLAT[1:]),
    doc="``d act'(x)`` of activations that are made of straight lines: d need not be kept.",
)
_curvature = general(
    "activation_curvature",
    _of_arrays(lambda c, d, x, **params: kernels.activation_bend(c, d, x, both=False, **params)[1]),
    _curvature_vjp,
    _curvature_jvp,
    batch=spread,
    samples=_samples(3, kernels.CURVED),
    doc="``c d act''(x)``; for tanh x is its value, and the curvature the derivative of its slope by that.",
)
_bend = general(
    "activation_bend",
    _of_arrays(kernels.activation_bend),
    _bend_vjp,
    _bend_jvp,
    batch=_batched_bend,
    samples=_samples(3, kernels.CURVED),
    doc="``c act'(x)`` and ``c d act''(x)``, the two cotangents of slope.",
)


def _activation(name: str, act: str, doc: str, a: float = 0.0, b: float = 0.0) -> Any:
    """An activation without parameters, or of these."""
    return elementwise(name, lambda x: _value(x, act=act, a=a, b=b), lambda d, _y, x: slope(d, x, act=act, a=a, b=b), doc=doc)


def _parameterised(act: str) -> Any:
    """An activation with the parameters ``a`` and ``b``, numbers."""

    def rule(d: Any, _y: Any, x: Any, *, a: float, b: float = 0.0) -> Any:
        return slope(d, x, act=act, a=a, b=b)

    a, b = kernels.PARAMETERS[act]
    samples = [Sample((3, 4), domain=(0.1, 1.9), a=a, b=b), Sample((3, 4), domain=(-2.0, -0.6), a=a, b=b), Sample((), a=a, b=b)]
    return general(act, lambda x, *, a, b=0.0: _value(x, act=act, a=a, b=b), [rule], [rule], batch=spread, samples=samples)


def _is_number(*parameters: Any) -> bool:
    """Where they are not, but arrays that broadcast, or tracked, an activation is computed one operation after the other."""
    return all(isinstance(p, (int, float, np.integer, np.floating)) for p in parameters)


# ---------------------------------------------------------------------------------- relu and its kin


where_positive = elementwise(
    "where_positive",
    of_array(masks.positive),
    lambda c, _out, _d, y: where_positive(c, y),
    lambda c, _out, _d, _y: zeros_like(c),
    batch=laid_out,
    samples=[Sample((3, 4), (3, 4), domain=(0.1, 2.0)), Sample((3, 4), (4,), domain=((-2.0, 2.0), (-2.0, -0.1))), Sample((), (), domain=(0.1, 2.0))],
    doc="``d`` where ``y`` is positive (or nan), else 0: what the derivative of relu does to a cotangent or tangent.",
)
relu = elementwise(
    "relu",
    lambda x: _value(x, act="relu"),
    lambda d, y, _x: where_positive(d, y),
    samples=[Sample((3, 4), domain=(0.1, 2.0)), Sample((3, 4), domain=(-2.0, -0.1)), Sample(())],
    doc="``max(x, 0)`` of each element; the derivative at 0 is 0.",
)


_leaky_relu, _elu, _hardtanh, _softplus = map(_parameterised, ("leaky_relu", "elu", "hardtanh", "softplus"))


def leaky_relu(x: Any, negative_slope: Any = 0.01) -> Any:
    """``x`` where positive, else ``negative_slope * x``. The slope may be an array, which broadcasts, and tracked (PReLU)."""
    if _is_number(negative_slope):
        return _leaky_relu(x, a=float(negative_slope))
    return where(greater(x, 0), x, multiply(x, negative_slope))


def elu(x: Any, alpha: Any = 1.0) -> Any:
    """``x`` where positive, else ``alpha * (exp(x) - 1)``. Clevert et al., "Fast and accurate deep network learning by exponential linear units" (2016)."""
    return _elu(x, a=float(alpha), b=1.0) if _is_number(alpha) else where(greater(x, 0), x, alpha * elu(x))


def selu(x: Any) -> Any:
    """``1.0507 elu(x, 1.6733)``. Klambauer et al., "Self-normalizing neural networks" (2017), equation 2."""
    return _elu(x, a=1.6732632423543772848, b=1.0507009873554804934)


def hardtanh(x: Any, min_val: Any = -1.0, max_val: Any = 1.0) -> Any:
    """``x`` limited to [min_val, max_val]; on the bounds the derivative is 0 (that of :func:`clip` is 1)."""
    if _is_number(min_val, max_val):
        return _hardtanh(x, a=float(min_val), b=float(max_val))
    return where(less_equal(x, min_val), min_val, where(greater_equal(x, max_val), max_val, x))


def relu6(x: Any) -> Any:
    """``min(max(x, 0), 6)``; the derivative at 0 and at 6 is 0."""
    return hardtanh(x, 0.0, 6.0)


# ---------------------------------------------------------------------------------- the logistic function and its kin

sigmoid = _activation("sigmoid", "sigmoid", "``1 / (1 + exp(-x))`` of each element.")
log_sigmoid = logsigmoid = _activation("log_sigmoid", "softplus", "``log(sigmoid(x)) = -softplus(-x)`` of each element.", a=-1.0)


def softplus(x: Any, beta: Any = 1.0) -> Any:
    """``log(1 + exp(beta x)) / beta`` of each element, by ``max(x, 0) + log1p(exp(-|beta x|)) / beta``."""
    return _softplus(x, a=float(beta)) if _is_number(beta) else softplus(multiply(x, beta)) / beta


silu = _activation("silu", "silu", '``x sigmoid(x)``, also known as swish. Elfwing et al., "Sigmoid-weighted linear units" (2018).')
_gelu = _activation("gelu", "gelu", "``x Phi(x)``.")
_gelu_tanh = _activation("gelu_tanh", "gelu_tanh", "``x sigmoid(u)``, ``u = sqrt(8/pi) (x + 0.044715 x^3)``.")


def check_approximate(approximate: str) -> None:
    """Raise ValueError unless it is one of gelu's."""
    if approximate not in ("none", "tanh"):
        raise ValueError(f"gelu: approximate must be 'none' or 'tanh', got {approximate!r}")


def gelu(x: Any, approximate: str = "none") -> Any:
    """``x Phi(x)`` with the normal distribution function Phi. Hendrycks and Gimpel, "Gaussian error linear units" (2016).

    ``approximate="tanh"`` takes ``Phi(x) = (1 + tanh(z)) / 2``, ``z = sqrt(2/pi) (x + 0.044715 x^3)``, which is ``sigmoid(2 z)``.
    """
    check_approximate(approximate)
    return _gelu(x) if approximate == "none" else _gelu_tanh(x)
