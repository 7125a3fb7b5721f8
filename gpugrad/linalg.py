"""Linear algebra, under NumPy's names: ``gg.linalg.norm(x)``. See :mod:`numpy.linalg`; the operations are in gpugrad/ops/linalg.py."""

from gpugrad.ops.linalg import (
    cholesky,
    cross,
    det,
    inv,
    matmul,
    matrix_norm,
    matrix_power,
    multi_dot,
    norm,
    outer,
    slogdet,
    solve,
    tensordot,
    trace,
    vecdot,
    vector_norm,
)
from gpugrad.ops.shape import diagonal, matrix_transpose

__all__ = [
    "cholesky", "cross", "det", "diagonal", "inv", "matmul", "matrix_norm", "matrix_power", "matrix_transpose", "multi_dot", "norm", "outer", "slogdet",
    "solve", "tensordot", "trace", "vecdot", "vector_norm",
]  # fmt: skip
