"""CUDA kernels: finding a ``.cu`` file of ``kernels/``, compiling it for a dtype on first use, checking the arguments, launching.

A kernel's scalars are ``int64`` or ``double``, its arrays pointers, and the types in its signature say which dtype each array must have; so a call
that does not fit is refused before anything runs. NumPy arrays are launched in the emulator, CuPy arrays on the GPU.
"""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gpugrad import backend

FOLDER = Path(__file__).parent.parent / "kernels"
TYPES = {  # dtype -> (type in which arrays are stored, type in which sums are made)
    "float32": ("float", "float"),
    "float64": ("double", "double"),
    "float16": ("float16", "float"),
    "bfloat16": ("bfloat16", "float"),
}
_POINTEES = {"int64": "int64", "int32": "int32", "uint32": "uint32", "double": "float64", "float": "float32"}
_ENTRY = re.compile(r'extern\s+"C"\s+__global__\s+void\s+(?:__launch_bounds__\s*\([^)]*\)\s*)?(\w+)\s*\(([^)]*)\)')


class Parameter(NamedTuple):
    """A parameter of a kernel: ``const real *x``, ``int64 n``."""

    name: str
    type: str  # without const and *
    pointer: bool


class Source:
    """A ``.cu`` file: its entry points, compiled for each dtype when they are first launched. ``headers`` are put before it."""

    def __init__(self, name: str, *headers: str, folder: Path = FOLDER) -> None:
        self.name, self.headers, self.folder = name, headers, folder

    @functools.cached_property
    def text(self) -> str:
        return (self.folder / self.name).read_text()

    @functools.cached_property
    def entries(self) -> dict[str, tuple[Parameter, ...]]:
        """The parameters of each ``extern "C" __global__`` function."""
        code = re.sub(r"//[^\n]*|/\*.*?\*/", "", self.text, flags=re.S)
        return {name: tuple(map(_parameter, params.split(","))) for name, params in _ENTRY.findall(code)}

    def code(self, dtype: Any) -> str:
        """All that is compiled: the types, the common header, the file. CuPy's cache on disk goes by this text, so there is no #include to go stale."""
        real, acc = TYPES[np.dtype(dtype).name]
        parts = [_part("common.cuh"), f"using real = {real};\nusing acc = {acc};\n", *map(_part, self.headers), f'#line 1 "{self.name}"\n{self.text}']
        return "".join(parts)

    def launch(self, entry: str, dtype: Any, grid: int | tuple[int, ...], block: int | tuple[int, ...], *args: Any, shared: int = 0) -> None:
        """Run ``entry``, compiled for ``dtype``, on the current stream (NumPy arrays: in the emulator).

        Args:
            grid: numbers of blocks; with a zero among them nothing runs.
            block: numbers of threads of a block.
            args: one for each parameter: C-contiguous arrays of the dtype that the signature states, or None for a null pointer; an int for ``int64``;
                a float for ``double``.
            shared: bytes of dynamic shared memory.

        Raises:
            TypeError: an argument of the wrong dtype or kind, or too few or too many.
            ValueError: an array that is not C-contiguous.
            gpugrad.backend.DeviceError: arrays of several devices, or of one that is not current.
            RuntimeError: the kernel does not compile.
        """
        grid, block = _three(grid), _three(block)
        dtype = np.dtype(dtype)
        on_gpu = self._check(entry, dtype, args)
        if 0 in grid:
            return
        if on_gpu:
            function = _compiled(self, dtype.name, entry, backend.cupy().cuda.Device().id)
            function(grid, block, tuple(map(_device_argument, args)), shared_mem=shared)
        else:
            from gpugrad.cuda import emulator

            emulator.launch(self, entry, dtype, grid, block, args, shared)

    def _check(self, entry: str, dtype: Any, args: tuple[Any, ...]) -> bool:
        """Whether the arrays are on a GPU; raises for what does not fit."""
        parameters = self.entries[entry]
        if len(args) != len(parameters):
            raise TypeError(f"{entry} ({self.name}) takes {len(parameters)} arguments, got {len(args)}")
        for p, a in zip(parameters, args):
            if not p.pointer:
                if not isinstance(a, (int, np.integer) if p.type == "int64" else (int, float, np.number)):
                    raise TypeError(f"{entry} ({self.name}): {p.name} is of type {p.type}, got {type(a).__name__} {a!r:.40}")
            elif a is not None:
                expected = self.pointee(p, dtype)
                if not backend.is_array(a) or a.dtype != expected:
                    got = f"an array of {a.dtype}" if backend.is_array(a) else type(a).__name__
                    raise TypeError(f"{entry} ({self.name}): {p.name} must be an array of {expected}, got {got}")
                if not a.flags.c_contiguous:
                    raise ValueError(
                        f"{entry} ({self.name}): {p.name} must be C-contiguous, got strides {a.strides} for shape {a.shape}; use ascontiguousarray"
                    )
        error = backend.mixed_devices(args)
        if error is not None:
            raise error
        return next((backend.namespace(a) is not np for a in args if backend.is_array(a)), False)

    @staticmethod
    def pointee(p: Parameter, dtype: Any) -> Any:
        """The dtype of the array that a pointer parameter takes."""
        dtype = np.dtype(dtype)
        if p.type == "real":
            return dtype
        return np.dtype("float64" if dtype.name == "float64" else "float32") if p.type == "acc" else np.dtype(_POINTEES[p.type])

    def __repr__(self) -> str:
        return f"Source({self.name!r})"


def _part(header: str) -> str:
    return f'#line 1 "{header}"\n{(FOLDER / header).read_text()}\n'


def _parameter(text: str) -> Parameter:
    words = re.sub(r"\bconst\b|__restrict__", " ", text).replace("*", " * ").split()
    return Parameter(words[-1], words[0], "*" in words)


def _three(n: int | tuple[int, ...]) -> tuple[int, ...]:
    sizes = (n,) if isinstance(n, (int, np.integer)) else tuple(n)
    return tuple(int(s) for s in (*sizes, 1, 1)[:3])


def _device_argument(a: Any) -> Any:
    if a is None:
        return np.uint64(0)
    if backend.is_array(a):
        return np.uint64(a.data.ptr)  # which does for bfloat16 too
    return np.int64(a) if isinstance(a, (int, np.integer)) else np.float64(a)


@functools.cache
def _compiled(source: Source, dtype: str, entry: str, device: int) -> Any:
    cp = backend.cupy()
    try:
        module = cp.RawModule(code=source.code(dtype), options=("-std=c++17",))
        return module.get_function(entry)
    except Exception as error:  # there is no silent way round: what does not compile here is a defect
        raise RuntimeError(f"{source.name} does not compile for {dtype} on cuda:{device}: {error}") from error
