"""Devices, conversion and transfer; what ``import gpugrad`` imports; and the stand-in for CuPy, against CuPy's own tables."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpugrad as gg
from gpugrad import DeviceError, backend
from gpugrad.tape import Tensor

HERE = Path(__file__).parent
A = np.arange(6.0).reshape(2, 3)


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], cwd=HERE.parent, capture_output=True, text=True, check=False)


# ------------------------------------------------------------------------------------------------- imports


def test_import_is_lean() -> None:
    """Neither an optional dependency nor anything slow comes along."""
    unwanted = ["cupy", "numba", "rich", "torch", "scipy", "sklearn", "matplotlib", "safetensors", "pytest"]
    done = run_python(f"import sys, gpugrad; print([m for m in {unwanted} if m in sys.modules])")
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


def test_testing_needs_no_pytest() -> None:
    done = run_python("import sys; sys.modules['pytest'] = None; import gpugrad as gg; gg.testing.check_grads(gg.sin, (0.5,)); print('checked')")
    assert done.stdout.strip() == "checked", done.stderr


# ------------------------------------------------------------------------------------------------- devices without a GPU


@pytest.fixture
def no_cupy(monkeypatch: pytest.MonkeyPatch) -> Any:
    """As on a machine where CuPy is not installed."""
    import fakecupy

    if fakecupy.installed():
        pytest.skip("the stand-in is installed for the whole session")
    monkeypatch.setitem(sys.modules, "cupy", None)
    backend.cupy.cache_clear()
    yield
    backend.cupy.cache_clear()


def test_no_cupy_says_what_to_install(no_cupy: Any) -> None:
    assert not gg.cuda.is_available() and gg.cuda.device_count() == 0
    with pytest.raises(DeviceError, match=r"device 'cuda' needs CuPy.*pip install 'gpugrad\[cuda12\]'.*device='cpu'"):
        gg.zeros(3, device="cuda")
    for use in (lambda: gg.tensor([1.0]).cuda(), lambda: gg.tensor([1.0]).to("cuda:0"), lambda: gg.tensor([1.0], device="cuda"), gg.cuda.synchronize):
        with pytest.raises(DeviceError, match="needs CuPy"):
            use()
    assert gg.zeros(3, device="auto").device == "cpu"


def test_no_driver_says_so(monkeypatch: pytest.MonkeyPatch, fake_cupy: Any) -> None:
    def no_driver() -> int:
        raise fake_cupy.cuda.runtime.CUDARuntimeError("cudaErrorNoDevice: no CUDA-capable device is detected")

    monkeypatch.setattr(fake_cupy.cuda.runtime, "getDeviceCount", no_driver)
    backend.cupy.cache_clear()
    with pytest.raises(DeviceError, match=r"found no usable GPU \(cudaErrorNoDevice.*Install an NVIDIA driver, or use device='cpu'"):
        gg.ones(2, device="cuda")
    monkeypatch.setattr(fake_cupy.cuda.runtime, "getDeviceCount", lambda: 0)
    with pytest.raises(DeviceError, match="found no GPU"):
        gg.ones(2, device="cuda")
    assert backend.parse_device("auto") == ("cpu", None)
    backend.cupy.cache_clear()


@pytest.mark.parametrize("name", ["gpu", "cuda:", "cuda:x", "cuda:-1", "CPU", 0])
def test_unknown_devices(name: Any) -> None:
    with pytest.raises(ValueError, match="expected 'cpu', 'cuda', 'cuda:N' or 'auto'"):
        gg.zeros(2, device=name)


# ------------------------------------------------------------------------------------------------- devices


def test_transfer_of_many_examples(device: str) -> None:
    """All at once, and their derivatives come back the same way."""
    x = np.arange(6.0).reshape(3, 2)
    y, pull = gg.vjp(gg.vmap(lambda t: t.to(device, np.float32)), x)
    assert gg.backend.device_of(y) == gg.backend.device_name(device) and y.shape == x.shape and y.dtype == np.float32
    (g,) = pull(gg.ones_like(y))
    assert type(g) is np.ndarray and g.dtype == np.float64
    np.testing.assert_array_equal(g, np.ones((3, 2)))


def test_creation_and_transfer(device: str) -> None:
    name = backend.device_name(device)
    for t in (
        gg.zeros((2, 3), device=device),
        gg.arange(6, device=device),
        gg.eye(3, device=device),
        gg.tensor(A, device=device),
        gg.asarray(A, device=device),
        gg.geomspace(1, 8, 4, device=device),
    ):
        assert type(t) is Tensor and t.device == name
    t = gg.tensor(A, device=device)
    np.testing.assert_array_equal(t.numpy(), A)
    np.testing.assert_array_equal(t.cpu().data, A)
    assert t.to(name) is t
    assert t.to(device, np.float32).dtype == np.float32
    assert gg.zeros_like(t).device == gg.full_like(t, 2.0).device == gg.random.normal(size=3, device=device).device == name
    assert f"device='{name}'" in repr(t) or device == "cpu"


def test_auto_prefers_the_gpu(fake_cupy: Any) -> None:
    assert gg.zeros(2, device="auto").device == "cuda:0"
    assert backend.parse_device("auto") == ("cuda", 0)
    assert gg.cuda.is_available() and gg.cuda.device_count() == 2
    gg.cuda.synchronize()
    assert gg.cuda.current_stream() is fake_cupy.cuda.Stream.null
    with fake_cupy.cuda.Stream() as stream:
        assert gg.cuda.current_stream() is stream


def test_two_gpus(fake_cupy: Any) -> None:
    t = gg.tensor(A, device="cuda:1")
    assert t.device == "cuda:1" and t.cuda(0).device == "cuda:0" and t.cuda().device == "cuda:0" and t.cpu().device == "cpu"
    assert gg.asarray(t.data, np.float32).device == "cuda:1"  # though the current device is another
    with fake_cupy.cuda.Device(1):
        assert gg.zeros(2, device="cuda").device == "cuda:1"
        g = gg.grad(lambda x: gg.sum(gg.sin(x) ** 2))(t.data)
        assert backend.device_of(g) == "cuda:1"
        leaf = gg.tensor(A, device="cuda:1", requires_grad=True)
        gg.sum(leaf * leaf).backward()
        assert leaf.grad.device == "cuda:1"
    with pytest.raises(DeviceError, match=r"there are 2 GPUs here: cuda:0 to cuda:1"):
        gg.zeros(2, device="cuda:2")


@pytest.mark.parametrize(
    "use",
    [
        lambda a, b: a * b,
        lambda a, b: gg.maximum(b, a),
        lambda a, b: a @ b.T,
        lambda a, b: gg.concatenate([a, b]),
        lambda a, b: gg.where(a > 0, a, b),
        lambda a, b: gg.einsum("ij,ij->", b, a),
        lambda a, b: gg.sum(a) + gg.tensor(b.data[0, 0]),
    ],
    ids=["multiply", "maximum", "matmul", "concatenate", "where", "einsum", "0-d"],
)
@pytest.mark.parametrize("devices", [("cpu", "cuda:0"), ("cuda:0", "cuda:1")], ids=["CPU and GPU", "two GPUs"])
@pytest.mark.parametrize("tracked", [False, True], ids=["untracked", "tracked"])
def test_nothing_moves_silently(use: Any, devices: tuple[str, str], tracked: bool, fake_cupy: Any) -> None:
    a, b = (gg.tensor(A, device=d) for d in devices)
    a.requires_grad_(tracked)
    with pytest.raises(DeviceError, match=r"expected all arrays on one device, got arrays on .* and .*\.to\(|current device"):
        use(a, b)


def test_work_runs_on_the_current_gpu(fake_cupy: Any) -> None:
    for t in (gg.tensor(A, device="cuda:1"), gg.tensor(A, device="cuda:1", requires_grad=True)):
        for use in (lambda t: t * 2.0, gg.sin, lambda t: gg.sum(t, axis=0)):
            with pytest.raises(DeviceError, match=r"arrays on cuda:1 while the current device is cuda:0.*with cupy.cuda.Device\(1\)"):
                use(t)


# ------------------------------------------------------------------------------------------------- asarray


def test_asarray_shares_where_it_can(put: Any, device: str) -> None:
    a = put(A)
    t = gg.asarray(a)
    assert t.data is a and gg.asarray(t) is t
    assert gg.asarray(a, a.dtype, device).data is a
    assert gg.asarray(a, copy=False).data is a
    copied = gg.asarray(a, copy=True)
    copied.data[...] = 0
    np.testing.assert_array_equal(backend.to_device(a, "cpu"), A)
    assert gg.tensor(a).data is not a and gg.array(a).data is not a
    assert gg.asarray(a, np.float32).dtype == np.float32


def test_asarray_without_a_copy_that_it_needs(put: Any) -> None:
    with pytest.raises(ValueError, match=r"copy=False.*float64.*asked for float32"):
        gg.asarray(put(A), np.float32, copy=False)
    with pytest.raises(ValueError, match="copy=False"):
        gg.asarray(gg.tensor(A), np.float32, copy=False)


def test_asarray_across_devices(fake_cupy: Any) -> None:
    with pytest.raises(ValueError, match=r"copy=False.*on cpu.*on cuda:0"):
        gg.asarray(A, device="cuda", copy=False)
    assert gg.asarray(fake_cupy.asarray(A)).device == "cuda:0"
    assert gg.asarray(fake_cupy.asarray(A), device="cpu").device == "cpu"


def test_asarray_of_sequences_and_numbers() -> None:
    assert gg.asarray([[1, 2], [3, 4]]).dtype == np.int64
    assert gg.asarray(2.0).shape == () and type(gg.asarray(np.float32(2)).data) is np.ndarray
    assert gg.asarray(range(3)).shape == (3,)
    for wrong in ([[1], [1, 2]], None, object(), [None, 1.0], "text"):
        with pytest.raises((TypeError, ValueError)):
            gg.asarray(wrong)


def test_tracked_tensors_stay_tracked() -> None:
    t = gg.tensor(A, requires_grad=True)
    assert gg.asarray(t) is t and gg.asarray(t, np.float32).requires_grad
    with pytest.raises(TypeError, match=r"\.clone\(\).*\.detach\(\)"):
        gg.tensor(t)


# ------------------------------------------------------------------------------------------------- exchange with other libraries


def test_numpy_shares_memory() -> None:
    t = gg.tensor(A)
    assert np.shares_memory(np.asarray(t), t.data) and np.shares_memory(np.from_dlpack(t), t.data)
    with pytest.raises(ValueError, match="copy"):
        np.asarray(t, np.float32, copy=False)


def test_tracked_tensors_refuse_to_be_exchanged() -> None:
    t = gg.tensor(A, requires_grad=True)
    for export in (np.asarray, np.from_dlpack, lambda t: t.__dlpack__(), lambda t: gg.sin(t).__array__()):
        with pytest.raises(TypeError, match=r"would drop its derivative.*\.detach\(\)"):
            export(t)
    np.testing.assert_array_equal(np.asarray(t.detach()), A)


def test_torch_shares_memory() -> None:
    torch = pytest.importorskip("torch")
    x = torch.arange(4.0)
    t = gg.from_dlpack(x)
    x[0] = 7
    assert t.data[0] == 7 and gg.asarray(x, np.float64).dtype == np.float64
    back = torch.from_dlpack(t)
    back[1] = 9
    assert t.data[1] == 9
    with pytest.raises(TypeError, match="would drop its derivative"):
        torch.from_dlpack(gg.tensor([1.0], requires_grad=True))


def test_cuda_array_interface(fake_cupy: Any) -> None:
    t = gg.tensor(A, device="cuda")
    shared = fake_cupy.asarray(t)
    shared[0, 0] = 7
    assert float(t.data[0, 0]) == 7
    assert not hasattr(gg.tensor(A), "__cuda_array_interface__")
    tracked = gg.tensor(A, device="cuda", requires_grad=True)
    with pytest.raises(TypeError, match="would drop its derivative"):
        fake_cupy.asarray(tracked)
    assert t.__dlpack_device__() == (2, 0)
    with pytest.raises(TypeError, match=r"\.cpu\(\) or t\.numpy\(\)"):
        np.asarray(t)


# ------------------------------------------------------------------------------------------------- dtypes


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "complex64", "complex128"])
def test_dtypes_are_kept(dtype: str, put: Any) -> None:
    x = put(np.array([0.5, 1.5], dtype))
    f = lambda x: gg.sum(gg.real(gg.exp(2 * x + 1) / 3.0 - x**2))
    assert (2 * Tensor(x) + 1.5).dtype == dtype
    g = gg.grad(f)(x)
    assert g.dtype == dtype and g.shape == x.shape
    leaf = Tensor(x).requires_grad_()
    f(leaf).backward()
    assert leaf.grad.dtype == dtype


def test_promotion_follows_numpy(put: Any) -> None:
    x = Tensor(put(np.ones(2, np.float32)))
    assert (x * np.float64(2)).dtype == np.float64 and (x * 2.0).dtype == np.float32 and (x * np.float32(2)).dtype == np.float32
    assert (x + Tensor(put(np.ones(2, np.int64)))).dtype == np.float64
    wide = gg.grad(lambda x: gg.sum(x * np.float64(2)))(put(np.ones(2, np.float32)))
    assert wide.dtype == np.float32


def test_bfloat16() -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    x = np.full(4096, 0.01, ml_dtypes.bfloat16)
    g = gg.grad(lambda x: gg.sum(x * x))(x)
    assert g.dtype == x.dtype
    assert float(gg.sum(x)) == pytest.approx(41, rel=0.01)  # summed in float32


# ------------------------------------------------------------------------------------------------- the stand-in is as strict as CuPy


def test_stand_in_has_cupys_names() -> None:
    """Its table is what the installed CuPy says; without CuPy there is nothing to compare with."""
    done = run_python("import sys, json; sys.path.insert(0, 'tests/fakecupy'); import describe; print(json.dumps(describe.describe()))")
    if done.returncode:
        pytest.skip(f"CuPy cannot be imported here: {done.stderr.strip().splitlines()[-1]}")
    table, installed = json.loads((HERE / "fakecupy/cupy14.json").read_text()), json.loads(done.stdout)
    if installed["version"] != table["version"]:
        pytest.skip(f"CuPy {installed['version']} is installed, the table is of {table['version']}")
    assert installed == table


def test_stand_in_refuses_what_cupy_refuses(fake_cupy: Any) -> None:
    cp = fake_cupy
    a = cp.asarray(A)
    mask = A > 2
    refused = [
        lambda: np.asarray(a), lambda: np.array([a]), lambda: a + A, lambda: A + a, lambda: a * np.array(2.0), lambda: np.add(A, a), lambda: np.concatenate([a, A]),
        lambda: a.__setitem__(0, A[0]), lambda: a.__setitem__(mask, 0.0), lambda: a[mask], lambda: a.__iadd__(A), lambda: cp.sin(A), lambda: cp.sum(A), lambda: cp.sum([1.0, 2.0]),
        lambda: cp.sum(a, initial=0.0), lambda: a.max(where=a > 1), lambda: cp.where(True, a, 0.0), lambda: cp.where(mask, a, 0.0), lambda: np.vecdot(a, a), lambda: cp.cbrt(a * 1j),
        lambda: range(cp.asarray(2)), lambda: cp.exp([1.0]), lambda: a.take([0], mode="clip"), lambda: np.maximum.outer(a, a), lambda: hash(a), lambda: math_sin(a),
    ]  # fmt: skip
    for i, use in enumerate(refused):
        with pytest.raises(TypeError):
            print(i, use())
    for missing in ("geomspace", "vecdot", "isin_"):
        assert not hasattr(cp, missing)
    with pytest.raises(ValueError, match="one boolean array"):
        a[cp.asarray([True, False]), cp.asarray([0, 1])]
    with pytest.raises(ValueError, match="current device"):
        a + cp.cuda.Device(1).__enter__() if False else _on_other_device(cp, a)


def math_sin(a: Any) -> Any:
    import math

    return math.sin(a)


def _on_other_device(cp: Any, a: Any) -> Any:
    with cp.cuda.Device(1):
        return a + 1


def test_stand_in_accepts_what_cupy_accepts(fake_cupy: Any) -> None:
    cp = fake_cupy
    a = cp.asarray(A)
    for y in (
        2 * a,
        a * np.float64(2),
        np.float32(2) * a,
        a.sum(),
        a[0, 0],
        np.exp(a),
        np.sum(a, axis=0),
        np.where(a > 1, a, 0.0),
        a[a > 1],
        a[np.array([0, 1])],
        np.linalg.norm(a),
        a @ a.T,
    ):
        assert type(y) is cp.ndarray
    assert a.sum().shape == () and a[0].base is a and a.reshape(-1).base is a and (a + 0).base is None and a.real is a and a.transpose(0, 1) is a
    assert (a * 2).dtype == np.float64 and cp.exp(cp.asarray([True])).dtype == np.float16 and cp.asarray(A, np.float32).sum().dtype == np.float32
    assert a.get() is not a.get() and cp.asnumpy(a).shape == A.shape and float(a[1, 2]) == 5.0 and bool(a.all()) is False
    with cp.cuda.Device(1):
        assert cp.asarray(a).device.id == 1 and cp.zeros(2).device.id == 1


def test_stand_in_copies_out_of_pinned_memory_when_something_waits(fake_cupy: Any) -> None:
    cp = fake_cupy
    side, current = cp.cuda.Stream(non_blocking=True), cp.cuda.get_current_stream()

    def begin(value: float) -> tuple[Any, Any, Any]:
        buffer = np.ndarray(3, np.float64, cp.cuda.alloc_pinned_memory(24))
        buffer[...] = value
        target = cp.empty(3, np.float64)
        target.set(buffer, stream=side)
        return target, buffer, side.record()

    target, buffer, event = begin(1.0)
    assert target.tolist() != [1, 1, 1], "read before it was waited for"
    current.wait_event(event)
    assert target.tolist() == [1, 1, 1]
    target, buffer, event = begin(2.0)
    buffer[...] = 3  # too early
    event.synchronize()
    assert target.tolist() == [3, 3, 3]
    target, buffer, event = begin(4.0)
    del buffer  # too early
    side.synchronize()
    assert target.tolist() != [4, 4, 4]
    target, buffer, event = begin(5.0)
    later = cp.cuda.Stream(non_blocking=True)
    later.wait_event(event)
    assert target.tolist() == [5, 5, 5]
    for wrong, error in ((np.ones(2), ValueError), (np.ones(3, np.float32), TypeError), ([1.0, 2.0, 3.0], TypeError)):
        with pytest.raises(error):
            target.set(wrong)
    target.set(np.arange(3.0))
    assert target.tolist() == [0, 1, 2]


def test_stand_in_has_a_current_stream_for_each_device_and_thread(fake_cupy: Any) -> None:
    import threading

    cp = fake_cupy
    with cp.cuda.Device(1):
        stream = cp.cuda.Stream()
    with pytest.raises(RuntimeError, match=r"created on \(1\) does not match with the current device \(0\)"), stream:
        pass
    with cp.cuda.Device(1), stream:
        assert cp.cuda.get_current_stream() == cp.cuda.get_current_stream(1) == stream
        assert cp.cuda.get_current_stream(0) == cp.cuda.Stream.null
        seen: list[Any] = []
        thread = threading.Thread(target=lambda: seen.append(cp.cuda.get_current_stream(1)))
        thread.start()
        thread.join()
        assert seen == [cp.cuda.Stream.null]


def test_bfloat16_by_name_needs_no_import_before_it():
    pytest.importorskip("ml_dtypes")
    program = """
import sys
import numpy as np
import gpugrad as gg
from gpugrad import nn
assert "ml_dtypes" not in sys.modules
x = np.ones(3)
made = [{}]
assert {{t.dtype.name for t in made}} == {{"bfloat16"}}, made
"""
    ways = (
        "gg.tensor(x, dtype='bfloat16')", "gg.tensor(x).astype('bfloat16')", "gg.tensor(x).to('bfloat16')", "gg.astype(x, 'bfloat16')", "gg.zeros(3, dtype='bfloat16')",
        "gg.ones_like(x, dtype='bfloat16')", "gg.asarray(x, 'bfloat16')", "nn.LayerNorm(4, dtype='bfloat16').weight", "nn.Linear(2, 3, dtype='bfloat16').to('bfloat16').bias",
        "gg.random.normal(size=3, dtype='bfloat16')",
    )  # fmt: skip
    for way in ways:
        subprocess.run([sys.executable, "-c", program.format(way)], check=True)


def test_bfloat16_without_ml_dtypes_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    for make in (lambda: gg.tensor([1.0], dtype="bfloat16"), lambda: gg.zeros(3, dtype="bfloat16"), lambda: gg.nn.Linear(2, 2).to("bfloat16")):
        with pytest.raises(ImportError, match=r"pip install 'gpugrad\[bfloat16\]'"):
            make()


def test_what_is_given_in_the_place_of_arrays() -> None:
    model = gg.nn.Linear(2, 1)
    with pytest.raises(TypeError, match=r"array of function, expected numbers: the function comes first, as in gg\.hvp\(f, x, v\)$"):
        gg.hvp({"w": np.ones(3)}, lambda p: gg.sum(p["w"]), np.ones(3))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"array of Linear, expected numbers: give dict\(model\.named_parameters\(\)\) as p.*functional_call\(model, p, x\)$"):
        gg.hvp(lambda m: gg.sum(m(np.ones((1, 2)))), model, np.ones(3))
    with pytest.raises(TypeError, match=r"array of generator, which can be gone through once only.*a list or dict"):
        gg.grad(lambda p: gg.sum(p[0]))(model.parameters())
