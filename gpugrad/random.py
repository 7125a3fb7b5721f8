"""Random numbers, the same on every device.

A counter-based generator (Philox: J. Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011) draws on the CPU, and the result is moved
to where it is asked for. The functions of this module share one generator, which starts from seed 0 unless :func:`seed` says otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gpugrad import backend
from gpugrad.tape import Tensor, plain

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
        state = self._numpy.bit_generator.state
        return {name: np.asarray(value).tolist() for name, value in {**state, **state["state"]}.items() if name != "state"}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from where :meth:`state_dict` was taken.

        Raises:
            ValueError: not such a dict (the generator stays as it was).
        """
        try:
            loaded = np.random.Philox(0)
            numbers = {name: _words(name, state[name], length) for name, length in _STATE.items()}
            own = {"state": {name: numbers.pop(name) for name in ("counter", "key")}, "bit_generator": state["bit_generator"]}
            loaded.state = {**own, **numbers}
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            reason = f"{error} is missing" if type(error) is KeyError else str(error)
            raise ValueError(f"cannot load the state of a generator: {reason}; expected what Generator.state_dict() returned") from None
        self._numpy = np.random.Generator(loaded)

    def normal(self, loc: float = 0.0, scale: float = 1.0, size: Size = None, *, dtype: Any = np.float64, device: str | None = None) -> Tensor:
        """Normally distributed numbers with mean ``loc`` and standard deviation ``scale``."""
        dtype, drawn = _dtypes(dtype)
        z = np.asarray(self._numpy.standard_normal(size, drawn))
        return _tensor(z * scale + loc, dtype, device)

    def uniform(self, low: float = 0.0, high: float = 1.0, size: Size = None, *, dtype: Any = np.float64, device: str | None = None) -> Tensor:
        """Numbers distributed evenly over [low, high)."""
        dtype, drawn = _dtypes(dtype)
        u = np.asarray(self._numpy.random(size, drawn))
        return _tensor(u * (high - low) + low, dtype, device)

    def randint(self, low: int, high: int | None = None, size: Size = None, *, dtype: Any = np.int64, device: str | None = None) -> Tensor:
        """Integers distributed evenly over [low, high), or [0, low) without ``high``."""
        return _tensor(self._numpy.integers(low, high, size, dtype), dtype, device)

    def permutation(self, x: Any, *, device: str | None = None) -> Tensor:
        """The integers below ``x`` in random order, or the array ``x`` with its first axis in random order (on its own device)."""
        if isinstance(x, (int, np.integer)):
            return _tensor(self._numpy.permutation(x), np.int64, device)
        array = backend.asarray(plain(x), device=device)
        return Tensor(array[backend.to_device(self._numpy.permutation(len(array)), backend.device_of(array))])


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
    dtype = np.dtype(dtype)
    return dtype, np.float64 if dtype == np.float64 else np.float32


def _tensor(values: Any, dtype: Any, device: str | None) -> Tensor:
    return Tensor(backend.to_device(np.asarray(values).astype(dtype, copy=False), device))


default_generator = Generator(0)
seed = default_generator.seed
normal = default_generator.normal
uniform = default_generator.uniform
randint = default_generator.randint
permutation = default_generator.permutation
