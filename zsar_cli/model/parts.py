"""Which parts of the method a model has. Does not import torch, so that ``--help`` is fast."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


def about(default: Any, text: str) -> Any:
    """Make a dataclass field with its ``--help`` text."""
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True)
class Parts:
    """Which parts of the method a model has, and their sizes. The defaults are the full method."""

    separation: bool = about(True, "Motion separation module (MSM).")
    aggregation: bool = about(True, "Motion aggregation block (MAB); without it, motion tokens are averaged.")
    gated: bool = about(True, "Gate on the static context in MAB.")
    negatives: str = about("learned", "Negative prompts: learned (with an adapter), fixed, or none.")
    width: int = about(256, "Width of the motion modules.")
    queries: int = about(4, "Learned queries of MAB.")
    layers: int = about(2, "Layers of MAB.")
    heads: int = about(4, "Attention heads of MAB.")
    residual: bool = about(False, "Learned residual on the text embedding of each training class.")
    damped: bool = about(True, "Add motion as far as the clip moves, so that a still clip stays plain CLIP.")


# Of folders that were written before there was the choice
UNRECORDED: dict[str, Any] = {"residual": False, "damped": False}
PLAIN = Parts(separation=False, aggregation=False, negatives="none")
