"""The training loop, by hand: a multilayer perceptron learns handwritten digits, on a GPU if there is one.

Run it with ``python examples/train_mlp.py``, or ``python examples/train_mlp.py cpu``. The digits come with scikit-learn.
"""

import sys

import gpugrad as gg
from gpugrad import data, nn, optim

device = gg.backend.device_name(sys.argv[1] if len(sys.argv) > 1 else "auto")
gg.random.seed(0)

x_train, y_train, x_test, y_test = (gg.asarray(a, device=device) for a in data.load_digits(seed=0))

model = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 10)).to(device)
loss_of = nn.CrossEntropyLoss(label_smoothing=0.1)
optimizer = optim.AdamW(model.parameters(), lr=3e-3)
print(model)

for epoch in range(20):
    for x, y in data.minibatches(x_train, y_train, batch_size=32):
        loss = loss_of(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    print(f"epoch {epoch + 1}: the last batch's loss is {loss.item():.4f}")

with gg.no_grad():
    predicted = model(x_test).argmax(axis=1)
print(f"test accuracy: {(predicted == y_test).mean().item():.4f}")
