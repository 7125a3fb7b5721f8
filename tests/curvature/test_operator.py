"""What every operator can do: forms of vectors, algebra, blocks, and messages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from curvature_cases import cut, labels, net, reals
from numpy.testing import assert_allclose, assert_array_equal

import gpugrad as gg
from gpugrad.curvature import FisherOperator, GaussNewtonOperator, HessianOperator, over_data
from gpugrad.nn import functional as F  # noqa: N812

PARAMS = {"w": reals(4, 2), "layers": [reals(2, 3, seed=1), (reals(3, seed=2), None)]}
N = 8 + 6 + 3


def model(p: Any, x: Any) -> Any:
    return gg.tanh(x @ p["w"]) @ p["layers"][0] + p["layers"][1][0]


def loss(p: Any, batch: Any) -> Any:
    return F.cross_entropy(model(p, batch[0]), batch[1])


X, Y = reals(9, 4, seed=5), labels(9, 3)
MAKE: dict[str, Callable[..., Any]] = {
    "hessian": lambda params, data, **o: HessianOperator(loss, params, data, **o),
    "gauss-newton": lambda params, data, **o: GaussNewtonOperator(model, "cross_entropy", params, data, **o),
    "monte-carlo": lambda params, data, **o: FisherOperator(model, "cross_entropy", params, data, kind="monte-carlo", **o),
    "combination": lambda params, data, **o: (
        0.5 * HessianOperator(loss, params, data, **o).damped(0.3) - GaussNewtonOperator(model, "cross_entropy", params, data)
    ),
}


@pytest.fixture(name="A", params=MAKE)
def _operator(request: Any) -> Any:
    return MAKE[request.param](PARAMS, cut(X, Y, 4, 4, 1))


@pytest.fixture(name="H")
def _hessian() -> HessianOperator:
    return HessianOperator(loss, PARAMS, cut(X, Y, 4, 4, 1))


# ---------------------------------------------------------------------------------- forms


def test_every_form_of_vector(A: Any) -> None:
    D, v, V = A.to_dense(), reals(N), reals(N, 5)
    assert A.shape == D.shape == (N, N) and A.dtype == np.float64 and A.device == "cpu"
    assert_allclose(D, D.T, rtol=1e-9, atol=1e-14)
    close = {"rtol": 1e-9, "atol": 1e-13}
    assert_allclose(A @ v, D @ v, **close)
    assert_allclose(A @ V, D @ V, **close)
    for k in range(5):
        assert_allclose((A @ V)[:, k], A @ V[:, k], **close)
    assert (A @ V[:, :1]).shape == A.matvec(V[:, :1]).shape == (N, 1)
    assert (A @ V[:, :0]).shape == (N, 0)
    for f, B in ((A.matvec, v), (A.rmatvec, v), (A.matmat, V), (A.rmatmat, V)):
        assert_allclose(f(B), D @ B, **close)
    assert_allclose(v @ A, v @ D, **close)
    assert_allclose(V.T @ A, V.T @ D, **close)
    assert_allclose(A.T @ v, D @ v, **close)
    assert_allclose(A.H @ v, A.adjoint() @ v)


def test_nests_in_and_out(A: Any) -> None:
    D, v, V = A.to_dense(), reals(N), reals(N, 5)
    nest = A.domain.nest(v)
    assert list(nest) == ["w", "layers"] and nest["layers"][1][1] is None and nest["w"].shape == (4, 2)
    assert_array_equal(A.domain.flat(nest), v)
    product = A @ nest
    assert type(product["layers"][1]) is tuple
    assert_allclose(A.domain.flat(product), D @ v, rtol=1e-9, atol=1e-13)
    several = A.domain.nest(V)
    assert several["layers"][0].shape == (5, 2, 3)
    assert_allclose(A.domain.flat(A @ several), D @ V, rtol=1e-9, atol=1e-13)
    assert_allclose(A.domain.flat(A.matmat(several)), D @ V, rtol=1e-9, atol=1e-13)


def test_kinds_of_arrays(A: Any) -> None:
    v = reals(N)
    assert type(A @ v) is np.ndarray
    t = A @ gg.tensor(v)
    assert type(t) is gg.Tensor and not t.requires_grad
    assert_array_equal(t.numpy(), A @ v)
    assert all(type(x) is gg.Tensor for x in gg.tree.flatten(A @ A.domain.nest(gg.tensor(v)))[0])
    assert (A @ v.astype(np.float32)).dtype == np.float64


def test_vectors_from_the_left(device: str, put: Any) -> None:
    H = HessianOperator(lambda x: gg.sum(x**4), put(reals(3)))
    for v in (put(reals(3)), gg.tensor(reals(3), device=device)):
        product = v @ H
        assert type(product) is type(v) and product.device == v.device
        assert_allclose(gg.backend.to_device(gg.tape.plain(product), "cpu"), 12 * reals(3) ** 3)


def test_results_are_arrays_of_their_own(A: Any) -> None:
    v = A.domain.nest(reals(N))
    first, second = A @ v, A @ v
    before = A.domain.flat(second)
    for x in gg.tree.flatten(first)[0]:
        x[...] = 1e9
    assert_array_equal(A.domain.flat(A @ v), before)
    assert_array_equal(A.domain.flat(v), reals(N))
    one = A.identity() @ v
    one["w"][...] = 7
    assert_array_equal(A.domain.flat(v), reals(N))


def test_derivatives_pass_through_products(A: Any) -> None:
    D, v = A.to_dense(), reals(N)
    assert_allclose(gg.grad(lambda v: 0.5 * gg.sum(v * (A @ v)))(v), D @ v, rtol=1e-9, atol=1e-13)
    assert_allclose(gg.jvp(lambda v: A @ v, (v,), (reals(N, seed=1),))[1], D @ reals(N, seed=1), rtol=1e-9, atol=1e-13)
    assert_allclose(gg.hessian(lambda v: gg.sum((A @ v) ** 2))(v), 2 * D @ D, rtol=1e-9, atol=1e-13)
    assert_allclose(gg.vmap(lambda v: A @ v)(np.eye(N)), D, rtol=1e-9, atol=1e-13)
    assert_allclose(gg.vmap(lambda V: A @ V)(reals(2, N, 3)), D @ reals(2, N, 3), rtol=1e-9, atol=1e-13)
    t = gg.tensor(v, requires_grad=True)
    gg.sum(A @ t).backward()
    assert_allclose(t.grad, D.sum(0), rtol=1e-9, atol=1e-13)


def test_the_derivative_of_a_product_is_the_transpose(H: HessianOperator) -> None:
    B = H.block("layers[0]", "w")
    u, v, D = reals(6), reals(8), B.to_dense()
    assert_allclose(gg.grad(lambda v: u @ (B @ v))(v), D.T @ u, rtol=1e-9, atol=1e-13)
    assert_allclose(gg.jacobian(lambda v: B @ v, mode="reverse")(v), D, rtol=1e-9, atol=1e-13)
    assert_allclose(gg.jacobian(lambda v: B @ v, mode="forward")(v), D, rtol=1e-9, atol=1e-13)
    nest = gg.grad(lambda p: gg.sum((H @ p)["w"]))(H.domain.nest(reals(N)))
    assert_allclose(H.domain.flat(nest), H.to_dense()[:8].sum(0), rtol=1e-9, atol=1e-13)


def test_blocks_of_vectors_within_a_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    V, chunks = reals(N, 7), []
    vmap = over_data.vmap
    monkeypatch.setattr(over_data, "vmap", lambda f, chunk_size: chunks.append(chunk_size) or vmap(f, chunk_size=chunk_size))
    (kept,) = HessianOperator(loss, PARAMS, [(X, Y)])._kept.values()
    HessianOperator(loss, PARAMS, [(X, Y)], memory=3 * kept.width + 1) @ V
    HessianOperator(loss, PARAMS, [(X, Y)], memory=1) @ V
    assert chunks == [3, 1]
    whole, small = HessianOperator(loss, PARAMS, [(X, Y)]), HessianOperator(loss, PARAMS, [(X, Y)], memory=1)
    assert_allclose(small @ V, whole @ V, rtol=1e-10, atol=1e-14)


def test_a_single_array_of_parameters() -> None:
    w = reals(3, 2)
    H = HessianOperator(lambda w: gg.sum(w**4), w)
    D = np.diag(12 * w.reshape(-1) ** 2)
    assert_allclose(H @ w, 12 * w**3)
    assert_allclose(H @ w.reshape(-1), 12 * w.reshape(-1) ** 3)
    assert_allclose(H @ reals(6, 3), D @ reals(6, 3))
    assert_allclose(H @ np.stack([w, w]), 12 * np.stack([w, w]) ** 3)
    scalar = HessianOperator(lambda x: x**3, 2.0)
    assert scalar.shape == (1, 1) and scalar @ np.array(1.5) == 18.0
    assert_array_equal(scalar @ np.ones((1, 2)), [[12.0, 12.0]])


# ---------------------------------------------------------------------------------- bad vectors


def test_vectors_that_do_not_fit(H: HessianOperator) -> None:
    with pytest.raises(ValueError, match=r"the vector has shape \(16,\), expected \(17,\), \(17, K\), or a nest like the parameters: w \(4, 2\)"):
        H @ reals(16)
    with pytest.raises(ValueError, match=r"shape \(3, 17\), expected"):
        H @ reals(3, 17)
    with pytest.raises(ValueError, match="must be a nest of the same structure"):
        H @ {"w": reals(4, 2)}
    nest = H.domain.nest(reals(N))
    with pytest.raises(ValueError, match=r"the vector is a list of 2 vectors: give them as the columns of one array, np\.stack\(vectors, axis=1\)"):
        H @ [reals(N), reals(N)]
    with pytest.raises(ValueError, match="Of these 3 nests make one: stack each leaf, the vectors first"):
        H @ [nest, nest, nest]
    one = HessianOperator(lambda p: gg.sum(p[0] ** 3), [np.ones(3)])
    assert_allclose((one @ [np.ones(3)])[0], 6.0)  # a list that is a nest like the parameters
    with pytest.raises(ValueError, match=r"the vector: layers\[0\] has shape \(3, 2\), expected \(2, 3\), or \(K, 2, 3\) for K vectors"):
        H @ {**nest, "layers": [nest["layers"][0].T, nest["layers"][1]]}
    with pytest.raises(ValueError, match="not as many vectors in each"):
        H @ {**H.domain.nest(reals(N, 2)), "w": reals(3, 4, 2)}
    with pytest.raises(TypeError, match=r"the vector is int64, expected floats: convert it by \.astype\('float64'\)"):
        H @ np.ones(N, int)
    with pytest.raises(TypeError, match=r"w is complex128, expected real numbers.*v\.real and v\.imag"):
        H @ {**nest, "w": nest["w"] * 1j}
    with pytest.raises(TypeError, match="operator @ operator"):
        H @ H
    with pytest.raises(ValueError, match="matvec: got 3 vectors, expected one"):
        H.matvec(reals(N, 3))
    with pytest.raises(ValueError, match="matmat: got one vector"):
        H.matmat(reals(N))
    with pytest.raises(TypeError, match=r"the vector is list, expected an array of shape \(3,\)"):
        HessianOperator(lambda x: gg.sum(x**2), reals(3)) @ [1.0, 2.0, 3.0]


def test_devices_are_not_mixed(fake_cupy: Any, H: HessianOperator) -> None:
    with pytest.raises(gg.DeviceError, match=r"the vector is on cuda:0, the parameters are on cpu: move it with gg\.asarray\(v, device='cpu'\)"):
        H @ fake_cupy.asarray(reals(N))
    with pytest.raises(gg.DeviceError, match=r"a is on cpu and b on cuda:0: expected all parameters on one device"):
        HessianOperator(lambda p: gg.sum(p["a"]), {"a": reals(2), "b": fake_cupy.asarray(reals(2))})


# ---------------------------------------------------------------------------------- algebra


def test_algebra(H: HessianOperator) -> None:
    G, D = GaussNewtonOperator(model, "cross_entropy", PARAMS, [(X, Y)]), H.to_dense()
    E, v, one = G.to_dense(), reals(N), np.eye(N)
    for A, expected in [
        (2 * H, 2 * D), (H * np.float64(2), 2 * D), (-H, -D), (H / 4, D / 4), (H + G, D + E), (H - G, D - E), (H.damped(0.1), D + 0.1 * one),
        (H + 0.1 * H.identity(), D + 0.1 * one), (2 * (H - 0.5 * G).damped(0.2) - H, D - E + 0.4 * one), (sum([H, G], 0 * H), D + E), (H.identity(), one),
        (H - H, 0 * D),
    ]:  # fmt: skip
        assert_allclose(A @ v, expected @ v, rtol=1e-9, atol=1e-13)
        assert_allclose(A.to_dense(), expected, rtol=1e-9, atol=1e-13)
        assert_allclose(A.T.to_dense(), expected, rtol=1e-9, atol=1e-13)
    with pytest.raises(TypeError, match=r"write A\.damped\(c\) for A \+ c I"):
        H + 0.1
    with pytest.raises(TypeError, match=r"write A\.damped\(c\)"):
        0.1 + H
    with pytest.raises(ValueError, match=r"shapes \(17, 17\) and \(3, 3\) are not of the same parameters"):
        H + HessianOperator(lambda x: gg.sum(x**2), reals(3))
    with pytest.raises(TypeError):
        H * reals(N)


def test_damping_of_the_operator_itself() -> None:
    D = HessianOperator(loss, PARAMS, [(X, Y)]).to_dense()
    H = HessianOperator(loss, PARAMS, [(X, Y)], damping=0.5)
    assert_allclose(H.to_dense(), D + 0.5 * np.eye(N), rtol=1e-12)
    assert_allclose(H @ reals(N), D @ reals(N) + 0.5 * reals(N), rtol=1e-9)
    assert_allclose(H.block("w").to_dense(), D[:8, :8] + 0.5 * np.eye(8), rtol=1e-9)
    assert_allclose(H.block("w", 1).to_dense(), D[:8, 8:14], rtol=1e-9)


def test_what_an_operator_is_not(H: HessianOperator) -> None:
    with pytest.raises(TypeError, match=r"HessianOperator of shape \(17, 17\).* is no array: A\.to_dense\(\)"):
        np.linalg.eigvalsh(H)
    for wrong in (lambda: H * reals(N), lambda: reals(N) * H, lambda: H * H, lambda: H.damped(reals(N))):
        with pytest.raises(TypeError, match=r"operator times \w+: expected one number; the product with vectors is A @ v"):
            wrong()


def test_losses_and_data_go_together() -> None:
    with pytest.raises(TypeError, match=r"the loss takes \(params, batch\), but there is no data: give an iterable of batches"):
        HessianOperator(loss, PARAMS)
    with pytest.raises(TypeError, match=r"the loss takes params alone, but there is data"):
        HessianOperator(lambda p: gg.sum(p["w"]), PARAMS, [(X, Y)])
    with pytest.raises(TypeError, match="params is a generator, expected a nest of arrays, or a module"):
        HessianOperator(loss, (p for p in (X, Y)), [(X, Y)])


# ---------------------------------------------------------------------------------- parts


def test_blocks_of_parameters(A: Any) -> None:
    D, names = A.to_dense(), A.domain.names
    assert names == ("w", "layers[0]", "layers[1][0]")
    at = {names[0]: range(8), names[1]: range(8, 14), names[2]: range(14, 17)}
    for rows in names:
        for columns in names:
            B = A.block(rows, columns)
            expected = D[np.ix_(at[rows], at[columns])]
            assert B.shape == expected.shape
            assert_allclose(B.to_dense(), expected, rtol=1e-9, atol=1e-13)
            assert_allclose(B.T.to_dense(), expected.T, rtol=1e-9, atol=1e-13)
            v = reals(B.shape[1])
            assert_allclose(B @ v, expected @ v, rtol=1e-9, atol=1e-13)
            assert_allclose(reals(B.shape[0]) @ B, reals(B.shape[0]) @ expected, rtol=1e-9, atol=1e-13)
    some = [2, 0]
    at_some = [*at[names[2]], *at[names[0]]]
    assert_allclose(A.block(some).to_dense(), D[np.ix_(at_some, at_some)], rtol=1e-9, atol=1e-13)
    assert_allclose(A.block(some, [1]).to_dense(), D[np.ix_(at_some, at[names[1]])], rtol=1e-9, atol=1e-13)
    assert_allclose(A.block(some, [0]).to_dense(), D[np.ix_(at_some, at[names[0]])], rtol=1e-9, atol=1e-13)
    assert [x.shape for x in A.block(some) @ [reals(3), reals(4, 2)]] == [(3,), (4, 2)]
    assert (A.block(names[0]) @ reals(4, 2)).shape == (4, 2)
    assert_allclose(A.block(some).block(1).to_dense(), D[:8, :8], rtol=1e-9, atol=1e-13)


def test_blocks_of_what_holds_parameters(A: Any) -> None:
    """They are named by what their names begin with."""
    D = A.to_dense()
    assert_allclose(A.block("layers").to_dense(), D[8:, 8:], rtol=1e-9, atol=1e-13)
    assert_allclose(A.block("layers", "w").to_dense(), D[8:, :8], rtol=1e-9, atol=1e-13)
    assert_allclose(A.block(["layers[1]", "w"]).to_dense(), D[np.ix_([14, 15, 16, *range(8)], [14, 15, 16, *range(8)])], rtol=1e-9, atol=1e-13)
    assert [x.shape for x in A.block("layers") @ [reals(2, 3), reals(3)]] == [(2, 3), (3,)]
    with pytest.raises(ValueError, match="none twice"):
        A.block(["layers", "layers[0]"])
    with pytest.raises(KeyError, match="no parameter layer: expected one of w, layers"):
        A.block("layer")


def test_a_block_computes_no_derivatives_of_other_parameters(H: HessianOperator) -> None:
    """Its linearized gradient is smaller."""
    B = H.block("layers[1][0]")
    B @ reals(3)
    assert sum(k.nbytes for k in B._kept.values()) < 0.8 * sum(k.nbytes for k in H._kept.values())
    assert H.block("w", "layers[1][0]").whole.domain.names == ("w", "layers[1][0]")
    with pytest.raises(KeyError, match=r"no parameter .*W.*: expected one of .*layers\[1\]\[0\]"):
        H.block("W")
    with pytest.raises(ValueError, match="none twice"):
        H.block([0, 0])
    with pytest.raises(ValueError, match="identity"):
        H.block(0, 1).identity()


def test_modules_name_their_parameters_by_path() -> None:
    m = net()
    H = HessianOperator(lambda m, b: F.cross_entropy(m(b[0]), b[1]), m, [(X, Y)])
    assert H.domain.names == ("0.weight", "0.bias", "2.weight", "2.bias")
    D = H.to_dense()
    assert_allclose(H.block("2.weight").to_dense(), D[25:40, 25:40], rtol=1e-9, atol=1e-13)
    assert repr(H) == "HessianOperator of shape (43, 43), float64 on cpu"
    m.load_state_dict({k: v * 0 for k, v in m.state_dict().items()})
    assert_allclose(H.to_dense(), D)


def test_mixed_dtypes_keep_theirs() -> None:
    params = {"a": reals(3).astype(np.float32), "b": reals(2)}
    H = HessianOperator(lambda p: gg.sum(p["a"] ** 3) * gg.sum(p["b"] ** 2), params)
    product = H @ params
    assert (product["a"].dtype, product["b"].dtype, H.dtype, (H @ reals(5)).dtype) == (np.float32, np.float64, np.float64, np.float64)
    assert_allclose(H.domain.flat(product), H.to_dense() @ H.domain.flat(params), rtol=1e-5)
