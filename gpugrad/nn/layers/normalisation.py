"""Normalisation, and dropout: layers that keep a net's numbers in their range."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gpugrad import creation
from gpugrad.backend import check_integer
from gpugrad.nn import functional as F  # noqa: N812
from gpugrad.nn.location import ShapeError
from gpugrad.nn.module import Module, Parameter, factory
from gpugrad.ops.dropout import check_generator, check_probability
from gpugrad.ops.fit import shape_of
from gpugrad.random import Generator
from gpugrad.tape import Tensor


class BatchNorm1d(Module):
    """:func:`gpugrad.nn.functional.batch_norm` of (N, C) or (N, C, L): in training by the mean and variance of each channel in the batch, in evaluation by
    the running ones.

    Args:
        momentum: what a new batch counts in the running values; None makes them the plain average over all batches.
        affine: whether there are a weight (ones at first) and a bias (zeros) per channel.
        track_running_stats: without running values those of the batch are taken in evaluation too.

    ``running_mean``, ``running_var`` (the unbiased variance) and ``num_batches_tracked`` are buffers; they are plain numbers to every derivative.
    """

    buffer_names = ("running_mean", "running_var", "num_batches_tracked")

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        *,
        device: str | None = None,
        dtype: Any = None,
    ) -> None:
        check_integer("BatchNorm1d: num_features", num_features, least=0)
        self.num_features, self.eps, self.momentum = num_features, eps, momentum
        options = factory(device, dtype)
        self.weight, self.bias = _ones_and_zeros((num_features,), options, affine, affine)
        self.running_mean = creation.zeros(num_features, **options) if track_running_stats else None
        self.running_var = creation.ones(num_features, **options) if track_running_stats else None
        self.num_batches_tracked = creation.zeros((), dtype=np.int64, device=device) if track_running_stats else None

    def forward(self, x: Any) -> Any:
        """(N, C) or (N, C, L) to the same.

        Raises:
            ShapeError: another shape.
            ValueError: one value per channel in training: its variance is 0.
        """
        shape = shape_of(x)
        if len(shape) not in (2, 3) or shape[1] != self.num_features:
            raise ShapeError(shape, f"(N, {self.num_features}) or (N, {self.num_features}, L)")
        training = self.training or self.running_mean is None
        y = F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, training, self._momentum(), self.eps)
        if self.training and self.num_batches_tracked is not None:
            self.num_batches_tracked.copy_(self.num_batches_tracked.data + 1)
        return y

    def _momentum(self) -> Any:
        if self.momentum is not None or self.num_batches_tracked is None:
            return self.momentum
        return 1.0 / (self.num_batches_tracked.data + 1)

    def reset_running_stats(self) -> None:
        """Forget the batches that have been seen."""
        if self.running_mean is not None:
            self.running_mean.zero_()
            self.running_var.fill_(1)  # type: ignore[union-attr]
            self.num_batches_tracked.zero_()  # type: ignore[union-attr]

    def extra_repr(self) -> str:
        """The number of channels, and what is not as usual."""
        options = {"eps": (self.eps, 1e-5), "momentum": (self.momentum, 0.1), "affine": (self.weight is not None, True)}
        options["track_running_stats"] = (self.running_mean is not None, True)
        return ", ".join([str(self.num_features), *[f"{name}={value}" for name, (value, usual) in options.items() if value != usual]])


class LayerNorm(Module):
    """:func:`gpugrad.nn.functional.layer_norm` over the last axes, which have the lengths ``normalized_shape`` (an int for one axis).

    ``elementwise_affine`` gives it a weight (ones at first) and, with ``bias``, a bias (zeros) of that shape.
    """

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
        *,
        device: str | None = None,
        dtype: Any = None,
    ) -> None:
        self.normalized_shape, self.eps = _as_shape(normalized_shape), eps
        self.weight, self.bias = _ones_and_zeros(self.normalized_shape, factory(device, dtype), elementwise_affine, elementwise_affine and bias)

    def forward(self, x: Any) -> Any:
        """(..., *normalized_shape) to the same."""
        _check_trailing(shape_of(x), self.normalized_shape)
        return F.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        """The shape."""
        return _of_shape(self.normalized_shape) + (", elementwise_affine=False" if self.weight is None else ", bias=False" if self.bias is None else "")


class RMSNorm(Module):
    """:func:`gpugrad.nn.functional.rms_norm` over the last axes, which have the lengths ``normalized_shape`` (an int for one axis).

    ``elementwise_affine`` gives it a weight (ones at first) of that shape. ``eps`` of None is the machine epsilon of the input's dtype.
    """

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float | None = None,
        elementwise_affine: bool = True,
        *,
        device: str | None = None,
        dtype: Any = None,
    ) -> None:
        self.normalized_shape, self.eps = _as_shape(normalized_shape), eps
        self.weight, _ = _ones_and_zeros(self.normalized_shape, factory(device, dtype), elementwise_affine, False)

    def forward(self, x: Any) -> Any:
        """(..., *normalized_shape) to the same."""
        _check_trailing(shape_of(x), self.normalized_shape)
        return F.rms_norm(x, self.normalized_shape, self.weight, self.eps)

    def extra_repr(self) -> str:
        """The shape."""
        return _of_shape(self.normalized_shape) + ("" if self.weight is not None else ", elementwise_affine=False")


class Dropout(Module):
    """:func:`gpugrad.nn.functional.dropout` in training, nothing in evaluation.

    The mask comes from the default generator of :mod:`gpugrad.random`, or from ``generator``, one of its own. Another forward pass draws another mask; the
    derivatives of one pass, of any order, all have its mask.
    """

    def __init__(self, p: float = 0.5, *, generator: Generator | None = None) -> None:
        check_probability(p)
        check_generator(generator)
        self.p, self.generator = p, generator

    def forward(self, x: Any) -> Any:
        """x with a share p of its elements zero and the others divided by 1 - p."""
        return F.dropout(x, self.p, self.training, generator=self.generator)

    def extra_repr(self) -> str:
        """The probability."""
        return f"{self.p}"


def _as_shape(normalized_shape: int | Sequence[int]) -> tuple[int, ...]:
    shape: Any = normalized_shape if np.ndim(normalized_shape) else (normalized_shape,)
    for n in shape:
        check_integer("normalized_shape, or each of its lengths,", n, least=0)
    return tuple(map(int, shape))


def _of_shape(shape: tuple[int, ...]) -> str:
    return str(shape[0] if len(shape) == 1 else shape)


def _check_trailing(got: tuple[int, ...], expected: tuple[int, ...]) -> None:
    if got[-len(expected) :] != expected:
        raise ShapeError(got, f"(..., {', '.join(map(str, expected))})")


def _ones_and_zeros(shape: tuple[int, ...], options: dict[str, Any], weight: bool, bias: bool) -> tuple[Tensor | None, Tensor | None]:
    return Parameter(creation.ones(shape, **options)) if weight else None, Parameter(creation.zeros(shape, **options)) if bias else None
