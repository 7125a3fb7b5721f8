"""Activation functions as modules; see :mod:`gpugrad.nn.functional`."""

from __future__ import annotations

from typing import Any

from gpugrad.nn import functional as F  # noqa: N812
from gpugrad.nn.module import Module
from gpugrad.ops.activations import check_approximate


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

    def extra_repr(self) -> str:
        """alpha."""
        return f"{self.alpha}"


class SELU(Module):
    """:func:`gpugrad.selu`. Start the weights before it with standard deviation 1/sqrt(in) (``init.kaiming_normal_(w, nonlinearity="linear")``)."""

    def forward(self, x: Any) -> Any:
        """1.0507 elu(x, 1.6733)."""
        return F.selu(x)


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
    """:func:`gpugrad.gelu`: exact, or with ``approximate="tanh"``."""

    def __init__(self, approximate: str = "none") -> None:
        check_approximate(approximate)
        self.approximate = approximate

    def forward(self, x: Any) -> Any:
        """x times the normal distribution function of x."""
        return F.gelu(x, self.approximate)

    def extra_repr(self) -> str:
        """Which approximation, if any."""
        return "" if self.approximate == "none" else f"approximate={self.approximate!r}"


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

    def extra_repr(self) -> str:
        """beta."""
        return f"{self.beta}"


class Softmax(Module):
    """:func:`gpugrad.softmax` along one axis. Before :class:`CrossEntropyLoss`, which takes logits, it would be a mistake."""

    def __init__(self, dim: int = -1) -> None:
        self.dim = dim

    def forward(self, x: Any) -> Any:
        """exp(x) / sum(exp(x))."""
        return F.softmax(x, self.dim)

    def extra_repr(self) -> str:
        """The axis."""
        return f"dim={self.dim}"


class LogSoftmax(Module):
    """:func:`gpugrad.log_softmax` along one axis."""

    def __init__(self, dim: int = -1) -> None:
        self.dim = dim

    def forward(self, x: Any) -> Any:
        """x - log(sum(exp(x)))."""
        return F.log_softmax(x, self.dim)

    def extra_repr(self) -> str:
        """The axis."""
        return f"dim={self.dim}"


ACTIVATIONS: dict[str, type[Module]] = {
    "relu": ReLU, "leaky_relu": LeakyReLU, "elu": ELU, "selu": SELU, "sigmoid": Sigmoid, "tanh": Tanh, "gelu": GELU, "silu": SiLU, "softplus": Softplus,
}  # fmt: skip


def activation_named(name: str) -> type[Module]:
    """The module class of an activation.

    Raises:
        ValueError: not a known name.
    """
    if name not in ACTIVATIONS:
        raise ValueError(f"unknown activation {name!r}: expected one of {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]
