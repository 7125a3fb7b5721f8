"""Data to learn from: datasets, splits, batches, and sets that come with other packages."""

from gpugrad.data.dataset import Dataset, Subset, TensorDataset
from gpugrad.data.digits import load_digits
from gpugrad.data.loader import DataLoader, minibatches
from gpugrad.data.splits import random_split, stratified_split

__all__ = ["DataLoader", "Dataset", "Subset", "TensorDataset", "load_digits", "minibatches", "random_split", "stratified_split"]
