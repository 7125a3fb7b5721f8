"""Metrics against scikit-learn, on both devices, and at their edges."""

import json

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import gpugrad as gg
from gpugrad import backend, training
from gpugrad.training import metrics

RNG = np.random.default_rng(0)


def host(x):
    return backend.to_device(x, "cpu")


def scores(n=60, classes=5):
    return RNG.standard_normal((n, classes)).astype(np.float32), RNG.integers(0, classes, n)


def test_classification_agrees_with_sklearn(put):
    theirs = pytest.importorskip("sklearn.metrics")
    p, t = scores()
    labels = p.argmax(1)
    for prediction in (p, labels, gg.Tensor(p)):
        on = gg.Tensor(put(p)) if type(prediction) is gg.Tensor else put(prediction)
        assert float(metrics.accuracy(on, put(t))) == theirs.accuracy_score(t, labels)
        assert_array_equal(host(metrics.confusion_matrix(on, put(t))), theirs.confusion_matrix(t, labels))
    for k in range(1, 5):
        assert float(metrics.top_k_accuracy(put(p), put(t), k)) == pytest.approx(theirs.top_k_accuracy_score(t, p, k=k, labels=range(5)))
    report = metrics.classification_report(put(p), put(t))
    for average, means in (("macro", report.macro), ("weighted", report.weighted)):
        assert_allclose(means, theirs.precision_recall_fscore_support(t, labels, average=average)[:3], rtol=1e-12)
    for ours, other in zip((report.precision, report.recall, report.f1, report.support), theirs.precision_recall_fscore_support(t, labels)):
        assert_allclose(ours, other, rtol=1e-12)
    assert report.accuracy == theirs.accuracy_score(t, labels)


def test_classes_that_are_never_right_or_never_there_agree_with_sklearn():
    theirs = pytest.importorskip("sklearn.metrics")
    p, t = np.array([0, 0, 1, 3, 3]), np.array([0, 1, 0, 3, 3])  # class 2 does not occur, nor does 4
    report = metrics.classification_report(p, t, 5)
    for ours, other in zip(
        (report.precision, report.recall, report.f1, report.support), theirs.precision_recall_fscore_support(t, p, labels=range(5), zero_division=0)
    ):
        assert_allclose(ours, other)


def test_regression_agrees_with_sklearn(put):
    theirs = pytest.importorskip("sklearn.metrics")
    for shape in ((20,), (20, 1), (20, 3)):
        t = RNG.standard_normal(shape)
        p = t + 0.3 * RNG.standard_normal(shape)
        assert float(metrics.r2_score(put(p), put(t))) == pytest.approx(theirs.r2_score(t, p), rel=1e-12)
        assert float(metrics.mean_absolute_error(put(p), put(t))) == pytest.approx(theirs.mean_absolute_error(t, p), rel=1e-12)
    for t, p in (([1.0, 1.0], [1.0, 1.0]), ([1.0, 1.0], [1.0, 2.0])):
        assert float(metrics.r2_score(np.array(p), np.array(t))) == theirs.r2_score(t, p)


def test_closed_forms(put):
    t = put(np.array([0.0, 1.0, 2.0, 3.0]))
    assert float(metrics.r2_score(t, t)) == 1
    assert float(metrics.r2_score(0 * t + 1.5, t)) == 0
    assert float(metrics.r2_score(t[::-1].copy(), t)) == pytest.approx(1 - 20 / 5)
    assert float(metrics.mean_absolute_error(t + 2, t)) == 2
    assert float(metrics.binary_accuracy(t - 1.5, put(np.array([0, 0, 1, 0])))) == 0.75
    assert float(metrics.binary_accuracy(t / 3, put(np.array([0.0, 0.0, 1.0, 1.0])), 0.5)) == 1
    assert float(metrics.accuracy(put(np.eye(3)), put(np.eye(3)[[0, 2, 2]]))) == pytest.approx(2 / 3)  # soft labels


def test_they_stay_on_the_device_until_they_are_looked_at(device, put):
    p, t = scores()
    for value in (metrics.accuracy(put(p), put(t)), metrics.top_k_accuracy(put(p), put(t)), metrics.mean_absolute_error(put(p), put(p))):
        assert backend.device_of(value).startswith(device)


def test_16_bit_predictions():
    p, t = np.full(5000, 1.0, np.float16), np.full(5000, 3.0, np.float16)
    assert float(metrics.mean_absolute_error(p, t)) == 2
    assert float(metrics.r2_score(np.arange(300, dtype=np.float16), np.arange(300, dtype=np.float16))) == 1


def test_ties_and_nan():
    tied = np.zeros((4, 4))
    t = np.arange(4)
    assert float(metrics.accuracy(tied, t)) == float(metrics.top_k_accuracy(tied, t, 1)) == 0.25
    assert float(metrics.top_k_accuracy(tied, t, 3)) == 0.75
    assert float(metrics.top_k_accuracy(np.full((4, 4), np.nan), t, 3)) == 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: metrics.accuracy(np.ones((3, 2)), np.ones(4, int)), r"accuracy: got predictions of shape \(3,\) and targets of shape \(4,\)"),
        (lambda: metrics.accuracy(np.ones(3), np.ones(3, int)), "got one float64 per example, expected .*; for scores of two classes use binary_accuracy"),
        (lambda: metrics.accuracy(np.ones((3, 2, 2)), np.ones((3, 2), int)), "accuracy: got predictions of shape"),
        (lambda: metrics.binary_accuracy(np.ones((3, 1)), np.ones(3)), r"binary_accuracy: got a target of shape \(3,\), expected \(3, 1\)"),
        (lambda: metrics.r2_score(np.ones((3, 1)), np.ones(3)), "r2_score: got a target of shape"),
        (lambda: metrics.mean_absolute_error(np.ones((3, 1)), np.ones(3)), "mean_absolute_error: got a target of shape"),
        (lambda: metrics.top_k_accuracy(np.ones(3), np.ones(3, int)), "top_k_accuracy: got scores of shape"),
        (lambda: metrics.top_k_accuracy(np.ones((3, 4)), np.ones(3, int), 5), "got k=5, expected 1 to 4"),
        (lambda: metrics.top_k_accuracy(np.ones((3, 4)), np.ones(3, int), 0), "got k=0, expected 1 to 4"),
        (lambda: metrics.confusion_matrix(np.ones((2, 2)), np.array([0, 2])), "got class number 2, expected 0 to 1"),
        (lambda: metrics.confusion_matrix(np.array([0, 1]), np.array([0, -1])), "got class number -1"),
        (lambda: metrics.classification_report(np.zeros(0, int), np.zeros(0, int), 2), "got no examples"),
    ],
)
def test_refusals(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_the_report_as_a_table_and_as_json():
    report = metrics.classification_report(np.array([0, 1, 1, 1]), np.array([0, 0, 1, 1]), ["cat", "a long name"])
    assert str(report).splitlines() == [
        "                  precision    recall        f1   support",
        "cat                  1.0000    0.5000    0.6667         2",
        "a long name          0.6667    1.0000    0.8000         2",
        "mean of classes      0.8333    0.7500    0.7333         4",
        "mean of examples     0.8333    0.7500    0.7333         4",
        "accuracy             0.7500",
    ]
    assert json.loads(json.dumps(report.to_dict()))["classes"]["cat"] == {"precision": 1.0, "recall": 0.5, "f1": pytest.approx(2 / 3), "support": 2}


def test_the_names_are_where_they_are_looked_for():
    assert training.metrics is metrics
    assert set(metrics.__all__) <= set(dir(metrics))
