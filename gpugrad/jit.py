"""Numba for kernels: functions compiled on first use, kept on disk, and run on several threads where that pays.

Importing this imports Numba, which takes half a second: only the files ``kernels/*_cpu.py`` do, and those are imported by the first call that needs one.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.metadata
import pickle
import re
import sys
import types
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numba
import numpy as np

from gpugrad import cache
from gpugrad.parallel import LEAST, split, threads

__all__ = ["FAST", "LEAST", "compiled", "inlined", "split", "summing", "threads"]

# No fastmath=True: it would assume that there is no nan and no infinity.
FAST = {"contract", "nsz", "arcp"}


def compiled(f: Callable[..., Any]) -> Any:
    """A function that Python calls: compiled for the types it meets, kept on disk, without the GIL while it runs.

    Its code is found on disk again by its name, its own bytecode, the constants in its closure, the text of all kernels, and the versions and settings of
    what compiled it. A global name in it must therefore stand for what that text says.
    """
    return _kept_on_disk(numba.njit(f, nogil=True, fastmath=FAST, error_model="numpy"))


def inlined(f: Callable[..., Any]) -> Any:
    """A function that compiled functions call: LLVM puts its code into theirs, so that their loops vectorise.

    (Numba's ``inline="always"``, which inlines before types are known, takes twice as long to compile, and drops the helper's own fastmath flags.)
    """
    return numba.njit(f, fastmath=FAST, error_model="numpy", forceinline=True, no_cfunc_wrapper=True)


def summing(f: Callable[..., Any]) -> Any:
    """An inlined function whose sums vectorise, because they may be made in any order: always the same one, so that the bits do not change from run to run."""
    return numba.njit(f, fastmath=FAST | {"reassoc"}, error_model="numpy", forceinline=True)


def _kept_on_disk(dispatcher: Any) -> Any:
    """With a cache of ours in the place of Numba's own, which its ``compile`` asks before it compiles and tells afterwards.

    Numba's knows the text of the function's own file only, and not that of the functions inlined into it; and processes that start together all compile.
    Here one of them does, while the others wait for it and load.

    Arrays that may not be written to are to Numba another type, for which it would compile all once more: they get the code of those that may. (What a kernel
    writes into is its own, or has been asked whether it may be written to, as the optimizers do.)
    """
    if isinstance(dispatcher, types.FunctionType):  # NUMBA_DISABLE_JIT=1
        return dispatcher
    try:
        from numba.core.compiler_lock import global_compiler_lock

        disk = dispatcher._cache = _Disk(dispatcher.py_func)
        compile_without_lock = dispatcher.compile
        entered: set[Any] = set()
    except (ImportError, AttributeError) as error:
        _warn_once(f"Numba {numba.__version__} works in another way than was expected: {error}")
        return dispatcher

    def compile(signature: Any) -> Any:
        met = numba.core.sigutils.normalize_signature(signature)[0]
        with global_compiler_lock, disk.locked():
            found = compile_without_lock(tuple(map(_writable, met)))
            if (
                any(map(_is_read_only, met)) and met not in entered
            ):  # next time it is found without asking Python; what threads enter twice is ambiguous, and never found
                entered.add(met)
                dispatcher._insert([t._code for t in met], found)
        return found

    dispatcher.compile = compile
    return dispatcher


def _is_read_only(met: Any) -> bool:
    return isinstance(met, numba.types.Array) and not met.mutable


def _writable(met: Any) -> Any:
    return met.copy(readonly=False) if _is_read_only(met) else met


class _Disk:
    """What Numba asks of a dispatcher's cache (``numba.core.caching._Cache``), for one function: one file for each signature."""

    def __init__(self, f: Callable[..., Any]) -> None:
        self._f = f
        self._name = re.sub(r"[^\w.]+", "", f"{f.__module__.rpartition('.')[2]}.{f.__qualname__}")
        self._held = 0

    @property
    def cache_path(self) -> str:
        return str(cache.root() / "numba")

    def enable(self) -> None:
        pass

    disable = flush = enable

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """No other process compiles this function. Without a lock where no file can be written; nothing is then saved either."""
        with contextlib.ExitStack() as stack:
            if not self._held:  # a function that calls itself compiles within its compilation
                with contextlib.suppress(OSError):
                    stack.enter_context(cache.locked(cache.folder("numba") / f"{self._name}.lock"))
            self._held += 1
            try:
                yield
            finally:
                self._held -= 1

    def load_overload(self, signature: Any, target_context: Any) -> Any:
        """The compiled function for these types; None where it must be compiled."""
        from numba.core.compiler import CompileResult
        from numba.core.runtime import rtsys

        try:
            data = cache.read(self._path(signature, target_context.codegen()))
        except OSError:
            return None  # saving says why
        try:
            if data is None:
                return None
            rtsys.initialize(target_context)  # all of refresh() that code needs that is compiled already; the rest takes half a second
            return CompileResult._rebuild(target_context, *pickle.loads(data))
        except Exception as error:
            _warn_once(f"{self._name} cannot be loaded: {type(error).__name__}: {error}")
            return None

    def save_overload(self, signature: Any, result: Any) -> None:
        """Keep what was compiled. What cannot be kept is said once."""
        try:
            if not (result.lifted or result.library.has_dynamic_globals):  # addresses of this process
                cache.write(self._path(signature, result.codegen), numba.core.serialize.dumps(result._reduce()))
        except OSError as error:
            _warn_once(str(error))
        except Exception as error:
            _warn_once(f"{self._name} cannot be saved: {type(error).__name__}: {error}")

    def _path(self, signature: Any, codegen: Any) -> Path:
        key = (str(signature), codegen.magic_tuple(), _surroundings(), _identity(self._f))  # magic_tuple: the processor and its features
        return cache.folder("numba") / f"{self._name}-{hashlib.sha256(repr(key).encode()).hexdigest()[:32]}"


@functools.cache
def _surroundings() -> tuple[Any, ...]:
    """What compiled code depends on, other than the function and the processor."""
    settings = [getattr(numba.config, name, None) for name in ("OPT", "BOUNDSCHECK", "LOOP_VECTORIZE", "SLP_VECTORIZE", "DEBUGINFO_DEFAULT")]
    versions = (sys.implementation.cache_tag, numba.__version__, importlib.metadata.version("llvmlite"), np.__version__)
    return (versions, settings, _texts_at_import)


def _texts() -> list[str]:
    """A hash of the text of every kernel, and of what they take constants from."""
    here = Path(__file__)
    return [hashlib.sha256(path.read_bytes()).hexdigest() for path in (here, here.with_name("pool.py"), *sorted((here.parent / "kernels").glob("*.py")))]


_texts_at_import = _texts()  # when kernels are compiled, later, their files may have been edited; what is compiled is what was imported


def _identity(value: Any) -> Any:
    """Equal in all processes for equal functions and constants."""
    value = getattr(value, "py_func", value)
    if isinstance(value, types.FunctionType):
        return (value.__module__, value.__qualname__, _identity(value.__code__), [_identity(cell.cell_contents) for cell in value.__closure__ or ()])
    if isinstance(value, types.CodeType):
        return (value.co_code, value.co_names, [_identity(constant) for constant in value.co_consts])
    return hashlib.sha256(pickle.dumps(value)).hexdigest()


_warned = False


def _warn_once(why: str) -> None:
    global _warned
    if not _warned:
        _warned = True
        remedy = "" if "GPUGRAD_CACHE_DIR" in why else "; set GPUGRAD_CACHE_DIR to a folder that can be written to"
        warnings.warn(f"compiled kernels cannot be kept on disk, so every process compiles them anew: {why}{remedy}", RuntimeWarning, stacklevel=2)
