"""A model directory's ``config.yaml``, read and checked before anything is built from it."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from zsar_cli import yaml_nodes
from zsar_cli.errors import UsageError
from zsar_cli.model.parts import Parts
from zsar_cli.video.transforms import Preprocess

KINDS: dict[str, Any] = {  # of what a model remembers of its training
    "templates": (str, type(None)),
    "frames": int,
    "data": (str, type(None)),
    "data_root": (str, type(None)),
    "classes": list,
    "metrics": dict,
    "recipe": dict,
}


@dataclass(frozen=True)
class Description:
    """What ``config.yaml`` says; ``architecture`` and ``preprocess`` where the backbone's weights are there too."""

    backbone: str
    architecture: dict[str, Any] | None
    preprocess: Preprocess | None
    parts: Parts
    beta: float
    remembered: dict[str, Any]
    checksum: str | None  # of model.safetensors; old directories have none
    fingerprint: str | None  # of the backbone's weights where they lie elsewhere; old directories have none


def read_description(path: Path) -> Description:
    """Read ``config.yaml``.

    Raises:
        UsageError: it is missing, no YAML, or a value is missing or not what it must be.
    """
    try:
        config = yaml_nodes.load(path, 20 * yaml_nodes.YAML_LIMIT)  # a recipe's classes may be many
        if not isinstance(config, dict):
            raise ValueError("it is no map")
        remembered = {key: config[key] for key in KINDS if key in config}
        for key, value in remembered.items():
            if not isinstance(value, KINDS[key]):
                raise ValueError(f"{key} cannot be {str(value)[:60]!r}")
        if not all(isinstance(name, str) for name in remembered.get("classes", ())):
            raise ValueError("classes must be texts")
        architecture, preprocess = config.get("architecture"), config.get("preprocess")
        if architecture is not None and not isinstance(architecture, dict):
            raise ValueError("architecture must be a map")
        checksum, fingerprint = config.get("weights_crc32"), config.get("backbone_fingerprint")
        beta = float(config["beta"])
        if not math.isfinite(beta):
            raise ValueError("beta must be a number")
        return Description(
            str(config["backbone"]),
            architecture,
            None if architecture is None else _preprocess(preprocess),
            _parts(config["parts"]),
            beta,
            remembered,
            None if checksum is None else str(checksum),
            None if fingerprint is None else str(fingerprint),
        )
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        brief = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise UsageError(f"{path} is no model description that zsar wrote: {brief}") from error


def _preprocess(settings: Any) -> Preprocess:
    if not isinstance(settings, dict):
        raise ValueError("preprocess must be a map")
    plain: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in settings.items()}
    return Preprocess(**plain)


def _parts(values: dict[str, Any]) -> Parts:
    parts = Parts(**values)
    for name, default in asdict(Parts()).items():
        value = getattr(parts, name)
        if type(value) is not type(default):
            raise ValueError(f"parts.{name} cannot be {str(value)[:60]!r}")
        if type(value) is int and not 1 <= value <= 65536:
            raise ValueError(f"parts.{name} cannot be {value}")
    if parts.negatives not in ("learned", "fixed", "none"):
        raise ValueError(f"parts.negatives cannot be {parts.negatives[:60]!r}")
    if parts.width % parts.heads:
        raise ValueError("parts.width must be a multiple of parts.heads")
    return parts


def refuse_oversized(
    tensors: dict[str, Tensor],
    where: str | Path,
    model_cfg: dict[str, Any] | None,
    parts: Parts | None = None,
) -> None:
    """UsageError where a configuration asks for a far larger model than its weights are, before it is allocated.

    Counts the blocks of transformers at 12 width² a layer, and the words; towers of other kinds are not looked at.
    """
    wanted = 0.0
    for tower in ("vision_cfg", "text_cfg"):
        settings = (model_cfg or {}).get(tower)
        if isinstance(settings, dict):
            width, layers, words = (_number(settings.get(key)) for key in ("width", "layers", "vocab_size"))
            wanted += 12 * layers * width**2 + words * width + 1000 * layers
            wanted += (
                _number(settings.get("context_length")) * width
                + _number(settings.get("image_size")) ** 2 / 4096
            )
    if parts is not None and parts.separation:
        wanted += 8 * parts.layers * parts.width**2 + parts.queries * parts.width
    there = sum(tensor.numel() for tensor in tensors.values())
    if wanted > 4 * there + 1_000_000:
        raise UsageError(
            f"The weights in {where} are far too few for the model that its configuration describes."
        )


def _number(value: Any) -> float:
    """The largest of a size, or of the sizes in a list; 0 where there is none."""
    values = value if isinstance(value, (list, tuple)) else [value]
    return max((abs(float(v)) for v in values if isinstance(v, (int, float))), default=0.0)
