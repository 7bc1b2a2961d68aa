"""Tell whether a video is of the kind that the bundled model knows: rendered shapes in motion, and nothing else.

``unknown`` does not tell: a tower that has seen shapes alone is as sure of anything. Its averaged frame embedding
does: rendered clips lie within a cosine of 0.93 of each other's mean, photographs and noise below 0.8.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from torch import Tensor

    from zsar_cli.model.backbone import FrameFeatures
    from zsar_cli.model.zsar import RecognizerModel

LEAST = 0.85  # cosine
CLIPS, FRAMES = 8, 2  # rendered to know what is usual
MEANS_NOTHING = "it shows nothing that motion-tiny knows (rendered shapes), so these answers mean nothing"
_usual: WeakKeyDictionary[RecognizerModel, Tensor] = WeakKeyDictionary()


def usual_frames(model: RecognizerModel) -> Tensor | None:
    """Average the bundled model's embeddings of its own rendered clips, (E,); None for any other model."""
    from zsar_cli.model.config import BUNDLED

    if model.name not in BUNDLED:
        return None
    if model not in _usual:
        import numpy as np
        import torch
        from torch.nn import functional as F

        from zsar_cli.data import motion_shapes
        from zsar_cli.video.transforms import normalise, resize_and_crop

        ids = motion_shapes.clip_ids("train", 1)
        clips = [
            resize_and_crop(motion_shapes.render(*one, split="train", frames=FRAMES), model.preprocess)
            for one in ids[:: max(1, len(ids) // CLIPS)][:CLIPS]
        ]
        pixels = torch.from_numpy(np.stack(clips)).to(model.backbone.device)
        with torch.inference_mode():
            features = model.encode_frames(normalise(pixels, model.preprocess, model.backbone.dtype))
            _usual[model] = F.normalize(frame_mean(features).mean(dim=0), dim=-1)
    return _usual[model]


def frame_mean(features: FrameFeatures) -> Tensor:
    """Average the frame embeddings of n clips: (n, E) of unit length."""
    from torch.nn import functional as F

    return F.normalize(features.embedding.float().mean(dim=1), dim=-1)
