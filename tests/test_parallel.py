"""Work shared among threads: pieces, exceptions, nesting, forks, several callers, and how many threads there are."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from gpugrad import parallel
from gpugrad.parallel import split, threads


@pytest.fixture(autouse=True)
def _four_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPUGRAD_NUM_THREADS", "4")


def pieces(n: int, least: int) -> list[tuple[int, int]]:
    taken: list[tuple[int, int]] = []
    split(lambda start, stop: taken.append((start, stop)), n, least)
    return sorted(taken)


@pytest.mark.parametrize(("n", "least", "count"), [(0, 10, 1), (19, 10, 1), (20, 10, 2), (39, 10, 3), (1000, 10, 4), (1000, 200, 4), (1000, 1, 4)])
def test_pieces_cover_the_range_once(n: int, least: int, count: int) -> None:
    taken = pieces(n, least)
    assert len(taken) == count
    assert [i for start, stop in taken for i in range(start, stop)] == list(range(n))
    assert pieces(n, least) == taken


def test_pieces_of_flat_arrays_begin_at_cache_lines() -> None:
    assert [start % 64 for start, _ in pieces(100_001, 1000)] == [0] * 4


def test_pieces_run_at_the_same_time() -> None:
    together = threading.Barrier(4)
    split(lambda start, stop: together.wait(timeout=60) and None, 4, 1)


def test_no_thread_is_started_for_little_work() -> None:
    ran: list[threading.Thread] = []
    split(lambda start, stop: ran.append(threading.current_thread()), 100, 51)
    assert ran == [threading.current_thread()]


def test_an_exception_is_raised_when_all_pieces_are_done() -> None:
    done: list[int] = []
    together = threading.Barrier(4)

    def piece(start: int, stop: int) -> None:
        together.wait(timeout=60)
        done.append(start)
        if start:
            raise ValueError(f"piece at {start}")

    for _ in range(20):
        done.clear()
        with pytest.raises(ValueError, match=r"piece at 10$"):
            split(piece, 40, 10)
        assert sorted(done) == [0, 10, 20, 30]
    assert len(pieces(1000, 10)) == 4  # the threads outlive it


def test_a_piece_that_splits_runs_in_its_own_thread() -> None:
    inner: list[tuple[bool, int, int]] = []

    def piece(start: int, stop: int) -> None:
        here = threading.current_thread()
        split(lambda a, b: inner.append((threading.current_thread() is here, start + a, start + b)), stop - start, 1)

    split(piece, 40, 10)
    assert sorted(inner) == [(True, i, i + 10) for i in range(0, 40, 10)]
    assert len(pieces(1000, 10)) == 4  # and the caller splits again afterwards


def test_several_python_threads_share_the_pool() -> None:
    results: dict[int, list[int]] = {}

    def caller(name: int) -> None:
        for _ in range(50):
            taken: list[int] = []
            split(lambda start, stop, taken=taken: taken.extend(range(start, stop)), 64, 1)  # type: ignore[misc]
            results.setdefault(name, []).append(sum(taken))

    callers = [threading.Thread(target=caller, args=(i,)) for i in range(1, 9)]
    for thread in callers:
        thread.start()
    for thread in callers:
        thread.join(timeout=60)
    assert results == {i: [sum(range(64))] * 50 for i in range(1, 9)}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_it_works_after_a_fork() -> None:
    script = """
import os, threading
from gpugrad.parallel import split
def four_at_once():
    together = threading.Barrier(4)
    try:
        split(lambda start, stop: together.wait(timeout=20), 1000, 10)
    except threading.BrokenBarrierError:
        return False
    return True
assert four_at_once()
child = os.fork()
ok = four_at_once()
if child == 0:
    os._exit(0 if ok else 1)
assert os.waitpid(child, 0)[1] == 0
assert ok
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", script], check=True, timeout=60)


def test_the_interpreter_ends_while_threads_wait_or_work() -> None:
    script = """
import threading, time
from gpugrad.parallel import split
split(lambda start, stop: None, 1000, 10)
threading.Thread(target=lambda: split(lambda start, stop: time.sleep(60), 1000, 10), daemon=True).start()
time.sleep(0.1)
"""
    done = subprocess.run([sys.executable, "-c", script], check=True, timeout=30, capture_output=True)
    assert done.stderr == b""


def test_threads_that_wait_use_no_processor() -> None:
    script = """
import time
from gpugrad.parallel import split
split(lambda start, stop: None, 1000, 10)
before = time.process_time()
time.sleep(0.5)
print(time.process_time() - before)
"""
    done = subprocess.run([sys.executable, "-c", script], check=True, timeout=60, capture_output=True)
    assert float(done.stdout) < 0.1


def test_the_number_of_threads_is_given_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert threads() == 4
    for bad in ("0", "-1", "two", "1.5"):
        monkeypatch.setenv("GPUGRAD_NUM_THREADS", bad)
        with pytest.raises(ValueError, match=rf"GPUGRAD_NUM_THREADS is '{bad}', expected a positive integer"):
            threads()


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs an affinity")
def test_by_default_there_is_a_thread_for_each_processor_that_the_process_may_use() -> None:
    script = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); from gpugrad.parallel import threads; print(threads())"
    environment = {name: value for name, value in os.environ.items() if name != "GPUGRAD_NUM_THREADS"}
    assert subprocess.run([sys.executable, "-c", script], check=True, timeout=60, capture_output=True, env=environment).stdout.strip() == b"1"


def test_the_quota_of_a_control_group_counts(tmp_path: Path) -> None:
    own = tmp_path / "cgroup"
    own.write_text("12:cpu:/old\n0::/outer/inner\n")
    inner = tmp_path / "fs" / "outer" / "inner"
    inner.mkdir(parents=True)
    assert list(parallel._quotas(own, tmp_path / "fs")) == []
    (inner / "cpu.max").write_text("max 100000\n")
    (inner.parent / "cpu.max").write_text("250000 100000\n")
    assert list(parallel._quotas(own, tmp_path / "fs")) == [3]
    assert list(parallel._quotas(tmp_path / "absent", tmp_path / "fs")) == []
