"""What losses have in common (reductions, and predictions and targets that fit), and the losses of single elements that are operations of their own,
because the plain formula would cancel or overflow.

Each gives values and derivatives with relative accuracy also where a confident prediction makes them tiny.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from gpugrad.backend import namespace
from gpugrad.kernels.activations import reusable
from gpugrad.ops import reduce
from gpugrad.ops.activations import slope
from gpugrad.ops.batch import spread
from gpugrad.ops.elementwise import choose, clip, log, log1p, maximum, negative, strong_divide, strong_multiply
from gpugrad.ops.fit import astype, dtype_of, in_float32, is_half, shape_of
from gpugrad.ops.rules import Sample, elementwise, general
from gpugrad.ops.shape import as_array
from gpugrad.tape import is_inexact, plain

REDUCTIONS = ("mean", "sum", "none")


def check_reduction(reduction: str, *others: str) -> None:
    """Raise ValueError unless ``reduction`` is one of mean, sum, none (or of the others)."""
    if not isinstance(reduction, str) or reduction not in (*REDUCTIONS, *others):
        known = ", ".join(repr(r) for r in (*REDUCTIONS[:-1], *others))
        hint = "" if isinstance(reduction, str) else "; pass other options by their names"
        raise ValueError(f"reduction must be {known} or 'none', got {reduction!r:.60}{hint}")


def reduced(loss: Any, reduction: str) -> Any:
    """The mean or sum of all elements, or the elements themselves; "batchmean" is the sum divided by the length of the first axis."""
    if reduction == "batchmean":
        return mean_of(loss, (*shape_of(loss), 1)[0])
    return reduce.mean(loss) if reduction == "mean" else reduce.sum(loss) if reduction == "sum" else loss


def mean_of(losses: Any, count: Any) -> Any:
    """Their sum divided by ``count``, which for 16-bit floats happens in float32: the sum would overflow, and a derivative divided by the number of rows
    underflow, whatever larger number the loss is then multiplied by to prevent just that. 0 / 0 is nan."""
    dtype = dtype_of(losses)
    total = reduce.sum(astype(losses, np.float32 if is_half(dtype) else dtype, copy=False))
    with np.errstate(invalid="ignore", divide="ignore"):
        return astype(total / (count if isinstance(count, int) else reduce.sum(count)), dtype, copy=False)


def pair(name: str, prediction: Any, target: Any) -> tuple[Any, Any]:
    """Prediction and target, of one shape and both floats: integers and booleans become the dtype of the other.

    Raises:
        ValueError: the shapes differ (they do not broadcast: (N, 1) against (N,) would be a mistake).
    """
    x, y = as_array(prediction), as_array(target)
    if x.shape != y.shape:
        raise ValueError(f"{name}: got a target of shape {y.shape}, expected {x.shape}, that of the prediction; reshape one of them")
    if is_inexact(x.dtype) and is_inexact(y.dtype):
        return x, y
    dtype = next((t.dtype for t in (x, y) if is_inexact(t.dtype)), np.float64)
    return astype(x, dtype, copy=False), astype(y, dtype, copy=False)


def check_values(name: str, what: str, x: Any, fits: Callable[[Any], Any], expected: str) -> None:
    """Raise ValueError unless ``fits`` holds for each element. Those on a GPU are not looked at: that would stall it."""
    x = plain(x)
    if namespace(x) is np and not (good := fits(x := np.asarray(x))).all():
        raise ValueError(f"{name}: got {what} {x[~good].flat[0]}, expected {expected}")


# ---------------------------------------------------------------------------------- binary cross entropy


@in_float32
def _bce_with_logits(x: Any, y: Any) -> Any:
    e = np.copysign(x, -1.0)
    out = reusable(e)
    return _linear_part(x, y) + np.log1p(np.exp(e, out=out), out=out)


def _linear_part(x: Any, y: Any) -> Any:
    """max(x, 0) - x y; for an infinite logit 0 on the right side, else inf."""
    with np.errstate(invalid="ignore"):
        z = np.maximum(x, 0) - x * y
        if namespace(z) is np and np.isfinite(np.add.reduce(z, axis=None)):
            return z  # nothing to repair; on a GPU the question would cost a synchronisation
        share = choose(np.greater(x, 0), 1 - y, y)
        return choose(np.isinf(x), choose(np.equal(share, 0), 0, np.abs(x) * share), z)


@in_float32
def _bce_residual(x: Any, y: Any) -> Any:
    e = np.exp(np.copysign(x, -1.0))
    return choose(np.greater_equal(x, 0), (1 - y) - y * e, e * (1 - y) - y) / (1 + e)


bce_residual = elementwise(
    "bce_residual",
    _bce_residual,
    lambda d, _r, x, _y: slope(d, x, act="sigmoid"),
    lambda d, _r, _x, _y: -d,
    doc="``sigmoid(x) - y``, by ``((1 - y) - y e) / (1 + e)`` or ``(e (1 - y) - y) / (1 + e)`` with ``e = exp(-|x|)``, which for y = 0 and 1 do not cancel.",
)
bce_with_logits = elementwise(
    "bce_with_logits",
    _bce_with_logits,
    lambda d, _loss, x, y: d * bce_residual(x, y),
    lambda d, _loss, x, _y: -(d * x),
    doc="``softplus(x) - x y = -(y log sigmoid(x) + (1 - y) log sigmoid(-x))`` of each element, by ``(max(x, 0) - x y) + log1p(exp(-|x|))``.",
)


@in_float32
def _bce(p: Any, y: Any) -> Any:
    with np.errstate(divide="ignore", invalid="ignore"):
        return -(y * np.maximum(np.log(p), -100) + (1 - y) * np.maximum(np.log1p(-p), -100))


def _bce_by_probability(d: Any, _loss: Any, p: Any, y: Any) -> Any:
    least = 2.0**-14 if dtype_of(p) == np.float16 else 1e-12
    return d * ((1 - y) / maximum(1 - p, least) - y / maximum(p, least))


def _bce_by_target(d: Any, _loss: Any, p: Any, _y: Any) -> Any:
    with np.errstate(divide="ignore"):
        return d * (clip(log1p(negative(p)), -100.0, None) - clip(log(p), -100.0, None))


bce = elementwise(
    "bce",
    _bce,
    _bce_by_probability,
    _bce_by_target,
    domain=((0.1, 0.9), (0.0, 1.0)),
    doc="""``-(y log p + (1 - y) log(1 - p))`` of each element. As in PyTorch a logarithm is at least -100; in the derivative ``(1 - y) / (1 - p) - y / p`` a
    denominator is at least 1e-12 (6e-5 in float16), so that p = 0 and p = 1 give large finite numbers. :func:`bce_with_logits` needs no such limits.""",
)

# ---------------------------------------------------------------------------------- Huber's loss


@in_float32
def _huber(x: Any, *, delta: float, unit: float) -> Any:
    c = namespace(x).clip(x, -delta, delta)
    return c / unit * (x - 0.5 * c)


def _huber_slope(d: Any, _y: Any, x: Any, *, delta: float, unit: float) -> Any:
    return d * (clip(x, -delta, delta) / unit)


huber = general(
    "huber",
    _huber,
    [_huber_slope],
    [_huber_slope],
    samples=[Sample((3, 4), delta=3.0, unit=1.0), Sample((3, 4), delta=0.5, unit=0.5, domain=(0.6, 2.0)), Sample((), delta=1.0, unit=1.0, domain=(-3.0, -1.2))],
    batch=spread,
    doc="""``x^2 / 2`` up to ``|x| = delta``, beyond it ``delta (|x| - delta / 2)``, divided by ``unit``: with c = x clipped to [-delta, delta] it is
    ``c (x - c / 2)`` and its derivative ``c``, in which no square overflows.""",
)

# ---------------------------------------------------------------------------------- Kullback and Leibler's divergence


@in_float32
def _kl(x: Any, t: Any) -> Any:
    with np.errstate(divide="ignore", invalid="ignore"):
        return choose(np.equal(t, 0) & ~np.isnan(x), 0, t * (np.log(t) - x))


@in_float32
def _log_ratio(x: Any, t: Any) -> Any:
    with np.errstate(divide="ignore", invalid="ignore"):
        return choose(np.equal(t, 0) & np.equal(x, -np.inf), 0, np.log(t) - x)


_SHAPES = (((3, 4), (3, 4)), ((3, 1), (4,)), ((), ()))
_KL_SAMPLES = [Sample(*shapes, domain=((-2.0, 2.0), (0.3, 3.0))) for shapes in _SHAPES]
kl = elementwise(
    "kl_div",
    _kl,
    lambda d, _y, _x, t: -(d * t),
    lambda d, _y, x, t: strong_multiply(d, log_ratio(x, t) + 1),
    samples=_KL_SAMPLES,
    doc="``t (log t - x)`` of each element, 0 where t is 0 (unless x is nan).",
)
log_ratio = elementwise(
    "log_ratio",
    _log_ratio,
    lambda d, _y, _x, _t: -d,
    lambda d, _y, _x, t: strong_divide(d, t),
    samples=_KL_SAMPLES,
    doc="``log t - x`` of each element: log(t / q) of a probability t and a logarithm x = log q. Where both probabilities are 0 it is 0.",
)
