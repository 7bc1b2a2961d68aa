"""``torchrun ... zsar eval``: each video counted once, and the figures of one process."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.close import assert_close
from tests.data.make import write_video

PATIENCE = 200  # s


def make_data(folder: Path) -> Path:
    for number in range(9):
        write_video(folder / ("waving", "tai chi", "running")[number % 3] / f"{number}.mp4", seed=number)
    (folder / "running" / "2.mp4").write_bytes(b"no video")
    return folder


def records(output: Path) -> list[dict]:
    lines = (output / "predictions.jsonl").read_text().splitlines()
    return sorted(map(json.loads, lines), key=lambda record: record["item"])


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_processes_have_the_results_of_one(tiny_clip_dir, tmp_path, monkeypatch, zsar_process, torchrun):
    monkeypatch.setenv("ZSAR_CACHE_DIR", str(tmp_path / "cache"))
    data = make_data(tmp_path / "data")
    command = ["eval", "--data", data, "--model", tiny_clip_dir, "--workers", 1]
    command += ["--batch-size", 2, "--max-missing", 0.5, "--precision", "fp32", "--probe", "motion"]
    command += ["--format", "json", "--output"]
    one, two = tmp_path / "one", tmp_path / "two"
    assert zsar_process(*command, one).wait(PATIENCE) == 0
    # Part of it done before, as after a kill: the rest is shared out
    two.mkdir()
    (two / "settings.json").write_text((one / "settings.json").read_text())
    started = (one / "predictions.jsonl").read_text().splitlines(keepends=True)[:3]
    (two / "predictions.jsonl").write_text("".join(started) + '{"part": "torn')
    together = torchrun(*command, two)
    assert together.wait(PATIENCE) == 0, together.read("stderr")
    said = [json.loads((folder / "results.json").read_text()) for folder in (one, two)]
    assert_close(said[1], said[0])
    assert json.loads(together.read("stdout")) == said[1]
    assert_close(records(two), records(one))
    assert [record["item"] for record in records(two)] == list(range(9))  # each once
    assert sum("error" in record for record in records(two)) == 1
