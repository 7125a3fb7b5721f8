"""The losses that are negative log likelihoods: their curvature in the model's outputs in closed form, and labels drawn from the model.

With z the outputs, a loss is ``s sum_n l(z_n, y_n)``, where s is 1 for a sum, and for a mean one over what it divides by. Each class states, besides s:

- the Hessian in the outputs, ``H_L u``, which for these losses does not depend on the labels but for their weights, so that it is the Fisher information too;
- scores: gradients of the ``l`` at labels that are drawn from the model, whose outer products have the Hessian for their mean.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from gpugrad import backend, nn
from gpugrad.nn import functional as F  # noqa: N812
from gpugrad.ops import reduce
from gpugrad.ops.activations import sigmoid, slope
from gpugrad.ops.cross_entropy import target_sum
from gpugrad.ops.elementwise import sqrt, strong_multiply
from gpugrad.ops.fit import astype, dtype_of, shape_of
from gpugrad.ops.labels import checked_weight, class_axis, counts, rows
from gpugrad.ops.shape import as_array, moveaxis, reshape
from gpugrad.ops.softmax import softmax, softmax_slope
from gpugrad.quantile import normal_quantile
from gpugrad.tape import plain

Curvature = Callable[[Any], Any]
Draw = Callable[[int], Any]


class Likelihood(Protocol):
    """What a loss that is a likelihood can say."""

    reduction: str

    def count(self, target: Any) -> float:
        """What the mean of a batch divides by, up to a factor that is the same for all batches."""
        ...

    def scale(self, z: Any, target: Any) -> float:
        """s."""
        ...

    def hessian(self, z: Any, target: Any) -> Curvature:
        """``u -> H_L u``."""
        ...

    def draws(self, z: Any) -> int:
        """How many uniform numbers a row of outputs takes to draw its labels."""
        ...

    def score(self, z: Any, target: Any, uniform: Any) -> Any:
        """The gradients of the l by z at labels drawn by ``uniform``, NumPy's, an entry for each of the batch's draws, times the root of the label's weight."""
        ...


class _OfElements:
    """A sum or mean over all elements, each of which has a label of its own."""

    def __init__(self, reduction: str = "mean") -> None:
        self.reduction = reduction

    def count(self, target: Any) -> float:
        """The elements."""
        return math.prod(shape_of(target))

    def scale(self, z: Any, target: Any) -> float:
        """One over their number."""
        return 1 / math.prod(shape_of(z)) if self.reduction == "mean" else 1.0

    def draws(self, z: Any) -> int:
        """One for each element."""
        return math.prod(shape_of(z)[1:])


class SquaredError(_OfElements):
    """``(z - y)^2``: labels are normal around z, with variance 1/2."""

    def hessian(self, z: Any, target: Any) -> Curvature:
        """2 s I."""
        factor = 2 * self.scale(z, target)
        return lambda u: factor * u

    def score(self, z: Any, target: Any, uniform: Any) -> Any:
        """2 (z - y)."""
        normal = normal_quantile(uniform).reshape(shape_of(z))
        return backend.asarray(math.sqrt(2) * normal, device=backend.device_of(z)).astype(dtype_of(z), copy=False)


class BinaryCrossEntropy(_OfElements):
    """``weight (pos_weight y softplus(-z) + (1 - y) softplus(z))``: labels are 1 with probability sigmoid(z)."""

    def __init__(self, reduction: str = "mean", weight: Any = None, pos_weight: Any = None) -> None:
        super().__init__(reduction)
        self.weight, self.pos_weight = plain(weight), plain(pos_weight)

    def _weight(self, z: Any, target: Any) -> Any:
        """How much each element counts."""
        cast: Callable[[Any], Any] = lambda x: astype(as_array(x), dtype_of(z), copy=False)
        y = cast(plain(target))
        w = y * 0 + 1 if self.pos_weight is None else cast(self.pos_weight) * y + (1 - y)
        return w if self.weight is None else w * cast(self.weight)

    def hessian(self, z: Any, target: Any) -> Curvature:
        """s weight sigma (1 - sigma)."""
        factor = self._weight(z, target) * self.scale(z, target)
        return lambda u: strong_multiply(factor, slope(u, z, act="sigmoid"))

    def score(self, z: Any, target: Any, uniform: Any) -> Any:
        """sigma - y."""
        p = sigmoid(astype(z, np.float64))
        y = backend.asarray(uniform.reshape(shape_of(z)), device=backend.device_of(z)) < p
        return astype(sqrt(astype(self._weight(z, target), np.float64)) * (p - y), dtype_of(z))


class CrossEntropy:
    """``-sum_c q_c log softmax(z)_c`` with the target q that :func:`gpugrad.nn.functional.cross_entropy` makes of labels or probabilities, weights and smoothing:
    labels have the probabilities softmax(z), and a row the weight ``sum_c q_c``."""

    def __init__(self, reduction: str = "mean", label_smoothing: float = 0.0, *, weight: Any = None, ignore_index: int = -100) -> None:
        self.reduction, self.smoothing, self.weight, self.ignore_index = reduction, label_smoothing, plain(weight), ignore_index

    def count(self, target: Any) -> float:
        """The weights of the labels that are not ignored; of probabilities, their rows."""
        y = plain(target)
        if y.dtype.kind not in "iu":
            return math.prod(y.shape) / y.shape[class_axis("cross entropy", y, "probabilities")]
        xp = backend.namespace(y)
        like = xp.zeros((), np.float64) if self.weight is None else self.weight
        return float(reduce.sum(counts(like, y.reshape(-1), self.weight, self.ignore_index)))

    def scale(self, z: Any, target: Any) -> float:
        """One over the count."""
        return 1 / self.count(target) if self.reduction == "mean" else 1.0

    def _rows(self, z: Any, target: Any) -> tuple[Any, Any]:
        """z as (M, C), and the weight of each row, (M, 1)."""
        y, x = plain(target), _rows(z)
        labels, q = (y.reshape(-1), None) if y.dtype.kind in "iu" else (None, astype(_rows(y), dtype_of(x), copy=False))
        w = None if self.weight is None else checked_weight("cross entropy", self.weight, shape_of(x)[1], dtype_of(x))
        return x, astype(target_sum(x, labels, q, w, self.smoothing, self.ignore_index), dtype_of(x), copy=False)

    def hessian(self, z: Any, target: Any) -> Curvature:
        """s weight (diag p - p p') in each row."""
        x, w = self._rows(z, target)
        p, factor, shape = softmax(x), w * self.scale(z, target), shape_of(z)
        return lambda u: _unrows(strong_multiply(factor, softmax_slope(_rows(u), p, axis=(1,))), shape)  # whatever the logits of an ignored row are

    def draws(self, z: Any) -> int:
        """One for each label."""
        shape = shape_of(z)
        return math.prod(shape[2:])

    def score(self, z: Any, target: Any, uniform: Any) -> Any:
        """p - e_y, with y the class in whose share of [0, 1) the number falls."""
        x, w = self._rows(z, target)
        xp = backend.namespace(x)
        p = softmax(astype(x, np.float64))
        shares = xp.cumsum(p, axis=1)
        y = (shares <= (backend.asarray(uniform, device=backend.device_of(z)) * shares[:, -1])[:, None]).sum(axis=1)
        residual = p - (y[:, None] == xp.arange(p.shape[1]))
        return _unrows(astype(strong_multiply(sqrt(astype(w, np.float64)), residual), dtype_of(z)), shape_of(z))


def _rows(x: Any) -> Any:
    return rows(as_array(x))


def _unrows(x: Any, shape: Any) -> Any:
    """What rows made of an array of this shape, as it was."""
    if len(shape) <= 2:
        return reshape(x, shape)
    return moveaxis(reshape(x, (shape[0], *shape[2:], shape[1])), -1, 1)


# ------------------------------------------------------------------------------------------------- which loss is which

KNOWN = "nn.CrossEntropyLoss, nn.MSELoss, nn.BCEWithLogitsLoss, their functions in nn.functional (with functools.partial for options), 'cross_entropy', 'mse', 'bce_with_logits'"
_BY_FUNCTION: dict[Any, Any] = {F.cross_entropy: CrossEntropy, F.mse_loss: SquaredError, F.bce_with_logits: BinaryCrossEntropy}
_BY_NAME: dict[str, Any] = {"cross_entropy": F.cross_entropy, "mse": F.mse_loss, "bce_with_logits": F.bce_with_logits}


def recognised(loss: Any, reduction: str) -> tuple[Callable[..., Any], Likelihood | None]:
    """The loss as a function of outputs and target, and its likelihood if it is one that is known here (see ``KNOWN``).

    Raises:
        ValueError: a string that names none, or a loss that reduces otherwise than ``reduction`` says.
        TypeError: a class instead of a loss.
    """
    if isinstance(loss, str):
        if loss not in _BY_NAME:
            raise ValueError(f"unknown loss {loss!r}: expected {', '.join(map(repr, _BY_NAME))}, or a function of (outputs, target)")
        loss = functools.partial(_BY_NAME[loss], reduction=reduction)
    if isinstance(loss, type) or not callable(loss):
        raise TypeError(f"loss is {loss!r:.60}, expected a function of (outputs, target), such as nn.CrossEntropyLoss()")
    likelihood = _of_module(loss) or _of_function(loss)
    found = getattr(likelihood or loss, "reduction", reduction)
    found = "mean" if found == "batchmean" else found  # over rows
    if found != reduction and isinstance(found, str):
        remedy = f"pass reduction={found!r} to the operator" if found in ("mean", "sum") else "give it reduction='mean' or 'sum'"
        raise ValueError(f"the loss has reduction={found!r}, but the operator was told {reduction!r}: {remedy}")
    return loss, likelihood


def _of_module(loss: Any) -> Any:
    if type(loss) is nn.CrossEntropyLoss:
        return CrossEntropy(loss.reduction, loss.label_smoothing, weight=loss.weight, ignore_index=loss.ignore_index)
    if type(loss) is nn.BCEWithLogitsLoss:
        return BinaryCrossEntropy(loss.reduction, loss.weight, loss.pos_weight)
    return SquaredError(loss.reduction) if type(loss) is nn.MSELoss else None


def _of_function(loss: Any) -> Any:
    options: dict[str, Any] = {}
    while isinstance(loss, functools.partial) and not loss.args:
        options = {**loss.keywords, **options}
        loss = loss.func
    try:
        likelihood = _BY_FUNCTION.get(loss)
    except TypeError:  # not hashable
        return None
    return None if likelihood is None else likelihood(**options)
