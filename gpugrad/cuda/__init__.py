"""GPUs as gpugrad sees them. Work runs on CuPy's current device and stream, backward included.

The loader of ``.cu`` files, streams and graphs of our own will stand beside this file.
"""

from __future__ import annotations

from typing import Any

from gpugrad import backend


def is_available() -> bool:
    """Whether a GPU can be used; never raises."""
    return backend.cuda_is_available()


def device_count() -> int:
    """How many GPUs there are; 0 without CuPy or driver."""
    return backend.cupy().cuda.runtime.getDeviceCount() if is_available() else 0


def synchronize() -> None:
    """Wait until the current GPU has done all it was given.

    Raises:
        DeviceError: there is no GPU.
        IndexError: an index that it was given was out of range.
    """
    backend.cupy().cuda.Device().synchronize()
    backend.waited()


def current_stream() -> Any:
    """CuPy's current stream, on which gpugrad's work runs: ``with cupy.cuda.Stream():`` changes it.

    Raises:
        DeviceError: there is no GPU.
    """
    return backend.cupy().cuda.get_current_stream()
