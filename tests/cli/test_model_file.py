"""The file of a model: everything comes back, bit for bit, and other programs can read it."""

import json

import numpy as np
import pytest

import gpugrad as gg
from gpugrad import data, io, random
from gpugrad.cli import model_file

RNG = np.random.default_rng(0)


def model(device="cpu", **architecture):
    architecture = {"sizes": [3, 8, 8, 2], "activation": "tanh", "norm": None, "dropout": 0.0, "residual": False, "dtype": "float32"} | architecture
    random.seed(0)
    network = model_file.build(architecture, device)
    inputs = data.Standardizer().fit(RNG.normal(3, 2, (50, 3)))
    return model_file.Model(network, architecture, "classification", ["a", "b", "ü\n"], ["y"], ["no", "yes"], inputs, about={"seed": 0})


@pytest.mark.parametrize(
    "architecture",
    [
        {},
        {"norm": "batch"},
        {"norm": "layer", "residual": True},
        {"norm": "rms", "dropout": 0.5},
        {"dtype": "float64"},
        {"sizes": [3, 2]},
        {"activation": "gelu"},
    ],
    ids=str,
)
def test_everything_comes_back(architecture, tmp_path, device):
    saved, x = model(device, **architecture), RNG.normal(3, 2, (20, 3))
    saved.network.train()
    saved.network(gg.tensor(x.astype(saved.architecture["dtype"]), device=device))  # batch norm has seen something
    model_file.save(str(tmp_path / "m"), saved)
    loaded = model_file.load(str(tmp_path / "m"), device)
    for name in ("architecture", "task", "columns", "targets", "classes", "about"):
        assert getattr(loaded, name) == getattr(saved, name)
    np.testing.assert_array_equal(loaded.predict(x), saved.predict(x))
    np.testing.assert_array_equal(loaded.predict(x), loaded.predict(x))  # no dropout
    assert loaded.predict(x).shape == (20, 2)
    assert loaded.predict(x[:0]).shape == (0, 2)
    model_file.save(str(tmp_path / "n"), loaded)
    assert (tmp_path / "m").read_bytes() == (tmp_path / "n").read_bytes()


def test_numbers_of_several_targets(tmp_path):
    saved, y = model(), RNG.normal(size=(30, 2)) * [1e6, 1e-6] + [5e6, 0]
    saved.task, saved.targets, saved.classes, saved.outputs = "regression", ["big", "small"], [], data.Standardizer().fit(y)
    model_file.save(str(tmp_path / "m"), saved)
    x = RNG.normal(3, 2, (20, 3))
    z = saved.network(gg.tensor(saved.inputs.transform(x).astype(np.float32))).numpy().astype(np.float64)
    np.testing.assert_allclose(model_file.load(str(tmp_path / "m"), "cpu").predict(x), z * y.std(axis=0) + y.mean(axis=0), rtol=1e-12)


def test_probabilities():
    p = model().predict(np.array([[1e6, -1e6, 1e6], [0, 0, 0]]))
    assert p.dtype == np.float64
    np.testing.assert_allclose(p.sum(axis=1), 1, rtol=1e-12)
    assert (p >= 0).all()


def test_it_is_a_state_dict_with_a_text(tmp_path):
    saved = model()
    model_file.save(str(tmp_path / "m"), saved)
    assert set(io.load(tmp_path / "m")) == set(saved.network.state_dict())
    metadata = io.load_metadata(tmp_path / "m")
    assert metadata["format"] == "gpugrad model 1"
    description = json.loads(metadata["description"])
    assert description["gpugrad"] == gg.__version__
    assert description["columns"] == ["a", "b", "ü\n"]
    assert description["inputs"]["mean"] == saved.inputs.mean.tolist()


def test_another_device_than_it_was_trained_on(tmp_path, device):
    saved, x = model(device), RNG.normal(3, 2, (20, 3))
    model_file.save(str(tmp_path / "m"), saved)
    np.testing.assert_allclose(model_file.load(str(tmp_path / "m"), "cpu").predict(x), saved.predict(x), rtol=1e-5, atol=1e-6)
