"""What processes of one training tell each other, with real ones over gloo."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from zsar_cli import distributed
from zsar_cli.errors import UsageError

SCRIPT = """
import json, os, signal, sys
from zsar_cli import distributed
from zsar_cli.errors import UsageError

deed, folder = sys.argv[1:]
rank = distributed.rank()
signal.signal(signal.SIGTERM, signal.SIG_IGN)  # torchrun would end the others before they can speak
try:
    with distributed.processes():
        first = [distributed.from_first(7 if rank == 0 else 5), distributed.from_first(rank - 1)]
        told = [first, distributed.add_up([rank, 0.5]), distributed.anywhere(rank == 1)]
        if rank == 1 and deed == "die":
            os.kill(os.getpid(), signal.SIGKILL)
except UsageError as error:
    told = str(error)
with open(f"{folder}/{rank}.json", "w") as file:
    json.dump(told, file)
"""


@pytest.mark.parametrize("deed", ["work", "die"])
def test_numbers_pass_between_processes_and_one_that_dies_ends_the_others_with_a_message(
    torchrun: Callable[..., Any], tmp_path: Path, deed: str
) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    torchrun(script, deed, tmp_path, count=2).wait(200)
    first, second = tmp_path / "0.json", tmp_path / "1.json"
    if deed == "work":
        assert [json.loads(path.read_text()) for path in (first, second)] == [[[7, -1], [1.0, 1.0], True]] * 2
    else:
        assert not second.exists()
        assert "lost the other processes" in json.loads(first.read_text())


def test_alone_there_is_nothing_to_do() -> None:
    assert (distributed.rank(), distributed.world()) == (0, 1)
    with distributed.processes():
        assert distributed.from_first(-1) == -1
        assert not distributed.anywhere(False)
    distributed.refuse_several("this", "do that")


def test_processes_that_cannot_meet_do_not_each_train_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "1")
    with distributed.processes():
        pass
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(UsageError, match="MASTER_ADDR is not set"), distributed.processes():
        pass


def test_a_number_that_is_none_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "two")
    assert distributed.world() == 1  # nobody says where others are
    monkeypatch.setenv("MASTER_ADDR", "localhost")
    with pytest.raises(UsageError, match="WORLD_SIZE"):
        distributed.rank()
