"""Inputs and outputs of a cluster: a list that its workers read in pieces, and parts that they write.

Ray's checkpoints say which parts count. A part's is written before it, under a name that is not valid yet, and
gets its own once the part is there; so what a killed run left half done is known, removed and done again.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import partial
from io import BufferedReader
from itertools import pairwise
from posixpath import join
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow.fs import FileSelector, FileSystem, FileType
from ray.data import Datasource
from ray.data.block import BlockMetadata
from ray.data.datasource import BlockBasedFileDatasink, FilenameProvider, ReadTask

from zsar_cli.cluster.stages import RECORD, VIDEO, from_id, to_id
from zsar_cli.prediction.inputs import same_input
from zsar_cli.prediction.parts import PART as NUMBERED
from zsar_cli.prediction.parts import Manifest, count_lines, manifest_name
from zsar_cli.prediction.record_file import JSON_LINES
from zsar_cli.prediction.records import MADE_WITH, to_json
from zsar_cli.prediction.shards import MOST as MOST_SHARDS
from zsar_cli.prediction.shards import Shard
from zsar_cli.seen import digest
from zsar_cli.video.address import public

PENDING = ".pending.parquet"
WRITTEN = re.compile(r"part-[0-9a-f]{32}-\d{6,}\.jsonl")
STEP = 16  # inputs that are always read together
PIECES = 4  # of work for each actor at least, so that none waits long for the last one
MOST = 512  # inputs of a part, or a little more: what a restart may do again, for each actor


class InputList(Datasource):
    """The list of inputs in a file, as tasks that read a piece of it each.

    Ray's own readers put a list of paths, which is small, into one block, that one actor would do alone.
    """

    def __init__(self, files: FileSystem, path: str, starts: list[int], count: int, pieces: int) -> None:
        """Cut a file into pieces.

        Args:
            files: where it lies.
            path: of lines that :func:`to_id` wrote.
            starts: the bytes before every :data:`STEP`-th line, and the size of the file.
            count: its lines.
            pieces: how many there should be at least.
        """
        super().__init__()
        self._files, self._path, self._starts, self._count = files, path, starts, count
        most = max(MOST, 2 * count // MOST_SHARDS)
        self.lines = STEP * max(1, min(most // STEP, count // (STEP * pieces)))

    def get_read_tasks(self, parallelism: int, *_: Any, **__: Any) -> list[ReadTask]:
        """Make a task for each piece, however many are asked for."""
        steps = self.lines // STEP
        cuts = [*self._starts[:-1][::steps], self._starts[-1]]
        return [
            ReadTask(
                partial(_read_piece, self._files, self._path, start, end - start),
                BlockMetadata(num_rows=self.lines, size_bytes=end - start, exec_stats=None),
            )
            for start, end in pairwise(cuts)
        ]

    def estimate_inmemory_data_size(self) -> int:
        """Count its bytes."""
        return self._starts[-1]


def _read_piece(files: FileSystem, path: str, start: int, size: int) -> Iterator[pa.Table]:
    with files.open_input_file(path) as file:
        file.seek(start)
        text = file.read(size).decode()
    yield pa.table({VIDEO: pa.array(text.splitlines(), pa.string())})


def write_list(files: FileSystem, path: str, videos: Iterable[str]) -> tuple[list[int], int]:
    """Write the inputs as they come, none of them held; return where each step starts and how many there are."""
    starts, size, count = [], 0, 0
    with files.open_output_stream(path) as file:
        for count, video in enumerate(videos, start=1):
            if count % STEP == 1:
                starts.append(size)
            line = f"{to_id(video)}\n".encode()
            file.write(line)
            size += len(line)
    return [*starts, size], count


class Parts(BlockBasedFileDatasink):
    """Write records as JSON Lines, a file for each task. On the driver, ``kinds`` counts errors once all is written."""

    def __init__(self, files: FileSystem, folder: str, lines: int, made_with: dict[str, Any]) -> None:
        super().__init__(
            folder,
            filesystem=files,
            file_format="jsonl",
            filename_provider=_Names(file_format="jsonl"),
            min_rows_per_file=lines,
        )
        self._made_with = made_with
        self.records = 0
        self.kinds: Counter[str] = Counter()

    def write_block_to_file(self, block: Any, file: Any) -> None:
        """Write the records of a block, the first with the settings of all."""
        first, *others = _texts(block)
        first = to_json(json.loads(first) | {MADE_WITH: self._made_with})
        file.writelines(f"{text}\n".encode() for text in (first, *others))

    def write_block(self, block: Any, block_index: int, ctx: Any) -> None:
        """Write a block, and count what is in it."""
        super().write_block(block, block_index, ctx)
        found = (json.loads(text) for text in _texts(block))
        ctx.kwargs["_zsar_kinds"] = Counter(r["error"]["kind"] if "error" in r else "" for r in found)

    def write(self, blocks: Any, ctx: Any) -> Any:
        """Write what a task got, and return its counts."""
        super().write(blocks, ctx)
        return dict(ctx.kwargs.pop("_zsar_kinds", {}))

    def on_write_complete(self, write_result: Any) -> None:
        """Add up what was written."""
        for counts in write_result.write_returns:
            self.kinds.update(counts or {})
        self.records = sum(self.kinds.values())
        del self.kinds[""]


class _Names(FilenameProvider):
    def get_filename_for_task(self, write_uuid: str, task_index: int) -> str:
        return f"part-{write_uuid}-{task_index:06}.{self.file_format}"


def _texts(block: Any) -> list[str]:
    texts: list[str] = block.to_arrow()[RECORD].to_pylist()
    return texts


def settle(files: FileSystem, folder: str, checkpoints: str) -> set[bytes]:
    """Remove parts that an ended run did not finish, and return the keys of all videos in those that it did."""
    found = files.get_file_info(FileSelector(checkpoints, recursive=True, allow_not_found=True))
    written = [info for info in found if info.type == FileType.File]
    done: set[bytes] = set()
    for info in written:
        if info.base_name.endswith(PENDING):
            part = join(folder, f"{info.base_name.removesuffix(PENDING)}.jsonl")
            if files.get_file_info(part).type == FileType.File:
                files.delete_file(part)
            files.delete_file(info.path)
        else:
            names = pq.read_table(info.path, filesystem=files, columns=[VIDEO])[VIDEO]
            done.update(key_of(from_id(name.as_py())) for name in names)
    return done


def key_of(video: str) -> bytes:
    """Compute what tells a video from the others."""
    return digest(same_input(public(video)))


def own_names(files: FileSystem, folder: str) -> list[str]:
    """List the parts in a folder, and their manifests."""
    found = files.get_file_info(FileSelector(folder, allow_not_found=True))
    return sorted(
        info.base_name
        for info in found
        if WRITTEN.fullmatch(info.base_name) or NUMBERED.fullmatch(info.base_name)
    )


def number_parts(files: FileSystem, folder: str, made_with: dict[str, Any]) -> None:
    """Name the parts as those of ``--shard`` are, each with its manifest: the folder is complete then.

    What was numbered before, when there were fewer, is numbered again.
    """
    names = own_names(files, folder)
    parts = [name for name in names if name.startswith("part-")]
    for name in set(names) - set(parts):
        files.delete_file(join(folder, name))
    shards = [Shard(index, len(parts)) for index in range(len(parts))]
    final = {f"{shard.part}.jsonl": shard for shard in shards}
    free = iter([name for name in final if name not in parts])
    for name in parts:
        if name not in final:
            files.move(join(folder, name), join(folder, next(free)))
    for name, shard in final.items():
        path = join(folder, name)
        with files.open_input_stream(path) as file, BufferedReader(file) as lines:
            tally = count_lines(JSON_LINES, lines)
        size = files.get_file_info(path).size
        said = Manifest(name, size, tally.videos, dict(tally.errors.most_common()), tally.inputs, made_with)
        with files.open_output_stream(join(folder, manifest_name(shard))) as out:
            out.write(said.to_json(shard))
