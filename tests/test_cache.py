"""Where compiled kernels are kept: whose folder it may be, that files are whole or absent, and locks between processes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gpugrad import cache

posix = pytest.mark.skipif(not hasattr(os, "geteuid"), reason="owners and modes are those of POSIX")


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPUGRAD_CACHE_DIR", str(tmp_path / "cache"))


@posix
def test_the_folder_is_made_for_the_user_alone(tmp_path: Path) -> None:
    path = cache.folder("kernels")
    assert path == tmp_path / "cache" / "kernels"
    assert path.stat().st_mode & 0o777 == path.parent.stat().st_mode & 0o777 == 0o700


@pytest.mark.skipif(sys.platform != "linux", reason="the places of Linux")
def test_by_default_it_is_the_platforms_place_for_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GPUGRAD_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache.root() == tmp_path / "xdg" / "gpugrad"
    monkeypatch.setenv("XDG_CACHE_HOME", "not/absolute")  # to be ignored, by the specification
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache.root() == tmp_path / ".cache" / "gpugrad"
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    with pytest.raises(OSError, match="no home directory; set GPUGRAD_CACHE_DIR"):
        cache.root()


@posix
@pytest.mark.parametrize("mode", [0o770, 0o707])
@pytest.mark.parametrize("which", ["cache", "cache/kernels"])
def test_a_folder_that_others_may_write_into_is_refused(tmp_path: Path, which: str, mode: int) -> None:
    cache.folder("kernels")
    (tmp_path / which).chmod(mode)
    with pytest.raises(PermissionError, match=rf"others may write into .* \(mode {mode:o}\).*chmod go-w .*GPUGRAD_CACHE_DIR"):
        cache.folder("kernels")
    (tmp_path / which).chmod(0o755)
    cache.folder("kernels")


@posix
def test_a_folder_of_another_user_is_refused_and_one_of_root_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    owner = cache.folder("kernels").stat().st_uid
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    if owner == 0:
        cache.folder("kernels")
        os.chown(cache.root(), 12345, -1)
    with pytest.raises(PermissionError, match=r"belongs to user .*GPUGRAD_CACHE_DIR"):
        cache.folder("kernels")


def test_a_folder_that_cannot_be_made_is_named_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file in its place")
    with pytest.raises(OSError, match=r"cannot make the folder for compiled kernels .*set GPUGRAD_CACHE_DIR.*cache"):
        cache.folder("kernels")


def test_what_is_read_is_what_was_written(tmp_path: Path) -> None:
    path = tmp_path / "file"
    assert cache.read(path) is None
    for data in (b"", b"one", b"another" * 1000):
        cache.write(path, data)
        assert cache.read(path) == data
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("damage", [lambda b: b"", lambda b: b[:20], lambda b: b[:-1], lambda b: b[:40] + b"x" + b[41:], lambda b: b + b"x"])
def test_a_damaged_file_counts_as_absent(tmp_path: Path, damage: object) -> None:
    path = tmp_path / "file"
    cache.write(path, b"compiled code" * 10)
    path.write_bytes(damage(path.read_bytes()))  # type: ignore[operator]
    assert cache.read(path) is None


def test_a_write_that_fails_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    cache.write(path, b"before")
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space left"):
        cache.write(path, b"after")
    assert cache.read(path) == b"before"
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


def test_files_that_nobody_has_read_for_long_are_deleted(tmp_path: Path) -> None:
    long_ago = time.time() - 100 * 86400
    for name in ("unused", "used"):
        cache.write(tmp_path / name, b"data")
        os.utime(tmp_path / name, (long_ago, long_ago))
    cache.read(tmp_path / "used")
    cache.write(tmp_path / "new", b"data")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["new", "used"]


HOLDER = """
import sys, time
from pathlib import Path
from gpugrad import cache
with cache.locked(Path(sys.argv[1])):
    print("locked", flush=True)
    time.sleep(60)
"""
COUNTER = """
import sys, time
from pathlib import Path
from gpugrad import cache
for _ in range(20):
    with cache.locked(Path(sys.argv[1])):
        file = Path(sys.argv[2])
        n = int(file.read_text())
        time.sleep(0.001)
        file.write_text(str(n + 1))
"""


def test_one_process_at_a_time_holds_a_lock(tmp_path: Path) -> None:
    count = tmp_path / "count"
    count.write_text("0")
    processes = [subprocess.Popen([sys.executable, "-c", COUNTER, str(tmp_path / "lock"), str(count)]) for _ in range(4)]
    assert [process.wait(timeout=60) for process in processes] == [0] * 4
    assert count.read_text() == "80"


def test_the_lock_of_a_process_that_is_killed_ends_with_it(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path / "lock")], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    process.kill()
    with cache.locked(tmp_path / "lock"):
        pass
    process.wait()
    process.stdout.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_child_forked_while_the_lock_was_held_does_not_keep_it(tmp_path: Path) -> None:
    script = """
import os, sys
from pathlib import Path
from gpugrad import cache
reader, writer = os.pipe()
with cache.locked(Path(sys.argv[1])):
    child = os.fork()
    if child == 0:
        os.close(writer)
        os.read(reader, 1)  # until the parent is gone
        os._exit(0)
with cache.locked(Path(sys.argv[1])):
    print("locked again")
"""
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path / "lock")], check=True, timeout=60, capture_output=True)
    assert done.stdout.strip() == b"locked again"


def test_where_there_are_no_locks_work_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(file: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(cache, "_lock", no_locks)
    with cache.locked(tmp_path / "lock"):
        pass
