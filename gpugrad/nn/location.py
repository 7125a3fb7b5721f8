"""Where in a module an exception comes from."""

from __future__ import annotations

from typing import Any


class ShapeError(ValueError):
    """An array whose shape does not fit a layer. The message names the path of the layer from the module that was called, what it got and what it expected."""

    def __init__(self, got: Any, expected: Any) -> None:
        super().__init__(got, expected)
        self.where = ""

    def __str__(self) -> str:
        got, expected = self.args
        return f"{self.where}: got input of shape {got}, expected {expected}".removeprefix(": ")


def locate(error: Exception, module: Any) -> None:
    """Say where in ``module`` an exception comes from: the innermost module that it left is known to it, and its path is looked up from each further out."""
    innermost, note = getattr(error, "_raised_in", (module, None))
    path = "" if note is None else next((path for path, m in module.named_modules() if m is innermost), None)
    if path is None:  # it was made on the way, and nobody holds it
        return
    where = f"{type(module).__name__}.{path} ({type(innermost).__name__})" if path else type(module).__name__
    error._raised_in = innermost, f"in {where}"  # type: ignore[attr-defined]
    if isinstance(error, ShapeError):
        error.where = where
    else:
        error.__notes__ = [*[n for n in getattr(error, "__notes__", []) if n != note], f"in {where}"]
