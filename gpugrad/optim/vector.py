"""Optimizers that see all parameters as one vector, and evaluate the loss themselves, several times in a step."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar

import numpy as np

from gpugrad import backend, tape
from gpugrad.ops.fit import is_half
from gpugrad.optim.optimizer import Optimizer, as_real
from gpugrad.tape import Tensor


class VectorOptimizer(Optimizer):
    """Parameters of one group and one device. A subclass defines ``step``, within :meth:`all_or_nothing`.

    What is remembered is of all parameters together: the numbers ``_counts``, and what else ``remembers`` names.
    """

    remembers: ClassVar[tuple[str, ...]] = ()
    _counts: dict[str, int]

    def add_param_group(self, group: dict[str, Any]) -> None:
        """Of the only group.

        Raises:
            ValueError: there is one already.
        """
        if self.param_groups:
            raise ValueError(
                f"{type(self).__name__} doesn't support per-parameter options (parameter groups): got a second group, expected one list of Tensors"
            )
        super().add_param_group(group)
        self.params = self.param_groups[0]["params"]

    def check(self, group: dict[str, Any]) -> None:
        """Counts are positive, tolerances no less than 0; one device."""
        super().check(group)
        for name, value in group.items():
            if (name.startswith("max_") or name == "history_size") and not value >= 1:
                raise ValueError(f"invalid {name}: got {value}, expected at least 1")
            if name.startswith("tolerance_") and not value >= 0:
                raise ValueError(f"invalid {name}: got {value}, expected a number of at least 0")
        devices = sorted({p.device for p in group["params"]})
        if len(devices) > 1:
            raise ValueError(f"{type(self).__name__}: got parameters on {' and '.join(devices)}, expected one device")

    @contextmanager
    def all_or_nothing(self, closure: Callable[[], Any] | None, what: str) -> Iterator[Any]:
        """``with self.all_or_nothing(closure, "returns the loss") as x``: the parameters as a vector. If the block raises, all is as it was before.

        Raises:
            TypeError: there is no closure; the message says ``what`` it should do.
            ValueError: gradients are to be clipped.
        """
        name = type(self).__name__
        if closure is None:
            raise TypeError(f"{name} evaluates the loss several times in a step: call step(closure), where closure {what}")
        if self.max_grad_norm is not None:
            raise ValueError(f"{name} needs the gradient of the loss as it is: got max_grad_norm, which would make it that of no function")
        start, group = self._point(), dict(self.param_groups[0])
        before = {attribute: copy.copy(getattr(self, attribute)) for attribute in ("_counts", *self.remembers)}
        try:
            yield start
        except BaseException:
            self._go_to(start)
            self.param_groups[0].update(group)
            self.__dict__.update(before)
            raise

    # ------------------------------------------------------------------ parameters as one vector

    def _flat(self, arrays: list[Any]) -> Any:
        """Arrays like the parameters as one vector, real and of at least float32; None stands for zeros."""
        xp = backend.namespace(self.params[0].data)
        own = [as_real(p.data) for p in self.params]
        dtype = np.result_type(*[np.float32 if is_half(a.dtype) else a.dtype for a in own])
        parts = [xp.zeros(a.size, dtype) if b is None else as_real(b).reshape(-1).astype(dtype) for a, b in zip(own, arrays)]
        return xp.concatenate(parts)

    def _split(self, x: Any) -> list[Any]:
        """A vector as arrays like the parameters."""
        parts, start = [], 0
        for p in self.params:
            real = as_real(p.data)
            part = x[start : start + real.size].reshape(real.shape).astype(real.dtype)
            parts.append(part if real is p.data else part.view(p.dtype)[..., 0])
            start += real.size
        return parts

    def _point(self) -> Any:
        return self._flat([p.data for p in self.params])

    def _go_to(self, x: Any) -> Any:
        """Write the vector into the parameters, and return what they hold then: rounded, if they are of several dtypes."""
        for p, part in zip(self.params, self._split(x)):
            p.data[...] = part
            tape.mark_mutated(p.data)
        return x if all(as_real(p.data).dtype == x.dtype for p in self.params) else self._point()

    # ------------------------------------------------------------------ saving and loading

    def state_dict(self) -> dict[str, Any]:
        """As other optimizers'; what is remembered is of all parameters together, under number 0."""
        state = {**self._counts, **{name: Tensor(v) for name, v in self._vectors().items()}}
        return {**super().state_dict(), "state": {0: state} if any(self._counts.values()) else {}}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from where another optimizer was, bit for bit.

        Raises:
            ValueError: the group or the number of elements does not fit; nothing has been changed.
        """
        state = state_dict["state"].get(0, state_dict["state"].get("0", {}))
        like = self._point()
        vectors = {k: backend.asarray(tape.plain(v), like.dtype, self.params[0].device, copy=True) for k, v in state.items() if k not in self._counts}
        for name, a in vectors.items():
            if a.shape[-1:] != like.shape:
                raise ValueError(f"loaded state dict has {name} of {a.shape[-1]} elements, expected {like.size}, those of all parameters")
        super().load_state_dict({**state_dict, "state": {}})
        self._counts = {name: int(state.get(name, 0)) for name in self._counts}
        self._recall(vectors)

    def _vectors(self) -> dict[str, Any]:
        """What is remembered beside the counts: vectors, or matrices of them as rows, by name."""
        return {}

    def _recall(self, vectors: dict[str, Any]) -> None:
        """Take up what :meth:`_vectors` gave."""


def largest(v: Any) -> float:
    """max |v|."""
    return float(np.abs(v).max()) if v.size else 0.0


def is_finite(loss: float, g: Any) -> bool:
    """Whether a loss and all of its gradient are numbers."""
    return math.isfinite(loss) and math.isfinite(largest(g))
