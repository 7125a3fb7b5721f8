"""``gpugrad evaluate``: tables that fit a terminal, and numbers that are right."""

import numpy as np
import pytest

from gpugrad.cli.evaluate import scores_of_classes, scores_of_numbers


def lines_of(matrix, names):
    """The report of a classifier with this confusion matrix."""
    y, predicted = (np.repeat([i.ravel() for i in np.indices(matrix.shape)][k], matrix.ravel()) for k in (0, 1))
    return list(scores_of_classes(y, np.eye(len(names))[predicted], names))


def test_a_classifier(run, samples):
    code, out, err = run("evaluate", samples / "flowers.safetensors", "--data", samples / "flowers.csv")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].startswith("90 rows of ")
    rows = {line.split()[0]: line.split()[1:] for line in lines if line.startswith(("blue", "green", "red"))}
    assert {values[3] for values in rows.values()} == {"30"}
    assert float(lines[-1].split()[1]) > 0.95
    assert lines[-1].startswith("accuracy")


def test_the_numbers():
    lines = lines_of(np.array([[8, 2], [1, 4]]), ["no", "yes"])
    assert [line.split() for line in lines[2:5]] == [["no", "yes"], ["no", "8", "2"], ["yes", "1", "4"]]
    scores = {line.split()[0]: line.split()[1:] for line in lines[6:]}
    assert scores["no"] == [f"{8 / 9:.4f}", "0.8000", f"{16 / 19:.4f}", "10"]
    assert scores["yes"] == [f"{4 / 6:.4f}", "0.8000", f"{8 / 11:.4f}", "5"]
    assert scores["accuracy"] == ["0.8000"]


@pytest.mark.parametrize("n", [2, 3, 10, 13, 16, 30, 200])
@pytest.mark.parametrize("length", [1, 7, 12, 60])
@pytest.mark.parametrize("count", [3, 123_456])
def test_it_fits_80_columns(n, length, count):
    matrix = np.ones((n, n), int)
    matrix[0, 1] = min(count, 200_000 // n)
    lines = lines_of(matrix, [f"{i:0{length}d}" if length > 3 else f"{i}" for i in range(n)])
    assert max(map(len, lines)) <= 80
    assert any("confusion matrix" in line or "most frequent mistakes" in line for line in lines)


def test_names_do_not_reach_the_terminal_as_they_are():
    assert not any("\x1b" in line or "\n" in line for line in lines_of(np.eye(2, dtype=int), ["\x1b[31mred", "two\nlines"]))


def test_too_many_classes_give_the_worst_mistakes():
    matrix = np.diag(np.full(40, 5))
    matrix[3, 7], matrix[7, 3] = 4, 2
    lines = lines_of(matrix, [f"kind {i}" for i in range(40)])
    assert lines[1:4] == ["the most frequent mistakes of 6", "       4  kind 3 taken for kind 7", "       2  kind 7 taken for kind 3"]
    assert "no mistakes" in lines_of(np.diag(np.full(40, 5)), [f"kind {i}" for i in range(40)])


def test_a_class_that_is_not_in_the_file(run, samples, tmp_path):
    lines = (samples / "flowers.csv").read_text().splitlines()
    (tmp_path / "d.csv").write_text("\n".join(line for line in lines if not line.endswith("green")))
    code, out, _ = run("evaluate", samples / "flowers.safetensors", "--data", tmp_path / "d.csv")
    assert code == 0
    assert next(line for line in out.splitlines()[6:] if line.startswith("green")).split()[-1] == "0"


def test_regression(run, samples):
    code, out, err = run("evaluate", samples / "prices.safetensors", "--data", samples / "prices.csv")
    assert (code, err) == (0, "")
    scores = dict(line.split(": ") for line in out.splitlines()[1:])
    assert list(scores) == ["RMSE", "MAE", "R2"]
    assert 0.9 < float(scores["R2"]) < 1
    assert float(scores["MAE"]) <= float(scores["RMSE"])


def test_the_numbers_of_regression():
    y, p = np.array([[1.0], [2], [3], [6]]), np.array([[1.0], [2], [5], [4]])
    assert list(scores_of_numbers(y, p, ["price"])) == [f"RMSE: {2**0.5:.6g}", "MAE: 1", f"R2: {1 - 8 / 14:.4f}"]
    both = list(scores_of_numbers(np.hstack([y, y]), np.hstack([p, y]), ["a", "b"]))
    assert both[0] == "a:"
    assert both[4:] == ["b:", "RMSE: 0", "MAE: 0", "R2: 1.0000"]
