"""Delimited text as records of cells, and as a matrix of numbers; what is wrong with it, by line and column."""

from __future__ import annotations

import csv
import io
import math
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import islice
from typing import Any, NoReturn

import numpy as np

from gpugrad.data.files import DataError, Path, one_line, opened

_DELIMITERS = "\t;,|"
_LOOKED_AT = 20  # lines from which the delimiter is guessed


class Delimited:
    """A file: its lines, without blank ones and comments, and the names of its columns."""

    def __init__(self, path: str, text: str, delimiter: str = "auto", header: bool | str = "auto", comments: str | None = "#") -> None:
        self.path = path
        lines = io.StringIO(text, newline=None).readlines()
        self.numbers = [i for i, line in enumerate(lines, 1) if not (line.isspace() or (comments and line.lstrip().startswith(comments)))]
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
        name, times = Counter(self.names).most_common(1)[0]
        if times > 1:
            raise DataError(f"{path}, line {self.numbers[0]}, column {name!r}: this name comes {times} times")

    def index(self, column: str | int) -> int:
        """The place of a column by name, or by place, from the end where negative."""
        n = len(self.names)
        if isinstance(column, str):
            if column in self.names:
                return self.names.index(column)
            raise DataError(f"{self.path}: no column {column!r}: there are {', '.join(map(repr, self.names[:30]))}{' and more' if n > 30 else ''}")
        if not -n <= column < n:
            raise DataError(f"{self.path}: no column {column}: there are {n}")
        return column % n

    def matrix(self, coded: int | None, ignored: set[int]) -> tuple[np.ndarray, np.ndarray, list[str]]:
        """All columns as float64 numbers, the line in which each row begins, and the texts of the column ``coded``, for which their place in the list stands there.

        Ignored columns are 0.
        """
        cells: dict[str, float] = {}
        values, lines = self.quickly(coded, ignored, cells) or self.exactly(coded, ignored, cells)
        if not len(values):
            raise DataError(f"{self.path}: no data: nothing follows the header")
        return values, lines, list(cells)

    def quickly(self, coded: int | None, ignored: set[int], cells: dict[str, float]) -> tuple[np.ndarray, np.ndarray] | None:
        """By NumPy's parser; None where that finds anything wrong, or where cells are quoted, of which it takes what is not allowed."""
        lines, numbers = (self.lines[1:], self.numbers[1:]) if self.has_header else (self.lines, self.numbers)
        if not lines or (self.quoted and any('"' in line for line in lines)):
            return None
        converters: dict[int, Any] = dict.fromkeys(ignored, lambda _: 0.0)
        if coded is not None:
            converters[coded] = lambda cell: cells.setdefault(cell.strip(), len(cells))
        options: Any = {"converters": converters, "delimiter": self.delimiter.strip(" ") or None}
        try:
            values = np.loadtxt(lines, comments=None, ndmin=2, encoding=None, **options)
        except ValueError:
            values = None
        if values is None or values.shape != (len(lines), len(self.names)) or not np.isfinite(values).all():
            cells.clear()
            return None
        return values, np.array(numbers)

    def exactly(self, coded: int | None, ignored: set[int], cells: dict[str, float]) -> tuple[np.ndarray, np.ndarray]:
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
            if i == coded:
                values[:, i] = [cells.setdefault(cell.strip(), len(cells)) for cell in column]
            elif i not in ignored:
                first = _fill(values[:, i], column)
                wrong += [] if first is None else [(first, i)]
        if wrong:
            row, i = min(wrong)
            self.refuse(lines[row], names[i], rows[row][i].strip())
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

    def refuse(self, line: int, column: str, cell: str, expected: str = "a finite number") -> NoReturn:
        """Say where a cell stands that is not what it should be."""
        shown = repr(cell if len(cell) <= 40 else cell[:37] + "...") if cell else "an empty cell"
        comma = " (is that a decimal comma?)" if number(cell) is None and number(cell.replace(",", ".")) is not None else ""
        raise DataError(f"{self.path}, line {line}, column {column!r}: got {shown}{comma}, expected {expected}")


def _fill(out: np.ndarray, cells: Sequence[str]) -> int | None:
    """Write the numbers of a column; returns where the first stands that is none, or not finite."""
    with suppress(ValueError):
        out[:] = list(map(float, cells))
        if np.isfinite(out).all() and "_" not in "".join(cells):
            return None
    for i, cell in enumerate(cells):
        x = number(cell)
        if x is None or not math.isfinite(x):
            return i
        out[i] = x
    return None


def number(cell: str) -> float | None:
    """The number that a cell holds, or None."""
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
    text = [number(c) is None for c in first]
    return all(text) or (any(text) and second is not None and text != [number(c) is None for c in second])


def read_text(path: Path, encoding: str) -> str:
    """The text of a file, gzipped or not, without a byte order mark."""
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
