"""Small data for the tests of the command line."""

from __future__ import annotations

from pathlib import Path

import numpy as np

FLOWERS = ["red", "green", "blue"]


def flowers(n: int = 90) -> tuple[np.ndarray, np.ndarray]:
    """Three clouds of points that can be told apart, in units of very different size."""
    rng = np.random.default_rng(0)
    kind = np.arange(n) % 3
    centres = np.array([[0, 0, 5], [4, 0, 5], [0, 4, 5.0]])
    return (centres[kind] + rng.normal(size=(n, 3)) * 0.5) * [1, 1000, 0.01], kind


def write_csv(path: Path, names: list[str], *columns: object) -> Path:
    """A CSV file of columns."""
    rows = zip(*columns, strict=True)  # type: ignore[call-overload]
    path.write_text("\n".join([",".join(names), *(",".join(map(str, row)) for row in rows)]) + "\n")
    return path
