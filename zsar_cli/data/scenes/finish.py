"""What lies between a scene and the file one has of it: light, noise, overlays, and compression."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from zsar_cli.data.scenes.movers import wander
from zsar_cli.data.scenes.textures import font, letters


def finish(clip: np.ndarray, t: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Change the light, add noise, overlays and compression, each in some clips: (T, H, W, 3) uint8 to the same."""
    clip = _light(clip.astype(np.float32), t, rng)
    if rng.random() < 0.2:
        clip = _overlaid(clip, t, rng)
    if rng.random() < 0.7:
        clip += rng.normal(0, rng.uniform(0.5, 7), clip.shape[:3]).astype(np.float32)[..., None]
    if rng.random() < 0.05:  # bars that roll down the picture
        rows = np.arange(clip.shape[1])[None] / clip.shape[1] + rng.uniform(0.5, 4) * t[:, None]
        clip += (rng.uniform(3, 12) * np.sin(2 * np.pi * rows))[:, :, None, None].astype(np.float32)
    pixels: np.ndarray = np.clip(clip, 0, 255).astype(np.uint8)
    kind = rng.random()
    if kind < 0.3:
        return _jpeg(pixels, int(rng.integers(12, 80)))
    if kind < 0.45:
        return _encoded(pixels, int(rng.integers(2, 24)))
    if kind < 0.55:
        blur = ImageFilter.GaussianBlur(float(rng.uniform(0.3, 1.2)))
        pixels = np.stack([np.asarray(Image.fromarray(frame).filter(blur)) for frame in pixels])
    return pixels


def _light(clip: np.ndarray, t: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    kind = rng.random()
    if kind < 0.2:  # black and white, or toned
        tone = np.array([1.0, rng.uniform(0.85, 1), rng.uniform(0.7, 1)], dtype=np.float32)
        tone = tone if rng.random() < 0.3 else np.ones(3, dtype=np.float32)
        clip = clip.mean(axis=-1, keepdims=True) * tone
    contrast = rng.uniform(0.5, 1.3) if rng.random() < 0.65 else rng.uniform(1.2, 2.2)
    bright = rng.uniform(-40, 40)
    if rng.random() < 0.15:
        clip = 255 - clip
    factor = np.ones_like(t)
    if rng.random() < 0.15:  # the light goes up or down
        factor = factor + rng.uniform(-0.4, 0.4) * t
    if rng.random() < 0.15:  # flicker
        factor = factor + wander(t, rng, rng.uniform(0.02, 0.15), (2, 12))
    if rng.random() < 0.03:  # a flash
        factor[rng.integers(len(t))] += rng.uniform(0.3, 1)
    clip = (clip - 128) * contrast + 128 + bright
    return np.asarray(clip * factor.astype(np.float32)[:, None, None, None])


def _overlaid(clip: np.ndarray, t: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Lay over what stands still on the screen: bars, subtitles, a logo, a clock that counts."""
    frames, height, width = clip.shape[:3]
    bar = int(height * rng.uniform(0.04, 0.16)) if rng.random() < 0.4 else 0
    words, place = letters(rng, 4, 9), rng.uniform(0, 1, 2)
    start = int(rng.integers(0, 3600))
    kind = rng.integers(3)
    colour = (255, 255, 255) if rng.random() < 0.7 else tuple(int(c) for c in rng.integers(0, 256, 3))
    out = []
    for moment in range(frames):
        image = Image.fromarray(np.clip(clip[moment], 0, 255).astype(np.uint8))
        draw = ImageDraw.Draw(image)
        if bar:
            draw.rectangle((0, 0, width, bar), fill=(0, 0, 0))
            draw.rectangle((0, height - bar, width, height), fill=(0, 0, 0))
        if kind == 0:
            draw.text((width * 0.1, height * 0.82), words, fill=colour, font=font(9))
        elif kind == 1:
            seconds = start + int(2 * t[moment])
            draw.text((place[0] * width * 0.6, place[1] * height * 0.8), f"{seconds // 60}:{seconds % 60:02d}",
                      fill=colour, font=font(9))  # fmt: skip
        else:
            x, y = place * 0.8 * (width, height)
            draw.ellipse((x, y, x + 9, y + 7), fill=colour)
        out.append(np.asarray(image))
    return np.stack(out).astype(np.float32)


def _jpeg(pixels: np.ndarray, quality: int) -> np.ndarray:
    frames = []
    for frame in pixels:
        held = io.BytesIO()
        Image.fromarray(frame).save(held, "JPEG", quality=quality)
        frames.append(np.asarray(Image.open(held).convert("RGB")))
    return np.stack(frames)


def _encoded(pixels: np.ndarray, quantiser: int) -> np.ndarray:
    """Encode with MPEG-4 at a fixed quantiser, and decode: blocks, smears, ghosts between frames."""
    import av

    held = io.BytesIO()
    with av.open(held, "w", format="avi") as container:
        stream = container.add_stream("mpeg4", rate=4)
        stream.height, stream.width, stream.pix_fmt = *pixels.shape[1:3], "yuv420p"
        stream.codec_context.qmin = stream.codec_context.qmax = quantiser
        stream.thread_count = 1
        for frame in pixels:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    held.seek(0)
    with av.open(held) as container:
        container.streams.video[0].thread_count = 1
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    return np.stack(frames) if len(frames) == len(pixels) else pixels
