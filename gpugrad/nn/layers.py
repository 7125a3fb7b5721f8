"""Layers, and ways to put them together."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from gpugrad import creation
from gpugrad.nn import functional as F  # noqa: N812
from gpugrad.nn import init
from gpugrad.nn.module import Module, Parameter, factory


class Linear(Module):
    """``y = x W + b`` with W of shape (in, out), as in dX = dY W', dW = X' dY (PyTorch stores W').

    Both start uniform over +-1/sqrt(in), as PyTorch's do.
    """

    def __init__(self, in_features: int, out_features: int, bias: bool = True, *, device: str | None = None, dtype: Any = None) -> None:
        self.in_features, self.out_features = in_features, out_features
        options = factory(device, dtype)
        bound = 1 / math.sqrt(max(in_features, 1))
        self.weight = init.uniform_(Parameter(creation.empty((in_features, out_features), **options)), -bound, bound)
        self.bias = init.uniform_(Parameter(creation.empty(out_features, **options)), -bound, bound) if bias else None

    def forward(self, x: Any) -> Any:
        """(..., in) to (..., out)."""
        return F.linear(x, self.weight, self.bias)

    def extra_repr(self) -> str:
        """The sizes."""
        return f"{self.in_features}, {self.out_features}" + ("" if self.bias is not None else ", bias=False")


class Sequential(Module):
    """Modules (or any functions of one array) one after the other.

    A :class:`Linear` with ReLU, Tanh, Sigmoid, SiLU or GELU behind it is computed as one operation (see :func:`gpugrad.nn.functional.linear`), which gives
    the same to rounding. Subclasses of them, and modules whose ``forward`` has been replaced, are called one by one.
    """

    def __init__(self, *layers: Callable[[Any], Any]) -> None:
        for i, layer in enumerate(layers):
            setattr(self, str(i), layer)

    def forward(self, x: Any) -> Any:
        """The last layer of ... of the first of x."""
        done = False  # together with the layer before
        for layer, following in itertools.pairwise([*self, None]):
            if done:
                done = False
                continue
            act = _activation_of(layer, following)
            if act is None:
                x = layer(x)
            else:
                x, done = F.linear(x, layer.weight, layer.bias, act), True
        return x

    def __iter__(self) -> Iterator[Any]:
        return iter([layer for name, layer in vars(self).items() if name.isdigit()])

    def __len__(self) -> int:
        return len(list(iter(self)))

    def __getitem__(self, i: int) -> Any:
        return list(self)[i]


class MLP(Sequential):
    """Linear layers with an activation between them, from ``sizes[0]`` inputs to ``sizes[-1]`` outputs: ``MLP([64, 128, 10])``."""

    def __init__(
        self, sizes: Sequence[int], activation: str | Callable[[], Module] = "relu", bias: bool = True, *, device: str | None = None, dtype: Any = None
    ) -> None:
        if len(sizes) < 2:
            raise ValueError(f"MLP: got sizes {list(sizes)}, expected at least two: inputs, hidden units ..., outputs")
        make = activation_named(activation) if isinstance(activation, str) else activation
        layers: list[Module] = []
        for n, m in itertools.pairwise(sizes):
            layers += [Linear(n, m, bias, device=device, dtype=dtype), make()]
        super().__init__(*layers[:-1])


class Identity(Module):
    """``x``."""

    def forward(self, x: Any) -> Any:
        """x."""
        return x


class ReLU(Module):
    """:func:`gpugrad.relu`."""

    def forward(self, x: Any) -> Any:
        """max(x, 0)."""
        return F.relu(x)


class LeakyReLU(Module):
    """:func:`gpugrad.leaky_relu`."""

    def __init__(self, negative_slope: float = 0.01) -> None:
        self.negative_slope = negative_slope

    def forward(self, x: Any) -> Any:
        """x where positive, else x times the slope."""
        return F.leaky_relu(x, self.negative_slope)

    def extra_repr(self) -> str:
        """The slope."""
        return f"{self.negative_slope}"


class ELU(Module):
    """:func:`gpugrad.elu`."""

    def __init__(self, alpha: float = 1.0) -> None:
        self.alpha = alpha

    def forward(self, x: Any) -> Any:
        """x where positive, else alpha (exp(x) - 1)."""
        return F.elu(x, self.alpha)


class Sigmoid(Module):
    """:func:`gpugrad.sigmoid`."""

    def forward(self, x: Any) -> Any:
        """1 / (1 + exp(-x))."""
        return F.sigmoid(x)


class Tanh(Module):
    """:func:`gpugrad.tanh`."""

    def forward(self, x: Any) -> Any:
        """tanh(x)."""
        return F.tanh(x)


class GELU(Module):
    """:func:`gpugrad.gelu`."""

    def __init__(self, approximate: str = "none") -> None:
        self.approximate = approximate

    def forward(self, x: Any) -> Any:
        """x times the normal distribution function of x."""
        return F.gelu(x, self.approximate)


class SiLU(Module):
    """:func:`gpugrad.silu`."""

    def forward(self, x: Any) -> Any:
        """x sigmoid(x)."""
        return F.silu(x)


class Softplus(Module):
    """:func:`gpugrad.softplus`."""

    def __init__(self, beta: float = 1.0) -> None:
        self.beta = beta

    def forward(self, x: Any) -> Any:
        """log(1 + exp(beta x)) / beta."""
        return F.softplus(x, self.beta)


ACTIVATIONS: dict[str, type[Module]] = {
    "relu": ReLU, "leaky_relu": LeakyReLU, "elu": ELU, "sigmoid": Sigmoid, "tanh": Tanh, "gelu": GELU, "silu": SiLU, "softplus": Softplus,
}  # fmt: skip


_FORWARDS: dict[type, Any] = {layer: layer.forward for layer in (Linear, ReLU, Tanh, Sigmoid, SiLU, GELU)}
_GELUS = {"none": "gelu", "tanh": "gelu_tanh"}


def _activation_of(layer: Any, following: Any) -> str | None:
    """The name of the activation, if a Linear and its activation follow each other and do what they do in this file; else None."""
    if type(layer) is not Linear or type(following) is Linear or not (_as_here(following) and _as_here(layer)):
        return None
    return _GELUS.get(following.approximate) if type(following) is GELU else type(following).__name__.lower()


def _as_here(layer: Any) -> bool:
    return type(layer) in _FORWARDS and getattr(layer.forward, "__func__", None) is _FORWARDS[type(layer)]


def activation_named(name: str) -> type[Module]:
    """The module class of an activation.

    Raises:
        ValueError: not a known name.
    """
    if name not in ACTIVATIONS:
        raise ValueError(f"unknown activation {name!r}: expected one of {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]
