"""What all optimizers share: parameter groups, state, clipping by the norm of all gradients, and updates of many arrays at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import nullcontext
from typing import Any

import numpy as np
from numpy import ndarray

from gpugrad import backend, tape
from gpugrad.autograd import enable_grad
from gpugrad.kernels.optimizers import clip_coefficient, grad_norm
from gpugrad.nn.module import clear_grad
from gpugrad.tape import Tensor

Arrays = list[Any]
States = list[dict[str, Any]]


class Optimizer:
    """The base of optimizers. A subclass gives the update of a list of arrays in :meth:`update`.

    Args:
        params: Tensors, or groups: dicts with Tensors under ``params`` and options of their own.
        defaults: the options of groups that do not state them.
        max_grad_norm: if the L2 norm of all gradients of all groups together is larger, the step is that of gradients scaled down to it; those in
            ``.grad`` stay as they are. nan and inf as in :func:`clip_grad_norm_`. May be changed between steps, and is not part of the state.

    ``state[p]`` is what is remembered of parameter ``p``; the options in ``param_groups`` may be changed between steps. ``lr`` may be an array of no axes
    or a Tensor on the device of the parameters: what is written into it counts from the next step on, a recorded step included.
    """

    clips = False  # whether update takes gradients as they are, and clips by self.clip

    def __init__(self, params: Iterable[Any], defaults: dict[str, Any], *, max_grad_norm: float | None = None) -> None:
        if type(params) is Tensor:
            raise TypeError("params must be an iterable of Tensors or of groups, got a Tensor: write [t]")
        if max_grad_norm is not None and not max_grad_norm > 0:
            raise ValueError(f"invalid max_grad_norm: got {max_grad_norm}, expected a positive number, or None")
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
        tensors = [group["params"]] if type(group["params"]) is Tensor else list(group["params"])
        known = {p for g in self.param_groups for p in g["params"]}
        for p in tensors:
            if type(p) is not Tensor:
                raise TypeError(f"an optimizer can only optimize Tensors, got {type(p).__name__}")
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
        """Raise ValueError for options that make no sense. A learning rate in device memory is not looked at."""
        for name in ("lr", "eps", "weight_decay", "momentum"):
            if name in group and not _is_stored(group[name]) and not group[name] >= 0:
                raise ValueError(f"invalid {name}: got {group[name]}, expected at least 0")

    def update(self, params: Arrays, grads: Arrays, states: States, group: dict[str, Any]) -> None:
        """Change plain real arrays of one dtype and device in place, given their gradients, what was remembered of each (at first nothing) and the options.

        Gradients are not to be changed. Those that are given here are clipped already, unless the class says ``clips = True`` and passes ``self.clip`` on.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define update(self, params, grads, states, group)")

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update every parameter that has a gradient.

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
                        grads = [_scaled(g, c, backend.namespace(g).empty_like(g)) for g in grads]
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

    def count(self, states: States, capturable: bool, like: Any) -> None:
        """Add one to the ``step`` of each state.

        In device memory (``capturable``) parameters that have always been updated together share one count, so that one addition does for all of them.
        """
        new: Any = None
        for s in states:
            if "step" not in s:
                if new is None:
                    new = backend.namespace(like).zeros((), np.float64) if capturable else 0
                s["step"] = new
        shared: dict[int, Any] = {}
        for s in states:
            if not backend.is_array(s["step"]):
                s["step"] += 1
            else:
                shared[id(s["step"])] = s["step"]
        for old in shared.values():
            if sum(s.get("step") is old for s in self.state.values()) > sum(s["step"] is old for s in states):  # others stay behind
                step = old.copy()
                for s in states:
                    if s["step"] is old:
                        s["step"] = step
            else:
                step = old
            step += 1

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients of all parameters, or fill them with zeros."""
        for group in self.param_groups:
            for p in group["params"]:
                clear_grad(p, set_to_none)

    # ------------------------------------------------------------------ saving and loading

    def state_dict(self) -> dict[str, Any]:
        """``{"state": {number of the parameter: what is remembered of it}, "param_groups": options, with the parameters' numbers}``, sharing memory."""
        params = [p for group in self.param_groups for p in group["params"]]
        numbers = {p: i for i, p in enumerate(params)}
        return {
            "state": {numbers[p]: {k: Tensor(v) if backend.is_array(v) else v for k, v in s.items()} for p, s in self.state.items()},
            "param_groups": [{**group, "params": [numbers[p] for p in group["params"]]} for group in self.param_groups],
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from where another optimizer, with groups of the same sizes, was; arrays are copied to the parameters' devices and dtypes.

        Raises:
            ValueError: the groups or shapes do not fit; nothing has been changed.
        """
        got, own = ([len(g["params"]) for g in groups] for groups in (state_dict["param_groups"], self.param_groups))
        if got != own:
            raise ValueError(f"loaded state dict has parameter groups of sizes {got}, expected {own}")
        numbers = [i for group in state_dict["param_groups"] for i in group["params"]]
        params = dict(zip(numbers, (p for group in self.param_groups for p in group["params"]), strict=True))
        options = [{**group, **{k: _own(v) for k, v in saved.items() if k != "params"}} for group, saved in zip(self.param_groups, state_dict["param_groups"])]
        capturable = {p for group in options if group.get("capturable") for p in group["params"]}
        state = {params[i]: {k: _fitted(params[i], k, v) for k, v in s.items()} for i, s in state_dict["state"].items()}
        counts: dict[Any, Any] = {}
        for p in capturable & set(state):
            if "step" in state[p]:
                key = p.device, state[p]["step"]
                if key not in counts:
                    counts[key] = backend.asarray(np.array(float(key[1])), device=p.device)
                state[p]["step"] = counts[key]
        self.state = state
        for group, new in zip(self.param_groups, options):
            group.update(new)

    def __repr__(self) -> str:
        groups = [", ".join([f"{k}={v}" for k, v in g.items() if k != "params"] + [f"{len(g['params'])} parameters"]) for g in self.param_groups]
        return f"{type(self).__name__}({'; '.join(groups)})"


# ------------------------------------------------------------------------------------------------- tools for subclasses


def remembered(states: States, name: str, params: Arrays) -> Arrays:
    """The array ``name`` of each state, zeros of its parameter's shape, dtype and layout at first."""
    for s, p in zip(states, params):
        if s.get(name) is None:
            s[name] = backend.namespace(p).zeros_like(p)
    return [s[name] for s in states]


def partition(keys: list[Any], *columns: list[Any]) -> Iterator[tuple[list[Any], ...]]:
    """The columns, split into those parts in which ``keys`` is the same."""
    distinct = dict.fromkeys(keys)
    if len(distinct) == 1:
        yield columns
        return
    for key in distinct:
        yield tuple([x for k, x in zip(keys, column) if k == key] for column in columns)


# ------------------------------------------------------------------------------------------------- the norm of all gradients


def clip_grad_norm_(params: Any, max_norm: float, error_if_nonfinite: bool = False) -> Tensor:
    """Scale the gradients of Tensors in place so that the L2 norm of all of them together is at most ``max_norm``; returns the norm before that, in float64.

    They are multiplied by ``min(1, max_norm / (norm + 1e-6))``, as in PyTorch: a norm of nan makes all of them nan; an infinite norm makes the infinite
    ones nan and the others 0. The norm of float64 gradients beyond 1e154 is infinite.

    Raises:
        RuntimeError: the norm is nan or infinite, if ``error_if_nonfinite``; nothing has been changed.
    """
    params = [params] if type(params) is Tensor else params
    grads = list({id(g): g for p in params if p.grad is not None for g in [p.grad.data]}.values())
    norm = total_norm([as_real(g) for g in grads])
    if error_if_nonfinite and not np.isfinite(float(norm)):
        raise RuntimeError(
            f"the norm of the gradients is {float(norm)}, so they cannot be clipped; pass error_if_nonfinite=False to scale them by it nevertheless"
        )
    for g in grads:
        c = clip_coefficient(backend.to_device(norm, backend.device_of(g)), max_norm)
        _scaled(g, c, g)
        tape.mark_mutated(g)
    return Tensor(norm)


def total_norm(arrays: Arrays) -> Any:
    """The L2 norm of all elements of real arrays of any dtypes and devices: float64, of no axes, on the first one's device."""
    together: dict[Any, Arrays] = {}
    for a in arrays:
        together.setdefault((a.dtype, None if type(a) is ndarray else backend.device_of(a)), []).append(a)
    norms = []
    for same in together.values():
        with nullcontext() if type(same[0]) is ndarray else same[0].device:
            norms.append(grad_norm(same))
    if len(norms) < 2:
        return norms[0] if norms else np.zeros(())
    return grad_norm([backend.to_device(n, backend.device_of(norms[0])) for n in norms])


# ------------------------------------------------------------------------------------------------- arrays and numbers


def as_real(a: Any) -> Any:
    """A complex array as a real one with a last axis of length 2, sharing memory: its two parts are optimized like any other numbers."""
    return a if a.dtype.kind != "c" else a[..., None].view(a.real.dtype)


def _scaled(g: Any, c: Any, out: Any) -> Any:
    """``c g``, of 16-bit floats by way of float32."""
    return np.multiply(g, c.astype(np.promote_types(g.dtype, np.float32)), out=out, casting="same_kind")


def _is_stored(x: Any) -> bool:
    return backend.is_array(tape.plain(x))


def _own(option: Any) -> Any:
    """A copy of an option that is stored in an array."""
    return type(option)(tape.plain(option).copy()) if type(option) is Tensor else option.copy() if backend.is_array(option) else option


def _fitted(p: Tensor, name: str, value: Any) -> Any:
    """What is remembered of ``p`` as a state dict has it, on the device and of the dtype of ``p``; a count of steps as a number."""
    value = tape.plain(value)
    if name == "step":
        return int(value)
    if not backend.is_array(value):
        return value
    shape = as_real(p.data).shape
    if value.shape != shape:
        raise ValueError(f"loaded state dict has {name} of shape {value.shape}, expected {shape}")
    return backend.asarray(value, as_real(p.data).dtype, p.device, copy=True)
