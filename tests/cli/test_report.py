"""``zsar eval --report``: one file that needs nothing else and says what results.json says."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser

import pytest

from tests.cli.test_predict import own_cache, run  # noqa: F401 - a fixture
from tests.video_files import write_video
from zsar_cli.evaluation.report import Report, worst_mistakes, write_report

CLASSES = ("tai chi", "arm wrestling", "<b>bold & brave</b>")


@pytest.fixture(scope="module")
def report(tmp_path_factory, tiny_clip_dir):
    folder = tmp_path_factory.mktemp("report")
    lines = []
    for number, label in enumerate(CLASSES * 2):
        write_video(folder / f"{number}.mp4", 6 + number)
        lines.append(f"{number}.mp4\t{label}")
    (folder / "list.txt").write_text("\n".join(lines) + "\n")
    definition = {"name": "three", "root": ".", "classes": list(CLASSES), "splits": {"test": "list.txt"}}
    (folder / "three.yaml").write_text(json.dumps(definition))
    arguments = ("eval", "--data", folder / "three.yaml", "--model", tiny_clip_dir, "--workers", 0)
    code, out, said = run(*arguments, "--report", folder / "out", "--device", "cpu")
    assert code == 0, out + said
    return folder / "out"


class Reader(HTMLParser):
    """Cells of every table, and every attribute that makes a browser fetch something."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.fetched: list[str] = []
        self.tags: list[str] = []
        self.inside = False

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.fetched += [
            value or "" for name, value in attrs if name in ("src", "href", "srcset", "data", "action")
        ]
        if tag == "tr":
            self.rows.append([])
        self.inside = tag in ("td", "th")
        if self.inside:
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        self.inside = self.inside and tag not in ("td", "th")

    def handle_data(self, data):
        if self.inside:
            self.rows[-1][-1] += data


def read(path) -> Reader:
    reader = Reader()
    reader.feed(path.read_text(encoding="utf-8"))
    return reader


def test_nothing_is_fetched(report):
    reader = read(report / "report.html")
    assert all(value.startswith(("data:image/png;base64,", "#")) for value in reader.fetched)
    assert not {"script", "link", "iframe", "object", "embed"} & set(reader.tags)
    style = re.search("<style>(.*?)</style>", (report / "report.html").read_text(), re.DOTALL)[1]
    assert "url(" not in style
    assert "@import" not in style


def test_numbers_are_those_of_results_json(report):
    results = json.loads((report / "results.json").read_text())
    rows = read(report / "report.html").rows
    for part, numbers in results["parts"].items():
        row = next(r for r in rows if r[0] == part and len(r) == 9)
        low, high = (f"{100 * v:.1f}" for v in numbers["top1_interval95"])
        assert row[1:4] == [str(numbers[k]) for k in ("videos", "unreadable", "classes")]
        assert row[4:] == [
            f"{100 * numbers['top1']:.1f}",
            f"{low} to {high}",
            f"{100 * numbers['top5']:.1f}",
            f"{100 * numbers['mean_class_accuracy']:.1f}",
            f"{numbers['ece']:.3f}",
        ]
    text = (report / "report.html").read_text()
    assert results["weights"] in text
    assert results["templates"]["hash"] in text
    assert all(version in text for version in results["versions"].values())


def test_mistakes_are_shown_and_labels_cannot_become_markup(report):
    records = [json.loads(line) for line in (report / "predictions.jsonl").read_text().splitlines()]
    wrong = [r for r in records if r["rank"]]
    assert wrong  # a random model
    text = (report / "report.html").read_text()
    assert text.count("but it is") >= len(wrong)
    assert "<b>bold" not in text
    assert "&lt;b&gt;bold &amp; brave" in text


def test_the_matrix_has_perfect_classes_too(monkeypatch):
    from zsar_cli.evaluation import report, report_figures

    shown = []
    matrix = report_figures.matrix
    monkeypatch.setattr(
        report_figures, "matrix", lambda known, names: shown.append(names) or matrix(known, names)
    )

    def record(label, answer):
        return {"label": label, "rank": int(label != answer), "top": [[answer, 0.5]]}

    def texts(*records):
        return " ".join(block.get("text", "") for block in report._confusions(records))

    assert "take part in most mistakes" not in texts(record("a", "a"), record("b", "c"), record("c", "c"))
    assert shown.pop() == ["a", "b", "c"]
    assert "There are no mistakes" in texts(record("a", "a"), record("b", "b"))
    assert shown.pop() == ["a", "b"]
    many = [record(f"{n:02d}", f"{(n + (n == 7)) % 50:02d}") for n in range(50)]
    assert "The 40 classes of 50 that take part in most mistakes" in texts(*many)
    assert {"07", "08"} <= set(shown.pop())


def test_a_name_that_is_not_utf8_can_be_shown(tmp_path):
    from zsar_cli.evaluation import report

    page = Report(
        {"model": "m\udcff", "protocol": "p", "lists": [], "parts": {}, "summary": {}}, {}, "zsar eval"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report, "_sections", lambda _: [("<t>", [report._text("\udcff<b>")])])
        write_report(page, tmp_path / "report.html")
    assert "&lt;b&gt;" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_worst_mistakes_are_the_surest_wrong_ones():
    def record(video, rank, confidence):
        return {"video": video, "rank": rank, "label": "x", "top": [["y", confidence]]}

    found = [record("a", 0, 0.99), record("b", 1, 0.5), record("c", 4, 0.9), record("d", None, 1.0)]
    again = [record("c", 2, 0.8), {"video": "e", "error": {}}]
    assert [r["video"] for r in worst_mistakes({"one": found, "two": again})] == ["c", "b"]


def test_400_classes_stay_readable(tmp_path):
    records = [
        {"part": "test", "item": i, "video": f"{i}.mp4", "label": f"class {i % 400}", "rank": int(i % 3 == 0),
         "top": [[f"class {(i + (i % 3 == 0)) % 400}", 0.5]], "unknown": {"yes": i % 7 / 7}}
        for i in range(1200)
    ]  # fmt: skip
    numbers = {
        "videos": 1200, "unreadable": 0, "classes": 400, "top1": 2 / 3, "top1_interval95": [0.6, 0.7], "top5": 1.0,
        "mean_class_accuracy": 2 / 3, "ece": 0.1,
        "reliability": {"edges": [0, 0.5, 1], "count": [0, 1200], "confidence": [None, 0.5], "accuracy": [None, 0.6]},
    }  # fmt: skip
    entry = {
        "part": "test",
        "data": "k",
        "list": "l",
        "rows": 1200,
        "hash": "h",
        "videos": 1200,
        "missing": 0,
    }
    results = {
        "model": "m", "protocol": "open-set", "parts": {"test": numbers}, "summary": {}, "lists": [entry],
        "versions": {"zsar": "1"}, "weights": "w", "templates": {"name": "video", "hash": "t"}, "options": {},
        "open_set": {"known": "test", "unknown_videos": 1, "scores": {"yes": {"auroc": 1, "aupr": 1, "fpr95": 0}}},
    }  # fmt: skip
    unknown = [
        {"part": "unknown", "item": 0, "video": "u", "label": None, "rank": None, "unknown": {"yes": 1.0}}
    ]
    write_report(
        Report(results, {"test": records, "unknown": unknown}, "zsar eval"), tmp_path / "report.html"
    )
    text = (tmp_path / "report.html").read_text()
    reader = read(tmp_path / "report.html")
    assert len([r for r in reader.rows if r[0].startswith("class ") and len(r) == 4]) > 400
    assert "rarer pairs" in text
    assert len(text) < 3_000_000
