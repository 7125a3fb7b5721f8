"""A small training with everything in it that has a state: as a function for the tests, and as a program that is killed again and again while it trains.

``python program.py DIRECTORY KILLS`` forks a child that trains with checkpoints, kills it at a random moment, looks at what is left, and goes on so; the last
child may finish. It prints how many epochs each left behind. DIRECTORY.state is the end of that, DIRECTORY.whole that of a training that was left alone.
"""

from __future__ import annotations

import json
import os
import random as moments
import signal
import sys
import time
from pathlib import Path

import numpy as np

import gpugrad as gg
from gpugrad import data, nn, optim, training
from gpugrad.training.packing import pack

NOT_REPEATABLE = "examples_per_second"
OPTIMIZERS = {
    "SGD": {"lr": 0.05, "momentum": 0.9}, "Adam": {"amsgrad": True}, "AdamW": {"lr": 0.01}, "NAdam": {}, "RMSprop": {"momentum": 0.5}, "Adagrad": {},
    "Adadelta": {"lr": 1.0}, "Lion": {}, "LBFGS": {"lr": 0.1, "max_iter": 3, "history_size": 4}, "NewtonCG": {"max_iter": 2, "max_cg": 5},
}  # fmt: skip


class Training:
    """Model, optimizer and the rest, made anew; ``go(epochs, ...)`` trains."""

    def __init__(
        self, optimizer: str = "AdamW", seed: int = 0, device: str | None = None, width: int = 16, monitor: str = "val_loss", patience: int = 1000
    ) -> None:
        rng = np.random.default_rng(0)
        x = rng.standard_normal((60, 5)).astype(np.float32)
        y = (x[:, 0] * x[:, 1] > 0).astype(np.int64) + (x[:, 2] > 1)
        gg.random.seed(seed)
        self.model = nn.MLP([5, width, 3], "tanh", norm="batch", dropout=0.2, device=device)
        self.optimizer = getattr(optim, optimizer)(self.model.parameters(), **OPTIMIZERS[optimizer])
        self.schedule = optim.lr_scheduler.CosineAnnealingLR(self.optimizer, 20)
        self.ema = optim.ExponentialMovingAverage(self.model, 0.9)
        self.train = data.DataLoader(data.TensorDataset(x[:45], y[:45]), 8, shuffle=True, generator=gg.random.Generator(seed + 1), device=device)
        self.validation = data.DataLoader(data.TensorDataset(x[45:], y[45:]), 8, device=device)
        self.stopping = training.EarlyStopping(monitor, patience)

    def go(self, epochs: int, checkpoint: object = None, callbacks: tuple = (), **options: object) -> training.History:
        clip = None if type(self.optimizer).__name__ in ("LBFGS", "NewtonCG") else 5.0
        self.history = training.fit(
            self.model, nn.functional.cross_entropy, self.optimizer, self.train, validation=self.validation, epochs=epochs, schedule=self.schedule,
            metrics={"accuracy": training.metrics.accuracy}, ema=self.ema, max_grad_norm=clip,
            callbacks=(*callbacks, self.stopping, training.GradientNorms()), checkpoint=checkpoint, **{"accumulate": 2, **options},
        )  # fmt: skip
        return self.history

    def state(self) -> str:
        """All that must come out alike, to the bit, as text: arrays by their checksums."""
        history = [{k: v for k, v in row.items() if k != NOT_REPEATABLE} for row in self.history]
        parts = [self.model, self.optimizer, self.schedule, self.ema, self.train, self.stopping, gg.random.default_generator]
        return json.dumps(pack([history, *(p.state_dict() for p in parts)])[0], indent=1)


EPOCHS = 120


def main(directory: str, kills: int) -> None:
    moment = moments.Random(0)
    whole = Training(width=200)  # what is compiled or loaded at first use is there then, so that a child trains at once
    start = time.perf_counter()
    whole.go(EPOCHS)
    longest = min(0.06, 0.3 * (time.perf_counter() - start))
    Path(f"{directory}.whole").write_text(whole.state())
    os.mkdir(directory)
    for kill in range(kills + 1):
        child = os.fork()
        if child == 0:
            run = Training(width=200, seed=kill if training.latest_checkpoint(directory) else 0)  # what is resumed was made from other numbers
            run.go(EPOCHS, directory, resume=True)
            Path(f"{directory}.state").write_text(run.state())
            os._exit(0)
        if kill < kills:
            time.sleep(moment.uniform(0, longest))
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        latest = training.latest_checkpoint(directory)
        print(0 if latest is None else training.load_checkpoint(latest)["run"]["epoch"], os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
