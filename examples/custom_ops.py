"""An operation of your own in three ways. It is log cosh x, whose derivative is tanh x, with its value from a Numba loop.

1. gg.primitive with gg.defvjp and gg.defjvp: a function and its rules. The shortest, and differentiable to any order.
2. gg.Function with a ctx, as in PyTorch.
3. once_differentiable: a backward that leaves gpugrad, for another Numba loop here. Fast; a second derivative raises
   instead of being wrong.
"""

import math

import numpy as np

import gpugrad as gg

try:
    from numba import vectorize
except ImportError:
    print("Numba is not installed: the loops below run in Python, slowly")

    def vectorize(f):
        return np.vectorize(f, otypes=[np.float64])


@vectorize
def log_cosh_loop(x):
    return abs(x) + math.log1p(math.exp(-2 * abs(x))) - math.log(2)  # cosh itself would overflow at 711


@vectorize
def log_cosh_pullback_loop(g, x):
    return g * math.tanh(x)


# ---- 1. a primitive: the rules call gpugrad functions, so they can be differentiated again

log_cosh = gg.primitive(lambda x: log_cosh_loop(x), name="log_cosh")
gg.defvjp(log_cosh, lambda g, y, x: g * gg.tanh(x))
gg.defjvp(log_cosh, lambda t, y, x: t * gg.tanh(x))  # may be left out: it is derived from the vjp


# ---- 2. a Function


class LogCosh(gg.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return log_cosh_loop(x.data)

    @staticmethod
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        return grad * gg.tanh(x)


# ---- 3. once differentiable: saved tensors and gradients arrive without a graph, so any code may use their arrays


class LogCoshOnce(gg.Function):
    forward = LogCosh.forward

    @staticmethod
    @gg.once_differentiable
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        return gg.asarray(log_cosh_pullback_loop(grad.data, x.data))


def main():
    x = np.array([-2.0, -0.5, 0.0, 0.5, 3.0])
    results = {}
    for name, f in (("primitive", log_cosh), ("Function", LogCosh.apply), ("once", LogCoshOnce.apply)):
        total = lambda x: gg.sum(f(x))  # noqa: B023  used in this turn of the loop only
        t = gg.tensor(x, requires_grad=True)
        y = f(t)
        (first,) = gg.autograd.grad(gg.sum(y), t, create_graph=True)
        results[name] = {"value": y.numpy(), "first": first.numpy()}
        print(f"{name:9}: value {y.numpy().round(4)}, first derivative {first.numpy().round(4)}")
        try:
            results[name]["second"] = gg.autograd.grad(gg.sum(first), t)[0].numpy()
            results[name]["H v"] = gg.hvp(total, t, gg.ones(5)).numpy()  # forward mode over reverse mode
            print(f"           second derivative {results[name]['second'].round(4)}, also by forward over reverse {results[name]['H v'].round(4)}")
        except RuntimeError as error:
            results[name]["refused"] = str(error)
            print(f"           second derivative: {error}")
    return results


if __name__ == "__main__":
    main()
