"""``torchrun ... zsar predict``: several processes, one output in the order of the inputs."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import psutil
import pytest

from tests.close import assert_same_lines
from tests.prediction.test_page import read
from tests.video_files import write_video

OPTIONS = ["--label", "waving", "--label", "tai chi", "--workers", "1", "--precision", "fp32"]
PATIENCE = 200  # s


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> list[Path]:
    folder = tmp_path_factory.mktemp("videos")
    paths = [write_video(folder / f"{number:02d}.mp4", 4 + number) for number in range(7)]
    paths[3].write_bytes(b"no video at all")
    return paths


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ZSAR_CACHE_DIR", str(tmp_path / "cache"))


def test_two_processes_answer_as_one_does(videos, tiny_clip_dir, tmp_path, zsar_process, torchrun):
    """A list on standard input too: one process reads it, and each video is answered once."""
    listing = tmp_path / "list.txt"
    listing.write_text("".join(f"{path}\n" for path in [*videos, videos[0]]))
    arguments = ["predict", "-", "--model", tiny_clip_dir, *OPTIONS]
    pages = [tmp_path / "one.html", tmp_path / "two.html"]
    with listing.open() as names:
        one = zsar_process(*arguments, "--report", pages[0], stdin=names)
        assert one.wait(PATIENCE) == 1
    with listing.open() as names:
        two = torchrun(*arguments, "--report", pages[1], stdin=names)
        assert two.wait(PATIENCE) == 0, two.read("stderr")  # torchrun would call 1 a failure and start again
    assert_same_lines(two.read("stdout"), one.read("stdout"))
    cards = [[(c["name"], c.get("frames")) for c in read(page)[1]["videos"]] for page in pages]
    assert cards[0] == cards[1]  # frames of the other process, too
    assert [frames for _, frames in cards[0]].count(None) == 1
    said = two.read("stderr")
    assert "1 failed (see the records)" in said
    assert said.count("zsar: ") == one.read("stderr").count("zsar: ")  # one of the processes speaks


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_rank_that_is_killed_costs_a_restart_and_no_record(videos, tiny_clip_dir, tmp_path, torchrun):
    many = [tmp_path / f"{number:03d}.mp4" for number in range(40)]
    for path in many:
        path.symlink_to(videos[number % 3] if (number := int(path.stem)) % 10 else videos[3])
    output = tmp_path / "out.jsonl"
    predict = ["predict", *many, "--model", tiny_clip_dir, *OPTIONS]
    predict += ["--output", output, "--resume", "--batch-size", "1"]
    for restarts in (0, 1):
        before = output.stat().st_size if output.exists() else 0
        job = torchrun(*predict, restarts=restarts)
        deadline = time.monotonic() + PATIENCE
        while not output.exists() or output.stat().st_size == before:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        (victim,) = [p for p in psutil.Process(job.pid).children() if p.environ().get("RANK") == "1"]
        victim.send_signal(signal.SIGKILL)
        code, said = job.wait(PATIENCE), job.read("stderr")
        assert "SIGKILL" in said or "exitcode: -9" in said  # torchrun names the rank and how it ended
        assert (code == 0) is (restarts > 0), said
        found = [json.loads(line)["video"] for line in output.read_text().splitlines()]
        assert found == [str(path) for path in many][: len(found)]
        assert (len(found) == len(many)) is (restarts > 0)
