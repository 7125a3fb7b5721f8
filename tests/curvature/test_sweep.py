"""Going through data again and again: what is refused, and the bar."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from curvature_cases import cut, reals

import gpugrad as gg
from gpugrad.curvature import HessianOperator, sweep
from gpugrad.data import DataLoader, TensorDataset

X, Y = reals(9, 3), reals(9, seed=1)


def loss(w: Any, b: Any) -> Any:
    return gg.mean((b[0] @ w - b[1]) ** 2)


def operator(data: Any, **options: Any) -> HessianOperator:
    return HessianOperator(loss, np.zeros(3), data, **options)


def test_what_is_no_data() -> None:
    with pytest.raises(TypeError, match=r"data is a generator, which can be gone through once only.*give list\(data\)"):
        operator(b for b in cut(X, Y, 9))
    with pytest.raises(TypeError, match="list_iterator"):
        operator(iter(cut(X, Y, 9)))
    with pytest.raises(TypeError, match=r"write \[\(x, y\)\] for a single batch"):
        operator((X, Y))
    with pytest.raises(TypeError, match=r"data is an array, expected.*write \[batch\]"):
        operator(X)
    with pytest.raises(TypeError, match=r"data is a dict of arrays.*write \[batch\]"):
        operator({"x": X})
    with pytest.raises(TypeError, match=r"give DataLoader\(dataset, batch_size\)"):
        operator(TensorDataset(X, Y))
    with pytest.raises(TypeError, match="data is int, expected an iterable"):
        operator(3)
    with pytest.raises(ValueError, match="data has no batches"):
        operator([])
    with pytest.raises(ValueError, match=r"batch 1 is empty: .* shape \(0, 3\)"):
        operator(cut(X, Y, 9, 0))
    with pytest.raises(ValueError, match="batch 0 begins with float, which has no rows"):
        operator([(1.0, Y)])


def test_any_iterable_that_can_be_gone_through_again() -> None:
    class Mine:
        def __iter__(self) -> Iterator[Any]:
            return iter(cut(X, Y, 4, 5))

    np.testing.assert_allclose(operator(Mine()).to_dense(), 2 / 9 * X.T @ X)
    np.testing.assert_allclose(operator(tuple(cut(X, Y, 4, 5))).to_dense(), 2 / 9 * X.T @ X)


def test_batches_that_change_are_noticed() -> None:
    class Growing:
        def __init__(self) -> None:
            self.n = 3

        def __iter__(self) -> Iterator[Any]:
            self.n += 1
            return iter(cut(X, Y, 2, self.n - 2))

    with pytest.raises(ValueError, match=r"batches of \[2, 2\] rows first, and then of \[2, 3\]"):
        operator(Growing())

    class Shuffled:
        rng = np.random.default_rng(0)

        def __iter__(self) -> Iterator[Any]:
            rows = self.rng.permutation(9)
            return iter(cut(X[rows], Y[rows], 5, 4))

    with pytest.raises(RuntimeError, match="do the batches come in another order each time"):
        operator(Shuffled())


def test_data_is_not_gone_through_when_all_is_kept() -> None:
    class Counted:
        sweeps = 0

        def __iter__(self) -> Iterator[Any]:
            self.sweeps += 1
            return iter(cut(X, Y, 4, 5))

    data = Counted()
    H = operator(data)
    before = data.sweeps
    H @ reals(3)
    H.to_dense()
    H.value()
    assert data.sweeps == before == 2  # by the check
    H = operator(data, memory=0, check_deterministic=False)
    H @ reals(3)
    assert data.sweeps == before + 1


def test_loaders_keep_their_place() -> None:
    loader = DataLoader(TensorDataset(X, Y), 4, shuffle=True)
    order = [y for _, y in loader]
    fresh = DataLoader(TensorDataset(X, Y), 4, shuffle=True)
    seen = []
    for _, y in fresh:
        operator(fresh)
        seen.append(y)
    for a, b in zip(order, seen, strict=True):
        np.testing.assert_array_equal(a, b)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("progress", "slow", "terminal", "shown"), [
    (None, True, True, True), (None, False, True, False), (None, True, False, False), (True, False, True, True), (True, False, False, True),
    (False, True, True, False),
])  # fmt: skip
def test_bar(progress: bool | None, slow: bool, terminal: bool, shown: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    out = Terminal() if terminal else io.StringIO()
    monkeypatch.setattr(sys, "stderr", out)
    monkeypatch.setattr(sweep, "PATIENCE", 0.0 if slow else 60.0)
    H = operator(cut(X, Y, 4, 4, 1), progress=progress, memory=0, check_deterministic=False)
    product = H @ reals(3)
    np.testing.assert_allclose(product, 2 / 9 * X.T @ X @ reals(3))
    assert ("HessianOperator" in out.getvalue()) == shown
    assert not shown or "batches" in out.getvalue()


def test_bar_is_taken_away_when_a_product_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    out = Terminal()
    monkeypatch.setattr(sys, "stderr", out)

    def fails(w: Any, b: Any) -> Any:
        if len(b[1]) == 1:
            raise KeyError("mine")
        return loss(w, b)

    H = HessianOperator(fails, np.zeros(3), cut(X, Y, 4, 4, 1), progress=True, check_deterministic=False)
    with pytest.raises(KeyError, match="mine"):
        H @ reals(3)
    assert out.getvalue().endswith("\x1b[2K")
