"""Normalisation, softmax, activations, elementwise chains, embeddings and reductions on the CPU: forward and backward through the tape, against PyTorch
eager and JAX jit (float32).

The gradient goes to a leaf, from a given cotangent of the result's shape. The floor is the bytes that must move (each operand read once, each result
written once, forward and backward) over the measured bandwidth of a copy; of the chain it is what a compiler that fuses all of it would move.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.harness import NAMES, Results, against, child, in_turn, number, table, timed, verdict

CONTENDERS = ("gpugrad", "torch", "jax")
Run = Callable[[], Any]


@dataclass(frozen=True)
class Case:
    """What is measured: ``passes`` is the least traffic, in arrays of the first size, and ``target`` the ratio to PyTorch, if there is one."""

    what: str
    sizes: tuple[int, ...]
    tiny: tuple[int, ...]
    passes: float
    target: float | None = None


MATRIX, SMALL = (4096, 1024), (16, 8)
CASES = {
    "layer_norm": Case("layer norm", MATRIX, SMALL, 5, 0.8),
    "rms_norm": Case("RMS norm", MATRIX, SMALL, 5),
    "batch_norm": Case("batch norm", MATRIX, SMALL, 5, 0.8),
    "softmax": Case("softmax", MATRIX, SMALL, 5, 0.8),
    "log_softmax": Case("log-softmax", MATRIX, SMALL, 5),
    "gelu": Case("GELU", MATRIX, SMALL, 5, 0.8),
    "silu": Case("SiLU", MATRIX, SMALL, 5),
    "elu": Case("ELU", MATRIX, SMALL, 5),
    "bias": Case("adding a row", MATRIX, SMALL, 4),
    "where": Case("where with a random mask", MATRIX, SMALL, 4.5),
    "dropout": Case("dropout, p = 0.5", MATRIX, SMALL, 4),
    "logsumexp": Case("logsumexp of rows", MATRIX, SMALL, 3),
    "variance": Case("variance of rows", MATRIX, SMALL, 3),
    "maximum": Case("largest of rows", MATRIX, SMALL, 3),
    "total": Case("sum of all", (10_000_000,), (100,), 2),
    "chain": Case("sum(tanh(x) sigmoid(x) + exp(-x^2))", (10_000_000,), (100,), 3, 0.8),
    "embedding": Case("embedding: rows looked up, width, rows of the table", (1_000_000, 64, 10_000), (50, 4, 7), 2, 1.0),
}


# ------------------------------------------------------------------------------------------------- the functions, in each library


def arrays(case: str, sizes: list[int]) -> list[np.ndarray]:
    """The argument and what else is differentiated, then the constants; the last is the cotangent."""
    rng = np.random.default_rng(0)

    def normal(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(np.float32)

    if case == "embedding":
        count, width, rows = sizes
        return [normal(rows, width), rng.integers(0, rows, count), normal(count, width)]
    x, columns = normal(*sizes), sizes[-1]
    extra = {"layer_norm": [normal(columns), normal(columns)], "batch_norm": [normal(columns), normal(columns)], "rms_norm": [normal(columns)]}
    extra |= {"bias": [normal(columns)], "where": [rng.random(sizes) < 0.5]}
    g = np.ones((), np.float32) if case in ("total", "chain") else normal(sizes[0]) if case in ("logsumexp", "variance", "maximum") else normal(*sizes)
    return [x, *extra.get(case, []), g]


def gpugrad_function(case: str) -> Callable[..., Any]:
    import gpugrad as gg

    F, rng = gg.nn.functional, gg.random.Generator(0)
    return {
        "layer_norm": lambda x, w, b: F.layer_norm(x, x.shape[-1:], w, b),
        "rms_norm": lambda x, w: F.rms_norm(x, x.shape[-1:], w),
        "batch_norm": lambda x, w, b: F.batch_norm(x, None, None, w, b, training=True),
        "softmax": F.softmax, "log_softmax": F.log_softmax, "gelu": F.gelu, "silu": F.silu, "elu": F.elu,
        "bias": lambda x, b: x + b,
        "where": lambda x, mask: gg.where(mask, x, 0.0),
        "dropout": lambda x: F.dropout(x, 0.5, generator=rng),
        "logsumexp": lambda x: gg.logsumexp(x, axis=1),
        "variance": lambda x: gg.var(x, axis=1),
        "maximum": lambda x: gg.max(x, axis=1),
        "total": gg.sum,
        "chain": lambda x: gg.sum(gg.tanh(x) * gg.sigmoid(x) + gg.exp(-(x**2))),
        "embedding": lambda w, i: F.embedding(i, w),
    }[case]  # fmt: skip


def torch_function(case: str) -> Callable[..., Any]:
    import torch

    F = torch.nn.functional
    return {
        "layer_norm": lambda x, w, b: F.layer_norm(x, x.shape[-1:], w, b),
        "rms_norm": lambda x, w: F.rms_norm(x, x.shape[-1:], w),
        "batch_norm": lambda x, w, b: F.batch_norm(x, None, None, w, b, training=True),
        "softmax": lambda x: F.softmax(x, -1), "log_softmax": lambda x: F.log_softmax(x, -1), "gelu": F.gelu, "silu": F.silu, "elu": F.elu,
        "bias": lambda x, b: x + b,
        "where": lambda x, mask: torch.where(mask, x, 0.0),
        "dropout": lambda x: F.dropout(x, 0.5),
        "logsumexp": lambda x: torch.logsumexp(x, 1),
        "variance": lambda x: torch.var(x, 1, correction=0),
        "maximum": lambda x: torch.amax(x, 1),
        "total": torch.sum,
        "chain": lambda x: torch.sum(torch.tanh(x) * torch.sigmoid(x) + torch.exp(-(x**2))),
        "embedding": lambda w, i: F.embedding(i, w),
    }[case]  # fmt: skip


def jax_function(case: str) -> Callable[..., Any]:
    import jax
    import jax.numpy as jnp

    def normalized(x: Any, axis: int) -> Any:
        return (x - x.mean(axis, keepdims=True)) / jnp.sqrt(x.var(axis, keepdims=True) + 1e-5)

    key = jax.random.key(0)
    return {
        "layer_norm": lambda x, w, b: normalized(x, 1) * w + b,
        "rms_norm": lambda x, w: x / jnp.sqrt((x * x).mean(1, keepdims=True) + 1e-7) * w,
        "batch_norm": lambda x, w, b: normalized(x, 0) * w + b,
        "softmax": jax.nn.softmax, "log_softmax": jax.nn.log_softmax, "silu": jax.nn.silu, "elu": jax.nn.elu,
        "gelu": lambda x: jax.nn.gelu(x, approximate=False),
        "bias": lambda x, b: x + b,
        "where": lambda x, mask: jnp.where(mask, x, 0.0),
        "dropout": lambda x: jnp.where(jax.random.bernoulli(key, 0.5, x.shape), 2 * x, 0.0),
        "logsumexp": lambda x: jax.scipy.special.logsumexp(x, axis=1),
        "variance": lambda x: jnp.var(x, axis=1),
        "maximum": lambda x: jnp.max(x, axis=1),
        "total": jnp.sum,
        "chain": lambda x: jnp.sum(jnp.tanh(x) * jax.nn.sigmoid(x) + jnp.exp(-(x**2))),
        "embedding": lambda w, i: w[i],
    }[case]  # fmt: skip


# ------------------------------------------------------------------------------------------------- forward and backward


def _split(given: list[np.ndarray]) -> tuple[list[np.ndarray], list[np.ndarray], np.ndarray]:
    """What is differentiated, the constants (masks and indices), and the cotangent."""
    *args, g = given
    return [a for a in args if a.dtype == np.float32], [a for a in args if a.dtype != np.float32], g


def gpugrad_run(case: str, sizes: list[int]) -> Run:
    import gpugrad as gg

    f = gpugrad_function(case)
    tracked, constants, g = _split(arrays(case, sizes))
    leaves = [gg.tensor(a, requires_grad=True) for a in tracked]
    cotangent = gg.tensor(g)

    def run() -> Any:
        for leaf in leaves:
            leaf.grad = None
        f(*leaves, *constants).backward(cotangent if g.ndim else None)
        return leaves[0].grad

    return run


def torch_run(case: str, sizes: list[int]) -> Run:
    import torch

    f = torch_function(case)
    tracked, constants, g = _split(arrays(case, sizes))
    leaves = [torch.from_numpy(a).requires_grad_() for a in tracked]
    others = [torch.from_numpy(a) for a in constants]
    cotangent = torch.from_numpy(g) if g.ndim else None

    def run() -> Any:
        for leaf in leaves:
            leaf.grad = None
        f(*leaves, *others).backward(cotangent)
        return leaves[0].grad

    return run


def jax_run(case: str, sizes: list[int]) -> Run:
    import jax
    import jax.numpy as jnp

    f = jax_function(case)
    tracked, constants, g = _split(arrays(case, sizes))
    args, others, cotangent = [jnp.asarray(a) for a in tracked], [jnp.asarray(a) for a in constants], jnp.asarray(g)

    @jax.jit
    def both(cotangent: Any, others: Any, *args: Any) -> Any:
        y, pull = jax.vjp(lambda *a: f(*a, *others), *args)
        return y, pull(cotangent)

    return lambda: jax.block_until_ready(both(cotangent, others, *args))[1][0]


def measure(contender: str, case: str, sizes: list[int], seconds: float) -> dict[str, float]:
    """Milliseconds of a forward and backward, and the norm of the gradient it gave."""
    if case == "twice":
        return twice(contender, sizes, seconds)
    run = globals()[f"{contender}_run"](case, sizes)
    value = np.asarray(run().data if contender == "gpugrad" else run())
    return {"value": float(np.linalg.norm(value.ravel().astype(np.float64))), "ms": timed(run, seconds) * 1e3}


def twice(contender: str, sizes: list[int], seconds: float) -> dict[str, float]:
    """Milliseconds of batch norm's backward, and of the backward of that, whose argument is the squared norm of the gradient."""
    library = __import__("gpugrad" if contender == "gpugrad" else "torch")
    x, w, b, g = arrays("batch_norm", sizes)
    if contender == "gpugrad":
        leaves, cotangent, grad = [library.tensor(a, requires_grad=True) for a in (x, w, b)], library.tensor(g, requires_grad=True), library.autograd.grad
    else:
        leaves, cotangent, grad = [library.from_numpy(a).requires_grad_() for a in (x, w, b)], library.from_numpy(g).requires_grad_(), library.autograd.grad
    y = globals()[f"{contender}_function"]("batch_norm")(*leaves)
    (first,) = grad(y, leaves[:1], cotangent, create_graph=True)

    def backward() -> Any:
        return grad(y, leaves, cotangent, retain_graph=True)

    def second() -> Any:
        return grad(first, [*leaves[:2], cotangent], cotangent, retain_graph=True)

    return {"backward": timed(backward, seconds) * 1e3, "second": timed(second, seconds) * 1e3}


# ------------------------------------------------------------------------------------------------- reporting

TWICE_TARGET = 4.0
WHERE_IT_GOES = (
    "What keeps layer norm and batch norm from 0.8: both libraries are near or beyond the speed of copying here, for part of the arrays stays in the last cache. Of layer norm's time two thirds are the backward, of which "
    "reading x and g and writing dx takes half, and the sums of rows and columns the rest. Batch norm reads x twice forward, and x and g twice backward, eight passes for the "
    "floor's five: the moments of a column are known only after all of it has been read."
)


def report(rounds: int, quick: bool) -> str:
    start = time.perf_counter()
    seconds = 0.01 if quick else 0.7
    bandwidth = in_turn("floor", ("numpy",), rounds, what="copy", seconds=seconds, megabytes=1 if quick else 256)["numpy"]["reused"]
    rows, verdicts = [], []
    for name, case in CASES.items():
        sizes = case.tiny if quick else case.sizes
        r = in_turn("operations", CONTENDERS, rounds, case=name, sizes=sizes, seconds=seconds)
        if name != "dropout":  # each library draws a mask of its own
            check_gradients(name, r)
        least = case.passes * 4 * math.prod(sizes[:2]) / bandwidth / 1e6
        ratio = against(r, "ms")
        rows.append([f"{case.what}: {' x '.join(f'{n:,}' for n in sizes)}", *(r.get(c, {}).get("ms") for c in CONTENDERS), least, ratio, case.target])
        if case.target is not None:
            verdicts.append(f"- {case.what}: gpugrad / PyTorch is {verdict(ratio, case.target)}. {number(least / r['gpugrad']['ms'])} of the floor's speed.")
    verdicts.append(f"- {_twice(rounds, quick)}")
    verdicts.append(f"- {WHERE_IT_GOES}")
    head = ["ms, forward and backward", *(NAMES[c] for c in CONTENDERS), "floor", "gpugrad / PyTorch", "target"]
    return (
        "\n\n".join([f"## Operations\n\n{__doc__.strip()}", table(head, rows), "\n".join(verdicts)])
        + f"\n\n({rounds} rounds, {time.perf_counter() - start:.0f} s)"
    )


def check_gradients(name: str, results: Results) -> None:
    """All contenders computed the same."""
    norms = {c: r["value"] for c, r in results.items()}
    if max(norms.values()) > min(norms.values()) * 1.001 + 1e-5:
        raise RuntimeError(f"{name}: the contenders' gradients have different norms: {norms}")


def _twice(rounds: int, quick: bool) -> str:
    r = in_turn("operations", ("gpugrad", "torch"), rounds, case="twice", sizes=SMALL if quick else MATRIX, seconds=0.01 if quick else 0.7)
    words = [f"{NAMES[c]} {number(t['second'] / t['backward'])} ({number(t['second'])} ms to {number(t['backward'])})" for c, t in r.items()]
    ours = r["gpugrad"]["second"] / r["gpugrad"]["backward"]
    return f"the backward of batch norm's backward, in backwards: {', '.join(words)}; ours is {verdict(ours, TWICE_TARGET)}."


if __name__ == "__main__":
    child(measure)
