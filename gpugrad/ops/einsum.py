"""Einstein sums."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpugrad.ops.rules import Sample, general
from gpugrad.tape import Op


def _vjp(needs: Any, g: Any, _y: Any, *operands: Any, subscripts: str) -> list[Any]:
    inputs, output = subscripts.split("->")
    terms = inputs.split(",")
    rest = lambda i: [k for k in range(len(terms)) if k != i]  # noqa: E731
    return [einsum(",".join([output, *(terms[k] for k in rest(i))]) + "->" + terms[i], g, *(operands[k] for k in rest(i))) if need else None for i, need in enumerate(needs)]


_einsum: Op = general("einsum", lambda *operands, subscripts: np.einsum(subscripts, *operands, optimize=True), _vjp, None, samples=[Sample((2, 3), (3, 4), subscripts="ab,bc->ac")])


def einsum(subscripts: str, *operands: Any, optimize: Any = True) -> Any:
    """The sum of products that ``subscripts`` says; see :func:`numpy.einsum`."""
    return _einsum(*operands, subscripts=subscripts)
