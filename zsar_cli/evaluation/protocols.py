"""The field's evaluation protocols: which videos against which labels, and how the parts make one number."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from zsar_cli.data.dataset import Dataset, Item, load_dataset, load_motion_shapes, load_scenes, none_line
from zsar_cli.data.definition import Definition, load_definition
from zsar_cli.data.splits import SYNONYMS, few_shot
from zsar_cli.errors import UsageError
from zsar_cli.evaluation.metrics import harmonic_mean
from zsar_cli.files import ASSETS
from zsar_cli.text.class_lists import NameMatcher
from zsar_cli.yaml_files import parse

logger = logging.getLogger(__name__)

PROTOCOLS = ("zero-shot", "base-to-novel", "generalised", "few-shot", "open-set")
SHOTS = (2, 4, 8, 16)
THIRDS: tuple[str, ...] = ("test1", "test2", "test3")


@dataclass
class EvaluationPart:
    """Videos evaluated against one label set; ``targets`` index ``labels``, -1 for videos of none of them."""

    name: str
    dataset: Dataset
    labels: tuple[str, ...]
    targets: list[int]

    @property
    def items(self) -> list[Item]:
        """The videos."""
        return self.dataset.items


@dataclass
class Plan:
    """What an evaluation will run."""

    protocol: str
    data: str
    parts: list[EvaluationPart]
    notes: list[str] = field(default_factory=list)
    few_shot_lists: dict[int, list[str]] = field(
        default_factory=dict
    )  # K -> lines of a path, a tab and a label
    known: str = ""  # the part that unknown videos are told from, where there are any


@dataclass(frozen=True)
class DataSource:
    """Where a data set comes from: what the user named, and overrides."""

    data: str
    root: str | None = None
    list_file: str | None = None
    classes: tuple[str, ...] | None = None
    label_column: str | None = None

    def load(self, split: str = "test", subset: str | None = None) -> Dataset:
        """Load one of its lists, with one of its class splits."""
        return load_dataset(
            self.data,
            self.root,
            split=split,
            subset=subset,
            list_file=self.list_file,
            classes=self.classes,
            label_column=self.label_column,
        )

    @property
    def first(self) -> str:
        """The test list that protocols with one list use."""
        return "test1" if "test1" in load_definition(self.data).splits else "test"

    def named(self, split: str) -> Dataset:
        """Resolve ``--split``: one of its lists ("test2") or a class split ("base", "unseen", "all") of the first."""
        own = load_definition(self.data).splits
        return self.load(split) if split in own else self.load(self.first, split)

    def training(self, subset: str | None = None) -> Dataset:
        """Load its (first) training list; a list given for testing is no part of it."""
        split = "train1" if "train1" in load_definition(self.data).splits else "train"
        return load_dataset(
            self.data,
            self.root,
            split=split,
            subset=subset,
            classes=self.classes,
            label_column=self.label_column,
        )


def make_plan(
    source: DataSource,
    protocol: str | None = None,
    split: str | None = None,
    *,
    unknown: DataSource | None = None,
    shots: Sequence[int] | None = None,
    seed: int = 0,
) -> Plan:
    """Make the parts of an evaluation. UsageError where the data set does not have what the protocol needs.

    Without a protocol: ``split`` alone if given; else the usual one of the data set. ``shots`` asks for training
    lists with so many videos a class.
    """
    if protocol is not None and protocol not in PROTOCOLS:
        raise UsageError(f"Unknown protocol {protocol!r}. Choose from: {', '.join(PROTOCOLS)}.")
    if protocol in ("base-to-novel", "generalised") and split is not None:
        raise UsageError(f"{protocol} evaluates both base and novel classes; remove --split.")
    definition = load_definition(source.data)
    if definition.rendered:
        return (_plan_scenes if definition.name == "scenes" else _plan_shapes)(protocol, split)
    if protocol is None and split is not None:
        plan = Plan("split", definition.name, [_part(split, source.named(split))])
        _note_none(plan)
        return plan
    if protocol == "open-set":
        return _plan_open_set(source, split, unknown)
    if protocol in ("base-to-novel", "generalised"):
        plan = _plan_halves(source, protocol, definition)
    elif protocol == "few-shot":
        # A draw from the first training list is tested on the first test list: the others hold its videos.
        part = _part(split or source.first, source.named(split) if split else source.load(source.first))
        plan = Plan(protocol, definition.name, [part])
    else:
        plan = _plan_zero_shot(source, split, definition)
    _check_numbering(plan.parts)
    if definition.validation and not definition.has_test and source.list_file is None:
        plan.notes.append(
            f"{definition.name} has no test videos: these are its {definition.validation} ones, by which zsar train "
            "chooses best/"
        )
    _note_none(plan)
    for part in plan.parts:
        if len(part.labels) == 1:
            plan.notes.append(f"{part.name} has only one label, so its top-1 is meaningless")
    if protocol == "few-shot" or shots:
        _draw_shots(plan, source, shots, seed)
    return plan


def _note_none(plan: Plan) -> None:
    for part in plan.parts:
        if part.dataset.of_none:
            plan.notes.append(
                f"{none_line(part.dataset)}: skipped, as none is not a class; --protocol open-set uses them as unknown"
            )


def _plan_zero_shot(source: DataSource, split: str | None, definition: Definition) -> Plan:
    """Plan each test list with each of Kinetics-600's thirds, or whichever of them are asked for."""
    lists = [name for name in THIRDS if name in definition.splits] or ["test"]
    if source.list_file is not None:
        lists = lists[:1]
    named = definition.classes.splits if definition.classes else {}
    subsets: list[str | None] = [s for s in named if s.startswith("split")] if split is None else [split]
    if split is None and subsets and source.list_file is not None:
        counted = source.load(lists[0]).counted  # a list of one split's own says which, or this asks for it
        subsets = [counted] if counted in subsets else subsets
    if split in definition.splits:
        lists, subsets = [str(split)], []
    parts = []
    for name in lists:
        for subset in subsets or [None]:
            own = "test" if source.list_file is not None else name
            title = f"{name} {subset}" if subset and len(lists) > 1 else subset or own
            parts.append(_part(title, source.load(name, subset)))
    return Plan("zero-shot", definition.name, parts)


def _plan_halves(source: DataSource, protocol: str, definition: Definition) -> Plan:
    splits = definition.classes.splits if definition.classes else {}
    halves = ("base", "novel")
    if not all(half in splits for half in halves):
        raise UsageError(f"{definition.name} has no base and novel classes, which {protocol} needs.")
    sets = [source.load(source.first, half) for half in halves]
    together = sets[0].classes + sets[1].classes if protocol == "generalised" else None
    parts = [_part(half, data, together) for half, data in zip(halves, sets, strict=True)]
    return Plan(protocol, definition.name, parts)


def _plan_open_set(source: DataSource, split: str | None, unknown: DataSource | None) -> Plan:
    known = source.named(split) if split else source.load(source.first)
    if unknown is None and not known.of_none:
        raise UsageError(
            "open-set needs videos of unknown classes: give a data set with --unknown (hmdb51 for ucf101), or label "
            "some videos of your own list none."
        )
    if unknown is None:
        marked = replace(known, items=known.of_none, classes=(), missing=0, missing_paths=[], unmatched={})
        parts = [_part("known", known), _unknown_part(marked, known.classes)]
        return Plan("open-set", known.name, parts, [f"unknown: {none_line(known)}"], known="known")
    stranger = unknown.load(unknown.first)
    parts = [_part("known", known), _unknown_part(stranger, known.classes)]
    plan = Plan("open-set", known.name, parts, known="known")
    matcher = NameMatcher(known.classes)
    shared = [name for name in stranger.classes if matcher.find(name) is not None]
    if shared:
        plan.notes.append(
            f"{len(shared)} unknown classes have the name of a known class ({', '.join(shared[:5])}) and are kept"
        )
    return plan


def _draw_shots(plan: Plan, source: DataSource, shots: Sequence[int] | None, seed: int) -> None:
    """Draw training lists of K videos a class, of the base classes where the protocol has them."""
    try:
        train = source.training(None if plan.protocol == "few-shot" else "base")
    except UsageError as error:
        if shots:
            raise
        plan.notes.append(f"no training lists are drawn: {error}")
        return
    labels = [item.label for item in train.items]
    for count in shots or SHOTS:
        chosen = few_shot(train.items, labels, count, seed=seed)
        plan.few_shot_lists[count] = [
            f"{os.path.abspath(item.path)}\t{train.classes[item.label]}" for item in chosen
        ]


def _plan_shapes(protocol: str | None, split: str | None) -> Plan:
    """Plan motion-shapes, whole by default: every number of its table from one look at each clip."""
    from zsar_cli.data import motion_shapes

    if protocol == "few-shot":
        raise UsageError(
            "motion-shapes has no few-shot protocol: it renders as many training clips as are asked for."
        )
    back = {value: key for key, value in SYNONYMS.items()}
    name = back.get(split or "", split)
    if name is not None and protocol in (None, "zero-shot") and name != "all":
        return Plan("split", "motion-shapes", [_part(name, load_motion_shapes(name))])
    if protocol == "zero-shot":
        return Plan(protocol, "motion-shapes", [_part("unseen", load_motion_shapes("unseen"))])
    if protocol is None and name == "all":
        protocol = "generalised"
    halves = [_part(s, load_motion_shapes(s)) for s in ("seen", "unseen")]
    everything = motion_shapes.class_labels("all")
    together = [_part(f"{part.name} of all", part.dataset, everything) for part in halves]
    if protocol == "base-to-novel":
        return Plan(protocol, "motion-shapes", halves)
    if protocol == "generalised":
        return Plan(protocol, "motion-shapes", together)
    strange = load_motion_shapes("neither")
    if protocol == "open-set":
        known = load_motion_shapes(name or "unseen")
        parts = [_part("known", known), _unknown_part(strange, known.classes)]
        return Plan(protocol, "motion-shapes", parts, known="known")
    shifted = _part("shifted", load_motion_shapes("shifted"))
    parts = [*halves, shifted, *together, _unknown_part(strange, halves[1].labels)]
    return Plan("whole", "motion-shapes", parts, known="unseen")


def _plan_scenes(protocol: str | None, split: str | None) -> Plan:
    """Plan scenes: the camera's moves, a subject's, and pairs that training saw apart only."""
    if protocol not in (None, "zero-shot"):
        raise UsageError(f"scenes has no {protocol} protocol; remove --protocol, or evaluate motion-shapes.")
    if split is not None:
        return Plan("split", "scenes", [_part(split, load_scenes(split))])
    names = ("unseen",) if protocol == "zero-shot" else ("camera", "subject", "unseen")
    return Plan(protocol or "whole", "scenes", [_part(name, load_scenes(name)) for name in names])


def _part(name: str, dataset: Dataset, labels: tuple[str, ...] | None = None) -> EvaluationPart:
    labels = labels or dataset.classes
    place = {label: index for index, label in enumerate(labels)}
    return EvaluationPart(
        name, dataset, labels, [place[dataset.classes[item.label]] for item in dataset.items]
    )


def _check_numbering(parts: Sequence[EvaluationPart]) -> None:
    """Raise UsageError where one list was read as counting the classes of two different splits."""
    read_as: dict[str, str] = {}
    for part in parts:
        data = part.dataset
        if data.counted and read_as.setdefault(data.list_hash, data.counted) != data.counted:
            raise UsageError(
                f"{data.list_name} numbers the classes of one split, so it cannot serve {part.name} and "
                f"{read_as[data.list_hash]} both. Give the split that it belongs to with --split."
            )


def _unknown_part(dataset: Dataset, labels: tuple[str, ...]) -> EvaluationPart:
    return EvaluationPart("unknown", dataset, labels, [-1] * len(dataset.items))


def describe_data(plan: Plan) -> list[dict[str, Any]]:
    """Describe everything about each part's list that moves a number; plain data for people and files."""
    return [
        {
            "part": part.name,
            "data": part.dataset.name,
            "split": part.dataset.split,
            "list": part.dataset.list_name,
            "format": part.dataset.list_format,
            "rows": part.dataset.list_rows,
            "hash": part.dataset.list_hash,
            "videos": len(part.items),
            "missing": part.dataset.missing,
            "missing_videos": part.dataset.missing_paths,
            "unmatched_labels": part.dataset.unmatched,
            "labels": len(part.labels),
            "labels_hash": labels_hash(part.labels),
            "classes": len(part.dataset.classes),
            "classes_without_videos": part.dataset.empty_classes,
            "notes": part.dataset.notes,
        }
        for part in plan.parts
    ]


def count_seen(plan: Plan, trained: Sequence[str]) -> tuple[int, int]:
    """Count the offered labels that are, by name, among the classes of a training; and those that are not."""
    matcher = NameMatcher(trained)
    offered = {label for part in plan.parts for label in part.labels}
    seen = sum(matcher.find(label) is not None for label in offered)
    return seen, len(offered) - seen


def setting(protocol: str, seen: int, unseen: int) -> str:
    """Name a result: plainly zero-shot only where none of the labels was a class of the model's training.

    The field's zero-shot numbers, of models that were trained on Kinetics, share some classes with it.
    """
    if protocol != "zero-shot" or not seen:
        return protocol
    return "zero-shot with some classes seen in training" if unseen else "classes seen in training"


def labels_hash(labels: Sequence[str]) -> str:
    """Hash the label names as prompts spell them, 16 hex digits of SHA-256: "yo yo" and "YoYo" differ."""
    return hashlib.sha256("\n".join(labels).encode()).hexdigest()[:16]


# --- parts to one number ------------------------------------------------------------------------------------


def combine(plan: Plan, results: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Combine the parts' numbers into the protocol's own (shares, not percent).

    zero-shot, few-shot: mean and spread (population standard deviation) over the splits. base-to-novel and
    generalised: the harmonic mean of the two parts' top-1. Of motion-shapes whole: each of its parts, and the
    harmonic mean among all labels.
    """
    top1 = {part.name: results[part.name]["top1"] for part in plan.parts if part.name in results}
    values = list(top1.values())
    if plan.protocol == "whole":
        among_all = harmonic_mean(top1["seen of all"], top1["unseen of all"])
        return {**top1, "harmonic_mean": among_all}
    if plan.protocol in ("base-to-novel", "generalised"):
        return {"seen": values[0], "unseen": values[1], "harmonic_mean": harmonic_mean(*values)}
    if plan.protocol in ("zero-shot", "few-shot"):
        return {"mean": float(np.mean(values)), "spread": float(np.std(values)), "splits": len(values)}
    return {"top1": values[0]} if values else {}


def comparable(results: dict[str, Any], published: dict[str, Any]) -> list[str]:
    """List the columns of the published table that a result compares with: zero-shot, same data, as many labels."""
    if not results["protocol"].startswith("zero-shot"):
        return []
    evaluated = {(entry["data"], entry["labels"]) for entry in results["lists"]}
    columns = zip(published["columns"], published["labels"], strict=True)
    return [column for column, labels in columns if evaluated == {(column, labels)}]


def published_rows(published: dict[str, Any], columns: Sequence[str]) -> list[list[str]]:
    """Make rows of method, backbone, its number in each of ``columns``, source."""
    places = [published["columns"].index(column) for column in columns]
    return [
        [row["method"], row["backbone"], *(f"{row['values'][place]:.1f}" for place in places), row["source"]]
        for row in published["rows"]
    ]


def published_numbers() -> dict[str, Any]:
    """Load the published table: ``columns`` (data sets), ``labels`` (how many in each), ``rows``, ``lists_note``.

    A row has a method, its backbone, values in percent and their source.
    """
    path = ASSETS / "published.yaml"
    numbers: dict[str, Any] = parse(path.read_text(encoding="utf-8"))
    return numbers
