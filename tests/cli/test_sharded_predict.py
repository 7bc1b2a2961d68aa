"""``predict --shard`` with a model, and outputs in a storage."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.cli.test_messages import with_terminal
from tests.close import assert_close
from tests.video_files import write_video
from tests.write_part import MADE, VIDEOS, write_part
from zsar_cli import __version__
from zsar_cli.cli import console
from zsar_cli.errors import UsageError
from zsar_cli.outputs import Lock
from zsar_cli.prediction import places
from zsar_cli.prediction.shards import Shard
from zsar_cli.recognizer import Recognizer

TWO = ["--label=waving", "--label=running", "--workers", 0]


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("videos")
    made = [write_video(folder / f"{number}.mp4", 8 + number, size=(64, 48)) for number in range(4)]
    return [*map(str, made), str(folder / "missing.mp4")]


def by_video(path: Path) -> dict[str, dict]:
    records = [json.loads(line) for line in path.read_text().splitlines()]
    return {record["video"]: {k: v for k, v in record.items() if k != "made_with"} for record in records}


def test_shards_together_are_a_run_without_them(
    zsar, tiny_clip_dir, videos, tmp_path: Path, monkeypatch
) -> None:
    asked = ["predict", *videos, "--model", tiny_clip_dir, *TWO]
    parts = tmp_path / "parts"
    assert zsar(*asked, "-o", tmp_path / "all.jsonl").code == 1
    listing = "\n".join(videos).encode()
    for rank in range(2):
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("WORLD_SIZE", "2")
        inputs = ["predict", "-", *asked[len(videos) + 1 :]]
        done = zsar(*inputs, "--shard", "auto", "-o", parts, stdin=listing)
        assert done.code == 0, done.err  # though a video is missing: a scheduler would start the task again
        assert f"Shard {rank}/2 is complete: " in done.err
    again = zsar(*asked, "--shard", "auto", "-o", parts)
    assert again.err.startswith("Shard 1/2 is already complete: ")
    assert len(again.err.splitlines()) == 1
    assert zsar("predict", "--merge", parts, "-o", tmp_path / "merged.jsonl").code == 0
    assert_close(by_video(tmp_path / "merged.jsonl"), by_video(tmp_path / "all.jsonl"))


def test_what_comes_next_is_the_merge_as_one_shard_has_no_page(
    zsar, tiny_clip_dir, videos, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr(console, "configure", with_terminal(console.configure, monkeypatch))
    common = [*videos[:2], "--model", tiny_clip_dir, *TWO, "-o"]
    shard = zsar("predict", *common, tmp_path / "parts", "--shard", "0/1")
    assert f"Next:  zsar predict --merge {tmp_path / 'parts'} --output answers.jsonl" in shard.err
    assert "--report" not in shard.err
    stored, others = tmp_path / "all.jsonl", tmp_path / "others.jsonl"
    assert "add --resume --report" in zsar("predict", *common, stored, "--embeddings").err
    again = zsar("predict", stored, "--model", tiny_clip_dir, "--label", "sitting", "-o", others)
    assert f"Next:  zsar predict {others} --report answers.html" in again.err  # no video is looked at again


def test_what_needs_no_model_is_refused_before_one_is_loaded(zsar, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(Recognizer, "load", lambda *_, **__: pytest.fail("a model was loaded"))
    parts, video = tmp_path / "parts", tmp_path / "a.mp4"
    video.touch()
    write_part(parts, made=MADE | {"zsar": __version__, "embeddings": None}, shard=Shard(0, 2))
    asked = ["predict", video, *TWO, "--model", "motion-tiny", "--window", 0, "-o", parts, "--shard"]
    for more, said in (
        (["1/2"], "was made with other labels than this run's"),
        (["0/2", "--embeddings"], "no --embeddings (this run has --embeddings True)"),
        (["1/3"], "holds parts of 2 shards, and this run is shard 1/3"),
        (["1/2", "-f", "csv"], "was made with other labels"),
    ):
        done = zsar(*asked, *more)
        assert (done.code, said in done.err) == (2, True), done.err
    with Lock(parts / "part-00001-of-00002.jsonl"):
        assert "Another run" in zsar(*asked, "1/2").err
    missing = [tmp_path / "1.mp4", tmp_path / "2.mp4"]
    done = zsar("predict", *missing, *TWO)
    assert done.code == 1
    assert [record["video"] for record in done.records] == [*map(str, missing)]
    assert done.records[0]["error"] == {"kind": "not_found", "message": "no such file; check the path"}
    assert done.err.endswith("; 2 failed (see the records).\n")


def test_what_goes_with_no_shard_is_told_in_a_sentence(zsar, videos, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for more, said in (
        ([], "name it with --output FOLDER"),
        (["-o", tmp_path / "file"], "name it with --output FOLDER"),
        (["-o", tmp_path / "p", "-f", "table"], "--shard needs --format jsonl, csv or parquet, not table."),
        (["-o", tmp_path / "p", "--report", "a.html"], "--report shows all answers; use it without --shard"),
        (["-o", "https://host/p"], "https://host/p cannot be written"),
    ):
        done = zsar("predict", videos[0], *TWO, "--model", "motion-tiny", "--shard", "0/2", *more)
        assert (done.code, said in done.err) == (2, True), done.err
    assert not (tmp_path / "p").exists()


@pytest.mark.parametrize("format", ["jsonl", "parquet"])
def test_parts_in_a_storage_come_whole_and_start_again(zsar, memory, tmp_path: Path, format: str) -> None:
    place = "memory://bucket/parts"
    _, written = write_part(place, format, VIDEOS[:2], complete=False, shard=Shard(0, 2))
    assert memory.find("/bucket") == []
    for index in range(2):
        own = [f"{index}{video}" for video in VIDEOS]
        _, written = write_part(place, format, own, shard=Shard(index, 2))
        assert written == own
        assert write_part(place, format, own, shard=Shard(index, 2))[1] == []
    names = ["_manifest-00000-of-00002.json", "_manifest-00001-of-00002.json"]
    assert [Path(name).name for name in memory.find("/bucket/parts")][:2] == names
    merged = zsar("predict", "--merge", place, "-o", "memory://bucket/all.jsonl")
    assert (merged.code, merged.err.count("8 videos")) == (0, 1)
    assert memory.cat("/bucket/all.jsonl").count(b"\n") == 8
    assert zsar("predict", "--merge", place, "-o", "memory://bucket/all.jsonl").code == 2  # it is there
    memory.rm_file("/bucket/parts/_manifest-00001-of-00002.json")
    again = zsar("predict", "--merge", place, "-o", tmp_path / "all.parquet")
    assert (again.code, "shard is unfinished: 1/2" in again.err) == (1, True)


def test_what_could_not_be_sent_is_kept(memory, monkeypatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError("no")

    monkeypatch.setattr(type(memory), "put_file", refuse)
    with pytest.raises(UsageError, match=r"denies access.*; what was to be sent is kept as (.*).$") as failed:
        write_part("memory://bucket/parts")
    kept = Path(str(failed.value).rpartition(" as ")[2][:-1])
    assert kept.read_text().count("\n") == len(VIDEOS)
    shutil.rmtree(kept.parent)


def test_storing_waits_for_a_storage_that_is_busy(memory, monkeypatch) -> None:
    put, calls, waits = memory.put_file, [], []

    def busy(self, *arguments: object, **options: object) -> None:
        calls.append(arguments)
        if len(calls) < 3:
            raise TimeoutError
        put(*arguments, **options)

    monkeypatch.setattr(type(memory), "put_file", busy)
    monkeypatch.setattr(places.time, "sleep", waits.append)
    part, _ = write_part("memory://bucket/parts")
    assert part.manifest is not None
    assert (len(calls), len(waits)) == (3, 2)


def test_an_output_in_a_storage_goes_on(zsar, memory, tiny_clip_dir, videos) -> None:
    asked = ["predict", *videos[-2:], "--model", tiny_clip_dir, *TWO, "-o", "memory://bucket/answers.jsonl"]
    first = zsar(*asked)
    assert (first.code, "written to memory://bucket/answers.jsonl" in first.err) == (1, True)
    assert memory.cat("/bucket/answers.jsonl").count(b"\n") == 2
    assert "already exists; continue it with --resume" in zsar(*asked).err
    shown = zsar(
        "predict", "memory://bucket/answers.jsonl", "-f", "csv"
    )  # stored answers, and no list of videos
    assert (shown.code, shown.out.count("\n")) == (0, 4)
    more = zsar("predict", videos[0], *asked[1:], "--resume")
    assert (more.code, "1 answered before" in more.err) == (1, True)
    assert memory.cat("/bucket/answers.jsonl").count(b"\n") == 3
    assert (
        "is an object such as memory://bucket/answers.jsonl" in zsar(*asked[:-1], "memory://bucket/a.txt").err
    )
