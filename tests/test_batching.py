"""vmap: axes, nests, every nesting with the other transforms, what it refuses, and errors. The rules of single operations are walked over in test_registry."""

import operator
import threading
from typing import NamedTuple

import numpy as np
import pytest
from batched import check, host
from numpy.testing import assert_allclose, assert_array_equal

import gpugrad as gg
from gpugrad.tape import BatchedError, state

RNG = np.random.default_rng(0)
X = RNG.normal(size=(5, 3))
W = RNG.normal(size=(3, 4))
PARAMS = {"w": W, "b": [RNG.normal(size=4), None]}


def net(p, x):
    return gg.tanh(x @ p["w"] + p["b"][0])


def loss(p, x, y):
    return gg.mean((net(p, x) - y) ** 2)


# ------------------------------------------------------------------------------------------------- axes and nests


@pytest.mark.parametrize("in_axis", [0, 1, 2, -1, -2, -3, np.int64(1)])
@pytest.mark.parametrize("out_axis", [0, 1, 2, -1, -2, -3])
def test_axes_of_arguments_and_results(in_axis, out_axis, put):
    x = RNG.normal(size=(2, 3, 4))
    y = gg.vmap(lambda a: gg.cumsum(gg.sin(a), axis=-1), in_axis, out_axis)(put(x))
    expected = np.cumsum(np.sin(np.moveaxis(x, in_axis, 0)), axis=-1)
    assert_allclose(host(y), np.moveaxis(expected, 0, out_axis), rtol=1e-12)


class Pair(NamedTuple):
    first: object
    second: object


def test_axes_are_a_nest_that_begins_like_the_arguments():
    p = {"w": np.stack([W] * 5, -1), "b": [RNG.normal(size=(4, 5)), None]}
    x = Pair(X, RNG.normal(size=(2, 5, 3)))
    f = lambda p, x, k: {"out": (net(p, x.first), x.second[k]), "none": None}
    expected = [f({"w": p["w"][..., i], "b": [p["b"][0][:, i], None]}, Pair(X[i], x.second[:, i]), 1) for i in range(5)]
    for axes in (({"w": 2, "b": -1}, Pair(0, 1), None), [{"w": -1, "b": [1, None]}, (0, 1), None]):
        y = gg.vmap(f, axes, {"out": (0, 1), "none": None})(p, x, 1)
        assert y["none"] is None
        assert_allclose(y["out"][0], [e["out"][0] for e in expected])
        assert_allclose(y["out"][1], np.stack([e["out"][1] for e in expected], 1))
    y = gg.vmap(f, axes, 1)(p, x, 0)
    assert y["out"][0].shape == (4, 5)


def test_the_same_for_all_examples():
    y, constant, number, none = gg.vmap(lambda x, w: (x @ w, w, 2.0, None), (0, None))(X, W)
    assert_allclose(y, X @ W)
    assert_array_equal(constant, np.stack([W] * 5))
    assert_array_equal(number, np.full(5, 2.0))
    assert none is None
    y, constant = gg.vmap(lambda x, w: (x @ w, w), (0, None), (1, None))(X, W)
    assert_allclose(y, (X @ W).T)
    assert_array_equal(constant, W)


def test_results_share_no_memory():
    """With an argument, with each other, or with a broadcast: all may be written into."""
    a, b, c = gg.vmap(lambda x: (x, x, W))(X)
    before = X.copy()
    for y in (a, b, c):
        y += 1
    assert_array_equal(X, before)
    assert_array_equal(a, X + 1)
    assert_array_equal(c, np.stack([W + 1] * 5))


def test_keyword_arguments_are_shared():
    y = gg.vmap(lambda x, *, scale, more: x * scale + more["b"])(X, scale=np.arange(3.0), more={"b": 1.0})
    assert_allclose(y, X * np.arange(3.0) + 1)


def test_plain_in_plain_out_and_tensors_in_tensors_out():
    f = gg.vmap(lambda x: (x * 2, 1.0))
    assert all(type(y) is np.ndarray for y in f(X))
    assert all(type(y) is gg.Tensor and y.node is None for y in f(gg.tensor(X)))


@pytest.mark.parametrize("size", [0, 1])
def test_no_example_and_one(size, put):
    x = put(X[:size])
    per_example = gg.vmap(lambda x: (gg.grad(loss, 0)({"w": put(W), "b": [put(W[0]), None]}, x, put(W[1])), net(PARAMS | {"w": put(W), "b": [put(W[0])]}, x)))
    g, y = per_example(x)
    assert g["w"].shape == (size, 3, 4) and g["b"][0].shape == (size, 4) and y.shape == (size, 4)
    assert gg.vmap(gg.hessian(lambda x: gg.sum(x**3)))(x).shape == (size, 3, 3)
    assert gg.vmap(gg.vmap(lambda a: a * 2))(x).shape == (size, 3)
    assert gg.vmap(lambda a: gg.vmap(lambda b: b * gg.sum(a))(a[:0]))(x).shape == (size, 0)
    assert gg.vmap(lambda a: a, chunk_size=3)(x).shape == (size, 3)


@pytest.mark.parametrize("chunk_size", [1, 2, 3, 5, 100])
def test_chunks(chunk_size):
    ran = []
    f = lambda p, x: (ran.append(1) or net(p, x), x.sum(), p["w"], p["b"])
    y = gg.vmap(f, (None, 0), (1, 0, None, 0), chunk_size=chunk_size)(PARAMS, X)
    assert len(ran) == -(-5 // chunk_size)
    assert_allclose(y[0], net(PARAMS, X).T)
    assert_allclose(y[1], X.sum(1))
    assert_array_equal(y[2], W)
    assert y[3][0].shape == (5, 4) and y[3][1] is None
    tracked = gg.grad(lambda x: gg.sum(gg.vmap(net, (None, 0), -1, chunk_size=chunk_size)(PARAMS, x) ** 2))(X)
    assert_allclose(tracked, gg.grad(lambda x: gg.sum(gg.vmap(net, (None, 0), -1)(PARAMS, x) ** 2))(X))


def test_float32_stays_float32(put):
    p = gg.tree.map_leaves(lambda a: put(a.astype(np.float32)), PARAMS)
    g = gg.vmap(gg.grad(loss), (None, 0, None))(p, put(X.astype(np.float32)), put(W[0].astype(np.float32)))
    assert {leaf.dtype for leaf in gg.tree.flatten(g)[0]} == {np.dtype(np.float32)}
    h = gg.vmap(lambda x: 2.0 * x + 1 - x / 3)(put(X[:, 0].astype(np.float32)))
    assert h.dtype == np.float32


def test_shape_and_its_like_are_those_of_one_example():
    seen = []
    gg.vmap(lambda x: seen.append((x.shape, x.ndim, x.size, len(x), x.nbytes, x.T.shape, np.shape(x), gg.zeros_like(x).shape)) or x, 1)(
        RNG.normal(size=(3, 5, 2))
    )
    assert seen == [((3, 2), 2, 6, 3, 48, (2, 3), (3, 2), (3, 2))]


def test_repr_says_of_how_many_examples():
    shown = []
    gg.vmap(lambda x: shown.append(repr(x)) or x)(np.arange(2.0))
    assert shown == ["tensor([0., 1.], each of 2 examples)"]


def test_levels_are_restored_when_f_raises():
    before = state.leaf_level
    with pytest.raises(ZeroDivisionError):
        gg.vmap(lambda x: 1 / 0)(X)
    assert state.leaf_level == before


def test_in_threads_at_once():
    found = {}

    def work(k):
        for _ in range(20):
            found[k] = gg.vmap(gg.grad(lambda x: gg.sum(gg.sin(x * k))))(X)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(1, 4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    for k, g in found.items():
        assert_allclose(g, k * np.cos(X * k))


# ------------------------------------------------------------------------------------------------- with the other transforms

Y = RNG.normal(size=(5, 4))
V = {"w": RNG.normal(size=(3, 4)), "b": [RNG.normal(size=4), None]}


def scalar(x):
    return gg.sum(gg.sin(x) * gg.cumsum(x) ** 2) + gg.prod(x)


def vector(x):
    return gg.stack([x[0] * x[1], gg.exp(x[2]), gg.sum(x**3), gg.logsumexp(x)])


TRANSFORMED = {
    "grad": gg.grad(scalar),
    "value_and_grad": gg.value_and_grad(scalar),
    "grad with aux": gg.grad(lambda x: (scalar(x), {"y": vector(x)}), has_aux=True),
    "jacobian, reverse": gg.jacobian(vector, mode="reverse"),
    "jacobian, forward": gg.jacobian(vector, mode="forward"),
    "hessian": gg.hessian(scalar),
    "jvp": lambda x: gg.jvp(vector, (x,), (gg.cos(x),)),
    "vjp": lambda x: gg.vjp(vector, x)[1](vector(x) ** 2),
    "linearize": lambda x: gg.linearize(vector, x)[1](gg.cos(x)),
    "hvp": lambda x: gg.hvp(scalar, x, gg.cos(x)),
    "hvp, forward over reverse": lambda x: gg.hvp(scalar, x, gg.cos(x), mode="forward-over-reverse"),
    "hvp, reverse over reverse": lambda x: gg.hvp(scalar, x, gg.cos(x), mode="reverse-over-reverse"),
    "third derivative": lambda x: gg.grad(lambda x: gg.sum(gg.hvp(scalar, x, gg.stop_gradient(x)) * vector(x)[:3]))(x),
    "vmap of a pullback": lambda x: gg.vmap(gg.vjp(vector, x)[1])(np.eye(4)),
    "vmap of a push": lambda x: gg.vmap(gg.linearize(vector, x)[1])(np.eye(3)),
    "vmap of hvp": lambda x: gg.vmap(lambda v: gg.hvp(scalar, x, v))(np.eye(3)),
    "vmap of jvp of grad": lambda x: gg.vmap(lambda v: gg.jvp(gg.grad(scalar), (x,), (v,))[1])(np.eye(3)),
}
transformed = pytest.mark.parametrize("name", TRANSFORMED)


@transformed
def test_inside_vmap(name):
    check(TRANSFORMED[name], X)


@transformed
def test_inside_vmap_of_vmap(name):
    f = TRANSFORMED[name]
    x = RNG.normal(size=(3, 2, 4))  # an example's axis between those of the examples
    got = gg.vmap(gg.vmap(f, 1), 2)(x)
    for i in range(4):
        for j in range(2):
            for a, b in zip(gg.tree.flatten(got)[0], gg.tree.flatten(f(x[:, j, i]))[0], strict=True):
                assert_allclose(a[i, j], b, rtol=1e-10, atol=1e-12)


@transformed
def test_differentiated_from_outside(name):
    """grad, jvp and a Hessian-vector product of vmap against those of a loop."""
    f = TRANSFORMED[name]
    total = lambda ys: sum(gg.sum(gg.sin(y)) for y in gg.tree.flatten(ys)[0])
    whole = lambda x: total(gg.vmap(f)(x))
    looped = lambda x: sum(total(f(x[i])) for i in range(3))
    x, t = X[:3], RNG.normal(size=(3, 3))
    assert_allclose(gg.grad(whole)(x), gg.grad(looped)(x), rtol=1e-9, atol=1e-10)
    for a, b in zip(gg.jvp(whole, (x,), (t,)), gg.jvp(looped, (x,), (t,)), strict=True):
        assert_allclose(a, b, rtol=1e-9)
    assert_allclose(gg.hvp(whole, x, t), gg.hvp(looped, x, t), rtol=1e-8, atol=1e-8)


def test_per_example_gradients_sum_to_the_gradient(put):
    p, x, y = gg.tree.map_leaves(put, (PARAMS, X, Y))
    g = gg.vmap(gg.grad(loss), (None, 0, 0))(p, x, y)
    whole = gg.grad(lambda p: gg.mean((net(p, x) - y) ** 2))(p)
    for a, b in zip(gg.tree.flatten(g)[0], gg.tree.flatten(whole)[0], strict=True):
        assert a.shape == (5, *b.shape)
        assert_allclose(host(a).mean(0), host(b), rtol=1e-12)


def test_ensembles():
    """Parameters, data, or both differ."""
    many = {"w": RNG.normal(size=(5, 3, 4)), "b": [RNG.normal(size=(5, 4)), None]}
    check(net, many, X)
    check(net, many, X, axes=(0, None))
    check(gg.grad(loss), many, X, Y, axes=(0, None, 0))
    check(lambda p, x: gg.hvp(lambda p: gg.sum(net(p, x) ** 2), p, V), many, X)
    every = gg.vmap(gg.vmap(net, (None, 0)), (0, None))(many, X)
    assert_allclose(every[3, 2], net({"w": many["w"][3], "b": [many["b"][0][3]]}, X[2]))


def test_blocks_of_hessian_vector_products(put):
    """What does not depend on the vectors is computed once, not once for each of them."""
    p, x, y, v = gg.tree.map_leaves(put, (PARAMS, X, Y, gg.tree.map_leaves(lambda a: np.stack([a, 2 * a, -a]), V)))
    ran = []
    f = lambda p: ran.append(1) or loss(p, x, y)
    for mode in ("forward-over-reverse", "reverse-over-reverse", "reverse-over-forward"):
        ran.clear()
        block = gg.vmap(lambda v: gg.hvp(f, p, v, mode=mode))(v)  # noqa: B023
        assert len(ran) == 1
        one = gg.hvp(f, p, gg.tree.map_leaves(put, V), mode=mode)
        for a, b in zip(gg.tree.flatten(block)[0], gg.tree.flatten(one)[0], strict=True):
            assert_allclose(host(a), np.stack([host(b), 2 * host(b), -host(b)]), rtol=1e-12, atol=1e-14)


def test_pullback_and_push_over_a_basis_after_the_run():
    y, pullback = gg.vjp(vector, X[0])
    (rows,) = gg.vmap(pullback)(np.eye(4))
    _, push = gg.linearize(vector, X[0])
    columns = gg.vmap(push, out_axes=1)(np.eye(3))
    assert_allclose(rows, columns, rtol=1e-12)
    assert_allclose(rows, gg.jacobian(vector)(X[0]), rtol=1e-12)
    ys, pullback = gg.vjp(gg.vmap(vector), X)
    assert_allclose(gg.vmap(pullback)(np.eye(20).reshape(20, 5, 4))[0].reshape(5, 4, 5, 3)[2, :, 2], gg.jacobian(vector)(X[2]), rtol=1e-12)


def test_closures_over_other_levels():
    """An inner vmap sees an outer example, an outer tangent and an outer leaf."""
    f = lambda a: gg.vmap(lambda b: gg.sum(gg.sin(a * b)))(X)
    check(f, X)
    check(gg.jacobian(f), X)
    t = gg.tensor(X[0], requires_grad=True)
    gg.sum(gg.vmap(lambda a: gg.vmap(lambda b: gg.sum(a * b * t))(X))(X)).backward()
    assert_allclose(t.grad.numpy(), X.sum(0) ** 2)
    g = gg.grad(lambda s: gg.sum(gg.vmap(lambda x: gg.grad(lambda z: gg.sum(gg.sin(s * z)))(x))(X)))(2.0)
    assert_allclose(g, np.sum(np.cos(2 * X) - 2 * X * np.sin(2 * X)))


def test_neural_tangent_kernel():
    """Forward mode on reverse mode, over a basis, over two sets of inputs (pytorch/functorch#417)."""
    f = lambda p, x: net(p, x)

    def kernel(a, b):
        y, pullback = gg.vjp(lambda p: f(p, a), PARAMS)
        return gg.vmap(lambda u: gg.jvp(lambda p: f(p, b), (PARAMS,), pullback(u))[1])(np.eye(4))

    got = gg.vmap(gg.vmap(kernel, (None, 0)), (0, None))(X[:2], X)
    jacobians = [np.concatenate([j.reshape(4, -1) for j in gg.tree.flatten(gg.jacobian(lambda p, x=x: f(p, x))(PARAMS))[0]], 1) for x in X]
    assert_allclose(got, [[jacobians[i] @ jacobians[j].T for j in range(5)] for i in range(2)], rtol=1e-12)


# ------------------------------------------------------------------------------------------------- the tape, and modes


def test_leaves_made_inside():
    def by_backward(x):
        leaf = x.detach().requires_grad_()
        gg.sum(leaf**3).backward()
        return leaf.grad

    def by_grad(x):
        leaf = x.detach().requires_grad_()
        return gg.autograd.grad(gg.sum(leaf**3), leaf)[0]

    def twice(x):
        leaf = x.requires_grad_()
        (g,) = gg.autograd.grad(gg.sum(leaf**3), leaf, create_graph=True)
        return gg.autograd.grad(gg.sum(g * g), leaf)[0]

    for f, expected in ((by_backward, 3 * X**2), (by_grad, 3 * X**2), (twice, 36 * X**3)):
        assert_allclose(gg.vmap(f)(X), expected)
        assert_allclose(gg.vmap(gg.vmap(f))(np.stack([X, X]))[1], expected)


def test_leaves_made_outside():
    w = gg.tensor(W, requires_grad=True)
    y = gg.vmap(lambda x: gg.sum(gg.tanh(x @ w)))(X)
    assert y.requires_grad
    y.backward(gg.tensor(np.arange(5.0)))
    assert_allclose(w.grad.numpy(), gg.grad(lambda w: gg.sum(np.arange(5.0) * gg.sum(gg.tanh(X @ w), 1)))(W))
    with pytest.raises(RuntimeError, match=r"stands for many examples"):
        gg.vmap(lambda x: gg.sum(x @ w).backward())(X)


def test_constants_and_grad_modes():
    assert_allclose(gg.vmap(gg.grad(lambda x: gg.sum(gg.stop_gradient(x) * x)))(X), X)
    assert_allclose(gg.vmap(gg.grad(lambda x: gg.sum(x.detach() * x)))(X), X)

    def half(x):
        with gg.no_grad():
            a = gg.sum(x)
            with gg.enable_grad():
                b = gg.sum(x * x)
            inner = gg.grad(lambda z: gg.sum(z**3))(x)
        return a * gg.sum(x) + b + gg.sum(inner)

    assert_allclose(gg.vmap(gg.grad(half))(X), X.sum(1, keepdims=True) + 2 * X)
    with gg.no_grad():
        assert_allclose(gg.vmap(gg.grad(lambda x: gg.sum(x**2)))(X), 2 * X)
        t = gg.tensor(X, requires_grad=True)
        assert not gg.vmap(lambda x: x * 2)(t).requires_grad
    assert gg.vmap(lambda x: x * 2)(t).requires_grad


def test_inputs_without_influence_and_integers():
    k = np.arange(5)
    assert_array_equal(gg.vmap(gg.grad(lambda x, k: gg.sum(X[0] * k)), (0, 0))(X, k), np.zeros((5, 3)))
    assert_array_equal(gg.vmap(gg.grad(lambda x: 1.0))(X), np.zeros((5, 3)))
    assert_array_equal(gg.vmap(lambda x, k: gg.jvp(lambda x: k * 2, (x,), (x,))[1])(X, k), np.zeros(5))
    assert_allclose(gg.vmap(gg.grad(lambda x, k: gg.sum(x**k)), (0, 0))(X, k), k[:, None] * X ** np.maximum(k - 1, 0)[:, None])
    with pytest.raises(TypeError, match="int64"):
        gg.vmap(gg.grad(lambda k: k * 2.0))(k)
    y, t = gg.jvp(lambda x: gg.vmap(lambda a: (gg.argmax(a), gg.max(a)))(x), (X,), (X,))
    assert_array_equal(y[0], X.argmax(1))
    assert_allclose(t[1], X.max(1))
    assert_array_equal(t[0], np.zeros(5))


# ------------------------------------------------------------------------------------------------- what is refused

VALUES = {
    "bool": lambda x: x if x[0] > 0 else -x,
    "while": lambda x: next(iter([x]) if not x[0] > 0 else iter([])),
    "float": lambda x: float(x[0]),
    "complex": lambda x: complex(x[0]),
    "int": lambda x: int(x[0]),
    "index": lambda x: [1, 2, 3][x[0].astype(int)],
    "range": lambda x: range(x[0].astype(int)),
    "item": lambda x: x[0].item(),
    "tolist": lambda x: x.tolist(),
    "numpy": lambda x: x.numpy(),
    "np.asarray": lambda x: np.asarray(x),
    "data": lambda x: x.data,
    "format": lambda x: f"{x[0]:.3f}",
    "max": lambda x: max(x[0], x[1]),
    "in": lambda x: 1.0 in x,
    "mask": lambda x: x[x > 0],
    "mask of what is shared": lambda x: gg.asarray(W)[x > 0],
    "mask of a NumPy array": lambda x: W[:, x > 0],
    "set by mask": lambda x: x.at[x > 0].set(0.0),
    "nonzero": lambda x: gg.nonzero(x),
    "where without branches": lambda x: gg.where(x > 0),
    "np.fft": lambda x: np.fft.fft(x),
    "zeros": lambda x: gg.zeros(x[0].astype(int)),
    "tensor": lambda x: gg.tensor(x),
    "deepcopy": lambda x: __import__("copy").deepcopy(x),
    "pickle": lambda x: __import__("pickle").dumps(x),
    "reshape": lambda x: gg.reshape(W, (x[0].astype(int), 4)),
}


@pytest.mark.parametrize("name", VALUES)
def test_values_of_what_stands_for_many_are_refused(name):
    with pytest.raises(BatchedError, match=r"inside gg\.vmap"):
        gg.vmap(VALUES[name])(X)
    with pytest.raises((TypeError, RuntimeError)):
        gg.vmap(lambda x: gg.grad(lambda z: gg.sum(z) + 0 * gg.sum(gg.asarray(VALUES[name](z))))(x))(X)


def written(t, v):
    t[0] = v
    return t


IN_PLACE = {
    "t[i] = v": lambda x: written(x, 1.0),
    "t[i] = v of an example": lambda x: written(gg.zeros(3), x[0]),
    "zero_": lambda x: x.zero_(),
    "copy_": lambda x: gg.zeros(3).copy_(x),
    "data": lambda x: setattr(gg.zeros(3), "data", x),
    "np.add with out": lambda x: np.add(x, 1.0, out=np.zeros(3)),
    "np.copyto": lambda x: np.copyto(np.zeros(3), x),
}


@pytest.mark.parametrize("name", IN_PLACE)
def test_writing_in_place_is_refused(name):
    with pytest.raises((RuntimeError, TypeError), match=r"inside gg\.vmap"):
        gg.vmap(IN_PLACE[name])(X)
    assert_allclose(gg.vmap(lambda x: operator.iadd(x, 1.0))(X), X + 1)  # which rebinds


NO_PLACE = (
    (lambda: gg.vmap(lambda x: x, 3)(X), "argument 0 has shape (5, 3), which has no axis 3 for the examples"),
    (lambda: gg.vmap(lambda p: p["w"], ({"w": -4},))({"w": W}), "argument 0['w'] has shape (3, 4), which has no axis -4"),
    (lambda: gg.vmap(lambda x: x)(1.0), "argument 0 has shape (), which has no axis 0"),
    (lambda: gg.vmap(lambda x, y: x)(X, {"w": [W]}), "different numbers of examples: 5 in argument 0, 3 in argument 1['w'][0]"),
    (lambda: gg.vmap(lambda x: x, None)(X), "no argument has an axis of examples"),
    (lambda: gg.vmap(lambda: 1.0)(), "no argument has an axis of examples"),
    (lambda: gg.vmap(lambda x, k=1: x * k)(k=X), "no argument has an axis of examples"),
    (lambda: gg.vmap(lambda x: x, (0, 0))(X), "in_axes has 2 entries, and the function was called with 1 arguments"),
    (lambda: gg.vmap(lambda p: p, ({"v": 0},))({"w": W}), "in_axes[0] is {'v': 0}, which does not fit {'w': *}"),
    (lambda: gg.vmap(lambda x: x, "0")(X), "in_axes is '0'"),
    (lambda: gg.vmap(lambda x: x, (0.0,))(X), "in_axes[0] is 0.0"),
    (lambda: gg.vmap(lambda x: x, True)(X), "in_axes is True"),
    (lambda: gg.vmap(lambda x: {"a": x}, out_axes=2)(X), "out_axes is 2 for result['a'], which has 2 axes with that of the examples: expected -2 to 1"),
    (lambda: gg.vmap(lambda x: (W[0], x), out_axes=(0, None))(X), "out_axes is None for result[1], which depends on the examples"),
    (lambda: gg.vmap(lambda x: (x, x), out_axes=(0, 0, 0))(X), "out_axes is (0, 0, 0), which does not fit (*, *)"),
    (lambda: gg.vmap(lambda x: x, chunk_size=0), "chunk_size must be at least 1, got 0"),
)


@pytest.mark.parametrize("i", range(len(NO_PLACE)))
def test_errors_name_the_argument(i):
    call, words = NO_PLACE[i]
    with pytest.raises(ValueError) as error:
        call()
    assert words in str(error.value)


def test_other_errors():
    with pytest.raises(TypeError, match=r"chunk_size must be an integer, got 1\.5"):
        gg.vmap(lambda x: x, chunk_size=1.5)
    with pytest.raises(TypeError, match="output has shape"):
        gg.vmap(gg.grad(lambda x: x))(X)
    with pytest.raises(RuntimeError, match="stands for many examples"):
        gg.vmap(lambda x: gg.sum(x).backward())(X)


# ------------------------------------------------------------------------------------------------- what went wrong elsewhere


def test_indices_from_sorting(put):
    """jax-ml/jax#275: an index that depends on the example; ml-explore/mlx#4332: axis -1 is the example's, wherever the examples lie."""
    check(lambda x: x[gg.argsort(x)], put(X))
    x = RNG.normal(size=(4, 2, 3))
    for axis in (-1, -2, 0):
        for f in (gg.sort, gg.argsort, gg.cumsum, gg.cumprod, gg.argmax, gg.flip, gg.max, gg.softmax, gg.logsumexp):
            check(lambda a: f(a, axis=axis), put(x), axes=(1,))  # noqa: B023


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_scatter_wherever_the_examples_lie(axis, put):
    """ml-explore/mlx#4321, jax-ml/jax#779: of the array, the index and the values any may depend on the example."""
    a, v, i = RNG.normal(size=(3, 3, 3)), RNG.normal(size=(3, 3)), np.array([2, 0, 2])
    many = np.stack([i, i[::-1], i * 0])
    for index, axes in ((i, (axis, None, None)), (many, (axis, 0, None)), (many, (None, 0, None)), (i, (None, None, axis))):
        updates = RNG.normal(size=(3, 3, 3)) if axes[2] is not None else v
        f = lambda a, i, v: (a.at[i].add(v), a.at[:, i].add(v), a.at[i].set(a[i] * 0 + 1.0))
        array = a if axes[0] is not None else a[0]
        check(lambda a, i, v: f(gg.asarray(a), i, v), put(array), put(index), put(updates), axes=axes)  # noqa: B023
        check(lambda a, i, v: gg.grad(lambda a, v: gg.sum(gg.sin(f(gg.asarray(a), i, v)[0])), (0, 1))(a, v), put(array), put(index), put(updates), axes=axes)  # noqa: B023


def test_index_of_an_example_out_of_range(put, device):
    """jax-ml/jax#34228: it is an error here, also for one of many."""
    f = lambda x, i: gg.asarray(x)[i]
    check(gg.jacobian(f), put(X[0]), put(np.array([0, -1, 2])), axes=(None, 0))
    if device == "cpu":
        with pytest.raises(IndexError, match="index 3"):
            gg.vmap(f, (None, 0))(put(X[0]), put(np.array([0, 3])))


def test_examples_without_axes():
    """pytorch/pytorch#100410 and its like: an example of no axes stays so."""
    x = X[:, 0]
    for f in (
        gg.sum,
        gg.mean,
        gg.max,
        gg.ravel,
        lambda a: gg.reshape(a, (1, 1)),
        lambda a: a[None],
        lambda a: a[...],
        gg.transpose,
        gg.squeeze,
        lambda a: gg.broadcast_to(a, (2, 3)),
    ):
        check(f, x)
        check(gg.jacobian(f), x)
    check(lambda a, b: gg.stack([a, b, a]), x, X[:, 1])
    check(lambda a, b: gg.concatenate([a[None], b]), x, X)
    check(lambda a, b: gg.where(a > 0, b, a), x, X)
    check(lambda a, b: a * b + b / (a + 9), x, X)
    check(lambda a, b: gg.outer(a, b), x, X)


def test_axes_of_one_example_are_checked():
    """pytorch/pytorch#99187: the error is that of one example."""
    check(gg.jacobian(lambda x: x / gg.linalg.norm(x, axis=-1, keepdims=True)), X)
    with pytest.raises(ValueError, match=r"axis 1 is out of bounds"):
        gg.vmap(lambda x: gg.sum(x, axis=1))(X)
    with pytest.raises(ValueError):
        gg.vmap(lambda x: x @ gg.ones((5, 2)))(X)


def test_what_broadcasts_is_lined_up_from_the_back():
    """An example of fewer axes than what it meets, on either side, in elementwise operations, products and choices."""
    big = RNG.normal(size=(2, 4, 3))
    for f in (
        lambda x, y: x * y,
        lambda x, y: gg.maximum(y, x),
        lambda x, y: gg.where(y > 0, x, y),
        lambda x, y: gg.arctan2(x, y),
        lambda x, y: y @ x,
        lambda x, y: gg.clip(y, x - 1, x + 1),
    ):
        check(f, X, big, axes=(0, None))
        check(f, X[0], np.stack([big, 2 * big], 1), axes=(None, 1))
        check(lambda x, y: gg.grad(lambda x, y: gg.sum(gg.sin(f(x, y))), (0, 1))(x, y), X, big, axes=(0, None))  # noqa: B023


def test_loops_over_an_example():
    check(lambda x: sum(x), X)
    check(lambda x: gg.stack([a * len(x) for a in x][::-1]), X)
    check(lambda x: gg.stack(gg.split(x, 3)), X)

    def newton(a):  # a loop of fixed length with a choice in it
        x = a * 0 + 1.0
        for _ in range(30):
            step = (x * x - a) / (2 * x)
            x = gg.where(gg.abs(step) > 1e-14, x - step, x)
        return x

    a = np.abs(X[:, 0]) + 0.1
    assert_allclose(gg.vmap(newton)(a), np.sqrt(a))
    assert_allclose(gg.vmap(gg.grad(newton))(a), 0.5 / np.sqrt(a))


def test_results_that_outlive_their_vmap():
    """A Tensor that leaks is an example of a vmap that is over; it is not taken for one of a later vmap."""
    leaked = []
    gg.vmap(lambda x: leaked.append(x) or x)(X)
    y = gg.vmap(lambda x: x + 1)(X)
    assert_allclose(y, X + 1)
    assert leaked[0].shape == (3,)
    with pytest.raises(BatchedError):
        leaked[0].numpy()


def test_indices_that_repeat_in_gradients():
    """pytorch/pytorch#188084: sums into what was broadcast; pytorch/functorch#381: an example has no axis of examples to index."""
    weight, chosen = np.array([1.0, -1.0, 2.0]), np.array([0, 2, 0])
    f = lambda x: gg.sum(gg.stack([x[..., k] for k in range(3)], axis=-1)[..., chosen] * weight, axis=-1)
    assert_allclose(gg.vmap(gg.grad(f))(X), np.broadcast_to([3.0, 0.0, -1.0], (5, 3)))
    assert_allclose(gg.grad(lambda x: gg.sum(gg.vmap(f)(x)))(X), np.broadcast_to([3.0, 0.0, -1.0], (5, 3)))
    with pytest.raises(IndexError):
        gg.vmap(lambda x: x[:, 0])(X)


@pytest.mark.parametrize("n", [1, 3, 130])
def test_systems_of_equations(n):
    """jax-ml/jax#4773, #2138: of the matrix and the right side either may be shared, large matrices too."""
    a, b = RNG.normal(size=(4, n, n)) + 3 * np.sqrt(n) * np.eye(n), RNG.normal(size=(4, n))
    for axes, args in (((0, 0), (a, b)), ((None, 0), (a[0], b)), ((0, None), (a, b[0]))):
        check(gg.linalg.solve, *args, axes=axes, rtol=1e-9)
        check(gg.grad(lambda a, b: gg.sum(gg.sin(gg.linalg.solve(a, b))), (0, 1)), *args, axes=axes, rtol=1e-8)
    if n > 1:
        a[2] = 1.0  # of one example alone
        with pytest.raises(np.linalg.LinAlgError):
            gg.vmap(gg.linalg.solve)(a, b)
