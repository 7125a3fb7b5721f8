"""An operation of your own in two forms: a Function with a ctx, and the modular graph of gates with forward() and backward().

Both compute the sigmoid neuron  f = sigmoid(w0 x0 + w1 x1 + w2)  at w = (2, -3, -3), x = (-1, -2).
"""

import math

import numpy as np

import gpugrad as gg

W, X = (2.0, -3.0, -3.0), (-1.0, -2.0)


class Multiply(gg.Function):
    """z = x y: each input's gradient is the other input times the upstream gradient."""

    @staticmethod
    def forward(ctx, x, y):
        ctx.save_for_backward(x, y)
        return x * y

    @staticmethod
    def backward(ctx, grad_z):
        x, y = ctx.saved_tensors
        return grad_z * y, grad_z * x


class Sigmoid(gg.Function):
    """Keeps the output, from which the derivative s (1 - s) is had."""

    @staticmethod
    def forward(ctx, x):
        s = 1 / (1 + gg.exp(-x))
        ctx.save_for_backward(s)
        return s

    @staticmethod
    def backward(ctx, grad_s):
        (s,) = ctx.saved_tensors
        return grad_s * s * (1 - s)


def with_functions():
    w = [gg.tensor(v, dtype=np.float64, requires_grad=True) for v in W]
    x = [gg.tensor(v, dtype=np.float64, requires_grad=True) for v in X]
    f = Sigmoid.apply(Multiply.apply(w[0], x[0]) + Multiply.apply(w[1], x[1]) + w[2])
    gradients = gg.autograd.grad(f, [*w, *x], create_graph=True)
    (second,) = gg.autograd.grad(gradients[2], w[2])  # backward is made of gpugrad's operations, so it can be differentiated again
    return {"f": f.item(), "gradients": [g.item() for g in gradients], "d2f/dw2^2": second.item()}


# ---- the same from gates that know only themselves, and a graph that knows only their order


class MultiplyGate:
    def forward(self, x, y):
        self.x, self.y = x, y
        return x * y

    def backward(self, dz):
        return dz * self.y, dz * self.x


class AddGate:
    def forward(self, x, y):
        return x + y

    def backward(self, dz):
        return dz, dz


class SigmoidGate:
    def forward(self, x):
        self.s = 1 / (1 + math.exp(-x))
        return self.s

    def backward(self, ds):
        return (ds * self.s * (1 - self.s),)


class ModularGraph:
    """Gates in topological order, each with the names of its inputs and of its output."""

    def __init__(self, *gates):
        self.gates = gates

    def forward(self, **values):
        for gate, inputs, output in self.gates:
            values[output] = gate.forward(*[values[name] for name in inputs])
        return values[output]

    def backward(self):
        gradients = {self.gates[-1][2]: 1.0}
        for gate, inputs, output in reversed(self.gates):
            for name, g in zip(inputs, gate.backward(gradients[output])):
                gradients[name] = gradients.get(name, 0.0) + g
        return gradients


def with_gates():
    graph = ModularGraph(
        (MultiplyGate(), ("w0", "x0"), "a"),
        (MultiplyGate(), ("w1", "x1"), "b"),
        (AddGate(), ("a", "b"), "c"),
        (AddGate(), ("c", "w2"), "d"),
        (SigmoidGate(), ("d",), "f"),
    )
    f = graph.forward(w0=W[0], w1=W[1], w2=W[2], x0=X[0], x1=X[1])
    gradients = graph.backward()
    return {"f": f, "gradients": [gradients[name] for name in ("w0", "w1", "w2", "x0", "x1")]}


def main():
    results = {"Function": with_functions(), "modular graph": with_gates()}
    for name, r in results.items():
        print(f"{name:13}: f = {r['f']:.4f}, gradients of w0 w1 w2 x0 x1: {[round(g, 4) for g in r['gradients']]}")
    print(f"second derivative with respect to w2, through the Functions: {results['Function']['d2f/dw2^2']:.6f}")
    return results


if __name__ == "__main__":
    main()
