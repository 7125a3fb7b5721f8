"""The losses of :mod:`gpugrad.nn.functional` that compare numbers or probabilities; those of margins and angles are in margin_losses.py.

Each gives the losses of single elements or rows, reduced: ``reduction="mean"``, "sum" or "none" (an array of them). The mean of nothing is nan.
Derivatives, of any order, pass through every argument of floats. At a kink the derivative is 0. nan comes out as nan. Beside numbers stand functions, not
operators, which of a plain array of bfloat16 would make float32.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from gpugrad.backend import check_integer
from gpugrad.ops.activations import softplus
from gpugrad.ops.cross_entropy import cross_entropy
from gpugrad.ops.elementwise import absolute, exp, greater, isnan, isneginf, less, log, multiply, square, strong_multiply, where
from gpugrad.ops.fit import add, astype, dtype_of, shape_of
from gpugrad.ops.labels import at_labels, counts, of_classes
from gpugrad.ops.loss import bce, check_reduction, check_values, huber, kl, mean_of, pair, reduced
from gpugrad.ops.loss import bce_with_logits as _bce_with_logits
from gpugrad.ops.shape import as_array, reshape
from gpugrad.transforms import stop_gradient

__all__ = [
    "bce_loss", "bce_with_logits", "binary_cross_entropy", "binary_cross_entropy_with_logits", "cross_entropy", "gaussian_nll_loss", "huber_loss",
    "kl_div", "l1_loss", "mse_loss", "nll_loss", "poisson_nll_loss", "smooth_l1_loss",
]  # fmt: skip

# ---------------------------------------------------------------------------------- regression


def mse_loss(prediction: Any, target: Any, reduction: str = "mean") -> Any:
    """``(prediction - target)^2``.

    Raises:
        ValueError: the shapes differ (they do not broadcast: (N, 1) against (N,) would be a mistake).
    """
    return _of_difference("mse_loss", square, prediction, target, reduction)


def l1_loss(prediction: Any, target: Any, reduction: str = "mean") -> Any:
    """``|prediction - target|``; its derivative at 0 is 0.

    Raises:
        ValueError: the shapes differ.
    """
    return _of_difference("l1_loss", absolute, prediction, target, reduction)


def huber_loss(prediction: Any, target: Any, reduction: str = "mean", delta: float = 1.0) -> Any:
    """Of the difference d: ``d^2 / 2`` up to ``|d| = delta``, ``delta (|d| - delta / 2)`` beyond. Huber, "Robust estimation of a location parameter" (1964).

    The second derivative is 1 up to and on ``|d| = delta``, and 0 beyond.

    Raises:
        ValueError: the shapes differ, or delta is not positive.
    """
    if not delta > 0:
        raise ValueError(f"huber_loss: delta must be positive, got {delta}")
    return _of_difference("huber_loss", lambda d: huber(d, delta=float(delta), unit=1.0), prediction, target, reduction)


def smooth_l1_loss(prediction: Any, target: Any, reduction: str = "mean", beta: float = 1.0) -> Any:
    """Of the difference d: ``d^2 / (2 beta)`` up to ``|d| = beta``, ``|d| - beta / 2`` beyond; ``huber_loss / beta``, and for beta = 0 :func:`l1_loss`.
    Girshick, "Fast R-CNN" (2015), equation 3.

    Raises:
        ValueError: the shapes differ, or beta is negative.
    """
    if not beta >= 0:
        raise ValueError(f"smooth_l1_loss: beta must not be negative, got {beta}")
    loss = (lambda d: huber(d, delta=float(beta), unit=float(beta))) if beta else absolute
    return _of_difference("smooth_l1_loss", loss, prediction, target, reduction)


def _of_difference(name: str, loss: Any, prediction: Any, target: Any, reduction: str) -> Any:
    check_reduction(reduction)
    prediction, target = pair(name, prediction, target)
    return reduced(loss(prediction - target), reduction)


def gaussian_nll_loss(mean: Any, target: Any, var: Any, reduction: str = "mean", *, full: bool = False, eps: float = 1e-6) -> Any:
    """``(log v + (mean - target)^2 / v) / 2`` with ``v = max(var, eps)``, plus ``log(2 pi) / 2`` if ``full``: the negative log likelihood of a normal
    distribution. Nix and Weigend, "Estimating the mean and variance of the target probability distribution" (1994).

    ``var`` has the target's shape, or one that broadcasts to it. Below ``eps`` it has the derivative of v there, so that it finds its way back.

    Raises:
        ValueError: the shapes do not fit, or a variance is negative.
    """
    check_reduction(reduction)
    mean, target = pair("gaussian_nll_loss", mean, target)
    var = _broadcast("gaussian_nll_loss", "var", var, target)
    check_values("gaussian_nll_loss", "a variance of", var, lambda v: ~(v < 0), "none below 0; predict its logarithm, or apply softplus")
    v = where(less(var, eps), add(eps, var - stop_gradient(var)), var)
    loss = multiply(0.5, log(v) + square(mean - target) / v)
    return reduced(add(loss, 0.5 * math.log(2 * math.pi)) if full else loss, reduction)


def poisson_nll_loss(rate: Any, target: Any, reduction: str = "mean", *, log_input: bool = True, full: bool = False, eps: float = 1e-8) -> Any:
    """``exp(rate) - target rate``, the negative log likelihood of counts whose expected number has the logarithm ``rate``; or, without ``log_input``,
    ``rate - target log(rate + eps)``. ``full`` adds Stirling's approximation of log(target!), for targets above 1.

    Raises:
        ValueError: the shapes differ.
    """
    check_reduction(reduction)
    rate, target = pair("poisson_nll_loss", rate, target)
    loss = exp(rate) - target * rate if log_input else rate - target * log(add(rate, eps))
    if full:
        y = where(greater(target, 1), target, 1.0)
        loss = loss + where(greater(target, 1), y * log(y) - y + multiply(0.5, log(multiply(2 * math.pi, y))), 0.0)
    return reduced(loss, reduction)


# ---------------------------------------------------------------------------------- probabilities


def binary_cross_entropy(probability: Any, target: Any, reduction: str = "mean", *, weight: Any = None) -> Any:
    """``-(y log p + (1 - y) log(1 - p))``, times ``weight``, with the logarithms at least -100 as in PyTorch. From logits,
    :func:`binary_cross_entropy_with_logits` is exact.

    Raises:
        ValueError: the shapes differ, or a probability is not between 0 and 1 (on a GPU, where looking would stall, the loss is nan instead).
    """
    check_reduction(reduction)
    probability, target = pair("binary_cross_entropy", probability, target)
    expected = "probabilities from 0 to 1; apply sigmoid, or give the logits to binary_cross_entropy_with_logits"
    check_values("binary_cross_entropy", "a probability of", probability, lambda p: ~((p < 0) | (p > 1)), expected)
    return reduced(_weighted("binary_cross_entropy", bce(probability, target), weight), reduction)


def binary_cross_entropy_with_logits(logits: Any, target: Any, reduction: str = "mean", *, weight: Any = None, pos_weight: Any = None) -> Any:
    """``binary_cross_entropy(sigmoid(logits), target)``, exact however large the logits are::

        weight (pos_weight y (-log sigmoid(x)) + (1 - y) (-log sigmoid(-x)))

    ``weight`` and ``pos_weight`` (above 1 for more recall, below for more precision) are numbers, or arrays that broadcast to the logits' shape.

    Raises:
        ValueError: the shapes do not fit.
    """
    check_reduction(reduction)
    x, y = pair("binary_cross_entropy_with_logits", logits, target)
    if pos_weight is None:
        loss = _bce_with_logits(x, y)
    else:
        loss = strong_multiply(_weighted("binary_cross_entropy_with_logits", y, pos_weight, "pos_weight"), softplus(-x)) + strong_multiply(1 - y, softplus(x))
    return reduced(_weighted("binary_cross_entropy_with_logits", loss, weight), reduction)


def _weighted(name: str, loss: Any, weight: Any, what: str = "weight") -> Any:
    """``loss`` times a weight that broadcasts to its shape."""
    return loss if weight is None else multiply(loss, _broadcast(name, what, weight, loss))


def _broadcast(name: str, what: str, x: Any, like: Any) -> Any:
    """``x`` in the dtype of ``like``, of a shape that broadcasts to its shape."""
    x, shape = as_array(x), shape_of(like)
    if len(x.shape) > len(shape) or not all(n in (1, m) for n, m in zip(x.shape[::-1], shape[::-1], strict=False)):
        raise ValueError(f"{name}: got {what} of shape {x.shape}, expected one that broadcasts to {shape}, the shape of the target")
    return astype(x, dtype_of(like), copy=False)


def nll_loss(log_probability: Any, target: Any, reduction: str = "mean", *, weight: Any = None, ignore_index: int = -100) -> Any:
    """``-weight[y] log_probability[y]`` for labels y: after :func:`log_softmax` it is the cross entropy (of which :func:`cross_entropy` is the exact and
    quick form).

    Args:
        log_probability: (N, C), (C,), or (N, C, d1, ...), with the classes on axis 1 (0 if there is only one).
        target: integer labels in [0, C), of that shape without the class axis.
        reduction: the mean is the sum divided by that of weight[y] over the labels that are not ignored; where all are ignored it is nan.
        weight: a factor for each class, (C,), not negative. It is a constant; a class of weight 0 counts for nothing, at log 0 too.
        ignore_index: rows with this label count for nothing, whatever is in them.

    Raises:
        ValueError: the shapes do not fit, or an argument is out of its range.
        TypeError: labels or weight of a wrong dtype, or a weight that requires grad.
        IndexError: a label is neither in [0, C) nor ``ignore_index``. On a GPU, where looking would stall, the loss is nan instead.
    """
    check_reduction(reduction)
    check_integer("ignore_index", ignore_index)
    x, labels, weight, rest = of_classes("nll_loss", log_probability, target, weight, "log probabilities")
    count = counts(x, labels, weight, ignore_index)
    losses = strong_multiply(astype(count, dtype_of(x), copy=False), -at_labels("nll_loss", x, labels, ignore_index))
    return mean_of(losses, count) if reduction == "mean" else reduced(reshape(losses, rest), reduction)


def kl_div(log_probability: Any, target: Any, reduction: str = "mean", log_target: bool = False) -> Any:
    """``t (log t - x)`` of each element, with t the target and x ``log_probability``: summed over a row, Kullback and Leibler's divergence from the
    prediction q = exp(x) to t. Where t = 0 it is 0, for x = -inf too.

    Args:
        log_probability: logarithms of probabilities, as :func:`log_softmax` gives them.
        target: probabilities of the same shape, or with ``log_target`` their logarithms.
        reduction: also "batchmean", the sum divided by the length of the first axis, which is the mean divergence of rows ("mean" divides by the number
            of all elements).

    Raises:
        ValueError: the shapes differ.
    """
    check_reduction(reduction, "batchmean")
    x, t = pair("kl_div", log_probability, target)
    if not log_target:
        return reduced(kl(x, t), reduction)
    with np.errstate(invalid="ignore"):  # inf - inf, where both probabilities are 0
        return reduced(exp(t) * where(isneginf(t) & ~isnan(x), 0.0, t - x), reduction)


bce_loss, bce_with_logits = binary_cross_entropy, binary_cross_entropy_with_logits
