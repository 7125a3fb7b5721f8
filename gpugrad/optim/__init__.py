"""Optimizers, with PyTorch's names, defaults and formulas."""

from gpugrad.optim import lr_scheduler
from gpugrad.optim.adam import Adam, AdamW
from gpugrad.optim.averaging import ExponentialMovingAverage
from gpugrad.optim.clip import clip_grad_value_
from gpugrad.optim.optimizer import Optimizer, clip_grad_norm_
from gpugrad.optim.sgd import SGD

__all__ = ["SGD", "Adam", "AdamW", "ExponentialMovingAverage", "Optimizer", "clip_grad_norm_", "clip_grad_value_", "lr_scheduler"]
