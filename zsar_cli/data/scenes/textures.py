"""Natural textures: what surfaces of procedural scenes look like.

Real pictures are not noise: sizes of things follow a power law, contrast falls with frequency as 1/f, edges occlude.
The models used here are the usual ones: dead leaves (Lee, Mumford and Huang, IJCV 2001) and 1/f noise (Field, 1987),
beside gradients, straight edges, letters and repeated structure.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

Colour = tuple[int, int, int]


def palette(rng: np.random.Generator, count: int = 6) -> list[Colour]:
    """Draw colours that go together: around one or two hues, mostly of low saturation, lightness spread out."""
    hues = rng.uniform(0, 1, 2)
    strength = rng.beta(1.3, 2.5)
    light = rng.uniform(0.05, 0.95, count)
    contrast = rng.uniform(0.35, 1.0)
    light = 0.5 + (light - 0.5) * contrast + rng.uniform(-0.2, 0.2)
    hue = (rng.choice(hues, count) + rng.normal(0, 0.06, count)) % 1
    wheel = np.clip(np.abs(((hue[:, None] + np.array([0, 2 / 3, 1 / 3])) % 1) * 6 - 3) - 1, 0, 1)
    saturation = strength * rng.uniform(0.4, 1.2, count)[:, None]
    colours = light[:, None] * (1 - saturation * (1 - wheel))
    return [(r, g, b) for r, g, b in (np.clip(colours, 0, 1) * 255).astype(int).tolist()]


def texture(rng: np.random.Generator, size: int) -> Image.Image:
    """Draw a random texture, ``size`` pixels a side, RGB: of one kind, or two kinds in one picture."""
    kinds: list[Callable[[np.random.Generator, int], Image.Image]]
    kinds = [
        dead_leaves,
        dead_leaves,
        pink_noise,
        pink_noise,
        gradient,
        structure,
        repeated,
        horizon,
        horizon,
    ]
    image = kinds[rng.integers(len(kinds))](rng, size)
    if rng.random() < 0.35:
        other = kinds[rng.integers(len(kinds))](rng, size)
        weight = rng.uniform(0.2, 0.6)
        image = Image.blend(image, other, weight)
    if rng.random() < 0.25:
        image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0.5, 2.5)))
    return image


def dead_leaves(rng: np.random.Generator, size: int) -> Image.Image:
    """Draw leaves of sizes by a power law over each other: discs, boxes and triangles, with a little shading."""
    colours = palette(rng, 8)
    image = Image.new("RGB", (size, size), colours[0])
    draw = ImageDraw.Draw(image)
    count = int(rng.integers(40, 260))
    smallest, largest = rng.uniform(1.2, 4), size * rng.uniform(0.1, 0.5)
    # Density of radii ~ r^-3 between the two
    share = rng.uniform(0, 1, count)
    radii = 1 / np.sqrt(share / smallest**2 + (1 - share) / largest**2)
    radii = -np.sort(-radii) if rng.random() < 0.5 else radii
    places = rng.uniform(-0.1, 1.1, (count, 2)) * size
    outline = rng.integers(0, 4)
    picks, turns = rng.integers(0, len(colours), count), rng.uniform(0, 2 * np.pi, count)
    shades = rng.integers(-18, 19, count)
    for (x, y), r, pick, turn, shade in zip(places, radii, picks, turns, shades, strict=True):
        paint = tuple(int(min(255, max(0, c + shade))) for c in colours[pick])
        kind = outline if outline < 3 else int(pick) % 3
        if kind == 0:
            draw.ellipse((x - r, y - r, x + r, y + r), fill=paint)
        else:
            corners = 4 if kind == 1 else 3
            angles = turn + np.arange(corners) * (2 * np.pi / corners)
            points = [(x + r * np.cos(a), y + r * np.sin(a)) for a in angles]
            draw.polygon(points, fill=paint)
    return image


def pink_noise(rng: np.random.Generator, size: int) -> Image.Image:
    """Draw noise whose amplitude falls as ``1 / f^p``, p from 0.8 to 1.8, coloured along a palette's line."""
    rate = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None]) * size
    rate[0, 0] = 1
    fall = rate ** -rng.uniform(0.8, 1.8)
    if rng.random() < 0.3:  # stretched: grain of wood, grass, water
        angle, power = rng.uniform(0, np.pi), rng.uniform(1, 3)
        along = np.cos(np.arctan2(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None]) - angle)
        fall = fall * np.abs(along) ** power
    colours = np.array(palette(rng, 3), dtype=np.float32)
    mix = np.clip(_noise_plane(rng, fall, size) * 0.25 + 0.5, 0, 1)[..., None]
    pixels = colours[1] + mix * (colours[0] - colours[1])
    if rng.random() < 0.5:
        pixels += np.clip(_noise_plane(rng, fall, size), -2, 2)[..., None] * ((colours[2] - 128) * 0.12)
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def _noise_plane(rng: np.random.Generator, fall: np.ndarray, size: int) -> np.ndarray:
    parts = rng.standard_normal((2, *fall.shape), dtype=np.float32) * fall.astype(np.float32)
    plane = np.fft.irfft2(parts[0] + 1j * parts[1], s=(size, size)).astype(np.float32)
    return np.asarray((plane - plane.mean()) / (plane.std() + 1e-9), dtype=np.float32)


def gradient(rng: np.random.Generator, size: int) -> Image.Image:
    """Draw a smooth surface, as sky and walls are, with few marks on it."""
    corners = np.array(palette(rng, 4), dtype=np.uint8).reshape(2, 2, 3)
    image = Image.fromarray(corners).resize((size, size), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(image)
    for colour in palette(rng, int(rng.integers(3, 14))):
        x, y = rng.uniform(0, size, 2)
        r, s = rng.uniform(1, size * 0.12, 2)
        draw.ellipse((x - r, y - s, x + r, y + s), fill=colour)
    return image


def structure(rng: np.random.Generator, size: int) -> Image.Image:
    """Draw what people build: boxes, straight edges, beams, letters."""
    colours = palette(rng, 6)
    image = Image.new("RGB", (size, size), colours[0])
    draw = ImageDraw.Draw(image)
    for _ in range(int(rng.integers(8, 40))):
        colour = colours[rng.integers(len(colours))]
        x, y = rng.uniform(-0.1, 1, 2) * size
        w, h = size * 0.5 * rng.beta(1, 3, 2) + 1
        kind = rng.random()
        if kind < 0.5:
            edge = colours[rng.integers(len(colours))] if rng.random() < 0.4 else None
            draw.rectangle((x, y, x + w, y + h), fill=colour, outline=edge)
        elif kind < 0.85:
            end = rng.uniform(-0.2, 1.2, 2) * size
            draw.line((x, y, end[0], end[1]), fill=colour, width=int(rng.integers(1, 5)))
        else:
            draw.text((x, y), letters(rng), fill=colour, font=font(int(rng.integers(7, 26))))
    return image


def repeated(rng: np.random.Generator, size: int) -> Image.Image:
    """Draw one small tile again and again: bricks, windows, fences, checks."""
    width, height = (int(n) for n in rng.integers(10, 50, 2))
    tile = structure(rng, max(width, height)).crop((0, 0, width, height))
    image = Image.new("RGB", (size, size))
    offset = int(rng.integers(0, width)) if rng.random() < 0.5 else 0
    for row, y in enumerate(range(0, size, height)):
        for x in range(-(offset * row) % width - width, size, width):
            image.paste(tile, (x, y))
    if rng.random() < 0.7:  # never quite the same twice, as light and dirt see to
        image = Image.blend(image, pink_noise(rng, size), rng.uniform(0.1, 0.4))
    return image


def horizon(rng: np.random.Generator, size: int) -> Image.Image:
    """Draw ground under sky, each with its own texture, things standing on the line between them."""
    image = [gradient, pink_noise][int(rng.integers(2))](rng, size)
    ground = [pink_noise, dead_leaves, structure][int(rng.integers(3))](rng, size)
    line = int(size * rng.uniform(0.35, 0.7))
    image.paste(ground.crop((0, 0, size, size - line)), (0, line))
    draw = ImageDraw.Draw(image)
    for colour in palette(rng, int(rng.integers(2, 12))):
        x, w, h = rng.uniform(0, size), rng.uniform(1, size * 0.1), rng.uniform(2, size * 0.35)
        foot = line + rng.uniform(0, size * 0.06)
        draw.rectangle((x, foot - h, x + w, foot), fill=colour)
    return image


def letters(rng: np.random.Generator, least: int = 3, most: int = 12) -> str:
    """Draw a word of random letters."""
    return "".join(chr(97 + int(n)) for n in rng.integers(0, 26, int(rng.integers(least, most))))


@cache
def font(size: int) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    """Load Pillow's own font, in a size where this Pillow can."""
    try:
        return ImageFont.load_default(size)
    except TypeError:  # before Pillow 10.1
        return ImageFont.load_default()
