"""Things that move through a scene: textured cut-outs and jointed people, each with a path of its own.

World coordinates: the picture of a camera that stands in the middle spans -1 to 1, x to the right and y down. Time
runs from 0 to 1 over a clip.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from PIL import Image, ImageDraw

from zsar_cli.data.scenes.textures import Colour, palette, texture

SPRITE = 72  # pixels a side of a cut-out
Point = tuple[float, float]
AGITATED = "agitated"  # what no label names, beside the acts of SUBJECTS


@dataclass
class Mover:
    """One thing, at each of T moments."""

    pictures: list[Image.Image]  # RGBA: one for all moments, or one a moment
    x: np.ndarray  # (T,) where its centre is in the world
    y: np.ndarray
    size: np.ndarray  # (T,) half its side, world units
    angle: np.ndarray  # (T,) radians, clockwise on the screen
    squash: np.ndarray = field(default_factory=lambda: np.ones(1))  # width over height, (T,) or (1,)
    depth: float = 1.0  # how much of the camera's way it moves by: above 1 for what is near

    def picture(self, moment: int) -> Image.Image:
        """Give the picture of a moment."""
        return self.pictures[moment % len(self.pictures)]


def eased(t: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Run from 0 to 1 while t does: evenly, with a soft start or end, or in a part of the time only."""
    first = rng.uniform(0, 0.25) if rng.random() < 0.3 else 0.0
    last = rng.uniform(0.75, 1) if rng.random() < 0.3 else 1.0
    way = np.clip((t - first) / (last - first), 0, 1)
    kind = rng.random()
    if kind < 0.4:
        return way
    if kind < 0.7:
        return way * way * (3 - 2 * way)
    return way ** rng.uniform(0.6, 1.7)


def wander(t: np.ndarray, rng: np.random.Generator, amount: float, rates: tuple[float, float]) -> np.ndarray:
    """Sum three sines of random rate (cycles a clip) and phase: about ``amount`` in size, (T,)."""
    rate, phase = rng.uniform(*rates, 3), rng.uniform(0, 2 * np.pi, 3)
    waves = np.sin(2 * np.pi * rate[:, None] * t + phase[:, None])
    return np.asarray(amount * (waves * rng.uniform(0.3, 1, 3)[:, None]).sum(axis=0) / 1.2)


def make_mover(
    act: str,
    t: np.ndarray,
    rng: np.random.Generator,
    area: tuple[float, float],
    *,
    depth: float = 1.0,
    people: float | None = None,
) -> Mover:
    """Make something that does ``act`` (a key of SUBJECTS), covering a share of the picture within ``area``.

    It is a person with probability ``people``, else as often as the act suggests.
    """
    people = (0.55 if act == AGITATED else 0.4) if people is None else people
    half = float(np.sqrt(np.exp(rng.uniform(*np.log(area)))) * 1.25)
    reach = max(0.15, 0.9 - 0.5 * half)
    x, y = (rng.uniform(-reach, reach) + 0 * t for _ in range(2))
    way = eased(t, rng) - 0.5
    size, angle, squash = half + 0 * t, rng.uniform(-0.4, 0.4) + 0 * t, np.ones(1)
    side = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}.get(act)
    person = act == "wave" or rng.random() < people
    if person:
        angle = rng.normal(0, 0.05) + 0 * t
    if side is not None:
        length = rng.uniform(0.5, 1.5)
        slant = rng.normal(0, 0.12) * length
        x = x * (0.5 if side[0] else 1) + side[0] * length * way + abs(side[1]) * slant * way
        y = y * (0.5 if side[1] else 1) + side[1] * length * way + abs(side[0]) * slant * way
        if rng.random() < 0.3:  # it bobs, or rolls along
            y = y + wander(t, rng, 0.03, (2, 6))
    elif act in ("nearer", "away"):
        size = half * np.exp(rng.uniform(0.45, 1.2) * way * (1 if act == "nearer" else -1))
        x, y = 0.6 * x, 0.6 * y
    elif act == AGITATED:  # hands at work, a fight, play: here and there, in a moment
        rates, reach = (0.7, 6.0), float(np.exp(rng.uniform(np.log(0.08), np.log(0.8))))
        x, y = x + wander(t, rng, reach, rates), y + wander(t, rng, reach * rng.uniform(0.2, 1), rates)
        size = half * np.exp(wander(t, rng, rng.uniform(0, 0.25), rates))
        angle = angle + wander(t, rng, rng.uniform(0, 0.7), rates)
        if person:  # feet stand somewhere, hands and knees do not
            swing = wander(t, rng, float(rng.uniform(0, 0.3)), (0.3, 2))
            x, y, size, angle = x[0] + swing, y[0] + 0.2 * swing, half + 0 * t, angle[0] + 0.2 * swing
        elif rng.random() < 0.35:  # an arm that reaches in from outside the picture
            return _arm(t, rng, half, rates, depth)
    elif act == "turn":
        angle = angle + rng.choice([-1, 1]) * rng.uniform(1.2, 4.0) * way
        if person or rng.random() < 0.25:  # about its own upright axis
            squash = np.cos(np.pi * rng.uniform(0.7, 1.8) * (way + 0.5) + rng.uniform(0, 0.5))
            squash = np.where(np.abs(squash) < 0.08, 0.08, squash)
            angle = 0.2 * angle
    if person:
        walking = act in ("left", "right") or (act in ("nearer", "away") and rng.random() < 0.7)
        busy = act == AGITATED
        pictures = _person(t, rng, walking=walking, waving=act == "wave", busy=busy)
    else:
        pictures = [_cut_out(rng)]
    return Mover(pictures, x, y, size, angle, squash, depth)


def make_table(t: np.ndarray, rng: np.random.Generator) -> list[Mover]:
    """Set a table in front of somebody whose hands move things on it: most of what can be seen to move does."""
    here = make_mover(AGITATED, t, rng, (0.5, 1.6), people=1.0)
    here.x, here.y = here.x * 0.3, here.y * 0.3 - 0.2
    edge = rng.uniform(-0.1, 0.6)  # the table's far edge
    board = Image.new("RGBA", (SPRITE, SPRITE), (*palette(rng, 1)[0], 255))
    if rng.random() < 0.3:
        board = texture(rng, SPRITE).convert("RGBA")
    none = 0 * t
    table = Mover([board], none, none + edge + 3, none + 3, none)
    colour = palette(rng, 1)[0] if rng.random() < 0.6 else None
    half = rng.uniform(0.1, 0.28)
    things = []
    for _ in range(int(rng.integers(2, 7))):
        picture = _cut_out(rng)
        if colour:  # all alike: cups, balls, cards
            picture.paste(colour, (0, 0, SPRITE, SPRITE // 2))
            picture.paste(tuple(c * 3 // 4 for c in colour), (0, SPRITE // 2, SPRITE, SPRITE))
        moved = rng.random() < 0.6
        x = rng.uniform(-0.9, 0.9) + (wander(t, rng, rng.uniform(0.1, 0.7), (0.5, 4)) if moved else none)
        y = (
            edge
            + rng.uniform(-0.1, 0.4)
            + (wander(t, rng, rng.uniform(0, 0.25), (0.5, 4)) if moved else none)
        )
        things.append(Mover([picture], x, y, half + none, none))
    arms = [_arm(t, rng, rng.uniform(0.3, 0.6), (0.7, 4.0), 1.0) for _ in range(int(rng.integers(0, 3)))]
    return [here, table, *things, *arms]


def _cut_out(rng: np.random.Generator) -> Image.Image:
    """Cut a blob, a box or a many-cornered shape out of a texture: RGBA."""
    picture = texture(rng, SPRITE)
    mask = Image.new("L", (SPRITE, SPRITE))
    draw = ImageDraw.Draw(mask)
    half = SPRITE / 2
    kind = rng.random()
    if kind < 0.25:
        w, h = rng.uniform(0.45, 0.95, 2) * half
        draw.rectangle((half - w, half - h, half + w, half + h), fill=255)
    else:
        waves = int(rng.integers(1, 5))
        angles = np.linspace(0, 2 * np.pi, 40 if kind < 0.8 else int(rng.integers(3, 8)), endpoint=False)
        radius = 0.7 + sum(
            rng.normal(0, 0.13) * np.cos(k * angles + rng.uniform(0, 2 * np.pi)) for k in range(1, waves + 1)
        )
        radius = np.clip(radius, 0.25, 0.98) * half
        stretch = rng.uniform(0.55, 1)
        points = zip(half + radius * np.cos(angles), half + stretch * radius * np.sin(angles), strict=True)
        draw.polygon([(float(x), float(y)) for x, y in points], fill=255)
    picture.putalpha(mask)
    return picture


def _arm(
    t: np.ndarray, rng: np.random.Generator, half: float, rates: tuple[float, float], depth: float
) -> Mover:
    """Draw a bare arm or a stick whose one end is outside the picture, and swing it."""
    picture = (
        texture(rng, SPRITE) if rng.random() < 0.4 else Image.new("RGB", (SPRITE, SPRITE), palette(rng, 1)[0])
    )
    mask = Image.new("L", (SPRITE, SPRITE))
    middle, thick = SPRITE / 2, int(SPRITE * rng.uniform(0.06, 0.2))
    ImageDraw.Draw(mask).line((middle, middle, middle, 2), fill=255, width=thick)
    hand = thick * rng.uniform(0.6, 1.1)
    ImageDraw.Draw(mask).ellipse((middle - hand, 1, middle + hand, 1 + 2 * hand), fill=255)
    picture.putalpha(mask)
    edge, along = rng.uniform(0, 2 * np.pi), rng.uniform(0.9, 1.1)
    x, y = along * np.array([np.sin(edge), -np.cos(edge)])
    inwards = edge + np.pi + rng.normal(0, 0.4)
    size = np.clip(2.2 * half, 0.5, 1.6) * np.exp(wander(t, rng, rng.uniform(0, 0.3), rates))
    return Mover(
        [picture],
        x + wander(t, rng, rng.uniform(0, 0.15), rates),
        y + wander(t, rng, rng.uniform(0, 0.15), rates),
        size,
        inwards + wander(t, rng, rng.uniform(0.1, 0.7), rates),
        depth=depth,
    )


def _person(
    t: np.ndarray, rng: np.random.Generator, *, walking: bool, waving: bool, busy: bool
) -> list[Image.Image]:
    """Draw somebody with head, trunk, arms and legs in clothes of their own, one RGBA picture a moment."""
    skin, shirt, trousers, hair = palette(rng, 4)
    cloth = texture(rng, SPRITE) if rng.random() < 0.5 else None
    phase, rate = rng.uniform(0, 2 * np.pi), rng.uniform(2.5, 6)
    swing = np.sin(2 * np.pi * rate / 2 * t + phase)
    stout = rng.uniform(0.75, 1.4)
    mirrored = rng.random() < 0.5
    fidget = wander(t, rng, 0.08, (0.3, 2))
    close = rng.random() < 0.3  # seen from the waist up
    amounts = rng.uniform(0.05, 1.2, 4) * rng.uniform(0.2, 1) * (0.5, 1, 1, 1)
    loose = [wander(t, rng, amount, (0.7, 6)) for amount in amounts] if busy else []
    pictures = []
    for moment, s in enumerate(swing):
        legs = (0.55 * s, -0.55 * s) if walking else (0.12, -0.12)
        arms = (-0.5 * s, 0.5 * s) if walking else (0.2 + fidget[moment], -0.2)
        fore = (0.2, -0.2)
        if waving:
            arms, fore = (2.4 + 0.15 * s, arms[1]), (0.5 + 0.75 * s, -0.2)
        if busy:
            step, left, right, hands = (float(way[moment]) for way in loose)
            legs, arms, fore = (step, -step), (0.5 + left, -0.5 + right), (0.6 + hands, -0.6 + hands)
        pictures.append(_pose(legs, arms, fore, (skin, shirt, trousers, hair), stout, cloth, close))
    if mirrored:
        pictures = [p.transpose(Image.Transpose.FLIP_LEFT_RIGHT) for p in pictures]
    return pictures


def _pose(
    legs: tuple[float, float],
    arms: tuple[float, float],
    fore: tuple[float, float],
    colours: tuple[Colour, ...],
    stout: float,
    cloth: Image.Image | None,
    close: bool,
) -> Image.Image:
    """Draw one pose. Angles in radians from hanging down, positive to the right."""
    skin, shirt, trousers, hair = colours
    picture = cloth.copy() if cloth is not None else Image.new("RGB", (SPRITE, SPRITE), shirt)
    mask = Image.new("L", (SPRITE, SPRITE))
    unit, middle = (SPRITE * (0.42 if close else 0.25), SPRITE / 2)
    hip = SPRITE * (1.0 if close else 0.56)
    neck = hip - 1.05 * unit
    paint, cover = ImageDraw.Draw(picture), ImageDraw.Draw(mask)

    def limb(joint: Point, angle: float, length: float, width: float, colour: Colour | None) -> Point:
        x, y = joint
        end = (x + length * unit * np.sin(angle), y + length * unit * np.cos(angle))
        thick = max(2, int(width * stout * unit))
        cover.line((x, y, *end), fill=255, width=thick)
        if colour is not None:
            paint.line((x, y, *end), fill=colour, width=thick)
        return end

    sleeve = None if cloth is not None else shirt
    for side, leg in zip((-1, 1), legs, strict=True):
        knee = limb((middle + side * 0.12 * unit, hip), leg, 0.75, 0.3, trousers)
        limb(knee, leg - 0.15 * abs(leg), 0.75, 0.26, trousers)
    limb((middle, hip), np.pi, 1.0, 0.62, sleeve)
    for side, arm, bend in zip((1, -1), arms, fore, strict=True):
        elbow = limb((middle + side * 0.28 * unit, neck + 0.12 * unit), arm, 0.55, 0.2, sleeve)
        limb(elbow, arm + bend, 0.5, 0.17, skin)
    r = 0.26 * unit
    head = (middle - r, neck - 2.1 * r, middle + r, neck + 0.3 * r)
    cover.ellipse(head, fill=255)
    paint.ellipse(head, fill=skin)
    paint.pieslice(head, 180, 360, fill=hair)
    picture.putalpha(mask)
    return picture
