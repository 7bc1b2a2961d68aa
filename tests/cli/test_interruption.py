"""Runs that end before their time: killed, interrupted, or with nobody left to read."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest

from tests.video_files import write_video

TWO = ["--label", "waving", "--label", "running"]
PATIENCE = 200  # s; far more than a busy machine needs


def _run(arguments: list[str], list_from: Path | None) -> None:
    from zsar_cli.cli.app import main

    if list_from is not None:
        sys.stdin = list_from.open()
    main(arguments)


@pytest.fixture(scope="module")
def start() -> Iterator[Any]:
    """Start the command as a process; torch is imported once and not once a process."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["open_clip", "zsar_cli.prediction", "zsar_cli.model.recognizer", "zsar_cli.cli.app"]
    )
    started: list[BaseProcess] = []

    def begin(*arguments: object, list_from: Path | None = None) -> BaseProcess:
        process = context.Process(target=_run, args=([str(argument) for argument in arguments], list_from))
        process.start()
        started.append(process)
        return process

    yield begin
    for process in started:
        process.kill()
        process.join()


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


def wait_for(path: Path, size: int, process: BaseProcess) -> None:
    deadline = time.monotonic() + PATIENCE
    while process.is_alive() and time.monotonic() < deadline:
        if path.exists() and path.stat().st_size > size:
            return
        time.sleep(0.002)


@pytest.mark.parametrize("kills", [5, pytest.param(20, marks=pytest.mark.slow)])
def test_killed_at_any_moment_each_video_is_answered_once(
    start, many: list[str], tmp_path: Path, tiny_clip_dir: Path, kills: int
) -> None:
    output = tmp_path / "answers.jsonl"
    command = [
        *("predict", Path(many[0]).parent, "--model", tiny_clip_dir, *TWO, "--output", output, "--resume"),
        *("--workers", 1, "--batch-size", 2, "--views", 4, "--quiet"),
    ]
    chance = random.Random(kills)
    reached = []
    for kill in range(kills):
        process = start(*command)
        if kill % 3 < 2:  # while records are written; else at any time before
            wait_for(output, output.stat().st_size if output.exists() else 0, process)
            time.sleep(chance.random() * 0.03)
        else:
            time.sleep(chance.random())
        process.kill()
        process.join()
        reached.append(output.read_bytes().count(b"\n") if output.exists() else 0)
        if kill % 2:  # what a machine that loses its power may leave
            with output.open("ab") as file:
                file.write(b'{"video": "torn')
    process = start(*command)
    process.join(PATIENCE)
    assert process.exitcode == 1  # two of the videos cannot be read, whoever found out
    assert videos_in(output) == many
    assert 0 < reached[0] < len(many), "no kill came while records were being written"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_run_with_whole_records(
    start, many: list[str], tmp_path: Path, tiny_clip_dir: Path, number: signal.Signals
) -> None:
    """The list stays open, so that the run cannot be at its end before the signal comes."""
    output, names = tmp_path / "answers.jsonl", tmp_path / "names"
    os.mkfifo(names)
    options = ["--model", tiny_clip_dir, *TWO, "--output", output, "--views", 8, "--quiet"]
    process = start("predict", "-", *options, "--batch-size", 1, "--workers", 1, list_from=names)
    with names.open("w") as listing:
        listing.write("\n".join(many) + "\n")
        listing.flush()
        wait_for(output, 0, process)
        os.kill(process.pid, number)
        process.join(PATIENCE)
    assert process.exitcode == 130
    found = videos_in(output)
    assert found
    assert found == many[: len(found)]
    process = start("predict", *many, *options, "--resume")
    process.join(PATIENCE)
    assert process.exitcode == 1
    assert videos_in(output) == many


def test_a_table_is_there_whole_or_not_at_all(
    start, many: list[str], tmp_path: Path, tiny_clip_dir: Path
) -> None:
    output = tmp_path / "answers.csv"
    command = ["predict", *many, "--model", tiny_clip_dir, *TWO, "--output", output, "--views", 8, "--quiet"]
    process = start(*command)
    deadline = time.monotonic() + PATIENCE
    while not list(tmp_path.glob(".answers*")) and time.monotonic() < deadline:
        time.sleep(0.002)
    process.kill()
    process.join()
    assert not output.exists()
    process = start(*command)
    process.join(PATIENCE)
    assert process.exitcode == 1
    assert output.read_text().count("\n") == 1 + 18 * 2 + 2


def test_a_reader_that_leaves_is_no_error(many: list[str], tiny_clip_dir: Path) -> None:
    """``zsar predict ... | head -1``, and a list on standard input that stays open."""
    command = [sys.executable, "-m", "zsar_cli", "predict", "-", "--model", str(tiny_clip_dir), *TWO]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdin.write(f"{many[0]}\n")
        process.stdin.flush()
        # The first record is out before the list is at its end
        assert json.loads(process.stdout.readline())["video"] == many[0]
        process.stdout.close()
        process.stdin.write(f"{many[1]}\n{many[2]}\n")
        process.stdin.flush()
        assert process.wait(PATIENCE) == 0
        assert process.stderr.read() == ""


def test_interrupted_while_the_list_is_waited_for(many: list[str], tiny_clip_dir: Path) -> None:
    command = [sys.executable, "-m", "zsar_cli", "predict", "-", "--model", str(tiny_clip_dir), *TWO]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdin.write(f"{many[0]}\n")
        process.stdin.flush()
        assert json.loads(process.stdout.readline())["video"] == many[0]
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 130
        assert process.stdout.read() == ""
        assert process.stderr.read() == "Interrupted after 1 video.\n"
