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
