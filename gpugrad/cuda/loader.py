"""CUDA kernels: finding a ``.cu`` file of ``kernels/``, compiling it for a dtype on first use, checking the arguments, launching.

A kernel's scalars are ``int64`` or ``double``, its arrays pointers, and the types in its signature say which dtype each array must have; so a call
that does not fit is refused before anything runs. NumPy arrays are launched in the emulator, CuPy arrays on the GPU.
"""

from __future__ import annotations

import functools
import math
import re
import threading
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np

from gpugrad import backend

FOLDER = Path(__file__).parent.parent / "kernels"
OPTIONS = ("-std=c++17",)  # CuPy adds the architecture of the current device
TYPES = {  # dtype -> (type in which arrays are stored, type in which sums are made)
    "float32": ("float", "float"),
    "float64": ("double", "double"),
    "float16": ("float16", "float"),
    "bfloat16": ("bfloat16", "float"),
}
_POINTEES = {"int64": "int64", "int32": "int32", "uint32": "uint32", "uint64": "uint64", "bool": "bool", "double": "float64", "float": "float32"}
_COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.S)
_BOUNDS = r"(?:__launch_bounds__\s*\((?P<{}>(?:[^()]|\([^()]*\))*)\)\s*)?"
_ENTRY = re.compile(
    rf'extern\s+"C"\s+__global__\s+{_BOUNDS.format("before")}void\s+{_BOUNDS.format("after")}(?P<name>\w+)\s*\((?P<parameters>[^()]*)\)\s*(?P<then>[{{;])'
)
_PARAMETER = re.compile(r"(?:const\s+)?(?P<type>\w+)\s*(?P<pointer>\*?)\s*(?P<restrict>__restrict__\s+)?(?P<name>\w+)")
_MOST_BLOCKS, _MOST_THREADS, _MOST_SHARED = (2**31 - 1, 65535, 65535), (1024, 1024, 64), 227 * 1024  # of any device


class Parameter(NamedTuple):
    """A parameter of a kernel: ``const real *x``, ``int64 n``."""

    name: str
    type: str  # without const and *
    pointer: bool
    const: bool = False
    restrict: bool = False

    def __str__(self) -> str:
        return f"{'const ' * self.const}{self.type} {'*' * self.pointer}{self.name}"


class _Signature(NamedTuple):
    """What an entry point takes when it is compiled for a dtype."""

    dtype: Any
    expected: tuple[tuple[Parameter, Any], ...]  # with the dtype of each array, None for a number
    exclusive: bool  # whether it writes into memory that must be nobody else's


class Source:
    """A ``.cu`` file: its entry points, compiled for each dtype when they are first launched. ``headers`` are put before it."""

    def __init__(self, name: str, *headers: str, folder: Path = FOLDER) -> None:
        self.name, self.headers, self.folder = name, headers, folder
        self._signatures: dict[tuple[str, Any], _Signature] = {}

    @functools.cached_property
    def text(self) -> str:
        return (self.folder / self.name).read_text(encoding="utf-8")

    @functools.cached_property
    def _found(self) -> dict[str, re.Match[str]]:
        """The entry points. Every ``__global__`` must be one, for what the loader overlooks nobody could launch, and nothing would test."""
        code = _COMMENT.sub(lambda comment: "\n" * comment[0].count("\n") or " ", self.text)
        found = list(_ENTRY.finditer(code))
        spans = [m.span() for m in found]
        for m in re.finditer(r"__global__", code):
            line = code[code.rfind("\n", 0, m.start()) + 1 : m.start()]
            if line.lstrip().startswith("#") or not any(start <= m.start() < end for start, end in spans):
                raise ValueError(
                    f"{self.name}, line {code.count(chr(10), 0, m.start()) + 1}: this __global__ is no entry point that the loader can read; "
                    'expected extern "C" __global__ void NAME(...) written out, without templates and macros'
                )
        return {m["name"]: m for m in found}

    @functools.cached_property
    def entries(self) -> dict[str, tuple[Parameter, ...]]:
        """The parameters of each ``extern "C" __global__`` function.

        Raises:
            ValueError: a kernel, or a parameter of one, of which the loader does not know how to call it.
        """
        return {name: self._parameters(name, m["parameters"]) for name, m in self._found.items()}

    @functools.cached_property
    def bounds(self) -> dict[str, int]:
        """The most threads of a block for each entry point whose ``__launch_bounds__`` states it as a number."""
        stated = {name: (m["before"] or m["after"] or "").partition(",")[0].strip() for name, m in self._found.items()}
        return {name: int(n) for name, n in stated.items() if n.isdigit()}

    def _parameters(self, entry: str, text: str) -> tuple[Parameter, ...]:
        if text.strip() in ("", "void"):
            return ()
        parameters = []
        for part in text.split(","):
            m = _PARAMETER.fullmatch(part.strip())
            if m is None or m["type"] not in (*_POINTEES, "real", "acc") or not (m["pointer"] or m["type"] in ("int64", "double")):
                raise ValueError(
                    f"{entry} ({self.name}): the loader cannot pass the parameter {' '.join(part.split())!r}; "
                    f"expected int64 or double for a number, and a pointer to one of real, acc, {', '.join(_POINTEES)} for an array"
                )
            const = part.split()[0] == "const"
            parameters.append(Parameter(m["name"], m["type"], bool(m["pointer"]), const, bool(m["restrict"])))
        return tuple(parameters)

    def code(self, dtype: Any) -> str:
        """All that is compiled: the types, the common header, the file. CuPy's cache on disk goes by this text, so there is no #include to go stale.

        Raises:
            TypeError: no kernel is compiled for this dtype.
        """
        name = dtype if isinstance(dtype, str) else np.dtype(dtype).name  # NumPy knows "bfloat16" only where ml_dtypes is installed
        if name not in TYPES:
            raise TypeError(f"{self.name}: got dtype {name}, expected one of {', '.join(TYPES)}; convert the arrays with astype")
        real, acc = TYPES[name]
        parts = [_part("common.cuh"), f"using real = {real};\nusing acc = {acc};\n", *map(_part, self.headers), f'#line 1 "{self.name}"\n{self.text}']
        return "".join(parts)

    def launch(self, entry: str, dtype: Any, grid: int | tuple[int, ...], block: int | tuple[int, ...], *args: Any, shared: int = 0) -> None:
        """Run ``entry``, compiled for ``dtype``, on the current stream (NumPy arrays: in the emulator).

        The arrays need to live until this returns and no longer: CuPy gives memory that is freed to work which comes later on the same stream.

        Args:
            grid: numbers of blocks; with a zero among them nothing runs.
            block: numbers of threads of a block.
            args: one for each parameter: C-contiguous arrays of the dtype that the signature states, or None for a null pointer; an int for ``int64``;
                a float for ``double``. The pointer to an empty array may be null.
            shared: bytes of dynamic shared memory.

        Raises:
            TypeError: an argument of the wrong dtype or kind, or too few or too many.
            ValueError: an array that is not C-contiguous or not aligned, is read-only though the kernel writes into it, or overlaps another against its ``__restrict__``;
                no such entry point; a grid, a block or shared memory that no device has.
            gpugrad.backend.DeviceError: arrays of several devices, or of one that is not current.
            RuntimeError: the kernel does not compile, or the device refuses the launch.
        """
        signature = self._signatures.get((entry, dtype)) or self._signature(entry, dtype)
        grid, block = _sizes(f"{entry} ({self.name})", grid, block, shared, self.bounds.get(entry, 1024))
        values, on_gpu = self._check(entry, signature, args)
        if 0 in grid:
            return
        if on_gpu:
            _function(self, signature.dtype, entry)(grid, block, values, shared)
        else:
            from gpugrad.cuda import emulator

            emulator.launch(self, entry, signature.dtype, grid, block, values, shared)

    def _signature(self, entry: str, dtype: Any) -> _Signature:
        if entry not in self.entries:
            raise ValueError(f"{self.name} has no entry point {entry!r}: expected one of {', '.join(self.entries) or 'none, for it has none'}")
        self.code(dtype)  # refuses dtypes for which nothing is compiled
        parameters = self.entries[entry]
        expected = tuple((p, self.pointee(p, dtype) if p.pointer else None) for p in parameters)
        made = _Signature(np.dtype(dtype).newbyteorder("="), expected, any(p.restrict and not p.const for p in parameters))
        self._signatures[entry, dtype] = made
        return made

    def _check(self, entry: str, signature: _Signature, args: tuple[Any, ...]) -> tuple[list[Any], bool]:
        """The arguments, numbers as int and float, and whether the arrays are on a GPU; raises for what does not fit."""
        if len(args) != len(signature.expected):
            names = ", ".join(str(p) for p, _ in signature.expected)
            raise TypeError(f"{entry} ({self.name}): got {len(args)} arguments, expected {len(signature.expected)}: {names}")
        values, arrays = list(args), []
        for i, (p, pointee) in enumerate(signature.expected):
            a = args[i]
            if pointee is None:
                values[i] = self._number(entry, p, a)
            elif a is not None:
                self._check_array(entry, p, pointee, a)
                arrays.append((p, a))
        on_gpu = not all(type(a) is np.ndarray for _, a in arrays) and self._check_devices(entry, arrays)
        if signature.exclusive:
            self._check_overlap(entry, arrays)
        return values, on_gpu

    def _check_devices(self, entry: str, arrays: list[tuple[Parameter, Any]]) -> bool:
        error = backend.mixed_devices([a for _, a in arrays])
        if error is not None:
            raise backend.DeviceError(f"{entry} ({self.name}): {', '.join(f'{p.name} on {backend.device_of(a)}' for p, a in arrays)}: {error}")
        return backend.namespace(arrays[0][1]) is not np

    def _number(self, entry: str, p: Parameter, a: Any) -> int | float:
        if p.type == "int64":
            if not isinstance(a, (int, np.integer)):
                self._refuse(TypeError, entry, p, _described(a), "an int", "use int(...)")
            if not -(2**63) <= a < 2**63:
                self._refuse(ValueError, entry, p, str(a), "-2**63 to 2**63 - 1", "pass a smaller number")
            return int(a)
        if not isinstance(a, (int, float, np.integer, np.floating)):
            self._refuse(TypeError, entry, p, _described(a), "a float", "use float(...)")
        return float(a)

    def _check_array(self, entry: str, p: Parameter, dtype: Any, a: Any) -> None:
        if not backend.is_array(a):
            self._refuse(TypeError, entry, p, _described(a), f"an array of {dtype}", "pass a NumPy or CuPy array, or None for a null pointer")
        if a.dtype != dtype:
            self._refuse(TypeError, entry, p, f"an array of {a.dtype}", f"an array of {dtype}", f"use astype('{dtype}')")
        if not a.flags.c_contiguous:
            self._refuse(ValueError, entry, p, f"strides {a.strides} for shape {a.shape}", "a C-contiguous array", "use ascontiguousarray")
        if backend.address(a) % a.itemsize:
            self._refuse(ValueError, entry, p, "an array at an address that is no multiple of its element's size", "an aligned array", "pass a copy")
        if not p.const and type(a) is np.ndarray and not a.flags.writeable:
            self._refuse(ValueError, entry, p, "a read-only array", "one to write into", "pass a copy")

    def _check_overlap(self, entry: str, arrays: list[tuple[Parameter, Any]]) -> None:
        """``__restrict__`` tells the compiler that what is written through a pointer is seen through no other; here the arrays are made to keep to it."""
        spans = [(p, start, start + a.nbytes) for p, a in arrays if a.nbytes for start in [backend.address(a)]]
        for p, start, end in spans:
            if p.restrict and not p.const:
                for q, other_start, other_end in spans:
                    if q is not p and start < other_end and other_start < end:
                        got = f"memory that {q.name} is in too"
                        self._refuse(ValueError, entry, p, got, "memory of its own, for it is __restrict__", "pass a copy of one of them")

    def _refuse(self, kind: type[Exception], entry: str, p: Parameter, got: str, expected: str, remedy: str) -> NoReturn:
        raise kind(f"{entry} ({self.name}), parameter '{p}': got {got}, expected {expected}; {remedy}")

    @staticmethod
    def pointee(p: Parameter, dtype: Any) -> Any:
        """The dtype of the array that a pointer parameter takes."""
        dtype = np.dtype(dtype).newbyteorder("=")
        if p.type == "real":
            return dtype
        return np.dtype("float64" if dtype.name == "float64" else "float32") if p.type == "acc" else np.dtype(_POINTEES[p.type])

    def __repr__(self) -> str:
        return f"Source({self.name!r})"


def _part(header: str) -> str:
    return f'#line 1 "{header}"\n{(FOLDER / header).read_text(encoding="utf-8")}\n'


@functools.lru_cache(maxsize=4096)
def _sizes(kernel: str, grid: Any, block: Any, shared: int, threads: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Grid and block of three numbers each, which a device can run."""
    three = []
    for what, sizes in (("grid", grid), ("block", block)):
        sizes = (sizes,) if isinstance(sizes, (int, np.integer)) else tuple(sizes)
        if not 1 <= len(sizes) <= 3:
            raise ValueError(f"{kernel}: got a {what} of {sizes}, expected one to three numbers")
        three.append(tuple(int(n) for n in (*sizes, 1, 1)[:3]))
    grid, block = three
    if any(not 0 <= n <= limit for n, limit in zip(grid, _MOST_BLOCKS)):
        raise ValueError(f"{kernel}: got a grid of {grid} blocks, expected 0 to {_MOST_BLOCKS}; let each thread do more")
    if any(not 1 <= n <= limit for n, limit in zip(block, _MOST_THREADS)) or math.prod(block) > threads:
        raise ValueError(f"{kernel}: got a block of {block} threads, expected 1 to {_MOST_THREADS}, and {threads} or fewer together")
    if not 0 <= shared <= _MOST_SHARED:
        raise ValueError(f"{kernel}: got {shared} bytes of shared memory, expected 0 to {_MOST_SHARED}; use smaller tiles")
    return grid, block


def _described(a: Any) -> str:
    return f"an array of {a.dtype} and shape {a.shape}" if backend.is_array(a) else f"{type(a).__name__} {a!r:.40}"


# ---------------------------------------------------------------------------------- on the GPU


class _Function:
    """An entry point on one device."""

    def __init__(self, source: Source, entry: str, kernel: Any) -> None:
        self.what, self.kernel = f"{entry} ({source.name})", kernel
        self.most_shared = kernel.max_dynamic_shared_size_bytes  # 48 KB less what the kernel declares, until more is asked for

    def __call__(self, grid: tuple[int, ...], block: tuple[int, ...], values: list[Any], shared: int) -> None:
        try:
            if shared > self.most_shared:
                with _lock:  # never lowered by another thread
                    if shared > self.most_shared:
                        self.kernel.max_dynamic_shared_size_bytes = shared
                        self.most_shared = shared
            self.kernel(grid, block, tuple([_device_argument(v) for v in values]), shared_mem=shared)
        except Exception as error:
            raise RuntimeError(f"{self.what}: the device refuses {grid} blocks of {block} threads with {shared} bytes of shared memory: {error}") from error


_functions: dict[tuple[Source, Any, str, int], _Function] = {}
_lock = threading.RLock()


def _function(source: Source, dtype: Any, entry: str) -> _Function:
    """The entry point on the current device, compiled once however many threads ask."""
    cp = backend.cupy()
    device = cp.cuda.Device().id
    key = (source, dtype, entry, device)
    found = _functions.get(key)
    if found is None:
        with _lock:
            found = _functions.get(key)
            if found is None:
                found = _functions[key] = _Function(source, entry, _compiled(cp, source, dtype, entry, device))
    return found


def _compiled(cp: Any, source: Source, dtype: Any, entry: str, device: int) -> Any:
    try:
        return cp.RawModule(code=source.code(dtype), options=OPTIONS).get_function(entry)
    except NotImplementedError:  # this CuPy compiles nothing
        raise
    except Exception as error:  # there is no silent way round: what does not compile here is a defect
        raise RuntimeError(f"{source.name} does not compile for {dtype} on cuda:{device}: {error}") from error


def _device_argument(v: Any) -> Any:
    """What CuPy passes in 8 bytes; pointers by their address, because CuPy need not know bfloat16."""
    if type(v) is int:
        return np.int64(v)
    if type(v) is float:
        return np.float64(v)
    return np.uint64(0 if v is None else v.data.ptr)
