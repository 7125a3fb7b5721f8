"""The vectors of an operator: flat, as the columns of a matrix, or in the nest of the parameters."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from gpugrad import backend, tree
from gpugrad.ops.fit import astype, dtype_of, shape_of
from gpugrad.ops.shape import concatenate, reshape
from gpugrad.tape import Tensor, bare, box, is_inexact, plain


class Form(NamedTuple):
    """How a vector was given, and so how its product is returned."""

    layout: str  # "flat", "columns" or "nest"
    number: int | None  # how many vectors, None for one that has no axis for it
    boxed: bool  # in Tensors


class Space:
    """Vectors with a part for each of some arrays: N numbers in all.

    ``read`` takes one of these, and ``write`` returns the same form:

    - flat: an array (N,), the parts one after another, each in C order;
    - columns: an array (N, K) of K vectors;
    - a nest like ``structure`` with arrays of the parts' shapes, or of shapes (K, *shape) for K vectors. (Of what has no nest but is one array: what is not flat,
      or columns.)

    Args:
        names: what messages call the parts.
        shapes, dtypes: of the parts.
        device: where all of them are.
        structure: the nest, as :func:`gpugrad.tree.flatten` gives it.
    """

    def __init__(self, names: Sequence[str], shapes: Sequence[Any], dtypes: Sequence[Any], device: str, structure: Any) -> None:
        self.names, self.shapes, self.dtypes, self.device, self.structure = tuple(names), list(shapes), list(dtypes), device, structure
        self.dtype = np.result_type(*dtypes)
        self._ends = list(itertools.accumulate(math.prod(shape) for shape in shapes))
        self.size = self._ends[-1]

    @classmethod
    def of(cls, names: Sequence[str], leaves: Sequence[Any], structure: Any) -> Space:
        """Of the leaves of a nest, plain arrays.

        Raises:
            gpugrad.DeviceError: they are on several devices.
        """
        return cls(names, [x.shape for x in leaves], [x.dtype for x in leaves], _one_device(names, leaves), structure)

    def part(self, indices: Sequence[int], structure: Any) -> Space:
        """The space of some of the parts."""
        names, shapes, dtypes = ([values[i] for i in indices] for values in (self.names, self.shapes, self.dtypes))
        return Space(names, shapes, dtypes, self.device, structure)

    def fits(self, other: Space) -> bool:
        """Whether their vectors have the same parts."""
        return all(getattr(self, name) == getattr(other, name) for name in ("names", "shapes", "dtypes", "device", "structure"))

    def zeros(self, index: int, count: int | None) -> Any:
        """A part of zeros, or of ``count`` vectors of zeros."""
        xp, current = backend.on(self.device)
        with current:
            return xp.zeros(self.shapes[index] if count is None else (count, *self.shapes[index]), self.dtypes[index])

    # ------------------------------------------------------------------ reading

    def read(self, v: Any, what: str = "the vector") -> tuple[list[Any], Form]:
        """The parts of a vector (with K in front of several), checked, in the parts' dtypes; and its form.

        Raises:
            ValueError: another size, shape or nest.
            TypeError: not floats.
            gpugrad.DeviceError: another device.
        """
        boxed = any(type(x) is Tensor for x in tree.flatten(v)[0])
        is_array = type(v) is Tensor or backend.is_array(v)
        shape = shape_of(v) if is_array else ()
        if is_array and len(shape) in (1, 2) and shape[0] == self.size:
            v = bare(self._checked(v, what, self.dtype))
            return (self._split(v), Form("flat", None, boxed)) if len(shape) == 1 else (self._split(v.T), Form("columns", shape[1], boxed))
        if is_array and self.structure is not tree.LEAF:
            raise ValueError(f"{what} has shape {shape}, expected ({self.size},), ({self.size}, K), or a nest like the parameters: {self._described()}")
        if not is_array and self.structure is tree.LEAF:
            raise TypeError(f"{what} is {type(v).__name__}, expected an array of shape {self.shapes[0]}, ({self.size},) or ({self.size}, K)")
        if isinstance(v, (list, tuple)) and all(getattr(x, "shape", None) == (self.size,) for x in v) and tree.flatten(v)[1] != self.structure:
            raise ValueError(f"{what} is a {type(v).__name__} of {len(v)} vectors: give them as the columns of one array, np.stack(vectors, axis=1)")
        leaves = tree.flatten_like(v, self.structure, what)
        leaves = [bare(self._checked(x, f"{what}: {name}", dtype)) for x, name, dtype in zip(leaves, self.names, self.dtypes, strict=True)]
        return leaves, Form("nest", self._count(leaves, what), boxed)

    def _checked(self, x: Any, what: str, dtype: Any) -> Any:
        """An array of real floats on the operator's device, in ``dtype``."""
        x = x if hasattr(x, "dtype") else backend.asarray(x)
        found = dtype_of(x)
        if found.kind == "c":
            raise TypeError(f"{what} is {found}, expected real numbers: multiply with its real and imaginary parts, v.real and v.imag")
        if not is_inexact(found):
            raise TypeError(f"{what} is {found}, expected floats: convert it by .astype({dtype.name!r})")
        device = backend.device_of(plain(x))
        if device != self.device and shape_of(x):
            raise backend.DeviceError(f"{what} is on {device}, the parameters are on {self.device}: move it with gg.asarray(v, device={self.device!r})")
        return astype(x, dtype, copy=False)

    def _count(self, leaves: Sequence[Any], what: str) -> int | None:
        """How many vectors a nest holds; None for one without an axis for it."""
        counts = set()
        for x, name, shape in zip(leaves, self.names, self.shapes, strict=True):
            got = shape_of(x)
            if got != shape and got[1:] != shape:
                raise ValueError(f"{what}: {name} has shape {got}, expected {shape}, or {('K', *shape)} for K vectors".replace("'K'", "K"))
            counts.add(None if got == shape else got[0])
        if len(counts) > 1:
            raise ValueError(f"{what}: {', '.join(f'{n} has shape {shape_of(x)}' for n, x in zip(self.names, leaves))}: these are not as many vectors in each")
        return counts.pop()

    def _split(self, v: Any) -> list[Any]:
        """(..., N) into parts (..., *shape)."""
        lead = shape_of(v)[:-1]
        return [
            astype(reshape(v[..., end - math.prod(shape) : end], (*lead, *shape)), dtype, copy=False)
            for end, shape, dtype in zip(self._ends, self.shapes, self.dtypes, strict=True)
        ]

    # ------------------------------------------------------------------ writing

    def write(self, leaves: Sequence[Any], form: Form) -> Any:
        """A vector of these parts, in that form."""
        if form.boxed:
            leaves = [box(x) for x in leaves]
        if form.layout == "nest":
            return tree.unflatten(self.structure, leaves)
        lead = () if form.layout == "flat" else (form.number,)
        joined = concatenate([reshape(x, (*lead, math.prod(shape_of(x)[len(lead) :]))) for x in leaves], axis=-1, dtype=self.dtype)
        return joined if form.layout == "flat" else joined.T

    def flat(self, nest: Any) -> Any:
        """A nest (or flat vector) as a flat vector."""
        leaves, form = self.read(nest)
        return self.write(leaves, form._replace(layout="flat" if form.number is None else "columns"))

    def nest(self, flat: Any) -> Any:
        """A flat vector (or nest) as a nest."""
        leaves, form = self.read(flat)
        return self.write(leaves, form._replace(layout="nest"))

    def _described(self) -> str:
        return ", ".join(f"{name} {shape}" for name, shape in zip(self.names, self.shapes, strict=True))


def _one_device(names: Sequence[str], leaves: Sequence[Any]) -> str:
    devices = [backend.device_of(plain(x)) for x in leaves]
    for name, device in zip(names, devices, strict=True):
        if device != devices[0]:
            raise backend.DeviceError(
                f"{names[0]} is on {devices[0]} and {name} on {device}: expected all parameters on one device; move them with .to({device!r})"
            )
    return devices[0]
