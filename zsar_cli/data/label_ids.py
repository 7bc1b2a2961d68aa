"""Which class each number in a list stands for.

Lists count all classes or those of a split, from 0 or from 1, and some do not follow the class list that is
published beside them. So names go before places: a number means the class that the paths of its rows name.
Only where they name none does an order of classes decide.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from zsar_cli.data.rows import Row
from zsar_cli.errors import UsageError
from zsar_cli.text.class_lists import ClassList, NameMatcher
from zsar_cli.video.find import VIDEO_ENDINGS

UCF_NAME = re.compile(r"^v_(\w+?)_g\d+_c\d+$")
# TITLE_CLASS_body_camera_people_direction_quality_number
_HMDB_NAME = re.compile(r"^(.+)_[hulf]_(?:cm|nm)_np\d+_(?:ba|fr|le|ri)_(?:goo|med|bad)_\d+$")
_LONGEST_NAME = 8  # words of a class name that are looked for in a file's name
_AGREEMENT = 0.9  # of the rows that name a class


@dataclass(frozen=True)
class Numbering:
    """The class of each number, and how that is known."""

    classes: dict[int, str]
    order: str  # "all", the split whose classes the numbers count, or "" where they follow neither
    notes: tuple[str, ...]


def read_numbers(
    rows: Sequence[Row],
    known: ClassList,
    *,
    subset: str | None = None,
    list_name: str = "",
    matcher: NameMatcher | None = None,
) -> Numbering:
    """Find the class that each number of a list stands for.

    Args:
        rows: the list; rows whose label is no number, or a negative one ("no label"), take no part.
        known: all classes, in their published order, and their splits.
        subset: the split that was asked for; "all" says that the numbers count all classes.
        list_name: file name of the list, with its folder: it may name the split.

    Raises:
        UsageError: no paths name classes, and the numbers fit several orders or none.
    """
    matcher = matcher or NameMatcher(known.names, known.aliases)
    numbers = sorted({row.label for row in rows if isinstance(row.label, int) and row.label >= 0})
    if not numbers:
        return Numbering({}, "", ())
    orders = {"all": known.names, **known.splits}
    votes = {number: known.names[place] for number, place in class_votes(rows, matcher).items()}
    if votes:
        order, offset = _closest_order(votes, orders)
        why = "as most names in the paths say"
    else:
        order, offset, why = _order_without_names(numbers, orders, subset, list_name, known.name)
    names = orders.get(order, ())
    taken = set(votes.values())
    classes = dict(votes)
    for number in numbers:
        place = number - offset
        if number not in votes and 0 <= place < len(names) and names[place] not in taken:
            classes[number] = names[place]
    notes = []
    if votes:
        odd = [n for n, name in sorted(votes.items()) if names[n - offset : n - offset + 1] != (name,)]
        text = f"{len(votes)} of {len(numbers)} numbers determined by the names in the paths"
        if odd and order:
            shown = ", ".join(f"{n} is {votes[n]}" for n in odd[:6])
            text += f", {len(odd)} of them against the published order ({shown})"
        notes.append(text)
        wrong = _disagreeing(rows, classes, known, matcher)
        if wrong:
            notes.append(f"{wrong} rows have a number whose class is not the one their path names")
    if order:
        title = "all classes" if order == "all" else f"the {len(names)} classes of {order}"
        notes.append(f"labels count {title} from {offset}, {why}")
    return Numbering(classes, order, tuple(notes))


# --- by name ------------------------------------------------------------------------------------------------


def class_in_path(path: str, matcher: NameMatcher) -> int | None:
    """Index of the class that a path names, or None.

    UCF101 and HMDB51 say it in file names of a fixed form; elsewhere a folder does, or the file's name holds
    it as words. The longest name wins: ``..._sword_exercise`` is not "sword".
    """
    pure = PurePosixPath(path.replace("\\", "/"))
    stem = pure.stem if pure.suffix[1:].lower() in VIDEO_ENDINGS else pure.name
    if match := UCF_NAME.match(stem):
        return matcher.find(match[1])
    if match := _HMDB_NAME.match(stem):
        words = match[1].split("_")
        for count in range(min(_LONGEST_NAME, len(words)), 0, -1):
            if (found := matcher.find(" ".join(words[-count:]))) is not None:
                return found
    for folder in reversed(pure.parts[:-1]):
        if (found := matcher.find(folder)) is not None:
            return found
    words = [word for word in re.split(r"[\W_]+", stem) if word]
    for count in range(min(_LONGEST_NAME, len(words)), 0, -1):
        runs = (" ".join(words[start : start + count]) for start in range(len(words) - count + 1))
        named = {place for run in runs if (place := matcher.find(run)) is not None}
        if named:
            return named.pop() if len(named) == 1 else None
    return None


def class_votes(rows: Iterable[Row], matcher: NameMatcher) -> dict[int, int]:
    """Find the class of each number whose rows' paths agree on one that no other number has, as its index."""
    votes: dict[int, Counter[int | None]] = defaultdict(Counter)
    for row in rows:
        if isinstance(row.label, int) and row.label >= 0:
            votes[row.label][class_in_path(row.path, matcher)] += 1
    won: dict[int, int] = {}
    for number, counts in votes.items():
        silent = counts.pop(None, 0)
        named = sum(counts.values())
        if named and named >= silent:  # one odd file name among many without a class says nothing
            (winner, most) = counts.most_common(1)[0]
            if winner is not None and most >= _AGREEMENT * named:
                won[number] = winner
    claims = Counter(won.values())
    return {number: place for number, place in won.items() if claims[place] == 1}


def _disagreeing(rows: Iterable[Row], classes: dict[int, str], known: ClassList, matcher: NameMatcher) -> int:
    count = 0
    for row in rows:
        if isinstance(row.label, int) and (place := class_in_path(row.path, matcher)) is not None:
            count += classes.get(row.label) != known.names[place]
    return count


# --- by place -----------------------------------------------------------------------------------------------


def _closest_order(votes: dict[int, str], orders: dict[str, tuple[str, ...]]) -> tuple[str, int]:
    """Choose the order, and its first number, that agrees with most of the votes; ("", 0) if with few."""
    best, best_hits = ("", 0), 0
    for title, names in orders.items():
        for offset in (0, 1):
            hits = sum(
                names[n - offset : n - offset + 1] == (name,) for n, name in votes.items() if n >= offset
            )
            if hits > best_hits:
                best, best_hits = (title, offset), hits
    return best if 2 * best_hits > len(votes) else ("", 0)


def _order_without_names(
    numbers: Sequence[int],
    orders: dict[str, tuple[str, ...]],
    subset: str | None,
    list_name: str,
    data: str,
) -> tuple[str, int, str]:
    """Find order, first number and reason by the range of the numbers, the list's name and what was asked for."""
    low, high = numbers[0], numbers[-1]
    fitting = {}
    for title, names in orders.items():
        offset = 1 if low == 1 and high == len(names) else 0
        if high - offset < len(names):
            fitting[title] = offset
    if not fitting:
        count = len(orders["all"])
        raise UsageError(
            f"The labels of {list_name or 'the list'} range up to {high}, but {data} has only {count} classes. "
            "Check --data, or give the classes with --labels."
        )
    named = split_in_name(list_name, [title for title in fitting if title != "all"])
    if named is not None:
        if subset in orders and subset not in ("all", named):
            raise UsageError(
                f"{list_name} seems to number the classes of {named}, but {subset} was requested. "
                f"Give --split {named}, or another list."
            )
        if subset != "all":
            return named, fitting[named], "as the list's name says"
    if subset in fitting:
        return str(subset), fitting[str(subset)], "as --split says and their range allows"
    others = [title for title in fitting if title != "all"]
    if others and len(orders["all"]) > high + 1 - fitting["all"]:
        raise UsageError(
            f"{list_name or 'The list'} has labels {low} to {high} and no class names, so the numbers could "
            f"count all {len(orders['all'])} classes of {data} or those of {', '.join(others)}. "
            f"Select one with --split ({', '.join([*others, 'all'])})."
        )
    return "all", fitting["all"], "by their range"


def split_in_name(list_name: str, splits: Iterable[str]) -> str | None:
    """Find the split that a list's file or folder is named after: ``ZS_split1_K600_eval.txt`` is split1."""
    splits = list(splits)
    for part in reversed(PurePosixPath(list_name.replace("\\", "/")).parts[-2:]):
        words = set(re.findall(r"[a-z]+\d*", part.lower().replace("split_", "split")))
        words |= {word.rstrip("0123456789") for word in words}  # temporal32
        found = [name for name in splits if name.lower() in words]
        if len(found) == 1:
            return found[0]
    return None
