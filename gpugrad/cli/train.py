"""``gpugrad train``."""

from __future__ import annotations

import argparse
import os

import numpy as np

from gpugrad import amp, backend, data, nn, optim, random, training
from gpugrad.cli import examples, files, model_file, recipes, resume
from gpugrad.cli.evaluate import rmse
from gpugrad.cli.model_file import Model
from gpugrad.cli.refusal import RefusalError, refusing
from gpugrad.training import metrics

RESIDENT = 1 << 30  # bytes of rows that are put on the device before the training; of more, each batch


def train(args: argparse.Namespace) -> None:
    """Train, save, and print how well it does on the test rows."""
    _complete(args)
    _check_options(args)
    with refusing(ValueError):
        device = backend.device_name(args.device)
    parts = examples.load(args)
    _check_task(args, parts)
    checkpoint = resume.Options(args, device, parts)
    random.seed(args.seed)
    model = _new_model(args, parts, device)
    print(_summary(parts, model, device, args) + (f"; goes on from {checkpoint.place}" if checkpoint.place else ""), flush=True)
    with np.errstate(all="ignore"):
        history = fit(model, parts, args, device, checkpoint)
    model.about |= {"seed": args.seed, "epochs": len(history), "options": checkpoint.options, "scores": dict(scores(model, parts))}
    files.saving("--output", args.output, lambda: model_file.save(args.output, model))
    print(f"saved {args.output}")
    try:
        if args.plot:
            files.saving("--plot", args.plot, lambda: training.plot_history(history, args.plot))
            print(f"plotted {args.plot}")
    finally:  # a picture that cannot be saved does not take the scores with it
        for name, value in model.about["scores"].items():
            print(f"{name}: {value}")


# ------------------------------------------------------------------------------------------------- before


def _complete(args: argparse.Namespace) -> None:
    """Fill in the defaults that depend on other options."""
    if args.output is None:
        stem = "digits" if args.data is None else os.path.basename(os.path.normpath(args.data)).split(".")[0]
        args.output = f"{stem or 'model'}.safetensors"


def _check_options(args: argparse.Namespace) -> None:
    """Refuse what cannot be done before any work is."""
    files.check_writable("--output", args.output)
    if args.plot is not None:
        files.check_writable("--plot", args.plot, (".png", ".pdf", ".svg"))
        try:
            import matplotlib  # noqa: F401
        except ImportError as error:
            raise RefusalError(f"--plot needs Matplotlib, which cannot be imported ({error}): pip install 'gpugrad[plot]'") from None
    if args.dtype in ("float16", "bfloat16"):
        with refusing(ImportError, before="--dtype: "):
            amp.autocast(args.dtype)
    if args.log is not None:
        files.check_writable("--log", args.log)
    for option in ("checkpoint", "tensorboard"):
        if getattr(args, option) is not None:
            files.check_new_folder(f"--{option}", getattr(args, option))
    files.check_distinct({f"--{k}": getattr(args, k) for k in ("data", "output", "plot", "log", "checkpoint", "tensorboard")})
    if args.early_stopping and not args.validation:
        raise RefusalError("--early-stopping looks at validation rows: add --validation 0.1")
    if args.resume and not args.checkpoint:
        raise RefusalError("--resume needs the folder of the checkpoints: add --checkpoint DIR")
    if args.norm == "batch" and args.batch_size == 1:
        raise RefusalError("--norm batch needs at least two rows in a batch: --batch-size 1 has one")
    recipes.check(args)


def _check_task(args: argparse.Namespace, parts: examples.Parts) -> None:
    """Refuse what does not go with the data."""
    if args.norm == "batch" and len(parts.train[0]) < 2:
        raise RefusalError("--norm batch needs at least two rows to learn from, and there is one")
    if args.label_smoothing and parts.task == "regression":
        raise RefusalError("--label-smoothing is for classification, and this is regression: see --task")


def _new_model(args: argparse.Namespace, parts: examples.Parts, device: str) -> Model:
    architecture = {
        "sizes": [len(parts.columns), *args.layers, len(parts.classes) or len(parts.targets)],
        "activation": args.activation,
        "norm": None if args.norm == "none" else args.norm,
        "dropout": args.dropout,
        "residual": args.residual,
        "dtype": "float64" if args.dtype == "float64" else "float32",
    }
    with refusing(ValueError):
        network = model_file.build(architecture, device)
    return Model(network, architecture, parts.task, parts.columns, parts.targets, parts.classes, parts.inputs, parts.outputs)


def _summary(parts: examples.Parts, model: Model, device: str, args: argparse.Namespace) -> str:
    counts = f"{len(parts.train[0]):,} {parts.name} to learn from, "
    counts += f"{len(parts.validation[0]):,} to validate, " if args.validation else ""
    counts += f"{len(parts.test[0]):,} to test on\n{sum(p.size for p in model.network.parameters()):,} parameters on {device}, {args.dtype}; seed {args.seed}"
    if args.data is None:
        return counts
    columns = f"{len(parts.columns)} column{'s' if len(parts.columns) > 1 else ''}"
    if parts.task == "classification":
        return f"classification of {parts.targets[0]!r} from {columns}: {len(parts.classes)} classes\n{counts}"
    return f"regression of {', '.join(map(repr, parts.targets))} from {columns}\n{counts}"


# ------------------------------------------------------------------------------------------------- training


def fit(model: Model, parts: examples.Parts, args: argparse.Namespace, device: str, checkpoint: resume.Options) -> training.History:
    """Train the network with everything that the options ask for; it has the weights to be saved at the end.

    Raises:
        RefusalError: training failed on the way, with exit code 1, or was interrupted and can go on, with 130.
    """
    classify = parts.task == "classification"
    batches = _loader(parts.train, model, args, device)
    optimizer = recipes.make_optimizer(model.network.parameters(), args)
    schedule, every = recipes.make_schedule(optimizer, args, -(-len(batches) // args.accumulate))
    ema = optim.ExponentialMovingAverage(model.network, decay=args.ema, warmup=True) if args.ema else None
    callbacks = _callbacks(args)
    try:
        history = training.fit(
            model.network,
            nn.CrossEntropyLoss(label_smoothing=_smoothing(args)) if classify else nn.MSELoss(),
            optimizer,
            batches,
            validation=_loader(parts.validation, model, args, device, training=False) if args.validation else None,
            epochs=args.epochs,
            metrics={"accuracy": metrics.accuracy} if classify else None,
            schedule=schedule,
            schedule_every=every,
            accumulate=args.accumulate,
            max_grad_norm=args.clip,
            autocast=args.dtype if args.dtype in ("float16", "bfloat16") else None,
            scaler=amp.GradScaler() if args.dtype == "float16" else None,
            ema=ema,
            callbacks=[*callbacks, checkpoint],
            checkpoint=args.checkpoint,
            checkpoint_every=args.checkpoint_every,
            resume=args.resume,
        )
    except training.TrainingError as error:
        raise RefusalError(f"{str(error).partition(': try')[0]}: try a smaller --lr (it was {optimizer.param_groups[0]['lr']:.3g}), or --clip 1", 1) from None
    except training.CheckpointError as error:
        raise RefusalError(error) from None
    except KeyboardInterrupt:
        if args.checkpoint is None:
            raise
        raise RefusalError(f"interrupted; the same command with --resume goes on from the last checkpoint in {args.checkpoint!r}", 130) from None
    except OSError as error:
        raise RefusalError(f"cannot write {error.filename or args.log or args.tensorboard!r}: {error.strerror or error}") from None
    if ema is not None and not args.early_stopping:  # which has put back the best averages itself
        ema.copy_to(model.network)
    for c in callbacks:
        if isinstance(c, training.EarlyStopping) and c.stopped_epoch:
            print(f"stopped: for {c.waited} epochs validation got no better; the weights are those of epoch {c.best_epoch}")
    return history


def _smoothing(args: argparse.Namespace) -> float:
    """On the digits some of it makes up for having few of them; elsewhere probabilities are to be taken at their word."""
    return args.label_smoothing if args.label_smoothing is not None else 0.1 if args.data is None else 0.0


def _callbacks(args: argparse.Namespace) -> list[training.Callback]:
    wanted: list[training.Callback] = [training.GradientNorms()] if args.plot or args.tensorboard else []
    wanted.append(training.Progress())
    if args.early_stopping:
        wanted.append(training.EarlyStopping("val_loss", args.early_stopping))
    if args.log is not None:
        wanted.append(training.JsonLog(args.log))
    if args.tensorboard is not None:
        with refusing(ImportError, before="--tensorboard: "):
            wanted.append(training.TensorBoardLog(args.tensorboard))
    return wanted


def _loader(part: tuple[np.ndarray, np.ndarray], model: Model, args: argparse.Namespace, device: str, training: bool = True) -> data.DataLoader:
    dtype = model.architecture["dtype"]
    x = model.inputs.transform(part[0]).astype(dtype)
    y = part[1] if model.outputs is None else model.outputs.transform(part[1]).astype(dtype)
    if x.nbytes + y.nbytes <= RESIDENT:
        x, y = (backend.to_device(a, device) for a in (x, y))
    n = len(x)
    size = args.batch_size or (n if args.optimizer == "lbfgs" else 32)
    if not training:
        return data.DataLoader(data.TensorDataset(x, y), max(size, 1024), device=device)
    alone = args.norm == "batch" and n % size == 1  # the statistics of a single row are of no use
    return data.DataLoader(data.TensorDataset(x, y), size, shuffle=True, drop_last=alone, generator=random.Generator(args.seed), device=device)


# ------------------------------------------------------------------------------------------------- after


def scores(model: Model, parts: examples.Parts) -> list[tuple[str, str]]:
    """Names and values of what is printed at the end, on validation and test rows."""
    found = []
    for name, (x, y) in (("validation", parts.validation), ("test", parts.test)):
        if not len(x):
            continue
        outputs = model.predict(x)
        if parts.task == "classification":
            found.append((f"{name} accuracy", f"{(outputs.argmax(axis=1) == y).mean():.4f}"))
            continue
        for k, target in enumerate(parts.targets):
            of = f" of {target}" if len(parts.targets) > 1 else ""
            found.append((f"{name} RMSE{of}", f"{rmse(outputs[:, k], y[:, k]):.6g}"))
            found.append((f"{name} R2{of}", f"{metrics.r2_score(outputs[:, k], y[:, k]):.4f}"))
    return found
