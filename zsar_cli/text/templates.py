"""Prompt templates, and the phrase bank that a plain CLIP compares labels with."""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from zsar_cli import yaml_files
from zsar_cli.errors import UsageError
from zsar_cli.files import ASSETS, existing, read_text

if TYPE_CHECKING:
    from zsar_cli.model.zsar import RecognizerModel


DEFAULT_TEMPLATES = "video"


@dataclass(frozen=True)
class Templates:
    """Prompt templates: in each, ``{}`` is where the label goes."""

    name: str
    positive: tuple[str, ...]
    negative: tuple[str, ...]

    @property
    def texts(self) -> dict[str, list[str]]:
        """What a model keeps of them beside their name."""
        return {"positive": list(self.positive), "negative": list(self.negative)}

    @property
    def hash(self) -> str:
        """12 hex digits of the templates' texts; the name does not count."""
        return hashlib.sha256(json.dumps([self.positive, self.negative]).encode()).hexdigest()[:12]


def builtin_templates() -> list[str]:
    """List the names of the templates that ship with the package."""
    return sorted(path.stem for path in _template_directory().glob("*.yaml"))


def load_templates(name_or_path: str | Path) -> Templates:
    """Read templates by the name of a shipped file ("default" is ``video``) or by path.

    Raises:
        UsageError: no such templates; or naming file and line, what is wrong with them.
    """
    name = DEFAULT_TEMPLATES if name_or_path == "default" else str(name_or_path)
    known = builtin_templates()
    path = _template_directory() / f"{name}.yaml" if name in known else existing(name)
    if path is None:
        close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(known)}."
        raise UsageError(f"{name[:200]} is neither a template file nor a bundled set of templates; {hint}")
    return _parse_templates(read_text(path, limit=1_000_000), path)


def _template_directory() -> Path:
    inside = ASSETS.parent / "prompt_templates"  # where the wheel has them
    return inside if inside.is_dir() else inside.parent.parent / "prompt_templates"


def _parse_templates(text: str, path: Path) -> Templates:
    from zsar_cli.schemas import TemplateFile, check

    root = yaml_files.compose(text, path)
    if not isinstance(root, yaml.MappingNode):
        raise UsageError(f"{path}: templates have the keys name, positive and negative.")
    content = yaml_files.content(root, path)
    found = check(TemplateFile, content, str(path), yaml_files.line_in(root))
    return Templates(**found.model_dump())


@cache
def phrase_bank() -> tuple[str, ...]:
    """Load some 150 phrases for actions and for scenes without any: a plain CLIP compares the labels with them."""
    text = (ASSETS / "phrase_bank.txt").read_text(encoding="utf-8")
    lines = (line.strip() for line in text.splitlines())
    return tuple(line for line in lines if line and not line.startswith("#"))


def fill(templates: Sequence[str], phrases: Sequence[str]) -> list[str]:
    """Fill every template with every phrase. The phrase is put in as it is: braces in it mean nothing."""
    return [template.replace("{}", phrase) for phrase in phrases for template in templates]


def default_templates(model: RecognizerModel) -> Templates:
    """Load the templates that a model was trained with, else ``video``. UsageError where an old one lacks its own."""
    texts = model.record.template_texts
    if texts is not None:
        return Templates(model.templates or "", tuple(texts["positive"]), tuple(texts["negative"]))
    try:
        return load_templates(model.templates or DEFAULT_TEMPLATES)
    except UsageError as error:
        raise UsageError(
            f"{model.name} was trained with the prompt templates {str(model.templates)[:200]!r} and does not hold "
            "them; give their file with --templates."
        ) from error
