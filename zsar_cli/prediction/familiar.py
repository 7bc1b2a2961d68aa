"""Out-of-distribution check of the bundled model, which was trained on rendered shapes only.

``unknown`` does not detect other videos: a tower trained only on shapes is confident about anything. The mean frame
embedding does: its cosine with the mean of rendered clips is above 0.93 for those, below 0.8 for photographs and noise.
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
MEANS_NOTHING = (
    "it shows none of the rendered shapes that motion-tiny was trained on; its answers are meaningless"
)
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
        from zsar_cli.video.transforms import resize_and_crop

        ids = motion_shapes.clip_ids("train", 1)
        clips = [
            resize_and_crop(motion_shapes.render(*one, split="train", frames=FRAMES), model.preprocess)
            for one in ids[:: max(1, len(ids) // CLIPS)][:CLIPS]
        ]
        pixels = torch.from_numpy(np.stack(clips)).to(model.backbone.device)
        with torch.inference_mode():
            features = model.encode_frames(model.backbone.normalise(pixels))
            _usual[model] = F.normalize(frame_mean(features).mean(dim=0), dim=-1)
    return _usual[model]


def frame_mean(features: FrameFeatures) -> Tensor:
    """Average the frame embeddings of n clips: (n, E) of unit length."""
    from torch.nn import functional as F

    return F.normalize(features.embedding.float().mean(dim=1), dim=-1)
