"""Shards of a list of videos: which of several independent runs takes a video.

Membership is a hash of the video's name, so it stays the same when the list grows or is read in another order.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass

from zsar_cli.errors import UsageError
from zsar_cli.prediction.inputs import same_input

MOST = 100_000
# Of job arrays: this task's number, the number of tasks, and the array's first number
ARRAYS = (
    ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT", "SLURM_ARRAY_TASK_MIN"),
    ("JOB_COMPLETION_INDEX", None, None),  # Kubernetes does not say how many completions there are
    ("AWS_BATCH_JOB_ARRAY_INDEX", "AWS_BATCH_JOB_ARRAY_SIZE", None),
    ("RANK", "WORLD_SIZE", None),
)


@dataclass(frozen=True)
class Shard:
    """One of ``count`` shards, numbered from 0."""

    index: int
    count: int

    def has(self, video: str) -> bool:
        """Tell whether this shard takes a video, by its path or address."""
        return shard_of(video, self.count) == self.index

    @property
    def part(self) -> str:
        """The name of its part, without an ending."""
        return f"part-{self.index:05d}-of-{self.count:05d}"

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"


def shard_of(video: str, count: int) -> int:
    """Compute which of ``count`` shards takes a video: BLAKE2b of its name, so the same on every machine."""
    name = same_input(video).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(name, digest_size=8).digest(), "big") % count


def parse_shard(text: str, environment: Mapping[str, str]) -> Shard:
    """Read ``3/8``, ``auto``, or ``auto/8``: the number from the scheduler, the count from here.

    Raises:
        UsageError: it is none of these, or the environment does not say which shard this is.
    """
    found = re.fullmatch(r"(auto|\d{1,6})(?:/(\d{1,6}))?", text.strip())
    if found is None or (found[1] != "auto" and found[2] is None):
        raise UsageError(f"--shard must be I/N with I from 0 to N-1, auto or auto/N, not {text[:60]!r}.")
    count = None if found[2] is None else int(found[2])
    if count is not None and not 0 < count <= MOST:
        raise UsageError(f"--shard must have from 1 to {MOST:,} shards, not {count:,}.")
    if found[1] == "auto":
        return _own_shard(environment, count)
    assert count is not None
    return _checked(int(found[1]), count, f"--shard {found[0]}")


def _checked(index: int, count: int, said: str) -> Shard:
    if not 0 <= index < count:
        raise UsageError(
            f"{said}: there is no shard {index} of {count}; they are numbered from 0 to {count - 1}."
        )
    return Shard(index, count)


def _own_shard(environment: Mapping[str, str], count: int | None) -> Shard:
    """Find which shard this task of a job array is."""
    present = [names for names in ARRAYS if environment.get(names[0])]
    if (
        len(present) > 1 and environment.get("WORLD_SIZE") == "1"
    ):  # a task of a job array may be started by torchrun
        present = [names for names in present if names[0] != "RANK"]
    if not present:
        names = ", ".join(names[0] for names in ARRAYS)
        raise UsageError(
            f"--shard auto finds none of {names} in the environment: start it as a task of a job array, or give "
            "--shard I/N."
        )
    if len(present) > 1:
        raise UsageError(
            f"--shard auto finds both {present[0][0]} and {present[1][0]} in the environment; give --shard I/N."
        )
    index_name, count_name, first_name = present[0]
    index = _number(environment, index_name)
    assert index is not None
    if count is not None:
        return _checked(index, count, f"{index_name}={index}")
    tasks = _number(environment, count_name)
    if tasks is None:
        raise UsageError(
            f"--shard auto finds {index_name}, but nothing says how many tasks there are; give it as --shard auto/N."
        )
    first = _number(environment, first_name) or 0
    step = _number(environment, "SLURM_ARRAY_TASK_STEP") or 1 if first_name else 1
    if (index - first) % step or not 0 <= (index - first) // step < tasks:
        raise UsageError(
            f"{index_name}={index} is not one of {tasks} numbers in a row from {first}; number the tasks of the array "
            "from 0, or give --shard auto/N."
        )
    return Shard((index - first) // step, tasks)


def _number(environment: Mapping[str, str], name: str | None) -> int | None:
    text = environment.get(name or "", "")
    if not text:
        return None
    if not re.fullmatch(r"\d{1,9}", text):
        raise UsageError(f"The environment variable {name} must be a number, not {text[:60]!r}.")
    return int(text)
