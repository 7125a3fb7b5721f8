"""Rows of named columns, whatever file they come from."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpugrad import data
from gpugrad.cli.refusal import RefusalError, refusing

TARGETS = ("target", "label", "class", "y")  # what a column is called that is to be learned, unless --target says otherwise
DIGITS = "the digits"


@dataclass
class Source:
    """What a file holds.

    Args:
        columns: the names of the inputs.
        x: (n, columns), float32 where it loses nothing, else float64.
        targets: the names of what is to be learned; empty where there is nothing of the kind.
        y: that, as it is in the file: text or numbers of shape (n,), or numbers of shape (n, targets).
        name: what the rows are.
        pixels: whether all columns are of one kind, and have one unit.
        held_out: how many rows at the end the data set itself keeps for testing.
        lines: where in the file each row begins, if it is a text.
    """

    path: str
    columns: list[str]
    x: np.ndarray
    targets: list[str]
    y: np.ndarray | None
    name: str = "rows"
    pixels: bool = False
    held_out: int = 0
    lines: np.ndarray | None = None

    def where(self, row: int, column: str) -> str:
        """The place of a cell, for messages: lines count from 1, rows of arrays from 0."""
        return f"{self.path}, {f'row {row}' if self.lines is None else f'line {self.lines[row]}'}, column {column!r}"


def digits(test_fraction: float, seed: int) -> Source:
    """The handwritten digits of scikit-learn with pixels from 0 to 16, as they are there. The test rows stand at the end.

    Raises:
        RefusalError: scikit-learn is missing.
    """
    with refusing(ImportError):
        x, y, x_test, y_test = data.load_digits(test_fraction or 0.5, seed)
    columns = [f"pixel_{i}_{j}" for i in range(8) for j in range(8)]
    images = np.concatenate([x, x_test]).astype(np.float64) * 16
    return Source(DIGITS, columns, images, ["target"], np.concatenate([y, y_test]), "digits", True, len(x_test) if test_fraction else 0)


# ------------------------------------------------------------------------------------------------- names


def choose_target(path: str, names: Sequence[str], target: str | None) -> str:
    """The column that is to be learned: ``target``, or one with a usual name, or the last.

    Raises:
        RefusalError: there is no such column; those that are called alike are named.
    """
    if not names:
        raise RefusalError(f"{path!r} has no columns that are left")
    if target is None:
        usual = [name for name in names if name.lower() in TARGETS]
        return usual[0] if usual else names[-1]
    if target not in names:
        raise RefusalError(f"--target: {path!r} has no column {target!r}; {alike(target, names)}")
    return target


def check_names(path: str, names: Sequence[str], columns: Sequence[str], targets: Sequence[str], with_target: bool) -> None:
    """Refuse a file that lacks columns of a model; pass over those that the model does not know, with a line on stderr."""
    missing = [c for c in columns if c not in names]
    unexpected = [n for n in names if n not in columns and n not in targets]
    if missing:
        has = f", and has {listed(unexpected)}, which the model does not know" if unexpected else ""
        raise RefusalError(f"{path!r} lacks {listed(missing)}, which the model needs{has}")
    for name in targets if with_target else ():
        if name not in names:
            raise RefusalError(f"{path!r} has no target column {name!r} to compare with; {alike(name, unexpected) if unexpected else 'it has the inputs only'}")
    if unexpected:
        print(f"gpugrad: note: passed over {listed(unexpected)} of {path!r}, which the model does not know", file=sys.stderr)


def alike(name: str, names: Iterable[str]) -> str:
    """A remark on the names that are close to one that is not there."""
    names = list(names)
    close = difflib.get_close_matches(name.lower(), [n.lower() for n in names], 3, 0.5)
    found = [n for n in names if n.lower() in close]
    return f"did you mean {listed(found, 'or')}?" if found else f"it has {listed(names)}"


def listed(names: Sequence[str], last: str = "and", most: int = 8) -> str:
    """The names in quotes; of many the first few."""
    quoted = [repr(n) for n in names[:most]]
    if len(names) > most:
        return f"{', '.join(quoted)} and {len(names) - most} more"
    return f" {last} ".join([", ".join(quoted[:-1]), quoted[-1]]) if len(quoted) > 1 else "".join(quoted)


def checked(source: Source) -> Source:
    """The same, if it has rows and columns, all of whose numbers are finite.

    Raises:
        RefusalError: it does not.
    """
    if not source.columns:
        raise RefusalError(f"{source.path!r} has no column besides {source.targets[0]!r}: there is nothing to learn it from")
    if not len(source.x):
        raise RefusalError(f"{source.path!r} has no rows")
    for columns, values in ((source.columns, source.x), (source.targets, source.y)):
        if values is None or values.dtype.kind != "f" or np.isfinite(values).all():
            continue
        row, column = np.argwhere(~np.isfinite(values.reshape(len(values), len(columns))))[0]
        raise RefusalError(f"{source.where(row, columns[column])}: {values.reshape(len(values), len(columns))[row, column]} is not a number to learn from")
    return source


def label(value: Any) -> str:
    """The name of a class: a whole number without a point."""
    return str(int(value)) if isinstance(value, (float, np.floating)) and value == int(value) else str(value)


def numbers(rows: Source) -> np.ndarray:
    """What regression predicts, (n, targets).

    Raises:
        RefusalError: it is text.
    """
    assert rows.y is not None
    if rows.y.dtype.kind in "biuf":
        return rows.y.reshape(len(rows.y), -1).astype(np.float64)
    row = next(i for i, text in enumerate(rows.y.tolist()) if not _is_number(text))
    raise RefusalError(f"{rows.where(row, rows.targets[0])}: {str(rows.y[row])[:40]!r} is not a number, which regression predicts")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
