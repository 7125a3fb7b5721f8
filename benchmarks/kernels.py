"""The fused kernels on the CPU, as a user meets them: through the loss and the optimizers, against PyTorch eager and JAX jit (float32).

The floor is the bytes that must move over the measured bandwidth of a copy. "Loaded from disk" is what a second process pays, beyond importing Numba,
before the kernels of a training step have run for the first time.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks import mlp
from benchmarks.harness import NAMES, against, child, in_turn, number, table, timed, verdict

CONTENDERS = {"cross_entropy": ("gpugrad", "torch", "jax"), "adam": ("gpugrad", "torch", "torch:fused", "jax")}
TARGETS = {"cross_entropy": 0.8, "adam": 1.0}
SIZES: dict[str, list[int]] = {"cross_entropy": [4096, 1000], "adam": [10_000_000]}
TINY: dict[str, list[int]] = {"cross_entropy": [16, 10], "adam": [1000]}
WHAT = {"cross_entropy": "cross entropy, forward and backward", "adam": "Adam, one step of a parameter"}
BYTES = {"cross_entropy": 2 * 4, "adam": 7 * 4}  # an element's: logits read, gradient written; p, g, m, v read, p, m, v written
LOAD_TARGET = 0.3


# ------------------------------------------------------------------------------------------------- contenders


def gpugrad_cross_entropy(sizes: list[int]) -> Callable[[], Any]:
    import gpugrad as gg

    x, labels = logits(sizes)
    leaf = gg.tensor(x, requires_grad=True)

    def run() -> Any:
        leaf.grad = None
        loss = gg.nn.functional.cross_entropy(leaf, labels)
        loss.backward()
        return loss

    return run


def torch_cross_entropy(sizes: list[int]) -> Callable[[], Any]:
    import torch

    x, labels = map(torch.from_numpy, logits(sizes))
    x.requires_grad_()

    def run() -> Any:
        x.grad = None
        loss = torch.nn.functional.cross_entropy(x, labels)
        loss.backward()
        return loss

    return run


def jax_cross_entropy(sizes: list[int]) -> Callable[[], Any]:
    import jax
    import jax.numpy as jnp

    x, labels = map(jnp.asarray, logits(sizes))
    both = jax.jit(jax.value_and_grad(lambda x: -jnp.take_along_axis(jax.nn.log_softmax(x), labels[:, None], axis=1).mean()))
    return lambda: jax.block_until_ready(both(x))[0]


def logits(sizes: list[int]) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.standard_normal(sizes).astype(np.float32), rng.integers(0, sizes[1], sizes[0])


def gpugrad_adam(sizes: list[int]) -> Callable[[], Any]:
    import gpugrad as gg
    from gpugrad import optim

    p, g = parameter(sizes)
    leaf = gg.tensor(p, requires_grad=True)
    leaf.grad = gg.tensor(g)
    optimizer = optim.Adam([leaf])

    def run() -> Any:
        optimizer.step()
        return leaf.data[0]

    return run


def torch_adam(sizes: list[int], **options: Any) -> Callable[[], Any]:
    import torch

    p, g = map(torch.from_numpy, parameter(sizes))
    p.requires_grad_()
    p.grad = g
    optimizer = torch.optim.Adam([p], **options)

    def run() -> Any:
        optimizer.step()
        return p.data[0]

    return run


def jax_adam(sizes: list[int]) -> Callable[[], Any]:
    import jax
    import jax.numpy as jnp

    p, g = map(jnp.asarray, parameter(sizes))
    state = (p, jnp.zeros_like(p), jnp.zeros_like(p), jnp.zeros(()))

    def update(p: Any, m: Any, v: Any, count: Any, g: Any) -> Any:
        count = count + 1
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        return p - 1e-3 * (m / (1 - 0.9**count)) / (jnp.sqrt(v / (1 - 0.999**count)) + 1e-8), m, v, count

    compiled = jax.jit(update, donate_argnums=(0, 1, 2, 3))

    def run() -> Any:
        nonlocal state
        state = jax.block_until_ready(compiled(*state, g))
        return state[0][0]

    return run


def parameter(sizes: list[int]) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.standard_normal(sizes).astype(np.float32), rng.standard_normal(sizes).astype(np.float32)


# ------------------------------------------------------------------------------------------------- measuring


def measure(contender: str, kernel: str, sizes: list[int], seconds: float) -> dict[str, float]:
    """Milliseconds of a call; what it gave the third time."""
    library, _, variant = contender.partition(":")
    if kernel == "load":
        return {"s": load()}
    if kernel == "threads":
        return mlp.measure(contender, sizes[1:], sizes[0], "Adam", seconds)
    run = globals()[f"{library}_{kernel}"](sizes, **({variant: True} if variant else {}))
    run(), run()
    value = float(run().item() if hasattr(run(), "item") else run())
    return {"value": value, "ms": timed(run, seconds) * 1e3}


def load() -> float:
    """Seconds from the import of Numba until a training step's kernels have run."""
    import numba  # noqa: F401

    import gpugrad as gg

    step = mlp.Step((64, 64, 10), 64)
    gg.ones((2, 2)) @ gg.ones((2, 2))
    start = time.perf_counter()
    for optimizer in mlp.OPTIMIZERS:
        forward, backward, update = mlp.gpugrad_parts(step, optimizer)
        backward(forward())
        update()
    return time.perf_counter() - start


# ------------------------------------------------------------------------------------------------- reporting


def report(rounds: int, quick: bool) -> str:
    start = time.perf_counter()
    seconds, sizes = (0.01, TINY) if quick else (2.0, SIZES)
    bandwidth = in_turn("floor", ("numpy",), rounds, what="copy", seconds=seconds, megabytes=1 if quick else 256)["numpy"]["reused"]
    rows, verdicts = [], []
    for kernel, contenders in CONTENDERS.items():
        r = in_turn("kernels", contenders, rounds, kernel=kernel, sizes=sizes[kernel], seconds=seconds)
        least = BYTES[kernel] * float(np.prod(sizes[kernel])) / bandwidth / 1e6
        ratio = against(r, "ms")
        rows.append([WHAT[kernel] + " " + " x ".join(f"{n:,}" for n in sizes[kernel]), *(r.get(c, {}).get("ms") for c in ALL), least, ratio, TARGETS[kernel]])
        ours = r["gpugrad"]["ms"]
        verdicts.append(f"- {WHAT[kernel]}: gpugrad / PyTorch is {verdict(ratio, TARGETS[kernel])}. {number(least / ours)} of the floor's speed.")
    loaded = in_turn("kernels", ("gpugrad",), rounds, kernel="load", sizes=[], seconds=0.0)["gpugrad"]["s"]
    verdicts.append(f"- loaded from disk: {number(loaded)} s for the kernels of two training steps: {verdict(loaded, LOAD_TARGET)}.")
    verdicts.append(f"- {_threads(rounds, quick)}")
    head = ["ms", *(NAMES[c] for c in ALL), "floor", "gpugrad / PyTorch", "target"]
    return (
        "\n\n".join([f"## Fused kernels\n\n{__doc__.strip()}", table(head, rows), "\n".join(verdicts)])
        + f"\n\n({rounds} rounds, {time.perf_counter() - start:.0f} s)"
    )


ALL = ("gpugrad", "torch", "torch:fused", "jax")


def _threads(rounds: int, quick: bool) -> str:
    """Two threads must not be slower than one: two pools that spin would be."""
    step = (mlp.TINY if quick else mlp.STEPS)[0]
    times = {}
    for n in ("1", "2"):
        environment = {"GPUGRAD_NUM_THREADS": n, "OPENBLAS_NUM_THREADS": n}
        case = {"kernel": "threads", "sizes": [step.batch, *step.sizes], "seconds": 0.01 if quick else 1.5, "environment": environment}
        times[n] = in_turn("kernels", ("gpugrad",), rounds, **case)["gpugrad"]["ms"]
    return f"{step}, Adam: {number(times['2'])} ms a step with two threads, {number(times['1'])} with one: {verdict(times['2'] / times['1'], 1.0)}."


if __name__ == "__main__":
    child(measure)
