"""``zsar_cli.evaluate`` is what ``zsar eval`` runs."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path

import pytest

import zsar_cli
from tests.video_files import write_video
from zsar_cli import UsageError


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("test videos")
    for name in ("left", "right"):
        (folder / name).mkdir()
        for number in range(2):
            write_video(folder / name / f"{number}.mp4", 6)
    return folder


def test_results_are_those_of_the_command_and_the_caller_is_told(videos, tiny_clip_dir, tmp_path, capsys):
    done: list[float] = []
    options = {"frames": 2, "workers": 0, "device": "cpu", "precision": "fp32"}
    found = zsar_cli.evaluate(
        videos, tiny_clip_dir, output=tmp_path, progress=lambda total: nullcontext(done.append), **options
    )
    (part,) = found["parts"].values()
    assert part["videos"] == 4
    assert sum(done) == 4
    assert 0 <= part["top1"] <= 1
    written = json.loads((tmp_path / "results.json").read_text())
    assert written["parts"].keys() == found["parts"].keys()
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "")
    with pytest.raises(UsageError, match="frames"):
        zsar_cli.evaluate(videos, tiny_clip_dir, output=tmp_path, **{**options, "frames": 3})


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"protocol": "one-shot"}, "protocol"),
        ({"unknown": "hmdb51"}, "open-set"),
        ({"crops": 2}, "crops"),
        ({"max_missing": "all"}, "max_missing"),
        ({"overwrite": 1}, "overwrite"),
        ({"output": 3}, "output"),
        ({"model": "no such model"}, "no such model"),
        ({"descriptions": "none.yaml"}, "none.yaml"),
        ({"seed": -1}, "seed"),
        ({"seed": 1.5}, "seed"),
        ({"probe_motion": "motion"}, "probe_motion"),
        ({"shots": 3}, "shots"),
        ({"shots": [0]}, "each of shots"),
    ],
    ids=str,
)
def test_wrong_options_are_named(videos, tiny_clip_dir, options, said):
    with pytest.raises(UsageError) as raised:
        zsar_cli.evaluate(videos, **{"model": tiny_clip_dir, "workers": 0, **options})
    assert said in str(raised.value)
