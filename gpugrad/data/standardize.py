"""Inputs of mean 0 and standard deviation 1, by numbers that come from the training part alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from gpugrad import backend
from gpugrad.creation import get_default_dtype
from gpugrad.data.dataset import untracked


class Standardizer:
    """``transform(x) = (x - mean) / std``, with the mean and the (population) standard deviation of the x that it was fitted on.

    Fit it on the training part only: what comes from the test part makes its errors look smaller than they are.

    Args:
        axis: what is averaged over: 0 for columns of their own, ``(0, 2)`` and so on, None for one mean of everything.

    Attributes:
        mean, std: float64, on the device of the x that was fitted; the shape of x without ``axis``. Where x is constant, to rounding, std is 1.
    """

    def __init__(self, axis: int | tuple[int, ...] | None = 0) -> None:
        self.axis = axis
        self.mean: Any = None
        self.std: Any = None

    def fit(self, x: Any) -> Standardizer:
        """Take mean and standard deviation of ``x`` (an array or Tensor of real numbers), in float64 and in two passes, whose rounding errors stay small
        where the mean is large (T. Chan, G. Golub, R. LeVeque, "Algorithms for computing the sample variance", 1983). Returns itself.

        Raises:
            ValueError: no rows, or a number that is not finite; its place is said.
            TypeError: complex numbers.
        """
        x = _real(x)
        if not x.size:
            raise ValueError(f"cannot standardize an empty array of shape {x.shape}")
        xp = backend.namespace(x)
        _refuse_nonfinite(x)
        wide = x.astype(np.float64)
        mean = wide.mean(self.axis, keepdims=True)
        mean = mean + (wide - mean).mean(self.axis, keepdims=True)
        std = xp.sqrt(xp.square(wide - mean).mean(self.axis, keepdims=True))
        std = xp.where(std <= 4 * np.finfo(np.float64).eps * xp.abs(mean), 1.0, std)  # also what only the rounding of the mean keeps from 0
        self.mean, self.std = mean.squeeze(self._axes(x.ndim)), std.squeeze(self._axes(x.ndim))
        return self

    def transform(self, x: Any) -> Any:
        """``(x - mean) / std``, on the device and with the dtype of x; integers become :func:`gpugrad.get_default_dtype`.

        Raises:
            RuntimeError: nothing has been fitted.
            ValueError: x has other columns than what was fitted.
        """
        x, mean, std = self._matched(x)
        return ((x - mean) / std).astype(_float(x))

    def inverse(self, x: Any) -> Any:
        """``x * std + mean``; raises what :meth:`transform` raises."""
        x, mean, std = self._matched(x)
        return (x * std + mean).astype(_float(x))

    def state_dict(self) -> dict[str, Any]:
        """``mean`` and ``std``, to be saved beside a model's weights.

        Raises:
            RuntimeError: nothing has been fitted.
        """
        self._check_fitted()
        return {"mean": self.mean, "std": self.std}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """What :meth:`state_dict` gave, as arrays or Tensors.

        Raises:
            ValueError: names or shapes that do not fit, or a std that is not positive and finite.
        """
        if set(state) != {"mean", "std"}:
            raise ValueError(f"the state of a Standardizer is 'mean' and 'std', got {sorted(state)}")
        mean, std = (untracked(state[name]).astype(np.float64) for name in ("mean", "std"))
        if mean.shape != std.shape or not bool((np.isfinite(mean) & np.isfinite(std) & (std > 0)).all()):
            raise ValueError(f"mean and std must be finite and of one shape, std positive: got shapes {mean.shape} and {std.shape}")
        self.mean, self.std = mean, std

    def __repr__(self) -> str:
        return f"Standardizer(axis={self.axis})" + ("" if self.mean is None else f": fitted, mean and std of shape {self.mean.shape}")

    def _axes(self, ndim: int) -> tuple[int, ...]:
        return tuple(range(ndim)) if self.axis is None else self.axis if isinstance(self.axis, tuple) else (self.axis,)

    def _check_fitted(self) -> None:
        if self.mean is None:
            raise RuntimeError("this Standardizer has not been fitted: call fit(x) with the training part first")

    def _matched(self, x: Any) -> tuple[Any, Any, Any]:
        """x, and mean and std on its device, in shapes that broadcast with it."""
        self._check_fitted()
        x = _real(x)
        axes = {a % x.ndim for a in self._axes(x.ndim)} if x.ndim else set()
        kept = tuple(n for i, n in enumerate(x.shape) if i not in axes)
        if kept != self.mean.shape:
            raise ValueError(f"this Standardizer was fitted for shape {self.mean.shape} without the axes {self.axis}, got x of shape {x.shape}")
        shape = tuple(1 if i in axes else n for i, n in enumerate(x.shape))
        return x, *(backend.to_device(a, backend.device_of(x)).reshape(shape) for a in (self.mean, self.std))


def _real(x: Any) -> Any:
    x = untracked(x)
    if x.dtype.kind == "c":
        raise TypeError(f"cannot standardize {x.dtype}: standardize real and imaginary parts")
    return x


def _float(x: Any) -> np.dtype[Any]:
    return get_default_dtype() if x.dtype.kind in "biu" else x.dtype


def _refuse_nonfinite(x: Any) -> None:
    finite = np.isfinite(x) if x.dtype.kind not in "biu" else None
    if finite is None or bool(finite.all()):
        return
    place = np.argwhere(~backend.to_device(finite, "cpu"))[0].tolist()
    value = float(x[tuple(place)])
    where = f"row {place[0]}" + (f", column {place[1]}" if len(place) == 2 else f", at {tuple(place[1:])}" if len(place) > 2 else "")
    raise ValueError(f"cannot standardize x of shape {tuple(x.shape)}: it holds {value} in {where}; remove or fill such rows first")
