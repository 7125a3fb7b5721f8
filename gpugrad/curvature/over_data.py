"""What the curvature operators have in common: parameters, a loss that is a mean or sum over mini-batches, and passes that are kept between products."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from gpugrad import backend, random, tape, tree
from gpugrad.batching import vmap
from gpugrad.curvature.operator import Operator, check_finite
from gpugrad.curvature.parameters import Parameters, refuse_training
from gpugrad.curvature.sweep import Batch, Batches
from gpugrad.ops.fit import dtype_of, shape_of
from gpugrad.tape import Tensor, plain
from gpugrad.transforms import value_and_grad

MEMORY = 2**30  # bytes


class Linearization:
    """A batch's curvature matrix at the operator's parameters, as a map of the parts of a vector.

    ``nbytes`` is what it keeps beside parameters and data; ``value_and_gradient()`` the loss and its gradient, which it knows as well.
    """

    nbytes = 0

    def product(self, *vs: Any) -> list[Any]:
        """The parts of the product."""
        raise NotImplementedError

    def value_and_gradient(self) -> tuple[Any, Sequence[Any]]:
        """The loss of the batch and its gradient."""
        raise NotImplementedError


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
        at_once = max(1, int(self.memory // max(1, linear.nbytes)))
        return vmap(lambda *each: list(linear.product(*each)), chunk_size=at_once)(*vs)

    def _finished(self, product: list[Any], vs: list[Any]) -> list[Any]:
        if self.damping:
            product = [p + self.damping * v for p, v in zip(product, vs, strict=True)]
        if self.check_finite:
            check_finite(self, product, vs)
        return product

    def _over_batches(self, of_batch: Callable[[Any, Any], list[Any]]) -> list[Any]:
        """``sum_b w_b of_batch(b)``; ``of_batch`` is given the batch and what is kept of it, if anything."""
        total, counted, unit = None, 0.0, 1.0
        for batch, count, kept in self._sweep():
            part = of_batch(batch, kept)
            counted += count
            if total is None:  # counts are taken relative to the first: a single batch isn't scaled at all
                total, unit = part, count if self.reduction == "mean" else 1.0
            else:
                w = count / unit if self.reduction == "mean" else 1.0
                total = [a + (p if w == 1 else p * w) for a, p in zip(total, part, strict=True)]
        assert total is not None
        share = unit / counted if self.reduction == "mean" else 1.0
        return total if share == 1 else [x * share for x in total]

    def _sweep(self, keep: bool = True) -> Iterator[tuple[Any, float, Linearization | None]]:
        """(batch, how much it counts, what is kept of it) of all batches; what fits into the memory is kept from now on, if ``keep``."""
        if self._kept and len(self._kept) == len(self._counts) == max(1, len(self.batches.rows)):
            yield from ((None, self._counts[i], self._kept[i]) for i in sorted(self._kept))
            return
        for batch in self.batches.sweep(type(self).__name__):
            if batch.index not in self._counts:
                self._counts[batch.index] = _counted(self._count(batch), batch)
            if keep and batch.index not in self._kept and self._fits(batch.index):
                self._keep(batch.index, self._linearize(batch))
            yield batch, self._counts[batch.index], self._kept.get(batch.index)

    def _fits(self, index: int) -> bool:
        return self._sizes.get(index, 0) + sum(kept.nbytes for kept in self._kept.values()) <= self.memory and self.memory > 0

    def _keep(self, index: int, linear: Linearization) -> None:
        self._sizes[index] = linear.nbytes
        if self._fits(index):
            self._kept[index] = linear

    # ------------------------------------------------------------------ the loss itself

    def value(self) -> Any:
        """The loss over all data at the operator's parameters: an array of no axes."""
        return self._over_batches(lambda batch, kept: [kept.value_and_gradient()[0] if kept else self._value(batch)])[0]

    def gradient(self, *, flat: bool = False) -> Any:
        """Its gradient, in the nest of the parameters, or (N,)."""
        return self.value_and_gradient(flat=flat)[1]

    def value_and_gradient(self, *, flat: bool = False) -> tuple[Any, Any]:
        """Both, in one sweep."""

        def both(batch: Batch, kept: Linearization | None) -> list[Any]:
            if kept:
                value, gradient = kept.value_and_gradient()
            else:
                value, gradient = value_and_grad(self._loss(batch), tuple(range(len(self.parameters.active))))(*self.parameters.values)
            return [value, *gradient]

        value, *gradient = self._over_batches(both)
        form = self.range.read(tree.unflatten(self.range.structure, gradient))[1]
        return value, self.range.write(gradient, form._replace(layout="flat" if flat else "nest", boxed=False))

    def _value(self, batch: Batch) -> Any:
        return backend.asarray(plain(self._loss(batch)(*self.parameters.values)))

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
        """On the diagonal, the operator by these parameters alone, to which the others are constants."""
        if rows == columns:
            return self._with(self.parameters.only(rows, row_nest))
        return super()._part(rows, row_nest, columns, column_nest)

    def hessp(self, x: Any, p: Any) -> Any:
        """The product with ``p`` at the parameters ``x``, both flat: for :func:`scipy.optimize.minimize`. Products at one x, one after the other, share what is kept."""
        return self.objective().hessp(x, p)

    def objective(self) -> Any:
        """Value, gradient and products as functions of a flat x; see :class:`gpugrad.curvature.objective.Objective`."""
        from gpugrad.curvature.objective import Objective

        if getattr(self, "_objective", None) is None:
            self._objective = Objective(self)
        return self._objective


def _counted(count: float, batch: Batch) -> float:
    if not count > 0 or not np.isfinite(count):
        raise ValueError(f"batch {batch.index} counts {count} in the mean of the loss, expected a positive number: leave out batches in which nothing counts")
    return count


# ------------------------------------------------------------------------------------------------- checks


def check_repeatable(operator: OverData) -> None:
    """Raise unless loss and product are the same, to the last bit, when they are computed twice, and leave no trace.

    Raises:
        RuntimeError: the loss draws random numbers, writes into arrays, or gives another value or product the second time.
    """
    vs = _probe(operator)
    state, written = random.default_generator.state_dict(), tape.last_write
    first = _once(operator, vs)
    if random.default_generator.state_dict() != state:
        raise RuntimeError("the loss draws random numbers (dropout, sampling), so that no two products are of one matrix: call model.eval(), or draw them beforehand")
    if tape.last_write != written:
        raise RuntimeError(
            "the loss writes into arrays: batch norm in training updates its running statistics with every product. Call model.eval() first, or give the module "
            "itself as params, so that it can be kept from it"
        )
    operator._forget()
    for what, a, b in zip(("loss", "product"), first, _once(operator, vs), strict=True):
        for x, y in zip(a, b, strict=True):
            if not _same_bits(x, y):
                raise RuntimeError(
                    f"the {what} is another one the second time it is computed, at the same parameters and data: does the loss draw random numbers, hold state, "
                    "or do the batches come in another order each time? (check_deterministic=False skips this check.)"
                )


def _once(operator: OverData, vs: list[Any]) -> tuple[list[Any], list[Any]]:
    losses: list[Any] = []

    def of_batch(batch: Batch, kept: Linearization | None) -> list[Any]:
        linear = kept or operator._linearize(batch)
        losses.append(plain(linear.value_and_gradient()[0]))
        return linear.product(*vs)

    return losses, operator._over_batches(of_batch)


def _probe(operator: Operator) -> list[Any]:
    """A vector of random signs, the same each time."""
    rng = np.random.default_rng(0)
    return [
        backend.asarray(rng.choice([-1.0, 1.0], shape).astype(dtype), device=operator.device)
        for shape, dtype in zip(operator.domain.shapes, operator.domain.dtypes, strict=True)
    ]


def _same_bits(x: Any, y: Any) -> bool:
    x, y = plain(x), plain(y)
    return x.shape == y.shape and bool(((x == y) | ((x != x) & (y != y))).all())


def checked_loss(y: Any) -> Any:
    """A loss that is one real number.

    Raises:
        TypeError: it is something else.
    """
    if shape_of(y) != () or not (hasattr(plain(y), "dtype") or isinstance(y, (int, float))) or dtype_of(y).kind == "c":
        got = f"an array of shape {shape_of(y)}, {dtype_of(y)}" if hasattr(plain(y), "dtype") else type(y).__name__
        raise TypeError(f"the loss returned {got}, expected one real number: reduce it by gg.mean (or gg.sum, with reduction='sum')")
    return y


# ------------------------------------------------------------------------------------------------- memory


def recorded_bytes(nodes: Sequence[Any], *others: Any) -> int:
    """Bytes of the arrays that the graph of ``nodes`` keeps, without those of ``others``, which are there anyway."""
    seen = {id(tape.root(plain(x))) for x in tree.flatten(others)[0] if type(x) is Tensor or backend.is_array(x)}
    visited, stack, total = set(nodes), [n for n in nodes if n is not None], 0
    while stack:
        node = stack.pop()
        for x in (*(getattr(node, "vals", None) or ()), *_several(getattr(node, "y", None))):
            array = tape.root(plain(x))
            if backend.is_array(array) and id(array) not in seen:
                seen.add(id(array))
                total += array.nbytes
        for p in node.parents:
            if p is not None and p not in visited:
                visited.add(p)
                stack.append(p)
    return total


def _several(y: Any) -> tuple[Any, ...]:
    return y if type(y) is tuple else (y,)
