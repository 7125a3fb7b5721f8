"""Binary cross entropy: its derivative by the chain rule, for one number, logistic regression and a two-layer net.

    loss(sigma) = -(y log sigma + (1 - y) log(1 - sigma)),    dloss/dsigma = (sigma - y) / (sigma (1 - sigma))

The sigmoid's own derivative sigma (1 - sigma) cancels that denominator, so before the sigmoid only sigma - y is left.
"""

import numpy as np

import gpugrad as gg

X = np.array([[0.5, 1.2], [-1.0, 0.3], [2.0, -0.7], [0.1, 0.9]])  # four examples of two features
Y = np.array([[1.0], [0.0], [0.0], [1.0]])


def cross_entropy(sigma, y):
    return -gg.sum(y * gg.log(sigma) + (1 - y) * gg.log(1 - sigma))


def one_number():
    """sigma = sigmoid(x^2) at x = 1. A label y = 2 is no probability, but the derivative does not mind."""
    x = gg.tensor(1.0, dtype=np.float64, requires_grad=True)
    y = 2.0
    sigma = gg.sigmoid(x**2)
    sigma.retain_grad()  # keep the gradient of a result too, not only that of the leaf x
    cross_entropy(sigma, y).backward()
    s = sigma.item()
    return {"dloss/dsigma": sigma.grad.item(), "by hand": (s - y) / (s * (1 - s)), "dloss/dx": x.grad.item()}


def logistic_regression():
    """sigma = sigmoid(X W + b): dL/dW = X' (sigma - y), dL/db = the sum of sigma - y."""
    W = gg.tensor(np.array([[0.4], [-0.6]]), requires_grad=True)
    b = gg.tensor(np.array([0.1]), requires_grad=True)
    sigma = gg.sigmoid(X @ W + b)
    cross_entropy(sigma, Y).backward()
    residual = sigma.numpy() - Y
    return {"dW": W.grad.numpy(), "db": b.grad.numpy(), "dW by hand": X.T @ residual, "db by hand": residual.sum(axis=0)}


def two_layers():
    """h1 = sigmoid(X W1), sigma2 = sigmoid(h1 W2): the residual goes back through W2 and through h1 (1 - h1)."""
    W1 = gg.tensor(np.array([[0.3, -0.2, 0.5], [0.8, 0.1, -0.4]]), requires_grad=True)
    W2 = gg.tensor(np.array([[0.7], [-0.5], [0.2]]), requires_grad=True)
    h1 = gg.sigmoid(X @ W1)
    sigma2 = gg.sigmoid(h1 @ W2)
    cross_entropy(sigma2, Y).backward()
    h, residual = h1.numpy(), sigma2.numpy() - Y
    by_hand = {"dW2 by hand": h.T @ residual, "dW1 by hand": X.T @ ((residual @ W2.numpy().T) * h * (1 - h))}
    return {"dW1": W1.grad.numpy(), "dW2": W2.grad.numpy(), **by_hand}


def main():
    results = {"one number": one_number(), "logistic regression": logistic_regression(), "two layers": two_layers()}
    for title, numbers in results.items():
        print(title)
        for name, value in numbers.items():
            print(f"  {name:12} = {np.array2string(np.asarray(value), precision=4, prefix=' ' * 17)}")
    return results


if __name__ == "__main__":
    main()
