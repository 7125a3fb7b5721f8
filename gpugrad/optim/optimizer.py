"""What all optimizers share: parameter groups, state, clipping by the norm of all gradients, and updates of many arrays at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import nullcontext
from typing import Any, ClassVar

import numpy as np
from numpy import ndarray

from gpugrad import backend, tape
from gpugrad.autograd import enable_grad
from gpugrad.kernels.lists import Arrays, clip_coefficient
from gpugrad.nn.module import clear_grad
from gpugrad.optim.norm import as_real, scaled, total_norm
from gpugrad.optim.state import fitted, is_stored, options_like, storable
from gpugrad.tape import Tensor

States = list[dict[str, Any]]

_NOT_NEGATIVE = {"lr", "eps", "weight_decay", "momentum", "lr_decay", "initial_accumulator_value", "momentum_decay"}
_FRACTIONS = {"alpha", "rho"}


class Optimizer:
    """The base of optimizers. A subclass gives the update of a list of arrays in :meth:`update`.

    Args:
        params: Tensors, or groups: dicts with Tensors under ``params`` and options of their own.
        defaults: the options of groups that do not state them.
        max_grad_norm: if the L2 norm of all gradients of all groups together is larger, the step is that of gradients scaled down to it; those in
            ``.grad`` stay as they are. nan and inf as in :func:`gpugrad.optim.clip_grad_norm_`. May be changed between steps, and is not part of the state.

    ``state[p]`` is what is remembered of parameter ``p``; the options in ``param_groups`` may be changed between steps. ``lr`` may be an array of no axes
    or a Tensor on the device of the parameters: what is written into it counts from the next step on, a recorded step included.

    Two kinds of weight decay, by the option ``decoupled_weight_decay`` of all optimizers of the library: ``g = g + weight_decay p``, the gradient of
    ``weight_decay |p|^2 / 2``, or ``p = p - lr weight_decay p`` outside of all averages (Loshchilov and Hutter, "Decoupled weight decay regularization", 2019).
    """

    differentiates = False  # whether step(closure) differentiates the loss that the closure returns, which calls no backward then
    clips = False  # whether update takes gradients as they are, and clips by self.clip
    numbers: ClassVar[dict[str, type]] = {"step": int}  # what is remembered of a parameter as one number, in device memory if capturable

    def __init__(self, params: Iterable[Any], defaults: dict[str, Any], *, max_grad_norm: float | None = None) -> None:
        if type(params) is Tensor:
            raise TypeError("params must be an iterable of Tensors or of groups, got a Tensor: write [t]")
        if max_grad_norm is not None and not max_grad_norm > 0:
            raise ValueError(f"invalid max_grad_norm: got {max_grad_norm}, expected a positive number, or None")
        if not isinstance(params, Iterable):
            raise TypeError(f"params must be an iterable of Tensors or of groups, got {type(params).__name__}: pass model.parameters()")
        self.defaults = defaults
        self.max_grad_norm = max_grad_norm
        self.clip: dict[str, Any] = {}  # the arguments norm and max_norm of the kernels, in a step that clips and after it
        self.state: dict[Tensor, dict[str, Any]] = {}
        self.param_groups: list[dict[str, Any]] = []
        params = list(params)
        if not params:
            raise ValueError("optimizer got an empty parameter list")
        for group in params if isinstance(params[0], dict) else [{"params": params}]:
            self.add_param_group(group)

    def add_param_group(self, group: dict[str, Any]) -> None:
        """Optimize more parameters, with options of their own.

        Raises:
            TypeError: not Tensors.
            ValueError: not leaves that require grad, or in a group already; an option that there is not, or a value that makes no sense.
        """
        if "params" not in group:
            raise ValueError(f"a parameter group has its Tensors under 'params', got one with {', '.join(map(repr, group)) or 'nothing'}")
        tensors = [group["params"]] if type(group["params"]) is Tensor else list(group["params"])
        known = {p for g in self.param_groups for p in g["params"]}
        for p in tensors:
            if type(p) is not Tensor:
                raise TypeError(f"an optimizer can only optimize Tensors, got {type(p).__name__}; of a module, pass model.parameters()")
            if not (p.is_leaf and p.requires_grad):
                raise ValueError(
                    "can't optimize a Tensor that is not a leaf that requires grad: make it with gg.tensor(..., requires_grad=True) or nn.Parameter"
                )
            if p in known:
                raise ValueError("some parameters appear more than once: each belongs to one parameter group, once")
            known.add(p)
        unknown = set(group) - set(self.defaults) - {"params"}
        if unknown:
            raise ValueError(f"{type(self).__name__} has no option {', '.join(sorted(unknown))}; it has {', '.join(self.defaults)}")
        new = {**self.defaults, **group, "params": tensors}
        self.check(new)
        self.param_groups.append(new)

    def check(self, group: dict[str, Any]) -> None:
        """Raise ValueError for options that make no sense. Those in device memory are not looked at."""
        for name, value in group.items():
            if name in _NOT_NEGATIVE | _FRACTIONS and not is_stored(value) and not (isinstance(value, (int, float, np.number)) and value >= 0):
                raise ValueError(f"invalid {name}: got {value!r}, expected a number of at least 0")
            if name in _FRACTIONS and value > 1:
                raise ValueError(f"invalid {name}: got {value!r}, expected a number from 0 to 1")
        if "betas" in group and (len(group["betas"]) != 2 or not all(0 <= b < 1 for b in group["betas"])):
            raise ValueError(f"invalid betas: got {group['betas']}, expected two numbers in [0, 1)")

    def update(self, params: Arrays, grads: Arrays, states: States, group: dict[str, Any]) -> None:
        """Change plain real arrays of one dtype and device in place, given their gradients, what was remembered of each (at first nothing) and the options.

        Gradients are not to be changed. Those that are given here are clipped already, unless the class says ``clips = True`` and passes ``self.clip`` on.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define update(self, params, grads, states, group)")

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update every parameter that has a gradient; where none has, nothing happens.

        ``closure``, if given, is called first, to compute the loss and the gradients; its result is returned.
        """
        loss = None
        if closure is not None:
            with enable_grad():
                loss = closure()
        self.clip, batches = {}, self._batches()
        norm = None if self.max_grad_norm is None else total_norm([g for _, _, grads, _ in batches for g in grads])
        for group, params, grads, states in batches:
            with nullcontext() if type(params[0]) is ndarray else params[0].device:
                if norm is not None:
                    self.clip = {"norm": backend.to_device(norm, backend.device_of(params[0])), "max_norm": self.max_grad_norm}
                    if not self.clips:
                        c = clip_coefficient(**self.clip)
                        grads = [scaled(g, c, backend.namespace(g).empty_like(g)) for g in grads]
                self.update(params, grads, states, group)
                tape.mark_mutated(*params, *[a for s in states for a in s.values() if backend.is_array(a)])
        return loss

    def _batches(self) -> list[tuple[dict[str, Any], Arrays, Arrays, States]]:
        """(group, arrays, gradients, states) of the parameters with gradients, those of a group, dtype and device together."""
        batches: dict[Any, tuple[dict[str, Any], Arrays, Arrays, States]] = {}
        for number, group in enumerate(self.param_groups):
            for p in group["params"]:
                if (grad := p.grad) is not None:
                    array, g = p.data, grad.data
                    if array.dtype.kind == "c":
                        array, g = as_real(array), as_real(g)
                    key = number, array.dtype, None if type(array) is ndarray else backend.device_of(array)
                    if (batch := batches.get(key)) is None:
                        batch = batches[key] = (group, [], [], [])
                    batch[1].append(array)
                    batch[2].append(g)
                    if (state := self.state.get(p)) is None:
                        state = self.state[p] = {}
                    batch[3].append(state)
        return list(batches.values())

    def common(self, group: dict[str, Any]) -> dict[str, Any]:
        """What every kernel takes of the options of a group: the learning rate, weight decay, maximization and clipping."""
        return {
            "lr": tape.plain(group["lr"]),
            "weight_decay": group["weight_decay"],
            "decoupled": group["decoupled_weight_decay"],
            "maximize": group["maximize"],
            **self.clip,
        }

    def count(self, states: States, capturable: bool, like: Any) -> None:
        """Add one to the ``step`` of each state, which is 0 at first. As :meth:`advance`."""
        self.advance(states, "step", 0, lambda step: step + 1, capturable, like)

    def advance(self, states: States, name: str, first: float, new: Callable[[Any], Any], capturable: bool, like: Any) -> None:
        """Change the number ``name`` of each state, ``first`` at first, to ``new`` of it.

        In device memory (``capturable``), that of ``like``, parameters that have always been updated together share one number, so that one change does for
        all of them.
        """
        fresh: Any = None
        for s in states:
            if name not in s:
                if fresh is None:
                    fresh = backend.namespace(like).full((), first, np.float64) if capturable else first
                s[name] = fresh
        known: dict[Any, Any] = {}
        shared: dict[int, Any] = {}
        for s in states:
            old = s[name]
            if backend.is_array(old):
                shared[id(old)] = old
            else:
                if old not in known:
                    known[old] = new(old)
                s[name] = known[old]
        for old in shared.values():
            number = old
            if sum(s.get(name) is old for s in self.state.values()) > sum(s[name] is old for s in states):  # others stay behind
                number = old.copy()
                for s in states:
                    if s[name] is old:
                        s[name] = number
            number[...] = new(number)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients of all parameters, or fill them with zeros."""
        for group in self.param_groups:
            for p in group["params"]:
                clear_grad(p, set_to_none)

    # ------------------------------------------------------------------ saving and loading

    def state_dict(self) -> dict[str, Any]:
        """``{"state": {number of the parameter: what is remembered of it}, "param_groups": options, with the parameters' numbers}``, sharing memory.

        There is nothing in it but Tensors, numbers, strings, None, and lists, tuples and dicts of these, so that Tensors can be written to a file
        of tensors and the rest as JSON, without pickle.

        Raises:
            TypeError: an option, or what a subclass remembers, is something else.
        """
        params = [p for group in self.param_groups for p in group["params"]]
        numbers = {p: i for i, p in enumerate(params)}
        return {
            "state": {numbers[p]: {k: storable(k, v) for k, v in s.items()} for p, s in self.state.items()},
            "param_groups": [
                {**{k: storable(k, v) for k, v in group.items() if k != "params"}, "params": [numbers[p] for p in group["params"]]}
                for group in self.param_groups
            ],
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from where another optimizer, with groups of the same sizes, was; arrays are copied to the parameters' devices and dtypes.

        What has been through JSON, with strings for the numbers of parameters and lists for tuples, is taken too. After ``model.to(...)``,
        ``optimizer.load_state_dict(optimizer.state_dict())`` moves what is remembered after the parameters.

        Raises:
            ValueError: the groups, the shapes or an option do not fit; nothing has been changed.
        """
        if not {"state", "param_groups"} <= set(state_dict):
            raise ValueError(f"this is no state dict of an optimizer: got {', '.join(map(repr, state_dict)) or 'nothing'}, expected 'state' and 'param_groups'")
        got, own = ([len(g["params"]) for g in groups] for groups in (state_dict["param_groups"], self.param_groups))
        if got != own:
            raise ValueError(f"loaded state dict has parameter groups of sizes {got}, expected {own}")
        numbers = [int(i) for group in state_dict["param_groups"] for i in group["params"]]
        params = dict(zip(numbers, (p for group in self.param_groups for p in group["params"]), strict=True))
        strangers = {int(i) for i in state_dict["state"]} - set(params)
        if strangers:
            raise ValueError(f"loaded state dict remembers something of the parameters {sorted(strangers)}, which are in none of its groups")
        options = [{**group, **options_like(saved, group)} for group, saved in zip(self.param_groups, state_dict["param_groups"])]
        for group in options:
            self.check(group)
        fit = lambda p, k, v: self.numbers[k](tape.plain(v)) if k in self.numbers else fitted(p, k, v)
        state = {params[int(i)]: {k: fit(params[int(i)], k, v) for k, v in s.items()} for i, s in state_dict["state"].items()}
        self._store_numbers([p for group in options if group.get("capturable") for p in group["params"]], state)
        self.state = state
        for group, new in zip(self.param_groups, options):
            group.update(new)

    def _store_numbers(self, params: list[Tensor], state: dict[Tensor, dict[str, Any]]) -> None:
        """Put the numbers of these parameters into device memory; parameters in which all of them are alike share them."""
        stored: dict[Any, dict[str, Any]] = {}
        for p in params:
            numbers = {name: state[p][name] for name in self.numbers if name in state.get(p, ())}
            if numbers:
                key = p.device, *numbers.items()
                if key not in stored:
                    stored[key] = {name: backend.asarray(np.array(float(x)), device=p.device) for name, x in numbers.items()}
                state[p].update(stored[key])

    def __repr__(self) -> str:
        groups = [", ".join([f"{k}={v}" for k, v in g.items() if k != "params"] + [f"{len(g['params'])} parameters"]) for g in self.param_groups]
        return f"{type(self).__name__}({'; '.join(groups)})"


# ------------------------------------------------------------------------------------------------- tools for subclasses


def remembered(states: States, name: str, params: Arrays, first: float = 0.0) -> Arrays:
    """The array ``name`` of each state, of its parameter's shape, dtype and layout, filled with ``first`` at first.

    Raises:
        TypeError, gpugrad.backend.DeviceError: the parameter has another dtype, or is on another kind of device, than when it was last updated.
    """
    found = []
    for s, p in zip(states, params):
        a: Any = s.get(name)
        if type(a) is not type(p) or a.dtype is not p.dtype:
            a = s[name] = _like(p, name, a, first)
        found.append(a)
    return found


def _like(p: Any, name: str, a: Any, first: float) -> Any:
    """A new array, where there is none; else the one that there is, if it is of the parameter's kind."""
    if a is None:
        xp = backend.namespace(p)
        return xp.zeros_like(p) if first == 0 else xp.full_like(p, first)
    if type(a) is type(p) and a.dtype == p.dtype:
        return a
    what, where = (f"{x.dtype} on {backend.device_of(x)}" for x in (a, p))
    raise (TypeError if type(a) is type(p) else backend.DeviceError)(
        f"a parameter is {where}, but what the optimizer remembers of it ({name}) is {what}; "
        "after model.to(...), call optimizer.load_state_dict(optimizer.state_dict()), or make the optimizer after it"
    )


def numbered(numbers: list[Any]) -> list[Any]:
    """Keys for :func:`partition`: numbers as they are, those in device memory by what they are stored in."""
    return [id(n) if backend.is_array(n) else n for n in numbers]


def partition(keys: list[Any], *columns: list[Any]) -> Iterator[tuple[list[Any], ...]]:
    """The columns, split into those parts in which ``keys`` is the same."""
    distinct = dict.fromkeys(keys)
    if len(distinct) == 1:
        yield columns
        return
    for key in distinct:
        yield tuple([x for k, x in zip(keys, column) if k == key] for column in columns)
