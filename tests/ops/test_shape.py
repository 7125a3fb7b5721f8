"""Rearranging: values as NumPy's, derivatives to second order against differences, and what went wrong elsewhere."""

import numpy as np
import pytest
from derivatives import check, check_examples, complex_adjoint

import gpugrad as gg

RNG = np.random.default_rng(0)


# One entry: the function for NumPy or gpugrad, and the shapes of its arguments.
CASES = [
    ("reshape", lambda m, x: m.reshape(x, (3, 4)), (2, 6)),
    ("reshape -1", lambda m, x: m.reshape(x, (4, -1)), (2, 6)),
    ("reshape to int", lambda m, x: m.reshape(x, -1), (2, 3)),
    ("reshape 0-d", lambda m, x: m.reshape(x, (1, 1)), ()),
    ("reshape to 0-d", lambda m, x: m.reshape(x, ()), (1, 1)),
    ("reshape empty", lambda m, x: m.reshape(x, (0, 5)), (2, 0)),
    ("ravel", lambda m, x: m.ravel(x), (2, 3)),
    ("squeeze", lambda m, x: m.squeeze(x), (1, 3, 1)),
    ("squeeze axis", lambda m, x: m.squeeze(x, -1), (1, 3, 1)),
    ("squeeze axes", lambda m, x: m.squeeze(x, (0, 2)), (1, 3, 1)),
    ("expand_dims", lambda m, x: m.expand_dims(x, 1), (2, 3)),
    ("expand_dims axes", lambda m, x: m.expand_dims(x, (0, -1, 2)), (2, 3)),
    ("atleast_1d", lambda m, x: m.atleast_1d(x), ()),
    ("atleast_2d", lambda m, x: m.atleast_2d(x), (3,)),
    ("atleast_2d of 3", lambda m, x: m.atleast_2d(x), (2, 1, 3)),
    ("atleast_3d of 1", lambda m, x: m.atleast_3d(x), (3,)),
    ("atleast_3d of 2", lambda m, x: m.atleast_3d(x), (2, 3)),
    ("atleast_3d of 0", lambda m, x: m.atleast_3d(x), ()),
    ("several atleast_2d", lambda m, x, y: m.atleast_2d(x, y), (3,), ()),
    ("transpose", lambda m, x: m.transpose(x), (2, 3, 4)),
    ("transpose axes", lambda m, x: m.transpose(x, (1, -1, 0)), (2, 3, 4)),
    ("transpose 0-d", lambda m, x: m.transpose(x), ()),
    ("permute_dims", lambda m, x: m.permute_dims(x, (2, 0, 1)), (2, 3, 4)),
    ("matrix_transpose", lambda m, x: m.matrix_transpose(x), (2, 3, 4)),
    ("swapaxes", lambda m, x: m.swapaxes(x, 0, -1), (2, 3, 4)),
    ("moveaxis", lambda m, x: m.moveaxis(x, 0, -1), (2, 3, 4)),
    ("moveaxis many", lambda m, x: m.moveaxis(x, (0, 1), (-1, 0)), (2, 3, 4, 1)),
    ("concatenate", lambda m, x, y: m.concatenate([x, y], 1), (2, 3), (2, 1)),
    ("concatenate negative axis", lambda m, x, y: m.concatenate((x, y, x), -1), (2, 3), (2, 1)),
    ("concatenate None", lambda m, x, y: m.concatenate([x, y], None), (2, 3), ()),
    ("concatenate one", lambda m, x: m.concatenate([x]), (2, 3)),
    ("concatenate slices of one", lambda m, x: m.concatenate(x), (2, 3, 2)),
    ("concatenate empty", lambda m, x, y: m.concatenate([x, y]), (0, 3), (2, 3)),
    ("concat", lambda m, x, y: m.concat([x, y]), (2,), (3,)),
    ("append", lambda m, x, y: m.append(x, y), (2, 3), (2,)),
    ("append axis", lambda m, x, y: m.append(x, y, axis=0), (2, 3), (1, 3)),
    ("stack", lambda m, x, y: m.stack([x, y], -1), (2, 3), (2, 3)),
    ("stack 0-d", lambda m, x, y: m.stack([x, 1.5, y, x]), (), ()),
    ("vstack", lambda m, x, y: m.vstack([x, y]), (3,), (2, 3)),
    ("hstack", lambda m, x, y: m.hstack([x, y]), (2, 3), (2, 1)),
    ("hstack vectors", lambda m, x, y: m.hstack([x, y]), (3,), ()),
    ("dstack", lambda m, x, y: m.dstack([x, y]), (2, 3), (2, 3)),
    ("column_stack", lambda m, x, y: m.column_stack([x, y]), (3,), (3, 2)),
    ("split", lambda m, x: m.split(x, 3), (6, 2)),
    ("split at", lambda m, x: m.split(x, [1, 3], axis=1), (2, 5)),
    ("split at negative", lambda m, x: m.split(x, [-2]), (5,)),
    ("split backwards", lambda m, x: m.split(x, [3, 1]), (5,)),
    ("split beyond", lambda m, x: m.split(x, [2, 9]), (5,)),
    ("array_split", lambda m, x: m.array_split(x, 3, -1), (2, 7)),
    ("array_split many", lambda m, x: m.array_split(x, 5), (3,)),
    ("hsplit", lambda m, x: m.hsplit(x, 2), (3, 4)),
    ("hsplit vector", lambda m, x: m.hsplit(x, [1]), (4,)),
    ("vsplit", lambda m, x: m.vsplit(x, 2), (4, 3)),
    ("unstack", lambda m, x: m.unstack(x, axis=1), (2, 3, 2)),
    ("pad", lambda m, x: m.pad(x, 1), (2, 3)),
    ("pad nothing on an axis", lambda m, x: m.pad(x, ((0, 0), (1, 1))), (3, 3)),
    ("pad value", lambda m, x: m.pad(x, ((1, 0), (0, 2)), constant_values=((1.0, 2.0), (3.0, 4.0))), (2, 3)),
    ("pad dict", lambda m, x: m.pad(x, {-1: (1, 2)}), (2, 3)),
    ("pad empty", lambda m, x: m.pad(x, (1, 2)), (0,)),
    ("pad edge", lambda m, x: m.pad(x, (2, 1), mode="edge"), (2, 3)),
    ("pad reflect", lambda m, x: m.pad(x, ((0, 0), (2, 5)), mode="reflect"), (2, 3)),
    ("pad symmetric", lambda m, x: m.pad(x, (3, 4), mode="symmetric"), (3,)),
    ("pad wrap", lambda m, x: m.pad(x, ((1, 2), (4, 0)), mode="wrap"), (2, 3)),
    ("flip", lambda m, x: m.flip(x), (2, 3)),
    ("flip axes", lambda m, x: m.flip(x, (0, -1)), (2, 3, 2)),
    ("fliplr", lambda m, x: m.fliplr(x), (2, 3)),
    ("flipud", lambda m, x: m.flipud(x), (2, 3)),
    ("roll", lambda m, x: m.roll(x, 2), (2, 3)),
    ("roll axes", lambda m, x: m.roll(x, (1, -2), axis=(0, 1)), (3, 4)),
    ("roll one shift", lambda m, x: m.roll(x, 1, axis=(0, 1)), (3, 4)),
    ("roll an axis twice", lambda m, x: m.roll(x, (1, 1), axis=(0, 0)), (3, 4)),
    ("roll far", lambda m, x: m.roll(x, -11, 0), (3,)),
    ("roll 0-d", lambda m, x: m.roll(x, 1), ()),
    *[(f"rot90 {k}", lambda m, x, k=k: m.rot90(x, k, axes=(2, 0)), (2, 3, 4)) for k in (-1, 0, 1, 2, 3, 5)],
    ("tile", lambda m, x: m.tile(x, 3), (2, 3)),
    ("tile up", lambda m, x: m.tile(x, (2, 1, 2)), (3,)),
    ("tile fewer", lambda m, x: m.tile(x, (2,)), (2, 1, 3)),
    ("tile none", lambda m, x: m.tile(x, (0, 2)), (2, 3)),
    ("tile 0-d", lambda m, x: m.tile(x, (2, 3)), ()),
    ("repeat", lambda m, x: m.repeat(x, 2), (2, 3)),
    ("repeat axis", lambda m, x: m.repeat(x, 3, axis=-1), (2, 3)),
    ("repeat each", lambda m, x: m.repeat(x, [2, 0, 1], axis=1), (2, 3)),
    ("repeat flat", lambda m, x: m.repeat(x, [1, 2, 0, 3]), (2, 2)),
    ("repeat one", lambda m, x: m.repeat(x, [2]), (3,)),
    ("broadcast_arrays", lambda m, x, y: m.broadcast_arrays(x, y), (2, 1), (3,)),
    ("meshgrid", lambda m, x, y: m.meshgrid(x, y), (2,), (3,)),
    ("meshgrid ij", lambda m, x, y: m.meshgrid(x, y, indexing="ij"), (2,), (3,)),
    ("meshgrid sparse", lambda m, x, y: m.meshgrid(x, y, x, sparse=True), (2,), (3,)),
    ("meshgrid one", lambda m, x: m.meshgrid(x), (2,)),
    *[(f"diagonal {k}", lambda m, x, k=k: m.diagonal(x, k), (4, 3)) for k in range(-5, 5)],
    ("diagonal axes", lambda m, x: m.diagonal(x, 1, 2, 0), (2, 3, 4)),
    *[(f"diag of a matrix {k}", lambda m, x, k=k: m.diag(x, k), (3, 5)) for k in (-2, 0, 3)],
    *[(f"diag of a vector {k}", lambda m, x, k=k: m.diag(x, k), (3,)) for k in (-2, 0, 3)],
    ("trace", lambda m, x: m.trace(x), (4, 2)),
    ("trace offset", lambda m, x: m.trace(x, -1, 1, 2), (2, 3, 2)),
    *[(f"tril {k}", lambda m, x, k=k: m.tril(x, k), (2, 3, 4)) for k in (-4, -1, 0, 2)],
    *[(f"triu {k}", lambda m, x, k=k: m.triu(x, k), (3, 4)) for k in (-1, 0, 2, 5)],
    ("tril of a vector", lambda m, x: m.tril(x), (3,)),
    ("diff", lambda m, x: m.diff(x), (2, 4)),
    ("diff twice", lambda m, x: m.diff(x, 2, axis=0), (4, 2)),
    ("diff ends", lambda m, x, y: m.diff(x, prepend=0.5, append=y), (2, 4), (2, 2)),
    ("diff none", lambda m, x: m.diff(x, 0), (3,)),
    ("diff of one", lambda m, x: m.diff(x), (2, 1)),
]
IDS = [name for name, *_ in CASES]


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_values_are_those_of_numpy(case):
    _, f, *shapes = case
    for dtype in (np.float64, np.float32, np.complex128, np.int32, np.bool_):
        xs = [np.asarray(10 * RNG.normal(size=s)).astype(dtype) for s in shapes]
        if xs[0].ndim > 1:
            xs[0] = np.asfortranarray(xs[0])[::-1]
        expected, got, tracked = f(np, *xs), f(gg, *xs), f(gg, *map(gg.tensor, xs))
        several = isinstance(expected, (list, tuple))
        for a, b, t in zip(expected, got, tracked) if several else [(expected, got, tracked)]:
            assert not isinstance(b, gg.Tensor) and isinstance(t, gg.Tensor)
            np.testing.assert_array_equal(a, b)
            np.testing.assert_array_equal(a, t.numpy())
            assert a.dtype == b.dtype == t.dtype
        if several:
            assert len(expected) == len(got) == len(tracked) and isinstance(got, list) == isinstance(expected, list)


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_derivatives(case):
    _, f, *shapes = case
    check(lambda *xs: f(gg, *xs), *[np.asarray(RNG.normal(size=s)) for s in shapes])


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_inside_vmap(case, device, put):
    name, f, *shapes = case
    if device != "cpu" and name in ("stack 0-d", "diff ends"):
        pytest.skip("the numbers in them become NumPy arrays")
    check_examples(lambda *xs: f(gg, *xs), *[put(RNG.normal(size=(2, *s))) for s in shapes])


def test_a_border_that_depends_on_the_example(put):
    check_examples(lambda x, v: gg.pad(x, 1, constant_values=v), put(RNG.normal(size=(3, 2, 2))), put(RNG.normal(size=3)))


def test_an_inferred_length_of_no_examples(put):
    assert gg.vmap(lambda x: gg.reshape(x, (3, -1)))(put(np.zeros((0, 2, 6)))).shape == (0, 3, 4)


@pytest.mark.parametrize(
    "case", [c for c in CASES if len(c) == 3 and "split" not in c[0] and "unstack" not in c[0] and "meshgrid" not in c[0]], ids=lambda c: c[0]
)
def test_complex_derivatives_are_transposes(case):
    complex_adjoint(lambda x: case[1](gg, x), RNG.normal(size=case[2]))


@pytest.mark.parametrize("name", ["concatenate", "stack", "roll", "moveaxis", "tril", "flip", "tile", "squeeze"])
def test_numpy_functions_reach_these(name):
    args = {
        "concatenate": ([gg.ones(2), np.ones(3)],),
        "stack": ([gg.ones(2), np.ones(2)],),
        "roll": (gg.ones(3), 1),
        "moveaxis": (gg.ones((2, 3)), 0, 1),
        "tile": (gg.ones(2), 2),
    }
    assert isinstance(getattr(np, name)(*args.get(name, (gg.ones((2, 1)),))), gg.Tensor)


# ------------------------------------------------------------------------------------------------- splitting and joining


def test_only_some_parts_of_a_split_are_used():
    x = RNG.normal(size=(2, 6))
    g = gg.grad(lambda v: gg.sum(gg.split(v, 3, axis=1)[1] ** 2))(x)
    expected = np.zeros_like(x)
    expected[:, 2:4] = 2 * x[:, 2:4]
    np.testing.assert_allclose(g, expected)
    check(lambda v: gg.split(v, 3, axis=1)[2] * gg.split(v, 3, axis=1)[0], x)


def test_parts_of_a_split_under_linearize_and_both_jacobians():
    f = lambda v: gg.split(v, 3)[1] ** 2 * gg.unstack(v)[0]
    x = RNG.normal(size=6)
    np.testing.assert_allclose(gg.jacobian(f, mode="forward")(x), gg.jacobian(f, mode="reverse")(x))
    t = RNG.normal(size=6)
    np.testing.assert_allclose(gg.linearize(f, x)[1](t), gg.jvp(f, x, t)[1])


def test_concatenate_gives_each_argument_its_dtype_back():
    a, b = gg.tensor(np.ones(2, np.float32), requires_grad=True), gg.tensor(np.ones(3), requires_grad=True)
    y = gg.concatenate([a, b, np.arange(2)])
    assert y.dtype == np.float64
    gg.sum(y * y).backward()
    assert a.grad.dtype == np.float32 and b.grad.dtype == np.float64
    assert gg.concatenate([a, a], dtype=np.float64).dtype == np.float64


def test_joining_keeps_no_arrays():
    x = gg.tensor(np.ones((2, 3)), requires_grad=True)
    for y in (gg.concatenate([x, x]), gg.reshape(x, 6), gg.transpose(x), gg.roll(x, 1, 0), gg.pad(x, 1)):
        assert y.node.y is None and all(v is None for v in y.node.vals)


# ------------------------------------------------------------------------------------------------- bugs that others had


def test_pad_with_nothing_on_an_axis_has_a_gradient():
    """HIPS/autograd #431: the gradient came back empty."""
    np.testing.assert_array_equal(gg.grad(lambda x: gg.sum(gg.pad(x, ((0, 0), (1, 1)))))(np.ones((3, 3))), np.ones((3, 3)))


@pytest.mark.parametrize("shape", [(4, 2), (5, 2), (7, 3), (4, 1), (1, 5), (2, 5)])
def test_trace_of_a_matrix_that_is_not_square(shape):
    """pytorch #171704: elements off the diagonal got a gradient when there are more rows than columns."""
    np.testing.assert_array_equal(gg.grad(gg.trace)(np.zeros(shape)), np.eye(*shape))


def test_diag_of_a_matrix_that_is_not_square_and_of_complex_numbers():
    """pytorch #4299 (a square gradient) and #48490 (no complex derivative)."""
    assert gg.grad(lambda x: gg.sum(gg.diag(x)))(np.ones((3, 5))).shape == (3, 5)
    assert gg.vjp(gg.diag, np.ones(2, complex))[1](np.eye(2) * 1j)[0].dtype == np.complex128


def test_diag_and_triangles_drop_nan_where_they_write_zero():
    x = np.array([[1.0, np.nan], [2.0, 3.0]])
    np.testing.assert_array_equal(gg.tril(x), np.tril(x))
    np.testing.assert_array_equal(gg.grad(lambda v: gg.sum(gg.tril(v) ** 2))(x), [[2.0, 0.0], [4.0, 6.0]])
    np.testing.assert_array_equal(gg.diag(np.array([np.inf, 1.0])), [[np.inf, 0.0], [0.0, 1.0]])


def test_gradients_of_a_constant_that_pads():
    check(lambda x, c: gg.pad(x, ((1, 0), (2, 1)), constant_values=gg.tensor(c) if type(c) is np.ndarray else c), RNG.normal(size=(2, 3)), np.array(0.7))
    x = np.ones((2, 3), np.float32)
    assert gg.pad(x, 1, constant_values=gg.tensor(np.float64(2.0))).dtype == np.float32


def test_sixteen_bits_accumulate_in_float32():
    """1000 * 0.1 in float16 would stop growing at its 11 bits."""
    x = np.ones(1, np.float16)
    g = gg.grad(lambda v: gg.sum(gg.astype(gg.tile(v, 5000), np.float32)) * 0.1)(x)
    np.testing.assert_allclose(g, 500, rtol=1e-3)


def test_bfloat16():
    ml_dtypes = pytest.importorskip("ml_dtypes")
    x = gg.tensor(np.ones((2, 3), ml_dtypes.bfloat16), requires_grad=True)
    y = gg.concatenate([gg.pad(gg.roll(x, 1, 0), 1).T, gg.ones((5, 2), dtype=ml_dtypes.bfloat16)], 1)
    gg.sum(gg.flip(y)).backward()
    assert x.grad.dtype == ml_dtypes.bfloat16
    np.testing.assert_array_equal(x.grad.numpy().astype(float), np.ones((2, 3)))


# ------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    "call, error, words",
    [
        (lambda x: gg.reshape(x, (4, 2)), ValueError, "cannot reshape"),
        (lambda x: gg.reshape(x, 6, order="F"), ValueError, "row-major"),
        (lambda x: gg.squeeze(x, 1), ValueError, "has length 3, expected 1"),
        (lambda x: gg.transpose(x, (0,)), ValueError, "expected each of its 2 axes once"),
        (lambda x: gg.transpose(x, (0, 0)), ValueError, "repeated"),
        (lambda x: gg.matrix_transpose(x[0]), ValueError, "at least 2 axes"),
        (lambda x: gg.moveaxis(x, (0, 1), 0), ValueError, "as many"),
        (lambda x: gg.concatenate([x, x[0]]), ValueError, "expected as many axes"),
        (lambda x: gg.concatenate([x, x[:, :2]]), ValueError, "must match exactly"),
        (lambda x: gg.concatenate([]), ValueError, "no arrays"),
        (lambda x: gg.concatenate([gg.sum(x)]), ValueError, "stack joins"),
        (lambda x: gg.concatenate([x], 2), ValueError, "axis 2 is out of bounds"),
        (lambda x: gg.stack([x, x[:1]]), ValueError, "all of one shape"),
        (lambda x: gg.split(x, 2, axis=1), ValueError, "array_split"),
        (lambda x: gg.array_split(x, 0), ValueError, "at least 1"),
        (lambda x: gg.vsplit(x[0], 1), ValueError, "at least 2 axes"),
        (lambda x: gg.pad(x, -1), ValueError, "slicing"),
        (lambda x: gg.pad(x, ((1, 1), (1, 1), (1, 1))), ValueError, "broadcast"),
        (lambda x: gg.pad(x, 1, mode="median"), ValueError, "expected 'constant'"),
        (lambda x: gg.pad(x, 1, constant_values=x), ValueError, "0-d"),
        (lambda x: gg.repeat(x, [1, 2], axis=1), ValueError, "broadcast"),
        (lambda x: gg.diag(gg.stack([x, x])), ValueError, "a vector or a matrix"),
        (lambda x: gg.tril(gg.sum(x)), ValueError, "0-d"),
        (lambda x: gg.diff(x, -1), ValueError, "at least 0"),
        (lambda x: gg.meshgrid(x, indexing="yx"), ValueError, "'xy' or 'ij'"),
    ],
)
def test_errors(call, error, words):
    for x in (np.ones((2, 3)), gg.tensor(np.ones((2, 3)), requires_grad=True)):
        with pytest.raises(error, match=words):
            call(gg.asarray(x))


def test_one_tensor_makes_all_results_tensors():
    t = gg.tensor([1.0, 2.0])
    for out in (gg.broadcast_arrays(t, np.ones((3, 1))), gg.meshgrid(t, np.ones(3)), gg.meshgrid(np.ones(3), t, sparse=True)):
        assert all(type(y) is gg.Tensor for y in out)
    assert not any(type(y) is gg.Tensor for y in gg.broadcast_arrays(np.ones(2), np.ones((3, 1))))


def test_split_speaks_of_itself():
    for sections in (0, -1):
        with pytest.raises(ValueError, match=rf"^split: got {sections} sections"):
            gg.split(np.ones(4), sections)
