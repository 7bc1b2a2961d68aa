"""YAML and JSON that people write by hand: values as they are written, and the line of every mistake."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from zsar_cli.errors import UsageError
from zsar_cli.files import read_text

YAML_LIMIT = 2_000_000  # characters; PyYAML reads about 0.2 MB a second


def compose(text: str, path: str | Path) -> yaml.Node | None:
    """The tree of nodes of a YAML document; None for an empty one. Nothing is constructed from it.

    Raises:
        UsageError: naming the line.
    """
    if len(text) > YAML_LIMIT:
        raise UsageError(f"{path} is long for YAML; JSON of the same form is read at once.")
    try:
        return yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f", line {mark.line + 1}" if mark else ""
        raise UsageError(
            f"{path}{where}: this is not YAML ({error.problem or error.context}); put texts in quotes."
        ) from error
    except yaml.YAMLError as error:
        raise UsageError(f"{path} is not YAML: {str(error).splitlines()[0][:150]}") from error
    except (RecursionError, ValueError) as error:
        raise UsageError(f"{path} is not YAML of the form that is expected here.") from error


def load(path: str | Path, limit: int = YAML_LIMIT) -> Any:
    """A YAML file as plain data, never as objects of Python's; None for an empty one.

    Raises:
        UsageError: it cannot be read, is no YAML, or is too long or too deep; in one line.
    """
    text = read_text(path, limit=4 * limit)
    if len(text) > limit:
        raise UsageError(f"{path} is too long; is it the file you meant?")
    try:
        return yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f", line {mark.line + 1}" if mark else ""
        raise UsageError(f"{path}{where}: this is not YAML ({error.problem or error.context}).") from error
    except (yaml.YAMLError, RecursionError, ValueError, OverflowError, TypeError) as error:
        brief = " ".join(str(error).split())[:150] or type(error).__name__
        raise UsageError(f"{path} is not YAML of the form that is expected here ({brief}).") from error


def line(node: yaml.Node) -> int:
    """The line that a node starts in, from 1."""
    return int(node.start_mark.line) + 1


def entries(node: yaml.MappingNode, path: str | Path) -> list[tuple[str, yaml.Node, int]]:
    """(key, value, line) of a mapping, keys as they are written (so that ``yes`` and ``1.0`` stay what they are).

    Raises:
        UsageError: a key that is no text, or one that comes twice.
    """
    found: list[tuple[str, yaml.Node, int]] = []
    seen: dict[str, int] = {}
    for key, value in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise UsageError(f"{path}, line {line(key)}: a key must be a text; put it in quotes.")
        if key.value in seen:
            raise UsageError(
                f"{path}, line {line(key)}: {key.value!r} is there already, in line {seen[key.value]}."
            )
        seen[key.value] = line(key)
        found.append((key.value, value, line(key)))
    return found


def plain(node: yaml.Node, path: str | Path) -> Any:
    """A node as dicts, lists and texts; an empty value is None.

    Raises:
        UsageError: an anchor that stands for a list or map (a few lines of them can unfold without end).
    """
    seen: set[int] = set()

    def unfold(node: yaml.Node) -> Any:
        if isinstance(node, yaml.ScalarNode):
            return None if node.tag == "tag:yaml.org,2002:null" else node.value
        if id(node) in seen:
            raise UsageError(
                f"{path}, line {line(node)}: write this out instead of referring to it with an anchor."
            )
        seen.add(id(node))
        if isinstance(node, yaml.MappingNode):
            return {key: unfold(value) for key, value, _ in entries(node, path)}
        return [unfold(value) for value in node.value]

    return unfold(node)


def read_json(text: str, path: str | Path) -> Any:
    """A JSON document; numbers stay texts, and a key that comes twice is an error."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in pairs:
            if key in found:
                raise UsageError(f"{path}: {key!r} is there twice.")
            found[key] = value
        return found

    try:
        return json.loads(text, object_pairs_hook=unique, parse_int=str, parse_float=str)
    except json.JSONDecodeError as error:
        raise UsageError(f"{path}, line {error.lineno}: this is not JSON ({error.msg}).") from error
    except RecursionError as error:
        raise UsageError(f"{path} is not JSON of the form that is expected here.") from error
