"""Lines that a run prints at its start and end: model and device, labels, counts of answers."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zsar_cli.errors import UsageError
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
    places: Iterable[Path | str | None],
    precision: str | None = None,
) -> str:
    """Describe a run: model, device, precision, number of frames, labels and videos, and its outputs."""
    written = " and ".join(dict.fromkeys(str(place) for place in places if place is not None))
    on = f"{model.name} on {model.backbone.device} in {precision or model.backbone.precision}"
    return f"{on}, {counted(frames, 'frame')}, {labels}; {videos}, to {written or 'standard output'}."


def stray_labels_line(videos: Sequence[str]) -> str | None:
    """Warn of an argument that looks like a label, as it is no existing path and has no extension; None otherwise."""
    stray = [v for v in videos if v != "-" and not os.path.lexists(v) and not re.search(r"[./\\:*?\[]", v)]
    if not stray or len(videos) == 1 or all(text.isdecimal() for text in stray):
        return None
    options = " ".join(f"--label {shlex.quote(text)}" for text in stray[:3])
    return f"{stray[0]!r} is read as a video. If it is a label, put --label before it: {options}"


def stray_list_line(videos: Sequence[str]) -> str | None:
    """Warn of a list whose first line looks like a label, as it is no existing path and has no extension."""
    from zsar_cli.prediction.lists import kind_of_list, read_list
    from zsar_cli.video.address import is_remote

    for given in videos:
        if is_remote(given) or kind_of_list(given) != "text":
            continue
        with contextlib.suppress(UsageError):  # said when it is read
            first = next(read_list(given), ".")
            if not os.path.lexists(first) and not re.search(r"[./\\:]", first):
                return (
                    f"{given} is read as a list of videos. If it is a list of labels, put --labels before it."
                )
    return None


def unlike_training(labels: Sequence[str], classes: Sequence[str]) -> list[str]:
    """Find the labels that share no word with any training class; none if the model was not trained by zsar."""

    def words(text: str) -> set[str]:
        return set("".join(c if c.isalnum() else " " for c in text.lower()).split()) - FILLER

    known = {word for name in classes for word in words(name)}
    return [label for label in labels if known and not words(label) & known]


def unlike_training_line(labels: Sequence[str], model: RecognizerModel) -> str | None:
    """Warn of labels unlike the training classes of a model; None if there are none."""
    from zsar_cli.model.config import BUNDLED

    known = (model.trained_on or {}).get("classes") or ()
    if model.name in BUNDLED:
        from zsar_cli.data.scenes.phrases import vocabulary

        known = [*known, *vocabulary()]
    strange = unlike_training(labels, known)
    if not strange:
        return None
    about = f"{len(strange)} of {counted(len(labels), 'label')}, such as {strange[0]!r}, share no word with the classes"
    if len(labels) == 1:
        about = f"The label {strange[0]!r} shares no word with the classes"
    if model.name in BUNDLED:
        return (
            f"{about} of {model.name}, which was trained on camera movements and simple motions only: their answers "
            "are meaningless. zsar predict --list-models shows other models."
        )
    return f"{about} that {model.name} was trained on: they are zero-shot, and unknown is unreliable."


def answers_in(record: dict[str, Any]) -> set[str]:
    """Collect the answers of a record; of a timeline, all that occur, and "none of these" only if no other does."""
    if "error" in record:
        return set()
    if "segments" in record:
        occur = {label for segment in record["segments"] for label in answers_in(segment)}
        return occur - {NONE_OF_THESE} or occur
    if "answers" in record or "answer" in record:
        return set(answers_of(record)) or {NONE_OF_THESE}
    return {record["predictions"][0]["label"]}


def tally_line(tally: Counter[str]) -> str:
    """Format the number of videos per answer, the most frequent first, "none of these" last."""
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
    """Format a number and its noun, in the plural unless the number is 1."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
