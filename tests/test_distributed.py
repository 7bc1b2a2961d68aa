"""What processes of one job tell each other, with real ones over gloo."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from zsar_cli import distributed
from zsar_cli.errors import UsageError

SCRIPT = """
import json, os, signal, sys, time
from zsar_cli import distributed
from zsar_cli.errors import UsageError

deed, folder = sys.argv[1:]

def own(count):
    for number in range(distributed.rank(), count, distributed.world()):
        time.sleep(0.02 * (distributed.rank() == 0))
        if number == 5 and deed == "die":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            os.kill(os.getpid(), signal.SIGKILL)
        yield {"number": number, "name": "\\udcff\\u00e9"}

if deed == "die":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # torchrun would end the others before they can speak
try:
    with distributed.processes():
        told = distributed.from_first(["\\udcff", None] if distributed.rank() == 0 else "wrong")
        found = [list(distributed.in_turn(distributed.to_first(own(count)))) for count in (11, 2)]
except UsageError as error:
    told, found = str(error), None
with open(f"{folder}/{distributed.rank()}.json", "w") as file:
    json.dump([told, found], file)
"""


def run(torchrun: Callable[..., Any], tmp_path: Path, deed: str, processes: int) -> list:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    torchrun(script, deed, tmp_path, count=processes).wait(200)
    paths = [tmp_path / f"{rank}.json" for rank in range(processes)]
    return [json.loads(path.read_text()) if path.exists() else None for path in paths]


def test_all_items_come_to_the_first_in_their_order(torchrun: Callable[..., Any], tmp_path: Path) -> None:
    said = run(torchrun, tmp_path, "work", 3)
    assert [told for told, _ in said] == [["\udcff", None]] * 3
    assert said[0][1] == [[{"number": n, "name": "\udcffé"} for n in range(count)] for count in (11, 2)]
    assert all(found == [[], []] for _, found in said[1:])


def test_a_process_that_dies_ends_the_others_with_a_message(
    torchrun: Callable[..., Any], tmp_path: Path
) -> None:
    first, second = run(torchrun, tmp_path, "die", 2)
    assert second is None
    assert first[1] is None
    assert "lost the other processes" in first[0]


def test_alone_there_is_nothing_to_do() -> None:
    assert (distributed.rank(), distributed.world()) == (0, 1)
    with distributed.processes():
        assert distributed.from_first("said") == "said"
        assert list(distributed.in_turn(distributed.to_first(iter("abc")))) == ["a", "b", "c"]


def test_what_follows_a_gap_is_left_out() -> None:
    arrivals = [(0, 0), (1, 1), (0, 2), (0, 4)]
    assert list(distributed.in_turn(arrivals, count=2)) == [0, 1, 2]


def test_a_number_that_is_none_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "two")
    assert distributed.world() == 1  # nobody says where others are
    monkeypatch.setenv("MASTER_ADDR", "localhost")
    with pytest.raises(UsageError, match="WORLD_SIZE"):
        distributed.rank()
