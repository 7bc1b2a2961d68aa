"""``zsar train --prepare``: each video of a data set is copied once, small and with key frames close together.

Of such copies a clip is decoded in a quarter of the time. Beside them lie the lists of all splits and ``data.yaml``, a
definition that ``--data`` takes. ``prepared.jsonl`` has a line for each video: what became of it, or its error. A run
may be killed at any moment: a copy is there whole or not at all, and the same command goes on with what is missing.
"""

from __future__ import annotations

import json
import logging
import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zsar_cli import yaml_files
from zsar_cli.data.dataset import Dataset, load_dataset
from zsar_cli.data.definition import Definition, load_definition
from zsar_cli.errors import UsageError, VideoError
from zsar_cli.files import atomic_write, shortened, sweep
from zsar_cli.outputs import LineFile, Lock
from zsar_cli.run_log import NOTE
from zsar_cli.text.class_lists import list_names
from zsar_cli.text.labels import load_labels
from zsar_cli.video.address import is_remote, path_of, public
from zsar_cli.video.images import IMAGE_RATE
from zsar_cli.video.pool import DecodePool
from zsar_cli.video.reencode import ENDING, SIDE, Copied, CopyRequest, copy_video

logger = logging.getLogger(__name__)

LEDGER, DEFINITION, VIDEOS, ELSEWHERE = "prepared.jsonl", "data.yaml", "videos", "elsewhere"
TIMEOUT = 1800.0  # s for a video: an hour of 1080p takes some ten minutes
LONGEST_NAME = 200  # bytes
Progress = Callable[[int, str], AbstractContextManager[Callable[..., None]]]


@dataclass(frozen=True)
class DataSource:
    """A data set to prepare, as ``zsar train`` is told of it."""

    data: str
    root: str | None = None
    labels: str | None = None
    label_column: str | None = None


@dataclass
class Prepared:
    """What was made: copies in all, those made by this run, and the error of each video that has none."""

    definition: Path
    videos: int = 0
    new: int = 0
    size: int = 0  # bytes of all copies
    errors: dict[str, VideoError] = field(default_factory=dict)


def prepare(
    source: DataSource,
    folder: Path,
    *,
    workers: int,
    side: int = SIDE,
    max_missing: float = 0.1,
    progress: Progress = lambda total, what: nullcontext(lambda done: None),
) -> Prepared:
    """Copy the videos of a data set into ``folder``, with lists of its splits.

    Args:
        source: what to copy.
        folder: where to; an earlier run's is completed.
        workers: how many processes copy.
        side: pixels of the shorter side at most.
        max_missing: the share of the videos that may be missing or unreadable.
        progress: makes a context of the number of videos; it gives a function to call with how many more are done.

    Raises:
        UsageError: the data cannot be had, too much of them cannot be read, or the folder is not for this.
    """
    definition = load_definition(source.data)
    splits = _load_splits(definition, source)
    splits["train"].check_missing(max_missing)
    root = Path(source.root or definition.root or "")
    _check_folder(folder, root)
    folder = Path(os.path.abspath(folder))
    videos = sorted({path for split in splits.values() for path in _paths(split)})
    targets = _targets(videos, root)
    with ExitStack() as stack:
        stack.callback(_held(folder, definition.name, splits).close)
        ledger = LineFile(folder / LEDGER, lock=False)
        stack.callback(ledger.abandon)
        known = _whole_copies(ledger, folder, targets, side)
        made = Prepared(folder / DEFINITION, new=len(videos) - len(known))
        missing = [video for video in videos if video not in known]
        places = {(folder / targets[video]).parent for video in missing}
        for place in places:
            _make_folder(place)
            sweep(place)
        states: dict[str, list[int] | None] = {}
        advance = stack.enter_context(progress(len(videos), "videos"))
        advance(len(known))
        pool = stack.enter_context(DecodePool(workers, timeout=TIMEOUT, load=copy_video))

        def request(video: str) -> CopyRequest:
            states[video] = _state(video)  # before it is read
            return CopyRequest(video, folder / targets[video], side, IMAGE_RATE)

        for video, result in pool.imap(missing, request):
            if isinstance(result, VideoError) and result.kind == "output":
                raise UsageError(result.message)
            entry = {"source": public(video), **_outcome(result, targets[video], side, states.pop(video))}
            ledger.write((json.dumps(entry) + "\n").encode(), "Free some space, then repeat the command.")
            if isinstance(result, VideoError):
                made.errors[video] = result
                logger.error("%s is left out: %s", video, result)
            else:
                known[video] = result.size
            advance(1)
        for place in places:  # what a decoder left that crashed
            sweep(place)
        made.new -= len(made.errors)
        made.videos, made.size = len(known), sum(known.values())
        splits["train"].check_missing(max_missing, [v for v in _paths(splits["train"]) if v in made.errors])
        _write_lists(folder, definition, source, splits, {video: targets[video] for video in known})
    return made


def _load_splits(definition: Definition, source: DataSource) -> dict[str, Dataset]:
    """Load every split that is there; the one for training must be."""
    if definition.rendered:
        raise UsageError(f"{definition.name} is rendered, so there are no videos to prepare.")
    named = None if source.labels is None else load_labels(source.labels).names
    options: dict[str, Any] = {"classes": named, "label_column": source.label_column}
    found = {"train": load_dataset(source.data, source.root, split="train", **options)}
    for split in definition.splits:
        try:
            found.setdefault(split, load_dataset(source.data, source.root, split=split, **options))
        except UsageError as error:
            logger.log(NOTE, "No list of the split %s is made: %s", split, error)
    return found


def _check_folder(folder: Path, root: Path) -> None:
    """Refuse a folder that the data lie in or below: copies would be found among the videos."""
    mine, theirs = Path(os.path.realpath(folder)), Path(os.path.realpath(root))
    if mine == theirs or mine in theirs.parents or theirs in mine.parents:
        raise UsageError(f"{folder} and the data in {root} lie one in the other; choose another --prepare.")


def _held(folder: Path, data: str, splits: dict[str, Dataset]) -> Lock:
    """Make the folder, hold it for this run, and refuse one with other files of these names or another data set."""
    _make_folder(folder)
    names = (DEFINITION, VIDEOS, *(f"{name}.json" for name in _list_names(splits)))
    found = next((name for name in names if os.path.lexists(folder / name)), None)
    if found is not None and not (folder / LEDGER).is_file():
        raise UsageError(f"{folder / found} is of no earlier --prepare; choose another folder.")
    earlier = data
    with suppress(UsageError):  # there is none, or it is damaged and will be written anew
        earlier = load_definition(folder / DEFINITION).name
    if earlier != data:
        raise UsageError(f"{folder} holds the copies of {earlier}; choose another --prepare for {data}.")
    return Lock(folder)


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{folder} cannot be made: {error.strerror}. Choose another --prepare.") from error


def _targets(videos: Sequence[str], root: Path) -> dict[str, str]:
    """Choose the path of each copy, below the folder: as the video lies below the root."""
    targets: dict[str, str] = {}
    taken: set[str] = set()
    for video in videos:
        far = is_remote(video)
        path = Path(path_of(video)) if far else Path(os.path.relpath(video, root))
        if far or path.parts[0] == os.pardir:
            where = zlib.crc32(os.fsencode(os.path.dirname(public(video) if far else os.path.abspath(video))))
            path = Path(ELSEWHERE, f"{where:08x}", path.name)
        stem = path.name[: -len(ENDING)] if path.name.lower().endswith(ENDING) else path.name
        stem = shortened(os.fsencode(stem).decode("utf-8", "replace"), LONGEST_NAME)
        parent = os.fsencode(path.parent).decode("utf-8", "replace")
        name, number = f"{VIDEOS}/{parent}/{stem}", 1
        while (target := f"{name}{f'-{number}' if number > 1 else ''}{ENDING}").casefold() in taken:
            number += 1
        taken.add(target.casefold())
        targets[video] = Path(target).as_posix()
    return targets


# --- what was done already


def _whole_copies(ledger: LineFile, folder: Path, targets: dict[str, str], side: int) -> dict[str, int]:
    """Find the videos whose copies are whole and still theirs, with bytes; of others the ledger forgets the copy."""
    kept: dict[str, tuple[bytes, int]] = {}
    others: dict[str, bytes] = {}
    named = {public(video): video for video in targets}
    for line in ledger.lines():
        try:
            entry = json.loads(line)
            video = named.get(entry["source"])
            if video is None:  # of a list that has changed; its copy stays
                others[entry["source"]] = line
            elif "error" not in entry and _is_whole(entry, folder, video, targets[video], side):
                kept[video] = line, entry["bytes"]
            else:
                kept.pop(video, None)
        except (ValueError, TypeError, KeyError, OSError):  # cut off, or a copy that has gone
            continue
    ledger.rewrite([*others.values(), *(line for line, _ in kept.values())])
    return {video: size for video, (_, size) in kept.items()}


def _is_whole(entry: dict[str, Any], folder: Path, video: str, target: str, side: int) -> bool:
    made_so = [entry["video"], entry["side"], entry["state"], entry["bytes"]]
    return made_so == [target, side, _state(video), (folder / target).stat().st_size]


def _state(video: str) -> list[int] | None:
    """Give the size and the time of change of a video, or of a folder of images; None where it is gone."""
    if is_remote(video):
        return _object_state(video)
    try:
        status = os.stat(video)
    except OSError:
        return None
    return [status.st_size, status.st_mtime_ns]


def _object_state(url: str) -> list[int] | None:
    from zsar_cli.video.storage import state_of

    try:
        state = state_of(url)
    except VideoError:
        return None
    return [state.size or 0, zlib.crc32((state.tag or "").encode())]


def _outcome(result: Copied | VideoError, target: str, side: int, state: list[int] | None) -> dict[str, Any]:
    """Describe what became of a video, for the ledger."""
    if isinstance(result, VideoError):
        return {"error": {"kind": result.kind, "message": result.message}}
    found = {"video": target, "frames": result.frames, "duration": round(result.duration, 6)}
    warning = {"warning": result.warning} if result.warning else {}
    return {**found, "bytes": result.size, "side": side, "state": state, **warning}


# --- lists


def _write_lists(
    folder: Path,
    definition: Definition,
    source: DataSource,
    splits: dict[str, Dataset],
    copies: dict[str, str],
) -> None:
    """Write a list for each split, and the definition that names them."""
    lists: dict[str, str] = {}  # the name of each by its content: splits often share one
    for name, split in zip(_list_names(splits), splits.values(), strict=True):
        lists.setdefault(_list(split, copies), f"{name}.json")
    for content, file in lists.items():
        with atomic_write(folder / file) as aside:
            aside.write_text(content, encoding="utf-8")
    said: dict[str, Any] = {"name": definition.name, "root": "."}
    if (classes := _classes(definition, source, splits)) is not None:
        said["classes"] = classes
    said["splits"] = {
        name: {"lists": [lists[_list(split, copies)]], "format": "json"} for name, split in splits.items()
    }
    with atomic_write(folder / DEFINITION) as aside:
        aside.write_text(yaml_files.dump(said), encoding="utf-8")


def _list_names(splits: dict[str, Dataset]) -> list[str]:
    """Name the list of each split, as a file may be called."""
    plain = ["".join(x if x.isalnum() or x in "-_" else "_" for x in name)[:80] for name in splits]
    return [name if plain.count(name) == 1 else f"{name}_{n}" for n, name in enumerate(plain)]


def _list(split: Dataset, copies: dict[str, str]) -> str:
    labels = [*(split.classes[item.label] for item in split.items), *("none" for _ in split.of_none)]
    rows = zip(_paths(split), labels, strict=True)
    records = ({"video": copies[path], "label": label} for path, label in rows if path in copies)
    return "[" + ",\n".join(json.dumps(record, ensure_ascii=False) for record in records) + "]\n"


def _classes(
    definition: Definition, source: DataSource, splits: dict[str, Dataset]
) -> list[str] | str | None:
    """Name the classes as the data set had them: a built-in list, or all names; None where each split has its own."""
    if source.labels is None and definition.classes is not None and definition.classes.name in list_names():
        return definition.classes.name
    known = splits["train"].classes
    same = all(set(split.classes) <= set(known) for split in splits.values())
    return list(known) if same else None


def _paths(split: Dataset) -> Iterator[str]:
    """Yield the path of every video of a list: those of its classes, then those of none."""
    paths = (item.path for item in (*split.items, *split.of_none))
    return (path if is_remote(path) else os.path.abspath(path) for path in paths)
