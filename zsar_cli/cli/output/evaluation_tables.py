"""Tables of an evaluation: its plan, its results, and published results."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from zsar_cli.cli.output.fitting import FittingTable

if TYPE_CHECKING:
    from zsar_cli.evaluation.protocols import Plan


def percent(value: float | None) -> str:
    """Format a fraction as percent with one decimal; "-" for None and NaN."""
    return "-" if value is None or value != value else f"{100 * value:.1f}"


def plan_lines(plan: Plan, header: str, max_missing: float) -> Iterator[Any]:
    """Describe what ``--dry-run`` would evaluate: a table of the parts, then problems with their lists."""
    yield f"Would evaluate {header}"
    rows = []
    for part in plan.parts:
        data = part.dataset
        listed = len(part.items) + data.missing + sum(data.unmatched.values())
        classes = f"{len(data.classes)}" + (f" of {len(part.labels)}" if data.classes != part.labels else "")
        rows.append(
            (
                part.name,
                str(listed),
                str(len(part.items)),
                str(data.missing),
                classes,
                str(len(data.empty_classes)),
            )
        )
    yield FittingTable(("part", "listed", "exist", "missing", "classes", "without clips"), rows)
    for part in plan.parts:
        data = part.dataset
        yield f"{part.name}: {list_line(data.list_name, data.list_rows, data.list_hash)}"
        for note in data.notes:
            yield f"  {note}"
        if data.missing_paths:
            yield f"  missing: {_some(data.missing_paths)}"
        if data.unmatched:
            yield f"  labels that match no class: {_some([f'{n} ({k})' for n, k in data.unmatched.items()])}"
        if data.empty_classes:
            yield f"  classes without clips: {_some(data.empty_classes)}"
        if data.missing_share > max_missing or not data.items:
            share = f"{percent(data.missing_share)}%"
            yield f"  would stop: {share} of the videos cannot be used, and --max-missing is {percent(max_missing)}%"
    for note in plan.notes:
        yield f"note: {note}"


def list_line(name: str, rows: int, digest: str) -> str:
    """Identify a list by its name, number of rows and hash."""
    return f"{name}, {rows} rows, hash {digest}"


def _some(names: list[str], count: int = 5) -> str:
    return ", ".join(names[:count]) + (f" and {len(names) - count} more" if len(names) > count else "")


def result_lines(results: dict[str, Any], header: str) -> Iterator[Any]:
    """Format a finished evaluation: conditions, parts, summary, motion probe, open set."""
    yield header
    yield conditions(results)
    rows = []
    lists = {entry["part"]: entry for entry in results["lists"]}
    for part, numbers in results["parts"].items():
        low, high = numbers["top1_interval95"]
        rows.append(
            (
                part,
                str(numbers["videos"]),
                str(
                    numbers["unreadable"]
                    + lists[part]["missing"]
                    + sum(lists[part]["unmatched_labels"].values())
                ),
                str(numbers["classes"]),
                percent(numbers["top1"]),
                f"{percent(low)}-{percent(high)}",
                percent(numbers["top5"]),
                percent(numbers["mean_class_accuracy"]),
                f"{numbers['ece']:.3f}" if numbers["videos"] else "-",
            )
        )
    columns = ("part", "videos", "lost", "labels", "top-1", "95% CI", "top-5", "class mean", "ECE")
    yield FittingTable(columns, rows)
    yield from _summary(results)
    yield from _probes(results)
    yield from _open_set(results)
    if any(found["videos"] for found in results.get("thresholds", {}).values()):
        yield threshold_table(results["thresholds"])
    for part, entry in lists.items():
        yield f"{part}: {list_line(entry['list'], entry['rows'], entry['hash'])}"
        numbers = results["parts"].get(part, {})
        if entry["missing"]:
            yield f"  {entry['missing']} listed videos are missing: {_some(entry['missing_videos'])}"
        if entry["unmatched_labels"]:
            odd = [f"{name} ({count})" for name, count in entry["unmatched_labels"].items()]
            yield f"  labels that match no class: {_some(odd)}"
        if numbers.get("unreadable") or entry["missing"]:
            yield f"  top-1 with unreadable and missing videos counted as wrong: {percent(numbers.get('top1_lower'))}"
        if numbers.get("cut_short"):
            yield f"  {numbers['cut_short']} videos were only partly readable"
        if numbers.get("labels_in_training"):
            of = f"{numbers['labels_in_training']} of {numbers['classes']} labels"
            yield f"  {of} are among the classes that the model was trained on"
    for note in results["notes"]:
        yield f"note: {note}"


def conditions(results: dict[str, Any]) -> str:
    """Describe the settings that affect the results, in a line or two."""
    options, templates = results["options"], results["templates"]
    mean = ", ".join(f"{value:.3f}" for value in results["preprocess"]["mean"])
    described = f"; descriptions {results['descriptions']}" if results.get("descriptions") else ""
    return (
        f"{options['frames']} frames x {options['views']} views x {options['crops']} crops; templates "
        f"{templates['name']} ({templates['hash']}){described}; {results['precision']}; pixels centred on {mean}; "
        f"weights {results['weights']}"
    )


def _summary(results: dict[str, Any]) -> Iterator[str]:
    summary, protocol = results["summary"], results["protocol"]
    if "harmonic_mean" in summary:
        among = " among all labels" if protocol in ("generalised", "whole") else ""
        yield f"harmonic mean of seen and unseen{among}: {percent(summary['harmonic_mean'])}"
    elif summary.get("splits", 1) > 1:
        spread = f"{percent(summary['mean'])} ± {percent(summary['spread'])}"
        yield f"mean and standard deviation of top-1 over {summary['splits']} splits: {spread}"


def _probes(results: dict[str, Any]) -> Iterator[FittingTable]:
    rows = []
    for part, numbers in results["parts"].items():
        for name, found in (
            (part, numbers),
            (f"{part}, where order matters", numbers.get("probes_of_ordered", {})),
        ):
            if "probes" in found:
                cells = (f"{percent(p['top1'])} ({-100 * p['cost']:+.1f})" for p in found["probes"].values())
                rows.append((name, percent(found["top1"]), *cells))
    if rows:
        title = "Motion probe: top-1, and its change with the order of the frames"
        yield FittingTable(("part", "as filmed", "shuffled", "reversed", "one frame"), rows, title)


def _open_set(results: dict[str, Any]) -> Iterator[FittingTable]:
    if "open_set" not in results:
        return
    found = results["open_set"]
    rows = [
        (
            f"{kind} (unknown of zsar predict)" if kind == found["unknown_of_predict"] else kind,
            *(percent(numbers[key]) for key in ("auroc", "aupr", "fpr95")),
        )
        for kind, numbers in found["scores"].items()
    ]
    title = (
        f"{found['unknown_videos']} unknown videos (the positive class) against {found['known_videos']} known "
        f"({found['known']}); FPR at TPR 0.95"
    )
    yield FittingTable(("score", "AUROC", "AUPR", "FPR95"), rows, title)


def threshold_table(found: dict[str, dict[str, Any]]) -> FittingTable:
    """Format, for each part and target, the ``--min-confidence`` and the number of videos it answers."""
    from zsar_cli.prediction.calibration import TITLES

    def cell(bound: dict[str, Any] | None) -> str:
        return f"{bound['min_confidence']:g} ({bound['answered']})" if bound else "-"

    rows = [
        (
            part + (f" and {of_part['unknown_videos']} unknown" if of_part["unknown_videos"] else ""),
            str(of_part["videos"]),
            *(cell(of_part["bounds"].get(name)) for name in TITLES),
        )
        for part, of_part in found.items()
    ]
    title = "--min-confidence of zsar predict for so many right answers (videos answered)"
    return FittingTable(("part", "videos", *TITLES.values()), rows, title)


def bounds_table(bounds: dict[str, dict[str, Any] | None]) -> FittingTable:
    """Format the thresholds of one set of videos, each with its 95% CI."""
    from zsar_cli.prediction.calibration import TITLES

    rows = []
    for name, bound in bounds.items():
        if bound is None:
            rows.append((TITLES[name], "-", "-", "-", "-"))
            continue
        low, high = bound["interval95"]
        shown = (f"{bound['min_confidence']:g}", str(bound["answered"]), percent(bound["reached"]))
        rows.append((TITLES[name], *shown, f"{percent(low)}-{percent(high)}"))
    return FittingTable(("target", "--min-confidence", "answered", "reached", "95% CI"), rows)


def _own_published(
    said: dict[str, Any] | None,
    rows: list[tuple[str, ...]],
    columns: Sequence[str],
) -> list[tuple[str, ...]]:
    """Take the row of the file that was evaluated out of ``rows``, to stand beside what was measured."""
    if said is None or not set(columns) <= set(said["top1"]):
        return []
    for row in [row for row in rows if row[:2] == (said["method"], said["backbone"])]:
        rows.remove(row)
    values = [f"{said['top1'][column]:.1f}" for column in columns]
    return [(f"{said['method']} (this file)", said["backbone"], *values, "published")]


def comparison_lines(results: dict[str, Any], published: dict[str, Any]) -> Iterator[Any]:
    """Format published zero-shot results with this run as the last row, and notes on their differences."""
    from zsar_cli.evaluation.presets import published_line
    from zsar_cli.evaluation.protocols import comparable, published_rows

    columns, of_this_model = comparable(results, published), published_line(results)
    if of_this_model is not None:
        yield of_this_model
    elif not columns:
        yield (
            f"There are no comparable published results: zsar has those of the zero-shot protocol on "
            f"{', '.join(published['columns'])}."
        )
    if not columns:
        return
    rows: list[tuple[str, ...]] = [tuple(row) for row in published_rows(published, columns)]
    own = [percent(results["summary"].get("mean"))] * len(columns)
    rows += _own_published(results.get("published"), rows, columns)
    how = f"templates {results['templates']['name']}"
    if said := results.get("published"):
        how = f"{said['protocol']}, {how}"
    rows.append(("this run", results["model"], *own, how))
    title = "Published zero-shot top-1 (%), trained on Kinetics-400 (CLIP: not at all)"
    yield FittingTable(
        ("method", "backbone", *columns, "source"), rows, title, ("backbone", "source"), last_bold=True
    )
    if "kinetics600" in columns:
        counts = ", ".join(str(entry["rows"]) for entry in results["lists"])
        yield f"Rows of the lists used here: {counts}. {published['lists_note']}"
