"""Standardizer: mean 0, standard deviation 1, and back."""

import json
import math

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import gpugrad as gg
from gpugrad import backend, io
from gpugrad.data import Standardizer

RNG = np.random.default_rng(0)


def host(x):
    return backend.to_device(x, "cpu")


def test_mean_and_deviation_of_columns(put, device):
    x = RNG.normal([3.0, -2.0, 0.0], [0.1, 5.0, 1.0], (200, 3))
    s = Standardizer().fit(put(x))
    assert_allclose(host(s.mean), [sum(column) / 200 for column in x.T], rtol=1e-12, atol=1e-14)
    assert_allclose(host(s.std), [np.sqrt(sum((v - sum(c) / 200) ** 2 for v in c) / 200) for c in x.T], rtol=1e-12)
    z = s.transform(put(x))
    assert backend.device_of(z) == backend.device_of(s.mean) == backend.device_name(device)
    assert_allclose(host(z).mean(0), 0, atol=1e-14)
    assert_allclose(host(z).std(0), 1, rtol=1e-14)
    assert_allclose(host(s.inverse(z)), x, rtol=1e-12, atol=1e-14)


def test_other_rows_get_the_numbers_of_the_training_part():
    s = Standardizer().fit([[0.0, 10.0], [2.0, 30.0]])
    assert_array_equal(s.transform(np.array([[4.0, 0.0]])), [[3.0, -2.0]])
    assert_array_equal(s.inverse(np.array([[3.0, -2.0]])), [[4.0, 0.0]])


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_dtypes_are_kept_and_the_sums_are_in_float64(dtype, put):
    x = put((RNG.normal(size=(5000, 2)) + 8).astype(dtype))
    s = Standardizer().fit(x)
    assert s.mean.dtype == s.std.dtype == np.float64
    exact = host(x).astype(np.float64)
    assert_allclose(host(s.mean), exact.mean(0), rtol=1e-14)
    assert_allclose(host(s.std), exact.std(0), rtol=1e-13)
    assert s.transform(x).dtype == s.inverse(x).dtype == np.dtype(dtype)


def test_integers_become_floats(put):
    s = Standardizer().fit(put(np.array([[1, 0], [3, 10]], np.uint8)))
    z = s.transform(put(np.array([[1, 0], [3, 10]], np.uint8)))
    assert z.dtype == gg.get_default_dtype()
    assert_array_equal(host(z), [[-1, -1], [1, 1]])
    assert Standardizer().fit(np.array([True, False])).mean == 0.5


def test_a_large_mean_costs_no_digits():
    """The textbook formula, the mean of squares less the square of the mean, gives nonsense here."""
    x = 1e9 + np.arange(7.0).reshape(-1, 1)
    s = Standardizer().fit(x)
    assert_allclose(s.std, [2.0], rtol=1e-12)
    assert_allclose(s.mean, [1e9 + 3], rtol=1e-16)


def test_many_rows_cost_no_digits():
    """A sum down a column rounds with each row; the second pass corrects the mean."""
    x = 1e6 + RNG.uniform(size=(100_000, 2))
    assert_array_equal(Standardizer().fit(x).mean, [math.fsum(c) / len(x) for c in x.T])


@pytest.mark.parametrize("value", [0.0, 0.1, -1e12, 1e-30, 3.3e7])
def test_a_constant_column_becomes_zero(value, put):
    """Also where the rounded sum says that the mean of equal numbers is another number."""
    x = np.full((10_000, 2), value)
    x[:, 1] = RNG.normal(size=10_000)
    s = Standardizer().fit(put(x))
    assert float(s.std[0]) == 1
    assert_array_equal(host(s.transform(put(x)))[:, 0], 0)
    assert_array_equal(host(s.inverse(s.transform(put(x))))[:, 0], value)


def test_one_row():
    assert_array_equal(Standardizer().fit(np.array([[3.0, 4.0]])).std, [1, 1])


@pytest.mark.parametrize("axis", [0, 1, -1, (0, 2), None])
def test_axes(axis, put):
    x = RNG.normal(2.0, 3.0, (4, 5, 6))
    s = Standardizer(axis).fit(put(x))
    assert_allclose(host(s.mean), x.mean(axis), rtol=1e-12)
    assert_allclose(host(s.std), x.std(axis), rtol=1e-12)
    z = s.transform(put(x))
    assert_allclose(host(z), (x - x.mean(axis, keepdims=True)) / x.std(axis, keepdims=True), rtol=1e-12, atol=1e-13)
    assert_allclose(host(s.inverse(z)), x, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused_by_its_place(bad, put):
    x = np.zeros((4, 3), np.float32)
    x[2, 1] = bad
    with pytest.raises(ValueError, match=rf"holds {bad} in row 2, column 1; remove or fill"):
        Standardizer().fit(put(x))
    with pytest.raises(ValueError, match=rf"holds {bad} in row 1;"):
        Standardizer().fit(put(np.array([0, bad])))
    with pytest.raises(ValueError, match=r"in row 0, at \(1, 2\);"):
        Standardizer(None).fit(put(np.array([[[0, 0, 0], [0, 0, bad]]])))


def test_errors():
    s = Standardizer()
    for use in (lambda: s.transform(np.ones(2)), lambda: s.inverse(np.ones(2)), s.state_dict):
        with pytest.raises(RuntimeError, match="has not been fitted: call fit"):
            use()
    s.fit(np.ones((3, 2)))
    with pytest.raises(ValueError, match=r"fitted for shape \(2,\) without the axes 0, got x of shape \(3, 4\)"):
        s.transform(np.ones((3, 4)))
    with pytest.raises(ValueError, match=r"got x of shape \(2,\)"):
        s.transform(np.ones(2))
    with pytest.raises(ValueError, match=r"empty array of shape \(0, 2\)"):
        s.fit(np.ones((0, 2)))
    with pytest.raises(TypeError, match="complex128"):
        s.fit(np.ones((3, 2)) * 1j)
    with pytest.raises(TypeError, match=r"requires grad.*\.detach"):
        s.transform(gg.tensor(np.ones((3, 2)), requires_grad=True))


def test_state_goes_through_a_file_to_any_device(put, device, tmp_path):
    x = RNG.normal(3.0, 2.0, (50, 2))
    s = Standardizer().fit(put(x))
    io.save(tmp_path / "scale.safetensors", s.state_dict())
    loaded = Standardizer()
    loaded.load_state_dict(io.load(tmp_path / "scale.safetensors", device))
    assert_array_equal(host(loaded.transform(put(x))), host(s.transform(put(x))))
    assert_allclose(loaded.transform(x), host(s.transform(put(x))), rtol=1e-15)  # data of the host, whatever it was fitted on
    assert json.loads(json.dumps(host(s.mean).tolist())) == host(s.mean).tolist()
    for state in (
        {"mean": np.zeros(2)},
        {"mean": np.zeros(2), "std": np.zeros(2)},
        {"mean": np.zeros(2), "std": np.ones(3)},
        {"mean": np.array([np.nan]), "std": np.ones(1)},
        {"mean": np.zeros(1), "std": np.ones(1), "more": np.ones(1)},
    ):
        with pytest.raises(ValueError, match=r"Standardizer is 'mean' and 'std'|must be finite and of one shape"):
            loaded.load_state_dict(state)
