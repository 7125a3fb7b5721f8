"""Fisher information matrices of a model whose loss is a negative log likelihood."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpugrad import backend
from gpugrad.curvature.gauss_newton import GaussNewtonOperator, _pair, first_axis
from gpugrad.curvature.likelihoods import KNOWN, Curvature
from gpugrad.curvature.sweep import Batch
from gpugrad.ops import reduce
from gpugrad.ops.fit import shape_of
from gpugrad.ops.shape import stack
from gpugrad.tape import plain
from gpugrad.transforms import grad

KINDS = ("exact", "monte-carlo", "empirical")


class FisherOperator(GaussNewtonOperator):
    """The Fisher information of a model, ``F = s sum_n J_n' E[g_n g_n'] J_n``, with g_n the gradient of example n's negative log likelihood in the outputs.

    The loss is ``s sum_n l_n``, so s is 1 for a sum; for the mean of a cross entropy one over the labels (or their weights), and for that of a squared error, or of a
    binary cross entropy, one over the elements: N C of N examples with C outputs. The expectation is over labels drawn from

    - ``kind="exact"``: the model, in closed form. This is the Gauss-Newton matrix;
    - ``kind="monte-carlo"``: the model, by ``samples`` draws for each example, the same in each product (and however the data is cut into batches). Its mean over
      seeds is the exact matrix, its standard error falls with the root of ``samples``;
    - ``kind="empirical"``: the data, which is to say ``F = s sum_n grad l_n grad l_n'``: the gradients' uncentred second moment. It is no approximation of the
      others unless the model is right: Kunstner, Balles and Hennig, "Limitations of the empirical Fisher approximation" (2019). Any loss that is a sum or mean of
      those of rows will do.

    ::

        F = FisherOperator(model, nn.CrossEntropyLoss(), data=batches, kind="monte-carlo", samples=4)

    Args:
        model, params, data, and the options not named here: see :class:`GaussNewtonOperator`. Data there must be; the outputs are one array, with an example in each
            row, which depends on that row of the inputs alone.
        loss: one whose likelihood is known (see :data:`gpugrad.curvature.likelihoods.KNOWN`): those of softmax (weights of classes, label smoothing and ignored labels
            weigh the rows), of normal numbers of variance 1/2, and of Bernoulli ones.
        kind: "exact", "monte-carlo" or "empirical".
        samples: draws for each example.
        seed: of the draws.

    Raises:
        ValueError: an unknown kind, or no data; a loss of which no likelihood is known (but for "empirical"); outputs that are not one row for each example.
        TypeError, RuntimeError: as :class:`GaussNewtonOperator` does.

    Martens, "New insights and perspectives on the natural gradient method" (2020), sections 5 and 8 to 11.
    """

    def __init__(
        self, model: Any, loss: Any, params: Any = None, data: Any = None, *, kind: str = "exact", samples: int = 1, seed: int = 0, **options: Any
    ) -> None:
        if kind not in KINDS:
            raise ValueError(f"kind must be one of {', '.join(map(repr, KINDS))}, got {kind!r}")
        if data is None:
            raise ValueError("a Fisher matrix is one of data: give data=[(inputs, target)], or batches of such pairs")
        backend.check_integer("samples", samples, least=1)
        backend.check_integer("seed", seed, least=0)
        self.kind, self.samples, self.seed = kind, samples, seed
        super().__init__(model, loss, params, data, **options)

    def _in_outputs(self, z: Any, batch: Batch) -> Curvature:
        if self.likelihood is None and self.kind != "empirical":
            raise ValueError(f"the loss is no negative log likelihood that is known here, from which labels could be drawn: expected one of {KNOWN}")
        target, rows = _pair(batch)[1], first_axis(z, batch)
        if self.kind == "exact":
            return self.likelihood.hessian(z, target)  # type: ignore[union-attr]
        if self.kind == "monte-carlo":
            scores = [self.likelihood.score(z, target, self._uniform(z, k, batch)) for k in range(self.samples)]  # type: ignore[union-attr]
            return _outer_products(scores, self.likelihood.scale(z, target) / self.samples)  # type: ignore[union-attr]
        s = self.likelihood.scale(z, target) if self.likelihood is not None else 1 / rows if self.reduction == "mean" else 1.0
        return _outer_products([grad(self._of_outputs(batch))(z)], 1 / s)  # these gradients have the factor s in them, so that their products have it twice

    def _uniform(self, z: Any, sample: int, batch: Batch) -> Any:
        """A uniform number for each draw of the batch, from the place in a stream of random numbers that belongs to its rows."""
        each = self.likelihood.draws(z)  # type: ignore[union-attr]
        start, number = batch.start * each, batch.rows * each
        stream = np.random.Philox(np.random.SeedSequence([self.seed, sample]))
        stream.advance(start // 4)  # Philox makes four numbers at a time
        drawn = np.random.Generator(stream).random(start % 4 + number)[start % 4 :]
        return np.maximum(drawn, 2.0**-54)  # not 0, of which the normal quantile is infinite


def _outer_products(gs: list[Any], factor: float) -> Curvature:
    """``u -> factor sum_k g_k (g_k' u)`` in each row."""
    g = stack([plain(x) for x in gs])
    axes = tuple(range(2, len(shape_of(g))))
    return lambda u: factor * reduce.sum(g * reduce.sum(g * u, axis=axes, keepdims=True), axis=0)
