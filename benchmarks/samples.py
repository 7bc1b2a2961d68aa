"""Write the sample videos that ship with the package: motion-shapes clips of classes the bundled model never saw, and
a video of four scenes for camera movements.

    python benchmarks/samples.py

Nothing is picked by hand: every fifth unseen class and the first class in neither list, the clip after those that
evaluations use. ``labels.txt`` holds all unseen labels. The scenes are the clips after those that evaluations use, too.
"""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np

from zsar_cli.data import motion_shapes
from zsar_cli.data.scenes import classes as scenes
from zsar_cli.data.scenes import render

FILLERS = {"a", "the", "while", "each", "other"}  # file names stay short
SAMPLES = Path(__file__).parent.parent / "zsar_cli" / "assets" / "samples"
SHOTS = SAMPLES.parent / "shots.mp4"
MOVES = ("the camera pans left", "a static shot", "the camera zooms in", "the camera tilts up")


def file_name(label: str) -> str:
    """The label less its small words."""
    return "-".join(word for word in label.split() if word not in FILLERS) + ".mp4"


def write_video(path: Path, label: str, index: int, *, split: str = "unseen", size: int = 128) -> None:
    """Write one clip as H.264 .mp4 (2 s at 12 frames a second), for people to look at and for the decoder to read."""
    frames = motion_shapes.render(
        label,
        index,
        split=split,
        frames=int(motion_shapes.SECONDS * motion_shapes.FRAMES_PER_SECOND),
        size=size,
    )
    encode(path, frames, motion_shapes.FRAMES_PER_SECOND)


def write_shots(path: Path, size: int = 160) -> None:
    """Write a scene of each of MOVES, one after the other, with hard cuts between them."""
    index, count = scenes.CLIPS_PER_CLASS["camera"], int(render.SECONDS * render.FRAMES_PER_SECOND)
    shots = [render.render(label, index, split="camera", frames=count, size=size) for label in MOVES]
    encode(path, np.concatenate(shots), render.FRAMES_PER_SECOND)


def encode(path: Path, frames: np.ndarray, rate: int) -> None:
    """Write frames (T, H, W, 3) as H.264 .mp4."""
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("h264", rate=rate, options={"crf": "24"})
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], "yuv420p"
        for pixels in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())


def main() -> None:
    """Write them."""
    SAMPLES.mkdir(parents=True, exist_ok=True)
    for old in SAMPLES.glob("*.mp4"):
        old.unlink()
    unseen = motion_shapes.class_labels("unseen")
    for split, labels in (("unseen", unseen[::5]), ("neither", motion_shapes.class_labels("neither")[:1])):
        for label in labels:
            path = SAMPLES / (file_name(label) if split == "unseen" else f"neither-{file_name(label)}")
            write_video(path, label, motion_shapes.CLIPS_PER_CLASS[split], split=split)
            print(path.name, path.stat().st_size)
    write_shots(SHOTS)
    print(SHOTS.name, SHOTS.stat().st_size)
    heading = "# Pairs of motions that motion-tiny never saw together in training.\n"
    (SAMPLES / "labels.txt").write_text(heading + "\n".join(unseen) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
