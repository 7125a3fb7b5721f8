"""Compiled functions are kept on disk: found by later processes, compiled once, compiled anew when anything changes, and never a reason to fail."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpugrad import cache, jit

ROOT = Path(jit.__file__).parent.parent
MODULE = """
import numpy as np
from gpugrad import jit
from gpugrad.kernels.elementary_cpu import tanh

@jit.inlined
def twice(x):
    return x + x

@jit.compiled
def kernel(x, y):
    for i in range(x.size):
        y[i] = tanh(twice(x[i]))

def call():
    x = np.linspace(-1, 1, 101)
    y = np.empty_like(x)
    kernel(x, y)
    np.testing.assert_allclose(y, np.tanh(2 * x), rtol=1e-15)
    print(y.tobytes().hex()[:64], kernel.stats.cache_hits.total(), kernel.stats.cache_misses.total())
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module with a kernel, and an empty cache; processes that are started find both."""
    (tmp_path / "kernel_module.py").write_text(MODULE)
    monkeypatch.setenv("GPUGRAD_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(ROOT)]))
    monkeypatch.setattr(jit, "_warned", False)
    return tmp_path


def start(script: str = "import kernel_module; kernel_module.call()", **environment: str) -> subprocess.Popen[str]:
    arguments = [sys.executable, "-W", "error", "-c", script]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **environment})


def finish(process: subprocess.Popen[str]) -> list[str]:
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    return out.split()


def entries(folder: Path) -> list[Path]:
    return [file for file in (folder / "cache" / "numba").iterdir() if file.suffix != ".lock"]


def test_eight_processes_that_start_at_once_compile_once_and_agree(folder: Path) -> None:
    outputs = [finish(process) for process in [start() for _ in range(8)]]
    assert len({values for values, _, _ in outputs}) == 1
    assert sorted((hits, misses) for _, hits, misses in outputs) == [("0", "1")] + [("1", "0")] * 7
    assert len(entries(folder)) == 1


def test_a_cached_function_can_be_called_by_one_that_is_compiled_anew(folder: Path) -> None:
    finish(start())
    script = """
import numpy as np, kernel_module
from gpugrad import jit
kernel_module.call()
@jit.compiled
def outer(x, y):
    kernel_module.kernel(x, y)
    return np.sum(y)
x = np.ones(3)
np.testing.assert_allclose(outer(x, x.copy()), 3 * np.tanh(2.0))
x, y = np.ones(3, np.float32), np.zeros(3, np.float32)
kernel_module.kernel(x, y)
print(kernel_module.kernel.stats.cache_misses.total())
"""
    assert finish(start(script))[-1] == "1"  # float32


def test_what_changes_the_code_changes_its_place(folder: Path) -> None:
    finish(start())
    assert finish(start())[1:] == ["1", "0"]
    assert finish(start(NUMBA_BOUNDSCHECK="1"))[1:] == ["0", "1"]
    assert finish(start(NUMBA_CPU_NAME="generic", NUMBA_CPU_FEATURES=""))[1:] == ["0", "1"]
    text = MODULE.replace("y[i] = tanh(twice(x[i]))", "y[i] = tanh(x[i] + x[i])")
    (folder / "kernel_module.py").write_text(text)
    assert finish(start())[1:] == ["0", "1"]
    assert len(entries(folder)) == 4


def test_an_edit_to_any_file_of_kernels_counts(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Numba's own cache looks at the function's file only, and would run the old text of what was inlined from another."""
    package = folder / "gpugrad"
    (package / "kernels").mkdir(parents=True)
    helper = package / "kernels" / "helper_cpu.py"
    helper.write_text("a = 1")
    (package / "jit.py").write_text("")
    constants = package / "pool.py"
    constants.write_text("b = 1")
    monkeypatch.setattr(jit, "__file__", str(package / "jit.py"))
    before = jit._texts()
    assert jit._texts() == before
    constants.write_text("b = 2")
    assert jit._texts() != before
    constants.write_text("b = 1")
    helper.write_text("a = 2")
    assert jit._texts() != before
    monkeypatch.setattr(jit, "_texts_at_import", before)
    surroundings = jit._surroundings.__wrapped__()
    monkeypatch.setattr(jit, "_texts_at_import", jit._texts())
    assert jit._surroundings.__wrapped__() != surroundings


def test_what_was_imported_before_an_edit_is_not_kept_as_the_text_after_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = jit._surroundings.__wrapped__()
    monkeypatch.setattr(jit, "__file__", str(folder / "jit.py"))
    (folder / "jit.py").write_text("edited")
    assert jit._surroundings.__wrapped__() == before


def test_constants_in_a_closure_are_told_apart() -> None:
    def make(constant: Any) -> Any:
        return lambda: constant

    assert jit._identity(make(1)) == jit._identity(make(1))
    assert jit._identity(make(1)) != jit._identity(make(2))
    assert jit._identity(make(make(1))) != jit._identity(make(make(2)))
    assert jit._identity(make(jit.inlined(make(1)))) == jit._identity(make(make(1)))


@pytest.mark.parametrize("content", [b"", bytes(40), None], ids=["empty", "zeros", "cut"])
def test_a_damaged_file_is_compiled_anew(folder: Path, content: bytes | None) -> None:
    values = finish(start())[0]
    (entry,) = entries(folder)
    entry.write_bytes(entry.read_bytes()[:-100] if content is None else content)
    assert finish(start()) == [values, "0", "1"]
    assert finish(start()) == [values, "1", "0"]


def fresh_kernel() -> Any:
    @jit.compiled
    def kernel(x):  # type: ignore[no-untyped-def]
        return x + 1

    return kernel


def test_a_whole_file_that_cannot_be_loaded_is_compiled_anew_with_a_warning(folder: Path) -> None:
    fresh_kernel()(1.0)
    (entry,) = entries(folder)
    cache.write(entry, b"no pickle")
    with pytest.warns(RuntimeWarning, match=r"kernel cannot be loaded: UnpicklingError"):
        assert fresh_kernel()(1.0) == 2
    later = fresh_kernel()
    assert later(1.0) == 2
    assert later.stats.cache_hits.total() == 1


def test_a_process_that_is_killed_while_it_compiles_leaves_no_trace(folder: Path) -> None:
    script = """
import os, kernel_module
from gpugrad import cache
cache.write = lambda *_: os._exit(9)  # with the lock held
kernel_module.call()
"""
    assert start(script).wait(timeout=120) == 9
    assert entries(folder) == []
    assert finish(start())[1:] == ["0", "1"]


def test_what_cannot_be_written_is_said_once_and_compiled_in_memory(folder: Path) -> None:
    (folder / "cache").write_text("a file in its place")
    with pytest.warns(RuntimeWarning, match=r"cannot be kept on disk.*cannot make the folder.*GPUGRAD_CACHE_DIR") as warned:
        assert fresh_kernel()(1.0) == 2
        assert fresh_kernel()(1) == 2
    assert len(warned) == 1


def test_a_full_disk_is_said_once_and_compiled_in_memory(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, data: bytes) -> None:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(cache, "write", full)
    with pytest.warns(RuntimeWarning, match=r"No space left on device: .*kernel.*; set GPUGRAD_CACHE_DIR") as warned:
        assert fresh_kernel()(1.0) == 2
        assert fresh_kernel()(1) == 2
    assert len(warned) == 1


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="modes are those of POSIX")
def test_nothing_is_loaded_from_a_folder_that_others_may_write_into(folder: Path) -> None:
    fresh_kernel()(1.0)
    cache.folder("numba").chmod(0o777)
    later = fresh_kernel()
    with pytest.warns(RuntimeWarning, match=r"others may write into .*chmod go-w"):
        assert later(1.0) == 2
    assert later.stats.cache_hits.total() == 0


def test_a_cache_that_can_only_be_read_is_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fresh_kernel()(1.0)

    def read_only(path: Path) -> Any:
        raise OSError(30, "Read-only file system", str(path))

    monkeypatch.setattr(cache, "locked", read_only)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        later = fresh_kernel()
        assert later(1.0) == 2
    assert later.stats.cache_hits.total() == 1


def test_a_numba_that_works_in_another_way_only_costs_the_cache(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def differently(f: Any) -> None:
        raise AttributeError("no such part")

    monkeypatch.setattr(jit, "_Disk", differently)
    with pytest.warns(RuntimeWarning, match=r"Numba .* works in another way than was expected: no such part"):
        assert fresh_kernel()(1.0) == 2


def test_without_numbas_compiler_kernels_run_as_python(folder: Path) -> None:
    script = "import kernel_module; kernel_module.np.testing.assert_allclose(kernel_module.twice(1.5), 3); kernel_module.kernel(x := kernel_module.np.ones(3), x); print(x[0])"
    assert finish(start(script, NUMBA_DISABLE_JIT="1")) == [str(np.tanh(2.0))]


def test_functions_work_from_several_threads_at_once(folder: Path) -> None:
    script = """
import threading, numpy as np, kernel_module
barrier, results = threading.Barrier(4), []
def work():
    x, y = np.ones(1000), np.empty(1000)
    barrier.wait()
    kernel_module.kernel(x, y)
    results.append(y[0])
threads = [threading.Thread(target=work) for _ in range(4)]
for t in threads: t.start()
for t in threads: t.join()
print(len(set(results)), len(results), kernel_module.kernel.stats.cache_misses.total())
"""
    assert finish(start(script)) == ["1", "4", "1"]


def test_numba_is_imported_by_the_first_kernel_only(folder: Path) -> None:
    script = """
import sys
import gpugrad as gg, numpy as np
x = gg.tensor(np.ones((4, 4), np.float32), requires_grad=True)
(gg.nn.functional.relu(x @ x) + gg.tanh(x)).sum().backward()
assert not any(name == "numba" or name.startswith("numba.") for name in sys.modules)
"""
    finish(start(script))


def test_names_of_files_are_plain(folder: Path) -> None:
    fresh_kernel()(1.0)
    assert all(re.fullmatch(r"test_jit\.fresh_kernel\.locals\.kernel(-[0-9a-f]{32}|\.lock)", file.name) for file in (folder / "cache" / "numba").iterdir())


def test_read_only_arrays_get_the_code_of_the_others():
    """To Numba they are another type; compiling for it again doubled the wait of everybody whose data lies in a memory map."""

    @jit.compiled
    def add(x, y):
        for i in range(x.size):
            y[i] += x[i]

    x, y = np.ones(3), np.zeros(3)
    x.flags.writeable = False
    for _ in range(3):
        add(x, y)
    assert y.tolist() == [3, 3, 3]
    add(y, y)
    assert y.tolist() == [6, 6, 6] and len(getattr(add, "signatures", [0])) == 1


def test_read_only_arrays_that_several_threads_meet_first_are_found_afterwards(folder: Path) -> None:
    """Entered twice, a type is ambiguous: each call then asked Python, at a thousand times the cost."""
    script = """
import threading, numpy as np, kernel_module
kernel, asked = kernel_module.kernel, []
compile = kernel.compile
kernel.compile = lambda signature: asked.append(signature) or compile(signature)
x, y = np.broadcast_to(np.ones(1000), (2, 1000))[0], np.empty(1000)
barrier = threading.Barrier(4)
def work():
    barrier.wait()
    kernel(x, y)
threads = [threading.Thread(target=work) for _ in range(4)]
for t in threads: t.start()
for t in threads: t.join()
first = len(asked)
for _ in range(3): kernel(x, y)
print(first > 1, len(asked) - first)
"""
    assert finish(start(script)) == ["True", "0"]
