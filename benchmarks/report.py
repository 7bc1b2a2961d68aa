"""Tables and ratios as JSON and Markdown."""

from __future__ import annotations

import json
import os
import platform
import re
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from benchmarks.measure import Figure

BEGIN, END = "<!-- bench:begin -->", "<!-- bench:end -->"


@dataclass
class Results:
    """What was measured, in the order in which it was."""

    quick: bool = False
    tables: list[dict[str, Any]] = field(default_factory=list)
    ratios: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    other_load: float = 0.0
    gpu: str = "not measured"

    def table(self, title: str, header: list[str], rows: list[list[str]], figures: dict[str, Any]) -> None:
        """A table for people, and the figures behind it."""
        self.tables.append(
            {
                "title": title,
                "header": header,
                "rows": rows,
                "figures": _plain(figures),
                "cpu": cpu(),
            }
        )

    def ratio(
        self, what: str, value: float, *, at_least: float | None = None, at_most: float | None = None
    ) -> None:
        """A ratio that must reach something."""
        met = (at_least is None or value >= at_least) and (at_most is None or value <= at_most)
        self.ratios.append(
            {
                "what": what,
                "value": value,
                "at_least": at_least,
                "at_most": at_most,
                "met": met,
                "cpu": cpu(),
            }
        )

    def note(self, text: str) -> None:
        """A sentence below the tables."""
        self.notes.append(text)

    def to_json(self) -> dict[str, Any]:
        """Everything, and the machine."""
        return {
            "machine": machine() | {"gpu": self.gpu},
            "other_load": self.other_load,
            "ratios": self.ratios,
            "tables": self.tables,
            "notes": self.notes,
        }

    def put_into(self, earlier: dict[str, Any]) -> None:
        """Keep of an earlier run (its JSON) what was not measured again, in its place."""

        def merged(old: list[Any], new: list[Any], key: str) -> list[Any]:
            fresh = {entry[key]: entry for entry in new}
            old = [{"cpu": earlier["machine"]["cpu"]} | entry for entry in old]
            return [fresh.pop(entry[key], entry) for entry in old] + list(fresh.values())

        self.ratios = merged(earlier["ratios"], self.ratios, "what")
        self.tables = merged(earlier["tables"], self.tables, "title")
        notes = {re.split(r"\d", note)[0]: note for note in earlier["notes"] + self.notes}
        self.notes = list(notes.values())  # the same sentence with other figures is the newer one
        self.other_load = max(self.other_load, earlier["other_load"])

    def markdown(self) -> str:
        """What people read."""
        about = machine()
        lines = [
            f"Measured on {about['cpu']}, {about['cores']} cores, {about['memory_gb']} GB; torch {about['torch']}, "
            f"open_clip {about['open_clip']}; others used {100 * self.other_load:.0f}% of the cores meanwhile. "
            f"Median of the turns, with the least and the greatest. GPU: {self.gpu}.",
            "",
        ]
        if self.ratios:
            lines += ["| ratio | measured | aim | |", "|---|---|---|---|"]
            for ratio in self.ratios:
                aim = (
                    f"at least {ratio['at_least']:g}"
                    if ratio["at_least"] is not None
                    else f"at most {ratio['at_most']:g}"
                )
                value = f"{ratio['value']:.{4 if ratio['value'] < 0.1 else 2}f}"
                met = "met" if ratio["met"] else "**missed**"
                lines.append(f"| {ratio['what']}{_elsewhere(ratio)} | {value} | {aim} | {met} |")
            lines.append("")
        for table in self.tables:
            lines += table_lines(table["title"] + _elsewhere(table), table["header"], table["rows"])
        return "\n".join(lines + [f"- {note}" for note in self.notes]).rstrip() + "\n"


def _elsewhere(entry: dict[str, Any]) -> str:
    """Name the processor of an earlier run, where that was another one."""
    return "" if entry["cpu"] == cpu() else f" ({entry['cpu']})"


def write(results: Results, folder: Path, page: Path) -> None:
    """The results as files in ``folder``, and as the marked part of ``page``."""
    folder.mkdir(parents=True, exist_ok=True)
    text = results.markdown()
    (folder / "performance.json").write_text(json.dumps(results.to_json(), indent=1) + "\n", encoding="utf-8")
    (folder / "performance.md").write_text(text, encoding="utf-8")
    page.write_text(replaced(page.read_text(encoding="utf-8"), text), encoding="utf-8")


def replaced(page: str, text: str) -> str:
    """The page with ``text`` between its marks."""
    before, _, rest = page.partition(BEGIN)
    _, mark, after = rest.partition(END)
    if not mark:
        raise ValueError(f"the page has no {BEGIN} ... {END}")
    return f"{before}{BEGIN}\n{text}{END}{after}"


@cache
def cpu() -> str:
    """Name the processor, and what of bf16 it has, which speeds depend on."""
    kinds = [name for name in ("avx512_bf16", "amx_bf16") if name in _told("flags")]
    return processor() + (f" with {', '.join(kinds)}" if kinds else "")


def processor() -> str:
    """Name the processor as the machine does."""
    return _told("model name") or platform.processor() or platform.machine()


def _told(what: str) -> str:
    """Read what Linux says of the first core; empty elsewhere."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith(what):
                return line.partition(":")[2].strip()
    return ""


def machine() -> dict[str, Any]:
    """What the figures hold for."""
    import open_clip
    import psutil
    import torch

    return {
        "cpu": cpu(),
        "cores": os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 2**30),
        "torch": torch.__version__,
        "open_clip": open_clip.__version__,
        "python": platform.python_version(),
    }


def table_lines(title: str, header: list[str], rows: list[list[str]]) -> list[str]:
    """A table as Markdown."""
    return [f"**{title}**", "", *map(_row, [header, ["---"] * len(header), *rows]), ""]


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _plain(value: Any) -> Any:
    if isinstance(value, Figure):
        return value.to_json()
    if isinstance(value, dict):
        return {str(key): _plain(entry) for key, entry in value.items()}
    return value
