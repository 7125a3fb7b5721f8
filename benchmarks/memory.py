"""The peak memory of training the largest net: how far the resident memory of a fresh process rises above what it is
once the library is imported and the data made. Model, gradients, optimizer and three steps count; the data do not.
"""

from __future__ import annotations

import importlib
import time
from itertools import pairwise

from benchmarks import mlp
from benchmarks.harness import NAMES, PeakMemory, against, child, in_turn, number, table, verdict

TARGET = 1.0
CONTENDERS = ("gpugrad", "torch", "jax", "autograd", "numpy")


def measure(contender: str, sizes: list[int], batch: int, optimizer: str) -> dict[str, float]:
    """MB at the peak."""
    step = mlp.Step(tuple(sizes), batch, 0.0)
    for module in {"gpugrad": ("gpugrad.nn", "gpugrad.optim"), "torch": ("torch.optim",), "jax": ("jax.numpy",), "autograd": ("autograd.numpy",)}.get(
        contender, ()
    ):
        importlib.import_module(module)
    data = step.data()
    object.__setattr__(step, "data", lambda: data)  # made once, before the measurement
    with PeakMemory() as peak:
        forward, backward, update = getattr(mlp, f"{contender}_parts")(step, optimizer)
        for _ in range(3):
            loss = forward()
            backward(loss)
            del loss
            update()
    return {"MB": peak.bytes / 1e6}


def report(rounds: int, quick: bool) -> str:
    start = time.perf_counter()
    step = (mlp.TINY if quick else mlp.STEPS)[-1]
    results = {o: in_turn("memory", CONTENDERS, rounds, sizes=step.sizes, batch=step.batch, optimizer=o) for o in mlp.OPTIMIZERS}
    head = [f"MB at the peak, {step}", *mlp.OPTIMIZERS, *(f"ratio to PyTorch: {o}" for o in mlp.OPTIMIZERS)]
    rows = [[NAMES[c], *(r.get(c, {}).get("MB") for r in results.values()), *(against(r, "MB", c) for r in results.values())] for c in CONTENDERS]
    text = [f"## Peak memory\n\n{__doc__}", table(head, rows)]
    for o, r in results.items():
        text.append(f"- {o}: gpugrad / PyTorch is {verdict(against(r, 'MB'), TARGET)}. {_where(step, o)}")
    return "\n\n".join(text) + f"\n\n({rounds} rounds, {time.perf_counter() - start:.0f} s)"


def _where(step: mlp.Step, optimizer: str) -> str:
    """What must be there, to compare with."""
    weights = sum(i * o + o for i, o in pairwise(step.sizes)) * 4 / 1e6
    copies = 4 if optimizer == "Adam" else 2
    values = step.batch * sum(step.sizes[1:]) * 4 / 1e6
    return (
        f"The parameters take {number(weights)} MB, and {copies} arrays of their size must be there (parameters, gradients{', two moments' if copies == 4 else ''}): "
        f"{number(copies * weights)} MB; the layers' outputs take {number(values)} MB."
    )


if __name__ == "__main__":
    child(measure)
