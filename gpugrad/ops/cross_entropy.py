"""Softmax cross entropy: the operation around the kernel of that name, with derivatives of any order.

Of logits x, q the target of each row (the label or probabilities, smoothed and weighted) and p = softmax(x) the kernel gives the loss and, in the same
pass, its gradient, the residual: scale ((sum q) p - q), where the scale is 1 or that of the mean. So the loss's rule is a product with what is there
already. The residual is an output with rules of its own, so that there are derivatives of any order.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gpugrad.backend import check_integer, mixed_devices, namespace
from gpugrad.kernels import cross_entropy as kernels
from gpugrad.kernels import reductions
from gpugrad.ops import reduce
from gpugrad.ops.batch import with_axis
from gpugrad.ops.elementwise import equal, not_equal, strong_multiply, where
from gpugrad.ops.fit import astype, broadcast_to, dtype_of, is_unit, shape_of, total_of
from gpugrad.ops.labels import at_labels, checked_labels, checked_weight, class_axis, counts, derivative_node, is_label, rows
from gpugrad.ops.loss import REDUCTIONS, check_reduction, mean_of
from gpugrad.ops.rules import Sample, composed, general
from gpugrad.ops.shape import expand_dims, reshape
from gpugrad.ops.softmax import log_softmax, softmax, softmax_tangent
from gpugrad.tape import FORWARD, Op, is_inexact


def _fused(x: Any, labels: Any, probabilities: Any, weight: Any, **options: Any) -> Any:
    for other in (labels, probabilities, weight):
        if other is not None and namespace(other) is not namespace(x):
            raise mixed_devices((x, labels, probabilities, weight))  # type: ignore[misc]
    if x.dtype.kind == "c":
        raise TypeError(f"cross entropy: got logits of {x.dtype}, expected real numbers")
    return kernels.cross_entropy(x, labels, probabilities, weight, **options)


def _scale(x: Any, labels: Any, weight: Any, ignore_index: int, reduction: str) -> Any:
    """What the sum of the losses is multiplied by in derivatives."""
    if reduction != "mean":
        return 1.0
    if labels is None:
        return 1 / len(x) if len(x) else 0.0
    return _inverse(reduce.sum(counts(x, labels, weight, ignore_index)))


def _inverse(divisor: Any) -> Any:
    """One over what the mean divides by; 0 where nothing counts, because the residual is 0 there."""
    return 1 / where(equal(divisor, 0), np.inf, divisor)


def target_sum(x: Any, labels: Any, probabilities: Any, weight: Any, smoothing: float, ignore_index: int) -> Any:
    """The sum of q in each row, shape (N, 1)."""
    if labels is None:
        spread = smoothing / shape_of(x)[1]
        q = probabilities * (1 - smoothing) + spread
        return reduce.sum(q if weight is None else q * weight, axis=1, keepdims=True)
    total = counts(x, labels, weight, ignore_index) * (1 - smoothing)
    if smoothing:
        kept = astype(not_equal(labels, ignore_index), dtype_of(total))
        total = total + kept * (smoothing * (1.0 if weight is None else reduce.mean(weight)))
    return expand_dims(total, 1)


def _by_x(x: Any, labels: Any, probabilities: Any, weight: Any, t: Any, smoothing: float, ignore_index: int, reduction: str) -> Any:
    """The residual's Jacobian by x, which is symmetric, times t."""
    if type(labels) is np.ndarray and weight is None and not smoothing and (labels != ignore_index).all():  # the commonest by far: all factors are one number
        (slope,) = softmax_tangent(t, x, axis=(1,))
        return slope * (1 / len(labels)) if reduction == "mean" and len(labels) else slope
    total = target_sum(x, labels, probabilities, weight, smoothing, ignore_index)
    factor = astype(total * _scale(x, labels, weight, ignore_index, reduction), dtype_of(x), copy=False)
    return strong_multiply(factor, softmax_tangent(t, x, axis=(1,))[0])  # whatever the logits of an ignored row are


def _pull_back(
    needs: Any, g: Any, y: Any, x: Any, labels: Any, probabilities: Any, weight: Any, *, smoothing: float, ignore_index: int, reduction: str
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
    return [of_x, None, _of_probabilities(of_q, x, weight, smoothing, reduction), None]


def _push_forward(
    tangents: Any, y: Any, x: Any, labels: Any, probabilities: Any, weight: Any, *, smoothing: float, ignore_index: int, reduction: str
) -> list[Any]:
    t_x, _, t_q, _ = tangents
    t_q = _of_probabilities(t_q, x, weight, smoothing, reduction)
    by_x = None if t_x is None else _by_x(x, labels, probabilities, weight, t_x, smoothing, ignore_index, reduction)
    by_q = None if t_q is None else softmax(x) * reduce.sum(t_q, axis=1, keepdims=True) - t_q
    return [_push_loss(t_x, t_q, y[1], x, reduction), total_of(by_x, by_q)]


def _push_loss(t_x: Any, t_q: Any, residual: Any, x: Any, reduction: str) -> Any:
    axis = 1 if reduction == "none" else None
    by_x = None if t_x is None else reduce.sum(residual * t_x, axis=axis)
    return total_of(by_x, None if t_q is None else -reduce.sum(strong_multiply(t_q, log_softmax(x)), axis=axis))


def _of_rows(g: Any, reduction: str) -> Any:
    return expand_dims(g, 1) if reduction == "none" else g


def _of_probabilities(t: Any, x: Any, weight: Any, smoothing: float, reduction: str) -> Any:
    """t times dq/dt and the scale."""
    if t is None:
        return None
    t = t * ((1 - smoothing) * _scale(x, None, None, 0, reduction))
    return t if weight is None else t * astype(weight, dtype_of(t), copy=False)


def _pull_back_from_value(needs: Any, g: Any, _y: Any, *args: Any, **options: Any) -> list[Any]:
    return _pull_back(needs, [g, None], _with_residual(*args, **options) if needs[0] else (None, None), *args, **options)


def _push_forward_to_value(tangents: Any, _y: Any, x: Any, labels: Any, probabilities: Any, weight: Any, **options: Any) -> Any:
    """Without what the residual's tangent would cost: reverse mode over forward mode, which a Hessian-vector product is made of, has no use for it."""
    t_x, _, t_q, _ = tangents
    residual = None if t_x is None else _with_residual(x, labels, probabilities, weight, **options)[1]
    reduction = options["reduction"]
    return _push_loss(t_x, _of_probabilities(t_q, x, weight, options["smoothing"], reduction), residual, x, reduction)


# ---------------------------------------------------------------------------------- the loss with its tangent, of which Hessian-vector products are made


def _dual_meaning(x: Any, t: Any, labels: Any, probabilities: Any, weight: Any, **options: Any) -> Any:
    loss, residual = _with_residual(x, labels, probabilities, weight, **options)
    return loss, _push_loss(t, None, residual, x, options["reduction"]), residual


def _dual_value(x: Any, t: Any, *others: Any, reduction: str, **options: Any) -> tuple[Any, Any, Any]:
    loss, residual = _fused(x, *others, reduction=reduction, **options)
    total = reductions.total(residual * t, axis=(1,) if reduction == "none" else (0, 1))
    return loss, total.reshape(loss.shape), residual


def _dual_vjp(needs: Any, gs: Any, ys: Any, x: Any, t: Any, labels: Any, probabilities: Any, weight: Any, **options: Any) -> list[Any]:
    g, g_along, g_residual = gs
    along = None if g_along is None or is_unit(g_along) else _of_rows(g_along, options["reduction"])
    through = g_residual if g_along is None else total_of(t if along is None else along * t, g_residual)
    of_x, _, of_q, _ = _pull_back((needs[0], False, needs[3], False), [g, through], (ys[0], ys[2]), x, labels, probabilities, weight, **options)
    of_t = None if g_along is None or not needs[1] else ys[2] if along is None else along * ys[2]
    return [of_x, of_t, None, of_q, None]


def _dual(tangents: Any, x: Any, labels: Any, probabilities: Any, weight: Any, **options: Any) -> Any:
    t_x, _, t_q, _ = tangents
    if t_x is not None and t_q is None:
        y, t, _ = _loss_and_tangent(x, t_x, labels, probabilities, weight, **options)
        return y, t
    y = _value(x, labels, probabilities, weight, **options)
    return y, _push_forward_to_value(tangents, y, x, labels, probabilities, weight, **options)


# ---------------------------------------------------------------------------------- many examples


def _batched(op: Op, size: int, batched: Any, args: Any, params: dict[str, Any]) -> Any:
    """The rows of all examples as those of one, reduced by example."""
    reduction, weight = params["reduction"], args[3]
    x, labels, probabilities = with_axis(size, batched[:3], args[:3])
    n, classes = x.shape[1:]
    together = [v if v is None else reshape(v, (size * n, *v.shape[2:])) for v in (x, labels, probabilities)]
    params, of_rows = {**params, "reduction": "none"}, None
    if batched[3]:
        weight = reshape(broadcast_to(expand_dims(weight, 1), (size, n, classes)), (size * n, classes))
        together, of_rows = _weighted(*together, weight=weight, smoothing=params["smoothing"], ignore_index=params["ignore_index"])
        params, weight = {**params, "smoothing": 0.0}, None
    elif labels is not None and reduction == "mean":
        of_rows = counts(x, together[1], weight, params["ignore_index"])
    y = op(*together, weight, **params)
    losses, residual = y if isinstance(y, tuple) else (y, None)
    loss, divisor = reshape(losses, (size, n)), None
    if reduction != "none":
        loss = reduce.sum(loss, axis=1)
    if reduction == "mean":
        divisor = n if labels is None else reduce.sum(reshape(of_rows, (size, n)), axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            loss = astype(loss / divisor, dtype_of(losses), copy=False)
    if residual is None:
        return loss
    residual = reshape(residual, x.shape)
    return loss, residual if divisor is None else residual * _of_examples(divisor, dtype_of(residual))


def _weighted(x: Any, labels: Any, probabilities: Any, *, weight: Any, smoothing: float, ignore_index: int) -> tuple[list[Any], Any]:
    """Rows with weights of their own (N, C) as rows with probabilities q alone; and what each of them counts for in the mean.

    A row that is ignored gets logits of 0, since a q of 0 beside nan or inf would not be nothing.
    """
    spread = smoothing / shape_of(x)[1]
    if labels is None:
        return [x, None, (probabilities * (1 - smoothing) + spread) * weight], None
    kept = not_equal(labels, ignore_index)
    of_rows, kept_row = where(kept, at_labels("cross entropy", weight, labels, ignore_index), 0), expand_dims(kept, 1)
    q = where(kept_row, is_label(x, labels) * expand_dims(of_rows * (1 - smoothing), 1) + weight * spread, 0)
    return [where(kept_row, x, 0), None, q], of_rows


def _of_examples(divisor: Any, dtype: Any) -> Any:
    """What the residual of each example is multiplied by."""
    if isinstance(divisor, int):
        return 1 / divisor if divisor else 0.0
    return reshape(astype(_inverse(divisor), dtype, copy=False), (-1, 1, 1))


def _samples() -> list[Sample]:
    labels, ignored, t = np.array([0, 3, 1, 3, 2]), np.array([0, 3, -1, 3, 2]), np.full((5, 4), 0.25) + np.eye(5, 4)
    weight = np.array([1, 4, 2, 3])  # integers, so that nothing is differentiated by them
    bare, smooth = {"smoothing": 0.0, "ignore_index": -100}, {"smoothing": 0.2, "ignore_index": -1}
    cases: list[tuple[Any, Any, Any, dict[str, Any]]] = [
        (labels, None, None, bare),
        (ignored, None, None, smooth),
        (ignored, None, weight, smooth),
        (None, t, None, bare),
        (None, t, weight, smooth),
    ]
    return [Sample((5, 4), *args, reduction=r, **options) for *args, options in cases for r in (REDUCTIONS if options is bare else ("mean", "none"))]


_with_residual = general(
    "cross_entropy", _fused, _pull_back, _push_forward, samples=_samples(), batch=_batched, doc="The loss and the residual, which is its gradient."
)
_value = general(
    "cross_entropy_value",
    lambda *args, **options: _fused(*args, with_residual=False, **options)[0],
    _pull_back_from_value,
    _push_forward_to_value,
    samples=_samples(),
    batch=_batched,
    dual=_dual,
    doc="The loss alone, where no gradient by the logits is asked for.",
)

_loss_and_tangent = composed(
    "cross_entropy_dual",
    _dual_value,
    _dual_meaning,
    _dual_vjp,
    samples=[Sample(s.args[0], s.args[0], *s.args[1:], **s.params) for s in _samples()],
    doc="The loss, its tangent and the residual.",
)


def check_options(reduction: str, label_smoothing: float, ignore_index: int) -> None:
    """Raise ValueError or TypeError for an option that makes no sense."""
    check_reduction(reduction)
    check_integer("ignore_index", ignore_index)
    if not isinstance(label_smoothing, (int, float, np.integer, np.floating)):
        raise TypeError(f"label_smoothing must be a number between 0 and 1, got {label_smoothing!r:.60}")
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"label_smoothing must lie between 0 and 1, got {label_smoothing}")


def cross_entropy(logits: Any, target: Any, reduction: str = "mean", label_smoothing: float = 0.0, *, weight: Any = None, ignore_index: int = -100) -> Any:
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
    check_options(reduction, label_smoothing, ignore_index)
    logits = logits if hasattr(logits, "shape") else np.asarray(logits)
    shape, axis = logits.shape, class_axis("cross entropy", logits, "logits")
    if not is_inexact(dtype_of(logits)):
        logits = astype(logits, np.float64)
    rest = shape[:axis] + shape[axis + 1 :]
    labels = probabilities = None
    if dtype_of(target).kind not in "iub":
        logits, probabilities = _of_one_dtype(logits, target, shape, ignore_index)
    else:
        labels = checked_labels("cross entropy", target, rest, f"logits of shape {shape}", f", or probabilities of shape {shape}")
    logits, probabilities = rows(logits), None if probabilities is None else rows(probabilities)
    if weight is not None:
        weight = checked_weight("cross entropy", weight, shape[axis], dtype_of(logits))
    args = logits, labels, probabilities, weight
    options = {"smoothing": label_smoothing, "ignore_index": ignore_index, "reduction": reduction}
    if reduction == "mean" and dtype_of(logits) == np.float16:
        losses = _losses(*args, **{**options, "reduction": "none"})
        return mean_of(losses, len(logits) if labels is None else counts(logits, labels, weight, ignore_index))
    loss = _losses(*args, **options)
    return reshape(loss, rest) if reduction == "none" and len(shape) != 2 else loss


def _losses(logits: Any, *others: Any, **options: Any) -> Any:
    node = derivative_node(logits)
    return _value(logits, *others, **options) if node is None or node.mode is FORWARD else _with_residual(logits, *others, **options)[0]


def _of_one_dtype(logits: Any, target: Any, shape: Any, ignore_index: int) -> Any:
    """Logits and probabilities."""
    if shape_of(target) != shape:
        raise ValueError(f"cross entropy: got logits of shape {shape} and probabilities of shape {shape_of(target)}, expected the same shape")
    if ignore_index >= 0:
        raise ValueError(f"cross entropy: got probabilities and ignore_index={ignore_index}, which is for integer labels: give those rows the probabilities 0")
    target = target if hasattr(target, "shape") else np.asarray(target)
    dtype = np.result_type(dtype_of(logits), dtype_of(target))
    return astype(logits, dtype, copy=False), astype(target, dtype, copy=False)
