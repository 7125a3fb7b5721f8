"""What a Tensor can do: operators, ndarray's methods, PyTorch's tensor methods, and the NumPy, CuPy and DLPack protocols.

The tape knows no operation, so these are attached to its Tensor here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from gpugrad import backend, tape
from gpugrad.ops import elementwise as ew
from gpugrad.ops import fit, index, keys, linalg, reduce, selection, softmax
from gpugrad.ops import shape as shape_ops
from gpugrad.ops.batch import spread
from gpugrad.ops.fit import add, astype
from gpugrad.tape import Batch, Leaf, Tensor, plain


def _method(f: Callable[..., Any]) -> Callable[..., Any]:
    """A plain function binds as a method by itself; an Op is wrapped in one."""
    return (lambda self, *args, **params: f(self, *args, **params)) if isinstance(f, tape.Op) else f


def _reflected(f: Callable[..., Any]) -> Callable[..., Any]:
    return lambda b, a: f(a, b)


def _matmul(a: Any, b: Any) -> Any:
    """What says, in NumPy's way, that it knows better is asked: a linear operator."""
    return NotImplemented if type(b) is not Tensor and getattr(b, "__array_ufunc__", b) is None else linalg.matmul(a, b)


def destination(args: Any, device: str | None, dtype: Any) -> tuple[str | None, Any]:
    """Device and dtype, told apart among the arguments of ``to``; a Tensor stands for its own."""
    for a in args:
        if type(a) is Tensor:
            device, dtype = a.device, a.dtype
        elif isinstance(a, str) and (a in ("cpu", "auto") or a.startswith("cuda")):
            device = a
        elif a is not None:
            dtype = a
    return device, dtype


class Methods:
    """The methods of :class:`gpugrad.Tensor`."""

    __slots__ = ()
    value: Any
    node: Any
    __array_priority__ = 1000.0  # CuPy's operators defer to ours

    # ------------------------------------------------------------------ what it is

    @property
    def shape(self) -> tuple[int, ...]:
        """The lengths of the axes."""
        return self.value.shape if type(self.node) is not Batch else self.value.shape[1:]

    @property
    def dtype(self) -> Any:
        """The NumPy dtype of the elements."""
        return self.value.dtype

    @property
    def ndim(self) -> int:
        """How many axes there are."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """How many elements there are."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of the elements."""
        return self.size * self.itemsize

    @property
    def itemsize(self) -> int:
        """Bytes of one element."""
        return self.dtype.itemsize

    @property
    def device(self) -> str:
        """``"cpu"`` or ``"cuda:N"``."""
        return backend.device_of(plain(self))

    @property
    def T(self) -> Tensor:  # noqa: N802
        """All axes reversed."""
        return shape_ops.transpose(self)

    @property
    def mT(self) -> Tensor:  # noqa: N802
        """The last two axes swapped."""
        return shape_ops.matrix_transpose(self)

    @property
    def real(self) -> Tensor:
        """The real part."""
        return ew.real(self)

    @property
    def imag(self) -> Tensor:
        """The imaginary part."""
        return ew.imag(self)

    @property
    def at(self) -> index.At:
        """``t.at[i].set(v)``, ``t.at[i].add(v)``: a new Tensor with elements changed; ``t`` stays as it is."""
        return index.At(self)

    def __len__(self) -> int:
        if not self.ndim:
            raise TypeError("len() of a 0-d tensor")
        return self.shape[0]

    def __iter__(self) -> Iterator[Tensor]:
        if not self.ndim:
            raise TypeError("iteration over a 0-d tensor")
        return iter(shape_ops.unstack(self))

    def __repr__(self) -> str:
        body = np.array2string(backend.to_device(plain(self), "cpu"), separator=", ", prefix="tensor(", threshold=200)
        notes = [] if self.dtype in (np.float64, np.int64, np.bool_) else [f"dtype={self.dtype}"]
        if self.device != "cpu":
            notes.append(f"device={self.device!r}")
        if type(self.node) is Batch:
            notes.append(f"each of {self.node.size} examples")
        elif self.node is not None:
            call = self.node.parents[0] if isinstance(self.node, tape.Pick) else self.node
            notes.append("requires_grad=True" if self.is_leaf else f"grad of {call.op.name}" if isinstance(call, tape.Reverse) else "tracked")
        return f"tensor({', '.join([body, *notes])})"

    def __format__(self, spec: str) -> str:
        return format(self.item(), spec) if spec and not self.ndim else repr(self)

    # ------------------------------------------------------------------ the array beneath

    @property
    def data(self) -> Any:
        """The plain NumPy or CuPy array at the bottom, shared with this Tensor. Set it to replace the array of a leaf."""
        x: Any = self
        while type(x) is Tensor:
            if type(x.node) is Batch:
                _refuse_batched(self, "t.data")
            x = x.value
        return x

    @data.setter
    def data(self, array: Any) -> None:
        _refuse_batched(self, "t.data = x")
        _refuse_batched(array, "t.data = x")
        array = backend.asarray(plain(array))
        if not self.is_leaf or type(self.value) is Tensor:
            raise RuntimeError("the data of a Tensor that an operation made, or that a transform tracks, cannot be replaced: derivatives would not see it")
        if self.node is not None:
            if not tape.is_inexact(array.dtype):
                raise RuntimeError(f"only Tensors of floating point and complex dtype can require gradients, got {array.dtype}")
            if (array.shape, array.dtype) != (self.node.shape, self.node.dtype):
                self.node.shape, self.node.dtype, self.node.grad = array.shape, array.dtype, None
        if array is self.value:  # t.data -= x: Python hands the same array back
            tape.mark_mutated(array)
        self.value = array

    def numpy(self) -> np.ndarray:
        """The values as a NumPy array: shared on the CPU, copied from a GPU. Derivatives do not follow."""
        _refuse_inside_a_transform(self, "numpy()")
        return backend.to_device(self.data, "cpu")

    def cupy(self) -> Any:
        """The values as a CuPy array on the current GPU; shared if they are there. Derivatives do not follow."""
        _refuse_inside_a_transform(self, "cupy()")
        return self.data if self.device != "cpu" else backend.to_device(self.data, "cuda")

    def item(self) -> Any:
        """The one element as a Python number."""
        _refuse_inside_a_transform(self, "item()")
        y = self.data.item()
        backend.waited()
        return y

    def tolist(self) -> Any:
        """The values as nested lists of Python numbers."""
        return self.numpy().tolist()

    def __float__(self) -> float:
        _refuse_batched(self, "float()")
        return float(self.item())

    def __complex__(self) -> complex:
        _refuse_batched(self, "complex()")
        return complex(self.item())

    def __int__(self) -> int:
        _refuse_batched(self, "int()")
        y = int(self.data.item())  # piecewise constant: nothing is lost
        backend.waited()
        return y

    def __bool__(self) -> bool:
        _refuse_batched(self, "bool()")
        y = bool(self.data)
        backend.waited()
        return y

    def __index__(self) -> int:
        _refuse_batched(self, "operator.index()")
        return self.data.__index__()

    def detach(self) -> Tensor:
        """The same values, sharing memory, without derivatives."""
        return tape.box(tape.constant(self))

    def clone(self) -> Tensor:
        """A copy that derivatives pass through."""
        return fit.copy(self)

    copy = clone

    def __copy__(self) -> Tensor:
        return Tensor(self.value, self.node)

    def __deepcopy__(self, memo: Any) -> Tensor:
        _refuse_inside_a_transform(self, "deepcopy")
        if not self.is_leaf:
            raise RuntimeError("only Tensors created by the user (graph leaves) support deepcopy; use .detach() or .clone()")
        copy = Tensor(self.data.copy()).requires_grad_(self.requires_grad)
        if self.node is not None and self.node.grad is not None:
            copy.grad = self.node.grad.clone()
        return copy

    def __reduce__(self) -> Any:
        if not self.is_leaf:
            raise RuntimeError("only leaf Tensors can be pickled: a graph cannot. Pickle t.detach()")
        return _rebuild, (self.numpy(), self.device, self.requires_grad)

    # ------------------------------------------------------------------ moving and casting

    def to(self, *args: Any, device: str | None = None, dtype: Any = None, copy: bool = False) -> Tensor:
        """This Tensor on another device, in another dtype, or both: ``t.to("cuda")``, ``t.to(np.float64)``, ``t.to(other)``. Derivatives pass through."""
        device, dtype = destination(args, device, dtype)
        dtype = None if dtype is None else backend.as_dtype(dtype)
        t: Any = self
        if device is not None:
            t = _transfer(t, device)
        if dtype is not None and t.dtype != dtype:
            t = astype(t, dtype)
        return fit.copy(t) if copy and t is self else t

    def astype(self, dtype: Any, *, copy: bool = True) -> Tensor:
        """Cast; see :func:`gpugrad.astype`."""
        return astype(self, dtype, copy=copy)

    def cpu(self) -> Tensor:
        """On the CPU."""
        return self.to("cpu")

    def cuda(self, index: int | None = None) -> Tensor:
        """On a GPU: the current one, or number ``index``."""
        return self.to("cuda" if index is None else f"cuda:{index}")

    def float(self) -> Tensor:
        """As float32."""
        return self.to(np.float32)

    def double(self) -> Tensor:
        """As float64."""
        return self.to(np.float64)

    def half(self) -> Tensor:
        """As float16."""
        return self.to(np.float16)

    # ------------------------------------------------------------------ the tape, as PyTorch shows it

    @property
    def requires_grad(self) -> bool:
        """Whether derivatives are tracked through this Tensor."""
        return _off_batches(self).node is not None

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None:
        self.requires_grad_(value)

    @property
    def is_leaf(self) -> bool:
        """Whether no tracked operation made this Tensor."""
        node = _off_batches(self).node
        return node is None or isinstance(node, Leaf)

    @property
    def grad(self) -> Tensor | None:
        """What backward has accumulated, for a leaf or after :meth:`retain_grad`."""
        node = self.node
        if isinstance(node, Leaf):
            return node.grad
        return (getattr(node, "notes", None) or {}).get("retained")

    @grad.setter
    def grad(self, value: Any) -> None:
        node = self.node
        if value is not None:
            value = value if type(value) is Tensor else Tensor(backend.asarray(value))
            if value.shape != self.shape or value.dtype != self.dtype or value.device != self.device:
                raise RuntimeError(f"assigned grad has {_describe(value)}, expected {_describe(self)}")
        if isinstance(node, Leaf):
            node.grad = value
        elif value is not None:
            raise RuntimeError("only a leaf Tensor that requires grad holds a .grad: call .requires_grad_() on it, or .retain_grad() on a result")
        elif node is not None and node.notes and "retained" in node.notes:
            node.notes["retained"] = None

    def requires_grad_(self, requires_grad: bool = True) -> Tensor:
        """Track (or stop tracking) derivatives with respect to this leaf, in place."""
        if not self.is_leaf:
            if requires_grad:
                return self  # type: ignore[return-value]
            raise RuntimeError(
                "you can only change requires_grad flags of leaf variables. If you want to use a computed variable in a subgraph that doesn't require differentiation use var_no_grad = var.detach()."
            )
        if not requires_grad:
            self.node = None if type(self.node) is not Batch else self.node
        elif self.node is None or type(self.node) is Batch:
            if not tape.is_inexact(self.dtype):
                raise RuntimeError(
                    f"only Tensors of floating point and complex dtype can require gradients, got {self.dtype}: make it one, as in gg.tensor(x, dtype=np.float32)"
                )
            value = self.value if self.node is None else Tensor(self.value, self.node)
            self.value, self.node = value, Leaf(tape.state.leaf_level, value)
        return self  # type: ignore[return-value]

    def backward(self: Any, gradient: Any = None, retain_graph: bool | None = None, create_graph: bool = False, inputs: Any = None) -> None:
        """Accumulate into ``.grad`` of the leaves; see :func:`gpugrad.autograd.backward`."""
        from gpugrad import autograd

        autograd.backward(self, None if gradient is None else [gradient], retain_graph=retain_graph, create_graph=create_graph, inputs=inputs)

    def register_hook(self, hook: Callable[[Tensor], Any]) -> Hook:
        """Call ``hook(grad)`` whenever the gradient of this Tensor is computed; a Tensor that it returns takes its place. Returns a handle with ``remove()``."""
        node = self.node
        if node is None or node.mode in (tape.FORWARD, tape.BATCH):
            raise RuntimeError("cannot register a hook on a tensor that doesn't require gradient")
        return Hook(node, hook)

    def retain_grad(self) -> None:
        """Keep the gradient of this non-leaf Tensor in ``.grad`` too."""
        if self.node is None or self.node.mode in (tape.FORWARD, tape.BATCH):
            raise RuntimeError("can't retain_grad on Tensor that has requires_grad=False")
        if not self.is_leaf:
            self.node.notes = self.node.notes or {}
            self.node.notes.setdefault("retained", None)

    # ------------------------------------------------------------------ in place: only where no derivative can be lost

    def __setitem__(self, key: Any, value: Any) -> None:
        _refuse_in_place(self, "t[i] = v", value)
        self.data[keys.plain_index(key)] = plain(value)
        tape.mark_mutated(self.data)

    def zero_(self) -> Tensor:
        """Fill with zeros, in place."""
        return self.fill_(0)

    def fill_(self, value: Any) -> Tensor:
        """Fill with ``value``, in place."""
        return self.copy_(value)

    def copy_(self, source: Any) -> Tensor:
        """Take over the values of ``source`` (broadcast, cast, moved to this device), in place."""
        _refuse_in_place(self, "copy_", source)
        source = plain(source)
        self.data[...] = backend.to_device(source, self.device) if backend.is_array(source) else source
        tape.mark_mutated(self.data)
        return self  # type: ignore[return-value]

    # ------------------------------------------------------------------ operators and functions as methods

    __neg__, __pos__ = ew.negative, ew.positive
    __abs__, __invert__ = _method(ew.absolute), _method(ew.invert)
    __add__, __radd__ = add, _reflected(add)
    __sub__, __rsub__ = ew.subtract, _reflected(ew.subtract)
    __mul__, __rmul__ = ew.multiply, _reflected(ew.multiply)
    __truediv__, __rtruediv__ = ew.divide, _reflected(ew.divide)
    __floordiv__, __rfloordiv__ = _method(ew.floor_divide), _reflected(ew.floor_divide)
    __mod__, __rmod__ = ew.remainder, _reflected(ew.remainder)
    __pow__, __rpow__ = ew.power, _reflected(ew.power)
    __matmul__, __rmatmul__ = _matmul, _reflected(linalg.matmul)
    __and__, __rand__ = _method(ew.bitwise_and), _reflected(ew.bitwise_and)
    __or__, __ror__ = _method(ew.bitwise_or), _reflected(ew.bitwise_or)
    __xor__, __rxor__ = _method(ew.bitwise_xor), _reflected(ew.bitwise_xor)
    __lshift__, __rlshift__ = _method(ew.left_shift), _reflected(ew.left_shift)
    __rshift__, __rrshift__ = _method(ew.right_shift), _reflected(ew.right_shift)
    __round__ = _method(ew.around)
    __eq__, __ne__ = _method(ew.equal), _method(ew.not_equal)
    __lt__, __le__, __gt__, __ge__ = map(_method, (ew.less, ew.less_equal, ew.greater, ew.greater_equal))
    __hash__ = object.__hash__
    __getitem__ = index.getitem

    abs, round, conj = _method(ew.absolute), _method(ew.around), _method(ew.conj)
    conjugate = conj
    exp, log, sqrt, square, sin, cos, tanh, clip = ew.exp, ew.log, ew.sqrt, ew.square, ew.sin, ew.cos, ew.tanh, ew.clip
    sum, mean, prod, var, std, max, min = reduce.sum, reduce.mean, reduce.prod, reduce.var, reduce.std, reduce.max, reduce.min
    cumsum, cumprod, logsumexp = reduce.cumsum, reduce.cumprod, softmax.logsumexp
    any, all, argmax, argmin = _method(reduce.any), _method(reduce.all), _method(reduce.argmax), _method(reduce.argmin)
    dot, matmul, outer, trace, norm = linalg.dot, linalg.matmul, linalg.outer, linalg.trace, linalg.norm
    ravel = flatten = shape_ops.ravel
    squeeze, unsqueeze, swapaxes, diagonal = shape_ops.squeeze, shape_ops.expand_dims, shape_ops.swapaxes, shape_ops.diagonal
    flip, roll, repeat, split = shape_ops.flip, shape_ops.roll, shape_ops.repeat, shape_ops.split
    take, sort, argsort = selection.take, selection.sort, _method(selection.argsort)

    def __divmod__(self, other: Any) -> tuple[Any, Any]:
        return self // other, self % other

    def __rdivmod__(self, other: Any) -> tuple[Any, Any]:
        return other // self, other % self

    def reshape(self, *shape: Any) -> Tensor:
        """A new shape, as one tuple or several integers; see :func:`numpy.reshape`."""
        return shape_ops.reshape(self, shape[0] if len(shape) == 1 else shape)

    view = reshape

    def transpose(self, *axes: Any) -> Tensor:
        """Axes permuted (reversed without arguments); see :func:`numpy.transpose`."""
        return shape_ops.transpose(self, (axes[0] if len(axes) == 1 and not isinstance(axes[0], int) else axes) or None)

    permute = transpose

    # ------------------------------------------------------------------ protocols

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        _refuse_tracked(self, "np.asarray(t)", ".numpy() or .detach()")
        if self.device != "cpu":
            raise TypeError(f"cannot convert a tensor on {self.device} to a NumPy array without a copy: write t.cpu() or t.numpy()")
        return np.array(self.data, dtype=dtype, copy=copy)

    @property
    def __cuda_array_interface__(self) -> Any:
        if self.device == "cpu":
            raise AttributeError("a tensor on the CPU has no __cuda_array_interface__")
        try:
            _refuse_tracked(self, "__cuda_array_interface__", ".detach()")
        except TypeError as error:  # who asks with hasattr() is told no: then np.add(array, t) comes to us, and cupy.asarray(t) is refused by __array__
            raise AttributeError(str(error)) from None
        return self.data.__cuda_array_interface__

    def __dlpack__(self, **options: Any) -> Any:
        _refuse_tracked(self, "__dlpack__", ".detach()")
        return self.data.__dlpack__(**options)

    def __dlpack_device__(self) -> Any:
        return self.data.__dlpack_device__()


# ------------------------------------------------------------------------------------------------- helpers of the methods

_transfer_op = tape.Op(
    "to",
    lambda x, *, device, source: backend.to_device(x, device),
    [lambda g, _y, _x, *, device, source: _transfer_op(g, device=source, source=device)],
    [lambda t, _y, _x, *, device, source: _transfer_op(t, device=device, source=source)],
    batch=spread,
)


def _transfer(t: Tensor, device: str) -> Tensor:
    device, source = backend.device_name(device), t.device
    return t if device == source else _transfer_op(t, device=device, source=source)


def _rebuild(array: np.ndarray, device: str, requires_grad: bool) -> Tensor:
    return Tensor(backend.to_device(array, device)).requires_grad_(requires_grad)


def _describe(t: Any) -> str:
    return f"shape {tuple(t.shape)}, dtype {t.dtype}, device {t.device}"


def _off_batches(t: Any) -> Any:
    """The Tensor beneath the batches on top (vmap)."""
    while type(t.node) is Batch and type(t.value) is Tensor:
        t = t.value
    return t if type(t.node) is not Batch else Tensor(t.value)


def _refuse_batched(t: Any, what: str) -> None:
    if tape.is_batched(t):
        raise tape.BatchedError(
            f"{what} inside gg.vmap: the Tensor stands for each of many examples, which need not agree. Write gg.stack([a, b]) for np.array([a, b]), "
            "gg.sin(t) for math.sin(t), and gg.where(condition, a, b) instead of if and while; an index may be the Tensor itself, as in gg.asarray(x)[t]."
        )


def _refuse_inside_a_transform(t: Any, what: str) -> None:
    _refuse_batched(t, what)
    while type(t) is Tensor:
        if t.node is not None and t.node.level % 2:
            raise TypeError(
                f"{what} of a Tensor that a transform (gg.grad, gg.jvp, ...) is tracking would drop its derivative. "
                "Stay with gpugrad functions; if the value is meant as a constant, write gg.stop_gradient(t) first."
            )
        t = t.value


def _refuse_tracked(t: Any, what: str, remedy: str) -> None:
    _refuse_batched(t, what)
    while type(t) is Tensor:
        if t.node is not None:
            raise TypeError(
                f"{what} of a Tensor that is tracked would drop its derivative without a word: use {remedy} if that is meant, or gpugrad's functions to keep it."
            )
        t = t.value


def _refuse_in_place(t: Any, what: str, value: Any) -> None:
    inner = t
    if tape.is_batched(t) or tape.is_batched(value):
        raise RuntimeError(
            f"{what} inside gg.vmap: a Tensor that stands for many examples cannot be changed in place. Write t.at[i].set(v) or gg.where(mask, v, t)."
        )
    while type(inner) is Tensor:
        if inner.node is not None and inner.node.level > tape.state.floor:
            raise RuntimeError(
                f"{what}: a leaf Variable that requires grad, or a tracked result, cannot be changed in place. Write gg.where(mask, v, t), "
                "t.at[i].set(v) or t.at[i].add(v), which return a new Tensor; or do it under gg.no_grad() if no derivative is wanted."
            )
        inner = inner.value
    if tape.is_tracked(value):
        raise RuntimeError(f"{what}: the value is tracked, and writing it into an array would drop its derivative. Write t.at[i].set(v), or v.detach().")


class Hook:
    """A registered hook; ``remove()`` takes it off again."""

    def __init__(self, node: Any, hook: Callable[[Tensor], Any]) -> None:
        if node.notes is None:
            node.notes = {}
        self.hooks = node.notes.setdefault("hooks", {})
        self.key = tape.next_order()
        self.hooks[self.key] = hook

    def remove(self) -> None:
        """Do not call it any more."""
        self.hooks.pop(self.key, None)


def _attach() -> None:
    for name, method in vars(Methods).items():
        if name not in ("__module__", "__dict__", "__weakref__", "__doc__", "__slots__", "__annotations__"):
            setattr(Tensor, name, method)


_attach()
