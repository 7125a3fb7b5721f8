"""Every CUDA kernel through NVIDIA's compiler, for every dtype and several architectures: without a GPU, and with nothing spilled to memory."""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nvrtc
import pytest

from gpugrad import kernels
from gpugrad.cuda import loader
from gpugrad.cuda.loader import Source

FOLDER = Path(__file__).with_name("sources")
WANTED = (70, 75, 80, 90)
ARCHITECTURES = [a for a in WANTED if nvrtc.library() is None or a in nvrtc.architectures()]
OPTIONS = (*loader.OPTIONS, "--device-as-default-execution-space")  # the second one is CuPy's own

pytestmark = pytest.mark.skipif(nvrtc.library() is None, reason="needs NVRTC: pip install nvidia-cuda-nvrtc-cu12")
every_architecture = pytest.mark.parametrize("architecture", ARCHITECTURES, ids="sm_{}".format)
every_dtype = pytest.mark.parametrize("dtype", loader.TYPES)


def sources() -> list[Source]:
    """Of all modules of gpugrad.kernels that launch CUDA kernels; those of Numba do not."""
    names = [m.name for m in pkgutil.iter_modules(kernels.__path__) if not m.name.endswith("_cpu")]
    modules = [importlib.import_module(f"gpugrad.kernels.{name}") for name in names]
    found = {(s.name, s.headers): s for module in modules for s in vars(module).values() if isinstance(s, Source)}
    return [found[key] for key in sorted(found)]


def in_memory(found: dict[str, nvrtc.Resources]) -> dict[str, nvrtc.Resources]:
    """The entry points that keep in memory what belongs in registers."""
    return {entry: used for entry, used in found.items() if used.stack or used.spill_stores or used.spill_loads}


def warnings(log: str) -> list[str]:
    """But for that of old architectures, which NVRTC 12 still compiles for and 13 does not."""
    return [line for line in log.splitlines() if re.search(r"\bwarning\b", line) and "Architectures prior to" not in line]


# ------------------------------------------------------------------------------------------------- the kernels


def test_every_file_is_compiled() -> None:
    assert {s.name for s in sources()} == {path.name for path in loader.FOLDER.rglob("*.cu")}


@every_architecture
@every_dtype
@pytest.mark.parametrize("source", sources(), ids=lambda s: "+".join((*s.headers, s.name)))
def test_compiles(source: Source, dtype: str, architecture: int, record_property: Callable[[str, Any], None]) -> None:
    """No error, no warning, nothing spilled, no local memory, and no more shared memory than every device has."""
    _, log = nvrtc.compiled(source.code(dtype), architecture, OPTIONS)
    found = nvrtc.resources(log)
    for entry, used in found.items():
        record_property(
            nvrtc.RESOURCES, (source.name, entry, dtype, architecture, used.registers, used.shared, used.spill_stores + used.spill_loads, used.stack)
        )
    assert set(found) == set(source.entries), f"the compiler found other entry points than the loader:\n{log}"
    assert not warnings(log), log
    assert not in_memory(found)
    assert all(used.shared <= 48 * 1024 for used in found.values())


# ------------------------------------------------------------------------------------------------- what the checks can see


@every_architecture
@every_dtype
def test_signatures_compile(dtype: str, architecture: int) -> None:
    _, log = nvrtc.compiled(Source("signatures.cu", folder=FOLDER).code(dtype), architecture, OPTIONS)
    found = nvrtc.resources(log)
    assert set(found) == {"scale", "many_lines", "nothing", "numbers", "add_in_place"}
    assert not in_memory(found) and not warnings(log)
    assert 4 <= found["scale"].registers <= 64 and found["nothing"].shared == 0


@every_architecture
def test_spills_and_local_memory_are_seen(architecture: int) -> None:
    _, log = nvrtc.compiled(Source("spills.cu", folder=FOLDER).code("float32"), architecture, OPTIONS)
    found = nvrtc.resources(log)
    spills, local, warned = (found[entry] for entry in ("spills", "local_array", "warned"))
    assert set(in_memory(found)) == {"spills", "local_array"}
    assert spills.spill_stores > 0 and spills.spill_loads > 0 and spills.stack > 0 and spills.registers <= 64
    assert local.spill_stores == 0 and local.stack == 64 * 4
    assert warned.shared >= 64 * 4 and warned.registers > 0
    assert any("unused" in line and line.startswith("spills.cu(20)") for line in warnings(log)), log


def test_an_error_names_its_file_and_line() -> None:
    with pytest.raises(nvrtc.CompileError, match=r"^broken\.cu\(3\): error"):
        nvrtc.compiled(Source("broken.cu", folder=FOLDER).code("float32"), 80, OPTIONS)


def test_an_error_in_a_header_names_the_header() -> None:
    code = Source("signatures.cu", folder=FOLDER).code("float32").replace("return (int64)blockIdx.x", "return (int64)blockIdx.w", 1)
    line = next(i for i, text in enumerate((loader.FOLDER / "common.cuh").read_text().splitlines(), 1) if "return (int64)blockIdx.x" in text)
    with pytest.raises(nvrtc.CompileError, match=rf"^common\.cuh\({line}\): error"):
        nvrtc.compiled(code, 80, OPTIONS)


def test_machine_code_holds_the_entry_points() -> None:
    cubin, _ = nvrtc.compiled(Source("signatures.cu", folder=FOLDER).code("float32"), 80, OPTIONS)
    assert cubin.startswith(b"\x7fELF") and b".text.scale" in cubin
