"""``gpugrad train``."""

from __future__ import annotations

import argparse
import math
import os
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import gpugrad
from gpugrad import backend, data, io, nn, optim, random
from gpugrad.cli.refusal import RefusalError

OPTIMIZERS: dict[str, tuple[Callable[..., optim.Optimizer], float]] = {  # with the learning rate that goes with it
    "adamw": (optim.AdamW, 3e-3),
    "adam": (optim.Adam, 3e-3),
    "sgd": (lambda params, lr: optim.SGD(params, lr, momentum=0.9), 0.1),
}


def train(args: argparse.Namespace) -> None:
    """Train, save, and print the accuracy on the test set."""
    try:
        device = backend.device_name(args.device)
        digits = data.load_digits(seed=args.seed)
    except (ValueError, ImportError, backend.DeviceError) as error:
        raise RefusalError(str(error)) from None
    check_writable(args.output)
    x, y, x_test, y_test = (backend.to_device(a, device) for a in digits)
    random.seed(args.seed)
    model = nn.MLP([x.shape[1], *args.layers, 10], args.activation, device=device)
    print(
        f"{len(x)} digits to learn from, {len(x_test)} to test on; {sum(p.size for p in model.parameters()):,} parameters on {device}; seed {args.seed}",
        flush=True,
    )
    fit(model, x, y, args)
    with gpugrad.no_grad():
        accuracy = float((model(x_test).data.argmax(axis=1) == y_test).mean())
    save(model, accuracy, args)
    print(f"test accuracy: {accuracy:.4f}")


def fit(model: nn.Module, x: Any, y: Any, args: argparse.Namespace) -> None:
    """Minibatch descent with a learning rate that falls along half a cosine; every epoch is reported."""
    make, usual = OPTIMIZERS[args.optimizer]
    optimizer = make(model.parameters(), lr=args.lr or usual)
    peak, steps = optimizer.param_groups[0]["lr"], args.epochs * math.ceil(len(x) / args.batch_size)
    loss_of = nn.CrossEntropyLoss(label_smoothing=args.label_smoothing)
    done = 0
    with (Bar if sys.stdout.isatty() else Lines)(args.epochs, steps) as report, np.errstate(all="ignore"):
        for epoch in range(1, args.epochs + 1):
            start, total, right = time.perf_counter(), 0.0, 0
            for xb, yb in data.minibatches(x, y, args.batch_size):
                optimizer.param_groups[0]["lr"] = peak * (1 + math.cos(math.pi * done / steps)) / 2
                logits = model(xb)
                loss = loss_of(logits, yb)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                total += loss.data * len(xb)  # these two stay on the device until the epoch ends
                right += (logits.data.argmax(axis=1) == yb).sum()
                done += 1
                report.step()
            mean = float(total) / len(x)
            if not math.isfinite(mean):
                raise RefusalError(f"the loss became {mean} in epoch {epoch}: try a smaller --lr", 1)
            report.epoch(epoch, mean, int(right) / len(x), len(x) / (time.perf_counter() - start))


class Lines:
    """Progress for a file or a pipe: a line per epoch."""

    def __init__(self, epochs: int, steps: int) -> None:
        self.epochs = epochs

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def step(self) -> None:
        """After every minibatch."""

    def epoch(self, epoch: int, loss: float, accuracy: float, rate: float) -> None:
        """After every epoch, with means over it."""
        print(f"epoch {epoch:>{len(str(self.epochs))}}/{self.epochs}  loss {loss:.4f}  accuracy {accuracy:.4f}  {rate:,.0f} examples/s", flush=True)


class Bar(Lines):
    """Progress for a terminal: a bar."""

    def __init__(self, epochs: int, steps: int) -> None:
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        super().__init__(epochs, steps)
        self.bar = Progress(TextColumn("epoch {task.fields[epoch]}"), BarColumn(), TextColumn("{task.fields[means]}"), TimeRemainingColumn())
        self.task = self.bar.add_task("", total=steps, epoch=f"0/{epochs}", means="")

    def __enter__(self) -> Bar:
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def step(self) -> None:
        """After every minibatch."""
        self.bar.advance(self.task)

    def epoch(self, epoch: int, loss: float, accuracy: float, rate: float) -> None:
        """After every epoch, with means over it."""
        self.bar.update(self.task, epoch=f"{epoch}/{self.epochs}", means=f"loss {loss:.4f}  accuracy {accuracy:.4f}  {rate:,.0f} examples/s")


def check_writable(path: str) -> None:
    """Find out before the work whether its result can be saved.

    Raises:
        RefusalError: it cannot.
    """
    folder = os.path.dirname(path) or "."
    if not path or os.path.isdir(path):
        raise RefusalError(f"--output: {path!r} is a folder, expected the name of a file" if path else "--output: got an empty name")
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise RefusalError(f"--output: cannot write to {folder!r}: {error.strerror}") from None


def save(model: nn.Module, accuracy: float, args: argparse.Namespace) -> None:
    """Write the model, with what it takes to build it again."""
    layers = ",".join(map(str, args.layers))
    about = {"format": "gpugrad MLP", "hidden_layers": layers, "activation": args.activation, "seed": str(args.seed), "test_accuracy": f"{accuracy:.4f}"}
    try:
        io.save(args.output, model.state_dict(), about)
    except OSError as error:
        raise RefusalError(f"--output: cannot write {args.output!r}: {error.strerror}", 1) from None
    print(f"saved {args.output}")
