"""``make bench``: zsar beside what people would otherwise run, on this machine, in one run.

Writes ``benchmarks/results/performance.json`` and ``.md``, and the same tables into ``docs/performance.md``.
Contenders take turns; a figure is the median of five turns, with the least and the greatest.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks import agreement, feed, growth, inside, levers, material
from benchmarks.measure import Contender, Figure, OtherLoad, first_answer, python
from benchmarks.report import Results, write

HERE = Path(__file__).resolve().parent
LABELS = ["arm wrestling", "shooting a basketball", "riding a bicycle", "doing tai chi", "cooking"]


def main() -> None:
    """Measure what was asked for and write the report."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--quick",
        action="store_true",
        help="does it run? Two turns of few things with tiny models; nothing is written",
    )
    parser.add_argument(
        "--only", nargs="*", choices=list(SECTIONS), help="some sections; the others stay as they are"
    )
    parser.add_argument("--work", type=Path, default=material.WORK, help="for videos and models")
    options = parser.parse_args()
    setup = Setup(options.work, rounds=2 if options.quick else 5, quick=options.quick)
    results, load = Results(quick=options.quick), OtherLoad()
    for name, section in SECTIONS.items():
        if options.only and name not in options.only:
            continue
        start = time.perf_counter()
        print(f"{name} ...", file=sys.stderr, flush=True)
        section(setup, results)
        print(f"{name}: {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)
    results.other_load = load.share()
    if options.quick:
        print(results.markdown())
    else:
        earlier = HERE / "results" / "performance.json"
        if options.only and earlier.is_file():
            results.put_into(json.loads(earlier.read_text(encoding="utf-8")))
        write(results, HERE / "results", HERE.parent / "docs" / "performance.md")


class Setup:
    """Videos and models, made once and kept for the next run."""

    def __init__(self, work: Path, rounds: int, quick: bool) -> None:
        self.work, self.rounds, self.quick = work, rounds, quick
        work.mkdir(parents=True, exist_ok=True)
        print(f"videos and models in {work} ...", file=sys.stderr, flush=True)
        self.turns = material.make_clips(work / "videos", 5)[:rounds]
        self.tiny = str(material.make_clip_model(work / "tiny", material.TINY))
        if quick:
            self.clip = self.tiny
            self.motion = str(material.make_motion_model(work / "tiny-motion", work / "tiny"))
        else:
            self.clip = str(material.make_clip_model(work / "vit-b-16"))
            self.motion = str(material.make_motion_model(work / "motion", work / "vit-b-16"))
        self.short = work / "videos" / "640x360.mp4"
        self.xclip: str | None = None
        with contextlib.suppress(ImportError):  # the extra "bench" is not installed
            self.xclip = str(material.make_xclip(work / ("tiny-xclip" if quick else "xclip"), tiny=quick))

    def fresh(self, name: str) -> dict[str, str]:
        """An environment whose text cache is empty."""
        return {"ZSAR_CACHE_DIR": tempfile.mkdtemp(prefix=name, dir=self.work)}


def zsar(model: str, *more: str) -> list[str]:
    """``zsar predict`` of a list on standard input."""
    labels = [part for label in LABELS for part in ("--label", label)]
    return [
        *python("zsar_cli"),
        "--quiet",
        "predict",
        "-",
        "--model",
        model,
        "--format",
        "jsonl",
        *labels,
        *more,
    ]


def predict(setup: Setup, results: Results) -> None:
    """Videos a second and memory, in turns over the same videos."""
    makers: dict[str, Callable[[], Contender]] = {
        "zsar": lambda: Contender("zsar", zsar(setup.clip), setup.fresh("texts")),
        "zsar, int8": lambda: Contender(
            "zsar", zsar(setup.clip, "--precision", "int8"), setup.fresh("texts")
        ),
        "zsar, the whole method": lambda: Contender("zsar", zsar(setup.motion), setup.fresh("texts")),
        "plain loop": lambda: Contender("plain", python("benchmarks.peers", "plain", setup.clip, *LABELS)),
    }
    if setup.xclip:
        xclip = setup.xclip
        makers["X-CLIP of transformers"] = lambda: Contender(
            "xclip", python("benchmarks.peers", "xclip", xclip, *LABELS)
        )
    warm = str(setup.short)  # zsar answers a path once, so not one of those to come
    rate = {name: Figure() for name in makers}
    memory: dict[str, Figure] = {}
    with contextlib.ExitStack() as stack:
        running = {}
        for name, make in makers.items():
            running[name] = make()
            stack.callback(running[name].close)
            running[name].turn([warm])
        for paths in setup.turns:
            if setup.quick:
                paths = paths[::4]
            for name, contender in running.items():
                rate[name].values.append(len(paths) / contender.turn(paths)[0])
        memory = {name: Figure([contender.peak / 2**20]) for name, contender in running.items()}
    clips = sum(len(paths[::4] if setup.quick else paths) for paths in setup.turns)
    results.table(
        f"predict: {clips} clips of 320x240 to 1080p, ViT-B/16, 8 frames, {len(LABELS)} labels",
        ["", "videos a second", "peak memory, MB"],
        [[name, rate[name].text(), memory[name].text(0)] for name in makers],
        {name: {"videos_per_second": rate[name], "memory_mb": memory[name]} for name in makers},
    )
    peers = {"plain loop": "plain loop", "X-CLIP": "X-CLIP of transformers"}
    for peer, name in peers.items():
        for ours, at_least in (("zsar", 1.25), ("zsar, int8", 2.0)):
            if name in rate:
                ratio = rate[ours].median / rate[name].median
                results.ratio(f"{ours} : {peer}, videos a second", ratio, at_least=at_least)
    if not setup.xclip:
        results.note("X-CLIP: not measured, transformers is not installed (extra `bench`).")


def first(setup: Setup, results: Results) -> None:
    """Seconds from the command to the first record."""
    path = setup.turns[0][0]
    commands: dict[str, Callable[[], float]] = {
        "import torch and open_clip, load the weights": lambda: first_answer(
            python("benchmarks.peers", "load", setup.clip), ""
        ),
        "zsar, labels never seen": lambda: first_answer(zsar(setup.clip), path, setup.fresh("texts")),
        "zsar, labels seen before": lambda: first_answer(
            zsar(setup.clip), path, {"ZSAR_CACHE_DIR": str(setup.work / "texts")}
        ),
        "plain loop": lambda: first_answer(python("benchmarks.peers", "plain", setup.clip, *LABELS), path),
    }
    if setup.xclip:
        xclip = setup.xclip
        commands["X-CLIP of transformers"] = lambda: first_answer(
            python("benchmarks.peers", "xclip", xclip, *LABELS), path
        )
    first_answer(zsar(setup.clip), path, {"ZSAR_CACHE_DIR": str(setup.work / "texts")})  # fills both caches
    figures = {name: Figure() for name in commands}
    for _ in range(setup.rounds):
        for name, command in commands.items():
            figures[name].values.append(command())
    results.table(
        "seconds to the first record of a 320x240 video",
        ["", "seconds"],
        [[name, figure.text()] for name, figure in figures.items()],
        dict(figures),
    )
    base = figures["import torch and open_clip, load the weights"].median
    results.ratio(
        "first record : importing and loading", figures["zsar, labels seen before"].median / base, at_most=1.3
    )


def training(setup: Setup, results: Results) -> None:
    """Seconds a step and peak memory, in turns."""
    videos = [setup.turns[0][0], setup.turns[0][4]]
    kinds = {
        "mean pooling, tune: full": "mean",
        "the method, tune: full": "full",
        "the method, tune: modules": "modules",
        "the method, tune: modules, cached": "cached",
    }
    figures = {name: Figure() for name in kinds}
    with contextlib.ExitStack() as stack:
        running = {}
        for name, kind in kinds.items():
            folder = tempfile.mkdtemp(prefix="run", dir=setup.work)
            running[name] = Contender(kind, python("benchmarks.steps", kind, setup.clip, folder, *videos))
            stack.callback(running[name].close)
            running[name].turn(["warm up"])
        for _ in range(setup.rounds):
            for name, contender in running.items():
                figures[name].values.append(contender.turn(["step"])[0])
        memory = {name: contender.peak / 2**20 for name, contender in running.items()}
    results.table(
        "training steps: 2 clips of 8 frames, ViT-B/16, fp32, 16 labels, decoding included",
        ["", "seconds a step", "peak memory, MB"],
        [[name, figure.text(), f"{memory[name]:.0f}"] for name, figure in figures.items()],
        {name: {"seconds": figures[name], "memory_mb": Figure([memory[name]])} for name in kinds},
    )
    full, mean = "the method, tune: full", "mean pooling, tune: full"
    modules, cached = "the method, tune: modules", "the method, tune: modules, cached"
    results.ratio(
        "step of the method : mean pooling", figures[full].median / figures[mean].median, at_most=1.25
    )
    results.ratio("memory of the method : mean pooling", memory[full] / memory[mean], at_most=1.25)
    results.ratio("uncached : cached step", figures[modules].median / figures[cached].median, at_least=20)


SECTIONS: dict[str, Callable[[Setup, Results], None]] = {
    "predict": predict,
    "first": first,
    "inside": inside.measure,
    "levers": levers.measure,
    "precision": agreement.measure,
    "cache": inside.measure_caches,
    "training": training,
    "feed": feed.feed,
    "videos": growth.videos,
    "labels": growth.labels,
    "frames": growth.frames,
    "length": growth.length,
    "windows": growth.windows,
}

if __name__ == "__main__":
    os.environ.pop("ZSAR_MODEL", None)
    main()
