"""The commands and their options."""

from __future__ import annotations

import argparse
from typing import Any, NoReturn

import gpugrad
from gpugrad.cli import arguments, check, evaluate, info, predict, train
from gpugrad.cli.model_file import NORMS
from gpugrad.cli.recipes import OPTIMIZERS, SCHEDULES
from gpugrad.nn.layers import ACTIVATIONS

TRAIN = """Train a multilayer perceptron on a file, save it, and print how well it does on rows that it has not seen.
Without --data it learns the handwritten digits that scikit-learn ships."""

EXAMPLES = """examples:
  gpugrad train
  gpugrad train --data iris.csv --target species --layers 16 --epochs 50
  gpugrad train --data houses.csv --target price --validation 0.1 --early-stopping 10 --plot run.png
  gpugrad train --data mnist/ --device cuda --dtype bfloat16 --batch-size 256 --checkpoint run/
  gpugrad train --data mnist/ --device cuda --dtype bfloat16 --batch-size 256 --checkpoint run/ --resume
"""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


class _Help(argparse.RawDescriptionHelpFormatter):
    """Help that states the default of every option that has one to state."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        stated = action.default in (None, "", False, argparse.SUPPRESS) or "default" in (action.help or "")
        return action.help if stated or not action.option_strings else f"{action.help} (default: %(default)s)"


def make_parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    parser = _Parser(prog="gpugrad", description="Derivatives for NumPy and CuPy arrays.", allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"gpugrad {gpugrad.__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    t = commands.add_parser("train", help="train a network on a file", description=TRAIN, epilog=EXAMPLES, formatter_class=_Help, allow_abbrev=False)
    _data(t)
    _network(t)
    _optimization(t)
    _saving(t)
    t.set_defaults(command=train.train)

    p = commands.add_parser("predict", help="what a trained network says about a file", formatter_class=_Help, allow_abbrev=False)
    p.description = "Predictions for every row of a file: classes with their probabilities, or numbers in the units that the network was trained on."
    _model_and_data(p)
    p.add_argument("--output", metavar="FILE", help="a .csv or .npz file for them (default: CSV on the standard output)")
    p.set_defaults(command=predict.predict)

    e = commands.add_parser("evaluate", help="how well a trained network does on a file", formatter_class=_Help, allow_abbrev=False)
    e.description = "Compare with the target column of a file: confusion matrix and scores of every class, or RMSE, mean absolute error and R2."
    _model_and_data(e)
    e.set_defaults(command=evaluate.evaluate)

    i = commands.add_parser("info", help="versions, devices and what is missing", allow_abbrev=False)
    i.set_defaults(command=info.info)

    c = commands.add_parser("check", help="whether the kernels give the right numbers on this machine", allow_abbrev=False)
    c.description = "Run every kernel and every operation everywhere this machine can, and compare with float64. The exit code is 1 where results are wrong."
    c.add_argument("--only", default="", metavar="TEXT", help="only what has this in its name")
    c.add_argument("--kernels", action="store_true", help="the kernels, and not the operations")
    c.set_defaults(command=check.check)
    return parser


def _data(t: argparse.ArgumentParser) -> None:
    g = t.add_argument_group("data")
    g.add_argument("--data", metavar="FILE", help=".csv, .csv.gz, .npz, or a folder of MNIST's IDX files (default: the digits)")
    g.add_argument("--target", metavar="COLUMN", help="what is to be learned (default: a column called target, label, class or y, or else the last one)")
    g.add_argument("--ignore", type=arguments.names, default=[], metavar="COLUMN,...", help="columns to leave out, such as numbers of rows")
    g.add_argument("--task", choices=["auto", "classification", "regression"], default="auto", help="auto: text and few different whole numbers are classes")
    g.add_argument("--test", type=arguments.fraction, default=0.2, metavar="FRACTION", help="share of the rows that is only for the final score")
    g.add_argument("--validation", type=arguments.fraction, default=0.0, metavar="FRACTION", help="share that is looked at after every epoch (default: 0)")


def _network(t: argparse.ArgumentParser) -> None:
    g = t.add_argument_group("network")
    g.add_argument("--layers", type=arguments.layers, default="256,128", metavar="N,N,...", help="numbers of hidden units; '' for none")
    g.add_argument("--activation", choices=list(ACTIVATIONS), default="relu", help="between the layers")
    g.add_argument("--norm", choices=[n or "none" for n in NORMS], default="none", help="normalisation before every activation")
    g.add_argument("--dropout", type=arguments.fraction, default=0.0, metavar="P", help="share of hidden units that a step leaves out (default: 0)")
    g.add_argument("--residual", action="store_true", help="add its input to every layer that is as wide as the one before")
    g.add_argument("--dtype", choices=["float32", "float64", "float16", "bfloat16"], default="float32", help="16 bits: of products; weights keep 32")
    g.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")


def _optimization(t: argparse.ArgumentParser) -> None:
    g = t.add_argument_group("optimization")
    g.add_argument("--epochs", type=arguments.positive(int), default=30, metavar="N", help="passes over the training rows")
    g.add_argument("--batch-size", type=arguments.positive(int), metavar="N", help="rows per step (default: 32; all of them for lbfgs)")
    g.add_argument("--accumulate", type=arguments.positive(int), default=1, metavar="N", help="batches whose gradients make up one step")
    g.add_argument("--optimizer", choices=list(OPTIMIZERS), default="adamw", help="how the weights are updated")
    g.add_argument("--lr", type=arguments.positive(float), metavar="RATE", help="learning rate at its highest (default: the optimizer's own)")
    g.add_argument("--schedule", choices=SCHEDULES, default="cosine", help="what the learning rate does over the epochs")
    g.add_argument("--warmup", type=arguments.not_negative(float), metavar="EPOCHS", help="let the learning rate rise first, for this long (default: 0)")
    g.add_argument("--weight-decay", type=arguments.not_negative(float), metavar="D", help="pull of the weights to 0 (default: the optimizer's own)")
    g.add_argument("--clip", type=arguments.positive(float), metavar="NORM", help="largest norm of all gradients together")
    g.add_argument("--label-smoothing", type=arguments.fraction, metavar="S", help="share of labels spread over all classes (default: 0; digits: 0.1)")
    g.add_argument("--ema", type=arguments.fraction, metavar="DECAY", help="keep the moving average of the weights, such as 0.999, instead of the last")
    g.add_argument("--early-stopping", type=arguments.positive(int), metavar="EPOCHS", help="stop when validation gets no better for this long, keep the best")
    g.add_argument("--seed", type=arguments.not_negative(int), default=0, metavar="N", help="of split, starting weights, order and dropout (default: 0)")


def _saving(t: argparse.ArgumentParser) -> None:
    g = t.add_argument_group("files and reports")
    g.add_argument("--output", metavar="FILE", help="where the model goes (default: digits.safetensors, or the data's name with this ending)")
    g.add_argument("--checkpoint", metavar="DIR", help="keep the state of training in this folder")
    g.add_argument("--checkpoint-every", type=arguments.positive(int), default=1, metavar="N", help="after every N epochs")
    g.add_argument("--resume", action="store_true", help="go on from the last checkpoint, bit for bit as if never stopped")
    g.add_argument("--plot", metavar="FILE.png", help="curves of loss, accuracy and the gradient norm of every layer")
    g.add_argument("--log", metavar="FILE.jsonl", help="a line of JSON for every epoch")
    g.add_argument("--tensorboard", metavar="DIR", help="event files for TensorBoard")


def _model_and_data(parser: argparse.ArgumentParser, **options: Any) -> None:
    parser.add_argument("model", metavar="MODEL", help="a file that gpugrad train saved")
    parser.add_argument("--data", required=True, metavar="FILE", help=".csv, .csv.gz, .npz, or a folder of MNIST's IDX files; columns go by their names")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
