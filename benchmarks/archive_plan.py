"""What an archive costs on many machines, from what a video costs on this one: ``python -m benchmarks.cluster --plan``.

Measured in CPU seconds, which a busy machine changes less than the clock: decoding a clip, the visual tower on one
thread, starting a process, reading a line of the list, merging a record. All else is reckoned from these.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.material import make_clip, make_clip_model

VIDEOS = 5_000_000  # of 10 s
MACHINES = (8, 64, 512)
CORES = 16  # of a machine
LINES = 50_000
RECORDS = 10_000
TURNS = 3


def cpu_seconds(action: Callable[[], Any], turns: int = TURNS) -> float:
    """The median CPU time of an action, of this process with all its threads."""
    found = []
    for _ in range(turns):
        started = time.process_time()
        action()
        found.append(time.process_time() - started)
    return statistics.median(found)


def of_command(*arguments: object) -> float:
    """CPU seconds of a command and of all that it starts."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        [sys.executable, "-m", "zsar_cli", *map(str, arguments)], capture_output=True, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def measure(work: Path) -> dict[str, float]:
    """CPU seconds of each step."""
    import torch

    from zsar_cli import Recognizer
    from zsar_cli.prediction.clips import ClipOptions, answer_batch, clip_requests
    from zsar_cli.prediction.inputs import find_videos
    from zsar_cli.prediction.parts import Manifest, Tally, manifest_name
    from zsar_cli.prediction.shards import Shard
    from zsar_cli.video.pool import load_clip

    torch.set_num_threads(1)
    clip = make_clip(work / "clip.mp4", (640, 360), 0)
    folder = make_clip_model(work / "model")
    recognizer = Recognizer.load(folder, device="cpu")
    text = recognizer.embed_labels([f"label {number}" for number in range(100)])
    (request,) = clip_requests(recognizer.model, [str(clip)], ClipOptions())
    decoded = load_clip(request)
    cost = {"bytes": float(clip.stat().st_size)}
    cost["decoding"] = cpu_seconds(lambda: load_clip(request))
    cost["model"] = cpu_seconds(lambda: answer_batch(recognizer.model, [(request, None, decoded)], text))
    labels = work / "labels.txt"
    labels.write_text("".join(f"label {number}\n" for number in range(100)))
    start = of_command("predict", clip, "--model", folder, "--labels", labels, "--device", "cpu")
    cost["start"] = max(0.0, start - cost["decoding"] - cost["model"])
    listing = work / "list.txt"
    listing.write_text("".join(f"/archive/{number:08}.mp4\n" for number in range(LINES)))
    shard = Shard(0, 1000)

    def read() -> int:
        with listing.open("rb") as lines:
            return sum(shard.has(video) for video in find_videos(["-"], lines))

    cost["line"] = cpu_seconds(read, 1) / LINES
    record = answer_batch(recognizer.model, [(request, None, decoded)], text)[0][0].to_record()
    parts, tally = work / "parts", Tally()
    parts.mkdir()
    part = parts / "part-00000-of-00001.jsonl"
    with part.open("w") as file:
        for number in range(RECORDS):
            name = f"/archive/{number:08}.mp4"
            tally.add(name)
            file.write(json.dumps(record | {"video": name}) + "\n")
    said = Manifest(part.name, part.stat().st_size, RECORDS, {}, tally.inputs, {"model": "random"})
    (parts / manifest_name(Shard(0, 1))).write_bytes(said.to_json(Shard(0, 1)))
    nothing = of_command("--version")
    merging = of_command("predict", "--merge", parts, "--output", work / "merged.jsonl") - nothing
    assert (work / "merged.jsonl").exists()
    cost["record"] = merging / RECORDS
    return cost


def plan(work: Path) -> None:
    """Print what was measured, and what follows."""
    cost = measure(work)
    each = cost["decoding"] + cost["model"]
    print("measured, CPU seconds on one core (ViT-B/16, 8 frames, fp32, 100 labels; H.264, 640x360, 10 s):")
    print(f"  decoding, resizing      {cost['decoding']:.3f} a video   ({cost['bytes'] / 1e6:.2f} MB)")
    print(f"  visual tower, scores    {cost['model']:.3f} a video")
    print(f"  start of a process      {cost['start']:.1f}")
    print(f"  reading the list        {1e6 * cost['line']:.1f} millionths a line, in every task of --shard")
    print(f"  merging                 {1e6 * cost['record']:.1f} millionths a record, in one process")
    print(f"reckoned: {VIDEOS:,} such clips, machines of {CORES} such cores, one task a core")
    print("  machines   hours   core-hours   from the storage   fixed: start and list, % of the time")
    fixed = cost["start"] + VIDEOS * cost["line"]
    for machines in MACHINES:
        seconds = VIDEOS * each / (machines * CORES) + fixed
        rate = 8 * VIDEOS * cost["bytes"] / seconds / 1e9
        share, core_hours = 100 * fixed / seconds, machines * CORES * seconds / 3600
        print(f"  {machines:8} {seconds / 3600:7.2f} {core_hours:12.0f} {rate:13.2f} Gbit/s {share:20.1f}")
    print(f"  half of the time is fixed from {VIDEOS * each / fixed / CORES:.0f} machines on")
    print(f"  merging the parts: {VIDEOS * cost['record'] / 60:.1f} minutes, whatever the number of machines")
    feeds = CORES / cost["decoding"]
    print(
        f"reckoned: with a GPU in each, {CORES} cores decode {feeds:.0f} videos a second; the GPU must do as many"
    )
    for machines in MACHINES:
        seconds = VIDEOS / (feeds * machines) + fixed
        rate = 8 * VIDEOS * cost["bytes"] / seconds / 1e9
        print(f"  {machines:8} machines: {seconds / 3600:.2f} hours, {rate:.2f} Gbit/s from the storage")
