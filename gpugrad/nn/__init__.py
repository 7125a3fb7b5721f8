"""Neural networks: modules hold parameters, :mod:`gpugrad.nn.functional` has the functions, :mod:`gpugrad.nn.init` the starting values."""

from gpugrad.nn import functional, init
from gpugrad.nn.layers import ELU, GELU, MLP, Identity, LeakyReLU, Linear, ReLU, Sequential, Sigmoid, SiLU, Softplus, Tanh
from gpugrad.nn.losses import BCELoss, BCEWithLogitsLoss, CrossEntropyLoss, MSELoss
from gpugrad.nn.module import Module, Parameter, functional_call

__all__ = [
    "ELU", "GELU", "MLP", "BCELoss", "BCEWithLogitsLoss", "CrossEntropyLoss", "Identity", "LeakyReLU", "Linear", "MSELoss", "Module", "Parameter", "ReLU",
    "Sequential", "SiLU", "Sigmoid", "Softplus", "Tanh", "functional", "functional_call", "init",
]  # fmt: skip
