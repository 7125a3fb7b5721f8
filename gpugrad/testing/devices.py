"""The same program on every device: values, gradients and Hessian-vector products against a truth in float64."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gpugrad import backend, kernels, tape, tree
from gpugrad.ops import reduce
from gpugrad.ops.elementwise import multiply
from gpugrad.products import hvp
from gpugrad.tape import plain
from gpugrad.transforms import grad

# The unit roundoff of each dtype, and that of the dtype in which its sums accumulate
_UNITS = {"float16": (2.0**-11, 2.0**-24), "bfloat16": (2.0**-8, 2.0**-24), "float32": (2.0**-24, 2.0**-24), "float64": (2.0**-53, 2.0**-53)}
_PARTS = {"complex64": "float32", "complex128": "float64"}
_SAFETY = 32


def tolerance(dtype: Any, length: int = 1) -> float:
    """How far, relative to its size, a result may be off that was rounded to ``dtype`` and sums ``length`` terms.

    Rounding errors of a sum add up like the steps of a random walk, so the bound is ``32 (u + sqrt(length) a)`` with u the unit
    roundoff of the dtype and a that of what it accumulates in (float32 for 16-bit floats). Higham, Accuracy and Stability of Numerical
    Algorithms (2002), section 2.8.
    """
    name = np.dtype(dtype).name
    name = _PARTS.get(name, name)
    if name not in _UNITS:
        raise TypeError(f"tolerance of dtype {np.dtype(dtype)}: expected one of {', '.join([*_UNITS, *_PARTS])}")
    unit, accumulator = _UNITS[name]
    return _SAFETY * (unit + math.sqrt(max(1, length)) * accumulator)


def available_devices() -> list[str]:
    """``["cpu"]``, and ``"cuda"`` where there is a GPU."""
    return ["cpu", "cuda"] if backend.cuda_is_available() else ["cpu"]


def assert_devices_agree(f: Callable[..., Any], *args: Any, devices: Sequence[str] | None = None, rtol: float | None = None) -> None:
    """Run ``f(*args)``, the gradient of its sum with random weights, and that gradient's derivative along a random direction on each device.

    Inside ``with gg.kernels.use(twin):`` it is that twin of the fused kernels which is compared; the truth comes from the references.

    Each result must be on its device, have the dtype that NumPy gives it there, and agree with the same computation in float64
    on the CPU, within ``rtol`` of its largest element.

    Args:
        args: nests of arrays and numbers, on any device; those of floats are differentiated.
        devices: by default all that there are here.
        rtol: by default the :func:`tolerance` of the narrowest dtype among the arguments and the size of the largest.

    Raises:
        AssertionError: naming the device, the quantity, and the largest difference.
    """
    leaves, structure = tree.flatten(args)
    leaves = [backend.to_device(plain(x), "cpu") if backend.is_array(plain(x)) else x for x in leaves]
    floats = [x for x in leaves if hasattr(x, "dtype") and tape.is_inexact(x.dtype)]
    if not floats:
        raise ValueError("assert_devices_agree: expected at least one array of floats among the arguments, got none")
    if rtol is None:
        rtol = max(tolerance(x.dtype, max(x.size for x in floats)) for x in floats)
    with kernels.use("reference"):
        truth = _quantities(f, structure, [_doubled(x) for x in leaves], "cpu")
    for device in available_devices() if devices is None else devices:
        for (what, expected), (_, got) in zip(truth, _quantities(f, structure, leaves, device), strict=True):
            _compare(what, got, expected, backend.device_name(device), rtol)


def _doubled(x: Any) -> Any:
    if not hasattr(x, "dtype") or not tape.is_inexact(x.dtype):
        return x
    return x.astype(np.complex128 if x.dtype.kind == "c" else np.float64)


def _quantities(f: Callable[..., Any], structure: Any, leaves: list[Any], device: str) -> list[tuple[str, Any]]:
    """(name, array) of everything that is compared."""
    rng = np.random.default_rng(0)
    _, current = backend.on(device)
    with current:
        leaves = [backend.to_device(x, device) if backend.is_array(x) else x for x in leaves]
        chosen = [i for i, x in enumerate(leaves) if hasattr(x, "dtype") and tape.is_inexact(x.dtype)]

        def of(*xs: Any) -> list[Any]:
            full = dict(enumerate(leaves)) | dict(zip(chosen, xs, strict=True))
            return tree.flatten(f(*tree.unflatten(structure, [full[i] for i in range(len(leaves))])))[0]

        xs = tuple(leaves[i] for i in chosen)
        ys = [plain(y) for y in of(*xs)]
        weights = [_random_like(rng, y, device) for y in ys]

        def weighted(*xs: Any) -> Any:
            total: Any = 0.0
            for y, w in zip(of(*xs), weights, strict=True):
                total = total + reduce.sum(multiply(y, w)).real if w is not None else total
            return total

        grads = grad(weighted, argnums=tuple(range(len(xs))))(*xs)
        products = hvp(weighted, xs, tuple(_random_like(rng, x, device) for x in xs))
    named = [("value", ys), ("gradient of float argument", grads), ("Hessian-vector product of float argument", products)]
    return [(f"{name} {i}", plain(x)) for name, group in named for i, x in enumerate(group)]


def _random_like(rng: np.random.Generator, x: Any, device: str) -> Any:
    """Random weights, the same for every precision; None for what has no derivative."""
    if not hasattr(x, "dtype") or not tape.is_inexact(x.dtype):
        return None
    values = rng.integers(-8, 9, x.shape) / 8.0  # exact in every dtype
    return backend.to_device(np.asarray(values).astype(x.dtype), device)


def _compare(what: str, got: Any, expected: Any, device: str, rtol: float) -> None:
    if backend.is_array(got) and backend.device_of(got) != device:
        raise AssertionError(f"{what} is on {backend.device_of(got)}, expected it on {device}")
    got, expected = (backend.to_device(x, "cpu") if backend.is_array(x) else np.asarray(x) for x in (got, expected))
    if got.shape != expected.shape:
        raise AssertionError(f"{what} on {device} has shape {got.shape}, expected {expected.shape}")
    wide = np.complex128 if expected.dtype.kind == "c" else np.float64
    got, expected = got.astype(wide), expected.astype(wide)
    finite = np.isfinite(expected)
    scale = np.max(np.abs(expected), where=finite, initial=0.0)
    error = np.max(np.abs(np.where(finite, got - expected, 0.0)), initial=0.0)
    same = np.array_equal(np.where(finite, 0, got), np.where(finite, 0, expected), equal_nan=True)
    if not same or not error <= rtol * scale + np.finfo(np.float64).tiny:
        raise AssertionError(f"{what} on {device} differs from the float64 value by {error:.3g}, more than {rtol:.3g} of its largest element, {scale:.3g}")
