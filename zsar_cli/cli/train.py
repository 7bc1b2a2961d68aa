"""``zsar train``: fine-tune on a labelled data set."""

from __future__ import annotations

import signal
import threading
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from zsar_cli.errors import UsageError


def train(
    config: Annotated[
        str,
        typer.Option(
            "--config", "-c", help="Recipe: a YAML file, or a bundled one by name (kinetics, modules, quick)."
        ),
    ] = "kinetics",
    data: Annotated[
        Optional[str],  # noqa: UP045 - typer reads this on Python 3.10
        typer.Option(
            help="Data set: kinetics400, ucf101, motion-shapes, ..., a YAML definition, or a folder.",
            envvar="ZSAR_DATA",
        ),
    ] = None,
    data_root: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Folder of the data set's videos and lists.", envvar="ZSAR_DATA_ROOT"),
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the run.")] = Path("runs/train"),
    model: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Backbone to start from: ARCH/TAG or ARCH/path/to/weights."),
    ] = None,
    tune: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="full: everything; modules: the backbone stays as it is."),
    ] = None,
    templates: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Prompt templates: a name or a YAML file."),
    ] = None,
    epochs: Annotated[Optional[int], typer.Option(min=1, help="Passes over the data.")] = None,  # noqa: UP045
    steps: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(min=1, help="Optimiser steps, instead of epochs."),
    ] = None,
    batch_size: Annotated[Optional[int], typer.Option(min=1, help="Clips a batch.")] = None,  # noqa: UP045
    accumulate: Annotated[Optional[int], typer.Option(min=1, help="Batches a step.")] = None,  # noqa: UP045
    frames: Annotated[Optional[int], typer.Option(min=1, help="Frames a clip.")] = None,  # noqa: UP045
    lr: Annotated[Optional[float], typer.Option(min=0, help="Peak rate of the backbone.")] = None,  # noqa: UP045
    module_lr: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(min=0, help="Peak rate of everything else."),
    ] = None,
    pretrained_weight: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(min=0, max=1, help="Part of the pretrained backbone in the final weights."),
    ] = None,
    shots: Annotated[Optional[int], typer.Option(min=1, help="Clips a class, all if not given.")] = None,  # noqa: UP045
    precision: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="fp32, or bf16 for autocast."),
    ] = None,
    seed: Annotated[Optional[int], typer.Option(help="Decides everything random.")] = None,  # noqa: UP045
    set_: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(
            "--set", help="Any other field of the recipe, as FIELD=VALUE or parts.FIELD=VALUE; repeats."
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.", envvar="ZSAR_DEVICE")] = "auto",
    workers: Annotated[int, typer.Option(min=0, help="Decoding processes.", envvar="ZSAR_WORKERS")] = 2,
    max_missing: Annotated[
        float, typer.Option(min=0, max=1, help="Share of listed videos that may be missing or unreadable.")
    ] = 0.1,
    cache: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(
            help="Folder that keeps what the visual tower says of each clip, with --tune modules: later epochs neither "
            "decode nor run it. Clips are then shown as in evaluation, without augmentation. 2.4 MB a clip at "
            "ViT-B/16 and 8 frames.",
            metavar="DIR",
        ),
    ] = None,
    checkpoint_every: Annotated[int, typer.Option(min=1, help="Steps between checkpoints.")] = 500,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the run in --output from its last checkpoint.")
    ] = False,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Also write TensorBoard event files.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would run; read no video.")] = False,
) -> None:
    """Fine-tune a CLIP with motion modules and negative prompts.

    Example:  zsar train --config quick --output runs/quick

    With Kinetics-400 on disk:  zsar train --data kinetics400 --data-root /data/kinetics400
    """
    from zsar_cli.recipe import load_recipe, make_recipe, recipe_content

    overrides = {
        "data": data,
        "model": model,
        "tune": tune,
        "templates": templates,
        "epochs": epochs,
        "steps": steps,
        "batch_size": batch_size,
        "accumulate": accumulate,
        "frames": frames,
        "lr": lr,
        "module_lr": module_lr,
        "pretrained_weight": pretrained_weight,
        "shots": shots,
        "precision": precision,
        "seed": seed,
    }
    recipe = load_recipe(config, **overrides)
    if epochs is not None and steps is None:
        recipe = replace(recipe, steps=None)
    if set_:
        recipe = make_recipe(_with_fields(recipe_content(recipe), set_), "--set")
    if cache is not None:
        if recipe.tune != "modules":
            raise UsageError(
                "--cache needs --tune modules: with tune full the visual tower changes at every step."
            )
        recipe = replace(recipe, augment=False)
    if not resume and (output / "checkpoints").is_dir() and not dry_run:
        raise UsageError(
            f"{output} already holds a run; continue it with --resume, or choose another --output."
        )

    from zsar_cli.cli import console
    from zsar_cli.training_run import Environment, describe_run, run_training

    environment = Environment(
        recipe,
        output,
        str(data_root) if data_root else None,
        device,
        workers,
        max_missing,
        checkpoint_every,
        tensorboard,
        cache,
    )
    if dry_run:
        for line in describe_run(environment):
            console.out(line)
        return
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    with console.training_progress() as progress:
        summary = run_training(environment, resume=resume, report=progress, stop=stop.is_set)
    if summary.cache:
        console.note(f"Cache {summary.cache}.")
    if stop.is_set():
        console.note(f"Stopped; continue with:  zsar train --config {config} --output {output} --resume")
        raise typer.Exit(130)
    console.train_summary(summary, output)


def _with_fields(content: dict[str, Any], assignments: list[str]) -> dict[str, Any]:
    """Apply ``FIELD=VALUE`` and ``parts.FIELD=VALUE`` to a recipe's map; values are read as YAML."""
    import yaml

    for assignment in assignments:
        key, separator, text = assignment.partition("=")
        if not separator:
            raise UsageError(f"--set takes FIELD=VALUE, not {assignment!r}.")
        target = content
        if key.startswith("parts."):
            target, key = content["parts"], key.removeprefix("parts.")
        target[key] = yaml.safe_load(text)
    return content
