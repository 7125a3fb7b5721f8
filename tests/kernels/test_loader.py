"""The loader of .cu files: what it reads in a signature, what it refuses before anything runs, what it hands to the device."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpugrad import backend
from gpugrad.cuda import emulator, loader
from gpugrad.cuda.loader import Parameter, Source

SOURCES = Path(__file__).with_name("sources")
SIGNATURES = Source("signatures.cu", folder=SOURCES)

emulated = pytest.mark.skipif(not emulator.is_available(), reason="the emulator needs a C++ compiler")


@pytest.fixture
def written(tmp_path: Path) -> Callable[[str], Source]:
    """A source with the given text."""

    def write(text: str) -> Source:
        (tmp_path / "made.cu").write_text(text)
        return Source("made.cu", folder=tmp_path)

    return write


# ------------------------------------------------------------------------------------------------- signatures


def test_signatures() -> None:
    assert list(SIGNATURES.entries) == ["scale", "many_lines", "nothing", "numbers", "add_in_place"]
    assert SIGNATURES.entries["scale"] == (
        Parameter("x", "real", True, const=True, restrict=True),
        Parameter("y", "real", True, restrict=True),
        Parameter("factor", "double", False),
        Parameter("n", "int64", False),
    )
    assert [str(p) for p in SIGNATURES.entries["many_lines"]] == [
        *("const acc *sums", "const int64 *labels", "const int32 *a", "const uint32 *b", "const uint64 *c", "const bool *d"),
        *("const float *e", "const double *f", "real *y", "int64 n"),
    ]
    assert SIGNATURES.entries["nothing"] == ()
    assert SIGNATURES.bounds == {"scale": 256}


def test_pointees() -> None:
    dtypes = [loader.Source.pointee(p, "float16").name for p in SIGNATURES.entries["many_lines"] if p.pointer]
    assert dtypes == ["float32", "int64", "int32", "uint32", "uint64", "bool", "float32", "float64", "float16"]
    assert loader.Source.pointee(SIGNATURES.entries["many_lines"][0], "float64") == np.float64


UNREADABLE = [
    "int n",
    "float x",
    "real x",
    "acc x",
    "bool b",
    "unsigned int n",
    "int64 &n",
    "float4 *x",
    "real **x",
    "real x[]",
    "int64 n = 3",
    "char *c",
    "int64",
    "",
]


@pytest.mark.parametrize("parameter", UNREADABLE)
def test_parameter_that_cannot_be_passed(parameter: str, written: Any) -> None:
    source = written(f'extern "C" __global__ void k(real *y, {parameter}) {{}}')
    with pytest.raises(ValueError, match=r"k \(made\.cu\): the loader cannot pass the parameter") as info:
        source.launch("k", np.float32, 1, 32, np.zeros(1, np.float32), 1)
    assert repr(" ".join(parameter.split())) in str(info.value) and "expected int64 or double for a number" in str(info.value)


UNREACHABLE = {
    'no extern "C"': "__global__ void k(real *y) {}",
    "a template": "template <class T> __global__ void k(T *y) {}",
    "a macro": '#define KERNEL(name) extern "C" __global__ void name(real *y) {}',
    "a result": 'extern "C" __global__ int k(real *y) {}',
    "a parenthesis": 'extern "C" __global__ void k(void (*f)()) {}',
    "a block": 'extern "C" {\n__global__ void k(real *y) {}\n}',
}


@pytest.mark.parametrize("what", UNREACHABLE)
def test_kernel_that_cannot_be_launched(what: str, written: Any) -> None:
    source = written("// first line\n" + UNREACHABLE[what])
    with pytest.raises(ValueError, match=r'made\.cu, line [23]: this __global__ is no entry point.*expected extern "C"'):
        _ = source.entries


# ------------------------------------------------------------------------------------------------- refusals


X, Y = np.arange(8, dtype=np.float32), np.zeros(8, np.float32)
READ_ONLY = np.zeros(8, np.float32)
READ_ONLY.flags.writeable = False


def scaled(x: Any = X, y: Any = Y, factor: Any = 2.0, n: Any = 8, *more: Any, dtype: Any = np.float32, grid: Any = 1, block: Any = 32, **options: Any) -> None:
    SIGNATURES.launch("scale", dtype, grid, block, x, y, factor, n, *more, **options)


REFUSED: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "dtype": ({"x": X.astype(float)}, TypeError, r"'const real \*x': got an array of float64, expected an array of float32; use astype"),
    "layout": ({"x": np.zeros((8, 2), np.float32)[:, 0]}, ValueError, r"'const real \*x': got strides \(8,\).*expected a C-contiguous.*ascontiguousarray"),
    "Fortran": ({"x": np.zeros((4, 2), np.float32, "F")}, ValueError, r"strides \(4, 16\) for shape \(4, 2\)"),
    "order of bytes": ({"x": X.astype(">f4"), "dtype": np.dtype(">f4")}, TypeError, "got an array of >f4, expected an array of float32; use astype"),
    "misaligned": ({"x": np.zeros(33, np.uint8)[1:].view(np.float32)}, ValueError, r"'const real \*x': got an array at an address that is no multiple"),
    "read-only": ({"y": READ_ONLY}, ValueError, r"'real \*y': got a read-only array, expected one to write into; pass a copy"),
    "a list": ({"x": [1.0]}, TypeError, r"'const real \*x': got list \[1.0\], expected an array of float32"),
    "a scalar for an array": ({"y": np.float32(1)}, TypeError, r"'real \*y': got float32"),
    "a float for int64": ({"n": 8.0}, TypeError, "'int64 n': got float 8.0, expected an int; use int"),
    "an array for int64": ({"n": np.array(8)}, TypeError, r"'int64 n': got an array of int64 and shape \(\), expected an int"),
    "None for int64": ({"n": None}, TypeError, "'int64 n': got NoneType None"),
    "too large": ({"n": 2**63}, ValueError, r"'int64 n': got 9223372036854775808, expected -2\*\*63 to"),
    "an array for double": ({"factor": np.ones(1)}, TypeError, "'double factor': got an array of float64.*expected a float; use float"),
    "complex": ({"factor": 1j}, TypeError, "'double factor': got complex 1j, expected a float"),
    "NumPy's complex": ({"factor": np.complex64(1)}, TypeError, "'double factor': got complex64"),
    "overlap": ({"y": X}, ValueError, r"'real \*y': got memory that x is in too, expected memory of its own, for it is __restrict__; pass a copy"),
    "partial overlap": ({"x": X[:6], "y": X[5:]}, ValueError, "memory that x is in too"),
    "dtype of the kernel": ({"dtype": np.int32}, TypeError, "got dtype int32, expected one of float32, float64, float16, bfloat16; convert"),
    "grid": ({"grid": (1, 65536)}, ValueError, r"got a grid of \(1, 65536, 1\) blocks, expected 0 to"),
    "negative grid": ({"grid": -1}, ValueError, r"got a grid of \(-1, 1, 1\)"),
    "axes of the grid": ({"grid": (1, 1, 1, 1)}, ValueError, "expected one to three numbers"),
    "no threads": ({"block": 0}, ValueError, r"got a block of \(0, 1, 1\) threads, expected 1 to"),
    "threads": ({"block": (1, 1, 65)}, ValueError, r"got a block of \(1, 1, 65\) threads, expected 1 to \(1024, 1024, 64\)"),
    "__launch_bounds__": ({"block": 288}, ValueError, r"got a block of \(288, 1, 1\) threads, expected .*, and 256 or fewer together"),
    "shared memory": ({"shared": 1 << 20}, ValueError, "got 1048576 bytes of shared memory, expected 0 to"),
}


@pytest.fixture
def no_launch(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise AssertionError("this was launched")

    monkeypatch.setattr(emulator, "launch", fail)


@pytest.mark.parametrize("what", REFUSED)
def test_refused_before_launch(what: str, no_launch: None) -> None:
    arguments, error, message = REFUSED[what]
    with pytest.raises(error, match=message) as info:
        scaled(**arguments)
    assert "scale (signatures.cu)" in str(info.value) or what == "dtype of the kernel"


@pytest.mark.parametrize("args", [(), (X, Y, 2.0), (X, Y, 2.0, 8, 9)])
def test_number_of_arguments(args: tuple[Any, ...], no_launch: None) -> None:
    message = rf"scale \(signatures.cu\): got {len(args)} arguments, expected 4: const real \*x, real \*y, double factor, int64 n"
    with pytest.raises(TypeError, match=message):
        SIGNATURES.launch("scale", np.float32, 1, 32, *args)


def test_unknown_entry() -> None:
    with pytest.raises(ValueError, match=r"signatures.cu has no entry point 'scales': expected one of scale, many_lines"):
        SIGNATURES.launch("scales", np.float32, 1, 32)


@pytest.mark.parametrize("grid", [0, (0,), (3, 0), (1, 1, 0)])
def test_empty_launch(grid: Any, no_launch: None) -> None:
    """Nothing runs, but what would not fit is refused all the same."""
    scaled(grid=grid)
    with pytest.raises(TypeError):
        scaled(n=None, grid=grid)


# ------------------------------------------------------------------------------------------------- in the emulator


@emulated
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_launch(dtype: str) -> None:
    x, y = np.arange(8, dtype=dtype), np.full(8, 7, dtype)
    scaled(x, y, 3, np.int32(6), dtype=dtype)
    np.testing.assert_array_equal(y, [0, 3, 6, 9, 12, 15, 7, 7])


@emulated
@pytest.mark.parametrize("x, n", [(2, 3), (np.float32(2), np.int8(3)), (np.int64(2), np.uint64(3)), (True, True)])
def test_numbers(x: Any, n: Any) -> None:
    """Whatever kind of number is passed, the kernel reads a double and an int64."""
    out = np.zeros(2)
    SIGNATURES.launch("numbers", np.float32, 1, 32, out, x, n)
    np.testing.assert_array_equal(out, [float(x), int(n)])


@emulated
def test_null_pointer_and_empty_arrays() -> None:
    y, empty = np.zeros(3, np.float32), np.zeros(0, np.float32)
    SIGNATURES.launch("many_lines", np.float32, 1, 32, None, *[None] * 7, y, 3)
    np.testing.assert_array_equal(y, [2, 2, 2])
    scaled(empty, empty, n=0)
    scaled(X[3:3], X, n=0)  # nothing is not in the memory of anything


@emulated
def test_in_place() -> None:
    """Without __restrict__ arrays may share memory."""
    x = np.arange(4, dtype=np.float32)
    SIGNATURES.launch("add_in_place", np.float32, 1, 32, x, x, 4)
    np.testing.assert_array_equal(x, [0, 2, 4, 6])


@emulated
def test_compile_error_has_the_log() -> None:
    with pytest.raises(RuntimeError, match=r"broken\.cu:3"):
        Source("broken.cu", folder=SOURCES).launch("broken", np.float32, 1, 32, X.copy(), 1)


# ------------------------------------------------------------------------------------------------- on a stand-in for CuPy


class Device:
    """What CuPy would do with the kernels: notes what it is asked."""

    def __init__(self) -> None:
        self.compiled: list[tuple[str, tuple[str, ...], int]] = []
        self.launches: list[dict[str, Any]] = []
        self.log: str | None = None
        self.refuses = False
        device = self

        class Kernel:
            most = 48 * 1024
            raised = 0

            def __init__(self, name: str) -> None:
                self.name = name

            @property
            def max_dynamic_shared_size_bytes(self) -> int:
                return self.most

            @max_dynamic_shared_size_bytes.setter
            def max_dynamic_shared_size_bytes(self, n: int) -> None:
                self.most, self.raised = n, self.raised + 1

            def __call__(self, grid: Any, block: Any, args: Any, *, shared_mem: int) -> None:
                if shared_mem > self.most or device.refuses:
                    raise OSError("CUDA_ERROR_INVALID_VALUE: invalid argument")
                device.launches.append({"kernel": self, "grid": grid, "block": block, "args": args, "shared": shared_mem})

        class Module:
            def __init__(self, *, code: str, options: tuple[str, ...]) -> None:
                self.code, self.options = code, options

            def get_function(self, name: str) -> Kernel:
                import cupy

                if device.log is not None:
                    raise ValueError(device.log)
                threading.Event().wait(0.01)  # long enough for threads to meet here
                device.compiled.append((name, self.options, cupy.cuda.Device().id))
                return Kernel(name)

        self.module = Module


@pytest.fixture
def gpu(fake_cupy: Any, monkeypatch: pytest.MonkeyPatch) -> Device:
    device = Device()
    monkeypatch.setattr(fake_cupy, "RawModule", device.module)
    monkeypatch.setattr(loader, "_functions", {})
    return device


def on_device(x: np.ndarray) -> Any:
    return backend.asarray(x.copy(), device="cuda")


def test_arguments_on_the_device(gpu: Device) -> None:
    x, y = on_device(X), on_device(Y)
    scaled(x, y, 3, np.int32(8), grid=(2, 3), block=(32, 2), shared=64)
    (launch,) = gpu.launches
    assert (launch["grid"], launch["block"], launch["shared"]) == ((2, 3, 1), (32, 2, 1), 64)
    assert launch["args"] == (x.data.ptr, y.data.ptr, 3.0, 8)
    assert [type(a) for a in launch["args"]] == [np.uint64, np.uint64, np.float64, np.int64]
    scaled(None, y, n=0)
    assert gpu.launches[-1]["args"][0] == 0
    assert gpu.compiled == [("scale", ("-std=c++17",), 0)]


def test_compiled_once_for_each_dtype_entry_and_device(gpu: Device, fake_cupy: Any) -> None:
    def work() -> None:
        scaled(on_device(X), on_device(Y))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len(gpu.launches) == 4 and len(gpu.compiled) == 1
    scaled(on_device(X.astype(np.float16)), on_device(Y.astype(np.float16)), dtype=np.float16)
    SIGNATURES.launch("nothing", np.float32, 0, 32)
    with fake_cupy.cuda.Device(1):
        work()
        work()
    assert [(name, device) for name, _, device in gpu.compiled] == [("scale", 0), ("scale", 0), ("scale", 1)]
    assert gpu.launches[-1]["kernel"] is not gpu.launches[0]["kernel"]


def test_much_shared_memory(gpu: Device) -> None:
    """Past 48 KB the kernel's limit is raised, once, and never lowered."""
    x, y = on_device(X), on_device(Y)
    for shared in (1 << 10, 100_000, 60_000, 100_000):
        scaled(x, y, shared=shared)
    kernel = gpu.launches[-1]["kernel"]
    assert (kernel.most, kernel.raised) == (100_000, 1)
    assert [launch["shared"] for launch in gpu.launches] == [1 << 10, 100_000, 60_000, 100_000]


def test_static_shared_memory_counts(gpu: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the kernel declares leaves less than 48 KB, as the kernel's limit says."""
    x, y = on_device(X), on_device(Y)
    scaled(x, y)
    kernel = gpu.launches[0]["kernel"]
    type(kernel).most = 40_000
    loader._functions.clear()
    scaled(x, y, shared=45_000)
    assert gpu.launches[-1]["kernel"].raised == 1


def test_compile_failure_on_the_device(gpu: Device) -> None:
    gpu.log = "signatures.cu(9): error: expected an expression"
    for _ in range(2):  # a failure is not kept as if it were a kernel
        with pytest.raises(RuntimeError, match=r"signatures.cu does not compile for float32 on cuda:0: signatures.cu\(9\): error: expected an expression"):
            scaled(on_device(X), on_device(Y))
    assert not gpu.launches
    gpu.log = None
    scaled(on_device(X), on_device(Y))
    assert len(gpu.launches) == 1


def test_launch_failure_names_the_kernel(gpu: Device) -> None:
    gpu.refuses = True
    with pytest.raises(
        RuntimeError, match=r"scale \(signatures.cu\): the device refuses \(1, 1, 1\) blocks of \(32, 1, 1\) threads with 0 bytes.*INVALID_VALUE"
    ):
        scaled(on_device(X), on_device(Y))


def test_devices_do_not_mix(gpu: Device, fake_cupy: Any) -> None:
    with pytest.raises(backend.DeviceError, match=r"scale \(signatures.cu\): x on cpu, y on cuda:0: expected all arrays on one device"):
        scaled(X, on_device(Y))
    with fake_cupy.cuda.Device(1):
        there = on_device(Y)
    with pytest.raises(backend.DeviceError, match="x on cuda:0, y on cuda:1"):
        scaled(on_device(X), there)
    with pytest.raises(backend.DeviceError, match=r"scale .*: got arrays on cuda:1 while the current device is cuda:0"):
        scaled(there, None)
    assert not gpu.launches


def test_the_device_refuses_what_the_host_does(gpu: Device) -> None:
    x = on_device(X)
    with pytest.raises(TypeError, match="got an array of float64, expected an array of float32"):
        scaled(x.astype(np.float64), x)
    with pytest.raises(ValueError, match="C-contiguous"):
        scaled(x[::2], x)
    with pytest.raises(ValueError, match="memory that x is in too"):
        scaled(x, x)
    with pytest.raises(ValueError, match=r"has no entry point"):
        SIGNATURES.launch("scaled", np.float32, 1, 32, x)
    assert not gpu.launches and not gpu.compiled
