"""The commands and their options."""

from __future__ import annotations

import argparse
import functools
from typing import Any, NoReturn

import gpugrad
from gpugrad.cli import arguments, check, evaluate, info, predict, train
from gpugrad.cli.model_file import NORMS
from gpugrad.cli.recipes import OPTIMIZERS, SCHEDULES
from gpugrad.nn.layers import ACTIVATIONS

TRAIN = """Train a multilayer perceptron on a file, save it, and print how well it does on
rows that it has not seen. Without --data it learns the handwritten digits that
scikit-learn ships."""
PREDICT = """Predictions for every row of a file: classes with their probabilities, or
numbers in the units that the network was trained on."""
EVALUATE = """Compare predictions with the target column of a file: confusion matrix and
scores of every class; or RMSE, mean absolute error and R2."""
CHECK = """Run every kernel and every operation everywhere this machine can, and compare
with float64. The exit code is 1 where results are wrong."""

SCHEDULE_LINES = "\n".join(f"  {name:<14} {what}" for name, what in SCHEDULES.items())
FILES = ".csv, .csv.gz, .npz, or a folder with the IDX files of MNIST"
EPILOG = f"""schedules of the learning rate:
{SCHEDULE_LINES}

examples:
  gpugrad train
  gpugrad train --data iris.csv --target species --layers 16 --epochs 100 --lr 0.02
  gpugrad train --data houses.csv --validation 0.1 --early-stopping 10 \\
                --plot houses.png
  gpugrad train --data mnist/ --device cuda --dtype bfloat16 --checkpoint run/
                (and the same with --resume, should it be interrupted)

exit codes: 0 done, 1 failed on the way, 2 options or files that cannot be used,
130 interrupted
"""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


class _Help(argparse.RawDescriptionHelpFormatter):
    """Help that states the default of every option that has one to state."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        stated = action.default in (None, "", False, [], argparse.SUPPRESS) or "default" in (action.help or "") or not action.option_strings
        return action.help if stated else f"{action.help} (default: %(default)s)"


def make_parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    parser = _Parser(prog="gpugrad", description="Derivatives for NumPy and CuPy arrays.", allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"gpugrad {gpugrad.__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    add = functools.partial(commands.add_parser, formatter_class=_Help, allow_abbrev=False)

    t = add("train", help="train a network on a file", usage="gpugrad train [--data FILE] [options]", description=TRAIN, epilog=EPILOG)
    for options in (_data, _network, _optimization, _regularization, _saving):
        options(t)
    t.set_defaults(command=train.train)

    p = add("predict", help="what a trained network says about a file", description=PREDICT)
    _model_and_data(p)
    p.add_argument("--output", metavar="FILE", help="a .csv or .npz file for them (default: CSV on the standard output)")
    p.set_defaults(command=predict.predict)

    e = add("evaluate", help="how well a trained network does on a file", description=EVALUATE)
    _model_and_data(e)
    e.set_defaults(command=evaluate.evaluate)

    i = add("info", help="versions, devices and what is missing")
    i.set_defaults(command=info.info)

    c = add("check", help="whether the kernels give the right numbers on this machine", description=CHECK)
    c.add_argument("--only", default="", metavar="TEXT", help="only what has this in its name")
    c.add_argument("--kernels", action="store_true", help="the kernels, and not the operations")
    c.set_defaults(command=check.check)
    return parser


def _data(t: argparse.ArgumentParser) -> None:
    g = t.add_argument_group("data")
    g.add_argument("--data", metavar="FILE", help=FILES + " (default: the digits)")
    g.add_argument("--target", metavar="COLUMN", help="what is to be learned (default: a column called target, label, class or y, or else the last one)")
    g.add_argument("--ignore", type=arguments.names, default=[], metavar="COLUMN,...", help="columns to leave out, such as numbers of rows")
    g.add_argument("--task", choices=["auto", "classification", "regression"], default="auto", help="auto: text and few different whole numbers are classes")
    g.add_argument("--test", type=arguments.fraction, default=0.2, metavar="FRACTION", help="share of the rows that is only for the final score")
    g.add_argument("--validation", type=arguments.fraction, default=0.0, metavar="FRACTION", help="share that is looked at after every epoch (default: 0)")


def _network(t: argparse.ArgumentParser) -> None:
    g = t.add_argument_group("network")
    g.add_argument("--layers", type=arguments.layers, default="256,128", metavar="N,N,...", help="numbers of hidden units; '' for none")
    _choice(g, "--activation", list(ACTIVATIONS), "relu", "between the layers")
    _choice(g, "--norm", [n or "none" for n in NORMS], "none", "normalisation before every activation")
    g.add_argument("--residual", action="store_true", help="add its input to the output of every hidden layer as wide as the one before")
    _choice(g, "--dtype", ["float32", "float64", "float16", "bfloat16"], "float32", "with 16 bits, of products; the weights keep 32")
    g.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")


def _optimization(t: argparse.ArgumentParser) -> None:
    g = t.add_argument_group("optimization")
    g.add_argument("--epochs", type=arguments.positive(int), default=30, metavar="N", help="passes over the training rows")
    g.add_argument("--batch-size", type=arguments.positive(int), metavar="N", help="rows per step (default: 32; all of them for lbfgs)")
    g.add_argument("--accumulate", type=arguments.positive(int), default=1, metavar="N", help="batches whose gradients make up one step")
    _choice(g, "--optimizer", list(OPTIMIZERS), "adamw", "how the weights are updated")
    usual = ", ".join(f"{name} {rate:g}" for name, (_, rate, _) in OPTIMIZERS.items())
    g.add_argument("--lr", type=arguments.positive(float), metavar="RATE", help=f"learning rate at its highest (default: {usual})")
    _choice(g, "--schedule", list(SCHEDULES), "cosine", "what the learning rate does; they are listed below", listed=False)
    g.add_argument("--warmup", type=arguments.not_negative(float), metavar="EPOCHS", help="let the learning rate rise first, for this long (default: 0)")
    g.add_argument("--clip", type=arguments.positive(float), metavar="NORM", help="largest norm of all gradients together")
    g.add_argument("--seed", type=arguments.not_negative(int), default=0, metavar="N", help="of split, starting weights, order and dropout (default: 0)")


def _regularization(t: argparse.ArgumentParser) -> None:
    g = t.add_argument_group("regularization")
    g.add_argument("--dropout", type=arguments.fraction, default=0.0, metavar="P", help="share of hidden units that a step leaves out (default: 0)")
    g.add_argument("--weight-decay", type=arguments.not_negative(float), metavar="D", help="pull of the weights to 0 (default: adamw 0.01, others 0)")
    g.add_argument("--label-smoothing", type=arguments.fraction, metavar="S", help="share of labels spread over all classes (default: 0; digits: 0.1)")
    g.add_argument("--ema", type=arguments.fraction, metavar="DECAY", help="end with the moving average of the weights; 0.999 is usual")
    g.add_argument("--early-stopping", type=arguments.positive(int), metavar="EPOCHS", help="stop when validation gets no better for this long, keep the best")


def _saving(t: argparse.ArgumentParser) -> None:
    g = t.add_argument_group("files and reports")
    g.add_argument("--output", metavar="FILE", help="where the model goes (default: digits.safetensors, or the data's name with this ending)")
    g.add_argument("--checkpoint", metavar="DIR", help="keep the state of training in this folder")
    g.add_argument("--checkpoint-every", type=arguments.positive(int), default=1, metavar="N", help="after every N epochs")
    g.add_argument("--resume", action="store_true", help="go on from the last checkpoint, bit for bit as if never stopped")
    g.add_argument("--plot", metavar="FILE.png", help="curves of loss, accuracy and the gradient norm of every layer")
    g.add_argument("--log", metavar="FILE.jsonl", help="a line of JSON for every epoch")
    g.add_argument("--tensorboard", metavar="DIR", help="event files for TensorBoard")


def _model_and_data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="a file that gpugrad train saved")
    parser.add_argument("--data", required=True, metavar="FILE", help=FILES + "; columns go by their names")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")


def _choice(group: Any, option: str, choices: list[str], default: str, text: str, listed: bool = True) -> None:
    """An option whose choices stand in its help text, where they can be wrapped."""
    group.add_argument(option, choices=choices, default=default, metavar="NAME", help=f"{text}: {', '.join(choices)}" if listed else text)
