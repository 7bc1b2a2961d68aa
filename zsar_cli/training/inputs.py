"""What a training run was started with, kept in its folder: it goes on with the same, or not at all.

``recipe.json`` is the recipe as it runs. ``inputs.json`` tells by content what the recipe names by a path: classes,
clips, prompts and the weights it began with. So a folder may be moved, and what it holds may not change.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zsar_cli.cache_files import read_file
from zsar_cli.data.annotations import rows_hash
from zsar_cli.data.definition import known_name
from zsar_cli.data.rows import Row
from zsar_cli.errors import UsageError
from zsar_cli.files import atomic_write, existing
from zsar_cli.model import hub as sources
from zsar_cli.model.config import BUNDLED, read_description
from zsar_cli.model.load import is_recognizer
from zsar_cli.model.parts import UNRECORDED
from zsar_cli.model.published.records import named_family
from zsar_cli.text.class_lists import list_names
from zsar_cli.text.templates import builtin_templates
from zsar_cli.text.words import as_words
from zsar_cli.training import checkpoint
from zsar_cli.training.folder import INPUTS, LARGEST, RECIPE
from zsar_cli.training.recipe import Recipe, make_recipe, recipe_content

if TYPE_CHECKING:
    from zsar_cli.data.dataset import Dataset, Item

BY_CONTENT = (
    "model",
    "data",
    "labels",
    "label_column",
    "templates",
)  # fields of the recipe that inputs.json holds to
FITS = ("gradient_checkpointing", "pretrained_weight")  # change nothing that is trained


@dataclass(frozen=True)
class RunInputs:
    """What decides a run besides the numbers of its recipe; lists and weights by hashes of what they hold."""

    classes: list[str]
    clips: int
    clips_hash: str
    held_out: int
    held_out_hash: str
    templates: str
    weights: str  # that the run began with
    phrases: list[str] = field(default_factory=list)  # of the classes, in prompts; older runs took the names


def from_anywhere(recipe: Recipe) -> Recipe:
    """Make every path of the recipe absolute, so that the run can be used from any folder."""
    model = recipe.model
    if recipe.architecture is None and model not in BUNDLED:
        named = named_family(model)
        if named is not None:
            model = f"{named[0]}:{absolute(named[1])}"
        else:
            model = absolute(model) if is_recognizer(model) else sources.from_anywhere(model)
    return replace(
        recipe,
        model=model,
        data=recipe.data if known_name(recipe.data) else absolute(recipe.data),
        labels=recipe.labels
        and (recipe.labels if recipe.labels in list_names() else absolute(recipe.labels)),
        templates=recipe.templates
        if recipe.templates in ("default", *builtin_templates())
        else absolute(recipe.templates),
    )


def absolute(name: str) -> str:
    """Make a path absolute, if something is there; else return the name as it is."""
    found = existing(name)
    return name if found is None else str(found.absolute())


def describe_inputs(
    dataset: Dataset, held_out: Sequence[Item], templates: str, weights: str, phrases: list[str]
) -> RunInputs:
    """Describe the inputs of a run over ``dataset``, whose items are the training clips."""

    def digest(items: Sequence[Item]) -> str:
        return rows_hash(Row(item.listed or item.path, dataset.classes[item.label]) for item in items)

    return RunInputs(
        list(dataset.classes),
        len(dataset.items),
        digest(dataset.items),
        len(held_out),
        digest(held_out),
        templates,
        weights,
        phrases,
    )


# --- going on -----------------------------------------------------------------------------------------------


def load_run_recipe(output: Path) -> Recipe:
    """Read the recipe that a run's folder was started with; OSError or ValueError where it has none."""
    path = output / RECIPE
    content = json.loads(read_file(path, LARGEST))
    if isinstance(content, dict) and isinstance(content.get("parts"), dict):
        content["parts"] = UNRECORDED | content["parts"]
    return make_recipe(content, str(path))


def precision_before(output: Path) -> str | None:
    """Read the precision that the run in ``output`` began in; None where there is none."""
    try:
        precision = load_run_recipe(output).precision
    except (OSError, ValueError, UsageError):
        return None
    return None if precision == "auto" else precision


def refuse_other_recipe(output: Path, recipe: Recipe) -> None:
    """Raise UsageError where the run in ``output`` was started with another recipe: going on would mix two runs."""
    path = output / RECIPE
    if not path.is_file():
        return
    try:
        before = recipe_content(from_anywhere(load_run_recipe(output)))  # older versions kept relative paths
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} is damaged; start a new run in another --output.") from error
    by_content = BY_CONTENT if (output / INPUTS).is_file() else ()
    now = recipe_content(recipe)
    free = {*by_content, *FITS}
    if recipe.patience is not None:  # it chose the step that is released
        free.discard("pretrained_weight")
    changed = sorted(key for key in now if before[key] != now[key] and key not in free)
    if changed:
        told = ", ".join(f"{key}{_difference(before[key], now[key])}" for key in changed)
        raise UsageError(
            f"{output} was trained with another {told}. Resume it with the same recipe, {_way_out(output)}."
        )


def refuse_other_inputs(output: Path, now: RunInputs) -> None:
    """Raise UsageError where clips, classes, prompts or weights are not those that the run began with."""
    before = _read_inputs(output)
    changes = []
    if "classes" in before:
        changes += _class_changes(before["classes"], now.classes)
    for count, digest, name in (
        ("clips", "clips_hash", "training clips"),
        ("held_out", "held_out_hash", "held-out clips"),
    ):
        if before.get(digest, getattr(now, digest)) != getattr(now, digest):
            then, there = before[count], getattr(now, count)
            changes.append(
                f"{then} {name} then, {there} now"
                if then != there
                else f"the {there} {name} are others, or labelled otherwise"
            )
    if before.get("templates", now.templates) != now.templates:
        changes.append("the prompt templates are others")
    if before.get("weights", now.weights) != now.weights:
        changes.append(
            f"the weights to start from are others (fingerprint {before['weights']} then, {now.weights} now)"
        )
    if changes:
        raise UsageError(
            f"{output} cannot be resumed, as its inputs have changed: {'; '.join(changes)}. Restore them, "
            f"{_way_out(output)}."
        )


def keep(output: Path, recipe: Recipe, inputs: RunInputs) -> None:
    """Write ``recipe.json`` and ``inputs.json``. UsageError where the folder cannot be written."""
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{output} cannot be written: {error.strerror}. Choose another --output.") from error
    for name, content in ((RECIPE, recipe_content(recipe)), (INPUTS, asdict(inputs))):
        with atomic_write(output / name) as aside:
            aside.write_text(json.dumps(content, indent=1), encoding="utf-8")


def phrases_of(output: Path, classes: Sequence[str], *, resume: bool) -> list[str]:
    """Choose what prompts call each class: what they called it when the run began, else its words."""
    before = _read_inputs(output) if resume else {}
    if list(before.get("classes", ())) == list(classes):
        return before.get("phrases") or list(classes)
    return [as_words(name) for name in classes]


def _read_inputs(output: Path) -> dict[str, Any]:
    """Read the run's inputs; of one that an older version began, the classes of its last checkpoint."""
    path = output / INPUTS
    if path.is_file():
        try:
            return asdict(RunInputs(**json.loads(read_file(path, LARGEST))))
        except (OSError, ValueError, TypeError, RecursionError) as error:
            raise UsageError(f"{path} is damaged; start a new run in another --output.") from error

    newest = checkpoint.found(output)[-1:]
    try:
        remembered = read_description(newest[0] / "config.yaml").remembered if newest else {}
    except UsageError:
        return {}  # what is wrong with a checkpoint is said when it is loaded
    return {"classes": remembered["classes"]} if remembered.get("classes") else {}


def _class_changes(before: Sequence[str], now: Sequence[str]) -> list[str]:
    added = [name for name in now if name not in set(before)]
    removed = [name for name in before if name not in set(now)]
    changes = [
        f"classes {what}: {', '.join(map(repr, names[:5]))}"
        + (f" and {len(names) - 5} more" if len(names) > 5 else "")
        for what, names in (("added", added), ("removed", removed))
        if names
    ]
    if not changes and list(before) != list(now):
        changes.append("the classes are in another order")
    return changes


def _difference(before: Any, now: Any) -> str:
    """Format `` (4 then, 8 now)``; nothing for what takes too long to say."""
    told = f" ({before} then, {now} now)"
    return told if len(told) < 120 else ""


def _way_out(output: Path) -> str:
    finished = (output / "model.safetensors").is_file()
    start = output if finished else next(iter(checkpoint.found(output)[-1:]), None)
    if start is None:
        return "or choose another --output"
    return f"or start a new run from it with --model {start} and another --output"
