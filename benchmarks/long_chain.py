"""A chain of 200,000 operations on 10-element arrays (float32): built, differentiated and freed; time and memory.

The walk and the freeing of a graph must not recurse, and their time and memory must grow in proportion to its length.
"""

from __future__ import annotations

import importlib
import time
from typing import Any

from benchmarks.chain import A, B, X, chain
from benchmarks.harness import NAMES, PeakMemory, against, child, in_turn, number, table, timed, verdict

TARGET = 1.0
CONTENDERS = ("gpugrad", "torch", "autograd")
MIX = "add, multiply"


def build(contender: str, n: int) -> Any:
    """A function that builds the chain, differentiates it and lets it go."""
    if contender == "autograd":
        import autograd
        import autograd.numpy as anp

        g = autograd.grad(lambda x: anp.sum(chain(anp, x, A, B, MIX, n)))
        return lambda: g(X)
    xp = importlib.import_module(contender)
    make, (a, b) = (xp.from_numpy, map(xp.from_numpy, (A, B))) if contender == "torch" else (xp.tensor, (A, B))

    def run() -> None:
        x = make(X).requires_grad_()
        chain(xp, x, a, b, MIX, n).sum().backward()

    return run


def measure(contender: str, n: int, what: str) -> dict[str, float]:
    """Seconds of a run, or by how many MB it raises the memory of a fresh process."""
    run = build(contender, n)
    if what == "time":
        return {"s": timed(run, 0.0, least=3)}
    build(contender, 10)()  # what a first call sets up is not the chain's
    with PeakMemory() as peak:
        run()
    return {"MB": peak.bytes / 1e6}


def report(rounds: int, quick: bool) -> str:
    start = time.perf_counter()
    n = 400 if quick else 200_000
    times = in_turn("long_chain", CONTENDERS, rounds, n=n, what="time")
    lengths = (n // 4, n // 2, n)
    memory = {m: in_turn("long_chain", CONTENDERS, rounds, n=m, what="memory") for m in lengths}
    head = ["", f"s for {n:,} operations", "ratio to PyTorch", *(f"MB for {m:,}" for m in lengths), f"bytes per operation at {n:,}"]
    rows = [[NAMES[c], times[c]["s"], against(times, "s", c), *(memory[m][c]["MB"] for m in lengths), memory[n][c]["MB"] * 1e6 / n] for c in times]
    text = [f"## A long chain\n\n{__doc__.strip()}", table(head, rows), f"- gpugrad / PyTorch is {verdict(against(times, 's'), TARGET)}."]
    if "gpugrad" in times:
        ours = [memory[m]["gpugrad"]["MB"] for m in lengths]
        text.append(
            f"- memory: twice the operations take {number(ours[1] / max(ours[0], 1e-9))} and {number(ours[2] / max(ours[1], 1e-9))} times the memory (2 is linear)."
        )
    return "\n\n".join(text) + f"\n\n({rounds} rounds, {time.perf_counter() - start:.0f} s)"


if __name__ == "__main__":
    child(measure)
