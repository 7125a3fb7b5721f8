"""Modules as functions of their parameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gpugrad import backend, tree
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
    own = dict(module._named_tensors())
    given = {path: v if type(v) is Tensor else Tensor(backend.asarray(v)) for path, v in params.items()}
    for path, v in given.items():
        if path not in own:
            raise KeyError(f"functional_call: {type(module).__name__} has no parameter or buffer {path!r}; it has {', '.join(own) or 'none'}")
        if v.shape != own[path].shape:
            raise ValueError(f"functional_call: {path} got shape {v.shape}, expected {own[path].shape}")
    kept = [(own[path], own[path].value, own[path].node) for path in given]
    try:
        for path, v in given.items():
            own[path].value, own[path].node = v.value, v.node
        y = module(*inputs, **options)
        swapped = {id(t) for t, _, _ in kept}
        return tree.map_leaves(lambda t: Tensor(t.value, t.node) if id(t) in swapped else t, y)
    finally:
        for t, value, node in kept:
            t.value, t.node = value, node
