"""``zsar train``: fine-tune on a labelled data set."""

from __future__ import annotations

import contextlib
import shlex
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from zsar_cli import distributed
from zsar_cli.cli.options import (
    BackboneOption,
    DeviceOption,
    MaxBytesOption,
    OverwriteOption,
    StorageOptionsOption,
    WorkersOption,
    complete_config,
    set_up_storage,
)
from zsar_cli.cli.prepare import prepare_data
from zsar_cli.cli.recipe_flags import recipe_overrides, with_recipe_flags
from zsar_cli.cli.signals import listening
from zsar_cli.errors import UsageError
from zsar_cli.training.train import plan_training, run_planned

if TYPE_CHECKING:
    from zsar_cli.training.run import Start


@with_recipe_flags
def train(
    config: Annotated[
        Optional[str],  # noqa: UP045 - typer reads this on Python 3.10
        typer.Option(
            "--config",
            "-c",
            autocompletion=complete_config,
            help="Recipe: a YAML file, or the name of a bundled one: own (default for your own data with up to 100 "
            "clips per class), kinetics (default otherwise), kinetics-distil, few-shot, modules, shapes, "
            "motion-tiny, quick. Flags named after a field override the recipe.",
        ),
    ] = None,
    data_root: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Folder with the data set's videos and lists.", envvar="ZSAR_DATA_ROOT"),
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the run.")] = Path("runs/train"),
    device: DeviceOption = "auto",
    workers: WorkersOption = None,
    max_missing: Annotated[
        float, typer.Option(min=0, max=1, help="Fraction of listed videos that may be missing or unreadable.")
    ] = 0.1,
    cache: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(
            help="Folder for cached visual features, with --tune modules: later epochs skip decoding and the "
            "visual tower. Clips are then not augmented. At ViT-B/16 and 8 frames: 2.4 MB per clip.",
            metavar="DIR",
        ),
    ] = None,
    prepare: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(
            help="Re-encode the data set's videos into this folder once, small and fast to decode, with lists of "
            "its splits, and exit. Repeating the command continues it. Then train with --data DIR/data.yaml.",
            metavar="DIR",
        ),
    ] = None,
    prepare_side: Annotated[
        int, typer.Option(min=32, max=4096, help="Shorter side of the videos of --prepare, in pixels.")
    ] = 256,
    backbone: BackboneOption = None,
    checkpoint_every: Annotated[int, typer.Option(min=1, help="Steps between checkpoints.")] = 500,
    micro_batch: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(
            min=1,
            help="Most clips through the model at once. Default: as many as fit; halved when memory runs out. "
            "Results do not depend on it.",
        ),
    ] = None,
    sweep: Annotated[
        Optional[list[float]],  # noqa: UP045
        typer.Option(
            min=0,
            max=1,
            help="Compare this weight of the pretrained backbone on the held-out clips at the end; repeatable. A "
            "finished run takes it with --resume, and releases another with --pretrained-weight, without training.",
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the run in --output from its last checkpoint.")
    ] = False,
    max_bytes: MaxBytesOption = "20G",
    storage_options: StorageOptionsOption = None,
    overwrite: OverwriteOption = False,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Also write TensorBoard event files.")
    ] = False,
    wandb: Annotated[
        bool, typer.Option("--wandb", help="Also log to Weights & Biases (its package must be installed).")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would run, without reading a video.")
    ] = False,
    **fields: Any,
) -> None:
    """Fine-tune a CLIP with motion modules and negative prompts.

    Kinetics-400:  zsar train --data kinetics400 --data-root /data/kinetics400

    Your own videos, one subfolder per class:  zsar train --data my_videos --output runs/mine

    The final model is written to --output, the one with the best held-out accuracy to its subfolder best/.
    --resume continues an interrupted run. Under torchrun, each batch is split over the processes.
    """
    distributed.refuse_lonely("zsar train")
    set_up_storage(max_bytes, storage_options)
    planned = plan_training(
        recipe_overrides(fields),
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
        sweep=sweep or (),
        overwrite=overwrite,
        tensorboard=tensorboard,
        wandb=wandb,
    )
    from zsar_cli.cli import console
    from zsar_cli.text.plain_text import printable

    if dry_run and prepare is not None:
        raise UsageError("--dry-run describes a training, and --prepare runs none; leave out one of them.")
    if dry_run:
        from zsar_cli.training.run import describe_run

        if planned.chosen:
            console.note(f"Recipe {planned.chosen}; use --config for another.")
        for line in describe_run(planned.environment):
            console.out(printable(line))
        return
    if prepare is not None:
        return prepare_data(planned.environment, prepare, side=prepare_side, workers=workers)
    first = distributed.rank() == 0
    with _stoppable() as stop, console.training_progress(show=first) as progress:
        summary = run_planned(
            planned,
            announce=console.note,
            report=progress,
            stop=stop.is_set,
            started=_say_start,
            waiting=_waiting,
        )
    if summary.cache and first:
        console.note(f"Cache {summary.cache}.")
    if not summary.ended:
        if first:
            places = {"--data-root": planned.environment.from_anywhere().data_root, "--backbone": backbone}
            more = "".join(f" {flag} {shlex.quote(str(place))}" for flag, place in places.items() if place)
            console.note(
                f"Stopped after {summary.steps} steps; continue with:  "
                f"zsar train --resume --output {shlex.quote(str(output))}{more}"
            )
        raise typer.Exit(130)
    if first:
        console.train_summary(summary, output)


def _say_start(start: Start) -> None:
    from zsar_cli.cli import console
    from zsar_cli.cli.run_lines import counted, start_line
    from zsar_cli.text.words import words_line

    if distributed.rank() == 0:
        if start.model.record.phrases != list(start.classes) and (line := words_line(start.classes)):
            console.note(line)
        held = f" and {start.held_out} held out" if start.held_out else ""
        console.note(
            start_line(
                start.model,
                frames=start.recipe.frames,
                labels=f"{len(start.classes)} classes",
                videos=counted(start.clips, "clip") + held,
                places=(start.output,),
                precision=start.recipe.precision,
            )
        )


@contextlib.contextmanager
def _waiting(what: str, clips: int) -> Iterator[Callable[[float], None]]:
    """Show progress before the first step: encoding every clip, or waiting for the clips of that step."""
    from zsar_cli.cli import console

    if distributed.rank() > 0:
        yield lambda done: None
    elif what:
        console.note(f"Encoding {clips} clips once before the first step.")
        with console.progress(clips, what) as advance:
            yield advance
    else:
        with console.status(f"Waiting for the {clips} clips of the first step ...", log=True):
            yield lambda done: None


@contextlib.contextmanager
def _stoppable() -> Iterator[threading.Event]:
    """End the run resumably after the current step at Ctrl-C or SIGTERM, and at once at the second."""
    stop = threading.Event()

    def handle(number: int, frame: object) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    with listening(handle):
        yield stop
