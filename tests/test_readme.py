"""The README and docs/: every Python block runs, every name exists, every link leads somewhere, and commands are ones that .ci/run runs."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpugrad as gg

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]


def blocks(language: str, text: str = README) -> Iterator[tuple[str, str, int]]:
    """(the line before, the code, its first line's number) of each block in ``language``."""
    for match in re.finditer(rf"([^\n]*)\n```{language}\n(.*?)```", text, re.DOTALL):
        yield match[1], match[2], text.count("\n", 0, match.start(2)) + 1


def test_every_block_has_a_language_that_is_tested() -> None:
    openings = re.findall(r"^```(\w*)$", README, re.MULTILINE)[::2]
    assert set(openings) == {"python", "bash"}


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_python_blocks_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the top of a page to its end, as a reader who tries them would."""
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"np": np, "gg": gg}
    for _, code, line in blocks("python", page.read_text()):
        exec(compile("\n" * (line - 1) + code, page.name, "exec"), names)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_names_exist(page: Path) -> None:
    missing = []
    for name in sorted(set(re.findall(r"\bgg((?:\.[A-Za-z_]\w*)+)", page.read_text()))):
        place: Any = gg
        for part in name[1:].split("."):
            place = getattr(place, part, None)
        if place is None:
            missing.append("gg" + name)
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_to_files(page: Path) -> None:
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", page.read_text()) if "://" not in link]
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_members_of_tensor_exist() -> None:
    line = re.search(r"^- a Tensor: (.*?)\n- ", README, re.MULTILINE | re.DOTALL)
    assert line is not None
    names = re.findall(r"\w+", " ".join(re.findall(r"`([^`]*)`", line[1])))
    arguments = {"gradient", "retain_graph", "create_graph", "inputs"}
    t = gg.tensor([1.0], requires_grad=True)
    assert [name for name in names if name not in arguments and not hasattr(type(t), name)] == []


@pytest.mark.parametrize("module", ["autograd", "nn", "optim"])
def test_members_of_modules_exist(module: str) -> None:
    listed = re.search(rf"`gg\.{module}`: ([^;\n]*)", README)
    assert listed is not None
    assert [name for name in re.findall(r"`(\w+)`", listed[1]) if not hasattr(getattr(gg, module), name)] == []


def test_commands() -> None:
    marked = {before for before, _, _ in blocks("bash")} - {""}
    assert marked == {"<!-- ci: train -->", "<!-- ci: tests -->"}
    ci = (ROOT / ".ci/run").read_text()
    assert all(f"readme_command {name}" in ci for name in ("train", "tests"))
    for _, code, _ in blocks("bash"):
        assert set(re.findall(r"\.\[(\w+)\]", code)) <= set(EXTRAS)


def correspondences() -> list[str]:
    """The code on the right-hand side of the tables, as far as it says something that can be run."""
    tables = README[README.index("## From PyTorch") : README.index("## Performance")]
    right = [row.split(" | ")[1] for row in re.findall(r"^\| `.*", tables, re.MULTILINE)]
    spans = [span for cell in right for span in re.findall(r"`([^`]+)`", cell)]
    return [span + (" pass" if span.endswith(":") else "") for span in spans if "(" in span or span.startswith(("gg.", "x.", "with "))]


@pytest.mark.parametrize("code", correspondences())
def test_correspondences_run(code: str, tmp_path: Path) -> None:
    f = gg.primitive(lambda x: np.exp(x).sum())
    gg.defvjp(f, lambda g, y, x: g * gg.exp(x))
    x = gg.tensor([0.5], requires_grad=True)
    u = x * x
    y = loss = gg.sum(u)
    x.grad = gg.zeros_like(x)
    model = gg.nn.Linear(1, 1)
    optimizer = gg.optim.SGD(model.parameters(), lr=0.1)
    scope = {"gg": gg, "np": np, "f": f, "x": x, "u": u, "y": y, "loss": loss, "v": gg.ones_like(x.detach()), "p": {}, "g": 1.0, "i": 1, "o": 1}
    scope |= {"model": model, "state": model.state_dict(), "optimizer": optimizer, "file": tmp_path / "file", "pullback": gg.vjp(f, x)[1]}
    if code.startswith("gg.tensor"):
        scope["x"] = x.numpy()
    exec(code.replace('"cuda"', '"cpu"'), scope)


# ------------------------------------------------------------------------------------- what the README claims in words


def test_where_cuts_off_a_singular_branch() -> None:
    g = gg.grad(lambda x: gg.sum(gg.where(x > 0, gg.sqrt(x), 0)))(np.array([0.0, 4.0]))
    np.testing.assert_array_equal(g, [0.0, 0.25])


def test_augmented_assignment_rebinds() -> None:
    w = gg.tensor([1.0, 2.0], requires_grad=True)
    same = w
    with gg.no_grad():
        w -= 1.0
    assert w is not same
    np.testing.assert_array_equal(same.data, [1.0, 2.0])


def test_functions_are_numpys() -> None:
    x = gg.tensor(np.array([[3.0, 1.0, 2.0]]))
    assert gg.max(x, 1).shape == (1,)
    assert gg.std(x).item() == np.std(x.data)
    assert [part.shape for part in gg.split(x, 3, axis=1)] == [(1, 1)] * 3
    np.testing.assert_array_equal(x.repeat(2), [3, 3, 1, 1, 2, 2])
    assert x.size == 3 and gg.zeros(2).dtype == np.float64


def test_values_are_refused_inside_transforms() -> None:
    for take in (lambda t: t.item(), lambda t: t.numpy()):
        with pytest.raises(TypeError, match="transform"):
            gg.grad(lambda t, take=take: t * take(t))(2.0)


def test_complex_conventions_are_each_others_conjugate() -> None:
    z = np.array([1.0 + 2.0j])
    t = gg.tensor(z, requires_grad=True)
    f = lambda z: gg.sum(gg.real(z * z * (1 + 1j)))
    f(t).backward()
    np.testing.assert_allclose(t.grad.data, np.conj(gg.grad(f)(z)))


def test_hips_rules() -> None:
    double = gg.primitive(lambda x: np.exp(x))
    gg.defvjp(double, lambda g, ans, x: g * ans)
    np.testing.assert_allclose(gg.grad(lambda x: gg.sum(double(x)))(np.ones(2)), np.full(2, np.e))
    with pytest.raises(TypeError, match="astype"):
        gg.grad(lambda x: gg.sum(x * x))(np.arange(3))


def test_backward_frees_the_graph() -> None:
    x = gg.tensor([1.0], requires_grad=True)
    y = (x * x).sum()
    y.backward()
    with pytest.raises(RuntimeError, match="retain_graph=True"):
        y.backward()
