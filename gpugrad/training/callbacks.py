"""Callbacks that act on the training or look into it: early stopping, the norms of gradients."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from gpugrad import backend, nn
from gpugrad.optim.norm import as_real, total_norm
from gpugrad.training.history import as_numbers
from gpugrad.training.run import Callback, Run, TrainingError


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
