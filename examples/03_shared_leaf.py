"""A variable that is used twice gets the sum of what its uses give.

f = x w with x = w is w^2, so at w = 3 each use gives 3 and the derivative is 6.
"""

import numpy as np

import gpugrad as gg


def main():
    w = gg.tensor(3.0, dtype=np.float64, requires_grad=True)
    x = w  # a second name, not a second leaf
    f = x * w
    print(gg.viz.graph(f, w=w))
    f.backward()
    print(f"f = {f.item()}, df/dw = {w.grad.item()}")
    return {"f": f.item(), "df/dw": w.grad.item()}


if __name__ == "__main__":
    main()
