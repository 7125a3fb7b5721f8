"""What a run has measured: numbers of the batches of an epoch, which stay on the device until it ends, and of the epochs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from gpugrad import backend
from gpugrad.tape import plain


class History:
    """The numbers of every epoch: ``history["loss"]`` is a list with one per epoch, nan where an epoch has none; ``history.rows`` a dict per epoch.

    What :func:`gpugrad.training.fit` puts in: "epoch" (from 1), "loss" and the metrics on the training batches while the weights changed, "val_loss" and
    "val_..." on the validation batches at the epoch's end, "lr" (of the first parameter group, in the epoch's last step), "examples_per_second", and what callbacks add.
    """

    def __init__(self, rows: Sequence[Mapping[str, float]] = ()) -> None:
        self.rows: list[dict[str, float]] = [dict(row) for row in rows]

    def __getitem__(self, name: str) -> list[float]:
        if name not in self.names():
            raise KeyError(f"the history has no {name!r}; it has {', '.join(self.names()) or 'no epoch yet'}")
        return [row.get(name, math.nan) for row in self.rows]

    def __contains__(self, name: object) -> bool:
        return name in self.names()

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[dict[str, float]]:
        return iter(self.rows)

    def names(self) -> list[str]:
        """All names, in the order in which they appeared."""
        return list(dict.fromkeys(name for row in self.rows for name in row))

    def state_dict(self) -> dict[str, Any]:
        """The rows."""
        return {"rows": [dict(row) for row in self.rows]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over the rows of another history.

        Raises:
            ValueError: they are not numbers by name.
        """
        rows = state["rows"]
        if not isinstance(rows, list) or not all(isinstance(row, dict) and all(_is_number(v) for v in row.values()) for row in rows):
            raise ValueError("the rows of a history are dicts of numbers")
        self.rows = [dict(row) for row in rows]

    def __repr__(self) -> str:
        last = ", ".join(f"{name} {value:.4g}" for name, value in self.rows[-1].items()) if self.rows else "nothing yet"
        return f"History({len(self)} epochs; {last})"


def as_numbers(logs: Mapping[str, Any]) -> dict[str, float]:
    """Logs as Python's numbers: a callback may have put in those of NumPy, arrays of no axes or Tensors.

    Raises:
        TypeError: something is not a number.
    """
    for name, value in logs.items():
        if getattr(value, "size", 1) != 1 or isinstance(value, (str, bytes, type(None))):
            raise TypeError(f"the log {name!r} must be a number, got {type(value).__name__} {value!r:.60}")
    return {name: value if type(value) in (int, float) else float(value.item() if hasattr(value, "item") else value) for name, value in logs.items()}


def _is_number(x: Any) -> bool:
    return isinstance(x, (int, float)) and not isinstance(x, bool)


class Meter:
    """Numbers of the batches of an epoch, in one float64 array on the device of the first of them. Looking at them is the only synchronisation."""

    def __init__(self, names: Sequence[str], batches: int) -> None:
        self.names, self.weights = list(names), list[int]()
        self._capacity = max(batches, 1)
        self._array: Any = None

    def put(self, number: int, weight: int, values: Sequence[Any]) -> None:
        """Note the numbers (Tensors, arrays of no axes, or numbers) of the batch ``number``, which has ``weight`` examples; only the first time."""
        if number < len(self.weights):
            return
        values = [plain(v) for v in values]
        if self._array is None or number >= len(self._array):
            xp = backend.namespace(next((v for v in values if backend.is_array(v)), 0.0))
            before, self._capacity = self._array, max(self._capacity, 2 * number)
            self._array = xp.zeros((self._capacity, len(self.names)))
            if before is not None:
                self._array[:number] = before
        for column, value in enumerate(values):
            self._array[number, column] = value.item() if type(value) is np.ndarray else value  # what is on the host is no array to CuPy
        self.weights.append(weight)

    @property
    def examples(self) -> int:
        """How many examples there were so far."""
        return sum(self.weights)

    def table(self) -> np.ndarray:
        """(batches so far, names), on the host."""
        if self._array is None:
            return np.zeros((0, len(self.names)))
        return backend.to_device(self._array[: len(self.weights)], "cpu")

    def means(self, table: np.ndarray | None = None) -> dict[str, float]:
        """The mean over all examples so far, by name."""
        table = self.table() if table is None else table
        weights = np.array(self.weights, float) / max(self.examples, 1)
        return {name: float(np.sum(weights * column)) for name, column in zip(self.names, table.T)}
