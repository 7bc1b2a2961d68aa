"""``torchrun ... zsar train``: a process that dies ends the job with a message, and a restart goes on where it was."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import psutil
import pytest

from tests.cli.test_train import recipe, rows, same_weights, wait_for_step  # noqa: F401 - a fixture among them
from tests.processes import command, torchrun


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_a_process_that_dies_costs_a_restart_and_no_weight(recipe, tmp_path):  # noqa: F811
    options = ["-m", "zsar_cli", "train", "--config", str(recipe), "--steps", "18", "--checkpoint-every", "3"]
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    done = torchrun(*options, "--output", whole, timeout=600)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("step 1/18") == 1  # one of the processes speaks
    said = kill_rank_1([*command(), *options, "--output", str(broken)], broken, 4)
    assert "lost the other processes" in said
    assert "Start the job again with --resume" in said
    assert not (broken / "model.safetensors").exists()
    assert (broken / "checkpoints" / "step-00000003").is_dir()
    said = kill_rank_1(
        [*command(restarts=1), *options, "--output", str(broken), "--resume"], broken, 9, code=0
    )
    assert "SIGKILL" in said or "exitcode: -9" in said
    assert same_weights(whole, broken)
    assert [row["step"] for row in rows(broken) if "total" in row] == list(range(1, 19))


def kill_rank_1(job: list[str], run: Path, step: int, code: int = 1) -> str:
    """What a job says whose second process is killed after a step."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(job, stderr=subprocess.PIPE, env=environment)
    wait_for_step(process, run, step)
    (victim,) = [p for p in psutil.Process(process.pid).children() if p.environ().get("RANK") == "1"]
    victim.send_signal(signal.SIGKILL)
    said = process.communicate(timeout=600)[1].decode()
    assert process.returncode == code, said
    return said
