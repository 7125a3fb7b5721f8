"""Indices that a GPU refuses. A kernel cannot raise, and the host should not wait for it to look, so it writes into memory of the host that the device sees.

The first index out of range that a kernel meets is noted in a report, one for each device, in pinned memory, which costs nothing where there is none. The host looks there
without waiting whenever an operation with indices begins, and whenever it has waited anyway: after a copy to the host and in :func:`gpugrad.cuda.synchronize`. What such an
index reads is defined (nan, or zeros), and nothing is written for it; so the error comes late, but before a number of that computation is seen.

NumPy arrays in the emulator have a report too. Under a CUDA graph the notes are made whenever it is launched.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from gpugrad import backend

_READY = 1  # the numbers: claimed, ready, operation, index, position, lowest, count; segments.cu writes them
_names: list[str] = []


class _Report:
    """Seven numbers in memory that both sides see."""

    def __init__(self, on_gpu: bool) -> None:
        memory = backend.cupy().cuda.alloc_pinned_memory(56) if on_gpu else bytearray(56)
        self.values = np.frombuffer(memory, np.int64, 7)
        self.values[:] = 0
        self.address = self.values.__array_interface__["data"][0]  # pinned memory has one address for the host and for its devices


_reports: dict[int | None, _Report] = {}


def address(x: Any) -> int:
    """Of the report of the device that an array is on. Raises what is noted there."""
    device = None if backend.namespace(x) is np else x.device.id
    if device not in _reports:
        _reports[device] = _Report(device is not None)
        backend.waited = raise_noted
    report = _reports[device]
    if report.values[_READY]:
        _raise(device, report)
    return report.address


@functools.cache
def number(name: str) -> int:
    """By which a kernel knows the operation that it works for."""
    _names.append(name)
    return len(_names) - 1


def raise_noted() -> None:
    """Look at all reports.

    Raises:
        IndexError: an index was out of range.
    """
    for device, report in _reports.items():
        if report.values[_READY]:
            _raise(device, report)


def _raise(device: int | None, report: _Report) -> None:
    if device is not None:
        with backend.cupy().cuda.Device(device):
            backend.cupy().cuda.Device().synchronize()  # nothing that is under way writes into it any more
    _, _, operation, index, position, lowest, count = report.values.tolist()
    report.values[:] = 0
    raise IndexError(message(_names[operation], index, position, lowest, count))


def message(name: str, index: Any, position: Any, lowest: int, count: int) -> str:
    """What is said of an index out of range."""
    expected = f"expected {lowest} to {count - 1}" if count else "expected none, for there is nothing to pick from"
    return f"{name}: got index {index} at position {position}, {expected}"
