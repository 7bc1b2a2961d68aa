"""``zsar_cli.train`` is what ``zsar train`` runs."""

from __future__ import annotations

from pathlib import Path

import pytest

import zsar_cli
from tests.tiny_models import VIT
from tests.video_files import write_video
from zsar_cli import Recognizer, UsageError
from zsar_cli.video.sampling import Sampling


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("mine")
    for name in ("left", "right"):
        (folder / name).mkdir()
        for number in range(3):
            write_video(folder / name / f"{number}.mp4", 6)
    return folder


def test_a_folder_of_videos_becomes_a_model_and_the_caller_is_told(videos, tiny_clip_dir, tmp_path):
    rows: list[tuple[float, int]] = []
    summary = zsar_cli.train(
        videos,
        output=tmp_path / "run",
        model=tiny_clip_dir,  # a path, too
        steps=2,
        least_steps=1,
        frames=2,
        clip_seconds=0.1,
        workers=0,
        device="cpu",
        report=lambda row, steps: rows.append((row["step"], steps)),
    )
    assert summary.ended
    assert summary.steps == 2
    assert rows[-1] == (2, 2)
    recognizer = Recognizer.load(tmp_path / "run")
    assert recognizer.classes == ("left", "right")
    assert recognizer.model.choose(None, 1) == Sampling(2, seconds=0.1)
    assert (tmp_path / "run" / "curves.png").exists()
    with pytest.raises(UsageError, match="already holds a run"):
        zsar_cli.train(videos, output=tmp_path / "run", model=str(tiny_clip_dir), steps=2)


def test_a_run_stops_where_it_is_asked_to_and_goes_on(videos, tiny_clip_dir, tmp_path):
    options = {"model": str(tiny_clip_dir), "steps": 2, "least_steps": 1, "frames": 2, "workers": 0}
    stopped = zsar_cli.train(videos, output=tmp_path / "run", device="cpu", stop=lambda: True, **options)
    assert (stopped.ended, stopped.steps) == (False, 1)
    done = zsar_cli.train(output=tmp_path / "run", resume=True, device="cpu", workers=0)
    assert (done.ended, done.steps) == (True, 2)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"workers": "2"}, "workers"),
        ({"output": None}, "output"),
        ({"data_root": 3}, "data_root"),
        ({"max_missing": 2}, "max_missing"),
        ({"overwrite": "yes"}, "overwrite"),
        ({"config": "no such"}, "no such"),
        ({"step": 3}, "step"),
        ({"steps": "many"}, "steps"),
        ({"cache": "x", "tune": "full"}, "tune"),
        ({"parts": 3}, "parts must be a map"),
        ({"sweep": [0.5], "tune": "modules"}, "--sweep changes the backbone"),
        ({"sweep": [0.5], "architecture": VIT, "pretrained_weight": 0.0}, "--sweep needs pretrained weights"),
        ({"sweep": [0.5], "tune": "full", "patience": 3}, "--sweep compares mixtures of the last weights"),
        ({"labels": ["left", "right"]}, "labels must be"),
    ],
    ids=str,
)
def test_wrong_options_are_named(videos, tmp_path, options, said):
    with pytest.raises(UsageError) as raised:
        zsar_cli.train(videos, **{"output": tmp_path / "run", **options})
    assert said in str(raised.value)
    assert not (tmp_path / "run").exists()
