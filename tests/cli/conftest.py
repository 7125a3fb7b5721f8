"""Small files to learn from, and models that have learned from them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from cli_samples import FLOWERS, flowers, write_csv

from gpugrad import cli


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
