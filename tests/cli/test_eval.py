"""``zsar eval`` driven as people drive it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from tests.data.make import make_hmdb51, make_kinetics, make_ssv2, make_ucf101
from zsar_cli.cli import eval as command
from zsar_cli.errors import UsageError


@pytest.fixture
def zsar(capsys: pytest.CaptureFixture[str]):
    app = typer.Typer()
    app.command()(command.evaluate)

    def call(*arguments: object):
        pytest.importorskip("zsar_cli.cli.console")
        return CliRunner().invoke(app, [str(a) for a in arguments])

    return call


@pytest.mark.parametrize(
    ("name", "make", "rows", "missing"),
    [
        ("ucf101", make_ucf101, 3, 0),
        ("hmdb51", make_hmdb51, 4, 0),
        ("kinetics400", make_kinetics, 6, 1),
        ("ssv2", make_ssv2, 3, 0),
    ],
)
def test_dry_run_says_what_would_run(zsar, tmp_path: Path, name: str, make, rows: int, missing: int) -> None:
    make(tmp_path)
    result = zsar("--data", name, "--data-root", tmp_path, "--split", "all", "--dry-run", "--format", "json")
    assert result.exit_code == 0, result.output
    (part,) = json.loads(result.stdout)["parts"]
    assert (part["rows"], part["missing"], part["videos"]) == (rows, missing, rows - missing)
    assert part["hash"]
    assert not part["unmatched_labels"]


def test_what_is_chosen_where_nothing_is_said(tmp_path: Path) -> None:
    assert command.choose(None, None).model == "motion-tiny"
    assert command.choose(None, None).data == "motion-shapes"
    assert command.choose("ucf101", None).model == command.DEFAULT_MODEL
    (tmp_path / "config.yaml").write_text("data: hmdb51\n")
    assert command.choose(None, str(tmp_path)).data == "hmdb51"
    with pytest.raises(UsageError, match="--data"):
        command.choose(None, "ViT-B-16/openai")


def test_sampling_is_frames_crops_views() -> None:
    assert command.parse_sampling("32x1") == (32, 1, 1)
    assert command.parse_sampling("16x3x4") == (16, 4, 3)
    for wrong in ("8", "8x", "0x1", "8x1x1x1", "axb"):
        with pytest.raises(UsageError):
            command.parse_sampling(wrong)
