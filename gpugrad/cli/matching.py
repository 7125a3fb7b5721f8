"""The rows of a file in the order of a saved model's columns."""

from __future__ import annotations

import numpy as np

from gpugrad.cli import readers, source
from gpugrad.cli.model_file import Model
from gpugrad.cli.refusal import RefusalError
from gpugrad.cli.source import Source, listed


def rows_for(path: str, model: Model, with_target: bool = False) -> tuple[np.ndarray, np.ndarray | None]:
    """x (n, columns) in the model's order; y, if it is asked for: numbers of classes (n,), or (n, targets).

    Columns go by their names; those that the model does not know are passed over, with a line on stderr. An array x of .npz, and images, go by
    their order.

    Raises:
        RefusalError: the file cannot be read, or lacks columns; they are named.
    """
    rows = readers.read_known(path, model.columns, model.targets, with_target)
    return rows.x, _target(rows, model) if with_target else None


def _target(rows: Source, model: Model) -> np.ndarray:
    assert rows.y is not None
    if model.task == "regression":
        return source.numbers(rows)
    codes = {name: i for i, name in enumerate(model.classes)}
    labels = [source.label(v) for v in rows.y.tolist()]
    for i, name in enumerate(labels):
        if name not in codes:
            raise RefusalError(f"{rows.where(i, rows.targets[0])}: {name!r:.60} is none of the model's classes; it knows {listed(model.classes)}")
    return np.array([codes[name] for name in labels], np.int64)
