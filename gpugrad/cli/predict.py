"""``gpugrad predict``."""

from __future__ import annotations

import argparse
import csv
import io
import os
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np

from gpugrad.cli import files, model_file
from gpugrad.cli.matching import rows_for
from gpugrad.cli.refusal import RefusalError
from gpugrad.io import replacing


def predict(args: argparse.Namespace) -> None:
    """Write the predictions for every row."""
    if args.output is not None:
        files.check_writable("--output", args.output, (".csv", ".npz"))
        if any(os.path.exists(args.output) and os.path.exists(p) and os.path.samefile(args.output, p) for p in (args.model, args.data)):
            raise RefusalError(f"--output: {args.output!r} is what is read; choose another name")
    model = model_file.load(args.model, args.device)
    x, _ = rows_for(args.data, model)
    outputs = model.predict(x)
    if args.output is None:
        _write_csv(sys.stdout, model, outputs)
        return
    files.saving("--output", args.output, lambda: _save(args.output, model, outputs))
    print(f"{len(outputs)} predictions in {args.output}")


def _save(path: str, model: model_file.Model, outputs: np.ndarray) -> None:
    with replacing(path) as file:
        if path.endswith(".npz"):
            np.savez(file, **_arrays(model, outputs))
            return
        text = io.TextIOWrapper(file, "utf-8", newline="")
        _write_csv(text, model, outputs)
        text.detach()


def _arrays(model: model_file.Model, outputs: np.ndarray) -> dict[str, Any]:
    """What a .npz file gets."""
    if model.task == "regression":
        return {"prediction": outputs[:, 0] if len(model.targets) == 1 else outputs, "targets": np.array(model.targets)}
    names = np.array(model.classes)
    if all(name.removeprefix("-").isdecimal() and name == str(int(name)) and abs(int(name)) < 1 << 63 for name in model.classes):
        names = names.astype(np.int64)
    return {"prediction": names[outputs.argmax(axis=1)], "probability": outputs, "classes": names}


def _write_csv(file: Any, model: model_file.Model, outputs: np.ndarray) -> None:
    csv.writer(file, lineterminator="\n").writerows(_lines(model, outputs))


def _lines(model: model_file.Model, outputs: np.ndarray) -> Iterator[list[str]]:
    """The header, and a line for every row, in the shortest form that gives the number that the network computed with."""
    dtype = model.architecture["dtype"]
    if model.task == "regression":
        yield model.targets
        yield from outputs.astype(dtype).astype(str).tolist()
        return
    yield [model.targets[0], *(f"p({name})" for name in model.classes)]
    for row in outputs:
        yield [model.classes[row.argmax()], *(f"{p:.6g}" for p in row)]
