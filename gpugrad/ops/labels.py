"""Integer labels of classes and weights of classes: what cross entropy, the negative log likelihood and the hinge losses share."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpugrad.backend import namespace
from gpugrad.kernels.cross_entropy import check
from gpugrad.ops.elementwise import equal, greater_equal, less, not_equal, where
from gpugrad.ops.fit import astype, dtype_of, is_half, shape_of
from gpugrad.ops.selection import take, take_along_axis
from gpugrad.ops.shape import as_array, expand_dims, moveaxis, reshape
from gpugrad.tape import Batch, Tensor, constant, is_inexact, plain


def class_axis(name: str, x: Any, what: str) -> int:
    """The axis of the classes: 1, or 0 if there is only one.

    Raises:
        ValueError: there are no classes.
    """
    shape = shape_of(x)
    axis = min(1, len(shape) - 1)
    if not shape or not shape[axis]:
        raise ValueError(f"{name}: got {what} of shape {shape}, expected (N, C) or (C,) with at least one class")
    return axis


def rows(x: Any) -> Any:
    """(N, C), (C,) or (N, C, d1, ...) as a matrix with a row of C classes for each label."""
    shape = shape_of(x)
    return x if len(shape) == 2 else reshape(moveaxis(x, min(1, len(shape) - 1), -1), (-1, shape[min(1, len(shape) - 1)]))


def derivative_node(x: Any) -> Any:
    """The node of the innermost level that differentiates x; None if none does."""
    while type(x) is Tensor:
        if x.node is not None and type(x.node) is not Batch:
            return x.node
        x = x.value
    return None


def checked_labels(name: str, target: Any, expected: Any, given: str, instead: str = "") -> Any:
    """Integer labels of shape ``expected`` as an array (N,).

    Raises:
        ValueError: they have another shape.
        TypeError: they are not integers.
    """
    labels = constant(target)
    labels = labels if hasattr(labels, "shape") else np.asarray(labels)
    if labels.shape != expected:
        raise ValueError(f"{name}: got {given} and integer labels of shape {labels.shape}, expected labels of shape {expected}{instead}")
    if labels.dtype.kind not in "iu":
        raise TypeError(f"{name}: labels must be integers{instead and ' (or probabilities of floating dtype)'}, got {labels.dtype}; cast them by .astype(int)")
    return labels if labels.ndim == 1 else labels.reshape(-1)


def checked_weight(name: str, weight: Any, classes: int, dtype: Any) -> Any:
    """A constant factor for each class, as an array (C,) of ``dtype``.

    Raises:
        TypeError: it requires grad, or is not of floats.
        ValueError: it has another shape, or a factor below 0 (on a GPU they are not looked at).
    """
    if derivative_node(weight) is not None:
        raise TypeError(f"{name}: weight is a constant, got one that requires grad; pass gg.stop_gradient(weight)")
    weight = constant(weight)
    weight = weight if hasattr(weight, "shape") else np.asarray(weight)
    if not is_inexact(weight.dtype) or weight.dtype.kind == "c":
        raise TypeError(f"{name}: got weight of {weight.dtype}, expected floats")
    if weight.shape != (classes,):
        raise ValueError(f"{name}: got weight of shape {weight.shape}, expected ({classes},), a factor for each class")
    values = plain(weight)
    if namespace(values) is np and not (values >= 0).all():
        raise ValueError(f"{name}: got weight {values[~(values >= 0)][0]}, expected none below 0")
    return weight.astype(dtype, copy=False)


def of_classes(name: str, scores: Any, target: Any, weight: Any, what: str = "scores") -> tuple[Any, Any, Any, Any]:
    """Scores (N, C), (C,) or (N, C, d1, ...) as a row of C floats for each label; the labels (N,); the weight of each class or None; the target's shape.

    Raises:
        ValueError, TypeError: shapes or dtypes do not fit.
    """
    x = as_array(scores)
    axis = class_axis(name, x, what)
    rest = x.shape[:axis] + x.shape[axis + 1 :]
    labels = checked_labels(name, target, rest, f"{what} of shape {x.shape}")
    x = rows(x if is_inexact(x.dtype) else astype(x, np.float64))
    return x, labels, None if weight is None else checked_weight(name, weight, x.shape[1], dtype_of(x)), rest


def counts(x: Any, labels: Any, weight: Any, ignore_index: int) -> Any:
    """weight[label] of each row, 0 of one that is ignored, and something or other of a label that is out of range."""
    kept = not_equal(labels, ignore_index)
    dtype = np.float32 if is_half(dtype_of(x)) else dtype_of(x)
    if weight is None:
        return astype(kept, dtype)
    return where(kept, astype(take(weight, where(_fits(labels, len(weight)), labels, 0)), dtype), 0)


def _fits(labels: Any, classes: int) -> Any:
    return greater_equal(labels, 0) & less(labels, classes)


def at_labels(name: str, x: Any, labels: Any, ignore_index: int | None = None) -> Any:
    """x[i, labels[i]] of each row, and something or other of one that is ignored.

    Raises:
        IndexError: a label is out of range. On a GPU, where looking would stall, nan is there instead.
    """
    classes = shape_of(x)[1]
    fits = _fits(labels, classes)
    if namespace(plain(labels)) is np:
        check(plain(labels), plain(~fits if ignore_index is None else ~fits & not_equal(labels, ignore_index)), classes, name)
    value = take_along_axis(x, expand_dims(where(fits, labels, 0), 1), 1)
    return where(fits, reshape(value, shape_of(labels)), np.nan)


def is_label(x: Any, labels: Any) -> Any:
    """(N, C): true where the class is the row's label."""
    return equal(expand_dims(labels, 1), namespace(plain(labels)).arange(shape_of(x)[1]))
