"""Rows by their places: ``gather`` reads them, ``segment_sum`` adds rows up that have one place. Each is the other's transpose.

    gather        y[i] = x[places[i]]                           x (count, width), places (n,) or of any shape, y (n, width)
    segment_sum   y[p] = sum of values[i] over places[i] = p    values (n, width), y (count, width)

Places are int64 from -count to count - 1, the negative ones counted from the end as in NumPy. The place ``skip``, from 0 to count - 1, is left out: its rows are
zeros in either direction.

A sum of many rows that go to few places, in an order that is always the same: the places are sorted, stably, so that equal ones form a segment. The sorted rows are
cut into windows of a fixed number of rows. What of a segment lies in one window is summed there; where a segment goes on in the next windows, its partial sums are
added in their order. So the order of additions depends on the places alone, and a million rows of one place are added by all threads.

A place that is out of range is an IndexError: on the CPU before anything is written, on a GPU later (:mod:`gpugrad.cuda.refusals`). There it reads nan, and is not added anywhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NoReturn

import numpy as np

from gpugrad.backend import address, namespace
from gpugrad.cuda import refusals
from gpugrad.cuda.loader import Source
from gpugrad.kernels.kernel import Kernel

SOURCE = Source("segments.cu")
WINDOW = 128  # of the CUDA kernels, whose text has it too


def refuse(name: str, places: Any, count: int, from_end: bool) -> NoReturn:
    """The IndexError of the first of some NumPy integers that is not from -count (or 0) to count - 1."""
    lowest = -count if from_end else 0
    at = tuple(np.argwhere((places < lowest) | (places >= count))[0].tolist())
    raise IndexError(refusals.message(name, places[at], at if len(at) != 1 else at[0], lowest, count))


def as_int64(xp: Any, places: Any) -> Any:
    """Integers of any kind, on the device of ``xp``."""
    if places.dtype == np.uint64:  # beyond int64 they are out of range, and must not become negative
        places = np.minimum(places, np.uint64(2**63 - 1))
    return xp.asarray(places, np.int64)


def in_range(places: Any, count: int, name: str, instead: int = 0, from_end: bool = True) -> Any:
    """Places from 0 to count - 1, of integers of any shape and kind, of which the negative ones count ``from_end`` or are out of range. On a GPU those out of range
    become ``instead``, and the error comes later.

    Raises:
        IndexError: one is out of range.
    """
    xp = namespace(places)
    if xp is np:
        if places.size and not (-count if from_end else 0) <= places.min() <= places.max() < count:
            refuse(name, places, count, from_end)
        places = as_int64(np, places)
        return np.where(places < 0, places + count, places)
    return checked(xp.ascontiguousarray(as_int64(xp, places)), count, name, instead, from_end)


def checked(places: Any, count: int, name: str, instead: int, from_end: bool) -> Any:
    """What a GPU does with such int64 places."""
    kept = namespace(places).empty(places.shape, np.int64)
    how = int(from_end), instead, refusals.number(name), refusals.address(places)
    SOURCE.launch("check_places", np.float32, -(-places.size // 256), 256, places, kept, places.size, count, *how)
    return kept


# ---------------------------------------------------------------------------------- references


def _wide(dtype: Any) -> Any:
    """In which sums are made."""
    return np.dtype(np.float64) if dtype.name in ("float16", "bfloat16", "float32") else dtype.newbyteorder("=")


def by_place(xp: Any, places: Any) -> tuple[Any, Any, Any]:
    """The stable order that brings equal places together, the places in it, and which of them are the last of their kind."""
    order = xp.argsort(places, kind="stable")
    places = places[order]
    last = xp.ones(places.shape, bool)
    last[:-1] = places[1:] != places[:-1]
    return order, places, last


def doublings(xp: Any, places: Any) -> Iterator[tuple[Any, Any]]:
    """The steps of a segmented scan (Hillis and Steele, 1986): after combining each row with the row ``earlier`` where
    that is ``same`` in place, step after step, the last row of each place holds the combination of all of them."""
    at, step = xp.arange(places.size), 1
    while step < places.size:
        earlier = xp.maximum(at - step, 0)
        yield earlier, ((at >= step) & (places == places[earlier]))[:, None]
        step *= 2


def _segment_sum(values: Any, places: Any, *, count: int, skip: int | None = None, name: str = "scatter_add") -> Any:
    """The sums of the rows of values (n, width) that have one place, (count, width); the sums of floats of less than 64 bits in float64."""
    xp, dtype = namespace(values), values.dtype
    order, places, last = by_place(xp, in_range(places, count, name, count))
    values = values[order].astype(_wide(dtype))
    y = xp.zeros((count + 1, values.shape[1]), dtype)
    with np.errstate(over="ignore", invalid="ignore"):
        if xp is np:
            begins = np.flatnonzero(np.roll(last, 1))  # where the one before is the last of its place, as the very last is
            y[places[last]] = np.add.reduceat(values, begins, dtype=values.dtype) if len(values) else values
        else:  # which has no reduceat, and should not be waited for: so what is not the last of its place goes to an extra row
            for earlier, same in doublings(xp, places):
                values = values + xp.where(same, values[earlier], xp.zeros((), values.dtype))
            y[xp.where(last, places, count)] = values.astype(dtype)
    if skip is not None:
        y[skip] = 0
    return y[:count]


def _gather(x: Any, places: Any, *, skip: int | None = None, from_end: bool = True, name: str = "getitem") -> Any:
    """The rows of x (count, width) at the places: an array of their shape and width."""
    places = in_range(places, len(x), name, from_end=from_end)
    y = x[places]
    return y if skip is None else namespace(x).where((places == skip)[..., None], namespace(x).zeros((), x.dtype), y)


# ---------------------------------------------------------------------------------- launches


def _shape(dtype: Any, width: int, *arrays: Any) -> tuple[int, int, int]:
    """How many elements a thread takes at once (16 bytes where rows are aligned to that), and a block of 256 threads as columns and rows."""
    pack = 16 // dtype.itemsize
    if width % pack or any(address(a) % 16 for a in arrays):
        pack = 1
    lanes = 1
    while lanes < min(-(-width // pack), 32):
        lanes *= 2
    return pack, lanes, 256 // lanes


def _cuda_gather(x: Any, places: Any, *, skip: int | None = None, from_end: bool = True, name: str = "getitem") -> Any:
    xp = namespace(x)
    x, places, n, (count, width) = xp.ascontiguousarray(x), xp.ascontiguousarray(places), places.size, x.shape
    y = xp.empty((*places.shape, width), x.dtype)
    pack, lanes, rows = _shape(x.dtype, width, x, y)
    how = int(from_end), -1 if skip is None else skip, refusals.number(name), refusals.address(x)
    SOURCE.launch("gather", x.dtype, -(-n // rows), (lanes, rows), x, places, y, n, count, width, pack, *how)
    return y


def _cuda_segment_sum(values: Any, places: Any, *, count: int, skip: int | None = None, name: str = "scatter_add") -> Any:
    y = summed(values, in_range(places, count, name, count), count)
    if skip is not None:
        y[skip] = 0
    return y


def summed(values: Any, places: Any, count: int) -> Any:
    """The sums of rows whose places are not negative; those of ``count`` and beyond are left out."""
    xp, (n, width) = namespace(values), values.shape
    y = xp.zeros((count, width), values.dtype)
    if not y.size or not n:
        return y
    values = xp.ascontiguousarray(values)
    order = xp.argsort(places, kind="stable")
    places = places[order]
    windows = -(-n // WINDOW)
    heads, tails = xp.empty((windows, width)), xp.empty((windows, width))
    pack, lanes, rows = _shape(values.dtype, width, values, y)
    columns = min(-(-width // (lanes * pack)), 65535)
    SOURCE.launch("sum_windows", values.dtype, (-(-windows // rows), columns), (lanes, rows), values, order, places, y, heads, tails, n, count, width, pack)
    SOURCE.launch("join_windows", values.dtype, windows - 1, (32, 8), places, heads, tails, y, n, count, width)
    return y


# ---------------------------------------------------------------------------------- kernels

Samples = list[tuple[tuple[Any, ...], dict[str, Any]]]
_SIZES = ((0, 3, 2), (1, 1, 1), (7, 3, 5), (301, 4, 3), (300, 1000, 1), (1100, 1, 4), (2000, 3, 8), (130, 2, 70), (900, 5, 33), (40, 7, 0))  # n, count, width


def _places(rng: np.random.Generator, n: int, count: int) -> Any:
    """Half of them go to one place."""
    places = rng.integers(-count, count, n)
    return np.where(rng.random(n) < 0.5, count // 2, places)


def _sum_samples(rng: np.random.Generator, dtype: Any) -> Samples:
    return [
        ((rng.normal(size=(n, width)).astype(dtype), _places(rng, n, count)), {"count": count, "skip": skip})
        for n, count, width in _SIZES
        for skip in (None, 0)
    ]


def _gather_samples(rng: np.random.Generator, dtype: Any) -> Samples:
    return [((rng.normal(size=(count, width)).astype(dtype), _places(rng, n, count)), {"skip": skip}) for n, count, width in _SIZES for skip in (None, 0)]


segment_sum = Kernel("segment_sum", _segment_sum, cpu="segments_cpu:segment_sum", cuda=_cuda_segment_sum, samples=_sum_samples)
gather = Kernel("gather", _gather, cpu="segments_cpu:gather", cuda=_cuda_gather, samples=_gather_samples)
