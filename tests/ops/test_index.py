"""Indexing against NumPy's, its derivatives to second order, functional updates, the sums that a GPU uses, and what went wrong elsewhere."""

import types

import numpy as np
import pytest
from derivatives import check, complex_adjoint

import gpugrad as gg
from gpugrad.ops import index, keys
from gpugrad.ops.index import At

RNG = np.random.default_rng(0)
MASK = np.array([[True, False, True, False], [False, False, False, True], [True, True, False, False]])

KEYS = [
    0, -1, np.int32(1), slice(1, None), slice(None, None, -2), slice(5, 2), None, Ellipsis, (), (1, 2), (0, Ellipsis, 1), (slice(None), None, -1), (Ellipsis, 0), (1, 2, 3),
    (slice(2, 0, -1), slice(None, None, 3)), [0, 2, 0], [[0, 1], [2, 2]], [], np.array([], int), range(2), np.array(1), np.array([-1, 2, -1]), np.array([2], np.uint8),
    ([0, 1, 0], [3, 3, 3]), ([0], [1, 1]), (slice(None), [0, 0]), ([1, 1], slice(None, 2)), ([0, 2, 2], slice(None), [1, 0, 0]), (0, slice(None), [1, 1]), (slice(None), 1, [4, 0]),
    ([0, 1], None, 2), (None, [0, 0], Ellipsis, [1, 1]), (Ellipsis, [0, 0]), ([[0], [2]], [1, 1, 3]), ((0, 1), slice(None)), (np.array([1, 1]), Ellipsis),
    MASK, MASK[:, 0], ~(MASK | True), (slice(None), MASK[0]), (MASK[:, 1], 2), (Ellipsis, np.array([True, False, True, False, True])), ([0, 2, 2], MASK[0][[0, 1, 2, 0]], 1),
    (MASK[:, 0], [1, 1]), (MASK, None), (MASK, [0, 0, 1, 1, 0]), True, (False, 0), np.array(True), (np.True_, [0, 0]), (MASK, slice(1, None)),
]  # fmt: skip


def ints_to_tensors(key):
    """The same key with Tensors for its integers and index arrays."""
    if isinstance(key, tuple):
        return tuple(map(ints_to_tensors, key))
    if isinstance(key, slice):
        return slice(*(None if k is None else gg.tensor(k) for k in (key.start, key.stop, key.step)))
    if isinstance(key, (int, np.integer, np.ndarray)) and not isinstance(key, (bool, np.bool_)):
        return gg.asarray(key)
    return key


@pytest.mark.parametrize("key", KEYS, ids=repr)
def test_values_are_those_of_numpy(key):
    x = RNG.normal(size=(3, 4, 5))
    for v in (x, np.asfortranarray(x)[::-1], np.broadcast_to(x[0], (3, 4, 5)), x.astype(int)):
        expected = v[key]
        assert not isinstance(gg.getitem(v, key), gg.Tensor)
        np.testing.assert_array_equal(gg.getitem(v, key), expected)
        for t in (gg.tensor(v)[key], gg.tensor(v)[ints_to_tensors(key)]):
            np.testing.assert_array_equal(t.numpy(), expected)
            assert t.dtype == expected.dtype
        if type(ints_to_tensors(key)) is gg.Tensor:
            assert type(gg.getitem(v, ints_to_tensors(key))) is gg.Tensor


@pytest.mark.parametrize("key", KEYS, ids=repr)
def test_derivatives(key):
    x = RNG.normal(size=(3, 4, 5))
    y, (g,) = x[key], gg.vjp(lambda v: gg.getitem(v, key), x)[1](np.asarray(x[key]))
    expected = np.zeros_like(x)
    np.add.at(expected, key, y)
    np.testing.assert_allclose(g, expected, rtol=1e-12, atol=1e-14)
    t = RNG.normal(size=x.shape)
    np.testing.assert_array_equal(gg.jvp(lambda v: gg.getitem(v, key), x, t)[1], t[key])
    f = lambda v: gg.sum(gg.sin(gg.getitem(v, key)) ** 2)
    weights = np.zeros_like(x)
    np.add.at(weights, key, np.ones_like(x)[key])
    for mode in ("forward-over-reverse", "reverse-over-reverse"):
        np.testing.assert_allclose(gg.hvp(f, x, t, mode=mode), weights * 2 * np.cos(2 * x) * t, rtol=1e-10, atol=1e-12)
    second = gg.jvp(lambda v: gg.jvp(f, v, t)[1], x, t)[1]
    np.testing.assert_allclose(second, np.sum(weights * 2 * np.cos(2 * x) * t * t), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("key", [1, [0, 2, 0], MASK, (Ellipsis, [1, 1]), ([0, 1], slice(None), [2, 2])], ids=repr)
def test_complex_derivatives_are_transposes(key):
    complex_adjoint(lambda v: gg.getitem(v, key), RNG.normal(size=(3, 4, 5)))


def test_random_keys():
    """Any mixture of integers, slices, new axes, Ellipsis, masks and arrays that NumPy takes."""
    x = RNG.normal(size=(3, 4, 2, 3))
    tried = 0
    while tried < 300:
        n = RNG.integers(1, 5)
        key, axis, seen = [], 0, False
        while len(key) < n and axis < 4:
            kind = RNG.integers(7)
            length = x.shape[axis]
            if kind == 0:
                key.append(int(RNG.integers(-length, length)))
            elif kind == 1:
                key.append(slice(*(None if RNG.random() < 0.4 else int(RNG.integers(-4, 5)) or 1 for _ in range(3))))
            elif kind == 2:
                key.append(None)
                continue
            elif kind == 3 and not seen:
                key.append(Ellipsis)
                seen = True
                break
            elif kind == 4:
                key.append(RNG.random(length) < 0.5)
            else:
                key.append(RNG.integers(-length, length, size=[(2,), (1,), (3, 1), (3, 2), ()][RNG.integers(5)]))
            axis += 1
        key = tuple(key)
        try:
            y = x[key]
        except IndexError:
            continue
        tried += 1
        np.testing.assert_array_equal(gg.getitem(x, key), y)
        expected = np.zeros_like(x)
        np.add.at(expected, key, y)
        np.testing.assert_allclose(gg.vjp(lambda v, key=key: gg.getitem(v, key), x)[1](np.asarray(y))[0], expected, rtol=1e-12, atol=1e-14)
        check_gpu_path(x, key)
        changed = x.copy()
        v = RNG.normal(size=y.shape)
        changed[key] = v
        np.testing.assert_array_equal(At(x)[key].set(v), changed)


# ------------------------------------------------------------------------------------------------- the sums that a GPU uses


def check_gpu_path(x, key):
    """The same rows and places that the transpose sums on a GPU, here in NumPy arrays."""
    arrays, params = keys.parse(x, key)
    places, count, item = keys.places_of(np, arrays, params["key"], params["source"])
    g = RNG.normal(size=np.shape(x[key]))
    y = index.kernels._segment_sum(g.reshape(places.size, int(np.prod(item))), places.ravel(), count=count).reshape(x.shape)
    expected = np.zeros_like(x)
    np.add.at(expected, key, g)
    np.testing.assert_allclose(y, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("key", KEYS, ids=repr)
@pytest.mark.parametrize("dtype", [np.float64, np.float16])
def test_scatter_add_as_on_a_gpu(key, dtype, monkeypatch):
    """With another namespace than NumPy itself the same operation takes the way of the segment sums."""
    for module in (index, keys):
        monkeypatch.setattr(module, "namespace", lambda _: types.SimpleNamespace(**vars(np)))
    x = np.zeros((3, 4, 5), dtype)
    g = RNG.normal(size=np.shape(x[key])).astype(dtype)
    expected = x.astype(float)
    np.add.at(expected, key, g)
    arrays, params = keys.parse(x, key)
    y = index._scatter_add(g, *arrays, **params)
    assert y.dtype == dtype and y.shape == x.shape
    np.testing.assert_allclose(y, expected, rtol=1e-3 if dtype is np.float16 else 1e-13, atol=1e-13)


@pytest.mark.parametrize("n, count, width", [(0, 3, 2), (1, 3, 2), (2, 1, 1), (7, 3, 0), (64, 1, 3), (65, 4, 1), (1000, 7, 2), (100, 1000, 1)])
def test_segment_sum(n, count, width):
    values, places = RNG.normal(size=(n, width)), RNG.integers(0, count, n)
    expected = np.zeros((count, width))
    np.add.at(expected, places, values)
    np.testing.assert_allclose(index.kernels.segment_sum(values, places, count=count), expected, rtol=1e-11, atol=1e-12)


def test_segment_sum_keeps_infinities_where_they_are():
    y = index.kernels._segment_sum(np.array([[np.inf], [1.0], [np.nan], [2.0], [3.0]]), np.array([0, 1, 2, 1, 3]), count=4)
    np.testing.assert_array_equal(y.ravel(), [np.inf, 3.0, np.nan, 3.0])


# ------------------------------------------------------------------------------------------------- functional updates


UPDATE_KEYS = [
    0,
    slice(None, None, -1),
    (slice(1, 3), 2),
    [0, 2, 0],
    (slice(None), [1, 1, 0]),
    ([0, 0, 2], [1, 1, 3]),
    MASK,
    MASK[:, 0],
    ([0, 0], None),
    Ellipsis,
    [],
]


@pytest.mark.parametrize("key", UPDATE_KEYS, ids=repr)
def test_set_add_multiply_values(key):
    x = RNG.normal(size=(3, 4))
    for v in (RNG.normal(size=x[key].shape), 2.5, RNG.normal(size=(1, 1, 1, 1))):
        expected, before = x.copy(), x.copy()
        expected[key] = v if np.ndim(v) < 4 else v.item()
        np.testing.assert_array_equal(At(x)[key].set(v), expected)
        np.testing.assert_array_equal(gg.tensor(x).at[key].set(v).numpy(), expected)
        expected = x.copy()
        np.add.at(expected, key, v if np.ndim(v) < 4 else v.item())
        np.testing.assert_allclose(gg.tensor(x).at[key].add(v).numpy(), expected, rtol=1e-14)
        expected = x.copy()
        np.multiply.at(expected, key, v if np.ndim(v) < 4 else v.item())
        np.testing.assert_allclose(gg.tensor(x).at[key].multiply(v).numpy(), expected, rtol=1e-14)
        np.testing.assert_array_equal(x, before)
    np.testing.assert_array_equal(At(x)[key].get(), x[key])


@pytest.mark.parametrize("key", UPDATE_KEYS, ids=repr)
def test_set_add_multiply_derivatives(key):
    x = RNG.normal(size=(3, 4))
    v = RNG.normal(size=x[key].shape)
    check(lambda x, v: At(x)[key].set(v), x, v)
    check(lambda x, v: At(x)[key].add(v), x, v)
    check(lambda x, v: At(x)[key].multiply(v), x, v)
    check(lambda x, v: At(x)[key].set(v), x, np.array(0.3))
    check(lambda v: At(x)[key].multiply(v), np.array(0.3))


def test_add_and_set_on_the_tape():
    t, v = gg.tensor(np.ones(3), requires_grad=True), gg.tensor(np.array([2.0, 3.0]), requires_grad=True)
    gg.sum(t.at[[1, 1]].add(v) ** 2).backward()
    np.testing.assert_array_equal(t.grad.numpy(), [2, 12, 2])
    np.testing.assert_array_equal(v.grad.numpy(), [12, 12])


def test_set_where_many_write_one_element():
    """The last value stays. pytorch #473 and #146299: the values written over got a derivative, too."""
    idx = np.array([0, 0, 1, 0])
    x, v = np.zeros(3), np.arange(1.0, 5.0)
    f = lambda x, v: At(x)[idx].set(v)
    np.testing.assert_array_equal(f(x, v), [4, 3, 0])
    gx, gv = gg.grad(lambda x, v: gg.sum(f(x, v)), (0, 1))(x, v)
    np.testing.assert_array_equal(gx, [0, 0, 1])
    np.testing.assert_array_equal(gv, [0, 0, 1, 1])


def test_multiply_by_zero_at_one_element():
    """jax #12469: the derivative of scatter_mul divided by what was there. Here the others' product remains."""
    g = gg.grad(lambda v: At(np.ones(2))[[0, 0, 0]].multiply(v)[0])(np.array([0.0, 2.0, 3.0]))
    np.testing.assert_array_equal(g, [6, 0, 0])


def test_updates_keep_nan_where_it_is():
    x = np.array([np.nan, 1.0, np.inf])
    np.testing.assert_array_equal(At(x)[0].set(2.0), [2.0, 1.0, np.inf])
    np.testing.assert_array_equal(gg.grad(lambda v: gg.sum(At(v)[[0, 0]].set(2.0) ** 2))(np.array([np.nan, 1.0])), [0.0, 2.0])
    np.testing.assert_array_equal(At(np.zeros(2))[[0, 0, 1]].set(np.array([np.nan, -0.0, -0.0])), [-0.0, -0.0])
    assert np.signbit(At(np.zeros(2))[[0, 0, 1]].set(np.array([np.nan, -0.0, -0.0]))).all()


def test_updates_keep_the_dtype():
    assert At(np.zeros(3, np.float32))[0].add(np.float64(2)).dtype == np.float32
    assert At(np.zeros(3, np.uint8))[0].set(3).dtype == np.uint8
    assert At(np.zeros(3, complex))[[0, 0]].set(1.0).dtype == complex
    x, v = gg.tensor(np.zeros(3, np.float32), requires_grad=True), gg.tensor(np.ones(2), requires_grad=True)
    gg.sum(x.at[[0, 0]].add(v)).backward()
    assert x.grad.dtype == np.float32 and v.grad.dtype == np.float64


def test_sixteen_bits_accumulate_in_float32():
    zeros = np.zeros(5000, int)
    np.testing.assert_allclose(At(np.zeros(2, np.float16))[zeros].add(np.float16(1)), [5000, 0])
    np.testing.assert_allclose(gg.vjp(lambda x: x[zeros], np.zeros(2, np.float16))[1](np.ones(5000, np.float16))[0], [5000, 0])
    assert At(np.zeros(1, np.int16))[zeros].add(1).dtype == np.int16


def test_bfloat16():
    ml_dtypes = pytest.importorskip("ml_dtypes")
    x = gg.tensor(np.arange(3.0).astype(ml_dtypes.bfloat16), requires_grad=True)
    gg.sum(gg.sort(x[[2, 2, 1]])).backward()
    np.testing.assert_array_equal(x.grad.numpy().astype(float), [0, 1, 2])
    big = At(np.zeros(2, ml_dtypes.bfloat16))[np.zeros(512, int)].add(np.ones((), ml_dtypes.bfloat16))
    np.testing.assert_array_equal(big.astype(float), [512, 0])
    assert At(np.zeros(2, np.float32))[0].set(np.ones((), ml_dtypes.bfloat16)).dtype == np.float32


# ------------------------------------------------------------------------------------------------- Tensors as indices, masks


def test_indices_may_be_tensors():
    x, i = np.arange(6.0).reshape(2, 3), gg.tensor(np.array([1, 1]))
    for y in (
        gg.getitem(x, i),
        gg.take(x, i, axis=0),
        gg.take_along_axis(x, gg.tensor(np.array([[1], [0]])), 1),
        gg.getitem(x, (gg.tensor(0), i)),
        gg.compress(i, x, axis=1),
    ):
        assert type(y) is gg.Tensor
    t = gg.tensor(x, requires_grad=True)
    gg.sum(t[i, gg.tensor(2)]).backward()
    np.testing.assert_array_equal(t.grad.numpy(), [[0, 0, 0], [0, 0, 2]])
    u = gg.tensor(x)
    u[gg.tensor(1), gg.tensor([0, 2])] = 7.0
    np.testing.assert_array_equal(u.numpy(), [[0, 1, 2], [7, 4, 7]])


def test_mask_of_the_tracked_array_itself():
    f = lambda x: gg.sum(x[x > 0] ** 2)
    x = np.array([1.0, -2.0, 3.0])
    np.testing.assert_array_equal(gg.grad(f)(x), [2, 0, 6])
    np.testing.assert_array_equal(gg.hessian(f)(x), np.diag([2.0, 0, 2.0]))


def test_indices_that_come_of_the_input():
    """jax #1104: an index computed from what is differentiated."""
    f = lambda x: gg.sum(At(np.zeros(3))[gg.astype(x - 1, np.int32)].set(x) ** 2)
    np.testing.assert_array_equal(gg.grad(f)(np.array([1.0, 2.0, 3.0])), [2, 4, 6])
    np.testing.assert_array_equal(gg.jvp(f, np.array([1.0, 2.0, 3.0]), np.ones(3))[1], 12)


# ------------------------------------------------------------------------------------------------- bugs that others had


def test_repeated_indices_accumulate():
    """HIPS/autograd #39, pytorch #1528: only the last copy of a repeated element got a gradient."""
    np.testing.assert_array_equal(gg.grad(lambda x: gg.sum(x[[0, 0]]))(np.ones(1)), [2])
    np.testing.assert_array_equal(gg.grad(lambda x: x[[0, 0]][0])(np.ones(1)), [1])


def test_take_along_axis_broadcasts():
    """jax #1521: indices broadcast against a size-1 axis lost their gradient."""
    idx = np.repeat(np.arange(3), 10).reshape(30, 1)
    f = lambda x: gg.sum(gg.take_along_axis(x * np.arange(3.0).reshape(1, 3), idx, -1))
    assert gg.grad(f)(1.0) == 30 and gg.jvp(f, 1.0, 1.0)[1] == 30


def test_a_mask_that_is_all_false():
    """pytorch #16635 (a crash in backward) and #10000 (assigning to nothing)."""
    x = gg.tensor(RNG.normal(size=(4, 3)), requires_grad=True)
    gg.sum(x[np.zeros(4, bool)]).backward()
    np.testing.assert_array_equal(x.grad.numpy(), np.zeros((4, 3)))
    np.testing.assert_array_equal(At(np.ones(2))[np.zeros(2, bool)].set(5.0), [1, 1])


def test_a_mask_followed_by_a_new_axis():
    """pytorch #158413: index_put wrote along the wrong axis."""
    x = np.array([[1.0, 2.0], [3.0, 4.0]])
    np.testing.assert_array_equal(At(x)[np.array([True, False]), None].set(0.0), [[0, 0], [3, 4]])


def test_what_is_not_picked_has_no_part_in_the_derivative():
    """pytorch #4132: 0 * inf behind a mask gave nan."""
    g = gg.grad(lambda x: gg.sum((x / np.array([0.0, 1.0]))[np.array([False, True])]))
    with np.errstate(divide="ignore"):
        np.testing.assert_array_equal(g(np.ones(2)), [0, 1])


# ------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    "call, error, words",
    [
        (lambda x: x[3], IndexError, "index 3 is out of bounds"),
        (lambda x: x[[0, 5]], IndexError, "getitem: got index 5 at position 1, expected -2 to 1"),
        (lambda x: x[..., np.array([[0, 1], [-4, 7]])], IndexError, r"getitem: got index -4 at position \(1, 0\), expected -3 to 2"),
        (lambda x: x[[0], [0], [0]], IndexError, "too many indices"),
        (lambda x: x[:0][[0]], IndexError, "expected none, for there is nothing to pick from"),
        (lambda x: x[0, 1, 2], IndexError, "too many indices"),
        (lambda x: x[1.0], IndexError, "valid indices"),
        (lambda x: x["a"], IndexError, "valid indices"),
        (lambda x: x[x], IndexError, "integer"),
        (lambda x: x[gg.sum(x)], IndexError, "integer"),
        (lambda x: x[np.ones(5, bool)], IndexError, "boolean"),
        (lambda x: x[:: gg.tensor(0)], ValueError, "zero"),
        (lambda x: gg.take(x, [7]), IndexError, "got index 7 at position 0, expected -6 to 5"),
        (lambda x: gg.take(x, [0.5]), IndexError, "expected integers"),
        (lambda x: gg.take(x, [0], mode="wrong"), ValueError, "expected 'raise', 'wrap' or 'clip'"),
        (lambda x: gg.take(x[:0], [0], axis=0, mode="wrap"), IndexError, "empty"),
        (lambda x: gg.take_along_axis(x, np.array([0])), ValueError, "as many axes"),
        (lambda x: gg.take_along_axis(x, np.array([[4]])), IndexError, r"got index 4 at position \(0, 0\), expected -3 to 2"),
        (lambda x: gg.compress([[True]], x), ValueError, "one axis"),
        (lambda x: gg.delete(x, 4, axis=0), IndexError, "out of bounds"),
        (lambda x: gg.insert(x, 4, 0.0, axis=0), IndexError, "expected -2 to 2"),
        (lambda x: x.at[0].set([1.0, 2.0]), ValueError, r"shape \(2,\), expected one that broadcasts to .* \(3,\)"),
        (lambda x: x.at[0, 0].add([[1.0, 2.0]]), ValueError, "broadcasts"),
        (lambda x: x.at[5].add(1.0), IndexError, "out of bounds"),
        (lambda x: x.at[0].set(1j), TypeError, "complex128 for an array of float64"),
        (lambda x: gg.astype(x, int).at[0].add(1.5), TypeError, "astype"),
        (lambda x: gg.insert(gg.astype(x, int), 0, 1.5), TypeError, "astype"),
    ],
)
def test_errors(call, error, words):
    for requires_grad in (False, True):
        with pytest.raises(error, match=words):
            call(gg.tensor(np.ones((2, 3)), requires_grad=requires_grad))


# ------------------------------------------------------------------------------------------------- large ones, which kernels sum

ROWS, COLUMNS = RNG.integers(-30, 30, 700), RNG.integers(-20, 20, 700)
LARGE = [
    ROWS, (ROWS, COLUMNS), (slice(None), COLUMNS), (slice(None), COLUMNS, Ellipsis), (Ellipsis, COLUMNS % 9), (slice(None), slice(None), COLUMNS % 9), (ROWS[:, None], COLUMNS[:50]), (ROWS, slice(None), COLUMNS % 9), (slice(2, 20), COLUMNS),
    (ROWS, None), (None, ROWS), (ROWS, 3), (5, COLUMNS), (slice(None), COLUMNS, COLUMNS % 9), (ROWS.reshape(7, 100), slice(None), slice(None)), (ROWS.astype(np.int8), COLUMNS.astype(np.int16)), (ROWS % 30).astype(np.uint8),
    (ROWS % 30).astype(np.uint64), (ROWS[::-1], COLUMNS[::-1]), (RNG.random((30, 20)) < 0.5,), (RNG.random(30) < 0.5, slice(1, None)), (slice(None, None, -1), COLUMNS), np.array(3), ROWS[:0],
]  # fmt: skip


@pytest.mark.parametrize("key", LARGE, ids=lambda k: str(k)[:40])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, complex, np.int64, ">f8"], ids=str)
def test_large_sums_by_any_key(key, dtype, device):
    """Against NumPy's, in float64."""
    x = (10 * RNG.normal(size=(30, 20, 9))).astype(dtype)
    g = (10 * RNG.normal(size=x[key].shape)).astype(dtype)
    wide = np.int64 if dtype is np.int64 else complex
    expected = np.zeros(x.shape, wide)
    np.add.at(expected, key, g.astype(wide))
    put = lambda a: gg.tensor(np.asarray(a), device=device) if dtype != ">f8" or device == "cpu" else gg.tensor(np.asarray(a, float), device=device)
    on_device = lambda k: put_index(k, device)
    t = tuple(map(on_device, key)) if isinstance(key, tuple) else on_device(key)
    np.testing.assert_array_equal(put(x)[t].numpy(), x[key])
    y = put(np.zeros_like(x)).at[t].add(put(g)).numpy()
    tolerance = {"float16": 2e-3, "float32": 1e-6}.get(str(np.dtype(dtype)), 1e-13)
    np.testing.assert_allclose(y, expected, rtol=tolerance, atol=tolerance * 100)


def put_index(k, device):
    return gg.tensor(k, device=device) if isinstance(k, np.ndarray) else k


def test_large_sums_have_derivatives_of_any_order():
    x, g = RNG.normal(size=(30, 20)), RNG.normal(size=(700, 20))
    f = lambda v: gg.sum(gg.sin(gg.getitem(v, ROWS)) ** 2 * g)
    weights = np.zeros_like(x)
    np.add.at(weights, ROWS, g)
    t = RNG.normal(size=x.shape)
    np.testing.assert_allclose(gg.grad(f)(x), weights * np.sin(2 * x), rtol=1e-10, atol=1e-12)
    for mode in ("forward-over-reverse", "reverse-over-reverse"):
        np.testing.assert_allclose(gg.hvp(f, x, t, mode=mode), weights * 2 * np.cos(2 * x) * t, rtol=1e-10, atol=1e-12)


def test_a_large_table_of_which_few_elements_are_named_needs_no_numbering():
    """Only what is picked is numbered, however large the array is (a view of one element here)."""
    x = np.broadcast_to(np.float32(1), (10**5, 10**5))
    places, count, item = keys.places_of(np, [np.array([7, 10**5 - 1])], (slice(2, 9, 3), keys.ARRAY), x.shape)
    np.testing.assert_array_equal(places, [[200007, 299999], [500007, 599999], [800007, 899999]])
    assert count == 10**10 and item == ()
