"""Memory of large NumPy arrays is kept when they are freed, and given to the next ones.

The C library returns large blocks to the system at once, which then has to give out pages and fill them with zeros again: writing a fresh array takes
two to four times as long as writing one whose memory has been used before. A step of training frees what the next one needs.

NumPy lets a program say where the memory of arrays comes from (NEP 49). The functions that are installed here pass everything on to NumPy's own, except that blocks
of at least :data:`LEAST` bytes are not freed but kept, up to a limit, and handed out when an array of nearly that size is made. An array knows by which functions
its memory is freed, and views keep their array alive, so nothing is handed out that is still in use. One thread at a time looks at what is kept; a second does not wait,
but takes and frees memory without it. So a fork at any moment leaves no lock behind, and nobody needs to know who calls without Python's lock.

What is kept is given back when there is no other memory to be had, when :data:`_PATIENCE` large arrays have been freed since (the program does something else now), and the
oldest first where it would be more than the limit: ``GPUGRAD_KEEP_MEMORY`` in the environment, bytes, or with a letter "512M", "2G"; 0 switches all this off. Without it the
limit is 512 MiB, or an eighth of the memory that the machine, the process's control group (a container's) or its resource limits allow, if that is less.

It begins in a thread (a context, :mod:`contextvars`) that is the first to need some compiled kernel; others have NumPy's own functions.
"""

from __future__ import annotations

import contextlib
import contextvars
import ctypes
import functools
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from gpugrad.parallel import control_group

LEAST = 1 << 17
_SLOTS = 256
_PATIENCE = 1 << 12
# The state: NumPy's context and four functions, then these; _EACH numbers of each block, the oldest first: its address, its size, the clock when it was freed.
_LIMIT, _KEPT, _COUNT, _CLOCK, _BUSY, _BLOCKS, _EACH = 5, 6, 7, 8, 9, 10, 3
_SET_HANDLER, _GET_HANDLER = 304, 305  # where these stand in NumPy's table of functions
_NAME = b"gpugrad"


def limit() -> int:
    """The most bytes that are kept.

    Raises:
        ValueError: GPUGRAD_KEEP_MEMORY is not a number of bytes.
    """
    return _limit(os.environ.get("GPUGRAD_KEEP_MEMORY"))


@functools.cache
def _limit(given: str | None) -> int:
    if not given:
        return min([1 << 29, *(memory // 8 for memory in _memories())])
    match = re.fullmatch(r"(\d+)([KMG]?)", given.strip(), re.I)
    if match is None:
        raise ValueError(f"GPUGRAD_KEEP_MEMORY is {given!r}, expected a number of bytes, or one with K, M or G behind it, like 512M; 0 keeps nothing")
    return int(match[1]) << {"": 0, "K": 10, "M": 20, "G": 30}[match[2].upper()]


def _memories() -> Iterator[int]:
    """The bytes that the machine has, and those that this process is allowed, where somebody has said so."""
    if sys.platform != "linux":
        return
    import resource

    yield os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for which in (resource.RLIMIT_AS, resource.RLIMIT_DATA):
        if (most := resource.getrlimit(which)[0]) != resource.RLIM_INFINITY:
            yield most
    for text in control_group("memory.max"):
        if text.strip() != "max":
            yield int(text)
    with contextlib.suppress(OSError):  # control groups of the first version, as a container sees its own
        yield int(Path("/sys/fs/cgroup/memory/memory.limit_in_bytes").read_text())


def kept() -> int:
    """The bytes that are kept at the moment."""
    return 0 if _installed is None else int(_installed.state[_KEPT])


def release() -> None:
    """Give all that is kept back to the system."""
    if _installed is not None:
        _installed.release()


# ---------------------------------------------------------------------------------- the functions that NumPy calls


_FIELDS = ("ctx", "malloc", "calloc", "realloc", "free")


class _Allocator(ctypes.Structure):
    """NumPy's PyDataMemAllocator."""

    _fields_ = [(name, ctypes.c_void_p) for name in _FIELDS]


class _Handler(ctypes.Structure):
    """NumPy's PyDataMem_Handler."""

    _fields_ = [("name", ctypes.c_char * 127), ("version", ctypes.c_uint8), ("allocator", _Allocator)]


class _Pool:
    """The functions, compiled, and their state. There is one, and it is never freed: arrays that it has made may outlive everything else."""

    def __init__(self, before: Any) -> None:
        from gpugrad.kernels import pool_cpu

        theirs = _Handler.from_address(_pointer_in(before, b"mem_handler")).allocator
        self.before = before
        self.memory = (ctypes.c_uint64 * (_BLOCKS + _EACH * (_SLOTS + 1)))()
        self.state = np.ctypeslib.as_array(self.memory)
        self.state[:_KEPT] = [getattr(theirs, name) or 0 for name in _FIELDS] + [limit()]
        self.functions, (*addresses, release) = pool_cpu.functions()
        self.handler = _Handler(_NAME, 1, _Allocator(ctypes.addressof(self.memory), *addresses))
        self.release = functools.partial(ctypes.PYFUNCTYPE(None, ctypes.c_void_p)(release), ctypes.addressof(self.memory))
        self.capsule = _new_capsule(ctypes.addressof(self.handler), b"mem_handler", None)
        for owned in (self, self.before, self.capsule, self.functions):
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(owned))


_pointer_in = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(("PyCapsule_GetPointer", ctypes.pythonapi))
_new_capsule = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)(("PyCapsule_New", ctypes.pythonapi))

_installed: _Pool | None = None
_done = contextvars.ContextVar("_done", default=False)  # NumPy's functions belong to a context too


def install() -> None:
    """Begin, in this thread, where that is possible: on Linux, unless it is switched off or somebody else has said where arrays get their memory from."""
    global _installed
    if _done.get():
        return
    if sys.platform != "linux" or sys.maxsize < 2**32 or not limit() or os.environ.get("NUMBA_DISABLE_JIT", "0") != "0":
        return
    _done.set(True)
    if not getattr(sys, "_is_gil_enabled", lambda: True)() or not hasattr(ctypes.CDLL(None), "malloc_usable_size"):
        return
    from numpy._core import multiarray

    if multiarray.get_handler_name() != "default_allocator":
        return
    table = ctypes.cast(_pointer_in(multiarray._ARRAY_API, None), ctypes.POINTER(ctypes.c_void_p))
    get_handler = ctypes.PYFUNCTYPE(ctypes.py_object)(table[_GET_HANDLER])
    set_handler = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.py_object)(table[_SET_HANDLER])
    if _installed is None:
        new = _Pool(get_handler())  # compiles; another thread may have done that meanwhile
        _installed = _installed or new
    set_handler(_installed.capsule)
