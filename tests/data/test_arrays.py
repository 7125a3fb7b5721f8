""".npz and IDX files: good ones, and each way in which they can be bad."""

import gzip
import pickle
import struct
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from gpugrad.data import DataError, load_mnist, read_idx, read_npz

CODES = {"uint8": 0x08, "int8": 0x09, "int16": 0x0B, "int32": 0x0C, "float32": 0x0D, "float64": 0x0E}


def idx_bytes(array):
    code = CODES[array.dtype.name]
    return bytes([0, 0, code, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.astype(array.dtype.newbyteorder(">")).tobytes()


def one_line(error, path):
    """What the message says behind the file's name."""
    text = str(error.value)
    assert "\n" not in text
    assert text.startswith(str(path)), text
    return text[len(str(path)) :]


class Evil:
    def __reduce__(self):
        return exec, ("raise SystemExit('code from a file was executed')",)


# ------------------------------------------------------------------------------------------------- .npz


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz(save, tmp_path):
    path = tmp_path / "a.npz"
    save(path, x=np.arange(6.0).reshape(2, 3), names=np.array(["a", "b"]), empty=np.zeros((0, 2), np.int8))
    arrays = read_npz(path)
    assert list(arrays) == ["x", "names", "empty"]
    assert_array_equal(arrays["x"], np.arange(6.0).reshape(2, 3))
    assert arrays["names"].tolist() == ["a", "b"]
    assert arrays["empty"].shape == (0, 2)
    assert list(read_npz(str(path), ["x"])) == ["x"]
    with pytest.raises(DataError) as error:
        read_npz(path, ["x", "y", "z"])
    assert one_line(error, path) == ": no array 'y', 'z': it holds 'x', 'names', 'empty'"


def test_npz_never_executes_anything(tmp_path):
    path = tmp_path / "evil.npz"
    np.savez(path, fine=np.ones(2), objects=np.array([Evil()], dtype=object))
    with pytest.raises(DataError) as error:
        read_npz(path)
    assert "array 'objects' holds Python objects, and reading them would execute code" in one_line(error, path)
    assert "it holds 'fine', 'objects'" in str(error.value)
    assert read_npz(path, ["fine"])["fine"].tolist() == [1, 1]
    path.write_bytes(pickle.dumps(Evil()))
    with pytest.raises(DataError, match=r"not an \.npz file"):
        read_npz(path)


def test_npz_that_is_none(tmp_path):
    path = tmp_path / "a.npz"
    for content in (b"", b"hello", b"\x93NUMPY..."):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"not an \.npz file, which numpy.savez writes"):
            read_npz(path)
    np.save(tmp_path / "b.npy", np.ones(2))
    with pytest.raises(DataError, match=r"not an \.npz file"):
        read_npz(tmp_path / "b.npy")
    with pytest.raises(FileNotFoundError, match=r"missing\.npz"):
        read_npz(tmp_path / "missing.npz")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(DataError, match=r"'readme\.txt' is not an array"):
        read_npz(path)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_damaged_npz_is_refused_or_read(tmp_path_factory, data):
    """Cut short or with a byte changed, it gives arrays or a DataError of one line, and no other error."""
    folder = tmp_path_factory.mktemp("npz")
    path = folder / "a.npz"
    np.savez_compressed(path, x=np.arange(50.0), y=np.arange(3))
    content = bytearray(path.read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        content = content[:place]
    else:
        content[place] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    try:
        read_npz(path)
    except DataError as error:
        assert "\n" not in str(error)
        assert str(error).startswith(str(path))


def test_npz_that_declares_more_than_it_holds(tmp_path):
    path = tmp_path / "bomb.npz"
    header = "{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000000,), }".ljust(117) + "\n"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode())
    with pytest.raises(DataError, match="array 'x' is damaged"):
        read_npz(path)


# ------------------------------------------------------------------------------------------------- IDX


@pytest.mark.parametrize("dtype", list(CODES))
@pytest.mark.parametrize("shape", [(5,), (2, 3), (2, 3, 4), (0, 4), ()])
@pytest.mark.parametrize("zipped", [False, True])
def test_idx(dtype, shape, zipped, tmp_path):
    array = np.asarray(np.arange(int(np.prod(shape))).reshape(shape) * 3 - (0 if dtype == "uint8" else 4), dtype)
    path = tmp_path / "a-idx"
    path.write_bytes(gzip.compress(idx_bytes(array)) if zipped else idx_bytes(array))
    got = read_idx(path)
    assert got.dtype == np.dtype(dtype)
    assert got.dtype.isnative
    assert got.flags.writeable
    assert_array_equal(got, array)


BYTES = idx_bytes(np.arange(6, dtype=np.int16).reshape(2, 3))


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", ": not an IDX file: it begins with nothing, expected 00 00, a type"),
        (b"\0\0\x08", "it begins with 00 00 08, expected"),
        (b"\1\0\x08\1" + BYTES[4:], "it begins with 01 00 08 01, expected"),
        (b"\0\0\x0a\1" + BYTES[4:], "it begins with 00 00 0a 01, expected 00 00, a type (08 09 0b 0c 0d 0e), and the number of axes"),
        (BYTES[:10], "cut short in the header: 6 bytes of 2 axes' lengths, expected 8"),
        (BYTES[:-1], "cut short: 11 bytes of numbers, expected 12 for shape (2, 3)"),
        (BYTES + b"\0", "bytes follow the 12 of shape (2, 3)"),
        (b"\0\0\x0e\4" + b"\xff" * 16, "the header declares shape (4294967295, 4294967295, 4294967295, 4294967295)"),
    ],
)
def test_idx_that_is_none(content, what, tmp_path):
    path = tmp_path / "a-idx"
    for zipped in (False, True):
        path.write_bytes(gzip.compress(content) if zipped else content)
        with pytest.raises(DataError) as error:
            read_idx(path)
        assert what in one_line(error, path)


def test_a_small_gzip_file_cannot_ask_for_much_memory(tmp_path):
    path = tmp_path / "bomb-idx.gz"
    path.write_bytes(gzip.compress(b"\0\0\x08\1" + struct.pack(">I", 2**32 - 1) + bytes(1000)))
    with pytest.raises(DataError, match=r"declares shape \(4294967295,\), 4294967295 bytes, and \d\d bytes of a file cannot hold as many"):
        read_idx(path)
    path.write_bytes(gzip.compress(b"\0\0\x08\1" + struct.pack(">I", 10) + bytes(50_000_000)))  # 48 kB that expand to 50 MB, of which 10 bytes are declared
    with pytest.raises(DataError, match="bytes follow the 10"):
        read_idx(path)


def test_damaged_gzip(tmp_path):
    path = tmp_path / "a-idx.gz"
    content = gzip.compress(BYTES)
    for damaged in (content[:-9], content[:14], content[:10] + b"\xff" + content[11:], content[:-5] + b"\0" + content[-4:]):
        path.write_bytes(damaged)
        with pytest.raises(DataError) as error:
            read_idx(path)
        one_line(error, path)


# ------------------------------------------------------------------------------------------------- MNIST


def write_mnist(folder, names="train-images-idx3-ubyte train-labels-idx1-ubyte t10k-images-idx3-ubyte t10k-labels-idx1-ubyte", end="", **replaced):
    rng = np.random.default_rng(0)
    arrays = {"x": rng.integers(0, 256, (7, 4, 5)), "y": rng.integers(0, 10, 7), "x_test": rng.integers(0, 256, (3, 4, 5)), "y_test": rng.integers(0, 10, 3)}
    arrays = {k: v.astype(np.uint8) for k, v in arrays.items()} | replaced
    for name, array in zip(names.split(), arrays.values(), strict=True):
        (folder / (name + end)).write_bytes(gzip.compress(idx_bytes(array)) if end else idx_bytes(array))
    return arrays


@pytest.mark.parametrize("end", ["", ".gz"])
@pytest.mark.parametrize("mark", ["-", "."])
def test_mnist(end, mark, tmp_path):
    names = f"train-images{mark}idx3-ubyte train-labels{mark}idx1-ubyte t10k-images{mark}idx3-ubyte t10k-labels{mark}idx1-ubyte"
    arrays = write_mnist(tmp_path, names, end)
    x, y, x_test, y_test = load_mnist(tmp_path)
    assert x.dtype == x_test.dtype == np.float32
    assert y.dtype == y_test.dtype == np.int64
    assert x.shape == (7, 20)
    assert x_test.shape == (3, 20)
    assert_array_equal(x, arrays["x"].reshape(7, 20) / np.float32(255))
    assert_array_equal(y, arrays["y"])
    assert_array_equal(y_test, arrays["y_test"])
    assert x.max() <= 1


def test_mnist_that_is_incomplete(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no train-images-idx3-ubyte or train-images-idx3-ubyte\.gz in"):
        load_mnist(tmp_path)
    write_mnist(tmp_path, y=np.zeros(6, np.uint8))
    with pytest.raises(DataError, match="train-labels-idx1-ubyte: 6 labels for 7 images"):
        load_mnist(tmp_path)
    write_mnist(tmp_path, x=np.zeros((7, 20), np.uint8))
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte: uint8 of shape \(7, 20\), expected bytes on 3 axes"):
        load_mnist(tmp_path)
    write_mnist(tmp_path, x_test=np.zeros((3, 5, 5), np.uint8))
    with pytest.raises(DataError, match="the images for training have 20 pixels, those for testing 25"):
        load_mnist(tmp_path)
