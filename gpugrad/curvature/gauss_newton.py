"""The generalized Gauss-Newton matrix of a model and a loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gpugrad import tree
from gpugrad.curvature.checks import checked_loss
from gpugrad.curvature.likelihoods import Curvature, recognised
from gpugrad.curvature.linearization import Linearization, recorded_bytes
from gpugrad.curvature.over_data import OverData
from gpugrad.curvature.parameters import Parameters
from gpugrad.curvature.sweep import Batch
from gpugrad.nn.module import Module
from gpugrad.ops.fit import shape_of
from gpugrad.tape import RecordedLeaf, footprint, plain
from gpugrad.transforms import _Reverse, linearize, own_all
from gpugrad.transforms import grad as gradient_of


class GaussNewtonOperator(OverData):
    """``G = J' H_L J``, with J the Jacobian of a model's outputs by its parameters and H_L the Hessian of the loss in the outputs: ``G @ v``.

    It is the Hessian without what the model's own second derivatives add, positive semi-definite for a loss that is convex in the outputs, and the Hessian itself
    for a model that is linear in its parameters. A product is one push forward and one pull back along one recorded pass.

    ::

        G = GaussNewtonOperator(model, nn.CrossEntropyLoss(), data=DataLoader(TensorDataset(x, y), 256))   # an nn.Module
        G = GaussNewtonOperator(lambda p, x: gg.tanh(x @ p["w"]), nn.MSELoss(), {"w": w}, [(x, y)])

    Args:
        model: ``model(params, inputs)``, or ``model(params)`` without data: an array, or a nest of them; or an :class:`gpugrad.nn.Module`, which is called with
            the inputs (a tuple of inputs as several arguments).
        loss: ``loss(outputs, target)``, or ``loss(outputs)`` without data. Of softmax cross entropy (with all its options), squared error and binary cross entropy
            with logits the Hessian H_L is taken in closed form; see :data:`gpugrad.curvature.likelihoods.KNOWN`. Of others it is the derivative of the gradient.
        params: any nest of arrays of floats; of a module None for all its parameters, or some of them by path. See :class:`HessianOperator`.
        data: an iterable of pairs (inputs, target), the same in every sweep; see :class:`gpugrad.curvature.sweep.Batches`.
        reduction: that of the loss over the rows of a batch; see :class:`HessianOperator`. The mean of a cross entropy with weights or ignored labels, which
            divides by the weights, is exact over batches as well.
        damping, count, memory, progress, check_finite, check_deterministic: see :class:`HessianOperator`; here what is kept are recorded passes of the model.

    Raises:
        TypeError, ValueError, RuntimeError: as :class:`HessianOperator` does; and for a loss whose own reduction is another one.

    Schraudolph, "Fast curvature matrix-vector products for second-order gradient descent" (2002).
    """

    def __init__(
        self,
        model: Any,
        loss: Any,
        params: Any = None,
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
        if params is None and not isinstance(model, Module):
            raise TypeError(f"params is None, which stands for the parameters of a module, but the model is {type(model).__name__}: give the parameters")
        if isinstance(loss, Module) and next(loss.parameters(), None) is not None:
            raise TypeError(
                f"the loss is a {type(loss).__name__} that has parameters: expected (model, loss, params, data), the loss a function of outputs and target"
            )
        self.model = model
        self.loss, self.likelihood = recognised(loss, reduction)
        super().__init__(
            Parameters(model if params is None else params, model if isinstance(model, Module) else None),
            data,
            reduction=reduction,
            damping=damping,
            count=count,
            memory=memory,
            progress=progress,
            check_finite=check_finite,
            check_deterministic=check_deterministic,
        )

    def _count(self, batch: Batch) -> float:
        if self.count is not None or self.likelihood is None or self.batches.data is None:
            return super()._count(batch)
        return self.likelihood.count(_pair(batch)[1])

    def _outputs(self, batch: Batch) -> Callable[..., Any]:
        """The model's outputs as a function of the active leaves."""
        if self.batches.data is None:
            return self.parameters.bind(_called if isinstance(self.model, Module) else self.model)
        inputs = _pair(batch)[0]
        if isinstance(self.model, Module):
            return self.parameters.bind(_called, *(inputs if isinstance(inputs, tuple) else (inputs,)))
        return self.parameters.bind(self.model, inputs)

    def _of_outputs(self, batch: Batch) -> Callable[..., Any]:
        """The loss as a function of the outputs."""
        target = () if self.batches.data is None else (_pair(batch)[1],)
        return lambda outputs: checked_loss(self.loss(outputs, *target))

    def _loss(self, batch: Batch) -> Callable[..., Any]:
        outputs, loss = self._outputs(batch), self._of_outputs(batch)
        return lambda *leaves: loss(outputs(*leaves))

    def _linearize(self, batch: Batch) -> Linearization:
        run = _Reverse(self._outputs(batch), self.parameters.values, False, RecordedLeaf)
        if all(node is None for node in run.nodes):
            raise ValueError(
                "the model's outputs do not depend on the parameters: compute them from the params that are given; a module goes as the model itself, with params=None"
            )
        z = tree.map_leaves(plain, run.y)
        return _PushAndPull(run, z, self._of_outputs(batch), self._in_outputs(z, batch), (self.parameters.values, batch.data))

    def _in_outputs(self, z: Any, batch: Batch) -> Curvature:
        """``u -> H_L u`` at the outputs z."""
        if self.likelihood is not None and self.batches.data is not None:
            return self.likelihood.hessian(z, _pair(batch)[1])
        return linearize(gradient_of(self._of_outputs(batch)), z)[1]


class _PushAndPull(Linearization):
    """J' M J of a recorded pass."""

    def __init__(self, run: _Reverse, z: Any, loss: Callable[..., Any], in_outputs: Curvature, others: Any) -> None:
        self.run, self.z, self.loss, self.in_outputs = run, z, loss, in_outputs
        self.nbytes, self.width = recorded_bytes(run.nodes, others), footprint(run.nodes)

    def product(self, *vs: Any) -> list[Any]:
        """J' (M (J v))."""
        pushed = tree.unflatten(self.run.structure, self.run.push(vs))
        return list(self.run.pull(self._cotangents(self.in_outputs(pushed))))

    def value(self) -> Any:
        """L."""
        return self.loss(self.z)

    def gradient(self) -> list[Any]:
        """J' L'."""
        return list(self.run.pull(self._cotangents(gradient_of(self.loss)(self.z))))

    def _cotangents(self, nest: Any) -> list[Any]:
        return own_all(tree.flatten(nest)[0])


def _called(module: Module, *inputs: Any) -> Any:
    return module(*inputs)


def _pair(batch: Batch) -> tuple[Any, Any]:
    """(inputs, target)."""
    if not isinstance(batch.data, (tuple, list)) or len(batch.data) != 2:
        got = f"{len(batch.data)} parts" if isinstance(batch.data, (tuple, list)) else type(batch.data).__name__
        raise ValueError(f"batch {batch.number} is {got}, expected a pair (inputs, target); several inputs go as a tuple, ((x1, x2), y)")
    return batch.data[0], batch.data[1]


def first_axis(z: Any, batch: Batch) -> int:
    """The number of examples that the outputs z are of, which is that of the batch's rows.

    Raises:
        ValueError: it is not.
    """
    if not hasattr(z, "shape") or not shape_of(z) or shape_of(z)[0] != batch.rows:
        got = f"shape {shape_of(z)}" if hasattr(z, "shape") else type(z).__name__
        raise ValueError(f"the model's outputs are of {got}, expected an array with an example of the batch in each of {batch.rows} rows")
    return batch.rows
