"""A layer with its tangent: what lies together is not copied, and what cannot be fused is computed one operation after the other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import gpugrad as gg
from gpugrad import backend
from gpugrad.ops import linear_dual

RNG = np.random.default_rng(0)


def test_halves_of_one_array_are_joined_without_a_copy(put: Callable[[Any], Any]) -> None:
    whole = put(np.arange(24.0).reshape(6, 4).copy())
    assert linear_dual._joined(whole[:3], whole[3:]) is whole
    others = [
        (whole[3:], whole[:3]),
        (whole[:2], whole[2:4]),
        (whole[1:4], whole[3:]),
        (whole[:3, :2], whole[3:, :2]),
        (whole[::2], whole[1::2]),
        (whole[:3], put(np.ones((3, 4)))),
    ]
    for a, b in others:
        joined = linear_dual._joined(a, b)
        assert joined is not whole
        np.testing.assert_array_equal(*(backend.to_device(v, "cpu") for v in (joined, backend.namespace(a).concatenate([a, b]))))


@pytest.mark.parametrize("act", ["none", "relu", "tanh", "gelu"])
@pytest.mark.parametrize("dtypes", [(np.float16,) * 3, (np.float32, np.float64, np.float64), (np.float64,) * 3], ids=["half", "mixed", "double"])
def test_of_any_dtypes_it_is_the_layer_and_its_tangent(act: str, dtypes: tuple[Any, ...]) -> None:
    xs = [RNG.normal(size=s).astype(d) for s, d in zip(((5, 4), (4, 3), (3,)), dtypes, strict=True)]
    ts = [RNG.normal(size=x.shape).astype(x.dtype) for x in xs]
    layer = lambda x, w, b: gg.nn.functional.linear(x, w, b, activation=act)
    y, t = gg.jvp(layer, tuple(xs), tuple(ts))
    exact, slope = gg.jvp(layer, tuple(x.astype(float) for x in xs), tuple(v.astype(float) for v in ts))
    expected, push = gg.linearize(layer, *xs)
    assert y.dtype == t.dtype == expected.dtype == np.result_type(*dtypes)
    tolerance = 2e-2 if dtypes[0] == np.float16 else 1e-6
    for value, wide in ((y, exact), (t, slope), (push(*ts), slope)):
        np.testing.assert_allclose(value, wide, rtol=tolerance, atol=tolerance)
