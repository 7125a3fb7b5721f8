"""backward, grad(outputs, inputs), .grad, custom operations, anomaly mode: names, defaults and wording as in PyTorch."""

import copy
import pickle
from pathlib import Path

import numpy as np
import pytest

import gpugrad as gg
from gpugrad.ops import fit


def leaf(*values):
    return gg.tensor(np.array(values, dtype=np.float64), requires_grad=True)


# ---------------------------------------------------------------------------------- backward and grad


def test_backward_needs_a_scalar_or_a_gradient():
    x = leaf(1.0, 2.0)
    with pytest.raises(RuntimeError, match="grad can be implicitly created only for scalar outputs"):
        (x * 2).backward()
    (x * 2).backward(gg.tensor([1.0, 10.0]))
    np.testing.assert_array_equal(x.grad.data, [2, 20])
    with pytest.raises(RuntimeError, match="Mismatch in shape"):
        (x * 2).backward(np.ones(3))
    (x[:1] * 2).backward()  # one element is a scalar


def test_what_does_not_require_grad():
    with pytest.raises(RuntimeError, match="element 0 of tensors does not require grad and does not have a grad_fn"):
        gg.tensor([1.0]).backward()
    with pytest.raises(RuntimeError, match="does not require grad"):
        gg.autograd.grad(leaf(1.0).sum(), gg.tensor([1.0]))
    with pytest.raises(RuntimeError, match="floating point and complex"):
        gg.tensor([1, 2], requires_grad=True)
    with pytest.raises(TypeError, match="plain array"):
        gg.autograd.grad(np.ones(1), leaf(1.0))


def test_unused_inputs():
    x, y = leaf(1.0), leaf(2.0)
    with pytest.raises(RuntimeError, match="allow_unused=True"):
        gg.autograd.grad((x * 2).sum(), [x, y])
    gx, gy = gg.autograd.grad((x * 2).sum(), [x, y], allow_unused=True)
    assert gy is None and gx.item() == 2
    gx, gy = gg.autograd.grad((x * 2).sum(), [x, y], materialize_grads=True)
    assert gy.item() == 0


def test_grad_with_respect_to_intermediates_and_repeated_inputs():
    x = leaf(2.0)
    y = x * x
    z = (y * 3).sum()
    gy, gx, gy2 = gg.autograd.grad(z, [y, x, y])
    assert gy.item() == 3 and gx.item() == 12 and gy2.item() == 3
    assert x.grad is None


def test_grad_of_an_output_with_respect_to_itself():
    x = leaf(2.0)
    y = x * x
    (g,) = gg.autograd.grad(y, y, np.ones(1))
    assert g.item() == 1


def test_backward_of_several_outputs_and_named_inputs():
    x, w = leaf(2.0), leaf(3.0)
    y = x * w
    gg.autograd.backward([y.sum(), (y * y).sum()], inputs=[w])
    assert x.grad is None and w.grad.item() == 2 + 2 * 12


def test_grad_accumulates_in_place_and_create_graph_does_not():
    x = leaf(1.0, 2.0)
    (x * 2).sum().backward()
    first = x.grad
    (x * 3).sum().backward()
    assert first is x.grad
    np.testing.assert_array_equal(first.data, [5, 5])
    x.grad = None
    (x**3).sum().backward(create_graph=True)
    x.grad.sum().backward(inputs=[x])
    np.testing.assert_allclose(x.grad.data, 3 * x.data**2 + 6 * x.data)


def test_grad_attribute_is_checked():
    x = leaf(1.0, 2.0)
    with pytest.raises(RuntimeError, match="shape"):
        x.grad = np.ones(3)
    x.grad = np.ones(2)
    assert x.grad.data.sum() == 2
    with pytest.raises(RuntimeError, match="retain_grad"):
        (x * 2).grad = np.ones(2)
    assert (x * 2).grad is None and gg.tensor([1.0]).grad is None


def test_data_may_be_replaced_on_a_leaf():
    x = leaf(1.0, 2.0)
    x.data = np.array([3.0, 4.0])
    (x * x).sum().backward()
    np.testing.assert_array_equal(x.grad.data, [6, 8])
    with pytest.raises(RuntimeError, match="replaced"):
        (x * 2).data = np.ones(2)
    x.data = np.ones(3)
    assert x.grad is None
    (x * 1).sum().backward()
    assert x.grad.shape == (3,)


def test_a_training_loop_that_writes_into_data():
    w = leaf(0.0)
    for _ in range(200):
        loss = ((w - 3.0) ** 2).sum()
        w.grad = None
        loss.backward()
        w.data -= 0.1 * w.grad.data
    np.testing.assert_allclose(w.data, 3.0)


def test_inputs_may_be_results():
    x = leaf(2.0)
    y = x * x
    (y * 3).sum().backward(inputs=[y], retain_graph=True)
    assert y.grad.item() == 3 and x.grad is None
    y.grad = None
    (y * 3).sum().backward(inputs=[y])
    assert y.grad.item() == 3


def test_detach_clone_copy_pickle():
    x = leaf(1.0, 2.0)
    d = x.detach()
    assert not d.requires_grad and np.shares_memory(d.data, x.data)
    c = x.clone()
    assert c.requires_grad and not c.is_leaf and not np.shares_memory(c.data, x.data)
    e = copy.deepcopy(x)
    assert e.is_leaf and e.requires_grad and e is not x
    p = pickle.loads(pickle.dumps(x))
    np.testing.assert_array_equal(p.data, x.data)
    assert p.requires_grad
    with pytest.raises(RuntimeError, match="deepcopy"):
        copy.deepcopy(x * 2)


def test_moving_and_casting_keep_derivatives():
    x = leaf(1.0, 2.0)
    y = x.to(np.float32)
    assert y.dtype == np.float32
    (y * y).sum().backward()
    assert x.grad.dtype == np.float64
    assert x.to("cpu") is x and x.float().dtype == np.float32 and not x.astype(np.int64).requires_grad


# ---------------------------------------------------------------------------------- custom operations


class Cube(gg.Function):
    @staticmethod
    def forward(ctx, x, scale):
        ctx.scale = scale
        ctx.save_for_backward(x)
        return x * x * x * scale

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return g * 3 * x * x * ctx.scale, None


def test_function_in_both_modes_at_every_order():
    x = np.array([1.0, 2.0])
    f = lambda x: gg.sum(Cube.apply(x, 2.0))
    t = gg.tensor(x, requires_grad=True)
    f(t).backward()
    np.testing.assert_allclose(t.grad.data, 6 * x**2)
    np.testing.assert_allclose(gg.grad(f)(x), 6 * x**2)
    np.testing.assert_allclose(gg.jvp(f, (x,), (np.ones(2),))[1], np.sum(6 * x**2))
    for mode in ("forward-over-reverse", "reverse-over-reverse"):
        np.testing.assert_allclose(gg.hvp(f, x, np.ones(2), mode=mode), 12 * x)
    np.testing.assert_allclose(gg.hessian(lambda x: gg.sum(gg.hvp(f, x, np.ones(2))))(x), np.zeros((2, 2)), atol=1e-12)
    (g,) = gg.autograd.grad(f(t), t, create_graph=True)
    (h,) = gg.autograd.grad(g.sum(), t)
    np.testing.assert_allclose(h.data, 12 * x)
    assert type(Cube.apply(x, 2.0)) is np.ndarray


class Exp(gg.Function):
    @staticmethod
    def forward(ctx, x):
        y = gg.exp(x)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx, g):
        (y,) = ctx.saved_tensors
        return g * y


def test_saved_outputs_are_differentiated_again():
    x = leaf(0.5, 1.0)
    (g,) = gg.autograd.grad(Exp.apply(x).sum(), x, create_graph=True)
    (h,) = gg.autograd.grad(g.sum(), x, create_graph=True)
    (third,) = gg.autograd.grad(h.sum(), x)
    np.testing.assert_allclose(third.data, np.exp(x.data))


class SplitSign(gg.Function):
    @staticmethod
    def forward(ctx, x):
        return gg.maximum(x, 0.0), gg.minimum(x, 0.0)

    @staticmethod
    def backward(ctx, up, down):
        return up + 10 * down


def test_function_with_several_outputs():
    x = leaf(1.0, -2.0)
    up, down = SplitSign.apply(x)
    up.sum().backward(retain_graph=True)
    np.testing.assert_array_equal(x.grad.data, [1, 1])
    x.grad = None
    (up * down).sum().backward()
    np.testing.assert_array_equal(x.grad.data, 1 * down.data + 10 * up.data)


def test_a_backward_that_writes_into_its_cotangent_changes_nothing_else():
    class Doubled(gg.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x * 2

        @staticmethod
        def backward(ctx, g):
            g.data[...] *= 2
            return g

    @gg.primitive
    def doubled(x):
        return x * 2

    def write(g, _y, _x):
        g *= 2
        return g

    gg.defvjp(doubled, write)
    for f in (Doubled.apply, doubled):
        x = leaf(1.0, 2.0)
        loss = gg.nn.functional.cross_entropy(f(x), np.array(0))
        loss.backward(retain_graph=True)
        first, x.grad = x.grad.numpy().copy(), None
        loss.backward()
        np.testing.assert_array_equal(x.grad.numpy(), first)
        scalar = gg.tensor(3.0, requires_grad=True)
        for _ in range(2):
            scalar.grad = None
            f(scalar).backward()
            assert scalar.grad.item() == 2


def test_threads_that_first_need_a_one_agree_on_it(monkeypatch):
    """An identity that is known but belongs to nothing would be that of some other array later."""
    monkeypatch.setattr(fit, "_UNITS", {})
    monkeypatch.setattr(fit, "_UNIT_IDS", set())
    ones_like, inner = fit.ones_like, []

    def interrupted(y):
        if not inner:
            inner.append(None)
            inner[0] = fit.unit_like(y)  # as another thread would, in the middle
        return ones_like(y)

    monkeypatch.setattr(fit, "ones_like", interrupted)
    unit = fit.unit_like(np.zeros(()))
    assert unit is inner[0]
    assert {id(unit)} == fit._UNIT_IDS


def test_function_errors():
    class Short(gg.Function):
        @staticmethod
        def forward(ctx, a, b):
            return a * b

        @staticmethod
        def backward(ctx, g):
            return g

    with pytest.raises(RuntimeError, match="incorrect number of gradients"):
        Short.apply(leaf(1.0), 2.0).sum().backward()

    class OneWay(gg.Function):
        @staticmethod
        def forward(ctx, a):
            return a * 2

    with pytest.raises(NotImplementedError, match="vjp"):
        OneWay.apply(leaf(1.0)).sum().backward()


def test_once_differentiable():
    class Leaves(gg.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return gg.tensor(np.sin(x.data))

        @staticmethod
        @gg.once_differentiable
        def backward(ctx, g):
            (x,) = ctx.saved_tensors
            return gg.tensor(np.cos(x.data) * g.data)

    x = leaf(0.5)
    (g,) = gg.autograd.grad(Leaves.apply(x).sum(), x)
    np.testing.assert_allclose(g.data, np.cos(0.5))
    (g,) = gg.autograd.grad(Leaves.apply(x).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        g.sum().backward()
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gg.hvp(lambda x: gg.sum(Leaves.apply(x)), np.ones(2), np.ones(2))


class Sixth(gg.Function):
    """Saves an intermediate, in an attribute: the first derivative is right, a second would be wrong (PyTorch's issue 76185)."""

    @staticmethod
    def forward(ctx, x):
        ctx.cube = x * x * x
        return ctx.cube * ctx.cube

    @staticmethod
    def backward(ctx, g):
        return g * 6 * ctx.cube ** (5 / 3)


def test_a_second_derivative_through_a_saved_intermediate_is_refused():
    x = leaf(2.0)
    (g,) = gg.autograd.grad(Sixth.apply(x).sum(), x, create_graph=True)
    np.testing.assert_allclose(g.data, 6 * 2.0**5)
    with pytest.raises(RuntimeError, match="intermediate"):
        g.sum().backward()
    with pytest.raises(RuntimeError, match="intermediate"):
        gg.hvp(lambda x: gg.sum(Sixth.apply(x)), x.data, np.ones(1))


def test_inputs_kept_as_attributes_are_differentiated_again():
    class Square(gg.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.kept = {"x": x}
            ctx.mask = x.data > 0
            return x * x

        @staticmethod
        def backward(ctx, g):
            return g * 2 * ctx.kept["x"] * ctx.mask

    np.testing.assert_allclose(gg.hvp(lambda x: gg.sum(Square.apply(x)), np.array([1.0, 3.0]), np.ones(2)), [2, 2])
    np.testing.assert_allclose(gg.hvp(lambda x: gg.sum(Square.apply(x)), np.array([1.0, 3.0]), np.ones(2), mode="reverse-over-reverse"), [2, 2])


@pytest.mark.parametrize("given", ["vjp", "jvp", "both"])
def test_primitive_with_either_rule(given):
    @gg.primitive
    def scaled(x, w, *, power=1):
        return x * w**power

    if given in ("vjp", "both"):
        gg.defvjp(scaled, lambda g, y, x, w, power: g * w**power, lambda g, y, x, w, power: g * x * power * w ** (power - 1))
    if given in ("jvp", "both"):
        gg.defjvp(scaled, lambda t, y, x, w, power: t * w**power, lambda t, y, x, w, power: t * x * power * w ** (power - 1))
    x, w = np.array([[1.0], [2.0]]), np.array([1.5, 2.5, 3.5])
    f = lambda x, w: gg.sum(gg.sin(scaled(x, w, power=3)))
    h = lambda x, w: gg.sum(gg.sin(x * w**3))
    for a, b in zip(gg.grad(f, (0, 1))(x, w), gg.grad(h, (0, 1))(x, w)):
        assert a.shape == b.shape
        np.testing.assert_allclose(a, b, rtol=1e-12)
    np.testing.assert_allclose(gg.jvp(f, (x, w), (x, w))[1], gg.jvp(h, (x, w), (x, w))[1], rtol=1e-12)
    for mode in ("forward-over-reverse", "reverse-over-reverse"):
        for a, b in zip(gg.hvp(f, (x, w), (x, w), mode=mode), gg.hvp(h, (x, w), (x, w), mode=mode)):
            np.testing.assert_allclose(a, b, rtol=1e-10)
    assert type(scaled(x, w)) is np.ndarray


def test_primitive_without_a_rule_says_so():
    cube = gg.primitive(lambda x: x**3)
    with pytest.raises(NotImplementedError, match="defvjp"):
        gg.grad(lambda x: gg.sum(cube(x)))(np.ones(2))
    pair = gg.primitive(lambda a, b: a * b)
    gg.defvjp(pair, lambda g, y, a, b: g * b, argnums=[0])
    np.testing.assert_array_equal(gg.grad(lambda a: gg.sum(pair(a, np.ones(2))))(np.ones(2)), [1, 1])
    with pytest.raises(NotImplementedError, match="argument 1"):
        gg.grad(lambda b: gg.sum(pair(np.ones(2), b)))(np.ones(2))
    with pytest.raises(NotImplementedError, match="argument 1"):
        gg.jvp(lambda b: pair(np.ones(2), b), (np.ones(2),), (np.ones(2),))


# ---------------------------------------------------------------------------------- anomaly mode


def line_of(marker):
    lines = Path(__file__).read_text().splitlines()
    return next(f"{__file__}:{i}" for i, text in enumerate(lines, 1) if text.endswith("# " + marker))


def test_anomaly_in_forward_names_the_line():
    x = leaf(0.0, 1.0)
    with gg.detect_anomaly(), pytest.raises(RuntimeError) as error, np.errstate(all="ignore"):
        y = x + 1
        gg.log(x)  # first infinity
    assert line_of("first infinity") in str(error.value) and "log" in str(error.value)
    assert y.requires_grad


def test_anomaly_in_backward_names_the_forward_line():
    x = leaf(0.0, 1.0)
    with gg.detect_anomaly(), pytest.raises(RuntimeError) as error:
        y = gg.sqrt(x)  # singular
        y.sum().backward()
    assert line_of("singular") in str(error.value) and "sqrt" in str(error.value)


def test_anomaly_in_double_backward_names_the_line():
    x = leaf(0.0, 1.0)
    with gg.detect_anomaly(), pytest.raises(RuntimeError) as error:
        y = x**1.5  # second order
        (g,) = gg.autograd.grad(y.sum(), x, create_graph=True)
        g.sum().backward()
    assert line_of("second order") in str(error.value)


def test_anomaly_finds_numpy_writing_into_saved_arrays():
    x = leaf(1.0, 2.0)
    with gg.detect_anomaly():
        y = (x * x).sum()
        x.data[:] = 5.0
        with pytest.raises(RuntimeError, match="changed in place"):
            y.backward()


def test_anomaly_mode_is_quiet_where_all_is_well():
    x = leaf(1.0, 2.0)
    with gg.detect_anomaly():
        gg.hvp(lambda x: gg.sum(gg.softmax(x) * gg.sqrt(x)), x.data, np.ones(2))
        (gg.where(x > 1.5, gg.sqrt(x - 1.0), 0.0)).sum().backward()
    mask = np.array([0.0, -np.inf])
    with gg.detect_anomaly():
        gg.softmax(x + mask).sum()  # an infinity that was there already


def test_masked_branches_contribute_zero():
    x = np.array([0.0, 4.0])
    for f, expected in [
        (lambda x: gg.where(x > 0, gg.sqrt(x), 0.0), [0, 0.25]),
        (lambda x: gg.where(x > 0, gg.log(x), 0.0), [0, 0.25]),
        (lambda x: gg.where(x > 0, 1 / x, 0.0), [0, -1 / 16]),
        (lambda x: gg.where(x < 1000, 0.0, gg.exp(x * 1000)), [0, 0]),
        (lambda x: gg.where(x > 0, x**-0.5, 0.0), [0, -0.0625]),
    ]:
        with np.errstate(all="ignore"):
            np.testing.assert_allclose(gg.grad(lambda x, f=f: gg.sum(f(x)))(x), expected)
            assert np.isfinite(gg.hvp(lambda x, f=f: gg.sum(f(x)), x, np.ones(2))).all()
            assert np.isfinite(gg.hvp(lambda x, f=f: gg.sum(f(x)), x, np.ones(2), mode="reverse-over-reverse")).all()
    chosen = gg.grad(lambda x: gg.sum(gg.where(x > -1, gg.sqrt(x), 0.0)))(x)
    assert np.isinf(chosen[0])
    assert np.isnan(gg.grad(lambda x: gg.sum(gg.where(x == 0, gg.log(x), gg.log(-x * x))))(np.array([np.nan, 1.0]))[0])


# ---------------------------------------------------------------------------------- found by attack


def test_dicts_are_matched_by_key_not_by_order():
    a, b = np.array(1.0), np.array(0.0)
    assert gg.jvp(lambda p: p["a"] + 10 * p["b"], ({"a": a, "b": a},), ({"b": b, "a": a},))[1] == 1
    h = gg.hvp(lambda p: p["a"] ** 2 + 10 * p["b"] ** 2, {"a": a, "b": a}, {"b": b, "a": a})
    assert h["a"] == 2 and h["b"] == 0


@pytest.mark.parametrize("how", ["grad_outputs", "hook"])
def test_a_cotangent_from_an_outer_transform_keeps_its_derivative(how):
    def f(w):
        x = gg.tensor(np.array([1.0, 2.0]), requires_grad=True)
        y = x * x
        if how == "hook":
            y.register_hook(lambda g: g * w)
        return gg.autograd.grad(y, x, grad_outputs=w if how == "grad_outputs" else np.ones(2))[0].sum()

    np.testing.assert_allclose(gg.grad(f)(np.array([3.0, 4.0])), [2, 4])


def test_gradients_that_a_user_returns_are_copied():
    class Weighted(gg.Function):
        @staticmethod
        def forward(ctx, x, w):
            ctx.save_for_backward(w)
            return (x * w).sum()

        @staticmethod
        def backward(ctx, g):
            return ctx.saved_tensors[0], None

    w = gg.tensor([3.0, 4.0])
    prim = gg.primitive(lambda x: (x * w.data).sum())
    gg.defvjp(prim, lambda g, _y, _x: w.data)
    for f in (lambda x: Weighted.apply(x, w), prim):
        x = gg.tensor([1.0, 1.0], requires_grad=True)
        f(x).backward()
        f(x).backward()
        np.testing.assert_array_equal(w.data, [3, 4])
        np.testing.assert_array_equal(x.grad.data, [6, 8])


def test_retained_and_hooked_gradients_share_memory_with_nothing():
    x = leaf(1.0, 2.0)
    y = x + 1
    y.retain_grad()
    seen = []
    y.register_hook(seen.append)
    (y * np.array([3.0, 4.0])).sum().backward()
    (x * x).sum().backward()
    x.grad.zero_()
    np.testing.assert_array_equal(seen[0].data, [3, 4])
    np.testing.assert_array_equal(y.grad.data, [3, 4])


def test_complex_gradients_are_pytorchs_in_hooks_and_functions_too():
    class Scale(gg.Function):
        @staticmethod
        def forward(ctx, x):
            return x * (2 + 1j)

        @staticmethod
        def backward(ctx, g):
            return g * (2 - 1j)

    x = gg.tensor(np.array([1 + 2j]), requires_grad=True)
    for y in (x * (2 + 1j), Scale.apply(x)):
        y.retain_grad()
        seen = []
        y.register_hook(lambda g, seen=seen: seen.append(g) or g * 2)
        s = (y * y).real.sum()
        s.backward(retain_graph=True)
        np.testing.assert_allclose(seen[0].data, [-10j])
        np.testing.assert_allclose(y.grad.data, [-20j])
        np.testing.assert_allclose(x.grad.data, [-20j * (2 - 1j)])
        x.grad = None


def test_derivatives_of_complex_arguments_that_would_be_ambiguous_are_refused():
    f = lambda z: gg.real(z * gg.conj(z))
    z = np.array([1 + 2j])
    np.testing.assert_allclose(gg.jacobian(f)(z), [[2 - 4j]])
    with pytest.raises(TypeError, match="reverse"):
        gg.jacobian(f, mode="forward")(z)
    with pytest.raises(TypeError, match="imaginary"):
        gg.hessian(lambda z: gg.sum(f(z)))(z)
    np.testing.assert_allclose(gg.jacobian(lambda z: z * z, mode="forward")(z), [[2 + 4j]])


def test_deepcopy_inside_a_transform_is_refused():
    with pytest.raises(TypeError, match="deepcopy"):
        gg.grad(lambda x: copy.deepcopy(x) * x)(3.0)


def test_a_freed_call_with_several_outputs_says_so():
    a, b = gg.split(leaf(1.0, 2.0), 2)
    a.sum().backward()
    with pytest.raises(RuntimeError, match="second time"):
        b.sum().backward()


def test_keyword_arguments_of_a_primitive_are_constants():
    scale = gg.primitive(lambda x, *, w: x * w)
    gg.defvjp(scale, lambda g, y, x, *, w: g * w)
    with pytest.raises(TypeError, match="position"):
        scale(leaf(1.0), w=leaf(2.0))


def test_outputs_marked_non_differentiable():
    class Two(gg.Function):
        @staticmethod
        def forward(ctx, x):
            a, b = x * 1, x * 2
            ctx.mark_non_differentiable(b)
            return a, b

        @staticmethod
        def backward(ctx, ga, gb):
            np.testing.assert_array_equal(gb.data, [0.0])
            return ga

    x = leaf(3.0)
    a, b = Two.apply(x)
    assert a.requires_grad and not b.requires_grad
    (a * b).sum().backward()
    assert x.grad.item() == 6


def test_no_grad_of_a_generator():
    @gg.no_grad
    def steps(x):
        for _ in range(2):
            yield (x * 2).requires_grad

    assert list(steps(leaf(1.0))) == [False, False] and gg.is_grad_enabled()


def test_lists_and_arrays_where_tensors_are_expected():
    x = leaf(1.0, 2.0)
    (x * 2).backward([1.0, 10.0])
    np.testing.assert_array_equal(x.grad.data, [2, 20])
    with pytest.raises(TypeError, match="plain array"):
        gg.autograd.grad(np.float64(1.0), x)


def test_anomaly_mode_ends_with_its_block_whatever_other_threads_do():
    import threading

    stop = threading.Event()

    def work():
        while not stop.is_set():
            gg.grad(lambda x: gg.sum(gg.sin(x)))(np.ones(3))

    threads = [threading.Thread(target=work) for _ in range(3)]
    [t.start() for t in threads]
    try:
        for _ in range(50):
            with gg.detect_anomaly(), np.errstate(all="ignore"), pytest.raises(RuntimeError, match="log"):
                gg.log(np.zeros(1))
            assert gg.tape.observer is None
    finally:
        stop.set()
        [t.join() for t in threads]
