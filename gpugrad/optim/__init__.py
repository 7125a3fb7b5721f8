"""Optimizers, with PyTorch's names, defaults and formulas."""

from gpugrad.optim import lr_scheduler
from gpugrad.optim.adam import Adam, AdamW
from gpugrad.optim.optimizer import Optimizer, clip_grad_norm_
from gpugrad.optim.sgd import SGD

__all__ = ["SGD", "Adam", "AdamW", "Optimizer", "clip_grad_norm_", "lr_scheduler"]
