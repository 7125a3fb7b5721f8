"""softmax, log_softmax and logsumexp along the middle axis of (outer, n, inner), with the maps of their differentials: what the forward, the backward and the
double backward pass compute. Rows are (rows, n, 1), columns (1, n, columns).

Forward, with m the largest element of a line, z = x - m and ``rest`` the sum of exp(z) over all elements but one of the largest::

    softmax       exp(z) / (1 + rest)        log_softmax   z - log1p(rest)        logsumexp   m + log1p(rest)

so the logarithms keep their relative accuracy where one element outweighs the rest. If m is inf, the elements that are inf share evenly; if it is -inf, the
softmax is 0 and its logarithms are -inf. (PyTorch and JAX give nan in both cases.) A nan makes its line nan.

Backward, of a cotangent g, with p the softmax::

    softmax       d = p (g - sum(p g))       log_softmax   d = g - p sum(g)       logsumexp   d = g p

An element with p > 1/2 is called dominant. There the d of the first two would be a difference of near numbers. It is the negative sum of the other d, for
they sum to 0, and in softmax g is counted from its value there. So the formulas do not read the p of a dominant element, which near 1 has no digits left of the 1 - p that
matters, and their derivatives, the curvatures, do not depend on it.

Double backward, of a cotangent c of d. With u and w the g and c, counted from their values at the dominant element, if there is one::

    softmax       of g: p (w - sum(p w)), as d      of y = p:     w (u - sum(p u)) - u sum(p w)
    log_softmax   of g: w - sum(p w)                of y = log p: -p w sum(g)

"of g" of log_softmax is its tangent too.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gpugrad.backend import namespace
from gpugrad.cuda.loader import Source
from gpugrad.kernels.kernel import Kernel

SOURCE = Source("softmax.cu", "rows.cuh")
_WIDEST_OF_A_WARP = 1024  # elements; a longer row takes a block of threads
_ROWS_OF_A_BLOCK = 4  # a warp for each

# ---------------------------------------------------------------------------------- references, which compute in float64


def _wide(x: Any) -> Any:
    return x.astype(np.float64) if x.dtype.itemsize < 8 else x


def _sum(x: Any) -> Any:
    return x.sum(axis=1, keepdims=True)


def _peak(x: Any) -> tuple[Any, Any]:
    """m and x - m, which is 0 where x is m: of an infinite m the difference would be nan."""
    m = x.max(axis=1, keepdims=True, initial=-np.inf) if not x.shape[1] else x.max(axis=1, keepdims=True)
    return m, np.where(x == m, 0, x - m)


def _rest(z: Any) -> Any:
    top = z == 0
    return _sum(np.where(top, 0, np.exp(z))) + (_sum(top) - 1)


def _softmax(x: Any, scale: Any = None) -> Any:
    """softmax times scale (outer, inner), which is 1 if None."""
    with np.errstate(all="ignore"):
        m, z = _peak(_wide(x))
        e = np.exp(z)
        y = np.where(m == -np.inf, 0 * e, e / _sum(e))
        return (y if scale is None else y * _wide(scale)[:, None]).astype(x.dtype, copy=False)


def _log_softmax(x: Any) -> Any:
    with np.errstate(all="ignore"):
        m, z = _peak(_wide(x))
        return np.where(m == -np.inf, m, z - np.log1p(_rest(z))).astype(x.dtype, copy=False)


def _logsumexp(x: Any) -> Any:
    with np.errstate(all="ignore"):
        m, z = _peak(_wide(x))
        return np.where(np.isinf(m), m, m + np.log1p(_rest(z))).astype(x.dtype, copy=False)[:, 0]


def dominant(y: Any, bound: float) -> Any:
    """Where the first element of each line above the bound is, as a mask."""
    if not y.shape[1]:
        return y > bound
    above = y > bound
    return above & (namespace(y).arange(y.shape[1])[:, None] == above.argmax(axis=1)[:, None])


def _counted(g: Any, top: Any) -> Any:
    """g, counted from its value at the dominant element."""
    return g - _sum(np.where(top, g, 0))


def _balanced(d: Any, top: Any) -> Any:
    """d, where at a dominant element stands the negative sum of the others."""
    others = np.where(top, 0, d)
    return np.where(top, -_sum(others), others)


HALF, LOG_HALF = 0.5, float(np.log(0.5))


def _softmax_slope(g: Any, y: Any) -> Any:
    p, top = _wide(y), dominant(y, HALF)
    u = _counted(_wide(g), top)
    return _balanced(p * (u - _sum(p * u)), top).astype(g.dtype, copy=False)


def _log_softmax_slope(g: Any, y: Any) -> Any:
    wide = _wide(g)
    return _balanced(wide - np.exp(_wide(y)) * _sum(wide), dominant(y, LOG_HALF)).astype(g.dtype, copy=False)


def _softmax_curvature(c: Any, g: Any, y: Any) -> tuple[Any, Any]:
    """The cotangents of g and of y, from c of softmax_slope(g, y)."""
    p, top = _wide(y), dominant(y, HALF)
    u, w = _counted(_wide(g), top), _counted(_wide(c), top)
    s, t = _sum(p * u), _sum(p * w)
    return _balanced(p * (w - t), top).astype(c.dtype, copy=False), (w * (u - s) - u * t).astype(c.dtype, copy=False)


def _log_softmax_curvature(c: Any, g: Any, y: Any) -> tuple[Any, Any]:
    """The cotangents of g and of y, from c of log_softmax_slope(g, y); the second is None where g is."""
    p, w = np.exp(_wide(y)), _counted(_wide(c), dominant(y, LOG_HALF))
    of_g = (w - _sum(p * w)).astype(c.dtype, copy=False)
    return of_g, None if g is None else (-(p * w) * _sum(_wide(g))).astype(c.dtype, copy=False)


# ---------------------------------------------------------------------------------- launches


def _launch(entry: str, x: Any, *args: Any) -> None:
    """One of three entry points: a warp for a row, a block of threads for a long one, or one for up to 32 columns."""
    outer, n, inner = x.shape
    if not outer * inner:
        return
    if inner == 1 and n <= _WIDEST_OF_A_WARP:
        SOURCE.launch(f"{entry}_by_warps", x.dtype, -(-outer // _ROWS_OF_A_BLOCK), 32 * _ROWS_OF_A_BLOCK, *args, outer, n)
    elif inner == 1:
        SOURCE.launch(f"{entry}_by_blocks", x.dtype, outer, 256 if n <= 8192 else 1024, *args, n)
    else:
        wide = min(32, 1 << (inner - 1).bit_length())
        SOURCE.launch(f"{entry}_by_columns", x.dtype, outer * -(-inner // wide), (wide, (256 if n <= 8192 else 512) // wide), *args, n, inner)


def _forward(x: Any, scale: Any, log: bool, with_y: bool) -> tuple[Any, Any]:
    xp = namespace(x)
    x = xp.ascontiguousarray(x)
    y, out = xp.empty(x.shape, x.dtype) if with_y else None, None if with_y else xp.empty((x.shape[0], x.shape[2]), x.dtype)
    _launch("softmax", x, x, None if scale is None else xp.ascontiguousarray(scale, x.dtype), y, out, int(log))
    return y, out


def _backward(c: Any, g: Any, y: Any, log: bool, second: bool) -> tuple[Any, Any]:
    """The slope of g, or the curvature of c and g."""
    first = c if second else g
    xp, dtype = namespace(first), first.dtype
    c, g, y = (a if a is None else xp.ascontiguousarray(a, dtype) for a in (c, g, y))
    of_g, of_y = xp.empty(first.shape, dtype), xp.empty(first.shape, dtype) if second and g is not None else None
    _launch("softmax_curvature" if second else "softmax_slope", first, *([c, g, y, of_g, of_y] if second else [g, y, of_g]), int(log))
    return of_g, of_y


# ---------------------------------------------------------------------------------- kernels

_SHAPES = (
    (1, 1, 1),
    (5, 1, 1),
    (37, 29, 1),
    (300, 5, 1),
    (3, 1030, 1),
    (2, 9001, 1),
    (1, 37, 29),
    (2, 5, 3),
    (3, 17, 64),
    (0, 3, 1),
    (3, 0, 1),
    (2, 3, 0),
    (2, 0, 3),
)
Samples = list[tuple[tuple[Any, ...], dict[str, Any]]]


def _arrays(rng: np.random.Generator, dtype: Any) -> list[Any]:
    """Logits: of every shape some whose lines have a dominant element and some whose lines do not."""
    return [(rng.normal(size=shape) * size).astype(dtype) for shape in _SHAPES for size in (1, 8)]


def _forward_samples(rng: np.random.Generator, dtype: Any) -> Samples:
    inf = np.inf
    odd = np.array([[0, -inf, 1], [inf, 0, inf], [-inf, -inf, -inf], [np.nan, 0, inf], [-inf, np.nan, -inf], [2, 2, 2]], dtype)
    return [((x,), {}) for x in [*_arrays(rng, dtype), odd[:, :, None], odd.T[None], np.repeat(odd, 11, axis=0).T[None]]]


def _softmax_samples(rng: np.random.Generator, dtype: Any) -> Samples:
    plain = _forward_samples(rng, dtype)
    return plain + [((x, rng.normal(size=(x.shape[0], x.shape[2])).astype(dtype)), {}) for (x,), _ in plain]


def _of_y(count: int, log: bool) -> Any:
    """Samples of so many cotangents and the softmax or its logarithm. Each is rounded to its dtype first, and what is dominant is so by far."""

    def samples(rng: np.random.Generator, dtype: Any) -> Samples:
        ys = [(_log_softmax if log else _softmax)(x) for x in _arrays(rng, dtype)]
        return [((*[rng.normal(size=y.shape).astype(dtype) for _ in range(count)], y), {}) for y in ys]

    return samples


def _curvature_samples(rng: np.random.Generator, dtype: Any) -> Samples:
    found: Samples = _of_y(2, True)(rng, dtype)
    return found + [((c, None, y), {}) for (c, _, y), _ in found]


softmax = Kernel(
    "softmax",
    _softmax,
    cpu="softmax_cpu:softmax",
    cuda=lambda x, scale=None: _forward(x, scale, False, True)[0],
    samples=_softmax_samples,
    at_least=256,
)
log_softmax = Kernel(
    "log_softmax",
    _log_softmax,
    cpu="softmax_cpu:log_softmax",
    cuda=lambda x: _forward(x, None, True, True)[0],
    samples=_forward_samples,
    at_least=256,
)
logsumexp = Kernel(
    "logsumexp",
    _logsumexp,
    cpu="softmax_cpu:logsumexp",
    cuda=lambda x: _forward(x, None, True, False)[1],
    samples=_forward_samples,
    at_least=256,
)
softmax_slope = Kernel(
    "softmax_slope",
    _softmax_slope,
    cpu="softmax_cpu:softmax_slope",
    cuda=lambda g, y: _backward(None, g, y, False, False)[0],
    samples=_of_y(1, False),
    at_least=256,
)
log_softmax_slope = Kernel(
    "log_softmax_slope",
    _log_softmax_slope,
    cpu="softmax_cpu:log_softmax_slope",
    cuda=lambda g, y: _backward(None, g, y, True, False)[0],
    samples=_of_y(1, True),
    at_least=256,
)
softmax_curvature = Kernel(
    "softmax_curvature",
    _softmax_curvature,
    cpu="softmax_cpu:softmax_curvature",
    cuda=lambda c, g, y: _backward(c, g, y, False, True),
    samples=_of_y(2, False),
    at_least=256,
)
log_softmax_curvature = Kernel(
    "log_softmax_curvature",
    _log_softmax_curvature,
    cpu="softmax_cpu:log_softmax_curvature",
    cuda=lambda c, g, y: _backward(c, g, y, True, True),
    samples=_curvature_samples,
    at_least=256,
)
