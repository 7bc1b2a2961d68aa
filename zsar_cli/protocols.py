"""The field's evaluation protocols: which videos against which labels, and how the parts make one number."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from zsar_cli.data.classes import NameMatcher
from zsar_cli.data.definitions import Dataset, Item, load_dataset, load_definition, load_motion_shapes
from zsar_cli.data.splits import SYNONYMS, few_shot
from zsar_cli.errors import UsageError
from zsar_cli.metrics import harmonic_mean

logger = logging.getLogger(__name__)

PROTOCOLS = ("zero-shot", "base-to-novel", "generalised", "few-shot", "open-set")
SHOTS = (2, 4, 8, 16)
THIRDS: tuple[str, ...] = ("test1", "test2", "test3")


@dataclass
class Part:
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
    parts: list[Part]
    notes: list[str] = field(default_factory=list)
    few_shot_lists: dict[int, list[str]] = field(default_factory=dict)  # K -> "path,label" lines


@dataclass(frozen=True)
class Source:
    """Where a data set comes from: what the user named, and overrides."""

    data: str
    root: str | None = None
    list_file: str | None = None
    classes: tuple[str, ...] | None = None

    def load(self, split: str = "test", subset: str | None = None) -> Dataset:
        """One of its lists, with one of its class splits."""
        return load_dataset(
            self.data,
            _own_folder(self.root, self.data),
            split=split,
            subset=subset,
            list_file=self.list_file,
            classes=self.classes,
        )


def _own_folder(root: str | None, data: str) -> str | None:
    """A root that holds several data sets has a folder of each one's name."""
    if root is not None and (Path(root) / data).is_dir():
        return str(Path(root) / data)
    return root


def make_plan(
    source: Source,
    protocol: str | None = None,
    split: str | None = None,
    *,
    unknown: Source | None = None,
    shots: Sequence[int] = SHOTS,
    seed: int = 0,
) -> Plan:
    """The parts of an evaluation. UsageError where the data set does not have what the protocol needs.

    Without a protocol: ``split`` alone if given; else the usual one of the data set.
    """
    if protocol is not None and protocol not in PROTOCOLS:
        raise UsageError(f"Unknown protocol {protocol!r}. Choose from: {', '.join(PROTOCOLS)}.")
    definition = load_definition(source.data)
    if definition.rendered:
        return _plan_rendered(protocol, split)
    splits = definition.classes.splits if definition.classes else {}
    lists: list[str] = [name for name in THIRDS if name in definition.splits] or ["test"]
    if source.list_file is not None:
        lists = lists[:1]
    single = lists[0]
    if protocol is None:
        if split is not None:
            name, parts = "split", [_part(split, *_named(source, split, definition.splits, single))]
            return Plan(name, definition.name, parts)
        protocol = "zero-shot"
    if protocol in ("zero-shot", "few-shot"):
        subsets: list[str] = [s for s in splits if s.startswith("split")] if split is None else [split]
        if split is None and subsets and source.list_file is not None:
            counted = source.load(single).counted  # a list of one split's own says which, or this asks for it
            subsets = [counted] if counted in subsets else subsets
        if split in definition.splits:
            lists, subsets = [str(split)], []
        own: list[str | None] = [*subsets] or [None]
        pairs = [(name, subset) for name in lists for subset in own]
        parts = [_part(subset or name, source.load(name, subset)) for name, subset in pairs]
        _check_numbering(parts)
        plan = Plan(protocol, definition.name, parts)
        if protocol == "few-shot":
            train = source.load("train1" if "train1" in definition.splits else "train")
            for count in shots:
                chosen = few_shot(train.items, [item.label for item in train.items], count, seed=seed)
                plan.few_shot_lists[count] = [f"{item.listed},{train.classes[item.label]}" for item in chosen]
        return plan
    if protocol == "open-set":
        if unknown is None:
            raise UsageError(
                "open-set needs videos of unknown classes: name a data set with --unknown (hmdb51 for ucf101)."
            )
        known = source.load(single, split)
        others = load_definition(unknown.data)
        stranger = unknown.load("test1" if "test1" in others.splits else "test")
        plan = Plan(
            protocol, definition.name, [_part("known", known), _unknown_part(stranger, known.classes)]
        )
        matcher = NameMatcher(known.classes)
        shared = [name for name in stranger.classes if matcher.find(name) is not None]
        if shared:
            plan.notes.append(
                f"{len(shared)} unknown classes have a known one's name ({', '.join(shared[:5])}) and stay in"
            )
        return plan
    halves = ("base", "novel")
    if not all(half in splits for half in halves):
        raise UsageError(f"{definition.name} has no base and novel classes, which {protocol} needs.")
    sets = [source.load(single, half) for half in halves]
    together = sets[0].classes + sets[1].classes if protocol == "generalised" else None
    parts = [_part(half, data, together) for half, data in zip(halves, sets, strict=True)]
    _check_numbering(parts)
    return Plan(protocol, definition.name, parts)


def _named(source: Source, split: str, lists: Any, single: str) -> tuple[Dataset]:
    """``--split`` names a class split ("base", "unseen", "all") or one of the data set's lists ("test2")."""
    return (source.load(split) if split in lists and split != "all" else source.load(single, split),)


def _plan_rendered(protocol: str | None, split: str | None) -> Plan:
    from zsar_cli.data import motion_shapes

    back = {value: key for key, value in SYNONYMS.items()}
    name = back.get(split or "", split)
    everything = motion_shapes.class_labels("all")
    if protocol == "open-set":
        known = load_motion_shapes(name or "unseen")
        parts = [_part("known", known), _unknown_part(load_motion_shapes("neither"), known.classes)]
        return Plan(protocol, "motion-shapes", parts)
    if protocol == "generalised" or (protocol is None and name == "all"):
        parts = [_part(s, load_motion_shapes(s), everything) for s in ("seen", "unseen")]
        return Plan("generalised", "motion-shapes", parts)
    if protocol == "few-shot":
        raise UsageError(
            "motion-shapes has no few-shot protocol: it renders as many training clips as are asked for."
        )
    if name is None:
        parts = [_part(s, load_motion_shapes(s)) for s in ("seen", "unseen")]
        return Plan(protocol or "base-to-novel", "motion-shapes", parts)
    return Plan("split", "motion-shapes", [_part(name, load_motion_shapes(name))])


def _part(name: str, dataset: Dataset, labels: tuple[str, ...] | None = None) -> Part:
    labels = labels or dataset.classes
    place = {label: index for index, label in enumerate(labels)}
    return Part(name, dataset, labels, [place[dataset.classes[item.label]] for item in dataset.items])


def _check_numbering(parts: Sequence[Part]) -> None:
    """UsageError where one list was read as counting the classes of two different splits."""
    read_as: dict[str, str] = {}
    for part in parts:
        data = part.dataset
        if data.counted and read_as.setdefault(data.list_hash, data.counted) != data.counted:
            raise UsageError(
                f"{data.list_name} numbers the classes of one split, so it cannot serve {part.name} and "
                f"{read_as[data.list_hash]} both. Give the split that it belongs to with --split."
            )


def _unknown_part(dataset: Dataset, labels: tuple[str, ...]) -> Part:
    return Part("unknown", dataset, labels, [-1] * len(dataset.items))


def describe_data(plan: Plan) -> list[dict[str, Any]]:
    """Everything about each part's list that moves a number; plain data for people and files."""
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
            "first_missing": part.dataset.missing_paths[:5],
            "unmatched_labels": part.dataset.unmatched,
            "labels": len(part.labels),
            "classes_without_videos": len(part.dataset.empty_classes),
            "notes": part.dataset.notes,
        }
        for part in plan.parts
    ]


# --- parts to one number ------------------------------------------------------------------------------------


def combine(plan: Plan, results: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The protocol's own numbers from those of its parts (shares, not percent).

    zero-shot, few-shot: mean and spread (population standard deviation) over the splits. base-to-novel and
    generalised: the harmonic mean of the two parts' top-1.
    """
    top1 = [results[part.name]["top1"] for part in plan.parts if part.name in results]
    if plan.protocol in ("base-to-novel", "generalised") and len(top1) == 2:
        return {"seen": top1[0], "unseen": top1[1], "harmonic_mean": harmonic_mean(*top1)}
    if plan.protocol in ("zero-shot", "few-shot"):
        return {"mean": float(np.mean(top1)), "spread": float(np.std(top1)), "splits": len(top1)}
    return {"top1": top1[0]} if top1 else {}


def published_numbers() -> dict[str, Any]:
    """``columns`` (data sets) and ``rows`` (method, backbone, values in percent, source)."""
    path = Path(__file__).parent / "data" / "published.yaml"
    return yaml.safe_load(path.read_text(encoding="utf-8"))
