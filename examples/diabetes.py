"""Regression, with an honest comparison: how a disease progresses in a year, from ten measurements, by a net and by least squares.

442 patients (B. Efron et al., "Least angle regression", 2004; they come with scikit-learn): 60% to learn from, 20% to decide
when to stop, 20% that are looked at once, at the end. What the standardisation needs to know, means and standard deviations, is
taken from the first part alone: a test set that has had a say in it tests nothing.

So few patients say little about anything that is not linear, and the noise is large: it comes out a tie, as it should. How well
a model does depends far more on who happens to be in the test set than on the model, so one split would show nothing; here are
twenty, each with its own training, and the models compared split by split.
"""

import numpy as np

import gpugrad as gg
from gpugrad import data, nn, optim, training


def load(seed):
    """Three parts (x, y), standardised by the first; and the standardisation of y, to go back."""
    try:
        from sklearn import datasets
    except ImportError:
        raise SystemExit("the data come with scikit-learn: pip install 'gpugrad[demo]'") from None
    x, y = datasets.load_diabetes(return_X_y=True, scaled=False)
    x, y = x.astype(np.float32), y[:, None].astype(np.float32)
    parts = data.random_split(data.TensorDataset(x, y), [0.6, 0.2, 0.2], generator=gg.random.Generator(seed))
    train = parts[0][:]
    of_x, of_y = data.Standardizer().fit(train[0]), data.Standardizer().fit(train[1])
    return [(of_x.transform(x), of_y.transform(y)) for x, y in (part[:] for part in parts)], of_y


def least_squares(x, y):
    """The linear model, exactly."""
    one = lambda x: np.column_stack([x, np.ones(len(x), x.dtype)])
    coefficients = np.linalg.lstsq(one(x), y, rcond=None)[0]
    return lambda x: one(x) @ coefficients


def fit_net(train, validation):
    """A small net, with weight decay and early stopping against learning the noise."""
    model = nn.MLP([10, 16, 1], activation="tanh")
    optimizer = optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.1)
    stopping = training.EarlyStopping(patience=25)
    training.fit(
        model, nn.MSELoss(), optimizer, data.DataLoader(data.TensorDataset(*train), 32, shuffle=True),
        validation=data.DataLoader(data.TensorDataset(*validation), 256), epochs=300, callbacks=[stopping],
    )  # fmt: skip
    return (lambda x: training.predict(model, [x])), stopping.best_epoch


def scores(model, x, y, of_y):
    """In the units of the data: root mean square error, and the share of the variance that is explained."""
    prediction, y = of_y.inverse(model(x)), of_y.inverse(y)
    return {"rmse": float(np.sqrt(np.mean((prediction - y) ** 2))), "r2": float(training.metrics.r2_score(prediction, y))}


def one_split(seed):
    """The scores of each model on the test part of that split."""
    gg.random.seed(seed)
    (train, validation, test), of_y = load(seed)
    net, best_epoch = fit_net(train, validation)
    mean = lambda x: np.zeros((len(x), 1), np.float32)  # that of the training part, standardised
    models = {"mean": mean, "least squares": least_squares(*train), "net": net}
    return {name: scores(model, *test, of_y) for name, model in models.items()}, best_epoch


def main(splits=20):
    found = [one_split(seed) for seed in range(splits)]
    print(f"best epoch of the net: {min(e for _, e in found)} to {max(e for _, e in found)}")
    print(f"{'mean +- standard deviation':27} {'test RMSE':>14} {'test R2':>16}")
    results = {name: {score: np.array([r[name][score] for r, _ in found]) for score in ("rmse", "r2")} for name in found[0][0]}
    for name, r in results.items():
        print(f"{name:27} {r['rmse'].mean():7.2f} +- {r['rmse'].std():4.2f} {r['r2'].mean():9.3f} +- {r['r2'].std():.3f}")
    gain = results["least squares"]["rmse"] - results["net"]["rmse"]
    print(
        f"the net is better than least squares in {(gain > 0).sum()} of {splits} splits, on average by {gain.mean():.2f} +- {gain.std() / np.sqrt(splits):.2f} in RMSE"
    )
    return results


if __name__ == "__main__":
    main()
