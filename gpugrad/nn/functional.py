"""Layers and losses as functions. Losses take ``reduction="mean" | "sum" | "none"``."""

from __future__ import annotations

from typing import Any

from gpugrad.ops import loss as _loss
from gpugrad.ops.activations import elu, gelu, hardtanh, leaky_relu, log_sigmoid, log_softmax, logsigmoid, relu, relu6, selu, sigmoid, silu, softmax, softplus
from gpugrad.ops.elementwise import tanh
from gpugrad.ops.fit import shape_of
from gpugrad.ops.linear import linear

__all__ = [
    "bce_loss", "bce_with_logits", "binary_cross_entropy", "binary_cross_entropy_with_logits", "cross_entropy", "elu", "gelu", "hardtanh", "leaky_relu",
    "linear", "log_sigmoid", "log_softmax", "logsigmoid", "mse_loss", "relu", "relu6", "selu", "sigmoid", "silu", "softmax", "softplus", "tanh",
]  # fmt: skip

cross_entropy = _loss.softmax_cross_entropy


def mse_loss(prediction: Any, target: Any, reduction: str = "mean") -> Any:
    """``(prediction - target)^2``.

    Raises:
        ValueError: the shapes differ (they do not broadcast: (N, 1) against (N,) would be a mistake).
    """
    _same_shape("mse_loss", prediction, target)
    return _loss.reduced(_loss.squared_error(prediction, target), reduction)


def bce_loss(probability: Any, target: Any, reduction: str = "mean") -> Any:
    """``-(y log p + (1 - y) log(1 - p))``, with the logarithms at least -100 as in PyTorch. From logits, :func:`bce_with_logits` is exact.

    Raises:
        ValueError: the shapes differ.
    """
    _same_shape("bce_loss", probability, target)
    return _loss.reduced(_loss.bce(probability, target), reduction)


def bce_with_logits(logits: Any, target: Any, reduction: str = "mean") -> Any:
    """``bce_loss(sigmoid(logits), target)``, exact however large the logits are.

    Raises:
        ValueError: the shapes differ.
    """
    _same_shape("bce_with_logits", logits, target)
    return _loss.reduced(_loss.bce_with_logits(logits, target), reduction)


binary_cross_entropy = bce_loss
binary_cross_entropy_with_logits = bce_with_logits


def _same_shape(name: str, prediction: Any, target: Any) -> None:
    got, expected = shape_of(target), shape_of(prediction)
    if got != expected:
        raise ValueError(f"{name}: got a target of shape {got}, expected {expected}, that of the prediction; reshape one of them")
