"""Random numbers: seeded, the same on every device, distributed as they say."""

import copy
import json
import math
import pickle
import statistics

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import gpugrad as gg
from gpugrad import random
from gpugrad.quantile import normal_quantile


def draw(generator, **options):
    return [
        generator.normal(1.0, 2.0, (3, 2), **options),
        generator.uniform(-1.0, 1.0, 5, **options),
        generator.randint(10, size=4, **({"device": options["device"]} if "device" in options else {})),
        generator.permutation(6),
        generator.normal(),
        generator.truncated_normal(1.0, 2.0, size=3, **options),
        generator.exponential(2.0, 3, **options),
        generator.bernoulli(0.4, 9, **({"device": options["device"]} if "device" in options else {})),
        generator.choice(9, 3),
    ]


def test_a_seed_gives_the_same_numbers_on_every_device(device):
    for a, b in zip(draw(random.Generator(7)), draw(random.Generator(7), device=device), strict=True):
        assert type(a) is gg.Tensor
        assert_array_equal(a.numpy(), b.numpy())


def test_seed_and_state():
    generator = random.Generator(1)
    first = generator.normal(size=3).numpy()
    state = generator.state
    second = generator.normal(size=3).numpy()
    generator.state = state
    assert_array_equal(generator.normal(size=3).numpy(), second)
    generator.seed(1)
    assert_array_equal(generator.normal(size=3).numpy(), first)
    random.seed(1)
    assert_array_equal(random.normal(size=3).numpy(), first)


def test_a_state_goes_through_json_bit_for_bit(device):
    """In the middle of a block of Philox, and with the half of a word that a 32-bit integer has left over."""
    g = random.Generator(2**70 + 3)
    for drawn in range(9):
        g.randint(10, size=3, dtype=np.int32)
        g.normal(size=drawn)
        state = g.state_dict()
        text = json.dumps(state)
        expected = [g.randint(2**31, size=3, dtype=np.int32), *draw(g)]
        assert g.state_dict() != state
        resumed = random.Generator(5)
        resumed.load_state_dict(json.loads(text))
        assert resumed.state_dict() == state
        for a, b in zip(expected, [resumed.randint(2**31, size=3, dtype=np.int32), *draw(resumed, device=device)], strict=True):
            assert_array_equal(a.numpy(), b.numpy())


def test_copies_go_on_from_where_the_generator_stands():
    g = random.Generator(3)
    g.normal(size=3)
    copies = [pickle.loads(pickle.dumps(g)), copy.deepcopy(g)]
    expected = g.normal(size=4).numpy()
    for other in copies:
        assert_array_equal(other.normal(size=4).numpy(), expected)


def test_what_is_no_state_is_refused_and_changes_nothing():
    g = random.Generator(1)
    state = g.state_dict()
    bad = [({}, "'counter' is missing"), (None, "expected what Generator.state_dict"), ({**state, "bit_generator": "PCG64"}, "Philox")]
    for name, value, message in (
        ("key", [1], r"got key \[1\], expected 2 integers from 0 to 18446744073709551615"),
        ("counter", [0.5, 0, 0, 0], "got counter"),
        ("buffer", [-1, 0, 0, 0], "got buffer"),
        ("buffer_pos", 5, "got buffer_pos 5, expected an integer from 0 to 4"),
        ("uinteger", [3], "got uinteger"),
        ("has_uint32", "1", "got has_uint32 '1'"),
    ):
        bad.append(({**state, name: value}, message))
    for value, message in bad:
        with pytest.raises(ValueError, match=message):
            g.load_state_dict(value)
        assert g.state_dict() == state


def test_distributions_and_dtypes():
    g = random.Generator(0)
    for dtype in (np.float16, np.float32, np.float64):
        z, u = g.normal(1.0, 2.0, 20000, dtype=dtype), g.uniform(2.0, 5.0, 20000, dtype=dtype)
        assert z.dtype == u.dtype == dtype
        assert_allclose([z.numpy().astype(float).mean(), z.numpy().astype(float).std()], [1, 2], atol=0.05)
        assert u.numpy().min() >= 2
        assert u.numpy().max() <= 5
        assert_allclose(u.numpy().astype(float).mean(), 3.5, atol=0.05)
    counts = np.bincount(g.randint(3, 6, 30000).numpy())
    assert counts[:3].sum() == 0
    assert_allclose(counts[3:], 10000, rtol=0.05)
    assert g.normal().shape == ()


def test_permutation(device):
    g = random.Generator(0)
    assert sorted(g.permutation(10).tolist()) == list(range(10))
    rows = gg.tensor(np.arange(12).reshape(6, 2), device=device)
    shuffled = g.permutation(rows)
    assert shuffled.device == rows.device
    assert sorted(shuffled.tolist()) == rows.tolist()


def ks(x, cdf):
    """Kolmogorov and Smirnov's statistic times sqrt(n): above 1.63 one time in a hundred."""
    x = np.sort(np.asarray(x, float))
    n, f = len(x), np.array([cdf(v) for v in x])
    return math.sqrt(n) * max(np.max(np.arange(1, n + 1) / n - f), np.max(f - np.arange(n) / n))


def phi(z):
    return 0.5 * math.erfc(-z / math.sqrt(2))


def test_distributions_are_what_they_say():
    g = random.Generator(3)
    assert ks(g.normal(1, 2, 4000).numpy(), lambda x: phi((x - 1) / 2)) < 1.63
    assert ks(g.uniform(1, 3, 4000).numpy(), lambda x: (x - 1) / 2) < 1.63
    assert ks(g.exponential(0.5, 4000).numpy(), lambda x: 1 - math.exp(-2 * x)) < 1.63
    assert ks(g.normal(1, 2.2, 4000).numpy(), lambda x: phi((x - 1) / 2)) > 1.63
    for a, b, sign in ((-2, 2, 1), (-1, 4, 1), (-9, -3, 1), (3, 9, -1), (-math.inf, 0.5, 1)):  # in the upper tail phi has no digits: look at -z
        z = sign * (g.truncated_normal(1, 0.5, 1 + a / 2, 1 + b / 2, 4000).numpy() - 1) / 0.5
        low, high = sorted((phi(sign * a), phi(sign * b)))
        assert ks(z, lambda z: (phi(z) - low) / (high - low)) < 1.63  # noqa: B023


def test_quantiles():
    p = np.array([1e-300, 1e-40, 1e-10, 0.02, 0.0751, 0.3, 0.5, 0.77, 0.95, 1 - 1e-12])
    z = normal_quantile(p)
    assert_allclose([phi(v) for v in z], p, rtol=2e-13)
    assert_allclose(z, [statistics.NormalDist().inv_cdf(v) for v in p], rtol=1e-14)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_rounding_does_not_leave_the_interval(dtype):
    """1 - 2^-24 rounds to 1 in float16, and so would an interval's bounds that the dtype does not have."""
    g = random.Generator(0)
    x = g.uniform(0, 1, 100_000, dtype=dtype).numpy()
    assert x.max() < 1
    for low, high in ((0.1, 0.3), (-0.3, -0.1), (1000.3, 1001.7)):
        for x in (g.uniform(low, high, 20_000, dtype=dtype).numpy(), g.truncated_normal(low, 1, low, high, 20_000, dtype=dtype).numpy()):
            assert x.dtype == dtype
            assert low <= float(x.min()) <= float(x.max()) <= high
    assert g.uniform(3, 3, 2, dtype=dtype).tolist() == [3, 3]


def test_a_truncated_normal_number_costs_one_draw():
    g, h = random.Generator(4), random.Generator(4)
    g.truncated_normal(low=5, high=6, size=(2, 3))
    h.uniform(size=6)
    assert g.state_dict() == h.state_dict()


def test_bernoulli(device):
    g = random.Generator(0)
    x = g.bernoulli(0.3, 20_000, device=device)
    assert (x.dtype, x.device) == (bool, gg.asarray(0, device=device).device)
    assert_allclose(x.numpy().mean(), 0.3, atol=0.01)
    p = gg.tensor([[0.0, 1.0, 0.0]], device=device)
    for given in (p, p.data):
        assert g.bernoulli(given, dtype=np.float32).tolist() == [[0, 1, 0]]
    assert_array_equal(random.Generator(5).bernoulli(0.5, 20, device=device).numpy(), random.Generator(5).bernoulli(0.5, 20).numpy())
    for bad in (1.5, -0.1, math.nan, [0.2, 1.5]):
        with pytest.raises(ValueError, match="expected probabilities from 0 to 1"):
            g.bernoulli(bad)


def test_choice_and_shuffle(device):
    g = random.Generator(0)
    assert sorted(g.choice(10, 10, replace=False, device=device).tolist()) == list(range(10))
    assert set(g.choice(3, 50, p=[0.5, 0, 0.5]).tolist()) == {0, 2}
    assert g.choice(3, (2, 4)).shape == (2, 4)
    rows = np.arange(12).reshape(6, 2)
    t = gg.tensor(rows, device=device)
    chosen = g.choice(t, 4, replace=False)
    assert chosen.device == t.device
    assert all(row in rows.tolist() for row in chosen.tolist())
    with pytest.raises(ValueError, match="larger sample"):
        g.choice(3, 4, replace=False)
    orders = []
    for x in (t, gg.tensor(rows, device=device).data, rows.copy(), rows.tolist()):
        random.Generator(8).shuffle(x)
        orders.append(x if isinstance(x, list) else gg.asarray(x).numpy().tolist())
    assert orders[0] == orders[1] == orders[2] == orders[3] != rows.tolist()
    assert sorted(orders[0]) == rows.tolist()
    with pytest.raises(RuntimeError, match="leaf"):
        g.shuffle(gg.tensor([1.0, 2.0], requires_grad=True))


def test_bounds_that_make_no_sense():
    g = random.Generator(0)
    for low, high in ((1, 0), (0, math.inf), (math.nan, 1)):
        with pytest.raises(ValueError, match="expected finite numbers with low <= high"):
            g.uniform(low, high)
    for options in ({"scale": 0}, {"scale": -1}, {"low": 1, "high": 0}, {"low": 40, "high": math.inf}, {"loc": math.nan}):
        with pytest.raises(ValueError, match="expected scale > 0 and an interval with a probability above 0"):
            g.truncated_normal(**options)
