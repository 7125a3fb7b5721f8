"""Normalisation of the rows (``axis=1``) or columns (``axis=0``) of a matrix to mean 0 and variance 1, or to mean square 1.

    h = (x - m) r        r = 1 / sqrt(v + eps)        v = mean((x - m)^2)        m = mean(x), or 0 where not centred

and the map of differentials, dh = r (dx - mean(dx) - h mean(h dx)), in which mean(dx) is missing where not centred. It is symmetric, so it is its own
transpose. Moments are float32 for 16-bit floats, otherwise of the dtype of x.

The mean is subtracted before anything is squared, and what its rounding leaves is subtracted too: x of mean 1e4 has in h the digits that it has itself, and
where x is constant h is 0.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gpugrad.backend import namespace
from gpugrad.cuda.loader import Source
from gpugrad.kernels.kernel import Kernel

SOURCE = Source("normalise.cu")


def moment_dtype(dtype: Any) -> Any:
    """In which the moments of arrays of this dtype are."""
    return np.dtype(np.float32) if dtype.itemsize == 2 else dtype


# ---------------------------------------------------------------------------------- references, which compute in float64


def _wide(x: Any) -> Any:
    return x.astype(np.float64) if x.dtype.itemsize < 8 else x


def _mean(x: Any, axis: int) -> Any:
    return x.sum(axis=axis, keepdims=True) / max(x.shape[axis], 1)


def _standardize(x: Any, *, axis: int, eps: float, centred: bool = True) -> tuple[Any, Any, Any]:
    """(h, v, m) of x (rows, columns); m is None where not centred."""
    wide, dtype = _wide(x), moment_dtype(x.dtype)
    c, m = wide, None
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        if centred:
            m = _mean(wide, axis)
            c = wide - m
            drift = _mean(c, axis)
            c, m = c - drift, m + drift
        v = _mean(c * c, axis)
        h = (c / np.sqrt(v + eps)).astype(x.dtype)
        return h, v.astype(dtype).ravel(), m if m is None else m.astype(dtype).ravel()


def _slope(d: Any, h: Any, r: Any, *, axis: int, centred: bool = True) -> Any:
    """``r (d - mean(d) - h mean(h d))`` of d and h (rows, columns) and r of (rows,) or (columns,)."""
    e, h = _wide(d), _wide(h)
    y = e - h * _mean(h * e, axis)
    if centred:
        y -= _mean(e, axis)
    return (y * (r if axis == 0 else r[:, None])).astype(d.dtype)


# ---------------------------------------------------------------------------------- launches


def _launch(entry: str, x: Any, axis: int, *args: Any) -> None:
    """One of the two entry points: a block for each row, or for 32 columns."""
    rows, columns = x.shape
    if axis == 1:
        threads = min(1024, -(-columns // 128) * 32 or 32)  # four elements for a thread, or more
        SOURCE.launch(f"{entry}_rows", x.dtype, rows, threads, x, *args[:-1], columns, args[-1])
    else:
        SOURCE.launch(f"{entry}_columns", x.dtype, -(-columns // 32), (32, 32), x, *args[:-1], rows, columns, args[-1])


def _cuda_standardize(x: Any, *, axis: int, eps: float, centred: bool = True) -> tuple[Any, Any, Any]:
    xp = namespace(x)
    h, dtype = xp.empty(x.shape, x.dtype), moment_dtype(x.dtype)
    v, m = xp.zeros(x.shape[1 - axis], dtype), xp.zeros(x.shape[1 - axis], dtype) if centred else None
    if x.size:
        _launch("standardize", xp.ascontiguousarray(x), axis, h, v, m, eps)
    return h, v, m


def _cuda_slope(d: Any, h: Any, r: Any, *, axis: int, centred: bool = True) -> Any:
    xp = namespace(d)
    y = xp.empty(d.shape, d.dtype)
    h, r = xp.ascontiguousarray(h, d.dtype), xp.ascontiguousarray(r, moment_dtype(d.dtype))
    if d.size:
        _launch("slope", xp.ascontiguousarray(d), axis, h, r, y, int(centred))
    return y


# ---------------------------------------------------------------------------------- kernels

_SHAPES = ((1, 1), (5, 1), (37, 29), (300, 5), (3, 1030), (0, 3), (3, 0))
Samples = list[tuple[tuple[Any, ...], dict[str, Any]]]


def _samples(rng: np.random.Generator, dtype: Any) -> Samples:
    """The last ones have a mean of many standard deviations."""
    xs = [rng.normal(0.5, 2, shape).astype(dtype) for shape in _SHAPES]
    xs += [rng.normal(30, 0.5, shape).astype(dtype) for shape in ((41, 13), (7, 513))]
    return [((x,), {"axis": axis, "eps": 1e-2, "centred": centred}) for x in xs for axis in (0, 1) for centred in (True, False)]


def _slope_samples(rng: np.random.Generator, dtype: Any) -> Samples:
    found: Samples = []
    for shape in _SHAPES:
        for axis in (0, 1):
            d, h = (rng.normal(size=shape).astype(dtype) for _ in range(2))
            r = rng.uniform(0.5, 2, shape[1 - axis]).astype(moment_dtype(np.dtype(dtype)))
            found += [((d, h, r), {"axis": axis, "centred": centred}) for centred in (True, False)]
    return found


standardize = Kernel("standardize", _standardize, cpu="normalise_cpu:standardize", cuda=_cuda_standardize, samples=_samples, at_least=256)
slope = Kernel("slope", _slope, cpu="normalise_cpu:slope", cuda=_cuda_slope, samples=_slope_samples, at_least=256)
