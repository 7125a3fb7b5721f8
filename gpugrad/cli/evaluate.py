"""``gpugrad evaluate``."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence

import numpy as np

from gpugrad.cli import model_file
from gpugrad.cli.matching import rows_for
from gpugrad.training import metrics

WIDTH = 80  # of the tables, at most
NAME = 24  # of a class's name in them, at most


def evaluate(args: argparse.Namespace) -> None:
    """Print how well the predictions agree with the target column."""
    model = model_file.load(args.model, args.device)
    x, y = rows_for(args.data, model, with_target=True)
    assert y is not None
    outputs = model.predict(x)
    print(f"{len(x):,} rows of {args.data}")
    print("\n".join(scores_of_classes(y, outputs, model.classes) if model.task == "classification" else scores_of_numbers(y, outputs, model.targets)))


# ------------------------------------------------------------------------------------------------- classification


def scores_of_classes(y: np.ndarray, probabilities: np.ndarray, classes: Sequence[str]) -> Iterator[str]:
    """The lines: confusion matrix, a row of scores for every class, and the accuracy."""
    predicted = probabilities.argmax(axis=1)
    yield ""
    yield from _confusion(metrics.confusion_matrix(predicted, y, len(classes)), classes)
    yield ""
    yield from str(metrics.classification_report(predicted, y, [_short(c, NAME) for c in classes])).splitlines()


def _confusion(matrix: np.ndarray, classes: Sequence[str]) -> Iterator[str]:
    """Rows are true classes and columns predicted ones: under their names, their first letters, or numbers; where all are too wide, the worst mistakes."""
    digits, longest = len(f"{matrix.max()}"), max(len(c) for c in classes)
    left = min(longest, NAME)
    for width in (longest, 8):
        cell = max(digits, min(longest, width)) + 2
        if left + cell * len(classes) <= WIDTH:
            yield from _matrix(matrix, [_short(c, left) for c in classes], [_short(c, cell - 2) for c in classes], cell)
            return
    numbers = [f"#{i}" for i in range(len(classes))]
    cell, left = max(digits, len(numbers[-1])) + 1, min(longest, 16)
    if left + 4 + cell * len(classes) <= WIDTH:
        yield from _matrix(matrix, [f"{n:<3} {_short(c, left)}" for n, c in zip(numbers, classes)], numbers, cell)
    else:
        yield from _mistakes(matrix, classes)


def _matrix(matrix: np.ndarray, names: Sequence[str], heads: Sequence[str], cell: int) -> Iterator[str]:
    left = max(map(len, names))
    yield "confusion matrix: a row for each true class, a column for each predicted one"
    yield " " * left + "".join(f"{head:>{cell}}" for head in heads)
    for name, row in zip(names, matrix):
        yield f"{name:<{left}}" + "".join(f"{n or '.':>{cell}}" for n in row)


def _mistakes(matrix: np.ndarray, classes: Sequence[str], most: int = 10) -> Iterator[str]:
    pairs = [(int(matrix[i, j]), i, j) for i, j in np.argwhere(matrix) if i != j]
    yield f"the most frequent mistakes of {sum(n for n, _, _ in pairs):,}" if pairs else "no mistakes"
    for n, i, j in sorted(pairs, key=lambda p: (-p[0], p[1:]))[:most]:
        yield f"{n:>8,}  {_short(classes[i], 28)} taken for {_short(classes[j], 28)}"


def _short(name: str, width: int) -> str:
    name = "".join(c if c.isprintable() else "?" for c in name)  # it comes from a file, and goes to a terminal
    return name if len(name) <= width else name[: max(width - 1, 0)] + "…"


# ------------------------------------------------------------------------------------------------- regression


def scores_of_numbers(y: np.ndarray, predicted: np.ndarray, targets: Sequence[str]) -> Iterator[str]:
    """The lines: RMSE and mean absolute error in the target's units, and R2, for every target."""
    for k, name in enumerate(targets):
        if len(targets) > 1:
            yield f"{name}:"
        yield f"RMSE: {rmse(predicted[:, k], y[:, k]):.6g}"
        yield f"MAE: {metrics.mean_absolute_error(predicted[:, k], y[:, k]):.6g}"
        yield f"R2: {metrics.r2_score(predicted[:, k], y[:, k]):.4f}"


def rmse(predicted: np.ndarray, y: np.ndarray) -> float:
    """The root of the mean squared error."""
    return float(np.sqrt(np.mean((predicted - y) ** 2)))
