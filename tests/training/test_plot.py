"""The picture of a history: what is in it, for long and short and odd ones."""

import json
import math
import sys

import numpy as np
import pytest

from gpugrad import training

matplotlib = pytest.importorskip("matplotlib")


def history(epochs=20, layers=3, **more):
    rows = [
        {"epoch": e, "loss": 2.0 * 0.7**e, "accuracy": 1 - 0.6**e, "lr": 0.1 / e, "examples_per_second": 1e5, "val_loss": 2.0 * 0.8**e, "val_accuracy": 1 - 0.7**e}
        | {f"grad_norm/layers.{i}": 10.0**-i * (1 + 0.1 * e) for i in range(layers)} | more
        for e in range(1, epochs + 1)
    ]  # fmt: skip
    return training.History(rows)


@pytest.fixture
def drawn(monkeypatch):
    """The panels of the picture, by the label of their y axis."""
    from matplotlib.figure import Figure

    figures = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *a, **k: (figures.append(self), save(self, *a, **k))[1])
    return lambda: {axes.get_ylabel(): axes for axes in figures[-1].axes}


def test_curves_are_the_history(tmp_path, drawn):
    h = history()
    training.plot_history(h, tmp_path / "h.png")
    assert (tmp_path / "h.png").read_bytes().startswith(b"\x89PNG")
    panels = drawn()
    assert list(panels) == ["loss", "accuracy", "learning rate", "gradient norm"]
    for label, names in (("loss", ["loss", "val_loss"]), ("accuracy", ["accuracy", "val_accuracy"]), ("learning rate", ["lr"])):
        assert [list(line.get_ydata()) for line in panels[label].lines] == [h[n] for n in names]
        assert all(list(line.get_xdata()) == h["epoch"] for line in panels[label].lines)
    assert [t.get_text() for t in panels["gradient norm"].get_legend().get_texts()] == ["layers.0", "layers.1", "layers.2"]
    assert panels["loss"].get_yscale() == panels["gradient norm"].get_yscale() == "log"
    assert panels["accuracy"].get_yscale() == "linear"


@pytest.mark.parametrize(
    ("h", "labels"),
    [
        (training.History([{"loss": 1.0}]), ["loss"]),
        (training.History([{"epoch": 1, "loss": 1.0, "lr": 0.1}, {"epoch": 2, "loss": -2.0, "lr": 0.1}]), ["loss", "learning rate"]),
        (history(mae=3.0, val_mae=4.0), ["loss", "metrics", "learning rate", "gradient norm"]),
        (history(1, 40), ["loss", "accuracy", "learning rate", "gradient norm"]),
        (training.History([{"loss": math.nan, "grad_norm/0": 0.0}, {"loss": math.inf, "grad_norm/0": math.nan}]), ["loss", "gradient norm"]),
    ],
)
def test_odd_histories(tmp_path, drawn, h, labels, recwarn):
    training.plot_history(h, tmp_path / "h.png")
    assert list(drawn()) == labels
    assert [str(w.message) for w in recwarn] == []


def test_the_axis_of_the_learning_rate_is_linear(tmp_path, drawn):
    training.plot_history([{"epoch": e, "loss": 1.0, "lr": 0.1 * (1 + math.cos(math.pi * e / 20))} for e in range(1, 21)], tmp_path / "h.png")
    assert drawn()["learning rate"].get_yscale() == "linear"


@pytest.mark.parametrize(("wide", "scale"), [(2.0, "linear"), (100.0, "log")])
def test_the_axis_of_gradient_norms_that_span_much_is_logarithmic(tmp_path, drawn, wide, scale):
    training.plot_history([{"epoch": e, "loss": 1.0, "grad_norm/0": wide ** (e - 1)} for e in (1, 2)], tmp_path / "h.png")
    assert drawn()["gradient norm"].get_yscale() == scale


def test_many_layers_are_not_all_named(tmp_path, drawn):
    training.plot_history(history(5, 40), tmp_path / "h.png")
    axes = drawn()["gradient norm"]
    assert len(axes.lines) == 40
    names = [t.get_text() for t in axes.get_legend().get_texts()]
    assert len(names) == 8 and names[0] == "layers.0" and names[-1] == "layers.39"


def test_lines_of_a_json_log_and_other_formats(tmp_path):
    rows = [json.loads(t) for t in ('{"epoch": 1, "step": 3, "loss": null}', '{"epoch": 2, "step": 6, "loss": 0.5}')]
    training.plot_history(rows, tmp_path / "h.svg")
    assert b"<svg" in (tmp_path / "h.svg").read_bytes()
    training.plot_history(rows, tmp_path / "no ending")
    assert (tmp_path / "no ending").read_bytes().startswith(b"\x89PNG")


def test_refusals(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="no epochs yet"):
        training.plot_history(training.History(), tmp_path / "h.png")
    (tmp_path / "h.xyz").write_text("kept")
    with pytest.raises(ValueError, match="xyz"):
        training.plot_history(history(), tmp_path / "h.xyz")
    assert (tmp_path / "h.xyz").read_text() == "kept"
    with pytest.raises(OSError, match="No such file"):
        training.plot_history(history(), tmp_path / "nowhere" / "h.png")
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"plot_history needs matplotlib, which cannot be imported .*: pip install 'gpugrad\[plot\]'"):
        training.plot_history(history(), tmp_path / "h.png")


def test_the_picture_is_not_blank(tmp_path):
    image = pytest.importorskip("matplotlib.image")
    training.plot_history(history(), tmp_path / "h.png")
    pixels = image.imread(tmp_path / "h.png")
    assert pixels.shape[:2] == (910, 1352)
    assert 0.01 < np.mean(pixels[..., :3].min(axis=-1) < 0.9) < 0.3
