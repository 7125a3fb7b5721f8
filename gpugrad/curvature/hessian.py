"""The Hessian of a loss."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from gpugrad.curvature.checks import check_arguments, checked_loss
from gpugrad.curvature.linearization import Linearization, recorded_bytes
from gpugrad.curvature.over_data import OverData
from gpugrad.curvature.parameters import Parameters
from gpugrad.curvature.sweep import Batch
from gpugrad.products import derivative_along
from gpugrad.tape import RecordedLeaf, footprint
from gpugrad.transforms import _Reverse, own_all, value_and_grad
from gpugrad.undifferentiable import naming


class HessianOperator(OverData):
    """The matrix of second derivatives of a loss by its parameters: ``H @ v``.

    ::

        H = HessianOperator(lambda p: gg.mean((gg.tanh(x @ p["w"]) - y) ** 2), {"w": w})
        H = HessianOperator(lambda p, batch: loss(p, *batch), params, DataLoader(TensorDataset(x, y), 256))
        H = HessianOperator(lambda model, batch: F.cross_entropy(model(batch[0]), batch[1]), model, batches)

    Args:
        loss: ``loss(params)``, or with data ``loss(params, batch)``: one real number, twice differentiable. Of a module for params it is given the module.
        params: any nest of arrays of floats; or an :class:`gpugrad.nn.Module`, whose parameters by path are then the nest. The operator is that at the values they
            have now, of which it keeps copies; :meth:`at` gives it at others. Frozen parameters and buffers are constants.
        data: an iterable that gives the same batches in every sweep; see :class:`gpugrad.curvature.sweep.Batches`.
        reduction: how the loss reduces over the rows of a batch. "mean": batches weigh ``n_b / N``, n_b the length of a batch's first array. "sum": all weigh 1.
        damping: a number added to the diagonal.
        count: ``count(batch)``, what n_b is, where it is not the number of rows: of a cross entropy with weights of classes or ignored labels, say, the
            weights that its mean divides by.
        memory: bytes that linearized gradients may take between products, 1 GiB by default. While they fit, a product costs two thirds of what it costs anew;
            batches beyond it are computed anew by :func:`gpugrad.hvp`. Also the bytes that a block of vectors may take. 0 keeps nothing.
        progress: a bar on standard error for sweeps over the data; None: for those that take longer than two seconds, on a terminal.
        check_finite: whether nan and inf in a product raise FloatingPointError, which names the parameters.
        check_deterministic: whether to compute loss and product twice to begin with, and compare all bits.

    Raises:
        TypeError: parameters that are not real floats, a loss that is not one real number or has no place for a batch, data that can be gone through once only.
        ValueError: a loss that doesn't depend on the parameters, a module in training whose dropout or batch norm would make the matrix another one each time.
        RuntimeError: a loss that gives other numbers the second time.

    Pearlmutter, "Fast exact multiplication by the Hessian" (1994).
    """

    def __init__(
        self,
        loss: Callable[..., Any],
        params: Any,
        data: Any = None,
        *,
        reduction: str = "mean",
        damping: float = 0.0,
        count: Callable[[Any], float] | None = None,
        memory: int | None = None,
        progress: bool | None = None,
        check_finite: bool = True,
        check_deterministic: bool = True,
    ) -> None:
        check_arguments(loss, data is not None)
        self.loss = loss
        super().__init__(
            Parameters(params),
            data,
            reduction=reduction,
            damping=damping,
            count=count,
            memory=memory,
            progress=progress,
            check_finite=check_finite,
            check_deterministic=check_deterministic,
        )

    def _loss(self, batch: Batch) -> Callable[..., Any]:
        of = self.parameters.bind(self.loss, *([] if self.batches.data is None else [batch.data]))
        return lambda *leaves: checked_loss(of(*leaves))

    def _linearize(self, batch: Batch) -> Linearization:
        return _LinearGradient(self._loss(batch), self.parameters.values, batch.data, self.domain.names)

    def _at_once(self, batch: Batch) -> Callable[..., list[Any]]:
        f, xs = self._loss(batch), tuple(self.parameters.values)

        def product(*vs: Any) -> list[Any]:
            with naming(f, xs, self.domain.names):
                return list(derivative_along(f, xs, vs, False)[2])

        return product


class _LinearGradient(Linearization):
    """The gradient's recorded pass: a push along it is a product."""

    def __init__(self, f: Callable[..., Any], xs: list[Any], data: Any, names: Sequence[str]) -> None:
        self.f, self.xs, self.names = f, xs, names
        with naming(f, xs, names):
            run = self.run = _Reverse(value_and_grad(f, tuple(range(len(xs)))), xs, False, RecordedLeaf)
        if run.nodes[0] is None:
            raise ValueError(
                "the loss does not depend on the parameters, so its Hessian is zero: compute it from the params that it is given; of a module give the module "
                "itself as params, or call nn.functional_call(model, params, x)"
            )
        self.nbytes, self.width = recorded_bytes(run.nodes, xs, data), footprint(run.nodes)
        self.loss = run.values[0]
        run.nodes, run.values = run.nodes[1:], run.values[1:]  # the gradient's, which alone are pushed

    def product(self, *vs: Any) -> list[Any]:
        """H v."""
        with naming(self.f, self.xs, self.names):
            return own_all(self.run.push(vs), vs)

    def value(self) -> Any:
        """Of the same pass."""
        return self.loss

    def gradient(self) -> list[Any]:
        """Of the same pass."""
        return self.run.values
