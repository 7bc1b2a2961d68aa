"""``--output s3://bucket/answers.parquet``: written on this disk, and sent as one object when the run ends."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import typer

from zsar_cli.cli.output.sink import STORED
from zsar_cli.cli.predict_options import Asked
from zsar_cli.errors import UsageError
from zsar_cli.files import in_temporary_folder
from zsar_cli.prediction.places import StorageFolder
from zsar_cli.video.address import public


@contextmanager
def on_this_disk(asked: Asked) -> Iterator[Asked]:
    """Give an output in a storage a file on this disk, which is sent when the block ends; others stay as they are.

    ``--resume`` fetches the object first. A run that is interrupted sends what it has.

    Raises:
        UsageError: the object exists, or cannot be written; what was to be sent stays on this disk.
    """
    if asked.remote is None or asked.shard is not None:
        yield asked
        return
    place, _, name = asked.remote.rpartition("/")
    if not name or asked.written_format not in STORED:
        raise UsageError(
            f"{public(asked.remote)}: an output in a storage is an object such as {public(place)}/answers.jsonl, "
            ".csv or .parquet."
        )
    if asked.remote in asked.videos:
        raise UsageError(f"{public(asked.remote)} is an input of this run; choose another --output.")
    folder = StorageFolder(place)
    folder.make()
    there = folder.size(name) is not None
    if there and not (asked.resume or asked.overwrite):
        raise UsageError(
            f"{public(asked.remote)} already exists; continue it with --resume, replace it with --overwrite, or choose "
            "another --output."
        )
    with folder.aside(name) as aside:
        if there and asked.resume:
            with folder.open(name) as file, in_temporary_folder(), open(aside, "wb") as copy:
                shutil.copyfileobj(file, copy)
        ended: typer.Exit | None = None
        try:
            yield replace(asked, output=aside)
        except typer.Exit as error:  # of a run that ended in order
            ended = error
        if aside.exists():
            folder.put(aside, name)
        if ended is not None:
            raise ended
