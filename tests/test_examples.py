"""The examples: each runs as a script, and prints the numbers that the textbook gives, or learns what it is there to learn.

The expected numbers stand here as literals: from the text of the exercises, or computed once with PyTorch or JAX in float64. What is learned
comes out a little different with every version of NumPy's BLAS, so its limits leave room around what several seeds gave.
"""

import ctypes
import importlib.util
import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose

import gpugrad as gg

ROOT = Path(__file__).parents[1]
OWN = ("train_mlp", "wgan_gp", "pinn", "newton_cg")  # the first has a test elsewhere; the others take their time, which their tests below take already
EXAMPLES = sorted(path for path in (ROOT / "examples").glob("*.py") if path.stem not in OWN)
TO_FOUR_DIGITS = {"rtol": 1e-4}


@cache
def load(name):
    """An example as a module, found by the beginning of its file's name."""
    (path,) = (ROOT / "examples").glob(f"{name}*.py")
    spec = importlib.util.spec_from_file_location(f"example_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def check_picture(drawn, path):
    if importlib.util.find_spec("matplotlib"):
        assert drawn == path and path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    else:
        assert drawn is None


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_runs_as_a_script(path, tmp_path):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run([sys.executable, str(path)], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_all_fourteen_are_there():
    assert [path.stem[:2] for path in EXAMPLES if path.stem[0].isdigit()] == [f"{i:02}" for i in range(1, 15)]


def test_01_binary_cross_entropy():
    r = load("01").main()
    assert_allclose(r["one number"]["dloss/dsigma"], -6.4540, **TO_FOUR_DIGITS)
    assert_allclose(r["one number"]["by hand"], -6.4540, **TO_FOUR_DIGITS)
    assert_allclose(r["one number"]["dloss/dx"], 2 * (0.7310585786300049 - 2), rtol=1e-12)  # dloss/dx = 2 x (sigma - y)
    for suffix in ("", " by hand"):
        assert_allclose(r["logistic regression"]["dW" + suffix], [[0.8345008968701465], [-1.70075035093523]], rtol=1e-10)
        assert_allclose(r["logistic regression"]["db" + suffix], [-0.030737078224174263], rtol=1e-10)
        dW1 = [[0.07638967516571418, -0.04052349582322527, 0.0030359161744729127], [-0.16566947430446644, 0.1376286643391617, -0.04952526283950994]]
        assert_allclose(r["two layers"]["dW1" + suffix], dW1, rtol=1e-10)
        assert_allclose(r["two layers"]["dW2" + suffix], [[-0.043500663412255336], [0.09247083887698992], [0.2782266969483435]], rtol=1e-10)


def test_02_linear_sgd():
    r = load("02").main()
    sgd = r["sgd"]
    assert len(sgd["gradients"]) == 300
    assert_allclose(sgd["gradients"][:3], [-2.0, -7.84, -16.2288], rtol=1e-10)  # w = 1, 1.02, 1.0984
    w, gradients = 1.0, []
    for _ in range(100):
        for x, y in ((1, 2), (2, 4), (3, 6)):
            gradients.append(2 * x * (x * w - y))
            w -= 0.01 * gradients[-1]
    assert_allclose(sgd["gradients"], gradients, rtol=1e-2)  # the last are the difference of numbers that agree to 13 digits
    assert_allclose(sgd["before"], 4)
    assert_allclose(sgd["after"], 8, rtol=1e-10)
    for value, gradient in r["layers"].values():
        assert_allclose(value, 1.5, rtol=1e-12)
        assert_allclose(gradient, [[0, -1], [0, -1]], rtol=1e-12)


def test_03_shared_leaf():
    assert load("03").main() == {"f": 9.0, "df/dw": 6.0}


def test_04_vanishing_gradients(tmp_path):
    picture = tmp_path / "gradients.png"
    r = load("04").main(picture)
    dh = [-0.001121541797942345, -0.007132434920299617, 0.022652813286318536, 0.04667814565674503, 0.4744107307908928, 1.0]
    dw = [-0.0012817620547912515, 0.0036170244739699626, 0.004440778220354713, 0.07439305624773422, 0.14067691044532596]
    db = [-0.0016022025684890643, 0.005486488400230474, 0.010787053945865968, 0.11669536414186257, 0.24968985831099622]
    assert_allclose(r["recursion"]["tape"], [*dh, *dw, *db], rtol=1e-10)
    assert_allclose(r["recursion"]["recursion"], r["recursion"]["tape"], rtol=1e-12)
    assert r["largest slope"] == 0.25
    vanishing, relu, residual, exploding, decayed, clipped = r["cases"].values()
    k = np.arange(1, 13)
    assert_allclose(vanishing, 0.125 * 0.25 ** (12 - k), rtol=1e-12)
    assert_allclose(exploding, 0.125 * 2.0 ** (12 - k), rtol=1e-12)
    assert_allclose(relu, 0.5, rtol=1e-12)
    assert_allclose(residual, 0.125 * k * 1.25 ** (12 - k), rtol=1e-12)
    assert_allclose(decayed, 0.125, rtol=5e-3)
    assert_allclose(clipped, exploding / np.sqrt(0.125**2 * (4**12 - 1) / 3), rtol=1e-12)
    assert_allclose(np.linalg.norm(clipped), 1, rtol=1e-12)
    sigmoid, relu, norm, residual, exploding, decayed, clipped = r["nets"].values()
    assert sigmoid["norms"][0] < 1e-15 and sigmoid["loss"] > 2.2  # it has learned next to nothing: log 10 is 2.30
    for cured, limit in ((relu, 2.15), (norm, 0.9), (residual, 0.1), (decayed, 0.9)):  # five seeds: at most 1.99, 0.67, 0.03, 0.67
        assert np.log10(cured["norms"]).std() < 0.5  # of one size; those of the sigmoid net differ by 18 orders
        assert cured["loss"] < limit
    assert exploding["norms"][0] > 1e4 * exploding["norms"][-1]
    assert_allclose(np.linalg.norm(clipped["norms"]), 1, rtol=0.2)  # of the weights: the biases have their share of the length
    assert_allclose(clipped["norms"] / clipped["norms"][0], exploding["norms"] / exploding["norms"][0], rtol=1e-5)  # clipping keeps the direction
    check_picture(r["picture"], picture)


def test_05_computation_graph(capsys):
    w, x, b, y = 0.5, 2.0, -0.4, 1.0
    r = load("05").main(w, x, b, y)
    assert r["order"] == ["w", "x", "b", "y", *(f"u{i}" for i in range(1, 10))]
    assert r["consumers"] == {
        "w": ["u1", "u7"], "x": ["u1"], "b": ["u2"], "y": ["u4"],
        "u1": ["u2"], "u2": ["u3"], "u3": ["u4"], "u4": ["u5"], "u5": ["u6"], "u6": ["u9"], "u7": ["u8"], "u8": ["u9"], "u9": [],
    }  # fmt: skip
    u4, slope = -0.3543436937742046, 0.2287842404566573  # sigmoid(0.6) - 1 and sigmoid(0.6) (1 - sigmoid(0.6))
    expected = {"u9": 1, "u8": 1, "u7": 0.5, "u6": 1, "u5": 0.5, "u4": u4, "u3": u4, "u2": slope * u4, "u1": slope * u4}
    expected |= {"b": slope * u4, "w": x * slope * u4 + w, "x": w * slope * u4, "y": -u4}
    assert set(r["derivatives"]) == set(expected)
    for name, value in expected.items():
        assert_allclose(r["derivatives"][name], value, rtol=1e-12, err_msg=name)
    assert "u9    = add(u6, u8)" in capsys.readouterr().out


def test_06_vector_form():
    r = load("06").main()
    expected = {  # the loss, the first row of dW1, and the lengths of dW1 dW2 dW3 db1 db2 db3
        ("cross_entropy", 1): (
            0.3140206265455495,
            [-0.013130457865212513, 0.0008380791377328071, 0.003015513637900796, 0.003469842207460746, 0.014286309116837289, 0.019779715254646103],
            [0.08167650765120366, 0.1544192795875692, 0.4081138617430326, 0.05200693998665702, 0.13646322921340917, 0.3370804693595067],
        ),
        ("cross_entropy", 7): (
            9.133671836503403,
            [0.2073624362699017, -0.012043364339759641, -0.08177098041984424, -0.0905339467705957, -0.11566818512508963, -0.25239785619521704],
            [0.4031521809609898, 1.0312313636034744, 3.063386219480806, 0.31524449138738936, 0.8119871803265135, 2.4450123808822712],
        ),
        ("half_squared_error", 1): (
            0.4463466469998556,
            [0.03969116682122676, -0.020640904464182874, -0.007321250489941849, 0.0039052627704483866, 0.008095693993271582, -0.04392022915394001],
            [0.18531876146086693, 0.33705447244908004, 1.1439285315737964, 0.11800041386263754, 0.29786139304671494, 0.9448244778792044],
        ),
        ("half_squared_error", 7): (
            10.310075375920418,
            [0.5012636909255511, -0.1371984064888802, -0.18699120830695565, -0.03989017706827352, -0.11788730100823992, -0.6931301651052135],
            [0.9325702518367214, 4.135673592182989, 13.171146407672651, 1.344604630488952, 3.3390440614960255, 10.542834751155802],
        ),
    }
    for case, (loss, row, lengths) in expected.items():
        assert_allclose(r[case]["loss"], loss, rtol=1e-10)
        assert_allclose(r[case]["dZ"], r[case]["dZ by hand"], rtol=1e-9, atol=1e-15)
        for source in ("tape", "textbook"):
            assert_allclose(r[case][source][0][0], row, rtol=1e-9)
            assert_allclose([np.linalg.norm(g) for g in r[case][source]], lengths, rtol=1e-9)
    dz = [1.3895684890711808, 0.2463837660741083, 0.043285691591640786]
    assert_allclose(r["mse"]["output"], 1.4951093978257441, rtol=1e-12)
    assert_allclose(r["mse"]["w.grad"], [dz] * 5, rtol=1e-10)  # x is all ones
    assert_allclose(r["mse"]["b.grad"], dz, rtol=1e-10)


def test_07_backprop_by_hand():
    r = load("07").main()
    to_three_decimals = {"rtol": 0, "atol": 5e-4}
    values = {"f0": 1.230, "f1": 1.623, "f2": 7.137, "f3": 2.372, "h1": 0.942, "h2": 5.068, "h3": 0.657, "loss": 0.139}
    gradients = {"f3": 0.745, "h3": 2.234, "f2": -1.683, "h2": -3.366, "f1": -17.060, "h1": 6.824, "f0": 2.281}
    gradients |= {"beta3": 0.745, "omega3": 0.489, "beta2": -1.683, "omega2": -8.530, "beta1": -17.060, "omega1": -16.079, "beta0": 2.281, "omega0": 5.246}
    for got, expected in ((r["values"], values), (r["gradients"], gradients)):
        assert set(got) == set(expected)
        for name, value in expected.items():
            assert_allclose(got[name], value, **to_three_decimals, err_msg=name)
    assert_allclose(r["finite difference"], 5.246, **to_three_decimals)
    assert_allclose(r["finite difference"], r["gradients"]["omega0"], rtol=1e-6)


def test_08_lazy_graph():
    module = load("08")
    r = module.main()
    assert_allclose(r["y"], 48.9, rtol=1e-12)
    assert_allclose(r["gradients"], (3, 6.3), rtol=1e-12)
    assert r["order"] == ["x1", "x2", "multiply", "4.3", "multiply", "add", "30", "add"]
    deep = x = module.Variable("x")
    for _ in range(5000):  # deeper than Python's recursion limit
        deep = deep * 1.0 + x
    module.run(deep, {x: 2.0})
    assert_allclose(x.gradient, 5001)


def test_09_gates():
    r = load("09").main()
    assert r["circuit"] == {"f": -22, "gradients": [1, -4, 5]}
    assert list(r["gates"].values()) == [[2, 2], [6], [15, 10], [0, 9]]
    for source in ("flat", "tape"):
        assert r[source]["e"] == -14
        assert_allclose(r[source]["f"], 8.3153e-7, **TO_FOUR_DIGITS)
        assert_allclose(r[source]["df/dx"], -3.3261e-6, **TO_FOUR_DIGITS)


def test_10_flat_numpy():
    r = load("10").main()
    for source in ("flat", "tape"):
        loss, dW = r["svm"][source]
        assert_allclose(loss, 1.9915505313634068, rtol=1e-10)
        assert_allclose(dW[0], [-0.1738559729872452, 0.19508959527427402, 0.12853031888790434], rtol=1e-9)
        assert_allclose(np.linalg.norm(dW), 1.1028086466581675, rtol=1e-9)
        loss, gradients = r["net"][source]
        assert_allclose(loss, 6.42164389032911, rtol=1e-10)
        assert_allclose([np.linalg.norm(g) for g in gradients], [1.5211245526904116, 0.8944327387649824, 1.868862342011184, 0.47347160276153605], rtol=1e-9)
        assert_allclose(gradients[3], [0.15198295456616817, 0.2318454364420123, -0.38382839100818045], rtol=1e-9)


def test_11_matrix_calculus():
    r = load("11").main()
    assert_allclose(r["relu"]["pulled back"], [[4, 0], [5, 0]])
    assert_allclose(r["relu"]["Jacobian"], np.diag([1, 0, 1, 0]))
    assert_allclose(r["vectors"]["grad of ||x||^2"], [2, -4, 6])
    assert_allclose(r["vectors"]["Jacobian of A x"], [[1, 2, 0], [-1, 0.5, 3]])
    for dX, dW, db in r["products"].values():
        assert_allclose(dX, [[1, 0.5], [-2, 4], [-2, 1.5]], rtol=1e-12)
        assert_allclose(dW, [[-4, 11], [-4, 14]], rtol=1e-12)
        assert_allclose(db, [0, 3], rtol=1e-12)


def test_12_function_and_modular_graph():
    r = load("12").main()
    slope = 0.19661193324148185  # sigmoid'(1), for w0 x0 + w1 x1 + w2 = 1
    for f in r.values():
        assert_allclose(f["f"], 0.7310585786300049, rtol=1e-12)
        assert_allclose(f["gradients"], np.array([-1, -2, 1, 2, -3]) * slope, rtol=1e-12)
    assert_allclose(r["Function"]["d2f/dw2^2"], -0.09085774767294841, rtol=1e-10)  # sigmoid''(1)


def test_13_modes():
    r = load("13").main()
    for name in ("forward", "reverse", "by hand"):
        assert_allclose(r["chain"][name], 3 * np.cos(2.25) * np.exp(np.sin(2.25)), rtol=1e-12)  # at x = 1.5
    cost = r["cost"]
    many, one = "many inputs, one output", "one input, many outputs"
    assert [cost[many, "forward"]["passes"], cost[many, "reverse"]["passes"], cost[one, "forward"]["passes"], cost[one, "reverse"]["passes"]] == [50, 1, 1, 50]
    assert cost[many, "forward"]["operations"] > 20 * cost[many, "reverse"]["operations"] > 0
    assert cost[one, "reverse"]["operations"] > 10 * cost[one, "forward"]["operations"] > 0
    x, t = np.linspace(0, 1, 50), np.linspace(0, 1, 50)
    for mode in ("forward", "reverse"):
        assert_allclose(cost[many, mode]["J"], np.arange(1, 51) * np.exp(np.sin(x**2)) * np.cos(x**2) * 2 * x, rtol=1e-12)
        assert_allclose(cost[one, mode]["J"], np.exp(np.sin(0.49 * t**2)) * np.cos(0.49 * t**2) * 1.4 * t**2, rtol=1e-12)
    for product in r["hvp"].values():
        assert_allclose(product, [10.312856856448587, 0.003971538700705102, 1.955034713817888], rtol=1e-9)
    penalty = r["penalty"]
    assert_allclose(penalty["penalty"], 11.523874339197775, rtol=1e-10)
    for name in ("dW1", "dW1, taped"):
        assert_allclose(penalty[name][0], [-0.4670942876982219, 0.8693697411886647, 0.4592407964366796, -0.020405459348054933, -6.068073799002985], rtol=1e-9)
        assert_allclose(np.linalg.norm(penalty[name]), 12.405567898612079, rtol=1e-9)
    assert_allclose(penalty["finite difference of dW1[1, 2]"], penalty["dW1"][1, 2], rtol=1e-6)


def test_14_every_weight():
    r = load("14").main()
    assert_allclose(r["loss"], 2.0147194451567287, rtol=1e-10)
    assert [g.shape for g in r["gradients"]] == [(20, 13), (13, 8), (8, 3), (3,)] == [w.shape for w in r["weights"]]
    assert_allclose([np.linalg.norm(g) for g in r["gradients"]], [26.148503113187523, 1.013117840427621, 0.8725325351850589, 0.6601225735311693], rtol=1e-9)
    for g, numeric in zip(r["gradients"], r["finite differences"]):
        assert_allclose(g, numeric, rtol=1e-5, atol=1e-8)
    assert r["X.grad"] is None and r["y.grad"] is None


def test_custom_ops():
    r = load("custom_ops").main()
    x = np.array([-2.0, -0.5, 0.0, 0.5, 3.0])
    for way in r.values():
        assert_allclose(way["value"], np.log(np.cosh(x)), rtol=1e-12, atol=1e-15)
        assert_allclose(way["first"], np.tanh(x), rtol=1e-12)
    for name in ("primitive", "Function"):
        for second in ("second", "H v"):
            assert_allclose(r[name][second], 1 / np.cosh(x) ** 2, rtol=1e-10)
    assert "differentiate twice" in r["once"]["refused"] and "second" not in r["once"]


def test_hvp():
    r = load("hvp").main()
    assert len(r["errors"]) == 9 and max(r["errors"].values()) < 1e-13
    assert_allclose(r["value"], 1.1356010946175517, rtol=1e-12)
    assert_allclose(r["product"][:4], [-0.01957545497896863, -0.029271467396347627, -0.01731588823828871, -0.07516881801184411], rtol=1e-10)
    assert_allclose(np.linalg.norm(r["product"]), 1.2753819257024959, rtol=1e-12)
    assert_allclose(r["largest"], 0.5209407993746765, rtol=1e-6)
    assert_allclose(r["eigenvalues"][[-1, 0]], [0.5209407993746765, -0.3037619875646402], rtol=1e-10)


def test_devices_agree():
    values, found = load("devices_agree").main()
    assert {"reference", "cpu"} <= set(values)
    for value in values.values():
        assert_allclose(value, 2.033791110641117, rtol=1e-6)
    assert found.startswith("value 0 on cpu differs from the float64 value by ")


def test_raw_kernel():
    r = load("raw_kernel").main()
    assert r["device"] == ("cuda" if gg.cuda.is_available() else "cpu")
    assert_allclose(r["energy"], [1.687632978520639, 0, 0.7409670515950607, 3.959915067267285], rtol=1e-12)
    assert_allclose(r["force"], [17.53345787227027, 0, -4.404152751287591, -1.463101871225307], rtol=1e-12)
    assert_allclose(r["stiffness"], [125.0957738606924, 35.7542, 4.544623796739876, -2.568125584865596], rtol=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_raw_kernel_compiles_for_a_gpu(dtype):
    compiler = pytest.importorskip("cupy.cuda.compiler")
    try:
        program = compiler._NVRTCProgram(load("raw_kernel").source(dtype), "morse.cu", method="cubin")
        binary, _ = program.compile(("-arch=sm_80",))  # which needs no GPU; an error in the source is a CompileException
    except (RuntimeError, OSError) as error:
        pytest.skip(f"NVRTC is not installed: {error}")
    assert b"morse_pullback" in binary


# what the kernels' source needs to be C++: the blocks and threads run one after another
SERIAL = """
#include <cmath>
using std::exp;
#define __global__
struct Index { long long x; };
static Index blockIdx, threadIdx, blockDim{4}, gridDim{3};
#define RUN(call) for (blockIdx.x = 0; blockIdx.x < 3; blockIdx.x++) for (threadIdx.x = 0; threadIdx.x < 4; threadIdx.x++) call;
"""
RUNNERS = """
extern "C" void run_morse(const real* r, real* v, real a, real b, real c, long long n) { RUN(morse(r, v, a, b, c, n)) }
extern "C" void run_morse_pullback(const real* g, const real* r, real* d, real a, real b, real c, long long n) { RUN(morse_pullback(g, r, d, a, b, c, n)) }
"""


@pytest.mark.parametrize("dtype, real, rtol", [(np.float32, ctypes.c_float, 1e-4), (np.float64, ctypes.c_double, 1e-12)])
def test_raw_kernel_on_the_cpu(dtype, real, rtol, tmp_path):
    """The same CUDA source, compiled as C++, against the NumPy twins. 50 elements need the loop over the grid, and a tail."""
    if not shutil.which("g++"):
        pytest.skip("no g++")
    module = load("raw_kernel")
    (tmp_path / "morse.cpp").write_text(SERIAL + module.source(dtype) + RUNNERS)
    subprocess.run(["g++", "-O1", "-shared", "-fPIC", "morse.cpp", "-o", "morse.so"], cwd=tmp_path, check=True)
    library = ctypes.CDLL(str(tmp_path / "morse.so"))
    r, g = np.linspace(0.3, 3, 50).astype(dtype), np.linspace(-2, 2, 50).astype(dtype)
    constants = {"depth": 4.75, "width": 1.94, "rest": 0.741}
    for name, arrays, twin in (("run_morse", [r], module.morse(r, **constants)), ("run_morse_pullback", [g, r], module.morse_pullback(g, r, **constants))):
        out = np.full_like(r, np.nan)
        pointers = [ctypes.c_void_p(a.ctypes.data) for a in (*arrays, out)]
        getattr(library, name)(*pointers, *map(real, constants.values()), ctypes.c_longlong(50))
        assert_allclose(out, twin, rtol=rtol, atol=rtol)


# ---- what is learned


def test_digits(tmp_path):
    """Six seeds: 0.989 to 0.994 on 359 test images."""
    pytest.importorskip("sklearn")
    r = load("digits").main(tmp_path / "digits.png")
    assert r["accuracy"] >= 0.98
    assert 0 < r["best epoch"] <= r["epochs"] <= 40
    check_picture(r["picture"], tmp_path / "digits.png")


def test_digits_on_any_device(device, tmp_path):
    pytest.importorskip("sklearn")
    r = load("digits").main(tmp_path / "digits.png", device=device, epochs=2)
    assert r["accuracy"] > 0.8  # six seeds: 0.90 at least


def test_newton_cg(capsys):
    """With fewer steps. Three seeds: Newton-CG ends below a gradient of 1e-6 and between 0.1232 and 0.1236, and is at 0.1243 after half of that."""
    pytest.importorskip("sklearn")
    pytest.importorskip("scipy")
    few = {"SGD": 100, "L-BFGS": 60, "Newton-CG": 30, "Hessian-free": 20, "scipy trust-ncg": 35, "scipy trust-krylov": 20}
    r = load("newton_cg").main({"shallow": few, "deep": {"SGD": 60, "Hessian-free": 30}})
    shallow = {method: row for (net, method), row in r.items() if net == "shallow"}
    assert all(row["accuracy"] > 0.95 and row["loss"] < 0.2 for row in shallow.values())
    assert shallow["Newton-CG"]["loss"] < min(shallow["L-BFGS"]["loss"], shallow["SGD"]["loss"])
    assert (shallow["SGD"]["gradients"], shallow["SGD"]["products"]) == (100, 0)
    assert all(
        shallow[method]["products"] > shallow[method]["gradients"] > 0 for method in ("Newton-CG", "Hessian-free", "scipy trust-ncg", "scipy trust-krylov")
    )
    assert r["deep", "Hessian-free"]["loss"] < 0.5 * r["deep", "SGD"]["loss"]
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 100


def test_diabetes():
    """Twenty splits: least squares has 54.65 and 0.495 on average, the net 54.5 and 0.50, and differs from it by 0.1 +- 0.3."""
    pytest.importorskip("sklearn")
    r = load("diabetes").main()
    rmse, r2 = ({name: scores[score].mean() for name, scores in r.items()} for score in ("rmse", "r2"))
    assert abs(r2["mean"]) < 0.05 and 70 < rmse["mean"] < 85  # what knows nothing explains nothing
    assert_allclose(rmse["least squares"], 54.65, rtol=1e-3)  # whatever the net does, its splits do not change
    assert r2["net"] > 0.46 and rmse["net"] < rmse["least squares"] + 1
    assert rmse["net"] > 50  # below that the test part has been learned from


def test_diabetes_is_standardised_by_the_training_part():
    pytest.importorskip("sklearn")
    (train, validation, test), _ = load("diabetes").load(0)
    assert [len(x) for x, _ in (train, validation, test)] == [265, 89, 88]
    for a in train:
        assert_allclose(a.mean(axis=0), 0, atol=1e-5)
        assert_allclose(a.std(axis=0), 1, rtol=1e-4)
    assert abs(test[0].mean(axis=0)).max() > 0.05


def test_autoencoder(tmp_path):
    """Four seeds: 0.0109 to 0.0115 against 0.0239 to 0.0241."""
    pytest.importorskip("sklearn")
    r = load("autoencoder").main(tmp_path / "autoencoder.png")
    errors = r["errors"]
    assert errors["autoencoder"] < 0.6 * errors["PCA"]
    assert_allclose(errors["PCA"], 0.024, rtol=0.02)
    assert r["losses"][-1] < 0.2 * r["losses"][0]
    check_picture(r["picture"], tmp_path / "autoencoder.png")


def test_wgan_gp(tmp_path):
    """Four seeds: 93 to 94% good samples, 8 modes; of real data 99%."""
    r = load("wgan_gp").main(tmp_path / "wgan_gp.png")
    assert r["modes"] == 8 and r["good"] > 0.85
    assert r["real"]["modes"] == 8 and 0.98 < r["real"]["good"] <= 1
    check_picture(r["picture"], tmp_path / "wgan_gp.png")


def test_gradient_penalty_of_a_linear_critic():
    """Its gradient is w wherever one looks, so the penalty is (|w| - 1)^2, and the derivative 2 (|w| - 1) w / |w|."""
    module = load("wgan_gp")
    critic = gg.nn.Linear(2, 1, dtype=np.float64)
    critic.weight.data = np.array([[3.0], [4.0]])
    penalty = module.gradient_penalty(critic, np.ones((5, 2)), np.zeros((5, 2)))
    penalty.backward()
    assert_allclose(penalty.item(), 16, rtol=1e-12)
    assert_allclose(critic.weight.grad.numpy(), [[4.8], [6.4]], rtol=1e-12)


def test_judging_samples_sees_missing_modes():
    module = load("wgan_gp")
    assert module.judge(np.repeat(module.CENTRES, 10, axis=0)) == {"good": 1.0, "modes": 8}
    assert module.judge(np.repeat(module.CENTRES[:3], 10, axis=0)) == {"good": 1.0, "modes": 3}
    assert module.judge(np.zeros((10, 2))) == {"good": 0.0, "modes": 0}


def test_pinn(tmp_path):
    """Five seeds: a relative error of 2.4e-4 to 4.4e-4."""
    r = load("pinn").main(tmp_path / "pinn.png")
    assert r["error"] < 1e-3
    assert r["last loss"] < 1e-4 * r["first loss"]
    check_picture(r["picture"], tmp_path / "pinn.png")


def test_residual_of_the_heat_equation():
    """Zero for the solution; for u = t x^2 it is x^2 - 2 t / pi^2."""
    module = load("pinn")
    points = np.array([[0.2, -0.7], [0.9, 0.4], [0.5, 0.0]])
    t, x = points.T
    assert_allclose(module.residual(lambda p: gg.exp(-p[:, 0]) * gg.sin(np.pi * p[:, 1]), points), 0, atol=1e-14)
    assert_allclose(module.residual(lambda p: p[:, 0] * p[:, 1] ** 2, points), x**2 - 2 * t / np.pi**2, rtol=1e-12)
