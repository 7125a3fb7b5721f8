"""The training loop. :func:`fit` and :func:`train_epoch` are all of it; the rest of this file is what they call."""

from __future__ import annotations

import inspect
import itertools
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import numpy as np

from gpugrad import backend, nn, random, tree
from gpugrad.autograd import no_grad
from gpugrad.tape import plain
from gpugrad.training.callbacks import Callback, Callbacks, Run, TrainingError
from gpugrad.training.checkpoint import CheckpointError, latest_checkpoint, load_checkpoint, prepare, save_checkpoint
from gpugrad.training.history import History, Meter

Metrics = Mapping[str, Callable[[Any, Any], Any]]


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
        metrics: by name, ``f(prediction, target)``: the mean over a batch. In the logs is the mean over the examples.
        schedule: a learning rate schedule, stepped every "epoch" or every "step" (``schedule_every``). One that is given a number, such as
            ``ReduceLROnPlateau``, is given the log ``monitor``: "val_loss" unless stated, without validation "loss".
        accumulate: how many batches make a step of the optimizer: the gradient is that of the mean over all their examples. The last step of an
            epoch has those that are left.
        max_grad_norm: gradients are clipped to this norm in the optimizer's step; those in ``.grad`` stay as they are.
        autocast: "bfloat16", "float16" or a :class:`gpugrad.amp.autocast`, in which predictions and losses are computed.
        scaler: a :class:`gpugrad.amp.GradScaler`.
        ema: a :class:`gpugrad.optim.ExponentialMovingAverage`, updated after every step. Validation is with the averaged weights, and so are the best weights
            of ``EarlyStopping``; otherwise the model ends with its own, and ``with ema.applied():`` has the averages.
        checkpoint: a directory for checkpoints, written after every ``checkpoint_every`` epochs and at the end, of which the last ``keep`` are kept.
        resume: go on from the latest good checkpoint as if training had never stopped, bit for bit, given the same arguments (``epochs`` may be larger); without a
            checkpoint begin at the beginning. Generators of your own, other than those of loaders and :mod:`gpugrad.random`, are not in a checkpoint.

    An optimizer whose ``step`` needs a closure, such as L-BFGS, gets one, which may be called several times for each group of batches.

    Returns:
        the history of all epochs, those before a resumption included. The modules' ``training`` flags are afterwards what they were.

    Raises:
        TrainingError: the loss became nan or infinite; epoch, step and remedy are named. The last checkpoint is from before.
        CheckpointError: a checkpoint cannot be written, or does not fit what is resumed.
        KeyboardInterrupt: passed on after the callbacks' ``on_train_end``; the last checkpoint is untouched. It and ``TrainingError`` carry the history of
            the epochs that were completed as ``error.history``.
        ValueError, TypeError: arguments that make no sense; they are found before the first step.
    """
    _check(train, epochs, accumulate, schedule, schedule_every, checkpoint, checkpoint_every, keep, resume, scaler, optimizer)
    steps = math.ceil(len(train) / accumulate)  # type: ignore[arg-type]
    run = Run(model, loss, optimizer, epochs, steps, metrics or {}, schedule, scaler, ema, autocast=_factory(autocast))
    hooks = Callbacks(callbacks)
    parts = {
        "model": model, "optimizer": optimizer, "schedule": schedule, "scaler": scaler, "ema": ema, "generator": random.default_generator,
        "train": _stateful(train), "validation": _stateful(validation), "callbacks": hooks, "history": run.history, "run": run,
    }  # fmt: skip
    if checkpoint is not None:
        _open_checkpoints(checkpoint, parts, resume)

    with _restored(model, optimizer, max_grad_norm), _with_history(run), _ended(hooks, run):
        hooks("on_train_begin", run)
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
                schedule.step(*[_monitored(run, monitor)] if _wants_metric(schedule) else [])
            hooks("on_epoch_end", run)
            if checkpoint is not None and (run.epoch % checkpoint_every == 0 or run.epoch == epochs or run.stop):
                save_checkpoint(checkpoint, run.epoch, keep=keep, **parts)
    return run.history


def train_epoch(run: Run, batches: Iterable[Any], accumulate: int, schedule: Any, hooks: Callbacks) -> dict[str, float]:
    """One pass over the training batches; returns the means over its examples. The host waits for the device once, at the end."""
    start, wants_closure = time.perf_counter(), _needs_argument(run.optimizer.step)
    run.model.train()
    run.meter = meter = Meter(["loss", *run.metrics], len(batches))  # type: ignore[arg-type]
    for group in _groups(batches, accumulate):
        examples = sum(len(target) for _, _, target in group)

        def gradients(group: Any = group, examples: int = examples) -> Any:
            """The mean loss over the group, and its gradient in the parameters."""
            run.optimizer.zero_grad()
            total: Any = 0.0
            for number, inputs, target in group:
                with run.autocast():
                    prediction = run.model(*inputs)
                    value = _scalar(run.loss(prediction, target))
                share = value if len(group) == 1 else value * (len(target) / examples)
                (share if run.scaler is None else run.scaler.scale(share)).backward()
                meter.put(number, len(target), [value, *_measured(run.metrics, prediction, target)])
                total = total + share.detach()
            return total

        if wants_closure:
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
        lr = run.optimizer.param_groups[0]["lr"]
        if schedule is not None:
            schedule.step()
        run.step += 1
        hooks("on_step_end", run)
    table = meter.table()
    _check_finite(run, table[:, 0], accumulate)
    return {**meter.means(table), "lr": float(plain(lr)), "examples_per_second": meter.examples / (time.perf_counter() - start)}


def evaluate(
    model: nn.Module, loss: Callable[[Any, Any], Any], batches: Iterable[Any], metrics: Metrics | None = None, *, autocast: Any = None
) -> dict[str, float]:
    """The means of the loss and the metrics over all examples, in eval mode and without recording; the modules' ``training`` flags are restored."""
    metrics, context = metrics or {}, _factory(autocast)
    meter = Meter(["loss", *metrics], len(batches))  # type: ignore[arg-type]
    with _flags_restored(model), no_grad():
        model.eval()
        for ((number, inputs, target),) in _groups(batches, 1):
            with context():
                prediction = model(*inputs)
                value = loss(prediction, target)
            meter.put(number, len(target), [_scalar(value), *_measured(metrics, prediction, target)])
    return meter.means()


def predict(model: nn.Module, inputs: Iterable[Any], *, autocast: Any = None) -> Any:
    """The model's outputs for all batches, one after the other in one plain array on the model's device: in eval mode and without recording.

    ``inputs`` yields arrays, or tuples of them, which the model is called with; of a loader of ``(x, y)`` write ``(x for x, _ in loader)``.
    """
    context, outputs = _factory(autocast), []
    with _flags_restored(model), no_grad():
        model.eval()
        for batch in inputs:
            with context():
                outputs.append(plain(model(*batch) if isinstance(batch, (tuple, list)) else model(batch)))
    if not outputs:
        raise ValueError("predict: got no batches, expected at least one")
    return backend.namespace(outputs[0]).concatenate(outputs)


# ------------------------------------------------------------------------------------------------- batches


def _groups(batches: Iterable[Any], size: int) -> Iterator[list[tuple[int, Sequence[Any], Any]]]:
    """Lists of ``size`` batches, the last with those that are left: (number of the batch in the epoch, inputs, target)."""
    numbered = enumerate(batches)
    while group := list(itertools.islice(numbered, size)):
        yield [(number, *_split(batch)) for number, batch in group]


def _split(batch: Any) -> tuple[Sequence[Any], Any]:
    if not isinstance(batch, (tuple, list)) or len(batch) < 2:
        got = f"a {type(batch).__name__} of {len(batch)}" if isinstance(batch, (tuple, list)) else type(batch).__name__
        raise TypeError(f"a batch must be a tuple (inputs ..., target), got {got}; to learn the inputs themselves write TensorDataset(x, x)")
    return batch[:-1], batch[-1]


def _measured(metrics: Metrics, prediction: Any, target: Any) -> list[Any]:
    if not metrics:
        return []
    prediction = tree.map_leaves(plain, prediction)
    with no_grad():
        return [f(prediction, target) for f in metrics.values()]


def _scalar(value: Any) -> Any:
    if getattr(value, "size", 1) != 1:
        raise ValueError(f"the loss of a batch must be one number, got shape {value.shape}: take its mean, reduction='mean'")
    return value.reshape(()) if getattr(value, "ndim", 0) else value


def _check_finite(run: Run, losses: np.ndarray, accumulate: int) -> None:
    if len(losses) == 0:
        raise TrainingError(f"epoch {run.epoch}: the training data yielded no batches; a loader that is used up must be made anew for every epoch")
    wrong = np.flatnonzero(~np.isfinite(losses))
    if len(wrong):
        lr = float(plain(run.optimizer.param_groups[0]["lr"]))
        raise TrainingError(
            f"the loss became {losses[wrong[0]]} in epoch {run.epoch}, step {wrong[0] // accumulate + 1} of {run.steps_per_epoch}: "
            f"try a smaller learning rate (it is {lr:g}) or max_grad_norm=1.0, and look for nan in the data; gpugrad.detect_anomaly() names the operation"
        )


# ------------------------------------------------------------------------------------------------- around the loop


def _check(
    train: Any,
    epochs: Any,
    accumulate: Any,
    schedule: Any,
    every: str,
    checkpoint: Any,
    checkpoint_every: Any,
    keep: Any,
    resume: bool,
    scaler: Any,
    optimizer: Any,
) -> None:
    for name, n in (("epochs", epochs), ("accumulate", accumulate), ("checkpoint_every", checkpoint_every), ("keep", 1 if keep is None else keep)):
        if not isinstance(n, (int, np.integer)) or n < 1:
            raise ValueError(f"{name} must be a whole number of at least 1, got {n!r}")
    if not hasattr(train, "__len__"):
        raise TypeError(f"train must have a length, the number of its batches, got {type(train).__name__}: use a gpugrad.data.DataLoader, or a list of batches")
    if len(train) == 0:
        raise ValueError("train has no batches; with drop_last=True a DataLoader needs at least batch_size examples")
    if every not in ("epoch", "step"):
        raise ValueError(f"schedule_every must be 'epoch' or 'step', got {every!r}")
    if schedule is not None and every == "step" and _wants_metric(schedule):
        raise ValueError(f"{type(schedule).__name__} is given a number that is known once an epoch: schedule_every must be 'epoch', got 'step'")
    if scaler is not None and _needs_argument(optimizer.step):
        raise ValueError(f"{type(optimizer).__name__} calls its closure several times in a step, which a gradient scaler cannot follow: use scaler=None")
    if resume and checkpoint is None:
        raise ValueError("resume=True needs the directory of the checkpoints: fit(..., checkpoint=...)")


def _needs_argument(step: Callable[..., Any]) -> bool:
    """Whether an optimizer's step needs a closure, or a schedule's a number: its first parameter has no default."""
    parameters = [p for p in inspect.signature(step).parameters.values() if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return bool(parameters) and parameters[0].default is inspect.Parameter.empty


def _wants_metric(schedule: Any) -> bool:
    return getattr(schedule, "needs_metric", None) or _needs_argument(schedule.step)


def _monitored(run: Run, monitor: str | None) -> float:
    name = monitor or ("val_loss" if "val_loss" in run.logs else "loss")
    if name not in run.logs:
        raise TrainingError(f"the schedule is to be given {name!r}, which is not in the logs; they have {', '.join(run.logs)}")
    return run.logs[name]


def _factory(autocast: Any) -> Callable[[], AbstractContextManager[Any]]:
    if autocast is None:
        return nullcontext
    if not isinstance(autocast, (str, np.dtype, type)):
        return lambda: autocast
    from gpugrad import amp

    return lambda: amp.autocast(autocast)


def _stateful(loader: Any) -> Any:
    return loader if hasattr(loader, "state_dict") and hasattr(loader, "load_state_dict") else None


def _open_checkpoints(directory: str, parts: Mapping[str, Any], resume: bool) -> None:
    prepare(directory)
    latest = latest_checkpoint(directory)
    if latest is not None and not resume:
        raise CheckpointError(
            f"{directory!r} holds checkpoints of another training, the latest {latest!r}: go on with it by resume=True, or give another directory"
        )
    if latest is not None:
        held = load_checkpoint(latest, **parts)
        if surplus := [name for name in held if parts.get(name) is None]:
            raise CheckpointError(f"{latest!r} was made with {', '.join(surplus)}: give fit the same arguments as before")


@contextmanager
def _flags_restored(model: nn.Module) -> Iterator[None]:
    flags = [(m, m.training) for m in model.modules()]
    try:
        yield
    finally:
        for m, training in flags:
            m.training = training


@contextmanager
def _restored(model: nn.Module, optimizer: Any, max_grad_norm: float | None) -> Iterator[None]:
    before = getattr(optimizer, "max_grad_norm", None)
    try:
        if max_grad_norm is not None:
            optimizer.max_grad_norm = max_grad_norm
        with _flags_restored(model):
            yield
    finally:
        if max_grad_norm is not None:
            optimizer.max_grad_norm = before


@contextmanager
def _with_history(run: Run) -> Iterator[None]:
    try:
        yield
    except (TrainingError, KeyboardInterrupt) as error:
        error.history = run.history  # type: ignore[union-attr]
        raise


@contextmanager
def _ended(hooks: Callbacks, run: Run) -> Iterator[None]:
    try:
        yield
    finally:
        hooks("on_train_end", run)
