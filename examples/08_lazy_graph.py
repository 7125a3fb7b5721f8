"""A lazy graph on top of the library: expressions first, numbers later.

    y = x1 x2 + 4.3 x2 + 30

Building the expression computes nothing. A run sorts the nodes topologically, computes values in that order, and
gradients in the reverse one. The library gives each operation its pullback; all that is left is the bookkeeping.
"""

import gpugrad as gg


class Node:
    """A place in an expression. ``value`` and ``gradient`` are known after a run."""

    inputs = ()

    def __add__(self, other):
        return Op(gg.add, self, other)

    def __mul__(self, other):
        return Op(gg.multiply, self, other)

    __radd__, __rmul__ = __add__, __mul__


class Variable(Node):
    """An input, or a constant that was given its value at once."""

    def __init__(self, name, value=None):
        self.name, self.value = name, value


class Op(Node):
    """A function of other nodes."""

    def __init__(self, function, *inputs):
        self.function = function
        self.inputs = [x if isinstance(x, Node) else Variable(str(x), float(x)) for x in inputs]
        self.name = function.__name__

    def compute(self):
        self.value, self.pullback = gg.vjp(self.function, *[x.value for x in self.inputs])


def topological(output):
    """Every node once, after all of its inputs. A stack of our own, so that the depth of the graph does not matter."""
    order, seen, stack = [], set(), [(output, False)]
    while stack:
        node, inputs_done = stack.pop()
        if inputs_done:
            order.append(node)
        elif node not in seen:
            seen.add(node)
            stack.append((node, True))
            stack += [(x, False) for x in reversed(node.inputs)]
    return order


def run(output, values):
    """The value of ``output`` and its gradients, for the variables given: ``run(y, {x1: 2.0})``. Returns the order of the nodes too."""
    order = topological(output)
    for variable, value in values.items():
        variable.value = value
    for node in order:
        node.gradient = 0.0
        if isinstance(node, Op):
            node.compute()
    output.gradient = 1.0
    for node in reversed(order):
        if isinstance(node, Op):
            for x, g in zip(node.inputs, node.pullback(node.gradient)):
                x.gradient = x.gradient + g  # a sum over the uses of x
    return order


def main():
    x1, x2 = Variable("x1"), Variable("x2")
    y = x1 * x2 + 4.3 * x2 + 30
    order = run(y, {x1: 2.0, x2: 3.0})
    print("topological order:", ", ".join(node.name for node in order))
    print("values:           ", ", ".join(f"{float(node.value):g}" for node in order))
    print("gradients, reverse:", ", ".join(f"{node.name} {float(node.gradient):g}" for node in reversed(order)))
    print(f"y = {float(y.value):g}, dy/dx1 = {float(x1.gradient):g}, dy/dx2 = {float(x2.gradient):g}")
    return {"order": [node.name for node in order], "y": float(y.value), "gradients": (float(x1.gradient), float(x2.gradient))}


if __name__ == "__main__":
    main()
