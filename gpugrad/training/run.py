"""A training run as callbacks see it, and what a callback is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

from gpugrad import nn
from gpugrad.training.history import History, Meter


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
    allow_unused: bool = False
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
            unknown = [name for name in dir(c) if name.startswith("on_") and not hasattr(Callback, name)]
            if unknown:
                raise TypeError(
                    f"{type(c).__name__} has {unknown[0]}, which nobody calls; hooks are {', '.join(n for n in dir(Callback) if n.startswith('on_'))}"
                )

    def __call__(self, event: str, run: Run) -> None:
        for c in self.all:
            getattr(c, event)(run)

    @contextmanager
    def training(self, run: Run) -> Iterator[None]:
        """Begin, and at the end of the block end those that have begun."""
        begun = []
        try:
            for c in self.all:
                c.on_train_begin(run)
                begun.append(c)
            yield
        finally:
            for c in begun:
                c.on_train_end(run)

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
