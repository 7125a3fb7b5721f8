"""Optimizers' updates of many arrays at once, and the norm of many arrays together.

Each kernel takes lists of arrays, writes in place, and reads the learning rate, the count of steps and the norm by which gradients are clipped from the
device, if they are arrays there. So a training step never waits for the GPU, and a recorded one goes on with the numbers that were put there since.

16-bit arrays are computed in float32 and rounded once; what an optimizer remembers of a parameter is of the parameter's dtype, as in PyTorch.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np

from gpugrad import backend
from gpugrad.cuda.loader import Source
from gpugrad.kernels.kernel import Kernel

Arrays: TypeAlias = list[Any]
Number: TypeAlias = Any  # a number, or an array of one float64

source = Source("optimizers.cu")
PIECE = 4096  # elements: what a block of threads works on, and what one partial sum of a norm adds up; a multiple of what a load takes
_MOST_BLOCKS = 1 << 13  # more pieces than that are taken in turns, so that what a block computes once for itself costs nothing
_THREADS = 256


# ------------------------------------------------------------------------------------------------- the specification


def _sgd(
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
    """Gradient descent in place, along the buffers if there are any::

    g = c g                            c of clip_coefficient(norm, max_norm); -g to maximize
    g = g + weight_decay p
    b = momentum b + keep g            keep = 1 - dampening; in the first step b = 0 and keep = 1
    g = g + momentum b if nesterov else b
    p = p - lr g
    """
    scale, lr = _scale(norm, max_norm, maximize), number(lr)
    for i, stored in enumerate(params):
        p, g = _wide(stored), _wide(grads[i]) * scale
        if weight_decay:
            g = g + weight_decay * p
        if buffers is not None:
            b = momentum * _wide(buffers[i]) + keep * g
            buffers[i][...] = b
            g = g + momentum * b if nesterov else b
        stored[...] = p - lr * g


def _adam(
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
    """Adam in place (AdamW if ``decoupled``), in step ``step``, which counts from 1::

    g = c g                            c of clip_coefficient(norm, max_norm); -g to maximize
    g = g + weight_decay p             or, decoupled, p = p - lr weight_decay p
    m = beta1 m + (1 - beta1) g
    v = beta2 v + (1 - beta2) g^2
    w = max(w, v)                      if there are max_exp_avg_sqs (AMSGrad), else w = v
    p = p - lr (m / (1 - beta1^step)) / (sqrt(w / (1 - beta2^step)) + eps)
    """
    scale, lr, step = _scale(norm, max_norm, maximize), number(lr), number(step)
    rate, root = lr / (1 - beta1**step), (1 - beta2**step) ** -0.5
    for i, stored in enumerate(params):
        p, g = _wide(stored), _wide(grads[i]) * scale
        if weight_decay and decoupled:
            p = p - lr * weight_decay * p
        elif weight_decay:
            g = g + weight_decay * p
        m = beta1 * _wide(exp_avgs[i]) + (1 - beta1) * g
        v = beta2 * _wide(exp_avg_sqs[i]) + (1 - beta2) * g * g
        exp_avgs[i][...], exp_avg_sqs[i][...] = m, v
        if max_exp_avg_sqs is not None:
            v = np.maximum(_wide(max_exp_avg_sqs[i]), v)
            max_exp_avg_sqs[i][...] = v
        stored[...] = p - rate * (m / (np.sqrt(v) * root + eps))


def _grad_norm(grads: Arrays) -> Any:
    """``sqrt(sum |g|^2)`` over all elements of all arrays: an array of no axes, float64 so that the squares of float32's largest numbers do not overflow."""
    squares = [np.sum(np.square(g.astype(np.float64))) for g in grads]
    return backend.namespace(grads[0]).asarray(np.sqrt(sum(squares[1:], squares[0])))


def clip_coefficient(norm: Number, max_norm: float | None) -> Any:
    """``min(1, max_norm / (norm + 1e-6))``, as in PyTorch's ``clip_grad_norm_``.

    A norm of nan gives nan, so that all parameters show it; an infinite norm gives 0, by which infinite gradients become nan and the others 0.
    """
    if norm is None or max_norm is None:
        return 1.0
    return np.minimum(max_norm / (norm + 1e-6), 1.0)


def _scale(norm: Number | None, max_norm: float | None, maximize: bool) -> Any:
    coefficient = clip_coefficient(number(norm), max_norm)
    coefficient = coefficient if backend.is_array(coefficient) else float(coefficient)  # a number of Python leaves dtypes as they are
    return -coefficient if maximize else coefficient


def number(x: Number) -> Any:
    """A number of Python, or an array of no axes in float64."""
    if not backend.is_array(x):
        return x
    if x.size != 1:
        raise ValueError(f"got an array of shape {x.shape}, expected a number or an array of one")
    return x.reshape(()).astype(np.float64, copy=False)


def _wide(a: Any) -> Any:
    return a.astype(np.float32) if a.dtype.itemsize == 2 else a


# ------------------------------------------------------------------------------------------------- arrays as the kernels take them


def flattened(arrays: Sequence[Any], written: Sequence[int]) -> tuple[list[Any], Sequence[tuple[Any, Any]]]:
    """Arrays of one shape with one axis, contiguous, all in one order; and (array, copy of it) of those that the kernel writes into but had to be copied.

    Missing ones are None and stay so. Arrays that are contiguous in Fortran's order are taken as they lie in memory.

    Raises:
        TypeError: dtypes differ.
        ValueError: shapes differ, or an array that is written into is read-only.
    """
    first = arrays[0]
    for a in arrays:
        if a is not None and (a.dtype != first.dtype or a.shape != first.shape):
            raise (TypeError if a.dtype != first.dtype else ValueError)(
                f"got {a.dtype} {a.shape} beside {first.dtype} {first.shape}, expected the parameter, its gradient and what is remembered of it alike"
            )
    if type(first) is np.ndarray and not all(arrays[i].flags.writeable for i in written if arrays[i] is not None):
        raise ValueError("got a read-only array, expected one to write into; give the optimizer a copy")
    if not first.flags.c_contiguous and first.flags.f_contiguous:
        arrays = [a if a is None else a.T for a in arrays]
    flat = [a if a is None else (a if is_straight(a) else a.copy()).reshape(-1) for a in arrays]
    return flat, [(arrays[i], flat[i]) for i in written if arrays[i] is not None and not is_straight(arrays[i])]


def is_straight(a: Any) -> bool:
    """Whether a kernel can read the array as it lies in memory: one number after another, each at a multiple of its size."""
    return a.flags.c_contiguous and (type(a) is not np.ndarray or a.flags.aligned)


def copied_back(copies: Sequence[tuple[Any, Any]]) -> None:
    """Put what the kernel wrote into copies where it belongs."""
    for array, copy in copies:
        array[...] = copy.reshape(array.shape)


# ------------------------------------------------------------------------------------------------- CUDA: all arrays in one launch


class _Tables:
    """Where all arrays of a launch lie, as the kernel reads it: their addresses, and the pieces that they are worked on in."""

    def __init__(self, lists: Sequence[Arrays | None], written: Sequence[int] = ()) -> None:
        columns = [flattened(arrays, written) for arrays in zip(*[a if a is not None else [None] * len(lists[0] or ()) for a in lists])]
        first = columns[0][0][0]
        self.xp, self.dtype = backend.namespace(first), first.dtype
        self.arrays = [flat for flat, _ in columns]  # which have to live until the launch
        self.copies = [pair for _, pairs in columns for pair in pairs]
        if any(flat[0].dtype != self.dtype for flat in self.arrays):
            raise TypeError(f"got arrays of {', '.join(sorted({str(flat[0].dtype) for flat in self.arrays}))}, expected one dtype: call once for each")
        error = backend.mixed_devices([flat[0] for flat in self.arrays])
        if error is not None:
            raise error
        device = backend.device_of(first)
        self.addresses = _uploaded(tuple([_address(a) for flat in self.arrays for a in flat]), device)
        self.count, self.pieces = _pieces(tuple([flat[0].size for flat in self.arrays]), device)

    def launch(self, entry: str, *args: Any) -> None:
        source.launch(entry, self.dtype, min(self.count, _MOST_BLOCKS), _THREADS, self.addresses, self.pieces, self.count, *args)

    def at(self, x: Number | None) -> tuple[Any, float]:
        """A pointer into the device's memory, or null and the number itself."""
        if x is None or not backend.is_array(x):
            return None, float(x or 0)
        if self.xp is not np and backend.namespace(x) is np:
            return None, float(number(x))
        return number(x), 0.0

    def clip(self, norm: Number | None, max_norm: float | None) -> tuple[Any, float, float]:
        return (*self.at(norm), float("inf") if norm is None or max_norm is None else float(max_norm))


def _address(a: Any) -> int:
    return 0 if a is None else a.ctypes.data if type(a) is np.ndarray else a.data.ptr


@functools.lru_cache(maxsize=64)
def _uploaded(addresses: tuple[int, ...], device: str) -> Any:
    """The addresses on the device. An allocator gives the same memory out again, so from the second or third step on there is nothing to copy."""
    return backend.to_device(np.array(addresses, np.int64), device)


@functools.lru_cache(maxsize=64)
def _pieces(sizes: tuple[int, ...], device: str) -> tuple[int, Any]:
    """How many pieces there are, and (array, first element, behind the last element) of each."""
    counts = [-(-size // PIECE) for size in sizes]
    table = np.empty((sum(counts), 3), np.int64)
    table[:, 0] = np.repeat(np.arange(len(sizes)), counts)
    table[:, 1] = np.concatenate([np.arange(n) * PIECE for n in counts])
    table[:, 2] = np.minimum(table[:, 1] + PIECE, np.array(sizes)[table[:, 0]])
    return len(table), backend.to_device(table.reshape(-1), device)


def _sgd_cuda(
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
    t = _Tables((params, grads, buffers), written=(0, 2))
    t.launch("sgd", *t.at(lr), *t.clip(norm, max_norm), float(momentum), float(keep), float(weight_decay), int(nesterov), int(maximize))
    copied_back(t.copies)


def _adam_cuda(
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
    t = _Tables((params, grads, exp_avgs, exp_avg_sqs, max_exp_avg_sqs), written=(0, 2, 3, 4))
    options = (float(beta1), float(beta2), float(eps), float(weight_decay), int(decoupled), int(maximize))
    t.launch("adam", *t.at(lr), *t.at(step), *t.clip(norm, max_norm), *options)
    copied_back(t.copies)


def _grad_norm_cuda(grads: Arrays) -> Any:
    t = _Tables((grads,))
    partials, norm = t.xp.empty(t.count, np.float64), t.xp.empty((), np.float64)
    t.launch("squares", partials)
    source.launch("norm_of_squares", t.dtype, 1, _THREADS, partials, t.count, norm)
    return norm


# ------------------------------------------------------------------------------------------------- the kernels

_SIZES = ((), (0,), (3, 1), (31,), (8, 32), (4097,), (2, PIECE))


def _drawn(rng: np.random.Generator, dtype: Any, lists: int) -> list[Arrays]:
    """Parameters, gradients and what is remembered of them: from the fourth list on, averages of squares."""
    draw = lambda shape, i: np.asarray(rng.uniform(0.1, 1.0, shape) if i > 2 else rng.normal(size=shape)).astype(dtype)
    return [[draw(shape, i) for shape in _SIZES] for i in range(lists)]


def _sgd_samples(rng: np.random.Generator, dtype: Any) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
    plain = ({"lr": 0.1}, {"lr": 0.1, "weight_decay": 0.1, "maximize": True, "norm": 4.0, "max_norm": 0.5})
    with_momentum = {"lr": 0.1, "momentum": 0.9, "keep": 0.7, "weight_decay": 0.1}
    with_buffers = (with_momentum, {**with_momentum, "keep": 1.0, "nesterov": True, "norm": 0.1, "max_norm": 0.5})
    return [((*_drawn(rng, dtype, 2), None), options) for options in plain] + [(tuple(_drawn(rng, dtype, 3)), options) for options in with_buffers]


def _adam_samples(rng: np.random.Generator, dtype: Any) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
    options = {"lr": 0.1, "beta1": 0.8, "beta2": 0.9, "eps": 1e-3, "weight_decay": 0.1, "step": 3}
    clipped = {**options, "decoupled": True, "maximize": True, "norm": 4.0, "max_norm": 0.5}
    return [((*_drawn(rng, dtype, 4), None), options), (tuple(_drawn(rng, dtype, 5)), clipped), (tuple(_drawn(rng, dtype, 5)), {"lr": 0.1, "step": 1})]


def _norm_samples(rng: np.random.Generator, dtype: Any) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
    (grads,) = _drawn(rng, dtype, 1)
    return [((grads,), {}), ((grads[1:2],), {})]


sgd = Kernel("sgd", _sgd, cpu="optimizers_cpu:sgd", cuda=_sgd_cuda, samples=_sgd_samples, writes=(0, 2))
adam = Kernel("adam", _adam, cpu="optimizers_cpu:adam", cuda=_adam_cuda, samples=_adam_samples, writes=(0, 2, 3, 4))
grad_norm = Kernel("grad_norm", _grad_norm, cpu="optimizers_cpu:grad_norm", cuda=_grad_norm_cuda, samples=_norm_samples)
