"""Data to learn from: files, datasets, splits, batches, and sets that come with other packages."""

from gpugrad.data.arrays import load_mnist, read_idx, read_npz
from gpugrad.data.dataset import Dataset, Subset, TensorDataset
from gpugrad.data.digits import load_digits
from gpugrad.data.files import DataError
from gpugrad.data.loader import DataLoader, minibatches
from gpugrad.data.splits import random_split, stratified_split
from gpugrad.data.standardize import Standardizer
from gpugrad.data.tables import Table, csv_columns, read_csv

__all__ = [
    "DataError",
    "DataLoader",
    "Dataset",
    "Standardizer",
    "Subset",
    "Table",
    "TensorDataset",
    "csv_columns",
    "load_digits",
    "load_mnist",
    "minibatches",
    "random_split",
    "read_csv",
    "read_idx",
    "read_npz",
    "stratified_split",
]
