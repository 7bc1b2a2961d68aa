"""Parts: the records of one shard in a file, and a manifest that says that it is complete.

A folder of parts holds ``part-00003-of-00008.jsonl`` and ``_manifest-00003-of-00008.json``; a part without its manifest
is not complete. Readers of whole folders, such as Spark and pyarrow, leave out names that begin with ``_``.
"""

from __future__ import annotations

import json
import os
import re
import shlex
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatch
from glob import has_magic
from typing import Any

from zsar_cli.errors import UsageError
from zsar_cli.prediction.differences import difference
from zsar_cli.prediction.places import AnyFolder, open_folder
from zsar_cli.prediction.record_file import NOT_COMPARED, Form
from zsar_cli.prediction.shards import Shard
from zsar_cli.seen import digest
from zsar_cli.video.address import is_remote

PART = re.compile(r"(part|_manifest|_unfinished)-(\d{5})-of-(\d{5})\.([a-z]+)")
LARGEST = 10_000_000  # bytes of a manifest


@dataclass
class Tally:
    """What a part holds."""

    videos: int = 0
    errors: Counter[str] = field(default_factory=Counter)  # videos that failed, by the kind of error
    _sum: int = 0

    def add(self, key: str, kind: str | None = None) -> None:
        """Count a video, by its name as the part spells it, and its kind of error."""
        self.videos += 1
        self._sum = (self._sum + int.from_bytes(digest(key), "big")) % 2**128
        if kind is not None:
            self.errors[kind] += 1

    @property
    def inputs(self) -> str:
        """A hash of the videos, whatever their order."""
        return f"{self._sum:032x}"


@dataclass(frozen=True)
class Manifest:
    """What is said of a complete part."""

    part: str  # its file's name
    size: int  # bytes
    videos: int
    errors: dict[str, int]
    inputs: str  # Tally.inputs
    made_with: dict[str, Any]

    def to_json(self, shard: Shard) -> bytes:
        """Write the manifest's file."""
        about = {
            "format": 1,
            "part": self.part,
            "shard": shard.index,
            "shards": shard.count,
            "bytes": self.size,
            "videos": self.videos,
            "failed": sum(self.errors.values()),
            "errors": self.errors,
            "inputs": self.inputs,
            "made_with": self.made_with,
        }
        return (json.dumps(about, indent=1) + "\n").encode()


def manifest_name(shard: Shard) -> str:
    """Name the manifest of a shard."""
    return shard.part.replace("part", "_manifest", 1) + ".json"


def read_manifest(folder: AnyFolder, shard: Shard) -> Manifest | None:
    """Read the manifest of a shard; None where there is none.

    Raises:
        UsageError: it cannot be read, or is none of this program.
    """
    content = read_content(folder, shard)
    return None if content is None else parse_manifest(content, folder, shard)


def read_content(folder: AnyFolder, shard: Shard) -> bytes | None:
    """Read the bytes of a shard's manifest; None where there is none."""
    return folder.read(manifest_name(shard), LARGEST)


def parse_manifest(content: bytes, folder: AnyFolder, shard: Shard) -> Manifest:
    """Parse the manifest of a shard, which lies in this folder.

    Raises:
        UsageError: it is none of this program.
    """
    from zsar_cli.schemas import ManifestFile, check  # --help does not wait for it

    where, way_out = f"{folder}/{manifest_name(shard)}", f"Remove it, and start shard {shard} again."
    try:
        said = check(ManifestFile, json.loads(content), where)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{where} is damaged. {way_out}") from error
    except UsageError as error:
        raise UsageError(f"{error} {way_out}") from error
    kind = PART.fullmatch(said.part)
    if kind is None or said.part != f"{shard.part}.{kind[4]}":
        raise UsageError(f"{where} is not the manifest of {shard.part}. {way_out}")
    return Manifest(said.part, said.bytes, said.videos, dict(said.errors), said.inputs, said.made_with)


@dataclass(frozen=True)
class Listing:
    """The names in a folder of parts."""

    count: int | None  # of shards; None where there are no parts
    manifests: tuple[Shard, ...]
    unfinished: tuple[Shard, ...]


def list_parts(folder: AnyFolder) -> Listing:
    """List what a folder has of parts.

    Raises:
        UsageError: it has parts of several numbers of shards.
    """
    found = [match for name in folder.names() if (match := PART.fullmatch(name))]
    counts = sorted({int(match[3]) for match in found})
    if len(counts) > 1:
        raise UsageError(
            f"{folder} holds parts of {counts[0]} shards and parts of {counts[1]}; keep them in different folders."
        )
    shards: dict[str, set[Shard]] = {"part": set(), "_manifest": set(), "_unfinished": set()}
    for match in found:
        shards[match[1]].add(Shard(int(match[2]), int(match[3])))
    complete = shards["_manifest"]
    rest = (shards["part"] | shards["_unfinished"]) - complete

    def in_order(some: set[Shard]) -> tuple[Shard, ...]:
        return tuple(sorted(some, key=lambda shard: shard.index))

    return Listing(counts[0] if counts else None, in_order(complete), in_order(rest))


def refuse_parts(given: str) -> None:
    """Raise UsageError, which names ``--merge``, for a folder or a pattern of parts in place of videos."""
    place, pattern = given, "*"
    if has_magic(given) and not os.path.lexists(given):
        place, _, pattern = given.rpartition("/")
    place = place or ("/" if given.startswith("/") else ".")
    if not (is_remote(place) or os.path.isdir(place)):
        return
    folder = open_folder(place)
    try:
        names = [name for name in folder.names() if fnmatch(name, pattern) and not name.startswith(".")]
    except UsageError:  # said when it is searched for videos
        return
    if all(PART.fullmatch(name) or name.startswith("_") for name in names) and any(
        map(PART.fullmatch, names)
    ):
        raise UsageError(
            f"{folder} holds parts of zsar predict --shard, which are answers and no videos; join them by zsar predict "
            f"--merge {shlex.quote(str(folder))} --output answers.jsonl."
        )


def refuse_other_settings(
    folder: AnyFolder,
    first: tuple[str, Mapping[str, Any]],
    other: tuple[str, Mapping[str, Any]],
    way_out: str,
) -> None:
    """Raise UsageError that names what differs between the settings of two parts, or of a part and this run."""
    changed = difference(dict(first[1]), dict(other[1]), NOT_COMPARED, here=other[0])
    if changed:
        raise UsageError(f"{folder}/{first[0]} was made with {changed}. {way_out}")


def count_lines(form: Form, lines: Iterable[bytes]) -> Tally:
    """Count the records of a file that grows."""
    tally = Tally()
    for part in form.parts(lines):
        stored = form.read(part)
        if stored is not None:
            tally.add(stored.key, stored.kind)
    return tally
