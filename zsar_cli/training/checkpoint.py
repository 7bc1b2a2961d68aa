"""Checkpoints of a training run: written whole or not at all, read back bit for bit."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from zsar_cli.cache_files import read_file
from zsar_cli.errors import UsageError
from zsar_cli.files import atomic_write, checksum
from zsar_cli.model.weights import check_header

if TYPE_CHECKING:
    from zsar_cli.model.zsar import RecognizerModel

logger = logging.getLogger(__name__)
FOLDER = "checkpoints"
PROBES = "probes.safetensors"  # of L_dis, which a model does not keep
LARGEST = 1_000_000  # bytes of state.json
KEPT = 2  # the last, and the one before it in case that one is damaged


@dataclass
class Progress:
    """Steps done, the best validation so far (-1 before the first), and where torch's GradScaler stands in fp16."""

    step: int = 0
    best: float = -1.0
    best_step: int = 0
    loss_scale: float | None = None
    growth: int = 0


@contextmanager
def told(path: Path) -> Iterator[None]:
    """Turn the system's errors in writing below ``path`` into sentences."""
    try:
        yield
    except OSError as error:
        raise UsageError(
            f"{path} cannot be written: {(error.strerror or str(error)).lower()}. "
            "Free some space, or choose another --output."
        ) from error


def found(run: Path) -> list[Path]:
    """List the checkpoints of a run, oldest first."""
    return sorted((run / FOLDER).glob("step-*"))


def newest_step(run: Path) -> int | None:
    """Find the step of the last checkpoint that is whole; None where there is none. UsageError if all are damaged."""
    paths = found(run)
    for path in reversed(paths):
        try:
            return int(json.loads(read_file(path / "state.json", LARGEST))["step"])
        except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
            logger.warning("%s is damaged", path)
    if paths:
        raise UsageError(f"Every checkpoint in {run / FOLDER} is damaged; delete that folder to start over.")
    return None


def save(
    run: Path,
    model: RecognizerModel,
    optimizer: torch.optim.Optimizer,
    mean: dict[str, Tensor] | None,
    progress: Progress,
    whole: bool,
) -> None:
    """Write ``checkpoints/step-N`` aside, move it into place, then drop the older ones.

    Raises:
        UsageError: the disk is full or the folder read-only; the checkpoints before it are untouched.
    """
    folder = run / FOLDER
    final, aside = folder / f"step-{progress.step:08d}", folder / f".step-{progress.step:08d}.tmp"
    try:
        with told(folder):
            for left in folder.glob(".step-*"):  # by a run that was killed
                shutil.rmtree(left)
            aside.mkdir(parents=True)
            model.save(aside, backbone=whole)
            if model.probes is not None:
                with atomic_write(aside / PROBES) as path:
                    save_file(model.probes.state_dict(prefix="probes."), path)
            with atomic_write(aside / "optimizer.safetensors") as path:
                save_file(_moments(model, optimizer), path)
            if mean is not None:
                with atomic_write(aside / "mean.safetensors") as path:
                    save_file({name: tensor.contiguous() for name, tensor in mean.items()}, path)
            sums = {path.name: checksum(path) for path in aside.glob("*.safetensors")}
            with atomic_write(aside / "state.json") as path:
                path.write_text(json.dumps({**asdict(progress), "crc32": sums}), encoding="utf-8")
            _drop(final)
            aside.rename(final)
            for old in found(run)[:-KEPT]:
                _drop(old)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise


def _drop(path: Path) -> None:
    """Remove a checkpoint so that a kill in the middle leaves nothing that looks like one."""
    if path.exists():
        doomed = path.with_name(f".{path.name}.old")
        path.rename(doomed)
        shutil.rmtree(doomed)


def load(
    run: Path,
    step: int,
    model: RecognizerModel,
    optimizer: torch.optim.Optimizer,
    mean: dict[str, Tensor] | None,
    whole: bool,
) -> Progress:
    """Put a checkpoint back into the model, the optimiser and the mean; UsageError where it is damaged."""
    path = run / FOLDER / f"step-{step:08d}"
    device = str(model.backbone.device)
    try:
        progress = _read_progress(path, step)
        for name in ("model.safetensors", PROBES, "optimizer.safetensors", "mean.safetensors"):
            if (path / name).exists():
                check_header(path / name)
        weights = load_file(path / "model.safetensors", device=device)
        if model.probes is not None:
            weights |= load_file(path / PROBES, device=device)
        moments = load_file(path / "optimizer.safetensors", device=device)
        kept = load_file(path / "mean.safetensors", device=device) if mean is not None else {}
        missing, unknown = model.load_state_dict(weights, strict=False)
        if unknown or (missing and whole) or any(not name.startswith("backbone.") for name in missing):
            raise ValueError("it is of another model")
        _fill(optimizer, dict(model.named_parameters()), moments)
        tensors = [*weights.values(), *moments.values(), *kept.values()]
        if not all(torch.isfinite(tensor).all() for tensor in tensors if tensor.is_floating_point()):
            raise ValueError("it holds values that are not finite")
        if mean is not None:
            mean.update({name: kept[name] for name in mean})
    except Exception as error:  # safetensors raises kinds of its own
        brief = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise UsageError(
            f"The checkpoint {path} cannot be used ({brief}); delete it to use the previous one."
        ) from error
    return progress


def _read_progress(path: Path, step: int) -> Progress:
    """Read ``state.json``, and compare the files beside it with their checksums. ValueError where one differs."""
    state = json.loads(read_file(path / "state.json", LARGEST))
    for name, expected in state.pop("crc32", {}).items():
        if checksum(path / name) != expected:
            raise ValueError(f"{name} is damaged")
    progress = Progress(**state)
    if progress.step != step or not isinstance(progress.best, float):
        raise ValueError("state.json is damaged")
    return progress


def _fill(
    optimizer: torch.optim.Optimizer, parameters: dict[str, torch.nn.Parameter], moments: dict[str, Tensor]
) -> None:
    """Give the optimiser its moments back. ValueError where they are not those of these parameters."""
    for name, value in moments.items():
        owner, key = name.rsplit("/", 1)
        if key != "step" and (value.shape, value.dtype) != (parameters[owner].shape, torch.float32):
            raise ValueError(f"{name} is of another shape or kind")
        optimizer.state[parameters[owner]][key] = value
    for owner in {name.rsplit("/", 1)[0] for name in moments}:
        if {"step", "exp_avg", "exp_avg_sq"} - set(optimizer.state[parameters[owner]]):
            raise ValueError(f"the optimiser's state of {owner} is not complete")


def _moments(model: RecognizerModel, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    return {
        f"{name}/{key}": (value if isinstance(value, Tensor) else torch.tensor(value)).contiguous()
        for name, parameter in model.named_parameters()
        for key, value in optimizer.state.get(parameter, {}).items()
    }
