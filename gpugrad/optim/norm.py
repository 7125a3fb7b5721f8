"""The norm of all gradients together, and clipping by it."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import numpy as np
from numpy import ndarray

from gpugrad import backend, tape
from gpugrad.kernels.lists import Arrays, clip_coefficient
from gpugrad.kernels.optimizers import grad_norm
from gpugrad.tape import Tensor


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
        scaled(g, c, g)
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


def as_real(a: Any) -> Any:
    """A complex array as a real one with a last axis of length 2, sharing memory: its two parts are optimized like any other numbers."""
    return a if a.dtype.kind != "c" else a[..., None].view(a.real.dtype)


def scaled(g: Any, c: Any, out: Any) -> Any:
    """``c g``, of 16-bit floats by way of float32."""
    return np.multiply(g, c.astype(np.promote_types(g.dtype, np.float32)), out=out, casting="same_kind")
