"""Memory of large NumPy arrays is kept when they are freed, and given to the next ones.

The C library returns large blocks to the system at once, which then has to give out pages and fill them with zeros again: writing a fresh array takes
two to four times as long as writing one whose memory has been used before. A step of training frees what the next one needs.

NumPy lets a program say where the memory of arrays comes from (NEP 49). The functions that are installed here pass everything on to NumPy's own, except that blocks
of at least :data:`LEAST` bytes are not freed but kept, up to a limit, and handed out when an array of nearly that size is made. An array knows by which functions
its memory is freed, and views keep their array alive, so nothing is handed out that is still in use. All of it runs under Python's lock.

It begins in a thread that is the first to need some compiled kernel; other threads have NumPy's own functions. ``GPUGRAD_KEEP_MEMORY`` in the environment is the limit:
bytes, or with a letter "512M", "2G"; 0 switches it off. Without it the limit is 1 GiB, or an eighth of the machine's memory if that is less.
"""

from __future__ import annotations

import ctypes
import functools
import os
import re
import sys
import threading
from typing import Any

import numpy as np

LEAST = 1 << 17
_SLOTS = 256
_LIMIT, _KEPT, _COUNT, _BLOCKS = (
    5,
    6,
    7,
    8,
)  # the state: NumPy's context and four functions, then these; of each block its address and its size, the oldest first
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
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 0
        return min(1 << 30, memory // 8)
    match = re.fullmatch(r"(\d+)([KMG]?)", given.strip(), re.I)
    if match is None:
        raise ValueError(f"GPUGRAD_KEEP_MEMORY is {given!r}, expected a number of bytes, or one with K, M or G behind it, like 512M; 0 keeps nothing")
    return int(match[1]) << {"": 0, "K": 10, "M": 20, "G": 30}[match[2].upper()]


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
        self.memory = (ctypes.c_uint64 * (_BLOCKS + 2 * (_SLOTS + 1)))()
        self.state = np.ctypeslib.as_array(self.memory)
        self.state[:_KEPT] = [getattr(theirs, name) or 0 for name in _FIELDS] + [limit()]
        self.functions, addresses, self.release_all = pool_cpu.functions()
        self.handler = _Handler(_NAME, 1, _Allocator(ctypes.addressof(self.memory), *addresses))
        self.capsule = _new_capsule(ctypes.addressof(self.handler), b"mem_handler", None)
        for owned in (self, self.before, self.capsule, self.functions):
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(owned))

    def release(self) -> None:
        self.release_all(self.state)


_pointer_in = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(("PyCapsule_GetPointer", ctypes.pythonapi))
_new_capsule = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)(("PyCapsule_New", ctypes.pythonapi))

_installed: _Pool | None = None
_own = threading.local()


def install() -> None:
    """Begin, in this thread, where that is possible: on Linux, unless it is switched off or somebody else has said where arrays get their memory from."""
    global _installed
    if getattr(_own, "done", False):
        return
    _own.done = True
    if sys.platform != "linux" or sys.maxsize < 2**32 or not limit() or os.environ.get("NUMBA_DISABLE_JIT", "0") != "0":
        return
    if not getattr(sys, "_is_gil_enabled", lambda: True)() or not hasattr(ctypes.CDLL(None), "malloc_usable_size"):
        return
    from numpy._core import multiarray

    if multiarray.get_handler_name() != "default_allocator":
        return
    table = ctypes.cast(_pointer_in(multiarray._ARRAY_API, None), ctypes.POINTER(ctypes.c_void_p))
    get_handler = ctypes.PYFUNCTYPE(ctypes.py_object)(table[_GET_HANDLER])
    set_handler = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.py_object)(table[_SET_HANDLER])
    if _installed is None:
        _installed = _Pool(get_handler())
    set_handler(_installed.capsule)
