"""The optimizers and the schedules of ``gpugrad train``, by name, with the numbers that suit small networks."""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterable
from typing import Any

from gpugrad import optim
from gpugrad.cli.refusal import RefusalError
from gpugrad.optim import lr_scheduler

OPTIMIZERS: dict[str, tuple[str, float, dict[str, Any]]] = {  # the class, the learning rate that goes with it, options
    "adamw": ("AdamW", 3e-3, {}),
    "adam": ("Adam", 3e-3, {}),
    "nadam": ("NAdam", 2e-3, {}),
    "sgd": ("SGD", 0.1, {"momentum": 0.9}),
    "rmsprop": ("RMSprop", 1e-3, {}),
    "adagrad": ("Adagrad", 5e-2, {}),
    "adadelta": ("Adadelta", 1.0, {}),
    "lion": ("Lion", 1e-3, {}),
    "lbfgs": ("LBFGS", 1.0, {"line_search_fn": "strong_wolfe"}),
}
SCHEDULES = {
    "cosine": "falls to 0 along half a cosine",
    "none": "stays",
    "step": "a tenth of it after each third of the training",
    "exponential": "falls evenly to a hundredth",
    "onecycle": "from a 25th up in a third of the steps, then down to nothing",
    "plateau": "a third of it when the loss (of validation) gets no better",
    "warmup-cosine": "rises for a tenth of the epochs, then as cosine",
    "restarts": "three cosines, each twice as long as the one before",
}
WARMS_UP_ITSELF = ("onecycle", "plateau")  # or cannot follow a warm-up, as what it goes by is a loss and not a count


def check(args: argparse.Namespace) -> None:
    """Find out before the work whether the options go together.

    Raises:
        RefusalError: they do not.
    """
    if args.optimizer == "lbfgs":
        if args.weight_decay is not None:
            raise RefusalError("--weight-decay: L-BFGS has none; choose another --optimizer")
        if args.accumulate > 1 or args.dtype in ("float16", "bfloat16"):
            raise RefusalError("--optimizer lbfgs evaluates a batch several times: it goes with neither --accumulate nor 16 bits")
    if args.warmup and args.schedule in WARMS_UP_ITSELF:
        raise RefusalError(f"--warmup does not go with --schedule {args.schedule}")
    if args.warmup and args.warmup >= args.epochs:
        raise RefusalError(f"--warmup {args.warmup:g}: expected less than --epochs {args.epochs}")


def make_optimizer(params: Iterable[Any], args: argparse.Namespace) -> optim.Optimizer:
    """The optimizer that the options ask for."""
    name, rate, options = OPTIMIZERS[args.optimizer]
    if args.weight_decay is not None:
        options = {**options, "weight_decay": args.weight_decay}
    return getattr(optim, name)(params, lr=args.lr or rate, **options)


def make_schedule(optimizer: optim.Optimizer, args: argparse.Namespace, steps_per_epoch: int) -> tuple[Any, str]:
    """The schedule that the options ask for, or None, and how often it steps: every "step", or every "epoch"."""
    if args.schedule == "plateau":
        return lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.3, patience=max(args.epochs // 10, 2)), "epoch"
    epochs = args.warmup or (args.epochs / 10 if args.schedule == "warmup-cosine" else 0)
    total = args.epochs * steps_per_epoch
    warm = min(math.ceil(epochs * steps_per_epoch), total - 1)
    after = _after_warmup(optimizer, args.schedule, total - warm)
    if not warm:
        return after, "step"
    # From a factor of 0 the first step would be none.
    rise = lr_scheduler.LinearLR(optimizer, start_factor=1 / (warm + 1), end_factor=1.0, total_iters=warm)
    return (rise if after is None else lr_scheduler.SequentialLR(optimizer, [rise, after], milestones=[warm])), "step"


def _after_warmup(optimizer: optim.Optimizer, schedule: str, steps: int) -> Any:
    """What the learning rate does in the ``steps`` steps that are left."""
    rate = optimizer.param_groups[0]["lr"]
    if schedule in ("cosine", "warmup-cosine"):
        return lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps)
    if schedule == "step":
        return lr_scheduler.StepLR(optimizer, step_size=math.ceil(steps / 3), gamma=0.1)
    if schedule == "exponential":
        return lr_scheduler.ExponentialLR(optimizer, gamma=0.01 ** (1 / steps))
    if schedule == "onecycle":
        return lr_scheduler.OneCycleLR(optimizer, max_lr=rate, total_steps=steps, cycle_momentum=False)
    if schedule == "restarts":
        return lr_scheduler.CosineAnnealingWarmRestarts(optimizer, T_0=math.ceil(steps / 7), T_mult=2)  # 7 = 1 + 2 + 4: three cycles
    return None
