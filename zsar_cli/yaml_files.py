"""YAML and JSON files: values as they are written, and errors with line numbers.

A document is checked as a tree of nodes before any object is constructed: recursive references, aliases that expand to
far more than the file holds, deep nesting, and tags of Python objects are refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml

from zsar_cli.errors import UsageError, shown
from zsar_cli.files import read_text

try:  # ten times faster
    from yaml import CSafeDumper as SafeDumper
    from yaml import CSafeLoader as SafeLoader
except ImportError:  # PyYAML without libyaml
    from yaml import SafeDumper, SafeLoader  # type: ignore[assignment]

YAML_LIMIT = 2_000_000  # characters
MOST_VALUES = 300_000  # for which libyaml takes some two seconds
MOST_SETTINGS = 120_000  # of a model folder, a recipe or a data set, whose classes may be many
DEPTH = 30
LONGEST_NUMBER = 40
TAG = "tag:yaml.org,2002:"
PLAIN_TAGS = frozenset(
    TAG + kind for kind in ("str", "int", "float", "bool", "null", "seq", "map", "timestamp")
)
PLAIN_TAGS |= {TAG + "merge", TAG + "value"}  # the keys << and =
# As YAML 1.2 and JSON have them, besides what YAML 1.1 has: 1e-4 without a point
NUMBER = re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+")


def compose(text: str, path: str | Path) -> yaml.Node | None:
    """Parse a YAML document into its tree of nodes; None for an empty one. No object is constructed from it.

    Raises:
        UsageError: naming the line.
    """
    if len(text) > YAML_LIMIT or _values(text) > MOST_VALUES:
        raise UsageError(f"{path} is too long for YAML; save the same content as JSON.")
    try:
        root = yaml.compose(text, Loader=SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f", line {mark.line + 1}" if mark else ""
        raise UsageError(
            f"{path}{where}: this is not valid YAML ({error.problem or error.context}); put strings in quotes."
        ) from error
    except yaml.YAMLError as error:
        raise UsageError(f"{path} is not YAML: {str(error).splitlines()[0][:150]}") from error
    except (RecursionError, ValueError) as error:
        raise UsageError(f"{path} is not YAML of the expected form.") from error
    if root is not None:
        _check(root, path, 2 * len(text) + 1000)
    return root


def _values(text: str) -> int:
    """Bound the keys and values in a document: each has one of these marks before it."""
    return sum(text.count(mark) for mark in "\n,:[{")


def _check(root: yaml.Node, path: str | Path, most: int) -> None:
    """Raise UsageError for a tag, an anchor or a depth that no file of this program's has."""
    sizes: dict[int, int] = {}  # characters of each list and map, with all that it refers to

    def size(node: yaml.Node, depth: int) -> int:
        where = f"{path}, line {line(node)}"
        if node.tag not in PLAIN_TAGS:
            raise UsageError(
                f"{where}: tags such as {shown(node.tag)} are not supported; write only the value."
            )
        if isinstance(node, yaml.ScalarNode):
            return 1 + len(node.value)
        if depth > DEPTH:
            raise UsageError(f"{where}: this is nested more than {DEPTH} deep.")
        if id(node) not in sizes:
            sizes[id(node)] = most + 1  # what refers to itself has no size
            pairs = isinstance(node, yaml.MappingNode)
            inner = (part for pair in node.value for part in pair) if pairs else node.value
            sizes[id(node)] = 1 + sum(size(part, depth + 1) for part in inner)
        if sizes[id(node)] > most:
            raise UsageError(f"{where}: anchors are not supported here; write the value out.")
        return sizes[id(node)]

    size(root, 0)


def load(path: str | Path, limit: int = YAML_LIMIT) -> Any:
    """Load a YAML file as plain data, never as objects of Python's; None for an empty one.

    Raises:
        UsageError: it cannot be read, is no YAML, or is too long or too deep; in one line.
    """
    root = read(path, limit)
    return None if root is None else typed(root, path)


def read(path: str | Path, limit: int = YAML_LIMIT) -> yaml.Node | None:
    """Parse a YAML file into its tree of nodes; None for an empty one. UsageError as for :func:`load`."""
    text = read_text(path, limit=4 * limit)
    if _values(text) > MOST_SETTINGS:
        raise UsageError(f"{path} holds far more values than expected; is this the right file?")
    return compose(text, path)


def parse(text: str) -> Any:
    """Parse a YAML document that ships with this package, or that it wrote; for anybody's there is :func:`load`."""
    return yaml.load(text, Loader=SafeLoader)


def dump(data: Any) -> str:
    """Write plain data as YAML, keys in the order that they have."""
    return str(yaml.dump(data, Dumper=SafeDumper, sort_keys=False, allow_unicode=True))


def line(node: yaml.Node) -> int:
    """Return the line that a node starts in, from 1."""
    return int(node.start_mark.line) + 1


def entries(node: yaml.MappingNode, path: str | Path) -> list[tuple[str, yaml.Node, int]]:
    """Yield (key, value, line) of a mapping, keys as they are written (so that ``yes`` and ``1.0`` stay what they are).

    What ``<<`` refers to is merged in, behind the mapping's own keys.

    Raises:
        UsageError: a key that is no text, or one that comes twice.
    """
    found: list[tuple[str, yaml.Node, int]] = []
    seen: dict[str, int] = {}
    merged: list[yaml.Node] = []
    for key, value in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise UsageError(f"{path}, line {line(key)}: a key must be a string; put it in quotes.")
        if key.tag == f"{TAG}merge":
            merged += value.value if isinstance(value, yaml.SequenceNode) else [value]
            continue
        if key.value in seen:
            raise UsageError(
                f"{path}, line {line(key)}: {shown(key.value)} is a duplicate of the key in line {seen[key.value]}."
            )
        seen[key.value] = line(key)
        found.append((key.value, value, line(key)))
    for base in merged:
        if not isinstance(base, yaml.MappingNode):
            raise UsageError(f"{path}, line {line(base)}: << needs a map or a list of maps.")
        found += [entry for entry in entries(base, path) if entry[0] not in seen]
        seen |= {key: number for key, _, number in found}
    return found


def plain(node: yaml.Node, path: str | Path) -> Any:
    """Convert a node to dicts, lists and texts as they are written (``no`` stays "no"); an empty value is None."""
    if isinstance(node, yaml.ScalarNode):
        return None if node.tag == f"{TAG}null" else node.value
    if isinstance(node, yaml.MappingNode):
        return {key: plain(value, path) for key, value, _ in entries(node, path)}
    return [plain(value, path) for value in node.value]


def typed(node: yaml.Node, path: str | Path) -> Any:
    """Convert a node to dicts, lists, texts, numbers, true and false. A date stays a text.

    Raises:
        UsageError: a number of hundreds of digits, or a key that comes twice.
    """
    if isinstance(node, yaml.MappingNode):
        return {key: typed(value, path) for key, value, _ in entries(node, path)}
    if not isinstance(node, yaml.ScalarNode):
        return [typed(value, path) for value in node.value]
    kind = node.tag.removeprefix(TAG)
    if kind in ("int", "float") and len(node.value) > LONGEST_NUMBER:
        raise UsageError(f"{path}, line {line(node)}: {shown(node.value)} is too long for a number.")
    if (
        kind == "str"
        and node.style is None
        and len(node.value) <= LONGEST_NUMBER
        and NUMBER.fullmatch(node.value)
    ):
        return float(node.value)
    if kind not in ("int", "float", "bool", "null"):
        return node.value
    try:
        return yaml.constructor.SafeConstructor().construct_document(node)
    except (yaml.YAMLError, ValueError, OverflowError, KeyError) as error:
        raise UsageError(f"{path}, line {line(node)}: {shown(node.value)} is not a {kind}.") from error


def content(root: yaml.Node | None, path: str | Path, typed_keys: Sequence[str] = ()) -> dict[str, Any]:
    """Convert a map to texts as they are written, but for the keys whose values have types.

    Raises:
        UsageError: it is no map.
    """
    if root is None:
        return {}
    if not isinstance(root, yaml.MappingNode):
        raise UsageError(f"{path} must be a map from fields to values.")
    return {key: (typed if key in typed_keys else plain)(node, path) for key, node, _ in entries(root, path)}


def line_in(root: yaml.Node | None) -> Callable[[Sequence[Any]], int]:
    """Find the line of the value that keys and numbers lead to from the outside in, or of the last that is there."""

    def line_of(location: Sequence[Any]) -> int:
        here, found = root, 1 if root is None else line(root)
        for part in location:
            if isinstance(here, yaml.MappingNode):
                pair = next((pair for pair in here.value if pair[0].value == str(part)), None)
                inner, shown_at = pair[::-1] if pair else (None, None)
            else:
                there = (
                    isinstance(here, yaml.SequenceNode) and isinstance(part, int) and part < len(here.value)
                )
                inner = shown_at = here.value[part] if isinstance(here, yaml.SequenceNode) and there else None
            if inner is None or shown_at is None:
                break
            here, found = inner, line(shown_at)
        return found

    return line_of


def read_json(text: str, path: str | Path) -> Any:
    """Parse a JSON document; numbers stay texts, and a key that comes twice is an error."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in pairs:
            if key in found:
                raise UsageError(f"{path}: the key {key!r} occurs twice.")
            found[key] = value
        return found

    try:
        return json.loads(text, object_pairs_hook=unique, parse_int=str, parse_float=str)
    except json.JSONDecodeError as error:
        raise UsageError(f"{path}, line {error.lineno}: this is not valid JSON ({error.msg}).") from error
    except RecursionError as error:
        raise UsageError(f"{path} is not JSON of the expected form.") from error
