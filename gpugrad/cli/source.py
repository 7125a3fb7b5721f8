"""Files of data as rows of named columns: CSV, .npz, and MNIST's IDX."""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
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


def read(path: str, target: str | None = None, ignore: Collection[str] = ()) -> Source:
    """A file to learn from.

    Raises:
        RefusalError: there is none, or it cannot be used; file, row and column are named where there are any.
    """
    with _reading(path, remedy="; --ignore leaves columns out"):
        return (_from_arrays if _holds_arrays(path) else _from_csv)(path, target, ignore)


def read_known(path: str, columns: list[str], targets: list[str], with_target: bool) -> Source:
    """A file for a model: its columns in their order, and its targets, if they are asked for. Columns of other names are passed over, with a line on stderr.

    Of a data set that keeps rows for testing, these are what is read. An array x, and images, go by the order of their columns.

    Raises:
        RefusalError: there is no such file, or it lacks columns; they are named.
    """
    with _reading(path):
        return (_known_arrays if _holds_arrays(path) else _known_csv)(path, columns, targets, with_target)


def _holds_arrays(path: str) -> bool:
    return os.path.isdir(path) or path.endswith(".npz")


@contextmanager
def _reading(path: str, remedy: str = "") -> Iterator[None]:
    """What the readers and the system say against a file becomes a refusal."""
    try:
        yield
    except data.DataError as error:
        text, is_encoded, _ = str(error).partition("; encoding=")
        raise RefusalError(f"{text}; convert it to UTF-8" if is_encoded else text + (remedy if "number" in text else "")) from None
    except FileNotFoundError as error:
        raise RefusalError(f"there is no file {path!r}" if error.errno else error) from None
    except OSError as error:
        raise RefusalError(f"cannot read {path!r}: {error.strerror or error}") from None


def _check_names(path: str, names: Sequence[str], columns: Sequence[str], targets: Sequence[str], with_target: bool) -> None:
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


# ------------------------------------------------------------------------------------------------- arrays: .npz and IDX


def _arrays(path: str) -> tuple[dict[str, np.ndarray], int]:
    """The arrays of a file, and how many of their last rows are for testing: x_train and x_test become x, and y_train and y_test y."""
    arrays = data.read_npz(path) if path.endswith(".npz") else dict(zip(("x_train", "y_train", "x_test", "y_test"), data.load_mnist(path), strict=True))
    if not arrays:
        raise RefusalError(f"{path!r} holds no arrays")
    if not {"x_train", "y_train", "x_test", "y_test"} <= set(arrays):
        return arrays, 0
    return {k: np.concatenate([arrays[f"{k}_train"], arrays[f"{k}_test"]]) for k in "xy"}, len(arrays["x_test"])


def _from_arrays(path: str, target: str | None, ignore: Collection[str]) -> Source:
    """Arrays x and y, or else every array as a column, or as many columns as it has."""
    arrays, held_out = _arrays(path)
    arrays = _without(path, arrays, ignore)
    target = choose_target(path, list(arrays), target)
    y = arrays.pop(target)
    unnamed = "x" in arrays
    inputs = {"x": arrays["x"]} if unnamed else arrays
    _check_lengths(path, {**inputs, target: y})
    columns, x = _side_by_side(path, inputs)
    targets = _names(target, y)
    pixels = os.path.isdir(path) or (unnamed and inputs["x"].dtype == np.uint8)
    return checked(Source(path, columns, x, targets, y, pixels=pixels, held_out=held_out))


def _known_arrays(path: str, columns: list[str], targets: list[str], with_target: bool) -> Source:
    arrays, held_out = _arrays(path)
    outputs = {name: a for name, a in arrays.items() if _names(name, a) == targets}
    if not outputs and {"x", "y"} <= set(arrays) and len(_names("y", arrays["y"])) == len(targets):
        outputs = {"y": arrays["y"]}  # as x does, it goes by the order of its columns
    inputs = {"x": arrays["x"]} if "x" in arrays else {name: a for name, a in arrays.items() if name not in outputs}
    _check_lengths(path, {**inputs, **(outputs if with_target else {})})
    names, x = _side_by_side(path, {name: a for name, a in inputs.items() if set(_names(name, a)) & set(columns) or "x" in arrays})
    if "x" in arrays:
        if len(names) != len(columns):
            raise RefusalError(f"{path!r}: x has {len(names)} columns, and the model needs {len(columns)}: {listed(columns)}")
        _check_names(path, [*columns, *(targets if outputs else [])], columns, targets, with_target)
    else:
        _check_names(path, [c for name, a in arrays.items() for c in _names(name, a)], columns, targets, with_target)
        x = x[:, [names.index(c) for c in columns]]
    y = next(iter(outputs.values()), None) if with_target else None
    rows = slice(len(x) - held_out, None) if held_out else slice(None)
    return checked(Source(path, columns, x[rows], targets if with_target else [], None if y is None else y[rows]))


def _without(path: str, arrays: dict[str, np.ndarray], ignore: Collection[str]) -> dict[str, np.ndarray]:
    for name in ignore:
        if name not in arrays:
            raise RefusalError(f"--ignore: {path!r} has no column {name!r}; {alike(name, arrays)}")
    return {name: a for name, a in arrays.items() if name not in ignore}


def _names(name: str, a: np.ndarray) -> list[str]:
    """What the columns of an array are called: one of a single axis is a column, others have one for each element of a row."""
    return [name] if a.ndim < 2 else [f"{name}_{i}" for i in range(int(np.prod(a.shape[1:])))]


def _side_by_side(path: str, arrays: dict[str, np.ndarray]) -> tuple[list[str], np.ndarray]:
    """Names and numbers of the columns of all arrays."""
    for name, a in arrays.items():
        if a.dtype.kind not in "biuf":
            raise RefusalError(f"{path!r}: {name!r} is an array of {a.dtype}, expected numbers (or leave it out: --ignore {name})")
    dtype = np.float32 if all(a.dtype in (np.uint8, np.float32) for a in arrays.values()) else np.float64
    blocks = [a.reshape(len(a), len(_names(name, a))).astype(dtype, copy=False) for name, a in arrays.items()]
    return [c for name, a in arrays.items() for c in _names(name, a)], np.concatenate(blocks, axis=1) if blocks else np.zeros((0, 0))


def _check_lengths(path: str, arrays: dict[str, np.ndarray]) -> None:
    lengths = {name: len(a) if a.ndim else None for name, a in arrays.items()}
    if len(set(lengths.values())) > 1 or None in lengths.values():
        said = ", ".join(f"{name} {'none' if n is None else n}" for name, n in lengths.items())
        raise RefusalError(f"{path!r}: all arrays must have the same number of rows, got {said}")


# ------------------------------------------------------------------------------------------------- CSV


def _from_csv(path: str, target: str | None, ignore: Collection[str]) -> Source:
    names = data.csv_columns(path)
    for name in ignore:
        if name not in names:
            raise RefusalError(f"--ignore: {path!r} has no column {name!r}; {alike(name, names)}")
    return _csv(path, ignore, choose_target(path, [n for n in names if n not in ignore], target))


def _known_csv(path: str, columns: list[str], targets: list[str], with_target: bool) -> Source:
    names, target = data.csv_columns(path), targets[0] if with_target else None
    _check_names(path, names, columns, targets, with_target)
    rows = _csv(path, [n for n in names if n not in columns and n != target], target)
    return replace(rows, columns=columns, x=rows.x[:, [rows.columns.index(c) for c in columns]])


def _csv(path: str, ignore: Collection[str], target: str | None) -> Source:
    table = data.read_csv(path, target, ignore=ignore)
    y = np.array(table.classes)[table.y] if table.classes else table.y
    return checked(Source(path, table.columns, table.x, [] if target is None else [target], y, lines=table.lines))


# ------------------------------------------------------------------------------------------------- names


def choose_target(path: str, names: Sequence[str], target: str | None) -> str:
    """The column that is to be learned: ``target``, or one with a usual name, or the last.

    Raises:
        RefusalError: there is no such column; those that are called alike are named.
    """
    if target is None:
        usual = [name for name in names if name.lower() in TARGETS]
        return usual[0] if usual else names[-1]
    if target not in names:
        raise RefusalError(f"--target: {path!r} has no column {target!r}; {alike(target, names)}")
    return target


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
