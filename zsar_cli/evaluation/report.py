"""An evaluation as one HTML file that needs nothing else: no network, no scripts, pictures inside it.

It is made from what an evaluation wrote (``results.json``, ``predictions.jsonl``); numbers are those of
``results.json`` and are not computed again.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from zsar_cli.cache_files import open_file
from zsar_cli.evaluation import thresholds
from zsar_cli.evaluation.protocols import comparable, published_rows
from zsar_cli.files import atomic_write
from zsar_cli.plots import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    VERMILION,
    fixed_settings,
    new_figure,
    short,
    to_png,
)
from zsar_cli.prediction.calibration import TITLES
from zsar_cli.prediction.sheets import explain_sheet

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_MISTAKES = 8
MOST_PAIRS = 40
MOST_IN_MATRIX = 40  # classes; beyond, nobody could read it
Record = dict[str, Any]

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff; max-width: 75rem; margin: 2rem auto;
  padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.25rem; margin-top: 2.5rem; border-bottom: 1px solid #ccc; }
table { border-collapse: collapse; margin: 1rem 0; } th, td { padding: .25rem .7rem; text-align: left; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; } tr { border-bottom: 1px solid #e4e4e4; }
tr.own { font-weight: 600; background: #eef5fb; } img { max-width: 100%; } code, pre { background: #f4f4f4; }
pre { padding: .7rem; overflow-x: auto; white-space: pre-wrap; } .scroll { overflow-x: auto; max-height: 40rem;
  overflow-y: auto; } .bar { display: inline-block; height: .7em; background: #0072B2; } .note { color: #555; }
nav a { margin-right: 1rem; }
"""


@dataclass
class Report:
    """What a report shows. ``records`` by part; ``sheets``: (caption, PNG) of the worst mistakes."""

    results: dict[str, Any]
    records: dict[str, list[Record]]
    command: str
    published: dict[str, Any] | None = None
    sheets: list[tuple[str, bytes]] = field(default_factory=list)
    mark: str = ""  # tells of which evaluation it is: see mark_of


def mark_of(settings: dict[str, Any]) -> str:
    """What stands in a report about the evaluation with these settings, and in no other."""
    content = json.dumps(settings, sort_keys=True).encode()
    return f'<meta name="generator" content="zsar eval {hashlib.sha256(content).hexdigest()[:16]}">'


def is_report_of(path: Path, settings: dict[str, Any]) -> bool:
    """Whether a file is an earlier report about the evaluation with these settings."""
    try:
        with open(open_file(path, os.O_RDONLY), "rb") as file:
            return mark_of(settings).encode() in file.read(1000)
    except OSError:
        return False


def read_records(folder: Path) -> dict[str, list[Record]]:
    """The records of an evaluation by part, each in the order of its items."""
    records: dict[str, list[Record]] = {}
    with open(folder / "predictions.jsonl", encoding="utf-8") as lines:
        for line in lines:
            record = json.loads(line)
            records.setdefault(record["part"], []).append(record)
    return {part: sorted(found, key=lambda r: r["item"]) for part, found in records.items()}


def worst_mistakes(records: dict[str, list[Record]], most: int = MOST_MISTAKES) -> list[Record]:
    """The wrong answers that were given with the most confidence, a video once."""
    wrong = [r for found in records.values() for r in found if r.get("rank")]
    chosen: dict[str, Record] = {}
    for record in sorted(wrong, key=lambda r: (-r["top"][0][1], r["video"])):
        chosen.setdefault(record["video"], record)
    return list(chosen.values())[:most]


def write_report(report: Report, path: Path) -> None:
    """Write the file, whole or not at all. UsageError where matplotlib is missing."""
    results = report.results
    parts = [part for part in results["parts"] if report.records.get(part)]
    sections = [("Numbers", _headline(results))]
    if report.published is not None and (columns := comparable(results, report.published)):
        sections.append(("Beside published numbers", _published(results, report.published, columns)))
    if "open_set" in results:
        sections.append(("None of these: rejection", _rejection(report)))
    if results.get("thresholds"):
        sections.append(("Where to draw the line: --min-confidence", _thresholds(report)))
    sections.append(("Is its confidence right?", _figure(_reliability(results), "reliability diagrams")))
    for part in parts:
        sections += [(f"What it mixes up: {part}", _confusions(report.records[part]))]
    for part in parts:
        sections += [(f"Every class: {part}", _classes(report.records[part]))]
    if report.sheets:
        sections.append(("The worst mistakes", _sheets(report.sheets)))
    sections.append(("How to get this again", _again(report)))
    title = f"{results['model']} on {', '.join(sorted({e['data'] for e in results['lists']}))}"
    with atomic_write(path) as aside:
        Path(aside).write_text(_page(title, results["protocol"], sections, report.mark), encoding="utf-8")


def _page(title: str, protocol: str, sections: Sequence[tuple[str, str]], mark: str) -> str:
    links = "".join(f'<a href="#s{n}">{_safe(name)}</a>' for n, (name, _) in enumerate(sections))
    body = "".join(f'<h2 id="s{n}">{_safe(name)}</h2>{text}' for n, (name, text) in enumerate(sections))
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8">{mark}'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        # Nothing is fetched, whatever a label or a path may hold
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
        "style-src 'unsafe-inline'\">"
        f"<title>{_safe(title)}</title><style>{STYLE}</style></head>"
        f"<body><h1>{_safe(title)}</h1><p>Protocol: {_safe(protocol)}.</p><nav>{links}</nav>{body}</body></html>\n"
    )


# --- sections -------------------------------------------------------------------------------------------------


def _headline(results: dict[str, Any]) -> str:
    rows = []
    for part, numbers in results["parts"].items():
        low, high = numbers["top1_interval95"]
        counts = [numbers["videos"], numbers["unreadable"], numbers["classes"]]
        shares = [_percent(numbers["top5"]), _percent(numbers["mean_class_accuracy"])]
        interval = f"{_percent(low)} to {_percent(high)}"
        rows.append([part, *counts, _percent(numbers["top1"]), interval, *shares, _number(numbers["ece"])])
    head = ["part", "videos", "unreadable", "labels", "top-1", "95% interval", "top-5", "class mean", "ECE"]
    text = _table(head, rows)
    seen, unseen = (results.get(key, 0) for key in ("labels_seen_in_training", "labels_not_seen_in_training"))
    if seen:
        text += f"<p>{seen} of {seen + unseen} labels are classes that the model was trained on.</p>"
    summary = results["summary"]
    if summary.get("harmonic_mean") is not None:
        text += f"<p>Harmonic mean of seen and unseen: <b>{_percent(summary['harmonic_mean'])}</b></p>"
    elif summary.get("splits", 1) > 1:
        spread = f"{_percent(summary['mean'])} ± {_percent(summary['spread'])}"
        text += f"<p>Mean over {summary['splits']} splits: <b>{spread}</b></p>"
    notes = "".join(f"<li>{_safe(note)}</li>" for note in results.get("notes", []))
    return text + (f'<ul class="note">{notes}</ul>' if notes else "")


def _published(results: dict[str, Any], published: dict[str, Any], columns: Sequence[str]) -> str:
    rows: list[list[Any]] = published_rows(published, columns)
    own = [_percent(results["summary"].get("mean"))] * len(columns)
    rows.append(["this run", results["model"], *own, "this report"])
    text = _table(["method", "backbone", *columns, "source"], rows, own=len(rows) - 1)
    return '<p class="note">Zero-shot top-1 in %, as published; lists differ.</p>' + text


def _confusions(records: Iterable[Record]) -> str:
    known = [r for r in records if "error" not in r and r["label"] is not None]
    totals = Counter(r["label"] for r in known)
    pairs = Counter((r["label"], r["top"][0][0]) for r in known if r["top"][0][0] != r["label"])
    busiest: Counter[str] = Counter(dict.fromkeys(totals, 0))
    for (true, answer), count in pairs.items():
        busiest[true] += count
        busiest[answer] += count
    shown = [name for name, _ in sorted(busiest.items(), key=lambda e: (-e[1], e[0]))[:MOST_IN_MATRIX]]
    matrix = _figure(_matrix(known, sorted(shown)), "confusion matrix") if shown else ""
    if len(shown) < len(busiest):
        matrix += (
            f'<p class="note">The {len(shown)} classes of {len(busiest)} that take part in most mistakes.</p>'
        )
    if not pairs:
        return "<p>No video was given a wrong label.</p>" + matrix
    most = sorted(pairs.items(), key=lambda pair: (-pair[1], pair[0]))
    rows = [
        [true, answer, count, f"{count / totals[true]:.0%} of {totals[true]}"]
        for (true, answer), count in most[:MOST_PAIRS]
    ]
    text = _table(["true", "answered", "videos", "of the class"], rows)
    if len(most) > MOST_PAIRS:
        text += f'<p class="note">{len(most) - MOST_PAIRS} rarer pairs are in the confusion CSV beside this file.</p>'
    return f'<div class="scroll">{text}</div>{matrix}'


def _classes(records: Iterable[Record]) -> str:
    known = [r for r in records if "error" not in r and r["label"] is not None]
    totals = Counter(r["label"] for r in known)
    right = Counter(r["label"] for r in known if r["rank"] == 0)
    rows = []
    for name in sorted(totals, key=lambda label: (right[label] / totals[label], label)):
        share = right[name] / totals[name]
        bar = _Markup(f'<span class="bar" style="width:{8 * share:.2f}rem"></span>')
        rows.append([name, totals[name], _percent(share), bar])
    return f'<div class="scroll">{_table(["class (worst first)", "videos", "top-1", ""], rows)}</div>'


def _rejection(report: Report) -> str:
    open_set = report.results["open_set"]
    rows = [
        [kind, _percent(n["auroc"]), _percent(n["aupr"]), _percent(n["fpr95"])]
        for kind, n in open_set["scores"].items()
    ]
    text = _table(["score", "AUROC", "AUPR", "FPR95"], rows)
    about = (
        f"{open_set['unknown_videos']} videos of unknown classes against those of the part "
        f"{open_set.get('known', 'known')}; unknown is the positive class."
    )
    known = report.records.get(open_set.get("known", "known"), [])
    figure = _rejection_curves(known, report.records.get("unknown", []), list(open_set["scores"]))
    return f'<p class="note">{_safe(about)}</p>' + text + _figure(figure, "rejection curves")


def _thresholds(report: Report) -> str:
    rows = []
    for part, found in report.results["thresholds"].items():
        for name, bound in found["bounds"].items():
            reached = "-"
            if bound is not None:
                low, high = bound["interval95"]
                reached = f"{_percent(bound['reached'])} ({_percent(low)} to {_percent(high)})"
            answered = f"{bound['answered']} of {found['videos']}" if bound else "-"
            rows.append([part, TITLES[name], bound["min_confidence"] if bound else "-", answered, reached])
    text = _table(["part", "target", "--min-confidence", "answered", "on these videos (95% interval)"], rows)
    known = report.results.get("open_set", {}).get("known")
    for part in report.results["thresholds"]:
        own = [*report.records.get(part, []), *(report.records.get("unknown", []) if part == known else ())]
        answers = thresholds.judged_records(own)
        if len(answers.confidence):
            text += _figure(thresholds.figure(answers, part), f"precision and share answered: {part}")
    return text


def _sheets(sheets: Sequence[tuple[str, bytes]]) -> str:
    return "".join(f"<p>{_safe(caption)}</p>{_image(png, caption)}" for caption, png in sheets)


def _again(report: Report) -> str:
    results = report.results
    versions = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    lists = [
        [e["part"], e["data"], e["list"], e["rows"], e["hash"], e["videos"], e["missing"]]
        for e in results["lists"]
    ]
    templates = results["templates"]
    return (
        f"<pre>{_safe(report.command)}</pre><p>{_safe(versions)}; weights {_safe(results['weights'])}; templates "
        f"{_safe(templates['name'])} ({_safe(templates['hash'])}).</p>"
        + _table(["part", "data", "list", "rows", "hash", "videos", "missing"], lists)
        + f"<details><summary>Settings</summary><pre>{_safe(json.dumps(results['options'], indent=2))}</pre></details>"
    )


# --- figures --------------------------------------------------------------------------------------------------


@fixed_settings()
def _reliability(results: dict[str, Any]) -> Figure:
    parts = list(results["parts"].items())[:4]
    figure = new_figure(3.2 * max(len(parts), 2), 3.4)
    for axes, (part, numbers) in zip(
        figure.subplots(1, max(len(parts), 2), squeeze=False)[0], [*parts, ("", None)], strict=False
    ):
        if numbers is None:
            axes.set_visible(False)
            continue
        curve = numbers["reliability"]
        edges = np.asarray(curve["edges"], float)
        heights = np.array([np.nan if v is None else v for v in curve["accuracy"]], float)
        axes.bar(
            edges[:-1], np.nan_to_num(heights), np.diff(edges), align="edge", color=BLUE, edgecolor="white"
        )
        axes.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1)
        axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="confidence", ylabel="accuracy")
        axes.set_title(f"{part}: ECE {_number(numbers['ece'])}", fontsize=10)
    figure.tight_layout()
    return figure


@fixed_settings()
def _rejection_curves(known: Sequence[Record], unknown: Sequence[Record], kinds: Sequence[str]) -> Figure:
    """For each score: the share of unknown videos found against the share of known ones wrongly rejected."""
    figure = new_figure(5, 4)
    axes = figure.subplots()
    styles = zip(kinds, (BLUE, ORANGE, GREEN, VERMILION), ("-", "--", "-.", ":"), strict=False)
    for kind, colour, line in styles:
        inside = np.array([r["unknown"][kind] for r in known if "error" not in r], float)
        outside = np.array([r["unknown"][kind] for r in unknown if "error" not in r], float)
        limits = np.unique(np.concatenate([inside, outside]))[::-1]
        wrong = [(inside >= limit).mean() for limit in limits]
        found = [(outside >= limit).mean() for limit in limits]
        axes.plot([0, *wrong], [0, *found], color=colour, linestyle=line, label=kind)
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=0.8)
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="known videos rejected", ylabel="unknown videos rejected")
    axes.legend(frameon=False, fontsize=9)
    figure.tight_layout()
    return figure


@fixed_settings()
def _matrix(known: Sequence[Record], names: Sequence[str]) -> Figure:
    """Rows are true classes, columns the answers; shares of a row."""
    place = {name: n for n, name in enumerate(names)}
    counts = np.zeros((len(names), len(names)))
    totals = Counter(r["label"] for r in known)
    for record in known:
        if record["label"] in place and record["top"][0][0] in place:
            counts[place[record["label"]], place[record["top"][0][0]]] += 1
    shares = counts / np.array([max(totals[name], 1) for name in names])[:, None]
    side = 0.21 * len(names)
    figure = new_figure(max(side + 4.2, 6), max(side + 3.6, 4.5))
    axes = figure.subplots()
    image = axes.imshow(shares, cmap="cividis", vmin=0, vmax=1)
    labels = [short(name, 40) for name in names]
    axes.set_xticks(range(len(names)), labels, rotation=90, fontsize=8)
    axes.set_yticks(range(len(names)), labels, fontsize=8)
    axes.set(xlabel="answered", ylabel="true")
    figure.colorbar(image, ax=axes, shrink=0.6, label="share of the true class")
    figure.tight_layout()
    return figure


# --- pieces of HTML -------------------------------------------------------------------------------------------


class _Markup(str):
    """HTML already; everything else is text."""


def _safe(text: Any) -> str:
    clean = str(text).encode("utf-8", "backslashreplace").decode("utf-8")
    return str(text) if isinstance(text, _Markup) else html.escape(clean)


def _table(head: Sequence[str], rows: Iterable[Sequence[Any]], own: int = -1) -> str:
    def cell(value: Any, tag: str = "td") -> str:
        text = _safe(value)
        number = text[:1].isdigit() and not isinstance(value, _Markup)
        return f'<{tag} class="n">{text}</{tag}>' if number else f"<{tag}>{text}</{tag}>"

    lines = "".join(
        ('<tr class="own">' if n == own else "<tr>") + "".join(map(cell, row)) + "</tr>"
        for n, row in enumerate(rows)
    )
    return f"<table><tr>{''.join(cell(name, 'th') for name in head)}</tr>{lines}</table>"


def _figure(figure: Figure, name: str) -> str:
    return _image(to_png(figure), name)


def _image(png: bytes, name: str) -> str:
    return f'<img alt="{_safe(name)}" src="data:image/png;base64,{base64.b64encode(png).decode()}">'


def _percent(value: float | None) -> str:
    return "-" if value is None or value != value else f"{100 * value:.1f}"


def _number(value: float | None) -> str:
    return "-" if value is None or value != value else f"{value:.3f}"


def mistake_sheets(
    mistakes: Iterable[Record], load: Callable[[Record], Any], examine: Callable[[Record, Any], Any]
) -> list[tuple[str, bytes]]:
    """An explain sheet for each mistake.

    Args:
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
