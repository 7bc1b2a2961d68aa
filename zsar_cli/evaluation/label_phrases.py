"""What stands for the labels of an evaluation in the prompts, where they are described."""

from __future__ import annotations

from zsar_cli.errors import UsageError
from zsar_cli.evaluation.protocols import Plan
from zsar_cli.text.class_lists import NameMatcher
from zsar_cli.text.labels import load_labels


def described(descriptions: str | None, plan: Plan) -> dict[str, tuple[str, ...]]:
    """Find the descriptions of the plan's labels; a label without any stands for itself."""
    if descriptions is None:
        return {}
    described = load_labels(descriptions)
    matcher = NameMatcher(described.names)
    labels = list(dict.fromkeys(label for part in plan.parts for label in part.labels))
    found = {label: matcher.find(label) for label in labels}
    phrases = {label: described.phrases[place] for label, place in found.items() if place is not None}
    if not phrases:
        raise UsageError(
            f"{descriptions} describes none of the labels, such as {labels[0]!r}. Check its names."
        )
    if len(phrases) < len(labels):
        bare = [label for label in labels if label not in phrases]
        plan.notes.append(f"{len(bare)} of {len(labels)} labels have no description, such as {bare[0]!r}")
    return phrases
