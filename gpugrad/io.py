"""Weights in files, in the safetensors format: a header that any program can read, and the arrays. Never pickle."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import IO, Any

import numpy as np

from gpugrad import backend
from gpugrad.tape import Tensor, plain


def save(path: str | os.PathLike[str], tensors: Mapping[str, Any], metadata: Mapping[str, str] | None = None) -> None:
    """Write Tensors or arrays, of any device, under their names, and text to go with them.

    The file appears whole or not at all: it is written beside its place under another name, and renamed. The same content gives the same bytes.

    Raises:
        TypeError: names or metadata are not text, values are not arrays.
        ValueError: a dtype that the format does not have (complex numbers).
        OSError: the file cannot be written.
    """
    from safetensors.numpy import save as to_bytes

    if not isinstance(tensors, Mapping):
        hint = ": the file's name comes first" if isinstance(path, Mapping) else ": write module.state_dict()" if hasattr(tensors, "state_dict") else ""
        raise TypeError(f"expected a dict of Tensors or arrays by name, got {type(tensors).__name__}{hint}")
    content = to_bytes({name: _array(name, t) for name, t in tensors.items()}, _checked(metadata))
    with replacing(path) as file:
        file.writelines(_with_sorted_metadata(content))


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """A file to write, which takes the place of ``path`` when the block ends well: until then, and if it does not, what was there before stays.

    Raises:
        OSError: it cannot be written.
    """
    path = os.path.realpath(path)  # of a link, what it points to
    if os.path.exists(path) and not (os.path.isfile(path) or os.path.isdir(path)):
        raise OSError(errno.EINVAL, "it is not a regular file, and only such a one can be replaced", path)
    temporary = f"{path}.{os.getpid()}.partial"
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        if os.path.exists(temporary):
            os.remove(temporary)
        raise


def _with_sorted_metadata(content: bytes) -> list[Any]:
    """The parts of a file, whose header (8 bytes of length, then JSON) otherwise has the metadata in an order of chance."""
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    if "__metadata__" in header:
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the arrays begin at a multiple of 8
    return [len(text).to_bytes(8, "little"), text, memoryview(content)[end:]]


def load(path: str | os.PathLike[str], device: str | None = "cpu") -> dict[str, Tensor]:
    """The Tensors in a file by name, on ``device``.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not a safetensors file, or not all of one.
    """
    device = backend.device_name(device)
    with _open(path) as file:
        return {name: Tensor(backend.to_device(file.get_tensor(name), device)) for name in file.keys()}  # noqa: SIM118


def load_metadata(path: str | os.PathLike[str]) -> dict[str, str]:
    """The text that was saved with the Tensors; raises what :func:`load` raises."""
    with _open(path) as file:
        return dict(file.metadata() or {})


def _open(path: str | os.PathLike[str]) -> Any:
    from safetensors import SafetensorError, safe_open

    path = os.fspath(path)
    if not os.path.isfile(path):
        raise FileNotFoundError(f"there is no file {path!r}" if not os.path.exists(path) else f"{path!r} is not a file")
    try:
        return safe_open(path, framework="numpy")
    except SafetensorError as error:
        raise ValueError(f"{path!r} ({os.path.getsize(path)} bytes) is not a complete safetensors file: {error}") from None


def _array(name: Any, value: Any) -> np.ndarray:
    if not isinstance(name, str):
        raise TypeError(f"names of Tensors must be str, got {name!r}")
    value = plain(value)
    if not backend.is_array(value):
        hint = "; an optimizer's state goes into a training.save_checkpoint" if isinstance(value, (dict, list)) else ""
        raise TypeError(f"{name}: expected a Tensor or an array, got {type(value).__name__}{hint}")
    if value.dtype.kind == "c":
        raise ValueError(f"{name}: safetensors files have no {value.dtype}: save its real and imaginary parts")
    return np.asarray(backend.to_device(value, "cpu"), order="C")


def _checked(metadata: Mapping[str, str] | None) -> dict[str, str] | None:
    for key, value in (metadata or {}).items():
        if not (isinstance(key, str) and isinstance(value, str)):
            raise TypeError(f"metadata must map str to str, got {key!r}: {value!r}")
    return dict(metadata) if metadata else None
