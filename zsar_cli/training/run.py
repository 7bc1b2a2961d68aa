"""``zsar train`` from a recipe to a finished run: data and model are found, trained, validated and written."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from zsar_cli import distributed
from zsar_cli.data.dataset import load_motion_shapes
from zsar_cli.data.motion_shapes import clip_ids
from zsar_cli.errors import UsageError
from zsar_cli.model.load import is_recognizer
from zsar_cli.model.precision import arithmetic, resolve_device
from zsar_cli.model.zsar import RecognizerModel
from zsar_cli.resources import default_workers
from zsar_cli.run_log import log_setup
from zsar_cli.text.embeddings import embed_labels
from zsar_cli.text.templates import Templates, load_templates
from zsar_cli.training import holdout, inputs, own
from zsar_cli.training.baselines import Baselines, measure_baselines
from zsar_cli.training.clips import TrainingData, find_data, make_stream, open_pool
from zsar_cli.training.cost import describe_cost
from zsar_cli.training.folder import check_folder, clear_features, clear_folder, hold_folder
from zsar_cli.training.history import Boards, History, open_boards, open_history
from zsar_cli.training.optimizer import total_steps
from zsar_cli.training.prompts import Wording
from zsar_cli.training.recipe import Recipe
from zsar_cli.training.start import open_cache, start_model, with_precision
from zsar_cli.training.trainer import WAITING, Trainer
from zsar_cli.video.pool import DecodePool

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
    workers: int | None = None  # as many as suit the device
    max_missing: float = 0.1
    checkpoint_every: int = 500
    micro_batch: int | None = None  # clips through the model at once; found where it is not given
    sweep: tuple[float, ...] = ()  # pretrained weights that are compared on the held-out clips at the end
    tensorboard: bool = False
    wandb: bool = False
    # Of the frozen tower's features; the recipe must not augment. In the run's folder unless one is given
    cache: Path | None = None
    backbone: str | None = None  # where the weights are now that a run named as the model was trained on
    overwrite: bool = False  # an earlier run in output, or other files of these names

    def from_anywhere(self) -> Environment:
        """Make every path absolute."""
        root = None if self.data_root is None else inputs.absolute(self.data_root)
        return replace(self, recipe=inputs.from_anywhere(self.recipe), data_root=root)


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
    data_wait: float = 0.0  # s that the model waited for clips


def describe_run(environment: Environment) -> list[str]:
    """Describe what would run, line by line; reads lists but no video."""
    environment = environment.from_anywhere()
    data, recipe = find_data(replace(environment, max_missing=1.0)), environment.recipe
    dataset = data.dataset
    steps = total_steps(len(dataset.items), recipe)
    lines = [
        f"data       {dataset.name}: {len(dataset.items)} clips of {len(dataset.classes)} classes",
        f"held out   {len(data.held_out)} clips{f' ({data.validation})' if data.validation else ''}, to choose the "
        "best checkpoint by",
        f"list       {dataset.list_name}, {dataset.list_rows} rows, hash {dataset.list_hash}",
        f"missing    {dataset.missing} listed videos are not there",
        f"model      {recipe.model}, tune {recipe.tune}, templates {recipe.templates}",
        f"steps      {steps} of {recipe.batch_size * recipe.accumulate} clips",
        f"output     {environment.output}",
    ]
    device = "cpu"
    with suppress(UsageError):  # what is said of another machine's GPU needs none
        device = resolve_device(environment.device)
    workers = default_workers(device) if environment.workers is None else environment.workers
    seen = steps * recipe.batch_size * recipe.accumulate
    if recipe.tune != "full" and not recipe.augment:  # the features of each clip are kept
        seen = len(dataset.items) + len(data.held_out)
    lines += describe_cost(recipe, seen, device, workers)
    if dataset.empty_classes:
        lines.append(f"no clips   {len(dataset.empty_classes)} classes, such as {dataset.empty_classes[0]!r}")
    for label, rows in list(dataset.unmatched.items())[:10]:
        lines.append(f"no class   {label!r} ({rows} rows)")
    if dataset.missing_share > environment.max_missing:
        lines.append(f"would stop {dataset.missing_share:.1%} of the list cannot be used; see --max-missing")
    return lines + [f"note       {note}" for note in dataset.notes]


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
        waiting: makes a context for what comes before the first step, from its name and the number of its clips;
            the context gives a function to call with the number of clips that were just done.

    Raises:
        UsageError: the data or the model cannot be had, or the loss is no longer finite.
    """
    device = distributed.own_device(str(resolve_device(environment.device)))
    with distributed.processes(device):
        return _run(environment, device, resume, _RunCallbacks(report, stop, announce, started, waiting))


@dataclass(frozen=True)
class _RunCallbacks:
    """What :func:`run_training` calls as the run goes on."""

    report: Callable[[dict[str, float], int], None]
    stop: Callable[[], bool]
    announce: Callable[[str], None]
    started: Callable[[Start], None]
    waiting: Waiting


def _run(environment: Environment, device: str, resume: bool, calls: _RunCallbacks) -> Summary:
    environment = environment.from_anywhere()
    output, first = environment.output, distributed.rank() == 0
    before = inputs.precision_before(output) if resume else None
    recipe = with_precision(environment.recipe, device, before)
    workers = default_workers(device) if environment.workers is None else environment.workers
    environment = replace(environment, recipe=recipe, workers=workers)
    templates, data = load_templates(recipe.templates), find_data(environment)
    dataset, count = data.dataset, len(data.dataset.items) + len(data.held_out)
    if environment.sweep and not data.held_out:
        raise UsageError("--sweep compares weights on held-out clips, and this run has none; set --holdout.")
    with ExitStack() as stack:
        model, now = _begin(stack, environment, device, data, templates, resume)
        recipe = replace(recipe, parts=model.parts)
        steps = total_steps(len(dataset.items), recipe)
        cache = open_cache(environment, model, count)
        pool = open_pool(stack, environment, dataset)
        stream = make_stream(environment, dataset, model, steps, pool, cache)
        boards = _claim(stack, environment, asdict(recipe), now) if first else Boards()
        log_setup(model, workers=environment.workers, precision=recipe.precision)
        calls.started(Start(model, recipe, len(dataset.items), dataset.classes, len(data.held_out), output))
        started = time.perf_counter()
        baselines = None
        if cache is not None and count <= MOST_MEASURED and distributed.world() == 1:
            calls.announce(own.expectation(model, recipe, dataset.items, data.held_out, steps, pool, cache))
            with calls.waiting("clips encoded", count) as advance:
                baselines = measure_baselines(model, recipe, data, templates, pool, cache, advance)
        # The weights that a model of zsar's own was built on cannot be found by a name
        whole = recipe.tune == "full" or is_recognizer(recipe.model)
        stack.enter_context(arithmetic(recipe.precision))
        place = (output, device, whole, environment.data_root, environment.micro_batch, environment.sweep)
        wording = Wording(dataset.phrasings, dataset.groups, recipe.foreign)
        trainer = Trainer(model, recipe, dataset.classes, templates, stream, steps, *place, wording)
        if resume and not trainer.resume() and first:
            logger.warning("%s holds no checkpoint to resume from; the run starts at the beginning", output)
        history = History()
        if first:
            history = open_history(stack, output, trainer.step, boards)
        until_first = stack.enter_context(ExitStack())
        until_first.enter_context(calls.waiting("", recipe.batch_size * recipe.accumulate))

        def on_step(row: dict[str, float]) -> None:
            until_first.close()
            history.add(row)
            calls.report(row, steps)

        def score() -> float:
            text = embed_labels(model, dataset.classes, templates, bank=False)
            size = min(recipe.batch_size, 32)
            few = {"frames": recipe.frames, "batch_size": size}
            return holdout.top1(model, data.held_out, text, **few, pool=pool, cache=cache)

        trainer.run(
            report=on_step,
            checkpoint_every=environment.checkpoint_every,
            stop=calls.stop,
            validate=score if data.held_out else None,
        )
        if cache is not None and environment.cache is None:
            logger.info("cache %s", cache.summary())
        logger.info("time: %s, %.1f s in all", trainer.times, time.perf_counter() - started)
        summary = Summary(
            trainer.step,
            steps - trainer.step,
            time.perf_counter() - started,
            history.loss,
            trainer.progress.best if trainer.progress.best >= 0 else None,
            trainer.progress.best_step,
            history=history.rows,
            cache=cache.summary() if environment.cache is not None and cache is not None else "",
            ended=trainer.ended,
            baselines=baselines,
            data_wait=trainer.times.seconds.get(WAITING, 0.0),
        )
        if not trainer.ended:
            return summary
        for weight, top1 in trainer.compare(score).items():
            calls.announce(f"pretrained weight {weight:g}: {top1:.1%} on held-out clips")
        trainer.finish()
        if first:
            clear_features(output)
    summary.validation = validate(model, recipe)
    if summary.validation and first:
        model.record.metrics.update({f"{name}_top1": value for name, value in summary.validation.items()})
        model.save(output, backbone=whole, half=recipe.half)
    return summary


def _begin(
    stack: ExitStack,
    environment: Environment,
    device: str,
    data: TrainingData,
    templates: Templates,
    resume: bool,
) -> tuple[RecognizerModel, inputs.RunInputs]:
    """Make the model that training starts from, and describe its inputs; on rank 0, hold the run's folder.

    Raises:
        UsageError: the folder holds another run, or one that began with other things; or the model cannot be had.
    """
    recipe, output, first = environment.recipe, environment.output, distributed.rank() == 0
    if first:
        stack.callback(hold_folder(output).close)
        check_folder(output, recipe.model, resume=resume, overwrite=environment.overwrite)
    if first and resume:
        inputs.refuse_other_recipe(output, recipe)
    classes = data.dataset.classes
    model = start_model(recipe, device, environment.backbone, classes)
    phrases = inputs.phrases_of(output, classes, resume=resume)
    model.record.classes, model.record.phrases = list(classes), phrases
    model.record.clip_seconds = recipe.clip_seconds
    weights = "" if recipe.architecture is not None or not first else model.fingerprint()
    now = inputs.describe_inputs(data.dataset, data.held_out, templates.hash, weights, phrases)
    if first and resume:
        inputs.refuse_other_inputs(output, now)
    return model, now


def _claim(
    stack: ExitStack, environment: Environment, recipe: dict[str, Any], now: inputs.RunInputs
) -> Boards:
    """Make the folder this run's, once all that may refuse it has been asked: what cannot begin replaces no run."""
    output, boards = environment.output, {"tensorboard": environment.tensorboard, "wandb": environment.wandb}
    opened = open_boards(stack, output, **boards, recipe=recipe)
    if environment.overwrite:
        clear_folder(output)
    inputs.keep(output, environment.recipe, now)
    return opened


def validate(model: RecognizerModel, recipe: Recipe, per_class: int = 4) -> dict[str, float]:
    """Measure top-1 on clips of motion-shapes: seen classes among the seen labels, unseen among the unseen.

    Other data sets are evaluated with ``zsar eval``; nothing is chosen by these numbers. Each process of a job
    looks at some of the clips.
    """
    if recipe.data not in ("motion-shapes", "scenes"):
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
