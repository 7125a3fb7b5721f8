"""Filling parameters with random numbers, in place, from the generator of :mod:`gpugrad.random`.

A weight has shape (in, out), so its fan_in is its first length, unlike in PyTorch.
"""

from __future__ import annotations

import math
from typing import Any

from gpugrad import random
from gpugrad.autograd import no_grad
from gpugrad.tape import Tensor

_GAINS = {"linear": 1.0, "sigmoid": 1.0, "tanh": 5 / 3, "relu": math.sqrt(2), "selu": 3 / 4}


def calculate_gain(nonlinearity: str, param: float = 0.01) -> float:
    """The factor by which a weight's standard deviation makes up for what follows it; ``param`` is the slope of leaky_relu.

    Raises:
        ValueError: not a known nonlinearity.
    """
    if nonlinearity == "leaky_relu":
        return math.sqrt(2 / (1 + param * param))
    if nonlinearity not in _GAINS:
        raise ValueError(f"unknown nonlinearity {nonlinearity!r}: expected one of {', '.join([*_GAINS, 'leaky_relu'])}")
    return _GAINS[nonlinearity]


def fans(t: Tensor) -> tuple[int, int]:
    """(fan_in, fan_out) of a weight of shape (in, out).

    Raises:
        ValueError: it does not have two axes.
    """
    if t.ndim != 2:
        raise ValueError(f"fan_in and fan_out are those of a weight of shape (in, out), got shape {t.shape}")
    return t.shape[0], t.shape[1]


def uniform_(t: Tensor, low: float = 0.0, high: float = 1.0, generator: Any = None) -> Tensor:
    """Fill with numbers distributed evenly over [low, high)."""
    return _fill(t, (generator or random).uniform(low, high, t.shape, dtype=t.dtype))


def normal_(t: Tensor, mean: float = 0.0, std: float = 1.0, generator: Any = None) -> Tensor:
    """Fill with normally distributed numbers."""
    return _fill(t, (generator or random).normal(mean, std, t.shape, dtype=t.dtype))


def constant_(t: Tensor, value: float) -> Tensor:
    """Fill with ``value``."""
    return _fill(t, value)


def zeros_(t: Tensor) -> Tensor:
    """Fill with zeros."""
    return _fill(t, 0)


def ones_(t: Tensor) -> Tensor:
    """Fill with ones."""
    return _fill(t, 1)


def xavier_uniform_(t: Tensor, gain: float = 1.0, generator: Any = None) -> Tensor:
    """Uniform with standard deviation ``gain sqrt(2 / (fan_in + fan_out))``. Glorot and Bengio, "Understanding the difficulty of training deep feedforward neural networks" (2010)."""
    bound = gain * math.sqrt(6 / max(sum(fans(t)), 1))
    return uniform_(t, -bound, bound, generator)


def xavier_normal_(t: Tensor, gain: float = 1.0, generator: Any = None) -> Tensor:
    """Normal with standard deviation ``gain sqrt(2 / (fan_in + fan_out))``."""
    return normal_(t, 0.0, gain * math.sqrt(2 / max(sum(fans(t)), 1)), generator)


def kaiming_uniform_(t: Tensor, a: float = 0, mode: str = "fan_in", nonlinearity: str = "leaky_relu", generator: Any = None) -> Tensor:
    """Uniform with standard deviation ``gain / sqrt(fan)``. He et al., "Delving deep into rectifiers" (2015). ``a`` is the slope of leaky_relu (0: relu)."""
    bound = math.sqrt(3) * _kaiming_std(t, a, mode, nonlinearity)
    return uniform_(t, -bound, bound, generator)


def kaiming_normal_(t: Tensor, a: float = 0, mode: str = "fan_in", nonlinearity: str = "leaky_relu", generator: Any = None) -> Tensor:
    """Normal with standard deviation ``gain / sqrt(fan)``; see :func:`kaiming_uniform_`."""
    return normal_(t, 0.0, _kaiming_std(t, a, mode, nonlinearity), generator)


def _kaiming_std(t: Tensor, a: float, mode: str, nonlinearity: str) -> float:
    if mode not in ("fan_in", "fan_out"):
        raise ValueError(f"mode must be 'fan_in' or 'fan_out', got {mode!r}")
    return calculate_gain(nonlinearity, a) / math.sqrt(max(fans(t)[mode == "fan_out"], 1))


def _fill(t: Tensor, values: Any) -> Tensor:
    with no_grad():
        return t.copy_(values)
