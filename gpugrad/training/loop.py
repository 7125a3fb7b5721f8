"""The training loop. :func:`fit` and :func:`train_epoch` are all of it; the rest of this file is what they call."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from gpugrad import nn, random
from gpugrad.tape import plain
from gpugrad.training.checkpoint import CheckpointError, checkpoints, find_latest, prepare, restore, save_checkpoint
from gpugrad.training.checks import (
    check_batches,
    check_counts,
    check_gradients,
    check_loss,
    check_losses,
    check_parts,
    check_schedule,
    check_weights,
    wants_closure,
    wants_metric,
)
from gpugrad.training.evaluation import Metrics, autocast_factory, evaluate, flags_restored, groups, measured_by, one_number, rows_of
from gpugrad.training.history import History, Meter, as_numbers
from gpugrad.training.run import Callback, Callbacks, Run, TrainingError


def fit(
    model: nn.Module,
    loss: Callable[[Any, Any], Any],
    optimizer: Any,
    train: Iterable[Any],
    *,
    validation: Iterable[Any] | None = None,
    epochs: int,
    metrics: Metrics | None = None,
    schedule: Any = None,
    schedule_every: str = "epoch",
    monitor: str | None = None,
    accumulate: int = 1,
    max_grad_norm: float | None = None,
    autocast: Any = None,
    scaler: Any = None,
    ema: Any = None,
    allow_unused: bool = False,
    callbacks: Iterable[Callback] = (),
    checkpoint: str | None = None,
    checkpoint_every: int = 1,
    keep: int | None = 3,
    resume: bool = False,
) -> History:
    """Train ``model`` by descent on ``loss``::

        history = training.fit(model, nn.CrossEntropyLoss(), optim.AdamW(model.parameters()), DataLoader(train, 32, shuffle=True),
                               validation=DataLoader(held_out, 256), epochs=30, metrics={"accuracy": training.metrics.accuracy},
                               callbacks=[training.Progress(), training.EarlyStopping()], checkpoint="run", resume=True)

    Args:
        loss: ``loss(prediction, target)``, the mean over a batch: a Tensor of one element.
        train, validation: what yields batches and has a length, such as a :class:`gpugrad.data.DataLoader`. A batch is a tuple ``(x, y)``, or
            ``(*inputs, target)`` for a model of several inputs, on the model's device.
        metrics: by name, ``f(prediction, target)``: the mean over a batch. In the logs are the means over all examples, where a batch counts with its rows, also if
            the loss has left some of them out (``ignore_index``) or weighted them.
        schedule: a learning rate schedule, stepped every "epoch" or every "step" (``schedule_every``). One that is given a number, such as
            ``ReduceLROnPlateau``, is given the log ``monitor``: "val_loss" unless stated, without validation "loss".
        accumulate: how many batches make a step of the optimizer: the gradient is that of the mean over all their examples. The last step of an
            epoch has those that are left.
        max_grad_norm: gradients are clipped to this norm in the optimizer's step; those in ``.grad`` stay as they are.
        autocast: "bfloat16", "float16" or a :class:`gpugrad.amp.autocast`, in which predictions and losses are computed.
        scaler: a :class:`gpugrad.amp.GradScaler`.
        ema: a :class:`gpugrad.optim.ExponentialMovingAverage`, updated after every step. Validation is with the averaged weights, and so are the best weights
            of ``EarlyStopping``; otherwise the model ends with its own, and ``with ema.applied():`` has the averages.
        allow_unused: False raises at the first step where the loss does not depend on a parameter; see :func:`gpugrad.nn.check_parameters_used`.
        checkpoint: a directory for checkpoints, written after every ``checkpoint_every`` epochs and at the end, of which the last ``keep`` are kept.
        resume: go on from the latest good checkpoint as if training had never stopped, bit for bit, given the same arguments (``epochs`` may be larger); without a
            checkpoint begin at the beginning. Generators of your own, other than those of loaders and :mod:`gpugrad.random`, are not in a checkpoint.

    An optimizer whose ``step`` needs a closure, such as L-BFGS, gets one, which may be called several times for each group of batches.

    Returns:
        the history of all epochs, those before a resumption included. The modules' ``training`` flags are afterwards what they were.

    Raises:
        TrainingError: the loss became nan or infinite; epoch, step and remedy are named. The last checkpoint is from before.
        CheckpointError: a checkpoint cannot be written, or does not fit what is resumed.
        KeyboardInterrupt: passed on after the callbacks' ``on_train_end``; the last checkpoint is untouched. Like the two above it carries the history of
            the epochs that were completed as ``error.history``.
        RuntimeError: the loss does not depend on a parameter, unless ``allow_unused``.
        ValueError, TypeError: arguments that make no sense; they are found before the first step.
    """
    check_counts(epochs=epochs, accumulate=accumulate, checkpoint_every=checkpoint_every, keep=1 if keep is None else keep)
    check_parts(model, loss, optimizer, metrics)
    check_batches(train)
    check_schedule(schedule, schedule_every, optimizer)
    check_gradients(optimizer, scaler, max_grad_norm)
    if resume and checkpoint is None:
        raise ValueError("resume=True needs the directory of the checkpoints: fit(..., checkpoint=...)")
    steps = math.ceil(len(train) / accumulate)  # type: ignore[arg-type]
    run = Run(model, loss, optimizer, epochs, steps, metrics or {}, schedule, scaler, ema, autocast=autocast_factory(autocast), allow_unused=allow_unused)
    hooks = Callbacks(callbacks)
    parts = {
        "model": model, "optimizer": optimizer, "schedule": schedule, "scaler": scaler, "ema": ema, "generator": random.default_generator,
        "train": _stateful(train), "validation": _stateful(validation), "callbacks": hooks, "history": run.history, "run": run,
    }  # fmt: skip
    if checkpoint is not None:
        _open_checkpoints(checkpoint, parts, resume)

    with _restored(model, optimizer, max_grad_norm), _with_history(run), hooks.training(run):
        while run.epoch < epochs and not run.stop:
            run.epoch += 1
            run.logs = {"epoch": run.epoch}
            hooks("on_epoch_begin", run)
            measured = train_epoch(run, train, accumulate, schedule if schedule_every == "step" else None, hooks)
            if validation is not None:
                with run.averaged():
                    measured |= {f"val_{name}": v for name, v in evaluate(model, loss, validation, metrics, autocast=autocast).items()}
            run.logs = {"epoch": run.epoch, **measured, **run.logs}
            run.history.rows.append(run.logs)
            if schedule is not None and schedule_every == "epoch":
                schedule.step(*[_monitored(run, monitor)] if wants_metric(schedule) else [])
            hooks("on_epoch_end", run)
            run.logs.update(as_numbers(run.logs))
            if checkpoint is not None and (run.epoch % checkpoint_every == 0 or run.epoch == epochs or run.stop):
                check_weights(run)
                save_checkpoint(checkpoint, run.epoch, keep=keep, **parts)
    return run.history


def train_epoch(run: Run, batches: Iterable[Any], accumulate: int, schedule: Any, hooks: Callbacks) -> dict[str, float]:
    """One pass over the training batches; returns the means over its examples. The host waits for the device once, at the end."""
    start, closure = time.perf_counter(), wants_closure(run.optimizer)
    backward = not getattr(run.optimizer, "differentiates", False)
    run.model.train()
    run.meter = meter = Meter(["loss", *run.metrics], len(batches))  # type: ignore[arg-type]
    for group in groups(batches, accumulate):
        examples = sum(rows_of(target) for _, _, target in group)

        def gradients(group: Any = group, examples: int = examples) -> Any:
            """The mean loss over the group, and its gradient in the parameters, unless the optimizer sees to that."""
            run.optimizer.zero_grad()
            total: Any = None
            for number, inputs, target in group:
                with run.autocast():
                    prediction = run.model(*inputs)
                    value = one_number(run.loss(prediction, target))
                check_loss(value)
                if not (run.step or run.allow_unused):
                    nn.check_parameters_used(run.model, value)
                share = value if len(group) == 1 else value * (rows_of(target) / examples)
                if backward:
                    (share if run.scaler is None else run.scaler.scale(share)).backward()
                    share = share.detach()
                meter.put(number, rows_of(target), [value, *measured_by(run.metrics, prediction, target)])
                total = share if total is None else total + share
            return total

        if closure:
            run.optimizer.step(gradients)
        elif run.scaler is not None:
            gradients()
            run.scaler.step(run.optimizer)
            run.scaler.update()
        else:
            gradients()
            run.optimizer.step()
        if run.ema is not None:
            run.ema.update()
        lr = plain(run.optimizer.param_groups[0]["lr"]) * 1.0  # a copy: a schedule writes into a rate that lies on the device
        if schedule is not None:
            schedule.step()
        run.step += 1
        hooks("on_step_end", run)
    table = meter.table()
    check_losses(run, table[:, 0], accumulate)
    return {**meter.means(table), "lr": float(lr), "examples_per_second": meter.examples / (time.perf_counter() - start)}


# ------------------------------------------------------------------------------------------------- around the loop


def _monitored(run: Run, monitor: str | None) -> float:
    name = monitor or ("val_loss" if "val_loss" in run.logs else "loss")
    if name not in run.logs:
        raise TrainingError(f"the schedule is to be given {name!r}, which is not in the logs; they have {', '.join(run.logs)}")
    return run.logs[name]


def _stateful(loader: Any) -> Any:
    return loader if hasattr(loader, "state_dict") and hasattr(loader, "load_state_dict") else None


def _open_checkpoints(directory: str, parts: Mapping[str, Any], resume: bool) -> None:
    prepare(directory)
    present = checkpoints(directory)
    if present and not resume:
        raise CheckpointError(
            f"{directory!r} holds checkpoints of another training, the latest {present[-1]!r}: go on with it by resume=True, or give another directory"
        )
    if not present:
        return
    if (latest := find_latest(directory)) is None:
        raise CheckpointError(f"none of the checkpoints in {directory!r} can be read: give another directory, or remove them to start anew")
    path, content = latest
    if surplus := [name for name in content["state"] if parts.get(name) is None]:
        raise CheckpointError(f"{path!r} was made with {', '.join(surplus)}: give fit the same arguments as before")
    restore(path, content, parts)


@contextmanager
def _restored(model: nn.Module, optimizer: Any, max_grad_norm: float | None) -> Iterator[None]:
    before = getattr(optimizer, "max_grad_norm", None)
    try:
        if max_grad_norm is not None:
            optimizer.max_grad_norm = max_grad_norm
        with flags_restored(model):
            yield
    finally:
        if max_grad_norm is not None:
            optimizer.max_grad_norm = before


@contextmanager
def _with_history(run: Run) -> Iterator[None]:
    try:
        yield
    except (TrainingError, CheckpointError, KeyboardInterrupt) as error:
        error.history = run.history  # type: ignore[union-attr]
        raise
