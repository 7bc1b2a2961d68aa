"""When it happens: sliding windows over long video, the engine behind ``zsar predict --window``.

A video is decoded once and each of its frames goes through the visual tower once; windows share them. Every
moment is answered by the surest of the windows that cover it, the one with the lowest ``unknown``: a window that
straddles two actions is rarely that, so segments end where actions do (the mean of the windows' embeddings blurred
every boundary by half a window). The price: an action before nothing may seem to last up to a window longer.
Neighbouring stretches with the same answer become one segment. With ``shots``, windows lie inside shots, and a hard cut
ends a segment.
"""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING

from zsar_cli import checks
from zsar_cli.errors import UsageError, VideoError, memory_explained
from zsar_cli.portions import Portion
from zsar_cli.prediction.confidence import DEFAULT
from zsar_cli.prediction.frame_keeper import FrameKeeper
from zsar_cli.prediction.records import Failure
from zsar_cli.prediction.timeline import StretchScores, Timeline, merge
from zsar_cli.run_log import StageTimes
from zsar_cli.video.given import Video, named
from zsar_cli.video.grid import GridChunk, GridRequest, Span, cells, last_span, load_grid, load_info, spans
from zsar_cli.video.images import IMAGE_RATE
from zsar_cli.video.pool import DecodePool
from zsar_cli.video.times import VideoInfo

if TYPE_CHECKING:
    from torch import Tensor

    from zsar_cli.model.backbone import FrameFeatures
    from zsar_cli.model.zsar import RecognizerModel
    from zsar_cli.text.embeddings import PromptEmbeddings

WINDOWS_AT_ONCE = 16  # through the motion modules together
SCORED_AT_ONCE = 1024
LOOKED_AT = 64  # videos whose durations decide whether windows are needed
OVERFLOWED = "the model's numbers overflowed on this video; use --precision fp32"
MOST_WINDOWS = 250_000  # of one video: what they say is kept to its end; at the default stride, 138 hours


@dataclass(frozen=True)
class WindowOptions:
    """Windows of ``window`` s that start ``stride`` s apart, each shown to the model as ``frames`` frames.

    ``shots``: no window straddles a hard cut, and a shot that is shorter than a window is one.
    ``min_confidence`` and ``multi`` as in :class:`zsar_cli.prediction.confidence.AnswerRule`. ``fps``: of folders of
    frames.
    """

    window: float = 4.0
    stride: float = 2.0
    frames: int = 8
    top_k: int = 5
    min_confidence: float = DEFAULT
    decoder: str = "auto"
    fps: float = IMAGE_RATE
    multi: bool = False
    shots: bool = False

    def __post_init__(self) -> None:
        checks.number("window", self.window, checks.WINDOW)
        checks.number("stride", self.stride, checks.WINDOW)
        checks.whole("frames", self.frames, checks.FRAMES)
        checks.whole("top_k", self.top_k, checks.TOP_K)
        checks.number("min_confidence", self.min_confidence, checks.SHARE)
        checks.truth("multi", self.multi)
        checks.truth("shots", self.shots)
        checks.choice("decoder", self.decoder, checks.DECODERS)
        checks.number("fps", self.fps, checks.FPS)
        if not 0 < self.stride <= self.window:
            raise UsageError(
                f"A stride of {self.stride:g} s over windows of {self.window:g} s leaves gaps or never moves on; "
                "choose a stride above 0 and at most as long as a window."
            )


def run_windows(
    model: RecognizerModel,
    videos: Iterable[Video],
    text: PromptEmbeddings,
    pool: DecodePool,
    options: WindowOptions,
    *,
    shown: bool = False,
    stop: threading.Event | None = None,
    report: Callable[[float, float | None], None] = lambda seconds, length: None,
    times: StageTimes | None = None,
) -> Iterator[Timeline | Failure]:
    """Yield a timeline for each video, in order; one that cannot be read gives a Failure.

    With ``shown``, a timeline keeps some of its frames. Once ``stop`` is set, nothing more is yielded. ``report`` is
    told how many more seconds of video are done, and the video's length in s, or None where its index does not tell.
    """
    stop, times = stop or threading.Event(), times or StageTimes()

    def request(video: Video) -> GridRequest:
        source = named(video)[1]
        shape = options.window, options.frames, model.preprocess, options.fps
        return GridRequest(source, *shape, look=shown, shots=options.shots, threads=pool.alone)

    for video, chunks in pool.stream(videos, load_grid, request, stop):
        path = named(video)[0]
        slider = Slider(model, options, keeper=FrameKeeper() if shown else None)
        warning = None
        try:
            for chunk in times.waiting("waiting for decoders", chunks):
                if stop.is_set():
                    return
                with times.measured("model"), memory_explained("use fewer --frames, a longer --stride"):
                    report(slider.take(chunk), chunk.info.duration or None)
                if len(slider.embeddings) > MOST_WINDOWS:
                    raise VideoError(
                        "too_long", f"these are more than {MOST_WINDOWS:,} windows; make --stride longer"
                    )
            if stop.is_set():
                return
        except VideoError as error:
            if not slider.shots:
                yield Failure(path, error.kind, error.message)
                continue
            # What was found in an hour of video is not thrown away because its end is damaged
            warning = f"only the first {slider.duration:.1f} s could be read: {error.message}"
        slider.finish(whole=warning is None)
        yield _timeline(path, slider, text, options, warning)


def any_longer(videos: Iterable[Video], seconds: float, pool: DecodePool, fps: float = IMAGE_RATE) -> bool:
    """Tell whether one of the first videos is longer, by their indexes; those that cannot be read are not."""

    def request(video: Video) -> GridRequest:
        return GridRequest(named(video)[1], seconds, image_rate=fps)

    for _, found in pool.stream(islice(videos, LOOKED_AT), load_info, request, keep=True):
        try:
            if any(info.duration > seconds for info in found):
                return True
        except VideoError:
            continue
    return False


@dataclass
class Shot:
    """A shot, or a whole video where cuts are not looked for: its ticks, its windows, and their frames."""

    start: float  # s from the video's first frame
    step: float  # s from tick to tick
    first: int  # of its spans among the video's
    spans: list[Span] = field(default_factory=list)
    number: int = 0  # of the next window
    ticks: list[int] = field(default_factory=list)  # of all frames, rising
    indices: list[int] = field(default_factory=list)  # which frames of the file they are
    # (first tick, features of one frame) of what windows still need
    shown: list[tuple[int, FrameFeatures]] = field(default_factory=list)

    def indices_of(self, span: Span, frames: int) -> tuple[int, ...]:
        """Find the frames of the file that a window shows to the model."""
        ticks = range(span.start, span.start + frames)
        return tuple(self.indices[max(bisect_right(self.ticks, tick) - 1, 0)] for tick in ticks)


@dataclass
class Slider:
    """Takes a video's frames as they come and keeps the features that windows still need."""

    model: RecognizerModel
    options: WindowOptions
    keeper: FrameKeeper | None = None
    embeddings: list[Tensor] = field(default_factory=list)  # of each span of windows, (E,)
    shots: list[Shot] = field(default_factory=list)
    duration: float = 0.0  # s so far
    info: VideoInfo = field(default_factory=lambda: VideoInfo(0.0, 0, 0, 0, 1.0))  # by the file's index
    frames: int = 0
    warning: str | None = None
    at_once: Portion = field(default_factory=lambda: Portion(WINDOWS_AT_ONCE, "windows"))

    def take(self, chunk: GridChunk) -> float:
        """Encode the frames of a chunk and the windows they complete; returns the seconds that were added."""
        features = self._encode(chunk)
        if self.keeper is not None:
            self.keeper.take(chunk)
        if not self.shots or chunk.start != self.shots[-1].start:
            self._end_shot(chunk.start)
            self.shots.append(Shot(chunk.start, chunk.step, len(self.embeddings)))
        shot = self.shots[-1]
        shot.ticks += chunk.ticks.tolist()
        shot.indices += chunk.indices.tolist()
        shot.shown += zip(chunk.ticks.tolist(), features, strict=True)
        self.info, self.warning = chunk.info, chunk.warning
        self.frames += len(chunk.ticks)
        end = int(chunk.ticks[-1]) + 1
        before, self.duration = self.duration, chunk.start + end * chunk.step
        self._slide(shot, end)
        return self.duration - before

    def finish(self, whole: bool) -> None:
        """Score the windows that only the video's end completes. ``whole``: it was read to its end."""
        if whole and self.info.duration > 0:
            self.duration = self.info.duration
        self._end_shot(self.duration)

    def _end_shot(self, end: float) -> None:
        """Score the windows that only a shot's end completes, at ``end`` s from the video's first frame."""
        if not self.shots:
            return
        shot = self.shots[-1]
        self._slide(shot, round((end - shot.start) / shot.step))
        before = shot.spans[-1] if shot.spans else None
        last = last_span(before, end - shot.start, self.options.frames, shot.step)
        self._embed(shot, [last] if last else [])
        shot.shown.clear()

    @property
    def _whole_clips(self) -> bool:
        """Whether the tower looks across the frames of a clip."""
        family = self.model.backbone.family
        return family is not None and bool(family.across_frames)

    def _slide(self, shot: Shot, end: int) -> None:
        """Score every window whose ticks lie before ``end``."""
        frames = self.options.frames
        # In ticks; windows start on ticks. A shot shorter than a window is one window; its stride shrinks along
        stride = min(max(self.options.stride / shot.step, 1.0), float(frames))
        ready: list[Span] = []
        for number, span in spans([tick for tick, _ in shot.shown], shot.number, end, frames, stride):
            ready.append(span)
            shot.number = number
        self._embed(shot, ready)
        # The last window ends with the shot: it may reach back a window from here
        keep = min(round(shot.number * stride), end - frames)
        gone = bisect_right([tick for tick, _ in shot.shown], keep) - 1
        del shot.shown[: max(gone, 0)]

    def _embed(self, shot: Shot, some: list[Span]) -> None:
        import torch

        from zsar_cli.model.precision import arithmetic

        def embed(part: slice) -> Tensor:
            windows = [self._window(shot, span.start) for span in some[part]]
            stacked = type(windows[0])(
                torch.stack([w.embedding for w in windows]), torch.stack([w.tokens for w in windows])
            )
            if self._whole_clips:
                stacked = self.model.encode_frames(stacked.embedding)
            return self.model.encode_video(stacked).embedding

        with torch.inference_mode(), arithmetic(self.model.backbone.precision):
            for part in self.at_once.map(len(some), embed):
                self.embeddings += list(part)
        shot.spans += some

    def _window(self, shot: Shot, start: int) -> FrameFeatures:
        """Collect the features (T, ...) of the frames that are on show at the window's ticks."""
        import torch

        seen, place = [], 0
        for tick in range(start, start + self.options.frames):
            while place + 1 < len(shot.shown) and shot.shown[place + 1][0] <= tick:
                place += 1
            seen.append(shot.shown[place][1])
        kind = type(seen[0])
        return kind(torch.stack([f.embedding for f in seen]), torch.stack([f.tokens for f in seen]))

    def _encode(self, chunk: GridChunk) -> list[FrameFeatures]:
        """Run the visual tower once over each frame."""
        import torch

        from zsar_cli.features.encoding import to_device
        from zsar_cli.model.backbone import FrameFeatures
        from zsar_cli.model.precision import arithmetic

        backbone = self.model.backbone
        pixels = to_device(torch.from_numpy(chunk.pixels), backbone.device)
        if self._whole_clips:  # the tower sees the frames of a window together, and not before
            frames = backbone.normalise(pixels)
            return [FrameFeatures(frame, frame[:0, :0]) for frame in frames]

        def encode(part: slice) -> FrameFeatures:
            found: FrameFeatures = backbone.encode_frames(backbone.normalise(pixels[part]))
            return found

        with torch.inference_mode(), arithmetic(backbone.precision):
            parts = list(backbone.frames_at_once.map(len(pixels), encode))
        kind = type(parts[0])
        return [kind(*pair) for f in parts for pair in zip(f.embedding, f.tokens, strict=True)]


def _timeline(
    path: str, slider: Slider, text: PromptEmbeddings, options: WindowOptions, warning: str | None
) -> Timeline | Failure:
    import torch

    windows = score_windows(slider.model, slider.embeddings, text)
    if not torch.isfinite(windows.unknown).all():
        return Failure(path, "not_finite", OVERFLOWED)
    stretches = list(_stretches(slider, windows.unknown.tolist()))
    surest = [shot.first + window for _, shot, window in stretches]
    table = StretchScores(windows.score[surest], windows.yes[surest], windows.unknown[surest])
    info, times = slider.info, [time for time, _, _ in stretches] + [slider.duration]

    def seen(stretch: int) -> tuple[int, ...]:
        _, shot, window = stretches[stretch]
        return shot.indices_of(shot.spans[window], options.frames)

    cuts = {i for i in range(1, len(stretches)) if stretches[i][1] is not stretches[i - 1][1]}
    segments = merge(table, [info.start + time for time in times], text.labels, options, seen, cuts)
    return Timeline(
        video=path,
        segments=segments,
        duration=slider.duration,
        frames=slider.frames,
        warning=warning or slider.warning,
        assumed_fps=info.fps if info.assumed else None,
        shown=None if slider.keeper is None else slider.keeper.shown(),
        min_confidence=options.min_confidence,
    )


def score_windows(
    model: RecognizerModel, embeddings: Sequence[Tensor], text: PromptEmbeddings
) -> StretchScores:
    """Score windows by their embeddings, (E,) each."""
    import torch

    score, yes, unknown = [], [], []
    for some in torch.stack(list(embeddings)).split(SCORED_AT_ONCE):
        found = model.score(some, text.positive, text.negative, text.rivals(model))
        score.append(found.score.cpu())
        yes.append(found.yes.cpu())
        unknown.append(found.unknown.cpu())
    return StretchScores(torch.cat(score), torch.cat(yes), torch.cat(unknown))


def _stretches(slider: Slider, doubt: list[float]) -> Iterator[tuple[float, Shot, int]]:
    """Yield each stretch between starts and ends of windows: its start in s, its shot, the surest window over it."""
    ends = [shot.start for shot in slider.shots[1:]] + [slider.duration]
    for shot, end in zip(slider.shots, ends, strict=True):
        for first, _, covering in cells(shot.spans):
            surest = min(covering, key=lambda window: doubt[shot.first + window])
            yield min(shot.start + first * shot.step, end), shot, surest
