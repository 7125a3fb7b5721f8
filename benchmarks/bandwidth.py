"""Every kernel on its own (float32): how much memory it moves, and how fast beside a copy on the same device.

A pass is one reading or writing of the largest array. What must move is each argument, each result, and once more what is written in place; the last
columns are that over the time, as a fraction of what a copy of an array moves. 1 is as fast as copying; above 1 the arrays of one call were still in the
cache when the next began, or several threads move more than the one that copies. Errors are the largest that `gpugrad check` finds, in units in the last place of the largest element.
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
Arrays = Callable[..., Any]  # normal(*shape), on the device
Make = Callable[[Arrays, int], Call]


# ------------------------------------------------------------------------------------------------- arguments of about n elements, for each kernel


def _like(count: int, **params: Any) -> Make:
    """So many matrices of one shape."""
    return lambda normal, n: (tuple(normal(n // COLUMNS, COLUMNS) for _ in range(count)), params)


def _bias_act(act: str) -> Make:
    return lambda normal, n: ((normal(n // COLUMNS, COLUMNS), normal(COLUMNS)), {"act": act})


def _labelled(normal: Arrays, n: int) -> Call:
    x = normal(n // COLUMNS, COLUMNS)
    return (x, (abs(normal(len(x))) * 100).astype(np.int64)), {}


def _masked(*others: Any) -> Make:
    return lambda normal, n: ((normal(n), *others, normal(n) > 0), {})


def _lines(columns: bool, count: int = 1) -> Make:
    """Lines of 1024 elements, as rows or as columns; of what is behind the first array the last is a softmax, or near enough."""

    def make(normal: Arrays, n: int) -> Call:
        shape = (1, COLUMNS, n // COLUMNS) if columns else (n // COLUMNS, COLUMNS, 1)
        arrays = [normal(*shape) for _ in range(count)]
        return (*arrays[:-1], abs(arrays[-1]) / COLUMNS if count > 1 else arrays[-1]), {}

    return make


def _standardized(kernel: str, along: int) -> Make:
    """Rows with a weight along them (layer norm), or columns with a weight each (batch norm)."""

    def make(normal: Arrays, n: int) -> Call:
        from gpugrad.kernels import normalise

        x = normal(1, n // COLUMNS, COLUMNS) if along == 2 else normal(n // COLUMNS, COLUMNS, 1)
        w, b = normal(COLUMNS), normal(COLUMNS)
        if kernel == "standardize":
            return (x, w, b), {"along": along, "eps": 1e-5}
        _, stats = normalise.standardize(x, w, b, along=along, eps=1e-5)
        others = (normal(*x.shape), normal(*x.shape), w, b) if kernel == "standardize_twice" else (normal(*x.shape),)
        return (x, stats, w, *others), {"along": along}

    return make


def _moved(normal: Arrays, n: int) -> tuple[Any, Any]:
    """Rows of 64, and as many places among 10,000."""
    return normal(n // 64, 64), (abs(normal(n // 64)) * 1e9).astype(np.int64) % 10_000


def _gathered(normal: Arrays, n: int) -> Call:
    return (normal(10_000, 64), _moved(normal, n)[1]), {}


def _scattered(normal: Arrays, n: int) -> Call:
    return _moved(normal, n), {"count": 10_000}


def _extreme(axis: int) -> Make:
    def make(normal: Arrays, n: int) -> Call:
        x = normal(n // COLUMNS, COLUMNS)
        y = x.max(axis=axis)
        return (x, y + 1, y), {"axis": (axis,)}

    return make


def _deviating(normal: Arrays, n: int) -> Call:
    x = normal(n // COLUMNS, COLUMNS)
    return (x, x.mean(axis=1), normal(len(x))), {"axis": (1,)}


def _update(arrays: int, *others: Any, **options: Any) -> Make:
    """An optimizer's: its parameters, gradients and averages in eight pieces."""
    return lambda normal, n: ((*[[abs(normal(n // 8)) for _ in range(8)] for _ in range(arrays)], *others), options)


CASES: dict[str, tuple[str, str, Make]] = {  # what is shown -> kernel, formula, arguments
    "bias_act, relu": ("bias_act", "act(z + b)", _bias_act("relu")),
    "bias_act, gelu": ("bias_act", "act(z + b)", _bias_act("gelu")),
    "act_backward, relu": ("act_backward", "g act'(z), and the sums of its columns", _like(2, act="relu")),
    "act_backward, gelu": ("act_backward", "g act'(z), and the sums of its columns", _like(2, act="gelu")),
    **{f"activation, {act}": ("activation", "act(x)", _like(1, act=act, a=1.0, b=1.0)) for act in ("relu", "silu", "gelu", "elu", "softplus")},
    **{f"activation_slope, {act}": ("activation_slope", "g act'(x)", _like(2, act=act, a=1.0, b=1.0)) for act in ("silu", "gelu")},
    "activation_bend, gelu": ("activation_bend", "c act'(x) and c g act''(x)", _like(3, act="gelu")),
    "softmax, rows": ("softmax", "exp(x - m) / sum exp(x - m)", _lines(False)),
    "softmax, columns": ("softmax", "exp(x - m) / sum exp(x - m)", _lines(True)),
    "softmax_slope, rows": ("softmax_slope", "p (g - sum(p g))", _lines(False, 2)),
    "softmax_curvature, rows": ("softmax_curvature", "p (c - sum(p c)) and c (g - sum(p g)) - g sum(p c)", _lines(False, 3)),
    "log_softmax, rows": ("log_softmax", "x - m - log sum exp(x - m)", _lines(False)),
    "log_softmax_slope, rows": ("log_softmax_slope", "g - exp(y) sum(g)", _lines(False, 2)),
    "log_softmax_curvature, rows": ("log_softmax_curvature", "c - sum(p c) and -p c sum(g)", _lines(False, 3)),
    "logsumexp, rows": ("logsumexp", "m + log sum exp(x - m)", _lines(False)),
    "cross_entropy": ("cross_entropy", "-log softmax(x)_label, and softmax(x) - onehot(label)", _labelled),
    "standardize, rows": ("standardize", "(x - mean) / sqrt(var + eps) w + b", _standardized("standardize", 2)),
    "standardize, columns": ("standardize", "(x - mean) / sqrt(var + eps) w + b", _standardized("standardize", 1)),
    "standardize_backward, rows": ("standardize_backward", "r (d - mean(d) - h mean(h d)) of d = g w; sum g h; sum g", _standardized("standardize_backward", 2)),
    "standardize_backward, columns": ("standardize_backward", "r (d - mean(d) - h mean(h d)) of d = g w; sum g h; sum g", _standardized("standardize_backward", 1)),
    "standardize_twice, rows": ("standardize_twice", "the backward of that", _standardized("standardize_twice", 2)),
    "standardize_twice, columns": ("standardize_twice", "the backward of that", _standardized("standardize_twice", 1)),
    "total": ("total", "sum of all", _like(1, axis=(0, 1))),
    "total, rows": ("total", "sum_j x_ij", _like(1, axis=(1,))),
    "total, columns": ("total", "sum_i x_ij", _like(1, axis=(0,))),
    "moments, rows": ("moments", "mean and sum (x - mean)^2", _like(1, axis=(1,))),
    "deviations": ("deviations", "s (x - m)", _deviating),
    "extremum, rows": ("extremum", "max_j x_ij", _like(1, axis=(1,))),
    "extremum, columns": ("extremum", "max_i x_ij", _like(1, axis=(0,))),
    "extremum_backward, rows": ("extremum_backward", "g / k where x is one of the k largest", _extreme(1)),
    "arg_extremum, rows": ("arg_extremum", "argmax_j x_ij", _like(1, axis=1)),
    "select": ("select", "mask ? x : other", _masked(0.0)),
    "parts": ("parts", "(mask ? d : 0, mask ? 0 : d)", _masked()),
    "positive": ("positive", "y <= 0 ? 0 : d", _like(2)),
    "within": ("within", "low <= x <= high ? d : 0", lambda normal, n: ((normal(n), normal(n), -1.0, 1.0), {})),
    "share": ("share", "d (1, 1/2 or 0)", _like(3, of="maximum")),
    "shares": ("shares", "d (1, 1/2 or 0), of both arguments", _like(3, of="maximum")),
    "strong_product": ("strong_product", "d p, 0 where d is 0", _like(2)),
    "strong_quotient": ("strong_quotient", "d / p, 0 where d is 0", _like(2)),
    "mutual_product": ("mutual_product", "d p, 0 where either is 0", _like(2)),
    "slope_product, tanh": ("slope_product", "d (1 - y)(1 + y)", _like(2, of="tanh")),
    "outer": ("outer", "a_i b_i' of each example", lambda normal, n: ((normal(max(1, n >> 16), 256), normal(max(1, n >> 16), 256)), {})),
    "gather": ("gather", "x[places]", _gathered),
    "segment_sum": ("segment_sum", "sums of the rows of each place", _scattered),
    "dropout": ("dropout", "x mask / (1 - p)", lambda normal, n: ((normal(n),), {"p": 0.5, "key": (1, 2), "counter": 0})),
    "sgd": ("sgd", "p - lr g", _update(2, None, lr=1e-3)),
    "adam": ("adam", "p - lr m^ / (sqrt(v^) + eps)", _update(4, None, lr=1e-3, step=3)),
    "nadam": ("nadam", "Adam with Nesterov's momentum", _update(4, lr=1e-3, step=3, mu_product=0.5)),
    "rmsprop": ("rmsprop", "p - lr g / (sqrt(v) + eps)", _update(3, None, None, lr=1e-3)),
    "adagrad": ("adagrad", "p - lr g / (sqrt(sum g^2) + eps)", _update(3, lr=1e-3, step=3)),
    "adadelta": ("adadelta", "p - lr sqrt(u + eps) / sqrt(v + eps) g", _update(4, lr=1e-3)),
    "lion": ("lion", "p - lr sign(beta1 m + (1 - beta1) g)", _update(3, lr=1e-3)),
    "grad_norm": ("grad_norm", "sqrt(sum g^2)", _update(1)),
}  # fmt: skip


# ------------------------------------------------------------------------------------------------- measuring


def measure(contender: str, megabytes: float, seconds: float, device: str = "cpu") -> dict[str, float]:
    """All cases, one after the other: nobody is compared, so they share a process. "CASE: GB/s" and so on."""
    return {f"{case}: {key}": value for case in ("copy", *CASES) for key, value in one(case, megabytes, seconds, device).items()}


def one(case: str, megabytes: float, seconds: float, device: str = "cpu") -> dict[str, float]:
    """GB/s that a kernel moves whose largest array has this size; passes over that array; us of a call."""
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
        made = [a for a in _flat(run()) if id(a) not in given]
        moved = _bytes(args) + _bytes([args[i] for i in kernel.writes]) + _bytes(made)
        largest = max(map(_bytes, (*args, *made)))
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
    seconds = 0.01 if quick else 0.3
    by_size = [in_turn("bandwidth", ("gpugrad",), rounds, megabytes=m, seconds=seconds, device=device)["gpugrad"] for m in sizes]
    return {case: [{key: r[f"{case}: {key}"] for key in ("GB/s", "us", "passes")} for r in by_size] for case in ("copy", *CASES)}


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
