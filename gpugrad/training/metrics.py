"""Metrics: how good predictions are. Plain arrays of either library, or Tensors, come in; a plain array on the same device comes out, without waiting for it.

The prediction comes first, as in ``loss(prediction, target)`` (scikit-learn has it second). N is the number of examples, C of classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpugrad import backend
from gpugrad.tape import plain

__all__ = [
    "Report", "accuracy", "binary_accuracy", "classification_report", "confusion_matrix", "labels_of", "mean_absolute_error", "r2_score", "top_k_accuracy",
]  # fmt: skip


def labels_of(scores: Any) -> Any:
    """Class numbers (N,): those of the largest of the scores (N, C), the first of equal ones; class numbers stay as they are."""
    scores = backend.asarray(plain(scores))
    return scores.argmax(axis=1) if scores.ndim == 2 else scores


def accuracy(prediction: Any, target: Any) -> Any:
    """The share of right predictions.

    Args:
        prediction: (N, C) scores (logits or probabilities), of which the largest is meant, or (N,) class numbers.
        target: (N,) class numbers, or (N, C) probabilities.

    Raises:
        ValueError: the numbers of examples differ, or (N,) scores, for which see :func:`binary_accuracy`.
    """
    prediction, target = _classes("accuracy", prediction, target)
    return (prediction == target).mean()


def binary_accuracy(prediction: Any, target: Any, threshold: float = 0.0) -> Any:
    """The share of scores on the right side of ``threshold``: 0 for logits, 0.5 for probabilities. ``target`` is 0 or 1, and of the same shape.

    Raises:
        ValueError: the shapes differ.
    """
    prediction, target = _alike("binary_accuracy", prediction, target)
    return ((prediction > threshold) == (target > 0.5)).mean()


def top_k_accuracy(prediction: Any, target: Any, k: int = 5) -> Any:
    """The share of examples whose class (N,) is among the ``k`` largest of the scores (N, C); of equal scores the first count as larger. A nan is never right.

    Raises:
        ValueError: shapes that do not fit, or ``k`` is not from 1 to C.
    """
    scores, target = backend.asarray(plain(prediction)), backend.asarray(plain(target))
    if scores.ndim != 2 or target.shape != scores.shape[:1]:
        raise ValueError(f"top_k_accuracy: got scores of shape {scores.shape} and targets of shape {target.shape}, expected (N, C) and (N,)")
    if not 1 <= k <= scores.shape[1]:
        raise ValueError(f"top_k_accuracy: got k={k}, expected 1 to {scores.shape[1]}, the number of classes")
    xp = backend.namespace(scores)
    own = scores[xp.arange(len(scores)), target][:, None]
    ahead = (scores > own) | ((scores == own) & (xp.arange(scores.shape[1]) < target[:, None])) | (own != own)
    return (ahead.sum(axis=1) < k).mean()


def r2_score(prediction: Any, target: Any) -> Any:
    """The share of the target's variance that is explained, ``1 - sum (y - p)^2 / sum (y - mean y)^2``, the mean over columns: 1 is perfect, 0 is no better than the mean.

    For a column of equal targets it is 1 where all predictions are exact, else 0, as in scikit-learn. It is not a mean over examples: averaged over batches it is
    something else, so compute it for all examples together.

    Raises:
        ValueError: the shapes differ.
    """
    prediction, target = _alike("r2_score", prediction, target)
    xp = backend.namespace(prediction)
    prediction, target = prediction.reshape(len(prediction), -1).astype(np.float64), target.reshape(len(target), -1).astype(np.float64)
    residual, total = ((target - prediction) ** 2).sum(axis=0), ((target - target.mean(axis=0)) ** 2).sum(axis=0)
    constant = total == 0
    return xp.where(constant, (residual == 0) * 1.0, 1 - residual / xp.where(constant, 1.0, total)).mean()


def mean_absolute_error(prediction: Any, target: Any) -> Any:
    """The mean of ``|prediction - target|``, in the target's unit.

    Raises:
        ValueError: the shapes differ.
    """
    prediction, target = _alike("mean_absolute_error", prediction, target)
    return abs(prediction - target).mean(dtype=np.result_type(prediction.dtype, np.float32))


def confusion_matrix(prediction: Any, target: Any, classes: int | None = None) -> Any:
    """How many examples of each class (row) were taken for each class (column): integers (C, C). Arguments as for :func:`accuracy`.

    Args:
        classes: C; by default the number of columns of the scores, or one more than the largest number that occurs.

    Raises:
        ValueError: a class number below 0 or not below C.
    """
    columns = plain(prediction).shape[1] if np.ndim(plain(prediction)) == 2 else None
    prediction, target = _classes("confusion_matrix", prediction, target)
    xp = backend.namespace(prediction)
    largest = max((int(a.max()) for a in (prediction, target) if a.size), default=-1)
    n = classes or columns or largest + 1
    smallest = min((int(a.min()) for a in (prediction, target) if a.size), default=0)
    if smallest < 0 or largest >= n:
        raise ValueError(f"confusion_matrix: got class number {smallest if smallest < 0 else largest}, expected 0 to {n - 1}")
    return xp.bincount(target.astype(np.int64) * n + prediction.astype(np.int64), minlength=n * n).reshape(n, n)


@dataclass
class Report:
    """Scores of a classifier: arrays (C,) on the host, one entry per class, and means. Its text is a table.

    precision: of what was taken for the class, the share that is; recall: of the class, the share that was found; f1: their harmonic mean; 0 where there
    is nothing to divide by. ``macro`` is the mean over classes of the three, ``weighted`` that over examples.
    """

    names: list[str]
    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray
    support: np.ndarray
    accuracy: float
    macro: tuple[float, float, float]
    weighted: tuple[float, float, float]

    def to_dict(self) -> dict[str, Any]:
        """The same as dicts and numbers, for JSON."""
        scores = ("precision", "recall", "f1")
        each = {
            name: {**{s: float(getattr(self, s)[i]) for s in scores}, "support": int(self.support[i])}
            for i, name in enumerate(self.names)
        }  # fmt: skip
        return {"classes": each, "accuracy": self.accuracy, "macro": dict(zip(scores, self.macro)), "weighted": dict(zip(scores, self.weighted))}

    def __str__(self) -> str:
        rows = [(n, *(f"{v:.4f}" for v in (p, r, f)), f"{s:d}") for n, p, r, f, s in zip(self.names, self.precision, self.recall, self.f1, self.support)]
        total = f"{int(self.support.sum())}"
        rows += [("mean of classes", *(f"{v:.4f}" for v in self.macro), total), ("mean of examples", *(f"{v:.4f}" for v in self.weighted), total)]
        width = max(len(row[0]) for row in rows)
        lines = [f"{'':{width}}  precision    recall        f1   support"]
        lines += [f"{name:<{width}}  {p:>9}  {r:>8}  {f:>8}  {s:>8}" for name, p, r, f, s in rows]
        return "\n".join([*lines, f"{'accuracy':<{width}}  {self.accuracy:>9.4f}"])


def classification_report(prediction: Any, target: Any, classes: Sequence[Any] | int | None = None) -> Report:
    """Precision, recall, f1 and support of every class. Arguments as for :func:`confusion_matrix`; ``classes`` may be the classes' names.

    Raises:
        ValueError: as :func:`confusion_matrix`, or no examples.
    """
    n = classes if classes is None or isinstance(classes, int) else len(classes)
    counts = backend.to_device(confusion_matrix(prediction, target, n), "cpu")
    names = [str(c) for c in (range(len(counts)) if n is None or isinstance(classes, int) else classes)]  # type: ignore[union-attr]
    right, taken, support = np.diagonal(counts), counts.sum(axis=0), counts.sum(axis=1)
    if not support.sum():
        raise ValueError("classification_report: got no examples, expected at least one")
    precision, recall, f1 = _ratio(right, taken), _ratio(right, support), _ratio(2 * right, taken + support)
    scores, weights = np.stack([precision, recall, f1]), support / support.sum()
    macro, weighted = (tuple(float(v) for v in scores @ w) for w in (np.full(len(counts), 1 / len(counts)), weights))
    return Report(names, precision, recall, f1, support, float(right.sum() / support.sum()), macro, weighted)  # type: ignore[arg-type]


def _ratio(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.where(b == 0, 0.0, a / np.maximum(b, 1))


def _classes(name: str, prediction: Any, target: Any) -> tuple[Any, Any]:
    prediction, target = labels_of(prediction), labels_of(target)
    if prediction.ndim != 1 or prediction.shape != target.shape:
        raise ValueError(f"{name}: got predictions of shape {prediction.shape} and targets of shape {target.shape}, expected one of each per example")
    if prediction.dtype.kind == "f":
        raise ValueError(
            f"{name}: got one {prediction.dtype} per example, expected (N, C) scores or (N,) class numbers; for scores of two classes use binary_accuracy"
        )
    return prediction, target


def _alike(name: str, prediction: Any, target: Any) -> tuple[Any, Any]:
    prediction, target = backend.asarray(plain(prediction)), backend.asarray(plain(target))
    if prediction.shape != target.shape:
        raise ValueError(f"{name}: got a target of shape {target.shape}, expected {prediction.shape}, that of the prediction; reshape one of them")
    return prediction, target
