"""What the curvature operators have in common: parameters, a loss that is a mean or sum over mini-batches, and passes that are kept between products."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np

from gpugrad import backend, tape, tree
from gpugrad.autograd import no_grad
from gpugrad.batching import vmap
from gpugrad.curvature.checks import check_finite, check_repeatable
from gpugrad.curvature.linearization import Linearization
from gpugrad.curvature.operator import Block, Operator
from gpugrad.curvature.parameters import Parameters, refuse_training, untracked
from gpugrad.curvature.sweep import Batch, Batches
from gpugrad.curvature.vectors import Form
from gpugrad.transforms import own_all, value_and_grad

if TYPE_CHECKING:
    from gpugrad.curvature.objective import Objective

MEMORY = 2**30  # bytes


class OverData(Operator):
    """A curvature matrix of a loss ``L = sum_b w_b L_b`` over mini-batches.

    With ``reduction="mean"`` the weight w_b is the batch's share ``n_b / N`` of the rows, or of what ``count(batch)`` counts: so the matrix is that of all data
    as one batch, exactly (to rounding), however it is cut into batches. With "sum" it is 1.

    A subclass defines ``_linearize(batch)`` and ``_loss``.
    """

    def __init__(
        self,
        parameters: Parameters,
        data: Any,
        *,
        reduction: str,
        damping: float,
        count: Callable[[Any], float] | None,
        memory: int | None,
        progress: bool | None,
        check_finite: bool,
        check_deterministic: bool,
    ) -> None:
        if reduction not in ("mean", "sum"):
            raise ValueError(f"reduction must be 'mean' or 'sum', that of the loss over the rows of a batch, got {reduction!r}")
        if memory is not None and memory < 0:
            raise ValueError(f"memory must be a number of bytes, at least 0, got {memory}")
        super().__init__(parameters.space)
        self.parameters, self.batches = parameters, Batches(data, progress)
        self.reduction, self.damping, self.count = reduction, float(damping), count
        self.memory, self.check_finite = MEMORY if memory is None else memory, check_finite
        self._forget()
        refuse_training(parameters.module, self.batches.several)
        if check_deterministic:
            check_repeatable(self)

    def __getstate__(self) -> dict[str, Any]:
        """For copies and pickles: the recorded passes stay here, and a copy records its own."""
        return {**self.__dict__, "_kept": {}}

    def _forget(self) -> None:
        self._kept: dict[int, Linearization] = {}
        self._counts: dict[int, float] = {}
        self._sizes: dict[int, int] = {}  # bytes that a batch's linearization was found to take

    # ------------------------------------------------------------------ what a subclass says

    def _linearize(self, batch: Batch) -> Linearization:
        raise NotImplementedError

    def _loss(self, batch: Batch) -> Callable[..., Any]:
        """The loss of a batch as a function of the active leaves."""
        raise NotImplementedError

    def _at_once(self, batch: Batch) -> Callable[..., list[Any]]:
        """A product that keeps nothing, once."""
        return self._linearize(batch).product

    def _count(self, batch: Batch) -> float:
        """How much a batch counts in the mean."""
        return float(batch.rows if self.count is None else self.count(batch.data))

    # ------------------------------------------------------------------ products

    def _product(self, vs: list[Any]) -> list[Any]:
        return self._finished(self._over_batches(lambda batch, kept: (kept.product if kept else self._at_once(batch))(*vs)), vs)

    def _block(self, vs: list[Any]) -> list[Any]:
        return self._finished(self._over_batches(lambda batch, kept: self._columns(kept or self._linearize(batch), vs)), vs)

    def _columns(self, linear: Linearization, vs: list[Any]) -> list[Any]:
        """Several products at once, of as many vectors as the memory is enough for."""
        at_once = max(1, int(self.memory // max(1, linear.width)))
        return vmap(lambda *each: list(linear.product(*each)), chunk_size=at_once)(*vs)

    def _finished(self, product: list[Any], vs: list[Any]) -> list[Any]:
        if self.damping:
            product = [p + self.damping * v for p, v in zip(product, vs, strict=True)]
        if self.check_finite:
            check_finite(self, product, vs)
        return product

    def _over_batches(self, of_batch: Callable[[Any, Any], list[Any]], keep: bool = True) -> list[Any]:
        """``sum_b w_b of_batch(b)``; ``of_batch`` is given the batch and what is kept of it, if anything."""
        # What requires grad is a constant. Inside a transform no_grad would make constants of what that differentiates, too, which is to be seen, and refused.
        with nullcontext() if tape.state.leaf_level else no_grad():
            return self._sum(of_batch, keep)

    def _sum(self, of_batch: Callable[[Any, Any], list[Any]], keep: bool) -> list[Any]:
        total, counted, unit = None, 0.0, 1.0
        for batch, count, kept in self._sweep(keep):
            part = [untracked(x, "the loss") for x in of_batch(batch, kept)]
            counted += count
            if total is None:  # counts are taken relative to the first: a single batch isn't scaled at all
                total, unit = part, count
            else:
                w = count / unit
                total = [a + (p if w == 1 else p * w) for a, p in zip(total, part, strict=True)]
        assert total is not None
        share = unit / counted if self.reduction == "mean" else 1.0
        return total if share == 1 else [x * share for x in total]

    def _sweep(self, keep: bool) -> Iterator[tuple[Any, float, Linearization | None]]:
        """(batch, how much it counts, what is kept of it) of all batches; what fits into the memory is kept from now on, if ``keep``."""
        if self._kept and len(self._kept) == len(self._counts) == max(1, len(self.batches.rows)):
            yield from ((None, self._counts[i], self._kept[i]) for i in sorted(self._kept))
            return
        refuse_training(self.parameters.module, self.batches.several)  # it may have been set to training since
        for batch in self.batches.sweep(type(self).__name__):
            if batch.number not in self._counts:
                self._counts[batch.number] = 1.0 if self.reduction == "sum" else _counted(self._count(batch), batch)
            if keep and batch.number not in self._kept and self._fits(batch.number):
                self._keep(batch.number, self._linearize(batch))
            yield batch, self._counts[batch.number], self._kept.get(batch.number)

    def _fits(self, index: int) -> bool:
        return self._sizes.get(index, 0) + sum(kept.nbytes for kept in self._kept.values()) <= self.memory and self.memory > 0

    def _keep(self, index: int, linear: Linearization) -> None:
        self._sizes[index] = linear.nbytes
        if self._fits(index):
            self._kept[index] = linear

    # ------------------------------------------------------------------ the loss itself

    def value(self) -> Any:
        """The loss over all data at the operator's parameters: an array of no axes."""
        return self._over_batches(
            lambda batch, kept: [backend.asarray(untracked(kept.value() if kept else self._loss(batch)(*self.parameters.values), "the loss"))], keep=False
        )[0]

    def gradient(self, *, flat: bool = False) -> Any:
        """Its gradient, in the nest of the parameters, or (N,)."""
        return self.value_and_gradient(flat=flat)[1]

    def value_and_gradient(self, *, flat: bool = False, keep: bool = False) -> tuple[Any, Any]:
        """Both, in one sweep; with ``keep`` by passes that are recorded, within the memory, for products to come."""

        def both(batch: Batch, kept: Linearization | None) -> list[Any]:
            if kept:
                return [backend.asarray(untracked(kept.value(), "the loss")), *kept.gradient()]
            value, gradient = value_and_grad(self._loss(batch), tuple(range(len(self.parameters.active))))(*self.parameters.values)
            return [value, *gradient]

        value, *gradient = self._over_batches(both, keep)
        return value, self.range.write(own_all(gradient), Form("flat" if flat else "nest", None, False))

    # ------------------------------------------------------------------ others of the kind

    def at(self, params: Any) -> OverData:
        """The same at other parameters (flat or a nest), which are not checked again for what the loss does."""
        return self._with(self.parameters.at(params))

    def _with(self, parameters: Parameters) -> OverData:
        other = copy.copy(self)
        other.parameters, other.range, other.domain = parameters, parameters.space, parameters.space
        counts = self._counts
        other._forget()
        other._counts = dict(counts)
        return other

    def _part(self, rows: list[int], row_nest: Any, columns: list[int], column_nest: Any) -> Operator:
        """Of the operator by these parameters alone, to which the others are constants."""
        if rows == columns:
            return self._with(self.parameters.only(rows, row_nest))
        both = sorted({*rows, *columns})
        few = self._with(self.parameters.only(both, [tree.LEAF] * len(both)))
        return Block(few, [both.index(i) for i in rows], row_nest, [both.index(i) for i in columns], column_nest)

    @property
    def hessp(self) -> Callable[[Any, Any], Any]:
        """A function ``hessp(x, p)``, the product with ``p`` at the parameters ``x``, both flat: for :func:`scipy.optimize.minimize`. It is that of an
        :meth:`objective`, so that products at one x, one after the other, share what is kept."""
        return self.objective().hessp

    def objective(self) -> Objective:
        """Value, gradient and products as functions of a flat x; see :class:`gpugrad.curvature.objective.Objective`."""
        from gpugrad.curvature.objective import Objective

        return Objective(self)


def _counted(count: float, batch: Batch) -> float:
    if not count > 0 or not np.isfinite(count):
        raise ValueError(f"batch {batch.number} counts {count} in the mean of the loss, expected a positive number: leave out batches in which nothing counts")
    return count
