"""The folder of a training run: whose it is, and what in it a run may replace."""

from __future__ import annotations

import json
import os
import shlex
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from zsar_cli.cache_files import read_file
from zsar_cli.errors import UsageError
from zsar_cli.files import is_stream, sweep
from zsar_cli.outputs import Lock, refuse_taken_inside

RECIPE, INPUTS, METRICS, CHECKPOINTS, BEST = (
    "recipe.json",
    "inputs.json",
    "metrics.jsonl",
    "checkpoints",
    "best",
)
LARGEST = 100_000_000  # bytes of a description
MODEL = ("model.safetensors", "config.yaml")
FEATURES = ".features"  # the cache of a run that was given none; gone when it is done
FILES = (RECIPE, INPUTS, METRICS, *MODEL, "curves.png", *(f"{BEST}/{name}" for name in MODEL))


def check_folder(output: Path, model: str, *, resume: bool, overwrite: bool) -> None:
    """Raise UsageError where a run may not write into ``output``: something there is not its own.

    Args:
        model: what the run starts from.
        resume: the run in ``output`` goes on.
        overwrite: what is there may be replaced.
    """
    if resume and overwrite:
        raise UsageError("--resume continues a run and --overwrite replaces it; give only one of them.")
    if overwrite:
        if os.path.realpath(model) == os.path.realpath(output):
            raise UsageError(f"{output} is the model that this run starts from; choose another --output.")
        return
    for path in (output / name for name in (CHECKPOINTS, BEST, *FILES)):
        if is_stream(path) or (path.is_symlink() and path.name in (CHECKPOINTS, BEST)):
            raise UsageError(f"{path} is a link or not a regular file; choose another --output.")
    ours = _is_run(output)
    if not resume and (ours or any(_steps(output))):
        raise UsageError(
            f"{output} already holds a run; continue it with --resume, choose another --output, or replace it with "
            "--overwrite."
        )
    if not ours:
        refuse_taken_inside(output, FILES, overwrite=False)
    elif os.path.lexists(output / MODEL[0]) and not any(_steps(output)):
        raise UsageError(
            f"{output} holds a finished model but no checkpoint to resume. Train it further with --model "
            f"{shlex.quote(str(output))} and another --output, or start over with --overwrite."
        )


def hold_folder(output: Path) -> Lock:
    """Make the folder and hold it for this run."""
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{output} cannot be written: {error.strerror}. Choose another --output.") from error
    lock = Lock(output)
    sweep(output / BEST)
    return lock


def clear_folder(output: Path) -> None:
    """Remove what an earlier run left, and nothing else; no link is followed.

    Its own cache stays, which the new run has open and removes at its end.
    """
    try:
        for name in (CHECKPOINTS, BEST):
            if (output / name).is_symlink():
                os.unlink(output / name)
        for step in list(_steps(output)):
            if step.is_symlink() or not step.is_dir():
                step.unlink()
            else:
                shutil.rmtree(step)
        for name in FILES:
            with suppress(FileNotFoundError):
                os.unlink(output / name)
    except OSError as error:
        raise UsageError(
            f"{output} cannot be replaced: {error.strerror}. Choose another --output."
        ) from error


def clear_features(output: Path) -> None:
    """Remove the run's own cache, if it has one."""
    if not (output / FEATURES).is_symlink():
        shutil.rmtree(output / FEATURES, ignore_errors=True)


def _steps(output: Path) -> Iterator[Path]:
    """Find the checkpoints of a run, and what is left of those that were being written."""
    folder = output / CHECKPOINTS
    return (
        iter(())
        if folder.is_symlink()
        else (path for kind in ("step-*", ".step-*") for path in folder.glob(kind))
    )


def _is_run(output: Path) -> bool:
    """Tell whether a folder has the recipe of a run in it."""
    path = output / RECIPE
    try:
        found = json.loads(read_file(path, LARGEST))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(found, dict) and {"model", "tune", "steps"} <= set(found)
