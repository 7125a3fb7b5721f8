"""The peak memory of training the largest net: how far the resident memory of a fresh process rises above what it was.

Model, gradients, optimizer and three steps count; the data do not. "From import" counts from when the library was imported
and the data made, so the code and the buffers that a library brings in with its first step count too; "the step alone"
counts from after three steps of a small net, large enough that what a library loads or compiles for its kernels is there.
"""

from __future__ import annotations

import importlib
import time
from itertools import pairwise

from benchmarks import mlp
from benchmarks.harness import NAMES, PeakMemory, against, child, in_turn, number, table, verdict

TARGET = 1.0
SMALL = mlp.Step((64, 64, 64, 10), 64)
CONTENDERS = ("gpugrad", "torch", "jax", "autograd", "numpy")


KEPT = (
    "What the step of gpugrad takes beyond its arrays is memory of freed arrays that is kept for the next ones (docs/compiling.md), some 75 MB here, which makes the step a twentieth quicker: with GPUGRAD_KEEP_MEMORY=0 "
    "the step alone has 92 MB at the peak with SGD and 150 with Adam, with 64M 137 and 149."
)


def measure(contender: str, sizes: list[int], batch: int, optimizer: str, warm: bool) -> dict[str, float]:
    """MB at the peak; ``warm``: above what is there after steps of a small net."""
    step = mlp.Step(tuple(sizes), batch)
    for module in {"gpugrad": ("gpugrad.nn", "gpugrad.optim"), "torch": ("torch.optim",), "jax": ("jax.numpy",), "autograd": ("autograd.numpy",)}.get(
        contender, ()
    ):
        importlib.import_module(module)
    data = step.data()
    object.__setattr__(step, "data", lambda: data)  # made once, before the measurement
    if warm:
        train(contender, SMALL, optimizer)
    with PeakMemory() as peak:
        train(contender, step, optimizer)
    return {"MB": peak.bytes / 1e6}


def train(contender: str, step: mlp.Step, optimizer: str) -> None:
    """Three steps."""
    forward, backward, update = getattr(mlp, f"{contender}_parts")(step, optimizer)
    for _ in range(3):
        loss = forward()
        backward(loss)
        del loss
        update()


def report(rounds: int, quick: bool) -> str:
    start = time.perf_counter()
    step = (mlp.TINY if quick else mlp.STEPS)[-1]
    cases = {(o, kind): {"optimizer": o, "warm": warm} for o in mlp.OPTIMIZERS for kind, warm in (("from import", False), ("the step alone", True))}
    results = {key: in_turn("memory", CONTENDERS, rounds, sizes=step.sizes, batch=step.batch, **case) for key, case in cases.items()}
    head = [f"MB at the peak, {step}", *(f"{o}, {kind}" for o, kind in cases)]
    rows = [[NAMES[c], *(r.get(c, {}).get("MB") for r in results.values())] for c in CONTENDERS]
    rows += [["gpugrad / PyTorch", *(against(r, "MB") for r in results.values())]]
    text = [f"## Peak memory\n\n{__doc__.strip()}", table(head, rows)]
    for (o, kind), r in results.items():
        text.append(f"- {o}, {kind}: gpugrad / PyTorch is {verdict(against(r, 'MB'), TARGET)}. {_where(step, o)}")
    text.append(f"- {KEPT}")
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
