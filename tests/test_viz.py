"""The graph of a Tensor: names, consumers, derivatives, the table and the Graphviz text."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

import gpugrad as gg

RNG = np.random.default_rng(0)


def variable(value):
    return gg.tensor(np.asarray(value, dtype=np.float64), requires_grad=True)


def neuron():
    w, x, b, y = (variable(v) for v in (0.5, 2.0, -0.4, 1.0))
    return 0.5 * (gg.sigmoid(w * x + b) - y) ** 2 + 0.5 * w**2, {"w": w, "x": x, "b": b, "y": y}


def test_nodes_operations_and_consumers():
    f, names = neuron()
    graph = gg.viz.graph(f, **names)
    assert [node.name for node in graph] == ["w", "x", "b", "y", *(f"u{i}" for i in range(1, 10))]
    assert [node.operation for node in graph] == ["", "", "", "", "multiply", "add", "sigmoid", "subtract", "power", "multiply", "power", "multiply", "add"]
    assert graph["w"].consumers == ["u1", "u7"]
    assert graph["u1"].arguments == ("w", "x") and graph["u5"].arguments == ("u4", "2")
    assert graph["u9"].consumers == [] and len(graph) == 13


def test_leaves_come_in_the_order_of_their_creation_whatever_the_order_of_use():
    a, b = variable(1.0), variable(2.0)
    assert [node.name for node in gg.viz.graph(b - a)] == ["x1", "x2", "u1"]
    assert gg.viz.graph(b - a)["u1"].arguments == ("x2", "x1")


def test_results_may_be_named_and_names_are_not_given_twice():
    w = variable([1.0, 2.0])
    hidden = gg.tanh(w)
    graph = gg.viz.graph(gg.sum(hidden * hidden), hidden=hidden, u1=w)
    assert [node.name for node in graph] == ["u1", "hidden", "u2", "u3"]
    assert graph["hidden"].consumers == ["u2"]  # once, though it is used twice


def test_derivatives_of_arrays():
    X, W, b = RNG.normal(size=(5, 4)), variable(RNG.normal(size=(4, 3))), variable(RNG.normal(size=3))
    z = gg.nn.functional.linear(X, W, b)
    h = gg.tanh(z)
    f = gg.sum(h**2)
    d = gg.viz.graph(f, W=W, b=b, z=z, h=h).derivatives()
    dz = 2 * h.numpy() * (1 - h.numpy() ** 2)
    assert_allclose(d["h"], 2 * h.numpy(), rtol=1e-12)
    assert_allclose(d["z"], dz, rtol=1e-12)
    assert_allclose(d["W"], X.T @ dz, rtol=1e-12)
    assert_allclose(d["b"], dz.sum(axis=0), rtol=1e-12)
    assert all(type(g) is np.ndarray for g in d.values())


def test_shared_nodes_add_up_and_the_arrays_are_their_own():
    w = variable([1.0, -2.0, 3.0])
    u = w * 2.0
    f = gg.sum(u * u + u)
    d = gg.viz.graph(f, w=w, u=u).derivatives()
    assert_allclose(d["u"], 2 * u.numpy() + 1)
    assert_allclose(d["w"], 4 * u.numpy() + 2)
    arrays = list(d.values())
    assert not any(np.shares_memory(a, b) for i, a in enumerate(arrays) for b in arrays[:i])


def test_an_output_with_several_elements_is_summed():
    w = variable([1.0, 2.0])
    graph = gg.viz.graph(w * w, w=w)
    assert_allclose(graph.derivatives()["w"], [2, 4])
    assert "d sum(f)/du" in str(graph)


def test_operations_with_several_outputs():
    w = variable([1.0, 2.0, 3.0, 4.0])
    a, b = gg.split(w, 2)
    graph = gg.viz.graph(gg.sum(a * b), w=w)
    assert [node.operation for node in graph][1:3] == ["split[0]", "split[1]"]
    assert graph["w"].consumers == ["u1", "u2"]
    assert_allclose(graph.derivatives()["w"], [3, 4, 1, 2])
    assert_allclose(graph.derivatives()["u1"], [3, 4])


def test_a_leaf_alone():
    w = variable(3.0)
    graph = gg.viz.graph(w, w=w)
    assert [node.name for node in graph] == ["w"] and graph.derivatives()["w"] == 1


def test_looking_changes_nothing():
    w = variable(3.0)
    seen = []
    u = w * w
    u.retain_grad()
    w.register_hook(lambda g: seen.append(g) or g * 100)
    f = u + w
    graph = gg.viz.graph(f, w=w)
    assert graph.derivatives()["w"] == 7 and str(graph) == str(graph)
    assert w.grad is None and u.grad is None and not seen
    f.backward()
    assert w.grad.item() == 700 and u.grad.item() == 1 and len(seen) == 1


def test_a_second_derivatives_graph():
    w = variable(2.0)
    (g,) = gg.autograd.grad(w**3, w, create_graph=True)
    graph = gg.viz.graph(g, w=w)
    assert graph.derivatives()["w"] == 12


def test_inside_a_transform():
    found = {}

    def f(w):
        y = gg.sum(w * w)
        found.update(gg.viz.graph(y, w=w).derivatives())
        return y

    gg.grad(f)(np.array([1.0, 2.0]))
    assert_allclose(gg.stop_gradient(found["w"]), [2, 4])


def test_the_table_fits_100_characters():
    w = variable(RNG.normal(size=(3, 1, 2, 4, 5)))
    total = w
    for _ in range(30):
        total = total + gg.where(w > 0, gg.nn.functional.softplus(w), w)
    lines = str(gg.viz.graph(gg.sum(total), a_very_long_name_for_a_leaf=w)).splitlines()
    assert max(map(len, lines)) <= 100
    assert lines[0].split() == ["node", "operation", "shape", "used", "by", "df/du"]
    starts = {line.index("(") for line in lines[2:] if "leaf" in line}
    assert len(starts) <= 1


def test_the_table_of_a_small_graph():
    w = variable(3.0)
    assert str(gg.viz.graph(w * w + w, w=w)) == "\n".join([
        "node  operation         shape  used by  df/du",
        "w     leaf              ()     u1 u2    7",
        "u1    = multiply(w, w)  ()     u2       1",
        "u2    = add(u1, w)      ()              1",
    ])  # fmt: skip


def test_dot():
    w = variable(3.0)
    text = gg.viz.graph(w * w + 1.0, **{'a "name"': w}).dot()
    assert text.startswith("digraph {") and text.endswith("}") and text.count("{") == text.count("}")
    assert r'"a \"name\"" [label="a \"name\"", shape=box]' in text
    assert '"u1" -> "u2"' in text and text.count('-> "u1"') == 2
    assert r'"u2" [label="u2\nadd", shape=ellipse]' in text


def test_a_deep_graph_needs_no_recursion():
    w = variable(1.0)
    y = w
    for _ in range(20000):
        y = y * 1.0
    graph = gg.viz.graph(y, w=w)
    assert len(graph) == 20001 and graph.derivatives()["w"] == 1


def test_errors():
    f, names = neuron()
    with pytest.raises(TypeError, match="expected a Tensor, got ndarray"):
        gg.viz.graph(np.ones(3))
    with pytest.raises(RuntimeError, match="requires_grad=True"):
        gg.viz.graph(gg.ones(3))
    with pytest.raises(ValueError, match="c does not require grad"):
        gg.viz.graph(f, c=gg.ones(()))
    with pytest.raises(ValueError, match="does not depend on other"):
        gg.viz.graph(f, other=variable(1.0))
    graph = gg.viz.graph(f, **names)
    f.backward()
    with pytest.raises(RuntimeError, match="has freed the graph"):
        gg.viz.graph(f)
    with pytest.raises(RuntimeError, match="has freed the graph"):
        graph.derivatives()
    with pytest.raises(RuntimeError, match="reverse mode"):
        gg.jvp(gg.viz.graph, (np.ones(()),), (np.ones(()),))
