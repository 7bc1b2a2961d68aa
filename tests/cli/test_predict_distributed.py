"""``torchrun ... zsar predict``: several processes, one output in the order of the inputs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.processes import command, torchrun
from tests.video_files import write_video

OPTIONS = ["--label", "waving", "--label", "tai chi", "--workers", "1", "--precision", "fp32"]


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> list[Path]:
    folder = tmp_path_factory.mktemp("videos")
    paths = [write_video(folder / f"{number:02d}.mp4", 4 + number) for number in range(7)]
    paths[3].write_bytes(b"no video at all")
    return paths


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ZSAR_CACHE_DIR", str(tmp_path / "cache"))


def test_two_processes_answer_as_one_does(videos, tiny_clip_dir):
    """A list on standard input too: one process reads it, and each video is answered once."""
    listing = "".join(f"{path}\n" for path in [*videos, videos[0]])
    arguments = ["-m", "zsar_cli", "predict", "-", "--model", str(tiny_clip_dir), *OPTIONS]
    one = subprocess.run(
        [sys.executable, *arguments], input=listing, capture_output=True, text=True, check=False
    )
    two = torchrun(*arguments, input=listing)
    assert one.returncode == 1
    assert two.returncode == 0, two.stderr  # torchrun would call 1 a failure and start again
    assert two.stdout == one.stdout
    assert "1 failed, each with its record" in two.stderr
    assert two.stderr.count("zsar: ") == one.stderr.count("zsar: ")  # one of the processes speaks


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_rank_that_is_killed_costs_a_restart_and_no_record(videos, tiny_clip_dir, tmp_path):
    many = [tmp_path / f"{number:03d}.mp4" for number in range(40)]
    for path in many:
        path.symlink_to(videos[number % 3] if (number := int(path.stem)) % 10 else videos[3])
    output = tmp_path / "out.jsonl"
    predict = ["-m", "zsar_cli", "predict", *map(str, many), "--model", str(tiny_clip_dir), *OPTIONS]
    predict += ["--output", str(output), "--resume", "--batch-size", "1"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for restarts in (0, 1):
        before = output.stat().st_size if output.exists() else 0
        job = subprocess.Popen(
            command(restarts=restarts) + predict, stderr=subprocess.PIPE, text=True, env=environment
        )
        deadline = time.monotonic() + 200
        while not output.exists() or output.stat().st_size == before:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        (victim,) = [p for p in psutil.Process(job.pid).children() if p.environ().get("RANK") == "1"]
        victim.send_signal(signal.SIGKILL)
        said = job.communicate(timeout=300)[1]
        assert "SIGKILL" in said or "exitcode: -9" in said  # torchrun names the rank and how it ended
        assert (job.returncode == 0) is (restarts > 0), said
        found = [json.loads(line)["video"] for line in output.read_text().splitlines()]
        assert found == [str(path) for path in many][: len(found)]
        assert (len(found) == len(many)) is (restarts > 0)
