"""Which labels are an answer."""

from __future__ import annotations

from contextlib import suppress

import pytest

from zsar_cli.errors import UsageError, VideoError
from zsar_cli.prediction.confidence import DEFAULT, AnswerRule, answer_rule


def test_an_answer_is_as_sure_as_the_bound_or_none_of_these() -> None:
    rule = AnswerRule(0.75)
    assert rule.single("run", 0.25) == "run"  # at the bound
    assert rule.single("run", 0.26) == "none of these"
    assert AnswerRule(0.0).single("run", 1.0) == "run"
    assert AnswerRule(1.0).single("run", 0.0) == "run"
    assert AnswerRule().single("run", 1.0) is None


def test_several_are_the_surest_first_and_ties_stay_in_order() -> None:
    assert AnswerRule(0.5, True).several([0.5, 0.2, 0.9, 0.5]) == [2, 0, 3]
    assert AnswerRule(0.0, True).several([0.0, 0.0]) == [0, 1]
    assert AnswerRule(1.0, True).several([0.999]) == []
    assert AnswerRule(None, True).several([0.4, 0.6]) == [1]


def test_the_old_name_is_one_minus_the_new_one() -> None:
    said: list[tuple[float, float]] = []
    for old, new in ((0.9, 0.1), (0.3, 0.7), (0, 1), (1, 0)):
        assert answer_rule(None, old, tell=lambda *pair: said.append(pair)).min_confidence == new
    assert said == [(0.9, 0.1), (0.3, 0.7), (0, 1), (1, 0)]
    with pytest.raises(UsageError, match="not both"):
        answer_rule(0.5, 0.5)


def test_where_no_bound_is_given() -> None:
    assert answer_rule(None).min_confidence is None
    assert answer_rule(None, default=0.4).min_confidence == 0.4
    assert answer_rule(None, multi=True).min_confidence == DEFAULT
    assert answer_rule(0.0, default=0.4).min_confidence == 0.0


def test_python_warns_the_caller_about_the_old_name(tiny_clip_dir) -> None:
    from zsar_cli import Recognizer

    recognizer = Recognizer.load(tiny_clip_dir)
    for call in (recognizer.predict, recognizer.predict_many, recognizer.segments):
        videos = ["no.mp4"] if call == recognizer.predict_many else "no.mp4"
        with pytest.warns(DeprecationWarning, match="min_confidence=0.75") as said, suppress(VideoError):
            call(videos, ["run"], threshold=0.25)
        old = [warning for warning in said if warning.category is DeprecationWarning]
        assert [warning.filename for warning in old] == [__file__]
