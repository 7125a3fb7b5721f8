"""Numba twins of the optimizers: one pass over a parameter, its gradient and what is remembered of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import repeat
from typing import Any, Unpack

import numpy as np

from gpugrad import backend, jit
from gpugrad.kernels.lists import PIECE, Arrays, Common, Number, clip_coefficient, copied_back, flattened, is_straight, number
from gpugrad.kernels.optimizers import nadam_momentum

# Elements for which a thread pays: more than jit.LEAST, because the threads of the matrix products, which have just run, spin for a while and are in the way.
_LEAST = 1 << 20
_LANES = 64  # sums of squares side by side, so that they vectorise without being told that sums may be reordered


# ------------------------------------------------------------------------------------------------- each array in one pass


def _in_place(
    loop: Callable[..., None],
    lists: Sequence[Arrays | None],
    rate: float,
    own: tuple[float, ...],
    weight_decay: float = 0.0,
    decoupled: bool = False,
    maximize: bool = False,
    norm: Number | None = None,
    max_norm: float | None = None,
) -> None:
    """Call ``loop(*arrays, numbers, start, stop)`` for each parameter and what belongs to it. ``numbers`` are scale, decay and shrink, then the update's own.

    The gradient is scale g + decay p; decoupled weight decay multiplies p by shrink. ``rate`` is the learning rate of the latter.
    """
    shrink, decay = (1 - rate * weight_decay, 0.0) if decoupled else (1.0, weight_decay)
    numbers = np.array([_scale(norm, max_norm, maximize), decay, shrink, *own], lists[0][0].dtype)  # type: ignore[index]
    for arrays in zip(*[repeat(None) if column is None else column for column in lists]):
        _run(loop, arrays, numbers)


def _run(loop: Callable[..., None], arrays: Sequence[Any], numbers: Any) -> None:
    shape, dtype = arrays[0].shape, numbers.dtype
    copies: Sequence[tuple[Any, Any]] = ()
    if all([a is None or (a.flags.carray and a.shape == shape and a.dtype is dtype) for a in arrays]):  # noqa: C419  # the usual case, in as little time as can be
        flat = [a if a is None else a.ravel() for a in arrays]  # views of such arrays, at half the cost of reshape(-1)
    elif arrays[0].dtype != dtype:
        raise TypeError(f"got arrays of {dtype} and {arrays[0].dtype}, expected one dtype: call once for each")
    else:
        flat, copies = flattened(arrays, (0, *range(2, len(arrays))))
    size = arrays[0].size
    if size < 2 * _LEAST:
        loop(*flat, numbers, 0, size)
    else:
        jit.split(lambda start, stop: loop(*flat, numbers, start, stop), size, _LEAST)
    copied_back(copies)


def _number(x: Number) -> float:
    if not backend.is_array(x):
        return x
    if type(x) is not np.ndarray:
        raise backend.DeviceError(f"got a number on {backend.device_of(x)} for parameters on the CPU, expected it there too")
    return float(number(x))


def _scale(norm: Number | None, max_norm: float | None, maximize: bool) -> float:
    c = 1.0 if norm is None else float(clip_coefficient(_number(norm), max_norm))
    return -c if maximize else c


# ------------------------------------------------------------------------------------------------- SGD


def sgd(
    params: Arrays,
    grads: Arrays,
    buffers: Arrays | None = None,
    *,
    lr: Number,
    momentum: float = 0.0,
    keep: float = 1.0,
    nesterov: bool = False,
    **common: Unpack[Common],
) -> None:
    lr = _number(lr)
    _in_place(_sgd, (params, grads, buffers), lr, (lr, momentum, keep, nesterov), **common)


@jit.compiled
def _sgd(p: Any, g: Any, b: Any, numbers: Any, start: int, stop: int) -> None:
    scale, decay, shrink, lr, momentum, keep, nesterov = numbers[0], numbers[1], numbers[2], numbers[3], numbers[4], numbers[5], numbers[6]
    p, g = p[start:stop], g[start:stop]
    if b is not None:
        buffer = b[start:stop]
    for i in range(p.size):
        d = scale * g[i]
        if decay != 0:
            d += decay * p[i]
        if b is not None:
            new = momentum * buffer[i] + keep * d
            buffer[i] = new
            d = d + momentum * new if nesterov != 0 else new
        if shrink != 1:
            p[i] *= shrink
        p[i] -= lr * d


# ------------------------------------------------------------------------------------------------- Adam and NAdam


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
    **common: Unpack[Common],
) -> None:
    lr, step = _number(lr), _number(step)
    own = (lr / (1 - beta1**step), (1 - beta2**step) ** -0.5, beta1, 1 - beta1, beta2, 1 - beta2, eps)
    _in_place(_adam, (params, grads, exp_avgs, exp_avg_sqs, max_exp_avg_sqs), lr, own, **common)


@jit.compiled
def _adam(p: Any, g: Any, m: Any, v: Any, w: Any, numbers: Any, start: int, stop: int) -> None:
    scale, decay, shrink, rate, unbias = numbers[0], numbers[1], numbers[2], numbers[3], numbers[4]
    beta1, gain1, beta2, gain2, eps = numbers[5], numbers[6], numbers[7], numbers[8], numbers[9]
    p, g, m, v = p[start:stop], g[start:stop], m[start:stop], v[start:stop]
    if w is not None:
        largest = w[start:stop]
    for i in range(p.size):
        d = scale * g[i]
        if decay != 0:
            d += decay * p[i]
        mean = beta1 * m[i] + gain1 * d
        square = beta2 * v[i] + gain2 * d * d
        m[i] = mean
        v[i] = square
        if w is not None:
            square = largest[i] if largest[i] > square or largest[i] != largest[i] else square
            largest[i] = square
        p[i] = shrink * p[i] - rate * (mean / (np.sqrt(square) * unbias + eps))


def nadam(
    params: Arrays,
    grads: Arrays,
    exp_avgs: Arrays,
    exp_avg_sqs: Arrays,
    *,
    lr: Number,
    step: Number,
    mu_product: Number,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
    momentum_decay: float = 4e-3,
    **common: Unpack[Common],
) -> None:
    lr, step, product = _number(lr), _number(step), _number(mu_product)
    mu, next_mu = (nadam_momentum(t, beta1, momentum_decay) for t in (step, step + 1))
    of_g, of_m = lr * (1 - mu) / (1 - product), lr * next_mu / (1 - product * next_mu)
    own = (of_m, of_g, (1 - beta2**step) ** -0.5, beta1, 1 - beta1, beta2, 1 - beta2, eps)
    _in_place(_nadam, (params, grads, exp_avgs, exp_avg_sqs), lr, own, **common)


@jit.compiled
def _nadam(p: Any, g: Any, m: Any, v: Any, numbers: Any, start: int, stop: int) -> None:
    scale, decay, shrink, of_m, of_g, unbias = numbers[0], numbers[1], numbers[2], numbers[3], numbers[4], numbers[5]
    beta1, gain1, beta2, gain2, eps = numbers[6], numbers[7], numbers[8], numbers[9], numbers[10]
    p, g, m, v = p[start:stop], g[start:stop], m[start:stop], v[start:stop]
    for i in range(p.size):
        d = scale * g[i]
        if decay != 0:
            d += decay * p[i]
        mean = beta1 * m[i] + gain1 * d
        square = beta2 * v[i] + gain2 * d * d
        m[i] = mean
        v[i] = square
        p[i] = shrink * p[i] - (of_m * mean + of_g * d) / (np.sqrt(square) * unbias + eps)


# ------------------------------------------------------------------------------------------------- RMSprop


def rmsprop(
    params: Arrays,
    grads: Arrays,
    square_avgs: Arrays,
    grad_avgs: Arrays | None = None,
    buffers: Arrays | None = None,
    *,
    lr: Number,
    alpha: float = 0.99,
    eps: float = 1e-8,
    momentum: float = 0.0,
    **common: Unpack[Common],
) -> None:
    lr = _number(lr)
    _in_place(_rmsprop, (params, grads, square_avgs, grad_avgs, buffers), lr, (lr, alpha, 1 - alpha, eps, momentum), **common)


@jit.compiled
def _rmsprop(p: Any, g: Any, v: Any, m: Any, b: Any, numbers: Any, start: int, stop: int) -> None:
    scale, decay, shrink, lr, alpha, gain, eps, momentum = numbers[0], numbers[1], numbers[2], numbers[3], numbers[4], numbers[5], numbers[6], numbers[7]
    zero = p.dtype.type(0)
    p, g, v = p[start:stop], g[start:stop], v[start:stop]
    if m is not None:
        average = m[start:stop]
    if b is not None:
        buffer = b[start:stop]
    for i in range(p.size):
        d = scale * g[i]
        if decay != 0:
            d += decay * p[i]
        square = alpha * v[i] + gain * d * d
        v[i] = square
        if m is not None:
            mean = alpha * average[i] + gain * d
            average[i] = mean
            square -= mean * mean
            square = zero if square < zero else square
        d = d / (np.sqrt(square) + eps)
        if b is not None:
            d += momentum * buffer[i]
            buffer[i] = d
        p[i] = shrink * p[i] - lr * d


# ------------------------------------------------------------------------------------------------- Adagrad and Adadelta


def adagrad(
    params: Arrays, grads: Arrays, sums: Arrays, *, lr: Number, step: Number, lr_decay: float = 0.0, eps: float = 1e-10, **common: Unpack[Common]
) -> None:
    rate = _number(lr) / (1 + (_number(step) - 1) * lr_decay)
    _in_place(_adagrad, (params, grads, sums), rate, (rate, eps), **common)


@jit.compiled
def _adagrad(p: Any, g: Any, s: Any, numbers: Any, start: int, stop: int) -> None:
    scale, decay, shrink, rate, eps = numbers[0], numbers[1], numbers[2], numbers[3], numbers[4]
    p, g, s = p[start:stop], g[start:stop], s[start:stop]
    for i in range(p.size):
        d = scale * g[i]
        if decay != 0:
            d += decay * p[i]
        total = s[i] + d * d
        s[i] = total
        p[i] = shrink * p[i] - rate * (d / (np.sqrt(total) + eps))


def adadelta(
    params: Arrays, grads: Arrays, square_avgs: Arrays, acc_deltas: Arrays, *, lr: Number, rho: float = 0.9, eps: float = 1e-6, **common: Unpack[Common]
) -> None:
    lr = _number(lr)
    _in_place(_adadelta, (params, grads, square_avgs, acc_deltas), lr, (lr, rho, 1 - rho, eps), **common)


@jit.compiled
def _adadelta(p: Any, g: Any, v: Any, u: Any, numbers: Any, start: int, stop: int) -> None:
    scale, decay, shrink, lr, rho, gain, eps = numbers[0], numbers[1], numbers[2], numbers[3], numbers[4], numbers[5], numbers[6]
    p, g, v, u = p[start:stop], g[start:stop], v[start:stop], u[start:stop]
    for i in range(p.size):
        d = scale * g[i]
        if decay != 0:
            d += decay * p[i]
        square = rho * v[i] + gain * d * d
        v[i] = square
        d = np.sqrt(u[i] + eps) / np.sqrt(square + eps) * d
        u[i] = rho * u[i] + gain * d * d
        p[i] = shrink * p[i] - lr * d


# ------------------------------------------------------------------------------------------------- Lion


def lion(params: Arrays, grads: Arrays, exp_avgs: Arrays, *, lr: Number, beta1: float = 0.9, beta2: float = 0.99, **common: Unpack[Common]) -> None:
    lr = _number(lr)
    _in_place(_lion, (params, grads, exp_avgs), lr, (lr, beta1, 1 - beta1, beta2, 1 - beta2), **common)


@jit.compiled
def _lion(p: Any, g: Any, m: Any, numbers: Any, start: int, stop: int) -> None:
    scale, decay, shrink, lr, beta1, gain1, beta2, gain2 = numbers[0], numbers[1], numbers[2], numbers[3], numbers[4], numbers[5], numbers[6], numbers[7]
    one = p.dtype.type(1)
    p, g, m = p[start:stop], g[start:stop], m[start:stop]
    for i in range(p.size):
        d = scale * g[i]
        if decay != 0:
            d += decay * p[i]
        c = beta1 * m[i] + gain1 * d
        m[i] = beta2 * m[i] + gain2 * d
        sign = one if c > 0 else -one if c < 0 else c  # that of nan is nan
        p[i] = shrink * p[i] - lr * sign


# ------------------------------------------------------------------------------------------------- the norm of all gradients


def grad_norm(grads: Arrays) -> Any:
    partials = [_partials(g) for g in grads]
    return np.asarray(np.sqrt(np.sum(partials[0] if len(partials) == 1 else np.concatenate(partials))))


def _partials(g: Any) -> Any:
    flat = g.reshape(-1) if is_straight(g) else flattened((g,), ())[0][0]
    partials = np.empty(-(-flat.size // PIECE))
    jit.split(lambda start, stop: _squares(flat, partials, start, stop), partials.size, max(1, jit.LEAST // PIECE))
    return partials


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
