"""``zsar predict --report``: one page beside whatever else is written, and the list that it exports."""

from __future__ import annotations

import json

import pytest

from tests.cli.test_predict import LABELS, own_cache, run  # noqa: F401 - a fixture
from tests.prediction.test_page import read
from tests.video_files import write_video


@pytest.fixture
def clips(tmp_path):
    (tmp_path / "clips").mkdir()
    for name, count in (("a.mp4", 12), ("b, \"c\" 'd'.mp4", 9), ("#e ü.mp4", 14)):
        write_video(tmp_path / "clips" / name, count)
    return tmp_path / "clips"


def predict(tiny_clip_dir, *arguments):
    return run("predict", "--model", tiny_clip_dir, *LABELS, "--workers", 0, *arguments)


def test_a_page_of_all_answers_beside_the_records(clips, tiny_clip_dir, tmp_path):
    page = tmp_path / "page.html"
    code, out, _ = predict(
        tiny_clip_dir,
        clips,
        tmp_path / "no.mp4",
        "--report",
        page,
        "--format",
        "jsonl",
        "--min-confidence",
        0.7,
    )
    records = [json.loads(line) for line in out.splitlines()]
    _, data = read(page)
    assert code == 1
    assert data["labels"] == LABELS[1::2]
    assert [card["video"] for card in data["videos"]] == [record["video"] for record in records]
    for card, record in zip(data["videos"][:-1], records[:-1], strict=True):
        assert [data["labels"][p[0]] for p in card["predictions"]] == [
            p["label"] for p in record["predictions"]
        ]
        assert card["unknown"] == record["unknown"]
        assert card["frames"] == 8
    assert data["videos"][-1]["error"]
    assert data["about"]["threshold"] == pytest.approx(0.7)
    command = data["about"]["command"]
    assert command.startswith(f"zsar predict {clips} {tmp_path}/no.mp4")
    assert "--label 'arm wrestling' --label" in command
    assert "report" not in command
    assert "min-confidence" not in command
    assert not [path for path in tmp_path.iterdir() if path.name not in ("clips", "cache", "page.html")]


def test_a_page_that_is_there_is_left_alone_before_any_work(clips, tiny_clip_dir, tmp_path):
    page = tmp_path / "page.html"
    page.write_text("mine")
    code, out, message = predict(tiny_clip_dir, clips, "--report", page)
    assert (code, out) == (2, "")
    assert "--report" in message
    assert page.read_text() == "mine"
    assert predict(tiny_clip_dir, clips, "--report", page, "--overwrite")[0] == 0
    assert len(read(page)[1]["videos"]) == 3
    for wrong in (clips, tmp_path / "no" / "page.html", clips / "a.mp4"):
        assert predict(tiny_clip_dir, clips, "--report", wrong)[0] == 2
    both = tmp_path / "both"
    assert predict(tiny_clip_dir, clips, "--report", both, "--output", both)[0] == 2


def test_frames_are_there_although_a_cache_answers(clips, tiny_clip_dir, tmp_path):
    pages = [tmp_path / "first.html", tmp_path / "second.html"]
    for page in pages:
        assert predict(tiny_clip_dir, clips, "--cache", tmp_path / "features", "--report", page)[0] == 0
    first, second = (read(page)[1]["videos"] for page in pages)
    assert [card["frames"] for card in second] == [8, 8, 8]
    assert first == second


def test_a_page_of_timelines(clips, tiny_clip_dir, tmp_path):
    page = tmp_path / "page.html"
    code, out, _ = predict(tiny_clip_dir, clips / "a.mp4", "--window", 0.2, "--report", page)
    (card,) = read(page)[1]["videos"]
    record = json.loads(out)
    assert code == 0
    assert [(s["start"], s["end"]) for s in card["segments"]] == [
        (s["start"], s["end"]) for s in record["segments"]
    ]
    assert card["frames"] == len(card["times"]) > 2
    assert 0 < card["times"][0] < card["times"][-1] < record["duration"]


def test_going_on_shows_the_earlier_answers_too(clips, tiny_clip_dir, tmp_path):
    output, page = tmp_path / "answers.jsonl", tmp_path / "page.html"
    assert predict(tiny_clip_dir, clips / "a.mp4", tmp_path / "no.mp4", "--output", output)[0] == 1
    code, _, _ = predict(tiny_clip_dir, clips, "--output", output, "--resume", "--report", page)
    cards = read(page)[1]["videos"]
    assert code == 0
    assert sorted(card["name"] for card in cards) == ["#e ü.mp4", "a.mp4", "b, \"c\" 'd'.mp4", "no.mp4"]
    assert [card.get("frames") for card in cards] == [8, 8, 8, None]
    again = ("--output", output, "--resume", "--report", page)
    assert (
        predict(tiny_clip_dir, clips, *again)[0] == 0
    )  # its own page, which has no answer more than the new one
    assert len(read(page)[1]["videos"]) == 4
    for other in ("mine", page.read_text().replace('"zsar predict ', '"zsar predict of another run ')):
        page.write_text(other)
        assert predict(tiny_clip_dir, clips, *again)[0] == 2
        assert page.read_text() == other


def exported(cards: list[dict], labels: list[str]) -> str:
    """What the page exports where these labels were chosen: as ``exportList`` in answers.js writes it."""

    def quote(text: str) -> str:
        return '"' + text.replace('"', '""') + '"' if set(text) & set('",\r\n') else text

    rows = (f"{quote(card['absolute'])},{quote(label)}\n" for card, label in zip(cards, labels, strict=True))
    return "path,label\n" + "".join(rows)


def test_the_exported_list_is_data_for_eval_and_train(clips, tiny_clip_dir, tmp_path, monkeypatch):
    page, labels = tmp_path / "page.html", tmp_path / "labels.csv"
    assert predict(tiny_clip_dir, clips, "--report", page)[0] == 0
    found, data = read(page)
    assert "replaceAll('\"', '\"\"')" in found.inside["script"]
    chosen = ["arm wrestling", 'saying "tai, chi"', "arm wrestling"]
    labels.write_text(exported(data["videos"], chosen), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    common = ("--data", "labels.csv", "--model", tiny_clip_dir, "--workers", 0)
    code, _, message = run("eval", *common, "--output", tmp_path / "eval")
    assert code == 0, message
    (file,) = (tmp_path / "eval").rglob("*.jsonl")
    records = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    truth = {record["video"]: record["label"] for record in records if "video" in record}
    assert truth == dict(zip((card["absolute"] for card in data["videos"]), chosen, strict=True))
    code, _, message = run("train", *common, "--output", tmp_path / "run", "--dry-run", "--device", "cpu")
    assert code == 0, message
