"""Operations of a user's own: ``Function`` with a ctx (as in PyTorch), and ``primitive`` with ``defvjp`` / ``defjvp``.

Either rule may be left out: the pullback is linear in the cotangent and the push in the tangent, so each is derived
from the other by transposition.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Sequence
from typing import Any

from numpy import ndarray

from gpugrad import tree
from gpugrad.backend import is_array
from gpugrad.ops.elementwise import conj
from gpugrad.ops.examples import each, one_by_one
from gpugrad.ops.fit import dtype_of, shape_of, zeros_like
from gpugrad.tape import Op, Shared, Tensor, box, is_inexact, is_tracked, plain


def primitive(f: Callable[..., Any] | None = None, *, name: str | None = None) -> Any:
    """Make an operation of a function of plain arrays: a NumPy function, a Numba function, a launch of a ``cupy.RawKernel``.

    Positional arguments may be Tensors, keyword arguments are constants. Give it rules with :func:`defvjp` or :func:`defjvp`::

        @gg.primitive
        def cube(x):
            return x**3

        gg.defvjp(cube, lambda g, y, x: g * 3 * x**2)
    """
    if f is None:
        return functools.partial(primitive, name=name)
    op = _Primitive(name or f.__name__, f)
    functools.update_wrapper(op, f, updated=())
    return op


class _Primitive(Op):
    def __call__(self, *args: Any, **params: Any) -> Any:
        for key, value in params.items():
            if is_tracked(value):
                raise TypeError(f"{self.name}({key}=...) got a tracked Tensor, but keyword arguments are constants: pass it by position, or pass t.detach()")
        return super().__call__(*args, **params)


def defvjp(op: Any, *rules: Callable[..., Any] | None, argnums: Sequence[int] | None = None) -> None:
    """Say how cotangents go back: ``rules[i](g, y, *args, **params)`` gives that of argument i (or of ``argnums[i]``).

    ``g`` is the cotangent of ``y = op(*args, **params)``. Rules written with gpugrad functions and operators can be
    differentiated again. An argument of a rule whose name starts with an underscore is not kept on the tape (None is passed).
    Sums over broadcast axes and casts happen by themselves.
    """
    op = _op(op)
    op.define(_spread([rule and one_by_one(_fresh(rule)) for rule in rules], argnums), op.jvp if op.states_jvp else None)


def defjvp(op: Any, *rules: Callable[..., Any] | None, argnums: Sequence[int] | None = None) -> None:
    """Say how tangents go forward: ``rules[i](t, y, *args, **params)`` is what the tangent of argument i adds to that of y."""
    op = _op(op)
    op.define(op.vjp if op.states_vjp else None, _spread([rule and one_by_one(rule) for rule in rules], argnums))


def defbatch(op: Any, rule: Callable[..., Any]) -> None:
    """Say how many examples are computed at once (see :func:`gpugrad.vmap`); without this they are computed in turn.

    ``rule(size, batched, *args, **params)`` gives the output with an axis of length ``size`` in front, along which the examples lie; those of ``args`` that are
    ``batched`` have it too. Rules written with gpugrad functions (``op`` itself is one) can be differentiated.

    Raises:
        ValueError: at the call, of an output whose first axis has not that length.
    """
    op = _op(op)

    def batch(op: Op, size: int, batched: Sequence[bool], args: Sequence[Any], params: dict[str, Any]) -> Any:
        y = rule(size, tuple(batched), *args, **params)
        for o in y if type(y) in (tuple, list) else (y,):
            if type(o) is not Shared and shape_of(o)[:1] != (size,):
                raise ValueError(
                    f"the batching rule of {op.name} returned an array of shape {shape_of(o)}, expected an axis of length {size} in front, for the examples"
                )
        return y

    op.batch = batch


def _fresh(rule: Callable[..., Any]) -> Callable[..., Any]:
    """``rule`` with results of its own: it may return an array that its writer holds, and the walk adds into arrays."""

    @functools.wraps(rule)
    def wrapped(*args: Any, **params: Any) -> Any:
        d = rule(_separate(args[0]), *args[1:], **params)
        return d.copy() if is_array(d) else d

    return wrapped


def _separate(g: Any) -> Any:
    """A cotangent that its receiver may write into: a view may be of an array that the tape keeps, or of one that all backward passes share."""
    return g.copy() if is_array(g) and (g.base is not None or (type(g) is ndarray and not g.flags.writeable)) else g


def _op(op: Any) -> Op:
    op = getattr(op, "op", op)
    if not isinstance(op, Op):
        raise TypeError(f"expected an operation made by gg.primitive, got {type(op).__name__}")
    return op


def _spread(rules: Sequence[Any], argnums: Sequence[int] | None) -> list[Any]:
    if argnums is None:
        return list(rules)
    if len(argnums) != len(rules):
        raise ValueError(f"got {len(rules)} rules for {len(argnums)} argnums")
    spread: list[Any] = [None] * (max(argnums) + 1)
    for i, rule in zip(argnums, rules):
        spread[i] = rule
    return spread


class Context:
    """What ``forward`` leaves for ``backward``. Any attribute may be set on it; Tensors go through :meth:`save_for_backward`."""

    needs_input_grad: tuple[bool, ...] = ()
    materialize_grads = True
    saved_tensors: tuple[Tensor, ...] = ()
    non_differentiable: tuple[Tensor, ...] = ()

    def save_for_backward(self, *tensors: Any) -> None:
        """Keep inputs or outputs for ``backward``, or intermediates; a second derivative through an intermediate raises."""
        self.saved_tensors = tensors

    def set_materialize_grads(self, value: bool) -> None:
        """With False, ``backward`` is given None for outputs that nothing was asked of, instead of zeros."""
        self.materialize_grads = value

    def mark_non_differentiable(self, *tensors: Any) -> None:
        """Outputs without derivative; integer outputs need no mark."""
        self.non_differentiable = tensors


class Function:
    """A custom operation in PyTorch's form: static methods ``forward(ctx, *args)`` and ``backward(ctx, *grads)``; call it by ``apply``.

    ``backward`` returns a gradient (or None) per argument of ``forward``. Where it is written with gpugrad functions it can be
    differentiated again, and forward mode is derived from it (gradients of complex numbers are PyTorch's); a static method ``jvp(ctx, *tangents)`` takes its place where stated.

    Inside :func:`gpugrad.vmap` its methods run for one example after the other, so they may leave gpugrad there too. What shall be computed for all examples
    at once is a :func:`gpugrad.primitive` with :func:`gpugrad.defbatch`.
    """

    @staticmethod
    def forward(ctx: Any, *args: Any) -> Any:
        """The value, given Tensors for the arguments that are Tensors; recording is off."""
        raise NotImplementedError("a Function needs a static method forward(ctx, *args)")

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        """The gradients of the arguments, given those of the outputs."""
        raise NotImplementedError("a Function needs a static method backward(ctx, *grads) to be differentiated")

    @classmethod
    def apply(cls, *args: Any) -> Any:
        """Run ``forward`` and record ``backward``."""
        return each(cls._apply, *args)

    @classmethod
    def _apply(cls, *args: Any) -> Any:
        call = _Call(cls, args)
        vjp = one_by_one(call.pull) if cls.backward is not Function.backward else None
        jvp = one_by_one(call.push) if hasattr(cls, "jvp") else None
        out = Op(cls.__name__, call.run, vjp, jvp)(*args)
        if not call.constants:
            return out
        outputs = out if isinstance(out, tuple) else (out,)
        cut = tuple(o.detach() if i in call.constants and type(o) is Tensor else o for i, o in enumerate(outputs))
        return cut if isinstance(out, tuple) else cut[0]


class _Call:
    """One application of a Function: runs its methods on Tensors, and gives the tape what those return."""

    def __init__(self, cls: type[Function], args: Sequence[Any]) -> None:
        self.cls = cls
        self.boxes = [type(a) is Tensor for a in args]
        self.ctx = Context()
        self.ctx.needs_input_grad = tuple(map(is_tracked, args))
        self.saved: dict[str, Any] = {}
        self.constants: set[int] = set()

    def run(self, *vals: Any) -> Any:
        inputs = [Tensor(v) if boxed else v for v, boxed in zip(vals, self.boxes, strict=True)]
        out = self.cls.forward(self.ctx, *inputs)
        outputs = out if isinstance(out, tuple) else (out,)
        self.constants = {i for i, o in enumerate(outputs) if any(o is t for t in self.ctx.non_differentiable)}
        self.ctx.non_differentiable = ()
        places = {id(t): (group, i) for group, ts in ((0, inputs), (1, outputs)) for i, t in enumerate(ts) if type(t) is Tensor}
        self.saved = {name: tree.map_leaves(lambda t: _Saved(t, places.get(id(t))), kept) for name, kept in vars(self.ctx).items()}
        self.ctx = Context()  # lets go of the inputs
        return tuple(map(plain, outputs)) if isinstance(out, tuple) else plain(out)

    def context(self, y: Any, vals: Sequence[Any], cotangents: Sequence[Any] = ()) -> Context:
        """The ctx as ``backward`` is to see it: inputs and outputs are the tape's, tracked where another derivative is wanted."""
        groups = vals, y if isinstance(y, tuple) else (y,)
        tracked = [v for v in (*groups[0], *groups[1], *cotangents) if is_tracked(v)]
        ctx = Context()
        for name, kept in self.saved.items():
            setattr(ctx, name, tree.map_leaves(lambda s: s.seen_from(groups, tracked), kept))
        return ctx

    def pull(self, needs: Sequence[bool], g: Any, y: Any, *vals: Any) -> list[Any]:
        ctx = self.context(y, vals, g if isinstance(y, tuple) else [g])
        ctx.needs_input_grad = tuple(needs)
        gs = list(g) if isinstance(y, tuple) else [g]
        if ctx.materialize_grads:
            gs = [zeros_like(o) if h is None else h for h, o in zip(gs, y if isinstance(y, tuple) else (y,), strict=True)]
        grads = self.cls.backward(ctx, *[None if h is None else _boxed(_as_in_pytorch(_separate(h))) for h in gs])
        grads = grads if isinstance(grads, tuple) else (grads,)
        if len(grads) != len(vals):
            raise RuntimeError(f"function {self.cls.__name__}Backward returned an incorrect number of gradients (expected {len(vals)}, got {len(grads)})")
        return [None if d is None or not need else _as_in_pytorch(_unboxed(d, copy=True)) for d, need in zip(grads, needs, strict=True)]

    def push(self, tangents: Sequence[Any], y: Any, *vals: Any) -> Any:
        out = self.cls.jvp(self.context(y, vals), *[None if t is None else _boxed(t) for t in tangents])  # type: ignore[attr-defined]
        return [_unboxed(t) for t in out] if isinstance(y, tuple) else _unboxed(out)


class _Saved:
    """What ``forward`` left on ctx: an input or output by its place, or anything else as it is."""

    def __init__(self, thing: Any, place: tuple[int, int] | None) -> None:
        self.thing, self.place = (thing if place is None else None), place

    def seen_from(self, groups: Sequence[Sequence[Any]], tracked: Sequence[Any]) -> Any:
        if self.place is not None:
            return _boxed(groups[self.place[0]][self.place[1]])
        if tracked and type(self.thing) is Tensor and is_inexact(self.thing.dtype):
            return _intermediate(self.thing, *tracked)  # its own dependence on the inputs is unknown to the tape
        return self.thing


def _boxed(x: Any) -> Any:
    return box(x) if hasattr(x, "dtype") else x


def _unboxed(x: Any, copy: bool = False) -> Any:
    x = x.value if type(x) is Tensor and x.node is None else x
    return x.copy() if copy and is_array(x) else x


def _as_in_pytorch(g: Any) -> Any:
    """Complex gradients there are the conjugates of the tape's cotangents."""
    return conj(g) if dtype_of(g).kind == "c" else g


def once_differentiable(backward: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate a ``backward`` that leaves gpugrad (calls NumPy, a raw kernel): a second derivative through it raises."""

    @functools.wraps(backward)
    def wrapped(ctx: Any, *grads: Any) -> Any:
        tracked = [t for t in (*grads, *ctx.saved_tensors) if is_tracked(t)]
        bare = copy.copy(ctx)
        bare.saved_tensors = tuple(t.detach() if type(t) is Tensor else t for t in ctx.saved_tensors)
        out = backward(bare, *[g.detach() if type(g) is Tensor else g for g in grads])
        if not tracked:
            return out
        outs = out if isinstance(out, tuple) else (out,)
        return tuple(None if o is None else _once(o, *tracked) for o in outs)

    return wrapped


def _end(name: str, message: str) -> Op:
    """An identity whose derivative with respect to everything tracked raises."""

    def refuse(*_: Any, **__: Any) -> Any:
        raise RuntimeError(message)

    def batch(op: Op, _size: int, batched: Sequence[bool], args: Sequence[Any], _params: Any) -> Any:
        return op(*args) if batched[0] else Shared(op(*args))

    return Op(name, lambda x, *tracked: x, refuse, refuse, batch=batch)


_once = _end("once differentiable", "trying to differentiate twice a function that was marked with @once_differentiable")
_intermediate = _end(
    "saved intermediate",
    "a second derivative would pass through an intermediate that a Function's forward saved, and be wrong without a word: save inputs or outputs "
    "and recompute it in backward, return it as an output, or, if it does not depend on the inputs, keep its plain array (t.data) on ctx",
)
