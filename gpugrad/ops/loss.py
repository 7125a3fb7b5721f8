"""Losses that are operations of their own, because the plain formula would cancel or take more passes over the data.

Each gives values and derivatives with relative accuracy also where a confident prediction makes them tiny.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gpugrad.backend import mixed_devices, namespace
from gpugrad.kernels.cross_entropy import cross_entropy
from gpugrad.ops import reduce
from gpugrad.ops.activations import log_softmax, reusable, sigmoid_slope, softmax
from gpugrad.ops.elementwise import choose, clip, log, log1p, maximum, multiply, negative, not_equal, strong_divide, strong_multiply, where
from gpugrad.ops.fit import astype, dtype_of, is_half, is_unit, shape_of
from gpugrad.ops.index import take, take_along_axis
from gpugrad.ops.rules import Sample, elementwise, general
from gpugrad.ops.shape import expand_dims, moveaxis, reshape
from gpugrad.tape import Tensor, is_inexact, plain

REDUCTIONS = ("mean", "sum", "none")


def check_reduction(reduction: str) -> None:
    """Raise ValueError unless ``reduction`` is one of mean, sum, none."""
    if reduction not in REDUCTIONS:
        raise ValueError(f"reduction must be 'mean', 'sum' or 'none', got {reduction!r}")


def reduced(loss: Any, reduction: str) -> Any:
    """The mean or sum of all elements, or the elements themselves."""
    check_reduction(reduction)
    return reduce.mean(loss) if reduction == "mean" else reduce.sum(loss) if reduction == "sum" else loss


# ---------------------------------------------------------------------------------- softmax cross entropy
#
# Of logits x, q the target of each row (the label or probabilities, smoothed and weighted) and p = softmax(x) the kernel gives the loss and, in the same
# pass, its gradient, the residual: scale ((sum q) p - q), where the scale is 1 or that of the mean. So the loss's rule is a product with what is there
# already. The residual is an output with rules of its own, so that there are derivatives of any order.


def _fused(x: Any, labels: Any, probabilities: Any, *, weight: Any, **options: Any) -> Any:
    weight = _on_device_of(x, weight)
    for other in (labels, probabilities, weight):
        if other is not None and namespace(other) is not namespace(x):
            raise mixed_devices((x, labels, probabilities, weight))  # type: ignore[misc]
    if x.dtype.kind == "c":
        raise TypeError(f"cross entropy: got logits of {x.dtype}, expected real numbers")
    return cross_entropy(x, labels, probabilities, weight, **options)


def _on_device_of(x: Any, weight: Any) -> Any:
    """The weights of the classes are a constant, so a parameter of the operation: None, an array, or a tuple of numbers."""
    return namespace(plain(x)).asarray(weight, dtype_of(x)) if type(weight) is tuple else weight


def _scale(x: Any, labels: Any, weight: Any, ignore_index: int, reduction: str) -> Any:
    """What the sum of the losses is multiplied by."""
    if reduction != "mean":
        return 1.0
    return 1 / reduce.sum(_counts(x, labels, weight, ignore_index)) if labels is not None else 1 / len(x) if len(x) else np.nan


def _counts(x: Any, labels: Any, weight: Any, ignore_index: int) -> Any:
    """weight[label] of each row, 0 of one that is ignored."""
    kept, weight = not_equal(labels, ignore_index), _on_device_of(x, weight)
    dtype = np.float32 if is_half(dtype_of(x)) else dtype_of(x)
    return astype(kept, dtype) if weight is None else where(kept, astype(take(weight, where(kept, labels, 0)), dtype), 0)


def _total(x: Any, labels: Any, probabilities: Any, weight: Any, smoothing: float, ignore_index: int) -> Any:
    """The sum of q in each row, shape (N, 1)."""
    weight = _on_device_of(x, weight)
    if labels is None:
        spread = smoothing / shape_of(x)[1]
        q = probabilities * (1 - smoothing) + spread
        return reduce.sum(q if weight is None else q * weight, axis=1, keepdims=True)
    total = _counts(x, labels, weight, ignore_index) * (1 - smoothing)
    if smoothing:
        kept = astype(not_equal(labels, ignore_index), dtype_of(total))
        total = total + kept * (smoothing * (1.0 if weight is None else reduce.mean(weight)))
    return expand_dims(total, 1)


def _softmax_tangent(x: Any, t: Any) -> Any:
    """The softmax's Jacobian (which is symmetric) times t. That of the likeliest class is subtracted from t, so that nothing cancels near it."""
    p = softmax(x)
    t = t - take_along_axis(t, reduce.argmax(x, axis=1, keepdims=True), 1)
    return p * (t - reduce.sum(p * t, axis=1, keepdims=True))


def _by_x(x: Any, labels: Any, probabilities: Any, weight: Any, t: Any, smoothing: float, ignore_index: int, reduction: str) -> Any:
    """The residual's Jacobian by x, which is symmetric, times t."""
    total = _total(x, labels, probabilities, weight, smoothing, ignore_index)
    factor = astype(total * _scale(x, labels, weight, ignore_index, reduction), dtype_of(x), copy=False)
    return strong_multiply(factor, _softmax_tangent(x, t))  # whatever the logits of an ignored row are


def _pull_back(
    needs: Any, g: Any, y: Any, x: Any, labels: Any, probabilities: Any, *, weight: Any, smoothing: float, ignore_index: int, reduction: str
) -> list[Any]:
    g_loss, g_residual = g
    of_x = of_q = None
    if needs[0]:
        if g_loss is not None:
            of_x = y[1][...] if is_unit(g_loss) else y[1] * _of_rows(g_loss, reduction)  # a view: it is not for others to write into
        if g_residual is not None:
            through = _by_x(x, labels, probabilities, weight, g_residual, smoothing, ignore_index, reduction)
            of_x = through if of_x is None else of_x + through
    if needs[2]:
        if g_loss is not None:
            of_q = -strong_multiply(_of_rows(g_loss, reduction), log_softmax(x))
        if g_residual is not None:
            through = reduce.sum(g_residual * softmax(x), axis=1, keepdims=True) - g_residual
            of_q = through if of_q is None else of_q + through
    return [of_x, None, _of_probabilities(of_q, x, weight, smoothing, reduction)]


def _push_forward(
    tangents: Any, y: Any, x: Any, labels: Any, probabilities: Any, *, weight: Any, smoothing: float, ignore_index: int, reduction: str
) -> list[Any]:
    t_x, _, t_q = tangents
    axis = 1 if reduction == "none" else None
    t_loss = t_residual = None
    if t_x is not None:
        t_loss = reduce.sum(y[1] * t_x, axis=axis)
        t_residual = _by_x(x, labels, probabilities, weight, t_x, smoothing, ignore_index, reduction)
    if t_q is not None:
        t_q = _of_probabilities(t_q, x, weight, smoothing, reduction)
        by_loss, by_residual = -reduce.sum(strong_multiply(t_q, log_softmax(x)), axis=axis), softmax(x) * reduce.sum(t_q, axis=1, keepdims=True) - t_q
        t_loss, t_residual = (by_loss, by_residual) if t_x is None else (t_loss + by_loss, t_residual + by_residual)
    return [t_loss, t_residual]


def _of_rows(g: Any, reduction: str) -> Any:
    return expand_dims(g, 1) if reduction == "none" else g


def _of_probabilities(t: Any, x: Any, weight: Any, smoothing: float, reduction: str) -> Any:
    """t times dq/dt and the scale."""
    if t is None:
        return None
    t = t * ((1 - smoothing) * _scale(x, None, None, 0, reduction))
    return t if weight is None else t * _on_device_of(x, weight)


def _pull_back_from_value(needs: Any, g: Any, _y: Any, *args: Any, **options: Any) -> list[Any]:
    return _pull_back(needs, [g, None], _with_residual(*args, **options) if needs[0] else (None, None), *args, **options)


def _samples() -> list[Sample]:
    labels, ignored, t = np.array([0, 3, 1, 3, 2]), np.array([0, 3, -1, 3, 2]), np.full((5, 4), 0.25) + np.eye(5, 4)
    bare = {"weight": None, "smoothing": 0.0, "ignore_index": -100}
    smooth = {"weight": (0.5, 2.0, 1.0, 0.25), "smoothing": 0.2, "ignore_index": -1}
    cases: list[tuple[Any, Any, dict[str, Any]]] = [
        (labels, None, bare),
        (ignored, None, {**smooth, "weight": None}),
        (ignored, None, smooth),
        (None, t, bare),
        (None, t, smooth),
    ]
    return [Sample((5, 4), labels, t, reduction=r, **options) for labels, t, options in cases for r in (REDUCTIONS if options is bare else ("mean", "none"))]


_with_residual = general("cross_entropy", _fused, _pull_back, _push_forward, samples=_samples(), doc="The loss and the residual, which is its gradient.")
_value = general(
    "cross_entropy_value",
    lambda *args, **options: _fused(*args, with_residual=False, **options)[0],
    _pull_back_from_value,
    samples=_samples(),
    doc="The loss alone, where no logits are tracked.",
)


def softmax_cross_entropy(
    logits: Any, target: Any, reduction: str = "mean", label_smoothing: float = 0.0, *, weight: Any = None, ignore_index: int = -100
) -> Any:
    """``-log softmax(logits)[target]``, the negative log likelihood of a classifier. With p = softmax(logits) and C classes::

        labels y         w_y (1 - s) (-log p_y) + s/C sum_c w_c (-log p_c)      s: label_smoothing, w: weight, by default ones
        probabilities t  sum_c w_c ((1 - s) t_c + s/C) (-log p_c)

    A logit of -inf takes its class out: p = 0 and the gradient is 0. One of inf or nan makes its row nan.

    Args:
        logits: shape (N, C), (C,), or (N, C, d1, ...), with the classes on axis 1 (0 if there is only one).
        target: integer labels in [0, C), of logits' shape without the class axis; or probabilities, of logits' shape, through which derivatives pass too.
        reduction: "mean", "sum", or "none". The mean is the sum divided by that of w_y over the labels that are not ignored, with probabilities by their
            number; where nothing is left to divide by it is nan. (The definitions are PyTorch's.)
        label_smoothing: the share of the target that is spread evenly over all classes. Szegedy et al., "Rethinking the inception architecture" (2016), section 7.
        weight: a factor for each class, (C,), not negative. It is a constant.
        ignore_index: rows with this label count for nothing, whatever their logits are.

    Raises:
        ValueError: the shapes do not fit, or an argument is out of its range.
        TypeError: labels, weight or logits of a wrong dtype, or a weight that requires grad.
        IndexError: a label is neither in [0, C) nor ``ignore_index``. On a GPU, where looking would stall, the loss is nan instead.
    """
    check_reduction(reduction)
    logits = logits if hasattr(logits, "shape") else np.asarray(logits)
    shape = logits.shape
    axis = min(1, len(shape) - 1)
    if not shape or not shape[axis]:
        raise ValueError(f"cross entropy: got logits of shape {shape}, expected (N, C) or (C,) with at least one class")
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"label_smoothing must lie between 0 and 1, got {label_smoothing}")
    if not is_inexact(dtype_of(logits)):
        logits = astype(logits, np.float64)
    rest = shape[:axis] + shape[axis + 1 :]
    labels = probabilities = None
    if dtype_of(target).kind not in "iub":
        logits, probabilities = _of_one_dtype(logits, target, shape, ignore_index)
    else:
        labels = _checked_labels(target, shape, rest)
    if len(shape) != 2:
        logits, probabilities = (a if a is None else reshape(moveaxis(a, axis, -1), (-1, shape[axis])) for a in (logits, probabilities))
    if weight is not None:
        weight = _checked_weight(weight, shape[axis], dtype_of(logits))
    options = {"weight": weight, "smoothing": label_smoothing, "ignore_index": ignore_index, "reduction": reduction}
    if reduction == "mean" and dtype_of(logits) == np.float16:
        return _mean_in_float32(logits, labels, probabilities, **{**options, "reduction": "none"})
    loss = _losses(logits, labels, probabilities, **options)
    return reshape(loss, rest) if reduction == "none" and len(shape) != 2 else loss


def _losses(logits: Any, labels: Any, probabilities: Any, **options: Any) -> Any:
    return _with_residual(logits, labels, probabilities, **options)[0] if _is_tracked(logits) else _value(logits, labels, probabilities, **options)


def _mean_in_float32(logits: Any, labels: Any, probabilities: Any, **options: Any) -> Any:
    """Of float16: divided by the number of rows the residual would underflow, whatever larger number the loss is then multiplied by to prevent just that."""
    losses = _losses(logits, labels, probabilities, **options)
    with np.errstate(invalid="ignore", divide="ignore"):  # nan where there is nothing to divide by
        scale = _scale(logits, labels, options["weight"], options["ignore_index"], "mean")
        return astype(reduce.sum(astype(losses, np.float32)) * scale, np.float16)


def _is_tracked(x: Any) -> bool:
    """At any level."""
    while type(x) is Tensor:
        if x.node is not None:
            return True
        x = x.value
    return False


def _checked_labels(target: Any, shape: Any, rest: Any) -> Any:
    labels = plain(target)
    labels = labels if hasattr(labels, "shape") else np.asarray(labels)
    if labels.shape != rest:
        raise ValueError(
            f"cross entropy: got logits of shape {shape} and integer labels of shape {labels.shape}, expected labels of shape {rest}, or probabilities of shape {shape}"
        )
    if labels.dtype.kind not in "iu":
        raise TypeError(f"cross entropy: labels must be integers (or probabilities of floating dtype), got {labels.dtype}")
    return labels if labels.ndim == 1 else labels.reshape(-1)


def _of_one_dtype(logits: Any, target: Any, shape: Any, ignore_index: int) -> Any:
    """Logits and probabilities."""
    if shape_of(target) != shape:
        raise ValueError(f"cross entropy: got logits of shape {shape} and probabilities of shape {shape_of(target)}, expected the same shape")
    if ignore_index >= 0:
        raise ValueError(f"cross entropy: got probabilities and ignore_index={ignore_index}, which is for integer labels: give those rows the probabilities 0")
    target = target if hasattr(target, "shape") else np.asarray(target)
    dtype = np.result_type(dtype_of(logits), dtype_of(target))
    return astype(logits, dtype, copy=False), astype(target, dtype, copy=False)


def _checked_weight(weight: Any, classes: int, dtype: Any) -> Any:
    if _is_tracked(weight):
        raise TypeError("cross entropy: weight is a constant, got one that requires grad; pass gg.stop_gradient(weight)")
    weight = plain(weight)
    weight = weight if hasattr(weight, "shape") else np.asarray(weight)
    if not is_inexact(weight.dtype) or weight.dtype.kind == "c":
        raise TypeError(f"cross entropy: got weight of {weight.dtype}, expected floats")
    if weight.shape != (classes,):
        raise ValueError(f"cross entropy: got weight of shape {weight.shape}, expected ({classes},), a factor for each class")
    if namespace(weight) is np and not (weight >= 0).all():
        raise ValueError(f"cross entropy: got weight {weight[~(weight >= 0)][0]}, expected none below 0")
    return weight.astype(dtype, copy=False)


# ---------------------------------------------------------------------------------- binary cross entropy


def _bce_with_logits(x: Any, y: Any) -> Any:
    e = np.copysign(x, -1.0)
    out = reusable(e)
    return (np.maximum(x, 0) - x * y) + np.log1p(np.exp(e, out=out), out=out)


def _bce_residual(x: Any, y: Any) -> Any:
    e = np.exp(np.copysign(x, -1.0))
    return choose(np.greater_equal(x, 0), (1 - y) - y * e, e * (1 - y) - y) / (1 + e)


bce_residual = elementwise(
    "bce_residual",
    _bce_residual,
    lambda d, _r, x, _y: d * sigmoid_slope(x),
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


def _bce(p: Any, y: Any) -> Any:
    with np.errstate(divide="ignore"):
        return -(y * np.maximum(np.log(p), -100) + (1 - y) * np.maximum(np.log1p(-p), -100))


bce = elementwise(
    "bce",
    _bce,
    lambda d, _loss, p, y: strong_divide(d * (p - y), maximum(p * (1 - p), 1e-12)),
    lambda d, _loss, p, _y: d * (clip(log1p(negative(p)), -100.0, None) - clip(log(p), -100.0, None)),
    domain=((0.1, 0.9), (0.0, 1.0)),
    doc="""``-(y log p + (1 - y) log(1 - p))`` of each element. As in PyTorch a logarithm is at least -100 and the derivative's denominator
    ``p (1 - p)`` at least 1e-12, so that p = 0 and p = 1 give large finite numbers. :func:`bce_with_logits` needs no such limits.""",
)


def squared_error(prediction: Any, target: Any) -> Any:
    """``(prediction - target)^2`` of each element."""
    difference = prediction - target
    return multiply(difference, difference)
