"""Function transforms: nests, argnums, aux, dtypes, errors, Jacobians."""

from typing import NamedTuple

import numpy as np
import pytest
from derivatives import numeric

import gpugrad as gg

RNG = np.random.default_rng(0)


def loss(p, x):
    return gg.mean(gg.tanh(x @ p["w"] + p["b"]) ** 2)


P = {"w": RNG.normal(size=(3, 2)), "b": RNG.normal(size=2)}
X = RNG.normal(size=(5, 3))


class Pair(NamedTuple):
    a: object
    b: object


def test_grad_of_a_dict():
    g = gg.grad(loss)(P, X)
    assert set(g) == {"w", "b"} and type(g["w"]) is np.ndarray
    np.testing.assert_allclose(g["w"], numeric(lambda w: loss({"w": w, "b": P["b"]}, X), P["w"]), rtol=1e-6, atol=1e-9)


def test_nests_of_every_kind():
    tree = [Pair(X, (P["b"], {"k": P["w"], "none": None})), 2.0]
    f = lambda t: gg.sum(gg.sin(t[0].a @ t[0].b[1]["k"]) + t[0].b[0]) * t[1]
    g = gg.grad(f)(tree)
    assert isinstance(g[0], Pair) and g[0].b[1]["none"] is None and isinstance(g, list)
    np.testing.assert_allclose(g[1], f(tree) / 2.0)
    v = gg.tree.map_leaves(np.ones_like, tree)
    product = gg.hvp(f, tree, v)
    again = gg.hvp(f, tree, v, mode="reverse-over-reverse")
    for a, b in zip(gg.tree.flatten(product)[0], gg.tree.flatten(again)[0]):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12)


def test_argnums_and_keyword_arguments():
    f = lambda a, b, scale=1.0: gg.sum(a * b * b) * scale
    a, b = np.array([1.0, 2.0]), np.array([3.0, 4.0])
    np.testing.assert_allclose(gg.grad(f, 1)(a, b, scale=2.0), 4 * a * b)
    ga, gb = gg.grad(f, argnums=(0, -1))(a, b)
    np.testing.assert_allclose(ga, b * b)
    np.testing.assert_allclose(gb, 2 * a * b)
    with pytest.raises(TypeError, match="argnums"):
        gg.grad(f, 2)(a, b)


def test_aux_and_values():
    f = lambda x: (gg.sum(x**2), {"twice": 2 * x})
    (y, aux), g = gg.value_and_grad(f, has_aux=True)(np.ones(2))
    assert y == 2 and type(aux["twice"]) is np.ndarray
    g, aux = gg.grad(f, has_aux=True)(np.ones(2))
    np.testing.assert_array_equal(g, aux["twice"])
    y, dy, aux = gg.jvp(f, (np.ones(2),), (np.ones(2),), has_aux=True)
    assert dy == 4 and type(aux["twice"]) is np.ndarray
    with pytest.raises(TypeError, match="pair"):
        gg.grad(lambda x: gg.sum(x), has_aux=True)(np.ones(2))


def test_tensors_in_tensors_out_plain_in_plain_out():
    f = lambda x: gg.sum(x * x)
    assert type(gg.grad(f)(np.ones(2))) is np.ndarray
    assert type(gg.grad(f)(gg.tensor([1.0, 2.0]))) is gg.Tensor
    y, dy = gg.jvp(f, (gg.tensor([1.0, 2.0]),), (np.ones(2, np.float32),))
    assert type(y) is gg.Tensor and type(dy) is gg.Tensor


CONSTANTS = {  # their results, or the derivatives of them, are the same for all x
    "sum": gg.sum,
    "argmax": gg.argmax,
    "stop_gradient": gg.stop_gradient,
    "an array": lambda x: np.ones(2),
    "a Tensor": lambda x: gg.tensor(np.ones(2)),
    "gradient of a linear function": gg.grad(gg.sum),
    "Hessian of a linear function": gg.hessian(gg.sum),
    "zeros": gg.zeros_like,
}


@pytest.mark.parametrize("name", CONSTANTS)
def test_constants_are_plain_where_all_else_is(name):
    f, x, t = CONSTANTS[name], np.ones(2), gg.tensor(np.ones(2))
    total = lambda x: gg.sum(f(x)) * 1.0
    results = {
        "grad": gg.value_and_grad(lambda x: (total(x), f(x)), has_aux=True),
        "gradient of a gradient": gg.grad(lambda x: gg.sum(gg.grad(total)(x))),
        "vjp": lambda x: gg.vjp(lambda x: f(x) * 1.0, x)[1](f(x) * 1.0),
        "value": lambda x: gg.vjp(f, x)[0],
        "jvp": lambda x: gg.jvp(lambda x: (f(x), f(x)), (x,), (x,), has_aux=True),
        "linearize": lambda x: (gg.linearize(f, x)[0], gg.linearize(lambda x: f(x) * 1.0, x)[1](x)),
        "jacobian": gg.jacobian(lambda x: f(x) * 1.0),
        "hessian": gg.hessian(total),
        "hvp": lambda x: [gg.hvp(total, x, x, mode) for mode in ("reverse-over-forward", "forward-over-reverse", "reverse-over-reverse")],
        "value_grad_hvp": lambda x: gg.value_grad_hvp(total, x, x),
        "block_hvp": lambda x: gg.block_hvp(total, x, gg.stack([x, x])),
    }
    for what, g in results.items():
        many = gg.vmap(g)
        for y in [*gg.tree.flatten(g(x))[0], *gg.tree.flatten(many(np.ones((3, 2))))[0]]:
            assert type(y) is not gg.Tensor, what
        for y in gg.tree.flatten(many(gg.tensor(np.ones((3, 2)))))[0]:
            assert type(y) is gg.Tensor and y.node is None, what
        if what not in ("value", "jvp", "grad", "linearize"):  # there f itself decides
            assert all(type(y) is gg.Tensor for y in gg.tree.flatten(g(t))[0] if what != "value_grad_hvp" or y.shape), what


def test_transforms_of_tracked_tensors_are_recorded_below():
    w = gg.tensor(np.array([1.0, 2.0]), requires_grad=True)
    g = gg.grad(lambda x: gg.sum(x**3))(w)
    g.sum().backward()
    np.testing.assert_allclose(w.grad.data, 6 * w.data)
    w.grad = None
    gg.hvp(lambda x: gg.sum(x**3), w, np.ones(2)).sum().backward()
    np.testing.assert_allclose(w.grad.data, [6, 6])


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_gradients_have_the_dtype_of_their_argument(dtype):
    x, w = np.ones((3, 1), dtype), np.ones(4, np.float64)
    g, h = gg.grad(lambda x, w: gg.sum(x * w) * 2.0, argnums=(0, 1))(x, w)
    assert g.dtype == dtype and g.shape == x.shape and h.dtype == np.float64
    y, dy = gg.jvp(lambda x: x * 2.0, (x,), (x,))
    assert dy.dtype == dtype


def test_python_floats_and_constants():
    assert gg.grad(lambda x: x**3)(2.0) == 12.0
    assert gg.grad(lambda x: 5.0)(2.0) == 0.0
    np.testing.assert_array_equal(gg.grad(lambda x, y: gg.sum(y))(np.ones(2), np.ones(3)), [0, 0])
    assert gg.jvp(lambda x: 5.0, (2.0,), (1.0,))[1] == 0.0
    y, pull = gg.vjp(lambda x: np.ones(2), np.ones(3))
    np.testing.assert_array_equal(pull(np.ones(2))[0], np.zeros(3))


def test_pullbacks_and_linear_maps_may_be_called_again():
    f = lambda x: {"s": gg.sin(x), "c": gg.cumsum(x * x)}
    x, v = RNG.normal(size=4), RNG.normal(size=4)
    y, pull = gg.vjp(f, x)
    y2, push = gg.linearize(f, x)
    assert set(y) == {"s", "c"}
    for _ in range(2):
        t = push(v)
        _, expected = gg.jvp(f, (x,), (v,))
        np.testing.assert_allclose(t["s"], expected["s"], rtol=1e-12)
        np.testing.assert_allclose(t["c"], expected["c"], rtol=1e-12)
        u = {"s": v, "c": 2 * v}
        (g,) = pull(u)
        np.testing.assert_allclose(np.sum(g * v), np.sum(u["s"] * t["s"]) + np.sum(u["c"] * t["c"]), rtol=1e-12)


def test_linearize_of_a_gradient_is_the_hvp():
    f = lambda x: gg.sum(gg.softmax(x) * gg.exp(x) / gg.sum(x * x))
    x = RNG.uniform(1, 2, 5)
    _, push = gg.linearize(gg.grad(f), x)
    for v in np.eye(5)[:2]:
        np.testing.assert_allclose(push(v), gg.hvp(f, x, v), rtol=1e-10)


@pytest.mark.parametrize("mode", ["forward", "reverse", "auto"])
def test_jacobians(mode):
    f = lambda x: gg.concatenate([gg.sin(x[0]), x[1:].sum(axis=0) ** 2, x[0] * x[1]])
    x = RNG.normal(size=(3, 2))
    J = gg.jacobian(f, mode=mode)(x)
    assert J.shape == (6, 3, 2)
    for i in np.ndindex(3, 2):
        d = np.zeros((3, 2))
        d[i] = 1e-6
        np.testing.assert_allclose(J[(slice(None), *i)], (f(x + d) - f(x - d)) / 2e-6, rtol=1e-6, atol=1e-9)


def test_jacobian_over_nests_and_several_arguments():
    f = lambda a, b: {"y": a["w"] @ b, "z": gg.sum(b)}
    J = gg.jacobian(f, argnums=(0, 1))({"w": np.ones((2, 3))}, np.arange(3.0))
    assert J["y"][0]["w"].shape == (2, 2, 3) and J["y"][1].shape == (2, 3) and J["z"][1].shape == (3,)
    np.testing.assert_array_equal(J["z"][0]["w"], np.zeros((2, 3)))


def test_hessian_and_both_hvps():
    f = lambda x: gg.sum(gg.exp(x)[:-1] * x[1:] ** 3)
    x, v = RNG.normal(size=4), RNG.normal(size=4)
    H = gg.hessian(f)(x)
    np.testing.assert_allclose(H, H.T, rtol=1e-12)
    for mode in ("forward-over-reverse", "reverse-over-reverse"):
        np.testing.assert_allclose(gg.hvp(f, x, v, mode=mode), H @ v, rtol=1e-10)
        (h,) = gg.hvp(f, (x,), (v,), mode=mode)
        np.testing.assert_allclose(h, H @ v, rtol=1e-10)
    with pytest.raises(ValueError, match="forward-over-reverse"):
        gg.hvp(f, x, v, mode="fwdrev")


def test_complex_functions_follow_jax_and_tensors_follow_pytorch():
    z = np.array([1.0 + 2.0j, -0.5 + 0.3j])
    f = lambda z: gg.sum(gg.absolute(z) ** 2)
    np.testing.assert_allclose(gg.grad(f)(z), 2 * z.conj())
    t = gg.tensor(z, requires_grad=True)
    f(t).backward()
    np.testing.assert_allclose(t.grad.data, 2 * z)
    (g,) = gg.autograd.grad(f(t), t)
    np.testing.assert_allclose(g.data, 2 * z)
    g = gg.grad(lambda x: gg.sum(gg.real(z * x)))(np.ones(2))
    assert g.dtype == np.float64
    np.testing.assert_allclose(g, z.real)


def test_stop_gradient():
    x = np.array([1.0, 2.0])
    f = lambda x: gg.sum(x * gg.stop_gradient(x))
    np.testing.assert_array_equal(gg.grad(f)(x), x)
    np.testing.assert_array_equal(gg.jvp(f, (x,), (np.ones(2),))[1], 3.0)
    np.testing.assert_array_equal(gg.hessian(f)(x), np.zeros((2, 2)))


def test_control_flow_and_indices_follow_values():
    def f(x):
        y = x
        while y.sum() < 10:
            y = y * 2
        return y[int(x[0])] if x[1] > 0 else y[0]

    np.testing.assert_array_equal(gg.grad(f)(np.array([1.0, 2.0])), [0.0, 4.0])


def test_errors_say_what_was_got_and_what_to_do():
    with pytest.raises(TypeError, match="scalar"):
        gg.grad(lambda x: x)(np.ones(3))
    with pytest.raises(TypeError, match="scalar"):
        gg.grad(lambda x: (gg.sum(x), 1))(np.ones(3))
    with pytest.raises(TypeError, match="int64"):
        gg.grad(lambda x: gg.sum(x))(np.arange(3))
    with pytest.raises(ValueError, match="shape"):
        gg.jvp(lambda x: x, (np.ones(3),), (np.ones(2),))
    with pytest.raises(ValueError, match="structure"):
        gg.jvp(lambda x: x["a"], ({"a": np.ones(3)},), ({"b": np.ones(3)},))
    with pytest.raises(ValueError, match="structure"):
        gg.vjp(lambda x: x, np.ones(3))[1]([np.ones(3)])
    with pytest.raises(TypeError, match="stop_gradient"):
        gg.grad(lambda x: float(x))(2.0)
    with pytest.raises(TypeError, match="stop_gradient"):
        gg.grad(lambda x: gg.sum(x.numpy()))(np.ones(2))


def test_a_gradient_that_is_all_that_is_left_of_an_array_is_not_copied() -> None:
    """The residual of cross entropy is the gradient of logits; it is copied only where the graph goes on holding it."""
    x, labels = gg.tensor(np.zeros((3, 4)), requires_grad=True), np.array([0, 1, 2])
    expected = (np.full((3, 4), 0.25) - np.eye(3, 4)) / 3
    gg.nn.functional.cross_entropy(x, labels).backward()
    assert x.grad.data.base is not None
    loss = gg.nn.functional.cross_entropy(x, labels)
    for count in (2, 3):
        loss.backward(retain_graph=True)
        np.testing.assert_allclose(x.grad.data, count * expected)
    x.grad = None
    for count in (1, 2):
        loss.backward(retain_graph=True)
        assert x.grad.data.base is None
        np.testing.assert_allclose(x.grad.data, count * expected)
    np.testing.assert_allclose(gg.autograd.grad(loss, x)[0].data, expected)


@pytest.mark.parametrize("f", [lambda x: x, lambda x: (x + 1, x), lambda x: gg.reshape(x, (3, 1))])
def test_tangents_that_come_out_are_not_those_that_went_in(f) -> None:
    """Nor each other: who damps a Hessian-vector product by ``out += c * t`` must not change t."""
    x, t = np.arange(3.0), np.ones(3)
    for out in (gg.jvp(f, (x,), (t,))[1], gg.linearize(f, x)[1](t)):
        parts = out if type(out) is tuple else (out,)
        for part in parts:
            part += 1
        np.testing.assert_array_equal(t, 1)
        assert all((part == 2).all() for part in parts)
