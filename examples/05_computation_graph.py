"""The computation graph of a regularised sigmoid neuron, and the derivative at every node.

    f(w, b) = 1/2 (sigmoid(w x + b) - y)^2 + 1/2 w^2

    u1 = w x     u2 = u1 + b    u3 = sigmoid(u2)    u4 = u3 - y    u5 = u4^2    u6 = u5 / 2
    u7 = w^2     u8 = u7 / 2    u9 = u6 + u8

Backward goes from u9 to u1. With S(u) the nodes that use u, df/du is the sum over v in S(u) of df/dv dv/du: w has the
consumers u1 and u7, so its derivative has two terms, x s' u4 + w, where s' = sigmoid'(u2).
"""

import numpy as np

import gpugrad as gg


def variable(value):
    return gg.tensor(value, dtype=np.float64, requires_grad=True)


def main(w=0.5, x=2.0, b=-0.4, y=1.0):
    w, x, b, y = variable(w), variable(x), variable(b), variable(y)  # x and y too, so that the tape knows them
    f = 0.5 * (gg.sigmoid(w * x + b) - y) ** 2 + 0.5 * w**2

    graph = gg.viz.graph(f, w=w, x=x, b=b, y=y)
    print(graph)
    derivatives = {name: g.item() for name, g in graph.derivatives().items()}

    s = 1 / (1 + np.exp(-(w.item() * x.item() + b.item())))
    slope, u4 = s * (1 - s), s - y.item()
    print(f"by hand: df/du4 = u4 = {u4:.6g}, df/du1 = s' u4 = {slope * u4:.6g}, df/dw = x s' u4 + w = {x.item() * slope * u4 + w.item():.6g}")
    return {"f": f.item(), "order": [node.name for node in graph], "consumers": {node.name: node.consumers for node in graph}, "derivatives": derivatives}


if __name__ == "__main__":
    main()
