"""Indexing as in NumPy, its transpose, functional updates, sorting and selection.

``getitem`` gathers; ``scatter_add`` writes into zeros, where repeated indices accumulate. Each is the other's transpose.

Index arrays are arguments of the operations, not parameters: the key holds ``ARRAY`` where one belongs. So whoever watches
or replays the tape sees them, and they may be Tensors.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.lib.array_utils import normalize_axis_index

from gpugrad import backend
from gpugrad.backend import namespace
from gpugrad.kernels import segments as kernels
from gpugrad.ops import elementwise as ew
from gpugrad.ops.batch import Args, aligned, leading, ragged, repeated, same_for_all, shift
from gpugrad.ops.fit import Shape, add, astype, broadcast_to, dtype_of, full_like, is_half, ones_like, shape_of, zeros_like
from gpugrad.ops.rules import Sample, constant, general
from gpugrad.ops.shape import along, as_array, concatenate, moveaxis, ravel, reshape, transpose
from gpugrad.tape import Op, Shared, Tensor, is_batched, plain

__all__ = ["argsort", "compress", "delete", "extract", "getitem", "insert", "sort", "take", "take_along_axis"]

# ---------------------------------------------------------------------------------- keys


class _Array:
    def __repr__(self) -> str:
        return "ARRAY"


ARRAY = _Array()  # stands in a key for an index array


def _parse(x: Any, key: Any) -> tuple[list[Any], dict[str, Any]]:
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


def _filled(key: tuple[Any, ...], arrays: Sequence[Any]) -> tuple[Any, ...]:
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

_FULL = slice(None)
_FEW = 4096  # elements: up to so many, what NumPy does in one call is quicker than a kernel


def _places(xp: Any, arrays: Sequence[Any], key: tuple[Any, ...], source: Shape) -> tuple[Any, int, Shape]:
    """The places that the key picks, how many places there are, and the shape of an item. Each axis adds its own part, so that the places that are not picked
    need no memory."""
    index, ndim = _filled(key, arrays), _touched(key, arrays, source)
    lead, item = source[:ndim], source[ndim:]
    places, step = xp.broadcast_to(xp.zeros((), np.int64), lead)[index], 1
    for axis in reversed(range(ndim)):
        numbers = xp.arange(0, lead[axis] * step, step).reshape([-1 if i == axis else 1 for i in range(ndim)])
        places = places + xp.broadcast_to(numbers, lead)[index]
        step *= max(lead[axis], 1)
    return places, math.prod(lead), item


def _touched(key: tuple[Any, ...], arrays: Sequence[Any], source: Shape) -> int:
    """How many leading axes the key touches."""
    return len(source) if any(k is Ellipsis for k in key) else sum(map(_axes_of, _filled(key, arrays)))


def _axes_of(k: Any) -> int:
    k = plain(k)
    if backend.is_array(k) and k.dtype.kind == "b":
        return k.ndim
    return 0 if k is None or isinstance(k, (bool, np.bool_)) else 1


def _array_axes(key: tuple[Any, ...], arrays: Sequence[Any]) -> tuple[int, int] | None:
    """(a, b) where the key is a times ``:``, then arrays of integers for the axes a to b, then no more than ``:`` and ``...``: the commonest one. Else None."""
    a = next(i for i, k in enumerate(key) if k is ARRAY)
    b = a + len(arrays)
    if any(type(k) is not slice or k != _FULL for k in (*key[:a], *[k for k in key[b:] if k is not Ellipsis])) or any(k is not ARRAY for k in key[a:b]):
        return None
    return None if any(i.dtype.kind not in "iu" for i in arrays) else (a, b)


def _place_of(xp: Any, name: str, arrays: Sequence[Any], lengths: Shape) -> Any:
    """The places, of any shape, that one array for each of some axes picks. What one array has out of range is left to whoever reads it."""
    if len(arrays) == 1:
        return arrays[0]
    places, step = 0, 1
    for i, n in zip(arrays[::-1], lengths[::-1], strict=True):
        places = places + kernels.in_range(xp.asarray(i), n, name) * step
        step *= n
    return places


def _usable(xp: Any, arrays: Sequence[Any], key: tuple[Any, ...], source: Shape, name: str) -> tuple[Any, ...]:
    """The arrays of a key as they may index: CuPy counts what is out of range round where NumPy raises."""
    return tuple(arrays) if xp is np or not arrays else _checked(arrays, key, source, name)


def _checked(arrays: Sequence[Any], key: tuple[Any, ...], source: Shape, name: str) -> tuple[Any, ...]:
    """The arrays of a key, those of integers with what :func:`in_range` makes of them."""
    kept, axis = list(arrays), 0
    named = sum(map(_axes_of, _filled(key, arrays)))
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


def pick_rows(x: Any, places: Any, *, skip: int | None = None, from_end: bool = True, name: str = "getitem") -> Any:
    """``x[places]`` for x (count, width) and integers of any shape; zeros for the place ``skip``; negative ones are refused where they do not count ``from_end``."""
    if x.dtype.kind == "c":
        return pick_rows(_contiguous(x).view(_part_of(x)), places, skip=skip, from_end=from_end, name=name).view(x.dtype)
    return kernels.gather(x, kernels.as_int64(namespace(x), places), skip=skip, from_end=from_end, name=name)


def sum_rows(values: Any, places: Any, count: int, *, skip: int | None = None, name: str = "scatter_add") -> Any:
    """Rows of ``values`` (n, width) summed by their places (n,), as (count, width). 16-bit floats are summed in wider ones, complex numbers by their parts."""
    dtype = values.dtype
    if dtype.kind == "c":
        return sum_rows(_contiguous(values).view(_part_of(values)), places, count, skip=skip, name=name).view(dtype)
    if is_half(dtype) and namespace(values) is np:
        return sum_rows(values.astype(np.float32), places, count, skip=skip, name=name).astype(dtype)
    return kernels.segment_sum(values, kernels.as_int64(namespace(values), places), count=count, skip=skip, name=name)


def _contiguous(x: Any) -> Any:
    return namespace(x).ascontiguousarray(x)


def _part_of(x: Any) -> Any:
    return np.dtype(f"f{x.dtype.itemsize // 2}")


def _winners(xp: Any, places: Any) -> Any:
    """Which rows are the last that name their place."""
    order, _, last = kernels.by_place(xp, places.ravel())
    won = xp.empty_like(last)
    won[order] = last
    return won.reshape(places.shape)


# ---------------------------------------------------------------------------------- many examples (gpugrad.ops.batch)
# With the examples' axis in front of x, x[key] is x[:, *key]; or, where index arrays depend on the example, x[numbers of the examples, *key].


class _Whole(NamedTuple):
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


def _whole(x: Any, of_x: bool, size: int, arrays: Args, batched: Sequence[bool], params: dict[str, Any]) -> _Whole:
    """See :class:`_Whole`; ``of_x`` says whether what is indexed has the examples' axis. x tells where it lies."""
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
        key, at = (_FULL, *key), block if front else 0
    order = [at, *[i for i in range(1 + block + rest) if i != at]]
    if of_x and own and not front:  # the arrays' axes came to the front with the numbers
        order = [0, *range(1 + block, 1 + block + before), *range(1, 1 + block), *range(1 + block + before, 1 + block + rest)]
    params = {"key": key, "source": (size, *source) if of_x else source, "unique": params.get("unique", False) and of_x}
    return _Whole(params, list(arrays), tuple(order))


def _axes_picked(key: tuple[Any, ...], arrays: Args, batched: Sequence[bool], source: Shape) -> tuple[int, int, int, bool]:
    """Of what one example picks: how many axes its index arrays make, how many there are before and after those, and whether NumPy moves those to the front, as it
    does where something stands between them (integers are arrays too, then)."""
    scalars = [1 for k in key if isinstance(k, (bool, np.bool_))]
    blocks = scalars + [1 if _is_mask(a) else len(shape_of(a)) - b for a, b in zip(arrays, batched, strict=True)]
    named = sum([_axes_of(k) for k in _filled(key, arrays) if k is not Ellipsis])
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


def _get_examples(op: Op, size: int, batched: Sequence[bool], args: Args, params: dict[str, Any]) -> Any:
    x, *arrays = args
    whole = _whole(x, batched[0], size, arrays, batched[1:], params)
    return whole.to_wanted(op(x, *whole.arrays, **whole.params))


def _scatter_examples(op: Op, size: int, batched: Sequence[bool], args: Args, params: dict[str, Any]) -> Any:
    g, *arrays = args
    whole = _whole(g, True, size, arrays, batched[1:], params)
    return op(whole.from_wanted(g if batched[0] else repeated(g, size)), *whole.arrays, **whole.params)


def _set_examples(op: Op, size: int, batched: Sequence[bool], args: Args, params: dict[str, Any]) -> Any:
    x, v, *arrays = args
    whole = _whole(x, True, size, arrays, batched[2:], params)
    if batched[1] or shape_of(v):
        v = whole.from_wanted(aligned(v if batched[1] else repeated(v, 1), len(whole.order) - 1))
    return op(x if batched[0] else repeated(x, size), v, *whole.arrays, **whole.params)


# ---------------------------------------------------------------------------------- places as operations: they may depend on the example


def _number_examples(op: Op, size: int, batched: Sequence[bool], args: Args, params: dict[str, Any]) -> Any:
    x, *arrays = args
    count = math.prod(params["source"][: _touched(params["key"], arrays, params["source"])])
    if not any(batched[1:]):
        return Shared(op(zeros_like(x, shape=()), *arrays, **params))
    whole = _whole(x, True, size, arrays, batched[1:], params)
    places = op(zeros_like(x, shape=()), *whole.arrays, key=whole.params["key"], source=whole.params["source"])
    return ew.remainder(whole.to_wanted(places), count)


def _starts(places: Any, size: int, count: int) -> Any:
    """Numbers that set the examples' places apart."""
    starts = namespace(plain(places)).arange(size) * count
    return starts.reshape(size, *[1] * (len(shape_of(places)) - 1))


def _sort_examples(op: Op, size: int, _batched: Any, args: Args, params: dict[str, Any]) -> Any:
    (places,), shape = args, shape_of(args[0])
    starts = _starts(places, size, params["count"])
    order, ordered, last = [reshape(y, shape) for y in op(ravel(add(places, starts)), count=size * params["count"])]
    return ew.subtract(order, _starts(places, size, shape[1])), ew.subtract(ordered, starts), last


_number = constant(
    "places",
    lambda x, *arrays, key, source: _places(namespace(x), _usable(namespace(x), arrays, key, source, "at"), key, source)[0],
    samples=[
        Sample((), np.array([[0, 2], [2, 2]]), key=(ARRAY,), source=(3, 2)),
        Sample((), np.array([0, 1, 0]), np.array([1, -1, 1]), key=(_FULL, ARRAY, None, ARRAY), source=(2, 2, 3, 2)),
        Sample((), np.array([0, 1, 0]), key=(_FULL, ARRAY, 1), source=(2, 2, 3, 2)),
    ],
    batch=_number_examples,
    doc="The places that a key picks, on the device of x.",
)
_won = constant(
    "winners",
    lambda places, *, count: _winners(namespace(places), places),
    samples=[Sample(np.array([[0, 2], [2, 1]]), count=3)],
    batch=lambda op, size, _batched, args, params: op(add(args[0], _starts(args[0], size, params["count"])), count=size * params["count"]),
    doc="Which of the places (from 0 to count - 1) are the last of their kind.",
)
_by_place = constant(
    "by_place",
    lambda places, *, count: kernels.by_place(namespace(places), places),
    samples=[Sample(np.array([0, 2, 2, 1, 0]), count=3)],
    batch=_sort_examples,
    doc="See gpugrad.kernels.segments; of places from 0 to count - 1.",
)


# ---------------------------------------------------------------------------------- getitem and scatter_add


def _get(x: Any, *arrays: Any, key: tuple[Any, ...], source: Shape, unique: bool) -> Any:
    if not arrays:
        return x[key]
    xp = namespace(x)
    if xp is np:
        return _picked(x, arrays, key)
    axes = _array_axes(key, arrays)
    if axes is None or axes[0] or x.dtype.kind not in "fVc" or not x.flags.c_contiguous:
        return x[_filled(key, _usable(xp, arrays, key, source, "getitem"))]
    lead, item = source[: axes[1]], source[axes[1] :]
    places = _place_of(xp, "getitem", arrays, lead)
    return pick_rows(x.reshape(math.prod(lead), math.prod(item)), places).reshape(places.shape + item)


def _picked(x: Any, arrays: Sequence[Any], key: tuple[Any, ...]) -> Any:
    """``x[key]`` of NumPy arrays."""
    try:
        if len(key) == 1 and x.ndim > 1 and arrays[0].dtype.kind in "iu" and arrays[0].dtype != np.uint64 and x.flags.c_contiguous:
            return x.take(arrays[0], 0)  # reads and writes whole rows
        return x[_filled(key, arrays)]
    except IndexError:
        _checked(arrays, key, x.shape, "getitem")  # says which, where
        raise


def _scatter_add(g: Any, *arrays: Any, key: tuple[Any, ...], source: Shape, unique: bool) -> Any:
    xp = namespace(g)
    if unique or (xp is np and g.size <= _FEW):
        index = _filled(key, _usable(xp, arrays, key, source, "scatter_add"))
        y = xp.zeros(source, np.float32 if not unique and is_half(g.dtype) else g.dtype)
        if unique:
            y[index] = g
        else:
            np.add.at(y, index, g)
        return y.astype(g.dtype, copy=False)
    axes = _array_axes(key, arrays)
    if axes is None:
        places, count, item = _places(xp, _usable(xp, arrays, key, source, "scatter_add"), key, source)
        return sum_rows(g.reshape(places.size, math.prod(item)), places.ravel(), count).reshape(source)
    a, b = axes
    lead, item = source[a:b], source[:a] + source[b:]
    places, count, outer = _place_of(xp, "scatter_add", arrays, lead), math.prod(lead), math.prod(source[:a])
    g = g.reshape(outer, places.size, math.prod(source[b:])).swapaxes(0, 1).reshape(places.size, math.prod(item))
    y = sum_rows(g, places.ravel(), count)
    return y.reshape(count, outer, math.prod(source[b:])).swapaxes(0, 1).reshape(source)


_KEYS: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
    ((), {"key": (slice(None, None, -2), 2), "source": (4, 3), "unique": True}),
    ((np.array([[0, 2], [2, 2]]),), {"key": (ARRAY,), "source": (3, 2), "unique": False}),
    ((np.array([0, 1, 0]), np.array([1, 1, 1])), {"key": (ARRAY, None, slice(0, 2), ARRAY), "source": (2, 3, 2), "unique": False}),
    ((np.array([[True, False], [True, True]]),), {"key": (Ellipsis, ARRAY), "source": (3, 2, 2), "unique": True}),
]
_PICKED: list[Shape] = [(2,), (2, 2, 2), (3, 1, 2), (3, 3)]

_getitem = general(
    "getitem",
    _get,
    [lambda g, _y, _x, *arrays, **params: _scatter(g, *arrays, **params)],
    [lambda t, _y, _x, *arrays, **params: _getitem(t, *arrays, **params)],
    samples=[Sample(params["source"], *arrays, **params) for arrays, params in _KEYS],
    batch=_get_examples,
    doc="``x[key]``.",
)
_scatter = general(
    "scatter_add",
    _scatter_add,
    [lambda g, _y, _x, *arrays, **params: _getitem(g, *arrays, **params)],
    [lambda t, _y, _x, *arrays, **params: _scatter(t, *arrays, **params)],
    samples=[Sample(shape, *arrays, **params) for shape, (arrays, params) in zip(_PICKED, _KEYS, strict=True)],
    batch=_scatter_examples,
    doc="Zeros of shape ``source`` with the argument added at ``[key]``, as often as the key names an element.",
)


def getitem(x: Any, key: Any) -> Any:
    """``x[key]``, with basic and advanced indexing as in NumPy. In the derivative repeated indices accumulate.

    Raises:
        IndexError: an index is out of range, or is neither integer nor boolean. On a GPU the error comes when the host next waits for numbers, or with the
            next operation that has indices; what was read there is nan, or an item that exists.
    """
    x = as_array(x)
    arrays, params = _parse(x, key)
    return _getitem(x, *arrays, **params)


# ---------------------------------------------------------------------------------- functional updates


def _index_set(x: Any, v: Any, *arrays: Any, key: tuple[Any, ...], source: Shape, unique: bool) -> Any:
    xp = namespace(x)
    arrays = _usable(xp, arrays, key, source, "index_set")
    if unique:
        y = xp.array(x)
        y[_filled(key, arrays)] = v
        return y
    places, count, item = _places(xp, arrays, key, source)
    width = math.prod(item)
    y = xp.empty((count + 1, width), x.dtype)
    y[:count] = x.reshape(count, width)
    y[xp.where(_winners(xp, places), places, count).ravel()] = xp.broadcast_to(v, places.shape + item).reshape(places.size, width)
    return y[:count].reshape(source)


def _pull_set_value(g: Any, _y: Any, _x: Any, _v: Any, *arrays: Any, key: tuple[Any, ...], source: Shape, unique: bool) -> Any:
    """What was written and stayed gets the cotangent, what was written over gets 0."""
    picked = _getitem(g, *arrays, key=key, source=source, unique=unique)
    if unique:
        return picked
    places = _number(zeros_like(g, shape=()), *arrays, key=key, source=source)
    won = _won(places, count=math.prod(source[: _touched(key, arrays, source)]))
    shape = shape_of(places)
    return ew.where(reshape(won, shape + (1,) * (len(shape_of(picked)) - len(shape))), picked, zeros_like(picked, shape=()))


_set = general(
    "index_set",
    _index_set,
    [lambda g, _y, _x, _v, *arrays, **params: _set(g, zeros_like(g, shape=()), *arrays, **params), _pull_set_value],
    [
        lambda t, _y, _x, _v, *arrays, **params: _set(t, zeros_like(t, shape=()), *arrays, **params),
        lambda t, _y, x, _v, *arrays, **params: _set(zeros_like(x), t, *arrays, **params),
    ],
    samples=[Sample(params["source"], shape, *arrays, **params) for shape, (arrays, params) in zip(_PICKED, _KEYS, strict=True)],
    batch=_set_examples,
    doc="A copy with other values at ``[key]``; of several for one element the last stays.",
)


class At:
    """``x.at``: ``x.at[key].set(v)``, ``.add(v)``, ``.multiply(v)`` and ``.get()``."""

    __slots__ = ("x",)

    def __init__(self, x: Any) -> None:
        self.x = as_array(x)

    def __getitem__(self, key: Any) -> Elements:
        return Elements(self.x, key)


class Elements:
    """The elements ``x[key]``, to be changed in a copy of x. Values are cast to x's dtype and broadcast to the shape of ``x[key]``;
    derivatives flow to x and to the values.

    Raises:
        TypeError: a value's dtype is of a higher kind than x's (float into integers, complex into floats).
        ValueError: a value does not broadcast to the shape of ``x[key]``.
        IndexError: as in ``x[key]``.
    """

    __slots__ = ("arrays", "params", "x")

    def __init__(self, x: Any, key: Any) -> None:
        self.x = x
        self.arrays, self.params = _parse(x, key)

    def get(self) -> Any:
        """``x[key]``."""
        return _getitem(self.x, *self.arrays, **self.params)

    def set(self, v: Any) -> Any:
        """``x`` with ``v`` in place of the elements. Where the key names an element twice the last value stays, and it alone gets a derivative."""
        return _set(self.x, self._fitted(v), *self.arrays, **self.params)

    def add(self, v: Any) -> Any:
        """``x`` with ``v`` added to the elements, as often as the key names them (``x[key] += v`` in NumPy adds once)."""
        return add(self.x, _scatter(self._fitted(v), *self.arrays, **self.params))

    def multiply(self, v: Any) -> Any:
        """``x`` with the elements multiplied by ``v``, as often as the key names them."""
        v = self._fitted(v)
        if self.params["unique"]:
            return _set(self.x, ew.multiply(self.get(), v), *self.arrays, **self.params)
        key, source = self.params["key"], self.params["source"]
        touched = _touched(key, self.arrays, source)
        count, item = math.prod(source[:touched]), source[touched:]
        places = ravel(_number(zeros_like(self.x, shape=()), *self.arrays, key=key, source=source))
        order, places, last = _by_place(places, count=count)
        shape = (math.prod(shape_of(places)), math.prod(item))
        factors = _getitem(reshape(v, shape), order, key=(ARRAY,), source=shape, unique=True)
        for earlier, same in kernels.doublings(namespace(plain(self.x)), places):
            factors = ew.multiply(factors, ew.where(same, getitem(factors, earlier), ones_like(factors, shape=())))
        ones = ones_like(self.x, shape=(count + 1, shape[1]))  # with a row for what is not the last of its place, as in the reference of segment_sum
        total = _set(ones, factors, ew.where(last, places, count), key=(ARRAY,), source=shape_of(ones), unique=True)
        return ew.multiply(self.x, reshape(total[:count], source))

    def _fitted(self, v: Any) -> Any:
        v = _cast_for(self.x, v)
        xp, key, source = namespace(plain(self.x)), self.params["key"], self.params["source"]
        arrays = [xp.zeros(shape_of(a), np.intp) if is_batched(a) else plain(a) for a in self.arrays]  # of those only the shape is known here
        target = np.shape(xp.broadcast_to(xp.zeros((), bool), source)[_filled(key, _usable(xp, arrays, key, source, "at"))])
        shape = shape_of(v)
        extra = max(0, len(shape) - len(target))
        if set(shape[:extra]) - {1} or any(n not in (1, m) for n, m in zip(shape[::-1], target[::-1])):
            raise ValueError(f"got a value of shape {shape}, expected one that broadcasts to the shape of what the index picks, {target}")
        return broadcast_to(reshape(v, shape[extra:]), target)


_KINDS = {"b": 0, "i": 1, "u": 1, "f": 2, "V": 2, "c": 3}  # V is bfloat16


def _cast_for(x: Any, v: Any) -> Any:
    """``v`` in the dtype of ``x``, on its device if it is a number."""
    dtype = dtype_of(x)
    if _KINDS[dtype_of(v).kind] > _KINDS[dtype.kind]:
        raise TypeError(f"got a value of dtype {dtype_of(v)} for an array of {dtype}, which would lose part of it: cast one of them with astype")
    if isinstance(v, (bool, int, float, complex, np.generic)):
        return full_like(x, v, shape=())
    return astype(as_array(v), dtype, copy=False)


# ---------------------------------------------------------------------------------- taking along an axis


def take(x: Any, indices: Any, axis: int | None = None, *, mode: str = "raise") -> Any:
    """The items at ``indices`` along ``axis``, of the flattened array if that is None; mode "wrap" counts round and round,
    "clip" limits the indices to the axis (negative ones to 0). See :func:`numpy.take`.

    Raises:
        IndexError: an index is out of range in mode "raise" (on a GPU as in :func:`getitem`), or is not an integer.
    """
    x, indices = as_array(x), _integers(indices)
    if axis is None:
        x, axis = ravel(x), 0
    axis = normalize_axis_index(axis, len(shape_of(x)))
    length = shape_of(x)[axis]
    if mode not in ("raise", "wrap", "clip"):
        raise ValueError(f"take: got mode={mode!r}, expected 'raise', 'wrap' or 'clip'")
    if mode != "raise" and not length and 0 not in shape_of(indices):
        raise IndexError(f"take: got indices into axis {axis} of shape {shape_of(x)}, which is empty")
    if mode == "wrap":
        indices = ew.remainder(indices, length)
    elif mode == "clip":
        indices = ew.clip(indices, 0, length - 1)
    return getitem(x, along(axis, indices))


def _integers(indices: Any) -> Any:
    """As integers that count, booleans too (which in a key would be a mask)."""
    indices = as_array(indices)
    if dtype_of(indices).kind not in "biu" and 0 not in shape_of(indices):
        raise IndexError(f"got indices of dtype {dtype_of(indices)}, expected integers: cast them with astype")
    return astype(indices, np.intp, copy=False)


def take_along_axis(x: Any, indices: Any, axis: int | None = -1) -> Any:
    """For each vector along ``axis`` its items at the indices in the matching vector of ``indices``. See :func:`numpy.take_along_axis`.

    Raises:
        ValueError: ``indices`` has not as many axes as ``x``.
    """
    return _take_along_axis(x, indices, axis, unique=False)


def _take_along_axis(x: Any, indices: Any, axis: int | None, *, unique: bool) -> Any:
    x, indices = as_array(x), _integers(indices)
    if axis is None:
        x, axis = ravel(x), 0
    ndim = len(shape_of(x))
    axis = normalize_axis_index(axis, ndim)
    if len(shape_of(indices)) != ndim:
        raise ValueError(f"take_along_axis: got indices of shape {shape_of(indices)} for an array of shape {shape_of(x)}, expected as many axes; see take")
    xp = namespace(plain(x))
    grid = [indices if i == axis else xp.arange(n).reshape([-1 if j == i else 1 for j in range(ndim)]) for i, n in enumerate(shape_of(x))]
    return _getitem(x, *grid, key=(ARRAY,) * ndim, source=shape_of(x), unique=unique)


_argsort = constant(
    "argsort", lambda x, *, axis: namespace(x).argsort(x, axis=axis, kind="stable"), samples=[Sample((3, 4), axis=-1)], batch=leading(axis=shift)
)


def argsort(x: Any, axis: int | None = -1, kind: str | None = None, *, stable: bool | None = None) -> Any:
    """The indices that sort ``x`` along ``axis``, flattened if that is None; nan last; always stable, whatever ``kind`` and ``stable`` are.
    The result is untracked. See :func:`numpy.argsort`."""
    x = as_array(x)
    x, axis = (ravel(x), 0) if axis is None or not shape_of(x) else (x, axis)
    return _argsort(x, axis=axis)


def sort(x: Any, axis: int | None = -1, kind: str | None = None, *, stable: bool | None = None) -> Any:
    """``x`` in ascending order along ``axis``, flattened if that is None; equal elements keep their order, whatever ``kind`` and ``stable``
    are, and their derivatives. See :func:`numpy.sort`."""
    x, axis = (ravel(x), 0) if axis is None else (as_array(x), axis)
    return _take_along_axis(x, argsort(x, axis), axis, unique=True)


# ---------------------------------------------------------------------------------- selection


def compress(condition: Any, x: Any, axis: int | None = None) -> Any:
    """The items along ``axis`` where the vector ``condition`` holds; it may be shorter than the axis. See :func:`numpy.compress`."""
    x, condition = as_array(x), as_array(condition)
    if len(shape_of(condition)) != 1:
        raise ValueError(f"compress: got a condition of shape {shape_of(condition)}, expected one axis; x[condition] takes a mask of any shape")
    if axis is None:
        x, axis = ravel(x), 0
    axis = normalize_axis_index(axis, len(shape_of(x)))
    return _getitem(x, *ew.nonzero(condition), key=along(axis, ARRAY), source=shape_of(x), unique=True)


def extract(condition: Any, x: Any) -> Any:
    """The elements where ``condition`` holds, in order, as a vector. See :func:`numpy.extract`."""
    return compress(ravel(condition), x)


def delete(x: Any, obj: Any, axis: int | None = None) -> Any:
    """``x`` without the items that ``obj`` (an integer, slice, mask or array of integers) picks along ``axis``. See :func:`numpy.delete`."""
    x = as_array(x)
    if axis is None:
        x, axis = ravel(x), 0
    axis = normalize_axis_index(axis, len(shape_of(x)))
    keep = namespace(plain(x)).ones(shape_of(x)[axis], bool)
    keep[plain_index(obj)] = False
    return getitem(x, along(axis, keep))


def insert(x: Any, obj: Any, values: Any, axis: int | None = None) -> Any:
    """``x`` with ``values`` before the places ``obj`` (an integer, slice, mask or vector of integers) along ``axis``. See :func:`numpy.insert`.

    Raises:
        IndexError: a place is out of range.
    """
    x = as_array(x)
    if axis is None:
        x, axis = ravel(x), 0
    ndim = len(shape_of(x))
    axis = normalize_axis_index(axis, ndim)
    length = shape_of(x)[axis]
    places = np.asarray(range(length)[obj] if isinstance(obj, slice) else backend.to_device(same_for_all(as_array(obj), "places to insert at"), "cpu"))
    places = np.flatnonzero(places) if places.dtype.kind == "b" else places.astype(np.intp)
    values = _cast_for(x, values)
    values = reshape(values, (1,) * (ndim - len(shape_of(values))) + shape_of(values))
    if places.ndim == 0:
        values = moveaxis(values, 0, axis)
    if places.size == 1:  # all values go to one place
        places = np.repeat(places, shape_of(values)[axis])
    if np.any((places < -length) | (places > length)):
        raise IndexError(f"insert: got places {places.tolist()} along axis {axis} of length {length}, expected {-length} to {length}")
    places = np.where(places < 0, places + length, places)
    values = broadcast_to(values, (*shape_of(x)[:axis], places.size, *shape_of(x)[axis + 1 :]))
    order = np.argsort(np.concatenate([np.arange(length) + 0.5, places]), kind="stable")
    both = concatenate([x, values], axis)
    return _getitem(both, namespace(plain(x)).asarray(order), key=along(axis, ARRAY), source=shape_of(both), unique=True)
