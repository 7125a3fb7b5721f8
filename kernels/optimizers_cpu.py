"""Numba twins of the optimizers: one pass over a parameter, its gradient and what is remembered of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gpugrad import backend, jit
from gpugrad.kernels.optimizers import PIECE, Arrays, Number, clip_coefficient, copied_back, flattened, is_straight, number

# Elements for which a thread pays: more than jit.LEAST, because the threads of the matrix products, which have just run, spin for a while and are in the way.
_LEAST = 1 << 20
_LANES = 64  # sums of squares side by side, so that they vectorise without being told that sums may be reordered


def sgd(
    params: Arrays,
    grads: Arrays,
    buffers: Arrays | None = None,
    *,
    lr: Number,
    momentum: float = 0.0,
    keep: float = 1.0,
    weight_decay: float = 0.0,
    nesterov: bool = False,
    maximize: bool = False,
    norm: Number | None = None,
    max_norm: float | None = None,
) -> None:
    scale = _scale(norm, max_norm, maximize)
    options = np.array([_number(lr), scale, weight_decay, momentum, keep], params[0].dtype)
    for i, p in enumerate(params):
        if buffers is None:
            _update(_sgd, (p, grads[i]), (0,), options)
        else:
            _update(_nesterov if nesterov else _momentum, (p, grads[i], buffers[i]), (0, 2), options)


def adam(
    params: Arrays,
    grads: Arrays,
    exp_avgs: Arrays,
    exp_avg_sqs: Arrays,
    max_exp_avg_sqs: Arrays | None = None,
    *,
    lr: Number,
    step: Number,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    decoupled: bool = False,
    maximize: bool = False,
    norm: Number | None = None,
    max_norm: float | None = None,
) -> None:
    scale, lr, step = _scale(norm, max_norm, maximize), _number(lr), _number(step)
    shrink, decay = (1 - lr * weight_decay, 0.0) if decoupled else (1.0, weight_decay)
    rate, unbias = lr / (1 - beta1**step), (1 - beta2**step) ** -0.5
    options = np.array([rate, unbias, shrink, scale, decay, beta1, 1 - beta1, beta2, 1 - beta2, eps], params[0].dtype)
    for i, p in enumerate(params):
        if max_exp_avg_sqs is None:
            _update(_adam, (p, grads[i], exp_avgs[i], exp_avg_sqs[i]), (0, 2, 3), options)
        else:
            _update(_amsgrad, (p, grads[i], exp_avgs[i], exp_avg_sqs[i], max_exp_avg_sqs[i]), (0, 2, 3, 4), options)


def grad_norm(grads: Arrays) -> Any:
    partials = [_partials(g) for g in grads]
    return np.asarray(np.sqrt(np.sum(partials[0] if len(partials) == 1 else np.concatenate(partials))))


def _update(kernel: Any, arrays: tuple[Any, ...], written: tuple[int, ...], options: Any) -> None:
    shape, dtype = arrays[0].shape, options.dtype
    copies: Sequence[tuple[Any, Any]] = ()
    if all([a.flags.carray and a.shape == shape and a.dtype is dtype for a in arrays]):  # noqa: C419  # the usual case, in as little time as can be
        flat = [a.reshape(-1) for a in arrays]
    elif arrays[0].dtype != dtype:
        raise TypeError(f"got arrays of {dtype} and {arrays[0].dtype}, expected one dtype: call once for each")
    else:
        flat, copies = flattened(arrays, written)
    size = flat[0].size
    if size < 2 * _LEAST:
        kernel(*flat, options, 0, size)
    else:
        jit.split(lambda start, stop: kernel(*flat, options, start, stop), size, _LEAST)
    copied_back(copies)


def _partials(g: Any) -> Any:
    flat = g.reshape(-1) if is_straight(g) else flattened((g,), ())[0][0]
    partials = np.empty(-(-flat.size // PIECE))
    jit.split(lambda start, stop: _squares(flat, partials, start, stop), partials.size, max(1, jit.LEAST // PIECE))
    return partials


def _number(x: Number) -> float:
    if not backend.is_array(x):
        return x
    if type(x) is not np.ndarray:
        raise backend.DeviceError(f"got a number on {backend.device_of(x)} for parameters on the CPU, expected it there too")
    return float(number(x))


def _scale(norm: Number | None, max_norm: float | None, maximize: bool) -> float:
    c = 1.0 if norm is None else float(clip_coefficient(_number(norm), max_norm))
    return -c if maximize else c


# ------------------------------------------------------------------------------------------------- compiled: elements start to stop


@jit.compiled
def _sgd(p: Any, g: Any, options: Any, start: int, stop: int) -> None:
    lr, scale, decay = options[0], options[1], options[2]
    p, g = p[start:stop], g[start:stop]
    for i in range(p.size):
        d = scale * g[i]
        if decay != 0:
            d += decay * p[i]
        p[i] -= lr * d


@jit.compiled
def _momentum(p: Any, g: Any, b: Any, options: Any, start: int, stop: int) -> None:
    lr, scale, decay, momentum, keep = options[0], options[1], options[2], options[3], options[4]
    p, g, b = p[start:stop], g[start:stop], b[start:stop]
    for i in range(p.size):
        d = scale * g[i]
        if decay != 0:
            d += decay * p[i]
        d = momentum * b[i] + keep * d
        b[i] = d
        p[i] -= lr * d


@jit.compiled
def _nesterov(p: Any, g: Any, b: Any, options: Any, start: int, stop: int) -> None:
    lr, scale, decay, momentum, keep = options[0], options[1], options[2], options[3], options[4]
    p, g, b = p[start:stop], g[start:stop], b[start:stop]
    for i in range(p.size):
        d = scale * g[i]
        if decay != 0:
            d += decay * p[i]
        buffer = momentum * b[i] + keep * d
        b[i] = buffer
        p[i] -= lr * (d + momentum * buffer)


@jit.compiled
def _adam(p: Any, g: Any, m: Any, v: Any, options: Any, start: int, stop: int) -> None:
    rate, unbias, shrink, scale, decay = options[0], options[1], options[2], options[3], options[4]
    beta1, gain1, beta2, gain2, eps = options[5], options[6], options[7], options[8], options[9]
    p, g, m, v = p[start:stop], g[start:stop], m[start:stop], v[start:stop]
    for i in range(p.size):
        d = scale * g[i]
        if decay != 0:
            d += decay * p[i]
        mean = beta1 * m[i] + gain1 * d
        square = beta2 * v[i] + gain2 * d * d
        m[i] = mean
        v[i] = square
        p[i] = shrink * p[i] - rate * (mean / (np.sqrt(square) * unbias + eps))


@jit.compiled
def _amsgrad(p: Any, g: Any, m: Any, v: Any, w: Any, options: Any, start: int, stop: int) -> None:
    rate, unbias, shrink, scale, decay = options[0], options[1], options[2], options[3], options[4]
    beta1, gain1, beta2, gain2, eps = options[5], options[6], options[7], options[8], options[9]
    p, g, m, v, w = p[start:stop], g[start:stop], m[start:stop], v[start:stop], w[start:stop]
    for i in range(p.size):
        d = scale * g[i]
        if decay != 0:
            d += decay * p[i]
        mean = beta1 * m[i] + gain1 * d
        square = beta2 * v[i] + gain2 * d * d
        m[i] = mean
        v[i] = square
        square = w[i] if w[i] > square or w[i] != w[i] else square
        w[i] = square
        p[i] = shrink * p[i] - rate * (mean / (np.sqrt(square) * unbias + eps))


@jit.compiled
def _squares(g: Any, partials: Any, start: int, stop: int) -> None:
    sums = np.empty(_LANES)
    for piece in range(start, stop):
        x = g[piece * PIECE : (piece + 1) * PIECE]
        sums[:] = 0.0
        rows = x.size // _LANES
        for i in range(rows):
            row = x[i * _LANES : (i + 1) * _LANES]
            for k in range(_LANES):
                sums[k] += np.float64(row[k]) * np.float64(row[k])
        total = 0.0
        for i in range(rows * _LANES, x.size):
            total += np.float64(x[i]) * np.float64(x[i])
        for k in range(_LANES):
            total += sums[k]
        partials[piece] = total
