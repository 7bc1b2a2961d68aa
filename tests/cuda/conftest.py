"""What tests on a GPU share: the command line in this process, and models small enough to be made in place."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from tests.cli.conftest import environment, text_cache, zsar  # noqa: F401 - fixtures
from zsar_cli.data import motion_shapes
from zsar_cli.model.zsar import RecognizerModel


@pytest.fixture(scope="session")
def moving(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Eight videos of motion-shapes, of eight classes."""
    folder = tmp_path_factory.mktemp("moving")
    chosen = motion_shapes.class_labels("all")[::9][:8]
    return [_write(folder / f"{n}.mp4", motion_shapes.render(x, n, frames=16)) for n, x in enumerate(chosen)]


@pytest.fixture(scope="session")
def long_video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve seconds: three motions, one after another."""
    chosen = motion_shapes.class_labels("all")[:3]
    parts = [motion_shapes.render(label, 0, frames=40) for label in chosen]
    return _write(tmp_path_factory.mktemp("long") / "long.mp4", np.concatenate(parts))


def _write(path: Path, frames: np.ndarray, rate: int = 10) -> Path:
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libx264", rate=rate)
        stream.width, stream.height, stream.pix_fmt = frames.shape[2], frames.shape[1], "yuv420p"
        stream.codec_context.thread_count = 1
        for pixels in frames:
            output.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        output.mux(stream.encode(None))
    return path


@pytest.fixture(scope="session")
def vit_b_32() -> RecognizerModel:
    """A plain ViT-B/32 with random weights, on the CPU; take a copy to change it."""
    import open_clip

    from tests.tiny_models import large_clip
    from zsar_cli.model.backbone import Backbone
    from zsar_cli.model.factory import preprocess_of

    config = open_clip.get_model_config("ViT-B-32")
    torch.manual_seed(0)
    clip = large_clip(config)
    return RecognizerModel(Backbone(clip, config, preprocess_of({}, clip), "ViT-B-32").eval())


@pytest.fixture
def on_gpu(vit_b_32: RecognizerModel) -> Iterator[RecognizerModel]:
    """That ViT-B/32 on the GPU, which it leaves free afterwards."""
    yield copy.deepcopy(vit_b_32).to("cuda")
    torch.cuda.empty_cache()
