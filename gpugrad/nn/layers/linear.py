"""Layers that are linear in their parameters: products with weights, and rows of a table."""

from __future__ import annotations

import math
from typing import Any

from gpugrad import creation
from gpugrad.autograd import no_grad
from gpugrad.backend import check_integer
from gpugrad.nn import functional as F  # noqa: N812
from gpugrad.nn import init
from gpugrad.nn.location import ShapeError
from gpugrad.nn.module import Module, Parameter, factory
from gpugrad.ops.fit import shape_of
from gpugrad.tape import Tensor


def _uniform(shape: tuple[int, ...], fan_in: int, options: dict[str, Any]) -> Tensor:
    bound = 1 / math.sqrt(max(fan_in, 1))
    return init.uniform_(Parameter(creation.empty(shape, **options)), -bound, bound)


def _check_sizes(layer: str, **sizes: Any) -> None:
    for name, value in sizes.items():
        check_integer(f"{layer}: {name}", value, least=0)


class Linear(Module):
    """``y = x W + b`` with W of shape (in, out), as in dX = dY W', dW = X' dY (PyTorch stores W').

    Both start uniform over +-1/sqrt(in), as PyTorch's do.
    """

    def __init__(self, in_features: int, out_features: int, bias: bool = True, *, device: str | None = None, dtype: Any = None) -> None:
        _check_sizes("Linear", in_features=in_features, out_features=out_features)
        self.in_features, self.out_features = in_features, out_features
        options = factory(device, dtype)
        self.weight = _uniform((in_features, out_features), in_features, options)
        self.bias = _uniform((out_features,), in_features, options) if bias else None

    def forward(self, x: Any, activation: str = "none") -> Any:
        """(..., in) to (..., out); with an activation of :func:`gpugrad.nn.functional.linear` computed together with it."""
        try:
            return F.linear(x, self.weight, self.bias, activation)
        except ValueError:
            if shape_of(x)[-1:] != (self.in_features,):
                raise ShapeError(shape_of(x), f"(..., {self.in_features})") from None
            raise

    def extra_repr(self) -> str:
        """The sizes."""
        return f"{self.in_features}, {self.out_features}" + ("" if self.bias is not None else ", bias=False")


class Bilinear(Module):
    """``y_k = sum_ij x1_i W_ijk x2_j + b_k`` with W of shape (in1, in2, out) (PyTorch's is (out, in1, in2)).

    Both start uniform over +-1/sqrt(in1), as PyTorch's do.
    """

    def __init__(self, in1_features: int, in2_features: int, out_features: int, bias: bool = True, *, device: str | None = None, dtype: Any = None) -> None:
        _check_sizes("Bilinear", in1_features=in1_features, in2_features=in2_features, out_features=out_features)
        self.in1_features, self.in2_features, self.out_features = in1_features, in2_features, out_features
        options = factory(device, dtype)
        self.weight = _uniform((in1_features, in2_features, out_features), in1_features, options)
        self.bias = _uniform((out_features,), in1_features, options) if bias else None

    def forward(self, x1: Any, x2: Any) -> Any:
        """(..., in1) and (..., in2), with the same leading axes, to (..., out)."""
        a, b = shape_of(x1), shape_of(x2)
        if a[-1:] != (self.in1_features,) or b != (*a[:-1], self.in2_features):
            raise ShapeError(f"{a} and {b}", f"(..., {self.in1_features}) and (..., {self.in2_features}) with the same leading axes")
        return F.bilinear(x1, x2, self.weight, self.bias)

    def extra_repr(self) -> str:
        """The sizes."""
        return f"{self.in1_features}, {self.in2_features}, {self.out_features}" + ("" if self.bias is not None else ", bias=False")


class Embedding(Module):
    """Rows of a table: the row ``weight[i]`` for each integer i, from a weight of shape (num_embeddings, embedding_dim) that starts normal.

    The row ``padding_idx`` (negative: counted from the end) starts as zeros and gets no gradient. The gradient has the same bits every time, however often
    an index is repeated.
    """

    def __init__(self, num_embeddings: int, embedding_dim: int, padding_idx: int | None = None, *, device: str | None = None, dtype: Any = None) -> None:
        _check_sizes("Embedding", num_embeddings=num_embeddings, embedding_dim=embedding_dim)
        if padding_idx is not None:
            check_integer("Embedding: padding_idx", padding_idx)
        if padding_idx is not None and not -num_embeddings <= padding_idx < num_embeddings:
            raise ValueError(f"Embedding: got padding_idx={padding_idx}, expected {-num_embeddings} to {num_embeddings - 1}")
        self.num_embeddings, self.embedding_dim = num_embeddings, embedding_dim
        self.padding_idx = padding_idx if padding_idx is None else padding_idx % num_embeddings
        self.weight = init.normal_(Parameter(creation.empty((num_embeddings, embedding_dim), **factory(device, dtype))))
        if padding_idx is not None:
            with no_grad():
                self.weight.detach()[self.padding_idx] = 0

    def forward(self, indices: Any) -> Any:
        """Integers (...) to (..., embedding_dim).

        Raises:
            IndexError: not integers from 0 to num_embeddings - 1. On a GPU the error comes later, see :func:`gpugrad.getitem`, and such rows are nan.
        """
        return F.embedding(indices, self.weight, self.padding_idx)

    def extra_repr(self) -> str:
        """The sizes."""
        return f"{self.num_embeddings}, {self.embedding_dim}" + ("" if self.padding_idx is None else f", padding_idx={self.padding_idx}")
