"""Filling parameters with random numbers, in place, from the generator of :mod:`gpugrad.random` or one that is given.

They are drawn on the CPU, so that a seed gives the same numbers on every device. A weight has shape (in, out), so its fan_in is its first length, unlike in
PyTorch.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from gpugrad import random
from gpugrad.autograd import no_grad
from gpugrad.tape import Tensor

# sigmoid's, tanh's and selu's are PyTorch's; those below them 1 / sqrt(E f(z)^2) of a standard normal z, which is what 2 ** 0.5 is for relu.
_GAINS = {
    **{"linear": 1.0, "identity": 1.0, "softmax": 1.0, "log_softmax": 1.0, "sigmoid": 1.0, "tanh": 5 / 3, "relu": math.sqrt(2), "selu": 3 / 4},
    **{"elu": 1.2451983007007, "gelu": 1.5335304411955, "silu": 1.6765324703311, "softplus": 1.0418668355353},
}


def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """The factor by which a weight's standard deviation makes up for what follows it; ``param`` is the slope of leaky_relu (0.01 unless given).

    With numbers of mean square 1 before the activation, a layer of gain g behind it gives numbers of mean square ``g^2 E f(z)^2 = 1`` again.
    He et al., "Delving deep into rectifiers" (2015), equations 7 to 10.

    Raises:
        ValueError: not a known nonlinearity.
    """
    if nonlinearity == "leaky_relu":
        slope = 0.01 if param is None else param
        return math.sqrt(2 / (1 + slope * slope))
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


def trunc_normal_(t: Tensor, mean: float = 0.0, std: float = 1.0, a: float = -2.0, b: float = 2.0, generator: Any = None) -> Tensor:
    """Fill with normally distributed numbers that lie in [a, b]: see :meth:`gpugrad.random.Generator.truncated_normal`.

    ``a`` and ``b`` are not multiples of ``std``, and what is cut off makes the numbers' standard deviation smaller than ``std`` (by 0.88 at two of it).
    """
    return _fill(t, (generator or random).truncated_normal(mean, std, a, b, t.shape, dtype=t.dtype))


def constant_(t: Tensor, value: float) -> Tensor:
    """Fill with ``value``."""
    return _fill(t, value)


def zeros_(t: Tensor) -> Tensor:
    """Fill with zeros."""
    return _fill(t, 0)


def ones_(t: Tensor) -> Tensor:
    """Fill with ones."""
    return _fill(t, 1)


def eye_(t: Tensor) -> Tensor:
    """Fill with the identity: ones on the diagonal of a (in, out) weight, so that a linear layer hands on as many features as it can.

    Raises:
        ValueError: it does not have two axes.
    """
    return _fill(t, np.eye(*fans(t)))


def orthogonal_(t: Tensor, gain: float = 1.0, generator: Any = None) -> Tensor:
    """Fill with ``gain`` times a random (semi-)orthogonal matrix: orthonormal columns where there are no fewer rows, else orthonormal rows.

    All such matrices are equally likely: Q of a normal matrix's QR decomposition, with the signs that make R's diagonal positive. It is computed in float64
    on the CPU. More than two axes are taken for (first axis, all others). Saxe et al., "Exact solutions to the nonlinear dynamics of learning in deep
    linear neural networks" (2014); F. Mezzadri, "How to generate random matrices from the classical compact groups" (2007).

    Raises:
        ValueError: it has fewer than two axes.
    """
    if t.ndim < 2:
        raise ValueError(f"orthogonal_: got shape {t.shape}, expected at least two axes")
    rows, columns = t.shape[0], math.prod(t.shape[1:])
    z = (generator or random).normal(size=(max(rows, columns), min(rows, columns))).numpy()
    q, r = np.linalg.qr(z)
    q *= gain * np.where(np.diagonal(r) < 0, -1.0, 1.0)
    return _fill(t, (q if rows >= columns else q.T).reshape(t.shape))


def sparse_(t: Tensor, sparsity: float, std: float = 0.01, generator: Any = None) -> Tensor:
    """Fill with normal numbers of mean 0, of which in each column ``ceil(sparsity rows)``, picked at random, are replaced by 0: each unit that a
    (in, out) weight leads to is connected to as many others. Martens, "Deep learning via Hessian-free optimization" (2010), section 5.

    Raises:
        ValueError: it does not have two axes, or ``sparsity`` is not between 0 and 1.
    """
    if not 0 <= sparsity <= 1:
        raise ValueError(f"sparse_: sparsity must lie between 0 and 1, got {sparsity}")
    rows, _ = fans(t)
    values = (generator or random).normal(0.0, std, t.shape).numpy()
    order = np.argsort((generator or random).uniform(size=t.shape).numpy(), axis=0, kind="stable")
    np.put_along_axis(values, order[: math.ceil(sparsity * rows)], 0.0, axis=0)
    return _fill(t, values)


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
    if type(t) is not Tensor:
        raise TypeError(f"got {type(t).__name__}, expected a Tensor to fill, such as a parameter")
    with no_grad():
        return t.copy_(values)
