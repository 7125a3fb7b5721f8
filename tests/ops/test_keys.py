"""Indexing inside vmap, against a loop: keys of any kind, index arrays that depend on the example or do not, and what is refused."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import gpugrad as gg
from gpugrad import tape
from gpugrad.ops import keys
from gpugrad.ops.index import At

RNG = np.random.default_rng(0)
EXAMPLES = 3
SHAPE = (3, 4, 2, 3)
INDEX_SHAPES = [(2,), (1,), (3, 1), (3, 2), ()]


def random_key() -> tuple[Any, ...]:
    """Integers, slices, new axes, Ellipsis, masks, truth values, and index arrays, of which each may depend on the example (a list of one for each)."""
    key: list[Any] = []
    axis, n = 0, RNG.integers(1, 6)
    while len(key) < n and axis < len(SHAPE):
        kind, length = RNG.integers(10), SHAPE[axis]
        if kind == 0:
            key.append(int(RNG.integers(-length, length)))
        elif kind == 1:
            key.append(slice(*(None if RNG.random() < 0.4 else int(RNG.integers(-4, 5)) or 1 for _ in range(3))))
        elif kind in (2, 3, 4):
            key.append((None, True, Ellipsis)[kind - 2])
            axis += kind == 4  # what follows fits the axis all the same, or NumPy refuses it
            continue
        elif kind == 5:
            shape = SHAPE[axis : axis + RNG.integers(1, 3)]
            key.append(RNG.random(shape) < 0.6)
            axis += len(shape) - 1
        else:
            shape = INDEX_SHAPES[RNG.integers(len(INDEX_SHAPES))]
            arrays = RNG.integers(-length, length, (EXAMPLES, *shape))
            key.append(list(arrays) if RNG.random() < 0.6 else arrays[0])
        axis += 1
    return tuple(key)


def of_example(key: tuple[Any, ...], i: int) -> tuple[Any, ...]:
    return tuple(k[i] if isinstance(k, list) else k for k in key)


def random_keys(count: int) -> Iterator[tuple[Any, ...]]:
    """Those that NumPy takes, and which a loop and vmap may treat differently."""
    found = 0
    while found < count:
        key = random_key()
        try:
            picked = np.stack([np.zeros(SHAPE)[of_example(key, i)] for i in range(EXAMPLES)])
        except IndexError:
            continue
        if picked.size and any(isinstance(k, (list, np.ndarray, bool)) for k in key):
            found += 1
            yield key


def has_mask(key: tuple[Any, ...]) -> bool:
    return any(isinstance(k, np.ndarray) and k.dtype == bool for k in key)


def batched_key(key: tuple[Any, ...], put: Callable[[Any], Any]) -> tuple[list[Any], Callable[[list[Any]], tuple[Any, ...]]]:
    """The arrays that depend on the example, and the key that holds theirs of one example."""
    own = [put(np.stack(k)) for k in key if isinstance(k, list)]

    def filled(arrays: list[Any]) -> tuple[Any, ...]:
        rest = iter(arrays)
        return tuple(next(rest) if isinstance(k, list) else put(k) if isinstance(k, np.ndarray) else k for k in key)

    return own, filled


def results(x: Any, key: tuple[Any, ...], values: list[Any], g: Any, t: Any) -> list[Any]:
    """What is picked, both derivatives of it, updates by each of the values, and their pullbacks."""
    updates = [lambda x, v: At(x)[key].set(v), lambda x, v: At(x)[key].add(v), lambda x, v: At(x)[key].multiply(v)]
    get = lambda x: gg.getitem(x, key)
    changed = [f(x, v) for f in updates for v in values]
    pulled = [d for f in updates for v in values for d in gg.vjp(f, x, v)[1](t)]
    return [get(x), *gg.vjp(get, x)[1](g), gg.jvp(get, x, t)[1], *changed, *pulled]


@pytest.mark.parametrize("of_x", [True, False], ids=["x depends on the example", "x does not"])
def test_random_keys(of_x: bool, device: str, put: Callable[[Any], Any]) -> None:
    for key in random_keys(40):
        own, filled = batched_key(key, put)
        if not (own or of_x) or (device != "cpu" and has_mask(key) and sum(isinstance(k, (list, np.ndarray, bool)) for k in key) > 1):
            continue  # CuPy takes no other array beside a mask
        x, t = (put(RNG.normal(size=s)) for s in ((EXAMPLES, *SHAPE) if of_x else SHAPE, SHAPE))
        picked = np.zeros(SHAPE)[of_example(key, 0)].shape
        g, v, vs = (put(RNG.normal(size=s)) for s in (picked, picked[-1:], (EXAMPLES, *picked[1:])))
        f = lambda x, v_own, *arrays, k=filled: results(x, k(list(arrays)), [v_own, v], g, t)  # noqa: B023
        got = gg.vmap(f, (0 if of_x else None, *[0] * (1 + len(own))))(x, vs, *own)
        for i in range(EXAMPLES):
            for a, b in zip(got, f(x[i] if of_x else x, vs[i], *[a[i] for a in own]), strict=True):
                np.testing.assert_allclose(host(a)[i], host(b), rtol=1e-12, atol=1e-13, err_msg=repr(key))


def host(x: Any) -> Any:
    return gg.asarray(x).numpy()


def test_nested_and_differentiated_from_outside(put: Callable[[Any], Any]) -> None:
    """Two axes of examples, of which one picks and the other is picked from; and a pullback through them."""
    x, i = put(RNG.normal(size=(4, 2, 5))), put(np.array([[1, 3, 1], [0, 0, 2]]))
    f = lambda x: gg.vmap(lambda i: gg.vmap(lambda row: gg.sum(row[:, i] ** 2 * At(row)[:, i].multiply(row[:, i])[:, i]))(x))(i)
    loop = lambda x: gg.stack([gg.stack([gg.sum(row[:, j] ** 2 * At(row)[:, j].multiply(row[:, j])[:, j]) for row in x]) for j in (i[0], i[1])])
    np.testing.assert_allclose(host(f(x)), host(loop(x)), rtol=1e-12)
    u = put(RNG.normal(size=(2, 4)))
    np.testing.assert_allclose(host(gg.vjp(f, x)[1](u)[0]), host(gg.vjp(loop, x)[1](u)[0]), rtol=1e-12)


def test_many_write_one_element(put: Callable[[Any], Any]) -> None:
    """The last stays and alone has a derivative, whichever it is of each example."""
    i, v = put(np.array([[0, 2, 0], [1, 1, 1]])), put(np.array([1.0, 2.0, 3.0]))
    set_at = lambda v, i: At(gg.zeros_like(v))[i].set(v)
    np.testing.assert_array_equal(host(gg.vmap(set_at, (None, 0))(v, i)), [[3, 0, 2], [0, 3, 0]])
    np.testing.assert_array_equal(host(gg.vmap(gg.grad(lambda v, i: gg.sum(set_at(v, i))), (None, 0))(v, i)), [[0, 1, 1], [0, 0, 1]])
    product = lambda v, i: gg.sum(At(gg.ones_like(v))[i].multiply(v))
    np.testing.assert_array_equal(host(gg.vmap(gg.grad(product), (None, 0))(v, i)), [[3, 1, 1], [6, 3, 2]])


def test_one_element_that_all_examples_name_has_a_derivative_from_each(put: Callable[[Any], Any]) -> None:
    """One example cannot name it twice, which spares its pullback a sum; several can."""
    x, i = put(np.array([2.0, 3.0])), put(np.array([1, 0, 1, 1]))
    np.testing.assert_array_equal(host(gg.grad(lambda x: gg.sum(gg.vmap(lambda i: x[i])(i)))(x)), [1, 3])
    np.testing.assert_array_equal(host(gg.grad(lambda x: gg.sum(gg.vmap(lambda i: At(x)[i].set(5.0))(i)))(x)), [3, 1])
    found = []
    gg.vmap(lambda i: found.append(keys.parse(x, i)[1]["unique"]) or gg.getitem(x, i))(i)
    assert found == [True]


def test_no_examples(put: Callable[[Any], Any]) -> None:
    x, i = put(np.zeros((0, 3, 2))), put(np.zeros((0, 4), int))
    for f in (lambda x, i: x[i], lambda x, i: x[:, i[:1]], lambda x, i: At(x)[i].set(1.0), lambda x, i: At(x)[i].multiply(2.0), lambda x, i: gg.sort(x)):
        assert gg.vmap(f)(x, i).shape == (0, *f(gg.zeros((3, 2)), np.zeros(4, int)).shape)


REFUSED = {
    "a mask": lambda x: x[x > 0],
    "a mask to be set": lambda x: At(x)[x > 0].set(0.0),
    "a mask beside an array": lambda x: x[x > 0, [0]],
    "nonzero": lambda x: gg.nonzero(x),
    "where without branches": lambda x: gg.where(x > 0),
    "compress": lambda x: gg.compress(x[0] > 0, x),
    "extract": lambda x: gg.extract(x > 0, x),
    "bounds of a slice": lambda x: x[: gg.argmax(x[0])],
    "delete": lambda x: gg.delete(x, gg.argmax(x[0]), 0),
    "insert": lambda x: gg.insert(x, gg.argmax(x[0]), 1.0, 0),
    "repeat": lambda x: gg.repeat(x, gg.argmax(x[0])),
    "roll": lambda x: gg.roll(x, gg.argmax(x[0])),
    "in place": lambda x: put_in_place(gg.argmax(x[0])),
}


def put_in_place(i: Any) -> Any:
    y = gg.zeros(3)
    y[i] = 1.0
    return y


@pytest.mark.parametrize("f", REFUSED.values(), ids=REFUSED)
def test_what_decides_shapes_is_refused(f: Callable[[Any], Any], put: Callable[[Any], Any]) -> None:
    with pytest.raises(tape.BatchedError, match=r"inside gg\.vmap: .* gg\.where\("):
        gg.vmap(f)(put(RNG.normal(size=(2, 3, 3))))
