"""Answers compared by what they say: floating-point numbers within a tolerance, everything else exactly.

A sum in another order, another batch or another processor differs in the last digits. The same answer is one within
1e-5 (in fp32), not one with the same bytes.
"""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

TOLERANCE = 1e-5


def assert_close(found: Any, expected: Any, tolerance: float = TOLERANCE, where: str = "") -> None:
    """Fail, with the place of the difference, unless two nested values agree.

    Dicts, lists and tuples are compared entry by entry, floats and float tensors within ``tolerance`` (absolute, and
    relative for what is larger than 1), everything else (counts, ranks, names, None) exactly.
    """
    place = where or "the whole"
    if isinstance(expected, dict):
        assert isinstance(found, dict), f"{place}: {found!r} is no dict"
        assert found.keys() == expected.keys(), f"{place}: {[*found]}, not {[*expected]}"
        for key, value in expected.items():
            assert_close(found[key], value, tolerance, f"{where}.{key}")
    elif isinstance(expected, (list, tuple)):
        assert isinstance(found, (list, tuple)), f"{place}: {found!r} is no list"
        assert len(found) == len(expected), f"{place}: {len(found)} entries, not {len(expected)}"
        for number, (ours, theirs) in enumerate(zip(found, expected, strict=True)):
            assert_close(ours, theirs, tolerance, f"{where}[{number}]")
    elif isinstance(expected, Tensor):
        torch.testing.assert_close(
            found, expected, atol=tolerance, rtol=tolerance, msg=lambda text: f"{place}: {text}"
        )
    elif isinstance(expected, float) or isinstance(found, float):
        assert _near(found, expected, tolerance), f"{place}: {found!r}, not {expected!r}"
    else:
        assert found == expected, f"{place}: {found!r}, not {expected!r}"


def assert_same_lines(found: str, expected: str, tolerance: float = TOLERANCE) -> None:
    """JSON Lines, record by record."""
    ours, theirs = ([json.loads(line) for line in text.splitlines()] for text in (found, expected))
    assert_close(ours, theirs, tolerance)


def assert_same_file(found: Path, expected: Path, tolerance: float = TOLERANCE) -> None:
    """JSON, JSON Lines, CSV or safetensors, by content."""
    assert_close(_read(found), _read(expected), tolerance, expected.name)


def _read(path: Path) -> Any:
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return dict(sorted(load_file(path).items()))
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".json":
        return json.loads(text)
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in text.splitlines()]
    assert path.suffix == ".csv", f"{path}: of a kind that nobody compares yet"
    return [[_number(cell) for cell in row] for row in csv.reader(text.splitlines())]


def _number(cell: str) -> Any:
    try:
        return int(cell)
    except ValueError:
        pass
    try:
        return float(cell)
    except ValueError:
        return cell


def _near(found: Any, expected: Any, tolerance: float) -> bool:
    if not all(isinstance(value, (int, float)) for value in (found, expected)):
        return False
    if math.isnan(expected):
        return math.isnan(found)
    return math.isclose(found, expected, rel_tol=tolerance, abs_tol=tolerance)
