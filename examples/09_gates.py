"""Gates: what each elementary operation does to the gradient that comes back to it, and a flat program against the tape.

add distributes it, copy adds up, multiply swaps the inputs, max routes it to the larger one.
"""

import math

import numpy as np

import gpugrad as gg


def variable(value):
    return gg.tensor(value, dtype=np.float64, requires_grad=True)


def gradients(output, *inputs, upstream=1.0):
    return [g.item() for g in gg.autograd.grad(output, inputs, grad_outputs=upstream)]


def first_circuit():
    """f = x + y z at (-2, 5, -4)."""
    x, y, z = variable(-2), variable(5), variable(-4)
    f = x + y * z
    return {"f": f.item(), "gradients": gradients(f, x, y, z)}


def gates():
    a, b, c, x, y, m, n = map(variable, (3, 4, 7, 2, 3, 4, 5))
    copy = c * 1  # one value with two uses, whose upstream gradients are 4 and 2
    return {
        "add (3, 4), upstream 2": gradients(a + b, a, b, upstream=2),
        "copy, upstream 4 and 2": gradients(4 * copy + 2 * copy, c),
        "multiply (2, 3), upstream 5": gradients(x * y, x, y, upstream=5),
        "max (4, 5), upstream 9": gradients(gg.maximum(m, n), m, n, upstream=9),
    }


def flat_program(x=3.0):
    """Forward and backward written out: a line of backward for each line of forward, in reverse."""
    a = x + 1
    b = 2 * a
    c = -b
    d = c + 1
    e = 2 * d
    f = 1 / (1 + math.exp(-e))

    df = 1.0
    de = df * f * (1 - f)
    dd = de * 2
    dc = dd
    db = -dc
    da = db * 2
    dx = da
    return {"e": e, "f": f, "df/dx": dx}


def taped_program(x=3.0):
    x = variable(x)
    e = 2 * (-(2 * (x + 1)) + 1)
    f = gg.sigmoid(e)
    f.backward()
    return {"e": e.item(), "f": f.item(), "df/dx": x.grad.item()}


def main():
    results = {"circuit": first_circuit(), "gates": gates(), "flat": flat_program(), "tape": taped_program()}
    print(f"f = x + y z at (-2, 5, -4): f = {results['circuit']['f']:g}, gradients {results['circuit']['gradients']}")
    for gate, back in results["gates"].items():
        print(f"{gate:28} -> {back}")
    for name in ("flat", "tape"):
        r = results[name]
        print(f"{name}: e = {r['e']:g}, f = {r['f']:.4e}, df/dx = {r['df/dx']:.4e}")
    return results


if __name__ == "__main__":
    main()
