"""Every kernel and every operation, on everything that this machine can run them on, against the same computation in float64.

What ``gpugrad check`` prints. The inputs are the samples that stand with each kernel and each operation.
"""

from __future__ import annotations

import importlib
import math
import pkgutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np

import gpugrad.ops
from gpugrad import backend, kernels, tape, transforms, tree
from gpugrad.cuda import emulator
from gpugrad.kernels import KERNELS, Kernel
from gpugrad.ops.rules import REGISTRY, Sample
from gpugrad.tape import Op, plain
from gpugrad.testing.devices import tolerance

REFERENCE, NUMBA, EMULATED, CUDA = "NumPy", "Numba", "emulated CUDA", "CUDA"
_TWIN = {REFERENCE: "reference", NUMBA: "cpu", EMULATED: "cuda", CUDA: "cuda"}


@dataclass(frozen=True)
class Agreement:
    """How far one computation was from the truth: ``error`` and ``allowed`` in units in the last place of the largest element of each result."""

    name: str
    dtype: str
    place: str
    error: float
    allowed: float
    seconds: float  # of a call, the fastest of a few
    problem: str = ""  # what was raised

    @property
    def holds(self) -> bool:
        """Whether it is near enough; nan is not."""
        return not self.problem and self.error <= self.allowed


def places() -> list[str]:
    """Where kernels can run here: NumPy and Numba always, the emulator where there is a C++ compiler, CUDA where there is a GPU."""
    return [REFERENCE, NUMBA, *([EMULATED] if emulator.is_available() else []), *([CUDA] if backend.cuda_is_available() else [])]


def dtypes() -> list[Any]:
    """float32, float64, float16; bfloat16 where ml_dtypes is installed."""
    try:
        from ml_dtypes import bfloat16
    except ImportError:
        return [np.dtype(t) for t in (np.float32, np.float64, np.float16)]
    return [np.dtype(t) for t in (np.float32, np.float64, np.float16, bfloat16)]


def all_kernels() -> list[Kernel]:
    """All there are, by name."""
    for module in pkgutil.iter_modules(kernels.__path__):
        if not module.name.endswith("_cpu"):
            importlib.import_module(f"gpugrad.kernels.{module.name}")
    return [KERNELS[name] for name in sorted(KERNELS)]


def all_operations() -> list[Op]:
    """All of the library's, by name."""
    for module in pkgutil.iter_modules(gpugrad.ops.__path__):
        importlib.import_module(f"gpugrad.ops.{module.name}")
    return [REGISTRY[name] for name in sorted(REGISTRY)]


def kernels_agree(chosen: Sequence[Kernel] | None = None, where: Sequence[str] | None = None) -> Iterator[Agreement]:
    """One result for each kernel, dtype and place that can take it."""
    for kernel in all_kernels() if chosen is None else chosen:
        for dtype in dtypes():
            for place in places() if where is None else where:
                if place != NUMBA or dtype.char in "fd":
                    yield _kernel_agrees(kernel, dtype, place)


def operations_agree(chosen: Sequence[Op] | None = None, where: Sequence[str] | None = None) -> Iterator[Agreement]:
    """One result for each operation, dtype and device: the value, the vjp and the jvp of all samples."""
    for op in all_operations() if chosen is None else chosen:
        for dtype in (np.dtype(np.float32), np.dtype(np.float64)):
            for place in where or [REFERENCE, *([CUDA] if backend.cuda_is_available() else [])]:
                yield _operation_agrees(op, dtype, place)


# ------------------------------------------------------------------------------------------------- one computation


def _kernel_agrees(kernel: Kernel, dtype: Any, place: str) -> Agreement:
    cases = kernel.samples(np.random.default_rng(0), dtype)
    twin = lambda: kernels.use(_TWIN[place])

    def run(case: Any) -> list[Any]:
        args, params = case
        args = _moved(args, place)  # fresh ones, for a kernel that writes into them
        return _arrays([kernel(*args, **params), [args[i] for i in kernel.writes]])

    def truth(case: Any) -> list[Any]:
        args, params = tree.map_leaves(_copied, case[0]), case[1]
        args = tree.map_leaves(_widened, args)
        with kernels.use("reference"):
            return _arrays([kernel(*args, **params), [args[i] for i in kernel.writes]])

    return _measured(kernel.name, dtype, place, cases, run, truth, twin)


def _operation_agrees(op: Op, dtype: Any, place: str) -> Agreement:
    cases = [s for s in op.samples or [] if isinstance(s, Sample)]

    def run(sample: Sample) -> list[Any]:
        return _value_and_derivatives(op, _moved(tuple(sample.filled(dtype)), place), sample.params)

    def truth(sample: Sample) -> list[Any]:
        return _value_and_derivatives(op, tuple(map(_widened, sample.filled(dtype))), sample.params)

    return _measured(op.name, dtype, place, cases, run, truth, nullcontext)


def _value_and_derivatives(op: Op, args: tuple[Any, ...], params: dict[str, Any]) -> list[Any]:
    """The value, and for float arguments the pullback of random cotangents and the push of random tangents."""
    chosen = [i for i, a in enumerate(args) if backend.is_array(a) and tape.is_inexact(a.dtype)]
    f = lambda *xs: op(*[xs[chosen.index(i)] if i in chosen else a for i, a in enumerate(args)], **params)
    xs = [args[i] for i in chosen]
    if not chosen or not op.differentiable:
        return _arrays(op(*args, **params))
    y, pullback = transforms.vjp(f, *xs)
    gs = tree.map_leaves(_random_like, y)
    return _arrays([y, pullback(gs), transforms.jvp(f, tuple(xs), tuple(map(_random_like, xs)))[1]])


def _measured(
    name: str,
    dtype: Any,
    place: str,
    cases: Sequence[Any],
    run: Callable[[Any], list[Any]],
    truth: Callable[[Any], list[Any]],
    context: Callable[[], AbstractContextManager[Any]],
) -> Agreement:
    found = [(0.0, 0.0, math.inf)]  # error over what is allowed, error, what is allowed
    seconds = math.inf
    try:
        with context(), np.errstate(all="ignore"):
            for case in cases:
                expected, got = truth(case), run(case)
                limit = tolerance(dtype, max((x.size for x in expected), default=1)) / _ulp(dtype)
                errors = [_error(g, e, dtype) for g, e in zip(got, expected, strict=True)]
                found += [(e / limit, e, limit) for e in errors]
            for _ in range(3):
                start = time.perf_counter()
                for case in cases:
                    run(case)
                seconds = min(seconds, (time.perf_counter() - start) / max(1, len(cases)))
    except Exception as problem:
        return Agreement(name, dtype.name, place, math.nan, math.nan, math.nan, f"{type(problem).__name__}: {problem}")
    _, error, allowed = max(found)
    return Agreement(name, dtype.name, place, error, allowed, seconds)


def _ulp(dtype: Any) -> float:
    return {"float64": 2.0**-52, "float32": 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7}[dtype.name]


def _error(got: Any, expected: Any, dtype: Any) -> float:
    """The largest difference, in units in the last place of the largest finite element; infinite where nan, infinities or shapes differ."""
    if got.shape != expected.shape:
        return math.inf
    got, expected = got.astype(np.complex128), expected.astype(np.complex128)
    finite = np.isfinite(expected)
    if not np.array_equal(np.where(finite, 0, got), np.where(finite, 0, expected), equal_nan=True):
        return math.inf
    size = np.max(np.abs(expected), where=finite, initial=0.0)
    off = np.max(np.abs(np.where(finite, got - expected, 0)), initial=0.0)
    return 0.0 if off == 0 else float(off / (size * _ulp(dtype))) if size and off < math.inf else math.inf  # off is nan where only got is


# ------------------------------------------------------------------------------------------------- arrays


def _arrays(results: Any) -> list[Any]:
    """All arrays of a nest, on the CPU."""
    return [backend.to_device(x, "cpu") if backend.is_array(x) else np.asarray(x) for x in map(plain, tree.flatten(results)[0])]


def _moved(args: tuple[Any, ...], place: str) -> tuple[Any, ...]:
    device = "cuda" if place == CUDA else "cpu"
    return tree.map_leaves(lambda x: backend.to_device(_copied(x), device) if backend.is_array(x) else x, args)


def _copied(x: Any) -> Any:
    """A copy; of a number that is broadcast, as the cotangent of a sum is, another such: kernels have functions of their own for that."""
    if isinstance(x, np.ndarray) and x.size > 1 and not any(x.strides):
        return np.broadcast_to(x.flat[0], x.shape)
    return x.copy() if backend.is_array(x) else x


def _widened(x: Any) -> Any:
    if not backend.is_array(x) or not tape.is_inexact(x.dtype):
        return x
    return x.astype(np.complex128 if x.dtype.kind == "c" else np.float64)


def _random_like(x: Any) -> Any:
    """Numbers that are the same in every dtype: multiples of 1/64."""
    x = plain(x)
    if not backend.is_array(x):
        x = np.asarray(x)
    values = np.random.default_rng(3).integers(-64, 65, x.shape) / 64
    return backend.asarray(values.astype(x.dtype), device=backend.device_of(x))
