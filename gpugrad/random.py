"""Random numbers, the same on every device.

A counter-based generator (Philox: J. Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011) draws on the CPU, and the result is moved
to where it is asked for. The functions of this module share one generator, ``default_generator``, which starts from seed 0 unless :func:`seed` says
otherwise. Its state for a checkpoint is ``default_generator.state_dict()``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from gpugrad import backend
from gpugrad.quantile import normal_quantile
from gpugrad.tape import Tensor, as_examples, box, is_batched, is_inexact, plain

Size = int | Sequence[int] | None


class Generator:
    """A stream of random numbers. Two generators with one seed give the same numbers, on any device."""

    def __init__(self, seed: int = 0) -> None:
        self.seed(seed)

    def seed(self, seed: int) -> None:
        """Start again, from ``seed`` (a non-negative integer)."""
        self._numpy = np.random.Generator(np.random.Philox(seed))

    @property
    def state(self) -> dict[str, Any]:
        """Where the stream stands: set it to what it was to draw the same numbers again."""
        return self._numpy.bit_generator.state  # type: ignore[return-value]

    @state.setter
    def state(self, state: dict[str, Any]) -> None:
        self._numpy.bit_generator.state = state

    def state_dict(self) -> dict[str, Any]:
        """Where the stream stands, as strings, integers below 2^64 and lists of them: for a checkpoint, and as it is for JSON.

        Nothing is rounded: a generator that loads it draws the same bits from there on.
        """
        state = self.state
        return {name: np.asarray(value).tolist() for name, value in {**state, **state["state"]}.items() if name != "state"}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from where :meth:`state_dict` was taken.

        Raises:
            ValueError: not such a dict (the generator stays as it was).
        """
        try:
            loaded = np.random.Philox(0)
            numbers = {name: _words(name, state[name], length) for name, length in _STATE.items()}
            numbers["state"] = {name: numbers.pop(name) for name in ("counter", "key")}
            loaded.state = {"bit_generator": state["bit_generator"], **numbers}  # type: ignore[typeddict-item]
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            reason = f"{error} is missing" if type(error) is KeyError else str(error)
            raise ValueError(f"cannot load the state of a generator: {reason}; expected what Generator.state_dict() returned") from None
        self._numpy = np.random.Generator(loaded)

    def reserve(self, blocks: int) -> tuple[tuple[int, int], int]:
        """Key and counter of a stretch of the stream, for kernels that draw it themselves: its block k = 0, ..., blocks - 1 is the four words of 64 bits that
        Philox makes of the key and of counter + k + 1. This generator goes on behind it."""
        state = self.state
        own = state["state"]
        counter = sum(int(word) << 64 * i for i, word in enumerate(own["counter"]))
        following = counter + blocks
        own["counter"] = np.array([following >> 64 * i & (2**64 - 1) for i in range(4)], np.uint64)
        state["buffer_pos"] = 4  # what was left of an earlier block is passed over
        self.state = state
        return (int(own["key"][0]), int(own["key"][1])), counter

    def normal(self, loc: float = 0.0, scale: float = 1.0, size: Size = None, *, dtype: Any = np.float64, device: str | None = None) -> Tensor:
        """Normally distributed numbers with mean ``loc`` and standard deviation ``scale``.

        Raises:
            ValueError: ``scale`` is negative.
        """
        if scale < 0:
            raise ValueError(f"normal: got scale={scale}, expected a standard deviation of at least 0")
        dtype, drawn = _dtypes(dtype)
        z = np.asarray(self._numpy.standard_normal(size, drawn))
        return _tensor(z * scale + loc, dtype, device)

    def uniform(self, low: float = 0.0, high: float = 1.0, size: Size = None, *, dtype: Any = np.float64, device: str | None = None) -> Tensor:
        """Numbers distributed evenly over [low, high), which rounding to ``dtype`` does not leave.

        Raises:
            ValueError: not ``low <= high``, or one of them is not finite.
        """
        low, high = float(low), float(high)
        if not -math.inf < low <= high < math.inf:
            raise ValueError(f"uniform: got low={low} and high={high}, expected finite numbers with low <= high")
        dtype, drawn = _dtypes(dtype)
        u = np.asarray(self._numpy.random(size, drawn))
        return _tensor(_within(u * (high - low) + low, low, high, dtype, open_above=True), dtype, device)

    def truncated_normal(
        self,
        loc: float = 0.0,
        scale: float = 1.0,
        low: float = -2.0,
        high: float = 2.0,
        size: Size = None,
        *,
        dtype: Any = np.float64,
        device: str | None = None,
    ) -> Tensor:
        """Normally distributed numbers under the condition that they lie in [low, high], which rounding to ``dtype`` does not leave.

        Each is the quantile of one uniform float64, so as many are drawn as are asked for. An interval in the upper tail is mirrored: there the
        distribution function would have no digits left.

        Raises:
            ValueError: ``scale`` is not positive, or [low, high] is empty or so far out that its probability is 0 in float64 (some 38 ``scale``).
        """
        a, b = ((bound - loc) / scale if scale > 0 else math.nan for bound in (low, high))
        mirrored = a + b > 0
        p, q = (0.5 * math.erfc(-z / math.sqrt(2)) for z in ((-b, -a) if mirrored else (a, b)))
        if not p < q:
            raise ValueError(
                f"truncated_normal: got loc={loc}, scale={scale}, low={low}, high={high}, expected scale > 0 and an interval with a probability above 0"
            )
        dtype, _ = _dtypes(dtype)
        z = normal_quantile(p + np.maximum(self._numpy.random(size), 2.0**-54) * (q - p))
        return _tensor(_within((-z if mirrored else z) * scale + loc, low, high, dtype), dtype, device)

    def exponential(self, scale: float = 1.0, size: Size = None, *, dtype: Any = np.float64, device: str | None = None) -> Tensor:
        """Exponentially distributed numbers with mean ``scale``."""
        dtype, drawn = _dtypes(dtype)
        return _tensor(np.asarray(self._numpy.standard_exponential(size, drawn)) * scale, dtype, device)

    def bernoulli(self, p: Any = 0.5, size: Size = None, *, dtype: Any = np.bool_, device: str | None = None) -> Tensor:
        """One (True) with probability ``p``, else zero. For an array ``p`` its shape and device are those of the result, unless they are given.

        Inside :func:`gpugrad.vmap` each example of a ``p`` that depends on the examples is drawn for itself.

        Raises:
            ValueError: ``p`` is not between 0 and 1 (an array on a GPU is not looked at), or it depends on the example and ``size`` is given.
        """
        if size is not None and is_batched(p):
            raise ValueError(
                "bernoulli inside gg.vmap: got a size, and probabilities that depend on the example: give p the shape that is wanted, by gg.broadcast_to"
            )
        batches, p = p, backend.asarray(plain(p), device=device)
        if backend.namespace(p) is np and not ((p >= 0) & (p <= 1)).all():
            raise ValueError(f"bernoulli: got p={p[~((p >= 0) & (p <= 1))].flat[0]}, expected probabilities from 0 to 1")
        u = self._numpy.random(p.shape if size is None else size)
        return box(as_examples((backend.to_device(np.asarray(u), backend.device_of(p)) < p).astype(dtype), batches))

    def randint(self, low: int, high: int | None = None, size: Size = None, *, dtype: Any = np.int64, device: str | None = None) -> Tensor:
        """Integers distributed evenly over [low, high), or [0, low) without ``high``."""
        return _tensor(self._numpy.integers(low, high, size, dtype), dtype, device)

    def permutation(self, x: Any, *, device: str | None = None) -> Tensor:
        """The integers below ``x`` in random order, or the array ``x`` with its first axis in random order (on its own device).

        Inside :func:`gpugrad.vmap` the order is the same for all examples.
        """
        return _rows(x, self._numpy.permutation(_length(x)), device)

    def choice(self, a: Any, size: Size = None, replace: bool = True, p: Any = None, *, device: str | None = None) -> Tensor:
        """So many of the integers below ``a``, or of the rows of the array ``a`` (on its own device), each with its probability in ``p`` or all alike.

        Raises:
            ValueError: ``p`` does not fit or sum to 1, depends on the example (inside vmap), or without ``replace`` there are too few.
        """
        if is_batched(p):
            raise ValueError(
                "choice inside gg.vmap: got probabilities that depend on the example, expected the same for all, since what is drawn is the same for all"
            )
        return _rows(a, self._numpy.choice(_length(a), size, replace, None if p is None else backend.to_device(plain(p), "cpu")), device)

    def shuffle(self, x: Any) -> None:
        """Put the rows of an array, a Tensor or a list in random order, in place."""
        order = self._numpy.permutation(len(x))
        if isinstance(x, list):
            x[:] = [x[i] for i in order]
        elif type(x) is Tensor:
            x.copy_(_rows(x, order, None))
        else:
            x[...] = _rows(x, order, None).data


def _length(x: Any) -> int:
    return int(x) if isinstance(x, (int, np.integer)) else len(x)


def _rows(x: Any, order: Any, device: str | None) -> Tensor:
    """``order`` itself where ``x`` is a number, else those rows of ``x``."""
    order = np.asarray(order)
    if isinstance(x, (int, np.integer)):
        return _tensor(order, np.int64, device)
    array = as_examples(backend.asarray(plain(x), device=device), x)
    return box(array[backend.to_device(order, backend.device_of(plain(array)))])


_STATE = {"counter": 4, "key": 2, "buffer": 4, "buffer_pos": None, "has_uint32": None, "uinteger": None}  # the lengths of the lists; None: a number


def _words(name: str, value: Any, length: int | None) -> Any:
    """One entry of a generator's state."""
    words = value if isinstance(value, list) else [value]
    largest = {"buffer_pos": 4, "has_uint32": 1, "uinteger": 2**32 - 1}.get(name, 2**64 - 1)
    if isinstance(value, list) != (length is not None) or len(words) != (length or 1) or not all(type(w) is int and 0 <= w <= largest for w in words):
        raise ValueError(f"got {name} {value!r}, expected {f'{length} integers' if length else 'an integer'} from 0 to {largest}")
    return np.array(value, np.uint64) if length else value


def _dtypes(dtype: Any) -> tuple[Any, Any]:
    """The dtype asked for, and the one to draw in: NumPy's generator knows float32 and float64."""
    dtype = backend.as_dtype(dtype)
    if not is_inexact(dtype) or dtype.kind == "c":
        raise TypeError(f"got dtype {dtype}, expected a real floating one; for integers there is randint")
    return dtype, np.float64 if dtype == np.float64 else np.float32


def _within(x: Any, low: float, high: float, dtype: Any, open_above: bool = False) -> Any:
    """``x`` as ``dtype``, between those of its numbers that lie within [low, high], or [low, high)."""
    with np.errstate(over="ignore"):
        lowest, highest = (np.asarray(bound).astype(dtype) for bound in (low, high))
        if float(lowest) < low:
            lowest = np.nextafter(lowest, dtype.type(math.inf))
        if float(highest) > high or (open_above and float(highest) == high):
            highest = np.nextafter(highest, dtype.type(-math.inf))
        return np.minimum(np.maximum(x.astype(dtype, copy=False), lowest), np.maximum(highest, lowest))


def _tensor(values: Any, dtype: Any, device: str | None) -> Tensor:
    return Tensor(backend.to_device(np.asarray(values).astype(dtype, copy=False), device))


default_generator = Generator(0)
seed = default_generator.seed
normal = default_generator.normal
uniform = default_generator.uniform
truncated_normal = default_generator.truncated_normal
exponential = default_generator.exponential
bernoulli = default_generator.bernoulli
randint = default_generator.randint
permutation = default_generator.permutation
choice = default_generator.choice
shuffle = default_generator.shuffle
