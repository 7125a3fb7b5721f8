"""Losses as modules: each holds the options of its function in :mod:`gpugrad.nn.functional`, which has the formula, the shapes and the errors.

The reduction ("mean", "sum" or "none") comes first, unlike in PyTorch's older losses: give the other options by name. Weights are buffers: they move with
the module and are part of its state.
"""

from __future__ import annotations

from typing import Any, ClassVar

from gpugrad.backend import check_integer
from gpugrad.creation import tensor
from gpugrad.nn import functional as F  # noqa: N812
from gpugrad.nn.module import Module
from gpugrad.ops.cross_entropy import check_options
from gpugrad.ops.loss import check_reduction
from gpugrad.tape import Tensor


class _Loss(Module):
    reductions: ClassVar[tuple[str, ...]] = ()  # beside the usual ones

    def __init__(self, reduction: str = "mean") -> None:
        check_reduction(reduction, *self.reductions)
        self.reduction = reduction

    def extra_repr(self) -> str:
        """The reduction and the other options that are numbers."""
        return ", ".join(f"{name}={value!r}" for name, value in vars(self).items() if isinstance(value, (str, float, int)) and name != "training")


def _buffer(values: Any) -> Tensor | None:
    return None if values is None else tensor(values)


class MSELoss(_Loss):
    """:func:`gpugrad.nn.functional.mse_loss`."""

    def forward(self, prediction: Any, target: Any) -> Any:
        """(prediction - target)^2."""
        return F.mse_loss(prediction, target, self.reduction)


class L1Loss(_Loss):
    """:func:`gpugrad.nn.functional.l1_loss`."""

    def forward(self, prediction: Any, target: Any) -> Any:
        """|prediction - target|."""
        return F.l1_loss(prediction, target, self.reduction)


class SmoothL1Loss(_Loss):
    """:func:`gpugrad.nn.functional.smooth_l1_loss`."""

    def __init__(self, reduction: str = "mean", beta: float = 1.0) -> None:
        super().__init__(reduction)
        self.beta = beta

    def forward(self, prediction: Any, target: Any) -> Any:
        """d^2 / (2 beta) up to |d| = beta, |d| - beta / 2 beyond."""
        return F.smooth_l1_loss(prediction, target, self.reduction, self.beta)


class HuberLoss(_Loss):
    """:func:`gpugrad.nn.functional.huber_loss`."""

    def __init__(self, reduction: str = "mean", delta: float = 1.0) -> None:
        super().__init__(reduction)
        self.delta = delta

    def forward(self, prediction: Any, target: Any) -> Any:
        """d^2 / 2 up to |d| = delta, delta (|d| - delta / 2) beyond."""
        return F.huber_loss(prediction, target, self.reduction, self.delta)


class GaussianNLLLoss(_Loss):
    """:func:`gpugrad.nn.functional.gaussian_nll_loss`."""

    def __init__(self, reduction: str = "mean", *, full: bool = False, eps: float = 1e-6) -> None:
        super().__init__(reduction)
        self.full, self.eps = full, eps

    def forward(self, mean: Any, target: Any, var: Any) -> Any:
        """(log var + (mean - target)^2 / var) / 2."""
        return F.gaussian_nll_loss(mean, target, var, self.reduction, full=self.full, eps=self.eps)


class PoissonNLLLoss(_Loss):
    """:func:`gpugrad.nn.functional.poisson_nll_loss`."""

    def __init__(self, reduction: str = "mean", *, log_input: bool = True, full: bool = False, eps: float = 1e-8) -> None:
        super().__init__(reduction)
        self.log_input, self.full, self.eps = log_input, full, eps

    def forward(self, rate: Any, target: Any) -> Any:
        """exp(rate) - target rate."""
        return F.poisson_nll_loss(rate, target, self.reduction, log_input=self.log_input, full=self.full, eps=self.eps)


class BCELoss(_Loss):
    """:func:`gpugrad.nn.functional.bce_loss` of probabilities."""

    buffer_names = ("weight",)

    def __init__(self, reduction: str = "mean", *, weight: Any = None) -> None:
        super().__init__(reduction)
        self.weight = _buffer(weight)

    def forward(self, probability: Any, target: Any) -> Any:
        """-(y log p + (1 - y) log(1 - p))."""
        return F.bce_loss(probability, target, self.reduction, weight=self.weight)


class BCEWithLogitsLoss(_Loss):
    """:func:`gpugrad.nn.functional.bce_with_logits`."""

    buffer_names = ("weight", "pos_weight")

    def __init__(self, reduction: str = "mean", *, weight: Any = None, pos_weight: Any = None) -> None:
        super().__init__(reduction)
        self.weight, self.pos_weight = _buffer(weight), _buffer(pos_weight)

    def forward(self, logits: Any, target: Any) -> Any:
        """The binary cross entropy of sigmoid(logits)."""
        return F.bce_with_logits(logits, target, self.reduction, weight=self.weight, pos_weight=self.pos_weight)


class CrossEntropyLoss(_Loss):
    """:func:`gpugrad.nn.functional.cross_entropy` of logits and integer labels, or probabilities."""

    buffer_names = ("weight",)

    def __init__(self, reduction: str = "mean", label_smoothing: float = 0.0, *, weight: Any = None, ignore_index: int = -100) -> None:
        super().__init__(reduction)
        check_options(reduction, label_smoothing, ignore_index)
        self.label_smoothing, self.weight, self.ignore_index = label_smoothing, _buffer(weight), ignore_index

    def forward(self, logits: Any, target: Any) -> Any:
        """-log softmax(logits)[target]."""
        return F.cross_entropy(logits, target, self.reduction, self.label_smoothing, weight=self.weight, ignore_index=self.ignore_index)


class NLLLoss(_Loss):
    """:func:`gpugrad.nn.functional.nll_loss` of logarithms of probabilities and integer labels."""

    buffer_names = ("weight",)

    def __init__(self, reduction: str = "mean", *, weight: Any = None, ignore_index: int = -100) -> None:
        super().__init__(reduction)
        check_integer("ignore_index", ignore_index)
        self.weight, self.ignore_index = _buffer(weight), ignore_index

    def forward(self, log_probability: Any, target: Any) -> Any:
        """-log_probability[target]."""
        return F.nll_loss(log_probability, target, self.reduction, weight=self.weight, ignore_index=self.ignore_index)


class KLDivLoss(_Loss):
    """:func:`gpugrad.nn.functional.kl_div`; the mean divergence of rows is that of ``reduction="batchmean"``."""

    reductions = ("batchmean",)

    def __init__(self, reduction: str = "mean", log_target: bool = False) -> None:
        super().__init__(reduction)
        self.log_target = log_target

    def forward(self, log_probability: Any, target: Any) -> Any:
        """target (log target - log_probability)."""
        return F.kl_div(log_probability, target, self.reduction, self.log_target)


class HingeLoss(_Loss):
    """:func:`gpugrad.nn.functional.hinge_loss`, the binary one, of labels -1 and 1."""

    def __init__(self, reduction: str = "mean", margin: float = 1.0) -> None:
        super().__init__(reduction)
        self.margin = margin

    def forward(self, score: Any, target: Any) -> Any:
        """max(0, margin - target score)."""
        return F.hinge_loss(score, target, self.reduction, self.margin)


class SoftMarginLoss(_Loss):
    """:func:`gpugrad.nn.functional.soft_margin_loss` of labels -1 and 1."""

    def forward(self, score: Any, target: Any) -> Any:
        """log(1 + exp(-target score))."""
        return F.soft_margin_loss(score, target, self.reduction)


class MulticlassHingeLoss(_Loss):
    """:func:`gpugrad.nn.functional.multiclass_hinge_loss`, the multiclass support vector machine's."""

    def __init__(self, reduction: str = "mean", margin: float = 1.0) -> None:
        super().__init__(reduction)
        self.margin = margin

    def forward(self, scores: Any, target: Any) -> Any:
        """sum over j != y of max(0, s_j - s_y + margin)."""
        return F.multiclass_hinge_loss(scores, target, self.reduction, self.margin)


class MultiMarginLoss(_Loss):
    """:func:`gpugrad.nn.functional.multi_margin_loss`: PyTorch's multiclass hinge, which divides by the number of classes."""

    buffer_names = ("weight",)

    def __init__(self, reduction: str = "mean", *, p: int = 1, margin: float = 1.0, weight: Any = None) -> None:
        super().__init__(reduction)
        self.p, self.margin, self.weight = p, margin, _buffer(weight)

    def forward(self, scores: Any, target: Any) -> Any:
        """The sum over j != y of max(0, margin - s_y + s_j)^p, over C."""
        return F.multi_margin_loss(scores, target, self.reduction, p=self.p, margin=self.margin, weight=self.weight)


class CosineEmbeddingLoss(_Loss):
    """:func:`gpugrad.nn.functional.cosine_embedding_loss` of pairs that are alike (1) or not (-1)."""

    def __init__(self, reduction: str = "mean", margin: float = 0.0) -> None:
        super().__init__(reduction)
        self.margin = margin

    def forward(self, x1: Any, x2: Any, target: Any) -> Any:
        """1 - cos(x1, x2), or max(0, cos(x1, x2) - margin)."""
        return F.cosine_embedding_loss(x1, x2, target, self.reduction, self.margin)


class CosineSimilarity(Module):
    """:func:`gpugrad.nn.functional.cosine_similarity` along an axis."""

    def __init__(self, dim: int = 1, eps: float = 1e-8) -> None:
        self.dim, self.eps = dim, eps

    def forward(self, x1: Any, x2: Any) -> Any:
        """x1 . x2 / (|x1| |x2|)."""
        return F.cosine_similarity(x1, x2, self.dim, self.eps)
