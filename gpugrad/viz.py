"""The graph that hangs from a Tensor, to be read: what made each value, who uses it, and the derivative at every node.

>>> import gpugrad as gg
>>> w = gg.tensor(3.0, requires_grad=True)
>>> print(gg.viz.graph(w * w + w, w=w))
node  operation         shape  used by  df/du
w     leaf              ()     u1 u2    7
u1    = multiply(w, w)  ()     u2       1
u2    = add(u1, w)      ()              1
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gpugrad import backend
from gpugrad.ops.fit import ones_like, zeros_like
from gpugrad.tape import BATCH, FORWARD, Leaf, Pick, Reverse, Tensor, plain, pull_back
from gpugrad.transforms import own_all

WIDTHS = (12, 34, 14, 18, 14)  # of the table's columns at most, so that a line fits 100 characters


@dataclass
class Node:
    """One value of the graph.

    ``operation`` made it (empty for a leaf) from ``arguments``: names of nodes, and constants as text, ``const`` where
    the tape did not keep one. ``consumers`` are the names of the nodes made from it, S(u) in the literature.
    """

    name: str
    operation: str
    arguments: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: Any
    consumers: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return f"= {self.operation}({', '.join(self.arguments)})" if self.operation else "leaf"


class Graph:
    """What :func:`graph` returns: ``nodes`` in creation order; ``g["w"]`` is a node by its name; ``print(g)`` shows the table."""

    nodes: list[Node]

    def __init__(self, output: Tensor, names: dict[str, Tensor]) -> None:
        self._output = output
        self._tape = _reachable(output.node)
        called = self._called = _named(self._tape, names)
        self.nodes = [Node(called[n], _operation(n), _arguments(n, called), n.shape, n.dtype) for n in self._tape]
        self._by_name = {node.name: node for node in self.nodes}
        for node, n in zip(self.nodes, self._tape, strict=True):
            for p in dict.fromkeys(_parents(n)):  # once each, though x * x uses x twice
                self[called[p]].consumers.append(node.name)

    def __getitem__(self, name: str) -> Node:
        return self._by_name[name]

    def __iter__(self) -> Iterator[Node]:
        return iter(self.nodes)

    def __len__(self) -> int:
        return len(self.nodes)

    def __repr__(self) -> str:
        return f"<graph of {len(self)} nodes>"

    def derivatives(self) -> dict[str, Any]:
        """``df/du`` for every node u, by name: plain arrays, from one backward walk. Of an output f with several elements, that of their sum.

        Hooks do not run and no ``.grad`` is touched.

        Raises:
            RuntimeError: a backward has freed the graph in the meantime.
        """
        for n in self._tape:
            _refuse_freed(n)
        hooks = {n: n.notes for n in self._tape if n.notes is not None}
        for n in hooks:
            n.notes = None
        try:
            found = pull_back([(self._output.node, ones_like(self._output.value))], inputs=self._tape)
        finally:
            for n, notes in hooks.items():
                n.notes = notes
        zero = self._output.value  # what nothing flowed into gets zeros, on the output's device
        gs = own_all(found[n] if n in found else zeros_like(zero, n.dtype, shape=n.shape) for n in self._tape)
        return {node.name: g for node, g in zip(self.nodes, gs, strict=True)}

    def __str__(self) -> str:
        derivatives = self.derivatives()
        rows = [("node", "operation", "shape", "used by", "df/du" if not self._output.shape else "d sum(f)/du")]
        rows += [(node.name, str(node), str(node.shape), " ".join(node.consumers), _derivative(derivatives[node.name])) for node in self.nodes]
        clipped = [[_clip(cell, width) for cell, width in zip(row, WIDTHS, strict=True)] for row in rows]
        wide = [max(map(len, column)) for column in zip(*clipped, strict=True)]
        return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, wide, strict=True)).rstrip() for row in clipped)

    def dot(self) -> str:
        """The graph in Graphviz' language: ``dot -Tsvg`` draws it. Leaves are boxes; arrows point the way the values flow."""
        lines = ["digraph {", "  rankdir=LR"]
        for node, n in zip(self.nodes, self._tape, strict=True):
            label = _escaped(node.name) + (rf"\n{_escaped(node.operation)}" if node.operation else "")
            lines.append(f'  "{_escaped(node.name)}" [label="{label}", shape={"ellipse" if node.operation else "box"}]')
            lines += [f'  "{_escaped(self._called[p])}" -> "{_escaped(node.name)}"' for p in _parents(n)]
        return "\n".join([*lines, "}"])


def graph(output: Tensor, /, **names: Tensor) -> Graph:
    """The graph from the leaves to ``output``, as long as no backward has freed it.

    Nodes come in creation order. Those given by keyword are called so, ``graph(f, w=w, x=x)``; other leaves are called
    x1, x2, ..., other results u1, u2, .... The tape knows only what requires grad: an input that does not is a constant.

    Raises:
        TypeError: ``output`` is not a Tensor.
        ValueError: a named Tensor is not in the graph.
        RuntimeError: ``output`` does not require grad, or its graph has been freed.
    """
    if type(output) is not Tensor:
        raise TypeError(f"expected a Tensor, got {type(output).__name__}: a plain array has no graph. Make the inputs with gg.tensor(x, requires_grad=True)")
    if output.node is None or output.node.mode in (FORWARD, BATCH):
        raise RuntimeError("expected a Tensor with a graph of reverse mode, got one that does not require grad: make the inputs with requires_grad=True")
    return Graph(output, names)


# ------------------------------------------------------------------------------------------------- reading the tape


def _call(node: Any) -> Any:
    """The node of the call: an output of several is made by the call that they share."""
    return node.parents[0] if isinstance(node, Pick) else node


def _parents(node: Any) -> list[Any]:
    return [p for p in _call(node).parents if p is not None]


def _reachable(output: Any) -> list[Any]:
    """The nodes that ``output`` depends on, oldest first."""
    seen, stack = {output}, [output]
    while stack:
        node = stack.pop()
        _refuse_freed(node)
        new = set(_parents(node)) - seen
        seen |= new
        stack += new
    return sorted(seen, key=lambda n: -n.order)


def _refuse_freed(node: Any) -> None:
    if isinstance(_call(node), Reverse) and _call(node).vals is None:
        raise RuntimeError("a backward has freed the graph: look at it before, or call backward(retain_graph=True)")


def _named(nodes: list[Any], names: dict[str, Tensor]) -> dict[Any, str]:
    called = {}
    for name, t in names.items():
        node = t.node if type(t) is Tensor else None
        if node is None:
            raise ValueError(f"{name} does not require grad, so the tape does not know it: make it with gg.tensor({name}, requires_grad=True), or leave it out")
        called[node] = name
    missing = [name for node, name in called.items() if node not in set(nodes)]
    if missing:
        raise ValueError(f"the output does not depend on {', '.join(missing)}: leave it out")
    counts = {"x": 0, "u": 0}
    for node in nodes:
        letter = "x" if isinstance(node, Leaf) else "u"
        while node not in called:
            counts[letter] += 1
            if f"{letter}{counts[letter]}" not in names:
                called[node] = f"{letter}{counts[letter]}"
    return called


def _operation(node: Any) -> str:
    if isinstance(node, Leaf):
        return ""
    return _call(node).op.name + (f"[{node.index}]" if isinstance(node, Pick) else "")


def _arguments(node: Any, called: dict[Any, str]) -> tuple[str, ...]:
    if isinstance(node, Leaf):
        return ()
    call = _call(node)
    return tuple(_constant(v) if p is None else called[p] for v, p in zip(call.vals, call.parents, strict=True))


def _constant(v: Any) -> str:
    v = plain(v)
    if v is None:
        return "const"
    if not hasattr(v, "shape"):
        return _clip(str(v), 12)
    return _clip(str(v.item()), 12) if v.shape == () else f"array{v.shape}"


# ------------------------------------------------------------------------------------------------- writing


def _derivative(g: Any) -> str:
    g = backend.to_device(plain(g), "cpu")
    if g.size == 1:
        return f"{g.item():.6g}"
    text = np.array2string(g, precision=3, suppress_small=True) if g.size <= 3 else ""
    return text if text and len(text) <= WIDTHS[-1] and "\n" not in text else f"norm {np.linalg.norm(g.ravel()):.4g}"


def _clip(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 3] + "..."


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')
