"""Which model ``zsar eval`` looks at and on which data, where that is not all said."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zsar_cli.errors import UsageError

if TYPE_CHECKING:
    from zsar_cli.evaluation.protocols import Plan

DEFAULT_MODEL = "PE-Core-B-16/meta"
BUNDLED_MODEL = "motion-tiny"


@dataclass(frozen=True)
class Choice:
    """Model and data, and why: what the header of the output says."""

    model: str
    data: str
    why: str
    data_root: str | None = None  # of what the model was trained on
    classes: tuple[str, ...] | None = None  # of a run whose list numbers them
    trained_on: str | None = None
    seen: tuple[str, ...] = ()  # the classes of its training
    label_column: str | None = None  # of that data's list


@dataclass(frozen=True)
class Trained:
    """What a run remembers of its training; nothing for a model that is no run."""

    data: str | None = None
    data_root: str | None = None
    seen: tuple[str, ...] = ()  # its classes
    numbered: bool = False  # whether its list only numbers them
    label_column: str | None = None


def choose(data: str | None, model: str | None) -> Choice:
    """Fill in what was not said: the bundled model and its data, or the data that a run was trained on."""
    if model is None:
        name = BUNDLED_MODEL if data in (None, "motion-shapes") else DEFAULT_MODEL
        why = "the default model" if data else "the bundled model and data; see --model, --data"
        return Choice(name, data or "motion-shapes", why, seen=trained_with(name).seen)
    before = trained_with(model)
    if data is not None:
        return Choice(model, data, "as given", None, None, before.data, before.seen)
    if before.data is None:
        raise UsageError(
            f"What should {model} be evaluated on? Give --data (a name such as ucf101, or a folder)."
        )
    why = "the data that the model was trained on"
    _check_still_there(model, before.data)
    names = before.seen if before.numbered else None
    return Choice(
        model, before.data, why, before.data_root, names, before.data, before.seen, before.label_column
    )


def _check_still_there(model: str, data: str) -> None:
    from zsar_cli.data.definition import known_name
    from zsar_cli.files import existing

    if known_name(data) is None and existing(data) is None:
        raise UsageError(
            f"{model} was trained on {data}, which does not exist any more; give a data set with --data."
        )


def trained_with(model: str) -> Trained:
    """Describe what a run was trained on and how."""
    from zsar_cli import yaml_files
    from zsar_cli.files import ASSETS, existing

    path = (ASSETS / model if model == BUNDLED_MODEL else existing(model) or Path(model)) / "config.yaml"
    try:
        said = yaml_files.load(path, 20 * yaml_files.YAML_LIMIT) if path.is_file() else {}
        recipe = said.get("recipe") or {}
        return Trained(
            "motion-shapes" if model == BUNDLED_MODEL else said.get("data"),
            said.get("data_root"),
            tuple(map(str, said.get("classes") or ())),
            recipe.get("labels") is not None,
            recipe.get("label_column"),
        )
    except (UsageError, AttributeError, TypeError, ValueError):
        return Trained()  # what is wrong with it is said when the model is loaded


def note_training_clips(plan: Plan, chosen: Choice, source: Any) -> None:
    """Say where a run is tested on the clips that it learned from."""
    from zsar_cli.data.definition import load_definition
    from zsar_cli.files import existing

    if chosen.trained_on is None or source.list_file is not None:
        return
    before, now = existing(chosen.trained_on), existing(chosen.data)
    same = chosen.trained_on == chosen.data or bool(before and now and before.samefile(now))
    definition = load_definition(chosen.data)
    if same and not definition.rendered and definition.splits.get("test") == definition.splits.get("train"):
        plan.notes.append(
            "the model was trained on these videos, so this is not a test: put others into a folder test/ beside "
            "train/, or give another list with --list"
        )
