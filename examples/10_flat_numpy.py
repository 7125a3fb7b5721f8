"""Two classics written flat in NumPy, each line of backward by hand, against the tape.

The multiclass support vector machine (hinge loss):  L_i = sum over j != y_i of max(0, s_j - s_{y_i} + 1),  S = X W
The two-layer ReLU net:                              S = max(0, X W1 + b1) W2 + b2,  L_i = -log softmax(S_i)[y_i]

Both average L_i over the examples and add 1/2 r |W|^2.
"""

import numpy as np

import gpugrad as gg

R = 0.1  # the strength of regularisation


def data(seed=0, examples=20, features=5, classes=3):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(examples, features)), rng.integers(classes, size=examples)


def svm_flat(W, X, y):
    n = np.arange(len(X))
    scores = X @ W
    margins = np.maximum(0, scores - scores[n, y][:, None] + 1)
    margins[n, y] = 0
    loss = margins.sum() / len(X) + 0.5 * R * (W * W).sum()

    dscores = (margins > 0) / len(X)  # each violated margin raises its own class ...
    dscores[n, y] = -dscores.sum(axis=1)  # ... and lowers the right one
    return loss, X.T @ dscores + R * W


def svm_taped(W, X, y):
    n = np.arange(len(X))
    scores = X @ W
    margins = gg.relu(scores - scores[n, y][:, None] + 1).at[n, y].set(0.0)
    return gg.sum(margins) / len(X) + 0.5 * R * gg.sum(W * W)


def net_flat(W1, b1, W2, b2, X, y):
    n = np.arange(len(X))
    hidden = np.maximum(0, X @ W1 + b1)
    scores = hidden @ W2 + b2
    shifted = np.exp(scores - scores.max(axis=1, keepdims=True))  # no overflow; the shift cancels in the ratio
    p = shifted / shifted.sum(axis=1, keepdims=True)
    loss = -np.log(p[n, y]).mean() + 0.5 * R * ((W1 * W1).sum() + (W2 * W2).sum())

    dscores = p.copy()
    dscores[n, y] -= 1
    dscores /= len(X)
    dhidden = dscores @ W2.T
    dhidden[hidden <= 0] = 0
    return loss, (X.T @ dhidden + R * W1, dhidden.sum(axis=0), hidden.T @ dscores + R * W2, dscores.sum(axis=0))


def net_taped(W1, b1, W2, b2, X, y):
    scores = gg.relu(X @ W1 + b1) @ W2 + b2
    return gg.nn.functional.cross_entropy(scores, y) + 0.5 * R * (gg.sum(W1 * W1) + gg.sum(W2 * W2))


def main():
    X, y = data()
    rng = np.random.default_rng(1)
    W = rng.normal(size=(5, 3))
    flat, taped = svm_flat(W, X, y), gg.value_and_grad(svm_taped)(W, X, y)
    print(f"SVM: loss flat {flat[0]:.10f}, tape {float(taped[0]):.10f}; gradients differ by at most {np.abs(flat[1] - taped[1]).max():.1e}")

    parameters = rng.normal(size=(5, 8)), rng.normal(size=8), rng.normal(size=(8, 3)), rng.normal(size=3)
    net, net_tape = net_flat(*parameters, X, y), gg.value_and_grad(net_taped, argnums=(0, 1, 2, 3))(*parameters, X, y)
    worst = max(np.abs(a - b).max() for a, b in zip(net[1], net_tape[1]))
    print(f"net: loss flat {net[0]:.10f}, tape {float(net_tape[0]):.10f}; gradients differ by at most {worst:.1e}")
    return {"svm": {"flat": flat, "tape": taped}, "net": {"flat": net, "tape": net_tape}}


if __name__ == "__main__":
    main()
