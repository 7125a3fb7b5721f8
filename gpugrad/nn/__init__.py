"""Neural networks: modules hold parameters, :mod:`gpugrad.nn.functional` has the functions, :mod:`gpugrad.nn.init` the starting values."""

from gpugrad.nn import functional, init
from gpugrad.nn.layers import (
    ELU,
    GELU,
    MLP,
    SELU,
    BatchNorm1d,
    Bilinear,
    Dropout,
    Embedding,
    Flatten,
    Identity,
    LayerNorm,
    LeakyReLU,
    Linear,
    LogSoftmax,
    ReLU,
    Residual,
    RMSNorm,
    Sequential,
    Sigmoid,
    SiLU,
    Softmax,
    Softplus,
    Tanh,
)  # fmt: skip
from gpugrad.nn.losses import (
    BCELoss,
    BCEWithLogitsLoss,
    CosineEmbeddingLoss,
    CosineSimilarity,
    CrossEntropyLoss,
    GaussianNLLLoss,
    HingeLoss,
    HuberLoss,
    KLDivLoss,
    L1Loss,
    MSELoss,
    MulticlassHingeLoss,
    MultiMarginLoss,
    NLLLoss,
    PoissonNLLLoss,
    SmoothL1Loss,
    SoftMarginLoss,
)  # fmt: skip
from gpugrad.nn.module import Module, Parameter, ShapeError, functional_call

__all__ = [
    "ELU", "GELU", "MLP", "SELU", "BCELoss", "BCEWithLogitsLoss", "BatchNorm1d", "Bilinear", "CosineEmbeddingLoss", "CosineSimilarity", "CrossEntropyLoss",
    "Dropout", "Embedding", "Flatten", "GaussianNLLLoss", "HingeLoss", "HuberLoss", "Identity", "KLDivLoss", "L1Loss", "LayerNorm", "LeakyReLU", "Linear",
    "LogSoftmax", "MSELoss", "Module", "MultiMarginLoss", "MulticlassHingeLoss", "NLLLoss", "Parameter", "PoissonNLLLoss", "RMSNorm", "ReLU", "Residual",
    "Sequential", "ShapeError", "SiLU", "Sigmoid", "SmoothL1Loss", "SoftMarginLoss", "Softmax", "Softplus", "Tanh", "functional", "functional_call", "init",
]  # fmt: skip
