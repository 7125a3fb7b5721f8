"""Where compiled kernels are kept between processes: a folder of the user's own, files that are whole or absent, and locks between processes.

What lies in the folder is executed, so it is used only if nobody but its owner can write to it, and its owner is this user or root.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

_KEPT_DAYS = 60
_REMEDY = "set GPUGRAD_CACHE_DIR to a folder of your own"


def root() -> Path:
    """``$GPUGRAD_CACHE_DIR``, by default the platform's place for caches: ``$XDG_CACHE_HOME/gpugrad`` or ``~/.cache/gpugrad``,
    ``~/Library/Caches/gpugrad`` on macOS, ``%LOCALAPPDATA%\\gpugrad\\Cache`` on Windows.

    Raises:
        OSError: there is no home directory.
    """
    given = os.environ.get("GPUGRAD_CACHE_DIR")
    if given:
        return Path(given).absolute()
    home = os.path.expanduser("~")
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or os.path.join(home, "AppData", "Local"), "gpugrad", "Cache")
    if not os.path.isabs(home):
        raise OSError(f"no folder for compiled kernels: this user has no home directory; {_REMEDY}")
    if sys.platform == "darwin":
        return Path(home, "Library", "Caches", "gpugrad")
    xdg = os.environ.get("XDG_CACHE_HOME", "")
    return Path(xdg if os.path.isabs(xdg) else os.path.join(home, ".cache"), "gpugrad")


def folder(name: str) -> Path:
    """The folder ``name`` in :func:`root`, made for the user alone if it is not there.

    Raises:
        PermissionError: it belongs to another user, or others may write into it.
        OSError: it cannot be made.
    """
    path = root()
    for path in (path, path / name):  # noqa: B020
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise type(error)(error.errno, f"cannot make the folder for compiled kernels ({error.strerror}); {_REMEDY}", str(path)) from None
        _check_owner(path)
    return path


def _check_owner(path: Path) -> None:
    if not hasattr(os, "geteuid"):
        return  # Windows: a profile folder is the user's own by its access list
    status = path.stat()
    if status.st_uid not in (os.geteuid(), 0):
        raise PermissionError(f"{path} belongs to user {status.st_uid}, and this is user {os.geteuid()}: compiled kernels are not run from there; {_REMEDY}")
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        mode = stat.S_IMODE(status.st_mode)
        raise PermissionError(f"others may write into {path} (mode {mode:o}), so compiled kernels are not run from there; chmod go-w {path}, or {_REMEDY}")


def read(path: Path) -> bytes | None:
    """What :func:`write` put there; None if there is no such file or it is not whole."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    digest, data = content[:32], content[32:]
    if hashlib.sha256(data).digest() != digest:
        return None
    with contextlib.suppress(OSError):
        os.utime(path)  # it is in use
    return data


def write(path: Path, data: bytes) -> None:
    """Put data there, in one step: no reader finds half of it. Files of that folder that nobody has read for two months are deleted.

    Raises:
        OSError: the folder cannot be written to, or the disk is full.
    """
    handle, name = tempfile.mkstemp(dir=path.parent)
    try:
        with open(handle, "wb") as file:
            file.write(hashlib.sha256(data).digest() + data)
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise
    _delete_old(path.parent)


def _delete_old(path: Path) -> None:
    for file in path.iterdir():
        with contextlib.suppress(OSError):  # another process was quicker
            if time.time() - file.stat().st_mtime > _KEPT_DAYS * 86400:
                file.unlink()


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """``with locked(path):`` no other thread or process is in such a block of that path. The lock of a process that dies ends with it.

    Raises:
        OSError: the file ``path`` cannot be opened for writing.
    """
    with open(path, "ab") as file:
        has_locks = True
        try:
            _lock(file)
        except OSError:  # some network file systems have none; files are replaced as a whole there too
            has_locks = False
        try:
            yield
        finally:
            if has_locks:
                _unlock(file)  # closing it does not do: a process forked meanwhile has it open too


if sys.platform == "win32":
    import msvcrt

    def _lock(file: IO[bytes]) -> None:
        while True:
            file.seek(0)
            try:
                return msvcrt.locking(file.fileno(), msvcrt.LK_LOCK, 1)
            except OSError as error:
                if error.errno != errno.EDEADLOCK:  # which is that it waited for ten seconds
                    raise

    def _unlock(file: IO[bytes]) -> None:
        file.seek(0)
        msvcrt.locking(file.fileno(), msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    def _lock(file: IO[bytes]) -> None:
        fcntl.flock(file, fcntl.LOCK_EX)

    def _unlock(file: IO[bytes]) -> None:
        fcntl.flock(file, fcntl.LOCK_UN)
