"""``check_grads``: derivatives of a function of any nest against central differences, in both modes, to any order.

For directions v and a cotangent u, all random, three numbers must agree: <u, J v> by forward mode, <J'u, v> by reverse mode and
<u, (f(x + eps v) - f(x - eps v)) / (2 eps)>. A derivative of order n is the first derivative of one of order n - 1, so rounding
never grows with the order: finite differences are taken of exact derivatives.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn

import numpy as np

from gpugrad import backend, tape, tree
from gpugrad.tape import plain
from gpugrad.transforms import jvp, vjp

MODES = ("reverse", "forward")


def check_grads(
    f: Callable[..., Any],
    args: Any,
    order: int = 2,
    modes: Sequence[str] = MODES,
    eps: float = 1e-6,
    rtol: float = 1e-3,
    atol: float = 1e-5,
    seed: int = 0,
) -> None:
    """Check the derivatives of ``f(*args)`` up to ``order``, in every nesting of ``modes``, in float64.

    Args:
        f: any function written in gpugrad or NumPy functions.
        args: its arguments, a tuple (anything else is one argument); nests of dict, list and tuple. Floats and complex numbers of any
            precision are raised to float64 and complex128 and differentiated; whatever else is a constant.
        eps: how far to go for the differences, along directions of about unit length per element.
        rtol, atol: |got - expected| <= atol + rtol |expected|.
        seed: of the directions.

    Raises:
        AssertionError: two of the numbers differ; it names the order, the nesting, the argument, and both numbers.
    """
    for mode in modes:
        if mode not in MODES:
            raise ValueError(f"modes is {modes!r}: expected some of {MODES}")
    leaves, structure = tree.flatten(args if isinstance(args, tuple) else (args,))
    names = list(_names(structure))
    chosen = [i for i, x in enumerate(leaves) if _is_inexact(x)]
    if not chosen:
        raise ValueError("check_grads: expected at least one argument of floats or complex numbers, got none")

    def of(*xs: Any) -> list[Any]:
        full = dict(enumerate(leaves)) | dict(zip(chosen, xs, strict=True))
        return [y for y in tree.flatten(f(*tree.unflatten(structure, [full[i] for i in range(len(leaves))])))[0] if _is_inexact(y)]

    check = _Check(tuple(modes), eps, rtol, atol, [names[i] for i in chosen], np.random.default_rng(seed))
    check.run(of, [_doubled(leaves[i]) for i in chosen], order, ())


class _Check:
    """One call of check_grads: its settings, and the recursion over orders."""

    def __init__(self, modes: tuple[str, ...], eps: float, rtol: float, atol: float, names: list[str], rng: np.random.Generator) -> None:
        self.modes, self.eps, self.rtol, self.atol, self.names, self.rng = modes, eps, rtol, atol, names, rng

    def run(self, f: Callable[..., list[Any]], xs: list[Any], order: int, path: tuple[str, ...]) -> None:
        """Compare first derivatives of ``f``, which is itself a derivative, reached by ``path``; then go on to those of its derivatives."""
        y = [plain(v) for v in f(*xs)]
        vs, us = [self.like(x) for x in xs], [self.like(v) for v in y]
        for i, (x, v) in enumerate(zip(xs, vs, strict=True)):  # each argument alone, the others constant
            self.first(lambda x, i=i: f(*xs[:i], x, *xs[i + 1 :]), [x], [v], us, path, f"argument {self.names[i]}")
        if len(xs) > 1:
            self.first(f, xs, vs, us, path, "all arguments at once")
        if order < 2:
            return
        if "forward" in self.modes:
            self.run(lambda *at: jvp(f, at, tuple(vs))[1], xs, order - 1, ("forward", *path))
        if "reverse" in self.modes:
            self.run(lambda *at: list(vjp(f, *at)[1](us)), xs, order - 1, ("reverse", *path))

    def first(self, f: Callable[..., list[Any]], xs: list[Any], vs: list[Any], us: list[Any], path: tuple[str, ...], where: str) -> None:
        """Compare <u, J v> by every mode."""
        expected = self.difference(f, xs, vs, us)
        got = {}
        if "reverse" in self.modes:
            got["reverse"] = inner(vjp(f, *xs)[1](us), vs)
        if "forward" in self.modes:
            got["forward"] = inner(us, jvp(f, tuple(xs), tuple(vs))[1])
        for mode, number in got.items():
            self.compare(number, expected, (mode, *path), where, "by central differences")
        if len(got) == 2:
            self.compare(got["reverse"], got["forward"], ("reverse", *path), where, "by forward mode", exact=True)

    def difference(self, f: Callable[..., list[Any]], xs: list[Any], along: list[Any], us: list[Any]) -> float:
        """<u, J v> by central differences."""
        ahead, behind = ([plain(y) for y in f(*[x + step * v for x, v in zip(xs, along, strict=True)])] for step in (self.eps, -self.eps))
        return inner(us, [(a - b) / (2 * self.eps) for a, b in zip(ahead, behind, strict=True)])

    def like(self, x: Any) -> Any:
        """A random array with the shape, dtype and device of ``x``."""
        values = self.rng.standard_normal(x.shape)
        if x.dtype.kind == "c":
            values = values + 1j * self.rng.standard_normal(x.shape)
        return backend.to_device(np.asarray(values, x.dtype), backend.device_of(x))

    def compare(self, got: float, expected: float, path: tuple[str, ...], where: str, how: str, exact: bool = False) -> None:
        rtol, atol = (1e-8, 1e-9) if exact else (self.rtol, self.atol)
        if not abs(got - expected) <= atol + rtol * abs(expected) and not (np.isnan(got) and np.isnan(expected)):
            self.fail(got, expected, path, where, how)

    def fail(self, got: float, expected: float, path: tuple[str, ...], where: str, how: str) -> NoReturn:
        raise AssertionError(
            f"derivative of order {len(path)} ({' over '.join(path)}), {where}: got {got:.10g} along a random direction, expected {expected:.10g} {how} (they differ by {abs(got - expected):.2g})"
        )


def inner(us: Sequence[Any], vs: Sequence[Any]) -> float:
    """Re sum(u v) over all of two lists of arrays, on the CPU: the pairing in which a pullback is the transpose of a push."""
    total = 0.0
    for u, v in zip(us, vs, strict=True):
        total += float(np.real(np.sum(_on_cpu(u) * _on_cpu(v))))
    return total


def _on_cpu(x: Any) -> Any:
    x = plain(x)
    return backend.to_device(x, "cpu") if backend.is_array(x) else x


def _zeros(x: Any) -> Any:
    return backend.namespace(x).zeros(x.shape, x.dtype)


def _is_inexact(x: Any) -> bool:
    return isinstance(x, (float, complex)) or (hasattr(x, "dtype") and tape.is_inexact(x.dtype))


def _doubled(x: Any) -> Any:
    """As a plain array of float64 or complex128."""
    x = plain(x)
    return backend.asarray(x, np.result_type(getattr(x, "dtype", type(x)), np.float64) if getattr(x, "dtype", np.dtype(float)).kind != "V" else np.float64)


def _names(structure: Any, prefix: str = "") -> Iterator[str]:
    """``0``, ``1['w']`` ...: where each leaf of a nest stands."""
    if isinstance(structure, dict):
        for key, value in structure.items():
            yield from _names(value, f"{prefix}[{key!r}]")
    elif isinstance(structure, (list, tuple)):
        for i, value in enumerate(structure):
            yield from _names(value, f"{prefix}[{i}]" if prefix else str(i))
    elif structure is not None:
        yield prefix
