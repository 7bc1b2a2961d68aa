"""Small data sets such as people have: five classes, a folder of videos each, rendered so that anybody can make them.

Each is a function (class number, rng) to a clip (T, H, W, 3) uint8 over a natural-looking background: noise with the
1/f spectrum of photographs, in a random colour.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from zsar_cli.data import motion_shapes

SIZE, FRAMES, RATE = 96, 24, 12
Render = Callable[[int, np.random.Generator], np.ndarray]

CAMERA = ("pan to the left", "pan to the right", "slow zoom in", "slow zoom out", "handheld shake")
COOKING = ("stirring", "chopping", "kneading", "pouring", "sprinkling")
SHAPES = motion_shapes.class_labels("neither")[:5]


def natural(size: int, rng: np.random.Generator) -> np.ndarray:
    """A picture (size, size, 3) in 0 to 1 whose amplitude falls with frequency about as in photographs."""
    fy, fx = np.meshgrid(np.fft.fftfreq(size), np.fft.fftfreq(size), indexing="ij")
    amplitude = np.maximum(np.hypot(fx, fy), 1 / size) ** -1.5

    def plane() -> np.ndarray:
        values = np.fft.ifft2(amplitude * np.fft.fft2(rng.normal(size=(size, size)))).real
        return (values - values.mean()) / values.std()

    light, warm, green = plane(), plane(), plane()
    colour = np.stack([light + 0.3 * warm, light + 0.2 * green, light - 0.3 * warm], -1)
    return np.clip(0.5 + 0.2 * colour + rng.uniform(-0.1, 0.1, 3), 0, 1)


def camera(kind: int, rng: np.random.Generator) -> np.ndarray:
    """A camera that moves over one large picture."""
    picture = natural(4 * SIZE, rng)
    time = np.linspace(-0.5, 0.5, FRAMES)
    speed = rng.uniform(0.6, 1.2)
    x = np.zeros(FRAMES)
    y, zoom = x.copy(), np.full(FRAMES, rng.uniform(0.9, 1.1))
    if kind < 2:
        x = (-1, 1)[kind] * speed * SIZE * time
    elif kind < 4:
        zoom = zoom * np.exp((-1, 1)[kind - 2] * 0.6 * speed * time)  # seconds of view: smaller is nearer
    else:
        x, y = np.cumsum(rng.normal(0, 3 * speed, (2, FRAMES)), axis=1) * 0.7
    centre = 2 * SIZE + rng.uniform(-0.4, 0.4, 2) * SIZE
    grid = (np.arange(SIZE) - SIZE / 2)[None]
    rows = (centre[0] + y[:, None] + grid * zoom[:, None]).round().astype(int) % (4 * SIZE)
    columns = (centre[1] + x[:, None] + grid * zoom[:, None]).round().astype(int) % (4 * SIZE)
    clip = picture[rows[:, :, None], columns[:, None, :]]
    return _noisy(clip, rng)


def cooking(kind: int, rng: np.random.Generator) -> np.ndarray:
    """One or two hands over a table; each class is a way of moving them."""
    background = natural(SIZE, rng)
    time = np.linspace(0, 2, FRAMES) + rng.uniform(0, 1)
    tempo, reach = rng.uniform(1.2, 1.8), rng.uniform(0.8, 1.2)
    centre = rng.uniform(0.4, 0.6, 2)
    wave = 2 * np.pi * tempo * time
    still = np.zeros(FRAMES)
    hands = {
        0: [(0.14 * np.cos(wave), 0.14 * np.sin(wave))],  # stirring: a circle
        1: [(0.05 * (time - time.mean()), 0.13 * np.abs(np.sin(1.5 * wave)) - 0.06)],  # chopping: up and down
        2: [
            (-0.07 + 0.07 * np.sin(wave), 0.05 * np.sin(wave)),
            (0.07 - 0.07 * np.sin(wave), 0.05 * np.sin(wave)),
        ],
        3: [(0.1 * (time - time.mean()), still - 0.12)],  # pouring: a still hand and a stream below it
        4: [(0.16 * np.sin(0.7 * wave), 0.02 * np.sin(4 * wave))],  # sprinkling: to and fro, trembling
    }[kind]
    skin = np.array([0.85, 0.62, 0.5]) * rng.uniform(0.5, 1.1)
    yy, xx = np.mgrid[0:SIZE, 0:SIZE] / SIZE
    clip = np.repeat(background[None] * 0.8, FRAMES, axis=0)
    for dx, dy in hands:
        for t in range(FRAMES):
            x, y = centre[1] + reach * dx[t], centre[0] + reach * dy[t]
            mask = ((xx - x) / 0.10) ** 2 + ((yy - y) / 0.07) ** 2 < 1
            arm = (np.abs(xx - x) < 0.035) & (yy < y)
            clip[t][mask | arm] = skin
            if kind == 3:
                stream = (np.abs(xx - x) < 0.015) & (yy > y) & ((yy * 20 - t * 1.5) % 2 < 1.4)
                clip[t][stream] = (0.9, 0.95, 1.0)
            if kind == 4:
                drops = rng.uniform([x - 0.1, y], [x + 0.1, 1], (6, 2))
                for a, b in drops:
                    clip[t][(np.abs(xx - a) < 0.012) & (np.abs(yy - b) < 0.012)] = 1.0
    return _noisy(clip, rng)


def shapes(kind: int, rng: np.random.Generator) -> np.ndarray:
    """Classes of motion-shapes that the bundled model was never asked for."""
    return motion_shapes.render(SHAPES[kind], int(rng.integers(1 << 20)), split="neither", frames=FRAMES)


def _noisy(clip: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    clip = clip + rng.normal(0, 0.02, clip.shape)
    return (255 * np.clip(clip, 0, 1)).round().astype(np.uint8)


SETS: dict[str, tuple[tuple[str, ...], Render]] = {
    "camera": (CAMERA, camera),
    "cooking": (COOKING, cooking),
    "shapes": (SHAPES, shapes),
}


def write_set(name: str, folder: Path, *, train: int = 20, val: int = 20, seed: int = 0) -> Path:
    """Write ``folder/train/CLASS/n.mp4`` and ``folder/val/CLASS/n.mp4``; the same for a seed."""
    labels, render = SETS[name]
    for split, count in (("train", train), ("val", val)):
        for kind, label in enumerate(labels):
            place = folder / split / label
            place.mkdir(parents=True, exist_ok=True)
            for number in range(count):
                rng = np.random.default_rng([seed, split == "val", kind, number])
                write_video(place / f"{number:03d}.mp4", render(kind, rng))
    return folder


def write_video(path: Path, frames: np.ndarray) -> None:
    """H.264 at RATE frames a second."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=RATE, options={"crf": "20"})
        stream.height, stream.width, stream.pix_fmt = frames.shape[1], frames.shape[2], "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
