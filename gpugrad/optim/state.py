"""What a state dict may hold, and how it goes back into an optimizer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from gpugrad import backend, tape
from gpugrad.optim.norm import as_real
from gpugrad.tape import Tensor


def storable(name: str, value: Any) -> Any:
    """A value of a state dict: an array as a Tensor, a number of NumPy as one of Python."""
    if isinstance(value, np.generic):
        return value.item()
    if value is None or type(value) is Tensor or isinstance(value, (bool, int, float, str)):
        return value
    if backend.is_array(value):
        return Tensor(value)
    if isinstance(value, (list, tuple)):
        return type(value)([storable(name, v) for v in value])
    if isinstance(value, dict):
        return {k: storable(name, v) for k, v in value.items()}
    raise TypeError(
        f"{name} is a {type(value).__name__}, which a state dict cannot hold; expected an array, a number, a string, None, or lists, tuples or dicts of these"
    )


def options_like(saved: Mapping[str, Any], group: dict[str, Any]) -> dict[str, Any]:
    """A copy of the options of a saved group, in the form in which ``group`` has them: tuples as tuples, what is in device memory on the parameters' device."""
    options: dict[str, Any] = {}
    for name, value in saved.items():
        if name == "params":
            continue
        if is_stored(value):
            device = group["params"][0].device if group["params"] else None
            array = backend.asarray(tape.plain(value), device=device, copy=True)
            value = Tensor(array) if type(value) is Tensor and not backend.is_array(group.get(name)) else array
        elif isinstance(value, list):
            value = tuple(value) if isinstance(group.get(name), tuple) else list(value)
        options[name] = value
    return options


def fitted(p: Tensor, name: str, value: Any) -> Any:
    """What is remembered of ``p`` as a state dict has it: an array on the device and of the dtype of ``p``.

    Raises:
        ValueError: an array of another shape.
    """
    value = tape.plain(value)
    if not backend.is_array(value):
        return value
    like = as_real(p.data)
    if value.dtype.kind == "c" and value.shape == p.shape:
        value = as_real(value)
    if value.shape != like.shape:
        raise ValueError(f"loaded state dict has {name} of shape {value.shape}, expected {like.shape}")
    return backend.asarray(value, like.dtype, p.device, copy=True)


def is_stored(x: Any) -> bool:
    """Whether an option lies in an array, which may be on a device."""
    return backend.is_array(tape.plain(x))
