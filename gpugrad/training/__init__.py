"""Training: a loop that can be read, callbacks, checkpoints from which training continues bit for bit, logs, metrics and pictures."""

from gpugrad.training import metrics
from gpugrad.training.callbacks import EarlyStopping, GradientNorms
from gpugrad.training.checkpoint import CheckpointError, latest_checkpoint, load_checkpoint, read_checkpoint, save_checkpoint
from gpugrad.training.evaluation import evaluate, predict
from gpugrad.training.history import History
from gpugrad.training.logs import JsonLog, Progress, TensorBoardLog
from gpugrad.training.loop import fit
from gpugrad.training.plot import plot_history
from gpugrad.training.run import Callback, Run, TrainingError

__all__ = [
    "Callback", "CheckpointError", "EarlyStopping", "GradientNorms", "History", "JsonLog", "Progress", "Run", "TensorBoardLog", "TrainingError",
    "evaluate", "fit", "latest_checkpoint", "load_checkpoint", "metrics", "plot_history", "predict", "read_checkpoint", "save_checkpoint",
]  # fmt: skip
