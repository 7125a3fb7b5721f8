"""The tools of gpugrad.testing find the mistakes that they are for."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

import gpugrad as gg
from gpugrad.autograd import gradcheck, gradgradcheck
from gpugrad.testing import GradcheckError, check_grads

X = np.random.default_rng(0).uniform(0.3, 1.0, (2, 3))


def wrong(vjp: Any = None, jvp: Any = None) -> Any:
    """x^3 with the given rules."""
    op = gg.primitive(lambda x: x**3, name="cube")
    if vjp is not None:
        gg.defvjp(op, vjp)
    if jvp is not None:
        gg.defjvp(op, jvp)
    return op


RIGHT = (lambda d, _y, x: d * 3 * x**2,)

# ------------------------------------------------------------------------------------------------- check_grads


def test_right_derivatives_pass() -> None:
    check_grads(wrong(*RIGHT, *RIGHT), (X,), order=3)
    check_grads(lambda p, s: {"y": gg.sum(gg.sin(p["w"] @ p["b"][0])) * s, "n": 3}, ({"w": X, "b": [X[0], None]}, 2.0))
    check_grads(lambda x, i: x[i], (X, np.array([0, 1, 1])))
    check_grads(gg.exp, X.astype(np.float32), order=2)
    check_grads(gg.exp, (X,), modes=("forward",))


def test_complex_derivatives() -> None:
    z = X + 0.5j * X[::-1]
    check_grads(lambda z: gg.exp(z) * z, (z,))  # holomorphic
    check_grads(lambda z: gg.abs(z) * gg.conj(z) + gg.imag(z), (z,))  # not so
    check_grads(lambda x: x * (1 + 2j), (X,))


@pytest.mark.parametrize(
    ("f", "message"),
    [
        (wrong(lambda g, _y, x: g * 2 * x**2), r"order 1 \(reverse\), argument 0: got .* expected .* by central differences"),
        (wrong(*RIGHT, lambda t, _y, x: t * 2 * x**2), r"order 1 \(forward\), argument 0"),
        (wrong(lambda g, _y, x: g * 3 * gg.stop_gradient(x) ** 2), r"order 2 \(\w+ over \w+\), argument 0"),
        (wrong(*RIGHT, lambda t, _y, x: t * 3 * gg.stop_gradient(x) ** 2), r"order 2 \(\w+ over forward\)"),
    ],
    ids=["vjp", "jvp", "second derivative of the vjp", "second derivative of the jvp"],
)
def test_wrong_derivatives_are_found(f: Any, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check_grads(f, (X,))


def test_the_argument_is_named() -> None:
    cube = wrong(lambda g, _y, x: g * 2 * x**2)
    with pytest.raises(AssertionError, match=r"argument 1\['b'\]\[0\]: got"):
        check_grads(lambda x, p: gg.sum(gg.sin(x)) + gg.sum(cube(p["b"][0])), (X, {"a": X, "b": [X]}))


def test_joint_rules_are_pushed_together() -> None:
    """A joint jvp that is right for each tangent alone and wrong for both."""
    from gpugrad.tape import Op

    def push(ts: Any, _y: Any, a: Any, b: Any) -> Any:
        return ts[0] * b if ts[0] is not None else ts[1] * a

    product = Op("product", np.multiply, [lambda g, _y, _a, b: g * b, lambda g, _y, a, _b: g * a], push)
    with pytest.raises(AssertionError, match="all arguments at once"):
        check_grads(product, (X, X[::-1]), order=1)


def test_check_grads_says_what_it_needs() -> None:
    with pytest.raises(ValueError, match="at least one argument of floats"):
        check_grads(gg.sum, (np.arange(3),))
    with pytest.raises(ValueError, match="modes is"):
        check_grads(gg.sum, (X,), modes=("backward",))


def test_check_grads_on_a_device(put: Any) -> None:
    check_grads(lambda x, p: gg.tanh(x @ p["w"]), (put(X), {"w": put(X.T)}))


# ------------------------------------------------------------------------------------------------- gradcheck


def leaf(x: Any, dtype: Any = np.float64) -> Any:
    return gg.tensor(x, dtype=dtype, requires_grad=True)


def test_gradcheck_passes(device: str) -> None:
    x, w = (gg.tensor(a, device=device, requires_grad=True) for a in (X, X.T))
    assert gradcheck(lambda x, w: gg.tanh(x @ w), (x, w)) and gradgradcheck(lambda x, w: gg.tanh(x @ w), (x, w))
    assert gradcheck(lambda x, w: (gg.sum(x), gg.exp(w), gg.argmax(x)), (x, w))
    assert gradcheck(gg.sin, x) and gradgradcheck(gg.sin, x)
    assert gradcheck(lambda x, c, k: x * c * k, (x, gg.tensor(X, device=device), 2.0))
    assert x.grad is None


def test_gradcheck_of_complex_tensors() -> None:
    z = leaf(X + 0.5j, np.complex128)
    for f in (lambda z: gg.exp(z) * z, gg.abs, lambda z: gg.conj(z) * gg.real(z)):
        assert gradcheck(f, (z,)) and gradgradcheck(f, (z,))
    assert gradcheck(lambda x: x * (1 + 2j), (leaf(X),))


def test_gradcheck_finds_mistakes() -> None:
    f = wrong(lambda g, _y, x: g * 2 * x**2)
    with pytest.raises(GradcheckError, match="Jacobian mismatch for output 0 with respect to input 0"):
        gradcheck(f, (leaf(X),))
    with pytest.raises(RuntimeError, match="mismatch for output 1 with respect to input 1"):
        gradcheck(lambda a, b: (a * 2.0, f(b)), (leaf(X), leaf(X)))
    assert gradcheck(f, (leaf(X),), raise_exception=False) is False
    second = wrong(lambda g, _y, x: g * 3 * gg.stop_gradient(x) ** 2)
    assert gradcheck(second, (leaf(X),))
    with pytest.raises(GradcheckError, match="mismatch"):
        gradgradcheck(second, (leaf(X),))


def test_gradcheck_finds_backward_passes_that_differ() -> None:
    rng = np.random.default_rng(0)
    shaky = wrong(lambda g, _y, x: g * 3 * x**2 * (1 + 1e-9 * rng.standard_normal()))
    with pytest.raises(GradcheckError, match="not reentrant"):
        gradcheck(shaky, (leaf(X),))
    assert gradcheck(shaky, (leaf(X),), nondet_tol=1e-6)


def test_gradcheck_says_what_it_needs() -> None:
    with pytest.raises(ValueError, match="at least one input tensor to require gradient"):
        gradcheck(gg.sin, (gg.tensor(X),))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        gradcheck(gg.sin, (leaf(X, np.float32),), raise_exception=False)
    assert any("not a double precision" in str(w.message) for w in caught)
    with pytest.raises(ValueError, match="Tensor or a tuple of Tensors, got float"):
        gradcheck(lambda x: 1.0, (leaf(X),))


def test_gradcheck_of_unused_inputs() -> None:
    assert gradcheck(lambda a, b: a * 2.0, (leaf(X), leaf(X)))
    assert gradcheck(lambda a: gg.stop_gradient(a) * 0.0, (leaf(X),))
