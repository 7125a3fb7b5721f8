"""Every operation, by walking the registry: an operation that is registered is tested.

Its samples are run on every device, in every dtype and memory layout that they allow, for values, both derivatives and second
derivatives. An operation without samples fails.
"""

from __future__ import annotations

import importlib
import pkgutil
import warnings
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.exceptions import ComplexWarning

import gpugrad as gg
import gpugrad.ops
from gpugrad import autograd, backend, tape, tree
from gpugrad.ops import linalg
from gpugrad.ops.index import At
from gpugrad.ops.rules import REGISTRY, Sample
from gpugrad.tape import Op, Tensor, plain
from gpugrad.testing import check_grads

for module in pkgutil.iter_modules(gpugrad.ops.__path__):
    importlib.import_module(f"gpugrad.ops.{module.name}")
importlib.import_module("gpugrad.special")

OPS = list(REGISTRY)
SMOOTH = [name for name in OPS if REGISTRY[name].differentiable]
every_op = pytest.mark.parametrize("name", OPS)
every_smooth_op = pytest.mark.parametrize("name", SMOOTH)

# Taken as functions of complex numbers these are not what their rules differentiate; the public function takes another way, or refuses.
REAL_ONLY = {"astype", "sign_real", "sigmoid"}


# The second derivative near a singular matrix is too rough for differences of it.
ILL_CONDITIONED = {"det"}


# ------------------------------------------------------------------------------------------------- samples as arrays


def is_elementwise(op: Op) -> bool:
    return op.differentiable and type(op.vjp) is tuple and op.vjp == op.jvp


def filled(sample: Sample, dtype: Any, put: Callable[[Any], Any]) -> list[Any]:
    """The sample's arguments on the device, the same each time."""
    return [put(a) if isinstance(a, np.ndarray) else a for a in sample.filled(dtype)]


def samples(op: Op) -> list[Sample]:
    return list(op.samples or [])


def of_other_sizes(op: Op) -> list[Sample]:
    """The first sample of an elementwise operation with its shapes replaced: no axes, no elements, one element."""
    if not samples(op) or not is_elementwise(op):
        return []
    first = samples(op)[0]
    return [Sample(*[shape if isinstance(a, tuple) else a for a in first.args], domain=first.domain, **first.params) for shape in ((), (0, 3), (1, 1))]


def is_float(x: Any) -> bool:
    return backend.is_array(x) and x.dtype.kind in "fc"


def defined_for_complex(op: Op, sample: Sample, put: Callable[[Any], Any]) -> bool:
    """Whether NumPy's is; where nothing is differentiated, whether that of the device is."""
    if op.name in REAL_ONLY or not any(isinstance(a, tuple) for a in sample.args):
        return False
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("error", ComplexWarning)
        try:
            op(*filled(sample, np.complex128, np.asarray if op.differentiable else put), **sample.params)
        except (TypeError, ComplexWarning, ValueError):
            return False
    return True


def dtypes(op: Op, sample: Sample, put: Callable[[Any], Any]) -> list[Any]:
    return [np.float32, np.float64, *([np.complex128] if defined_for_complex(op, sample, put) else [])]


def laid_out(x: Any, layout: str) -> Any:
    """The values of ``x`` in another memory layout; "zero stride" repeats the first along the last axis."""
    xp = backend.namespace(x)
    if layout == "Fortran":
        return xp.array(x, order="F")
    if layout == "negative strides":
        back = (slice(None, None, -1),) * x.ndim
        return x[back].copy()[back]
    if layout == "zero stride" and x.ndim:
        return xp.broadcast_to(x[..., :1], x.shape)
    return x


LAYOUTS = ("Fortran", "negative strides", "zero stride")


def outputs(y: Any) -> list[Any]:
    return list(y) if isinstance(y, tuple) else [y]


def host(x: Any) -> Any:
    x = plain(x)
    return backend.to_device(x, "cpu") if backend.is_array(x) else np.asarray(x)


def assert_close(got: Any, expected: Any, rtol: float, what: str) -> None:
    """Within rtol of the largest element; nan and inf in the same places."""
    got, expected = host(got), host(expected)
    assert got.shape == expected.shape, f"{what}: shape {got.shape}, expected {expected.shape}"
    finite = np.isfinite(expected)
    scale = np.max(np.abs(expected), where=finite, initial=1e-3)
    np.testing.assert_allclose(got, expected, rtol=rtol, atol=rtol * scale, err_msg=what)


def cotangents(y: Any, put: Callable[[Any], Any]) -> Any:
    """Random ones for outputs of floats."""
    rng = np.random.default_rng(2)
    return [put(np.asarray(rng.uniform(0.5, 1.5, np.shape(v)) * rng.choice([-1, 1], np.shape(v)), v.dtype)) for v in outputs(y) if v.dtype.kind in "fc"]


def in_floats(op: Op, args: list[Any], params: dict[str, Any]) -> tuple[Callable[..., list[Any]], list[Any]]:
    """The operation as a function of its arguments of floats alone, with outputs of floats alone, and those arguments."""
    chosen = [i for i, a in enumerate(args) if is_float(a)]

    def f(*xs: Any) -> list[Any]:
        full = dict(enumerate(args)) | dict(zip(chosen, xs, strict=True))
        return [y for y in outputs(op(*[full[i] for i in range(len(args))], **params)) if y.dtype.kind in "fc"]

    return f, [args[i] for i in chosen]


def pulled_back(op: Op, args: list[Any], params: dict[str, Any], put: Callable[[Any], Any]) -> tuple[Any, ...]:
    f, xs = in_floats(op, args, params)
    y, pullback = gg.vjp(f, *xs)
    return pullback(cotangents(tuple(y), put))


# ------------------------------------------------------------------------------------------------- the walk


@every_op
def test_has_samples(name: str) -> None:
    assert samples(REGISTRY[name]), f"the operation {name!r} has no samples: give it some where it is declared"


def every_case(op: Op, put: Callable[[Any], Any]) -> Iterator[tuple[str, list[Any], dict[str, Any]]]:
    for sample in samples(op) + of_other_sizes(op):
        for dtype in dtypes(op, sample, put):
            yield f"{sample} in {np.dtype(dtype)}", filled(sample, dtype, put), sample.params


@every_op
def test_value(name: str, put: Callable[[Any], Any], device: str) -> None:
    """Plain in, plain out; Tensors in, Tensors out, with the same values, on the same device."""
    op = REGISTRY[name]
    for what, args, params in every_case(op, put):
        y = outputs(op(*args, **params))
        boxed = outputs(op(*[Tensor(a) if backend.is_array(a) else a for a in args], **params))
        for plain_y, tensor_y in zip(y, boxed, strict=True):
            assert type(tensor_y) is Tensor and backend.is_array(tensor_y.data) and tensor_y.node is None, what
            assert type(plain_y) is not Tensor, what
            assert tensor_y.device == backend.device_name(device) or name in HOST_RESULTS, what
            np.testing.assert_array_equal(host(plain_y), host(tensor_y), err_msg=what)
            assert tensor_y.dtype == np.asarray(host(plain_y)).dtype, what
        if not op.differentiable and any(map(is_float, args)):
            tracked = outputs(op(*[Tensor(a).requires_grad_() if is_float(a) else a for a in args], **params))
            assert all(v.node is None for v in tracked), f"{what}: the result of an operation without derivative is tracked"


HOST_RESULTS: set[str] = set()


@every_smooth_op
def test_derivatives(name: str, put: Callable[[Any], Any], device: str) -> None:
    """First, second and (on the CPU) third derivatives in every nesting of the two modes, against central differences and each other."""
    op = REGISTRY[name]
    order = 3 if device == "cpu" and name not in ILL_CONDITIONED else 2
    for sample in samples(op) + of_other_sizes(op):
        for dtype in dtypes(op, sample, put)[1:]:
            f, xs = in_floats(op, filled(sample, dtype, put), sample.params)
            if xs:
                try:
                    check_grads(f, tuple(xs), order=order)
                except AssertionError as error:
                    raise AssertionError(f"{sample} in {np.dtype(dtype)}: {error}") from None


@every_smooth_op
def test_gradients_fit_their_inputs(name: str, put: Callable[[Any], Any], device: str) -> None:
    """Gradients have their input's shape, dtype and device, exactly; float32 agrees with float64."""
    op = REGISTRY[name]
    for sample in samples(op) + of_other_sizes(op):
        truth = None
        for dtype in dtypes(op, sample, put)[::-1]:
            args = filled(sample, dtype, put)
            grads = pulled_back(op, args, sample.params, put)
            for x, g in zip(filter(is_float, args), grads, strict=True):
                assert backend.is_array(g) and g.shape == x.shape and g.dtype == x.dtype, f"{sample}: got {g.dtype}{g.shape} for {x.dtype}{x.shape}"
                assert backend.device_of(g) == backend.device_name(device)
            if dtype == np.float64:
                truth = grads
            if dtype == np.float32:
                for g, expected in zip(grads, truth, strict=True):  # type: ignore[arg-type]
                    assert_close(g, expected, 2e-4, f"{sample} in float32 against float64")


WIDENS = {"astype", "float_power", "var", "std"}  # as NumPy's do; the last two have a mean in float64 as a second output
FLOAT64_FOR_NUMBERS = {"bce", "bce_residual", "bce_with_logits", "xlogy"}  # given a Python number as their first argument


@every_smooth_op
def test_float32_stays_float32(name: str, put: Callable[[Any], Any]) -> None:
    """Values and rules compute in float32 where the arrays are, also beside Python's numbers: on a GPU float64 costs up to 64 times as much."""
    op = REGISTRY[name]
    if name in WIDENS:
        pytest.skip("widens")
    for sample in samples(op) + of_other_sizes(op):
        args = filled(sample, np.float32, put)
        if not any(map(is_float, args)) or (name in FLOAT64_FOR_NUMBERS and any(isinstance(a, float) for a in args)):
            continue
        y = op(*args, **sample.params)
        g = [gg.ones_like(v) for v in y] if isinstance(y, tuple) else gg.ones_like(y)
        pulled = op.pull(SimpleNamespace(params=sample.params), [a if is_float(a) else None for a in args], g, y, args)  # type: ignore[arg-type]
        pushed = op.push([gg.ones_like(a) if is_float(a) else None for a in args], y, args, sample.params)
        for what, results in (("value", outputs(y)), ("vjp", pulled), ("jvp", pushed if isinstance(pushed, list) else [pushed])):
            assert {str(r.dtype) for r in results if r is not None and plain(r).dtype.kind == "f"} <= {"float32"}, f"{what} of {sample}"


@every_smooth_op
def test_layouts(name: str, put: Callable[[Any], Any]) -> None:
    """Values and gradients do not depend on how the arguments lie in memory."""
    op = REGISTRY[name]
    for sample in samples(op):
        for dtype in dtypes(op, sample, put)[1:]:
            args = filled(sample, dtype, put)
            for layout in LAYOUTS:
                other = [laid_out(a, layout) if is_float(a) else a for a in args]
                contiguous = [backend.namespace(a).array(a, order="C") if backend.is_array(a) else a for a in other]
                what = f"{sample} in {np.dtype(dtype)}, {layout}"
                try:
                    with np.errstate(all="ignore"):
                        y, grads = outputs(op(*contiguous, **sample.params)), pulled_back(op, contiguous, sample.params, put)
                except np.linalg.LinAlgError:
                    continue  # repeated columns make a matrix singular
                for a, b in zip(outputs(op(*other, **sample.params)), y, strict=True):
                    assert_close(a, b, 1e-9, what)
                for g, h in zip(pulled_back(op, other, sample.params, put), grads, strict=True):
                    assert_close(g, h, 1e-9, f"gradient of {what}")


@every_smooth_op
def test_create_graph_equals_nested_levels(name: str, put: Callable[[Any], Any]) -> None:
    """The derivative of a derivative, recorded on one level (create_graph) and on two (grad of grad)."""
    op = REGISTRY[name]
    for sample in samples(op):
        f, xs = in_floats(op, filled(sample, np.float64, put), sample.params)
        if not xs:
            continue
        us = cotangents(tuple(map(plain, f(*xs))), put)
        vs = cotangents(tuple(xs), put)

        def summed(ys: Any, ws: Any) -> Any:
            return sum(gg.sum(gg.real(y * w)) for y, w in zip(ys, ws, strict=True))

        argnums = tuple(range(len(xs)))
        first = gg.grad(lambda *at: summed(f(*at), us), argnums)  # noqa: B023
        nested = gg.grad(lambda *at: summed(first(*at), vs), argnums)(*xs)  # noqa: B023
        leaves = [Tensor(x).requires_grad_() for x in xs]
        grads = autograd.grad(summed(f(*leaves), us), leaves, create_graph=True, materialize_grads=True)
        total = summed(grads, vs)
        again = autograd.grad(total, leaves, materialize_grads=True) if total.requires_grad else [gg.zeros_like(t) for t in leaves]
        for g, h in zip(again, nested, strict=True):
            assert_close(g, h, 1e-9, str(sample))


@every_smooth_op
def test_short_cuts(name: str, put: Callable[[Any], Any]) -> None:
    """The quick way that calls of one or two arguments take gives what the long way gives."""
    op = REGISTRY[name]
    if type(op.vjp) is not tuple or not 1 <= len(op.vjp) <= 2:
        pytest.skip("operations of one or two arguments have a quick way")
    for sample in samples(op):
        args = filled(sample, np.float64, put)
        if sample.params or len(args) != len(op.vjp):
            continue
        quick = (tape.unary if len(args) == 1 else tape.binary)(op)
        results = []
        for call in (quick, op):
            boxed = [Tensor(a).requires_grad_() if is_float(a) else a for a in args]
            y = call(*boxed)
            leaves = [b for b in boxed if type(b) is Tensor]
            results.append([y, *autograd.grad(y, leaves, Tensor(cotangents(y.data, put)[0]))])
        for a, b in zip(*results, strict=True):
            np.testing.assert_array_equal(host(a), host(b))


# ------------------------------------------------------------------------------------------------- third derivatives


def composite(x: Any) -> Any:
    """A scalar function of six numbers through most operations, smooth around POINT."""
    a = gg.reshape(x, (2, 3))
    m = gg.matmul(a, gg.transpose(a)) + 3.0 * gg.stack([gg.exp(0.1 * x[:2]), gg.cosh(x[2:4])])
    smooth = gg.sigmoid(x) * gg.tanh(a).reshape(-1) + gg.softplus(x) / (1.5 + gg.cos(x)) - gg.erf(0.3 * x) * gg.gelu(x) + gg.silu(gg.sin(x))
    roots = gg.sqrt(1.0 + x**2) + gg.log(2.5 + gg.arctan(x)) + gg.power(gg.exp2(0.2 * x), 1.7) + gg.log1p(x * x) * gg.arctan2(1.0 + gg.square(x), 2.0)
    moved = gg.concatenate([x[[0, 0, 3]], gg.roll(x, 2)[::-2], gg.pad(gg.flip(x)[1:3], (1, 0))])
    chosen = gg.where(gg.greater(x, 0.2), gg.expm1(x), gg.sinh(x)) + gg.maximum(x, gg.zeros_like(x)) * gg.minimum(x, 0.9) + gg.clip(x, -0.5, 0.5) ** 3
    sums = gg.logsumexp(a, axis=1) * gg.var(a, axis=1) + gg.std(a, axis=1, ddof=1) + gg.prod(a, axis=1) + gg.max(a, axis=1) * gg.mean(a, axis=1)
    scans = gg.cumsum(x) * gg.cumprod(1.0 + 0.1 * x) + gg.sort(x) ** 2
    products = gg.einsum("ij,kj,j->ik", a, a, gg.softmax(x[:3])) @ m + gg.outer(sums, sums) / linalg.norm(a)
    rest = gg.sum(gg.log_softmax(moved) * moved) + gg.sum(gg.hypot(smooth, roots)) + gg.sum(At(x)[1].set(x[2] * x[3]) * gg.relu(chosen)) + gg.sum(scans)
    return rest + gg.sum(products * linalg.solve(m, gg.tril(products))) + gg.log(linalg.det(m))


POINT = np.array([0.31, -0.72, 0.83, 0.64, -0.25, 1.1])
DIRECTIONS = np.random.default_rng(3).standard_normal((3, 6))


def along(f: Callable[[Any], Any], v: Any, mode: str) -> Callable[[Any], Any]:
    """x -> the derivative of f at x along v, by one of the modes."""
    if mode == "forward":
        return lambda x: gg.jvp(f, (x,), (v,))[1]
    return lambda x: gg.sum(gg.grad(f)(x) * v)


NESTINGS = [(a, b, c) for a in ("forward", "reverse") for b in ("forward", "reverse") for c in ("forward", "reverse")]


@pytest.mark.parametrize("modes", NESTINGS, ids="-over-".join)
def test_third_derivatives(modes: tuple[str, ...], put: Callable[[Any], Any]) -> None:
    x, vs = put(POINT), [put(v) for v in DIRECTIONS]
    f: Any = composite
    for v, mode in zip(vs, modes[::-1], strict=True):
        f = along(f, v, mode)
    got = float(f(x))
    second = along(along(composite, vs[0], "reverse"), vs[1], "reverse")
    eps = 1e-6
    difference = float((second(x + eps * vs[2]) - second(x - eps * vs[2])) / (2 * eps))
    reference = float(along(along(along(composite, vs[0], "forward"), vs[1], "forward"), vs[2], "forward")(x))
    assert got == pytest.approx(reference, rel=1e-9)
    assert got == pytest.approx(difference, rel=1e-5)


def test_third_derivatives_on_one_level(put: Callable[[Any], Any]) -> None:
    """create_graph three times over gives the same number."""
    t, vs = Tensor(put(POINT)).requires_grad_(), [put(v) for v in DIRECTIONS]
    y = composite(t)
    for v in vs:
        (g,) = autograd.grad(y, t, create_graph=True)
        y = gg.sum(g * v)
    f: Any = composite
    for v in vs:
        f = along(f, v, "reverse")
    assert float(y) == pytest.approx(float(f(put(POINT))), rel=1e-10)


def test_composite_takes_nests() -> None:
    """The same through a dict, so that the walk over nests has third derivatives too."""
    leaves, structure = tree.flatten({"w": POINT[:2], "b": [POINT[2:]]})
    f = lambda p: composite(gg.concatenate([p["w"], p["b"][0]]))
    check_grads(f, (tree.unflatten(structure, leaves),), order=2)


# ------------------------------------------------------------------------------------------------- many examples at once

EXAMPLES = 3


def examples_of(a: Any, put: Callable[[Any], Any]) -> Any:
    """Several arrays like ``a``, joined along a new axis in front: floats shrunk by degrees (so that they stay in their domain), others moved round."""
    a = host(a)
    if a.dtype.kind in "fc":
        return put(np.stack([(a * (1 - 0.06 * i)).astype(a.dtype) for i in range(EXAMPLES)]))
    return put(np.stack([np.roll(a.reshape(-1), i).reshape(a.shape) for i in range(EXAMPLES)]))


def batched_cases(op: Op, put: Callable[[Any], Any], dtype: Any = np.float64) -> Iterator[tuple[str, tuple[Any, ...], list[Any], dict[str, Any]]]:
    """Each sample with all of its arrays batched, and with each of them alone; and the in_axes."""
    for sample in samples(op) + of_other_sizes(op):
        args = filled(sample, dtype, put)
        arrays = [i for i, a in enumerate(args) if backend.is_array(a)]
        for chosen in dict.fromkeys([tuple(arrays), *((i,) for i in arrays)]):
            if op.name == "nonzero" or (op.name in RAGGED and any(not is_float(args[i]) and args[i].dtype.kind == "b" for i in chosen)):
                continue  # masks that are not alike pick different numbers of elements: tests of indexing see that they are refused
            axes = tuple(0 if i in chosen else None for i in range(len(args)))
            if chosen:
                yield f"{sample}, batched {chosen}", axes, [examples_of(a, put) if b == 0 else a for a, b in zip(args, axes, strict=True)], sample.params


RAGGED = {"getitem", "scatter_add", "index_set"}


def in_a_loop(f: Callable[..., Any], axes: Any, args: list[Any]) -> list[Any]:
    """The outputs of the examples one by one, joined."""
    rows = [outputs(f(*[a if b is None else a[i] for a, b in zip(args, axes, strict=True)])) for i in range(EXAMPLES)]
    return [np.stack([host(row[k]) for row in rows]) for k in range(len(rows[0]))]


def first(n: int, axes: Any, args: list[Any]) -> list[Any]:
    """The arguments of the first n examples."""
    return [a if b is None else a[:n] for a, b in zip(args, axes, strict=True)]


@every_op
def test_has_a_batching_rule(name: str) -> None:
    assert REGISTRY[name].batch is not None, (
        f"the operation {name!r} has no batching rule: say where it is declared how it treats many examples (see gpugrad.ops.batch)"
    )


@every_op
def test_batched_values(name: str, put: Callable[[Any], Any]) -> None:
    """vmap gives what a loop gives, whatever is batched; and of one example, of none, and of many twice over."""
    op = REGISTRY[name]
    for what, axes, args, params in batched_cases(op, put):
        f = gg.vmap(lambda *xs: op(*xs, **params), axes)  # noqa: B023
        expected = in_a_loop(lambda *xs: op(*xs, **params), axes, args)  # noqa: B023
        for n in (EXAMPLES, 1, 0):
            for a, b in zip(outputs(f(*first(n, axes, args))), expected, strict=True):
                assert plain(a).dtype == b.dtype, f"{n} of {what}"
                assert_close(a, b[:n], 1e-9, f"{n} of {what}")
        there_and_back = [a if b is None else gg.stack([a, gg.flip(a, 0)]) for a, b in zip(args, axes, strict=True)]
        for a, b in zip(outputs(gg.vmap(f, axes)(*there_and_back)), expected, strict=True):
            assert_close(a, np.stack([b, b[::-1]]), 1e-9, f"vmap of vmap of {what}")


@every_smooth_op
def test_batched_derivatives(name: str, put: Callable[[Any], Any]) -> None:
    """Pullbacks, pushes and second derivatives inside vmap, and vmap inside a pullback, give what a loop gives."""
    op = REGISTRY[name]
    for what, axes, args, params in batched_cases(op, put):
        check_batched_derivatives(op, what, axes, args, params, put)


def check_batched_derivatives(op: Op, what: str, axes: tuple[Any, ...], args: list[Any], params: dict[str, Any], put: Callable[[Any], Any]) -> None:
    one = [a if b is None else a[0] for a, b in zip(args, axes, strict=True)]
    f, xs = in_floats(op, one, params)
    if not xs:
        return
    chosen = [i for i, a in enumerate(one) if is_float(a)]
    us, ts = cotangents(tuple(f(*xs)), put), cotangents(tuple(xs), put)

    def of(full: Any) -> tuple[Callable[..., Any], list[Any]]:
        """The operation as a function of its floats, and those."""
        at = [full[i] for i in chosen]
        replaced = lambda xs: dict(enumerate(full)) | dict(zip(chosen, xs, strict=True))
        return lambda *xs: [y for y in outputs(op(*[replaced(xs)[i] for i in range(len(full))], **params)) if y.dtype.kind in "fc"], at

    def derivatives(*full: Any) -> tuple[Any, ...]:
        g, at = of(full)
        pulled = lambda *xs: list(gg.vjp(g, *xs)[1](us))
        return (*pulled(*at), *gg.jvp(g, tuple(at), tuple(ts))[1], *gg.jvp(pulled, tuple(at), tuple(ts))[1])

    many, none = (gg.vmap(derivatives, axes)(*first(n, axes, args)) for n in (EXAMPLES, 0))
    for a, b, empty in zip(many, in_a_loop(derivatives, axes, args), none, strict=True):
        assert_close(a, b, 1e-8, f"derivatives inside vmap of {what}")
        assert_close(empty, b[:0], 1e-8, f"derivatives inside vmap over no examples of {what}")

    def pulled_from(*full: Any) -> tuple[Any, ...]:
        g, at = of(full)
        return gg.vjp(g, *at)[1](us)

    def all_at_once(n: int) -> tuple[Any, ...]:
        """Cotangents of the arguments of n examples."""
        some = first(n, axes, args)
        replaced = lambda xs: dict(enumerate(some)) | dict(zip(chosen, xs, strict=True))
        f = lambda *xs: gg.vmap(lambda *full: of(full)[0](*of(full)[1]), axes)(*[replaced(xs)[i] for i in range(len(args))])
        return gg.vjp(f, *[some[i] for i in chosen])[1]([gg.stack([u] * EXAMPLES)[:n] for u in us])

    for i, a, b, empty in zip(chosen, all_at_once(EXAMPLES), in_a_loop(pulled_from, axes, args), all_at_once(0), strict=True):
        assert_close(a, b if axes[i] == 0 else b.sum(0), 1e-8, f"a pullback of vmap of {what}")
        assert_close(empty, b[:0] if axes[i] == 0 else np.zeros(b.shape[1:]), 1e-8, f"a pullback of vmap over no examples of {what}")
