"""A batch's curvature matrix as a linear map, from a recorded pass that can be used again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gpugrad import backend, tape, tree
from gpugrad.tape import Tensor, plain


class Linearization:
    """A batch's curvature matrix at the operator's parameters, as a map of the parts of a vector.

    ``nbytes`` is what it keeps beside parameters and data, ``width`` about what a product with one vector takes meanwhile.
    """

    nbytes = width = 0

    def product(self, *vs: Any) -> list[Any]:
        """The parts of the product."""
        raise NotImplementedError

    def value(self) -> Any:
        """The loss of the batch."""
        raise NotImplementedError

    def gradient(self) -> Sequence[Any]:
        """Its gradient."""
        raise NotImplementedError


def recorded_bytes(nodes: Sequence[Any], *others: Any) -> int:
    """Bytes of the arrays that the graph of ``nodes`` keeps, without those of ``others``, which are there anyway."""
    seen = {id(tape.root(plain(x))) for x in tree.flatten(others)[0] if type(x) is Tensor or backend.is_array(x)}
    total = 0
    for node in tape.reached(nodes):
        for x in (*(getattr(node, "vals", None) or ()), *_several(getattr(node, "y", None))):
            array = tape.root(plain(x))
            if backend.is_array(array) and id(array) not in seen:
                seen.add(id(array))
                total += array.nbytes
    return total


def _several(y: Any) -> tuple[Any, ...]:
    return y if type(y) is tuple else (y,)
