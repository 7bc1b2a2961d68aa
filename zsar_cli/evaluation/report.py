"""An evaluation as one HTML file that needs nothing else: no network, no scripts, pictures inside it.

It is made from what an evaluation wrote (``results.json``, ``predictions.jsonl``); numbers are those of
``results.json`` and are not computed again. A section is a list of blocks, plain data that ``report.html.j2`` shows.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zsar_cli.cache_files import open_file
from zsar_cli.evaluation import report_figures, thresholds
from zsar_cli.evaluation.presets import published_line
from zsar_cli.evaluation.protocols import comparable, published_rows
from zsar_cli.evaluation.report_figures import Record, number
from zsar_cli.files import ASSETS, atomic_write
from zsar_cli.plots import to_png
from zsar_cli.prediction.calibration import TITLES
from zsar_cli.prediction.sheets import explain_sheet

if TYPE_CHECKING:
    pass

MOST_MISTAKES = 8
MOST_PAIRS = 40
MOST_IN_MATRIX = 40  # classes; beyond, nobody could read it
Block = dict[str, Any]  # "kind", and what a block of that kind shows: see report.html.j2


@dataclass
class Report:
    """What a report shows. ``records`` by part; ``sheets``: (caption, PNG) of the worst mistakes."""

    results: dict[str, Any]
    records: dict[str, list[Record]]
    command: str
    published: dict[str, Any] | None = None
    sheets: list[tuple[str, bytes]] = field(default_factory=list)
    mark: str = ""  # of which evaluation it is: see mark_of


def mark_of(settings: dict[str, Any]) -> str:
    """Hash the settings of an evaluation into the mark that its report bears, and no other."""
    content = json.dumps(settings, sort_keys=True).encode()
    return f"zsar eval {hashlib.sha256(content).hexdigest()[:16]}"


def is_report_of(path: Path, settings: dict[str, Any]) -> bool:
    """Tell whether a file is an earlier report about the evaluation with these settings."""
    try:
        with open(open_file(path, os.O_RDONLY), "rb") as file:
            return f'content="{mark_of(settings)}"'.encode() in file.read(1000)
    except OSError:
        return False


def read_records(folder: Path) -> dict[str, list[Record]]:
    """Read the records of an evaluation, by part, each in the order of its items."""
    records: dict[str, list[Record]] = {}
    with open(folder / "predictions.jsonl", encoding="utf-8") as lines:
        for line in lines:
            record = json.loads(line)
            records.setdefault(record["part"], []).append(record)
    return {part: sorted(found, key=lambda r: r["item"]) for part, found in records.items()}


def worst_mistakes(records: dict[str, list[Record]], most: int = MOST_MISTAKES) -> list[Record]:
    """Choose the wrong answers that were given with the most confidence, a video once."""
    wrong = [r for found in records.values() for r in found if r.get("rank")]
    chosen: dict[str, Record] = {}
    for record in sorted(wrong, key=lambda r: (-r["top"][0][1], r["video"])):
        chosen.setdefault(record["video"], record)
    return list(chosen.values())[:most]


def write_report(report: Report, path: Path) -> None:
    """Write the file, whole or not at all. UsageError where matplotlib is missing."""
    from jinja2 import Environment

    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, finalize=_encodable)
    environment.tests["numeric"] = lambda value: str(value)[:1].isdigit()
    environment.tests["share"] = lambda value: isinstance(value, _Bar)
    template = environment.from_string((ASSETS / "report.html.j2").read_text(encoding="utf-8"))
    results = report.results
    page = template.render(
        title=f"{results['model']} on {', '.join(sorted({e['data'] for e in results['lists']}))}",
        protocol=results["protocol"],
        mark=report.mark,
        sections=[{"title": title, "blocks": blocks} for title, blocks in _sections(report)],
    )
    with atomic_write(path) as aside:
        Path(aside).write_text(page, encoding="utf-8")


def _encodable(value: Any) -> Any:
    """Escape what UTF-8 cannot hold, such as names of files that are not UTF-8."""
    if hasattr(value, "__html__"):  # HTML of the template itself
        return value
    return str(value).encode("utf-8", "backslashreplace").decode("utf-8")


# --- sections -------------------------------------------------------------------------------------------------


def _sections(report: Report) -> Iterator[tuple[str, list[Block]]]:
    results = report.results
    parts = [part for part in results["parts"] if report.records.get(part)]
    yield "Numbers", _headline(results)
    if report.published is not None and (columns := comparable(results, report.published)):
        yield "Beside published numbers", _published(results, report.published, columns)
    if "open_set" in results:
        yield "None of these: rejection", _rejection(report)
    if results.get("thresholds"):
        yield "Thresholds: --min-confidence", _thresholds(report)
    diagrams = _image(to_png(report_figures.reliability(results)), "reliability diagrams")
    yield "Calibration of the confidence", [diagrams]
    for part in parts:
        yield f"Confusions: {part}", _confusions(report.records[part])
    for part in parts:
        yield f"Every class: {part}", _classes(report.records[part])
    if report.sheets:
        shown = ([_text(caption), _image(png, caption)] for caption, png in report.sheets)
        yield "The worst mistakes", [block for blocks in shown for block in blocks]
    yield "Reproduction", _again(report)


def _headline(results: dict[str, Any]) -> list[Block]:
    rows = []
    for part, numbers in results["parts"].items():
        low, high = numbers["top1_interval95"]
        counts = [numbers["videos"], numbers["unreadable"], numbers["classes"]]
        shares = [_percent(numbers["top5"]), _percent(numbers["mean_class_accuracy"])]
        interval = f"{_percent(low)} to {_percent(high)}"
        rows.append([part, *counts, _percent(numbers["top1"]), interval, *shares, number(numbers["ece"])])
    head = ["part", "videos", "unreadable", "labels", "top-1", "95% CI", "top-5", "class mean", "ECE"]
    blocks = [_table(head, rows)]
    seen, unseen = (results.get(key, 0) for key in ("labels_seen_in_training", "labels_not_seen_in_training"))
    if seen:
        blocks.append(_text(f"{seen} of {seen + unseen} labels are classes that the model was trained on."))
    summary = results["summary"]
    if summary.get("harmonic_mean") is not None:
        blocks.append(_fact("Harmonic mean of seen and unseen", _percent(summary["harmonic_mean"])))
    elif summary.get("splits", 1) > 1:
        spread = f"{_percent(summary['mean'])} ± {_percent(summary['spread'])}"
        blocks.append(_fact(f"Mean over {summary['splits']} splits", spread))
    if results.get("notes"):
        blocks.append({"kind": "notes", "lines": results["notes"]})
    return blocks


def _published(results: dict[str, Any], published: dict[str, Any], columns: Sequence[str]) -> list[Block]:
    rows: list[list[Any]] = published_rows(published, columns)
    own = [_percent(results["summary"].get("mean"))] * len(columns)
    rows.append(["this run", results["model"], *own, "this report"])
    head = ["method", "backbone", *columns, "source"]
    line = published_line(results)
    return [
        *([_note(line)] if line else []),
        _note("Zero-shot top-1 in %, as published; lists differ."),
        _table(head, rows, own=len(rows) - 1),
    ]


def _confusions(records: Iterable[Record]) -> list[Block]:
    known = [r for r in records if "error" not in r and r["label"] is not None]
    totals = Counter(r["label"] for r in known)
    pairs = Counter((r["label"], r["top"][0][0]) for r in known if r["top"][0][0] != r["label"])
    blocks = []
    if pairs:
        most = sorted(pairs.items(), key=lambda pair: (-pair[1], pair[0]))
        rows = [
            [true, answer, count, f"{count / totals[true]:.0%} of {totals[true]}"]
            for (true, answer), count in most[:MOST_PAIRS]
        ]
        blocks.append(_table(["true", "answered", "videos", "of the class"], rows, long=True))
        if len(most) > MOST_PAIRS:
            rest = len(most) - MOST_PAIRS
            blocks.append(_note(f"{rest} rarer pairs are in the confusion CSV beside this file."))
    else:
        blocks.append(_text("There are no mistakes."))
    busiest: Counter[str] = Counter(dict.fromkeys(totals, 0))
    for (true, answer), count in pairs.items():
        busiest[true] += count
        busiest[answer] += count
    shown = [name for name, _ in sorted(busiest.items(), key=lambda e: (-e[1], e[0]))[:MOST_IN_MATRIX]]
    if shown:
        blocks.append(_image(to_png(report_figures.matrix(known, sorted(shown))), "confusion matrix"))
    if len(shown) < len(busiest):
        few = f"The {len(shown)} classes of {len(busiest)} that take part in most mistakes."
        blocks.append(_note(few))
    return blocks


def _classes(records: Iterable[Record]) -> list[Block]:
    known = [r for r in records if "error" not in r and r["label"] is not None]
    totals = Counter(r["label"] for r in known)
    right = Counter(r["label"] for r in known if r["rank"] == 0)
    rows: list[list[Any]] = []
    for name in sorted(totals, key=lambda label: (right[label] / totals[label], label)):
        share = right[name] / totals[name]
        rows.append([name, totals[name], _percent(share), _Bar(share)])
    return [_table(["class (worst first)", "videos", "top-1", ""], rows, long=True)]


def _rejection(report: Report) -> list[Block]:
    open_set = report.results["open_set"]
    part = open_set.get("known", "known")
    rows = [
        [kind, _percent(n["auroc"]), _percent(n["aupr"]), _percent(n["fpr95"])]
        for kind, n in open_set["scores"].items()
    ]
    about = (
        f"{open_set['unknown_videos']} videos of unknown classes against those of the part {part}; unknown is the "
        "positive class."
    )
    known, unknown = report.records.get(part, []), report.records.get("unknown", [])
    figure = report_figures.rejection_curves(known, unknown, list(open_set["scores"]))
    table = _table(["score", "AUROC", "AUPR", "FPR95"], rows)
    return [_note(about), table, _image(to_png(figure), "rejection curves")]


def _thresholds(report: Report) -> list[Block]:
    rows = []
    for part, found in report.results["thresholds"].items():
        for name, bound in found["bounds"].items():
            reached = "-"
            if bound is not None:
                low, high = bound["interval95"]
                reached = f"{_percent(bound['reached'])} ({_percent(low)} to {_percent(high)})"
            answered = f"{bound['answered']} of {found['videos']}" if bound else "-"
            rows.append([part, TITLES[name], bound["min_confidence"] if bound else "-", answered, reached])
    head = ["part", "target", "--min-confidence", "answered", "on these videos (95% CI)"]
    blocks = [_table(head, rows)]
    known = report.results.get("open_set", {}).get("known")
    for part in report.results["thresholds"]:
        own = [*report.records.get(part, []), *(report.records.get("unknown", []) if part == known else ())]
        answers = thresholds.judged_records(own)
        if len(answers.confidence):
            png = to_png(thresholds.figure(answers, part))
            blocks.append(_image(png, f"precision and share answered: {part}"))
    return blocks


def _again(report: Report) -> list[Block]:
    results = report.results
    versions = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    templates = f"{results['templates']['name']} ({results['templates']['hash']})"
    columns = ["part", "data", "list", "rows", "hash", "videos", "missing"]
    return [
        {"kind": "code", "text": report.command},
        _text(f"{versions}; weights {results['weights']}; templates {templates}."),
        _table(columns, [[entry[column] for column in columns] for entry in results["lists"]]),
        {"kind": "details", "name": "Settings", "text": json.dumps(results["options"], indent=2)},
    ]


# --- blocks ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Bar:
    """A cell with a bar of this length, from 0 to 1."""

    share: float


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]], own: int = -1, long: bool = False) -> Block:
    return {"kind": "table", "head": head, "rows": rows, "own": own, "long": long}


def _image(png: bytes, name: str) -> Block:
    return {"kind": "image", "name": name, "png": base64.b64encode(png).decode()}


def _text(text: str) -> Block:
    return {"kind": "text", "text": text}


def _note(text: str) -> Block:
    return {"kind": "note", "text": text}


def _fact(text: str, value: str) -> Block:
    return {"kind": "fact", "text": text, "value": value}


def _percent(value: float | None) -> str:
    return "-" if value is None or value != value else f"{100 * value:.1f}"


def mistake_sheets(
    mistakes: Iterable[Record], load: Callable[[Record], Any], examine: Callable[[Record, Any], Any]
) -> list[tuple[str, bytes]]:
    """Draw an explain sheet for each mistake: (caption, PNG).

    Args:
        mistakes: their records.
        load: a record to its video's clip, or None where it cannot be had again.
        examine: a record and its clip to the evidence of :mod:`zsar_cli.prediction.explain`.
    """
    sheets = []
    for record in mistakes:
        clip = load(record)
        if clip is None:
            continue
        answer, confidence = record["top"][0]
        caption = f"{record['video']}: {answer} ({confidence:.1%}), but it is {record['label']}"
        sheet = explain_sheet(examine(record, clip), record["video"], note=f"it is: {record['label']}")
        sheets.append((caption, to_png(sheet)))
    return sheets
