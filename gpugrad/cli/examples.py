"""What ``gpugrad train`` learns from: the rows of a file as numbers, the task, and the split."""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import numpy as np

from gpugrad import data, random
from gpugrad.cli import readers, source
from gpugrad.cli.model_file import standardizer
from gpugrad.cli.refusal import RefusalError
from gpugrad.cli.source import Source

Rows = tuple[np.ndarray, np.ndarray]
FEW = 20  # whole numbers are taken for classes where there are at most this many different ones ...
EACH = 4  # ... with at least so many rows each, on average


@dataclass
class Parts:
    """Rows for training, validation and testing: x (n, columns) in the units of the file; y (n,) numbers of classes, or (n, targets) in its units.

    ``inputs`` and ``outputs`` standardise them, and have seen the training rows only.
    """

    name: str
    task: str
    columns: list[str]
    targets: list[str]
    classes: list[str]
    train: Rows
    validation: Rows
    test: Rows
    inputs: data.Standardizer
    outputs: data.Standardizer | None


def load(args: argparse.Namespace) -> Parts:
    """The data that the options ask for.

    Raises:
        RefusalError: it cannot be read, or is of no use for the task.
    """
    if args.data is None:
        if args.target is not None or args.task == "regression" or args.ignore:
            raise RefusalError("--target, --task and --ignore are about the columns of a file: add --data FILE")
        rows = source.digits(args.test, args.seed)
    else:
        rows = readers.read(args.data, args.target, args.ignore)
    task = args.task if args.task != "auto" else "classification" if _look_like_classes(rows) else "regression"
    y, classes = _coded(rows) if task == "classification" else (source.numbers(rows), [])
    if not y.size:
        raise RefusalError(f"{args.data!r}: the targets have shape {y.shape}: there is nothing to learn")
    train, validation, test = _split(rows, y if classes else np.zeros(len(y)), args)
    _check_classes(rows, y[train], classes)
    x = rows.x
    return Parts(
        rows.name, task, rows.columns, rows.targets, classes, (x[train], y[train]), (x[validation], y[validation]), (x[test], y[test]),
        _scale(rows, train), None if classes else data.Standardizer().fit(y[train]),
    )  # fmt: skip


def _scale(rows: Source, train: np.ndarray) -> data.Standardizer:
    """How the inputs are standardised: each column by itself; pixels all alike, so that one that is nearly always 0 is not blown up."""
    if rows.pixels:
        return standardizer(0.0, 16.0) if rows.path == source.DIGITS else data.Standardizer(axis=None).fit(rows.x[train])
    return data.Standardizer().fit(rows.x[train])


# ------------------------------------------------------------------------------------------------- the task


def _look_like_classes(rows: Source) -> bool:
    y = rows.y
    if y is None or y.ndim > 1:
        return False
    if rows.pixels or y.dtype.kind not in "iuf":
        return True
    different = np.unique(y)
    return bool((different == np.floor(different)).all()) and len(different) <= min(FEW, len(y) // EACH)


def _coded(rows: Source) -> tuple[np.ndarray, list[str]]:
    """The number of each row's class, and the names of the classes: numbers in their order, text in alphabetical order."""
    y = rows.y
    assert y is not None
    if y.ndim > 1:
        raise RefusalError(f"{rows.path!r}: classes stand in one column, and the target has {y.shape[1]}")
    if y.dtype.kind == "f" and (wrong := np.flatnonzero(y != np.floor(y))).size:
        raise RefusalError(
            f"{rows.where(wrong[0], rows.targets[0])}: {y[wrong[0]]:g} is no class, which are whole numbers or text; for numbers use --task regression"
        )
    values, codes = np.unique(y, return_inverse=True)
    if len(values) == 1:
        raise RefusalError(f"{rows.path!r}: column {rows.targets[0]!r} has one class only, {source.label(values[0])!r}: there is nothing to tell apart")
    if len(values) == len(y) > 2:
        raise RefusalError(f"{rows.path!r}: no two rows have the same {rows.targets[0]!r}, so these are no classes; choose another --target")
    return codes.astype(np.int64), [source.label(v) for v in values]


# ------------------------------------------------------------------------------------------------- the split


def _split(rows: Source, labels: np.ndarray, args: argparse.Namespace) -> list[np.ndarray]:
    """The numbers of the rows for training, validation and testing."""
    n = len(labels)
    if rows.held_out:
        given, test = np.arange(n - rows.held_out), [np.arange(n - rows.held_out, n)]
        shares = [1 - args.validation, args.validation]
    else:
        given, test = np.arange(n), []
        shares = [1 - args.validation - args.test, args.validation, args.test]
    if shares[0] <= 0:
        raise RefusalError(f"--validation {args.validation:g} and --test {args.test:g} leave nothing to learn from")
    parts = data.random_split(given, shares, stratify=labels[given], generator=random.Generator(args.seed))
    split = [p.indices for p in parts] + test
    for option, rows_of, share in zip(("training", "--validation", "--test"), split, shares):
        if share and not len(rows_of):
            raise RefusalError(f"{rows.path!r} has {n} row{'s' if n > 1 else ''}, which is too few for a split: none are left for {option} {share:g}")
    return split


def _check_classes(rows: Source, train: np.ndarray, classes: list[str]) -> None:
    if classes and len(missing := np.flatnonzero(np.bincount(train, minlength=len(classes)) == 0)):
        remedy = "; for numbers use --task regression" if rows.y is not None and rows.y.dtype.kind in "iuf" else ""
        raise RefusalError(f"{rows.path!r}: class {classes[missing[0]]!r} of column {rows.targets[0]!r} has too few rows: none is left to learn from{remedy}")
