"""Parameters that nothing depends on: they would stay what they were at the start, and nobody would be told."""

from __future__ import annotations

from typing import Any

from gpugrad import tree
from gpugrad.nn.module import Module
from gpugrad.tape import Leaf, Reverse, Tensor


def unused_parameters(module: Module, *outputs: Any) -> list[str]:
    """The paths of the parameters on which none of the outputs (a loss, or any nest of Tensors) depends. Ask before ``backward``, which frees the graph.

    Raises:
        RuntimeError: the graph has been freed.
    """
    leaves = _leaves(outputs)
    return [path for path, p in module.named_parameters() if p.node not in leaves]


def check_parameters_used(module: Module, *outputs: Any) -> None:
    """Raise unless an output depends on every parameter.

    Raises:
        RuntimeError: naming all parameters on which none does, or the graph has been freed.
    """
    unused = unused_parameters(module, *outputs)
    if unused:
        params, owners = dict(module.named_parameters()), dict(module.named_modules())
        kinds = [type(owners.get(path.rpartition(".")[0], module)).__name__ for path in unused]
        lines = [f"  {type(module).__name__}.{path} ({kind}), of shape {params[path].shape}" for path, kind in zip(unused, kinds, strict=True)]
        raise RuntimeError(
            f"the output does not depend on {len(unused)} of {len(params)} parameters, so they would get no gradient:\n" + "\n".join(lines) + "\n"
            "Use them in forward, freeze them with requires_grad_(False), or take them out of the module; training.fit(..., allow_unused=True) lets them be"
        )


def _leaves(outputs: Any) -> set[Any]:
    """The leaves of the graph that made the outputs."""
    stack = [t.node for t in tree.flatten(outputs)[0] if type(t) is Tensor and t.node is not None]
    seen = set(stack)
    while stack:
        node = stack.pop()
        if isinstance(node, Reverse) and node.vals is None:
            raise RuntimeError("the graph has been freed, so what the output depends on is forgotten: ask before backward, or call backward(retain_graph=True)")
        for p in getattr(node, "parents", ()):
            if p is not None and p not in seen:
                seen.add(p)
                stack.append(p)
    return {node for node in seen if isinstance(node, Leaf)}
