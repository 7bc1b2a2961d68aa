"""What a run says on a terminal at its start and end: what runs on what, what was answered or written, what is next."""

from __future__ import annotations

import os
import re
import shlex
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zsar_cli.prediction.records import NONE_OF_THESE, answers_of

if TYPE_CHECKING:
    from zsar_cli.model.zsar import RecognizerModel

MOST_LABELS = 5  # named at the end
# fmt: off
FILLER = {"a", "an", "the", "of", "in", "on", "to", "with", "and", "or", "while", "at", "from", "up", "down"}
# fmt: on


def start_line(
    model: RecognizerModel,
    *,
    frames: int,
    labels: str,
    videos: str,
    places: Iterable[Path | None],
    precision: str | None = None,
) -> str:
    """Name model, device, precision, frames, labels and videos as they are counted, and where the run writes."""
    written = " and ".join(dict.fromkeys(str(place) for place in places if place is not None))
    on = f"{model.name} on {model.backbone.device} in {precision or model.backbone.precision}"
    return f"{on}, {counted(frames, 'frame')}, {labels}; {videos}, to {written or 'standard output'}."


def stray_labels_line(videos: Sequence[str]) -> str | None:
    """About an argument that is taken for a video and reads like a label: no such file, no folder, no ending."""
    stray = [v for v in videos if v != "-" and not os.path.lexists(v) and not re.search(r"[./\\:*?\[]", v)]
    if not stray or len(videos) == 1 or all(text.isdecimal() for text in stray):
        return None
    options = " ".join(f"--label {shlex.quote(text)}" for text in stray[:3])
    return f"{stray[0]!r} is taken for a video. Labels have --label before each: {options}"


def unlike_training(labels: Sequence[str], classes: Sequence[str]) -> list[str]:
    """Find the labels that share no word with any class of a training, where there was one."""

    def words(text: str) -> set[str]:
        return set("".join(c if c.isalnum() else " " for c in text.lower()).split()) - FILLER

    known = {word for name in classes for word in words(name)}
    return [label for label in labels if known and not words(label) & known]


def unlike_training_line(labels: Sequence[str], model: RecognizerModel) -> str | None:
    """Describe labels unlike those that a model was trained on; None where there are none of them."""
    from zsar_cli.model.config import BUNDLED

    strange = unlike_training(labels, (model.trained_on or {}).get("classes") or ())
    if not strange:
        return None
    about = f"{len(strange)} of {counted(len(labels), 'label')}, such as {strange[0]!r}, share no word with the classes"
    if len(labels) == 1:
        about = f"The label {strange[0]!r} shares no word with the classes"
    if model.name in BUNDLED:
        return f"{about} of {model.name}, which knows rendered shapes alone: answers about them mean nothing."
    return f"{about} that {model.name} was trained on: it judges by the words alone, and unknown is not reliable."


def answers_in(record: dict[str, Any]) -> set[str]:
    """Collect the labels that a record answers; of a timeline all that occur, and none only where nothing else does."""
    if "error" in record:
        return set()
    if "segments" in record:
        occur = {label for segment in record["segments"] for label in answers_in(segment)}
        return occur - {NONE_OF_THESE} or occur
    if "answers" in record or "answer" in record:
        return set(answers_of(record)) or {NONE_OF_THESE}
    return {record["predictions"][0]["label"]}


def tally_line(tally: Counter[str]) -> str:
    """Count the videos of each label, the most frequent first, and those of none."""
    none = tally[NONE_OF_THESE]
    found = [(label, count) for label, count in tally.most_common() if label != NONE_OF_THESE]
    parts = [f"{label} {count}" for label, count in found[:MOST_LABELS]]
    if len(found) > MOST_LABELS:
        parts.append(
            f"{len(found) - MOST_LABELS} more labels {sum(count for _, count in found[MOST_LABELS:])}"
        )
    if none:
        parts.append(f"{NONE_OF_THESE} {none}")
    return "Answers: " + ", ".join(parts) + "."


def counted(number: int, what: str) -> str:
    """Format a number and what it counts, in the plural where it is not one."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
