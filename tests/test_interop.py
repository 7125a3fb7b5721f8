"""NumPy's, SciPy's and CuPy's own functions applied to Tensors: they reach ours, or refuse, and never lose a derivative silently."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import gpugrad as gg
from gpugrad import backend
from gpugrad.tape import Tensor

A = np.array([[0.3, 1.2, -0.7], [2.0, -1.5, 0.9]])
LOST = r"derivative|drop its derivative"


@pytest.fixture
def tracked(put: Callable[[Any], Any]) -> Tensor:
    return Tensor(put(A.copy())).requires_grad_()


@pytest.fixture
def untracked(put: Callable[[Any], Any]) -> Tensor:
    return Tensor(put(A.copy()))


def host(t: Any) -> Any:
    return backend.to_device(t.data if type(t) is Tensor else t, "cpu")


# ------------------------------------------------------------------------------------------------- functions that we have


CALLS: dict[str, Callable[[Any], Any]] = {
    "np.exp": np.exp, "np.tanh": np.tanh, "np.abs": np.abs, "np.square": np.square, "np.negative": np.negative, "np.conjugate": np.conjugate, "np.rint": np.rint,
    "np.float64 from the left": lambda t: np.float64(2) * t, "np.float32 from the left": lambda t: np.float32(2) - t, "np.int64 from the left": lambda t: np.int64(2) / (3 + t),
    "np.sum": np.sum, "np.sum of an axis": lambda t: np.sum(t, axis=0, keepdims=True), "np.mean": lambda t: np.mean(t, 1), "np.max": np.max, "np.prod": np.prod, "np.var": lambda t: np.var(t, ddof=1),
    "np.std": np.std, "np.cumsum": lambda t: np.cumsum(t, axis=1), "np.concatenate": lambda t: np.concatenate([t, t * 2.0]), "np.stack": lambda t: np.stack([t, t], axis=-1), "np.vstack": lambda t: np.vstack([t, t]),
    "np.split": lambda t: np.split(t, 3, axis=1)[1], "np.reshape": lambda t: np.reshape(t, (3, 2)), "np.transpose": np.transpose, "np.ravel": np.ravel, "np.flip": np.flip, "np.roll": lambda t: np.roll(t, 1),
    "np.pad": lambda t: np.pad(t, 1), "np.tile": lambda t: np.tile(t, 2), "np.repeat": lambda t: np.repeat(t, 2, axis=0), "np.expand_dims": lambda t: np.expand_dims(t, 0), "np.diff": np.diff, "np.sort": np.sort,
    "np.where": lambda t: np.where(t > 0, t, 0.0), "np.clip": lambda t: np.clip(t, -1.0, 1.0), "np.maximum": lambda t: np.maximum(t, 0.5), "np.dot": lambda t: np.dot(t, t.T), "np.matmul": lambda t: np.matmul(t, t.T),
    "np.einsum": lambda t: np.einsum("ij,ij->i", t, t), "np.tensordot": lambda t: np.tensordot(t, t, 2), "np.outer": lambda t: np.outer(t, t), "np.trace": np.trace, "np.tril": np.tril, "np.copy": np.copy,
    "np.linalg.norm": np.linalg.norm, "np.linalg.det": lambda t: np.linalg.det(t @ t.T), "np.linalg.inv": lambda t: np.linalg.inv(t @ t.T), "np.linalg.solve": lambda t: np.linalg.solve(t @ t.T, t),
    "np.add.reduce": np.add.reduce, "np.add.reduce of all": lambda t: np.add.reduce(t, axis=None), "np.multiply.reduce": lambda t: np.multiply.reduce(t, axis=1), "np.maximum.reduce": np.maximum.reduce,
    "np.power": lambda t: np.power(t, 2), "np.arctan2": lambda t: np.arctan2(t, 1.0), "np.true_divide": lambda t: np.true_divide(t, 2.0), "np.full_like": lambda t: np.full_like(t, t[0, 0]) * t,
}  # fmt: skip


@pytest.mark.parametrize("name", CALLS)
def test_numpy_functions_reach_ours(name: str, tracked: Tensor) -> None:
    """Same values as NumPy's, tracked, and the gradient of their sum is right."""
    f = CALLS[name]
    y = f(tracked)
    assert type(y) is Tensor and y.requires_grad and y.device == tracked.device
    np.testing.assert_allclose(host(y), f(A), rtol=1e-12)
    gg.sum(y).backward()
    eps = 1e-6
    for i, j in ((0, 1), (1, 2)):
        e = np.zeros_like(A)
        e[i, j] = eps
        assert float(tracked.grad.data[i, j]) == pytest.approx((np.sum(f(A + e)) - np.sum(f(A - e))) / (2 * eps), rel=1e-5, abs=1e-7)


def test_arrays_beside_tensors(tracked: Tensor, put: Callable[[Any], Any]) -> None:
    """Whichever side the array is on, and whoever's operator is asked first."""
    a = put(A)
    for y in (a * tracked, tracked * a, a - tracked, a / (tracked + 5.0), a @ tracked.T, a**2 + tracked, np.add(a, tracked), np.concatenate([a, tracked])):
        assert type(y) is Tensor and y.requires_grad
    for y in (a < tracked, a == tracked, tracked != a):
        assert type(y) is Tensor and not y.requires_grad and y.dtype == bool
    np.testing.assert_array_equal(host(a - tracked), A - A)


def test_inside_transforms(put: Callable[[Any], Any]) -> None:
    f = lambda x: np.sum(np.exp(x) * np.sin(x))
    expected = np.exp(A) * (np.sin(A) + np.cos(A))
    np.testing.assert_allclose(host(gg.grad(f)(put(A))), expected, rtol=1e-12)
    np.testing.assert_allclose(float(gg.jvp(f, (put(A),), (put(np.ones_like(A)),))[1]), expected.sum(), rtol=1e-12)
    np.testing.assert_allclose(host(gg.hvp(f, put(A), put(A))), 2 * np.exp(A) * np.cos(A) * A, rtol=1e-12)


@pytest.mark.parametrize("name", CALLS)
def test_inside_vmap(name: str, put: Callable[[Any], Any]) -> None:
    """Of a Tensor that stands for many examples NumPy's functions are ours too."""
    x = put(np.stack([A, 0.5 * A, A - 0.1]))
    together = host(gg.vmap(CALLS[name])(x))
    for y, row in zip(together, np.stack([A, 0.5 * A, A - 0.1]), strict=True):
        np.testing.assert_allclose(y, CALLS[name](row), rtol=1e-11)


def test_questions_about_one_example_of_many(put: Callable[[Any], Any]) -> None:
    asked = []
    gg.vmap(lambda t: asked.append((np.shape(t), np.ndim(t), np.size(t), np.size(t, 0), np.result_type(t, np.float32), np.iscomplexobj(t))) or t)(
        put(np.stack([A] * 4))
    )
    assert asked == [((2, 3), 2, 6, 2, np.dtype(np.float64), False)]
    for f in (np.unwrap, lambda t: np.add(t, 1.0, out=np.zeros((2, 3))), lambda t: np.copyto(np.zeros((2, 3)), t)):
        with pytest.raises(TypeError, match=r"inside gg\.vmap|derivative"):
            gg.vmap(f)(put(np.stack([A] * 4)))


def test_questions_about_arrays_are_answered(tracked: Tensor) -> None:
    assert np.shape(tracked) == (2, 3) and np.ndim(tracked) == 2 and np.size(tracked) == 6
    assert np.result_type(tracked, np.float32) == np.float64 and not np.iscomplexobj(tracked)
    assert "0.3" in np.array_repr(tracked.cpu()) and "0.3" in np.array2string(tracked.cpu())


def test_scipy_functions_reach_ours() -> None:
    scipy_special = pytest.importorskip("scipy.special")
    t = gg.tensor(A, requires_grad=True)
    for f in (scipy_special.erf, scipy_special.expit, lambda t: scipy_special.xlogy(t, t * t)):
        y = f(t)
        assert type(y) is Tensor and y.requires_grad
        np.testing.assert_allclose(y.data, f(A), rtol=1e-12)
    with pytest.raises(TypeError, match="no derivative for the ufunc gammaln"):
        scipy_special.gammaln(t)


# ------------------------------------------------------------------------------------------------- functions that we do not have


MISSING: dict[str, Callable[[Any], Any]] = {
    "np.unwrap": np.unwrap, "np.fft.fft": lambda t: np.fft.fft(t).real, "np.cov": np.cov, "np.gradient": lambda t: np.gradient(t, axis=0), "np.modf": lambda t: np.modf(t)[0],
    "np.linalg.svd": lambda t: np.linalg.svd(t, compute_uv=False), "np.searchsorted": lambda t: np.searchsorted(np.sort(t[0]), t[0]),
}  # fmt: skip


@pytest.mark.parametrize("name", MISSING)
def test_missing_functions(name: str, tracked: Tensor, untracked: Tensor) -> None:
    """A tracked Tensor refuses and says what to do; an untracked one has nothing to lose."""
    f = MISSING[name]
    with pytest.raises(TypeError, match=rf"no derivative for {name}.*functions gg has.*gg\.primitive and gg\.defvjp.*t\.detach\(\)"):
        f(tracked)
    y = f(untracked)
    assert type(y) is Tensor and y.device == untracked.device
    np.testing.assert_allclose(host(y), f(A), rtol=1e-12)


def test_arguments_that_ours_do_not_take(tracked: Tensor, untracked: Tensor) -> None:
    for f in (
        lambda t: np.exp(t, dtype=np.float32),
        lambda t: np.add.accumulate(t.cpu()),
        lambda t: np.sum(t.cpu(), where=A > 0),
        lambda t: np.add.outer(t.cpu()[0], t.cpu()[0]),
    ):
        with pytest.raises(TypeError):
            f(tracked)
        y = f(untracked)
        assert type(y) is Tensor
        np.testing.assert_allclose(host(y), f(Tensor(A)).data)
    with pytest.raises(TypeError, match=r"no derivative for np\.exp with dtype="):
        np.exp(tracked, dtype=np.float32)


def test_missing_names_say_what_to_do() -> None:
    with pytest.raises(AttributeError, match=r"did you mean gg\.softmax\?"):
        gg.softmx(1.0)
    with pytest.raises(AttributeError, match=r"gg\.primitive and gg\.defvjp"):
        gg.zzzzzz(1.0)


def test_linspace_of_tracked_ends_refuses() -> None:
    t = gg.tensor([0.0, 1.0], requires_grad=True)
    for f in (np.linspace, gg.linspace):
        with pytest.raises(TypeError, match="would lose its derivative"):
            f(t[0], t[1], 3)
    with pytest.raises(TypeError, match="would lose its derivative"):
        gg.full((2,), t[0])


# ------------------------------------------------------------------------------------------------- writing


def test_out_refuses_tracked_tensors() -> None:
    a, t, u = A.copy(), gg.tensor(A, requires_grad=True), gg.tensor(A)
    for write in (
        lambda: np.add(a, t, out=a),
        lambda: np.negative(t, out=a),
        lambda: np.add(a, 1.0, out=t),
        lambda: np.sum(t, out=np.zeros(())),
        lambda: np.add.at(a, [0], t[0]),
        lambda: np.copyto(a, t),
        lambda: np.copyto(t, a),
    ):
        with pytest.raises(TypeError, match=r"out=|derivative"):
            write()
    with pytest.raises(TypeError, match=r"np\.add with out= \(or an in-place operator on an array\).*write y = np\.add"):
        a += t
    np.testing.assert_array_equal(a, A)
    np.testing.assert_array_equal(t.data, A)
    assert np.add(a, u, out=a) is a
    a += u
    np.testing.assert_allclose(a, 3 * A)
    assert np.multiply(u, 2.0, out=u) is u
    np.testing.assert_array_equal(u.data, 2 * A)


def test_writing_through_numpy_is_noticed_by_backward() -> None:
    for write in (
        lambda u: np.multiply(u, 2.0, out=u),
        lambda u: np.copyto(u, 0.0),
        lambda u: np.add.at(u, [0], 1.0),
        lambda u: np.fill_diagonal(u, 0.0),
        lambda u: np.put(u, [0], 1.0),
    ):
        t, u = gg.tensor(A, requires_grad=True), gg.tensor(A)
        y = gg.sum(t * u)
        write(u)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            y.backward()


def test_conversion_of_tracked_tensors_is_refused(tracked: Tensor) -> None:
    for convert in (np.asarray, np.array, lambda t: np.array([t, t]), lambda t: np.asarray(t, np.float32), lambda t: np.testing.assert_allclose(t, t)):
        with pytest.raises(TypeError):
            convert(tracked)
    with pytest.raises(TypeError, match=r"np\.asarray\(t\).*\.numpy\(\) or \.detach\(\)"):
        np.asarray(tracked.cpu())
    np.testing.assert_array_equal(tracked.numpy(), A)


def test_conversion_inside_a_transform_is_refused() -> None:
    for convert in (np.asarray, lambda t: t.numpy(), lambda t: t.item(), float):
        with pytest.raises(TypeError):
            gg.grad(lambda x: convert(gg.sum(x)) * 1.0)(A)  # noqa: B023


# ------------------------------------------------------------------------------------------------- CuPy's functions


def test_cupy_ufuncs_reach_ours(fake_cupy: Any) -> None:
    cp = fake_cupy
    a = cp.asarray(A)
    t = gg.tensor(A, device="cuda", requires_grad=True)
    for f in (
        cp.exp,
        cp.negative,
        cp.absolute,
        cp.conj,
        lambda t: cp.add(a, t),
        lambda t: cp.true_divide(t, 2.0),
        lambda t: cp.maximum(t, 0.5),
        lambda t: cp.where(a > 0, t, 0.0),
        lambda t: cp.power(t, 2),
        lambda t: cp.fix(t),
    ):
        y = f(t)
        assert type(y) is Tensor and y.requires_grad and y.device == "cuda:0"
        np.testing.assert_allclose(host(y), host(f(a)), rtol=1e-12)
    u = t.detach()
    y = cp.exp(u)
    assert type(y) is Tensor and not y.requires_grad
    assert type(cp.nextafter(u, 1.0)) is Tensor  # one that we do not have


def test_cupy_ufuncs_refuse_what_loses_a_derivative(fake_cupy: Any) -> None:
    cp = fake_cupy
    a = cp.asarray(A)
    t = gg.tensor(A, device="cuda", requires_grad=True)
    with pytest.raises(TypeError, match=r"CuPy function 'nextafter' would drop the derivative.*gg\.primitive"):
        cp.nextafter(t, 1.0)
    for write in (lambda: cp.add(a, t, a), lambda: cp.add(a, t, out=a), lambda: a.__iadd__(t)):
        with pytest.raises(TypeError, match=r"'add' with out= \(or an in-place operator on an array\) would drop the derivative"):
            write()
    with pytest.raises(TypeError):
        a[...] = t
    np.testing.assert_array_equal(a.get(), A)
    a += t.detach()
    np.testing.assert_allclose(a.get(), 2 * A)


def test_a_users_kernel_is_not_taken_for_ours(fake_cupy: Any) -> None:
    """An ElementwiseKernel may have any name; it gets plain arrays, and a tracked Tensor refuses."""

    class Kernel:
        name, nin = "exp", 1

        def __call__(self, x: Any) -> Any:
            return x * 100.0

    t = gg.tensor(A, device="cuda", requires_grad=True)
    np.testing.assert_allclose(host(t.detach().__cupy_override_elementwise_kernel__(Kernel(), t.detach())), 100 * A)
    with pytest.raises(TypeError, match="'exp' would drop the derivative"):
        t.__cupy_override_elementwise_kernel__(Kernel(), t)
