"""Loops over arrays that are the same along leading axes: read again, never laid out, and with the results that they have in full."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from gpugrad.kernels import activations, masks, periods_cpu

RNG = np.random.default_rng(0)
SHAPE = (5, 2, periods_cpu.LEAST)
PERIODS = [SHAPE, SHAPE[1:], SHAPE[2:], (1, 1, SHAPE[2]), (5, 1, SHAPE[2]), (), (1,)]
every_period = pytest.mark.parametrize("shape", PERIODS, ids=str)


def test_a_period_is_read_where_it_lies() -> None:
    row, block = RNG.normal(size=SHAPE[2:]), RNG.normal(size=SHAPE[1:])
    for x, size in (
        (row, row.size),
        (row[None, None], row.size),
        (np.broadcast_to(row, SHAPE), row.size),
        (block, block.size),
        (np.broadcast_to(block, SHAPE), block.size),
    ):
        found = periods_cpu.vector(x, SHAPE)
        assert found.size == size and np.shares_memory(found, x)
    for x in (row[:-1], RNG.normal(size=(5, 1, 1)), RNG.normal(size=(2, 1))):  # shorter, or not repeated along leading axes
        shape = (*SHAPE[:2], x.size) if x.ndim == 1 else SHAPE
        assert_array_equal(periods_cpu.vector(x, shape), np.broadcast_to(x, shape).reshape(-1))


@every_period
@pytest.mark.parametrize("zero_strides", [False, True])
def test_masks(shape: Any, zero_strides: bool) -> None:
    d, y = RNG.normal(size=SHAPE), RNG.normal(size=shape)
    beside = np.broadcast_to(y, SHAPE) if zero_strides else y
    assert_array_equal(masks.positive.cpu(d, beside), masks.positive.reference(d, y))
    assert_array_equal(masks.positive.cpu(np.broadcast_to(y, SHAPE), d), masks.positive.reference(np.broadcast_to(y, SHAPE), d))
    for a, e in zip(masks.shares.cpu(d, beside, d, of="maximum"), masks.shares.reference(d, y, d, of="maximum"), strict=True):
        assert_array_equal(a, e)


@every_period
@pytest.mark.parametrize("act", activations.FLAT)
def test_slopes_of_straight_lines(act: str, shape: Any) -> None:
    a, b = activations.PARAMETERS.get(act, (0.0, 0.0))
    g, x = RNG.normal(size=SHAPE), RNG.normal(size=shape)
    for first, second in ((g, x), (x, g)):
        assert_array_equal(activations.activation_slope.cpu(first, second, act=act, a=a, b=b), activations.slope(first, second, act=act, a=a, b=b))


def test_results_do_not_depend_on_the_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    g, x = RNG.normal(size=(50, *SHAPE[1:])), RNG.normal(size=SHAPE[1:])
    results = []
    for threads in ("1", "3"):
        monkeypatch.setenv("GPUGRAD_NUM_THREADS", threads)
        results.append(masks.positive.cpu(g, x))
    assert_array_equal(*results)
    assert_array_equal(results[0], masks.positive.reference(g, x))
