"""The tape: Tensor, Op, levels, the nodes of both modes, and the backward walk.  It knows no operation.

**Levels.** Every tracked Tensor belongs to a level. Level 0 is the always-on tape of leaves that require grad;
each function transform opens a level of its own and boxes its inputs there. An Op looks only at its arguments
of the highest level, unboxes those, calls itself one level down until it meets plain arrays, and boxes the
result again. So transforms nest in any order and in both modes, and one level's tangents never meet another's.

Levels of transforms are odd and drawn from one counter, so that a Tensor that outlives its transform is never
mistaken for one of a later transform. A leaf made while a transform is open lies *above* it, on the even level
that follows: its gradients (``autograd.grad(..., create_graph=True)``) then stay differentiable by the transform.

**Nodes.** A Tensor is a value and a node. ``Leaf``, ``Reverse`` and ``Pick`` make up the graph of reverse mode;
``Forward`` carries a tangent. A node's ``order`` falls with its creation, so the walk needs no sorting pass: a
heap yields every node after all its consumers.
"""

from __future__ import annotations

import inspect
import itertools
import math
import threading
from collections.abc import Callable, Iterable, Sequence
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
from numpy import ndarray

from gpugrad import backend

if TYPE_CHECKING:
    from gpugrad.methods import Methods
else:
    Methods = object  # attached by gpugrad.methods, so that this file knows no operation

Rule: TypeAlias = Callable[..., Any]
Value: TypeAlias = Any  # a plain array, or a Tensor of a lower level

UNTRACKED = -1
NO_PARAMS: dict[str, Any] = {}
NUMBERS = (float, int)
next_order = itertools.count(0, -1).__next__
_next_level = itertools.count(1, 2).__next__


class _State(threading.local):
    """What each thread holds of its own."""

    leaf_level = 0  # where a new leaf belongs: just above the innermost open transform
    floor = UNTRACKED  # levels up to here do not record (no_grad)


state = _State()
observer: Any = None  # sees every computation, node and pulled-back cotangent (anomaly mode, profilers)
caster: Any = None  # gives an operation its arguments in another precision, while a thread autocasts (gpugrad.amp)


class Tensor(Methods):
    """An array that may be tracked: ``value`` is one level down (a plain array at the bottom), ``node`` its place
    in the graph, or None. Make one with :func:`gpugrad.tensor`; the methods are those of an ndarray and of a PyTorch tensor.
    """

    __slots__ = ("value", "node")

    def __init__(self, value: Value, node: Any = None) -> None:
        self.value = value
        self.node = node

    def __init_subclass__(cls) -> None:
        raise TypeError("Tensor cannot be subclassed: operations recognise it by its exact type. Hold a Tensor in a class of yours instead.")


# ------------------------------------------------------------------------------------------------- nodes


# record: reverse mode that keeps what the jvp rules read as well (linearize)
REVERSE, RECORD, FORWARD, BATCH = "reverse", "record", "forward", "batch"


class Leaf:
    """Where a derivative ends: an input of a transform, or a Tensor that requires grad. ``grad`` is what backward accumulates."""

    __slots__ = ("level", "order", "shape", "dtype", "grad", "notes")
    mode = REVERSE
    parents: Sequence[Any] = ()

    def __init__(self, level: int, value: Value) -> None:
        self.level = level
        self.order = next_order()
        self.shape = value.shape
        self.dtype = value.dtype
        self.grad: Tensor | None = None
        self.notes: dict[str, Any] | None = None


class Reverse:
    """One recorded call: what its rule reads of it, and whose cotangents it feeds. ``vals`` is None once freed.

    ``notes`` is None but for the few nodes with hooks, or made in anomaly mode.
    """

    __slots__ = ("level", "order", "shape", "dtype", "op", "vals", "y", "params", "parents", "notes")
    mode = REVERSE

    def __init__(self, op: Op, vals: Any, y: Value, params: dict[str, Any], parents: Sequence[Any], level: int, shape: Any, dtype: Any) -> None:
        self.level = level
        self.order = next_order()
        self.shape = shape
        self.dtype = dtype
        self.op = op
        self.vals = vals
        self.y = y
        self.params = params
        self.parents = parents
        self.notes: dict[str, Any] | None = None


class Pick:
    """Output ``index`` of a call with several outputs; ``parents[0]`` is the call's node."""

    __slots__ = ("level", "order", "shape", "dtype", "index", "parents", "notes")
    mode = REVERSE

    def __init__(self, call: Reverse, index: int, value: Value) -> None:
        self.level = call.level
        self.order = next_order()
        self.shape = value.shape
        self.dtype = value.dtype
        self.index = index
        self.parents = (call,)
        self.notes: dict[str, Any] | None = None


class RecordedLeaf(Leaf):
    __slots__ = ()
    mode = RECORD


class Recorded(Reverse):
    __slots__ = ()
    mode = RECORD


class RecordedPick(Pick):
    __slots__ = ()
    mode = RECORD


class Forward:
    """A tangent, in forward mode."""

    __slots__ = ("level", "tangent")
    mode = FORWARD

    def __init__(self, level: int, tangent: Value) -> None:
        self.level = level
        self.tangent = tangent


class Batch:
    """Says that the first axis of the value runs over ``size`` examples, which the Tensor stands for one of (vmap)."""

    __slots__ = ("level", "size")
    mode = BATCH

    def __init__(self, level: int, size: int) -> None:
        self.level = level
        self.size = size


class Shared(NamedTuple):
    """An output of a batching rule that is the same for all examples, and has no axis for them."""

    value: Value


# ------------------------------------------------------------------------------------------------- operations


class Op:
    """A differentiable operation.

    ``f(*arrays, **params)`` maps plain arrays to an array, or to a tuple of arrays.
    ``vjp`` holds a rule per argument, ``rule(g, y, *args, **params)``, which maps the cotangent of the output to the
    argument's; or one *joint* rule, ``rule(needs, g, y, *args, **params)``, which returns a list (None where ``needs``
    is False). ``jvp`` likewise: ``rule(t, y, *args, **params)``, or joint ``rule(tangents, y, *args, **params)`` with
    None for a zero tangent. Of an Op with several outputs both rules are joint, ``g`` is a list with None where
    nothing flowed in, and the joint jvp returns a list. ``vjp=()`` says that there is nothing to differentiate.

    Rules call gpugrad functions only, so derivatives of any order come of themselves. Where one of the two is
    missing it is derived from the other (see ``_jvp_from_vjp`` and ``_vjp_from_jvp``).
    A rule's argument whose name starts with an underscore is not kept for it: write ``lambda g, _y, _a, b: g * b``.
    The walk sums a cotangent over broadcast axes and casts it to the argument's dtype, so rules mention neither.

    ``batch(op, size, batched, args, params)`` gives the output of ``size`` examples at once, with an axis for them in front (of each of several outputs; a
    :class:`Shared` one has none). ``batched`` says which arguments have that axis too. An Op without one runs example by example. See :mod:`gpugrad.ops.batch`.

    ``dual(tangents, *args, **params)`` gives the output together with its tangent (two tuples of several), where that is quicker than one after the other.
    """

    def __init__(
        self,
        name: str,
        f: Callable[..., Any],
        vjp: Sequence[Rule | None] | Rule | None = None,
        jvp: Sequence[Rule | None] | Rule | None = None,
        *,
        samples: Iterable[Any] | None = None,
        batch: Rule | None = None,
        dual: Rule | None = None,
        doc: str | None = None,
    ) -> None:
        self.name = self.__name__ = name
        self.f = f
        self.differentiable = not (isinstance(vjp, (list, tuple)) and not vjp)
        self.batch = batch
        self.dual = dual
        self.samples = samples
        self.__doc__ = doc or f.__doc__
        self.define(vjp, jvp)

    def define(self, vjp: Any = None, jvp: Any = None) -> None:
        """Set the rules; either of them may be left out."""
        vjp, jvp = _one_per_argument(self, "vjp", vjp), _one_per_argument(self, "jvp", jvp)
        self.states_vjp, self.states_jvp = vjp is not None, jvp is not None
        self.vjp: Any = vjp if vjp is not None or jvp is None else _vjp_from_jvp(self)
        self.jvp: Any = jvp if jvp is not None or vjp is None else _jvp_from_vjp(self)
        self._unread_if: dict[tuple[bool, ...], tuple[tuple[int, ...], bool]] = {}

    def __repr__(self) -> str:
        return f"<op {self.name}>"

    def __call__(self, *args: Any, **params: Any) -> Any:
        if caster is not None:
            args = caster.cast(self, args)
        for a in args:
            if type(a) is Tensor:
                break
        else:
            return self.compute(args, params)
        level = UNTRACKED
        kin: Any = None
        vals, parents = [], []
        inner = False
        for a in args:
            node = None
            if type(a) is Tensor:
                node = a.node
                if node is not None and node.level != level:
                    if level != UNTRACKED:
                        return self._call_mixed(args, params)
                    level = node.level
                    kin = node
                a = a.value
                if type(a) is Tensor:
                    inner = True
            vals.append(a)
            parents.append(node)
        if kin is not None and kin.mode is BATCH:
            return self._call_batched(vals, parents, params, kin)
        if level <= state.floor or not self.differentiable:
            if inner and (level != UNTRACKED or not self.differentiable):
                vals = [constant(v) for v in vals]
            return box(self(*vals, **params))
        if self.dual is not None and kin.mode is FORWARD:
            y, t = self.dual([p and p.tangent for p in parents], *vals, **params)
            return tuple(map(_dual_number, y, t, [level] * len(y))) if type(y) is tuple else _dual_number(y, t, level)
        y = self(*vals, **params) if inner else self.compute(vals, params)
        if type(y) is not ndarray:
            if type(y) is tuple:
                return self._record_outputs(tuple(map(as_value, y)), vals, parents, params, level, kin)
            y = as_value(y)
        mode = kin.mode
        if mode is FORWARD:
            return Tensor(y, Forward(level, expand_to(self.push([p and p.tangent for p in parents], y, vals, params), y)))
        if mode is RECORD:
            call: Reverse = Recorded(self, vals, y, params, parents, level, y.shape, y.dtype)
        else:
            call = self._reverse(vals, y, params, parents, level, y.shape, y.dtype)
        if (watch := observer) is not None:
            watch.recorded(call)
        return Tensor(y, call)

    def compute(self, args: Sequence[Any], params: dict[str, Any]) -> Any:
        """The value, of plain arrays: where everything the library computes comes past."""
        if len(args) == 2 and (type(args[0]) in NUMBERS or type(args[1]) in NUMBERS):
            args = _narrowed(*args)
        watch = observer
        return self.evaluate(args, params) if watch is None else watch.compute(self, args, params)

    def evaluate(self, args: Sequence[Any], params: dict[str, Any]) -> Any:
        """The value, seen by nobody."""
        try:
            return self.f(*args, **params)
        except (TypeError, ValueError, backend.DeviceError) as error:  # what a kernel says of devices is about arrays of its own: here are the user's
            raise backend.mixed_devices(args) or error from None

    def _call_mixed(self, args: Sequence[Any], params: dict[str, Any]) -> Any:
        """Arguments of several levels: those below the highest are constants to it, and go one level down as they are."""
        top = max((a.node for a in args if is_tracked(a)), key=lambda node: node.level)
        if top.level <= state.floor and top.mode is not BATCH:
            return box(self(*map(constant, args), **params))
        return self(*[Tensor(a) if is_tracked(a) and a.node.level != top.level else a for a in args], **params)

    def _call_batched(self, vals: list[Value], parents: list[Any], params: dict[str, Any], kin: Batch) -> Any:
        """All examples at once, one level down. Nothing is recorded at this level, so ``no_grad`` does not matter to it."""
        y = (self.batch or batch_in_turn)(self, kin.size, [p is not None for p in parents], vals, params)
        return tuple([in_batch(o, kin) for o in y]) if type(y) in (tuple, list) else in_batch(y, kin)

    def _record_outputs(self, ys: tuple[Value, ...], vals: list[Value], parents: list[Any], params: dict[str, Any], level: int, kin: Any) -> tuple[Tensor, ...]:
        if kin.mode is FORWARD:
            tangents = self.push([p and p.tangent for p in parents], ys, vals, params)
            return tuple(map(_dual_number, ys, tangents, [level] * len(ys)))
        if kin.mode is RECORD:
            call: Reverse = Recorded(self, vals, ys, params, parents, level, None, None)
            pick: type[Pick] = RecordedPick
        else:
            call, pick = self._reverse(vals, ys, params, parents, level, None, None), Pick
        if (watch := observer) is not None:
            watch.recorded(call)
        return tuple(Tensor(y, pick(call, i, y) if is_inexact(y.dtype) else None) for i, y in enumerate(ys))

    def _reverse(self, vals: list[Value], y: Value, params: dict[str, Any], parents: Sequence[Any], level: int, shape: Any, dtype: Any) -> Reverse:
        """A node that keeps what the rules of the tracked arguments read."""
        unread, keeps_y = self._unread(parents)
        for i in unread:
            vals[i] = None
        if not keeps_y:
            y = (None,) * len(y) if type(y) is tuple else None
        return Reverse(self, vals, y, params, parents, level, shape, dtype)

    def _unread(self, parents: Sequence[Any]) -> tuple[tuple[int, ...], bool]:
        """Which values no rule of a tracked argument reads, and whether one reads y."""
        tracked = tuple([p is not None for p in parents])
        found = self._unread_if.get(tracked)
        if found is None:
            found = _unread_values(self.vjp, tracked)
            if len(tracked) < 8:  # of operations with many arguments there would be no end of patterns
                self._unread_if[tracked] = found
        return found

    def _rule(self, kind: str, i: int) -> Rule:
        rules = getattr(self, kind)
        if i >= len(rules):
            raise no_rule(self, kind, i)
        return rules[i]

    def push(self, tangents: Sequence[Value | None], y: Value, vals: Sequence[Value], params: dict[str, Any]) -> Any:
        """The output's tangent from those of the arguments (None is a zero tangent; at least one is not)."""
        if self.jvp is None:
            raise no_rule(self, "jvp")
        if callable(self.jvp):
            return self.jvp(tangents, y, *vals, **params)
        total = None
        for i, t in enumerate(tangents):
            if t is not None:
                part = self._rule("jvp", i)(t, y, *vals, **params)
                total = part if total is None else add(total, part)
        return total

    def pull(self, node: Reverse, wanted: Sequence[Any], g: Value, y: Value, vals: Sequence[Value]) -> list[Value | None]:
        """The cotangents of the arguments whose entry in ``wanted`` is not None; the walk does it itself where there is a rule per argument."""
        if type(self.vjp) is tuple:
            return [None if p is None else self._rule("vjp", i)(g, y, *vals, **node.params) for i, p in enumerate(wanted)]
        if self.vjp is None:
            raise no_rule(self, "vjp")
        return self.vjp([p is not None for p in wanted], g, y, *vals, **node.params)


def _dual_number(y: Value, t: Value | None, level: int) -> Tensor:
    """y + t epsilon."""
    return Tensor(y, None if t is None else Forward(level, expand_to(t, y)))


def _one_per_argument(op: Op, kind: str, rules: Any) -> Any:
    if not isinstance(rules, (list, tuple)):
        return rules

    def missing(i: int) -> Rule:
        def rule(*_: Any, **__: Any) -> Any:
            raise no_rule(op, kind, i)

        return rule

    return tuple(missing(i) if rule is None else rule for i, rule in enumerate(rules))


def _unread_values(vjp: Any, tracked: tuple[bool, ...]) -> tuple[tuple[int, ...], bool]:
    """Read off the underscores in the rules' argument names (see Op)."""
    joint = callable(vjp)
    rules = [vjp] if joint else [r for r, t in zip(vjp or (), tracked) if t and r is not None]
    read, keeps_y = set(), False
    for rule in rules:
        code = getattr(inspect.unwrap(rule), "__code__", None)
        if code is None:
            return (), True
        y, *names = code.co_varnames[2 if joint else 1 : code.co_argcount] or ("y",)
        keeps_y = keeps_y or not y.startswith("_")
        if code.co_flags & inspect.CO_VARARGS:
            names += [code.co_varnames[code.co_argcount + code.co_kwonlyargcount]] * (len(tracked) - len(names))
        read |= {i for i, name in enumerate(names) if not name.startswith("_")}
    return tuple(i for i in range(len(tracked)) if i not in read), keeps_y


# The commonest calls by far have one or two arguments, no parameters, and all that is tracked on one level of reverse
# mode over plain arrays. These two do what Op.__call__ does for such a call, in a third of the time, and leave it the rest.


def unary(op: Op) -> Callable[[Any], Any]:
    """``op`` as a function of one array."""
    f = op.f
    keeps_v, keeps_y = _kept(op, (True,))

    def call(x: Any) -> Any:
        if type(x) is Tensor:
            v, p = x.value, x.node
            if p is not None and p.mode is REVERSE and type(v) is not Tensor and p.level > state.floor and observer is None and caster is None:
                try:
                    y = f(v)
                except (TypeError, ValueError):
                    return op(x)  # which says what is wrong
                if type(y) is not ndarray:
                    y = as_value(y)
                return Tensor(y, Reverse(op, (v if keeps_v else None,), y if keeps_y else None, NO_PARAMS, (p,), p.level, y.shape, y.dtype))
        return op(x)

    return _as_function(call, op)


def binary(op: Op) -> Callable[[Any, Any], Any]:
    """``op`` as a function of two arrays."""
    f = op.f
    of_left, of_right, of_both = (_kept(op, tracked) for tracked in ((True, None), (None, True), (True, True)))

    def call(a: Any, b: Any) -> Any:
        p = q = None
        v, w = a, b
        if type(a) is Tensor:
            v, p = a.value, a.node
        if type(b) is Tensor:
            w, q = b.value, b.node
        kin = p or q
        if kin is None:
            return op.compute((a, b), NO_PARAMS) if v is a and w is b and caster is None else op(a, b)
        if (
            kin.mode is not REVERSE
            or kin.level <= state.floor
            or (type(v) is not ndarray and _is_special(v, w))
            or (type(w) is not ndarray and _is_special(w, v))
            or observer is not None
            or caster is not None
            or (q is not None and q.level != kin.level)
        ):
            return op(a, b)
        try:
            y = f(v, w)
        except (TypeError, ValueError):
            return op(a, b)  # which says what is wrong
        if type(y) is not ndarray:
            y = as_value(y)
        keeps_v, keeps_w, keeps_y = of_left if q is None else of_right if p is None else of_both
        vals = (v if keeps_v else None, w if keeps_w else None)
        return Tensor(y, Reverse(op, vals, y if keeps_y else None, NO_PARAMS, (p, q), kin.level, y.shape, y.dtype))

    return _as_function(call, op)


def _is_special(x: Any, other: Any) -> bool:
    """Whether this is a Tensor of a lower level, or a Python number beside bfloat16."""
    return type(x) is Tensor or (type(x) in NUMBERS and type(other) is ndarray and other.dtype.kind == "V")


def _narrowed(a: Any, b: Any) -> tuple[Any, Any]:
    """A Python number beside an array of bfloat16 in that precision; NumPy, to which the dtype is foreign, would compute in float32."""
    if type(a) is ndarray and a.dtype.kind == "V" and is_inexact(a.dtype):
        return a, a.dtype.type(b)
    if type(b) is ndarray and b.dtype.kind == "V" and is_inexact(b.dtype):
        return b.dtype.type(a), b
    return a, b


def _kept(op: Op, tracked: tuple[Any, ...]) -> tuple[bool, ...]:
    """Whether a node keeps each argument, and the result."""
    unread, keeps_y = op._unread(tracked)
    return (*(i not in unread for i in range(len(tracked))), keeps_y)


def _as_function(call: Any, op: Op) -> Any:
    call.__name__ = call.__qualname__ = op.name
    call.__doc__ = op.__doc__
    call.op = op
    return call


def no_rule(op: Op, kind: str, i: int | None = None) -> NotImplementedError:
    where = "" if i is None else f" for argument {i}"
    return NotImplementedError(
        f"{op.name} has no {kind} rule{where}. Define it with gg.def{kind}({op.name}, ...), or cut the derivative with gg.stop_gradient."
    )


def _jvp_from_vjp(op: Op) -> Rule:
    """The pullback is linear in the cotangent, so transposing it once more pushes tangents forward."""

    def jvp(tangents: Sequence[Value | None], y: Any, *vals: Value, **params: Any) -> Any:
        several = type(y) is tuple
        ys = y if several else (y,)
        with new_level() as level:
            leaves = [Leaf(level, o) for o in ys]
            gs = [Tensor(zeros_like(o), leaf) for o, leaf in zip(ys, leaves, strict=True)]
            node = Reverse(op, list(vals), y, params, [], level, None, None)
            pulled = op.pull(node, tangents, gs if several else gs[0], y, list(vals))
        seeds = [(node, expand_to(t, node)) for t, p in zip(tangents, pulled, strict=True) if (node := node_at(level, p)) is not None]
        grads = pull_back(seeds)
        out = [grads.get(leaf) for leaf in leaves]
        out = [zeros_like(o) if t is None else t for o, t in zip(ys, out, strict=True)]
        return out if several else out[0]

    return jvp


def _vjp_from_jvp(op: Op) -> Rule:
    """The tangent map is linear in the tangents, so its transpose pulls cotangents back."""

    def vjp(needs: Sequence[bool], g: Any, y: Any, *vals: Value, **params: Any) -> list[Value | None]:
        with new_level() as level:
            leaves = [Leaf(level, v) if need else None for need, v in zip(needs, vals, strict=True)]
            tangents = [leaf and Tensor(zeros_like(v), leaf) for leaf, v in zip(leaves, vals, strict=True)]
            out = op.push(tangents, y, vals, params)
        pairs = zip(out, g, strict=True) if type(y) is tuple else [(out, g)]
        grads = pull_back([(node, reduce_to(h, node)) for o, h in pairs if h is not None and (node := node_at(level, o)) is not None])
        return [None if leaf is None else grads.get(leaf) for leaf in leaves]

    return vjp


# ------------------------------------------------------------------------------------------------- the algebra of the walk
# Cotangents are added, and fitted to the shape and dtype of what they belong to; those are operations, and ops/ fills them in.

add: Callable[[Value, Value], Value]
reduce_to: Callable[[Value, Any], Value]  # sum a cotangent over broadcast axes, cast it
expand_to: Callable[[Value, Any], Value]  # broadcast a tangent, cast it
zeros_like: Callable[[Value], Value]
conj: Callable[[Value], Value]
batch_in_turn: Rule  # the batching rule of operations that have none


def install(**functions: Callable[..., Any]) -> None:
    globals().update(functions)


# ------------------------------------------------------------------------------------------------- the walk


def pull_back(
    seeds: Iterable[tuple[Any, Value]],
    *,
    create_graph: bool = False,
    free: bool = False,
    inputs: Iterable[Any] | None = None,
) -> dict[Any, Value]:
    """Cotangents of the leaves, or of the nodes ``inputs``, given (node, cotangent) pairs of outputs, all of one level.

    With ``create_graph`` the rules see boxed values, and so record themselves on the same level. With ``free`` each
    node lets go of what it kept as soon as its rule has run.
    """
    with np.errstate(all="ignore"):  # a warning from here could not name the user's line; anomaly mode does
        if caster is None:
            return _walk(seeds, create_graph, free, inputs)
        with caster.paused():  # backward computes in the precision of forward
            return _walk(seeds, create_graph, free, inputs)


def _walk(seeds: Iterable[tuple[Any, Value]], create_graph: bool, free: bool, inputs: Iterable[Any] | None) -> dict[Any, Value]:
    grads: dict[Any, Value] = {}
    owned: set[Any] = set()  # nodes whose sum so far is an array of ours, free to add into
    heap: list[tuple[int, Any]] = []

    def accumulate(node: Any, g: Value) -> None:
        have = grads[node]
        if node in owned and type(g) is type(have) is ndarray:
            np.add(have, g, out=have)
            return
        grads[node] = total = add(have, g)
        if type(total) is ndarray:
            owned.add(node)

    for node, g in seeds:
        if node in grads:
            accumulate(node, g)
        else:
            grads[node] = g
            heappush(heap, (node.order, node))
    targets = None if inputs is None else set(inputs)
    wanted = None if targets is None else _ancestors_of_interest([n for _, n in heap], targets)
    found: dict[Any, Value] = {}
    following = following_g = None  # the only parent, where nothing else waits: a chain does without the heap
    while heap or following is not None:
        if following is not None:
            node, g, following = following, following_g, None
        else:
            node = heappop(heap)[1]
            g = grads.pop(node)
        if node.notes is not None:
            g = _run_hooks(node, g, create_graph)
        if targets is not None:
            if node in targets:
                found[node] = g
            if node not in wanted:  # type: ignore[operator]
                continue
        kind = type(node)
        if kind is not Reverse and kind is not Recorded:
            if isinstance(node, Leaf):
                found[node] = g
            else:
                _gather(node, g, grads, heap)
            continue
        op, parents, vals, y, params = node.op, node.parents, node.vals, node.y, node.params
        if vals is None:
            raise _freed()
        if last_write < node.order:
            check_versions(node)
        if create_graph:
            vals = [v if p is None else Tensor(v, p) for v, p in zip(vals, parents)]
            y = tuple(v if v is None else Tensor(v, Pick(node, i, v)) for i, v in enumerate(y)) if type(y) is tuple else Tensor(y, node)
        if free:
            node.vals = node.y = None
            node.parents = ()
        if wanted is not None:
            parents = [p if p in wanted or p in targets else None for p in parents]  # type: ignore[operator]
        is_chain = not heap and (len(parents) == 1 or (len(parents) == 2 and None in parents))
        rules, pulled = op.vjp, None
        if type(rules) is not tuple or observer is not None:
            pulled = (observer or op).pull(node, parents, g, y, vals)
        i = 0
        for p in parents:
            if p is not None:
                if pulled is not None:
                    d = pulled[i]
                elif i < len(rules):
                    d = rules[i](g, y, *vals, **params)
                else:
                    raise no_rule(op, "vjp", i)
                if d is not None:
                    if d.shape != p.shape or d.dtype is not p.dtype:
                        d = reduce_to(d, p)
                    if is_chain:
                        following, following_g = p, d
                    elif p in grads:
                        accumulate(p, d)
                    else:
                        grads[p] = d
                        heappush(heap, (p.order, p))
            i += 1
    return found


def _freed() -> RuntimeError:
    return RuntimeError(
        "Trying to backward through the graph a second time (or directly access saved tensors after they have already been freed). "
        "Specify retain_graph=True if you need to backward through the graph a second time."
    )


def _gather(pick: Pick, g: Value, grads: dict[Any, Any], heap: list[tuple[int, Any]]) -> None:
    """Enter the cotangent of one output into the list that the call's joint rule is given."""
    call = pick.parents[0]
    if call.vals is None:
        raise _freed()
    if call not in grads:
        grads[call] = [None] * len(call.y)
        heappush(heap, (call.order, call))
    slots = grads[call]
    slots[pick.index] = g if slots[pick.index] is None else add(slots[pick.index], g)


def _ancestors_of_interest(outputs: list[Any], targets: set[Any]) -> set[Any]:
    """The nodes between outputs and targets. None older than the oldest target can be one."""
    oldest = max((n.order for n in targets), default=1)
    seen, stack, order = set(outputs), list(outputs), []
    while stack:
        node = stack.pop()
        order.append(node)
        if isinstance(node, Reverse) and node.vals is None and node not in targets:
            raise _freed()  # its parents are gone with it: who knows where it led
        for p in node.parents:
            if p is not None and p not in seen and p.order <= oldest:
                seen.add(p)
                stack.append(p)
    order.sort(key=lambda n: -n.order)  # oldest first
    wanted: set[Any] = set()
    for node in order:
        if any(p is not None and (p in targets or p in wanted) for p in node.parents):
            wanted.add(node)
    return wanted


def _run_hooks(node: Any, g: Value, create_graph: bool) -> Value:
    """Show the cotangent to the hooks as a Tensor of its own, in PyTorch's convention for complex numbers; what one returns takes its place."""
    to_shown = conj if node.dtype is not None and node.dtype.kind == "c" else _same
    for hook in tuple(node.notes.get("hooks", {}).values()):
        new = hook(box(_copied(to_shown(g))))
        if new is not None:
            g = to_shown(new if create_graph else _copied(below(node.level, new)))
    if "retained" in node.notes:
        have, new = node.notes["retained"], box(_copied(to_shown(g)))
        node.notes["retained"] = new if have is None else add(have, new)
    return g


def _same(g: Value) -> Value:
    return g


def _copied(g: Value) -> Value:
    """The walk may add into its arrays, and the user may write into those shown: they are not the same."""
    return g if type(g) is Tensor else g.copy()


def reached(outputs: Iterable[Any]) -> set[Any]:
    """The nodes that ``outputs`` (nodes; None is none) depend on, and they themselves."""
    found = {node for node in outputs if node is not None}
    stack = list(found)
    while stack:
        for p in stack.pop().parents:
            if p is not None and p not in found:
                found.add(p)
                stack.append(p)
    return found


def steps_to(outputs: Sequence[Any]) -> list[tuple[Any, list[Any]]]:
    """The recorded calls that lead to ``outputs`` (nodes; None is none) in the order of their making, and with each the nodes that no later one reads."""
    steps, read = [], set(outputs)
    for node in sorted(reached(outputs), key=lambda n: n.order):
        last = [p for p in dict.fromkeys(node.parents) if p is not None and p not in read]
        read.update(last)
        if not isinstance(node, Leaf):
            steps.append((node, last))
    return steps[::-1]


def push_forward(steps: list[tuple[Any, list[Any]]], tangents: dict[Any, Value]) -> dict[Any, Value]:
    """Tangents of the nodes to which ``steps`` (see :func:`steps_to`) lead from those of the leaves, along the recorded tape. What is read no more is let go of."""
    known = dict(tangents)
    for node, last in steps:
        ts = [None if p is None else known.get(p) for p in node.parents]
        for p in last:
            known.pop(p, None)
        if all(t is None for t in ts):
            continue
        if isinstance(node, Pick):
            t = ts[0][node.index]  # type: ignore[index]
            if t is not None:
                known[node] = expand_to(t, node)
            continue
        if last_write < node.order:
            check_versions(node)
        t = node.op.push(ts, node.y, node.vals, node.params)
        known[node] = t if type(node.y) is tuple else expand_to(t, node)
    return known


def footprint(outputs: Iterable[Any]) -> int:
    """The bytes of all values between leaves and ``outputs`` (nodes; None is none): about what a tangent or a cotangent of each of them takes."""
    return sum(math.prod(node.shape) * node.dtype.itemsize for node in reached(outputs) if node.shape is not None)


# ------------------------------------------------------------------------------------------------- levels


class new_level:  # noqa: N801
    """Open a level for a transform: ``with new_level() as level``. Restored however the block is left."""

    def __enter__(self) -> int:
        self.saved = state.leaf_level
        level = _next_level()
        state.leaf_level = level + 1
        return level

    def __exit__(self, *_: object) -> None:
        state.leaf_level = self.saved


def below(level: int, x: Any) -> Any:
    """What x is to the levels below ``level``: tracked there, if at all."""
    while type(x) is Tensor and (x.node is None or x.node.level >= level):
        x = x.value
    return x


def is_tracked(x: Any) -> bool:
    return type(x) is Tensor and x.node is not None


def node_at(level: int, x: Any) -> Any:
    """The node of x if x is tracked at ``level``, else None."""
    return x.node if type(x) is Tensor and x.node is not None and x.node.level == level else None


def plain(x: Any) -> Any:
    """The plain array at the bottom; of a batched Tensor that of all its examples, with an axis more in front."""
    while type(x) is Tensor:
        x = x.value
    return x


def constant(x: Any) -> Any:
    """``x`` without derivatives: the plain array at the bottom, in the batches that it is in."""
    return as_examples(plain(x), x)


def as_examples(array: Any, x: Any) -> Any:
    """A plain array, made of all examples of ``x``, in the batches that ``x`` is in."""
    if type(x) is not Tensor:
        return array
    value = as_examples(array, x.value)
    return Tensor(value, x.node) if type(x.node) is Batch else value


def in_batch(y: Value, node: Batch) -> Tensor:
    """An output of a batching rule as a Tensor of the batch."""
    shared = type(y) is Shared
    y = bare(y.value if shared else y)
    return box(y) if shared else Tensor(y, node)


class BatchedError(TypeError):
    """Somebody asked for the value of a Tensor that stands for many examples."""


def is_batched(x: Any) -> bool:
    """Whether x stands for one example of many (inside vmap)."""
    while type(x) is Tensor:
        if type(x.node) is Batch:
            return True
        x = x.value
    return False


def unbox(x: Any, level: int) -> Any:
    """What x is to the outside of ``level``: boxes of that level and of those above it are taken off."""
    while type(x) is Tensor and x.node is not None and x.node.level >= level:
        x = x.value
    return x


def bare(x: Any) -> Any:
    """x, and the array of an untracked Tensor."""
    while type(x) is Tensor and x.node is None:
        x = x.value
    return x


def as_value(y: Any) -> Any:
    """NumPy hands back scalars for 0-d results; a Tensor holds arrays."""
    return np.asarray(y) if isinstance(y, (np.generic, int, float, complex)) else y


def box(y: Any) -> Any:
    """An untracked Tensor; a tuple of them for several outputs."""
    if type(y) is tuple:
        return tuple(map(box, y))
    return y if type(y) is Tensor else Tensor(as_value(y))


def is_inexact(dtype: Any) -> bool:
    """Whether a derivative can exist: float or complex, ml_dtypes' bfloat16 included (its kind is V)."""
    return dtype.kind in "fc" or dtype.name == "bfloat16"


# ------------------------------------------------------------------------------------------------- arrays changed in place

mutated: dict[int, int] = {}  # identity of a buffer's owner -> the order at which the library last wrote into it
last_write = 1  # the latest of these, so that a walk over nodes made since, as in any training step, looks nothing up


def root(array: Any) -> Any:
    """The array that owns the memory."""
    while getattr(array, "base", None) is not None:
        array = array.base
    return array


def mark_mutated(*arrays: Any) -> None:
    """Say that the library has written into ``arrays``, so that a backward that saved one of them refuses."""
    global last_write
    order = next_order()
    for array in arrays:
        mutated[id(array if getattr(array, "base", None) is None else root(array))] = order
    last_write = min(last_write, order)


def check_versions(node: Reverse) -> None:
    saved = node.vals if type(node.y) is tuple else [*node.vals, node.y]
    for v in saved:
        array = plain(v)
        if array is not None and mutated.get(id(array if getattr(array, "base", None) is None else root(array)), 1) < node.order:
            raise RuntimeError(
                f"one of the variables needed for gradient computation has been modified by an inplace operation: an array of shape {array.shape} "
                f"that {node.op.name} saved was changed after it ran. Change a copy, or change it after backward."
            )
