"""What the benchmarks share: a process for each measurement, turns, medians, timing, peak memory, tables."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
Results = dict[str, dict[str, float]]  # contender -> quantity -> median

NAMES = {
    "gpugrad": "gpugrad",
    "gpugrad:mkl": "gpugrad, MKL",
    "torch": "PyTorch",
    "torch:fused": "PyTorch, fused",
    "torch:compile": "PyTorch, compiled",
    "jax": "JAX",
    "autograd": "HIPS/autograd",
    "numpy": "NumPy by hand",
    "cupy": "CuPy by hand",
}


# ------------------------------------------------------------------------------------------------- processes


def in_turn(module: str, contenders: Sequence[str], rounds: int, **case: Any) -> Results:
    """The medians over ``rounds`` of what ``module.measure(contender, **case)`` returns in a fresh process; those that are installed only.

    A contender is the name of a library, or "library:variant".
    """
    there = [c for c in contenders if is_installed(c)]
    found: dict[str, list[dict[str, float]]] = {c: [] for c in there}
    for _ in range(rounds):
        for contender in there:
            found[contender].append(_in_a_process(module, contender, case))
    return {c: {key: statistics.median(r[key] for r in rs) for key in rs[0]} for c, rs in found.items()}


def is_installed(contender: str) -> bool:
    """Whether it can be measured here."""
    return importlib.util.find_spec(contender.partition(":")[0]) is not None and (not contender.endswith(":mkl") or _version("mkl") is not None)


def _in_a_process(module: str, contender: str, case: dict[str, Any]) -> dict[str, float]:
    case = dict(case)
    environment = os.environ | {"GPUGRAD_BLAS": "mkl" if contender.endswith(":mkl") else "numpy"} | case.pop("environment", {})
    command = [sys.executable, "-m", f"benchmarks.{module}", json.dumps({"contender": contender, **case})]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, stdin=subprocess.DEVNULL, env=environment)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def child(measure: Callable[..., dict[str, float]]) -> None:
    """The other side: what ``python -m benchmarks.MODULE JSON`` does."""
    print(json.dumps(measure(**json.loads(sys.argv[1]))))


# ------------------------------------------------------------------------------------------------- measuring


def timed(f: Callable[[], Any], seconds: float = 1.0, least: int = 5) -> float:
    """The median time of a call, in seconds: at least ``least`` calls, and as many as fit; one more before them does not count."""
    f()
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < least or time.perf_counter() < end:
        start = time.perf_counter()
        f()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


class PeakMemory:
    """``with PeakMemory() as peak: ...`` then ``peak.bytes``: by how much the resident memory rose above what it was on entry (Linux)."""

    bytes: int

    def __enter__(self) -> PeakMemory:
        Path("/proc/self/clear_refs").write_text("5")  # the high-water mark falls to what is resident now
        self.before = self._status("VmRSS")
        return self

    def __exit__(self, *_: object) -> None:
        self.bytes = self._status("VmHWM") - self.before

    @staticmethod
    def _status(field: str) -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field + ":"))


# ------------------------------------------------------------------------------------------------- reporting


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A Markdown table; numbers are right-aligned."""
    lines = ["| " + " | ".join(head) + " |", "|" + "|".join(["---"] + ["---:"] * (len(head) - 1)) + "|"]
    lines += ["| " + " | ".join(c if isinstance(c, str) else number(c) for c in row) + " |" for row in rows]
    return "\n".join(lines)


def number(x: float | None) -> str:
    """Three digits that count, or a dash."""
    if x is None:
        return "-"
    return f"{x:.0f}" if abs(x) >= 100 else f"{x:.1f}" if abs(x) >= 10 else f"{x:.2f}" if abs(x) >= 0.1 else f"{x:.2g}"


def against(results: Results, key: str, contender: str = "gpugrad", other: str = "torch") -> float | None:
    """The ratio of a quantity, ours to theirs."""
    ours, theirs = (results.get(c, {}).get(key) for c in (contender, other))
    return ours / theirs if ours is not None and theirs else None


def verdict(ratio: float | None, target: float) -> str:
    """The measured ratio beside its target, in words."""
    if ratio is None:
        return f"not measured (target: at most {target})"
    return f"{ratio:.2f} (target: at most {target}): {'met' if ratio <= target else 'missed'}"


def machine() -> str:
    """Processor, cores, memory, system, and the versions of all that is measured, as a Markdown list."""
    model = next((line.partition(":")[2].strip() for line in _read("/proc/cpuinfo") if line.startswith("model name")), platform.processor())
    memory = next((int(line.split()[1]) / 2**20 for line in _read("/proc/meminfo") if line.startswith("MemTotal")), 0)
    packages = [
        f"{name} {version}"
        for name in ("numpy", "numba", "mkl", "torch", "jax", "jaxlib", "autograd", "cupy-cuda12x", "cupy-cuda13x")
        if (version := _version(name))
    ]
    commit = subprocess.run(["git", "describe", "--always", "--dirty", "--abbrev=12"], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    return "\n".join(
        [
            f"- processor: {model}, {len(os.sched_getaffinity(0))} cores, {memory:.0f} GiB of memory; {platform.system()} {platform.machine()}",
            f"- Python {platform.python_version()}, {', '.join(packages)}",
            f"- NumPy's BLAS: {_blas()}",
            f"- gpugrad: commit {commit or 'unknown'}",
            f"- load of the machine when the run began: {os.getloadavg()[0]:.1f}",
        ]
    )


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _read(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).exists() else []


def _blas() -> str:
    if importlib.util.find_spec("threadpoolctl") is None:
        return "unknown (threadpoolctl is not installed)"
    import numpy as np
    import threadpoolctl

    np.ones((64, 64)) @ np.ones((64, 64))
    pools = [p for p in threadpoolctl.threadpool_info() if p["user_api"] == "blas"]
    return ", ".join(f"{p['internal_api']} {p['version']} ({p.get('architecture', 'unknown')}), {p['num_threads']} threads" for p in pools)
