"""Curvature matrices of losses, known by their products: Hessian, Gauss-Newton and Fisher operators over data sets.

>>> H = curvature.HessianOperator(loss, params, batches)
>>> H @ v                                     # flat, columns, or a nest like the parameters
>>> scipy.sparse.linalg.eigsh(H.to_scipy(), k=5)
"""

from gpugrad.curvature.fisher import FisherOperator
from gpugrad.curvature.gauss_newton import GaussNewtonOperator
from gpugrad.curvature.hessian import HessianOperator
from gpugrad.curvature.inverse import Inverse
from gpugrad.curvature.objective import Objective, objective
from gpugrad.curvature.operator import Operator

__all__ = ["FisherOperator", "GaussNewtonOperator", "HessianOperator", "Inverse", "Objective", "Operator", "objective"]
