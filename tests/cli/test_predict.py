"""``gpugrad predict``: for each row of a file, in its order and units."""

import csv
import io

import numpy as np
import pytest
from cli_samples import FLOWERS, flowers, write_csv

from gpugrad.cli import model_file


def table(text):
    return list(csv.DictReader(io.StringIO(text)))


def test_classes_and_their_probabilities(run, samples):
    code, out, err = run("predict", samples / "flowers.safetensors", "--data", samples / "flowers.csv")
    assert (code, err) == (0, "")
    rows = table(out)
    assert list(rows[0]) == ["kind", "p(blue)", "p(green)", "p(red)"]
    x, kind = flowers()
    assert np.mean([row["kind"] == FLOWERS[k] for row, k in zip(rows, kind, strict=True)]) > 0.95
    p = np.array([[float(row[f"p({name})"]) for name in sorted(FLOWERS)] for row in rows])
    np.testing.assert_allclose(p.sum(axis=1), 1, atol=1e-5)
    assert [sorted(FLOWERS)[i] for i in p.argmax(axis=1)] == [row["kind"] for row in rows]
    np.testing.assert_allclose(p, model_file.load(str(samples / "flowers.safetensors"), "cpu").predict(x), rtol=1e-5)


def test_numbers_have_the_units_of_the_file(run, samples):
    out = run("predict", samples / "prices.safetensors", "--data", samples / "prices.csv")[1]
    predicted = np.array([float(row["price"]) for row in table(out)])
    true = np.array([float(row["price"]) for row in table((samples / "prices.csv").read_text())])
    assert np.corrcoef(predicted, true)[0, 1] > 0.97
    assert 0.9 < predicted.mean() / true.mean() < 1.1


def test_columns_go_by_name(run, samples, tmp_path):
    whole = run("predict", samples / "flowers.safetensors", "--data", samples / "flowers.csv")[1]
    x, _ = flowers()
    write_csv(tmp_path / "d.csv", ["depth", "remark", "length", "width"], x[:, 2], ["what?"] * 90, x[:, 0], x[:, 1])
    code, out, err = run("predict", samples / "flowers.safetensors", "--data", tmp_path / "d.csv")
    assert code == 0
    assert out == whole
    assert err == f"gpugrad: note: passed over 'remark' of '{tmp_path / 'd.csv'}', which the model does not know\n"
    write_csv(tmp_path / "e.csv", ["length", "width", "depth"], *x.T)
    assert run("predict", samples / "flowers.safetensors", "--data", tmp_path / "e.csv") == (0, whole, "")
    np.savez(tmp_path / "f.npz", depth=x[:, 2], width=x[:, 1], length=x[:, 0])
    assert run("predict", samples / "flowers.safetensors", "--data", tmp_path / "f.npz") == (0, whole, "")
    np.savez(tmp_path / "g.npz", x=x)
    assert run("predict", samples / "flowers.safetensors", "--data", tmp_path / "g.npz") == (0, whole, "")


def test_files_of_predictions(run, samples, tmp_path):
    out = run("predict", samples / "flowers.safetensors", "--data", samples / "flowers.csv")[1]
    for name in ("p.csv", "p.npz"):
        code, said, _ = run("predict", samples / "flowers.safetensors", "--data", samples / "flowers.csv", "--output", tmp_path / name)
        assert (code, said) == (0, f"90 predictions in {tmp_path / name}\n")
    assert (tmp_path / "p.csv").read_text() == out
    with np.load(tmp_path / "p.npz", allow_pickle=False) as saved:
        assert saved["prediction"].tolist() == [row["kind"] for row in table(out)]
        assert saved["classes"].tolist() == sorted(FLOWERS)
        assert saved["probability"].shape == (90, 3)
    run("predict", samples / "prices.safetensors", "--data", samples / "prices.csv", "--output", tmp_path / "q.npz")
    with np.load(tmp_path / "q.npz", allow_pickle=False) as saved:
        assert saved["prediction"].shape == (90,)
        assert saved["targets"].tolist() == ["price"]


def test_devices_agree(run, samples, device):
    here = run("predict", samples / "flowers.safetensors", "--data", samples / "flowers.csv", "--device", "cpu")[1]
    code, there, err = run("predict", samples / "flowers.safetensors", "--data", samples / "flowers.csv", "--device", device)
    assert (code, err) == (0, "")
    for a, b in zip(table(here), table(there), strict=True):
        assert a["kind"] == b["kind"]
        np.testing.assert_allclose(float(a["p(red)"]), float(b["p(red)"]), rtol=1e-4, atol=1e-7)


def test_names_with_commas_and_quotes(run, tmp_path):
    (tmp_path / "d.csv").write_text('"a, b",kind\n' + "".join(f'{i},"{"one, two" if i % 2 else chr(34) * 2 + "x"}"\n' for i in range(40)))
    assert run("train", "--data", tmp_path / "d.csv", "--device", "cpu", "--epochs", "1", "--layers", "4", "--output", tmp_path / "m")[0] == 0
    rows = table(run("predict", tmp_path / "m", "--data", tmp_path / "d.csv")[1])
    assert set(rows[0]) == {"kind", "p(one, two)", 'p("x)'}


def test_many_rows_go_through_in_parts(run, samples, tmp_path, monkeypatch):
    whole = run("predict", samples / "prices.safetensors", "--data", samples / "prices.csv")[1]
    monkeypatch.setattr(model_file, "BATCH", 7)
    parts = run("predict", samples / "prices.safetensors", "--data", samples / "prices.csv")[1]
    a, b = ([float(row["price"]) for row in table(text)] for text in (whole, parts))
    assert a == pytest.approx(b, rel=1e-5)


def test_classes_that_are_whole_numbers_stay_numbers_in_an_npz_file(run, tmp_path):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 2))
    np.savez(tmp_path / "n.npz", x=x, y=(x[:, 0] > 0) * 7 - 2)
    run("train", "--data", tmp_path / "n.npz", "--epochs", 2, "--layers", "4", "--output", tmp_path / "n.safetensors")
    run("predict", tmp_path / "n.safetensors", "--data", tmp_path / "n.npz", "--output", tmp_path / "p.npz")
    with np.load(tmp_path / "p.npz", allow_pickle=False) as saved:
        assert saved["prediction"].dtype == saved["classes"].dtype == np.int64
        assert saved["classes"].tolist() == [-2, 5]
