"""Inverses by conjugate gradients and MINRES against dense solutions."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import scipy.sparse.linalg
from curvature_cases import cut, labels, net, reals
from numpy.testing import assert_allclose, assert_array_equal

import gpugrad as gg
from gpugrad.curvature import GaussNewtonOperator, HessianOperator
from gpugrad.curvature.minres import minimal_residuals
from gpugrad.nn import functional as F  # noqa: N812


def symmetric(*eigenvalues: float, seed: int = 0) -> np.ndarray:
    q = np.linalg.qr(reals(len(eigenvalues), len(eigenvalues), seed=seed))[0]
    return q * np.array(eigenvalues) @ q.T


def operator(A: np.ndarray) -> HessianOperator:
    return HessianOperator(lambda x: 0.5 * (x @ A @ x), np.zeros(len(A)))


@pytest.mark.parametrize("method", ["cg", "minres"])
def test_of_positive_definite_matrices(method: str, device: str, put: Any) -> None:
    m, x, y = net(), reals(9, 4), labels(9, 3)
    m = m.to(device)
    G = GaussNewtonOperator(m, "cross_entropy", data=[(put(a), put(b)) for a, b in cut(x, y, 5, 4)]).damped(0.1)
    D = gg.backend.to_device(G.to_dense(), "cpu")
    back = lambda a: gg.backend.to_device(a, "cpu")
    inverse = G.inverse(method, tol=1e-12)
    b, B = reals(G.shape[0]), reals(G.shape[0], 3)
    assert gg.backend.device_of(inverse @ put(b)) == G.device
    assert_allclose(back(inverse @ put(b)), np.linalg.solve(D, b), rtol=1e-9, atol=1e-10)
    assert_allclose(back(inverse @ put(B)), np.linalg.solve(D, B), rtol=1e-9, atol=1e-10)
    assert [s.converged for s in inverse.info] == [True] * 3
    assert all(0 < s.iterations <= 43 and s.residual < 1e-10 for s in inverse.info)
    nest = G.domain.nest(put(b))
    assert_allclose(back(G.domain.flat(inverse @ nest)), np.linalg.solve(D, b), rtol=1e-9, atol=1e-10)


def test_minres_solves_indefinite_systems() -> None:
    A = symmetric(-3, -1, -0.5, 0.5, 1, 2, 4)
    b = reals(7)
    inverse = operator(A).inverse("minres", tol=1e-12)
    assert_allclose(inverse @ b, np.linalg.solve(A, b), rtol=1e-9)
    assert_allclose(gg.jacobian(lambda b: inverse @ b)(b), np.linalg.inv(A), rtol=1e-8, atol=1e-10)
    with pytest.raises(np.linalg.LinAlgError, match=r"p'A p / p'p = -[\d.]+ .*not positive definite.*damped.*minres"):
        operator(A).inverse("cg", tol=1e-12) @ b


def test_minres_has_the_smallest_residual_of_the_krylov_space() -> None:
    A, b = symmetric(-3, -1, -0.5, 0.5, 1, 2, 4), reals(7)
    basis: list[np.ndarray] = []
    for k, step in zip(range(6), minimal_residuals(lambda v: A @ v, b)):
        basis.append(np.linalg.matrix_power(A, k) @ b)
        K = np.stack(basis, axis=1)
        best = np.linalg.lstsq(A @ K, b, rcond=None)
        residual = np.linalg.norm(b - A @ K @ best[0])
        assert_allclose(np.linalg.norm(b - A @ step.x), residual, rtol=1e-7)
        assert_allclose(step.residual_norm, residual, rtol=1e-7)


def test_minres_of_singular_matrices() -> None:
    A = symmetric(-1, 0, 0, 2, 3)
    b = A @ reals(5)
    x = operator(A).inverse("minres", tol=1e-12) @ b
    assert_allclose(A @ x, b, rtol=1e-10)
    assert_allclose(x, np.linalg.pinv(A) @ b, rtol=1e-9, atol=1e-12)  # the shortest solution
    with pytest.warns(RuntimeWarning, match="minres has not converged"):
        operator(A).inverse("minres") @ reals(5)
    with pytest.warns(RuntimeWarning, match=r"\|b - A x\| is 1 \|b\|"):
        assert_array_equal(operator(np.zeros((3, 3))).inverse("minres") @ np.ones(3), 0)


@pytest.mark.parametrize("method", ["cg", "minres"])
def test_preconditioners(method: str) -> None:
    d = np.logspace(0, 6, 40)
    A = np.diag(d) + 0.1 * symmetric(*np.ones(40)) + 0.01
    b = reals(40)
    plain, good = operator(A).inverse(method, tol=1e-8), operator(A).inverse(method, tol=1e-8, preconditioner=lambda r: r / d)
    x = good @ b
    assert_allclose(x, np.linalg.solve(A, b), rtol=1e-5, atol=1e-8)
    plain @ b
    assert good.info[0].iterations < plain.info[0].iterations / 3
    perfect = operator(A).inverse(method, tol=1e-10, preconditioner=operator(np.linalg.inv(A)))
    assert_allclose(perfect @ b, np.linalg.solve(A, b), rtol=1e-7, atol=1e-10)
    assert perfect.info[0].iterations <= 2


@pytest.mark.parametrize("method", ["cg", "minres"])
def test_the_scale_of_a_preconditioner_does_not_matter(method: str) -> None:
    A, b = operator(symmetric(*np.linspace(1, 100, 20))), reals(20)
    plain, scaled = A.inverse(method), A.inverse(method, preconditioner=lambda r: 1e-8 * r)
    assert_allclose(scaled @ b, plain @ b, rtol=1e-6, atol=1e-9)
    assert scaled.info[0].iterations == plain.info[0].iterations


def test_minres_agrees_with_scipys() -> None:
    A, b = symmetric(*np.linspace(-1, 3, 30)), reals(30)
    M = np.diag(np.linspace(0.5, 2, 30))
    ours = operator(A).inverse("minres", tol=1e-11, preconditioner=lambda r: M @ r) @ b
    assert_allclose(ours, scipy.sparse.linalg.minres(A, b, M=M, rtol=1e-13)[0], rtol=1e-6, atol=1e-8)


def test_what_does_not_converge_is_warned_of_in_the_users_line() -> None:
    A = operator(symmetric(*np.linspace(1, 100, 20)))
    for method in ("cg", "minres"):
        inverse = A.inverse(method, maxiter=3)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            inverse @ reals(20)
        (warning,) = caught
        assert "has not converged in 3 products" in str(warning.message) and warning.filename == __file__
        assert inverse.info[0].iterations == 3 and not inverse.info[0].converged
    assert_array_equal(A.inverse() @ np.zeros(20), 0)


@pytest.mark.parametrize("method", ["cg", "minres"])
def test_the_residual_is_that_of_the_solution(method: str) -> None:
    """Not what the iterations carry along, which is smaller by far where the matrix is ill-conditioned."""
    b = reals(20)
    for eigenvalues, solvable in ((np.logspace(-8, 0, 20), True), (np.logspace(-12, 0, 20), False), (np.r_[0, 1 + np.arange(19)], False)):
        A = symmetric(*eigenvalues)
        inverse = operator(A).inverse(method)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            x = inverse @ b
        (solved,) = inverse.info
        assert_allclose(solved.residual, np.linalg.norm(b - A @ x), rtol=0.1)  # of which rounding takes its part
        assert solved.converged == solvable == (solved.residual <= 1e-6 * np.linalg.norm(b)) == (not caught)


@pytest.mark.parametrize("method", ["cg", "minres"])
@pytest.mark.parametrize("scale", [1e-300, 1e-200, 1e200])
def test_right_hand_sides_of_any_scale(method: str, scale: float) -> None:
    A, b = symmetric(*np.linspace(1, 50, 20)), reals(20)
    inverse = operator(A).inverse(method, tol=1e-10)
    assert_allclose(inverse @ (scale * b) / scale, np.linalg.solve(A, b), rtol=1e-8)
    assert inverse.info[0].converged and 0 < inverse.info[0].residual / scale < 1e-9


def test_float32_and_blocks() -> None:
    m, x, y = net().float(), reals(9, 4).astype(np.float32), labels(9, 3)
    G = GaussNewtonOperator(m, "cross_entropy", data=[(x, y)]).damped(0.1)
    b = reals(43).astype(np.float32)
    for method in ("cg", "minres"):
        solution = G.inverse(method, tol=1e-5) @ b
        assert solution.dtype == np.float32
        assert_allclose(G @ solution, b, rtol=1e-3, atol=1e-4)
    D = G.to_dense().astype(float)
    assert_allclose(G.block("2.bias").inverse(tol=1e-6) @ np.ones(3, np.float32), np.linalg.solve(D[-3:, -3:], np.ones(3)), rtol=1e-4)
    assert_allclose(G.inverse(tol=1e-6).block("2.bias").to_dense(), np.linalg.inv(D)[-3:, -3:], rtol=1e-3, atol=1e-3)


def test_what_it_refuses() -> None:
    A = HessianOperator(lambda p: F.mse_loss(p["a"], p["b"]), {"a": reals(3), "b": reals(3, seed=1)})
    with pytest.raises(ValueError, match=r"method must be 'cg'.*or 'minres'"):
        A.inverse("lu")
    with pytest.raises(ValueError, match="tol must be"):
        A.inverse(tol=2)
    with pytest.raises(ValueError, match="maxiter must be"):
        A.inverse(maxiter=0)
    with pytest.raises(ValueError, match=r"inverse\(\) needs a square operator"):
        A.block("a", "b").inverse()
    with pytest.raises(TypeError, match="preconditioner is ndarray"):
        A.inverse(preconditioner=np.eye(6))
    with pytest.raises(FloatingPointError, match="right-hand side"):
        A.inverse() @ np.full(6, np.nan)


def test_newton_step_on_a_quadratic() -> None:
    X, y = reals(20, 3), reals(20, seed=1)
    H = HessianOperator(lambda w, b: F.mse_loss(b[0] @ w, b[1]), np.zeros(3), cut(X, y, 16, 4))
    step = H.inverse(tol=1e-12) @ H.gradient()
    assert_allclose(-step, np.linalg.lstsq(X, y, rcond=None)[0], rtol=1e-9)
