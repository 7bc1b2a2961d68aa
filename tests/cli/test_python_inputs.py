"""Arrays, tensors, pictures and open files go the way of files: the answers are the same."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from PIL import Image

from tests.video_files import write_video
from zsar_cli import Failure, Prediction, Recognizer, UsageError, VideoError

LABELS = ["waving", "running"]
RATE = 20


@pytest.fixture(scope="module")
def recognizer(tiny_clip_dir) -> Recognizer:
    return Recognizer.load(tiny_clip_dir, precision="fp32")


@pytest.fixture(scope="module")
def video(tmp_path_factory) -> Path:
    return write_video(tmp_path_factory.mktemp("inputs") / "a.mp4", 24, rate=RATE)


@pytest.fixture(scope="module")
def frames(video) -> np.ndarray:
    with av.open(str(video)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


@pytest.fixture(scope="module")
def forms(video, frames) -> dict[str, Any]:
    return {
        "<array>": frames,
        "<tensor>": torch.from_numpy(frames).movedim(-1, 1),
        "<images>": [Image.fromarray(frame) for frame in frames],
        "<frames>": list(frames),
        "<file>": io.BytesIO(video.read_bytes()),
    }


def scores(found: Any) -> list[float]:
    return [part.score for part in sorted(found.predictions, key=lambda part: part.label)]


@pytest.mark.parametrize(
    "shown", [{}, {"views": 2, "crops": 3, "frames": 4}], ids=["plain", "views and crops"]
)
def test_the_frames_of_a_file_are_answered_as_the_file_is(recognizer, video, forms, shown):
    wanted = recognizer.predict(video, LABELS, **shown)
    for name, form in forms.items():
        if name == "<file>":
            form.seek(0)
        found = recognizer.predict(form, LABELS, fps=RATE, **shown)
        assert found.video == name
        assert scores(found) == pytest.approx(scores(wanted), abs=1e-6)
        assert found.unknown == pytest.approx(wanted.unknown, abs=1e-6)
        assert found.duration == pytest.approx(wanted.duration, abs=1e-3)
        assert found.frames == wanted.frames
        assert found.assumed_fps == (None if name == "<file>" else RATE)


def test_every_method_takes_frames(recognizer, video, frames):
    seen, wanted = recognizer.explain(frames, LABELS), recognizer.explain(video, LABELS)
    assert np.array_equal(seen.frames, wanted.frames)
    assert np.allclose(seen.heat, wanted.heat, atol=1e-5)
    cut = {"window": 0.6, "stride": 0.3, "min_confidence": 0.0}
    timeline = recognizer.segments(frames, LABELS, fps=RATE, **cut)
    expected = recognizer.segments(video, LABELS, **cut)
    assert timeline.video == "<array>"
    assert timeline.duration == pytest.approx(expected.duration, abs=1e-3)
    assert [s.answer for s in timeline.segments] == [s.answer for s in expected.segments]
    assert [s.start for s in timeline.segments] == pytest.approx(
        [s.start for s in expected.segments], abs=1e-3
    )


def test_open_files_have_segments_and_leave_no_copy(recognizer, video, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with video.open("rb") as file:
        timeline = recognizer.segments(file, LABELS, window=0.6)
    assert timeline.video == str(video)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("workers", [0, 1])
def test_videos_of_all_kinds_may_stand_in_one_list(recognizer, video, frames, workers, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    cut = io.BytesIO(b"no video at all, " * 9)
    given = [video, frames, cut, io.BytesIO(b""), io.BytesIO(video.read_bytes()), list(frames[:3])]
    results = list(recognizer.predict_many(given, LABELS, workers=workers, fps=RATE))
    assert [result.video for result in results] == [
        *(str(video), "<array 2>", "<file 3>", "<file 4>", "<file 5>", "<frames 6>"),
    ]
    assert [isinstance(result, Failure) for result in results] == [False, False, True, True, False, False]
    assert scores(results[1]) == pytest.approx(scores(results[0]), abs=1e-6)
    assert scores(results[4]) == pytest.approx(scores(results[0]), abs=1e-6)
    assert not list(tmp_path.iterdir())


def test_a_picture_that_is_damaged_is_its_video_s_failure(recognizer, frames, tmp_path):
    data = io.BytesIO()
    Image.fromarray(frames[0]).save(data, "PNG")
    torn = Image.open(io.BytesIO(data.getvalue()[:90]))
    whole = Image.fromarray(frames[0])
    with pytest.raises(VideoError, match="frame 0"):
        recognizer.predict([torn, torn], LABELS)
    results = list(recognizer.predict_many([[torn, whole], [whole, whole]], LABELS, workers=1))
    assert isinstance(results[0], Failure)
    assert isinstance(results[1], Prediction)


def test_frames_at_hand_are_not_kept_in_a_cache(tiny_clip_dir, video, frames, tmp_path):
    recognizer = Recognizer.load(tiny_clip_dir, cache=tmp_path)
    first = recognizer.predict(frames, LABELS)
    other = recognizer.predict(frames[::-1][:5], LABELS)
    recognizer.predict(io.BytesIO(video.read_bytes()), LABELS)
    assert not list(tmp_path.rglob("*.safetensors"))
    assert scores(first) != scores(other)
    recognizer.predict(video, LABELS)
    assert len(list(tmp_path.rglob("*.safetensors"))) == 1


def test_the_embedding_of_a_video_is_what_labels_are_compared_with(recognizer, video, frames):
    embedding = recognizer.embed_video(video)
    assert embedding.shape == (recognizer.model.backbone.embed_dim,)
    assert embedding.dtype == torch.float32
    assert float(embedding.norm()) == pytest.approx(1.0, abs=1e-5)
    assert torch.allclose(recognizer.embed_video(frames), embedding, atol=1e-6)
    text = recognizer.embed_labels(LABELS)
    found = recognizer.model.score(
        embedding[None], text.positive, text.negative, text.rivals(recognizer.model)
    )
    assert found.score[0].tolist() == pytest.approx(scores(recognizer.predict(video, LABELS))[::-1], abs=1e-5)
    with pytest.raises(VideoError):
        recognizer.embed_video("no.mp4")
    with pytest.raises(UsageError, match="crops"):
        recognizer.embed_video(video, crops=2)


def test_a_recognizer_says_what_it_is(recognizer):
    assert recognizer.device.type == "cpu"
    assert recognizer.precision == "fp32"
    assert recognizer.classes == ()
    assert repr(recognizer).startswith(f"<Recognizer {recognizer.model.name}: cpu, fp32, 8 frames")


def test_names_of_options_are_checked_and_shown(recognizer, video):
    import inspect

    for method in (recognizer.predict, recognizer.predict_many, recognizer.segments, recognizer.explain):
        with pytest.raises(TypeError, match="did you mean 'frames'"):
            method([video] if method == recognizer.predict_many else video, LABELS, frame=8)
        assert "frames" in inspect.signature(method).parameters
    with pytest.raises(TypeError, match="views"):
        recognizer.segments(video, LABELS, views=2)


def test_what_the_log_warns_of_is_a_warning_of_our_own_in_python(recognizer, tmp_path):
    from zsar_cli import ZsarWarning

    (tmp_path / "labels.txt").write_text("1 waving\n0 running\n")
    with pytest.warns(ZsarWarning, match="numbers are removed") as said:
        recognizer.embed_labels(tmp_path / "labels.txt")
    assert said[0].filename == __file__


def test_a_command_says_its_warnings_itself(zsar, recognizer, tmp_path, video):
    (tmp_path / "labels.txt").write_text("1 waving\n0 running\n")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        done = zsar(
            "predict",
            video,
            "--labels",
            tmp_path / "labels.txt",
            "--model",
            recognizer.model.name,
            "--workers",
            0,
        )
    assert done.err.count("numbers are removed") == 1
    assert not [warning for warning in said if "numbers are removed" in str(warning.message)]


def test_places_are_those_of_the_labels_that_are_named(recognizer, frames):
    found = recognizer.explain(frames, LABELS, where=["running"])
    assert {place.label for place in found.where} <= {"running"}
    with pytest.raises(UsageError, match="where 'jumping' is not one of the 2 labels"):
        recognizer.explain(frames, LABELS, where=["jumping"])
