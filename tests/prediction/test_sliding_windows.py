"""Sliding windows: which frames they see, what they say, and when."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from fractions import Fraction
from itertools import accumulate, pairwise
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch.nn import functional as F

from tests.video_files import frame_number, write_video, write_with_sound
from zsar_cli.cli.output.timelines import subtitles, timeline_lines
from zsar_cli.errors import UsageError, VideoError
from zsar_cli.model.alignment import score_with_bank
from zsar_cli.model.backbone import FrameFeatures
from zsar_cli.model.zsar import VideoEncoding
from zsar_cli.portions import Portion
from zsar_cli.prediction.records import Failure
from zsar_cli.prediction.windows import WindowOptions, run_windows
from zsar_cli.text.embeddings import PromptEmbeddings
from zsar_cli.video.grid import GridRequest, Span, cells, last_span, load_grid, spans
from zsar_cli.video.pool import DecodePool
from zsar_cli.video.sampling import segment_indices
from zsar_cli.video.transforms import Preprocess, normalise

COLOURS = {"red": (220, 30, 30), "green": (30, 220, 30), "blue": (30, 30, 220)}
GREY = (128, 128, 128)
EXACT = Preprocess(size=(64, 160))  # the size of the numbered videos: nothing is cut off


def write_colours(
    path: Path,
    scenes: list[tuple[tuple[int, int, int], float]],
    rate: int = 10,
    stamps: Sequence[int] = range(10**6),
) -> Path:
    """A video of plain colours, each for so many seconds; ``stamps`` says when each frame is shown instead."""
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libx264", rate=rate, options={"preset": "ultrafast"})
        stream.codec_context.thread_count = 1
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        stream.codec_context.time_base = Fraction(1, rate)
        number = 0
        for colour, seconds in scenes:
            for _ in range(round(seconds * rate)):
                pixels = np.full((32, 32, 3), colour, np.uint8)
                frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
                frame.pts, frame.time_base = stamps[number], Fraction(1, rate)
                output.mux(stream.encode(frame))
                number += 1
        output.mux(stream.encode(None))
    return path


class ColourModel:
    """Embeds a frame as its mean colour: what it answers is known, and it counts the frames it saw."""

    name = "colours"
    preprocess = Preprocess(size=(16, 16), mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    device, dtype = torch.device("cpu"), torch.float32

    def __init__(self) -> None:
        self.seen = 0
        self.windows: list[int] = []
        self.backbone, self.family, self.precision = self, None, "fp32"
        self.frames_at_once = Portion(512, "frames")

    def normalise(self, pixels):
        return normalise(pixels, self.preprocess)

    def text_vectors(self, text):
        return text

    def encode_frames(self, pixels):
        self.seen += len(pixels)
        embedding = torch.cat([pixels.mean(dim=(2, 3)), torch.full((len(pixels), 1), 0.2)], dim=1)
        return FrameFeatures(embedding, embedding[:, None])

    def encode_video(self, features):
        self.windows.append(len(features.embedding))
        return VideoEncoding(F.normalize(features.embedding.mean(dim=1), dim=-1))

    def score(self, video, positive, negative=None, bank=None):
        return score_with_bank(video, positive, bank, scale=torch.tensor(20.0))


def text_side() -> PromptEmbeddings:
    names = list(COLOURS)
    positive = F.normalize(torch.tensor([[*c, 128] for c in COLOURS.values()]) / 127.5 - 1, dim=-1)
    bank = torch.tensor([[0.0, 0.0, 0.0, 1.0]]).repeat(5, 1)  # no colour at all
    return PromptEmbeddings(names, positive, None, bank)


def timeline(path: Path, window: float, stride: float, **options):
    model = ColourModel()
    with DecodePool(0) as pool:
        (found,) = run_windows(
            model, [str(path)], text_side(), pool, WindowOptions(window, stride, **options)
        )
    return found, model


def shown(found) -> list[tuple[str, float, float]]:
    return [(s.answer, s.start, s.end) for s in found.segments]


@pytest.mark.parametrize("stride", [2, 1, 0.5])
def test_boundaries_and_answers(tmp_path, stride):
    scenes = [(COLOURS["red"], 4), (COLOURS["blue"], 6), (COLOURS["green"], 6), (GREY, 4)]
    found, model = timeline(write_colours(tmp_path / "scenes.mp4", scenes), 2, stride)
    assert [answer for answer, _, _ in shown(found)] == ["red", "blue", "green", "none of these"]
    assert found.segments[0].start == 0
    assert found.segments[-1].end == found.duration == pytest.approx(20)
    ends = [segment.end for segment in found.segments]
    assert ends[:2] == pytest.approx([4, 10], abs=stride / 2 + 1e-6)
    assert 16 <= ends[2] < 18  # a little colour outweighs grey: less than a window
    for one, other in zip(found.segments, found.segments[1:], strict=False):
        assert one.end == other.start
    assert model.seen == found.frames == 80  # 8 frames each 2 s, whatever the stride
    best = found.segments[1].predictions[0]
    assert best.label == "blue"
    assert best.score > 0.9
    assert best.yes > 0.9


def test_no_confidence_asked_for_never_says_none(tmp_path):
    path = write_colours(tmp_path / "grey.mp4", [(COLOURS["red"], 2), (GREY, 4)])
    found, _ = timeline(path, 2, 1, min_confidence=0.0)
    assert "none of these" not in {answer for answer, _, _ in shown(found)}
    assert timeline(path, 2, 1)[0].segments[-1].answer == "none of these"


def test_with_shots_segments_end_at_cuts_and_no_window_straddles_one(tmp_path):
    red, blue, other_red = COLOURS["red"], COLOURS["blue"], (150, 20, 10)
    path = write_colours(tmp_path / "a.mp4", [(red, 3.3), (blue, 0.5), (red, 2.4), (other_red, 2.0)])
    found, _ = timeline(path, 2, 1, shots=True)
    assert [segment.answer for segment in found.segments] == ["red", "blue", "red", "red"]
    for segment, first, last in zip(found.segments, (0, 3.3, 3.8, 6.2), (3.3, 3.8, 6.2, 8.2), strict=True):
        assert (segment.start, segment.end) == pytest.approx((first, last))
        assert all(first <= number / 10 < last for number in segment.seen)
    assert len(set(found.segments[1].seen)) == 5  # all there are of half a second
    assert [segment.answer for segment in timeline(path, 2, 1)[0].segments] == ["red"]


@pytest.mark.parametrize(
    ("name", "count", "rate"), [("a.mp4", 40, 20), ("b.mkv", 100, 30), ("c.mp4", 16, 25)]
)
def test_one_window_over_all_sees_the_frames_of_predict(tmp_path, name, count, rate):
    path = write_video(tmp_path / name, count, rate=rate)
    for window in (count / rate, 100.0):
        chunks = list(load_grid(GridRequest(str(path), window, 8, EXACT)))
        numbers = [frame_number(f) for chunk in chunks for f in chunk.pixels]
        assert numbers == sorted(set(segment_indices(count, 8).tolist()))


def test_few_frames_and_gaps_in_time_are_shown_longer(tmp_path):
    still = write_video(tmp_path / "still.mp4", 1)
    found, model = timeline(still, 4, 2)
    assert (len(found.segments), found.frames, model.seen) == (1, 1, 1)
    slides = write_video(tmp_path / "slides.mp4", rate=10, ticks=[0, 30, 60, 90])
    found, model = timeline(slides, 2, 1)
    assert found.frames == model.seen <= 4
    assert found.segments[-1].end == found.duration > 9


HOURS = 3600 * 10  # in ticks of the videos that follow


@pytest.mark.parametrize("name", ["gap.mkv", "gap.nut"])
@pytest.mark.parametrize(("window", "stride"), [(4, 2), (0.01, 0.01), (86400, 86400)])
def test_a_frame_at_the_end_of_time_costs_no_more_than_any_other(tmp_path, name, window, stride):
    path = write_video(tmp_path / name, rate=10, ticks=[0, 1, 10**10])
    found, model = timeline(path, window, stride)
    assert found.duration == pytest.approx(1e9, rel=1e-6)
    assert found.segments[-1].end == found.duration
    assert sum(model.windows) < 300


def test_hours_without_a_frame_show_the_last_one(tmp_path):
    """As cameras record that wait for something to move."""
    path = tmp_path / "camera.mkv"
    stamps = [*range(40), *range(5 * HOURS, 5 * HOURS + 40)]
    write_colours(path, [(COLOURS["red"], 4), (COLOURS["blue"], 4)], stamps=stamps)
    found, model = timeline(path, 2, 1)
    assert [answer for answer, _, _ in shown(found)] == ["red", "blue"]
    assert found.segments[0].end == pytest.approx(5 * 3600, abs=1)
    assert found.duration == pytest.approx(5 * 3600 + 4)
    assert sum(model.windows) < 20


def test_a_chunk_spans_a_minute_however_long_windows_are(tmp_path):
    """The time limit is for a chunk: in one of 32 frames, hours of video could lie between them."""
    path = write_video(tmp_path / "a.mkv", rate=10, ticks=range(0, 8 * HOURS, HOURS // 2))
    for window, most in ((4, 16), (160, 3), (3600, 1)):
        chunks = list(load_grid(GridRequest(str(path), window, 8, EXACT)))
        assert max(len(chunk.ticks) for chunk in chunks) <= most


def test_time_stamps_that_no_number_holds_are_an_error(tmp_path):
    path = write_video(tmp_path / "a.mkv", rate=1000, ticks=[0, 40, 2**62])
    found, _ = timeline(path, 4, 2)
    assert (found.kind, "make no sense" in found.message) == ("unreadable", True)


def test_time_stamps_that_crowd_at_the_start_give_a_window(tmp_path):
    path = write_video(tmp_path / "a.mkv", rate=10**9, ticks=[0, 1, 2, 3])
    found, _ = timeline(path, 4, 2)
    assert [(segment.start, segment.end) for segment in found.segments] == [(0, found.duration)]


def test_more_windows_than_are_kept_end_a_video_with_a_warning(tmp_path, monkeypatch):
    monkeypatch.setattr("zsar_cli.prediction.windows.MOST_WINDOWS", 30)
    path = write_colours(tmp_path / "a.mp4", [(COLOURS["red"], 40)])
    found, _ = timeline(path, 2, 1)
    assert found.segments[0].answer == "red"
    assert "more than 30 windows" in found.warning


def test_video_shorter_than_a_window_is_one_segment(tmp_path):
    path = write_colours(tmp_path / "short.mp4", [(COLOURS["green"], 1)])
    found, model = timeline(path, 4, 2)
    assert shown(found) == [("green", 0, pytest.approx(1))]
    assert model.seen == 8  # as many as a window has, as predict would take


def windows_of(shown, duration, frames, stride, step) -> list[Span]:
    found = [span for _, span in spans(shown, 0, round(duration / step), frames, max(stride / step, 1.0))]
    last = last_span(found[-1] if found else None, duration, frames, step)
    return found + ([last] if last else [])


@pytest.mark.parametrize("busy", [True, False])
def test_windows_and_cells_cover_everything_once(busy):
    for duration, frames, stride, step in (
        (61, 8, 2, 0.5),
        (10.2, 8, 1.3, 0.25),
        (7.9, 4, 3, 1),
        (3, 8, 3, 0.4),
    ):
        total = max(frames, round(duration / step))
        shown = list(range(total)) if busy else [0, 3, 25]
        windows = windows_of(shown, duration, frames, stride, step)
        if busy:
            assert all(w.end - w.start == frames for w in windows)
            assert [w.start for w in windows[:-1]] == [
                round(n * stride / step) for n in range(len(windows) - 1)
            ]
        assert windows == sorted(windows, key=lambda w: w.start)
        assert windows[-1].end == total
        parts = cells(windows)
        assert parts[0][0] == 0
        assert [p[1] for p in parts[:-1]] == [p[0] for p in parts[1:]]
        assert parts[-1][1] == total
        for first, end, covering in parts:
            inside = [n for n, w in enumerate(windows) if w.start <= first and end <= w.end]
            assert list(covering) == inside


@given(
    gaps=st.lists(st.integers(1, 10**12), max_size=30),
    frames=st.integers(1, 40),
    share=st.floats(0.03, 1),
    tail=st.integers(1, 10**9),
)
def test_there_are_as_many_windows_as_frames_call_for_however_far_apart_they_are(gaps, frames, share, tail):
    shown = [0, *accumulate(gaps)]
    stride = max(1.0, share * frames)
    found = [span for _, span in spans(shown, 0, shown[-1] + tail, frames, stride)]
    assert len(found) <= (len(gaps) + 1) * (frames / stride + 3)
    assert all(one.start < other.start <= one.end for one, other in pairwise(found))  # no gaps
    for span in found:
        if span.end - span.start > frames:  # several windows: nothing changes in them
            assert not any(span.start < tick < span.end for tick in shown)


def test_segments_are_on_the_clock_of_the_container(tmp_path):
    path = write_with_sound(tmp_path / "late.mp4", video_at=1.5)
    found, _ = timeline(path, 1, 0.5)
    assert found.segments[0].start == pytest.approx(1.5, abs=0.01)
    assert found.segments[-1].end == pytest.approx(3.5, abs=0.01)
    assert found.duration == pytest.approx(2, abs=0.01)
    record = found.to_record()
    record["segments"] = [record["segments"][0] | {"answer": "red", "start": 1.5, "end": 3.5}]
    assert subtitles(record, "srt").splitlines()[1] == "00:00:01,500 --> 00:00:03,500"
    lines = [line.plain for line in timeline_lines(record, 60)]
    assert lines[1].count("█") == 45  # from end to end
    assert "╵0:02" in lines[2]
    assert "0:01.5 to 0:03.5" in lines[3]


def test_the_times_of_a_folder_of_frames_rest_on_the_rate_that_is_said(tmp_path):
    for number, colour in enumerate(["red"] * 8 + ["green"] * 8):
        Image.new("RGB", (8, 8), COLOURS[colour]).save(tmp_path / f"{number}.png")
    for fps in (25.0, 4.0):
        found, _ = timeline(tmp_path, 8 / fps, 4 / fps, fps=fps)
        assert shown(found) == [
            ("red", 0, pytest.approx(8 / fps)),
            ("green", pytest.approx(8 / fps), pytest.approx(16 / fps)),
        ]
        assert found.to_record()["assumed_fps"] == fps
    assert "assumed_fps" not in timeline(write_video(tmp_path / "a.mp4"), 1, 1)[0].to_record()


def test_stride_longer_than_a_window_is_refused():
    with pytest.raises(UsageError, match="gaps"):
        WindowOptions(2, 3)


def test_failures_have_their_place_and_a_damaged_end_costs_only_the_end(tmp_path):
    good = write_colours(tmp_path / "good.mp4", [(COLOURS["red"], 3)])

    class Pool(DecodePool):
        def stream(self, items, load, request, stop=None):
            for item in items:
                yield item, breaking(load(request(item)), item)

    def breaking(chunks, path):
        yield next(chunks)
        if "broken" in path:
            raise VideoError("crashed", "the decoder crashed on this file")
        yield from chunks

    broken = tmp_path / "broken.mp4"
    broken.write_bytes(good.read_bytes())
    paths = [str(tmp_path / "missing.mp4"), str(broken), str(good)]
    with Pool(0) as pool:
        missing, partial, whole = run_windows(ColourModel(), paths, text_side(), pool, WindowOptions(2, 1))
    assert isinstance(missing, Failure)
    assert missing.kind == "not_found"
    assert "only the first" in partial.warning
    assert partial.segments[0].answer == "red"
    assert whole.warning is None
    assert [r.video for r in (missing, partial, whole)] == paths


def test_workers_give_the_same_and_stop_ends_it(tmp_path):
    path = write_colours(tmp_path / "a.mp4", [(COLOURS["red"], 4), (COLOURS["green"], 4)])
    alone, _ = timeline(path, 2, 1)
    with DecodePool(1) as pool:
        told: list[tuple[float, float | None]] = []
        (found,) = run_windows(
            ColourModel(),
            [str(path)],
            text_side(),
            pool,
            WindowOptions(2, 1),
            report=lambda seconds, length: told.append((seconds, length)),
        )
    assert sum(seconds for seconds, _ in told) == pytest.approx(found.duration, abs=0.1)
    (length,) = {length for _, length in told}
    assert length == pytest.approx(found.duration, abs=0.1)  # so a bar knows its end
    assert found == alone
    stop = threading.Event()
    stop.set()
    with DecodePool(0) as pool:
        assert (
            list(run_windows(ColourModel(), [str(path)], text_side(), pool, WindowOptions(), stop=stop)) == []
        )


def join(paths, target) -> None:
    """Write the frames of several clips, one after the other, at the rate of the first."""
    with av.open(str(paths[0])) as first:
        rate = first.streams.video[0].average_rate
    frames = [
        frame.to_ndarray(format="rgb24") for path in paths for frame in av.open(str(path)).decode(video=0)
    ]
    with av.open(str(target), "w") as output:
        stream = output.add_stream("libx264", rate=rate, options={"crf": "10"})
        stream.height, stream.width = frames[0].shape[:2]
        for pixels in frames:
            output.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        output.mux(stream.encode(None))


@pytest.mark.slow
def test_five_clips_end_to_end_with_the_bundled_model(tmp_path):
    from benchmarks.samples import file_name
    from zsar_cli import Recognizer
    from zsar_cli.data.motion_shapes import class_labels
    from zsar_cli.files import ASSETS

    if not (ASSETS / "motion-tiny" / "model.safetensors").is_file():
        pytest.skip("the bundled model is not here")
    clips = [c for c in sorted((ASSETS / "samples").glob("*.mp4")) if not c.name.startswith("neither")][:5]
    join(clips, tmp_path / "long.mp4")
    found = Recognizer.load("motion-tiny", device="cpu", precision="fp32").segments(
        tmp_path / "long.mp4", str(ASSETS / "samples" / "labels.txt"), window=2, stride=1, min_confidence=0
    )
    labels = {file_name(label): label for label in class_labels("unseen")}
    truth = [labels[clip.name] for clip in clips]
    length = found.duration / 5

    def answer(time: float) -> str:
        return next(s.answer for s in found.segments if s.start <= time < s.end)

    right = [answer((n + 0.5) * length) == label for n, label in enumerate(truth)]
    assert sum(right) >= 4
    starts = [s.start for s in found.segments]
    for number in range(1, 5):
        if right[number - 1] and right[number]:
            assert min(abs(start - number * length) for start in starts) <= 0.5
