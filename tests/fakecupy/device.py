"""``cupy.cuda`` with two devices and nothing behind them."""

from __future__ import annotations

import functools
import itertools
import threading
import weakref
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np

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
    """A stream. What is queued on it is done at once, but for copies out of pinned memory, which wait until something waits for them."""

    def __init__(self, null: bool = False, non_blocking: bool = False, ptds: bool = False, *, priority: Any = None) -> None:
        self.device_id = -1 if null or ptds else current_id()
        self.ptr = 0 if null else 2 if ptds else next(_pointers)
        self.is_non_blocking = non_blocking
        self._queued: list[Callable[[], None]] = []
        self._lock = threading.RLock()
        self._done = 0

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Stream) and self.ptr == other.ptr

    def __hash__(self) -> int:
        return self.ptr

    def __enter__(self) -> Stream:
        device = current_id() if self.device_id == -1 else self.device_id
        if device != current_id():
            raise RuntimeError(f"The device that the stream is created on ({device}) does not match with the current device ({current_id()})")
        _streams(device).append(self)
        _entered().append(device)
        return self

    def __exit__(self, *_: object) -> None:
        _streams(_entered().pop()).pop()

    def use(self) -> Stream:
        """Make it the current one."""
        _streams(current_id()).append(self)
        return self

    def put(self, copy: Callable[[], None]) -> None:
        """Queue a copy. The null stream, which others wait for, does it at once."""
        with self._lock:
            self._queued.append(copy)
        if not self.ptr:
            self.synchronize()

    def pass_to(self, end: int) -> None:
        """Do the first ``end`` copies."""
        with self._lock:
            while self._done < end:
                self._queued[self._done]()
                self._queued[self._done] = int
                self._done += 1

    def synchronize(self) -> None:
        """Do what is queued."""
        self.pass_to(len(self._queued))

    def wait_event(self, event: Event) -> None:
        """What is queued from here on comes after the event."""
        if self._done < len(self._queued):
            self.put(event.synchronize)
        else:
            event.synchronize()

    def record(self, event: Any = None) -> Any:
        """An event behind what is queued."""
        event = Event() if event is None else event
        event.record(self)
        return event

    @property
    def done(self) -> bool:
        """Time passes, and it is."""
        self.synchronize()
        return True


class Event:
    """A point in a stream. One that was never recorded is past."""

    def __init__(self, block: bool = False, disable_timing: bool = False, interprocess: bool = False) -> None:
        self._point: tuple[Stream, int] | None = None

    def record(self, stream: Any = None) -> None:
        """Behind what is queued."""
        stream = get_current_stream() if stream is None else stream
        self._point = stream, len(stream._queued)

    def synchronize(self) -> None:
        """Wait until it is past."""
        if self._point is not None:
            self._point[0].pass_to(self._point[1])

    @property
    def done(self) -> bool:
        """Time passes, and it is."""
        self.synchronize()
        return True


class PinnedMemoryPointer(bytearray):
    """Pinned memory of the host, in units of 512 bytes. When nobody holds it, it goes back to the pool, and has other content."""

    __slots__ = ("__weakref__",)

    def size(self) -> int:
        """In bytes."""
        return len(self)


def alloc_pinned_memory(size: int) -> PinnedMemoryPointer:
    """Pinned memory, with what happens to be in it."""
    return PinnedMemoryPointer(b"\x55" * (-(-size // 512) * 512))


def pinned(array: np.ndarray) -> PinnedMemoryPointer | None:
    """The pinned memory that an array lies in."""
    base: Any = array
    while isinstance(base, (np.ndarray, memoryview)):
        base = base.base if isinstance(base, np.ndarray) else base.obj
    return base if isinstance(base, PinnedMemoryPointer) else None


def copy_to(target: np.ndarray, source: np.ndarray, stream: Stream) -> None:
    """Copy on a stream: out of pinned memory when something waits for it, whatever that memory then holds; otherwise at once."""
    memory = pinned(source)
    if memory is None:
        stream.put(functools.partial(np.copyto, target, source))
        stream.synchronize()
        return
    held = weakref.ref(memory)
    offset = source.__array_interface__["data"][0] - np.frombuffer(memory, np.uint8).__array_interface__["data"][0]
    shape, dtype, strides = source.shape, source.dtype, source.strides

    def copy() -> None:
        memory = held()
        target[...] = np.frombuffer(b"\xaa" * dtype.itemsize, dtype)[0] if memory is None else np.ndarray(shape, dtype, memory, offset, strides)

    stream.put(copy)


_pointers = itertools.count(16)
Stream.null = Stream(null=True)  # type: ignore[attr-defined]
Stream.ptds = Stream(ptds=True)  # type: ignore[attr-defined]


def _streams(device: int) -> list[Stream]:
    """The current streams of a device in this thread, innermost last."""
    if not hasattr(_current, "streams"):
        _current.streams = [[Stream.null] for _ in range(DEVICES)]  # type: ignore[attr-defined]
    return _current.streams[device]


def _entered() -> list[int]:
    if not hasattr(_current, "entered"):
        _current.entered = []
    return _current.entered


def get_current_stream(device_id: int = -1) -> Stream:
    """The stream that this thread's work on a device goes to."""
    return _streams(current_id() if device_id == -1 else device_id)[-1]


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
        get_current_stream=get_current_stream,
        alloc_pinned_memory=alloc_pinned_memory,
        PinnedMemoryPointer=PinnedMemoryPointer,
        get_device_id=current_id,
        is_available=lambda: True,
    )
    return cuda, runtime
