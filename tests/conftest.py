"""Devices for the tests. ``device`` runs a test on the CPU, on a stand-in for CuPy (see fakecupy), and on a GPU where there is one.

``--device=cpu``, ``cuda-fake`` or ``cuda`` keeps to one of them. With ``cuda-fake``, or GPUGRAD_TEST_FAKE_CUPY=1, ``import cupy`` finds the
stand-in from the start. Where there is a GPU the stand-in is not used, and the same tests run on the GPU.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator
from typing import Any

import fakecupy
import numpy as np
import pytest

from gpugrad import backend

DEVICES = ("cpu", "cuda-fake", "cuda")


@functools.cache
def has_gpu() -> bool:
    """Whether there is a real one."""
    return not fakecupy.installed() and backend.cuda_is_available()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--device", choices=("all", *DEVICES), default="all", help="which device the tests that take one run on")


def pytest_configure(config: pytest.Config) -> None:
    wanted = os.environ.get("GPUGRAD_TEST_FAKE_CUPY") == "1" or config.getoption("--device") == "cuda-fake"
    if wanted and not has_gpu():
        fakecupy.install()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    chosen = config.getoption("--device")
    if chosen == "all":
        return
    unwanted = [item for item in items if "device" in getattr(item, "callspec", _NONE).params and item.callspec.params["device"] != chosen]  # type: ignore[attr-defined]
    config.hook.pytest_deselected(items=unwanted)
    gone = set(unwanted)
    items[:] = [item for item in items if item not in gone]


class _NONE:
    params: dict[str, Any] = {}  # noqa: RUF012


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu") is not None and not has_gpu():
        pytest.skip("needs a GPU")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Any:
    try:
        return (yield)
    except fakecupy.NoKernelsError as error:
        pytest.skip(str(error))


@pytest.fixture(params=[pytest.param(d, marks=pytest.mark.gpu if d == "cuda" else ()) for d in DEVICES])
def device(request: pytest.FixtureRequest) -> Iterator[str]:
    """The name of a device: "cpu" or "cuda"."""
    if request.param != "cuda-fake" or fakecupy.installed():
        yield request.param.removesuffix("-fake")
        return
    if has_gpu():
        pytest.skip("there is a GPU, which takes the place of the stand-in")
    fakecupy.install()
    try:
        yield "cuda"
    finally:
        fakecupy.uninstall()


@pytest.fixture
def put(device: str) -> Callable[[Any], Any]:
    """Put a NumPy array on the device."""
    return lambda x: backend.asarray(x, device=device)


@pytest.fixture
def fake_cupy() -> Iterator[Any]:
    """The stand-in as ``cupy``; skipped where there is a GPU."""
    if has_gpu():
        pytest.skip("there is a GPU, and CuPy itself")
    before = fakecupy.installed()
    yield fakecupy.install()
    if not before:
        fakecupy.uninstall()


@pytest.fixture(autouse=True)
def _the_same_numbers_in_any_order(request: pytest.FixtureRequest) -> None:
    """A module's RNG starts anew for each of its tests, so that no test depends on which ran before it in this process."""
    if hasattr(request.module, "RNG"):
        request.module.RNG = np.random.default_rng(0)
