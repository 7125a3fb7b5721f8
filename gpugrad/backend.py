"""The array layer: which library an array belongs to, devices, conversion and transfer.

The only file that imports CuPy, and only when a GPU array or device is asked for. Everything above it asks
``namespace(x)`` for the array functions that go with ``x``, or calls a NumPy function, which hands CuPy arrays to CuPy.
"""

from __future__ import annotations

import functools
import inspect
import math
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from types import ModuleType
from typing import Any

import numpy as np
from numpy import ndarray

CUDA_REMEDY = "Install CuPy (pip install 'gpugrad[cuda12]' or 'gpugrad[cuda13]', after the CUDA version that nvidia-smi shows), or use device='cpu'."

NOT_NUMBERS = "OSUmM"  # kinds of dtypes

waited: Callable[[], Any] = lambda: None  # called when the host has waited for a device; gpugrad.cuda.refusals says what for


class DeviceError(RuntimeError):
    """A device that is not there, or arrays of several devices in one operation."""


def loaded_cupy() -> ModuleType | None:
    """CuPy if something has imported it already: no array can be CuPy's otherwise."""
    return sys.modules.get("cupy")


@functools.cache
def cupy() -> ModuleType:
    """CuPy with a working GPU.

    Raises:
        DeviceError: there is no CuPy, no driver or no GPU, with the remedy.
    """
    try:
        import cupy
    except ImportError as error:
        raise DeviceError(f"device 'cuda' needs CuPy, which cannot be imported ({error}). {CUDA_REMEDY}") from None
    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except Exception as error:
        raise DeviceError(
            f"device 'cuda' was asked for, but CuPy {cupy.__version__} found no usable GPU ({error}). Install an NVIDIA driver, or use device='cpu'."
        ) from None
    if not count:
        raise DeviceError(f"device 'cuda' was asked for, but CuPy {cupy.__version__} found no GPU. Use device='cpu'.")
    return cupy


def cuda_is_available() -> bool:
    """Whether a GPU can be used; never raises."""
    try:
        cupy()
    except DeviceError:
        return False
    return True


def is_array(x: Any) -> bool:
    """Whether ``x`` is a NumPy or CuPy array."""
    return isinstance(x, ndarray) or ((cp := loaded_cupy()) is not None and isinstance(x, cp.ndarray))


def namespace(x: Any) -> ModuleType:
    """``numpy`` or ``cupy``, whichever ``x`` belongs to; scalars and sequences are NumPy's."""
    if type(x) is ndarray:
        return np
    cp = loaded_cupy()
    return cp if cp is not None and isinstance(x, cp.ndarray) else np


def device_of(x: Any) -> str:
    """``"cpu"`` or ``"cuda:N"``."""
    return "cpu" if namespace(x) is np else f"cuda:{x.device.id}"


def parse_device(device: str | None) -> tuple[str, int | None]:
    """``("cpu", None)`` or ``("cuda", index)``; "auto" is a GPU where there is one, None is the CPU.

    Raises:
        ValueError: not a device's name.
        DeviceError: no such GPU here.
    """
    if device == "auto":
        device = "cuda" if cuda_is_available() else "cpu"
    if device is None or device == "cpu":
        return "cpu", None
    match = re.fullmatch(r"cuda(?::(\d+))?", device) if isinstance(device, str) else None
    if match is None:
        raise ValueError(f"unknown device {device!r}: expected 'cpu', 'cuda', 'cuda:N' or 'auto'")
    cp = cupy()
    index = int(match[1]) if match[1] else cp.cuda.Device().id
    count = cp.cuda.runtime.getDeviceCount()
    if index >= count:
        raise DeviceError(f"device 'cuda:{index}' was asked for, but there are {count} GPUs here: cuda:0 to cuda:{count - 1}")
    return "cuda", index


def device_name(device: str | None) -> str:
    """The canonical name, ``"cpu"`` or ``"cuda:N"``."""
    kind, index = parse_device(device)
    return kind if index is None else f"{kind}:{index}"


def on(device: str | None) -> tuple[ModuleType, Any]:
    """The namespace of a device and a context that makes it the current one: ``xp, current = on(d)``."""
    kind, index = parse_device(device)
    if kind == "cpu":
        return np, nullcontext()
    return cupy(), cupy().cuda.Device(index)


def to_device(x: Any, device: str | None) -> Any:
    """``x`` on ``device``; ``x`` itself when it is there already."""
    name = device_name(device)
    if device_of(x) == name:
        return x
    if name == "cpu":
        y = x.get()
        waited()
        return y
    xp, current = on(name)
    with current:
        return xp.asarray(x)


def as_dtype(dtype: Any) -> np.dtype[Any]:
    """:func:`numpy.dtype`, which knows "bfloat16" only where ml_dtypes has been imported.

    Raises:
        ImportError: bfloat16 without ml_dtypes, with the remedy.
    """
    if type(dtype) is str and dtype == "bfloat16":
        try:
            import ml_dtypes
        except ImportError as error:
            raise ImportError(f"bfloat16 needs ml_dtypes, which cannot be imported ({error}): pip install 'gpugrad[bfloat16]'") from None
        return np.dtype(ml_dtypes.bfloat16)
    return np.dtype(dtype)


def asarray(obj: Any, dtype: Any = None, device: str | None = None, copy: bool | None = None) -> Any:
    """``obj`` as a plain array: arrays stay on their device unless ``device`` says otherwise.

    Shares memory where it can: NumPy and CuPy arrays, ``__cuda_array_interface__``, DLPack (a PyTorch or JAX array),
    ``__array__``. ``copy=True`` never shares, ``copy=False`` raises ValueError rather than copy.
    """
    if not is_array(obj):
        obj = _import_array(obj)
    kept = obj
    if device is not None:
        obj = to_device(obj, device)
    with _where(obj):
        if dtype is not None and obj.dtype != (dtype := as_dtype(dtype)):
            obj = obj.astype(dtype)
        if copy is False and obj is not kept:
            raise ValueError(f"asarray(copy=False) would have to copy: got {kept.dtype} on {device_of(kept)}, asked for {obj.dtype} on {device_of(obj)}")
        return obj.copy() if copy and obj is kept else obj


def _where(x: Any) -> Any:
    """A context in which the device of ``x`` is the current one."""
    return nullcontext() if namespace(x) is np else x.device


def _import_array(obj: Any) -> Any:
    if hasattr(obj, "__cuda_array_interface__"):
        return cupy().asarray(obj)
    if hasattr(obj, "__dlpack__") and not isinstance(obj, np.generic):
        if obj.__dlpack_device__()[0] == 2:  # kDLCUDA
            return cupy().from_dlpack(obj)
        return np.from_dlpack(obj)
    array = np.asarray(obj)
    if array.dtype.kind in NOT_NUMBERS:
        raise TypeError(f"cannot make an array of {type(obj).__name__}{_instead(obj)}")
    return array


def _instead(obj: Any) -> str:
    """What was expected in the place of an object that is no array."""
    if inspect.isroutine(obj):
        return ", expected numbers: the function comes first, as in gg.hvp(f, x, v)"
    if hasattr(obj, "named_parameters"):
        return ", expected numbers: give dict(model.named_parameters()) as p, and in the function write gg.nn.functional_call(model, p, x)"
    if isinstance(obj, Iterator):
        return ", which can be gone through once only, expected numbers: give a list or dict of arrays"
    return f" {obj!r:.60}: expected numbers in a regular nest (ragged rows, None and arbitrary objects are not)"


def address(array: Any) -> int:
    """Where the first element lies, in the memory of the array's device."""
    return array.__array_interface__["data"][0] if namespace(array) is np else array.data.ptr


def check_numbers(name: str, array: Any) -> None:
    """Raise TypeError where an array holds objects, strings or dates, whose functions would be nan or nonsense."""
    if array.dtype.kind in NOT_NUMBERS:
        raise TypeError(f"{name}: got {array.tolist()!r:.60} of dtype {array.dtype}, expected numbers (None, strings and other objects are not)")


def check_integer(name: str, value: Any, least: float = -math.inf) -> None:
    """Raise TypeError unless ``value`` is an integer, and ValueError below ``least``."""
    if not isinstance(value, (int, np.integer)) or isinstance(value, bool):
        raise TypeError(f"{name} must be an integer, got {value!r:.60}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, got {value}")


def mixed_devices(args: Any) -> DeviceError | None:
    """The error to raise when an operation was given arrays of several devices, or of one that is not current; None when it was not."""
    devices = sorted({device_of(a) for a in args if is_array(a)})
    if len(devices) > 1:
        return DeviceError(
            f"expected all arrays on one device, got arrays on {' and '.join(devices)}. Nothing moves by itself: move one of them with .to({devices[0]!r}) or .to({devices[-1]!r})."
        )
    if not devices or devices[0] == "cpu":
        return None
    current = cupy().cuda.Device().id
    if devices[0] == f"cuda:{current}":
        return None
    return DeviceError(
        f"got arrays on {devices[0]} while the current device is cuda:{current}, where work runs. Compute inside 'with cupy.cuda.Device({devices[0].removeprefix('cuda:')}):', or move the arrays with .to('cuda')."
    )
