"""Kernels and training steps on a GPU: gpugrad on CuPy arrays against PyTorch (eager and compiled), JAX jit, and CuPy written by hand.

The bandwidth of a kernel is the bytes that it must move over its time, as a fraction of what a copy from one array on the device to another moves.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks import mlp
from benchmarks.harness import NAMES, Results, against, child, in_turn, is_installed, number, table, timed, verdict

STEPS_BETWEEN_WAITS = 20  # a GPU is kept busy ahead of the host; waiting after each step would measure the waiting
CONTENDERS = ("gpugrad", "torch", "torch:compile", "jax", "cupy")
PRECISIONS = ("float32", "tf32", "bfloat16")
MEGABYTES = (1, 64, 512)
BANDWIDTH_TARGET = 0.85
KERNELS = ("copy", "bias_act", "act_backward", "cross_entropy", "sgd", "adam")


# ------------------------------------------------------------------------------------------------- kernels


def bandwidth(kernel: str, megabytes: float, seconds: float) -> dict[str, float]:
    """GB/s that a kernel moves whose largest array has this size; us of a call."""
    import cupy as cp

    run, moved = CASES[kernel](cp, int(megabytes * 250_000))

    def several() -> None:
        for _ in range(STEPS_BETWEEN_WAITS):
            run()
        cp.cuda.Device().synchronize()

    each = timed(several, seconds) / STEPS_BETWEEN_WAITS
    return {"GB/s": moved / each / 1e9, "us": each * 1e6}


def _copy(cp: Any, n: int) -> tuple[Callable[[], Any], float]:
    a = cp.random.standard_normal(n, dtype=np.float32)
    b = cp.empty_like(a)
    return (lambda: b.data.copy_from_device_async(a.data, a.nbytes, cp.cuda.get_current_stream())), 2 * a.nbytes


def _bias_act(cp: Any, n: int) -> tuple[Callable[[], Any], float]:
    from gpugrad.kernels.linear import bias_act

    z, b = cp.random.standard_normal((-(-n // 1024), 1024), dtype=np.float32), cp.ones(1024, np.float32)
    return (lambda: bias_act(z, b, "relu")), 2 * z.nbytes


def _act_backward(cp: Any, n: int) -> tuple[Callable[[], Any], float]:
    from gpugrad.kernels.linear import act_backward

    g, y = (cp.random.standard_normal((-(-n // 1024), 1024), dtype=np.float32) for _ in range(2))
    return (lambda: act_backward(g, y, "relu")), 3 * g.nbytes


def _cross_entropy(cp: Any, n: int) -> tuple[Callable[[], Any], float]:
    from gpugrad import nn, value_and_grad

    x = cp.random.standard_normal((-(-n // 1024), 1024), dtype=np.float32)
    labels = cp.random.randint(0, 1024, len(x))
    both = value_and_grad(lambda x: nn.functional.cross_entropy(x, labels))
    return (lambda: both(x)), 2 * x.nbytes


def _optimizer(name: str, arrays: int) -> Callable[[Any, int], tuple[Callable[[], Any], float]]:
    def case(cp: Any, n: int) -> tuple[Callable[[], Any], float]:
        import gpugrad as gg
        from gpugrad import optim

        parts = [gg.tensor(cp.random.standard_normal(n // 8, dtype=np.float32), device="cuda", requires_grad=True) for _ in range(8)]
        for p in parts:
            p.grad = gg.ones_like(p.detach())
        return getattr(optim, name)(parts, lr=1e-3).step, arrays * 4.0 * n

    return case


CASES = {
    "copy": _copy,
    "bias_act": _bias_act,
    "act_backward": _act_backward,
    "cross_entropy": _cross_entropy,
    "sgd": _optimizer("SGD", 3),  # p and g read, p written
    "adam": _optimizer("Adam", 7),  # p, g, m, v read; p, m, v written
}


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
    return {"loss": loss, "ms": timed(lambda: run(STEPS_BETWEEN_WAITS), seconds) / STEPS_BETWEEN_WAITS * 1e3}


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


def measure(contender: str, what: str, **case: Any) -> dict[str, float]:
    return bandwidth(**case) if what == "bandwidth" else steps(contender, **case)


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
    sizes = (0.1, 1) if quick else MEGABYTES
    found = {
        (k, m): in_turn("gpu", ("gpugrad",), rounds, what="bandwidth", kernel=k, megabytes=m, seconds=0.01 if quick else 0.5)["gpugrad"]
        for k in KERNELS
        for m in sizes
    }
    rows = [[k, *(found[k, m]["GB/s"] for m in sizes), *(found[k, m]["GB/s"] / found["copy", m]["GB/s"] for m in sizes)] for k in KERNELS]
    head = ["kernel, float32", *(f"GB/s at {m} MB" for m in sizes), *(f"of a copy's at {m} MB" for m in sizes)]
    verdicts = []
    for kernel in ("cross_entropy", "adam"):
        for m in sizes:
            if m >= 64:
                share = found[kernel, m]["GB/s"] / found["copy", m]["GB/s"]
                verdicts.append(
                    f"- {kernel} at {m} MB: {share:.2f} of a copy's bandwidth (target: at least {BANDWIDTH_TARGET}): {'met' if share >= BANDWIDTH_TARGET else 'missed'}."
                )
    launch = in_turn("gpu", ("gpugrad",), rounds, what="bandwidth", kernel="bias_act", megabytes=0.01, seconds=0.5)["gpugrad"]["us"]
    verdicts.append(f"- the cost of a launch: {number(launch)} us for bias_act on 10 kB, Python included.")
    return [table(head, rows), "\n".join(verdicts)]


def _step_tables(rounds: int, quick: bool) -> list[str]:
    there = [c for c in CONTENDERS if is_installed(c)]
    rows, verdicts = [], []
    for step in mlp.TINY if quick else mlp.STEPS:
        for precision in PRECISIONS:
            for optimizer in mlp.OPTIMIZERS:
                case = {
                    "what": "steps",
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
    child(measure)
