"""``torchrun ... zsar train``: a process that dies ends the job with a message, and a restart goes on where it was.

The other commands do not run under it.
"""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests import few_shapes
from tests.cli.test_train import recipe, rows, same_weights, wait_for_step  # noqa: F401 - a fixture among them

PATIENCE = 200  # s


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_a_process_that_dies_costs_a_restart_and_no_weight(recipe, tmp_path, torchrun):  # noqa: F811
    options = [few_shapes.__file__, "train", "--config", recipe, "--steps", "18"]
    options += ["--checkpoint-every", "3", "--validate-every", "8"]
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    done = torchrun(*options, "--output", whole)
    assert done.wait(PATIENCE) == 0, done.read("stderr")
    assert done.read("stderr").count("step 1/18") == 1  # one of the processes speaks
    said = kill_rank_1(torchrun(*options, "--output", broken), broken, 4)
    assert "lost the other processes" in said
    assert "Start the job again with --resume" in said
    assert not (broken / "model.safetensors").exists()
    assert (broken / "checkpoints" / "step-00000003").is_dir()
    said = kill_rank_1(torchrun(*options, "--output", broken, "--resume", restarts=1), broken, 9, code=0)
    assert "SIGKILL" in said or "exitcode: -9" in said
    assert same_weights(whole, broken)
    assert [row["step"] for row in rows(broken) if "total" in row] == list(range(1, 19))


@pytest.mark.parametrize(
    ("command", "instead"),
    [
        (["predict", "video.mp4", "--label", "waving"], "--shard auto"),
        (["eval"], "--ray"),
        (["train", "--data", "motion-shapes", "--prepare", "copies"], "without torchrun"),
    ],
)
@pytest.mark.parametrize("address", ["localhost", None])
def test_what_several_processes_do_not_share_says_what_does(
    command, instead, address, zsar, monkeypatch, tmp_path
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in (("MASTER_ADDR", address), ("WORLD_SIZE", "2"), ("RANK", "0")):
        if value is not None:
            monkeypatch.setenv(name, value)
    ended = zsar(*command)
    assert ended.code == 2
    assert ended.err.count("\n") == 1
    if address is None and command[0] == "train":
        assert (
            "MASTER_ADDR is not set, so the processes cannot meet: start zsar train by torchrun" in ended.err
        )
    else:
        assert "is not shared by the 2 processes of WORLD_SIZE" in ended.err
        assert instead in ended.err


def kill_rank_1(job: Any, run: Path, step: int, code: int = 1) -> str:
    """What a job says whose second process is killed after a step."""
    wait_for_step(job, run, step)
    (victim,) = [p for p in psutil.Process(job.pid).children() if p.environ().get("RANK") == "1"]
    victim.send_signal(signal.SIGKILL)
    assert job.wait(PATIENCE) == code, job.read("stderr")
    return job.read("stderr")
