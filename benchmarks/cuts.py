"""Hard cuts between joined clips: found by zsar, and by the plain content measure that PySceneDetect uses.

python -m benchmarks.cuts --data FOLDER [--data FOLDER ...] [--videos FILE ...]

Clips are drawn and joined by chance, four at a time, each as it is or changed in one of the ways below. VIDEOS are
scanned as they are, for cuts that are told by their frame numbers.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import av
import numpy as np

from zsar_cli.data.dataset import load_dataset
from zsar_cli.text.labels import load_labels
from zsar_cli.video.cuts import mark_cuts, shrinker
from zsar_cli.video.decode import read_frames

CONTENT = 27.0  # PySceneDetect's threshold
SIZE = (144, 144)
Frames = np.ndarray  # (T, H, W, 3) uint8


def ours(frames: Frames) -> list[int]:
    """Find cuts as ``zsar predict --shots`` does."""
    pictures = (av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), "rgb24") for frame in frames)
    return [number for number, (_, cut) in enumerate(mark_cuts(pictures, shrinker())) if cut]


def content(frames: Frames) -> list[int]:
    """Find cuts where hue, saturation and value differ by 27 on average (``ContentDetector``, no shortest shot)."""
    import cv2

    planes = [cv2.cvtColor(frame, cv2.COLOR_RGB2HSV).astype(np.float32) for frame in frames]
    steps = [float(np.abs(before - after).mean()) for before, after in pairwise(planes)]
    return [number + 1 for number, step in enumerate(steps) if step > CONTENT]


def flash(frames: Frames, rng: np.random.Generator) -> Frames:
    """Make one to three frames much brighter."""
    first = int(rng.integers(2, len(frames) - 4))
    changed = frames.astype(np.int16)
    changed[first : first + int(rng.integers(1, 4))] += int(rng.integers(80, 255))
    return np.clip(changed, 0, 255).astype(np.uint8)


def noise(frames: Frames, rng: np.random.Generator) -> Frames:
    """Add noise of 20 of 255."""
    return np.clip(frames + rng.normal(0, 20, frames.shape), 0, 255).astype(np.uint8)


def faster(frames: Frames, rng: np.random.Generator) -> Frames:
    """Take every third frame: movement of three times the speed."""
    return frames[::3]


def darker(frames: Frames, rng: np.random.Generator) -> Frames:
    """Switch a lamp off half way: half the light."""
    changed = frames.astype(np.float32)
    changed[len(frames) // 2 :] *= 0.5
    return changed.astype(np.uint8)


def plain(frames: Frames, rng: np.random.Generator) -> Frames:
    """Change nothing."""
    return frames


CHANGES: dict[str, Callable[[Frames, np.random.Generator], Frames]] = {
    "as they are": plain,
    "a flash in each": flash,
    "noise": noise,
    "three times as fast": faster,
    "half the light from the middle on": darker,
}


def joined(
    paths: Sequence[str], change: Callable[[Frames, np.random.Generator], Frames], count: int
) -> Iterator[tuple[Frames, list[int]]]:
    """Yield videos of four clips of different files each, and the frames at which shots begin."""
    rng = np.random.default_rng(0)
    sources = sorted({Path(path).stem for path in paths})
    for _ in range(count):
        shots = []
        for source in rng.choice(len(sources), 4, replace=False):
            path = rng.choice([path for path in paths if Path(path).stem == sources[source]])
            shots.append(change(resized(str(path)), rng))
        yield np.concatenate(shots), np.cumsum([len(shot) for shot in shots])[:-1].tolist()


def resized(path: str) -> Frames:
    """Read a clip at one size."""
    from PIL import Image

    return np.stack(
        [np.asarray(Image.fromarray(frame).resize(SIZE)) for frame in read_frames(path, range).frames]
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", action="append", default=[], metavar="FOLDER")
    parser.add_argument("--videos", nargs="*", default=[], metavar="FILE")
    parser.add_argument(
        "--count", type=int, default=50, help="joined videos of each kind, with three cuts each"
    )
    args = parser.parse_args(argv)
    names = load_labels("camera").names
    paths = [item.path for folder in args.data for item in load_dataset(folder, classes=names).items]
    methods = {"zsar": ours, "content measure": content}
    if paths:
        print(f"\n| clips | cuts | {' | '.join(f'{name}: missed | {name}: false' for name in methods)} |")
        print("|---|---|" + "---|---|" * len(methods))
    for kind, change in CHANGES.items() if paths else ():
        cuts, counts = 0, {name: np.zeros(2, int) for name in methods}
        for frames, truth in joined(paths, change, args.count):
            cuts += len(truth)
            for name, find in methods.items():
                found = set(find(frames))
                counts[name] += (len(set(truth) - found), len(found - set(truth)))
        print(
            f"| {kind} | {cuts} | {' | '.join(str(n) for name in methods for n in counts[name])} |",
            flush=True,
        )
    for video in args.videos:
        frames = read_frames(video, range).frames
        print(f"\n{video}")
        for name, find in methods.items():
            print(f"- {name}: {', '.join(map(str, find(frames))) or 'none'}")


if __name__ == "__main__":
    main()
