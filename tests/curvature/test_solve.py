"""Conjugate gradients, iterate by iterate."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from minima import spd
from numpy.testing import assert_allclose, assert_array_equal

import gpugrad as gg
from gpugrad.curvature.solve import conjugate_gradients


def host(x):
    return gg.Tensor(x).numpy()


@pytest.mark.parametrize("start", [None, 3.0])
@pytest.mark.parametrize("preconditioned", [False, True])
def test_the_solution_after_as_many_products_as_rows(start, preconditioned, put):
    a, b, m = spd(6), np.arange(1.0, 7), np.linspace(1, 9, 6)
    matrix, inverse = put(a), put(1 / m)
    x = None if start is None else put(np.full(6, start))
    precondition = (lambda r: inverse * r) if preconditioned else None
    steps = list(itertools.islice(conjugate_gradients(lambda p: matrix @ p, put(b), x, precondition), 6))
    assert_allclose(host(steps[-1].x), np.linalg.solve(a, b), rtol=1e-9)
    values = []
    for step in steps:
        x, r, p = map(host, (step.x, step.residual, step.direction))
        assert_allclose(r, b - a @ x, atol=1e-12)
        assert step.curvature == pytest.approx(p @ a @ p, rel=1e-10)
        values.append(x @ a @ x / 2 - b @ x)
    assert all(after < before for before, after in itertools.pairwise(values))
    for one, other in itertools.combinations(steps[:4], 2):
        p, q = host(one.direction), host(other.direction)
        assert abs(p @ a @ q) < 1e-9 * np.sqrt((p @ a @ p) * (q @ a @ q))  # conjugate


def test_with_the_exact_preconditioner_one_product_is_enough():
    a, b = spd(6), np.arange(1.0, 7)
    step = next(conjugate_gradients(lambda p: a @ p, b, precondition=lambda r: np.linalg.solve(a, r)))
    assert_allclose(step.x, np.linalg.solve(a, b), rtol=1e-12)


def test_curvature_that_is_not_positive_ends_with_the_point_before():
    a, b = np.diag([1.0, -1.0]), np.array([1.0, 1e-3])
    first, last = conjugate_gradients(lambda p: a @ p, b)
    assert first.curvature > 0 > last.curvature
    assert_array_equal(last.x, first.x)
    assert last.curvature == pytest.approx(last.direction @ a @ last.direction)
    for bad in (0.0, np.nan):
        (only,) = conjugate_gradients(lambda p, bad=bad: p * bad, b)
        assert_array_equal(only.x, 0)
        assert_array_equal(only.direction, b)
        assert not only.curvature > 0


def test_nothing_to_solve_and_float32(put):
    assert list(conjugate_gradients(lambda p: p, put(np.zeros(3)))) == []
    a, b = spd(30).astype(np.float32), np.ones(30, np.float32)
    steps = list(itertools.islice(conjugate_gradients(lambda p: a @ p, b), 30))
    assert {step.x.dtype for step in steps} == {np.dtype(np.float32)} == {step.direction.dtype for step in steps}
    assert_allclose(steps[-1].x, np.linalg.solve(a.astype(float), b), rtol=1e-4)
