"""What the tests of the operations share: derivatives of both modes against central differences, to second order."""

import numpy as np

import gpugrad as gg


def numeric(f, x, e=1e-5):
    """Central differences of a scalar function."""
    g = np.zeros_like(x)
    for i in np.ndindex(x.shape):
        d = np.zeros_like(x)
        d[i] = e
        g[i] = (f(x + d) - f(x - d)) / (2 * e)
    return g


def check(f, *xs):
    """Both modes to second order, in both nestings, of a scalar made of ``f``, in every argument."""
    rng = np.random.default_rng(0)  # the same whatever ran before
    w = None

    def scalar(*args):
        nonlocal w
        ys = f(*args)
        ys = ys if isinstance(ys, (tuple, list)) else [ys]
        w = w or [rng.normal(size=np.shape(gg.tape.plain(y))) for y in ys]
        return sum(gg.sum(gg.sin(y) * wi) for y, wi in zip(ys, w))

    everything = tuple(range(len(xs)))
    ts = tuple(rng.normal(size=x.shape) for x in xs)
    gs = gg.grad(scalar, everything)(*xs)
    for i, (x, g) in enumerate(zip(xs, gs)):
        assert type(g) is np.ndarray and g.shape == x.shape and g.dtype == x.dtype
        np.testing.assert_allclose(g, numeric(lambda v, i=i: float(scalar(*xs[:i], v, *xs[i + 1 :])), x), rtol=1e-6, atol=1e-8)
    slope = sum(float(np.sum(g * t)) for g, t in zip(gs, ts))
    np.testing.assert_allclose(gg.jvp(scalar, xs, ts)[1], slope, rtol=1e-10, atol=1e-12)
    e = 1e-5
    plus, minus = (gg.grad(scalar, everything)(*[x + s * t for x, t in zip(xs, ts)]) for s in (e, -e))
    expected = [(p - m) / (2 * e) for p, m in zip(plus, minus)]
    for mode in ("forward-over-reverse", "reverse-over-reverse"):
        for a, b in zip(gg.hvp(scalar, xs, ts, mode=mode), expected):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-8)
    second = gg.jvp(lambda *v: gg.jvp(scalar, v, ts)[1], xs, ts)[1]
    again = gg.jvp(lambda *v: sum(gg.sum(g * t) for g, t in zip(gg.grad(scalar, everything)(*v), ts)), xs, ts)[1]
    over = sum(gg.sum(g * t) for g, t in zip(gg.grad(lambda *v: gg.jvp(scalar, v, ts)[1], everything)(*xs), ts))
    np.testing.assert_allclose([float(second), float(over)], float(again), rtol=1e-9, atol=1e-10)


def complex_adjoint(f, x):
    """<g, J t> = <J' g, t> without conjugation, and the jvp is f's own value for a linear f."""
    rng = np.random.default_rng(0)
    x = x + 1j * rng.normal(size=x.shape)
    t = rng.normal(size=x.shape) + 1j * rng.normal(size=x.shape)
    y, y_dot = gg.jvp(f, x, t)
    g = rng.normal(size=y.shape) + 1j * rng.normal(size=y.shape)
    (back,) = gg.vjp(f, x)[1](g)
    np.testing.assert_allclose(np.sum(g * y_dot), np.sum(back * t), rtol=1e-10, atol=1e-12)


def check_examples(f, *xs):
    """vmap of ``f`` and of its pullback give what a loop over the examples, along the first axes, gives; all arguments batched, and each of them alone."""

    def both(*args):
        y, pull = gg.vjp(f, *args)
        ys = list(y) if isinstance(y, (tuple, list)) else [y]
        several = type(y) if isinstance(y, (tuple, list)) else None
        g = [gg.cos(gg.arange(v.size, device=gg.asarray(v).device).reshape(v.shape)).data for v in ys]
        return [*ys, *pull(several(g) if several else g[0])]

    host = lambda v: gg.asarray(v).numpy()
    for chosen in dict.fromkeys([tuple(range(len(xs))), *((i,) for i in range(len(xs)))]):
        axes = tuple(0 if i in chosen else None for i in range(len(xs)))
        args = [x if i in chosen else x[0] for i, x in enumerate(xs)]
        got = gg.vmap(both, axes)(*args)
        for k in range(len(xs[0])):
            expected = both(*[x[k] if i in chosen else x for i, x in enumerate(args)])
            for a, b in zip(got, expected, strict=True):
                assert a.dtype == b.dtype
                np.testing.assert_allclose(host(a)[k], host(b), rtol=1e-12, atol=1e-13)
