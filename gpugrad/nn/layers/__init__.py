"""Layers: :mod:`~gpugrad.nn.layers.linear`, :mod:`~gpugrad.nn.layers.activations`, :mod:`~gpugrad.nn.layers.normalisation` and
:mod:`~gpugrad.nn.layers.containers`, which puts them together."""

from gpugrad.nn.layers.activations import (
    ACTIVATIONS,
    ELU,
    GELU,
    SELU,
    LeakyReLU,
    LogSoftmax,
    ReLU,
    Sigmoid,
    SiLU,
    Softmax,
    Softplus,
    Tanh,
    activation_named,
)
from gpugrad.nn.layers.containers import MLP, NORMS, Flatten, Identity, Residual, Sequential
from gpugrad.nn.layers.linear import Bilinear, Embedding, Linear
from gpugrad.nn.layers.normalisation import BatchNorm1d, Dropout, LayerNorm, RMSNorm

__all__ = [
    "ACTIVATIONS", "ELU", "GELU", "MLP", "NORMS", "SELU", "BatchNorm1d", "Bilinear", "Dropout", "Embedding", "Flatten", "Identity", "LayerNorm", "LeakyReLU",
    "Linear", "LogSoftmax", "RMSNorm", "ReLU", "Residual", "Sequential", "SiLU", "Sigmoid", "Softmax", "Softplus", "Tanh", "activation_named",
]  # fmt: skip
