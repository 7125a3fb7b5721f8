"""Numba twins of :mod:`gpugrad.kernels.linear`.

The rows are taken in blocks of 64, whose columns are summed as they come by, while the sums lie in the nearest cache; the sums of the blocks are then
added in float64. The blocks are the same whatever the number of threads that share them, so the sums are too.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gpugrad import jit
from gpugrad.kernels import activations_cpu as activations
from gpugrad.kernels import linear
from gpugrad.kernels.activations import CODES
from gpugrad.kernels.activations_cpu import number

ROWS = 64


@jit.inlined
def value(act, z):  # type: ignore[no-untyped-def]
    """act(z), of those without parameters."""
    zero = number(0.0, z)
    return activations.value(act, z, zero, zero)


@jit.inlined
def slope(act, g, s):  # type: ignore[no-untyped-def]
    """g act'(z), where s is the value of relu and tanh, and z of the others."""
    zero = number(0.0, s)
    return activations.times_slope(act, g, s, zero, zero)


def _bias_act_of(act: int) -> Any:
    def run(z, b, first, last):  # type: ignore[no-untyped-def]
        for i in range(first * ROWS, min(last * ROWS, z.shape[0])):
            for j in range(z.shape[1]):
                z[i, j] = value(act, z[i, j] + b[j])

    return jit.compiled(run)


def _bias_and_act_of(act: int) -> Any:
    def run(z, b, y, first, last):  # type: ignore[no-untyped-def]
        for i in range(first * ROWS, min(last * ROWS, z.shape[0])):
            for j in range(z.shape[1]):
                u = z[i, j] + b[j]
                z[i, j] = u
                y[i, j] = value(act, u)

    return jit.compiled(run)


def _act_backward_of(act: int) -> Any:
    def run(g, saved, dz, partials, first, last):  # type: ignore[no-untyped-def]
        for block in range(first, last):
            total = partials[block]
            total[:] = 0
            start, stop = block * ROWS, min((block + 1) * ROWS, g.shape[0])
            fours = stop - (stop - start) % 4  # four rows together, because the sums are then loaded and stored a quarter as often
            for i in range(start, fours, 4):
                for j in range(g.shape[1]):
                    d0, d1 = slope(act, g[i, j], saved[i, j]), slope(act, g[i + 1, j], saved[i + 1, j])
                    d2, d3 = slope(act, g[i + 2, j], saved[i + 2, j]), slope(act, g[i + 3, j], saved[i + 3, j])
                    dz[i, j], dz[i + 1, j], dz[i + 2, j], dz[i + 3, j] = d0, d1, d2, d3
                    total[j] += (d0 + d1) + (d2 + d3)
            for i in range(fours, stop):
                for j in range(g.shape[1]):
                    d = slope(act, g[i, j], saved[i, j])
                    dz[i, j] = d
                    total[j] += d

    return jit.compiled(run)


_BIAS_ACT = {act: (_bias_act_of if act in linear.FROM_Y else _bias_and_act_of)(CODES[act]) for act in ("none", *linear.ACTIVATIONS)}
_ACT_BACKWARD = {act: _act_backward_of(CODES[act]) for act in linear.ACTIVATIONS}


@jit.compiled
def _together(partials, wide, sums):  # type: ignore[no-untyped-def]
    wide[:] = 0
    for i in range(partials.shape[0]):
        for j in range(partials.shape[1]):
            wide[j] += partials[i, j]
    for j in range(partials.shape[1]):
        sums[j] = wide[j]


def bias_act(z: Any, b: Any, *, act: str) -> Any:
    """See :func:`gpugrad.kernels.linear._bias_act`."""
    if not z.flags.c_contiguous:
        return linear._bias_act(z, b, act=act)
    b = np.zeros(z.shape[1], z.dtype) if b is None else b if b.flags.c_contiguous else b.copy()
    if act in linear.FROM_Y:
        _by_blocks(_BIAS_ACT[act], z, b)
        return z
    y = np.empty(z.shape, z.dtype)
    _by_blocks(_BIAS_ACT[act], z, b, y)
    return y


def act_backward(g: Any, saved: Any, *, act: str) -> tuple[Any, Any]:
    """See :func:`gpugrad.kernels.linear._act_backward`."""
    g = g if g.flags.c_contiguous else g.copy()
    saved = saved if saved.flags.c_contiguous else saved.copy()
    dz = np.empty(g.shape, g.dtype)
    partials = np.empty((-(-len(g) // ROWS), g.shape[1]), g.dtype)
    _by_blocks(_ACT_BACKWARD[act], g, saved, dz, partials)
    return dz, _added(partials)


def _by_blocks(run: Any, x: Any, *arrays: Any) -> None:
    """``run`` over the blocks of rows of x, on several threads where there are enough of them."""
    blocks = -(-len(x) // ROWS)
    if x.size < 2 * jit.LEAST:
        run(x, *arrays, 0, blocks)
    else:
        jit.split(lambda first, last: run(x, *arrays, first, last), blocks, -(-jit.LEAST // (ROWS * x.shape[1])))


def _added(partials: Any) -> Any:
    if len(partials) == 1:
        return partials[0]
    sums = np.empty(partials.shape[1], partials.dtype)
    _together(partials, np.empty(sums.shape), sums)
    return sums
