"""Training from Python: the function behind ``zsar train``."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from zsar_cli import checks, distributed
from zsar_cli.errors import UsageError
from zsar_cli.outputs import refuse_busy
from zsar_cli.run_log import NOTE
from zsar_cli.training import own
from zsar_cli.training.folder import RECIPE, check_folder
from zsar_cli.training.recipe import Recipe, load_recipe, override, plain_fields

if TYPE_CHECKING:
    from zsar_cli.training.run import Environment, Summary

logger = logging.getLogger(__name__)
StrPath: TypeAlias = "str | os.PathLike[str]"


def train(
    data: StrPath | None = None,
    *,
    output: StrPath = "runs/train",
    config: StrPath | None = None,
    data_root: StrPath | None = None,
    device: str = "auto",
    workers: int | None = None,
    max_missing: float = 0.1,
    cache: StrPath | None = None,
    backbone: StrPath | None = None,
    checkpoint_every: int = 500,
    micro_batch: int | None = None,
    sweep: Sequence[float] = (),
    resume: bool = False,
    overwrite: bool = False,
    tensorboard: bool = False,
    wandb: bool = False,
    report: Callable[[dict[str, float], int], None] = lambda row, steps: None,
    stop: Callable[[], bool] = lambda: False,
    **fields: Any,
) -> Summary:
    """Fine-tune on labelled videos, as ``zsar train`` does.

    Args:
        data: a data set's name, a YAML file, a list, or a folder with one folder a class.
        output: the folder of the run. The model is written there, the best one on held-out clips to ``best/`` in it;
            ``Recognizer.load(output)`` loads it.
        config: a recipe: a YAML file or a bundled one's name. By default ``own`` where the data are yours with up to
            100 clips a class, else ``kinetics``.
        data_root: the folder of the data set's videos and lists.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        workers: decoding processes; by default half of the cores, from 2 to 8, or all but one or two if on a GPU.
        max_missing: the share (0 to 1) of listed videos that may be missing or unreadable.
        cache: a folder that keeps the visual features of each clip, for ``tune="modules"``.
        backbone: where the weights are now that a run named as ``model`` was trained on.
        checkpoint_every: steps between checkpoints.
        micro_batch: the most clips that go through the model at once; by default as many as fit. Results do not
            depend on it.
        sweep: pretrained weights (0 to 1) that are compared on the held-out clips at the end.
        resume: continue the run in ``output`` from its last checkpoint.
        overwrite: replace what ``output`` holds.
        tensorboard: also write TensorBoard's event files.
        wandb: also log to Weights & Biases, whose environment variables choose where (WANDB_MODE, WANDB_PROJECT).
        report: called after each step with its numbers and the number of steps.
        stop: asked after each step; True writes a checkpoint and returns.
        **fields: fields of the recipe (docs/training.md) that replace its values, as ``model=``, ``steps=``, ``lr=``;
            ``parts=`` takes a map.

    Returns:
        how it ended: steps, loss, and top-1 (0 to 1) on the held-out clips.

    Raises:
        UsageError: an option is wrong, the data or the model cannot be had, or ``output`` holds something else.
    """
    planned = plan_training(
        {**fields, "data": checks.optional_text("data", data)},
        config=config,
        resume=resume,
        output=output,
        data_root=data_root,
        device=device,
        workers=workers,
        max_missing=max_missing,
        cache=cache,
        backbone=backbone,
        checkpoint_every=checkpoint_every,
        micro_batch=micro_batch,
        sweep=sweep,
        overwrite=overwrite,
        tensorboard=tensorboard,
        wandb=wandb,
    )
    return run_planned(planned, report=report, stop=stop)


@dataclass(frozen=True)
class PlannedRun:
    """What is to be trained.

    Attributes:
        chosen: the name of the recipe, where it was chosen by the data.
        restarted: torchrun has started this process again after another one died.
    """

    environment: Environment
    chosen: str
    resume: bool
    restarted: bool


def plan_training(
    fields: dict[str, Any],
    *,
    config: StrPath | None,
    resume: bool,
    output: StrPath,
    data_root: StrPath | None,
    device: str,
    workers: int | None,
    max_missing: float,
    cache: StrPath | None,
    backbone: StrPath | None,
    checkpoint_every: int,
    micro_batch: int | None,
    sweep: Sequence[float],
    overwrite: bool,
    tensorboard: bool,
    wandb: bool,
) -> PlannedRun:
    """Find the recipe and check what was asked for, as :func:`train` has it; reads no video.

    Args:
        fields: of the recipe, as :func:`zsar_cli.training.recipe.override` takes them.

    Raises:
        UsageError: an option is wrong.
    """
    from zsar_cli.training.run import Environment

    restarted = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0"
    folder, root = Path(checks.text("output", output)), checks.optional_path("data_root", data_root)
    name = checks.optional_text("config", config)
    recipe, chosen = _find_recipe(name, folder, resume, plain_fields(fields), root)
    if cache is not None:
        if recipe.tune != "modules":
            raise UsageError(
                "--cache needs --tune modules: with tune full the visual tower changes at every step."
            )
        recipe = replace(recipe, augment=False)
    if sweep:
        _check_sweep(recipe)
    environment = Environment(
        recipe,
        folder,
        data_root=None if root is None else str(root),
        device=checks.text("device", device),
        workers=None if workers is None else checks.whole("workers", workers, checks.WORKERS),
        max_missing=checks.number("max_missing", max_missing, checks.SHARE),
        checkpoint_every=checks.whole("checkpoint_every", checkpoint_every, (1, 10**9)),
        sweep=tuple(checks.number("sweep", weight, checks.SHARE) for weight in sweep),
        micro_batch=None if micro_batch is None else checks.whole("micro_batch", micro_batch, (1, 100_000)),
        tensorboard=checks.truth("tensorboard", tensorboard),
        wandb=checks.truth("wandb", wandb),
        cache=checks.optional_path("cache", cache),
        backbone=checks.optional_text("backbone", backbone),
        overwrite=checks.truth("overwrite", overwrite) and not restarted,
    )
    return PlannedRun(environment, chosen, checks.truth("resume", resume) or restarted, restarted)


def _check_sweep(recipe: Recipe) -> None:
    """Raise UsageError where other weights of the pretrained backbone could not be released."""
    if recipe.tune != "full":
        raise UsageError("--sweep changes the backbone, which tune: modules keeps frozen.")
    if recipe.architecture is not None:
        raise UsageError("--sweep needs pretrained weights, but an architecture is trained from scratch.")
    if recipe.patience is not None:
        raise UsageError(
            "--sweep compares mixtures of the last weights, but with patience those of the best step are released; "
            "leave out one of them."
        )


def run_planned(
    planned: PlannedRun, *, announce: Callable[[str], None] = lambda line: None, **calls: Any
) -> Summary:
    """Train what was planned, and draw ``curves.png``.

    Args:
        announce: called with a line that says what the run will take, and the recipe where the data chose it.
        **calls: of :func:`zsar_cli.training.run.run_training`.

    Raises:
        UsageError: the data or the model cannot be had, or the folder holds something else.
    """
    from zsar_cli.training.run import run_training

    environment, resume = planned.environment, planned.resume
    folder = environment.output
    if not planned.restarted and distributed.rank() == 0:  # said before the data are read
        if folder.is_dir():
            refuse_busy(folder)
        check_folder(folder, environment.recipe.model, resume=resume, overwrite=environment.overwrite)
    named = f"Recipe {planned.chosen}: " if planned.chosen else ""
    summary = run_training(environment, resume=resume, announce=lambda line: announce(named + line), **calls)
    if summary.ended and distributed.rank() == 0:
        draw_curves(summary.history, folder)
    return summary


def _find_recipe(
    config: str | None, output: Path, resume: bool, overrides: dict[str, Any], root: Path | None
) -> tuple[Recipe, str]:
    """Find the recipe, and its name: the one asked for, that of the run that goes on, or one that fits the data."""
    if config is None and resume:
        from zsar_cli.training.inputs import load_run_recipe

        said = {**overrides, **(overrides.get("parts") or {}), "parts": None}
        if not (output / RECIPE).is_file() and not any(value is not None for value in said.values()):
            raise UsageError(f"There is no run in {output} to resume; check --output.")
        with contextlib.suppress(OSError, ValueError):
            return override(load_run_recipe(output), **overrides), ""
    chosen = "" if config is not None else own.NAME if own.fits(overrides, root) else "kinetics"
    return load_recipe(config or chosen, **overrides), chosen


def draw_curves(history: list[dict[str, float]], output: Path) -> None:
    """Draw ``curves.png``; a finished run does not fail for want of a picture."""
    from zsar_cli.plots import save, training_curves

    if not history:
        return
    try:
        save(training_curves(history, str(output)), output / "curves.png")
    except UsageError as error:
        logger.log(NOTE, "No curves.png: %s", error)
