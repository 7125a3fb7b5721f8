"""``gpugrad info``: versions, devices and what is missing."""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform

import numpy as np

import gpugrad
from gpugrad import backend, blas, cache, parallel
from gpugrad.cuda import emulator

_OPTIONAL = (
    ("cupy", ("cupy-cuda12x", "cupy-cuda13x", "cupy"), "pip install 'gpugrad[cuda12]' or 'gpugrad[cuda13]' to use a GPU"),
    ("numba", ("numba",), "pip install numba for the fused kernels on the CPU"),
    ("scikit-learn", ("scikit-learn",), "pip install 'gpugrad[demo]' for the digits of gpugrad train"),
    ("matplotlib", ("matplotlib",), "pip install 'gpugrad[plot]' for gpugrad train --plot"),
    ("tensorboard", ("tensorboard",), "pip install 'gpugrad[tensorboard]' for gpugrad train --tensorboard"),
    ("ml_dtypes", ("ml_dtypes",), "pip install 'gpugrad[bfloat16]' for bfloat16"),
)


def info(_args: argparse.Namespace) -> None:
    """Print versions, devices and what is missing."""
    missing = []
    print(f"gpugrad      {gpugrad.__version__}")
    print(f"python       {platform.python_version()} on {platform.system()} {platform.machine()}")
    print(f"numpy        {np.__version__}")
    for name, distributions, remedy in _OPTIONAL:
        version = next((v for v in map(_version, distributions) if v), None)
        print(f"{name:<12} {version or 'not installed'}")
        if version is None:
            missing.append(f"{name}: {remedy}")
    print(f"cpu          {os.cpu_count()} cores")
    try:
        print(f"BLAS         {blas.describe()}")
    except (ValueError, RuntimeError) as error:
        print("BLAS         none")
        missing.append(f"BLAS: {error}")
    try:
        print(f"kernels      {parallel.threads()} threads; what is compiled is kept in {cache.root()}")
    except (ValueError, OSError) as error:
        missing.append(f"kernels: {error}")
    print(f"emulator     {emulator.compiler() or 'none'}")
    if not emulator.is_available():
        missing.append("emulator: install g++, or set CXX, to check the CUDA kernels on the CPU")
    try:
        cp = backend.cupy()
        for i in range(cp.cuda.runtime.getDeviceCount()):
            properties = cp.cuda.runtime.getDeviceProperties(i)
            print(f"{f'cuda:{i}':<12} {properties['name'].decode()}, {properties['totalGlobalMem'] / 2**30:.0f} GiB")
    except backend.DeviceError as error:
        print("cuda         none")
        missing.append(f"GPU: {error}")
    for line in missing:
        print(f"missing      {line}")


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
