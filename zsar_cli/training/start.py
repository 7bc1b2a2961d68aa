"""What a run has before its first step: its precision, its model and the cache of its clips' features."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from zsar_cli import distributed
from zsar_cli.errors import UsageError
from zsar_cli.features.cache import FeatureCache
from zsar_cli.model.backbone import Backbone
from zsar_cli.model.factory import token_count, within_memory
from zsar_cli.model.load import is_recognizer, load_model, load_trainable
from zsar_cli.model.precision import trains_in
from zsar_cli.model.published.records import named_family
from zsar_cli.model.zsar import RecognizerModel
from zsar_cli.training.folder import FEATURES
from zsar_cli.training.recipe import CHOICES, Recipe

if TYPE_CHECKING:
    from zsar_cli.training.run import Environment

logger = logging.getLogger(__name__)


def with_precision(recipe: Recipe, device: str, before: str | None) -> Recipe:
    """Resolve ``auto``: the precision that the run began in, else the one that this device is fastest in."""
    precision = recipe.precision
    if precision == "auto":
        known = CHOICES["precision"]  # GPUs of several kinds may be in one job
        precision = known[distributed.from_first(known.index(before or trains_in(device)))]
    if precision != "fp32" and device == "cpu" and distributed.rank() == 0:
        logger.warning(
            "%s makes training 3 to 8 times slower on a CPU; --precision fp32 is faster", precision
        )
    return replace(recipe, precision=precision)


def _has_room(model: RecognizerModel, frames: int, folder: Path) -> bool:
    """Tell whether the features of so many frames take less than half of the free disk; warn where they take more."""
    backbone = model.backbone
    tokens = token_count(backbone.clip.visual, model.preprocess.size) if model.msm is not None else 0
    size = 2 * frames * (backbone.embed_dim + tokens * backbone.token_dim)  # bytes, in fp16
    free = shutil.disk_usage(folder).free
    if size <= free / 2:
        return True
    logger.warning(
        "The features of the clips take %.1f GB and %s has %.1f GB free, so each epoch decodes and encodes "
        "the clips again; --cache FOLDER keeps the features elsewhere.",
        *(size / 1e9, folder, free / 1e9),
    )
    return False


def open_cache(environment: Environment, model: RecognizerModel, clips: int) -> FeatureCache | None:
    """Open the cache of the clips' features; None where the tower or the clips change from epoch to epoch.

    Raises:
        UsageError: a cache was asked for and cannot be used.
    """
    recipe, folder = environment.recipe, environment.cache
    if folder is None:
        if recipe.tune != "modules" or recipe.augment:
            return None
        folder = environment.output / FEATURES
        if not _has_room(model, clips * recipe.frames, environment.output):
            return None
    if recipe.tune != "modules" or recipe.augment:
        raise UsageError(
            "--cache needs a frozen backbone and clips without augmentation: use --tune modules --no-augment."
        )
    if recipe.precision == "bf16":  # then predict and eval in bf16 read what is stored
        model.backbone.set_precision("bf16")
    return FeatureCache(folder, model, expected=clips)


def start_model(
    recipe: Recipe, device: str, base: str | None = None, classes: Sequence[str] = ()
) -> RecognizerModel:
    """Make the model that training starts from: the recipe's backbone with new modules, drawn by its seed.

    A model of zsar's own keeps its modules.

    Args:
        classes: that get a residual each, where the recipe's parts or the model's have one.
        base: where the weights are now that a model of zsar's was trained on, if they have moved.

    Raises:
        UsageError: it cannot be had.
    """
    torch.manual_seed(recipe.seed)
    if recipe.architecture is not None:
        with within_memory(recipe.model):
            backbone = Backbone.from_config(dict(recipe.architecture), spec=recipe.model)
    elif named_family(recipe.model) is None and (base is not None or is_recognizer(recipe.model)):
        model = load_model(recipe.model, device=device, backbone=base)
        if recipe.parts.residual or model.parts.residual:
            model.learn_classes(classes)
        return model
    else:
        backbone = load_trainable(recipe.model, device=device, base=base)
    with within_memory(recipe.model):
        model = RecognizerModel(backbone, recipe.parts).to(device)
        if recipe.parts.residual:
            model.learn_classes(classes)
    return model
