"""Lists of suggested models (``--list-models``) and of built-in label lists (``--list-labels``)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from zsar_cli.files import ASSETS, read_text
from zsar_cli.yaml_files import parse

OTHERS = "Others: any ARCH/TAG of open_clip, ARCH/path/to/weights, or a folder written by zsar train."


@dataclass(frozen=True)
class SuggestedModel:
    """A suggested model; ``parameters`` in millions, of both towers."""

    name: str
    parameters: float
    licence: str
    use: str


def suggested_models() -> list[SuggestedModel]:
    """List the bundled model, the default model, and some others."""
    return [SuggestedModel(**entry) for entry in parse(read_text(ASSETS / "models.yaml"))]


def licence_of(name: str) -> str | None:
    """Say under which licence a model's weights are published; None where that is not known."""
    from zsar_cli.model.published.records import families, named_family, open_clips

    known = next((model.licence for model in suggested_models() if model.name == name), None)
    if known is not None:
        return known
    named = named_family(name)
    record = open_clips(name) if named is None else families()[named[0]]
    return None if record is None else record.licence


def model_lines() -> list[str]:
    """Format one line per model: name, parameters, licence, and use."""
    return _aligned([(m.name, f"{m.parameters:g} M", m.licence, m.use) for m in suggested_models()])


def published_lines() -> list[str]:
    """Format a line a published file: name, licence, size, zero-shot top-1 on UCF101, HMDB51 and K600, its needs."""
    from zsar_cli.model.published.records import families

    rows: list[tuple[str, ...]] = [("published", "size", "licence", "UCF / HMDB / K600", "needs")]
    for name, family in families().items():
        for file in family.files:
            public = file.url or file.hub
            values = " / ".join(f"{value:.1f}" for value in file.values) if file.values else "-"
            needs = ", ".join(filter(None, [family.needs, "" if public else "a file fetched by hand"]))
            spec = f"{name}:{file.name}" if public else f"{name}:PATH ({file.name})"
            rows.append((spec, file.size or "-", family.licence, values, needs))
    return _aligned(rows)


def label_lines() -> list[str]:
    """Format one line per built-in list: its name and number of labels."""
    from zsar_cli.text.class_lists import class_names, list_names

    return _aligned([(name, f"{len(class_names(name))} labels") for name in list_names()])


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Align columns with two spaces between them; the second column is right-aligned."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [
            cell.rjust(width) if place == 1 else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return lines
