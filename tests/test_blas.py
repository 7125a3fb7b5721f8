"""Products of matrices: which library computes them, and that what it is told of the memory is right.

The same tests run on MKL where it is installed, and everywhere on a function that reads memory as CBLAS's documentation says.
"""

from __future__ import annotations

import ctypes
import importlib.metadata
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import gpugrad as gg
from gpugrad import backend, blas, cli

RNG = np.random.default_rng(0)
HAS_MKL = blas.library() is not None and (os.environ.get("GPUGRAD_BLAS") or ("mkl" if blas.is_intel() else "numpy")) == "mkl"
needs_mkl = pytest.mark.skipif(not HAS_MKL, reason="needs MKL: pip install mkl")


def as_documented(dtype: Any, calls: list[Any]) -> Callable[..., None]:
    """C = alpha A B + beta C for row-major C, where A, B may be stored transposed, with the given number of elements between rows."""
    number = ctypes.c_float if dtype == np.float32 else ctypes.c_double

    def stored(address: int, rows: int, columns: int, step: int) -> Any:
        assert step >= max(columns, 1)
        elements = (number * ((rows - 1) * step + columns)).from_address(address)
        return np.lib.stride_tricks.as_strided(np.frombuffer(elements, dtype), (rows, columns), (step * elements._type_._size, elements._type_._size))

    number._size = ctypes.sizeof(number)  # type: ignore[attr-defined]

    def gemm(order: int, ta: int, tb: int, m: int, n: int, k: int, alpha: float, a: int, lda: int, b: int, ldb: int, beta: float, c: int, ldc: int) -> None:
        assert (order, alpha, beta) == (101, 1, 0) and ta in (111, 112) and tb in (111, 112)
        calls.append((m, n, k))
        left = stored(a, m, k, lda) if ta == 111 else stored(a, k, m, lda).T
        right = stored(b, k, n, ldb) if tb == 111 else stored(b, n, k, ldb).T
        stored(c, m, n, ldc)[...] = left @ right

    return gemm


@pytest.fixture(params=["as documented", pytest.param("MKL", marks=needs_mkl)])
def calls(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """The calls of the library that computes all products, however small."""
    made: list[Any] = []
    if request.param == "MKL":
        gemms = dict(blas._choose())
        for dtype, (function, size) in gemms.items():
            gemms[dtype] = (lambda *args, f=function: made.append(f(*args) or args[3:6]), size)
    else:
        gemms = {np.dtype(t): (as_documented(t, made), np.dtype(t).itemsize) for t in (np.float32, np.float64)}
    monkeypatch.setattr(blas, "_gemms", gemms)
    monkeypatch.setattr(blas, "LEAST", 0)
    yield made


# ------------------------------------------------------------------------------------------------- layouts


def unaligned(x: Any) -> Any:
    raw = np.empty(x.nbytes + 1, np.uint8)[1:]
    y = raw.view(np.uint8)[: x.nbytes].view(x.dtype).reshape(x.shape)
    y[...] = x
    return y


READ = {  # layouts that BLAS reads as they are
    "C": lambda x: x.copy(),
    "Fortran": np.asfortranarray,
    "rows of a wider matrix": lambda x: np.pad(x, ((0, 0), (2, 3)))[:, 2:-3],
    "columns of a taller matrix": lambda x: np.asfortranarray(np.pad(x, ((2, 3), (0, 0))))[2:-3],
    "every other row": lambda x: np.repeat(x, 2, axis=0)[::2],
    "every other column of a transpose": lambda x: np.repeat(x.T, 3, axis=0)[::3].T,
}
LEFT = {  # and such as it cannot
    "negative rows": lambda x: x[::-1].copy()[::-1],
    "negative columns": lambda x: x[:, ::-1].copy()[:, ::-1],
    "every other column": lambda x: np.repeat(x, 2, axis=1)[:, ::2],
    "one row for all": lambda x: np.broadcast_to(x[:1], x.shape),
    "one column for all": lambda x: np.broadcast_to(x[:, :1], x.shape),
    "rows that overlap": lambda x: np.lib.stride_tricks.as_strided(x.ravel().copy(), x.shape, (x.itemsize, x.itemsize)),
    "rows that overlap in part": lambda x: np.lib.stride_tricks.as_strided(x.ravel().copy(), x.shape, (2 * x.itemsize, x.itemsize)),
    "unaligned": unaligned,
    "other bytes": lambda x: x.astype(x.dtype.newbyteorder()),
}


def expected(a: Any, b: Any) -> Any:
    return np.matmul(a.astype(np.float64), b.astype(np.float64))


def agree(y: Any, a: Any, b: Any, rtol: float | None = None) -> None:
    truth = expected(a, b)
    assert y.shape == truth.shape
    np.testing.assert_allclose(y, truth, rtol=1e-5 if rtol is None else rtol, atol=1e-5)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("right", [*READ, *LEFT])
@pytest.mark.parametrize("left", [*READ, *LEFT])
def test_layouts(left: str, right: str, dtype: Any, calls: list[Any]) -> None:
    a, b = (READ | LEFT)[left](RNG.standard_normal((4, 5)).astype(dtype)), (READ | LEFT)[right](RNG.standard_normal((5, 6)).astype(dtype))
    y = blas.matmul(a, b)
    assert y.dtype == dtype and y.flags.c_contiguous
    agree(y, a, b)
    assert len(calls) == (left in READ and right in READ), "the wrong library computed this"


@pytest.mark.parametrize("m, k, n", [(1, 5, 6), (4, 1, 6), (4, 5, 1), (1, 1, 6), (1, 5, 1), (4, 1, 1), (1, 1, 1)])
@pytest.mark.parametrize("layout", [*READ, *LEFT])
def test_lengths_of_one(m: int, k: int, n: int, layout: str, calls: list[Any]) -> None:
    """A stride along an axis of length 1 says nothing."""
    a, b = (READ | LEFT)[layout](RNG.standard_normal((m, k))), (READ | LEFT)[layout](RNG.standard_normal((k, n)))
    agree(blas.matmul(a, b), a, b)
    odd = np.lib.stride_tricks.as_strided(a, a.shape, tuple(7 if length == 1 else stride for length, stride in zip(a.shape, a.strides)))
    if odd.flags.aligned:
        agree(blas.matmul(odd, b), a, b)


@pytest.mark.parametrize("layout", READ)
@pytest.mark.parametrize("lead", [((4,), (4,)), ((), (4,)), ((4,), ()), ((1,), (4,)), ((4,), (1,))], ids=str)
def test_batches_are_one_product_after_the_other(lead: Any, layout: str, calls: list[Any]) -> None:
    a, b = (np.stack([READ[layout](RNG.standard_normal(size)) for _ in range(4)]) for size in ((3, 5), (5, 6)))
    a, b = (v[0] if not n else v[: n[0]] for v, n in zip((a, b), lead, strict=True))
    np.testing.assert_allclose(blas.matmul(a, b), np.matmul(a, b), rtol=1e-12)
    assert len(calls) == 4
    np.testing.assert_array_equal(blas.matmul(np.ones((0, 3, 5)), np.ones((0, 5, 6))), np.zeros((0, 3, 6)))
    with pytest.raises(ValueError, match="broadcast"):
        blas.matmul(np.ones((2, 3, 5)), np.ones((3, 5, 6)))


@pytest.mark.parametrize("m, k, n", [(0, 5, 6), (4, 0, 6), (4, 5, 0), (0, 0, 0)])
def test_empty(m: int, k: int, n: int, calls: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blas, "LEAST", 1)
    np.testing.assert_array_equal(blas.matmul(np.ones((m, k)), np.ones((k, n))), np.zeros((m, n)))


@pytest.mark.parametrize("a, b", [("f4", "f8"), ("i8", "i8"), ("f2", "f2"), ("c16", "c16"), ("f4", "i4")])
def test_other_dtypes_are_numpys(a: str, b: str, calls: list[Any]) -> None:
    x, y = np.arange(20, dtype=a).reshape(4, 5), np.arange(30, dtype=b).reshape(5, 6)
    z = blas.matmul(x, y)
    assert z.dtype == np.matmul(x, y).dtype and not calls
    np.testing.assert_array_equal(z, np.matmul(x, y))


@pytest.mark.parametrize("a, b", [((2, 3, 4, 5), (5, 6)), ((4, 5), (2, 3, 5, 6)), ((5,), (5, 6)), ((4, 5), (5,)), ((5,), (5,))])
def test_other_shapes_are_numpys(a: Any, b: Any, calls: list[Any]) -> None:
    x, y = RNG.standard_normal(a), RNG.standard_normal(b)
    np.testing.assert_array_equal(blas.matmul(x, y), np.matmul(x, y))
    assert not calls


def test_shapes_that_do_not_fit(calls: list[Any]) -> None:
    with pytest.raises(ValueError, match="mismatch in its core dimension"):
        blas.matmul(np.ones((4, 5)), np.ones((4, 5)))


# ------------------------------------------------------------------------------------------------- out


OUTS = {
    "C": (lambda: np.full((4, 6), np.nan), True),
    "rows of a wider matrix": (lambda: np.full((4, 9), np.nan)[:, 2:8], True),
    "Fortran": (lambda: np.full((6, 4), np.nan).T, False),
    "every other column": (lambda: np.full((4, 12), np.nan)[:, ::2], False),
    "negative": (lambda: np.full((4, 6), np.nan)[::-1], False),
}


@pytest.mark.parametrize("layout", OUTS)
def test_out(layout: str, calls: list[Any]) -> None:
    """What lay there before, even nan, is not read."""
    make, taken = OUTS[layout]
    a, b, out = RNG.standard_normal((4, 5)), RNG.standard_normal((5, 6)), make()
    assert blas.matmul(a, b, out) is out
    agree(out, a, b)
    assert bool(calls) == taken


def test_out_beside_what_is_written_stays(calls: list[Any]) -> None:
    wide = np.full((4, 9), 7.0)
    blas.matmul(np.ones((4, 5)), np.ones((5, 6)), wide[:, 2:8])
    assert (wide[:, :2] == 7).all() and (wide[:, 8:] == 7).all() and (wide[:, 2:8] == 5).all()


@pytest.mark.parametrize("which", ["left", "right", "both", "part"])
def test_out_may_be_an_operand(which: str, calls: list[Any]) -> None:
    memory = RNG.standard_normal((9, 8))
    a, b = memory[:8], RNG.standard_normal((8, 8))
    if which == "both":
        b = a
    out = {"left": a, "right": b, "both": a, "part": memory[1:]}[which]
    truth = expected(a, b)
    blas.matmul(a, b, out)
    np.testing.assert_allclose(out, truth)
    assert not calls  # BLAS promises nothing here; NumPy copies


def test_out_that_does_not_fit(calls: list[Any]) -> None:
    a, b = np.ones((4, 5)), np.ones((5, 6))
    with pytest.raises(ValueError, match="mismatch in its core dimension"):
        blas.matmul(a, b, np.empty((4, 7)))
    with pytest.raises(TypeError, match="Cannot cast"):
        blas.matmul(a, b, np.empty((4, 6), np.int64))
    read_only = np.empty((4, 6))
    read_only.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        blas.matmul(a, b, read_only)
    wider = np.empty((4, 6))
    blas.matmul(a.astype(np.float32), b.astype(np.float32), wider)
    assert (wider == 5).all() and not calls


def test_nan_and_infinity_are_kept(calls: list[Any]) -> None:
    a, b = np.ones((8, 8)), np.zeros((8, 8))
    a[2, 3], a[4, 5] = np.nan, np.inf
    with np.errstate(all="ignore"):
        y = blas.matmul(a, b)
    assert np.isnan(y[[2, 4]]).all() and (np.delete(y, [2, 4], axis=0) == 0).all() and calls


# ------------------------------------------------------------------------------------------------- through the operations


def test_operations_go_there(calls: list[Any]) -> None:
    x, w = RNG.standard_normal((4, 5)), RNG.standard_normal((5, 6))
    for product in (lambda x, w: x @ w, lambda x, w: gg.einsum("ij,jk->ik", x, w), lambda x, w: gg.nn.functional.linear(x, w, np.zeros(6))):
        del calls[:]
        value, (dx, dw) = gg.value_and_grad(lambda x, w: gg.sum(product(x, w) ** 2), (0, 1))(x, w)  # noqa: B023
        assert sorted(calls) == [(4, 5, 6), (4, 6, 5), (5, 6, 4)]
        np.testing.assert_allclose(value, (expected(x, w) ** 2).sum())
        np.testing.assert_allclose(dx, 2 * x @ w @ w.T)
        np.testing.assert_allclose(dw, 2 * x.T @ x @ w)


def test_cupy_computes_its_own(fake_cupy: Any, calls: list[Any]) -> None:
    a = fake_cupy.asarray(np.ones((4, 5)))
    y = blas.matmul(a, fake_cupy.asarray(np.ones((5, 6))))
    assert isinstance(y, fake_cupy.ndarray) and not calls
    out = fake_cupy.zeros((4, 6))
    blas.matmul(a, fake_cupy.asarray(np.ones((5, 6))), out)
    assert (out.get() == 5).all()


# ------------------------------------------------------------------------------------------------- the choice


@pytest.fixture
def unchosen(monkeypatch: pytest.MonkeyPatch) -> None:
    """As it is before the first product, without MKL and the variable."""
    monkeypatch.setattr(blas, "_gemms", None)
    monkeypatch.setattr(blas, "_mkl", None)
    monkeypatch.setattr(blas, "LEAST", 8)
    monkeypatch.setattr(blas, "library", lambda: None)
    monkeypatch.setattr(blas, "is_intel", lambda: True)
    monkeypatch.delenv("GPUGRAD_BLAS", raising=False)


TWO = np.full((2, 2), 2.0)


def test_numpy_without_mkl(unchosen: None) -> None:
    assert (blas.matmul(TWO, TWO) == 8).all() and blas._gemms == {}
    assert blas.describe().startswith("NumPy's ") and "thread" in blas.describe()


@pytest.mark.parametrize("value", ["MKL", "openblas", "1"])
def test_unknown_name(value: str, unchosen: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPUGRAD_BLAS", value)
    with pytest.raises(ValueError, match=f"GPUGRAD_BLAS='{value}' is not a library of products: expected 'mkl' or 'numpy'"):
        blas.matmul(TWO, TWO)


def test_mkl_that_is_missing(unchosen: None, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setenv("GPUGRAD_BLAS", "mkl")
    for _ in range(2):
        with pytest.raises(RuntimeError, match=r"GPUGRAD_BLAS=mkl, but MKL is not installed: pip install 'gpugrad\[mkl\]'"):
            blas.matmul(TWO, TWO)
    assert cli.main(["info"]) == 0
    assert "missing      BLAS: GPUGRAD_BLAS=mkl, but MKL is not installed" in capsys.readouterr().out


@pytest.mark.parametrize("value", ["mkl", None])
def test_mkl_that_is_broken(value: str | None, unchosen: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It was installed to be used, so NumPy does not take its place unasked."""
    broken = tmp_path / "libmkl_rt.so.3"
    broken.write_text("nothing to load")
    monkeypatch.setattr(blas, "library", lambda: broken)
    if value:
        monkeypatch.setenv("GPUGRAD_BLAS", value)
    with pytest.raises(RuntimeError, match=r"MKL cannot be loaded from .*libmkl_rt\.so\.3: .*GPUGRAD_BLAS=numpy"):
        blas.matmul(TWO, TWO)
    monkeypatch.setenv("GPUGRAD_BLAS", "numpy")
    assert (blas.matmul(TWO, TWO) == 8).all()


def test_chosen_once(unchosen: None, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Path] = []
    gemms = {np.dtype(np.float64): (as_documented(np.float64, asked), 8)}
    monkeypatch.setattr(blas, "library", lambda: Path("somewhere"))
    monkeypatch.setattr(blas, "_load", lambda path: (asked.append(path), (None, gemms))[1])
    for _ in range(3):
        assert (blas.matmul(TWO, TWO) == 8).all()
    assert asked == [Path("somewhere"), (2, 2, 2), (2, 2, 2), (2, 2, 2)]


def test_mkl_is_for_intels_processors_unless_it_is_asked_for(unchosen: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[Path] = []
    monkeypatch.setattr(blas, "is_intel", lambda: False)
    monkeypatch.setattr(blas, "library", lambda: Path("somewhere"))
    monkeypatch.setattr(blas, "_load", lambda path: (asked.append(path), (None, {}))[1])
    assert (blas.matmul(TWO, TWO) == 8).all() and asked == []
    assert blas.describe().endswith("MKL is not used on this processor unless GPUGRAD_BLAS=mkl")
    monkeypatch.setattr(blas, "_gemms", None)
    monkeypatch.setenv("GPUGRAD_BLAS", "mkl")
    assert (blas.matmul(TWO, TWO) == 8).all() and asked == [Path("somewhere")]
    monkeypatch.undo()
    for vendor in ("GenuineIntel", "AuthenticAMD"):
        (tmp_path / "cpuinfo").write_text(f"processor : 0\nvendor_id : {vendor}\n")
        assert blas.is_intel(tmp_path / "cpuinfo") == (vendor == "GenuineIntel")
    monkeypatch.setattr("platform.processor", lambda: "Intel64 Family 6 Model 85 Stepping 7, GenuineIntel")
    assert blas.is_intel(tmp_path / "none")


def test_small_products_are_numpys(unchosen: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blas, "LEAST", 9)
    assert (blas.matmul(TWO, TWO) == 8).all() and blas._gemms is None


def test_where_mkl_is_looked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "prefix", str(tmp_path))

    def files(name: str) -> Any:
        assert name == "mkl"
        return [SimpleNamespace(name=n, locate=lambda n=n: tmp_path / "wheel" / n) for n in ("libmkl_core.so.2", "libmkl_rt.so.2")]

    monkeypatch.setattr(importlib.metadata, "files", files)
    assert blas.library() == tmp_path / "wheel" / "libmkl_rt.so.2"
    (tmp_path / "lib").mkdir()
    for name in ("libmkl_rt.so.2", "libmkl_rt.so.3", "libmkl_core.so.3", "libmkl_rt.so"):
        (tmp_path / "lib" / name).touch()
    assert blas.library() == tmp_path / "lib" / "libmkl_rt.so.3"


def test_variables_of_the_user_stand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KMP_BLOCKTIME", "7")
    monkeypatch.delenv("NOT_SET_BY_ANYONE", raising=False)
    with blas._defaults(KMP_BLOCKTIME="0", NOT_SET_BY_ANYONE="1"):
        assert (os.environ["KMP_BLOCKTIME"], os.environ["NOT_SET_BY_ANYONE"]) == ("7", "1")
    assert os.environ["KMP_BLOCKTIME"] == "7" and "NOT_SET_BY_ANYONE" not in os.environ


# ------------------------------------------------------------------------------------------------- MKL itself


def placed(x: Any, offset: int) -> Any:
    """A copy that starts ``offset`` elements past a multiple of 64 bytes."""
    memory = np.empty(x.size + 128, x.dtype)
    start = -(memory.ctypes.data // x.itemsize) % (64 // x.itemsize) + offset
    y = memory[start : start + x.size].reshape(x.shape)
    y[...] = x
    return y


@needs_mkl
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("m, k, n", [(64, 784, 128), (128, 512, 512), (784, 128, 300), (1000, 1000, 10)])
def test_the_same_bits_for_any_alignment_and_number_of_threads(m: int, k: int, n: int, dtype: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    blas._choose()
    monkeypatch.setattr(blas, "LEAST", 0)
    a, b = RNG.standard_normal((m, k)).astype(dtype), RNG.standard_normal((k, n)).astype(dtype)
    before, found = blas._mkl.MKL_Get_Max_Threads(), []
    try:
        for threads in (1, 2, 3):
            blas._mkl.MKL_Set_Num_Threads(threads)
            found.append({blas.matmul(placed(a, i), placed(b, j)).tobytes() for i, j in ((0, 0), (1, 0), (3, 5), (8, 2))})
    finally:
        blas._mkl.MKL_Set_Num_Threads(before)
    assert [len(bits) for bits in found] == [1, 1, 1]
    if blas.is_intel():  # on others MKL takes the strict mode, and sums in another order for another number of threads nevertheless
        assert found[0] == found[1] == found[2]


@needs_mkl
def test_threads_are_counted() -> None:
    assert blas.describe().startswith("MKL 2") and f"{blas._mkl.MKL_Get_Max_Threads()} thread" in blas.describe()


@needs_mkl
@pytest.mark.parametrize("given, seen", [(None, "200us"), ("7", "7")])
def test_threads_sleep(given: str | None, seen: str) -> None:
    """OpenMP says which settings it found when it started; the process does not keep ours."""
    program = "import os; from gpugrad import blas; blas.describe(); print(os.environ.get('KMP_BLOCKTIME'))"
    environment = {k: v for k, v in os.environ.items() if k not in ("KMP_BLOCKTIME", "MKL_THREADING_LAYER")} | {"KMP_SETTINGS": "1"}
    environment |= {"KMP_BLOCKTIME": given} if given else {}
    done = subprocess.run([sys.executable, "-c", program], cwd=Path(__file__).parent.parent, env=environment, capture_output=True, text=True, check=True)
    assert f"KMP_BLOCKTIME={seen}\n" in done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == str(given)


@needs_mkl
def test_large_products_are_mkls() -> None:
    a, b = RNG.standard_normal((512, 256)), RNG.standard_normal((256, 257))
    made = []
    gemms = {dtype: (lambda *args, f=f: made.append(f(*args)), size) for dtype, (f, size) in blas._choose().items()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blas, "_gemms", gemms)
        np.testing.assert_allclose(blas.matmul(a, b), a @ b, atol=1e-11)
    assert len(made) == 1


def test_precision_of_products_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    told = []
    linalg = SimpleNamespace(set_compute_type=lambda dtype, kind: told.append((dtype, kind)), COMPUTE_TYPE_TF32="tf32", COMPUTE_TYPE_DEFAULT="default")
    monkeypatch.setattr(backend, "cupy", lambda: SimpleNamespace(_core=SimpleNamespace(_routines_linalg=linalg)))
    assert gg.get_matmul_precision() == "highest"
    for precision in ("highest", "tf32", "tf32", "highest"):
        gg.set_matmul_precision(precision)
        assert gg.get_matmul_precision() == precision
    assert told == [(np.dtype(np.float32), "tf32"), (np.dtype(np.float32), "default")]
    with pytest.raises(ValueError, match="'medium', expected 'highest' or 'tf32'"):
        gg.set_matmul_precision("medium")


@pytest.mark.gpu
def test_tf32_is_less_exact_and_goes_away_again() -> None:
    cp = backend.cupy()
    a, b = (cp.asarray(np.random.default_rng(i).normal(size=(512, 512)).astype(np.float32)) for i in range(2))
    truth = a.get().astype(float) @ b.get()
    errors = []
    for precision in ("highest", "tf32", "highest"):
        gg.set_matmul_precision(precision)
        errors.append(np.abs(gg.matmul(a, b).get() - truth).max())
    assert errors[0] == errors[2] < 1e-3
    assert int(cp.cuda.Device().compute_capability) < 80 or errors[1] > 2 * errors[0]


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, np.complex64])
def test_a_column_times_a_row(dtype):
    """Of any layout, with nothing to sum, and with shapes that do not fit."""
    a, b = np.arange(12).reshape(6, 2).astype(dtype), np.arange(10).reshape(2, 5).astype(dtype)
    for column, row in ((a[:, :1], b[1:]), (a[::-2, 1:], b[:1, ::-1]), (a[:1].T[:1], b[:1]), (a[:0, :1], b[:1]), (np.asfortranarray(a)[:, 1:], b[:1])):
        y = blas.matmul(column, row)
        np.testing.assert_array_equal(y, column * row)
        assert y.dtype == dtype
        out = np.empty_like(y)
        assert blas.matmul(column, row, out=out) is out
        np.testing.assert_array_equal(out, y)
    with pytest.raises(ValueError, match=r"mismatch|aligned"):
        blas.matmul(a[:, :1], b)


@pytest.mark.parametrize(
    "shapes", [((7, 5, 1), (7, 1, 3)), ((5, 1), (7, 1, 3)), ((2, 1, 5, 1), (7, 1, 3)), ((7, 0, 1), (1, 3)), ((7, 5, 1), (7, 1, 1))], ids=str
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex128, np.int64, bool])
def test_columns_times_rows(shapes: Any, dtype: Any) -> None:
    """What the gradient of each example by a weight is."""
    a, b = (np.random.default_rng(0).integers(-3, 4, shape).astype(dtype) for shape in shapes)
    y = blas.matmul(a, b)
    assert y.dtype == np.matmul(a, b).dtype
    np.testing.assert_array_equal(y, np.matmul(a, b))
    with pytest.raises(ValueError):
        blas.matmul(a, np.concatenate([b, b], axis=-2))
