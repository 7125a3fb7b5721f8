"""Backpropagation step by step, on a composition of four linear steps and three functions of one number.

    l = (b3 + w3 cos(b2 + w2 exp(b1 + w1 sin(b0 + w0 x))) - y)^2

    f0 = b0 + w0 x     h1 = sin f0      f1 = b1 + w1 h1     h2 = exp f1
    f2 = b2 + w2 h2    h3 = cos f2      f3 = b3 + w3 h3     l = (f3 - y)^2

The backward pass visits the same steps in reverse; the derivatives for the parameters branch off on the way.
"""

import numpy as np

import gpugrad as gg

B, W, X, Y = (1.0, 2.0, -3.0, 0.4), (0.1, -0.4, 2.0, 3.0), 2.3, 2.0


def variable(value):
    return gg.tensor(value, dtype=np.float64, requires_grad=True)


def forward(b, w):
    f0 = b[0] + w[0] * X
    h1 = gg.sin(f0)
    f1 = b[1] + w[1] * h1
    h2 = gg.exp(f1)
    f2 = b[2] + w[2] * h2
    h3 = gg.cos(f2)
    f3 = b[3] + w[3] * h3
    return {"f0": f0, "h1": h1, "f1": f1, "h2": h2, "f2": f2, "h3": h3, "f3": f3, "loss": (f3 - Y) ** 2}


def finite_difference(eps=1e-6):
    """Of omega0: (l(w0 + eps) - l(w0 - eps)) / (2 eps), with plain floats, for which nothing is recorded."""
    up, down = (forward(B, (W[0] + e, *W[1:]))["loss"] for e in (eps, -eps))
    return float((up - down) / (2 * eps))


def main():
    b, w = [variable(v) for v in B], [variable(v) for v in W]
    steps = forward(b, w)
    values = {name: t.item() for name, t in steps.items()}
    print("forward: ", "  ".join(f"{name} = {v:.3f}" for name, v in values.items()))

    loss = steps.pop("loss")
    names = ["f3", "h3", "f2", "h2", "f1", "h1", "f0"]
    parameters = {f"{letter}{k}": t[k] for k in (3, 2, 1, 0) for letter, t in (("beta", b), ("omega", w))}
    wanted = {name: steps[name] for name in names} | parameters
    gradients = {name: g.item() for name, g in zip(wanted, gg.autograd.grad(loss, list(wanted.values())))}
    for name, g in gradients.items():
        print(f"dl/d{name:6} = {g:8.3f}")

    numeric = finite_difference()
    print(f"finite difference for omega0: {numeric:.3f}")
    return {"values": values, "gradients": gradients, "finite difference": numeric}


if __name__ == "__main__":
    main()
