"""The PyTorch-shaped face of the tape: backward, grad(outputs, inputs), grad modes, Function, gradcheck.

Names, defaults and error wording follow PyTorch. Gradients of complex leaves follow its convention too (the conjugate
of what :func:`gpugrad.grad` returns).
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy import ndarray

from gpugrad import backend, tape
from gpugrad.anomaly import detect_anomaly
from gpugrad.function import Function, once_differentiable
from gpugrad.ops.elementwise import conj
from gpugrad.ops.fit import add, unit_like, zeros_like
from gpugrad.tape import BATCH, FORWARD, Leaf, Tensor, below, box, plain, pull_back
from gpugrad.transforms import own_all

__all__ = [
    "Function",
    "backward",
    "detect_anomaly",
    "enable_grad",
    "grad",
    "inference_mode",
    "is_grad_enabled",
    "no_grad",
    "once_differentiable",
    "set_grad_enabled",
]


def backward(
    tensors: Tensor | Sequence[Tensor],
    grad_tensors: Any = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    inputs: Tensor | Sequence[Tensor] | None = None,
) -> None:
    """Accumulate the gradients of ``tensors`` into the ``.grad`` of the leaves (or of ``inputs`` alone).

    Args:
        grad_tensors: the cotangents; may be left out for tensors with one element.
        retain_graph: keep what the graph holds, for another backward. Default: ``create_graph``.
        create_graph: make the gradients differentiable themselves.

    Raises:
        RuntimeError: nothing requires grad, a cotangent is missing, the graph was freed, or a saved array was changed.
    """
    outputs = _sequence(tensors)
    seeds = _seeds(outputs, _cotangents(outputs, grad_tensors), create_graph)
    level = seeds[0][0].level
    if inputs is None:
        if any(map(_has_leaves_below, outputs)):
            raise RuntimeError(
                "backward() would reach only the leaves made inside this transform, while the output depends on leaves made outside too. "
                "Name the leaves with inputs=, or differentiate with gg.grad."
            )
        nodes = None
    else:
        nodes = [_input_node(t, level) for t in _sequence(inputs)]
    grads = pull_back(seeds, create_graph=create_graph, free=not (create_graph if retain_graph is None else retain_graph), inputs=nodes)
    for node, g in zip(grads, own_all(grads.values(), [g for _, g in seeds])):
        _accumulate(node, conj(g) if node.dtype.kind == "c" else g, create_graph)


def grad(
    outputs: Tensor | Sequence[Tensor],
    inputs: Tensor | Sequence[Tensor],
    grad_outputs: Any = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    allow_unused: bool = False,
    materialize_grads: bool = False,
) -> tuple[Tensor | None, ...]:
    """The gradients of ``outputs`` with respect to ``inputs``, a tuple; no ``.grad`` is touched.

    Only what lies between the two is computed. See :func:`backward` for the arguments.

    Raises:
        RuntimeError: an input does not require grad, or is not used (unless ``allow_unused``: None; or
            ``materialize_grads``: zeros).
    """
    results, targets = _sequence(outputs), _sequence(inputs)
    seeds = _seeds(results, _cotangents(results, grad_outputs), create_graph)
    nodes = [_input_node(t, seeds[0][0].level) for t in targets]
    found = pull_back(seeds, create_graph=create_graph, free=not (create_graph if retain_graph is None else retain_graph), inputs=nodes)
    grads: list[Tensor | None] = []
    owned = iter(own_all((found[n] for n in nodes if n in found), [g for _, g in seeds]))
    for t, node in zip(targets, nodes):
        if node in found:
            g = next(owned)
            grads.append(box(conj(g) if node.dtype.kind == "c" else g))
        elif materialize_grads:
            grads.append(tape.box(zeros_like(t)))
        elif allow_unused:
            grads.append(None)
        else:
            raise RuntimeError(
                "One of the differentiated Tensors appears to not have been used in the graph. Set allow_unused=True if this is the desired behavior."
            )
    return tuple(grads)


def _has_leaves_below(t: Any) -> bool:
    """Whether the always-on tape of an outer place tracks ``t`` too."""
    t = t.value
    while type(t) is Tensor:
        if t.node is not None and t.node.level % 2 == 0:
            return True
        t = t.value
    return False


def _sequence(tensors: Any) -> list[Tensor]:
    tensors = list(tensors) if isinstance(tensors, Iterable) and not isinstance(tensors, np.ndarray) and type(tensors) is not Tensor else [tensors]
    for t in tensors:
        if type(t) is not Tensor:
            raise TypeError(
                f"expected Tensors, got {type(t).__name__}: a plain array has no graph. Make it one with gg.tensor(x, requires_grad=True) before computing."
            )
    if not tensors:
        raise ValueError("expected at least one Tensor, got an empty sequence")
    return tensors


def _cotangents(outputs: list[Tensor], given: Any) -> list[Any]:
    given = [None] * len(outputs) if given is None else list(given) if isinstance(given, (list, tuple)) else [given]
    if len(given) != len(outputs):
        raise RuntimeError(f"got {len(given)} cotangents for {len(outputs)} outputs")
    return given


def _seeds(outputs: list[Tensor], cotangents: list[Any], create_graph: bool) -> list[tuple[Any, Any]]:
    """(node, cotangent) of each output, checked; the cotangents boxed where the walk is to record."""
    seeds = []
    for i, (t, g) in enumerate(zip(outputs, cotangents)):
        if t.node is None:
            raise RuntimeError(f"element {i} of tensors does not require grad and does not have a grad_fn")
        if t.node.mode is FORWARD:
            raise RuntimeError("backward inside a forward-mode transform of the same values: use gg.grad inside gg.jvp instead")
        if t.node.mode is BATCH:
            raise RuntimeError(
                "backward of a Tensor that stands for many examples (inside gg.vmap): use gg.grad inside gg.vmap, or call backward outside of it"
            )
        if g is None:
            if t.size != 1:
                raise RuntimeError(f"grad can be implicitly created only for scalar outputs, got shape {t.shape}: pass gradient=, or sum it")
            if t.dtype.kind == "c":
                raise RuntimeError("grad can be implicitly created only for real scalar outputs but got a complex one: pass gradient=, or take its real part")
            g = unit_like(t.value)
        else:
            g = g if type(g) is Tensor else backend.asarray(g, device=t.device if np.isscalar(g) or isinstance(g, (list, tuple)) else None)
            if g.shape != t.shape:
                raise RuntimeError(f"Mismatch in shape: grad_output[{i}] has a shape of {g.shape} and output[{i}] has a shape of {t.shape}.")
            if not create_graph:
                g = below(t.node.level, g)
            if g.dtype != t.dtype:
                g = g.astype(t.dtype)
            if t.dtype.kind == "c":
                g = conj(g)
        seeds.append((t.node, Tensor(g) if create_graph and type(g) is not Tensor else g))
    levels = {node.level for node, _ in seeds}
    if len(levels) > 1:
        raise RuntimeError("the outputs belong to different transforms: differentiate them one by one, or use gg.grad")
    return seeds


def _input_node(t: Tensor, level: int) -> Any:
    if t.node is None:
        raise RuntimeError("One of the differentiated Tensors does not require grad")
    if t.node.level < level:
        raise RuntimeError(
            "this input was made outside the transform (gg.grad, gg.jvp, ...) that is tracking the output, so the gradient would lose the transform's derivative. "
            "Use gg.grad for the inner gradient too, or make the input inside with .detach().requires_grad_()."
        )
    return t.node


def _accumulate(node: Any, g: Any, create_graph: bool) -> None:
    if not isinstance(node, Leaf):  # a non-leaf named in inputs=
        notes = node.notes = node.notes or {}
        if "retained" not in notes:  # else the walk has done it
            notes["retained"] = box(g)
        return
    if node.grad is None:
        node.grad = box(g)
    elif type(node.grad.value) is ndarray and node.grad.node is None and type(plain(g)) is ndarray and not create_graph:
        np.add(node.grad.value, plain(g), out=node.grad.value)
        tape.mark_mutated(node.grad.value)
    else:
        node.grad = box(add(node.grad, g))


# ------------------------------------------------------------------------------------------------- grad modes


class set_grad_enabled:  # noqa: N801
    """Whether the levels open here record: as a context manager, a decorator, or (until undone) a call. Per thread.

    A transform that is opened inside a ``no_grad`` block records as usual; those open outside it do not, in either mode.
    """

    def __init__(self, mode: bool) -> None:
        self.mode = mode
        self.saved: list[int] = []
        self.before = tape.state.floor
        self._apply()

    def _apply(self) -> None:
        tape.state.floor = tape.UNTRACKED if self.mode else tape.state.leaf_level

    def __enter__(self) -> None:
        self.saved.append(self.before)
        self._apply()

    def __exit__(self, *_: object) -> None:
        tape.state.floor = self.saved.pop()

    def __call__(self, f: Callable[..., Any]) -> Callable[..., Any]:
        tape.state.floor = self.before
        return _decorate(f, lambda: set_grad_enabled(self.mode))


class _GradMode(set_grad_enabled):
    """A mode that takes effect on entry only, and may be entered again and again."""

    enabled: bool

    def __init__(self, f: Callable[..., Any] | None = None) -> None:
        self.mode = self.enabled
        self.saved = []

    def __new__(cls, f: Callable[..., Any] | None = None) -> Any:
        return super().__new__(cls) if f is None else _decorate(f, cls)

    def __enter__(self) -> None:
        self.saved.append(tape.state.floor)
        self._apply()

    def __call__(self, f: Callable[..., Any]) -> Callable[..., Any]:
        return _decorate(f, type(self))


def _decorate(f: Callable[..., Any], mode: Callable[[], Any]) -> Callable[..., Any]:
    if inspect.isgeneratorfunction(f):  # its body runs between the calls of next()

        @functools.wraps(f)
        def generator(*args: Any, **kwargs: Any) -> Any:
            steps, sent = f(*args, **kwargs), None
            try:
                while True:
                    with mode():
                        item = steps.send(sent)
                    sent = yield item
            except StopIteration as stop:
                return stop.value
            finally:
                steps.close()

        return generator

    @functools.wraps(f)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        with mode():
            return f(*args, **kwargs)

    return wrapped


class no_grad(_GradMode):  # noqa: N801
    """Compute without recording: ``with gg.no_grad():`` or ``@gg.no_grad``."""

    enabled = False


class enable_grad(_GradMode):  # noqa: N801
    """Record again inside a ``no_grad`` block."""

    enabled = True


inference_mode = no_grad


def is_grad_enabled() -> bool:
    """Whether leaves made here are recorded by operations."""
    return tape.state.leaf_level > tape.state.floor


def __getattr__(name: str) -> Any:
    if name in ("gradcheck", "gradgradcheck"):
        from gpugrad import testing

        return getattr(testing, name)
    raise AttributeError(f"module 'gpugrad.autograd' has no attribute {name!r}")


def __dir__() -> Iterable[str]:
    return [*__all__, "gradcheck", "gradgradcheck"]
