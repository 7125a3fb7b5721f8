"""Small rules of matrix calculus: ReLU, the squared norm, a linear map, the product of matrices; plain and fused.

    relu      its Jacobian is diag(x > 0)          ||x||^2   has the gradient 2 x
    A x       has the Jacobian A                   Y = X W   has dX = dY W',  dW = X' dY

The fused layer X W + b gives the same gradients.
"""

import numpy as np

import gpugrad as gg


def relu():
    x, upstream = np.array([[1.0, -2.0], [3.0, -1.0]]), np.array([[4.0, -1.0], [5.0, 9.0]])
    _, pullback = gg.vjp(gg.relu, x)
    return {"pulled back": pullback(upstream)[0], "Jacobian": gg.jacobian(gg.relu)(x.ravel())}


def vectors():
    x, A = np.array([1.0, -2.0, 3.0]), np.array([[1.0, 2.0, 0.0], [-1.0, 0.5, 3.0]])
    return {"grad of ||x||^2": gg.grad(lambda x: gg.sum(x**2))(x), "Jacobian of A x": gg.jacobian(lambda x: A @ x)(x)}


def products():
    """The same gradients from X @ W + b, made of two operations, and from the fused layer, which is one."""
    X, W, b = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]), np.array([[1.0, -1.0], [0.5, 2.0]]), np.array([0.3, -0.3])
    dY = np.array([[1.0, 0.0], [0.0, 2.0], [-1.0, 1.0]])
    plain = gg.vjp(lambda X, W, b: X @ W + b, X, W, b)[1](dY)
    fused = gg.vjp(gg.nn.functional.linear, X, W, b)[1](dY)
    return {"plain": plain, "fused": fused, "by hand": (dY @ W.T, X.T @ dY, dY.sum(axis=0))}


def main():
    results = {"relu": relu(), "vectors": vectors(), "products": products()}
    print("ReLU on [1, -2, 3, -1] with [4, -1, 5, 9] gives", results["relu"]["pulled back"].ravel())
    print("its Jacobian:", *results["relu"]["Jacobian"], sep="\n  ")
    for name, value in results["vectors"].items():
        print(f"{name}: {value.tolist()}")
    for name, (dX, dW, db) in results["products"].items():
        print(f"{name:8} dX = {dX.tolist()}, dW = {dW.tolist()}, db = {db.tolist()}")
    return results


if __name__ == "__main__":
    main()
