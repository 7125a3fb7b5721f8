"""How long ``import gpugrad`` takes beyond ``import numpy``, in a fresh process; neither CuPy nor Numba comes with it."""

from __future__ import annotations

import time

from benchmarks.harness import child, in_turn, verdict

TARGET = 0.1


def measure(contender: str) -> dict[str, float]:
    import numpy  # noqa: F401  not ours to count

    start = time.perf_counter()
    __import__(contender)
    return {"s": time.perf_counter() - start}


def report(rounds: int, quick: bool) -> str:
    results = in_turn("import_time", ("gpugrad",), 1 if quick else max(rounds, 9))
    return f"## Import\n\n{__doc__.strip()}\n\n- seconds: {verdict(results['gpugrad']['s'], TARGET)}."


if __name__ == "__main__":
    child(measure)
