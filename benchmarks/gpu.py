"""On a GPU: videos predicted a second, clips trained on a second, and how long the GPU waited for that.

    python -m benchmarks.gpu --json gpu.json

Weights are random and videos are made in place, so nothing is downloaded; five minutes on an H100. Of the two kinds of
waiting, **waiting for clips** is the share of the time in which the host had no decoded clip to give, and **GPU idle**
is 100 less the mean of NVML's utilisation, the share of a moment in which any kernel ran, asked 20 times a second.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import material
from benchmarks.measure import Contender, Figure, GpuUse, counted_waits, python
from benchmarks.report import Results
from zsar_cli.model.zsar import Parts, RecognizerModel
from zsar_cli.prediction.clips import ClipOptions, answer_clips
from zsar_cli.recognizer import Recognizer
from zsar_cli.resources import default_workers
from zsar_cli.text.labels import load_labels
from zsar_cli.text.templates import load_templates
from zsar_cli.training.data import Batch
from zsar_cli.training.recipe import load_recipe
from zsar_cli.training.start import with_precision
from zsar_cli.training.train import train
from zsar_cli.training.trainer import Trainer
from zsar_cli.video.pool import Clip, ClipRequest, DecodePool, load_clip

SIZE = (340, 256)  # of the videos: Kinetics as it is handed on
FRAMES = 8
MODELS = {"ViT-B/16": "ViT-B-16", "ViT-L/14": "ViT-L-14"}
LABELS = "kinetics400"
A_STEP = 128  # clips of an optimiser step


@dataclass
class Setup:
    """What is measured on what."""

    work: Path
    device: str
    quick: bool
    peers: bool
    clips: int
    results: Results
    videos: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        folder = self.work / "videos"
        folder.mkdir(parents=True, exist_ok=True)
        seconds = 1 if self.quick else material.SECONDS
        made = self.work / f"made-{seconds}"
        made.mkdir(exist_ok=True)
        masters = [material.make_clip(made / f"{n}.mp4", SIZE, n, seconds) for n in range(4)]
        for number in range(self.clips):
            copy = folder / f"class{number % 2}" / f"copy{number:04d}.mp4"
            copy.parent.mkdir(exist_ok=True)
            if not copy.is_file():
                shutil.copyfile(masters[number % 4], copy)
            self.videos.append(str(copy))

    @property
    def gpu(self) -> bool:
        return self.device != "cpu"

    @property
    def workers(self) -> int:
        return 0 if self.quick else default_workers()

    def wait(self) -> None:
        """Until the GPU has done what it was asked."""
        if self.gpu:
            torch.cuda.synchronize()

    def forget(self) -> None:
        """Give back the memory of what is no longer used, and begin a new count of its peak."""
        if self.gpu:
            gc.collect()
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()

    def peak(self) -> float:
        """GB of the GPU's memory that were taken at most."""
        return torch.cuda.max_memory_allocated() / 2**30 if self.gpu else 0.0

    def timed(self, action: Callable[[], object]) -> tuple[float, float | None]:
        """Seconds that it takes, and how much of them the GPU was idle, in %."""
        self.wait()
        with GpuUse() as use:
            start = time.perf_counter()
            action()
            self.wait()
            seconds = time.perf_counter() - start
        return seconds, use.idle


# --- prediction


def predict(setup: Setup, name: str, clip: str, motion: str) -> None:
    """Videos a second, from their files; contenders take turns."""
    figures: dict[str, Figure] = {}
    about: dict[str, list[str]] = {}
    usual = setup.workers
    kinds = {"zsar": (clip, usual), "zsar, the whole method": (motion, usual)}
    if not setup.quick:
        kinds |= {f"zsar, {n} decoding processes": (clip, n) for n in (2, 8, 16) if n != usual}
    with contextlib.ExitStack() as stack:
        peers = {}
        for peer, running in open_peers(setup, name, clip).items():
            stack.callback(running.close)
            running.turn(setup.videos[:2])
            peers[peer] = running
        for turn in range(1 if setup.quick else 2):
            for kind, (folder, workers) in kinds.items():
                if turn and workers != usual:
                    continue
                recognizer = Recognizer.load(folder, device=setup.device)
                text = recognizer.embed_labels(LABELS if not setup.quick else ["a", "b", "c"])
                with DecodePool(workers) as pool:
                    ask = partial(recognizer.run, text=text, pool=pool, options=ClipOptions(batch_size=32))
                    list(
                        ask(setup.videos[: max(1, 2 * workers)])
                    )  # the processes have started, and the GPU is warm
                    before = recognizer.times.seconds["waiting for decoders"]
                    seconds, idle = setup.timed(lambda: list(ask(setup.videos)))  # noqa: B023
                    waited = recognizer.times.seconds["waiting for decoders"] - before
                figures.setdefault(kind, Figure()).values.append(len(setup.videos) / seconds)
                about[kind] = [str(workers), percent(100 * waited / seconds), percent(idle)]
                setup.forget()
            for peer, running in peers.items():
                some = setup.videos[: max(2, len(setup.videos) // 8)]
                with GpuUse() as use:
                    seconds, _ = running.turn(some)
                figures.setdefault(peer, Figure()).values.append(len(some) / seconds)
                about[peer] = ["", "", percent(use.idle)]
    setup.results.table(
        f"predict, {name}: {len(setup.videos)} videos of {SIZE[0]}x{SIZE[1]} and {material.SECONDS} s, {FRAMES} "
        "frames, 400 labels (peers: 5)",
        ["", "videos a second", "decoding processes", "waiting for clips, %", "GPU idle, %"],
        [[kind, figure.text(1), *about[kind]] for kind, figure in figures.items()],
        dict(figures),
    )
    if "plain loop" in figures:
        ratio = figures["zsar"].median / figures["plain loop"].median
        setup.results.ratio(f"{name}: zsar : plain loop, videos a second", ratio, at_least=1)


def open_peers(setup: Setup, name: str, clip: str) -> dict[str, Contender]:
    """What people would run otherwise, a video at a time, under autocast to bf16."""
    if not setup.peers:
        return {}
    labels, env = ["arm wrestling", "cooking", "tai chi", "skiing", "yoga"], {"BENCH_DEVICE": setup.device}
    found = {"plain loop": Contender("plain", python("benchmarks.peers", "plain", clip, *labels), env)}
    if name == "ViT-L/14":
        return found
    try:
        folder = str(
            material.make_xclip(setup.work / "xclip-tiny" if setup.quick else "xclip", tiny=setup.quick)
        )
    except ImportError as error:
        setup.results.note(f"X-CLIP: not measured ({error})")
        return found
    found["X-CLIP of transformers"] = Contender(
        "xclip", python("benchmarks.peers", "xclip", folder, *labels), env
    )
    return found


def tower(setup: Setup, name: str, clip: str, motion: str) -> None:
    """Videos a second from decoded clips in memory: copy, normalisation, tower and scores."""
    rows, figures = [], {}
    for kind, folder in {"plain CLIP": clip, "the whole method": motion}.items():
        for precision in ("auto", "fp32") if setup.gpu else ("auto",):
            recognizer = Recognizer.load(folder, device=setup.device, precision=precision)
            model, text = recognizer.model, recognizer.embed_labels(["arm wrestling", "cooking", "tai chi"])
            one = load_clip(ClipRequest(setup.videos[0], preprocess=model.preprocess))
            sizes = (1, 8, 32, 64) if precision == "auto" else (32,)
            for size in (2,) if setup.quick else sizes:
                batch = [(None, one)] * size
                turns = 2 if setup.quick else max(4, 256 // size)
                setup.forget()
                answer_clips(model, batch, text)
                seconds, idle = setup.timed(lambda: [answer_clips(model, batch, text) for _ in range(turns)])  # noqa: B023
                figure = Figure([turns * size / seconds])
                figures[f"{kind}, {recognizer.precision}, {size}"] = figure
                memory = f"{setup.peak():.2f}"
                cells = [kind, recognizer.precision, str(size), figure.text(1), percent(idle), memory]
                rows.append(cells)
            if setup.gpu and precision == "auto":
                count_batch(setup, name, kind, model, [(None, one)] * 8, text)
    setup.results.table(
        f"from decoded clips, {name}: {FRAMES} frames",
        ["", "precision", "clips a batch", "clips a second", "GPU idle, %", "peak memory, GB"],
        rows,
        figures,
    )


def count_batch(
    setup: Setup, name: str, kind: str, model: RecognizerModel, batch: Sequence[tuple[None, Clip]], text: Any
) -> None:
    """How often a predicted batch waits for the GPU."""
    with counted_waits() as places:
        answer_clips(model, batch, text)
    setup.results.note(waits(f"{name}, {kind}: a predicted batch of {len(batch)}", places))


# --- training


def training(setup: Setup, name: str, clip: str) -> None:
    """Clips a second of full tuning, from clips in memory: with what is found to fit, and with given micro-batches."""
    rows, figures = [], {}
    ways: list[tuple[int | None, bool | None]] = [(None, None)]
    ways += [(size, again) for again in (False, True) for size in ((2,) if setup.quick else (8, 16, 32))]
    for size, checkpointing in ways:
        setup.forget()
        run = Steps(setup, clip, size, checkpointing)
        rate, idle = run.timed()
        gradient = run.trainer.gradient
        way, again = f"{gradient.portion.size}", "yes" if gradient.checkpointing else "no"
        way += ", as found" if size is None else ""
        rows.append([way, again, rate.text(1), percent(idle), f"{setup.peak():.1f}"])
        figures[f"{way}, {again}"] = rate
        if setup.gpu and size is None:
            portions = -(-run.clips // gradient.portion.size)
            setup.results.note(waits(f"{name}: a training step of {portions} portions", run.waits()))
        del run, gradient
    setup.results.table(
        f"training, {name}, tune: full: {A_STEP} clips of {FRAMES} frames and 400 labels a step, from memory",
        ["clips at once", "checkpointing", "clips a second", "GPU idle, %", "peak memory, GB"],
        rows,
        figures,
    )


class Steps:
    """Steps of the recipe ``kinetics`` over the same clips; ``size`` of them go through the model at once."""

    def __init__(self, setup: Setup, clip: str, size: int | None, checkpointing: bool | None) -> None:
        self.setup, self.clips = setup, 4 if setup.quick else A_STEP
        recipe = load_recipe("kinetics", model=clip, gradient_checkpointing=checkpointing)
        recipe = with_precision(replace(recipe, batch_size=self.clips), setup.device, None)
        torch.manual_seed(0)
        model = RecognizerModel(Recognizer.load(clip, precision="fp32").model.backbone, Parts())
        names = load_labels(LABELS).names[: 8 if setup.quick else None]
        shape = (self.clips, FRAMES, *model.preprocess.size, 3)
        self.pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 255, shape, np.uint8))
        self.target = torch.arange(self.clips) % len(names)
        self.trainer = Trainer(
            *(model.to(setup.device), recipe, names, load_templates(recipe.templates), self.stream),
            *(1, Path("unused"), setup.device),
            micro_batch=size,
        )
        self.trainer.save_checkpoint = lambda: None  # type: ignore[method-assign]

    def stream(self, first: int) -> Iterator[Batch]:
        for step in range(first, self.trainer.steps):
            yield Batch(step, 0, self.pixels, self.target)

    def run(self, steps: int) -> list[float]:
        """Seconds at the start and after each step."""
        ends = [time.perf_counter()]

        def report(_: object) -> None:
            self.setup.wait()
            ends.append(time.perf_counter())

        self.trainer.steps = self.trainer.step + steps
        self.trainer.run(report=report)
        return ends

    def timed(self) -> tuple[Figure, float | None]:
        """Clips a second of each of some steps after the first two, and the time that the GPU is idle, in %."""
        self.run(1 if self.setup.quick else 2)
        ends: list[float] = []
        _, idle = self.setup.timed(lambda: ends.extend(self.run(1 if self.setup.quick else 2)))
        return Figure([self.clips / seconds for seconds in np.diff(ends)]), idle

    def waits(self) -> Counter[str]:
        """How often a step waits for the GPU."""
        with counted_waits() as places:
            self.run(1)
        return places


def training_from_files(setup: Setup, name: str, clip: str) -> None:
    """Clips a second of ``zsar train`` on videos, decoded and augmented."""
    rows: list[dict[str, float]] = []
    ends: list[float] = []

    def report(row: dict[str, float], _: int) -> None:
        rows.append(row)
        ends.append(time.perf_counter())

    setup.forget()
    size, steps = (2, 3) if setup.quick else (32, 10)
    few = {
        "steps": steps,
        "batch_size": size,
        "accumulate": 1,
        "holdout": 0.0,
        "gradient_checkpointing": False,
    }
    output = tempfile.mkdtemp(dir=setup.work)
    with GpuUse() as use:
        train(
            setup.work / "videos",
            **{"config": "kinetics", "model": clip, "output": Path(output) / "run", "device": setup.device},
            **{"workers": setup.workers, "report": report, **few},
        )
    shutil.rmtree(output)
    seconds = ends[-1] - ends[1]  # the first two steps fill the queues
    rate = Figure([(len(ends) - 2) * size / seconds])
    waited = 100 * sum(row["data_wait"] for row in rows[2:]) / seconds
    setup.results.table(
        f"training, {name}, from videos of {SIZE[0]}x{SIZE[1]}: {size} clips a step",
        ["decoding processes", "clips a second", "waiting for clips, %", "GPU idle with start and end, %"],
        [[str(setup.workers), rate.text(1), percent(waited), percent(use.idle)]],
        {"rate": rate},
    )


# --- the whole


def percent(value: float | None) -> str:
    """As the tables have it."""
    return "" if value is None else f"{value:.0f}"


def waits(what: str, places: Counter[str]) -> str:
    """A sentence about counted waits."""
    where = ", ".join(f"{place} {count}" for place, count in places.most_common())
    return f"waits for the GPU, {what}: {places.total()}" + (f" ({where})" if where else "")


def main(arguments: Sequence[str] | None = None) -> Results:
    """Measure, print the tables, and write them as JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--quick", action="store_true", help="does it run? Tiny models, few clips")
    parser.add_argument("--no-peers", action="store_true", help="zsar alone")
    parser.add_argument("--models", nargs="*", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--clips", type=int, default=400, help="videos to predict")
    parser.add_argument("--json", type=Path, help="write the figures there")
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "zsar-bench-gpu")
    options = parser.parse_args(arguments)
    results = Results(quick=options.quick)
    if options.device != "cpu":
        results.gpu = torch.cuda.get_device_name(options.device)
    peers = not options.no_peers
    setup = Setup(options.work, options.device, options.quick, peers, options.clips, results)
    chosen = [("tiny", material.TINY)] if options.quick else [(n, MODELS[n]) for n in options.models]
    for name, architecture in chosen:
        clip = material.make_clip_model(options.work / name.replace("/", "-"), architecture)
        motion = material.make_motion_model(options.work / f"{clip.name}-motion", clip)
        for section in (predict, tower):
            section(setup, name, str(clip), str(motion))
            say(options, results, f"{name}: {section.__name__}")
        training(setup, name, str(clip))
        say(options, results, f"{name}: training")
        if name != "ViT-L/14":
            training_from_files(setup, name, str(clip))
            say(options, results, f"{name}: training from files")
    print(results.markdown())
    return results


STARTED = time.perf_counter()


def say(options: argparse.Namespace, results: Results, done: str) -> None:
    """Tell what is done, and write what there is: a run that is stopped has that."""
    print(f"{time.perf_counter() - STARTED:4.0f} s  {done}", file=sys.stderr, flush=True)
    if options.json is not None:
        options.json.write_text(json.dumps(results.to_json(), indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
