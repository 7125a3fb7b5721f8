"""Random numbers: seeded, the same on every device, distributed as they say."""

import json

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import gpugrad as gg
from gpugrad import data, random


def draw(generator, **options):
    return [
        generator.normal(1.0, 2.0, (3, 2), **options),
        generator.uniform(-1.0, 1.0, 5, **options),
        generator.randint(10, size=4, **({"device": options["device"]} if "device" in options else {})),
        generator.permutation(6),
        generator.normal(),
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


def test_minibatches_see_everything_once(device):
    x = gg.asarray(np.arange(20.0).reshape(10, 2), device=device)
    y = gg.asarray(np.arange(10), device=device)
    for a, b in ((x, y), (x.data, y.data)):
        batches = list(data.minibatches(a, b, 4, random.Generator(0)))
        assert [len(xb) for xb, _ in batches] == [4, 4, 2]
        seen = []
        for xb, yb in batches:
            assert type(xb) is type(a)
            seen += np.asarray(gg.asarray(yb).numpy()).tolist()
            assert_array_equal(gg.asarray(xb).numpy()[:, 0], 2 * gg.asarray(yb).numpy())
        assert sorted(seen) == list(range(10))
    with pytest.raises(ValueError, match="10 rows of x and 3 of y"):
        next(data.minibatches(x, y[:3], 4))
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        next(data.minibatches(x, y, 0))


def test_the_digits_are_scaled_and_split_by_class():
    pytest.importorskip("sklearn")
    x, y, x_test, y_test = data.load_digits(0.25, seed=3)
    assert x.dtype == np.float32
    assert (x.min(), x.max()) == (0, 1)
    assert len(x) + len(x_test) == 1797
    assert_allclose(np.bincount(y_test) / np.bincount(np.concatenate([y, y_test])), 0.25, atol=0.01)
    assert_array_equal(data.load_digits(0.25, seed=3)[3], y_test)
    assert not np.array_equal(data.load_digits(0.25, seed=4)[2], x_test)
    with pytest.raises(ValueError, match="test_fraction must lie between 0 and 1, got 1"):
        data.load_digits(1)
