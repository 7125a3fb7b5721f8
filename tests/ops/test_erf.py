"""The error functions against SciPy and math, down to where they underflow."""

import math

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import gpugrad as gg
from gpugrad import special

pytestmark = pytest.mark.filterwarnings("error")
X = np.concatenate([np.linspace(-6, 6, 4001), np.linspace(6, 27, 2000), 10.0 ** -np.arange(1, 300, 10)])


def test_erf_and_erfc_are_within_a_few_units_in_the_last_place():
    for f, exact in ((gg.erf, math.erf), (gg.erfc, math.erfc)):
        expected = np.array([exact(v) for v in X])
        normal = expected == 0
        normal |= np.abs(expected) > np.finfo(float).tiny
        assert (np.abs(f(X) - expected)[normal] <= 7 * np.spacing(np.abs(expected[normal]))).all()


def test_special_values_shapes_and_dtypes():
    x = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1e300, -1e300])
    assert_array_equal(gg.erf(x), [0, 0, 1, -1, np.nan, 1, -1])
    assert np.signbit(gg.erf(-0.0))
    assert_array_equal(gg.erfc(x), [1, 1, 0, 2, np.nan, 0, 2])
    assert gg.erf(np.float32(0.5)).dtype == np.float32
    assert gg.erf(np.zeros((0, 2), np.float32)).shape == (0, 2)
    assert gg.erf(np.ones((3, 4)).T[::-1]).shape == (4, 3)
    assert gg.erf(1) == pytest.approx(math.erf(1))


def test_erfinv_is_the_inverse():
    scipy_special = pytest.importorskip("scipy.special")
    y = np.concatenate([np.linspace(-1, 1, 2001)[1:-1], 1 - 10.0 ** -np.arange(1, 16), 10.0 ** -np.arange(1, 300, 7)])
    assert_allclose(special.erfinv(y), scipy_special.erfinv(y), rtol=1e-14)
    assert_array_equal(special.erfinv(np.array([-1.0, 1.0, 2.0, np.nan, 0.0])), [-np.inf, np.inf, np.nan, np.nan, 0])


def test_logit_xlogy_and_entr():
    scipy_special = pytest.importorskip("scipy.special")
    p = np.concatenate([np.linspace(0, 1, 101), [1e-300, 2.0, np.nan, 0.5 + 1e-12]])
    assert_allclose(special.logit(p), scipy_special.logit(p), rtol=1e-14)
    x, y = np.array([0, 0, 0, 1, 2, -1.0, np.nan]), np.array([0, np.nan, -1, 0, 3, 2.0, 1])
    assert_array_equal(special.xlogy(x, y), scipy_special.xlogy(x, y))
    z = np.array([-1, 0, 0.5, 2, np.nan])
    assert_allclose(special.entr(z), scipy_special.entr(z))
    assert_allclose(gg.grad(lambda x: gg.sum(special.entr(x)))(np.array([0.5, 2.0])), -np.log([0.5, 2.0]) - 1)
    assert_allclose(gg.grad(lambda p: gg.sum(special.logit(p)))(np.array([0.2, 0.7])), [1 / 0.16, 1 / 0.21])


@pytest.mark.parametrize("name", ["erf", "erfc", "erfinv"])
def test_complex_numbers_are_refused(name):
    with pytest.raises(TypeError, match="complex"):
        getattr(gg, name)(np.array([0.5 + 0.5j]))
