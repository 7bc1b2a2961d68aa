"""Definitions of data sets: built-in by name, a YAML file, a list or a folder of one's own."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from zsar_cli import yaml_files
from zsar_cli.errors import UsageError
from zsar_cli.errors import shown as quoted
from zsar_cli.files import ASSETS, existing
from zsar_cli.text.class_lists import ClassList, class_list, list_names, normalise_name
from zsar_cli.text.labels import clean_names, load_labels
from zsar_cli.video.find import folders_in, why_unread

SETS = ASSETS / "datasets"
# What people call the data sets, and the folders they keep them in, besides their names.
ALIASES = {
    "k400": "kinetics400",
    "k600": "kinetics600",
    "hmdb": "hmdb51",
    "ucf": "ucf101",
    "sthv2": "ssv2",
    "somethingsomethingv2": "ssv2",
    "20bnsomethingsomethingv2": "ssv2",
}
TRAIN_FOLDERS, TEST_FOLDERS = ("train", "training"), ("test", "testing")
VALIDATION = ("val", "valid", "validation")  # folders, and names of a definition's splits


@dataclass(frozen=True)
class Split:
    """Where a split's list may be: file names (or patterns) below the root, then folders with one a class."""

    lists: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()
    format: str = "auto"
    fold: int = 1
    label_column: str | None = None  # of a list with several columns


@dataclass(frozen=True)
class Definition:
    """A data set's definition; the built-in ones and a user's own file have the same form."""

    name: str
    classes: ClassList | None  # None: whatever the labels name
    splits: dict[str, Split]
    subsets: dict[str, tuple[str, ...]] = field(default_factory=dict)  # lists of a subset's own
    root: str | None = None
    page: str | None = None
    rendered: bool = False

    @property
    def validation(self) -> str | None:
        """The split that is there to choose a model by; None where the data set has none."""
        return next((name for name in VALIDATION if name in self.splits), None)

    @property
    def has_test(self) -> bool:
        """Tell whether its test videos are neither those of training nor those that choose a model."""
        others = [self.splits.get(name) for name in ("train", self.validation or "")]
        return self.rendered or self.splits.get("test") not in others


def dataset_names() -> list[str]:
    """List the built-in definitions."""
    return sorted(path.stem for path in SETS.glob("*.yaml"))


def load_definition(spec: str | Path) -> Definition:
    """Load a definition: a built-in name, a YAML file, an annotation file, or a folder with one folder a class."""
    path = existing(spec)
    if (known := known_name(str(spec))) is not None:
        return _parse(SETS / f"{known}.yaml")
    if path is not None and path.is_dir():
        return _folder_definition(path.resolve())
    if path is not None and path.is_file():
        if path.suffix.lower() in (".yaml", ".yml"):
            return _parse(path)
        only = Split(lists=(str(path.resolve()),))
        return Definition(path.stem, None, {"train": only, "test": only}, root=str(path.parent))
    if why := why_unread(str(spec)):
        raise UsageError(f"{spec}: {why}.")
    raise UsageError(
        f"{str(spec)[:200]} is neither a built-in data set ({', '.join(dataset_names())}) nor a file or folder. "
        "Check the name or path."
    )


def known_name(spec: str) -> str | None:
    """Find the built-in data set that a name means ("UCF-101" and "ucf" are ucf101), or None."""
    names = {normalise_name(name): name for name in dataset_names()}
    return names.get(normalise_name(spec)) or ALIASES.get(normalise_name(spec))


def _folder_definition(path: Path) -> Definition:
    """Define folders a class, or such folders in one for training, one for testing, one to choose a model by."""
    inside = {name.lower(): path / name for name in folders_in(path)}
    if inside and set(inside) <= {*TRAIN_FOLDERS, *TEST_FOLDERS, *VALIDATION}:
        filled = {name: entry for name, entry in inside.items() if folders_in(entry)}
        splits = {name: Split(folders=(str(entry),)) for name, entry in (filled or inside).items()}
        for purpose, names in (("train", TRAIN_FOLDERS), ("test", (*TEST_FOLDERS, *VALIDATION))):
            own = next((name for name in names if name in splits), None)
            if own is not None:
                splits[purpose] = splits[own]
        return Definition(path.name, _classes_of_training(path.name, splits), splits, root=str(path))
    splits = dict.fromkeys(("train", "test"), Split(folders=(str(path),)))
    return Definition(path.name, None, splits, root=str(path))


def _classes_of_training(name: str, splits: dict[str, Split]) -> ClassList | None:
    """List the classes of train/ where the other folders have some of them: a test that lacks a class is among all.

    None where another folder has classes of its own: it is then tested among these, zero-shot.
    """
    names = {
        split: [name for name in folders_in(place.folders[0]) if any(Path(place.folders[0], name).iterdir())]
        for split, place in splits.items()
    }
    known = names.get("train", [])
    return ClassList(name, tuple(known)) if all(set(own) <= set(known) for own in names.values()) else None


def _parse(path: Path) -> Definition:
    from zsar_cli.schemas import DefinitionFile, check

    root = yaml_files.read(path)
    said = check(DefinitionFile, yaml_files.content(root, path), str(path), yaml_files.line_in(root))
    splits = {
        name: Split(
            tuple(_local(path, entry) for entry in split.lists),
            split.folders,
            split.format or said.format or "auto",
            split.fold,
            split.label_column,
        )
        for name, split in (said.splits or {}).items()
    }
    folder = None
    if said.root is not None:
        try:
            folder = str((path.parent / Path(said.root).expanduser()).resolve())
        except (OSError, RuntimeError):  # RuntimeError: ~nobody
            raise UsageError(f"{path}: root must be the path of a folder, not {quoted(said.root)}.") from None
    classes = _parse_classes(path, said.classes)
    return Definition(said.name, classes, splits, said.subsets or {}, folder, said.page, said.rendered)


def _local(definition: Path, entry: str) -> str:
    """Find a list beside its definition; else it is looked for below the root."""
    beside = definition.parent / entry
    return str(beside.resolve()) if os.path.exists(beside) and definition.parent != SETS else entry


def _parse_classes(path: Path, said: list[str] | str | None) -> ClassList | None:
    if said is None:
        return None
    if isinstance(said, list):
        return ClassList(path.stem, clean_names((name, f"{path}, classes") for name in said))
    if os.path.isfile(path.parent / said):
        return ClassList(path.stem, load_labels(str(path.parent / said)).names)
    if normalise_name(said) in map(normalise_name, list_names()):
        return class_list(said)
    raise UsageError(
        f"{path}: classes {quoted(said)} is neither a list, a file beside it, nor a built-in class list."
    )
