"""Handwritten digits to 98% and more: the whole of a training, with validation and early stopping, in the library's own words.

The digits are 1797 images of 8x8 pixels (they come with scikit-learn): four fifths to learn from, of which a tenth is held out
to decide when to stop, and one fifth that is looked at once, at the end. train_mlp.py is the same with the loop written out.
It runs on a GPU if there is one: ``python examples/digits.py``, or ``python examples/digits.py cpu``.

With matplotlib (pip install 'gpugrad[plot]') the digits that the net gets wrong are drawn.
"""

import sys

import numpy as np

import gpugrad as gg
from gpugrad import data, nn, optim, training

BATCH, EPOCHS, RATE = 32, 40, 3e-3


def load(seed, device):
    """Loaders for training and validation, which bring their batches to the device, and the test set. The pixels are already scaled to [0, 1]."""
    x_train, y_train, x_test, y_test = data.load_digits(seed=seed)
    train, held_out = data.random_split(data.TensorDataset(x_train, y_train), [0.9, 0.1], stratify=y_train)
    return data.DataLoader(train, BATCH, shuffle=True, device=device), data.DataLoader(held_out, 256, device=device), x_test, y_test


def train(model, train_batches, validation, epochs):
    """AdamW (decoupled weight decay), a learning rate that rises and falls once, and the weights of the best epoch at the end."""
    optimizer = optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.05)
    schedule = optim.lr_scheduler.OneCycleLR(optimizer, max_lr=RATE, total_steps=epochs * len(train_batches))
    stopping = training.EarlyStopping(monitor="val_loss", patience=10)
    history = training.fit(
        model, nn.CrossEntropyLoss(label_smoothing=0.1), optimizer, train_batches, validation=validation, epochs=epochs,
        metrics={"accuracy": training.metrics.accuracy}, schedule=schedule, schedule_every="step", callbacks=[stopping],
    )  # fmt: skip
    return history, stopping.best_epoch


def plot(x, y, scores, path):
    try:
        from matplotlib.figure import Figure
    except ImportError:
        print("no picture: matplotlib is not installed (pip install 'gpugrad[plot]')")
        return None
    predicted = scores.argmax(axis=1)
    wrong = np.flatnonzero(predicted != y)[:8]
    figure = Figure(figsize=(1.5 * max(len(wrong), 1), 2), layout="constrained")
    for axes, i in zip(np.atleast_1d(figure.subplots(1, max(len(wrong), 1))), wrong):
        axes.imshow(x[i].reshape(8, 8), cmap="gray_r")
        axes.set(xticks=[], yticks=[], title=f"a {y[i]}, taken\nfor a {predicted[i]}")
    figure.savefig(path, dpi=120)
    print(f"drawn in {path}")
    return path


def main(path="digits.png", seed=0, device="auto", epochs=EPOCHS):
    gg.random.seed(seed)
    train_batches, validation, x_test, y_test = load(seed, device)
    model = nn.MLP([64, 256, 128, 10], dropout=0.2, device=device)
    print(model)
    history, best = train(model, train_batches, validation, epochs)
    for row in history.rows[::5]:
        print("epoch {epoch:3}: loss {loss:.4f}, accuracy {accuracy:.4f}; validation {val_loss:.4f}, {val_accuracy:.4f}".format(**row))
    scores = gg.asarray(training.predict(model, [gg.asarray(x_test, device=device)])).numpy()  # back to the host
    accuracy = float(training.metrics.accuracy(scores, y_test))
    print(f"stopped after {len(history)} epochs, the best was epoch {best}")
    print(training.metrics.classification_report(scores, y_test))
    print(f"test accuracy: {accuracy:.4f}")
    return {"accuracy": accuracy, "epochs": len(history), "best epoch": best, "picture": plot(x_test, y_test, scores, path)}


if __name__ == "__main__":
    main(device=sys.argv[1] if len(sys.argv) > 1 else "auto")
