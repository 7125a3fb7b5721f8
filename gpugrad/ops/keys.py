"""Keys: what stands in the brackets of ``x[key]``, the places that it names, and the key that picks the items of many examples at once.

Index arrays are arguments of the operations of :mod:`gpugrad.ops.index`, not parameters: the key holds ``ARRAY`` where one belongs. So whoever watches or replays the
tape sees them, and they may be Tensors.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from gpugrad import backend
from gpugrad.backend import namespace
from gpugrad.kernels import segments as kernels
from gpugrad.ops.batch import Args, aligned, ragged, same_for_all
from gpugrad.ops.fit import Shape, dtype_of, shape_of
from gpugrad.ops.shape import transpose
from gpugrad.tape import Tensor, is_batched, plain

# ---------------------------------------------------------------------------------- keys


class _Array:
    def __repr__(self) -> str:
        return "ARRAY"


ARRAY = _Array()  # stands in a key for an index array


def parse(x: Any, key: Any) -> tuple[list[Any], dict[str, Any]]:
    """The index arrays of ``x[key]``, and the parameters of the operations here.

    ``unique`` says that the key cannot name an element twice, for it holds no index arrays but masks and those of one element.
    """
    parts, arrays, unique = [], [], True
    for k in key if isinstance(key, tuple) else (key,):
        if type(k) is slice and Tensor in (type(k.start), type(k.stop), type(k.step)):
            k = plain_index(k)
        elif isinstance(k, (list, tuple, range)):
            k = np.asarray(k) if len(k) else np.empty(0, np.intp)
        p = plain(k)
        if type(k) in (int, slice) or not backend.is_array(p):
            parts.append(k)
        else:
            if p.dtype.kind == "b" and is_batched(k):
                raise ragged("x[mask]")
            unique = unique and (p.dtype.kind == "b" or math.prod(shape_of(k)) < 2)
            arrays.append(k)
            parts.append(ARRAY)
    return arrays, {"key": tuple(parts), "source": shape_of(x), "unique": unique}


def filled(key: tuple[Any, ...], arrays: Sequence[Any]) -> tuple[Any, ...]:
    """The key with its arrays back in place."""
    rest = iter(arrays)
    return tuple([next(rest) if k is ARRAY else k for k in key])


def plain_index(key: Any) -> Any:
    """``key`` with plain arrays in the place of Tensors, and integers in the place of 0-d integer Tensors."""
    if isinstance(key, tuple):
        return tuple([plain_index(k) for k in key])
    if isinstance(key, slice):
        return slice(plain_index(key.start), plain_index(key.stop), plain_index(key.step))
    if type(key) is not Tensor:
        return key
    key = same_for_all(key, "indices")
    return int(key) if key.ndim == 0 and key.dtype.kind in "iu" else key


# ---------------------------------------------------------------------------------- items at places
# An index touches some leading axes. Numbering their entries gives every item it picks a *place*: an integer per row.

FULL = slice(None)


def places_of(xp: Any, arrays: Sequence[Any], key: tuple[Any, ...], source: Shape) -> tuple[Any, int, Shape]:
    """The places that the key picks, how many places there are, and the shape of an item. Each axis adds its own part, so that the places that are not picked
    need no memory."""
    index, ndim = filled(key, arrays), touched(key, arrays, source)
    lead, item = source[:ndim], source[ndim:]
    places, step = xp.broadcast_to(xp.zeros((), np.int64), lead)[index], 1
    for axis in reversed(range(ndim)):
        numbers = xp.arange(0, lead[axis] * step, step).reshape([-1 if i == axis else 1 for i in range(ndim)])
        places = places + xp.broadcast_to(numbers, lead)[index]
        step *= max(lead[axis], 1)
    return places, math.prod(lead), item


def touched(key: tuple[Any, ...], arrays: Sequence[Any], source: Shape) -> int:
    """How many leading axes the key touches."""
    return len(source) if any(k is Ellipsis for k in key) else sum(map(_axes_of, filled(key, arrays)))


def _axes_of(k: Any) -> int:
    k = plain(k)
    if backend.is_array(k) and k.dtype.kind == "b":
        return k.ndim
    return 0 if k is None or isinstance(k, (bool, np.bool_)) else 1


def array_axes(key: tuple[Any, ...], arrays: Sequence[Any]) -> tuple[int, int] | None:
    """(a, b) where the key is a times ``:``, then arrays of integers for the axes a to b, then no more than ``:`` and ``...``: the commonest one. Else None."""
    a = next(i for i, k in enumerate(key) if k is ARRAY)
    b = a + len(arrays)
    if any(type(k) is not slice or k != FULL for k in (*key[:a], *[k for k in key[b:] if k is not Ellipsis])) or any(k is not ARRAY for k in key[a:b]):
        return None
    return None if any(i.dtype.kind not in "iu" for i in arrays) else (a, b)


def place_of(xp: Any, name: str, arrays: Sequence[Any], lengths: Shape) -> Any:
    """The places, of any shape, that one array for each of some axes picks. What one array has out of range is left to whoever reads it."""
    if len(arrays) == 1:
        return arrays[0]
    places, step = 0, 1
    for i, n in zip(arrays[::-1], lengths[::-1], strict=True):
        places = places + kernels.in_range(xp.asarray(i), n, name) * step
        step *= n
    return places


def usable(xp: Any, arrays: Sequence[Any], key: tuple[Any, ...], source: Shape, name: str) -> tuple[Any, ...]:
    """The arrays of a key as they may index: CuPy counts what is out of range round where NumPy raises."""
    return tuple(arrays) if xp is np or not arrays else checked(arrays, key, source, name)


def checked(arrays: Sequence[Any], key: tuple[Any, ...], source: Shape, name: str) -> tuple[Any, ...]:
    """The arrays of a key, those of integers with what :func:`in_range` makes of them."""
    kept, axis = list(arrays), 0
    named = sum(map(_axes_of, filled(key, arrays)))
    at = iter(range(len(kept)))
    for k in key:
        if k is Ellipsis:
            axis += len(source) - named + 1
        elif k is ARRAY:
            i = next(at)
            if kept[i].dtype.kind in "iu" and axis < len(source):
                kept[i] = kernels.in_range(kept[i], source[axis], name)
            axis += _axes_of(arrays[i])
        else:
            axis += _axes_of(k)
    return tuple(kept)


def winners(xp: Any, places: Any) -> Any:
    """Which rows are the last that name their place."""
    order, _, last = kernels.by_place(xp, places.ravel())
    won = xp.empty_like(last)
    won[order] = last
    return won.reshape(places.shape)


# ---------------------------------------------------------------------------------- many examples (gpugrad.ops.batch)
# With the examples' axis in front of x, x[key] is x[:, *key]; or, where index arrays depend on the example, x[numbers of the examples, *key].


class Whole(NamedTuple):
    """How the items of all examples are picked at once: the parameters of an operation, its index arrays, and ``order``, the axes of what they pick in the order in
    which it is wanted: the examples' axis, then those that one example picks."""

    params: dict[str, Any]
    arrays: list[Any]
    order: tuple[int, ...]

    def to_wanted(self, y: Any) -> Any:
        """What was picked, in the wanted order."""
        order = self.order[: len(shape_of(y))]  # axes that the key does not touch come last, and may be missing
        return y if order == tuple(range(len(order))) else transpose(y, order)

    def from_wanted(self, y: Any) -> Any:
        """The inverse."""
        return y if self.order == tuple(range(len(self.order))) else transpose(y, np.argsort(self.order).tolist())


def together(x: Any, of_x: bool, size: int, arrays: Args, batched: Sequence[bool], params: dict[str, Any]) -> Whole:
    """See :class:`Whole`; ``of_x`` says whether what is indexed has the examples' axis. x tells where it lies."""
    key, source, own = params["key"], params["source"], any(batched)
    block, before, after, front = _axes_picked(key, arrays, batched, source)
    rest = before + after
    at = 0 if front or not own else before  # the examples' axis in the result
    if own:
        arrays = [aligned(a, block) if b else a for a, b in zip(arrays, batched, strict=True)]
    if of_x and own:
        numbers = namespace(plain(x)).arange(size).reshape(size, *[1] * block)
        key, arrays, at = (ARRAY, *key), [numbers, *arrays], 0
    elif of_x:
        key, at = (FULL, *key), block if front else 0
    order = [at, *[i for i in range(1 + block + rest) if i != at]]
    if of_x and own and not front:  # the arrays' axes came to the front with the numbers
        order = [0, *range(1 + block, 1 + block + before), *range(1, 1 + block), *range(1 + block + before, 1 + block + rest)]
    params = {"key": key, "source": (size, *source) if of_x else source, "unique": params.get("unique", False) and of_x}
    return Whole(params, list(arrays), tuple(order))


def _axes_picked(key: tuple[Any, ...], arrays: Args, batched: Sequence[bool], source: Shape) -> tuple[int, int, int, bool]:
    """Of what one example picks: how many axes its index arrays make, how many there are before and after those, and whether NumPy moves those to the front, as it
    does where something stands between them (integers are arrays too, then)."""
    scalars = [1 for k in key if isinstance(k, (bool, np.bool_))]
    blocks = scalars + [1 if _is_mask(a) else len(shape_of(a)) - b for a, b in zip(arrays, batched, strict=True)]
    named = sum([_axes_of(k) for k in filled(key, arrays) if k is not Ellipsis])
    made = [len(source) - named if k is Ellipsis else 1 if k is None or type(k) is slice else -1 for k in key]  # axes; -1 for integers and arrays
    if not any(k is Ellipsis for k in key):
        made.append(len(source) - named)
    if not blocks:
        return 0, sum(n for n in made if n > 0), 0, False
    places = [i for i, n in enumerate(made) if n < 0]
    before, rest = sum(made[: places[0]]), sum(n for n in made if n > 0)
    front = places[-1] - places[0] >= len(places)
    return max(blocks), 0 if front else before, rest if front else rest - before, front


def _is_mask(a: Any) -> bool:
    return bool(dtype_of(a).kind == "b")
