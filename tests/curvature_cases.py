"""Models, losses and dense matrices to compare curvature operators with."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np

import gpugrad as gg
from gpugrad import nn
from gpugrad.nn import functional as F  # noqa: N812

N = 7


def reals(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def labels(n: int, classes: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, classes, n)


def module(make: Callable[[], nn.Module]) -> nn.Module:
    """In float64 and evaluation, with parameters that are the same each time and not at kinks, and running statistics that are not those of the start."""
    m = make().double().eval()
    rng = np.random.default_rng(3)
    for p in m.parameters():
        p.data = rng.normal(size=p.shape) * 0.7
    for path, b in m.named_buffers():
        if "running" in path:
            b.data = rng.uniform(0.5, 2.0, b.shape)
    return m


# models of (N, 4) -> (N, 3), or with inputs of their own
MODELS: dict[str, tuple[Callable[[], nn.Module], Any]] = {
    **{
        name: (lambda name=name: nn.Sequential(nn.Linear(4, 5), nn.layers.activation_named(name)(), nn.Linear(5, 3)), reals(N, 4))
        for name in nn.layers.ACTIVATIONS
    },
    "gelu tanh": (lambda: nn.Sequential(nn.Linear(4, 5), nn.GELU("tanh"), nn.Linear(5, 3)), reals(N, 4)),
    "softmax": (lambda: nn.Sequential(nn.Linear(4, 5), nn.Softmax(), nn.Linear(5, 3)), reals(N, 4)),
    "log softmax": (lambda: nn.Sequential(nn.Linear(4, 5), nn.LogSoftmax(), nn.Linear(5, 3)), reals(N, 4)),
    "no bias": (lambda: nn.Sequential(nn.Linear(4, 5, bias=False), nn.Tanh(), nn.Linear(5, 3, bias=False)), reals(N, 4)),
    "linear": (lambda: nn.Linear(4, 3), reals(N, 4)),
    "deep linear": (lambda: nn.Sequential(nn.Linear(4, 2), nn.Identity(), nn.Linear(2, 3)), reals(N, 4)),
    "batch norm": (lambda: nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, 3)), reals(N, 4)),
    "layer norm": (lambda: nn.Sequential(nn.Linear(4, 5), nn.LayerNorm(5), nn.GELU(), nn.Linear(5, 3)), reals(N, 4)),
    "rms norm": (lambda: nn.Sequential(nn.Linear(4, 5), nn.RMSNorm(5), nn.SiLU(), nn.Linear(5, 3)), reals(N, 4)),
    "dropout": (lambda: nn.Sequential(nn.Linear(4, 5), nn.Dropout(0.5), nn.Tanh(), nn.Linear(5, 3)), reals(N, 4)),
    "residual": (lambda: nn.Sequential(nn.Residual(nn.Sequential(nn.Linear(4, 4), nn.Tanh())), nn.Linear(4, 3)), reals(N, 4)),
    "mlp": (lambda: nn.MLP([4, 5, 3], activation="sigmoid"), reals(N, 4)),
    "embedding": (lambda: nn.Sequential(nn.Embedding(6, 2), nn.Flatten(), nn.Tanh(), nn.Linear(4, 3)), labels(2 * N, 6).reshape(N, 2)),
    "bilinear": (lambda: nn.Bilinear(4, 2, 3), (reals(N, 4), reals(N, 2, seed=1))),
}


def _probabilities(n: int, classes: int) -> np.ndarray:
    q = np.random.default_rng(5).uniform(0.1, 1.0, (n, classes))
    return q / q.sum(1, keepdims=True)


SIGNS = 2.0 * labels(N * 3, 2).reshape(N, 3) - 1
WEIGHT = np.array([0.5, 2.0, 1.0])
IGNORED = np.where(np.arange(N) % 3 == 1, -100, labels(N, 3))
to_signs = lambda z: z[:, 0]

# losses of (N, 3) outputs and a target; each is a mean, by the batch's count
LOSSES: dict[str, tuple[Callable[..., Any], Any]] = {
    "mse": (nn.MSELoss(), reals(N, 3, seed=1)),
    "l1": (nn.L1Loss(), reals(N, 3, seed=1)),
    "smooth l1": (nn.SmoothL1Loss(beta=0.7), reals(N, 3, seed=1)),
    "huber": (nn.HuberLoss(delta=0.7), reals(N, 3, seed=1)),
    "gaussian": (lambda z, y: F.gaussian_nll_loss(z, y, gg.exp(0.3 * z)), reals(N, 3, seed=1)),
    "poisson": (nn.PoissonNLLLoss(), 1.0 * labels(3 * N, 5).reshape(N, 3)),
    "poisson full": (lambda z, y: F.poisson_nll_loss(gg.exp(z), y, log_input=False, full=True), 1.0 * labels(3 * N, 5).reshape(N, 3)),
    "bce": (lambda z, y: F.bce_loss(gg.sigmoid(z), y), _probabilities(N, 3)),
    "bce with logits": (nn.BCEWithLogitsLoss(), _probabilities(N, 3)),
    "bce with logits, weights": (nn.BCEWithLogitsLoss(weight=WEIGHT, pos_weight=WEIGHT[::-1].copy()), _probabilities(N, 3)),
    "cross entropy": (nn.CrossEntropyLoss(), labels(N, 3)),
    "cross entropy, smooth, weights": (nn.CrossEntropyLoss(label_smoothing=0.2, weight=WEIGHT), labels(N, 3)),
    "cross entropy, ignored": (nn.CrossEntropyLoss(weight=WEIGHT), IGNORED),
    "cross entropy, probabilities": (nn.CrossEntropyLoss(label_smoothing=0.1, weight=WEIGHT), _probabilities(N, 3)),
    "nll": (lambda z, y: F.nll_loss(gg.log_softmax(z, 1), y), labels(N, 3)),
    "kl": (lambda z, y: F.kl_div(gg.log_softmax(z, 1), y), _probabilities(N, 3)),
    "hinge": (nn.HingeLoss(), SIGNS),
    "soft margin": (nn.SoftMarginLoss(), SIGNS),
    "multiclass hinge": (nn.MulticlassHingeLoss(), labels(N, 3)),
    "multi margin": (nn.MultiMarginLoss(p=2, weight=WEIGHT), labels(N, 3)),
    "cosine embedding": (lambda z, y: F.cosine_embedding_loss(z, 1 + z[:, ::-1] ** 2, y), SIGNS[:, 0]),
}


def dense_hessian(loss: Callable[[Any], Any], params: dict[str, np.ndarray]) -> np.ndarray:
    """Of a loss of a dict of arrays, by :func:`gpugrad.hessian` of one flat vector."""
    x, of = flattened(params)
    return gg.hessian(lambda v: loss(of(v)))(x)


def dense_jacobian(f: Callable[[Any], Any], params: dict[str, np.ndarray]) -> np.ndarray:
    """Of a function of a dict of arrays, (outputs, N)."""
    x, of = flattened(params)
    y = gg.jacobian(lambda v: f(of(v)))(x)
    return y.reshape(-1, x.size)


def flattened(params: dict[str, np.ndarray]) -> tuple[np.ndarray, Callable[[Any], dict[str, Any]]]:
    """The arrays one after another, and the dict of such a vector."""
    ends = np.cumsum([0, *[p.size for p in params.values()]])

    def of(v: Any) -> dict[str, Any]:
        return {name: v[a:b].reshape(p.shape) for (name, p), a, b in zip(params.items(), ends, ends[1:])}

    return np.concatenate([p.reshape(-1) for p in params.values()]), of


def parameters(m: nn.Module) -> dict[str, np.ndarray]:
    return {path: p.numpy().copy() for path, p in m.named_parameters()}


def cut(x: Any, y: Any, *sizes: int) -> list[tuple[Any, Any]]:
    """Batches of these sizes."""
    ends = np.cumsum([0, *sizes])
    rows = lambda v, a, b: tuple(u[a:b] for u in v) if isinstance(v, tuple) else v[a:b]
    return [(rows(x, a, b), y[a:b]) for a, b in pairwise(ends)]


def net(outputs: int = 3) -> nn.Module:
    return module(lambda: nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, outputs)))
