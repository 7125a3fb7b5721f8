"""Nests as JSON and arrays: what goes in comes out, to the bit and the type."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

import gpugrad as gg
from gpugrad import backend, io
from gpugrad.training.packing import from_json, pack, to_json, unpack


def same(a, b):
    """Equal in type, value, dtype and bits, nan included."""
    if type(a) is gg.Tensor:
        return type(b) is gg.Tensor and same(a.data, b.data)
    if isinstance(a, (np.ndarray, np.generic)):
        return type(a) is type(b) and a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b or (a != a and b != b)


def there_and_back(nest, path):
    packed, arrays = pack(nest)
    io.save(path, arrays)
    return unpack(from_json(to_json(packed)), {name: t.data for name, t in io.load(path).items()})


numbers = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=4)
arrays = st.sampled_from(
    [
        np.array([1.5, np.nan]), np.zeros((0, 3), np.float32), np.array(3, np.int8), np.float32(0.1), np.bool_(True), np.int64(-5), np.arange(6).reshape(2, 3).T,
        gg.Tensor(np.ones(2, np.float16)), np.array([1 + 2j]), np.array(1j, np.complex64), np.complex128(2j), np.arange(5)[::-2], np.array([0.0, -0.0]),
    ]
)  # fmt: skip
keys = st.text(max_size=3) | st.integers() | st.sampled_from(["$array", "$tuple", "a/b", "a", "", 0, -1, True, None, (1, "x"), 1.5])
nests = st.recursive(
    numbers | arrays, lambda x: st.lists(x, max_size=3) | st.lists(x, max_size=3).map(tuple) | st.dictionaries(keys, x, max_size=3), max_leaves=12
)


@given(nests)
@settings(max_examples=150, deadline=None)
def test_there_and_back(nest):
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        assert same(there_and_back(nest, f"{folder}/t"), nest)


def test_names_that_look_alike(tmp_path):
    nest = {"a/b": np.ones(1), "a": {"b": np.ones(2), 1: np.ones(3), "1": np.ones(4)}, "": np.ones(5)}
    assert same(there_and_back(nest, tmp_path / "t"), nest)


def test_bfloat16_and_the_device(tmp_path, put, device):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    a = np.arange(3).astype(ml_dtypes.bfloat16)
    assert same(there_and_back({"a": a}, tmp_path / "t"), {"a": a})
    back = there_and_back([put(np.arange(3.0)), gg.Tensor(put(np.ones(2)))], tmp_path / "t")
    assert backend.device_of(back[0]) == "cpu"
    assert_array_equal(back[0], [0, 1, 2])
    assert same(back[1], gg.Tensor(np.ones(2)))


def test_the_text_is_strict_json():
    packed, _ = pack({"a": math.nan, "b": [math.inf, -math.inf]})
    assert json.loads(to_json(packed), parse_constant=pytest.fail) == {"a": {"$float": "nan"}, "b": [{"$float": "inf"}, {"$float": "-inf"}]}


@pytest.mark.parametrize("thing", [{1}, object(), b"bytes", lambda: 0, 1j, range(3), np.array([None]), np.array(["text"])])
def test_what_cannot_be_packed_is_named(thing):
    with pytest.raises(TypeError, match=r"^here/0 is "):
        pack({"here": [thing]})
