"""Bytes of files, gzipped or not, and the error that says what is wrong with them."""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

Path = str | os.PathLike[str]
GZIP = b"\x1f\x8b"


class DataError(ValueError):
    """A file that does not hold what it should. The message is one line that names the file and, where there are any, line (from 1) and column."""


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """The file's bytes to read, through gzip where it begins as such files do.

    Raises:
        DataError: the gzip file is damaged or cut short.
        OSError: it cannot be opened.
    """
    with open(path, "rb") as raw:
        zipped = raw.read(2) == GZIP
        raw.seek(0)
        if not zipped:
            yield raw
            return
        try:
            with gzip.open(raw) as file:
                yield file
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise DataError(f"{os.fspath(path)}: a damaged gzip file: {one_line(error)}") from None


def one_line(error: Any) -> str:
    """What an exception says, on one line and not without end."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else text[:197] + "..."
