"""Parts of shards: begun, killed, continued, complete, refused, and merged."""

from __future__ import annotations

import csv
import errno
import json
import signal
import sqlite3
import sys
import tempfile
from pathlib import Path

import pytest

from tests import write_part as script
from tests.write_part import MADE, SHARD, VIDEOS, answer, write_part
from zsar_cli import seen
from zsar_cli.errors import UsageError
from zsar_cli.prediction.parquet import read_parquet
from zsar_cli.prediction.parts import refuse_parts
from zsar_cli.prediction.shards import Shard

FORMATS = ["jsonl", "csv", "parquet"]
PART, MANIFEST = "part-00003-of-00008", "_manifest-00003-of-00008.json"


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def videos(path: Path) -> list[str]:
    """Which videos have records, in order; of CSV with its escapes undone."""
    if path.suffix == ".parquet":
        return [record["video"] for record in read_parquet(path)]
    if path.suffix == ".csv":
        with open(path, encoding="utf-8-sig", newline="") as file:
            names = [row["video"].removeprefix("'") for row in csv.DictReader(file)]
        return list(dict.fromkeys(names))
    return [json.loads(line)["video"] for line in path.read_text().splitlines()]


@pytest.mark.parametrize("format", FORMATS)
def test_a_part_comes_with_a_manifest_and_is_skipped_when_it_is_complete(tmp_path: Path, format: str) -> None:
    _, written = write_part(tmp_path, format)
    assert written == VIDEOS
    assert files(tmp_path) == [MANIFEST, f"{PART}.{format}"]
    said = json.loads((tmp_path / MANIFEST).read_text())
    assert said["errors"] == {"not_found": 1}
    assert (said["videos"], said["failed"], said["made_with"]) == (4, 1, MADE)
    assert said["bytes"] == (tmp_path / f"{PART}.{format}").stat().st_size
    part, written = write_part(tmp_path, format, VIDEOS[::-1])  # a list in another order is the same list
    assert (written, part.manifest is not None) == ([], True)


@pytest.mark.parametrize(("format", "again"), [("jsonl", 1), ("csv", 1), ("parquet", 5)])
def test_a_list_that_grew_adds_what_is_missing(tmp_path: Path, format: str, again: int) -> None:
    write_part(tmp_path, format)
    _, written = write_part(tmp_path, format, [*VIDEOS, "new.mp4"])
    assert len(written) == again + (format != "parquet")  # and tries the failure again
    assert videos(tmp_path / f"{PART}.{format}") == [*VIDEOS, "new.mp4"]
    assert json.loads((tmp_path / MANIFEST).read_text())["videos"] == 5


@pytest.mark.parametrize("format", FORMATS)
def test_a_run_that_was_stopped_leaves_no_part_and_goes_on(tmp_path: Path, format: str) -> None:
    write_part(tmp_path, format, VIDEOS[:3], complete=False)
    assert not [name for name in files(tmp_path) if name.startswith(("part", "_manifest"))]
    _, written = write_part(tmp_path, format)
    assert written == (VIDEOS if format == "parquet" else ["bad.mp4", "d.mp4"])
    assert videos(tmp_path / f"{PART}.{format}") == VIDEOS


@pytest.mark.parametrize(("format", "step"), [("jsonl", 5), ("csv", 9)])
def test_killed_at_any_change_to_a_file_a_part_is_whole_in_the_end(
    zsar_process, tmp_path: Path, format: str, step: int
) -> None:
    ended = []
    for moment in range(2, 80, step):
        folder = tmp_path / str(moment)
        folder.mkdir()
        process = zsar_process(script.__file__, folder, format, signal_at=(moment, folder, signal.SIGKILL))
        ended.append(process.wait(30))
        if ended[-1] == 0:
            break
        if (folder / MANIFEST).exists():
            assert videos(folder / f"{PART}.{format}") == VIDEOS
        write_part(folder, format)
        assert videos(folder / f"{PART}.{format}") == VIDEOS
        assert files(folder) == [MANIFEST, f"{PART}.{format}"]
    assert set(ended) == {-signal.SIGKILL, 0}
    assert len(ended) > 3


def test_other_settings_are_refused_by_name_and_overwrite_starts_anew(tmp_path: Path) -> None:
    write_part(tmp_path)
    before = (tmp_path / f"{PART}.jsonl").read_bytes()
    for made, said in (
        (MADE | {"frames": 16}, f"{PART}.jsonl was made with --frames 8 .this run has --frames 16."),
        (MADE | {"model": "other", "weights": "v"}, "--model tiny .this run has --model other."),
        (MADE | {"labels": {"count": 2, "hash": "i"}}, "other labels than this run's"),
    ):
        for shard in (SHARD, Shard(4, 8)):
            with pytest.raises(UsageError, match=said):
                write_part(tmp_path, made=made, shard=shard)
    with pytest.raises(UsageError, match="holds parts of 8 shards, and this run is shard 3/4"):
        write_part(tmp_path, shard=Shard(3, 4))
    (tmp_path / "part-00000-of-00004.jsonl").touch()
    with pytest.raises(UsageError, match="holds parts of 4 shards and parts of 8"):
        write_part(tmp_path)
    (tmp_path / "part-00000-of-00004.jsonl").unlink()
    with pytest.raises(UsageError, match="is not csv"):
        write_part(tmp_path, "csv")
    assert (tmp_path / f"{PART}.jsonl").read_bytes() == before
    _, written = write_part(tmp_path, made=MADE | {"frames": 16}, overwrite=True)
    assert written == VIDEOS


@pytest.mark.parametrize("name", [MANIFEST, f"{PART}.jsonl", f"_unfinished{PART[4:]}.jsonl"])
def test_links_in_a_folder_of_parts_lead_nowhere(tmp_path: Path, name: str) -> None:
    parts, theirs = tmp_path / "parts", tmp_path / "theirs"
    parts.mkdir()
    theirs.write_text("")
    (parts / name).symlink_to(theirs)
    with pytest.raises(UsageError, match="is no plain file"):
        write_part(parts)
    assert theirs.read_text() == ""
    write_part(parts, overwrite=True)
    assert theirs.read_text() == ""
    assert files(parts) == [MANIFEST, f"{PART}.jsonl"]


def all_parts(folder: Path, format: str = "jsonl", leave_out: tuple[int, ...] = ()) -> list[str]:
    """Write the parts of 3 shards; the videos of each, in the order of shards."""
    everything = []
    for index in range(3):
        own = [f"{index}-{name}" for name in VIDEOS]
        if index not in leave_out:
            write_part(folder, format, own, shard=Shard(index, 3))
            everything += own
    return everything


@pytest.mark.parametrize(
    ("format", "merged"),
    [(one, other) for one in FORMATS for other in FORMATS if one != "csv" or other == "csv"],
)
def test_parts_are_merged_to_each_format(zsar, tmp_path: Path, format: str, merged: str) -> None:
    everything = all_parts(tmp_path / "parts", format)
    output = tmp_path / f"answers.{merged}"
    done = zsar("predict", "--merge", tmp_path / "parts", "--output", output)
    assert (done.code, done.out) == (0, "")
    assert done.err == f"3 of 3 shards: 12 videos, 3 failed (3 not_found), written to {output}.\n"
    assert videos(output) == everything
    if merged == "jsonl":
        lines = [json.loads(line) for line in output.read_text().splitlines()]
        assert lines[0].pop("made_with") == MADE
        assert [{k: v for k, v in line.items() if k != "made_with"} for line in lines] == [
            answer(video) for video in everything
        ]


def test_merging_says_what_is_missing(zsar, tmp_path: Path) -> None:
    parts, output = tmp_path / "parts", tmp_path / "answers.jsonl"
    everything = all_parts(parts, leave_out=(1,))
    write_part(parts, videos=["x.mp4"], shard=Shard(1, 3), complete=False)
    assert zsar("predict", "--merge", parts, "-o", output).code == 1
    assert videos(output) == everything
    (parts / "_unfinished-00001-of-00003.jsonl").unlink()
    with (parts / "part-00002-of-00003.jsonl").open("ab") as file:
        file.write(b"{")  # torn, or copied while it was written
    done = zsar("predict", "--merge", parts, "-o", output, "--overwrite")
    assert done.code == 1
    assert "1 of 3 shards: 4 videos" in done.err
    assert f"{parts}: shard is missing: 1/3. Run it again with --shard." in done.err
    assert "part-00002-of-00003.jsonl is not as its manifest says" in done.err
    assert videos(output) == everything[:4]
    done = zsar("predict", "--merge", parts, parts, "-o", output, "--overwrite")
    assert "4 videos had a second record, which was left out." in done.err
    assert videos(output) == everything[:4]


@pytest.mark.parametrize("format", FORMATS)
def test_a_part_of_the_right_size_that_is_another_is_left_out_whole_and_told(
    zsar, tmp_path: Path, format: str
) -> None:
    parts, output = tmp_path / "parts", tmp_path / f"answers.{format}"
    everything = all_parts(parts, format)
    part, manifest = parts / f"part-00001-of-00003.{format}", parts / "_manifest-00001-of-00003.json"
    for torn in (True, False):
        if torn:  # its first records are whole
            part.write_bytes(part.read_bytes()[:-9] + bytes(9))
        else:
            write_part(tmp_path / "theirs", format, [f"1-{name[:-1]}5" for name in VIDEOS], shard=Shard(1, 3))
            (tmp_path / "theirs" / part.name).replace(part)
            said = json.loads(manifest.read_text()) | {"bytes": part.stat().st_size}
            manifest.write_text(json.dumps(said))
        done = zsar("predict", "--merge", parts, "-o", output, "--overwrite")
        assert done.code == 1
        assert "2 of 3 shards: 8 videos, 2 failed" in done.err
        assert (
            f"{part.name} is not as its manifest says (torn or changed), so its 4 videos are left out. Run its "
            "shard again with --overwrite." in done.err
        )
        assert videos(output) == everything[:4] + everything[8:]


def test_a_damaged_manifest_costs_its_part_alone(zsar, tmp_path: Path) -> None:
    parts, output = tmp_path / "parts", tmp_path / "answers.jsonl"
    everything = all_parts(parts)
    manifest = parts / "_manifest-00001-of-00003.json"
    other = (parts / "_manifest-00002-of-00003.json").read_text()
    for content in ("{}", '{"part', '{"format": 1}', other):
        manifest.write_text(content)
        done = zsar("predict", "--merge", parts, "-o", output, "--overwrite")
        assert (done.code, done.err.count("\n")) == (1, 2)
        assert str(manifest) in done.err
        assert "Remove it, and start shard 1/3 again." in done.err
        assert videos(output) == everything[:4] + everything[8:]
    for index in (0, 2):  # other shards can still be written
        (parts / f"_manifest-0000{index}-of-00003.json").unlink()
    part, _ = write_part(parts, videos=everything[8:], shard=Shard(2, 3))
    assert part.manifest is not None


def test_where_nothing_is_complete_nothing_is_replaced(zsar, tmp_path: Path) -> None:
    output, part = tmp_path / "answers.jsonl", tmp_path / "parts" / f"{PART}.jsonl"
    write_part(part.parent)
    output.write_text("mine")
    part.write_bytes(part.read_bytes()[:-9] + bytes(9))
    done = zsar("predict", "--merge", part.parent, "-o", output, "--overwrite")
    assert (done.code, "is not as its manifest says" in done.err) == (2, True)
    assert output.read_text() == "mine"


def test_a_full_temporary_folder_is_named_and_no_torn_part(zsar, memory, tmp_path: Path, monkeypatch) -> None:
    output, opened = tmp_path / "answers.jsonl", seen._open

    def small() -> sqlite3.Connection:
        rows = opened()
        rows.execute("PRAGMA max_page_count = 1")  # as a full disk
        return rows

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    many = [f"{number:04}.mp4" for number in range(400)]
    write_part(tmp_path / "parts", videos=many)
    write_part("memory://bucket/parts", videos=many)
    output.write_text("mine")
    monkeypatch.setattr(seen, "_open", small)
    monkeypatch.setattr(type(memory), "get_file", full)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for parts in (tmp_path / "parts", "memory://bucket/parts"):
        done = zsar("predict", "--merge", parts, "-o", output, "--overwrite")
        assert (done.code, done.err.count("\n")) == (2, 1)
        assert f"The temporary folder {tmp_path} " in done.err
        assert "set TMPDIR to a folder with more room" in done.err
        assert output.read_text() == "mine"
        assert files(tmp_path) == ["answers.jsonl", "parts"]


def test_parts_in_place_of_videos_lead_to_merge(zsar, memory, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_part("parts")
    write_part("memory://bucket/parts")
    for given in ("parts", "parts/", "parts/*", f"{tmp_path}/parts/part-*.jsonl", "memory://bucket/parts/"):
        for more in (["--label", "x"], ["-f", "csv"]):
            if "memory" in given and "csv" in more:
                continue
            done = zsar("predict", given, *more)
            assert (done.code, "join them by zsar predict --merge" in done.err) == (2, True), given
    Path("parts/a.mp4").touch()  # a folder of videos
    refuse_parts("parts")


def test_what_is_merged_is_no_part(zsar, tmp_path: Path) -> None:
    all_parts(tmp_path)
    part = tmp_path / "part-00001-of-00003.jsonl"
    before = part.read_bytes()
    done = zsar("predict", "--merge", tmp_path, "-o", part, "--overwrite")
    assert (done.code, "is named like a part of a shard" in done.err) == (2, True)
    assert part.read_bytes() == before


def test_parts_in_parquet_are_not_called_torn_where_pyarrow_is_missing(
    zsar, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    all_parts(tmp_path, "parquet")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    done = zsar("predict", "--merge", tmp_path, "-o", tmp_path / "all.jsonl")
    assert (done.code, "pip install 'zsar-cli[parquet]'" in done.err) == (2, True)


def test_what_cannot_be_merged_is_told_in_a_sentence(zsar, tmp_path: Path) -> None:
    def merge(*arguments: object) -> str:
        done = zsar("predict", "--merge", *arguments)
        assert (done.code, done.out) == (2, "")
        return done.err

    output = tmp_path / "answers.jsonl"
    (tmp_path / "empty").mkdir()
    assert "holds no parts of zsar predict --shard" in merge(tmp_path / "empty", "-o", output)
    all_parts(tmp_path / "csv", "csv")
    assert "merged to csv only" in merge(tmp_path / "csv", "-o", output)
    assert "--merge needs --output" in merge(tmp_path / "csv")
    assert "merged without running a model; remove --label." in merge(
        tmp_path / "csv", "-o", output, "--label", "x"
    )
    write_part(tmp_path / "other", videos=["z.mp4"], made=MADE | {"frames": 4}, shard=Shard(0, 1))
    all_parts(tmp_path / "parts")
    said = merge(tmp_path / "parts", tmp_path / "other", "-o", output)
    assert "was made with --frames 4 (part-00000-of-00003.jsonl has --frames 8)" in said
    assert not output.exists()
