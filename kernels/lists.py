"""Kernels over lists of arrays, which change them in place: what the three twins of every optimizer's update share.

An update is declared by its reference (:class:`Update`). It reads the learning rate, the count of steps and the norm by which gradients are clipped from
the device, if they are arrays there. So a training step never waits for the GPU, and a recorded one goes on with the numbers that were put there since.

16-bit arrays are computed in float32 and rounded once; what an optimizer remembers of a parameter is of the parameter's dtype, as in PyTorch.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from itertools import repeat
from typing import Any, TypeAlias, TypedDict

import numpy as np

from gpugrad import backend
from gpugrad.cuda.loader import Source
from gpugrad.kernels.kernel import Kernel

Arrays: TypeAlias = list[Any]
Number: TypeAlias = Any  # a number, or an array of one float64

PIECE = 4096  # elements: what a block of threads works on, and what one partial sum of a norm adds up; a multiple of what a load takes
_MOST_BLOCKS = 1 << 13  # more pieces than that are taken in turns, so that what a block computes once for itself costs nothing
_THREADS = 256


class Common(TypedDict, total=False):
    """What every update takes beside its own options; the gradient that its formula speaks of is the one that these make::

    g = c g                          c of clip_coefficient(norm, max_norm); -g to maximize
    g = g + weight_decay p           or, decoupled, p = p - lr weight_decay p
    """

    weight_decay: float
    decoupled: bool
    maximize: bool
    norm: Number | None
    max_norm: float | None


class Update(Kernel):
    """A kernel that changes parameters and what is remembered of them in place, given their gradients. The signature of its reference declares it::

        def _name(params, grads, averages, others=None, *, lr: Number, momentum: float = 0.0, nesterov: bool = False, **common: Unpack[Common])

    - what is not given of the lists (``others``) does not exist, for this call;
    - the Numba twin is ``name`` in ``MODULE_cpu.py``, with the same signature;
    - the CUDA kernel is ``name`` in ``source``. It takes the tables of the arrays, then the options in the order of the signature, a ``Number`` as a pointer
      and a ``double``, a ``bool`` as ``int64``, then those of :class:`Common`, as :meth:`Tables.common` gives them.
    """

    def __init__(self, name: str, reference: Callable[..., Any], source: Source, *, samples: Any) -> None:
        parameters = inspect.signature(reference).parameters.values()
        self.lists = sum(p.kind is p.POSITIONAL_OR_KEYWORD for p in parameters)
        self.options = {p.name: (str(p.annotation), p.default) for p in parameters if p.kind is p.KEYWORD_ONLY}
        self.source = source
        cpu = f"{source.name.removesuffix('.cu')}_cpu:{name}"
        super().__init__(name, reference, cpu=cpu, cuda=self._launch, samples=samples, writes=(0, *range(2, self.lists)))

    def _launch(self, *lists: Arrays | None, **given: Any) -> None:
        """All arrays in one launch."""
        t = Tables((*lists, *[None] * (self.lists - len(lists))), self.writes)
        own: list[Any] = []
        for name, (kind, default) in self.options.items():
            value = given.pop(name, default)
            own += t.at(value) if kind == "Number" else [int(value) if kind == "bool" else float(value)]
        t.launch(self.source, self.name, *own, *t.common(**given))
        copied_back(t.copies)


# ------------------------------------------------------------------------------------------------- the specification's share


def in_place(
    update: Callable[..., tuple[Any, ...]],
    lists: Sequence[Arrays | None],
    rate: Number,
    weight_decay: float = 0.0,
    decoupled: bool = False,
    maximize: bool = False,
    norm: Number | None = None,
    max_norm: float | None = None,
) -> None:
    """Call ``update(p, g, *what is remembered)`` for each parameter, and store the new p and what it remembers, which it returns in that order.

    g is the gradient of :class:`Common`, ``rate`` the learning rate of decoupled weight decay. Arrays of 16 bits are given as float32, missing ones as None.
    """
    scale = _scale(norm, max_norm, maximize)
    for arrays in zip(*[repeat(None) if column is None else column for column in lists]):
        p, g, *remembered = [a if a is None or a.dtype.itemsize != 2 else a.astype(np.float32) for a in arrays]
        if scale is not None:
            g = g * scale
        if weight_decay and decoupled:
            p = p - rate * weight_decay * p
        elif weight_decay:
            g = g + weight_decay * p
        p, *remembered = update(p, g, *remembered)
        arrays[0][...] = p
        for a, new in zip(arrays[2:], remembered):
            if a is not None:
                a[...] = new


def clip_coefficient(norm: Number, max_norm: float | None) -> Any:
    """``min(1, max_norm / (norm + 1e-6))``, as in PyTorch's ``clip_grad_norm_``.

    A norm of nan gives nan, so that all parameters show it; an infinite norm gives 0, by which infinite gradients become nan and the others 0.
    """
    if norm is None or max_norm is None:
        return 1.0
    return np.minimum(max_norm / (norm + 1e-6), 1.0)


def _scale(norm: Number | None, max_norm: float | None, maximize: bool) -> Any:
    """By what gradients are multiplied, None for 1."""
    if norm is None or max_norm is None:
        return -1.0 if maximize else None
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


# ------------------------------------------------------------------------------------------------- arrays as the kernels take them


def flattened(arrays: Sequence[Any], written: Sequence[int]) -> tuple[list[Any], Sequence[tuple[Any, Any]]]:
    """Arrays of one shape with one axis, contiguous, all in one order; and (array, copy of it) of those that the kernel writes into but had to be copied.

    Missing ones are None and stay so. Arrays that are contiguous in Fortran's order are taken as they lie in memory.

    Raises:
        TypeError: dtypes differ.
        ValueError: shapes differ, or an array that is written into is read-only.
        gpugrad.backend.DeviceError: devices differ.
    """
    first = arrays[0]
    for a in arrays[1:]:
        if a is not None and (a.dtype != first.dtype or a.shape != first.shape or backend.device_of(a) != backend.device_of(first)):
            raise (TypeError if a.dtype != first.dtype else ValueError if a.shape != first.shape else backend.DeviceError)(
                f"got {_described(a)} beside {_described(first)}, expected the parameter, its gradient and what is remembered of it alike"
            )
    if type(first) is np.ndarray and not all(arrays[i].flags.writeable for i in written if arrays[i] is not None):
        raise ValueError("got a read-only array, expected one to write into; give the optimizer a copy")
    if not first.flags.c_contiguous and first.flags.f_contiguous:
        arrays = [a if a is None else a.T for a in arrays]
    flat = [a if a is None else (a if is_straight(a) else a.copy()).reshape(-1) for a in arrays]
    return flat, [(arrays[i], flat[i]) for i in written if arrays[i] is not None and not is_straight(arrays[i])]


def _described(a: Any) -> str:
    return f"{a.dtype} {a.shape}" + f" on {backend.device_of(a)}" * (type(a) is not np.ndarray)


def is_straight(a: Any) -> bool:
    """Whether a kernel can read the array as it lies in memory: one number after another, each at a multiple of its size."""
    return a.flags.c_contiguous and (type(a) is not np.ndarray or a.flags.aligned)


def copied_back(copies: Sequence[tuple[Any, Any]]) -> None:
    """Put what the kernel wrote into copies where it belongs."""
    for array, copy in copies:
        array[...] = copy.reshape(array.shape)


# ------------------------------------------------------------------------------------------------- CUDA: all arrays in one launch


class Tables:
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

    def launch(self, source: Source, entry: str, *args: Any) -> None:
        source.launch(entry, self.dtype, min(self.count, _MOST_BLOCKS), _THREADS, self.addresses, self.pieces, self.count, *args)

    def at(self, x: Number | None) -> tuple[Any, float]:
        """A pointer into the device's memory, or null and the number itself."""
        if x is None or not backend.is_array(x):
            return None, float(x or 0)
        if self.xp is not np and backend.namespace(x) is np:
            return None, float(number(x))
        return number(x), 0.0

    def common(
        self,
        weight_decay: float = 0.0,
        decoupled: bool = False,
        maximize: bool = False,
        norm: Number | None = None,
        max_norm: float | None = None,
    ) -> tuple[Any, ...]:
        """Where the norm is, the norm, max_norm, weight_decay, decoupled, maximize."""
        most = float("inf") if norm is None or max_norm is None else float(max_norm)
        return (*self.at(norm), most, float(weight_decay), int(decoupled), int(maximize))


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
