"""Operators as SciPy's and CuPy's LinearOperator, and in scipy.optimize."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import scipy.optimize
import scipy.sparse.linalg as sparse
from curvature_cases import cut, labels, net, reals
from numpy.testing import assert_allclose, assert_array_equal

import gpugrad as gg
from gpugrad.curvature import GaussNewtonOperator, HessianOperator, objective
from gpugrad.data import DataLoader, TensorDataset
from gpugrad.nn import functional as F  # noqa: N812

X, Y = reals(9, 4, seed=5), labels(9, 3)
loss = lambda m, b: F.cross_entropy(m(b[0]), b[1])


@pytest.fixture(name="H")
def _hessian() -> HessianOperator:
    return HessianOperator(loss, net(), cut(X, Y, 5, 4))


def test_shapes_and_dtypes(H: HessianOperator) -> None:
    L, D, n = H.to_scipy(), H.to_dense(), H.shape[0]
    assert isinstance(L, sparse.LinearOperator) and L.shape == (n, n) and L.dtype == np.float64
    for shape in ((n,), (n, 1), (n, 4)):
        v = reals(*shape)
        assert (L @ v).shape == shape
        assert_allclose(L @ v, D @ v, rtol=1e-9, atol=1e-13)
        assert_allclose(L.H @ v, D @ v, rtol=1e-9, atol=1e-13)
    assert_allclose(L.matvec(reals(n)), D @ reals(n), rtol=1e-9, atol=1e-13)
    assert_allclose(L.rmatvec(reals(n)), D @ reals(n), rtol=1e-9, atol=1e-13)
    assert_allclose(L.rmatmat(reals(n, 2)), D @ reals(n, 2), rtol=1e-9, atol=1e-13)
    assert_allclose((2 * L + L) @ np.ones(n, int), 3 * D.sum(1), rtol=1e-9, atol=1e-13)
    z = reals(n) + 1j * reals(n, seed=1)
    assert_allclose(L @ z, D @ z, rtol=1e-9, atol=1e-13)
    assert_allclose(L @ np.stack([z, 1j * z], axis=1), D @ np.stack([z, 1j * z], axis=1), rtol=1e-9, atol=1e-13)
    B = H.block("0.weight", "2.bias")
    assert_allclose(B.to_scipy().T @ reals(20), D[:20, -3:].T @ reals(20), rtol=1e-9, atol=1e-13)


def test_eigenvalues(H: HessianOperator) -> None:
    values = np.linalg.eigvalsh(H.to_dense())
    assert_allclose(sparse.eigsh(H.to_scipy(), k=3, which="LA")[0], values[-3:], rtol=1e-9)
    assert_allclose(sparse.eigsh(H.to_scipy(), k=2, which="SA")[0], values[:2], rtol=1e-9)
    largest = np.sort(abs(values))[::-1]
    assert_allclose(np.sort(sparse.svds(H.to_scipy(), k=3)[1])[::-1], largest[:3], rtol=1e-9)
    found = sparse.lobpcg(H.to_scipy(), reals(H.shape[0], 4), largest=True, maxiter=400, tol=1e-10)[0]
    assert_allclose(found, values[::-1][:4], rtol=1e-6)


def test_solvers(H: HessianOperator) -> None:
    b = reals(H.shape[0])
    G = GaussNewtonOperator(net(), "cross_entropy", data=[(X, Y)]).damped(0.1)
    expected = np.linalg.solve(G.to_dense(), b)
    for solve in (sparse.cg, sparse.minres, sparse.gmres):
        solution, info = solve(G.to_scipy(), b, rtol=1e-12)
        assert info == 0
        assert_allclose(solution, expected, rtol=1e-7, atol=1e-9)
    preconditioned = sparse.cg(G.to_scipy(), b, M=G.inverse(tol=1e-8).to_scipy(), rtol=1e-12)
    assert_allclose(preconditioned[0], expected, rtol=1e-7, atol=1e-9)


def test_float32_is_float32_to_scipy() -> None:
    H = HessianOperator(loss, net().float(), [(X.astype(np.float32), Y)])
    L = H.to_scipy()
    assert L.dtype == (L @ reals(43)).dtype == np.float32
    values, vectors = sparse.eigsh(L, k=2)
    assert vectors.dtype == np.float32
    assert_allclose(H @ vectors, vectors * values, atol=1e-4)
    assert H.to_scipy(np.float64).dtype == (H.to_scipy(np.float64) @ reals(43)).dtype == np.float64


def test_of_a_gpu_scipy_gets_numpy(fake_cupy: Any) -> None:
    w = reals(3)
    H = HessianOperator(lambda x: gg.sum(x**4), fake_cupy.asarray(w))
    product = H.to_scipy() @ np.ones(3)
    assert type(product) is np.ndarray
    assert_allclose(product, 12 * w**2)


class _LinearOperator:
    """The part of cupyx.scipy.sparse.linalg.LinearOperator that matters here."""

    def __init__(self, shape: Any, matvec: Any, rmatvec: Any = None, matmat: Any = None, dtype: Any = None, rmatmat: Any = None) -> None:
        self.shape, self.matvec, self.rmatvec, self.matmat, self.dtype, self.rmatmat = shape, matvec, rmatvec, matmat, dtype, rmatmat


def test_to_cupyx_keeps_vectors_on_the_gpu(fake_cupy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("cupyx.scipy.sparse.linalg")
    module.LinearOperator = _LinearOperator  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "cupyx.scipy.sparse", ModuleType("cupyx.scipy.sparse"))
    monkeypatch.setitem(sys.modules, "cupyx.scipy.sparse.linalg", module)
    w = reals(3)
    H = HessianOperator(lambda x: gg.sum(x**4), fake_cupy.asarray(w))
    L = H.to_cupyx()
    assert (L.shape, L.dtype) == ((3, 3), np.float64)
    for f, v in ((L.matvec, reals(3)), (L.matvec, reals(3, 1)), (L.rmatvec, reals(3)), (L.matmat, reals(3, 2)), (L.rmatmat, reals(3, 2))):
        product = f(fake_cupy.asarray(v))
        assert type(product) is fake_cupy.ndarray and product.shape == v.shape
        assert_allclose(product.get(), (12 * w**2 * v.T).T)


@pytest.mark.gpu
def test_cupyx_solves_on_the_gpu() -> None:
    import cupy
    import cupyx.scipy.sparse.linalg as linalg

    m = net().to("cuda")
    G = GaussNewtonOperator(m, "cross_entropy", data=[(cupy.asarray(X), cupy.asarray(Y))]).damped(0.1)
    D, b = G.to_dense().get(), reals(43)
    for solve in (linalg.cg, linalg.minres, linalg.gmres):
        x = solve(G.to_cupyx(), cupy.asarray(b), tol=1e-10)[0]
        assert type(x) is cupy.ndarray
        assert_allclose(x.get(), np.linalg.solve(D, b), rtol=1e-5, atol=1e-7)
    assert_allclose(np.sort(linalg.eigsh(G.to_cupyx(), k=3, which="LA")[0].get()), np.linalg.eigvalsh(D)[-3:], rtol=1e-7)


def test_to_cupyx_needs_a_gpu(H: HessianOperator) -> None:
    with pytest.raises(gg.DeviceError, match=r"to_cupyx needs an operator on a GPU.*to_scipy\(\)"):
        H.to_cupyx()


# ---------------------------------------------------------------------------------- scipy.optimize


def rosenbrock(x: Any) -> Any:
    return gg.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)


@pytest.mark.parametrize("method", ["Newton-CG", "trust-ncg", "trust-krylov", "trust-constr"])
def test_minimize_rosenbrocks_function(method: str) -> None:
    f = objective(rosenbrock, np.full(5, -0.7))
    result = scipy.optimize.minimize(f.fun, f.x0, jac=f.jac, hessp=f.hessp, method=method, options={"maxiter": 400})
    assert_allclose(result.x, 1, atol=1e-3)
    H = HessianOperator(rosenbrock, np.full(5, -0.7))
    again = scipy.optimize.minimize(f.fun, f.x0, jac=f.jac, hessp=H.hessp, method=method, options={"maxiter": 400})
    assert_array_equal(again.x, result.x)


def test_minimize_an_mlp_over_batches() -> None:
    m, data = net(), DataLoader(TensorDataset(X, Y), 4)
    penalised = lambda m, b: loss(m, b) + 0.01 * sum(gg.sum(p * p) for p in m.parameters())
    f = objective(penalised, m, data)
    result = scipy.optimize.minimize(f.fun_and_jac, f.x0, jac=True, hessp=f.hessp, method="trust-ncg", options={"gtol": 1e-8})
    assert result.success and abs(result.jac).max() < 1e-8
    params = f.to_nest(result.x)
    assert list(params) == [path for path, _ in m.named_parameters()]
    H = f.operator.at(params)
    assert_allclose(H.value(), result.fun)
    assert abs(H.gradient()["0.weight"]).max() < 1e-8
    assert np.linalg.eigvalsh(H.to_dense()).min() > 0
    assert_array_equal(f.x0, H.domain.flat({path: p.numpy() for path, p in m.named_parameters()}))


def test_objective_computes_each_thing_once() -> None:
    calls: list[str] = []

    def counted(x: Any) -> Any:
        calls.append("loss")
        return rosenbrock(x)

    f = objective(counted, np.zeros(4))
    x = np.full(4, 0.3)
    calls.clear()
    value, gradient = f.fun_and_jac(x)
    assert f.fun(x) == value and len(calls) == 1
    assert_array_equal(f.jac(x), gradient)
    gradient[:] = 0
    assert abs(f.jac(x)).max() > 0 and len(calls) == 1
    first = f.hessp(x, np.ones(4))
    assert_array_equal(f.hessp(x, np.ones(4)), first)
    assert len(calls) == 2
    x[0] = 0.5  # changed in place
    assert abs(f.hessp(x, np.ones(4)) - first).max() > 0
    assert_allclose(f.hessp(x, np.ones(4)), scipy.optimize.rosen_hess_prod(x, np.ones(4)))
    assert_allclose(f.jac(x), scipy.optimize.rosen_der(x))
    assert_allclose(f.fun(x), scipy.optimize.rosen(x))


def test_objective_is_float64_to_scipy_whatever_the_parameters_are(device: str, put: Any) -> None:
    f = objective(rosenbrock, put(np.zeros(4, np.float32)))
    x = np.linspace(0, 1, 4)
    for got, expected in [
        (f.x0, np.zeros(4)), (f.jac(x), scipy.optimize.rosen_der(x)), (f.hessp(x, np.ones(4)), scipy.optimize.rosen_hess_prod(x, np.ones(4))),
    ]:  # fmt: skip
        assert type(got) is np.ndarray and got.dtype == np.float64
        assert_allclose(got, expected, rtol=1e-5, atol=1e-4)
    assert type(f.fun(x)) is float
    nest = f.to_nest(x)
    assert nest.dtype == np.float32 and gg.backend.device_of(nest).startswith(device)


def test_objective_of_a_gauss_newton_operator() -> None:
    y = reals(9, 3)
    G = GaussNewtonOperator(net(), "mse", data=cut(X, y, 5, 4))
    f = G.objective()
    x = f.x0 + 0.1
    assert_allclose(f.hessp(x, np.ones(43)), G.at(x).to_dense().sum(1), rtol=1e-9)
    assert_allclose(f.jac(x), scipy.optimize.approx_fprime(x, f.fun, 1e-7), atol=1e-5)
