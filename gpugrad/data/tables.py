"""Reader of delimited text (CSV): numbers, and a target column of numbers or classes."""

from __future__ import annotations

import math
import os
from collections.abc import Collection
from dataclasses import dataclass, field

import numpy as np

from gpugrad.data.delimited import Delimited, number, read_text
from gpugrad.data.files import DataError, Path

Target = str | int | None


@dataclass
class Table:
    """What :func:`read_csv` returns.

    Args:
        columns: the names of the columns of ``x``.
        x: float64 numbers of shape (rows, columns).
        y: the target column of shape (rows,): numbers as float64, or classes as int64 indices into ``classes``. None without a target.
        classes: the names of the classes, sorted; empty where the target is numbers.
        target: the target column's name; None without a target.
        lines: where in the file each row begins, from 1: for messages about a row.
    """

    columns: list[str]
    x: np.ndarray
    y: np.ndarray | None = None
    classes: list[str] = field(default_factory=list)
    target: str | None = None
    lines: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64), repr=False)

    @property
    def values(self) -> np.ndarray:
        """``x``: all columns, where there is no target."""
        return self.x

    def __len__(self) -> int:
        return len(self.x)


def read_csv(
    path: Path,
    target: Target = -1,
    *,
    ignore: Collection[str] = (),
    header: bool | str = "auto",
    delimiter: str = "auto",
    classes: bool | str = "auto",
    comments: str | None = "#",
    encoding: str = "utf-8",
) -> Table:
    """The table in a delimited text file, gzipped or not. Blank lines are skipped; cells may stand in double quotes.

    Args:
        target: the column to be learned, by name or by index, negative ones from the end; None: there is none.
        ignore: names of columns to leave out, which may hold anything.
        header: whether the first line holds names. "auto": where none of its cells is a number, or where other cells of it are than those of the next line.
        delimiter: one character, or " " for any blanks. "auto": whichever of tab ; , | comes equally often in the first lines, or else blanks.
        classes: whether the target is classes, even if they are called by numbers (sorted as such then). "auto": where most of
            those that differ are not numbers; a cell that is not one among many that are is an error.
        comments: lines that begin with it are skipped; None: there are none.

    Raises:
        DataError: rows of several lengths, cells that are empty, not numbers, or not finite, names that come twice, an unknown target, no rows, bytes that are not
            text in ``encoding``. The message names the file, the line from 1, and the column.
        OSError: the file cannot be opened.
    """
    file = Delimited(os.fspath(path), read_text(path, encoding), delimiter, header, comments)
    ignored = {file.index(name) for name in ignore}
    chosen = None if target is None else file.index(target)
    if chosen in ignored:
        raise DataError(f"{file.path}: column {target!r} is the target and cannot be ignored")
    values, lines, texts = file.matrix(chosen, ignored)
    kept = [i for i in range(len(file.names)) if i not in ignored and i != chosen]
    table = Table([file.names[i] for i in kept], values if len(kept) == len(file.names) else np.ascontiguousarray(values[:, kept]), lines=lines)
    if chosen is not None:
        table.target = file.names[chosen]
        table.y, table.classes = _decoded(file, table, values[:, chosen].astype(np.int64), texts, classes)
    return table


def csv_columns(path: Path, *, header: bool | str = "auto", delimiter: str = "auto", comments: str | None = "#", encoding: str = "utf-8") -> list[str]:
    """The names of the columns of a file; raises what :func:`read_csv` raises about them. Columns without a name are called "column 1" and so on."""
    return Delimited(os.fspath(path), read_text(path, encoding), delimiter, header, comments).names


def _decoded(file: Delimited, table: Table, codes: np.ndarray, texts: list[str], classes: bool | str) -> tuple[np.ndarray, list[str]]:
    """The target column, of which ``codes`` are places among ``texts``: as numbers, or as classes with their names."""
    numbers = [number(text) for text in texts]
    words = numbers.count(None)
    if classes == "auto":
        classes = 2 * words > len(texts)  # one that is not a number among many that are is an error
    odd = next((i for i, (text, x) in enumerate(zip(texts, numbers)) if not text or (not classes if x is None else not math.isfinite(x))), None)
    if odd is not None:
        remedy = " (classes=True takes the column for classes)" if texts[odd] and numbers[odd] is None else ""
        expected = "the name of a class" if classes else f"a finite number{remedy}"
        file.refuse(table.lines[np.argmax(codes == odd)], table.target or "", texts[odd], expected)
    if not classes:
        return np.array(numbers, np.float64)[codes], []
    order = sorted(range(len(texts)), key=(lambda i: (texts[i],)) if words else (lambda i: (numbers[i], texts[i])))
    place = np.empty(len(texts), np.int64)
    place[order] = np.arange(len(texts))
    return place[codes], [texts[i] for i in order]
