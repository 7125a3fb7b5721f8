"""NVRTC, the compiler that CuPy compiles kernels with, through ctypes. It needs neither a GPU nor a driver, only NVIDIA's wheel."""

from __future__ import annotations

import ctypes
import functools
import importlib.metadata
import re
from typing import Any, NamedTuple

WHEELS = ("nvidia-cuda-nvrtc-cu12", "nvidia-cuda-nvrtc-cu13", "nvidia-cuda-nvrtc")
RESOURCES = "resources"  # the property of a test under which conftest.py finds them
_LIBRARY = re.compile(r"libnvrtc\.so\.\d+|nvrtc64_\d+_0\.dll")


class Resources(NamedTuple):
    """What a kernel takes of a multiprocessor: registers of a thread; the rest in bytes."""

    registers: int = 0
    shared: int = 0
    stack: int = 0
    spill_stores: int = 0
    spill_loads: int = 0


class CompileError(Exception):
    """With the compiler's log."""


@functools.cache
def library() -> Any:
    """The library of the newest installed wheel, or None."""
    for wheel in WHEELS:
        try:
            files = importlib.metadata.files(wheel) or ()
        except importlib.metadata.PackageNotFoundError:
            continue
        for file in files:
            if _LIBRARY.fullmatch(file.name):
                return ctypes.CDLL(str(file.locate()))
    return None


def architectures() -> tuple[int, ...]:
    """The compute capabilities that it compiles for, as 10 times the number: 75, 80, ..."""
    n = ctypes.c_int()
    _check(library().nvrtcGetNumSupportedArchs(ctypes.byref(n)))
    found = (ctypes.c_int * n.value)()
    _check(library().nvrtcGetSupportedArchs(found))
    return tuple(found)


def compiled(code: str, architecture: int, options: tuple[str, ...] = ()) -> tuple[bytes, str]:
    """The machine code (a cubin) and the compiler's log, which tells the resources of every entry point.

    Raises:
        CompileError: it does not compile.
    """
    program = ctypes.c_void_p()
    _check(library().nvrtcCreateProgram(ctypes.byref(program), code.encode(), b"kernel.cu", 0, None, None))
    try:
        flags = [o.encode() for o in (*options, f"-arch=sm_{architecture}", "--ptxas-options=-v")]
        status = library().nvrtcCompileProgram(program, len(flags), (ctypes.c_char_p * len(flags))(*flags))
        log = _text(program, "ProgramLog").rstrip(b"\0").decode()
        if status:
            raise CompileError(log or f"NVRTC error {status}")
        return _text(program, "CUBIN"), log
    finally:
        library().nvrtcDestroyProgram(ctypes.byref(program))


def _text(program: Any, what: str) -> bytes:
    size = ctypes.c_size_t()
    _check(getattr(library(), f"nvrtcGet{what}Size")(program, ctypes.byref(size)))
    text = ctypes.create_string_buffer(size.value)
    _check(getattr(library(), f"nvrtcGet{what}")(program, text))
    return text.raw


def _check(status: int) -> None:
    if status:
        raise RuntimeError(f"NVRTC error {status}")


def resources(log: str) -> dict[str, Resources]:
    """Of each entry point in the log, with the functions that it calls; a thread's local memory is its stack."""
    found = {}
    for part in re.split(r"Compiling entry function ", log)[1:]:
        name = part[1 : part.index("'", 1)]
        found[name] = Resources(
            registers=_most(r"Used (\d+) registers", part),
            shared=_most(r"(\d+) bytes smem", part),
            stack=_most(r"(\d+) bytes (?:stack frame|cumulative stack size|lmem)", part),
            spill_stores=_most(r"(\d+) bytes spill stores", part),
            spill_loads=_most(r"(\d+) bytes spill loads", part),
        )
    return found


def _most(pattern: str, text: str) -> int:
    return max(map(int, re.findall(pattern, text)), default=0)
