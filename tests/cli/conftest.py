"""Small files to learn from, and models that have learned from them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from gpugrad import cli

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


@pytest.fixture(scope="session")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with flowers.csv (classes) and prices.csv (numbers), and models of both."""
    folder = tmp_path_factory.mktemp("samples")
    x, kind = flowers()
    write_csv(folder / "flowers.csv", ["length", "width", "depth", "kind"], *x.T, [FLOWERS[k] for k in kind])
    write_csv(folder / "prices.csv", ["length", "width", "depth", "price"], *x.T, 1e5 + 3e4 * x[:, 0] - 20 * x[:, 1] + np.sin(np.arange(90)))
    common = ["--device", "cpu", "--layers", "16", "--epochs", "40", "--batch-size", "8"]
    for name in ("flowers", "prices"):
        assert cli.main(["train", "--data", str(folder / f"{name}.csv"), "--output", str(folder / f"{name}.safetensors"), *common]) == 0
    return folder


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run a command in this process: exit code, standard output and standard error."""

    def call(*args: object) -> tuple[int, str, str]:
        capsys.readouterr()
        try:
            code = cli.main([str(a) for a in args])
        except SystemExit as end:
            code = end.code  # type: ignore[assignment]
        out, err = capsys.readouterr()
        return code, out, err

    return call


@pytest.fixture
def tiny(samples: Path, tmp_path: Path) -> list[str]:
    """The arguments of a training that takes no time."""
    return ["train", "--data", str(samples / "flowers.csv"), "--device", "cpu", "--layers", "8,8", "--epochs", "3", "--output", str(tmp_path / "m.safetensors")]
