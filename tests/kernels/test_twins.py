"""All twins of all kernels against each other, and whole training runs on each of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import gpugrad as gg
from gpugrad import backend, kernels, nn, optim, tree
from gpugrad.cuda import emulator
from gpugrad.testing import agreement, tolerance

KERNELS = {k.name: k for k in agreement.all_kernels()}
PLACES = [
    agreement.REFERENCE,
    agreement.NUMBA,
    pytest.param(agreement.EMULATED, marks=pytest.mark.skipif(not emulator.is_available(), reason="needs g++")),
    pytest.param(agreement.CUDA, marks=pytest.mark.gpu),
]
every_place = pytest.mark.parametrize("place", PLACES)
every_kernel = pytest.mark.parametrize("name", KERNELS)
every_dtype = pytest.mark.parametrize("dtype", agreement.dtypes(), ids=lambda d: d.name)


def test_the_kernels_are_found() -> None:
    assert {"act_backward", "bias_act", "cross_entropy", "sgd", "adam", "grad_norm"} <= set(KERNELS)


@every_place
@every_dtype
@every_kernel
def test_agrees_with_float64(name: str, dtype: Any, place: str) -> None:
    for result in agreement.kernels_agree([KERNELS[name]], [place]):
        if result.dtype == dtype.name:
            assert result.holds, result


def outcome(kernel: kernels.Kernel, dtype: Any, place: str) -> list[bytes]:
    """The bits of all results on all samples."""
    found: list[bytes] = []
    with kernels.use(agreement._TWIN[place]), np.errstate(all="ignore"):
        for args, params in kernel.samples(np.random.default_rng(0), dtype):
            args = agreement._moved(args, place)
            y = kernel(*args, **params)
            found += [a.tobytes() for a in agreement._arrays([y, [args[i] for i in kernel.writes]])]
    return found


@every_place
@every_dtype
@every_kernel
def test_the_same_bits_each_time(name: str, dtype: Any, place: str) -> None:
    assert outcome(KERNELS[name], dtype, place) == outcome(KERNELS[name], dtype, place)


@pytest.mark.parametrize("threads", ["1", "3"])
@every_kernel
def test_the_same_bits_on_any_number_of_threads(name: str, threads: str, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = outcome(KERNELS[name], np.dtype(np.float32), agreement.NUMBA)
    monkeypatch.setitem(os.environ, "GPUGRAD_NUM_THREADS", threads)
    assert outcome(KERNELS[name], np.dtype(np.float32), agreement.NUMBA) == expected


@pytest.mark.skipif(not emulator.is_available(), reason="needs g++")
@pytest.mark.parametrize("order", ["reverse", "shuffled"])
@every_kernel
def test_the_same_bits_in_any_order_of_threads(name: str, order: str) -> None:
    """What a missing barrier, or two threads that write to one place, would change."""
    expected = outcome(KERNELS[name], np.dtype(np.float32), agreement.EMULATED)
    with emulator.schedule(order):
        assert outcome(KERNELS[name], np.dtype(np.float32), agreement.EMULATED) == expected


@every_kernel
def test_samples_have_uneven_sizes_and_none(name: str) -> None:
    """A tail, one element and no elements at all: where kernels go wrong."""
    sizes = {
        leaf.size
        for args, _ in KERNELS[name].samples(np.random.default_rng(0), np.dtype(np.float32))
        for leaf in tree.flatten(args)[0]
        if backend.is_array(leaf)
    }
    assert 0 in sizes
    assert any(n % 4 for n in sizes if n > 256)


# ------------------------------------------------------------------------------------------------- training


RNG = np.random.default_rng(5)
X, LABELS = RNG.normal(size=(37, 21)), RNG.integers(0, 5, 37)
SIZES = (21, 35, 18, 5)


def network(dtype: Any, device: str, activation: str) -> nn.Module:
    """The same weights in every dtype."""
    gg.random.seed(3)
    return nn.MLP(SIZES, activation, dtype=np.float64).to(device).to(dtype)


def train(place: str, dtype: Any, make: Callable[..., Any], activation: str, steps: int = 50) -> list[Any]:
    """The parameters after so many steps, then the last gradient, then its derivative along the parameters."""
    device = "cuda" if place == agreement.CUDA else "cpu"
    with kernels.use(agreement._TWIN[place]):
        model = network(dtype, device, activation)
        x, labels = gg.tensor(X, dtype=dtype, device=device), gg.tensor(LABELS, device=device)
        optimizer = make(model.parameters())
        for _ in range(steps):
            loss = nn.functional.cross_entropy(model(x), labels, label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        grads = [p.grad for p in model.parameters()]
        state = {k: p.data for k, p in model.named_parameters()}
        of = lambda p: nn.functional.cross_entropy(nn.functional_call(model, p, x), labels, label_smoothing=0.1)
        products = [list(gg.hvp(of, state, state, mode=mode).values()) for mode in ("forward-over-reverse", "reverse-over-reverse")]
    return agreement._arrays([[p.data for p in model.parameters()], grads, products])


OPTIMIZERS = {
    "SGD": lambda p: optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-3),
    "AdamW": lambda p: optim.AdamW(p, lr=3e-3, max_grad_norm=0.5),
}


@pytest.fixture(scope="module")
def truth() -> Iterator[Callable[[str, str], list[Any]]]:
    known: dict[tuple[str, str], list[Any]] = {}

    def of(optimizer: str, activation: str) -> list[Any]:
        key = optimizer, activation
        if key not in known:
            known[key] = train(agreement.REFERENCE, np.float64, OPTIMIZERS[optimizer], activation)
        return known[key]

    yield of


@every_place
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("activation", ["relu", "gelu", "tanh"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
def test_fifty_steps(dtype: Any, activation: str, optimizer: str, place: str, truth: Any) -> None:
    got = train(place, dtype, OPTIMIZERS[optimizer], activation)
    for g, expected in zip(got, truth(optimizer, activation), strict=True):
        assert g.dtype == dtype
        np.testing.assert_allclose(g, expected, rtol=0, atol=100 * tolerance(dtype, X.size) * np.abs(expected).max())


@every_place
def test_training_gives_the_same_bits_each_time(place: str) -> None:
    first, second = (train(place, np.float32, OPTIMIZERS["AdamW"], "gelu", steps=10) for _ in range(2))
    assert [a.tobytes() for a in first] == [a.tobytes() for a in second]
