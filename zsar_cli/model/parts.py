"""Which parts of the method a model has; free of torch, so that the command line can name them at once."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Parts:
    """Which parts of the method a model has, and their sizes. The defaults are the whole method."""

    separation: bool = True  # MSM
    aggregation: bool = True  # MAB; without it the motion tokens are averaged
    gated: bool = True  # the gate on static context inside MAB
    negatives: str = (
        "learned"  # "learned", "fixed" (the text tower's embeddings of negative prompts) or "none"
    )
    width: int = 256
    queries: int = 4
    layers: int = 2
    heads: int = 4
    residual: bool = False  # a learned step away from the text embedding of each class trained on


PLAIN = Parts(separation=False, aggregation=False, negatives="none")
