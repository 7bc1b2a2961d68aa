"""Videos that kill, stall or starve their decoder, and names and places that trip programs: each costs only itself."""

from __future__ import annotations

import os
import sys
from functools import partial
from pathlib import Path

import pytest

from tests.close import assert_close
from tests.video_files import write_video
from zsar_cli.video import pool as workers

THREE = ["--label", "waving", "--label", "running", "--label", "tai chi"]


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return write_video(tmp_path_factory.mktemp("video") / "plain.mp4", 12, size=(96, 64)).read_bytes()


@pytest.fixture
def predict(zsar, tiny_clip_dir: Path):
    return partial(zsar, "predict", "--model", tiny_clip_dir, *THREE)


def answered(records: list[dict]) -> list[str]:
    """For each record "ok", or the kind of its error."""
    return [record["error"]["kind"] if "error" in record else "ok" for record in records]


@pytest.mark.skipif(sys.platform != "linux", reason="limits of memory")
def test_decoders_that_die_hang_or_balloon(predict, video: bytes, tmp_path: Path, monkeypatch) -> None:
    """In the first place, the middle and the last, with good videos between; on purpose, by the files' names."""
    from tests.video import hostile_loads

    names = [tmp_path / f"{name}.mp4" for name in ("die", "fine", "hang", "other", "balloon")]
    for name in names:
        name.write_bytes(video)
    hostile = partial(workers.DecodePool, memory_limit_mb=400, load=hostile_loads.by_name)
    monkeypatch.setattr(workers, "DecodePool", hostile)
    result = predict(*names, "--timeout", 4)
    assert result.code == 1
    assert answered(result.records) == ["crashed", "ok", "timeout", "ok", "memory"]
    assert [record["video"] for record in result.records] == [str(name) for name in names]
    assert "SIGSEGV" in result.records[0]["error"]["message"]
    assert "--timeout" in result.records[2]["error"]["message"]
    assert result.err.count("\n") == 5  # a line a failure, one on short videos, one at the end


def test_what_is_no_video(predict, video: bytes, tmp_path: Path) -> None:
    kinds: dict[str, str] = {}

    def add(name: str, kind: str) -> Path:
        kinds[str(tmp_path / name)] = kind
        return tmp_path / name

    add("good.mp4", "ok").write_bytes(video)
    add("missing.mp4", "not_found")
    add("empty.mp4", "unreadable").touch()
    add("text.mp4", "no_video").write_text("no video\n" * 99)
    add("cut.mp4", "unreadable").write_bytes(video[: len(video) // 2])
    os.mkfifo(add("pipe.mp4", "not_a_file"))
    add("loop.mp4", "not_a_file").symlink_to(tmp_path / "loop.mp4")
    add("dangling.mp4", "not_found").symlink_to(tmp_path / "nowhere")
    add("good.mp4/below.mp4", "not_found")
    add("long" * 100 + ".mp4", "not_a_file")
    add("folder", "not_a_file").mkdir()
    add("good link.mp4", "ok").symlink_to(tmp_path / "good.mp4")
    if os.geteuid() != 0:
        locked = add("locked.mp4", "permission")
        locked.write_bytes(video)
        locked.chmod(0)
    result = predict("-", "-0", "--workers", 1, stdin="\0".join(kinds).encode())
    assert result.code == 1
    assert dict(zip(kinds, answered(result.records), strict=True)) == kinds
    for record in result.records:
        assert "\n" not in record.get("error", {}).get("message", "")


@pytest.mark.skipif(sys.platform != "linux", reason="file names of any bytes")
def test_names_of_any_bytes_come_back_as_they_were(predict, video: bytes, tmp_path: Path) -> None:
    names = [
        b"new\nline.mp4",
        b"'\" $(x) `y` \\.mp4",
        b"\xff\xfe.mp4",
        b"n" * 251 + b".mp4",
        b" .mp4",
        b"%s*?[a].mp4",
    ]
    paths = [os.path.join(os.fsencode(tmp_path), name) for name in names]
    for path in paths:
        with open(path, "wb") as file:
            file.write(video)
    by_list = predict("-", "--null", "--workers", 1, stdin=b"\0".join(paths))
    assert by_list.code == 0
    assert [os.fsencode(record["video"]) for record in by_list.records] == paths
    by_argument = predict(*map(os.fsdecode, paths), "--workers", 1)
    assert_close(by_argument.records, by_list.records)
    by_folder = predict(tmp_path, "--workers", 1)
    assert_close(*(sorted(found.records, key=lambda r: r["video"]) for found in (by_folder, by_list)))
    for format in ("table", "csv"):
        shown = predict("-", "--null", "--workers", 1, "--format", format, stdin=b"\0".join(paths)).out
        assert all(letter.isprintable() or letter == "\n" for letter in shown)
        shown.encode("utf-8")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_is_told_in_a_line(
    predict, video: bytes, tmp_path: Path, zsar_process, tiny_clip_dir
) -> None:
    name = tmp_path / "a.mp4"
    name.write_bytes(video)
    result = predict(name, "--output", "/dev/full", "--workers", 1)
    assert result.code == 2
    assert result.err.splitlines()[-1].startswith("zsar: /dev/full cannot be written: no space left")
    with open("/dev/full", "wb") as full:
        process = zsar_process("predict", name, "--model", tiny_clip_dir, *THREE, stdout=full)
    assert process.wait(100) == 2
    err = process.read("stderr")
    assert err.splitlines()[-1] == "zsar: Standard output cannot be written: no space left on device."
    assert "Traceback" not in err


def test_a_place_that_may_not_be_written(predict, video: bytes, tmp_path: Path) -> None:
    name = tmp_path / "a.mp4"
    name.write_bytes(video)
    place = Path("/proc") if os.geteuid() == 0 else tmp_path / "locked"
    if os.geteuid() != 0:
        place.mkdir(mode=0o500)
    elif not place.is_dir():
        pytest.skip("no directory here that root may not write to")
    for output in ("answers.jsonl", "answers.csv"):
        result = predict(name, "--output", place / output, "--workers", 1)
        assert (result.code, result.out) == (2, "")
        assert result.err.startswith(f"zsar: {place / output} cannot be written")
        assert result.err.count("\n") == 1


def test_an_output_that_is_there_is_left_alone(zsar, tmp_path: Path) -> None:
    """And that is said before a model is loaded, which may take long."""
    for name in ("answers.jsonl", "answers.csv"):
        output = tmp_path / name
        output.write_text("mine\n")
        result = zsar("predict", "a.mp4", *THREE, "--model", "no/such", "--output", output)
        assert (result.code, result.out, output.read_text()) == (2, "", "mine\n")
        assert result.err.startswith(f"zsar: {output} already exists")
        assert "another --output" in result.err
        assert "--resume" not in result.err  # it would be refused as well
