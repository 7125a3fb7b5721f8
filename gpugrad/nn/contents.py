"""What a module holds: there is no registry, modules, parameters and buffers are found among its attributes."""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Iterator, Set, ValuesView
from types import GeneratorType
from typing import TYPE_CHECKING, Any, ClassVar

from gpugrad.tape import Tensor

if TYPE_CHECKING:
    from gpugrad.nn.module import Module


held: dict[int, bool] = {}  # Tensors that hold other values for now (functional_call), by identity, and whether they are parameters


def is_parameter(t: Tensor) -> bool:
    """Whether a Tensor of a module is one of its parameters, whatever it holds for now."""
    return held.get(id(t), t.requires_grad)


class Contents:
    """The part of :class:`gpugrad.nn.Module` that finds what is in it."""

    buffer_names: ClassVar[tuple[str, ...]] = ()

    def named_modules(self) -> Iterator[tuple[str, Module]]:
        """(path, module) of this module and all inside it; this one's path is empty."""
        return ((path, thing) for path, thing, _ in _walk(self) if isinstance(thing, Contents))  # type: ignore[misc]

    def modules(self) -> Iterator[Module]:
        """This module and all inside it."""
        return (m for _, m in self.named_modules())

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """(path, module) of the modules directly inside: in attributes, and in lists, tuples and dicts of them."""
        last = ""
        for path, m in self.named_modules():
            if path and not (last and path.startswith(f"{last}.")):
                last = path
                yield path, m

    def children(self) -> Iterator[Module]:
        """The modules directly inside."""
        return (m for _, m in self.named_children())

    def named_parameters(self) -> Iterator[tuple[str, Tensor]]:
        """(path, parameter) of every leaf Tensor that requires grad and is not declared as a buffer."""
        return ((path, t) for path, t, declared in self._tensors() if is_parameter(t) and not declared)

    def parameters(self) -> Iterator[Tensor]:
        """Every leaf Tensor that requires grad and is not declared as a buffer."""
        return (t for _, t in self.named_parameters())

    def named_buffers(self) -> Iterator[tuple[str, Tensor]]:
        """(path, buffer) of every Tensor that is declared as one or does not require grad."""
        return ((path, t) for path, t, declared in self._tensors() if declared or not is_parameter(t))

    def buffers(self) -> Iterator[Tensor]:
        """Every Tensor that is declared as a buffer or does not require grad."""
        return (t for _, t in self.named_buffers())

    def _tensors(self) -> Iterator[tuple[str, Tensor, bool]]:
        """(path, Tensor, whether it is declared as a buffer)."""
        paths = set()
        for path, t, declared in _walk(self):
            if type(t) is Tensor and (id(t) in held or t.is_leaf) and (declared or is_parameter(t) or not path.rpartition(".")[2].startswith("_")):
                if path in paths:
                    raise ValueError(f"{type(self).__name__} has two Tensors under the path {path!r}, of which a state dict would lose one: rename a key")
                paths.add(path)
                yield path, t, declared

    def _named_tensors(self) -> Iterator[tuple[str, Tensor]]:
        return ((path, t) for path, t, _ in self._tensors())


def _walk(thing: Any, path: str = "", declared: bool = False, seen: set[int] | None = None) -> Iterator[tuple[str, Any, bool]]:
    """(path, thing, whether it is declared as a buffer) of every Module and Tensor in a module or container, each once, a module before what is in it."""
    seen = set() if seen is None else seen
    if not isinstance(thing, (Contents, Tensor, dict, list, tuple)) or id(thing) in seen:
        _refuse_unordered(thing, path)
        return
    seen.add(id(thing))
    if isinstance(thing, (Contents, Tensor)):
        yield path, thing, declared
        if type(thing) is Tensor:
            return
    items = _items(thing)
    buffers: Any = _declared_buffers(type(thing)) if isinstance(thing, Contents) else ()  # type: ignore[arg-type]
    for key, value in items.items():
        yield from _walk(value, f"{path}.{key}" if path else str(key), key in buffers, seen)


def _items(thing: Any) -> dict[Any, Any]:
    return vars(thing) if isinstance(thing, Contents) else thing if isinstance(thing, dict) else dict(enumerate(thing))


def at_path(thing: Any, path: str) -> Any:
    """What a path leads to, whether or not it is the first that does; None where there is nothing."""
    for key in path.split("."):
        if not isinstance(thing, (Contents, dict, list, tuple)):
            return None
        thing = {str(k): v for k, v in _items(thing).items()}.get(key)
    return thing


@functools.cache
def _declared_buffers(cls: type[Contents]) -> frozenset[str]:
    stated = [vars(base).get("buffer_names", ()) for base in cls.__mro__]
    if any(isinstance(names, str) for names in stated):
        raise TypeError(f"{cls.__name__}.buffer_names: got a string, expected a tuple of names, as in ('running_mean',)")
    return frozenset(name for names in stated for name in names)


_PASSING = (GeneratorType, map, filter, zip)


def _refuse_unordered(thing: Any, path: str) -> None:
    """Parameters in a set or a generator would silently not be trained."""
    if isinstance(thing, (Set, deque, ValuesView)):
        what = next((type(v).__name__ for v in thing if isinstance(v, (Contents, Tensor))), None)
        if what is not None:
            raise TypeError(
                f"attribute {path!r}: got a {type(thing).__name__} that holds a {what}, expected a list, tuple or dict: they give what they hold a name"
            )
    elif isinstance(thing, _PASSING) and not path.rpartition(".")[2].startswith("_"):
        raise TypeError(
            f"attribute {path!r}: got a {type(thing).__name__}, expected a list, tuple or dict: nothing in it would be found. "
            "If it holds no parameters, give it a name that starts with an underscore"
        )
