"""A physics-informed net solves the heat equation: the loss holds second derivatives of the net with respect to its inputs.

    u_t = u_xx / pi^2,    0 < t < 1,  -1 < x < 1,    u(0, x) = sin(pi x),    u(t, -1) = u(t, 1) = 0

has the solution exp(-t) sin(pi x). The net u(t, x) sees no values of it inside: the loss is how badly it keeps the equation at
500 random points, plus its error on the edge, where the values are given. M. Raissi, P. Perdikaris and G. E. Karniadakis,
"Physics-informed neural networks" (2019).

    u_t  = jvp(u) along t          u_xx = jvp(jvp(u)) along x: forward mode over forward mode
    and backward through both, for the weights: reverse mode over forward over forward

With matplotlib (pip install 'gpugrad[plot]') the solution is drawn beside the exact one, and its error.
"""

import numpy as np

import gpugrad as gg
from gpugrad import nn, optim

ITERATIONS = 1500


def exact(t, x):
    return np.exp(-t) * np.sin(np.pi * x)


def grid(ts, xs):
    """All pairs (t, x), as rows."""
    return np.stack(np.meshgrid(ts, xs, indexing="ij"), axis=-1).reshape(-1, 2)


def along(direction, u):
    """The function that maps points to the derivative of u along one coordinate, at all of them in one pass."""
    return lambda points: gg.jvp(u, (points,), (np.broadcast_to(direction, points.shape),))[1]


T, X = np.array([1.0, 0.0]), np.array([0.0, 1.0])


def residual(u, points):
    """u_t - u_xx / pi^2, zero where the equation holds."""
    return along(T, u)(points) - along(X, along(X, u))(points) / np.pi**2


def make_net(width=24):
    """Float64 and tanh: L-BFGS wants exact gradients, and the equation a net with second derivatives (those of ReLU are zero)."""
    net = nn.MLP([2, width, width, 1], activation="tanh", dtype=np.float64)
    for layer in net:
        if isinstance(layer, nn.Linear):
            nn.init.xavier_normal_(layer.weight)
            nn.init.zeros_(layer.bias)
    return net


def train(net, iterations):
    inside = gg.random.uniform(size=(500, 2)).numpy() * [1, 2] - [0, 1]
    edge = np.concatenate([grid([0.0], np.linspace(-1, 1, 101)), grid(np.linspace(0, 1, 51), [-1.0, 1.0])])
    given = exact(*edge.T)[:, None]
    optimizer = optim.LBFGS(net.parameters(), max_iter=iterations, history_size=50, line_search_fn="strong_wolfe", tolerance_grad=1e-9, tolerance_change=0)

    def closure():
        optimizer.zero_grad()
        loss = gg.mean(residual(net, inside) ** 2) + gg.mean((net(edge) - given) ** 2)
        loss.backward()
        return loss

    first = optimizer.step(closure)
    return float(first), float(closure())


def plot(ts, xs, u, path):
    try:
        from matplotlib.figure import Figure
    except ImportError:
        print("no picture: matplotlib is not installed (pip install 'gpugrad[plot]')")
        return None
    true = exact(ts[:, None], xs)
    figure = Figure(figsize=(10, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    for t in (0, 0.25, 0.5, 1):
        i = round(t * (len(ts) - 1))
        (line,) = left.plot(xs, u[i], label=f"t = {t}")
        left.plot(xs[::5], true[i, ::5], "o", markersize=3, color=line.get_color())
    left.set(xlabel="x", ylabel="u(t, x)", title="net (lines) and exact solution (dots)")
    left.legend()
    image = right.imshow((u - true).T, origin="lower", extent=(0, 1, -1, 1), aspect="auto", cmap="RdBu", vmin=-abs(u - true).max(), vmax=abs(u - true).max())
    right.set(xlabel="t", ylabel="x", title="error of the net")
    figure.colorbar(image, ax=right)
    figure.savefig(path, dpi=120)
    print(f"drawn in {path}")
    return path


def main(path="pinn.png", iterations=ITERATIONS, seed=0):
    gg.random.seed(seed)
    net = make_net()
    first, last = train(net, iterations)
    ts, xs = np.linspace(0, 1, 101), np.linspace(-1, 1, 101)
    with gg.no_grad():
        u = net(grid(ts, xs)).numpy().reshape(101, 101)
    true = exact(ts[:, None], xs)
    error = float(np.linalg.norm(u - true) / np.linalg.norm(true))
    print(f"loss {first:.2e} before, {last:.2e} after at most {iterations} iterations of L-BFGS")
    print(f"relative L2 error of u on a grid of {u.size} points: {error:.1e}; the largest error is {abs(u - true).max():.1e}")
    return {"error": error, "first loss": first, "last loss": last, "picture": plot(ts, xs, u, path)}


if __name__ == "__main__":
    main()
