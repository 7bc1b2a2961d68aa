"""Which shard takes a video, and how a run finds out which shard it is."""

from __future__ import annotations

import pytest

from zsar_cli.errors import UsageError
from zsar_cli.prediction.shards import Shard, parse_shard, shard_of

VIDEOS = [f"/archive/{number}/clip.mp4" for number in range(4000)]


def test_each_video_is_in_one_shard_and_shards_are_alike() -> None:
    shards = [Shard(index, 8) for index in range(8)]
    sizes = [sum(shard.has(video) for video in VIDEOS) for shard in shards]
    assert sum(sizes) == len(VIDEOS)
    assert min(sizes) > 400
    assert shard_of("./a.mp4", 1000) == shard_of("a.mp4", 1000)


def test_membership_is_the_same_on_every_machine_and_in_every_version() -> None:
    names = ("a.mp4", "/archive/é.mp4", "s3://bucket/a.mp4", "b\udc80.mp4")
    assert [shard_of(name, 1000) for name in names] == [452, 107, 798, 998]


@pytest.mark.parametrize(
    ("text", "environment", "shard"),
    [
        ("3/8", {}, "3/8"),
        (
            "auto",
            {"SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_TASK_COUNT": "8", "SLURM_ARRAY_TASK_MIN": "0"},
            "3/8",
        ),
        (
            "auto",
            {"SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_TASK_COUNT": "8", "SLURM_ARRAY_TASK_MIN": "1"},
            "2/8",
        ),
        (
            "auto",
            {
                **{"SLURM_ARRAY_TASK_ID": "20", "SLURM_ARRAY_TASK_COUNT": "3"},
                **{"SLURM_ARRAY_TASK_MIN": "10", "SLURM_ARRAY_TASK_STEP": "5"},
            },
            "2/3",
        ),
        (
            "auto/8",
            {"SLURM_ARRAY_TASK_ID": "7", "SLURM_ARRAY_TASK_COUNT": "2", "SLURM_ARRAY_TASK_MIN": "3"},
            "7/8",
        ),
        ("auto/8", {"JOB_COMPLETION_INDEX": "3"}, "3/8"),
        ("auto", {"AWS_BATCH_JOB_ARRAY_INDEX": "3", "AWS_BATCH_JOB_ARRAY_SIZE": "8"}, "3/8"),
        ("auto/8", {"AWS_BATCH_JOB_ARRAY_INDEX": "3"}, "3/8"),
        ("auto", {"RANK": "3", "WORLD_SIZE": "8"}, "3/8"),
        ("auto/8", {"JOB_COMPLETION_INDEX": "3", "RANK": "0", "WORLD_SIZE": "1"}, "3/8"),
        # One task of an array, started again; an array of one; and what a shell has set to nothing
        ("auto/8", {"SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_TASK_COUNT": "1"}, "3/8"),
        ("auto", {"SLURM_ARRAY_TASK_ID": "0", "SLURM_ARRAY_TASK_COUNT": "1", "RANK": ""}, "0/1"),
        ("auto", {"RANK": "0", "WORLD_SIZE": "1"}, "0/1"),
    ],
)
def test_a_shard_is_read_from_the_option_or_from_the_scheduler(text, environment, shard) -> None:
    assert str(parse_shard(text, environment)) == shard


@pytest.mark.parametrize(
    ("text", "environment", "said"),
    [
        ("3", {}, "--shard must be I/N"),
        ("8/8", {}, "there is no shard 8 of 8; they are numbered from 0 to 7"),
        ("-1/8", {}, "--shard must be I/N"),
        ("0/0", {}, "must have from 1 to 100,000 shards"),
        (
            "auto",
            {},
            "finds none of SLURM_ARRAY_TASK_ID, JOB_COMPLETION_INDEX, AWS_BATCH_JOB_ARRAY_INDEX, RANK",
        ),
        ("auto", {"JOB_COMPLETION_INDEX": "3"}, "give it as --shard auto/N"),
        ("auto/3", {"JOB_COMPLETION_INDEX": "3"}, "JOB_COMPLETION_INDEX=3: there is no shard 3 of 3"),
        ("auto", {"RANK": "x", "WORLD_SIZE": "8"}, "RANK must be a number"),
        (
            "auto",
            {"SLURM_ARRAY_TASK_ID": "9", "SLURM_ARRAY_TASK_COUNT": "3", "SLURM_ARRAY_TASK_MIN": "1"},
            "is not one of 3 numbers in a row from 1",
        ),
        (
            "auto",
            {"JOB_COMPLETION_INDEX": "3", "RANK": "1", "WORLD_SIZE": "2"},
            "finds both JOB_COMPLETION_INDEX and RANK",
        ),
    ],
)
def test_what_says_no_shard_is_told_in_a_sentence(text, environment, said) -> None:
    with pytest.raises(UsageError, match=said):
        parse_shard(text, environment)
