"""The clips of a run: those it learns from, those that choose its best model, and the stream of batches."""

from __future__ import annotations

import logging
import re
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from zsar_cli import distributed
from zsar_cli.data.clips import is_rendered
from zsar_cli.data.dataset import Dataset, Item, load_dataset, none_line
from zsar_cli.data.definition import load_definition
from zsar_cli.data.splits import few_shot
from zsar_cli.errors import UsageError
from zsar_cli.run_log import NOTE
from zsar_cli.text.labels import load_labels
from zsar_cli.training.data import (
    RenderedClips,
    Schedule,
    Stream,
    decoded_stream,
    fixed_stream,
    rendered_stream,
)
from zsar_cli.training.holdout import hold_out
from zsar_cli.video.pool import DecodePool
from zsar_cli.video.transforms import Augmentation

if TYPE_CHECKING:
    from zsar_cli.features.cache import FeatureCache
    from zsar_cli.model.zsar import RecognizerModel
    from zsar_cli.training.run import Environment

logger = logging.getLogger(__name__)


@dataclass
class TrainingData:
    """What a run learns from, and what it never trains on."""

    dataset: Dataset  # its items are the training clips
    held_out: list[Item]
    validation: str = (
        ""  # the name of the list that the held-out clips are; "" where they are of the training list
    )


def find_data(environment: Environment) -> TrainingData:
    """Load the training clips of the recipe's data set, thinned to its shots, and those held out for validation.

    These are the data set's own validation clips, where it has such (a folder ``val/``); else a share of the training
    clips.
    """
    recipe, root = environment.recipe, environment.data_root
    named = None if recipe.labels is None else load_labels(recipe.labels).names
    dataset = load_dataset(recipe.data, root, split="train", classes=named, label_column=recipe.label_column)
    dataset.check_missing(environment.max_missing)
    if dataset.of_none:
        logger.log(
            NOTE,
            "%s: skipped, as none is not a class. If it is one, list it in --labels.",
            none_line(dataset),
        )
    if len(dataset.classes) < 2:
        raise UsageError(f"{dataset.name} has only one class; training needs at least two.")
    if recipe.twins and not is_rendered(dataset.items[0].path):
        raise UsageError(f"twins are for clips that are rendered, which those of {dataset.name} are not.")
    drawn = dataset.items
    if recipe.shots is not None:
        drawn = few_shot(drawn, [item.label for item in drawn], recipe.shots, seed=recipe.seed)
    split = load_definition(recipe.data).validation
    if split is not None and recipe.holdout:
        own = load_dataset(
            recipe.data, root, split=split, classes=dataset.classes, label_column=recipe.label_column
        )
        if own.unmatched:
            logger.warning(
                "%s clips of %s are ignored, as their classes are not trained, such as %r",
                *(sum(own.unmatched.values()), split, next(iter(own.unmatched))),
            )
            own.unmatched = {}
        own.check_missing(environment.max_missing)
        dataset.items = drawn
        return TrainingData(dataset, own.items, split)
    taken = drawn if recipe.shots is not None else []
    rest, held = hold_out(dataset.items, recipe.holdout, seed=recipe.seed, taken=taken)
    dataset.items = drawn if recipe.shots is not None else rest
    return TrainingData(dataset, held)


def open_pool(stack: ExitStack, environment: Environment, dataset: Dataset) -> DecodePool:
    """Start the processes that decode a run's clips; ``stack`` ends them. Rendered clips need none."""
    workers = 0 if is_rendered(dataset.items[0].path) else environment.workers or 0
    ahead = max(2 * workers + 2, min(2 * environment.recipe.batch_size, 128))
    return stack.enter_context(DecodePool(workers, ahead=ahead))


# Words that a mirror image would make untrue
MIRRORED = re.compile(r"\b(left|right|clockwise|counterclockwise|anticlockwise)(wards?)?\b", re.IGNORECASE)


def make_stream(
    environment: Environment,
    dataset: Dataset,
    model: RecognizerModel,
    steps: int,
    pool: DecodePool,
    cache: FeatureCache | None,
) -> Stream:
    """Make the stream of a run's batches: augmented clips, decoded or rendered, or features that stay the same."""
    recipe, items = environment.recipe, dataset.items
    place = distributed.rank(), distributed.world()
    schedule = Schedule(len(items), recipe.drawn, recipe.accumulate, steps, recipe.seed, *place)
    lost = environment.max_missing
    if not recipe.augment:
        return fixed_stream(items, recipe.frames, schedule, model, pool, cache, max_unreadable=lost)
    if is_rendered(items[0].path):
        known = {name: index for index, name in enumerate(dataset.classes)} if recipe.twins else None
        clips = RenderedClips(items, recipe.frames, model.preprocess, known)
        # Scenes take longer to draw than a step on a GPU; motion-shapes do not
        workers = environment.workers or 0 if dataset.name == "scenes" else 0
        return rendered_stream(clips, schedule, workers)
    directions = next((name for name in dataset.classes if MIRRORED.search(name)), None)
    if directions and recipe.flip:
        logger.warning("clips are not flipped, as labels distinguish left from right, such as %r", directions)
    augmentation = Augmentation(
        scale=(recipe.crop_scale, 1.0),
        ratio=(3 / 4, 4 / 3),
        flip=0.5 if recipe.flip and directions is None else 0.0,
        colour_jitter=recipe.colour_jitter,
        grey=recipe.grey,
        multiscale=recipe.crop == "multiscale",
    )
    sampling = model.choose(recipe.frames, 1)
    shown = sampling, schedule, model.preprocess, augmentation
    return decoded_stream(items, *shown, pool, device=model.backbone.device, max_unreadable=lost)
