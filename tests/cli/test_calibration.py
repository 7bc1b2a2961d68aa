"""``zsar eval --calibrate`` and what ``zsar predict`` makes of it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from zsar_cli import Recognizer, UsageError
from zsar_cli.cli.calibrate import _learned_line
from zsar_cli.files import ASSETS
from zsar_cli.prediction import calibration

SAMPLES = ASSETS / "samples"
LABELS = [line for line in (SAMPLES / "labels.txt").read_text().splitlines() if line[:1] not in ("", "#")]


@pytest.fixture(scope="module")
def listing(tmp_path_factory) -> Path:
    """Fourteen videos, two of them of none of the labels."""
    folder = tmp_path_factory.mktemp("calibrate")
    rows = ["path,label"]
    for video in sorted(SAMPLES.glob("*.mp4")):
        label = next((x for x in LABELS if set(video.stem.split("-")) <= set(x.split()) | {"while"}), "none")
        for copy in "ab":
            shutil.copy(video, folder / f"{video.stem}-{copy}.mp4")
            rows.append(f"{video.stem}-{copy}.mp4,{label}")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")
    return folder / "labels.csv"


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("ZSAR_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def calibrate(zsar, listing):
    def run(*more, model="motion-tiny", labels=SAMPLES / "labels.txt", videos=None):
        named = ("--labels", labels) if labels else ()
        common = ("--calibrate", videos or listing, "--model", model, "--workers", 0, "--precision", "fp32")
        return zsar("eval", *common, *named, *more)

    return run


@pytest.fixture
def predict(zsar):
    def run(*more, model="motion-tiny", labels=("--labels", SAMPLES / "labels.txt")):
        video = SAMPLES / "neither-shape-moving-right-shrinking.mp4"
        return zsar("predict", video, "--model", model, *labels, "--workers", 0, "--precision", "fp32", *more)

    return run


def test_predict_answers_by_the_bound_that_was_found_and_says_so(calibrate, predict, own_folder):
    assert "answer" not in predict().records[0]
    done = calibrate("-v")
    assert done.code == 0, done.err
    assert "decoding processes, decoder" in done.err
    assert "waiting for decoders " in done.err.split("Time: ")[1]
    assert "14 videos" in done.out
    assert "2 of them with label none" in done.out
    assert "few videos" in done.out
    (file,) = own_folder.glob("calibration-*.yaml")
    found = predict("--calibration", 80)  # one of the samples is answered wrong
    said = [line for line in found.err.splitlines() if "Calibrated" in line]
    assert len(said) == 1
    assert "14 videos" in said[0]
    assert 0 < found.records[0]["min_confidence"] < 1
    assert found.records[0]["answer"] == "none of these"
    assert str(found.records[0]["min_confidence"]) in file.read_text()
    windowed = predict("--window", 1, "--calibration", 80)
    assert windowed.records[0]["min_confidence"] == found.records[0]["min_confidence"]
    assert predict("--window", 1, "--calibration", "off").records[0]["min_confidence"] == 0.5
    check_python(found.records[0])


def check_python(wanted: dict) -> None:
    """Python answers by the same bound."""
    recognizer = Recognizer.load("motion-tiny", precision="fp32")
    question = wanted["video"], SAMPLES / "labels.txt"
    answer = recognizer.predict(*question, calibration="80")
    assert (answer.answer, answer.min_confidence) == (wanted["answer"], wanted["min_confidence"])
    (many,) = recognizer.predict_many(question[:1], question[1], calibration="80", workers=0)
    assert many == answer
    assert recognizer.segments(*question, window=1, calibration="80").min_confidence == answer.min_confidence
    assert recognizer.predict(*question, calibration="off").answer is None
    assert recognizer.predict(*question, min_confidence=0.25).min_confidence == 0.25
    assert recognizer.predict(wanted["video"], ["a dog"], calibration="80").answer is None
    with pytest.raises(UsageError, match="calibration must be 95 or 90"):
        recognizer.predict(*question, calibration=90)


def test_a_calibration_is_used_only_where_all_agrees(calibrate, predict):
    assert calibrate("--frames", 8).code == 0
    same = predict("--frames", 8)
    assert "Calibrated" in same.err
    reversed_order = [part for label in reversed(LABELS) for part in ("--label", label)]
    assert "Calibrated" in predict("--frames", 8, labels=reversed_order).err
    for more in (
        ["--frames", 4],
        ["--templates", "plain"],
        ["--label", "a dog"],
        ["--calibration", "off"],
        ["--multi"],
    ):
        assert "Calibrated" not in predict(*(["--frames", 8] if "--frames" not in more else []), *more).err
    given = predict("--frames", 8, "--min-confidence", 0.25)
    assert "Calibrated" not in given.err
    assert given.records[0]["min_confidence"] == 0.25


def test_another_target_is_chosen_and_one_that_no_bound_reaches_is_said(calibrate, predict, own_folder):
    assert calibrate().code == 0
    (file,) = own_folder.glob("calibration-*.yaml")
    assert "5% false alarms" in predict("--calibration", "alarms").err
    import yaml

    content = yaml.safe_load(file.read_text())
    content["calibrations"][0]["bounds"]["precision90"] = None
    file.write_text(yaml.safe_dump(content))
    without = predict()
    assert "no threshold reached 90% right" in without.err
    assert "answer" not in without.records[0]


def test_a_run_keeps_its_own_calibration_and_a_damaged_one_is_not_believed(
    calibrate, predict, tmp_path, own_folder
):
    run = tmp_path / "run"
    shutil.copytree(ASSETS / "motion-tiny", run)
    assert calibrate(model=run).code == 0
    assert calibrate("--frames", 4, model=run).code == 0
    assert calibrate(model=run).code == 0  # in place of the first
    file = run / calibration.NAME
    assert file.read_text().count('"weights"') == 2
    assert not list(own_folder.glob("calibration*"))
    assert "Calibrated" in predict(model=run).err
    for damage in (
        "format: 2\ncalibrations: []\n",
        "- 1\n",
        "\0",
        "",
        file.read_text().replace('"answered": ', '"answered": -'),
        file.read_text().replace('"min_confidence": 0', '"min_confidence": 7'),
    ):
        file.write_text(damage)
        found = predict(model=run)
        assert found.code == 0
        assert "The calibration is not used" in found.err
        assert "answer" not in found.records[0]
    refused = calibrate(model=run)
    assert refused.code == 2
    assert "--overwrite" in refused.err
    assert file.read_text() == damage
    assert calibrate("--overwrite", model=run).code == 0
    assert "Calibrated" in predict(model=run).err


def test_too_few_videos_and_what_does_not_go_together_are_refused(calibrate, listing, tmp_path):
    few = listing.parent / "few.csv"
    few.write_text("\n".join(listing.read_text().splitlines()[:10]) + "\n")
    refused = calibrate(videos=few)
    assert refused.code == 2
    assert "9 usable videos" in refused.err
    assert "too few" in refused.err
    for more in (["--data", "x"], ["--output", tmp_path / "o"], ["--protocol", "open-set"], ["--dry-run"]):
        refused = calibrate(*more)
        assert refused.code == 2
        assert more[0] in refused.err
    assert calibrate(videos=tmp_path / "no.csv").code == 2


def test_labels_must_be_named_unless_a_run_has_its_own(calibrate, tiny_clip_dir):
    refused = calibrate(model=tiny_clip_dir, labels=None)
    assert refused.code == 2
    assert "--labels" in refused.err


def test_a_calibration_that_is_asked_for_and_is_not_there_is_missed(predict):
    assert "finds no calibration" in predict("--calibration", "95").err
    assert "finds no calibration" not in predict("--calibration", "off").err
    assert "finds no calibration" not in predict().err


def test_clips_that_a_run_learned_from_are_said_to_promise_too_much(tmp_path):
    (tmp_path / "run").mkdir()
    videos = [tmp_path / "mine" / part / "a" / "0.mp4" for part in ("train", "val", "test")]
    listing = tmp_path / "right.csv"
    listing.touch()
    for data, told in ((tmp_path / "mine", 2), (listing, 3), (tmp_path / "gone", 0)):
        (tmp_path / "run" / "config.yaml").write_text(f"data: {data}\n")
        (tmp_path / "mine").mkdir(exist_ok=True)
        line = _learned_line(str(tmp_path / "run"), listing, [str(video) for video in videos])
        assert (line or "0").startswith(f"{told} of the 3 videos are of" if told else "0")


def test_a_pipe_is_no_calibration_and_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "calibration.yaml")
    model = SimpleNamespace(name=str(tmp_path), fingerprint=lambda: "w")
    (tmp_path / "config.yaml").touch()
    (tmp_path / "model.safetensors").touch()
    assert calibration.find(model, calibration.Key("w", "l", "t", 8)) is None
