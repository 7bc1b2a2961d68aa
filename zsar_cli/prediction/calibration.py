"""Confidence thresholds for a user's videos: ``zsar eval --calibrate`` writes them, ``zsar predict`` uses them.

The calibrations of a run are stored in its folder, those of other models in the user's cache folder. Each applies to
one model, one set of labels and templates, and one number of frames.
"""

from __future__ import annotations

import logging
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from zsar_cli.errors import UsageError
from zsar_cli.files import atomic_write, require_file

if TYPE_CHECKING:
    from zsar_cli.model.zsar import RecognizerModel
    from zsar_cli.schemas import CalibrationEntry
    from zsar_cli.text.labels import Labels

logger = logging.getLogger(__name__)

NAME = "calibration.yaml"
TARGETS = {  # as people name them: bounds of a calibration
    **{"95": "precision95", "90": "precision90", "80": "precision80"},
    **{"alarms": "false_alarms5", "off": None},
}
TITLES = {  # of bounds, as they are said
    "precision95": "95% right",
    "precision90": "90% right",
    "precision80": "80% right",
    "false_alarms5": "5% false alarms",
}
MOST = 200  # entries of a file; the oldest go
LIMIT = 1_000_000  # characters of a file


@dataclass(frozen=True)
class Key:
    """What a calibration is of."""

    weights: str  # their fingerprint
    labels: str  # hash, whatever their order
    templates: str  # hash
    frames: int


def key_of(model: RecognizerModel, labels: Labels, templates_hash: str, frames: int | None) -> Key:
    """Make the key of a model that is asked about labels."""
    return Key(model.fingerprint(), labels.hash, templates_hash, frames or model.frames)


def place_of(model: RecognizerModel, key: Key) -> Path | None:
    """Locate the file for a model's calibrations; None where it would be in the folder of a user who has none."""
    from zsar_cli.cache_files import cache_directory

    folder = Path(model.name)
    if (folder / "config.yaml").is_file() and (folder / "model.safetensors").is_file():
        return folder / NAME
    own = cache_directory()
    return None if own is None else own / f"calibration-{key.weights}.yaml"


def find(model: RecognizerModel, key: Key) -> CalibrationEntry | None:
    """Find the calibration with this key, where there is one; a damaged file is said to be, and is none."""
    path = place_of(model, key)
    try:
        entries = [] if path is None or not path.exists() else _read(path)
    except UsageError as error:
        logger.warning("%s The calibration is not used; repeat zsar eval --calibrate.", error)
        return None
    return next((entry for entry in entries if _key(entry) == key), None)


def bound(
    model: RecognizerModel, labels: Labels, templates_hash: str, frames: int | None, target: str
) -> tuple[float | None, str] | None:
    """Find the bound for a target, and what it gave in words; None where nothing was found.

    Args:
        target: one of :data:`TARGETS`.

    Returns:
        a bound of None where none reached the target.
    """
    name = TARGETS[target]
    entry = None if name is None else find(model, key_of(model, labels, templates_hash, frames))
    if entry is None or name is None:
        return None
    known = f"Calibrated on {entry.videos} videos: "
    best = entry.bounds.get(name)
    if best is None:
        return None, f"{known}no threshold reached {TITLES[name]}, so none is used"
    low, high = best.interval95
    gave = f"which gave {TITLES[name]} (95% CI {low:.0%} to {high:.0%})"
    return best.min_confidence, f"{known}answers by --min-confidence {best.min_confidence:g}, {gave}"


def present(
    model: RecognizerModel, key: Key, *, overwrite: bool = False
) -> tuple[Path, list[CalibrationEntry]]:
    """Open the file for a model's calibrations, and read those that are in it.

    Raises:
        UsageError: there is no place for it, or what has its name is something else and is not to be replaced.
    """
    path = place_of(model, key)
    if path is None:
        raise UsageError(
            "There is no home folder to save the calibration in; set ZSAR_CACHE_DIR to a folder."
        )
    try:
        return path, _read(path) if os.path.lexists(path) else []
    except UsageError as error:
        if not overwrite:
            raise UsageError(f"{error} Replace it with --overwrite.") from error
        return path, []


def write(model: RecognizerModel, key: Key, about: dict[str, Any], *, overwrite: bool = False) -> Path:
    """Keep a calibration in place of an earlier one with the same key; others stay.

    Args:
        about: the other fields of :class:`zsar_cli.schemas.CalibrationEntry`.

    Raises:
        UsageError: as :func:`present`; or the file cannot be written.
    """
    from zsar_cli.schemas import CalibrationFile, check

    path, entries = present(model, key, overwrite=overwrite)
    kept = [entry.model_dump(mode="json") for entry in entries if _key(entry) != key][-(MOST - 1) :]
    content = {"format": 1, "calibrations": [*kept, asdict(key) | about]}
    check(CalibrationFile, content, str(path))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {(error.strerror or str(error)).lower()}.") from error
    with atomic_write(path) as aside:
        aside.write_text(yaml.dump(content, Dumper=_Quoted, sort_keys=False), encoding="utf-8")
    return path


class _Quoted(yaml.SafeDumper):
    """Texts in quotes, so that a hash of digits is not read as a number; no anchors."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


_Quoted.add_representer(
    str, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"')
)


def _read(path: Path) -> list[CalibrationEntry]:
    from zsar_cli import yaml_files
    from zsar_cli.schemas import CalibrationFile, check

    require_file(path, "The calibration")
    root = yaml_files.read(path, LIMIT)
    content = None if root is None else yaml_files.typed(root, path)
    return list(check(CalibrationFile, content, str(path), yaml_files.line_in(root)).calibrations)


def _key(entry: CalibrationEntry) -> Key:
    return Key(entry.weights, entry.labels, entry.templates, entry.frames)
