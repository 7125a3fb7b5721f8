"""NumPy's and CuPy's own functions, applied to a Tensor, reach ours: ``np.exp(t)``, ``np.float64(2) * t``, ``cp.sin(t)``."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from gpugrad import tree
from gpugrad.tape import Tensor, box, is_tracked, plain

_REDUCTIONS = {"add": "sum", "multiply": "prod", "maximum": "max", "minimum": "min", "logical_and": "all", "logical_or": "any"}


def _ours(name: str, module: str = "numpy") -> Callable[..., Any] | None:
    """gpugrad's function of that name, from the sub-namespace that corresponds to NumPy's (linalg, fft)."""
    place: Any = sys.modules["gpugrad"]
    for part in module.split(".")[1:]:
        if not part.startswith(("_", "core", "lib")):
            place = getattr(place, part, None)
    found = vars(place).get(name) if place is not None else None
    return found if callable(found) else None


def _array_ufunc(self: Tensor, ufunc: Any, method: str, *inputs: Any, **params: Any) -> Any:
    out = params.pop("out", None)
    name = ufunc.__name__ if method == "__call__" else _REDUCTIONS.get(ufunc.__name__, "") if method == "reduce" else ""
    if out is not None:
        if any(map(is_tracked, inputs)):
            raise TypeError(f"np.{ufunc.__name__} with out= (or an in-place operator on an array) would drop the derivative of a tracked Tensor: write y = np.{ufunc.__name__}(...) instead")
        return getattr(ufunc, method)(*map(plain, inputs), out=tuple(map(plain, out)), **params)
    ours = _ours(name) if name else None
    if ours is not None:
        return ours(*inputs, **params)
    return _fall_back(getattr(ufunc, method), f"np.{ufunc.__name__}" + ("" if method == "__call__" else f".{method}"), inputs, params)


def _array_function(self: Tensor, func: Any, types: Any, args: Any, params: Any) -> Any:
    ours = _ours(func.__name__, func.__module__ or "numpy")
    if ours is not None:
        return ours(*args, **params)
    return _fall_back(func, f"{(func.__module__ or 'numpy').replace('numpy', 'np', 1)}.{func.__name__}", args, params)


_ABOUT_ARRAYS = {"shape", "ndim", "size", "result_type", "can_cast", "iscomplexobj", "isrealobj", "may_share_memory", "shares_memory", "min_scalar_type", "array_repr", "array_str"}


def _fall_back(f: Callable[..., Any], name: str, args: Any, params: Any) -> Any:
    """Without a derivative to lose, any NumPy function will do."""
    about = name.removeprefix("np.") in _ABOUT_ARRAYS
    if not about and any(map(is_tracked, tree.flatten([args, params])[0])):
        raise TypeError(
            f"gpugrad has no derivative for {name}, and the Tensor is tracked. Write it with the functions gg has, give it rules with "
            f"gg.primitive and gg.defvjp, or pass t.detach() if no derivative is wanted."
        )
    y = f(*tree.map_leaves(plain, args), **tree.map_leaves(plain, params))
    return y if about else tree.map_leaves(lambda v: box(v) if hasattr(v, "dtype") and isinstance(v, (np.ndarray, np.generic)) else v, y)


def _cupy_override(self: Tensor, kernel: Any, *args: Any, **params: Any) -> Any:
    """CuPy's ufuncs ask an argument for this before they run."""
    name = getattr(kernel, "name", getattr(kernel, "__name__", "")).removeprefix("cupy_")
    ours = _ours({"true_divide": "divide", "absolute": "absolute", "abs": "absolute"}.get(name, name))
    if ours is None or params.get("out") is not None:
        raise TypeError(f"gpugrad has no derivative for the CuPy function {name!r} (or it was given out=): use gg's functions, gg.primitive, or pass t.data if no derivative is wanted")
    return ours(*args, **{key: value for key, value in params.items() if value is not None})


Tensor.__array_ufunc__ = _array_ufunc  # type: ignore[attr-defined]
Tensor.__array_function__ = _array_function  # type: ignore[attr-defined]
Tensor.__cupy_override_elementwise_kernel__ = _cupy_override  # type: ignore[attr-defined]
