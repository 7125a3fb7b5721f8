"""The benchmarks run, and compute what they say; their times are nobody's business here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import bandwidth, chain, floor, harness, hvp, long_chain, mlp, operations, training


@pytest.mark.parametrize("mix", chain.MIXES)
def test_chain_by_hand_is_the_gradient(mix: str) -> None:
    np.testing.assert_allclose(chain.gradient("gpugrad", mix, 12)(), chain.by_hand(mix, 12), rtol=1e-5)
    assert chain.measure("gpugrad", mix, 12, 0.0)["us"] > 0


def test_long_chain() -> None:
    assert long_chain.measure("gpugrad", 100, "time")["s"] > 0


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peak memory is read as Linux shows it")
def test_peak_memory() -> None:
    with harness.PeakMemory() as peak:
        np.ones(4_000_000).sum()
    assert 30e6 < peak.bytes < 60e6
    assert long_chain.measure("gpugrad", 100, "memory")["MB"] >= 0


@pytest.mark.parametrize("optimizer", mlp.OPTIMIZERS)
def test_steps_of_gpugrad_and_numpy_agree(optimizer: str) -> None:
    step = mlp.TINY[-1]
    results = {c: mlp.measure(c, list(step.sizes), step.batch, optimizer, 0.0) for c in ("gpugrad", "numpy")}
    mlp.check_losses(results)
    assert {"ms", "forward", "backward", "update"} <= set(results["gpugrad"])


def test_contenders_that_compute_something_else_are_found_out() -> None:
    with pytest.raises(RuntimeError, match="did not compute the same"):
        mlp.check_losses({"gpugrad": {"loss": 1.0}, "torch": {"loss": 1.01}})


def test_fit_trains_like_the_loop_by_hand() -> None:
    """Bit for bit the same losses: same batches, same arithmetic, nothing left out."""
    pytest.importorskip("sklearn")
    by_hand, fit = (training.measure(c, 0.0, examples=320) for c in ("gpugrad", "gpugrad:fit"))
    np.testing.assert_allclose(fit["loss"], by_hand["loss"], rtol=1e-12)
    assert 0.3 < fit["loss"] < np.log(10) and min(fit["ms"], by_hand["ms"]) > 0


def test_epochs_of_pytorch_learn_the_same() -> None:
    pytest.importorskip("torch")
    pytest.importorskip("sklearn")
    training.check_losses({c: training.measure(c, 0.0) for c in ("gpugrad", "torch", "torch:DataLoader")})


def test_contenders_that_do_not_learn_are_found_out() -> None:
    for loss in (0.4, 2.3):
        with pytest.raises(RuntimeError, match="did not learn the same"):
            training.check_losses({"gpugrad": {"loss": loss}, "torch": {"loss": 0.3 if loss < 1 else 2.29}})


@pytest.mark.parametrize("case", operations.CASES)
def test_operations_of_both_libraries_have_one_gradient(case: str) -> None:
    pytest.importorskip("torch")
    sizes = list(operations.CASES[case].tiny)
    results = {c: operations.measure(c, case, sizes, 0.0) for c in ("gpugrad", "torch")}
    assert all(r["ms"] > 0 and np.isfinite(r["value"]) for r in results.values())
    if case != "dropout":  # whose masks are each library's own
        operations.check_gradients(case, results)


def test_operations_that_compute_something_else_are_found_out() -> None:
    with pytest.raises(RuntimeError, match="different norms"):
        operations.check_gradients("softmax", {"gpugrad": {"value": 1.0}, "torch": {"value": 1.01}})


def test_batch_norm_twice() -> None:
    assert set(operations.measure("gpugrad", "twice", list(operations.SMALL), 0.0)) == {"backward", "second"}


def test_every_kernel_has_a_case_of_bandwidth(device: str) -> None:
    from gpugrad.testing.agreement import all_kernels

    assert {kernel.name for kernel in all_kernels()} == {name for name, _, _ in bandwidth.CASES.values()}
    found = bandwidth.measure("gpugrad", 0.1, 0.0, device)
    for case in ("copy", *bandwidth.CASES):
        assert found[f"{case}: GB/s"] > 0 and found[f"{case}: passes"] >= 1, case
    assert found["adam: passes"] == 7
    assert found["bias_act, gelu: passes"] == pytest.approx(3, abs=0.1)


def test_operations_of_a_step() -> None:
    assert floor.flops(mlp.Step((3, 4, 5), 2)) == 2 * 2 * (3 * 4 * 2 + 4 * 5 * 3)


@pytest.mark.parametrize("step", hvp.TINY, ids=str)
def test_products_of_all_contenders_agree(step: mlp.Step) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("jax")
    results = {c: hvp.measure(c, list(step.sizes), step.batch) for c in ("gpugrad", "torch", "torch:func", "jax")}
    hvp.check(results)
    assert set(hvp.WHAT) <= set(results["gpugrad"]) and all(r[what] > 0 for r in results.values() for what in hvp.WHAT if what in r)
    results["jax"]["block: norm"] *= 1.01
    with pytest.raises(RuntimeError, match="did not compute the same"):
        hvp.check(results)


def test_operations_of_products_are_those_that_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """The table's counts, against the products of matrices that run."""
    from gpugrad import blas

    step, made, matmul = hvp.TINY[1], [], blas.matmul
    calls = hvp.gpugrad_calls(step, "")

    def counting(a: Any, b: Any, out: Any = None) -> Any:
        y = matmul(a, b, out)
        made.append(2 * y.size * a.shape[-1])
        return y

    monkeypatch.setattr(blas, "matmul", counting)
    for what, call in calls.items():
        made.clear()
        call()
        assert sum(made) / (hvp.BLOCK if what == "block" else 1) == hvp.flops(step, what), what


def test_turns_are_processes_and_medians() -> None:
    results = harness.in_turn("import_time", ("gpugrad", "not_installed"), 2)
    assert list(results) == ["gpugrad"] and results["gpugrad"]["s"] > 0


def test_a_failing_child_is_reported() -> None:
    with pytest.raises(RuntimeError, match="no such mix"):
        harness.in_turn("chain", ("gpugrad",), 1, mix="no such mix", n=4, seconds=0.0)


def test_tables() -> None:
    assert harness.table(["a", "b"], [["x", 0.012345], ["y", None]]).splitlines()[2:] == ["| x | 0.012 |", "| y | - |"]
    assert harness.verdict(0.5, 0.6).endswith("met") and harness.verdict(0.7, 0.6).endswith("missed") and "not measured" in harness.verdict(None, 0.6)


@pytest.mark.parametrize("optimizer", mlp.OPTIMIZERS)
def test_steps_run_on_any_device(optimizer: str, device: str) -> None:
    forward, backward, update = mlp.gpugrad_parts(mlp.TINY[-1], optimizer, device)
    losses = []
    for _ in range(3):
        loss = forward()
        backward(loss)
        update()
        losses.append(loss.item())
    assert loss.device.startswith(device) and losses[-1] < losses[0]
