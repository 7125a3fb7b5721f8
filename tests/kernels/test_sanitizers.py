"""Every CUDA kernel under AddressSanitizer, in processes of their own: no access beyond an array, not by one element.

The checks of undefined behaviour run in every launch of the emulator, here too.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from gpugrad.cuda import emulator, loader
from gpugrad.cuda.loader import Source
from gpugrad.testing import agreement

HERE = Path(__file__).parent
ROOT = HERE.parent.parent


@functools.cache
def library() -> str | None:
    """AddressSanitizer's shared library, where the compiler has one."""
    gxx = emulator.compiler()
    found = subprocess.run([gxx, "-print-file-name=libasan.so"], capture_output=True, text=True).stdout.strip() if gxx else ""
    return found if os.path.isabs(found) and os.path.exists(found) else None


pytestmark = pytest.mark.skipif(library() is None, reason="needs g++ with AddressSanitizer")


def sanitized(*command: str) -> subprocess.CompletedProcess[str]:
    """Run Python so that what the emulator compiles is watched."""
    env = os.environ | {
        "LD_PRELOAD": library() or "",
        "ASAN_OPTIONS": "detect_leaks=0",  # Python frees little at its end
        "GPUGRAD_EMULATOR_SANITIZE": "1",
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
    }
    return subprocess.run([sys.executable, *command], capture_output=True, text=True, env=env, timeout=300)


@pytest.mark.parametrize("dtype", [d.name for d in agreement.dtypes()])
def test_kernels_keep_to_their_arrays(dtype: str) -> None:
    """All kernels, all samples; and every entry point is among what they launch."""
    done = sanitized(str(HERE / "sanitizer_walk.py"), dtype)
    assert done.returncode == 0, done.stderr[-6000:]
    launched = set(json.loads(done.stdout.splitlines()[-1]))
    files = sorted(loader.FOLDER.glob("*.cu"))
    assert launched == {f"{path.name} {entry}" for path in files for entry in Source(path.name).entries}


PLANTED = {
    "tail": "heap-buffer-overflow",
    "shared_tail": "heap-buffer-overflow",
    "fixed_tail": "global-buffer-overflow",
}


def planted(entry: str, n: int) -> subprocess.CompletedProcess[str]:
    """A kernel of planted_tail.cu in 64 threads on arrays of 60 elements, or on shared memory of 64."""
    program = f"""
import numpy as np
from pathlib import Path
from gpugrad.cuda.loader import Source
x, y = np.ones(1000, np.float32), np.zeros(1000, np.float32)
args = (x[4:64], y[4:64], {n}) if {entry!r}.startswith("tail") else (y[:64], {n})
source = Source("planted_tail.cu", folder=Path({str(HERE / "sources")!r}))
source.launch({entry!r}, np.float32, 1, 64, *args, shared=256 if {entry!r} == "shared_tail" else 0)
print(y.sum())
"""
    return sanitized("-c", program)


@pytest.mark.parametrize("entry", PLANTED)
def test_one_element_too_many_is_seen(entry: str) -> None:
    """In views of larger arrays too, and in both kinds of shared memory."""
    done = planted(entry, 60 if entry == "tail" else 1)
    assert done.returncode != 0
    assert f"AddressSanitizer: {PLANTED[entry]}" in done.stderr and f"in {entry}" in done.stderr, done.stderr[-3000:]


@pytest.mark.parametrize(("entry", "total"), [("tail_corrected", 60), ("shared_tail", 64), ("fixed_tail", 192)])
def test_the_last_element_is_allowed(entry: str, total: int) -> None:
    done = planted(entry, 60 if entry == "tail_corrected" else 0)
    assert done.returncode == 0, done.stderr[-3000:]
    assert float(done.stdout) == total


def test_after_an_error_of_the_emulator_the_next_launch_is_sound() -> None:
    """Threads that never came back leave marks on their stacks, which the next launch uses."""
    program = f"""
import numpy as np
from pathlib import Path
from gpugrad.cuda.loader import Source
y, z = np.zeros(32, np.float32), np.zeros(256, np.float32)
bad = Source("planted_divergence.cu", folder=Path({str(HERE / "sources")!r}))
for _ in range(3):
    try:
        bad.launch("early_exit", np.float32, 1, 32, y, 5)
    except RuntimeError as error:
        print(error)
    bad.launch("barrier_after_branch", np.float32, 1, 32, y, 5)
print(y.sum())
"""
    done = sanitized("-c", program)
    assert done.returncode == 0, done.stderr[-3000:]
    lines = done.stdout.splitlines()
    assert len(lines) == 4 and all("divergent barrier" in line for line in lines[:3]) and float(lines[3]) == 32
