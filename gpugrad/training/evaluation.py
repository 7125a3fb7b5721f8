"""Batches, and a model's predictions for them: without training it."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import numpy as np

from gpugrad import backend, nn, tree
from gpugrad.autograd import no_grad
from gpugrad.tape import plain
from gpugrad.training.history import Meter

Metrics = Mapping[str, Callable[[Any, Any], Any]]


def evaluate(
    model: nn.Module, loss: Callable[[Any, Any], Any], batches: Iterable[Any], metrics: Metrics | None = None, *, autocast: Any = None
) -> dict[str, float]:
    """The means of the loss and the metrics over all examples, in eval mode and without recording; the modules' ``training`` flags are restored.

    Raises:
        ValueError: there are no batches.
    """
    metrics, context = metrics or {}, autocast_factory(autocast)
    meter = Meter(["loss", *metrics], operator.length_hint(batches, 1))
    with flags_restored(model), no_grad():
        model.eval()
        for ((number, inputs, target),) in groups(batches, 1):
            with context():
                prediction = model(*inputs)
                value = loss(prediction, target)
            meter.put(number, rows_of(target), [one_number(value), *measured_by(metrics, prediction, target)])
    if not meter.examples:
        raise ValueError("evaluate: got no examples, expected at least one")
    return meter.means()


def predict(model: nn.Module, inputs: Iterable[Any], *, autocast: Any = None) -> Any:
    """The model's outputs for all batches, one after the other in one plain array on the model's device: in eval mode and without recording.

    ``inputs`` yields arrays, or tuples of them, which the model is called with; of a loader of ``(x, y)`` write ``(x for x, _ in loader)``. An array is one batch.

    Raises:
        ValueError: there are no batches.
    """
    context, outputs = autocast_factory(autocast), []
    if backend.is_array(plain(inputs)):
        inputs = [inputs]
    with flags_restored(model), no_grad():
        model.eval()
        for batch in inputs:
            with context():
                outputs.append(plain(model(*batch) if isinstance(batch, (tuple, list)) else model(batch)))
    if not outputs:
        raise ValueError("predict: got no batches, expected at least one")
    return backend.namespace(outputs[0]).concatenate(outputs)


# ------------------------------------------------------------------------------------------------- batches


def groups(batches: Iterable[Any], size: int) -> Iterator[list[tuple[int, Sequence[Any], Any]]]:
    """Lists of ``size`` batches, the last with those that are left: (number of the batch in the epoch, inputs, target)."""
    numbered = enumerate(batches)
    while group := list(itertools.islice(numbered, size)):
        yield [(number, *split(batch)) for number, batch in group]


def split(batch: Any) -> tuple[Sequence[Any], Any]:
    if not isinstance(batch, (tuple, list)) or len(batch) < 2:
        got = f"a {type(batch).__name__} of {len(batch)}" if isinstance(batch, (tuple, list)) else type(batch).__name__
        raise TypeError(f"a batch must be a tuple (inputs ..., target), got {got}; to learn the inputs themselves write TensorDataset(x, x)")
    return batch[:-1], batch[-1]


def rows_of(target: Any) -> int:
    """How many examples a batch has: the rows of its target, or of the first array in a nest of them."""
    return len(tree.flatten(target)[0][0] if isinstance(target, (dict, list, tuple)) else target)


def measured_by(metrics: Metrics, prediction: Any, target: Any) -> list[Any]:
    if not metrics:
        return []
    prediction = tree.map_leaves(plain, prediction)
    with no_grad():
        return [f(prediction, target) for f in metrics.values()]


def one_number(value: Any) -> Any:
    if getattr(value, "size", 1) != 1:
        raise ValueError(f"the loss of a batch must be one number, got shape {value.shape}: take its mean, reduction='mean'")
    return value.reshape(()) if getattr(value, "ndim", 0) else value


def autocast_factory(autocast: Any) -> Callable[[], AbstractContextManager[Any]]:
    if autocast is None:
        return nullcontext
    if not isinstance(autocast, (str, np.dtype, type)):
        return lambda: autocast
    from gpugrad import amp

    return lambda: amp.autocast(autocast)


@contextmanager
def flags_restored(model: nn.Module) -> Iterator[None]:
    flags = [(m, m.training) for m in model.modules()]
    try:
        yield
    finally:
        for m, training in flags:
            m.training = training
