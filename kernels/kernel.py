"""What a kernel is: one computation on plain arrays in three twins, and the one place where a call is given to one of them."""

from __future__ import annotations

import importlib
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy import ndarray

from gpugrad import backend, pool

TWINS = ("reference", "cpu", "cuda")
KERNELS: dict[str, Kernel] = {}


class _State(threading.local):
    twin: str | None = None


_state = _State()


@contextmanager
def use(twin: str | None) -> Iterator[None]:
    """``with use("reference"):`` every kernel of this thread runs as that twin, whatever its arrays are.

    "reference" is plain array functions, "cpu" is Numba's, "cuda" the CUDA kernel, which for NumPy arrays runs in the emulator
    (:mod:`gpugrad.cuda.emulator`). A twin that cannot take the arrays it is given (Numba has no 16-bit floats, neither has other processors' order of bytes) leaves them to the reference.
    None gives the choice back to the arrays.

    Raises:
        ValueError: there is no such twin.
    """
    if twin is not None and twin not in TWINS:
        raise ValueError(f"unknown twin {twin!r}: expected one of {', '.join(TWINS)}, or None")
    before, _state.twin = _state.twin, twin
    try:
        yield
    finally:
        _state.twin = before


class Kernel:
    """A computation in three twins of one signature, which the tests hold to each other.

    A call goes to one of them by its first argument, an array or a list of arrays: CuPy arrays of real floats to ``cuda``; NumPy arrays of float32
    or float64 in this processor's order of bytes with at least ``at_least`` elements to ``cpu``; all else to ``reference``. What is too small is quicker in NumPy.

    Args:
        name: the name of the attribute that holds the kernel; ``KERNELS`` knows it by that.
        reference: the specification, in plain array functions, which takes any layout and any mixture of dtypes.
        cpu: the Numba twin, as "module:function" of gpugrad.kernels, imported when it is first called: Numba takes half a second to import.
        cuda: the function that launches the CUDA kernel; its file is found by ``source``.
        samples: ``samples(rng, dtype)`` gives (args, params) pairs with arrays of that dtype, on which the twins are compared.
        writes: which arguments the kernel writes into.
    """

    def __init__(
        self,
        name: str,
        reference: Callable[..., Any],
        *,
        cpu: str,
        cuda: Callable[..., Any],
        samples: Callable[[np.random.Generator, Any], Sequence[tuple[tuple[Any, ...], dict[str, Any]]]],
        writes: tuple[int, ...] = (),
        at_least: int = 2048,
    ) -> None:
        self.name, self.reference, self.cuda, self.samples, self.writes, self.at_least = name, reference, cuda, samples, writes, at_least
        self._cpu_path = cpu
        self._cpu: Callable[..., Any] | None = None
        self.__doc__ = reference.__doc__
        KERNELS[name] = self

    @property
    def cpu(self) -> Callable[..., Any]:
        """The Numba twin."""
        if self._cpu is None:
            module, name = self._cpu_path.split(":")
            cpu = getattr(importlib.import_module(f"gpugrad.kernels.{module}"), name)
            pool.install()  # first: a setting that makes no sense is an error of every call
            self._cpu = cpu
        return self._cpu

    def __call__(self, *args: Any, **params: Any) -> Any:
        return self.chosen(args[0])(*args, **params)

    def chosen(self, first: Any) -> Callable[..., Any]:
        """The twin that runs for this first argument."""
        x, size = (first, first.size) if type(first) is not list else (first[0], sum([a.size for a in first]))
        on_cpu = type(x) is ndarray
        twin = _state.twin or ("cuda" if not on_cpu and backend.namespace(x) is not np else "cpu" if on_cpu and size >= self.at_least else "reference")
        if twin == "reference" or not x.dtype.isnative:
            return self.reference
        if twin == "cpu":
            return (self._cpu or self.cpu) if x.dtype.char in "fd" else self.reference
        return self.cuda if x.dtype.name in CUDA_DTYPES else self.reference

    def __repr__(self) -> str:
        return f"<kernel {self.name}>"


CUDA_DTYPES = ("float32", "float64", "float16", "bfloat16")
