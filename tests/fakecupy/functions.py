"""``cupy``'s universal functions, with the dtypes that each of CuPy's is compiled for, and its other functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fakecupy.ndarray import SCALARS, TABLE, binder, checked, from_interface, ndarray, unwrap, wrap

# ------------------------------------------------------------------------------------------------- universal functions


class ufunc:  # noqa: N801
    """A universal function: casts its arguments to the first signature that they fit, as CuPy's does, and calls NumPy's."""

    def __init__(self, name: str, full_name: str, signatures: list[str], scatter: str, f: Callable[..., Any]) -> None:
        self.__name__, self.name, self.types, self._scatter, self._f = name, full_name, signatures, scatter, f
        ins, outs = signatures[0].split("->")
        self.nin, self.nout = len(ins), len(outs)
        self.nargs = self.nin + self.nout
        self._found: dict[Any, str] = {}

    def __repr__(self) -> str:
        return f"<ufunc {self.name!r}>"

    def __call__(self, *args: Any, out: Any = None, dtype: Any = None, casting: str = "same_kind", where: Any = None) -> Any:
        for a in (*args, out):
            if hasattr(a, "__cupy_override_elementwise_kernel__"):
                given = {"out": out, "dtype": dtype}
                return a.__cupy_override_elementwise_kernel__(self, *args, **{key: value for key, value in given.items() if value is not None})
        if not self.nin <= len(args) <= self.nargs:
            raise TypeError(f"Wrong number of arguments for {self.name!r}: got {len(args)}")
        values = [unwrap(a) for a in args[: self.nin]]
        for v in values:
            if not isinstance(v, (np.ndarray, *SCALARS)):
                raise TypeError(f"Unsupported type {type(v)}")
        ins, outs = self._signature(values, dtype).split("->")
        with np.errstate(all="ignore"):
            y = self._f(*[np.asarray(v).astype(_dtype(c), copy=False) for v, c in zip(values, ins, strict=True)])
        ys = y if isinstance(y, tuple) else (y,)
        results = tuple(wrap(np.array(v, _dtype(c))) for v, c in zip(ys, outs, strict=True))
        target = args[self.nin] if len(args) > self.nin else out
        if target is not None:
            np.copyto(unwrap(target), results[0]._array, casting=casting)  # type: ignore[arg-type]
            return target
        return results if self.nout > 1 else results[0]

    def _signature(self, values: list[Any], dtype: Any) -> str:
        """Which signature: arrays and NumPy scalars count with their dtype, Python's numbers follow those."""
        kinds = tuple(v.dtype if isinstance(v, (np.ndarray, np.generic)) else type(v) for v in values)
        if dtype is None and kinds in self._found:
            return self._found[kinds]
        common = np.result_type(*[k if isinstance(k, np.dtype) else k(1) for k in kinds])
        fixed = [k if isinstance(k, np.dtype) else common for k in kinds]
        for signature in self.types:
            ins, outs = signature.split("->")
            fits = all(np.can_cast(k, _dtype(c)) for k, c in zip(fixed, ins, strict=True)) if dtype is None else _dtype(outs[0]) == np.dtype(dtype)
            if fits:
                if dtype is None:
                    self._found[kinds] = signature
                return signature
        raise TypeError(f"Wrong type ({', '.join(map(str, fixed))}) of arguments for {self.name}")

    def at(self, a: ndarray, indices: Any, b: Any = None) -> None:
        """Scatter."""
        if self._scatter != "add":
            raise NotImplementedError(f"`{self.name}.at` is not supported by this stand-in")
        a.scatter_add(indices, b)

    def reduce(self, array: ndarray, axis: Any = 0, dtype: Any = None, out: Any = None, keepdims: bool = False) -> Any:
        """Sums and products, and no other."""
        method = {"cupy_add": "sum", "cupy_multiply": "prod"}.get(self.name)
        if method is None:
            raise NotImplementedError(f"`{self.name}.reduce` is not supported yet")
        return getattr(array, method)(axis=axis, dtype=dtype, out=out, keepdims=keepdims)


_BFLOAT16: list[np.dtype] = []


def _dtype(c: str) -> np.dtype:
    if c == "E":
        import ml_dtypes

        return np.dtype(ml_dtypes.bfloat16)
    return np.dtype(c)


def _has_dtype(c: str) -> bool:
    try:
        return bool(_dtype(c))
    except (ImportError, TypeError):
        return False


def _signatures(words: str) -> list[str]:
    return [s for s in words.split() if all(_has_dtype(c) for c in s.replace("->", ""))]


def ufuncs() -> dict[str, ufunc]:
    """All of them, by name."""
    return {name: ufunc(name, full, _signatures(types), scatter, getattr(np, name)) for name, (full, types, scatter) in TABLE["ufuncs"].items()}


# ------------------------------------------------------------------------------------------------- the other functions

_CREATE = {"arange", "empty", "eye", "full", "identity", "indices", "linspace", "logspace", "ones", "tri", "zeros"}
_TAKE_NUMBERS = {"atleast_1d", "atleast_2d", "atleast_3d", "isclose", "allclose", "broadcast_to", "isscalar", "searchsorted"}
_TELL = {
    "can_cast", "common_type", "get_printoptions", "iscomplexobj", "isdtype", "isfortran", "isrealobj", "isscalar", "issubdtype", "may_share_memory", "min_scalar_type",
    "mintypecode", "ndim", "promote_types", "result_type", "shape", "shares_memory", "size", "array_repr", "array_str", "array2string",
}  # fmt: skip  # about arrays: the answer is not one


def _function(name: str, words: str | None, f: Callable[..., Any]) -> Callable[..., Any]:
    words = "a b= c=" if words is None else words
    bind = binder(name, words)
    first = words.split()[0] if words else "*"

    def call(*args: Any, **params: Any) -> Any:
        bind(args, params)
        if name in _TELL:
            return f(*map(_on_host, args), **params)
        if name not in _CREATE | _TAKE_NUMBERS and not first.startswith("*"):
            _check_array(name, args[0] if args else params.get(first.rstrip("=")))
        if params.get("kind", "stable") not in (None, "stable"):
            raise ValueError(f"{name}: kind {params['kind']!r}: CuPy has one kind of sort, which is stable")
        unwrapped = {key: unwrap(value) for key, value in params.items()}
        if "dtype" in unwrapped and unwrapped["dtype"] is None:
            del unwrapped["dtype"]
        with np.errstate(all="ignore"):
            y = f(*unwrap(args), **unwrapped)
        if params.get("out") is not None:
            return params["out"]
        if name == "matmul" and all(x.dtype.name == "bfloat16" for x in args[:2]):
            if max(x.ndim for x in args[:2]) > 2:
                raise TypeError("matmul: CuPy 14 has no products of batches of bfloat16")
            y = y.astype(args[0].dtype)  # ml_dtypes leaves them to NumPy's float32
        if name == "imag" and not y.flags.writeable:
            y = y.copy()  # NumPy's zeros for real numbers cannot be written into
        of = args[0] if args and isinstance(args[0], ndarray) else None
        y = wrap(y, of)
        if name == "broadcast_to" and isinstance(y, ndarray):
            y._array.flags.writeable = True  # CuPy has no read-only arrays
        return y

    call.__name__ = call.__qualname__ = name
    return call


def _check_array(name: str, x: Any) -> None:
    if isinstance(x, (list, tuple)) and x:
        for v in x:
            _check_array(name, v)
    elif not isinstance(x, ndarray) and not hasattr(x, "__cuda_array_interface__"):
        raise TypeError(f"{name}: got {type(x)}, expected cupy.ndarray")


def where(condition: Any, x: Any = None, y: Any = None) -> Any:
    """A choice; the condition must be an array."""
    import cupy

    if (x is None) != (y is None):
        raise ValueError("Must provide both 'x' and 'y' or neither.")
    if not isinstance(condition, ndarray):
        raise TypeError(f"where: the condition is {type(condition)}, expected cupy.ndarray")
    return condition.nonzero() if x is None else cupy._where(condition.astype(bool, copy=False), x, y)


def array(obj: Any, dtype: Any = None, copy: Any = True, order: Any = "K", subok: bool = False, ndmin: int = 0, *, blocking: bool = False) -> ndarray:
    """An array on the current device: from one of CuPy's, of the host's, nested lists of either, or numbers."""
    if not isinstance(obj, ndarray) and hasattr(obj, "__cuda_array_interface__"):
        obj = from_interface(obj)
    if isinstance(obj, ndarray):
        y = obj.copy() if copy or checked_elsewhere(obj) else obj
        y = y if dtype is None else y.astype(dtype, copy=False)
    else:
        y = wrap(np.array(_on_host(obj), dtype=dtype, order="C" if order in (None, "K", "A") else order))  # type: ignore[call-overload]
    return y.reshape((1,) * (ndmin - y.ndim) + y.shape) if ndmin > y.ndim else y


def checked_elsewhere(a: ndarray) -> bool:
    """Whether it is on another device than the current one."""
    try:
        checked(a)
    except ValueError:
        return True
    return False


def _on_host(x: Any) -> Any:
    return x._array if isinstance(x, ndarray) else [_on_host(v) for v in x] if isinstance(x, (list, tuple)) else x


def asarray(a: Any, dtype: Any = None, order: Any = None, *, copy: Any = None, blocking: bool = False) -> ndarray:
    """The array itself where it is CuPy's and on the current device."""
    return array(a, dtype, bool(copy), order)


def asnumpy(a: Any, stream: Any = None, order: str = "C", out: Any = None, *, blocking: bool = True) -> np.ndarray:
    """To the host."""
    return a.get(stream, order, out) if isinstance(a, ndarray) else np.asarray(a, order=order)  # type: ignore[call-overload]


def ascontiguousarray(a: Any, dtype: Any = None) -> ndarray:
    """With row-major strides."""
    a = asarray(a, dtype)
    return a if a.flags.c_contiguous else a.copy()


def asfortranarray(a: Any, dtype: Any = None) -> ndarray:
    """With column-major strides."""
    a = asarray(a, dtype)
    return a if a.flags.f_contiguous else a.copy(order="F")


def from_dlpack(array: Any) -> ndarray:
    """Of our own arrays only."""
    if not isinstance(array, ndarray):
        raise BufferError("a stand-in for CuPy shares no memory of a GPU")
    return array.view()


def namespace() -> dict[str, Any]:
    """What stands in the module ``cupy``."""
    names: dict[str, Any] = {name: getattr(np, name) for name in TABLE["constants"]}
    names |= {name: _function(name, words, getattr(np, name)) for name, words in TABLE["functions"].items() if hasattr(np, name)}
    names |= ufuncs()
    names["_where"] = names["where"]
    own = (ndarray, ufunc, where, array, asarray, asnumpy, ascontiguousarray, asfortranarray, from_dlpack)
    return names | {f.__name__: f for f in own} | {"asanyarray": asarray}


def submodule(name: str, numpys: Any) -> dict[str, Any]:
    """What stands in ``cupy.linalg`` or ``cupy.fft``."""
    return {n: _function(n, words, getattr(numpys, n)) for n, words in TABLE[name].items()}


def special() -> dict[str, ufunc]:
    """``cupyx.scipy.special``, where there is a SciPy to do the work."""
    try:
        import scipy.special
    except ImportError:
        return {}
    real = _signatures("e->e f->f d->d")
    return {
        n: ufunc(n, f"cupyx_scipy_special_{n}", real, "", getattr(scipy.special, n))
        for n in TABLE["special"]
        if getattr(getattr(scipy.special, n, None), "nin", 0) == 1
    }
