"""Nests of dict, list, tuple and namedtuple: taken apart and put together again. None is an empty nest."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any


def flatten(tree: Any) -> tuple[list[Any], Any]:
    """The leaves of a nest, in order, and its structure (an equal nest whose leaves are ``LEAF``)."""
    leaves: list[Any] = []

    def take(x: Any) -> Any:
        leaves.append(x)
        return LEAF

    return leaves, map_leaves(take, tree)


def unflatten(structure: Any, leaves: Any) -> Any:
    """The nest with this structure and these leaves."""
    rest = iter(leaves)
    return map_leaves(lambda _: next(rest), structure)


def map_leaves(f: Callable[..., Any], tree: Any) -> Any:
    """The nest of ``f(leaf)``."""
    if not isinstance(tree, (dict, list, tuple)):
        return None if tree is None else f(tree)
    if isinstance(tree, dict):
        out = copy.copy(tree)
        for key, value in tree.items():
            out[key] = map_leaves(f, value)
        return out
    parts = [map_leaves(f, x) for x in tree]
    return parts if type(tree) is list else type(tree)(*parts) if hasattr(tree, "_fields") else type(tree)(parts)


def paths(tree: Any, name: str = "") -> list[str]:
    """Where each leaf lies, as an expression after ``name``: ``params['w'][0]``. In the order of :func:`flatten`."""
    if isinstance(tree, dict):
        parts = [(f"[{key!r}]", x) for key, x in tree.items()]
    elif isinstance(tree, tuple) and hasattr(tree, "_fields"):
        parts = [(f".{field}", x) for field, x in zip(tree._fields, tree, strict=True)]
    elif isinstance(tree, (list, tuple)):
        parts = [(f"[{i}]", x) for i, x in enumerate(tree)]
    else:
        return [] if tree is None else [name]
    return [path for part, x in parts for path in paths(x, name + part)]


def flatten_like(tree: Any, structure: Any, what: str) -> list[Any]:
    """The leaves of ``tree``, which must have this structure.

    Raises:
        ValueError: it has another; both are shown, and what is missing or too much.
    """
    leaves, got = flatten(tree)
    if got != structure:
        there, wanted = paths(got), paths(structure)
        differences = [f"; {p or 'the whole'} is {how}" for a, b, how in ((wanted, there, "missing"), (there, wanted, "too much")) for p in a if p not in b][:4]
        raise ValueError(f"{what} must be a nest of the same structure: got {got}, expected {structure}{''.join(differences)}{_stacked(tree, structure)}")
    return leaves if type(structure) in (list, tuple) and all(part is LEAF for part in structure) else _in_order_of(structure, tree)


def _stacked(tree: Any, structure: Any) -> str:
    """What is to be done with a list of several of the nests that were expected."""
    if isinstance(tree, tuple) and isinstance(structure, tuple) and len(tree) == len(structure) == 1:  # the one argument of a function
        tree, structure = tree[0], structure[0]
    if structure is LEAF or not isinstance(tree, (list, tuple)) or not tree or any(flatten(x)[1] != structure for x in tree):
        return ""
    return f". Of these {len(tree)} nests make one: stack each leaf, the vectors first"


def _in_order_of(structure: Any, tree: Any) -> list[Any]:
    """The leaves in the structure's order: equal dicts may list their keys in another."""
    if isinstance(structure, dict):
        pairs = [(structure[key], tree[key]) for key in structure]
    elif isinstance(structure, (list, tuple)):
        pairs = list(zip(structure, tree, strict=True))
    else:
        return [] if structure is None else [tree]
    return [leaf for part, subtree in pairs for leaf in _in_order_of(part, subtree)]


class _Leaf:
    def __reduce__(self) -> str:
        return "LEAF"  # copies and pickles of structures have the same one

    def __repr__(self) -> str:
        return "*"


LEAF = _Leaf()
