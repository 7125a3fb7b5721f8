"""What a fully connected layer does beside its products: bias and activation of Z = X W in one pass, and backwards dZ = dY act'(Z) with the sums of its columns.

Two of the activations (tanh and relu) tell their slope by their value, so that one array is enough. Of the others the slope is taken from
Z + b: seen from the value of a sigmoid near 1, say, it has lost its digits. In both cases ``bias_act`` leaves in ``z`` what ``act_backward`` reads.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gpugrad.backend import address, namespace
from gpugrad.cuda.loader import Source
from gpugrad.kernels import activations, reductions
from gpugrad.kernels.activations import CODES
from gpugrad.kernels.kernel import Kernel
from gpugrad.ops.fit import is_half
from gpugrad.tape import is_inexact

SOURCE = Source("linear.cu", "activations.cuh")

ACTIVATIONS = ("relu", "tanh", "sigmoid", "silu", "gelu", "gelu_tanh")
FROM_Y = ("none", "relu", "tanh")  # whose slope is taken from the value


# ---------------------------------------------------------------------------------- references


def _check_real(x: Any, act: str) -> None:
    if not is_inexact(x.dtype) or x.dtype.kind == "c":
        raise TypeError(f"{act}: got {x.dtype}, expected real floats")


def _bias_act(z: Any, b: Any, *, act: str) -> Any:
    """``act(z + b)`` of z (rows, columns), b (columns,) or None.

    z is written into: it becomes the result where ``act`` is one of FROM_Y, otherwise z + b, and the result is a new array. So ``act_backward`` is
    given z in either case.
    """
    if b is not None:
        z += b
    if act == "none":
        return z
    _check_real(z, act)
    if act == "relu":
        return np.maximum(z, 0, out=z)
    if act == "tanh" and not is_half(z.dtype):
        return np.tanh(z, out=z)
    y = activations.value(z, act=act)
    if act in FROM_Y:
        z[...] = y
        return z
    return y


def _act_backward(g: Any, saved: Any, *, act: str) -> tuple[Any, Any]:
    """``dz = g * act'(z)`` and the sums of its columns, of g (rows, columns) and of what ``bias_act`` left in z, of the same shape."""
    _check_real(g, act)
    if is_half(g.dtype):
        dz, db = _act_backward(g.astype(np.float32), saved.astype(np.float32), act=act)
        return dz.astype(g.dtype), db.astype(g.dtype)
    dz = activations.slope(g, saved, act=act)
    return dz, reductions.total.reference(dz, axis=(0,))


# ---------------------------------------------------------------------------------- launches


def _geometry(rows: int, columns: int, *arrays: Any) -> tuple[int, int, tuple[int, int], tuple[int, int]]:
    """Elements that a thread takes at once (16 bytes, if all rows are aligned to that), rows of a block, grid and block."""
    width = 16 // arrays[0].itemsize
    if columns % width or any(a is not None and address(a) % 16 for a in arrays):
        width = 1
    lanes = 1
    while lanes < 32 and lanes * width < columns:
        lanes *= 2
    height = max(64, -(-rows // 512))
    return width, height, (-(-columns // (lanes * width)), -(-rows // height)), (lanes, 256 // lanes)


def _cuda_bias_act(z: Any, b: Any, *, act: str) -> Any:
    if not z.flags.c_contiguous:
        return _bias_act(z, b, act=act)
    xp = namespace(z)
    b = None if b is None else xp.ascontiguousarray(b)
    y = None if act in FROM_Y else xp.empty(z.shape, z.dtype)
    rows, columns = z.shape
    width, height, grid, block = _geometry(rows, columns, z, b, y)
    SOURCE.launch("bias_act", z.dtype, grid, block, z, b, y, rows, columns, height, width, CODES[act])
    return z if y is None else y


def _cuda_act_backward(g: Any, saved: Any, *, act: str) -> tuple[Any, Any]:
    xp = namespace(g)
    dz = xp.empty(g.shape, g.dtype)
    return dz, _cuda_sums(xp.ascontiguousarray(g), xp.ascontiguousarray(saved), dz, CODES[act])


def _cuda_sums(g: Any, saved: Any, dz: Any, code: int) -> Any:
    """The sums of the columns, by those of blocks of rows; dz is written where it is not None."""
    xp = namespace(g)
    rows, columns = g.shape
    if not rows:
        return xp.zeros(columns, g.dtype)
    width, height, grid, block = _geometry(rows, columns, g, saved, dz)
    partials = xp.empty((grid[1], columns), np.float64 if g.dtype == np.float64 else np.float32)
    SOURCE.launch("act_backward", g.dtype, grid, block, g, saved, dz, partials, rows, columns, height, width, code)
    if grid[1] == 1:
        return partials[0].astype(g.dtype, copy=False)
    sums = xp.empty(columns, g.dtype)
    SOURCE.launch("sum_partials", g.dtype, -(-columns // 32), (32, 8), partials, sums, grid[1], columns)
    return sums


# ---------------------------------------------------------------------------------- kernels

_FORWARD = ("none", *ACTIVATIONS)
_SHAPES = ((1, 1), (5, 1), (3, 7), (37, 29), (70, 64), (300, 5), (3, 1030), (0, 3), (3, 0))
Samples = list[tuple[tuple[Any, ...], dict[str, Any]]]


def _normal(rng: np.random.Generator, shape: tuple[int, ...], dtype: Any) -> Any:
    return rng.normal(0, 2, shape).astype(dtype)


def _bias_samples(rng: np.random.Generator, dtype: Any) -> Samples:
    sized = [((_normal(rng, s, dtype), _normal(rng, s[1:], dtype)), {"act": act}) for act in _FORWARD for s in _SHAPES]
    return [*sized, *(((_normal(rng, (5, 33), dtype), None), {"act": act}) for act in _FORWARD)]


def _backward_samples(rng: np.random.Generator, dtype: Any) -> Samples:
    """Cotangents of one sign: where sums cancel, their size says nothing about the errors to expect."""
    zs = [(act, _normal(rng, s, dtype)) for act in ACTIVATIONS for s in _SHAPES]
    return [((np.abs(_normal(rng, z.shape, dtype)), np.tanh(z) if act == "tanh" else z), {"act": act}) for act, z in zs]


bias_act = Kernel("bias_act", _bias_act, cpu="linear_cpu:bias_act", cuda=_cuda_bias_act, samples=_bias_samples, writes=(0,))
act_backward = Kernel("act_backward", _act_backward, cpu="linear_cpu:act_backward", cuda=_cuda_act_backward, samples=_backward_samples)
