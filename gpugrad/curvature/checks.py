"""What is asked of losses, and of products."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from gpugrad import backend, random, tape
from gpugrad.curvature.linearization import Linearization
from gpugrad.curvature.sweep import Batch
from gpugrad.ops.fit import dtype_of, shape_of
from gpugrad.tape import plain

if TYPE_CHECKING:
    from gpugrad.curvature.operator import Operator
    from gpugrad.curvature.over_data import OverData


def check_arguments(loss: Callable[..., Any], with_data: bool) -> None:
    """Raise where the loss has a place for a batch and there is no data, or the other way round.

    Raises:
        TypeError: so it is.
    """
    takes_params, takes_both = _takes(loss, 1), _takes(loss, 2)
    if with_data and takes_params and not takes_both:
        raise TypeError("the loss takes params alone, but there is data: write it as a function of (params, batch)")
    if not with_data and takes_both and not takes_params:
        raise TypeError("the loss takes (params, batch), but there is no data: give an iterable of batches, as in data=[(x, y)]")


def _takes(f: Callable[..., Any], count: int) -> bool:
    """Whether it can be called with so many arguments, as far as its signature is known."""
    try:
        inspect.signature(f).bind(*[None] * count)
    except TypeError:
        return False
    except ValueError:
        return True
    return True


def check_repeatable(operator: OverData) -> None:
    """Raise unless loss and product are the same, to the last bit, when they are computed twice, and leave no trace.

    Raises:
        RuntimeError: the loss draws random numbers, writes into arrays, or gives another value or product the second time.
    """
    vs = _probe(operator)
    state, written = random.default_generator.state_dict(), tape.last_write
    first = _once(operator, vs)
    if random.default_generator.state_dict() != state:
        raise RuntimeError(
            "the loss draws random numbers (dropout, sampling), so that no two products are of one matrix: call model.eval(), or draw them beforehand"
        )
    if tape.last_write != written and not operator.parameters.running():  # into copies of its running statistics a module may write
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
        losses.append(plain(linear.value()))
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
    if not (hasattr(plain(y), "dtype") or isinstance(y, (int, float))) or shape_of(y) != () or dtype_of(y).kind == "c":
        got = f"an array of shape {shape_of(y)}, {dtype_of(y)}" if hasattr(plain(y), "dtype") else type(y).__name__
        raise TypeError(f"the loss returned {got}, expected one real number: reduce it by gg.mean (or gg.sum, with reduction='sum')")
    return y


def check_finite(operator: Operator, product: list[Any], vs: list[Any]) -> None:
    """Raise where a product has nan or inf in it.

    Raises:
        FloatingPointError: naming the parameters in whose part it is, or that it was in the vector already.
    """
    with np.errstate(all="ignore"):
        if np.isfinite(sum(plain(x).sum() for x in product)):  # one look, for which the host waits once; a sum of finite numbers may overflow
            return
    bad = [name for name, x in zip(operator.range.names, product, strict=True) if not _is_finite(x)]
    if not bad:
        return
    given = [name for name, v in zip(operator.domain.names, vs, strict=True) if not _is_finite(v)]
    if given:
        raise FloatingPointError(f"the vector has nan or inf in its part for {', '.join(given)}")
    raise FloatingPointError(
        f"the product has nan or inf in its part for {', '.join(bad)}, though the vector is finite: a second derivative is not finite at these parameters, or "
        "overflows. Look for a square root, logarithm or division at 0 there; gg.detect_anomaly() names operations, check_finite=False lets it pass"
    )


def _is_finite(x: Any) -> bool:
    return bool(np.isfinite(plain(x)).all())
