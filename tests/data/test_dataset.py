"""TensorDataset and Subset."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import gpugrad as gg
from gpugrad import DeviceError, backend
from gpugrad.data import Subset, TensorDataset

X, Y = np.arange(20.0).reshape(10, 2), np.arange(10)


def host(x):
    return backend.to_device(x, "cpu")


def test_rows_of_arrays(put, device):
    for arrays in ((put(X), put(Y)), (gg.asarray(put(X)), gg.asarray(put(Y)))):
        dataset = TensorDataset(*arrays)
        assert len(dataset) == 10
        x, y = dataset[3]
        assert (host(x).tolist(), int(y)) == ([6, 7], 3)
        for rows in (slice(2, 7, 2), np.array([2, 4, 6]), [2, 4, 6], put(np.array([2, 4, 6])), put(np.isin(Y, [2, 4, 6])), np.array([-8, 4, -4])):
            if rows is not None and isinstance(rows, list) and device != "cpu":
                continue
            x, y = dataset[rows]
            assert backend.is_array(x)
            assert host(y).tolist() == [2, 4, 6]
            assert_array_equal(host(x), X[[2, 4, 6]])
        assert backend.device_of(dataset[:2][0]) == backend.device_name(device)


def test_arrays_are_not_copied_and_a_slice_is_a_view():
    dataset = TensorDataset(X)
    assert dataset.arrays[0] is X
    assert np.shares_memory(dataset[2:4][0], X)
    assert not np.shares_memory(dataset[np.array([2, 3])][0], X)
    with pytest.raises(IndexError):
        dataset[10]
    with pytest.raises(IndexError):
        dataset[np.array([10])]


def test_what_is_refused(fake_cupy):
    with pytest.raises(ValueError, match=r"must have the same number of rows, got shapes \(10, 2\), \(3,\)"):
        TensorDataset(X, Y[:3])
    with pytest.raises(ValueError, match="same number of rows"):
        TensorDataset(np.float64(3))
    with pytest.raises(ValueError, match="at least one array"):
        TensorDataset()
    with pytest.raises(TypeError, match=r"requires grad.*\.detach"):
        TensorDataset(gg.tensor(X, requires_grad=True))
    with pytest.raises(TypeError, match="expected numbers, got an array of <U1"):
        TensorDataset(np.array(["a", "b"]))
    with pytest.raises(TypeError, match="expected numbers, got an array of object"):
        TensorDataset(np.array([1, None]))
    with pytest.raises(DeviceError, match=r"on one device, got cpu and cuda:0: move them with \.to"):
        TensorDataset(fake_cupy.asarray(X), Y)


def test_subset():
    part = Subset(TensorDataset(X, Y), [7, -1, 0])
    assert len(part) == 3
    assert part[1][1] == 9
    assert part[1:][1].tolist() == [9, 0]
    assert part[np.array([2, 0])][1].tolist() == [0, 7]
    assert part[np.array([True, False, True])][1].tolist() == [7, 0]
    assert len(Subset(TensorDataset(X), [])) == 0
    assert Subset(TensorDataset(X), gg.asarray(np.array([1, 2])))[0][0].tolist() == [2, 3]
    words = Subset(["a", "b", "c"], [2, 0])
    assert [words[i] for i in range(2)] == ["c", "a"]
    pairs = Subset([(i, i * i) for i in range(5)], [4, 2])
    assert pairs[:][1].tolist() == [16, 4]
    with pytest.raises(IndexError, match="index 10 of a Subset is out of range: the dataset has 10 examples"):
        Subset(TensorDataset(X), [0, 10])
    with pytest.raises(IndexError, match="index -11 "):
        Subset(TensorDataset(X), [-11])
    with pytest.raises(TypeError, match="row of integers, got bool"):
        Subset(TensorDataset(X), np.ones(10, bool))
    with pytest.raises(TypeError, match="row of integers, got float64"):
        Subset(TensorDataset(X), [0.5])
