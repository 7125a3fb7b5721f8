"""What one operation costs: forward plus backward of a chain of 2000 operations on 10-element arrays (float32).

The arithmetic takes next to no time on ten elements, so this measures what a library does around it. "NumPy by hand" is
the lower bound: the same arithmetic, forward and backward, written out with no tape.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.harness import NAMES, Results, against, child, in_turn, number, table, timed, verdict

TARGET = 0.6
CONTENDERS = ("gpugrad", "torch", "autograd", "jax", "numpy")
MIXES = {"add, multiply": 2, "tanh, multiply, sin, add": 4}  # how many operations a link of the chain has
X = np.linspace(0.1, 1.0, 10, dtype=np.float32)
A, B = (
    np.linspace(0.99999, 1.00001, 10, dtype=np.float32),
    np.linspace(-1e-5, 1e-5, 10, dtype=np.float32),
)  # no value and no derivative runs to infinity or to 0


def chain(xp: Any, x: Any, a: Any, b: Any, mix: str, n: int) -> Any:
    """n operations, each on the result of the one before; the names are the same in every library."""
    if mix == "add, multiply":
        for _ in range(n // 2):
            x = (x + b) * a
        return x
    if mix not in MIXES:
        raise ValueError(f"no such mix: {mix!r}, expected one of {list(MIXES)}")
    tanh, sin = xp.tanh, xp.sin
    for _ in range(n // 4):
        x = sin(tanh(x) * a) + b
    return x


def by_hand(mix: str, n: int) -> np.ndarray:
    """The gradient of the chain's sum, with NumPy alone."""
    x, g = X, np.ones_like(X)
    if mix == "add, multiply":
        for _ in range(n // 2):
            x = (x + B) * A
        for _ in range(n // 2):
            g = g * A
        return g
    kept = []
    for _ in range(n // 4):
        y = np.tanh(x)
        z = y * A
        x = np.sin(z) + B
        kept.append((y, z))
    for y, z in reversed(kept):
        g = g * np.cos(z)
        g = g * A
        g = g - g * y * y
    return g


def gradient(contender: str, mix: str, n: int) -> Callable[[], Any]:
    """A function that builds the chain and gives the gradient of its sum."""
    if contender == "numpy":
        return lambda: by_hand(mix, n)
    if contender == "autograd":
        import autograd
        import autograd.numpy as anp

        g = autograd.grad(lambda x: anp.sum(chain(anp, x, A, B, mix, n)))
        return lambda: g(X)
    if contender == "jax":
        import jax
        import jax.numpy as jnp

        a, b, x0 = map(jnp.asarray, (A, B, X))
        g = jax.grad(lambda x: jnp.sum(chain(jnp, x, a, b, mix, n)))
        return lambda: g(x0).block_until_ready()
    xp = importlib.import_module(contender)
    make, (a, b) = (xp.from_numpy, map(xp.from_numpy, (A, B))) if contender == "torch" else (xp.tensor, (A, B))

    def run() -> Any:
        x = make(X).requires_grad_()
        chain(xp, x, a, b, mix, n).sum().backward()
        return x.grad.numpy()

    return run


def measure(contender: str, mix: str, n: int, seconds: float) -> dict[str, float]:
    """us per operation, forward plus backward."""
    f = gradient(contender, mix, n)
    np.testing.assert_allclose(np.asarray(f()), by_hand(mix, n), rtol=1e-4)
    return {"us": timed(f, seconds) / n * 1e6}


def report(rounds: int, quick: bool) -> str:
    n, seconds = (40, 0.01) if quick else (2000, 2.0)
    start = time.perf_counter()
    results = {mix: in_turn("chain", CONTENDERS, rounds, mix=mix, n=n, seconds=seconds) for mix in MIXES}
    head = ["us per operation", *MIXES, *(f"ratio to PyTorch: {mix}" for mix in MIXES)]
    rows = [[NAMES[c], *(r.get(c, {}).get("us") for r in results.values()), *(against(r, "us", c) for r in results.values())] for c in CONTENDERS]
    text = [
        f"## The cost of an operation\n\n{__doc__.strip().partition(chr(10))[2].strip()} JAX runs without jit here (with it, a chain is one compiled function).",
        table(head, rows),
    ]
    for mix, r in results.items():
        text.append(f"- {mix}: gpugrad / PyTorch is {verdict(against(r, 'us'), TARGET)}. {_where(r)}")
    return "\n\n".join(text) + f"\n\n(n = {n}, {rounds} rounds, {time.perf_counter() - start:.0f} s)"


def _where(r: Results) -> str:
    """Where the time goes."""
    if "gpugrad" not in r:
        return ""
    ours, floor = r["gpugrad"]["us"], r["numpy"]["us"]
    return f"Of gpugrad's {number(ours)} us NumPy's own calls take {number(floor)}; the other {number(ours - floor)} make Tensors and nodes, and walk back over them."


if __name__ == "__main__":
    child(measure)
