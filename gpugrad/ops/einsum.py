"""Einstein sums.

Any ``einsum`` is brought into one form first: diagonals are taken of subscripts that an operand repeats, axes of length 1
that broadcast are dropped, and subscripts that nothing else mentions are summed. What is left are products of two operands
in which every subscript stands in at least two of the three terms (left, right, result). Exchange the result with an
operand and that is still so: the derivative of an einsum is an einsum.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from string import ascii_letters
from typing import Any

import numpy as np

from gpugrad.ops.fit import Shape, astype
from gpugrad.ops.linalg import matmul_value
from gpugrad.ops.reduce import sum
from gpugrad.ops.rules import Sample, general
from gpugrad.ops.shape import as_array, diagonal, reshape, transpose
from gpugrad.tape import Op

__all__ = ["einsum"]

Labelled = tuple[Any, str]  # an array and a subscript for each of its axes

# ---- the product of two operands


def _pair_value(a: Any, b: Any, *, subscripts: str) -> Any:
    """A batched GEMM over (batch, free, summed) and (batch, summed, free); without sums, a product of elements."""
    left, right, product = _layout(subscripts, a.shape, b.shape)
    a, b = (x.transpose(axes).reshape(shape) for x, (axes, shape) in ((a, left), (b, right)))
    if product is None:
        return a * b
    shape, axes = product
    return matmul_value(a, b).reshape(shape).transpose(axes)


@functools.lru_cache(maxsize=4096)
def _layout(subscripts: str, m: Shape, n: Shape) -> Any:
    """How to lay out both operands, (axes, shape), and the product, (shape, axes)."""
    (left, right), out = _terms(subscripts)
    size = dict(zip(left + right, m + n, strict=True))
    summed = [k for k in left if k in right and k not in out]
    if not summed:  # the axes of the result, of length 1 where an operand does not have them
        return *(([term.index(k) for k in out if k in term], [size[k] if k in term else 1 for k in out]) for term in (left, right)), None
    batch = [k for k in out if k in left and k in right]
    rows, columns = [k for k in left if k not in right], [k for k in right if k not in left]
    order = batch + rows + columns
    lengths = [size[k] for k in batch]
    r, s, c = (math.prod([size[k] for k in group]) for group in (rows, summed, columns))
    first = [left.index(k) for k in batch + rows + summed], (*lengths, r, s)
    second = [right.index(k) for k in batch + summed + columns], (*lengths, s, c)
    return first, second, ([size[k] for k in order], [order.index(k) for k in out])


def _terms(subscripts: str) -> tuple[list[str], str]:
    inputs, out = subscripts.split("->")
    return inputs.split(","), out


def _pull_left(g: Any, _y: Any, _a: Any, b: Any, *, subscripts: str) -> Any:
    (left, right), out = _terms(subscripts)
    return _pair(g, b, subscripts=f"{out},{right}->{left}")


def _pull_right(g: Any, _y: Any, a: Any, _b: Any, *, subscripts: str) -> Any:
    (left, right), out = _terms(subscripts)
    return _pair(a, g, subscripts=f"{left},{out}->{right}")


def _batched_pair(_op: Op, _size: int, batched: Sequence[bool], args: Sequence[Any], params: dict[str, Any]) -> Any:
    """One subscript more, in front, for the examples. Where one operand has it, that is flattened: into rows as it lies in memory, if what is summed comes last, else into columns."""
    terms, out = _terms(params["subscripts"])
    k = chr(max(map(ord, params["subscripts"])) + 1)
    operands = [(x, k + term if many else term) for x, term, many in zip(args, terms, batched, strict=True)]
    if batched[0] != batched[1]:
        alone = terms[batched.index(True)]
        if (alone[-1:] not in out) != batched[0]:
            operands.reverse()
    (a, left), (b, right) = operands
    return _pair(a, b, subscripts=f"{left},{right}->{k}{out}")


_pair: Op = general(
    "einsum",
    _pair_value,
    [_pull_left, _pull_right],
    [lambda t, _y, _a, b, *, subscripts: _pair(t, b, subscripts=subscripts), lambda t, _y, a, _b, *, subscripts: _pair(a, t, subscripts=subscripts)],
    samples=[
        Sample((2, 3), (3, 4), subscripts="ab,bc->ca"),
        Sample((2, 3), (4, 3), subscripts="ab,cb->ac"),
        Sample((2, 3, 4), (4, 2, 5), subscripts="abc,cad->dba"),
        Sample((2, 3), (3, 2), subscripts="ab,ba->"),
        Sample((2, 3), (3, 2), subscripts="ab,ba->ba"),
        Sample((2,), (3,), subscripts="a,b->ba"),
        Sample((2, 0), (0, 3), subscripts="ab,bc->ac"),
    ],
    batch=_batched_pair,
)


# ---- everything else in terms of it


def einsum(*args: Any, optimize: Any = True, **options: Any) -> Any:
    """``einsum("ij,jk->ik", a, b)``, or ``einsum(a, [0, 1], b, [1, 2], [0, 2])``: the sum of products that the subscripts describe.

    Implicit results, ellipses that broadcast, and repeated and lone subscripts are understood as by :func:`numpy.einsum`.
    Three or more operands are multiplied in pairs, in the order that ``optimize`` says (see :func:`numpy.einsum_path`).

    Raises:
        ValueError: the subscripts are malformed, or do not fit the shapes.
    """
    if refused := [key for key, value in options.items() if value is not None]:
        raise TypeError(f"einsum() does not take {refused[0]}=: expected subscripts, operands and optimize=")
    subscripts, operands = (args[0], args[1:]) if isinstance(args[0], str) else _from_lists(args)
    xs = [as_array(x) for x in operands]
    terms, out = _explicit(subscripts, tuple(len(x.shape) for x in xs))
    labelled = _without_broadcasting([_diagonals(x, term) for x, term in zip(xs, terms, strict=True)], subscripts)
    for positions in _path(",".join(term for _, term in labelled) + "->" + out, tuple(x.shape for x, _ in labelled), optimize):
        chosen = [labelled.pop(i) for i in sorted(positions, reverse=True)]
        labelled.append(_product(chosen, out + "".join(term for _, term in labelled)))
    y = labelled[0][0]
    return astype(y, np.result_type(*[x.dtype for x in xs]), copy=False) if y.dtype.kind in "biu" else y  # sums of small integers keep their dtype


def _from_lists(args: Sequence[Any]) -> tuple[str, Sequence[Any]]:
    """The form with sublists of integers, as a string."""
    terms = ["".join("..." if k is Ellipsis else ascii_letters[k] for k in labels) for labels in [*args[1::2], *(args[-1:] if len(args) % 2 else [])]]
    n = len(args) // 2
    return ",".join(terms[:n]) + ("->" + terms[n] if len(args) % 2 else ""), args[: 2 * n : 2]


@functools.lru_cache(maxsize=1024)
def _explicit(subscripts: str, ndims: tuple[int, ...]) -> tuple[list[str], str]:
    """A letter for every axis of every operand, and the letters of the result."""
    inputs, arrow, out = subscripts.replace(" ", "").partition("->")
    terms = inputs.split(",")
    if len(terms) != len(ndims):
        raise ValueError(f"einsum: got {len(ndims)} operands for {len(terms)} terms in {subscripts!r}, expected one for each")
    spare = [k for k in ascii_letters if k not in subscripts]
    widths = [ndim - len(term.replace("...", "")) if "..." in term else 0 for term, ndim in zip(terms, ndims, strict=True)]
    width = max(widths)
    ellipsis = "".join(spare[:width]) if width > 0 else ""
    terms = [term.replace("...", ellipsis[width - n :]) if n >= 0 else term.replace("...", "") for term, n in zip(terms, widths, strict=True)]
    if not arrow:
        letters = "".join(terms)
        out = ellipsis + "".join(k for k in sorted(set(letters) - set(ellipsis)) if letters.count(k) == 1)
    elif ellipsis and "..." not in out:
        raise ValueError(f"einsum: got {subscripts!r} with axes under an ellipsis, expected '...' in the result too, or letters for axes that are to be summed")
    out = out.replace("...", ellipsis)
    for i, (term, ndim) in enumerate(zip(terms, ndims, strict=True)):
        if len(term) != ndim:
            raise ValueError(f"einsum: operand {i} has {ndim} axes, but {subscripts!r} gives it {len(term)} subscripts")
    if bad := [k for k in "".join(terms) + out if k not in ascii_letters] + [k for k in out if out.count(k) > 1 or not any(k in term for term in terms)]:
        raise ValueError(f"einsum: got {bad[0]!r} in {subscripts!r}, expected letters, and in the result each once and only such as an operand has")
    return terms, out


def _diagonals(x: Any, term: str) -> Labelled:
    """Repeated subscripts: the diagonal over their axes."""
    while repeated := [k for k in term if term.count(k) > 1]:
        k = repeated[0]
        i, j = term.index(k), term.rindex(k)
        if x.shape[i] != x.shape[j]:
            raise ValueError(f"einsum: got an operand of shape {x.shape} with {k!r} on axes {i} and {j}, expected axes of one length")
        x, term = diagonal(x, 0, i, j), term[:i] + term[i + 1 : j] + term[j + 1 :] + k
    return x, term


def _without_broadcasting(labelled: list[Labelled], subscripts: str) -> list[Labelled]:
    """Axes of length 1 are dropped where another operand has the same subscript with another length."""
    size: dict[str, int] = {}
    for x, term in labelled:
        for k, n in zip(term, x.shape, strict=True):
            if n != 1 and size.setdefault(k, n) != n:
                shapes = ", ".join(str(x.shape) for x, _ in labelled)
                raise ValueError(f"einsum: got operands of shapes {shapes} for {subscripts!r}, expected one length for {k!r} (or 1), got {n} and {size[k]}")
    dropped = []
    for x, term in labelled:
        kept = [(k, n) for k, n in zip(term, x.shape, strict=True) if n == size.get(k, 1)]
        dropped.append((reshape(x, [n for _, n in kept]), "".join(k for k, _ in kept)))
    return dropped


@functools.lru_cache(maxsize=1024)
def _ordered_pairs(subscripts: str, shapes: tuple[Any, ...], optimize: Any) -> list[tuple[int, ...]]:
    empty = np.empty(())
    return np.einsum_path(subscripts, *[np.broadcast_to(empty, shape) for shape in shapes], optimize=optimize)[0][1:]


def _path(subscripts: str, shapes: tuple[Any, ...], optimize: Any) -> list[tuple[int, ...]]:
    """Which operands to multiply, step by step."""
    if len(shapes) < 3 or optimize is False:
        return [tuple(range(len(shapes)))]
    return _ordered_pairs(subscripts, shapes, tuple(optimize) if isinstance(optimize, list) else optimize)


def _product(operands: list[Labelled], keep: str) -> Labelled:
    """The product of one or more operands (the first last in the list), with the subscripts of it that ``keep`` names, in that order."""
    a, left = operands.pop()
    while operands:
        b, right = operands.pop()
        needed = keep + "".join(term for _, term in operands)
        a, left = _summed(a, left, needed + right)
        b, right = _summed(b, right, needed + left)
        out = "".join(k for k in dict.fromkeys(needed) if k in left or k in right)
        a, left = _pair(a, b, subscripts=f"{left},{right}->{out}"), out
    a, left = _summed(a, left, keep)
    out = "".join(k for k in dict.fromkeys(keep) if k in left)
    return (a if left == out else transpose(a, [left.index(k) for k in out])), out


def _summed(x: Any, term: str, keep: str) -> Labelled:
    """Subscripts that nothing else mentions are summed."""
    lone = tuple(i for i, k in enumerate(term) if k not in keep)
    return (sum(x, lone), "".join(k for k in term if k in keep)) if lone else (x, term)
