"""Hessian-vector products of the loss of a multilayer perceptron (float32, ReLU, softmax cross entropy): one, one of many at a point, and a block of 16.

All contenders have the same weights, batch and vectors, and must arrive at the same product. PyTorch's product is the double backward of torch.autograd; that of torch.func
(jvp of grad) and its vmap for blocks stand beside it. JAX compiles the jvp of the gradient, its linearization at a point, and the vmap of it.

In units of 2 N in out operations, a layer of a net with N rows costs a gradient 3 (forward, dW, dX; the first layer 2, for nothing asks for its dX), a Hessian-vector product 8 (the
first layer 3), one of a linearized gradient 6 (2), and one of a block of K as much, besides the gradient's share of 1/K. The floor is that at the rate at which NumPy's library
computes the products of a gradient in their own shapes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from benchmarks import floor
from benchmarks.harness import NAMES, PeakMemory, Results, child, in_turn, number, table, timed, verdict
from benchmarks.mlp import Step, jax_loss

CONTENDERS = ("gpugrad", "gpugrad:mkl", "torch", "torch:func", "jax")
STEPS = (Step((784, 128, 10), 64, 1.0, 1.0), Step((784, 512, 512, 10), 128, 1.4, 1.0))
TINY = (Step((12, 8, 3), 4), Step((12, 8, 8, 3), 4))
SMALL = Step((64, 64, 64, 10), 64)  # large enough that what is loaded or compiled for the kernels is there after it
LARGE = Step((784, 2048, 2048, 10), 1024)
BLOCK = 16
UNITS = {"gradient": (2, 3), "product": (3, 8), "linearized": (2, 6), "block": (2 + 2 / BLOCK, 6 + 3 / BLOCK)}  # of the first layer, and of the others
WHAT = {"gradient": "gradient", "product": "H v", "linearized": "H v, linearized", "block": f"H V of {BLOCK}, per vector"}
OVERHEAD, MEMORY = 1.15, 2.0

Calls = dict[str, Callable[[], Any]]


def flops(step: Step, what: str) -> float:
    """Floating-point operations of the products of matrices."""
    first, *others = (2 * step.batch * i * o for i, o in pairwise(step.sizes))
    return UNITS[what][0] * first + UNITS[what][1] * sum(others)


def data(step: Step) -> tuple[list[np.ndarray], list[np.ndarray], list[np.ndarray], np.ndarray, np.ndarray]:
    """Weights and biases, a vector, a block of them, inputs, labels."""
    weights, x, labels = step.data()
    parameters = [p for pair in weights for p in pair]
    rng = np.random.default_rng(1)
    block = [rng.standard_normal((BLOCK, *p.shape)).astype(np.float32) for p in parameters]
    return parameters, [v[0].copy() for v in block], block, x, labels


# ------------------------------------------------------------------------------------------------- contenders: what each computes


def gpugrad_calls(step: Step, _variant: str) -> Calls:
    import gpugrad as gg
    from gpugrad.nn import functional

    parameters, vector, block, x, labels = data(step)

    def loss(ps: list[Any]) -> Any:
        h: Any = x
        for i in range(0, len(ps), 2):
            h = functional.linear(h, ps[i], ps[i + 1], activation="relu" if i + 2 < len(ps) else "none")
        return functional.cross_entropy(h, labels)

    _, push = gg.linearize(gg.grad(loss), parameters)
    return {
        "gradient": lambda: gg.grad(loss)(parameters),
        "product": lambda: gg.hvp(loss, parameters, vector),
        "linearized": lambda: push(vector),
        "block": lambda: gg.block_hvp(loss, parameters, block),
    }


def torch_calls(step: Step, variant: str) -> Calls:
    import torch

    parameters, vector, block, x, labels = ([torch.from_numpy(a) for a in part] if isinstance(part, list) else torch.from_numpy(part) for part in data(step))

    def loss(ps: Sequence[Any]) -> Any:
        h = x
        for i in range(0, len(ps), 2):
            h = torch.addmm(ps[i + 1], h, ps[i])
            h = torch.relu(h) if i + 2 < len(ps) else h
        return torch.nn.functional.cross_entropy(h, labels)

    if variant == "func":
        gradient = torch.func.grad(loss)
        product = lambda v: torch.func.jvp(gradient, (parameters,), (v,))[1]
        return {"gradient": lambda: gradient(parameters), "product": lambda: product(vector), "block": lambda: torch.func.vmap(product)(block)}
    leaves = [p.requires_grad_() for p in parameters]

    def double_backward() -> Any:
        g = torch.autograd.grad(loss(leaves), leaves, create_graph=True)
        return torch.autograd.grad(g, leaves, vector)

    g = torch.autograd.grad(loss(leaves), leaves, create_graph=True)
    return {
        "gradient": lambda: torch.autograd.grad(loss(leaves), leaves),
        "product": double_backward,
        "linearized": lambda: torch.autograd.grad(g, leaves, vector, retain_graph=True),
    }


def jax_calls(step: Step, _variant: str) -> Calls:
    import jax
    import jax.numpy as jnp

    parameters, vector, block, x, labels = ([jnp.asarray(a) for a in part] if isinstance(part, list) else jnp.asarray(part) for part in data(step))

    loss = jax_loss(x, labels)

    product = lambda ps, v: jax.jvp(jax.grad(loss), (ps,), (v,))[1]
    compiled = {"gradient": jax.jit(jax.grad(loss)), "product": jax.jit(product), "block": jax.jit(jax.vmap(product, (None, 0)))}
    push = jax.jit(jax.linearize(jax.grad(loss), parameters)[1])
    return {
        "gradient": lambda: jax.block_until_ready(compiled["gradient"](parameters)),
        "product": lambda: jax.block_until_ready(compiled["product"](parameters, vector)),
        "linearized": lambda: jax.block_until_ready(push(vector)),
        "block": lambda: jax.block_until_ready(compiled["block"](parameters, block)),
    }


# ------------------------------------------------------------------------------------------------- measuring


def measure(contender: str, sizes: list[int], batch: int, seconds: float = 0.0, memory_of: str | None = None) -> dict[str, float]:
    """Milliseconds of each, per vector, and the norm of each result, of a block's first vector; or MB that ``memory_of`` takes at the peak."""
    library, _, variant = contender.partition(":")
    calls = globals()[f"{library}_calls"](Step(tuple(sizes), batch), variant)
    if memory_of is not None:
        gpugrad_calls(SMALL, "")[memory_of]()
        return {"MB": _peak(calls[memory_of])}
    results: dict[str, float] = {}
    for what, call in calls.items():
        parts = [np.asarray(part.detach() if library == "torch" else part) for part in call()]
        results[f"{what}: norm"] = float(np.sqrt(sum(np.sum((part[0] if what == "block" else part) ** 2.0) for part in parts)))
        results[what] = timed(call, seconds) * 1e3 / (BLOCK if what == "block" else 1)
    return results


def _peak(call: Callable[[], Any]) -> float:
    with PeakMemory() as peak:
        call()
    return peak.bytes / 1e6


def check(results: Results) -> None:
    """Raise RuntimeError unless all contenders' gradients and products have one norm each."""
    for names in (("gradient",), ("product", "linearized", "block")):
        norms = {f"{c}, {name}": r[f"{name}: norm"] for c, r in results.items() for name in names if f"{name}: norm" in r}
        if max(norms.values()) - min(norms.values()) > 1e-3 * min(norms.values()):
            raise RuntimeError(f"the contenders did not compute the same: norms {norms}")


# ------------------------------------------------------------------------------------------------- reporting


def report(rounds: int, quick: bool) -> str:
    start = time.perf_counter()
    rows, verdicts = [], []
    for step in TINY if quick else STEPS:
        r = in_turn("hvp", CONTENDERS, rounds, sizes=step.sizes, batch=step.batch, seconds=0.01 if quick else 1.0)
        check(r)
        rate = floor.products(step, rounds, quick)["numpy"]["ms"] / flops(step, "gradient")
        rows += [[f"{step}: {WHAT[w]}", flops(step, w) / 1e6, rate * flops(step, w), *(r.get(c, {}).get(w) for c in CONTENDERS)] for w in WHAT]
        verdicts += _verdicts(step, r)
    head = ["ms", "MFLOP", "floor", *("torch.func" if c == "torch:func" else NAMES[c] for c in CONTENDERS)]
    return "\n\n".join([f"## Hessian-vector products\n\n{__doc__.strip()}", table(head, rows), *verdicts, _memory(rounds, quick)]) + (
        f"\n\n({rounds} rounds, {time.perf_counter() - start:.0f} s)"
    )


def _verdicts(step: Step, r: Results) -> list[str]:
    peers = {c: v["product"] for c, v in r.items() if not c.startswith("gpugrad")}
    best = min(peers, key=lambda c: peers[c]) if peers else None
    lines = []
    for c, target in (("gpugrad", step.target), ("gpugrad:mkl", step.target_mkl)):
        if c not in r:
            continue
        against_best = verdict(r[c]["product"] / peers[best], target) if best else verdict(None, target)
        lines.append(
            f"- {step}, {NAMES[c]}: H v / the best of the others ({'torch.func' if best == 'torch:func' else NAMES.get(best or '', 'none')}) is {against_best}."
        )
        for what in ("linearized", "block"):
            limit = OVERHEAD * flops(step, what) / flops(step, "gradient")
            lines.append(f"- {step}, {NAMES[c]}: {WHAT[what]} / our gradient is {verdict(r[c][what] / r[c]['gradient'], round(limit, 2))}.")
    return lines


def _memory(rounds: int, quick: bool) -> str:
    """Above weights, data, vector and what is there after a first, small call; no memory of freed arrays is kept."""
    step = TINY[1] if quick else LARGE
    peaks = {
        what: in_turn("hvp", ("gpugrad",), rounds, sizes=step.sizes, batch=step.batch, memory_of=what, environment={"GPUGRAD_KEEP_MEMORY": "0"})["gpugrad"][
            "MB"
        ]
        for what in ("gradient", "product")
    }
    ratio = peaks["product"] / peaks["gradient"] if peaks["gradient"] else None
    return f"- Peak memory, {step}: a gradient takes {number(peaks['gradient'])} MB, H v {number(peaks['product'])}: {verdict(ratio, MEMORY)}."


if __name__ == "__main__":
    child(measure)
