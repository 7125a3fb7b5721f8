"""CUDA kernels on the CPU: the same ``.cu`` file compiled with g++, so that its numbers can be checked where there is no GPU.

``emulator.h`` runs the threads and finds what is wrong with them; here is what compiles and starts it. :func:`schedule` changes the order in which
threads run, :func:`blocks` runs a few blocks of a large grid. With ``GPUGRAD_EMULATOR_SANITIZE=1`` in the environment kernels are compiled with
AddressSanitizer, which ends the process where one of them reads or writes beyond an array; the process must have been started with that library
(``LD_PRELOAD=$(g++ -print-file-name=libasan.so)``).
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
import threading
from bisect import bisect
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gpugrad import backend, cache

if TYPE_CHECKING:
    from gpugrad.cuda.loader import Source

HEADER = Path(__file__).with_name("emulator.h")
UNDEFINED = "alignment,null,bounds,signed-integer-overflow,shift,integer-divide-by-zero,float-cast-overflow,bool,enum"  # handled in emulator.h
FLAGS = ("-O1", "-g1", "-std=c++17", "-fPIC", "-w", "-ffp-contract=off", f"-fsanitize={UNDEFINED}", f"-fno-sanitize-recover={UNDEFINED}")
SANITIZE = ("-fsanitize=address", "-fsanitize-sections=emulator_shared", "-fno-omit-frame-pointer")
ORDERS = ("forward", "reverse", "shuffled")
MOST_STATIC_SHARED, MOST_SHARED = 48 * 1024, 227 * 1024  # bytes of a block: declared with __shared__, and with the dynamic ones


def compiler() -> str | None:
    """The C++ compiler: $CXX, or g++."""
    return shutil.which(os.environ.get("CXX") or "g++")


def is_available() -> bool:
    """Whether kernels can be emulated here."""
    return compiler() is not None


# ---------------------------------------------------------------------------------- how kernels run


class _State(threading.local):
    order, seed = "forward", 0
    blocks: np.ndarray | None = None


_state = _State()


@contextmanager
def schedule(order: str, seed: int = 0) -> Iterator[None]:
    """In which order this thread's launches run their blocks, the warps of a block, and the threads of a warp.

    A kernel whose result depends on it, by one bit, lacks a barrier or lets two threads write to one place.

    Args:
        order: "forward", "reverse" or "shuffled"; the last shuffles anew after every barrier, by the ``seed``.

    Raises:
        ValueError: no such order.
    """
    if order not in ORDERS:
        raise ValueError(f"unknown order {order!r}: expected one of {', '.join(ORDERS)}")
    before = _state.order, _state.seed
    _state.order, _state.seed = order, seed
    try:
        yield
    finally:
        _state.order, _state.seed = before


@contextmanager
def blocks(chosen: Iterable[int]) -> Iterator[None]:
    """This thread's launches run these blocks only, of all that the grid has, so that a grid of billions can be tried at its ends.

    Args:
        chosen: the numbers of blocks, ``x + gridDim.x * (y + gridDim.y * z)``.
    """
    before, _state.blocks = _state.blocks, np.array(list(chosen), np.int64)
    try:
        yield
    finally:
        _state.blocks = before


def _order_of_blocks(grid: Sequence[int]) -> np.ndarray | None:
    """The numbers of the blocks to run; None for all in their order."""
    count = grid[0] * grid[1] * grid[2]
    if _state.blocks is not None and not np.all((_state.blocks >= 0) & (_state.blocks < count)):
        raise ValueError(f"emulator.blocks was given {_state.blocks}, expected numbers below {count}, for the grid is {tuple(grid)}")
    if _state.order == "forward":
        return _state.blocks
    numbers = np.arange(count, dtype=np.int64) if _state.blocks is None else _state.blocks
    return numbers[::-1].copy() if _state.order == "reverse" else np.random.default_rng(_state.seed).permutation(numbers)


# ---------------------------------------------------------------------------------- launches


def launch(source: Source, entry: str, dtype: Any, grid: Sequence[int], block: Sequence[int], args: Sequence[Any], shared: int) -> None:
    """Run a kernel whose arguments (arrays, int, float and None) :meth:`Source.launch` has checked; returns when it is done.

    Raises:
        RuntimeError: there is no compiler, the kernel does not compile, or something is wrong with what its threads do.
    """
    code = source.code(dtype)
    if not _sanitizing():
        run(code, entry, grid, block, list(map(_value, args)), shared)
        return
    with _guarded([a for a in args if backend.is_array(a)]) as moved:
        run(code, entry, grid, block, [np.uint64(moved(_address(a))) if backend.is_array(a) else _value(a) for a in args], shared)


def run(code: str, entry: str, grid: Sequence[int], block: Sequence[int], values: Sequence[np.generic], shared: int = 0) -> None:
    """Run the ``extern "C" __global__`` function ``entry`` of ``code``.

    Args:
        values: the arguments as NumPy scalars of the parameters' sizes; an array's is its address, ``np.uint64``.

    Raises:
        RuntimeError: as for :func:`launch`; the message names the kernel, its file, the block and the thread.
    """
    compiled = library(code)
    problem = compiled.problem_of_size(entry, shared) or compiled.launch(entry, grid, block, values, shared)
    if problem:
        raise RuntimeError(f"{entry} ({_file(code)}): {problem}")


def _value(a: Any) -> np.generic:
    if a is None:
        return np.uint64(0)
    if backend.is_array(a):
        return np.uint64(_address(a))
    return np.float64(a) if isinstance(a, float) else np.int64(a)


def _address(a: np.ndarray) -> int:
    return a.__array_interface__["data"][0]


def _file(code: str) -> str:
    """The last file that the text says it is."""
    return (["no file", *re.findall(r'^#line \d+ "(.*)"', code, re.M)])[-1]


# ---------------------------------------------------------------------------------- libraries


class _Launch(ctypes.Structure):
    """``emulator::Launch``."""

    _fields_ = (
        ("grid", ctypes.c_uint32 * 3),
        ("block", ctypes.c_uint32 * 3),
        ("shared", ctypes.c_uint64),
        ("arguments", ctypes.c_void_p),
        ("sizes", ctypes.c_void_p),
        ("count", ctypes.c_uint32),
        ("blocks", ctypes.c_void_p),
        ("block_count", ctypes.c_int64),
        ("order", ctypes.c_uint32),
        ("seed", ctypes.c_uint64),
    )


class Library:
    """A compiled text. Its threads and shared memory are there once, so launches wait for each other."""

    def __init__(self, code: str, extra: tuple[str, ...]) -> None:
        self.entries = _entries(code)
        self.path, self.lock = _built(code, self.entries, extra), threading.Lock()
        self.functions = ctypes.CDLL(str(self.path))

    def launch(self, entry: str, grid: Sequence[int], block: Sequence[int], values: Sequence[np.generic], shared: int) -> str:
        """What went wrong; empty when nothing did."""
        if entry not in self.entries:
            return f'there is no such extern "C" __global__ function, expected one of {", ".join(self.entries)}'
        function = getattr(self.functions, f"emulate_{entry}")
        function.restype = ctypes.c_char_p
        memory = [np.array(v) for v in values]
        arguments = np.array([m.ctypes.data for m in memory], np.uint64)
        sizes = np.array([m.nbytes for m in memory], np.uint32)
        order = _order_of_blocks(grid)
        launch = _Launch(
            (ctypes.c_uint32 * 3)(*grid), (ctypes.c_uint32 * 3)(*block), shared, arguments.ctypes.data, sizes.ctypes.data, len(values),
            None if order is None else order.ctypes.data, 0 if order is None else order.size, ORDERS.index(_state.order), _state.seed,
        )  # fmt: skip
        with self.lock:
            problem = function(ctypes.byref(launch))  # lies in the library, until its next launch
            return problem.decode() if problem else ""

    def problem_of_size(self, entry: str, shared: int) -> str:
        """Shared memory that no device has; empty when it is not too much."""
        static = self.static_shared.get(entry, 0)
        if static > MOST_STATIC_SHARED:
            return f"declares {static} bytes of __shared__ memory, expected {MOST_STATIC_SHARED} or fewer: use DYNAMIC_SHARED"
        if static + shared > MOST_SHARED:
            return f"needs {static} and {shared} bytes of shared memory, expected {MOST_SHARED} or fewer together: use smaller tiles"
        return ""

    @functools.cached_property
    def static_shared(self) -> dict[str, int]:
        """How many bytes of ``__shared__`` variables each kernel declares in its body, by the library's table of symbols."""
        nm = shutil.which("nm")
        lines = subprocess.run([nm, "-S", str(self.path)], capture_output=True, text=True).stdout.splitlines() if nm else []
        symbols = {words[-1]: words for words in map(str.split, lines)}
        if "__start_emulator_shared" not in symbols:
            return {}
        start, stop = (int(symbols[f"__{end}_emulator_shared"][0], 16) for end in ("start", "stop"))
        sizes: dict[str, int] = {}
        for name, words in symbols.items():
            local = re.match(r"_ZZN7kernels12_GLOBAL__N_1(\d+)(\w+)", name)  # the mangled name of a variable of a function
            if local and len(words) == 4 and start <= int(words[0], 16) < stop:
                entry = local[2][: int(local[1])]
                sizes[entry] = sizes.get(entry, 0) + int(words[1], 16)
        return sizes


_libraries: dict[tuple[str, bool], Library] = {}
_building: dict[tuple[str, bool], threading.Lock] = {}


def _sanitizing() -> bool:
    return os.environ.get("GPUGRAD_EMULATOR_SANITIZE") == "1"


def library(code: str) -> Library:
    """The library of a text, compiled once however many threads ask.

    Raises:
        RuntimeError: there is no compiler, or it does not compile.
    """
    key = (code, _sanitizing())
    found = _libraries.get(key)
    if found is None:
        with _building.setdefault(key, threading.Lock()):
            found = _libraries.get(key)
            if found is None:
                found = _libraries[key] = Library(code, SANITIZE if key[1] else ())
    return found


def _entries(code: str) -> dict[str, str]:
    """The kernels of a text, with the expression for the most threads that each is declared for."""
    from gpugrad.cuda import loader

    found = loader._ENTRY.finditer(loader._COMMENT.sub(" ", code))
    return {m["name"]: (m["before"] or m["after"] or "1024").partition(",")[0] for m in found}


def _text(code: str, entries: dict[str, str]) -> str:
    """What g++ is given: the header, the kernels, and a function for each by which it is launched."""
    glue = "\n".join(
        f'extern "C" const char *emulate_{name}(const emulator::Launch *launch) {{ return emulator::launch<kernels::{name}>(*launch, {most_threads}); }}'
        for name, most_threads in entries.items()
    )
    # C's names would be those of the whole process: a kernel `div` would be taken for the C library's.
    code = re.sub(r'extern(\s+)"C"(\s+__global__)', r"\1\2", code)
    return f'#line 1 "emulator.h"\n{HEADER.read_text()}\nnamespace kernels {{ namespace {{\n{code}\n}}\n{glue}\n}}\n'


def _built(code: str, entries: dict[str, str], extra: tuple[str, ...]) -> Path:
    """The compiled library, kept on disk under the hash of all that it is made of; other processes may build it at the same time."""
    gxx = compiler()
    if gxx is None:
        raise RuntimeError("the emulator of CUDA kernels needs a C++ compiler: install g++, or set CXX")
    text, flags = _text(code, entries), (*FLAGS, *extra)
    name = f"{hashlib.sha256(repr((gxx, flags, text)).encode()).hexdigest()[:32]}.so"
    try:
        path = cache.folder("emulator") / name
        if not path.exists() and not os.access(path.parent, os.W_OK):
            raise PermissionError(f"cannot write to {path.parent}")
    except OSError:  # compiled for this process alone, as Numba's functions are then
        path = Path(_temporary().name) / name
    if not path.exists():
        with tempfile.TemporaryDirectory(dir=path.parent) as work:
            made, linked = os.path.join(work, "kernel.o"), os.path.join(work, "kernel.so")
            # Linked by itself, without the checks of undefined behaviour: their library is not needed, for emulator.h takes its place.
            for command in ([gxx, *flags, "-c", "-x", "c++", "-", "-o", made], [gxx, "-shared", *extra[:1], made, "-o", linked]):
                done = subprocess.run(command, input=text, capture_output=True, text=True)
                if done.returncode:
                    raise RuntimeError(f"the emulator cannot compile {_file(code)}:\n{done.stderr}")
            os.replace(linked, path)
    return path


@functools.cache
def _temporary() -> tempfile.TemporaryDirectory[str]:
    """A folder that goes with this process."""
    return tempfile.TemporaryDirectory(prefix="gpugrad-emulator-")


# ---------------------------------------------------------------------------------- exact buffers, for AddressSanitizer


@contextmanager
def _guarded(arrays: list[np.ndarray]) -> Iterator[Any]:
    """Copies of the arrays that end where their memory ends, so that an access beyond is seen; yields where an address has gone, and copies back.

    Arrays that overlap are copied together. Their addresses stay what they are modulo 16, which is what alignment of loads goes by.
    """
    libc = ctypes.CDLL(None)  # whose malloc is AddressSanitizer's
    libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, (ctypes.c_size_t,), (ctypes.c_void_p,)
    spans: list[list[int]] = []
    for start, size in sorted((_address(a), a.nbytes) for a in arrays):
        if spans and start < spans[-1][1]:
            spans[-1][1] = max(spans[-1][1], start + size)
        else:
            spans.append([start, start + size])
    starts = [start for start, _ in spans]
    blocks = [libc.malloc(start % 16 + stop - start) for start, stop in spans]
    copies = [block + start % 16 for block, start in zip(blocks, starts)]
    for copy, (start, stop) in zip(copies, spans):
        ctypes.memmove(copy, start, stop - start)
    try:
        yield lambda address: copies[i := bisect(starts, address) - 1] + address - starts[i]
    finally:
        for copy, (start, stop) in zip(copies, spans):
            ctypes.memmove(start, copy, stop - start)
        for block in blocks:
            libc.free(block)
