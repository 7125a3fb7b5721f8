"""What gets installed: the list of packages against the tree, the declared dependencies against the imports, and a wheel in an empty environment."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
EXTRAS = PROJECT["project"]["optional-dependencies"]
DISTRIBUTION = {"sklearn": "scikit-learn", "cupy": "cupy-cuda12x", "cupyx": "cupy-cuda12x"}  # where it is not called like the module


def names(requirements: list[str]) -> set[str]:
    """The distributions of a list of requirements."""
    return {re.match(r"[\w.-]+", r)[0].lower() for r in requirements}  # type: ignore[index]


def imported(folder: Path) -> Iterator[tuple[str, str]]:
    """(file, distribution) for each import of a third party's module, inside functions too."""
    for file in sorted(folder.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            modules = (
                [a.name for a in node.names]
                if isinstance(node, ast.Import)
                else [node.module or ""]
                if isinstance(node, ast.ImportFrom) and not node.level
                else []
            )
            for top in {module.partition(".")[0] for module in modules} - sys.stdlib_module_names - {"__future__", folder.name, "gpugrad"}:
                yield str(file.relative_to(ROOT)), DISTRIBUTION.get(top, top).lower()


def undeclared(folder: str, *extras: str) -> set[tuple[str, str]]:
    declared = names(PROJECT["project"]["dependencies"]).union(*(names(EXTRAS[e]) for e in extras))
    local = {p.stem for p in (ROOT / folder).rglob("*")} | {"tests", "examples", "benchmarks"}
    return {(file, name) for file, name in imported(ROOT / folder) if name not in declared | local}


def test_packages_are_those_of_the_tree() -> None:
    folders = [ROOT / "gpugrad", *(p for p in (ROOT / "gpugrad").rglob("*") if p.is_dir() and p.name != "__pycache__")]
    folders += [ROOT / "gpugrad/kernels" / p.relative_to(ROOT / "kernels") for p in (ROOT / "kernels").rglob("*") if p.is_dir() and p.name != "__pycache__"]
    tree = {".".join(f.relative_to(ROOT).parts) for f in folders if any(f.glob("*.py"))}
    assert sorted(PROJECT["tool"]["setuptools"]["packages"]) == sorted(tree)


def test_kernels_are_one_folder() -> None:
    link = ROOT / "gpugrad/kernels"
    assert link.resolve() == (ROOT / "kernels").resolve()
    assert not Path(link).readlink().is_absolute()


@pytest.mark.parametrize(
    ("folder", "extras"),
    [
        ("gpugrad", ("demo", "plot", "bfloat16", "scipy", "cuda12")),
        ("kernels", ("cuda12",)),
        ("tests", ("test", "cuda12")),
        ("examples", ("demo", "plot", "test", "cuda12")),
        ("benchmarks", ("bench", "cuda12")),
    ],
)
def test_imports_are_declared(folder: str, extras: tuple[str, ...]) -> None:
    assert undeclared(folder, *extras) == set()


def test_nothing_of_an_extra_is_imported_with_the_package() -> None:
    heavy = sorted({"cupy", "numba", "rich", "safetensors", "sklearn", "scipy", "matplotlib", "ml_dtypes"})
    code = f"import sys, gpugrad; print([m for m in {heavy} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"


# ------------------------------------------------------------------------------------- from a wheel, in an empty environment

IN_AN_EMPTY_ENVIRONMENT = """
import importlib, json, pathlib, pkgutil, sys
import numpy as np
import gpugrad as gg

modules = [m.name for m in pkgutil.walk_packages(gg.__path__, "gpugrad.") if not m.name.endswith("__main__")]
for name in modules:
    importlib.import_module(name)

x = np.linspace(-1.0, 1.0, 5)
assert np.allclose(gg.grad(lambda x: gg.sum(gg.tanh(x) ** 2))(x), 2 * np.tanh(x) / np.cosh(x) ** 2)
assert np.allclose(gg.hvp(lambda x: gg.sum(x**3), x, np.ones(5)), 6 * x)

model = gg.nn.Sequential(gg.nn.Linear(4, 8), gg.nn.ReLU(), gg.nn.Linear(8, 3))
optimizer = gg.optim.Adam(model.parameters(), lr=0.05)
inputs, labels = gg.tensor(np.eye(4, dtype=np.float32)), np.array([0, 1, 2, 0])
losses = []
for _ in range(60):
    optimizer.zero_grad()
    loss = gg.nn.functional.cross_entropy(model(inputs), labels)
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
assert losses[-1] < 0.1 * losses[0], losses

tops = sorted({d.name for d in pathlib.Path(gg.__file__).parent.parent.iterdir()})
print(json.dumps({"file": gg.__file__, "modules": modules, "tops": tops, "typed": (pathlib.Path(gg.__file__).parent / "py.typed").exists()}))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from a copy of the tree, so that no earlier build's leftovers get into it."""
    place = tmp_path_factory.mktemp("wheel")
    files = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, check=True).stdout
    copy = place / "checkout"
    copy.mkdir()
    packed = subprocess.run(["tar", "-c", "--null", "--ignore-failed-read", "-T", "-"], cwd=ROOT, input=files, capture_output=True).stdout
    subprocess.run(["tar", "-x"], cwd=copy, input=packed, check=True)
    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(place), str(copy))
    return next(place.glob("*.whl"))


def run(*command: str, cwd: Path | None = None) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, f"{command} failed:\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.packaging
def test_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    files = zipfile.ZipFile(wheel).namelist()
    assert {f.partition("/")[0] for f in files} == {"gpugrad", wheel.name.split("-py3")[0] + ".dist-info"}
    sources = {p.relative_to(ROOT / "gpugrad").as_posix() for p in (ROOT / "gpugrad").rglob("*") if p.suffix in (".py", ".cu", ".cuh", ".h")}
    sources |= {f"kernels/{p.relative_to(ROOT / 'kernels').as_posix()}" for p in (ROOT / "kernels").rglob("*") if p.suffix in (".py", ".cu", ".cuh", ".h")}
    assert {f"gpugrad/{s}" for s in sources} | {"gpugrad/py.typed"} == {f for f in files if f.startswith("gpugrad/")}


@pytest.mark.packaging
def test_wheel_runs_in_an_empty_environment(wheel: Path, tmp_path: Path) -> None:
    run(sys.executable, "-m", "venv", str(tmp_path / "empty"))
    python = str(tmp_path / "empty/bin/python")
    run(python, "-m", "pip", "install", "--quiet", str(wheel))  # brings what pyproject.toml declares, and no extra
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()

    facts = json.loads(run(python, "-c", IN_AN_EMPTY_ENVIRONMENT, cwd=elsewhere).splitlines()[-1])
    assert Path(facts["file"]).is_relative_to(tmp_path / "empty")
    assert "gpugrad.kernels" in facts["modules"] and facts["typed"]
    assert not {"kernels", "tests", "examples", "benchmarks", "docs"} & set(facts["tops"])

    command = str(tmp_path / "empty/bin/gpugrad")
    assert PROJECT["project"]["name"] in run(command, "info", cwd=elsewhere)
    assert "--device" in run(command, "train", "--help", cwd=elsewhere)
    run(python, "-m", "gpugrad", "info", cwd=elsewhere)
