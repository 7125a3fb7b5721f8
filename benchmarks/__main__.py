"""``python -m benchmarks``: run them all and write RESULTS.md, and docs/bandwidth.md."""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path

from benchmarks.harness import machine

ALL = ("chain", "mlp", "hvp", "training", "kernels", "operations", "bandwidth", "long_chain", "memory", "floor", "import_time", "gpu")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=ALL, default=ALL, help="print these alone, and write nothing")
    parser.add_argument("--rounds", type=int, default=5, help="how many turns each contender gets (default: 5)")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, one round: to see that everything runs; writes nothing")
    args = parser.parse_args()

    about = machine()
    intro = (
        "# Benchmarks\n\nWritten by `python -m benchmarks` (`pip install -e '.[bench]'`). Each measurement ran in a process of its own, the contenders in turn, "
        f"nothing else beside them; the numbers are medians of {1 if args.quick else args.rounds} rounds of medians. Ratios are ours to theirs: below 1 gpugrad is faster, or smaller.\n\n{about}"
    )
    sections = [intro]
    for name in args.only:
        sections.append(importlib.import_module(f"benchmarks.{name}").report(1 if args.quick else args.rounds, args.quick))
        print(sections[-1], flush=True)
    if not args.quick and args.only == ALL:
        (Path(__file__).parent / "RESULTS.md").write_text("\n\n".join(sections) + "\n")
        page = sections[1 + ALL.index("bandwidth")].removeprefix("#")  # which has a page of its own in docs/ as well
        (Path(__file__).parent.parent / "docs" / "bandwidth.md").write_text(f"{page}\n\nWritten by `python -m benchmarks` on this machine:\n\n{about}\n")


if __name__ == "__main__":
    main()
