"""Products of a cotangent, in one pass: with a mask (``where``, the derivatives of maxima, minima, clip and relu), with a slope, and with anything so that a zero wins.

Written with ``np.where`` each of them is several passes, and where a mask is as good as random ``np.where`` waits for mispredicted branches; here nothing branches.

What stands beside the first array may be an array of its dtype, of its shape or one that broadcasts to it, or a number, which is what these are nearly always
called with. All else that NumPy would broadcast or promote is the references'.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from gpugrad.backend import is_array, namespace
from gpugrad.cuda.loader import Source
from gpugrad.kernels.kernel import Kernel

SOURCE = Source("masks.cu")
TWO_SIDED = ("maximum", "minimum", "fmax", "fmin")
FORMULAS = ("positive", "within", *TWO_SIDED, "strong_multiply", "strong_divide", "mutual_multiply", "tanh", "square", "reciprocal", "sqrt")
CODES = {name: code for code, name in enumerate(FORMULAS)}  # as in masks.cu


# ---------------------------------------------------------------------------------- references


def beside(number: Any, array: Any) -> Any:
    """A Python number does not widen bfloat16 either, which NumPy does not know."""
    return array.dtype.type(number) if type(number) in (int, float) and getattr(array, "dtype", np.dtype(float)).kind == "V" else number


def _select(x: Any, other: Any, mask: Any, *, inverted: bool = False) -> Any:
    """``x`` where ``mask``, elsewhere ``other``; the other way round if ``inverted``."""
    first, second = (beside(other, x), x) if inverted else (x, beside(other, x))
    return namespace(x).where(mask, first, second)


def _parts(d: Any, mask: Any) -> tuple[Any, Any]:
    """``d`` where ``mask``, else 0, and the rest of d."""
    return _select(d, 0.0, mask), _select(d, 0.0, mask, inverted=True)


def _positive(d: Any, y: Any) -> Any:
    """``d`` where y is positive or nan, else 0."""
    return _select(d, 0.0, np.less_equal(y, 0), inverted=True)


def _within(d: Any, x: Any, low: Any, high: Any) -> Any:
    """``d`` where x is in [low, high] or nan, else 0."""
    return _select(d, 0.0, np.less(x, low) | np.greater(x, high), inverted=True)


def _share(d: Any, a: Any, b: Any, *, of: str) -> Any:
    """The derivative of maximum, minimum, fmax or fmin (a, b) by a, times d: all of d where a was chosen, half where they tie, and all of it where the result is nan."""
    loses = (np.less if of.endswith("max") or of == "maximum" else np.greater)(a, b)
    if of in ("fmax", "fmin"):
        loses = loses | (np.isnan(a) & ~np.isnan(b))
    return namespace(d).where(np.equal(a, b), d * beside(0.5, d), _select(d, 0.0, loses, inverted=True))


def _shares(d: Any, a: Any, b: Any, *, of: str) -> tuple[Any, Any]:
    """The derivatives by both, times d."""
    return _share(d, a, b, of=of), _share(d, b, a, of=of)


def _strong(f: Callable[[Any, Any], Any], mutual: bool = False) -> Callable[[Any, Any], Any]:
    def g(d: Any, p: Any) -> Any:
        with np.errstate(all="ignore"):
            product, xp = f(d, p), namespace(d)
            if xp is np and np.isfinite(np.add.reduce(product, axis=None)):
                return product  # nothing to repair, found at a third of a pass; on a GPU the question would cost a synchronisation
            zero = np.equal(d, 0) | np.equal(p, 0) if mutual else np.equal(d, 0)
            return namespace(product).where(zero, namespace(product).zeros((), product.dtype), product)

    return g


_SLOPES: dict[str, Callable[[Any, Any], Any]] = {
    "tanh": lambda d, s: d * ((1 - s) * (1 + s)),
    "square": lambda d, s: d * (s + s),
    "reciprocal": lambda d, s: np.negative(strong_product.reference(strong_product.reference(d, s), s)),
    "sqrt": lambda d, s: strong_quotient.reference(d, s + s),
}


def _slope(d: Any, s: Any, *, of: str) -> Any:
    """``d f'``, where the slope of f is told from s, which is x for f(x) = x^2 and y = f(x) for the others: tanh, 1/x and the square root. Of the last two a zero d wins."""
    return _SLOPES[of](d, s)


# ---------------------------------------------------------------------------------- what the kernels read


def is_mask(mask: Any, x: Any) -> bool:
    """Whether these are an array of booleans and another array of its shape, or of one that it broadcasts to."""
    return is_array(mask) and type(mask) is type(x) and mask.dtype == bool and broadcasts(mask.shape, x.shape)


def in_full(x: Any, shape: tuple[int, ...]) -> Any:
    """All elements, in C order."""
    return (x if x.shape == shape else namespace(x).broadcast_to(x, shape)).ravel()


def operands(d: Any, *others: Any, vector: Callable[[Any, tuple[int, ...]], Any] = in_full) -> list[Any] | None:
    """Arrays as vectors, and numbers of the dtype of d; None where there is anything else. A broadcast number, as the cotangent of a sum is, is that number."""
    found = []
    for x in (d, *others):
        if type(x) in (int, float, d.dtype.type):
            found.append(d.dtype.type(x))
        elif not is_array(x) or x.dtype != d.dtype or not x.dtype.isnative:
            return None
        elif namespace(x) is np and x.size and not any(x.strides):
            found.append(x[(0,) * x.ndim])
        elif x.shape == d.shape or (
            x.size < d.size and broadcasts(x.shape, d.shape)
        ):  # a row or a column: laid out in full it costs a pass, the reference costs ten
            found.append(vector(x, d.shape))
        else:
            return None
    return found


def broadcasts(shape: tuple[int, ...], to: tuple[int, ...]) -> bool:
    return len(shape) <= len(to) and all(n in (1, m) for n, m in zip(shape[::-1], to[::-1], strict=False))


def _launch(what: str, d: Any, others: tuple[Any, ...], outputs: int = 1) -> list[Any] | None:
    """The results of the CUDA kernel, new arrays; None where it cannot take its arguments."""
    read = operands(d, *others)
    if read is None:
        return None
    ys = [namespace(d).empty(d.shape, d.dtype) for _ in range(outputs)]
    arrays = [x if is_array(x) else None for x in read] + [None] * (4 - len(read))
    numbers = [0.0 if is_array(x) else float(x) for x in read] + [0.0] * (4 - len(read))
    _start("masked", d, *arrays, *ys, *[None] * (2 - outputs), d.size, *numbers, CODES[what])
    return ys


def _start(entry: str, d: Any, *args: Any) -> None:
    SOURCE.launch(entry, d.dtype, min(-(-d.size // 1024), 1 << 20), 256, *args)


def _cuda_select(x: Any, other: Any, mask: Any, *, inverted: bool = False) -> Any:
    read = operands(x, other)
    if read is None or not is_mask(mask, x):
        return _select(x, other, mask, inverted=inverted)
    y = namespace(x).empty(x.shape, x.dtype)
    arrays, numbers = zip(*((v, 0.0) if is_array(v) else (None, float(v)) for v in read), strict=True)
    _start("select", x, *arrays, in_full(mask, x.shape), y, None, x.size, *numbers, int(inverted))
    return y


def _cuda_parts(d: Any, mask: Any) -> tuple[Any, Any]:
    read = operands(d)
    if read is None or not is_mask(mask, d):
        return _parts(d, mask)
    y, z = (namespace(d).empty(d.shape, d.dtype) for _ in range(2))
    x, number = (read[0], 0.0) if is_array(read[0]) else (None, float(read[0]))
    _start("select", d, x, None, in_full(mask, d.shape), y, z, d.size, number, 0.0, 0)
    return y, z


def _cuda_share(d: Any, a: Any, b: Any, *, of: str) -> Any:
    ys = _launch(of, d, (a, b))
    return _share(d, a, b, of=of) if ys is None else ys[0]


def _cuda_shares(d: Any, a: Any, b: Any, *, of: str) -> tuple[Any, Any]:
    ys = _launch(of, d, (a, b), 2)
    return _shares(d, a, b, of=of) if ys is None else (ys[0], ys[1])


def _cuda_slope(d: Any, s: Any, *, of: str) -> Any:
    ys = _launch(of, d, (s,))
    return _slope(d, s, of=of) if ys is None else ys[0]


def _cuda(what: str, reference: Callable[..., Any]) -> Callable[..., Any]:
    def launch(d: Any, *others: Any) -> Any:
        ys = _launch(what, d, others)
        return reference(d, *others) if ys is None else ys[0]

    return launch


# ---------------------------------------------------------------------------------- kernels

_SHAPES = ((), (1,), (0,), (7, 43), (2, 3, 5), (4099,), (4100,))
Samples = list[tuple[tuple[Any, ...], dict[str, Any]]]


def _numbers(rng: np.random.Generator, shape: tuple[int, ...], dtype: Any) -> Any:
    """A few values only, so that there are ties, zeros and bounds, and in larger arrays nan and infinities."""
    x = rng.integers(-6, 7, shape) / 4
    return np.asarray(np.where(rng.random(shape) < 0.02, rng.choice([math.nan, math.inf, -math.inf], shape), x) if x.size > 100 else x, dtype)


def _samples(*kinds: str, **params: Any) -> Callable[[np.random.Generator, Any], Samples]:
    """Arguments of these kinds: an array "x", a "row" or "column" of one, a "mask", a row "few" of one, a constant "d" that is broadcast, or a number."""

    def samples(rng: np.random.Generator, dtype: Any) -> Samples:
        make = {
            "x": lambda shape: _numbers(rng, shape, dtype),
            "mask": lambda shape: np.asarray(rng.random(shape) < 0.5),
            "few": lambda shape: np.asarray(rng.random(shape[-1:]) < 0.5),
            "row": lambda shape: _numbers(rng, shape[-1:], dtype),
            "column": lambda shape: _numbers(rng, (*shape[:-1], 1) if shape else (), dtype),
            "d": lambda shape: np.broadcast_to(_numbers(rng, (), dtype), shape),
        }
        return [(tuple(make[k](shape) if k in make else float(k) for k in kind.split()), params) for kind in kinds for shape in _SHAPES]

    return samples


def _together(*makers: Callable[[np.random.Generator, Any], Samples]) -> Callable[[np.random.Generator, Any], Samples]:
    return lambda rng, dtype: [sample for make in makers for sample in make(rng, dtype)]


_LIKE = [_samples("x x x", "x x 0.25", "d x x", "d x 0.25", "x x row", "x column x", of=of) for of in TWO_SIDED]
_SELECT = [_samples("x x mask", "x -0.5 mask", "x row mask", "x x few", "x column few", inverted=inverted) for inverted in (False, True)]

select = Kernel("select", _select, cpu="masks_cpu:select", cuda=_cuda_select, samples=_together(*_SELECT))
parts = Kernel("parts", _parts, cpu="masks_cpu:parts", cuda=_cuda_parts, samples=_samples("x mask", "d mask", "x few"))
positive = Kernel("positive", _positive, cpu="masks_cpu:positive", cuda=_cuda("positive", _positive), samples=_samples("x x", "d x"))
within = Kernel("within", _within, cpu="masks_cpu:within", cuda=_cuda("within", _within), samples=_samples("x x -0.5 0.75", "d x -0.5 0.75", "x x x x"))
share = Kernel("share", _share, cpu="masks_cpu:share", cuda=_cuda_share, samples=_together(*_LIKE))
shares = Kernel("shares", _shares, cpu="masks_cpu:shares", cuda=_cuda_shares, samples=_together(*_LIKE))
strong_product, strong_quotient, mutual_product = (
    Kernel(name, reference, cpu=f"masks_cpu:{name}", cuda=_cuda(what, reference), samples=_samples("x x", "x inf", "d x"))
    for name, what, reference in (
        ("strong_product", "strong_multiply", _strong(np.multiply)),
        ("strong_quotient", "strong_divide", _strong(np.divide)),
        ("mutual_product", "mutual_multiply", _strong(np.multiply, mutual=True)),
    )
)
slope_product = Kernel(
    "slope_product", _slope, cpu="masks_cpu:slope_product", cuda=_cuda_slope, samples=_together(*[_samples("x x", "d x", of=of) for of in _SLOPES])
)
