"""Module: what has parameters. There is no registry: what a module holds is found among its attributes."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

import numpy as np

from gpugrad import backend, tape
from gpugrad.autograd import no_grad
from gpugrad.creation import get_default_dtype, tensor
from gpugrad.methods import destination
from gpugrad.nn.contents import Contents, at_path
from gpugrad.nn.location import locate
from gpugrad.tape import Tensor, is_inexact

M = TypeVar("M", bound="Module")


def Parameter(data: Any, requires_grad: bool = True, *, dtype: Any = None, device: str | None = None) -> Tensor:  # noqa: N802
    """A leaf Tensor that requires grad, holding a copy of ``data``: as an attribute of a :class:`Module` it is one of its parameters."""
    return tensor(data, dtype=dtype, device=device, requires_grad=requires_grad)


def factory(device: str | None, dtype: Any) -> dict[str, Any]:
    """Where and as what a layer makes its parameters; the dtype is :func:`gpugrad.get_default_dtype` unless it is given."""
    return {"device": device, "dtype": backend.as_dtype(get_default_dtype() if dtype is None else dtype)}


class Mismatch(NamedTuple):
    """What :meth:`Module.load_state_dict` passed over."""

    missing_keys: list[str]
    unexpected_keys: list[str]


class Module(Contents):
    """A function with parameters. Subclasses set attributes in ``__init__`` and define ``forward``::

        class Net(nn.Module):
            def __init__(self):
                self.hidden, self.out = nn.Linear(64, 128), nn.Linear(128, 10)

            def forward(self, x):
                return self.out(gg.relu(self.hidden(x)))

    A leaf Tensor that requires grad is a *parameter*; one that does not is a *buffer* (running statistics, a frozen weight), unless its name starts with
    an underscore. Both are found in attributes, in modules that are attributes, and in lists, tuples and dicts of them; what is found twice counts once,
    under its first name. A name is a path, as in ``hidden.weight`` or ``layers.0.bias``. Of sets and generators with Tensors or modules in them a TypeError
    says that they have no order to name them by.

    What a class names in ``buffer_names`` (beside what its base classes name) is a buffer whatever happens: freezing and thawing leave it alone.

    An exception that is raised in a module inside carries a note with its path, as in ``in Net.layers.2 (Linear)``; a :class:`ShapeError` has it in its message.
    """

    training: bool = True

    def forward(self, *inputs: Any, **options: Any) -> Any:
        """The module's function; called by ``module(...)``."""
        close = difflib.get_close_matches("forward", [name for name in dir(type(self)) if name not in dir(Module)], 1)
        raise NotImplementedError(f"{type(self).__name__} does not define forward(self, ...)" + (f"; it has {close[0]!r}: is that it?" if close else ""))

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        try:
            return self.forward(*inputs, **options)
        except Exception as error:
            locate(error, self)
            raise

    # ------------------------------------------------------------------ saving and loading

    def state_dict(self) -> dict[str, Tensor]:
        """Parameters and buffers by path: untracked Tensors that share the module's memory. Write them to a file with :func:`gpugrad.io.save`."""
        return {path: t.detach() for path, t in self._named_tensors()}

    def load_state_dict(self, state: Mapping[str, Any], strict: bool = True, *, from_torch: bool = False) -> Mismatch:
        """Copy values in, cast to the module's dtypes and moved to its devices.

        Args:
            state: arrays or Tensors by path.
            strict: every path must be there, and no other; otherwise those that are missing or unknown are passed over, and returned.
                A parameter that has several paths (a tied one) may come under any of them, or under all with the same values.
            from_torch: the weights of :class:`Linear` and :class:`Bilinear` come as PyTorch stores them, with out as the first axis, which is moved to the end.

        Raises:
            RuntimeError: paths, shapes or dtypes do not fit. All of them are named, and nothing has been changed.
        """
        own = dict(self._named_tensors())
        state, problems = _under_first_paths(self, own, state)
        values = {path: backend.asarray(tape.plain(v)) for path, v in state.items() if path in own}
        if from_torch:
            values = {path: backend.namespace(v).moveaxis(v, 0, -1) if path in _weights_of_torch(self) and v.ndim else v for path, v in values.items()}
        missing, unexpected = [path for path in own if path not in state], [path for path in state if path not in own]
        problems += [problem for path, v in values.items() if (problem := _misfit(path, v, own[path]))]
        if strict:
            problems += [f"{path}: missing, expected shape {own[path].shape}" for path in missing]
            problems += [f"{path}: unexpected, there is no such parameter or buffer" for path in unexpected]
        if problems:
            raise RuntimeError(f"error(s) in loading state_dict for {type(self).__name__}:\n  " + "\n  ".join(problems))
        with no_grad():
            for path, v in values.items():
                own[path].copy_(v)
        return Mismatch(missing, unexpected)

    # ------------------------------------------------------------------ changing all at once

    def to(self: M, *args: Any, device: str | None = None, dtype: Any = None) -> M:
        """Move parameters and buffers to a device, cast those of floating dtype, or both: ``m.to("cuda")``, ``m.to(np.float64)``, ``m.to(tensor)``. In place;
        returns the module.

        Raises:
            TypeError: neither a device nor a dtype of floats or complex numbers. Nothing has been changed.
            gpugrad.DeviceError: there is no such device.
        """
        device, dtype = _destination(args, device, dtype)
        for _, t in self._named_tensors():
            grad, t.grad = (t.grad, None) if t.requires_grad else (None, t.grad)
            t.data = _converted(t.data, device, dtype)
            if grad is not None:
                t.grad = Tensor(_converted(grad.data, device, dtype))
        return self

    def cpu(self: M) -> M:
        """Move to the CPU."""
        return self.to("cpu")

    def cuda(self: M) -> M:
        """Move to the current GPU."""
        return self.to("cuda")

    def float(self: M) -> M:
        """``to(np.float32)``."""
        return self.to(np.float32)

    def double(self: M) -> M:
        """``to(np.float64)``."""
        return self.to(np.float64)

    def half(self: M) -> M:
        """``to(np.float16)``."""
        return self.to(np.float16)

    def apply(self: M, fn: Callable[[Module], Any]) -> M:
        """Call ``fn`` with every module inside and at last with this one (to initialise them, say); returns the module."""
        around: list[tuple[str, Module]] = []
        for path, m in list(self.named_modules()):
            while around and around[-1][0] and not path.startswith(f"{around[-1][0]}."):
                fn(around.pop()[1])
            around.append((path, m))
        for _, m in reversed(around):
            fn(m)
        return self

    def train(self: M, mode: bool = True) -> M:
        """Set ``training`` here and in all modules inside: layers such as dropout act differently in training."""
        for m in self.modules():
            m.training = mode
        return self

    def eval(self: M) -> M:
        """``train(False)``."""
        return self.train(False)

    def requires_grad_(self: M, requires_grad: bool = True) -> M:
        """Thaw or freeze: parameters that do not require grad are buffers from then on, so that ``requires_grad_(True)`` makes a parameter of every buffer of
        floating dtype that its class does not declare as one in ``buffer_names``."""
        for _, t, declared in list(self._tensors()):
            if is_inexact(t.dtype) and not declared:
                t.requires_grad_(requires_grad)
        return self

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients of all parameters, or fill them with zeros."""
        for p in self.parameters():
            clear_grad(p, set_to_none)

    # ------------------------------------------------------------------ what it looks like

    def extra_repr(self) -> str:
        """What stands between the brackets of the representation."""
        return ""

    def __repr__(self) -> str:
        name = type(self).__name__
        trained = sum(p.size for p in self.parameters())
        frozen = sum(t.size for _, t, declared in self._tensors() if not (declared or t.requires_grad) and is_inexact(t.dtype))
        counts = [f"{trained:,} parameter{'' if trained == 1 else 's'}"] * (trained > 0) + [f"{frozen:,} frozen"] * (frozen > 0)
        note = "  # " + ", ".join(counts) if counts else ""
        lines = [f"({path}): {m!r}".replace("\n", "\n  ") for path, m in self.named_children()]
        if not lines:
            return f"{name}({self.extra_repr()}){note}"
        return "\n  ".join([f"{name}({self.extra_repr()}", *lines]) + f"\n){note}"


def _under_first_paths(module: Module, own: Mapping[str, Tensor], state: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """``state`` with what comes under a later path of a tied parameter under its first; and the problems, where the values differ."""
    first = {id(t): path for path, t in own.items()}
    others = {path: first[id(t)] for path in state if path not in own and id(t := at_path(module, path)) in first}
    found, problems = {path: v for path, v in state.items() if path not in others}, []
    for path, known in others.items():
        a, b = (backend.to_device(backend.asarray(tape.plain(v)), "cpu") for v in (state[path], found.setdefault(known, state[path])))
        if not (a.shape == b.shape and (a == b).all()):
            problems.append(f"{path}: got other values than {known}, with which it is tied")
    return found, problems


def _weights_of_torch(module: Module) -> set[str]:
    from gpugrad.nn.layers.linear import Bilinear, Linear

    return {f"{path}.weight".lstrip(".") for path, m in module.named_modules() if isinstance(m, (Bilinear, Linear))}


def _misfit(path: str, value: Any, own: Tensor) -> str | None:
    if value.shape != own.shape:
        return f"{path}: got shape {value.shape}, expected {own.shape}"
    numeric = value.dtype.kind in "biuf" or is_inexact(value.dtype)
    if not numeric or (value.dtype.kind == "c" and own.dtype.kind != "c"):
        return f"{path}: got dtype {value.dtype}, expected one that can be cast to {own.dtype}"
    return None


def _destination(args: Any, device: str | None, dtype: Any) -> tuple[str | None, Any]:
    """Device and dtype, told apart, the dtype one of floats."""
    device, dtype = destination(args, device, dtype)
    if dtype is None:
        return device, None
    try:
        found = backend.as_dtype(dtype)
    except TypeError:
        raise TypeError(f"Module.to: got {dtype!r}, expected a device ('cpu', 'cuda', 'cuda:N', 'auto') or a dtype") from None
    if not is_inexact(found):
        raise TypeError(f"Module.to: got dtype {found}, expected one of floats or complex numbers, for parameters are differentiated")
    return device, found


def _converted(array: Any, device: str | None, dtype: Any) -> Any:
    if device is not None:
        array = backend.to_device(array, device)
    return array if dtype is None or not is_inexact(array.dtype) else array.astype(dtype, copy=False)


def clear_grad(p: Tensor, set_to_none: bool) -> None:
    """Forget the gradient of ``p``, or fill it with zeros."""
    if set_to_none or p.grad is None:
        p.grad = None
    else:
        with no_grad():
            p.grad.detach().zero_()
