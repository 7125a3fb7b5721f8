"""A stand-in for CuPy, for machines without a GPU. It is not CuPy: nothing here runs on a GPU.

It is as strict as CuPy 14 in what it accepts, and computes with NumPy. So it proves that a program which runs on it hands no
NumPy array to CuPy, converts nothing to NumPy without saying so, calls no function or argument that CuPy lacks, and keeps its arrays
on their device; that is, it proves dispatch. It proves nothing about speed, memory or rounding on a GPU, and of streams only what is said below. A ``RawModule`` is run
by gpugrad's emulator of CUDA (``gpugrad/cuda/emulator.py``), where there is a C++ compiler; no other kernels are compiled.

What it holds to:

- ``cupy.ndarray`` is a class of its own; results of no axes are 0-d arrays, never scalars; ``numpy.asarray`` of one raises TypeError.
- NumPy arrays are refused in operators, functions and assignments; numbers of Python and NumPy are not. A boolean index is a
  ``cupy.ndarray``, at most one, and stands with no index array beside it; integer index arrays may be NumPy's.
- NumPy's functions and universal functions reach CuPy's of that name by ``__array_function__`` and ``__array_ufunc__``.
- Names, parameters, and the dtypes each universal function is compiled for are those of CuPy 14 (``cupy14.json``, written by ``describe.py``).
- There are two devices; an array takes part in a computation only where its device is the current one.
- A copy out of pinned memory (``ndarray.set`` on a stream) is done when an event behind it, or its stream, is waited for, with what the memory holds by then:
  who reads too early or overwrites or frees the memory too early gets wrong numbers. Everything else on a stream is done at once.
- Where CuPy shares memory so does this: views, ``asarray`` of an array on its device, ``real`` of a real array, which is the array itself.

``install()`` makes it what ``import cupy`` finds, ``uninstall()`` takes it away again.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import numpy as np

_displaced: dict[str, Any] = {}


class NoKernelsError(NotImplementedError):
    """Something asked the stand-in to compile a kernel. The tests (conftest.py) count as skipped what does."""


class Kernel:
    """``cupy.RawKernel``, ``ElementwiseKernel`` and ``ReductionKernel``."""

    def __init__(self, *_: Any, **__: Any) -> None:
        raise NoKernelsError("needs a GPU: a stand-in for CuPy compiles no kernels")


def modules() -> dict[str, ModuleType]:
    """The modules ``cupy``, ``cupyx`` and those below them."""
    from fakecupy import device, functions, ndarray, raw

    cuda, runtime = device.make()
    cupy, linalg, fft = (
        _module("cupy", functions.namespace()),
        _module("cupy.linalg", functions.submodule("linalg", np.linalg)),
        _module("cupy.fft", functions.submodule("fft", np.fft)),
    )
    linalg.__dict__["LinAlgError"] = np.linalg.LinAlgError
    pool = _module("memory pool", {"used_bytes": lambda: 0, "total_bytes": lambda: 0, "free_all_blocks": lambda: None})
    cupy.__dict__.update(
        cuda=cuda,
        linalg=linalg,
        fft=fft,
        __version__=ndarray.TABLE["version"] + " (stand-in)",
        is_available=lambda: True,
        **dict.fromkeys(("RawKernel", "ElementwiseKernel", "ReductionKernel"), Kernel),
        RawModule=raw.RawModule,
        get_default_memory_pool=lambda: pool,
        get_array_module=lambda *args: cupy if any(isinstance(a, ndarray.ndarray) for a in args) else np,
    )
    special = _module("cupyx.scipy.special", functions.special())
    scipy = _module("cupyx.scipy", {"special": special})
    cupyx = _module("cupyx", {"scipy": scipy, "scatter_add": lambda a, slices, value: a.scatter_add(slices, value)})
    return {m.__name__: m for m in (cupy, cuda, runtime, linalg, fft, cupyx, scipy, special)}


def _module(name: str, contents: dict[str, Any]) -> ModuleType:
    module = ModuleType(name)
    module.__path__ = []
    module.__dict__.update(contents)
    return module


def installed() -> bool:
    """Whether ``import cupy`` finds the stand-in."""
    return bool(_displaced)


def install() -> ModuleType:
    """Put it in the place of CuPy."""
    from gpugrad import backend

    if not installed():
        _displaced.update({name: sys.modules.pop(name) for name in list(sys.modules) if name.split(".")[0] in ("cupy", "cupyx")}, __here__=True)
        sys.modules.update(modules())
        backend.cupy.cache_clear()
    return sys.modules["cupy"]


def uninstall() -> None:
    """Put back what was there."""
    from gpugrad import backend

    for name in [name for name in sys.modules if name.split(".")[0] in ("cupy", "cupyx")]:
        del sys.modules[name]
    _displaced.pop("__here__", None)
    sys.modules.update(_displaced)
    _displaced.clear()
    backend.cupy.cache_clear()
