"""Work shared among threads of our own, for functions that run without the GIL.

Numba's own threads (``parallel=True``) spin beside those of BLAS, die in a forked child, or abort when two Python threads call them. Ours sleep when
there is nothing to do, start anew after a fork, and are shared by all Python threads.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import math
import os
import queue
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# Elements of a simple pass over memory (an addition and a maximum) for which a thread pays: some 25 us, where waking it takes 5 to 15.
LEAST = 1 << 17
_ALIGNED = 64  # elements: pieces of flat arrays begin at whole cache lines


def threads() -> int:
    """How many threads kernels use: $GPUGRAD_NUM_THREADS, by default the processors that this process may run on.

    Raises:
        ValueError: the variable is not a positive integer.
    """
    return _threads(os.environ.get("GPUGRAD_NUM_THREADS"))


@functools.cache
def _threads(given: str | None) -> int:
    if not given:
        return _processors()
    if not given.strip().isdecimal() or int(given) < 1:
        raise ValueError(f"GPUGRAD_NUM_THREADS is {given!r}, expected a positive integer; unset it for one thread per processor")
    return int(given)


def _processors() -> int:
    """Those of this process's affinity, and no more than the quota of its control group, which is what a container is given."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([affinity, *_quotas(Path("/proc/self/cgroup"), Path("/sys/fs/cgroup"))]))


def _quotas(own: Path, mounted: Path) -> Iterator[int]:
    """The quotas of a process's control group and of those around it, in processors: cpu.max holds "quota period" in microseconds, or "max period"."""
    for text in control_group("cpu.max", own, mounted):
        with contextlib.suppress(ValueError):
            quota, period = text.split()
            if quota != "max":
                yield math.ceil(int(quota) / int(period))


def control_group(setting: str, own: Path = Path("/proc/self/cgroup"), mounted: Path = Path("/sys/fs/cgroup")) -> Iterator[str]:
    """What the files of that name say, of this process's control group and of those around it."""
    try:
        group = next(line[3:] for line in own.read_text().splitlines() if line.startswith("0::")).strip("/")
    except (OSError, StopIteration):
        return
    for path in (mounted / group, *(mounted / group).parents):
        with contextlib.suppress(OSError):
            yield (path / setting).read_text()


def split(f: Callable[[int, int], Any], n: int, least: int) -> None:
    """``f(start, stop)`` over ``range(n)`` in pieces of at least ``least``, on several threads; in this thread alone where n < 2 * least.

    The pieces must write to separate places. Their number depends on :func:`threads`, so a sum must have partial sums fixed by size, not by piece, to have
    the same bits with any number of threads. The call returns when all pieces are done; an exception in one is raised here, of several that of the first
    piece. A piece that calls ``split`` runs that in its own thread.
    """
    count = min(n // least, threads()) if n >= 2 * least and not _own.working else 1
    if count < 2:
        f(0, n)
        return
    unit = _ALIGNED if least >= _ALIGNED else 1
    ends = [n * i // count // unit * unit for i in range(count)] + [n]
    job = _Job(f, itertools.pairwise(ends), count)
    _pool.start(count - 1)
    for _ in range(count - 1):
        _pool.jobs.put(job)
    job.work()
    job.done.acquire()
    if job.errors:
        raise min(job.errors, key=lambda error: error[0])[1]


class _Own(threading.local):
    working = False


_own = _Own()


class _Job:
    """Pieces, which whoever comes first takes: the caller does not wait for a thread that has not begun."""

    def __init__(self, f: Callable[[int, int], Any], pieces: Iterator[tuple[int, int]], count: int) -> None:
        self.f, self.pieces, self.left = f, pieces, count
        self.lock = threading.Lock()
        self.done = threading.Lock()
        self.done.acquire()
        self.errors: list[tuple[int, BaseException]] = []

    def work(self) -> None:
        """Take pieces until there are none."""
        before, _own.working = _own.working, True
        try:
            while True:
                with self.lock:
                    piece = next(self.pieces, None)
                if piece is None:
                    return
                try:
                    self.f(*piece)
                except BaseException as error:
                    self.errors.append((piece[0], error))
                with self.lock:
                    self.left -= 1
                    if not self.left:
                        self.done.release()
        finally:
            _own.working = before


class _Pool:
    """Threads that wait, asleep, for jobs. They are daemons: the interpreter does not wait for them when it ends."""

    def __init__(self) -> None:
        self.jobs: queue.SimpleQueue[_Job] = queue.SimpleQueue()
        self.lock = threading.Lock()
        self.size = 0

    def start(self, size: int) -> None:
        """Have at least that many threads."""
        if self.size < size:
            with self.lock:
                for i in range(self.size, size):
                    threading.Thread(target=_serve, args=(self.jobs,), name=f"gpugrad-{i}", daemon=True).start()
                self.size = max(self.size, size)


def _serve(jobs: queue.SimpleQueue[_Job]) -> None:
    while True:
        jobs.get().work()


_pool = _Pool()


def _after_fork() -> None:
    """The child of a fork has none of the threads, and locks may be held there for ever."""
    global _pool
    _pool = _Pool()
    _own.working = False


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
