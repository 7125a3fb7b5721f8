"""Reverse mode against forward mode, Hessian-vector products and the penalty on a gradient's norm.

A forward pass gives one column of the Jacobian, a reverse pass one row. So many inputs and one output (a loss) call
for reverse mode, one input and many outputs (a curve) for forward mode. The cost is counted here in operations on arrays.
"""

import numpy as np

import gpugrad as gg
from gpugrad import tape

N = 50


class count_operations:  # noqa: N801
    """``with count_operations() as counted:`` see every computation that the library makes, as a profiler would."""

    def __enter__(self):
        self.operations = 0
        self.saved, tape.observer = tape.observer, self
        return self

    def __exit__(self, *_):
        tape.observer = self.saved

    def compute(self, op, args, params):
        self.operations += 1
        return op.evaluate(args, params)

    def pull(self, node, wanted, g, y, vals):
        return node.op.pull(node, wanted, g, y, vals)

    def recorded(self, node):
        pass


def chain(x):
    """One chain for both modes: exp(sin(x^2))."""
    return gg.exp(gg.sin(x**2))


def one_chain(x=1.5):
    """Forward mode carries the derivative along from the input; reverse mode takes it back from the output."""
    y, y_dot = gg.jvp(chain, (x,), (1.0,))
    y, pullback = gg.vjp(chain, x)
    return {"forward": float(y_dot), "reverse": float(pullback(1.0)[0]), "by hand": float(y * np.cos(x**2) * 2 * x)}


def loss(x):
    """Many inputs, one output."""
    return gg.sum(chain(x) * np.arange(1.0, N + 1))


def curve(t):
    """One input, many outputs."""
    return chain(t * np.linspace(0, 1, N))


def by_forward(f, x):
    """The Jacobian, a column for each element of x."""
    basis = np.eye(x.size).reshape(x.size, *x.shape)
    return np.stack([gg.jvp(f, (x,), (e,))[1] for e in basis], axis=-1).reshape(*np.shape(f(x)), *x.shape), x.size


def by_reverse(f, x):
    """The Jacobian, a row for each element of f(x)."""
    y, pullback = gg.vjp(f, x)
    basis = np.eye(y.size).reshape(y.size, *y.shape)
    return np.stack([pullback(e)[0] for e in basis]).reshape(*y.shape, *x.shape), y.size


def cost_of_both():
    rows = {}
    for name, f, x in (("many inputs, one output", loss, np.linspace(0, 1, N)), ("one input, many outputs", curve, np.array(0.7))):
        for mode, jacobian in (("forward", by_forward), ("reverse", by_reverse)):
            with count_operations() as counted:
                J, passes = jacobian(f, x)
            rows[name, mode] = {"passes": passes, "operations": counted.operations, "J": J}
    return rows


def hessian_vector_product():
    """H v is the gradient of (gradient . v): a backward pass through a backward pass. The Hessian itself is never made."""
    x = gg.tensor(np.array([0.3, -0.5, 0.8]), requires_grad=True)
    v = np.array([1.0, 2.0, -1.0])
    f = gg.sum(chain(x)) * gg.prod(x)
    (g,) = gg.autograd.grad(f, x, create_graph=True)
    (product,) = gg.autograd.grad(gg.sum(g * v), x)
    function = lambda x: gg.sum(chain(x)) * gg.prod(x)
    return {"two backward passes": product.numpy(), "gg.hvp": gg.hvp(function, x.numpy(), v), "H @ v": gg.hessian(function)(x.numpy()) @ v}


def gradient_penalty():
    """WGAN-GP (Gulrajani et al. 2017, equation 3): mean of (||dD/dx|| - 1)^2, differentiated with respect to the critic's weights."""
    rng = np.random.default_rng(0)
    x, W1, w2 = rng.normal(size=(6, 4)), rng.normal(size=(4, 5)), rng.normal(size=5)

    def penalty(W1, w2):
        critic = lambda x: gg.sum(gg.tanh(x @ W1) @ w2)  # a sum over the batch: each row of its gradient is that of one example
        return gg.mean((gg.linalg.norm(gg.grad(critic)(x), axis=1) - 1) ** 2)

    value, (dW1, _) = gg.value_and_grad(penalty, argnums=(0, 1))(W1, w2)
    e = np.zeros_like(W1)
    e[1, 2] = 1e-6
    numeric = (penalty(W1 + e, w2) - penalty(W1 - e, w2)) / 2e-6

    W = gg.tensor(W1, requires_grad=True)  # the same, PyTorch's way
    t = gg.tensor(x, requires_grad=True)
    (g,) = gg.autograd.grad(gg.sum(gg.tanh(t @ W) @ w2), t, create_graph=True)
    gg.mean((gg.linalg.norm(g, axis=1) - 1) ** 2).backward(inputs=W)
    return {"penalty": float(value), "dW1": dW1, "dW1, taped": W.grad.numpy(), "finite difference of dW1[1, 2]": float(numeric)}


def main():
    results = {"chain": one_chain(), "cost": cost_of_both(), "hvp": hessian_vector_product(), "penalty": gradient_penalty()}
    print("d/dx exp(sin(x^2)):", ", ".join(f"{name} {d:.6f}" for name, d in results["chain"].items()))
    for (name, mode), row in results["cost"].items():
        print(f"{name}, {mode} mode: {row['passes']:3} passes, {row['operations']:5} operations")
    for name, product in results["hvp"].items():
        print(f"Hessian times vector, {name:19}: {product.round(6)}")
    p = results["penalty"]
    taped, numeric = p["dW1, taped"][1, 2], p["finite difference of dW1[1, 2]"]
    print(f"gradient penalty {p['penalty']:.6f}; its derivative by W1[1, 2]: {p['dW1'][1, 2]:.6f}, taped {taped:.6f}, numeric {numeric:.6f}")
    return results


if __name__ == "__main__":
    main()
