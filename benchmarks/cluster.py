"""``--ray`` under failures, what Ray costs on one machine, and what archives cost: ``python -m benchmarks.cluster``.

Two Ray nodes on this machine answer links to the sample clips, some inputs broken and some missing. Meanwhile an actor
is killed, a node is removed, and the command itself is killed and started again. Each input must have one record, with
the numbers of a run without Ray. ``--overhead`` measures marginal videos a second with Ray and without; ``--plan``
measures the CPU time of a video and reckons what millions cost on many machines.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

from benchmarks.report import processor
from zsar_cli.files import ASSETS

LABELS = ("a circle moves left", "a circle moves right", "a square moves up", "a triangle spins")
MODEL = "motion-tiny"
CPUS = 2  # of a node, as Ray counts them
PATIENCE = 1500  # s


def make_inputs(folder: Path, count: int) -> list[str]:
    """Links to the samples; every fiftieth is broken, and every fiftieth is not there."""
    folder.mkdir()
    samples = sorted((ASSETS / "samples").glob("*.mp4"))
    broken = folder / "broken"
    broken.write_bytes(b"no video at all")
    names = []
    for number in range(count):
        path = folder / f"{number:06}.mp4"
        if number % 50 != 7:
            path.symlink_to(broken if number % 50 == 13 else samples[number % len(samples)])
        names.append(str(path))
    return names


def command(*more: object) -> list[str]:
    labels = [word for label in LABELS for word in ("--label", label)]
    return [
        sys.executable,
        "-m",
        "zsar_cli",
        "predict",
        "-",
        "--model",
        MODEL,
        *labels,
        "--device",
        "cpu",
        *map(str, more),
    ]


def run(names: list[str], *more: object) -> None:
    done = subprocess.run(command(*more), input="\n".join(names), text=True, capture_output=True, check=False)
    if done.returncode not in (0, 1):  # 1: some inputs failed, as they should
        sys.exit(f"{' '.join(command(*more))}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    say(f"    {done.stderr.strip().splitlines()[-1]}")


def say(text: str) -> None:
    print(text, flush=True)


def read(path: Path) -> dict[str, dict[str, Any]]:
    records = [json.loads(line) for line in path.read_text().splitlines()]
    twice = [name for name, times in Counter(r["video"] for r in records).items() if times > 1]
    if twice:
        sys.exit(f"{len(twice)} inputs have several records, such as {twice[0]}")
    return {record.pop("video"): record for record in records}


def difference(one: Any, other: Any) -> float:
    """The largest difference of two numbers in the same place; infinity where anything else differs."""
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        return max((difference(one[key], other[key]) for key in one), default=0.0)
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        return max(map(difference, one, other), default=0.0)
    if isinstance(one, float) and isinstance(other, float):
        return abs(one - other)
    return 0.0 if one == other else math.inf


class Failing:
    """A command on two nodes, and what is done to it once so many parts are there."""

    def __init__(self, folder: Path, names: list[str]) -> None:
        from ray.cluster_utils import Cluster

        from zsar_cli.cluster.connect import prepare_environment

        prepare_environment()
        self.started = time.monotonic()
        self.folder, self.names = folder, names
        self.cluster = Cluster(
            initialize_head=True, head_node_args={"num_cpus": CPUS, "include_dashboard": False}
        )
        self.node = self.cluster.add_node(num_cpus=CPUS)
        self.more = ("--ray", self.cluster.address, "--output", folder)

    def start(self) -> subprocess.Popen[str]:
        log = open(f"{self.folder}.log", "a")
        process = subprocess.Popen(
            command(*self.more), stdin=subprocess.PIPE, stdout=log, stderr=log, text=True
        )
        assert process.stdin is not None
        process.stdin.write("\n".join(self.names))
        process.stdin.close()
        return process

    def done(self) -> int:
        """Count the records of the parts whose checkpoints are there."""
        found = (self.folder / "_ray" / "checkpoints").rglob("*.parquet")
        bases = [path.stem for path in found if not path.name.endswith(".pending.parquet")]
        parts = [self.folder / f"{base}.jsonl" for base in bases]
        return sum(part.read_bytes().count(b"\n") for part in parts if part.exists())

    def await_records(self, share: float, process: subprocess.Popen[str]) -> str:
        """Wait until a share of all records is there."""
        deadline = time.monotonic() + PATIENCE
        while (count := self.done()) < share * len(self.names):
            if process.poll() is not None or time.monotonic() > deadline:
                said = Path(f"{self.folder}.log").read_text()[-3000:]
                sys.exit(f"the command ended or hangs at {count} records:\n{said}")
            time.sleep(0.2)
        return f"    {count} records after {time.monotonic() - self.started:.0f} s"

    def kill_actor(self) -> str:
        import psutil

        for process in psutil.process_iter(["cmdline", "ppid"]):
            with suppress(psutil.Error):
                title = " ".join(process.info["cmdline"] or ())
                ours = {parent.pid for parent in process.parents()} & {os.getpid()}
                if title.startswith("ray::MapWorker(MapBatches(_Actor)") and ours:
                    process.kill()
                    return f"process {process.pid}"
        return "none found"


def fail_and_go_on(count: int, work: Path) -> None:
    names = make_inputs(work / "inputs", count)
    say(f"{count} inputs without Ray ...")
    run(names, "--window", 0, "--output", work / "local.jsonl")
    failing = Failing(work / "answers", names)
    say(f"two nodes of {CPUS} CPUs after {time.monotonic() - failing.started:.0f} s; the same with --ray ...")
    first = failing.start()
    say(f"{failing.await_records(1 / 8, first)}; an actor is killed: {failing.kill_actor()}")
    say(f"{failing.await_records(3 / 8, first)}; a node is removed")
    failing.cluster.remove_node(failing.node, allow_graceful=False)
    say(f"{failing.await_records(5 / 8, first)}; the command is killed, and started again")
    first.kill()
    first.wait()
    kept = failing.done()
    again = failing.start()
    if again.wait(PATIENCE) not in (0, 1):
        sys.exit(Path(f"{failing.folder}.log").read_text()[-3000:])
    said = Path(f"{failing.folder}.log").read_text().strip().splitlines()[-1]
    say(f"    {kept} records were kept; all is done after {time.monotonic() - failing.started:.0f} s: {said}")
    merge = [
        sys.executable,
        "-m",
        "zsar_cli",
        "predict",
        "--merge",
        work / "answers",
        "--output",
        work / "merged.jsonl",
    ]
    merged = subprocess.run(merge, text=True, capture_output=True, check=False)
    say(f"    {merged.stderr.strip()}")
    here, there = read(work / "local.jsonl"), read(work / "merged.jsonl")
    for record in (*here.values(), *there.values()):
        record.pop("made_with", None)
    most = max((difference(here[name], there.get(name)) for name in names), default=0.0)
    errors = Counter(record["error"]["kind"] for record in there.values() if "error" in record)
    say(
        f"{len(there)} records for {count} inputs, each once; errors {dict(errors)}; largest difference {most:.1e}"
    )
    if len(there) != count or most > 1e-5 or merged.returncode:
        sys.exit("FAILED")


def overhead(count: int, work: Path) -> None:
    """Print videos a second, Ray's fixed cost aside: the difference of two runs, one three times as long."""
    from zsar_cli import Recognizer
    from zsar_cli.batch import BatchPredictor
    from zsar_cli.cluster.connect import connected, shared_out
    from zsar_cli.cluster.predict import predict_on
    from zsar_cli.cluster.stages import Answer, Decode
    from zsar_cli.prediction.clips import ClipOptions, clip_requests
    from zsar_cli.resources import available_cores

    names = [*make_inputs(work / "few", count), *make_inputs(work / "many", 3 * count)]
    few, many = names[:count], names[count:]
    recognizer = Recognizer.load(MODEL, device="cpu")
    text = recognizer.embed_labels(LABELS)
    (shown,) = clip_requests(recognizer.model, [""], ClipOptions())
    seconds: dict[tuple[str, int], float] = {}
    list(recognizer.predict_many(few[:20], text))

    def measured(kind: str, videos: list[str], answer: Any) -> None:
        started = time.monotonic()
        answer(videos)
        seconds[kind, len(videos)] = time.monotonic() - started
        say(f"    {kind}: {len(videos)} in {seconds[kind, len(videos)]:.1f} s")

    with connected("local") as ray:
        share = shared_out(ray, "cpu")
        predictor = BatchPredictor(text, MODEL, device="cpu", calibration="off")

        def on_ray(videos: list[str]) -> None:
            stages = Decode(shown, "/"), Answer(predictor, share.threads)
            predict_on(
                ray, videos, str(work / f"ray{len(videos)}"), *stages, share, made_with={"model": MODEL}
            )

        for videos in (few, many):
            measured("without Ray", videos, lambda videos: list(recognizer.predict_many(videos, text)))
            measured("with Ray", videos, on_ray)
    rates = {}
    for kind in ("without Ray", "with Ray"):
        rates[kind] = 2 * count / (seconds[kind, 3 * count] - seconds[kind, count])
        say(f"{kind}: {rates[kind]:.1f} videos a second at the margin")
    say(
        f"ratio {rates['with Ray'] / rates['without Ray']:.2f} (aim: at least 0.8), {available_cores()} cores"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--inputs", type=int, default=2000, help="inputs of the run with failures (default 2000)"
    )
    parser.add_argument("--overhead", type=int, metavar="N", help="only Ray's cost, with N and 3 N inputs")
    parser.add_argument("--plan", action="store_true", help="only what a video costs, and what millions do")
    asked = parser.parse_args()
    say(f"{processor()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    os.environ.pop("ZSAR_MODEL", None)
    with tempfile.TemporaryDirectory(prefix="zsar-cluster-") as folder:
        work = Path(folder)
        if asked.plan:
            from benchmarks.archive_plan import plan

            plan(work)
        elif asked.overhead:
            overhead(asked.overhead, work)
        else:
            fail_and_go_on(asked.inputs, work)


if __name__ == "__main__":
    main()
