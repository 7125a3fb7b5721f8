"""Datasets: what has a length and gives examples by their number. Batches are tuples of plain arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from gpugrad import backend, tree
from gpugrad.creation import get_default_dtype
from gpugrad.tape import Tensor, plain


class Dataset(Protocol):
    """What a :class:`~gpugrad.data.DataLoader` takes: ``len(dataset)`` examples, of which ``dataset[i]`` is one.

    An example is an array or a number, or a tuple, list or dict of them. :func:`collate` stacks those of a batch.

    A dataset that can do better than one example at a time says so with a class attribute ``takes_rows = True``: ``dataset[rows]`` is then called once a batch,
    with an array of integers, and returns the stacked arrays. :class:`TensorDataset` and :class:`Subset` are such, and take slices too.
    """

    def __len__(self) -> int:
        """How many examples there are."""
        ...

    def __getitem__(self, index: Any, /) -> Any:
        """The example with that number; with ``takes_rows``, the examples with those numbers as well."""
        ...


class TensorDataset:
    """The rows of arrays: ``dataset[i]`` is ``(x[i], y[i], ...)``.

    Args:
        arrays: Tensors or arrays of numbers of one length and on one device. They are not copied.

    Raises:
        ValueError: no arrays, an array of no axes, or arrays of several lengths.
        DeviceError: arrays of several devices.
        TypeError: not an array of numbers, or a Tensor that is tracked.
    """

    takes_rows = True

    def __init__(self, *arrays: Any) -> None:
        if not arrays:
            raise ValueError("TensorDataset needs at least one array")
        self.arrays = tuple(untracked(a) for a in arrays)
        shapes = ", ".join(str(a.shape) for a in self.arrays)
        if not all(a.ndim for a in self.arrays) or len({len(a) for a in self.arrays}) > 1:
            raise ValueError(f"the arrays of a TensorDataset must have the same number of rows, got shapes {shapes}")
        devices = sorted({backend.device_of(a) for a in self.arrays})
        if len(devices) > 1:
            raise backend.DeviceError(f"the arrays of a TensorDataset must be on one device, got {' and '.join(devices)}: move them with .to({devices[0]!r})")

    def __len__(self) -> int:
        return len(self.arrays[0])

    def __getitem__(self, rows: Any) -> tuple[Any, ...]:
        """An integer gives one example, a slice views, an array of integers or booleans copies of those rows."""
        if type(rows) is np.ndarray and rows.dtype.kind in "iu" and type(self.arrays[0]) is np.ndarray:
            return tuple(a.take(rows, axis=0) for a in self.arrays)  # what a[rows] does, in half the time
        return tuple(a[rows] for a in self.arrays)

    def __repr__(self) -> str:
        return f"TensorDataset({', '.join(f'{a.dtype}{a.shape}' for a in self.arrays)})"


class Subset:
    """The examples of ``dataset`` at ``indices`` (integers, negative ones from the end), in that order.

    Raises:
        IndexError: an index beyond the end.
        TypeError: indices that are not integers; ``np.flatnonzero(mask)`` makes some of a mask.
    """

    def __init__(self, dataset: Dataset, indices: Sequence[int] | np.ndarray) -> None:
        indices = np.asarray(plain(indices))
        if indices.ndim != 1 or (indices.dtype.kind not in "iu" and indices.size):
            raise TypeError(f"indices of a Subset must be a row of integers, got {indices.dtype} of shape {indices.shape}; np.flatnonzero makes some of a mask")
        indices = indices.astype(np.int64)
        n = len(dataset)
        wrong = indices[(indices < -n) | (indices >= n)]
        if wrong.size:
            raise IndexError(f"index {wrong[0]} of a Subset is out of range: the dataset has {n} examples")
        self.dataset = dataset
        self.indices = np.where(indices < 0, indices + n, indices)

    @property
    def takes_rows(self) -> bool:
        """As its dataset."""
        return takes_rows(self.dataset)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, rows: Any) -> Any:
        index = self.indices[rows.get() if backend.namespace(rows) is not np else rows]
        if np.ndim(index) == 0:
            return self.dataset[int(index)]
        return self.dataset[index] if self.takes_rows else collate([self.dataset[i] for i in index.tolist()])

    def __repr__(self) -> str:
        return f"Subset({len(self)} of {self.dataset!r})"


def as_dataset(x: Any) -> Dataset:
    """``x`` itself where it is a dataset; an array or Tensor is a dataset of its rows.

    Raises:
        TypeError: something else, with the remedy.
    """
    if backend.is_array(x) or type(x) is Tensor:
        return TensorDataset(x)
    if isinstance(x, tuple) and any(backend.is_array(a) or type(a) is Tensor for a in x):
        raise TypeError(f"a dataset was expected, got a tuple of {len(x)} arrays: wrap it, TensorDataset(*arrays)")
    if isinstance(x, (Mapping, str, bytes)) or not (hasattr(x, "__len__") and hasattr(x, "__getitem__")):
        raise TypeError(
            f"a dataset has __len__ and __getitem__(i), got {type(x).__name__}: an iterable has no order to shuffle or to resume; "
            "make a list of it, or TensorDataset(*arrays)"
        )
    return x


def takes_rows(dataset: Any) -> bool:
    """Whether ``dataset[rows]`` may be asked with an array of rows."""
    return bool(getattr(dataset, "takes_rows", False))


def fetch(dataset: Dataset, rows: Any) -> Any:
    """The batch of those rows: a tuple of arrays, or a dict where the examples are dicts."""
    batch = tree.map_leaves(untracked, dataset[rows]) if takes_rows(dataset) else collate([dataset[i] for i in rows.tolist()])
    return tuple(batch) if isinstance(batch, list) else batch if isinstance(batch, (tuple, dict)) else (batch,)


def collate(examples: Sequence[Any]) -> Any:
    """One nest of arrays, with the examples along the first axis of each, from examples that are nests (tuple, list, dict) of one structure.

    Numbers become an array; Python's floats have :func:`gpugrad.get_default_dtype`.

    Raises:
        ValueError: examples of several structures or shapes.
        TypeError: neither arrays nor numbers.
    """
    first = examples[0]
    if not isinstance(first, (tuple, list, dict)):
        return _stack(examples)
    for i, e in enumerate(examples):
        if type(e) is not type(first) or len(e) != len(first) or (isinstance(first, dict) and set(e) != set(first)):
            raise ValueError(f"the examples of a batch must have one structure, got {_outline(first)} and, as number {i}, {_outline(e)}")
    if isinstance(first, dict):
        return {name: collate([e[name] for e in examples]) for name in first}
    parts = [collate(column) for column in zip(*examples)]
    return type(first)(*parts) if hasattr(first, "_fields") else type(first)(parts)


def _outline(example: Any) -> str:
    return f"{type(example).__name__} " + (
        f"of {list(example)}" if isinstance(example, dict) else f"of {len(example)}" if isinstance(example, (tuple, list)) else ""
    )


def _stack(values: Sequence[Any]) -> Any:
    first = values[0]
    if isinstance(first, (bool, int, float, complex, np.generic)):
        array = backend.asarray(list(values))
        return array.astype(get_default_dtype()) if type(first) is float and array.dtype == np.float64 else array
    arrays = values if all(type(v) is np.ndarray for v in values) else [untracked(v) for v in values]
    odd = next((a.shape for a in arrays if a.shape != arrays[0].shape), None)
    if odd is not None:
        raise ValueError(f"the examples of a batch must have one shape, got {arrays[0].shape} and {odd}: pad them, or use batch_size=1")
    return untracked(backend.namespace(arrays[0]).stack(arrays))


def untracked(x: Any) -> Any:
    """The plain array of an array, a Tensor or a nest of numbers.

    Raises:
        TypeError: a Tensor that is tracked, or no numbers.
    """
    if type(x) is Tensor and x.requires_grad:
        raise TypeError("expected data, got a Tensor that requires grad, whose derivative would be lost: use .detach()")
    array = backend.asarray(plain(x))
    if array.dtype.kind in "OSUmM":
        raise TypeError(f"expected numbers, got an array of {array.dtype}")
    return array
