"""What the tests of vmap share: a loop over the examples, and the comparison with it."""

from collections.abc import Callable
from typing import Any

import numpy as np

import gpugrad as gg
from gpugrad import backend, tree
from gpugrad.tape import plain


def host(x: Any) -> np.ndarray:
    x = plain(x)
    return backend.to_device(x, "cpu") if backend.is_array(x) else np.asarray(x)


def example(arg: Any, axis: Any, i: int) -> Any:
    """Example i of an argument, a nest of arrays whose examples all lie along one axis."""
    return arg if axis is None else tree.map_leaves(lambda a: a[(slice(None),) * (axis % a.ndim) + (i,)], arg)


def in_a_loop(f: Callable[..., Any], axes: Any, args: Any) -> list[np.ndarray]:
    """The leaves of the results of the examples one by one, joined along a first axis."""
    size = next(tree.flatten(a)[0][0].shape[axis] for a, axis in zip(args, axes, strict=True) if axis is not None)
    rows = [tree.flatten(f(*[example(a, axis, i) for a, axis in zip(args, axes, strict=True)]))[0] for i in range(size)]
    return [np.stack([host(y) for y in ys]) for ys in zip(*rows, strict=True)]


def check(f: Callable[..., Any], *args: Any, axes: Any = None, rtol: float = 1e-10) -> None:
    """vmap gives what a loop gives, in value, shape and dtype; whole and in chunks, the last of them shorter."""
    axes = (0,) * len(args) if axes is None else axes
    expected = in_a_loop(f, axes, args)
    for chunk_size in (None, 2):
        got = tree.flatten(gg.vmap(f, axes, chunk_size=chunk_size)(*args))[0]
        assert len(got) == len(expected)
        for a, b in zip(got, expected, strict=True):
            assert host(a).shape == b.shape and a.dtype == b.dtype
            scale = np.max(np.abs(b), where=np.isfinite(b), initial=1)
            np.testing.assert_allclose(host(a), b, rtol=rtol, atol=rtol * scale)
