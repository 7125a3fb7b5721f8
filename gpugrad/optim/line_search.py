"""Line searches: for the strong Wolfe conditions, and for a loss that falls enough."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

Along = Callable[[float], tuple[float, Any, float]]

DECREASE, CURVATURE = 1e-4, 0.9  # c1 and c2


class Point(NamedTuple):
    """The length t of the step, and there the loss, its gradient (a vector) and its slope along the line."""

    t: float
    loss: float
    gradient: Any
    slope: float

    def is_finite(self) -> bool:
        return math.isfinite(self.loss) and math.isfinite(self.slope)


def strong_wolfe(
    along: Along, t: float, loss: float, gradient: Any, slope: float, *, tolerance: float = 1e-9, max_evaluations: int = 25
) -> tuple[float, float, Any]:
    """A length t > 0 at which the loss f(t) along a line has fallen enough and is flat enough, with ``c1 = 1e-4`` and ``c2 = 0.9``::

        f(t) <= f(0) + c1 t f'(0)      |f'(t)| <= c2 |f'(0)|

    Algorithms 3.5 and 3.6 of Nocedal and Wright, "Numerical optimization" (2006): lengthen t until an interval must hold such a point, and then shrink the
    interval by cubic interpolation. A point at which the loss or the slope is nan or infinite counts as one that is too far.

    Args:
        along: f(t), the gradient and f'(t).
        t: where to begin, positive.
        loss, gradient, slope: those at 0; the slope is negative.
        tolerance: the interval below which to stop.
        max_evaluations: after so many the best point is taken.

    Returns:
        (t, loss, gradient). t is 0 if the loss is nowhere smaller; if the conditions could not be fulfilled the point is that of the smallest loss among those
        that have fallen enough.
    """
    origin = Point(0.0, loss, gradient, slope)
    enough = lambda p: p.is_finite() and p.loss <= loss + DECREASE * p.t * slope
    flat = lambda p: abs(p.slope) <= -CURVATURE * slope
    low, evaluations = origin, 0
    while evaluations < max_evaluations:  # algorithm 3.5
        p = Point(t, *along(t))
        evaluations += 1
        if not enough(p) or (evaluations > 1 and p.loss >= low.loss):
            high = p
            break
        if flat(p):
            return p.t, p.loss, p.gradient
        if p.slope >= 0:
            low, high = p, low
            break
        low, t = p, _beyond(low, p)
    else:
        return low.t, low.loss, low.gradient
    while evaluations < max_evaluations and abs(high.t - low.t) > tolerance:  # algorithm 3.6
        p = Point(t := _between(low, high), *along(t))
        evaluations += 1
        if not enough(p) or p.loss >= low.loss:
            high = p
            continue
        if flat(p):
            return p.t, p.loss, p.gradient
        if p.slope * (high.t - low.t) >= 0:
            high = low
        low = p
    return low.t, low.loss, low.gradient


def armijo(along: Callable[[float], float], t: float, loss: float, slope: float, *, ratio: float = 0.8, max_evaluations: int = 60) -> tuple[float, float]:
    """The first of ``t, ratio t, ratio^2 t, ...`` at which the loss f(t) along a line has fallen enough, ``f(t) <= f(0) + c t f'(0)`` with ``c = 1e-2``.

    Of the gradient nothing is needed but the slope at 0 (L. Armijo 1966; Nocedal and Wright, algorithm 3.1). Returns (t, loss); t is 0 if there is none.
    """
    for _ in range(max_evaluations):
        new = along(t)
        if new <= loss + 1e-2 * t * slope and math.isfinite(new):
            return t, new
        t *= ratio
    return 0.0, loss


def _minimum(a: Point, b: Point) -> float:
    """Where the cubic through two points with their slopes is smallest (equation 3.59); nan where it has no minimum."""
    d1 = a.slope + b.slope - 3 * (a.loss - b.loss) / (a.t - b.t)
    square = d1 * d1 - a.slope * b.slope
    if not square >= 0:
        return math.nan
    d2 = math.copysign(math.sqrt(square), b.t - a.t)
    bottom = b.slope - a.slope + 2 * d2
    return b.t - (b.t - a.t) * (b.slope + d2 - d1) / bottom if bottom else math.nan


def _beyond(a: Point, b: Point) -> float:
    """The next length to try, from 1.01 to 10 times as far."""
    t, low, high = _minimum(a, b), b.t + 0.01 * (b.t - a.t), 10 * b.t
    return min(max(t, low), high) if math.isfinite(t) else high


def _between(low: Point, high: Point) -> float:
    """A length within the interval and not at its ends: half-way where there is no cubic with a minimum, or the loss at an end is no number."""
    t, margin = _minimum(low, high), 0.1 * abs(high.t - low.t)
    left, right = min(low.t, high.t) + margin, max(low.t, high.t) - margin
    return min(max(t, left), right) if math.isfinite(t) else (low.t + high.t) / 2
