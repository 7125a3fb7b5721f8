"""CUDA kernels on the CPU: the same ``.cu`` file compiled with g++, so that its numbers can be checked where there is no GPU."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpugrad import backend, cache

if TYPE_CHECKING:
    from gpugrad.cuda.loader import Source

HEADER = Path(__file__).with_name("emulator.h")
FLAGS = ("-O1", "-g", "-std=c++17", "-fPIC", "-shared", "-w")


def compiler() -> str | None:
    """The C++ compiler: $CXX, or g++."""
    return shutil.which(os.environ.get("CXX") or "g++")


def is_available() -> bool:
    """Whether kernels can be emulated here."""
    return compiler() is not None


def launch(source: Source, entry: str, dtype: Any, grid: Sequence[int], block: Sequence[int], args: Sequence[Any], shared: int) -> None:
    """Run a kernel whose arguments :meth:`Source.launch` has checked; returns when it is done.

    Raises:
        RuntimeError: there is no compiler, the kernel does not compile, or its threads wait for each other in vain.
    """
    function = getattr(_library(source.code(dtype), tuple(source.entries)), f"emulate_{entry}")
    function.restype = ctypes.c_char_p
    values = [_argument(a) for a in args]
    pointers = (ctypes.c_void_p * len(values))(*[ctypes.addressof(v) for v in values])
    problem = function((ctypes.c_uint * 3)(*grid), (ctypes.c_uint * 3)(*block), ctypes.c_size_t(shared), pointers)
    if problem is not None:
        raise RuntimeError(f"{entry} ({source.name}): {problem.decode()}")


def _argument(a: Any) -> Any:
    if a is None:
        return ctypes.c_void_p()
    if backend.is_array(a):
        return ctypes.c_void_p(a.ctypes.data)
    return ctypes.c_double(a) if isinstance(a, float) else ctypes.c_longlong(int(a))


@functools.cache
def _library(code: str, entries: tuple[str, ...]) -> ctypes.CDLL:
    glue = "\n".join(
        f'extern "C" const char *emulate_{e}(const unsigned *grid, const unsigned *block, size_t shared, void **args) '
        f"{{ return emulator::launch({e}, grid, block, shared, args); }}"
        for e in entries
    )
    text = f"{HEADER.read_text()}\n{code}\n{glue}\n"
    gxx = compiler()
    if gxx is None:
        raise RuntimeError("the emulator of CUDA kernels needs a C++ compiler: install g++, or set CXX")
    path = cache.folder("emulator") / f"{hashlib.sha256(repr((gxx, FLAGS, text)).encode()).hexdigest()[:32]}.so"
    if not path.exists():
        with tempfile.TemporaryDirectory(dir=path.parent) as work:
            built = Path(work, "kernel.so")
            done = subprocess.run([gxx, *FLAGS, "-x", "c++", "-", "-o", str(built)], input=text, capture_output=True, text=True)
            if done.returncode:
                raise RuntimeError(f"the emulator cannot compile this kernel:\n{done.stderr}")
            os.replace(built, path)
    return ctypes.CDLL(str(path))
