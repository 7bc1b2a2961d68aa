"""The least confidence that gives a precision, on made-up answers whose bounds are known."""

from __future__ import annotations

import numpy as np
import pytest

from zsar_cli.evaluation.metrics import wilson_interval
from zsar_cli.evaluation.thresholds import bounds, curve, figure, judged, judged_records, summary

RISING = np.arange(100) / 100  # 0.00 to 0.99


def test_the_lowest_bound_that_reaches_a_precision_is_taken() -> None:
    right = RISING >= 0.5  # the surer half is right: 50 of 50 + w answers, w wrong ones below
    found = bounds(judged(RISING, right))
    assert found["precision95"].min_confidence == pytest.approx(0.48)  # 50 of 52
    assert (found["precision95"].answered, found["precision90"].answered) == (52, 55)
    assert found["precision90"].min_confidence == pytest.approx(0.45)  # 50 of 55
    assert found["precision80"].min_confidence == pytest.approx(0.38)  # 50 of 62
    assert found["precision80"].reached == pytest.approx(50 / 62)
    assert "false_alarms5" not in found  # no unknown videos


def test_a_later_dip_does_not_hide_a_lower_bound() -> None:
    right = np.ones(100, bool)
    right[[97, 98]] = False  # two of the three surest are wrong, and then all is right
    assert bounds(judged(RISING, right))["precision95"].answered == 100


def test_equal_confidences_stand_or_fall_together() -> None:
    confidence = [0.9] * 10 + [0.5] * 10
    right = [True] * 10 + [True] * 5 + [False] * 5
    found = bounds(judged(confidence, right))
    assert found["precision95"].answered == found["precision80"].answered == 10
    assert 0.5 < found["precision95"].min_confidence <= 0.9
    assert bounds(judged([0.7] * 20, [True] * 19 + [False]))["precision95"].answered == 20


def test_false_alarms_are_counted_among_unknown_videos() -> None:
    confidence = np.concatenate([RISING, RISING])
    none = np.arange(200) >= 100
    found = bounds(judged(confidence, ~none, none))
    assert found["false_alarms5"].min_confidence == pytest.approx(0.95)
    assert found["false_alarms5"].answered == 10
    assert found["false_alarms5"].reached == pytest.approx(0.05)
    assert found["precision95"] is None  # every second answer is a false alarm
    assert bounds(judged(confidence, np.ones(200, bool), none))["precision80"] is None  # none is never right


def test_all_right_none_right_all_unknown_and_nothing_at_all() -> None:
    every = bounds(judged([0.5, 0.9, 0.7, 0.8, 0.6], [True] * 5))
    assert {bound.answered for bound in every.values()} == {5}
    assert every["precision95"].min_confidence == 0.5
    assert every["precision95"].interval95[0] < 0.6  # five videos say little
    assert set(bounds(judged(RISING, np.zeros(100, bool))).values()) == {None}
    strange = bounds(judged(RISING, np.zeros(100, bool), np.ones(100, bool)))
    assert strange["precision80"] is None
    assert strange["false_alarms5"].answered == 5
    assert set(bounds(judged([], [])).values()) == {None}
    assert summary(judged([], []))["videos"] == 0


def test_a_bound_with_few_answers_is_none_and_nan_is_no_answer() -> None:
    right = RISING >= 0.97
    assert bounds(judged(RISING, right))["precision80"] is None
    assert bounds(judged(RISING, right), least=1)["precision80"].answered == 3
    confidence = np.concatenate([RISING, [np.nan] * 3])
    with_nan = judged(confidence, np.ones(103, bool))
    assert len(with_nan.confidence) == 100
    assert bounds(with_nan)["precision95"].answered == 100


@pytest.mark.parametrize("seed", range(20))
def test_what_is_written_answers_as_many_as_it_says(seed: int) -> None:
    rng = np.random.default_rng(seed)
    confidence = np.round(rng.random(60), int(rng.integers(1, 12)))
    answers = judged(confidence, rng.random(60) < confidence, rng.random(60) < 0.2)
    for name, bound in bounds(answers).items():
        if bound is not None:
            chosen = answers.confidence >= bound.min_confidence
            assert chosen.sum() == bound.answered
            share = answers.right[chosen].mean() if "precision" in name else chosen[answers.none].mean()
            assert share == pytest.approx(bound.reached)
            assert bound.interval95[0] <= bound.reached <= bound.interval95[1]
    line = curve(answers)
    assert line.answered[-1] == 60
    assert (np.diff(line.confidence) < 0).all()


def test_wilson_interval_of_a_textbook() -> None:
    assert wilson_interval(8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert wilson_interval(10, 10) == pytest.approx((0.7225, 1.0), abs=1e-4)
    assert wilson_interval(0, 10) == pytest.approx((0.0, 0.2775), abs=1e-4)
    assert np.isnan(wilson_interval(0, 0)).all()


def test_records_of_an_evaluation_are_judged_by_what_predict_calls_unknown() -> None:
    records = [
        {"label": "a", "rank": 0, "unknown": {"yes": 0.25, "softmax": 0.9}},
        {"label": "a", "rank": 3, "unknown": {"yes": 0.5}},
        {"label": None, "rank": None, "unknown": {"yes": 0.75}},
        {"error": {"kind": "unreadable", "message": ""}},
    ]
    answers = judged_records(records)
    assert answers.confidence.tolist() == [0.75, 0.5, 0.25]
    assert answers.right.tolist() == [True, False, False]
    assert answers.none.tolist() == [False, False, True]


def test_the_picture_shows_the_curves_and_the_bounds() -> None:
    pytest.importorskip("matplotlib")
    (axes,) = figure(judged(RISING, RISING > 0.3, RISING < 0.2), "$x$").axes
    assert len(axes.get_legend_handles_labels()[1]) == 3
    assert any("90% right" in text.get_text() for text in axes.texts)
