"""Operators as SciPy's and CuPy's LinearOperator."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpugrad import backend
from gpugrad.curvature.operator import Operator
from gpugrad.ops.fit import is_half


def to_scipy(operator: Operator, dtype: Any = None) -> Any:
    """A :class:`scipy.sparse.linalg.LinearOperator` of NumPy vectors: (N,), (N, 1) and (N, K), with a dtype of its own, so that none is guessed.

    An operator on a GPU takes them there and brings the products back.

    Args:
        dtype: that of the products, by default the operator's (float32 for 16-bit floats, which SciPy does not know).

    Raises:
        ImportError: there is no SciPy.
    """
    try:
        from scipy.sparse.linalg import LinearOperator
    except ImportError as error:
        raise ImportError(f"to_scipy needs SciPy, which cannot be imported ({error}): pip install 'gpugrad[scipy]'") from None
    dtype = np.dtype(dtype) if dtype is not None else np.dtype(np.float32) if is_half(operator.dtype) else operator.dtype

    def face(product: Any, domain: Any) -> Any:
        def call(v: Any) -> Any:
            v = np.asarray(v)
            if v.dtype.kind == "c":  # a real matrix has products with complex vectors, for which SciPy's solvers ask
                return call(v.real) + 1j * call(v.imag)
            v = v if v.dtype == domain.dtype else v.astype(domain.dtype)
            return backend.to_device(product(backend.asarray(v, device=operator.device)), "cpu").astype(dtype, copy=False)

        return call

    forward, backward = face(operator.__matmul__, operator.domain), face(operator.T.__matmul__, operator.range)
    return LinearOperator(operator.shape, matvec=forward, rmatvec=backward, matmat=forward, rmatmat=backward, dtype=dtype)


def to_cupyx(operator: Operator) -> Any:
    """A ``cupyx.scipy.sparse.linalg.LinearOperator`` of CuPy vectors, which stay on their GPU: for its cg, minres, gmres, eigsh, svds, lobpcg.

    Raises:
        gpugrad.DeviceError: the operator is not on a GPU.
        ImportError: there is no CuPy.
    """
    if operator.device == "cpu":
        raise backend.DeviceError(
            "to_cupyx needs an operator on a GPU, this one is on cpu: move the parameters and the data with .to('cuda'), or use to_scipy()"
        )
    from cupyx.scipy.sparse.linalg import LinearOperator

    forward, backward = operator.__matmul__, operator.T.__matmul__
    return LinearOperator(operator.shape, matvec=forward, rmatvec=backward, matmat=forward, rmatmat=backward, dtype=operator.dtype)
