"""Making Tensors. NumPy's names keep NumPy's default dtypes; ``gg.tensor`` of Python floats uses the default dtype, float32."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from gpugrad import backend
from gpugrad.tape import BatchedError, Tensor, is_batched, is_inexact, is_tracked, plain

_default_dtype = np.dtype(np.float32)


def set_default_dtype(dtype: Any) -> None:
    """The dtype that ``gg.tensor`` gives Python floats, and ``gg.nn`` its parameters: float32 until this is called.

    Raises:
        TypeError: not a real floating dtype.
    """
    global _default_dtype
    dtype = backend.as_dtype(dtype)
    if not is_inexact(dtype) or dtype.kind == "c":
        raise TypeError(f"the default dtype must be a real floating dtype, got {dtype}")
    _default_dtype = dtype


def get_default_dtype() -> np.dtype[Any]:
    """What :func:`set_default_dtype` has set."""
    return _default_dtype


def tensor(data: Any, *, dtype: Any = None, device: str | None = None, requires_grad: bool = False) -> Tensor:
    """A Tensor that holds a copy of ``data``: an array (its dtype and device are kept), a number or nested lists of numbers.

    Python floats become the default dtype (float32), Python integers int64.

    Raises:
        RuntimeError: ``requires_grad`` for a dtype without derivatives.
        TypeError: ``data`` is tracked: a copy would lose its derivative.
    """
    if type(data) is Tensor:
        _refuse_tracked(data)
        data = plain(data)
    elif isinstance(data, (list, tuple)):
        data = _without_tensors(data)
    if dtype is None and not hasattr(data, "dtype"):
        dtype = _python_dtype(data)
    array = backend.asarray(data, dtype, device, copy=True)
    t = Tensor(array)
    return t.requires_grad_() if requires_grad else t


def _python_dtype(data: Any) -> Any:
    """The default dtype where NumPy would take float64 or complex128 for want of anything better."""
    if hasattr(data, "__array__") or hasattr(data, "__dlpack__") or _holds_arrays(data):
        return None
    kind = np.asarray(data).dtype
    if kind == np.float64:
        return _default_dtype
    if kind == np.complex128:
        return np.result_type(_default_dtype, np.complex64)
    return None


def _holds_arrays(data: Any) -> bool:
    return isinstance(data, (list, tuple)) and any(hasattr(x, "dtype") or _holds_arrays(x) for x in data)


def _without_tensors(data: Any) -> Any:
    if isinstance(data, (list, tuple)):
        return [_without_tensors(x) for x in data]
    if type(data) is Tensor:
        _refuse_tracked(data)
        return data.numpy()
    return data


def _refuse_tracked(t: Tensor) -> None:
    if is_batched(t):
        raise BatchedError("a copy inside gg.vmap would be one of all examples: use t.clone(), or gg.stack to join Tensors")
    if is_tracked(t):
        raise TypeError(
            "a copy of a tracked Tensor would lose its derivative: use t.clone() to keep it, t.detach() if that is meant, or gg.stack to join Tensors"
        )


def asarray(obj: Any, dtype: Any = None, device: str | None = None, copy: bool | None = None) -> Tensor:
    """``obj`` as a Tensor that shares its memory where it can: arrays, DLPack, ``__cuda_array_interface__``; a Tensor stays tracked.

    Args:
        copy: True never shares; False raises ValueError rather than copy.
    """
    if type(obj) is Tensor:
        t = obj.to(device, dtype, copy=bool(copy))
        if copy is False and t is not obj:
            raise ValueError(f"asarray(copy=False) would have to copy: got {obj.dtype} on {obj.device}, asked for {t.dtype} on {t.device}")
        return t
    return Tensor(backend.asarray(obj, dtype, device, copy))


def array(obj: Any, dtype: Any = None, *, copy: bool | None = True, device: str | None = None) -> Tensor:
    """:func:`numpy.array` as a Tensor: a copy, with NumPy's default dtypes."""
    return asarray(obj, dtype, device, copy)


def from_dlpack(x: Any) -> Tensor:
    """A Tensor that shares the memory of another library's array (PyTorch, JAX, CuPy) by DLPack."""
    return Tensor(backend.asarray(x))


def _creator(name: str) -> Callable[..., Tensor]:
    def create(*args: Any, device: str | None = None, requires_grad: bool = False, **params: Any) -> Tensor:
        if any(map(is_batched, (*args, *params.values()))):
            raise BatchedError(
                f"{name}() inside gg.vmap makes one array for all examples, so its arguments cannot depend on them: scale and shift the result instead, or use gg.full_like"
            )
        if any(map(is_tracked, (*args, *params.values()))):
            raise TypeError(
                f"{name}() makes constants, so a tracked Tensor among its arguments would lose its derivative: scale and shift the result instead, or pass t.detach() if that is meant"
            )
        args, params = tuple(map(plain, args)), {key: plain(value) for key, value in params.items()}
        if params.get("dtype") is not None:
            params["dtype"] = backend.as_dtype(params["dtype"])
        xp, current = backend.on(device)
        with current:
            array = getattr(xp, name)(*args, **params) if hasattr(xp, name) else xp.asarray(getattr(np, name)(*args, **params))
        t = Tensor(array)
        return t.requires_grad_() if requires_grad else t

    create.__name__ = create.__qualname__ = name
    create.__doc__ = (
        f":func:`numpy.{name}` as a Tensor on ``device`` ('cpu', 'cuda', 'cuda:N', 'auto'), with NumPy's default dtype; with ``requires_grad`` a leaf."
    )
    return create


zeros, ones, full, empty, arange, linspace, logspace, geomspace, eye, identity, tri = map(
    _creator, ("zeros", "ones", "full", "empty", "arange", "linspace", "logspace", "geomspace", "eye", "identity", "tri")
)
