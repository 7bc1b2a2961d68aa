"""A command-line flag for every field of a recipe, generated from the recipe's fields."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from zsar_cli import yaml_files
from zsar_cli.cli.options import complete_data, complete_model, complete_templates
from zsar_cli.errors import UsageError
from zsar_cli.model.parts import Parts
from zsar_cli.training.recipe import Recipe, field_kinds

COMPLETIONS = {"data": complete_data, "model": complete_model, "templates": complete_templates}
PARTS = "parts_"  # begins the flags for the fields of ``parts``


def with_recipe_flags(command: Callable[..., None]) -> Callable[..., None]:
    """Add a keyword argument and a flag for each field to the command; flags not given are None."""
    signature = inspect.signature(command, eval_str=True)
    own = [p for p in signature.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
    made = [_flag(f.name, kind, f.metadata["help"]) for f, kind in _fields(Recipe) if f.name != "parts"]
    made += [_flag(PARTS + f.name, kind, f.metadata["help"]) for f, kind in _fields(Parts)]
    command.__signature__ = signature.replace(parameters=own + made)  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in own + made}
    return command


def _fields(record: type) -> list[tuple[Any, type]]:
    kinds = field_kinds(record)
    return [(f, kinds[f.name][0]) for f in fields(record)]


def _flag(name: str, kind: type, text: str) -> inspect.Parameter:
    shown = Path if kind is dict else kind
    option = typer.Option(help=text, show_default=False, autocompletion=COMPLETIONS.get(name))
    annotation: Any = Annotated[Optional[shown], option]  # noqa: UP045
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def recipe_overrides(given: dict[str, Any]) -> dict[str, Any]:
    """Convert the flags' values to the form that :func:`zsar_cli.training.recipe.override` takes."""
    parts = {key.removeprefix(PARTS): value for key, value in given.items() if key.startswith(PARTS)}
    rest = {key: value for key, value in given.items() if not key.startswith(PARTS)}
    if rest.get("architecture") is not None:
        rest["architecture"] = _read_architecture(rest["architecture"])
    return {**rest, "parts": parts}


def _read_architecture(path: Path) -> dict[str, Any]:
    """Read open_clip's ``model_cfg``, on its own or inside an ``open_clip_config.json``."""
    content = yaml_files.load(path)  # JSON is YAML
    if isinstance(content, dict):
        content = content.get("model_cfg", content)
    if not isinstance(content, dict) or "vision_cfg" not in content:
        raise UsageError(
            f"{path} holds no open_clip model_cfg: a map with embed_dim, vision_cfg and text_cfg."
        )
    return content
