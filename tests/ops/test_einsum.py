"""Einstein sums: values as NumPy's in every form of subscripts, derivatives to second order, BLAS underneath, and what went wrong elsewhere."""

import numpy as np
import pytest

import gpugrad as gg
from gpugrad.ops import einsum as module

RNG = np.random.default_rng(0)


def check(f, xs):
    """Both modes to second order, in all four nestings, of a curved scalar made of ``f``, along random directions in every argument."""
    w = RNG.normal(size=np.shape(f(*xs)))

    def scalar(*v):
        return gg.sum(gg.sin(f(*v)) * w)

    everything = tuple(range(len(xs)))
    ts = tuple(np.asarray(RNG.normal(size=x.shape)) for x in xs)

    def along(arrays):
        return np.sum([np.sum(a * t) for a, t in zip(arrays, ts, strict=True)])

    e = 1e-6
    plus, minus = (tuple(x + s * t for x, t in zip(xs, ts, strict=True)) for s in (e, -e))
    gs = gg.grad(scalar, everything)(*xs)
    assert [g.shape for g in gs] == [x.shape for x in xs]
    slope = (scalar(*plus) - scalar(*minus)) / (2 * e)
    np.testing.assert_allclose(along(gs), slope, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(gg.jvp(scalar, xs, ts)[1], slope, rtol=1e-6, atol=1e-7)
    curvature = (along(gg.grad(scalar, everything)(*plus)) - along(gg.grad(scalar, everything)(*minus))) / (2 * e)
    for product in (
        *(gg.hvp(scalar, xs, ts, mode=mode) for mode in ("forward-over-reverse", "reverse-over-reverse")),
        gg.grad(lambda *v: gg.jvp(scalar, v, ts)[1], everything)(*xs),
    ):
        np.testing.assert_allclose(along(product), curvature, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(gg.jvp(lambda *v: gg.jvp(scalar, v, ts)[1], xs, ts)[1], curvature, rtol=1e-5, atol=1e-6)


CASES = [
    # products of matrices, in every order
    ("ij,jk->ik", (2, 3), (3, 4)),
    ("ij,jk", (2, 3), (3, 4)),
    ("ij,kj->ki", (2, 3), (4, 3)),
    ("ji,jk->ik", (3, 2), (3, 4)),
    ("ij,j->i", (2, 3), (3,)),
    ("bij,bjk->bik", (2, 3, 4), (2, 4, 5)),
    ("bij,bkj->kib", (2, 3, 4), (2, 5, 4)),
    ("bhqd,bhkd->bhqk", (2, 3, 4, 5), (2, 3, 6, 5)),
    ("abc,cad->dba", (2, 3, 4), (4, 2, 5)),
    ("abc,bc->a", (2, 3, 4), (3, 4)),
    # products of elements, outer products, sums
    ("i,i->i", (3,), (3,)),
    ("i,i", (3,), (3,)),
    ("ij,ij->i", (2, 3), (2, 3)),
    ("ij,ji->", (2, 3), (3, 2)),
    ("abc,abc->b", (2, 3, 4), (2, 3, 4)),
    ("i,j->ji", (3,), (2,)),
    (",ij->ji", (), (2, 3)),
    (",->", (), ()),
    ("A,a->aA", (2,), (3,)),
    # one operand
    ("ij->", (2, 3)),
    ("ba", (2, 3)),
    ("ijk->ki", (2, 3, 4)),
    ("abcd->bd", (3, 2, 3, 2)),  # HIPS/autograd#242
    ("...->...", (2, 3)),
    # subscripts repeated in an operand: HIPS/autograd#115, #510
    ("ii->", (3, 3)),
    ("ii->i", (3, 3)),
    ("ii", (3, 3)),
    ("iii->i", (2, 2, 2)),
    ("iij->j", (3, 3, 2)),
    ("ijij->ij", (2, 3, 2, 3)),
    ("nd,nn->d", (4, 2), (4, 4)),
    ("ijji,kji,jj->kj", (2, 3, 3, 2), (4, 3, 2), (3, 3)),
    # subscripts that stand in one operand only
    ("ab,cd->a", (2, 3), (4, 5)),
    ("ab,cd->", (2, 3), (4, 5)),
    ("ab,bc->b", (2, 3), (3, 4)),
    # ellipses that broadcast: HIPS/autograd#112, #114, pytorch#45854
    ("...ij,...jk->...ik", (2, 3, 3), (3, 4)),
    ("...ij,...jk", (2, 1, 3, 4), (5, 4, 5)),
    ("i...,i->...", (3, 2, 2), (3,)),
    ("i...,i...->...", (3, 2, 2), (3, 2)),
    ("...,...", (2, 3), (3,)),
    ("...i->...", (2, 3)),
    ("i...k,k...j->i...j", (2, 1, 3), (3, 2)),
    ("...ii->...i", (2, 3, 3)),
    # axes of length 1 that broadcast under a letter: HIPS/autograd#376
    ("i,i", (2,), (1,)),
    ("ij,ij->ij", (1, 3), (2, 3)),
    ("ij,ij->j", (1, 3), (2, 3)),
    ("ij,jk->ik", (2, 1), (3, 4)),
    # several operands
    ("ij,jk,kl->il", (2, 3), (3, 4), (4, 5)),
    ("ij,jk,ki->", (2, 3), (3, 4), (4, 2)),
    ("a,ab,abc->abc", (2,), (2, 3), (2, 3, 4)),
    ("ea,fb,abcd,gc,hd->efgh", (2, 2), (2, 2), (2, 2, 2, 2), (2, 2), (2, 2)),
    ("ik,jk,k->ij", (2, 3), (2, 3), (3,)),
    # nothing in it
    ("i,ij->j", (0,), (0, 3)),
    ("ij,jk->ik", (2, 0), (0, 3)),
    (" i j , j k -> i k ", (2, 3), (3, 4)),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0]} {case[1:]}")
def test_as_numpy(case):
    subscripts, *shapes = case
    xs = tuple(np.asarray(RNG.normal(size=s)) for s in shapes)
    for optimize in (True, False, "optimal"):
        y = gg.einsum(subscripts, *xs, optimize=optimize)
        expected = np.einsum(subscripts, *xs)
        assert np.shape(y) == np.shape(expected) and not isinstance(y, gg.Tensor)
        np.testing.assert_allclose(y, expected, rtol=1e-11, atol=1e-12)
        check(lambda *v, o=optimize: gg.einsum(subscripts, *v, optimize=o), xs)
        if len(xs) < 3:
            break


@pytest.mark.parametrize("case", [c for c in CASES if len(c) < 5], ids=lambda case: f"{case[0]} {case[1:]}")
def test_complex(case):
    subscripts, *shapes = case
    xs, ts = (tuple(np.asarray(RNG.normal(size=s) + 1j * RNG.normal(size=s)) for s in shapes) for _ in range(2))
    y, y_dot = gg.jvp(lambda *v: gg.einsum(subscripts, *v), xs, ts)
    np.testing.assert_allclose(y, np.einsum(subscripts, *xs), rtol=1e-11, atol=1e-12)
    parts = [np.einsum(subscripts, *xs[:i], t, *xs[i + 1 :]) for i, t in enumerate(ts)]
    np.testing.assert_allclose(y_dot, np.sum(parts, axis=0), rtol=1e-11, atol=1e-12)
    g = np.asarray(RNG.normal(size=y.shape) + 1j * RNG.normal(size=y.shape))
    back = gg.vjp(lambda *v: gg.einsum(subscripts, *v), *xs)[1](g)
    np.testing.assert_allclose(np.sum(g * y_dot), np.sum([np.sum(b * t) for b, t in zip(back, ts, strict=True)]), rtol=1e-10, atol=1e-12)


def test_sublists():
    # HIPS/autograd#31, #115: the other calling convention, without the result's sublist too
    a, b = RNG.normal(size=(2, 3)), RNG.normal(size=(3, 4))
    for args in ((a, [0, 1], b, [1, 2], [2, 0]), (a, [0, 1], b, [1, 2]), (a, [Ellipsis, 1], b, [1, 2]), (a, [1, 0])):
        np.testing.assert_allclose(gg.einsum(*args), np.einsum(*args))
    check(lambda a, b: gg.einsum(a, [0, 1], b, [1, 2], [2, 0]), (a, b))


def test_an_operand_in_several_places():
    a = RNG.normal(size=(3, 3))
    check(lambda a: gg.einsum("ij,jk,ki->", a, a, a), (a,))
    check(lambda a: gg.einsum("ii,ij->j", a, a), (a,))


def test_dtypes():
    for dtype in (np.int8, bool, np.float32, np.complex64):
        a = np.array([[1, 0, 1], [1, 1, 1]]).astype(dtype)
        for subscripts, operands in (("ij->i", [a]), ("ij,kj->ik", [a, a]), ("ij,ij->", [a, a])):
            y, expected = gg.einsum(subscripts, *operands), np.einsum(subscripts, *operands)
            assert y.dtype == expected.dtype
            np.testing.assert_array_equal(y, expected)
    g = gg.grad(lambda a: gg.sum(gg.einsum("ij,jk->ik", a, np.ones((3, 2)))))(np.ones((2, 3), np.float32))
    assert g.dtype == np.float32


def test_layouts():
    a, b = RNG.normal(size=(6, 8)), RNG.normal(size=(8, 6))
    for x, y in ((a[::-1, ::2], np.asfortranarray(b)[::2]), (np.broadcast_to(a[:1], (6, 8)), b), (b.T, a.T)):
        np.testing.assert_allclose(gg.einsum("ij,jk->ki", x, y), np.einsum("ij,jk->ki", x, y), rtol=1e-12)
        check(lambda x, y: gg.einsum("ij,jk->ki", x, y), (x, y))


def test_numpys_einsum_reaches_ours():
    t = gg.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
    y = np.einsum("ii->", t)
    assert type(y) is gg.Tensor and y.item() == 5
    y.backward()
    np.testing.assert_array_equal(t.grad.numpy(), np.eye(2))


def test_contractions_are_one_gemm_each_way(monkeypatch):
    seen = []
    value = module.matmul_value
    monkeypatch.setattr(module, "matmul_value", lambda a, b: seen.append((a.shape, b.shape)) or value(a, b))
    x, w = gg.tensor(RNG.normal(size=(5, 6, 3)), requires_grad=True), gg.tensor(RNG.normal(size=(3, 4)), requires_grad=True)
    gg.sum(gg.einsum("bti,io->bto", x, w) ** 2).backward()
    assert sorted(seen) == [((3, 30), (30, 4)), ((30, 3), (3, 4)), ((30, 4), (4, 3))]
    seen.clear()
    gg.einsum("ij,kj->ik", x.data[0], w.data[:, :3].T[:, :3].T)
    assert len(seen) == 1


MANY = [  # the operand that has examples, and the one product that all of them are
    ("ij,jk->ik", 0, ((35, 3), (3, 4))),
    ("ij,jk->ik", 1, ((5, 3), (3, 28))),
    ("ij,kj->ik", 1, ((28, 3), (3, 5))),  # rows as they lie in memory
    ("ji,jk->ik", 0, ((4, 3), (3, 35))),
]


@pytest.mark.parametrize(("subscripts", "batched", "expected"), MANY)
def test_many_contractions_are_one_gemm(subscripts, batched, expected, monkeypatch):
    seen, value, size = [], module.matmul_value, {"i": 5, "j": 3, "k": 4}
    monkeypatch.setattr(module, "matmul_value", lambda a, b: seen.append((a.shape, b.shape)) or value(a, b))
    shapes = [tuple(size[k] for k in term) for term in subscripts[:5].split(",")]
    a, b = (RNG.normal(size=(7, *shape) if i == batched else shape) for i, shape in enumerate(shapes))
    got = gg.vmap(lambda a, b: gg.einsum(subscripts, a, b), (0, None) if batched == 0 else (None, 0))(a, b)
    assert seen == [expected]
    terms = [f"z{term}" if i == batched else term for i, term in enumerate(subscripts[:5].split(","))]
    np.testing.assert_allclose(got, np.einsum(f"{terms[0]},{terms[1]}->z{subscripts[7:]}", a, b), rtol=1e-13, atol=1e-14)


def test_examples_of_examples_have_subscripts_enough():
    """Beyond those that are letters, too."""
    f, a, b = lambda a, b: gg.einsum("yz,zZ->yZ", a, b), RNG.normal(size=(2, 3, 4, 5)), RNG.normal(size=(3, 5, 6))
    np.testing.assert_allclose(gg.vmap(gg.vmap(f), (0, None))(a, b), np.matmul(a, b), rtol=1e-13, atol=1e-14)


def test_a_path_multiplies_small_things_first(monkeypatch):
    sizes = []
    value = module._pair.f
    monkeypatch.setattr(module._pair, "f", lambda *args, **params: sizes.append(np.size(y := value(*args, **params))) or y)
    a, b, v = RNG.normal(size=(50, 50)), RNG.normal(size=(50, 50)), RNG.normal(size=50)
    y = gg.einsum("ij,jk,k->i", a, b, v)
    np.testing.assert_allclose(y, a @ (b @ v))
    assert sizes == [50, 50]


def test_only_what_the_rule_reads_is_kept():
    x, w = RNG.normal(size=(5, 3)), gg.tensor(RNG.normal(size=(3, 4)), requires_grad=True)
    node = gg.einsum("ij,jk->ik", x, w).node
    assert node.vals[1] is None and node.y is None


@pytest.mark.parametrize(
    ("subscripts", "shapes", "message"),
    [
        ("ij,jk->ik", [(2, 3)], "got 1 operands for 2 terms"),
        ("ij->i", [(2,)], "operand 0 has 1 axes"),
        ("i...->i", [(2, 3)], "expected '...' in the result"),
        ("ij->k", [(2, 3)], "got 'k' in"),
        ("ij->ii", [(2, 3)], "got 'i' in"),
        ("i1->i", [(2, 3)], "got '1' in"),
        ("ij,jk->ik", [(2, 3), (4, 5)], r"shapes \(2, 3\), \(4, 5\) .* expected one length for 'j'"),
        ("ii->i", [(2, 3)], "expected axes of one length"),
    ],
)
def test_errors(subscripts, shapes, message):
    with pytest.raises(ValueError, match="einsum: .*" + message):
        gg.einsum(subscripts, *map(np.zeros, shapes))
    with pytest.raises(ValueError):
        np.einsum(subscripts, *map(np.zeros, shapes))


def test_out_is_refused():
    with pytest.raises(TypeError, match="einsum\\(\\) does not take out="):
        gg.einsum("i->", np.zeros(3), out=np.zeros(()))


@pytest.mark.parametrize("case", [c for c in CASES if 0 not in c[1]], ids=lambda case: f"{case[0]} {case[1:]}")
def test_devices_agree(case, put, device):
    subscripts, *shapes = case
    xs = [np.asarray(RNG.normal(size=s)) for s in shapes]
    gradient = gg.grad(lambda *v: gg.sum(gg.einsum(subscripts, *v) ** 2), tuple(range(len(xs))))
    for g, expected in zip(gradient(*map(put, xs)), gradient(*xs), strict=True):
        assert gg.backend.device_of(g) == gg.backend.device_name(device)
        np.testing.assert_allclose(gg.backend.to_device(g, "cpu"), expected, rtol=1e-10, atol=1e-12)
