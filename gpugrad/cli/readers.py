"""Files of data as rows of named columns: CSV, .npz, and MNIST's IDX."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np

from gpugrad import data
from gpugrad.cli.refusal import RefusalError
from gpugrad.cli.source import Source, alike, check_names, checked, choose_target, listed


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
    y = _column(arrays.pop(target))
    unnamed = "x" in arrays
    inputs = {"x": arrays["x"]} if unnamed else arrays
    _check_lengths(path, {**inputs, target: y})
    columns, x = _side_by_side(path, inputs)
    targets = _names(target, y)
    pixels = os.path.isdir(path) or (unnamed and inputs["x"].dtype == np.uint8)
    return checked(Source(path, columns, x, targets, y, pixels=pixels, held_out=held_out))


def _known_arrays(path: str, columns: list[str], targets: list[str], with_target: bool) -> Source:
    arrays, held_out = _arrays(path)
    outputs = {name: a for name, a in arrays.items() if _names(name, _column(a)) == targets}
    if not outputs and {"x", "y"} <= set(arrays) and len(_names("y", _column(arrays["y"]))) == len(targets):
        outputs = {"y": arrays["y"]}  # as x does, it goes by the order of its columns
    inputs = {"x": arrays["x"]} if "x" in arrays else {name: a for name, a in arrays.items() if name not in outputs}
    _check_lengths(path, {**inputs, **(outputs if with_target else {})})
    names, x = _side_by_side(path, {name: a for name, a in inputs.items() if set(_names(name, a)) & set(columns) or "x" in arrays})
    if "x" in arrays:
        if len(names) != len(columns):
            raise RefusalError(f"{path!r}: x has {len(names)} columns, and the model needs {len(columns)}: {listed(columns)}")
        check_names(path, [*columns, *(targets if outputs else [])], columns, targets, with_target)
    else:
        check_names(path, [c for name, a in arrays.items() for c in _names(name, a)], columns, targets, with_target)
        x = x[:, [names.index(c) for c in columns]]
    y = _column(next(iter(outputs.values()))) if with_target else None
    rows = slice(len(x) - held_out, None) if held_out else slice(None)
    return checked(Source(path, columns, x[rows], targets if with_target else [], None if y is None else y[rows]))


def _column(y: np.ndarray) -> np.ndarray:
    """A target, of which bytes are text, and a matrix of one column is a column."""
    y = np.char.decode(y, "utf-8", "replace") if y.dtype.kind == "S" else y
    return y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y


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
    names, wanted = data.csv_columns(path), targets if with_target else []
    check_names(path, names, columns, targets, with_target)
    rows = _csv(path, [n for n in names if n not in columns and n not in wanted], wanted[0] if len(wanted) == 1 else None)
    taken = lambda some: rows.x[:, [rows.columns.index(c) for c in some]]
    return replace(rows, columns=columns, x=taken(columns), targets=wanted, y=taken(wanted) if len(wanted) > 1 else rows.y)


def _csv(path: str, ignore: Collection[str], target: str | None) -> Source:
    table = data.read_csv(path, target, ignore=ignore)
    y = np.array(table.classes)[table.y] if table.classes else table.y
    return checked(Source(path, table.columns, table.x, [] if target is None else [target], y, lines=table.lines))
