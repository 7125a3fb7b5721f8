"""Functions with known minima, and the state of an optimizer taken apart, for the tests of optimizers that evaluate the loss themselves."""

from __future__ import annotations

import numpy as np
from numpy.testing import assert_array_equal

import gpugrad as gg
from gpugrad import nn


def rosenbrock(x):
    return gg.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)


def spd(n, seed=0):
    """A symmetric positive definite matrix."""
    q, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(n, n)))
    return (q * np.linspace(1, 10, n)) @ q.T


def logistic():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 5))
    y = (x @ [1.0, -2, 0.5, 0, 3] + rng.normal(size=200) > 0).astype(float)
    return x, y


def logistic_loss(z, w, y):
    """Of logits z and weights w, with a penalty."""
    return nn.functional.bce_with_logits(z, y) + 0.005 * gg.sum(w * w)


def logistic_minimum():
    """Where a Newton iteration ends."""
    x, y = logistic()
    w = np.zeros(5)
    for _ in range(20):
        p = 1 / (1 + np.exp(-x @ w))
        w -= np.linalg.solve(x.T @ (x * (p * (1 - p))[:, None]) / 200 + 0.01 * np.eye(5), x.T @ (p - y) / 200 + 0.01 * w)
    return w


def flat(state):
    """What an optimizer remembers of all parameters together."""
    return {k: v.numpy().copy() if type(v) is gg.Tensor else v for k, v in state["state"].get(0, {}).items()}


def assert_same(a, b):
    assert set(a) == set(b)
    for k in a:
        assert_array_equal(a[k], b[k])
