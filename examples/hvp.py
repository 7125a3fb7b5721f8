"""Products of a Hessian with vectors, and what one does with them: a tour.

The Hessian H of a network's loss has as many rows and columns as there are weights, so nobody makes it; but H v costs no more than a few gradients
(Pearlmutter, "Fast exact multiplication by the Hessian", 1994). Here the network is so small that H can be made after all, and everything is compared with it.
"""

import numpy as np

import gpugrad as gg
from gpugrad import curvature, nn

F = nn.functional
MODES = ("reverse-over-forward", "forward-over-reverse", "reverse-over-reverse")


def problem(seed=0):
    """A network, and its loss as a function of the weights: a dict of arrays by path."""
    gg.random.seed(seed)
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(100, 4))
    y = np.where(x[:, 0] * x[:, 1] > 0, 1, 0) + (x[:, 2] > 1)
    model = nn.MLP([4, 8, 3], "tanh", dtype=np.float64)
    weights = {name: w.numpy() for name, w in model.named_parameters()}
    return lambda weights: F.cross_entropy(nn.functional_call(model, weights, x), y), weights


def power_iteration(product, v, steps=200):
    """The eigenvalue of largest magnitude: v is multiplied and scaled until it turns no more."""
    for _ in range(steps):
        v = v / np.linalg.norm(v)
        Hv = product(v)
        value, v = v @ Hv, Hv
    return value


def gradient_norm_penalty(loss, c):
    """``loss + c |gradient|^2``, which likes flat minima. It holds a gradient, and is differentiated again like anything else: its own gradient is g + 2 c H g."""

    def penalised(weights):
        value, g = gg.value_and_grad(loss)(weights)
        return value + c * sum(gg.sum(part**2) for part in g.values())

    return penalised


def main():
    loss, w = problem()
    rng = np.random.default_rng(1)
    v, V = {name: rng.normal(size=a.shape) for name, a in w.items()}, {name: rng.normal(size=(16, *a.shape)) for name, a in w.items()}

    ways = {f"gg.hvp(loss, w, v, mode={mode!r})": gg.hvp(loss, w, v, mode=mode) for mode in MODES}
    value, g, ways["value, g, Hv = gg.value_grad_hvp(loss, w, v)"] = gg.value_grad_hvp(loss, w, v)
    g, push = gg.linearize(gg.grad(loss), w)  # for many products at one point
    ways["push(v), where g, push = gg.linearize(gg.grad(loss), w)"] = push(v)
    H = curvature.HessianOperator(loss, w)  # the same as a matrix, which may be over a data set, and go to SciPy
    ways["H @ v, where H = curvature.HessianOperator(loss, w)"] = H @ v
    block = gg.block_hvp(loss, w, V)  # 16 vectors at once
    first = H.block("0.weight") @ v["0.weight"]  # of the rows and columns of one parameter
    largest = power_iteration(lambda u: H @ u, rng.normal(size=H.shape[0]))
    penalised = gg.grad(gradient_norm_penalty(loss, c=0.1))(w)

    flat = lambda nest: np.concatenate([a.ravel() for a in nest.values()])
    dense, eigenvalues = H.to_dense(), np.linalg.eigvalsh(H.to_dense())
    expected = dense @ flat(v)
    errors = {way: np.abs(flat(Hv) - expected).max() for way, Hv in ways.items()}
    errors["gg.block_hvp(loss, w, V), 16 vectors at once"] = abs(flat_rows(block) - flat_rows(V) @ dense).max()
    errors["H.block('0.weight') @ v['0.weight']"] = abs(first.ravel() - dense[:32, :32] @ v["0.weight"].ravel()).max()
    errors["the gradient of loss + c |g|^2, which is g + 2 c H g"] = abs(flat(penalised) - (flat(g) + 0.2 * dense @ flat(g))).max()
    print(f"{len(dense)} weights, so the Hessian has {dense.size} numbers. How far each is from its product:")
    for way, error in errors.items():
        print(f"  {way:60} {error:.0e}")
    print(f"the largest eigenvalue: {largest:.6f} by power iteration, {eigenvalues[-1]:.6f} by eigvalsh")
    return {"errors": errors, "value": float(value), "product": expected, "largest": largest, "eigenvalues": eigenvalues}


def flat_rows(nest):
    return np.concatenate([a.reshape(len(a), -1) for a in nest.values()], axis=1)


if __name__ == "__main__":
    main()
