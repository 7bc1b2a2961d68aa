"""Hard cuts: found to the frame, and nothing else taken for one."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from zsar_cli.video.cuts import mark_cuts, shrinker
from zsar_cli.video.decode import iter_frames

SIZE = (96, 64)  # width, height


@cache
def scene(seed: int) -> Image.Image:
    """A picture of leaves: discs of many sizes and colours, one over the other."""
    rng = np.random.default_rng(seed)
    height, width = 240, 360
    picture = np.full((height, width, 3), rng.integers(30, 220, 3), np.uint8)
    ys, xs = np.mgrid[:height, :width]
    ground = rng.integers(0, 256, 3)
    for _ in range(120):
        x, y, radius = rng.uniform(0, width), rng.uniform(0, height), 8 * (1 - rng.random()) ** -0.6
        colour = np.clip(ground + rng.normal(0, 60, 3), 0, 255)
        picture[(xs - x) ** 2 + (ys - y) ** 2 < radius**2] = colour
    return Image.fromarray(picture)


def shot(
    seed: int, count: int = 20, *, pan: float = 0.0, zoom: float = 1.0, roll: float = 0.0, shake: float = 0.0
) -> list[np.ndarray]:
    """Frames of a scene under a camera that moves by so many pixels, times and degrees a frame."""
    rng, whole, frames = np.random.default_rng(seed), scene(seed), []
    for number in range(count):
        step = number - count / 2
        x, y = 180 + pan * step, 120.0
        x, y = x + shake * rng.normal(), y + shake * rng.normal()
        wide = whole.rotate(roll * step, center=(x, y)) if roll else whole
        half = np.array(SIZE) / 2 * zoom**-step
        box = (x - half[0], y - half[1], x + half[0], y + half[1])
        frames.append(np.asarray(wide.resize(SIZE, Image.Resampling.BILINEAR, box=clipped(box))))
    return frames


def clipped(box: tuple[float, ...]) -> tuple[float, ...]:
    left, top = max(box[0], 0), max(box[1], 0)
    return min(left, 350), min(top, 230), min(max(box[2], left + 5), 360), min(max(box[3], top + 5), 240)


def cuts(frames: list[np.ndarray]) -> list[int]:
    pictures = (av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), "rgb24") for frame in frames)
    return [number for number, (_, cut) in enumerate(mark_cuts(pictures, shrinker())) if cut]


def write(path: Path, frames: list[np.ndarray], rate: int = 20) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=rate)
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), "rgb24")))
        container.mux(stream.encode())
    return path


def grainy(frames: list[np.ndarray], strength: float) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [lit(frame + rng.normal(0, strength, frame.shape)) for frame in frames]


def lit(frame: np.ndarray, gain: float = 1.0, more: float = 0.0) -> np.ndarray:
    return np.clip(frame * gain + more, 0, 255).astype(np.uint8)


MOVES = {
    "still": {},
    "pan": {"pan": 4.0},
    "zoom": {"zoom": 1.04},
    "roll": {"roll": 4.0},
    "shake": {"shake": 4.0},
}


@pytest.mark.parametrize("move", MOVES)
def test_shots_that_are_joined_are_parted_to_the_frame(tmp_path: Path, move: str) -> None:
    lengths = [14, 13, 8, 11]
    joined = [frame for seed, count in enumerate(lengths) for frame in shot(seed, count, **MOVES[move])]
    assert cuts(grainy(joined, 12)) == [14, 27, 35]
    starts = {
        round(part.shot * 20, 3) for part in iter_frames(write(tmp_path / "a.mp4", joined), 4, opening=2.0)
    }
    assert starts == {0, 14, 27, 35}


def lookalikes() -> Iterator[tuple[str, list[np.ndarray]]]:
    """What a difference of neighbouring frames takes for a cut."""
    still, other = shot(1), shot(2)
    yield "a whip pan", shot(1, 12, pan=14.0)
    yield "a camera that is thrown about", shot(1, 30, shake=9.0)
    yield "a fast zoom", shot(1, 10, zoom=1.15)
    yield "a fast roll", shot(1, 12, roll=15.0)
    for length in (1, 2, 4):
        white = [lit(frame, 0.3, 180) for frame in still[8 : 8 + length]]
        yield f"a flash of {length}", [*still[:8], *white, *still[8 + length :]]
    yield "black frames", [*still[:8], *(0 * frame for frame in still[8:10]), *still[10:]]
    yield "a lamp that is switched off", [*still[:9], *(lit(frame, 0.45) for frame in still[9:])]
    yield "a fade from black", [lit(frame, min(n / 8, 1)) for n, frame in enumerate(still)]
    yield (
        "a dissolve",
        [lit(a * (1 - n / 19) + b * (n / 19)) for n, (a, b) in enumerate(zip(still, other, strict=True))],
    )
    yield "noise", grainy(still, 40)
    moving = shot(1, 10, pan=9.0)
    yield "every frame twice", [frame for frame in moving for _ in range(2)]
    one = [frame.copy() for frame in still]
    for n in range(6, 14):
        one[n][:, 12 * (n - 6) : 12 * (n - 6) + 50] = (200, 40, 40)
    yield "someone crosses close to the camera", one


def test_what_is_no_cut_is_not_taken_for_one() -> None:
    found = {name: cuts(frames) for name, frames in lookalikes()}
    assert found == {name: [] for name in found}


def test_a_flash_at_a_cut_is_one_cut_and_shots_of_one_colour_are_parted() -> None:
    first, second = shot(1, 12), shot(2, 12)
    assert cuts([*first[:-1], lit(first[-1], 0.2, 200), *second]) in ([11], [12])
    flat = [
        np.full((SIZE[1], SIZE[0], 3), colour, np.uint8)
        for colour in ((0, 0, 0), (200, 30, 30), (20, 30, 200))
    ]
    assert cuts([frame for frame in flat for _ in range(8)]) == [8, 16]
    assert cuts([flat[0]]) == []


def test_cuts_of_a_folder_of_images(tmp_path: Path) -> None:
    for number, frame in enumerate([*shot(1, 9), *shot(2, 9)]):
        Image.fromarray(frame).save(tmp_path / f"{number}.png")
    parts = list(iter_frames(tmp_path, 2, opening=2.0, image_rate=10))
    assert sorted({part.shot for part in parts}) == pytest.approx([0, 0.9])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("street_cycling.mp4", [30, 76, 137, 187, 242]),
        ("arm_wrestling.mp4", [268]),
        ("cleaning_pool.mp4", []),
    ],
)
def test_cuts_of_real_footage(shared: Path, name: str, expected: list[int]) -> None:
    """arm_wrestling is filmed by a hand that is thrown about; at 268 its picture comes back from damage."""
    with av.open(str(shared / "videos" / name)) as container:
        marked = mark_cuts(container.decode(video=0), shrinker())
        assert [number for number, (_, cut) in enumerate(marked) if cut] == expected
