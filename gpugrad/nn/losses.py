"""Losses as modules; see :mod:`gpugrad.nn.functional`."""

from __future__ import annotations

from typing import Any

from gpugrad.creation import tensor
from gpugrad.nn import functional as F  # noqa: N812
from gpugrad.nn.module import Module
from gpugrad.ops.loss import check_reduction


class _Loss(Module):
    def __init__(self, reduction: str = "mean") -> None:
        check_reduction(reduction)
        self.reduction = reduction

    def extra_repr(self) -> str:
        """The reduction."""
        return f"reduction={self.reduction!r}"


class CrossEntropyLoss(_Loss):
    """:func:`gpugrad.nn.functional.cross_entropy` of logits and integer labels, or probabilities. ``weight`` is a buffer of this module."""

    def __init__(self, reduction: str = "mean", label_smoothing: float = 0.0, *, weight: Any = None, ignore_index: int = -100) -> None:
        super().__init__(reduction)
        self.label_smoothing = label_smoothing
        self.weight = None if weight is None else tensor(weight)
        self.ignore_index = ignore_index

    def forward(self, logits: Any, target: Any) -> Any:
        """-log softmax(logits)[target]."""
        return F.cross_entropy(logits, target, self.reduction, self.label_smoothing, weight=self.weight, ignore_index=self.ignore_index)


class MSELoss(_Loss):
    """:func:`gpugrad.nn.functional.mse_loss`."""

    def forward(self, prediction: Any, target: Any) -> Any:
        """(prediction - target)^2."""
        return F.mse_loss(prediction, target, self.reduction)


class BCELoss(_Loss):
    """:func:`gpugrad.nn.functional.bce_loss` of probabilities."""

    def forward(self, probability: Any, target: Any) -> Any:
        """-(y log p + (1 - y) log(1 - p))."""
        return F.bce_loss(probability, target, self.reduction)


class BCEWithLogitsLoss(_Loss):
    """:func:`gpugrad.nn.functional.bce_with_logits`."""

    def forward(self, logits: Any, target: Any) -> Any:
        """The binary cross entropy of sigmoid(logits)."""
        return F.bce_with_logits(logits, target, self.reduction)
