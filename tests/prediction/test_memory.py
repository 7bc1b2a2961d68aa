"""Where a device runs out of memory, videos go through the model in smaller portions, with the same answers."""

from __future__ import annotations

import pytest
import torch

from tests.video_files import write_video
from zsar_cli import Recognizer, UsageError
from zsar_cli.model import backbone as backbones
from zsar_cli.model.backbone import Backbone
from zsar_cli.portions import Portion

LABELS = ["walking", "running", "jumping", "a cat", "a dog"]


def full() -> None:
    raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")


@pytest.fixture
def ask(tiny_clip_dir, tmp_path):
    """All that is asked of a model, in numbers; the model is loaded anew each time."""
    video = write_video(tmp_path / "a.mp4", 40)

    def numbers() -> tuple[Recognizer, list]:
        recognizer = Recognizer.load(tiny_clip_dir)
        found = recognizer.predict(video, LABELS, views=3, frames=4)
        timeline = recognizer.segments(video, LABELS, window=1.0, stride=0.5)
        embedding = recognizer.embed_video(video, views=3, frames=4)
        return recognizer, [
            *[label.score for label in found.predictions],
            *[segment.unknown for segment in timeline.segments],
            *embedding.tolist(),
            *recognizer.model.backbone.encode_text(LABELS).flatten().tolist(),  # others may be in the cache
        ]

    return numbers


def test_frames_and_texts_that_do_not_fit_go_through_in_halves(ask, monkeypatch):
    _, expected = ask()
    encode, texts = Backbone.encode_frames, backbones.encode_tokens
    monkeypatch.setattr(Backbone, "encode_frames", lambda b, p: encode(b, p) if len(p) <= 5 else full())
    monkeypatch.setattr(
        backbones,
        "encode_tokens",
        lambda clip, how, rows: texts(clip, how, rows) if len(rows) < 3 else full(),
    )
    recognizer, found = ask()
    assert found == pytest.approx(expected, rel=1e-4, abs=1e-5)
    assert recognizer.model.backbone.frames_at_once.size <= 5
    assert recognizer.model.backbone.texts_at_once.size < 3


def test_one_clip_that_does_not_fit_is_an_error_with_a_way_out(ask, monkeypatch):
    monkeypatch.setattr(Backbone, "encode_frames", lambda b, p: full())
    with pytest.raises(UsageError, match=r"out of memory; use a smaller --batch-size, fewer --frames"):
        ask()


def test_a_portion_that_failed_is_not_tried_again():
    portion, tried = Portion(8, "frames"), []

    def work(part: slice) -> int:
        tried.append(part.stop - part.start)
        if tried[-1] > 3:
            full()
        return tried[-1]

    assert sum(portion.map(10, work)) == 10
    assert sum(portion.map(5, work)) == 5
    assert tried == [8, 4, 2, 2, 2, 2, 2, 2, 2, 1]
    with pytest.raises(ValueError, match="no such"):
        list(portion.map(2, lambda part: (_ for _ in ()).throw(ValueError("no such"))))
