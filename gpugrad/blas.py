"""Products of matrices on the CPU: Intel's MKL where it is installed (``pip install 'gpugrad[mkl]'``) and the processor is Intel's, else NumPy's own library.

MKL takes the large products of two matrices, or of batches of them, of float32 or of float64 whose memory it can read as it lies; all others are NumPy's. The choice is made
once, by the first product. ``GPUGRAD_BLAS=mkl`` or ``numpy`` in the environment makes it, on any processor.

MKL computes in its mode of reproducible results, in which the bits of a product depend neither on where the arrays lie nor, on Intel's processors, on
the number of threads.
Its threads wait 0.2 ms for the next product and then sleep, unless ``KMP_BLOCKTIME`` says otherwise: at 0 waking them costs what MKL gains, 0.1 to 0.4 ms are
alike, at 1 ms they spin beside those of the kernels (a training step takes up to 1.4 times as long), and left to itself OpenMP has them do so for 200 ms.
There are as many threads as ``MKL_NUM_THREADS`` or ``OMP_NUM_THREADS`` say, else as the kernels use (``GPUGRAD_NUM_THREADS``).
"""

from __future__ import annotations

import ctypes
import importlib.metadata
import os
import platform
import re
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from gpugrad import backend
from gpugrad.parallel import threads

# Multiplications: beyond, OpenBLAS would use threads of its own, which spin beside MKL's afterwards. On two cores of a Xeon (AVX-512) a training step of
# 784-512-512-10 at 128 takes 2.8 to 3.4 ms with 2^18 and 4.2 to 5.4 with 2^22 or 2^25; one of 784-128-10 at 64, whose products are few and small, mostly
# 0.45 to 0.5 with any of them.
LEAST = 1 << 18
_LIBRARY = re.compile(r"libmkl_rt\.so\.\d+|libmkl_rt\.\d+\.dylib|mkl_rt\.\d+\.dll")
_ROW_MAJOR, _AS_IT_IS, _TRANSPOSED = 101, 111, 112  # CBLAS
_AUTO, _STRICT = 2, 0x10000  # MKL_CBWR: the fastest branch of this processor, and the same bits for any number of threads
_MOST = 2**31 - 1

Gemm = tuple[Callable[..., None], int]  # the function, and the bytes of an element
_gemms: dict[Any, Gemm] | None = None  # by dtype: empty where NumPy computes, None before the choice
_mkl: Any = None
_precision = "highest"
_lock = threading.Lock()


def matmul(a: Any, b: Any, out: Any = None) -> Any:
    """``numpy.matmul(a, b)`` of plain arrays; CuPy's for CuPy arrays.

    Raises:
        ValueError: GPUGRAD_BLAS is neither mkl nor numpy; or, as NumPy's, the shapes do not fit.
        RuntimeError: GPUGRAD_BLAS=mkl, but MKL is not installed or cannot be loaded.
    """
    if type(a) is np.ndarray and type(b) is np.ndarray and a.ndim == 2 and b.ndim == 2:
        if a.size * b.shape[1] >= LEAST:
            gemm = (_choose() if _gemms is None else _gemms).get(a.dtype)
            if gemm is not None and a.dtype == b.dtype and a.shape[1] == b.shape[0]:
                y = _product(gemm, a, b, out)
                if y is not None:
                    return y
        if a.shape[1] == 1 and out is None:
            return np.dot(a, b)  # a column times a row, which numpy.matmul does not give to BLAS: it takes four to ten times as long
    elif out is None and min(a.ndim, b.ndim) > 1 and a.shape[-1] == b.shape[-2] == 1:
        return a * b  # columns times rows, nor that
    elif out is None and {a.ndim, b.ndim} <= {2, 3} and a.shape[-2] * a.shape[-1] * b.shape[-1] >= LEAST and type(a) is type(b) is np.ndarray:
        gemm = (_choose() if _gemms is None else _gemms).get(a.dtype)
        if gemm is not None and a.dtype == b.dtype and a.shape[-1] == b.shape[-2]:
            return _products(gemm, a, b)
    return np.matmul(a, b) if out is None else np.matmul(a, b, out=out)


def set_matmul_precision(precision: str) -> None:
    """How exact products of float32 matrices are on a GPU.

    "highest" (at first) computes them in float32. "tf32" rounds what is multiplied to 10 bits after the point, sums in float32, and is several times
    as fast on a GPU of compute capability 8.0 or higher. It holds for the process; products of batches of matrices stay in float32, and on the CPU nothing changes.

    Raises:
        ValueError: neither of them.
        gpugrad.backend.DeviceError: "tf32" without a GPU.
    """
    global _precision
    if precision not in ("highest", "tf32"):
        raise ValueError(f"set_matmul_precision: got {precision!r}, expected 'highest' or 'tf32'")
    if precision != _precision:
        linalg = backend.cupy()._core._routines_linalg
        linalg.set_compute_type(np.dtype(np.float32), linalg.COMPUTE_TYPE_TF32 if precision == "tf32" else linalg.COMPUTE_TYPE_DEFAULT)
        _precision = precision


def get_matmul_precision() -> str:
    """What :func:`set_matmul_precision` was last told, "highest" at first."""
    return _precision


def _product(gemm: Gemm, a: Any, b: Any, out: Any) -> Any:
    """The product by MKL; None where the arrays do not lie as it needs them, which makes it NumPy's."""
    function, itemsize = gemm
    left, right = _leading(a, itemsize), _leading(b, itemsize)
    if left is None or right is None:
        return None
    if out is None:
        out = np.empty((a.shape[0], b.shape[1]), a.dtype)
        step = out.shape[1]
    else:
        fits = type(out) is np.ndarray and out.shape == (a.shape[0], b.shape[1]) and out.dtype == a.dtype and out.flags.writeable
        if not fits or np.may_share_memory(out, a) or np.may_share_memory(out, b):
            return None
        target = _leading(out, itemsize)
        if target is None or target[0] != _AS_IT_IS:
            return None
        step = target[1]
    (m, k), n = a.shape, b.shape[1]
    if max(m, k, n, left[1], right[1], step) > _MOST:
        return None
    function(_ROW_MAJOR, left[0], right[0], m, n, k, 1.0, _address(a), left[1], _address(b), right[1], 0.0, _address(out), step)
    return out


def _products(gemm: Gemm, a: Any, b: Any) -> Any:
    """Those of a batch, one after the other."""
    (n,) = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    out = np.empty((n, a.shape[-2], b.shape[-1]), a.dtype)
    for i in range(n):
        left, right = (x if x.ndim == 2 else x[i if len(x) > 1 else 0] for x in (a, b))
        if _product(gemm, left, right, out[i]) is None:
            np.matmul(left, right, out=out[i])
    return out


def _leading(x: Any, itemsize: int) -> tuple[int, int] | None:
    """How BLAS reads a matrix without a copy: as it is or transposed, and the elements from one row (column) to the next. None where it cannot."""
    (rows, columns), (down, across) = x.shape, x.strides
    if not x.flags.aligned:
        return None
    if (across == itemsize or columns == 1) and (rows == 1 or (down >= columns * itemsize and down % itemsize == 0)):
        return _AS_IT_IS, columns if rows == 1 else down // itemsize
    if (down == itemsize or rows == 1) and (columns == 1 or (across >= rows * itemsize and across % itemsize == 0)):
        return _TRANSPOSED, rows if columns == 1 else across // itemsize
    return None


def _address(x: Any) -> int:
    return x.__array_interface__["data"][0]  # in a third of the time that x.ctypes takes


# ---------------------------------------------------------------------------------- the choice


def describe() -> str:
    """Which library computes products, and with how many threads."""
    _choose()
    if _mkl is not None:
        version = ctypes.create_string_buffer(200)
        _mkl.MKL_Get_Version_String(version, 200)
        number = re.search(r"Version (\S+?)(?:-|\s)", version.value.decode())
        return f"MKL {number[1] if number else ''}, {_counted(_mkl.MKL_Get_Max_Threads())}"
    left = "; MKL is not used on this processor unless GPUGRAD_BLAS=mkl" if library() is not None and os.environ.get("GPUGRAD_BLAS") != "numpy" else ""
    built = np.show_config(mode="dicts").get("Build Dependencies", {}).get("blas", {})
    given = os.environ.get("OPENBLAS_NUM_THREADS") or os.environ.get("OMP_NUM_THREADS") or ""
    number_of = int(given) if given.isdigit() and int(given) else len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return f"NumPy's {built.get('name', 'library')} {built.get('version', '')}".rstrip() + f", {_counted(number_of)}{left}"


def _counted(n: int) -> str:
    return f"{n} thread{'s' * (n != 1)}"


def _choose() -> dict[Any, Gemm]:
    global _gemms
    with _lock:
        if _gemms is None:
            _gemms = _gemms_of(os.environ.get("GPUGRAD_BLAS"))
        return _gemms


def _gemms_of(wanted: str | None) -> dict[Any, Gemm]:
    global _mkl
    if wanted not in (None, "", "mkl", "numpy"):
        raise ValueError(
            f"GPUGRAD_BLAS={wanted!r} is not a library of products: expected 'mkl' or 'numpy', or no such variable to use MKL where it is installed"
        )
    path = library() if wanted == "mkl" or (wanted != "numpy" and is_intel()) else None
    if path is None:
        if wanted == "mkl":
            raise RuntimeError("GPUGRAD_BLAS=mkl, but MKL is not installed: pip install 'gpugrad[mkl]', or set GPUGRAD_BLAS=numpy")
        return {}
    try:
        _mkl, gemms = _load(path)
    except (OSError, AttributeError) as error:
        raise RuntimeError(f"MKL cannot be loaded from {path}: {error}; install it again (pip install 'gpugrad[mkl]'), or set GPUGRAD_BLAS=numpy") from error
    return gemms


def is_intel(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether the processor is Intel's: on others MKL leaves half of their vector units idle, which NumPy's OpenBLAS uses."""
    return "GenuineIntel" in (cpuinfo.read_text() if cpuinfo.exists() else platform.processor())


def library() -> Path | None:
    """Where MKL is: in this environment, or where its wheel was installed."""
    for folder in (Path(sys.prefix, "lib"), Path(sys.prefix, "Library", "bin")):
        for path in sorted(folder.glob("*mkl_rt*"), reverse=True):
            if _LIBRARY.fullmatch(path.name):
                return path
    try:
        files = importlib.metadata.files("mkl") or ()
    except importlib.metadata.PackageNotFoundError:
        return None
    return next((Path(str(f.locate())) for f in files if _LIBRARY.fullmatch(f.name)), None)


def _load(path: Path) -> tuple[Any, dict[Any, Gemm]]:
    gemms: dict[Any, Gemm] = {}
    with _defaults(KMP_BLOCKTIME="200us"):  # read when MKL starts its threads, which the last line here makes it do
        mkl = ctypes.CDLL(str(path))
        if not os.environ.get("MKL_CBWR") and mkl.MKL_CBWR_Set(_AUTO | _STRICT):
            mkl.MKL_CBWR_Set(_AUTO)  # where there is no strict mode (before AVX2): the same bits for the same number of threads
        if not os.environ.get("MKL_NUM_THREADS") and not os.environ.get("OMP_NUM_THREADS"):
            mkl.MKL_Set_Num_Threads(threads())
        for name, dtype, number in (("cblas_sgemm", "float32", ctypes.c_float), ("cblas_dgemm", "float64", ctypes.c_double)):
            function, i, pointer = getattr(mkl, name), ctypes.c_int, ctypes.c_void_p
            function.restype, function.argtypes = None, [*[i] * 6, number, pointer, i, pointer, i, number, pointer, i]
            gemms[np.dtype(dtype)] = function, np.dtype(dtype).itemsize
        square = np.zeros((256, 256), np.float32)
        _product(gemms[square.dtype], square, square, None)
    return mkl, gemms


@contextmanager
def _defaults(**variables: str) -> Iterator[None]:
    """The environment with these variables, where the user has not set them."""
    added = [name for name in variables if name not in os.environ]
    os.environ.update({name: variables[name] for name in added})
    try:
        yield
    finally:
        for name in added:
            del os.environ[name]
