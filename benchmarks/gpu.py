"""The training steps of mlp.py on a GPU: gpugrad (CuPy) against PyTorch (CUDA, eager), where both are installed."""

from __future__ import annotations

import time
from typing import Any

from benchmarks import mlp
from benchmarks.harness import NAMES, against, child, in_turn, table, timed

STEPS_BETWEEN_WAITS = 20  # a GPU is kept busy ahead of the host; waiting after each step would measure the waiting


def measure(contender: str, sizes: list[int], batch: int, optimizer: str, seconds: float) -> dict[str, float]:
    """Milliseconds of a step on the current GPU; the loss after ten steps."""
    forward, backward, update = getattr(mlp, f"{contender}_parts")(mlp.Step(tuple(sizes), batch), optimizer, device="cuda")

    def run(steps: int) -> Any:
        for _ in range(steps):
            loss = forward()
            backward(loss)
            update()
        wait(contender)
        return loss

    loss = run(10).item()
    return {"loss": loss, "ms": timed(lambda: run(STEPS_BETWEEN_WAITS), seconds) / STEPS_BETWEEN_WAITS * 1e3}


def wait(contender: str) -> None:
    """Until the GPU has done all it was given."""
    if contender == "torch":
        import torch

        torch.cuda.synchronize()
    else:
        import gpugrad as gg

        gg.cuda.synchronize()


def contenders() -> list[str]:
    """Those that find a GPU."""
    import gpugrad as gg

    found = ["gpugrad"] if gg.cuda.is_available() else []
    try:
        import torch
    except ImportError:
        return found
    return [*found, "torch"] if torch.cuda.is_available() else found


def report(rounds: int, quick: bool) -> str:
    there = contenders()
    if "gpugrad" not in there:
        return "## On a GPU\n\nThere was no GPU (or no CuPy) where this page was made: nothing on it has run on one. `python -m benchmarks --only gpu` measures the same steps where there is one."
    start = time.perf_counter()
    rows = []
    for step in mlp.TINY if quick else mlp.STEPS:
        for optimizer in mlp.OPTIMIZERS:
            r = in_turn("gpu", there, rounds, sizes=step.sizes, batch=step.batch, optimizer=optimizer, seconds=0.01 if quick else 1.5)
            mlp.check_losses(r)
            rows.append([f"{step}, {optimizer}", *(r[c]["ms"] for c in there), against(r, "ms")])
    head = ["ms per step", *(NAMES[c] for c in there), "gpugrad / PyTorch"]
    return f"## On a GPU\n\n{__doc__.strip()} GPU: {_name()}.\n\n{table(head, rows)}\n\n({rounds} rounds, {time.perf_counter() - start:.0f} s)"


def _name() -> str:
    from gpugrad import backend

    return backend.cupy().cuda.runtime.getDeviceProperties(0)["name"].decode()


if __name__ == "__main__":
    child(measure)
