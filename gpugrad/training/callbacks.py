"""Callbacks: what happens beside the training, at the beginning and end of it, of every epoch and of every step."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

from gpugrad import backend, nn
from gpugrad.optim.optimizer import as_real, total_norm
from gpugrad.training.history import History, Meter, as_numbers


class TrainingError(RuntimeError):
    """Training cannot go on. ``history`` has the epochs before."""

    history: History | None = None


@dataclass
class Run:
    """The state of a training run, as callbacks see it."""

    model: nn.Module
    loss: Any
    optimizer: Any
    epochs: int
    steps_per_epoch: int
    metrics: Mapping[str, Any] = field(default_factory=dict)
    schedule: Any = None
    scaler: Any = None
    ema: Any = None
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext
    epoch: int = 0  # of this epoch, from 1; before the first, how many a resumed run had done
    step: int = 0  # how many steps of the optimizer were done, in all epochs
    stop: bool = False  # set it to end the training after this epoch
    logs: dict[str, float] = field(default_factory=dict)  # of this epoch; callbacks may add to it
    history: History = field(default_factory=History)
    meter: Meter = field(default_factory=lambda: Meter([], 1))  # of the training batches of this epoch: meter.means() waits for the device

    def averaged(self) -> AbstractContextManager[Any]:
        """A context in which the model has its averaged weights, if there are any: those that are validated."""
        return nullcontext() if self.ema is None else self.ema.applied()

    @property
    def device(self) -> str:
        """Where the model's parameters are."""
        return next((p.device for p in self.model.parameters()), "cpu")

    def state_dict(self) -> dict[str, Any]:
        """How far it is."""
        return {"epoch": self.epoch, "step": self.step}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Be so far.

        Raises:
            ValueError: not two numbers.
        """
        epoch, step = state["epoch"], state["step"]
        if not all(type(n) is int and 0 <= n < 2**53 for n in (epoch, step)):
            raise ValueError(f"a run is in some epoch and step, got {epoch!r:.60} and {step!r:.60}")
        self.epoch, self.step = epoch, step


class Callback:
    """The base of callbacks: override what is of interest. One with state gives it in ``state_dict`` and takes it in ``load_state_dict``, for checkpoints."""

    def on_train_begin(self, run: Run) -> None:
        """Before the first epoch; ``run.epoch`` is the number of those that a resumed run had done, else 0."""

    def on_epoch_begin(self, run: Run) -> None:
        """``run.epoch`` counts from 1."""

    def on_step_end(self, run: Run) -> None:
        """After the optimizer's step ``run.step``; the parameters still have their gradients."""

    def on_epoch_end(self, run: Run) -> None:
        """After validation: ``run.logs`` is complete, and in ``run.history``. Then comes the checkpoint."""

    def on_train_end(self, run: Run) -> None:
        """At the end, in whatever way it came: after the last epoch, a stop, an error or Ctrl-C."""

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run must know: a nest of numbers, text and arrays."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there."""


class Callbacks:
    """Several callbacks as one."""

    def __init__(self, callbacks: Any) -> None:
        self.all: list[Callback] = [callbacks] if isinstance(callbacks, Callback) else list(callbacks)
        for c in self.all:
            if not isinstance(c, Callback):
                raise TypeError(f"a callback must be a gpugrad.training.Callback, got {c!r:.60}{': call it' if isinstance(c, type) else ''}")

    def __call__(self, event: str, run: Run) -> None:
        for c in self.all:
            getattr(c, event)(run)

    def named(self) -> Iterator[tuple[str, Callback]]:
        """(class and number, callback): a resumed run finds its callbacks by these names."""
        counts: dict[str, int] = {}
        for c in self.all:
            kind = type(c).__name__
            counts[kind] = counts.get(kind, -1) + 1
            yield f"{kind}.{counts[kind]}", c

    def state_dict(self) -> dict[str, Any]:
        """The states of those that have one."""
        return {name: state for name, c in self.named() if (state := c.state_dict())}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Give each its state; those that were not there before begin anew.

        Raises:
            ValueError: not states by name.
        """
        if not isinstance(state, Mapping):
            raise ValueError(f"the states of callbacks are a dict, got {state!r:.60}")
        for name, c in self.named():
            if name in state:
                c.load_state_dict(state[name])


class EarlyStopping(Callback):
    """End the training when ``monitor`` has not improved for ``patience`` epochs.

    Args:
        monitor: a name in the logs: "val_loss", "loss", "val_accuracy" ...
        patience: how many epochs without improvement are one too many, at least 1.
        min_delta: how much better than the best so far counts as improvement.
        mode: "min", "max", or "auto": "max" for names that end in accuracy, score, f1, auc, r2, precision or recall, otherwise "min".
        restore_best: at the end, however it comes, give the model the weights and buffers of its best epoch (the averaged ones, if averages were validated).

    nan is never an improvement. ``best`` and ``best_epoch`` say what was found; ``stopped_epoch`` is 0 unless it stopped the training.

    Raises:
        ValueError: an argument makes no sense.
        TrainingError: the logs have no such name.
    """

    def __init__(self, monitor: str = "val_loss", patience: int = 10, min_delta: float = 0.0, mode: str = "auto", restore_best: bool = True) -> None:
        if patience < 1:
            raise ValueError(f"patience must be at least 1 epoch, got {patience}")
        if not min_delta >= 0:
            raise ValueError(f"min_delta must be at least 0, got {min_delta}")
        self.monitor, self.patience, self.min_delta, self.mode, self.restore_best = monitor, patience, min_delta, direction(monitor, mode), restore_best
        self._reset()

    def _reset(self) -> None:
        self.best, self.best_epoch, self.waited, self.stopped_epoch = math.inf if self.mode == "min" else -math.inf, 0, 0, 0
        self.weights: dict[str, Any] | None = None

    def on_train_begin(self, run: Run) -> None:
        """Forget an earlier training, unless this one goes on from there."""
        if run.epoch == 0:
            self._reset()
        run.stop |= self.waited >= self.patience

    def on_epoch_end(self, run: Run) -> None:
        """Compare with the best so far."""
        if self.monitor not in run.logs:
            hint = ": give fit(validation=...)" if self.monitor.startswith("val_") else ""
            raise TrainingError(f"EarlyStopping monitors {self.monitor!r}, which is not in the logs{hint}; they have {', '.join(run.logs)}")
        value = as_numbers({self.monitor: run.logs[self.monitor]})[self.monitor]
        gain = self.best - value if self.mode == "min" else value - self.best
        if gain > self.min_delta:
            self.best, self.best_epoch, self.waited = value, run.epoch, 0
            if self.restore_best:
                with run.averaged():
                    self.weights = {path: t.data.copy() for path, t in run.model.state_dict().items()}
            return
        self.waited += 1
        if self.waited >= self.patience:
            run.stop, self.stopped_epoch = True, run.epoch

    def on_train_end(self, run: Run) -> None:
        """Back to the best weights."""
        if self.weights is not None:
            run.model.load_state_dict(self.weights)

    def state_dict(self) -> dict[str, Any]:
        """The best so far, its weights, and how long ago it was."""
        return {name: getattr(self, name) for name in ("monitor", "mode", "best", "best_epoch", "waited", "stopped_epoch", "weights")}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there, if it is about the same number; patience and the like may have been changed.

        Raises:
            ValueError: not such a state.
        """
        monitor, mode, best, *counts, weights = (state[name] for name in self.state_dict())
        if not isinstance(best, (int, float)) or not all(type(n) is int for n in counts) or not isinstance(weights, (dict, type(None))):
            raise ValueError(f"the state of EarlyStopping is numbers and weights, got {best!r:.60}, {counts!r:.60} and {type(weights).__name__}")
        if (monitor, mode) == (self.monitor, self.mode):
            self.best, (self.best_epoch, self.waited, self.stopped_epoch) = best, counts
            self.weights = weights if self.restore_best else None


def direction(monitor: str, mode: str) -> str:
    """ "min" or "max": which way a number of this name gets better.

    Raises:
        ValueError: ``mode`` is neither of them nor "auto".
    """
    if mode not in ("auto", "min", "max"):
        raise ValueError(f"mode must be 'auto', 'min' or 'max', got {mode!r}")
    rising = monitor.lower().endswith(("accuracy", "acc", "score", "f1", "auc", "r2", "precision", "recall"))
    return mode if mode != "auto" else "max" if rising else "min"


class GradientNorms(Callback):
    """The L2 norm of the gradient of every layer, in the logs as ``grad_norm/PATH``: whether gradients vanish or explode.

    Taken in the first step of every epoch, of the whole batch and before clipping by ``max_grad_norm``; it waits for the device once an epoch.
    """

    def __init__(self) -> None:
        self._due = False

    def on_epoch_begin(self, run: Run) -> None:
        """The next step is the first."""
        self._due = True

    def on_step_end(self, run: Run) -> None:
        """Measure, if it was the first of the epoch."""
        if self._due:
            self._due = False
            run.logs.update({f"grad_norm/{layer}": norm for layer, norm in gradient_norms(run.model).items()})


def gradient_norms(model: nn.Module) -> dict[str, float]:
    """The L2 norm of the gradients of every layer (what has parameters of its own) by path, in the order of the layers; one synchronisation."""
    layers: dict[str, list[Any]] = {}
    for path, p in model.named_parameters():
        if p.grad is not None:
            layers.setdefault(path.rpartition(".")[0] or "model", []).append(as_real(p.grad.data))
    norms = [total_norm(grads) for grads in layers.values()]
    values = backend.to_device(backend.namespace(norms[0]).stack(norms), "cpu") if norms else ()
    return {layer: float(v) for layer, v in zip(layers, values)}
