"""What can be wrong with a training run, and what to do about it."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from gpugrad import nn
from gpugrad.data import Subset, TensorDataset
from gpugrad.optim import HessianFree
from gpugrad.optim.norm import as_real, total_norm
from gpugrad.optim.vector import VectorOptimizer
from gpugrad.tape import Tensor, is_inexact, plain
from gpugrad.training.run import Run, TrainingError


def check_counts(**counts: Any) -> None:
    """Whole numbers of at least 1.

    Raises:
        ValueError: another.
    """
    for name, n in counts.items():
        if not isinstance(n, (int, np.integer)) or isinstance(n, bool) or n < 1:
            raise ValueError(f"{name} must be a whole number of at least 1, got {n!r}")


def check_batches(train: Any) -> None:
    """There are some, and it is known how many.

    Raises:
        TypeError: they have no length.
        ValueError: there are none.
    """
    if isinstance(train, (TensorDataset, Subset)):
        raise TypeError(f"train must be batches, got a {type(train).__name__}: wrap it, as in data.DataLoader(dataset, batch_size=32, shuffle=True)")
    if not hasattr(train, "__len__"):
        raise TypeError(f"train must have a length, the number of its batches, got {type(train).__name__}: use a gpugrad.data.DataLoader, or a list of batches")
    if len(train) == 0:
        raise ValueError("train has no batches: expected at least one")


def check_parts(model: Any, loss: Any, optimizer: Any, metrics: Any) -> None:
    """Each is what it is called, and the optimizer has parameters of the model.

    Raises:
        TypeError: one is something else.
        ValueError: the optimizer has parameters of another model.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a gpugrad.nn.Module, got {_described(model)}")
    if isinstance(loss, type) or not callable(loss) or hasattr(loss, "param_groups"):
        raise TypeError(f"loss must be a function of (prediction, target), such as nn.CrossEntropyLoss(), got {_described(loss)}")
    if isinstance(optimizer, type) or not hasattr(optimizer, "param_groups"):
        raise TypeError(f"optimizer must be an optimizer, such as optim.Adam(model.parameters()), got {_described(optimizer)}")
    if isinstance(optimizer, HessianFree):
        raise TypeError("HessianFree is given the outputs and the loss apart, which this loop cannot do: call optimizer.step(closure) in a loop of your own")
    if not isinstance(metrics, (Mapping, type(None))):
        raise TypeError(f"metrics must be a dict of functions by name, such as {{'accuracy': training.metrics.accuracy}}, got {_described(metrics)}")
    own = {id(p) for p in model.parameters()}
    if not any(id(p) in own for group in optimizer.param_groups for p in group["params"]):
        raise ValueError("the optimizer has none of the model's parameters, so nothing would be trained: make it of model.parameters()")


def _described(x: Any) -> str:
    return f"the class {x.__name__}: call it" if isinstance(x, type) else type(x).__name__


def check_schedule(schedule: Any, every: str, optimizer: Any) -> None:
    """A schedule is of this optimizer, and what it wants to know is known when it is stepped.

    Raises:
        TypeError: it is no schedule.
        ValueError: it is not of this optimizer, or ``every`` is neither "epoch" nor "step".
    """
    if every not in ("epoch", "step"):
        raise ValueError(f"schedule_every must be 'epoch' or 'step', got {every!r}")
    if schedule is not None and (isinstance(schedule, type) or not hasattr(schedule, "step")):
        raise TypeError(f"schedule must be a schedule of optim.lr_scheduler, made of the optimizer, got {_described(schedule)}")
    if getattr(schedule, "optimizer", optimizer) is not optimizer:
        raise ValueError("the schedule is that of another optimizer, whose rates alone it would change: make it of this one")
    if schedule is not None and every == "step" and wants_metric(schedule):
        raise ValueError(f"{type(schedule).__name__} is given a number that is known once an epoch: schedule_every must be 'epoch', got 'step'")


def check_gradients(optimizer: Any, scaler: Any, max_grad_norm: Any) -> None:
    """What is done with the gradients goes together.

    Raises:
        ValueError: it does not.
    """
    if max_grad_norm is not None and not max_grad_norm > 0:
        raise ValueError(f"max_grad_norm must be a positive number or None, got {max_grad_norm!r}")
    if wants_closure(optimizer) and not (scaler is None and max_grad_norm is None):
        option = "scaler" if scaler is not None else "max_grad_norm"
        raise ValueError(f"{type(optimizer).__name__} evaluates the loss several times in a step, and needs its gradients as they are: {option} must be None")


def needs_argument(step: Callable[..., Any]) -> bool:
    """Whether an optimizer's step needs a closure, or a schedule's a number: its first parameter has no default."""
    parameters = [p for p in inspect.signature(step).parameters.values() if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return bool(parameters) and parameters[0].default is inspect.Parameter.empty


def wants_closure(optimizer: Any) -> bool:
    """Whether an optimizer evaluates the loss itself."""
    return isinstance(optimizer, VectorOptimizer) or needs_argument(optimizer.step)


def wants_metric(schedule: Any) -> bool:
    """Whether a schedule goes by how the training goes."""
    return getattr(schedule, "needs_metric", None) or needs_argument(schedule.step)


def check_loss(value: Any) -> None:
    """A loss has a derivative.

    Raises:
        TypeError: it is not a Tensor.
    """
    if type(value) is not Tensor:
        raise TypeError(
            f"the loss must be a Tensor that depends on the parameters, got {type(value).__name__}: compute it from the prediction, without .data or float()"
        )


def check_losses(run: Run, losses: np.ndarray, accumulate: int) -> None:
    """The losses of an epoch's batches are numbers.

    Raises:
        TrainingError: there are none, or one is nan or infinite: the step is named.
    """
    if len(losses) == 0:
        raise TrainingError(f"epoch {run.epoch}: the training data yielded no batches; what can be iterated once only, such as a generator, must be a list")
    wrong = np.flatnonzero(~np.isfinite(losses))
    if len(wrong):
        step = wrong[0] // accumulate + 1
        raise TrainingError(f"the loss became {losses[wrong[0]]} in epoch {run.epoch}, step {step} of {run.steps_per_epoch}: {_remedy(run)}")


def check_weights(run: Run) -> None:
    """The last step of an epoch can spoil the weights without spoiling a loss: such ones are not to take the place of good ones in a checkpoint.

    Raises:
        TrainingError: a weight is nan or infinite.
    """
    norm = float(total_norm([as_real(p.data) for p in run.model.parameters() if is_inexact(p.dtype)]))
    if not math.isfinite(norm):
        raise TrainingError(f"the norm of the weights became {norm} in the last step of epoch {run.epoch}: {_remedy(run)}")


def _remedy(run: Run) -> str:
    lr = float(plain(run.optimizer.param_groups[0]["lr"]))
    return f"try a smaller learning rate (it is {lr:g}) or max_grad_norm=1.0, and look for nan in the data; gpugrad.detect_anomaly() names the operation"
