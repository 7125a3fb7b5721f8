"""Products, norms and factorisations: values as NumPy's, derivatives to second order, one GEMM each way, and what went wrong elsewhere."""

import warnings

import ml_dtypes
import numpy as np
import pytest
from derivatives import check

import gpugrad as gg
from gpugrad import blas
from gpugrad.ops import linalg
from gpugrad.tape import Reverse

RNG = np.random.default_rng(0)


def normal(shape, dtype=float):
    x = RNG.normal(size=shape)
    return np.asarray(x + 1j * RNG.normal(size=shape) if dtype is complex else x)


def complex_pairing(f, *xs):
    """The jvp is the difference quotient, and <g, J t> = <J' g, t> in its real part."""
    ts = tuple(normal(x.shape, complex) for x in xs)
    y, y_dot = gg.jvp(f, xs, ts)
    e = 1e-6
    plus, minus = (f(*[x + s * t for x, t in zip(xs, ts, strict=True)]) for s in (e, -e))
    np.testing.assert_allclose(y_dot, (plus - minus) / (2 * e), rtol=1e-5, atol=1e-7)
    g = normal(np.shape(y), complex if np.iscomplexobj(y) else float)
    back = gg.vjp(f, *xs)[1](g)
    np.testing.assert_allclose(np.sum(g * y_dot).real, np.sum([np.sum(b * t) for b, t in zip(back, ts, strict=True)]).real, rtol=1e-8, atol=1e-10)


# ---------------------------------------------------------------------------------- products

SHAPES = [
    ((3,), (3,)),
    ((2, 3), (3,)),
    ((3,), (3, 4)),
    ((2, 3), (3, 4)),
    ((5, 2, 3), (3, 4)),
    ((5, 2, 3), (3,)),
    ((3,), (5, 3, 4)),
    ((2, 3), (5, 3, 4)),
    ((5, 2, 3), (5, 3, 4)),
    ((6, 1, 2, 3), (5, 3, 4)),
    ((6, 1, 2, 3), (1, 3, 4)),
    ((1, 2, 3), (1, 1, 3, 4)),
    ((1, 2, 3), (5, 3, 4)),
    ((2, 1, 3), (1, 3, 1)),
    ((2, 0), (0, 4)),
    ((0, 3), (3, 4)),
    ((4, 0, 3), (3, 4)),
    ((0, 2, 3), (3, 4)),
]


@pytest.mark.parametrize(("m", "n"), SHAPES)
def test_matmul(m, n):
    # Tinytorch#3, cs249r_book#1781, tfjs#8721, cvxpy#3386: vectors on either side, batches on one side
    a, b = normal(m), normal(n)
    np.testing.assert_allclose(gg.matmul(a, b), a @ b, rtol=1e-12)
    assert np.shape(gg.matmul(a, b)) == np.shape(a @ b)
    check(gg.matmul, a, b)
    complex_pairing(gg.matmul, normal(m, complex), normal(n, complex))


def test_matmul_of_layouts():
    a, b = normal((6, 8)), normal((8, 5))
    for x in (a[::-1, ::2], np.asfortranarray(a)[:, :4], np.broadcast_to(a[:1, :4], (6, 4)), a.astype(np.float32)[:, 4:]):
        f = gg.value_and_grad(lambda x, b: gg.sum(gg.matmul(x, b) ** 2), (0, 1))
        (y, g), (expected, h) = f(x, b[:4]), f(x.copy(), b[:4].copy())
        np.testing.assert_allclose(y, expected, rtol=1e-6)
        for p, q in zip(g, h, strict=True):
            np.testing.assert_allclose(p, q, rtol=1e-5)
            assert p.dtype == q.dtype


def test_operators():
    t = gg.tensor([[1.0, 2.0]], requires_grad=True)
    a = np.ones((2, 2), np.float32)
    assert type(t @ a) is type(a @ t.T) is gg.Tensor and (t @ [[1.0], [1.0]]).shape == (1, 1)
    assert type(np.matmul(t, a)) is type(np.dot(t, a)) is type(np.tensordot(t, a, 1)) is gg.Tensor


@pytest.mark.parametrize(
    ("name", "m", "n"),
    [
        ("dot", (), (2,)),
        ("dot", (3,), (3,)),
        ("dot", (2, 3), (3, 4)),
        ("dot", (2, 3), (5, 3, 4)),
        ("dot", (4, 2, 3), (3,)),
        ("dot", (4, 2, 3), (5, 3, 2)),
        ("vdot", (2, 3), (3, 2)),
        ("vecdot", (2, 3), (3,)),
        ("inner", (3,), (3,)),
        ("inner", (2, 3), (4, 3)),
        ("inner", (), (4, 3)),
        ("inner", (2, 5, 3), (4, 3)),
        ("outer", (2, 3), (4,)),
        ("outer", (), (2,)),
        ("kron", (2, 3), (2, 2)),
        ("kron", (2,), (2,)),
        ("kron", (2, 3, 1), (2,)),
        ("kron", (), (2, 2)),
        ("cross", (2, 3), (2, 3)),
        ("cross", (3,), (4, 3)),
    ],
)
def test_other_products(name, m, n):
    # HIPS/autograd#209: kron of vectors
    ours, numpys = getattr(gg, name), getattr(np, name)
    for dtype in (float, complex):
        a, b = normal(m, dtype), normal(n, dtype)
        np.testing.assert_allclose(ours(a, b), numpys(a, b), rtol=1e-12)
        assert np.shape(ours(a, b)) == np.shape(numpys(a, b))
    complex_pairing(ours, a, b)
    check(ours, a.real, b.real)


def test_cross_axes():
    a, b = normal((3, 4)), normal((4, 3))
    np.testing.assert_allclose(gg.cross(a, b, axisa=0, axisc=0), np.cross(a, b, axisa=0, axisc=0))
    np.testing.assert_allclose(gg.cross(a, a[::-1], axis=0), np.cross(a, a[::-1], axis=0))


@pytest.mark.parametrize(
    ("m", "n", "axes"),
    [
        ((2, 3, 4), (3, 4, 5), 2),
        ((2, 3, 4), (4, 5), 1),
        ((2, 3), (4,), 0),
        ((2, 3, 4), (4, 5), [[-1], [0]]),
        ((2, 3, 4), (3, 2, 5), ((0, 1), (1, 0))),
        ((2, 3, 4), (5, 4, 3), ((1, 2), (2, 1))),
        ((2,), (2, 2), (0, 1)),
        ((2, 3), (2, 3), ((0, 1), (0, 1))),
    ],
)
def test_tensordot(m, n, axes):
    # HIPS/autograd#98, #466, pytorch#65524
    a, b = normal(m), normal(n)
    np.testing.assert_allclose(gg.tensordot(a, b, axes), np.tensordot(a, b, axes), rtol=1e-12)
    check(lambda a, b: gg.tensordot(a, b, axes), a, b)


def test_multi_dot_takes_the_cheapest_order():
    matrices = [normal(s) for s in ((10, 2), (2, 30), (30, 3), (3,))]
    np.testing.assert_allclose(gg.linalg.multi_dot(matrices), np.linalg.multi_dot(matrices))
    row = [matrices[0][0], *matrices[1:]]
    np.testing.assert_allclose(gg.linalg.multi_dot(row), np.linalg.multi_dot(row))
    check(lambda *m: gg.linalg.multi_dot(m), *matrices[1:])


def test_shapes_that_do_not_fit():
    for m, n in (((2, 3), (4, 5)), ((3,), (4,)), ((2, 3), (2,)), ((2, 2, 3), (4, 3, 5)), ((), (3,)), ((2, 3), ())):
        for a, b in ((np.zeros(m), np.zeros(n)), (gg.zeros(m), gg.zeros(n))):
            with pytest.raises(ValueError, match=r"matmul: got operands of shapes .* and .*, expected \(\.\.\., n, k\)") as error:
                gg.matmul(a, b)
            assert str(m) in str(error.value) and str(n) in str(error.value)
    with pytest.raises(ValueError, match=r"tensordot: got operands of shapes \(2, 3\) and \(2, 3\)"):
        gg.tensordot(np.zeros((2, 3)), np.zeros((2, 3)), 1)
    with pytest.raises(ValueError, match="expected 3"):
        gg.cross(np.zeros(2), np.zeros(2))


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_matmul_of_sixteen_bits_accumulates_in_float32(dtype):
    a = np.full((1, 4096), 0.25, dtype)
    for y in (gg.matmul(a, a.T), gg.einsum("ij,kj->ik", a, a), gg.tensordot(a, a, ((1,), (1,)))):
        assert y.dtype == dtype and y[0, 0] == 256
    g = gg.grad(lambda a: gg.sum(gg.matmul(a, a.T)))(a)
    assert g.dtype == dtype and (g == 0.5).all()


# ---------------------------------------------------------------------------------- what is computed, and what is not


@pytest.fixture
def products(monkeypatch):
    """The shapes of every product of matrices, as they happen."""
    seen = []
    op = linalg.matrix_product.op
    compute = op.f

    def f(a, b):
        seen.append((a, b))
        return compute(a, b)

    monkeypatch.setattr(op, "f", f)
    monkeypatch.setattr(linalg, "matrix_product", gg.tape.binary(op))
    return seen


def test_a_batch_times_a_weight_is_one_gemm_each_way(products):
    x, w = gg.tensor(normal((5, 6, 3)), requires_grad=True), gg.tensor(normal((3, 4)), requires_grad=True)
    gg.sum(gg.matmul(x, w) ** 2).backward()
    assert sorted((a.shape, b.shape) for a, b in products) == [((3, 30), (30, 4)), ((30, 3), (3, 4)), ((30, 4), (4, 3))]
    products.clear()
    gg.sum(gg.matmul(w.T, x.mT) ** 2).backward()  # the weight on the left
    assert all(a.ndim == b.ndim == 2 for a, b in products) and len(products) == 3


@pytest.fixture
def gemms(monkeypatch):
    """The shapes of the factors of every product of plain arrays."""
    seen, compute = [], blas.matmul
    monkeypatch.setattr(blas, "matmul", lambda a, b, *out: seen.append((a.shape, b.shape)) or compute(a, b, *out))
    return seen


X, W, V = (5, 3), (3, 4), (3,)
MANY = [  # what is multiplied, which of the factors are batched, and the product that it comes to
    (gg.matmul, X, W, (0, None), ((35, 3), (3, 4))),  # the rows of all examples
    (gg.matmul, X, W, (None, 0), ((5, 3), (7, 3, 4))),
    (gg.matmul, X, W, (0, 0), ((7, 5, 3), (7, 3, 4))),
    (gg.matmul, X, V, (None, 0), ((7, 3), (3, 5))),  # a matrix times many vectors
    (gg.matmul, X, V, (0, None), ((35, 3), (3, 1))),
    (gg.matmul, V, W, (0, None), ((7, 3), (3, 4))),
    (lambda a, b: gg.matmul(gg.swapaxes(a, 0, 1), b), W, W, (0, None), ((7, 4, 3), (3, 4))),  # flattened it would have to be copied
    (lambda a, b: gg.matmul(gg.swapaxes(a, 0, 1), b), W, W, (None, 0), ((4, 3), (7, 3, 4))),
    (lambda a, b: gg.matmul(a, gg.swapaxes(b, 0, 1)), X, X, (0, None), ((35, 3), (3, 5))),
    (gg.tensordot, (2, 5, 3), (5, 3, 4), (0, None), ((14, 15), (15, 4))),
]


@pytest.mark.parametrize("case", range(len(MANY)))
def test_many_products_are_one(case, gemms, put):
    f, m, n, axes, expected = MANY[case]
    a, b = (normal(shape if axis is None else (7, *shape)) for shape, axis in zip((m, n), axes, strict=True))
    got = gg.vmap(f, axes)(put(a), put(b))
    assert gemms == [expected]
    looped = [f(*[x if axis is None else x[i] for x, axis in zip((a, b), axes, strict=True)]) for i in range(7)]
    np.testing.assert_allclose(gg.tensor(got).numpy(), looped, rtol=1e-13, atol=1e-14)


def test_gradients_of_examples_are_products_of_columns_and_rows(gemms):
    """Of the weight for each example; of a tracked one that they share it is one product, however x lies in memory."""
    x, w = normal((7, 3)), normal(W)
    gg.vmap(gg.grad(lambda w, x: gg.sum(gg.sin(gg.matmul(x, w)))), (None, 0))(w, x)
    assert sorted(gemms) == [((7, 3), (3, 4)), ((7, 3, 1), (7, 1, 4))]
    gemms.clear()
    gg.grad(lambda w: gg.sum(gg.sin(gg.vmap(lambda x: gg.matmul(x, w))(normal((3, 5, 7)).T))))(w)
    assert sorted(gemms) == [((3, 35), (35, 4)), ((35, 3), (3, 4))]


def test_one_matrix_is_factorised_once(monkeypatch):
    """For the right-hand sides of all examples."""
    seen, solve = [], np.linalg.solve
    monkeypatch.setattr(np.linalg, "solve", lambda a, b: seen.append((a.shape, b.shape)) or solve(a, b))
    a, b = normal((3, 3)), normal((7, 3))
    np.testing.assert_allclose(gg.vmap(lambda b: gg.linalg.solve(a, b))(b), solve(a, b.T).T, rtol=1e-12)
    assert seen == [((3, 3), (3, 7))]


@pytest.mark.parametrize("mode", ["grad", "push", "second"])
def test_regular_and_singular_matrices_side_by_side(mode, put):
    """Each has the derivatives that it has alone: cofactors, which of rank n - 2 are 0, and the second derivative of a cubic polynomial."""
    singular = np.array([[1.0, 2, 3], [2, 4, 6], [1, 0, 1]])
    but_for_rounding = 0.1 * np.arange(1, 10).reshape(3, 3)  # it has an inverse, of which no digit is right
    assert 0 < abs(np.linalg.det(but_for_rounding)) < 1e-15
    matrices, t = [normal((3, 3)), singular, but_for_rounding, np.ones((3, 3)), 0.1 * normal((3, 3)), np.diag([1.0, 1e-9, 1.0])], normal((3, 3))
    push = lambda f, a: gg.jvp(f, (a,), (put(t),))[1]
    f = {"grad": gg.grad(gg.linalg.det), "push": lambda a: push(gg.linalg.det, a), "second": lambda a: push(lambda a: push(gg.linalg.det, a), a)}[mode]
    for g, a in zip(gg.asarray(gg.vmap(f)(put(np.stack(matrices)))).numpy(), matrices, strict=True):
        cofactors = np.array([[(-1) ** (i + j) * np.linalg.det(np.delete(np.delete(a, i, 0), j, 1)) for j in range(3)] for i in range(3)])
        bent = np.linalg.det(a + t) + np.linalg.det(a - t) - 2 * np.linalg.det(a)
        np.testing.assert_allclose(g, {"grad": cofactors, "push": np.sum(t * cofactors), "second": bent}[mode], rtol=1e-6, atol=1e-13)


def test_only_what_was_asked_for_is_computed(products):
    x, w = normal((5, 3)), gg.tensor(normal((3, 4)), requires_grad=True)
    y = gg.matmul(x, w)
    assert y.node.vals[1] is None  # the weight itself is not needed for its gradient
    gg.sum(y).backward()
    assert [(a.shape, b.shape) for a, b in products] == [((5, 3), (3, 4)), ((3, 5), (5, 4))]


def test_transposes_are_views(products):
    x, w = gg.tensor(normal((5, 3)), requires_grad=True), gg.tensor(normal((3, 4)), requires_grad=True)
    gg.matmul(x, w).backward(np.ones((5, 4)))
    (_, wt), (xt, _) = sorted(products[1:], key=lambda p: p[0].shape[0], reverse=True)
    assert np.shares_memory(wt, w.data) and np.shares_memory(xt, x.data)


# ---------------------------------------------------------------------------------- norms

ORDERS = [None, 1, 2, 3, 1.5, 0.5, -1, -2, np.inf, -np.inf]


@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize("order", ORDERS)
def test_vector_norms(order, keepdims):
    # pytorch#3481
    x = normal((3, 4))
    for axis in (0, -1):
        np.testing.assert_allclose(gg.linalg.norm(x, order, axis, keepdims), np.linalg.norm(x, order, axis, keepdims))
        check(lambda v, axis=axis: gg.linalg.norm(v, order, axis, keepdims), x)
        z = normal((3, 4), complex)
        np.testing.assert_allclose(gg.linalg.norm(z, order, axis, keepdims), np.linalg.norm(z, order, axis, keepdims))
        complex_pairing(lambda v, axis=axis: gg.linalg.norm(v, order, axis, keepdims), z)  # HIPS/autograd#666


@pytest.mark.parametrize("order", [None, "fro", 1, -1, np.inf, -np.inf])
def test_matrix_norms(order):
    x = normal((2, 3, 4))
    for axis in ((0, 1), (2, 0), (-1, -2)):
        for keepdims in (False, True):
            np.testing.assert_allclose(gg.linalg.norm(x, order, axis, keepdims), np.linalg.norm(x, order, axis, keepdims))
        check(lambda v, axis=axis: gg.linalg.norm(v, order, axis), x)
    np.testing.assert_allclose(gg.linalg.matrix_norm(x), np.linalg.matrix_norm(x))
    np.testing.assert_allclose(gg.linalg.vector_norm(x, ord=3), np.linalg.vector_norm(x, ord=3))


def test_norm_of_everything():
    x = normal((2, 3, 4))
    np.testing.assert_allclose(gg.linalg.norm(x), np.linalg.norm(x))
    np.testing.assert_allclose(gg.tensor(x).norm().item(), np.linalg.norm(x))
    np.testing.assert_allclose(np.linalg.norm(gg.tensor(x), axis=1).numpy(), np.linalg.norm(x, axis=1))
    assert gg.linalg.norm([3, 4]) == 5 and gg.linalg.norm(x, 0, 1).tolist() == np.linalg.norm(x, 0, 1).tolist()
    for order in (2, -2, "nuc"):
        np.testing.assert_allclose(gg.linalg.norm(x, order, (0, 1)), np.linalg.norm(x, order, (0, 1)))
        with pytest.raises(NotImplementedError, match="norm of the singular values has no vjp rule"):
            gg.grad(lambda v, order=order: gg.linalg.norm(v, order))(x[0])
    for arguments in ((x, 1), (x, "fro"), (x[0], "nonsense"), (x[0, 0], "fro")):
        with pytest.raises(ValueError, match="norm: got ord="):
            gg.linalg.norm(*arguments)


@pytest.mark.parametrize("order", [*ORDERS, 0])
def test_norm_of_zero_has_derivative_zero(order):
    # HIPS/autograd#151, #183, #268, #393, pytorch#2421, #44452, jax#4177, #21723, functorch#1097: to second order, and without a warning
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for x in (np.zeros(3), np.zeros(1), np.array([0.0, 3.0, -4.0])):
            g = gg.grad(lambda v: gg.linalg.norm(v, order))(x)
            assert np.isfinite(g).all() and not g[x == 0].any()
            assert np.isfinite(gg.hessian(lambda v: gg.linalg.norm(v, order))(x)).all()
            assert np.isfinite(gg.jvp(lambda v: gg.linalg.norm(v, order), x, np.ones_like(x))[1])
        assert not gg.grad(lambda v: gg.linalg.norm(v, order))(np.zeros(3)).any()
        assert not gg.grad(lambda v: gg.linalg.norm(v) ** 2)(np.zeros(3)).any()
        rows = gg.grad(lambda v: gg.sum(gg.linalg.norm(v, axis=1)))(np.array([[0.0, 0.0], [3.0, 4.0]]))
        np.testing.assert_allclose(rows, [[0, 0], [0.6, 0.8]])


@pytest.mark.parametrize("scale", [1e-30, 1e-20, 1e20, 1e30])
@pytest.mark.parametrize("order", [1, 2, 3, 1.5, -2, np.inf])
def test_norms_neither_overflow_nor_underflow(order, scale):
    # Paddle#13664, fairscale#263, burn#5699
    x = np.array([1.0, -2.0, 2.0])
    small = (x * scale).astype(np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_allclose(gg.linalg.norm(small, order) / scale, np.linalg.norm(x, order), rtol=1e-6)
        np.testing.assert_allclose(gg.grad(lambda v: gg.linalg.norm(v, order))(small), gg.grad(lambda v: gg.linalg.norm(v, order))(x), rtol=1e-5)
        hessian = gg.hessian(lambda v: gg.linalg.norm(v, order))
        np.testing.assert_allclose(hessian(small) * scale, hessian(x), atol=1e-6)


def test_norm_of_infinities_and_sixteen_bits():
    assert gg.linalg.norm(np.array([np.inf, 1.0])) == np.inf and np.isnan(gg.linalg.norm(np.array([np.nan, 1.0])))
    for dtype in (np.float16, ml_dtypes.bfloat16):
        y, g = gg.value_and_grad(gg.linalg.norm)(np.array([30000, 40000], dtype))
        assert y.dtype == g.dtype == dtype and abs(float(y) - 50000) < 200
        np.testing.assert_allclose(g.astype(float), [0.6, 0.8], rtol=1e-2)
    assert gg.linalg.norm(np.zeros((0, 3)), axis=0).tolist() == [0, 0, 0]
    assert gg.linalg.norm(np.ones(4, np.complex64)).dtype == np.float32


def test_gradient_penalty():
    # the gradient of || grad ||: design, worked example 13
    w = normal((4, 3))
    critic = lambda x, w: gg.sum(gg.tanh(gg.matmul(x, w)))
    penalty = lambda w, x: (gg.linalg.norm(gg.grad(critic)(x, w)) - 1) ** 2
    check(penalty, w, normal((2, 4)))


# ---------------------------------------------------------------------------------- inverses, determinants, factors

A = np.array([[[2.0, 0.3, -0.1], [-0.5, 1.5, 0.4], [0.2, 0.1, 1.2]], [[1.0, -0.4, 0.3], [0.2, -1.2, 0.5], [0.7, 0.2, 1.9]]])
COMPLEX = A + 0.3j * RNG.normal(size=A.shape)


def test_inv_and_solve():
    np.testing.assert_allclose(gg.linalg.inv(A), np.linalg.inv(A))
    check(gg.linalg.inv, A)
    complex_pairing(gg.linalg.inv, COMPLEX)
    for a, b in ((A, normal((2, 3, 2))), (A[0], normal(3)), (A, normal(3)), (A, normal((3, 2))), (A[0], normal((4, 3, 1)))):  # HIPS/autograd#23
        np.testing.assert_allclose(gg.linalg.solve(a, b), np.linalg.solve(a, b))
        check(gg.linalg.solve, a, b)
    complex_pairing(gg.linalg.solve, COMPLEX, normal((2, 3, 2), complex))


@pytest.mark.parametrize("n", [0, 1, 2, 3, 6, -1, -2])
def test_matrix_power(n):
    np.testing.assert_allclose(gg.linalg.matrix_power(A, n), np.linalg.matrix_power(A, n))
    check(lambda a: gg.linalg.matrix_power(a, n), A)


def test_determinants():
    np.testing.assert_allclose(gg.linalg.det(A), np.linalg.det(A))
    check(gg.linalg.det, A)
    complex_pairing(gg.linalg.det, COMPLEX)
    for i in (0, 1):
        np.testing.assert_allclose(gg.linalg.slogdet(A)[i], np.linalg.slogdet(A)[i])
        complex_pairing(lambda a, i=i: gg.linalg.slogdet(a)[i], COMPLEX)
    check(lambda a: gg.linalg.slogdet(a)[1], A)
    np.testing.assert_allclose(gg.jvp(lambda t: gg.linalg.slogdet(t * np.eye(4))[1], np.array(4.0), np.array(1.0))[1], 1.0)  # HIPS/autograd#536
    large = np.diag(np.full(300, 1e3))
    np.testing.assert_allclose(gg.grad(lambda a: gg.linalg.slogdet(a)[1])(large), large / 1e6)


@pytest.mark.parametrize("a", [np.zeros((4, 4)), np.ones((3, 3)), [[1.0, 2.0, 3.0], [2.0, 4.0, 6.0], [1.0, 0.0, 1.0]], [[0.0]], np.diag([0.0, 2.0, 3.0])])
def test_determinant_of_singular_matrices(a):
    # HIPS/autograd#549, jax#2380, tensorflow#119477: the cofactors, to second order
    a = np.asarray(a)
    n = len(a)
    minors = [[np.linalg.det(np.delete(np.delete(a, i, 0), j, 1)) if n > 1 else 1 for j in range(n)] for i in range(n)]
    cofactors = np.array(minors) * (-1.0) ** np.add.outer(np.arange(n), np.arange(n))
    np.testing.assert_allclose(gg.grad(gg.linalg.det)(a), cofactors, atol=1e-12)
    check(gg.linalg.det, a)
    check(gg.linalg.det, np.stack([a, np.eye(n)]))


def test_cholesky():
    # HIPS/autograd#56, pytorch#137284: of the symmetric part, so that the gradient is symmetric
    s = A @ A.swapaxes(-1, -2) + np.eye(3)
    np.testing.assert_allclose(gg.linalg.cholesky(s), np.linalg.cholesky(s))
    check(gg.linalg.cholesky, s)
    h = COMPLEX @ COMPLEX.conj().swapaxes(-1, -2) + np.eye(3)
    np.testing.assert_allclose(gg.linalg.cholesky(h), np.linalg.cholesky(h))
    complex_pairing(gg.linalg.cholesky, h)
    log_det = lambda x: 2 * gg.sum(gg.log(gg.linalg.cholesky(x).diagonal()))
    g = gg.grad(lambda x: log_det(x))(gg.tensor(s[0])).numpy()
    np.testing.assert_allclose(g, np.linalg.inv(s[0]), rtol=1e-10)


def test_a_matmul_keeps_only_its_operands():
    a, b = gg.tensor(normal((2, 3)), requires_grad=True), gg.tensor(normal((3, 2)), requires_grad=True)
    node = gg.matmul(a, b).node
    assert isinstance(node, Reverse) and node.y is None and node.vals[0] is a.value and node.vals[1] is b.value


@pytest.mark.parametrize(
    "f",
    [
        lambda a: gg.matmul(a, a[0]) + gg.matmul(a[0], a) + gg.matmul(a, a[0, 0])[..., None],
        lambda a: gg.dot(a, a) + gg.dot(2.0, a).sum(),
        lambda a: gg.inner(a, a) * gg.vdot(a, a),
        lambda a: gg.outer(a, a[0]) * gg.vecdot(a, a).sum(),
        lambda a: gg.tensordot(a, a, ((0, 1), (0, 2))),
        lambda a: gg.kron(a[0], a[1]),
        lambda a: gg.cross(a, a[::-1]),
        lambda a: gg.linalg.multi_dot([a[0], a[1], a[0], a[1, 0]]),
        lambda a: gg.trace(a, axis1=1, axis2=2),
        lambda a: gg.linalg.norm(a) * gg.linalg.norm(a, 3, 1) + gg.linalg.norm(a, 1, (1, 2)).sum() + gg.linalg.norm(a, np.inf, 0).sum(),
        lambda a: gg.linalg.vector_norm(a, ord=0) * a,
        lambda a: gg.linalg.inv(a) + gg.linalg.solve(a, a[0]) + gg.linalg.solve(a, a[0, 0])[..., None],
        lambda a: gg.linalg.det(a) + gg.linalg.slogdet(a)[1] + gg.linalg.det(a * 0),
        lambda a: gg.linalg.matrix_power(a, 3) + gg.linalg.matrix_power(a, 0) + gg.linalg.matrix_power(a, -1),
        lambda a: gg.linalg.cholesky(gg.matmul(a, a.mT if hasattr(a, "mT") else a.swapaxes(-1, -2))),
    ],
)
def test_devices_agree(f, put, device):
    scalar = lambda a: gg.sum(f(a) ** 2)
    y, g = gg.value_and_grad(scalar)(put(A))
    expected, h = gg.value_and_grad(scalar)(A)
    assert gg.backend.device_of(g) == gg.backend.device_name(device)
    np.testing.assert_allclose(gg.backend.to_device(g, "cpu"), h, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(float(y), expected, rtol=1e-10)
    product = gg.hvp(scalar, put(A), put(np.ones_like(A)))
    np.testing.assert_allclose(gg.backend.to_device(product, "cpu"), gg.hvp(scalar, A, np.ones_like(A)), rtol=1e-8, atol=1e-10)
