"""What the benchmark runs on, made by itself: videos of real sizes, and models with random weights."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import av
import numpy as np

if TYPE_CHECKING:
    from zsar_cli.video.transforms import Preprocess

WORK = Path(tempfile.gettempdir()) / "zsar-bench"  # where videos and models are kept for the next run

ARCHITECTURE = "ViT-B-16"
SECONDS, RATE, KEY_FRAMES = 10, 25, 50  # of every clip: length in s, frames a second, frames from key to key
# One turn of a contender: sizes as they lie in people's folders, from old data sets to phones.
TURN = [(320, 240)] * 4 + [(640, 360)] * 4 + [(1280, 720)] * 3 + [(1920, 1080)] * 2


def make_clip(
    path: Path, size: tuple[int, int], seed: int, seconds: float = SECONDS, key_frames: int = KEY_FRAMES
) -> Path:
    """An H.264 video of a textured scene that the camera pans over, with grain: as hard to decode as a filmed one."""
    if path.is_file():
        return path
    width, height = size
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 255, (height // 8 + 64, width // 8 + 64, 3), np.uint8)
    scene = coarse.repeat(8, axis=0).repeat(8, axis=1)
    grain = random.integers(0, 12, (height, width, 3), np.uint8)
    aside = path.with_suffix(".part.mp4")
    with av.open(str(aside), "w") as output:
        stream: Any = output.add_stream("libx264", rate=RATE)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.options = {"preset": "veryfast", "crf": "26", "g": str(key_frames)}
        for number in range(int(seconds * RATE)):
            x, y = (number * 2) % 480, number % 240
            pixels = scene[y : y + height, x : x + width] // 2 + np.roll(grain, number, axis=1)
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, RATE)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    aside.rename(path)
    return path


def make_clips(folder: Path, turns: int) -> list[list[str]]:
    """``turns`` lists of as many clips as TURN has sizes; every clip is a file of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    masters = {
        size: make_clip(folder / f"{size[0]}x{size[1]}.mp4", size, seed)
        for seed, size in enumerate(set(TURN))
    }
    lists = []
    for turn in range(turns):
        paths = []
        for place, size in enumerate(TURN):
            copy = folder / f"turn{turn}-{place:02d}-{size[0]}x{size[1]}.mp4"
            if not copy.is_file():
                shutil.copyfile(masters[size], copy)
            paths.append(str(copy))
        lists.append(paths)
    return lists


def make_long(source: Path, path: Path, times: int) -> Path:
    """A long video: the packets of ``source`` over and over."""
    if path.is_file():
        return path
    with av.open(str(source)) as given, av.open(str(path), "w") as output:
        stream = given.streams.video[0]
        copy = output.add_stream_from_template(stream)
        packets = [packet for packet in given.demux(stream) if packet.size]
        step = max(p.pts for p in packets) - min(p.pts for p in packets) + (packets[0].duration or 1)
        first = [(p.pts, p.dts, p.duration) for p in packets]
        for turn in range(times):
            for packet, (pts, dts, duration) in zip(packets, first, strict=True):
                # Muxing has turned all of these into the copy's time base
                packet.time_base, packet.stream, packet.duration = stream.time_base, copy, duration
                packet.pts, packet.dts = pts + turn * step, dts + turn * step
                output.mux(packet)
    return path


def random_clip(config: dict[str, Any]) -> Any:
    """An open_clip model of a real size, its weights drawn in a tenth of the time that open_clip's take."""
    import torch

    from zsar_cli.model.factory import build, without_initialisation

    with without_initialisation():
        clip = build(config, "test")
    for parameter in clip.parameters():
        if parameter.ndim >= 2:
            bound = (3 / parameter[0].numel()) ** 0.5  # keeps the variance of what goes through
            torch.nn.init.uniform_(parameter, -bound, bound)
    for name, parameter in clip.named_parameters():
        if name.endswith("bias") and parameter.ndim == 1:
            torch.nn.init.zeros_(parameter)
    return clip.eval()


def make_clip_model(folder: Path, architecture: str | dict[str, Any] = ARCHITECTURE) -> Path:
    """Random weights of an open_clip architecture, in a folder that zsar and open_clip both load."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    if (folder / "open_clip_config.json").is_file():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    config = architecture if isinstance(architecture, dict) else open_clip.get_model_config(architecture)
    torch.manual_seed(0)
    clip = random_clip(config)
    save_file(
        {k: v.contiguous() for k, v in clip.state_dict().items()}, folder / "open_clip_model.safetensors"
    )
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {}}))
    return folder


def make_motion_model(folder: Path, backbone: Path) -> Path:
    """The whole method on that backbone, untrained but for random output weights, as zsar train writes it."""
    import torch

    from zsar_cli.model.backbone import load_backbone
    from zsar_cli.model.zsar import Parts, RecognizerModel

    model = RecognizerModel(load_backbone(str(backbone)), Parts())
    assert model.project is not None
    torch.nn.init.normal_(model.project.weight, std=0.02)
    model.save(folder, backbone=False)  # anew each time: an older version's may not fit
    return folder


def make_xclip(folder: Path, tiny: bool = False) -> Path:
    """X-CLIP of transformers with random weights, at its 8-frame ViT-B/16 size or a tiny one."""
    from transformers import VideoMAEImageProcessor, XCLIPConfig, XCLIPModel

    if not (folder / "config.json").is_file():
        vision: dict[str, Any] = {"patch_size": 16, "num_frames": 8}
        if tiny:
            vision |= {
                "num_hidden_layers": 1,
                "hidden_size": 64,
                "intermediate_size": 64,
                "num_attention_heads": 2,
            }
        XCLIPModel(XCLIPConfig(vision_config=vision)).save_pretrained(folder)
        VideoMAEImageProcessor().save_pretrained(folder)
    return folder


TINY = {  # for what is about the program and not about the tower
    "embed_dim": 64,
    "vision_cfg": {"image_size": 64, "layers": 2, "width": 64, "head_width": 32, "patch_size": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2},
}


def rendered(
    ids: Sequence[tuple[str, int]], split: str, frames: int, preprocess: Preprocess
) -> Iterator[np.ndarray]:
    """Render clips of motion-shapes, 32 at a time: (n, T, h, w, 3) as a model sees them."""
    from zsar_cli.data import motion_shapes
    from zsar_cli.video.transforms import resize_and_crop

    for start in range(0, len(ids), 32):
        clips = [motion_shapes.render(x, i, split=split, frames=frames) for x, i in ids[start : start + 32]]
        yield resize_and_crop(np.stack(clips), preprocess)


def embed_pixels(model: Any, clips: Iterable[np.ndarray], device: str = "cpu") -> Any:
    """Embed clips (n, T, h, w, 3), each n together: (clips, E)."""
    import torch

    with torch.no_grad():
        pixels = (torch.from_numpy(part).to(device) for part in clips)
        return torch.cat([model(model.backbone.normalise(part)).embedding for part in pixels])


def embed_rendered(model: Any, ids: Sequence[tuple[str, int]], split: str, frames: int, device: str) -> Any:
    """Embed rendered clips of motion-shapes: (clips, E)."""
    return embed_pixels(model, rendered(ids, split, frames, model.preprocess), device)
