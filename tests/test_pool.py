"""Memory of large arrays that is kept: never while somebody uses it, never more than the limit, and in no way that NumPy or the system can tell."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from gpugrad import pool

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is kept on Linux alone")
multiarray = pytest.importorskip("numpy._core.multiarray")
N = pool.LEAST  # elements of float32: four times the least bytes


@pytest.fixture(autouse=True)
def installed() -> Iterator[None]:
    pool.install()
    if pool._installed is None:
        pytest.skip("switched off here")
    gc.collect()
    pool.release()
    yield
    pool.release()


def address(a: Any) -> int:
    return a.__array_interface__["data"][0]


def test_memory_is_used_again_and_returned() -> None:
    a = np.empty(N, np.float32)
    where = address(a)
    del a
    assert 4 * N <= pool.kept() < 4.1 * N
    b = np.ones(N, np.float32)
    assert address(b) == where
    assert pool.kept() == 0
    del b
    pool.release()
    assert pool.kept() == 0


def test_views_keep_their_memory() -> None:
    a = np.full(N, 7, np.float32)
    v = a[5:].reshape(-1, 1).T
    del a
    others = [np.zeros(N, np.float32) + i for i in range(5)]
    assert (v == 7).all()
    assert pool.kept() == 0 or others


def test_small_and_much_smaller_arrays_do_not_take_large_blocks() -> None:
    a = np.empty(10 * N, np.float32)
    del a
    before = pool.kept()
    some = [np.empty(100), np.empty(N, np.float32), np.empty(8 * N, np.float32)]
    assert pool.kept() == before
    some.append(np.empty(9 * N + N // 2, np.float32))
    assert pool.kept() == 0


def test_zeros_are_zero() -> None:
    for _ in range(3):
        a = np.full(N, np.nan)
        del a
        assert not np.zeros(N).any()


def test_resized_arrays_keep_their_contents() -> None:
    a = np.arange(N, dtype=np.float64)
    a.resize(3 * N, refcheck=False)
    assert (a[:N] == np.arange(N)).all()
    assert not a[N:].any()
    a.resize(10, refcheck=False)
    assert (a == np.arange(10)).all()


def test_a_block_is_as_large_as_it_was_given_out() -> None:
    """An array may say that it is smaller, or larger, than its memory when it is freed."""
    a = np.empty(3 * N, np.float32)
    a.resize(2 * N, refcheck=False)
    del a
    assert pool.kept() < 12.1 * N
    with np.errstate(all="ignore"):
        filled = [np.full(2 * N, i, np.float32) for i in range(4)]
    assert [int(x[-1]) for x in filled] == [0, 1, 2, 3]


def test_contents_of_many_arrays() -> None:
    """A random life: every array still holds what was written into it when it is looked at last."""
    rng, alive = np.random.default_rng(0), []
    for i in range(3000):
        if len(alive) > 20 or (alive and rng.random() < 0.45):
            value, a = alive.pop(rng.integers(len(alive)))
            assert a[0] == a[-1] == value and (a[:: 1 + a.size // 50] == value).all()
        else:
            a = np.empty(int(N * rng.choice([0.01, 0.26, 0.3, 1, 1.05, 1.2, 3])), np.float32)
            a[:] = i
            alive.append((i, a))
    assert pool.kept() <= pool.limit()


def test_the_limit_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    state = pool._installed.state  # type: ignore[union-attr]
    before = int(state[pool._LIMIT])
    state[pool._LIMIT] = 10 * 4 * N
    try:
        arrays = [np.empty(N, np.float32) for _ in range(30)]
        del arrays
        assert 8 * 4 * N < pool.kept() <= 10 * 4 * N
        large = np.empty(11 * N, np.float32)
        del large  # would displace all others and is not kept
        assert 8 * 4 * N < pool.kept() <= 10 * 4 * N
    finally:
        state[pool._LIMIT] = before


def test_no_more_blocks_than_there_is_room_for() -> None:
    arrays = [np.empty(N // 4 + 1, np.float32) for _ in range(2 * pool._SLOTS)]
    del arrays
    assert pool._installed.state[pool._COUNT] == pool._SLOTS  # type: ignore[union-attr]


def test_arrays_pass_between_threads() -> None:
    """Made here and freed there, and the other way round; a thread that needs no kernel has NumPy's own functions."""
    assert multiarray.get_handler_name() == "gpugrad"
    names = []
    thread = threading.Thread(target=lambda: names.append(multiarray.get_handler_name()))
    thread.start()
    thread.join()
    assert names == ["default_allocator"]

    def work(seed: int) -> bool:
        pool.install()
        rng, good = np.random.default_rng(seed), True
        for i in range(200):
            a = np.full(int(N * rng.choice([0.3, 0.5, 1])), i, np.float32)
            b = a * 2
            good &= bool(a[-1] == i and b[0] == 2 * i)
        return good

    with ThreadPoolExecutor(4) as threads:
        assert all(threads.map(work, range(8)))
        made = list(threads.map(lambda i: np.full(N, i), range(8)))
    assert [a[0] for a in made] == list(range(8))


def run(code: str, **environment: str) -> str:
    done = subprocess.run([sys.executable, "-X", "faulthandler", "-c", code], env=os.environ | environment, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


BEGIN = "import numpy as np; from gpugrad import pool; pool.install(); from numpy._core.multiarray import get_handler_name as name\n"


def test_arrays_outlive_the_interpreter() -> None:
    """At the end modules, cycles and the functions themselves go in any order."""
    code = BEGIN + (
        "import atexit, builtins, sys\nbuiltins.kept = np.ones(10**6); cycle = [np.ones(10**6)]; cycle.append(cycle)\n"
        "class Late:\n    def __init__(self): self.a = np.ones(10**6)\n    def __del__(self): self.a = self.a * 2\n"
        "late = Late(); sys.late = Late(); atexit.register(lambda: np.ones(10**6) * 2)\nprint(name())"
    )
    assert run(code) == "gpugrad"


def test_a_fork_has_its_own() -> None:
    code = BEGIN + (
        "import os\na = np.ones(10**6); b = np.ones(10**6); del b\n"
        "child = os.fork()\nc = np.full(10**6, 1 + (child == 0)); d = c * 2\nassert (a == 1).all() and d[0] in (2, 4)\n"
        "if not child: os._exit(0 if pool.kept() >= 0 else 1)\nassert os.waitpid(child, 0)[1] == 0 and c[0] == 1\nprint('both')"
    )
    assert run(code) == "both"


def test_kept_memory_is_given_back_before_an_allocation_fails() -> None:
    code = BEGIN + (
        "import resource\ndef fill(): a = [np.ones(10**7) for _ in range(4)]; del a; assert pool.kept() > 3e8\n"
        "fill(); size = next(int(line.split()[1]) << 10 for line in open('/proc/self/status') if line.startswith('VmSize'))\n"
        "resource.setrlimit(resource.RLIMIT_AS, (size + (60 << 20),) * 2)\n"
        "x = np.empty(2 * 10**7); assert pool.kept() == 0; del x; fill(); x = np.zeros(2 * 10**7); assert not x[::1000].any(); del x\n"
        "fill(); x = np.ones(10**5); x.resize(3 * 10**7, refcheck=False); assert x[0] == x[99_999] == 1 and x[-1] == 0\n"
        "try: np.empty(10**12)\nexcept MemoryError: print('too much')"
    )
    assert run(code, GPUGRAD_KEEP_MEMORY="500M") == "too much"


def test_release_while_others_allocate() -> None:
    code = BEGIN + (
        "import sys, threading, time; sys.setswitchinterval(1e-5); end = time.time() + 1; wrong = []\n"
        "def release():\n    while time.time() < end: pool.release()\n"
        "def work(i):\n    pool.install(); live = []\n    while time.time() < end:\n"
        "        live.append(np.full(17000 + len(live) * 997, i))\n"
        "        if len(live) > 8 and not (live.pop(i) == i).all(): wrong.append(i)\n"
        "threads = [threading.Thread(target=release)] + [threading.Thread(target=work, args=(i,)) for i in range(3)]\n"
        "[t.start() for t in threads]; [t.join() for t in threads]; pool.release(); print(wrong, pool.kept(), pool._installed.state[pool._COUNT])"
    )
    assert run(code) == "[] 0 0"


def test_nobody_waits_for_the_one_who_is_inside() -> None:
    """As a child of a fork would, for ever."""
    state = pool._installed.state  # type: ignore[union-attr]
    a = np.empty(N)
    del a
    kept = pool.kept()
    state[pool._BUSY] = 1
    try:
        b, c = np.full(N, 3.0), np.zeros(N)
        assert b[-1] == 3 and not c.any() and pool.kept() == kept
        del b, c
        pool.release()
        assert pool.kept() == kept
    finally:
        state[pool._BUSY] = 0
    pool.release()
    assert pool.kept() == 0


def test_what_is_not_wanted_any_more_goes() -> None:
    """A program that makes arrays of other sizes from now on does not hold the old ones for ever."""
    old = [np.empty(40 * N) for _ in range(3)]
    del old
    assert pool.kept() > 3 * 320 * N
    for _ in range(pool._PATIENCE + 3):
        np.empty(N)
    assert pool.kept() < 2 * 8 * N


def test_a_context_has_its_own() -> None:
    """The first kernel may be called in a task, which has a context of its own; what comes after it begins anew."""
    code = (
        "import contextvars\n"
        + BEGIN.replace("pool.install()", "contextvars.copy_context().run(pool.install)")
        + "before = name(); pool.install(); print(before, name())"
    )
    assert run(code) == "default_allocator gpugrad"


def test_a_limit_that_makes_no_sense_is_an_error_of_every_call() -> None:
    code = (
        "import numpy as np, gpugrad as gg; from gpugrad.kernels import masks; x = np.ones(10**5)\n"
        "for _ in range(2):\n    try: masks.positive(x, x)\n    except ValueError as error: print(error)"
    )
    assert run(code, GPUGRAD_KEEP_MEMORY="lots").count("GPUGRAD_KEEP_MEMORY is 'lots', expected a number of bytes") == 2


def test_zeros_of_every_size_near_the_border_and_large_counts() -> None:
    for n in [*range(pool.LEAST - 40, pool.LEAST + 40, 7), pool.LEAST + 4095, pool.LEAST + 4097]:
        a = np.full(n + n // 9, 255, np.uint8)
        del a
        a = np.zeros(n, np.uint8)
        assert not a.any() and address(a) % 16 == 0
    with pytest.raises((MemoryError, ValueError)):
        np.zeros((1 << 31, 1 << 31), np.float64)
    assert np.empty(0).size == np.zeros((0, 10**9)).size == 0


def test_it_can_be_switched_off_and_leaves_others_alone() -> None:
    assert run(BEGIN + "print(name(), pool.kept()); pool.release()", GPUGRAD_KEEP_MEMORY="0") == "default_allocator 0"
    assert run(BEGIN + "print(pool.limit(), pool._installed.state[pool._LIMIT])", GPUGRAD_KEEP_MEMORY="3m") == f"{3 << 20} {3 << 20}"


def test_it_begins_with_the_first_kernel() -> None:
    code = (
        "import numpy as np, gpugrad as gg; from numpy._core.multiarray import get_handler_name as name; before = name()\n"
        "from gpugrad.kernels import masks; masks.positive(np.ones(10**5), np.ones(10**5)); print(before, name())"
    )
    assert run(code) == "default_allocator gpugrad"


@pytest.mark.parametrize("given", ["much", "-1", "1T", "1.5G"])
def test_the_limit_must_be_a_number(given: str) -> None:
    with pytest.raises(ValueError, match=r"GPUGRAD_KEEP_MEMORY is .*expected a number of bytes"):
        pool._limit(given)


def test_limits() -> None:
    assert pool._limit("512M") == 512 << 20
    assert pool._limit(" 2g ") == 2 << 30
    assert pool._limit("1000") == 1000
    assert 0 < pool._limit(None) <= 1 << 29


def test_a_container_keeps_an_eighth_of_what_it_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    import resource

    for said, expected in (("max\n", pool._limit.__wrapped__(None)), ("268435456\n", 32 << 20)):
        monkeypatch.setattr(pool, "control_group", lambda setting, said=said: [said] if setting == "memory.max" else [])
        assert pool._limit.__wrapped__(None) == expected
    monkeypatch.setattr(pool, "control_group", lambda setting: [])
    monkeypatch.setattr(resource, "getrlimit", lambda which: (1 << 27, resource.RLIM_INFINITY))
    assert pool._limit.__wrapped__(None) == 16 << 20
