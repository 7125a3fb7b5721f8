"""An autoencoder squeezes the digits through eight numbers, and puts them together again better than PCA with as many.

    encoder 64 -> 128 -> 64 -> 8,  decoder 8 -> 64 -> 128 -> 64;  loss: mean (x - decoder(encoder(x)))^2

A linear autoencoder can do no better than the principal components: they are the best linear code (C. Eckart and G. Young,
1936). What the net gains comes from being curved. G. E. Hinton and R. R. Salakhutdinov, "Reducing the dimensionality of data
with neural networks" (2006). The errors here are those of digits that neither has seen.

With matplotlib (pip install 'gpugrad[plot]') some digits are drawn with both reconstructions.
"""

import numpy as np

import gpugrad as gg
from gpugrad import data, nn, optim, training

CODE, EPOCHS, RATE = 8, 60, 3e-3


class Autoencoder(nn.Module):
    def __init__(self):
        self.encoder = nn.MLP([64, 128, 64, CODE], activation="silu")
        self.decoder = nn.MLP([CODE, 64, 128, 64], activation="silu")

    def forward(self, x):
        return self.decoder(self.encoder(x))


def principal_components(x):
    """PCA by the singular value decomposition: the function that reconstructs from CODE components."""
    mean = x.mean(axis=0)
    basis = np.linalg.svd(x - mean, full_matrices=False)[2][:CODE]
    return lambda x: (x - mean) @ basis.T @ basis + mean


def train(model, x):
    """The target of a reconstruction is the input itself."""
    batches = data.DataLoader(data.TensorDataset(x, x), 32, shuffle=True)
    optimizer = optim.AdamW(model.parameters(), lr=RATE, weight_decay=1e-3)
    schedule = optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=EPOCHS * len(batches))
    return training.fit(model, nn.MSELoss(), optimizer, batches, epochs=EPOCHS, schedule=schedule, schedule_every="step")


def plot(rows, path):
    try:
        from matplotlib.figure import Figure
    except ImportError:
        print("no picture: matplotlib is not installed (pip install 'gpugrad[plot]')")
        return None
    figure = Figure(figsize=(10, 3.2), layout="constrained")
    for line, (name, images) in zip(figure.subplots(len(rows), 10), rows.items()):
        for axes, image in zip(line, images):
            axes.imshow(image.reshape(8, 8), cmap="gray_r", vmin=0, vmax=1)
            axes.set(xticks=[], yticks=[])
        line[0].set_ylabel(name, rotation=0, ha="right", va="center")
    figure.savefig(path, dpi=120)
    print(f"drawn in {path}")
    return path


def main(path="autoencoder.png", seed=0):
    gg.random.seed(seed)
    x_train, _, x_test, y_test = data.load_digits(seed=seed)
    model = Autoencoder()
    print(model)
    history = train(model, x_train)
    for row in history.rows[9::10]:
        print("epoch {epoch:3}: loss {loss:.5f}".format(**row))
    pca = principal_components(x_train)
    reconstructed = {"autoencoder": training.predict(model, [x_test]), "PCA": pca(x_test)}
    errors = {name: float(np.mean((x_test - r) ** 2)) for name, r in reconstructed.items()}
    variance = float(np.mean((x_test - x_train.mean(axis=0)) ** 2))
    for name, error in errors.items():
        print(f"{name:11} with {CODE} numbers: test error {error:.5f}, {1 - error / variance:.1%} of the variance")
    one_of_each = [int(np.flatnonzero(y_test == digit)[0]) for digit in range(10)]
    rows = {name: images[one_of_each] for name, images in {"original": x_test, **reconstructed}.items()}
    return {"errors": errors, "variance": variance, "losses": history["loss"], "picture": plot(rows, path)}


if __name__ == "__main__":
    main()
