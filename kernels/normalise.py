"""Normalisation to mean 0 and variance 1, or to mean square 1, with its affine map: forward, backward, and the backward of the backward.

An array is (outer, channels, inner); each channel is normalised over the other two axes. ``along`` says where weight and bias lie: along axis 1 in batch norm,
one for each channel, and along axis 2 in layer and RMS norm, whose rows are the channels (outer is 1). With n numbers in a channel::

    h = (x - m) r,  y = h w + b        r = 1 / sqrt(v + eps),  v = mean((x - m)^2),  m = mean(x), or 0 where not centred

    S(d) = r (d - mean(d) - h mean(h d))                    what h does when x moves by d; a symmetric map; mean(d) is missing where not centred
    backward     dx = S(g w)    dw = sum(g h)    db = sum(g)
    twice        of <c, dx> + <c_w, dw> + <c_b, db>, the derivatives by x, w and g, all with m and r seen as the functions of x that they are

What is kept of a channel is four numbers: the rounded mean, the drift (what rounding has left of the mean), r and v. So x of mean 1e4 has in h the digits that it
has itself, h need not be kept, and where x is constant it is 0. They are float32 for 16-bit floats, otherwise of the dtype of x.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gpugrad.backend import address, namespace
from gpugrad.cuda.loader import Source
from gpugrad.kernels.kernel import Kernel
from gpugrad.kernels.linear import SOURCE as LINEAR

SOURCE = Source("normalise.cu")
Needs = tuple[bool, bool, bool]
ALL: Needs = (True, True, True)


def moment_dtype(dtype: Any) -> Any:
    """In which the moments of arrays of this dtype are."""
    return np.dtype(np.float32) if dtype.itemsize == 2 else dtype


# ---------------------------------------------------------------------------------- the formulas, of arrays or of Tensors


def _mean(a: Any) -> Any:
    return a.sum(axis=(0, 2), keepdims=True) / max(a.shape[0] * a.shape[2], 1)


def _beside(a: Any, along: int) -> Any:
    """A weight beside x."""
    return a.reshape((1, -1, 1) if along == 1 else (1, 1, -1))


def _over(a: Any, along: int) -> Any:
    """Summed as the gradient of a weight is."""
    return a.sum(axis=(0, 3 - along))


def _projected(d: Any, h: Any, centred: bool) -> Any:
    """S(d) / r."""
    y = d - h * _mean(h * d)
    return y - _mean(d) if centred else y


def moments(x: Any, eps: float, centred: bool) -> tuple[Any, Any]:
    """h and r of x in differentiable operations."""
    c = x - _mean(x) if centred else x
    c = c - _mean(c) if centred else c
    r = (_mean(c * c) + eps) ** -0.5
    return c * r, r


def pulled_back(h: Any, r: Any, w: Any, g: Any, along: int, centred: bool) -> tuple[Any, Any, Any]:
    """The formula of ``backward``: dx, dw and db."""
    d = g if w is None else g * _beside(w, along)
    return r * _projected(d, h, centred), _over(g * h, along), _over(g, along)


def pulled_back_twice(h: Any, r: Any, w: Any, g: Any, c: Any, c_w: Any, c_b: Any, along: int, centred: bool) -> tuple[Any, Any, Any]:
    """The formula of ``twice``: the derivatives by x, w and g. c_w and c_b may be None, for zeros."""
    a, b = _projected(c, h, centred), _mean(h * c)
    d, s = g if w is None else g * _beside(w, along), r * a
    e = _mean(h * d)
    bent = e * c + b * d + h * (_mean((a + h * b) * d) - 3 * e * b)
    if centred:
        bent = bent - (e * _mean(c) + b * _mean(d))
    by_x, by_g = -r * r * bent, s if w is None else s * _beside(w, along)
    if c_w is not None:
        by_x, by_g = by_x + r * _projected(g * _beside(c_w, along), h, centred), by_g + h * _beside(c_w, along)
    if c_b is not None:
        by_g = by_g + _beside(c_b, along)
    return by_x, _over(g * s, along), by_g


# ---------------------------------------------------------------------------------- references, which compute in float64


def _wide(a: Any) -> Any:
    return a if a is None or a.dtype.itemsize == 8 else a.astype(np.float64)


def _standardize(x: Any, weight: Any = None, bias: Any = None, *, along: int, eps: float, centred: bool = True) -> tuple[Any, Any]:
    """y of x (outer, channels, inner), and (mean, drift, r, v) of each channel, of shape (4, channels)."""
    xp, c, dtype = namespace(x), _wide(x), moment_dtype(x.dtype)
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        m = drift = xp.zeros((1, x.shape[1], 1))
        if centred:
            mean = _mean(c)
            m = mean.astype(dtype)
            c = c - mean
            rest = _mean(c)
            c, drift = c - rest, (mean - m) + rest
        v = _mean(c * c)
        r = 1 / xp.sqrt(v + eps)
        h = c * r
        y = h if weight is None else h * _beside(_wide(weight), along)
        y = y if bias is None else y + _beside(_wide(bias), along)
        return y.astype(x.dtype), xp.stack([a.ravel().astype(dtype) for a in (m, drift, r, v)])


def _normalised(x: Any, stats: Any) -> tuple[Any, Any]:
    """h and r."""
    m, drift, r, _ = _wide(stats)[:, None, :, None]
    return (_wide(x) - m - drift) * r, r


def _chosen(arrays: Any, needs: Needs, dtypes: Any) -> tuple[Any, ...]:
    return tuple([a.astype(dtype) if need else None for a, need, dtype in zip(arrays, needs, dtypes, strict=True)])


def _backward(x: Any, stats: Any, weight: Any, g: Any, *, along: int, centred: bool = True, needs: Needs = ALL) -> tuple[Any, ...]:
    """dx, dw and db, None where not needed."""
    with np.errstate(over="ignore", invalid="ignore"):
        h, r = _normalised(x, stats)
        return _chosen(pulled_back(h, r, _wide(weight), _wide(g), along, centred), needs, [x.dtype] * 3)


def _twice(x: Any, stats: Any, weight: Any, g: Any, c: Any, c_w: Any, c_b: Any, *, along: int, centred: bool = True, needs: Needs = ALL) -> tuple[Any, ...]:
    """The derivatives by x, w and g of <c, dx> + <c_w, dw> + <c_b, db>, None where not needed. g may be None where that by g is all that is needed."""
    with np.errstate(over="ignore", invalid="ignore"):
        h, r = _normalised(x, stats)
        c, g = _wide(c), _wide(c if g is None else g)
        return _chosen(pulled_back_twice(h, r, _wide(weight), g, c, _wide(c_w), _wide(c_b), along, centred), needs, [x.dtype] * 3)


# ---------------------------------------------------------------------------------- launches


def _width(columns: int, dtype: Any, *arrays: Any) -> int:
    """Elements of a load: 16 bytes, where all rows are aligned to that."""
    wide = 16 // dtype.itemsize
    return wide if columns % wide == 0 and not any(address(a) % 16 for a in arrays if a is not None) else 1


def _launch_rows(entry: str, x: Any, args: tuple[Any, ...], *numbers: Any) -> None:
    """A block for each row."""
    rows, columns = x.shape[1:]
    width = _width(columns, x.dtype, x, *[a for a in args if a is not None and a.dtype == x.dtype])
    threads = min(1024, -(-columns // (width * 64)) * 32)  # two loads for a thread, or more
    SOURCE.launch(f"{entry}_rows", x.dtype, rows, threads, x, *args, rows, columns, *numbers, width)


def _launch_channels(entry: str, x: Any, args: tuple[Any, ...], *numbers: Any) -> None:
    """A block for each channel, or for 32 bytes of channels."""
    inner = x.shape[2]
    along, across = (1, 32 // x.dtype.itemsize) if inner == 1 else (min(256, 1 << (inner - 1).bit_length()), 1)
    SOURCE.launch(f"{entry}_channels", x.dtype, -(-x.shape[1] // across), 256, x, *args, *x.shape, along, across, *numbers)


def _vector(a: Any, x: Any, along: int, otherwise: float) -> Any:
    """A weight; what stands for it where there is none."""
    xp = namespace(x)
    return xp.full(x.shape[along], otherwise, x.dtype) if a is None else xp.ascontiguousarray(a, x.dtype)


def _weight_sums(x: Any, stats: Any, g: Any, u: Any, factors: Any, count: int) -> list[Any]:
    """The sums over the rows of g (p u + q (x - m)) + t and, for a count of 2, of g."""
    xp, (rows, columns) = namespace(x), x.shape[1:]
    height = max(64, -(-rows // 512 // 8) * 8)
    blocks = -(-rows // height)
    partials = xp.empty((2, blocks, columns), stats.dtype)
    SOURCE.launch("weight_sums", x.dtype, (-(-columns // 32), blocks), (32, 8), x, stats, g, u, factors, partials, rows, columns, height)
    sums = xp.empty((count, columns), x.dtype)
    for k in range(count):
        LINEAR.launch("sum_partials", x.dtype, -(-columns // 32), (32, 8), partials[k], sums[k], blocks, columns)
    return list(sums)


def fits(x: Any, along: int) -> bool:
    """Whether the fast twins take it."""
    return bool(x.size) and (along == 1 or x.shape[0] == 1)


def _cuda_standardize(x: Any, weight: Any = None, bias: Any = None, *, along: int, eps: float, centred: bool = True) -> tuple[Any, Any]:
    if not fits(x, along):
        return _standardize(x, weight, bias, along=along, eps=eps, centred=centred)
    xp = namespace(x)
    x = xp.ascontiguousarray(x)
    y, stats = xp.empty(x.shape, x.dtype), xp.empty((4, x.shape[1]), moment_dtype(x.dtype))
    launch = _launch_channels if along == 1 else _launch_rows
    launch("standardize", x, (_vector(weight, x, along, 1), _vector(bias, x, along, 0), y, stats), float(eps), int(centred))
    return y, stats


def _cuda_backward(x: Any, stats: Any, weight: Any, g: Any, *, along: int, centred: bool = True, needs: Needs = ALL) -> tuple[Any, ...]:
    if not fits(x, along):
        return _backward(x, stats, weight, g, along=along, centred=centred, needs=needs)
    xp = namespace(x)
    x, g, stats = xp.ascontiguousarray(x), xp.ascontiguousarray(g, x.dtype), xp.ascontiguousarray(stats, moment_dtype(x.dtype))
    dx, w = xp.empty(x.shape, x.dtype) if needs[0] else None, _vector(weight, x, along, 1)
    sums: Any = (None, None)
    if along == 1:
        sums = xp.empty((2, x.shape[1]), x.dtype)
        _launch_channels("backward", x, (stats, w, g, dx, sums[0], sums[1]), int(centred))
    else:
        if needs[0]:
            _launch_rows("backward", x, (stats, w, g, dx), int(centred))
        if needs[1] or needs[2]:
            sums = _weight_sums(x, stats, g, None, stats[1:], 2)  # whose second row, r, is the factor
    return tuple([a if need else None for a, need in zip((dx, *sums), needs, strict=True)])


def _cuda_twice(
    x: Any, stats: Any, weight: Any, g: Any, c: Any, c_w: Any, c_b: Any, *, along: int, centred: bool = True, needs: Needs = ALL
) -> tuple[Any, ...]:
    if not fits(x, along):
        return _twice(x, stats, weight, g, c, c_w, c_b, along=along, centred=centred, needs=needs)
    xp, dtype = namespace(x), moment_dtype(x.dtype)
    x, c, stats = xp.ascontiguousarray(x), xp.ascontiguousarray(c, x.dtype), xp.ascontiguousarray(stats, dtype)
    g = c if g is None else xp.ascontiguousarray(g, x.dtype)
    by_x, by_g = (xp.empty(x.shape, x.dtype) if need else None for need in (needs[0], needs[2]))
    args = stats, _vector(weight, x, along, 1), g, c, _vector(c_w, x, along, 0), _vector(c_b, x, along, 0), by_x
    by_w = None
    if along == 1:
        by_w = xp.empty(x.shape[1], x.dtype) if needs[1] else None
        _launch_channels("twice", x, (*args, by_w, by_g), int(centred))
    else:
        factors = xp.empty((3, x.shape[1]), dtype) if needs[1] else None
        _launch_rows("twice", x, (*args, by_g, factors), int(centred))
        if needs[1]:
            (by_w,) = _weight_sums(x, stats, g, c, factors, 1)
    return by_x, by_w, by_g


# ---------------------------------------------------------------------------------- kernels

_CUBES = ((1, 1, 1), (1, 5, 1), (1, 37, 29), (37, 29, 1), (300, 5, 1), (3, 1030, 1), (1, 70, 1030), (3, 4, 70), (5, 3, 7), (1, 0, 3), (1, 3, 0), (0, 3, 2))
Samples = list[tuple[tuple[Any, ...], dict[str, Any]]]


def _cases(rng: np.random.Generator, dtype: Any) -> list[tuple[Any, dict[str, Any]]]:
    """An array and its options: weights along rows, which have one outer index, or one for each channel. The last ones have a mean of many standard deviations."""
    found = [(rng.normal(0.5, 2, shape).astype(dtype), {"along": along}) for shape in _CUBES for along in ((1, 2) if shape[0] == 1 else (1,))]
    found += [(rng.normal(30, 0.5, shape).astype(dtype), {"along": along}) for shape, along in (((41, 13, 1), 1), ((1, 7, 513), 2), ((4, 3, 50), 1))]
    return [(x, options | {"centred": centred}) for x, options in found for centred in ((True, False) if x.shape[1] > 5 else (True,))]


def _samples(rng: np.random.Generator, dtype: Any) -> Samples:
    cases = [(x, rng.normal(size=(2, x.shape[options["along"]])).astype(dtype), options) for x, options in _cases(rng, dtype)]
    found: Samples = [((x, w, b), {"eps": 1e-2, **options}) for x, (w, b), options in cases]
    return [*found, *[((x, None, None), {"eps": 1e-2, **options}) for x, _, options in cases[2:5]]]


def _with_stats(rng: np.random.Generator, dtype: Any) -> Any:
    """Arrays with their moments, more arrays and vectors of the same shapes. Of one number, where centred, all derivatives are 0 and what is found is rounding."""
    for x, options in _cases(rng, dtype):
        options["centred"] &= x.shape[0] * x.shape[2] > 1
        stats = _standardize(x, eps=1.0, **options)[1]
        yield x, stats, rng.normal(size=(2, *x.shape)).astype(dtype), rng.normal(size=(3, x.shape[options["along"]])).astype(dtype), options


def _backward_samples(rng: np.random.Generator, dtype: Any) -> Samples:
    needs: list[Needs] = [ALL, (True, False, False), (False, True, True)]
    found: Samples = []
    for i, (x, stats, (g, _), (w, _, _), options) in enumerate(_with_stats(rng, dtype)):
        found.append(((x, stats, w if i % 5 else None, g), {"needs": needs[i % 3], **options}))
    return found


def _twice_samples(rng: np.random.Generator, dtype: Any) -> Samples:
    needs: list[Needs] = [ALL, (False, False, True), (True, True, False), (True, False, False), (False, True, False)]
    found: Samples = []
    for i, (x, stats, (g, c), vectors, options) in enumerate(_with_stats(rng, dtype)):
        w, c_w, c_b = (None if i % 4 == 3 and i % 3 == k else v for k, v in enumerate(vectors))
        found.append(((x, stats, w, None if needs[i % 5] == (False, False, True) else g, c, c_w, c_b), {"needs": needs[i % 5], **options}))
    return found


standardize = Kernel("standardize", _standardize, cpu="normalise_cpu:standardize", cuda=_cuda_standardize, samples=_samples, at_least=256)
standardize_backward = Kernel("standardize_backward", _backward, cpu="normalise_cpu:backward", cuda=_cuda_backward, samples=_backward_samples, at_least=256)
standardize_twice = Kernel("standardize_twice", _twice, cpu="normalise_cpu:twice", cuda=_cuda_twice, samples=_twice_samples, at_least=256)
