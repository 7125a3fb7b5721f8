"""Mini-batches that are gone through again and again."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from gpugrad import backend, tree
from gpugrad.data.dataset import Subset, TensorDataset
from gpugrad.data.loader import DataLoader
from gpugrad.tape import Tensor

PATIENCE = 2.0  # seconds after which a sweep shows how far it has come


class Batch(NamedTuple):
    """One batch: which it is, what it holds, its number of rows, and how many rows came before it."""

    number: int
    data: Any
    rows: int
    start: int


class Batches:
    """The data of an operator.

    Args:
        data: an iterable that gives the same batches each time: a list, or a :class:`gpugrad.data.DataLoader`, of which a copy is used that neither shuffles nor
            drops the last batch (so an iteration of the loader that is under way goes on). A batch is any nest of arrays, with rows along the first axis of the
            first of them. None is a single batch of no data.
        progress: whether to show how far a sweep has come; None: where it takes longer than two seconds and standard error is a terminal.

    Raises:
        TypeError: not such an iterable; a generator would be used up by the first sweep.
        ValueError: a sweep finds no batches, or other ones than those before it.
    """

    def __init__(self, data: Any, progress: bool | None = None) -> None:
        self.data, self.progress = _checked(data), progress
        self.rows: list[int] = []  # of each batch, once a sweep has been through

    @property
    def several(self) -> bool:
        """Whether there is more than one batch; True while it isn't known."""
        if self.data is None:
            return False
        number = len(self.rows) or (len(self.data) if hasattr(self.data, "__len__") else 2)
        return number > 1

    def sweep(self, label: str) -> Iterator[Batch]:
        """Each batch, in order."""
        if self.data is None:
            yield Batch(0, None, 1, 0)
            return
        found: list[int] = []
        for data in self._shown(label):
            batch = Batch(len(found), data, _rows(data, len(found)), sum(found))
            found.append(batch.rows)
            yield batch
        if not found:
            raise ValueError("data has no batches: expected at least one")
        if self.rows and self.rows != found:
            raise ValueError(f"data gave batches of {_short(self.rows)} rows first, and then of {_short(found)}: expected the same batches in every sweep")
        self.rows = found

    def _shown(self, label: str) -> Iterator[Any]:
        """The batches, with a bar where it is wanted."""
        if self.progress is False or (self.progress is None and not sys.stderr.isatty()):
            yield from self.data
            return
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(24), MofNCompleteColumn(), TextColumn("batches"), TimeRemainingColumn())
        bar = Progress(*columns, console=Console(stderr=True, force_terminal=self.progress), transient=True)
        task = bar.add_task(label, total=len(self.data) if hasattr(self.data, "__len__") else None)
        begun = time.monotonic()
        try:
            for i, data in enumerate(self.data):
                yield data
                bar.update(task, completed=i + 1)
                if not bar.live.is_started and (self.progress or time.monotonic() - begun > PATIENCE):
                    bar.start()
        finally:
            bar.stop()


def _checked(data: Any) -> Any:
    if data is None:
        return None
    if isinstance(data, DataLoader):
        return DataLoader(data.dataset, data.batch_size, device=data.device, prefetch=data.prefetch)
    if isinstance(data, (Subset, TensorDataset)):
        raise TypeError(f"data is a {type(data).__name__}, expected batches: give DataLoader(dataset, batch_size)")
    if isinstance(data, dict) or type(data) is Tensor or backend.is_array(data) or (isinstance(data, tuple) and any(map(_is_array, data))):
        got = "an array" if _is_array(data) else f"a {type(data).__name__} of arrays"
        raise TypeError(f"data is {got}, expected an iterable of batches: write [{_example(data)}] for a single batch")
    if not isinstance(data, Iterable):
        raise TypeError(f"data is {type(data).__name__}, expected an iterable of batches, such as a list or a DataLoader")
    if isinstance(data, Iterator):
        raise TypeError(
            f"data is a {type(data).__name__}, which can be gone through once only; every product needs all of it: give list(data), or a DataLoader"
        )
    return data


def _is_array(x: Any) -> bool:
    return type(x) is Tensor or backend.is_array(x)


def _example(data: Any) -> str:
    return f"({', '.join('xyzuvw'[: len(data)])})" if isinstance(data, tuple) and len(data) <= 6 else "batch"


def _rows(data: Any, index: int) -> int:
    first = next(iter(tree.flatten(data)[0]), None)
    shape = getattr(first, "shape", ())
    if not shape:
        raise ValueError(
            f"batch {index} begins with {type(first).__name__}, which has no rows: expected an array, whose first axis tells how large the batch is"
        )
    if not shape[0]:
        raise ValueError(f"batch {index} is empty: it begins with an array of shape {shape}")
    return int(shape[0])


def _short(rows: list[int]) -> str:
    return f"{rows}" if len(rows) < 8 else f"[{', '.join(map(str, rows[:6]))}, ... {len(rows)} in all]"
