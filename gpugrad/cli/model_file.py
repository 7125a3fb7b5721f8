"""A trained model in a file: safetensors with the weights, and in its header a JSON text with everything else that it takes to use them.

Nothing in it is executed. What is read is checked before it is used: the file may be damaged, or made to do harm.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import gpugrad
from gpugrad import backend, data, io, nn
from gpugrad.cli.refusal import RefusalError, refusing
from gpugrad.nn.layers import ACTIVATIONS

FORMAT = "gpugrad model 1"
TASKS = ("classification", "regression")
NORMS = (None, "batch", "layer", "rms")
DTYPES = ("float32", "float64")
BATCH = 4096  # rows that go through the network at once


@dataclass
class Model:
    """A network, and how to go from the columns of a file to its inputs and from its outputs to answers.

    Args:
        network: the :class:`gpugrad.nn.MLP`.
        architecture: the arguments that it is made from.
        task: "classification" or "regression".
        columns: the names of the inputs, in their order.
        targets: the name of the column of classes, or those of what regression predicts.
        classes: their names, in the order of the outputs; empty for regression.
        inputs, outputs: how both are standardised; classes are not.
        about: what else is worth knowing: the seed, the options, the scores.
    """

    network: nn.Module
    architecture: dict[str, Any]
    task: str
    columns: list[str]
    targets: list[str]
    classes: list[str]
    inputs: data.Standardizer
    outputs: data.Standardizer | None = None
    about: dict[str, Any] = field(default_factory=dict)

    def predict(self, x: np.ndarray) -> np.ndarray:
        """Of rows (n, columns) in the units of the file: probabilities (n, classes), or predictions (n, targets) in their own units; float64, on the CPU."""
        device = next(self.network.parameters()).device
        self.network.eval()
        parts = []
        with gpugrad.no_grad(), np.errstate(all="ignore"):
            for start in range(0, len(x), BATCH):
                rows = self.inputs.transform(x[start : start + BATCH]).astype(self.architecture["dtype"])
                parts.append(self.network(gpugrad.tensor(rows, device=device)).numpy().astype(np.float64))
        y = np.concatenate(parts) if parts else np.zeros((0, self.architecture["sizes"][-1]))
        if self.outputs is not None:
            return self.outputs.inverse(y)
        return gpugrad.softmax(y, axis=1)


def build(architecture: Mapping[str, Any], device: str) -> nn.Module:
    """The network of an architecture, with starting weights from the generator of :mod:`gpugrad.random`."""
    options = {k: v for k, v in architecture.items() if k not in ("sizes", "dtype")}
    return nn.MLP(architecture["sizes"], device=device, dtype=np.dtype(architecture["dtype"]), **options)


def save(path: str, model: Model) -> None:
    """Write the file, whole or not at all; what was there before stays until then.

    Raises:
        OSError: it cannot be written.
    """
    state = {name: t.cpu() for name, t in model.network.state_dict().items()}
    description = {
        "gpugrad": gpugrad.__version__,
        "task": model.task,
        "architecture": model.architecture,
        "columns": model.columns,
        "targets": model.targets,
        "classes": model.classes,
        "inputs": _scale(model.inputs),
        "outputs": None if model.outputs is None else _scale(model.outputs),
        "about": model.about,
    }
    io.save(path, state, {"format": FORMAT, "description": json.dumps(description | {"sha256": checksum(description, state)})})


def load(path: str, device: str) -> Model:
    """The model in a file, on a device.

    Raises:
        RefusalError: there is none, or it is not whole, or it does not fit together.
    """
    with refusing(ValueError):
        device = backend.device_name(device)
    try:
        metadata = io.load_metadata(path)
    except (OSError, ValueError) as error:
        raise RefusalError(_one_line(error, path)) from None
    if metadata.get("format") != FORMAT:
        raise RefusalError(
            f"{path!r} holds tensors, but no model that gpugrad train saved: its format is {metadata.get('format', 'not stated')!r:.60}, expected {FORMAT!r}"
        )
    d = _parsed(path, metadata.get("description", ""))
    _check(path, d)
    try:
        state = io.load(path)
        if checksum(d, state) != d["sha256"]:
            raise ValueError("its checksum is not that of what it holds")
        network = build(d["architecture"], device)
        network.load_state_dict(state)
    except (OSError, ValueError, TypeError, KeyError, RuntimeError) as error:
        raise RefusalError(f"{path!r} is damaged: {error!s:.300}") from None
    inputs, outputs = (None if d[k] is None else standardizer(d[k]["mean"], d[k]["std"]) for k in ("inputs", "outputs"))
    assert inputs is not None
    return Model(network, d["architecture"], d["task"], d["columns"], d["targets"], d["classes"], inputs, outputs, d["about"])


def standardizer(mean: Any, std: Any) -> data.Standardizer:
    """The one with this mean and this standard deviation of every column, or of all."""
    mean, std = np.asarray(mean, np.float64), np.asarray(std, np.float64)
    s = data.Standardizer(axis=0 if mean.ndim else None)
    s.load_state_dict({"mean": mean, "std": std})
    return s


def _scale(s: data.Standardizer) -> dict[str, Any]:
    return {"mean": np.asarray(s.mean).tolist(), "std": np.asarray(s.std).tolist()}


def checksum(description: Mapping[str, Any], state: Mapping[str, Any]) -> str:
    """SHA-256 of the description and the tensors, by which a flipped bit is noticed."""
    text = json.dumps({k: v for k, v in description.items() if k != "sha256"}, sort_keys=True)
    digest = hashlib.sha256(text.encode())
    for name in sorted(state):
        array = np.ascontiguousarray(backend.to_device(state[name].data, "cpu"))
        digest.update(f"{name} {array.dtype} {array.shape}\n".encode() + array.tobytes())
    return digest.hexdigest()


def _one_line(error: Exception, path: str) -> str:
    return str(error) if path in str(error) else f"cannot read {path!r}: {getattr(error, 'strerror', None) or error}"


# ------------------------------------------------------------------------------------------------- checks


def _parsed(path: str, text: str) -> dict[str, Any]:
    def refuse(constant: str) -> float:
        raise ValueError(f"it holds {constant}")

    try:
        description = json.loads(text, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise RefusalError(f"{path!r} is damaged: its description is not JSON ({error})") from None
    if not isinstance(description, dict):
        raise RefusalError(f"{path!r} is damaged: its description is not a JSON object")
    return description


def _check(path: str, d: dict[str, Any]) -> None:
    """Refuse a description in which anything is missing, of another type or size, or does not fit the rest."""
    for what, holds in _rules(d, os.path.getsize(path)):
        try:
            right = holds()
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
            right = False
        if not right:
            raise RefusalError(f"{path!r} is damaged: its description does not state {what}")


def _rules(d: dict[str, Any], file_size: int) -> Iterator[tuple[str, Callable[[], bool]]]:
    a: Any = d.get("architecture")
    known = {"sizes", "activation", "norm", "dropout", "residual", "dtype"}
    yield "the architecture of an MLP", lambda: set(a) == known
    yield "sizes of layers", lambda: len(a["sizes"]) >= 2 and all(type(n) is int and n > 0 for n in a["sizes"])
    yield "a dtype that there is", lambda: a["dtype"] in DTYPES
    # Before anything is allocated: the weights that it describes must be in the file.
    yield "an architecture of the file's size", lambda: 4 * sum(n * m for n, m in zip(a["sizes"], a["sizes"][1:])) <= file_size
    yield "an activation that there is", lambda: a["activation"] in ACTIVATIONS
    yield "a normalisation that there is", lambda: a["norm"] in NORMS
    yield "a dropout between 0 and 1", lambda: isinstance(a["dropout"], (int, float)) and 0 <= a["dropout"] < 1
    yield "whether there are residual connections", lambda: type(a["residual"]) is bool
    yield "a task that there is", lambda: d["task"] in TASKS
    yield "names of columns that fit the network", lambda: _names(d["columns"]) == a["sizes"][0]
    yield "names of targets", lambda: _names(d["targets"]) == (1 if d["task"] == "classification" else a["sizes"][-1])
    yield "inputs and targets of different names", lambda: not set(d["columns"]) & set(d["targets"])
    yield "names of classes that fit the network", lambda: _names(d["classes"]) == (a["sizes"][-1] if d["task"] == "classification" else 0)
    yield "how the inputs are standardised", lambda: _is_scale(d["inputs"], a["sizes"][0])
    yield "how the outputs are standardised", lambda: d["outputs"] is None if d["task"] == "classification" else _is_scale(d["outputs"], a["sizes"][-1])
    yield "what is worth knowing about it", lambda: isinstance(d["about"], dict)
    yield "a checksum", lambda: isinstance(d["sha256"], str)


def _names(x: Any) -> int:
    """How many different names there are in a list of them."""
    if not (isinstance(x, list) and all(isinstance(name, str) for name in x)):
        raise TypeError("not a list of names")
    for name in x:
        name.encode()  # half of a surrogate pair is no text
    return len(set(x))


def _is_scale(scale: Any, n: int) -> bool:
    """Whether mean and standard deviation are n finite numbers each, or one for all."""
    mean, std = (np.asarray(scale[k], np.float64) for k in ("mean", "std"))
    return (
        set(scale) == {"mean", "std"}
        and mean.shape == std.shape
        and all(s.shape in ((), (n,)) and bool(np.isfinite(s).all()) for s in (mean, std))
        and bool((std > 0).all())
    )
