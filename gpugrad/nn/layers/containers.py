"""Ways to put layers together."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from gpugrad.nn.layers.activations import GELU, ReLU, Sigmoid, SiLU, Tanh, activation_named
from gpugrad.nn.layers.linear import Linear
from gpugrad.nn.layers.normalisation import BatchNorm1d, Dropout, LayerNorm, RMSNorm
from gpugrad.nn.location import ShapeError
from gpugrad.nn.module import Module
from gpugrad.ops.fit import shape_of
from gpugrad.ops.shape import as_array, reshape

Layer = Callable[[Any], Any]


class Identity(Module):
    """``x``."""

    def forward(self, x: Any) -> Any:
        """x."""
        return x


class Flatten(Module):
    """The axes from ``start_dim`` to ``end_dim`` as one: by default each example as a vector."""

    def __init__(self, start_dim: int = 1, end_dim: int = -1) -> None:
        self.start_dim, self.end_dim = start_dim, end_dim

    def forward(self, x: Any) -> Any:
        """(N, A, B, ...) to (N, A B ...).

        Raises:
            ShapeError: x has not both axes, in this order.
        """
        shape = shape_of(x)
        ndim = len(shape)
        start, end = (dim + ndim if dim < 0 else dim for dim in (self.start_dim, self.end_dim))
        if not 0 <= start <= end < ndim:
            raise ShapeError(shape, f"axes {self.start_dim} to {self.end_dim}, the first not behind the last")
        length = 1
        for n in shape[start : end + 1]:
            length *= n
        return reshape(as_array(x), (*shape[:start], length, *shape[end + 1 :]))

    def extra_repr(self) -> str:
        """The axes, if not as usual."""
        return "" if (self.start_dim, self.end_dim) == (1, -1) else f"start_dim={self.start_dim}, end_dim={self.end_dim}"


class Sequential(Module):
    """Modules (or any functions of one array) one after the other; like a list of them: indices, slices, ``append``, ``insert``, assignment.

    A :class:`Linear` with ReLU, Tanh, Sigmoid, SiLU or GELU behind it is computed as one operation (see :func:`gpugrad.nn.functional.linear`), which gives
    the same to rounding. Subclasses of them, and modules whose ``forward`` has been replaced, are called one by one.
    """

    def __init__(self, *layers: Layer) -> None:
        self._set(layers)

    def _set(self, layers: Sequence[Layer]) -> None:
        for name in [name for name in vars(self) if name.isdigit()]:
            delattr(self, name)
        for i, layer in enumerate(layers):
            if not callable(layer):
                raise TypeError(f"{type(self).__name__}: got {type(layer).__name__} as layer {i}, expected modules or functions, each an argument of its own")
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
                x, done = layer(x, act), True
        return x

    def append(self, layer: Layer) -> Sequential:
        """Put a layer behind the last."""
        self._set([*self, layer])
        return self

    def insert(self, i: int, layer: Layer) -> Sequential:
        """Put a layer before layer ``i``; the paths of those behind it change."""
        layers = list(self)
        layers.insert(i, layer)
        self._set(layers)
        return self

    def __iter__(self) -> Iterator[Any]:
        return iter([layer for name, layer in vars(self).items() if name.isdigit()])

    def __len__(self) -> int:
        return len(list(iter(self)))

    def __getitem__(self, i: int | slice) -> Any:
        return Sequential(*list(self)[i]) if isinstance(i, slice) else list(self)[i]

    def __setitem__(self, i: int, layer: Layer) -> None:
        layers = list(self)
        layers[i] = layer
        self._set(layers)


class Residual(Sequential):
    """``x + f(x)`` where f is the layers one after the other. He et al., "Deep residual learning for image recognition" (2016), equation 1."""

    def forward(self, x: Any) -> Any:
        """x + f(x).

        Raises:
            ShapeError: f changes the shape, so that the two cannot be added.
        """
        y = super().forward(x)
        if shape_of(y) != shape_of(x):
            raise ShapeError(shape_of(x), f"layers that keep it; they gave {shape_of(y)}")
        return x + y


NORMS: dict[str, Callable[..., Module]] = {"batch": BatchNorm1d, "layer": LayerNorm, "rms": RMSNorm}


class MLP(Sequential):
    """Linear layers from ``sizes[0]`` inputs to ``sizes[-1]`` outputs, with an activation behind all but the last: ``MLP([64, 128, 10])``.

    Args:
        activation: a name, or a function that makes a module.
        norm: "batch", "layer" or "rms": normalise before each activation. Before "batch" a bias changes nothing, and its gradient is 0 to rounding.
        dropout: the probability of a :class:`Dropout` behind each activation.
        residual: make a :class:`Residual` of each hidden block whose input is as wide as its output.

    Raises:
        ValueError: fewer than two sizes, an unknown activation or norm, or residual where no hidden block keeps its width.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        activation: str | Callable[[], Module] = "relu",
        bias: bool = True,
        *,
        norm: str | None = None,
        dropout: float = 0.0,
        residual: bool = False,
        device: str | None = None,
        dtype: Any = None,
    ) -> None:
        sizes = list(sizes)
        if len(sizes) < 2:
            raise ValueError(f"MLP: got sizes {sizes}, expected at least two: inputs, hidden units ..., outputs")
        if norm is not None and norm not in NORMS:
            raise ValueError(f"MLP: unknown norm {norm!r}, expected one of {', '.join(map(repr, NORMS))}, or None")
        if residual and not any(n == m for n, m in itertools.pairwise(sizes[:-1])):
            raise ValueError(f"MLP: got residual=True and sizes {sizes}, expected a hidden layer as wide as the one before it, as in [64, 128, 128, 10]")
        make = activation_named(activation) if isinstance(activation, str) else activation
        options: dict[str, Any] = {"device": device, "dtype": dtype}
        layers: list[Module] = []
        for n, m in itertools.pairwise(sizes[:-1]):
            block = [Linear(n, m, bias, **options), *([NORMS[norm](m, **options)] if norm else []), make(), *([Dropout(dropout)] if dropout else [])]
            layers += [Residual(*block)] if residual and n == m else block
        super().__init__(*layers, Linear(sizes[-2], sizes[-1], bias, **options))


_FORWARDS: dict[type, Any] = {layer: layer.forward for layer in (Linear, ReLU, Tanh, Sigmoid, SiLU, GELU)}
_GELUS = {"none": "gelu", "tanh": "gelu_tanh"}


def _activation_of(layer: Any, following: Any) -> str | None:
    """The name of the activation, if a Linear and its activation follow each other and do what they do in this package; else None."""
    if type(layer) is not Linear or type(following) is Linear or not (_as_here(following) and _as_here(layer)):
        return None
    return _GELUS.get(following.approximate) if type(following) is GELU else type(following).__name__.lower()


def _as_here(layer: Any) -> bool:
    return type(layer) in _FORWARDS and getattr(layer.forward, "__func__", None) is _FORWARDS[type(layer)]
