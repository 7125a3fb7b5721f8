"""Why gradients vanish or explode in deep nets, and what cures them: on a chain of layers that are one number wide, and on nets of 30 layers.

    h_k = sigmoid(z_k),  z_k = w_k h_{k-1} + b_k,    df/dh_{k-1} = df/dh_k sigma'(z_k) w_k,    df/dw_k = df/dh_k sigma'(z_k) h_{k-1}

sigma' is at most 1/4, and each layer multiplies the gradient by sigma'(z) w once more: below 1 it vanishes, above 1 it
explodes. In the chains every bias keeps its z at 0, where sigma' is exactly 1/4, so the factor is w/4 exactly. In the nets
w is a matrix, and what happens to the gradient's length is the same; each is trained a little too, to see what it is worth.
Clipping keeps a step short, but cannot make its direction useful: what exploded in the first layers drowns all the others.

With matplotlib (pip install 'gpugrad[plot]') the gradient's norm in each layer of the nets is drawn.
"""

import math

import numpy as np

import gpugrad as gg
from gpugrad import nn, optim

LAYERS = 12  # of the chain
DEPTH, WIDTH, CLASSES = 30, 64, 10  # of the nets


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
    """The weight, or array of weights, after that many steps of weight decay alone, w <- w - rate w."""
    for _ in range(steps):
        w = w - rate * w
    return w


def clipped(gradient, limit=1.0):
    """Scaled down to the length ``limit`` where it is longer: the direction stays."""
    return gradient * min(1.0, limit / np.linalg.norm(gradient))


# ---- nets of 30 hidden layers


def examples(n=128):
    """Noisy points around one centre for each class."""
    gg.random.seed(0)
    labels = gg.random.randint(CLASSES, size=n).numpy()
    return gg.random.normal(0, 0.7, (CLASSES, WIDTH), dtype=np.float32).numpy()[labels] + gg.random.normal(0, 0.7, (n, WIDTH), dtype=np.float32).numpy(), labels


def net(activation, norm=None, residual=False, scale=1.0):
    """Weights that keep the size of what passes: Kaiming's (2015) for ReLU, Xavier's (2010) for the others; times ``scale``."""
    gg.random.seed(1)
    model = nn.MLP([WIDTH] * (DEPTH + 1) + [CLASSES], activation, norm=norm, residual=residual)
    for layer in linears(model):
        fill = nn.init.kaiming_normal_ if activation == "relu" else nn.init.xavier_normal_
        fill(layer.weight)
        nn.init.zeros_(layer.bias)
        layer.weight.data *= scale
    return model


def linears(model):
    return [m for m in model.modules() if isinstance(m, nn.Linear)]


def weights_decayed(model, steps):
    for layer in linears(model):
        layer.weight.data = decayed(layer.weight.data, steps=steps)
    return model


def norms_and_training(model, max_grad_norm=None, steps=100):
    """||dloss/dW_k|| for each layer k before training, and the loss after some steps of it."""
    x, labels = examples()
    optimizer = optim.SGD(model.parameters(), lr=0.003, momentum=0.9)
    for step in range(steps):
        loss = nn.functional.cross_entropy(model(x), labels)
        optimizer.zero_grad()
        loss.backward()
        if max_grad_norm is not None:
            optim.clip_grad_norm_(model.parameters(), max_grad_norm)
        if step == 0:
            norms = np.array([np.linalg.norm(layer.weight.grad.numpy()) for layer in linears(model)])
        optimizer.step()
    return {"norms": norms, "loss": loss.item()}


def deep_nets():
    return {
        "sigmoid: vanishing": norms_and_training(net("sigmoid")),
        "ReLU, Kaiming's weights": norms_and_training(net("relu")),
        "sigmoid, batch norm": norms_and_training(net("sigmoid", norm="batch")),
        "sigmoid, residual connections": norms_and_training(net("sigmoid", residual=True)),
        "tanh, weights 4 times too large: exploding": norms_and_training(net("tanh", scale=4)),
        "the same after 138 steps of weight decay": norms_and_training(weights_decayed(net("tanh", scale=4), steps=138)),
        "the same, clipped to length 1": norms_and_training(net("tanh", scale=4), max_grad_norm=1.0),
    }


def plot(nets, path):
    try:
        from matplotlib.figure import Figure
    except ImportError:
        print("no picture: matplotlib is not installed (pip install 'gpugrad[plot]')")
        return None
    figure = Figure(figsize=(9, 4.5), layout="constrained")
    axes = figure.add_subplot()
    for (name, found), marker in zip(nets.items(), "ov^sdxP"):
        axes.semilogy(range(1, DEPTH + 2), found["norms"], marker=marker, markersize=4, label=name)
    axes.set(xlabel="layer k", ylabel="norm of the gradient of W_k", title=f"Nets with {DEPTH} hidden layers, before training")
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right center")
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

    print(f"\nnets of {DEPTH} hidden layers {WIDTH} wide, {CLASSES} classes, which a guess gives the loss {math.log(CLASSES):.2f}")
    nets = deep_nets()
    for name, found in nets.items():
        print(f"{name:42} gradient norm {found['norms'][0]:8.1e} in layer 1, {found['norms'][-1]:8.1e} in the last; loss after 100 steps {found['loss']:.3f}")
    return {"recursion": recursion, "largest slope": slope.max(), "cases": cases, "nets": nets, "picture": plot(nets, path)}


if __name__ == "__main__":
    main()
