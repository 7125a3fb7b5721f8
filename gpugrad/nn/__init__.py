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
from gpugrad.nn.location import ShapeError
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
from gpugrad.nn.module import Module, Parameter
from gpugrad.nn.stateless import functional_call
from gpugrad.nn.unused import check_parameters_used, unused_parameters

__all__ = [
    "ELU", "GELU", "MLP", "SELU", "BCELoss", "BCEWithLogitsLoss", "BatchNorm1d", "Bilinear", "CosineEmbeddingLoss", "CosineSimilarity", "CrossEntropyLoss",
    "Dropout", "Embedding", "Flatten", "GaussianNLLLoss", "HingeLoss", "HuberLoss", "Identity", "KLDivLoss", "L1Loss", "LayerNorm", "LeakyReLU", "Linear",
    "LogSoftmax", "MSELoss", "Module", "MultiMarginLoss", "MulticlassHingeLoss", "NLLLoss", "Parameter", "PoissonNLLLoss", "RMSNorm", "ReLU", "Residual",
    "Sequential", "ShapeError", "SiLU", "Sigmoid", "SmoothL1Loss", "SoftMarginLoss", "Softmax", "Softplus", "Tanh", "check_parameters_used", "functional",
    "functional_call", "init", "unused_parameters",
]  # fmt: skip
