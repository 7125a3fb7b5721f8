"""Modules as functions of their parameters."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from gpugrad import backend, tree
from gpugrad.nn.contents import held, is_parameter
from gpugrad.nn.module import Module
from gpugrad.tape import Tensor


def functional_call(module: Module, params: Mapping[str, Any], *inputs: Any, **options: Any) -> Any:
    """``module(*inputs)`` with other parameters, given by path, so that a module can be differentiated as a function of them::

        params = dict(module.named_parameters())
        gg.grad(lambda p: loss(nn.functional_call(module, p, x), y))(params)

    Parameters that are not given keep their values. The module's parameters are not changed; it must not be used by another thread meanwhile. What its
    forward writes into buffers (running statistics) goes into those that are given, else into the module's, as plain numbers in either case.

    Raises:
        KeyError: a path that the module does not have.
        ValueError: a shape does not fit.
    """
    with holding(module, params) as swapped:
        return _kept_apart(module(*inputs, **options), swapped)


@contextmanager
def holding(module: Module, params: Mapping[str, Any]) -> Iterator[set[int]]:
    """``with holding(module, params):`` the module's own Tensors, named by path, hold other values; yields the identities of those.

    Raises:
        KeyError: a path that the module does not have.
        ValueError: a shape does not fit.
    """
    own = dict(module._named_tensors())
    given = {path: v if type(v) is Tensor else Tensor(backend.asarray(v)) for path, v in params.items()}
    for path, v in given.items():
        if path not in own:
            raise KeyError(f"functional_call: {type(module).__name__} has no parameter or buffer {path!r}; it has {', '.join(own) or 'none'}")
        if v.shape != own[path].shape:
            raise ValueError(f"functional_call: {path} got shape {v.shape}, expected {own[path].shape}")
    with _substituted([own[path] for path in given], given.values()) as swapped:
        yield swapped


def call_with(tensors: Iterable[Tensor], values: Iterable[Any], f: Callable[[], Any]) -> Any:
    """``f()`` while ``tensors`` hold ``values`` (arrays or Tensors) and are tracked as these are, so that it can be differentiated as a function of them.

    They are not to be used by another thread meanwhile, and are afterwards what they were.
    """
    with _substituted(tensors, values) as swapped:
        return _kept_apart(f(), swapped)


@contextmanager
def _substituted(tensors: Iterable[Tensor], values: Iterable[Any]) -> Iterator[set[int]]:
    kept = [(t, t.value, t.node) for t in tensors]
    outer = dict(held)
    held.update({id(t): is_parameter(t) for t, _, _ in kept})
    try:
        for (t, _, _), v in zip(kept, values, strict=True):
            t.value, t.node = (v.value, v.node) if type(v) is Tensor else (v, None)
        yield {id(t) for t, _, _ in kept}
    finally:
        for t, value, node in kept:
            t.value, t.node = value, node
        held.clear()
        held.update(outer)


def _kept_apart(y: Any, swapped: set[int]) -> Any:
    """``y`` (any nest) with Tensors of its own in the place of those that will be given back what they held."""
    return tree.map_leaves(lambda t: Tensor(t.value, t.node) if id(t) in swapped else t, y)
