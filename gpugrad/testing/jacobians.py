"""``gradcheck`` and ``gradgradcheck`` in PyTorch's form: whole Jacobians, numerical against analytical."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gpugrad import autograd, backend
from gpugrad.tape import Tensor, plain


class GradcheckError(RuntimeError):
    """A Jacobian is not what finite differences say."""


def gradcheck(
    func: Callable[..., Any],
    inputs: Tensor | Sequence[Any],
    eps: float = 1e-6,
    atol: float = 1e-5,
    rtol: float = 1e-3,
    raise_exception: bool = True,
    nondet_tol: float = 0.0,
) -> bool:
    """Check the gradients of ``func(*inputs)`` by central differences; True if all agree.

    Every element of the Jacobian of each output with respect to each input that requires grad is compared with
    (f(x + eps) - f(x - eps)) / (2 eps): |analytical - numerical| <= atol + rtol |numerical|. Complex Jacobians follow PyTorch's convention.

    Args:
        inputs: a tuple of Tensors, float64 or complex128; others may stand among them as constants.
        raise_exception: False returns False instead of raising.
        nondet_tol: how far two backward passes over the same graph may differ.

    Raises:
        GradcheckError: (a RuntimeError) a Jacobian is wrong, has the wrong shape or dtype, or changes from pass to pass.
        ValueError: no input requires grad.
    """
    inputs = (inputs,) if isinstance(inputs, Tensor) else tuple(inputs)
    checked = [i for i, x in enumerate(inputs) if _requires_grad(x)]
    if not checked:
        raise ValueError("gradcheck expects at least one input tensor to require gradient, but none of the them have requires_grad=True.")
    for i in checked:
        if inputs[i].dtype not in (np.float64, np.complex128):
            warnings.warn(
                f"Input #{i} requires gradient and is not a double precision floating point or complex ({inputs[i].dtype}). This check will likely fail.",
                stacklevel=2,
            )
    try:
        _compare(func, inputs, checked, eps, atol, rtol, nondet_tol)
    except GradcheckError:
        if raise_exception:
            raise
        return False
    return True


def gradgradcheck(
    func: Callable[..., Any],
    inputs: Tensor | Sequence[Any],
    grad_outputs: Any = None,
    eps: float = 1e-6,
    atol: float = 1e-5,
    rtol: float = 1e-3,
    raise_exception: bool = True,
    nondet_tol: float = 0.0,
) -> bool:
    """:func:`gradcheck` of the gradients of ``func``, as functions of the inputs and of ``grad_outputs`` (random by default)."""
    inputs = (inputs,) if isinstance(inputs, Tensor) else tuple(inputs)
    outputs = _outputs(func, inputs)
    if grad_outputs is None:
        rng = np.random.default_rng(0)
        given = [Tensor(_random_like(rng, y)).requires_grad_() for y in outputs]
    else:
        given = [grad_outputs] if isinstance(grad_outputs, Tensor) else list(grad_outputs)
    n = len(inputs)

    def gradients(*args: Any) -> tuple[Any, ...]:
        xs = tuple(
            x if not hasattr(x, "detach") or x.requires_grad or not _requires_grad(inputs[i]) else x.detach().requires_grad_() for i, x in enumerate(args[:n])
        )
        results = [(y, g) for y, g in zip(_outputs(func, xs), args[n:], strict=True) if y.requires_grad]
        targets = [x for x in xs if _requires_grad(x)]
        grads = autograd.grad([y for y, _ in results], targets, [g for _, g in results], create_graph=True, materialize_grads=True)
        return tuple(g for g in grads if g is not None)

    return gradcheck(gradients, (*inputs, *given), eps, atol, rtol, raise_exception, nondet_tol)


def _requires_grad(x: Any) -> bool:
    return isinstance(x, Tensor) and x.requires_grad


def _outputs(func: Callable[..., Any], inputs: Sequence[Any]) -> list[Tensor]:
    """The outputs that have derivatives."""
    y = func(*inputs)
    ys = list(y) if isinstance(y, (tuple, list)) else [y]
    if not all(isinstance(v, Tensor) for v in ys):
        raise ValueError(f"gradcheck expects func to return a Tensor or a tuple of Tensors, got {', '.join(sorted({type(v).__name__ for v in ys}))}")
    return [v for v in ys if v.dtype.kind in "fc"]


def _compare(func: Callable[..., Any], inputs: tuple[Any, ...], checked: list[int], eps: float, atol: float, rtol: float, nondet_tol: float) -> None:
    outputs = _outputs(func, inputs)
    numerical = {i: _numerical(func, inputs, i, eps) for i in checked}
    for k, y in enumerate(outputs):
        analytical, again = (_analytical(y, [inputs[i] for i in checked]) for _ in range(2))
        for i, a, b in zip(checked, analytical, again, strict=True):
            n = numerical[i][k]
            if a.size and np.max(np.abs(a - b)) > nondet_tol:
                raise GradcheckError(
                    f"Backward is not reentrant, i.e., running backward with same input and grad_output multiple times gives different values (output {k}, input {i}): {a} and {b}"
                )
            wrong = ~np.isclose(a, n, rtol, atol)
            if wrong.any():
                worst = np.unravel_index(np.argmax(np.where(wrong, np.abs(a - n), -1)), a.shape)
                raise GradcheckError(
                    f"Jacobian mismatch for output {k} with respect to input {i},\nnumerical:{n}\nanalytical:{a}\n"
                    f"The worst is element {worst[1]} of the input for element {worst[0] % max(1, y.size)} of the output: got {a[worst]}, expected {n[worst]}."
                )


def _seeds(y: Any) -> list[complex]:
    """A cotangent v stands for the real function Re(conj(v) y): its real part and, of complex outputs, its imaginary part."""
    return [1, 1j] if y.dtype.kind == "c" else [1]


def _analytical(y: Tensor, inputs: list[Tensor]) -> list[np.ndarray]:
    """For each input the matrix with a row for each element (and part) of ``y``."""
    rows: list[list[np.ndarray]] = [[] for _ in inputs]
    for seed in _seeds(y):
        for k in range(y.size):
            e = np.zeros(y.shape, y.dtype)
            e.reshape(-1)[k] = seed
            grads = (
                autograd.grad(y, inputs, Tensor(backend.to_device(e, y.device)), retain_graph=True, materialize_grads=True)
                if y.requires_grad
                else [None] * len(inputs)
            )
            for row, x, g in zip(rows, inputs, grads, strict=True):
                if g is None:
                    g = Tensor(np.zeros(x.shape, x.dtype))
                if g.shape != x.shape or g.dtype != x.dtype:
                    raise GradcheckError(f"the gradient has shape {g.shape} and dtype {g.dtype}, expected those of its input: {x.shape} and {x.dtype}")
                row.append(backend.to_device(plain(g), "cpu").reshape(-1))
    return [np.array(row).reshape(len(row), x.size) for row, x in zip(rows, inputs, strict=True)]


def _numerical(func: Callable[..., Any], inputs: tuple[Any, ...], i: int, eps: float) -> list[np.ndarray]:
    """For each output the matrix of the same form: df/dx + i df/dy of each real function, for a complex input x + iy."""
    x = backend.to_device(plain(inputs[i]), "cpu")

    def at(values: np.ndarray) -> list[np.ndarray]:
        replaced = (*inputs[:i], Tensor(backend.to_device(values, inputs[i].device)), *inputs[i + 1 :])
        return [_parts(backend.to_device(plain(v), "cpu")) for v in _outputs(func, replaced)]

    columns: list[list[np.ndarray]] = []
    for j in range(x.size):
        slopes = []
        for step in (eps, 1j * eps) if x.dtype.kind == "c" else (eps,):
            ahead, behind = x.copy(), x.copy()
            ahead.reshape(-1)[j] += step
            behind.reshape(-1)[j] -= step
            slopes.append([(a - b) / (2 * eps) for a, b in zip(at(ahead), at(behind), strict=True)])
        columns.append([s[0] + 1j * s[1] if len(s) > 1 else s[0] for s in zip(*slopes, strict=True)])
    outputs = at(x)
    return [np.array([c[k] for c in columns]).reshape(x.size, y.size).T for k, y in enumerate(outputs)]


def _parts(y: np.ndarray) -> np.ndarray:
    """Flat, the real parts before the imaginary ones."""
    return np.concatenate([y.real.ravel(), y.imag.ravel()]) if y.dtype.kind == "c" else y.ravel()


def _random_like(rng: np.random.Generator, y: Tensor) -> Any:
    values = rng.standard_normal(y.shape)
    if y.dtype.kind == "c":
        values = values + 1j * rng.standard_normal(y.shape)
    return backend.to_device(np.asarray(values, y.dtype), y.device)
