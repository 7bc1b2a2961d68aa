"""``zsar predict --ray``: videos decoded and answered on a cluster, their records in parts."""

from __future__ import annotations

import contextlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from zsar_cli.cluster.connect import IO_CPUS, Share
from zsar_cli.cluster.pipeline import settings, staged
from zsar_cli.cluster.stages import VIDEO, Answer, Decode
from zsar_cli.errors import UsageError
from zsar_cli.prediction.differences import difference

OWN = "_ray"  # a folder inside that of the parts: the list of inputs, settings, Ray's checkpoints
NOT_COMPARED = ("model",)  # a name, which may change; the weights may not


@dataclass
class Done:
    """What a run did, by its counts of records."""

    files: Any  # the file system and the path of the parts' folder
    place: str
    before: int = 0  # in the parts that were there
    written: int = 0
    kinds: Counter[str] = field(default_factory=Counter)  # errors among those written

    def remove(self) -> None:
        """Remove the parts, and the folder if nothing else is in it."""
        remove_parts(self.files, self.place)
        with contextlib.suppress(OSError):
            os.rmdir(self.place)


def predict_on(
    ray: Any,
    videos: Iterable[str],
    folder: str,
    decode: Decode,
    answer: Answer,
    share: Share,
    *,
    made_with: dict[str, Any],
    overwrite: bool = False,
) -> Done:
    """Answer all videos that have no record in ``folder`` yet, and write their records there, in parts.

    Started again after anything (its own process was killed, too), it does what is missing.

    Args:
        ray: the module, connected.
        videos: read lazily; each once.
        folder: of the parts, a path or an address that every node of the cluster can write to.
        decode: the stage that decodes.
        answer: the stage that answers.
        share: what the cluster has for each.
        made_with: as of a file of records; parts of other settings are refused.
        overwrite: remove the parts that are there.

    Raises:
        UsageError: the folder holds something else.
    """
    from zsar_cli.cluster.parts import PIECES, InputList, Parts, key_of, number_parts, settle, write_list

    files, place = _folder(folder)
    own = f"{place}/{OWN}"
    _claim(files, place, folder, made_with, overwrite)
    before = settle(files, place, f"{own}/checkpoints")
    done = Done(files, place, len(before))

    def left() -> Iterator[str]:
        return (video for video in videos if key_of(video) not in before)

    starts, count = write_list(files, f"{own}/inputs.jsonl", left())
    if not count:
        number_parts(files, place, made_with)
        return done
    source = InputList(files, f"{own}/inputs.jsonl", starts, count, PIECES * share.models)
    # A folder for each start: nothing is in it, so no actor has to be had that sorts out what is done
    checkpoints = ray.data.checkpoint.CheckpointConfig(
        VIDEO,
        f"{own}/checkpoints/{uuid4().hex}",
        override_filesystem=files,
        delete_checkpoint_on_success=False,
    )
    parts = Parts(files, place, source.lines, made_with)
    with settings(ray, checkpoints):
        listed = ray.data.read_datasource(source, num_cpus=IO_CPUS)
        answers = staged(ray, listed, decode, answer, share, answer.predictor.clips.batch_size)
        answers.write_datasink(parts, ray_remote_args={"num_cpus": IO_CPUS})
    number_parts(files, place, made_with)
    done.written, done.kinds = parts.records, parts.kinds
    return done


def _folder(folder: str) -> tuple[Any, str]:
    """Find the file system of a path or an address, and the path in it; the folder is made."""
    from pyarrow.fs import FileSystem

    try:
        files, place = FileSystem.from_uri(folder if "://" in folder else os.path.abspath(folder))
        files.create_dir(f"{place}/{OWN}", recursive=True)
    except (OSError, ValueError) as error:
        raise UsageError(f"{folder} cannot be written: {error}") from error
    return files, place


def _claim(files: Any, place: str, folder: str, made_with: dict[str, Any], overwrite: bool) -> None:
    """Keep the settings of a run; raise UsageError if the folder's are others, or if it is somebody else's."""
    from pyarrow.fs import FileSelector, FileType

    path = f"{place}/{OWN}/made_with.json"
    if overwrite and files.get_file_info(path).type != FileType.NotFound:
        remove_parts(files, place)
        files.create_dir(f"{place}/{OWN}")
    if files.get_file_info(path).type == FileType.NotFound:
        if any(info.base_name != OWN for info in files.get_file_info(FileSelector(place))):
            raise UsageError(f"{folder} holds something else; choose another --output.")
        with files.open_output_stream(path) as file:
            file.write(json.dumps(made_with).encode())
        return
    with files.open_input_file(path) as file:
        before = json.loads(file.read())
    if changed := difference(before, made_with, NOT_COMPARED):
        raise UsageError(
            f"{folder} was made with {changed}. Use the same settings, or choose another --output."
        )


def remove_parts(files: Any, place: str) -> None:
    """Remove the parts in a folder and all that belongs to them."""
    from zsar_cli.cluster.parts import own_names

    for name in own_names(files, place):
        files.delete_file(f"{place}/{name}")
    files.delete_dir_contents(f"{place}/{OWN}", missing_dir_ok=True)
    with contextlib.suppress(OSError):
        os.rmdir(f"{place}/{OWN}")
