"""Saying which parameter has no second derivative, where an operation in the loss has none."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from gpugrad.ops.fit import ones_like
from gpugrad.transforms import grad, jvp

ERRORS = (NotImplementedError, RuntimeError, TypeError)
REMEDY = (
    "Write the operation with gpugrad's functions, or give it a rule that does; leave the parameter out; or take a curvature.GaussNewtonOperator, which "
    "needs first derivatives only"
)


@contextmanager
def naming(f: Callable[..., Any], xs: Sequence[Any], names: Sequence[str]) -> Iterator[None]:
    """:func:`note` what goes wrong inside."""
    try:
        yield
    except ERRORS as error:
        note(error, f, xs, names)
        raise


def note(error: BaseException, f: Callable[..., Any], xs: Sequence[Any], names: Sequence[str]) -> None:
    """Add to an error of a second derivative of ``f(*xs)`` the names of the arguments by which there is none, if the gradient itself can be computed."""
    if found := _without(f, xs, names):
        error.add_note(f"The loss has a gradient by {', '.join(found)}, but what computes it has no derivative. {REMEDY}.")


def _without(f: Callable[..., Any], xs: Sequence[Any], names: Sequence[str]) -> list[str]:
    gradient = grad(f, tuple(range(len(xs))))
    if _fails(lambda: gradient(*xs)):
        return []
    along = lambda i: lambda x: gradient(*xs[:i], x, *xs[i + 1 :])
    return [name for i, (x, name) in enumerate(zip(xs, names, strict=True)) if _fails(lambda: jvp(along(i), (x,), (ones_like(x),)))]  # noqa: B023


def _fails(run: Callable[[], Any]) -> bool:
    try:
        run()
    except ERRORS:
        return True
    return False
