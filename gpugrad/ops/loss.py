"""Losses that are operations of their own, because the plain formula would cancel or take more passes over the data.

Each gives values and derivatives with relative accuracy also where a confident prediction makes them tiny.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gpugrad.backend import namespace
from gpugrad.ops import reduce
from gpugrad.ops.activations import log_softmax, reusable, sigmoid_slope, softmax
from gpugrad.ops.elementwise import choose, clip, log, log1p, maximum, multiply, negative, strong_divide
from gpugrad.ops.fit import astype, dtype_of, is_half, shape_of
from gpugrad.ops.index import take_along_axis
from gpugrad.ops.rules import Sample, elementwise, general
from gpugrad.ops.shape import expand_dims, moveaxis, reshape
from gpugrad.tape import is_inexact, plain

REDUCTIONS = ("mean", "sum", "none")


def check_reduction(reduction: str) -> None:
    """Raise ValueError unless ``reduction`` is one of mean, sum, none."""
    if reduction not in REDUCTIONS:
        raise ValueError(f"reduction must be 'mean', 'sum' or 'none', got {reduction!r}")


def reduced(loss: Any, reduction: str) -> Any:
    """The mean or sum of all elements, or the elements themselves."""
    check_reduction(reduction)
    return reduce.mean(loss) if reduction == "mean" else reduce.sum(loss) if reduction == "sum" else loss


# ---------------------------------------------------------------------------------- softmax cross entropy with integer labels


def _cross_entropy(x: Any, labels: Any, *, reduction: str) -> tuple[Any, Any]:
    """(loss, residual) of logits x (N, C) and labels (N,), where residual = softmax(x) - onehot is the loss's gradient.

    With z = x - max(x), l the label and rest the sum of exp(z) over the other classes, loss = log1p(rest + expm1(z_l)) - z_l,
    and residual_l = -rest / sum: no term cancels, however confident the prediction.
    """
    if namespace(x) is not namespace(labels):
        raise TypeError("logits and labels on different devices")  # of which Op.compute makes an error that says what to do
    dtype = x.dtype
    if is_half(dtype):
        x = x.astype(np.float32)
    at = (namespace(x).arange(len(labels)), labels)
    with np.errstate(invalid="ignore"):  # inf - inf: nan is the answer
        e = x - x.max(axis=1, keepdims=True)
    z = e[at]
    np.exp(e, out=e)
    e[at] = 0
    rest = e.sum(axis=1)
    loss = np.log1p(rest + np.expm1(z)) - z
    e[at] = -rest
    e /= (rest + np.exp(z))[:, None]
    if reduction != "none":
        loss = loss.sum()
        if reduction == "mean":
            loss = loss / np.float32(len(labels)) if len(labels) else loss * np.nan
    return loss.astype(dtype, copy=False), e.astype(dtype, copy=False)


def _softmax_tangent(x: Any, t: Any) -> Any:
    """The softmax's Jacobian (which is symmetric) times t. That of the likeliest class is subtracted from t, so that nothing cancels near it."""
    p = softmax(x)
    t = t - take_along_axis(t, reduce.argmax(x, axis=1, keepdims=True), 1)
    return p * (t - reduce.sum(p * t, axis=1, keepdims=True))


def _cross_entropy_vjp(_needs: Any, g: Any, y: Any, x: Any, _labels: Any, *, reduction: str) -> list[Any]:
    g_loss, g_residual = g
    dx = None
    if g_loss is not None:
        dx = y[1] * (expand_dims(g_loss, 1) if reduction == "none" else g_loss / len(x) if reduction == "mean" else g_loss)
    if g_residual is not None:
        through = _softmax_tangent(x, g_residual)
        dx = through if dx is None else dx + through
    return [dx, None]


def _cross_entropy_jvp(tangents: Any, y: Any, x: Any, _labels: Any, *, reduction: str) -> list[Any]:
    t = tangents[0]
    t_loss = reduce.sum(y[1] * t, axis=1 if reduction == "none" else None)
    return [t_loss / len(x) if reduction == "mean" else t_loss, _softmax_tangent(x, t)]


_LABELS = np.array([0, 3, 1, 3, 2])
_cross_entropy_op = general(
    "cross_entropy",
    _cross_entropy,
    _cross_entropy_vjp,
    _cross_entropy_jvp,
    samples=[Sample((5, 4), _LABELS, reduction=reduction) for reduction in REDUCTIONS],
)


def softmax_cross_entropy(logits: Any, target: Any, reduction: str = "mean", label_smoothing: float = 0.0) -> Any:
    """``-log softmax(logits)[target]``, the negative log likelihood of a classifier.

    Args:
        logits: shape (N, C), (C,), or (N, C, d1, ...), with the classes on axis 1 (0 if there is only one).
        target: integer labels in [0, C), of logits' shape without the class axis; or probabilities, of logits' shape, through which derivatives pass too.
        reduction: "mean" over all labels, "sum", or "none".
        label_smoothing: the share of the target that is spread evenly over all classes. Szegedy et al., "Rethinking the inception architecture" (2016), section 7.

    Raises:
        ValueError: the shapes do not fit, or an argument is out of its range.
        IndexError: a label is not in [0, C) (seen on the CPU; on a GPU looking would stall it).
    """
    check_reduction(reduction)
    shape = shape_of(logits)
    if not shape:
        raise ValueError("cross entropy: got logits of shape (), expected (N, C) or (C,)")
    axis = min(1, len(shape) - 1)
    rest = shape[:axis] + shape[axis + 1 :]
    if not is_inexact(dtype_of(logits)):
        logits = astype(np.asarray(logits), np.float64)
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"label_smoothing must lie between 0 and 1, got {label_smoothing}")
    if is_inexact(dtype_of(target)):
        return _with_probabilities(logits, target, reduction, axis, label_smoothing)
    if shape_of(target) != rest:
        raise ValueError(
            f"cross entropy: got logits of shape {shape} and integer labels of shape {shape_of(target)}, expected labels of shape {rest}, or probabilities of shape {shape}"
        )
    labels = plain(target)
    labels = labels if hasattr(labels, "shape") else np.asarray(labels)
    _check_labels(labels, shape[axis])
    if label_smoothing:
        return _with_probabilities(logits, _one_hot(labels, shape[axis], dtype_of(logits), axis), reduction, axis, label_smoothing)
    if len(shape) != 2:
        logits = reshape(moveaxis(logits, axis, -1), (-1, shape[axis]))
    loss = _cross_entropy_op(logits, labels.ravel(), reduction=reduction)[0]
    return reshape(loss, rest) if reduction == "none" and len(shape) != 2 else loss


def _check_labels(labels: Any, classes: int) -> None:
    if labels.dtype.kind not in "iu":
        raise TypeError(f"cross entropy: labels must be integers (or probabilities of floating dtype), got {labels.dtype}")
    if namespace(labels) is np and labels.size and labels.view(f"u{labels.itemsize}").max() >= classes:  # a negative one is huge when unsigned
        bad = labels[(labels < 0) | (labels >= classes)].flat[0]
        raise IndexError(f"cross entropy: label {bad} is out of bounds, expected 0 to {classes - 1} for {classes} classes")


def _one_hot(labels: Any, classes: int, dtype: Any, axis: int) -> Any:
    xp = namespace(labels)
    return xp.moveaxis((labels[..., None] == xp.arange(classes)).astype(dtype), -1, axis)


def _with_probabilities(logits: Any, target: Any, reduction: str, axis: int, smoothing: float) -> Any:
    if shape_of(target) != shape_of(logits):
        raise ValueError(f"cross entropy: got logits of shape {shape_of(logits)} and probabilities of shape {shape_of(target)}, expected the same shape")
    if smoothing:
        target = target * (1 - smoothing) + smoothing / shape_of(logits)[axis]
    loss = -reduce.sum(target * log_softmax(logits, axis=axis), axis=axis)
    return reduced(loss, reduction)


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
