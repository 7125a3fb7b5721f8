"""Second derivatives at work on handwritten digits: Newton-CG, Hessian-free and SciPy's trust regions against gradient descent and L-BFGS.

Every method minimises the same function from the same start: the mean cross entropy over all training digits, and a penalty on the weights. The Hessian
has as many rows and columns as there are weights and is never made: what the methods are given is its product with a vector.

    SGD, L-BFGS    gradients only: descent with momentum, and Newton's step with the Hessian guessed from the last steps
    Newton-CG      Newton's equations, solved by conjugate gradients as far as is worth it           optim.NewtonCG
    Hessian-free   the same with the Gauss-Newton matrix, and damping                                optim.HessianFree
    scipy ...      SciPy's methods, on exact gradients and products                                  curvature.objective

There are two networks. With one hidden layer gradients alone go far, and second derivatives end at a gradient of zero. With five narrow layers of sigmoids
gradients become small on their way back, and the curvature with them, so that how far to go differs by orders of magnitude between layers: descent is
slow, and the Gauss-Newton matrix knows. In seconds L-BFGS is hard to beat at this size, for its moves cost little more than a gradient each.
"""

import time

import numpy as np

import gpugrad as gg
from gpugrad import curvature, data, nn, optim

F = nn.functional
NETS = {"shallow": ([64, 32, 10], "tanh", 5e-4), "deep": ([64, 24, 24, 24, 24, 24, 10], "sigmoid", 1e-5)}  # widths, activation, penalty
TIGHT = {"tolerance_grad": 1e-6, "tolerance_change": 0.0}


class Problem:
    """The function, for one of the two networks."""

    def __init__(self, net, seed=0):
        x, self.y, x_test, self.y_test = data.load_digits(seed=seed)
        self.x, self.x_test = x.astype(np.float64), x_test.astype(np.float64)
        gg.random.seed(seed)
        self.widths, activation, self.penalty = NETS[net]
        self.model = nn.MLP(self.widths, activation, dtype=np.float64)
        self.params = list(self.model.parameters())
        if activation == "sigmoid":
            for p in self.params[::2]:
                nn.init.xavier_normal_(p, gain=3.0)  # sigmoids of smaller numbers are nearly constants

    def of_outputs(self, outputs, params):
        return F.cross_entropy(outputs, self.y) + self.penalty * sum((gg.sum(p * p) for p in params), 0.0)

    def loss(self):
        return self.of_outputs(self.model(self.x), self.params)

    def judged(self, **costs):
        """Loss, the largest element of its gradient, accuracy on digits that no method has seen, and what it cost."""
        loss = self.loss()
        g = gg.autograd.grad(loss, self.params)
        correct = self.model(self.x_test).numpy().argmax(axis=1) == self.y_test
        return {"loss": loss.item(), "max |g|": max(abs(a.numpy()).max() for a in g), "accuracy": correct.mean(), **costs}


def with_optimizer(problem, make, steps):
    """``steps`` steps of an optimizer of the library, and how many gradients and products they took."""
    optimizer, gradients = make(problem.params), 0

    def backward():
        nonlocal gradients
        gradients += 1
        optimizer.zero_grad()
        loss = problem.loss()
        loss.backward()
        return loss

    closures = {optim.NewtonCG: problem.loss, optim.HessianFree: lambda: ((problem.model(problem.x), problem.params), lambda o: problem.of_outputs(*o))}
    for _ in range(steps):
        optimizer.step(closures.get(type(optimizer), backward))
    counts = optimizer.state_dict()["state"].get(0, {})
    return problem.judged(gradients=gradients or counts["func_evals"], products=counts.get("products", 0))


def with_scipy(problem, method, steps):
    """One of SciPy's methods that take products."""
    from scipy.optimize import minimize

    weights = dict(problem.model.named_parameters())
    f = curvature.objective(lambda w: problem.of_outputs(nn.functional_call(problem.model, w, problem.x), list(w.values())), weights)
    result = minimize(f.fun, f.x0, jac=f.jac, hessp=f.hessp, method=method, options={"maxiter": steps, "gtol": 1e-6})
    problem.model.load_state_dict(f.to_nest(result.x))
    return problem.judged(gradients=result.njev, products=result.nhev)


METHODS = {
    "SGD": lambda p, n: with_optimizer(p, lambda params: optim.SGD(params, lr=1.0, momentum=0.9), n),
    "L-BFGS": lambda p, n: with_optimizer(p, lambda params: optim.LBFGS(params, max_iter=n, line_search_fn="strong_wolfe", **TIGHT), 1),
    "Newton-CG": lambda p, n: with_optimizer(p, lambda params: optim.NewtonCG(params, max_iter=n, **TIGHT), 1),
    "Hessian-free": lambda p, n: with_optimizer(p, lambda params: optim.HessianFree(params, damping=0.1, max_iter=n, **TIGHT), 1),
    "scipy trust-ncg": lambda p, n: with_scipy(p, "trust-ncg", n),
    "scipy trust-krylov": lambda p, n: with_scipy(p, "trust-krylov", n),
}
STEPS = {
    "shallow": {"SGD": 500, "L-BFGS": 400, "Newton-CG": 50, "Hessian-free": 40, "scipy trust-ncg": 60, "scipy trust-krylov": 30},
    "deep": {"SGD": 500, "L-BFGS": 300, "Newton-CG": 25, "Hessian-free": 40, "scipy trust-ncg": 35, "scipy trust-krylov": 25},
}


def main(steps=STEPS):
    results = {}
    for net, of_methods in steps.items():
        problem = Problem(net)
        size, loss = sum(p.size for p in problem.params), problem.loss().item()
        print(f"{net}, {' - '.join(map(str, problem.widths))}: {size} weights, and a loss of {loss:.3f} to begin with")
        print(f"  {'':18}{'loss':>9}{'max |g|':>10}{'accuracy':>10}{'gradients':>11}{'products':>10}{'seconds':>9}")
        for method, n in of_methods.items():
            start = time.perf_counter()
            row = METHODS[method](Problem(net), n)
            row["seconds"] = time.perf_counter() - start
            print("  {:18}{loss:9.5f}{max |g|:10.0e}{accuracy:10.1%}{gradients:11}{products:10}{seconds:9.1f}".format(method, **row), flush=True)
            results[net, method] = row
    return results


if __name__ == "__main__":
    main()
