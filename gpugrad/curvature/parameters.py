"""The parameters at which an operator stands: a nest of arrays, or a module's."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from gpugrad import backend, tree
from gpugrad.curvature.vectors import Space
from gpugrad.nn.layers import BatchNorm1d, Dropout
from gpugrad.nn.module import Module
from gpugrad.nn.stateless import holding
from gpugrad.tape import Tensor, is_inexact, is_tracked, plain


class Parameters:
    """Copies of the parameters, some of which are ``active``: differentiated. The others are constants.

    Args:
        params: a nest of arrays of floats; or a module, for its parameters by path.
        module: a module that is to hold the parameters, given by path, whenever a function of them is called.

    Raises:
        TypeError: not arrays of real floats, or tracked by a transform.
        ValueError: there are none.
        gpugrad.DeviceError: they are on several devices.
    """

    def __init__(self, params: Any, module: Module | None = None) -> None:
        if isinstance(params, Iterator):
            raise TypeError(f"params is a {type(params).__name__}, expected a nest of arrays, or a module: give the model itself for model.parameters()")
        self.module = params if isinstance(params, Module) else module
        nest = dict(params.named_parameters()) if isinstance(params, Module) else params
        found, self.structure = tree.flatten(nest)
        self.names = _names(nest)
        if not found:
            raise ValueError(f"there is nothing to differentiate by: {type(params).__name__} holds no parameters")
        self.leaves = [_constant(x, f"parameter {name}") for x, name in zip(found, self.names, strict=True)]
        self.active = range(len(found))
        self.space = Space.of(self.names, self.leaves, self.structure)
        if self.module is not None:
            self._check_paths()

    def _check_paths(self) -> None:
        own = dict(self.module._named_tensors())  # type: ignore[union-attr]
        for name, x in zip(self.names, self.leaves, strict=True):
            if name not in own:
                raise KeyError(f"{type(self.module).__name__} has no parameter {name!r}; it has {', '.join(own) or 'none'}")
            if own[name].shape != x.shape:
                raise ValueError(f"parameter {name!r} has shape {x.shape}, but that of {type(self.module).__name__} has {own[name].shape}")

    @property
    def values(self) -> list[Any]:
        """Those that are active."""
        return [self.leaves[i] for i in self.active]

    def bind(self, f: Callable[..., Any], *args: Any) -> Callable[..., Any]:
        """``f(params, *args)`` as a function of the active leaves; a module holds the parameters meanwhile, and its running statistics stay what they are."""

        def of(*active: Any) -> Any:
            leaves = list(self.leaves)
            for i, x in zip(self.active, active, strict=True):
                leaves[i] = x
            if self.module is None:
                return f(tree.unflatten(self.structure, leaves), *args)
            with holding(self.module, dict(zip(self.names, leaves, strict=True)) | self.running()):
                return f(self.module, *args)

        return of

    def running(self) -> dict[str, Tensor]:
        """Copies of the running statistics, by path, that the module would write into in training."""
        found: dict[str, Tensor] = {}
        for path, m in () if self.module is None else self.module.named_modules():
            if isinstance(m, BatchNorm1d) and m.training:
                prefix = f"{path}." if path else ""
                found |= {prefix + name: Tensor(plain(t).copy()) for name in m.buffer_names if (t := getattr(m, name)) is not None}
        return found

    def at(self, params: Any) -> Parameters:
        """The same with other values, flat or in the nest, of the active ones."""
        moved = copy.copy(self)
        moved.leaves = list(self.leaves)
        given, form = self.space.read(dict(params.named_parameters()) if isinstance(params, Module) else params, "params")
        if form.number is not None:
            raise ValueError(f"params holds {form.number} vectors, expected one")
        for i, x in zip(self.active, given, strict=True):
            moved.leaves[i] = backend.asarray(plain(x), copy=True)
        return moved

    def only(self, indices: Sequence[int], structure: Any) -> Parameters:
        """The same with but some of the active ones active."""
        fewer = copy.copy(self)
        fewer.active = [self.active[i] for i in indices]  # type: ignore[assignment]
        fewer.space = self.space.part(indices, structure)
        return fewer


def refuse_training(module: Module | None, several: bool) -> None:
    """Raise where a module's derivatives would be other ones each time, or its loss no mean over the batches.

    Raises:
        ValueError: dropout in training; or batch norm that takes each batch's own statistics, while there are ``several`` batches.
    """
    for path, m in () if module is None else module.named_modules():
        where = f"{type(module).__name__}{path and '.'}{path} ({type(m).__name__})"
        if isinstance(m, Dropout) and m.training and m.p > 0:
            raise ValueError(
                f"{where} is in training mode and draws another mask each time, so that no two products are of one matrix: call model.eval() first"
            )
        if several and isinstance(m, BatchNorm1d) and (m.training or m.running_mean is None):
            remedy = "call model.eval() first" if m.running_mean is not None else "it keeps no running statistics: set track_running_stats"
            raise ValueError(
                f"{where} takes the mean and variance of each batch, so that the loss is no mean over batches: {remedy}, or give all data as one batch"
            )


def _names(nest: Any) -> list[str]:
    """What each parameter is called: ``layers[0]``, or in a module ``layers.0.weight``."""
    if isinstance(nest, dict) and all(isinstance(key, str) for key in nest):
        return [path for key, x in nest.items() for path in tree.paths(x, key)]
    return tree.paths(nest, "" if isinstance(nest, (dict, list, tuple)) else "params")


def untracked(x: Any, what: str) -> Any:
    """The plain array of what no transform tracks.

    Raises:
        TypeError: one does.
    """
    inner = x
    while is_tracked(inner):
        if inner.node.level % 2:
            raise TypeError(
                f"{what} depends on an argument of a transform (gg.grad, gg.vmap, ...), which would lose a derivative here: use gg.hvp inside transforms"
            )
        inner = inner.value
    return plain(x)


def _constant(x: Any, name: str) -> Any:
    """A copy of a parameter as a plain array."""
    x = backend.asarray(untracked(x, name), copy=True)
    if x.dtype.kind == "c":
        raise TypeError(f"{name} is {x.dtype}, expected real numbers: make its real and imaginary parts parameters")
    if not is_inexact(x.dtype):
        raise TypeError(f"{name} is {x.dtype}, expected floats: convert it by .astype(float), or leave it out of the parameters")
    return x
