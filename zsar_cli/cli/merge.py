"""``zsar predict --merge PARTS``: the parts of shards as one file, each video once, and what is missing."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import typer

from zsar_cli.cli.convert import refuse_options
from zsar_cli.cli.output.csv_file import CsvRows
from zsar_cli.cli.output.destination import check_destination
from zsar_cli.cli.output.formats import Columns, Format
from zsar_cli.cli.output.sink import GROWING, SUBTITLES, Target, form_of, format_of, open_sink
from zsar_cli.cli.predict_options import Asked
from zsar_cli.cli.run_lines import counted
from zsar_cli.errors import UsageError
from zsar_cli.files import atomic_write
from zsar_cli.outputs import Lock, may_replace
from zsar_cli.prediction.inputs import same_input
from zsar_cli.prediction.parquet import read_parquet, require_pyarrow
from zsar_cli.prediction.parts import (
    PART,
    Manifest,
    Tally,
    list_parts,
    parse_manifest,
    read_content,
    refuse_other_settings,
)
from zsar_cli.prediction.places import AnyFolder, open_folder
from zsar_cli.prediction.record_file import JSON_LINES, Form
from zsar_cli.prediction.records import MADE_WITH, is_complete, read_record
from zsar_cli.prediction.shards import Shard
from zsar_cli.seen import SeenTexts

HEEDED = ("videos", "merge", "output", "format", "overwrite")
NAMED = 20  # shards that a message names


@dataclass
class Found:
    """The parts of one folder."""

    folder: AnyFolder
    count: int  # of shards
    parts: list[Manifest] = field(default_factory=list)
    missing: list[Shard] = field(default_factory=list)
    unfinished: list[Shard] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)  # parts that cannot be used, in a sentence each

    def lines(self) -> Iterator[str]:
        """Say what is missing."""
        for shards, what in ((self.missing, "missing"), (self.unfinished, "unfinished")):
            if shards:
                named = ", ".join(map(str, shards[:NAMED])) + (", ..." if len(shards) > NAMED else "")
                which = "shard" if len(shards) == 1 else f"{len(shards)} shards"
                verb = "is" if len(shards) == 1 else "are"
                yield f"{self.folder}: {which} {verb} {what}: {named}. Run it again with --shard."
        yield from self.faults

    def leave_out(self, manifest: Manifest) -> None:
        """Note that a part is another than its manifest says."""
        self.faults.append(
            f"{self.folder}/{manifest.part} is not as its manifest says (torn or changed), so its "
            f"{counted(manifest.videos, 'video')} {'is' if manifest.videos == 1 else 'are'} left out. Run its shard "
            "again with --overwrite."
        )


def find_parts(place: str) -> Found:
    """Find the complete parts of a folder, and which are missing.

    Raises:
        UsageError: it has no parts, or parts of several numbers of shards, or cannot be read.
    """
    folder = open_folder(place)
    listing = list_parts(folder)
    if listing.count is None:
        raise UsageError(f"{folder} holds no parts of zsar predict --shard.")
    found = Found(folder, listing.count)
    for index in range(listing.count):
        shard = Shard(index, listing.count)
        content = read_content(folder, shard) if shard in listing.manifests else None
        if content is None:
            (found.unfinished if shard in listing.unfinished else found.missing).append(shard)
            continue
        try:
            manifest = parse_manifest(content, folder, shard)
        except UsageError as error:
            found.faults.append(str(error))
            continue
        if manifest.size == folder.size(manifest.part):
            found.parts.append(manifest)
        else:
            found.leave_out(manifest)
    return found


def merge_parts(asked: Asked) -> None:
    """Write the records of all parts, and exit with 1 where something is missing."""
    from zsar_cli.cli import console

    refuse_options(asked.context, asked.videos[0], HEEDED, "are merged without running a model")
    chosen = format_of(asked.output, asked.format)
    if chosen in SUBTITLES:
        raise UsageError(f"Parts are merged to jsonl, csv or parquet; make {chosen} of the merged file.")
    if asked.output is None:
        raise UsageError("--merge needs --output, the file that the parts become.")
    if PART.fullmatch(asked.output.name):
        raise UsageError(f"{asked.shown_place} is named like a part of a shard; choose another --output.")
    check_destination(asked.output, False, asked.overwrite, asked.format)
    folders = [find_parts(place) for place in asked.videos]
    writer = write_merged(asked, chosen, folders)
    lines = [line for found in folders for line in found.lines()]
    if writer.twice:
        lines.append(f"{counted(writer.twice, 'video')} had a second record, which was left out.")
    complete, total = sum(len(found.parts) for found in folders), sum(found.count for found in folders)
    kinds = ", ".join(f"{count} {kind}" for kind, count in writer.errors.most_common())
    failed = f", {sum(writer.errors.values())} failed ({kinds})" if kinds else ""
    held = f"{counted(writer.videos, 'video')}{failed}"
    console.note(f"{complete} of {counted(total, 'shard')}: {held}, written to {asked.shown_place}.")
    for line in lines:
        console.error(line)
    if lines:
        raise typer.Exit(1)


def write_merged(asked: Asked, chosen: Format, folders: list[Found]) -> Writer:
    """Write the records of all parts that are complete.

    Raises:
        UsageError: there are none, their settings differ, or a disk is full; then nothing is written.
    """
    made = _one_setting(folders)
    with _writer(asked, chosen, folders, made) as writer:
        for found in folders:
            for manifest in list(found.parts):
                if not writer.take(found.folder, manifest):
                    found.parts.remove(manifest)
                    found.leave_out(manifest)
        _refuse_nothing(folders)
    return writer


def _refuse_nothing(folders: list[Found]) -> None:
    if not any(found.parts for found in folders):
        raise UsageError(" ".join(line for found in folders for line in found.lines()))


def _one_setting(folders: list[Found]) -> dict[str, Any]:
    """Take what all parts were made with; UsageError where they differ, or where there are none."""
    _refuse_nothing(folders)
    all_parts = [(found.folder, manifest) for found in folders for manifest in found.parts]
    _, first = all_parts[0]
    for folder, other in all_parts[1:]:
        way_out = "Merge them separately, or run its shard again with --overwrite."
        refuse_other_settings(folder, (other.part, other.made_with), (first.part, first.made_with), way_out)
    return first.made_with


@contextlib.contextmanager
def _writer(asked: Asked, chosen: Format, folders: list[Found], made: dict[str, Any]) -> Iterator[Writer]:
    """Open the merged file, which appears under its name when all is written."""
    columns = Columns(
        made.get("window") is not None,
        several=bool(made.get("multi")),
        embeddings=bool(made.get("embeddings")),
    )
    kinds = {_kind(manifest) for found in folders for manifest in found.parts}
    if "csv" in kinds and (chosen != "csv" or len(kinds) > 1):
        raise UsageError("Parts in csv are merged to csv only, as it leaves out what other formats have.")
    if "parquet" in kinds:
        require_pyarrow()
    assert asked.output is not None
    if chosen not in GROWING:
        target = Target(asked.output, chosen, (), overwrite=asked.overwrite, columns=columns, made_with=made)
        with open_sink(target) as sink:
            yield Writer(sink.write, made)
        return
    form = _form_of_csv(folders) if kinds == {"csv"} else form_of(asked.output, chosen, columns)
    with (
        Lock(asked.output),
        atomic_write(asked.output, replace=may_replace(asked.output, asked.overwrite)) as aside,
        open(aside, "wb") as file,
    ):
        file.write(form.head)
        yield Writer(lambda record: file.write(form.part(record)), made, form, file.write)


def _kind(manifest: Manifest) -> str:
    return Path(manifest.part).suffix[1:]


def _form_of_csv(folders: list[Found]) -> Form:
    """Read the columns of the first part; the others must have the same."""
    found = next(found for found in folders if found.parts)
    with found.folder.open(found.parts[0].part) as file:
        return CsvRows.of_header(Path(found.parts[0].part), file.readline())


@dataclass
class Writer:
    """The merged file."""

    write: Callable[[dict[str, Any]], object]
    made_with: dict[str, Any]
    form: Form | None = None  # of a file that grows
    copy: Callable[[bytes], object] | None = None  # writes records as they stand in a part of this form

    seen: SeenTexts = field(default_factory=SeenTexts)
    videos: int = 0
    twice: int = 0
    errors: Counter[str] = field(default_factory=Counter)

    def take(self, folder: AnyFolder, manifest: Manifest) -> bool:
        """Write the records of a part, all or none; tell whether it has the videos that its manifest counts.

        A part is read twice, as only its end tells whether it is whole.
        """
        with folder.open(manifest.part) as file:
            part = Tally()
            try:
                for key, _, _ in self._read(file, _kind(manifest)):
                    part.add(key)
            except (ValueError, OSError, UsageError):  # of reading alone
                return False
            if (part.videos, part.inputs) != (manifest.videos, manifest.inputs):
                return False
            file.seek(0)
            for key, kind, content in self._read(file, _kind(manifest)):
                if self._is_new(key, kind):
                    self._put(content)
        return True

    def _read(self, file: IO[bytes], kind: str) -> Iterator[tuple[str, str | None, bytes | dict[str, Any]]]:
        """Yield each record's video and kind of error, and the record; where the forms are the same, as it stands."""
        if self.form is not None and (kind == "csv" or (kind == "jsonl" and self.form is JSON_LINES)):
            for part in self.form.parts(file):
                stored = self.form.read(part)
                if stored is None or not part.endswith(b"\n"):
                    raise ValueError("no record")
                yield stored.key, stored.kind, part
            return
        for record in read_parquet(file) if kind == "parquet" else _read_lines(file):
            yield same_input(record["video"]), record.get("error", {}).get("kind"), record

    def _put(self, content: bytes | dict[str, Any]) -> None:
        if isinstance(content, bytes):
            assert self.copy is not None
            self.copy(content)
            return
        content.pop(MADE_WITH, None)
        self.write(content if self.videos > 1 else content | {MADE_WITH: self.made_with})

    def _is_new(self, key: str, kind: str | None) -> bool:
        if not self.seen.add(key):
            self.twice += 1
            return False
        self.videos += 1
        self.errors.update([kind] if kind is not None else [])
        return True


def _read_lines(file: IO[bytes]) -> Iterator[dict[str, Any]]:
    for line in file:
        record = read_record(line)
        if record is None or not is_complete(record):
            raise ValueError("no record")
        yield record
