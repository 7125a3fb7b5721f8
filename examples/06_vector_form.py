"""The fully connected net of L layers in vector form: the tape against the recursion of the textbook.

    forward    H_0 = X,  Z_k = H_{k-1} W_k + b_k,  H_k = sigmoid(Z_k)
    backward   D_L = dloss/dZ_L,   dW_k = H_{k-1}' D_k,   db_k = the column sums of D_k,   D_{k-1} = (D_k W_k') * H_{k-1} (1 - H_{k-1})

A row is an example. With one row (batch 1) or N the formulas are the same; those of the weights sum over the rows.
"""

from itertools import pairwise

import numpy as np

import gpugrad as gg

SIZES = [4, 6, 5, 3]


def numbers(*shape):
    """Numbers between -1 and 1 that look random and are the same everywhere."""
    return np.cos(np.arange(1, np.prod(shape) + 1) ** 2).reshape(shape)


def layers(X, weights, biases):
    """Z_L, and H_0 to H_{L-1}. The last layer is linear: its output belongs to the loss."""
    H = [X]
    for W, b in zip(weights[:-1], biases[:-1]):
        H.append(gg.sigmoid(H[-1] @ W + b))
    return H[-1] @ weights[-1] + biases[-1], H


def cross_entropy(Z, Y):
    """Summed over the examples, for one-hot Y: its derivative is softmax(Z) - Y."""
    return -gg.sum(Y * gg.log_softmax(Z))


def half_squared_error(Z, Y):
    """Its derivative is Z - Y."""
    return 0.5 * gg.sum((Z - Y) ** 2)


def compare(batch, loss):
    X, Y = numbers(batch, SIZES[0]), np.eye(SIZES[-1])[np.arange(batch) % SIZES[-1]]
    weights = [gg.tensor(numbers(m, n), requires_grad=True) for m, n in pairwise(SIZES)]
    biases = [gg.tensor(numbers(n), requires_grad=True) for n in SIZES[1:]]
    Z, H = layers(X, weights, biases)
    value = loss(Z, Y)
    (D_tape,) = gg.autograd.grad(value, Z, retain_graph=True)
    value.backward()
    tape = [p.grad.numpy() for p in (*weights, *biases)]

    D = (gg.softmax(Z) if loss is cross_entropy else Z).numpy() - Y
    D_textbook = D
    dW, db = [], []
    for k in reversed(range(len(weights))):
        h = np.asarray(H[k].detach()) if k else X
        dW.insert(0, h.T @ D)
        db.insert(0, D.sum(axis=0))
        D = (D @ weights[k].numpy().T) * h * (1 - h)
    return {"loss": value.item(), "tape": tape, "textbook": [*dW, *db], "dZ": D_tape.numpy(), "dZ by hand": D_textbook}


def mse_loss():
    """z = x w + b and the mean of (z - y)^2 over its three elements: dz = 2 (z - y) / 3, w.grad = x (outer) dz, b.grad = dz."""
    x, y = np.ones(5), np.zeros(3)
    w = gg.tensor(numbers(5, 3), requires_grad=True)
    b = gg.tensor(numbers(3), requires_grad=True)
    z = x @ w + b
    output = gg.nn.MSELoss()(z, gg.asarray(y))
    output.backward()
    return {"output": output.item(), "w.grad": w.grad.numpy(), "b.grad": b.grad.numpy()}


def main():
    results = {}
    for loss in (cross_entropy, half_squared_error):
        for batch in (1, 7):
            r = results[loss.__name__, batch] = compare(batch, loss)
            worst = max(np.abs(a - b).max() for a, b in zip(r["tape"], r["textbook"]))
            print(f"{loss.__name__:18} batch {batch}: loss {r['loss']:.6f}, tape and textbook differ by at most {worst:.1e}")
            print(f"  the first row of dloss/dZ is {r['dZ'][0].round(4)}")
    results["mse"] = mse_loss()
    print(f"MSELoss: {results['mse']['output']:.6f}")
    print(f"w.grad =\n{results['mse']['w.grad'].round(4)}\nb.grad = {results['mse']['b.grad'].round(4)}")
    return results


if __name__ == "__main__":
    main()
