"""Every weight's gradient has the weight's shape and agrees with finite differences; inputs that do not require grad get none.

500 examples of 20 features, uniform in [0, 100), 3 classes; a net of 20-13-8-3 without biases but the last, ReLU then
sigmoid; cross entropy.
"""

import numpy as np

import gpugrad as gg


def forward(W1, W2, W3, b3, X):
    return gg.sigmoid(gg.relu(X @ W1) @ W2) @ W3 + b3


def loss(W1, W2, W3, b3, X, y):
    return gg.nn.functional.cross_entropy(forward(W1, W2, W3, b3, X), y)


def finite_differences(f, arrays, eps=1e-6):
    """(f(w + eps) - f(w - eps)) / (2 eps) for every element of every array. The arrays are plain, so nothing is recorded."""
    gradients = [np.zeros_like(a) for a in arrays]
    for a, g in zip(arrays, gradients):
        for i in np.ndindex(a.shape):
            kept = a[i]
            a[i] = kept + eps
            up = f(*arrays)
            a[i] = kept - eps
            g[i] = (up - f(*arrays)) / (2 * eps)
            a[i] = kept
    return gradients


def main():
    rng = np.random.default_rng(0)
    X, y = gg.tensor(rng.uniform(size=(500, 20)) * 100), gg.tensor(rng.integers(3, size=500))
    # inputs near 100 would drive the sigmoid flat, where there is no gradient to compare: start with small weights
    arrays = [rng.normal(size=shape) * scale for shape, scale in (((20, 13), 0.01), ((13, 8), 0.3), ((8, 3), 1.0), ((3,), 1.0))]
    weights = [gg.tensor(a, requires_grad=True) for a in arrays]
    value = loss(*weights, X, y)
    value.backward()

    numeric = finite_differences(lambda *ws: loss(*ws, X.numpy(), y.numpy()), arrays)
    taped = [w.grad.numpy() for w in weights]
    print(f"loss {value.item():.6f}")
    for name, w, g, n in zip(("W1", "W2", "W3", "b3"), weights, taped, numeric):
        error = np.abs(g - n).max()
        print(f"{name}: weight {w.shape}, gradient {g.shape}, largest {np.abs(g).max():.2e}, differs from finite differences by at most {error:.1e}")
    print(f"X.grad is {X.grad}, y.grad is {y.grad}")
    return {"loss": value.item(), "weights": arrays, "gradients": taped, "finite differences": numeric, "X.grad": X.grad, "y.grad": y.grad}


if __name__ == "__main__":
    main()
