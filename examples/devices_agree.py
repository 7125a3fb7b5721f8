"""Does a function of yours give the same numbers, gradients and Hessian-vector products on every device?

``gg.testing.assert_devices_agree`` runs it on the CPU and, where there is one, on the GPU, and compares with the same computation in float64.
``gg.kernels.use`` puts one twin of the fused kernels in the place of another: "reference" is plain NumPy, "cpu" Numba, and "cuda" on NumPy arrays is the
CUDA source itself, run in an emulator (which needs g++). So a machine without a GPU can check all of them.

The first run compiles the kernels, which takes some seconds.
"""

import numpy as np

import gpugrad as gg
from gpugrad import nn
from gpugrad.cuda import emulator


def loss(w1, b1, w2, b2, x, labels):
    """A two-layer network: its layers and its loss are fused kernels."""
    hidden = nn.functional.linear(x, w1, b1, activation="gelu")
    return nn.functional.cross_entropy(nn.functional.linear(hidden, w2, b2), labels)


def careless(x):
    """The sum of x, which throws digits away on the way: float64 has enough of them, float32 has not."""
    return gg.sum((1 + x * 1e-6 - 1) * 1e6)


def main():
    """Compare the twins; returns the loss by each of them, and what is said of the careless function."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 12)).astype(np.float32)
    labels = rng.integers(0, 5, 40)
    weights = [rng.normal(size=shape).astype(np.float32) * 0.3 for shape in ((12, 30), (30,), (30, 5), (5,))]
    values = {}
    for twin in ["reference", "cpu", *(["cuda"] if emulator.is_available() else [])]:
        with gg.kernels.use(twin):
            gg.testing.assert_devices_agree(loss, *weights, x, labels)
            values[twin] = float(loss(*weights, x, labels))
        print(f"{twin:<10} value {values[twin]:.6f}: value, gradients and Hessian-vector products agree with float64")

    # A function that is wrong on one device, or in one precision, is found and named.
    found = None
    try:
        gg.testing.assert_devices_agree(careless, rng.uniform(1, 2, 100).astype(np.float32))
    except AssertionError as error:
        found = str(error)
        print(f"found: {found}")
    return values, found


if __name__ == "__main__":
    main()
