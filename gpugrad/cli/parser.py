"""The commands and their options."""

from __future__ import annotations

import argparse
from typing import NoReturn

import gpugrad
from gpugrad.cli import arguments, check, info, train
from gpugrad.nn.layers import ACTIVATIONS


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def make_parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    parser = _Parser(prog="gpugrad", description="Derivatives for NumPy and CuPy arrays.", allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"gpugrad {gpugrad.__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    t = commands.add_parser(
        "train", help="train a classifier of handwritten digits", formatter_class=argparse.ArgumentDefaultsHelpFormatter, allow_abbrev=False
    )
    t.description = "Train a multilayer perceptron on the handwritten digits that scikit-learn ships, and save it."
    t.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    t.add_argument("--layers", type=arguments.layers, default="256,128", metavar="N,N,...", help="numbers of hidden units; '' for none")
    t.add_argument("--activation", choices=list(ACTIVATIONS), default="relu", help="between the layers")
    t.add_argument("--optimizer", choices=list(train.OPTIMIZERS), default="adamw", help="how the weights are updated")
    t.add_argument(
        "--lr", type=arguments.positive(float), help="learning rate at the start, from where it falls to 0 along a cosine (default: the optimizer's own)"
    )
    t.add_argument("--batch-size", type=arguments.positive(int), default=32, metavar="N", help="examples per step")
    t.add_argument("--epochs", type=arguments.positive(int), default=30, metavar="N", help="passes over the training set")
    t.add_argument("--label-smoothing", type=arguments.fraction, default=0.1, metavar="S", help="share of every label that is spread over all classes")
    t.add_argument("--seed", type=arguments.seed, default=0, metavar="N", help="of the split, the starting weights and the order of the examples")
    t.add_argument("--output", default="digits.safetensors", metavar="FILE", help="where the model goes")
    t.set_defaults(command=train.train)

    i = commands.add_parser("info", help="versions, devices and what is missing", allow_abbrev=False)
    i.set_defaults(command=info.info)

    c = commands.add_parser("check", help="whether the kernels give the right numbers on this machine", allow_abbrev=False)
    c.description = "Run every kernel and every operation everywhere this machine can, and compare with float64. The exit code is 1 where results are wrong."
    c.add_argument("--only", default="", metavar="TEXT", help="only what has this in its name")
    c.add_argument("--kernels", action="store_true", help="the kernels, and not the operations")
    c.set_defaults(command=check.check)
    return parser
