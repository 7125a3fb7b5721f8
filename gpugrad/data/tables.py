"""Reader of delimited text (CSV): numbers, and a target column of numbers or classes."""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, NoReturn

import numpy as np

from gpugrad.data.files import DataError, Path, one_line, opened

Target = str | int | None
_DELIMITERS = "\t;,|"
_LOOKED_AT = 20  # lines from which the delimiter is guessed


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
    encoding: str = "utf-8",
) -> Table:
    """The table in a delimited text file, gzipped or not. Blank lines, and lines that begin with ``#``, are skipped; cells may stand in double quotes.

    Args:
        target: the column to be learned, by name or by index, negative ones from the end; None: there is none.
        ignore: names of columns to leave out, which may hold anything.
        header: whether the first line holds names. "auto": where none of its cells is a number, or where other cells of it are than those of the next line.
        delimiter: one character, or " " for any blanks. "auto": whichever of tab ; , | comes equally often in the first lines, or else blanks.
        classes: whether the target is classes, even if they are called by numbers (sorted as such then). "auto": where most of
            those that differ are not numbers; a cell that is not one among many that are is an error.

    Raises:
        DataError: rows of several lengths, cells that are empty, not numbers, or not finite, names that come twice, an unknown target, no rows, bytes that are not
            text in ``encoding``. The message names the file, the line from 1, and the column.
        OSError: the file cannot be opened.
    """
    return _Reader(os.fspath(path), _text(path, encoding), delimiter, header).read(target, ignore, classes)


def csv_columns(path: Path, *, header: bool | str = "auto", delimiter: str = "auto", encoding: str = "utf-8") -> list[str]:
    """The names of the columns of a file; raises what :func:`read_csv` raises about them. Columns without a name are called "column 1" and so on."""
    return _Reader(os.fspath(path), _text(path, encoding), delimiter, header).names


def _text(path: Path, encoding: str) -> str:
    with opened(path) as file:
        content = file.read()
    if encoding.lower().replace("_", "-") in ("utf-8", "utf8"):
        encoding = "utf-8-sig"
    try:
        text = content.decode(encoding)
    except UnicodeError as error:
        start = getattr(error, "start", 0)
        line = content[:start].count(b"\n") + 1
        remedy = "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "latin-1"
        raise DataError(
            f"{os.fspath(path)}, line {line}: not {encoding.removesuffix('-sig')} text ({one_line(error)}); encoding={remedy!r} may be right"
        ) from None
    if "\0" in text:
        raise DataError(f"{os.fspath(path)}, line {text[: text.index(chr(0))].count(chr(10)) + 1}: a zero byte, which text does not have")
    return text


class _Reader:
    """A file: its lines, and its names once the header has been read."""

    def __init__(self, path: str, text: str, delimiter: str, header: bool | str) -> None:
        self.path = path
        lines = io.StringIO(text, newline=None).readlines()
        self.numbers = [i for i, line in enumerate(lines, 1) if not (line.isspace() or line.lstrip().startswith("#"))]
        self.lines = lines if len(self.numbers) == len(lines) else [lines[i - 1] for i in self.numbers]
        self.quoted = '"' in text
        if not self.lines:
            raise DataError(f"{path}: no data: the file is empty" + (", but for blank lines and comments" if lines else ""))
        if not (delimiter == "auto" or len(delimiter) == 1):
            raise ValueError(f"delimiter must be one character or 'auto', got {delimiter!r}")
        self.delimiter = _guessed(self.lines[:_LOOKED_AT]) if delimiter == "auto" else delimiter
        (_, first), *rest = islice(self.records(), 2)
        self.has_header = _is_header(first, rest[0][1] if rest else None) if header == "auto" else bool(header)
        self.names = [c.strip() or f"column {i}" for i, c in enumerate(first, 1)] if self.has_header else [f"column {i}" for i in range(1, len(first) + 1)]
        twice = next((name for name in self.names if self.names.count(name) > 1), None)
        if twice is not None:
            raise DataError(f"{path}, line {self.numbers[0]}, column {twice!r}: this name comes {self.names.count(twice)} times")

    # ------------------------------------------------------------------------------------------------- what to read

    def read(self, target: Target, ignore: Collection[str], classes: bool | str) -> Table:
        """The table."""
        ignored = {self._index(name) for name in ignore}
        chosen = None if target is None else self._index(target)
        if chosen in ignored:
            raise DataError(f"{self.path}: column {target!r} is the target and cannot be ignored")
        kept = [i for i in range(len(self.names)) if i not in ignored and i != chosen]
        cells: dict[str, float] = {}  # what stands in the target column, and a number for each
        values, lines = self._quickly(chosen, ignored, cells) or self._exactly(chosen, ignored, cells)
        if not len(values):
            raise DataError(f"{self.path}: no data: nothing follows the header")
        table = Table([self.names[i] for i in kept], np.ascontiguousarray(values[:, kept]) if chosen is not None or ignored else values, lines=lines)
        if chosen is not None:
            table.target = self.names[chosen]
            table.y, table.classes = self._coded(values[:, chosen].astype(np.int64), list(cells), classes, lines, table.target)
        return table

    def _index(self, column: str | int) -> int:
        n = len(self.names)
        if isinstance(column, str):
            if column in self.names:
                return self.names.index(column)
            raise DataError(f"{self.path}: no column {column!r}: there are {', '.join(map(repr, self.names[:30]))}{' and more' if n > 30 else ''}")
        if not -n <= column < n:
            raise DataError(f"{self.path}: no column {column}: there are {n}")
        return column % n

    def _coded(self, codes: np.ndarray, cells: list[str], classes: bool | str, lines: np.ndarray, name: str) -> tuple[np.ndarray, list[str]]:
        """The target column as numbers, or as classes with their names."""
        numbers = [_number(c) for c in cells]
        texts = numbers.count(None)
        if classes == "auto":
            classes = 2 * texts > len(cells)  # one that is not a number among many that are is an error
        odd = next((i for i, (c, x) in enumerate(zip(cells, numbers)) if not c or (not classes if x is None else not math.isfinite(x))), None)
        if odd is not None:
            expected = (
                "the name of a class"
                if classes
                else "a finite number" + (" (classes=True takes the column for classes)" if cells[odd] and numbers[odd] is None else "")
            )
            self._refuse(lines[np.argmax(codes == odd)], name, cells[odd], expected)
        if not classes:
            return np.array(numbers, np.float64)[codes], []
        order = sorted(range(len(cells)), key=(lambda i: (cells[i],)) if texts else (lambda i: (numbers[i], cells[i])))
        place = np.empty(len(cells), np.int64)
        place[order] = np.arange(len(cells))
        return place[codes], [cells[i] for i in order]

    # ------------------------------------------------------------------------------------------------- how to read it

    def _quickly(self, target: int | None, ignored: set[int], cells: dict[str, float]) -> tuple[np.ndarray, np.ndarray] | None:
        """By NumPy's parser; None where that finds anything wrong, or where cells are quoted, of which it takes what is not allowed."""
        lines, numbers = (self.lines[1:], self.numbers[1:]) if self.has_header else (self.lines, self.numbers)
        if not lines or (self.quoted and any('"' in line for line in lines)):
            return None
        converters: dict[int, Any] = dict.fromkeys(ignored, lambda _: 0.0)
        if target is not None:
            converters[target] = lambda cell: cells.setdefault(cell.strip(), len(cells))
        options: Any = {"converters": converters, "delimiter": self.delimiter.strip(" ") or None}
        try:
            values = np.loadtxt(lines, comments=None, ndmin=2, encoding=None, **options)
        except ValueError:
            values = None
        if values is None or values.shape != (len(lines), len(self.names)) or not np.isfinite(values).all():
            cells.clear()
            return None
        return values, np.array(numbers)

    def _exactly(self, target: int | None, ignored: set[int], cells: dict[str, float]) -> tuple[np.ndarray, np.ndarray]:
        """By the csv module, column by column, which finds the place of what is wrong."""
        rows, lines, names = [], [], self.names
        for line, record in islice(self.records(), int(self.has_header), None):
            if len(record) != len(names):
                where = f", column {names[len(record)]!r}" if len(record) < len(names) else ""
                raise DataError(f"{self.path}, line {line}{where}: {len(record)} cells, expected {len(names)} as in line {self.numbers[0]}")
            rows.append(record)
            lines.append(line)
        values, wrong = np.zeros((len(rows), len(names))), []
        for i, column in enumerate(zip(*rows)):
            if i == target:
                values[:, i] = [cells.setdefault(cell.strip(), len(cells)) for cell in column]
            elif i not in ignored:
                first = _fill(values[:, i], column)
                wrong += [] if first is None else [(first, i)]
        if wrong:
            row, i = min(wrong)
            self._refuse(lines[row], names[i], rows[row][i].strip())
        return values, np.array(lines, np.int64)

    def records(self) -> Iterator[tuple[int, list[str]]]:
        """The cells of each record, and the line in which it begins."""
        if self.delimiter == " " and not self.quoted:
            yield from zip(self.numbers, map(str.split, self.lines))
            return
        reader = csv.reader(self.lines, delimiter=self.delimiter, skipinitialspace=True, strict=True)
        begin = 0
        try:
            for record in reader:
                yield self.numbers[begin], [cell for cell in record if cell] if self.delimiter == " " else record
                begin = reader.line_num
        except csv.Error as error:
            raise DataError(f"{self.path}, line {self.numbers[min(begin, len(self.numbers) - 1)]}: {one_line(error)}") from None

    def _refuse(self, line: int, column: str, cell: str, expected: str = "a finite number") -> NoReturn:
        shown = repr(cell if len(cell) <= 40 else cell[:37] + "...") if cell else "an empty cell"
        comma = " (is that a decimal comma?)" if _number(cell) is None and _number(cell.replace(",", ".")) is not None else ""
        raise DataError(f"{self.path}, line {line}, column {column!r}: got {shown}{comma}, expected {expected}")


def _fill(out: np.ndarray, cells: Sequence[str]) -> int | None:
    """Write the numbers of a column; returns where the first stands that is none, or not finite."""
    with suppress(ValueError):
        out[:] = list(map(float, cells))
        if np.isfinite(out).all() and "_" not in "".join(cells):
            return None
    for i, cell in enumerate(cells):
        number = _number(cell)
        if number is None or not math.isfinite(number):
            return i
        out[i] = number
    return None


def _number(cell: str) -> float | None:
    try:
        return None if "_" in cell else float(cell.strip())  # Python reads 1_000
    except ValueError:
        return None


def _guessed(lines: list[str]) -> str:
    """The delimiter of the first lines."""
    for mark in _DELIMITERS:
        counts = {_outside_quotes(line).count(mark) for line in lines}
        if len(counts) == 1 and counts != {0}:
            return mark
    cells = {len(line.split()) for line in lines}
    if len(cells) == 1 and cells != {1} and not any("," in line for line in lines):
        return " "
    return max(_DELIMITERS, key=lambda mark: (_outside_quotes(lines[0]).count(mark), mark == ","))


def _outside_quotes(line: str) -> str:
    return "".join(line.split('"')[::2]) if '"' in line else line


def _is_header(first: list[str], second: list[str] | None) -> bool:
    text = [_number(c) is None for c in first]
    return all(text) or (any(text) and second is not None and text != [_number(c) is None for c in second])
