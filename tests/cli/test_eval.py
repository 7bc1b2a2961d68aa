"""``zsar eval`` driven as people drive it: miniature data sets on disk, tiny models, the real command line."""

from __future__ import annotations

import json
import random
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from tests.close import assert_close, assert_same_file
from tests.data.make import make_hmdb51, make_kinetics, make_ssv2, make_ucf101, write_video
from tests.tiny_models import VIT
from zsar_cli.cli import eval as command
from zsar_cli.data import motion_shapes
from zsar_cli.errors import UsageError
from zsar_cli.evaluation import choice
from zsar_cli.training import cost

SHORT = ("--frames", 2, "--workers", 0, "--precision", "fp32")


@pytest.fixture(scope="session")
def shapes_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as ``zsar train`` writes it on motion-shapes: the whole method at random weights."""
    from zsar_cli.model.backbone import Backbone
    from zsar_cli.model.zsar import Parts, RecognizerModel, TrainingRecord

    torch.manual_seed(0)
    parts = Parts(width=16, queries=2, layers=1, heads=2)
    record = TrainingRecord(
        templates="plain", frames=3, data="motion-shapes", classes=list(motion_shapes.class_labels("seen"))
    )
    model = RecognizerModel(Backbone.from_config(dict(VIT)), parts, record)
    torch.nn.init.normal_(model.project.weight)
    folder = tmp_path_factory.mktemp("runs") / "shapes"
    model.save(folder)
    return folder


@pytest.fixture
def few_clips(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(motion_shapes, "CLIPS_PER_CLASS", dict.fromkeys(motion_shapes.SPLITS, 1))


def results_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "results.json").read_text())


def records_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]


# --- data sets in their real form ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "make", "rows", "missing"),
    [
        ("ucf101", make_ucf101, 3, 0),
        ("hmdb51", make_hmdb51, 4, 0),
        ("kinetics400", make_kinetics, 6, 1),
        ("ssv2", make_ssv2, 3, 0),
    ],
)
def test_dry_run_and_run(
    zsar, tmp_path: Path, tiny_clip_dir: Path, name: str, make, rows: int, missing: int
) -> None:
    make(tmp_path / name)  # the root holds several data sets, in a folder each
    about = ("--model", tiny_clip_dir, "--data", name, "--data-root", tmp_path, "--split", "all")
    dry = zsar("eval", *about, "--dry-run", "--format", "json")
    assert dry.code == 0, dry.err
    (part,) = json.loads(dry.out)["parts"]
    assert (part["rows"], part["missing"], part["videos"]) == (rows, missing, rows - missing)
    assert part["hash"]
    assert not part["unmatched_labels"]
    output = tmp_path / "out"
    done = zsar("eval", *about, *SHORT, "--max-missing", 0.2, "--output", output)
    assert done.code == 0, done.err
    found = results_of(output)
    assert found["parts"]["all"]["videos"] == rows - missing
    assert found["parts"]["all"]["unreadable"] == 0
    assert found["lists"][0]["hash"] == part["hash"]
    assert len(found["lists"][0]["missing_videos"]) == missing
    assert part["hash"] in done.out
    if missing:
        assert "gone_gone_1" in done.out
        right = found["parts"]["all"]["top1"] * 5
        assert found["parts"]["all"]["top1_lower"] == pytest.approx(right / 6)


def test_dry_run_says_what_is_odd(zsar, tmp_path: Path) -> None:
    make_kinetics(tmp_path)
    (tmp_path / "mine.csv").write_text(
        "val/yoga/3caPS4FHFF8.mp4,yoga\nnot there.mp4,zumba\nx.mp4,[juggling]\n"
    )
    shown = zsar(
        "eval", "--data", "kinetics400", "--data-root", tmp_path, "--list", tmp_path / "mine.csv", "--dry-run"
    )
    assert shown.code == 0, shown.err
    assert "mine.csv, 3 rows, hash " in shown.out
    assert "labels that match no class: [juggling] (1)" in shown.out
    assert "missing: not there.mp4" in shown.out
    assert "classes without clips: abseiling, air drumming" in shown.out
    assert "would stop: 66.7% of the videos" in shown.out


def test_train_says_what_would_run_however_much_is_missing(zsar, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(cost, "model_cost", lambda recipe: None)  # counting a ViT-B/16 takes half a second
    (tmp_path / "train.csv").write_text(
        "label,youtube_id,time_start,time_end,split\nyoga,3caPS4FHFF8,36,46,train\nzumba,gone_gone_1,1,11,train\n"
    )
    write_video(tmp_path / "train" / "yoga" / "3caPS4FHFF8_000036_000046.mp4")
    arguments = ("train", "--data", "kinetics400", "--data-root", tmp_path)
    shown = zsar(*arguments, "--dry-run")
    assert shown.code == 0, shown.err
    for expected in ("1 clips of 400 classes", "train.csv, 2 rows, hash ", "1 listed videos are not there"):
        assert expected in shown.out
    stopped = zsar(*arguments, "--output", tmp_path / "run")
    assert stopped.code == 2
    assert "gone_gone_1" in stopped.err
    nothing = zsar("train", "--data", "kinetics400", "--dry-run")
    assert nothing.code == 2
    assert "ZSAR_DATA_ROOT" in nothing.err
    (tmp_path / "empty").mkdir()
    empty = zsar("train", "--data", "kinetics400", "--data-root", tmp_path / "empty", "--dry-run")
    assert empty.code == 2
    assert "train.csv" in empty.err
    assert "train/CLASS/VIDEO" in empty.err


def test_unreadable_videos_are_counted_and_too_many_stop_the_run(
    zsar, tmp_path: Path, tiny_clip_dir: Path
) -> None:
    make_ucf101(tmp_path)
    broken = tmp_path / "UCF-101" / "YoYo" / "v_YoYo_g01_c01.avi"
    whole = broken.read_bytes()
    broken.write_bytes(b"this is no video")
    output = tmp_path / "out"
    arguments = (
        "eval", "--model", tiny_clip_dir, "--data", "ucf101", "--data-root", tmp_path, "--split", "test1", *SHORT,
        "--output", output,
    )  # fmt: skip
    stopped = zsar(*arguments)
    assert stopped.code == 2
    assert "1 cannot be read (such as YoYo/v_YoYo_g01_c01.avi)" in stopped.err
    assert not (output / "results.json").exists()
    done = zsar(*arguments, "--max-missing", 0.5)
    assert done.code == 0, done.err
    part = results_of(output)["parts"]["test1"]
    assert (part["videos"], part["unreadable"]) == (2, 1)
    assert part["top1_lower"] == pytest.approx(part["top1"] * 2 / 3)
    assert sum("error" in record for record in records_of(output)) == 1
    broken.write_bytes(whole)  # put right, it is tried again
    assert zsar(*arguments).code == 0
    assert results_of(output)["parts"]["test1"]["videos"] == 3
    assert sorted(record["item"] for record in records_of(output)) == [0, 1, 2]


# --- what is chosen where nothing is said -------------------------------------------------------------------


def test_the_bundled_model_on_motion_shapes(
    zsar, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shapes_run: Path, few_clips: None
) -> None:
    from zsar_cli.model import config

    (tmp_path / "motion-tiny").symlink_to(shapes_run)
    monkeypatch.setattr(config, "ASSETS", tmp_path)
    done = zsar("eval", "--split", "unseen")
    assert done.code == 0, done.err
    assert done.out.startswith("motion-tiny on motion-shapes (split; the bundled model and data; see --model")
    assert "unseen: motion-shapes unseen, 27 rows" in done.out


def test_a_run_is_evaluated_on_what_it_was_trained_on(
    zsar, tmp_path: Path, shapes_run: Path, few_clips: None
) -> None:
    output, precise = tmp_path / "out", ("--precision", "fp32", "--batch-size", 32)
    done = zsar("eval", "--model", shapes_run, "--output", output, *precise)
    assert done.code == 0, done.err
    found = results_of(output)
    assert found["options"]["frames"] == 3  # as in training
    assert found["templates"]["name"] == "plain"
    assert [found["parts"][name]["classes"] for name in ("seen", "unseen", "shifted")] == [95, 27, 27]
    assert found["parts"]["seen of all"]["classes"] == found["parts"]["unseen of all"]["classes"] == 122
    assert found["parts"]["unseen"]["labels_in_training"] == 0
    assert found["parts"]["seen"]["labels_in_training"] == 95
    s, u = (found["summary"][f"{name} of all"] for name in ("seen", "unseen"))
    assert found["summary"]["harmonic_mean"] == pytest.approx(2 * s * u / (s + u) if s + u else 0)
    assert found["open_set"]["unknown_of_predict"] == "yes"
    assert set(found["open_set"]["scores"]) == {"yes", "softmax", "energy", "bank"}
    records = records_of(output)
    known = [r["unknown"] for r in records if r["part"] == "unseen"]
    strange = [r["unknown"] for r in records if r["part"] == "unknown"]
    truth = [False] * len(known) + [True] * len(strange)
    from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve  # takes a second

    for kind, numbers in found["open_set"]["scores"].items():
        values = [scores[kind] for scores in known + strange]
        assert numbers["auroc"] == pytest.approx(roc_auc_score(truth, values), abs=1e-9)
        assert numbers["aupr"] == pytest.approx(average_precision_score(truth, values), abs=1e-9)
        fpr, tpr, _ = roc_curve(truth, values, drop_intermediate=False)
        assert numbers["fpr95"] == pytest.approx(fpr[tpr >= 0.95].min(), abs=1e-9)
    again = zsar("eval", "--model", shapes_run, "--protocol", "generalised", "--format", "json", *precise)
    assert again.code == 0, again.err
    numbers = json.loads(again.out)["parts"]
    assert list(numbers) == ["seen of all", "unseen of all"]
    assert all(numbers[part]["top1"] == found["parts"][part]["top1"] for part in numbers)


def own_run(zsar, folder: Path, data: Path, clip: Path) -> Path:
    done = zsar(
        "train", "-c", "modules", "--data", data, "--model", clip, "-o", folder, "--steps", 1, "--batch-size", 2,
        "--parts-width", 16, "--parts-queries", 1, "--parts-layers", 1, "--parts-heads", 2, *SHORT,
    )  # fmt: skip
    assert done.code == 0, done.err
    return folder


def test_classes_seen_in_training_are_not_called_zero_shot(zsar, tmp_path: Path, tiny_clip_dir: Path) -> None:
    pytest.importorskip("matplotlib")
    for purpose, names in (("train", ("run", "jump")), ("val", ("run", "jump")), ("test", ("run", "jump"))):
        for name in names:
            write_video(tmp_path / "data" / purpose / name / "a.mp4")
    run = own_run(zsar, tmp_path / "run", tmp_path / "data", tiny_clip_dir)
    dry = zsar("eval", "--model", run, "--dry-run")
    assert "(classes seen in training; the data that the model was trained on)" in dry.out
    done = zsar("eval", "--model", run, "--report", tmp_path / "report", *SHORT)
    assert done.code == 0, done.err
    found = results_of(tmp_path / "report")
    assert found["protocol"] == "classes seen in training"
    assert (found["labels_seen_in_training"], found["labels_not_seen_in_training"]) == (2, 0)
    assert not found["notes"]
    assert "zero-shot" not in done.out
    page = (tmp_path / "report" / "report.html").read_text()
    assert "Protocol: classes seen in training." in page
    assert "2 of 2 labels are classes that the model was trained on" in page
    assert "FROSTER" not in page  # no published number is of this data
    write_video(tmp_path / "other" / "Run" / "a.mp4")
    write_video(tmp_path / "other" / "swim" / "a.mp4")
    partly = zsar("eval", "--model", run, "--data", tmp_path / "other", "--format", "json", *SHORT)
    assert json.loads(partly.out)["protocol"] == "zero-shot with some classes seen in training"
    assert json.loads(partly.out)["labels_not_seen_in_training"] == 1
    plain = zsar("eval", "--model", tiny_clip_dir, "--data", tmp_path / "other", "--format", "json", *SHORT)
    assert json.loads(plain.out)["protocol"] == "zero-shot"


def test_what_is_no_test_is_said(zsar, tmp_path: Path, tiny_clip_dir: Path) -> None:
    for name in ("run", "jump"):
        write_video(tmp_path / "flat" / name / "a.mp4")
        for purpose in ("train", "val"):
            write_video(tmp_path / "two" / purpose / name / "a.mp4")
    run = own_run(zsar, tmp_path / "run", tmp_path / "flat", tiny_clip_dir)
    assert "the model was trained on these videos" in zsar("eval", "--model", run, "--dry-run").out
    assert (
        "trained on these videos"
        not in zsar("eval", "--model", tiny_clip_dir, "--data", tmp_path / "flat", "--dry-run").out
    )
    chosen_by = zsar("eval", "--model", tiny_clip_dir, "--data", tmp_path / "two", "--dry-run")
    assert (
        "two has no test videos: these are its val ones, by which zsar train chooses best/" in chosen_by.out
    )
    write_video(tmp_path / "one" / "run" / "a.mp4")
    alone = zsar("eval", "--model", tiny_clip_dir, "--data", tmp_path / "one", *SHORT)
    assert alone.code == 0, alone.err
    assert "only one label" in alone.out


def test_what_is_chosen(tmp_path: Path) -> None:
    assert choice.choose(None, None).model == "motion-tiny"
    assert choice.choose(None, None).data == "motion-shapes"
    assert choice.choose("ucf101", None).model == choice.DEFAULT_MODEL
    (tmp_path / "config.yaml").write_text("data: hmdb51\nframes: 16\n")
    chosen = choice.choose(None, str(tmp_path))
    assert (chosen.model, chosen.data) == (str(tmp_path), "hmdb51")
    assert chosen.why == "the data that the model was trained on"
    (tmp_path / "config.yaml").write_text("- no map\n")
    for model in ("ViT-B-16/openai", str(tmp_path)):
        with pytest.raises(UsageError, match="--data"):
            choice.choose(None, model)


def test_sampling_is_frames_crops_views() -> None:
    assert command.parse_sampling("32x1") == (32, 1, 1)
    assert command.parse_sampling("16x3x4") == (16, 4, 3)
    for wrong in ("8", "8x", "0x1", "8x1x1x1", "axb", "8x²"):
        with pytest.raises(UsageError):
            command.parse_sampling(wrong)


# --- protocols ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """UCF101 and HMDB51 side by side."""
    folder = tmp_path_factory.mktemp("data")
    make_ucf101(folder / "ucf101")
    make_hmdb51(folder / "HMDB-51")
    return folder


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--protocol", "zero-shot"], {"test1": 101, "test2": 101, "test3": 101}),
        (
            ["--protocol", "zero-shot", "--split", "seen"],
            {"test1 seen": 51, "test2 seen": 51, "test3 seen": 51},
        ),
        (["--protocol", "base-to-novel"], {"base": 51, "novel": 50}),
        (["--protocol", "generalised"], {"base": 101, "novel": 101}),
        (["--protocol", "few-shot"], {"test1": 101}),
        (["--protocol", "open-set"], {"known": 101}),
        (["--split", "unseen"], {"unseen": 50}),
        (["--split", "test2"], {"test2": 101}),
        (["--split", "full"], {"full": 101}),
    ],
)
def test_protocols(
    zsar, tmp_path: Path, root: Path, tiny_clip_dir: Path, arguments: list[str], parts: dict[str, int]
) -> None:
    output = tmp_path / "out"
    done = zsar(
        "eval", "--model", tiny_clip_dir, "--data", "ucf101", "--data-root", root, *SHORT, *arguments,
        "--output", output, "--compare",
    )  # fmt: skip
    assert done.code == 0, done.err
    found = results_of(output)
    assert {name: numbers["classes"] for name, numbers in found["parts"].items()} == parts
    records = records_of(output)
    assert len(records) == sum(entry["videos"] for entry in found["lists"])
    for name, numbers in found["parts"].items():
        mine = [r for r in records if r["part"] == name]
        assert numbers["top1"] == np.mean([r["rank"] == 0 for r in mine])
        assert (output / f"confusion_{name.replace(' ', '-')}.csv").is_file()
        rows = (output / f"reliability_{name.replace(' ', '-')}.csv").read_text().splitlines()
        assert sum(int(row.split(",")[2]) for row in rows[1:]) == len(mine)
    if found["protocol"] == "few-shot":
        lines = (output / "train_2shot.txt").read_text().splitlines()
        assert sorted(line.split("\t")[1] for line in lines) == [
            "apply eye makeup",
            "handstand push ups",
            "yo yo",
        ]
    if found["protocol"] == "open-set":
        assert found["open_set"]["unknown_videos"] == 4
        assert "FPR at TPR 0.95" in done.out
    compares = arguments == ["--protocol", "zero-shot"]  # and among all labels
    assert ("84.8" in done.out) == compares  # FROSTER, on ucf101
    assert "54.8" not in done.out  # and on hmdb51
    assert ("no comparable published results" in done.out) != compares


def test_lists_of_few_shots_are_what_training_takes(
    zsar, tmp_path: Path, root: Path, tiny_clip_dir: Path, monkeypatch
) -> None:
    monkeypatch.setattr(cost, "model_cost", lambda recipe: None)
    output = tmp_path / "out"
    arguments = ("eval", "--model", tiny_clip_dir, "--data", "ucf101", "--data-root", root, *SHORT)
    done = zsar(*arguments, "--protocol", "base-to-novel", "--shots", 1, "--output", output)
    assert done.code == 0, done.err
    listed = (output / "train_1shot.txt").read_text().splitlines()
    # the two base classes of the three; a class without clips gives none
    assert sorted(line.split("\t")[1] for line in listed) == ["apply eye makeup", "handstand push ups"]
    shown = zsar("train", "--data", output / "train_1shot.txt", "--dry-run")
    assert shown.code == 0, shown.err
    assert "2 clips of 2 classes" in shown.out


def test_views_crops_and_the_motion_probe(zsar, tmp_path: Path, root: Path, tiny_clip_dir: Path) -> None:
    done = zsar(
        "eval", "--model", tiny_clip_dir, "--data", "hmdb51", "--data-root", root, "--split", "test1",
        "--sampling", "3x3x2", "--probe", "motion", "--workers", 1, "--output", tmp_path / "out",
    )  # fmt: skip
    assert done.code == 0, done.err
    found = results_of(tmp_path / "out")
    assert {k: found["options"][k] for k in ("frames", "views", "crops")} == {
        "frames": 3,
        "views": 2,
        "crops": 3,
    }
    probes = found["parts"]["test1"]["probes"]
    assert set(probes) == {"shuffled", "reversed", "frozen"}
    # The mean over frames of a plain CLIP does not see their order, and the numbers must say so.
    assert probes["shuffled"]["cost"] == probes["reversed"]["cost"] == 0
    assert "3 frames x 2 views x 3 crops" in done.out
    assert "one frame" in done.out


def test_batch_size_and_workers_change_nothing(zsar, tmp_path: Path, root: Path, tiny_clip_dir: Path) -> None:
    found = []
    for number, (batch, workers) in enumerate(((1, 0), (3, 2))):
        output = tmp_path / str(number)
        done = zsar(
            "eval", "--model", tiny_clip_dir, "--data", "hmdb51", "--data-root", root, "--frames", 4,
            "--batch-size", batch, "--workers", workers, "--precision", "fp32", "--output", output,
        )  # fmt: skip
        assert done.code == 0, done.err
        found.append(sorted(records_of(output), key=lambda r: (r["part"], r["item"])))
    for one, other in zip(*found, strict=True):
        assert_close(one, other)


def test_descriptions_stand_for_labels(zsar, tmp_path: Path, root: Path, tiny_clip_dir: Path) -> None:
    path = tmp_path / "described.yaml"
    path.write_text(yaml.safe_dump({"YoYo": ["a toy on a string"], "Archery": "bow and arrow"}))
    arguments = (
        "eval", "--model", tiny_clip_dir, "--data", "ucf101", "--data-root", root, "--split", "test1", *SHORT,
        "--format", "json",
    )  # fmt: skip
    bare, described = (json.loads(zsar(*arguments, *more).out) for more in ((), ("--descriptions", path)))
    assert bare["descriptions"] is None
    assert described["descriptions"]
    assert "99 of 101 labels have no description" in described["notes"][0]
    path.write_text("nothing known: words\n")
    assert zsar(*arguments, "--descriptions", path).code == 2


# --- files, resuming, mistakes ------------------------------------------------------------------------------


def test_results_name_everything_that_moves_a_number(
    zsar, tmp_path: Path, root: Path, tiny_clip_dir: Path
) -> None:
    arguments = ("eval", "--model", tiny_clip_dir, "--data", "ucf101", "--data-root", root, *SHORT)
    assert zsar(*arguments, "--output", tmp_path / "a").code == 0
    found = results_of(tmp_path / "a")
    for key in (
        "model",
        "weights",
        "precision",
        "templates",
        "bank",
        "preprocess",
        "options",
        "lists",
        "versions",
    ):
        assert found[key], key
    assert {"mean", "std", "size", "interpolation"} <= set(found["preprocess"])
    assert {"frames", "views", "crops", "seed", "decoder"} <= set(found["options"])
    assert {"list", "rows", "hash", "missing", "missing_videos", "labels_hash"} <= set(found["lists"][0])
    assert {"zsar", "torch", "open_clip_torch", "av"} <= set(found["versions"])
    other = zsar(*arguments, "--output", tmp_path / "a", "--templates", "kinetics")
    assert other.code == 2
    assert "another evaluation" in other.err
    assert zsar(*arguments, "--output", tmp_path / "a", "--batch-size", 2).code == 0
    (tmp_path / "file").write_text("")
    assert zsar(*arguments, "--output", tmp_path / "file").code == 2


@pytest.mark.timeout(600)  # on a machine that is busy with other things
def test_killed_again_and_again_it_ends_in_the_same_results(
    zsar, zsar_process, tmp_path: Path, tiny_clip_dir: Path
) -> None:
    for number in range(80):
        path = tmp_path / "clips" / f"class {number % 4}" / f"{number}.mp4"
        if number < 8:
            write_video(path, seed=number)
        else:
            shutil.copy(tmp_path / "clips" / f"class {number % 4}" / f"{number % 8}.mp4", path)
    arguments = (
        "eval", "--model", tiny_clip_dir, "--data", tmp_path / "clips", "--frames", 2,
        "--batch-size", 1, "--precision", "fp32", "--output",
    )  # fmt: skip
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert zsar(*arguments, whole, "--workers", 0).code == 0
    records, chance = cut / "predictions.jsonl", random.Random(0)
    ended, reached = [], []
    for kill in range(20):
        process = zsar_process(
            *arguments, cut, "--workers", 1, signal_at=(chance.randint(1, 20), tmp_path, signal.SIGKILL)
        )
        ended.append(process.wait(200))
        reached.append(records.read_bytes().count(b"\n") if records.exists() else 0)
        if kill % 2 and records.exists():  # what a machine that loses its power may leave
            with records.open("ab") as file:
                file.write(b'{"part": "test", "it')
    assert ended == [-signal.SIGKILL] * 20
    assert len(set(reached) - {0, 80}) > 5, "hardly a kill came while records were being written"
    assert zsar(*arguments, cut, "--workers", 0).code == 0
    for name in ("results.json", "predictions.jsonl", "confusion_test.csv", "per_class_test.csv"):
        assert_same_file(cut / name, whole / name)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "nowhere"], "nowhere"),
        (["--protocol", "best"], "best"),
        (["--probe", "sound"], "sound"),
        (["--crops", "2"], "--crops"),
        (["--sampling", "8"], "--sampling"),
        (["--data", "ucf101"], "ZSAR_DATA_ROOT"),
        (["--split", "base-ball", "--data", "motion-shapes"], "base-ball"),
        (["--protocol", "few-shot", "--data", "motion-shapes"], "few-shot"),
        (["--protocol", "generalised", "--split", "seen"], "--split"),
        (["--unknown", "hmdb51"], "open-set"),
    ],
)
def test_mistakes_take_a_line_and_exit_with_2(zsar, arguments: list[str], message: str) -> None:
    result = zsar("eval", *arguments)
    assert (result.code, result.out) == (2, "")
    assert message in result.err
    assert len(result.err.splitlines()) == 1
