"""A training step of a multilayer perceptron (float32): forward, softmax cross entropy, backward, update by SGD or Adam.

All contenders start from the same weights, use one batch again and again, and must arrive at the same loss. PyTorch runs
eagerly with its default optimizers; JAX compiles the whole step with its update. "NumPy by hand" is the same arithmetic
with no tape, updated in place.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from benchmarks import floor
from benchmarks.harness import NAMES, Results, against, child, in_turn, number, table, timed, verdict

CONTENDERS = ("gpugrad", "gpugrad:mkl", "torch", "jax", "autograd", "numpy")
IN_PARTS = ("gpugrad", "gpugrad:mkl", "torch", "numpy")
OPTIMIZERS = ("SGD", "Adam")
RATE, BETA1, BETA2, EPSILON = 1e-3, 0.9, 0.999, 1e-8


@dataclass(frozen=True)
class Step:
    """The sizes of one step, and its targets: gpugrad's time over PyTorch's, with NumPy's BLAS and with MKL."""

    sizes: tuple[int, ...]
    batch: int
    target: float = 1.0
    target_mkl: float = 1.0

    def __str__(self) -> str:
        return f"{'-'.join(map(str, self.sizes))} at {self.batch}"

    def data(self) -> tuple[list[tuple[np.ndarray, np.ndarray]], np.ndarray, np.ndarray]:
        """(W, b) of each layer, W of shape (in, out); inputs; labels."""
        rng = np.random.default_rng(0)
        pairs = pairwise(self.sizes)
        weights = [((rng.standard_normal((i, o)) / np.sqrt(i)).astype(np.float32), np.zeros(o, np.float32)) for i, o in pairs]
        return weights, rng.standard_normal((self.batch, self.sizes[0])).astype(np.float32), rng.integers(0, self.sizes[-1], self.batch)


STEPS = (Step((784, 128, 10), 64, 0.6, 0.6), Step((784, 512, 512, 10), 128, 1.2), Step((784, 2048, 2048, 10), 1024, 1.2))
TINY = (Step((12, 8, 3), 4), Step((12, 8, 8, 3), 4))

Parts = tuple[Callable[[], Any], Callable[[Any], None], Callable[[], None]]  # forward -> loss, backward of it, update


# ------------------------------------------------------------------------------------------------- contenders: the three parts of a step


def gpugrad_parts(step: Step, optimizer: str, device: str = "cpu", dtype: Any = np.float32) -> Parts:
    import gpugrad as gg
    from gpugrad import nn, optim

    weights, x, labels = step.data()
    layers: list[Any] = []
    for w, b in weights:
        layers += [nn.Linear(*w.shape), nn.ReLU()]
        layers[-2].weight.data, layers[-2].bias.data = w.copy(), b.copy()
    model = nn.Sequential(*layers[:-1]).to(device).to(dtype)
    update = getattr(optim, optimizer)(model.parameters(), lr=RATE)
    inputs, targets = gg.tensor(x, device=device, dtype=dtype), gg.tensor(labels, device=device)

    def forward() -> Any:
        return nn.functional.cross_entropy(model(inputs), targets)

    def step_() -> None:
        update.step()
        update.zero_grad()

    return forward, lambda loss: loss.backward(), step_


def torch_parts(step: Step, optimizer: str, device: str = "cpu", dtype: Any = None) -> Parts:
    import torch
    from torch import nn

    weights, x, labels = step.data()
    layers: list[Any] = []
    for w, b in weights:
        layers += [nn.Linear(*w.shape), nn.ReLU()]
        with torch.no_grad():
            layers[-2].weight.copy_(torch.from_numpy(w.T))
            layers[-2].bias.copy_(torch.from_numpy(b))
    model = nn.Sequential(*layers[:-1]).to(device, dtype)
    update = getattr(torch.optim, optimizer)(model.parameters(), lr=RATE)
    inputs, targets = torch.from_numpy(x).to(device, dtype), torch.from_numpy(labels).to(device)

    def step_() -> None:
        update.step()
        update.zero_grad()

    return lambda: nn.functional.cross_entropy(model(inputs), targets), lambda loss: loss.backward(), step_


def numpy_parts(step: Step, optimizer: str) -> Parts:
    weights, x, labels = step.data()
    rows = np.arange(step.batch)
    inputs: list[np.ndarray] = []
    grads: list[np.ndarray] = []
    apply = in_place(optimizer, [p for pair in weights for p in pair])

    def forward() -> Any:
        inputs[:] = [x]
        for w, b in weights:
            h = inputs[-1] @ w
            h += b
            inputs.append(np.maximum(h, 0, out=h) if w is not weights[-1][0] else h)
        p = inputs.pop()
        p -= p.max(axis=1, keepdims=True)
        picked = p[rows, labels]
        np.exp(p, out=p)
        total = p.sum(axis=1)
        p /= total[:, None]
        return (np.log(total) - picked).mean(), p

    def backward(loss: Any) -> None:
        g = loss[1]
        g[rows, labels] -= 1
        g /= np.float32(step.batch)
        grads.clear()
        for h, (w, _) in zip(reversed(inputs), reversed(weights), strict=True):
            grads[:0] = [h.T @ g, g.sum(axis=0)]
            if h is not x:
                g = g @ w.T
                g *= h > 0

    return forward, backward, lambda: apply(grads)


def in_place(optimizer: str, parameters: list[np.ndarray]) -> Callable[[list[np.ndarray]], None]:
    """SGD or Adam (Kingma and Ba 2015) on NumPy arrays."""
    first, second = [np.zeros_like(p) for p in parameters], [np.zeros_like(p) for p in parameters]
    count = 0

    def sgd(grads: list[np.ndarray]) -> None:
        for p, g in zip(parameters, grads, strict=True):
            p -= RATE * g

    def adam(grads: list[np.ndarray]) -> None:
        nonlocal count
        count += 1
        for p, g, m, v in zip(parameters, grads, first, second, strict=True):
            m += (1 - BETA1) * (g - m)
            v *= BETA2
            v += (1 - BETA2) * (g * g)
            p -= (RATE / (1 - BETA1**count)) * m / (np.sqrt(v / (1 - BETA2**count)) + EPSILON)

    return sgd if optimizer == "SGD" else adam


def autograd_parts(step: Step, optimizer: str) -> Parts:
    import autograd
    import autograd.numpy as anp

    weights, x, labels = step.data()
    parameters = [p for pair in weights for p in pair]
    rows, apply = np.arange(step.batch), in_place(optimizer, parameters)

    def loss_of(ps: list[Any]) -> Any:
        h = x
        for i in range(0, len(ps), 2):
            h = anp.dot(h, ps[i]) + ps[i + 1]
            h = anp.maximum(h, 0) if i + 2 < len(ps) else h
        h = h - anp.max(h, axis=1, keepdims=True)
        return anp.mean(anp.log(anp.sum(anp.exp(h), axis=1)) - h[rows, labels])

    both, grads = autograd.value_and_grad(loss_of), []

    def forward_and_backward() -> Any:
        loss, grads[:] = both(parameters)
        return loss

    return forward_and_backward, lambda _: None, lambda: apply(grads)


def jax_loss(x: Any, labels: Any) -> Callable[[list[Any]], Any]:
    """The net's loss as a function of its parameters, weights and biases in turn."""
    import jax
    import jax.numpy as jnp

    def loss(ps: list[Any]) -> Any:
        h = x
        for i in range(0, len(ps), 2):
            h = h @ ps[i] + ps[i + 1]
            h = jnp.maximum(h, 0) if i + 2 < len(ps) else h
        return -jnp.take_along_axis(jax.nn.log_softmax(h), labels[:, None], axis=1).mean()

    return loss


def jax_parts(step: Step, optimizer: str) -> Parts:
    import jax
    import jax.numpy as jnp

    weights, x, labels = step.data()
    x, labels = jnp.asarray(x), jnp.asarray(labels)
    parameters = [jnp.asarray(p) for pair in weights for p in pair]
    state = (parameters, [jnp.zeros_like(p) for p in parameters], [jnp.zeros_like(p) for p in parameters], jnp.zeros(()))

    loss_of = jax_loss(x, labels)

    def whole(ps: Any, ms: Any, vs: Any, count: Any) -> Any:
        loss, gs = jax.value_and_grad(loss_of)(ps)
        count = count + 1
        if optimizer == "SGD":
            return loss, ([p - RATE * g for p, g in zip(ps, gs, strict=True)], ms, vs, count)
        ms = [BETA1 * m + (1 - BETA1) * g for m, g in zip(ms, gs, strict=True)]
        vs = [BETA2 * v + (1 - BETA2) * g * g for v, g in zip(vs, gs, strict=True)]
        scale, root = RATE / (1 - BETA1**count), 1 - BETA2**count
        return loss, ([p - scale * m / (jnp.sqrt(v / root) + EPSILON) for p, m, v in zip(ps, ms, vs, strict=True)], ms, vs, count)

    compiled = jax.jit(whole, donate_argnums=(0, 1, 2, 3))

    def run() -> Any:
        nonlocal state
        loss, state = compiled(*state)
        return loss.block_until_ready()

    return run, lambda _: None, lambda: None


# ------------------------------------------------------------------------------------------------- measuring


def measure(contender: str, sizes: list[int], batch: int, optimizer: str, seconds: float) -> dict[str, float]:
    """Milliseconds of a step, and of its parts; the loss after ten steps."""
    library = contender.partition(":")[0]
    forward, backward, update = globals()[f"{library}_parts"](Step(tuple(sizes), batch), optimizer)

    def run() -> Any:
        loss = forward()
        backward(loss)
        update()
        return loss

    for _ in range(10):
        loss = run()
    result = {"loss": float(loss[0] if library == "numpy" else loss.item() if library in ("gpugrad", "torch") else loss), "ms": timed(run, seconds) * 1e3}
    return result | (parts(forward, backward, update, seconds) if contender in IN_PARTS else {})


def parts(forward: Callable[[], Any], backward: Callable[[Any], None], update: Callable[[], None], seconds: float) -> dict[str, float]:
    """The median milliseconds of each part of a step."""
    times: list[list[float]] = [[], [], []]
    end = time.perf_counter() + seconds
    while len(times[0]) < 5 or time.perf_counter() < end:
        marks = [time.perf_counter()]
        loss = forward()
        marks.append(time.perf_counter())
        backward(loss)
        del loss
        marks.append(time.perf_counter())
        update()
        marks.append(time.perf_counter())
        for i in range(3):
            times[i].append(marks[i + 1] - marks[i])
    return {name: float(np.median(ts)) * 1e3 for name, ts in zip(("forward", "backward", "update"), times, strict=True)}


def check_losses(results: Results) -> None:
    losses = {c: r["loss"] for c, r in results.items()}
    if max(losses.values()) - min(losses.values()) > 1e-3 * abs(min(losses.values())):
        raise RuntimeError(f"the contenders did not compute the same: losses after ten steps {losses}")


# ------------------------------------------------------------------------------------------------- reporting


def report(rounds: int, quick: bool) -> str:
    start = time.perf_counter()
    seconds, steps = (0.01, TINY) if quick else (1.5, STEPS)
    rows, detail, verdicts = [], [], []
    for step in steps:
        gemm = floor.products(step, rounds, quick)
        for optimizer in OPTIMIZERS:
            r = in_turn("mlp", CONTENDERS, rounds, sizes=step.sizes, batch=step.batch, optimizer=optimizer, seconds=seconds)
            check_losses(r)
            ratio, with_mkl = against(r, "ms"), against(r, "ms", "gpugrad:mkl")
            rows.append([f"{step}, {optimizer}", *(r.get(c, {}).get("ms") for c in CONTENDERS), ratio, step.target, with_mkl, step.target_mkl])
            for c in IN_PARTS:
                if c in r:
                    detail.append(
                        [
                            f"{step}, {optimizer}: {NAMES[c]}",
                            r[c]["forward"],
                            r[c]["backward"],
                            r[c]["update"],
                            gemm.get("torch" if c == "torch" else "numpy", {}).get("ms") if c != "gpugrad:mkl" else None,
                        ]
                    )
            verdicts.append(
                f"- {step}, {optimizer}: gpugrad / PyTorch is {verdict(ratio, step.target)}, with MKL {verdict(with_mkl, step.target_mkl)}. {_where(r, gemm)}"
            )
    head = ["ms per step", *(NAMES[c] for c in CONTENDERS), "gpugrad / PyTorch", "target", "with MKL", "target"]
    parts_head = ["where a step's ms go", "forward", "backward", "update", "its matrix products alone"]
    text = [f"## A training step\n\n{__doc__.strip()}", table(head, rows), *verdicts, table(parts_head, detail)]
    return "\n\n".join(text) + f"\n\n({rounds} rounds, {time.perf_counter() - start:.0f} s)"


def _where(r: Results, gemm: Results) -> str:
    """Where the difference to PyTorch comes from."""
    if "gpugrad" not in r or "torch" not in r or "torch" not in gemm:
        return ""
    ours, theirs = r["gpugrad"], r["torch"]
    products = gemm["numpy"]["ms"] - gemm["torch"]["ms"]
    update = ours["update"] - theirs["update"]
    rest = ours["ms"] - theirs["ms"] - products - update
    return (
        f"Of the {number(ours['ms'])} ms, {number(gemm['numpy']['ms'])} are matrix products and {number(ours['update'])} the update. Against PyTorch ({number(theirs['ms'])} ms): "
        f"{products:+.2f} ms in the matrix products (NumPy's BLAS against PyTorch's), {update:+.2f} in the update, {rest:+.2f} in everything else."
    )


if __name__ == "__main__":
    child(measure)
