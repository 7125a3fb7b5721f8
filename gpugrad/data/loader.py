"""Batches of a dataset, in order or shuffled, fetched ahead, and resumed in the middle of an epoch."""

from __future__ import annotations

import operator
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing
from typing import Any

import numpy as np

from gpugrad import backend, random, tree
from gpugrad.data.dataset import Subset, TensorDataset, as_dataset, fetch
from gpugrad.data.prefetch import in_background, uploaded
from gpugrad.tape import plain

# Bytes of a batch on the CPU from which a thread that takes its rows pays: below, handing it over costs more than taking them.
LEAST = 1 << 18


class DataLoader:
    """Batches of ``dataset``: each iteration is an epoch, in which every example comes once.

    A batch is a tuple of plain arrays (a dict, where the examples are dicts), on ``device`` or where the dataset has them. The arrays are its own: writing into
    them does not change the dataset. Where the last batch is smaller than ``batch_size``, it is kept unless ``drop_last``.

    One iteration runs at a time. Beginning another ends it: its iterator raises RuntimeError when it is asked again. Leaving the loop early ends the epoch, and
    with it the thread that fetches ahead.

    Args:
        dataset: a :class:`Dataset`; an array or Tensor is taken for one of its rows.
        shuffle: a new permutation each epoch, drawn from ``generator``.
        generator: by default ``gpugrad.random.Generator(0)``, so that every loader gives the same batches unless it is told otherwise.
        device: "cpu", "cuda", "cuda:N" or "auto". Arrays that lie on a GPU are indexed there. A dataset that itself computes on a GPU needs it, so that its work is
            queued on the stream of whoever iterates.
        prefetch: how many batches a thread fetches before they are asked for; on the way to a GPU through pinned memory and on a stream of its own. 0: none, in
            the calling thread. By default 2 where that is quicker: not for arrays whose batches are smaller than 256 KiB and stay on the CPU. Arrays on a GPU need no thread.

    Raises:
        TypeError: not a dataset.
        ValueError: an empty dataset, a ``batch_size`` below 1, a negative ``prefetch``, or ``drop_last`` with fewer examples than a batch has.
    """

    def __init__(
        self,
        dataset: Any,
        batch_size: int = 32,
        shuffle: bool = False,
        *,
        drop_last: bool = False,
        generator: random.Generator | None = None,
        device: str | None = None,
        prefetch: int | None = None,
    ) -> None:
        self.dataset = as_dataset(dataset)
        self.batch_size, self.shuffle, self.drop_last = operator.index(batch_size), bool(shuffle), bool(drop_last)
        self.generator = random.Generator(0) if generator is None else generator
        self.device = None if device is None else backend.device_name(device)
        if self.batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        if prefetch is not None and operator.index(prefetch) < 0:
            raise ValueError(f"prefetch must be 0 (no thread) or the number of batches to fetch ahead, got {prefetch}")
        self.prefetch = prefetch
        if not len(self.dataset):
            raise ValueError(f"the dataset is empty: {type(self.dataset).__name__} of length 0")
        if not len(self):
            raise ValueError(f"drop_last leaves no batch: the dataset has {len(self.dataset)} examples, batch_size is {batch_size}")
        self._epoch: dict[str, Any] | None = None  # where an iteration stands: the generator's state before it, and the batches handed out
        self._running: object | None = None  # the iteration that does

    def __len__(self) -> int:
        """Batches an epoch."""
        n = len(self.dataset)
        return n // self.batch_size if self.drop_last else -(-n // self.batch_size)

    def __iter__(self) -> Iterator[Any]:
        epoch, order = self._begin()
        running = self._running
        try:
            with closing(self._batches(order, epoch["batches"])) as batches:
                for batch in batches:
                    epoch["batches"] += 1
                    yield batch
                    if self._running is not running:
                        raise RuntimeError("another iteration over this DataLoader has begun since, which ended this one: use a DataLoader for each loop")
        finally:
            if self._running is running:
                self._epoch = self._running = None

    def _begin(self) -> tuple[dict[str, Any], np.ndarray]:
        """A new epoch, or the one that :meth:`load_state_dict` left off in, and the order of its examples."""
        if self._epoch is None or self._running is not None:
            self._epoch = {"generator": self.generator.state_dict() if self.shuffle else None, "batches": 0}
            drawn = self.generator
        elif self.shuffle:
            drawn = random.Generator()
            drawn.load_state_dict(self._epoch["generator"])
        self._running = object()
        n = len(self.dataset)
        return self._epoch, plain(drawn.permutation(n)) if self.shuffle else np.arange(n)

    def _batches(self, order: np.ndarray, start: int) -> Generator[Any]:
        dataset: Any = self.dataset
        while type(dataset) is Subset:  # one index instead of one a level
            dataset, order = dataset.dataset, dataset.indices[order]
        home = backend.device_of(dataset.arrays[0]) if isinstance(dataset, TensorDataset) else "cpu"
        order = backend.to_device(order, home)
        size, stop = self.batch_size, len(self)

        def take(k: int) -> Any:
            with backend.on(home)[1]:
                return fetch(dataset, order[k * size : (k + 1) * size])

        depth = self._depth(dataset, home)
        if not depth:
            return (self._moved(take(k)) for k in range(start, stop))
        if self.device in (None, "cpu"):
            return in_background(lambda k: self._moved(take(k)), start, stop, depth)
        if backend.on(self.device)[0].cuda.get_current_stream().ptr == _PER_THREAD:  # the thread would take its own for it
            return (self._moved(batch) for batch in in_background(take, start, stop, depth))
        return uploaded(take, start, stop, depth, self.device)

    def _depth(self, dataset: Any, home: str) -> int:
        """How many batches to fetch ahead."""
        if home != "cpu":
            return 0
        if self.prefetch is not None:
            return self.prefetch
        small = type(dataset) is TensorDataset and self.batch_size * sum(a.nbytes // len(a) for a in dataset.arrays) < LEAST
        return 0 if small and self.device in (None, "cpu") else 2

    def _moved(self, batch: Any) -> Any:
        return batch if self.device is None else tree.map_leaves(lambda x: backend.to_device(x, self.device), batch)

    def state_dict(self) -> dict[str, Any]:
        """Where the loader stands, for JSON: what it has handed out, not what it has fetched ahead.

        Taken while an iteration is under way, the next iteration of a loader that loads it yields the rest of that epoch. Otherwise, and after a loop
        that was left early, it yields a new epoch. Either way the same examples as here.
        """
        return {
            "generator": self.generator.state_dict() if self.shuffle else None,
            "epoch": None if self._epoch is None else dict(self._epoch),
            **{name: getattr(self, name) for name in _SAME},
            "examples": len(self.dataset),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from where :meth:`state_dict` was taken, bit for bit. An iteration under way ends.

        Raises:
            ValueError: not such a dict, or that of a loader with another dataset length, ``batch_size``, ``shuffle`` or ``drop_last`` (this one stays as it was).
        """
        try:
            epoch, before = state["epoch"], {name: state[name] for name in (*_SAME, "examples")}
            epoch = None if epoch is None else {"generator": epoch["generator"], "batches": operator.index(epoch["batches"])}
        except (KeyError, TypeError) as error:
            raise ValueError(f"cannot load the state of a DataLoader: {error!r}; expected what DataLoader.state_dict() returned") from None
        now = {**{name: getattr(self, name) for name in _SAME}, "examples": len(self.dataset)}
        if before != now:
            differing = ", ".join(f"{name} {before[name]} there and {now[name]} here" for name in now if before[name] != now[name])
            raise ValueError(f"the state is that of another DataLoader: {differing}")
        if epoch is not None and not 0 <= epoch["batches"] <= len(self):
            raise ValueError(f"cannot load the state of a DataLoader: {epoch['batches']} batches of an epoch of {len(self)}")
        if self.shuffle:
            if epoch is not None:
                random.Generator().load_state_dict(epoch["generator"])
            self.generator.load_state_dict(state["generator"])
        self._epoch, self._running = epoch, None

    def __repr__(self) -> str:
        return f"DataLoader({self.dataset!r}, batch_size={self.batch_size}, shuffle={self.shuffle}, drop_last={self.drop_last}): {len(self)} batches"


_SAME = ("batch_size", "shuffle", "drop_last")
_PER_THREAD = 2  # cudaStreamPerThread


def minibatches(x: Any, y: Any, batch_size: int, generator: Any = random) -> Iterator[tuple[Any, Any]]:
    """One pass over x and y (arrays or Tensors) in random order: pairs of at most ``batch_size`` rows, on their own device.

    Raises:
        ValueError: different lengths, or no batch size.
    """
    if len(x) != len(y):
        raise ValueError(f"minibatches: got {len(x)} rows of x and {len(y)} of y")
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    order = backend.to_device(generator.permutation(len(x)).data, backend.device_of(plain(x)))
    for start in range(0, len(x), batch_size):
        rows = order[start : start + batch_size]
        yield x[rows], y[rows]
