"""Hessian-vector products: modes, models, nests, blocks, many at one point, third derivatives, what is computed, memory, errors."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

import gpugrad as gg
from gpugrad import backend, blas, nn, pool, products, tape

F = nn.functional
RNG = np.random.default_rng(0)
X, LABELS = RNG.normal(size=(7, 5)), np.array([0, 2, 1, 2, 0, 1, 1])
ACTIVATIONS = ("none", "relu", "tanh", "gelu", "silu", "sigmoid")


def network(sizes: tuple[int, ...], dtype: Any = np.float64) -> dict[str, Any]:
    rng = np.random.default_rng(1)
    shapes = {f"{i}.{name}": shape for i, (m, n) in enumerate(pairwise(sizes)) for name, shape in (("weight", (m, n)), ("bias", (n,)))}
    return {name: (rng.normal(size=shape) * 0.5).astype(dtype) for name, shape in shapes.items()}


def outputs(p: Any, x: Any, activation: str) -> Any:
    layers = len(p) // 2
    for i in range(layers):
        x = F.linear(x, p[f"{i}.weight"], p[f"{i}.bias"], activation=activation if i + 1 < layers else "none")
    return x


def classifier(activation: str, x: Any = X, **options: Any) -> Callable[[Any], Any]:
    return lambda p: F.cross_entropy(outputs(p, x, activation), LABELS, **options)


def like(p: Any, seed: int = 2) -> Any:
    rng = np.random.default_rng(seed)
    return gg.tree.map_leaves(lambda v: rng.normal(size=v.shape).astype(v.dtype), p)


def leaves(nest: Any) -> list[Any]:
    return gg.tree.flatten(nest)[0]


def assert_equal(a: Any, b: Any, rtol: float = 1e-10, atol: float = 1e-12) -> None:
    assert gg.tree.flatten(a)[1] == gg.tree.flatten(b)[1]
    for v, w in zip(leaves(a), leaves(b), strict=True):
        assert v.dtype == w.dtype and v.shape == w.shape
        np.testing.assert_allclose(backend.to_device(v, "cpu"), backend.to_device(w, "cpu"), rtol=rtol, atol=atol)


def by_differences(f: Callable[[Any], Any], p: Any, v: Any, e: float = 1e-6) -> Any:
    shifted = [gg.grad(f)(gg.tree.unflatten(gg.tree.flatten(p)[1], [a + s * t for a, t in zip(leaves(p), leaves(v), strict=True)])) for s in (e, -e)]
    return gg.tree.unflatten(gg.tree.flatten(p)[1], [(a - b) / (2 * e) for a, b in zip(*map(leaves, shifted), strict=True)])


CASES: dict[str, tuple[Callable[[Any], Any], Any]] = {
    **{f"two layers, {act}": (classifier(act), network((5, 4, 3))) for act in ACTIVATIONS},
    "three layers": (classifier("relu"), network((5, 4, 4, 3))),
    "one layer": (classifier("none"), network((5, 3))),
    "smoothing and weights": (classifier("relu", label_smoothing=0.1, weight=np.array([1.0, 2.0, 0.5])), network((5, 4, 3))),
    "ignored labels": (classifier("relu", ignore_index=1, reduction="sum"), network((5, 4, 3))),
    "losses one by one": (lambda p: gg.sum(gg.sin(classifier("relu", reduction="none")(p))), network((5, 4, 3))),
    "squared error": (lambda p: gg.mean((outputs(p, X, "tanh") - 1.0) ** 2), network((5, 4, 2))),
    "a norm in between": (lambda p: F.cross_entropy(gg.nn.functional.layer_norm(outputs(p, X, "relu"), (3,)), LABELS), network((5, 4, 3))),
    "weights used twice": (
        lambda p: F.cross_entropy(F.linear(F.linear(X, p["w"], p["b"], activation="relu"), p["w"], p["b"]), LABELS),
        {"w": RNG.normal(size=(5, 5)), "b": RNG.normal(size=5)},
    ),
    "nests": (lambda t: gg.sum(gg.sin(t[0] @ t[1]["k"]) * t[2]), [X, {"k": RNG.normal(size=(5, 2)), "nothing": None}, RNG.normal(size=2)]),
    "a number": (lambda x: x**3 * gg.exp(x), np.array(0.7)),
}
every_case = pytest.mark.parametrize("case", CASES)


@every_case
def test_modes_agree_and_are_the_difference_of_gradients(case: str) -> None:
    f, p = CASES[case]
    v = like(p)
    expected = gg.hvp(f, p, v, mode="reverse-over-reverse")
    for mode in products.MODES:
        assert_equal(gg.hvp(f, p, v, mode=mode), expected)
    assert_equal(gg.hvp(f, p, v), gg.hvp(f, p, v, mode="reverse-over-forward"), 0, 0)
    assert_equal(gg.vhp(f, p, v), expected)
    assert_equal(expected, by_differences(f, p, v), 1e-5, 1e-7)


@every_case
def test_value_gradient_and_product_of_one_pass(case: str) -> None:
    f, p = CASES[case]
    v = like(p)
    value, g, product = gg.value_grad_hvp(f, p, v)
    np.testing.assert_allclose(value, f(p), rtol=1e-12)
    assert type(value) is np.ndarray and value.shape == ()
    assert_equal(g, gg.grad(f)(p))
    assert_equal(product, gg.hvp(f, p, v))


@every_case
def test_a_linearized_gradient_gives_many_products(case: str) -> None:
    f, p = CASES[case]
    g, push = gg.linearize(gg.grad(f), p)
    assert_equal(g, gg.grad(f)(p))
    for seed in (2, 3):
        assert_equal(push(like(p, seed)), gg.hvp(f, p, like(p, seed)))


@every_case
def test_blocks_column_by_column(case: str) -> None:
    f, p = CASES[case]
    vs = [like(p, seed) for seed in range(5)]
    structure = gg.tree.flatten(p)[1]
    block = gg.tree.unflatten(structure, [np.stack(parts) for parts in zip(*map(leaves, vs), strict=True)])
    for memory in (products.MEMORY, 1):
        product = gg.block_hvp(f, p, block, memory)
        for i, v in enumerate(vs):
            assert_equal(gg.tree.map_leaves(lambda h: h[i], product), gg.hvp(f, p, v))  # noqa: B023
        assert_equal(product, gg.block_hvp(f, p, block, memory), 0, 0)
    assert_equal(gg.vmap(lambda v: gg.hvp(f, p, v))(block), product)


def test_symmetry_and_the_dense_hessian() -> None:
    f, p = CASES["three layers"]
    flat = np.concatenate([v.ravel() for v in leaves(p)])
    ends = np.cumsum([v.size for v in leaves(p)])[:-1]

    def of_flat(x: Any) -> Any:
        return f({name: gg.reshape(x[start : start + p[name].size], p[name].shape) for name, start in zip(p, [0, *ends], strict=True)})

    H = gg.hessian(of_flat)(flat)
    u, v = RNG.normal(size=(2, flat.size))
    for mode in products.MODES:
        np.testing.assert_allclose(gg.hvp(of_flat, flat, v, mode=mode), H @ v, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(u @ gg.hvp(of_flat, flat, v), v @ gg.hvp(of_flat, flat, u), rtol=1e-12)
    np.testing.assert_allclose(gg.block_hvp(of_flat, flat, np.eye(flat.size)), H, rtol=1e-10, atol=1e-12)


def test_closed_forms() -> None:
    A = RNG.normal(size=(4, 4))
    x, v = RNG.normal(size=(2, 4))
    b = RNG.normal(size=7)
    for mode in products.MODES:
        np.testing.assert_allclose(gg.hvp(lambda x: x @ A @ x, x, v, mode=mode), (A + A.T) @ v, rtol=1e-13)
        np.testing.assert_allclose(
            gg.hvp(lambda w: gg.mean((X @ w - b) ** 2), np.ones(5), np.arange(5.0), mode=mode), 2 / 7 * X.T @ X @ np.arange(5.0), rtol=1e-12
        )
    # softmax regression: H V = X' P(X V) / N, where P(z) = p (z - <p, z>) by row
    W, V = RNG.normal(size=(2, 5, 3))
    p, z = gg.softmax(X @ W), X @ V
    expected = X.T @ (p * (z - (p * z).sum(1, keepdims=True))) / 7
    for product in (gg.hvp(lambda w: F.cross_entropy(X @ w, LABELS), W, V), gg.hvp(lambda w: F.cross_entropy(F.linear(X, w, np.zeros(3)), LABELS), W, V)):
        np.testing.assert_allclose(product, expected, rtol=1e-12)


@pytest.mark.parametrize("mode", products.MODES)
def test_positional_arguments(mode: str) -> None:
    f = lambda w, x: gg.sum(gg.sin(x["a"] @ w))
    w, x = RNG.normal(size=(3, 2)), {"a": RNG.normal(size=(4, 3))}
    dw, dx = RNG.normal(size=(3, 2)), {"a": RNG.normal(size=(4, 3))}
    by_w, by_x = gg.hvp(f, (w, x), (dw, dx), mode=mode)
    assert by_w.shape == w.shape and set(by_x) == {"a"}
    expected = by_differences(lambda t: f(*t), [w, x], [dw, dx])
    assert_equal([by_w, by_x], expected, 1e-5, 1e-7)
    (alone,) = gg.hvp(lambda w: f(w, x), (w,), (dw,), mode=mode)
    assert_equal(alone, gg.hvp(lambda w: f(w, x), w, dw, mode=mode), 0, 0)


@pytest.mark.parametrize("mode", products.MODES)
def test_float32_stays_float32_and_is_near_float64(mode: str) -> None:
    p = network((5, 4, 3))
    narrow = {name: v.astype(np.float32) for name, v in p.items()}
    wide = {name: v.astype(np.float64) for name, v in narrow.items()}
    v = like(narrow)
    product = gg.hvp(classifier("relu", X.astype(np.float32)), narrow, v, mode=mode)
    exact = gg.hvp(classifier("relu", X.astype(np.float32).astype(float)), wide, {name: t.astype(float) for name, t in v.items()}, mode=mode)
    for name, h in product.items():
        assert h.dtype == np.float32
        np.testing.assert_allclose(h, exact[name], rtol=1e-4, atol=1e-5 * np.abs(exact[name]).max())


def test_third_derivatives_are_products_of_products() -> None:
    f, p = CASES["two layers, tanh"]
    u, v = like(p, 2), like(p, 3)
    inner = lambda q: sum(gg.sum(h * t) for h, t in zip(leaves(gg.hvp(f, q, u)), leaves(v), strict=True))
    expected = None
    for mode in products.MODES:
        found = gg.grad(lambda q, mode=mode: sum(gg.sum(h * t) for h, t in zip(leaves(gg.hvp(f, q, u, mode=mode)), leaves(v), strict=True)))(p)
        expected = found if expected is None else expected
        assert_equal(found, expected)
    assert_equal(expected, by_differences_of(lambda q: gg.hvp(f, q, u), p, v), 1e-5, 1e-7)
    fourth = [gg.hvp(inner, p, u, mode=mode) for mode in products.MODES]
    assert_equal(fourth[1], fourth[0], 1e-9, 1e-10)
    assert_equal(fourth[2], fourth[0], 1e-9, 1e-10)


def by_differences_of(product: Callable[[Any], Any], p: Any, v: Any, e: float = 1e-6) -> Any:
    plus, minus = (product({name: p[name] + s * v[name] for name in p}) for s in (e, -e))
    return {name: (plus[name] - minus[name]) / (2 * e) for name in p}


@pytest.mark.parametrize("mode", products.MODES)
def test_nested_in_other_transforms(mode: str) -> None:
    f = lambda x: gg.sum(gg.exp(x) * x)
    x, v, u = RNG.normal(size=(3, 4))
    H = lambda x: gg.hvp(f, x, v, mode=mode)
    second, third = np.exp(x) * (x + 2) * v, np.exp(x) * (x + 3) * v
    np.testing.assert_allclose(H(x), second, rtol=1e-12)
    np.testing.assert_allclose(gg.jvp(H, x, u)[1], third * u, rtol=1e-12)
    np.testing.assert_allclose(gg.vjp(H, x)[1](u)[0], third * u, rtol=1e-12)
    np.testing.assert_allclose(gg.linearize(H, x)[1](u), third * u, rtol=1e-12)
    np.testing.assert_allclose(gg.jacobian(H)(x), np.diag(third), rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(gg.vmap(H)(np.stack([x, u]))[0], second, rtol=1e-12)
    np.testing.assert_allclose(gg.grad(lambda v: gg.sum(gg.hvp(f, x, v, mode=mode)))(v), second / v, rtol=1e-12)
    t = gg.tensor(x, requires_grad=True)
    gg.sum(gg.hvp(f, t, v, mode=mode)).backward()
    np.testing.assert_allclose(t.grad.data, third, rtol=1e-12)


@pytest.mark.parametrize("mode", products.MODES)
def test_of_what_does_not_depend(mode: str) -> None:
    x = np.arange(3.0)
    for f in (lambda x: 2.0, lambda x: gg.sum(x), lambda x: gg.sum(x * 3.0), lambda x: gg.sum(np.ones(2))):
        np.testing.assert_array_equal(gg.hvp(f, x, x, mode=mode), np.zeros(3))
    a, b = gg.hvp(lambda x, y: gg.sum(x**2), (x, x), (x, x), mode=mode)
    np.testing.assert_array_equal(a, 2 * x)
    np.testing.assert_array_equal(b, np.zeros(3))


def test_results_are_nobody_elses_arrays() -> None:
    x, v = np.arange(3.0), np.ones(3)
    value, g, product = gg.value_grad_hvp(lambda x: gg.sum(x * x) / 2, x, v)
    product += 5.0
    g += 7.0
    np.testing.assert_array_equal(v, 1)
    np.testing.assert_array_equal(x, np.arange(3.0))


def test_on_every_device(put: Callable[[Any], Any]) -> None:
    f, p = CASES["two layers, relu"]
    x, labels = put(X), put(LABELS)
    g = lambda p: F.cross_entropy(outputs(p, x, "relu"), labels)
    v, there = like(p), gg.tree.map_leaves(put, p)
    for mode in products.MODES:
        assert_equal(gg.hvp(g, there, gg.tree.map_leaves(put, v), mode=mode), gg.hvp(f, p, v))
    assert_equal(gg.linearize(gg.grad(g), there)[1](gg.tree.map_leaves(put, v)), gg.hvp(f, p, v))
    block = gg.tree.map_leaves(lambda t: put(np.stack([t, 2 * t])), v)
    assert_equal(gg.tree.map_leaves(lambda h: h[0], gg.block_hvp(g, there, block)), gg.hvp(f, p, v))


# ---------------------------------------------------------------------------------- what is computed, and how much memory it takes


@contextmanager
def multiplications() -> Iterator[list[int]]:
    """How many each product of matrices takes."""
    counted: list[int] = []
    real = blas.matmul

    def matmul(a: Any, b: Any, out: Any = None) -> Any:
        y = real(a, b, out)
        counted.append(y.size * a.shape[-1])
        return y

    blas.matmul = matmul
    try:
        yield counted
    finally:
        blas.matmul = real


def test_nothing_is_multiplied_in_vain() -> None:
    """Per layer, in units of rows times weights: a gradient 3 (the first layer 2), H v 8 (3), with value and gradient 9 (4), one of a linearized gradient 6 (2)."""
    p = network((5, 6, 4, 3))
    first, others = 7 * 5 * 6, 7 * (6 * 4 + 4 * 3)
    f, v = classifier("relu"), like(p)
    _, push = gg.linearize(gg.grad(f), p)
    expected = {
        lambda: gg.grad(f)(p): 2 * first + 3 * others,
        lambda: gg.hvp(f, p, v): 3 * first + 8 * others,
        lambda: gg.value_grad_hvp(f, p, v): 4 * first + 9 * others,
        lambda: push(v): 2 * first + 6 * others,
        lambda: gg.block_hvp(f, p, gg.tree.map_leaves(lambda t: np.stack([t] * 10), v)): 2 * first + 3 * others + 10 * (2 * first + 6 * others),
    }
    for run, count in expected.items():
        with multiplications() as counted:
            run()
        assert sum(counted) == count


def test_a_block_is_computed_in_chunks_that_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    f, p = CASES["two layers, relu"]
    sizes: list[Any] = []
    real = products.vmap
    monkeypatch.setattr(products, "vmap", lambda push, chunk_size: sizes.append(chunk_size) or real(push, chunk_size=chunk_size))
    block = gg.tree.map_leaves(lambda t: np.stack([t] * 8), like(p))
    with_all = gg.block_hvp(f, p, block)
    each = products.MEMORY // sizes[0]
    assert sum(v.nbytes for v in leaves(p)) < each < 20 * sum(v.nbytes for v in leaves(p))
    in_threes = gg.block_hvp(f, p, block, memory=3 * each + each // 2)
    assert sizes[1] == 3
    assert_equal(in_threes, with_all)


def test_what_is_computed_at_once_takes_the_memory_it_may_beside_the_result() -> None:
    """Not a second result, which is what the chunks would be, kept until they are joined."""
    w, x, block = RNG.normal(size=(600, 20)), RNG.normal(size=600), np.eye(600)
    f = lambda x: gg.sum(gg.tanh(x @ w) ** 2)
    memory = 1 << 18
    for compute in (
        lambda: gg.hessian(f, memory=memory)(x),
        lambda: gg.jacobian(gg.grad(f), mode="reverse", memory=memory)(x),
        lambda: gg.block_hvp(f, x, block, memory=memory),
    ):
        compute()
        pool.release()
        tracemalloc.start()
        result = compute()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert result.nbytes == 8 * 600 * 600
        assert peak - result.nbytes < 2 * memory


def nodes_alive() -> int:
    """By type(), not isinstance(), which asks what a weak proxy of another test pointed to."""
    return sum(issubclass(type(o), (tape.Reverse, tape.Leaf)) for o in gc.get_objects())


@pytest.mark.parametrize("mode", products.MODES)
def test_nothing_is_left_on_the_tape(mode: str) -> None:
    f, p = CASES["three layers"]
    gc.collect()
    gc.disable()
    try:
        before = nodes_alive()
        gg.hvp(f, p, like(p), mode=mode)
        assert nodes_alive() == before
    finally:
        gc.enable()


# ---------------------------------------------------------------------------------- errors


def test_errors_name_the_parameter_and_the_remedy(device: str) -> None:
    f, p = CASES["two layers, relu"]
    v = like(p)
    calls = [lambda t, mode=mode: gg.hvp(f, p, t, mode=mode) for mode in products.MODES]
    calls += [lambda t: gg.vhp(f, p, t), lambda t: gg.value_grad_hvp(f, p, t), lambda t: gg.linearize(gg.grad(f), p)[1](t)]
    for call in calls:
        with pytest.raises(ValueError, match=r"the tangent of primals(\[0\])?\['1.weight'\] has shape \(3, 4\), expected \(4, 3\)"):
            call({**v, "1.weight": v["1.weight"].T})
        with pytest.raises(ValueError, match=r"structure.*\['1.bias'\]"):
            call({name: t for name, t in v.items() if name != "1.bias"})
        with pytest.raises(TypeError, match=r"primals(\[0\])?\['0.bias'\] is complex128"):
            call({**v, "0.bias": v["0.bias"] * 1j})
        if device != "cpu":
            with pytest.raises(gg.DeviceError, match=r"primals(\[0\])?\['0.bias'\] is on cuda:0.*gg.asarray"):
                call({**v, "0.bias": backend.to_device(v["0.bias"], device)})
    with pytest.raises(ValueError, match="mode is 'fwdrev'"):
        gg.hvp(f, p, v, mode="fwdrev")


def test_errors_of_blocks() -> None:
    f, p = CASES["two layers, relu"]
    block = gg.tree.map_leaves(lambda t: np.stack([t, t]), like(p))
    with pytest.raises(ValueError, match=r"primals\['0.bias'\] has shape \(4,\), expected \(K, 4\)"):
        gg.block_hvp(f, p, {**block, "0.bias": block["0.bias"][0]})
    with pytest.raises(ValueError, match=r"2 of primals\['0.weight'\], 1 of primals\['0.bias'\]"):
        gg.block_hvp(f, p, {**block, "0.bias": block["0.bias"][:1]})
    with pytest.raises(ValueError, match="structure"):
        gg.block_hvp(f, p, list(block.values()))
    for compute in (lambda: gg.block_hvp(f, p, block, memory=0), lambda: gg.jacobian(f, memory=0)(p), lambda: gg.hessian(f, memory=-1)(p)):
        with pytest.raises(ValueError, match=r"got memory=(0|-1), expected the number of bytes"):
            compute()


@pytest.mark.parametrize("mode", products.MODES)
def test_functions_without_a_hessian(mode: str) -> None:
    x = np.ones(3)
    with pytest.raises(TypeError, match=r"shape \(3,\).*scalar"):
        gg.hvp(lambda x: x * x, x, x, mode=mode)
    with pytest.raises(TypeError, match="scalar"):
        gg.hvp(lambda x: (gg.sum(x), x), x, x, mode=mode)
    with pytest.raises(TypeError, match=r"int64.*astype"):
        gg.hvp(lambda x: gg.sum(x), np.arange(3), x, mode=mode)


@pytest.mark.parametrize("mode", [*products.MODES, "vhp", "all", "block"])
def test_errors_name_the_arguments_without_a_second_derivative(mode: str) -> None:
    slope = gg.primitive(lambda g, x: 2 * g * x)
    square = gg.primitive(lambda x: x**2)
    gg.defvjp(square, lambda g, _y, x: slope(g, x))
    p = {"a": np.ones(3), "b": [np.ones(2)], "c": np.ones(2)}
    compute = {
        "vhp": gg.vhp,
        "all": gg.value_grad_hvp,
        "block": lambda f, p, v: gg.block_hvp(f, p, gg.tree.map_leaves(lambda t: t[None], v)),
    }.get(mode, lambda f, p, v: gg.hvp(f, p, v, mode=mode))
    with pytest.raises(NotImplementedError) as caught:
        compute(lambda p: gg.sum(p["a"] ** 3) + gg.sum(square(p["b"][0]) + p["c"] ** 2), p, p)
    (note,) = caught.value.__notes__
    assert "a gradient by primals['b'][0], but" in note and "GaussNewtonOperator" in note
    with pytest.raises(TypeError) as caught_too:  # an error of f's own is left as it is
        compute(lambda p: gg.sum(p["a"]) + None, p, p)
    assert not hasattr(caught_too.value, "__notes__")


def test_an_operation_without_a_second_derivative() -> None:
    class Sine(gg.Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            ctx.save_for_backward(x)
            return gg.tensor(np.sin(x.data))

        @staticmethod
        @gg.once_differentiable
        def backward(ctx: Any, g: Any) -> Any:
            (x,) = ctx.saved_tensors
            return gg.tensor(np.cos(x.data) * g.data)

    for mode in products.MODES:
        with pytest.raises(RuntimeError, match="once_differentiable"):
            gg.hvp(lambda x: gg.sum(Sine.apply(x)), np.ones(3), np.ones(3), mode=mode)
    cube = gg.primitive(lambda x: x**3)
    for mode in products.MODES:
        with pytest.raises(NotImplementedError, match=r"has no .* rule.*gg.def.*gg.stop_gradient"):
            gg.hvp(lambda x: gg.sum(cube(x)), np.ones(3), np.ones(3), mode=mode)
