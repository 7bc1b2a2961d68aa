"""``zsar eval``: the field's protocols on data sets as they lie on disk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import yaml

from zsar_cli.cli.choices import CacheOption
from zsar_cli.errors import UsageError

if TYPE_CHECKING:
    from rich.table import Table

    from zsar_cli.protocols import Plan

DEFAULT_MODEL = "PE-Core-B-16/meta"
BUNDLED_MODEL = "motion-tiny"


def evaluate(
    data: Annotated[
        str | None,
        typer.Option(
            help="Data set: kinetics400, kinetics600, ucf101, hmdb51, ssv2, motion-shapes, a YAML file, "
            "a list, or a folder with one folder a class. Default: what --model was trained on.",
            envvar="ZSAR_DATA",
        ),
    ] = None,
    data_root: Annotated[
        Path | None,
        typer.Option(help="Folder of the data set's videos and lists.", envvar="ZSAR_DATA_ROOT"),
    ] = None,
    list_file: Annotated[
        Path | None,
        typer.Option("--list", help="Annotation file to use instead of the data set's own."),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="Bundled model, ARCH/TAG, or a folder from zsar train.", envvar="ZSAR_MODEL"),
    ] = None,
    protocol: Annotated[
        str | None,
        typer.Option(help="zero-shot, base-to-novel, generalised, few-shot or open-set."),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(help="seen, unseen, all, or a named split (base, split1, temporal, test2, ...)."),
    ] = None,
    unknown: Annotated[
        str | None,
        typer.Option(help="open-set: data set of the unknown classes. Default for ucf101: hmdb51."),
    ] = None,
    unknown_root: Annotated[
        Path | None,
        typer.Option(help="open-set: folder of the unknown videos. Default: --data-root."),
    ] = None,
    shots: Annotated[
        list[int] | None,
        typer.Option(
            help="few-shot: videos a class in the training lists written to --output (2, 4, 8, 16)."
        ),
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option(help="Class names, where the data set's list numbers them: a file or built-in list."),
    ] = None,
    templates: Annotated[
        str | None,
        typer.Option(help="Prompt templates: a name or YAML file. Default: the model's own."),
    ] = None,
    frames: Annotated[int, typer.Option(min=1, help="Frames a view.")] = 8,
    views: Annotated[int, typer.Option(min=1, help="Views over time; their scores are averaged.")] = 1,
    crops: Annotated[int, typer.Option(help="Crops a view: 1 (centre) or 3.")] = 1,
    sampling: Annotated[
        str | None,
        typer.Option(help="Short for the three: FRAMESxVIEWS or FRAMESxCROPSxVIEWS, as 8x1, 32x1, 16x3x4."),
    ] = None,
    probe: Annotated[
        str | None,
        typer.Option(help="motion: again with frames shuffled, reversed, and one frame repeated."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            help="Folder for results.json, predictions.jsonl and tables; resumes what it finds there."
        ),
    ] = None,
    format: Annotated[str, typer.Option(help="table or json.")] = "table",
    compare: Annotated[bool, typer.Option("--compare", help="Show published numbers beside these.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would run; read no video.")] = False,
    max_missing: Annotated[
        float, typer.Option(min=0, max=1, help="Share of listed videos that may be missing.")
    ] = 0.1,
    batch_size: Annotated[int, typer.Option(min=1, help="Videos a batch.")] = 8,
    workers: Annotated[int, typer.Option(min=0, help="Decoding processes.")] = 2,
    decoder: Annotated[str, typer.Option(help="auto, decord or pyav.")] = "auto",
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds one video may take to decode.")] = 60.0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.", envvar="ZSAR_DEVICE")] = "auto",
    precision: Annotated[
        str, typer.Option(help="auto, fp32, bf16 or fp16.", envvar="ZSAR_PRECISION")
    ] = "auto",
    seed: Annotated[int, typer.Option(help="Of shuffled frames, bootstrap and few-shot draws.")] = 0,
    cache: CacheOption = None,
) -> None:
    """Evaluate a model on a data set.

    With no option at all: the bundled model on motion-shapes, which renders itself.
    """
    from zsar_cli.protocols import SHOTS, Source, make_plan

    if format not in ("table", "json"):
        raise UsageError(f"--format must be table or json, not {format!r}.")
    if probe not in (None, "motion"):
        raise UsageError(f"--probe knows only motion, not {probe!r}.")
    if sampling is not None:
        frames, views, crops = parse_sampling(sampling)
    if crops not in (1, 3):
        raise UsageError("--crops must be 1 or 3.")
    chosen = choose(data, model)
    source = Source(chosen.data, _text(data_root), _text(list_file), _class_names(labels))
    if protocol == "open-set" and unknown is None and chosen.data == "ucf101":
        unknown = "hmdb51"
    stranger = Source(unknown, _text(unknown_root or data_root)) if unknown else None
    plan = make_plan(source, protocol, split, unknown=stranger, shots=shots or SHOTS, seed=seed)
    if dry_run:
        import json

        from zsar_cli.protocols import describe_data

        _show(
            json.dumps(describe_plan(plan, chosen, describe_data(plan)), indent=2)
            if format == "json"
            else plan_table(plan, chosen)
        )
        return
    for part in plan.parts:
        part.dataset.check_missing(max_missing)  # before the model takes its time to load

    from zsar_cli.evaluation import Options

    options = Options(
        frames, views, crops, batch_size, workers, decoder, timeout, probe_motion=probe is not None, seed=seed
    )
    results = _run(plan, chosen, options, templates, device, precision, output, max_missing, cache)
    if format == "json":
        from zsar_cli.results import to_json

        _show(to_json(results))
        return
    for table in result_tables(results, chosen):
        _show(table)
    if compare:
        _show(comparison_table(results))


# --- what to evaluate ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Choice:
    """Model and data, and why: what the header of the output says."""

    model: str
    data: str
    why: str


def choose(data: str | None, model: str | None) -> Choice:
    """Fill in what was not said: the bundled model and its data, or the data that a run was trained on."""
    if model is None:
        if data is None:
            return Choice(
                BUNDLED_MODEL,
                "motion-shapes",
                "the bundled model and data; see --model, --data",
            )
        return Choice(BUNDLED_MODEL if data == "motion-shapes" else DEFAULT_MODEL, data, "the default model")
    if data is not None:
        return Choice(model, data, "as given")
    if model == BUNDLED_MODEL:
        return Choice(model, "motion-shapes", "the data that the model was trained on")
    config = Path(model) / "config.yaml"
    trained = yaml.safe_load(config.read_text(encoding="utf-8")) if config.is_file() else None
    if not isinstance(trained, dict) or not trained.get("data"):
        raise UsageError(
            f"What should {model} be evaluated on? Give --data (a name such as ucf101, or a folder)."
        )
    return Choice(model, str(trained["data"]), "the data that the model was trained on")


def parse_sampling(text: str) -> tuple[int, int, int]:
    """Frames, views and crops: 16x1 is 16 frames, 1 view; 16x3x4 is 16 frames, 3 crops, 4 views."""
    parts = text.lower().split("x")
    if len(parts) not in (2, 3) or not all(part.isdigit() and int(part) > 0 for part in parts):
        raise UsageError(f"--sampling {text!r} is not FRAMESxVIEWS (8x1) or FRAMESxCROPSxVIEWS (16x3x4).")
    numbers = [int(part) for part in parts]
    return (numbers[0], numbers[1], 1) if len(numbers) == 2 else (numbers[0], numbers[2], numbers[1])


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)


def _class_names(labels: str | None) -> tuple[str, ...] | None:
    if labels is None:
        return None
    if Path(labels).is_file():
        from zsar_cli.data.readers import read_class_map

        return read_class_map(Path(labels))
    from zsar_cli.data.classes import class_names

    return class_names(labels)


# --- running ------------------------------------------------------------------------------------------------


def _run(
    plan: Plan,
    chosen: Choice,
    options: Any,
    templates: str | None,
    device: str,
    precision: str,
    output: Path | None,
    max_missing: float,
    cache: Path | None,
) -> dict[str, Any]:
    from zsar_cli.cli import console
    from zsar_cli.evaluation import TextSide
    from zsar_cli.feature_cache import FeatureCache
    from zsar_cli.model.backbone import resolve_device, resolve_precision
    from zsar_cli.model.recognizer import load_model
    from zsar_cli.prompts import Labels, TextCache, embed_prompts, load_templates, phrase_bank
    from zsar_cli.results import run_plan

    device = str(resolve_device(device))
    network = load_model(chosen.model, device=device, precision=resolve_precision(precision, device))
    chosen_templates = load_templates(templates or network.templates or "video")
    features = FeatureCache(cache, network) if cache is not None else None
    texts = TextCache()

    def embed(names: Sequence[str], negatives: bool) -> Any:
        phrases = Labels(tuple(names), tuple((name,) for name in names))
        return embed_prompts(
            network.backbone.encode_text,
            phrases,
            chosen_templates,
            negatives=negatives,
            cache=texts,
            model_id=f"{network.name} {network.backbone.fingerprint()}",
        )

    phrases = phrase_bank()

    def encode(names: Sequence[str]) -> TextSide:
        prompts = embed(names, network.uses_negatives)
        negative = prompts.negative.to(device) if prompts.negative is not None else None
        bank = embed(phrases, False).positive.to(device)
        return TextSide(tuple(names), prompts.positive.to(device), negative, bank)

    with console.progress(sum(len(part.items) for part in plan.parts)) as advance:
        results = run_plan(
            network,
            plan,
            encode,
            options,
            templates={"name": chosen_templates.name, "hash": chosen_templates.hash},
            bank=len(phrases),
            output=output,
            progress=advance,
            max_missing=max_missing,
            cache=features,
        )
    if features is not None:
        console.note(f"Cache {features.summary()}.")
    return results


def _show(what: Any) -> None:
    from zsar_cli.cli import console

    console.out(what)


# --- what people see ----------------------------------------------------------------------------------------


def describe_plan(plan: Plan, chosen: Choice, lists: list[dict[str, Any]]) -> dict[str, Any]:
    """What ``--dry-run --format json`` says."""
    return {
        "model": chosen.model,
        "why": chosen.why,
        "data": plan.data,
        "protocol": plan.protocol,
        "parts": lists,
        "notes": plan.notes,
    }


def plan_table(plan: Plan, chosen: Choice) -> Table:
    """What ``--dry-run`` says."""
    from rich.table import Table

    title = f"Would evaluate {chosen.model} on {plan.data} ({plan.protocol}; {chosen.why})"
    table = Table(title=title, title_justify="left")
    for column in (
        "part",
        "list",
        "rows",
        "hash",
        "exist",
        "missing",
        "labels",
        "without clips",
        "unmatched labels",
    ):
        table.add_column(column, overflow="fold")
    for part in plan.parts:
        data = part.dataset
        odd = ", ".join(f"{name} ({count})" for name, count in data.unmatched.items()) or "none"
        table.add_row(
            part.name,
            f"{data.list_name} ({data.list_format})",
            str(data.list_rows),
            data.list_hash,
            str(len(part.items)),
            str(data.missing),
            str(len(part.labels)),
            str(len(data.empty_classes)),
            odd,
        )
    notes = [f"{part.name}: {note}" for part in plan.parts for note in part.dataset.notes] + plan.notes
    table.caption = "\n".join(notes)
    table.caption_justify = "left"
    return table


def _percent(value: float | None) -> str:
    return "-" if value is None or value != value else f"{100 * value:.1f}"


def result_tables(results: dict[str, Any], chosen: Choice) -> list[Table]:
    """The tables of a finished evaluation: parts and summary, motion probe, open set."""
    from rich.table import Table

    options, name = results["options"], results["templates"]["name"]
    title = (
        f"{results['model']} on {chosen.data} ({results['protocol']}; {chosen.why})\n"
        f"{options['frames']} frames x {options['views']} views x {options['crops']} crops; templates {name}"
    )
    main = Table(title=title, title_justify="left")
    for column in (
        "part",
        "list",
        "videos",
        "lost",
        "labels",
        "top-1",
        "95% interval",
        "top-5",
        "class mean",
        "ECE",
    ):
        main.add_column(column, justify="left" if column in ("part", "list") else "right")
    lists = {entry["part"]: entry for entry in results["lists"]}
    for part, numbers in results["parts"].items():
        low, high = numbers["top1_interval95"]
        main.add_row(
            part,
            f"{lists[part]['list']} {lists[part]['hash'][:8]}",
            str(numbers["videos"]),
            str(numbers["unreadable"] + lists[part]["missing"]),
            str(numbers["classes"]),
            _percent(numbers["top1"]),
            f"{_percent(low)} to {_percent(high)}",
            _percent(numbers["top5"]),
            _percent(numbers["mean_class_accuracy"]),
            f"{numbers['ece']:.3f}",
        )
    summary = results["summary"]
    if "harmonic_mean" in summary:
        main.caption = f"harmonic mean of seen and unseen: {_percent(summary['harmonic_mean'])}"
    elif summary.get("splits", 1) > 1:
        spread = f"{_percent(summary['mean'])} ± {_percent(summary['spread'])}"
        main.caption = f"mean over {summary['splits']} splits: {spread}"
    tables = [main]
    probed = {part: numbers["probes"] for part, numbers in results["parts"].items() if "probes" in numbers}
    if probed:
        table = Table(title="Does it use motion? Top-1 (and what it costs)", title_justify="left")
        for column in ("part", "as filmed", "shuffled", "reversed", "one frame repeated"):
            table.add_column(column, justify="right")
        for part, probes in probed.items():
            cells = [
                f"{_percent(p['top1'])} (-{_percent(p['cost'])})".replace("--", "+") for p in probes.values()
            ]
            table.add_row(part, _percent(results["parts"][part]["top1"]), *cells)
        tables.append(table)
    if "open_set" in results:
        table = Table(
            title="Unknown (the positive class) against known; FPR at TPR 0.95", title_justify="left"
        )
        for column in ("score", "AUROC", "AUPR", "FPR95"):
            table.add_column(column, justify="left" if column == "score" else "right")
        for kind, numbers in results["open_set"]["scores"].items():
            table.add_row(kind, *(_percent(numbers[key]) for key in ("auroc", "aupr", "fpr95")))
        tables.append(table)
    return tables


def comparison_table(results: dict[str, Any]) -> Table:
    """Published zero-shot numbers with one's own as the last row."""
    from rich.table import Table

    from zsar_cli.protocols import published_numbers

    published = published_numbers()
    table = Table(title="Published zero-shot top-1 (%), trained on Kinetics-400", title_justify="left")
    for column in ("method", "backbone", *published["columns"], "source"):
        table.add_column(column)
    for row in published["rows"]:
        table.add_row(row["method"], row["backbone"], *(f"{v:.1f}" for v in row["values"]), row["source"])
    evaluated = {entry["data"] for entry in results["lists"]}
    summary = results["summary"]
    own = _percent(summary.get("mean", summary.get("top1")))
    cells = [
        own if column in evaluated and results["protocol"] == "zero-shot" else "-"
        for column in published["columns"]
    ]
    lists = ", ".join(f"{e['list']} ({e['videos']} videos)" for e in results["lists"])
    table.add_row("this run", results["model"], *cells, lists, style="bold")
    return table
