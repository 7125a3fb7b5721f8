"""The exponential moving average of a model's weights, which often generalises better than the weights themselves."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
from numpy import ndarray

from gpugrad import backend, tape
from gpugrad.kernels.optimizers import sgd
from gpugrad.nn.module import Module
from gpugrad.ops.fit import is_half
from gpugrad.optim.optimizer import as_real
from gpugrad.tape import Tensor, is_inexact


class ExponentialMovingAverage:
    """``average = decay average + (1 - decay) weight``, with each :meth:`update`, which belongs behind ``optimizer.step()``::

        ema = optim.ExponentialMovingAverage(model, decay=0.999)
        for x, y in loader:
            ...
            optimizer.step()
            ema.update()
        with ema.applied():
            evaluate(model)

    Buffers of floats, such as the running statistics of a batch norm, are averaged like weights, so that they belong to the same stretch of training; other
    buffers are copied. What does not change keeps its bits. 16-bit weights have averages in float32, in which small steps are not lost.

    Args:
        model_or_params: a module, or Tensors.
        decay: in [0, 1]; about the last 1 / (1 - decay) updates count.
        warmup: n > 1 makes the decay at most (1 + t) / (n + t) behind t updates, so that the first weights, which are random, are soon forgotten: about the last
            t / (n - 1) updates count at first. True is 10.

    Polyak and Juditsky, "Acceleration of stochastic approximation by averaging" (1992), for the idea.
    """

    def __init__(self, model_or_params: Module | Iterable[Tensor], decay: float = 0.999, *, warmup: bool | int = False) -> None:
        if not 0 <= decay <= 1:
            raise ValueError(f"invalid decay: got {decay}, expected a number from 0 to 1")
        self.warmup = 10 if warmup is True else int(warmup)
        if self.warmup < 0 or self.warmup == 1:
            raise ValueError(f"invalid warmup: got {warmup}, expected False, True or a number greater than 1")
        self.source = model_or_params if isinstance(model_or_params, Module) else _checked(model_or_params)
        self.decay = decay
        self.updates = 0
        self.averages = {name: _start(t.data) for name, t in _tensors(self.source).items()}
        self._is_applied = False
        if not self.averages:
            raise ValueError("ExponentialMovingAverage got no parameters")

    def update(self) -> None:
        """Take the weights as they are now into the average: one pass over all of them, and no waiting for a GPU.

        Raises:
            RuntimeError: in ``with ema.applied()``; or a weight has another shape, dtype or device than its average.
        """
        if self._is_applied:
            raise RuntimeError("update() inside 'with ema.applied()', where the weights are the averages: leave the block first")
        decay = min(self.decay, (1 + self.updates) / (self.warmup + self.updates)) if self.warmup else self.decay
        together: dict[Any, tuple[list[Any], list[Any]]] = {}
        for name, t in _tensors(self.source).items():
            average, weight = self._average_of(name, t), t.data
            if not is_inexact(weight.dtype):
                average[...] = weight
            else:
                key = average.dtype, None if type(average) is ndarray else backend.device_of(average)
                averages, weights = together.setdefault(key, ([], []))
                averages.append(as_real(average))
                weights.append(as_real(weight).astype(as_real(average).dtype, copy=False))
        for averages, weights in together.values():
            with nullcontext() if type(averages[0]) is ndarray else averages[0].device:
                # the gradient of 1/2 (average - weight)^2 is average - weight: a step of length 1 - decay
                sgd(averages, weights, None, lr=1.0 - decay, weight_decay=1.0, maximize=True)
        tape.mark_mutated(*self.averages.values())
        self.updates += 1

    def _average_of(self, name: str, t: Tensor) -> Any:
        average = self.averages.get(name)
        if average is None:
            raise RuntimeError(f"{name} has no average: the model has changed since ExponentialMovingAverage was made; make another")
        if (t.shape, _dtype(t.dtype), backend.device_of(t.data)) != (average.shape, average.dtype, backend.device_of(average)):
            raise RuntimeError(
                f"{name}: its average is of shape {average.shape}, {average.dtype} on {backend.device_of(average)}, but the weight is now of shape {t.shape}, "
                f"{t.dtype} on {backend.device_of(t.data)}: make the average behind model.to(...)"
            )
        return average

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Inside the block the model has the averages as its weights; behind it, also behind an exception, its own again. Nothing is copied.

        For evaluating and saving. What is written into the weights inside the block is written into the averages.
        """
        tensors = _tensors(self.source)
        averages = {name: self._average_of(name, t).astype(t.dtype, copy=False) for name, t in tensors.items()}
        kept, was_applied = {name: t.value for name, t in tensors.items()}, self._is_applied
        self._is_applied = True
        try:
            for name, t in tensors.items():
                t.value = averages[name]
            yield
        finally:
            for name, t in tensors.items():
                t.value = kept[name]
            self._is_applied = was_applied

    def copy_to(self, model_or_params: Module | Iterable[Tensor] | None = None) -> None:
        """Write the averages into the model, or into another one with the same names; other parameters by their order.

        Raises:
            ValueError: names or shapes do not fit; nothing has been changed.
        """
        source = self.source if model_or_params is None else model_or_params if isinstance(model_or_params, Module) else _checked(model_or_params)
        tensors = _tensors(source)
        self._check({name: t.shape for name, t in tensors.items()})
        for name, t in tensors.items():
            array = t.data
            with nullcontext() if type(array) is ndarray else array.device:
                array[...] = backend.to_device(self.averages[name], t.device)
            tape.mark_mutated(array)

    def state_dict(self) -> dict[str, Any]:
        """``{"updates": how many there were, "averages": Tensors by name}``, sharing memory."""
        return {"updates": self.updates, "averages": {name: Tensor(a) for name, a in self.averages.items()}}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from where another average was; the values are copied to where these averages lie.

        Raises:
            ValueError: names or shapes do not fit; nothing has been changed.
        """
        arrays = {name: backend.asarray(tape.plain(a)) for name, a in state_dict["averages"].items()}
        self._check({name: a.shape for name, a in arrays.items()})
        for name, average in self.averages.items():
            with nullcontext() if type(average) is ndarray else average.device:
                average[...] = backend.to_device(arrays[name], backend.device_of(average))
        tape.mark_mutated(*self.averages.values())
        self.updates = int(state_dict["updates"])

    def _check(self, shapes: Mapping[str, Any]) -> None:
        problems = [f"{name}: got shape {shapes[name]}, expected {a.shape}" for name, a in self.averages.items() if name in shapes and shapes[name] != a.shape]
        problems += [f"{name}: missing, expected shape {a.shape}" for name, a in self.averages.items() if name not in shapes]
        problems += [f"{name}: unexpected, it has no average" for name in shapes if name not in self.averages]
        if problems:
            raise ValueError("the averages do not fit:\n  " + "\n  ".join(problems))

    def __repr__(self) -> str:
        return f"ExponentialMovingAverage(decay={self.decay}, warmup={self.warmup or False}; {self.updates} updates of {len(self.averages)} arrays)"


def _checked(params: Any) -> list[Tensor]:
    params = [params] if type(params) is Tensor else list(params)
    for p in params:
        if type(p) is not Tensor:
            raise TypeError(f"ExponentialMovingAverage: got {type(p).__name__}, expected a module or Tensors")
    return params


def _tensors(source: Any) -> dict[str, Tensor]:
    """Parameters and buffers by name; looked up anew each time, for a module may have set others in their place."""
    if isinstance(source, Module):
        return {**dict(source.named_parameters()), **dict(source.named_buffers())}
    return {str(i): t for i, t in enumerate(source)}


def _dtype(dtype: Any) -> Any:
    return np.dtype(np.float32) if is_half(dtype) else dtype


def _start(array: Any) -> Any:
    with nullcontext() if type(array) is ndarray else array.device:
        return array.astype(_dtype(array.dtype))
