"""Published families at the command line: predict, windows, the cache, explanations, and what is refused."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml

from tests import published_files as files
from tests.cli.conftest import Result
from tests.close import assert_close
from tests.video_files import write_video
from zsar_cli.cli.output.evaluation_tables import comparison_lines
from zsar_cli.evaluation.protocols import published_numbers

FAMILIES = ["mote", "openvclip", "vifi", "xclip", "viclip", "ezclip"]
LABELS = [f"--label={label}" for label in files.LABELS]


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a file of each family, and their base."""
    folder = tmp_path_factory.mktemp("published")
    torch.save(files.clip(), folder / "base.pt")
    for family in (*FAMILIES, "ost"):
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
def test_predict_answers_also_from_the_cache_and_from_stored_embeddings(
    zsar: Callable[..., Result], weights: Path, video: Path, tmp_path: Path, family: str
) -> None:
    frames = [] if family != "vifi" else ["--frames", 4]
    asked = ["predict", video, *LABELS, *model(weights, family), *frames, "--views", 2]
    plain = zsar(*asked, "--embeddings", "--output", tmp_path / "plain.jsonl")
    assert plain.code == 0, plain.err
    record = json.loads((tmp_path / "plain.jsonl").read_text())
    again = zsar("predict", tmp_path / "plain.jsonl", *LABELS, *model(weights, family))
    assert again.code == 0, again.err
    assert_close(again.records[0]["predictions"], record["predictions"])
    assert [set(p) >= {"label", "score", "yes"} for p in record["predictions"]] == [True] * 5
    first, second = (zsar(*asked, "--cache", tmp_path / "cache") for _ in range(2))
    assert "1 added" in first.err
    assert "1 videos read" in second.err
    assert second.records == first.records
    for got, want in zip(first.records[0]["predictions"], record["predictions"], strict=True):
        assert got["label"] == want["label"]
        assert got["score"] == pytest.approx(want["score"], abs=5e-3)


DESCRIPTORS = {
    name: {kind: [f"{name} {kind} {number}" for number in range(4)] for kind in ("temporal", "spatial")}
    for name in ("archery", "brush hair")
}


def test_ost_answers_described_labels_from_what_was_cached_for_plain_ones(
    zsar: Callable[..., Result], weights: Path, video: Path, tmp_path: Path
) -> None:
    (tmp_path / "described.json").write_text(json.dumps(DESCRIPTORS))
    asked = ["predict", video, *model(weights, "ost")[:-2], "--frames", 4]
    described = [*asked, "--labels", tmp_path / "described.json"]
    plain = zsar(*asked, "--label", "archery", "--label", "brush hair", "--cache", tmp_path / "cache")
    cached, fresh = (zsar(*described, "--cache", tmp_path / folder) for folder in ("cache", "other"))
    assert "1 added" in plain.err
    assert "1 videos read" in cached.err
    assert cached.records == fresh.records
    assert cached.records[0]["predictions"] != plain.records[0]["predictions"]
    more = zsar(*described, "--window", 0.5, "--min-confidence", 0)
    assert more.code == 0, more.err
    drawn = zsar(*described, "--explain", tmp_path / "sheets")
    assert drawn.code == 0, drawn.err


def test_eval_of_ost_says_whether_labels_have_descriptors(
    zsar: Callable[..., Result], weights: Path, classes: Path, tmp_path: Path
) -> None:
    asked = ["eval", "--data", classes, *model(weights, "ost")[:-2], "--format", "json"]
    asked += ["--protocol-preset", "published"]
    without = zsar(*asked)
    assert without.code == 0, without.err
    said = json.loads(without.out)["published"]["protocol"]
    assert said.startswith("as published, without optimal transport, which needs 4 spatial")
    (tmp_path / "described.json").write_text(json.dumps(DESCRIPTORS))
    found = zsar(*asked, "--descriptions", tmp_path / "described.json")
    assert found.code == 0, found.err
    said = json.loads(found.out)["published"]["protocol"]
    assert said == "as published, with the descriptors that were given"


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
            "does not support int8|int8 needs a CPU",
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


@pytest.fixture
def classes(tmp_path: Path) -> Path:
    """A data set of two classes with a video each."""
    for number, name in enumerate(("Archery", "BrushHair")):
        (tmp_path / "data" / name).mkdir(parents=True)
        write_video(tmp_path / "data" / name / "a.mp4", 16 + number, size=(96, 64))
    return tmp_path / "data"


def test_eval_by_the_published_protocol_says_so(
    zsar: Callable[..., Result], weights: Path, classes: Path, tmp_path: Path
) -> None:
    asked = [
        "eval",
        "--data",
        classes,
        *model(weights, "vifi")[:-2],
        "--format",
        "json",
        "--output",
        tmp_path / "out",
    ]
    found = zsar(*asked, "--protocol-preset", "published")
    assert found.code == 0, found.err
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["options"]["frames"] == 32
    assert results["templates"]["name"] == "photo"
    assert results["preprocess"]["resize_mode"] == "larger"
    assert results["published"]["protocol"] == "as published"
    assert results["published"]["sampling"] == "segments"
    assert "split into words" not in found.err  # BrushHair, as the authors' list has it
    other = zsar("eval", "--data", classes, *model(weights, "openvclip"), "--frames", 2, "--format", "json")
    assert other.code == 0, other.err
    said = json.loads(other.out)["published"]
    assert said["protocol"] == "other frames, views, templates, mixing than published"


def test_the_published_protocol_goes_without_what_it_sets(
    zsar: Callable[..., Result], weights: Path, classes: Path
) -> None:
    for arguments, message in (
        (["--model", "motion-tiny"], "is for the families of published checkpoints"),
        ([*model(weights, "vifi"), "--views", 2], "sets --views; remove --views"),
    ):
        refused = zsar("eval", "--data", classes, *arguments, "--protocol-preset", "published")
        assert refused.code == 2
        assert message in " ".join(refused.err.split())


def test_the_published_row_of_a_file_stands_beside_what_was_measured() -> None:
    said = {
        "method": "MoTE",
        "backbone": "ViT-L/14",
        "top1": {"ucf101": 88.7, "hmdb51": 61.4, "kinetics600": 78.4},
        "protocol": "as published",
        "repeatable": True,
        "note": None,
    }
    results = {
        "protocol": "zero-shot",
        "lists": [{"data": "hmdb51", "labels": 51}],
        "summary": {"mean": 0.613},
        "model": "mote:L-14@published",
        "templates": {"name": "clip28"},
        "published": said,
    }
    line, table = comparison_lines(results, published_numbers())
    assert line == "MoTE ViT-L/14: published 61.4, measured here 61.3 (-0.1), as published."
    assert table.rows[-2][:3] == ("MoTE (this file)", "ViT-L/14", "61.4")
    assert table.rows[-1][:3] == ("this run", "mote:L-14@published", "61.3")
    assert sum(row[0].startswith("MoTE") and row[1] == "ViT-L/14" for row in table.rows) == 1


def test_the_list_of_models_has_every_published_file(zsar: Callable[..., Result]) -> None:
    listed = zsar("predict", "--list-models").out
    assert re.search(
        r"mote:L-14 +1.4 GB +Apache-2.0 +88.7 / 61.4 / 78.4 +the text tower of OpenAI's CLIP\n", listed
    )
    assert re.search(
        r"froster:PATH \(B-16\) +- +CC BY-NC-SA 4.0 +84.8 / 54.8 / 74.8 +a file fetched by hand", listed
    )


@pytest.mark.parametrize(
    ("family", "tune"), [("openvclip", "modules"), ("openvclip", "full"), ("vifi", "full")]
)
def test_training_goes_on_from_plain_towers(
    zsar: Callable[..., Result],
    weights: Path,
    classes: Path,
    video: Path,
    tmp_path: Path,
    family: str,
    tune: str,
) -> None:
    run = tmp_path / "run"
    small = [
        "--steps",
        1,
        "--batch-size",
        2,
        "--frames",
        2,
        "--tune",
        tune,
        "--parts-width",
        16,
        "--workers",
        0,
    ]
    trained = zsar("train", "--data", classes, *model(weights, family)[:4], "--output", run, *small)
    assert trained.code == 0, trained.err
    more = ["--backbone", weights / "base.pt"] if (family, tune) == ("vifi", "modules") else []
    answered = zsar("predict", video, "--model", run, *more, "--workers", 0)
    assert answered.code == 0, answered.err
    assert {found["label"] for found in answered.records[0]["predictions"]} == {"Archery", "BrushHair"}
    said = yaml.safe_load((run / "config.yaml").read_text())
    assert said.get("family") == ("openvclip" if (family, tune) == ("openvclip", "full") else None)


def test_no_training_goes_on_from_scores_of_a_familys_own(
    zsar: Callable[..., Result], weights: Path, classes: Path, tmp_path: Path
) -> None:
    refused = zsar("train", "--data", classes, *model(weights, "xclip")[:4], "--output", tmp_path / "run")
    assert refused.code == 2
    assert "X-CLIP is no backbone to train modules on" in " ".join(refused.err.split())


@pytest.mark.parametrize("family", ["xclip", "mote", "openvclip"])
def test_prompts_embedded_before_give_the_same_answer(
    zsar: Callable[..., Result], weights: Path, video: Path, tmp_path: Path, family: str
) -> None:
    asked = model(weights, family)
    made = zsar(
        "embed-prompts", *LABELS, *asked[:4], *asked[6:], "--output", tmp_path / "prompts.safetensors"
    )
    assert made.code == 0, made.err
    direct = zsar("predict", video, *LABELS, *asked)
    kept = zsar("predict", video, "--prompts", tmp_path / "prompts.safetensors", *asked[:6])
    assert kept.code == 0, kept.err
    for got, want in zip(kept.records[0]["predictions"], direct.records[0]["predictions"], strict=True):
        assert got["label"] == want["label"]
        assert got["score"] == pytest.approx(want["score"], abs=1e-5)
        assert got["yes"] == pytest.approx(want["yes"], abs=1e-5)


@pytest.mark.parametrize("family", ["openvclip", "xclip"])
def test_half_precision_is_near(zsar: Callable[..., Result], weights: Path, video: Path, family: str) -> None:
    asked = ["predict", video, *LABELS, *model(weights, family)]
    whole, half = (zsar(*asked, "--precision", kind).records[0]["predictions"] for kind in ("fp32", "bf16"))
    scores = {found["label"]: found["score"] for found in whole}
    assert all(found["score"] == pytest.approx(scores[found["label"]], abs=0.05) for found in half)
    assert any(found["score"] != scores[found["label"]] for found in half)


def test_in_python_a_video_has_an_embedding_where_the_family_has_one(weights: Path, video: Path) -> None:
    from zsar_cli import Recognizer, UsageError

    named = {name: f"{name}:{weights / f'{name}.pth'}" for name in ("openvclip", "xclip")}
    found = Recognizer.load(named["openvclip"]).embed_video(video, views=2)
    assert found.shape == (64,)
    with pytest.raises(UsageError, match="has no embedding of a video"):
        Recognizer.load(named["xclip"]).embed_video(video)
