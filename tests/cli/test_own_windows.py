"""``zsar predict`` with a model that was trained on clips of one length: windows slide by themselves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.close import assert_close
from tests.tiny_models import VIT
from tests.video_files import write_video
from zsar_cli import Recognizer
from zsar_cli.model.backbone import Backbone
from zsar_cli.model.zsar import RecognizerModel, TrainingRecord

LABELS = ("--labels", "camera", "--workers", 0)
NOTE = "was trained on clips of 1 s, so windows of 1 s slide over each video, inside its shots"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("runs") / "seconds"
    record = TrainingRecord(templates="plain", frames=2, clip_seconds=1.0)
    RecognizerModel(Backbone.from_config(dict(VIT)), record=record).save(folder)
    return folder


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("videos")
    picture = np.full((64, 96, 3), (200, 90, 30), np.uint8)
    return {
        name: write_video(folder / f"{name}.mp4", count, rate=10, picture=picture)
        for name, count in (("short", 12), ("long", 30))
    }


def test_a_longer_video_gets_windows_of_the_models_own_length_and_one_line_says_so(zsar, model, videos):
    done = zsar("predict", videos["long"], "--model", model, *LABELS)
    assert done.code == 0
    assert sum(NOTE in line for line in done.err.splitlines()) == 1
    (record,) = done.records
    assert set(record) == {"video", "segments", "duration", "frames", "min_confidence"}
    assert record["frames"] == 6  # 2 of each second
    assert_close(Recognizer.load(model).segments(videos["long"], "camera").to_record(), record)
    asked = zsar("predict", videos["long"], "--model", model, *LABELS, "--window", 1, "--stride", 0.5)
    assert NOTE not in asked.err
    assert_close(asked.records, done.records)


def test_a_clip_of_about_that_length_is_answered_as_ever_and_so_is_eval(zsar, model, videos):
    done = zsar("predict", videos["short"], "--model", model, *LABELS)
    assert NOTE not in done.err
    assert set(done.records[0]) == {"video", "predictions", "unknown", "duration", "frames"}
    both = zsar("predict", videos["short"], videos["long"], "--model", model, *LABELS)
    assert [len(record["segments"]) for record in both.records] == [1, 1]  # one kind of record in a run
    listed = zsar("predict", "-", "--model", model, *LABELS, stdin=str(videos["short"]).encode())
    assert "segments" in listed.records[0]


def test_one_video_alone_is_decoded_by_several_threads_with_the_same_answer(zsar, model, videos, monkeypatch):
    from zsar_cli.video import pool

    asked = []
    make = pool.ClipRequest
    monkeypatch.setattr(
        "zsar_cli.prediction.clips.ClipRequest",
        lambda *given, **more: asked.append(more["threads"]) or make(*given, **more),
    )
    monkeypatch.setattr(pool, "available_cores", lambda: 3)
    how = ("--model", model, "--labels", "camera", "--window", 0, "--workers", 1)
    alone = zsar("predict", videos["long"], *how).records
    both = zsar("predict", videos["long"], videos["short"], *how).records
    assert asked == [3, 1, 1]
    assert_close(alone[0], both[0])
    zsar("predict", videos["long"], *how[:-1], 0)  # in this process one does
    assert asked[3:] == [1]


@pytest.mark.parametrize("more", [("--window", 0), ("--views", 2), ("--crops", 3)])
def test_what_needs_whole_videos_gets_them(zsar, model, videos, more):
    done = zsar("predict", videos["long"], "--model", model, *LABELS, *more)
    assert (done.code, NOTE in done.err) == (0, False)
    assert "predictions" in done.records[0]


def test_subtitles_and_strides_need_no_window_then(zsar, model, videos, tiny_clip_dir):
    for more in (("--format", "vtt"), ("--stride", 0.2)):
        assert zsar("predict", videos["short"], "--model", model, *LABELS, *more).code == 0
        assert zsar("predict", videos["short"], "--model", tiny_clip_dir, *LABELS, *more).code == 2
    said = zsar("predict", videos["long"], "--model", tiny_clip_dir, *LABELS, "--shots")
    assert "--shots needs sliding windows" in said.err
