"""``cupy.RawModule``: CUDA source whose kernels run in gpugrad's emulator, on the memory of the stand-in's arrays."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fakecupy.device import CUDARuntimeError
from fakecupy.ndarray import checked, ndarray

_LIMITS = ((2**31 - 1, 65535, 65535), (1024, 1024, 64))  # of the blocks of a grid, of the threads of a block


class RawModule:
    """Compiled when a kernel is asked for, as CuPy's."""

    def __init__(self, code: str | None = None, *, path: str | None = None, options: tuple[str, ...] = (), backend: str = "nvrtc") -> None:
        from fakecupy import NoKernelsError
        from gpugrad.cuda import emulator

        if not isinstance(options, tuple) or not all(isinstance(o, str) for o in options):
            raise TypeError(f"Expected tuple of str, got {options!r}")
        if code is None or path is not None or backend != "nvrtc":
            raise NoKernelsError("needs a GPU: a stand-in for CuPy loads no compiled kernels")
        if not emulator.is_available():
            raise NoKernelsError("needs a GPU, or a C++ compiler for the emulator of CUDA")
        self.code, self.options = code, options

    def get_function(self, name: str) -> RawKernel:
        """The kernel of that name."""
        return RawKernel(self.code, name)


class RawKernel:
    """A kernel of a module: ``kernel(grid, block, args, shared_mem=bytes)``."""

    def __init__(self, code: str, name: str) -> None:
        from gpugrad.cuda import emulator

        library = emulator.library(code)
        if name not in library.entries:
            raise CUDARuntimeError("CUDA_ERROR_NOT_FOUND: named symbol not found")
        self._code, self.name = code, name
        self.shared_size_bytes = library.static_shared.get(name, 0)
        self._most = emulator.MOST_SHARED - self.shared_size_bytes
        self._dynamic = emulator.MOST_STATIC_SHARED - self.shared_size_bytes

    @property
    def max_dynamic_shared_size_bytes(self) -> int:
        """What a launch may ask for."""
        return self._dynamic

    @max_dynamic_shared_size_bytes.setter
    def max_dynamic_shared_size_bytes(self, size: int) -> None:
        if not 0 <= size <= self._most:
            raise CUDARuntimeError("CUDA_ERROR_INVALID_VALUE: invalid argument")
        self._dynamic = size

    def __call__(self, grid: tuple[int, ...], block: tuple[int, ...], args: tuple[Any, ...], *, shared_mem: int = 0, stream: Any = None) -> None:
        from gpugrad.cuda import emulator

        sizes = []
        for given, limits in zip((grid, block), _LIMITS, strict=True):
            if not isinstance(given, tuple) or not 1 <= len(given) <= 3:
                raise TypeError(f"expected a tuple of one to three numbers, got {given!r}")
            sizes.append((*given, 1, 1)[:3])
            if not all(1 <= n <= limit for n, limit in zip(sizes[-1], limits, strict=True)):
                raise CUDARuntimeError("CUDA_ERROR_INVALID_VALUE: invalid argument")
        if math.prod(block) > 1024 or shared_mem > self._dynamic:
            raise CUDARuntimeError("CUDA_ERROR_INVALID_VALUE: invalid argument")
        emulator.run(self._code, self.name, *sizes, [_value(a) for a in args], shared_mem)


def _value(a: Any) -> np.generic:
    """An argument as the bytes that CuPy passes: an array by its address, a number of NumPy's as it is, one of Python's in 8 bytes."""
    if isinstance(a, ndarray):
        return np.uint64(checked(a).data.ptr)
    if isinstance(a, np.generic):
        return a
    if a is None:
        return np.uint64(0)
    for kind, numpys in ((bool, np.bool_), (int, np.int64), (float, np.float64), (complex, np.complex128)):
        if isinstance(a, kind):
            return numpys(a)
    raise TypeError(f"Unsupported type {type(a)}")
