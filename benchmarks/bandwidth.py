"""Every kernel on its own (float32): how much memory it moves, and how fast beside a copy on the same device.

A pass is one reading or writing of the largest array. What must move is each argument, each result, and once more what is written in place; the last
columns are that over the time, as a fraction of what a copy of an array moves. 1 is as fast as copying; above 1 the arrays of one call were still in the
cache when the next began. Errors are the largest that `gpugrad check` finds, in units in the last place of the largest element.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.harness import child, in_turn, number, table, timed

STEPS_BETWEEN_WAITS = 20  # a GPU is kept busy ahead of the host; waiting after each call would measure the waiting
COLUMNS = 1024
Call = tuple[tuple[Any, ...], dict[str, Any]]
Arrays = Callable[..., Any]


# ------------------------------------------------------------------------------------------------- arguments of about n elements, for each kernel


def _activation(normal: Arrays, n: int, act: str) -> Call:
    return (normal(n // COLUMNS, COLUMNS), normal(n // COLUMNS, COLUMNS)), {"act": act}


def _normalised(arrays: int, vectors: int, channels: bool = False) -> Callable[[Arrays, int], Call]:
    """Of rows, or of columns as in batch norm: x, a weight and a bias; or x with its moments, a weight, more arrays of the size of x, and vectors."""

    def arguments(normal: Arrays, n: int) -> Call:
        rows = n // COLUMNS
        shape, options = ((rows, COLUMNS, 1), {"along": 1}) if channels else ((1, rows, COLUMNS), {"along": 2})
        if not arrays:
            return (normal(*shape), normal(COLUMNS), normal(COLUMNS)), {"eps": 1e-5, **options}
        return (
            normal(*shape),
            abs(normal(4, shape[1])),
            normal(COLUMNS),
            *[normal(*shape) for _ in range(arrays)],
            *[normal(COLUMNS) for _ in range(vectors)],
        ), options

    return arguments


def _labelled(normal: Arrays, n: int) -> Call:
    x = normal(n // COLUMNS, COLUMNS)
    return (x, (abs(normal(len(x))) * 100).astype(np.int64)), {}


def _update(arrays: int, **options: Any) -> Callable[[Arrays, int], Call]:
    """An optimizer's: its parameters, gradients and averages in eight pieces."""
    return lambda normal, n: (tuple([abs(normal(n // 8)) for _ in range(8)] for _ in range(arrays)), options)


CASES: dict[str, tuple[str, str, Callable[[Arrays, int], Call]]] = {  # what is shown -> kernel, formula, arguments
    "bias_act, relu": ("bias_act", "act(z + b)", lambda normal, n: ((normal(n // COLUMNS, COLUMNS), normal(COLUMNS)), {"act": "relu"})),
    "bias_act, gelu": ("bias_act", "act(z + b)", lambda normal, n: ((normal(n // COLUMNS, COLUMNS), normal(COLUMNS)), {"act": "gelu"})),
    "act_backward, relu": ("act_backward", "g act'(z), and the sums of its columns", lambda normal, n: _activation(normal, n, "relu")),
    "act_backward, gelu": ("act_backward", "g act'(z), and the sums of its columns", lambda normal, n: _activation(normal, n, "gelu")),
    "total, rows": ("total", "sum_j x_ij", lambda normal, n: ((normal(n // COLUMNS, COLUMNS),), {"axis": (1,)})),
    "total, columns": ("total", "sum_i x_ij", lambda normal, n: ((normal(n // COLUMNS, COLUMNS),), {"axis": (0,)})),
    "extremum, rows": ("extremum", "max_j x_ij", lambda normal, n: ((normal(n // COLUMNS, COLUMNS),), {"axis": (1,)})),
    "moments, rows": ("moments", "mean and sum of squared deviations", lambda normal, n: ((normal(n // COLUMNS, COLUMNS),), {"axis": (1,)})),
    "cross_entropy": ("cross_entropy", "-log softmax(x)_label, and softmax(x) - onehot(label)", _labelled),
    "standardize, rows": ("standardize", "(x - mean) / sqrt(var + eps) w + b", _normalised(0, 0)),
    "standardize, columns": ("standardize", "(x - mean) / sqrt(var + eps) w + b", _normalised(0, 0, True)),
    "standardize_backward, rows": ("standardize_backward", "dx, dw and db", _normalised(1, 0)),
    "standardize_backward, columns": ("standardize_backward", "dx, dw and db", _normalised(1, 0, True)),
    "standardize_twice, rows": ("standardize_twice", "the derivatives of <c, dx> + <c_w, dw> + <c_b, db>", _normalised(2, 2)),
    "standardize_twice, columns": ("standardize_twice", "the derivatives of <c, dx> + <c_w, dw> + <c_b, db>", _normalised(2, 2, True)),
    "dropout": ("dropout", "x mask / (1 - p)", lambda normal, n: ((normal(n),), {"p": 0.5, "key": (1, 2), "counter": 0})),
    "sgd": ("sgd", "p - lr g", lambda normal, n: ((*_update(2)(normal, n)[0], None), {"lr": 1e-3})),
    "adam": ("adam", "p - lr m^ / (sqrt(v^) + eps)", lambda normal, n: ((*_update(4)(normal, n)[0], None), {"lr": 1e-3, "step": 3})),
    "grad_norm": ("grad_norm", "sqrt(sum g^2)", _update(1)),
}


# ------------------------------------------------------------------------------------------------- measuring


def measure(contender: str, case: str, megabytes: float, seconds: float, device: str = "cpu") -> dict[str, float]:
    """GB/s that the kernel moves whose largest array has this size; passes over that array; us of a call."""
    from gpugrad import backend
    from gpugrad.testing.agreement import all_kernels

    rng = np.random.default_rng(0)

    def normal(*shape: int) -> Any:
        return backend.to_device(rng.standard_normal(shape, np.float32), device)

    n = int(megabytes * 250_000)
    if case == "copy":
        a, b = normal(n), normal(n)
        xp = backend.namespace(a)
        run, moved, largest = (lambda: xp.copyto(b, a)), 2 * a.nbytes, a.nbytes
    else:
        name, _, make = CASES[case]
        kernel = next(k for k in all_kernels() if k.name == name)
        args, params = make(normal, n)
        run = lambda: kernel(*args, **params)
        given = {id(a) for a in _flat(args)}
        moved = _bytes(args) + _bytes([args[i] for i in kernel.writes]) + sum(a.nbytes for a in _flat(run()) if id(a) not in given)
        largest = max(map(_bytes, args))
    wait = backend.cupy().cuda.Device().synchronize if device != "cpu" else lambda: None
    calls = 1 if device == "cpu" else STEPS_BETWEEN_WAITS

    def several() -> None:
        for _ in range(calls):
            run()
        wait()

    each = timed(several, seconds) / calls
    return {"GB/s": moved / each / 1e9, "us": each * 1e6, "passes": moved / largest}


def _flat(arrays: Any) -> list[Any]:
    """The arrays of a nest."""
    if isinstance(arrays, (tuple, list)):
        return [a for part in arrays for a in _flat(part)]
    return [arrays] if hasattr(arrays, "nbytes") else []


def _bytes(arrays: Any) -> int:
    return sum(a.nbytes for a in _flat(arrays))


# ------------------------------------------------------------------------------------------------- reporting


def rows_of(rounds: int, quick: bool, device: str, sizes: tuple[float, ...]) -> dict[str, list[dict[str, float]]]:
    """For each case what was measured at each size; that of "copy" too."""
    seconds = 0.01 if quick else 0.4
    return {
        case: [in_turn("bandwidth", ("gpugrad",), rounds, case=case, megabytes=m, seconds=seconds, device=device)["gpugrad"] for m in sizes]
        for case in ("copy", *CASES)
    }


def report(rounds: int, quick: bool) -> str:
    from gpugrad.testing.agreement import NUMBA, all_kernels, kernels_agree

    start = time.perf_counter()
    sizes = (0.1,) if quick else (16, 64)
    found = rows_of(rounds, quick, "cpu", sizes)
    chosen = {name for name, _, _ in CASES.values()}
    errors = {a.name: a.error for a in kernels_agree([k for k in all_kernels() if k.name in chosen], [NUMBA]) if a.dtype == "float32"}
    rows = []
    for case, (name, formula, _) in CASES.items():
        share = [r["GB/s"] / copy["GB/s"] for r, copy in zip(found[case], found["copy"], strict=True)]
        rows.append([f"`{case}`", f"`{formula}`", found[case][0]["passes"], *share, errors[name]])
    copies = ", ".join(f"{number(r['GB/s'])} GB/s at {m} MB" for m, r in zip(sizes, found["copy"], strict=True))
    head = ["kernel", "formula", "passes", *(f"of a copy's at {m} MB" for m in sizes), "ulp"]
    return (
        "\n\n".join([f"## Kernels and bandwidth\n\n{__doc__.strip()}", table(head, rows), f"A copy of NumPy's: {copies}."])
        + f"\n\n({rounds} rounds, {time.perf_counter() - start:.0f} s)"
    )


if __name__ == "__main__":
    child(measure)
