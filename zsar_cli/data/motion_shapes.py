"""motion-shapes: a benchmark that renders itself, in which only motion tells the classes apart.

Every clip shows a textured scene with one shape, two shapes or a stick figure. A class is a pair of motions
("a shape moving left while growing"); colours, textures, sizes, places and speeds are drawn at random for
every class alike, so appearance never tells the answer. Classes that are *unseen* pair words which training
did see, but never together; classes in *neither* list serve for rejection. A clip is a pure function of
(split, class, index): nothing is stored.

Time runs from 0 to 1 over a clip, so a clip can be rendered at any number of frames. Image coordinates run
from -1 to 1, x to the right and y down.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

PATHS = ("moving left", "moving right", "moving up", "moving down", "bouncing", "shaking", "circling")
CHANGES = ("growing", "shrinking", "spinning clockwise", "spinning counterclockwise", "blinking")
FIGURES = ("waving", "walking", "jumping", "squatting")
PAIRS = ("approaching each other", "moving apart", "orbiting each other")
CAMERAS = ("pans left", "pans right", "tilts up", "tilts down", "zooms in", "zooms out", "shakes")

# Words that only the order of the frames tells from each other: the one is the other played backwards.
REVERSED = {
    "moving left": "moving right",
    "moving up": "moving down",
    "growing": "shrinking",
    "spinning clockwise": "spinning counterclockwise",
    "approaching each other": "moving apart",
    "pans left": "pans right",
    "tilts up": "tilts down",
    "zooms in": "zooms out",
}
_ORDERED = frozenset(REVERSED) | frozenset(REVERSED.values())

SPLITS = ("train", "seen", "unseen", "shifted", "neither")
CLIPS_PER_CLASS = {"train": 320, "seen": 10, "unseen": 24, "shifted": 24, "neither": 24}
SIZE = 48  # pixels a side
FRAMES_PER_SECOND = 12
SECONDS = 2.0
# From world coordinates and the size of a pixel to (coverage, colour)
Body = Callable[[np.ndarray, np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class MotionClass:
    """One class: who is seen (``shape``, ``pair`` or ``figure``), its motion, and a second motion or a camera move."""

    label: str
    subject: str
    first: str
    second: str
    group: str  # "seen", "unseen" or "neither"

    @property
    def needs_order(self) -> bool:
        """Tell whether playing the clip backwards turns it into (nearly) another class."""
        return self.first in _ORDERED or self.second in _ORDERED


def _group(row: int, column: int) -> str:
    # Knight's moves over the grid of word pairs: every row and every column keeps most of its cells for training.
    step = (row + 3 * column) % 7
    return {0: "unseen", 4: "neither" if column % 2 else "unseen"}.get(step, "seen")


@cache
def classes() -> tuple[MotionClass, ...]:
    """List all classes in a fixed order: 134 pairs of motions, each in exactly one group."""
    blocks: list[tuple[str, str, Sequence[str], Sequence[str]]] = [
        ("shape", "a shape {} while {}", PATHS, CHANGES),
        ("shape", "a shape {} while the camera {}", CHANGES, CAMERAS),
        ("figure", "a person {} while the camera {}", FIGURES, CAMERAS),
        ("pair", "two shapes {} while the camera {}", PAIRS, CAMERAS),
        ("pair", "two shapes {} while {}", PAIRS, CHANGES),
    ]
    return tuple(
        MotionClass(sentence.format(first, second), subject, first, second, _group(row, column))
        for subject, sentence, firsts, seconds in blocks
        for row, first in enumerate(firsts)
        for column, second in enumerate(seconds)
    )


def class_labels(group: str = "all") -> tuple[str, ...]:
    """List the labels of one group (``seen``, ``unseen``, ``neither``), or of ``all`` that a model may be asked for.

    ``all`` is seen and unseen together: the labels in neither list are never offered as answers.
    """
    wanted = ("seen", "unseen") if group == "all" else (group,)
    return tuple(c.label for c in classes() if c.group in wanted)


def split_classes(split: str) -> tuple[MotionClass, ...]:
    """List the classes whose clips a split holds; ``shifted`` has the unseen ones in another style."""
    group = {"train": "seen", "shifted": "unseen"}.get(split, split)
    return tuple(c for c in classes() if c.group == group)


def clip_ids(split: str, per_class: int | None = None) -> list[tuple[str, int]]:
    """List (label, index) of every clip of a split, class by class."""
    count = per_class or CLIPS_PER_CLASS[split]
    return [(c.label, index) for c in split_classes(split) for index in range(count)]


def find_class(label: str) -> MotionClass:
    """Find the class with this label; KeyError where there is none."""
    return {c.label: c for c in classes()}[label]


# --- what a clip shows -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Style:
    """Ranges that appearance and speed are drawn from."""

    texture_cells: tuple[int, int]
    scale: tuple[float, float]
    speed: tuple[float, float]
    contrast: tuple[float, float]
    pattern: str  # what is painted on a shape: "halves" or "stripes"


PLAIN = Style(
    texture_cells=(4, 8), scale=(0.30, 0.42), speed=(0.85, 1.15), contrast=(0.10, 0.22), pattern="halves"
)
SHIFTED = Style(
    texture_cells=(9, 12), scale=(0.26, 0.46), speed=(0.75, 1.25), contrast=(0.22, 0.30), pattern="thirds"
)


def render(
    label: str,
    index: int,
    *,
    split: str = "train",
    frames: int = 8,
    size: int = SIZE,
    times: np.ndarray | None = None,
) -> np.ndarray:
    """Draw one clip.

    Args:
        label: the class, one of :func:`classes`.
        index: which clip of the class; with ``split`` and ``label`` it decides everything in the picture.
        frames: how many moments, the centres of equal parts of the clip, unless ``times`` (each in 0..1) says which.
        size: pixels a side.

    Returns:
        uint8 array (frames, size, size, 3).
    """
    rng = np.random.default_rng([zlib.crc32(f"{split}/{label}".encode()), index])
    t = (np.arange(frames) + 0.5) / frames if times is None else np.asarray(times, dtype=np.float64)
    return _draw(find_class(label), t.astype(np.float32), size, SHIFTED if split == "shifted" else PLAIN, rng)


def _draw(kind: MotionClass, t: np.ndarray, size: int, style: Style, rng: np.random.Generator) -> np.ndarray:
    speed = np.float32(rng.uniform(*style.speed))
    axis = ((np.arange(size, dtype=np.float32) + 0.5) / size) * 2 - 1
    screen_y, screen_x = np.meshgrid(axis, axis, indexing="ij")

    # The camera maps the screen into the world; everything below lives in world coordinates.
    pan_x, pan_y, zoom = _camera(kind.second, t, speed, rng)
    x = screen_x[None] * zoom[:, None, None] + pan_x[:, None, None]
    y = screen_y[None] * zoom[:, None, None] + pan_y[:, None, None]

    image = _background(x[:, 0], y[:, :, 0], style, rng)
    pixel = 2.0 / size * zoom[:, None, None]
    for body in _bodies(kind, t, speed, style, rng):
        cover, colour = body(x, y, pixel)
        image += cover[..., None] * (colour - image)
    image += rng.normal(0, 0.01, image.shape[:3]).astype(np.float32)[..., None]
    return np.asarray(np.clip(image, 0, 1) * 255 + 0.5, dtype=np.uint8)


def _camera(
    move: str, t: np.ndarray, speed: np.float32, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Compute pan (world x and y of the screen's centre) and zoom (world units a screen unit) at each moment."""
    along = (t - 0.5) * 0.9 * speed  # panning left moves the window left, so the scene slides right
    none, one = np.zeros_like(t), np.ones_like(t)
    phase = rng.uniform(0, 2 * np.pi)
    moves = {
        "pans left": (-along, none, one),
        "pans right": (along, none, one),
        "tilts up": (none, -along, one),
        "tilts down": (none, along, one),
        "zooms in": (none, none, np.exp(-(t - 0.5) * 0.9 * speed)),
        "zooms out": (none, none, np.exp((t - 0.5) * 0.9 * speed)),
        "shakes": (
            0.13 * np.sin(2 * np.pi * 3.1 * speed * t + phase),
            0.13 * np.cos(2 * np.pi * 2.6 * speed * t + 2 * phase),
            one,
        ),
    }
    pan_x, pan_y, zoom = moves.get(move, (none, none, one))
    return pan_x.astype(np.float32), pan_y.astype(np.float32), zoom.astype(np.float32)


def _background(x: np.ndarray, y: np.ndarray, style: Style, rng: np.random.Generator) -> np.ndarray:
    """Draw a random patchwork, smoothly interpolated, fixed to the world: (T,H,W,3) in 0..1.

    The camera does not turn, so a column of the screen has one x (T,W) and a row one y (T,H).
    """
    cells = int(rng.integers(*style.texture_cells, endpoint=True))
    contrast = rng.uniform(*style.contrast)
    grid = rng.uniform(0.5 - contrast, 0.5 + contrast, (cells, cells, 3)).astype(np.float32)
    u, v = (x + 2) * (cells / 4), (y + 2) * (cells / 4)
    column, row = np.floor(u).astype(np.int32), np.floor(v).astype(np.int32)
    du, dv = (u - column)[:, None, :, None], (v - row)[..., None, None]
    across = grid[:, column % cells].swapaxes(0, 1) * (1 - du)  # (T, cells, W, 3)
    across += grid[:, (column + 1) % cells].swapaxes(0, 1) * du
    moment = np.arange(len(u))[:, None]
    return np.asarray(across[moment, row % cells] * (1 - dv) + across[moment, (row + 1) % cells] * dv)


def _bodies(
    kind: MotionClass, t: np.ndarray, speed: np.float32, style: Style, rng: np.random.Generator
) -> list[Body]:
    """Make the things that move, as functions from world coordinates and pixel size to (coverage, colour)."""
    if kind.subject == "figure":
        return [_figure(kind.first, t, speed, style, rng)]
    scale, angle, visible = _change(kind.first if kind.first in CHANGES else kind.second, t, speed, rng)
    size = rng.uniform(*style.scale)
    start = rng.uniform(0, 2 * np.pi)
    if kind.subject == "shape":
        px, py = _path(kind.first, t, speed, rng)
        return [_shape((px, py), (size * scale, start + angle, visible), style, rng)]
    return [
        _shape(centre, (0.75 * size * scale, start + angle, visible), style, rng)
        for centre in _pair_paths(kind.first, t, speed, rng)
    ]


def _path(
    move: str, t: np.ndarray, speed: np.float32, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Compute where the centre of a single shape is at each moment."""
    x0, y0 = rng.uniform(-0.3, 0.3, 2).astype(np.float32)
    phase = rng.uniform(0, 2 * np.pi)
    along = (t - 0.5) * 1.0 * speed
    turn = 2 * np.pi * 1.1 * speed * t * rng.choice([-1, 1]) + phase
    moves = {
        "moving left": (x0 - along, y0 + 0 * t),
        "moving right": (x0 + along, y0 + 0 * t),
        "moving up": (x0 + 0 * t, y0 - along),
        "moving down": (x0 + 0 * t, y0 + along),
        "bouncing": (x0 + 0 * t, 0.35 - 0.7 * np.abs(np.sin(np.pi * 2.2 * speed * t + phase))),
        "shaking": (x0 + 0.2 * np.sin(2 * np.pi * 2.7 * speed * t + phase), y0 + 0 * t),
        "circling": (0.5 * x0 + 0.42 * np.cos(turn), 0.5 * y0 + 0.42 * np.sin(turn)),
    }
    return moves.get(move, (x0 + 0 * t, y0 + 0 * t))


def _pair_paths(
    move: str, t: np.ndarray, speed: np.float32, rng: np.random.Generator
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Compute where the centres of two shapes are: opposite each other, on a line at a random angle."""
    heading = rng.uniform(0, 2 * np.pi) + 0 * t
    distance = 0.5 + 0 * t
    if move == "approaching each other":
        distance = 0.52 - (t - 0.5) * 0.56 * speed
    elif move == "moving apart":
        distance = 0.52 + (t - 0.5) * 0.56 * speed
    else:
        heading = heading + 2 * np.pi * 0.7 * speed * t * rng.choice([-1, 1])
    dx, dy = distance * np.cos(heading), distance * np.sin(heading)
    return [(dx, dy), (-dx, -dy)]


def _change(
    move: str, t: np.ndarray, speed: np.float32, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Compute scale, angle (radians, clockwise on the screen) and visibility of a shape at each moment."""
    scale, angle, visible = np.ones_like(t), np.zeros_like(t), np.ones_like(t)
    if move in ("growing", "shrinking"):
        scale = np.exp((t - 0.5) * 1.3 * speed * (1 if move == "growing" else -1))
    elif move.startswith("spinning"):
        angle = 2 * np.pi * 0.75 * speed * t * (-1 if move.endswith("counterclockwise") else 1)
    elif move == "blinking":
        visible = (np.sin(2 * np.pi * 2.2 * speed * t + rng.uniform(0, 2 * np.pi)) > -0.2).astype(np.float32)
    return scale, angle, visible


# --- how things are drawn -----------------------------------------------------------------------------------


def _column(values: np.ndarray) -> np.ndarray:
    return np.asarray(values, dtype=np.float32)[:, None, None]


def _colours(rng: np.random.Generator, count: int) -> np.ndarray:
    """Draw colours well apart from each other: random hues at full strength, lightness alternating."""
    hue = (rng.uniform() + np.arange(count) / count + rng.uniform(-0.1, 0.1, count)) % 1
    wheel = np.abs(((hue[:, None] + np.array([0, 2 / 3, 1 / 3])) % 1) * 6 - 3) - 1
    light = np.where(np.arange(count) % 2 == 0, 1.0, 0.45)[:, None]
    return np.asarray(np.clip(wheel, 0, 1) * light, dtype=np.float32)


def _shape(
    centre: tuple[np.ndarray, np.ndarray],
    change: tuple[np.ndarray, np.ndarray, np.ndarray],
    style: Style,
    rng: np.random.Generator,
) -> Body:
    """Make a disc, square, triangle or cross in two colours, so that its turning shows whatever the outline."""
    outline = rng.choice(["disc", "square", "triangle", "cross"])
    paints = _colours(rng, 2 if style.pattern == "halves" else 3)
    px, py = map(_column, centre)
    scale, angle, visible = change
    scale = _column(scale)
    cos, sin, visible = _column(np.cos(angle)), _column(np.sin(angle)), _column(visible)

    def body(x: np.ndarray, y: np.ndarray, pixel: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        dx, dy = x - px, y - py
        u, v = (cos * dx + sin * dy) / scale, (cos * dy - sin * dx) / scale
        distance = _OUTLINES[outline](u, v) * scale
        cover = np.clip(0.5 - distance / pixel, 0, 1) * visible
        part = (v > 0.15).astype(np.int32) if len(paints) == 2 else (v > -0.2).astype(np.int32) + (v > 0.4)
        return cover, paints[part]

    return body


# Signed distance to an outline of about unit radius, negative inside.
_OUTLINES = {
    "disc": lambda u, v: np.sqrt(u * u + v * v) - 0.9,
    "square": lambda u, v: np.maximum(np.abs(u), np.abs(v)) - 0.8,
    "triangle": lambda u, v: np.maximum(np.abs(u) * 0.866 + v * 0.5, -v) - 0.55,
    "cross": lambda u, v: np.minimum(
        np.maximum(np.abs(u) - 0.35, np.abs(v) - 1), np.maximum(np.abs(v) - 0.35, np.abs(u) - 1)
    ),
}


def _figure(act: str, t: np.ndarray, speed: np.float32, style: Style, rng: np.random.Generator) -> Body:
    """Make a stick figure: a head and ten limbs as line segments that hinge at the joints."""
    size = rng.uniform(*style.scale) * 1.55
    x0, y0 = rng.uniform(-0.2, 0.2), rng.uniform(-0.1, 0.1)
    side = rng.choice([-1.0, 1.0])
    phase = rng.uniform(0, 2 * np.pi)
    swing = np.sin(2 * np.pi * 2.1 * speed * t + phase)
    crouch, lift = 0 * t, 0 * t
    legs = [0.25 + 0 * t, -0.25 + 0 * t]
    arms = [0.35 + 0 * t, -0.35 + 0 * t]
    forearms = [0.2 + 0 * t, -0.2 + 0 * t]
    if act == "waving":
        arms[0] = 2.3 + 0 * t
        forearms[0] = 0.4 + 0.9 * swing
    elif act == "walking":
        legs, arms = [0.6 * swing, -0.6 * swing], [-0.6 * swing, 0.6 * swing]
        x0 = x0 + side * 0.5 * speed * (t - 0.5)
    elif act == "jumping":
        lift = 0.75 * np.abs(swing)
        arms = [0.35 + 1.6 * np.abs(swing), -0.35 - 1.6 * np.abs(swing)]
    elif act == "squatting":
        crouch = 0.5 + 0.5 * swing
        arms = [0.35 + 1.0 * crouch, -0.35 - 1.0 * crouch]

    hip_x, hip_y = 0 * t, 0.62 * crouch - lift
    neck_x, neck_y = hip_x, hip_y - 0.75
    segments = [(hip_x, hip_y, neck_x, neck_y)]
    for leg in range(2):
        bend = legs[leg] + (1.15 if leg == 0 else -1.15) * crouch
        knee_x, knee_y = hip_x + 0.5 * np.sin(bend), hip_y + 0.5 * np.cos(bend)
        shin = legs[leg] - (0.7 if leg == 0 else -0.7) * crouch
        segments.append((hip_x, hip_y, knee_x, knee_y))
        segments.append((knee_x, knee_y, knee_x + 0.5 * np.sin(shin), knee_y + 0.5 * np.cos(shin)))
    for arm in range(2):
        shoulder_y = neck_y + 0.08
        elbow_x, elbow_y = neck_x + 0.38 * np.sin(arms[arm]), shoulder_y + 0.38 * np.cos(arms[arm])
        fore = arms[arm] + forearms[arm]
        segments.append((neck_x, shoulder_y, elbow_x, elbow_y))
        segments.append((elbow_x, elbow_y, elbow_x + 0.36 * np.sin(fore), elbow_y + 0.36 * np.cos(fore)))
    paint = _colours(rng, 1)[0]

    def body(x: np.ndarray, y: np.ndarray, pixel: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        u, v = (x - _column(x0 + 0 * t)) / size * side, (y - np.float32(y0)) / size
        distance = np.hypot(u - _column(neck_x), v - _column(neck_y - 0.24)) - 0.2  # the head
        for ax, ay, bx, by in segments:
            distance = np.minimum(distance, _segment(u, v, ax, ay, bx, by) - 0.085)
        return np.clip(0.5 - distance * size / pixel, 0, 1), paint

    return body


def _segment(
    u: np.ndarray, v: np.ndarray, ax: np.ndarray, ay: np.ndarray, bx: np.ndarray, by: np.ndarray
) -> np.ndarray:
    """Compute the distance from (u, v) to the segment between joints a and b, at each moment."""
    ax, ay, bx, by = _column(ax), _column(ay), _column(bx), _column(by)
    length = (bx - ax) ** 2 + (by - ay) ** 2
    along = np.clip(((u - ax) * (bx - ax) + (v - ay) * (by - ay)) / length, 0, 1)
    return np.asarray(np.hypot(u - ax - along * (bx - ax), v - ay - along * (by - ay)))
