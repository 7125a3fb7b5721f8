"""Work ahead of whoever waits for it: in a thread, and on a stream of its own of the GPU."""

from __future__ import annotations

import contextvars
import os
import queue
import threading
from collections import deque
from collections.abc import Callable, Generator
from contextlib import closing
from typing import Any, NamedTuple

import numpy as np

from gpugrad import backend, tree


def in_background(produce: Callable[[int], Any], start: int, stop: int, depth: int, done: Callable[[], Any] | None = None) -> Generator[Any]:
    """``produce(k)`` for k in range(start, stop), of which a thread does up to ``depth`` before they are asked for.

    An exception of ``produce`` is raised here, with the thread's traceback, when its turn comes. The thread ends with the generator, however that ends: at its
    end, by an exception, by ``close`` or because nobody holds it any more. ``done`` is called in the thread, last. After a fork, the child starts a thread of
    its own, from where it stands.
    """
    k = start
    while k < stop:
        worker = _Worker(produce, k, stop, depth, done)
        try:
            while k < stop and worker.pid == os.getpid():
                result = worker.next()
                k += 1
                yield result
        finally:
            worker.end()


class _Worker:
    """The thread, and how far it may go. It holds nothing of the generator, so that holding the thread keeps no generator alive."""

    def __init__(self, produce: Callable[[int], Any], start: int, stop: int, depth: int, done: Callable[[], Any] | None) -> None:
        self.pid = os.getpid()
        self.free = threading.Semaphore(depth)
        self.results: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()
        self.over = False
        run = contextvars.copy_context().run  # NumPy's errstate is the consumer's
        self.thread = threading.Thread(target=run, args=(self._work, produce, range(start, stop), done), name="gpugrad-data", daemon=True)
        self.thread.start()

    def _work(self, produce: Callable[[int], Any], numbers: range, done: Callable[[], Any] | None) -> None:
        try:
            for k in numbers:
                self.free.acquire()
                if self.over:
                    break
                self.results.put((produce(k), None))
        except BaseException as error:
            self.results.put((None, error))
        finally:
            if done is not None:
                done()

    def next(self) -> Any:
        """The next result, or its exception."""
        result, error = self.results.get()
        self.free.release()
        if error is None:
            return result
        try:
            raise error
        finally:
            del error  # its traceback holds this frame

    def end(self) -> None:
        """Have the thread end, and wait until it has."""
        if self.pid != os.getpid():
            return  # the child of a fork has no such thread
        self.over = True
        self.free.release()
        if self.thread is not threading.current_thread():  # which the garbage collector may run in
            self.thread.join()


def uploaded(take: Callable[[int], Any], start: int, stop: int, depth: int, device: str) -> Generator[Any]:
    """The nests of arrays ``take(k)`` for k in range(start, stop) on a GPU, taken and copied by a thread while the consumer and the GPU do other things."""
    upload = _Upload(device, depth)

    def produce(k: int) -> tuple[Any, _Sent]:
        consumer = upload.consumer
        with upload.gpu(), consumer:
            leaves, structure = tree.flatten(take(k))
        return structure, upload.send(leaves, consumer)

    with closing(in_background(produce, start, stop, depth, upload.close)) as results:
        for structure, sent in results:
            yield tree.unflatten(structure, upload.receive(sent))


class _Sent(NamedTuple):
    copies: list[Any]
    arrived: Any  # the event behind the copy
    consumer: Any  # the stream that the memory belongs to


class _Upload:
    """Copies from the host to a GPU beside its work: through pinned memory, on a stream of its own.

    CuPy's pool gives the memory of an array back to the stream that was current when it was allocated, and hands it out again for work that is queued there
    later. So a batch is allocated on the consumer's stream. The side stream waits for what is queued there before it copies, for the memory may be
    that of an earlier batch, which a kernel still reads; the consumer's stream waits for the copy.
    """

    def __init__(self, device: str, depth: int) -> None:
        self.device, self.depth = device, depth
        self.copying: deque[tuple[Any, list[Any]]] = deque()  # events, and the pinned buffers that must stay until then
        with self.gpu():
            self.side = backend.cupy().cuda.Stream(non_blocking=True)
            self.consumer = backend.cupy().cuda.get_current_stream()

    def gpu(self) -> Any:
        """A context in which the GPU is the current one."""
        return backend.on(self.device)[1]

    def send(self, arrays: list[Any], consumer: Any) -> _Sent:
        """Begin to copy: called in the thread."""
        cp = backend.cupy()
        while len(self.copying) > self.depth:
            self.copying[0][0].synchronize()
            self.copying.popleft()
        staged: list[Any] = []
        with self.gpu(), consumer:
            copies = [a if backend.device_of(a) == self.device else cp.empty(a.shape, a.dtype.newbyteorder("=")) for a in arrays]
            self.side.wait_event(consumer.record(_event()))
        with self.gpu():
            for array, copy in zip(arrays, copies, strict=True):
                if copy is not array and copy.size:
                    buffer = np.ndarray(copy.shape, copy.dtype, cp.cuda.alloc_pinned_memory(copy.nbytes))
                    staged.append(buffer)
                    buffer[...] = backend.to_device(array, "cpu")
                    copy.set(buffer, stream=self.side)
            arrived = self.side.record(_event())
        self.copying.append((arrived, staged))
        return _Sent(copies, arrived, consumer)

    def receive(self, sent: _Sent) -> list[Any]:
        """Arrays that work queued on the current stream may use: called by the consumer. Nothing waits on the host."""
        with self.gpu():
            current = self.consumer = backend.cupy().cuda.get_current_stream()
            current.wait_event(sent.arrived)
            if current == sent.consumer:
                return sent.copies
            moved = [x.copy() for x in sent.copies]  # the consumer has changed its stream since, and memory belongs to one
            sent.consumer.wait_event(current.record(_event()))
            return moved

    def close(self) -> None:
        """Wait for what is under way, so that its memory may go."""
        self.side.synchronize()
        self.copying.clear()


def _event() -> Any:
    """A point in a stream; a thread that waits for it sleeps."""
    return backend.cupy().cuda.Event(block=True, disable_timing=True)
