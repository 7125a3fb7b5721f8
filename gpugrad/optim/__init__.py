"""Optimizers, with PyTorch's names, defaults and formulas."""

from gpugrad.optim import lr_scheduler
from gpugrad.optim.adadelta import Adadelta
from gpugrad.optim.adagrad import Adagrad
from gpugrad.optim.adam import Adam, AdamW
from gpugrad.optim.averaging import ExponentialMovingAverage
from gpugrad.optim.clip import clip_grad_value_
from gpugrad.optim.hessian_free import HessianFree
from gpugrad.optim.lbfgs import LBFGS
from gpugrad.optim.lion import Lion
from gpugrad.optim.nadam import NAdam
from gpugrad.optim.newton_cg import NewtonCG
from gpugrad.optim.norm import clip_grad_norm_
from gpugrad.optim.optimizer import Optimizer
from gpugrad.optim.rmsprop import RMSprop
from gpugrad.optim.sgd import SGD

__all__ = [
    "LBFGS",
    "SGD",
    "Adadelta",
    "Adagrad",
    "Adam",
    "AdamW",
    "ExponentialMovingAverage",
    "HessianFree",
    "Lion",
    "NAdam",
    "NewtonCG",
    "Optimizer",
    "RMSprop",
    "clip_grad_norm_",
    "clip_grad_value_",
    "lr_scheduler",
]
