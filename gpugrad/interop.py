"""NumPy's, CuPy's and SciPy's own functions, applied to a Tensor, reach ours: ``np.exp(t)``, ``np.float64(2) * t``, ``cp.sin(t)``, ``scipy.special.expit(t)``."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gpugrad import backend, tree
from gpugrad.tape import BatchedError, Tensor, box, is_batched, is_tracked, mark_mutated, plain

_REDUCTIONS = {"add": "sum", "multiply": "prod", "maximum": "max", "minimum": "min", "logical_and": "all", "logical_or": "any"}
_REMEDY = "Write it with the functions gg has, give it rules with gg.primitive and gg.defvjp, or pass t.detach() if no derivative is wanted."


def _ours(name: str, module: str = "numpy") -> Callable[..., Any] | None:
    """gpugrad's function of that name, from the sub-namespace that corresponds to NumPy's (linalg, fft) or SciPy's (special)."""
    place: Any = sys.modules["gpugrad"]
    for part in module.split(".")[1:]:
        if not part.startswith(("_", "core", "lib")):
            place = getattr(place, part, None)
    found = vars(place).get(name) if place is not None else None
    return found if callable(found) else None


def _our_ufunc(name: str) -> Callable[..., Any] | None:
    return _ours(name) or vars(importlib.import_module("gpugrad.special")).get(name)


def _any_tracked(args: Any, params: Any) -> bool:
    return any(map(is_tracked, tree.flatten([args, params])[0]))


def _refusal(name: str, given: Any, message: str) -> TypeError:
    """The error for a tracked Tensor among what is ``given``: ``message``, unless it stands for many examples."""
    if not any(map(is_batched, tree.flatten(given)[0])):
        return TypeError(message)
    return BatchedError(
        f"{name} inside gg.vmap would see all examples as one array. Write it with the functions gg has, or make it a gg.primitive, which is given one after the other."
    )


# ------------------------------------------------------------------------------------------------- NumPy


def _array_ufunc(self: Tensor, ufunc: Any, method: str, *inputs: Any, **params: Any) -> Any:
    name = ("np." if getattr(np, ufunc.__name__, None) is ufunc else "the ufunc ") + ufunc.__name__ + ("" if method == "__call__" else f".{method}")
    call = getattr(ufunc, method)
    if "out" in params:
        return _write(call, name, inputs, params.pop("out"), params)
    if method == "at":
        return _write_into_first(call, name, inputs, params)
    ours = None
    if method == "__call__" and not params:
        ours = _our_ufunc(ufunc.__name__)
    elif method == "reduce" and params.keys() <= {"axis", "dtype", "keepdims"}:
        params.setdefault("axis", 0)  # the methods of ufuncs reduce one axis where the functions reduce all
        ours = _ours(_REDUCTIONS.get(ufunc.__name__, ""))
    return _fall_back(call, name, inputs, params) if ours is None else ours(*inputs, **params)


def _write(call: Callable[..., Any], name: str, inputs: Sequence[Any], out: tuple[Any, ...], params: dict[str, Any]) -> Any:
    """``out=``, or an in-place operator on an array: only where no derivative can be lost."""
    if any(map(is_tracked, (*inputs, *out))):
        message = f"{name} with out= (or an in-place operator on an array) would drop the derivative of a tracked Tensor: write y = {name}(...) instead"
        raise _refusal(f"{name} with out=", [inputs, out], message)
    y = call(*map(plain, inputs), out=tuple(map(plain, out)), **params)
    for o in out:
        mark_mutated(plain(o))
    written = tuple(v if o is None else o for v, o in zip(y if isinstance(y, tuple) else (y,), out, strict=True))
    return written if isinstance(y, tuple) else written[0]


_WRITES_INTO_FIRST = {"copyto", "fill_diagonal", "place", "put", "put_along_axis", "putmask"}


def _write_into_first(f: Callable[..., Any], name: str, args: Sequence[Any], params: dict[str, Any]) -> Any:
    if _any_tracked(args, params):
        remedy = "write t.at[i].set(v) or t.at[i].add(v), or gg.where(mask, v, t)"
        raise _refusal(name, [args, params], f"{name} writes into an array, which would drop the derivative of a tracked Tensor: {remedy}")
    y = f(*tree.map_leaves(plain, args), **tree.map_leaves(plain, params))
    if args:
        mark_mutated(plain(args[0]))
    return y


def _array_function(self: Tensor, func: Any, types: Any, args: Any, params: Any) -> Any:
    module = func.__module__ or "numpy"
    name, ours = f"np{module.removeprefix('numpy')}.{func.__name__}", _ours(func.__name__, module)
    if func.__name__ in _WRITES_INTO_FIRST:
        return _write_into_first(func, name, args, params)
    if ours is None:
        return _fall_back(func, name, args, params)
    try:
        return ours(*args, **params)
    except TypeError:
        if _any_tracked(args, params):
            raise
        return _fall_back(func, name, args, params)  # NumPy's function takes more arguments than ours


_ABOUT_ARRAYS = {
    "array2string", "array_repr", "array_str", "can_cast", "common_type", "iscomplexobj", "isrealobj", "may_share_memory", "min_scalar_type", "ndim", "result_type", "shape",
    "shares_memory", "size",
}  # fmt: skip


_ABOUT_SHAPES = {"ndim", "shape", "size"}


def _as_one_example(x: Any) -> Any:
    """An array of the shape that x has for who sees one example."""
    return np.broadcast_to(np.zeros(()), x.shape) if is_batched(x) else plain(x)


def _fall_back(f: Callable[..., Any], name: str, args: Any, params: Any) -> Any:
    """Without a derivative to lose, any function will do."""
    about = name.removeprefix("np.") in _ABOUT_ARRAYS
    if not about and _any_tracked(args, params):
        given = f" with {', '.join(params)}=" if params else ""
        raise _refusal(name, [args, params], f"gpugrad has no derivative for {name}{given}, and the Tensor is tracked. {_REMEDY}")
    of = _as_one_example if f.__name__ in _ABOUT_SHAPES else plain
    y = f(*tree.map_leaves(of, args), **tree.map_leaves(of, params))
    return y if about else tree.map_leaves(lambda v: _boxed(v, name), y)


def _boxed(v: Any, name: str) -> Any:
    if not backend.is_array(v) and not isinstance(v, np.generic):
        return v
    backend.check_numbers(f"the result of {name}", v)
    return box(v)


# ------------------------------------------------------------------------------------------------- CuPy


def _cupy_override(self: Tensor, kernel: Any, *args: Any, **params: Any) -> Any:
    """CuPy's ufuncs and a user's ElementwiseKernel ask an argument for this before they run."""
    full_name = getattr(kernel, "name", getattr(kernel, "__name__", "kernel"))
    name = full_name.removeprefix("cupyx_scipy_special_").removeprefix("cupy_")
    given = {key: value for key, value in params.items() if value is not None}
    writes = len(args) > getattr(kernel, "nin", len(args)) or "out" in given
    if any(map(is_tracked, (*args, *given.values()))):
        ours = _our_ufunc(name) if name != full_name and not writes and not given else None
        if ours is None:
            how = "with out= (or an in-place operator on an array) " if writes else ""
            raise _refusal(
                f"the CuPy function {name!r}", [args, given], f"the CuPy function {name!r} {how}would drop the derivative of a tracked Tensor. {_REMEDY}"
            )
        return ours(*args)
    y = kernel(*map(plain, args), **{key: plain(value) for key, value in given.items()})
    return y if writes else box(y)


Tensor.__array_ufunc__ = _array_ufunc  # type: ignore[attr-defined]
Tensor.__array_function__ = _array_function  # type: ignore[attr-defined]
Tensor.__cupy_override_elementwise_kernel__ = _cupy_override  # type: ignore[attr-defined]
