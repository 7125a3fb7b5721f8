"""What the machine can do: the rate of matrix products, the bandwidth of copies, and what they say of each training step.

A step of an L-layer net takes 2 N in out operations per layer forward, and as many twice more backward (dW and dX), but for
the first layer, whose dX nothing asks for.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.harness import NAMES, Results, child, in_turn, table, timed

if TYPE_CHECKING:
    from benchmarks.mlp import Step

LIBRARIES = ("numpy", "torch")


def measure(contender: str, what: str, seconds: float, **sizes: Any) -> dict[str, float]:
    return {"gemm": gemm_rate, "copy": copy_bandwidth, "products": step_products}[what](contender, seconds, **sizes)


def gemm_rate(contender: str, seconds: float, n: int) -> dict[str, float]:
    """GFLOP/s of a square float32 product."""
    a, b = _arrays(contender, (n, n), (n, n))
    return {"gflops": 2 * n**3 / timed(lambda: a @ b, seconds) / 1e9}


def copy_bandwidth(contender: str, seconds: float, megabytes: int) -> dict[str, float]:
    """GB/s read plus written: into an array that is there, and into a fresh one, whose pages must be mapped first."""
    (a,) = _arrays(contender, (megabytes * 250_000,))
    b = a.copy() if contender == "numpy" else a.clone()
    copies: tuple[Callable[[], Any], Callable[[], Any]] = ((lambda: np.copyto(b, a)), a.copy) if contender == "numpy" else ((lambda: b.copy_(a)), a.clone)
    reused, fresh = (2 * megabytes * 1e6 / timed(f, seconds) / 1e9 for f in copies)
    return {"reused": reused, "fresh": fresh}


def step_products(contender: str, seconds: float, sizes: list[int], batch: int) -> dict[str, float]:
    """Milliseconds of the matrix products of a step, each in the shape and layout in which the step has it, and nothing else."""
    calls: list[Callable[[], Any]] = []
    for i, (rows, columns) in enumerate(pairwise(sizes)):
        x, w, g = _arrays(contender, (batch, rows), (rows, columns), (batch, columns))
        calls += [lambda x=x, w=w: x @ w, lambda x=x, g=g: x.T @ g]
        if i:
            calls.append(lambda g=g, w=w: g @ w.T)
    return {"ms": timed(lambda: [f() for f in calls] and None, seconds) * 1e3}


def _arrays(contender: str, *shapes: tuple[int, ...]) -> list[Any]:
    arrays = [np.random.default_rng(0).standard_normal(shape).astype(np.float32) for shape in shapes]
    if contender == "numpy":
        return arrays
    import torch

    return [torch.from_numpy(a) for a in arrays]


def products(step: Step, rounds: int, quick: bool) -> Results:
    """:func:`step_products` of both libraries."""
    return in_turn("floor", LIBRARIES, rounds, what="products", seconds=0.01 if quick else 1.0, sizes=step.sizes, batch=step.batch)


def flops(step: Step) -> int:
    """Floating-point operations of the matrix products of one step."""
    pairs = list(pairwise(step.sizes))
    return 2 * step.batch * (3 * sum(i * o for i, o in pairs) - pairs[0][0] * pairs[0][1])


def report(rounds: int, quick: bool) -> str:
    from benchmarks.mlp import STEPS, TINY

    start = time.perf_counter()
    seconds, n, megabytes = (0.01, 64, 1) if quick else (1.0, 2048, 256)
    gemm = in_turn("floor", LIBRARIES, rounds, what="gemm", seconds=seconds, n=n)
    copy = in_turn("floor", LIBRARIES, rounds, what="copy", seconds=seconds, megabytes=megabytes)
    rates = table(
        ["float32", f"GFLOP/s of a product of {n} x {n} matrices", f"GB/s of a copy of {megabytes} MB", "the same into a fresh array"],
        [[NAMES[c] if c != "numpy" else "NumPy", gemm[c]["gflops"], copy[c]["reused"], copy[c]["fresh"]] for c in gemm],
    )
    steps = table(
        ["a step's matrix products", "GFLOP", *(f"ms at {'NumPy' if c == 'numpy' else NAMES[c]}'s rate" for c in gemm)],
        [[str(s), flops(s) / 1e9, *(flops(s) / gemm[c]["gflops"] / 1e6 for c in gemm)] for s in (TINY if quick else STEPS)],
    )
    return f"## The floor\n\n{__doc__.strip()}\n\n{rates}\n\n{steps}\n\n({rounds} rounds, {time.perf_counter() - start:.0f} s)"


if __name__ == "__main__":
    child(measure)
