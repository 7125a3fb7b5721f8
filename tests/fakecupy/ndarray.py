"""``cupy.ndarray``: holds a NumPy array and never shows it."""

from __future__ import annotations

import functools
import json
import operator
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from fakecupy.device import Device, copy_to, current_id, get_current_stream

TABLE: dict[str, Any] = json.loads(Path(__file__).with_name("cupy14.json").read_text())
SUPPORTED = set("?bhilqBHILQefdFDE")  # dtypes by their character; E is ml_dtypes' bfloat16
SCALARS = (bool, int, float, complex, np.generic)


class Flags:
    """Memory layout; CuPy knows of no read-only arrays."""

    def __init__(self, a: ndarray) -> None:
        self.c_contiguous, self.f_contiguous = a._array.flags.c_contiguous, a._array.flags.f_contiguous
        self.owndata = a.base is None
        self.fnc, self.forc = self.f_contiguous and not self.c_contiguous, self.f_contiguous or self.c_contiguous

    def __getitem__(self, name: str) -> bool:
        return getattr(self, name.lower())


class ndarray:  # noqa: N801
    """An array on a device."""

    __slots__ = ("__weakref__", "_array", "_device", "base")
    __array_priority__ = 100
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, shape: Any, dtype: Any = float, memptr: Any = None, strides: Any = None, order: str = "C") -> None:
        self._array = np.full(shape, 77, dtype, order)  # what happens to be in memory  # type: ignore[call-overload]
        self._device, self.base = current_id(), None

    # ------------------------------------------------------------------ what it is

    shape = property(lambda self: self._array.shape, lambda self, shape: setattr(self, "_array", self._array.reshape(shape)))
    dtype, ndim, size, strides, itemsize, nbytes = (
        property(operator.attrgetter("_array." + n)) for n in ("dtype", "ndim", "size", "strides", "itemsize", "nbytes")
    )
    flags = property(Flags)
    device = property(lambda self: Device(self._device))

    @property
    def data(self) -> Any:
        """A pointer."""
        return SimpleNamespace(device=self.device, device_id=self._device, ptr=self._array.ctypes.data)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {**self._array.__array_interface__, "stream": 1}

    def __dlpack__(self, **_: Any) -> Any:
        raise BufferError("a stand-in for CuPy has no memory on a GPU to share")

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, self._device

    def __len__(self) -> int:
        if not self.ndim:
            raise TypeError("len() of unsized object")
        return self.shape[0]

    def __iter__(self) -> Any:
        if not self.ndim:
            raise TypeError("iteration over a 0-d array")
        return (self[i] for i in range(self.shape[0]))

    # ------------------------------------------------------------------ to the host, where that is said

    def get(self, stream: Any = None, order: str = "C", out: Any = None, blocking: bool = True) -> np.ndarray:
        """A copy on the host."""
        if out is not None:
            np.copyto(out, self._array, casting="no")
            return out
        return np.array(self._array, order=order)  # type: ignore[call-overload]

    def set(self, arr: np.ndarray, stream: Any = None) -> None:
        """Copy an array of the host into this one, on a stream."""
        if not isinstance(arr, np.ndarray):
            raise TypeError("Only numpy.ndarray can be set to cupy.ndarray")
        if self.dtype != arr.dtype:
            raise TypeError(f"{arr.dtype} array cannot be set to {self.dtype} array")
        if self.shape != arr.shape:
            raise ValueError(f"Shape mismatch. Old shape: {self.shape}, new shape: {arr.shape}")
        if not self.flags.forc:
            raise RuntimeError("Cannot set to non-contiguous array")
        copy_to(self._array, arr, get_current_stream(self._device) if stream is None else stream)

    def item(self) -> Any:
        """The element of an array of one."""
        return self._array.item()

    def tolist(self) -> Any:
        """Nested lists of numbers."""
        return self._array.tolist()

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        raise TypeError("Implicit conversion to a NumPy array is not allowed. Please use `.get()` to construct a NumPy array explicitly.")

    def __bool__(self) -> bool:
        return bool(self._array)

    def __int__(self) -> int:
        return int(self._array)

    def __float__(self) -> float:
        return float(self._array)

    def __complex__(self) -> complex:
        return complex(self._array)

    def __repr__(self) -> str:
        return repr(self._array)

    def __str__(self) -> str:
        return str(self._array)

    def __format__(self, spec: str) -> str:
        return format(self._array, spec)

    def __reduce__(self) -> Any:
        import cupy

        return cupy.array, (self.get(),)

    def __copy__(self) -> ndarray:
        return self.copy()

    def __deepcopy__(self, memo: Any) -> ndarray:
        return self.copy()

    # ------------------------------------------------------------------ protocols

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **params: Any) -> Any:
        import cupy
        import cupyx.scipy.special

        out = params.get("out", ())
        if out:
            (params["out"],) = out
        ours = getattr(cupy, ufunc.__name__, None) or getattr(cupyx.scipy.special, ufunc.__name__, None)
        ours = ours if method == "__call__" else getattr(ours, method, None)
        if ours is None or not all(hasattr(x, "__cuda_array_interface__") or isinstance(x, (*SCALARS, np.ndarray)) for x in inputs + out):
            return NotImplemented
        if ufunc.__name__ in _COMPARISONS.values():
            inputs = tuple(x.item() if isinstance(x, np.ndarray) and not x.ndim else x for x in inputs)
        return ours(*inputs, **params)

    def __array_function__(self, func: Any, types: Any, args: Any, params: Any) -> Any:
        import cupy

        try:
            ours = getattr(functools.reduce(getattr, func.__module__.split(".")[1:], cupy), func.__name__)
        except AttributeError:
            return NotImplemented
        if ours is func or not all(issubclass(t, (ndarray, np.ndarray)) for t in types):
            return NotImplemented
        return ours(*args, **params)

    # ------------------------------------------------------------------ items

    def __getitem__(self, key: Any) -> ndarray:
        return wrap(self._array[_index(key)], self)

    def __setitem__(self, key: Any, value: Any) -> None:
        self._array[_index(key)] = value if isinstance(value, SCALARS) else unwrap(value)

    def scatter_add(self, slices: Any, value: Any) -> None:
        """Add at places, as often as they are named."""
        if self.dtype.char not in "iIlLQqefdFD":
            raise TypeError(f"scatter_add does not support {self.dtype}")
        np.add.at(self._array, _index(slices), value if isinstance(value, SCALARS) else unwrap(value))

    # ------------------------------------------------------------------ views and copies, which need no kernel on the array's device

    @property
    def T(self) -> ndarray:  # noqa: N802
        """Axes reversed."""
        return self.transpose()

    @property
    def mT(self) -> ndarray:  # noqa: N802
        """The last two axes swapped."""
        return self.swapaxes(-1, -2)

    @property
    def real(self) -> ndarray:
        """The real part; a real array itself."""
        return wrap(self._array.real, self) if self.dtype.kind == "c" else self

    @real.setter
    def real(self, value: Any) -> None:
        self._array.real = value if isinstance(value, SCALARS) else unwrap(value)

    @property
    def imag(self) -> ndarray:
        """The imaginary part."""
        return wrap(self._array.imag, self) if self.dtype.kind == "c" else wrap(np.zeros_like(self._array))

    @imag.setter
    def imag(self, value: Any) -> None:
        self._array.imag = value if isinstance(value, SCALARS) else unwrap(value)

    def transpose(self, *axes: Any) -> ndarray:
        """Axes permuted; CuPy returns the array itself where nothing moves."""
        y = self._array.transpose(*axes)
        return self if y.strides == self.strides and y.shape == self.shape else wrap(y, self)

    def reshape(self, *shape: Any, order: str = "C", copy: Any = None) -> ndarray:
        """Another shape."""
        return wrap(self._array.reshape(*shape, order=order), self)  # type: ignore[call-overload]

    def ravel(self, order: str = "C") -> ndarray:
        """As one axis."""
        return wrap(self._array.ravel(order), self)  # type: ignore[arg-type]

    def squeeze(self, axis: Any = None) -> ndarray:
        """Without axes of length 1."""
        return wrap(self._array.squeeze(axis), self)

    def swapaxes(self, axis1: int, axis2: int) -> ndarray:
        """Two axes exchanged."""
        return wrap(self._array.swapaxes(axis1, axis2), self)

    def diagonal(self, offset: int = 0, axis1: int = 0, axis2: int = 1) -> ndarray:
        """A diagonal, which may be written to."""
        y = self._array.diagonal(offset, axis1, axis2)
        y.flags.writeable = True
        return wrap(y, self)

    def view(self, dtype: Any = None, type: Any = None) -> ndarray:
        """The same memory."""
        return wrap(self._array.view() if dtype is None else self._array.view(dtype), self)

    def copy(self, order: str = "C") -> ndarray:
        """A copy, on the current device."""
        return wrap(np.array(self._array, order=order))  # type: ignore[call-overload]

    def astype(self, dtype: Any, order: str = "K", casting: Any = None, subok: Any = None, copy: bool = True) -> ndarray:
        """Cast."""
        if not copy and self.dtype == np.dtype(dtype):
            return self
        checked(self)
        with np.errstate(all="ignore"):
            return wrap(np.array(self._array.astype(dtype, order=order, casting=casting or "unsafe")))  # type: ignore[call-overload]

    def conj(self) -> ndarray:
        """The conjugate; a real array itself."""
        return wrap(self._array.conj()) if self.dtype.kind == "c" else self

    conjugate = conj

    def fill(self, value: Any) -> None:
        """Set every element."""
        self._array.fill(value if isinstance(value, SCALARS) else unwrap(value))

    def sort(self, axis: int = -1, kind: Any = None) -> None:
        """Sort in place."""
        checked(self)._array.sort(axis, kind="stable")

    def dot(self, b: ndarray, out: Any = None) -> ndarray:
        """The product of arrays."""
        return wrap(np.dot(*unwrap([self, b])))

    def __matmul__(self, other: Any) -> Any:
        import cupy

        return NotImplemented if _should_defer(self, other) else cupy.matmul(self, other)

    def __rmatmul__(self, other: Any) -> Any:
        import cupy

        return cupy.matmul(other, self)


# ------------------------------------------------------------------------------------------------- in and out


def checked(a: ndarray) -> ndarray:
    """Refuse an array that is not on the current device, as CuPy does where the GPUs cannot reach each other's memory."""
    if a._device != current_id():
        raise ValueError(f"Array device must be same as the current device: array device = {a._device} while current = {current_id()}.")
    return a


def unwrap(x: Any) -> Any:
    """The NumPy arrays of an argument (a nest of them); anything that lives on the host is refused."""
    if isinstance(x, ndarray):
        return checked(x)._array
    if isinstance(x, (list, tuple)):
        return type(x)(map(unwrap, x))
    if hasattr(x, "__cuda_array_interface__"):
        return unwrap(from_interface(x))
    if isinstance(x, np.ndarray) or hasattr(x, "__array_function__"):
        raise TypeError(f"Unsupported type {type(x)}")
    return x


def wrap(y: Any, of: ndarray | None = None) -> Any:
    """A result on the device: numbers become 0-d arrays. ``of`` is the array that it may be a view of."""
    if isinstance(y, tuple) and hasattr(y, "_fields"):
        return type(y)(*(wrap(v, of) for v in y))
    if isinstance(y, (list, tuple)):
        return type(y)(wrap(v, of) for v in y)
    if not isinstance(y, (np.ndarray, *SCALARS)):
        return y
    a = ndarray.__new__(ndarray)
    a._array = np.asarray(y)
    if a.dtype.char not in SUPPORTED:
        raise ValueError(f"Unsupported dtype {a.dtype}")
    is_view = of is not None and _owner(a._array) is _owner(of._array)
    a.base = (of.base if of.base is not None else of) if is_view else None  # type: ignore[union-attr]
    a._device = of._device if is_view else current_id()  # type: ignore[union-attr]
    return a


def from_interface(x: Any) -> ndarray:
    """The array behind another library's ``__cuda_array_interface__``; that of a stand-in points to the host."""
    interface = {key: value for key, value in x.__cuda_array_interface__.items() if key != "stream"}
    return wrap(np.asarray(SimpleNamespace(__array_interface__=interface, keep=x)))


def _owner(a: np.ndarray) -> Any:
    while isinstance(a.base, np.ndarray):
        a = a.base
    return a


def _index(key: Any) -> Any:
    """A key for the NumPy array; 0-d results stay arrays."""
    parts = list(key) if isinstance(key, tuple) else [key]
    for i, k in enumerate(parts):
        if isinstance(k, np.ndarray) and k.dtype.kind == "b":
            raise TypeError("a boolean index array must be a cupy.ndarray")
        parts[i] = k if isinstance(k, np.ndarray) else unwrap(k)  # CuPy carries integers to the GPU by itself
    masks = sum(isinstance(k, np.ndarray) and k.dtype.kind == "b" for k in parts)
    if masks and sum(isinstance(k, np.ndarray) for k in parts) > 1:
        raise ValueError("currently, CuPy only supports slices that consist of one boolean array.")
    if not any(k is Ellipsis for k in parts):
        parts.append(Ellipsis)
    return tuple(parts)


# ------------------------------------------------------------------------------------------------- operators

_OPERATORS = {
    "add": "add", "sub": "subtract", "mul": "multiply", "truediv": "true_divide", "floordiv": "floor_divide", "mod": "remainder", "pow": "power",
    "and": "bitwise_and", "or": "bitwise_or", "xor": "bitwise_xor", "lshift": "left_shift", "rshift": "right_shift",
}  # fmt: skip
_COMPARISONS = {"eq": "equal", "ne": "not_equal", "lt": "less", "le": "less_equal", "gt": "greater", "ge": "greater_equal"}
_UNARY = {"neg": "negative", "pos": "positive", "abs": "absolute", "invert": "invert"}


def _should_defer(a: Any, b: Any) -> bool:
    return not isinstance(b, ndarray) and getattr(b, "__array_priority__", 0) > ndarray.__array_priority__


def _operator(name: str, reverse: bool = False, in_place: bool = False) -> Callable[..., Any]:
    def call(self: ndarray, *others: Any) -> Any:
        import cupy

        if others and not in_place and _should_defer(self, others[0]):
            return NotImplemented
        if name in _COMPARISONS.values() and not isinstance(others[0], (ndarray, np.ndarray, *SCALARS)):
            return NotImplemented
        args = (others[0], self) if reverse else (self, *others[:1])
        return getattr(cupy, name)(*args, self) if in_place else getattr(cupy, name)(*args)

    return call


for _short, _name in {**_OPERATORS, **_COMPARISONS, **_UNARY}.items():
    setattr(ndarray, f"__{_short}__", _operator(_name))
for _short, _name in _OPERATORS.items():
    setattr(ndarray, f"__r{_short}__", _operator(_name, reverse=True))
    setattr(ndarray, f"__i{_short}__", _operator(_name, in_place=True))


# ------------------------------------------------------------------------------------------------- the other methods, from the table


def binder(name: str, words: str) -> Callable[[Sequence[Any], dict[str, Any]], None]:
    """What raises TypeError where CuPy's function, whose parameters these are, does not take the arguments."""
    if "*" in words:
        keywords = {w.rstrip("=") for w in words.replace("*", "").split()} if "**" not in words else None
        positional = None
    else:
        keywords, positional = {w.rstrip("=") for w in words.split()}, len(words.split())

    def bind(args: Sequence[Any], params: dict[str, Any]) -> None:
        if positional is not None and len(args) > positional:
            raise TypeError(f"{name}() takes {positional} positional arguments but {len(args)} were given")
        unknown = set(params) - keywords if keywords is not None else ()
        if unknown:
            raise TypeError(f"{name}() got an unexpected keyword argument {min(unknown)!r}: CuPy's takes ({words})")

    return bind


def _method(name: str, words: str) -> Callable[..., Any]:
    bind = binder(name, words)

    def call(self: ndarray, *args: Any, **params: Any) -> Any:
        bind(args, params)
        if params.get("kind", "stable") not in (None, "stable"):
            raise ValueError(f"kind {params['kind']!r}: CuPy has one kind of sort, which is stable")
        if params.get("dtype", 0) is None or name in ("argmax", "argmin"):
            params.pop("dtype", None)
        if params.get("out") is not None:
            params["out"] = unwrap(params["out"])
        with np.errstate(all="ignore"):
            return wrap(getattr(checked(self)._array, name)(*unwrap(args), **params), self)

    call.__name__ = name
    return call


for _name, _words in TABLE["methods"].items():
    if _name not in vars(ndarray) and hasattr(np.ndarray, _name):
        setattr(ndarray, _name, _method(_name, _words))
