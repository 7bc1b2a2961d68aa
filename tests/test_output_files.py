"""What a run writes to is its own, whatever else runs, is killed or is deleted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from zsar_cli import files
from zsar_cli.errors import UsageError
from zsar_cli.files import atomic_write, is_stream, sweep
from zsar_cli.outputs import LineFile, Lock, refuse_inputs, refuse_taken, taken

pytest.importorskip("fcntl")


def test_the_second_run_is_told_who_holds_the_output(tmp_path: Path) -> None:
    for output in (tmp_path / "answers.jsonl", tmp_path):
        with Lock(output):
            with pytest.raises(
                UsageError, match=rf"Another run \(process {os.getpid()} on .+, since 20"
            ) as told:
                Lock(output)
            assert str(output) in str(told.value)
        Lock(output).close()
        assert list(tmp_path.iterdir()) == []


def test_names_of_one_file_share_a_lock(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    with Lock(tmp_path / "real" / "a.jsonl"), pytest.raises(UsageError, match="Another run"):
        Lock(tmp_path / "link" / "a.jsonl")
    first = LineFile(tmp_path / "real" / "a.jsonl")
    os.link(tmp_path / "real" / "a.jsonl", tmp_path / "b.jsonl")
    with pytest.raises(UsageError, match="Another run"):
        LineFile(tmp_path / "b.jsonl")
    first.close()


HOLD = """
import os, signal, sys
from pathlib import Path
from zsar_cli.files import atomic_write
from zsar_cli.outputs import Lock
output = Path(sys.argv[1])
Lock(output)
with atomic_write(output) as aside:
    aside.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_run_left_is_taken_over_and_removed(tmp_path: Path) -> None:
    output = tmp_path / "answers.csv"
    subprocess.run([sys.executable, "-c", HOLD, str(output)], check=False)
    assert len(list(tmp_path.iterdir())) == 2  # the lock, and the file aside
    with Lock(output):
        assert len(list(tmp_path.iterdir())) == 1
    assert list(tmp_path.iterdir()) == []


def test_only_dead_files_of_our_own_names_are_swept(tmp_path: Path) -> None:
    target = tmp_path / "answers.csv"
    theirs = [tmp_path / name for name in (".answers.tmp.csv", ".answers.12345678.tmp.csv", "answers.csv~")]
    for path in theirs:
        path.write_text("theirs")
    (tmp_path / "kept").write_text("kept")
    link = tmp_path / f".answers.abcdefgh{files.ASIDE}.csv"
    link.symlink_to(tmp_path / "kept")
    with atomic_write(target) as living:
        dead = tmp_path / f".answers.12345678{files.ASIDE}.csv"
        dead.write_text("dead")
        of_another = tmp_path / f".answers.x.12345678{files.ASIDE}.csv"
        of_another.write_text("of answers.x.csv")
        sweep(target)
        assert living.exists()
        assert not dead.exists()
        assert of_another.exists()
    sweep(tmp_path)
    assert not of_another.exists()
    assert [path.read_text() for path in theirs] == ["theirs"] * 3
    assert link.is_symlink()
    assert (tmp_path / "kept").read_text() == "kept"


@pytest.mark.parametrize("content", ["theirs", '{"a": 1}', "[]"])
def test_a_lock_that_is_not_ours_is_left_alone(tmp_path: Path, content: str) -> None:
    place = tmp_path / ".a.jsonl.zsar-lock"
    place.write_text(content)
    with pytest.raises(UsageError, match="not a lock file of zsar"):
        Lock(tmp_path / "a.jsonl")
    assert place.read_text() == content
    place.unlink()
    place.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UsageError, match="not a lock file of zsar"):
        Lock(tmp_path / "a.jsonl")
    place.unlink()
    os.mkfifo(place)
    with pytest.raises(UsageError, match="not a lock file of zsar"):
        Lock(tmp_path / "a.jsonl")
    assert not (tmp_path / "elsewhere").exists()


def test_a_lock_that_says_odd_things_cannot_break_the_message(tmp_path: Path) -> None:
    said = {"zsar": "lock", "pid": {"a": 1}, "host": "h" * 10_000, "since": None}
    with Lock(tmp_path / "a"):
        (tmp_path / ".a.zsar-lock").write_text(json.dumps(said)[:900] + '"}')
        with pytest.raises(UsageError, match="Another run"):
            Lock(tmp_path / "a")


@pytest.mark.parametrize("how", ["deleted", "moved", "replaced", "folder deleted"])
def test_a_file_that_goes_away_while_it_is_written_is_noticed(tmp_path: Path, how: str) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    path = folder / "a.jsonl"
    file = LineFile(path)
    file.write(b"1\n")
    if how == "moved":
        path.rename(tmp_path / "moved")
    else:
        path.unlink()
    if how == "replaced":
        path.write_text("theirs")
    if how == "folder deleted":
        for left in folder.iterdir():
            left.unlink()
        folder.rmdir()
    with pytest.raises(UsageError, match="deleted, moved or replaced"):
        file.write(b"2\n")
    with pytest.raises(UsageError, match="deleted, moved or replaced"):
        file.close()
    if how == "replaced":
        assert path.read_text() == "theirs"


def test_a_folder_that_goes_away_while_a_file_is_written_aside_is_told(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()

    def write() -> None:
        with atomic_write(folder / "x.csv") as aside:
            aside.unlink()
            folder.rmdir()

    with pytest.raises(UsageError, match="deleted or emptied"):
        write()


def test_a_name_that_was_taken_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"

    def write(make: Callable[[], object]) -> None:
        with atomic_write(path, replace=False) as aside:
            aside.write_text("ours")
            make()

    for make in (lambda: path.write_text("theirs"), lambda: path.symlink_to("elsewhere")):
        with pytest.raises(UsageError, match="already exists"):
            write(make)
        assert path.is_symlink() or path.read_text() == "theirs"
        path.unlink()
    assert list(tmp_path.iterdir()) == []


def test_without_hard_links_a_name_is_not_replaced_either(tmp_path: Path, monkeypatch) -> None:
    def refuse(*names: object) -> None:
        raise PermissionError(1, "no links here")

    monkeypatch.setattr(os, "link", refuse)
    path = tmp_path / "a.csv"
    with atomic_write(path, replace=False) as aside:
        aside.write_text("ours")
    with pytest.raises(UsageError, match="already exists"), atomic_write(path, replace=False) as aside:
        aside.write_text("again")
    assert path.read_text() == "ours"


def test_a_private_file_stays_private_when_it_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.touch(0o600)
    with atomic_write(path) as aside:
        aside.write_text("new")
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "name", ["中" * 82 + ".csv", "é" * 125 + ".json", "a" * 251 + ".csv", "x." + "y" * 250]
)
def test_a_name_as_long_as_names_can_be(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    with Lock(path), atomic_write(path) as aside:
        aside.write_text("whole")
    assert path.read_text() == "whole"
    LineFile(path).close()
    assert list(tmp_path.iterdir()) == [path]


def test_what_is_taken(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    (tmp_path / "full").write_text("x")
    (tmp_path / "link").symlink_to("empty")
    (tmp_path / "dangling").symlink_to("nowhere")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "to null").symlink_to("/dev/null")
    free = ("no", "empty", "pipe", "to null")
    assert [name for name in free if taken(tmp_path / name)] == []
    assert all(taken(tmp_path / name) for name in ("full", "link", "dangling"))
    with pytest.raises(UsageError, match=r"full already exists \(and 1 more\)"):
        refuse_taken([tmp_path / "full", tmp_path / "link"], overwrite=False)
    refuse_taken([tmp_path / "full"], overwrite=True)


def test_an_input_is_no_output_under_any_name(tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("waving")
    (tmp_path / "link").symlink_to("labels.txt")
    for name in ("labels.txt", "link", "../" + tmp_path.name + "/labels.txt"):
        with pytest.raises(UsageError, match="is an input of this run"):
            refuse_inputs(tmp_path / name, [None, "ucf101", tmp_path / "labels.txt"])
    refuse_inputs(tmp_path / "other", [tmp_path / "labels.txt"])


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="descriptors as files")
def test_an_open_descriptor_is_written_to_and_never_replaced(tmp_path: Path) -> None:
    with open(tmp_path / "redirected", "wb") as file:
        names = [f"/dev/fd/{file.fileno()}", f"/proc/self/fd/{file.fileno()}"]
        (tmp_path / "link").symlink_to(names[0])
        for name in [*names, str(tmp_path / "link")]:
            assert is_stream(name)
            with atomic_write(name) as aside:
                assert str(aside) == name
    assert is_stream("/dev/null")
    assert not is_stream(tmp_path / "redirected")
    assert not is_stream(tmp_path / "no")
    (tmp_path / "loop").symlink_to("loop")
    assert not is_stream(tmp_path / "loop")
