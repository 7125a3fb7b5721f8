"""Files of weights: what goes in comes out, and what is wrong with a file is said in one line."""

import os

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import gpugrad as gg
from gpugrad import io, nn

DTYPES = [np.float16, np.float32, np.float64, np.int8, np.int64, np.uint8, np.bool_]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "weights.safetensors"


@pytest.mark.parametrize("dtype", DTYPES)
def test_round_trip_of_dtypes_and_layouts(path, dtype):
    a = (np.arange(12).reshape(3, 4) % 2).astype(dtype)
    arrays = {"c": a, "f": a.T, "strided": a[::-1, ::2], "scalar": np.array(1, dtype), "empty": np.zeros((0, 3), dtype), "tensor": gg.Tensor(a)}
    io.save(path, arrays)
    loaded = io.load(path)
    assert set(loaded) == set(arrays)
    for name, value in arrays.items():
        t = loaded[name]
        assert type(t) is gg.Tensor
        assert t.dtype == dtype
        assert_array_equal(t.numpy(), gg.tape.plain(value))


def test_bfloat16(path):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    io.save(path, {"b": np.array([1.5, -2], ml_dtypes.bfloat16)})
    assert io.load(path)["b"].dtype == ml_dtypes.bfloat16


def test_a_module_through_a_file_on_every_device(path, device):
    a, b = nn.MLP([3, 4, 2], device=device), nn.MLP([3, 4, 2], device=device)
    io.save(path, a.state_dict(), {"made by": "a test"})
    state = io.load(path, device)
    assert all(t.device.startswith(device) for t in state.values())
    b.load_state_dict(state)
    x = gg.tensor(np.ones((1, 3), np.float32), device=device)
    assert_array_equal(a(x).numpy(), b(x).numpy())
    assert io.load_metadata(path) == {"made by": "a test"}


def test_other_programs_can_read_it(path):
    safetensors_numpy = pytest.importorskip("safetensors.numpy")
    io.save(path, {"a": np.arange(3.0)})
    assert_array_equal(safetensors_numpy.load_file(path)["a"], [0, 1, 2])
    assert io.load_metadata(path) == {}


def test_the_same_content_gives_the_same_bytes(path):
    about = {f"key {i}": "\u00e9" * i for i in range(20)}
    io.save(path, {"b": np.ones(3), "a": np.zeros(2)}, about)
    first = path.read_bytes()
    io.save(path, {"a": np.zeros(2), "b": np.ones(3)}, dict(reversed(about.items())))
    assert path.read_bytes() == first
    assert io.load_metadata(path) == about


def test_a_broken_file_is_named(path):
    io.save(path, {"a": np.arange(1000.0)})
    whole = path.read_bytes()
    for content in (b"", b"hello", whole[:100], whole[:-1], b"\xff" * 1000):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="is not a complete safetensors file") as info:
            io.load(path)
        assert str(path) in str(info.value)
    with pytest.raises(FileNotFoundError, match="there is no file"):
        io.load(path.with_name("other"))
    with pytest.raises(FileNotFoundError, match="is not a file"):
        io.load(path.parent)


def test_what_cannot_be_saved_is_refused_and_leaves_the_old_file(path):
    io.save(path, {"a": np.ones(2)})
    for bad, error, message in [
        ({"a": np.ones(2) * 1j}, ValueError, "no complex128"),
        ({"a": 3.0}, TypeError, "expected a Tensor or an array, got float"),
        ({1: np.ones(2)}, TypeError, "names of Tensors must be str, got 1"),
    ]:
        with pytest.raises(error, match=message):
            io.save(path, bad)
    with pytest.raises(TypeError, match="metadata must map str to str"):
        io.save(path, {}, {"epoch": 3})
    assert_array_equal(io.load(path)["a"].numpy(), [1, 1])


def test_a_failed_write_leaves_nothing_behind(path, monkeypatch):
    io.save(path, {"a": np.ones(2)})

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        io.save(path, {"a": np.zeros(2)})
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    assert_array_equal(io.load(path)["a"].numpy(), [1, 1])


def test_what_is_not_a_dict_of_arrays_is_named(tmp_path):
    from gpugrad import nn, optim

    model = nn.Linear(2, 1)
    with pytest.raises(TypeError, match=r"expected a dict of Tensors .* got str: the file's name comes first"):
        io.save(model.state_dict(), "m.safetensors")
    with pytest.raises(TypeError, match=r"got Linear: write module.state_dict\(\)"):
        io.save(tmp_path / "m", model)
    with pytest.raises(TypeError, match=r"state: expected a Tensor .* got dict; .*training\.save_checkpoint"):
        io.save(tmp_path / "m", optim.Adam(model.parameters()).state_dict())
