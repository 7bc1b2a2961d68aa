"""Draw clips of procedural scenes: a camera, a background, things that stand or move, light, and a poor copy of it.

A clip is a pure function of (split, label, index): nothing is stored.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from zsar_cli.data.scenes import finish
from zsar_cli.data.scenes.classes import SUBJECTS, SceneClass, find_class
from zsar_cli.data.scenes.movers import AGITATED, Mover, eased, make_mover, make_table, wander
from zsar_cli.data.scenes.textures import texture

SIZE = 64  # pixels a side
SECONDS = 2.0
FRAMES_PER_SECOND = 24
WORLD = 192  # pixels a side of the background, more for large pictures
FINER = 1.25  # drawn this much larger, then reduced as real frames are


def render(
    label: str,
    index: int,
    *,
    split: str = "train",
    frames: int = 8,
    size: int = SIZE,
    times: np.ndarray | None = None,
    filmed: str | None = None,
) -> np.ndarray:
    """Draw one clip.

    Args:
        label: the class, one of :func:`zsar_cli.data.scenes.classes.classes`.
        index: which clip of the class; with ``split`` and ``label`` it decides everything in the picture.
        frames: how many moments, the centres of equal parts of the clip, unless ``times`` (each in 0..1) says which.
        size: pixels a side.
        filmed: the same scene, things that move and light, but the camera does what this class says.

    Returns:
        uint8 array (frames, size, size, 3).
    """
    rng = np.random.default_rng([zlib.crc32(f"scenes/{split}/{label}".encode()), index])
    t = (np.arange(frames) + 0.5) / frames if times is None else np.asarray(times, dtype=np.float64)
    kind = find_class(label)
    if rng.random() < 0.12:  # few frames a second: some moments repeat
        rate = rng.uniform(4.5, 12) * SECONDS
        t = np.floor(t * rate) / rate
    camera, movers = _plan(kind, t, rng)
    if filmed is not None:
        other = np.random.default_rng([zlib.crc32(f"filmed/{split}/{label}/{filmed}".encode()), index])
        camera = _camera(find_class(filmed).camera or "static", t, other)
    drawn = _draw(camera, movers, t, int(size * FINER), rng)
    small = [frame.resize((size, size), Image.Resampling.BICUBIC) for frame in drawn]
    return finish.finish(np.stack([np.asarray(frame) for frame in small]), t, rng)


@dataclass
class Camera:
    """Where the camera looks at each of T moments."""

    x: np.ndarray  # the world at the picture's middle
    y: np.ndarray
    zoom: np.ndarray  # world units a screen unit
    angle: np.ndarray  # radians, clockwise


def _plan(kind: SceneClass, t: np.ndarray, rng: np.random.Generator) -> tuple[Camera, list[Mover]]:
    """Decide what the camera does and what moves, as far as the label leaves it open."""
    move = kind.camera or "static"
    camera = _camera(move, t, rng)
    if kind.group == "camera":
        return camera, _company(move, t, rng)
    standing = [make_mover("still", t, rng, (0.01, 0.06)) for _ in range(int(rng.integers(0, 3)))]
    if kind.subject == "still":
        return camera, standing
    return camera, [*standing, make_mover(str(kind.subject), t, rng, (0.06 if kind.camera else 0.04, 0.35))]


def _company(move: str, t: np.ndarray, rng: np.random.Generator) -> list[Mover]:
    """Put things into a shot named by its camera: none, a few of any size, a crowd, or some that fill the frame."""
    acts = list(SUBJECTS)

    def some(area: tuple[float, float], acting: Sequence[str] = acts, people: float | None = None) -> Mover:
        return make_mover(str(rng.choice(acting)), t, rng, area, people=people)

    movers = []
    if rng.random() < 0.5:  # things at other distances move by more or less of the camera's way
        for _ in range(int(rng.integers(1, 4))):
            movers.append(make_mover("still", t, rng, (0.02, 0.3), depth=rng.uniform(0.75, 1.5)))
    # A shot is static whatever moves in it, so there it is most, and fastest
    largest, (nothing, few, crowd, many) = 0.45, (0.2, 0.5, 0.6, 0.85)
    if move == "static":
        largest, (nothing, few, crowd, many) = 0.7, (0.1, 0.3, 0.4, 0.75)
    if rng.random() < 0.25:  # as people are filmed: close, several, with busy hands
        if rng.random() < 0.4:
            return movers + make_table(t, rng)
        going = ["left", "right", "nearer", "away", "turn", AGITATED, AGITATED]
        return movers + [some((0.1, 0.9), going, 1.0) for _ in range(int(rng.integers(1, 4)))]
    share = rng.random()
    if share < nothing:
        return movers
    if share < few:
        return movers + [some((0.02, 0.25)) for _ in range(int(rng.integers(1, 4)))]
    if share < crowd:  # a crowd goes its ways
        return movers + [some((0.01, 0.05)) for _ in range(int(rng.integers(5, 11)))]
    if share < many:
        return movers + [some((0.03, 0.5), [AGITATED]) for _ in range(int(rng.integers(1, 6)))]
    return [*movers, some((0.25, largest), [*acts, AGITATED, AGITATED, AGITATED])]


def _camera(move: str, t: np.ndarray, rng: np.random.Generator) -> Camera:
    """Move the camera over the clip: its one move, and the small unsteadiness of real ones."""
    way = eased(t, rng) - 0.5
    none = np.zeros_like(t)
    x, y, zoom, angle = none, none, none, rng.normal(0, 0.05) + none
    length = float(np.exp(rng.uniform(np.log(0.24), np.log(2.2))))
    if move.startswith("pan"):
        x = way * length * (-1 if move == "pan left" else 1)
        y = way * length * rng.normal(0, 0.1)
    elif move.startswith("tilt"):
        y = way * length * (-1 if move == "tilt up" else 1)
        x = way * length * rng.normal(0, 0.1)
    elif move.startswith("zoom"):
        zoom = way * np.exp(rng.uniform(np.log(0.12), np.log(0.9))) * (-1 if move == "zoom in" else 1)
    elif move.startswith("roll"):
        turn = np.exp(rng.uniform(np.log(0.22), np.log(1.6)))
        angle = angle + way * turn * (1 if move == "roll clockwise" else -1)
    elif move == "shake":
        amount = float(np.exp(rng.uniform(np.log(0.025), np.log(0.13))))
        rates = (2.0, 9.0)
        x, y = wander(t, rng, amount, rates), wander(t, rng, amount * rng.uniform(0.4, 1.3), rates)
        angle = angle + wander(t, rng, amount * rng.uniform(0, 0.7), rates)
        zoom = wander(t, rng, amount * rng.uniform(0, 0.3), rates)
    if move != "static":
        x, y = x + way * rng.normal(0, 0.02), y + way * rng.normal(0, 0.02)
    if rng.random() < 0.4:  # held by hand, or a gust on the tripod
        unsteady = rng.uniform(0, 0.006 if move == "static" else 0.015)
        x, y = x + wander(t, rng, unsteady, (0.5, 7)), y + wander(t, rng, unsteady, (0.5, 7))
        angle = angle + wander(t, rng, unsteady * 0.5, (0.5, 7))
    return Camera(x, y, np.exp(zoom), angle)


def _draw(
    camera: Camera, movers: Sequence[Mover], t: np.ndarray, size: int, rng: np.random.Generator
) -> list[Image.Image]:
    """Draw all moments, ``size`` pixels a side; some clips with the blur of an open shutter."""
    background = texture(rng, max(WORLD, 3 * size))
    reach = float((np.sqrt(2) * camera.zoom + np.hypot(camera.x, camera.y)).max())
    centre = background.width / 2 / reach
    frames = []
    shutter = rng.uniform(0.2, 0.8) / max(1, len(t)) if rng.random() < 0.3 else 0.0
    for moment in range(len(t)):
        if not shutter:
            frames.append(_frame(background, centre, camera, movers, moment, size, 0.0))
            continue
        parts = [
            _frame(background, centre, camera, movers, moment, size, s) for s in (-shutter, 0.0, shutter)
        ]
        pixels = np.mean([np.asarray(part, dtype=np.float32) for part in parts], axis=0)
        frames.append(Image.fromarray(pixels.astype(np.uint8)))
    return frames


def _frame(
    background: Image.Image,
    pixels_a_unit: float,
    camera: Camera,
    movers: Sequence[Mover],
    moment: int,
    size: int,
    later: float,
) -> Image.Image:
    """Draw one moment, ``later`` (in clips) than the frame's own time by what its neighbours tell."""

    def at(values: np.ndarray) -> float:
        if len(values) == 1:
            return float(values[0])
        here = float(values[moment])
        if not later:
            return here
        other = min(len(values) - 1, moment + 1) if later > 0 else max(0, moment - 1)
        return here + (float(values[other]) - here) * abs(later) * len(values) * 0.5

    # Screen pixel -> screen unit -> world, for each distance from the camera
    unit = np.array([[2 / size, 0, 1 / size - 1], [0, 2 / size, 1 / size - 1], [0, 0, 1]])
    c, s, zoom = np.cos(at(camera.angle)), np.sin(at(camera.angle)), at(camera.zoom)

    def world(depth: float) -> np.ndarray:
        turn = np.array(
            [
                [zoom * c, -zoom * s, depth * at(camera.x)],
                [zoom * s, zoom * c, depth * at(camera.y)],
                [0, 0, 1],
            ]
        )
        return np.asarray(turn @ unit)

    scale = pixels_a_unit
    half = background.width / 2
    place = np.array([[scale, 0, half], [0, scale, half], [0, 0, 1]]) @ world(1.0)
    frame = _warped(background, place, size)
    for mover in movers:
        picture = mover.picture(moment)
        half = picture.width / 2
        a, b = np.cos(at(mover.angle)), np.sin(at(mover.angle))
        grow = half / at(mover.size)
        x, y = at(mover.x), at(mover.y)
        inside = np.array(
            [
                [grow * a / at(mover.squash), grow * b / at(mover.squash), 0],
                [-grow * b, grow * a, 0],
                [0, 0, 1],
            ]
        )
        shift = np.array([[1, 0, -x], [0, 1, -y], [0, 0, 1]])
        middle = np.array([[1, 0, half], [0, 1, half], [0, 0, 1]])
        cover = _warped(picture, middle @ inside @ shift @ world(mover.depth), size)
        frame.paste(cover, (0, 0), cover)
    return frame


def _warped(image: Image.Image, matrix: np.ndarray, size: int) -> Image.Image:
    """Sample the image at ``matrix @ (column, row, 1)`` for each pixel."""
    # Pillow takes pixel centres into account by itself
    return image.transform(
        (size, size), Image.Transform.AFFINE, tuple(matrix[:2].ravel().tolist()), Image.Resampling.BILINEAR
    )
