"""Random splits: every example in exactly one part, each part with its share."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

import gpugrad as gg
from gpugrad import data, random
from gpugrad.data import TensorDataset, random_split, splits

quick = settings(max_examples=60, deadline=None)


def members(parts):
    return [part[:][0].tolist() for part in parts]


@st.composite
def weights(draw):
    w = np.array(draw(st.lists(st.integers(0, 20), min_size=1, max_size=5)), float)
    return (w / w.sum()).tolist() if w.sum() else [1.0]


@quick
@given(st.integers(1, 200), weights(), st.booleans(), st.integers(0, 3))
def test_every_example_is_in_one_part_and_parts_have_their_fraction(n, fractions, stratify, seed):
    labels = np.random.default_rng(n).integers(0, 4, n)
    parts = random_split(TensorDataset(np.arange(n)), fractions, stratify=labels if stratify else None, generator=random.Generator(seed))
    assert sorted(x for part in members(parts) for x in part) == list(range(n))
    assert all(abs(len(part) - f * n) < 1 + 1e-6 for part, f in zip(parts, fractions, strict=True))


@quick
@given(st.lists(st.integers(1, 60), min_size=1, max_size=6), weights())
def test_a_stratified_part_has_its_share_of_each_class(sizes, fractions):
    labels = np.repeat(np.arange(len(sizes)), sizes)
    for part in random_split(TensorDataset(labels), fractions, stratify=labels):
        counts = np.bincount(part[:][0], minlength=len(sizes))
        exact = len(part) * np.array(sizes) / sum(sizes)
        assert (abs(counts - exact) <= 1).all()


def test_a_share_that_comes_out_even_is_exact():
    labels = np.repeat(["a", "b", "c"], [100, 50, 10])
    parts = random_split(TensorDataset(np.arange(160)), [0.7, 0.2, 0.1], stratify=labels)
    assert [np.unique(labels[part.indices], return_counts=True)[1].tolist() for part in parts] == [[70, 35, 7], [20, 10, 2], [10, 5, 1]]


def test_lengths():
    parts = random_split(TensorDataset(np.arange(10)), [7, 0, 3])
    assert [len(p) for p in parts] == [7, 0, 3]
    assert [len(p) for p in random_split(np.zeros((29, 2)), [0.07, 0.29, 0.64])] == [2, 8, 19]
    assert [len(p) for p in random_split(np.zeros(100), [0.07, 0.29, 0.64])] == [7, 29, 64]
    assert [len(p) for p in random_split(np.zeros(10), np.array([0.5, 0.5]))] == [5, 5]
    assert [len(p) for p in random_split(list("abc"), [1.0])] == [3]
    assert splits._sizes([0.5 + 4e-7, 0.5 + 4e-7], 10**7) == [5_000_000, 5_000_000]


def test_it_is_random_and_the_same_each_time():
    split = lambda **options: members(random_split(TensorDataset(np.arange(50)), [0.5, 0.5], **options))
    random.seed(4)
    first = split()
    assert first == split() == split(generator=random.Generator(0))
    assert first != split(generator=random.Generator(1))
    assert first[0] != sorted(first[0])
    labels = np.zeros(50)
    assert split(stratify=labels) != split(stratify=labels, generator=random.Generator(1))
    generator = random.Generator(0)
    assert split(generator=generator) != split(generator=generator)


def test_which_examples_does_not_depend_on_their_class():
    """With classes of one size, what is left over goes to a class at random, not always to the first."""
    labels = np.repeat(np.arange(3), 3)
    left = {tuple(np.bincount(labels[random_split(labels, [4, 5], stratify=labels, generator=random.Generator(s))[0].indices])) for s in range(20)}
    assert len(left) == 3


def test_on_a_device(put):
    parts = random_split(TensorDataset(put(np.arange(10.0))), [0.8, 0.2], stratify=gg.asarray(put(np.arange(10) % 2)))
    assert sorted(float(x) for part in parts for (x,) in (part[i] for i in range(len(part)))) == list(range(10))


@pytest.mark.parametrize(
    ("lengths", "what"),
    [
        ([5, 4], r"the lengths \(5, 4\) sum to 9, but the dataset has 10 examples"),
        ([0.5, 0.4], r"the fractions \(0.5, 0.4\) sum to 0.9, expected 1; lengths are integers"),
        ([5.0, 5.0], "sum to 10, expected 1"),
        ([-1, 11], "not negative"),
        ([-0.5, 1.5], "not negative"),
        ([float("nan"), 1.0], "not negative"),
        ([], "not negative"),
    ],
)
def test_lengths_that_do_not_sum(lengths, what):
    with pytest.raises(ValueError, match=what):
        random_split(np.arange(10), lengths)


def test_labels_of_another_number():
    with pytest.raises(ValueError, match=r"one label for each of 10 examples, got shape \(9,\)"):
        random_split(np.arange(10), [5, 5], stratify=np.zeros(9))


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
