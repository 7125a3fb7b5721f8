"""Optimizers' updates of many arrays at once, and the norm of many arrays together. What they share, and how one is declared, is in ``lists.py``."""

from __future__ import annotations

from typing import Any, Unpack

import numpy as np

from gpugrad import backend
from gpugrad.cuda.loader import Source
from gpugrad.kernels.kernel import Kernel
from gpugrad.kernels.lists import PIECE, Arrays, Common, Number, Tables, Update, in_place, number

source = Source("optimizers.cu", "lists.cuh")


# ------------------------------------------------------------------------------------------------- the specification


def _sgd(
    params: Arrays,
    grads: Arrays,
    buffers: Arrays | None = None,
    *,
    lr: Number,
    momentum: float = 0.0,
    keep: float = 1.0,
    nesterov: bool = False,
    **common: Unpack[Common],
) -> None:
    """Gradient descent, along the buffers if there are any::

    b = momentum b + keep g            keep = 1 - dampening; in the first step b = 0 and keep = 1
    g = g + momentum b if nesterov else b
    p = p - lr g
    """
    lr = number(lr)

    def update(p: Any, g: Any, b: Any) -> Any:
        if b is not None:
            b = momentum * b + keep * g
            g = g + momentum * b if nesterov else b
        return p - lr * g, b

    in_place(update, (params, grads, buffers), lr, **common)


def _adam(
    params: Arrays,
    grads: Arrays,
    exp_avgs: Arrays,
    exp_avg_sqs: Arrays,
    max_exp_avg_sqs: Arrays | None = None,
    *,
    lr: Number,
    step: Number,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
    **common: Unpack[Common],
) -> None:
    """Adam (AdamW if ``decoupled``), in step ``step``, which counts from 1::

    m = beta1 m + (1 - beta1) g
    v = beta2 v + (1 - beta2) g^2
    w = max(w, v)                      if there are max_exp_avg_sqs (AMSGrad), else w = v
    p = p - lr (m / (1 - beta1^step)) / (sqrt(w / (1 - beta2^step)) + eps)
    """
    lr, step = number(lr), number(step)
    rate, root = lr / (1 - beta1**step), (1 - beta2**step) ** -0.5

    def update(p: Any, g: Any, m: Any, v: Any, w: Any) -> Any:
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g * g
        w = v if w is None else np.maximum(w, v)
        return p - rate * (m / (np.sqrt(w) * root + eps)), m, v, w

    in_place(update, (params, grads, exp_avgs, exp_avg_sqs, max_exp_avg_sqs), lr, **common)


def _nadam(
    params: Arrays,
    grads: Arrays,
    exp_avgs: Arrays,
    exp_avg_sqs: Arrays,
    *,
    lr: Number,
    step: Number,
    mu_product: Number,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
    momentum_decay: float = 4e-3,
    **common: Unpack[Common],
) -> None:
    """Adam with Nesterov's momentum, whose coefficient grows. ``mu_product`` is that of mu(1) to mu(step)::

    mu(t) = beta1 (1 - 0.96^(t momentum_decay) / 2)
    m = beta1 m + (1 - beta1) g
    v = beta2 v + (1 - beta2) g^2
    p = p - lr (mu(step + 1) m / (1 - mu_product mu(step + 1)) + (1 - mu(step)) g / (1 - mu_product)) / (sqrt(v / (1 - beta2^step)) + eps)
    """
    lr, step, product = number(lr), number(step), number(mu_product)
    mu, next_mu = (nadam_momentum(t, beta1, momentum_decay) for t in (step, step + 1))
    of_g, of_m, root = lr * (1 - mu) / (1 - product), lr * next_mu / (1 - product * next_mu), (1 - beta2**step) ** -0.5

    def update(p: Any, g: Any, m: Any, v: Any) -> Any:
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g * g
        return p - (of_m * m + of_g * g) / (np.sqrt(v) * root + eps), m, v

    in_place(update, (params, grads, exp_avgs, exp_avg_sqs), lr, **common)


def nadam_momentum(step: Number, beta1: float, momentum_decay: float) -> Any:
    """The coefficient ``mu`` of a step of NAdam."""
    return beta1 * (1 - 0.5 * 0.96 ** (step * momentum_decay))


def _rmsprop(
    params: Arrays,
    grads: Arrays,
    square_avgs: Arrays,
    grad_avgs: Arrays | None = None,
    buffers: Arrays | None = None,
    *,
    lr: Number,
    alpha: float = 0.99,
    eps: float = 1e-8,
    momentum: float = 0.0,
    **common: Unpack[Common],
) -> None:
    """The gradient over the root of the average of its squares, or of its variance where there are ``grad_avgs``; along the buffers if there are any::

    v = alpha v + (1 - alpha) g^2
    m = alpha m + (1 - alpha) g
    w = max(0, v - m^2)                if there are grad_avgs, else w = v; rounding makes v - m^2 negative where g hardly changes
    d = g / (sqrt(w) + eps)
    b = d = momentum b + d
    p = p - lr d
    """
    lr = number(lr)

    def update(p: Any, g: Any, v: Any, m: Any, b: Any) -> Any:
        w = v = alpha * v + (1 - alpha) * g * g
        if m is not None:
            m = alpha * m + (1 - alpha) * g
            w = np.maximum(v - m * m, 0)
        d = g / (np.sqrt(w) + eps)
        if b is not None:
            d = b = momentum * b + d
        return p - lr * d, v, m, b

    in_place(update, (params, grads, square_avgs, grad_avgs, buffers), lr, **common)


def _adagrad(
    params: Arrays, grads: Arrays, sums: Arrays, *, lr: Number, step: Number, lr_decay: float = 0.0, eps: float = 1e-10, **common: Unpack[Common]
) -> None:
    """The gradient over the root of the sum of all its squares so far, in step ``step``, which counts from 1::

    r = lr / (1 + (step - 1) lr_decay)                which is the learning rate of decoupled weight decay too
    s = s + g^2
    p = p - r g / (sqrt(s) + eps)
    """
    rate = number(lr) / (1 + (number(step) - 1) * lr_decay)

    def update(p: Any, g: Any, s: Any) -> Any:
        s = s + g * g
        return p - rate * (g / (np.sqrt(s) + eps)), s

    in_place(update, (params, grads, sums), rate, **common)


def _adadelta(
    params: Arrays, grads: Arrays, square_avgs: Arrays, acc_deltas: Arrays, *, lr: Number, rho: float = 0.9, eps: float = 1e-6, **common: Unpack[Common]
) -> None:
    """Steps as large as the last ones were, relative to the gradients::

    v = rho v + (1 - rho) g^2
    d = sqrt(u + eps) / sqrt(v + eps) g
    u = rho u + (1 - rho) d^2
    p = p - lr d
    """
    lr = number(lr)

    def update(p: Any, g: Any, v: Any, u: Any) -> Any:
        v = rho * v + (1 - rho) * g * g
        d = np.sqrt(u + eps) / np.sqrt(v + eps) * g
        u = rho * u + (1 - rho) * d * d
        return p - lr * d, v, u

    in_place(update, (params, grads, square_avgs, acc_deltas), lr, **common)


def _lion(params: Arrays, grads: Arrays, exp_avgs: Arrays, *, lr: Number, beta1: float = 0.9, beta2: float = 0.99, **common: Unpack[Common]) -> None:
    """Steps of ``lr`` in every coordinate, by the sign of an average; that of 0 is 0, that of nan is nan::

    p = p - lr sign(beta1 m + (1 - beta1) g)
    m = beta2 m + (1 - beta2) g
    """
    lr = number(lr)

    def update(p: Any, g: Any, m: Any) -> Any:
        return p - lr * np.sign(beta1 * m + (1 - beta1) * g), beta2 * m + (1 - beta2) * g

    in_place(update, (params, grads, exp_avgs), lr, **common)


def _grad_norm(grads: Arrays) -> Any:
    """``sqrt(sum |g|^2)`` over all elements of all arrays: an array of no axes, float64 so that the squares of float32's largest numbers do not overflow."""
    squares = [np.sum(np.square(g.astype(np.float64))) for g in grads]
    return backend.namespace(grads[0]).asarray(np.sqrt(sum(squares[1:], squares[0])))


def _grad_norm_cuda(grads: Arrays) -> Any:
    t = Tables((grads,))
    partials, norm = t.xp.empty(t.count, np.float64), t.xp.empty((), np.float64)
    t.launch(source, "squares", partials)
    source.launch("norm_of_squares", t.dtype, 1, 256, partials, t.count, norm)
    return norm


# ------------------------------------------------------------------------------------------------- what the twins are compared on

_SIZES = ((), (0,), (3, 1), (31,), (8, 32), (4097,), (2, PIECE))
_DRAWN = {
    "any": lambda rng, shape: rng.normal(size=shape),
    "square": lambda rng, shape: rng.uniform(0.1, 1.0, shape),
    "small": lambda rng, shape: rng.uniform(-0.3, 0.3, shape),  # an average whose square is less than that of the squares
}
_CLIPPED = {"weight_decay": 0.1, "decoupled": True, "maximize": True, "norm": 4.0, "max_norm": 0.5}


def _drawn(rng: np.random.Generator, dtype: Any, *remembered: str | None) -> tuple[Any, ...]:
    """Parameters, gradients and what is remembered of them."""
    return tuple([None if k is None else [np.asarray(_DRAWN[k](rng, shape)).astype(dtype) for shape in _SIZES] for k in ("any", "any", *remembered)])


def _sgd_samples(rng: np.random.Generator, dtype: Any) -> Any:
    heavy = {"lr": 0.1, "momentum": 0.9, "keep": 0.7, "weight_decay": 0.1}
    plain = [(_drawn(rng, dtype, None), options) for options in ({"lr": 0.1}, {"lr": 0.1, **_CLIPPED})]
    return plain + [(_drawn(rng, dtype, "any"), o) for o in (heavy, {**heavy, "nesterov": True, "norm": 0.1, "max_norm": 0.5}, {**heavy, **_CLIPPED})]


def _adam_samples(rng: np.random.Generator, dtype: Any) -> Any:
    options = {"lr": 0.1, "beta1": 0.8, "beta2": 0.9, "eps": 1e-3, "weight_decay": 0.1, "step": 3}
    amsgrad = [(_drawn(rng, dtype, "any", "square", "square"), o) for o in ({**options, **_CLIPPED}, {"lr": 0.1, "step": 1})]
    return [(_drawn(rng, dtype, "any", "square", None), options), *amsgrad]


def _nadam_samples(rng: np.random.Generator, dtype: Any) -> Any:
    options = {"lr": 0.1, "beta1": 0.8, "beta2": 0.9, "eps": 1e-3, "momentum_decay": 0.1, "weight_decay": 0.1, "step": 3, "mu_product": 0.1}
    first = {"lr": 0.1, "step": 1, "mu_product": nadam_momentum(1, 0.9, 4e-3)}
    return [(_drawn(rng, dtype, "any", "square"), o) for o in (options, {**options, **_CLIPPED}, first)]


def _rmsprop_samples(rng: np.random.Generator, dtype: Any) -> Any:
    options = {"lr": 0.1, "alpha": 0.9, "eps": 1e-3, "momentum": 0.9, "weight_decay": 0.1}
    plain, centered, heavy, both = [("square", m, b) for b in (None, "any") for m in (None, "small")]
    cases = [(plain, {"lr": 0.1}), (centered, options), (heavy, options), (both, {**options, **_CLIPPED})]
    return [(_drawn(rng, dtype, *remembered), o) for remembered, o in cases]


def _adagrad_samples(rng: np.random.Generator, dtype: Any) -> Any:
    options = {"lr": 0.1, "step": 3, "lr_decay": 0.5, "weight_decay": 0.1}
    return [(_drawn(rng, dtype, "square"), o) for o in (options, {**options, **_CLIPPED}, {"lr": 0.1, "step": 1})]


def _adadelta_samples(rng: np.random.Generator, dtype: Any) -> Any:
    options = {"lr": 0.1, "rho": 0.8, "eps": 1e-3, "weight_decay": 0.1}
    return [(_drawn(rng, dtype, "square", "square"), o) for o in (options, {**options, **_CLIPPED}, {"lr": 1.0})]


def _lion_samples(rng: np.random.Generator, dtype: Any) -> Any:
    return [(_drawn(rng, dtype, "any"), o) for o in ({"lr": 0.1, "weight_decay": 0.1}, {"lr": 0.1, "beta1": 0.8, "beta2": 0.9, **_CLIPPED})]


def _norm_samples(rng: np.random.Generator, dtype: Any) -> Any:
    grads = _drawn(rng, dtype)[1]
    return [((grads,), {}), ((grads[1:2],), {})]


# ------------------------------------------------------------------------------------------------- the kernels

sgd = Update("sgd", _sgd, source, samples=_sgd_samples)
adam = Update("adam", _adam, source, samples=_adam_samples)
nadam = Update("nadam", _nadam, source, samples=_nadam_samples)
rmsprop = Update("rmsprop", _rmsprop, source, samples=_rmsprop_samples)
adagrad = Update("adagrad", _adagrad, source, samples=_adagrad_samples)
adadelta = Update("adadelta", _adadelta, source, samples=_adadelta_samples)
lion = Update("lion", _lion, source, samples=_lion_samples)
grad_norm = Kernel("grad_norm", _grad_norm, cpu="optimizers_cpu:grad_norm", cuda=_grad_norm_cuda, samples=_norm_samples)
