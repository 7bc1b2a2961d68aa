"""``zsar train`` from a recipe to a finished run: data and model are found, trained, validated and written."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zsar_cli.errors import UsageError
from zsar_cli.recipe import Recipe, recipe_content
from zsar_cli.training import Trainer, total_steps

if TYPE_CHECKING:
    from zsar_cli.batches import Stream
    from zsar_cli.data.definitions import Dataset
    from zsar_cli.feature_cache import FeatureCache
    from zsar_cli.model.recognizer import RecognizerModel

logger = logging.getLogger(__name__)
METRICS = "metrics.jsonl"


@dataclass(frozen=True)
class Environment:
    """Everything about a run that does not decide its outcome, and its recipe."""

    recipe: Recipe
    output: Path
    data_root: str | None = None
    device: str = "auto"
    workers: int = 2
    max_missing: float = 0.1
    checkpoint_every: int = 500
    tensorboard: bool = False
    cache: Path | None = None  # of what the frozen visual tower says; the recipe must not augment


@dataclass
class Summary:
    """How a run ended."""

    steps: int
    seconds: float
    loss: float
    validation: dict[str, float] = field(
        default_factory=dict
    )  # top-1 of seen classes, and unseen where there are any
    history: list[dict[str, float]] = field(default_factory=list)
    cache: str = ""  # what was read and added, in words


def find_data(environment: Environment) -> Dataset:
    """The training clips of the recipe's data set, thinned to its shots."""
    from zsar_cli.data.definitions import load_dataset
    from zsar_cli.data.splits import few_shot

    recipe = environment.recipe
    dataset = load_dataset(recipe.data, environment.data_root, split="train")
    dataset.check_missing(environment.max_missing)
    if recipe.shots is not None:
        labels = [item.label for item in dataset.items]
        dataset.items = few_shot(dataset.items, labels, recipe.shots, seed=recipe.seed)
    return dataset


def describe_run(environment: Environment) -> list[str]:
    """What would run, line by line; reads lists but no video."""
    dataset, recipe = find_data(environment), environment.recipe
    lines = [
        f"data       {dataset.name}: {len(dataset.items)} clips of {len(dataset.classes)} classes",
        f"list       {dataset.list_name}, {dataset.list_rows} rows, hash {dataset.list_hash}",
        f"missing    {dataset.missing} listed videos are not there",
        f"model      {recipe.model}, tune {recipe.tune}, templates {recipe.templates}",
        f"steps      {total_steps(len(dataset.items), recipe)} of {recipe.batch_size * recipe.accumulate} clips",
        f"output     {environment.output}",
    ]
    if dataset.empty_classes:
        lines.append(f"no clips   {len(dataset.empty_classes)} classes, such as {dataset.empty_classes[0]!r}")
    for label, rows in list(dataset.unmatched.items())[:10]:
        lines.append(f"no class   {label!r} ({rows} rows)")
    return lines + [f"note       {note}" for note in dataset.notes]


def start_model(recipe: Recipe, device: str) -> RecognizerModel:
    """The backbone of the recipe with fresh modules; the same for the same seed."""
    import torch

    from zsar_cli.model.backbone import Backbone, load_backbone
    from zsar_cli.model.recognizer import RecognizerModel

    torch.manual_seed(recipe.seed)
    if recipe.architecture is not None:
        backbone = Backbone.from_config(dict(recipe.architecture), spec=recipe.model)
    else:
        backbone = load_backbone(recipe.model, device=device, precision="fp32")
    return RecognizerModel(backbone, recipe.parts).to(device)


def run_training(
    environment: Environment,
    *,
    resume: bool = False,
    report: Callable[[dict[str, float], int], None] = lambda row, steps: None,
    stop: Callable[[], bool] = lambda: False,
) -> Summary:
    """Train as the recipe says and write the model, ``metrics.jsonl`` and checkpoints into ``environment.output``.

    Args:
        resume: continue from the newest checkpoint there, to the very weights of an uninterrupted run.
        report: called after each step with its row of metrics and the number of steps.
        stop: asked after each step; True writes a checkpoint and returns.

    Raises:
        UsageError: the data or the model cannot be had, or the loss is no longer finite.
    """
    from zsar_cli.model.backbone import resolve_device
    from zsar_cli.prompts import load_templates

    recipe, output = environment.recipe, environment.output
    dataset = find_data(environment)
    device = str(resolve_device(environment.device))
    model = start_model(recipe, device)
    steps = total_steps(len(dataset.items), recipe)
    cache = _open_cache(environment, model, len(dataset.items))
    _check_same_run(output, recipe, resume)
    started = time.perf_counter()
    with ExitStack() as stack:
        stream = _open_stream(stack, environment, dataset, model, steps, cache)
        trainer = Trainer(
            model, recipe, dataset.classes, load_templates(recipe.templates), stream, steps, output, device
        )
        if resume:
            trainer.resume()
        history = _keep_rows(output / METRICS, trainer.step)
        log = stack.enter_context((output / METRICS).open("a", encoding="utf-8"))
        board = _open_board(stack, output) if environment.tensorboard else None

        def on_step(row: dict[str, float]) -> None:
            history.append(row)
            log.write(json.dumps({key: round(value, 6) for key, value in row.items()}) + "\n")
            log.flush()
            if board is not None:
                for key, value in row.items():
                    board.add_scalar(key, value, int(row["step"]))
            report(row, steps)

        trainer.run(report=on_step, checkpoint_every=environment.checkpoint_every, stop=stop)
        loss = history[-1]["total"] if history else float("nan")
        summary = Summary(trainer.step, time.perf_counter() - started, loss, history=history)
        summary.cache = cache.summary() if cache is not None else ""
        if trainer.step < steps:
            return summary
        trainer.finish(half=recipe.half)
    summary.validation = validate(model, recipe, device)
    if summary.validation:
        model.record.metrics = {f"{name}_top1": value for name, value in summary.validation.items()}
        model.save(output, backbone=recipe.tune == "full", half=recipe.half)
    return summary


def _open_cache(environment: Environment, model: RecognizerModel, clips: int) -> FeatureCache | None:
    from zsar_cli.feature_cache import FeatureCache

    recipe = environment.recipe
    if environment.cache is None:
        return None
    if recipe.tune != "modules" or recipe.augment:
        raise UsageError(
            "A cache serves only a backbone that stays as it is and clips that do: --tune modules, augment false."
        )
    if recipe.precision == "bf16":  # the tower as predict and eval run it, so that they read what is stored
        model.backbone.set_precision("bf16")
    return FeatureCache(environment.cache, model, expected=clips)


def _open_stream(
    stack: ExitStack,
    environment: Environment,
    dataset: Dataset,
    model: RecognizerModel,
    steps: int,
    cache: FeatureCache | None,
) -> Stream:
    from zsar_cli.batches import Schedule, decoded_stream, fixed_stream, rendered_stream
    from zsar_cli.data.clips import RENDERED
    from zsar_cli.video.transforms import Augmentation
    from zsar_cli.video.workers import DecodePool

    recipe = environment.recipe
    schedule = Schedule(len(dataset.items), recipe.batch_size, recipe.accumulate, steps, recipe.seed)
    rendered = dataset.items[0].path.startswith(RENDERED)
    if not recipe.augment:
        pool = stack.enter_context(
            DecodePool(0 if rendered else environment.workers, ahead=2 * recipe.batch_size)
        )
        return fixed_stream(
            dataset.items, recipe.frames, schedule, model, pool, cache, max_unreadable=environment.max_missing
        )
    if rendered:
        ids = [_rendered_id(item.path) for item in dataset.items]
        return rendered_stream(ids, [item.label for item in dataset.items], recipe.frames, schedule)
    directions = any({"left", "right"} & set(name.lower().split()) for name in dataset.classes)
    if directions and recipe.flip:
        logger.warning("labels name left or right, so clips are not flipped")
    augmentation = Augmentation(
        scale=(recipe.crop_scale, 1.0),
        flip=0.5 if recipe.flip and not directions else 0.0,
        colour_jitter=recipe.colour_jitter,
    )
    pool = stack.enter_context(DecodePool(environment.workers, ahead=2 * recipe.batch_size))
    return decoded_stream(
        dataset.items,
        recipe.frames,
        schedule,
        model.preprocess,
        augmentation,
        pool,
        max_unreadable=environment.max_missing,
    )


def _rendered_id(path: str) -> tuple[str, int]:
    label, index = path.split("/", 1)[1].rsplit("/", 1)
    return label, int(index)


def _check_same_run(output: Path, recipe: Recipe, resume: bool) -> None:
    """A run's folder belongs to one recipe: resuming with another would mix two runs."""
    path = output / "recipe.json"
    content = json.loads(json.dumps(recipe_content(recipe)))
    if resume and path.is_file():
        try:
            before = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise UsageError(f"{path} is damaged; start a new run in another --output.") from error
        changed = sorted(key for key in content if before.get(key) != content[key])
        if changed:
            raise UsageError(
                f"{output} was trained with another {', '.join(changed)}; resume with the same recipe."
            )
    try:
        output.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content, indent=1), encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{output} cannot be written: {error.strerror}. Choose another --output.") from error


def _keep_rows(path: Path, step: int) -> list[dict[str, float]]:
    """Cut the metrics back to the checkpoint that training continues from; a torn last line goes too."""
    rows: list[dict[str, float]] = []
    if path.is_file():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                row = json.loads(line)
            except ValueError:
                continue
            if row.get("step", step + 1) <= step:
                rows.append(row)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return rows


def _open_board(stack: ExitStack, output: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise UsageError(
            "--tensorboard needs the package tensorboard: pip install 'zsar-cli[tensorboard]'."
        ) from None
    board = SummaryWriter(str(output))
    stack.callback(board.close)
    return board


def validate(model: RecognizerModel, recipe: Recipe, device: str, per_class: int = 4) -> dict[str, float]:
    """Top-1 on held-out clips of motion-shapes: of seen classes among the seen labels, of unseen among the unseen.

    Other data sets are evaluated with ``zsar eval``; nothing is chosen by these numbers.
    """
    if recipe.data != "motion-shapes":
        return {}
    return {
        split: motion_shapes_top1(model, recipe, split, device, per_class) for split in ("seen", "unseen")
    }


def motion_shapes_top1(
    model: RecognizerModel, recipe: Recipe, split: str, device: str, per_class: int
) -> float:
    """Top-1 of ``per_class`` clips a class of a split, among the labels of that split."""
    import torch

    from zsar_cli.data import motion_shapes
    from zsar_cli.prompts import load_templates

    labels = [kind.label for kind in motion_shapes.split_classes(split)]
    text = model.backbone.encode_text(
        [load_templates(recipe.templates).positive[0].replace("{}", x) for x in labels]
    )
    ids = motion_shapes.clip_ids(split, per_class)
    video = embed_rendered(model, ids, split, recipe.frames, device)
    best = (video @ text.detach().to(video).T).argmax(dim=-1).cpu()
    return (best == torch.tensor([labels.index(label) for label, _ in ids])).float().mean().item()


def embed_rendered(
    model: RecognizerModel, ids: Sequence[tuple[str, int]], split: str, frames: int, device: str
) -> Any:
    """Video embeddings (clips, E) of rendered clips."""
    import numpy as np
    import torch

    from zsar_cli.data import motion_shapes
    from zsar_cli.video.transforms import normalise, resize_and_crop

    embeddings = []
    with torch.no_grad():
        for start in range(0, len(ids), 32):
            clips = [
                motion_shapes.render(x, i, split=split, frames=frames) for x, i in ids[start : start + 32]
            ]
            pixels = torch.from_numpy(resize_and_crop(np.stack(clips), model.preprocess)).to(device)
            embeddings.append(model(normalise(pixels, model.preprocess)).embedding)
    return torch.cat(embeddings)
