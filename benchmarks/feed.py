"""``python -m benchmarks.feed [VIDEO ...]``: what a training clip costs a CPU, by stage, now and in version 0.2.0.

CPU time, of all processes: unlike the clock's it does not grow where others use the machine. "Before" is the loader of
version 0.2.0, kept here: Pillow resized every crop in the worker, and one thread of the parent changed its colours.
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks import material
from benchmarks.measure import Figure, OtherLoad
from benchmarks.report import Results
from zsar_cli.resources import available_cores
from zsar_cli.video import pool as pool_module
from zsar_cli.video.augment import Cutter
from zsar_cli.video.decode import read_frames
from zsar_cli.video.pool import DECODING_THREADS, Clip, ClipRequest, DecodePool, load_clip
from zsar_cli.video.reencode import CopyRequest, copy_video
from zsar_cli.video.sampling import Sampling, view_indices
from zsar_cli.video.transforms import Augmentation, Preprocess, random_crop_box

if TYPE_CHECKING:
    from torch import Tensor

    from benchmarks.__main__ import Setup

SIZES = ((340, 256), (1280, 720), (1920, 1080))
SECONDS, KEY_FRAMES = (
    10.0,
    250,
)  # of a clip, as Kinetics' are: almost all of one is decoded for its last frame
AUGMENTATION, PREPROCESS, SAMPLING = Augmentation(), Preprocess(), Sampling(8)
STAGES = ("decode", "cut and resize", "pass between processes", "colours", "normalise")
ROUNDS = 5
SMALL = 320  # pixels of the shorter side
CORES = 16  # of the machine whose loader is reckoned


# --- version 0.2.0 ------------------------------------------------------------------------------------------


class WholeCutter:
    """Cuts a box out of every frame and resizes it, whatever its size."""

    def __init__(self, augmentation: Augmentation, preprocess: Preprocess, seed: int) -> None:
        self.augmentation, self.preprocess, self.seed = augmentation, preprocess, seed

    def __call__(self, frame: np.ndarray) -> np.ndarray:
        """Give (1, h, w, 3) of the model's size."""
        from PIL import Image, ImageOps

        rng = np.random.default_rng([self.seed, 1])
        left, top, right, bottom = random_crop_box(frame.shape[0], frame.shape[1], self.augmentation, rng)
        flip = bool(rng.random() < self.augmentation.flip)
        image = Image.fromarray(np.ascontiguousarray(frame[top:bottom, left:right]))
        image = image.resize(self.preprocess.size[::-1], Image.Resampling.BICUBIC)
        return np.asarray(ImageOps.mirror(image) if flip else image)[None]


def load_before(request: ClipRequest) -> Clip:
    """Load a clip as version 0.2.0 did; workers find it by its name."""
    pool_module.Cutter = WholeCutter  # type: ignore[assignment, misc]
    return load_clip(request)


def colours_before(pixels: Tensor, seed: int) -> Tensor:
    """Change the colours of one clip (T, h, w, 3) uint8, a frame's channels first, by torchvision."""
    import torch
    from torchvision.transforms.v2 import functional

    draw = torch.rand(4, generator=torch.Generator().manual_seed(seed)).tolist()
    jitter = AUGMENTATION.colour_jitter
    brightness, contrast, saturation = (1 + jitter * (2 * value - 1) for value in draw[:3])
    clip = functional.adjust_brightness(pixels.movedim(-1, -3), brightness)
    clip = functional.adjust_saturation(functional.adjust_contrast(clip, contrast), saturation)
    return clip.movedim(-3, -1)


def normalise_before(pixels: Tensor) -> Tensor:
    """Normalise with an array for every operation."""
    import torch

    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (PREPROCESS.mean, PREPROCESS.std))
    result: Tensor = (pixels.movedim(-1, -3).to(torch.float32).div(255) - mean) / std
    return result


# --- now ----------------------------------------------------------------------------------------------------


def colours_now(pixels: Tensor, seed: int) -> Tensor:
    """Change the colours of one clip as the trainer does."""
    from zsar_cli.video.augment import change_colours, draw_colours

    colours = draw_colours(AUGMENTATION, [seed])
    assert colours is not None
    return change_colours(pixels[None], colours)[0]


def normalise_now(pixels: Tensor) -> Tensor:
    """Normalise as the trainer does."""
    from zsar_cli.video.transforms import normalise

    return normalise(pixels, PREPROCESS)


# --- stages -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Way:
    """A loader: its class that cuts, and what the parent does."""

    cutter: type
    colours: Callable[[Tensor, int], Tensor]
    normalise: Callable[[Tensor], Tensor]


BEFORE = Way(WholeCutter, colours_before, normalise_before)
NOW = Way(Cutter, colours_now, normalise_now)


def measure(path: str, ways: dict[str, Way], rounds: int) -> dict[str, dict[str, Figure]]:
    """Measure the stages of each way, in turns over other crops of one video: CPU ms a clip."""
    found = {name: {stage: Figure() for stage in STAGES} for name in ways}
    choose = choice_of(SAMPLING)
    frames = read_frames(path, choose).frames
    for seed in range(rounds + 1):
        decoding = cpu_ms(lambda: read_frames(path, choose, resize=lambda frame: frame[:1, :1]))[0]
        for name, way in ways.items():
            figures = found[name]
            for stage, ms in zip(STAGES, [decoding, *rest_of(way, frames, seed)], strict=True):
                if seed:  # the first turn pays for imports
                    figures[stage].values.append(ms)
    return found


def rest_of(way: Way, frames: np.ndarray, seed: int) -> list[float]:
    """Measure what follows decoding."""
    import torch

    from zsar_cli.video.augment import fit

    cutter = way.cutter(AUGMENTATION, PREPROCESS, seed)
    cutting, crops = cpu_ms(lambda: np.concatenate([cutter(frame) for frame in frames]))
    passing, _ = cpu_ms(lambda: through_a_pipe(crops))
    fitting, pixels = cpu_ms(lambda: fit(torch.from_numpy(crops), PREPROCESS))
    colouring, coloured = cpu_ms(lambda: way.colours(pixels, seed))
    normalising, _ = cpu_ms(lambda: way.normalise(coloured))
    return [cutting + fitting, passing, colouring, normalising]


def choice_of(sampling: Sampling) -> Callable[[int], list[int]]:
    """Choose the frames of a clip."""

    def choose(count: int) -> list[int]:
        return [int(index) for index in view_indices(count, sampling).reshape(-1)]

    return choose


def cpu_ms(work: Callable[[], Any]) -> tuple[float, Any]:
    """CPU ms that something takes in this process, all threads; and what it gives."""
    start = time.process_time()
    result = work()
    return 1000 * (time.process_time() - start), result


def through_a_pipe(clip: np.ndarray) -> None:
    """Send a clip through a pipe, as workers do, and receive it."""
    from zsar_cli.video.worker import pickled, receive, send_bytes

    read, write = os.pipe()
    with os.fdopen(read, "rb") as source, os.fdopen(write, "wb") as target:
        sender = threading.Thread(target=lambda: send_bytes(target, pickled(("item", clip))))
        sender.start()
        receive(source, 2**30)
        sender.join()


# --- the whole loader ---------------------------------------------------------------------------------------


def loader_ms(paths: Sequence[str], load: Callable[[Any], Any], way: Way, clips: int) -> tuple[float, float]:
    """CPU ms of clips from a decoding process: its own, and this one's; without what starting takes."""
    few, many = clips // 4, clips + clips // 4
    used = [_loaded(paths, load, way, count) for count in (few, many)]
    worker, parent = ((after - before) / (many - few) for before, after in zip(*used, strict=True))
    return worker, parent


def _loaded(paths: Sequence[str], load: Callable[[Any], Any], way: Way, count: int) -> tuple[float, float]:
    import torch

    from zsar_cli.video.augment import fit

    def requests() -> Iterator[ClipRequest]:
        base = ClipRequest("", SAMPLING, PREPROCESS, augmentation=AUGMENTATION)
        for number in range(count):
            yield replace(base, path=paths[number % len(paths)], seed=number)

    before = [_used(who) for who in (resource.RUSAGE_CHILDREN, resource.RUSAGE_SELF)]
    with DecodePool(1, load=load) as pool:
        for request, clip in pool.imap(requests()):
            pixels = fit(torch.from_numpy(clip.pixels[0]), PREPROCESS)
            way.normalise(way.colours(pixels, request.seed or 0))
    children, own = (
        _used(who) - start
        for who, start in zip((resource.RUSAGE_CHILDREN, resource.RUSAGE_SELF), before, strict=True)
    )
    return children, own


def _used(who: int) -> float:
    usage = resource.getrusage(who)
    return 1000 * (usage.ru_utime + usage.ru_stime)


def alone_ms(path: str, threads: Sequence[int], rounds: int) -> list[Figure]:
    """Milliseconds by the clock for the frames of a video that is decoded alone, by so many threads each, in turns."""
    found, choose = [Figure() for _ in threads], choice_of(SAMPLING)
    for _ in range(rounds):
        for figure, number in zip(found, threads, strict=True):
            start = time.perf_counter()
            read_frames(path, choose, resize=lambda frame: frame[:1, :1], threads=number)
            figure.values.append(1000 * (time.perf_counter() - start))
    return found


# --- tables -------------------------------------------------------------------------------------------------


def feed(setup: Setup, results: Results) -> None:
    """The section of ``python -m benchmarks``."""
    sizes = SIZES[:1] if setup.quick else SIZES
    report(
        made_for_it(setup.work, sizes),
        setup.work,
        results,
        rounds=setup.rounds,
        clips=8 if setup.quick else 40,
    )


def is_small(path: str) -> bool:
    """Tell whether a video is as those of Kinetics are passed around."""
    info = read_frames(path, lambda count: [0]).info
    return min(info.width, info.height) <= SMALL


def made_for_it(work: Path, sizes: Sequence[tuple[int, int]]) -> dict[str, str]:
    """Make a clip of each size."""
    (work / "videos").mkdir(parents=True, exist_ok=True)
    videos = {}
    for seed, (width, height) in enumerate(sizes):
        path = work / "videos" / f"{width}x{height}-one-group.mp4"
        clip = material.make_clip(path, (width, height), seed, SECONDS, KEY_FRAMES)
        videos[f"{width}x{height}"] = str(clip)
    return videos


def report(videos: dict[str, str], work: Path, results: Results, *, rounds: int, clips: int) -> None:
    """Measure videos by name, prepared copies of the small ones, and the loader with these."""
    import torch

    from benchmarks.feed import (
        load_before as load_in_worker,  # by that name, also where this runs as a program
    )

    torch.set_num_threads(1)
    small = [name for name, path in videos.items() if is_small(path)] or [next(iter(videos))]
    copies = {f"{name}, prepared": work / f"prepared-{number}.mp4" for number, name in enumerate(small)}
    for name, copy in zip(small, copies.values(), strict=True):
        copy_video(CopyRequest(videos[name], copy))
    rows: list[list[str]] = []
    totals: dict[str, float] = {}
    figures: dict[str, Any] = {}
    for name, path in {**videos, **copies}.items():
        found = measure(str(path), {"before": BEFORE, "now": NOW}, rounds)
        for way, stages in found.items():
            total = sum(figure.median for figure in stages.values())
            totals[f"{name} {way}"] = total
            rows.append([f"{name}, {way}", *(f"{stages[s].median:.1f}" for s in STAGES), f"{total:.1f}"])
        figures[name] = found
    results.table(
        "a training clip of 8 frames, CPU ms by stage, one core", ["", *STAGES, "all"], rows, figures
    )
    paths = [videos[name] for name in small]
    loaders = {
        "before": loader_ms(paths, load_in_worker, BEFORE, clips),
        "now": loader_ms(paths, load_clip, NOW, clips),
        "now, prepared": loader_ms([str(copy) for copy in copies.values()], load_clip, NOW, clips),
    }
    # Version 0.2.0 had two workers, and now there are all cores but two; on a GPU, the parent's share runs there
    workers = {"before": 2}
    rate = {
        name: min(1000 * workers.get(name, CORES - 2) / worker, 1000 / parent if name in workers else 1e9)
        for name, (worker, parent) in loaders.items()
    }
    results.table(
        f"the loader of training, CPU ms a clip of {', '.join(small)}",
        ["", "in a worker", "in the parent (on a CPU)", f"clips/s of {CORES} cores beside a GPU, reckoned"],
        [[name, *(f"{ms:.1f}" for ms in loaders[name]), f"{rate[name]:.0f}"] for name in loaders],
        {name: {"worker": Figure([w]), "parent": Figure([p])} for name, (w, p) in loaders.items()},
    )
    threads = (1, min(DECODING_THREADS, available_cores()))
    several = f"{threads[1]} threads"
    alone = {name: alone_ms(path, threads, rounds) for name, path in videos.items()}
    results.table(
        "8 frames of one video alone, ms",
        ["", "1 thread", several, "ratio"],
        [
            [name, f"{one.median:.0f}", f"{more.median:.0f}", f"{one.median / more.median:.2f}"]
            for name, (one, more) in alone.items()
        ],
        {name: {"1 thread": one, several: more} for name, (one, more) in alone.items()},
    )
    old, new, quick = (sum(pair) for pair in loaders.values())
    results.ratio("training's loader, CPU a clip, 0.2.0 : now", old / new, at_least=1.1)
    results.ratio("training's loader, CPU a clip, 0.2.0 : now, prepared", old / quick, at_least=1.5)
    before, now, copied = rate.values()
    results.ratio(
        f"training's loader, clips/s by default, {CORES} cores beside a GPU", now / before, at_least=3
    )
    results.ratio("the same, prepared", copied / before, at_least=6)


def main() -> None:
    """Measure these videos, or clips made for it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.feed", description=__doc__)
    parser.add_argument("videos", nargs="*", type=Path, help="in place of clips made for it")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--clips", type=int, default=40, help="that go through the whole loader")
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "zsar-bench")
    options = parser.parse_args()
    results, load = Results(), OtherLoad()
    videos = {path.name: str(path) for path in options.videos}
    report(
        videos or made_for_it(options.work, SIZES),
        options.work,
        results,
        rounds=options.rounds,
        clips=options.clips,
    )
    results.other_load = load.share()
    print(results.markdown())


if __name__ == "__main__":
    main()
