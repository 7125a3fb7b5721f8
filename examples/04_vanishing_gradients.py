"""Why gradients vanish or explode in deep nets, and what cures them, on a chain of layers that are one number wide.

    h_k = sigmoid(z_k),  z_k = w_k h_{k-1} + b_k,    df/dh_{k-1} = df/dh_k sigma'(z_k) w_k,    df/dw_k = df/dh_k sigma'(z_k) h_{k-1}

sigma' is at most 1/4, and each layer multiplies the gradient by sigma'(z) w once more: below 1 it vanishes, above 1 it
explodes. In the deep chains here every bias keeps its z at 0, where sigma' is exactly 1/4, so the factor is w/4 exactly.

With matplotlib (pip install 'gpugrad[plot]') the gradients per layer are drawn too.
"""

import math

import numpy as np

import gpugrad as gg

LAYERS = 12


def variable(value):
    return gg.tensor(value, dtype=np.float64, requires_grad=True)


def check_recursion():
    """The tape against the recursion above, on a short chain of uneven layers."""
    w, b = [0.7, -1.3, 2.1, 0.4, 1.9], [0.1, 0.5, -0.3, 0.0, -1.0]
    ws, bs, hs, zs = [variable(v) for v in w], [variable(v) for v in b], [variable(0.8)], []
    for w_k, b_k in zip(ws, bs):
        zs.append(w_k * hs[-1] + b_k)
        hs.append(gg.sigmoid(zs[-1]))
    taped = [g.item() for g in gg.autograd.grad(hs[-1], [*hs, *ws, *bs])]

    dh = [1.0]  # from the last layer to the first
    dw, db = [], []
    for k in reversed(range(len(w))):
        s = 1 / (1 + math.exp(-zs[k].item()))
        db.append(dh[-1] * s * (1 - s))
        dw.append(db[-1] * hs[k].item())
        dh.append(db[-1] * w[k])
    return {"tape": taped, "recursion": [*dh[::-1], *dw[::-1], *db[::-1]]}


def gradients_per_layer(w, activation=gg.sigmoid, residual=False):
    """df/dw_k for k = 1, ..., LAYERS, where f is the last layer."""
    h = variable(0.5)
    weights = [variable(w) for _ in range(LAYERS)]
    for w_k in weights:
        b_k = -w * h.item() if activation is gg.sigmoid else 0.0  # a constant that keeps z_k at 0
        y = activation(w_k * h + b_k)
        h = h + y if residual else y
    return np.array([g.item() for g in gg.autograd.grad(h, weights)])


def decayed(w, rate=0.01, steps=69):
    """The weight after that many steps of weight decay alone, w <- w - rate w."""
    for _ in range(steps):
        w -= rate * w
    return w


def clipped(gradient, limit=1.0):
    """Scaled down to the length ``limit`` where it is longer: the direction stays."""
    return gradient * min(1.0, limit / np.linalg.norm(gradient))


def plot(cases, path):
    try:
        from matplotlib.figure import Figure
    except ImportError:
        print("no picture: matplotlib is not installed (pip install 'gpugrad[plot]')")
        return None
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.add_subplot()
    for (name, gradient), marker in zip(cases.items(), "ov^sdx"):
        axes.semilogy(range(1, LAYERS + 1), np.abs(gradient), marker=marker, label=name)
    axes.set(xlabel="layer k", ylabel="|df/dw_k|", title="The gradient of each layer's weight, f being the last layer", xticks=range(1, LAYERS + 1))
    axes.grid(alpha=0.3)
    figure.legend(loc="outside lower center", ncols=2)
    figure.savefig(path, dpi=120)
    print(f"drawn in {path}")
    return path


def main(path="gradients_per_layer.png"):
    recursion = check_recursion()
    print("tape     ", np.array2string(np.array(recursion["tape"]), precision=5))
    print("recursion", np.array2string(np.array(recursion["recursion"]), precision=5))

    z = np.linspace(-6, 6, 1201)
    slope = gg.vjp(gg.sigmoid, z)[1](np.ones_like(z))[0]
    print(f"sigma' is at most {slope.max():.4f}, at z = {abs(z[slope.argmax()]):.1f}")

    exploding = gradients_per_layer(w=8)
    cases = {
        "sigmoid, w = 1: vanishing": gradients_per_layer(w=1),
        "ReLU, w = 1": gradients_per_layer(w=1, activation=gg.relu),
        "residual: h + sigmoid(z), w = 1": gradients_per_layer(w=1, residual=True),
        "sigmoid, w = 8: exploding": exploding,
        "w = 8 after 69 steps of decay": gradients_per_layer(w=decayed(8)),
        "w = 8, clipped to length 1": clipped(exploding),
    }
    for name, gradient in cases.items():
        print(f"{name:32} df/dw_1 = {gradient[0]:10.3e}   df/dw_{LAYERS} = {gradient[-1]:10.3e}   length {np.linalg.norm(gradient):10.3e}")
    return {"recursion": recursion, "largest slope": slope.max(), "cases": cases, "picture": plot(cases, path)}


if __name__ == "__main__":
    main()
