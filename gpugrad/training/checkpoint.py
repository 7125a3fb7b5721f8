"""Checkpoints: folders ``checkpoint-NNNNNN`` with the arrays in ``tensors.safetensors`` and everything else in ``state.json``.

A checkpoint is written under another name in the same directory, its files and folder are put on the disk (fsync), and then it is renamed: under its own
name it is whole, whenever the process was killed or the power failed. Each file holds checksums of the other, so that a damaged one is not
taken for a good one. Both formats hold data only; reading one runs nothing.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import zlib
from collections.abc import Mapping
from typing import Any

import gpugrad
from gpugrad import io, nn
from gpugrad.training.packing import from_json, pack, to_json, unpack

TENSORS, STATE, FORMAT = "tensors.safetensors", "state.json", 1
Path = str | os.PathLike[str]


class CheckpointError(RuntimeError):
    """A checkpoint that cannot be written, read or used, in one line."""

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))


# ------------------------------------------------------------------------------------------------- writing


def save_checkpoint(directory: Path, number: int, *, keep: int | None = 3, **parts: Any) -> str:
    """Write ``directory/checkpoint-NNNNNN``, and remove all but the last ``keep``::

        save_checkpoint("run", epoch, model=model, optimizer=optimizer, history=losses)

    Args:
        number: of the epoch or step; the checkpoint with the largest is the latest.
        keep: how many to keep; None keeps all.
        parts: whatever has a ``state_dict()``, or nests (dict, list, tuple) of numbers, text, None, arrays and Tensors.

    Returns:
        its path.

    Raises:
        CheckpointError: it cannot be written (a full disk, a directory that is not writable), there is a good one of this number already, or something in
            ``parts`` is of another type. The checkpoints that were there are untouched.
        ValueError: ``number`` is negative.
    """
    if number < 0:
        raise ValueError(f"the number of a checkpoint must be at least 0, got {number}")
    directory = prepare(directory)
    place = os.path.join(directory, f"checkpoint-{number:06d}")
    if os.path.lexists(place):
        if _is_good(place):
            raise CheckpointError(f"{place!r} exists already: give another directory, or continue from it")
        shutil.rmtree(place, ignore_errors=True)
    temporary = _temporary(place)
    try:
        os.mkdir(temporary)
        _write(temporary, parts)
        os.rename(temporary, place)
        _sync(directory)
    except BaseException as error:
        shutil.rmtree(temporary, ignore_errors=True)
        if isinstance(error, (OSError, TypeError, ValueError, KeyError, MemoryError)):
            raise CheckpointError(f"cannot save {place!r}: {_reason(error)}; the checkpoints before it are untouched") from error
        raise
    for old in checkpoints(directory)[: -keep if keep else 0]:
        shutil.rmtree(old, ignore_errors=True)  # one that is left in half is older than a good one, and goes next time
    return place


def prepare(directory: Path) -> str:
    """Make a directory for checkpoints, remove what killed processes left in it, and find out whether it can be written to.

    Raises:
        CheckpointError: it cannot.
    """
    try:
        directory = os.fspath(directory)
        os.makedirs(directory, exist_ok=True)
        for name in os.listdir(directory):
            match = re.fullmatch(r"\.checkpoint-\w+\.(\d+)\.partial", name)
            if match and not _is_alive(int(match[1])):
                shutil.rmtree(os.path.join(directory, name), ignore_errors=True)
        probe = _temporary(os.path.join(directory, "checkpoint-probe"))
        os.mkdir(probe)
        os.rmdir(probe)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"cannot write checkpoints to {directory!r}: {_reason(error)}") from error
    return directory


def _write(folder: str, parts: Mapping[str, Any]) -> None:
    states = {name: part.state_dict() if hasattr(part, "state_dict") else part for name, part in parts.items() if part is not None}
    packed, arrays = pack(states)
    about = {
        "format": f"gpugrad checkpoint {FORMAT}",
        "gpugrad": gpugrad.__version__,
        "classes": {name: type(part).__name__ for name, part in parts.items() if hasattr(part, "state_dict")},
        "architecture": {name: architecture(part) for name, part in parts.items() if isinstance(part, nn.Module)},
    }
    text = to_json({**about, "state": packed}).encode()
    io.save(os.path.join(folder, TENSORS), arrays, {STATE: str(zlib.crc32(text))})
    with io.replacing(os.path.join(folder, STATE)) as file:
        file.write(text)
    _sync(folder)


def architecture(model: nn.Module) -> dict[str, Any]:
    """The fingerprint of a model: the class of every module, and shape and dtype of every parameter and buffer, by path."""
    return {
        "modules": {path: type(m).__name__ for path, m in model.named_modules()},
        "tensors": {path: f"{t.dtype} {tuple(t.shape)}" for path, t in model.state_dict().items()},
    }


def _temporary(place: str) -> str:
    folder, name = os.path.split(place)
    return os.path.join(folder, f".{name}.{os.getpid()}.partial")


def _sync(folder: str) -> None:
    if os.name == "nt":  # folders cannot be opened there
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _is_alive(pid: int) -> bool:
    """Whether another process of this number runs, so that what it writes is not to be removed."""
    if os.name == "nt" or pid == os.getpid():  # Windows has no such question
        return os.name == "nt" and pid != os.getpid()
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (OSError, OverflowError):
        return False
    return True


# ------------------------------------------------------------------------------------------------- reading


def latest_checkpoint(directory: Path) -> str | None:
    """The path of the latest good checkpoint in a directory, None if there is none. Damaged ones are passed over, with a line on stderr for each."""
    latest = find_latest(directory)
    return latest and latest[0]


def find_latest(directory: Path) -> tuple[str, dict[str, Any]] | None:
    """The path of the latest good checkpoint, and what :func:`read_checkpoint` returns for it."""
    for place in reversed(checkpoints(os.fspath(directory))):
        try:
            return place, read_checkpoint(place)
        except CheckpointError as error:
            print(f"gpugrad: passed over a damaged checkpoint: {error}", file=sys.stderr)
    return None


def load_checkpoint(path: Path, **parts: Any) -> dict[str, Any]:
    """Read a checkpoint, and give each of ``parts`` its state by ``load_state_dict``::

        load_checkpoint("run", model=model, optimizer=optimizer)

    Args:
        path: a checkpoint, or a directory of checkpoints, of which the latest good one is taken.
        parts: under the names that :func:`save_checkpoint` was given; None is passed over. Without any, everything is only read.

    Returns:
        all states that it holds by name, with NumPy arrays and Tensors on the CPU.

    Raises:
        CheckpointError: there is none, it is damaged, it was made with another architecture (the parameters that differ are named, and nothing is changed) or class, or
            it does not hold such a part.
    """
    path = os.fspath(path)
    if _number(path) or os.path.lexists(os.path.join(path, STATE)):
        content = read_checkpoint(path)
    elif latest := find_latest(path):
        path, content = latest
    else:
        raise CheckpointError(f"there is no checkpoint in {path!r}")
    restore(path, content, parts)
    return content["state"]


def restore(path: str, content: Mapping[str, Any], parts: Mapping[str, Any]) -> None:
    """Give each of the parts its state, once all of them are known to fit."""
    present = {name: part for name, part in parts.items() if part is not None}
    for name, part in present.items():
        _check_fits(path, content, name, part)
    for name, part in present.items():
        try:
            part.load_state_dict(content["state"][name])
        except (TypeError, ValueError, LookupError, AttributeError, RuntimeError, ArithmeticError) as error:
            raise CheckpointError(f"{path!r} does not fit the {name}, {type(part).__name__}: {_reason(error)}") from error


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Everything in a checkpoint: "gpugrad" (the version that wrote it), "classes", "architecture" and "state".

    Raises:
        CheckpointError: it is not there, not whole or not a checkpoint.
    """
    path = os.fspath(path)
    try:
        with open(os.path.join(path, STATE), "rb") as file:
            text = file.read()
        content = from_json(text)
        if not isinstance(content, dict) or content.get("format") != f"gpugrad checkpoint {FORMAT}":
            raise ValueError(f"{STATE} is not that of a checkpoint of format {FORMAT}")
        tensors = os.path.join(path, TENSORS)
        if io.load_metadata(tensors).get(STATE) != str(zlib.crc32(text)):
            raise ValueError(f"{STATE} is damaged, or does not belong to {TENSORS}")
        arrays = {name: t.data for name, t in io.load(tensors).items()}
        for name in ("state", "classes", "architecture"):
            if not isinstance(content.get(name), dict):
                raise ValueError(f"{STATE} has no {name!r}")
        return {**content, "state": unpack(content["state"], arrays)}
    except (OSError, ValueError, TypeError, LookupError, RecursionError, MemoryError) as error:
        raise CheckpointError(f"cannot read {path!r}: {_reason(error)}") from error


def _check_fits(path: str, content: Mapping[str, Any], name: str, part: Any) -> None:
    if name not in content["state"]:
        raise CheckpointError(f"{path!r} holds no {name!r}; it holds {', '.join(content['state'])}")
    made, own = content["architecture"].get(name), architecture(part) if isinstance(part, nn.Module) else None
    if own is not None and made != own:
        raise CheckpointError(f"{path!r} was made with another architecture: {_differences(made, own)}; build the {name} as it was, or start anew")
    if own is None and content["classes"].get(name) != type(part).__name__:
        raise CheckpointError(f"{path!r} holds the state of {content['classes'].get(name)} as {name}, expected {type(part).__name__}")


def _differences(made: Any, own: dict[str, Any], most: int = 8) -> str:
    lines = []
    for kind in ("tensors", "modules"):
        then = made.get(kind) if isinstance(made, dict) else None
        then, now = then if isinstance(then, dict) else {}, own[kind]
        for path in [*now, *(p for p in then if p not in now)]:
            if then.get(path) != now.get(path):
                lines.append(f"{path or 'the model'} is {then.get(path, 'missing')} in the checkpoint and {now.get(path, 'missing')} here")
        if lines:
            break
    return ", ".join(lines[:most]) + (f", and {len(lines) - most} more" if len(lines) > most else "")


def _is_good(place: str) -> bool:
    try:
        read_checkpoint(place)
    except CheckpointError:
        return False
    return True


def checkpoints(directory: str) -> list[str]:
    """The paths of what is called like a checkpoint, by number."""
    if not os.path.isdir(directory):
        return []
    places = (os.path.join(directory, name) for name in os.listdir(directory))
    return sorted((p for p in places if _number(p) and os.path.isdir(p) and not os.path.islink(p)), key=lambda p: int(_number(p)))


def _number(path: str) -> str:
    """The digits in a checkpoint's name; empty for other names."""
    match = re.fullmatch(r"checkpoint-(\d{6,18})", os.path.basename(os.path.normpath(path)), re.ASCII)
    return match[1] if match else ""


def _reason(error: BaseException) -> str:
    return (error.strerror if isinstance(error, OSError) and error.strerror else str(error)) or type(error).__name__
