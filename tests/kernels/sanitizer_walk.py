"""Every CUDA kernel on all its samples, and on indices that it refuses, in a process with AddressSanitizer: started by test_sanitizers.py as ``python sanitizer_walk.py DTYPE``.

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
from gpugrad.cuda import refusals
from gpugrad.cuda.loader import Source
from gpugrad.kernels import segments
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


def walk_out_of_range(dtype: Any) -> None:
    """Rows of which so many have no place that they fill windows of their own: nothing is read or written for them. The other twins raise at once, so these are no samples."""
    n, count, width = 5 * segments.WINDOW, 3, 8
    places = np.where(np.arange(n) % 5, count, np.arange(n) % count)
    for call in (
        lambda: segments.gather.cuda(np.ones((count, width), dtype), places),
        lambda: segments.gather.cuda(np.ones((count, width), dtype), -1 - places),
        lambda: segments.summed(np.ones((n, width), dtype), segments.checked(places, count, "sums", count, True), count),
    ):
        call()
        try:
            refusals.raise_noted()
        except IndexError:
            continue
        raise AssertionError("an index out of range was not noted")


def main(name: str) -> None:
    """Kernels run beside each other: most of the time goes into compiling them."""
    (dtype,) = (d for d in agreement.dtypes() if d.name == name)
    count_launches()
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        for _ in pool.map(lambda kernel: walk(kernel, dtype), agreement.all_kernels()):
            pass
    walk_out_of_range(dtype)
    print(json.dumps(launches))


if __name__ == "__main__":
    main(sys.argv[1])
