"""``gpugrad check``: the table it prints, what it finds, and its exit codes."""

import re

import numpy as np
import pytest

from gpugrad import cache, check, cli
from gpugrad.cuda import emulator
from gpugrad.kernels import KERNELS, Kernel
from gpugrad.ops.rules import REGISTRY, elementwise
from gpugrad.testing import agreement


@pytest.fixture
def run(capsys):
    """The exit code, the lines of the output, and the errors' text."""

    def call(*args):
        code = cli.main(["check", *args])
        out, err = capsys.readouterr()
        return code, out.splitlines(), err

    return call


@pytest.fixture
def planted(monkeypatch):
    """A kernel "planted" that doubles an array, with these twins."""

    def plant(cpu=lambda x: 2 * x, cuda=lambda x: x + x):
        monkeypatch.setitem(KERNELS, "planted", None)  # which is undone after the test
        samples = lambda rng, dtype: [((rng.integers(-9, 9, 50).astype(dtype),), {}), ((np.zeros(0, dtype),), {})]
        kernel = Kernel("planted", lambda x: x * 2, cpu="none:none", cuda=cuda, samples=samples)
        kernel._cpu = cpu

    return plant


def row(lines, name, dtype=""):
    (found,) = [line for line in lines if line.split()[: 2 if dtype else 1] == [name, dtype][: 2 if dtype else 1]]
    return found


def test_a_kernel_is_run_everywhere(run):
    code, lines, err = run("--only", "act_backward")
    assert (code, err) == (0, "")
    (head,) = [line for line in lines if line.startswith("kernel")]
    places = [place for place in ("NumPy", "Numba", "emulated CUDA") if place in head]
    assert places == [place for place in agreement.places() if place != agreement.CUDA]
    cells = len(agreement.places())
    assert row(lines, "act_backward", "float32").count("us") + row(lines, "act_backward", "float32").count("ms") == cells
    assert "-" in row(lines, "act_backward", "float16")  # Numba has none
    assert any(line.startswith("operation") for line in lines)
    results = (cells * len(agreement.dtypes()) - len(agreement.dtypes()) + 2) + (4 if agreement.CUDA in agreement.places() else 2)
    assert lines[-1] == f"{results} results, all right"


def test_kernels_leaves_out_the_operations(run):
    code, lines, _ = run("--kernels", "--only", "act_backward")
    assert code == 0
    assert not any(line.startswith("operation") for line in lines)
    code, lines, _ = run("--only", "tanh")
    assert code == 0
    assert not any(line.startswith("kernel ") for line in lines)
    assert {line.split()[0] for line in lines if "tanh" in line.split(" ")[0]} == {name for name in REGISTRY if "tanh" in name}


def test_the_table_fits_a_terminal(run):
    _, lines, _ = run("--only", "cross_entropy")
    table = lines[next(i for i, line in enumerate(lines) if line.startswith("kernel")) :]
    assert max(map(len, table)) <= 80 + 18 * (agreement.CUDA in agreement.places())


def test_long_names_stay_apart_from_what_follows_and_in_80_columns(run):
    """A name as long as its column was written next to the dtype without a space."""
    width = 80 + 16 * (agreement.CUDA in agreement.places())
    _, lines, _ = run("--only", "log_softmax_curvature")
    table = lines[next(i for i, line in enumerate(lines) if line.startswith("kernel")) :]
    assert max(map(len, table)) <= width
    assert [line.split()[1] for line in table if line.startswith("log_softmax_curvature ")][:4] == [d.name for d in agreement.dtypes()]


@pytest.mark.parametrize("options", [["--only", "nothing"], ["--only", "arctan2", "--kernels"]])
def test_a_name_that_nothing_has(run, options):
    code, lines, err = run(*options)
    assert (code, lines) == (2, [])
    assert err.startswith("gpugrad: no kernel") and repr(options[1]) in err and err.count("\n") == 1


def test_a_planted_kernel_that_is_right(run, planted):
    planted()
    code, lines, err = run("--only", "planted")
    assert (code, err) == (0, "")
    assert "!" not in row(lines, "planted", "float32")


@pytest.mark.parametrize(
    ("twin", "error"),
    [
        (lambda x: 2.001 * x, r"\d+ ulp"),
        (lambda x: 2 * x + np.where(x == x[:1], np.nan, 0), "inf ulp"),
        (lambda x: 2 * x[:-1], "inf ulp"),
    ],
)
def test_a_wrong_twin_is_found(run, planted, twin, error):
    planted(cpu=lambda x: twin(x).astype(x.dtype))
    code, lines, err = run("--only", "planted")
    assert code == 1
    assert err == "gpugrad: not all results are right\n"
    assert row(lines, "planted", "float32").count("!") == row(lines, "planted", "float64").count("!") == 1
    assert "!" not in row(lines, "planted", "float16")
    wrong = [line for line in lines if line.startswith("wrong: ")]
    assert [line.split(": ")[1] for line in wrong] == ["planted, float32, Numba", "planted, float64, Numba"]
    for line in wrong:
        assert re.search(error + r", at most \d+ are allowed$", line)
    assert lines[-1].endswith(" results, 2 wrong")


def test_a_twin_that_raises_is_reported_once(run, planted):
    def refuse(x):
        raise RuntimeError("no such register")

    planted(cpu=refuse)
    code, lines, _ = run("--only", "planted")
    assert code == 1
    assert row(lines, "planted", "float64").count("failed") == 1
    assert "failed: planted, float32, Numba; planted, float64, Numba: RuntimeError: no such register" in lines
    assert lines[-1].endswith(" results, 2 failed")


def test_an_operation_that_loses_digits_is_found(run, monkeypatch):
    monkeypatch.setitem(REGISTRY, "planted", None)  # which is undone after the test
    del REGISTRY["planted"]
    elementwise("planted", lambda x: ((1 + x * 1e-6) - 1) * 1e6, lambda d, y, x: d)
    code, lines, _ = run("--only", "planted")
    assert code == 1
    wrong = [line.split(": ")[1] for line in lines if line.startswith("wrong: ")]
    assert wrong == [f"planted, float32, {place}" for place in ("NumPy", "CUDA") if place in agreement.places()]


def test_without_a_compiler_there_is_no_emulator(run, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    code, lines, _ = run("--only", "act_backward", "--kernels")
    assert code == 0
    assert any("emulated CUDA" in line and "install g++" in line for line in lines)
    assert "emulated CUDA" not in next(line for line in lines if line.startswith("kernel"))


@pytest.mark.parametrize("variable", ["GPUGRAD_NUM_THREADS", "GPUGRAD_BLAS"])
def test_a_variable_that_cannot_be(run, monkeypatch, variable):
    from gpugrad import blas

    monkeypatch.setenv(variable, "abc")
    monkeypatch.setattr(blas, "_gemms", None)
    code, lines, err = run("--only", "act_backward")
    assert (code, lines) == (2, [])
    assert variable in err and "'abc'" in err and err.count("\n") == 1


def test_where_nothing_can_be_kept(run, monkeypatch, tmp_path):
    """The emulator compiles into a folder of this process then, as Numba compiles in memory."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("GPUGRAD_CACHE_DIR", str(tmp_path / "file"))
    code, lines, _ = run("--only", "act_backward", "--kernels")
    assert code == 0
    assert any(line.startswith("What is compiled cannot be kept: ") for line in lines)
    with pytest.raises(OSError):
        cache.folder("emulator")
    if emulator.is_available():
        text = 'extern "C" __global__ void nothing(int64 n) {}'
        path = emulator._built("typedef long long int64;" + text, {"nothing": "1"}, ())
        assert path.exists() and not path.is_relative_to(tmp_path)


def test_digits_and_times_have_their_places():
    assert [check._digits(x) for x in (0, 0.04, 9.94, 9.96, 12345.6, 8.4e6, float("inf"))] == ["0", "0.0", "9.9", "10", "12346", "8e+06", "inf"]
    times = [check._time(s) for s in (4e-8, 9.996e-6, 0.00012345, 0.0009996, 0.0314, 2.5, 301.0)]
    assert times == ["0.04 us", "10.0 us", "123 us", "1.00 ms", "31.4 ms", "2.50 s", "301 s"]


def test_what_a_complete_check_compiles_is_what_a_backward_pass_meets(monkeypatch):
    """The cotangent of a sum is a number that is broadcast. The check copied it into a whole array, so that first steps compiled still."""
    seen = []

    def cpu(d):
        seen.append(d.strides)
        return d * 2

    monkeypatch.setitem(KERNELS, "planted", None)
    samples = lambda rng, dtype: [((np.broadcast_to(np.asarray(3, dtype), (7, 5)),), {})]
    kernel = Kernel("planted", lambda d: d * 2, cpu="none:none", cuda=cpu, samples=samples)
    kernel._cpu = cpu
    assert all(found.holds for found in agreement.kernels_agree([kernel], [agreement.NUMBA]))
    assert seen and set(seen) == {(0, 0)}
