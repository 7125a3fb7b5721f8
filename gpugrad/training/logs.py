"""Where the numbers of a run go: a bar or lines on the screen, a file of JSON lines, event files for TensorBoard."""

from __future__ import annotations

import importlib
import json
import math
import os
import sys
import time
from collections.abc import Iterator
from typing import IO, Any

from gpugrad import io
from gpugrad.training.history import as_numbers
from gpugrad.training.run import Callback, Run


class Progress(Callback):
    """How the training goes, on the standard output: on a terminal a bar with the means so far, examples per second, the time that is left and the device;
    elsewhere, or with ``bar=False``, a line per epoch.

    The bar looks at the device four times a second, so that training does not wait for it.
    """

    def __init__(self, file: IO[str] | None = None, bar: bool | None = None) -> None:
        self.file, self.wants_bar = file, bar
        self._bar: Any = None

    def on_train_begin(self, run: Run) -> None:
        """Look whether there is a terminal."""
        self.out = sys.stdout if self.file is None else self.file
        if self.out.isatty() if self.wants_bar is None else self.wants_bar:
            self._start_bar(run)

    def on_epoch_begin(self, run: Run) -> None:
        """The clock of the epoch starts."""
        self._start = self._looked = time.monotonic()

    def on_step_end(self, run: Run) -> None:
        """Move the bar on; at times look at the numbers."""
        if self._bar is None:
            return
        now = time.monotonic()
        self._bar.update(self._task, completed=min((run.epoch - 1) * run.steps_per_epoch + 1 + (run.step - 1) % run.steps_per_epoch, self._total))
        if now - self._looked > 0.25:
            self._looked = now
            so_far = {**run.meter.means(), "examples_per_second": run.meter.examples / (now - self._start)}
            self._bar.update(self._task, epoch=f"epoch {run.epoch}/{run.epochs}", **_fields(so_far))

    def on_epoch_end(self, run: Run) -> None:
        """The numbers of the whole epoch."""
        if self._bar is None:
            print(line(run), file=self.out, flush=True)
        else:
            self._bar.update(self._task, epoch=f"epoch {run.epoch}/{run.epochs}", **_fields(run.logs), completed=run.epoch * run.steps_per_epoch)

    def on_train_end(self, run: Run) -> None:
        """The bar stays where it is."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _start_bar(self, run: Run) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar
        from rich.text import Text

        class TwoLines(Bar):  # in one line the numbers would not fit 80 columns
            def get_renderables(self) -> Iterator[Any]:
                yield self.make_tasks_table(self.tasks)
                yield from (Text(task.fields["numbers"], no_wrap=True, overflow="ellipsis") for task in self.tasks)

        self._total = run.epochs * run.steps_per_epoch
        columns = (TextColumn("{task.fields[epoch]}"), BarColumn(24), TextColumn("{task.fields[rate]}"), TimeRemainingColumn(), TextColumn(run.device))
        self._bar = TwoLines(*columns, console=Console(file=self.out, force_terminal=True if self.wants_bar else None))
        done = run.epoch * run.steps_per_epoch
        self._task = self._bar.add_task("", total=self._total, completed=done, epoch=f"epoch {run.epoch}/{run.epochs}", numbers="", rate="")
        self._bar.start()


def _fields(logs: dict[str, float]) -> dict[str, str]:
    """What a bar shows of the logs."""
    means, _, rate = numbers(logs).rpartition("  ")
    return {"numbers": means, "rate": rate}


def line(run: Run) -> str:
    """The line of an epoch, such as ``epoch  3/30  loss 0.1234  accuracy 0.9800  val_loss 0.2345  12,345 examples/s``."""
    return f"epoch {run.epoch:>{len(str(run.epochs))}}/{run.epochs}  {numbers(run.logs)}"


def numbers(logs: dict[str, float]) -> str:
    """The logs as text, without the gradients' norms."""
    parts = [f"{name} {_short(value)}" for name, value in as_numbers(logs).items() if name not in ("epoch", "lr", "examples_per_second") and "/" not in name]
    if "examples_per_second" in logs:
        parts.append(f"{logs['examples_per_second']:,.0f} examples/s")
    return "  ".join(parts)


def _short(value: float) -> str:
    return f"{value:.4f}" if 1e-3 <= abs(value) < 1e4 or value == 0 or not math.isfinite(value) else f"{value:.3e}"


class JsonLog(Callback):
    """A file with a line of JSON per epoch, written to the disk as it ends: ``{"epoch": 1, "step": 45, "loss": 0.25, ...}``. nan and infinities are null.

    A resumed run appends; the lines of epochs that it does again go first. Another run begins the file anew.

    Raises:
        OSError: the file cannot be written.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)

    def on_train_begin(self, run: Run) -> None:
        """Keep the lines of the epochs before."""
        kept = [text for text in _lines(self.path) if _epoch(text) <= run.epoch] if run.epoch else []
        os.makedirs(os.path.dirname(self.path) or ".", exist_ok=True)
        with io.replacing(self.path) as file:
            file.write("".join(kept).encode())

    def on_epoch_end(self, run: Run) -> None:
        """Append the epoch's line."""
        row = {"epoch": run.epoch, "step": run.step, **as_numbers(run.logs)}
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps({k: v if math.isfinite(v) else None for k, v in row.items()}, allow_nan=False) + "\n")


def _lines(path: str) -> list[str]:
    if not os.path.exists(path):
        return []
    with open(path, encoding="utf-8", errors="replace") as file:
        return [text for text in file if text.endswith("\n")]  # a line that was cut short is of an epoch that comes again


def _epoch(text: str) -> float:
    try:
        return float(json.loads(text)["epoch"])
    except (ValueError, TypeError, KeyError, RecursionError):
        return math.inf


class TensorBoardLog(Callback):
    """Event files for TensorBoard in ``folder``: every number of the logs, by epoch. Look at them with ``tensorboard --logdir FOLDER``.

    A resumed run tells TensorBoard to forget the epochs that it does again.

    Raises:
        ImportError: tensorboard is not installed, with the remedy.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = os.fspath(folder)
        self._writer: Any = None
        self._protocol()

    @staticmethod
    def _protocol() -> tuple[Any, Any, Any]:
        """TensorBoard's writer and the modules of its messages."""
        try:
            writer = importlib.import_module("tensorboard.summary.writer.event_file_writer")
            return writer.EventFileWriter, *(importlib.import_module(f"tensorboard.compat.proto.{name}_pb2") for name in ("event", "summary"))
        except ImportError as error:
            raise ImportError(
                f"TensorBoardLog needs tensorboard, which cannot be imported ({error}): pip install 'gpugrad[tensorboard]', or use JsonLog"
            ) from None

    def on_train_begin(self, run: Run) -> None:
        """Open a file."""
        make, self._event, self._summary = self._protocol()
        self._writer = make(self.folder)
        if run.epoch:
            restart = self._event.SessionLog(status=self._event.SessionLog.START)
            self._writer.add_event(self._event.Event(wall_time=time.time(), step=run.epoch + 1, session_log=restart))

    def on_epoch_end(self, run: Run) -> None:
        """The epoch's numbers."""
        values = [self._summary.Summary.Value(tag=_tag(name), simple_value=value) for name, value in as_numbers(run.logs).items() if name != "epoch"]
        self._writer.add_event(self._event.Event(wall_time=time.time(), step=run.epoch, summary=self._summary.Summary(value=values)))
        self._writer.flush()

    def on_train_end(self, run: Run) -> None:
        """Close the file."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def _tag(name: str) -> str:
    """val_loss beside loss: TensorBoard shows in one panel what has the same first part."""
    kind, bare = ("validation", name[4:]) if name.startswith("val_") else ("train", name)
    return name if "/" in name else f"{bare}/{kind}"
