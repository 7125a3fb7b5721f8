"""Learn y = w x from three points by stochastic gradient descent, one sample at a time.

    loss = (y - w x)^2,    dloss/dw = 2 x (x w - y),    w <- w - 0.01 dloss/dw

The points lie on y = 2 x, so w goes from 1 to 2. And why a net needs activations: two linear layers are one.
"""

import numpy as np

import gpugrad as gg

DATA = [(1.0, 2.0), (2.0, 4.0), (3.0, 6.0)]


def learn(epochs=100, lr=0.01):
    w = gg.tensor(1.0, dtype=np.float64, requires_grad=True)
    before = (w * 4).item()
    gradients = []
    for _ in range(epochs):
        for x, y in DATA:
            loss = (y - w * x) ** 2
            loss.backward()
            gradients.append(w.grad.item())
            w.data -= lr * w.grad.data  # on the plain array: the update is no part of any graph
            w.grad = None  # or the next backward would add to it
    return {"gradients": gradients, "w": w.item(), "before": before, "after": (w * 4).item()}


def two_linear_layers():
    """(x W1 + b1) W2 + b2 = x (W1 W2) + (b1 W2 + b2), values and gradient alike."""
    x = np.array([[1.0, -2.0], [0.5, 3.0]])
    W1, b1 = np.array([[1.0, 2.0, 0.0], [-1.0, 0.5, 3.0]]), np.array([0.1, -0.2, 0.3])
    W2, b2 = np.array([[2.0], [-1.0], [0.5]]), np.array([0.7])
    two = lambda x: gg.sum((x @ W1 + b1) @ W2 + b2)
    one = lambda x: gg.sum(x @ (W1 @ W2) + (b1 @ W2 + b2))
    return {"two": gg.value_and_grad(two)(x), "one": gg.value_and_grad(one)(x)}


def main():
    sgd = learn()
    for i in range(0, len(sgd["gradients"]), 3):
        print(f"epoch {i // 3 + 1:3}: gradients " + "  ".join(f"{g:14.6e}" for g in sgd["gradients"][i : i + 3]))
    print(f"prediction for x = 4: {sgd['before']:.4f} before, {sgd['after']:.4f} after; w = {sgd['w']:.6f}")
    layers = two_linear_layers()
    for name, (value, gradient) in layers.items():
        print(f"{name} linear layer(s): sum of outputs {value:.4f}, gradient of x {gradient.tolist()}")
    return {"sgd": sgd, "layers": layers}


if __name__ == "__main__":
    main()
