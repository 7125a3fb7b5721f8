"""Kernels and training steps on a GPU: gpugrad on CuPy arrays against PyTorch (eager and compiled), JAX jit, and CuPy written by hand.

The bandwidth of a kernel is the bytes that it must move over its time, as a fraction of what a copy from one array on the device to another moves.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks import bandwidth, mlp
from benchmarks.harness import NAMES, Results, against, child, in_turn, is_installed, number, table, timed, verdict

CONTENDERS = ("gpugrad", "torch", "torch:compile", "jax", "cupy")
PRECISIONS = ("float32", "tf32", "bfloat16")
MEGABYTES = (1, 64, 512)
BANDWIDTH_TARGET = 0.85


# ------------------------------------------------------------------------------------------------- training steps


def steps(contender: str, sizes: list[int], batch: int, optimizer: str, precision: str, seconds: float) -> dict[str, float]:
    """Milliseconds of a step on the current GPU; the loss after ten steps."""
    library, _, variant = contender.partition(":")
    make = {"gpugrad": _gpugrad, "torch": _torch, "jax": _jax, "cupy": _cupy}[library]
    step, wait = make(mlp.Step(tuple(sizes), batch), optimizer, precision, variant)

    def run(count: int) -> Any:
        for _ in range(count):
            loss = step()
        wait(loss)
        return loss

    loss = float(run(10))
    return {"loss": loss, "ms": timed(lambda: run(bandwidth.STEPS_BETWEEN_WAITS), seconds) / bandwidth.STEPS_BETWEEN_WAITS * 1e3}


Run = tuple[Callable[[], Any], Callable[[Any], Any]]  # a step, which gives the loss; waiting for it


def _gpugrad(step: mlp.Step, optimizer: str, precision: str, _variant: str) -> Run:
    import gpugrad as gg

    gg.set_matmul_precision("tf32" if precision == "tf32" else "highest")
    forward, backward, update = mlp.gpugrad_parts(step, optimizer, device="cuda", dtype=_dtype(precision))

    def run() -> Any:
        loss = forward()
        backward(loss)
        update()
        return loss.data

    return run, lambda _: gg.cuda.synchronize()


def _torch(step: mlp.Step, optimizer: str, precision: str, variant: str) -> Run:
    import torch

    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    forward, backward, update = mlp.torch_parts(step, optimizer, device="cuda", dtype=getattr(torch, "bfloat16" if precision == "bfloat16" else "float32"))
    if variant == "compile":
        forward = torch.compile(forward)

    def run() -> Any:
        loss = forward()
        backward(loss)
        update()
        return loss

    return run, lambda _: torch.cuda.synchronize()


def _jax(step: mlp.Step, optimizer: str, precision: str, _variant: str) -> Run:
    import jax

    if jax.default_backend() != "gpu":
        raise RuntimeError("this JAX has no GPU")
    if precision == "bfloat16":
        raise RuntimeError("not written for JAX")
    jax.config.update("jax_default_matmul_precision", "tensorfloat32" if precision == "tf32" else "highest")
    run, _, _ = mlp.jax_parts(step, optimizer)
    return run, lambda loss: loss.block_until_ready()


def _cupy(step: mlp.Step, optimizer: str, precision: str, _variant: str) -> Run:
    """The same arithmetic in CuPy's own functions, one after the other, with no tape."""
    import cupy as cp

    import gpugrad as gg

    gg.set_matmul_precision("tf32" if precision == "tf32" else "highest")
    weights, x, labels = step.data()
    parameters = [cp.asarray(p, dtype=_dtype(precision)) for pair in weights for p in pair]
    x, labels, rows = cp.asarray(x, dtype=_dtype(precision)), cp.asarray(labels), cp.arange(step.batch)
    apply = mlp.in_place(optimizer, parameters)

    def run() -> Any:
        inputs = [x]
        for i in range(0, len(parameters), 2):
            h = inputs[-1] @ parameters[i] + parameters[i + 1]
            inputs.append(cp.maximum(h, 0) if i + 2 < len(parameters) else h)
        z = inputs.pop()
        z = z - z.max(axis=1, keepdims=True)
        e = cp.exp(z)
        total = e.sum(axis=1)
        loss = (cp.log(total) - z[rows, labels]).mean()
        g = e / total[:, None]
        g[rows, labels] -= 1
        g /= step.batch
        grads: list[Any] = []
        for i in range(len(parameters) - 2, -1, -2):
            h = inputs[i // 2]
            grads[:0] = [h.T @ g, g.sum(axis=0)]
            if i:
                g = (g @ parameters[i].T) * (h > 0)
        apply(grads)
        return loss

    return run, lambda _: cp.cuda.Device().synchronize()


def _dtype(precision: str) -> Any:
    if precision != "bfloat16":
        return np.float32
    from ml_dtypes import bfloat16

    return bfloat16


# ------------------------------------------------------------------------------------------------- reporting


def report(rounds: int, quick: bool) -> str:
    if not _has_gpu():
        return "## On a GPU\n\nThere was no GPU (or no CuPy) where this page was made: nothing on it has run on one. `python -m benchmarks --only gpu` measures this where there is one."
    start = time.perf_counter()
    text = [f"## On a GPU\n\n{__doc__.strip()} GPU: {_name()}.", *_kernel_tables(rounds, quick), *_step_tables(rounds, quick)]
    return "\n\n".join(text) + f"\n\n({rounds} rounds, {time.perf_counter() - start:.0f} s)"


def _has_gpu() -> bool:
    import gpugrad as gg

    return gg.cuda.is_available()


def _kernel_tables(rounds: int, quick: bool) -> list[str]:
    """Every kernel's bandwidth beside that of a copy from one array on the device to another; the target is for arrays of 64 MB and more."""
    sizes = (0.1, 1) if quick else MEGABYTES
    found = bandwidth.rows_of(rounds, quick, "cuda", sizes)
    copies = found.pop("copy")
    shares = {case: [r["GB/s"] / copy["GB/s"] for r, copy in zip(rs, copies, strict=True)] for case, rs in found.items()}
    rows = [[f"`{case}`", found[case][0]["passes"], *(r["GB/s"] for r in found[case]), *shares[case]] for case in found]
    head = ["kernel, float32", "passes", *(f"GB/s at {m} MB" for m in sizes), *(f"of a copy's at {m} MB" for m in sizes)]
    slow = [f"`{c}` ({number(share)} at {m} MB)" for c in shares for m, share in zip(sizes, shares[c], strict=True) if m >= 64 and share < BANDWIDTH_TARGET]
    verdicts = [
        "- copies: " + ", ".join(f"{number(r['GB/s'])} GB/s at {m} MB" for m, r in zip(sizes, copies, strict=True)) + ".",
        f"- at least {BANDWIDTH_TARGET} of a copy's bandwidth at 64 MB and more: {'missed by ' + ', '.join(slow) if slow else 'met by all'}.",
        f"- the cost of a launch: {number(_launch(rounds))} us for bias_act on 10 kB, Python included.",
    ]
    return [table(head, rows), "\n".join(verdicts)]


def _launch(rounds: int) -> float:
    return in_turn("bandwidth", ("gpugrad",), rounds, megabytes=0.01, seconds=0.05, device="cuda")["gpugrad"]["bias_act, relu: us"]


def _step_tables(rounds: int, quick: bool) -> list[str]:
    there = [c for c in CONTENDERS if is_installed(c)]
    rows, verdicts = [], []
    for step in mlp.TINY if quick else mlp.STEPS:
        for precision in PRECISIONS:
            for optimizer in mlp.OPTIMIZERS:
                case = {
                    "sizes": step.sizes,
                    "batch": step.batch,
                    "optimizer": optimizer,
                    "precision": precision,
                    "seconds": 0.01 if quick else 1.0,
                }
                r: Results = {}
                for contender in there:
                    try:
                        r |= in_turn("gpu", (contender,), rounds, **case)
                    except RuntimeError as error:
                        verdicts.append(f"- {step}, {optimizer}, {precision}: {NAMES[contender]} did not run: {str(error).strip().splitlines()[-1]}")
                if precision == "float32":
                    mlp.check_losses(r)
                ratio = against(r, "ms")
                rows.append([f"{step}, {optimizer}, {precision}", *(r.get(c, {}).get("ms") for c in there), ratio])
                if ratio is not None:
                    verdicts.append(f"- {step}, {optimizer}, {precision}: gpugrad / PyTorch is {verdict(ratio, 1.0)}.")
    return [table(["ms per step", *(NAMES[c] for c in there), "gpugrad / PyTorch"], rows), "\n".join(verdicts)]


def _name() -> str:
    from gpugrad import backend

    return backend.cupy().cuda.runtime.getDeviceProperties(0)["name"].decode()


if __name__ == "__main__":
    child(steps)
