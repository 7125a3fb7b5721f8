"""The losses of :mod:`gpugrad.nn.functional` that ask for a margin between scores, or for an angle between vectors.

Where a margin is kept the loss and its derivative are 0, on the kink too. For the reductions see loss_functions.py.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gpugrad.ops.activations import relu, softplus
from gpugrad.ops.elementwise import absolute, divide, equal, maximum, square, subtract, where
from gpugrad.ops.fit import add, astype, dtype_of, shape_of
from gpugrad.ops.labels import at_labels, counts, is_label, of_classes
from gpugrad.ops.linalg import vector_norm
from gpugrad.ops.loss import check_reduction, check_values, pair, reduced
from gpugrad.ops.reduce import max as max_of
from gpugrad.ops.reduce import sum as sum_of
from gpugrad.ops.shape import as_array, expand_dims, reshape
from gpugrad.tape import is_inexact
from gpugrad.transforms import stop_gradient

__all__ = [
    "cosine_embedding_loss", "cosine_similarity", "hinge_loss", "multi_margin_loss", "multiclass_hinge_loss", "soft_margin_loss",
]  # fmt: skip

# ---------------------------------------------------------------------------------- margins


def hinge_loss(score: Any, target: Any, reduction: str = "mean", margin: float = 1.0) -> Any:
    """``max(0, margin - y s)`` for scores s and labels y of -1 and 1: the binary support vector machine's. Where it is 0 its derivative is 0.

    Raises:
        ValueError: the shapes differ, or a label is neither -1 nor 1 (those on a GPU are not looked at).
    """
    check_reduction(reduction)
    score, target = pair("hinge_loss", score, target)
    _check_signs("hinge_loss", target)
    return reduced(relu(subtract(margin, target * score)), reduction)


def soft_margin_loss(score: Any, target: Any, reduction: str = "mean") -> Any:
    """``log(1 + exp(-y s))`` for scores s and labels y of -1 and 1, exact however large the scores are.

    Raises:
        ValueError: the shapes differ, or a label is neither -1 nor 1 (those on a GPU are not looked at).
    """
    check_reduction(reduction)
    score, target = pair("soft_margin_loss", score, target)
    _check_signs("soft_margin_loss", target)
    return reduced(softplus(-(target * score)), reduction)


def _check_signs(name: str, target: Any) -> None:
    check_values(name, "the label", target, lambda y: (y == 1) | (y == -1) | (y != y), "-1 or 1; of labels y of 0 and 1 pass 2 * y - 1")


def multiclass_hinge_loss(scores: Any, target: Any, reduction: str = "mean", margin: float = 1.0) -> Any:
    """``sum_{j != y} max(0, s_j - s_y + margin)``: the multiclass support vector machine's. Weston and Watkins, "Support vector machines for multi-class
    pattern recognition" (1999). (:func:`multi_margin_loss` divides by the number of classes.)

    Args:
        scores: (N, C), (C,), or (N, C, d1, ...), with the classes on axis 1 (0 if there is only one). -inf takes a class out.
        target: integer labels y in [0, C), of that shape without the class axis.
        reduction: of the losses of rows.
        margin: by how much the label's score is to be ahead.

    Raises:
        ValueError, TypeError: shapes or dtypes do not fit.
        IndexError: a label is out of range. On a GPU, where looking would stall, the loss is nan instead.
    """
    check_reduction(reduction)
    x, labels, _, rest = of_classes("multiclass_hinge_loss", scores, target, None)
    return reduced(reshape(sum_of(_violations("multiclass_hinge_loss", x, labels, margin), 1), rest), reduction)


def multi_margin_loss(scores: Any, target: Any, reduction: str = "mean", *, p: int = 1, margin: float = 1.0, weight: Any = None) -> Any:
    """``sum_{j != y} weight[y] max(0, margin - s_y + s_j)^p / C`` for scores s of C classes and labels y, with p = 1 or 2, as in PyTorch: the factor is
    that of the label, stands outside the power, and does not change what the mean divides by. See :func:`multiclass_hinge_loss` for the arguments.

    Raises:
        ValueError, TypeError: shapes or dtypes do not fit, or p is neither 1 nor 2.
        IndexError: a label is out of range. On a GPU, where looking would stall, the loss is nan instead.
    """
    check_reduction(reduction)
    if p not in (1, 2):
        raise ValueError(f"multi_margin_loss: p must be 1 or 2, got {p}")
    x, labels, weight, rest = of_classes("multi_margin_loss", scores, target, weight)
    violations = _violations("multi_margin_loss", x, labels, margin)
    losses = sum_of((violations if p == 1 else square(violations)) / x.shape[1], 1)
    if weight is not None:
        losses = losses * astype(counts(x, labels, weight, -1), dtype_of(x), copy=False)
    return reduced(reshape(losses, rest), reduction)


def _violations(name: str, x: Any, labels: Any, margin: float) -> Any:
    """max(0, x_j - x_y + margin) of each class j, 0 of the label y."""
    with np.errstate(invalid="ignore"):  # inf - inf of the label itself, which is not asked for
        ahead = add(x - expand_dims(at_labels(name, x, labels), 1), margin)
    return relu(where(is_label(x, labels), 0.0, ahead))


# ---------------------------------------------------------------------------------- angles


def cosine_similarity(x1: Any, x2: Any, dim: int = 1, eps: float = 1e-8, *, axis: int | None = None) -> Any:
    """``x1 . x2 / (max(|x1|, eps) max(|x2|, eps))`` along ``dim`` (or ``axis``, which is the same); the other axes broadcast.

    No square overflows or underflows. The derivative at a zero vector is that of the formula, ``x2 / (eps |x2|)``. Rounding may give a little more than 1.

    Raises:
        AxisError: there is no such axis.
        ValueError: the shapes do not broadcast.
    """
    axis = dim if axis is None else axis
    return sum_of(_unit(x1, axis, eps) * _unit(x2, axis, eps), axis)


def _unit(x: Any, axis: int, eps: float) -> Any:
    """x / max(|x|, eps). Both are scaled by x's largest element, a constant, since what is computed does not depend on it."""
    x = as_array(x)
    x = x if is_inexact(x.dtype) else astype(x, np.float64)
    eps = max(eps, 2.0**-14) if x.dtype == np.float16 else eps
    scale = maximum(stop_gradient(max_of(absolute(x), axis, keepdims=True)), eps) if x.size else 1.0
    x = x / scale
    return x / maximum(vector_norm(x, axis=axis, keepdims=True), divide(eps, scale))


def cosine_embedding_loss(x1: Any, x2: Any, target: Any, reduction: str = "mean", margin: float = 0.0) -> Any:
    """``1 - cos(x1, x2)`` where the target is 1, ``max(0, cos(x1, x2) - margin)`` where it is -1. x1 and x2 are (N, D) or (D,), the target (N,) or ().

    Raises:
        ValueError: the shapes do not fit, or a label is neither -1 nor 1 (those on a GPU are not looked at).
    """
    check_reduction(reduction)
    if shape_of(x1) != shape_of(x2) or len(shape_of(x1)) not in (1, 2):
        raise ValueError(f"cosine_embedding_loss: got inputs of shapes {shape_of(x1)} and {shape_of(x2)}, expected both (N, D) or both (D,)")
    similarity, target = pair("cosine_embedding_loss", cosine_similarity(x1, x2, axis=-1), target)
    _check_signs("cosine_embedding_loss", target)
    return reduced(where(equal(target, 1), 1 - similarity, relu(subtract(similarity, margin))), reduction)
