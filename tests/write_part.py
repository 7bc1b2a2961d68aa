"""Write the part of a shard without a model. As a script: ``write_part.py FOLDER FORMAT``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from zsar_cli.cli.output.formats import Columns
from zsar_cli.cli.output.part import Part, open_part
from zsar_cli.cli.output.sink import Target
from zsar_cli.prediction.places import open_folder
from zsar_cli.prediction.records import Failure, LabelScore, Prediction
from zsar_cli.prediction.shards import Shard

MADE = {"zsar": "1", "model": "tiny", "weights": "w", "labels": {"count": 2, "hash": "h"}, "frames": 8}
VIDEOS = ["a.mp4", "bad.mp4", "'b, c.mp4", "d.mp4"]
SHARD = Shard(3, 8)


def answer(video: str) -> dict[str, Any]:
    if "bad" in video:
        return Failure(video, "not_found", "no such file").to_record()
    return Prediction(
        video, [LabelScore("x", 0.75, 0.5), LabelScore("y", 0.25, 0.5)], 0.5, 2.0, 8
    ).to_record()


def write_part(
    folder: object,
    format: Any = "jsonl",
    videos: Sequence[str] = VIDEOS,
    *,
    made: dict[str, Any] = MADE,
    shard: Shard = SHARD,
    overwrite: bool = False,
    known: bool = True,
    complete: bool = True,
) -> tuple[Part, list[str]]:
    """Write what is missing; which videos that were."""
    target = Target(None, format, (), overwrite=overwrite, columns=Columns(), made_with=made, rows=2)
    written = []
    with open_part(target, open_folder(str(folder)), shard, videos if known else None) as sink:
        part = sink.part
        assert part is not None
        if part.manifest is None:
            for video in videos:
                if sink.file is None or sink.file.form.key(video) not in sink.file.done:
                    sink.write(answer(video))
                    written.append(video)
            if complete:
                assert part.finish is not None
                part.finish()
    return part, written


if __name__ == "__main__":
    write_part(*sys.argv[1:])
