"""Driving the command line: in this process, quickly, or as a process of its own."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.few_shapes import use_few_shapes
from tests.video_files import write_video
from zsar_cli import plots
from zsar_cli.cli import app
from zsar_cli.prediction import sheets
from zsar_cli.training import train


@dataclass
class Result:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def records(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.splitlines()]


@pytest.fixture(scope="session")
def text_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache for the session: the phrase bank is embedded once a model."""
    return tmp_path_factory.mktemp("text-cache")


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, text_cache: Path) -> None:
    """Nothing of the user's own settings or cache.

    Curves and explain sheets, 0.3 s each, have tests of their own: here they are not drawn, and sheets are blank.
    """
    for name in [name for name in os.environ if name.startswith("ZSAR_") and name != "ZSAR_SHARED"]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("ZSAR_CACHE_DIR", str(text_cache))
    monkeypatch.setattr(train, "draw_curves", lambda *_: None)
    monkeypatch.setattr(sheets, "explain_sheet", lambda *_, **__: plots.new_figure(1, 1))


@pytest.fixture
def few_shapes(monkeypatch: pytest.MonkeyPatch) -> None:
    """motion-shapes is small: its 30,000 clips and the texts of its classes take longer than such tests."""
    use_few_shapes(monkeypatch.setattr)


@pytest.fixture
def zsar(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Run ``zsar`` with these arguments in this process."""

    def run(*arguments: object, stdin: bytes = b"") -> Result:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        capsys.readouterr()
        with pytest.raises(SystemExit) as exit:
            app.main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Result(int(exit.value.code or 0), captured.out, captured.err)

    return run


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with four small videos, one of them in a subdirectory, and what is no video."""
    directory = tmp_path_factory.mktemp("clips")
    for index, name in enumerate(("b.mp4", "a.avi", "c.mkv", "deeper/d.mp4")):
        path = directory / name
        path.parent.mkdir(exist_ok=True)
        codec = {".avi": "mpeg4"}.get(path.suffix, "libx264")
        write_video(path, 12 + 9 * index, codec=codec, size=(96, 64))
    (directory / "notes.txt").write_text("no video")
    (directory / ".hidden.mp4").write_bytes(b"")
    (directory / ".cache").mkdir()
    (directory / ".cache" / "thumb.mp4").write_bytes(b"")
    return directory
