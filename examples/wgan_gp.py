"""A Wasserstein GAN with gradient penalty learns eight Gaussians on a circle: a loss that holds a gradient, differentiated again.

    critic       mean D(fake) - mean D(real) + lambda mean (||dD/dx|| - 1)^2,    x on the lines between fake and real examples
    generator    -mean D(G(noise))

The critic measures how far the generated points are from the real ones (the Wasserstein distance), which is right if its slope
is at most 1 everywhere; the penalty asks for just that. A generator that leaves modes out, the classic failure, is far away.
I. Gulrajani et al., "Improved training of Wasserstein GANs" (2017), equation 3 and figure 3. For images they take lambda 10; 0.1
is enough for a problem this small. Without it (lambda 0) nothing is learned at all.

With matplotlib (pip install 'gpugrad[plot]') the samples are drawn over the critic's values.
"""

import numpy as np

import gpugrad as gg
from gpugrad import nn, optim

MODES, RADIUS, SPREAD = 8, 2.0, 0.05
CENTRES = RADIUS * np.stack([np.cos(np.arange(MODES) * 2 * np.pi / MODES), np.sin(np.arange(MODES) * 2 * np.pi / MODES)], axis=1).astype(np.float32)
BATCH, CRITIC_STEPS, LAMBDA, RATE = 128, 3, 0.1, 2e-3


def real(n):
    return CENTRES[gg.random.randint(MODES, size=n).numpy()] + gg.random.normal(0, SPREAD, (n, 2), dtype=np.float32).numpy()


def noise(n):
    return gg.random.normal(size=(n, 2), dtype=np.float32)


def gradient_penalty(critic, real, fake):
    """mean (||dD/dx|| - 1)^2. With create_graph the gradient is itself on the tape, so that backward goes through it to the critic's weights."""
    e = gg.random.uniform(size=(len(real), 1), dtype=np.float32).numpy()
    x = gg.tensor(e * real + (1 - e) * fake, requires_grad=True)
    (slope,) = gg.autograd.grad(gg.sum(critic(x)), x, create_graph=True)  # a row depends on its own example alone, so the sum has every row's gradient
    return gg.mean((gg.linalg.norm(slope, axis=1) - 1) ** 2)


def train(generator, critic, steps, look):
    """``look(step)`` is called before the first step, on the way, and after the last."""
    optimizers = [optim.Adam(net.parameters(), lr=RATE, betas=(0.0, 0.9)) for net in (generator, critic)]  # the paper's: no momentum
    of_generator, of_critic = optimizers
    schedules = [optim.lr_scheduler.LinearLR(o, 1.0, 0.01, total_iters=steps) for o in optimizers]
    for step in range(steps):
        if step % (steps // 4) == 0:
            look(step)
        for _ in range(CRITIC_STEPS):
            with gg.no_grad():
                fake = generator(noise(BATCH)).numpy()
            x = real(BATCH)
            loss = gg.mean(critic(fake)) - gg.mean(critic(x)) + LAMBDA * gradient_penalty(critic, x, fake)
            of_critic.zero_grad()
            loss.backward()
            of_critic.step()
        loss = -gg.mean(critic(generator(noise(BATCH))))
        of_generator.zero_grad()
        loss.backward()
        of_generator.step()
        for schedule in schedules:
            schedule.step()
    look(steps)


def judge(points):
    """The share of points within three standard deviations of a mode, and the modes that get at least half of their fair share of such points."""
    distances = np.linalg.norm(points[:, None] - CENTRES, axis=2)
    good = distances.min(axis=1) < 3 * SPREAD
    counts = np.bincount(distances.argmin(axis=1)[good], minlength=MODES)
    return {"good": float(good.mean()), "modes": int((counts >= 0.5 * len(points) / MODES).sum())}


def plot(panels, path):
    try:
        from matplotlib.figure import Figure
    except ImportError:
        print("no picture: matplotlib is not installed (pip install 'gpugrad[plot]')")
        return None
    figure = Figure(figsize=(12, 3.2), layout="constrained")
    for axes, (step, (values, points)) in zip(figure.subplots(1, len(panels)), panels.items()):
        axes.contourf(GRID, GRID, values, levels=16, cmap="Greys", alpha=0.5)
        axes.plot(*CENTRES.T, "x", color="tab:red", markersize=7, label="modes")
        axes.plot(*points[:1000].T, ".", color="tab:blue", markersize=2, alpha=0.6, label="generated")
        axes.set(title=f"after {step} steps", aspect="equal", xticks=[], yticks=[], xlim=(-3, 3), ylim=(-3, 3))
    figure.legend(*axes.get_legend_handles_labels(), loc="outside right center", title="dark: the critic\ntakes it for real")
    figure.savefig(path, dpi=120)
    print(f"drawn in {path}")
    return path


GRID = np.linspace(-3, 3, 60, dtype=np.float32)
SQUARE = np.stack(np.meshgrid(GRID, GRID), axis=-1)


def main(path="wgan_gp.png", steps=2000, seed=0):
    gg.random.seed(seed)
    generator, critic = nn.MLP([2, 128, 128, 128, 2]), nn.MLP([2, 128, 128, 128, 1])
    panels = {}

    def look(step):
        with gg.no_grad():
            points, values = generator(noise(4000)).numpy(), critic(SQUARE).numpy()[..., 0]
        panels[step] = values, points
        print("step {:5}: {good:.1%} of the samples are good, {modes} of 8 modes are covered".format(step, **judge(points)))

    train(generator, critic, steps, look)
    truth = judge(real(4000))
    print(f"real data:  {truth['good']:.1%} and {truth['modes']}")
    picture = plot({step: panels[step] for step in list(panels)[1:]}, path)
    return {**judge(panels[steps][1]), "real": truth, "picture": picture}


if __name__ == "__main__":
    main()
