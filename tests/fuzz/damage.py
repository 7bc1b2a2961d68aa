"""What happens to files: bytes lost and changed, headers that lie, texts and trees that are not what they should be."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from typing import Any

LIES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 2**63 - 1, 2**64 - 1)


def damage_bytes(data: bytes, rng: random.Random) -> tuple[str, bytes]:
    """(kind of damage, damaged copy) of a file's bytes."""
    kind = rng.choice(sorted(BYTE_DAMAGE))
    return kind, BYTE_DAMAGE[kind](data, rng)


def _span(data: bytes, rng: random.Random) -> tuple[int, int]:
    start = rng.randrange(len(data) + 1)
    return start, min(len(data), start + int(2 ** rng.uniform(0, 12)))


def _cut(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data) + 1)]


def _flip(data: bytes, rng: random.Random, start: float = 0.0, end: float = 1.0) -> bytes:
    found = bytearray(data)
    low, high = int(len(data) * start), max(int(len(data) * end), 1)
    for _ in range(rng.choice((1, 1, 2, 8, 64))):
        if low < min(high, len(data)):
            found[rng.randrange(low, min(high, len(data)))] ^= 1 << rng.randrange(8)
    return bytes(found)


def _lie(data: bytes, rng: random.Random) -> bytes:
    """A number in a header becomes one that no file has."""
    size = rng.choice((1, 2, 4, 8))
    area = rng.choice((128, 1024, len(data)))
    place = rng.randrange(max(1, min(area, len(data)) - size + 1))
    if rng.random() < 0.3:
        place = max(0, len(data) - place - size)  # indices stand at the end of many files
    value = rng.choice(LIES) % 256**size
    return data[:place] + value.to_bytes(size, rng.choice(("big", "little"))) + data[place + size :]


def _replace_span(filler: Callable[[int, random.Random], bytes]) -> Callable[[bytes, random.Random], bytes]:
    def change(data: bytes, rng: random.Random) -> bytes:
        start, end = _span(data, rng)
        return data[:start] + filler(end - start, rng) + data[end:]

    return change


def _swap(data: bytes, rng: random.Random) -> bytes:
    (a, b), (c, d) = sorted((_span(data, rng), _span(data, rng)))
    if b > c:
        return data[c:] + data[:c]
    return data[:a] + data[c:d] + data[b:c] + data[a:b] + data[d:]


def _repeat(data: bytes, rng: random.Random) -> bytes:
    start, end = _span(data, rng)
    return data[:end] + data[start:end] * rng.randrange(1, 20) + data[end:]


BYTE_DAMAGE: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "cut": _cut,
    "cut_nearly_whole": lambda data, rng: data[: len(data) - rng.randrange(1, 64)],
    "start_lost": lambda data, rng: data[rng.randrange(len(data) + 1) :],
    "bits": _flip,
    "bits_of_head": lambda data, rng: _flip(data, rng, 0.0, 0.05),
    "bits_of_tail": lambda data, rng: _flip(data, rng, 0.9, 1.0),
    "lie": _lie,
    "zeros": _replace_span(lambda size, rng: bytes(size)),
    "ones": _replace_span(lambda size, rng: b"\xff" * size),
    "noise": _replace_span(lambda size, rng: rng.randbytes(size)),
    "lost": _replace_span(lambda size, rng: b""),
    "swapped": _swap,
    "repeated": _repeat,
    "junk_before": lambda data, rng: rng.randbytes(rng.randrange(1, 600)) + data,
    "junk_behind": lambda data, rng: data + rng.randbytes(rng.randrange(1, 600)),
    "nothing_but_noise": lambda data, rng: rng.randbytes(rng.randrange(1, 4000)),
    "nothing_but_zeros": lambda data, rng: bytes(rng.randrange(1, 4000)),
    "empty": lambda data, rng: b"",
}

# --- texts ----------------------------------------------------------------------------------------------------

ODD_WORDS = (
    *(
        "nan",
        ".nan",
        "NaN",
        "-.inf",
        "1e999",
        "-1",
        "0",
        "99999999999999999999999999",
        "1.5",
        "0x10",
        "1_000",
    ),
    *(
        "null",
        "~",
        "true",
        "yes",
        "''",
        '""',
        "[]",
        "{}",
        "[[[[",
        "}}",
        "{} {}",
        "{0}",
        "{label}",
        "%s",
        "&a *a",
    ),
    *(
        "*nobody",
        "<<: *a",
        "!!binary x",
        "!!python/none",
        "!!timestamp 2001-99-99",
        "2001-13-45",
        "? [a]",
        "- - -",
    ),
    *(
        "\x00",
        "\x1b[2J",
        "\ufeff",
        "\u202e",
        "\ud83d".encode("utf-16", "surrogatepass").decode("utf-16", "replace"),
    ),
    *(
        "é" * 3,
        "日本語",
        "a" * 300,
        "/",
        "..",
        "../../etc/passwd",
        "/dev/zero",
        "~nobody/x",
        "a,b",
        "a;b",
        "\t",
        '"',
    ),
)
PAYLOAD_WORDS = (
    '!!python/object/apply:os.system ["touch {marker}"]',
    "!!python/object/apply:subprocess.check_call [[touch, {marker}]]",
    "!!python/object/apply:builtins.exec [\"open('{marker}', 'w')\"]",
)


def damage_text(data: bytes, rng: random.Random, marker: str) -> tuple[str, bytes]:
    """(kind, damaged copy) of a text: at the level of lines and words, or of bytes.

    ``marker`` is a file that only code hidden in the text would make.
    """
    if rng.random() < 0.25:
        return damage_bytes(data, rng)
    lines = data.decode("utf-8").split("\n")
    kind = rng.choice(("words", "words", "words", "payload", "lines", "indent", "encoding", "deep", "long"))
    if kind in ("words", "payload"):
        words = [word.format(marker=marker) for word in PAYLOAD_WORDS] if kind == "payload" else ODD_WORDS
        for _ in range(rng.choice((1, 1, 2, 5))):
            number = rng.randrange(len(lines))
            parts = re.split(r"(\W+)", lines[number])
            parts[rng.randrange(len(parts))] = rng.choice(words)
            lines[number] = "".join(parts)
    elif kind == "lines":
        for _ in range(rng.choice((1, 2, 10))):
            number = rng.randrange(len(lines))
            change = rng.choice(("drop", "double", "swap", "join"))
            if change == "drop" and len(lines) > 1:
                del lines[number]
            elif change == "double":
                lines.insert(number, lines[number])
            elif change == "swap":
                other = rng.randrange(len(lines))
                lines[number], lines[other] = lines[other], lines[number]
            elif number + 1 < len(lines):
                lines[number] += lines.pop(number + 1)
    elif kind == "indent":
        number = rng.randrange(len(lines))
        lines[number] = rng.choice((" ", "\t", "    ", "- ", "? ", ": ")) + lines[number].lstrip()
    elif kind == "encoding":
        codec = rng.choice(("utf-16", "utf-16-be", "utf-32", "latin-1", "cp1252"))
        return kind, "\n".join([*lines, "é"]).encode(codec, "replace")
    elif kind == "deep":
        opening, closing = rng.choice((("[", "]"), ('{"a":', "}"), ("- ", ""), ("{a: ", "}")))
        depth = rng.choice((10, 300, 3000))
        lines = [opening * depth + "1" + closing * depth]
    elif kind == "long":
        lines.insert(rng.randrange(len(lines) + 1), rng.choice(("a", "a ", "é", "[", "\t")) * 100_000)
    return kind, "\n".join(lines).encode("utf-8", "surrogatepass")


# --- trees of plain data (a YAML or JSON file as what it says) -------------------------------------------------

ODD_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 3, 10**9, 10**30, -(10**30), 0.5, -0.0, float("nan"), float("inf")),
    *(
        "",
        " ",
        "x",
        "é" * 50,
        "a" * 5000,
        "{}",
        "{} {}",
        "../..",
        "/",
        "\x00",
        "0",
        "-1",
        "1e9",
        "none",
        "auto",
    ),
    *([], {}, [[]], [None], [1, 2, 3], {"a": 1}, {"": None}, [{}], {"name": {"name": []}}, [0.5] * 40),
)


def damage_tree(tree: Any, rng: random.Random) -> tuple[str, Any]:
    """(kind, damaged copy): a value is exchanged, taken away, put twice, or gets another key."""
    kind = rng.choice(("value", "value", "value", "gone", "key", "wrapped"))
    places = list(_places(tree))
    where = rng.choice(places)
    if not where:
        return kind, rng.choice(ODD_VALUES)
    return kind, _changed(tree, where, kind, rng)


def _places(tree: Any, here: tuple[Any, ...] = ()) -> Any:
    yield here
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from _places(value, (*here, key))
    elif isinstance(tree, list):
        for number, value in enumerate(tree[:20]):
            yield from _places(value, (*here, number))


def _changed(tree: Any, where: tuple[Any, ...], kind: str, rng: random.Random) -> Any:
    copy: Any = dict(tree) if isinstance(tree, dict) else list(tree)
    first, rest = where[0], where[1:]
    if rest:
        copy[first] = _changed(tree[first], rest, kind, rng)
    elif kind == "gone":
        del copy[first]
    elif kind == "key" and isinstance(copy, dict):
        copy[rng.choice(("odd", "", "Name", "é", 5, None, first))] = copy.pop(first)
    elif kind == "wrapped":
        copy[first] = rng.choice(([copy[first]], {"value": copy[first]}, str(copy[first])))
    elif isinstance(copy[first], (int, float)) and rng.random() < 0.5:
        copy[first] = rng.choice(
            (copy[first] * 7, copy[first] + 1, -copy[first], copy[first] * 10**6, str(copy[first]))
        )
    else:
        copy[first] = rng.choice(ODD_VALUES)
    return copy
