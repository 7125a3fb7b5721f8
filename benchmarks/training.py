"""Whole epochs: the digits (1437 images of 64 pixels, batches of 32) and a net 64-256-128-10 with ReLU, cross entropy and AdamW, float32.

All contenders start from the same weights and shuffle in each epoch, each with its own generator, so their losses agree roughly, not in every digit.
The loops are written out by hand, but for `fit`, which is a call of `gpugrad.training.fit` and measures its loss and speed on the way. PyTorch runs
eagerly, once with an epoch's permutation and an index for each batch, which is its fastest loop, and once with its own DataLoader.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np

from benchmarks.harness import NAMES, Results, against, child, in_turn, number, table, timed, verdict

CONTENDERS = ("gpugrad", "gpugrad:fit", "torch", "torch:DataLoader")
LABELS = NAMES | {"gpugrad": "gpugrad, by hand", "gpugrad:fit": "gpugrad, fit", "torch": "PyTorch, indices", "torch:DataLoader": "PyTorch, DataLoader"}
SIZES, BATCH, RATE, DECAY = (64, 256, 128, 10), 32, 1e-3, 1e-2
WARM_UP = 3  # epochs before the loss is compared and the clock runs
TARGET = 0.8

Epoch = Callable[[], float]  # trains for one, and returns the mean loss over its examples


def digits(examples: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """The training part of the digits, or as many numbers where only speed matters."""
    from gpugrad import data

    x, y, _, _ = data.load_digits()
    return x[:examples], y[:examples]


def initial() -> list[tuple[np.ndarray, np.ndarray]]:
    """(W, b) of each layer, W of shape (in, out): uniform over +-1/sqrt(in)."""
    rng = np.random.default_rng(0)
    return [tuple(rng.uniform(-1, 1, shape).astype(np.float32) / np.float32(np.sqrt(n)) for shape in ((n, m), m)) for n, m in pairwise(SIZES)]  # type: ignore[misc]


# ------------------------------------------------------------------------------------------------- contenders


def gpugrad_epoch(variant: str, x: np.ndarray, y: np.ndarray) -> Epoch:
    from gpugrad import data, nn, optim, training

    model = nn.MLP(SIZES)
    linears = [layer for layer in model if isinstance(layer, nn.Linear)]
    for layer, (w, b) in zip(linears, initial(), strict=True):
        layer.weight.data, layer.bias.data = w.copy(), b.copy()
    optimizer = optim.AdamW(model.parameters(), lr=RATE, weight_decay=DECAY)
    loss_of, loader = nn.CrossEntropyLoss(), data.DataLoader(data.TensorDataset(x, y), BATCH, shuffle=True)

    def epoch() -> float:
        total = 0.0
        for inputs, labels in loader:
            loss = loss_of(model(inputs), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() * len(labels)
        return total / len(x)

    return (lambda: training.fit(model, loss_of, optimizer, loader, epochs=1)["loss"][0]) if variant == "fit" else epoch


def torch_epoch(variant: str, x: np.ndarray, y: np.ndarray) -> Epoch:
    import torch
    from torch import nn
    from torch.utils.data import DataLoader, TensorDataset

    torch.manual_seed(0)
    layers: list[Any] = []
    for w, b in initial():
        layers += [nn.Linear(*w.shape), nn.ReLU()]
        with torch.no_grad():
            layers[-2].weight.copy_(torch.from_numpy(w.T))
            layers[-2].bias.copy_(torch.from_numpy(b))
    model = nn.Sequential(*layers[:-1])
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=DECAY)
    loss_of, inputs, labels = nn.CrossEntropyLoss(), torch.from_numpy(x), torch.from_numpy(y)
    loader = DataLoader(TensorDataset(inputs, labels), BATCH, shuffle=True)

    def by_index() -> Any:
        for rows in torch.randperm(len(inputs)).split(BATCH):
            yield inputs[rows], labels[rows]

    def epoch() -> float:
        total = 0.0
        for a, b in loader if variant == "DataLoader" else by_index():
            loss = loss_of(model(a), b)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() * len(b)
        return total / len(inputs)

    return epoch


# ------------------------------------------------------------------------------------------------- measuring


def measure(contender: str, seconds: float, examples: int | None = None) -> dict[str, float]:
    """Milliseconds of an epoch, and the mean loss in the last of those that warm up."""
    library, _, variant = contender.partition(":")
    epoch: Epoch = globals()[f"{library}_epoch"](variant, *digits(examples))
    losses = [epoch() for _ in range(WARM_UP)]
    return {"loss": losses[-1], "ms": timed(epoch, seconds) * 1e3}


def check_losses(results: Results) -> None:
    """They shuffle differently, so they agree to a tenth, and have learned something."""
    losses = {c: r["loss"] for c, r in results.items()}
    if max(losses.values()) > 1.1 * min(losses.values()) or max(losses.values()) > 0.9 * np.log(SIZES[-1]):
        raise RuntimeError(f"the contenders did not learn the same: mean losses in epoch {WARM_UP} {losses}")


def report(rounds: int, quick: bool) -> str:
    start = time.perf_counter()
    r = in_turn("training", CONTENDERS, rounds, seconds=0.01 if quick else 2.0)
    check_losses(r)
    steps = -(-len(digits()[0]) // BATCH)
    rows = [[LABELS[c], m["ms"], 1e3 / m["ms"], 1e3 * m["ms"] / steps, m["loss"], against(r, "ms", c)] for c, m in r.items()]
    head = ["", "ms per epoch", "epochs per second", "us per step", f"mean loss in epoch {WARM_UP}", "/ PyTorch, indices"]
    verdicts = [f"- {LABELS[c]} / PyTorch by indices is {verdict(against(r, 'ms', c), TARGET)}." for c in r if c.startswith("gpugrad")]
    fit, loader = against(r, "ms", "gpugrad:fit", "gpugrad"), against(r, "ms", "gpugrad", "torch:DataLoader")
    verdicts.append(
        f"- `fit` costs {number(fit)} of the loop by hand" + (f", which takes {number(loader)} of PyTorch's time with its DataLoader." if loader else ".")
    )
    return (
        "\n\n".join([f"## Training on the digits\n\n{__doc__.strip()}", table(head, rows), "\n".join(verdicts)])
        + f"\n\n({rounds} rounds, {time.perf_counter() - start:.0f} s)"
    )


if __name__ == "__main__":
    child(measure)
