"""``gpugrad check``: do the kernels and the operations give the right numbers on this machine?"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator

from gpugrad.testing import agreement
from gpugrad.testing.agreement import Agreement


def check(only: str = "", kernels: bool = True, operations: bool = True, write: Callable[[str], object] = print) -> bool:
    """Run all that ``only`` is part of the name of, everywhere it can run, and write a table; whether all of it agrees with float64.

    A cell is the largest error, in units in the last place of the largest element, and the time of a call.
    """
    problems: list[Agreement] = []
    count = 0
    for wanted, what, run in ((kernels, "kernel", _kernels), (operations, "operation", _operations)):
        where = agreement.places() if what == "kernel" else [p for p in agreement.places() if p in (agreement.REFERENCE, agreement.CUDA)]
        if not wanted:
            continue
        write(_row(what, "dtype", where).rstrip())
        for (name, dtype), results in itertools.groupby(run(only), key=lambda r: (r.name, r.dtype)):
            found = {r.place: r for r in results}
            write(_row(name, dtype, [_cell(found.get(place)) for place in where]).rstrip())
            problems += [r for r in found.values() if not r.holds]
            count += len(found)
        write("")
    for r in problems:
        write(f"wrong: {r.name} of {r.dtype} by {r.place}: {r.problem or f'{r.error:.3g} ulp, at most {r.allowed:.0f} are allowed'}")
    write(f"{count} results, {len(problems) or 'none'} of them wrong" if count else f"nothing has {only!r} in its name")
    return not problems and count > 0


def _kernels(only: str) -> Iterator[Agreement]:
    return agreement.kernels_agree([k for k in agreement.all_kernels() if only in k.name])


def _operations(only: str) -> Iterator[Agreement]:
    return agreement.operations_agree([op for op in agreement.all_operations() if only in op.name])


def _row(name: str, dtype: str, cells: Iterable[str]) -> str:
    return f"{name:<22} {dtype:<9}" + "".join(f"{cell:<20}" for cell in cells)


def _cell(r: Agreement | None) -> str:
    if r is None:
        return "-"
    return "failed" if r.problem else f"{_short(r.error)} ulp {_time(r.seconds)}" + ("" if r.holds else " !")


def _short(x: float) -> str:
    return f"{x:.0f}" if x >= 10 or x == 0 else f"{x:.1f}"


def _time(seconds: float) -> str:
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1e6:.3g} us"
