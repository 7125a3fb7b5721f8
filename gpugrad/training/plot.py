"""Pictures of a run."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

import numpy as np

from gpugrad import io
from gpugrad.training.history import History

TRAIN, VALIDATION, GRID = "#1f5fa8", "#d1495b", "#d9d9d9"
_NOT_METRICS = ("epoch", "step", "loss", "val_loss", "lr", "examples_per_second")


def plot_history(history: History | Iterable[dict[str, Any]], path: str | os.PathLike[str]) -> None:
    """Draw loss, metrics, learning rate and the gradient norm of every layer against the epochs, as far as the history has them.

    Training is drawn in full and validation dashed; norms are there if :class:`gpugrad.training.GradientNorms` was among the callbacks.

    Args:
        history: what :func:`gpugrad.training.fit` returns, or dicts, such as the lines of a :class:`gpugrad.training.JsonLog`.
        path: of the picture: a PNG, or what its ending says (.svg, .pdf).

    Raises:
        ImportError: matplotlib is missing, with the remedy.
        ValueError: the history has no epochs, or the ending is unknown.
        OSError: the file cannot be written; what was there before stays.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(f"plot_history needs matplotlib, which cannot be imported ({error}): pip install 'gpugrad[plot]'") from None
    rows = [{name: np.nan if value is None else value for name, value in row.items()} for row in history]
    if not rows:
        raise ValueError("plot_history: the history has no epochs yet")
    history = History(rows)
    panels = [(draw, names) for draw, names in _panels(history.names()) if names]
    columns = 3 if len(panels) == 3 else min(len(panels), 2)
    figure = Figure(figsize=(5.2 * columns, 3.5 * -(-len(panels) // columns)), dpi=130, layout="constrained")
    for i, (draw, names) in enumerate(panels):
        axes = figure.add_subplot(-(-len(panels) // columns), columns, i + 1)
        draw(axes, history, names)
        _finish(axes)
    with io.replacing(path) as file:
        figure.savefig(file, format=os.path.splitext(os.fspath(path))[1][1:] or "png")


def _panels(names: list[str]) -> list[tuple[Any, list[str]]]:
    metrics = [n for n in names if n not in _NOT_METRICS and "/" not in n]
    return [
        (_loss, [n for n in names if n in ("loss", "val_loss")]),
        (_metrics, metrics),
        (_rate, [n for n in names if n == "lr"]),
        (_norms, [n for n in names if n.startswith("grad_norm/")]),
    ]


def _epochs(history: History) -> list[float]:
    return history["epoch"] if "epoch" in history else list(range(1, len(history) + 1))


def _line(axes: Any, history: History, name: str, **style: Any) -> None:
    values = history[name]
    axes.plot(_epochs(history), values, linewidth=1.8, marker="o" if np.isfinite(values).sum() == 1 else None, markersize=4, **style)


def _loss(axes: Any, history: History, names: list[str]) -> None:
    for name in names:
        validation = name == "val_loss"
        _line(
            axes,
            history,
            name,
            color=VALIDATION if validation else TRAIN,
            linestyle="--" if validation else "-",
            label="validation" if validation else "training",
        )
    _logarithmic_if_wide(axes, [v for name in names for v in history[name]])
    axes.set_ylabel("loss")
    axes.legend(frameon=False)


def _metrics(axes: Any, history: History, names: list[str]) -> None:
    bare = list(dict.fromkeys(n.removeprefix("val_") for n in names))
    for i, metric in enumerate(bare):
        for name, label, own, style in ((metric, "training", TRAIN, "-"), (f"val_{metric}", "validation", VALIDATION, "--")):
            if name in names:
                color, text = (own, label) if len(bare) == 1 else (f"C{i}", f"{metric}, {label}")
                _line(axes, history, name, color=color, linestyle=style, label=text)
    axes.set_ylabel(bare[0] if len(bare) == 1 else "metrics")
    axes.legend(frameon=False)


def _rate(axes: Any, history: History, names: list[str]) -> None:
    _line(axes, history, "lr", color="#444444")
    axes.set_ylim(bottom=0)
    axes.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3))
    axes.set_ylabel("learning rate")


def _norms(axes: Any, history: History, names: list[str], most: int = 8) -> None:
    """The layers in colours from dark (the first) to light; only some of many are named."""
    from matplotlib import colormaps

    named = set(np.linspace(0, len(names) - 1, min(len(names), most)).round().astype(int))
    for i, name in enumerate(names):
        shade = colormaps["viridis"](0.9 * i / max(len(names) - 1, 1))
        _line(axes, history, name, color=shade, label=name.removeprefix("grad_norm/") if i in named else None)
    _logarithmic_if_wide(axes, [v for name in names for v in history[name] if v > 0])
    axes.set_ylabel("gradient norm")
    axes.legend(frameon=False, title="layer", fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))


def _logarithmic_if_wide(axes: Any, values: list[float]) -> None:
    """A logarithmic axis where the values are positive and span more than a factor of 30."""
    finite = [v for v in values if np.isfinite(v)]
    if finite and min(finite) > 0 and max(finite) > 30 * min(finite):
        axes.set_yscale("log")


def _finish(axes: Any) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.grid(color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
