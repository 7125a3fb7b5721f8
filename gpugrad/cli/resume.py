"""The options in a checkpoint, with which a run that goes on must agree."""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import os
from collections.abc import Mapping
from typing import Any

from gpugrad import training
from gpugrad.cli.examples import Parts
from gpugrad.cli.refusal import RefusalError

# What may change between a run and its continuation without changing what is computed.
FREE = {"command", "data", "output", "plot", "log", "tensorboard", "checkpoint", "checkpoint_every", "resume", "device"}


class Options(training.Callback):
    """Puts the options of a run and the fingerprint of its data into its checkpoints, and compares them with those in the one to go on from.

    Raises:
        RefusalError: there is no checkpoint to go on from, or one where a new run begins; it is damaged, or it is of a run with other options or data.
    """

    def __init__(self, args: argparse.Namespace, device: str, parts: Parts) -> None:
        self.place: str | None = None  # where the run goes on from
        self.options = {k: v for k, v in sorted(vars(args).items()) if k not in FREE} | {"device": device.partition(":")[0]}
        self.fingerprint = ""
        if args.checkpoint is not None:
            self.fingerprint = _fingerprint(parts)
            self._check(args.checkpoint, args.resume)

    def _check(self, directory: str, resume: bool) -> None:
        there = os.path.isdir(directory) and any(name.startswith("checkpoint-") for name in os.listdir(directory))
        if not resume:
            if there:
                raise RefusalError(f"--checkpoint: {directory!r} has checkpoints already: add --resume to go on from them, or name another folder")
            return
        if not there:
            raise RefusalError(f"--resume: there is no checkpoint in {directory!r}")
        with contextlib.redirect_stderr(io.StringIO()) as passed_over:
            place = training.latest_checkpoint(directory)
        if place is None:
            first = passed_over.getvalue().partition("\n")[0].removeprefix("gpugrad: passed over a damaged checkpoint: ")
            raise RefusalError(f"--resume: there is no checkpoint that is whole: {first}")
        saved = training.load_checkpoint(place).get("callbacks", {}).get("Options.0")
        if not isinstance(saved, dict) or not isinstance(saved.get("options"), dict):
            raise RefusalError(f"--resume: {place!r} was not made by gpugrad train")
        # Where the learning rate does not depend on it, a run may be made longer.
        free = {"epochs"} if self.options["schedule"] == "none" else set()
        differing = [k for k in self.options if k not in free and saved["options"].get(k) != self.options[k]]
        if differing:
            what = ", ".join(f"--{k.replace('_', '-')} was {_said(saved['options'].get(k))} and is {_said(self.options[k])}" for k in differing)
            why = "; the schedule goes by --epochs: only a run with --schedule none can be made longer" if "epochs" in differing else ""
            raise RefusalError(f"--resume: {place!r} was made with other options: {what}{why}")
        if saved.get("fingerprint") != self.fingerprint:
            raise RefusalError(f"--resume: {place!r} was made with other data")
        self.place = place

    def state_dict(self) -> dict[str, Any]:
        """Options and fingerprint."""
        return {"options": self.options, "fingerprint": self.fingerprint}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """They have been compared."""


def _said(value: Any) -> str:
    return ",".join(map(str, value)) or "''" if isinstance(value, list) else "not given" if value is None else str(value)


def _fingerprint(parts: Parts) -> str:
    """SHA-256 of names and numbers of the training and validation rows."""
    digest = hashlib.sha256(repr((parts.columns, parts.targets, parts.classes)).encode())
    for array in (*parts.train, *parts.validation):
        digest.update(array.tobytes())
    return digest.hexdigest()
