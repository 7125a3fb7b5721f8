"""The command line: ``gpugrad train``, ``gpugrad check`` and ``gpugrad info``."""

from __future__ import annotations

import argparse
import importlib.metadata
import math
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import numpy as np

import gpugrad
from gpugrad import backend, blas, cache, data, io, nn, optim, parallel, random
from gpugrad.cuda import emulator
from gpugrad.nn.layers import ACTIVATIONS

OPTIMIZERS: dict[str, tuple[Callable[..., optim.Optimizer], float]] = {  # with the learning rate that goes with it
    "adamw": (optim.AdamW, 3e-3),
    "adam": (optim.Adam, 3e-3),
    "sgd": (lambda params, lr: optim.SGD(params, lr, momentum=0.9), 0.1),
}


class RefusalError(Exception):
    """Why a command cannot be carried out, in one line, and the exit code."""

    def __init__(self, message: str, code: int = 2) -> None:
        super().__init__(" ".join(message.split()))
        self.code = code


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code: 0, 1 when it failed on the way, 2 for arguments that cannot be used."""
    try:
        args = _parser().parse_args(argv)
        args.command(args)
        sys.stdout.flush()
        return 0
    except RefusalError as refusal:
        print(f"gpugrad: {refusal}", file=sys.stderr)
        return refusal.code
    except MemoryError as error:
        print(f"gpugrad: out of memory: {error}; try smaller --layers", file=sys.stderr)
        return 1
    except BrokenPipeError:  # the reader of our output has left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        print("gpugrad: interrupted", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="gpugrad", description="Derivatives for NumPy and CuPy arrays.", allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"gpugrad {gpugrad.__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    t = commands.add_parser(
        "train", help="train a classifier of handwritten digits", formatter_class=argparse.ArgumentDefaultsHelpFormatter, allow_abbrev=False
    )
    t.description = "Train a multilayer perceptron on the handwritten digits that scikit-learn ships, and save it."
    t.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    t.add_argument("--layers", type=_layers, default="256,128", metavar="N,N,...", help="numbers of hidden units; '' for none")
    t.add_argument("--activation", choices=list(ACTIVATIONS), default="relu", help="between the layers")
    t.add_argument("--optimizer", choices=list(OPTIMIZERS), default="adamw", help="how the weights are updated")
    t.add_argument("--lr", type=_positive(float), help="learning rate at the start, from where it falls to 0 along a cosine (default: the optimizer's own)")
    t.add_argument("--batch-size", type=_positive(int), default=32, metavar="N", help="examples per step")
    t.add_argument("--epochs", type=_positive(int), default=30, metavar="N", help="passes over the training set")
    t.add_argument("--label-smoothing", type=_fraction, default=0.1, metavar="S", help="share of every label that is spread over all classes")
    t.add_argument("--seed", type=_seed, default=0, metavar="N", help="of the split, the starting weights and the order of the examples")
    t.add_argument("--output", default="digits.safetensors", metavar="FILE", help="where the model goes")
    t.set_defaults(command=train)

    i = commands.add_parser("info", help="versions, devices and what is missing", allow_abbrev=False)
    i.set_defaults(command=info)

    c = commands.add_parser("check", help="whether the kernels give the right numbers on this machine", allow_abbrev=False)
    c.description = "Run every kernel and every operation everywhere this machine can, and compare with float64. The exit code is 1 where results are wrong."
    c.add_argument("--only", default="", metavar="TEXT", help="only what has this in its name")
    c.add_argument("--kernels", action="store_true", help="the kernels, and not the operations")
    c.set_defaults(command=check)
    return parser


def _layers(text: str) -> list[int]:
    parts = [p.strip() for p in text.split(",")] if text.strip() else []
    if not all(p.isascii() and p.isdigit() and int(p) > 0 for p in parts):
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of positive integers like 128,64")
    return [int(p) for p in parts]


def _positive(kind: type) -> Callable[[str], Any]:
    def parse(text: str) -> Any:
        number = _number(kind, text)
        if not 0 < number < math.inf:
            raise argparse.ArgumentTypeError(f"{text!r} is not a positive number")
        return number

    return parse


def _fraction(text: str) -> float:
    number = _number(float, text)
    if not 0 <= number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to below 1")
    return number


def _seed(text: str) -> int:
    number = _number(int, text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"{text!r} is negative")
    return number


def _number(kind: type, text: str) -> Any:
    try:
        return kind(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not {'an integer' if kind is int else 'a number'}") from None


# ---------------------------------------------------------------------------------- gpugrad train


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


# ---------------------------------------------------------------------------------- gpugrad info


def info(_args: argparse.Namespace) -> None:
    """Print versions, devices and what is missing."""
    missing = []
    print(f"gpugrad      {gpugrad.__version__}")
    print(f"python       {platform.python_version()} on {platform.system()} {platform.machine()}")
    print(f"numpy        {np.__version__}")
    for name, distributions, remedy in _OPTIONAL:
        version = next((v for v in map(_version, distributions) if v), None)
        print(f"{name:<12} {version or 'not installed'}")
        if version is None:
            missing.append(f"{name}: {remedy}")
    print(f"cpu          {os.cpu_count()} cores")
    try:
        print(f"BLAS         {blas.describe()}")
    except (ValueError, RuntimeError) as error:
        print("BLAS         none")
        missing.append(f"BLAS: {error}")
    try:
        print(f"kernels      {parallel.threads()} threads; what is compiled is kept in {cache.root()}")
    except (ValueError, OSError) as error:
        missing.append(f"kernels: {error}")
    print(f"emulator     {emulator.compiler() or 'none'}")
    if not emulator.is_available():
        missing.append("emulator: install g++, or set CXX, to check the CUDA kernels on the CPU")
    try:
        cp = backend.cupy()
        for i in range(cp.cuda.runtime.getDeviceCount()):
            properties = cp.cuda.runtime.getDeviceProperties(i)
            print(f"{f'cuda:{i}':<12} {properties['name'].decode()}, {properties['totalGlobalMem'] / 2**30:.0f} GiB")
    except backend.DeviceError as error:
        print("cuda         none")
        missing.append(f"GPU: {error}")
    for line in missing:
        print(f"missing      {line}")


# ---------------------------------------------------------------------------------- gpugrad check


def check(args: argparse.Namespace) -> None:
    """Print a table of errors and times."""
    from gpugrad import check as checks

    try:
        right = checks.check(args.only, operations=not args.kernels)
    except (ValueError, RuntimeError) as error:
        raise RefusalError(str(error)) from None
    if not right:
        raise RefusalError("not all results are right", 1)


_OPTIONAL = (
    ("cupy", ("cupy-cuda12x", "cupy-cuda13x", "cupy"), "pip install 'gpugrad[cuda12]' or 'gpugrad[cuda13]' to use a GPU"),
    ("numba", ("numba",), "pip install numba for the fused kernels on the CPU"),
    ("scikit-learn", ("scikit-learn",), "pip install 'gpugrad[demo]' for the data of gpugrad train"),
)


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
