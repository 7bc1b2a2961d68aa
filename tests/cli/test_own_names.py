"""Names of the files about videos: one each, that tells which video it is."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zsar_cli.cli.output.own_names import OwnNames


def names(inputs: list[str], videos: list[str] | None) -> list[str]:
    found = OwnNames(inputs, videos)
    return [found.of(video) for video in (videos or inputs)]


def test_a_video_that_was_named_gives_its_own_name() -> None:
    videos = ["/x/a/long.mp4", "/y/other.mkv"]
    assert names(videos, videos) == ["long", "other"]


def test_same_named_videos_mirror_the_tree() -> None:
    videos = ["/data/cam1/clip.mp4", "/data/cam2/clip.mp4", "/data/cam2/b.mp4"]
    assert names(videos, videos) == ["cam1/clip", "cam2/clip", "b"]
    both = ["/data/clip.mp4", "/data/clip.mkv"]  # of one folder: the ending tells
    assert names(both, both) == ["clip.mp4", "clip.mkv"]
    cases = ["/data/Clip.mp4", "/data/clip.mp4"]  # one name on some file systems
    found = names(cases, cases)
    assert len({name.casefold() for name in found}) == 2
    assert all("clip.mp4-" in name.casefold() for name in found)


def test_a_folder_gives_the_path_in_it_and_later_runs_do_not_meet(tmp_path: Path, monkeypatch) -> None:
    for name in ("cam1/day/clip.mp4", "cam2/day/clip.mp4"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    assert names(["cam1"], ["cam1/day/clip.mp4"]) == ["cam1/day/clip"]  # .of of the video
    found = OwnNames([f"{tmp_path}/cam2/"], ["cam2/day/clip.mp4"])
    assert found.of("cam2/day/clip.mp4") == "cam2/day/clip"


def test_a_video_in_the_folder_that_is_written_to_has_its_file_beside_it() -> None:
    videos = ["/data/clips/a.mp4", "/data/clips/day/b.mp4", "/data/more/a.mp4"]
    found = OwnNames(["/data/clips"], videos, "/data/clips")
    assert [found.of(video) for video in videos] == ["clips/a", "day/b", "more/a"]
    assert OwnNames(["/data/clips"], videos[:2], "/data/clips").of(videos[0]) == "a"


def test_a_list_that_is_still_written_gives_names_that_need_no_other(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = OwnNames(["-"])
    assert found.of("./cam1/clip.mp4") == "cam1/clip.mp4"
    assert found.of("cam1/clip.mkv") == "cam1/clip.mkv"
    assert found.of("/elsewhere/../data/clip.mp4") == "data/clip.mp4"
    assert found.of("data/clip.mp4") != "data/clip.mp4"
    assert found.of("./cam1/clip.mp4") == "cam1/clip.mp4"


parts = st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=90)
paths = st.lists(parts, min_size=1, max_size=4).map("/".join)


@given(st.lists(paths, min_size=1, max_size=8, unique=True), st.booleans(), st.randoms())
@settings(max_examples=150, deadline=None)
def test_no_two_videos_share_a_name_and_none_leaves_the_folder(
    videos: list[str], known: bool, chance: random.Random
) -> None:
    videos = list({os.path.abspath(video): video for video in videos}.values())
    found = OwnNames(videos, videos if known else None)
    given = {video: found.of(video) for video in videos}
    assert len({name.casefold() for name in given.values()}) == len(videos)
    for name in given.values():
        assert not os.path.isabs(name)
        for part in name.split("/"):
            assert part not in ("", "..")
            assert len(os.fsencode(part)) + len(".srt") <= 255
    shuffled = chance.sample(videos, len(videos))
    again = OwnNames(shuffled, shuffled if known else None)
    if known:
        assert {video: again.of(video) for video in shuffled} == given


@pytest.mark.parametrize("name", ["中" * 82, "\udcff" * 250, "a" * 255])
def test_a_name_as_long_as_names_can_be_leaves_room_for_an_ending(name: str) -> None:
    other = name[:-1] + "b"
    first, second = names([f"/x/{name}.mp4", f"/x/{other}.mp4"], [f"/x/{name}.mp4", f"/x/{other}.mp4"])
    assert first != second
    assert all(len(os.fsencode(found)) <= 251 for found in (first, second))
