"""Named subsets of a data set's classes: base and novel halves, Kinetics-600 thirds, temporal and static."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence
from typing import TypeVar

from zsar_cli.errors import UsageError
from zsar_cli.text.class_lists import class_list

# Protocols speak of seen and unseen classes; the published halves are called base and novel.
SYNONYMS = {"seen": "base", "unseen": "novel"}

T = TypeVar("T")


def split_classes(dataset: str, split: str) -> tuple[str, ...]:
    """List the classes of a split, in its published order (its lists count labels in that order).

    ``split`` is "all", a split of the built-in list, or "seen"/"unseen" for its base and novel halves.
    UsageError where the list has no such split.
    """
    known = class_list(dataset)
    if split == "all":
        return known.names
    for name in (split, SYNONYMS.get(split, split)):
        if name in known.splits:
            return known.splits[name]
    choices = ", ".join(["all", *known.splits])
    raise UsageError(f"{known.name} has no split {split!r}. It has: {choices}.")


def few_shot(items: Sequence[T], labels: Sequence[int], shots: int, *, seed: int = 0) -> list[T]:
    """Draw ``shots`` items of each class, the same for a seed, in their original order.

    A class with fewer gives all it has. A larger ``shots`` with the same seed contains the smaller draw.
    """
    by_class: dict[int, list[int]] = defaultdict(list)
    for position, label in enumerate(labels):
        by_class[label].append(position)
    chosen: list[int] = []
    for label, positions in sorted(by_class.items()):
        random.Random(f"{seed}/{label}").shuffle(positions)
        chosen += positions[:shots]
    return [items[position] for position in sorted(chosen)]
