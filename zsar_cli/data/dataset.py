"""Data sets as they lie on disk: the list is found and read, its classes are matched, its videos are found."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path, PurePath
from types import ModuleType

from zsar_cli.data import motion_shapes
from zsar_cli.data.annotations import Listing, read_listing, rows_hash
from zsar_cli.data.definition import Definition, Split, known_name, load_definition
from zsar_cli.data.label_ids import UCF_NAME, read_numbers
from zsar_cli.data.rows import Row
from zsar_cli.data.splits import SYNONYMS
from zsar_cli.data.video_index import VideoIndex
from zsar_cli.errors import UsageError
from zsar_cli.files import existing
from zsar_cli.text.class_lists import ClassList, NameMatcher
from zsar_cli.text.labels import NONE_OF_THESE
from zsar_cli.video.address import is_remote, public
from zsar_cli.video.find import folders_in, why_unread

SEVERAL = "more than one label"
NONE = ("none", NONE_OF_THESE)  # labels of a list for videos that show none of its classes


@dataclass(frozen=True)
class Item:
    """One labelled video: ``label`` indexes the data set's classes, ``listed`` is the path its list gives."""

    path: str
    label: int
    listed: str = ""
    num_frames: int | None = None


@dataclass
class Dataset:
    """Labelled videos that exist, and everything about the list that a result must name."""

    name: str
    classes: tuple[str, ...]
    items: list[Item]
    list_name: str
    list_rows: int
    list_hash: str
    missing: int = 0
    notes: list[str] = field(default_factory=list)
    split: str = "test"
    list_format: str = "auto"
    missing_paths: list[str] = field(default_factory=list)
    unmatched: dict[str, int] = field(default_factory=dict)  # labels that name no class, and their rows
    counted: str = ""  # "all" or the split whose classes the list's numbers count; "" where it has none
    of_none: list[Item] = field(default_factory=list)  # videos that the list says show none of the classes
    # Of each class: a clip is told from the classes of its own group only. Empty where they all exclude each other
    groups: tuple[str, ...] = ()
    phrasings: dict[str, tuple[str, ...]] = field(default_factory=dict)  # what else people call a class

    @property
    def empty_classes(self) -> list[str]:
        """Classes that no existing video shows."""
        filled = {item.label for item in self.items}
        return [name for index, name in enumerate(self.classes) if index not in filled]

    @property
    def missing_share(self) -> float:
        """Listed videos that are not there or have no class, of all that should be evaluated."""
        lost = self.missing + sum(self.unmatched.values())
        return lost / max(1, lost + len(self.items))

    def check_missing(self, limit: float, unreadable: Sequence[str] = ()) -> None:
        """Raise UsageError where more than ``limit`` (a share) of the listed videos cannot be used, or none can."""
        unknown = sum(self.unmatched.values())
        lost = self.missing + unknown + len(unreadable)
        listed = self.missing + unknown + len(self.items)
        if lost < listed and lost <= limit * listed:
            return
        parts = []
        if self.missing:
            why = why_unread(self.missing_paths[0])
            parts.append(
                f"{self.missing} are missing (such as {self.missing_paths[0]}{f': {why}' if why else ''})"
            )
        several = self.unmatched.get(SEVERAL, 0)
        if several:
            parts.append(f"{several} have more than one label (select one with --label-column)")
        if unknown > several:
            odd = next(label for label in self.unmatched if label != SEVERAL)
            parts.append(f"{unknown - several} have an unknown label (such as {odd!r})")
        if unreadable:
            parts.append(f"{len(unreadable)} cannot be read (such as {unreadable[0]})")
        found = " and ".join(parts) or "none shows one of these classes"
        raise UsageError(
            f"{self.name}: of {listed} videos in {self.list_name}, {found}. Check --data-root, or raise --max-missing."
        )


def load_dataset(
    spec: str | Path,
    root: str | Path | None = None,
    *,
    split: str = "test",
    subset: str | None = None,
    list_file: str | Path | None = None,
    classes: Sequence[str] | None = None,
    label_column: str | None = None,
) -> Dataset:
    """Find and read a data set as it lies on disk.

    Args:
        spec: what :func:`load_definition` takes.
        root: the folder that holds the videos (and lists), or several data sets in a folder each; not needed for
            motion-shapes.
        split: which list: "test", "train", or one of a definition's own ("test1", "full", ...).
            For motion-shapes one of its splits.
        subset: keep only the classes of a named split ("base", "novel", "seen", "unseen", "split1", ...).
        list_file: an annotation file to use instead of those of the definition.
        classes: the class names, where the definition has none.
        label_column: name or number (from 1) of the list's column with the label, where it has several.

    Raises:
        UsageError: no root, no list or no classes; it says where it looked.
    """
    definition = load_definition(spec)
    if definition.rendered:
        load = load_scenes if definition.name == "scenes" else load_motion_shapes
        return load(subset or ("seen" if split == "test" else split))
    known = ClassList(definition.name, tuple(classes)) if classes else definition.classes
    folder = existing(root or definition.root or "") or Path(root or definition.root or "")
    if root is None and definition.root is None:
        raise UsageError(
            f"{definition.name} needs the folder with its videos: give --data-root or set ZSAR_DATA_ROOT."
        )
    if not folder.is_dir():
        raise UsageError(f"The data root {folder} is not a folder. Check --data-root or ZSAR_DATA_ROOT.")
    subset = _subset_name(known, subset)
    if list_file is None and split not in definition.splits:
        raise UsageError(f"{definition.name} has no split {split!r}. It has: {', '.join(definition.splits)}.")
    data = None
    for place in (*_own_folders(folder, definition.name), folder):
        index = VideoIndex(place)
        found = _find_listing(definition, index, split, subset, list_file, label_column)
        if found is not None:
            listing, base = found
            data = _resolve(definition.name, listing, index.within(base), known, subset, split)
            if data.items:
                return data
    if data is None:
        raise UsageError(_nothing_found(definition, folder, split, subset))
    return data


def _own_folders(root: Path, name: str) -> list[Path]:
    """Find the folders of a root of several data sets that bear this one's name."""
    return [root / folder for folder in folders_in(root) if known_name(folder) == name]


def load_motion_shapes(split: str) -> Dataset:
    """List a split of motion-shapes: ``train``, ``seen``, ``unseen``, ``shifted``, ``neither``; not rendered yet.

    Item paths read ``motion-shapes:SPLIT/LABEL/INDEX``.
    """
    return _rendered("motion-shapes", split, motion_shapes)


def load_scenes(split: str) -> Dataset:
    """List a split of scenes: ``train``, ``camera``, ``subject``, ``seen``, ``unseen``; not rendered yet.

    Training clips are those of motion-shapes too, as a group of classes of its own, so that one model learns both.
    Item paths read ``scenes:SPLIT/LABEL/INDEX``.
    """
    from zsar_cli.data.scenes import classes as scenes
    from zsar_cli.data.scenes.phrases import phrasings

    data = _rendered("scenes", split, scenes)
    kinds = scenes.split_classes(split)
    data.groups = tuple(kind.group for kind in kinds)
    data.phrasings = {kind.label: phrasings(kind.label) for kind in kinds}
    if split == "train":
        shapes, count = load_motion_shapes("train"), len(data.classes)
        data.items += [replace(item, label=item.label + count) for item in shapes.items]
        data.list_rows, data.list_hash = len(data.items), f"{data.list_hash}+{shapes.list_hash}"
        data.classes += shapes.classes
        data.groups += ("shapes",) * len(shapes.classes)
    return data


def _rendered(name: str, split: str, module: ModuleType) -> Dataset:
    """List a split of clips that ``module`` renders."""
    if split not in module.SPLITS:
        raise UsageError(f"{name} has no split {split!r}. It has: {', '.join(module.SPLITS)}.")
    names, items, digest = _rendered_list(name, split, module, module.CLIPS_PER_CLASS.get(split))
    listing = f"{name} {split}"
    return Dataset(name, names, list(items), listing, len(items), digest, split=split, list_format="rendered")


@cache
def _rendered_list(
    name: str, split: str, module: ModuleType, per_class: int | None
) -> tuple[tuple[str, ...], tuple[Item, ...], str]:
    """List the classes of a rendered split, its clips (``per_class`` of each), and the hash of that list."""
    names = tuple(kind.label for kind in module.split_classes(split))
    index = {label: number for number, label in enumerate(names)}
    rows = [Row(f"{name}:{split}/{label}/{i}", label) for label, i in module.clip_ids(split)]
    items = tuple(Item(row.path, index[str(row.label)], row.path) for row in rows)
    return names, items, rows_hash(rows)


def _find_listing(
    definition: Definition,
    index: VideoIndex,
    split: str,
    subset: str | None,
    list_file: str | Path | None,
    label_column: str | None,
) -> tuple[Listing, Path] | None:
    """Find the list to use, and the folder its paths start from; None where there is none."""
    purpose = "train" if split.startswith("train") else "all" if split == "full" else "test"
    chosen = definition.splits.get(split, Split())

    def read(path: str | Path) -> Listing:
        return read_listing(
            path,
            format=chosen.format,
            split=purpose,
            fold=chosen.fold,
            kind=index.kind,
            label_column=label_column or chosen.label_column,
        )

    if list_file is not None:
        return read(list_file), index.root
    for pattern in _lists_of(definition, split, subset):
        found = Path(pattern) if Path(pattern).is_absolute() else index.find_list(pattern)
        if found is not None and found.exists():
            hmdb = re.search(r"_test_split[123]\.txt$", found.name)
            source = found.parent if hmdb else found
            return read(source), index.root
    for name in chosen.folders:
        folder = index.root / name
        if folder.is_dir() and folders_in(folder):
            return read_listing(folder, format="folders"), folder
    return None


def _lists_of(definition: Definition, split: str, subset: str | None) -> tuple[str, ...]:
    """Name the lists that a split's videos may be in; a subset of the test videos may have its own."""
    own = () if split.startswith("train") else definition.subsets.get(subset or "", ())
    return (*own, *definition.splits[split].lists)


def _nothing_found(definition: Definition, root: Path, split: str, subset: str | None) -> str:
    folders = (f"{name}/CLASS/VIDEO" for name in definition.splits[split].folders)
    looked = [*_lists_of(definition, split, subset), *folders]
    hint = f" (see {definition.page})" if definition.page else ""
    return (
        f"{definition.name}: no list of its {split} videos below {root}. Looked there, and in a folder "
        f"{definition.name}/, for {', '.join(looked)}; put one there, or name yours in a YAML definition{hint}."
    )


def _subset_name(known: ClassList | None, subset: str | None) -> str | None:
    """Find the split's own name ("seen" is base); None and "all" stay."""
    if subset in (None, "all"):
        return subset
    splits = known.splits if known else {}
    name = str(subset) if subset in splits else SYNONYMS.get(str(subset), str(subset))
    if name not in splits:
        raise UsageError(
            f"There is no split {subset!r} of these classes. There are: {', '.join(['all', *splits])}."
        )
    return name


def _find(index: VideoIndex, row: Row, class_name: str, exact: bool) -> str | None:
    if is_remote(row.path):
        return row.path
    path = index.find(row.path, class_name, frames=row.frame_count is not None, exact=exact)
    return None if path is None else str(path)


def _resolve(
    name: str,
    listing: Listing,
    index: VideoIndex,
    known: ClassList | None,
    subset: str | None,
    split: str,
) -> Dataset:
    notes = [f"{listing.name} read as {listing.format!r}", *listing.notes]
    rows = [
        row if row.label is not None else replace(row, label=_label_from_path(row)) for row in listing.rows
    ]
    numbered = any(isinstance(row.label, int) for row in rows)
    rows, of_none = _part_none(rows, listing.format, known)
    if known is None:
        if numbered:
            raise UsageError(
                f"{listing.name} has numeric labels: give the class names, in the order of the numbers, with "
                "--labels, or as classes: in a YAML definition."
            )
        names = {str(row.label) for row in rows if row.label is not None}
        known = ClassList(name, tuple(sorted(each for each in names if each.strip())))
    matcher = NameMatcher(known.names, known.aliases)
    list_name = f"{listing.folder}/{listing.name}"
    numbers = read_numbers(rows, known, subset=subset, list_name=list_name, matcher=matcher)
    notes += numbers.notes
    classes = known.splits[subset] if subset not in (None, "all") else known.names
    place = {class_name: number for number, class_name in enumerate(classes)}
    items: list[Item] = []
    missing: list[str] = []
    unmatched: Counter[str] = Counter()
    elsewhere = 0
    for row in rows:
        if row.others:
            unmatched[SEVERAL] += 1  # no single right answer: not one to be guessed
            continue
        if isinstance(row.label, int):
            class_name = numbers.classes.get(row.label)
        else:
            found = matcher.find(row.label) if row.label is not None else None
            class_name = None if found is None else known.names[found]
        if class_name is None:
            unmatched[str(row.label)] += 1
            continue
        if class_name not in place:
            continue  # a class outside the wanted subset
        exact = listing.format == "folders"
        path = _find(index, row, class_name, exact)
        if path is None:
            missing.append(row.path)
            continue
        folder = matcher.find(PurePath(path).parent.name)
        elsewhere += folder is not None and known.names[folder] != class_name
        items.append(Item(path, place[class_name], public(row.path), row.frame_count))
    if elsewhere:
        notes.append(f"{elsewhere} videos are in the folder of another class than their label")
    nothing: list[Item] = []
    for row in of_none:
        path = _find(index, row, "", False)
        if path is None:
            missing.append(row.path)
        else:
            nothing.append(Item(path, -1, public(row.path), row.frame_count))
    return Dataset(
        name,
        classes,
        items,
        listing.name,
        len(listing.rows),
        listing.hash,
        len(missing),
        notes,
        split,
        listing.format,
        missing,
        dict(unmatched),
        numbers.order,
        nothing,
    )


def _part_none(rows: list[Row], format: str, known: ClassList | None) -> tuple[list[Row], list[Row]]:
    """Part the rows of classes from those that a list marks with "none", unless a folder or a class has that name."""
    if format == "folders" or (known is not None and any(name.casefold() in NONE for name in known.names)):
        return rows, []
    marked = [isinstance(row.label, str) and row.label.casefold() in NONE and not row.others for row in rows]
    return (
        [row for row, none in zip(rows, marked, strict=True) if not none],
        [row for row, none in zip(rows, marked, strict=True) if none],
    )


def none_line(data: Dataset) -> str:
    """Count the videos that a list marks as none of its classes, in words."""
    count = len(data.of_none)
    return f"{count} {'video' if count == 1 else 'videos'} of {data.list_name} marked none"


def _label_from_path(row: Row) -> str | None:
    """Read the class off a path without a label: its folder, or UCF101's way of naming files."""
    path = Path(row.path)
    match = UCF_NAME.match(path.stem)
    return match[1] if match else path.parent.name or None
