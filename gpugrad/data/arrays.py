"""Readers of arrays: .npz files, and the IDX files of MNIST. Neither executes anything that a file holds."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path as FilePath

import numpy as np

from gpugrad.data.files import DataError, Path, one_line, opened

Split = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]

# The third byte of an IDX file, and what it stands for (Y. LeCun, C. Cortes, C. Burges, "The MNIST database of handwritten digits")
_IDX = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_DEFLATE = 1032  # bytes at most that one byte of a gzip file can stand for

_MNIST = {"train": ("train-images", "train-labels"), "test": ("t10k-images", "t10k-labels")}


def read_npz(path: Path, names: Sequence[str] | None = None) -> dict[str, np.ndarray]:
    """The arrays of a ``numpy.savez`` file by name: those that are asked for, or all.

    Raises:
        DataError: not such a file, a damaged one, one with arrays of Python objects (reading them would execute code), or without an array that is asked for; what
            arrays there are is said.
        OSError: it cannot be opened.
    """
    name = os.fspath(path)
    with open(path, "rb") as file:
        if file.read(4) not in (b"PK\x03\x04", b"PK\x05\x06"):
            raise DataError(f"{name}: not an .npz file, which numpy.savez writes")
        file.seek(0)
        try:
            archive = np.load(file, allow_pickle=False)
        except Exception as error:  # a damaged archive makes zipfile raise half a dozen kinds
            raise DataError(f"{name}: a damaged .npz file: {one_line(error)}") from None
        missing = [n for n in names or () if n not in archive.files]
        if missing:
            raise DataError(f"{name}: no array {', '.join(map(repr, missing))}: it holds {', '.join(map(repr, archive.files)) or 'none'}")
        return {n: _member(name, archive, n) for n in (archive.files if names is None else names)}


def _member(path: str, archive: np.lib.npyio.NpzFile, name: str) -> np.ndarray:
    others = f"; it holds {', '.join(map(repr, archive.files))}"
    try:
        array = archive[name]
    except Exception as error:  # and NumPy's reader a few more
        if "allow_pickle" in str(error):
            raise DataError(f"{path}: array {name!r} holds Python objects, and reading them would execute code: save it as numbers or text{others}") from None
        raise DataError(f"{path}: array {name!r} is damaged: {one_line(error)}{others}") from None
    if not isinstance(array, np.ndarray):
        raise DataError(f"{path}: {name!r} is not an array{others}")
    return array


def read_idx(path: Path) -> np.ndarray:
    """The array of an IDX file, gzipped or not, in this machine's order of bytes.

    No more is read than the header declares, and what the file cannot hold is refused before memory is asked for.

    Raises:
        DataError: not an IDX file, one that is cut short, or has bytes too many.
        OSError: it cannot be opened.
    """
    name, on_disk = os.fspath(path), os.path.getsize(path)
    with opened(path) as file:
        magic = file.read(4)
        if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in _IDX:
            raise DataError(
                f"{name}: not an IDX file: it begins with {magic.hex(' ') or 'nothing'}, expected 00 00, a type (08 09 0b 0c 0d 0e), and the number of axes"
            )
        axes = file.read(4 * magic[3])
        if len(axes) < 4 * magic[3]:
            raise DataError(f"{name}: cut short in the header: {len(axes)} bytes of {magic[3]} axes' lengths, expected {4 * magic[3]}")
        shape = tuple(np.frombuffer(axes, ">u4").tolist())
        dtype = np.dtype(_IDX[magic[2]])
        size = math.prod(shape) * dtype.itemsize
        if size > on_disk * _DEFLATE or len(shape) > 64:
            raise DataError(f"{name}: the header declares shape {shape}, {size} bytes, and {on_disk} bytes of a file cannot hold as many")
        content = file.read(size)
        if len(content) < size:
            raise DataError(f"{name}: cut short: {len(content)} bytes of numbers, expected {size} for shape {shape}")
        if file.read(1):
            raise DataError(f"{name}: bytes follow the {size} of shape {shape}")
    return np.frombuffer(content, dtype).reshape(shape).astype(dtype.newbyteorder("="))


def load_mnist(folder: Path) -> Split:
    """MNIST, or what has its format (Fashion-MNIST, KMNIST), from its four files, gzipped or not, in ``folder``.

    The names are train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte and t10k-labels-idx1-ubyte, with or without .gz.

    Returns:
        x_train, y_train, x_test, y_test: images as float32 rows of numbers in [0, 1], 784 for images of 28x28; labels as int64.

    Raises:
        FileNotFoundError: a file is missing.
        DataError: one is damaged, or they do not belong together.
    """
    x_train, y_train = _labelled(folder, *_MNIST["train"])
    x_test, y_test = _labelled(folder, *_MNIST["test"])
    if x_train.shape[1] != x_test.shape[1]:
        raise DataError(f"{os.fspath(folder)}: the images for training have {x_train.shape[1]} pixels, those for testing {x_test.shape[1]}")
    return x_train, y_train, x_test, y_test


def _labelled(folder: Path, images: str, labels: str) -> tuple[np.ndarray, np.ndarray]:
    image_file, label_file = _found(folder, images, 3), _found(folder, labels, 1)
    x, y = read_idx(image_file), read_idx(label_file)
    for path, array, axes in ((image_file, x, 3), (label_file, y, 1)):
        if array.ndim != axes or array.dtype != np.uint8:
            raise DataError(f"{path}: {array.dtype} of shape {array.shape}, expected bytes on {axes} axes")
    if len(x) != len(y):
        raise DataError(f"{label_file}: {len(y)} labels for {len(x)} images")
    return x.reshape(len(x), -1).astype(np.float32) / np.float32(255), y.astype(np.int64)


def _found(folder: Path, name: str, axes: int) -> FilePath:
    """Some copies have a dot in place of the second hyphen."""
    names = [f"{name}{mark}idx{axes}-ubyte{end}" for mark in "-." for end in ("", ".gz")]
    for path in (FilePath(folder) / n for n in names):
        if path.is_file():
            return path
    raise FileNotFoundError(f"there is no {names[0]} or {names[1]} in {os.fspath(folder)!r}")
