"""Learning rates that change while one trains, with PyTorch's names and defaults.

A schedule is a function of the number t of its steps, and of nothing that was computed on the way: a rate that is stepped to, loaded, or reached after a
million steps has the same bits. (:class:`ReduceLROnPlateau` is one of how often the metric stood still.) So a schedule's state is a few numbers.

The *base* of a group is what its rate was when the first schedule was made for it, kept as ``initial_lr`` in the group, as PyTorch does. Rates are written
into the optimizer when a schedule is made, stepped and loaded; a rate that is an array of no axes or a Tensor is written into where it lies, without waiting for
the device, and is what a recorded step reads. A change made by hand to a group's ``lr`` lasts until the next step: to change the scale, set ``initial_lr``.
"""

from __future__ import annotations

from gpugrad.optim.lr_scheduler.base import LRScheduler
from gpugrad.optim.lr_scheduler.curves import CosineAnnealingLR, CosineAnnealingWarmRestarts, LinearLR, PolynomialLR
from gpugrad.optim.lr_scheduler.factors import ConstantLR, ExponentialLR, LambdaLR, MultiStepLR, StepLR
from gpugrad.optim.lr_scheduler.one_cycle import OneCycleLR
from gpugrad.optim.lr_scheduler.plateau import ReduceLROnPlateau
from gpugrad.optim.lr_scheduler.several import ChainedScheduler, SequentialLR

__all__ = [
    "ChainedScheduler", "ConstantLR", "CosineAnnealingLR", "CosineAnnealingWarmRestarts", "ExponentialLR", "LRScheduler", "LambdaLR", "LinearLR",
    "MultiStepLR", "OneCycleLR", "PolynomialLR", "ReduceLROnPlateau", "SequentialLR", "StepLR",
]  # fmt: skip
