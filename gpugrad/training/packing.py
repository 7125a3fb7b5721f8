"""Nests of numbers, text and arrays as JSON and named arrays, and back again, exactly: what a checkpoint's two files hold.

What JSON lacks is an object with one of these names: ``$tuple``, ``$dict`` (pairs, for keys that are not text), ``$float`` (nan and infinities), ``$array``,
``$tensor`` and ``$scalar`` (a NumPy number), which give the name of an array, its dtype, shape and checksum. Nothing else can be stored, and
reading makes nothing else, so nothing that a file says can run.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Mapping
from typing import Any, NoReturn

import numpy as np

from gpugrad import backend
from gpugrad.tape import Tensor

_TAGS = ("$tuple", "$dict", "$float", "$array", "$tensor", "$scalar")


def pack(nest: Any) -> tuple[Any, dict[str, np.ndarray]]:
    """The nest as what JSON can say, and the arrays that it names, on the host.

    Raises:
        TypeError: something in it is neither None, bool, number, text, array nor Tensor; where it is, is said.
    """
    arrays: dict[str, np.ndarray] = {}
    return _pack(nest, "", arrays), arrays


def _pack(x: Any, path: str, arrays: dict[str, np.ndarray]) -> Any:
    if isinstance(x, np.generic) or backend.is_array(x) or type(x) is Tensor:
        return _pack_array(x, path, arrays)
    if x is None or type(x) in (bool, int, str):
        return x
    if type(x) is float:
        return x if math.isfinite(x) else {"$float": str(x)}
    if isinstance(x, (list, tuple)):
        items = [_pack(v, f"{path}/{i}" if path else str(i), arrays) for i, v in enumerate(x)]
        return items if isinstance(x, list) else {"$tuple": items}
    if isinstance(x, Mapping):
        values = {k: _pack(v, f"{path}/{k}" if path else str(k), arrays) for k, v in x.items()}
        if all(type(k) is str and not k.startswith("$") for k in values):
            return values
        return {"$dict": [[_pack(k, path, arrays), v] for k, v in values.items()]}
    raise TypeError(
        f"{path or 'the state'} is of type {type(x).__name__}: expected None, bool, int, float, str, an array, a Tensor, or a list, tuple or dict of them"
    )


def _pack_array(x: Any, path: str, arrays: dict[str, np.ndarray]) -> Any:
    tag = "$tensor" if type(x) is Tensor else "$scalar" if isinstance(x, np.generic) else "$array"
    a = np.asarray(backend.to_device(x.detach().data if tag == "$tensor" else x, "cpu"), order="C")
    if a.dtype.kind in "OSUMm":
        raise TypeError(f"{path or 'the state'} is an array of {a.dtype}: expected numbers")
    what = {"dtype": str(a.dtype), "shape": list(a.shape)}
    if a.dtype.kind == "c":  # safetensors files have none: two numbers, along a new last axis
        a = a[..., None].view(a.real.dtype)
    name = path
    while name in arrays:  # a key with a slash in it can look like a path
        name += "'"
    arrays[name] = a
    return {tag: name, **what, "crc32": checksum(a)}


def unpack(packed: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    """The nest that :func:`pack` was given, with NumPy arrays.

    Raises:
        ValueError: this is not what ``pack`` makes, or an array is missing or not the one that was packed.
    """
    if isinstance(packed, list):
        return [unpack(v, arrays) for v in packed]
    if not isinstance(packed, dict):
        return packed
    tag = next((t for t in _TAGS if t in packed), None)
    if tag is None:
        return {k: unpack(v, arrays) for k, v in packed.items()}
    content = packed[tag]
    if tag in ("$array", "$tensor", "$scalar"):
        a = _unpack_array(packed, content, arrays)
        return a if tag == "$array" else Tensor(a) if tag == "$tensor" else a[()]
    if tag == "$float" and content in ("nan", "inf", "-inf"):
        return float(content)
    if tag == "$tuple" and isinstance(content, list):
        return tuple(unpack(v, arrays) for v in content)
    if tag == "$dict" and isinstance(content, list) and all(isinstance(pair, list) and len(pair) == 2 for pair in content):
        return {_hashable(unpack(k, arrays)): unpack(v, arrays) for k, v in content}
    raise ValueError(f"{tag} cannot hold {content!r:.60}")


def _hashable(key: Any) -> Any:
    if not isinstance(key, (str, int, float, bool, type(None), tuple)):
        raise ValueError(f"a dict cannot have the key {key!r:.60}")
    return key


def _unpack_array(packed: dict[str, Any], name: Any, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    if not isinstance(name, str) or name not in arrays:
        raise ValueError(f"the array {name!r:.60} is missing")
    a = arrays[name]
    if checksum(a) != packed.get("crc32"):
        raise ValueError(f"the array {name!r} is damaged: its checksum is {checksum(a)}, expected {packed.get('crc32')!r:.60}")
    if packed.get("dtype") in ("complex64", "complex128") and a.dtype.kind == "f" and a.shape[-1:] == (2,):
        a = a.view(packed["dtype"])[..., 0]
    if [str(a.dtype), list(a.shape)] != [packed.get("dtype"), packed.get("shape")]:
        raise ValueError(f"the array {name!r} is {a.dtype} of shape {a.shape}, expected {packed.get('dtype')!r:.60} of shape {packed.get('shape')!r:.60}")
    return a


def checksum(a: np.ndarray) -> int:
    """CRC-32 of an array's bytes, in C order."""
    return zlib.crc32(np.ascontiguousarray(a).reshape(-1).view(np.uint8).data)


def to_json(packed: Any) -> str:
    """Strict JSON: no NaN, which other programs cannot read."""
    return json.dumps(packed, allow_nan=False, indent=1)


def from_json(text: str | bytes) -> Any:
    """What strict JSON says.

    Raises:
        ValueError: it is not JSON, has NaN, a float that is too large or an integer of thousands of digits in it, or is nested too deeply.
    """
    try:
        return json.loads(text, parse_constant=_refuse, parse_float=_finite)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


def _finite(text: str) -> float:
    if math.isinf(number := float(text)):
        raise ValueError(f"{text:.60} is too large for a float")
    return number
