"""Layers and losses as functions. Losses take ``reduction="mean" | "sum" | "none"``."""

from __future__ import annotations

from gpugrad.nn.loss_functions import (
    bce_loss,
    bce_with_logits,
    binary_cross_entropy,
    binary_cross_entropy_with_logits,
    cross_entropy,
    gaussian_nll_loss,
    huber_loss,
    kl_div,
    l1_loss,
    mse_loss,
    nll_loss,
    poisson_nll_loss,
    smooth_l1_loss,
)  # fmt: skip
from gpugrad.nn.margin_losses import cosine_embedding_loss, cosine_similarity, hinge_loss, multi_margin_loss, multiclass_hinge_loss, soft_margin_loss
from gpugrad.ops.activations import elu, gelu, hardtanh, leaky_relu, log_sigmoid, logsigmoid, relu, relu6, selu, sigmoid, silu, softplus
from gpugrad.ops.dropout import dropout
from gpugrad.ops.elementwise import tanh
from gpugrad.ops.linear import linear
from gpugrad.ops.normalise import batch_norm, layer_norm, rms_norm
from gpugrad.ops.softmax import log_softmax, softmax
from gpugrad.ops.table import bilinear, embedding, one_hot

__all__ = [
    "batch_norm", "bce_loss", "bce_with_logits", "bilinear", "binary_cross_entropy", "binary_cross_entropy_with_logits", "cosine_embedding_loss",
    "cosine_similarity", "cross_entropy", "dropout", "elu", "embedding", "gaussian_nll_loss", "gelu", "hardtanh", "hinge_loss", "huber_loss", "kl_div",
    "l1_loss", "layer_norm", "leaky_relu", "linear", "log_sigmoid", "log_softmax", "logsigmoid", "mse_loss", "multi_margin_loss", "multiclass_hinge_loss",
    "nll_loss", "one_hot", "poisson_nll_loss", "relu", "relu6", "rms_norm", "selu", "sigmoid", "silu", "smooth_l1_loss", "soft_margin_loss", "softmax", "softplus", "tanh",
]  # fmt: skip
