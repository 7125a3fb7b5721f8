"""The table of what kernels take of a GPU, which test_compile.py measures, at the end of the tests' output."""

from __future__ import annotations

from typing import Any

from nvrtc import RESOURCES


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """One line for each entry point and dtype; xdist brings the properties of tests that ran in other processes."""
    reports = [r for outcome in ("passed", "failed") for r in terminalreporter.stats.get(outcome, ()) if getattr(r, "when", "") == "call"]
    rows: dict[tuple[str, str, str], dict[int, tuple[int, ...]]] = {}
    for report in reports:
        for file, entry, dtype, architecture, *measured in [value for name, value in report.user_properties if name == RESOURCES]:
            rows.setdefault((file, entry, dtype), {})[architecture] = tuple(measured)
    if not rows:
        return
    architectures = sorted({a for row in rows.values() for a in row})
    terminalreporter.section("kernels: registers per thread, bytes of shared memory, spills and stack")
    terminalreporter.write_line(f"{'':60}" + "".join(f"{f'sm_{a}':>7}" for a in architectures) + f"{'shared':>8}{'spills':>8}{'stack':>7}")
    for (file, entry, dtype), row in sorted(rows.items()):
        registers = "".join(f"{row[a][0] if a in row else '-':>7}" for a in architectures)
        shared, stack, spills = (max(measured[i] for measured in row.values()) for i in (1, 2, 3))
        terminalreporter.write_line(f"{f'{file} {entry} {dtype}':60}{registers}{shared:>8}{spills:>8}{stack:>7}")
