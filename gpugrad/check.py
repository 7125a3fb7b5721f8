"""``gpugrad check``: do the kernels and the operations give the right numbers on this machine?"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from gpugrad import backend, blas, cache, parallel
from gpugrad.cuda import emulator
from gpugrad.testing import agreement
from gpugrad.testing.agreement import CUDA, EMULATED, NUMBA, REFERENCE, Agreement

Write = Callable[[str], object]


def _print(line: str) -> None:
    print(line, flush=True)  # a pipe, too, sees how far it is


def check(only: str = "", operations: bool = True, write: Write = _print) -> bool:
    """Run all that has ``only`` in its name, everywhere it can run here, and write a table; whether all of it agrees with float64.

    Raises:
        ValueError: nothing has that name, or a variable of the environment says something that cannot be.
        RuntimeError: GPUGRAD_BLAS asks for a library that is not there.
    """
    kernels = [k for k in agreement.all_kernels() if only in k.name]
    ops = [op for op in agreement.all_operations() if only in op.name] if operations else []
    if not kernels and not ops:
        raise ValueError(f"no kernel {'or operation ' if operations else ''}has {only!r} in its name")
    for line in _about(bool(kernels)):
        write(line)
    found: list[Agreement] = []
    if kernels:
        width = _longest(["kernel", *[k.name for k in kernels]])
        rows = itertools.groupby(agreement.kernels_agree(kernels), lambda r: f"{r.name:<{width}} {r.dtype}")
        found += _table(
            write, f"{'kernel':<{width}} dtype", width + 1 + _longest([d.name for d in agreement.dtypes()]), agreement.places(), rows, lambda r: r.place
        )
    if ops:
        columns = [f"{place} {dtype}" for dtype in ("float32", "float64") for place in (REFERENCE, CUDA) if place in agreement.places()]
        rows = itertools.groupby(agreement.operations_agree(ops), lambda r: r.name)
        found += _table(write, "operation", _longest(["operation", *[op.name for op in ops]]), columns, rows, lambda r: f"{r.place} {r.dtype}")
    return _verdict(write, found)


def _about(kernels: bool) -> list[str]:
    """What is run, and how the table is read."""
    gpu = "the current GPU" if backend.cuda_is_available() else "not here: no GPU or no CuPy, see gpugrad info"
    lines = [
        "Each is run on small arrays and compared with the same in float64 by NumPy.",
        "",
        "  ulp   the largest error, in units in the last place of the largest element;",
        "        ! marks one that rounding does not explain",
        "  time  of one call",
        "",
        f"  {REFERENCE:<14} {np.__version__}, products by {blas.describe()}; in float64 it is the truth itself",
    ]
    if kernels:
        gxx = emulator.compiler()
        lines += [
            f"  {NUMBA:<14} compiled for this processor; threads: {parallel.threads()}",
            f"  {EMULATED:<14} {f'the .cu files compiled by {gxx}; no GPU is that slow' if gxx else 'not here: install g++, or set CXX'}",
        ]
    lines += [f"  {CUDA:<14} {gpu}", ""]
    return [*lines, "Kernels are compiled when they first run: about two minutes for all of them.", _kept(), ""] if kernels else lines


def _longest(names: Iterable[str]) -> int:
    return max(map(len, names))


def _kept() -> str:
    try:
        return f"What is compiled is kept in {cache.folder('numba').parent}"
    except OSError as error:
        return f"What is compiled cannot be kept: {error}"


def _table(
    write: Write, head: str, width: int, columns: Sequence[str], rows: Iterable[tuple[str, Iterable[Agreement]]], column: Callable[[Agreement], str]
) -> list[Agreement]:
    """Write each row as soon as its results are there; returns them all."""
    write(f"{head:<{width}}" + "".join(f"{c:>16}" for c in columns))
    write(" " * width + "".join(f"{'ulp':>7}{'time':>9}" for _ in columns))
    found: list[Agreement] = []
    for name, group in rows:
        cells = {column(r): r for r in group}
        write((f"{name:<{width}}" + "".join(_cell(cells.get(c)) for c in columns)).rstrip())
        found += cells.values()
    write("")
    return found


def _verdict(write: Write, found: Sequence[Agreement]) -> bool:
    """Write what is not right, and how much that is; whether it is nothing."""
    wrong = [r for r in found if not r.holds and not r.problem]
    for r in wrong:
        write(f"wrong: {_which(r)}: {_digits(r.error)} ulp, at most {r.allowed:.0f} are allowed")
    failed = [r for r in found if r.problem]
    for problem in dict.fromkeys(r.problem for r in failed):  # a compiler that is missing is said once
        write(f"failed: {'; '.join(_which(r) for r in failed if r.problem == problem)}: {problem}")
    counts = [f"{len(group)} {what}" for group, what in ((wrong, "wrong"), (failed, "failed")) if group]
    write(f"{len(found)} results, {' and '.join(counts) or 'all right'}")
    return not counts


def _which(r: Agreement) -> str:
    return f"{r.name}, {r.dtype}, {r.place}"


def _cell(r: Agreement | None) -> str:
    if r is None:
        return f"{'-':>7}{'':>9}"
    if r.problem:
        return f"{'failed':>7}{'':>9}"
    return f"{_digits(r.error) + (' ' if r.holds else '!'):>8}{_time(r.seconds):>8}"


def _digits(x: float) -> str:
    return f"{x:.1f}" if 0 < x < 9.95 else f"{x:.0f}" if x < 99999 else f"{x:.0e}"


def _time(seconds: float) -> str:
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        x = seconds / size
        if x >= 0.9995 or unit == "us":
            return f"{x:.{2 if x < 9.995 else 1 if x < 99.95 else 0}f} {unit}"
    return ""
