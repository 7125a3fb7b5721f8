"""Indexing inside vmap, against a loop: keys of any kind, index arrays that depend on the example or do not, and what is refused."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import gpugrad as gg
from gpugrad import tape
from gpugrad.ops import index
from gpugrad.ops.index import At
from gpugrad.tape import plain

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
            key.append(RNG.random(length) < 0.6)
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


@pytest.mark.parametrize("of_x", [True, False], ids=["x depends on the example", "x does not"])
def test_random_keys(of_x: bool, device: str, put: Callable[[Any], Any]) -> None:
    """Values, both derivatives, and functional updates."""
    for key in random_keys(40):
        own, filled = batched_key(key, put)
        if not (own or of_x) or (device != "cpu" and has_mask(key) and sum(isinstance(k, (list, np.ndarray, bool)) for k in key) > 1):
            continue  # CuPy takes no other array beside a mask
        xs = RNG.normal(size=(EXAMPLES, *SHAPE))
        picked = xs[0][of_example(key, 0)].shape
        g, v, vs = RNG.normal(size=picked), RNG.normal(size=picked[-1:]), RNG.normal(size=(EXAMPLES, *picked[1:]))
        t = RNG.normal(size=SHAPE)

        def f(x: Any, v_own: Any, *arrays: Any) -> list[Any]:
            k = filled(list(arrays))  # noqa: B023
            get = lambda x: gg.getitem(x, k)
            change = lambda x, v: [At(x)[k].set(v), At(x)[k].add(v), At(x)[k].multiply(v)]
            pulled = [gg.vjp(lambda x, v: change(x, v)[i], x, u)[1](put(t)) for u in (v_own, put(v)) for i in range(3)]  # noqa: B023
            return [get(x), gg.vjp(get, x)[1](put(g))[0], gg.jvp(get, x, put(t))[1], *change(x, put(v)), *change(x, v_own), *[d for ds in pulled for d in ds]]  # noqa: B023

        axes = (0 if of_x else None, 0, *[0] * len(own))
        got = gg.vmap(f, axes)(put(xs) if of_x else put(xs[0]), put(vs), *own)
        for i in range(EXAMPLES):
            one = f(put(xs[i] if of_x else xs[0]), put(vs[i]), *[a[i] for a in own])
            for a, b in zip(got, one, strict=True):
                np.testing.assert_allclose(host(a)[i], host(b), rtol=1e-12, atol=1e-13, err_msg=repr(key))


def host(x: Any) -> Any:
    x = plain(x)
    return x.get() if hasattr(x, "get") else np.asarray(x)
