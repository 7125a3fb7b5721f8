"""``cupy.cuda`` with two devices and nothing behind them."""

from __future__ import annotations

import threading
from types import ModuleType
from typing import Any

DEVICES = 2
_current = threading.local()


def current_id() -> int:
    """The device that this thread works on."""
    return getattr(_current, "id", 0)


class CUDARuntimeError(RuntimeError):
    """What a call of the CUDA runtime raises."""


class Device:
    """``with Device(1):`` makes it the current one."""

    def __init__(self, device: Any = None) -> None:
        self.id = current_id() if device is None else int(device)
        if not 0 <= self.id < DEVICES:
            raise CUDARuntimeError("cudaErrorInvalidDevice: invalid device ordinal")
        self._before: list[int] = []

    def __enter__(self) -> Device:
        self._before.append(current_id())
        return self.use() or self

    def __exit__(self, *_: object) -> None:
        _current.id = self._before.pop()

    def __int__(self) -> int:
        return self.id

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Device) and self.id == other.id

    def __hash__(self) -> int:
        return hash(("Device", self.id))

    def __repr__(self) -> str:
        return f"<CUDA Device {self.id}>"

    def use(self) -> None:
        """Make it the current one until told otherwise."""
        _current.id = self.id

    def synchronize(self) -> None:
        """Nothing runs here that one could wait for."""

    compute_capability = "90"
    mem_info = (1 << 30, 1 << 30)


class Stream:
    """A stream: everything on it is done at once."""

    ptr = 0

    def __init__(self, null: bool = False, non_blocking: bool = False, ptds: bool = False, *, priority: Any = None) -> None:
        self.device_id = current_id()

    def __enter__(self) -> Stream:
        _streams().append(self)
        return self

    def __exit__(self, *_: object) -> None:
        _streams().pop()

    def use(self) -> Stream:
        """Make it the current one."""
        _streams().append(self)
        return self

    def synchronize(self) -> None:
        """Nothing runs here that one could wait for."""

    def wait_event(self, event: Any) -> None:
        """Every event is past."""

    def record(self, event: Any = None) -> Any:
        """An event, which is past."""
        return event or Event()

    done = True


class Event:
    """A point in a stream, which is past."""

    def __init__(self, block: bool = False, disable_timing: bool = False, interprocess: bool = False) -> None:
        pass

    def record(self, stream: Any = None) -> None:
        """Now."""

    def synchronize(self) -> None:
        """It is past."""

    done = True


Stream.null = Stream(null=True)  # type: ignore[attr-defined]


def _streams() -> list[Stream]:
    if not hasattr(_current, "streams"):
        _current.streams = [Stream.null]  # type: ignore[attr-defined]
    return _current.streams


def make() -> tuple[ModuleType, ModuleType]:
    """The modules ``cupy.cuda`` and ``cupy.cuda.runtime``."""
    runtime = ModuleType("cupy.cuda.runtime")
    runtime.__dict__.update(
        CUDARuntimeError=CUDARuntimeError,
        getDeviceCount=lambda: DEVICES,
        getDevice=current_id,
        setDevice=lambda i: Device(i).use(),
        deviceSynchronize=lambda: None,
        runtimeGetVersion=lambda: 12090,
        driverGetVersion=lambda: 12090,
        memGetInfo=lambda: Device.mem_info,
        getDeviceProperties=lambda i: {"name": b"no device: a stand-in for tests", "totalGlobalMem": 1 << 30, "major": 9, "minor": 0, "multiProcessorCount": 1},
    )
    cuda = ModuleType("cupy.cuda")
    cuda.__path__ = []
    cuda.__dict__.update(
        runtime=runtime,
        Device=Device,
        Stream=Stream,
        Event=Event,
        get_current_stream=lambda: _streams()[-1],
        get_device_id=current_id,
        is_available=lambda: True,
    )
    return cuda, runtime
