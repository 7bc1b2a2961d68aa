"""The command as a whole: help, versions, flags, completion, and how it fails."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import zsar_cli
from tests.video_files import write_video
from zsar_cli.cli import app

PARTS = ("predict", "train", "eval", "embed-prompts")


def test_help_is_quick() -> None:
    """Its time is that of its imports: Typer and Rich, a few modules of its own, and little of the library."""
    code = (
        "import sys, typer, rich; before = set(sys.modules); from zsar_cli.cli.app import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        "print(*sorted(set(sys.modules) - before), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    imported = done.stderr.split()
    foreign = {name.split(".")[0] for name in imported} - sys.stdlib_module_names - {"typer", "rich"}
    assert foreign == {"zsar_cli"}
    assert len(imported) < 50, imported


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], *([part, "--help"] for part in PARTS)])
def test_help_and_version_do_not_import_torch(arguments: list[str]) -> None:
    code = (
        "import sys; from zsar_cli.cli.app import main\n"
        f"try: main({arguments!r})\nexcept SystemExit as error: assert not error.code\n"
        "assert not {'torch', 'open_clip', 'av', 'numpy', 'zsar_cli.schemas'} & set(sys.modules), 'imported'"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


def test_version(zsar) -> None:
    result = zsar("--version")
    assert (result.code, result.out) == (0, f"zsar {zsar_cli.__version__}\n")


@pytest.mark.parametrize("arguments", [[], *([part] for part in PARTS)])
def test_help_starts_with_an_example(zsar, arguments: list[str]) -> None:
    result = zsar(*arguments, "--help")
    lines = [line for line in result.out.splitlines() if line.strip()]
    assert result.code == 0
    assert lines[0].startswith("Usage:")
    assert lines[1].strip() == "Example:"
    assert lines[2].strip().startswith("zsar ")


@pytest.mark.parametrize("part", ["predict", "embed-prompts"])
def test_examples_work_when_pasted(zsar, part: str, tmp_path: Path, tiny_clip_dir: Path, monkeypatch) -> None:
    """In a folder with a video.mp4; a tiny model takes the place of the download."""
    write_video(tmp_path / "video.mp4", 30, size=(96, 64))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ZSAR_MODEL", str(tiny_clip_dir))
    for line in app.COMMANDS[part].example.splitlines():
        source, _, command = line.rpartition("| ")
        piped = subprocess.run(source.removesuffix("| "), shell=True, capture_output=True, check=True)
        result = zsar(*shlex.split(command)[1:], stdin=piped.stdout)
        assert (result.code, result.err) == (0, "") or "ucf101.safetensors" in result.err
    if part == "predict":
        assert (tmp_path / "answers.jsonl").read_text().count("\n") == 1


@pytest.mark.parametrize("part", ["train", "eval"])
def test_examples_of_what_takes_long_are_understood(zsar, part: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (line,) = app.COMMANDS[part].example.splitlines()
    result = zsar(*shlex.split(line)[1:], "--dry-run")
    assert result.code == 0, result.err


def test_no_arguments_shows_help(zsar) -> None:
    result = zsar()
    assert result.code == 2
    assert "Commands:" in result.out + result.err


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["predct"], "predict"),
        (["predict", "a.mp4", "--labls", "x"], "--labls"),
        (["predict"], "VIDEO"),
        (["predict", "a.mp4", "--frames", "0"], "--frames"),
        (["predict", "a.mp4", "--frames", "many"], "--frames"),
        (["predict", "a.mp4", "--top-k", "0"], "--top-k"),
        (["predict", "a.mp4", "--min-confidence", "2"], "--min-confidence"),
        (["predict", "a.mp4", "--min-confidence", "nan", "--label", "x"], "--min-confidence"),
        (["predict", "a.mp4", "--threshold", "2"], "--threshold"),
        (["predict", "a.mp4", "--threshold", "nan", "--label", "x"], "--threshold"),
        (["predict", "a.mp4", "--crops", "2", "--label", "x"], "--crops"),
        (["predict", "a.mp4", "--decoder", "vlc"], "decord"),
        (["predict", "a.mp4", "--format", "xml"], "jsonl"),
        (["predict", "a.mp4", "--precision", "fp8"], "bf16"),
        (["predict", "a.mp4", "--timeout", "0"], "--timeout"),
        (["predict", "a.mp4", "--workers", "-1"], "--workers"),
        (["predict", "a.mp4", "--batch-size", "0"], "--batch-size"),
        (["predict", "a.mp4", "--label", "x", "--resume"], "--output"),
        (["predict", "a.mp4", "--label", "x", "--resume", "-o", "a.txt"], "jsonl or csv"),
        (["predict", "a.mp4", "--label", "x", "-o", "no/such/place.jsonl"], "no/such"),
        (["predict", "a.mp4", "--label", "x", "-o", "."], "directory"),
        (["predict", "a.mp4"], "--labels"),
        (["embed-prompts", "--label", "x", "-o", "no/such/place"], "no/such"),
    ],
)
def test_wrong_usage_is_one_line(zsar, arguments: list[str], part: str) -> None:
    result = zsar(*arguments)
    assert (result.code, result.out) == (2, "")
    assert result.err.count("\n") == 1, result.err
    assert result.err.startswith("zsar: ")
    assert part in result.err
    assert "Traceback" not in result.err


def test_debug_shows_the_traceback(zsar_process) -> None:
    process = zsar_process("predict", "a.mp4", "--labels", "/no/such/file.txt", "--debug")
    assert process.wait(100) != 0
    assert "Traceback" in process.read("stderr")


def test_what_nobody_foresaw_is_one_line_too(zsar, monkeypatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("first line\nsecond line")

    monkeypatch.setattr("zsar_cli.text.labels.load_labels", fail)
    result = zsar("predict", "a.mp4", "--label", "x")
    assert result.code == 1
    assert result.err.count("\n") == 1
    assert "RuntimeError: first line" in result.err
    assert "--debug" in result.err


def test_global_flags_after_the_command(zsar, tmp_path: Path) -> None:
    assert app._flags_first(["predict", "a", "-q", "--", "--quiet"]) == [
        "-q",
        "predict",
        "a",
        "--",
        "--quiet",
    ]
    # --quiet leaves errors alone
    result = zsar("predict", "a.mp4", "--labels", tmp_path / "none.txt", "--quiet")
    assert result.code == 2
    assert result.err.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("zsar ", "embed-prompts"),
        ("zsar predict --templ", "--templates"),
        ("zsar predict --templates k", "kinetics"),
        ("zsar predict --labels ucf", "ucf101"),
        ("zsar predict --model motion", "motion-tiny"),
        ("zsar predict --decoder py", "pyav"),
        ("zsar train --config mod", "modules"),
        ("zsar train --data uc", "ucf101"),
        ("zsar eval --data motion", "motion-shapes"),
    ],
)
def test_shell_completion(words: str, expected: str) -> None:
    environment = os.environ | {
        "_ZSAR_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split()) - (not words.endswith(" "))),
    }
    result = subprocess.run(
        [sys.executable, "-m", "zsar_cli"], env=environment, capture_output=True, text=True, check=False
    )
    assert expected in result.stdout.split()


def test_completion_can_be_shown() -> None:
    environment = os.environ | {"_ZSAR_COMPLETE": "source_bash"}
    result = subprocess.run(
        [sys.executable, "-m", "zsar_cli"], env=environment, capture_output=True, text=True, check=False
    )
    assert "complete" in result.stdout


@pytest.mark.skipif(sys.platform == "win32", reason="a POSIX shell")
def test_streams_that_the_caller_closed() -> None:
    for closed in ("2>&-", "<&- 2>&-", "<&- >&- 2>&-"):
        command = f"{shlex.quote(sys.executable)} -m zsar_cli predict a.mp4 --label x --resume {closed}"
        assert subprocess.run(command, shell=True, check=False).returncode == 2
