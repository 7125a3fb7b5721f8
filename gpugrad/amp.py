"""Training in mixed precision: products in 16 bits, sums and losses in float32, and a loss that is scaled so that small gradients do not become 0.

::

    scaler = gg.amp.GradScaler()
    for x, y in loader:
        optimizer.zero_grad()
        with gg.amp.autocast("float16"):
            loss = loss_of(model(x), y)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()

With bfloat16, whose range is that of float32, no scaler is needed.

Micikevicius et al., "Mixed precision training" (2018); names, defaults and wording are PyTorch's.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ContextDecorator, contextmanager, nullcontext
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from numpy import ndarray

from gpugrad import backend, tape, tree
from gpugrad.ops.fit import astype, is_half
from gpugrad.ops.rules import REGISTRY

__all__ = ["GradScaler", "autocast"]

# ------------------------------------------------------------------------------------------------- autocast
# tape.caster is asked for the arguments of every operation while there is a thread that autocasts, and is None otherwise.

LOW = frozenset(("einsum", "linear", "linear_act", "linear_act_z", "matmul"))
HIGH = frozenset((
    *("arccos", "arcsin", "cosh", "erfinv", "exp", "exp2", "expm1", "float_power", "log", "log10", "log1p", "log2", "logaddexp", "logaddexp2", "log_sigmoid"),
    *("power", "reciprocal", "sinh", "softplus", "square", "tan"),  # which overflow in float16, or lose what they are taken for
    *("cumprod", "cumsum", "log_softmax", "logsumexp", "mean", "prod", "softmax", "std", "sum", "var", "vector_norm"),
    *("softmax_slope", "softmax_tangent", "softmax_curvature", "log_softmax_slope", "log_softmax_tangent", "log_softmax_curvature", "logsumexp_slope"),
    *("cholesky", "det", "inv", "slogdet", "solve"),
    *("bce", "bce_residual", "bce_with_logits", "cross_entropy", "cross_entropy_dual", "cross_entropy_value", "huber", "kl_div", "log_ratio", "standardize"),
))  # fmt: skip


class _Thread(threading.local):
    def __init__(self) -> None:
        self.dtype: Any = None  # of the innermost block; None where none is open, or it is not enabled
        self.outside: list[Any] = []  # what it was around each open block


class _Caster:
    """What ``tape.caster`` is."""

    def cast(self, op: Any, args: Any) -> Any:
        """The arguments in the precision that the operation is to be computed in."""
        dtype, name = _thread.dtype, op.name
        if dtype is None or REGISTRY.get(name) is not op:
            return args
        if name in HIGH:
            return [astype(a, np.float32) if _is_half(a) else a for a in args]
        if name in LOW and all(_is_half(a) or getattr(a, "dtype", np.float32) == np.float32 for a in args):
            return [a if getattr(a, "dtype", dtype) == dtype else astype(a, dtype) for a in args]
        return args

    @contextmanager
    def paused(self) -> Iterator[None]:
        """While a backward walk runs, whose operations have the dtypes of forward already."""
        kept, _thread.dtype = _thread.dtype, None
        try:
            yield
        finally:
            _thread.dtype = kept


_thread = _Thread()
_caster = _Caster()
_lock = threading.Lock()
_open = 0  # blocks, in all threads


def _is_half(a: Any) -> bool:
    dtype = getattr(a, "dtype", None)
    return dtype is not None and is_half(dtype)


class autocast(ContextDecorator):  # noqa: N801
    """Inside ``with gg.amp.autocast("bfloat16"):`` products take what is float32 in 16 bits; a function can be decorated with it.

    - linear layers, ``@`` and all products that are made of it, ``einsum`` and bilinear layers: float32 and 16-bit arguments become ``dtype``, and so is
      the result. float64 and complex ones are left alone.
    - sums, means, norms, softmax, losses, exp, log, powers and their like: 16-bit arguments become float32, and so is the result.
    - all else takes what it is given: activations of 16 bits are of 16 bits.

    Parameters stay as they are, in float32, and so do their gradients: a cast is an operation with a derivative. Backward, inside or behind the block,
    computes in the precision that forward computed in. In gg.grad, jvp and the other transforms it is the same.

    Args:
        dtype: "float16" or "bfloat16". For float16 see :class:`GradScaler`.
        enabled: False makes the block one in which nothing is cast, also within another.

    Raises:
        ValueError: another dtype.
        ImportError: bfloat16 without ml_dtypes (``pip install 'gpugrad[bfloat16]'``).

    Only the thread that opens the block autocasts. Nothing that is computed outside such blocks takes longer for there being autocast.
    """

    def __init__(self, dtype: Any = "bfloat16", enabled: bool = True) -> None:
        self.dtype, self.enabled = _half(dtype), enabled

    def __enter__(self) -> autocast:
        _thread.outside.append(_thread.dtype)
        _thread.dtype = self.dtype if self.enabled else None
        _count(1)
        return self

    def __exit__(self, *_: object) -> None:
        _count(-1)
        _thread.dtype = _thread.outside.pop()


def _count(change: int) -> None:
    global _open
    with _lock:
        _open += change
        tape.caster = _caster if _open else None


def _half(dtype: Any) -> Any:
    found = backend.as_dtype(dtype)
    if found.name not in ("float16", "bfloat16"):
        raise ValueError(f"autocast: got dtype {found}, expected 'float16' or 'bfloat16'")
    return found


# ------------------------------------------------------------------------------------------------- loss scaling


class GradScaler:
    """Scales the loss, so that gradients of float16 do not become 0; the factor is halved when they overflow, and doubled when they have not for long.

    Args:
        init_scale: the factor at first.
        growth_factor, growth_interval: by what it is multiplied after so many steps without overflow.
        backoff_factor: by what it is multiplied after a step with inf or nan in the gradients, which is skipped.
        enabled: False makes ``scale``, ``unscale_`` and ``update`` do nothing, and ``step`` call ``optimizer.step``.

    Whether the gradients are finite is found on the device, in one pass over all of them. ``step`` reads that one number: whether an optimizer steps, and
    counts the step, is decided on the host, and waiting for the gradients cannot be avoided. Nothing else waits.
    """

    def __init__(
        self, init_scale: float = 2.0**16, growth_factor: float = 2.0, backoff_factor: float = 0.5, growth_interval: int = 2000, enabled: bool = True
    ) -> None:
        if not init_scale > 0:
            raise ValueError(f"invalid init_scale: got {init_scale}, expected a positive number")
        if not growth_factor > 1:
            raise ValueError(f"the growth factor must be > 1.0, got {growth_factor}")
        if not 0 < backoff_factor < 1:
            raise ValueError(f"the backoff factor must be between 0 and 1, got {backoff_factor}")
        self._scale, self._growth_tracker = float(init_scale), 0
        self.growth_factor, self.backoff_factor, self.growth_interval, self.enabled = growth_factor, backoff_factor, growth_interval, enabled
        self._found: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()  # optimizer -> whether its gradients are not finite, of no axes and on their device
        self._stepped: WeakKeyDictionary[Any, bool] = WeakKeyDictionary()

    def __getstate__(self) -> dict[str, Any]:
        """All but what is known of optimizers since the last ``update``."""
        return {name: value for name, value in vars(self).items() if name not in ("_found", "_stepped")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _found=WeakKeyDictionary(), _stepped=WeakKeyDictionary())

    def get_scale(self) -> float:
        """The factor; 1 if not enabled."""
        return self._scale if self.enabled else 1.0

    def is_enabled(self) -> bool:
        """Whether it does anything."""
        return self.enabled

    def scale(self, outputs: Any) -> Any:
        """The loss, or a nest of losses, times the factor; a loss of 16 bits becomes float32."""
        if not self.enabled:
            return outputs
        return tree.map_leaves(lambda y: (astype(y, np.float32) if _is_half(y) else y) * self._scale, outputs)

    def unscale_(self, optimizer: Any) -> None:
        """Divide the gradients by the factor, in place, to clip them before :meth:`step`, say. ``step`` does it where this was not called.

        Raises:
            RuntimeError: called twice since the last ``update``, or behind ``step``; or there are no gradients.
            ValueError: a gradient is float16: what overflowed or underflowed there is lost. Keep parameters in float32.
        """
        if not self.enabled:
            return
        if self._stepped.get(optimizer):
            raise RuntimeError("unscale_() is being called after step().")
        if optimizer in self._found:
            raise RuntimeError("unscale_() has already been called on this optimizer since the last update().")
        from gpugrad.optim.clip import gradients
        from gpugrad.optim.optimizer import as_real, total_norm

        grads = gradients([p for group in optimizer.param_groups for p in group["params"]])
        if not grads:
            raise RuntimeError("no parameter of this optimizer has a gradient: call scaler.scale(loss).backward() first")
        if any(g.dtype == np.float16 for g in grads):
            raise ValueError("Attempting to unscale FP16 gradients: keep the parameters in float32, and let gg.amp.autocast cast them")
        for g in grads:
            with nullcontext() if type(g) is ndarray else g.device:
                if is_half(g.dtype):
                    g[...] = (g.astype(np.float32) / self._scale).astype(g.dtype)
                else:
                    np.divide(g, self._scale, out=g)
        tape.mark_mutated(*grads)
        norm = total_norm([as_real(g) for g in grads])  # nan or infinite exactly if an element is, of float32
        with nullcontext() if type(norm) is ndarray else norm.device:
            self._found[optimizer] = ~np.isfinite(norm)

    def step(self, optimizer: Any, closure: Callable[[], Any] | None = None) -> Any:
        """``optimizer.step()``, whose result it returns; or nothing, where the gradients hold inf or nan.

        Raises:
            RuntimeError: called twice since the last ``update``; or with a closure, whose gradients nobody would have looked at.
        """
        if not self.enabled:
            return optimizer.step() if closure is None else optimizer.step(closure)
        if closure is not None:
            raise RuntimeError("Closure use is not currently supported if GradScaler is enabled.")
        if self._stepped.get(optimizer):
            raise RuntimeError("step() has already been called since the last update().")
        if optimizer not in self._found:
            self.unscale_(optimizer)
        self._stepped[optimizer] = True
        self._found[optimizer] = found = bool(self._found[optimizer])
        return None if found else optimizer.step()

    def update(self, new_scale: float | None = None) -> None:
        """Adjust the factor to what the steps since the last ``update`` have met, or set it.

        Raises:
            RuntimeError: there was none.
        """
        if not self.enabled:
            return
        if new_scale is not None:
            self._scale = float(new_scale)
        elif not self._found:
            raise RuntimeError("No inf checks were recorded prior to update.")
        elif any(map(bool, self._found.values())):
            self._scale, self._growth_tracker = self._scale * self.backoff_factor, 0
        else:
            self._growth_tracker += 1
            if self._growth_tracker >= self.growth_interval:
                grown, self._growth_tracker = self._scale * self.growth_factor, 0
                self._scale = grown if grown <= _LARGEST else self._scale
        self._found.clear()
        self._stepped.clear()

    def state_dict(self) -> dict[str, Any]:
        """Numbers; empty if not enabled."""
        if not self.enabled:
            return {}
        names = ("growth_factor", "backoff_factor", "growth_interval")
        return {"scale": self._scale, **{name: getattr(self, name) for name in names}, "_growth_tracker": self._growth_tracker}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from where another scaler was.

        Raises:
            RuntimeError: the state is empty: it is that of a scaler that was not enabled.
        """
        if not self.enabled:
            return
        if not state_dict:
            raise RuntimeError("The source state dict is empty, possibly because it was saved from a disabled instance of GradScaler.")
        self._scale, self._growth_tracker = float(state_dict["scale"]), int(state_dict["_growth_tracker"])
        for name in ("growth_factor", "backoff_factor", "growth_interval"):
            setattr(self, name, state_dict[name])

    def __repr__(self) -> str:
        return f"GradScaler(scale={self._scale:g}, growth_interval={self.growth_interval}, enabled={self.enabled})"


_LARGEST = float(np.finfo(np.float32).max)
