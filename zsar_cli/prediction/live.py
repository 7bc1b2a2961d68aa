"""Segments of a live source as they end: the engine behind ``zsar predict rtsp://...``.

The windows and answers are those of :mod:`zsar_cli.prediction.windows`. A moment is answered once no window that is
still to come can cover it, so a segment is known one window after its end. What is kept does not grow.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from zsar_cli.errors import VideoError, memory_explained
from zsar_cli.prediction.confidence import AnswerRule
from zsar_cli.prediction.timeline import (
    SHORTEST,
    Answer,
    Segment,
    answers_of_stretches,
    make_segment,
)
from zsar_cli.prediction.windows import OVERFLOWED, Shot, Slider, WindowOptions, score_windows
from zsar_cli.video.grid import cells
from zsar_cli.video.live import LivePart, LiveRequest, load_live

if TYPE_CHECKING:
    from torch import Tensor

    from zsar_cli.model.zsar import RecognizerModel
    from zsar_cli.text.embeddings import PromptEmbeddings
    from zsar_cli.video.pool import DecodePool

DELAYS = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0)  # s before each try to have a lost source again
LATE = 5.0  # s that a decoder has to end once it is told to
TOLD_EVERY = 60.0  # s between two notes of frames that were left out


@dataclass
class _Stretch:
    """A stretch whose answer is settled: when it starts, in s, its scores, and whether a shot starts with it."""

    start: float
    answer: Answer
    score: Tensor  # (C,)
    yes: Tensor  # (C,)
    unknown: float
    cut: bool


@dataclass
class _Sums:
    """The segment in progress: its start and answer, and weighted sums over its stretches but the last."""

    start: float
    answer: Answer
    score: Tensor  # (C,)
    yes: Tensor  # (C,)
    unknown: float = 0.0
    weight: float = 0.0

    def add(self, stretch: _Stretch, end: float) -> None:
        """Add a stretch that lasts until then."""
        weight = max(end - stretch.start, SHORTEST)
        self.score = self.score + weight * stretch.score
        self.yes = self.yes + weight * stretch.yes
        self.unknown += weight * stretch.unknown
        self.weight += weight


class LiveTimeline:
    """Takes the frames of one connection as they come, and gives segments as they end."""

    def __init__(
        self, model: RecognizerModel, text: PromptEmbeddings, options: WindowOptions, offset: float = 0.0
    ) -> None:
        """``offset``: when the first frame came, in s from the first of the source."""
        self.options, self.text, self.offset = options, text, offset
        self._slider = Slider(model, options)
        self._rows: list[
            tuple[str | tuple[int, ...], Tensor, Tensor, float]
        ] = []  # of each window of the slider
        self._settled = 0  # tick of the last shot up to which answers are
        self._cut = False  # whether the next stretch starts a shot
        self._last: _Stretch | None = None
        self._sums: _Sums | None = None

    @property
    def duration(self) -> float:
        """Seconds of the source up to the last frame."""
        return self.offset + self._slider.duration

    def take(self, part: LivePart) -> Iterator[Segment]:
        """Take the next frames, and yield the segments that have ended."""
        if part.end is not None:
            self._slider.info = replace(self._slider.info, duration=part.end)
        if part.chunk is None:
            return
        self._slider.take(part.chunk)
        self._score()
        *over, shot = self._slider.shots
        for finished, following in zip(over, [*over[1:], shot], strict=False):
            yield from self._settle(finished, None, following.start)
        shot.ticks.clear()  # which frames a window saw is nothing that is asked for
        shot.indices.clear()
        end = round((self._slider.duration - shot.start) / shot.step)
        # The window that ends with the shot may still reach back so far
        yield from self._settle(shot, end - self.options.frames - 1, self._slider.duration)

    def finish(self) -> Iterator[Segment]:
        """Yield what is left at the end, with the segment in progress."""
        if not self._slider.shots:
            return
        self._slider.finish(whole=True)
        self._score()
        yield from self._settle(self._slider.shots[-1], None, self._slider.duration)
        if self._sums is not None and self._last is not None:
            self._sums.add(self._last, self._slider.duration)
            yield self._segment(self._sums, self._slider.duration)

    def _score(self) -> None:
        """Score the windows that are new."""
        new = self._slider.embeddings[len(self._rows) :]
        if not new:
            return
        table = score_windows(self._slider.model, new, self.text)
        if not table.unknown.isfinite().all():
            raise VideoError("not_finite", OVERFLOWED)
        rule = AnswerRule(self.options.min_confidence, self.options.multi)
        answers = answers_of_stretches(table, self.text.labels, rule)
        self._rows += zip(answers, table.score, table.yes, table.unknown.tolist(), strict=True)

    def _settle(self, shot: Shot, until: int | None, end: float) -> Iterator[Segment]:
        """Take the stretches of the first shot up to a tick as they are, or all; ``end``: of the shot, in s."""
        for first, last, covering in cells(shot.spans):
            if last <= self._settled:
                continue
            if until is not None and last > until:
                break
            row = self._rows[min(covering, key=lambda window: self._rows[window][3])]
            start = min(shot.start + max(first, self._settled) * shot.step, end)
            yield from self._append(_Stretch(start, *row, cut=self._cut))
            self._settled, self._cut = last, False
        gone = len(shot.spans) if until is None else sum(span.end <= self._settled for span in shot.spans)
        del shot.spans[:gone], self._slider.embeddings[:gone], self._rows[:gone]
        if until is None:
            self._slider.shots.pop(0)
            self._settled, self._cut = 0, True

    def _append(self, stretch: _Stretch) -> Iterator[Segment]:
        """Add the next stretch; yield the segment that ends with it, if one does."""
        if self._sums is not None and self._last is not None:
            self._sums.add(self._last, stretch.start)
            if stretch.cut or stretch.answer != self._sums.answer:
                yield self._segment(self._sums, stretch.start)
                self._sums = None
        if self._sums is None:
            self._sums = _Sums(stretch.start, stretch.answer, 0 * stretch.score, 0 * stretch.yes)
        self._last = stretch

    def _segment(self, sums: _Sums, end: float) -> Segment:
        clock = self.offset + self._slider.info.start
        means = sums.score / sums.weight, sums.yes / sums.weight, sums.unknown / sums.weight
        times = clock + sums.start, clock + end
        return make_segment(times, self.text.labels, self.options.top_k, sums.answer, *means)


@dataclass
class Watched:
    """What is known of a source besides its segments."""

    frames: int = 0  # that the model saw
    duration: float = 0.0  # s
    began: float | None = None  # when its first frame came, in s since 1970
    dropped: int = 0  # frames that were left out, as the model was behind


def watch(
    model: RecognizerModel,
    request: LiveRequest,
    text: PromptEmbeddings,
    pool: DecodePool,
    options: WindowOptions,
    watched: Watched,
    *,
    stop: threading.Event,
    hard: threading.Event,
    tell: Callable[[str], None],
) -> Iterator[Segment]:
    """Yield the segments of a source as they end. One that is lost is tried again, some times.

    Args:
        model: the model.
        request: how its frames are decoded; ``request.stop`` ends that.
        text: the labels.
        pool: decodes.
        options: of the windows.
        watched: is filled in.
        stop: no lost source is tried again once it is set.
        hard: nothing is waited for any more once it is set.
        tell: says what happens, in a sentence.

    Raises:
        VideoError: the source cannot be had, or not again.
    """
    source, tries, told = request.source, 0, 0.0
    while True:
        timeline, error = None, None
        try:
            for _, parts in pool.stream([request], load_live, stop=hard):
                for part in parts:
                    if timeline is None:
                        first = time.time() - (part.chunk.info.duration if part.chunk else 0.0)
                        watched.began = watched.began or first
                        offset = max(first - watched.began, watched.duration)
                        timeline = LiveTimeline(model, text, options, offset)
                        tries = 0
                    watched.dropped += part.dropped
                    watched.frames += len(part.chunk.ticks) if part.chunk else 0
                    if part.dropped and time.monotonic() - told > TOLD_EVERY:
                        told = time.monotonic()
                        tell(f"{source.name}: the model is too slow; {watched.dropped} frames were left out.")
                    with memory_explained("use fewer --frames, a longer --stride"):
                        yield from timeline.take(part)
                    watched.duration = timeline.duration
        except VideoError as why:
            error = why
        if timeline is not None:
            yield from timeline.finish()
        if stop.is_set() or (source.kind == "pipe" and error is None):
            return
        error = error or VideoError("unreachable", "the stream ended")
        if source.kind == "pipe" or watched.began is None:
            raise error
        if tries == len(DELAYS):
            raise VideoError(error.kind, f"{error.message}; {tries} more tries failed")
        tell(f"{source.name}: {error.message}; trying again in {DELAYS[tries]:g} s.")
        stop.wait(DELAYS[tries])
        tries += 1
        if stop.is_set():
            return
