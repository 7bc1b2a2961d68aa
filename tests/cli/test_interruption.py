"""Runs that end before their time: killed, interrupted, or with nobody left to read."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from tests.video_files import write_video

TWO = ["--label", "waving", "--label", "running"]
PATIENCE = 200  # s; far more than a busy machine needs
KILLS = 20


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Twenty videos, two of which cannot be read."""
    directory = tmp_path_factory.mktemp("many")
    content = write_video(directory / "00.mp4", 20, size=(96, 64)).read_bytes()
    names = [str(directory / f"{index:02d}.mp4") for index in range(20)]
    for index, name in enumerate(names):
        Path(name).write_bytes(b"no video" if index in (3, 17) else content)
    return names


def videos_in(path: Path) -> list[str]:
    return [json.loads(line)["video"] for line in path.read_text().splitlines()]


def wait_for(path: Path, size: int, process: Any) -> None:
    deadline = time.monotonic() + PATIENCE
    while process.poll() is None and time.monotonic() < deadline:
        if path.exists() and path.stat().st_size > size:
            return
        time.sleep(0.002)


@contextmanager
def piped(zsar_process, *arguments: object) -> Iterator[tuple[Any, BinaryIO, BinaryIO]]:
    """The command with pipes: the process, its standard input to write to and its standard output to read."""
    theirs_in, ours_in = (open(fd, mode) for fd, mode in zip(os.pipe(), ("rb", "wb"), strict=True))
    ours_out, theirs_out = (open(fd, mode) for fd, mode in zip(os.pipe(), ("rb", "wb"), strict=True))
    with theirs_in, theirs_out:
        process = zsar_process(*arguments, stdin=theirs_in, stdout=theirs_out)
    with ours_in, ours_out:
        yield process, ours_in, ours_out


def ask(listing: BinaryIO, *names: str) -> None:
    listing.write("".join(f"{name}\n" for name in names).encode())
    listing.flush()


def test_killed_at_any_moment_each_video_is_answered_once(
    zsar_process, many: list[str], tmp_path: Path, tiny_clip_dir: Path
) -> None:
    output = tmp_path / "answers.jsonl"
    command = [
        *("predict", Path(many[0]).parent, "--model", tiny_clip_dir, *TWO, "--output", output, "--resume"),
        *("--workers", 1, "--batch-size", 2, "--quiet"),
    ]
    chance = random.Random(0)
    ended, reached = [], []
    for kill in range(KILLS):
        process = zsar_process(*command, signal_at=(chance.randint(1, 12), tmp_path, signal.SIGKILL))
        ended.append(process.wait(PATIENCE))
        reached.append(output.read_bytes().count(b"\n") if output.exists() else 0)
        if (
            kill % 2 and reached[-1] and output.read_bytes().endswith(b"\n")
        ):  # what a machine that loses its power may leave
            with output.open("ab") as file:
                file.write(b'{"video": "torn')
    process = zsar_process(*command)
    process.wait(PATIENCE)
    assert process.returncode == 1  # two of the videos cannot be read, whoever found out
    assert videos_in(output) == many
    assert ended == [-signal.SIGKILL] * KILLS
    assert len(set(reached) - {0, len(many)}) > 5, "hardly a kill came while records were being written"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_run_with_whole_records(
    zsar_process, many: list[str], tmp_path: Path, tiny_clip_dir: Path, number: signal.Signals
) -> None:
    """The list stays open, so that the run cannot be at its end before the signal comes."""
    output = tmp_path / "answers.jsonl"
    options = ["--model", tiny_clip_dir, *TWO, "--output", output, "--views", 8, "--quiet"]
    one_by_one = ("predict", "-", *options, "--batch-size", 1, "--workers", 1)
    with piped(zsar_process, *one_by_one) as (process, listing, _):
        ask(listing, *many)
        wait_for(output, 0, process)
        process.send_signal(number)
        process.wait(PATIENCE)
    assert process.returncode == 130
    found = videos_in(output)
    assert found
    assert found == many[: len(found)]
    process = zsar_process("predict", *many, *options, "--resume")
    process.wait(PATIENCE)
    assert process.returncode == 1
    assert videos_in(output) == many


def test_a_table_is_there_whole_or_not_at_all(
    zsar_process, many: list[str], tmp_path: Path, tiny_clip_dir: Path
) -> None:
    def run(folder: Path, **options: Any) -> int:
        asked = (
            "predict",
            *many,
            "--model",
            tiny_clip_dir,
            *TWO,
            "--output",
            folder / "answers.txt",
            "--quiet",
        )
        return zsar_process(*asked, **options).wait(PATIENCE)

    for moment, there in ((5, False), (7, False), (8, True)):  # begun, written, named
        folder = tmp_path / str(moment)
        folder.mkdir()
        assert run(folder, signal_at=(moment, folder, signal.SIGKILL)) == -signal.SIGKILL
        assert list(folder.glob(".answers.*.txt"))
        assert (folder / "answers.txt").exists() == there
    lines = (tmp_path / "8" / "answers.txt").read_text().count("\n")
    assert lines > 18 * 3
    assert run(tmp_path / "7") == 1
    assert (tmp_path / "7" / "answers.txt").read_text().count("\n") == lines
    assert [path.name for path in (tmp_path / "7").iterdir()] == ["answers.txt"]


def test_a_reader_that_leaves_is_no_error(zsar_process, many: list[str], tiny_clip_dir: Path) -> None:
    """``zsar predict ... | head -1``, and a list on standard input that stays open."""
    with piped(zsar_process, "predict", "-", "--model", tiny_clip_dir, *TWO) as (process, listing, answers):
        ask(listing, many[0])
        # The first record is out before the list is at its end
        assert json.loads(answers.readline())["video"] == many[0]
        answers.close()
        ask(listing, *many[1:3])
        assert process.wait(PATIENCE) == 0
        assert process.read("stderr") == ""


def test_interrupted_while_the_list_is_waited_for(
    zsar_process, many: list[str], tiny_clip_dir: Path, tmp_path: Path
) -> None:
    page = tmp_path / "page.html"
    asked = ("predict", "-", "--model", tiny_clip_dir, *TWO, "--report", page)
    with piped(zsar_process, *asked) as (process, listing, answers):
        ask(listing, many[0])
        assert json.loads(answers.readline())["video"] == many[0]
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 130
        assert answers.read() == b""
        assert process.read("stderr") == "Interrupted after 1 video.\n"
    assert "1 video, 2 labels" in page.read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]
