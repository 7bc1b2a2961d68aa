"""Labels: names of actions, each with one or more phrases that describe it."""

from __future__ import annotations

import difflib
import hashlib
import json
import logging
import os
import shlex
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zsar_cli import checks
from zsar_cli.errors import UsageError
from zsar_cli.files import beside, existing
from zsar_cli.text.class_files import read_class_file
from zsar_cli.text.class_lists import class_names, list_names, normalise_name
from zsar_cli.text.class_maps import Entry
from zsar_cli.text.words import as_words

logger = logging.getLogger(__name__)

NONE_OF_THESE = "none of these"  # the answer where no label fits
FORMS = (".txt", ".csv", ".tsv", ".yaml", ".yml", ".json", ".jsonl")


@dataclass(frozen=True)
class Labels:
    """C labels, each with the phrases that represent it in prompts (the label itself, or descriptions)."""

    names: tuple[str, ...]
    phrases: tuple[tuple[str, ...], ...]

    def __len__(self) -> int:
        return len(self.names)

    @property
    def hash(self) -> str:
        """16 hex digits of SHA-256 over the labels and their phrases, whatever the labels' order."""
        named = sorted(zip(self.names, self.phrases, strict=True))
        return hashlib.sha256(json.dumps(named).encode()).hexdigest()[:16]


def labels_of(labels: Any) -> Labels:
    """Convert labels given in Python: a list of labels, a file, or a built-in list. Raises UsageError."""
    if isinstance(labels, Labels):
        if not labels.names:
            raise UsageError("labels must hold at least one label.")
        return labels
    if isinstance(labels, (str, os.PathLike)):
        return load_labels(checks.text("labels", labels))
    return load_labels(None, checks.label_texts(labels))


def labels_among(wanted: Sequence[str], labels: Sequence[str], option: str) -> list[str]:
    """Look up labels among those of a run, without duplicates. UsageError for an unknown one."""
    known = {label.casefold(): label for label in labels}
    for label in wanted:
        if label.casefold() not in known:
            near = difflib.get_close_matches(label.casefold(), known, 1)
            hint = f"did you mean {known[near[0]]!r}?" if near else "use one of the given labels."
            raise UsageError(f"{option} {label!r} is not one of the {len(known)} labels; {hint}")
    return list(dict.fromkeys(known[label.casefold()] for label in wanted))


def load_labels(spec: str | None, extra: Sequence[str] = ()) -> Labels:
    """Read labels from a file or a built-in list, and append ``extra``.

    ``spec`` is a file that :func:`~zsar_cli.text.class_files.read_class_file` reads, or the name of a built-in list.

    Raises:
        UsageError: nothing there, not readable as that kind, an empty list, an empty label or a duplicate one.
    """
    entries = _load(spec) if spec is not None else []
    entries += [Entry(label, (), "--label") for label in extra]
    if not entries:
        if spec is None:
            raise UsageError("No labels are given; use --labels FILE or --label TEXT.")
        raise UsageError(f"{spec} has no labels.")
    names = clean_names([(entry.name, entry.where) for entry in entries])
    phrases = (
        tuple(clean(phrase, entry.where) for phrase in entry.phrases) or (as_words(name),)
        for name, entry in zip(names, entries, strict=True)
    )
    return Labels(names, tuple(phrases))


def class_labels(model: str) -> Labels | None:
    """Read the classes that a folder of ``zsar train`` was trained on, as labels; None for any other model."""
    from zsar_cli.model.config import classes_of

    found = classes_of(model)
    return Labels(tuple(found), tuple((phrase,) for phrase in found.values())) if found else None


def _load(spec: str) -> list[Entry]:
    path = existing(spec)
    if path is None:
        return [Entry(name, (), spec) for name in _built_in(spec)]
    if path.is_dir():
        raise UsageError(f"{spec} is a directory; give a label file ({', '.join(FORMS)}).")
    return read_class_file(path)


def _built_in(spec: str) -> tuple[str, ...]:
    try:
        return class_names(spec)
    except UsageError as error:
        names = list_names()
        if "://" in spec:
            raise UsageError(f"{spec[:200]} is a URL; download it and give the file.") from error
        if spec and ("/" in spec or "\\" in spec or Path(spec[:200]).suffix.lower() in FORMS):
            raise UsageError(f"The file {spec[:200]} does not exist{beside(spec)}") from error
        close = difflib.get_close_matches(spec.casefold(), names, n=1, cutoff=0.6)
        hint = f"did you mean {close[0]}?" if close else f"the lists are {', '.join(names)}."
        if not close and 0 < len(spec) < 200:
            # what was typed after --labels is mostly a label itself, or several with commas
            parts = [part.strip() for part in spec.split(",")][:3]
            several = " ".join(f"--label {shlex.quote(part)}" for part in parts if part)
            hint = (
                f"the lists are {', '.join(names)}. Labels themselves are given one by one "
                f"({several}; in Python a list)."
            )
        raise UsageError(f"{spec[:200]} is neither a label file nor a built-in list; {hint}") from error


# --- what a label may be ------------------------------------------------------------------------------------

_LONGEST = 10_000  # characters: the context of a text tower is some 77 tokens
# Marks that show nothing; the joiners of Persian and emoji, and Hebrew's and Arabic's own marks, do show and stay
_INVISIBLE = dict.fromkeys((0xFEFF, 0x200B, 0x2060, 0xAD, *range(0x202A, 0x202F), *range(0x2066, 0x206A)))


def clean(text: object, where: str) -> str:
    """Clean a label or phrase for showing and embedding: composed letters, single blanks, nothing invisible.

    Raises:
        UsageError: it is empty, not a text, very long, or holds what no terminal, file or tokenizer should get.
    """
    if not isinstance(text, str):
        raise UsageError(f"{where}: labels must be strings, not {str(text)[:60]!r}.")
    text = " ".join(text.translate(_INVISIBLE).split())
    if not text:
        raise UsageError(f"{where}: a label or description is empty.")
    if len(text) > _LONGEST:
        raise UsageError(f"{where}: a label has {len(text)} characters; is this the right file?")
    if text.isascii() and text.isprintable():
        return text
    odd = next((letter for letter in text if unicodedata.category(letter) in ("Cc", "Cs")), None)
    if odd is not None:
        raise UsageError(
            f"{where}: {text[:60]!a} contains a character that cannot be printed ({odd!a}); is the file damaged?"
        )
    return unicodedata.normalize("NFC", text)


def clean_names(names: Iterable[tuple[Any, str]]) -> tuple[str, ...]:
    """Clean labels given as (text, where it stands); every way in goes through here.

    Raises:
        UsageError: what :func:`clean` raises; two that differ in case alone; the name of "none of these".
    """
    seen: dict[str, tuple[str, str]] = {}
    spelled: dict[str, str] = {}
    alike: list[tuple[str, str]] = []
    for text, where in names:
        name = clean(text, where)
        key = name.casefold()  # tokenizers lower the case
        key = key if key.isascii() else unicodedata.normalize("NFC", key)
        if key in seen:
            raise UsageError(f"The label {name!r} occurs twice ({seen[key][1]}; {where}).")
        if key == NONE_OF_THESE:
            raise UsageError(
                f"{where}: {name!r} is reserved for videos that no label fits (--min-confidence); remove it."
            )
        seen[key] = name, where
        loose = normalise_name(name)
        if loose and spelled.setdefault(loose, name) != name:
            alike.append((spelled[loose], name))
    if alike:
        more = f", and {len(alike) - 1} more pairs" if len(alike) > 1 else ""
        logger.warning(
            "the labels %r and %r%s differ only in punctuation and will share their score", *alike[0], more
        )
    return tuple(name for name, _ in seen.values())
