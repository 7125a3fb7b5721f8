"""Every CUDA kernel on all its samples, in a process with AddressSanitizer: started by test_sanitizers.py as ``python sanitizer_walk.py DTYPE``.

Ends with 0 and tells, in JSON, the launches of each entry point; or is ended by AddressSanitizer, or by the first error of the emulator.
"""

from __future__ import annotations

import collections
import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from gpugrad import kernels
from gpugrad.cuda.loader import Source
from gpugrad.testing import agreement

launches: collections.Counter[str] = collections.Counter()


def count_launches() -> None:
    launch = Source.launch

    def counted(self: Source, entry: str, *args: Any, **params: Any) -> None:
        launches[f"{self.name} {entry}"] += 1
        launch(self, entry, *args, **params)

    Source.launch = counted  # type: ignore[method-assign]


def walk(kernel: kernels.Kernel, dtype: Any) -> None:
    with kernels.use("cuda"), np.errstate(all="ignore"):
        for args, params in kernel.samples(np.random.default_rng(0), dtype):
            kernel(*args, **params)


def main(name: str) -> None:
    """Kernels run beside each other: most of the time goes into compiling them."""
    (dtype,) = (d for d in agreement.dtypes() if d.name == name)
    count_launches()
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        for _ in pool.map(lambda kernel: walk(kernel, dtype), agreement.all_kernels()):
            pass
    print(json.dumps(launches))


if __name__ == "__main__":
    main(sys.argv[1])
