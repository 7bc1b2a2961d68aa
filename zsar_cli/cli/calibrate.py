"""``zsar eval --calibrate``: find confidence thresholds on a list of labelled videos."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zsar_cli import __version__
from zsar_cli.errors import UsageError

if TYPE_CHECKING:
    from zsar_cli.data.dataset import Dataset
    from zsar_cli.evaluation.inference import Options
    from zsar_cli.text.labels import Labels

LEAST = 10  # videos
FEW = 50


def calibrate(
    listing: Path,
    model: str,
    labels: Labels,
    options: Options,
    *,
    templates: str | None,
    label_column: str | None,
    data_root: Path | None,
    device: str,
    precision: str,
    backbone: str | None,
    cache: Path | None,
    max_missing: float,
    overwrite: bool,
) -> dict[str, Any]:
    """Find the thresholds and save them; return them with a summary of the videos."""
    from zsar_cli.cli import console
    from zsar_cli.cli.threads import limit_threads
    from zsar_cli.evaluation.inference import evaluate_parts
    from zsar_cli.evaluation.protocols import EvaluationPart
    from zsar_cli.evaluation.thresholds import judged_records, summary
    from zsar_cli.prediction.calibration import key_of, present, write
    from zsar_cli.recognizer import Recognizer
    from zsar_cli.run_log import log_setup

    data = _videos(listing, labels, label_column, data_root)
    data.check_missing(max_missing)
    _check_count(len(data.items), listing)
    if line := _learned_line(model, listing, [item.path for item in data.items]):
        console.note(line)
    targets = [item.label if item.label < len(labels.names) else -1 for item in data.items]
    part = EvaluationPart("calibration", data, labels.names, targets)
    with console.status(f"Loading {model} ..."):
        recognizer = Recognizer.load(
            model, device=device, precision=precision, backbone=backbone, cache=cache
        )
        text = recognizer.embed_labels(labels, templates)
    network = recognizer.model
    limit_threads(network.backbone)
    log_setup(network, workers=options.decoders(network), decoder=options.decoder)
    options = replace(options, frames=options.frames or network.frames)
    key = key_of(network, labels, text.templates_hash, options.frames)
    present(network, key, overwrite=overwrite)  # says what is in the way before any work
    with console.progress(len(data.items)) as advance:

        def told(record: dict[str, Any]) -> None:
            if "error" in record:
                console.error(f"{record['video']}: {record['error']['message']}")
            advance(1)

        found = evaluate_parts(
            *(network, [part], [text], options),
            write=told,
            cache=recognizer.cache,
            times=recognizer.times,
        )
    console.detail(f"Time: {recognizer.times}.")
    if recognizer.cache is not None:
        console.note(f"Cache {recognizer.cache.summary()}.")
    answers = judged_records(found["calibration"])
    _check_count(len(answers.confidence), listing)
    about = summary(answers)
    made = {"model": network.name, "zsar": __version__, "made": date.today().isoformat()}
    path = write(network, key, {**about, **made}, overwrite=overwrite)
    return {"model": network.name, "list": str(listing), "written": str(path), **about}


def _videos(listing: Path, labels: Labels, label_column: str | None, data_root: Path | None) -> Dataset:
    from zsar_cli.data.dataset import NONE
    from zsar_cli.evaluation.protocols import DataSource

    extra = tuple(name for name in NONE if name not in {known.casefold() for known in labels.names})
    root = None if data_root is None else str(data_root)
    if not listing.exists():
        raise UsageError(f"The list {listing} does not exist; it needs one video and its label per line.")
    return DataSource(str(listing), root, classes=(*labels.names, *extra), label_column=label_column).load(
        "test"
    )


def _learned_line(model: str, listing: Path, videos: list[str]) -> str | None:
    """Say how many of the videos a run has learned from or was chosen by; its data's ``test/`` did neither."""
    from zsar_cli.evaluation.choice import trained_with
    from zsar_cli.files import existing

    data = existing(trained_with(model).data or "")
    if data is None:
        return None
    own, tests = data.resolve(), data.resolve() / "test"
    if data.is_dir():
        parents = [Path(video).resolve().parents for video in videos]
        count = sum(own in above and tests not in above for above in parents)
    else:
        count = len(videos) if own.samefile(listing) else 0
    if not count:
        return None
    return (
        f"{count} of the {len(videos)} videos are of {data}, which {model} learned from or was chosen by: it is surer "
        "of these than of others, so the bounds promise too much. Take videos that it has not seen."
    )


def _check_count(count: int, listing: Path) -> None:
    if count < LEAST:
        raise UsageError(
            f"{listing} has {count} usable videos, too few to estimate how often answers are correct. "
            f"Label at least {LEAST}, better {FEW}."
        )


def lines(found: dict[str, Any]) -> list[Any]:
    """Format the result of a calibration."""
    from zsar_cli.cli.output.evaluation_tables import bounds_table

    strange = f", {found['unknown_videos']} of them with label none" if found["unknown_videos"] else ""
    shown: list[Any] = [f"{found['model']} on {found['videos']} videos of {found['list']}{strange}"]
    shown.append(bounds_table(found["bounds"]))
    if found["videos"] < FEW:
        shown.append("There are few videos, so the intervals are wide; label more for reliable thresholds.")
    if not found["unknown_videos"]:
        shown.append("No video has the label none, so the rate of false alarms is unknown.")
    way = "uses the threshold for 90%; --calibration selects another or none"
    if found["bounds"]["precision90"] is None:
        way = "uses no threshold, as none reaches 90%; select another with --calibration"
    shown.append(
        f"Written to {found['written']}. With this model, these labels, templates and frames, zsar predict {way}."
    )
    return shown
