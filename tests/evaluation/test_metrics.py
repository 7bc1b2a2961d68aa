"""Metrics against scikit-learn, and against their definitions, on random predictions."""

from __future__ import annotations

import numpy as np
import pytest

from zsar_cli.evaluation import metrics


@pytest.fixture(scope="module")
def reference():
    """scikit-learn, which takes a second: not while tests are collected, which each worker does."""
    return pytest.importorskip("sklearn.metrics")


@pytest.fixture(params=range(4))
def case(request: pytest.FixtureRequest):
    rng = np.random.default_rng(request.param)
    count, classes = 300, 12
    scores = rng.normal(size=(count, classes))
    return scores, rng.integers(0, classes, count), rng


def test_accuracy_agrees_with_scikit_learn(case, reference) -> None:
    scores, labels, _ = case
    ranks = metrics.true_ranks(scores, labels)
    every = np.arange(scores.shape[1])
    for k in (1, 5):
        expected = reference.top_k_accuracy_score(labels, scores, k=k, labels=every)
        assert metrics.top_k(ranks, k) == pytest.approx(expected, abs=1e-9)
    predicted = scores.argmax(1)
    expected = reference.balanced_accuracy_score(labels, predicted)
    assert metrics.mean_class_accuracy(ranks, labels, 12) == pytest.approx(expected, abs=1e-9)
    expected = reference.confusion_matrix(labels, predicted, labels=every)
    assert np.array_equal(metrics.confusion_matrix(labels, predicted, 12), expected)


@pytest.mark.parametrize("ties", [False, True])
def test_unknown_detection_agrees_with_scikit_learn(case, reference, ties: bool) -> None:
    _, _, rng = case
    unknown = rng.random(400) < 0.3
    score = rng.normal(size=400) + unknown
    if ties:
        score = np.round(score, 1)
    assert metrics.auroc(unknown, score) == pytest.approx(reference.roc_auc_score(unknown, score), abs=1e-9)
    assert metrics.aupr(unknown, score) == pytest.approx(
        reference.average_precision_score(unknown, score), abs=1e-9
    )
    # By definition: over all thresholds that find 95% of the unknown, the fewest false alarms.
    options = [
        (score[~unknown] >= threshold).mean()
        for threshold in score
        if (score[unknown] >= threshold).mean() >= 0.95
    ]
    assert metrics.fpr_at_tpr(unknown, score) == pytest.approx(min(options), abs=1e-9)


def test_calibration_agrees_with_a_direct_computation(case) -> None:
    _, _, rng = case
    confidence = np.append(rng.random(500), [0.0, 1.0, 0.2])
    correct = rng.random(503) < confidence**2
    total = 0.0
    for b in range(15):
        low, high = b / 15, (b + 1) / 15
        inside = [i for i, c in enumerate(confidence) if low < c <= high or (b == 0 and c == 0)]
        if inside:
            gap = np.mean([correct[i] for i in inside]) - np.mean([confidence[i] for i in inside])
            total += len(inside) / len(confidence) * abs(gap)
    assert metrics.expected_calibration_error(confidence, correct) == pytest.approx(total, abs=1e-9)
    assert metrics.reliability(confidence, correct).count.sum() == 503


def test_a_model_that_answers_everything_alike_gets_nothing_right() -> None:
    assert metrics.top_k(metrics.true_ranks(np.zeros((4, 3)), [0, 1, 2, 0]), 1) == 0
    nan = np.array([[np.nan, 1.0, 0.0]])
    assert metrics.true_ranks(nan, [1])[0] == 2


def test_empty_and_one_sided_inputs_are_nan_not_numbers() -> None:
    assert np.isnan(metrics.top_k([], 1))
    assert np.isnan(metrics.auroc([True, True], [0.1, 0.2]))
    assert np.isnan(metrics.expected_calibration_error([], []))
    assert metrics.harmonic_mean(0, 0) == 0
    accuracy = metrics.per_class_accuracy([0, 1], [0, 0], 2)
    assert accuracy[0] == 0.5
    assert np.isnan(accuracy[1])


def test_bootstrap_interval_covers_the_truth_and_repeats_itself() -> None:
    rng = np.random.default_rng(1)
    inside = 0
    for _ in range(60):
        low, high = metrics.bootstrap_interval((rng.random(200) < 0.7).astype(float), draws=300)
        inside += low <= 0.7 <= high
    assert 50 <= inside <= 60
    assert metrics.bootstrap_interval([0, 1, 1]) == metrics.bootstrap_interval([0, 1, 1])
