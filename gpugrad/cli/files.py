"""Files that commands write: found to be writable before the work, and changed only after it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable

from gpugrad.cli.refusal import RefusalError


def check_writable(option: str, path: str, ending: tuple[str, ...] = ()) -> None:
    """Find out before the work whether its result can be saved.

    Raises:
        RefusalError: it cannot.
    """
    if not path or os.path.isdir(path):
        raise RefusalError(f"{option}: {path!r} is a folder, expected the name of a file" if path else f"{option}: got an empty name")
    if os.path.exists(path) and not os.path.isfile(path):
        raise RefusalError(f"{option}: {path!r} is not a regular file, and only such a one can be replaced")
    if ending and not path.endswith(ending):
        raise RefusalError(f"{option}: {path!r} ends in {os.path.splitext(path)[1] or 'nothing'!r}, expected {' or '.join(ending)}")
    check_folder(option, os.path.dirname(os.path.realpath(path) if os.path.islink(path) else path) or ".")


def check_folder(option: str, folder: str) -> None:
    """Find out whether files can be made in a folder that is there.

    Raises:
        RefusalError: they cannot.
    """
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise RefusalError(f"{option}: cannot write to {folder!r}: {error.strerror}") from None


def check_new_folder(option: str, folder: str) -> None:
    """Find out whether a folder that is there, or can be made, takes files.

    Raises:
        RefusalError: it does not.
    """
    if not folder:
        raise RefusalError(f"{option}: got an empty name")
    while not os.path.isdir(folder):
        if os.path.lexists(folder):
            raise RefusalError(f"{option}: {folder!r} is not a folder")
        folder = os.path.dirname(folder) or "."
    check_folder(option, folder)


def saving(option: str, path: str, save: Callable[[], None]) -> None:
    """Call ``save``; what the system says against it becomes a refusal.

    Raises:
        RefusalError: the file cannot be written.
    """
    try:
        save()
    except OSError as error:
        raise RefusalError(f"{option}: cannot write {path!r}: {error.strerror or error}") from None


def check_distinct(paths: dict[str, str | None]) -> None:
    """Refuse two options that name one file, of which one would overwrite the other.

    Raises:
        RefusalError: there are such.
    """
    seen: dict[str, str] = {}
    for option, path in paths.items():
        if path is None:
            continue
        place = os.path.realpath(path)
        if place in seen:
            raise RefusalError(f"{seen[place]} and {option} are both {path!r}")
        seen[place] = option
