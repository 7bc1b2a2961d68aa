"""``zsar train`` from a recipe to a finished run: data and model are found, trained, validated and written."""

from __future__ import annotations

import json
import logging
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zsar_cli.errors import UsageError
from zsar_cli.files import atomic_write
from zsar_cli.outputs import LineFile
from zsar_cli.run_log import log_setup
from zsar_cli.training.clips import find_data, make_stream, open_pool
from zsar_cli.training.folder import (
    FEATURES,
    METRICS,
    check_folder,
    clear_features,
    clear_folder,
    hold_folder,
)
from zsar_cli.training.recipe import Recipe
from zsar_cli.training.trainer import Trainer, total_steps

if TYPE_CHECKING:
    from zsar_cli.features.cache import FeatureCache
    from zsar_cli.model.zsar import RecognizerModel
    from zsar_cli.training.baselines import Baselines

logger = logging.getLogger(__name__)
Waiting = Callable[[str, int], AbstractContextManager[Callable[[float], None]]]
MOST_MEASURED = 20_000  # clips, whose averages a linear probe takes at once


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
    # Of what the frozen visual tower says; the recipe must not augment. In the run's folder unless one is given
    cache: Path | None = None
    backbone: str | None = None  # where the weights are now that a run named as the model was trained on
    overwrite: bool = False  # an earlier run in output, or other files of these names

    def from_anywhere(self) -> Environment:
        """The same with absolute paths."""
        from zsar_cli.training.inputs import absolute, from_anywhere

        root = None if self.data_root is None else absolute(self.data_root)
        return replace(self, recipe=from_anywhere(self.recipe), data_root=root)


@dataclass(frozen=True)
class Start:
    """What a run that begins is about."""

    model: RecognizerModel
    recipe: Recipe
    clips: int
    classes: tuple[str, ...]
    held_out: int
    output: Path


@dataclass
class Summary:
    """How a run ended."""

    steps: int
    steps_left: int
    seconds: float
    loss: float
    best: float | None = None  # top-1 on the held-out clips of the model in best/, and its step
    best_step: int = 0
    validation: dict[str, float] = field(
        default_factory=dict
    )  # top-1 of seen classes, and unseen where there are any
    history: list[dict[str, float]] = field(default_factory=list)
    cache: str = ""  # what was read and added, in words
    ended: bool = True  # False: it was stopped, and can go on
    baselines: Baselines | None = None  # of a frozen tower


def describe_run(environment: Environment) -> list[str]:
    """What would run, line by line; reads lists but no video."""
    environment = environment.from_anywhere()
    data, recipe = find_data(replace(environment, max_missing=1.0)), environment.recipe
    dataset = data.dataset
    lines = [
        f"data       {dataset.name}: {len(dataset.items)} clips of {len(dataset.classes)} classes",
        f"held out   {len(data.held_out)} clips{f' ({data.validation})' if data.validation else ''}, to choose the "
        "best checkpoint by",
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
    if dataset.missing_share > environment.max_missing:
        lines.append(f"would stop {dataset.missing_share:.1%} of the list cannot be used; see --max-missing")
    return lines + [f"note       {note}" for note in dataset.notes]


def start_model(
    recipe: Recipe, device: str, base: str | None = None, classes: Sequence[str] = ()
) -> RecognizerModel:
    """The recipe's backbone with fresh modules, the same for the same seed; or a model of zsar's, with its own parts.

    Args:
        classes: that get a residual each, where the recipe's parts or the model's have one.
        base: where the weights are now that a model of zsar's was trained on, if they have moved.

    Raises:
        UsageError: it cannot be had.
    """
    import torch

    from zsar_cli.model.backbone import Backbone, load_backbone
    from zsar_cli.model.factory import within_memory
    from zsar_cli.model.zsar import RecognizerModel, is_recognizer, load_model

    torch.manual_seed(recipe.seed)
    if recipe.architecture is not None:
        with within_memory(recipe.model):
            backbone = Backbone.from_config(dict(recipe.architecture), spec=recipe.model)
    elif base is not None or is_recognizer(recipe.model):
        model = load_model(recipe.model, device=device, backbone=base)
        if recipe.parts.residual or model.parts.residual:
            model.learn_classes(classes)
        return model
    else:
        backbone = load_backbone(recipe.model, device=device, precision="fp32")
    with within_memory(recipe.model):
        model = RecognizerModel(backbone, recipe.parts).to(device)
        if recipe.parts.residual:
            model.learn_classes(classes)
    return model


def run_training(
    environment: Environment,
    *,
    resume: bool = False,
    report: Callable[[dict[str, float], int], None] = lambda row, steps: None,
    stop: Callable[[], bool] = lambda: False,
    announce: Callable[[str], None] = lambda line: None,
    started: Callable[[Start], None] = lambda start: None,
    waiting: Waiting = lambda what, clips: nullcontext(lambda done: None),
) -> Summary:
    """Train as the recipe says and write the model, ``metrics.jsonl`` and checkpoints into ``environment.output``.

    Args:
        resume: continue from the newest checkpoint there, to the very weights of an uninterrupted run.
        report: called after each step with its row of metrics and the number of steps.
        stop: asked after each step; True writes a checkpoint and returns.
        announce: called with a line that says what the run will take, where that was measured.
        started: called once it is clear what is trained on what.
        waiting: makes a context for what comes before the first step, of what it says and how many clips it needs;
            the context gives a function to call with the number of clips that were just done.

    Raises:
        UsageError: the data or the model cannot be had, or the loss is no longer finite.
    """
    from zsar_cli import distributed
    from zsar_cli.model.backbone import resolve_device

    device = distributed.own_device(str(resolve_device(environment.device)))
    with distributed.processes(device):
        return _run(environment, device, resume, report, stop, announce, started, waiting)


def _run(
    environment: Environment,
    device: str,
    resume: bool,
    report: Callable[[dict[str, float], int], None],
    stop: Callable[[], bool],
    announce: Callable[[str], None],
    begun: Callable[[Start], None],
    waiting: Waiting,
) -> Summary:
    from zsar_cli import distributed
    from zsar_cli.model.zsar import is_recognizer
    from zsar_cli.text.embeddings import embed_labels, load_templates
    from zsar_cli.training import holdout, own
    from zsar_cli.training import inputs as run_inputs
    from zsar_cli.training.baselines import measure_baselines

    environment = environment.from_anywhere()
    output, first = environment.output, distributed.rank() == 0
    recipe = _with_precision(
        environment.recipe, device, run_inputs.precision_before(output) if resume else None
    )
    environment = replace(environment, recipe=recipe)
    templates = load_templates(recipe.templates)
    data = find_data(environment)
    dataset = data.dataset
    with ExitStack() as stack:
        if first:
            stack.callback(hold_folder(output).close)
            check_folder(output, recipe.model, resume=resume, overwrite=environment.overwrite)
        if first and resume:
            run_inputs.refuse_other_recipe(output, recipe)
        model = start_model(recipe, device, environment.backbone, dataset.classes)
        if first:
            start = "" if recipe.architecture is not None else model.fingerprint()
            inputs = run_inputs.describe_inputs(dataset, data.held_out, templates.hash, start)
            if resume:
                run_inputs.refuse_other_inputs(output, inputs)
            if environment.overwrite:
                clear_folder(output)
            run_inputs.keep(output, recipe, inputs)
        recipe = replace(recipe, parts=model.parts)
        steps = total_steps(len(dataset.items), recipe)
        clips = [*dataset.items, *data.held_out]
        cache = _open_cache(environment, model, len(clips))
        log_setup(model, workers=environment.workers, precision=recipe.precision)
        begun(Start(model, recipe, len(dataset.items), dataset.classes, len(data.held_out), output))
        started = time.perf_counter()
        pool = open_pool(stack, environment, dataset)
        stream = make_stream(environment, dataset, model, steps, pool, cache)
        found = None
        if cache is not None and len(clips) <= MOST_MEASURED and distributed.world() == 1:
            announce(own.expectation(model, recipe, dataset.items, data.held_out, steps, pool, cache))
            with waiting("clips looked at", len(clips)) as advance:
                found = measure_baselines(model, recipe, data, templates, pool, cache, advance)
        # What a model of zsar's was built on cannot be found by a name
        whole = recipe.tune == "full" or is_recognizer(recipe.model)
        place = (output, device, whole, environment.data_root)
        trainer = Trainer(model, recipe, dataset.classes, templates, stream, steps, *place)
        if resume and not trainer.resume() and first:
            logger.warning("%s holds no checkpoint to resume from; the run starts at the beginning", output)
        history = _keep_rows(output / METRICS, trainer.step) if first else []
        log = LineFile(output / METRICS, lock=False) if first else None
        if log is not None:
            stack.callback(log.abandon)
        board = _open_board(stack, output, trainer.step) if environment.tensorboard and first else None

        before = stack.enter_context(ExitStack())
        before.enter_context(waiting("", recipe.batch_size * recipe.accumulate))

        def on_step(row: dict[str, float]) -> None:
            before.close()
            history.append(row)
            if log is not None:
                line = json.dumps({key: _rounded(value) for key, value in row.items()}) + "\n"
                log.write(line.encode(), "Make room there, or choose another --output.")
            if board is not None:
                for key, value in row.items():
                    if key != "step":
                        board.add_scalar(key, value, int(row["step"]))
            report(row, steps)

        def score() -> float:
            return holdout.top1(
                model,
                data.held_out,
                embed_labels(model, dataset.classes, templates, bank=False),
                frames=recipe.frames,
                pool=pool,
                batch_size=min(recipe.batch_size, 32),
                cache=cache,
            )

        trainer.run(
            report=on_step,
            checkpoint_every=environment.checkpoint_every,
            stop=stop,
            validate=score if data.held_out else None,
        )
        if cache is not None and environment.cache is None:
            logger.info("cache %s", cache.summary())
        logger.info("time: %s, %.1f s in all", trainer.times, time.perf_counter() - started)
        losses = [row["total"] for row in history if "total" in row]
        progress = trainer.progress
        best = progress.best if progress.best >= 0 else None
        summary = Summary(
            trainer.step,
            steps - trainer.step,
            time.perf_counter() - started,
            losses[-1] if losses else float("nan"),
            best,
            progress.best_step,
            history=history,
        )
        summary.cache = cache.summary() if environment.cache is not None and cache is not None else ""
        summary.ended, summary.baselines = trainer.ended, found
        if not trainer.ended:
            return summary
        trainer.finish()
        if first:
            clear_features(output)
    summary.validation = validate(model, recipe)
    if summary.validation and first:
        model.record.metrics.update({f"{name}_top1": value for name, value in summary.validation.items()})
        model.save(output, backbone=whole, half=recipe.half)
    return summary


def _with_precision(recipe: Recipe, device: str, before: str | None) -> Recipe:
    """The recipe with ``auto`` made what this device is fastest in, or what the run began in, so that it goes on alike.

    Autocast to bf16 takes 3 to 8 times as long as fp32 on a CPU.
    """
    import torch

    from zsar_cli import distributed

    precision = recipe.precision
    if precision == "auto":
        ampere = device.startswith("cuda") and torch.cuda.get_device_capability(device) >= (8, 0)
        precision = distributed.from_first(before or ("bf16" if ampere else "fp32"))
    if precision == "bf16" and device == "cpu" and distributed.rank() == 0:
        logger.warning("bf16 makes training 3 to 8 times slower on a CPU; --precision fp32 is faster")
    return replace(recipe, precision=precision)


def _has_room(model: RecognizerModel, frames: int, folder: Path) -> bool:
    """Whether the features of so many frames take less than half of the free disk; it is said where they do not."""
    from zsar_cli.model.factory import token_count

    backbone = model.backbone
    tokens = token_count(backbone.clip.visual, model.preprocess.size) if model.msm is not None else 0
    size = 2 * frames * (backbone.embed_dim + tokens * backbone.token_dim)  # bytes, in fp16
    free = shutil.disk_usage(folder).free
    if size <= free / 2:
        return True
    logger.warning(
        "What the tower says of the clips takes %.1f GB and %s has %.1f GB free, so each epoch decodes and encodes "
        "them anew; --cache FOLDER keeps it elsewhere.",
        *(size / 1e9, folder, free / 1e9),
    )
    return False


def _open_cache(environment: Environment, model: RecognizerModel, clips: int) -> FeatureCache | None:
    from zsar_cli.features.cache import FeatureCache

    recipe, folder = environment.recipe, environment.cache
    if folder is None:
        if recipe.tune != "modules" or recipe.augment:
            return None
        folder = environment.output / FEATURES
        if not _has_room(model, clips * recipe.frames, environment.output):
            return None
    if recipe.tune != "modules" or recipe.augment:
        raise UsageError(
            "A cache serves only a backbone that stays as it is and clips that do: --tune modules, augment false."
        )
    if recipe.precision == "bf16":  # then predict and eval in bf16 read what is stored
        model.backbone.set_precision("bf16")
    return FeatureCache(folder, model, expected=clips)


def _rounded(value: float) -> float:
    return value if isinstance(value, int) else float(f"{value:.6g}")


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
    if not path.exists() or path.is_file():
        with atomic_write(path) as aside:
            aside.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return rows


def _open_board(stack: ExitStack, output: Path, step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise UsageError(
            "--tensorboard needs the package tensorboard: pip install 'zsar-cli[tensorboard]'."
        ) from None
    board = SummaryWriter(str(output), purge_step=step + 1)
    stack.callback(board.close)
    return board


def validate(model: RecognizerModel, recipe: Recipe, per_class: int = 4) -> dict[str, float]:
    """Top-1 on held-out clips of motion-shapes: of seen classes among the seen labels, of unseen among the unseen.

    Other data sets are evaluated with ``zsar eval``; nothing is chosen by these numbers. Each process of a job
    looks at some of the clips.
    """
    from zsar_cli.data.definition import load_motion_shapes
    from zsar_cli.data.motion_shapes import clip_ids
    from zsar_cli.text.embeddings import embed_labels, load_templates
    from zsar_cli.training import holdout
    from zsar_cli.video.pool import DecodePool

    if recipe.data != "motion-shapes":
        return {}
    templates, found = load_templates(recipe.templates), {}
    for split in ("seen", "unseen"):
        dataset = load_motion_shapes(split)
        few = {f"motion-shapes:{split}/{name}/{index}" for name, index in clip_ids(split, per_class)}
        found[split] = holdout.top1(
            model,
            [item for item in dataset.items if item.path in few],
            embed_labels(model, dataset.classes, templates, bank=False),
            frames=recipe.frames,
            pool=DecodePool(0),
            batch_size=32,
        )
    return found


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
            embeddings.append(model(normalise(pixels, model.preprocess, model.backbone.dtype)).embedding)
    return torch.cat(embeddings)
