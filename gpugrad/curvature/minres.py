"""The method of minimal residuals, for symmetric matrices that are not positive definite."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from gpugrad.curvature.solve import dot


class MinresIterate(NamedTuple):
    """Where MINRES stands: x, and the norm of its residual (in the preconditioner's norm, ``sqrt(r' M^-1 r)``)."""

    x: Any
    residual_norm: float


def minimal_residuals(product: Callable[[Any], Any], b: Any, precondition: Callable[[Any], Any] | None = None) -> Iterator[MinresIterate]:
    """The iterates of MINRES for ``A x = b``, A symmetric, one after each product; when to stop is the caller's to say.

    Each x has the smallest residual in the span of b, A b, A^2 b, ..., whether or not A is definite; of a singular A with b in its range it is a solution. Paige and
    Saunders, "Solution of sparse indefinite systems of linear equations" (1975): the Lanczos process, and the tridiagonal matrix's QR factorisation by rotations.

    Args:
        product: A p.
        b: a vector.
        precondition: the inverse of M, symmetric positive definite, times a vector.

    Inner products are of float64 and wait for the device.
    """
    solve = (lambda r: r) if precondition is None else precondition
    number = b.dtype.type
    x = w = before_w = b * 0
    r, before_r = b, b * 0
    z = solve(r)
    beta = math.sqrt(max(0.0, float(dot(r, z))))
    phi, before_beta, delta, epsilon, c, s, square = beta, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0
    while beta > 0 and phi > 0:
        v = z * number(1 / beta)
        u = product(v)
        if before_beta:
            u = u - number(beta / before_beta) * before_r
        alpha = float(dot(v, u))
        before_r, r = r, u - number(alpha / beta) * r
        z = solve(r)
        before_beta, beta = beta, math.sqrt(max(0.0, float(dot(r, z))))
        rho_, gamma_ = c * delta + s * alpha, s * delta - c * alpha  # the last rotation on the new column of the tridiagonal matrix
        before_epsilon, epsilon, delta = epsilon, s * beta, -c * beta
        gamma = math.hypot(gamma_, beta)
        square += alpha**2 + beta**2 + before_beta**2  # of the norm of the tridiagonal matrix
        if not math.hypot(gamma_, delta) > float(np.finfo(b.dtype).eps) ** 0.7 * math.sqrt(square):
            return  # |A r| is as small beside |A| |r| as rounding lets it be: b lies outside the range of A, and no x makes the residual smaller
        c, s = gamma_ / gamma, beta / gamma
        w, before_w = (v - number(before_epsilon) * before_w - number(rho_) * w) * number(1 / gamma), w
        x, phi = x + number(c * phi) * w, s * phi
        yield MinresIterate(x, abs(phi))
