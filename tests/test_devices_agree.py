"""The same program on every device: public functions, a network, ten steps of training.

Where the stand-in for CuPy is the device, this shows that no line of the library takes its arrays to be NumPy's.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

import gpugrad as gg
from gpugrad import backend, special, tree
from gpugrad.nn import functional as F  # noqa: N812
from gpugrad.ops import linalg
from gpugrad.ops.index import At
from gpugrad.tape import Tensor, plain
from gpugrad.testing import assert_devices_agree, tolerance

RNG = np.random.default_rng(0)
VECTOR, OTHER = RNG.uniform(0.2, 0.9, 6), RNG.uniform(0.2, 0.9, 6)
MATRIX, WIDE = RNG.uniform(0.2, 0.9, (3, 4)), RNG.uniform(0.2, 0.9, (4, 5))
CUBE = RNG.uniform(0.2, 0.9, (2, 3, 4))
SQUARE = RNG.uniform(0.2, 0.9, (3, 3)) + 3 * np.eye(3)
INTEGERS, MASK = np.array([2, 0, 2, 5]), np.array([True, False, True, True, False, False])

# name -> function, arguments. Each is differentiated twice on the device, and compared with float64 on the CPU.
CALLS: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    # numbers beside arrays, from either side
    "operators": (lambda x: (2 - x) * 3.0 / (1 + x) ** 2 // 0.3 % 7 + (-x + 2.0**x) @ x, (VECTOR,)),
    "NumPy scalars": (lambda x: np.float32(2) * x + x / np.float32(3), (VECTOR,)),
    "choices": (lambda x: gg.where(x > 0.5, x, 0.0) + gg.where(x < 0.4, 1.0, x) + gg.maximum(x, 0.5) * gg.minimum(0.6, x) + gg.clip(x, 0.3, None), (VECTOR,)),
    "powers": (lambda x: x**2 + x**-1 + x**0.5 + 2**x + gg.power(x, x) + gg.float_power(x, 2) + gg.cbrt(x), (VECTOR,)),
    "two arrays": (
        lambda a, b: gg.arctan2(a, b) + gg.hypot(a, b) + gg.logaddexp(a, b) + gg.fmax(a, b) + gg.copysign(a, -b) + gg.remainder(a, b) + gg.fmod(a, b),
        (VECTOR, OTHER),
    ),
    "rounding": (
        lambda x: gg.floor(x) + gg.ceil(x) + gg.rint(3 * x - 0.1) + gg.trunc(x) + gg.fix(x) + gg.round(x, 1) * x + gg.sign(x) + gg.heaviside(x, 0.5),
        (VECTOR,),
    ),
    "nan_to_num": (gg.nan_to_num, (VECTOR,)),
    "exponentials": (lambda x: gg.exp(x) + gg.expm1(x) + gg.exp2(x) + gg.log(x) + gg.log2(x) + gg.log10(x) + gg.log1p(x), (VECTOR,)),
    "trigonometry": (
        lambda x: gg.sin(x) + gg.cos(x) + gg.tan(x) + gg.arcsin(x) + gg.arccos(x) + gg.arctan(x) + gg.sinc(x) + gg.deg2rad(x) + gg.rad2deg(x),
        (VECTOR,),
    ),
    "hyperbolics": (lambda x: gg.sinh(x) + gg.cosh(x) + gg.tanh(x) + gg.arcsinh(x) + gg.arccosh(x + 1.1) + gg.arctanh(x), (VECTOR,)),
    "activations": (
        lambda x: gg.relu(x) + gg.sigmoid(x) + gg.softplus(x, 2.0) + gg.log_sigmoid(x) + gg.silu(x) + gg.elu(x) + gg.leaky_relu(x - 0.5) + gg.selu(x),
        (VECTOR,),
    ),
    "error function": (lambda x: gg.erf(x) + gg.erfc(x) + gg.gelu(x) + gg.gelu(x, approximate="tanh"), (VECTOR,)),
    "softmax": (lambda x: gg.softmax(x) * gg.log_softmax(x, axis=0), (MATRIX,)),
    "special": (lambda x: special.logit(x) + special.xlogy(x, x) + special.entr(x) + special.expit(x) + special.erfinv(x), (VECTOR,)),
    "reductions": (lambda x: gg.sum(x, (0, 2)) + gg.mean(x, 1).sum(0).mean() + gg.prod(x, (0, 2)) + gg.max(x) + gg.min(x, axis=(0, -1)), (CUBE,)),
    "moments": (
        lambda x: gg.var(x, 0) + gg.std(x, axis=0, ddof=1) + gg.logsumexp(x, axis=0) + gg.ptp(x, 0) + gg.median(x, 0) + gg.average(x, 0, gg.softmax(x[:, 0])),
        (MATRIX,),
    ),
    "counts": (lambda x: x * (gg.argmax(x) + gg.argmin(x) + gg.count_nonzero(x) + gg.any(x > 0.5) + gg.all(x > 0.5)), (VECTOR,)),
    "nan reductions": (lambda x: gg.nansum(x) + gg.nanmean(x), (VECTOR,)),
    "scans": (lambda x: gg.cumsum(x) + gg.cumprod(x) + gg.cumsum(x * x, axis=0), (VECTOR,)),
    "matmul": (lambda a, b: gg.sin(a @ b) @ gg.ones_like(b[0]), (MATRIX, WIDE)),
    "batched matmul": (lambda a, b: gg.matmul(a, b), (CUBE, WIDE)),
    "products": (lambda a, b: gg.outer(a, b) + gg.dot(a, b) + gg.inner(a, b) + gg.vdot(a, b) + gg.kron(a, b)[:6], (VECTOR, OTHER)),
    "dot with a number": (lambda x: gg.dot(x, 2.0) + gg.inner(3.0, x), (VECTOR,)),
    "tensordot": (lambda a, b: gg.tensordot(a, b, ([2], [0])), (CUBE, WIDE)),
    "cross": (lambda a: gg.cross(a, a[::-1] * 2.0), (SQUARE,)),
    "einsum": (lambda a, b: gg.einsum("ijk,kl->lij", a, b) + gg.einsum("ijk->", a), (CUBE, WIDE)),
    "einsum of a diagonal": (lambda a: gg.einsum("ii,ij->j", a, a), (SQUARE,)),
    "shapes": (
        lambda x: gg.reshape(x, (4, -1)) + gg.transpose(x.reshape(6, 4)).reshape(4, 6) + gg.expand_dims(x.reshape(4, 6), 0)[0] + gg.squeeze(x.reshape(1, 4, 6)),
        (CUBE,),
    ),
    "joins": (lambda a, b: gg.concatenate([a, b, gg.stack([a, b]).ravel(), gg.hstack([a, b]), gg.append(a, b)]), (VECTOR, OTHER)),
    "columns": (lambda a, b: gg.vstack([a, b]) + gg.column_stack([a, b]).T + gg.dstack([a, b])[0].T, (VECTOR, OTHER)),
    "splits": (lambda x: sum(gg.split(x, 3)) + sum(p.sum() for p in gg.array_split(x, 4)), (VECTOR,)),
    "repeats": (lambda x: gg.tile(x, (2, 2)) + gg.repeat(gg.repeat(x, 2, axis=0), 2, axis=1) + gg.broadcast_to(x.sum(), (6, 8)), (MATRIX,)),
    "uneven repeats": (lambda x: gg.repeat(x, [1, 0, 2, 1, 0, 3]), (VECTOR,)),
    "turned": (lambda x: gg.flip(x) + gg.roll(x, 3) + gg.roll(x, (1, 2), (0, 1)) + gg.rot90(x, 2) + gg.fliplr(x) + gg.moveaxis(x, 0, 1).T, (MATRIX,)),
    "pads": (lambda x: gg.pad(x, 2) + gg.pad(x, 2, mode="edge") + gg.pad(x, 2, mode="reflect") + gg.pad(x, 2, constant_values=0.5), (MATRIX,)),
    "triangles": (lambda x: gg.tril(x) + gg.triu(x, 1) + gg.diag(gg.diagonal(x)) + gg.trace(x) * gg.diag(x), (SQUARE,)),
    "differences": (lambda x: gg.diff(x, 2), (VECTOR,)),
    "basic indexing": (lambda x: x[0, ::2] + x[1:, -1].sum() + x[..., None].sum() + x[np.int64(1), 1:3], (MATRIX,)),
    "index arrays": (lambda x: x[INTEGERS] + x[[0, 1, 0, 2]] + gg.take(x, INTEGERS) + gg.take(x, [1, 2, 1, 1]), (VECTOR,)),
    "index arrays of the device": (lambda x, i: x[i] * x[gg.argsort(x)][:4] + gg.take_along_axis(x, i, 0), (VECTOR, INTEGERS)),
    "masks": (lambda x, m: x[m] + x[x > 0.0][:3].sum() + gg.compress(m, x) + gg.extract(m, x), (VECTOR, MASK)),
    "updates": (lambda x: At(x)[1].set(2.0) + At(x)[INTEGERS].add(x[:4]) + At(x)[1:3].multiply(x[4:]) + At(x)[0].add(1.0), (VECTOR,)),
    "sorting": (lambda x: gg.sort(x) + gg.sort(x)[::-1] + gg.sort(x.reshape(2, 3), axis=0).ravel(), (VECTOR,)),
    "norms": (lambda x: linalg.norm(x) + linalg.norm(x, axis=0) + linalg.norm(x, 1, axis=0) + linalg.norm(x, np.inf, axis=0), (MATRIX,)),
    "linear algebra": (lambda a: linalg.inv(a) + linalg.solve(a, a.T) + linalg.det(a) + linalg.slogdet(a)[1] + linalg.cholesky(a @ a.T), (SQUARE,)),
    "like": (lambda x: gg.zeros_like(x) + gg.ones_like(x) * x + gg.full_like(x, 2.0) * x, (VECTOR,)),
    "casts": (lambda x: gg.astype(x, np.float64) * 2.0 + x.astype(np.float64), (VECTOR,)),
    "cross entropy": (lambda x: cross_entropy(x, np.array([1, 0, 3])) + gg.sum(x * 0.1), (MATRIX,)),
}


def cross_entropy(x: Any, labels: Any) -> Any:
    return F.cross_entropy(x, backend.to_device(plain(labels), backend.device_of(plain(x))))


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("name", CALLS)
def test_functions(name: str, dtype: Any, device: str) -> None:
    f, args = CALLS[name]
    args = tuple(a.astype(dtype) if a.dtype == np.float64 else a for a in args)
    assert_devices_agree(f, *args, devices=[device], rtol=200 * tolerance(dtype))


# ------------------------------------------------------------------------------------------------- whole programs


def network(parameters: Any, x: Any) -> Any:
    for w, b in parameters[:-1]:
        x = gg.tanh(x @ w + b)
    w, b = parameters[-1]
    return x @ w + b


def loss(parameters: Any, x: Any, labels: Any) -> Any:
    return cross_entropy(network(parameters, x), labels) + 1e-3 * sum(gg.sum(w**2) for w, _ in parameters)


def initial(sizes: tuple[int, ...], dtype: Any) -> list[Any]:
    rng = np.random.default_rng(1)
    return [(rng.normal(0, m**-0.5, (m, n)).astype(dtype), np.zeros(n, dtype)) for m, n in pairwise(sizes)]


X, LABELS = RNG.normal(size=(32, 12)), RNG.integers(0, 4, 32)


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
def test_network(dtype: Any, device: str) -> None:
    assert_devices_agree(lambda p, x: loss(p, x, LABELS), initial((12, 16, 8, 4), dtype), X.astype(dtype), devices=[device], rtol=20 * tolerance(dtype, 32))


def trained(dtype: Any, device: str, steps: int = 10) -> list[Any]:
    """The parameters after steps of momentum SGD, by the transforms."""
    put = lambda a: backend.asarray(a, device=device)
    parameters = tree.map_leaves(put, initial((12, 16, 4), dtype))
    velocity = tree.map_leaves(gg.zeros_like, parameters)
    x, labels = put(X.astype(dtype)), put(LABELS)
    for _ in range(steps):
        grads, structure = tree.flatten(gg.grad(loss)(parameters, x, labels))
        moved = [0.9 * v + g for v, g in zip(tree.flatten(velocity)[0], grads, strict=True)]
        velocity = tree.unflatten(structure, moved)
        parameters = tree.unflatten(structure, [p - 0.2 * v for p, v in zip(tree.flatten(parameters)[0], moved, strict=True)])
    return tree.flatten(parameters)[0]


def trained_by_backward(dtype: Any, device: str, steps: int = 10) -> list[Any]:
    """The same by ``backward`` and ``.grad``."""
    leaves, structure = tree.flatten(initial((12, 16, 4), dtype))
    leaves = [gg.tensor(p, device=device, requires_grad=True) for p in leaves]
    velocity = [gg.zeros_like(p.detach()) for p in leaves]
    x, labels = gg.tensor(X.astype(dtype), device=device), gg.tensor(LABELS, device=device)
    for _ in range(steps):
        loss(tree.unflatten(structure, leaves), x, labels).backward()
        with gg.no_grad():
            for i, p in enumerate(leaves):
                velocity[i] = 0.9 * velocity[i] + p.grad
                p.copy_(p - 0.2 * velocity[i])
                p.grad = None
    return [p.data for p in leaves]


@pytest.mark.parametrize("train", [trained, trained_by_backward])
@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
def test_ten_training_steps(train: Callable[..., Any], dtype: Any, device: str) -> None:
    for got, expected in zip(train(dtype, device), trained(np.float64, "cpu"), strict=True):
        assert backend.device_of(got) == backend.device_name(device)
        assert got.dtype == dtype
        np.testing.assert_allclose(backend.to_device(got, "cpu"), expected, rtol=0, atol=50 * tolerance(dtype, 32))


def test_functional_call(put: Callable[[Any], Any], device: str) -> None:
    """A module as a function of its own parameters, handed over as they are."""
    module = gg.nn.Linear(12, 4).to(device)
    x, parameters = put(X.astype(np.float32)), dict(module.named_parameters())
    grads = gg.grad(lambda p: gg.sum(gg.nn.functional_call(module, p, x) ** 2))(parameters)
    w, b = (backend.to_device(parameters[k].data, "cpu").astype(float) for k in ("weight", "bias"))
    residual = 2 * (X @ w + b)
    for got, expected in ((grads["weight"], X.T @ residual), (grads["bias"], residual.sum(0))):
        assert got.device == backend.device_name(device)
        np.testing.assert_allclose(got.numpy(), expected, rtol=1e-4, atol=1e-4)


def test_jacobian_and_hessian(put: Callable[[Any], Any]) -> None:
    f = lambda x: gg.sum(gg.sin(x) * gg.cumsum(x)) ** 2
    for transform in (gg.jacobian(lambda x: gg.outer(x, x)), gg.jacobian(gg.cumprod, mode="reverse"), gg.hessian(f)):
        np.testing.assert_allclose(backend.to_device(transform(put(VECTOR)), "cpu"), transform(VECTOR), rtol=1e-12)


def test_linearize_and_hvp(put: Callable[[Any], Any]) -> None:
    f = lambda x: gg.sum(gg.sort(gg.exp(x)) * x)
    x, v = put(VECTOR), put(OTHER)
    a, b = (gg.hvp(f, x, v, mode=mode) for mode in ("forward-over-reverse", "reverse-over-reverse"))
    np.testing.assert_allclose(backend.to_device(a, "cpu"), gg.hvp(f, VECTOR, OTHER), rtol=1e-12)
    np.testing.assert_allclose(backend.to_device(a, "cpu"), backend.to_device(b, "cpu"), rtol=1e-12)
    np.testing.assert_allclose(float(gg.linearize(f, x)[1](v)), float(gg.jvp(f, (VECTOR,), (OTHER,))[1]), rtol=1e-12)


def test_moving_between_devices_is_differentiable(put: Callable[[Any], Any], device: str) -> None:
    f = lambda x: gg.sum(gg.exp(Tensor(x).to(device) if type(x) is not Tensor else x.to(device)).cpu() ** 2)
    np.testing.assert_allclose(gg.grad(f)(VECTOR), 2 * np.exp(VECTOR) ** 2, rtol=1e-12)
    np.testing.assert_allclose(gg.hvp(f, VECTOR, OTHER), 4 * np.exp(VECTOR) ** 2 * OTHER, rtol=1e-12)
    on_device = gg.grad(lambda x: gg.sum(x.cpu() ** 3))(put(VECTOR))
    assert backend.device_of(on_device) == backend.device_name(device)


# ------------------------------------------------------------------------------------------------- the tools themselves


def test_tolerance_grows_with_the_length_and_the_unit() -> None:
    assert tolerance(np.float64) < tolerance(np.float64, 10**6) < tolerance(np.float32) < tolerance(np.float32, 10**6) < tolerance(np.float16)
    assert tolerance(np.complex64, 100) == tolerance(np.float32, 100)
    assert tolerance(np.float16, 10**4) < 2 * tolerance(np.float16)
    with pytest.raises(TypeError, match="int64"):
        tolerance(np.int64)


def test_disagreement_is_found() -> None:
    sloppy = gg.primitive(lambda x: x if x.dtype == np.float64 else x * x.dtype.type(1.001), name="sloppy")
    gg.defvjp(sloppy, lambda g, _y, _x: g)
    with pytest.raises(AssertionError, match="value 0 on cpu differs"):
        assert_devices_agree(sloppy, VECTOR.astype(np.float32), devices=["cpu"])
    slanted = gg.primitive(lambda x: x, name="slanted")
    gg.defvjp(slanted, lambda g, _y, x: g * (2 if x.dtype == np.float32 else 1))
    with pytest.raises(AssertionError, match="gradient of float argument 0 on cpu differs"):
        assert_devices_agree(slanted, VECTOR.astype(np.float32), devices=["cpu"])
    with pytest.raises(ValueError, match="at least one array of floats"):
        assert_devices_agree(gg.sum, INTEGERS)
