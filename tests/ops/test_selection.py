"""Sorting and selection against NumPy's, their derivatives, and many examples at once."""

import numpy as np
import pytest
from derivatives import check, check_examples

import gpugrad as gg

RNG = np.random.default_rng(0)
MASK = np.array([[True, False, True, False], [False, False, False, True], [True, True, False, False]])

SELECTIONS = [
    ("take", lambda m, x: m.take(x, [3, 0, 3, -1]), (3, 4)),
    ("take axis", lambda m, x: m.take(x, [[0, 1], [1, 1]], axis=-1), (3, 4)),
    ("take one", lambda m, x: m.take(x, 2, axis=1), (3, 4)),
    ("take wrap", lambda m, x: m.take(x, [-7, 9, 1], axis=0, mode="wrap"), (3, 4)),
    ("take clip", lambda m, x: m.take(x, [-7, 9, 1], axis=1, mode="clip"), (3, 4)),
    ("take flat wrap", lambda m, x: m.take(x, np.array([13, 255], np.uint8), mode="wrap"), (3, 4)),
    ("take_along_axis", lambda m, x: m.take_along_axis(x, np.array([[0, 0], [1, 1], [2, 0]]), axis=1), (3, 4)),
    ("take_along_axis broadcast", lambda m, x: m.take_along_axis(x, np.array([[2], [0]]), axis=0), (3, 4)),
    ("take_along_axis flat", lambda m, x: m.take_along_axis(x, np.array([2, 2, 7]), axis=None), (3, 4)),
    ("sort", lambda m, x: m.sort(x), (3, 4)),
    ("sort axis", lambda m, x: m.sort(x, axis=0), (3, 4)),
    ("sort flat", lambda m, x: m.sort(x, axis=None), (3, 4)),
    ("sort empty", lambda m, x: m.sort(x), (3, 0)),
    ("compress", lambda m, x: m.compress([True, False, True], x, axis=1), (3, 4)),
    ("compress flat", lambda m, x: m.compress([0, 1, 1], x), (3, 4)),
    ("extract", lambda m, x: m.extract(MASK, x), (3, 4)),
    ("delete", lambda m, x: m.delete(x, 1, axis=0), (3, 4)),
    ("delete many", lambda m, x: m.delete(x, [0, -1, 0], axis=1), (3, 4)),
    ("delete slice", lambda m, x: m.delete(x, slice(None, None, 3)), (3, 4)),
    ("delete mask", lambda m, x: m.delete(x, MASK[0], axis=1), (3, 4)),
    ("delete none", lambda m, x: m.delete(x, [], axis=1), (3, 4)),
    ("insert", lambda m, x: m.insert(x, 1, 9.0, axis=1), (3, 4)),
    ("insert row", lambda m, x: m.insert(x, -1, [1.0, 2.0, 3.0, 4.0], axis=0), (3, 4)),
    ("insert many", lambda m, x: m.insert(x, [0, 4, 0], [1.0, 2.0, 3.0], axis=1), (3, 4)),
    ("insert flat", lambda m, x: m.insert(x, [12, 3], 5.0), (3, 4)),
    ("insert several in one place", lambda m, x: m.insert(x, 2, [7.0, 8.0]), (5,)),
    ("insert at one in a list", lambda m, x: m.insert(x, [1], [[1.0], [2.0], [3.0]], axis=1), (3, 4)),
    ("insert matrix at an integer", lambda m, x: m.insert(x, 1, [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], axis=1), (3, 4)),
    ("insert slice", lambda m, x: m.insert(x, slice(0, 3, 2), 5.0, axis=0), (3, 4)),
    ("insert mask", lambda m, x: m.insert(x, MASK[0], 5.0, axis=1), (3, 4)),
    ("insert an array", lambda m, x, y: m.insert(x, [1, 1], y, axis=0), (3, 4), (2, 4)),
]  # fmt: skip


@pytest.mark.parametrize("case", SELECTIONS, ids=lambda c: c[0])
def test_selections(case):
    _, f, *shapes = case
    xs = [RNG.normal(size=s) for s in shapes]
    check(lambda *v: f(gg, *v), *xs)
    for dtype in (np.float32, np.int64, complex):
        values = [(10 * x).astype(dtype) for x in xs]
        if dtype is np.int64 and "insert" in case[0]:
            continue
        expected, got, tracked = f(np, *values), f(gg, *values), f(gg, *map(gg.tensor, values))
        assert not isinstance(got, gg.Tensor) and got.dtype == expected.dtype == tracked.dtype
        np.testing.assert_array_equal(got, expected)
        np.testing.assert_array_equal(tracked.numpy(), expected)


def test_sort_gives_equal_elements_their_own_derivatives():
    x = np.array([2.0, 1.0, 2.0, np.nan])
    np.testing.assert_array_equal(gg.grad(lambda v: gg.sum(gg.sort(v)[:3] * np.array([1.0, 10.0, 100.0])))(x), [10, 1, 100, 0])
    np.testing.assert_array_equal(gg.argsort(np.array([2, 1, 2, 1])), [1, 3, 0, 2])
    assert gg.argsort(gg.tensor(x, requires_grad=True)).node is None
    np.testing.assert_array_equal(np.argsort(gg.tensor(x), kind="quicksort").numpy(), np.argsort(x, kind="stable"))


@pytest.mark.parametrize("case", SELECTIONS, ids=lambda c: c[0])
def test_selections_inside_vmap(case, device, put):
    """Values and pullbacks of many examples are those of a loop."""
    _, f, *shapes = case
    if device != "cpu" and ("insert" in case[0] or "mask" in case[0]):
        pytest.skip("their values and masks are NumPy's")
    check_examples(lambda *v: f(gg, *v), *[put(RNG.normal(size=(3, *s))) for s in shapes])


def host(x):
    return gg.asarray(x).numpy()


def test_order_depends_on_the_example(put):
    x = put(np.array([[3.0, 1.0, 2.0, 1.0], [0.0, np.nan, -1.0, 5.0]]))
    np.testing.assert_array_equal(host(gg.vmap(gg.argsort)(x)), [[1, 3, 2, 0], [2, 0, 3, 1]])
    np.testing.assert_array_equal(host(gg.vmap(gg.argsort)(x[:, 0])), [[0], [0]])  # of a number too, as NumPy's
    weights = put(np.array([1.0, 10.0, 100.0, 1000.0]))
    np.testing.assert_array_equal(host(gg.vmap(gg.grad(lambda x: gg.sum(gg.sort(x) * weights)))(x)), [[1000, 1, 100, 10], [10, 1000, 1, 100]])
    of = lambda x, i: gg.take(x, i, mode="wrap")
    indices = put(np.array([[7, -1], [0, 4]]))
    np.testing.assert_array_equal(host(gg.vmap(of)(x, indices)), [[1, 1], [0, 0]])
    np.testing.assert_array_equal(host(gg.vmap(of, (None, 0))(x[0], indices)), [[1, 1], [3, 3]])
