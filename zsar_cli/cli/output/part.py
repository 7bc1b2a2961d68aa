"""The part of a shard: written aside, renamed when it is complete, and then described by a manifest."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zsar_cli.cli.output.formats import Format
from zsar_cli.cli.output.sink import GROWING, Sink, Target, form_of
from zsar_cli.errors import UsageError
from zsar_cli.files import sweep
from zsar_cli.outputs import Lock, refuse_busy
from zsar_cli.prediction.inputs import same_input
from zsar_cli.prediction.parquet import ParquetWriter, as_text
from zsar_cli.prediction.parts import (
    Manifest,
    Tally,
    count_lines,
    list_parts,
    manifest_name,
    read_manifest,
    refuse_other_settings,
)
from zsar_cli.prediction.places import AnyFolder
from zsar_cli.prediction.record_file import Form, RecordFile, check_output
from zsar_cli.prediction.shards import Shard

OTHER = "Use the same settings, choose another --output, or start over with --overwrite."


@dataclass
class Part:
    """The part that a run writes, or that it found to be complete."""

    folder: AnyFolder
    shard: Shard
    name: str
    manifest: Manifest | None = None  # where it is complete
    finish: Callable[[], Manifest] | None = None  # to call when all videos have their records

    def __str__(self) -> str:
        return f"{self.folder}/{self.name}"


def part_name(shard: Shard, format: Format) -> str:
    """Name the file of a part."""
    return f"{shard.part}.{format}"


@contextlib.contextmanager
def open_part(
    target: Target, folder: AnyFolder, shard: Shard, videos: Iterable[str] | None = None
) -> Iterator[Sink]:
    """Open the part of a shard: a new one, one that a run before left, or one that is complete.

    Args:
        target: its format and settings.
        videos: all of the shard, where they are known; a part that has them all is complete.

    Raises:
        UsageError: the folder has parts of other settings, or another run writes this part.
    """
    name = part_name(shard, target.format)
    assert target.made_with is not None
    folder.make()
    with contextlib.ExitStack() as stack:
        if folder.path is not None:
            stack.enter_context(Lock(folder.path / name))
            sweep(folder.path / manifest_name(shard))
        if target.overwrite:
            for old in (manifest_name(shard), name, _unfinished(name)):
                folder.remove(old)
        folder.refuse_links(manifest_name(shard), name, _unfinished(name))
        manifest = _refuse_others(folder, shard, target)
        part = Part(folder, shard, name)
        form = (
            None
            if target.format not in GROWING
            else form_of(Path(name), target.format, target.columns, target.rows)
        )
        if manifest is not None and videos is not None:
            known = _count(videos, form)
            if (known.videos, known.inputs) == (manifest.videos, manifest.inputs):
                part.manifest = manifest
                yield Sink(_refuse, part=part)
                return
        aside = stack.enter_context(folder.aside(_unfinished(name)))
        if form is None:
            yield from _whole(aside, target, part)
        else:
            yield from _growing(aside, form, target, part)


def _refuse(record: dict[str, Any]) -> None:
    raise AssertionError("the part is complete")


def _unfinished(name: str) -> str:
    return name.replace("part", "_unfinished", 1)


def check_part(target: Target, folder: AnyFolder, shard: Shard) -> None:
    """Raise UsageError where :func:`open_part` would, by those settings that are known; before a model is loaded."""
    name = part_name(shard, target.format)
    if folder.path is not None:
        refuse_busy(folder.path / name)
    if not target.overwrite:
        folder.refuse_links(manifest_name(shard), name, _unfinished(name))
    _refuse_others(folder, shard, target, known=target.made_with)


def _refuse_others(
    folder: AnyFolder, shard: Shard, target: Target, known: Iterable[str] | None = None
) -> Manifest | None:
    """Raise UsageError where the folder has parts of other settings; return this shard's manifest, if it holds.

    ``known``: the settings that are compared; by default all.
    """
    listing = list_parts(folder)
    if listing.count not in (None, shard.count):
        raise UsageError(
            f"{folder} holds parts of {listing.count} shards, and this run is shard {shard}; choose another --output."
        )
    if target.overwrite:
        return None
    other = next(filter(None, (_sound(folder, one) for one in listing.manifests if one != shard)), None)
    own = read_manifest(folder, shard)
    for found in filter(None, (other, own)):
        theirs, ours = found.made_with, target.made_with
        assert ours is not None
        if known is not None:
            both = [key for key in known if key in theirs]
            theirs, ours = {key: theirs[key] for key in both}, {key: ours[key] for key in both}
        refuse_other_settings(folder, (found.part, theirs), ("this run", ours), OTHER)
        if not found.part.endswith(f".{target.format}"):
            raise UsageError(
                f"{folder}/{found.part} is not {target.format}, as this run's part would be. {OTHER}"
            )
    return own if own is not None and own.size == folder.size(part_name(shard, target.format)) else None


def _sound(folder: AnyFolder, shard: Shard) -> Manifest | None:
    """Read the manifest of another shard; None where it is damaged, which is for that shard's run to say."""
    try:
        return read_manifest(folder, shard)
    except UsageError:
        return None


def _count(videos: Iterable[str], form: Form | None) -> Tally:
    tally = Tally()
    for video in videos:
        tally.add(_key(video) if form is None else form.key(video))
    return tally


def _key(video: str) -> str:
    return same_input(as_text(video))


def _growing(aside: Path, form: Form, target: Target, part: Part) -> Iterator[Sink]:
    """Write record by record; on this disk, what a run before left goes on."""
    folder = part.folder
    if folder.path is not None:
        complete = folder.path / part.name
        if (
            complete.exists() and not aside.exists()
        ):  # the list grew, or a run ended before its manifest was there
            check_output(complete, form=form, resume=True, overwrite=False)
            folder.remove(manifest_name(part.shard))
            complete.replace(aside)
    file = RecordFile(aside, form=form, made_with=target.made_with, resume=True)

    def finish() -> Manifest:
        file.close()
        with open(aside, "rb") as lines:
            return _publish(aside, part, target, count_lines(form, lines))

    part.finish = finish
    with contextlib.closing(file):
        yield Sink(file.write, file=file, part=part)


def _whole(aside: Path, target: Target, part: Part) -> Iterator[Sink]:
    """Write a file that is none before it is complete: it starts again."""
    aside.unlink(missing_ok=True)
    columns, tally = target.columns, Tally()
    file = ParquetWriter(
        aside, made_with=target.made_with, windows=columns.windows, embeddings=columns.embeddings
    )

    def write(record: dict[str, Any]) -> None:
        file.write(record)
        tally.add(_key(record["video"]), record["error"]["kind"] if "error" in record else None)

    def finish() -> Manifest:
        file.close()
        return _publish(aside, part, target, tally)

    part.finish = finish
    yield Sink(write, part=part)
    if part.manifest is None:
        aside.unlink(missing_ok=True)


def _publish(aside: Path, part: Part, target: Target, tally: Tally) -> Manifest:
    assert target.made_with is not None
    found = Manifest(
        part.name,
        aside.stat().st_size,
        tally.videos,
        dict(tally.errors.most_common()),
        tally.inputs,
        target.made_with,
    )
    part.folder.remove(manifest_name(part.shard))  # it would speak of another file
    part.folder.put(aside, part.name)
    part.folder.write(manifest_name(part.shard), found.to_json(part.shard))
    part.manifest = found
    return found
