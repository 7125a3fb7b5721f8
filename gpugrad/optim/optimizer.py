"""What all optimizers share: parameter groups, state, and updates in place, a cache-sized block at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from gpugrad import backend, tape
from gpugrad.autograd import enable_grad
from gpugrad.nn.module import clear_grad
from gpugrad.tape import Tensor

BLOCK = 1 << 16  # elements: what a dozen passes read and write then stays in the cache between them


class Optimizer:
    """The base of optimizers. A subclass gives the update of one array in :meth:`update`.

    Args:
        params: Tensors, or groups: dicts with Tensors under ``params`` and options of their own.
        defaults: the options of groups that do not state them.

    ``state[p]`` is what is remembered of parameter ``p``; the options in ``param_groups`` may be changed between steps.
    """

    def __init__(self, params: Iterable[Any], defaults: dict[str, Any]) -> None:
        if type(params) is Tensor:
            raise TypeError("params must be an iterable of Tensors or of groups, got a Tensor: write [t]")
        self.defaults = defaults
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
        """Raise ValueError for options that make no sense."""
        for name in ("lr", "eps", "weight_decay", "momentum"):
            if name in group and not group[name] >= 0:
                raise ValueError(f"invalid {name}: got {group[name]}, expected at least 0")

    def update(self, p: Any, g: Any, state: dict[str, Any], group: dict[str, Any]) -> None:
        """Change the plain array ``p`` in place, given its gradient, what was remembered of it (at first nothing) and the options."""
        raise NotImplementedError(f"{type(self).__name__} does not define update(self, p, g, state, group)")

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update every parameter that has a gradient.

        ``closure``, if given, is called first, to compute the loss and the gradients; its result is returned.
        """
        loss = None
        if closure is not None:
            with enable_grad():
                loss = closure()
        for group in self.param_groups:
            for p in group["params"]:
                if (grad := p.grad) is not None:
                    array = p.data
                    self.update(as_real(array), as_real(grad.data), self.state.setdefault(p, {}), group)
                    tape.mark_mutated(array)
        return loss

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
        state = {params[i]: {k: _like(params[i], k, v) for k, v in s.items()} for i, s in state_dict["state"].items()}
        self.state = state
        for group, saved in zip(self.param_groups, state_dict["param_groups"], strict=True):
            group.update({k: v for k, v in saved.items() if k != "params"})

    def __repr__(self) -> str:
        groups = [", ".join([f"{k}={v}" for k, v in g.items() if k != "params"] + [f"{len(g['params'])} parameters"]) for g in self.param_groups]
        return f"{type(self).__name__}({'; '.join(groups)})"


def _like(p: Tensor, name: str, value: Any) -> Any:
    value = tape.plain(value)
    if not backend.is_array(value):
        return value
    shape = as_real(p.data).shape
    if value.shape != shape:
        raise ValueError(f"loaded state dict has {name} of shape {value.shape}, expected {shape}")
    return backend.asarray(value, as_real(p.data).dtype, p.device, copy=True)


def as_real(a: Any) -> Any:
    """A complex array as a real one with a last axis of length 2, sharing memory: its two parts are optimized like any other numbers."""
    return a if a.dtype.kind != "c" else a[..., None].view(a.real.dtype)


def in_blocks(f: Callable[..., None], *arrays: Any, **options: float | bool) -> None:
    """``f(*arrays, scratch, **options)``, which works element by element and writes in place, with an array to work in.

    On the CPU large arrays are handed over in blocks, so that the passes that f makes find them in the cache.
    The fused kernels, one pass on either device, belong here in the place of f.
    """
    first = arrays[0]
    if type(first) is not np.ndarray or first.size <= BLOCK or not all(a.flags.c_contiguous for a in arrays):
        f(*arrays, backend.namespace(first).empty_like(first), **options)
        return
    scratch = np.empty(BLOCK, first.dtype)
    flat = [a.reshape(-1) for a in arrays]
    for start in range(0, first.size, BLOCK):
        block = [a[start : start + BLOCK] for a in flat]
        f(*block, scratch[: block[0].size], **options)
