"""Published families at the command line: predict, windows, the cache, explanations, and what is refused."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests import published_files as files
from tests.cli.conftest import Result
from tests.video_files import write_video

FAMILIES = ["mote", "openvclip", "vifi", "xclip", "viclip", "ezclip"]
LABELS = [f"--label={label}" for label in files.LABELS]


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a file of each family, and their base."""
    folder = tmp_path_factory.mktemp("published")
    torch.save(files.clip(), folder / "base.pt")
    for family in FAMILIES:
        vectors = torch.nn.functional.normalize(files.draw("labels", (5, 64)), dim=-1)
        files.write(folder, family, files.content(family, vectors))
    return folder


@pytest.fixture(scope="session")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("video") / "a.mp4", 24, size=(96, 64))


def model(weights: Path, family: str) -> list[object]:
    named = [
        "--model",
        f"{family}:{weights / f'{family}.pth'}",
        "--backbone",
        weights / "base.pt",
        "--workers",
        0,
    ]
    return (
        named if family == "xclip" else [*named, "--templates", "photo"]
    )  # others take more text than a test needs


@pytest.mark.parametrize("family", FAMILIES)
def test_predict_answers_also_from_the_cache(
    zsar: Callable[..., Result], weights: Path, video: Path, tmp_path: Path, family: str
) -> None:
    frames = [] if family != "vifi" else ["--frames", 4]
    asked = ["predict", video, *LABELS, *model(weights, family), *frames, "--views", 2]
    plain = zsar(*asked)
    assert plain.code == 0, plain.err
    (record,) = plain.records
    assert [set(p) >= {"label", "score", "yes"} for p in record["predictions"]] == [True] * 5
    first, second = (zsar(*asked, "--cache", tmp_path / "cache") for _ in range(2))
    assert "1 added" in first.err
    assert "1 videos read" in second.err
    assert second.records == first.records
    for got, want in zip(first.records[0]["predictions"], record["predictions"], strict=True):
        assert got["label"] == want["label"]
        assert got["score"] == pytest.approx(want["score"], abs=5e-3)


@pytest.mark.parametrize("family", ["mote", "openvclip", "xclip"])
def test_windows_and_explanations_work_where_frames_are_looked_at_together(
    zsar: Callable[..., Result], weights: Path, video: Path, tmp_path: Path, family: str
) -> None:
    found = zsar("predict", video, *LABELS, *model(weights, family), "--window", 0.5, "--min-confidence", 0)
    assert found.code == 0, found.err
    assert found.records[0]["segments"]
    drawn = zsar("predict", video, *LABELS, *model(weights, family), "--explain", tmp_path / "sheets")
    assert drawn.code == 0, drawn.err
    assert len(list((tmp_path / "sheets").iterdir())) == 1


def test_a_window_of_the_whole_video_is_answered_as_the_video(
    zsar: Callable[..., Result], weights: Path, tmp_path: Path
) -> None:
    video = write_video(tmp_path / "still.mp4", 24, size=(96, 64))
    one = zsar("predict", video, *LABELS, *model(weights, "openvclip"), "--window", 60, "--min-confidence", 0)
    assert one.code == 0, one.err
    assert len(one.records[0]["segments"]) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "openvclip:none.pth"], "Google Drive, folder 1VhwPFESkrr9Ed40yU5NEPIkrGIf6WQ9N"),
        (["--model", "tcclip:none.pth"], r"CC BY-NC 4.0"),
        (["--model", "xclip:{folder}/vifi.pth"], "vifi.pth holds ViFi-CLIP and not X-CLIP; name it vifi:"),
        (["--model", "vifi:{folder}/vifi.pth"], "name the CLIP that it was trained from with --backbone"),
        (["--model", "xclip:{folder}/xclip.pth", "--frames", "4"], "sees 8 frames of a clip and not 4"),
        (
            ["--model", "xclip:{folder}/xclip.pth", "--precision", "int8"],
            "cannot run in int8|int8 needs a CPU",
        ),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(
    zsar: Callable[..., Result], weights: Path, video: Path, arguments: list[str], message: str
) -> None:
    given = [argument.format(folder=weights) for argument in arguments]
    refused = zsar("predict", video, *LABELS, *given, "--workers", 0)
    assert refused.code == 2
    assert re.search(message, " ".join(refused.err.split()))
