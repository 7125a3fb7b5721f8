"""Clipping gradients by value. By their norm it is :func:`gpugrad.optim.clip_grad_norm_`, or ``max_grad_norm`` of an optimizer."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import nullcontext
from typing import Any

import numpy as np
from numpy import ndarray

from gpugrad import tape
from gpugrad.optim.optimizer import as_real
from gpugrad.tape import Tensor


def clip_grad_value_(params: Tensor | Iterable[Tensor], clip_value: float) -> None:
    """Bring every element of the gradients into [-clip_value, clip_value], in place; of complex ones both parts. nan stays nan.

    Raises:
        ValueError: clip_value is negative or nan.
    """
    if not clip_value >= 0:
        raise ValueError(f"invalid clip_value: got {clip_value}, expected at least 0")
    for g in gradients(params):
        real = as_real(g)
        with nullcontext() if type(g) is ndarray else g.device:
            np.clip(real, -clip_value, clip_value, out=real)
        tape.mark_mutated(g)


def gradients(params: Tensor | Iterable[Tensor]) -> list[Any]:
    """The arrays of the gradients that there are, each once."""
    tensors = [params] if type(params) is Tensor else params
    return list({id(g): g for p in tensors if p.grad is not None for g in [p.grad.data]}.values())
