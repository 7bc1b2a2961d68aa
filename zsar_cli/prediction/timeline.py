"""A timeline: the scores of stretches of time, merged to segments with one answer."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeAlias

from zsar_cli.prediction.confidence import DEFAULT, AnswerRule
from zsar_cli.prediction.records import NONE_OF_THESE, LabelScore, Shown
from zsar_cli.prediction.result import Result

if TYPE_CHECKING:
    from torch import Tensor

    from zsar_cli.prediction.windows import WindowOptions


Answer: TypeAlias = "str | tuple[int, ...]"  # a label or "none of these", or the places of several labels
SHORTEST = 1e-6  # s that a stretch counts for at least


@dataclass(frozen=True)
class Segment:
    """A stretch of a video with one answer."""

    start: float  # s, on the clock of the video's file (docs/videos.md)
    end: float  # s
    answer: str  # a label, or "none of these"
    predictions: list[LabelScore]  # best first; means over the stretch
    unknown: float
    answers: list[str] | None = None  # where several were asked for, the surest first
    seen: tuple[int, ...] = field(default=(), repr=False, compare=False)  # the frames of its surest window

    def to_record(self) -> dict[str, Any]:
        """Make the JSON record."""
        several = {} if self.answers is None else {"answers": self.answers}
        return {
            "start": round(self.start, 3),
            "end": round(self.end, 3),
            "answer": self.answer,
            **several,
            "predictions": [found.to_record() for found in self.predictions],
            "unknown": round(self.unknown, 6),
        }


@dataclass(frozen=True)
class Timeline(Result):
    """What happens in a video, and when: segments from its start to its end, without gaps."""

    video: str
    segments: list[Segment]
    duration: float  # s
    frames: int  # frames the model saw
    warning: str | None = None
    assumed_fps: float | None = (
        None  # of a folder of frames: all times rest on it, and on nothing in the files
    )
    written: str | None = None  # the picture about it, where one was asked for
    shown: Shown | None = field(default=None, repr=False, compare=False)  # some frames, where asked for
    min_confidence: float = DEFAULT  # of the answers

    def to_record(self) -> dict[str, Any]:
        """Make the record of the command line."""
        record: dict[str, Any] = {
            "video": self.video,
            "segments": [segment.to_record() for segment in self.segments],
            "duration": round(self.duration, 3),
            "frames": self.frames,
            "min_confidence": self.min_confidence,
        }
        extra = {"assumed_fps": self.assumed_fps, "warning": self.warning, "written": self.written}
        return record | {key: value for key, value in extra.items() if value is not None}


@dataclass
class StretchScores:
    """The scores of S stretches of time."""

    score: Tensor  # (S, C)
    yes: Tensor  # (S, C)
    unknown: Tensor  # (S,)


def answers_of_stretches(table: StretchScores, labels: list[str], rule: AnswerRule) -> list[Answer]:
    """Answer each stretch: with a label or "none of these", or with the places of several labels."""
    if rule.multi:
        return [tuple(sorted(rule.several(yes))) for yes in table.yes.tolist()]
    best = table.score.argmax(dim=-1).tolist()
    sure = [rule.single(labels[c], unknown) for c, unknown in zip(best, table.unknown.tolist(), strict=True)]
    return [answer or NONE_OF_THESE for answer in sure]


def merge(
    table: StretchScores,
    times: list[float],
    labels: list[str],
    options: WindowOptions,
    seen: Callable[[int], tuple[int, ...]],
    cuts: Collection[int] = (),
) -> list[Segment]:
    """Merge neighbours with one answer to segments; stretch s lasts from ``times[s]`` to ``times[s + 1]``.

    ``seen`` gives the frames that a stretch was judged by. A segment ends before each stretch of ``cuts``.
    """
    answers = answers_of_stretches(table, labels, AnswerRule(options.min_confidence, options.multi))
    segments = []
    first = 0
    for place in range(1, len(answers) + 1):
        if place < len(answers) and place not in cuts and answers[place] == answers[first]:
            continue
        found = _segment(table, times, labels, options.top_k, first, place, answers[first])
        surest = first + int(table.unknown[first:place].argmin())
        segments.append(replace(found, seen=seen(surest)))
        first = place
    return segments


def _segment(
    table: StretchScores,
    times: list[float],
    labels: list[str],
    top_k: int,
    first: int,
    end: int,
    answer: Answer,
) -> Segment:
    """Make a segment of some stretches."""
    import torch

    weight = torch.tensor([max(times[i + 1] - times[i], SHORTEST) for i in range(first, end)])
    weight = (weight / weight.sum())[:, None]
    score = (weight * table.score[first:end]).sum(dim=0)
    yes = (weight * table.yes[first:end]).sum(dim=0)
    unknown = float((weight[:, 0] * table.unknown[first:end]).sum())
    return make_segment((times[first], times[end]), labels, top_k, answer, score, yes, unknown)


def make_segment(
    times: tuple[float, float],
    labels: list[str],
    top_k: int,
    answer: Answer,
    score: Tensor,
    yes: Tensor,
    unknown: float,
) -> Segment:
    """Make a segment of means over its stretches: ``score`` (C,), ``yes`` (C,), ``unknown``.

    ``answer``: a label, or the places of several.
    """
    best = score.topk(min(top_k, len(labels))).indices.tolist()
    several = None
    if not isinstance(answer, str):
        sure = sorted(answer, key=lambda c: -float(yes[c]))
        best = list(dict.fromkeys([*best, *sure]))
        several = [labels[c] for c in sure]
        answer = next(iter(several), NONE_OF_THESE)
    found = [LabelScore(labels[c], float(score[c]), float(yes[c])) for c in best]
    return Segment(*times, answer, found, unknown, several)
