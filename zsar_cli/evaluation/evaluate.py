"""Evaluation from Python: the function behind ``zsar eval``."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from zsar_cli import checks
from zsar_cli.data.definition import known_name
from zsar_cli.errors import UsageError, VideoError
from zsar_cli.evaluation.choice import Choice, choose, note_training_clips
from zsar_cli.evaluation.label_phrases import described
from zsar_cli.evaluation.presets import PRESETS, as_published, follow_published
from zsar_cli.evaluation.protocols import DataSource, Plan, labels_hash, make_plan, published_numbers
from zsar_cli.outputs import refuse_taken_inside
from zsar_cli.run_log import NOTE, StageTimes, log_setup
from zsar_cli.text.cache import TextCache
from zsar_cli.text.embeddings import PromptEmbeddings, embed_labels
from zsar_cli.text.labels import Labels, load_labels
from zsar_cli.text.templates import Templates, default_templates, load_templates, phrase_bank
from zsar_cli.text.words import as_words, words_line

if TYPE_CHECKING:
    from zsar_cli.evaluation.inference import Engine, Options
    from zsar_cli.evaluation.results import PromptSettings
    from zsar_cli.features.cache import FeatureCache
    from zsar_cli.model.zsar import RecognizerModel

logger = logging.getLogger(__name__)
StrPath: TypeAlias = "str | os.PathLike[str]"
PROTOCOLS = ("zero-shot", "base-to-novel", "generalised", "few-shot", "open-set")


def evaluate(
    data: StrPath | None = None,
    model: StrPath | None = None,
    *,
    data_root: StrPath | None = None,
    list_file: StrPath | None = None,
    protocol: str | None = None,
    protocol_preset: str | None = None,
    split: str | None = None,
    unknown: StrPath | None = None,
    unknown_root: StrPath | None = None,
    shots: Sequence[int] | None = None,
    labels: StrPath | None = None,
    label_column: str | None = None,
    descriptions: StrPath | None = None,
    templates: StrPath | None = None,
    frames: int | None = None,
    views: int = 1,
    crops: int = 1,
    probe_motion: bool = False,
    output: StrPath | None = None,
    report: StrPath | None = None,
    max_missing: float = 0.1,
    batch_size: int = 8,
    workers: int | None = None,
    decoder: str = "auto",
    timeout: float = 60.0,
    device: str = "auto",
    precision: str = "auto",
    backbone: StrPath | None = None,
    seed: int = 0,
    cache: StrPath | None = None,
    overwrite: bool = False,
    progress: Callable[[int], AbstractContextManager[Callable[[float], None]]] = lambda total: nullcontext(
        lambda done: None
    ),
) -> dict[str, Any]:
    """Evaluate a model on a data set, as ``zsar eval`` does (docs/evaluation.md).

    Args:
        data: a data set's name, YAML file, list, or folder of a folder a class; by default what the model learned from.
        model: as for :meth:`zsar_cli.Recognizer.load`.
        data_root: the folder of the data set's videos and lists.
        list_file: an annotation file in place of the data set's own.
        protocol: one of :data:`PROTOCOLS`; by default what fits the data.
        protocol_preset: ``published``: as the authors of a published model tested it.
        split: ``seen``, ``unseen``, ``all`` or a named split.
        unknown: open-set: the data set of the unknown classes, which lie in ``unknown_root``.
        shots: videos a class in the training lists that few-shot and base-to-novel write to ``output``.
        labels: class names where the data set's list numbers them, a file or a built-in list.
        label_column: the column of the list that holds the label.
        descriptions: a map of class names to phrases that stand for them in the prompts.
        templates: a file of prompt templates or the name of shipped ones.
        frames: of a view; by default as many as the model was trained with.
        probe_motion: again with frames shuffled, reversed, and one frame repeated.
        output: a folder for results.json, predictions.jsonl and tables; goes on from what it finds there.
        report: a folder for report.html, and for ``output`` unless that is given.
        max_missing: the share (0 to 1) of listed videos that may be missing or unreadable.
        cache: a folder for visual features.
        overwrite: replace what the folders hold of another evaluation.
        progress: makes a context of the number of videos; it gives a function to call with how many more are done.

    Returns:
        what ``results.json`` holds: numbers by part under ``parts``, shares from 0 to 1.

    Raises:
        UsageError: an option is wrong, data or model cannot be had, or too many videos are missing.
    """
    from zsar_cli.evaluation.inference import Options

    options = Options(frames, views, crops, batch_size, workers, decoder, timeout, probe_motion, seed)
    if protocol_preset is not None:
        checks.choice("protocol_preset", protocol_preset, PRESETS)
        model, options = as_published(
            checks.optional_text("model", model), options, checks.optional_text("templates", templates)
        )
    plan, chosen = plan_evaluation(
        data,
        model,
        data_root=data_root,
        list_file=list_file,
        protocol=protocol,
        split=split,
        unknown=unknown,
        unknown_root=unknown_root,
        shots=shots,
        labels=labels,
        label_column=label_column,
        seed=seed,
    )
    how = How(
        device=checks.text("device", device),
        precision=checks.text("precision", precision),
        backbone=checks.optional_text("backbone", backbone),
        templates=checks.optional_text("templates", templates),
        descriptions=checks.optional_text("descriptions", descriptions),
        as_published=protocol_preset is not None,
        output=checks.optional_path("output", output),
        report=checks.optional_path("report", report),
        max_missing=checks.number("max_missing", max_missing, checks.SHARE),
        cache=checks.optional_path("cache", cache),
        overwrite=checks.truth("overwrite", overwrite),
        command="zsar_cli.evaluate(...)",
    )
    return run_evaluation(plan, chosen.model, options, how, progress=progress)


def plan_evaluation(
    data: StrPath | None,
    model: StrPath | None,
    *,
    data_root: StrPath | None = None,
    list_file: StrPath | None = None,
    protocol: str | None = None,
    split: str | None = None,
    unknown: StrPath | None = None,
    unknown_root: StrPath | None = None,
    shots: Sequence[int] | None = None,
    labels: StrPath | None = None,
    label_column: str | None = None,
    seed: int = 0,
) -> tuple[Plan, Choice]:
    """Find out which videos are asked against which labels; reads lists and no video. Arguments as of :func:`evaluate`.

    Raises:
        UsageError: an option is wrong, or the data cannot be had.
    """
    chosen = choose(checks.optional_text("data", data), checks.optional_text("model", model))
    classes = chosen.classes if labels is None else load_labels(checks.text("labels", labels)).names
    given_root = checks.optional_text("data_root", data_root)
    root = given_root or (chosen.data_root if data is None else None)
    source = DataSource(
        chosen.data,
        root,
        checks.optional_text("list_file", list_file),
        classes,
        label_column or chosen.label_column,
    )
    if protocol is not None:
        checks.choice("protocol", protocol, PROTOCOLS)
    if unknown is not None and protocol != "open-set":
        raise UsageError("--unknown is for --protocol open-set.")
    if protocol == "open-set" and unknown is None and known_name(chosen.data) == "ucf101":
        unknown = "hmdb51"
    stranger = _unknown_source(
        checks.optional_text("unknown", unknown),
        checks.optional_text("unknown_root", unknown_root),
        given_root,
    )
    plan = make_plan(source, protocol, split, unknown=stranger, shots=_shots(shots), seed=seed)
    note_training_clips(plan, chosen, source)
    return plan, chosen


def _shots(shots: Sequence[int] | None) -> list[int] | None:
    if shots is None:
        return None
    if not isinstance(shots, Iterable) or isinstance(shots, str):
        raise UsageError(f"shots must be a list of whole numbers, not {checks.brief(shots)}.")
    return [checks.whole("each of shots", count, (1, 10**9)) for count in shots]


def _unknown_source(unknown: str | None, own_root: str | None, root: str | None) -> DataSource | None:
    """Find where unknown videos come from. A folder or a definition of the user's own knows where it lies."""
    if unknown is None:
        return None
    return DataSource(unknown, own_root or (root if known_name(unknown) else None))


@dataclass(frozen=True)
class How:
    """What runs an evaluation, and where what comes of it goes."""

    device: str = "auto"
    precision: str = "auto"
    backbone: str | None = None
    templates: str | None = None
    descriptions: str | None = None
    as_published: bool = False  # class names as the authors of a published model put them into prompts
    output: Path | None = None
    report: Path | None = None
    max_missing: float = 0.1
    cache: Path | None = None
    overwrite: bool = False
    command: str = ""  # for the report


def run_evaluation(
    plan: Plan,
    model: str,
    options: Options,
    how: How,
    *,
    loading: Callable[[str], AbstractContextManager[Any]] = lambda text: nullcontext(),
    loaded: Callable[[RecognizerModel], None] = lambda model: None,
    progress: Callable[[int], AbstractContextManager[Callable[[float], None]]] = lambda total: nullcontext(
        lambda done: None
    ),
    ended: Callable[[StageTimes, FeatureCache | None], None] = lambda times, cache: None,
    engine: Engine | None = None,
) -> dict[str, Any]:
    """Run a plan and write its results and its report.

    Args:
        loading: makes a context for what takes long, of what it says.
        loaded: called with the model.
        progress: as of :func:`evaluate`.
        ended: called with the times of the stages and the cache once all videos are answered.
        engine: evaluates in place of this process, which holds the model for what is on record of it.

    Returns:
        as :func:`evaluate`.

    Raises:
        UsageError: the model cannot be had, a folder holds something else, or too many videos are missing.
    """
    for part in plan.parts:
        part.dataset.check_missing(how.max_missing)  # before the model takes its time to load
    phrases = described(how.descriptions, plan)
    if how.report is not None:
        _check_report(how.report)
    calls = _EvaluationCallbacks(loading, loaded, progress, ended, engine)
    return _run(plan, model, options, how, phrases, calls)


@dataclass(frozen=True)
class _EvaluationCallbacks:
    """What is called as the run goes on."""

    loading: Callable[[str], AbstractContextManager[Any]]
    loaded: Callable[[RecognizerModel], None]
    progress: Callable[[int], AbstractContextManager[Callable[[float], None]]]
    ended: Callable[[StageTimes, FeatureCache | None], None]
    engine: Engine | None = None


def _run(
    plan: Plan,
    model: str,
    options: Options,
    how: How,
    phrases: dict[str, tuple[str, ...]],
    calls: _EvaluationCallbacks,
) -> dict[str, Any]:
    from zsar_cli.evaluation.report import is_report_of, mark_of
    from zsar_cli.evaluation.results import run_plan
    from zsar_cli.features.cache import FeatureCache
    from zsar_cli.model.load import load_model
    from zsar_cli.model.precision import resolve_device

    times, output = StageTimes(), how.output or how.report
    device = str(resolve_device(how.device))
    with calls.loading(f"Loading {model} ..."), times.measured("load"):
        network = load_model(model, device=device, precision=how.precision, backbone=how.backbone)
        network.backbone.use_engine()
    log_setup(network, workers=options.decoders(network), decoder=options.decoder)
    words = follow_published(network, plan.data) if how.as_published else as_words
    named = dict.fromkeys(label for part in plan.parts for label in part.labels)
    as_they_are = [name for name, said in network.record.prompted.items() if said == name]
    read = [name for name in named if name not in {*phrases, *as_they_are}]
    if words is as_words and (line := words_line(read)):
        logger.log(NOTE, "%s", line)
    calls.loaded(network)
    templates = load_templates(how.templates) if how.templates else default_templates(network)
    cache = FeatureCache(how.cache, network) if how.cache is not None else None
    texts = TextCache()

    def encode(names: Sequence[str]) -> PromptEmbeddings:
        wanted = Labels(tuple(names), tuple(phrases.get(name, (words(name),)) for name in names))
        with times.measured("labels"):
            return embed_labels(network, wanted, templates, bank=True, cache=texts)

    mark = ""

    def prepare(settings: dict[str, Any]) -> None:
        nonlocal mark
        mark = mark_of(settings)
        if how.report is not None and not is_report_of(how.report / "report.html", settings):
            refuse_taken_inside(how.report, ["report.html"], overwrite=how.overwrite, option="--report")

    with calls.progress(sum(len(part.items) for part in plan.parts)) as advance:
        results = run_plan(
            network,
            plan,
            encode,
            options,
            prompts=_prompts(templates, phrases, list(named)),
            output=output,
            progress=advance,
            max_missing=how.max_missing,
            cache=cache,
            times=times,
            overwrite=how.overwrite,
            prepare=prepare,
            engine=calls.engine,
        )
    calls.ended(times, cache)
    if how.report is not None:
        with calls.loading("Drawing the report ..."):
            _draw_report(how, plan, network, encode, options, results, mark)
    return results


def _prompts(
    templates: Templates, phrases: dict[str, tuple[str, ...]], labels: Sequence[str]
) -> PromptSettings:
    from zsar_cli.evaluation.results import PromptSettings

    described = [f"{label}: {phrase}" for label, own in phrases.items() for phrase in own]
    each = {len(phrases.get(label, (label,))) for label in labels}
    bank = phrase_bank()
    return PromptSettings(
        {"name": templates.name, "hash": templates.hash},
        {"phrases": len(bank), "hash": labels_hash(bank)},
        labels_hash(described) if described else None,
        each.pop() if len(each) == 1 else None,
    )


def _check_report(folder: Path) -> None:
    from zsar_cli.plots import require_matplotlib

    require_matplotlib()  # says what is missing before hours of work
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{folder} cannot be created: {(error.strerror or str(error)).lower()}.") from error


def _draw_report(
    how: How,
    plan: Plan,
    network: RecognizerModel,
    encode: Callable[[Sequence[str]], PromptEmbeddings],
    options: Options,
    results: dict[str, Any],
    mark: str,
) -> None:
    """Write ``report.html``: what the run wrote, with an explain sheet for each of the worst mistakes."""
    from zsar_cli.evaluation.inference import iter_clips
    from zsar_cli.evaluation.report import Report, mistake_sheets, read_records, worst_mistakes, write_report
    from zsar_cli.prediction.clips import examine

    assert how.report is not None
    parts = {part.name: part for part in plan.parts}
    records = read_records(how.output or how.report)

    def load(record: dict[str, Any]) -> Any:
        path = parts[record["part"]].items[record["item"]].path
        with contextlib.ExitStack() as stack:
            _, _, clip = next(iter(iter_clips([path], network, options, stack)))
            return None if isinstance(clip, VideoError) else clip

    def look(record: dict[str, Any], clip: Any) -> Any:
        text = encode(parts[record["part"]].labels)
        where = [label for label in (record["top"][0][0], record["label"]) if label in text.labels]
        return examine(network, clip, text, crops=options.crops, where=where)

    sheets = mistake_sheets(worst_mistakes(records), load, look)
    page = Report(results, records, how.command, published_numbers(), sheets, mark)
    write_report(page, how.report / "report.html")
